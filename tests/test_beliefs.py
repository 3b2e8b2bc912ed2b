"""What a POMDP is worth: exact where few beliefs are reached, else bracketed, against recursions over all histories."""

import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import hidden_state as oracle
from selection import quick, quick_rows

from rlinf_ppl import models
from rlinf_ppl.algebra import belief_bounds
from rlinf_ppl.inference import beliefs, exact, execution, svi
from rlinf_ppl.tasks import POMDP

INF, STEPS = np.inf, 3
BETAS = (0.0, 0.3, 3.0, INF)
PRIORS = {"uniform": None, "uneven": np.array([0.3, 0.7]), "forbidden": np.array([0.0, 1.0])}
TIGER = oracle.tiger()


def pomdp(task, **other):
    task = task._replace(**other)
    return POMDP(task.transition, task.reward, task.observation, task.initial, task.discount)


def random_task(seed, kind="plain"):
    """Three states, two actions and two observations, or three to tell the states apart."""
    rng, observations = np.random.default_rng(seed), 3 if kind == "perfect" else 2
    transition = rng.dirichlet(0.5 * np.ones(3), (3, 2))
    observation = rng.dirichlet(0.5 * np.ones(observations), (3, 2))
    initial, reward, discount = rng.dirichlet(np.ones(3)), rng.normal(size=(3, 2)), 0.9
    if kind == "useless":
        observation[:] = observation[0]
    if kind == "perfect":
        observation[:] = np.eye(3)[:, None]
    if kind == "deterministic":
        transition = np.eye(3)[rng.integers(3, size=(3, 2))]
        observation = np.eye(2)[rng.integers(2, size=(3, 2))]
    if kind == "absorbing":
        transition[0], reward[0] = np.eye(3)[0], 0.0
    if kind == "corner":
        initial = np.eye(3)[1]
    if kind == "myopic":
        discount = 0.0
    return oracle.Task(transition, reward, observation, initial, discount)


KINDS = ["plain", "useless", "perfect", "deterministic", "absorbing", "corner", "myopic"]


@pytest.mark.parametrize("beta", [0.0, 1.0, 10.0, 100.0, 1e6, INF])
def test_tiger(beta):
    found = beliefs.solve(pomdp(TIGER), 6, beta)
    truth = oracle.tiger_value(6, 1.0, beta)
    assert found.converged
    np.testing.assert_allclose([found.lower, found.upper], truth, rtol=1e-10)
    endless = beliefs.solve(pomdp(TIGER, discount=0.95), None, beta)
    truth = oracle.tiger_value(900, 0.95, beta)
    assert endless.converged
    assert endless.lower - 1e-9 <= truth <= endless.upper + 1e-9
    np.testing.assert_allclose([endless.lower, endless.upper], truth, rtol=1e-6)


def test_tiger_in_numbers_that_are_known():
    """The hard values are those of the literature, the soft ones of a recursion elsewhere."""
    for horizon, discount, known in (
        (6, 1.0, {1.0: -0.860042, 10.0: 4.959653, 100.0: 5.552903, 1e6: 5.618819}),
        (None, 0.95, {1.0: -0.525935, 10.0: 17.174598, 100.0: 19.151646, 1e6: 19.371368}),
    ):
        for beta, value in known.items():
            found = beliefs.solve(pomdp(TIGER, discount=discount), horizon, beta)
            assert float(found.lower) == pytest.approx(value, abs=1e-4 if beta == 1e6 else 1e-5)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("kind", quick(["plain"], KINDS))
def test_random_tasks_by_all_histories(kind, beta, prior):
    for seed in range(3):
        task, probabilities = random_task(seed, kind), PRIORS[prior]
        truth = oracle.soft_value(task, STEPS, beta, probabilities)
        found = beliefs.solve(pomdp(task), STEPS, beta, probabilities)
        assert found.converged
        np.testing.assert_allclose([found.lower, found.upper], truth, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_kinds_of_tasks_by_all_histories(kind):
    test_random_tasks_by_all_histories(kind, 3.0, "uneven")


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 3, 2), (2, 2, 3), (4, 1, 2), (3, 2, 1), (1, 2, 2), (5, 2, 2)])
def test_other_numbers_of_states_actions_and_observations(shape):
    rng, (states, actions, observations) = np.random.default_rng(0), shape
    tables = rng.dirichlet(np.ones(states), (states, actions)), rng.normal(size=(states, actions))
    shows = rng.dirichlet(np.ones(observations), (states, actions))
    task = oracle.Task(*tables, shows, rng.dirichlet(np.ones(states)), 0.8)
    for beta in BETAS:
        found = beliefs.solve(pomdp(task), STEPS, beta)
        np.testing.assert_allclose([found.lower, found.upper], oracle.soft_value(task, STEPS, beta), rtol=1e-8)


def test_a_useless_observation_is_none():
    """Without end all beliefs are not kept, and brackets of the same value overlap."""
    task = random_task(1, "useless")._replace(discount=0.5)
    tasks = [pomdp(each) for each in (task, task._replace(observation=np.ones((3, 2, 1))))]
    found, other = (beliefs.solve(each, STEPS, 2.0) for each in tasks)
    np.testing.assert_allclose([found.lower, found.upper], [other.lower, other.upper], rtol=1e-10)
    found, other = (beliefs.solve(each, None, 2.0, num_beliefs=32) for each in tasks)
    assert max(found.lower, other.lower) <= min(found.upper, other.upper)
    np.testing.assert_allclose(found.lower, other.upper, atol=1e-2)


@pytest.mark.parametrize("beta", [3.0, INF])
def test_a_perfect_observation_leaves_a_decision_process_but_for_the_first_state(beta):
    task = random_task(2, "perfect")
    control = models.single_agent(pomdp(task).mdp, STEPS - 1, 1.0, discount=task.discount)
    seen = np.asarray(exact.solve(control.tempered(beta)).value[0])
    q = task.initial @ (task.reward + task.discount * task.transition @ seen)
    found = beliefs.solve(pomdp(task), STEPS, beta)
    np.testing.assert_allclose([found.lower, found.upper], oracle.soft_maximum(np.ones(2) / 2, q, beta), rtol=1e-9)


def brackets(task, horizon, beta, found, within=1e-12):
    """Whether bounds hold of the beliefs that are kept, and of others, by their tangents and chords."""
    others = np.random.default_rng(0).dirichlet(np.ones(3), 5)
    tangents = np.asarray(found.policy["a"].tangents)
    for t in range(horizon):
        worth = lambda b, t=t: oracle.soft_value(task, horizon - t, beta, joint=b)  # noqa: E731
        kept = np.array([worth(b) for b in np.asarray(found.beliefs)])
        assert (found.lower_values[t] <= kept + within).all()
        assert (kept <= found.upper_values[t] + within).all()
        truth = np.array([worth(b) for b in others])
        assert (np.max(others @ tangents[t].T, 1) <= truth + within).all()
        assert (truth <= belief_bounds.chords(found.beliefs, found.upper_values[t], jnp.asarray(others)) + within).all()


@pytest.mark.parametrize("beta", quick([0.3, INF], BETAS))
@pytest.mark.parametrize("kind", quick(["plain"], ["plain", "deterministic", "absorbing"]))
def test_bounds_hold_with_far_too_few_beliefs(kind, beta):
    for seed, most in ((0, 1), (1, 6), (2, 9)):
        task = random_task(seed, kind)
        found = beliefs.solve(pomdp(task), STEPS, beta, num_beliefs=most)
        assert len(found.beliefs) <= max(most, 4)
        np.testing.assert_array_equal(found.beliefs[:3], np.eye(3))
        np.testing.assert_allclose(found.beliefs[3], task.initial, rtol=1e-12)
        assert found.lower_values.shape == found.upper_values.shape == (STEPS + 1, len(found.beliefs))
        assert (np.asarray(found.lower_values[-1]) == 0).all()
        np.testing.assert_array_equal([found.lower, found.upper], [found.lower_values[0, 3], found.upper_values[0, 3]])
        brackets(task, STEPS, beta, found)


@pytest.mark.slow
def test_few_beliefs_leave_a_gap_that_more_beliefs_narrow():
    for horizon in (4, None):
        task = random_task(3)._replace(discount=0.6)
        found = [beliefs.solve(pomdp(task), horizon, 3.0, num_beliefs=most) for most in (4, 16, 64)]
        gaps = np.array([float(each.upper - each.lower) for each in found])
        assert (np.diff(gaps) < 0).all()
        assert gaps[0] > 1e-3
        assert not found[0].converged
        assert max(float(each.lower) for each in found) <= min(float(each.upper) for each in found)


def test_a_tolerance_is_met_with_fewer_beliefs():
    task = pomdp(random_task(3), discount=0.5)
    coarse, fine = (beliefs.solve(task, None, 3.0, tolerance=within, num_beliefs=128) for within in (0.02, None))
    assert coarse.converged
    assert float(coarse.upper - coarse.lower) <= 0.02
    assert len(coarse.beliefs) < len(fine.beliefs)
    assert coarse.lower_values.shape == (len(coarse.beliefs),)


def one_step_ahead(task, beta, tangents, at):
    """What is to be had by the best action and the best linear function after it, at many beliefs."""
    joint = np.einsum("bs,san,nao->baon", at, task.transition, task.observation)
    q = at @ task.reward + task.discount * np.max(joint @ tangents.T, -1).sum(-1)
    return oracle.soft_maximum(np.ones(2) / 2, q, beta)


@pytest.mark.parametrize("beta, most", [(INF, 5), (3.0, 5), (2.0, 40)])
def test_without_end_nothing_is_promised_that_the_policy_does_not_reach(beta, most):
    """Each linear function lies below one more step of the policy, and so below all of its steps."""
    at = np.random.default_rng(0).dirichlet(0.5 * np.ones(3), 1000)
    for seed in (0, 9, 11):
        for discount in (0.6, 0.95):
            task = random_task(seed)._replace(discount=discount)
            found = beliefs.solve(pomdp(task), None, beta, num_beliefs=most)
            tangents = np.asarray(found.policy["a"].tangents)
            promised = np.max(at @ tangents.T, 1)
            assert (one_step_ahead(task, beta, tangents, at) >= promised - 1e-10).all()
            kept = np.asarray(found.beliefs)
            np.testing.assert_allclose(np.max(kept @ tangents.T, 1), found.lower_values, rtol=1e-12)


@pytest.mark.parametrize(("beta", "most"), quick_rows([(3.0, 5)], itertools.product([0.3, 3.0, INF], [5, 512])))
def test_the_policy_earns_what_is_promised(beta, most):
    task = random_task(5)
    found = beliefs.solve(pomdp(task), STEPS, beta, num_beliefs=most)
    law = lambda b, t: np.asarray(found.policy["a"](jnp.asarray(b), t).probs)  # noqa: E731
    elbo, earned = oracle.policy_value(task, STEPS, beta, law)
    assert float(found.lower) - 1e-12 <= elbo <= oracle.soft_value(task, STEPS, beta) + 1e-12
    program = models.belief(pomdp(task), STEPS, 1.0 if np.isinf(beta) else beta)
    played = execution.roll_out(program, jax.random.key(0), found, 4000)
    assert abs(float(played.mean) - earned) <= 4 * float(played.standard_error)
    assert float(played.mean) >= float(found.lower) - 4 * float(played.standard_error)


def test_action_values_are_those_of_all_histories_where_all_beliefs_are_kept():
    task = random_task(6)
    policy = beliefs.solve(pomdp(task), STEPS, 3.0).policy["a"]
    for a in range(2):
        q = task.initial @ task.reward[:, a]
        for after in oracle.followed(task, task.initial, a).T:
            q += task.discount * after.sum() * oracle.soft_value(task, STEPS - 1, 3.0, joint=after)
        np.testing.assert_allclose(policy.action_values(jnp.asarray(task.initial), 0)[a], q, rtol=1e-10)


def test_single_precision():
    for beta in (0.0, 3.0, INF):
        for seed, most in ((0, 512), (1, 8)):
            task = random_task(seed)
            truth = oracle.soft_value(task, STEPS, beta)
            with jax.enable_x64(False):
                found = beliefs.solve(pomdp(task), STEPS, beta, num_beliefs=most)
                assert found.lower.dtype == found.beliefs.dtype == np.float32
            assert float(found.lower) <= truth + 1e-5
            assert float(found.upper) >= truth - 1e-5
    with jax.enable_x64(False):
        endless = beliefs.solve(pomdp(TIGER, discount=0.95), None, 1.0)
        assert endless.converged
        np.testing.assert_allclose([endless.lower, endless.upper], -0.525935, atol=2e-2)


def test_single_precision_of_extreme_inverse_temperatures():
    """What a law costs is not rounding over next to nothing, and what is beyond the numbers' range is the maximum."""
    task = random_task(0)
    with jax.enable_x64(False):
        for beta, like in {1e-38: 0.0, 1e-12: 0.0, 1e-7: 1e-7, 1e-5: 1e-5, 1e-3: 1e-3, 1e3: 1e3, 1e38: INF}.items():
            found, truth = beliefs.solve(pomdp(task), STEPS, beta), oracle.soft_value(task, STEPS, like)
            np.testing.assert_allclose([found.lower, found.upper], truth, atol=2e-6)


def test_fits_in_single_precision_stay_below_the_bound_at_next_to_no_inverse_temperature():
    with jax.enable_x64(False):
        for seed in range(2):
            task = pomdp(random_task(seed))
            program = models.finite_memory(task, 2, beta=1e-6)
            fit, bound = svi.fit(program, jax.random.key(0), 50), beliefs.solve(task, 2, 1e-6)
            np.testing.assert_allclose(fit.elbo, exact.elbo(program, fit.policy), rtol=1e-6)
            assert fit.elbo <= bound.upper + 1e-6


@cache
def tiger():
    return pomdp(TIGER)


@pytest.mark.parametrize(
    "arguments, kind, message",
    [
        ((5,), ValueError, "beta is -1"),
        ((None,), ValueError, "without end the discount must be below 1; the task's is 1"),
        ((0,), ValueError, "horizon must be at least 1; got 0"),
    ],
)
def test_bad_horizons_and_temperatures(arguments, kind, message):
    with pytest.raises(kind, match=message):
        beliefs.solve(tiger(), *arguments, -1.0 if arguments == (5,) else 1.0)


def test_bad_input(monkeypatch):
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    for given, message in [
        ({"beta": np.ones(2)}, "beta is .* one inverse temperature"),
        ({"prior": np.ones(2) / 2}, r"prior has shape \(2,\)"),
        ({"prior": np.ones(3)}, "prior"),
        ({"num_beliefs": 0}, "num_beliefs"),
        ({"beta": np.nan}, "beta is nan"),
        ({"tolerance": -1}, "tolerance is -1: bounds"),
    ]:
        with pytest.raises(ValueError, match=message):
            beliefs.solve(tiger(), 2, **given)
    for given in ("1", None, 1j):
        with pytest.raises(TypeError, match="beta holds .* not real numbers"):
            beliefs.solve(tiger(), 2, given)
    with pytest.raises(TypeError, match="pomdp"):
        beliefs.solve(tiger().mdp, 2)
    with pytest.raises(ValueError, match="call beliefs.solve outside of jit, vmap and grad"):
        jax.jit(lambda beta: beliefs.solve(tiger(), 2, beta).lower)(1.0)


def test_policies_at_other_beliefs_and_times(monkeypatch):
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    solved = beliefs.solve(tiger(), np.int32(2))
    policy = solved.policy["a"]
    with pytest.raises(ValueError, match=r"belief has shape \(3,\): the policy is of a task of 2 states"):
        policy(jnp.ones(3) / 3)
    np.testing.assert_array_equal(policy([0.5, 0.5]).probs, policy(jnp.array([0.5, 0.5])).probs)
    for t in (-1, 2):
        assert np.isnan(policy.action_values(jnp.array([0.5, 0.5]), t)).all()
    with pytest.raises(FloatingPointError, match="'a' at t = 2"):
        execution.roll_out(models.belief(tiger(), 3), jax.random.key(0), solved, 10)


def test_sparse_tasks_and_rewards_of_what_is_seen_are_solved_alike():
    task, rng = random_task(7), np.random.default_rng(0)
    reward = rng.normal(size=(3, 2, 3, 2))
    expected = np.einsum("sano,san,nao->sa", reward, task.transition, task.observation)
    truth = oracle.soft_value(task._replace(reward=expected), STEPS, 2.0)
    full = POMDP(task.transition, reward, task.observation, task.initial, task.discount)
    for each in (full, full.as_sparse(), full.averaged()):
        np.testing.assert_allclose(beliefs.solve(each, STEPS, 2.0).upper, truth, rtol=1e-9)
