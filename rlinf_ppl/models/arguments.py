"""The arguments that models share: action priors and finite numbers, checked where the user stands."""

import operator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlinf_ppl.models.dynamics import varying, varying_task
from rlinf_ppl.tasks import MDP, StochasticGame, checks
from rlinf_ppl.types import ArrayLike


def check_task(name: str, task: Any, kind: type) -> None:
    """Raise on something else than a task of the kind that a model is made of."""
    if not isinstance(task, kind):
        raise TypeError(f"{name} must be a task of rlinf_ppl.tasks, {kind.__name__}; got {type(task).__name__}.")


def action_prior(
    name: str, prior: ArrayLike | None, horizon: int | None, conditions: tuple[str, ...], shape: tuple[int, ...]
) -> Float[Array, "..."]:
    """A prior over the last axis of `shape`, with or without a leading time axis; uniform where None.

    Args:
        name: the argument's name, for the messages.
        prior: shape `shape` or (horizon, *shape), or None.
        horizon: number of steps T; None: without end, and a prior has no time axis.
        conditions: what the leading axes of `shape` stand for, in the singular.
        shape: the shape without time.

    Raises:
        ValueError: on another shape, or rows that are no distributions.
    """
    if prior is None:
        return jnp.full(shape, 1.0 / shape[-1])
    array = checks.as_reals(name, prior)
    shapes = [shape] if horizon is None else [shape, (horizon, *shape)]
    checks.check_shape(name, array.shape, shapes, "the task's policy", shape)
    timed = ("time",) if array.ndim > len(shape) else ()
    return checks.as_distributions(name, array, (*timed, *conditions))


def check_reward_times(task: MDP | StochasticGame, horizon: int | None) -> None:
    """Raise where a task's reward varies over other times than the horizon's."""
    timed = task.reward.ndim == (3 if isinstance(task, MDP) else 4)
    if timed and task.reward.shape[0] != horizon:
        raise ValueError(f"the task's reward has {task.reward.shape[0]} time steps, but horizon is {horizon}.")


class Leading(NamedTuple):
    """A game and the priors of both players where one sees what the other does, checked.

    Attributes:
        game: the game without names, its reward over time where it has that axis.
        prior: the agent's prior, the same.
        opponent_prior: the opponent's.
    """

    game: StochasticGame
    prior: Any
    opponent_prior: Any


def agent_leads(
    game: StochasticGame, horizon: int | None, prior: ArrayLike | None, opponent_prior: ArrayLike | None
) -> Leading:
    """The game with p(a | s), shape (S, A), and p(b | s, a), shape (S, A, B), or with a leading time axis.

    Raises:
        TypeError: on something else than a StochasticGame.
        ValueError: on shapes that do not fit, or prior rows that are no distributions.
    """
    check_game(game, horizon)
    states, actions, others = game.num_states, game.num_actions, game.num_opponent_actions
    first = action_prior("prior", prior, horizon, ("state",), (states, actions))
    second = action_prior("opponent_prior", opponent_prior, horizon, ("state", "action"), (states, actions, others))
    return Leading(varying_task(game), varying(first, 2), varying(second, 3))


def opponent_leads(
    game: StochasticGame, horizon: int | None, prior: ArrayLike | None, opponent_prior: ArrayLike | None
) -> Leading:
    """The game with p(a | s, b), shape (S, B, A), and p(b | s), shape (S, B), or with a leading time axis.

    Raises:
        TypeError: on something else than a StochasticGame.
        ValueError: on shapes that do not fit, or prior rows that are no distributions.
    """
    check_game(game, horizon)
    states, actions, others = game.num_states, game.num_actions, game.num_opponent_actions
    second = action_prior("prior", prior, horizon, ("state", "opponent's action"), (states, others, actions))
    first = action_prior("opponent_prior", opponent_prior, horizon, ("state",), (states, others))
    return Leading(varying_task(game), varying(second, 3), varying(first, 2))


def check_game(game: Any, horizon: int | None) -> None:
    """Raise on something else than a StochasticGame, or one whose reward varies over other times."""
    check_task("game", game, StochasticGame)
    check_reward_times(game, horizon)


def finite_number(name: str, value: ArrayLike) -> Float[Array, ""]:
    """A finite number as a float scalar.

    Raises:
        ValueError: it is an array, NaN or infinite.
    """
    array = number(name, value)
    checks.check_finite(name, array)
    return array


def number_between(name: str, value: ArrayLike, least: float, most: float = jnp.inf) -> Float[Array, ""]:
    """A finite number from the least to the most that it may be, as a float scalar.

    Raises:
        ValueError: it is an array, NaN or infinite, or lies outside.
    """
    array = finite_number(name, value)
    check_between(name, array, least, most)
    return array


def check_between(name: str, array: Array, least: float, most: float) -> None:
    """Raise where known numbers lie outside of what they may be, or are none.

    Raises:
        ValueError: one does.
    """
    if not checks.is_concrete(array):
        return
    checks.check_finite(name, array)
    known = np.asarray(array)
    outside = known[(known < least) | (known > most)]
    if outside.size:
        limits = f"at least {least:g}" if most == jnp.inf else f"from {least:g} to {most:g}"
        raise ValueError(f"{name} holds {outside[0]:g}: it must be {limits}.")


def inverse_temperature(name: str, value: ArrayLike) -> Float[Array, ""]:
    """A number as a float scalar; infinite, it stands for the hard maximum, or minimum.

    Raises:
        ValueError: it is an array or NaN.
    """
    array = number(name, value)
    if checks.is_concrete(array) and jnp.isnan(array):
        raise ValueError(f"{name} is nan: give a number, or jnp.inf for the hard maximum.")
    return array


def whole_number(name: str, value: Any, least: str) -> int:
    """A whole number of at least 1.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is below 1; `least` says why 1 is the least.
    """
    try:
        whole = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name} must be a whole number; got {value!r}.") from error
    if isinstance(value, bool) or whole < 1:
        raise ValueError(f"{name} is {value!r}: {least}.")
    return whole


def number(name: str, value: ArrayLike) -> Float[Array, ""]:
    """One number as a float scalar.

    Raises:
        ValueError: it is an array.
    """
    array = checks.as_reals(name, value)
    if array.ndim != 0:
        raise ValueError(f"{name} has shape {array.shape}: give one number, and use jax.vmap for several.")
    return array
