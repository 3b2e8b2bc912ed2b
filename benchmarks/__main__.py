"""Run the benchmarks: `python -m benchmarks [NAME...] [--json FILE] [--quick] [--check] [--list]`."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from benchmarks import (
    calibration,
    coverage,
    dense,
    dynamic_choice,
    gaussian,
    hidden_markov,
    hidden_states,
    hidden_vectors,
    learners,
    memory,
    particle_filter,
    policy_search,
    price,
    resource_allocation,
    signals,
    sparse,
    subjects,
    swing_ups,
    tabular_fit,
    teams,
)
from benchmarks.measure import Line, Mismatch, Settings, load, machine

ROWS: dict[str, Callable[[Settings], Iterator[Line]]] = {
    "P1": dense.one,
    "P1b": dense.many,
    "P2": sparse.one_sweep,
    "P3": sparse.fixed_point,
    "grid": sparse.million,
    "P4": hidden_markov.run,
    "P5": particle_filter.run,
    "P6": tabular_fit.run,
    "P7": gaussian.run,
    "P8": dynamic_choice.run,
    "P9": swing_ups.run,
    "searches": policy_search.run,
    "teams": teams.run,
    "calibration": calibration.run,
    "coverage": coverage.run,
    "subjects": subjects.run,
    "learners": learners.run,
    "memories": resource_allocation.run,
    "hidden": hidden_states.run,
    "roots": memory.roots,
    "temperature": memory.temperature,
    "price": price.run,
    "signals": signals.run,
    "lqg": hidden_vectors.lqg,
    "fog": hidden_vectors.fog,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the rows that were asked for; 1 on wrong answers, and with --check on a missed target."""
    options = parse(arguments)
    if options.list:
        print(*(options.names or ROWS), sep="\n")
        return 0
    jax.config.update("jax_enable_x64", True)
    progress = Console(stderr=True)
    settings = Settings(options.quick, lambda text: progress.print(f"[dim]{text}"))
    facts = machine() | {"load_before": load(), "quick": options.quick}
    lines: list[Line] = []
    try:
        for name in options.names or ROWS:
            lines += ROWS[name](settings)
    except Mismatch as error:
        progress.print(f"[bold red]wrong answer:[/] {error}")
        return 1
    finally:
        # What was found before an error is worth reading.
        facts["load_after"] = load()
        show(lines, facts)
    if options.json:
        report = {"machine": facts, "lines": [line._asdict() for line in lines]}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return int(options.check and any(line.passed is False for line in lines))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="The library against its peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"rows to run, of {', '.join(ROWS)}; default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to a file")
    parser.add_argument("--quick", action="store_true", help="toy sizes: shows that it runs, targets mean little")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a target is missed")
    parser.add_argument("--list", action="store_true", help="only name the rows, one a line")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in ROWS]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    return options


def show(lines: list[Line], facts: dict[str, Any]) -> None:
    """Print the machine and the table."""
    console = Console(width=None if sys.stdout.isatty() else 150)
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    console.print(f"{facts['processor']}, {facts['cores']} cores, {facts['system']}, Python {facts['python']}")
    console.print(f"{versions}; load average {facts['load_before']:.1f} before, {facts['load_after']:.1f} after")
    table = Table()
    for column, justify in (("row", "left"), ("what", "left"), ("figure", "right"), ("target", "right")):
        table.add_column(column, justify=justify, no_wrap=column != "what")
    table.add_column("")
    table.add_column("note", style="dim")
    verdicts = {None: "", True: "[green]pass", False: "[bold red]MISS"}
    for line in lines:
        table.add_row(line.row, line.what, written(line), line.target, verdicts[line.passed], line.note)
    console.print(table)


def written(line: Line) -> str:
    """A figure with its unit."""
    if line.value is None:
        return "skipped"
    digits = {"x": ".2f", "ms": ".2f", "us": ".2f", "s": ".2f", "MiB": ".0f", "steps": ".0f", "%": ".0f"}.get(
        line.unit, ".4f"
    )
    return f"{line.value:{digits}}{line.unit if line.unit == 'x' else ' ' + line.unit}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
