"""Large sparse programs are walked in columns: the same answers as with tables, and as with dense linear algebra."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.distributions import Categorical
from oracles import endless
from programs_more import PAIRS
from selection import quick

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.algebra import arrivals, elimination
from rlinf_ppl.algebra.arrivals import FiniteArrival
from rlinf_ppl.algebra.columns import Gather
from rlinf_ppl.algebra.fixed_point import FixedPoint
from rlinf_ppl.algebra.regularizers import kl, negative_entropy, tsallis
from rlinf_ppl.algebra.tables import Table
from rlinf_ppl.inference import exact
from rlinf_ppl.inference.chains import answers, trajectories
from rlinf_ppl.inference.chains.policies import as_laws
from rlinf_ppl.program import read
from rlinf_ppl.program.evaluation import common_inverse_temperature
from rlinf_ppl.tasks import MDP

RNG = np.random.default_rng(12)
S, A, K = 12, 3, 2
SUCCESSORS = RNG.integers(0, S, (S, K))
BRANCHES = RNG.dirichlet(np.ones(K), (S, A))
REWARD = RNG.normal(size=(S, A))
PRIOR = RNG.dirichlet(np.ones(A), S)
PRIOR[2] = [0.0, 0.4, 0.6]
FIRST = RNG.dirichlet(np.ones(S))


def in_both(function, *args):
    """What a function of arrays gives with tables, and what it gives with columns."""
    found = []
    for fewest in (10**9, 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(arrivals, "FEWEST_STATES", fewest)
            found.append(eqx.filter_jit(lambda *args: function(*args))(*args))
    return found


def assert_same(found, rtol=1e-12, atol=1e-12):
    tables, columns = (jax.tree.leaves(each) for each in found)
    for expected, given in zip(tables, columns, strict=True):
        np.testing.assert_allclose(given, expected, rtol=rtol, atol=atol)


def sparse(beta=1.0, reward=REWARD, successors=SUCCESSORS, discount=0.9, horizon=None):
    mdp = MDP.sparse(successors, BRANCHES, reward, FIRST)
    return models.single_agent(mdp, horizon, beta, PRIOR, discount)


@pytest.mark.parametrize("fewest, kind", [(S + 1, FiniteArrival), (S, Gather)])
def test_columns_are_for_many_states(fewest, kind, monkeypatch):
    monkeypatch.setattr(arrivals, "FEWEST_STATES", fewest)
    assert isinstance(read(sparse()).quickest().step.arrival, kind)


def test_columns_are_for_few_joint_values(monkeypatch):
    monkeypatch.setattr(arrivals, "FEWEST_STATES", 1)
    assert isinstance(read(sparse()).quickest().step.arrival, Gather)
    monkeypatch.setattr(arrivals, "MOST_UNROLLED", A * K - 1)
    assert isinstance(read(sparse()).quickest().step.arrival, FiniteArrival)


@pytest.mark.parametrize(
    "name",
    quick(
        ["time_varying", "sparse_outcomes", "discounted_final"],
        [
            "time_varying",
            "zeros",
            "two_states",
            "sparse_outcomes",
            "side_information",
            "three_decisions",
            "discounted_final",
            "adversary",
            "zero_temperature",
            "pass_through",
            "clock",
            "dice",
        ],
    ),
)
def test_finite_horizons(name):
    program = PAIRS[name].control()
    chain = read(program)
    tau = common_inverse_temperature(program) if PAIRS[name].joint else None
    laws = as_laws(chain, exact.prior_policy(program))

    def every(chain):
        conditioned = answers.condition.__wrapped__(chain, tau) if PAIRS[name].joint else None
        return answers.solve.__wrapped__(chain), conditioned, answers.evaluate.__wrapped__(chain, laws)

    assert_same(in_both(every, chain))


def test_posterior_samples():
    chain = read(PAIRS["three_decisions"].control())
    assert_same(
        in_both(
            lambda chain: trajectories.draw_posterior_values.__wrapped__(chain, {}, jax.random.key(0), None, 9), chain
        )
    )


@pytest.mark.parametrize("own", [False, True], ids=["shared successors", "successors for each action"])
def test_infinite_horizon_against_dense_linear_algebra(own):
    successors = RNG.integers(0, S, (S, A, K)) if own else SUCCESSORS
    program = sparse(1.3, successors=successors, discount=0.97)
    _, solution = in_both(answers.solve.__wrapped__, read(program))
    dense = np.asarray(MDP.sparse(successors, BRANCHES, REWARD, FIRST).dense().transition)
    value, policy = endless.soft_fixed_point(dense, 1.3 * REWARD, PRIOR, 0.97)
    assert solution.converged
    np.testing.assert_allclose(solution.value, value, rtol=1e-9)
    np.testing.assert_allclose(solution.policy["a"], policy, rtol=1e-7, atol=1e-11)


@pytest.mark.slow
def test_infinite_horizon_posterior_and_evaluation():
    program = sparse(0.05)
    chain = read(program)
    laws = as_laws(chain, exact.prior_policy(program))

    def both(chain):
        return answers.condition.__wrapped__(chain, None)[:3], answers.evaluate.__wrapped__(chain, laws)[:3]

    assert_same(in_both(both, chain), rtol=1e-10, atol=1e-10)


def start_sw(*_):
    return {"s": numpyro.sample("s", Categorical(probs=jnp.ones(5) / 5)), "w": jnp.asarray(0)}


def roaming(first, second):
    """Two state variables, chance before a decision, two decisions, a next state that is deterministic."""

    def step(reward, taus, s, w):
        o = numpyro.sample("o", Categorical(probs=jnp.array([0.3, 0.7])))
        a = decide("a", Categorical(probs=jnp.array([0.2, 0.8])), taus[0], regularizer=first)
        optimality(reward[s, o, a])
        b = decide("b", Categorical(probs=jnp.array([0.1, 0.0, 0.9])), taus[1], regularizer=second)
        optimality(0.3 * b * w, name="later")
        return {"s": (s + a + b) % 5, "w": jnp.where(o == 1, a, w)}

    return step


@pytest.mark.slow
@pytest.mark.parametrize("first, second", [(kl, kl), (tsallis, negative_entropy)], ids=["kl", "others"])
def test_temperatures_and_regularizers(first, second):
    taus = [(1.0, 1.0), (3.0, 0.5)] + (first == kl) * [(0.0, 2.0), (3.0, -1.0), (jnp.inf, 1.0), (1e-9, -jnp.inf)]
    reward = jnp.asarray(RNG.normal(size=(5, 2, 2)))

    def solve(taus):
        program = ControlProgram(start_sw, roaming(first, second), None, 0.9, args=(reward, taus), sizes={"w": 2})
        return answers.solve.__wrapped__(read(program))[:4]

    found = in_both(jax.vmap(solve), jnp.asarray(taus))
    assert found[1][3].all()
    assert_same(found, rtol=1e-9, atol=1e-9)


def test_gradients():
    direction = RNG.normal(size=S)

    def value(beta, reward):
        solution = answers.solve.__wrapped__(read(sparse(beta, reward)))
        return solution.value @ direction + solution.policy["a"][1, 2]

    found = in_both(jax.grad(value, argnums=(0, 1)), jnp.asarray(1.3), jnp.asarray(REWARD))
    assert_same(found, rtol=1e-8, atol=1e-8)
    assert jnp.abs(found[1][0]) > 0.1


def test_gradients_at_a_finite_horizon():
    def value(beta, reward):
        return answers.solve.__wrapped__(read(sparse(beta, reward, horizon=4))).value[0] @ FIRST

    assert_same(in_both(jax.grad(value, argnums=(0, 1)), jnp.asarray(1.3), jnp.asarray(REWARD)))


@pytest.mark.slow
def test_betas_at_once():
    betas = jnp.asarray([0.0, 0.3, 4.0])
    solve = lambda beta: answers.solve.__wrapped__(read(sparse(beta)))  # noqa: E731
    _, together = in_both(jax.vmap(solve), betas)
    for beta, value in zip(betas, together.value, strict=True):
        np.testing.assert_allclose(value, exact.solve(sparse(beta)).value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("horizon", [None, 3])
def test_a_next_state_outside_its_support_is_no_answer(horizon):
    def step(shift, s):
        a = decide("a", Categorical(probs=jnp.ones(2) / 2))
        optimality(0.1 * s * a)
        return {"s": jnp.minimum(s + a, 4) + shift}

    def start(*_):
        return {"s": numpyro.sample("s", Categorical(probs=jnp.ones(5) / 5))}

    def solve(shift):
        return answers.solve.__wrapped__(read(ControlProgram(start, step, horizon, 0.9, args=(shift,))))

    for solution in in_both(jax.vmap(solve), jnp.asarray([0, 1])):
        np.testing.assert_array_equal(solution.converged, [True, False])
        assert jnp.isnan(solution.elbo[1]) and not jnp.isnan(solution.elbo[0])


@pytest.mark.parametrize("horizon", [None, 2])
def test_a_sweep_needs_no_temporaries(horizon):
    side = 80
    successors = np.stack([np.roll(np.arange(side**2), k) for k in range(5)], -1)
    branches = np.full((side**2, 4, 5), 0.2)
    mdp = MDP.sparse(successors, branches, np.zeros((side**2, 4)), np.full(side**2, side**-2.0))
    chain, rules = read(models.single_agent(mdp, horizon, discount=0.9)), elimination.solve_rules()

    def sweep(step, v):
        w = elimination.survive(chain, step.arrival.following(Table(("s",), v)), rules)
        return elimination.through(step, w, rules)[0].over(("s",), chain.size()).array

    step = chain.quickest().step
    memory = jax.jit(sweep).lower(step, jnp.zeros(side**2)).compile().memory_analysis()
    assert isinstance(step.arrival, Gather)
    assert memory.temp_size_in_bytes < 8 * side**2


@pytest.mark.slow
def test_newton_goes_on_while_its_residual_rises():
    """Values of 1000 on the far side of a wall of losses: the residual rises for several steps before it falls."""
    side = 24
    row, column = np.divmod(np.arange(side**2), side)
    moves = [(-1, 0), (0, 1), (1, 0), (0, -1)]
    near = [np.clip(row + i, 0, side - 1) * side + np.clip(column + j, 0, side - 1) for i, j in moves]
    branches = np.broadcast_to(0.8 * np.eye(4) + 0.05, (side**2, 4, 4))
    reward = np.where(RNG.random(side**2) < 0.1, -10.0, -1.0)
    reward[-1] = 100.0
    mdp = MDP.sparse(np.stack(near, -1), branches, np.repeat(reward[:, None], 4, 1), np.full(side**2, side**-2.0))
    _, solution = in_both(answers.solve.__wrapped__, read(models.single_agent(mdp, None, discount=0.99)))
    assert solution.converged and solution.iterations < 60
    value, _ = endless.soft_fixed_point(
        np.asarray(mdp.dense().transition), np.asarray(mdp.reward), np.full((side**2, 4), 0.25), 0.99
    )
    np.testing.assert_allclose(solution.value, value, rtol=1e-9)


def test_sweeps_take_over_where_newton_leads_astray():
    """Newton's method for arctan(v) = 0 diverges from |v| > 1.4."""
    found = jax.jit(lambda v: FixedPoint.of(lambda v: v - 0.5 * jnp.arctan(v), v, jnp.asarray(1e-9)))(jnp.full(2, 6.0))
    np.testing.assert_allclose(found.value, 0.0, atol=1e-8)
    assert found.steps > 50
