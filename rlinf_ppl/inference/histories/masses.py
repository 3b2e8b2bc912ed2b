"""Probabilities of hidden variables, and what becomes of them where something was seen."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from rlinf_ppl.algebra.tables import Table, union


class Seen(NamedTuple):
    """What was seen of one variable: at one time, or over time.

    Attributes:
        value: its value; any, where it was not seen.
        there: whether it was seen; None: at every time.
    """

    value: Any
    there: Bool[Array, "..."] | None


class Known(NamedTuple):
    """What is known before a step.

    Attributes:
        computed: the state variables that the data determine.
        mass: probabilities of the hidden ones.
    """

    computed: dict[str, Any]
    mass: Array


class Weight(NamedTuple):
    """How optimality counts.

    Attributes:
        unit: how many nats one unit of it is.
        alive: whether it counts at each step, and in the end.
    """

    unit: Float[Array, ""]
    alive: Bool[Array, " times"]

    def of(self, log_prob: Float[Array, "..."], t: Any) -> Float[Array, "..."]:
        """A factor at a time in nats; also where it is minus infinity, without slopes that are no numbers."""
        hard = jnp.isneginf(log_prob)
        nats = jnp.where(hard, -jnp.inf, self.unit * jnp.where(hard, 0.0, log_prob))
        return jnp.where(self.alive[t], nats, 0.0)


def met(
    mass: Table, weight: tuple[Table, Table], there: Array | None = None, counts: bool = True
) -> tuple[Table, Float[Array, ""]]:
    """The probabilities given something that was seen, and the log probability of that.

    Args:
        mass: the probabilities before.
        weight: of what was seen, a probability and the log of a density, whose product counts.
        there: whether it was seen at all.
        counts: whether the log probability is wanted; if not it may be 0 in the place of any that is finite.
    """
    axes = union(mass.axes, *(part.axes for part in weight))
    before, p, log_p = (part.aligned(axes) for part in (mass, *weight))
    if not axes:
        after, term = met_alone(before, p, log_p, counts)
    else:
        after, term = met_beside(before, p, log_p)
    if there is not None:
        after = jnp.where(there, after, jnp.broadcast_to(before, after.shape))
        term = jnp.where(there, term, 0.0)
    return Table(axes, after), term


def met_beside(before: Array, p: Array, log_p: Array) -> tuple[Array, Float[Array, ""]]:
    """The probabilities of hidden variables given what was seen of the weight p exp(log_p), and the log of its mean."""
    peak = lax.stop_gradient(jnp.max(jnp.where((before > 0) & (p > 0), log_p, -jnp.inf)))
    peak = jnp.where(jnp.isneginf(peak), 0.0, peak)
    joint = before * p * jnp.exp(log_p - peak)
    total = jnp.sum(joint)
    possible = (total > 0) | jnp.isnan(total)
    term = jnp.where(possible, jnp.log(jnp.where(possible, total, 1.0)) + peak, -jnp.inf)
    after = jnp.where(possible, joint / jnp.where(possible, total, 1.0), jnp.broadcast_to(before, joint.shape))
    return after, term


def met_alone(one: Array, p: Array, log_p: Array, counts: bool) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The same where nothing is hidden: there is nothing to be learned, and the probability of all is one."""
    lost = jnp.isnan(one) | jnp.isnan(p) | ~(log_p < jnp.inf)
    possible = ((p > 0) & ~jnp.isneginf(log_p)) | lost
    nats = jnp.log(jnp.where(possible, p, 1.0)) + jnp.where(possible, log_p, 0.0) if counts else jnp.zeros(())
    return jnp.where(lost, jnp.nan, one), jnp.where(possible, jnp.where(lost, jnp.nan, nats), -jnp.inf)


def certain(p: Table) -> tuple[Table, Table]:
    """A weight that is a probability."""
    return p, Table((), jnp.zeros(()))


def times(mass: Table, law: Table) -> Table:
    """The product of probabilities."""
    axes = union(mass.axes, law.axes)
    return Table(axes, mass.aligned(axes) * law.aligned(axes))


def expected(mass: Table, law: Table) -> Array:
    """The probability of each value of the last variable of a law, the hidden ones summed out, (K,)."""
    joint = times(mass, law)
    return jnp.sum(joint.aligned((*mass.axes, law.axes[-1])), tuple(range(len(mass.axes))))


def kept(mass: Table, needed: set[str]) -> Table:
    """The probabilities of what something later depends on."""
    stays = tuple(name for name in mass.axes if name in needed)
    gone = tuple(i for i, name in enumerate(mass.axes) if name not in needed)
    return Table(stays, jnp.sum(mass.array, gone))


def at_row(seen: Seen, row: int) -> Seen:
    """What was seen at one time."""
    return jax.tree.map(lambda x: x[row], seen)


def ahead_of(seen: Seen, steps: int, length: Array | None, follows: Array | None = None) -> Seen:
    """A state variable at the ends of all steps; not seen at the end of the last one where the data end before.

    Nor where the next row does not follow.
    """
    if follows is not None:
        found = ahead_of(seen, steps, length)
        return Seen(found.value, follows if found.there is None else found.there & follows)
    rows = jax.tree.leaves(seen.value)[0].shape[0]
    if rows > steps:
        return jax.tree.map(lambda x: x[1:], seen)
    value = jax.tree.map(lambda x: jnp.concatenate([x[1:], x[:1]]), seen.value)
    there = jnp.ones(steps, bool) if seen.there is None else jnp.append(seen.there[1:], False)
    last = steps if length is None else length
    return Seen(value, there & (jnp.arange(steps) < last - 1))


def ended(terms: Float[Array, " T"], lost: Bool[Array, " T"], length: Array | None) -> Float[Array, " T"]:
    """Terms over time, -inf from the step on that cannot have been, and 0 behind the end."""
    within = jnp.ones(len(terms), bool) if length is None else jnp.arange(len(terms)) < length
    never = jnp.cumsum(lost & within) > 0
    found = jnp.where(within, jnp.where(never & ~jnp.isnan(terms), -jnp.inf, terms), 0.0)
    # Of an end that is none nothing is known.
    return found if length is None else jnp.where((length >= 0) & (length <= len(terms)), found, jnp.nan)
