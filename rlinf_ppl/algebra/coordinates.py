"""Named vectors side by side, with a last coordinate that is the constant 1."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


class Space(tuple[tuple[str, ...], tuple[int, ...]]):
    """Named vectors and their sizes, in order."""

    __slots__ = ()

    def __new__(cls, axes: tuple[str, ...], sizes: tuple[int, ...]) -> "Space":
        """From the names and their sizes."""
        return super().__new__(cls, (axes, sizes))

    def index(self, other: "Space") -> "np.ndarray | None":  # type: ignore[override]
        """For each coordinate and the constant its position in `other`, or the one after the last; None: the same."""
        if self == other:
            return None
        first, place = {}, 0
        for name, size in zip(*other, strict=True):
            first[name], place = place, place + size
        rows = [
            first[name] + np.arange(n) if name in first else np.full(n, place + 1)
            for name, n in zip(*self, strict=True)
        ]
        return np.concatenate([*rows, [place]]).astype(int)


def union(*parts: Any) -> Space:
    """The variables of all parts in order of first appearance."""
    size: dict[str, int] = {}
    for part in parts:
        axes, sizes = part if isinstance(part, Space) else (part.axes, part.sizes)
        size |= {name: n for name, n in zip(axes, sizes, strict=True) if name not in size}
    return Space(tuple(size), tuple(size.values()))


def unit_row(space: Space) -> Array:
    """The row that gives the constant 1."""
    return jnp.eye(1, sum(space[1]) + 1, sum(space[1]))


def stacked_origin(w: Any, origin: dict[str, Array]) -> Array:
    """The origins of a message's or law's variables side by side, 0 where there is none."""
    axes = w.axes[w.timed :]
    parts = [origin[name] if name in origin else jnp.zeros(n) for name, n in zip(axes, w.sizes, strict=True)]
    return jnp.concatenate([jnp.zeros(0), *parts])


def stacked_values(axes: tuple[str, ...], at: dict[str, Array]) -> Array:
    """The values of variables side by side with the constant 1, shape (n, N + 1); n is 1 where there are none."""
    columns = [at[name] for name in axes]
    return jnp.concatenate([*columns, jnp.ones((columns[0].shape[0] if columns else 1, 1))], -1)
