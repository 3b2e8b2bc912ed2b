"""Policy search by sampled linearisation: does bounding states, too, save iterations?

Abdulsamad (2016) reports that his state-action bounds reach the final reward of guided policy search in fewer
iterations. Here each algorithm linearises by least squares on fresh roll-outs, policies are taken as they come, and
bounds are tuned for each of them: the one whose last cost is lowest on seeds that are not counted.
"""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.measure import ROOT, Line, Settings, at_most
from rlinf_ppl import report
from rlinf_ppl.inference import trust_region
from rlinf_ppl.tasks import Dynamics, gallery

TUNING, COUNTED = range(100, 102), range(10)
FIGURES = ROOT / "results" / "searches"


class Search(NamedTuple):
    """How a system is searched.

    Attributes:
        system: what to control.
        iterations: how many.
        samples: roll-outs in each.
        variance: of the first policy.
    """

    system: Dynamics
    iterations: int
    samples: int
    variance: float


class Algorithm(NamedTuple):
    """An algorithm, and the bounds that are tried; of the entropies it is how much they may fall."""

    run: Callable[..., trust_region.Improvement]
    bounds: tuple[tuple[float, ...], ...]


ALGORITHMS = {
    "gps": Algorithm(trust_region.gps, ((3.0,), (10.0,), (30.0,), (100.0,), (300.0,), (1000.0,))),
    "saps": Algorithm(trust_region.saps, ((3.0,), (10.0,), (30.0,), (100.0,))),
    "esaps": Algorithm(trust_region.esaps, ((10.0, 0.1), (10.0, 0.3), (30.0, 0.3), (10.0, 1.0))),
}


def searches(quick: bool) -> dict[str, Search]:
    """The systems, or a toy."""
    if quick:
        return {"regulator": Search(gallery.regulator(20), 3, 10, 100.0)}
    return {
        "double pendulum": Search(gallery.double_pendulum(), 25, 25, 10.0),
        "quad pendulum": Search(gallery.quad_pendulum(), 50, 100, 5.0),
    }


def costs(search: Search, algorithm: Algorithm, bounds: tuple[float, ...], seeds: range) -> np.ndarray:
    """The cost before each iteration and after the last, (seeds, I + 1)."""
    n, m = search.system.num_states, search.system.num_actions
    offset = 1e-4 * np.random.default_rng(1337).normal(size=(search.system.horizon, m))
    start = np.zeros((m, n)), offset, search.variance * np.eye(m)
    rows = []
    for seed in seeds:
        knowledge = trust_region.Samples(jax.random.key(seed), search.samples)
        found = algorithm.run(
            search.system, *bounds, num_iterations=search.iterations, start=start, knowledge=knowledge, num_halvings=0
        )
        rows.append(found.cost)
    return np.asarray(rows)


def tuned(search: Search, algorithm: Algorithm, quick: bool) -> tuple[float, ...]:
    """The bounds with the lowest last cost."""
    tried = algorithm.bounds[:1] if quick else algorithm.bounds
    lasts = [costs(search, algorithm, bounds, TUNING[: 1 if quick else 2])[:, -1].mean() for bounds in tried]
    return tried[int(np.nanargmin(lasts))]


def draw(name: str, curves: dict[str, np.ndarray]) -> None:
    """The mean cost of each algorithm by iteration, in a band from the lowest to the highest seed, as a picture."""
    axes = report.plot_costs(curves)
    axes.set_title(name)
    FIGURES.mkdir(parents=True, exist_ok=True)
    axes.figure.savefig(FIGURES / f"{name.replace(' ', '_')}.png", dpi=150)


def run(settings: Settings) -> Iterator[Line]:
    """The last cost of each algorithm, and when it reaches that of guided policy search."""
    for name, search in searches(settings.quick).items():
        curves = {}
        for label, algorithm in ALGORITHMS.items():
            settings.say(f"searches {name}: {label}")
            before = time.perf_counter()
            bounds = tuned(search, algorithm, settings.quick)
            curves[label] = costs(search, algorithm, bounds, COUNTED[: 2 if settings.quick else 10])
            last, low, high = (f(curves[label][:, -1]) for f in (np.mean, np.min, np.max))
            note = f"{low:.4g} to {high:.4g}; bounds {bounds}; {time.perf_counter() - before:.0f} s with tuning"
            yield Line("searches", f"{name}: {label}, mean cost after {search.iterations}", float(last), "", note=note)
        draw(name, curves)
        goal = curves["gps"][:, -1].mean()
        for label in ("saps", "esaps"):
            means = curves[label].mean(0)
            there = np.flatnonzero(means <= goal)
            when = float(there[0]) if len(there) else np.inf
            note = f"each {np.round(means[:: max(search.iterations // 5, 1)], 1).tolist()}"
            what = f"{name}: iterations until {label} is as good as gps after {search.iterations}"
            yield at_most("searches", what, when, "", search.iterations / 2, note)
