"""Coverage: how often 90 % intervals of maximum likelihood hold the truth, by each kind of standard error.

Panels of bus engines as `behaviour.example` draws them. One fit of `behaviour.maximum_likelihood` compiles for longer
than it counts, so all panels go through Newton's method side by side, on the same `exact.log_prob_terms`, and through
the formulas of the covariances in NumPy. Some are fitted by the library, too, and both have to agree.

    H = -d2 l,   B = sum of s s' over rows,   C = n / (n - 1) times the same over sums of a bus
    hessian H^-1,   bhhh B^-1,   sandwich H^-1 B H^-1,   clustered H^-1 C H^-1
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pandas as pd
from jax import Array, lax
from scipy.stats import binom, norm

from benchmarks.measure import Line, Mismatch, Settings, same
from rlinf_ppl import behaviour
from rlinf_ppl.inference import exact

KINDS = ("hessian", "bhhh", "sandwich", "clustered")
LEVEL = 0.9
STEPS = 8
NAMES = ("replacement", "upkeep")


class Sizes(NamedTuple):
    """How many panels, how many of them the library fits, too, the buses of each, and for how many months."""

    panels: int
    fitted: int
    buses: int
    months: int


FULL, QUICK = Sizes(500, 3, 50, 60), Sizes(60, 1, 30, 40)


class Fits(NamedTuple):
    """Of all panels: the estimates (n, 2), the slope there (n, 2), and by kind the covariance (n, 2, 2)."""

    estimate: np.ndarray
    slope: np.ndarray
    covariance: dict[str, np.ndarray]


@cache
def example() -> Any:
    """Its program, truth, start and columns; its few data are not looked at. First called where nothing is traced."""
    return behaviour.example(2, 2)


def true_parameters() -> np.ndarray:
    """What panels are drawn at, in the order of their names."""
    return np.array([example().truth[name] for name in NAMES])


def program_of(x: Any) -> Any:
    """The program of parameters in the order of their names."""
    return example().program(dict(zip(NAMES, x, strict=True)))


def drawn(key: Array, truth: np.ndarray, sizes: Sizes) -> dict[str, Array]:
    """One panel, (buses, months): everybody's mileage and what they did."""
    program = program_of(truth)
    with_seed = numpyro.handlers.seed(behaviour.site, key)
    found = with_seed("y", program, num_sequences=sizes.buses, num_steps=sizes.months)
    return {"mileage": found["mileage"][:, :-1], "replaced": found["replaced"]}


def rows(x: Array, data: dict[str, Array]) -> Array:
    """The log probability of each row, (buses, months)."""
    program = program_of(x)
    return exact.log_prob_terms(program, exact.solve(program).policy, data)["replaced"]


@jax.jit
def slopes(x: Array, data: dict[str, Array]) -> tuple[Array, Array]:
    """Of each panel the slope of each row (n, buses, months, 2), and the information (n, 2, 2)."""

    def one(panel: tuple[Array, dict[str, Array]]) -> tuple[Array, Array]:
        x, data = panel
        return jax.jacfwd(rows)(x, data), -jax.jacfwd(jax.grad(lambda x: jnp.sum(rows(x, data))))(x)

    return lax.map(one, (x, data), batch_size=50)


def fits(data: dict[str, Array], truth: np.ndarray) -> Fits:
    """Newton's method from the truth for all panels, and the covariances where it ends."""
    x = np.tile(truth, (len(data["replaced"]), 1))
    for _ in range(STEPS):
        scores, information = map(np.asarray, slopes(jnp.asarray(x), data))
        x = x + np.linalg.solve(information, scores.sum((1, 2))[..., None])[..., 0]
    scores, information = map(np.asarray, slopes(jnp.asarray(x), data))
    buses = scores.sum(2)
    n = buses.shape[1]
    outer = np.einsum("nbti,nbtj->nij", scores, scores)
    clustered = n / (n - 1) * np.einsum("nbi,nbj->nij", buses, buses)
    bread = np.linalg.inv(information)
    covariance = bread, np.linalg.inv(outer), bread @ outer @ bread, bread @ clustered @ bread
    return Fits(x, scores.sum((1, 2)), dict(zip(KINDS, covariance, strict=True)))


def check_library(found: Fits, data: dict[str, Array], panel: int) -> None:
    """Compare a panel's fit with that of `behaviour.maximum_likelihood`.

    Raises:
        Mismatch: estimates or covariances differ by more than 1e-6.
    """
    buses, months = data["replaced"].shape[1:]
    frame = pd.DataFrame({name: np.asarray(x[panel]).ravel() for name, x in data.items()})
    frame["bus"], frame["month"] = np.repeat(np.arange(buses), months), np.tile(np.arange(months), buses)
    made = example()
    fit = behaviour.maximum_likelihood(frame, program=made.program, start=made.start, **made.columns)
    if not fit.converged:
        raise Mismatch(f"coverage: panel {panel} does not converge in the library.")
    estimate = [float(fit.estimate[name]) for name in NAMES]
    same(f"coverage: panel {panel}: estimates", found.estimate[panel], estimate, 1e-6)
    for kind in KINDS:
        same(f"coverage: panel {panel}: {kind}", found.covariance[kind][panel], fit.covariance(kind), 1e-6)


def check_converged(found: Fits) -> None:
    """Raise where a panel has not reached its maximum, by the library's own measure.

    Raises:
        Mismatch: so it is.
    """
    bread = found.covariance["hessian"]
    left = np.abs(np.einsum("nij,nj->ni", bread, found.slope)) / np.sqrt(np.einsum("nii->ni", bread))
    if not np.all(left <= 1e-4):
        raise Mismatch(f"coverage: {np.sum(~(left <= 1e-4).all(1))} panels have not reached their maximum.")


def lines_of(found: Fits, truth: np.ndarray, kind: str) -> Iterator[Line]:
    """Coverage of both parameters.

    Raises:
        Mismatch: it is where chance puts it once in 100,000 times.
    """
    deviation = np.sqrt(np.einsum("nii->ni", found.covariance[kind]))
    inside = np.abs(found.estimate - truth) <= norm.ppf(0.5 + LEVEL / 2) * deviation
    n = len(inside)
    low, high = binom.ppf([5e-6, 1 - 5e-6], n, LEVEL)
    for i, name in enumerate(NAMES):
        if not low <= inside[:, i].sum() <= high:
            raise Mismatch(f"coverage: {inside[:, i].sum()} of {n} intervals by {kind} hold {name}, not 90 %.")
        share, spread = 100 * inside[:, i].mean(), found.estimate[:, i].std(ddof=1)
        note = f"mean standard error {deviation[:, i].mean():.4f}, estimates deviate by {spread:.4f}"
        what = f"{kind}: {n} intervals of 90 % for {name}"
        yield Line("coverage", what, share, "%", "86 to 94 %", bool(86 <= share <= 94), note)


def run(settings: Settings) -> Iterator[Line]:
    """Simulated panels, their fits, and what their intervals hold."""
    sizes, truth = QUICK if settings.quick else FULL, true_parameters()
    settings.say(f"coverage: {sizes.panels} panels of {sizes.buses} buses and {sizes.months} months")
    data = jax.jit(jax.vmap(lambda key: drawn(key, truth, sizes)))(jax.random.split(jax.random.key(1), sizes.panels))
    found = fits(data, truth)
    check_converged(found)
    settings.say(f"coverage: {sizes.fitted} of them by behaviour.maximum_likelihood")
    for panel in range(sizes.fitted):
        check_library(found, data, panel)
    for kind in KINDS:
        yield from lines_of(found, truth, kind)
    error = (found.estimate - truth) / found.estimate.std(0, ddof=1)
    for i, name in enumerate(NAMES):
        note = f"standard error {1 / np.sqrt(len(error)):.3f}"
        yield Line("coverage", f"bias of {name}, in deviations of estimates", error[:, i].mean(), "", note=note)
