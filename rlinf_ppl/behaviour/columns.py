"""The columns of a data frame: which variables they hold, and their values, checked."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.supports import is_finite, values_of

Columns = str | Sequence[str] | Mapping[str, str]
Availability = Sequence[str] | Mapping[str, Sequence[str]]


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


def moments(series: pd.Series, column: str) -> tuple[np.ndarray, bool]:
    """The times of the rows as numbers that have their order, and whether it is known which ones lack.

    Raises:
        ValueError: they are words, which have none.
    """
    if isinstance(series.dtype, pd.CategoricalDtype) and series.dtype.ordered:
        return series.cat.codes.to_numpy(), True
    if pd.api.types.is_datetime64_any_dtype(series) or isinstance(series.dtype, pd.PeriodDtype):
        return series.rank(method="dense").to_numpy(), False
    if not pd.api.types.is_numeric_dtype(series):
        raise ValueError(
            f"the times ({column!r}) are {series.dtype}, which have no order: give numbers, dates, or an ordered "
            "categorical."
        )
    when = series.to_numpy(float)
    return when, bool(np.all(when == np.round(when)))


def column_of(frame: pd.DataFrame, column: str, name: str, support: Any) -> tuple[np.ndarray, np.ndarray]:
    """The values of a column, and where they are there.

    Raises:
        ValueError: they are no numbers, or none that the variable takes.
    """
    series = frame[column]
    if not (pd.api.types.is_numeric_dtype(series) or pd.api.types.is_bool_dtype(series)):
        raise ValueError(
            f"the column {column!r} holds {series.dtype}, and {name!r} is numbers: say which number each is, such as "
            f"frame[{column!r}].map({{...: 0, ...: 1}})."
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
