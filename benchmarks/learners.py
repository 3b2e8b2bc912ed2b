"""Learners: group posteriors in seconds, calibrated posteriors of single subjects, and what groups recover.

Bandits and two steps as `hierarchies` has them. Seconds are those of a process of its own, from its start to the last
draw: with imports, simulated data and compilation. The likelihood alone stands beside the scan that anyone would write.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.nn import log_softmax, one_hot
from numpyro.infer.util import log_density

from benchmarks import calibration
from benchmarks.hierarchies import KINDS, Data, Kind, drawn
from benchmarks.measure import ROOT, Line, Settings, at_most, compiled, interleaved, same
from rlinf_ppl import behaviour

SECONDS = {"bandit": 20.0, "two steps": 60.0}
R_HAT_GROUP, R_HAT_SUBJECT = 1.02, 1.05


def plain_bandit(x: Array, data: Data) -> Array:
    """A scan over trials."""

    def trial(value: Array, seen: tuple[Array, Array]) -> tuple[Array, Array]:
        choice, outcome = seen
        moved = value + x[0] * (2.0 * outcome - 1 - value) * one_hot(choice, 2)
        return moved, log_softmax(x[1] * value)[choice]

    return jnp.sum(lax.scan(trial, jnp.zeros(2), (data["choice"], data["outcome"]))[1])


def plain_two_step(x: Array, data: Data) -> Array:
    """The same, with both values and the last first choice."""
    rate, beta, pi, w = x

    def trial(state: Any, seen: tuple[Array, ...]) -> tuple[Any, Array]:
        (first, second, last), (c, s, d, reward) = state, seen
        best = jnp.max(second, 1)
        value = w * (0.7 * best + 0.3 * best[::-1]) + (1 - w) * first
        term = log_softmax(beta * value + pi * last)[c] + log_softmax(beta * second[s])[d]
        first = first.at[c].add(rate * (second[s, d] - first[c]))
        second = second.at[s, d].add(rate * (reward - second[s, d]))
        return (first.at[c].add(rate * (reward - second[s, d])), second, one_hot(c, 2)), term

    seen = tuple(data[name] for name in KINDS["two steps"].seen)
    return jnp.sum(lax.scan(trial, (jnp.zeros(2), jnp.zeros((2, 2)), jnp.zeros(2)), seen)[1])


PLAIN: dict[str, Callable[[Array, Data], Array]] = {"bandit": plain_bandit, "two steps": plain_two_step}


def run(settings: Settings) -> Iterator[Line]:
    """The likelihood, the posterior of a group, those of single subjects, and those of groups that are drawn anew."""
    for name, kind in KINDS.items():
        yield from likelihood(settings, name, kind)
    # What compiles longest is left out where sizes are toys; the row of calibration runs single posteriors.
    kinds = {"bandit": KINDS["bandit"]} if settings.quick else KINDS
    for name in kinds:
        yield from posterior(settings, name)
    for name, kind in () if settings.quick else kinds.items():
        yield from calibration.calibrated("learners", f"one subject, {name}", single(kind), settings)
    for name, kind in kinds.items():
        yield from recovery(settings, name, kind)


def likelihood(settings: Settings, name: str, kind: Kind) -> Iterator[Line]:
    """Value and slopes at once, against the plain scan."""
    settings.say(f"learners: {name}: value and slopes")
    rounds, calls = (3, 5) if settings.quick else (21, 50)
    found = drawn(kind, kind.subjects, kind.trials, jax.random.key(0), True)
    x, data = found["own"], {each: found[each] for each in kind.seen}

    def total(x: Array, data: Data) -> Array:
        programs = jax.vmap(lambda x: kind.program(x, 1.0, kind.trials))(x)
        return log_density(lambda: behaviour.site("choices", programs, data), (), {}, {})[0]

    def plain_total(x: Array, data: Data) -> Array:
        return jnp.sum(jax.vmap(PLAIN[name])(x, data))

    own, seconds = compiled(jax.jit(jax.value_and_grad(total)), (x, data))
    plain, plain_seconds = compiled(jax.jit(jax.value_and_grad(plain_total)), (x, data))
    for what, answer, wanted in zip(("log likelihood", "slopes"), own(), plain(), strict=True):
        same(f"learners: {what} of {name}", answer, wanted, 1e-8)
    samples = interleaved({"rlinf_ppl": own, "plain": plain}, rounds, calls)
    label = f"{name}, {kind.subjects} x {kind.trials}"
    each, other = (f"{1e3 * samples.seconds(which):.2f} ms" for which in ("rlinf_ppl", "plain"))
    note = f"{each} and {other}, CPU time {samples.cpu_ratio('rlinf_ppl', 'plain'):.2f}x"
    yield Line(
        "learners", f"{label}: value and slopes / plain scan", samples.ratio("rlinf_ppl", "plain"), "x", note=note
    )
    yield Line("learners", f"{label}: compiling", seconds, "s", note=f"plain scan {plain_seconds:.2f} s")


def apart(*arguments: str) -> tuple[float, dict[str, Any]]:
    """The wall seconds of a process of its own until its last draw, and its figures."""
    began = time.time()
    command = [sys.executable, "-m", "benchmarks.learners_apart", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{done.stderr}")
    figures = json.loads(done.stdout.splitlines()[-1])
    return figures["ended"] - began, figures


def posterior(settings: Settings, name: str) -> Iterator[Line]:
    """Four chains of one group."""
    draws = 40 if settings.quick else 1000
    settings.say(f"learners: {name}: 4 chains of {draws} draws, in a process of its own")
    seconds, found = apart("posterior", name, str(draws))
    note = f"CPU time {found['cpu']:.0f} s, {found['steps']:.0f} steps a draw"
    label = f"{name}: 4 x ({draws} + {draws}) draws"
    yield at_most("learners", f"{label}: from start to last draw", seconds, "s", SECONDS[name], note)
    note = f"effective draws at least {found['effective']:.0f}"
    yield at_most("learners", f"{label}: R-hat of the group", found["r_hat_group"], "", R_HAT_GROUP, note)
    yield at_most("learners", f"{label}: R-hat of the slowest subject", found["r_hat_subjects"], "", R_HAT_SUBJECT)
    yield at_most("learners", f"{label}: divergences", float(found["divergences"]), "", 0.0)


def single(kind: Kind) -> calibration.Case:
    """One subject by itself; its parameters are standard normal without bounds, as `mu` is."""

    def program(x: Any, factor: Any) -> Any:
        return kind.program(kind.parameters(x), factor, kind.trials)

    return calibration.Case(program, kind.names, kind.seen, 1)


def recovery(settings: Settings, name: str, kind: Kind) -> Iterator[Line]:
    """Groups that are drawn from the prior."""
    draws, groups = (40, 1) if settings.quick else (500, 10)
    settings.say(f"learners: {name}: posteriors of {groups} groups")
    seconds, found = apart("recovery", name, str(draws), str(groups))
    note = f"{seconds:.0f} s, R-hat of groups at most {found['r_hat_group']:.3f}, {found['divergences']} divergences"
    for what, label in (("own", "subjects"), ("mu", "group means"), ("sigma", "group deviations")):
        figures = found["figures"][what]
        inside = ", ".join(f"{each} {100 * x:.0f} %" for each, x in zip(kind.names, figures["inside"], strict=True))
        related = [f"{each} {x:.2f}" for each, x in zip(kind.names, figures["correlation"], strict=True)]
        line = f"{name}: {figures['number']} {label}: in the 90 % interval"
        beside = f"{inside}; correlation of truth and mean: {', '.join(related)}"
        yield Line("learners", line, 100 * float(np.mean(figures["inside"])), "%", note=beside)
    yield Line("learners", f"{name}: groups", float(groups), "", note=note)
