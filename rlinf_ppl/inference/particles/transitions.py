"""One transition of a process with finite states and decisions, drawn as the user wrote it; what a learner meets."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from rlinf_ppl.algebra import Conditional
from rlinf_ppl.inference.particles.simulator import Simulator, noise_of
from rlinf_ppl.program.evaluation import in_units
from rlinf_ppl.program.supports import Support, is_finite, positions_of, values_of


class Transition(NamedTuple):
    """One step of the process.

    Attributes:
        time: which one.
        at: the values of all variables, and t.
        met: the positions (1,) of the finite ones.
        state: the values of the next state.
        following: their positions (1,).
        wrong: whether a law that was drawn from is none, or the next state lies outside its values.
    """

    time: Array
    at: dict[str, Array]
    met: dict[str, Array]
    state: dict[str, Array]
    following: dict[str, Array]
    wrong: Array


def started(world: Simulator, key: Array) -> dict[str, Array]:
    """The values of a first state."""
    noise = jax.tree.map(lambda x: x[0], noise_of(world.structure.initial, key, 1, False))
    return world.start(noise).state


def sampled(
    world: Simulator, state: dict[str, Array], time: Array, laws: dict[str, Conditional], key: Array
) -> Transition:
    """One step of the process, its decisions drawn from laws over positions."""
    supports, form = world.structure.supports(), world.structure.step
    noise, at = noise_of(form, key, 1, False), state | {"t": time}
    point, positions, wrong = world.at("step", at), placed(supports, state), jnp.asarray(False)
    for site in form.latent:
        if site.kind == "decision":
            position = laws[site.name].draw(noise[site.name], positions, None, 1.0)
            at[site.name] = values_of(supports[site.name])[position[0]]
        else:
            law = point.law(site.name)
            at[site.name] = law.draw(noise[site.name][0])
            wrong |= law.is_wrong() | point.beyond("laws", site.name)
        point.set(site.name, at[site.name])
        positions |= placed(supports, {site.name: at[site.name]})
    following, outside = world.following(point)
    wrong = functools.reduce(jnp.logical_or, outside.values(), wrong)
    return Transition(time, at, positions, following, placed(supports, following), wrong)


def placed(supports: dict[str, Support], values: dict[str, Array]) -> dict[str, Array]:
    """The positions (1,) of those values that are some of finitely many."""
    return {name: positions_of(supports[name], x)[None] for name, x in values.items() if is_finite(supports[name])}


def earned_after(world: Simulator, at: dict[str, Array], unit: Array | None) -> Array:
    """What the factors behind the last decision of a step come to, in units of optimality; NaN where one is wrong."""
    sites = world.structure.step.sites
    last = max(i for i, site in enumerate(sites) if site.kind == "decision")
    point, total = world.at("step", at), jnp.zeros(())
    for site in sites[last + 1 :]:
        if site.is_factor:
            factor = in_units(site, point.factor(site.name), unit)
            total += jnp.where(point.beyond("factors", site.name), jnp.nan, factor)
    return total
