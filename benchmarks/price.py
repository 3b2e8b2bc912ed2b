"""The price of precision inferred from choices, where memories are as precise as they are worth it.

Of an agent that pays lambda for each nat of its memories' precision the std in each state is known, once its task,
lambda and beta are (`models.resource_allocation_once` without entropy, which is Patel, Acerbi & Pouget 2020):

    std*(lambda, beta) = argmax E_pi sum_t r - lambda KL(std),      choices by noisy memories of the values of this pi

Found by `svi.fit` on a grid of log lambda, from each point to the next, upwards and downwards; where both ways differ
the better one counts. Between points log std is interpolated, and the choices' likelihood is maximised over that.
The subjects' own std are not interpolated: each is a fit at the subject's own lambda.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from scipy.interpolate import RegularGridInterpolator

from benchmarks.measure import Line, Mismatch, Settings, at_least
from benchmarks.memory import SHARP, planning
from benchmarks.recovery import Estimate, on_mesh
from rlinf_ppl import models
from rlinf_ppl.inference import svi

# What a memory is that costs nothing: in the last move it is as good as known.
BASE = np.broadcast_to(np.where(np.arange(19) < 12, 100.0, 1.0)[:, None], (19, 2))
PRICES, BETAS = (0.3, 3.0), (0.02, 0.2)
LOSS, OPTIMIZER = svi.NodeELBO(), optax.adam(0.1)
STEPS, TOLERANCE = 2000, 1e-4


class Sizes(NamedTuple):
    """Grid points of log lambda, of log beta, mesh points, subjects, and games of each (one size after the other)."""

    prices: int
    betas: int
    points: int
    subjects: int
    games: tuple[int, ...]


FULL, QUICK = Sizes(25, 5, 80, 100, (200,)), Sizes(4, 0, 80, 8, (200,))


class Optimal(NamedTuple):
    """The best std at some prices, L of them.

    Attributes:
        log_std: (L, S, A).
        elbo: what is left of the return when precision is paid for, (L,).
        apart: by how much the way up and the way down differ in that, (L,).
        guides: of the fits.
    """

    log_std: np.ndarray
    elbo: np.ndarray
    apart: np.ndarray
    guides: list[Any]


def fitted(price: float, beta: float, guide: Any = None) -> svi.Fit:
    """The best std near the one that a guide has.

    Raises:
        Mismatch: the fit has not converged.
    """
    program = models.resource_allocation_once(planning().mdp, 3, BASE, beta, price, 0.0, std=0.2 * BASE)
    fit = svi.fit(program, jax.random.key(0), STEPS, guide=guide, loss=LOSS, optimizer=OPTIMIZER, tolerance=TOLERANCE)
    if not bool(fit.converged):
        raise Mismatch(f"price: the fit at {price:g} has not converged: {float(fit.residual):.2g}.")
    return fit


def optimal(prices: np.ndarray, beta: float, both_ways: bool) -> Optimal:
    """The best std at each price, from the fit at the one before on, and on the way back from the one after."""
    fits: list[svi.Fit] = []
    for price in prices:
        fits.append(fitted(price, beta, fits[-1].guide if fits else None))
    up = np.array([float(fit.elbo) for fit in fits])
    apart, fit = np.zeros(len(prices)), fits[-1]
    for i in reversed(range(len(prices) - 1)) if both_ways else ():
        fit = fitted(prices[i], beta, fit.guide)
        apart[i] = float(fit.elbo) - up[i]
        fits[i] = fit if apart[i] > 0 else fits[i]
    log_std = np.log(np.stack([np.asarray(fit.guide.params["std"]) for fit in fits]))
    return Optimal(log_std, np.array([float(fit.elbo) for fit in fits]), apart, [fit.guide for fit in fits])


def own_std(prices: np.ndarray, betas: np.ndarray, grid: np.ndarray, found: dict[float, Optimal]) -> np.ndarray:
    """The std of subjects, (n, S, A): each a fit at their own price and beta, from the nearest point of the grid on."""
    known = np.array(list(found))
    std = []
    for price, beta in zip(prices, betas, strict=True):
        nearest = known[np.abs(np.log(known / beta)).argmin()]
        guide = found[nearest].guides[np.abs(np.log(grid / price)).argmin()]
        std.append(np.asarray(fitted(price, beta, guide).guide.params["std"]))
    return np.stack(std)


def run(settings: Settings) -> Iterator[Line]:
    """Lambda where beta is known and drowned, and both where beta is not."""
    sizes = QUICK if settings.quick else FULL
    grid = np.geomspace(*PRICES, sizes.prices)
    settings.say(f"price: {sizes.prices} prices at beta {SHARP:g}")
    found = {SHARP: optimal(grid, SHARP, not settings.quick)}
    yield from hysteresis(grid, found[SHARP])
    rng = np.random.default_rng(10)
    truth = rng.uniform(*np.log(PRICES), (sizes.subjects, 1))
    yield from recovered(settings, sizes, grid, found, truth)
    if sizes.betas:
        settings.say(f"price: {sizes.prices} prices at {sizes.betas} beta")
        found = {float(beta): optimal(grid, beta, True) for beta in np.geomspace(*BETAS, sizes.betas)}
        truth = np.stack([rng.uniform(*np.log(x), sizes.subjects) for x in (PRICES, BETAS)], 1)
        yield from recovered(settings, sizes, grid, found, truth)


def hysteresis(grid: np.ndarray, found: Optimal) -> Iterator[Line]:
    """Where the two ways differ, and where std jumps."""
    apart = np.abs(found.apart) > 1e-3
    note = (
        f"of {len(grid)}; prices {', '.join(f'{x:.2f}' for x in grid[apart])}; by up to {np.abs(found.apart).max():.2f}"
    )
    yield Line("price", "prices at which fits from below and from above end apart", int(apart.sum()), "", note=note)
    jumps = np.abs(np.diff(found.log_std, axis=0)).max((1, 2))
    at = int(jumps.argmax())
    note = f"between {grid[at]:.2f} and {grid[at + 1]:.2f}; median {np.median(jumps):.2f}"
    yield Line("price", "largest change of a log std from a price to the next", jumps[at], "", note=note)


def recovered(
    settings: Settings, sizes: Sizes, grid: np.ndarray, found: dict[float, Optimal], truth: np.ndarray
) -> Iterator[Line]:
    """Prices, and inverse temperatures where they are not known, from choices; truth has their logs."""
    known = truth.shape[1] == 1
    price, beta = np.exp(truth[:, 0]), np.full(len(truth), SHARP) if known else np.exp(truth[:, 1])
    settings.say(f"price: the std of {len(truth)} subjects")
    std = own_std(price, beta, grid, found)
    axes = [np.linspace(*np.log(PRICES), sizes.points * (4 if known else 1))]
    axes += [] if known else [np.linspace(*np.log(BETAS), sizes.points)]
    mesh = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
    log_policy = planning().log_policies(*interpolated(mesh, grid, found))
    for games in sizes.games:
        counts = planning().counts(std, beta, games)
        yield from lines_of(
            f"{games} games, beta {'known' if known else 'unknown'}", on_mesh(counts, log_policy, axes, truth)
        )


def interpolated(mesh: np.ndarray, grid: np.ndarray, found: dict[float, Optimal]) -> tuple[np.ndarray, np.ndarray]:
    """The std (M, S, A) and beta (M,) at the points of a mesh."""
    values = np.stack([each.log_std for each in found.values()], 1)
    if len(found) == 1:
        of = RegularGridInterpolator([np.log(grid)], values[:, 0], bounds_error=False, fill_value=None)
        return np.exp(of(mesh)), np.full(len(mesh), next(iter(found)))
    of = RegularGridInterpolator([np.log(grid), np.log(list(found))], values, bounds_error=False, fill_value=None)
    return np.exp(of(mesh)), np.exp(mesh[:, 1])


def lines_of(what: str, found: Estimate) -> Iterator[Line]:
    """Correlations, the width of posteriors beside how far subjects are apart, and coverage."""
    widths, spreads = found.deviation.mean(0), found.truth.std(0)
    for i, name in enumerate(("lambda", "beta")[: found.truth.shape[1]]):
        note = f"posterior {widths[i]:.3f}, subjects {spreads[i]:.2f}; {100 * found.inside[:, i].mean():.0f} % in 90 %"
        yield at_least("price", f"{what}: correlation of log {name}", found.correlations()[i], "", 0.9, note)
