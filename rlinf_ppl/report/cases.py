"""The named cases that the command line lists, draws and recovers.

A case is a task, a model of it, a horizon, a discount and an inverse temperature; it is one row of `CASES`. A new model
joins by another row; nothing else has to change. Nothing is built, and Gymnasium is not loaded, before `case.task()`
is called.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from rlinf_ppl.models import linear_gaussian, single_agent
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.report import horizons
from rlinf_ppl.tasks import MDP, gallery
from rlinf_ppl.types import ArrayLike

Move = tuple[int, int] | None

LEFT: Move = (0, -1)
DOWN: Move = (1, 0)
RIGHT: Move = (0, 1)
UP: Move = (-1, 0)
STAY: Move = None


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


class Grid(NamedTuple):
    """Where states of a task lie on a map, for pictures.

    Attributes:
        states: The state of each cell by row and column; -1 where a cell holds none (a wall).
        letters: What each cell is, one letter a cell; nothing is written for `.`, `F` and `#`.
        moves: What each action means to do, as (rows down, columns right); None for an action that is no move.
        caption: What the letters mean, and which states the map shows where it does not show all of them.
        ends: The letters of cells where nothing is left to decide.
    """

    states: tuple[tuple[int, ...], ...]
    letters: tuple[str, ...]
    moves: tuple[Move, ...]
    caption: str
    ends: str = "GHX"


@dataclass(frozen=True)
class Case:
    """One row of the recovery.

    Attributes:
        name: What the command line calls it.
        title: One line about it.
        model: The function that turns a task into a program; its docstring holds the maths.
        task: Builds the task.
        horizon: The number of decisions in time, T; None: without end.
        beta: The inverse temperature, in nats per unit of reward.
        discount: The probability of being alive at the next step; below 1 where there is no end.
        options: Further keyword arguments of the model.
        note: What the reader should know of the case before reading its numbers.
        grid: The map for pictures; None for a task without one.
        names: What the values or coordinates of variables are called, where the task does not say.
        temperature: The model's argument that takes beta.
    """

    name: str
    title: str
    model: Callable[..., ControlProgram]
    task: Callable[[], Any]
    horizon: int | None
    beta: float
    discount: float = 1.0
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    note: str = ""
    grid: Grid | None = None
    names: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    temperature: str = "beta"

    def program(self, task: Any, beta: ArrayLike | None = None) -> ControlProgram:
        """The step program of the task under this case's model, at another inverse temperature if one is given."""
        beta = self.beta if beta is None else beta
        options = {self.temperature: beta, "discount": self.discount, **self.options}
        return self.model(task, self.horizon, **options)

    @property
    def setting(self) -> str:
        """The horizon, the discount and the inverse temperature in words."""
        discount = "" if self.discount == 1 else f", discount {self.discount:g}"
        return f"horizon {horizons.written(self.horizon)}{discount}, inverse temperature beta {self.beta:g}"


def drawing(text: str, moves: tuple[Move, ...], caption: str) -> Grid:
    """A map drawn as text: states are the cells but walls (#), row by row."""
    numbers = itertools.count()
    rows = tuple(line.strip() for line in text.strip().splitlines())
    states = tuple(tuple(-1 if cell == "#" else next(numbers) for cell in row) for row in rows)
    return Grid(states, rows, moves, caption)


def taxi_grid(passenger: int, destination: int, caption: str) -> Grid:
    """The taxi's position on the map, at one place of the passenger and one destination.

    Gymnasium numbers a state ((row * 5 + column) * 5 + passenger) * 4 + destination.
    """
    cells = drawing(TAXI, (DOWN, UP, RIGHT, LEFT, STAY, STAY), caption)
    states = tuple(tuple((cell * 5 + passenger) * 4 + destination for cell in row) for row in cells.states)
    return cells._replace(states=states, ends="")


def gymnasium_task(name: str, **options: Any) -> Callable[[], MDP]:
    """A function that imports a Gymnasium environment when it is called."""
    return lambda: MDP.from_gymnasium(name, **options)


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
