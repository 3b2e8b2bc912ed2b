"""Linear systems (I - J) x = b of contractions: small ones directly, others by BiCGSTAB without a matrix.

BiCGSTAB (van der Vorst 1992) needs products with I - J only. It may break down, so whoever asks for digits goes on by
plain iteration where it does.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

MOST_STEPS = 1000
MOST_PRODUCTS = 300
SWEEPS = 30
ROUNDINGS = 2

# Up to how many numbers a system is written out and solved directly: above, LAPACK takes several threads, which wait
# for each other a hundred times as long as they work where a machine is busy.
MOST_DIRECT = 128


def bicgstab(matrix: Callable[[Array], Array], right: Array, precision: Array | float) -> Array:
    """An x with |right - matrix(x)| <= precision |right| (2-norm), as far as MOST_PRODUCTS and rounding allow."""
    goal = precision**2 * dot(right, right)

    def unsolved(state: Any) -> Array:
        _, residual, _, rho, products = state
        return (dot(residual, residual) > goal) & (rho != 0) & (products < MOST_PRODUCTS)

    def step(state: Any) -> Any:
        x, residual, p, rho, products = state
        image = matrix(p)
        alpha = rho / dot(right, image)
        half = residual - alpha * image
        turned = matrix(half)
        square = dot(turned, turned)
        # Half a step may be the whole way: then nothing is left to turn.
        omega = jnp.where(square > 0, dot(turned, half) / square, 0.0)
        x = x + alpha * p + omega * half
        residual = half - omega * turned
        following = dot(right, residual)
        p = residual + following / rho * alpha / omega * (p - omega * image)
        return x, residual, p, following, products + 2

    start = jnp.zeros_like(right), right, right, dot(right, right), jnp.zeros(())
    return lax.while_loop(unsolved, step, start)[0]


def dot(x: Array, y: Array) -> Array:
    """The sum of products. XLA's own product of two long vectors adds one by one, slowly and with its rounding."""
    return jnp.sum(x * y)


def solve_linear(matrix: Callable[[Array], Array], right: Array) -> Array:
    """Solve matrix(x) = right for a linear function 1 - J; differentiable and transposable.

    A small system is written out and solved directly.
    BiCGSTAB may break down, for instance where a chain is nearly deterministic. Where it does not halve what is left,
    SWEEPS plain iterations x <- right + J x are made instead, which always come closer in the end.
    """
    eps = float(jnp.finfo(right.dtype).eps)

    def direct(matrix: Callable[[Array], Array], right: Array) -> Array:
        units = jnp.eye(right.size, dtype=right.dtype).reshape(-1, *right.shape)
        return solve_written(jax.vmap(matrix)(units).reshape(right.size, right.size).T, right)

    def solve(matrix: Callable[[Array], Array], right: Array) -> Array:
        def unsolved(state: tuple[Array, ...]) -> Array:
            x, left, stalled, steps = state
            scale = jnp.maximum(largest(x), largest(right))
            rough = largest(left) > jnp.where(stalled, eps**0.75, ROUNDINGS * eps) * scale
            return rough & (steps < MOST_STEPS)

        def step(state: Any) -> Any:
            x, left, _, steps = state
            closer = x + bicgstab(matrix, left, eps**0.5)
            remaining = right - matrix(closer)
            helps = largest(remaining) <= 0.5 * largest(left)

            def swept() -> tuple[Array, Array]:
                y = lax.fori_loop(0, SWEEPS, lambda _, y: y + right - matrix(y), x)
                return y, right - matrix(y)

            x, left = lax.cond(helps, lambda: (closer, remaining), swept)
            return x, left, ~helps, steps + 1

        start = jnp.zeros_like(right), right, jnp.asarray(False), jnp.zeros(())
        return lax.while_loop(unsolved, step, start)[0]

    chosen = direct if right.size <= MOST_DIRECT else solve
    return lax.custom_linear_solve(matrix, right, chosen, transpose_solve=chosen)


def solve_written(matrix: Float[Array, "n n"], right: Float[Array, "..."]) -> Float[Array, "..."]:
    """Solve matrix x = right for a matrix that is written out; differentiable and transposable."""
    always, flat = jnp.asarray(True), right.reshape(-1)
    return lax.custom_linear_solve(
        lambda x: matrix @ x,
        flat,
        lambda _, b: solve_directly(matrix, b, always),
        lambda _, b: solve_directly(matrix.T, b, always),
    ).reshape(right.shape)


@jax.custom_batching.sequential_vmap
def solve_directly(
    matrix: Float[Array, "n n"], right: Float[Array, " n"], wanted: Bool[Array, ""]
) -> Float[Array, " n"]:
    """Solve matrix x = right where it is wanted, and 0 elsewhere.

    Several systems are solved one after the other: batches of them hang in some versions of jaxlib.
    """
    return lax.cond(wanted, lambda: jnp.linalg.solve(matrix, right), lambda: jnp.zeros_like(right))


def largest(x: Array) -> Float[Array, ""]:
    """The maximum norm."""
    return jnp.max(jnp.abs(x))
