"""Tasks of one agent: a lottery, grid worlds drawn as text, a chain, and a point mass."""

import numpy as np

from rlinf_ppl.tasks.gallery.maps import DIRECTIONS, check_probability, check_rewards, neighbours, read_map
from rlinf_ppl.tasks.linear_quadratic import LinearQuadratic
from rlinf_ppl.tasks.mdp import MDP
from rlinf_ppl.types import RealNumber

_SYMBOLS = {"#": "wall", ".": "free", "S": "start", "G": "goal", "X": "pit"}

SLIPPERY_MAP = """
    .........
    .#######.
    .#.XXX.#.
    S.......G
    .#.XXX.#.
    .........
"""
"""The map of `slippery_grid`."""

FOUR_ROOMS_MAP = """
    S...#....
    ....#....
    .........
    ....#....
    ##.###.##
    ....#....
    ....#....
    .........
    ....#...G
"""
"""The map of `four_rooms`."""


def lottery(
    win_probability: RealNumber = 0.25, win: RealNumber = 4.0, lose: RealNumber = -1.0, safe: RealNumber = 1.0
) -> MDP:
    """One decision between a safe prize and a risky lottery: Levine's example of an optimistic posterior.

    In the state "choice" the agent takes the safe prize or draws a lot. The next state, "prize", "win" or "lose", pays
    its reward whatever the agent does there, and leads to "end". Rewards belong to states so that the chance of the
    lottery is one of the dynamics; a horizon of 2 plays it once.

    At inverse temperature 1 and with a uniform prior, the odds of drawing against the prize are

        soft-optimal policy, averaging over chance:       exp(E reward) / exp(safe),       E reward = 1/4
        exact posterior, conditioning chance as well:     E exp(reward) / exp(safe)

    which is p(draw) = 0.32 against 0.84 for the default numbers. The agent that is right about its chances prefers
    the prize. The posterior prefers the lottery, since it also believes that the lot will win: among the
    trajectories that look optimal, most are lucky ones (Levine, "Reinforcement learning and control as probabilistic
    inference", 2018, section 3).

    Args:
        win_probability: Probability that the lot wins.
        win: Reward of a lot that wins.
        lose: Reward of a lot that loses.
        safe: Reward of the safe prize.

    Returns:
        A dense task with 5 states and 2 actions.

    Raises:
        ValueError: `win_probability` is no probability, or a reward is not finite.
    """
    check_probability("win_probability", win_probability)
    check_rewards(win=win, lose=lose, safe=safe)
    states = ("choice", "prize", "win", "lose", "end")
    transition = np.zeros((5, 2, 5))
    transition[0, 0, 1] = 1
    transition[0, 1, 2:4] = win_probability, 1 - win_probability
    transition[1:, :, 4] = 1
    payoffs = np.array([0, safe, win, lose, 0], dtype=float)
    reward = np.repeat(payoffs[:, None], 2, axis=1)
    return MDP(transition, reward, np.eye(5)[0], state_names=states, action_names=("take", "draw"))


def grid_world(
    text: str,
    slip: RealNumber = 0.1,
    step_reward: RealNumber = -0.1,
    goal_reward: RealNumber = 1.0,
    pit_reward: RealNumber = -1.0,
) -> MDP:
    """A maze drawn as text, in which moves may slip sideways.

    One line is one row of cells, of these symbols; spaces and empty lines around the drawing do not count.

    | symbol | cell |
    | --- | --- |
    | `#` | a wall: no state |
    | `.` | free |
    | `S` | a start: the first state is uniform over these |
    | `G` | a goal: pays `goal_reward`, and the next state is "end" |
    | `X` | a pit: pays `pit_reward`, and the next state is "end" |

    The actions are up, right, down, left. With probability 1 - slip the agent moves that way, and with probability
    slip / 2 each in one of the two perpendicular directions. A move into a wall or off the map stays in place.

    Goals and pits pay in the step that begins there, so an episode of n moves takes a horizon of n + 1. Paid on
    entering, the reward would have to be the expectation over slips, and the exact posterior could collect most of a
    goal's reward again and again by moving towards it and always slipping.

    The transition is sparse: the four successors of a cell are its neighbours in the order of the actions, and the
    outcome is the direction in which the agent really moved. A map of a million cells is thus no larger than it need
    be, and a small one becomes a table by `.dense()`.

    Args:
        text: The drawing.
        slip: Probability of moving sideways.
        step_reward: Paid for each move.
        goal_reward: Paid once in a goal.
        pit_reward: Paid once in a pit.

    Returns:
        A sparse task. The states are the cells but walls, from left to right and from the top down, named
        "row,column"; then "end", where nothing happens any more.

    Raises:
        ValueError: A symbol is unknown (the message gives its row and column), rows have different lengths, there is
            no start, `slip` is no probability, or a reward is not finite.
    """
    check_probability("slip", slip)
    check_rewards(step_reward=step_reward, goal_reward=goal_reward, pit_reward=pit_reward)
    cells = read_map(text, _SYMBOLS)
    places = np.argwhere(cells != "#")
    symbols = cells[cells != "#"]
    over = (symbols == "G") | (symbols == "X")
    end = len(places)

    successors = np.full((end + 1, 4), end)
    successors[:end] = np.where(over[:, None], end, neighbours(cells, places))
    direction = (1 - slip) * np.eye(4) + slip / 2 * (np.roll(np.eye(4), 1, axis=1) + np.roll(np.eye(4), -1, axis=1))
    payoffs = np.append(np.select([symbols == "G", symbols == "X"], [goal_reward, pit_reward], step_reward), 0)
    starts = np.append(symbols == "S", False)
    return MDP.sparse(
        successors,
        np.broadcast_to(direction, (end + 1, 4, 4)),
        np.repeat(payoffs[:, None], 4, axis=1),
        starts / starts.sum(),
        state_names=[*(f"{row},{column}" for row, column in places.tolist()), "end"],
        action_names=DIRECTIONS,
    )


def slippery_grid() -> MDP:
    """A grid world of moderate size with walls and pits, in which one move in five slips.

    Three ways lead to the goal: 8 moves straight on between pits, 12 moves below with pits on one side, and 14 moves
    above without any. A move costs 1, the goal pays 20 and a pit costs 20. At inverse temperature 1 and a horizon of
    20 the soft-optimal policy takes each of the three at times, while the exact posterior walks straight on: given
    that all went well, the agent did not slip.

    Returns:
        A sparse task with 44 states and 4 actions.
    """
    return grid_world(SLIPPERY_MAP, slip=0.2, step_reward=-1.0, goal_reward=20.0, pit_reward=-20.0)


def four_rooms() -> MDP:
    """Four rooms with a door between any two neighbours: the task that options were first shown on, on a small map.

    The goal is in the corner opposite to the start, 16 moves and two doors away. A move costs 1, one in five slips, and
    the goal pays 20 (after Sutton, Precup & Singh, "Between MDPs and semi-MDPs", 1999).

    Returns:
        A sparse task with 69 states and 4 actions.
    """
    return grid_world(FOUR_ROOMS_MAP, slip=0.2, step_reward=-1.0, goal_reward=20.0)


def chain(length: int, slip: RealNumber = 0.1, reward: RealNumber = 1.0, step_reward: RealNumber = 0.0) -> MDP:
    """A row of states, walked from the left end to the right end, where the reward is.

    The actions are left and right. With probability slip a move goes the other way. A move off either end stays.

    Args:
        length: Number of states, at least 2.
        slip: Probability that a move goes the other way.
        reward: Paid for each step that begins in the last state.
        step_reward: Paid for each step that begins in another state.

    Returns:
        A dense task with `length` states and 2 actions.

    Raises:
        ValueError: `length` is below 2, `slip` is no probability, or a reward is not finite.
    """
    if length < 2:
        raise ValueError(f"length is {length}: a chain has at least 2 states, a first and a last.")
    check_probability("slip", slip)
    check_rewards(reward=reward, step_reward=step_reward)
    here = np.arange(length)
    transition = np.zeros((length, 2, length))
    for action, goes_right in enumerate((slip, 1 - slip)):
        transition[here, action, np.minimum(here + 1, length - 1)] += goes_right
        transition[here, action, np.maximum(here - 1, 0)] += 1 - goes_right
    rewards = np.full((length, 2), step_reward, dtype=float)
    rewards[-1] = reward
    return MDP(transition, rewards, np.eye(length)[0], action_names=("left", "right"))


def point_mass(time_step: RealNumber = 0.1, mass: RealNumber = 1.0, gust: RealNumber = 1.0) -> LinearQuadratic:
    """A mass in the plane that a force pushes from rest at the origin to rest at the goal, 2 m east and 1 m north.

    The state is (east, north, speed east, speed north) in m and m/s, the action the force (east, north) in N. For a
    time step h, in which the force u and the wind's force w are constant,

        place' = place + h speed + h^2 (u + w) / (2 mass),      speed' = speed + h (u + w) / mass,      w ~ N(0, gust^2)

    The reward of a step is -h (|place - goal|^2 + |speed|^2 / 10 + |u|^2 / 10), so that distances in m, speeds in m/s
    and forces in N are integrated over seconds; at the end it is the same without the force.

    Args:
        time_step: h, in s.
        mass: In kg.
        gust: Standard deviation of the wind's force in each direction, in N; fresh in every step.

    Returns:
        A time-invariant task with a state in R^4 and an action in R^2.

    Raises:
        ValueError: `time_step` or `mass` is not positive, or `gust` is negative or not finite.
    """
    for name, value in {"time_step": time_step, "mass": mass}.items():
        if not 0 < value < np.inf:
            raise ValueError(f"{name} is {value}: give a positive number.")
    if not 0 <= gust < np.inf:
        raise ValueError(f"gust is {gust}: give a standard deviation, at least 0.")
    plane = np.eye(2)
    drift = np.kron([[1, time_step], [0, 1]], plane)
    push = np.kron([[time_step**2 / 2], [time_step]], plane) / mass
    state_reward = -time_step * np.kron(np.diag([1, 0.1]), plane)
    start, certain, goal = np.zeros(4), np.zeros((4, 4)), [2, 1, 0, 0]
    noise, force_reward = gust**2 * push @ push.T, -time_step * 0.1 * plane
    return LinearQuadratic(drift, push, np.zeros(4), noise, state_reward, force_reward, goal, start, certain)
