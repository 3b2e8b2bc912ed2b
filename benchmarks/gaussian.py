"""P7: soft linear-quadratic-Gaussian control over many steps, against the scans that anyone would write.

V(x) = x' V x + x' v + v_0,     x' = A_t x + B_t u + c_t + noise,     u ~ N(0, I) before optimality
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.linalg import cho_factor, cho_solve

from benchmarks.measure import Line, Settings, at_most, compiled, interleaved, same
from rlinf_ppl import models
from rlinf_ppl.inference import exact
from rlinf_ppl.tasks import LinearQuadratic

STATE = 12
ACTION = 4

Answer = tuple[Any, Any, Any, Any, Any, Any]


class Problem(NamedTuple):
    """The system: A (T, n, n), B (T, n, m), c (T, n), the covariance of the noise, and the rewards' two matrices."""

    A: Any
    B: Any
    c: Any
    noise: Any
    state_reward: Any
    action_reward: Any


def run(settings: Settings) -> Iterator[Line]:
    """The engine in the user's own `jit`, against a scan with `cho_solve` and a loop in NumPy."""
    horizon, rounds, calls = (50, 5, 5) if settings.quick else (1000, 21, 10)
    label = f"T={horizon}"
    settings.say(f"P7 {label}: compiling and checking")
    problem = make_problem(horizon)
    plain, plain_seconds = compiled(jax.jit(by_cholesky), (problem,))
    program = program_of(problem)
    answer, seconds = compiled(jax.jit(answer_of), (program,))
    solution, _ = compiled(jax.jit(exact.solve), (program,))
    expected = plain()
    for name, found in (("rlinf_ppl", answer()), ("numpy", by_numpy(problem))):
        for part, one, other in zip(("gain", "offset", "cov", "matrix", "vector"), found, expected, strict=False):
            same(f"P7: {name}'s {part}", one, other, 1e-9)
        same(f"P7: {name}'s scalar", found[5], expected[5], 1e-9 * float(jnp.max(jnp.abs(expected[5]))))
    settings.say(f"P7 {label}: {rounds} rounds")
    contenders: dict[str, Callable[[], Any]] = {"plain": plain, "rlinf_ppl": answer, "solution": solution}
    contenders["numpy"] = lambda: by_numpy(problem)
    samples = interleaved(contenders, rounds, calls)
    cpu = f"CPU time {samples.cpu_ratio('rlinf_ppl', 'plain'):.2f}x"
    yield at_most("P7", f"{label}: solver / cho_solve scan", samples.ratio("rlinf_ppl", "plain"), "x", 0.85, cpu)
    counted = samples.ratio("solution", "plain")
    yield Line("P7", f"{label}: with the count of its rounding and a verdict / cho_solve scan", counted, "x")
    yield Line("P7", f"{label}: NumPy loop / solver", samples.ratio("numpy", "rlinf_ppl"), "x")
    yield Line("P7", f"{label}: cho_solve scan", 1e3 * samples.seconds("plain"), "ms")
    yield at_most("P7", f"{label}: compiling the solver", seconds, "s", 5.0, f"the scan {plain_seconds:.2f} s")


def make_problem(horizon: int) -> Problem:
    """A random system with a fixed seed that varies with time."""
    rng = np.random.default_rng(0)
    root = 0.1 * rng.normal(size=(STATE, STATE))
    moves = (
        0.25 * rng.normal(size=(horizon, STATE, STATE)),
        rng.normal(size=(horizon, STATE, ACTION)),
        rng.normal(size=(horizon, STATE)),
    )
    return Problem(*map(jnp.asarray, (*moves, root @ root.T, -np.eye(STATE), -0.1 * np.eye(ACTION))))


def program_of(problem: Problem) -> Any:
    """The system as a step program."""
    zeros = np.zeros(STATE)
    task = LinearQuadratic(*problem, zeros, zeros, np.eye(STATE))
    return models.linear_gaussian(task, len(problem.A))


def answer_of(program: Any) -> Answer:
    """What all contenders give: gain, offset and covariance of the policy, matrix, vector and scalar of the value."""
    solution = exact.solve(program)
    return *solution.policy["u"], *(part[:-1] for part in solution.value)


def by_cholesky(problem: Problem) -> Answer:
    """The scan that anyone would write first."""
    identity = jnp.eye(ACTION)

    def body(carry: Any, now: Any) -> tuple[Any, Answer]:
        (V, v, v0), (A, B, c) = carry, now
        VA, VB, g = V @ A, V @ B, 2 * (V @ c) + v
        Qxx, Qux, Quu = problem.state_reward + A.T @ VA, B.T @ VA, problem.action_reward + B.T @ VB
        qx, qu, q0 = A.T @ g, B.T @ g, v0 + c @ V @ c + c @ v + jnp.sum(V * problem.noise)
        factor = cho_factor(identity - 2 * Quu)
        solved = cho_solve(factor, jnp.concatenate([2 * Qux, qu[:, None]], 1))
        K, k = solved[:, :-1], solved[:, -1]
        before = Qxx + Qux.T @ K, qx + 2 * Qux.T @ k, q0 + qu @ k / 2 - jnp.sum(jnp.log(jnp.diag(factor[0])))
        return before, (K, k, cho_solve(factor, identity), *before)

    last = problem.state_reward, jnp.zeros(STATE), jnp.zeros(())
    return lax.scan(body, last, problem[:3], reverse=True)[1]


def by_numpy(problem: Problem) -> Answer:
    """A loop over time in NumPy, whose solver is LAPACK."""
    A, B, c, noise, state_reward, action_reward = map(np.asarray, problem)
    n, m = STATE, ACTION
    V, v, v0 = state_reward, np.zeros(n), 0.0
    shapes = ((m, n), (m,), (m, m), (n, n), (n,), ())
    found = tuple(np.empty((len(A), *shape)) for shape in shapes)
    for t in reversed(range(len(A))):
        VA, VB, g = V @ A[t], V @ B[t], 2 * (V @ c[t]) + v
        Qux, qu = B[t].T @ VA, B[t].T @ g
        precision = np.eye(m) - 2 * (action_reward + B[t].T @ VB)
        cov = np.linalg.inv(precision)
        K, k = 2 * cov @ Qux, cov @ qu
        v0 = v0 + c[t] @ V @ c[t] + c[t] @ v + np.sum(V * noise) + qu @ k / 2 - np.linalg.slogdet(precision)[1] / 2
        V, v = state_reward + A[t].T @ VA + Qux.T @ K, A[t].T @ g + 2 * Qux.T @ k
        for array, entry in zip(found, (K, k, cov, V, v, v0), strict=True):
            array[t] = entry
    return found  # type: ignore[return-value]
