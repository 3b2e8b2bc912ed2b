"""A grid world from its map to its policy in this process: `python -m benchmarks.million SIDE PRECISION TOLERANCE`."""

import json
import sys
import time
from typing import Any

import jax

from benchmarks.grid import DISCOUNT, make_map
from benchmarks.peak import peak
from rlinf_ppl import models
from rlinf_ppl.inference import exact
from rlinf_ppl.program import read
from rlinf_ppl.tasks import gallery


def timed(function: Any) -> tuple[Any, float]:
    """What a function returns, and the seconds that it took."""
    started = time.perf_counter()
    found = jax.block_until_ready(function())
    return found, time.perf_counter() - started


def main(side: str, precision: str, tolerance: str) -> None:
    """Print the seconds, the absolute error bound, the steps and the peak memory of the process."""
    jax.config.update("jax_enable_x64", precision == "float64")
    text = make_map(int(side))
    mdp, building = timed(lambda: gallery.grid_world(text, slip=0.2))
    program = models.single_agent(mdp, None, discount=DISCOUNT)
    _, reading = timed(lambda: read(program))
    # Values lie between 0 and -10: the engine's tolerance is relative to the largest.
    relative = float(tolerance) / 20
    solution, first = timed(lambda: exact.solve(program, tolerance=relative))
    highest = peak()
    _, again = timed(lambda: exact.solve(program, tolerance=relative))
    assert bool(solution.converged)
    found = {
        "solve": again,
        "compiling": first - again,
        "reading": building + reading,
        "error": float(solution.error_bound),
        "steps": float(solution.iterations),
        "peak": highest,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
