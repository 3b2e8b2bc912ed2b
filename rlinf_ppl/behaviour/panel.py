"""A data frame of who did what and when, as arrays: one sequence for each id, rows in the order of time.

Nothing is dropped: a row that cannot be used is an error that names it.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.supports import is_finite

Columns = str | Sequence[str] | Mapping[str, str]


class Panel(NamedTuple):
    """Sequences of one length, the shorter ones filled up.

    Attributes:
        frame: the data frame in the order of ids and times.
        ids: of each sequence.
        data: by the program's names (n, T) values, and where they were seen if some are missing.
        lengths: how many rows each sequence has.
        weights: of each row (n, T).
        places: of each row of the frame its sequence and its place there.
    """

    frame: pd.DataFrame
    ids: list[Hashable]
    data: dict[str, Any]
    lengths: np.ndarray
    weights: np.ndarray
    places: tuple[np.ndarray, np.ndarray]

    def rows(self, array: Any) -> np.ndarray:
        """What stands in (n, T) at each row of the frame."""
        return np.asarray(array)[self.places]


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


def panel_of(
    frame: Any,
    program: ControlProgram,
    variables: Mapping[str, str],
    id: str | None,
    time: str | None,
    weights: str | None,
    gaps: str,
) -> Panel:
    """The arrays of a data frame.

    Args:
        frame: one row for each id and time.
        program: whose variables they are.
        variables: by the program's names the columns.
        id: the column of who it was; None: one sequence.
        time: the column of when; None: rows are in order.
        weights: the column of weights; None: 1.
        gaps: "error", or "close" where times that lack in between do not matter.

    Raises:
        TypeError: it is no data frame.
        ValueError: columns lack; an id or time is missing, or twice there; times have gaps; values that a variable does
            not take; weights below 0.
    """
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(
            f"behaviour takes a data frame of pandas, a row for each id and time; got {type(frame).__name__}."
        )
    if not len(frame):
        raise ValueError("the data frame has no rows.")
    wanted = [*variables.values(), *(column for column in (id, time, weights) if column is not None)]
    lacking = [column for column in wanted if column not in frame.columns]
    if lacking:
        raise ValueError(f"the data frame has no column {lacking}; it has {list(frame.columns)}.")
    frame = ordered(frame, id, time, gaps)
    who = np.zeros(len(frame), int) if id is None else pd.factorize(frame[id])[0]
    ids = [None] if id is None else list(dict.fromkeys(frame[id]))
    lengths = np.bincount(who)
    place = np.concatenate([np.arange(n) for n in lengths])
    shape = len(lengths), int(lengths.max())
    supports = program.supports
    data = {}
    for name, column in variables.items():
        values, there = column_of(frame, column, name, supports[name])
        array, seen = np.zeros(shape, values.dtype), np.zeros(shape, bool)
        array[who, place], seen[who, place] = values, there
        data[name] = array if there.all() else (array, seen)
    every = np.zeros(shape)
    every[who, place] = 1.0 if weights is None else weights_of(frame, weights)
    return Panel(frame, ids, data, lengths, every, (who, place))


def ordered(frame: pd.DataFrame, id: str | None, time: str | None, gaps: str) -> pd.DataFrame:
    """The rows in the order of ids, as they come, and of times.

    Raises:
        ValueError: see `panel_of`.
    """
    for what, column in (("id", id), ("time", time)):
        if column is not None and frame[column].isna().any():
            row = frame.index[frame[column].isna()][0]
            raise ValueError(f"row {row}: the {what} ({column!r}) is missing.")
    order = pd.Series(0, frame.index) if id is None else pd.Series(pd.factorize(frame[id])[0], frame.index)
    if time is None:
        return frame.iloc[np.argsort(order.to_numpy(), kind="stable")]
    found = frame.iloc[np.lexsort((frame[time].to_numpy(), order.to_numpy()))]
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
    return found


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
