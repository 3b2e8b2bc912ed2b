"""What holds at each time, and at all: messages and laws that lead with an axis of time, for scans and vmaps."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

from rlinf_ppl.algebra.messages import Named


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
    return jax.tree.map(lambda x: x.renamed(x.axes[1:]) if is_named(x) and x.timed else x, tree, is_leaf=is_named)


def at_one_time(tree: Any, t: Any) -> Any:
    """What holds at one time, by number."""
    varying, constant = by_time(tree)
    return at_time(eqx.combine(jax.tree.map(lambda x: x[t], varying), constant))


def by_time(tree: Any) -> tuple[Any, Any]:
    """Split what has a time axis from what does not."""
    varies = jax.tree.map(lambda x: jax.tree.map(lambda _: is_named(x) and x.timed, x), tree, is_leaf=is_named)
    return eqx.partition(tree, varies)
