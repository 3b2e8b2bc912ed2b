"""The common-information form of a game of two who see different things (Nayyar, Mahajan & Teneketzis 2013).

Decentralized stochastic control with partial history sharing: a common information approach. A coordinator sees what is
public and hands each player a prescription, a map from what it alone sees to its action; as all know the coordinator's
plan, all could be it. Its task is a POMDP,

    hidden state    h = (s, o, p, and the public a, b, r that led there)
    action          (g, g'),  a = g(o),  b = g'(p):  A**O B**P pairs
    transition      P(s' | s, a, b) U(o' | s', a) U'(p' | s', b) p(r | s, a, b)
    observation     (a, b, y', r),  y' ~ Y(. | s', a, b)

and its belief is the public belief. What was public is carried, as a POMDP observes its next state and action alone;
the public observation itself acts on nothing that follows. A prior over pairs of prescriptions chooses an action for
every private observation, so its KL counts all of them, whichever is met: soft values of the coordinator are not those
of the players, hard ones are.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rlinf_ppl.tasks import checks
from rlinf_ppl.tasks.pomdp import POMDP

MOST_ENTRIES = 20_000_000
"""The largest table that a coordinator's task may hold."""


class Coordination(NamedTuple):
    """A coordinator's task, and what its states, actions and observations stand for.

    Attributes:
        task: The POMDP.
        states: Of each state, in columns, the game's state, the agent's and the opponent's observation, and what led
            there: action, opponent's action, position of the reward; these three are -1 at the start.
        prescriptions: Of each action, what the agent does on each of its observations: shape (A, O) of the task's A.
        opponent_prescriptions: The same of the opponent.
        observations: Of each observation, in columns, action, opponent's action, public observation, position of the
            reward: in `reward_values`, or in `reward_levels`.
        reward_levels: What may be paid; where rewards are not seen, NaN alone.
    """

    task: POMDP
    states: Int[np.ndarray, "S 6"]
    prescriptions: Int[np.ndarray, "A O"]
    opponent_prescriptions: Int[np.ndarray, "A P"]
    observations: Int[np.ndarray, "O 4"]
    reward_levels: Float[np.ndarray, " R"]


def coordinate(game: Any, first_public: int | None, reward_seen: bool) -> Coordination:
    """The coordinator's task of a `PartiallyObservedGame`; arguments and errors as those of its `coordinator`."""
    if not all(map(checks.is_concrete, (game.transition, game.reward, game.initial, game.observation))):
        raise ValueError("the coordinator's states are those that can occur: make it outside of jit, vmap and grad.")
    _check_size(game, game.num_states, 1)
    initial = _start(game, first_public)
    levels, paid = _reward_levels(game, reward_seen)
    P, U, V, Y = map(
        np.asarray, (game.transition, game.observation, game.opponent_observation, game.public_observation)
    )
    moves = np.einsum("sabn,nao,nbp,sabr->sabnopr", P, U, V, paid)
    # Private observations only choose the action, so whatever the game's reachable states may lead to can occur.
    later = np.argwhere(moves[_reachable(P, np.asarray(game.initial))].any(0))
    first = np.argwhere(initial)
    states = np.concatenate([np.pad(first, ((0, 0), (0, 3)), constant_values=-1), later[:, [2, 3, 4, 0, 1, 5]]])
    seen = Y[later[:, 2], later[:, 0], later[:, 1]]
    shown = np.zeros((len(states), *moves.shape[1:3], Y.shape[-1], paid.shape[-1]))
    shown[np.arange(len(first), len(states)), later[:, 0], later[:, 1], :, later[:, 5]] = seen
    observations = np.argwhere(shown.any(0))
    shown = shown[:, *observations.T]
    shown[: len(first), 0] = 1.0  # nothing leads to the start
    _check_size(game, len(states), len(observations))
    own, others = _prescriptions(game)
    successors, probabilities = _lists(moves, later, len(first))
    s, o, p = states[:, :3].T[:, :, None]
    # Of each state: what each pair of prescriptions does there.
    at = s, own[:, o[:, 0]].T, others[:, p[:, 0]].T
    task = POMDP.sparse(
        successors[at],
        probabilities[at],
        np.asarray(game.expected_reward)[at],
        np.broadcast_to(shown[:, None], (len(states), len(own), len(observations))),
        initial[*first.T].tolist() + [0.0] * len(later),
        game.discount,
    )
    return Coordination(task, states, own, others, observations, levels)


def _start(game: Any, first_public: int | None) -> Float[np.ndarray, "S O P"]:
    """p(first state, private observations | the first public observation)."""
    first, own, others, public = map(
        np.asarray,
        (game.initial, game.initial_observation, game.initial_opponent_observation, game.initial_public_observation),
    )
    possible = np.flatnonzero(first @ public > 0).tolist()
    if first_public is None and len(possible) > 1:
        raise ValueError(f"the game may begin with the public observations {possible}: give one as first_public.")
    if first_public is not None and (first_public not in possible or not isinstance(first_public, int | np.integer)):
        raise ValueError(f"first_public is {first_public!r}, but the game begins with one of {possible}.")
    chosen = possible[0] if first_public is None else first_public
    joint = np.einsum("s,so,sp->sop", first * public[:, chosen], own, others)
    return joint / joint.sum()


def _reward_levels(game: Any, seen: bool) -> tuple[Float[np.ndarray, " R"], Float[np.ndarray, "S A B R"]]:
    """What may be paid, and how probable each of it is; one that tells nothing where it is not seen."""
    reward = np.asarray(game.reward)
    if not seen:
        return np.full(1, np.nan), np.ones((*reward.shape[:3], 1))
    if game.reward_values is not None:
        return np.asarray(game.reward_values), reward
    levels, which = np.unique(reward, return_inverse=True)
    return levels, np.eye(len(levels))[which.reshape(reward.shape)]


def _reachable(transition: Float[np.ndarray, "S A B S"], initial: Float[np.ndarray, " S"]) -> np.ndarray:
    """The states that some actions lead to."""
    reached, more = initial > 0, True
    while more:
        following = reached | transition[reached].any((0, 1, 2))
        more, reached = bool((following != reached).any()), following
    return reached


def _check_size(game: Any, num_states: int, num_observations: int) -> None:
    """Raise where a table of this many states and observations, for all pairs of prescriptions, is too large."""
    pairs = _num_prescriptions(game) * _num_opponent_prescriptions(game)
    entries = pairs * num_states * num_observations
    if entries > MOST_ENTRIES:
        raise ValueError(
            f"the coordinator has {pairs:,} pairs of prescriptions ({game.num_actions} actions for each of "
            f"{game.num_observations} observations, {game.num_opponent_actions} for each of "
            f"{game.num_opponent_observations}) and at least {num_states:,} states: a table of {entries:,} numbers, "
            f"which may have {MOST_ENTRIES:,}. Give the players fewer private observations or actions."
        )


def _num_prescriptions(game: Any) -> int:
    return game.num_actions**game.num_observations


def _num_opponent_prescriptions(game: Any) -> int:
    return game.num_opponent_actions**game.num_opponent_observations


def _prescriptions(game: Any) -> tuple[Int[np.ndarray, "A O"], Int[np.ndarray, "A P"]]:
    """What each pair of prescriptions does on every private observation: of the agent, and of the opponent."""
    others = _num_opponent_prescriptions(game)
    pair = np.arange(_num_prescriptions(game) * others)
    return (
        _maps(game.num_actions, game.num_observations)[pair // others],
        _maps(game.num_opponent_actions, game.num_opponent_observations)[pair % others],
    )


def _maps(actions: int, observations: int) -> np.ndarray:
    """All maps from observations to actions, the action of the last observation running fastest."""
    powers = actions ** np.arange(observations)[::-1] if actions > 1 else np.ones(observations, int)
    return np.arange(actions**observations)[:, None] // powers % actions


def _lists(moves: np.ndarray, later: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Of a state of the game and two actions: which states of the task may follow, and how probable each is."""
    position = np.zeros(moves.shape[1:], int)
    position[*later.T] = first + np.arange(len(later))
    flat = moves.reshape(*moves.shape[:3], -1)
    most = int((flat > 0).sum(-1).max())
    order = np.argsort(flat == 0, axis=-1, kind="stable")[..., :most]
    position = np.broadcast_to(position.reshape(*moves.shape[1:3], -1), flat.shape)
    return np.take_along_axis(position, order, -1), np.take_along_axis(flat, order, -1)
