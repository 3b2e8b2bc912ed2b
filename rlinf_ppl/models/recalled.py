"""Guides of an agent that acts on values which it recalls with noise; see `resource_allocation`."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array
from numpyro.distributions import Categorical, Distribution, Normal, constraints

from rlinf_ppl.algebra.random_utility import choice, mean_entropy
from rlinf_ppl.models.noisy_values import remembered, remembered_until_the_end
from rlinf_ppl.program import parameter
from rlinf_ppl.tasks import MDP


class Memory(eqx.Module):
    """What an agent with noisy memories is given.

    Attributes:
        base_std: of a memory that costs nothing, (S, A).
        beta: inverse temperature of the softmax of memories.
        kl_weight: price of a nat of precision at each step.
        entropy_weight: worth of a nat of the choice's entropy at each step.
        value_discount: of the values that are remembered.
    """

    base_std: Array
    beta: Array
    kl_weight: Array
    entropy_weight: Array
    value_discount: Array


class Recalled(eqx.Module):
    """Values that are recalled with noise, and how they are chosen by: the tables of all that follows.

    Attributes:
        mean, std: (S, A), or (T, S, A).
        beta: inverse temperature.
        policy: the probability of each action where the noise is averaged out.
        entropy: the mean entropy of a choice given the noise, (S,) or (T, S).
    """

    mean: Array
    std: Array
    beta: Array
    policy: Array
    entropy: Array

    def noise(self, *place: Any) -> Distribution:
        """The law of what is added to the values of a place."""
        std = looked_up(self.std, place)
        return Normal(0.0, std).to_event(std.ndim)

    def softmax(self, noise: Array, *place: Any) -> Distribution:
        """The choice by noisy values of a place."""
        return Categorical(logits=self.beta * (looked_up(self.mean, place) + noise))

    def average(self, *place: Any) -> tuple[Distribution, Array]:
        """The choice at a place without the noise, and its mean entropy given it."""
        return Categorical(probs=looked_up(self.policy, place)), looked_up(self.entropy, place)


def looked_up(table: Array, place: Any) -> Array:
    """A row of a table, NaN where there is none: a guide of another program must not pass for one of this."""
    return table.at[place].get(mode="fill", fill_value=jnp.nan) if place else table


def check_sizes(mdp: MDP, std: Array) -> None:
    """Raise on memories of another task.

    Raises:
        ValueError: so they are.
    """
    shape = mdp.num_states, mdp.num_actions
    if std.shape[-2:] != shape:
        raise ValueError(f"the guide's std has shape {std.shape}, and the task {shape} states and actions.")


class AtEachAccess(eqx.Module):
    """A guide where the memory that is used is drawn."""

    tables: Recalled

    def memory(self, s: Any) -> Distribution:
        """The noise of a state's values."""
        return self.tables.noise(s)

    def a(self, s: Any, memory: Any) -> Distribution:
        """The action given the noise."""
        return self.tables.softmax(memory, s)

    def a_without_memory(self, s: Any) -> tuple[Distribution, Array]:
        """The action without it."""
        return self.tables.average(s)


class AtEachAccessInTime(eqx.Module):
    """The same with tables for each time."""

    tables: Recalled

    def memory(self, s: Any, t: Any) -> Distribution:
        """The noise of a state's values."""
        return self.tables.noise(t, s)

    def a(self, s: Any, memory: Any, t: Any) -> Distribution:
        """The action given the noise."""
        return self.tables.softmax(memory, t, s)

    def a_without_memory(self, s: Any, t: Any) -> tuple[Distribution, Array]:
        """The action without it."""
        return self.tables.average(t, s)


class Everywhere(eqx.Module):
    """A guide where all memories are drawn."""

    tables: Recalled

    def memory(self) -> Distribution:
        """The noise of all values."""
        return self.tables.noise()

    def a(self, s: Any, memory: Any) -> Distribution:
        """The action given the noise."""
        return self.tables.softmax(memory[s], s)

    def a_without_memory(self, s: Any) -> tuple[Distribution, Array]:
        """The action without it."""
        return self.tables.average(s)


class EverywhereInTime(eqx.Module):
    """The same with tables for each time."""

    tables: Recalled

    def memory(self, t: Any) -> Distribution:
        """The noise of all values."""
        return self.tables.noise(t)

    def a(self, s: Any, memory: Any, t: Any) -> Distribution:
        """The action given the noise."""
        return self.tables.softmax(memory[s], t, s)

    def a_without_memory(self, s: Any, t: Any) -> tuple[Distribution, Array]:
        """The action without it."""
        return self.tables.average(t, s)


def recalled(mean: Array, std: Array, memory: Memory, policy: Array, everywhere: bool) -> eqx.Module:
    """The guide of some values and their noise."""
    std = jnp.broadcast_to(std, mean.shape)
    none = jnp.isinf(1 / memory.entropy_weight)
    entropy = lax.cond(
        none, lambda: jnp.zeros(mean.shape[:-1]), lambda: mean_entropy(memory.beta * mean, memory.beta * std)
    )
    tables = Recalled(mean, std, memory.beta, policy, entropy)
    if mean.ndim == 3:
        return EverywhereInTime(tables) if everywhere else AtEachAccessInTime(tables)
    return Everywhere(tables) if everywhere else AtEachAccess(tables)


class Tied(eqx.Module):
    """A guide whose values are those of its own policy: std is learned."""

    everywhere: bool = eqx.field(static=True)
    std: Array = parameter(constraints.positive)

    def prepare(self, mdp: MDP, memory: Memory) -> eqx.Module:
        """Its values at these memories."""
        check_sizes(mdp, self.std)
        solve = remembered if self.std.ndim == 2 else remembered_until_the_end
        found = solve(mdp, self.std, memory.beta, memory.value_discount)
        return recalled(found.value, self.std, memory, found.policy, self.everywhere)


class Free(eqx.Module):
    """A guide whose values are learned beside std."""

    everywhere: bool = eqx.field(static=True)
    mean: Array
    std: Array = parameter(constraints.positive)

    def prepare(self, mdp: MDP, memory: Memory) -> eqx.Module:
        """Its tables."""
        check_sizes(mdp, self.std)
        policy = choice(memory.beta * self.mean, memory.beta * self.std)
        return recalled(self.mean, self.std, memory, policy, self.everywhere)
