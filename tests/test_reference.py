"""The library against worked cases that were made elsewhere, in both precisions."""

from functools import cache

import jax
import numpy as np
import pytest
from worked_cases import worked_case

from rlinf_ppl.inference import exact
from rlinf_ppl.models import single_agent
from rlinf_ppl.tasks import MDP

PRECISIONS = pytest.mark.parametrize("double", [True, False], ids=["float64", "float32"])


@cache
def program(name, double):
    """One of the cases in the library's terms; `double` only keeps the two precisions' arrays apart."""
    given, _, _ = worked_case(name)
    mdp = MDP(given["P"], given["r"], given["p1"])
    horizon, discount = len(given["r"]), float(given.get("gamma", 1.0))
    return single_agent(mdp, horizon, beta=float(given["beta"]), prior=given["prior"], discount=discount)


def agree(found, truth, double, tolerance):
    assert found.dtype == (np.float64 if double else np.float32)
    rtol, atol = (tolerance, 0.0) if double else (1e-4, 1e-6)
    np.testing.assert_allclose(np.asarray(found), truth, rtol=rtol, atol=atol)


@PRECISIONS
@pytest.mark.parametrize("name", ["mdp_variational", "mdp_variational_discounted"])
def test_variational(name, double):
    given, expected, tolerance = worked_case(name)
    with jax.enable_x64(double):
        control = program(name, double)
        solution = exact.solve(control)
        states = exact.marginals(control, solution.policy).state
        elbo = exact.elbo(control, solution.policy)
    agree(solution.elbo, expected["elbo"], double, tolerance)
    agree(elbo, expected["elbo"], double, tolerance)
    agree(solution.value[:-1], expected["V"], double, tolerance)
    agree(solution.policy["a"], expected["policy"], double, tolerance)
    agree(states[: len(expected["state_marginals"])], expected["state_marginals"], double, tolerance)
    assert (np.asarray(solution.value[-1]) == 0).all()


@PRECISIONS
@pytest.mark.parametrize("name", ["mdp_exact_posterior", "mdp_exact_posterior_absorbing"])
def test_posterior(name, double):
    _, expected, tolerance = worked_case(name)
    with jax.enable_x64(double):
        posterior = exact.condition(program(name, double))
    agree(posterior.log_evidence, expected["log_evidence"], double, tolerance)
    agree(posterior.value[:-1], expected["V"], double, tolerance)
    agree(posterior.policy["a"], expected["policy"], double, tolerance)


@PRECISIONS
def test_posterior_marginals(double):
    _, expected, tolerance = worked_case("mdp_exact_posterior")
    with jax.enable_x64(double):
        marginals = exact.posterior_marginals(program("mdp_exact_posterior", double))
    states = expected["state_marginals"]
    agree(marginals.state[: len(states)], states, double, tolerance)
    agree(marginals.decision["a"], expected["state_action_marginals"], double, tolerance)


@PRECISIONS
def test_gap_between_the_two_answers(double):
    _, expected, tolerance = worked_case("mdp_occupancy_gap")
    with jax.enable_x64(double):
        control = program("mdp_occupancy_gap", double)
        gap = exact.condition(control).log_evidence - exact.solve(control).elbo
    agree(gap, expected["gap"], double, tolerance)
