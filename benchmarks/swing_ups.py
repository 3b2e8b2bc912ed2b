"""Swing-ups by trust regions: P9, the published runs of trajopt, and what iterative LQR makes of the same systems.

trajopt (hanyas/trajopt eb21193) is not run here: its CPU seconds an iteration were measured on a machine of the same
kind, the quad pendulum's with the Jacobian by complex steps, without which it took some 45 seconds an iteration.
"""

import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import Line, Mismatch, Settings, at_most
from rlinf_ppl.inference import trust_region
from rlinf_ppl.tasks import Dynamics, gallery

# Iterations, bound on the sum of KLs, first variance, last published cost, CPU seconds an iteration.
PUBLISHED = {
    "regulator": (10, 5.0, 100.0, 7532.2, 0.19),
    "pendulum": (25, 10.0, 5.0, 113.38, 0.61),
    "double_pendulum": (50, 10.0, 10.0, 1696.4, 2.3),
    "quad_pendulum": (50, 10.0, 5.0, 5.2822e6, 1.14),
}


def start(system: Dynamics, variance: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first policy of the published runs: no gain, offsets from N(0, 1e-8)."""
    n, m = system.num_states, system.num_actions
    offset = 1e-4 * np.random.default_rng(1337).normal(size=(system.horizon, m))
    return np.zeros((m, n)), offset, variance * np.eye(m)


def search(name: str, halvings: int = 0) -> trust_region.Improvement:
    """Guided policy search on a system of the gallery, as it was published."""
    iterations, bound, variance, *_ = PUBLISHED[name]
    system = getattr(gallery, name)()
    found = trust_region.gps(system, bound, iterations, start(system, variance), num_halvings=halvings)
    return jax.block_until_ready(found)


def run(settings: Settings) -> Iterator[Line]:
    """Costs and times of guided policy search; costs with halved bounds, and of iterative LQR."""
    for name in ("regulator", "pendulum") if settings.quick else PUBLISHED:
        iterations, _, _, cost, seconds = PUBLISHED[name]
        settings.say(f"P9 {name}: {iterations} iterations")
        before = time.perf_counter()
        found = search(name)
        first = time.perf_counter() - before
        if not jnp.all(found.accepted):
            raise Mismatch(f"{name}: not every policy was accepted")
        times = []
        for _ in range(3):
            before, spent = time.perf_counter(), time.process_time()
            search(name)
            times.append((time.perf_counter() - before, time.process_time() - spent))
        wall, cpu = np.median(times, 0)
        part = cpu / iterations
        note = f"{wall:.3f} s for all, {part:.4f} CPU s an iteration, first call {first:.1f} s"
        yield at_most("P9", f"{name}: an iteration, of trajopt's CPU time", part / seconds, "x", 0.02, note)
        yield at_most("P9", f"{name}: cost after {iterations}", float(found.cost[-1]), "", cost)
        yield Line("P9", f"{name}: the same, bounds halved where costs rise", float(search(name, 10).cost[-1]), "")
        best = trust_region.ilqr(getattr(gallery, name)(), iterations)
        yield Line("P9", f"{name}: iterative LQR, as many iterations", float(best.cost[-1]), "")
