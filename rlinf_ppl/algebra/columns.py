"""Messages of large sparse tasks: the small variables unrolled, one array over the states for each of their values.

A table over a million states, four actions and five successors is one long axis and two tiny ones. Held as an array it
keeps XLA from making one loop of a sweep: every sum over a handful of entries goes through memory. Here the tiny axes
are unrolled in Python. A message is a `Columns`, one array over the states for each joint value of the step's own
sites, and a sweep is arithmetic on arrays of one shape, which XLA fuses into a single loop without temporaries.

Laws and factors stay tables; a message takes them apart where it meets them. Nothing in a walk mixes states but the
pull of the next message, so the derivative of a sweep is a pull times one slope for each column: `Gather.linearized`.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from rlinf_ppl.algebra.fixed_point import Linearized
from rlinf_ppl.algebra.messages import Arrival, Message
from rlinf_ppl.algebra.numerics import soft_maximum_of_columns
from rlinf_ppl.algebra.regularizers import kl
from rlinf_ppl.algebra.tables import Conditional, Table

T = TypeVar("T")
Values = dict[str, int]


class Columns(Message[Table, Conditional]):
    """A function of named finite variables, of which all but the state variables are unrolled.

    Attributes:
        state: the state variables, one for each dimension of every column.
        sizes: the other variables in order, each with its number of values.
        columns: for each joint value of these, the last one fastest, an array over the state variables, of size 1
            along those that it does not vary with.
    """

    state: tuple[str, ...] = eqx.field(static=True)
    sizes: tuple[tuple[str, int], ...] = eqx.field(static=True)
    columns: tuple[Array, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        """The variables that are unrolled."""
        return tuple(name for name, _ in self.sizes)

    @property
    def whole(self) -> Table:
        """The same function as a table."""
        whole = jnp.broadcast_arrays(*self.columns)
        varies = [i for i, size in enumerate(whole[0].shape) if size > 1]
        array = jnp.stack(whole, -1).reshape(*(whole[0].shape[i] for i in varies), *(size for _, size in self.sizes))
        return Table((*(self.state[i] for i in varies), *self.axes), array)

    def over(self, axes: tuple[str, ...], sizes: dict[str, int]) -> Table:
        """The same function as a table over all of `axes`."""
        return self.whole.over(axes, sizes)

    def at(self, values: Values) -> Array:
        """The column at values of the unrolled variables; others are ignored."""
        position = 0
        for name, size in self.sizes:
            position = position * size + values[name]
        return self.columns[position]

    def along(self, name: str, values: Values) -> tuple[Array, ...]:
        """The columns at all values of one variable and given ones of the others."""
        return tuple(self.at(values | {name: k}) for k in range(dict(self.sizes)[name]))

    def __add__(self, other: Table) -> "Columns":
        parts = apart(other, self.state)
        return unrolled(self.state, shared(self, parts), lambda at: self.at(at) + parts.at(at))

    def __sub__(self, other: Table) -> "Columns":
        return self + Table(other.axes, -other.array)

    def mean(self, law: Conditional) -> "Columns":
        """E[w | parents]: the message averaged over a variable."""
        if law.name not in self.axes:
            return self
        p = apart(law.table, self.state)

        def average(at: Values) -> Array:
            return products(p.along(law.name, at), self.along(law.name, at))

        return unrolled(self.state, shared(self, p, without=law.name), average)

    def log_mean(self, law: Conditional, tau: Table | None) -> "Columns":
        """(1 / tau) log E[exp(tau w) | parents]: the message averaged over a variable in the exponent."""
        return self.tilt(law, tau)[0]

    def tilt(self, law: Conditional, tau: Table | None = None) -> tuple["Columns", Conditional]:
        """The message and the law that `Table.tilt` gives."""
        if law.name not in self.axes and law.regularizer == kl:
            return self, law
        p = apart(law.table, self.state)
        sizes, own = shared(self, p, without=law.name), (law.name, dict(p.sizes)[law.name])
        w = unrolled(self.state, shared(self, p), self.at)
        scale = None if tau is None else tau.array

        def maximum(at: Values) -> tuple[tuple[Array, ...], Array]:
            prior, values = p.along(law.name, at), w.along(law.name, at)
            if law.regularizer == kl:
                return soft_maximum_of_columns(prior, values, scale)
            q, value = law.regularizer.maximum(stacked(prior), stacked(values), scale)
            return tuple(jnp.moveaxis(q, -1, 0)), value

        found = [maximum(at) for at in joint_values(sizes)]
        q = Columns(self.state, (*sizes, own), tuple(column for policy, _ in found for column in policy))
        return Columns(self.state, sizes, tuple(value for _, value in found)), Conditional(law.name, q.whole)

    def equilibrium(
        self, laws: tuple[Conditional, ...], taus: tuple[Table | None, ...]
    ) -> tuple["Columns", tuple[Conditional, ...], Array]:
        """What `Table.equilibrium` gives."""
        value, found, residual = self.whole.equilibrium(laws, taus)
        return apart(value, self.state), found, residual

    def gated(self, name: str) -> "Columns":
        """0 where the Bernoulli variable `name` is 0, this function where it is 1."""
        dead = tuple(jnp.zeros_like(column) for column in self.columns)
        return Columns(self.state, ((name, 2), *self.sizes), (*dead, *self.columns))


class Gather(Arrival[Table, Conditional]):
    """How the next state depends on the variables of a step, for columns: messages are gathered at its positions.

    Attributes:
        state: the state variables that the value depends on, and their sizes.
        sources: for each of them, the variable of the step that becomes its next value, or None.
        positions: for those without a source the position of the next value, inside the support.
        outside: 0, or NaN where a position did not lie inside: then all that is pulled is NaN.
    """

    state: tuple[tuple[str, int], ...] = eqx.field(static=True)
    sources: tuple[tuple[str, str | None], ...] = eqx.field(static=True)
    positions: dict[str, Table]
    outside: Table

    def following(self, v: Table) -> Columns:
        """A message about the next state as one column."""
        return apart(v, tuple(name for name, _ in self.state))

    def positions_at(self, at: dict[str, Array]) -> dict[str, Array]:
        """The positions of the next state, each of shape (n,), from those of the variables of this step."""
        return {name: self.positions[name].rows(at) if source is None else at[source] for name, source in self.sources}

    def pull(self, v: Columns) -> Columns:
        """The message about the next state as a function of the variables of this step."""
        flat = v.columns[0].reshape(-1)
        parts = {}
        for (name, size), (_, source) in zip(self.state, self.sources, strict=True):
            own = self.positions[name] if source is None else Table((source,), jnp.arange(size, dtype=jnp.int32))
            parts[name] = apart(own, v.state)

        def gathered(at: Values) -> Array:
            index = jnp.zeros((), jnp.int32)
            for name, size in self.state:
                index = index * size + parts[name].at(at)
            # What makes it NaN is added to what is gathered: in front of a gather it would be done entry by entry.
            return flat.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False) + self.outside.array

        return unrolled(v.state, shared(*parts.values()), gathered)

    def linearized(
        self, before: Callable[[Array], Any], after: Callable[[Any], Array], v: Array, state: tuple[str, ...]
    ) -> Linearized:
        """A sweep at v and its derivative: `before` pulls the next message v, `after` walks the step.

        The value of a state depends on what is pulled to that state only. So the derivative of the sum of all values
        in the pulled columns holds every slope dV(s) / dW_k(s), and a product takes one gather and one multiplication
        for each column.
        """
        shape = [size for _, size in self.state]

        def whole(v: Array) -> Columns:
            w = before(v)
            return Columns(w.state, w.sizes, tuple(jnp.broadcast_to(column, shape) for column in w.columns))

        pulled, push = jax.linearize(whole, v)
        image, back = jax.vjp(after, pulled)
        slopes = back(jnp.ones_like(image))[0].columns
        return Linearized(image, lambda d: products(slopes, push(d).columns))


def gather(sources: tuple[tuple[str, str | None], ...], positions: dict[str, Table], state: dict[str, int]) -> Gather:
    """An arrival for columns over the given state variables, from that for tables."""
    source = dict(sources)
    free = [name for name in state if source[name] is None]
    inside = [jnp.all(positions[name].array < state[name]) for name in free]
    clipped = {
        name: Table(positions[name].axes, jnp.minimum(positions[name].array, state[name] - 1).astype(jnp.int32))
        for name in free
    }
    outside = jnp.where(functools.reduce(jnp.logical_and, inside, jnp.asarray(True)), 0.0, jnp.nan)
    return Gather(tuple(state.items()), tuple((name, source[name]) for name in state), clipped, Table((), outside))


def contiguous(tree: T, state: tuple[str, ...]) -> T:
    """The same tables with the states last, so that a column lies in one piece."""

    def moved(table: Table) -> Table:
        axes = tuple(sorted(table.axes, key=lambda name: name in state))
        return Table(axes, table.aligned(axes))

    return jax.tree.map(moved, tree, is_leaf=lambda node: isinstance(node, Table))


def apart(table: Table, state: tuple[str, ...]) -> Columns:
    """A table with every axis but those of the state variables unrolled; nothing is copied."""
    sizes = {name: size for name, size in zip(table.axes, table.array.shape, strict=True) if name not in state}
    kept = tuple(name for name in table.axes if name in state)

    # Columns are cut from the table as it lies: XLA may write out a table that is turned first.
    def column(at: Values) -> Array:
        cut = table.array[tuple(at[name] if name in sizes else slice(None) for name in table.axes)]
        return Table(kept, cut).aligned(state)

    return unrolled(state, tuple(sizes.items()), column)


def unrolled(state: tuple[str, ...], sizes: tuple[tuple[str, int], ...], column: Callable[[Values], Array]) -> Columns:
    """Columns by a function of the values of the unrolled variables."""
    return Columns(state, sizes, tuple(column(at) for at in joint_values(sizes)))


def joint_values(sizes: tuple[tuple[str, int], ...]) -> Iterator[Values]:
    """All joint values, those of the last variable fastest."""
    for values in itertools.product(*(range(size) for _, size in sizes)):
        yield {name: k for (name, _), k in zip(sizes, values, strict=True)}


def shared(*messages: Columns, without: str | None = None) -> tuple[tuple[str, int], ...]:
    """The unrolled variables of all messages in order of first appearance, but for one."""
    every = {name: size for message in messages for name, size in message.sizes}
    return tuple((name, size) for name, size in every.items() if name != without)


def products(left: tuple[Array, ...], right: tuple[Array, ...]) -> Array:
    """The sum of the products of two lists of columns."""
    return functools.reduce(jnp.add, [one * other for one, other in zip(left, right, strict=True)])


def stacked(columns: tuple[Array, ...]) -> Array:
    """Columns as the last axis of one array."""
    return jnp.stack(jnp.broadcast_arrays(*columns), -1)
