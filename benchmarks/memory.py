"""Memories inferred from choices: the noise of remembered values, and the inverse temperature of who acts on them.

Agents that act on noisy memories of their own values (`models.noisy_agent`) in the planning task of Patel, Acerbi &
Pouget (2020), and in choices between two options that are remembered wherever they are offered. Of two actions

    pi(first | s) = E sigmoid(x),   x ~ N(beta (q_1 - q_2), beta^2 (std_1^2 + std_2^2))

so that data see the root of std_1^2 + std_2^2 alone. A sigmoid is the law of a logistic number of variance pi^2 / 3:
what they see, nearly, is q_1 - q_2 over the root of std_1^2 + std_2^2 + pi^2 / (3 beta^2). Where beta std is large
beta is lost in it, and the information on log beta falls like (beta std)^-4.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import Beta, LogNormal

from benchmarks.measure import Line, Mismatch, Settings, at_least, same
from benchmarks.recovery import Estimate, Subjects, by_scoring, correlation, on_mesh
from rlinf_ppl import behaviour
from rlinf_ppl.tasks import gallery

if TYPE_CHECKING:
    import pandas as pd

SHARP = 10.0
# Mean and deviation of log roots in the planning task, where values differ by 40 to 120, and of an option's log std.
ROOTS, OPTIONS = (np.log(80.0), 0.6), (np.log(3.0), 0.6)
# Inverse temperatures beside known noise, beside a std that states have in common, and that std.
BETAS, BETAS_BESIDE, COMMON = (0.003, 1.0), (0.01, 0.1), (15.0, 150.0)
# What is read of the noise of a choice besides that of memories.
LOGISTIC = np.pi**2 / 3


class Sizes(NamedTuple):
    """How many subjects, games of three moves (one size after the other), trials with options, points of a mesh."""

    subjects: int
    games: tuple[int, ...]
    trials: tuple[int, ...]
    points: int


FULL, QUICK = Sizes(100, (200, 2000), (600, 6000), 60), Sizes(20, (200,), (), 16)


@cache
def planning() -> Subjects:
    """The planning task: 18 states where something is decided, and an end."""
    return Subjects(gallery.planning_task(), 3)


@cache
def options(trials: int) -> Subjects:
    """Choices between options: what is chosen never matters for what comes next, and values look no further."""
    return Subjects(gallery.memory_choice(), trials, 0.0)


def table_of_roots(logs: Array) -> Array:
    """The std of the planning task, (S, A), whose two in each state have these logs of roots."""
    roots = jnp.append(jnp.exp(logs), 1.0)
    return jnp.broadcast_to(roots[:, None] / jnp.sqrt(2.0), (len(roots), 2))


def table_of_options(logs: Array) -> Array:
    """The std of choices between options, (S, A); what a bonus pays is said, and not remembered."""
    remembered = jnp.exp(logs)
    return jnp.concatenate([remembered, jnp.zeros(2 * len(logs))])[gallery.offered_options(len(logs) // 3)]


def roots(settings: Settings) -> Iterator[Line]:
    """The noise of each state, that of each option, and what cannot be told."""
    sizes = QUICK if settings.quick else FULL
    rng = np.random.default_rng(6)
    law, truth = ROOTS, ROOTS[0] + ROOTS[1] * rng.normal(size=(sizes.subjects, 18))
    for games in sizes.games:
        settings.say(f"roots: {sizes.subjects} subjects, {games} games each")
        found = inferred(planning(), table_of_roots, truth, law, games)
        yield from lines_of(f"{games} games: root of a state", found)
    law, truth = OPTIONS, OPTIONS[0] + OPTIONS[1] * rng.normal(size=(sizes.subjects, 12))
    for trials in sizes.trials:
        settings.say(f"roots: {sizes.subjects} subjects, {trials} trials with options")
        found = inferred(options(trials), table_of_options, truth, law, 1)
        yield from lines_of(f"{trials} trials: std of an option", found)
    settings.say("roots: what cannot be told")
    yield from unseen()


def inferred(
    subjects: Subjects, table: Callable[[Array], Array], truth: np.ndarray, law: tuple[float, float], games: int
) -> Estimate:
    """The logs of noise that subjects have whose inverse temperature is known."""
    std, beta = np.asarray(jax.vmap(table)(jnp.asarray(truth))), np.full(len(truth), SHARP)
    counts = subjects.counts(std, beta, games)
    return by_scoring("roots", lambda x: subjects.policy(table(x), SHARP), counts, truth, law)


def lines_of(what: str, found: Estimate) -> Iterator[Line]:
    """Correlations of truth and estimate, beside what the widths of posteriors promise."""
    r, promised = found.correlations(), found.expected()
    note = f"{np.sum(r >= 0.9)} of {len(r)} are at least .9; from {r.min():.3f} to {r.max():.3f}"
    yield at_least("roots", f"{what}: correlation, median of {len(r)}", np.median(r), "", 0.9, note)
    note = f"from {promised.min():.3f} to {promised.max():.3f}; with what is there {correlation(r, promised):.2f}"
    yield Line("roots", f"{what}: by the widths of posteriors", np.median(promised), "", note=note)
    yield Line("roots", f"{what}: in the 90 % interval", 100 * found.inside.mean(), "%")


def unseen() -> Iterator[Line]:
    """Of the std of both actions, which directions data see; and what a posterior learns of how a root is shared out.

    Raises:
        Mismatch: data see more or less than the root of each state.
    """
    subjects = planning()
    std = np.exp(np.random.default_rng(7).normal(*ROOTS, (18, 2)))
    ended = jnp.ones((1, 2))
    program = lambda p: subjects.program(jnp.concatenate([p["std"], ended]), SHARP)  # noqa: E731
    seen = int(behaviour.fisher_information(program, {"std": std}).spectrum.seen.sum())
    if seen != 18:
        raise Mismatch(f"roots: data see {seen} directions of std in 18 states with two actions.")
    yield Line("roots", "directions of std, (18, 2), that choices see", seen, "", "18", True)
    table = learned(subjects)
    note = ", ".join(f"{row.contraction:.3f} along ({row.root:.2f}, {row.share:.2f})" for row in table.itertuples())
    value = float(table.contraction.iloc[0])
    what = "contraction of how a root is shared out (of the root)"
    yield Line("roots", what, value, "", "0 +- 0.1", bool(abs(value) <= 0.1), note)


def learned(subjects: Subjects, state: int = 12, visits: int = 200, draws: int = 8192) -> "pd.DataFrame":
    """What choices in one state of the last move tell of its root, and of the first std's share in its square."""
    priors = {"root": LogNormal(*ROOTS), "share": Beta(2.0, 2.0)}
    keys = dict(zip(priors, jax.random.split(jax.random.key(3)), strict=True))
    prior = {name: np.asarray(law.sample(keys[name], (draws,))) for name, law in priors.items()}
    std = np.broadcast_to(np.exp(ROOTS[0]), (draws, 19, 2)).copy()
    std[:, state] = prior["root"][:, None] * np.sqrt(np.stack([prior["share"], 1 - prior["share"]], 1))
    log_policy = subjects.log_policies(std, np.full(draws, SHARP))[:, state]
    # They choose as somebody with the median root, to the whole number.
    first = round(visits * float(np.exp(planned(subjects)[state, 0])))
    log_prob = log_policy @ np.array([first, visits - first])
    weights = np.exp(log_prob - log_prob.max())
    kept = np.random.default_rng(8).choice(draws, draws, p=weights / weights.sum())
    return behaviour.contraction({name: x[kept] for name, x in prior.items()}, priors)


def planned(subjects: Subjects) -> np.ndarray:
    """The log policy of somebody with the median root in all states, (S, A)."""
    std = np.full((1, 19, 2), np.exp(ROOTS[0]) / np.sqrt(2))
    return subjects.log_policies(std, np.full(1, SHARP))[0]


def temperature(settings: Settings) -> Iterator[Line]:
    """Inverse temperatures: beside known noise, beside noise of one unknown size, and where noise drowns them."""
    sizes = QUICK if settings.quick else FULL
    settings.say("temperature: information")
    yield from drowned(sizes.games[0])
    for games in sizes.games:
        settings.say(f"temperature: {sizes.subjects} subjects, {games} games each")
        yield from beside_known(sizes, games)
        for name, pattern in patterns().items():
            yield from beside_common(sizes, games, name, pattern)


def patterns() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What a common std multiplies, (S, A), and what is added."""
    early = np.broadcast_to(np.arange(19)[:, None] < 12, (19, 2)).astype(float)
    return {"in all states": (np.ones((19, 2)), np.zeros((19, 2))), "but for the last move": (early, 1 - early)}


def information(std: np.ndarray, beta: np.ndarray, step: float = 1e-3) -> np.ndarray:
    """Fisher information of one game on log beta, (M,), from differences of policies."""
    subjects = planning()
    above, below = (subjects.log_policies(std, beta * np.exp(way * step)) for way in (1, -1))
    here = subjects.log_policies(std, beta)
    slope = (above - below) / (2 * step)
    return np.einsum("ns,nsa,nsa->n", subjects.visits(here), np.exp(here), slope**2)


def drowned(games: int) -> Iterator[Line]:
    """The standard error of log beta as noise grows, and how the information falls.

    Raises:
        Mismatch: the information is not the library's.
    """
    sizes, root = np.array([0.3, 1.0, 3.0, 10.0, 30.0, 100.0]), 60.0
    std = np.full((len(sizes), 19, 2), root / np.sqrt(2))
    found = information(std, sizes / root)
    program = lambda p: planning().program(std[0], p["beta"])  # noqa: E731
    whole = behaviour.fisher_information(program, {"beta": sizes[2] / root}).information[0, 0]
    same("temperature: information", found[2] / (whole * (sizes[2] / root) ** 2), 1.0, 1e-4)
    for size, error in zip(sizes, 1 / np.sqrt(games * found), strict=True):
        yield Line("temperature", f"beta root = {size:g}: standard error of log beta, {games} games", error, "")
    power = float(np.log(found[-1] / found[-2]) / np.log(sizes[-1] / sizes[-2]))
    what = "information on log beta: power of beta root, from 30 to 100"
    yield Line("temperature", what, power, "", "-4 +- 0.1", bool(abs(power + 4) <= 0.1))


def beside_known(sizes: Sizes, games: int) -> Iterator[Line]:
    """Log beta where the std is 30 in all states."""
    axis = np.linspace(*np.log(BETAS), 4 * sizes.points)
    truth = np.random.default_rng(9).uniform(*np.log(BETAS), sizes.subjects)
    std = np.broadcast_to(30.0, (len(axis), 19, 2))
    counts = planning().counts(std[: len(truth)], np.exp(truth), games)
    found = on_mesh(counts, planning().log_policies(std, np.exp(axis)), [axis], truth[:, None])
    size = np.exp(truth) * 30 * np.sqrt(2)
    for what, some in (("below 3", size < 3), ("3 to 10", (size >= 3) & (size < 10)), ("above 10", size >= 10)):
        part = found.of(some)
        label = f"{games} games, std known, beta root {what}: correlation of log beta"
        note = f"{some.sum()} subjects, which differ by {part.truth.std():.2f}; posterior {part.deviation.mean():.2f}"
        r = part.correlations()[0]
        yield (
            at_least("temperature", label, r, "", 0.9, note)
            if what == "below 3"
            else Line("temperature", label, r, "", note=note)
        )
    yield Line("temperature", f"{games} games, std known: in the 90 % interval", 100 * found.inside.mean(), "%")


def beside_common(sizes: Sizes, games: int, name: str, pattern: tuple[np.ndarray, np.ndarray]) -> Iterator[Line]:
    """Log beta and the log of a std that states have in common, and what both come to."""
    axes = [np.linspace(*np.log(BETAS_BESIDE), sizes.points), np.linspace(*np.log(COMMON), sizes.points)]
    mesh = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    truth = np.stack([np.random.default_rng(i).uniform(x[0], x[-1], sizes.subjects) for i, x in enumerate(axes)], 1)
    tables = [np.exp(x[:, 1])[:, None, None] * pattern[0] + pattern[1] for x in (mesh, truth)]
    counts = planning().counts(tables[1], np.exp(truth[:, 0]), games)
    found = on_mesh(counts, planning().log_policies(tables[0], np.exp(mesh[:, 0])), axes, truth)
    label = f"{games} games, common std {name}"
    for what, r, width in zip(("beta", "std"), found.correlations(), found.deviation.mean(0), strict=True):
        note = f"posterior {width:.2f}, subjects {found.truth.std(0)[0 if what == 'beta' else 1]:.2f}"
        yield Line("temperature", f"{label}: correlation of log {what}", r, "", note=note)
    both = [np.log(2 * np.exp(2 * x[:, 1]) + LOGISTIC * np.exp(-2 * x[:, 0])) for x in (found.truth, found.found)]
    r = correlation(*both)
    yield at_least("temperature", f"{label}: of 2 std^2 + pi^2 / (3 beta^2)", r, "", 0.9)
