"""What one case is: a task, a model of it, a horizon, a discount and an inverse temperature; and maps for pictures."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from rlinf_ppl.program import ControlProgram
from rlinf_ppl.report import horizons
from rlinf_ppl.types import ArrayLike

Move = tuple[int, int] | None

LEFT: Move = (0, -1)
DOWN: Move = (1, 0)
RIGHT: Move = (0, 1)
UP: Move = (-1, 0)
STAY: Move = None


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
        beta: The inverse temperature, in nats per unit of reward; None: the model finds its own.
        discount: The probability of being alive at the next step; below 1 where there is no end.
        options: Further keyword arguments of the model.
        note: What the reader should know of the case before reading its numbers.
        grid: The map for pictures; None for a task without one.
        names: What the values or coordinates of variables are called, where the task does not say.
        temperature: The model's argument that takes beta.
        discounting: The model's argument that takes the discount; None: the task has it already.
        kind: How it is recovered, a name of `recoveries.KINDS`: "exact", or without a closed form "fitted", "hidden"
            (one agent under hidden state), "signals" (two who see different things) or "search" (a nonlinear system).
    """

    name: str
    title: str
    model: Callable[..., ControlProgram]
    task: Callable[[], Any]
    horizon: int | None
    beta: float | None
    discount: float = 1.0
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    note: str = ""
    grid: Grid | None = None
    names: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    temperature: str = "beta"
    discounting: str | None = "discount"
    kind: str = "exact"

    def program(self, task: Any, beta: ArrayLike | None = None) -> ControlProgram:
        """The step program of the task under this case's model, at another inverse temperature if one is given."""
        beta = self.beta if beta is None else beta
        numbers = {} if beta is None else {self.temperature: beta}
        if self.discounting is not None:
            numbers[self.discounting] = self.discount
        return self.model(task, self.horizon, **numbers, **self.options)

    @property
    def setting(self) -> str:
        """The horizon, the discount, the inverse temperature and the model's other numbers in words."""
        discount = "" if self.discount == 1 else f", discount {self.discount:g}"
        numbers = [(name, value) for name, value in self.options.items() if isinstance(value, int | float)]
        others = "".join(f", {name.replace('_', ' ')} {value:g}" for name, value in numbers)
        temperature = "" if self.beta is None else f", inverse temperature beta {self.beta:g}"
        return f"horizon {horizons.written(self.horizon)}{discount}{temperature}{others}"


def drawing(text: str, moves: tuple[Move, ...], caption: str) -> Grid:
    """A map drawn as text: states are the cells but walls (#), row by row."""
    numbers = itertools.count()
    rows = tuple(line.strip() for line in text.strip().splitlines())
    states = tuple(tuple(-1 if cell == "#" else next(numbers) for cell in row) for row in rows)
    return Grid(states, rows, moves, caption)
