"""Tasks that other packages hold, read as arrays. A package is imported when one of its tasks is asked for."""

from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from rlinf_ppl.tasks import conventions
from rlinf_ppl.types import ArrayLike

_ACTION_NAMES = {
    "gymnasium.envs.toy_text.frozen_lake": ("left", "down", "right", "up"),
    "gymnasium.envs.toy_text.cliffwalking": ("up", "right", "down", "left"),
    "gymnasium.envs.toy_text.taxi": ("south", "north", "east", "west", "pick up", "drop off"),
}
"""What the actions do, by the module of the environment: Gymnasium says so in its documentation only."""


class ImportedTask(NamedTuple):
    """The arguments of `MDP`, as an importer finds them.

    Attributes:
        transition: P(next state | state, action).
        reward: Expected reward.
        initial: Distribution of the first state, shape (S,).
        action_names: A name for each action, or None.
    """

    transition: Float[Array, "S A S"]
    reward: Float[Array, "S A"]
    initial: ArrayLike
    action_names: tuple[str, ...] | None


def read_gymnasium(environment: Any, /, **kwargs: Any) -> ImportedTask:
    """Read the transition table of a Gymnasium environment: its `P` and `initial_state_distrib`.

    Both are attributes of the unwrapped environment, so wrappers such as time limits leave no trace.

    Args:
        environment: An id, as in `gymnasium.make`, or an environment.
        **kwargs: Passed on to `gymnasium.make` with an id.

    Returns:
        The task's arrays; `rlinf_ppl.tasks.conventions.from_outcome_table` says how the table is read.

    Raises:
        ValueError: Gymnasium cannot make the environment, it has no table, or the table does not describe it.
    """
    import gymnasium

    if isinstance(environment, gymnasium.Env):
        if kwargs:
            raise TypeError(
                f"{sorted(kwargs)} are options of gymnasium.make, but an environment that is made was given."
            )
        return _read_environment(environment, str(environment))
    if not isinstance(environment, str):
        raise TypeError(
            f"give a Gymnasium id such as 'FrozenLake-v1', or an environment; got {type(environment).__name__}."
        )
    try:
        made = gymnasium.make(environment, **kwargs)
    except gymnasium.error.Error as error:
        raise ValueError(f"Gymnasium cannot make {environment!r}: {error}") from error
    with closing(made):
        return _read_environment(made, repr(environment))


def _read_environment(environment: Any, name: str) -> ImportedTask:
    """The table of an environment, which messages call `name`."""
    unwrapped = environment.unwrapped
    if getattr(unwrapped, "P", None) is None or getattr(unwrapped, "initial_state_distrib", None) is None:
        raise ValueError(
            f"{name} has no transition table (attributes `P` and `initial_state_distrib`), so it "
            "cannot be read as an MDP: FrozenLake, CliffWalking and Taxi have one."
        )
    if getattr(unwrapped, "fickle_passenger", False):
        raise ValueError(
            f"{name} with fickle_passenger=True changes destinations outside of its transition table, "
            "so the table is not the task: leave fickle_passenger out."
        )
    initial = np.asarray(unwrapped.initial_state_distrib)
    dynamics = conventions.from_outcome_table(unwrapped.P, initial)
    action_names = _ACTION_NAMES.get(type(unwrapped).__module__)
    return ImportedTask(*dynamics, initial, action_names)
