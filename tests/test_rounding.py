"""Linear-Gaussian answers where numbers are far apart in size, against 60 digits: right, or said to be wrong."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.distributions import Normal
from oracles import decimals

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact, svi
from rlinf_ppl.tasks import LinearQuadratic

DTYPES = pytest.mark.parametrize("double", [True, False], ids=["float64", "float32"])
SINGLE_FIRST = pytest.mark.parametrize(
    "double", [pytest.param(True, marks=pytest.mark.slow), False], ids=["float64", "float32"]
)
TOLERANCE = {True: 1e-6, False: 1e-3}
INTEGRATOR = {"A": [[1.0, 0.1], [0.0, 1.0]], "B": [[0.0], [0.1]]}

# Each is a change to: one dimension, x' = x + u, reward -x^2 - u^2, u ~ N(0, 1) and x ~ N(0, 1) at first.
HARD: dict[str, dict[str, Any]] = {
    "a decision that moves nothing, wide prior": {"B": [[0.0]], "M": 0.0, "sd": 1e3},
    "a decision that moves nothing, wider prior": {"B": [[0.0]], "M": 0.0, "sd": 1e4},
    "prior standard deviation .001": {"sd": 1e-3, "steps": 5},
    "prior standard deviation 20": {"sd": 20.0},
    "prior standard deviation 1e4, no cost of control": {"H": 0.0, "sd": 1e4, "steps": 3},
    "costs at the end only": {"H": 0.0, "end": -1.0, "sd": 1e4, "steps": 3},
    "costs at the end only, 20 steps": {"H": 0.0, "end": -1.0, "sd": 1e4, "steps": 20, "goal": 3.0},
    "redundant controls": {"B": [[1.0, 1.0]], "H": 0.0, "sd": 1e4},
    "redundant controls, end only": {"B": [[1.0, 1.0]], "H": 0.0, "end": -1.0, "sd": 1e3, "steps": 3},
    "far from the origin": {"m0": 1e5, "goal": 1e5 + 3, "steps": 5},
    "a goal far away": {"goal": 1e5, "steps": 5},
    "a goal far away that is cheap to reach": {"goal": 1e5, "H": 0.0, "end": -1.0, "sd": 1e4, "steps": 10},
    "inverse temperature 1e8": {"tau": 1e8, "steps": 5, "noise": 0.1},
    "inverse temperature 1e-6": {"tau": 1e-6, "steps": 5, "noise": 0.1},
    "costs of 1e8": {"M": -1e8, "steps": 5, "noise": 0.1},
    "costs of 1e8 far away": {"M": -1e8, "steps": 5, "noise": 0.1, "m0": 1e4, "goal": 1e4},
    "a diffuse first state": {"s0": 1e4, "steps": 2, "goal": 0.3},
    "data far from a diffuse first state": {"s0": 1e4, "goal": 5000.5},
    "a certain first state": {"s0": 0.0, "steps": 4, "m0": 2.0},
    "singular noise": {**INTEGRATOR, "noise": [[0.0, 0.0], [0.0, 0.3]], "steps": 10, "m0": 1.0},
    "a prior that follows the state": {"gain": [[-30.0]], "sd": 100.0, "steps": 3},
    "an unstable state": {"A": [[2.0, 0.3], [0.0, 0.5]], "B": [[1.0], [0.2]], "steps": 30, "noise": 0.1, "m0": 1.0},
    "a thousand steps": {**INTEGRATOR, "steps": 1000, "noise": 0.05, "H": -0.1},
    "a thousand steps to one cost": {**INTEGRATOR, "steps": 1000, "H": 0.0, "end": -1.0, "m0": 3.0},
    "units that are far apart": {
        "A": [[1.0, 1e-4], [0.0, 1.0]],
        "B": [[0.0], [1e3]],
        "M": [[-1.0, 0.0], [0.0, -1e-7]],
        "s0": [[1.0, 0.0], [0.0, 1e4]],
        "steps": 10,
    },
}  # fmt: skip


def problem(double, A=((1.0,),), B=((1.0,),), M=-1.0, H=-1.0, end=None, goal=0.0, m0=0.0, s0=1.0, noise=0.0, sd=1.0,
            gain=0.0, tau=1.0, steps=1):  # fmt: skip
    """The arguments of `decimals.control`, in numbers of the dtype."""
    A, B = np.asarray(A, float), np.asarray(B, float)
    n, m = B.shape
    square = lambda x, *shape: np.asarray(x, float) if np.ndim(x) else x * np.eye(*shape)  # noqa: E731
    rewards = [square(M, n, n) if end is None else np.zeros((n, n))] * steps
    rewards.append(square(M if end is None else end, n, n))
    given = {
        "A": A, "B": B, "c": np.zeros(n), "noise_root": square(noise, n, n), "state_reward": np.array(rewards),
        "action_reward": square(H, m, m), "goal": np.full(n, goal), "mean": np.full(n, m0), "root": square(s0, n, n),
        "gain": square(gain, m, n), "offset": np.zeros(m), "prior_root": square(sd, m, m), "tau": tau,
    }  # fmt: skip
    if double:
        return given, steps
    return {name: np.asarray(np.asarray(x, np.float32), float) for name, x in given.items()}, steps


def program_of(given, steps):
    square = lambda x: x @ x.T  # noqa: E731
    task = LinearQuadratic(
        given["A"], given["B"], given["c"], square(given["noise_root"]), given["state_reward"], given["action_reward"],
        given["goal"], given["mean"], square(given["root"]),
    )  # fmt: skip
    prior = given["gain"], given["offset"], square(given["prior_root"])
    return models.linear_gaussian(task, steps, prior, float(given["tau"]))


def wanted(given, steps, conditioned):
    listed = given | {"state_reward": list(given["state_reward"])}
    return decimals.control(**listed, steps=steps, conditioned=conditioned)


def errors(answer, total, expected):
    """Relative errors of a solution: of the total, its policy, and V's coefficients.

    V's vector is measured by the root of its matrix at least, by what changes V by 1 where the quadratic does.
    """
    values = expected[-1]
    matrix, vector, scalar = values[:, :-1, :-1], 2 * values[:, :-1, -1], values[:, -1, -1]
    floor = np.sqrt(np.max(np.abs(matrix), (1, 2)))[:, None]
    size = [np.abs(matrix).max((1, 2), keepdims=True), np.maximum(np.abs(vector).max(1, keepdims=True), floor)]
    each = errors_of_policy(answer, total, expected)
    for x, y, s in zip(answer.value, (matrix, vector, scalar), [*size, np.maximum(1.0, np.abs(scalar))], strict=True):
        each.append(np.max(np.abs(np.asarray(x, float) - y) / np.maximum(s, 1e-300)))
    return each


def errors_of_policy(answer, total, expected):
    """Relative errors: of the total, and of gain, offset and covariance, an offset in units of the noise at least."""
    found = [np.asarray(x, float) for x in (total, *answer.policy["u"])]
    least = [1.0, 1e-300, np.sqrt(np.max(np.abs(expected[3]))), 1e-300]
    scale = [max(np.max(np.abs(x)), floor) for x, floor in zip(expected[:-1], least, strict=True)]
    return [np.max(np.abs(x - y)) / s for x, y, s in zip(found, expected[:-1], scale, strict=True)]


@pytest.mark.parametrize(
    ("double", "conditioned"),
    [(False, False), (True, True), *(pytest.param(x, not x, marks=pytest.mark.slow) for x in (True, False))],
    ids=["float32-solve", "float64-condition", "float64-solve", "float32-condition"],
)
@pytest.mark.parametrize("name", HARD)
def test_hard_problems_are_solved(name, conditioned, double):
    with jax.enable_x64(double):
        given, steps = problem(double, **HARD[name])
        program = program_of(given, steps)
        answer = exact.condition(program) if conditioned else exact.solve(program)
        total = answer.log_evidence / given["tau"] if conditioned else answer.elbo
    expected = wanted(given, steps, conditioned)
    assert answer.converged
    assert max(errors(answer, total, expected)) < TOLERANCE[double]
    scale = given["tau"] if conditioned else 1.0
    own_digits = 4 * np.finfo(np.float64 if double else np.float32).eps * abs(expected[0] * scale)
    assert abs(total - expected[0]) * scale <= float(answer.error_bound) + own_digits


@DTYPES
@pytest.mark.parametrize("sd", [1.0, 1e3, 1e4])
@pytest.mark.parametrize("y", [0.3, 5000.5])
def test_posterior_marginals_and_samples_of_a_diffuse_state(sd, y, double):
    """Two sums of x ~ N(0, sd^2) and its next value, which is x + N(0, 1e-4), are seen as y with variance 1."""
    with jax.enable_x64(double):
        task = LinearQuadratic(
            np.eye(1), np.eye(1), np.zeros(1), np.zeros((1, 1)), -0.5 * np.eye(1), np.zeros((1, 1)), np.full(1, y),
            np.zeros(1), sd**2 * np.eye(1),
        )  # fmt: skip
        program = models.linear_gaussian(task, 1, (np.zeros((1, 1)), np.zeros(1), 1e-4 * np.eye(1)))
        marginals = exact.posterior_marginals(program)
        drawn = exact.posterior_sample(program, jax.random.key(0), 20_000)["x"]
    cov = np.linalg.inv([[1 / sd**2 + 1 + 1e4, -1e4], [-1e4, 1e4 + 1]])
    np.testing.assert_allclose(marginals.state.mean[:, 0], cov @ [y, y], rtol=TOLERANCE[double])
    np.testing.assert_allclose(marginals.state.cov[:, 0, 0], np.diag(cov), rtol=TOLERANCE[double])
    moved = np.asarray(drawn[..., 0], float) - cov @ [y, y]
    assert np.all(np.abs(moved.mean(0)) < 5 * np.sqrt(np.diag(cov) / 20_000))
    np.testing.assert_allclose(moved.var(0), np.diag(cov), rtol=5 * np.sqrt(2 / 20_000))


@DTYPES
def test_moving_start_and_goal_by_one_vector_changes_no_elbo(double):
    with jax.enable_x64(double):
        found = []
        for shift in (0.0, 1024.0, 65536.0, -65536.0):
            given, steps = problem(double, m0=shift + 2, goal=shift, steps=10, noise=0.5)
            program = program_of(given, steps)
            solution = exact.solve(program)
            found.append((solution.elbo, exact.elbo(program, solution.policy), exact.condition(program).log_evidence))
    np.testing.assert_allclose(found, np.broadcast_to(found[0], (4, 3)), rtol=1e-9 if double else 1e-3)


@DTYPES
@pytest.mark.parametrize("m", [0.0, 1e3, 1e4, 1e5])
def test_data_far_from_the_origin(m, double):
    """Example of x ~ N(m, 1) and y ~ N(x, 1) = m + 1/2."""
    with jax.enable_x64(double):

        def initial():
            return {"x": numpyro.sample("x", Normal(m, 1.0))}

        def step(x):
            numpyro.sample("y", Normal(x, 1.0), obs=m + 0.5)
            return {"x": x}

        found = exact.condition(ControlProgram(initial, step, 1))
    assert found.converged
    assert float(found.log_evidence) == pytest.approx(-1.3280121, rel=TOLERANCE[double])


SHAPES = (1, 1, 4), (2, 1, 1), (3, 2, 10), (4, 2, 40)


def random_program(rng, double):
    """Well-conditioned: sizes of order 1, a state that neither explodes nor is forgotten at once."""
    n, m, steps = SHAPES[rng.integers(len(SHAPES))]  # a few, as programs of one shape share compiled code
    drift = rng.normal(size=(n, n))
    drift *= rng.uniform(0.3, 1.0) / np.abs(np.linalg.eigvals(drift)).max()
    root = lambda k: 0.3 * rng.normal(size=(k, k)) + 0.7 * np.eye(k)  # noqa: E731
    cost = lambda k: -(lambda r: r @ r.T)(root(k))  # noqa: E731
    given = {
        "A": drift, "B": rng.normal(size=(n, m)), "c": 0.3 * rng.normal(size=n), "noise_root": 0.3 * root(n),
        "state_reward": np.array([cost(n)] * (steps + 1)), "action_reward": cost(m), "goal": rng.normal(size=n),
        "mean": rng.normal(size=n), "root": root(n), "gain": 0.3 * rng.normal(size=(m, n)),
        "offset": rng.normal(size=m), "prior_root": np.tril(root(m)), "tau": np.asarray(rng.uniform(0.3, 3.0)),
    }  # fmt: skip
    return (given if double else {k: np.asarray(np.asarray(x, np.float32), float) for k, x in given.items()}), steps


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_well_conditioned_programs_converge_and_nothing_that_is_wrong_does():
    rng, said = np.random.default_rng(0), []
    for i in range(200):
        double, conditioned = bool(i % 2), bool((i // 2) % 2)
        given, steps = random_program(rng, double)
        with jax.enable_x64(double):
            program = program_of(given, steps)
            answer = exact.condition(program) if conditioned else exact.solve(program)
            total = answer.log_evidence / given["tau"] if conditioned else answer.elbo
        right = max(errors(answer, total, wanted(given, steps, conditioned))) < TOLERANCE[double]
        said.append(bool(answer.converged))
        assert right or not answer.converged, i
    assert np.mean(said) >= 0.95


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_random_sizes_never_lie():
    """Standard deviations, costs, distances and temperatures of any size: right to the tolerance, or not converged."""
    rng, said = np.random.default_rng(1), []
    scale = lambda low, high: 10 ** rng.uniform(low, high)  # noqa: E731
    for i in range(150):
        double, conditioned = bool(i % 2), bool((i // 2) % 2)
        given, steps = random_program(rng, double)
        changes = {
            "prior_root": given["prior_root"] * scale(-3, 4), "root": given["root"] * scale(-3, 4),
            "noise_root": given["noise_root"] * scale(-3, 1), "state_reward": given["state_reward"] * scale(-2, 6),
            "action_reward": given["action_reward"] * scale(-6, 2), "goal": given["goal"] * scale(-1, 5),
            "mean": given["mean"] * scale(-1, 5), "tau": given["tau"] * scale(-3, 4),
        }  # fmt: skip
        if i % 3 == 0:
            changes["state_reward"][:-1] = 0.0
        given |= {name: np.asarray(np.asarray(x, np.float32), float) for name, x in changes.items()}
        with jax.enable_x64(double):
            program = program_of(given, steps)
            answer = exact.condition(program) if conditioned else exact.solve(program)
            total = answer.log_evidence / given["tau"] if conditioned else answer.elbo
        expected = wanted(given, steps, conditioned)
        said.append(bool(answer.converged))
        if answer.converged:
            assert max(errors(answer, total, expected)) < TOLERANCE[double], i
    assert np.mean(said) > 0.9


def test_what_is_traced_says_that_it_lost_its_digits():
    given, steps = problem(False, **HARD["costs at the end only"])
    with jax.enable_x64(False):
        program = program_of(given, steps)
        traced = jax.jit(exact.solve)(program)
        assert not traced.converged and traced.error_bound > 1
        assert exact.solve(program).converged
        assert np.all(np.isnan(jax.jit(lambda p: exact.posterior_marginals(p).state.cov)(program)))


def test_convex_rewards_that_rounding_spoils_are_not_converged():
    """A reward that is no sum of squares has no second form; what is left says so, and the message names a way out."""

    def initial():
        return {"x": jnp.zeros(())}

    def step(x):
        u = decide("u", Normal(0.0, 1e5))
        v = decide("v", Normal(0.0, 1e-3))
        optimality(-((u - x - v) ** 2) + 0.1 * v**2, "move")
        return {"x": x + u}

    with jax.enable_x64(False):
        program = ControlProgram(initial, step, 3)
        solution = exact.solve(program)
        assert not solution.converged
        with pytest.raises(ValueError, match="rounding spoils"):
            exact.posterior_marginals(program)


@DTYPES
def test_fits_with_wide_priors(double):
    given, steps = problem(double, H=0.0, sd=1e3, steps=3)
    with jax.enable_x64(double):
        program = program_of(given, steps)
        fit = svi.fit(program, jax.random.key(0), 50)
    expected = wanted(given, steps, False)
    assert max(errors_of_policy(fit, fit.elbo, expected)) < TOLERANCE[double]


def test_a_gradient_at_a_wide_prior_is_a_number():
    """Derivative of log(1 + 2 v) / 2 in v = sd^2, the cost of a decision with reward -u^2."""

    def value(variance):
        def step(x):
            u = decide("u", Normal(0.0, jnp.sqrt(variance)))
            optimality(-(u**2))
            return {"x": x}

        return exact.solve(ControlProgram(lambda: {"x": jnp.zeros(())}, step, 1)).elbo

    with jax.enable_x64(False):
        for variance in (1e-4, 1.0, 1e4, 1e8):
            found = float(jax.grad(value)(jnp.asarray(variance)))
            assert found == pytest.approx(-1 / (1 + 2 * variance), rel=1e-4)


FOLLOWED = "costs at the end only", "far from the origin", "singular noise", "a certain first state", "costs of 1e8"


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


@SINGLE_FIRST
@pytest.mark.parametrize(
    "name",
    [
        name if name in FOLLOWED else pytest.param(name, marks=pytest.mark.slow)
        for name in HARD
        if "redundant" not in name
    ],
)
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


@SINGLE_FIRST
def test_a_covariance_that_its_digits_cannot_hold_has_no_elbo(double):
    """Of redundant controls single precision keeps the wide direction only."""
    with jax.enable_x64(double):
        program = program_of(*problem(double, **HARD["redundant controls"]))
        policy = exact.solve(program).policy
        if double:
            assert float(exact.elbo(program, policy)) == pytest.approx(float(exact.solve(program).elbo), rel=1e-6)
            return
        assert not exact.evaluate(program, policy).converged
        for call in (exact.elbo, lambda *given: exact.kl(*given, exact.prior_policy(program))):
            with pytest.raises(ValueError, match="rounding spoils this .* a covariance is singular"):
                call(program, policy)


def drifting(start, drift, steps, sd=1e-3):
    """A state that goes on by less than the last digit of where it starts; the cost is at the end."""

    def initial():
        return {"x": numpyro.sample("x_first", Normal(start, 0.1))}

    def step(x):
        u = decide("u", Normal(0.0, sd))
        return {"x": numpyro.sample("x_next", Normal(x + u + drift, sd))}

    return ControlProgram(initial, step, steps, final=lambda x: optimality(-((x - start) ** 2)))


@pytest.mark.parametrize(
    ("start", "drift", "steps"),
    [
        (1e5, 0.003, 1000),
        pytest.param(96185.6, 0.0084, 100, marks=pytest.mark.slow),
        pytest.param(3e3, 1e-4, 300, marks=pytest.mark.slow),
    ],
)
def test_what_the_program_s_own_arithmetic_loses_far_away_is_kept_or_said(start, drift, steps):
    """The answer is that of a program at 0."""
    with jax.enable_x64(True):
        near = drifting(0.0, drift, steps)
        expected = exact.solve(near), exact.condition(near)
        evidence = exact.evaluate(near, exact.prior_policy(near)).elbo
    with jax.enable_x64(False):
        program = drifting(start, drift, steps)
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
