"""The last state given a cost at the end, against rational numbers: cov (1 + 2 tau G cov)^-1 with its prior's cov."""

from fractions import Fraction

import jax
import numpy as np
import pytest
from linear_problems import problem, program_of

from rlinf_ppl.inference import exact

exactly = np.vectorize(Fraction, otypes=[object])


def inverse(matrix):
    n = len(matrix)
    rows = np.concatenate([matrix, exactly(np.eye(n))], 1)
    for k in range(n):
        pivot = max(range(k, n), key=lambda i: abs(rows[i, k]))
        rows[[k, pivot]] = rows[[pivot, k]]
        rows[k] = rows[k] / rows[k, k]
        for i in range(n):
            if i != k:
                rows[i] = rows[i] - rows[i, k] * rows[k]
    return rows[:, n:]


def last_covariance(given, steps):
    A, B, noise, root, prior, reward = (
        exactly(np.asarray(x, float))
        for x in (*(given[k] for k in ("A", "B", "noise_root", "root", "prior_root")), given["state_reward"][-1])
    )
    cov = root @ root.T
    for _ in range(steps):
        cov = A @ cov @ A.T + B @ prior @ prior.T @ B.T + noise @ noise.T
    return np.array(cov @ inverse(exactly(np.eye(len(A))) - 2 * reward @ cov), float)


def check(**numbers):
    """1 where the posterior was had, 0 where it was refused."""
    given, steps = problem(False, H=0.0, steps=5, **numbers)
    with jax.enable_x64(False):
        try:
            found = np.asarray(exact.posterior_marginals(program_of(given, steps)).state.cov[-1], float)
        except ValueError as error:
            assert "rounding spoils" in str(error)
            return 0
    expected = last_covariance(given, steps)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    return 1


def test_a_wide_decision_that_the_end_takes_back():
    wide = {"A": [[0.052]], "B": [[0.684, 1.004]], "end": [[-218.5]], "sd": [[4699.0, 0.0], [0.0, 2564.0]]}
    assert check(noise=0.024, **wide)


@pytest.mark.slow
def test_random_programs():
    rng, had = np.random.default_rng(0), []
    for _ in range(25):
        m, n = rng.integers(1, 4, 2)
        row = 10 ** rng.uniform(-1, 1) * rng.normal(size=n)
        numbers = {"A": rng.normal(size=(n, n)), "B": rng.normal(size=(n, m)), "end": -np.outer(row, row)}
        had.append(check(**numbers, sd=np.diag(10 ** rng.uniform(-2, 3.7, m)), noise=10 ** rng.uniform(-3, 0)))
    assert np.mean(had) > 0.7


def test_draws_have_these_moments():
    """The closed loop takes back a decision that is a hundred thousand times as wide."""
    wide = {"A": [[0.052]], "B": [[0.684, 1.004]], "end": [[-218.5]], "sd": [[4699.0, 0.0], [0.0, 2564.0]]}
    given, steps = problem(False, H=0.0, steps=5, noise=0.024, **wide)
    with jax.enable_x64(False):
        program = program_of(given, steps)
        last = np.asarray(exact.posterior_sample(program, jax.random.key(0), 20_000)["x"], float)[:, -1]
        policy = exact.solve(program).policy
        followed = np.asarray(exact.sample(program, jax.random.key(1), policy, 20_000)["x"], float)[:, -1]
        expected = np.asarray(exact.marginals(program, policy).state.cov[-1], float)
    # A variance has a relative standard error of sqrt(2 / n).
    np.testing.assert_allclose(last.var(0), last_covariance(given, steps)[0], rtol=5 * np.sqrt(2 / 20_000))
    np.testing.assert_allclose(followed.var(0), expected[0], rtol=5 * np.sqrt(2 / 20_000))
