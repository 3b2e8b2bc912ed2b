"""What a run of particles comes to as tables: what is known of a state, and how often a decision was taken."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from rlinf_ppl.algebra import Table
from rlinf_ppl.inference.particles.genealogy import History, trace_back
from rlinf_ppl.inference.particles.simulator import Simulator, Values
from rlinf_ppl.program.laws import probs_of
from rlinf_ppl.program.structure import Structure
from rlinf_ppl.program.supports import Support, is_finite, positions_of

MOST_ENTRIES = 2**24


def held(structure: Structure, axes: tuple[str, ...]) -> bool:
    """Whether variables are finite, and a table over them and all times is small enough to come with every run."""
    supports = structure.supports()
    times = (structure.horizon or 0) + 1
    return (
        all(is_finite(supports[axis]) for axis in axes)
        and times * math.prod(len(supports[axis]) for axis in axes) <= MOST_ENTRIES
    )


def summarized(structure: Structure, state: Values, weights: Array) -> Values:
    """The weighted probabilities, or mean, of each state variable; what weighs nothing may be anything."""

    def mean(x: Array) -> Array:
        column = jnp.reshape(weights, (-1,) + (1,) * (x.ndim - 1))
        return jnp.sum(jnp.where(column > 0, x * column, 0.0), 0)

    def one(support: Support, x: Any) -> Any:
        if not is_finite(support):
            return jax.tree.map(mean, x)
        return jnp.zeros(len(support)).at[positions_of(support, x)].add(weights, mode="drop")

    kept = {name: support for name, support in structure.state if not is_finite(support) or held(structure, (name,))}
    return {name: one(support, state[name]) for name, support in kept.items()}


def conditional(simulator: Simulator, name: str, joint: Array) -> Array:
    """A decision given its scope from their joint, (T, scope, K); its prior where there is nothing."""
    total = jnp.sum(joint, -1, keepdims=True)
    return jnp.where(total > 0, joint / jnp.where(total > 0, total, 1.0), prior_of(simulator, name).array)


def prior_of(simulator: Simulator, name: str) -> Table:
    """A finite decision's prior over the time, its scope and its values."""
    structure, step = simulator.structure, simulator.parts["step"]
    parents = next(site.parents for site in step.form.sites if site.name == name)
    law = step.over(parents, lambda point: probs_of(point.law(name)))
    axes = (*structure.times(), *dict(structure.scopes)[name], name)
    sizes = {axis: len(support) for axis, support in (structure.supports() | structure.times()).items()}
    return Table((*parents, name), law).over(axes, sizes)


def frequencies(structure: Structure, history: History, weights: Array) -> dict[str, Array]:
    """For each decision whose table can be held its joint with its scope along the living's paths, (T, scope, K)."""
    supports = structure.supports()
    finite = {name: (*scope, name) for name, scope in structure.scopes if held(structure, (*scope, name))}
    if not finite:
        return {}

    def counted(t: Array, state: Values, sites: Values, alive: Array) -> dict[str, Array]:
        at = state | sites

        def table(axes: tuple[str, ...]) -> Array:
            place = tuple(positions_of(supports[axis], at[axis]) for axis in axes)
            return jnp.zeros([len(supports[axis]) for axis in axes]).at[place].add(weights * alive)

        return {name: table(axes) for name, axes in finite.items()}

    return trace_back(structure, history, counted)[0]
