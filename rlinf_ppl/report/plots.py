"""Pictures of policies, values and fits. Each function returns a matplotlib figure, which belongs to no window.

A policy is shown at the first time step, where the whole horizon is still ahead, for the exact answers side by side:
soft-optimal control, which averages over chance, and, where it exists, the answer given optimality, which believes that
chance will be kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rlinf_ppl.inference import exact
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.report import bands, horizons
from rlinf_ppl.report.arviz import axis_names
from rlinf_ppl.report.case import Grid, Move
from rlinf_ppl.report.recovery import Answers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {"exact": "soft-optimal control", "conditioned": "given optimality"}
FEW = 8
FAINT = 0.02
HEADING_WIDTH = 6.4


def policy(answers: Answers) -> Figure:
    """The exact answers' policies: with values on the map, as bars for a small task, else as a table of colours.

    Of vectors, where they take the state and how they react to it.
    """
    if answers.program.structure.gaussian:
        return bands.draw(answers, PANELS, heading(answers))
    if answers.case.grid is not None:
        return policy_map(answers, answers.case.grid)
    rows = np.prod([answers.program.sizes[name] for name in answers.program.state])
    return policy_bars(answers) if rows <= FEW else policy_table(answers)


def policy_map(answers: Answers, grid: Grid) -> Figure:
    """Values as colours and policies as arrows on the task's map.

    An arrow's length is proportional to the probability of its action; a disc stands for the actions that are no
    move. Each answer has its own scale of colours, since their values may differ by orders of magnitude; where a
    state is terminal its letter stands alone.
    """
    from matplotlib.figure import Figure

    states = np.array(grid.states)
    rows, columns = states.shape
    cell = 0.8 if columns <= 5 else 0.62
    shown = answers.closed_forms
    shape = (1, len(shown)) if columns <= FEW else (len(shown), 1)
    width, height = cell * columns + 1.2, cell * rows + 0.5
    size = (max(shape[1] * width, HEADING_WIDTH), shape[0] * height + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(*shape, squeeze=False).ravel()
    ends = np.array([[letter in grid.ends for letter in row] for row in grid.letters])
    hidden = (states < 0) | ends
    horizon = answers.case.horizon
    for axes, (kind, answer) in zip(panels, shown.items(), strict=True):
        values = by_state(horizons.first(horizon, answer.value))
        values = np.where(hidden, np.nan, values[states])
        image = axes.imshow(values, cmap="viridis")
        axes.set(title=PANELS[kind], xticks=[], yticks=[], facecolor="#e6e6e6")
        policy = {name: horizons.first(horizon, table) for name, table in answer.policy.items()}
        draw_cells(axes, grid, moves_by_state(answers.program, policy), image.to_rgba(values), hidden)
        figure.colorbar(image, ax=axes, label=f"value{horizons.moment(horizon)} ({answers.unit})", shrink=0.95)
    figure.suptitle(f"{heading(answers)}\n{grid.caption}", fontsize=10)
    return figure


def by_state(table: np.ndarray) -> np.ndarray:
    """A function of all state variables for each value of the first one, the others equally likely."""
    return np.asarray(table).reshape(table.shape[0], -1).mean(-1)


def moves_by_state(program: ControlProgram, policy: dict[str, np.ndarray]) -> np.ndarray:
    """How the last decision of a step is made in each state, whatever other state variables and decisions are.

    Args:
        program: A program in whose steps no chance comes before a decision.
        policy: For each decision probabilities (scope, K) at one time.

    Returns:
        Probabilities (states, K); the other state variables are equally likely.
    """
    order = [*program.state, *program.scopes]
    sizes = [program.sizes[name] for name in program.state]
    factors: list[Any] = [np.full(sizes, sizes[0] / np.prod(sizes)), list(range(len(sizes)))]
    for name, scope in program.scopes.items():
        factors += [policy[name], [order.index(variable) for variable in (*scope, name)]]
    return np.einsum(*factors, [0, len(order) - 1])


def draw_cells(axes: Axes, grid: Grid, probabilities: np.ndarray, colours: np.ndarray, hidden: np.ndarray) -> None:
    """Walls, letters and the policy's arrows; light on dark cells, dark on light ones."""
    for (row, column), state in np.ndenumerate(np.array(grid.states)):
        if state < 0:
            axes.fill_between((column - 0.5, column + 0.5), row - 0.5, row + 0.5, color="#555555")
            continue
        letter = grid.letters[row][column].strip(".F#")
        if hidden[row, column]:
            axes.text(column, row, letter, ha="center", va="center", fontsize=14, weight="bold", color="#444444")
            continue
        colour = readable(colours[row, column])
        axes.text(column - 0.44, row - 0.42, letter, ha="left", va="top", fontsize=8, color=colour)
        draw_policy(axes, (row, column), probabilities[state], grid.moves, colour)


def readable(background: np.ndarray) -> str:
    """Black or white, whichever stands out from a colour given as red, green, blue and opacity."""
    return "black" if background[:3] @ (0.3, 0.6, 0.1) > 0.5 else "white"


def draw_policy(
    axes: Axes, place: tuple[int, int], probabilities: np.ndarray, moves: Sequence[Move], colour: str
) -> None:
    """The arrows of one cell, and a disc whose area is the probability of the actions that are no move."""
    row, column = place
    for probability, move in zip(probabilities, moves, strict=True):
        if move is not None and probability > FAINT:
            reach = (column + 0.46 * probability * move[1], row + 0.46 * probability * move[0])
            look = {"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", xy=reach, xytext=(column, row), arrowprops=look | {"mutation_scale": 4 + 6 * probability})
    staying = sum(probability for probability, move in zip(probabilities, moves, strict=True) if move is None)
    if staying > FAINT:
        axes.plot(column, row, "o", markersize=13 * np.sqrt(staying), color=colour)


def policy_bars(answers: Answers) -> Figure:
    """For each decision, how the exact answers and the fit choose at the first step, where it most often starts."""
    from matplotlib.figure import Figure

    decisions, horizon = list(answers.program.scopes), answers.case.horizon
    (_, solution), *conditioned = answers.closed_forms.items()
    kinds = {PANELS["exact"]: solution.policy, "fitted guide": answers.fit.policy}
    kinds |= {PANELS[kind]: answer.policy for kind, answer in conditioned}
    figure = Figure(figsize=(4.2 * len(decisions) + 1.0, 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(decisions), squeeze=False)[0], decisions, strict=True):
        start, labels = starting_row(answers, name), alternatives(answers, name)
        for offset, (kind, table), colour in zip((-0.27, 0.0, 0.27), kinds.items(), ("C0", "C9", "C1"), strict=False):
            heights = horizons.first(horizon, table[name])[start]
            bars = axes.bar(np.arange(len(labels)) + offset, heights, width=0.26, label=kind, color=colour)
            axes.bar_label(bars, fmt="%.2f", fontsize=8)
        axes.set(ylim=(0, 1.08), ylabel="probability", title=f"decision {name}{horizons.moment(horizon)}")
        axes.set_xticks(np.arange(len(labels)), labels)
    handles, words = axes.get_legend_handles_labels()
    figure.legend(handles, words, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(heading(answers), fontsize=11)
    return figure


def starting_row(answers: Answers, name: str) -> tuple[int, ...]:
    """The scope value that the decision most often meets at the first step, under soft-optimal control."""
    program = horizons.ended(answers.program, steps=1)
    met = np.asarray(exact.marginals(program, answers.solution.policy).decision[name])[0].sum(-1)
    return tuple(int(position) for position in np.unravel_index(np.argmax(met), met.shape))


def alternatives(answers: Answers, name: str) -> list[str]:
    """What the values of a decision are called."""
    return axis_names(answers).get(name) or [str(value) for value in range(answers.program.sizes[name])]


def policy_table(answers: Answers) -> Figure:
    """Each decision's policy at the first step as a table of colours: scope values down, alternatives across."""
    from matplotlib.figure import Figure

    horizon = answers.case.horizon
    shown = [(name, kind) for name in answers.program.scopes for kind in answers.closed_forms]
    figure = Figure(figsize=(3.2 * len(shown) + 1.0, 6.0), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (name, kind) in zip(panels, shown, strict=True):
        table = horizons.first(horizon, answers.closed_forms[kind].policy[name])
        image = axes.imshow(table.reshape(-1, table.shape[-1]), aspect="auto", cmap="viridis", vmin=0, vmax=1)
        labels = alternatives(answers, name)
        axes.set_xticks(np.arange(len(labels)), labels, rotation=60)
        axes.set(title=f"{name}: {PANELS[kind]}", ylabel=", ".join(answers.program.scopes[name]))
    figure.colorbar(image, ax=list(panels), label=f"probability{horizons.moment(horizon)}")
    figure.suptitle(heading(answers), fontsize=11)
    return figure


def fit(answers: Answers) -> Figure:
    """The ELBO at each step of the fit, and how far it is below the soft value."""
    from matplotlib.figure import Figure

    soft_value = float(answers.solution.elbo)
    elbo = np.append(-np.asarray(answers.fit.losses), float(answers.fit.elbo))
    steps = np.arange(len(elbo))
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(steps, elbo, "o-", markersize=3.5, label="fitted guide")
    left.axhline(soft_value, color="C1", linestyle="--", label="soft value (closed form)")
    evidence = "" if answers.posterior is None else f", log evidence {float(answers.posterior.log_evidence):.6g}"
    left.set(
        xlabel="step", ylabel=f"ELBO ({answers.unit})", title=f"soft value {soft_value:.6g}{evidence} {answers.unit}"
    )
    left.title.set_fontsize(9)
    left.legend(frameon=False)
    smallest = np.finfo(float).eps * max(abs(soft_value), 1.0)
    right.semilogy(steps, np.maximum(np.abs(soft_value - elbo), smallest), "o-", markersize=3.5)
    right.axhline(smallest, color="0.6", linestyle=":", label="rounding error")
    right.set(xlabel="step", ylabel=f"|soft value - ELBO| ({answers.unit})")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(heading(answers), fontsize=11)
    return figure


def heading(answers: Answers) -> str:
    """What every picture of a case says first."""
    return f"{answers.case.name}, {answers.case.setting}"
