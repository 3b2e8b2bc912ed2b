"""Games of two players who move on one grid at the same time: meeting two goals together, and pursuit.

A map is drawn as text, one line a row of cells. The actions of both are up, right, down, left, stay. A move into a wall
or off the map stays in place, and so does any move with probability `slip`, independently of the other player's.
"""

import itertools
from typing import NamedTuple

import numpy as np

from rlinf_ppl.tasks.gallery.maps import DIRECTIONS, check_probability, check_rewards, neighbours, read_map
from rlinf_ppl.tasks.stochastic_game import StochasticGame
from rlinf_ppl.types import RealNumber

_ACTIONS = (*DIRECTIONS, "stay")
_WALLS = {"#": "wall", ".": "free"}
_TEAM = _WALLS | {"A": "start of the agent", "B": "start of the opponent", "G": "goal"}
_CHASE = _WALLS | {"P": "start of the pursuer", "E": "start of the evader"}

DOORWAY_MAP = """
    A.B
    #.#
    G.G
"""
"""The map of `coordination_grid`: one door, and two goals behind it."""

BLOCK_MAP = """
    P..
    .#.
    ..E
"""
"""The map of `pursuit`: a way round one block."""


class _Pairs(NamedTuple):
    """Two players on different cells: the pairs (agent's cell, opponent's cell), and where their moves would lead.

    Attributes:
        symbols: The symbol of each cell (C,).
        cells: The cell of the agent and of the opponent in each pair (2, P).
        reached: For each of the four ways in which moves slip or not, the cells of both if nothing else stops them
            (4, 2, P, 5, 5).
        chance: The probability of each way (4,).
        names: "row,column row,column" for each pair, the agent's cell first.
    """

    symbols: np.ndarray
    cells: np.ndarray
    reached: np.ndarray
    chance: np.ndarray
    names: list[str]


def coordination_grid(
    text: str = DOORWAY_MAP, slip: RealNumber = 0.1, step_reward: RealNumber = -0.1, goal_reward: RealNumber = 1.0
) -> StochasticGame:
    """Two players who have to stand on two goals at the same time, and are in each other's way.

    | symbol | cell |
    | --- | --- |
    | `#`, `.` | a wall, free |
    | `A`, `B` | where the agent and the opponent start; several of a kind are equally likely |
    | `G` | a goal; either player may take any |

    Two players are never on one cell and never swap cells: where their moves would do that, both stay. In the default
    map both start beside the way to the door, so that one has to let the other go first.

    The reward is paid in the step that begins with both on goals, and the next state is "end"; so an episode of n
    moves takes a horizon of n + 1.

    Args:
        text: The map.
        slip: Probability that a player's move comes to nothing.
        step_reward: Paid in each step before.
        goal_reward: Paid once.

    Returns:
        A game whose states are the pairs of different cells, named "row,column row,column" with the agent's cell
        first, and "end"; the default map has 43 states.

    Raises:
        ValueError: The map has an unknown symbol, rows of different lengths, no start for one of the players, or fewer
            than two goals; `slip` is no probability; a reward is not finite.
    """
    check_rewards(step_reward=step_reward, goal_reward=goal_reward)
    pairs = _read_pairs(text, _TEAM, "AB", slip)
    goals = pairs.symbols == "G"
    if goals.sum() < 2:
        raise ValueError(f"text has {goals.sum()} goals: mark at least two cells with 'G', one for each player.")
    over = goals[pairs.cells].all(0)
    agent, opponent = pairs.reached[:, 0], pairs.reached[:, 1]
    here, other = pairs.cells[:, :, None, None]
    stopped = (agent == opponent) | ((agent == other) & (opponent == here))
    following = np.where(stopped, _pair(here, other, len(pairs.symbols)), _pair(agent, opponent, len(pairs.symbols)))
    return _game(pairs, following, over, np.where(over, goal_reward, step_reward), "AB", "end")


def pursuit(text: str = BLOCK_MAP, slip: RealNumber = 0.2, step_reward: RealNumber = -1.0) -> StochasticGame:
    """A pursuer, the agent, and an evader, the opponent, whose inverse temperature should be negative.

    | symbol | cell |
    | --- | --- |
    | `#`, `.` | a wall, free |
    | `P`, `E` | where the pursuer and the evader start; several of a kind are equally likely |

    The evader is caught where both arrive on one cell or would swap cells; then nothing happens any more. Each step
    before costs the pursuer 1. In the default map the evader can run round a block for ever unless it slips.

    Args:
        text: The map.
        slip: Probability that a player's move comes to nothing.
        step_reward: Paid to the pursuer for each step that begins with the evader free.

    Returns:
        A game whose states are the pairs of different cells, named "row,column row,column" with the pursuer's cell
        first, and "caught"; the default map has 57 states.

    Raises:
        ValueError: The map has an unknown symbol, rows of different lengths, or no start for one of the players;
            `slip` is no probability; the reward is not finite.
    """
    check_rewards(step_reward=step_reward)
    pairs = _read_pairs(text, _CHASE, "PE", slip)
    agent, opponent = pairs.reached[:, 0], pairs.reached[:, 1]
    here, other = pairs.cells[:, :, None, None]
    caught = (agent == opponent) | ((agent == other) & (opponent == here))
    following = np.where(caught, pairs.cells.shape[1], _pair(agent, opponent, len(pairs.symbols)))
    free = np.full(pairs.cells.shape[1], step_reward, dtype=float)
    return _game(pairs, following, np.zeros_like(free, dtype=bool), free, "PE", "caught")


def _read_pairs(text: str, symbols: dict[str, str], starts: str, slip: RealNumber) -> _Pairs:
    """The pairs of different cells of a map and where both players' moves lead."""
    check_probability("slip", slip)
    drawn = read_map(text, symbols, starts)
    places = np.argwhere(drawn != "#")
    count = len(places)
    moves = np.concatenate([neighbours(drawn, places), np.arange(count)[:, None]], axis=1)
    cells = np.argwhere(~np.eye(count, dtype=bool)).T
    ways = list(itertools.product((False, True), repeat=2))
    shape = (cells.shape[1], len(_ACTIONS), len(_ACTIONS))
    reached = np.empty((len(ways), 2, *shape), dtype=int)
    for way, (one_slips, other_slips) in enumerate(ways):
        agent = cells[0][:, None] if one_slips else moves[cells[0]]
        opponent = cells[1][:, None] if other_slips else moves[cells[1]]
        reached[way] = np.broadcast_to(agent[:, :, None], shape), np.broadcast_to(opponent[:, None, :], shape)
    one_player = np.array([1 - slip, slip])
    chance = np.outer(one_player, one_player).ravel()
    where = [f"{row},{column}" for row, column in places.tolist()]
    names = [f"{where[one]} {where[other]}" for one, other in cells.T]
    return _Pairs(drawn[drawn != "#"], cells, reached, chance, names)


def _pair(one: np.ndarray, other: np.ndarray, count: int) -> np.ndarray:
    """The position of a pair of different cells among all such pairs of `count` cells, which are in order."""
    return one * (count - 1) + other - (other > one)


def _game(
    pairs: _Pairs, following: np.ndarray, over: np.ndarray, reward: np.ndarray, starts: str, end: str
) -> StochasticGame:
    """The game of the pairs and one last state, which the pairs in `over` lead to.

    Args:
        pairs: The pairs, P of them.
        following: The next state for each way that moves slip or not (4, P, 5, 5).
        over: Whether a pair leads to the end (P,).
        reward: Paid in each pair (P,).
        starts: The symbols of the two players' starts.
        end: The name of the last state.
    """
    last, actions = pairs.cells.shape[1], len(_ACTIONS)
    transition = np.zeros((last + 1, actions, actions, last + 1))
    following = np.where(over[:, None, None], last, following)
    given = np.ix_(np.arange(last), np.arange(actions), np.arange(actions))
    for states, probability in zip(following, pairs.chance, strict=True):
        np.add.at(transition, (*given, states), probability)
    transition[last, ..., last] = 1
    first = (pairs.symbols[pairs.cells] == np.array(list(starts))[:, None]).all(0)
    return StochasticGame(
        transition,
        np.broadcast_to(np.append(reward, 0.0)[:, None, None], (last + 1, actions, actions)),
        np.append(first, False) / first.sum(),
        state_names=[*pairs.names, end],
        action_names=_ACTIONS,
        opponent_action_names=_ACTIONS,
    )
