"""How far rounding may have moved a quadratic message W(z) = [z, 1]' M [z, 1], and the eliminations that led to it.

What is left of M may be a small difference of large numbers: a wide prior takes away nearly all of a cost. So every
message counts its rounding. In units of eps the errors of M lie within E = mean f f' over a few probes f: rounding an
entry moves it by at most sqrt(M_ii M_jj), and probes with entries sqrt|M_ii| of scattered signs have the mean |diag M|.
A substitution z = S z' takes E to S' E S, so f to S' f: what a step contracts, or lets grow, the probes do. Eliminating
noise with pivots G = 1 - 2 tau M is off by 2 tau tr(G^-1 E) relative to G, its strain; of what is left of M_ii, E_ii is
noise. The constant is only ever added to, so that its errors are independent, and add up in squares.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

PROBES = 4
SIGNS = np.random.default_rng(0).choice([-1.0, 1.0], (3, PROBES, 61))


class Count(eqx.Module):
    """What was counted of a message, in units of eps.

    Attributes:
        probes: of the errors of M; the last entry, of the constant, has what substitutions bring there.
        constant: the error of the constant.
        strain: the largest relative error of an elimination, and of what it left, so far.
    """

    probes: Float[Array, "*time P N"]
    constant: Float[Array, "*time"]
    strain: Float[Array, "*time"]


def counted(array: Float[Array, "*time N N"]) -> Count:
    """The count of a matrix that was just computed: its last digits."""
    sizes = sizes_of(array)
    return Count(digits(sizes, 0), sizes[..., -1] ** 2, jnp.zeros_like(sizes[..., -1]))


def left_out(diagonal: Float[Array, " n"]) -> Count:
    """The count of a matrix that a matrix of at most this diagonal was left out of; it has one more coordinate."""
    eps, nothing = float(jnp.finfo(diagonal.dtype).eps), jnp.zeros((), diagonal.dtype)
    return Count(digits(jnp.append(jnp.sqrt(diagonal / eps), 0.0), 0), nothing, nothing)


def sizes_of(array: Float[Array, "*time N N"]) -> Float[Array, "*time N"]:
    """The roots of a matrix's diagonal."""
    return jnp.sqrt(jnp.abs(lax.stop_gradient(jnp.diagonal(array, axis1=-2, axis2=-1))))


def digits(sizes: Float[Array, "*time N"], kind: int) -> Float[Array, "*time P N"]:
    """Probes of last digits of these sizes, but for the constant's; each kind of operation has signs of its own."""
    signs = SIGNS[kind][:, np.arange(sizes.shape[-1]) % SIGNS.shape[-1]]
    return jnp.einsum("...n,pn->...pn", sizes.at[..., -1].set(0.0), signs)


def substituted(count: Count | None, place: Float[Array, "N K"], array: Float[Array, "K K"]) -> Count | None:
    """What is counted of S' M S, where S is `place` and the product `array`."""
    if count is None:
        return None
    probes = count.probes @ lax.stop_gradient(place) + digits(sizes_of(array), 1)
    return Count(probes, with_digits(count.constant, array[-1, -1]), count.strain)


def placed(count: Count | None, index: Any) -> Count | None:
    """The same with coordinates in another order; a position behind the last is one that M does not depend on."""
    if count is None:
        return None
    padding = [(0, 0)] * (count.probes.ndim - 1) + [(0, 1)]
    return Count(jnp.pad(count.probes, padding)[..., index], count.constant, count.strain)


def added(one: Count, other: Count) -> Count:
    """What is counted of a sum."""
    # In another order, the probes of the other are as if they had other signs.
    probes = one.probes + other.probes[::-1]
    return Count(probes, together(one.constant, other.constant), jnp.maximum(one.strain, other.strain))


def scaled(count: Count | None, factor: Float[Array, ""]) -> Count | None:
    """What is counted of a multiple."""
    if count is None:
        return None
    size = jnp.abs(lax.stop_gradient(factor))
    return Count(jnp.sqrt(size) * count.probes, size * count.constant, count.strain)


def eliminated(
    count: Count | None,
    core: Float[Array, "R R"],
    moved: Float[Array, "R K"],
    tau: Float[Array, ""],
    own: Float[Array, " K"],
    own_pivots: Float[Array, ""] | float,
    left: Float[Array, " K"],
    far: Float[Array, ""],
    gained: Float[Array, ""],
) -> Count | None:
    """What is counted once the first coordinates, noise e, are eliminated.

    Args:
        count: of the message before.
        core: G^-1, the covariance of e.
        moved: the map of the others to the mean of e.
        tau: the inverse temperature.
        own: the roots of what the elimination itself is off by in what is left.
        own_pivots: what it is off by, relative to the pivots.
        left: the roots of the diagonal that is left.
        far: the size of the linear term: the root of the constant.
        gained: what the constant has gained.
    """
    if count is None:
        return None
    core, moved, tau, own, left = lax.stop_gradient((core, moved, tau, own, left))
    own_pivots, far, gained = lax.stop_gradient((own_pivots, far, gained))
    r, scale = len(core), 2 * jnp.abs(tau)
    noise = count.probes[:, :r]
    off = jnp.mean(jnp.sum((noise @ core) * noise, -1))
    pivots = scale * jnp.abs(off) + own_pivots
    # The mean of e, in its standard deviations, is off by what its linear term is.
    mean = jnp.sqrt(scale * pivots / jnp.maximum(1.0, scale * jnp.abs(gained))) * far
    probes = count.probes[:, r:] + noise @ moved + digits(own, 2)
    error = jnp.mean(probes[:, :-1] ** 2, 0)
    lost = jnp.max(jnp.where(error > 0, error / left[:-1] ** 2, 0.0), initial=0.0)
    strain = jnp.maximum(jnp.maximum(count.strain, pivots), jnp.maximum(mean, lost))
    # What pivots are off by, their logarithms are, too.
    constant = together(together(count.constant, jnp.abs(off)), own[-1] ** 2)
    return Count(probes, with_digits(constant, left[-1] ** 2), strain)


def averaged(
    count: Count | None, before: Count | None, here: slice, cov: Float[Array, "n n"], gained: Float[Array, ""]
) -> Count | None:
    """What is counted once a constant has gained the mean tr(M cov) of a quadratic of noise.

    Args:
        count: of the function without the noise.
        before: of the function before, in the variable that the noise is of.
        here: that variable's coordinates.
        cov: the covariance of the noise.
        gained: what the constant has gained.
    """
    if count is None or before is None:
        return count
    probes = before.probes[:, here]
    off = jnp.mean(jnp.sum((probes @ lax.stop_gradient(cov)) * probes, -1))
    constant = together(count.constant, jnp.abs(off))
    return Count(count.probes, with_digits(constant, gained), count.strain)


def summed(count: Count | None, constant: Float[Array, ""]) -> Count | None:
    """What is counted once something was added to the constant, which is this now."""
    if count is None:
        return None
    return Count(count.probes, with_digits(count.constant, constant), count.strain)


def with_digits(error: Array, number: Array) -> Array:
    """The error of a number with that of its own last digits."""
    return together(error, jnp.abs(lax.stop_gradient(number)))


def together(one: Array, other: Array) -> Array:
    """The size of a sum of independent errors."""
    return jnp.sqrt(one**2 + other**2)


def of_constant(count: Count) -> Float[Array, ""]:
    """The error of the constant: its own, and what substitutions brought there."""
    return count.constant + jnp.mean(count.probes[:, -1] ** 2)
