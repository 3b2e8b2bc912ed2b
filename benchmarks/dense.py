"""P1 and P1b: how fast the soft backward recursion of a dense task is, one inverse temperature and eight at once."""

from collections.abc import Iterator

import jax.numpy as jnp

from benchmarks.measure import Line, Samples, Settings, at_least, at_most, compiled, interleaved, peak_memory, same
from benchmarks.soft_backward import (
    BETAS,
    CONTENDERS,
    Contender,
    by_imitation,
    in_own_memory,
    make_problem,
    products,
)


def one(settings: Settings) -> Iterator[Line]:
    """P1: one inverse temperature, a large and a small task."""
    for states, rounds, calls in ((300, 5, 5), (100, 5, 20)) if settings.quick else ((3000, 9, 1), (100, 31, 40)):
        yield from one_size(settings, states, rounds, calls)


def one_size(settings: Settings, states: int, rounds: int, calls: int) -> Iterator[Line]:
    """P1 at one number of states."""
    label = f"S={states}"
    settings.say(f"P1 {label}: compiling and checking")
    problem = in_own_memory(make_problem(states))
    contenders = {name: CONTENDERS[name](problem) for name in ("plain", "rlinf_ppl", "numpy")}
    absent = ""
    try:
        contenders["imitation"] = by_imitation(problem)
    except ImportError as error:
        absent = f"not installed ({error}); it needs an environment of its own"
    cross_check(f"P1 {label}", contenders, "plain")
    settings.say(f"P1 {label}: {rounds} rounds")
    calls_of = {name: contender.run for name, contender in contenders.items()}
    samples = interleaved(calls_of | {"call": contenders["rlinf_ppl"].calling}, rounds, calls)
    yield at_most("P1", f"{label}: solver / plain scan", *figure(samples, "rlinf_ppl", "plain", 1.1))
    yield Line("P1", f"{label}: NumPy loop / solver", *information(samples, "numpy", "rlinf_ppl"))
    if absent:
        yield Line("P1", f"{label}: imitation / solver", None, "x", note=absent)
    else:
        limit = 7.0 if states <= 100 else 1.3
        yield at_least("P1", f"{label}: imitation / solver", *figure(samples, "imitation", "rlinf_ppl", limit))
    yield Line("P1", f"{label}: exact.solve as it is called / plain scan", *information(samples, "call", "plain"))
    yield Line("P1", f"{label}: plain scan", 1e3 * samples.seconds("plain"), "ms")
    yield Line("P1", f"{label}: compiling the solver", contenders["rlinf_ppl"].compiling, "s", note=beside(contenders))
    if states > 1000:
        yield from memory(settings, "P1", states, ("plain", "rlinf_ppl", "numpy"))


def many(settings: Settings) -> Iterator[Line]:
    """P1b: eight inverse temperatures at once, against one."""
    states, rounds, calls = (300, 5, 5) if settings.quick else (3000, 9, 1)
    label = f"S={states}"
    settings.say(f"P1b {label}: compiling and checking")
    problem = in_own_memory(make_problem(states))
    names = ("plain", "rlinf_ppl", "rlinf_ppl_vmapped", "plain_vmapped")
    contenders = {name: CONTENDERS[name](problem) for name in names}
    cross_check("P1b", {name: contenders[name] for name in names[:2]}, "plain")
    cross_check("P1b", {name: contenders[name] for name in names[2:]}, "plain_vmapped")
    alone, together = contenders["plain"].checked(), contenders["rlinf_ppl_vmapped"].checked()
    same("P1b: the last of eight", together[0][-1], alone[0], 1e-9)
    settings.say(f"P1b {label}: {rounds} rounds")
    columns = jnp.tile(problem.reward[:, 0], (BETAS, 1))
    bare = {
        "product": compiled(products, (problem.transition, columns[0]), horizon=problem.horizon)[0],
        "products": compiled(products, (problem.transition, columns), horizon=problem.horizon)[0],
    }
    samples = interleaved({name: contenders[name].run for name in names} | bare, rounds, calls)
    yield at_most("P1b", f"{label}: 8 betas / one", *figure(samples, "rlinf_ppl_vmapped", "rlinf_ppl", 1.6))
    yield Line("P1b", f"{label}: the matrix products alone, 8 / one", *information(samples, "products", "product"))
    yield Line("P1b", f"{label}: plain scan, vmapped / one", *information(samples, "plain_vmapped", "plain"))
    yield Line("P1b", f"{label}: solver / plain scan, both 8", *information(samples, names[2], names[3]))
    if states > 1000:
        yield from memory(settings, "P1b", states, ("plain_vmapped", "rlinf_ppl_vmapped"))


def cross_check(where: str, contenders: dict[str, Contender], reference: str) -> None:
    """Raise where a contender's values or policies differ from the reference's."""
    values, policies = contenders[reference].checked()
    for name, contender in contenders.items():
        found = contender.checked()
        same(f"{where}: the values of {name}", found[0], values, 1e-9)
        same(f"{where}: the policy of {name}", found[1], policies, 1e-9)


def figure(samples: Samples, name: str, against: str, limit: float) -> tuple[float, str, float, str]:
    """A ratio with its target, and the CPU ratio beside it."""
    value, unit, _, _, note = information(samples, name, against)
    return value, unit, limit, note


def information(samples: Samples, name: str, against: str) -> tuple[float, str, str, None, str]:
    """A ratio without a target, and the CPU ratio beside it."""
    note = f"CPU time {samples.cpu_ratio(name, against):.2f}x"
    return samples.ratio(name, against), "x", "", None, note


def beside(contenders: dict[str, Contender]) -> str:
    """How long the plain scan took to compile."""
    return f"the plain scan {contenders['plain'].compiling:.2f} s"


def memory(settings: Settings, row: str, states: int, names: tuple[str, ...]) -> Iterator[Line]:
    """Peak memory of each contender beyond the transition itself."""
    for name in names:
        settings.say(f"{row} S={states}: peak memory of {name}")
        peak = peak_memory("benchmarks.peak", name, {"states": states})
        note = "with the program and its tables" if name.startswith("rlinf_ppl") else ""
        yield Line(row, f"S={states}: peak memory, {name}", peak, "MiB", note=note)
