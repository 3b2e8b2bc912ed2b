"""Behaviour that is drawn: trajectories of any program under any policy, for predictions."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PRNGKeyArray

from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.inference.particles.proposals import as_policy
from rlinf_ppl.inference.particles.simulator import Simulator, Values, noise_of, simulator_of
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.conditionals import ConditionalLaw


def simulate(program: ControlProgram, policy: Any, key: PRNGKeyArray | Array, n: int, steps: int) -> Values:
    """N trajectories of a program under a policy, or under its priors; see `simulated`."""
    return simulated_under(program, laws_of(program, policy), key, n, steps, {})


def simulated_under(
    program: ControlProgram,
    laws: dict[str, ConditionalLaw],
    key: PRNGKeyArray | Array,
    n: int,
    steps: int,
    begun: Values,
) -> Values:
    """N trajectories of a program whose decisions follow some laws; see `simulated`."""
    return simulated(replace(simulator_of(program), proposal=laws), key, n, steps, begun)


def laws_of(program: ControlProgram, policy: Any) -> dict[str, ConditionalLaw]:
    """What decisions follow in the place of their priors: nothing where there is no policy."""
    return {} if policy is None and program.learned is None else as_policy(program, policy, weighed=False)


@compiled
def simulated(simulator: Simulator, key: PRNGKeyArray | Array, n: int, steps: int, begun: Values) -> Values:
    """N trajectories: state variables (n, steps + 1, ...) and sites of the step (n, steps, ...) by name.

    Nobody dies: a discount says what is ahead of a decision, not how long somebody was watched.

    Args:
        simulator: the program, its decisions proposed from the policy.
        key: a random key.
        n: number of trajectories.
        steps: of each.
        begun: of state variables that do not begin as the program has it (n, ...) values, and (n,) whether they do not.
    """
    structure, alive = simulator.structure, jnp.asarray(True)
    start_key, key = jax.random.split(key)
    noise = noise_of(structure.initial, start_key, n, False)
    start = jax.vmap(lambda noise: simulator.start(noise).state, axis_size=n)(noise)
    for name, (value, there) in begun.items():
        own = start[name]
        start[name] = jnp.where(jnp.reshape(there, (n, *[1] * (own.ndim - 1))), jnp.asarray(value, own.dtype), own)

    def body(state: Values, t: Array) -> tuple[Values, tuple[Values, Values]]:
        noise = noise_of(structure.step, jax.random.fold_in(key, t), n, structure.discounted)
        move = jax.vmap(lambda state, noise: simulator.step(state, t, alive, noise))(state, noise)
        return move.state, (state, move.sites)

    last, (states, sites) = lax.scan(body, start, jnp.arange(steps))
    every = jax.tree.map(lambda x, end: jnp.concatenate([x, end[None]]), states, last)
    found: Any = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), every | sites)
    return found
