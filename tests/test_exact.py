"""The exact engine against enumeration and scalar recursions, for programs that no model file holds."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import answers, recursions
from oracles.trajectories import settings
from programs_more import PAIRS, listed
from selection import quick

from rlinf_ppl.inference import exact

JOINT = [name for name, pair in PAIRS.items() if pair.joint]
PROPER = [name for name, pair in PAIRS.items() if all(d.inverse_temperature != 0 for d in pair.truth.decisions)]
SINGLE_PRECISION = ["plain", "zeros", "three_decisions", "tempered", "dice"]


@cache
def control(name):
    return PAIRS[name].control()


@cache
def backward(name, expectation):
    return recursions.backward(PAIRS[name].truth, expectation)


def agree(found, truth, rtol=1e-10):
    """In float64 to ten digits; the absolute part is for sums that cancel to zero."""
    np.testing.assert_allclose(np.asarray(found), truth, rtol=rtol, atol=0.1 * rtol)


def are_distributions(policy, pair, scopes, tolerance=1e-12):
    supports = pair.truth.supports
    assert set(policy) == set(scopes)
    for name, table in policy.items():
        assert table.shape == (pair.truth.horizon, *(len(supports[n]) for n in (*scopes[name], name)))
        assert (np.asarray(table) >= 0).all()
        np.testing.assert_allclose(np.asarray(table).sum(-1), 1.0, atol=tolerance)


def possible(program, scopes):
    """Decision -> (T, scope sizes, K): what the prior allows; everything where no state leads to the scope's values."""
    supports = program.supports
    allowed = {d: np.zeros((program.horizon, *(len(supports[n]) for n in (*scopes[d], d))), bool) for d in scopes}
    for t in range(program.horizon):
        for state in program.states():
            for values, _, _ in settings(program.step, state | {"t": t}):
                for d, scope in scopes.items():
                    allowed[d][(t, *(supports[n].index(values[n]) for n in (*scope, d)))] = True
    return {d: table | ~table.any(-1, keepdims=True) for d, table in allowed.items()}


def random_policy(name, seed, time=True, ignored=()):
    """Random tables that are zero where the prior is; without a time axis, or of size 1 on ignored axes, if asked."""
    rng, tables = np.random.default_rng(seed), {}
    for decision, allowed in possible(PAIRS[name].truth, control(name).scopes).items():
        for axis, variable in enumerate(control(name).scopes[decision], start=1):
            allowed = allowed.all(axis, keepdims=True) if variable in ignored else allowed
        allowed = allowed if time else allowed.all(0)
        weights = rng.gamma(1.0, size=allowed.shape) * allowed
        tables[decision] = weights / weights.sum(-1, keepdims=True)
    return tables


def to_jax(tables):
    return {name: jnp.asarray(table) for name, table in tables.items()}


@pytest.mark.parametrize("name", PAIRS)
def test_scopes_are_what_the_policies_depend_on(name):
    assert control(name).scopes == PAIRS[name].scopes
    assert control(name).state == tuple(PAIRS[name].truth.state)
    assert control(name).sizes == {name: len(values) for name, values in PAIRS[name].truth.supports.items()}


def solve_agrees(name, program, rtol):
    pair, truth = PAIRS[name], backward(name, recursions.averaged)
    found = exact.solve(program)
    agree(found.value, truth.value, rtol)
    agree(found.elbo, truth.start, rtol)
    assert found.converged
    are_distributions(found.policy, pair, program.scopes, max(rtol / 100, 1e-6 if rtol > 1e-6 else 0))
    for decision, table in recursions.tables(pair.truth, program.scopes, truth.policy).items():
        agree(found.policy[decision], table, rtol)
    return found


def condition_agrees(name, program, rtol):
    pair, listing = PAIRS[name], listed(name)
    found = exact.condition(program)
    agree(found.log_evidence, answers.log_evidence(listing), rtol)
    agree(found.value, backward(name, recursions.conditioned).value, rtol)
    assert found.converged
    are_distributions(found.policy, pair, program.scopes, max(rtol / 100, 1e-6 if rtol > 1e-6 else 0))
    for decision, scope in program.scopes.items():
        truth = answers.posterior_policy(listing, decision, scope)
        seen = answers.reached(listing, decision, scope)
        agree(found.policy[decision][seen], truth[seen], rtol)
    return found


@pytest.mark.parametrize("name", PAIRS)
def test_solve(name):
    found = solve_agrees(name, control(name), 1e-10)
    if name in PROPER:
        agree(found.elbo, answers.elbo(listed(name), found.policy, control(name).scopes))


@pytest.mark.parametrize("name", quick(JOINT[::3], JOINT))
def test_condition(name):
    found, solution = condition_agrees(name, control(name), 1e-10), exact.solve(control(name))
    tau = PAIRS[name].truth.common_inverse_temperature
    gap = float(found.log_evidence - tau * solution.elbo)
    assert gap >= -1e-12
    truth = answers.divergence_from_posterior(listed(name), solution.policy, control(name).scopes)
    assert gap == pytest.approx(truth, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", [name for name in PAIRS if name not in JOINT])
def test_no_joint_model_no_condition(name):
    with pytest.raises(ValueError, match="temperature"):
        exact.condition(control(name))


@pytest.mark.parametrize("name", quick(SINGLE_PRECISION[:2], SINGLE_PRECISION))
def test_single_precision(name):
    with jax.enable_x64(False):
        program = PAIRS[name].control()
        assert solve_agrees(name, program, 1e-4).value.dtype == jnp.float32
        assert condition_agrees(name, program, 1e-4).value.dtype == jnp.float32


@pytest.mark.parametrize("name", PAIRS)
def test_marginals_of_a_policy(name):
    program, listing, policy = control(name), listed(name), random_policy(name, 1)
    found = exact.marginals(program, to_jax(policy))
    weights = answers.path_probability(listing, answers.policy_along(listing, policy, program.scopes))
    agree(found.state, answers.state_marginals(listing, weights))
    for decision, scope in program.scopes.items():
        agree(found.decision[decision], answers.decision_marginals(listing, decision, scope, weights))


@pytest.mark.parametrize("name", quick(JOINT[::3], JOINT))
def test_posterior_marginals(name):
    program, listing = control(name), listed(name)
    found, weights = exact.posterior_marginals(program), answers.posterior(listing)[0].sum(0)
    agree(found.state, answers.state_marginals(listing, weights))
    for decision, scope in program.scopes.items():
        agree(found.decision[decision], answers.decision_marginals(listing, decision, scope, weights))


@pytest.mark.parametrize("name", PROPER)
def test_elbo_of_random_policies(name):
    for seed in range(3):
        policy = random_policy(name, seed)
        truth = answers.elbo(listed(name), policy, control(name).scopes)
        agree(exact.elbo(control(name), to_jax(policy)), truth)


@pytest.mark.parametrize("name", PAIRS)
def test_kl_between_random_policies(name):
    policy, other = random_policy(name, 3), random_policy(name, 4)
    truth = answers.kl(listed(name), policy, other, control(name).scopes)
    agree(exact.kl(control(name), to_jax(policy), to_jax(other)), truth)
    assert exact.kl(control(name), to_jax(policy), to_jax(policy)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "time", "ignored"),
    [
        ("plain", False, ()),
        ("two_states", True, ("s",)),
        ("three_decisions", False, ("x",)),
        ("discounted_final", False, ("s",)),
        ("clock", False, ()),
    ],
)
def test_policies_that_ignore_time_or_a_variable(name, time, ignored):
    program, listing = control(name), listed(name)
    policy, other = (random_policy(name, seed, time, ignored) for seed in (5, 6))
    agree(exact.elbo(program, to_jax(policy)), answers.elbo(listing, policy, program.scopes))
    agree(exact.kl(program, to_jax(policy), to_jax(other)), answers.kl(listing, policy, other, program.scopes))
    weights = answers.path_probability(listing, answers.policy_along(listing, policy, program.scopes))
    agree(exact.marginals(program, to_jax(policy)).state, answers.state_marginals(listing, weights))


def test_mass_where_the_prior_has_none():
    """The prior of program `zeros` forbids the second action in the first state, where the start can be."""
    policy = to_jax(random_policy("zeros", 7))
    stray = {"a": policy["a"].at[0, 0].set(jnp.array([0.5, 0.5]))}
    assert exact.elbo(control("zeros"), stray) == -jnp.inf
    assert exact.kl(control("zeros"), stray, policy) == jnp.inf
    assert jnp.isfinite(exact.kl(control("zeros"), policy, stray))


def test_mass_where_the_prior_has_none_but_nobody_comes():
    """The last state of `zeros` is never reached, so what a policy does there costs nothing."""
    policy = random_policy("zeros", 8)
    policy["a"][:, 3] = 0.5
    truth = answers.elbo(listed("zeros"), policy, control("zeros").scopes)
    agree(exact.elbo(control("zeros"), to_jax(policy)), truth)
    assert exact.kl(control("zeros"), to_jax(policy), to_jax(random_policy("zeros", 8))) == pytest.approx(
        0.0, abs=1e-12
    )
