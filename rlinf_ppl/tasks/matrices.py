"""The checks of tasks that are made of matrices: symmetric, positive or negative semidefinite, which one is not."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rlinf_ppl.tasks.checks import check_finite, check_shape, is_concrete

TOLERANCE = 1e-5
"""How far a matrix may be from what it should be, relative to its largest entry."""

# An eigenvalue grows by half each time until it is 1: enough for the smallest that there is beside the largest one.
NUM_SIGNS = 100


def check_sizes(name: str, array: jax.Array, shape: tuple[int, ...], steps: int | None, source: str) -> int | None:
    """Check the shape of an array that may lead with time, and that it is finite.

    Args:
        name: The argument's name.
        array: The argument, converted.
        shape: Its shape without time.
        steps: How many entries in time other arguments have, where any varies.
        source: The argument that decides the shape.

    Returns:
        The number of entries in time: the array's own, or `steps`.

    Raises:
        ValueError: It has another shape, or an entry that is not finite.
    """
    leading = array.shape[0] if array.ndim == len(shape) + 1 else None
    timed = "T" if steps is None else steps
    check_shape(name, array.shape, [shape, (timed, *shape)], source, shape)
    check_finite(name, array)
    return steps if leading is None else leading


def check_symmetric(name: str, array: jax.Array) -> None:
    """Check that matrices are symmetric.

    Raises:
        ValueError: One is not; the message says which, and by how much.
    """
    if not is_concrete(array):
        return
    host = np.asarray(array)
    apart = np.abs(host - np.swapaxes(host, -1, -2)).max((-1, -2))
    if (apart > TOLERANCE * np.abs(host).max(initial=1.0)).any():
        raise ValueError(
            f"{_which(name, apart)} is not symmetric: entries across the diagonal differ by {apart.max():.3g}. Give "
            "(M + M') / 2, which has the same quadratic form."
        )


def check_semidefinite(name: str, array: jax.Array, sign: int) -> None:
    """Check that matrices are symmetric with eigenvalues of one sign, or zero.

    Args:
        name: The argument's name.
        array: Matrices, with or without a leading axis.
        sign: 1 for positive semidefinite, -1 for negative semidefinite.

    Raises:
        ValueError: One is not; the message says which, and gives the eigenvalue.
    """
    check_symmetric(name, array)
    if not is_concrete(array):
        return
    host = np.asarray(array, dtype=float)
    worst = np.linalg.eigvalsh(sign * host).min(-1)
    if (worst < -TOLERANCE * np.abs(host).max(initial=1e-30)).any():
        kind = "positive" if sign > 0 else "negative"
        raise ValueError(
            f"{_which(name, -worst)} is not {kind} semidefinite: it has the eigenvalue {sign * worst.min():.3g}. "
            + ("A covariance has none below 0." if sign > 0 else "A reward without a maximum has no best decision.")
        )


def symmetric(array: jax.Array) -> jax.Array:
    """The symmetric part of matrices."""
    return (array + jnp.swapaxes(array, -1, -2)) / 2


def concave_part(matrix: jax.Array) -> jax.Array:
    """The nearest symmetric matrix without positive eigenvalues: those of the matrix, with 0 for what is above 0.

    It is (M - |M|) / 2, with |M| = M sign(M) and the sign by Newton's and Schulz's iteration, which takes products only
    and is differentiable where no eigenvalue is 0.
    """
    size = jnp.max(jnp.sum(jnp.abs(matrix), -1))
    scaled = matrix / jnp.where(size > 0, size, 1.0)
    sign = lax.fori_loop(0, NUM_SIGNS, lambda _, x: x @ (3 * jnp.eye(len(x)) - x @ x) / 2, scaled)
    return symmetric(matrix - matrix @ sign) / 2


def _which(name: str, badness: "np.ndarray | np.floating") -> str:
    """The name of the matrix that is worst."""
    return f"{name}[{int(np.argmax(badness))}]" if np.ndim(badness) else name
