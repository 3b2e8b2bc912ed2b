"""Walkers that take the steps of a program under a guide, one step at a time and over again, and what they are paid."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rlinf_ppl.inference.particles.simulator import Simulator, Values, noise_of
from rlinf_ppl.program.conditionals import ConditionalLaw

LONGEST = 100_000

Guide = Mapping[str, ConditionalLaw]


class Walkers(NamedTuple):
    """Walkers of a program.

    Attributes:
        state: their state variables, (n, ...).
        time: how many steps each has taken since its start, (n,).
    """

    state: Values
    time: Array


def fresh(simulator: Simulator, key: Array, n: int) -> Walkers:
    """N walkers at their start."""
    noise = noise_of(simulator.structure.initial, key, n, False)
    return Walkers(jax.vmap(lambda noise: simulator.start(noise).state, axis_size=n)(noise), jnp.zeros(n, int))


def walked(simulator: Simulator, guide: Guide, walkers: Walkers, key: Array) -> tuple[Walkers, Values]:
    """The walkers after one step under the guide, those at an end started afresh; and what they met.

    That is the time, state variables and sites by name, and the next state variables by name with a prime.
    """
    structure, (n,) = simulator.structure, walkers.time.shape
    noise_key, start_key = jax.random.split(key)
    moving, alive = replace(simulator, proposal=dict(guide)), jnp.asarray(True)
    noise = noise_of(structure.step, noise_key, n, structure.discounted)
    move = jax.vmap(lambda state, t, noise: moving.step(state, t, alive, noise))(walkers.state, walkers.time, noise)
    met = {"t": walkers.time} | walkers.state | move.sites | {f"{name}'": x for name, x in move.state.items()}
    over = ~move.alive if structure.horizon is None else ~move.alive | (walkers.time + 1 >= structure.horizon)
    moved, first = Walkers(move.state, walkers.time + 1), fresh(simulator, start_key, n)
    either = jax.vmap(lambda over, new, old: jax.tree.map(lambda x, y: jnp.where(over, x, y), new, old))
    return either(over, first, moved), met


def paying(simulator: Simulator, guide: Guide, at: Values) -> Array:
    """What one step pays: its factors less what its decisions cost, in units of optimality."""
    point = simulator.at("step", at)
    total, _ = simulator.factors(point, jnp.asarray(True))
    for name in (site.name for site in point.part.form.decisions):
        prior, value = point.law(name), at[name]
        law = guide[name](at, at["t"], prior)
        total = total - (law.log_prob(value) - prior.log_prob(value)) / point.temperature(name)
    return total


def trajectory_elbo(simulator: Simulator, guide: Guide, key: Array, n: int) -> Float[Array, ""]:
    """The mean of what n trajectories under a guide pay; one without an end goes on until the discount ends it."""
    start_key, key = jax.random.split(key)
    structure, most = simulator.structure, simulator.structure.horizon or LONGEST
    moving, form = replace(simulator, proposal=dict(guide)), simulator.structure.step

    def going(carry: Any) -> Array:
        t, _, alive, _ = carry
        return (t < most) & jnp.any(alive)

    def body(carry: Any) -> Any:
        t, state, alive, total = carry
        noise = noise_of(form, jax.random.fold_in(key, t), n, structure.discounted)
        move = jax.vmap(lambda state, alive, noise: moving.step(state, t, alive, noise))(state, alive, noise)
        met = state | move.sites
        paid = jax.vmap(lambda at: paying(simulator, guide, at | {"t": t}))(met)
        return t + 1, move.state, move.alive, total + jnp.where(alive, paid, 0.0)

    start = fresh(simulator, start_key, n)
    first = start.time[0], start.state, jnp.ones(n, bool), jnp.zeros(n)
    _, state, alive, total = lax.while_loop(going, body, first)
    last, _ = jax.vmap(simulator.end)(state, alive)
    return jnp.mean(total + last)
