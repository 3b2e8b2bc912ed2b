"""The recovery of a case of a nonlinear system that only roll-outs tell of, which has no closed form.

    GPS, SAPS, ESAPS    the last cost of policy search within bounds, over seeds      trust_region.gps, saps, esaps
    iLQR                the cost without noise that a known system allows             trust_region.ilqr

All are in units of reward, and less is better.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from rlinf_ppl.inference import trust_region
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.report import graphs, search_plots
from rlinf_ppl.report.bounded_cases import first_policy
from rlinf_ppl.report.case import Case
from rlinf_ppl.report.engines import ignore
from rlinf_ppl.report.looks import save_figures
from rlinf_ppl.tasks import Dynamics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ITERATIONS = 25
NUM_SAMPLES = 25
NUM_SEEDS = 5
GPS, SAPS, ESAPS = "GPS", "SAPS", "ESAPS"
BOUNDS: Mapping[str, tuple[float, ...]] = MappingProxyType({GPS: (10.0,), SAPS: (3.0,), ESAPS: (3.0, 0.1)})
"""Of the KL over a trajectory; of that of state and action at each step; and with it of the entropy lost there."""
ALGORITHMS: Mapping[str, Callable[..., trust_region.Improvement]] = MappingProxyType(
    {GPS: trust_region.gps, SAPS: trust_region.saps, ESAPS: trust_region.esaps}
)
SETTINGS = (
    f"Policy search: {ITERATIONS} iterations of {NUM_SAMPLES} roll-outs, the mean of the last cost over {NUM_SEEDS} "
    f"seeds. Bounds in nats: {GPS} {BOUNDS[GPS][0]:g} a trajectory, {SAPS} and {ESAPS} {BOUNDS[SAPS][0]:g} a step, "
    f"{ESAPS} {BOUNDS[ESAPS][1]:g} of entropy. iLQR's cost is without noise, of a system that it knows."
)


class SearchRow(NamedTuple):
    """One line of the table of policy search; costs in units of reward.

    Attributes:
        task: The case's name.
        states: The space of the state, as R^n.
        actions: The same of the action.
        horizon: The number of time steps.
        start: The cost before the first iteration, mean over seeds.
        gps: The last cost of guided policy search, mean over seeds.
        saps: The same with bounds on states.
        esaps: The same with bounds on entropies, too.
        ilqr: The cost that iterative LQR comes to.
        seconds: Wall time, compilation included.
        converged: Whether iterative LQR did.
    """

    task: str
    states: str
    actions: str
    horizon: int
    start: float
    gps: float
    saps: float
    esaps: float
    ilqr: float
    seconds: float
    converged: bool


class Searched(NamedTuple):
    """A case with what its searches found, those of all seeds side by side, and its line of the table."""

    case: Case
    task: Dynamics
    program: ControlProgram
    found: dict[str, trust_region.Improvement]
    known: trust_region.Optimised
    row: SearchRow


def recover(case: Case, key: Array, progress: Callable[[str], None] = ignore) -> Searched:
    """Builds a case, and searches it by every algorithm from the same roll-outs.

    Args:
        case: What to recover; its task is a `Dynamics`.
        key: The random key of all roll-outs.
        progress: Called with the name of each phase as it begins.
    """
    begun = time.perf_counter()
    progress("building")
    task = case.task()
    program = case.program(task)
    progress("solving")
    known = trust_region.ilqr(task, 2 * ITERATIONS)
    progress("fitting by samples")
    keys = jax.random.split(key, NUM_SEEDS)
    found = {name: search_seeds(name, task, keys) for name in ALGORITHMS}
    costs = {name: np.mean(each.cost, 0) for name, each in found.items()}
    row = SearchRow(
        case.name, f"R^{task.num_states}", f"R^{task.num_actions}", task.horizon,
        start=float(costs[GPS][0]), gps=float(costs[GPS][-1]), saps=float(costs[SAPS][-1]),
        esaps=float(costs[ESAPS][-1]), ilqr=float(known.cost[-1]),
        seconds=time.perf_counter() - begun, converged=bool(known.converged),
    )  # fmt: skip
    return Searched(case, task, program, found, known, row)


def search_seeds(name: str, task: Dynamics, keys: Array) -> trust_region.Improvement:
    """What an algorithm finds with each key; a leading axis of seeds."""

    def once(key: Array) -> Any:
        samples = trust_region.Samples(key, NUM_SAMPLES)
        settings: dict[str, Any] = {"start": first_policy(task), "knowledge": samples, "num_halvings": 0}
        return ALGORITHMS[name](task, *BOUNDS[name], num_iterations=ITERATIONS, **settings)

    return jax.vmap(once)(keys)


def draw_costs(searched: Searched) -> Figure:
    """The cost of every algorithm by iteration, and that of a system that is known."""
    axes = search_plots.plot_costs({name: each.cost for name, each in searched.found.items()})
    axes.axhline(searched.row.ilqr, color="0.75", linewidth=1, zorder=0)
    axes.annotate("iLQR", (0.1, searched.row.ilqr), va="bottom", ha="left", fontsize=9, color="0.4")
    axes.set_title(searched.case.name)
    return axes.figure  # type: ignore[return-value]


def draw_poses(searched: Searched) -> Figure:
    """Where the last policy of guided policy search leads, with the first seed."""
    states = searched.found[GPS].states[0]
    links: Any = searched.task.step
    axes = search_plots.plot_poses(jax.vmap(links.joints)(states), time_step=float(links.time_step))
    axes.set_title(f"{searched.case.name}: under the last policy of {GPS}")
    return axes.figure  # type: ignore[return-value]


def draw_spending(searched: Searched) -> Figure:
    """The KL of the last step of each algorithm, and its temperatures, with the first seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.2), layout="constrained")
    for axes, (name, each) in zip(figure.subplots(1, len(searched.found)), searched.found.items(), strict=True):
        search_plots.plot_spending(each.kl[0, -1], each.inverse_temperature[0, -1], ax=axes)
        axes.set_title(f"{name}, the last iteration", fontsize=10)
    return figure


def write(searched: Searched, folder: Path) -> list[Path]:
    """Draws what belongs to the case into `folder/<case>/`: costs, poses, spending and graph."""
    figures = {
        "cost.png": draw_costs(searched),
        "poses.png": draw_poses(searched),
        "spending.png": draw_spending(searched),
        "graph.png": graphs.draw(searched.program.graph(), graphs.heading(searched.case.name, searched.program.scopes)),
    }
    return save_figures(folder / searched.case.name, figures)
