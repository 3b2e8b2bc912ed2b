"""A program in float64, whatever the dtype of its arrays: traced once more from the functions that it was made of."""

from typing import TypeVar

import jax
import jax.numpy as jnp

from rlinf_ppl.program.control_program import ControlProgram

Tree = TypeVar("Tree")


def in_double(program: ControlProgram) -> ControlProgram | None:
    """A program traced again in float64; None where its functions do not run so, or are no longer what they were.

    They are other functions where they read anything that has changed since: a variable of a loop, an attribute, an
    entry of an array. So the program is traced once more as it was.
    """
    made_of = program.made_of
    numbers = {name: widened(made_of[name]) for name in ("discount", "args", "changes")}
    try:
        wide = ControlProgram(**(made_of | numbers))
        if not have_equal_numbers(program, wide):
            return None
        with jax.enable_x64(program.discount.dtype == jnp.float64):
            now = ControlProgram(**made_of)
    except (TypeError, ValueError):
        return None
    return wide if now.structure == program.structure and have_equal_numbers(program, now) else None


def have_equal_numbers(one: ControlProgram, other: ControlProgram) -> bool:
    """Whether what two programs captured are the same numbers, up to the digits of the first."""
    ours, theirs = jax.tree.leaves(one.constants), jax.tree.leaves(other.constants)
    return len(ours) == len(theirs) and all(
        x.shape == y.shape and bool(jnp.all(x == y.astype(x.dtype))) for x, y in zip(ours, theirs, strict=True)
    )


def widened(tree: Tree) -> Tree:
    """Real numbers in the widest dtype there is."""
    return jax.tree.map(lambda x: x.astype(float) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
