"""What a decision pays for leaving its prior: regularizers, each by its convex conjugate.

A decision with the action values w and the inverse temperature tau takes

    value = max_q <q, w> - Omega(q) / tau = Omega*(tau w) / tau,        policy = grad Omega*(tau w)

(Geist, Scherrer & Pietquin 2019, A theory of regularized Markov decision processes). KL to the prior is the regularizer
of inference, and the default: only it has a joint model that can be conditioned and sampled. The others are negative
entropy, which leaves the prior out (Rust 1987, without its weights), Tsallis' entropy of index 2, whose policy is
sparse, and whatever conjugate a user writes: its gradient is taken by JAX. A prior says here which values are possible.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rlinf_ppl.algebra.numerics import relative_entropy, soft_maximum


class Regularizer(NamedTuple):
    """A convex function Omega of a decision's probabilities, in nats.

    Attributes:
        name: what messages call it.
        maximum: (prior (..., K), w (..., K), tau or None) -> the policy (..., K) and the value (...).
        cost: (q (..., K), prior (..., K)) -> Omega(q) (...); None where only the conjugate is known.
    """

    name: str
    maximum: Callable[..., tuple[Array, Array]]
    cost: Callable[[Array, Array], Array] | None = None


@dataclass(frozen=True)
class ByConjugate:
    """The maximum by a convex conjugate: the policy is its gradient.

    Equal for equal conjugates, so that programs with the same one share their compiled code.
    """

    conjugate: Callable[[Array, Array], Array]

    def __call__(
        self, p: Float[Array, "... K"], w: Float[Array, "... K"], tau: Float[Array, ""] | None = None
    ) -> tuple[Float[Array, "... K"], Float[Array, "..."]]:
        """The policy and the value for the prior p, action values w and inverse temperature tau; see `soft_maximum`.

        An infinite tau takes the best alternatives only; among those the policy has the least Omega.
        """
        both = jnp.vectorize(jax.value_and_grad(self.conjugate), signature="(k),(k)->(),(k)")
        w, p = jnp.broadcast_arrays(w, p)
        if tau is None:
            value, q = both(w, p)
            return q, value
        hard, sign = jnp.isinf(tau), jnp.sign(tau)
        tau = jnp.where(hard, sign, tau)
        x = tau * w
        peak = jnp.max(jnp.where(p > 0, x, -jnp.inf), -1, keepdims=True)
        # What is worse than the best is worse beyond any comparison.
        limit = jnp.where((p > 0) & (x == peak), 0.0, -1 / jnp.finfo(x.dtype).eps)
        value, q = both(jnp.where(hard, limit, x), p)
        return q, jnp.where(hard, jnp.sum(lax.stop_gradient(q) * w, -1), value / tau)


def from_conjugate(
    conjugate: Callable[[Array, Array], Array], cost: Callable[[Array, Array], Array] | None = None
) -> Regularizer:
    """A regularizer by its convex conjugate; the policy is the conjugate's gradient.

    Args:
        conjugate: (x (K,), prior (K,)) -> Omega*(x), a scalar: convex in x, its gradient a distribution over K that
            is 0 where the prior is. Numbers that it closes over are constants of the program.
        cost: (q (..., K), prior (..., K)) -> Omega(q); needed to evaluate policies that are given.
    """
    return Regularizer(getattr(conjugate, "__name__", "conjugate"), ByConjugate(conjugate), cost)


def as_regularizer(regularizer: Any, decision: str) -> Regularizer:
    """A regularizer, or a bare conjugate as one.

    Raises:
        TypeError: it is neither, or cannot be compared; the message names the decision.
    """
    kind = type(regularizer).__name__
    if not isinstance(regularizer, Regularizer) and not callable(regularizer):
        raise TypeError(f"the regularizer of {decision!r} is a {kind}; give its convex conjugate.")
    try:
        hash(regularizer)
    except TypeError as error:
        raise TypeError(
            f"the regularizer of {decision!r} is a {kind} that cannot be compared ({error}); give a plain function."
        ) from error
    return regularizer if isinstance(regularizer, Regularizer) else from_conjugate(regularizer)


def log_sum_exp(x: Float[Array, " K"], prior: Float[Array, " K"]) -> Float[Array, ""]:
    """The conjugate of negative entropy: log sum exp x over the values that are possible."""
    return jax.nn.logsumexp(jnp.where(prior > 0, x, 0.0), where=prior > 0)


def sparse_maximum(x: Float[Array, " K"], prior: Float[Array, " K"]) -> Float[Array, ""]:
    """The conjugate of (|q|^2 - 1) / 2 on the simplex, whose gradient is sparsemax (Martins & Astudillo 2016).

    With the largest values x_1 >= ... >= x_k in the support and the threshold (sum of them - 1) / k it is
    (sum x_i^2 - k threshold^2 + 1) / 2.
    """
    possible = prior > 0
    # Shifted so that what is impossible lies below every threshold: the largest possible value is at 0.
    peak = jax.lax.stop_gradient(jnp.max(jnp.where(possible, x, -jnp.inf)))
    y = jnp.where(possible, x - peak, -2.0)
    ordered = jnp.sort(jax.lax.stop_gradient(y))[::-1]
    count = jnp.arange(1, x.shape[0] + 1)
    size = jnp.sum(1 + count * ordered > jnp.cumsum(ordered))
    support = y >= ordered[size - 1]
    chosen = jnp.where(support, y, 0.0)
    # Ties at the edge have probability zero: they belong to either side.
    number = jnp.sum(support)
    threshold = (jnp.sum(chosen) - 1) / number
    return peak + (jnp.sum(chosen**2) - number * threshold**2 + 1) / 2


def negative_entropy_cost(q: Float[Array, "... K"], prior: Float[Array, "... K"]) -> Float[Array, "..."]:
    """Sum q log q; infinite where q has mass on what is impossible."""
    positive = q > 0
    outside = jnp.any(positive & (prior <= 0), -1)
    return jnp.where(outside, jnp.inf, jnp.sum(jnp.where(positive, q * jnp.log(jnp.where(positive, q, 1.0)), 0.0), -1))


def tsallis_cost(q: Float[Array, "... K"], prior: Float[Array, "... K"]) -> Float[Array, "..."]:
    """(|q|^2 - 1) / 2; infinite where q has mass on what is impossible."""
    outside = jnp.any((q > 0) & (prior <= 0), -1)
    return jnp.where(outside, jnp.inf, (jnp.sum(q**2, -1) - 1) / 2)


kl = Regularizer("kl", soft_maximum, relative_entropy)
negative_entropy = Regularizer("negative_entropy", ByConjugate(log_sum_exp), negative_entropy_cost)
tsallis = Regularizer("tsallis", ByConjugate(sparse_maximum), tsallis_cost)
