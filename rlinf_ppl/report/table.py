"""The tables of the recovery: on a terminal, as strict JSON and as Markdown, from one list of columns each."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from rlinf_ppl.report import engines, fitted, hidden, horizons, searches, signals
from rlinf_ppl.report.fitted import FittedRow
from rlinf_ppl.report.hidden import HiddenRow
from rlinf_ppl.report.recovery import Row
from rlinf_ppl.report.searches import SearchRow
from rlinf_ppl.report.signals import SignalRow

if TYPE_CHECKING:
    from rich.table import Table


DASH = "–"


class Column(NamedTuple):
    """One column: the row's field, what stands above it, its unit, and how a value is written."""

    field: str
    title: str
    unit: str
    write: Callable[[Any], str]


def decimals(number: float | None) -> str:
    """Four digits after the point, and no minus before a zero; a dash where there is no number."""
    return DASH if number is None else f"{round(number, 4) + 0.0:.4f}"


def scientific(number: float | None) -> str:
    """Two significant digits and an exponent; a dash where there is no number."""
    return DASH if number is None else f"{number:.1e}"


ANSWERS: tuple[Column, ...] = (
    Column("task", "task", "", str),
    Column("states", "states", "", str),
    Column("actions", "actions", "", str),
    Column("horizon", "horizon", "steps", horizons.written),
    Column("discount", "discount", "", "{:g}".format),
    Column("soft_value", "soft value", "nats", decimals),
    Column("log_evidence", "log evidence", "nats", decimals),
    Column("gap", "gap", "nats", decimals),
    Column("seconds", "time", "s", lambda seconds: f"{seconds:.1f}"),
)
"""The cases and their exact answers."""

ENGINES: tuple[Column, ...] = (
    Column("task", "task", "", str),
    Column("soft_value", "soft value", "nats", decimals),
    Column("elbo", "SVI ELBO", "nats", decimals),
    Column("sampled_elbo", "sampled SVI ELBO", "nats", decimals),
    Column("kl", "SVI KL", "nats", scientific),
    Column("sampled_kl", "sampled SVI KL", "nats", scientific),
    Column("policy_error", "SVI policy error", "max", scientific),
    Column("log_evidence", "log evidence", "nats", decimals),
    Column("smc_log_evidence", "SMC log evidence", "nats", decimals),
    Column("smc_error", "SMC - exact", "nats", decimals),
    Column("smc_standard_error", "standard error", "nats", decimals),
)
"""What each engine makes of them, beside its exact counterpart."""

FITTED: tuple[Column, ...] = (
    Column("task", "task", "", str),
    Column("states", "states", "", str),
    Column("horizon", "horizon", "steps", horizons.written),
    Column("discount", "discount", "", "{:g}".format),
    Column("start", "ELBO at the start", "reward", decimals),
    Column("elbo", "SVI ELBO", "reward", decimals),
    Column("earned", "return", "reward", decimals),
    Column("standard_error", "standard error", "reward", decimals),
    Column("paid", "paid", "reward", decimals),
    Column("seconds", "time", "s", lambda seconds: f"{seconds:.1f}"),
)
"""Cases without a closed form: what a fit of their guides reaches, and what that earns when it is played."""

HIDDEN: tuple[Column, ...] = (
    Column("task", "task", "", str),
    Column("states", "states", "", str),
    Column("horizon", "horizon", "steps", str),
    Column("discount", "discount", "", "{:g}".format),
    Column("beta", "beta", "", "{:g}".format),
    Column("memoryless", "ELBO memoryless", "reward", decimals),
    Column("two_memories", "ELBO two memories", "reward", decimals),
    Column("lower", "lower bound", "reward", decimals),
    Column("upper", "upper bound", "reward", decimals),
    Column("earned", "return", "reward", decimals),
    Column("standard_error", "standard error", "reward", decimals),
    Column("seconds", "time", "s", lambda seconds: f"{seconds:.1f}"),
)
"""One agent under hidden state: policies of little memory, and what remembering all is worth."""

SIGNALS: tuple[Column, ...] = (
    Column("task", "task", "", str),
    Column("states", "states", "", str),
    Column("horizon", "horizon", "steps", str),
    Column("discount", "discount", "", "{:g}".format),
    Column("beta", "beta", "", "{:g}".format),
    Column("elbo", "SVI ELBO", "reward", decimals),
    Column("earned", "return", "reward", decimals),
    Column("upper", "coordinator's hard value", "reward", decimals),
    Column("reached", "starts at the best", "", str),
    Column("starts", "starts", "", str),
    Column("seconds", "time", "s", lambda seconds: f"{seconds:.1f}"),
)
"""Two who see different things: what the best signals that were found win, and the most that could be won."""

SEARCHES: tuple[Column, ...] = (
    Column("task", "task", "", str),
    Column("states", "states", "", str),
    Column("actions", "actions", "", str),
    Column("horizon", "horizon", "steps", str),
    Column("start", "cost at the start", "reward", decimals),
    Column("gps", "GPS", "reward", decimals),
    Column("saps", "SAPS", "reward", decimals),
    Column("esaps", "ESAPS", "reward", decimals),
    Column("ilqr", "iLQR, no noise", "reward", decimals),
    Column("seconds", "time", "s", lambda seconds: f"{seconds:.1f}"),
)
"""Nonlinear systems: what policy search within bounds comes to, by roll-outs alone."""

AnyRow: TypeAlias = Row | FittedRow | HiddenRow | SignalRow | SearchRow

TITLE_OF_FITS = "Fitted guides, no closed form"
TABLES: tuple[tuple[str, type[AnyRow], Sequence[Column]], ...] = (
    ("Exact answers", Row, ANSWERS),
    ("Engines side by side", Row, ENGINES),
    (TITLE_OF_FITS, FittedRow, FITTED),
    ("Hidden state", HiddenRow, HIDDEN),
    ("Two who signal", SignalRow, SIGNALS),
    ("Policy search", SearchRow, SEARCHES),
)
"""Each table: its title, the rows that it shows, and its columns."""

SETTINGS: Mapping[type[AnyRow], str] = MappingProxyType(
    {FittedRow: fitted.SETTINGS, HiddenRow: hidden.SETTINGS, SignalRow: signals.SETTINGS, SearchRow: searches.SETTINGS}
)
"""What the reader needs to know of rows without a closed form."""


class Part(NamedTuple):
    """One table with its rows."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[AnyRow]


def parts(rows: Sequence[AnyRow]) -> list[Part]:
    """The tables that have rows."""
    found = [Part(title, columns, [row for row in rows if isinstance(row, kind)]) for title, kind, columns in TABLES]
    return [part for part in found if part.rows]


def rich_tables(rows: Sequence[AnyRow]) -> list[Table]:
    """The tables for a terminal, with remarks beneath the last; a fit that did not converge is marked by a star."""
    tables = [rich_table(*part) for part in parts(rows)]
    tables[-1].caption = "\n".join(remarks(rows))
    return tables


def rich_table(title: str, columns: Sequence[Column], rows: Sequence[AnyRow]) -> Table:
    """One table for a terminal."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        caption_justify="left",
        header_style="bold",
    )
    for column in columns:
        header = "\n".join([*column.title.split(), f"({column.unit})" if column.unit else ""])
        table.add_column(
            header.strip(), justify="left" if column.field == "task" else "right", vertical="bottom", no_wrap=True
        )
    for row in rows:
        table.add_row(*cells(columns, row))
    return table


def markdown(rows: Sequence[AnyRow]) -> str:
    """The tables as Markdown, one line a task, and the remarks."""
    texts = [text for part in parts(rows) for text in (f"## {part.title}", markdown_table(part.columns, part.rows))]
    return "\n\n".join([*texts, *remarks(rows)]) + "\n"


def markdown_table(columns: Sequence[Column], rows: Sequence[AnyRow]) -> str:
    """One table as Markdown."""
    heads = [f"{column.title} ({column.unit})" if column.unit else column.title for column in columns]
    rules = ["---" if column.field == "task" else "---:" for column in columns]
    lines = [heads, rules, *(cells(columns, row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cells(columns: Sequence[Column], row: AnyRow) -> list[str]:
    """The written values of one row, in the order of the columns."""
    written = [column.write(getattr(row, column.field)) for column in columns]
    if not row.converged:
        written[0] += " *"
    return written


def remarks(rows: Sequence[AnyRow]) -> list[str]:
    """What the reader needs beside the numbers, and for each dash why a number is missing."""
    exact = [row for row in rows if isinstance(row, Row)]
    texts = [] if all(row.converged for row in rows) else ["* the fit did not converge."]
    texts += [text for kind, text in SETTINGS.items() if any(isinstance(row, kind) for row in rows)]
    if not exact:
        return texts
    text = (
        "gap = log evidence - soft value. KL = KL(fit ‖ exact) between trajectories; policy error over every "
        "conditioning value that the prior can produce, and over gains, offsets and covariances where variables are "
        "vectors."
    )
    others = {row.unit: [each.task for each in exact if each.unit == row.unit] for row in exact if row.unit != "nats"}
    values = [f"{', '.join(tasks)}: soft value and ELBO in {unit}." for unit, tasks in others.items()]
    return [text, *texts, engines.SETTINGS, *dashes(exact), *values]


def dashes(rows: Sequence[Row]) -> list[str]:
    """For each dash why a number is missing, and every reason once."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for reason in dict.fromkeys(row.missing.values()):
            names = ", ".join(name for name, its in row.missing.items() if its == reason)
            found.setdefault((names, reason), []).append(row.task)
    return [f"{DASH} {names} of {', '.join(tasks)}: {reason}" for (names, reason), tasks in found.items()]


def to_json(rows: Sequence[AnyRow]) -> str:
    """The rows as a strict JSON list of objects, fields as in its kind of row; what is not finite becomes null."""
    return json.dumps(
        [{name: finite(value) for name, value in row._asdict().items()} for row in rows], indent=2, allow_nan=False
    )


def finite(value: Any) -> Any:
    """The value, or None in place of a float that JSON has no literal for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
