"""How the next state depends on the variables of a step, for tables."""

import functools
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlinf_ppl.algebra.columns import Gather, contiguous, gather
from rlinf_ppl.algebra.fixed_point import Linearized
from rlinf_ppl.algebra.linear_systems import MOST_DIRECT
from rlinf_ppl.algebra.messages import Arrival, Step
from rlinf_ppl.algebra.tables import Conditional, Table, union

MOST_UNROLLED = 64
FEWEST_STATES = 1024


class FiniteArrival(Arrival[Table, Conditional]):
    """How the next state depends on the variables of a step, by position.

    Attributes:
        sources: for each state variable, the variable of the step that becomes its next value, or None.
        positions: for the state variables without a source, the position of the next value in the support.
    """

    sources: tuple[tuple[str, str | None], ...] = eqx.field(static=True)
    positions: dict[str, Table]

    def pull(self, v: Table) -> Table:
        """The message about the next state as a function of the variables of this step."""
        source = dict(self.sources)
        if all(source[name] for name in v.axes) and len({source[name] for name in v.axes}) == len(v.axes):
            return Table(tuple(str(source[name]) for name in v.axes), v.array)
        tables = {
            name: self.positions[name] if source[name] is None else Table((str(source[name]),), jnp.arange(size))
            for name, size in zip(v.axes, v.array.shape, strict=True)
        }
        axes = union(*(tables[name].axes for name in v.axes))
        index = tuple(tables[name].aligned(axes) for name in v.axes)
        # An index outside the support gives NaN, which results report, where JAX would clamp it silently.
        return Table(axes, v.array.at[index].get(mode="fill", fill_value=jnp.nan))

    def quickest(
        self, sites: Step, state: dict[str, int], others: dict[str, int], repeated: bool, free: tuple[str, ...]
    ) -> "tuple[Step, FiniteArrival | Gather]":
        """Columns where many states meet few joint values of the sites, tables elsewhere."""
        if math.prod(others.values()) > MOST_UNROLLED or math.prod(state.values()) < FEWEST_STATES:
            return sites, self
        form = sites, gather(self.sources, self.positions, state)
        # Newton's steps read tables column by column; a single sweep goes through all columns side by side.
        return contiguous(form, tuple(state)) if repeated else form

    def linearized(
        self, before: Callable[[Array], Any], after: Callable[[Any], Array], v: Array, state: tuple[str, ...]
    ) -> Linearized:
        """A sweep at v and its derivative: `before` pulls the next message v, `after` walks the step."""
        image, push = jax.linearize(lambda v: after(before(v)), v)
        matrix = functools.partial(jacobian, before, after, v, state)
        return Linearized(image, push, matrix if v.size <= MOST_DIRECT else None)

    def positions_at(self, positions: dict[str, Array]) -> dict[str, Array]:
        """The positions of the next state, each of shape (n,), from those of the variables of this step."""
        return {
            name: self.positions[name].rows(positions) if source is None else positions[source]
            for name, source in self.sources
        }


def jacobian(
    before: Callable[[Array], Any], after: Callable[[Any], Array], v: Array, state: tuple[str, ...]
) -> Float[Array, "n n"]:
    """The derivative of a sweep as a matrix over all entries of v.

    What is pulled is laid out for each state apart, and the value of a state depends on its own part only. So one
    derivative, of the sum of all values, holds every slope, and each state's are pushed back to the next states.
    """
    pulled = before(v)
    sizes = dict(zip(pulled.axes, pulled.array.shape, strict=True)) | dict(zip(state, v.shape, strict=True))
    rest = tuple(name for name in pulled.axes if name not in state)
    slopes = jax.vjp(after, pulled.over((*state, *rest), sizes))[1](jnp.ones_like(v))[0].array
    if rest == pulled.axes:
        rows, axes = slopes.reshape(v.size, *slopes.shape[v.ndim :]), rest
    else:
        own = jnp.eye(v.size, dtype=v.dtype).reshape(v.size, *v.shape, *[1] * len(rest))
        rows, axes = own * slopes[None], (*state, *rest)
    back = jax.vjp(lambda v: before(v).over(axes, sizes).array, v)[1]
    return jax.vmap(lambda row: back(row)[0])(rows).reshape(v.size, v.size)
