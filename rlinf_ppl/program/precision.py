"""A program in float64, whatever the dtype of its arrays: traced once more from the functions that it was made of."""

from typing import TypeVar

import jax
import jax.numpy as jnp

from rlinf_ppl.program.control_program import ControlProgram

Tree = TypeVar("Tree")


def in_double(program: ControlProgram) -> ControlProgram | None:
    """A program traced again in float64; None where its functions do not run so, or its arrays were changed since."""
    _, (initial, step, horizon, discount, final, args, sizes) = program.__reduce__()
    try:
        wide = ControlProgram(initial, step, horizon, widened(discount), final, widened(args), sizes)
    except (TypeError, ValueError):
        return None
    ours, theirs = jax.tree.leaves(program.constants), jax.tree.leaves(wide.constants)
    same = len(ours) == len(theirs) and all(
        one.shape == other.shape and bool(jnp.all(one == other.astype(one.dtype)))
        for one, other in zip(ours, theirs, strict=True)
    )
    return wide if same else None


def widened(tree: Tree) -> Tree:
    """Real numbers in the widest dtype there is."""
    return jax.tree.map(lambda x: x.astype(float) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
