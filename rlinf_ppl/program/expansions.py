"""A function of vectors read off as a message: its derivatives about a point, as a quadratic or as a sum of squares."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

from rlinf_ppl.algebra import rounding
from rlinf_ppl.algebra.quadratics import Quadratic
from rlinf_ppl.algebra.rounding import Count
from rlinf_ppl.algebra.small_matrices import semidefinite_root
from rlinf_ppl.algebra.squares import Squares


class Expansion(NamedTuple):
    """What factors are read as.

    Attributes:
        message: makes it from axes, sizes and what `expand` has read.
        expand: the array and what comes with it, and what is wrong, from a function and the point that z is counted
            from.
        shape: of the array of a function of nothing.
    """

    message: Any
    expand: Callable[[Callable[[Array], Array], Array], tuple[tuple[Any, ...], dict[str, Bool[Array, ""]]]]
    shape: tuple[int, int]

    @property
    def zero(self) -> Any:
        """Nothing."""
        return self.message((), (), jnp.zeros(self.shape))


def at_origin(value: Callable[[Array], Array], origin: Array) -> tuple[tuple[Array], dict[str, Array]]:
    """A quadratic function about a point: M over (z, 1), and what is wrong with it."""
    # Forwards, as a loop of unknown length has no other derivative.
    slope_at = jax.jacfwd(value)
    block, slope = jax.jacfwd(slope_at)(origin) / 2, slope_at(origin)[:, None] / 2
    matrix = jnp.block([[block, slope], [slope.T, value(origin)[None, None]]])
    return (matrix,), {"unbounded": ~jnp.all(jnp.isfinite(matrix))}


def at_maximum(value: Callable[[Array], Array], origin: Array) -> tuple[tuple[Array, Array, Count], dict[str, Array]]:
    """A concave function as l' [z, 1] - |C [z, 1]|^2 with z counted from a point.

    It is read where it is largest. There the user's own arithmetic takes the difference from a goal, and what is left
    of a square is small; a square that is completed by hand would be a small difference of large numbers.

    Returns:
        C above l, |C| and what was lost of C' C; and what is wrong with them.
    """
    slope_at = jax.jacfwd(value)
    root, lost, concave = semidefinite_root(-jax.jacfwd(slope_at)(origin) / 2)
    peak = origin + rise(root, slope_at(origin) / 2)
    away, slope = peak - origin, slope_at(peak)
    rows = jnp.concatenate([root.T, -(root.T @ away)[:, None]], 1)
    array = jnp.concatenate([rows, jnp.append(slope, value(peak) - slope @ away)[None]])
    count = rounding.left_out(lax.stop_gradient(lost))
    faults = {"unbounded": ~jnp.all(jnp.isfinite(array)), "convex": ~concave}
    return (array, jnp.abs(lax.stop_gradient(rows)), count), faults


def rise(root: Array, slope: Array) -> Array:
    """The z that maximises 2 slope' z - |root' z|^2, where root is triangular; 0 where it has no rank."""
    pivots = jnp.diagonal(root)
    safe = jnp.where(pivots > 0, pivots, 1.0)
    forwards, z = jnp.zeros_like(slope), jnp.zeros_like(slope)
    for k in range(len(slope)):
        forwards = forwards.at[k].set(jnp.where(pivots[k] > 0, (slope[k] - root[k] @ forwards) / safe[k], 0.0))
    for k in reversed(range(len(slope))):
        z = z.at[k].set(jnp.where(pivots[k] > 0, (forwards[k] - root[:, k] @ z) / safe[k], 0.0))
    return z


QUADRATICS = Expansion(Quadratic, at_origin, (1, 1))
SQUARES = Expansion(Squares, at_maximum, (2, 1))
