"""Decisions that see less, in every engine: without end, where nothing binds, teams at once, and who refuses."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from information_structures import STRUCTURES, program
from numpyro import handlers
from numpyro.distributions import Categorical
from numpyro.infer.util import log_density
from oracles import sight as oracle
from scipy.optimize import minimize
from selection import quick

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact, execution, q_learning, smc, svi
from rlinf_ppl.inference.chains import answers
from rlinf_ppl.inference.fitting import loop
from rlinf_ppl.tasks import StochasticGame

KEY = jax.random.key(0)
COIN = Categorical(probs=jnp.full(2, 0.5))


def best_of(made, starts=20):
    """The best ELBO that L-BFGS reaches from random logits."""
    loss, chain = svi.ExactELBO(), svi.ExactELBO().read(made)
    size = chain.size()
    shapes = {d: [size[axis] for axis in (*chain.times, *scope, d)] for d, scope in made.scopes.items()}
    ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes.values())])

    def logits(x):
        return {d: jnp.reshape(x[ends[i] : ends[i + 1]], shape) for i, (d, shape) in enumerate(shapes.items())}

    slope = jax.jit(jax.value_and_grad(lambda x: -loss.estimate(chain, logits(x), KEY)))
    rng, found = np.random.default_rng(0), []
    for _ in range(starts):
        x = rng.normal(size=ends[-1])
        found.append(-minimize(lambda x: [np.asarray(y, float) for y in slope(x)], x, jac=True, method="L-BFGS-B").fun)
    return max(found)


TAKEN = ["discounted", "controller", "a team at once", "public message"]


@pytest.mark.parametrize("name", quick(["discounted"], TAKEN))
@pytest.mark.parametrize("horizon", quick([None], [None, 3]))
def test_fits_reach_the_best_of_an_optimiser(name, horizon):
    made = program(STRUCTURES[name][0] | {"discount": 0.8}, horizon=horizon)
    fit = svi.fit(made, KEY, 1000, num_restarts=10)
    assert fit.converged and fit.local and fit.restarts.shape == (10,)
    assert np.diff(-np.asarray(fit.losses)).min() >= -1e-12 * max(1.0, abs(float(fit.elbo)))
    assert float(fit.elbo) == pytest.approx(best_of(made), abs=1e-5)
    assert float(exact.elbo(made, fit.policy)) == pytest.approx(float(fit.elbo), rel=1e-12)


def noisy_sensor(seed, discount=0.9):
    """Four states behind a sensor, without end; and what a policy of what it says is worth, by linear algebra."""
    rng, n = np.random.default_rng(seed), 4
    transition, reward = rng.dirichlet(0.3 * np.ones(n), size=(n, 3)), 3 * rng.normal(size=(n, 3))
    seen = np.eye(2)[rng.integers(0, 2, size=n)] * 0.9 + 0.05

    def step(s):
        numpyro.sample("o", Categorical(probs=jnp.asarray(seen)[s]))
        a = decide("a", Categorical(probs=jnp.ones(3) / 3), unseen=("s",))
        optimality(jnp.asarray(reward)[s, a])
        return {"s": numpyro.sample("n", Categorical(probs=jnp.asarray(transition)[s, a]))}

    def worth(policy):
        played, cost = seen @ policy, seen @ (policy * np.log(3 * policy)).sum(1)
        moves = np.einsum("sa,sat->st", played, transition)
        return np.linalg.solve(np.eye(n) - discount * moves, (played * reward).sum(1) - cost).mean()

    start = lambda: {"s": numpyro.sample("s_0", Categorical(probs=jnp.ones(n) / n))}  # noqa: E731
    return ControlProgram(start, step, None, discount), worth


@pytest.mark.parametrize("double", quick([False], [True, False]))
def test_fits_without_end_arrive_in_either_precision(double):
    """In single precision the value of an endless program has few digits, by which no good step may be refused."""
    with jax.enable_x64(double):
        for seed in range(5):
            made, worth = noisy_sensor(seed)
            fit = svi.fit(made, KEY)
            assert fit.converged and len(fit.losses) < 200
            assert float(fit.elbo) == pytest.approx(
                worth(np.asarray(fit.policy["a"], float)), rel=1e-10 if double else 1e-4
            )


def told(unseen=()):
    """A step with a chance site before the decision that nothing depends on."""

    def step(s):
        numpyro.sample("z", COIN)
        a = decide("a", COIN, unseen=unseen)
        optimality(1.0 * (a == s))
        return {"s": numpyro.sample("n", Categorical(probs=jnp.asarray([[0.9, 0.1], [0.3, 0.7]])[a]))}

    return ControlProgram(lambda: {"s": numpyro.sample("s_0", COIN)}, step, 3)


def test_where_hiding_does_not_bind_nothing_changes():
    plain, hiding = told(), told(unseen=("z",))
    assert hiding.scopes == plain.scopes == {"a": ("s",)} and not hiding.structure.hidden
    first = exact.solve(plain)
    before = answers.solve._cached._cache_size()
    second = exact.solve(hiding)
    assert answers.solve._cached._cache_size() == before
    np.testing.assert_array_equal(first.policy["a"], second.policy["a"])
    one = svi.fit(plain, KEY)
    before = loop.advance._cached._cache_size()
    other = svi.fit(hiding, KEY)
    assert loop.advance._cached._cache_size() == before
    assert other.converged and not other.local
    np.testing.assert_array_equal(one.losses, other.losses)
    assert float(exact.condition(hiding).log_evidence) == float(exact.condition(plain).log_evidence)


@pytest.mark.slow
def test_a_team_at_once_is_where_its_replies_settle():
    """The same game as an equilibrium, and with a site in between, so that it is climbed."""
    payoffs = np.array([[[2.0, 0.0], [0.0, 1.0]]])
    game = StochasticGame(np.ones((1, 2, 2, 1)), payoffs, [1.0])
    solved = exact.solve(models.quantal_response(game, 1, 0.7, 0.7))

    def step(s):
        a = decide("a", COIN, 0.7)
        numpyro.sample("z", COIN)
        b = decide("b", COIN, 0.7, unseen=("a",))
        optimality(jnp.asarray(payoffs)[s, a, b])
        return {"s": s}

    climbed = ControlProgram(lambda: {"s": numpyro.sample("s_0", Categorical(probs=jnp.ones(1)))}, step, 1)
    fit = svi.fit(climbed, KEY, 500)
    assert climbed.structure.hidden == (("b", ("a",)),) and fit.converged
    for name in ("a", "b"):
        np.testing.assert_allclose(fit.policy[name].reshape(-1), solved.policy[name].reshape(-1), atol=1e-6)


def test_what_is_never_met_is_replied_to_as_if_it_were_hidden_evenly():
    """The first action is certain, and b sees it; s = 1 is rare, and pays three times as much."""

    def step(s):
        a = decide("a", Categorical(probs=jnp.asarray([1.0, 0.0])))
        b = decide("b", COIN, unseen=("s",))
        optimality(jnp.asarray([[1.0, 0.0], [0.0, 3.0]])[s, b] + 0.0 * a * b)
        return {"s": s}

    made = ControlProgram(lambda: {"s": numpyro.sample("s_0", Categorical(probs=jnp.asarray([0.9, 0.1])))}, step, 1)
    fit = svi.fit(made, KEY, 20)
    q = np.asarray(fit.policy["b"])[0]
    assert made.scopes["b"] == ("a",)
    np.testing.assert_array_equal(fit.unmet()["b"], [[False, True]])
    assert svi.fit(told(), KEY, 1).unmet() == {}
    guide, adam = svi.networks(made, KEY, width=2, depth=1), optax.adam(0.1)
    drawn = svi.fit(made, KEY, 1, guide=guide, loss=svi.ParticleELBO(2), optimizer=adam)
    with pytest.raises(TypeError, match="a fit of networks has no table"):
        drawn.unmet()
    np.testing.assert_allclose(q[0], np.exp([0.9, 0.3]) / np.exp([0.9, 0.3]).sum(), rtol=1e-12)
    np.testing.assert_allclose(q[1], np.exp([0.5, 1.5]) / np.exp([0.5, 1.5]).sum(), rtol=1e-12)


@pytest.fixture(scope="module")
def fitted():
    spec, scopes = STRUCTURES["private observations"]
    made = program(spec)
    return spec, scopes, made, svi.fit(made, KEY)


@pytest.mark.slow
def test_its_policy_is_drawn_executed_and_weighed(fitted):
    spec, scopes, made, fit = fitted
    policies = {site: (scopes[site], np.asarray(array)) for site, array in fit.policy.items()}
    every = oracle.trajectories(spec, policies)
    expected = sum(p * gain for p, gain, *_ in every)
    assert float(execution.expected_return(made, fit.policy)) == pytest.approx(expected, rel=1e-12)
    played = execution.roll_out(made, KEY, fit, 4000)
    assert abs(float(played.mean) - expected) < 5 * float(played.standard_error)
    alone = np.asarray(execution.executed(made, fit.policy)["b"])
    joint = oracle.joint(spec, policies, 1, ["s", "b"])
    np.testing.assert_allclose(alone[1], joint / joint.sum(-1, keepdims=True), rtol=1e-10)
    drawn = exact.sample(made, KEY, fit.policy, 20_000)
    rate = oracle.joint(spec, policies, 1, ["a", "b"])
    found = np.histogram2d(drawn["a"][:, 1], drawn["b"][:, 1], bins=2, range=[[-0.5, 1.5]] * 2)[0] / 20_000
    assert np.abs(found - rate).max() < 5 * 0.5 / np.sqrt(20_000)
    evidence = np.log(sum(p * np.exp(gain) for p, gain, *_ in oracle.trajectories(spec, prior_of(spec, scopes))))
    run = smc.run(made, KEY, 20_000, proposal=fit)
    assert float(run.log_evidence) == pytest.approx(evidence, abs=0.1)


def prior_of(spec, scopes):
    """The priors as policies of the scopes."""
    found = {}
    for kind, name, parents, table in spec["sites"]:
        if kind == "decision":
            assert not parents
            shape = (spec["horizon"], *(spec["sizes"][axis] for axis in scopes[name]), spec["sizes"][name])
            found[name] = (scopes[name], np.broadcast_to(table, shape))
    return found


@pytest.mark.slow
def test_its_guide_has_the_density_of_its_policy_and_numpyro_fits_it(fitted):
    spec, scopes, made, fit = fitted
    params = {f"{name}_logits": theta for name, theta in fit.guide.items()}
    drawn = handlers.trace(handlers.seed(handlers.substitute(made.guide, data=params), KEY)).get_trace()
    values = {name: site["value"] for name, site in drawn.items() if site["type"] == "sample"}
    own, _ = log_density(made.guide, (), {}, params | values)
    q = 0.0
    for t, (name, scope) in itertools.product(range(spec["horizon"]), scopes.items()):
        q += np.log(fit.policy[name][(t, *(int(values[f"t{t}/{axis}"]) for axis in (*scope, name)))])
    decided = [f"t{t}/{name}" for t, name in itertools.product(range(spec["horizon"]), scopes)]
    rest = handlers.block(handlers.seed(made.guide, KEY), hide=decided)
    others, _ = log_density(rest, (), {}, params | values)
    assert float(own - others) == pytest.approx(float(q), abs=1e-10)
    numpyro_fit = svi.in_numpyro(made, optax.adam(0.05)).run(KEY, 1500, progress_bar=False)
    assert -float(numpyro_fit.losses[-1]) == pytest.approx(float(fit.elbo), abs=0.01)
    for loss in (svi.SampledELBO(50), svi.ScoreFunctionELBO(200)):
        found = svi.fit(made, KEY, 1000, loss=loss, optimizer=optax.adam(0.05))
        assert float(found.elbo) == pytest.approx(float(fit.elbo), abs=0.05)


def opponents(tau=(1.0, -1.0), unseen=("s", "a")):
    def step(s):
        a = decide("a", COIN, tau[0], unseen=("s",))
        b = decide("b", COIN, tau[1], unseen=unseen)
        optimality(jnp.asarray([[[1.0, 0.0], [0.0, 2.0]], [[0.0, 1.0], [1.5, 0.0]]])[s, a, b])
        return {"s": numpyro.sample("n", COIN)}

    return ControlProgram(lambda: {"s": numpyro.sample("s_0", COIN)}, step, 1)


WRONG = {
    "solve": (lambda: exact.solve(opponents((1.0, 1.0))), r"exact.solve is for decisions that see all.*\['s'.*svi.fit"),
    "condition": (lambda: exact.condition(opponents((1.0, 1.0))), "'a' does not see .*svi.fit finds the best"),
    "equilibria": (lambda: exact.equilibria(opponents((1.0, 1.0))), "all taken at the same time"),
    "a minimiser": (lambda: svi.fit(opponents(), KEY), "'b' minimises, and .*no engine finds the equilibrium"),
    "two temperatures": (
        lambda: svi.fit(opponents((1.0, 2.0)), KEY),
        r"\['a', 'b'\] are taken at once at different inverse temperatures",
    ),
    "action values": (
        lambda: svi.fit(opponents((1.0, 1.0)), KEY, loss=svi.ActorCritic(4), optimizer=optax.adam(0.1)),
        r"\['a', 'b'\] do not see all that their action values depend on",
    ),
    "learning": (lambda: q_learning.learn(opponents((1.0, 1.0)), KEY, 10), "Q-learning is for decisions that see all"),
    "coordination": (
        lambda: execution.coordination_loss(opponents((1.0, 1.0)), {"a": np.full((1, 2), 0.5)}),
        "the coordination loss is for decisions that see all",
    ),
    "itself": (lambda: opponents(unseen=("b",)), r"'b' does not see \['b'\]; unseen takes what stands before it"),
    "time": (lambda: opponents(unseen=("t",)), r"'b' does not see \['t'\]; unseen takes what stands before it"),
    "what comes later": (lambda: opponents(unseen=("n",)), r"'b' does not see \['n'\]; unseen takes what stands"),
    "a schedule for one that sees all": (
        lambda: svi.fit(told(), KEY, schedule=[0.1]),
        "schedule is for decisions that do not see all",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_who_cannot_take_it_says_so(case):
    call, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
def test_under_a_trace_a_minimiser_never_converges():
    def fit(tau):
        return svi.fit(opponents((1.0, tau)), KEY, 30).converged

    assert not jax.jit(fit)(jnp.asarray(-1.0)) and jax.jit(fit)(jnp.asarray(1.0))


@pytest.mark.slow
def test_sight_works_in_single_precision():
    with jax.enable_x64(False):
        spec, _ = STRUCTURES["a team at once"]
        fit = svi.fit(program(spec), jax.random.key(0), 200, num_restarts=3)
        assert fit.converged and fit.elbo.dtype == jnp.float32
    double = svi.fit(program(spec), KEY, 200, num_restarts=3)
    assert float(fit.elbo) == pytest.approx(float(double.elbo), abs=1e-4)
