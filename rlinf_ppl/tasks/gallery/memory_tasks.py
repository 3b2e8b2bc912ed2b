"""Tasks in which memories of values are worth their precision: a maze, a plan of a few moves, and remembered options.

They are tasks on which dynamic resource allocation is studied (Patel, Acerbi & Pouget, "Dynamic allocation of limited
memory resources in reinforcement learning", NeurIPS 2020): an agent remembers the value of each action in each state
with noise, and less noise costs more. The tasks themselves hold no memory and no cost. A fourth, `mountain_car`, has a
file of its own.
"""

import numpy as np
from jaxtyping import Int

from rlinf_ppl.algebra.tables import ROW_TOLERANCE
from rlinf_ppl.tasks import checks
from rlinf_ppl.tasks.gallery.maps import DIRECTIONS, check_count, check_probability, check_rewards, neighbours, read_map
from rlinf_ppl.tasks.mdp import MDP
from rlinf_ppl.types import ArrayLike, RealNumber

_SYMBOLS = {"#": "wall", ".": "free", "S": "start", "G": "goal"}

PATEL_MAZE_MAP = """
    .......#G
    ..#....#.
    S.#....#.
    ..#......
    .....#...
    .........
"""
"""The map of `patel_maze`, in which the shortest way has 14 moves."""

CHANGED_PATEL_MAZE_MAP = """
    ......G..
    ..#....#.
    S.#....#.
    ..#......
    .....#...
    .........
"""
"""The same maze after its change: a wall is gone, the goal is nearer, and the shortest way has 8 moves."""

_PLACES = np.array([(2, 4), (3, 5), (4, 6), (2, 5), (1, 6), (1, 3)]) - 1
_GAINS = np.array([(140, 20), (-20, -70), (-20, -70), (20, -20), (-70, -20), (-20, 20)])


def patel_maze(text: str = PATEL_MAZE_MAP, step_reward: RealNumber = -1.0, goal_reward: RealNumber = 10.0) -> MDP:
    """A maze that is paid for on entering its goal, where the episode ends.

    `patel_maze()` is the maze before its change, `patel_maze(CHANGED_PATEL_MAZE_MAP)` after it. Its best returns are
    10 - 13 = -3 and 10 - 7 = 3 (Patel et al. 2020, figure 1; the maze of Mattar & Daw, "Prioritized memory access
    explains planning and hippocampal replay", 2018, which is that of Sutton's Dyna, 1990).

    The symbols are those of `grid_world` but for pits, and moves never slip. `grid_world` pays a goal in a step that
    begins there, so that the goal has actions and values of its own, which are one more thing to remember and one
    step further off for a discount. Without slips no expectation has to be taken, and the goal can be paid on
    entering.

    Args:
        text: The drawing, with at least one start and one goal. Starts are equally likely.
        step_reward: Paid for each move that does not enter a goal.
        goal_reward: Paid instead for a move that does.

    Returns:
        A sparse task with one successor for each state and action. The states are the cells but walls, from left to
        right and from the top down, named "row,column" from 0: 47 before the change and 48 after it, so tables go from
        one to the other by names. A goal is absorbing and pays nothing. The actions are up, right, down, left.

    Raises:
        ValueError: A symbol of `text` is unknown, rows have different lengths, there is no start or no goal, or a
            reward is not finite.
    """
    check_rewards(step_reward=step_reward, goal_reward=goal_reward)
    cells = read_map(text, _SYMBOLS, starts="SG")
    places = np.argwhere(cells != "#")
    symbols = cells[cells != "#"]
    goal, here = symbols == "G", np.arange(len(places))
    successors = np.where(goal[:, None], here[:, None], neighbours(cells, places))
    payoffs = np.where(goal[successors], goal_reward, step_reward)
    return MDP.sparse(
        successors[:, :, None],
        np.ones((len(places), 4, 1)),
        np.where(goal[:, None], 0, payoffs),
        (symbols == "S") / np.sum(symbols == "S"),
        state_names=[f"{row},{column}" for row, column in places.tolist()],
        action_names=DIRECTIONS,
    )


def planning_task(depth: int = 3) -> MDP:
    """A few moves between six places, of which some pay at once what others lose later.

    | from | first action | second action |
    | --- | --- | --- |
    | 1 | to 2, +140 | to 4, +20 |
    | 2 | to 3, -20 | to 5, -70 |
    | 3 | to 4, -20 | to 6, -70 |
    | 4 | to 2, +20 | to 5, -20 |
    | 5 | to 1, -70 | to 6, -20 |
    | 6 | to 1, -20 | to 3, +20 |

    All six are equally likely to be the start. With three moves the best returns from them are 100, 0, 50, 50, 100,
    100, which is 66 2/3 on average (Patel et al. 2020, figure 3; the task of Huys et al., "Bonsai trees in your head",
    2012, and "Interplay of approximate planning strategies", 2015, where the largest loss is 70).

    What a move is worth depends on how many are left, so each place is one state for each move: values are remembered
    apart, as in Patel et al. Their fourth layer, where the last move leads and nothing is decided, is one state here.

    Args:
        depth: Number of moves, the horizon that plays the task once.

    Returns:
        A sparse task with one successor for each state and action, and 6 depth + 1 states: place p before move m, both
        counted from 1, is state 6 (m - 1) + p - 1 and is named "move m, place p"; the last state is "end", absorbing,
        with reward 0. The actions are "first" and "second".

    Raises:
        ValueError: `depth` is below 1.
    """
    check_count("depth", depth, "moves")
    end = 6 * depth
    successors = 6 * np.arange(1, depth + 1)[:, None, None] + _PLACES
    successors[-1] = end
    return MDP.sparse(
        np.append(successors.reshape(end, 2), [[end, end]], axis=0)[:, :, None],
        np.ones((end + 1, 2, 1)),
        np.append(np.tile(_GAINS, (depth, 1)), [[0, 0]], axis=0),
        np.append(np.full(6, 1 / 6), np.zeros(end - 5)),
        state_names=[*(f"move {move}, place {place}" for move in range(1, depth + 1) for place in range(1, 7)), "end"],
        action_names=("first", "second"),
    )


def offered_options(num_sets: int = 4) -> Int[np.ndarray, "S A"]:
    """The option that each action of each state of `memory_choice` takes.

    What is remembered there is what an option is worth, whatever it is offered with: by this table, states share it.

    Args:
        num_sets: Number n of sets of three options.

    Returns:
        Positions of options, shape (9 n, 2). Below 3 n they are remembered: 3 g, 3 g + 1, 3 g + 2 are the better, the
        middle and the worse option of set g, counted from 0. Option 3 n + i is the bonus above option i, option
        6 n + i the one below it; both say what they pay.

    Raises:
        ValueError: `num_sets` is below 1.
    """
    if num_sets < 1:
        raise ValueError(f"num_sets is {num_sets}: give the number of sets, at least 1.")
    options = np.arange(3 * num_sets)
    others = np.array([(1, 2), (0, 2), (0, 1)])[options % 3]
    bonuses = [np.stack([options, options + times * len(options)], axis=1) for times in (1, 2)]
    return np.concatenate([others + (options - options % 3)[:, None], *bonuses])


def memory_choice(
    stakes: ArrayLike = (4.0, 1.0, 4.0, 1.0),
    frequencies: ArrayLike = (4.0, 4.0, 1.0, 1.0),
    mean: RealNumber = 10.0,
    bonus: RealNumber = 4.0,
    bonus_probability: RealNumber = 0.15,
) -> MDP:
    """Choices between two remembered options, of sets that differ in what is at stake and in how often they come.

    The three options of a set pay mean + stake, mean, mean - stake in expectation. A regular trial draws a set in
    proportion to its frequency and offers two of its options, each pair equally likely. It may be followed by a bonus
    trial, which asks how well the option was remembered that had not been offered: this option, or a bonus that says
    what it pays, which is `bonus` more than the option in one half of these trials and `bonus` less in the other.

    With n sets the 9 n states are the trials. Regular ones are 0 to 3 n - 1; state i leaves out option i, and both are
    numbered as in `offered_options`. Bonus trials with option i are state 3 n + i (above) and 6 n + i (below). After
    regular trial i the bonus trials come with probability

        bonus_probability (greatest frequency) / (frequency of the set of i),

    so that each option gets as many of them as any other. Otherwise, and after a bonus trial, the next trial is
    regular and drawn anew from the initial law. A horizon of 1 is one regular choice; T plays T trials. What is chosen
    never matters for what comes next.

    The task is that of Patel's code DRA_vs_maxEntRL (2022), which compares dynamic resource allocation with
    maximum-entropy reinforcement learning. 0.15 is close to its 20 bonus trials for each option in 1020 regular trials;
    probability 0 is its training, with the same states. There a regular option's outcome has noise of variance 1, which
    a task of expected rewards does not hold, and an episode ends before the next regular trial.

    Memories belong to options there, not to states: a model that remembers a value for each state and action has two
    for each option in regular trials, and two more in bonus trials, unless it ties them by `offered_options`.

    Args:
        stakes: How much more the better option of each set pays than the middle one, and the worse one less.
        frequencies: How often each set is shown, in any unit.
        mean: What the middle option of each set pays.
        bonus: What a bonus adds to its option, or takes from it.
        bonus_probability: Probability that a regular trial of a most frequent set is followed by a bonus trial.

    Returns:
        A dense task with 9 states for each set, named such as "set 1: better or worse" and "set 2: middle or bonus
        above". The action "first" takes what is named first: the better of the two in a regular trial, the remembered
        option in a bonus trial. Sides of a screen are no part of the task.

    Raises:
        ValueError: `stakes` and `frequencies` are not lists of the same length, a stake is negative, a frequency is
            not positive, a number is not finite, or `bonus_probability` is no probability, for the rarest set too.
    """
    check_rewards(mean=mean, bonus=bonus)
    distances = _as_list("stakes", stakes)
    often = _as_list("frequencies", frequencies)
    if distances.min() < 0:
        raise ValueError(f"stakes are {distances.tolist()}: give numbers that are not negative.")
    checks.check_shape("frequencies", often.shape, [distances.shape], "stakes", distances.shape)
    follows = np.repeat(_bonus_follows(bonus_probability, often), 3)
    num_options = len(follows)
    regular = np.repeat(often / often.sum() / 3, 3)
    worth = mean + np.outer(distances, (1, 0, -1)).ravel()
    payoffs = np.concatenate([worth, worth + bonus, worth - bonus])

    here = np.arange(num_options)
    table = np.zeros((3 * num_options, 3 * num_options))
    table[:, :num_options] = regular
    table[here, :num_options] *= 1 - follows[:, None]
    table[here, num_options + here] = table[here, 2 * num_options + here] = follows / 2
    offered = offered_options(len(often))
    names = ["better", "middle", "worse"] * len(often) + ["bonus above"] * num_options + ["bonus below"] * num_options
    return MDP(
        np.repeat(table[:, None], 2, axis=1),
        payoffs[offered],
        np.append(regular, np.zeros(2 * num_options)),
        state_names=[f"set {first // 3 + 1}: {names[first]} or {names[second]}" for first, second in offered],
        action_names=("first", "second"),
    )


def _as_list(name: str, values: ArrayLike) -> np.ndarray:
    """A number for each set."""
    numbers = checks.as_reals(name, values)
    checks.check_not_empty(name, numbers.shape, ("sets",))
    checks.check_finite(name, numbers)
    return np.asarray(numbers, dtype=float)


def _bonus_follows(bonus_probability: RealNumber, frequencies: np.ndarray) -> np.ndarray:
    """The probability that a bonus trial follows a regular one of each set."""
    if frequencies.min() <= 0:
        raise ValueError(f"frequencies are {frequencies.tolist()}: give positive numbers.")
    check_probability("bonus_probability", bonus_probability)
    follows = bonus_probability * frequencies.max() / frequencies
    if follows.max() > 1 + ROW_TOLERANCE:
        raise ValueError(
            f"bonus_probability is {bonus_probability}, which makes it {follows.max():g} for the rarest set, so that "
            "each option has as many bonus trials as any other: give at most "
            f"{frequencies.min() / frequencies.max():g}."
        )
    return np.minimum(follows, 1)
