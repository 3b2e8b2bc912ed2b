"""Conjugate gradients for pytrees, that stop where steps are small, too."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Tree = TypeVar("Tree")


def conjugate_gradients(
    product: Callable[[Tree], Tree],
    right: Tree,
    near: Callable[[Tree], Tree],
    within: Float[Array, ""] | float,
) -> Tree:
    """The solution of product(step) = right.

    What is left has to be small, and so have the steps that it would take: where a multiplier is next to nothing, so
    are rows, but what they say of the tilts counts.
    """

    def inner(a: Tree, b: Tree) -> Array:
        return sum(jax.tree.leaves(jax.tree.map(lambda x, y: jnp.sum(x * y), a, b)), jnp.zeros(()))

    def plus(a: Tree, size: Array, b: Tree) -> Tree:
        return jax.tree.map(lambda x, y: x + size * y, a, b)

    first = near(right)
    goal, goal_left = within * largest(first), within**2 * inner(right, right)
    most = min(2 * sum(x.size for x in jax.tree.leaves(right)) + 20, 500)

    def body(state: Any) -> Any:
        step, left, z, direction, product_of_both, k = state
        pushed = product(direction)
        size = product_of_both / inner(direction, pushed)
        step, left = plus(step, size, direction), plus(left, -size, pushed)
        z = near(left)
        after = inner(left, z)
        return step, left, z, plus(z, after / product_of_both, direction), after, k + 1

    def going(state: Any) -> Array:
        _, left, z, _, product_of_both, k = state
        return (k < most) & ((largest(z) > goal) | (inner(left, left) > goal_left)) & (product_of_both > 0)

    zero = jax.tree.map(jnp.zeros_like, right)
    return lax.while_loop(going, body, (zero, right, first, first, inner(right, first), 0))[0]


def largest(tree: Any) -> Float[Array, ""]:
    """The largest size of an entry."""
    return jnp.max(jnp.stack([jnp.zeros(()), *(jnp.max(jnp.abs(x)) for x in jax.tree.leaves(tree))]))
