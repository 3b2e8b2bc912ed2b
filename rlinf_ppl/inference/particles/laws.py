"""The law of one site at one particle as an array: probabilities (K,), or a mean beside a triangular factor (n, 1 + n).

It is the form that a program's traced arithmetic gives, so a law of the user and one that was learned are drawn from,
weighed and tilted alike.
"""

import jax.numpy as jnp
from jaxtyping import Array

from rlinf_ppl.program.sites import Real, Support, positions_of, values_of

TOLERANCE = 1e-4


def drawn(support: Support | None, law: Array, noise: Array) -> Array:
    """A value by its law: the first one whose cumulated probability exceeds a uniform, or a Gaussian.

    What has probability 0 is never drawn, whatever the rounding of the sums.
    """
    if isinstance(support, Real):
        return jnp.reshape(law[:, 0] + jnp.sum(law[:, 1:] * noise[None], -1), support.shape)
    cumulated = jnp.cumsum(law)
    position = jnp.argmax((cumulated > noise * jnp.max(cumulated)) & (law > 0))
    return values_of(known(support))[position]


def known(support: Support | None) -> Support:
    """The support of a latent site, which always has one."""
    assert support is not None
    return support


def log_density(support: Support | None, law: Array, value: Array) -> Array:
    """Log density of a value; a coordinate without noise of its own counts as certain."""
    total, certain = noise_density(support, law, value)
    return jnp.where(certain, total, -jnp.inf)


def noise_density(support: Support | None, law: Array, value: Array) -> tuple[Array, Array]:
    """Log density of what has noise of its own, and whether all else is, to the last bit, what the law makes of it."""
    support = known(support)
    if not isinstance(support, Real):
        return jnp.log(law[positions_of(support, value)]), jnp.asarray(True)
    rest, total, certain = jnp.reshape(value, -1) - law[:, 0], jnp.zeros(()), jnp.asarray(True)
    for k in range(len(support)):
        scale = law[k, 1 + k]
        noise = rest[k] / jnp.where(scale > 0, scale, 1.0)
        density = -0.5 * (noise**2 + jnp.log(2 * jnp.pi)) - jnp.log(jnp.where(scale > 0, scale, 1.0))
        total, certain = total + jnp.where(scale > 0, density, 0.0), certain & ((scale > 0) | (rest[k] == 0))
        rest = rest - law[:, 1 + k] * jnp.where(scale > 0, noise, 0.0)
    return total, certain


def tilted(law: Array, tilt: Array) -> tuple[Array, Array]:
    """A law tilted, p exp(tilt) / Z, and log Z."""
    known = jnp.where((law > 0) & ~jnp.isnan(tilt), tilt, -jnp.inf)
    peak = jnp.max(known)
    peak = jnp.where(jnp.isfinite(peak), peak, 0.0)
    weights = law * jnp.exp(known - peak)
    total = jnp.sum(weights)
    return jnp.where(total > 0, weights / jnp.where(total > 0, total, 1.0), law), peak + jnp.log(total)


def has_negative_scale(support: Support | None, law: Array) -> Array:
    """Whether a law of a program has a negative scale; the roots of what proposals make may have any sign."""
    return jnp.any(jnp.diagonal(law[:, 1:]) < 0) if isinstance(support, Real) else jnp.asarray(False)


def unlawful(support: Support | None, law: Array) -> Array:
    """Whether numbers are no law."""
    if isinstance(support, Real):
        return ~jnp.all(jnp.isfinite(law))
    return ~((jnp.abs(jnp.sum(law) - 1) <= TOLERANCE) & (jnp.min(law) >= 0))
