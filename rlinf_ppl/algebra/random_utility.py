"""Choice by noisy values: a softmax of values that were remembered with Gaussian noise (a mixed logit).

    p_a = E softmax(mean + std z)_a,     H = E entropy(softmax(mean + std z)),     z ~ N(0, I)

A softmax is the choice of the largest of mean_a + std_a z_a + g_a with g_a standard Gumbel (McFadden 1974), so that

    p_a = int f_a(u) prod_{b != a} F_b(u) du,      H = sum_a int m_a(u) prod_{b != a} F_b(u) du - euler_gamma

with F and f the distribution function and density of mean + std z + g, and m(u) = E[g; u]: H is by how much the Gumbel
number of the winner exceeds the others'. It is one dimension for any number of alternatives. Of two alternatives only
the difference matters: p_1 = E sigmoid(x) and H = E h(x), with x ~ N(mean_1 - mean_2, std_1^2 + std_2^2).

Nodes on z see a step where std is large, and lose it between two of them: 200 of them are off by .05 at std 1000. So
what is narrow is integrated, and what is wide stays smooth: E B(y - std z) is a sum over nodes of z where std is small,
and over nodes of B's own noise where it is large. Both are trapezoidal sums, whose error falls exponentially in their
number; see `Rule` for what is left. Derivatives are those of the integrals: with D_n the n-th in y, the heat equation
says dD_n = D_{n+1} dy + std D_{n+2} dstd.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import erf, erfc
from jaxtyping import Array, Float

# Where one way to integrate gives way to the other.
WIDE = 1.5
# Where panels begin and end, in standard deviations of one alternative about its mean: Gumbel's right tail is long.
EDGES = np.array([-7.0, -4.5, -2.7, -1.2, 0.2, 1.6, 3.2, 5.3, 8.3, 13.0, 23.0])
GUMBEL_STD = np.pi / np.sqrt(6)


class Rule(NamedTuple):
    """How finely is integrated: to 1e-11 in double precision, to 1e-6 in single.

    Attributes:
        normal: step and end of nodes of z.
        own: step, and both ends, of nodes of the other noise.
        order: nodes of each panel over what is largest.
    """

    normal: tuple[float, float]
    own: tuple[float, float, float]
    order: int


DOUBLE = Rule((0.24, 8.3), (0.32, -3.6, 28.0), 9)
SINGLE = Rule((0.45, 5.8), (0.62, -2.9, 17.0), 5)


class Kernel(NamedTuple):
    """A function B of one number that is blurred by Gaussian noise.

    Attributes:
        derivative: (n, x) -> the n-th derivative of B.
        two_sided: whether B' is as long to the left as to the right.
    """

    derivative: Callable[[int, Array], Array]
    two_sided: bool


def choice(mean: Float[Array, "*#n K"], std: Float[Array, "*#n K"]) -> Float[Array, "*n K"]:
    """The probabilities of a softmax of noisy values, exact to the digits that `Rule` names.

    Args:
        mean: of the values, times the inverse temperature of the softmax.
        std: of their noise, at least 0, times the same.

    Returns:
        p, differentiable twice and more. Of three and more, what is below 1e-11 (1e-6) has no digits of its own.
    """
    mean, std = together(mean, std)
    if mean.shape[-1] == 1:
        return jnp.ones_like(mean)
    if mean.shape[-1] == 2:
        gap, spread = difference(mean, std)
        return jnp.stack([ahead(gap, spread), ahead(-gap, spread)], -1)
    p = winning(mean, std, partial(blurred, GUMBEL, 1))
    # What is left of the sum is rounding, which a value of such a policy adds up over time.
    return p / jnp.sum(p, -1, keepdims=True)


def mean_entropy(mean: Float[Array, "*#n K"], std: Float[Array, "*#n K"]) -> Float[Array, "*n"]:
    """The mean entropy of a softmax of noisy values in nats, given the noise; see `choice`."""
    mean, std = together(mean, std)
    if mean.shape[-1] == 1:
        return jnp.zeros_like(mean[..., 0])
    if mean.shape[-1] == 2:
        return blurred(ENTROPY, 1, *difference(mean, std))
    return jnp.sum(winning(mean, std, partial(blurred, WEIGHED, 1)), -1) - np.euler_gamma


def together(mean: Array, std: Array) -> tuple[Array, Array]:
    """Both with one shape and type."""
    mean, std = jnp.broadcast_arrays(jnp.asarray(mean, float), jnp.asarray(std, float))
    return mean, std


def difference(mean: Array, std: Array) -> tuple[Array, Array]:
    """By how much the first of two is ahead, and the noise of that; its slope at no noise is 0."""
    variance = jnp.sum(std**2, -1)
    some = variance > 0
    return mean[..., 0] - mean[..., 1], jnp.where(some, jnp.sqrt(jnp.where(some, variance, 1.0)), 0.0)


def ahead(gap: Array, spread: Array) -> Array:
    """E sigmoid(gap + spread z), with its digits where it is small.

    There it is e^{gap + spread^2 / 2} E sigmoid(-gap - spread^2 - spread z), since sigmoid(x) = e^x sigmoid(-x).
    """
    behind = gap < -(spread**2)
    held = jnp.where(behind, gap, -(spread**2))
    tail = jnp.exp(held + 0.5 * spread**2) * blurred(LOGISTIC, 0, -held - spread**2, spread)
    return jnp.where(behind, tail, blurred(LOGISTIC, 0, jnp.where(behind, 0.0, gap), spread))


def winning(mean: Array, std: Array, density: Callable[[Array, Array], Array]) -> Array:
    """Int of a density of each alternative times the probability that all others are smaller."""
    # Near the largest, numbers have digits whatever all have in common.
    mean = mean - lax.stop_gradient(jnp.max(mean, -1, keepdims=True))
    at, weights = panels(mean, std)
    away = at[..., None] - mean[..., None, :]
    spread = jnp.broadcast_to(std[..., None, :], away.shape)
    below, here = blurred(GUMBEL, 0, away, spread), density(away, spread)
    return jnp.sum(weights[..., None] * here * all_others(below), -2)


def all_others(factors: Float[Array, "*n K"]) -> Float[Array, "*n K"]:
    """The product of all entries but one, for each; no division, so that zeros are as good as others."""
    # Running products, from both sides.
    before, after = [jnp.ones_like(factors[..., 0])], [jnp.ones_like(factors[..., 0])]
    for k in range(factors.shape[-1] - 1):
        before.append(before[-1] * factors[..., k])
        after.append(after[-1] * factors[..., -1 - k])
    return jnp.stack(before, -1) * jnp.stack(after[::-1], -1)


def panels(mean: Array, std: Array) -> tuple[Array, Array]:
    """Nodes and weights, (..., m), over where the largest may be: Gauss and Legendre's between all edges of all."""
    mean, std = lax.stop_gradient((mean, std))
    width = jnp.sqrt(std**2 + GUMBEL_STD**2)
    edges = mean[..., None] + np.euler_gamma + width[..., None] * last(EDGES, width)
    # Below this edge of any one of them there is no largest.
    edges = jnp.maximum(edges, jnp.max(edges[..., :1], -2, keepdims=True))
    edges = jnp.sort(jnp.reshape(edges, (*edges.shape[:-2], -1)), -1)
    points, weights = np.polynomial.legendre.leggauss(rule_of(mean.dtype).order)
    half = 0.5 * (edges[..., 1:] - edges[..., :-1])[..., None]
    at = edges[..., :-1, None] + half * last(points + 1, edges[..., 1:])
    flat = (*at.shape[:-2], -1)
    return jnp.reshape(at, flat), jnp.reshape(half * last(weights, edges[..., 1:]), flat)


def last(numbers: np.ndarray, like: Array) -> Array:
    """Numbers along an axis after those of an array, of its type."""
    return jnp.asarray(numbers, like.dtype)[(None,) * like.ndim]


def rule_of(dtype: Any) -> Rule:
    """The rule of a precision."""
    return DOUBLE if dtype == jnp.float64 else SINGLE


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def blurred(kernel: Kernel, order: int, y: Array, std: Array) -> Array:
    """The derivative of some order of E B(y - std z)."""
    rule = rule_of(y.dtype)
    wide = std >= WIDE

    def narrow(_: None) -> Array:
        step, end = rule.normal
        z = np.arange(-round(end / step), round(end / step) + 1) * step
        weights = np.exp(-0.5 * z**2)
        held = jnp.where(wide, 0.0, std)[..., None]
        terms = kernel.derivative(order, y[..., None] - held * last(z, y))
        return jnp.sum(terms * last(weights / weights.sum(), y), -1)

    def broad(_: None) -> Array:
        x, weights = own_nodes(kernel, rule)
        held = jnp.where(wide, std, WIDE)[..., None]
        away = (y[..., None] - last(x, y)) / held
        terms = normal(order, away, kernel.two_sided) / held**order
        return jnp.sum(terms * last(weights, y), -1)

    nothing = jnp.zeros_like
    # Most calls have one kind only.
    few = lax.cond(jnp.all(wide), lambda _: nothing(y), narrow, None)
    many = lax.cond(jnp.any(wide), broad, lambda _: nothing(y), None)
    return jnp.where(wide, many, few)


@blurred.defjvp
def blurred_jvp(kernel: Kernel, order: int, primals: Any, tangents: Any) -> tuple[Array, Array]:
    """The heat equation."""
    (y, std), (dy, dstd) = primals, tangents
    along, across = blurred(kernel, order + 1, y, std), blurred(kernel, order + 2, y, std)
    return blurred(kernel, order, y, std), along * dy + std * across * dstd


@lru_cache
def own_nodes(kernel: Kernel, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of a kernel's own noise, and the weights that B' gives them."""
    step, left, right = rule.own
    left, right = (-1.4 * right, 1.4 * right) if kernel.two_sided else (left, right)
    x = np.arange(np.floor(left / step), np.ceil(right / step) + 1) * step
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        return x, step * np.asarray(kernel.derivative(1, jnp.asarray(x, jnp.float64)))


def normal(order: int, x: Array, tail: bool) -> Array:
    """The derivative of some order of the standard normal distribution function; with the digits of its left tail."""
    if order == 0:
        return 0.5 * erfc(-x / np.sqrt(2)) if tail else 0.5 + 0.5 * erf(x / np.sqrt(2))
    hermite = np.polynomial.hermite_e.herme2poly([0.0] * (order - 1) + [1.0])
    sign = (-1.0) ** (order - 1)
    return sign * polynomial(hermite, x) * jnp.exp(-0.5 * x**2) / np.sqrt(2 * np.pi)


def gumbel(order: int, x: Array) -> Array:
    """The derivative of some order of exp(-exp(-x)): a polynomial in exp(-x) times it."""
    # Further left there is nothing.
    e = jnp.exp(-jnp.maximum(x, -6.5))
    return polynomial(powers(order, lambda p: p.deriv() * (-EXP) + p * EXP, np.polynomial.Polynomial([1.0])), e) * (
        jnp.exp(-e)
    )


def logistic(order: int, x: Array) -> Array:
    """The derivative of some order of the sigmoid: a polynomial in it, even or odd in its distance from a half."""
    s, other = jax.nn.sigmoid(x), jax.nn.sigmoid(-x)
    if order == 0:
        return s
    # s (1 - s) is kept apart, for its digits in the tails.
    return s * other * polynomial(powers(order - 1, logistic_power, np.polynomial.Polynomial([1.0])), s)


EXP = np.polynomial.Polynomial([0.0, 1.0])
SPREAD = np.polynomial.Polynomial([0.0, 1.0, -1.0])


def logistic_power(p: np.polynomial.Polynomial) -> np.polynomial.Polynomial:
    """The q of (s (1 - s) p(s))' = s (1 - s) q(s)."""
    return p * SPREAD.deriv() + p.deriv() * SPREAD


def powers(order: int, following: Any, first: np.polynomial.Polynomial) -> np.ndarray:
    """The coefficients that a rule makes of the first ones, applied so many times."""
    for _ in range(order):
        first = following(first)
    return first.coef


def polynomial(coefficients: np.ndarray, x: Array) -> Array:
    """Horner's scheme."""
    total = jnp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return total


def weighed(order: int, x: Array) -> Array:
    """The derivative of some order from the first on, which is x times Gumbel's density."""
    below = (order - 1) * gumbel(order - 1, x) if order > 1 else 0.0
    return jnp.maximum(x, -6.5) * gumbel(order, x) + below


def entropy(order: int, x: Array) -> Array:
    """The derivative of some order from the first on, which is the entropy of a choice between two."""
    if order == 1:
        s, other = jax.nn.sigmoid(x), jax.nn.sigmoid(-x)
        return -s * jax.nn.log_sigmoid(x) - other * jax.nn.log_sigmoid(-x)
    below = (order - 2) * logistic(order - 2, x) if order > 2 else 0.0
    return -(x * logistic(order - 1, x) + below)


GUMBEL, WEIGHED = Kernel(gumbel, False), Kernel(weighed, False)
LOGISTIC, ENTROPY = Kernel(logistic, True), Kernel(entropy, True)
