"""What it costs to follow one policy instead of another, step by step."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlinf_ppl import algebra
from rlinf_ppl.algebra import Chain, Law
from rlinf_ppl.algebra.affine_marginals import second_moments
from rlinf_ppl.algebra.times import at_time, by_time
from rlinf_ppl.inference.chains.forbidden import cost_of


def kl_of_steps(chain: Chain, policy: dict[str, Law], other: dict[str, Law]) -> Float[Array, " T"]:
    """E KL(policy || other) of the decisions of each step, where the policy leads, in nats; one number without end."""
    axes, size = chain.axes(), chain.size()
    if is_affine(chain):
        decisions = {name: second_moments(joint) for name, joint in algebra.affine_forward(chain, policy)[1].items()}
    else:
        decisions = algebra.forward(chain, policy)[1]
    varying, constant = by_time(other)

    def step(q: dict[str, Law], now: dict[str, Law], joint: dict[str, Array]) -> Array:
        q, p = at_time(q), at_time(eqx.combine(now, constant))
        costs = [cost_of(p[name], q[name])[0].over(axes[name], size).expectation(joint[name]) for name in axes]
        return sum(costs, jnp.zeros(()))

    each = jax.vmap(step) if chain.times else step
    return jnp.atleast_1d(each(policy, varying, decisions))


def is_affine(chain: Chain) -> bool:
    """Whether variables are vectors and there is an end."""
    return bool(chain.origin) and chain.horizon is not None


def weights(chain: Chain) -> Float[Array, " T"]:
    """The probability of being alive at each step; at an infinite horizon their sum, as the one entry."""
    if chain.alive is None:
        return jnp.ones(chain.horizon or 1)
    discount = chain.survival[1]
    return (1 / (1 - discount))[None] if chain.horizon is None else discount ** jnp.arange(chain.horizon)
