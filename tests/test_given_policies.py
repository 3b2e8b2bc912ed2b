"""Vectors under policies that are given, and far from the origin: marginals, KL and ELBO, right or said to be wrong."""

import jax
import numpy as np
import numpyro
import pytest
from linear_problems import HARD, SINGLE_FIRST, TOLERANCE, problem, program_of, wanted
from numpyro.distributions import Normal
from selection import pairs, quick

from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.inference import exact

REDUNDANT = "redundant controls", "redundant controls, end only"


def closed_loop(given, steps, gain, offset, cov):
    """Mean and covariance of the states under a policy, in float64."""
    mean, spread = given["mean"], given["root"] @ given["root"].T
    noise = given["noise_root"] @ given["noise_root"].T
    means, covs = [mean], [spread]
    for t in range(steps):
        loop = given["A"] + given["B"] @ gain[t]
        mean = loop @ mean + given["B"] @ offset[t] + given["c"]
        spread = loop @ spread @ loop.T + given["B"] @ cov[t] @ given["B"].T + noise
        means.append(mean)
        covs.append(spread)
    return np.array(means), np.array(covs)


def kl_to_prior(given, steps, gain, offset, cov, means, covs):
    """KL from the policy to the prior, in float64."""
    precision, total = np.linalg.inv(given["prior_root"] @ given["prior_root"].T), 0.0
    for t in range(steps):
        apart = gain[t] - given["gain"]
        mean, ratio = apart @ means[t] + offset[t] - given["offset"], precision @ cov[t]
        total += mean @ precision @ mean + np.trace(apart.T @ precision @ apart @ covs[t])
        total += np.trace(ratio) - len(precision) - np.linalg.slogdet(ratio)[1]
    return total / 2


PLAIN = [name for name in HARD if "redundant" not in name]


@pytest.mark.slow
@pytest.mark.parametrize("name, double", [*pairs(PLAIN, [False]), *pairs(PLAIN[::2], [True])])
def test_a_policy_that_is_given_is_followed_and_evaluated(name, double):
    """A state of a wide prior that a decision takes back is no difference of covariances."""
    with jax.enable_x64(double):
        given, steps = problem(double, **HARD[name])
        program = program_of(given, steps)
        solution = exact.solve(program)
        state = exact.marginals(program, solution.policy).state
        kl = exact.kl(program, solution.policy, exact.prior_policy(program))
        again = exact.evaluate(program, solution.policy)
    policy = [np.asarray(x, float) for x in solution.policy["u"]]
    means, covs = closed_loop(given, steps, *policy)
    expected, most = kl_to_prior(given, steps, *policy, means, covs), TOLERANCE[double]
    assert np.abs(state.mean - means).max() <= most * max(np.abs(means).max(), np.sqrt(covs.max()))
    assert np.all(np.abs(state.cov - covs).max((1, 2)) <= most * np.abs(covs).max((1, 2)))
    assert abs(float(kl) - expected) <= most * max(1.0, abs(expected))
    # A cheap goal at 1e5 costs 1e10: there float64 has two digits less than it should, and says so.
    assert again.converged or (double and "cheap" in name)
    assert abs(float(again.elbo - solution.elbo)) <= most * max(1.0, abs(float(solution.elbo)))


NEARLY_SINGULAR = {
    "A": [[1.0, 0.1], [0.0, 1.0]], "B": [[-1.2326835, 0.4804152], [-0.6638188, 0.4648919]],
    "end": [[-1.2074010372161865, -0.6850470304489136], [-0.6850470304489136, -0.38867950439453125]],
    "H": 0.0, "noise": [[0.0036734, 0.0], [0.0, 0.725871]], "s0": [[0.4765056, 0.0], [281.09268, 40.053539]],
    "sd": [[0.0088092, 0.0], [3926.46997, 559.4917]], "tau": 16.456398, "steps": 12,
}  # fmt: skip


@SINGLE_FIRST
def test_what_an_average_adds_is_counted(double):
    """A prior of redundant directions, beside a cost that is nearly of rank one."""
    with jax.enable_x64(double):
        given, steps = problem(double, **NEARLY_SINGULAR)
        program = program_of(given, steps)
        again = exact.evaluate(program, exact.solve(program).policy)
    truth = float(wanted(given, steps, False)[0])
    assert not again.converged or float(again.elbo) == pytest.approx(truth, rel=TOLERANCE[double])


def test_a_difference_of_two_wide_states_is_narrow():
    """Of x_1 - x_2, where they share a standard deviation of 1e4, covariances in single precision keep nothing."""

    def initial():
        shared, own = numpyro.sample("shared", Normal(0.0, 1e4)), numpyro.sample("own", Normal(0.0, 1.0))
        return {"a": shared + own, "b": shared}

    def step(a, b):
        u = decide("u", Normal(0.0, 1.0))
        return {"a": a - b + u, "b": b}

    with jax.enable_x64(False):
        program = ControlProgram(initial, step, 1)
        found = exact.marginals(program, exact.prior_policy(program)).state
    assert float(found.cov[1, 0, 0]) == pytest.approx(2.0, rel=1e-3)


@SINGLE_FIRST
@pytest.mark.parametrize("name", quick(REDUNDANT[:1], REDUNDANT))
def test_a_covariance_that_its_digits_cannot_hold_has_no_elbo(name, double):
    """Of redundant controls single precision keeps the wide direction only."""
    with jax.enable_x64(double):
        program = program_of(*problem(double, **HARD[name]))
        policy = exact.solve(program).policy
        if double:
            assert float(exact.elbo(program, policy)) == pytest.approx(float(exact.solve(program).elbo), rel=1e-6)
            return
        assert not exact.evaluate(program, policy).converged
        for call in (exact.elbo, lambda *given: exact.kl(*given, exact.prior_policy(program))):
            with pytest.raises(ValueError, match="rounding spoils this .* a covariance is singular"):
                call(program, policy)


def drifting(start, drift, steps, cost=0.0):
    """A state that goes on by less than the last digit of where it starts."""

    def initial():
        return {"x": numpyro.sample("x_first", Normal(start, 0.1))}

    def step(x):
        u = decide("u", Normal(0.0, 0.02))
        optimality(-cost * (x - start) ** 2)
        return {"x": numpyro.sample("x_next", Normal(x + u + drift, 0.002))}

    return ControlProgram(initial, step, steps, final=lambda x: optimality(-((x - start) ** 2)))


@pytest.mark.parametrize(
    ("start", "drift", "steps", "cost"),
    [
        (96185.59375, 0.0084, 100, 300.0),
        pytest.param(1e5, 0.003, 1000, 0.0, marks=pytest.mark.slow),
        pytest.param(3e3, 1e-4, 300, 1.0, marks=pytest.mark.slow),
    ],
)
def test_what_the_program_s_own_arithmetic_loses_far_away_is_kept_or_said(start, drift, steps, cost):
    """The answer is that of a program at 0."""
    with jax.enable_x64(True):
        near = drifting(0.0, drift, steps, cost)
        expected = exact.solve(near), exact.condition(near)
        evidence = exact.evaluate(near, exact.prior_policy(near)).elbo
    with jax.enable_x64(False):
        program = drifting(start, drift, steps, cost)
        for call, truth in zip((exact.solve, exact.condition), expected, strict=True):
            found, traced = call(program), jax.jit(call)(program)
            assert found.converged and float(found[2]) == pytest.approx(float(truth[2]), rel=1e-3)
            assert abs(float(found[2]) - float(truth[2])) <= float(found.error_bound)
            assert not traced.converged or float(traced[2]) == pytest.approx(float(truth[2]), rel=1e-3)
        under_prior = exact.evaluate(program, exact.prior_policy(program))
        assert under_prior.converged and float(under_prior.elbo) == pytest.approx(float(evidence), rel=1e-3)
        mean = exact.marginals(program, exact.prior_policy(program)).state.mean
    assert float(mean[-1, 0]) == pytest.approx(start + steps * drift, rel=1e-6)


@SINGLE_FIRST
def test_a_square_that_is_written_out_far_away(double):
    """Of x x - 2 g x + g g near g single precision keeps nothing."""

    def program(write):
        def step(x):
            u = decide("u", Normal(0.0, 1.0))
            optimality(-write(x))
            return {"x": numpyro.sample("x_next", Normal(x + u, 1.0))}

        return ControlProgram(lambda: {"x": numpyro.sample("x_first", Normal(99990.3, 1.0))}, step, 10)

    with jax.enable_x64(double):
        found = [exact.solve(program(f)) for f in (lambda x: x * x - 2e5 * x + 1e10, lambda x: (x - 1e5) ** 2)]
        assert found[0].converged
        assert float(found[0].elbo) == pytest.approx(float(found[1].elbo), rel=TOLERANCE[double])


@SINGLE_FIRST
@pytest.mark.parametrize("data", [False, True], ids=["factor", "data"])
def test_factors_that_stand_in_front_of_decisions(data, double):
    """Where rounding spoils the fast form, too: the second has to have one shape at all times."""

    def step(x):
        if data:
            numpyro.sample("y", Normal(x, 1.0), obs=1e5)
        else:
            optimality(-((x - 1e5) ** 2))
        u = decide("u", Normal(0.0, 1.0))
        return {"x": numpyro.sample("x_next", Normal(x + u, 1.0))}

    program = lambda: ControlProgram(lambda: {"x": numpyro.sample("x_first", Normal(0.0, 1.0))}, step, 50)  # noqa: E731
    with jax.enable_x64(True):
        truth = exact.condition(program())
    with jax.enable_x64(double):
        found = exact.condition(program())
        assert found.converged and float(found.log_evidence) == pytest.approx(float(truth.log_evidence), rel=1e-3)
        exact.posterior_marginals(program())
