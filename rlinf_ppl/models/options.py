"""What the models of options share: how an option is kept or chosen, and how their priors are checked."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpyro.distributions import Categorical

from rlinf_ppl.models.arguments import action_prior, whole_number
from rlinf_ppl.program import decide
from rlinf_ppl.tasks import checks
from rlinf_ppl.types import ArrayLike


class Priors(NamedTuple):
    """What a player would choose if optimality did not count; each with or without a leading time axis.

    Attributes:
        termination: of keeping the option or terminating it, on the last axis.
        option: of the master policy.
        action: of the actions.
    """

    termination: Float[Array, "..."]
    option: Float[Array, "..."]
    action: Float[Array, "..."]


def choose_option(name: str, terminated: Any, prior: Float[Array, " M"], kept: Any) -> Int[Array, ""]:
    """Decide on an option: from its prior where the last one was terminated, else it is the last one."""
    return decide(name, Categorical(probs=jnp.where(terminated == 1, prior, jax.nn.one_hot(kept, prior.shape[-1]))))


def count(name: str, value: Any) -> int:
    """A number of options as an int of at least 1."""
    return whole_number(name, value, "give the number of options, at least 1")


def termination_prior(
    name: str,
    prior: ArrayLike | None,
    horizon: int | None,
    conditions: Sequence[str],
    shape: tuple[int, ...],
    option: int,
) -> Float[Array, "..."]:
    """A prior over (keep, terminate); uniform where None.

    Args:
        name: the argument's name, for the messages.
        prior: shape `shape` or (horizon, *shape), or None.
        horizon: number of steps T, or None.
        conditions: what its axes but the last stand for, in the singular.
        shape: its shape without time.
        option: the axis of `shape` that is the option in use.

    Raises:
        ValueError: on another shape, rows that are no distributions, and where one of several options is absorbing:
            its prior never terminates it.
    """
    array = action_prior(name, prior, horizon, tuple(conditions), shape)
    if shape[option] == 1 or not checks.is_concrete(array):
        return array
    axis = option + array.ndim - len(shape)
    ends = np.asarray(array)[..., 1].max(axis=tuple(i for i in range(array.ndim - 1) if i != axis))
    for stuck in np.flatnonzero(ends == 0):
        place = ", ".join(str(stuck) if i == axis else ":" for i in range(array.ndim - 1))
        raise ValueError(
            f"{name}[{place}, 1] is 0 throughout: once option {stuck} is in use, no policy can ever terminate it, and "
            f"the other {shape[option] - 1} are out of reach. Give terminating it a prior probability above 0, however "
            "small, in some state; for an agent without a choice of options give 1 as their number."
        )
    return array
