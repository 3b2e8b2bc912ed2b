"""The oracles against each other and against the worked cases beside the repository."""

from dataclasses import replace

import numpy as np
import pytest
from oracles import answers, recursions
from oracles.optimizer import maximize_elbo
from oracles.trajectories import enumerate_trajectories, lifetimes
from programs_more import PAIRS, listed
from worked_cases import mdp_program, worked_case

JOINT = [name for name, pair in PAIRS.items() if pair.joint]
PROPER = [name for name, pair in PAIRS.items() if all(d.inverse_temperature != 0 for d in pair.truth.decisions)]


@pytest.mark.parametrize("name", PAIRS)
def test_the_list_holds_all_probability(name):
    listing = listed(name)
    assert listing.prior_probability.sum() == pytest.approx(1.0, rel=1e-12)
    assert sum(mass for mass, _ in lifetimes(listing.program.discount, listing.steps)) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("name", JOINT)
def test_posterior_by_enumeration_equals_the_recursion(name):
    pair, listing = PAIRS[name], listed(name)
    found = recursions.backward(pair.truth, recursions.conditioned)
    tau = pair.truth.common_inverse_temperature
    assert answers.log_evidence(listing) == pytest.approx(tau * found.start, rel=1e-11)
    for decision, table in recursions.tables(pair.truth, pair.scopes, found.policy).items():
        truth = answers.posterior_policy(listing, decision, pair.scopes[decision])
        seen = ~np.isnan(truth)
        assert (seen.any(-1) == answers.reached(listing, decision, pair.scopes[decision])).all()
        np.testing.assert_allclose(table[seen], truth[seen], rtol=1e-10)


@pytest.mark.parametrize("name", JOINT)
def test_evidence_from_every_state_equals_the_recursion(name):
    program = PAIRS[name].truth
    found, tau = recursions.backward(program, recursions.conditioned), program.common_inverse_temperature
    for t in range(program.horizon + 1):
        for state in program.states():
            where = (t, *(program.supports[n].index(state[n]) for n in program.state))
            evidence = answers.log_evidence(enumerate_trajectories(program, t, state))
            assert evidence == pytest.approx(tau * found.value[where], rel=1e-11, abs=1e-13)


@pytest.mark.parametrize("name", PROPER)
def test_elbo_of_the_recursions_policy_is_its_value(name):
    pair, program = PAIRS[name], PAIRS[name].truth
    found = recursions.backward(program, recursions.averaged)
    policy = recursions.tables(pair.truth, pair.scopes, found.policy)
    assert answers.elbo(listed(name), policy, pair.scopes) == pytest.approx(found.start, rel=1e-11)
    for t in range(program.horizon):
        for state in program.states():
            where = (t, *(program.supports[n].index(state[n]) for n in program.state))
            elbo = answers.elbo(enumerate_trajectories(program, t, state), policy, pair.scopes)
            assert elbo == pytest.approx(found.value[where], rel=1e-11, abs=1e-13)


@pytest.mark.parametrize("name", JOINT)
def test_evidence_minus_elbo_is_the_divergence_from_the_posterior(name):
    """Ties the discounted sums of the ELBO to the alive sites of the posterior."""
    pair, listing, tau = PAIRS[name], listed(name), PAIRS[name].truth.common_inverse_temperature
    policy = recursions.tables(pair.truth, pair.scopes, recursions.backward(pair.truth, recursions.averaged).policy)
    gap = answers.log_evidence(listing) - tau * answers.elbo(listing, policy, pair.scopes)
    assert answers.divergence_from_posterior(listing, policy, pair.scopes) == pytest.approx(gap, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", JOINT)
def test_loss_against_the_optimum_is_the_divergence_from_its_policy(name):
    pair, listing, tau = PAIRS[name], listed(name), PAIRS[name].truth.common_inverse_temperature
    found = (recursions.backward(program, recursions.averaged) for program in (pair.truth, without_rewards(pair.truth)))
    best, prior = (recursions.tables(pair.truth, pair.scopes, messages.policy) for messages in found)
    loss = answers.elbo(listing, best, pair.scopes) - answers.elbo(listing, prior, pair.scopes)
    assert answers.kl(listing, prior, best, pair.scopes) == pytest.approx(tau * loss, rel=1e-9)


def without_rewards(program):
    """The program without rewards: its soft-optimal policy is the prior."""
    step = tuple(replace(s, function=lambda v: 0.0) if s.kind == "optimality" else s for s in program.step)
    return replace(program, step=step, final=None)


@pytest.mark.parametrize("name", ["plain", "three_decisions", "discounted_final", "two_temperatures"])
def test_no_policy_found_by_the_optimizer_beats_the_recursion(name):
    pair = PAIRS[name]
    found = recursions.backward(pair.truth, recursions.averaged)
    value, policy = maximize_elbo(listed(name), pair.scopes)
    assert value == pytest.approx(found.start, abs=1e-9)
    for decision, table in recursions.tables(pair.truth, pair.scopes, found.policy).items():
        np.testing.assert_allclose(policy[decision], table, atol=1e-4)


@pytest.mark.parametrize("name", ["mdp_variational", "mdp_variational_discounted"])
def test_worked_variational_cases(name):
    given, expected, tolerance = worked_case(name)
    program, gamma = mdp_program(given), given["gamma"]
    q, v, policy = recursions.soft_optimal(given["P"], given["r"], given["prior"], given["beta"], gamma)
    for found, key in ((q, "Q"), (v[:-1], "V"), (policy, "policy")):
        np.testing.assert_allclose(found, expected[key], rtol=tolerance)
    listing, scopes = enumerate_trajectories(program), {"a": ("s",)}
    np.testing.assert_allclose(answers.elbo(listing, {"a": policy}, scopes), expected["elbo"], rtol=tolerance)
    weights = answers.path_probability(listing, answers.policy_along(listing, {"a": policy}, scopes))
    rows = len(expected["state_marginals"])
    found = answers.state_marginals(listing, weights)[:rows]
    np.testing.assert_allclose(found, expected["state_marginals"], rtol=tolerance)


@pytest.mark.parametrize("name", ["mdp_exact_posterior", "mdp_exact_posterior_absorbing"])
def test_worked_posterior_cases(name):
    given, expected, tolerance = worked_case(name)
    gamma = given.get("gamma", 1.0)
    q, v, policy = recursions.posterior(given["P"], given["r"], given["prior"], given["beta"], gamma)
    for found, key in ((q, "Q"), (v[:-1], "V"), (policy, "policy")):
        np.testing.assert_allclose(found, expected[key], rtol=tolerance)
    listing = enumerate_trajectories(mdp_program(given))
    np.testing.assert_allclose(answers.log_evidence(listing), expected["log_evidence"], rtol=tolerance)
    np.testing.assert_allclose(answers.posterior_policy(listing, "a", ("s",)), expected["policy"], rtol=tolerance)


def test_worked_posterior_marginals():
    given, expected, tolerance = worked_case("mdp_exact_posterior")
    listing = enumerate_trajectories(mdp_program(given))
    weights = answers.posterior(listing)[0].sum(0)
    states, pairs = answers.state_marginals(listing, weights), answers.decision_marginals(listing, "a", ("s",), weights)
    np.testing.assert_allclose(states[: len(expected["state_marginals"])], expected["state_marginals"], rtol=tolerance)
    np.testing.assert_allclose(pairs, expected["state_action_marginals"], rtol=tolerance)
    s, a, horizon = listing.position["s"], listing.position["a"], len(pairs)
    moves = np.zeros((horizon, 3, 2, 3))
    for t in range(horizon):
        np.add.at(moves[t], (s[:, t], a[:, t], s[:, t + 1]), weights)
    moves = (moves / moves.sum(-1, keepdims=True))[: len(expected["transitions"])]
    np.testing.assert_allclose(moves, expected["transitions"], rtol=tolerance)


def test_worked_gap():
    given, expected, tolerance = worked_case("mdp_occupancy_gap")
    listing = enumerate_trajectories(mdp_program(given))
    policy = recursions.soft_optimal(given["P"], given["r"], given["prior"], given["beta"])[2]
    gap = answers.divergence_from_posterior(listing, {"a": policy}, {"a": ("s",)})
    np.testing.assert_allclose(gap, expected["gap"], rtol=tolerance)
