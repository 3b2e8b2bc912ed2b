"""Several starts of a fit: where each begins, and which of them is the best."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from rlinf_ppl.inference.arguments import check_number
from rlinf_ppl.inference.fitting.loop import Fit, Task

# Where the task stands in a fit: all before it are arrays.
TASK = Fit._fields.index("task")


def check_spread(spread: Any) -> Array:
    """How far starts are moved.

    Raises:
        TypeError: it is no number.
        ValueError: it is below 0 or not finite.
    """
    found = check_number("spread", spread)
    if isinstance(found, jax.core.Tracer):
        return found
    if not (found >= 0) & jnp.isfinite(found):
        raise ValueError(f"spread is {float(found):g}; a standard deviation is at least 0, and finite.")
    return found


def moved(guide: Any, spread: Array, key: Array) -> Any:
    """A guide whose numbers are moved by noise of a standard deviation."""
    if not isinstance(spread, jax.core.Tracer) and spread == 0:
        return guide
    leaves, tree = jax.tree.flatten(guide)
    keys = jax.random.split(key, max(len(leaves), 1))
    noisy = [
        x + spread * jax.random.normal(each, jnp.shape(x), x.dtype) if eqx.is_inexact_array(x) else x
        for x, each in zip(leaves, keys, strict=False)
    ]
    return jax.tree.unflatten(tree, noisy)


def best_of(
    one: Callable[[Task, Array], Fit], tasks: list[Task], key: Array, starts: int, traced: bool, side_by_side: bool
) -> Fit:
    """The fit of the largest ELBO, of several starts and kinds of steps, with the ELBOs of all.

    Args:
        one: a fit by one kind of steps from one key.
        tasks: the kinds of steps.
        key: a random key; a single fit takes it as it is.
        starts: how many keys.
        traced: whether it runs inside vmap or jit, where there is one start.
        side_by_side: whether starts are run together.
    """
    if starts == 1 and len(tasks) == 1:
        return one(tasks[0], key)
    if traced:
        found = [one(task, key) for task in tasks]
        best = jnp.nanargmax(elbos := jnp.stack([fit.elbo for fit in found]))
        picked = jax.tree.map(lambda *parts: jnp.stack(parts)[best], *(fit[:TASK] for fit in found))
        return Fit._make((*picked, tasks[0], elbos))
    keys = jax.random.split(key, starts)
    if side_by_side:
        fits = [fit for task in tasks for fit in together(partial(one, task), task, keys)]
    else:
        fits = [one(tasks[0], each) for each in keys]
    elbos = jnp.stack([fit.elbo for fit in fits])
    return fits[int(jnp.nanargmax(elbos))]._replace(restarts=elbos)


def together(one: Callable[[Array], Fit], task: Task, keys: Array) -> list[Fit]:
    """Fits from several keys, run side by side."""
    found: Any = jax.vmap(lambda key: one(key)[:TASK])(keys)
    fits = [Fit._make((*jax.tree.map(lambda x, i=i: x[i], found), task, None)) for i in range(len(keys))]
    return [fit._replace(losses=fit.losses[~jnp.isnan(fit.losses)]) for fit in fits]
