"""Factorisations of small matrices, one coordinate at a time, in plain arithmetic.

Inside a recursion over time a call to LAPACK costs more than the arithmetic of a matrix of a dozen rows, and batches of
such calls can stop for ever on two CPU cores (jaxlib 0.10). Most loops are unrolled while tracing.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from rlinf_ppl.algebra.numerics import log1p_over


def eliminate(rows: Array, tau: Array) -> tuple[Array, Array, Array]:
    """Eliminate standard normal coordinates e from exp(tau (e' block e + 2 e' cross z)), one after the other.

    In the Gauss-Jordan form on G = 1 - 2 tau block that never forms G, which keeps all digits where tau is small. A
    pivot's row is divided and not corrected, and G^-1 is carried beside the rows instead of being taken as
    1 + 2 tau G^-1 block: where pivots are large both would be small differences of large numbers.

    Args:
        rows: block beside cross, shape (r, r + N).
        tau: the scale.

    Returns:
        G^-1 cross (r, N), G^-1 (r, r), and -log det(G) / (2 tau).
    """
    r, width = rows.shape
    rows, gain = jnp.concatenate([rows, jnp.eye(r, dtype=rows.dtype)], 1), jnp.zeros((), rows.dtype)
    for k in range(r):
        y = rows[k, k]
        gain = gain + y * log1p_over(-2 * tau * y)
        row = rows[k] / (1 - 2 * tau * y)
        # A selection by a known mask is fused with the arithmetic; a write into the row would not be.
        rows = jnp.where(np.arange(r)[:, None] == k, row[None], rows + 2 * tau * rows[:, k, None] * row[None])
    return rows[:, r:width], rows[:, width:], gain


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


def positive_solve(matrix: Array, right: Array) -> Array:
    """The inverse of a positive definite matrix (n, n), of a few dozen rows, times a matrix (n, m)."""
    n = matrix.shape[0]

    def step(k: Array, rows: Array) -> Array:
        row = rows[k] / rows[k, k]
        return jnp.where(jnp.arange(n)[:, None] == k, row[None], rows - rows[:, k, None] * row[None])

    return lax.fori_loop(0, n, step, jnp.concatenate([matrix, right], 1))[:, n:]


def semidefinite_root(matrix: Array) -> tuple[Array, Array, Array]:
    """Lower triangular L with L L' = matrix, positive semidefinite; what is rounding beside its diagonal is left out.

    A column is zero where the matrix has no more rank.

    Returns:
        L (n, n), what was left out at most, as the diagonal of a matrix (n,), and whether there is such an L.
    """
    n, columns, rest = len(matrix), [], matrix
    own = jnp.diagonal(matrix)
    size = jnp.sqrt(jnp.where(own > 0, own, 1.0))
    noise, fits, left_out = 8 * n * jnp.finfo(matrix.dtype).eps * jnp.abs(own), jnp.all(own >= 0), jnp.zeros_like(own)
    for k in range(n):
        pivot, column = rest[k, k], jnp.where(np.arange(n) < k, 0.0, rest[:, k])
        positive, below = pivot > noise[k], jnp.abs(column).at[k].set(0.0)
        safe = jnp.where(positive, pivot, 1.0)
        columns.append(jnp.where(positive, column / jnp.sqrt(safe), 0.0))
        most = jnp.sqrt(noise[k] * noise) + jnp.sqrt(noise[k] * jnp.maximum(own, 0.0))
        fits &= positive | ((pivot >= -noise[k]) & jnp.all(below <= most))
        # 2 |x y| <= r x^2 + y^2 / r, where r has the units of x and y
        lost = (below * size / size[k]).at[k].set(jnp.abs(pivot) + jnp.sum(below * size[k] / size))
        left_out = left_out + jnp.where(positive, 0.0, lost)
        # A row that is a multiple of another leaves nothing: no roots are multiplied.
        rest = rest - jnp.where(positive, jnp.outer(column, column / safe), 0.0)
    return jnp.stack(columns, 1) if columns else matrix, left_out, fits


def upper_solve(triangle: Array, right: Array) -> Array:
    """The inverse of an upper triangular matrix (n, n) times a matrix (n, m), from the last row to the first."""
    rows: list[Array] = []
    for k in reversed(range(len(triangle))):
        known = sum((triangle[k, k + 1 + i] * row for i, row in enumerate(rows)), jnp.zeros_like(right[k]))
        rows.insert(0, (right[k] - known) / triangle[k, k])
    return jnp.stack(rows) if rows else right
