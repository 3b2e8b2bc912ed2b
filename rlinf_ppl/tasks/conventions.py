"""The arrays of other libraries, translated to those of ours and back.

Ours are `transition[state, action, next state]` and `reward[state, action]`, as in QuantEcon's `DiscreteDP` and in
imitation. Three other ways are common:

| transition | libraries | here |
| --- | --- | --- |
| (action, state, next state) | pymdptoolbox, econirl | `from_action_first`, `to_action_first` |
| (next state, state, action) | pymdp | `from_next_state_first`, `to_next_state_first` |
| {state: {action: [(p, next state, reward, done)]}} | Gymnasium | `from_outcome_table` |

QuantEcon marks impossible actions by rewards of -inf. Here rewards are finite and the action's prior is 0:
`separate_impossible_actions` and `mark_impossible_actions` translate.

The functions check shapes; whether the results are distributions is checked by the task made of them.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlinf_ppl.tasks import checks
from rlinf_ppl.types import ArrayLike, RealNumber

OutcomeTable = Mapping[int, Mapping[int, Sequence[tuple[RealNumber, RealNumber, RealNumber, bool | np.bool_]]]]
"""Gymnasium's `P`: for each state and action, the possible outcomes (probability, next state, reward, done)."""


class TransitionAndReward(NamedTuple):
    """What a task does with an action, in our order of axes.

    Attributes:
        transition: P(next state | state, action).
        reward: Expected reward.
    """

    transition: Float[Array, "S A S"]
    reward: Float[Array, "S A"]


class PossibleActions(NamedTuple):
    """Rewards without infinities, and the prior that excludes the impossible actions.

    Attributes:
        reward: Finite rewards: 0 where the action is impossible.
        prior: p(action | state): uniform over the possible actions, 0 on the others.
    """

    reward: Float[Array, "S A"] | Float[Array, "T S A"]
    prior: Float[Array, "S A"] | Float[Array, "T S A"]


def from_action_first(transition: ArrayLike, reward: ArrayLike) -> TransitionAndReward:
    """Translate transitions (A, S, S) with their rewards: pymdptoolbox, econirl.

    Args:
        transition: P(next state | state, action), shape (A, S, S).
        reward: Of a state (S,), of a state and action (S, A), or of a whole transition (A, S, S), whose expectation
            over the next state is taken.

    Returns:
        The transition (S, A, S) and the reward (S, A).

    Raises:
        TypeError: An array does not hold real numbers.
        ValueError: The shapes do not match.
    """
    table = checks.as_reals("transition", transition)
    checks.check_not_empty("transition", table.shape, ("actions", "states", "next states"))
    num_actions, num_states, _ = table.shape
    checks.check_shape(
        "transition", table.shape, [(num_actions, num_states, num_states)], "its second axis", (num_states,)
    )
    rewards = checks.as_reals("reward", reward)
    shapes = [(num_states,), (num_states, num_actions), (num_actions, num_states, num_states)]
    checks.check_shape("reward", rewards.shape, shapes, "transition", table.shape)
    if rewards.ndim == 1:
        rewards = jnp.broadcast_to(rewards[:, None], (num_states, num_actions))
    elif rewards.ndim == 3:
        rewards = jnp.einsum("ast,ast->sa", table, rewards)
    return TransitionAndReward(jnp.moveaxis(table, 0, 1), rewards)


def to_action_first(transition: Float[Array, "S A S"]) -> Float[Array, "A S S"]:
    """Order a transition's axes (action, state, next state): pymdptoolbox, econirl, which take rewards (S, A)."""
    return jnp.moveaxis(transition, 1, 0)


def from_next_state_first(transition: ArrayLike) -> Float[Array, "S A S"]:
    """Translate a transition (S, S, A) whose first axis is the next state: pymdp's `B` of one hidden factor.

    Args:
        transition: P(next state | state, action), shape (next state, state, action).

    Returns:
        The transition (S, A, S).

    Raises:
        TypeError: The array does not hold real numbers.
        ValueError: It has not three axes, of which the first two are equally long.
    """
    table = checks.as_reals("transition", transition)
    checks.check_not_empty("transition", table.shape, ("next states", "states", "actions"))
    num_states, num_actions = table.shape[0], table.shape[2]
    checks.check_shape(
        "transition", table.shape, [(num_states, num_states, num_actions)], "its first axis", (num_states,)
    )
    return jnp.moveaxis(table, 0, 2)


def to_next_state_first(transition: Float[Array, "S A S"]) -> Float[Array, "S S A"]:
    """Order a transition's axes (next state, state, action), as pymdp has them."""
    return jnp.moveaxis(transition, 2, 0)


def from_outcome_table(table: OutcomeTable, initial: ArrayLike) -> TransitionAndReward:
    """Translate the table {state: {action: [(probability, next state, reward, done)]}}: Gymnasium's `P`.

    Next states that are listed more than once are added up, and r(s, a) is the expectation of the listed rewards. A
    state that is entered with `done` becomes absorbing with reward 0, whatever the table goes on to say about it
    (the goal of Gymnasium's CliffWalking can be left again there).

    That is only right if no episode passes through the state. Episodes start from `initial`, and what they cannot
    reach does not count: in Taxi a passenger who waits at the destination does not occur, though the table has it.

    Args:
        table: For states 0 to S - 1 and actions 0 to A - 1, the possible outcomes.
        initial: Distribution of the first state, shape (S,).

    Returns:
        The transition (S, A, S) and the reward (S, A).

    Raises:
        TypeError: `initial` does not hold real numbers.
        ValueError: The table's states or actions are not numbered in this way, an outcome is not such a tuple or
            leads to no state, or episodes enter a state both with and without `done`.
    """
    num_states, num_actions = _table_sizes(table)
    first = checks.as_reals("initial", initial)
    checks.check_shape("initial", first.shape, [(num_states,)], "table", (num_states, num_actions))
    outcomes = _flatten(table, num_states)
    absorbing = _absorbing_states(outcomes, np.asarray(first) > 0)

    transition = np.zeros((num_states, num_actions, num_states))
    reward = np.zeros((num_states, num_actions))
    np.add.at(transition, (outcomes.state, outcomes.action, outcomes.next_state), outcomes.probability)
    np.add.at(reward, (outcomes.state, outcomes.action), outcomes.probability * outcomes.reward)
    transition[absorbing] = np.eye(num_states)[absorbing, None, :]
    reward[absorbing] = 0
    return TransitionAndReward(checks.as_reals("transition", transition), checks.as_reals("reward", reward))


class _Outcomes(NamedTuple):
    """The outcomes of a table that have a positive probability, one row for each."""

    state: np.ndarray
    action: np.ndarray
    probability: np.ndarray
    next_state: np.ndarray
    reward: np.ndarray
    done: np.ndarray


def _table_sizes(table: OutcomeTable) -> tuple[int, int]:
    """The numbers of states and actions of a table that numbers both from 0."""
    if sorted(table) != list(range(len(table))) or not table:
        raise ValueError(f"table has {len(table)} states: number them 0, 1, ... without gaps, at least one.")
    num_actions = len(table[0])
    for state, actions in table.items():
        if sorted(actions) != list(range(num_actions)) or not actions:
            raise ValueError(
                f"table[{state}] has the actions {sorted(actions)}, table[0] has {num_actions}: give every state the "
                "same actions, numbered 0, 1, ... without gaps, at least one."
            )
    return len(table), num_actions


def _flatten(table: OutcomeTable, num_states: int) -> _Outcomes:
    """Write a table as columns, leaving out what cannot happen."""
    rows = []
    for state, actions in table.items():
        for action, outcomes in actions.items():
            for outcome in outcomes:
                if len(outcome) != 4 or not 0 <= outcome[1] < num_states:
                    raise ValueError(
                        f"table[{state}][{action}] holds {outcome!r}: give (probability, next state, reward, done), "
                        f"the next state from 0 to {num_states - 1}."
                    )
                if outcome[0] != 0:
                    rows.append((state, action, *outcome))
    types = (int, int, float, int, float, bool)
    return _Outcomes(*(np.array([row[i] for row in rows], dtype) for i, dtype in enumerate(types)))


def _absorbing_states(outcomes: _Outcomes, starts: np.ndarray) -> np.ndarray:
    """The states where episodes end, as a mask; raises where an episode also passes through one.

    States that no episode enters without `done` may hold anything; they are absorbing if the table ends in them.
    """
    passed = starts.copy()
    while True:
        entered = outcomes.next_state[passed[outcomes.state] & ~outcomes.done]
        if passed[entered].all():
            break
        passed[entered] = True
    ends = np.zeros_like(passed)
    ends[outcomes.next_state[passed[outcomes.state] & outcomes.done]] = True

    leaves = np.zeros_like(passed)
    leaves[outcomes.state[(outcomes.next_state != outcomes.state) | (outcomes.reward != 0)]] = True
    conflicts = np.flatnonzero(ends & passed & leaves)
    if conflicts.size:
        raise ValueError(
            f"state {conflicts[0]} is entered both with and without done, so it cannot become absorbing in place "
            f"(states of this kind: {conflicts.size}): give the table a state of its own for the end of the episode."
        )
    mentioned = np.zeros_like(passed)
    mentioned[outcomes.next_state[outcomes.done]] = True
    return mentioned & ~(passed & leaves)


def separate_impossible_actions(reward: ArrayLike) -> PossibleActions:
    """Turn rewards that are -inf, QuantEcon's mark of impossible actions, into finite rewards and a prior.

    An action with prior 0 is never taken, so its finite reward has no effect. Its transition must still be a
    distribution; any will do.

    Args:
        reward: Shape (S, A) or (T, S, A), -inf where an action is impossible.

    Returns:
        The reward with 0 in place of -inf, and the action prior of the same shape, uniform over the possible actions.

    Raises:
        TypeError: The array does not hold real numbers.
        ValueError: It has not two or three axes, or a state has no possible action.
    """
    rewards = checks.as_reals("reward", reward)
    axes = ("times", "states", "actions") if rewards.ndim == 3 else ("states", "actions")
    checks.check_not_empty("reward", rewards.shape, axes)
    possible = rewards != -jnp.inf
    count = possible.sum(axis=-1, keepdims=True)
    if checks.is_concrete(count) and not np.asarray(count).all():
        index = ", ".join(str(int(i)) for i in np.argwhere(np.asarray(count)[..., 0] == 0)[0])
        raise ValueError(f"reward[{index}] is -inf under every action: leave each state at least one possible action.")
    return PossibleActions(jnp.where(possible, rewards, 0), possible / count)


def mark_impossible_actions(reward: Float[Array, "*T S A"], prior: Float[Array, "*T S A"]) -> Float[Array, "*T S A"]:
    """Give the reward -inf to the actions that the prior excludes, as QuantEcon's `DiscreteDP` expects."""
    return jnp.where(prior > 0, reward, -jnp.inf)
