"""What a `POMDP` is made of, checked where the user stands."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from rlinf_ppl.tasks import checks
from rlinf_ppl.tasks.mdp import MDP
from rlinf_ppl.types import ArrayLike


def no_reward(table: ArrayLike) -> np.ndarray:
    """Rewards of 0 for the states and actions of a table; what is no table raises elsewhere."""
    shape = np.shape(table) if not hasattr(table, "shape") else table.shape
    return np.zeros(shape[:2] if len(shape) >= 2 else (1, 1))


def completed(
    hidden: MDP, reward: ArrayLike, observation: ArrayLike, discount: ArrayLike, observation_names: Any
) -> dict[str, Any]:
    """All fields of a task: those of the process underneath, and the others, checked against it."""
    table = hidden.transition if hidden.probabilities is None else hidden.probabilities
    source = "transition" if hidden.probabilities is None else "probabilities"
    assert table is not None
    states, actions, following = table.shape
    shows = checks.as_reals("observation", observation)
    checks.check_not_empty("observation", shows.shape, ("next states", "actions", "observations"))
    count = shows.shape[-1]
    if shows.shape != (states, actions, count):
        first = " Where the actions come first, give jnp.swapaxes(observation, 0, 1)."
        raise ValueError(
            f"observation has shape {shows.shape}, but {source} has shape {table.shape}: its axes are (next states, "
            f"actions, observations), so it must be {(states, actions, count)}."
            f"{first if shows.shape == (actions, states, count) else ''}"
        )
    rewards = checks.as_reals("reward", reward)
    shapes = [(states, actions), (states, actions, following), (states, actions, following, count)]
    checks.check_shape("reward", rewards.shape, shapes, source, table.shape)
    checks.check_finite("reward", rewards, "rewards must be finite; give prior 0 to impossible actions instead.")
    return vars(hidden) | {
        "reward": rewards,
        "observation": checks.as_distributions("observation", shows, ("next state", "action")),
        "discount": as_discount(discount),
        "observation_names": checks.check_names("observation_names", observation_names, count, "observations"),
    }


def spread_reward(
    reward: Float[Array, "S A"] | Float[Array, "S A K"] | Float[Array, "S A K O"],
    successors: Int32[Array, "S K"] | Int32[Array, "S A K"],
    probabilities: Float[Array, "S A K"],
    transition: Float[Array, "S A S"],
) -> Float[Array, "S A"] | Float[Array, "S A S"] | Float[Array, "S A S O"]:
    """Rewards of successors as rewards of next states: the mean by probability, 0 of what cannot follow."""
    if reward.ndim == 2:
        return reward
    states, actions = jnp.indices(reward.shape[:2], sparse=True)
    lists = successors if successors.ndim == 3 else successors[:, None]
    total = transition[states[..., None], actions[..., None], lists]
    shares = jnp.where(total > 0, probabilities / jnp.where(total > 0, total, 1), 0.0)
    shares = shares.reshape(*shares.shape, *[1] * (reward.ndim - 3))
    sums = jnp.zeros((*transition.shape, *reward.shape[3:]))
    return sums.at[states[..., None], actions[..., None], lists].add(shares * reward)


def as_discount(value: ArrayLike) -> Float[Array, ""]:
    """A discount, checked."""
    number = checks.as_reals("discount", value)
    if number.ndim:
        raise ValueError(f"discount has shape {number.shape}: give one number.")
    if checks.is_concrete(number) and not 0 <= number <= 1:
        raise ValueError(f"discount is {float(number):g}: it must be from 0 to 1.")
    return number


def position(argument: str, given: Any, count: int, names: tuple[str, ...] | None) -> Any:
    """The position of an action or observation that is given by position or name."""
    if isinstance(given, str):
        if names is None or given not in names:
            raise ValueError(f"{argument} is {given!r}, which is none of {list(names or ())}.")
        return names.index(given)
    if isinstance(given, jax.core.Tracer):
        return given
    number = np.asarray(given)
    if number.ndim or number.dtype.kind not in "iu" or not 0 <= number < count:
        raise ValueError(f"{argument} is {given!r}: give a position from 0 to {count - 1}, or a name.")
    return given


def listed(successors: Int32[Array, "..."] | None, table: Float[Array, "S A O"]) -> Float[Array, "#S A K O"]:
    """A table over next states and actions, at what may follow each state and action: successors, or all states."""
    if successors is None:
        return jnp.swapaxes(table, 0, 1)[None]
    lists = successors if successors.ndim == 3 else successors[:, None]
    return table[lists, jnp.arange(table.shape[1])[:, None]]
