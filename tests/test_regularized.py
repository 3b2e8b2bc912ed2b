"""Regularized models: worked cases, brute force, gradients of the fixed point, fits, and a user's own regularizer."""

import pickle
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import regularized as oracle
from selection import quick
from worked_cases import worked_case

from rlinf_ppl import models
from rlinf_ppl.algebra import regularizers
from rlinf_ppl.algebra.regularizers import from_conjugate
from rlinf_ppl.inference import exact, svi
from rlinf_ppl.tasks import MDP

NAMES = ["kl", "negative_entropy", "tsallis"]
EVERY = pytest.mark.parametrize("name", NAMES)
KEY = jax.random.key(0)
STATES, ACTIONS, DISCOUNT, BETA = 4, 3, 0.9, 1.7
RNG = np.random.default_rng(3)
TASK = {
    "transition": RNG.dirichlet(np.ones(STATES), size=(STATES, ACTIONS)),
    "reward": RNG.normal(size=(STATES, ACTIONS)),
    "prior": np.array([[0.5, 0.2, 0.3], [0.6, 0.0, 0.4], [0.0, 0.0, 1.0], [0.1, 0.8, 0.1]]),
}
START = np.full(STATES, 1 / STATES)


def program(name, beta=BETA, horizon=None, discount=DISCOUNT, **changed):
    task = TASK | changed
    mdp = MDP(task["transition"], task["reward"], START)
    regularizer = getattr(regularizers, name) if isinstance(name, str) else name
    return models.regularized(mdp, horizon, regularizer, beta, task["prior"], discount)


def truth(maximum, beta=BETA, **changed):
    maximum = getattr(oracle, maximum) if isinstance(maximum, str) else maximum
    return oracle.fixed_point(maximum, beta=beta, discount=DISCOUNT, **(TASK | changed))


@cache
def solved(name, beta=BETA):
    return exact.solve(program(name, beta), tolerance=1e-12)


def close(found, expected, tolerance=1e-10):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


CASES = {"kl": "regularised_kl", "negative_entropy": "regularised_negentropy", "tsallis": "regularised_tsallis"}


@EVERY
def test_worked_cases(name):
    given, expected, tolerance = worked_case(CASES[name])
    mdp, (beta, discount) = MDP(given["P"], given["r"], START), (float(given[x]) for x in ("beta", "gamma"))
    control = models.regularized(mdp, None, getattr(regularizers, name), beta, given["prior"], discount)
    solution = exact.solve(control, tolerance=1e-13)
    close(solution.value, expected["v"], tolerance)
    close(solution.policy["a"], expected["policy"], tolerance)
    close(given["r"] + discount * given["P"] @ solution.value, expected["q"], tolerance)
    close(exact.evaluate(control, {"a": given["prior"]}, tolerance=1e-13).value, expected["eval_v"], tolerance)
    assert solution.converged


def test_the_worked_case_of_smooth_bellman_and_what_it_is_not():
    given, expected, tolerance = worked_case("smooth_bellman_infinite")
    mdp, (beta, discount) = MDP(given["P"], given["r"], START), (float(given[x]) for x in ("beta", "gamma"))
    solution = exact.solve(models.smooth_bellman_without_prior(mdp, discount, beta), tolerance=1e-13)
    close(solution.value, expected["v"], tolerance)
    close(solution.policy["a"], expected["policy"], tolerance)
    close(given["r"] + discount * given["P"] @ solution.value, expected["q"], tolerance)
    # Rust's noise has the location 0.
    close(solution.value + np.euler_gamma / (beta * (1 - discount)), expected["v_gumbel"], tolerance)
    # At an infinite inverse temperature a policy pays nothing for its randomness.
    bare = models.regularized(mdp, None, beta=jnp.inf, discount=discount)
    close(exact.evaluate(bare, solution.policy, tolerance=1e-13).value, expected["v_policy_unregularised"], tolerance)
    other = oracle.risk_seeking(given["P"], given["r"], beta, discount)
    close(other, expected["v_risk_seeking"], tolerance)
    assert (other - solution.value > 0.1).all()


@EVERY
@pytest.mark.parametrize("beta", [BETA, 0.2, -1.1, np.inf, -np.inf])
def test_values_and_policies_are_those_of_plain_sweeps(name, beta):
    value, policy = truth(name, beta)
    solution = solved(name, float(beta))
    close(solution.value, value)
    close(solution.policy["a"], policy, 1e-9)
    assert solution.converged and float(solution.error_bound) < 1e-10
    assert float(solution.elbo) == pytest.approx(START @ value, abs=1e-10)


@EVERY
def test_the_fixed_point_is_unique_and_the_limit_of_finite_horizons(name):
    maximum, rng = getattr(oracle, name), np.random.default_rng(0)
    for start in (np.full(STATES, 1e3), rng.normal(size=STATES) * 100):
        close(oracle.fixed_point(maximum, beta=BETA, discount=DISCOUNT, start=start, **TASK)[0], solved(name).value)
    close(exact.solve(program(name).unroll(300)).value[0], solved(name).value)


@EVERY
@pytest.mark.parametrize("beta", [BETA, np.inf])
def test_evaluation_of_a_policy_is_a_linear_system(name, beta):
    rng = np.random.default_rng(5)
    policy = rng.dirichlet(np.ones(ACTIONS), size=STATES) * (TASK["prior"] > 0)
    policy /= policy.sum(-1, keepdims=True)
    price = None if np.isinf(beta) else name
    expected = oracle.evaluated(price, beta=beta, discount=DISCOUNT, policy=policy, **TASK)
    found = exact.evaluate(program(name, beta), {"a": policy}, tolerance=1e-13).value
    close(found, expected)
    assert (np.asarray(solved(name, float(beta)).value) >= expected - 1e-10).all()


@pytest.mark.parametrize("beta", [BETA, np.inf, -np.inf])
def test_a_policy_that_does_the_forbidden_is_worth_nothing_whatever_the_temperature(beta):
    found = exact.evaluate(program("tsallis", beta), {"a": np.eye(ACTIONS)[[0, 1, 2, 0]]}).value
    assert (np.asarray(found) == -np.sign(beta) * np.inf).all()


@pytest.mark.parametrize("name", quick(["tsallis"], NAMES))
def test_gradients_of_the_fixed_point_meet_finite_differences_of_plain_sweeps(name):
    rng, h = np.random.default_rng(7), 1e-5
    weights = rng.normal(size=STATES), rng.normal(size=(STATES, ACTIONS))
    given = TASK | {"beta": np.array(BETA)}

    def found(given):
        solution = exact.solve(program(name, **given), tolerance=1e-13)
        return jnp.stack([jnp.sum(weights[0] * solution.value), jnp.sum(weights[1] * solution.policy["a"])])

    def expected(given):
        value, policy = truth(name, **given)
        return np.array([np.sum(weights[0] * value), np.sum(weights[1] * policy)])

    jacobian = jax.jacrev(found)({key: jnp.asarray(x) for key, x in given.items()})
    for key in given:
        at = given[key]
        if key in ("transition", "prior"):  # towards the inside of the simplex; the regularizers see the prior's zeros
            inside = rng.dirichlet(np.ones(at.shape[-1]), at.shape[:-1])
            inside = inside * (at > 0) if key == "prior" else inside
            tangent = inside / inside.sum(-1, keepdims=True) - at
        else:
            tangent = rng.normal(size=at.shape)
        slope = np.sum(np.asarray(jacobian[key]) * tangent, axis=tuple(range(1, 1 + at.ndim)))
        up, down = (expected(given | {key: at + sign * h * tangent}) for sign in (1, -1))
        np.testing.assert_allclose(slope, (up - down) / (2 * h), rtol=1e-6, atol=1e-7, err_msg=key)


@EVERY
def test_fits_reach_the_closed_form(name):
    fit = svi.fit(program(name), KEY)
    assert fit.converged
    close(fit.policy["a"], solved(name).policy["a"], 1e-5)
    assert float(fit.elbo) == pytest.approx(float(solved(name).elbo), rel=np.finfo(float).eps ** 0.5)
    assert ((np.asarray(fit.policy["a"]) == 0) == (truth(name)[1] < 1e-14)).all()


def test_policies_of_tsallis_are_sparse():
    policy = np.asarray(solved("tsallis").policy["a"])
    assert ((policy == 0) & (TASK["prior"] > 0)).any() and ((policy > 0) & (policy < 1)).any()


def half_entropy(x, prior):
    """The conjugate of half the negative entropy."""
    return 0.5 * regularizers.log_sum_exp(2.0 * x, prior)


def double_tsallis(x, prior):
    """The conjugate of |q|^2 - 1."""
    return 2.0 * regularizers.sparse_maximum(0.5 * x, prior)


OWN = {"entropy": (half_entropy, ("negative_entropy", 0.5)), "tsallis": (double_tsallis, ("tsallis", 2.0))}


@pytest.mark.parametrize("own", ["entropy", pytest.param("tsallis", marks=pytest.mark.slow)])
def test_a_regularizer_of_ones_own_needs_its_conjugate_only(own):
    conjugate, (name, scale) = OWN[own]
    value, policy = truth(oracle.scaled(getattr(oracle, name), scale))
    control = program(conjugate)
    solution = exact.solve(control, tolerance=1e-12)
    close(solution.value, value)
    close(solution.policy["a"], policy, 1e-9)
    fit = svi.fit(control, KEY)
    assert fit.converged
    close(fit.policy["a"], policy, 1e-5)
    with pytest.raises(ValueError, match=f"the regularizer '{conjugate.__name__}' of 'a' has a conjugate only.*cost"):
        exact.evaluate(control, solution.policy)


def too_much(x, prior):
    """Twice a conjugate: its gradient sums to 2."""
    return 2.0 * regularizers.log_sum_exp(x, prior)


def everything(x, prior):
    """A conjugate that does not look at what is possible."""
    return jax.nn.logsumexp(x)


@pytest.mark.parametrize("conjugate", [too_much, everything])
def test_what_is_no_conjugate_is_found_out(conjugate):
    with pytest.raises(ValueError, match="regularizer of 'a' makes a policy that is no distribution .* must sum to 1"):
        exact.solve(program(conjugate))
    assert not jax.jit(lambda beta: exact.solve(program(conjugate, beta)).converged)(1.0)
    possible = np.full((STATES, ACTIONS), 1 / ACTIONS)
    if conjugate is everything:
        close(
            exact.solve(program(everything, prior=possible), tolerance=1e-12).value,
            truth("negative_entropy", prior=possible)[0],
        )


def test_with_its_cost_ones_own_regularizer_evaluates_as_well():
    own = from_conjugate(double_tsallis, lambda q, prior: 2 * regularizers.tsallis_cost(q, prior))
    found = exact.evaluate(program(own), {"a": TASK["prior"]}, tolerance=1e-13).value
    expected = oracle.evaluated("tsallis", **TASK, beta=BETA / 2, discount=DISCOUNT, policy=TASK["prior"])
    close(found, expected)


@pytest.mark.parametrize("name", [*NAMES, half_entropy], ids=[*NAMES, "own"])
def test_programs_of_one_form_are_equal_but_for_their_numbers(name):
    one, other = program(name), program(name, beta=0.3, discount=0.5)
    assert one.structure == other.structure
    assert jax.tree.structure(one) == jax.tree.structure(other)
    again = pickle.loads(pickle.dumps(one))
    assert again.structure == one.structure
    np.testing.assert_array_equal(exact.solve(again).value, exact.solve(one).value)
    assert program("tsallis").structure != program("kl").structure


def test_rewards_and_priors_that_vary_in_time():
    """Three steps of a task whose reward changes, against sweeps with the reward of each time."""
    reward = np.random.default_rng(1).normal(size=(3, STATES, ACTIONS))
    value, policies = np.zeros(STATES), []
    for now in reward[::-1]:
        value, policy = oracle.bellman(oracle.tsallis, TASK["transition"], now, TASK["prior"], BETA, DISCOUNT, value)
        policies.insert(0, policy)
    for prior in (TASK["prior"], np.stack([TASK["prior"]] * 3)):
        solution = exact.solve(program("tsallis", horizon=3, reward=reward, prior=prior))
        close(solution.value[0], value)
        close(solution.policy["a"], np.stack(policies))


def test_single_agent_is_the_kl_in_nats():
    mdp = MDP(TASK["transition"], TASK["reward"], START)
    nats = exact.solve(models.single_agent(mdp, None, BETA, TASK["prior"], DISCOUNT), tolerance=1e-12)
    close(nats.value / BETA, solved("kl").value)
    smooth = exact.solve(models.smooth_bellman(mdp, DISCOUNT, BETA, TASK["prior"]), tolerance=1e-12)
    close(smooth.value, solved("kl").value)
    without = models.smooth_bellman_without_prior(mdp, DISCOUNT, BETA, TASK["prior"])
    close(exact.solve(without, tolerance=1e-12).value, solved("negative_entropy").value)
    assert exact.condition(models.smooth_bellman(mdp, DISCOUNT, 0.1, horizon=3)).converged


MISTAKES = {
    "beta_nan": (lambda: program("kl", beta=np.nan), "beta is nan: give a number, or jnp.inf for the hard maximum"),
    "beta_array": (lambda: program("kl", beta=np.ones(2)), r"beta has shape \(2,\): give one number"),
    "beta_zero": (
        lambda: exact.solve(program("tsallis", beta=0.0)),
        "'a' is 0, .* regularized by tsallis has no limit",
    ),
    "fit_at_infinity": (lambda: svi.fit(program("kl", beta=np.inf), KEY), "of 'a' is infinite.*exact.solve takes it"),
    "condition_tsallis": (lambda: exact.condition(program("tsallis")), "'a' is regularized by tsallis.*no joint model"),
    "condition_at_infinity": (
        lambda: exact.condition(program("kl", beta=np.inf)),
        "of .'a'. is infinite; then there is no joint",
    ),
    "sample_at_infinity": (
        lambda: program("kl", beta=np.inf, horizon=2).model(),
        "of .'a'. is infinite; then there is no joint",
    ),
    "no_discount": (lambda: program("kl", discount=1.0), "horizon None needs a discount below 1"),
    "reward_times": (
        lambda: program("kl", horizon=2, reward=np.zeros((3, STATES, ACTIONS))),
        "the task's reward has 3 time steps, but horizon is 2",
    ),
    "prior": (lambda: program("kl", prior=np.ones((STATES, ACTIONS))), r"prior\[0\] sums to 3"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_named(case):
    wrong, message = MISTAKES[case]
    with pytest.raises(ValueError, match=message):
        wrong()
