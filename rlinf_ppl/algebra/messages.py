"""What the elimination asks of an algebra: messages about named variables, and the laws that they meet.

A message is a function of named variables with these methods; a law is what a site's content is, in the same algebra.

    w + u, w - u                 sums; each may depend on other variables
    w.over(axes, size)           the same function, of all of `axes` in this order
    w.divided(constant)          divided by a constant message, None for 1
    w.gated(name)                0 where the Bernoulli variable `name` is 0, w where it is 1
    w.mean(law)                  E[w | parents]
    w.log_mean(law, tau)         (1 / tau) log E[exp(tau w) | parents]
    w.tilt(law, tau)             max_q E_q w - cost(q) / tau, and the q that attains it
    w.equilibrium(laws, taus)    the same of several laws at once, each against the others, and how nearly they do
    w.constant                   the value of a function of nothing
    w.filled(value)              a function of nothing with another value
    w.whole                      the message as one array, where an algebra also has a quicker form
    law.cost(q)                  what it costs in nats to follow q instead, a message

and about the next state

    arrival.represented(sites, ...)        the form of both that is walked fastest, for variables of these sizes; the
                                           decisions that are `free` in it may be walked as something that `follow`
                                           translates back
    arrival.following(v)                   a message about the next state in that form
    arrival.pull(v)                        the same as a function of the variables of this step
    arrival.linearized(before, after, v)   a whole step and its derivative

Nothing else is asked, so any family of functions that these methods do not leave can be an algebra. What reads answers
off also asks

    w.answer, law.answer(scope, size)      what users are given: arrays, or named tuples of them
    law.given(answer, scope, size)         a law in the place of this one, from what users give
    law.follow(reply)                      a law found in the place of this one, in its own variables
    w.expectation(weights)                 the mean of the message under such derivatives
    w.perturbation(normals)                a random message of the same variables, from as many as its `freedom`
    w.counting, w.rounding                 how far it may be off by rounding: counted from here on, and up to here
    w.shifted(origin), law.shifted(origin) the same with vectors counted from other origins
    w.monotone                             whether a larger message means a larger array, entry by entry
    w.rows(values), law.draw(...)          the message, or a draw from the law, at values of its variables
    law.normals                            how many standard normals a draw takes; 0: one uniform
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import equinox as eqx
import jax
from jaxtyping import Array, Float

TIME = "t"

Message: TypeAlias = Any
Law: TypeAlias = Any


class Rounding(NamedTuple):
    """What rounding may have done to a message and to all that led to it.

    Attributes:
        absolute: how far its constant may be off.
        relative: how far pivots may be off, hence covariances, and gains in units of the noise.
    """

    absolute: Float[Array, "..."]
    relative: Float[Array, "..."]


class Named(eqx.Module):
    """Arrays over named variables, its `axes`; where the first is the time, every array leads with the axis of time."""

    @property
    def timed(self) -> bool:
        """Whether there is one of it for each time."""
        axes: tuple[str, ...] = self.axes  # type: ignore[attr-defined]
        return axes[:1] == (TIME,)

    def renewed(self, array: Array) -> Any:
        """The same variables with another array."""
        return dataclasses.replace(self, array=array)  # type: ignore[call-arg]

    @property
    def rounding(self) -> Rounding | None:
        """What rounding may have done; None where that is not counted."""
        return None

    @property
    def counting(self) -> Any:
        """The same, and its rounding is counted from here on where its algebra needs that."""
        return self

    def shifted(self, origin: dict[str, Array]) -> Any:
        """The same with vectors counted from other origins."""
        return self


def with_array(message: Message, array: Array) -> Message:
    """A message of the same variables with another array."""
    return message.renewed(array)


def stacked(message: Message, array: Array) -> Message:
    """Messages of the same variables at several times, from their arrays stacked."""
    return dataclasses.replace(with_array(message, array), axes=(TIME, *message.axes))


def at(message: Message, t: int) -> Message:
    """One of several messages over time."""
    return dataclasses.replace(message, axes=message.axes[1:], array=message.array[t])


def over_time(message: Message, axes: tuple[str, ...], size: dict[str, int]) -> Message:
    """`over` for a message, or for messages at several times."""
    if not message.timed:
        return message.over(axes, size)
    one = at(message, 0)
    arrays = jax.vmap(lambda array: with_array(one, array).over(axes, size).array)(message.array)
    return stacked(one.over(axes, size), arrays)


def each_time(times: tuple[str, ...], function: Callable[..., Any], *trees: Any) -> Any:
    """A function of what holds at one time, for all times together; or of what holds at all, where `times` is empty."""
    if not times:
        return function(*trees)
    return jax.vmap(lambda *now: function(*at_time(now)))(*trees)


def where_timed(function: Callable[..., Any], *trees: Any) -> Any:
    """A function of laws and messages at one time, for all times together where any of them has a time axis."""
    varying, constant = by_time(trees)
    if not jax.tree.leaves(varying):
        return function(*trees)
    return jax.vmap(lambda now: function(*at_time(eqx.combine(now, constant))))(varying)


def is_named(x: Any) -> bool:
    """Whether a node of a pytree holds arrays over named variables."""
    return isinstance(x, Named)


def at_time(tree: Any) -> Any:
    """Drop the time from the names of what a scan has sliced."""
    return jax.tree.map(
        lambda x: dataclasses.replace(x, axes=x.axes[1:]) if is_named(x) and x.timed else x, tree, is_leaf=is_named
    )


def at_one_time(tree: Any, t: Any) -> Any:
    """What holds at one time, by number."""
    varying, constant = by_time(tree)
    return at_time(eqx.combine(jax.tree.map(lambda x: x[t], varying), constant))


def by_time(tree: Any) -> tuple[Any, Any]:
    """Split what has a time axis from what does not."""
    varies = jax.tree.map(lambda x: jax.tree.map(lambda _: is_named(x) and x.timed, x), tree, is_leaf=is_named)
    return eqx.partition(tree, varies)
