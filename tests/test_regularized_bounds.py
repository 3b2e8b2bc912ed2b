"""What holds for every regularized task: contraction, order, limits of the temperature, and the two conventions."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles import regularized as oracle
from selection import quick

from rlinf_ppl import ControlProgram, models
from rlinf_ppl import optimality as state_optimality
from rlinf_ppl.algebra import regularizers
from rlinf_ppl.inference import exact
from rlinf_ppl.models.dynamics import first_state
from rlinf_ppl.models.regularized import regularized_by, step
from rlinf_ppl.tasks import MDP

STATES, ACTIONS = 3, 3
NAMES = ["kl", "negative_entropy", "tsallis"]
START = np.full(STATES, 1 / STATES)


def distributions(*shape):
    """Distributions over the last axis from small integers, so that zeros are common."""

    def scale(counts):
        counts = counts.astype(float)
        counts[..., 0] += counts.sum(-1) == 0
        return counts / counts.sum(-1, keepdims=True)

    return arrays(np.int64, shape, elements=st.integers(0, 3)).map(scale)


def numbers(*shape, most=3.0):
    return arrays(float, shape, elements=st.floats(-most, most, allow_subnormal=False))


TASKS = st.fixed_dictionaries(
    {
        "transition": distributions(STATES, ACTIONS, STATES),
        "reward": numbers(STATES, ACTIONS),
        "prior": distributions(STATES, ACTIONS),
    }
)
DISCOUNTS = st.sampled_from([0.3, 0.9, 0.99])


def solve(name, task, beta, discount):
    mdp = MDP(task["transition"], task["reward"], START)
    control = models.regularized(mdp, None, getattr(regularizers, name), beta, task["prior"], discount)
    solution = exact.solve(control, tolerance=1e-11)
    assert solution.converged
    return np.asarray(solution.value), np.asarray(solution.policy["a"])


def final(mdp, prior, beta, value, s):
    state_optimality(value[s])


def swept(name, task, beta, discount, value):
    """One application of the Bellman operator to a value."""
    mdp = MDP(task["transition"], task["reward"], START)

    def one(mdp, prior, beta, value, s):
        return regularized_by(step, getattr(regularizers, name))(mdp, prior, beta, s)

    args = mdp, jnp.asarray(task["prior"]), jnp.asarray(beta), jnp.asarray(value)
    return np.asarray(exact.solve(ControlProgram(first_state, one, 1, discount, final, args)).value[0])


@pytest.mark.slow
@settings(max_examples=25)
@given(
    name=st.sampled_from(NAMES),
    task=TASKS,
    u=numbers(STATES),
    v=numbers(STATES),
    shift=st.floats(-5, 5),
    discount=DISCOUNTS,
)
def test_the_operator_contracts_by_the_discount_and_no_more(name, task, u, v, shift, discount):
    at_u, at_v, shifted = (swept(name, task, 1.3, discount, each) for each in (u, v, u + shift))
    assert np.abs(at_u - at_v).max() <= discount * np.abs(u - v).max() + 1e-12
    np.testing.assert_allclose(shifted, at_u + discount * shift, rtol=1e-12, atol=1e-11)
    higher = swept(name, task, 1.3, discount, np.maximum(u, v))
    assert (higher >= np.maximum(at_u, at_v) - 1e-12).all(), "it is monotone"


def hard(task, discount):
    return oracle.fixed_point(None, task["transition"], task["reward"], task["prior"], np.inf, discount)[0]


@pytest.mark.slow
@settings(max_examples=25)
@given(task=TASKS, discount=DISCOUNTS, betas=st.tuples(st.floats(0.05, 5), st.floats(0.05, 5)).map(sorted))
def test_values_are_ordered_in_the_inverse_temperature_and_bounded_by_the_hard_one(task, discount, betas):
    best, slack = hard(task, discount), 1e-8
    for name, sign in (("kl", 1), ("negative_entropy", -1), ("tsallis", -1)):
        (low, _), (high, _) = (solve(name, task, beta, discount) for beta in betas)
        assert (sign * (high - low) >= -slack).all()
        assert (sign * (best - high) >= -slack).all()
        most = np.log(ACTIONS) if name == "negative_entropy" else (1 - 1 / ACTIONS) / 2
        if sign < 0:  # the largest Omega can save
            assert (low - best <= most / (betas[0] * (1 - discount)) + slack).all()


@pytest.mark.slow
@settings(max_examples=15)
@given(name=st.sampled_from(NAMES), task=TASKS, discount=DISCOUNTS)
def test_infinite_and_large_inverse_temperatures_are_hard_value_iteration(name, task, discount):
    value, policy = solve(name, task, np.inf, discount)
    np.testing.assert_allclose(value, hard(task, discount), rtol=1e-10, atol=1e-10)
    bare = oracle.evaluated(None, **task, beta=1.0, discount=discount, policy=policy)
    np.testing.assert_allclose(bare, value, rtol=1e-9, atol=1e-9)
    near, _ = solve(name, task, 1e7, discount)
    least = np.log(task["prior"][task["prior"] > 0].min() / ACTIONS)
    assert np.abs(near - value).max() <= -least / (1e7 * (1 - discount)) + 1e-8


@settings(max_examples=15)
@given(task=TASKS, discount=DISCOUNTS)
def test_without_inverse_temperature_the_kl_leaves_the_prior(task, discount):
    expected = oracle.evaluated(None, **task, beta=1.0, discount=discount, policy=task["prior"])
    for beta, tolerance in ((0.0, 1e-10), (1e-9, 1e-5)):
        value, policy = solve("kl", task, beta, discount)
        np.testing.assert_allclose(value, expected, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(policy, task["prior"], atol=1e-5 if beta else 1e-14)


RNG = np.random.default_rng(2)
MDP_OF_TWO = MDP(RNG.dirichlet(np.ones(STATES), size=(STATES, ACTIONS)), RNG.normal(size=(STATES, ACTIONS)), START)
PAIRS_OF_ACTIONS = np.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5]])


@pytest.mark.parametrize("beta", [1.7, -0.6, np.inf])
@pytest.mark.parametrize("prior", [None, PAIRS_OF_ACTIONS], ids=["all actions", "two actions each"])
@pytest.mark.parametrize(
    "horizon_and_discount", quick([(None, 0.9), (4, 0.9)], [(None, 0.9), (4, 0.9), (4, 1.0), (4, 0.0)])
)
def test_the_two_conventions_differ_by_a_constant_and_share_the_policy(beta, prior, horizon_and_discount):
    horizon, discount = horizon_and_discount
    inside = exact.solve(models.smooth_bellman(MDP_OF_TWO, discount, beta, prior, horizon))
    without = exact.solve(models.smooth_bellman_without_prior(MDP_OF_TWO, discount, beta, prior, horizon))
    np.testing.assert_allclose(without.policy["a"], inside.policy["a"], rtol=1e-6, atol=1e-9)
    left = models.leave_prior_out(MDP_OF_TWO, inside.value, beta, discount, prior)
    np.testing.assert_allclose(left, without.value, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(models.put_prior_in(MDP_OF_TWO, left, beta, discount, prior), inside.value, rtol=1e-12)


def test_values_in_nats_lose_the_log_of_the_number_of_actions_a_step():
    nats = exact.solve(models.single_agent(MDP_OF_TWO, 3, 2.0)).value
    left = models.leave_prior_out(MDP_OF_TWO, nats)
    np.testing.assert_allclose(left - nats, np.log(ACTIONS) * np.array([[3.0], [2.0], [1.0], [0.0]]) * np.ones(STATES))


def test_where_the_number_of_actions_differs_the_policies_do():
    uneven = np.array([[1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    inside = exact.solve(models.smooth_bellman(MDP_OF_TWO, 0.9, 1.7, uneven)).policy["a"]
    without = exact.solve(models.smooth_bellman_without_prior(MDP_OF_TWO, 0.9, 1.7, uneven)).policy["a"]
    assert np.abs(inside - without).max() > 0.01
    with pytest.raises(ValueError, match=r"prior\[1\] allows 2 actions and prior\[0\] 3: then the conventions differ"):
        models.leave_prior_out(MDP_OF_TWO, START, 1.7, 0.9, uneven)
    skewed = np.array([[0.4, 0.3, 0.3]] * STATES)
    with pytest.raises(ValueError, match=r"prior\[0\] is \[0.4 0.3 0.3\]: then the conventions differ"):
        models.put_prior_in(MDP_OF_TWO, START, 1.7, 0.9, skewed)


CONVERSIONS = {
    "beta": ((START, 0.0, 0.9), "beta is 0, where only the value with the prior inside has a limit"),
    "discount": ((START, 1.0, 1.0), "discount is 1.0: a value without end"),
    "value": ((np.zeros(2), 1.0, 0.9), r"value must be \(3,\) or \(T \+ 1, 3\)"),
}


@pytest.mark.parametrize("case", CONVERSIONS)
def test_mistakes_in_a_conversion_are_named(case):
    given, message = CONVERSIONS[case]
    with pytest.raises(ValueError, match=message):
        models.leave_prior_out(MDP_OF_TWO, *given)


@cache
def float32_case():
    with jax.enable_x64(False):
        mdp = MDP(*(np.asarray(x, np.float32) for x in (MDP_OF_TWO.transition, MDP_OF_TWO.reward, START)))
        return [
            exact.solve(models.regularized(mdp, None, getattr(regularizers, name), 2.0, discount=0.99))
            for name in NAMES
        ]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_single_precision_keeps_its_error_bound(name):
    solution = float32_case()[NAMES.index(name)]
    task = np.asarray(MDP_OF_TWO.transition), np.asarray(MDP_OF_TWO.reward), np.full((STATES, ACTIONS), 1 / ACTIONS)
    value, policy = oracle.fixed_point(getattr(oracle, name), *task, 2.0, 0.99)
    assert solution.value.dtype == jnp.float32 and solution.converged
    assert np.abs(solution.value - value).max() <= float(solution.error_bound)
    np.testing.assert_allclose(solution.value, value, rtol=1e-4)
    np.testing.assert_allclose(solution.policy["a"], policy, atol=1e-4)
