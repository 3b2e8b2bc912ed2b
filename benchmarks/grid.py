"""The contenders of P2 and P3: soft value iteration on a sparse grid world, float64.

    (T v)(s) = log sum_a p exp(r(s, a) + gamma sum_k p_k(s, a) v(succ_k(s))),      p = 1 / A

Everybody starts from the same successors (S, 5), probabilities (S, A, 5) and rewards (S, A). P2 is one sweep T v, P3
the fixed point v = T v.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import lax
from jax.scipy.special import logsumexp
from numpyro.distributions import Categorical

from benchmarks.measure import compiled
from rlinf_ppl import ControlProgram, algebra, decide, models, optimality
from rlinf_ppl.inference import exact
from rlinf_ppl.program import read
from rlinf_ppl.tasks import MDP

ACTIONS = 4
DISCOUNT = 0.99
ERROR = 1e-6
SLIP = 0.2


class Grid(NamedTuple):
    """The inputs: successors (S, 5), probabilities (S, A, 5), reward (S, A), and a message v (S,)."""

    successors: Any
    probabilities: Any
    reward: Any
    v: Any


class Contender(NamedTuple):
    """One way to the answer.

    Attributes:
        run: the call that is timed.
        compiling: the seconds that compiling it took.
        value: the new v of what it returns.
    """

    run: Callable[[], Any]
    compiling: float = 0.0
    value: Callable[[Any], Any] = np.asarray


def make_grid(side: int) -> Grid:
    """Cells in a square; a move slips sideways with a probability that varies from cell to cell, or stays in place."""
    rng = np.random.default_rng(30)
    row, column = np.divmod(np.arange(side**2), side)
    steps = np.array([(-1, 0), (0, 1), (1, 0), (0, -1), (0, 0)])
    reached = np.clip(np.stack([row, column], -1)[:, None] + steps, 0, side - 1)
    successors = (reached[..., 0] * side + reached[..., 1]).astype(np.int32)
    slip = 2 * SLIP * rng.random((side**2, 1, 1))
    aside = np.roll(np.eye(ACTIONS), 1, axis=1) + np.roll(np.eye(ACTIONS), -1, axis=1)
    moves = np.concatenate(
        [(1 - slip) * np.eye(ACTIONS) + slip / 3 * aside, np.broadcast_to(slip / 3, (side**2, ACTIONS, 1))], -1
    )
    reward, v = rng.normal(size=(side**2, ACTIONS)), 10 * rng.normal(size=side**2)
    return Grid(*(jnp.asarray(array) for array in (successors, moves, reward, v)))


@jax.jit
def plain(successors: Any, probabilities: Any, reward: Any, v: Any) -> Any:
    """The sweep that anyone would write first."""
    following = jnp.sum(probabilities * v[successors][:, None, :], axis=-1)
    return logsumexp(reward + DISCOUNT * following - jnp.log(ACTIONS), axis=-1)


@jax.jit
def plain_sweeps(successors: Any, probabilities: Any, reward: Any, v: Any) -> tuple[Any, Any]:
    """The same sweeps from zero until the error is small, and their number."""

    def sweep(state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        v, _, count = state
        image = plain(successors, probabilities, reward, v)
        return image, jnp.max(jnp.abs(image - v)), count + 1

    def unsolved(state: tuple[Any, Any, Any]) -> Any:
        return state[1] * DISCOUNT > ERROR * (1 - DISCOUNT)

    v, _, count = lax.while_loop(unsolved, sweep, (jnp.zeros_like(v), jnp.asarray(jnp.inf, v.dtype), 0))
    return v, count


def sweep_plainly(grid: Grid) -> Contender:
    """P2 in plain JAX."""
    return Contender(*compiled(plain, grid))


def sweep_by_library(grid: Grid) -> Contender:
    """P2: the elimination of one step before the message v, on the tables that `read` gives."""
    rules = algebra.solve_rules()

    @jax.jit
    def sweep(chain: algebra.Chain) -> Any:
        return algebra.backward(chain, lambda _: rules).first.array

    return Contender(*compiled(sweep, (read(one_step(grid)),)))


def sweep_by_numpy(grid: Grid) -> Contender:
    """P2 in NumPy."""
    arrays = Grid(*(np.asarray(array) for array in grid))
    return Contender(lambda: numpy_sweep(arrays, arrays.v)[0])


def numpy_sweep(grid: Grid, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """T v and the policy that attains it."""
    q = np.einsum("sak,sk->sa", grid.probabilities, v[grid.successors])
    q *= DISCOUNT
    q += grid.reward
    peak = q.max(-1)
    q -= peak[:, None]
    np.exp(q, out=q)
    total = q.sum(-1)
    q /= total[:, None]
    return peak + np.log(total / ACTIONS), q


def solve_plainly(grid: Grid) -> Contender:
    """P3 by plain sweeps in JAX."""
    return Contender(*compiled(plain_sweeps, grid), value=lambda found: np.asarray(found[0]))


def solve_by_library(grid: Grid) -> Contender:
    """P3: the engine in the user's own `jit`, from the program to its value."""
    program = program_of(grid)
    # The engine's tolerance is relative to the largest value.
    size = float(jnp.max(jnp.abs(exact.solve(program, tolerance=1e-4).value)))

    def solve(program: Any) -> tuple[Any, Any]:
        solution = exact.solve(program, tolerance=ERROR / size)
        return solution.value, solution.iterations

    return Contender(*compiled(jax.jit(solve), (program,)), value=lambda found: np.asarray(found[0]))


def solve_by_scipy(grid: Grid) -> Contender:
    """P3 by inexact Newton steps in SciPy: BiCGSTAB on the policy-averaged chain.

    Raises:
        ImportError: SciPy is not installed.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import bicgstab

    arrays = Grid(*(np.asarray(array) for array in grid))
    states = len(arrays.v)
    # One row holds the five successors and the state itself, for the identity in I - gamma P.
    columns = np.concatenate([arrays.successors, np.arange(states, dtype=np.int32)[:, None]], -1).ravel()
    starts = np.arange(0, 6 * states + 1, 6, dtype=np.int32)
    entries = np.ones((states, 6))

    def run() -> tuple[np.ndarray, int]:
        v, steps = np.zeros(states), 0
        while True:
            image, policy = numpy_sweep(arrays, v)
            if np.max(np.abs(image - v)) <= ERROR * (1 - DISCOUNT):
                return v, steps
            np.einsum("sa,sak->sk", policy, arrays.probabilities, out=entries[:, :5])
            entries[:, :5] *= -DISCOUNT
            matrix = csr_matrix((entries.ravel(), columns, starts), (states, states))
            v, steps = v + bicgstab(matrix, image - v, rtol=0.1)[0], steps + 1

    return Contender(run, value=lambda found: found[0])


def make_map(side: int) -> str:
    """A square map as text, with a start in one corner and a goal in the other."""
    rows = ["." * side] * side
    return "\n".join(["S" + rows[0][1:], *rows[1:-1], rows[-1][:-1] + "G"])


SWEEPS = {"plain": sweep_plainly, "rlinf_ppl": sweep_by_library, "numpy": sweep_by_numpy}
SOLVERS = {"plain": solve_plainly, "rlinf_ppl": solve_by_library, "scipy": solve_by_scipy}


def program_of(grid: Grid) -> Any:
    """The task as a step program without end."""
    states = len(grid.v)
    mdp = MDP.sparse(grid.successors, grid.probabilities, grid.reward, jnp.full(states, 1 / states))
    return models.single_agent(mdp, None, discount=DISCOUNT)


def one_step(grid: Grid) -> ControlProgram:
    """One step of it, before states that are worth v."""

    def initial(grid: Grid) -> dict[str, Any]:
        states = len(grid.v)
        return {"s": numpyro.sample("s0", Categorical(probs=jnp.full(states, 1 / states)))}

    def step(grid: Grid, s: Any) -> dict[str, Any]:
        a = decide("a", Categorical(probs=jnp.full(ACTIONS, 1 / ACTIONS)))
        optimality(grid.reward[s, a])
        return {"s": grid.successors[s, numpyro.sample("k", Categorical(probs=grid.probabilities[s, a]))]}

    def final(grid: Grid, s: Any) -> None:
        optimality(grid.v[s])

    return ControlProgram(initial, step, 1, DISCOUNT, final, args=(grid,))
