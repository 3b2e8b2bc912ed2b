"""The command `rlinf`: list the cases, show one, draw its graph, recover them all.

Answers go to standard output, progress and errors to standard error. Exit codes: 0 done, 1 a file could not be
written, 2 something was asked for that does not exist, 130 interrupted. JAX, NumPyro and the plotting libraries are
imported by the commands that need them, so that `rlinf --help` answers at once.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import io
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from rlinf_ppl.report.case import Case
    from rlinf_ppl.report.table import AnyRow

PHASES = ("building", "solving", "fitting", "conditioning", "fitting by samples", "moving particles", "drawing")

EXAMPLES = """
Control is inference in a program of one time step: solve it exactly, fit its guide, condition it on optimality.

\b
Examples:
  rlinf list                                   the cases
  rlinf show lottery                           its maths, its graph, its task
  rlinf graph lottery --out lottery.png        a drawing of one time step
  rlinf recover                                every case: tables, and figures in results/
  rlinf recover lottery taxi --json            two cases, as JSON on standard output
"""

app = typer.Typer(
    help=EXAMPLES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Runs the command line. What the terminal's encoding lacks is shown as a question mark."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    # Whoever is told to end cleans up, as on an interrupt.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with plain_endings():
            app(prog_name="rlinf")
    except typer.Exit as end:
        sys.exit(end.exit_code)


@contextmanager
def plain_endings() -> Iterator[None]:
    """Ends a command by one line and an exit code where the user interrupts it or a file cannot be written."""
    try:
        yield
    except KeyboardInterrupt:
        fail("interrupted", 130)
    except BrokenPipeError:  # whoever reads has had enough, which click ends quietly
        raise
    except OSError as error:
        fail(f"cannot write {error.filename or 'to standard output'}: {error.strerror or error}", 1)


def fail(message: str, code: int) -> None:
    """Says what is wrong on standard error and ends the command.

    Raises:
        typer.Exit: Always.
    """
    typer.echo(f"rlinf: {message}", err=True)
    raise typer.Exit(code)


def show_version(asked: bool) -> bool:
    """Prints the version and ends the command, if asked to; else hands the option's value on."""
    if asked:
        from rlinf_ppl import __version__

        typer.echo(f"rlinf_ppl {__version__}")
        raise typer.Exit
    return asked


@app.callback(help=EXAMPLES)
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What every command accepts."""


@app.command("list", short_help="list the cases", help="List the cases by name.\n\nExample: rlinf list")
@plain_endings()
def list_cases() -> None:
    """One line a case: its name, model, horizon, discount, inverse temperature and title."""
    from rlinf_ppl.report import horizons
    from rlinf_ppl.report.cases import CASES

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("name", "model", "horizon", "discount", "beta", "what it is"):
        numeric = title in ("horizon", "discount", "beta")
        table.add_column(title, justify="right" if numeric else "left", no_wrap=True)
    for case in CASES:
        beta = "found" if case.beta is None else f"{case.beta:g}"
        numbers = horizons.written(case.horizon), f"{case.discount:g}", beta
        table.add_row(case.name, case.model.__name__, *numbers, case.title)
    show_table(table)


@app.command(
    short_help="show a case in words",
    help="Show a case: its maths, the graph and scopes of its program, and its task.\n\nExample: rlinf show lottery",
)
@plain_endings()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from `rlinf list`.", show_default=False)],
) -> None:
    """The case in words."""
    case = chosen([name])[0]
    from rlinf_ppl.report import graphs
    from rlinf_ppl.report.facts import task_facts

    task = case.task()
    program = case.program(task)
    parts = {
        case.title: [],
        "Task": task_facts(task),
        "Model": [f"{case.model.__name__}, {case.setting}"],
        "Maths": maths(case.model).splitlines(),
        "One time step": graphs.describe(program.graph()),
        **({"Note": textwrap.wrap(case.note, 110)} if case.note else {}),
        "Scopes": [f"q({decision} | {', '.join(scope) or 'nothing'})" for decision, scope in program.scopes.items()],
    }
    for title, lines in parts.items():
        typer.secho(title, bold=True)
        typer.echo("\n".join(f"  {line}".rstrip() for line in lines) + ("\n" if lines else ""))


@app.command(
    short_help="draw the graph of a case",
    help="Draw the graph of a case's time step.\n\nExample: rlinf graph lottery --out lottery.png",
)
@plain_endings()
def graph(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from `rlinf list`.", show_default=False)],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The picture; its ending says which kind (png, svg, pdf).")
    ] = Path("graph.png"),
) -> None:
    """Writes the picture of one time step."""
    case = chosen([name])[0]
    if out.suffix.lower() not in (".png", ".svg", ".pdf"):
        fail(f"cannot draw {str(out)!r}: a picture's name ends in .png, .svg or .pdf", 2)
    from rlinf_ppl.report import graphs
    from rlinf_ppl.report.looks import save_figure

    figure = graphs.draw(case.program(case.task()).graph(), f"{case.name}: one time step")
    out.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, out)
    typer.echo(str(out))


@app.command(
    short_help="solve, fit and condition cases",
    help="Solve cases exactly, condition them on optimality, fit their guides by exact and sampled gradients, move "
    "particles; print the answers side by side.\n\n"
    "\b\nExamples:\n  rlinf recover\n  rlinf recover lottery cliff-walking --json --out results --seed 1",
)
@plain_endings()
def recover(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Names from `rlinf list`; all cases if none is given.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the tables as JSON.")] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where figures, posteriors and the tables go.")] = Path(
        "results"
    ),
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of every random number.")] = 0,
) -> None:
    """Recovers the cases and writes what belongs to them."""
    cases = chosen(names or [])
    rows = recover_all(cases, out, seed)
    from rlinf_ppl.report import table

    if as_json:
        typer.echo(table.to_json(rows))
    else:
        for each in table.rich_tables(rows):
            show_table(each)
        typer.echo(f"Figures, graphs and posteriors (of exact cases; netCDF, for ArviZ) are in {out}/<task>/.")


def recover_all(cases: Sequence[Case], out: Path, seed: int) -> list[AnyRow]:
    """Recovers one case after the other under a progress bar, and writes figures and tables.

    Computes in float64: the differences between the answers are far below what float32 resolves.
    """
    import jax

    jax.config.update("jax_enable_x64", True)
    from rlinf_ppl.report import recoveries, results
    from rlinf_ppl.report.cases import CASES

    out.mkdir(parents=True, exist_ok=True)
    rows: list[AnyRow] = []
    *keys, key_games = jax.random.split(jax.random.key(seed), len(cases) + 1)
    with progress_bar(len(cases) * len(PHASES) + 1) as begin:
        for case, key in zip(cases, keys, strict=True):
            rows.append(recoveries.recover(case, key, out, functools.partial(begin, case.name)))
        if len(cases) == len(CASES):
            begin("games", "learning from samples")
            results.write_games(key_games, out)
    results.write_table(rows, out)
    return rows


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[str, str], None]]:
    """A progress bar on standard error; yields a function (case, phase) to call as each of `total` phases begins."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<41}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        work = progress.add_task("starting", total=total)
        begun = 0

        def begin(case: str, phase: str) -> None:
            nonlocal begun
            progress.update(work, description=f"{case}: {phase}", completed=begun)
            begun += 1

        yield begin
        progress.update(work, completed=total)


def chosen(names: Sequence[str]) -> list[Case]:
    """The cases of these names without repetition, in the order given; all of them for no names.

    Raises:
        typer.Exit: With code 2 where a name belongs to no case, after saying which names come close.
    """
    from rlinf_ppl.report import cases

    for name in names:
        if name not in cases.names():
            close = difflib.get_close_matches(name, cases.names(), n=3, cutoff=0.5)
            near = " or ".join(known for known in cases.names() if known in close)
            fail(f"no case is named {name!r}; {f'did you mean {near}?' if near else 'see `rlinf list`.'}", 2)
    return [cases.find(name) for name in dict.fromkeys(names or cases.names())]


def maths(model: Callable[..., Any]) -> str:
    """The mathematics of a model: it opens the file that the model stands in."""
    module = inspect.getmodule(model)
    return inspect.cleandoc((module and module.__doc__) or model.__doc__ or "")


def show_table(table: Table) -> None:
    """Prints a table whole, also where standard output is narrower or no terminal."""
    console = Console()
    needed = console.measure(table, options=console.options.update(max_width=1000)).maximum
    Console(width=max(console.width, needed)).print(table)


if __name__ == "__main__":
    main()
