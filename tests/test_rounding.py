"""Linear-Gaussian answers where numbers are far apart in size, against 60 digits: right, or said to be wrong.

Every size and horizon is a compilation of its own, with the second form beside the first: hence a minute.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from linear_problems import DTYPES, HARD, SINGLE_FIRST, TOLERANCE, problem, program_of, wanted
from numpyro.distributions import Normal
from selection import pairs, quick_rows

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact, svi
from rlinf_ppl.tasks import LinearQuadratic


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


# Each in single precision, every third each time; and solved or conditioned in double, in turns.
SINGLE = pairs(HARD, [False], [False])
ALL = [*SINGLE, *pairs(HARD, [True], [False, True]), *pairs(list(HARD)[::2], [False], [True])]


@pytest.mark.parametrize("name, double, conditioned", quick_rows(SINGLE[::5], ALL))
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


@SINGLE_FIRST
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
    for i in range(100):
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


@pytest.mark.parametrize("sd", [1e3, 1e6])
@pytest.mark.parametrize("size", [0.3, 7.0])
@pytest.mark.parametrize("excess", [0.0, 5e-16, 3e-15, 1e-12])
def test_a_cost_that_is_nearly_singular_beside_a_wide_prior(excess, size, sd):
    """Reward -q (u_1 + u_2)^2 - q d u_2^2, of which reading may leave d out. It says so."""
    given, steps = problem(True, B=[[1.0, 1.0]], H=-size * np.array([[1.0, 1.0], [1.0, 1.0 + excess]]), sd=sd, steps=2)
    with jax.enable_x64(True):
        solution = exact.solve(program_of(given, steps))
    right = errors_of_policy(solution, solution.elbo, wanted(given, steps, False))[0] < 1e-9
    assert right or not solution.converged
    assert solution.converged or 1e-16 < excess < 1e-14


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_random_sizes_never_lie():
    """Standard deviations, costs, distances and temperatures of any size: right to the tolerance, or not converged."""
    rng, said = np.random.default_rng(1), []
    scale = lambda low, high: 10 ** rng.uniform(low, high)  # noqa: E731
    for i in range(80):
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
