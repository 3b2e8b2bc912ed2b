"""Certainty equivalents that stay exact at zero probabilities, at small and at negative inverse temperatures.

    CE_tau(w; p) = (1 / tau) log sum_x p(x) exp(tau w(x)),        CE_0(w; p) = sum_x p(x) w(x)

Two forms of the same number are in use. With m the w of the largest tau w of p > 0,

    m + (1 / tau) log sum p exp(tau (w - m))                                                       (logarithmic)

is right wherever |tau| (max w - min w) is not small; its gradient in p is exp(tau (w - CE)) / tau, at p = 0 too, where
the usual logsumexp(tau w + log p) gives NaN. For small |tau| it divides a rounding error by tau; there, with c = w - m
for any centre m, phi(x) = (e^x - 1) / x and psi(y) = log(1 + y) / y,

    m + u psi(tau u),    u = sum p c phi(tau c)                                                    (series)

has no division by tau at all, and its derivative at tau = 0 is half the variance of w. Which form is right is decided
by the alternatives of p > 0. Those of p = 0 add nothing to u, but c phi(tau c) is its derivative in their p, so it is
taken at its full size, which may be far outside the radius.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

SERIES_RADIUS = 0.5


def soft_maximum(
    p: Float[Array, "... K"], w: Float[Array, "... K"], tau: Float[Array, ""] | None = None
) -> tuple[Float[Array, "... K"], Float[Array, "..."]]:
    """Tilt p by exp(tau w) and return the tilted distribution with the certainty equivalent of w.

    Args:
        p: probabilities over the last axis; zeros are allowed, a row of zeros is not. Broadcasts against w.
        w: finite values.
        tau: inverse temperature of any sign; None means 1. Infinite, it takes the best alternatives only, shared in
            proportion to p.

    Returns:
        q = p exp(tau w) / Z, which sums to one over the last axis, and (1 / tau) log Z.
    """
    q, value = _soft_maximum(
        p, w, tau, lambda x: jnp.sum(x, -1, keepdims=True), lambda x: jnp.max(x, -1, keepdims=True)
    )
    return q, value[..., 0]


def soft_maximum_of_columns(
    p: tuple[Float[Array, "..."], ...], w: tuple[Float[Array, "..."], ...], tau: Float[Array, ""] | None = None
) -> tuple[tuple[Float[Array, "..."], ...], Float[Array, "..."]]:
    """`soft_maximum` where the alternatives are K arrays instead of the last axis of one."""
    return _soft_maximum(p, w, tau, sum, lambda x: functools.reduce(jnp.maximum, x))


def _soft_maximum(p: Any, w: Any, tau: Array | None, total: Callable[..., Array], largest: Callable[..., Array]) -> Any:
    """Both of them: p and w are trees of arrays, and `total` and `largest` run over the alternatives."""
    each = jax.tree.map
    if tau is not None:
        hard = jnp.isinf(tau)
        tau = jnp.where(hard, jnp.sign(tau), tau)
    scale, sign = (1.0, 1.0) if tau is None else (tau, jnp.where(tau < 0, -1.0, 1.0))
    best = sign * lax.stop_gradient(largest(each(lambda p, w: jnp.where(p > 0, sign * w, -jnp.inf), p, w)))
    # The difference comes first: where a product with tau is fused with it, that of equal numbers may not be 0.
    weights = each(lambda p, w: p * jnp.exp(jnp.minimum(scale * (w - best), _largest_exponent(w))), p, w)
    norm = total(weights)
    q = each(lambda weight: weight / norm, weights)
    if tau is None:
        return q, best + jnp.log(norm)
    centre = lax.stop_gradient(total(each(lambda p, w: p * w, p, w)))
    offset = each(lambda p, w: jnp.where(p > 0, jnp.abs(lax.stop_gradient(w - centre)), 0.0), p, w)
    reach = jnp.abs(tau) * largest(offset)
    beyond = each(lambda p: (p == 0) & (reach < SERIES_RADIUS), p)
    excess = total(each(lambda p, w, beyond: p * tilted_offset(w - centre, tau, beyond), p, w, beyond))
    value = select_form(tau, reach, centre, excess, best, jnp.log(norm))
    chosen = each(lambda p, w: p * (w == best), p, w)
    number = total(chosen)
    greedy = each(lambda chosen: chosen / number, chosen)
    hard_value = total(each(lambda greedy, w: lax.stop_gradient(greedy) * w, greedy, w))
    return each(lambda q, greedy: jnp.where(hard, greedy, q), q, greedy), jnp.where(hard, hard_value, value)


def tilted_offset(
    c: Float[Array, "..."], tau: Float[Array, ""], beyond: Bool[Array, "..."] | bool = False
) -> Float[Array, "..."]:
    """C phi(tau c) = (exp(tau c) - 1) / tau, and c at tau = 0; clipped where the series is not in use.

    Args:
        c: the offsets.
        tau: the inverse temperature.
        beyond: where the series is in use beyond its radius: there only the range of the dtype is a limit.
    """
    x, bound = tau * c, 2 * SERIES_RADIUS
    if beyond is False:
        return c * expm1_over(jnp.clip(x, -bound, bound))
    largest = float(jnp.finfo(x.dtype).max)
    low, high = (jnp.where(beyond, limit, bound) for limit in (largest, _largest_exponent(x)))
    return jnp.clip(c * expm1_over(jnp.clip(x, -low, high)), -largest, largest)


def select_form(
    tau: Float[Array, ""],
    reach: Float[Array, "..."],
    centre: Float[Array, "..."],
    excess: Float[Array, "..."],
    best: Float[Array, "..."],
    log_norm: Float[Array, "..."],
) -> Float[Array, "..."]:
    """The certainty equivalent by whichever form is exact: by series where reach = |tau| max |c| is small."""
    small = reach < SERIES_RADIUS
    y = jnp.where(small, tau * excess, 0.0)
    series = centre + excess * log1p_over(y)
    return jnp.where(small, series, best + log_norm / jnp.where(tau == 0, 1.0, tau))


def relative_entropy(q: Float[Array, "... K"], p: Float[Array, "... K"]) -> Float[Array, "..."]:
    """KL(q || p) over the last axis in nats: 0 log 0 = 0 with zero gradient, infinite where q has mass, p none.

    Each term is q log(q / p) - q + p, which is the same in sum where both sum to one. None is negative, so what
    rounding leaves of q = p is of second order: an inverse temperature next to 0 divides by it.
    """
    positive, possible = q > 0, p > 0
    near = jnp.abs(q - p) < 0.5 * p
    x = jnp.where(near, (q - p) / jnp.where(possible, p, 1.0), 0.0)
    apart = positive & ~near
    ratio = jnp.log(jnp.where(apart, q, 1.0)) - jnp.log(jnp.where(apart, p, 1.0))
    far = jnp.where(apart, q * ratio - q, 0.0) + p
    return jnp.sum(jnp.where(near, p * ((1 + x) * jnp.log1p(x) - x), far), -1)


def expm1_over(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """(e^x - 1) / x with its limit 1 at 0, differentiable there."""
    small = jnp.abs(x) < 0.05
    # Taylor coefficients 1 / (n + 1)!: the first one left out is below 1e-16 inside the radius, where x stays.
    series = jnp.asarray([1 / 40320, 1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0], x.dtype)
    near = jnp.polyval(series, jnp.where(small, x, 0.0))
    safe = jnp.where(small, 1.0, x)
    return jnp.where(small, near, jnp.expm1(safe) / safe)


def log1p_over(y: Float[Array, "..."]) -> Float[Array, "..."]:
    """log(1 + y) / y with its limit 1 at 0, differentiable there."""
    small = jnp.abs(y) < 0.02
    # The series must not see a large y: its powers overflow, and infinity times 0 is NaN in the gradient.
    series = jnp.asarray([(-1.0) ** n / (n + 1) for n in range(9, -1, -1)], y.dtype)
    near = jnp.polyval(series, jnp.where(small, y, 0.0))
    safe = jnp.where(small, 1.0, y)
    return jnp.where(small, near, jnp.log1p(safe) / safe)


def _largest_exponent(x: Array) -> float:
    """Most of the dtype's range: where p = 0 an exponent may be positive, and 0 times infinity is NaN."""
    return float(jax.numpy.finfo(x.dtype).maxexp) * 0.6931471805599453 * 0.9
