"""A car that is too weak for a hill and swings up the opposite one first, on a table of cells.

With push u in {-1, 0, 1}, in the units of Gymnasium's MountainCar-v0,

    speed'    = clip(speed + 0.001 u - 0.0025 cos(3 position), -0.07, 0.07)
    position' = clip(position + speed', -1.2, 0.6),        speed' = 0 where that is -1.2 and speed' < 0

and an episode ends with position' >= 0.5 and speed' >= 0 (Moore's thesis "Efficient memory-based learning for robot
control", 1990; the numbers are Gymnasium's).
"""

import numpy as np

from rlinf_ppl.tasks.gallery.maps import check_count
from rlinf_ppl.tasks.mdp import MDP

_LOW, _HIGH, _GOAL, _TOP_SPEED = -1.2, 0.6, 0.5, 0.07
_ROWS, _COLUMNS = 19, 15
_INSIDE_GOAL = 18  # the row of cells that has no position below the goal
_POSITIONS = (np.arange(_ROWS) - 12) / 10
_SPEEDS = (np.arange(_COLUMNS) - 7) / 100


def mountain_car(points: int = 20) -> MDP:
    """The mountain car on the table of 19 positions by 15 speeds of Patel, Acerbi & Pouget (2020, figure 2).

    A cell is what rounds to the same row and column,

        row = round(10 (position + 1.2)),      column = round(100 (speed + 0.07)).

    This departs from the paper, whose table only looks up values: there the car moves deterministically through
    positions and speeds of its own, and the cells hide where in them it is. Here the cells are the task. One step
    changes the speed by at most 0.0035, a third of a cell, so most steps stay in one cell or leave it depending on
    where in it the car was; that is taken to be uniform over the cell in every step, anew:

        P(next cell | cell, push) = the part of the cell from which one step leads there,

    counted on a regular grid of points. The process is Markov, which the cells of the paper are not, and it diffuses: a
    speed may be gained or lost by luck, and an exact posterior, which conditions chance, would have that luck. The
    expected steps to the goal are those of the table, not of the car: with the best policy 102 on the table, while that
    policy takes Gymnasium's car 151 on average over 41 starts, from 83 to 1067. Its limit of 200 steps is left out.

    Args:
        points: Number of points along each side of a cell.

    Returns:
        A sparse task with 286 states: the cell of a row and column is state 15 row + column, named by its centre
        "position,speed", and the last is "goal", absorbing with reward 0. Cells that are cut by the limits of position
        or speed, or by the goal, are what is left of them. The 15 cells of row 18 are within the goal; they are
        absorbing as well and never entered. Each step costs 1, the one that reaches the goal included, so that returns
        are minus the number of steps. The start has speed 0 and a position uniform in [-0.6, -0.4]: rows 6, 7, 8 with
        probabilities 1/4, 1/2, 1/4 in column 7. The actions push "left", "none" and "right".

    Raises:
        ValueError: `points` is below 1.
    """
    check_count("points", points, "points along each side of a cell")
    goal, first_absorbing = _ROWS * _COLUMNS, _INSIDE_GOAL * _COLUMNS
    following = _next_states(points)
    table = np.zeros((goal + 1, 3, goal + 1))
    here, push = np.arange(len(following))[:, None, None], np.arange(3)[:, None]
    np.add.at(table, (here, push, following), 1)
    table /= points**2
    absorbing = np.arange(first_absorbing, goal + 1)
    table[absorbing, :, absorbing] = 1

    reward = np.full((goal + 1, 3), -1.0)
    reward[absorbing] = 0
    initial = np.zeros(goal + 1)
    initial[_cell(np.array([-0.6, -0.5, -0.4]), np.zeros(3))] = 0.25, 0.5, 0.25
    names = [f"{position:.1f},{speed:.2f}" for position in _POSITIONS for speed in _SPEEDS]
    dense = MDP(table, reward, initial, state_names=[*names, "goal"], action_names=("left", "none", "right"))
    return dense.as_sparse()


def _next_states(points: int) -> np.ndarray:
    """Where one step leads from each point of each cell that is not in the goal: (cells, pushes, points squared)."""
    position = _inside(_POSITIONS[:_INSIDE_GOAL], 0.05, _LOW, _GOAL, points)[:, None, None, :, None]
    speed = _inside(_SPEEDS, 0.005, -_TOP_SPEED, _TOP_SPEED, points)[None, :, None, None, :]
    push = np.arange(-1, 2)[:, None, None]
    speed = np.clip(speed + 0.001 * push - 0.0025 * np.cos(3 * position), -_TOP_SPEED, _TOP_SPEED)
    position = np.clip(position + speed, _LOW, _HIGH)
    speed = np.where((position == _LOW) & (speed < 0), 0, speed)
    arrived = (position >= _GOAL) & (speed >= 0)
    following = np.where(arrived, _ROWS * _COLUMNS, _cell(position, speed))
    return following.reshape(_INSIDE_GOAL * _COLUMNS, 3, points**2)


def _inside(centres: np.ndarray, reach: float, low: float, high: float, points: int) -> np.ndarray:
    """Points in the middle of equal parts of each interval around a centre, within limits: (centres, points)."""
    lower, upper = np.maximum(centres - reach, low), np.minimum(centres + reach, high)
    return lower[:, None] + np.outer(upper - lower, (np.arange(points) + 0.5) / points)


def _cell(position: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """The cell in which a position and a speed are."""
    row, column = np.rint(10 * (position - _LOW)), np.rint(100 * (speed + _TOP_SPEED))
    return (_COLUMNS * row + column).astype(int)
