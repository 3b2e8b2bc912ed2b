"""The recovery of a case that has no closed form: its guide is fitted, and what it earns is rolled out.

    ELBO    of the guide, its real numbers integrated without noise                svi.fit, NodeELBO
    return  of episodes under the fitted guide, with its standard error            execution.roll_out

The difference of both is what the guide pays: for precision, and for leaving its priors.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Array

from rlinf_ppl.inference import execution, svi
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.report import graphs
from rlinf_ppl.report.case import Case
from rlinf_ppl.report.engines import ignore
from rlinf_ppl.report.looks import COLOURS, save_figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = 600
TOLERANCE = 1e-3
NUM_EPISODES = 10_000
OPTIMIZER = optax.adam(0.1)
LOSS = svi.NodeELBO()
SETTINGS = (
    f"Fitted guides: Adam on NodeELBO, at most {STEPS} steps, until no slope is above {TOLERANCE:g}; return over "
    f"{NUM_EPISODES:,} episodes. A converged fit is a local optimum."
)


class FittedRow(NamedTuple):
    """One line of the table of fitted guides, in units of reward.

    Attributes:
        task: The case's name.
        states: The number of states.
        horizon: The number of time steps.
        discount: The probability of being alive at the next step.
        start: The ELBO of the guide that the fit began from.
        elbo: The ELBO that it reached.
        earned: The mean return of episodes under the guide.
        standard_error: Of that.
        paid: What is earned less the ELBO.
        seconds: Wall time, compilation included.
        converged: Whether the fit's own verdict is that it arrived.
    """

    task: str
    states: int
    horizon: int | None
    discount: float
    start: float
    elbo: float
    earned: float
    standard_error: float
    paid: float
    seconds: float
    converged: bool


class Fitted(NamedTuple):
    """A case with its fit and its line of the table."""

    case: Case
    program: ControlProgram
    fit: svi.Fit
    row: FittedRow


def recover(case: Case, key: Array, progress: Callable[[str], None] = ignore) -> Fitted:
    """Builds a case, fits its guide and rolls it out.

    Args:
        case: What to recover.
        key: The random key of the fit and of the episodes.
        progress: Called with the name of each phase as it begins.
    """
    begun = time.perf_counter()
    fit_key, roll_key = jax.random.split(key)
    progress("building")
    program = case.program(case.task())
    progress("fitting")
    fit = svi.fit(program, fit_key, STEPS, loss=LOSS, optimizer=OPTIMIZER, tolerance=TOLERANCE)
    progress("fitting by samples")
    # Its real numbers are drawn here, which the fit integrates.
    episodes = execution.roll_out(program.with_guide(fit.guide), roll_key, None, NUM_EPISODES)
    earned, elbo = float(episodes.mean), float(fit.elbo)
    row = FittedRow(
        case.name,
        int(np.prod([len(support) for _, support in program.structure.state])),
        case.horizon,
        float(program.discount),
        -float(fit.losses[0]),
        elbo,
        earned,
        float(episodes.standard_error),
        earned - elbo,
        time.perf_counter() - begun,
        bool(fit.converged),
    )
    return Fitted(case, program, fit, row)


def draw(fitted: Fitted) -> Figure:
    """The ELBO step by step, and every number of the guide as it came out."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(-np.asarray(fitted.fit.losses), color=COLOURS[0])
    left.set(xlabel="step of the fit", ylabel="ELBO (units of reward)", title=fitted.case.name)
    for colour, (name, array) in zip(COLOURS, fitted.fit.params.items(), strict=False):
        table = np.asarray(array).reshape(len(array), -1)
        for k, column in enumerate(table.T):
            right.plot(column, "o" if k == 0 else "x", color=colour, markersize=4, label=f"{name}, alternative {k + 1}")
    right.set(xlabel="state", ylabel="what was learned (units of reward)", title="the guide")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.legend(frameon=False, fontsize=8)
    return figure


def write(fitted: Fitted, folder: Path) -> list[Path]:
    """Draws what belongs to the case into `folder/<case>/`: `fit.png` and `graph.png`; returns the files written."""
    title = f"{fitted.case.name}: one time step"
    figures = {"fit.png": draw(fitted), "graph.png": graphs.draw(fitted.program.graph(), title)}
    return save_figures(folder / fitted.case.name, figures)
