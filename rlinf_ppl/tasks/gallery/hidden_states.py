"""Tasks whose state is hidden: a tiger behind a door, a maze of walls, a place seen by a light, rocks sensed from afar.

They are the small tasks on which planning under partial observation is studied. All carry a discount and names that
may be written into files (`POMDP.to_file`).
"""

import numpy as np

from rlinf_ppl.tasks.gallery.maps import DIRECTIONS, check_count, check_probability, check_rewards, neighbours, read_map
from rlinf_ppl.tasks.pomdp import POMDP
from rlinf_ppl.types import RealNumber

_MAZE_4X3 = """
    SSSG
    S#SP
    SSSS
"""


def tiger(
    listen_reward: RealNumber = -1.0,
    tiger_reward: RealNumber = -100.0,
    door_reward: RealNumber = 10.0,
    accuracy: RealNumber = 0.85,
    discount: RealNumber = 0.95,
) -> POMDP:
    """Two doors, a tiger behind one of them, and ears (Cassandra, Kaelbling & Littman 1994).

    To listen leaves the tiger where it is and tells its side with the given accuracy. To open a door pays, says
    nothing, and begins anew: the tiger is behind either door with probability 1/2. The defaults are the numbers of
    Kaelbling, Littman & Cassandra, "Planning and acting in partially observable stochastic domains" (1998), section
    5.1, at the discount of Cassandra's file tiger.95.

    Args:
        listen_reward: Paid for listening.
        tiger_reward: Paid for opening the tiger's door.
        door_reward: Paid for opening the other door.
        accuracy: Probability to hear the tiger on its side.
        discount: gamma in [0, 1].

    Returns:
        A dense task of 2 states, 3 actions and 2 observations, its reward (S, A).

    Raises:
        ValueError: `accuracy` is no probability, a reward is not finite, or `discount` lies outside of [0, 1].
    """
    check_rewards(listen_reward=listen_reward, tiger_reward=tiger_reward, door_reward=door_reward)
    check_probability("accuracy", accuracy)
    anew = np.full((2, 2), 0.5)
    heard = np.array([[accuracy, 1 - accuracy], [1 - accuracy, accuracy]])
    return POMDP(
        np.stack([np.eye(2), anew, anew], axis=1),
        [[listen_reward, tiger_reward, door_reward], [listen_reward, door_reward, tiger_reward]],
        np.stack([heard, anew, anew], axis=1),
        [0.5, 0.5],
        discount,
        state_names=("tiger-left", "tiger-right"),
        action_names=("listen", "open-left", "open-right"),
        observation_names=("hear-left", "hear-right"),
    )


def maze_4x3(discount: RealNumber = 0.95) -> POMDP:
    """The maze of four columns and three rows, of which an agent feels the walls to its left and right.

        . . . +
        . # . -
        . . . .

    A move goes where it is meant to with probability .8 and to either side of that with .1; into a wall it stays.
    Each step costs .04; a step from + pays 1, from - it costs 1, whatever the action, and either begins anew in one
    of the nine other cells, as likely each, which are the start as well. What is felt are walls to the left, to the
    right, neither or both, and the two ends tell themselves apart.

    The task is that of Parr & Russell, "Approximating optimal policies for partially observable stochastic domains"
    (1995), and of Russell & Norvig's book, without the state after the end: as in Cassandra's file 4x3.95, whose
    numbers these are but for its rounding (.111111 and .111112 for 1/9) and for one that breaks its rules: from r2c2
    a move e, slipping down, goes left there instead of staying.

    Args:
        discount: gamma in [0, 1].

    Returns:
        A dense task of 11 states, from left to right and from the top down, of 4 actions (n, s, e, w) and 6
        observations, its reward (S, A).

    Raises:
        ValueError: `discount` lies outside of [0, 1].
    """
    cells = read_map(_MAZE_4X3, {"#": "wall", "S": "start", "G": "good end", "P": "bad end"}, starts="S")
    places = np.argwhere(cells != "#")
    symbols = cells[cells != "#"]
    starts = symbols == "S"
    here, ways = np.arange(len(places)), neighbours(cells, places)
    initial = starts / starts.sum()
    transition = np.zeros((len(places), 4, len(places)))
    for a, way in enumerate(DIRECTIONS.index(name) for name in ("up", "down", "right", "left")):
        for turn, chance in ((0, 0.8), (1, 0.1), (-1, 0.1)):
            transition[here, a, ways[:, (way + turn) % 4]] += chance
    transition[~starts] = initial
    blocked = ways == here[:, None]
    left, right = blocked[:, DIRECTIONS.index("left")], blocked[:, DIRECTIONS.index("right")]
    felt = np.select([symbols == "G", symbols == "P", left & right, left, right], [4, 5, 3, 0, 1], 2)
    reward = np.select([symbols == "G", symbols == "P"], [1.0, -1.0], -0.04)
    return POMDP(
        transition,
        np.repeat(reward[:, None], 4, axis=1),
        np.repeat(np.eye(6)[felt][:, None], 4, axis=1),
        initial,
        discount,
        state_names=_cell_names(places),
        action_names=("n", "s", "e", "w"),
        observation_names=("left", "right", "neither", "both", "good", "bad"),
    )


def light_dark(
    width: int = 6,
    height: int = 2,
    light: int = 5,
    noise: RealNumber = 0.1,
    step_reward: RealNumber = -1.0,
    goal_reward: RealNumber = 20.0,
    miss_reward: RealNumber = -20.0,
    discount: RealNumber = 0.95,
) -> POMDP:
    """A room with a light on one side and the goal on the other: to find the goal one has to see where one is first.

    Moves are sure; against the edge they stay. After each move the agent reads a cell, by a Gaussian law on the cells
    of the grid whose variance grows with the distance from the column of the light,

        p(o | s') ~ exp(-|o - s'|^2 / (2 w)),      w = noise + (light - column of s')^2 / 2

    To stop pays by whether the cell is the goal, the one in the upper left, and ends the episode. Any cell may be the
    start.

    A grid of the light-dark domain of Platt, Tedrake, Kaelbling & Lozano-Perez, "Belief space planning assuming maximum
    likelihood observations" (2010), whose positions are real numbers, whose variance has this form, and whose goal is
    a quadratic cost.

    Args:
        width: Number of columns.
        height: Number of rows.
        light: Column of the light, from 0; it may lie outside.
        noise: Variance of a reading at the light, in cells.
        step_reward: Paid for each move.
        goal_reward: Paid for stopping at the goal.
        miss_reward: Paid for stopping elsewhere.
        discount: gamma in [0, 1].

    Returns:
        A sparse task with one successor for each state and action: the cells, from left to right and from the top
        down, and "end", which is absorbing, pays nothing and reads "end"; the actions up, right, down, left and stop.

    Raises:
        ValueError: A size is no whole number of at least 1, `noise` is not positive, a number is not finite, or
            `discount` lies outside of [0, 1].
    """
    check_count("width", width, "columns")
    check_count("height", height, "rows")
    check_rewards(light=light, step_reward=step_reward, goal_reward=goal_reward, miss_reward=miss_reward, noise=noise)
    if noise <= 0:
        raise ValueError(f"noise is {noise}: give the variance of a reading at the light, a positive number.")
    cells = np.full((height, width), ".")
    places = np.argwhere(cells == ".")
    end = len(places)
    ways = np.column_stack([neighbours(cells, places), np.full(end, end)])
    apart = np.sum((places[:, None] - places) ** 2, axis=-1)
    law = np.exp(-apart / (2 * (noise + (light - places[:, 1:]) ** 2 / 2)))
    read = np.zeros((end + 1, end + 1))
    read[:end, :end] = law / law.sum(axis=1, keepdims=True)
    read[end, end] = 1
    reward = np.zeros((end + 1, 5))
    reward[:end, :4], reward[:end, 4], reward[0, 4] = step_reward, miss_reward, goal_reward
    names = (*_cell_names(places), "end")
    return POMDP.sparse(
        np.append(ways, np.full((1, 5), end), axis=0)[..., None],
        np.ones((end + 1, 5, 1)),
        reward,
        np.repeat(read[:, None], 5, axis=1),
        np.append(np.full(end, 1 / end), 0),
        discount,
        state_names=names,
        action_names=(*DIRECTIONS, "stop"),
        observation_names=names,
    )


def rock_sample(
    size: int = 3,
    num_rocks: int = 2,
    half_distance: RealNumber = 2.0,
    sample_reward: RealNumber = 10.0,
    exit_reward: RealNumber = 10.0,
    discount: RealNumber = 0.95,
) -> POMDP:
    """A rover among rocks, each worth a sample or not, which it senses from afar (Smith & Simmons 2004).

    Moves are sure; to the right of the last column the episode ends and pays, at the other edges the rover stays. To
    sample a good rock pays and leaves it bad, to sample a bad one costs as much, where there is no rock nothing
    happens. To check a rock at distance d senses whether it is good, and is right with probability

        (1 + 2^(-d / half_distance)) / 2

    Positions are known: they are part of what is believed from the start, and moves observe "none". The rover starts
    in the middle of the left column, and each rock is good with probability 1/2. The task is that of "Heuristic search
    value iteration for POMDPs", section 4; its maps are larger (7 and 8 rocks), and d is Euclidean.

    Args:
        size: Number of rows and of columns.
        num_rocks: Number k of rocks, spread over the cells in order of reading.
        half_distance: Distance, in cells, at which a sensor's efficiency is one half.
        sample_reward: Paid for a good rock, and to be paid for a bad one.
        exit_reward: Paid for leaving.
        discount: gamma in [0, 1].

    Returns:
        A sparse task with one successor for each state and action: size^2 2^k states such as "r1c0-good-bad", and
        "end", absorbing and without reward; the actions up, right, down, left, sample, check-0, check-1, ...; the
        observations none, good and bad.

    Raises:
        ValueError: A size is no whole number of at least 1, there are more rocks than cells, `half_distance` is not
            positive, a number is not finite, or `discount` lies outside of [0, 1].
    """
    _check_rocks(size, num_rocks, half_distance)
    check_rewards(sample_reward=sample_reward, exit_reward=exit_reward)
    cells = np.full((size, size), ".")
    places = np.argwhere(cells == ".")
    rocks = (2 * np.arange(num_rocks) + 1) * size * size // (2 * num_rocks)
    goods = np.array(list(np.ndindex(*[2] * num_rocks))) == 0  # which rocks are good, (2^k, k): first all of them
    end = len(places) * len(goods)
    place, kind = np.divmod(np.arange(end), len(goods))

    successors = np.repeat(np.arange(end + 1)[:, None], 5 + num_rocks, axis=1)
    reward = np.zeros((end + 1, 5 + num_rocks))
    successors[:end, :4] = neighbours(cells, places)[place] * len(goods) + kind[:, None]
    leaves, east = np.flatnonzero(places[place, 1] == size - 1), DIRECTIONS.index("right")
    successors[leaves, east], reward[leaves, east] = end, exit_reward
    for rock in range(num_rocks):
        there = np.flatnonzero(place == rocks[rock])
        good = goods[kind[there], rock]
        spent = 2 ** (num_rocks - 1 - rock)  # the step to the state in which this rock is bad
        successors[there, 4] += np.where(good, spent, 0)
        reward[there, 4] = np.where(good, sample_reward, -sample_reward)
    distance = np.linalg.norm(places[place][:, None] - places[rocks], axis=-1)
    seen = _sensed(goods[kind], (1 + 2.0 ** (-distance / half_distance)) / 2)
    initial = np.append(np.where(place == size // 2 * size, 1 / len(goods), 0), 0)
    words = ["-".join("good" if flag else "bad" for flag in flags) for flags in goods]
    cell_names = _cell_names(places)
    return POMDP.sparse(
        successors[..., None],
        np.ones((end + 1, 5 + num_rocks, 1)),
        reward,
        seen,
        initial,
        discount,
        state_names=[*(f"{cell_names[p]}-{words[k]}" for p, k in zip(place, kind, strict=True)), "end"],
        action_names=[*DIRECTIONS, "sample", *(f"check-{rock}" for rock in range(num_rocks))],
        observation_names=("none", "good", "bad"),
    )


def _check_rocks(size: int, num_rocks: int, half_distance: RealNumber) -> None:
    """Raise on sizes of `rock_sample` that make no map."""
    check_count("size", size, "rows and columns")
    check_count("num_rocks", num_rocks, "rocks")
    check_rewards(half_distance=half_distance)
    if num_rocks > size * size:
        raise ValueError(f"num_rocks is {num_rocks} on {size * size} cells: give at most one rock for each cell.")
    if half_distance <= 0:
        raise ValueError(f"half_distance is {half_distance}: give a distance in cells, a positive number.")


def _sensed(good: np.ndarray, right: np.ndarray) -> np.ndarray:
    """What checks observe (S, A, O) by whether rocks are good and a sensor is right, (S - 1, k); moves see nothing."""
    count, num_rocks = good.shape
    says_good = np.where(good, right, 1 - right)
    seen = np.zeros((count + 1, 5 + num_rocks, 3))
    seen[..., 0] = 1
    seen[:count, 5:] = np.stack([np.zeros_like(says_good), says_good, 1 - says_good], axis=-1)
    return seen


def _cell_names(places: np.ndarray) -> list[str]:
    """Names such as "r0c2", row and column from 0."""
    return [f"r{row}c{column}" for row, column in places.tolist()]
