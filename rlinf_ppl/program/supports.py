"""What values a variable takes: finitely many numbers, a vector of real ones, or arrays of any shape and type."""

import math
from dataclasses import dataclass
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


@dataclass(frozen=True)
class Real:
    """The values of a real variable: numbers, or vectors of one length."""

    shape: tuple[int, ...]

    def __len__(self) -> int:
        """The number of coordinates."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Arrays:
    """The values of any other variable: an array, or dicts and tuples of arrays, as shapes and types."""

    tree: Any
    leaves: tuple[jax.ShapeDtypeStruct, ...]

    def __len__(self) -> int:
        """The number of entries of all arrays."""
        return sum(math.prod(leaf.shape) for leaf in self.leaves)


FiniteSupport = range | tuple[float, ...]
Support = FiniteSupport | Real | Arrays


def is_finite(support: Support) -> TypeGuard[FiniteSupport]:
    """Whether a support lists its values."""
    return isinstance(support, range | tuple)


def is_whole(support: Support) -> bool:
    """Whether the values are whole numbers, one each."""
    if not isinstance(support, Arrays) or not jax.tree_util.treedef_is_leaf(support.tree):
        return False
    (leaf,) = support.leaves
    return leaf.shape == () and (jnp.issubdtype(leaf.dtype, jnp.integer) or leaf.dtype == bool)


def of_arrays(value: Any) -> Real | Arrays:
    """The support of values that are like this one, known or traced."""
    leaves, tree = jax.tree.flatten(value)
    dtypes = [jnp.result_type(leaf) for leaf in leaves]
    if jax.tree_util.treedef_is_leaf(tree) and jnp.issubdtype(dtypes[0], jnp.floating) and jnp.ndim(leaves[0]) <= 1:
        return Real(jnp.shape(leaves[0]))
    # Real numbers have the dtype that they have everywhere.
    dtypes = [jnp.result_type(float) if jnp.issubdtype(dtype, jnp.floating) else dtype for dtype in dtypes]
    shapes = zip(leaves, dtypes, strict=True)
    return Arrays(tree, tuple(jax.ShapeDtypeStruct(jnp.shape(leaf), dtype) for leaf, dtype in shapes))


def values_of(support: Support) -> Array:
    """The values of a finite support as an array."""
    assert isinstance(support, range | tuple)
    return jnp.arange(support.start, support.stop) if isinstance(support, range) else jnp.asarray(support)


def first_value(support: Support) -> Any:
    """One value of a support, with the dtypes of all of them; of arrays zeros."""
    if isinstance(support, Arrays):
        return jax.tree.unflatten(support.tree, [jnp.zeros(leaf.shape, leaf.dtype) for leaf in support.leaves])
    if isinstance(support, Real):
        return jnp.zeros(support.shape)
    return values_of(support[:1])[0]


def positions_of(support: Support, values: Array) -> Array:
    """The position of each value in the support; the support's length where the value is not in it."""
    if not isinstance(support, range | tuple):
        raise TypeError("a Gaussian variable has no positions; only one of finitely many values has.")
    if isinstance(support, range):
        position = values.astype(int) - support.start
        return jnp.where((position >= 0) & (position < len(support)), position, len(support))
    order = np.argsort(support)
    rank = jnp.searchsorted(values_of(support)[order], values)
    position = jnp.asarray(order)[jnp.minimum(rank, len(support) - 1)]
    return jnp.where(values_of(support)[position] == values, position, len(support))
