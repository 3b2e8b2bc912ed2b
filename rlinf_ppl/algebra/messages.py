"""What the elimination asks of an algebra: messages about named variables, and the laws that they meet.

A message is a function of named variables with these methods; a law is what a site's content is, one for each algebra.

    w + u, w - u                 sums; each may depend on other variables
    w.over(axes, size)           the same function, of all of `axes` in this order
    w.divided(constant)          divided by a constant message, None for 1
    w.gated(name)                0 where the Bernoulli variable `name` is 0, w where it is 1
    w.mean(law)                  E[w | parents]
    w.log_mean(law, tau)         (1 / tau) log E[exp(tau w) | parents]
    w.tilt(law, tau)             max_q E_q w - cost(q) / tau, and the q that attains it
    w.constant                   the value of a function of nothing
    law.cost(q)                  what it costs in nats to follow q instead, a message
    arrival.pull(v)              the message about the next state as a function of the variables of this step

Nothing else is asked, so any family of functions that these methods do not leave can be an algebra.
"""

import dataclasses
from typing import Any, TypeVar

import equinox as eqx
import jax
from jaxtyping import Array

TIME = "t"

NamedT = TypeVar("NamedT", bound="Named")


class Named(eqx.Module):
    """Arrays over named variables; where the first is the time, every array leads with the axis of time."""

    axes: eqx.AbstractVar[tuple[str, ...]]

    @property
    def timed(self) -> bool:
        """Whether there is one of it for each time."""
        return self.axes[:1] == (TIME,)


class Message(Named):
    """A function of named variables, given by one array."""

    array: eqx.AbstractVar[Array]


def with_array(message: Any, array: Array) -> Any:
    """A message of the same variables with another array."""
    return dataclasses.replace(message, array=array)


def stacked(message: Any, array: Array) -> Any:
    """Messages of the same variables at several times, from their arrays stacked."""
    return dataclasses.replace(message, axes=(TIME, *message.axes), array=array)


def at(message: Any, t: int) -> Any:
    """One of several messages over time."""
    return dataclasses.replace(message, axes=message.axes[1:], array=message.array[t])


def is_named(x: Any) -> bool:
    """Whether a node of a pytree is a message or a law over named variables."""
    return isinstance(x, Named)


def at_time(tree: Any) -> Any:
    """Drop the time from the names of what a scan has sliced."""
    return jax.tree.map(
        lambda x: dataclasses.replace(x, axes=x.axes[1:]) if is_named(x) and x.timed else x, tree, is_leaf=is_named
    )


def by_time(tree: Any) -> tuple[Any, Any]:
    """Split what has a time axis from what does not."""
    varies = jax.tree.map(lambda x: jax.tree.map(lambda _: is_named(x) and x.timed, x), tree, is_leaf=is_named)
    return eqx.partition(tree, varies)
