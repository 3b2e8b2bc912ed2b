"""Episodes that are played under a policy: what they earn, and how likely they are beside the posterior."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.inference.particles.faults import first_bad
from rlinf_ppl.inference.particles.filtering import particle_filter
from rlinf_ppl.inference.particles.simulator import Simulator, noise_of


@compiled
def returns(simulator: Simulator, key: Array, n: int) -> tuple[Float[Array, " N"], dict[str, Array]]:
    """The returns of n episodes in units of optimality, each step weighted by the discount; and faults."""
    structure, living = simulator.structure, jnp.ones(n, bool)
    start_key, key = jax.random.split(key)
    start = jax.vmap(simulator.start, axis_size=n)(noise_of(structure.initial, start_key, n, False))

    def step(carry: Any, now: tuple[Array, Array]) -> tuple[Any, dict[str, Array]]:
        state, total, weight = carry
        t, key = now
        noise = noise_of(structure.step, key, n, structure.discounted)
        move = jax.vmap(lambda state, alive, noise: simulator.step(state, t, alive, noise))(state, living, noise)
        faults = {name: first_bad(bad) for name, bad in move.faults.items()}
        return (move.state, total + weight * move.reward, weight * simulator.discount), faults

    times = jnp.arange(structure.horizon or 0)
    first = start.state, jnp.zeros(n), jnp.ones(())
    (state, total, weight), faults = lax.scan(step, first, (times, jax.random.split(key, len(times))))
    faults |= {f"init/{name}": first_bad(bad) for name, bad in start.faults.items()}
    if structure.final is not None:
        total = total + weight * jax.vmap(lambda state: simulator.reward(simulator.at("final", state)))(state)
    return total, faults


@compiled
def log_weights(simulator: Simulator, key: Array, n: int) -> tuple[Float[Array, " N"], dict[str, Array]]:
    """The log of p(O, tau) / q(tau) for n trajectories tau under a policy; and faults."""
    found = particle_filter(simulator, key, n, jnp.zeros(()))
    return found.log_weights, found.faults
