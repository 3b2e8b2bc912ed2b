"""A data frame of who did what and when, as arrays: one sequence for each id, rows in the order of time.

Nothing is dropped: a row that cannot be used is an error that names it.
"""

from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rlinf_ppl.behaviour.columns import column_of, moments, there_of, weights_of
from rlinf_ppl.inference.sites import is_rewarded
from rlinf_ppl.program import ControlProgram


class Reading(NamedTuple):
    """What the columns of a data frame are.

    Attributes:
        variables: by the program's names the columns.
        id: the column of who it was; None: one sequence.
        time: the column of when; None: rows are in order.
        weights: the column of weights; None: 1.
        available: by decision the columns that say which alternatives were there, in the order of its values.
        gaps: "error", or "close" where times that lack in between do not matter.
    """

    variables: dict[str, str]
    id: str | None
    time: str | None
    weights: str | None
    available: dict[str, list[str]]
    gaps: str

    @property
    def columns(self) -> list[str]:
        """All of them."""
        single = [column for column in (self.id, self.time, self.weights) if column is not None]
        return [*self.variables.values(), *single, *(c for columns in self.available.values() for c in columns)]


class Panel(NamedTuple):
    """Sequences of one length, the shorter ones filled up.

    Attributes:
        frame: the data frame in the order of ids and times.
        ids: of each sequence.
        data: by the program's names (n, T) values, and where they were seen if some are missing.
        lengths: how many rows each sequence has.
        weights: of each row (n, T).
        follows: whether the next row of a sequence is the next step (n, T).
        available: by decision which alternatives were there (n, T, K).
        places: of each row of the frame its sequence and its place there.
        order: of each row of the frame where it stood in the one that was given.
        reading: what the columns are.
    """

    frame: pd.DataFrame
    ids: list[Hashable]
    data: dict[str, Any]
    lengths: np.ndarray
    weights: np.ndarray
    follows: np.ndarray
    available: dict[str, np.ndarray]
    places: tuple[np.ndarray, np.ndarray]
    order: np.ndarray
    reading: Reading

    def rows(self, array: Any) -> np.ndarray:
        """What stands in (n, T, ...) at each row of the frame."""
        return np.asarray(array)[self.places]

    def as_given(self, rows: Any) -> Any:
        """A Series or a DataFrame with a row for each of the frame's, in the order of the one that was given."""
        return rows.iloc[np.argsort(self.order, kind="stable")]


def panel_of(frame: Any, program: ControlProgram, reading: Reading) -> Panel:
    """The arrays of a data frame.

    Args:
        frame: one row for each id and time.
        program: whose variables they are.
        reading: what its columns are.

    Raises:
        TypeError: it is no data frame.
        ValueError: columns lack; an id or time is missing, or twice there; times have gaps; values that a variable does
            not take; weights below 0; alternatives that were taken and not there.
    """
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(
            f"behaviour takes a data frame of pandas, a row for each id and time; got {type(frame).__name__}."
        )
    if not len(frame):
        raise ValueError("the data frame has no rows.")
    lacking = [column for column in reading.columns if column not in frame.columns]
    if lacking:
        raise ValueError(f"the data frame has no column {lacking}; it has {list(frame.columns)}.")
    double = [column for column in reading.columns if list(frame.columns).count(column) > 1]
    if double:
        raise ValueError(f"the data frame has more than one column {double[0]!r}.")
    order = ordered(frame, reading)
    check_beginnings(program, order, reading)
    frame = order.frame
    who = np.zeros(len(frame), int) if reading.id is None else pd.factorize(frame[reading.id])[0]
    ids = [None] if reading.id is None else list(dict.fromkeys(frame[reading.id]))
    lengths = np.bincount(who)
    place = np.concatenate([np.arange(n) for n in lengths])
    shape = len(lengths), int(lengths.max())
    supports = program.supports
    data = {}
    for name, column in reading.variables.items():
        values, there = column_of(frame, column, name, supports[name])
        array, seen = np.zeros(shape, values.dtype), np.zeros(shape, bool)
        array[who, place], seen[who, place] = values, there
        data[name] = array if there.all() else (array, seen)
    every, follows, available = np.zeros(shape), np.zeros(shape, bool), {}
    follows[who, place] = order.follows
    every[who, place] = 1.0 if reading.weights is None else weights_of(frame, reading.weights)
    for name, columns in reading.available.items():
        available[name] = np.ones((*shape, len(columns)), bool)
        available[name][who, place] = there_of(frame, columns, reading.variables.get(name), supports[name])
    return Panel(frame, ids, data, lengths, every, follows, available, (who, place), order.places, reading)


class Order(NamedTuple):
    """The rows of a data frame in the order of ids, as they come, and of times.

    Attributes:
        frame: the rows.
        places: where each stood.
        follows: whether the next row is the next step of the same id.
        first: of each id's first row the time; None: nobody knows.
    """

    frame: pd.DataFrame
    places: np.ndarray
    follows: np.ndarray
    first: np.ndarray | None


def ordered(frame: pd.DataFrame, reading: Reading) -> Order:
    """The rows in order.

    Raises:
        ValueError: see `panel_of`.
    """
    id, time, gaps = reading.id, reading.time, reading.gaps
    if gaps not in ("error", "close"):
        raise ValueError(f'gaps must be "error" or "close"; got {gaps!r}.')
    for what, column in (("id", id), ("time", time)):
        if column is not None and frame[column].isna().any():
            row = frame.index[frame[column].isna()][0]
            raise ValueError(f"row {row}: the {what} ({column!r}) is missing.")
    who = np.zeros(len(frame), int) if id is None else pd.factorize(frame[id])[0]
    when, known = (np.arange(len(frame)), False) if time is None else moments(frame[time], time)
    order = np.lexsort((when, who))
    found, who, when = frame.iloc[order], who[order], when[order]
    same = np.append(who[1:] == who[:-1], False)
    keys = [column for column in (id, time) if column is not None]
    twice = found.duplicated(keys, keep=False) if time is not None else pd.Series(False, found.index)
    if twice.any():
        rows = list(found.index[twice][:2])
        raise ValueError(f"rows {rows} have the same {' and '.join(keys)}: {dict(found.loc[rows[0], keys])}.")
    wide = np.flatnonzero(same & (np.append(np.diff(when), 1) != 1)) if known else np.zeros(0, int)
    if gaps == "error" and len(wide):
        name = "" if id is None else f"{id} {found[id].iloc[wide[0]]} "
        before, now = found[time].iloc[[wide[0], wide[0] + 1]]
        raise ValueError(
            f"{name}has times {before} and {now}, and none in between. Where what lacks is no matter, "
            'such as where the state is seen at each time, give gaps="close"; else add rows with missing values.'
        )
    follows = same.copy()
    follows[wide] = False
    first = when[np.append(True, who[1:] != who[:-1])] if known and gaps == "error" else None
    return Order(found, order, follows, first)


def check_beginnings(program: ControlProgram, order: Order, reading: Reading) -> None:
    """Raise where sequences begin at several times, and the time of a step matters.

    Raises:
        ValueError: so it is.
    """
    first, timed = order.first, program.structure.takes_time or (program.horizon is not None and is_rewarded(program))
    if first is None or not timed or np.all(first == first[0]):
        return
    raise ValueError(
        f"some sequences begin at {reading.time} {min(first):g}, others as late as {max(first):g}; to a program with "
        "an end the first row of each is its first step. Add rows with missing values, let times count from each "
        'sequence\'s own first step, or give gaps="close".'
    )
