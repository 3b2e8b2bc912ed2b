"""POMDPs of other libraries, as arguments of `POMDP`: the arrays of pymdp, the tables of msdm.

| library | transition | observation | reward |
| --- | --- | --- | --- |
| pymdp | B (next state, state, action) | A (observation, state) | C (observation,), in nats |
| msdm | (state, action, next state) | (action, next state, observation) | (state, action, next state) |

Neither is imported: what is read has the right attributes, or raises.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlinf_ppl.tasks import checks, conventions


class PymdpArrays(NamedTuple):
    """The arrays of a pymdp agent with one modality and one hidden factor, to be put into lists of one.

    Attributes:
        A: p(observation | state).
        B: P(next state | state, action), the next state first.
        C: Preference over observations, in nats.
        D: Distribution of the first state.
    """

    A: Float[Array, "O S"]
    B: Float[Array, "S S A"]
    C: Float[Array, " O"]
    D: Float[Array, " S"]


def read_pymdp(A: Any, B: Any, C: Any, D: Any) -> dict[str, Any]:
    """Translate the arrays of a pymdp agent with one modality and one hidden factor.

    The preference C, a log-probability of each observation up to a constant, becomes the reward of that observation,
    r(s, a, s', o) = C[o], in nats: its expectation is what pymdp calls expected utility. pymdp before 1.0 subtracts
    the logarithm of sum_o exp C[o] from it, which is a constant. What pymdp adds to utility, an expected gain of
    information, is no reward of a state or observation and is left out.

    An agent of pymdp observes its first state before it acts. Here nothing is observed before the first action: D is
    the belief before the first observation, so update it by Bayes' rule for the state of an agent that has seen one.

    Args:
        A: p(observation | state), shape (O, S), or a list of this one array.
        B: P(next state | state, action), shape (next state, state, action), or a list of it.
        C: Preference, shape (O,), finite, or a list of it.
        D: Distribution of the first state, shape (S,), or a list of it.

    Returns:
        `transition`, `reward` (S, A, S, O), `observation` and `initial`.

    Raises:
        TypeError: An array does not hold real numbers.
        ValueError: There are more modalities or factors than one, or shapes do not match.
    """
    shows = checks.as_reals("A", _only("A", A, 2, "modalities"))
    transition = conventions.from_next_state_first(_only("B", B, 3, "factors"))
    states, actions = transition.shape[:2]
    checks.check_not_empty("A", shows.shape, ("observations", "states"))
    observations = shows.shape[0]
    checks.check_shape("A", shows.shape, [(observations, states)], "B", (states, states, actions))
    preference = checks.as_reals("C", _only("C", C, 1, "modalities"))
    checks.check_shape("C", preference.shape, [(observations,)], "A", shows.shape)
    checks.check_finite("C", preference, "give a finite preference, in nats.")
    initial = checks.as_reals("D", _only("D", D, 1, "factors"))
    checks.check_shape("D", initial.shape, [(states,)], "B", (states, states, actions))
    return {
        "transition": transition,
        "reward": jnp.broadcast_to(preference, (states, actions, states, observations)),
        "observation": jnp.broadcast_to(shows.T[:, None], (states, actions, observations)),
        "initial": initial,
    }


def to_pymdp(pomdp: Any) -> PymdpArrays:
    """Write a `POMDP` as the arrays of pymdp, where it has no more than they can hold.

    Args:
        pomdp: A task whose observations do not depend on the action, and whose rewards are those of observations.

    Returns:
        The arrays; each goes into a list of one.

    Raises:
        ValueError: Observations depend on the action, or rewards on more than the observation.
    """
    task = pomdp.dense()
    shows, reward = np.asarray(task.observation), np.asarray(task.reward)
    if (shows != shows[:, :1]).any():
        raise ValueError("observation depends on the action, which A of pymdp cannot hold: give states that tell it.")
    possible = (np.asarray(task.transition) > 0)[..., None] & (np.swapaxes(shows, 0, 1) > 0)
    paid = reward.reshape(*reward.shape, *[1] * (4 - reward.ndim))
    highest = np.where(possible, paid, -np.inf).max((0, 1, 2))
    lowest = np.where(possible, paid, np.inf).min((0, 1, 2))
    if (highest > lowest).any():
        seen = int((highest > lowest).argmax())
        raise ValueError(
            f"reward of observation {seen} goes from {lowest[seen]:g} to {highest[seen]:g}: C of pymdp has one number "
            "for each observation."
        )
    preference = jnp.asarray(np.where(np.isfinite(highest), highest, 0.0), float)
    return PymdpArrays(
        jnp.asarray(shows[:, 0].T), conventions.to_next_state_first(task.transition), preference, task.initial
    )


def read_msdm(pomdp: Any) -> dict[str, Any]:
    """Translate a `TabularPOMDP` of msdm: its matrices, its discount, and its lists as names where these differ.

    A state that msdm marks as absorbing becomes absorbing with reward 0, in place, whatever its matrices say: msdm's
    planners do not leave it.

    Args:
        pomdp: Has `transition_matrix` (S, A, S), `reward_matrix` (S, A, S), `observation_matrix` (A, S, O), whose
            state is the next one, `initial_state_vec` (S,), `absorbing_state_vec` (S,), `action_matrix` (S, A),
            `discount_rate`, `state_list`, `action_list` and `observation_list`.

    Returns:
        All arguments of `POMDP`.

    Raises:
        TypeError: It lacks one of these.
        ValueError: A state that is not absorbing lacks an action.
    """
    attributes = ("transition_matrix", "reward_matrix", "observation_matrix", "initial_state_vec")
    lists = ("state_list", "action_list", "observation_list")
    for name in (*attributes, "absorbing_state_vec", "action_matrix", "discount_rate", *lists):
        if not hasattr(pomdp, name):
            raise TypeError(f"pomdp is {type(pomdp).__name__} without {name}: give a TabularPOMDP of msdm.")
    transition, reward, observation, initial = (np.array(getattr(pomdp, name), float) for name in attributes)
    ends, possible = np.asarray(pomdp.absorbing_state_vec, bool), np.asarray(pomdp.action_matrix, bool)
    if not possible[~ends].all():
        state, action = np.argwhere(~possible & ~ends[:, None])[0]
        raise ValueError(
            f"state {pomdp.state_list[state]!r} lacks the action {pomdp.action_list[action]!r}, and a POMDP has the "
            "same actions everywhere: give it an outcome, such as to stay."
        )
    transition[ends] = np.eye(len(transition))[ends, None]
    reward[ends] = 0
    return {
        "transition": transition,
        "reward": reward,
        "observation": np.swapaxes(observation, 0, 1),
        "initial": initial,
        "discount": float(pomdp.discount_rate),
        "state_names": _as_names(pomdp.state_list),
        "action_names": _as_names(pomdp.action_list),
        "observation_names": _as_names(pomdp.observation_list),
    }


def _only(name: str, given: Any, axes: int, counted: str) -> Any:
    """The one array of a list, or the array itself."""
    listed = isinstance(given, list | tuple) or (isinstance(given, np.ndarray) and given.dtype == object)
    if not listed or (np.ndim(given[0]) if len(given) else axes) < axes:
        return given
    if len(given) != 1:
        raise ValueError(f"{name} lists {len(given)} {counted}: only agents with one can be read; join them first.")
    return given[0]


def _as_names(entries: Sequence[Any]) -> tuple[str, ...] | None:
    """Entries as strings, where these differ."""
    names = tuple(map(str, entries))
    return names if len(set(names)) == len(names) else None
