"""A data frame of who did what and when, as arrays: one sequence for each id, rows in the order of time.

Nothing is dropped: a row that cannot be used is an error that names it.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.supports import is_finite, values_of

Columns = str | Sequence[str] | Mapping[str, str]
Availability = Sequence[str] | Mapping[str, Sequence[str]]


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


def names_of(columns: Columns | None, what: str, state: bool, program: ControlProgram) -> dict[str, str]:
    """The program's variables and the columns that hold them.

    Raises:
        TypeError: they are no names.
        ValueError: a variable is none of the program's, or it is not clear which one a column holds.
    """
    if columns is None:
        return {}
    known = list(program.state) if state else [site.name for site in program.structure.step.latent]
    if isinstance(columns, Mapping):
        found = dict(columns)
    elif isinstance(columns, str):
        wanted = known if state else list(program.scopes)
        if columns in known:
            found = {columns: columns}
        elif len(wanted) == 1:
            found = {wanted[0]: columns}
        else:
            raise ValueError(f"{what}={columns!r} may be any of {wanted}: give {{variable: column}}.")
    elif isinstance(columns, Sequence):
        found = {column: column for column in columns}
    else:
        raise TypeError(f"{what} must be a column, a list of them, or {{variable: column}}; got {columns!r}.")
    unknown = [name for name in found if name not in known]
    if unknown:
        raise ValueError(f"{what} names {unknown}; the program's are {known}.")
    return found


def availability_of(columns: Availability | None, program: ControlProgram) -> dict[str, list[str]]:
    """By decision the columns that say which of its alternatives were there.

    Raises:
        TypeError: they are no names.
        ValueError: it is not clear of which decision they are, or there is not one for each alternative.
    """
    if columns is None:
        return {}
    decisions = list(program.scopes)
    if isinstance(columns, str) or not isinstance(columns, Sequence | Mapping):
        raise TypeError(f"available must be a list of columns, one for each alternative; got {columns!r}.")
    if not isinstance(columns, Mapping):
        if len(decisions) > 1:
            raise ValueError(f"available may be of any of {decisions}: give {{decision: columns}}.")
        columns = {decisions[0]: columns}
    for name, each in columns.items():
        if name not in decisions or not is_finite(program.supports[name]):
            raise ValueError(f"available names {name!r}; the program's decisions are {decisions}.")
        values = np.asarray(values_of(program.supports[name])).tolist()
        if len(each) != len(values):
            raise ValueError(f"available has {len(each)} columns for {name!r}, whose alternatives are {values}.")
    return {name: list(each) for name, each in columns.items()}


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
    frame, order = ordered(frame, reading)
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
    every, available = np.zeros(shape), {}
    every[who, place] = 1.0 if reading.weights is None else weights_of(frame, reading.weights)
    for name, columns in reading.available.items():
        available[name] = np.ones((*shape, len(columns)), bool)
        available[name][who, place] = there_of(frame, columns, reading.variables.get(name), supports[name])
    return Panel(frame, ids, data, lengths, every, available, (who, place), order, reading)


def ordered(frame: pd.DataFrame, reading: Reading) -> tuple[pd.DataFrame, np.ndarray]:
    """The rows in the order of ids, as they come, and of times; and where each stood.

    Raises:
        ValueError: see `panel_of`.
    """
    id, time, gaps = reading.id, reading.time, reading.gaps
    for what, column in (("id", id), ("time", time)):
        if column is not None and frame[column].isna().any():
            row = frame.index[frame[column].isna()][0]
            raise ValueError(f"row {row}: the {what} ({column!r}) is missing.")
    who = np.zeros(len(frame), int) if id is None else pd.factorize(frame[id])[0]
    if time is None:
        order = np.argsort(who, kind="stable")
        return frame.iloc[order], order
    order = np.lexsort((frame[time].to_numpy(), who))
    found = frame.iloc[order]
    keys = [column for column in (id, time) if column is not None]
    twice = found.duplicated(keys, keep=False)
    if twice.any():
        rows = list(found.index[twice][:2])
        raise ValueError(f"rows {rows} have the same {' and '.join(keys)}: {dict(found.loc[rows[0], keys])}.")
    if gaps not in ("error", "close"):
        raise ValueError(f'gaps must be "error" or "close"; got {gaps!r}.')
    if gaps == "error" and pd.api.types.is_integer_dtype(found[time]):
        step = found[time].diff().to_numpy()
        same = np.arange(len(found)) > 0
        if id is not None:
            same &= (found[id] == found[id].shift()).to_numpy()
        wide = np.flatnonzero(same & (step != 1))
        if len(wide):
            who = "" if id is None else f"{id} {found[id].iloc[wide[0]]} "
            before, now = found[time].iloc[[wide[0] - 1, wide[0]]]
            raise ValueError(
                f"{who}has times {before} and {now}, and none in between. Where what lacks is no matter, "
                'such as where the state is seen at each time, give gaps="close"; else add rows with missing values.'
            )
    return found, order


def column_of(frame: pd.DataFrame, column: str, name: str, support: Any) -> tuple[np.ndarray, np.ndarray]:
    """The values of a column, and where they are there.

    Raises:
        ValueError: they are no numbers, or none that the variable takes.
    """
    series = frame[column]
    if not (pd.api.types.is_numeric_dtype(series) or pd.api.types.is_bool_dtype(series)):
        raise ValueError(
            f"the column {column!r} holds {series.dtype}, and {name!r} is numbers; "
            f"pandas.factorize(frame[{column!r}])[0] makes numbers of names."
        )
    there = series.notna().to_numpy()
    if not is_finite(support):
        return series.to_numpy(float, na_value=0.0), there
    values, known = series.to_numpy(float, na_value=np.nan), np.array(list(support), float)
    wrong = np.flatnonzero(there & ~np.isin(values, known))
    if len(wrong):
        takes = f"{known[0]:g} to {known[-1]:g}" if isinstance(support, range) else str(list(support))
        raise ValueError(
            f"row {frame.index[wrong[0]]}: {column!r} is {values[wrong[0]]:g}, and {name!r} takes the values {takes}."
        )
    filled = np.where(there, values, known[0])
    return filled.astype(int) if isinstance(support, range) else filled, there


def weights_of(frame: pd.DataFrame, column: str) -> np.ndarray:
    """The weights of the rows.

    Raises:
        ValueError: one is missing, infinite or below 0.
    """
    values = frame[column].to_numpy(float, na_value=np.nan)
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(wrong):
        raise ValueError(f"row {frame.index[wrong[0]]}: the weight is {values[wrong[0]]}; it must be at least 0.")
    return values


def there_of(frame: pd.DataFrame, columns: list[str], taken: str | None, support: Any) -> np.ndarray:
    """Whether each alternative was there, (rows, K).

    Raises:
        ValueError: a column holds anything but true and false, or 1 and 0; a row leaves no alternative; one was taken
            that was not there.
    """
    found = np.stack([frame[column].to_numpy(float, na_value=np.nan) for column in columns], 1)
    wrong = np.argwhere(~np.isin(found, (0.0, 1.0)))
    if len(wrong):
        row, k = wrong[0]
        raise ValueError(f"row {frame.index[row]}: {columns[k]!r} is {found[row, k]}; it must be true or false.")
    there = found > 0
    if not there.any(1).all():
        raise ValueError(f"row {frame.index[np.argmin(there.any(1))]}: none of {columns} is true.")
    if taken is not None:
        values = np.asarray(values_of(support)).tolist()
        made = frame[taken].to_numpy(float, na_value=np.nan)
        wrong = np.argwhere((made[:, None] == np.array(values, float)) & ~there)
        if len(wrong):
            row, k = wrong[0]
            raise ValueError(
                f"row {frame.index[row]}: {taken!r} is {values[k]}, and that was not there ({columns[k]!r} is false)."
            )
    return there
