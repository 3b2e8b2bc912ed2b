"""Cassandra's `.pomdp` files, written: every entry that is not 0, with all its digits.

`pomdp_files` has the format. What is written is read as equal arrays by a reader of the same
precision, of rewards as small an array as holds them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlinf_ppl.tasks import checks
from rlinf_ppl.tasks.pomdp_tokens import NAME, RESERVED


def lay_out(pomdp: Any) -> str:
    """The text of a file that holds a `POMDP`.

    Raises:
        ValueError: A name is none in such files, or the task is traced.
    """
    if not checks.is_concrete(pomdp.initial) or pomdp.initial.ndim != 1:
        raise ValueError("to_file writes the numbers of one task: call it outside of jit, grad and vmap.")
    states = _names("state_names", pomdp.state_names, pomdp.num_states)
    actions = _names("action_names", pomdp.action_names, pomdp.num_actions)
    observations = _names("observation_names", pomdp.observation_names, pomdp.num_observations)
    lines = [
        f"discount: {_digits(np.asarray(pomdp.discount))[0]}",
        "values: reward",
        f"states: {_listed(pomdp.state_names, states)}",
        f"actions: {_listed(pomdp.action_names, actions)}",
        f"observations: {_listed(pomdp.observation_names, observations)}",
        f"start: {' '.join(_digits(np.asarray(pomdp.initial)))}",
    ]
    places, chances, rewards = _transitions(pomdp)
    lines += _statements("T", places, (states, actions, states), chances)
    shows = np.asarray(pomdp.observation)
    lines += _statements("O", np.stack(np.nonzero(shows), 1), (states, actions, observations), shows[shows != 0])
    lines += _rewards(pomdp, places, rewards, (states, actions, states, observations))
    return "\n".join(lines) + "\n"


def _names(argument: str, names: Sequence[str] | None, count: int) -> np.ndarray:
    """How each state, action or observation is written: its name, or its position where there are no names."""
    for name in names or ():
        if not NAME.fullmatch(name) or name in RESERVED:
            raise ValueError(
                f"{argument} has {name!r}, which is no name in a .pomdp file: there names begin with a letter, go on "
                "with letters, digits, '-' and '_', and are none of the format's words. Rename it, or write "
                "task.anonymous() by positions."
            )
    return np.array(names) if names else np.arange(count).astype(str)


def _listed(names: Sequence[str] | None, written: np.ndarray) -> str:
    return " ".join(names) if names else str(len(written))


def _digits(numbers: np.ndarray) -> list[str]:
    """Numbers with as many digits as their type has, and no more."""
    return [str(number) for number in numbers.ravel().astype(float if numbers.dtype == float else np.float32)]


def _transitions(pomdp: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places (n, 3) of state, action and next state, P there, and what a reward of next states is there."""
    reward = np.asarray(pomdp.reward)
    if pomdp.transition is not None:
        table = np.asarray(pomdp.transition)
        places = np.stack(np.nonzero(table), 1)
        return places, table[table != 0], reward
    probabilities = np.asarray(pomdp.probabilities)
    lists = np.asarray(pomdp.successors)
    lists = np.broadcast_to(lists if lists.ndim == 3 else lists[:, None], probabilities.shape)
    state, action, k = np.nonzero(probabilities)
    listed = np.stack([state, action, lists[state, action, k]], 1)
    chances = probabilities[state, action, k]
    places, inverse, counts = np.unique(listed, axis=0, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    total = np.zeros(len(places), chances.dtype)
    np.add.at(total, inverse, chances)
    if reward.ndim == 2:
        return places, total, reward
    # Of a successor listed more than once the mean by probability, as in `POMDP.dense`; of others, their own digits.
    paid = reward[state, action, k]
    share = np.where(counts[inverse] > 1, chances / total[inverse], 1).astype(paid.dtype)
    merged = np.zeros((len(places), *paid.shape[1:]), paid.dtype)
    np.add.at(merged, inverse, share.reshape(-1, *[1] * (paid.ndim - 1)) * paid)
    return places, total, merged


def _statements(kind: str, places: np.ndarray, names: Sequence[np.ndarray], numbers: np.ndarray) -> list[str]:
    """Lines of T or O, which begin with the action."""
    state, action, third = (axis[place] for axis, place in zip(names, places.T, strict=True))
    return [
        f"{kind}: {a} : {s} : {n} {digits}"
        for a, s, n, digits in zip(action, state, third, _digits(numbers), strict=True)
    ]


def _rewards(pomdp: Any, places: np.ndarray, reward: np.ndarray, names: Sequence[np.ndarray]) -> list[str]:
    """Lines of R, with a wildcard for what rewards do not depend on."""
    if pomdp.reward.ndim == 2 or pomdp.transition is not None:
        found, paid = np.stack(np.nonzero(reward), 1), reward[reward != 0]
    else:
        which = np.nonzero(reward)
        found = np.concatenate([places[which[0]], *(axis[:, None] for axis in which[1:])], 1)
        paid = reward[which]
    axes = [axis[place] for axis, place in zip(names, found.T, strict=False)]
    axes += [np.full(len(paid), "*")] * (4 - len(axes))
    state, action, following, seen = axes
    return [
        f"R: {a} : {s} : {n} : {o} {digits}"
        for a, s, n, o, digits in zip(action, state, following, seen, _digits(paid), strict=True)
    ]
