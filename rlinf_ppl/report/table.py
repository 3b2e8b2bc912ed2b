"""The tables of the recovery: on a terminal, as strict JSON and as Markdown, from one list of columns each."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from rlinf_ppl.report import engines, fitted, horizons
from rlinf_ppl.report.fitted import FittedRow
from rlinf_ppl.report.recovery import Row

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

EXACT = {"Exact answers": ANSWERS, "Engines side by side": ENGINES}
TITLE_OF_FITS = "Fitted guides, no closed form"

AnyRow: TypeAlias = Row | FittedRow


class Part(NamedTuple):
    """One table with its rows."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[AnyRow]


def parts(rows: Sequence[AnyRow]) -> list[Part]:
    """The tables that have rows."""
    exact, fits = ([row for row in rows if isinstance(row, kind)] for kind in (Row, FittedRow))
    found = [Part(title, columns, exact) for title, columns in EXACT.items()] + [Part(TITLE_OF_FITS, FITTED, fits)]
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
    if len(exact) < len(rows):
        texts.append(fitted.SETTINGS)
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
    """The rows as a strict JSON list of objects, fields as in `Row` or `FittedRow`; what is not finite becomes null."""
    return json.dumps(
        [{name: finite(value) for name, value in row._asdict().items()} for row in rows], indent=2, allow_nan=False
    )


def finite(value: Any) -> Any:
    """The value, or None in place of a float that JSON has no literal for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
