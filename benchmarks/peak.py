"""The most memory that one contender needs beyond its inputs: `python -m benchmarks.peak NAME SIZE [ROW]`.

ROW is `backward` (P1 and P1b, the default), `sweep` (P2), `solve` (P3) or `filter` (P5).
"""

import resource
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from benchmarks import particle_filter
from benchmarks.grid import SOLVERS, SWEEPS, make_grid
from benchmarks.soft_backward import CONTENDERS, make_problem

ROWS = {"backward": (make_problem, CONTENDERS), "sweep": (make_grid, SWEEPS), "solve": (make_grid, SOLVERS)}
ROWS["filter"] = particle_filter.make_problem, particle_filter.CONTENDERS
CLEAR = Path("/proc/self/clear_refs")


def peak() -> float:
    """The largest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # On Linux `getrusage` starts from the peak of the process that started this one.
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) / 2**10
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found / 2**20 if sys.platform == "darwin" else found / 2**10


def main(name: str, size: str, row: str = "backward") -> None:
    """Make the inputs, let the contender compile and run once, and print by how much the peak grew, in MiB."""
    jax.config.update("jax_enable_x64", True)
    # What starting JAX takes is nobody's share.
    jax.block_until_ready(jax.jit(jnp.sum)(jnp.zeros(8)))
    make, contenders = ROWS[row]
    problem = make(int(size))
    if CLEAR.exists():
        # Making the inputs takes more than some contenders do; 5 forgets the peak so far.
        CLEAR.write_text("5")
    before = peak()
    jax.block_until_ready(contenders[name](problem).run())
    print(peak() - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
