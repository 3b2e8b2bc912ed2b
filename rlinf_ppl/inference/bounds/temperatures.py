"""Temperatures at which soft-optimal control spends what it may, by the convex dual.

    maximise E sum_t gamma^t R_t   where   E KL(pi_t || q_t) <= eps_t       for all t, or for the sum of them

With a multiplier alpha_t >= 0 for each bound the best policy is that of the elimination at the inverse temperature
1 / alpha_t, and the dual

    g(alpha) = E V_1 + sum_t gamma^t alpha_t eps_t,       dg / d alpha_t = gamma^t (eps_t - KL_t)

is convex. Its minimum is looked for in x = log alpha. One multiplier is the root of log KL(x) - log eps, which falls in
x; it is bracketed, and a secant finds it, near a slope of -2: far from any bound KL is proportional to alpha^-2. Many
are found by Newton's method, whose systems

    (H + diag(c)) s = -slope,      H_ts = -gamma^t alpha_t dKL_t / dx_s,     c = max(slope, 0) / 8

are solved by conjugate gradients with products of H only (Steihaug 1983). Where a bound is slack, H and the slope fall
to 0 together, and c is what makes alpha_t fall by e^8 a step there. Steps are halved until the dual or its slope falls.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from rlinf_ppl.inference.bounds.spending import Spending

# Log temperatures that are looked at; and how far below the common one a single one may be.
LOWEST, HIGHEST, DEEPEST = -80.0, 80.0, -30.0
# What is left to gain beside the value where a bound counts as slack.
NOTHING = 64.0
MOST_SECANTS, MOST_NEWTONS, MOST_HALVINGS = 120, 200, 30
# How far log KL falls, at least and at most, by one of log alpha; and where nothing is known of it.
FLATTEST, STEEPEST, USUAL = -1e-6, -20.0, -2.0
LONGEST = 20.0
# How much of alpha one step may take away, and how large the barrier is beside what is left.
NEARLY, BARRIER = 0.98, 0.1

Spend = Callable[[Array], Spending]


class Search(NamedTuple):
    """A search for the root of log KL - log bound.

    Attributes:
        x, f: where it is evaluated, and the value there; infinite where there is no solution.
        before, f_before: the same, one evaluation before.
        low, high: x between which the root is.
        best, f_best: the x with the smallest |f|.
        spent: what is spent there.
        steps: how many evaluations there were.
        slack: whether next to nothing is left to gain at the last one.
    """

    x: Float[Array, ""]
    f: Float[Array, ""]
    before: Float[Array, ""]
    f_before: Float[Array, ""]
    low: Float[Array, ""]
    high: Float[Array, ""]
    best: Float[Array, ""]
    f_best: Float[Array, ""]
    spent: Spending
    steps: Float[Array, ""]
    slack: Bool[Array, ""]


def common(spend: Spend, bound: Float[Array, ""], start: Float[Array, ""]) -> tuple[Float[Array, ""], Spending]:
    """The log of the one temperature at which the sum of what is spent is a bound, and what is spent at it.

    Where the bound is slack the temperature is so low that nothing is left to gain.

    Args:
        spend: what is spent at the log of a temperature.
        bound: above 0.
        start: where to begin.
    """
    tolerance = 16 * jnp.finfo(bound.dtype).eps

    def excess(spent: Spending, x: Array) -> tuple[Array, Array]:
        total = jnp.sum(spent.weights * spent.kl)
        known = jnp.isfinite(total) & jnp.isfinite(spent.elbo)
        # Rounding may leave a cost of nothing below 0.
        f = jnp.log(jnp.maximum(total, jnp.finfo(total.dtype).tiny)) - jnp.log(bound)
        gain = jnp.exp(x) * (bound - total)
        slack = known & (gain > 0) & (gain <= NOTHING * jnp.finfo(total.dtype).eps * jnp.abs(spent.elbo))
        return jnp.where(known, f, jnp.inf), slack

    def going(search: Search) -> Bool[Array, ""]:
        narrow = search.high - search.low <= tolerance * jnp.maximum(1.0, jnp.abs(search.x))
        found = (jnp.abs(search.f_best) <= tolerance) | search.slack
        beyond = (search.x < LOWEST) | (search.x > HIGHEST)
        return (search.steps < MOST_SECANTS) & ~(found | narrow | beyond)

    def body(search: Search) -> Search:
        spent = spend(search.x)
        f, slack = excess(spent, search.x)
        low = jnp.where(f > 0, jnp.maximum(search.low, search.x), search.low)
        high = jnp.where(f > 0, search.high, jnp.minimum(search.high, search.x))
        own = search.x, f, spent
        kept = search.best, search.f_best, search.spent
        # The first one is kept, too, so that something is.
        better = (jnp.abs(f) < jnp.abs(search.f_best)) | (search.steps == 0)
        best, f_best, spent = jax.tree.map(lambda new, old: jnp.where(better, new, old), own, kept)
        x = following(search, f, low, high)
        return Search(x, f, search.x, f, low, high, best, f_best, spent, search.steps + 1, slack)

    inf, zero = jnp.full_like(start, jnp.inf), jnp.zeros_like(start)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(spend, start))
    begin = Search(start, inf, start, inf, -inf, inf, start, inf, nothing, zero, jnp.asarray(False))
    found = lax.while_loop(going, body, begin)
    return found.best, found.spent


def following(search: Search, f: Array, low: Array, high: Array) -> Float[Array, ""]:
    """Where to evaluate next: on the secant; where that helps little, in the middle of the bracket, or twice as far."""
    moved = search.x - search.before
    known = jnp.isfinite(f) & jnp.isfinite(search.f_before) & (moved != 0)
    secant = (f - jnp.where(known, search.f_before, 0.0)) / jnp.where(known, moved, 1.0)
    slope = jnp.where(known, jnp.clip(secant, STEEPEST, FLATTEST), USUAL)
    step = jnp.where(jnp.isfinite(f), -jnp.where(jnp.isfinite(f), f, 0.0) / slope, LONGEST / 4)
    slow = known & (jnp.abs(f) > 0.5 * jnp.abs(search.f_before))
    farther = jnp.sign(f) * jnp.maximum(jnp.abs(step), jnp.where(slow, 2 * jnp.abs(moved), 0.0))
    bracketed = jnp.isfinite(low) & jnp.isfinite(high)
    there = search.x + jnp.clip(jnp.where(bracketed, step, farther), -LONGEST, LONGEST)
    middle = (jnp.where(bracketed, low, 0.0) + jnp.where(bracketed, high, 0.0)) / 2
    return jnp.where(bracketed & (slow | (there <= low) | (there >= high)), middle, there)


class Descent(NamedTuple):
    """A descent of the dual.

    Attributes:
        x: log alpha.
        spent: what is spent there.
        left: how far that is from optimal, see `distance`.
        barrier: the weight of - sum log alpha, which is added to the dual.
        stalled: how many steps in a row have not brought it nearer.
        steps: how many steps there were.
    """

    x: Float[Array, " T"]
    spent: Spending
    left: Float[Array, ""]
    barrier: Float[Array, ""]
    stalled: Float[Array, ""]
    steps: Float[Array, ""]


def each(
    spend: Spend, bounds: Float[Array, " T"], start: Float[Array, " T"], spent: Spending
) -> tuple[Float[Array, " T"], Spending]:
    """The logs of the temperatures at which each step spends its bound, and what is spent at them.

    Where a bound is slack the temperature is so low that next to nothing is left to gain.

    Args:
        spend: what is spent at the logs of temperatures.
        bounds: above 0.
        start: where to begin; there has to be a solution. Nothing falls below it by more than DEEPEST.
        spent: what is spent there.
    """
    goal = 4 * jnp.finfo(bounds.dtype).eps
    lowest = start + DEEPEST

    def going(at: Descent) -> Bool[Array, ""]:
        return (at.steps < MOST_NEWTONS) & (at.left > goal) & (at.stalled < 3)

    def body(at: Descent) -> Descent:
        x, spent = halved(spend, bounds, at, newton(spend, bounds, at), lowest)
        left, off = distance(x, spent, bounds), jnp.max(jnp.abs(slope_of(x, spent, bounds) - at.barrier))
        # A barrier is lowered once its own minimum is near: first by a digit, in the end by as many as there are.
        relative = at.barrier / worth_of(x, spent, bounds)
        arrived = off <= at.barrier
        barrier = jnp.where(arrived, at.barrier * jnp.minimum(BARRIER, relative**0.5), at.barrier)
        falls = merit(at.barrier, x, spent, bounds) < merit(at.barrier, at.x, at.spent, bounds) - noise(at, bounds)
        stalled = jnp.where(arrived | falls | (left < 0.9 * at.left), 0.0, at.stalled + 1)
        return Descent(x, spent, left, barrier, stalled, at.steps + 1)

    barrier = BARRIER * worth_of(start, spent, bounds) / len(bounds)
    zero = jnp.zeros((), bounds.dtype)
    found = lax.while_loop(going, body, Descent(start, spent, distance(start, spent, bounds), barrier, zero, zero))
    return found.x, found.spent


def dual(x: Float[Array, " T"], spent: Spending, bounds: Float[Array, " T"]) -> Float[Array, ""]:
    """The dual at the logs of temperatures."""
    return spent.elbo + worth_of(x, spent, bounds)


def worth_of(x: Float[Array, " T"], spent: Spending, bounds: Float[Array, " T"]) -> Float[Array, ""]:
    """What the bounds are worth together."""
    return jnp.sum(spent.weights * jnp.exp(x) * bounds)


def merit(
    barrier: Float[Array, ""], x: Float[Array, " T"], spent: Spending, bounds: Float[Array, " T"]
) -> Float[Array, ""]:
    """The dual with a barrier, which steps bring down."""
    return dual(x, spent, bounds) - barrier * jnp.sum(x)


def noise(at: Descent, bounds: Float[Array, " T"]) -> Float[Array, ""]:
    """What rounding may do to it."""
    return 8 * jnp.finfo(bounds.dtype).eps * (jnp.abs(at.spent.elbo) + worth_of(at.x, at.spent, bounds))


def slope_of(x: Float[Array, " T"], spent: Spending, bounds: Float[Array, " T"]) -> Float[Array, " T"]:
    """Its derivative in x."""
    return spent.weights * jnp.exp(x) * (bounds - spent.kl)


def distance(x: Float[Array, " T"], spent: Spending, bounds: Float[Array, " T"]) -> Float[Array, ""]:
    """The largest slope beside what the bounds are worth together, or excess over a bound beside it."""
    excess = jnp.max(jnp.maximum(spent.kl - bounds, 0.0) / bounds)
    return jnp.maximum(excess, jnp.max(jnp.abs(slope_of(x, spent, bounds))) / worth_of(x, spent, bounds))


def newton(spend: Spend, bounds: Float[Array, " T"], at: Descent) -> Float[Array, " T"]:
    """Newton's step, relative to alpha, by conjugate gradients; to more digits as the slope has fewer."""
    scale = at.spent.weights * jnp.exp(at.x)
    slope = slope_of(at.x, at.spent, bounds) - at.barrier
    push = jax.linearize(lambda x: spend(x).kl, at.x)[1]

    def product(s: Array) -> Array:
        return -scale * push(s) + at.barrier * s

    # Alone, each step's KL is about proportional to alpha^-2.
    near = 2 * scale * at.spent.kl + at.barrier
    within = jnp.minimum(0.1, jnp.sqrt(at.left))
    step = jax.scipy.sparse.linalg.cg(product, -slope, M=lambda s: s / near, tol=within, maxiter=2 * len(bounds) + 20)
    return jnp.where(jnp.all(jnp.isfinite(step[0])), step[0], -slope / near)


def halved(
    spend: Spend, bounds: Float[Array, " T"], at: Descent, step: Float[Array, " T"], lowest: Float[Array, " T"]
) -> tuple[Float[Array, " T"], Spending]:
    """Where a step leads, halved until the dual with its barrier falls, or where both are noise the slope does."""
    slope = jnp.sum((slope_of(at.x, at.spent, bounds) - at.barrier) * step)
    before, rounding = merit(at.barrier, at.x, at.spent, bounds), noise(at, bounds)

    def good(state: tuple[Array, Array, Spending]) -> Bool[Array, ""]:
        size, x, spent = state
        change = merit(at.barrier, x, spent, bounds) - before
        nearer = (change <= rounding) & (distance(x, spent, bounds) < 0.9 * at.left)
        return (size <= 1) & jnp.all(jnp.isfinite(spent.kl)) & ((change <= 1e-4 * size * slope) | nearer)

    def going(state: tuple[Array, Array, Spending]) -> Bool[Array, ""]:
        return (state[0] > 0.5**MOST_HALVINGS) & ~good(state)

    def body(state: tuple[Array, Array, Spending]) -> tuple[Array, Array, Spending]:
        size = state[0] / 2
        x = jnp.clip(at.x + jnp.log1p(jnp.maximum(size * step, -NEARLY)), lowest, HIGHEST)
        return size, x, spend(x)

    found = lax.while_loop(going, body, (jnp.full((), 2.0, bounds.dtype), at.x, at.spent))
    return jax.tree.map(lambda new, old: jnp.where(good(found), new, old), found[1:], (at.x, at.spent))
