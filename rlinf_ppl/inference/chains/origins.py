"""Answers about vectors that start far away from where users count from.

They are computed about where a program starts. Elsewhere

    offset = mean at the start - gain x start,        V(0) = V(start) - slope' start + start' matrix start

are small differences of large numbers, whose rounding they have (`magnified`). And the laws themselves are differences
there, of a mean and the start: of what a step adds to a state the user's own arithmetic may have kept few digits, or
none. What that comes to is measured, by an answer to the program with its means moved that much (`settled`).
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlinf_ppl.algebra import Chain
from rlinf_ppl.algebra.compiled import in_all_digits
from rlinf_ppl.algebra.coordinates import stacked_origin
from rlinf_ppl.algebra.gaussians import LinearGaussian
from rlinf_ppl.algebra.quadratics import SAFETY, QuadraticValue
from rlinf_ppl.algebra.times import is_named
from rlinf_ppl.program.linear import NEAR

Answer = TypeVar("Answer")


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


def settled(chain: Chain, answer: Callable[[Chain, Any], Answer], most: float, given: Any = None) -> Answer:
    """An answer with what reading it far from the origin may have done in its `error_bound` and `converged`.

    Args:
        chain: the program.
        answer: makes it from a program and what is given with it.
        most: how far its total may move, relative to it, and offsets relative to the noise.
        given: laws that are given, such as a policy.
    """
    found: Any = answer(chain, given)
    if not chain.origin:
        return found
    distance = jnp.max(jnp.stack([jnp.max(jnp.abs(x), initial=0.0) for x in chain.origin.values()]))
    if isinstance(distance, jax.core.Tracer):
        moved = jax.lax.cond(distance > NEAR, lambda: moves(chain, answer, given, found), lambda: (jnp.zeros(()),) * 2)
    elif distance > NEAR:
        moved = moves(chain, answer, given, found)
    else:
        return found
    # One move says how large they are, not the largest.
    total, offsets = (SAFETY * size for size in moved)
    steady = (total <= most * jnp.maximum(1.0, jnp.abs(total_of(found)))) & (offsets <= most)
    return found._replace(converged=found.converged & steady, error_bound=found.error_bound + total)


def moves(chain: Chain, answer: Callable[[Chain, Any], Any], given: Any, found: Any) -> tuple[Array, Array]:
    """How far the total of an answer moves, and offsets of its policy in units of themselves or of their noise."""
    chain, given, found = jax.lax.stop_gradient((chain, given, found))
    own = float(jnp.finfo(total_of(found).dtype).eps)
    other = answer(shaken(chain, chain, chain.precision), shaken(given, chain, own))
    ratios = [jnp.zeros(())]
    for (_, offset, cov), (_, after, _) in zip(found.policy.values(), other.policy.values(), strict=True):
        deviation = jnp.sqrt(largest(jnp.diagonal(cov, axis1=-2, axis2=-1)))
        scale = jnp.maximum(jnp.maximum(largest(offset), deviation), tiny(offset))
        ratios.append(jnp.max(largest(after - offset) / scale))
    return jnp.abs(total_of(other) - total_of(found)), jnp.max(jnp.stack(ratios))


@in_all_digits
def shaken(tree: Any, chain: Chain, precision: float) -> Any:
    """The same with the means of all laws moved by what arithmetic of a precision loses of them."""

    def one(node: Any) -> Any:
        return node.shaken(chain.origin, precision) if isinstance(node, LinearGaussian) else node

    return jax.tree.map(one, tree, is_leaf=is_named)


def total_of(answer: Any) -> Array:
    """The ELBO, or the log evidence."""
    return answer.elbo if hasattr(answer, "elbo") else answer.log_evidence
