"""Where the exact answers take a vector-valued state, and how their policies react to it.

Of every coordinate of the state its mean and two standard deviations to either side, under soft-optimal control and
under the answer given optimality; of every coordinate of a decision its gains, the reaction to each coordinate of its
scope. At an infinite horizon gains are the same at all times, and the state is shown until the discount has forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from rlinf_ppl.inference import exact
from rlinf_ppl.report import arviz, horizons, kinds
from rlinf_ppl.report.looks import COLOURS, DASHES
from rlinf_ppl.report.recovery import Answers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACROSS = 2
ANSWERS = ("exact", "conditioned")
COLOUR = dict(zip(ANSWERS, COLOURS, strict=False))
DASH = dict(zip(ANSWERS, DASHES, strict=False))
GAIN_COLOURS = ("#000000", COLOURS[5], COLOURS[4], COLOURS[3])


def draw(answers: Answers, titles: Mapping[str, str], heading: str) -> Figure:
    """One panel for each coordinate of the state, then one for each coordinate of a decision.

    Args:
        answers: The answers to a program of vectors.
        titles: What each exact answer is called.
        heading: What stands above all panels.
    """
    from matplotlib.figure import Figure

    names = kinds.labels(answers.program, arviz.axis_names(answers))
    decisions = [(name, i) for name in answers.program.scopes for i in range(answers.program.sizes[name])]
    count = len(names["state"]) + len(decisions)
    rows = -(-count // ACROSS)
    figure = Figure(figsize=(4.6 * ACROSS, 2.5 * rows + 1.0), layout="constrained")
    panels = list(figure.subplots(rows, ACROSS, squeeze=False).ravel())
    for axes in panels[count:]:
        axes.remove()
    draw_state(panels, answers, titles, names["state"])
    for axes, (name, i) in zip(panels[len(names["state"]) : count], decisions, strict=True):
        draw_gains(axes, answers, name, i, names)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    caption = "the state's mean and two standard deviations; the gains of the policy"
    figure.suptitle(f"{heading}\n{caption}", fontsize=11)
    return figure


def draw_state(panels: list[Axes], answers: Answers, titles: Mapping[str, str], names: list[str]) -> None:
    """The mean of each coordinate of the state, and two standard deviations to either side."""
    program = horizons.ended(answers.program)
    found = {"exact": exact.marginals(program, answers.solution.policy).state}
    if answers.posterior is not None:
        found["conditioned"] = exact.posterior_marginals(program).state
    for kind, state in found.items():
        mean, spread = np.asarray(state.mean), 2 * np.sqrt(np.diagonal(np.asarray(state.cov), axis1=-2, axis2=-1))
        steps = np.arange(len(mean))
        for i, (axes, name) in enumerate(zip(panels, names, strict=False)):
            low, high = mean[:, i] - spread[:, i], mean[:, i] + spread[:, i]
            axes.fill_between(steps, low, high, color=COLOUR[kind], alpha=0.2, linewidth=0)
            axes.plot(steps, mean[:, i], color=COLOUR[kind], linestyle=DASH[kind], label=titles[kind])
            axes.set(title=name, xlabel="t (steps)", xlim=(0, steps[-1]))


def draw_gains(axes: Axes, answers: Answers, name: str, i: int, names: Mapping[str, list[str]]) -> None:
    """How coordinate `i` of a decision reacts to each coordinate of its scope; to those that it ignores, no line."""
    gains = {kind: np.asarray(answer.policy[name].gain)[..., i, :] for kind, answer in answers.closed_forms.items()}
    met = np.flatnonzero(sum(np.abs(gain).reshape(-1, gain.shape[-1]).max(0) for gain in gains.values()))
    for kind, gain in gains.items():
        over_time = gain[None].repeat(2, 0) if answers.case.horizon is None else gain
        for place, j in enumerate(met):
            colour = GAIN_COLOURS[place % len(GAIN_COLOURS)]
            label = f"on {names[f'{name}_given'][j]}" if kind == "exact" else None
            axes.plot(over_time[:, j], color=colour, linestyle=DASH[kind], label=label)
    axes.axhline(0, color="0.75", linewidth=1, zorder=0)
    axes.set(title=f"gain of {names[kinds.coordinate(name)][i]}", xlabel="t (steps)")
    axes.legend(frameon=False, fontsize=8)
