"""How much larger answers about vectors are where they are computed, which is where a program starts, than elsewhere.

    offset = mean at the start - gain x start,        V(0) = V(start) - slope' start + start' matrix start

Users count from the origin. Far away from it these are small differences of large numbers, whose rounding they have.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlinf_ppl.algebra import Chain
from rlinf_ppl.algebra.coordinates import stacked_origin
from rlinf_ppl.algebra.quadratics import QuadraticValue


def magnified(chain: Chain, policy: dict[str, Any], value: Any) -> Float[Array, ""]:
    """The largest ratio among policies and values; 1 at least.

    Args:
        chain: the program.
        policy: for each decision (gain, offset, cov). An offset is relative to its largest entry, or to that of the
            policy's standard deviation.
        value: V. Its vector is relative to its largest entry, or to the root of that of the matrix: to what changes V
            by 1 where the quadratic does; its scalar to itself, or to 1.
    """
    if not isinstance(value, QuadraticValue):
        return jnp.ones(())
    policy, value, priors, origin = jax.lax.stop_gradient((policy, value, chain.priors(), chain.origin))
    ratios = [jnp.ones(())]
    for name, scope in chain.scopes:
        if name in policy:
            gain, offset, cov = policy[name]
            # A prior is read where its parents start, and has lost as much there.
            prior = priors[name]
            own = jnp.abs(prior.map[..., :-1]) @ jnp.abs(stacked_origin(prior, origin))
            large = largest(jnp.abs(gain) @ start_of(origin, scope) + jnp.broadcast_to(own, offset.shape))
            deviation = jnp.sqrt(largest(jnp.diagonal(cov, axis1=-2, axis2=-1)))
            ratios.append(jnp.max(large / jnp.maximum(jnp.maximum(largest(offset), deviation), tiny(large))))
    matrix, vector, scalar = value
    start = start_of(origin, chain.state)
    steep = jnp.abs(matrix) @ start
    root = jnp.sqrt(largest(matrix.reshape(*scalar.shape, -1)))
    ratios.append(jnp.max(2 * largest(steep) / jnp.maximum(jnp.maximum(largest(vector), root), tiny(root))))
    ratios.append(jnp.max(((jnp.abs(vector) + steep) @ start) / jnp.maximum(1.0, jnp.abs(scalar))))
    return jnp.max(jnp.stack(ratios))


def start_of(origin: dict[str, Array], names: tuple[str, ...]) -> Float[Array, " N"]:
    """How far variables start from the user's origin, side by side."""
    return jnp.abs(jnp.concatenate([jnp.zeros(0), *(origin[name] for name in names)]))


def largest(x: Float[Array, "... N"]) -> Float[Array, "..."]:
    """The largest size of an entry."""
    return jnp.max(jnp.abs(x), -1, initial=0.0)


def tiny(x: Array) -> float:
    """The smallest number that can be divided by."""
    return float(jnp.finfo(x.dtype).tiny)
