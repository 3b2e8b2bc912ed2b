"""How things are measured: contenders take turns, compile time stands apart, memory peaks have a process of their own.

Seconds depend on the machine and on what else it does; ratios between contenders that ran within the same second or
two hardly do. So every round runs each contender once, and a ratio is the median over rounds of that round's ratio.
"""

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "numpyro", "optax", "imitation")


class Mismatch(Exception):
    """Two contenders gave different answers, so comparing their speed would mean nothing."""


class Line(NamedTuple):
    """One line of the report.

    Attributes:
        row: the name of the benchmark, such as P1.
        what: what was measured, against what.
        value: the figure; None where a peer is not installed.
        unit: "x" for ratios, otherwise "us", "ms", "s", "MiB", "steps" or "" for a pure number.
        target: what it should be, in words; empty for lines that only inform.
        passed: whether it is; None without a target, or where it does not apply.
        note: anything the reader should know.
    """

    row: str
    what: str
    value: float | None
    unit: str
    target: str = ""
    passed: bool | None = None
    note: str = ""


class Settings(NamedTuple):
    """What a benchmark is told: whether to run on toy sizes, and where to say what it is doing."""

    quick: bool
    say: Callable[[str], None]


class Samples(NamedTuple):
    """Wall and CPU seconds of one call, one entry a round for each contender."""

    wall: dict[str, list[float]]
    cpu: dict[str, list[float]]

    def seconds(self, name: str) -> float:
        """The median wall seconds of one call."""
        return statistics.median(self.wall[name])

    def ratio(self, name: str, against: str) -> float:
        """The median over rounds of the ratio of wall times."""
        return _ratio(self.wall[name], self.wall[against])

    def cpu_ratio(self, name: str, against: str) -> float:
        """The same of CPU time, which other work on the machine disturbs less."""
        return _ratio(self.cpu[name], self.cpu[against])


def at_most(row: str, what: str, value: float, unit: str, limit: float, note: str = "") -> Line:
    """A line that passes where its value is at most the limit."""
    return Line(row, what, value, unit, f"<= {limit:g}{ending(unit)}", bool(value <= limit), note)


def at_least(row: str, what: str, value: float, unit: str, limit: float, note: str = "") -> Line:
    """A line that passes where its value is at least the limit."""
    return Line(row, what, value, unit, f">= {limit:g}{ending(unit)}", bool(value >= limit), note)


def ending(unit: str) -> str:
    """A unit as it is written after a number."""
    return unit if unit in ("", "x") else f" {unit}"


def interleaved(contenders: Mapping[str, Callable[[], Any]], rounds: int, calls: int = 1) -> Samples:
    """Time the contenders in turns.

    Args:
        contenders: functions without arguments, already compiled; what they return is waited for.
        rounds: how often each has its turn; which one starts rotates.
        calls: how often it is called in a turn, for calls too short for the clock.
    """
    names = list(contenders)
    samples = Samples({name: [] for name in names}, {name: [] for name in names})
    for name in names:
        jax.block_until_ready(contenders[name]())
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(calls):
                jax.block_until_ready(contenders[name]())
            samples.wall[name].append((time.perf_counter() - wall) / calls)
            samples.cpu[name].append((time.process_time() - cpu) / calls)
    return samples


def compiled(function: Any, args: tuple[Any, ...], **static: Any) -> tuple[Callable[[], Any], float]:
    """A jitted function compiled for these arguments, as a call without arguments, and the seconds that took."""
    started = time.perf_counter()
    executable = function.lower(*args, **static).compile()
    return lambda: executable(*args), time.perf_counter() - started


def same(name: str, found: Any, expected: Any, tolerance: float) -> None:
    """Compare two answers.

    Raises:
        Mismatch: they differ by more than the tolerance, or one is not finite.
    """
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape:
        raise Mismatch(f"{name} has shape {found.shape}, not {expected.shape}: nothing was timed.")
    error = float(np.max(np.abs(found - expected)))
    if not error <= tolerance:
        raise Mismatch(f"{name} is off by {error:.3g}, more than {tolerance:g}: nothing was timed.")


def peak_memory(module: str, contender: str, sizes: Mapping[str, int | str]) -> float:
    """The most memory in MiB that a contender needs beyond its inputs, measured in a process of its own."""
    command = [sys.executable, "-m", module, contender, *(str(size) for size in sizes.values())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    printed = done.stdout.split()
    if not printed:
        raise RuntimeError(f"measuring the memory of {contender!r} failed:\n{done.stderr}")
    return float(printed[-1])


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": processor(),
        "cores": usable_cores(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
    }


def processor() -> str:
    """The processor's name, where the system tells."""
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def usable_cores() -> int:
    """The number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> float:
    """The average number of processes that wanted a core during the last minute."""
    return os.getloadavg()[0]


def _ratio(times: list[float], against: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(times, against, strict=True))
