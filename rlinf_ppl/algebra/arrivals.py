"""How the next state depends on the variables of a step, for tables."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from rlinf_ppl.algebra.columns import Gather, contiguous, gather
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
        self, before: Callable[[Array], Any], after: Callable[[Any], Array], v: Array
    ) -> tuple[Array, Callable[[Array], Array]]:
        """A sweep at v and its derivative: `before` pulls the next message v, `after` walks the step."""
        return jax.linearize(lambda v: after(before(v)), v)

    def positions_at(self, positions: dict[str, Array]) -> dict[str, Array]:
        """The positions of the next state, each of shape (n,), from those of the variables of this step."""
        return {
            name: self.positions[name].rows(positions) if source is None else positions[source]
            for name, source in self.sources
        }
