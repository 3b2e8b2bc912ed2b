"""The infinite horizon against dense linear algebra, long finite horizons and finite differences.

Newton's method compiles for every form of program and both dtypes, which takes most of this file's minute.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from numpyro.distributions import Bernoulli, Categorical
from oracles import endless
from selection import quick

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact, svi
from rlinf_ppl.tasks import MDP

KEY = jax.random.key(0)
RNG = np.random.default_rng(11)
S, A = 5, 3
P = RNG.dirichlet(np.full(S, 0.3), (S, A))
R = RNG.normal(size=(S, A))
P0 = RNG.dirichlet(np.ones(S))
PRIOR = RNG.dirichlet(np.ones(A), S)
PRIOR[2] = [0.0, 0.4, 0.6]
DISCOUNTS = [0.5, 0.99, 0.9999]


def program(beta=1.0, discount=0.9, transition=P, reward=R, prior=PRIOR):
    return models.single_agent(MDP(transition, reward, P0), None, beta, prior, discount)


@pytest.mark.parametrize("discount", DISCOUNTS)
@pytest.mark.parametrize("beta", [0.7, 5.0])
def test_solve(beta, discount):
    solution = exact.solve(program(beta, discount))
    value, policy = endless.soft_fixed_point(P, beta * R, PRIOR, discount)
    assert solution.converged and solution.iterations < 20
    np.testing.assert_allclose(solution.value, value, rtol=1e-10)
    np.testing.assert_allclose(solution.policy["a"], policy, rtol=1e-8, atol=1e-12)
    assert float(solution.elbo) == pytest.approx(float(P0 @ value), rel=1e-10)
    assert float(jnp.abs(solution.value - value).max()) <= float(solution.error_bound)


@pytest.mark.parametrize("discount", DISCOUNTS)
def test_condition(discount):
    reward = 0.9 * (1 - discount) * R
    posterior = exact.condition(program(1.0, discount, reward=reward))
    value, policy = endless.posterior_fixed_point(P, reward, PRIOR, discount)
    assert posterior.converged
    np.testing.assert_allclose(posterior.value, value, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(posterior.policy["a"], policy, rtol=1e-9)
    assert float(posterior.log_evidence) == pytest.approx(float(np.log(P0 @ np.exp(value))), rel=1e-9)


def test_the_posterior_exists_up_to_a_spectral_radius_of_one():
    def radius(scale):
        return np.abs(np.linalg.eigvals(endless.posterior_matrix(P, scale * R + 0.05, PRIOR, 0.9)[0])).max()

    low, high = 0.0, 5.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if radius(middle) < 1 else (low, middle)
    below, above = 0.999 * low, 1.001 * low
    found = exact.condition(program(reward=below * R + 0.05))
    assert found.converged
    expected = endless.posterior_fixed_point(P, below * R + 0.05, PRIOR, 0.9)[0]
    np.testing.assert_allclose(found.value, expected, rtol=1e-7)
    with pytest.raises(ValueError, match=f"spectral radius between {radius(above):.6g} and {radius(above):.6g}"):
        exact.condition(program(reward=above * R + 0.05))


def test_under_vmap_a_posterior_that_does_not_exist_shows_in_converged():
    converged = jax.vmap(lambda beta: exact.condition(program(beta)).converged)(jnp.array([0.1, 10.0]))
    np.testing.assert_array_equal(converged, [True, False])


@pytest.mark.parametrize("discount", DISCOUNTS)
def test_evaluation_and_occupancies_of_any_policy(discount):
    policy = 0.7 * PRIOR + 0.3 * PRIOR[::-1] * (PRIOR > 0)
    policy /= policy.sum(-1, keepdims=True)
    control = program(2.0, discount)
    found = exact.evaluate(control, {"a": policy})
    value = endless.evaluated(P, 2 * R, PRIOR, discount, policy)
    assert found.converged
    np.testing.assert_allclose(found.value, value, rtol=1e-9)
    assert float(exact.elbo(control, {"a": policy})) == pytest.approx(float(P0 @ value), rel=1e-9)
    mu = endless.occupancy(P, P0, discount, policy)
    visits = exact.marginals(control, {"a": policy})
    np.testing.assert_allclose(visits.state, mu, rtol=1e-8)
    np.testing.assert_allclose(visits.decision["a"], mu[:, None] * policy, rtol=1e-8)
    ratio = np.where(policy > 0, policy, 1) / np.where(policy > 0, PRIOR, 1)
    kl = np.sum(mu[:, None] * policy * np.log(ratio)) / (1 - discount)
    prior = exact.prior_policy(control)
    assert float(exact.kl(control, {"a": policy}, prior)) == pytest.approx(kl, rel=1e-7)


def test_what_the_prior_forbids_is_worth_minus_infinity_where_it_is_met():
    found = exact.evaluate(program(), {"a": np.full((S, A), 1 / A)})
    assert float(found.elbo) == -np.inf
    assert float(found.value[2]) == -np.inf


# Four shapes of state, each as (initial, step, sizes).
MOVES = jnp.asarray(RNG.dirichlet(np.ones(3), (3, 2)))
PAYS = jnp.asarray(RNG.normal(size=(3, 2)))
HALF = jnp.array([0.5, 0.5])


def one_variable(s):
    a = decide("a", Categorical(probs=HALF))
    optimality(PAYS[s, a])
    return {"s": numpyro.sample("s_next", Categorical(probs=MOVES[s, a]))}


def two_variables(s, z):
    weather = numpyro.sample("weather", Bernoulli(0.3))
    a = decide("a", Categorical(probs=jnp.array([[0.5, 0.5], [0.1, 0.9]])[weather]))
    optimality(PAYS[s, a] - 0.3 * z * weather)
    return {"s": numpyro.sample("s_next", Categorical(probs=MOVES[s, z])), "z": a}


def an_option(s, z_prev):
    b = decide("b", Bernoulli(0.4))
    z = decide("z", Categorical(probs=jnp.where(b == 1, HALF, jnp.eye(2)[z_prev])))
    a = decide("a", Categorical(probs=jnp.array([[0.8, 0.2], [0.2, 0.8]])[z]))
    optimality(PAYS[s, a])
    return {"s": numpyro.sample("s_next", Categorical(probs=MOVES[s, a])), "z_prev": z}


def deterministic(s):
    a = decide("a", Categorical(probs=HALF), 2.0)
    optimality(PAYS[s, a])
    return {"s": (s + 2 * a + 1) % 3}


SHAPES = {"one": one_variable, "two": two_variables, "option": an_option, "deterministic": deterministic}


@cache
def shaped(name, discount):
    others = {"two": {"z": 2}, "option": {"z_prev": 2}}.get(name, {})

    def initial():
        return {"s": numpyro.sample("s", Categorical(probs=jnp.array([0.2, 0.5, 0.3])))} | dict.fromkeys(others, 0)

    return ControlProgram(initial, SHAPES[name], None, discount, sizes=others)


@pytest.mark.parametrize("discount", [0.99, pytest.param(0.9999, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SHAPES)
def test_a_finite_horizon_long_enough(name, discount):
    control = shaped(name, discount)
    solution, last = exact.solve(control), exact.solve(control.unroll(int(35 / (1 - discount))))
    assert solution.converged
    np.testing.assert_allclose(solution.value, last.value[0], rtol=1e-10)
    assert solution.policy.keys() == last.policy.keys()
    for decision in solution.policy:
        np.testing.assert_allclose(solution.policy[decision], last.policy[decision][0], rtol=1e-8, atol=1e-12)
    assert float(solution.elbo) == pytest.approx(float(last.elbo), rel=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_a_posterior_of_a_finite_horizon_long_enough(name):
    control = shaped(name, 0.3)
    posterior, last = exact.condition(control), exact.condition(control.unroll(200))
    np.testing.assert_allclose(posterior.value, last.value[0], rtol=1e-9)
    for decision in posterior.policy:
        np.testing.assert_allclose(posterior.policy[decision], last.policy[decision][0], rtol=1e-9)


@pytest.mark.parametrize("name", SHAPES)
def test_the_fit_recovers_the_solution(name):
    control = shaped(name, 0.99)
    fit, best = svi.fit(control, KEY), exact.solve(control)
    assert fit.converged and len(fit.losses) < 20
    assert float(fit.elbo) == pytest.approx(float(best.elbo), rel=1e-9)
    for decision in fit.policy:
        assert float(jnp.abs(fit.policy[decision] - best.policy[decision]).max()) < 1e-5


def test_an_optimizer_recovers_the_solution_too():
    control = shaped("one", 0.99)
    fit, best = svi.fit(control, KEY, 3000, optimizer=optax.adam(0.2)), exact.solve(control)
    assert fit.converged
    assert float(exact.kl(control, fit.policy, best.policy)) < 1e-4
    assert float(fit.elbo) == pytest.approx(float(best.elbo), abs=1e-4)


def test_a_value_that_depends_on_no_state():
    def step(s):
        a = decide("a", Categorical(probs=HALF))
        optimality(1.0 * a)
        return {"s": numpyro.sample("s_next", Categorical(probs=jnp.eye(2)[s]))}

    control = ControlProgram(lambda: {"s": 0}, step, None, 0.9, sizes={"s": 2})
    solution = exact.solve(control)
    np.testing.assert_allclose(solution.value, 10 * np.log((1 + np.e) / 2) * np.ones(2), rtol=1e-12)
    assert svi.fit(control, KEY).converged


@pytest.mark.parametrize("discount", [pytest.param(0.9, marks=pytest.mark.slow), 0.999])
@pytest.mark.parametrize("tau", [-0.5, pytest.param(-20.0, marks=pytest.mark.slow)])
def test_a_minimiser_has_its_fixed_point(tau, discount):
    def step(s):
        a = decide("a", Categorical(probs=jnp.full(3, 1 / 3)), 10.0)
        b = decide("b", Categorical(probs=jnp.array([0.5, 0.3, 0.2])), tau)
        optimality(payoff[s, a, b])
        return {"s": numpyro.sample("s_next", Categorical(probs=moves[s, a, b]))}

    rng = np.random.default_rng(3)
    payoff, moves = jnp.asarray(rng.normal(size=(4, 3, 3))), jnp.asarray(rng.dirichlet(np.full(4, 0.2), (4, 3, 3)))
    control = ControlProgram(lambda: {"s": 0}, step, None, discount, sizes={"s": 4})
    v = np.zeros(4)
    for _ in range(int(32 / (1 - discount))):
        w = np.asarray(payoff) + discount * np.asarray(moves) @ v
        w = endless.certainty_equivalents(w, np.array([0.5, 0.3, 0.2]), tau)[0]
        v = endless.certainty_equivalents(w, np.full(3, 1 / 3), 10.0)[0]
    solution = exact.solve(control)
    assert solution.converged
    np.testing.assert_allclose(solution.value, v, rtol=1e-9)


def derivative(function, x, direction, eps=1e-5):
    return (function(x + eps * direction) - function(x - eps * direction)) / (2 * eps)


def of_beta(beta):
    return program(beta)


def of_discount(discount):
    return program(discount=discount)


def of_reward(reward):
    return program(reward=reward)


def of_logits(logits):
    return program(prior=jax.nn.softmax(logits))


def of_transition(logits):
    return program(transition=jax.nn.softmax(logits))


ARGUMENTS = {
    "beta": (of_beta, jnp.asarray(1.3)),
    "discount": (of_discount, jnp.asarray(0.93)),
    "reward": (of_reward, jnp.asarray(R)),
    "prior": (of_logits, jnp.asarray(RNG.normal(size=(S, A)))),
    "transition": (of_transition, jnp.asarray(RNG.normal(size=(S, A, S)))),
}
QUANTITIES = {
    "value": lambda control: exact.solve(control, 1e-14).value @ jnp.arange(1.0, S + 1),
    "policy": lambda control: exact.solve(control, 1e-14).policy["a"][1, 2],
    "evaluation": lambda control: exact.evaluate(control, {"a": jnp.full((S, A), 1 / A)}, 1e-14).elbo,
    "occupancy": lambda control: exact.marginals(control, exact.solve(control).policy).decision["a"][0, 1],
}


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize("quantity", quick(["value", "policy"], QUANTITIES))
def test_gradients(argument, quantity):
    make, at = ARGUMENTS[argument]
    uniform = (lambda x: program(x)) if argument == "beta" else make
    function = jax.jit(lambda x: QUANTITIES[quantity](uniform(x)))
    if quantity == "evaluation" and argument != "prior":
        function = jax.jit(lambda x: exact.evaluate(uniform(x), {"a": jnp.asarray(PRIOR)}, 1e-14).elbo)
    direction = jnp.asarray(np.random.default_rng(5).normal(size=at.shape))
    found = jnp.vdot(jax.grad(function)(at), direction)
    assert float(found) == pytest.approx(float(derivative(function, at, direction)), rel=1e-6, abs=1e-9)
    forward = jax.jvp(function, (at,), (direction,))[1]
    assert float(forward) == pytest.approx(float(found), rel=1e-9, abs=1e-12)


@pytest.mark.slow
def test_gradients_under_vmap_and_of_second_order():
    betas = jnp.array([0.3, 1.3, 4.0])
    function = jax.jit(lambda beta: exact.solve(program(beta)).elbo)
    found = jax.vmap(jax.grad(function))(betas)
    np.testing.assert_allclose(found, [derivative(function, beta, 1.0) for beta in betas], rtol=1e-6)
    curvature = jax.vmap(jax.grad(jax.grad(function)))(betas)
    slope = jax.jit(jax.grad(function))
    np.testing.assert_allclose(curvature, [derivative(slope, beta, 1.0) for beta in betas], rtol=1e-5)


def test_gradients_of_the_evidence():
    def function(scale):
        return exact.condition(program(reward=scale * jnp.asarray(R))).log_evidence

    at = jnp.asarray(0.05)
    assert float(jax.grad(function)(at)) == pytest.approx(float(derivative(function, at, 1.0)), rel=1e-6)


def test_single_precision_says_what_it_cannot_reach():
    with jax.enable_x64(False):
        with pytest.raises(
            ValueError, match=r"at discount 0.9999 float32 can reach .*turn on float64 .* or give a larg"
        ):
            exact.solve(program(discount=0.9999))
        coarse = exact.solve(program(discount=0.9999), tolerance=1e-2)
        fine = exact.solve(program(discount=0.99))
    for found, discount, tolerance in ((coarse, 0.9999, 1e-2), (fine, 0.99, 1e-4)):
        value, _ = endless.soft_fixed_point(P, R, PRIOR, float(np.float32(discount)))
        assert found.converged and found.value.dtype == np.float32
        error = np.abs(np.asarray(found.value, dtype=float) - value).max()
        assert error <= tolerance * np.abs(value).max()
        assert error <= float(found.error_bound)


def test_a_loose_tolerance_takes_fewer_steps_and_says_how_far_it_is():
    coarse, fine = (exact.solve(program(discount=0.999), tolerance=tolerance) for tolerance in (1e-2, None))
    assert coarse.converged and coarse.iterations < fine.iterations
    error = float(jnp.abs(coarse.value - fine.value).max())
    assert 0 < error <= float(coarse.error_bound) <= 1e-2 * float(jnp.abs(fine.value).max())


def test_same_numbers_for_a_program_that_is_copied_and_unrolled():
    control = program()
    again = control.unroll(7)
    assert again.horizon == 7 and control.horizon is None
    expected = exact.solve(models.single_agent(MDP(P, R, P0), 7, 1.0, PRIOR, 0.9))
    np.testing.assert_array_equal(exact.solve(again).value, expected.value)


@pytest.mark.slow
def test_where_it_begins_is_no_matter():
    """Values of another program to begin at: the same answer, and the same slopes."""
    program = models.single_agent(MDP(P, R, P0), None, beta=2.0, discount=0.99)
    near = exact.solve(models.single_agent(MDP(P, R, P0), None, beta=1.9, discount=0.99)).value
    cold, warm = exact.solve(program), exact.solve(program, start=near)
    np.testing.assert_allclose(warm.value, cold.value, rtol=1e-12)
    assert warm.converged and warm.iterations < cold.iterations

    def value(beta, start):
        return exact.solve(models.single_agent(MDP(P, R, P0), None, beta=beta, discount=0.99), start=start).value

    slopes = jax.jacobian(value)(2.0, near)
    np.testing.assert_allclose(slopes, jax.jacobian(value)(2.0, None), rtol=1e-9)
    assert not np.any(jax.jacobian(value, argnums=1)(2.0, near))
    with pytest.raises(ValueError, match="start has shape"):
        exact.solve(program, start=near[:-1])
    with pytest.raises(ValueError, match="start is for an infinite horizon"):
        exact.solve(program.unroll(3), start=near)


@pytest.mark.parametrize("states", quick([100], [100, 128, 129]))
def test_a_search_ends_where_only_rounding_is_left(states):
    """At a discount of .9999, by direct systems and by others: few steps, and values that a step leaves as they are."""
    rng = np.random.default_rng(1)
    transition, reward = rng.dirichlet(np.full(states, 0.101), (states, 3)), rng.normal(size=(states, 3))
    prior = np.array([0.2, 0.3, 0.5])

    def step(transition, reward, s):
        a = decide("a", Categorical(probs=jnp.asarray(prior)), 1.5)
        optimality(reward[s, a])
        return {"s": numpyro.sample("s_next", Categorical(probs=transition[s, a]))}

    args = jnp.asarray(transition), jnp.asarray(reward)
    program = ControlProgram(lambda *_: {"s": 0}, step, None, discount=0.9999, args=args, sizes={"s": states})
    found = exact.solve(program)
    assert found.converged and found.iterations < 60
    value = np.asarray(found.value)
    q = reward + 0.9999 * (transition @ value) - value[:, None]
    moved = np.log(np.exp(1.5 * q) @ prior) / 1.5
    # What a step moves is the error times one minus the discount.
    assert np.max(np.abs(moved)) <= 1e-4 * 1e-8 * np.max(np.abs(value))
