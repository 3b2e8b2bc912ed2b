"""Horizons as a report reads them.

An infinite horizon has one policy and one value for all times, so that no table has an axis of time; and it needs an
end before anything can be sampled. Everything else in a report is the same for both, and asks here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rlinf_ppl.program import ControlProgram

LEFT_OUT = 1e-3
MOST_STEPS = 1000


def written(horizon: int | None) -> str:
    """The number of steps, or the sign of infinity."""
    return "∞" if horizon is None else str(horizon)


def moment(horizon: int | None) -> str:
    """The words for the time that `first` shows."""
    return "" if horizon is None else " at t = 0"


def axis(horizon: int | None, name: str) -> tuple[str, ...]:
    """The name of the leading axis of tables over time; nothing where they have none."""
    return () if horizon is None else (name,)


def first(horizon: int | None, table: Any) -> np.ndarray:
    """A table at the first time step, with the whole horizon ahead: at an infinite one, the table itself."""
    array = np.asarray(table)
    return array if horizon is None else array[0]


def ended(program: ControlProgram, steps: int | None = None) -> ControlProgram:
    """The program; where its horizon is infinite, the same program with an end.

    Args:
        program: Any step program.
        steps: When it ends; default: as soon as the probability to be alive, discount ** steps, is at most LEFT_OUT,
            but after MOST_STEPS at the latest.
    """
    if program.horizon is not None:
        return program
    discount = float(program.discount)
    enough = math.ceil(math.log(LEFT_OUT) / math.log(discount)) if discount > 0 else 1
    return program.unroll(min(enough, MOST_STEPS) if steps is None else steps)
