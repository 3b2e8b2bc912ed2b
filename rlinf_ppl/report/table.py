"""The table of the recovery: on a terminal, as strict JSON and as Markdown, from one list of columns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rlinf_ppl.report import horizons
from rlinf_ppl.report.recovery import Row

if TYPE_CHECKING:
    from rich.table import Table


class Column(NamedTuple):
    """One column: the row's field, what stands above it, its unit, and how a value is written."""

    field: str
    title: str
    unit: str
    write: Callable[[Any], str]


def decimals(number: float | None) -> str:
    """Four digits after the point, and no minus before a zero; a dash where there is no number."""
    return "–" if number is None else f"{round(number, 4) + 0.0:.4f}"


def scientific(number: float) -> str:
    """Two significant digits and an exponent."""
    return f"{number:.1e}"


COLUMNS: tuple[Column, ...] = (
    Column("task", "task", "", str),
    Column("states", "states", "", str),
    Column("actions", "actions", "", str),
    Column("horizon", "horizon", "steps", horizons.written),
    Column("discount", "discount", "", "{:g}".format),
    Column("soft_value", "soft value", "nats", decimals),
    Column("elbo", "ELBO", "nats", decimals),
    Column("kl", "KL(fit ‖ exact)", "nats", scientific),
    Column("policy_error", "policy error", "max", scientific),
    Column("log_evidence", "log evidence", "nats", decimals),
    Column("gap", "gap", "nats", decimals),
    Column("seconds", "time", "s", lambda seconds: f"{seconds:.1f}"),
)


def rich_table(rows: Sequence[Row]) -> Table:
    """The table for a terminal; a fit that did not converge is marked by a star."""
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        caption="\n".join(remarks(rows)),
        caption_justify="left",
        header_style="bold",
    )
    for column in COLUMNS:
        header = "\n".join([*column.title.split(), f"({column.unit})" if column.unit else ""])
        table.add_column(
            header.strip(), justify="left" if column.field == "task" else "right", vertical="bottom", no_wrap=True
        )
    for row in rows:
        table.add_row(*cells(row))
    return table


def markdown(rows: Sequence[Row]) -> str:
    """The table as Markdown, one line a task."""
    heads = [f"{column.title} ({column.unit})" if column.unit else column.title for column in COLUMNS]
    rules = ["---" if column.field == "task" else "---:" for column in COLUMNS]
    lines = [heads, rules, *(cells(row) for row in rows)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join([table, *remarks(rows)]) + "\n"


def cells(row: Row) -> list[str]:
    """The written values of one row, in the order of the columns."""
    written = [column.write(getattr(row, column.field)) for column in COLUMNS]
    if not row.converged:
        written[0] += " *"
    return written


def remarks(rows: Sequence[Row]) -> list[str]:
    """What the reader needs beside the numbers, and for each dash why a number is missing."""
    text = (
        "gap = log evidence - soft value; policy error over every conditioning value that the prior can produce, "
        "over gains, offsets and covariances where variables are vectors."
    )
    text = text if all(row.converged for row in rows) else text + " * the fit did not converge."
    values = [f"{row.task}: soft value and ELBO in {row.unit}." for row in rows if row.unit != "nats"]
    return [text, *(f"– {row.task}: {row.missing}" for row in rows if row.missing), *values]


def to_json(rows: Sequence[Row]) -> str:
    """The rows as a strict JSON list of objects, fields as in `Row`; a number that is not finite becomes null."""
    return json.dumps(
        [{name: finite(value) for name, value in row._asdict().items()} for row in rows], indent=2, allow_nan=False
    )


def finite(value: Any) -> Any:
    """The value, or None in place of a float that JSON has no literal for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
