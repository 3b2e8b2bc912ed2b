"""The one temperature at which soft-optimal control spends what it may.

    maximise E sum_t gamma^t R_t      where   sum_t gamma^t E KL(pi_t || q_t) <= eps

With a multiplier alpha >= 0 for the bound the best policy is that of the elimination at the inverse temperature
1 / alpha. The sum of KLs falls in alpha, far from any bound as alpha^-2, so that x = log alpha is the root of
log KL(x) - log eps, near a slope of -2; it is bracketed, and a secant finds it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from rlinf_ppl.inference.bounds.spending import Spending

# Log temperatures that are looked at.
LOWEST, HIGHEST = -80.0, 80.0
# What is left to gain beside the value where a bound counts as slack.
NOTHING = 64.0
MOST_SECANTS = 120
# How far log KL falls, at least and at most, by one of log alpha; and where nothing is known of it.
FLATTEST, STEEPEST, USUAL = -1e-6, -20.0, -2.0
LONGEST = 20.0
# How many nats a step of the policy that a search begins with moves at most: where it is certain, nothing has a slope.
MOVES = 0.1

Spend = Callable[[Array], Spending]
Ratio = Callable[[Spending], Array]


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


def common(spend: Spend, ratio: Ratio, worth: Float[Array, ""], start: Float[Array, ""]) -> tuple[Any, Spending]:
    """The log of the one temperature at which bounds are met, and what is spent at it.

    Where they are slack the temperature is so low that nothing is left to gain.

    Args:
        spend: what is spent at the log of a temperature.
        ratio: how much of the bounds that is: the one temperature makes it 1.
        worth: the sum of the bounds: what is left to gain is at most that times the temperature.
        start: where to begin.
    """
    tolerance = 16 * jnp.finfo(worth.dtype).eps

    def excess(spent: Spending, x: Array) -> tuple[Array, Array]:
        part = ratio(spent)
        known = jnp.isfinite(part) & jnp.isfinite(spent.elbo)
        # Rounding may leave a cost of nothing below 0.
        f = jnp.log(jnp.maximum(part, jnp.finfo(part.dtype).tiny))
        gain = jnp.exp(x) * worth * (1 - part)
        slack = known & (gain > 0) & (gain <= NOTHING * jnp.finfo(part.dtype).eps * jnp.abs(spent.elbo))
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
