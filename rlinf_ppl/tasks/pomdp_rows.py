"""The rows that statements of T and O in a `.pomdp` file fill, kept as lists of entries.

A row or a matrix clears its rows and fills them anew. So an entry counts if no later statement clears its row or says
it again.

Files round their numbers. A row may miss one by as much as rounding explains, half a unit of the last digit of each
entry, and is divided by its sum. That is at most 1e-5, as in pomdp-solve, or 5e-7 an entry in rows of many; digits
beyond those of single precision explain what single precision does.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np

from rlinf_ppl.algebra.tables import ROW_DIGITS, ROW_TOLERANCE

_SIX_DIGITS = 5e-7


class Statement(NamedTuple):
    """One statement of T, O or R.

    Attributes:
        kind: "T", "O" or "R".
        address: Positions, as many as are given; -1 is a wildcard.
        numbers: What is said there: one number where all axes are given, or as many as the others have entries, or
            the word that stands for them.
        digits: Half a unit of the last digit of each number, or None of a word.
        line: Where it begins.
    """

    kind: str
    address: tuple[int, ...]
    numbers: np.ndarray | float | str
    digits: np.ndarray | float | None
    line: int


class Entries(NamedTuple):
    """Entries of a table: positions (n, k) with -1 for wildcards, numbers, digits, and which statement said it."""

    where: np.ndarray
    numbers: np.ndarray
    digits: np.ndarray
    times: np.ndarray


class Rows(NamedTuple):
    """Distributions as lists: the row (a S + s) and the column of each entry that is not 0, in order."""

    row: np.ndarray
    column: np.ndarray
    numbers: np.ndarray


def tolerance(digits: Any, count: Any) -> Any:
    """How far rows may be from a sum of one: by the digits of their entries, and how many entries are not 0."""
    single = ROW_DIGITS * np.finfo(np.float32).eps
    return np.clip(digits, single, np.maximum(ROW_TOLERANCE, count * _SIX_DIGITS))


def divisor(sums: Any) -> Any:
    """What rows are divided by: those that are about one in the digits JAX keeps are left to `POMDP`.

    So a task that is written and read again is itself, to the last digit.
    """
    kept = 16 * ROW_DIGITS * np.finfo(jax.dtypes.canonicalize_dtype(float)).eps
    return np.where(np.abs(sums - 1) > kept, sums, 1.0)


def fill(
    kind: str,
    statements: Sequence[Statement],
    sizes: tuple[int, int, int],
    start: np.ndarray,
    fail: Callable[[int, str], NoReturn],
    last_line: int,
) -> Rows:
    """The rows that statements of T or O fill, checked."""
    clears = [time for time, statement in enumerate(statements) if _clears(statement)]
    rest = set(clears)
    parts = [singles(((time, said) for time, said in enumerate(statements) if time not in rest), 3)]
    parts += [_entries(statements[time], time, sizes[-1], start) for time in clears]
    entries = joined(parts, 3)
    origin, places = _expand(entries.where, sizes)
    times, rows = entries.times[origin], places[:, 0] * sizes[1] + places[:, 1]

    addresses = [(*statements[time].address, -1)[:2] for time in clears]
    cleared_by, cleared_rows = _expand(np.array(addresses, dtype=int).reshape(-1, 2), sizes[:2])
    cleared = np.full(sizes[0] * sizes[1], -1)
    np.maximum.at(cleared, cleared_rows[:, 0] * sizes[1] + cleared_rows[:, 1], np.array(clears, int)[cleared_by])
    touched = cleared.copy()
    np.maximum.at(touched, rows, times)

    keys = rows * sizes[2] + places[:, 2]
    order = np.lexsort((times, keys))
    last = np.append(keys[order][1:] != keys[order][:-1], True)[: len(order)]
    kept = order[last & (times[order] >= cleared[rows[order]]) & (entries.numbers[origin[order]] > 0)]
    row, numbers = rows[kept], entries.numbers[origin[kept]]
    sums = np.bincount(row, numbers, len(cleared))
    digits = np.bincount(row, entries.digits[origin[kept]], len(cleared))
    wrong = np.abs(sums - 1) > tolerance(digits, np.bincount(row, minlength=len(cleared)))
    if wrong.any():
        first = int(wrong.argmax())
        _fail_row(kind, statements, int(touched[first]), divmod(first, sizes[1]), float(sums[first]), fail, last_line)
    return Rows(row, places[kept, 2], numbers / divisor(sums)[row])


def _fail_row(
    kind: str,
    statements: Sequence[Statement],
    time: int,
    place: tuple[int, int],
    total: float,
    fail: Callable[[int, str], NoReturn],
    last_line: int,
) -> NoReturn:
    """Say which row is no distribution, at the line that touched it last."""
    action, state = place
    row = f"the row of action {action} and {'next state' if kind == 'O' else 'state'} {state}"
    if time < 0:
        fail(last_line, f"found no {kind} for {row} (they count from 0) in the whole file: a sum of 1 is expected.")
    fail(statements[time].line, f"found a sum of {total:.8g} in {row} of {kind} (they count from 0): 1 is expected.")


def _clears(statement: Statement) -> bool:
    """Whether a statement says whole rows: a row, a matrix, or 0 of all columns."""
    return not isinstance(statement.numbers, float) or (statement.numbers == 0 and statement.address[-1] < 0)


def singles(statements: Iterable[tuple[int, Statement]], axes: int) -> Entries:
    """The entries of statements that say one number, and their times."""
    said = [(*statement.address, statement.numbers, statement.digits, time) for time, statement in statements]
    table = np.array(said, dtype=float).reshape(-1, axes + 3)
    return Entries(table[:, :axes].astype(int), table[:, axes], table[:, axes + 1], table[:, -1].astype(int))


def _entries(statement: Statement, time: int, columns: int, start: np.ndarray) -> Entries:
    """The entries that are not 0 of a row or matrix of T or O."""
    numbers, digits = statement.numbers, statement.digits
    action, row = np.array((*statement.address, -1)[:2])
    if isinstance(numbers, float):
        column, numbers, digits = np.zeros(0, int), np.zeros(0), np.zeros(0)
    elif isinstance(numbers, str):
        digits = None
        if numbers == "uniform":
            column, numbers = np.array([-1]), np.array([1 / columns])
        elif numbers == "identity":
            column, numbers = np.arange(columns), np.ones(columns)
            row = column
        else:
            column = np.flatnonzero(start)
            numbers = start[column]
    else:
        kept = np.flatnonzero(numbers)
        row, column = (kept // columns, kept % columns) if len(statement.address) == 1 else (row, kept)
        numbers, digits = np.asarray(numbers)[kept], np.asarray(digits)[kept]
    where = np.empty((len(column), 3), int)
    where[:, 0], where[:, 1], where[:, 2] = action, row, column
    digits = np.zeros(len(column)) if digits is None else digits
    return Entries(where, numbers, digits, np.full(len(column), time))


def joined(parts: Sequence[Entries], axes: int) -> Entries:
    """Entries one after the other."""
    none = Entries(np.zeros((0, axes), int), np.zeros(0), np.zeros(0), np.zeros(0, int))
    return Entries(*(np.concatenate(columns) for columns in zip(none, *parts, strict=True)))


def _expand(where: np.ndarray, sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """All places that wildcards stand for, (m, k), and which address each came from (m,)."""
    origins, places = [np.zeros(0, int)], [np.zeros((0, len(sizes)), int)]
    wild = where < 0
    codes = wild @ 2 ** np.arange(len(sizes))
    for code in np.unique(codes):
        which = np.flatnonzero(codes == code)
        pattern = wild[which[0]]
        shape = np.where(pattern, sizes, 1)
        grid = np.stack(np.unravel_index(np.arange(shape.prod()), shape), 1)
        origins.append(np.repeat(which, len(grid)))
        places.append(np.where(pattern, grid[None], where[which][:, None]).reshape(-1, len(sizes)))
    return np.concatenate(origins), np.concatenate(places)
