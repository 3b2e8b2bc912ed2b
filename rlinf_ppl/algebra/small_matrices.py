"""Factorisations of small matrices, one coordinate at a time, in plain arithmetic.

Inside a recursion over time a call to LAPACK costs more than the arithmetic of a matrix of a dozen rows, and batches of
such calls can stop for ever on two CPU cores (jaxlib 0.10). Most loops are unrolled while tracing.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from rlinf_ppl.algebra.numerics import log1p_over


def eliminate(rows: Array, tau: Array) -> tuple[Array, Array]:
    """Eliminate standard normal coordinates e from exp(tau (e' block e + 2 e' cross z)), one after the other.

    In the Gauss-Jordan form on G = 1 - 2 tau block that never forms G, which keeps all digits where tau is small.

    Args:
        rows: block beside cross, shape (r, r + N).
        tau: the scale.

    Returns:
        G^-1 times the rows, and -log det(G) / (2 tau).
    """
    gain = jnp.zeros((), rows.dtype)
    for k in range(rows.shape[0]):
        y = rows[k, k]
        gain = gain + y * log1p_over(-2 * tau * y)
        rows = rows + (2 * tau / (1 - 2 * tau * y)) * rows[:, k, None] * rows[None, k]
    return rows, gain


def inverse(matrix: Array) -> tuple[Array, Array]:
    """The inverse of a positive definite matrix, and its pivots, whose product is the determinant."""
    n = matrix.shape[0]
    rows, pivots = jnp.concatenate([matrix, jnp.eye(n, dtype=matrix.dtype)], 1), []
    for k in range(n):
        pivots.append(rows[k, k])
        row = rows[k] / rows[k, k]
        rows = (rows - jnp.outer(rows[:, k], row)).at[k].set(row)
    return rows[:, n:], jnp.stack(pivots)


def cholesky(matrix: Array) -> Array:
    """L with L L' = matrix, positive semidefinite; a coordinate without variance gives a column of zeros."""
    columns, rest = [], matrix
    for k in range(matrix.shape[0]):
        pivot = rest[k, k]
        column = jnp.where(pivot > 0, rest[:, k] / jnp.sqrt(jnp.where(pivot > 0, pivot, 1.0)), 0.0)
        columns.append(column)
        rest = rest - jnp.outer(column, column)
    return jnp.tril(jnp.stack(columns, 1))


def solve(matrix: Array, right: Array) -> Array:
    """The inverse of any regular matrix (n, n) times a matrix (n, m), by elimination with the largest pivots."""
    n = matrix.shape[0]

    def step(k: Array, rows: Array) -> Array:
        pivot = jnp.argmax(jnp.where(jnp.arange(n) >= k, jnp.abs(rows[:, k]), -1.0))
        rows = rows[jnp.arange(n).at[k].set(pivot).at[pivot].set(k)]
        row = rows[k] / rows[k, k]
        return (rows - jnp.outer(rows[:, k], row)).at[k].set(row)

    return lax.fori_loop(0, n, step, jnp.concatenate([matrix, right], 1))[:, n:]
