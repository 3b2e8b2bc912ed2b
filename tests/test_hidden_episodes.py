"""An episode of a POMDP: the belief, the smoothed states and the likelihood against all hidden paths, and by particles.

The worked case's moments are those of a filter that draws ancestors independently before every step. Ours draws them
systematically, so only what the two share is compared with them: all of one particle, and the mean of any number. For
two particles the moments of the systematic filter are listed as well; for more there are bounds and an order.
"""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import hidden_state as oracle
from worked_cases import multi_agent_case

from rlinf_ppl import models
from rlinf_ppl.inference import exact, smc
from rlinf_ppl.tasks import POMDP

ACTIONS, SEEN = np.array([0, 1, 1, 0]), np.array([1, 0, 1, 1])
NUM_KEYS = 10_000


def random_task(seed, zeros=False, shape=(3, 2, 2)):
    """Tables with rewards, which an episode knows nothing of; the last observation is impossible for action 1."""
    rng, (states, actions, observations) = np.random.default_rng(seed), shape
    transition = rng.dirichlet(np.ones(states), (states, actions))
    observation = rng.dirichlet(np.ones(observations), (states, actions))
    initial = rng.dirichlet(np.ones(states))
    if zeros:
        transition[:, 0] = np.eye(states)[rng.permutation(states)]
        observation[0, 0] = np.eye(observations)[0]
        initial[0] = 0.0
    reward = 50 * rng.normal(size=(states, actions))
    return oracle.Task(transition, reward, observation, initial / initial.sum())


def pomdp(task, discount=0.5):
    """As the library has it; the discount is no part of what happened."""
    return POMDP(task.transition, task.reward, task.observation, task.initial, discount)


@cache
def worked():
    given, expected, tolerance = multi_agent_case("pomdp_filter")
    task = oracle.Task(given["P"], np.zeros((3, 2)), given["U"], given["p0"])
    return task, given["actions"], given["observations"], expected, tolerance


def agrees(task, actions, seen, made=None):
    made = pomdp(task) if made is None else made
    program = models.episode(made, actions, seen)
    found = exact.filtered(program), exact.posterior_marginals(program).state
    truth = oracle.filtered(task, actions, seen), oracle.smoothed(task, actions, seen)
    for one, other in zip(found, truth, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-14)
    log_likelihood = np.log(oracle.likelihood(task, actions, seen))
    np.testing.assert_allclose(exact.condition(program).log_evidence, log_likelihood, rtol=1e-10)
    belief = made.initial
    for t, (a, o) in enumerate(zip(actions, seen, strict=True)):
        belief = made.update(belief, int(a), int(o))
        np.testing.assert_allclose(belief, truth[0][t + 1], rtol=1e-10, atol=1e-14)


def test_the_worked_case():
    task, actions, seen, expected, tolerance = worked()
    assert set(expected) == {
        "beliefs", "step_likelihoods", "log_likelihood", "log_likelihood_prefix", "bootstrap_exact_moments", "scheme"
    }  # fmt: skip
    agrees(task, actions, seen)
    program = models.episode(pomdp(task), actions, seen)
    np.testing.assert_allclose(exact.filtered(program), expected["beliefs"], rtol=tolerance)
    made, beliefs = pomdp(task), exact.filtered(program)
    steps = [
        float(made.predicted(beliefs[t], int(a)) @ made.observation[:, int(a), int(o)])
        for t, (a, o) in enumerate(zip(actions, seen, strict=True))
    ]
    np.testing.assert_allclose(steps, expected["step_likelihoods"], rtol=tolerance)
    np.testing.assert_allclose(np.cumsum(np.log(steps)), expected["log_likelihood_prefix"], rtol=tolerance)
    log_likelihood = exact.condition(program).log_evidence
    np.testing.assert_allclose(log_likelihood, expected["log_likelihood"], rtol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_beginnings_of_the_worked_case(steps):
    task, actions, seen, expected, tolerance = worked()
    found = exact.condition(models.episode(pomdp(task), actions[:steps], seen[:steps])).log_evidence
    np.testing.assert_allclose(found, expected["log_likelihood_prefix"][steps - 1], rtol=tolerance)


def test_the_listed_moments_are_those_of_the_worked_case():
    task, actions, seen, expected, _ = worked()
    for case in expected["bootstrap_exact_moments"][:2]:
        for scheme, first in (("resample_first", True), ("no_first_resample", False)):
            found = oracle.bootstrap_moments(task, actions, seen, int(case["K"]), first=first)
            names = ["E_p_hat", "E_p_hat_sq", "E_log_p_hat"]
            np.testing.assert_allclose(found, [case[scheme][name] for name in names], rtol=1e-10)


@pytest.mark.parametrize("zeros", [False, True])
def test_random_tasks(zeros):
    for seed in range(3):
        agrees(random_task(seed, zeros), ACTIONS, SEEN)


def test_sparse_tasks_and_rewards_of_what_is_observed():
    task = random_task(4, zeros=True)
    agrees(task, ACTIONS, SEEN, pomdp(task).as_sparse())
    reward = np.random.default_rng(0).normal(size=(3, 2, 3, 2))
    agrees(task, ACTIONS, SEEN, POMDP(task.transition, reward, task.observation, task.initial))


@pytest.mark.slow
def test_other_numbers_of_states_actions_and_observations():
    agrees(random_task(0, shape=(2, 3, 4)), np.array([2, 0, 1]), np.array([3, 0, 2]))
    agrees(random_task(1, shape=(4, 1, 1)), np.zeros(2, int), np.zeros(2, int))


def test_what_cannot_be_observed():
    """Rewards take no part in it, so nothing is said of them."""
    task = random_task(5)
    task.observation[:, 0] = [1.0, 0.0]
    for seen in ([1, 0, 0, 0], [0, 1, 0, 1]):
        program = models.episode(pomdp(task), ACTIONS, seen)
        assert oracle.likelihood(task, ACTIONS, seen) == 0
        assert float(exact.condition(program).log_evidence) == -np.inf
        assert float(smc.run(program, jax.random.key(0), 8).log_evidence) == -np.inf
        with pytest.raises(ValueError, match="data up to time . have probability zero") as filtering:
            exact.filtered(program)
        with pytest.raises(ValueError, match="no trajectory meets the data") as smoothing:
            exact.posterior_marginals(program)
        assert "reward" not in str(filtering.value) + str(smoothing.value)


def test_many_episodes_at_once():
    task, rng = random_task(6, zeros=True), np.random.default_rng(0)
    actions, seen = rng.integers(2, size=(2, 6, 4))
    made = pomdp(task)
    log_likelihood = jax.vmap(lambda a, o: exact.condition(models.episode(made, a, o)).log_evidence)(actions, seen)
    with np.errstate(divide="ignore"):
        truth = [np.log(oracle.likelihood(task, a, o)) for a, o in zip(actions, seen, strict=True)]
    np.testing.assert_allclose(log_likelihood, truth, rtol=1e-10)
    beliefs = jax.vmap(lambda a, o: exact.filtered(models.episode(made, a, o)))(actions, seen)
    for found, a, o in zip(beliefs, actions, seen, strict=True):
        if oracle.likelihood(task, a, o) > 0:
            np.testing.assert_allclose(found, oracle.filtered(task, a, o), rtol=1e-10, atol=1e-14)


def test_slopes_of_the_log_likelihood():
    """Along directions in which rows stay distributions, by central differences."""
    task, rng, width = random_task(7), np.random.default_rng(1), 1e-5
    made = pomdp(task)

    def log_likelihood(tables):
        moved = eqx.tree_at(lambda each: (each.transition, each.observation, each.initial), made, tables)
        return exact.condition(models.episode(moved, ACTIONS, SEEN)).log_evidence

    tables = task.transition, task.observation, task.initial
    slopes = jax.jit(jax.grad(log_likelihood))(tuple(map(jnp.asarray, tables)))
    for i, name in enumerate(("transition", "observation", "initial")):
        for _ in range(3):
            way = rng.normal(size=tables[i].shape)
            way -= way.mean(-1, keepdims=True)
            ends = [
                np.log(oracle.likelihood(task._replace(**{name: tables[i] + sign * width * way}), ACTIONS, SEEN))
                for sign in (1, -1)
            ]
            np.testing.assert_allclose(np.sum(slopes[i] * way), (ends[0] - ends[1]) / (2 * width), rtol=1e-6)


@cache
def estimates(count):
    """log p_hat of many filters; at this threshold ancestors are drawn before every step but the first."""
    task, actions, seen, *_ = worked()
    program, keys = models.episode(pomdp(task), actions, seen), jax.random.split(jax.random.key(count), NUM_KEYS)
    return np.asarray(jax.vmap(lambda key: smc.run(program, key, count, threshold=1.0).log_evidence)(keys))


def is_mean(samples, expected):
    error = np.std(samples) / np.sqrt(len(samples))
    assert abs(np.mean(samples) - expected) <= 5 * error


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_estimate_of_particles_is_unbiased(count):
    _, _, _, expected, _ = worked()
    moments = {int(case["K"]): case["no_first_resample"] for case in expected["bootstrap_exact_moments"]}
    is_mean(np.exp(estimates(count)), float(moments[count]["E_p_hat"]))


def test_one_and_two_particles_have_the_moments_that_are_listed():
    """One particle weighs all there is, whichever way its children would be drawn; of two our own way is listed."""
    task, actions, seen, expected, _ = worked()
    one = oracle.bootstrap_moments(task, actions, seen, 1, oracle.systematic)
    case = expected["bootstrap_exact_moments"][0]["no_first_resample"]
    np.testing.assert_allclose(one, [case[name] for name in ("E_p_hat", "E_p_hat_sq", "E_log_p_hat")], rtol=1e-10)
    two = oracle.bootstrap_moments(task, actions, seen, 2, oracle.systematic)
    for count, moments in ((1, one), (2, two)):
        is_mean(np.exp(2 * estimates(count)), moments.second)
        is_mean(estimates(count), moments.mean_log)
    multinomial = oracle.bootstrap_moments(task, actions, seen, 2)
    assert two.second < multinomial.second
    assert two.mean_log > multinomial.mean_log


def test_the_mean_of_the_log_lies_below_and_rises():
    _, _, _, expected, _ = worked()
    means = [np.mean(estimates(count)) for count in (1, 2, 4)]
    errors = [np.std(estimates(count)) / np.sqrt(NUM_KEYS) for count in (1, 2, 4)]
    assert (np.diff(means) > 5 * np.hypot(errors[1:], errors[:-1])).all()
    assert means[-1] + 5 * errors[-1] < float(expected["log_likelihood"])


def test_bad_input():
    made = pomdp(random_task(0))
    for actions, seen, kind, message in [
        ([0, 2], [0, 0], ValueError, r"actions\[1\] is 2, but there are 2 actions: give positions from 0 to 1"),
        (
            [0, 0],
            [0, -1],
            ValueError,
            r"observations\[1\] is -1, but there are 2 observations: give positions from 0 to 1",
        ),
        ([0.0, 1.0], [0, 0], TypeError, "actions holds float64, not integers"),
        ([0, 1], [0], ValueError, r"actions has shape \(2,\) and observations \(1,\)"),
        ([], [], ValueError, "an episode has at least one step"),
        ([[[0, 1]]], [[[0, 1]]], ValueError, r"or both \(n, T\) of several episodes"),
    ]:
        with pytest.raises(kind, match=message):
            models.episode(made, np.asarray(actions), np.asarray(seen))
    with pytest.raises(TypeError, match="pomdp"):
        models.episode(made.mdp, [0], [0])
