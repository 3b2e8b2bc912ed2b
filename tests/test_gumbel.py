"""Rust's view by simulation: an agent that maximises under Gumbel noise chooses as smooth Bellman says."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.handlers import seed, trace
from numpyro.infer import Predictive
from oracles import regularized as oracle
from worked_cases import worked_case

from rlinf_ppl import models
from rlinf_ppl.inference import exact
from rlinf_ppl.tasks import MDP

STATES, ACTIONS, DISCOUNT, BETA, DRAWS, MOST_ERRORS = 4, 3, 0.9, 1.7, 40_000, 4
RNG = np.random.default_rng(8)
TRANSITION, REWARD = RNG.dirichlet(np.ones(STATES), size=(STATES, ACTIONS)), RNG.normal(size=(STATES, ACTIONS))
PRIOR = np.array([[0.5, 0.2, 0.3], [0.6, 0.0, 0.4], [0.0, 0.0, 1.0], [0.1, 0.8, 0.1]])
TASK = MDP(TRANSITION, REWARD, [0.5, 0.5, 0.0, 0.0])
VALUE, POLICY = oracle.fixed_point(oracle.kl, TRANSITION, REWARD, PRIOR, BETA, DISCOUNT)


@cache
def choices():
    model = models.gumbel_choice(TASK, VALUE, DISCOUNT, BETA, PRIOR)
    return {name: np.asarray(x) for name, x in Predictive(model, num_samples=DRAWS)(jax.random.key(0)).items()}


def errors(draws, mean, deviation):
    """How many standard errors the average of draws lies from a mean; 0 where nothing varies and all is right."""
    with np.errstate(invalid="ignore", divide="ignore"):
        z = (draws.mean(0) - mean) / (deviation / np.sqrt(len(draws)))
    return np.where(np.abs(draws.mean(0) - mean) < 1e-12, 0, z)


def test_choices_have_the_probabilities_of_the_policy():
    frequencies = choices()["choice"][..., None] == np.arange(ACTIONS)
    z = errors(frequencies, POLICY, np.sqrt(POLICY * (1 - POLICY)))
    assert np.abs(z).max() < MOST_ERRORS


def test_the_best_value_has_the_mean_of_the_fixed_point_and_the_spread_of_the_noise():
    """A maximum of Gumbel variables is one again, of the same scale."""
    values = choices()["value"]
    assert np.abs(errors(values, VALUE, np.pi / (np.sqrt(6) * BETA))).max() < MOST_ERRORS
    np.testing.assert_allclose(values.std(0), np.pi / (np.sqrt(6) * BETA), rtol=0.03)


def test_what_the_prior_forbids_is_never_chosen_and_nothing_is_infinite():
    found = choices()
    assert all(np.isfinite(x).all() for x in found.values())
    assert (PRIOR[np.arange(STATES), found["choice"]] > 0).all()
    assert found["noise"].shape == (DRAWS, STATES, ACTIONS)


def test_the_noise_is_a_density_that_numpyro_can_differentiate():
    def log_density(beta):
        model = models.gumbel_choice(TASK, VALUE, DISCOUNT, beta, PRIOR)
        site = trace(seed(model, 0)).get_trace()["noise"]
        return site["fn"].log_prob(jnp.ones((STATES, ACTIONS)))

    value, slope = jax.value_and_grad(log_density)(BETA)
    shifted = BETA * 1.0 + np.euler_gamma - np.log(np.where(PRIOR > 0, PRIOR, 1.0))
    assert float(value) == pytest.approx(np.sum(np.log(BETA) - shifted - np.exp(-shifted)), rel=1e-12)
    assert np.isfinite(slope)


def test_the_worked_case_of_a_gumbel_maximum():
    given, expected, tolerance = worked_case("gumbel_max")
    mdp, beta = MDP(np.ones((1, 3, 1)), given["mu"][None], np.ones(1)), float(given["beta"])
    solution = exact.solve(models.smooth_bellman_without_prior(mdp, 0.0, beta))
    np.testing.assert_allclose(solution.value + np.euler_gamma / beta, expected["expected_max"], rtol=tolerance)
    np.testing.assert_allclose(solution.policy["a"][0], expected["choice"], rtol=tolerance)
    draws = Predictive(models.gumbel_choice(mdp, [0.0], 0.0, beta), num_samples=DRAWS)(jax.random.key(1))
    shift = np.euler_gamma / beta + np.log(3) / beta  # the case has the location 0 and no prior
    z = errors(np.asarray(draws["value"]) + shift, expected["expected_max"], np.pi / (np.sqrt(6) * beta))
    assert np.abs(z).max() < MOST_ERRORS


def test_trajectories_visit_states_as_the_policy_does():
    steps = 3
    model = models.gumbel_trajectory(TASK, VALUE, steps, DISCOUNT, BETA, PRIOR)
    draws = {k: np.asarray(x) for k, x in Predictive(model, num_samples=DRAWS)(jax.random.key(2)).items()}
    state = np.asarray(TASK.initial)
    for t in range(steps):
        visited = draws["init/s" if t == 0 else f"t{t - 1}/s_next"]
        joint = state[:, None] * POLICY
        found = (visited[:, None, None] == np.arange(STATES)[:, None]) & (
            draws[f"t{t}/choice"][:, None, None] == np.arange(ACTIONS)
        )
        assert np.abs(errors(found, joint, np.sqrt(joint * (1 - joint)))).max() < MOST_ERRORS
        state = np.einsum("sa,sap->p", joint, TRANSITION)
    assert draws["t2/noise"].shape == (DRAWS, ACTIONS)


@pytest.mark.parametrize("shared", [True, False], ids=["one list a state", "one list an action"])
def test_a_sparse_task_is_the_same_task(shared):
    lists = np.broadcast_to(np.arange(STATES), (STATES, STATES) if shared else (STATES, ACTIONS, STATES))
    sparse = MDP.sparse(lists, TRANSITION, REWARD, TASK.initial)
    for make in (
        lambda task: models.gumbel_choice(task, VALUE, DISCOUNT, BETA, PRIOR),
        lambda task: models.gumbel_trajectory(task, VALUE, 2, DISCOUNT, BETA, PRIOR),
    ):
        dense, found = (trace(seed(make(task), 3)).get_trace() for task in (TASK, sparse))
        for name in ("choice", "value") if "choice" in dense else ("t0/choice", "t0/value"):
            np.testing.assert_allclose(found[name]["value"], dense[name]["value"], rtol=1e-12)


MISTAKES = {
    "beta_zero": (lambda: models.gumbel_choice(TASK, VALUE, DISCOUNT, 0.0), "beta is 0.0: the noise has the scale"),
    "beta_negative": (lambda: models.gumbel_choice(TASK, VALUE, DISCOUNT, -1.0), "beta is -1.0: the noise"),
    "beta_infinite": (lambda: models.gumbel_choice(TASK, VALUE, DISCOUNT, np.inf), "beta is inf: give finite"),
    "value": (lambda: models.gumbel_choice(TASK, np.zeros(3), DISCOUNT), r"value must be \(4,\)"),
    "prior": (lambda: models.gumbel_choice(TASK, VALUE, DISCOUNT, prior=PRIOR[:2]), r"prior must be \(4, 3\)"),
    "time": (
        lambda: models.gumbel_choice(MDP(TRANSITION, np.stack([REWARD] * 2), TASK.initial), VALUE, DISCOUNT),
        "the task's reward varies in time",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_named(case):
    wrong, message = MISTAKES[case]
    with pytest.raises(ValueError, match=message):
        wrong()
