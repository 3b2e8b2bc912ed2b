"""Trajectories drawn from both answers: frequencies within five standard errors of the enumerated probabilities."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import answers
from programs_more import PAIRS, listed

from rlinf_ppl import models
from rlinf_ppl.inference import exact
from rlinf_ppl.tasks import gallery

DRAWS = 20_000
NAMES = ["plain", "dice", "three_decisions", "tempered", "discounted_final"]


@cache
def control(name):
    return PAIRS[name].control()


@cache
def solved(name):
    return exact.solve(control(name)).policy


@cache
def drawn(name):
    return {k: np.asarray(v) for k, v in exact.sample(control(name), jax.random.key(1), solved(name), DRAWS).items()}


@cache
def drawn_from_posterior(name):
    return {k: np.asarray(v) for k, v in exact.posterior_sample(control(name), jax.random.key(2), DRAWS).items()}


def positions(name, draws, variable):
    values = np.asarray(PAIRS[name].truth.supports[variable])
    assert np.isin(draws[variable], values).all()
    return np.searchsorted(values, draws[variable])


def step_frequencies(listing, t, variables, weights):
    """Enumerated probabilities of a step's variables together with the next state."""
    table = np.zeros([len(listing.program.supports[n]) for n in variables])
    state = listing.program.state
    columns = [listing.position[n][:, t] for n in variables[: -len(state)]]
    np.add.at(table, (*columns, *(listing.position[n][:, t + 1] for n in state)), weights)
    return table


def within_five_standard_errors(counts, probability, draws):
    error = np.sqrt(np.clip(probability * (1 - probability), 0.0, None) / draws)
    assert (np.abs(counts / draws - probability) <= 5 * error + 1e-12).all()


def check(name, draws, weights, keep=None):
    """All variables of each step with the next state, over the draws for which keep[:, t] holds (default all)."""
    program, listing = PAIRS[name].truth, listed(name)
    variables = [*program.state, *(site.name for site in program.latent), *program.state]
    where = {n: positions(name, draws, n) for n in variables}
    for t in range(program.horizon):
        columns = [where[n][:, t] for n in variables[: -len(program.state)]]
        columns += [where[n][:, t + 1] for n in program.state]
        chosen = np.ones(DRAWS, bool) if keep is None else keep[:, t]
        counts = np.zeros([len(program.supports[n]) for n in variables])
        np.add.at(counts, tuple(column[chosen] for column in columns), 1)
        truth = step_frequencies(listing, t, variables, weights if weights.ndim == 1 else weights[:, t])
        within_five_standard_errors(counts, truth / truth.sum(), chosen.sum())


@pytest.mark.parametrize("name", NAMES)
def test_shapes(name):
    program = PAIRS[name].truth
    for draws in (drawn(name), drawn_from_posterior(name)):
        states = {n: (DRAWS, program.horizon + 1) for n in program.state}
        sites = {site.name: (DRAWS, program.horizon) for site in program.step}
        alive = {"alive": (DRAWS, program.horizon + 1)} if program.discount < 1 else {}
        assert {n: x.shape for n, x in draws.items()} == states | sites | alive


@pytest.mark.parametrize("name", NAMES)
def test_samples_of_a_policy(name):
    """While alive, a step's variables follow the policy and the dynamics."""
    listing, draws = listed(name), drawn(name)
    weights = answers.path_probability(listing, answers.policy_along(listing, solved(name), control(name).scopes))
    alive = draws["alive"] if "alive" in draws else None
    check(name, draws, weights, None if alive is None else alive > 0)


@pytest.mark.parametrize("name", NAMES)
def test_samples_of_the_posterior(name):
    """Over all draws, and over those alive at a step."""
    weights, alive = answers.posterior(listed(name))
    check(name, drawn_from_posterior(name), weights.sum(0))
    if PAIRS[name].truth.discount < 1:
        check(name, drawn_from_posterior(name), weights.T @ alive, drawn_from_posterior(name)["alive"] > 0)


@pytest.mark.parametrize("name", ["tempered", "discounted_final"])
def test_a_dead_step_is_followed_by_dead_steps(name):
    program = PAIRS[name].truth
    weights, lifetimes = answers.posterior(listed(name))
    expected = {
        "guide": program.discount ** np.arange(program.horizon + 1),
        "posterior": weights.sum(1) @ lifetimes,
    }
    for key, draws in (("guide", drawn(name)), ("posterior", drawn_from_posterior(name))):
        alive = draws["alive"].astype(int)
        assert (alive[:, 0] == 1).all() and (np.diff(alive, axis=1) <= 0).all()
        within_five_standard_errors(alive.sum(0), expected[key], DRAWS)


@pytest.mark.parametrize("name", NAMES)
def test_optimality_is_its_log_probability_at_the_values_drawn(name):
    program = PAIRS[name].truth
    for draws in (drawn(name), drawn_from_posterior(name)):
        for site in (site for site in program.step if site.kind == "optimality"):
            for n, t in ((n, t) for n in range(200) for t in range(program.horizon)):
                if "alive" in draws and not draws["alive"][n, t]:
                    continue
                values = {k: int(draws[k][n, t]) for k in (*program.state, *(s.name for s in program.latent))}
                assert draws[site.name][n, t] == pytest.approx(site.function(values | {"t": t}), rel=1e-12)


def test_same_key_same_draws_and_another_key_others():
    program, policy = control("plain"), solved("plain")
    for draw in (
        lambda key: exact.sample(program, key, policy, DRAWS),
        lambda key: exact.posterior_sample(program, key, DRAWS),
    ):
        first, again, other = draw(jax.random.key(3)), draw(jax.random.key(3)), draw(jax.random.key(4))
        assert all(jnp.array_equal(first[k], again[k]) for k in first)
        assert not jnp.array_equal(first["s"], other["s"])


def test_successors_of_a_narrower_integer_type_can_be_sampled():
    """A sparse task holds int32 positions also where x64 makes sampled ones int64."""
    program = models.single_agent(gallery.slippery_grid(), 3)
    drawn = exact.posterior_sample(program, jax.random.key(0), 5)
    assert drawn["s"].shape == (5, 4) and drawn["s"].dtype == drawn["a"].dtype
