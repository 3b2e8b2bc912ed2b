"""The named cases that the command line lists, draws and recovers.

A case is one row of `CASES`; those of two players stand in `game_cases`, with options in `option_cases`, with noisy
memories in `memory_cases`, under hidden state in `hidden_cases`, within bounds in `bounded_cases`. A new model joins by
another row; nothing else has to change. Nothing is built, and Gymnasium is not loaded, before `case.task()` is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlinf_ppl.models import linear_gaussian, single_agent
from rlinf_ppl.report.bounded_cases import BOUNDED
from rlinf_ppl.report.case import DOWN, LEFT, RIGHT, STAY, UP, Case, Grid, drawing
from rlinf_ppl.report.game_cases import GAMES
from rlinf_ppl.report.hidden_cases import HIDDEN
from rlinf_ppl.report.memory_cases import MEMORIES
from rlinf_ppl.report.option_cases import OPTIONS
from rlinf_ppl.tasks import MDP, gallery

__all__ = ["CASES", "DOWN", "LEFT", "RIGHT", "STAY", "UP", "Case", "Grid", "drawing", "find", "names"]

FROZEN_LAKE_4X4 = """
    SFFF
    FHFH
    FFFH
    HFFG
"""
FROZEN_LAKE_8X8 = """
    SFFFFFFF
    FFFFFFFF
    FFFHFFFF
    FFFFFHFF
    FFFHFFFF
    FHHFFFHF
    FHFFHFHF
    FFFHFFFG
"""
CLIFF = """
    ............
    ............
    ............
    SCCCCCCCCCCG
"""
TAXI = """
    R...G
    .....
    .....
    .....
    Y..B.
"""

EXPECTED_REWARD = (
    "Gymnasium pays on arrival at the goal; the task pays the expectation r(s, a) = E r instead. Control that averages "
    "over chance cannot tell the two apart. The answer given optimality can: next to the goal it is paid for each try, "
    "and believes that the ice will keep it there to try again. That is what the large gap consists of."
)


NO_POSTERIOR = (
    "Given optimality there is no answer without end: as long as it lives, the agent is paid for each try at the goal, "
    "and exp(beta r) grows faster than the discount forgets. Soft-optimal control has one at every discount below 1."
)
EARLY_DEATH = (
    "A discount is a probability of dying, and the dead pay nothing. Given optimality, an agent whose every move costs "
    "believes that it will soon be dead. That is what the gap consists of."
)

FAVOURABLE_WIND = (
    "Soft-optimal control knows that the wind blows anywhere. Given optimality, the wind is believed to have helped: "
    "the mass arrives earlier and strays less. That is what the gap consists of."
)


def taxi_grid(passenger: int, destination: int, caption: str) -> Grid:
    """The taxi's position on the map, at one place of the passenger and one destination.

    Gymnasium numbers a state ((row * 5 + column) * 5 + passenger) * 4 + destination.
    """
    cells = drawing(TAXI, (DOWN, UP, RIGHT, LEFT, STAY, STAY), caption)
    states = tuple(tuple((cell * 5 + passenger) * 4 + destination for cell in row) for row in cells.states)
    return cells._replace(states=states, ends="")


def gymnasium_task(name: str, **options: Any) -> Callable[[], MDP]:
    """A function that imports a Gymnasium environment when it is called; few states can follow each, so sparse."""
    return lambda: MDP.from_gymnasium(name, **options).as_sparse()


LAKE_GRID = drawing(FROZEN_LAKE_4X4, (LEFT, DOWN, RIGHT, UP), "S start, G goal, H hole")
SLIPPERY_GRID = drawing(gallery.SLIPPERY_MAP, (UP, RIGHT, DOWN, LEFT), "S start, G goal, X pit")

CASES: tuple[Case, ...] = (
    Case(
        name="frozen-lake-4x4",
        title="FrozenLake-v1, 4x4: cross slippery ice to the goal without falling into a hole",
        model=single_agent,
        task=gymnasium_task("FrozenLake-v1", map_name="4x4"),
        horizon=100,
        beta=100.0,
        note=EXPECTED_REWARD,
        grid=LAKE_GRID,
    ),
    Case(
        name="frozen-lake-8x8",
        title="FrozenLake-v1, 8x8: the same on a larger lake",
        model=single_agent,
        task=gymnasium_task("FrozenLake-v1", map_name="8x8"),
        horizon=200,
        beta=200.0,
        note=EXPECTED_REWARD,
        grid=drawing(FROZEN_LAKE_8X8, (LEFT, DOWN, RIGHT, UP), "S start, G goal, H hole"),
    ),
    Case(
        name="cliff-walking",
        note="A step is certain and the start is one state, so that the two answers are one: the gap is zero.",
        title="CliffWalking-v1: the short way along the cliff, or the safe way round",
        model=single_agent,
        task=gymnasium_task("CliffWalking-v1"),
        horizon=100,
        beta=1.0,
        grid=drawing(CLIFF, (UP, RIGHT, DOWN, LEFT), "S start, G goal, C cliff (costs 100, and back to the start)"),
    ),
    Case(
        name="taxi",
        note="Every step is certain: the gap is the choice of a good first state out of 300 that are equally likely.",
        title="Taxi-v4: pick a passenger up at one corner and set them down at another",
        model=single_agent,
        task=gymnasium_task("Taxi-v4"),
        horizon=100,
        beta=1.0,
        grid=taxi_grid(
            passenger=0, destination=1, caption="passenger at R, destination G; a disc: pick up or drop off"
        ),
    ),
    Case(
        name="slippery-grid",
        title="Three ways to a goal past walls and pits, and one move in five slips sideways",
        model=single_agent,
        task=gallery.slippery_grid,
        horizon=20,
        beta=1.0,
        grid=SLIPPERY_GRID,
    ),
    Case(
        name="lottery",
        title="A safe prize against a risky one: where soft-optimal control and conditioning on optimality part",
        model=single_agent,
        task=gallery.lottery,
        horizon=2,
        beta=1.0,
    ),
    Case(
        name="point-mass",
        title="A point mass in the plane, pushed to a goal through gusts of wind",
        model=linear_gaussian,
        task=gallery.point_mass,
        horizon=30,
        beta=20.0,
        note=FAVOURABLE_WIND,
        names={
            "x": ("east (m)", "north (m)", "speed east (m/s)", "speed north (m/s)"),
            "u": ("force east (N)", "force north (N)"),
        },
        temperature="inverse_temperature",
    ),
    Case(
        name="frozen-lake-endless",
        title="FrozenLake-v1, 4x4, without end: one policy for all times",
        model=single_agent,
        task=gymnasium_task("FrozenLake-v1", map_name="4x4"),
        horizon=None,
        discount=0.99,
        beta=100.0,
        note=NO_POSTERIOR,
        grid=LAKE_GRID,
    ),
    Case(
        name="slippery-grid-endless",
        title="The three ways to a goal, without end",
        model=single_agent,
        task=gallery.slippery_grid,
        horizon=None,
        discount=0.95,
        beta=0.3,
        note=EARLY_DEATH,
        grid=SLIPPERY_GRID,
    ),
    Case(
        name="long-patience",
        title="A step costs 1 until the far end of a chain; the discount is so large that nothing is forgotten",
        model=single_agent,
        task=lambda: gallery.chain(10, reward=0.0, step_reward=-1.0),
        horizon=None,
        discount=0.9999,
        beta=1.0,
        note=EARLY_DEATH,
    ),
    *GAMES,
    *OPTIONS,
    *MEMORIES,
    *HIDDEN,
    *BOUNDED,
)


def names() -> tuple[str, ...]:
    """The names of all cases, in the order of the table."""
    return tuple(case.name for case in CASES)


def find(name: str) -> Case:
    """The case of that name.

    Raises:
        KeyError: No case has that name.
    """
    return {case.name: case for case in CASES}[name]
