"""The recovery of a case of two who share a reward and see different things, which has no closed form.

    upper     the hard value of the coordinator, who knows what both know         beliefs.solve, game.coordinator
    ELBO      of the best policies on what each sees that were found              svi.fit, exact
    return    what they win on average                                            execution.expected_return, exact

All are in units of reward; `models.decentralized` counts in nats, which are divided by beta here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Array

from rlinf_ppl.inference import beliefs, execution, svi
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.report import graphs, hidden_plots
from rlinf_ppl.report.case import Case
from rlinf_ppl.report.engines import ignore
from rlinf_ppl.report.looks import COLOURS, save_figures
from rlinf_ppl.tasks import PartiallyObservedGame

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = 60
NUM_RESTARTS = 50
SCHEDULE = tuple(np.geomspace(0.01, 1.0, 45).tolist())
NEAR = 1e-3
SETTINGS = (
    f"Two who signal: {NUM_RESTARTS} starts with a rising inverse temperature and {NUM_RESTARTS} without, of which so "
    f"many came within {NEAR:g} of the best. ELBO and return of models.decentralized, which are nats, divided by beta; "
    "no return exceeds the coordinator's hard value."
)


class SignalRow(NamedTuple):
    """One line of the table of two who signal, in units of reward.

    Attributes:
        task: The case's name.
        states: The number of states of the game.
        horizon: The number of time steps.
        discount: The probability of being alive at the next step.
        beta: The inverse temperature, in nats per unit of reward.
        upper: The hard value of the coordinator, which no policies exceed.
        elbo: Of the best policies that were found.
        earned: What these win on average, exactly.
        reached: How many starts came to them.
        starts: Of how many.
        seconds: Wall time, compilation included.
        converged: Whether the fit arrived.
    """

    task: str
    states: int
    horizon: int
    discount: float
    beta: float
    upper: float
    elbo: float
    earned: float
    reached: int
    starts: int
    seconds: float
    converged: bool


class Signals(NamedTuple):
    """A case with its fit and its line of the table."""

    case: Case
    task: PartiallyObservedGame
    program: ControlProgram
    fit: svi.Fit
    row: SignalRow


def recover(case: Case, key: Array, progress: Callable[[str], None] = ignore) -> Signals:
    """Builds a case, bounds it by its coordinator, and fits the policies of both.

    Args:
        case: What to recover; its model is `decentralized`.
        key: The random key of the fit.
        progress: Called with the name of each phase as it begins.
    """
    begun = time.perf_counter()
    progress("building")
    task = case.task()
    program = case.program(task)
    assert case.horizon is not None and case.beta is not None
    progress("solving")
    upper = beliefs.solve(task.coordinator(), case.horizon, np.inf).upper
    progress("fitting")
    fit = svi.fit(program, key, STEPS, num_restarts=NUM_RESTARTS, schedule=SCHEDULE)
    reached = in_reward(case, fit.restarts)
    row = SignalRow(
        case.name,
        task.num_states,
        case.horizon,
        float(task.discount),
        case.beta,
        float(upper),
        float(in_reward(case, fit.elbo)),
        float(in_reward(case, execution.expected_return(program, fit.policy))),
        int(np.sum(reached > reached.max() - NEAR)),
        len(reached),
        time.perf_counter() - begun,
        bool(fit.converged),
    )
    return Signals(case, task, program, fit, row)


def in_reward(case: Case, nats: Array | None) -> np.ndarray:
    """Numbers that the model has in nats, in units of reward."""
    assert case.beta is not None
    return np.asarray(np.asarray(nats) / case.beta)


def draw_fits(signals: Signals) -> Figure:
    """The ELBO that each start reached, in order, with a rising inverse temperature and without."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.add_subplot()
    ways = dict(zip(("rising", "at once"), np.split(in_reward(signals.case, signals.fit.restarts), 2), strict=True))
    for (name, reached), colour in zip(ways.items(), COLOURS, strict=False):
        axes.plot(np.arange(1, len(reached) + 1), np.sort(reached)[::-1], "o", markersize=3.5, color=colour, label=name)
    axes.axhline(signals.row.upper, color=COLOURS[2], linestyle=":", label="the coordinator's hard value")
    axes.set(xlabel="start of the fit, the best first", ylabel="ELBO (units of reward)", title=signals.case.name)
    axes.legend(frameon=False, fontsize=9, title="inverse temperature")
    return figure


def draw_messages(signals: Signals) -> Figure:
    """What the first action tells of the agent's card, and what the opponent does on its own card and that action.

    The first public observation is 0, and after an action a it is 1 + a: see `gallery.signalling_game`.
    """
    policy = signals.fit.policy
    return hidden_plots.plot_signals(
        policy["a"][0, :, 0],
        np.moveaxis(np.asarray(policy["b"][1, :, 1:]), 0, 1),
        title=f"{signals.case.name}: what the first action means, at beta {signals.case.beta:g}",
    )


def write(signals: Signals, folder: Path) -> list[Path]:
    """Draws what belongs to the case into `folder/<case>/`: `fit.png`, `messages.png` and `graph.png`."""
    figures = {
        "fit.png": draw_fits(signals),
        "messages.png": draw_messages(signals),
        "graph.png": graphs.draw(signals.program.graph(), graphs.heading(signals.case.name, signals.program.scopes)),
    }
    return save_figures(folder / signals.case.name, figures)
