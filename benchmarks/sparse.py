"""P2, P3 and a million states: large sparse tasks, against plain JAX, NumPy and SciPy."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np

from benchmarks.dense import figure, information
from benchmarks.grid import DISCOUNT, ERROR, SOLVERS, SWEEPS, Contender, make_grid
from benchmarks.measure import ROOT, Line, Settings, at_most, interleaved, peak_memory, same


def one_sweep(settings: Settings) -> Iterator[Line]:
    """P2: one soft Bellman sweep."""
    side, rounds, calls = (100, 5, 20) if settings.quick else (1000, 15, 5)
    label = f"S={side**2}"
    settings.say(f"P2 {label}: compiling and checking")
    grid = make_grid(side)
    contenders = {name: make(grid) for name, make in SWEEPS.items()}
    cross_check("P2", contenders, 1e-10)
    settings.say(f"P2 {label}: {rounds} rounds")
    samples = interleaved({name: contender.run for name, contender in contenders.items()}, rounds, calls)
    yield at_most("P2", f"{label}: sweep / plain gather sweep", *figure(samples, "rlinf_ppl", "plain", 0.25))
    yield Line("P2", f"{label}: NumPy sweep / sweep", *information(samples, "numpy", "rlinf_ppl"))
    yield Line("P2", f"{label}: plain gather sweep", 1e3 * samples.seconds("plain"), "ms")
    yield compiling("P2", label, contenders)
    if not settings.quick:
        yield from memory(settings, "P2", "sweep", tuple(SWEEPS), side)


def fixed_point(settings: Settings) -> Iterator[Line]:
    """P3: the soft value without end, to an absolute error."""
    side, rounds = (60, 5) if settings.quick else (316, 9)
    label = f"S={side**2}"
    settings.say(f"P3 {label}: compiling and checking")
    grid = make_grid(side)
    names, absent = list(SOLVERS), ""
    try:
        contenders = {name: SOLVERS[name](grid) for name in names}
    except ImportError as error:
        absent = f"not installed ({error})"
        contenders = {name: SOLVERS[name](grid) for name in names if name != "scipy"}
    cross_check("P3", contenders, 2 * ERROR)
    settings.say(f"P3 {label}: {rounds} rounds")
    timed = {name: contender.run for name, contender in contenders.items() if name != "plain"}
    samples = interleaved(timed, rounds)
    if absent:
        yield Line("P3", f"{label}: solver / SciPy's Newton", None, "x", note=absent)
    else:
        yield at_most("P3", f"{label}: solver / SciPy's Newton", *figure(samples, "rlinf_ppl", "scipy", 0.35))
        steps = contenders["scipy"].run()[1]
        yield Line("P3", f"{label}: SciPy's Newton", 1e3 * samples.seconds("scipy"), "ms", note=f"{steps} steps")
    once = interleaved({name: contenders[name].run for name in ("plain", "rlinf_ppl")}, 1)
    note = f"{int(contenders['plain'].run()[1])} sweeps against {int(contenders['rlinf_ppl'].run()[1])} steps"
    yield Line("P3", f"{label}: plain sweeps / solver", once.ratio("plain", "rlinf_ppl"), "x", note=note)
    yield compiling("P3", label, contenders)
    if not settings.quick:
        yield from memory(settings, "P3", "solve", tuple(contenders), side)


def million(settings: Settings) -> Iterator[Line]:
    """A grid world of a million cells from its map to its policy, each precision in a process of its own."""
    side = 100 if settings.quick else 1000
    for precision, tolerance in (("float64", ERROR), ("float32", 1e-3)):
        settings.say(f"grid {side} x {side}: {precision}")
        command = [sys.executable, "-m", "benchmarks.million", str(side), precision, str(tolerance)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=dict(os.environ))
        if done.returncode:
            raise RuntimeError(f"the grid world in {precision} failed:\n{done.stderr}")
        found = json.loads(done.stdout.splitlines()[-1])
        label = f"{side} x {side}, {precision}, discount {DISCOUNT}"
        note = f"error at most {found['error']:.1g}, {found['steps']:.0f} steps; compiled in {found['compiling']:.1f} s"
        yield Line("grid", f"{label}: exact.solve", found["solve"], "s", note=note)
        note = "the map as an MDP, then the program and its tables"
        yield Line("grid", f"{label}: reading the map", found["reading"], "s", note=note)
        limit = 4096 if found["error"] <= tolerance else -np.inf
        yield at_most("grid", f"{label}: peak memory of the process", found["peak"], "MiB", limit)


def cross_check(where: str, contenders: dict[str, Contender], tolerance: float) -> None:
    """Raise where the values of a contender differ from those of plain JAX."""
    expected = contenders["plain"].value(contenders["plain"].run())
    for name, contender in contenders.items():
        same(f"{where}: the values of {name}", contender.value(contender.run()), expected, tolerance)


def compiling(row: str, label: str, contenders: dict[str, Contender]) -> Line:
    """How long compiling took."""
    note = f"plain JAX {contenders['plain'].compiling:.2f} s"
    return Line(row, f"{label}: compiling", contenders["rlinf_ppl"].compiling, "s", note=note)


def memory(settings: Settings, row: str, what: str, names: tuple[str, ...], side: int) -> Iterator[Line]:
    """Peak memory of each contender beyond the inputs."""
    for name in names:
        settings.say(f"{row} S={side**2}: peak memory of {name}")
        peak = peak_memory("benchmarks.peak", name, {"side": side, "row": what})
        note = "with the program and its tables" if name == "rlinf_ppl" else ""
        yield Line(row, f"S={side**2}: peak memory, {name}", peak, "MiB", note=note)
