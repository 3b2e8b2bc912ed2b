"""Maps drawn as text, and the checks that the gallery's tasks share."""

from collections.abc import Mapping

import numpy as np

from rlinf_ppl.tasks import checks
from rlinf_ppl.types import RealNumber

DIRECTIONS = ("up", "right", "down", "left")  # clockwise: the neighbours in this list are perpendicular
STEPS = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])


def check_count(name: str, count: object, what: str) -> None:
    """Raise on what is no whole number of at least 1.

    Raises:
        ValueError: so it is.
    """
    whole = isinstance(count, int | np.integer) and not isinstance(count, bool)
    if not whole or count < 1:  # type: ignore[operator]
        raise ValueError(f"{name} is {count!r}: give the number of {what}, a whole one of at least 1.")


def read_map(text: str, symbols: Mapping[str, str], starts: str = "S") -> np.ndarray:
    """Read a drawing as an array of symbols (rows, columns).

    Args:
        text: The drawing; spaces and empty lines around it do not count.
        symbols: What each symbol means.
        starts: The symbols that mark starts, each of which has to occur.

    Raises:
        ValueError: A symbol is unknown, rows have different lengths, or there is no start.
    """
    if not isinstance(text, str):
        raise TypeError(f"text is {type(text).__name__}; give a map drawn as text.")
    rows = [line.strip() for line in text.strip().splitlines()]
    for number, row in enumerate(rows):
        for column, symbol in enumerate(row):
            if symbol not in symbols:
                known = ", ".join(f"{key!r} {meaning}" for key, meaning in symbols.items())
                raise ValueError(
                    f"text has {symbol!r} in row {number}, column {column} (both counted from 0): use {known}."
                )
        if len(row) != len(rows[0]):
            raise ValueError(
                f"text has {len(row)} cells in row {number} but {len(rows[0])} in row 0: give rows of equal length, "
                "filled up with '#'."
            )
    cells = np.array([list(row) for row in rows])
    for start in starts:
        if not np.any(cells == start):
            raise ValueError(f"text has no {symbols[start]}: mark at least one cell with {start!r}.")
    return cells


def neighbours(cells: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The state in each direction from each place (S, 4): the place itself where a wall or the edge is."""
    states = np.full(cells.shape, -1)
    states[tuple(places.T)] = np.arange(len(places))
    reached = places[:, None, :] + STEPS
    inside = np.all((reached >= 0) & (reached < cells.shape), axis=-1)
    rows, columns = np.moveaxis(np.where(inside[..., None], reached, places[:, None, :]), -1, 0)
    found = states[rows, columns]
    return np.where(found < 0, np.arange(len(places))[:, None], found)


def check_probability(name: str, value: RealNumber) -> None:
    """Check that a number lies between 0 and 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}: give a probability, between 0 and 1.")


def check_rewards(**rewards: RealNumber) -> None:
    """Check that numbers given by name are finite."""
    for name, value in rewards.items():
        checks.check_finite(name, checks.as_reals(name, value))
