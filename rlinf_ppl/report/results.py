"""What a recovery leaves on disk.

    results/table.json, table.md     one row a case
    results/<case>/policy.png        the exact answers at the first time step, of vectors at all times
    results/<case>/fit.png           the ELBO of the fit, step by step
    results/<case>/graph.png         the graph of one time step
    results/<case>/temperature.png   value and policy against the inverse temperature, at an infinite horizon of tables
    results/<case>/posterior.nc      trajectories, policies and values for ArviZ
    results/<case>/fit.png, graph.png   all there is of a case without a closed form: see `fitted`
    results/games/<game>.png         learning curves of the players of matrix games, where every case is recovered
    results/games/learning.json      how many of their seeds arrive

Files of an earlier recovery are replaced, each as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Array

from rlinf_ppl.files import write_text
from rlinf_ppl.report import arviz, graphs, learning, plots, table, temperature
from rlinf_ppl.report.looks import save_figure
from rlinf_ppl.report.recovery import Answers
from rlinf_ppl.report.table import AnyRow


def write_case(answers: Answers, key: Array, folder: Path) -> list[Path]:
    """Draws a case's pictures and samples its posteriors into `folder/<case>/`.

    Args:
        answers: What was computed.
        key: The random key of the sampled trajectories.
        folder: Where results go; made if it does not exist.

    Returns:
        The files written.
    """
    place = folder / answers.case.name
    place.mkdir(parents=True, exist_ok=True)
    figures = {
        "policy.png": plots.policy(answers),
        "fit.png": plots.fit(answers),
        "graph.png": graphs.draw(answers.program.graph(), f"{answers.case.name}: one time step"),
    }
    if answers.case.horizon is None and not answers.program.structure.gaussian:
        figures["temperature.png"] = temperature.draw(answers, temperature.sweep(answers))
    for name, figure in figures.items():
        save_figure(figure, place / name)
    arviz.save(arviz.datasets(answers, key), place / "posterior.nc")
    return [place / name for name in (*figures, "posterior.nc")]


def write_games(key: Array, folder: Path) -> list[Path]:
    """Learns matrix games from samples and writes the curves and the rates into `folder/games/`.

    Args:
        key: The random key of all seeds.
        folder: Where results go; made if it does not exist.

    Returns:
        The files written.
    """
    return learning.write(learning.play_all(key), folder / "games")


def write_table(rows: Sequence[AnyRow], folder: Path) -> list[Path]:
    """Writes the rows as JSON and the tables as Markdown into `folder`.

    Args:
        rows: One a case.
        folder: Where results go; made if it does not exist.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"table.json": table.to_json(rows) + "\n", "table.md": table.markdown(rows)}
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]
