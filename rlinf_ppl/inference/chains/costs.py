"""What it costs to follow one policy instead of another, step by step."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlinf_ppl import algebra
from rlinf_ppl.algebra import TIME, Chain, Conditional, Law
from rlinf_ppl.algebra.affine_marginals import second_moments
from rlinf_ppl.algebra.small_matrices import inverse
from rlinf_ppl.algebra.times import at_time, by_time, each_time
from rlinf_ppl.inference.chains.forbidden import cost_of


class Visits(NamedTuple):
    """Where a policy leads, and what it does there.

    Attributes:
        states: marginals of the state variables together, with T + 1 rows: tables, or Gaussian in the user's
            coordinates.
        decisions: for each decision what expectations over its scope and itself are taken with.
    """

    states: Any
    decisions: dict[str, Any]


def visits(chain: Chain, policy: dict[str, Law]) -> Visits:
    """Where a policy leads."""
    if not is_affine(chain):
        return Visits(*algebra.forward(chain, policy))
    states, decisions = algebra.affine_forward(chain, policy)
    origin = jnp.concatenate([chain.origin[name] for name in chain.state])
    placed = states._replace(mean=states.mean + jnp.broadcast_to(origin, states.mean.shape))
    return Visits(placed, {name: second_moments(joint) for name, joint in decisions.items()})


def kl_of_steps(
    chain: Chain, policy: dict[str, Law], other: dict[str, Law], visited: Visits | None = None
) -> Float[Array, " T"]:
    """E KL(policy || other) of the decisions of each step, where the policy leads, in nats; one number without end."""
    axes, size = chain.axes(), chain.size()
    decisions = (visits(chain, policy) if visited is None else visited).decisions
    varying, constant = by_time(other)

    def step(q: dict[str, Law], now: dict[str, Law], joint: dict[str, Array]) -> Array:
        q, p = at_time(q), at_time(eqx.combine(now, constant))
        costs = [cost_of(p[name], q[name])[0].over(axes[name], size).expectation(joint[name]) for name in axes]
        return sum(costs, jnp.zeros(()))

    each = jax.vmap(step) if chain.times else step
    return jnp.atleast_1d(each(policy, varying, decisions))


def log_prob_of_steps(chain: Chain, policy: dict[str, Law], visited: Visits) -> Float[Array, " T"]:
    """E log policy of the decisions of each step together: minus their entropy, in nats."""

    def one(name: str, law: Any) -> Array:
        if isinstance(law, Conditional):
            p = law.table.over((TIME, *chain.axes()[name]), chain.size()).array
            log_p = jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1.0)), 0.0)
            return jnp.sum((visited.decisions[name] * log_p).reshape(len(log_p), -1), -1)
        return -entropy_of(each_time((TIME,), lambda law: law.cov, law))

    return sum((one(name, law) for name, law in policy.items()), jnp.zeros(chain.horizon or 1))


def entropy_of(cov: Float[Array, "T n n"]) -> Float[Array, " T"]:
    """The entropy of Gaussian laws, in nats."""
    pivots = jax.vmap(lambda cov: inverse(cov)[1])(cov)
    return 0.5 * (cov.shape[-1] * (1 + jnp.log(2 * jnp.pi)) + jnp.sum(jnp.log(pivots), -1))


def is_affine(chain: Chain) -> bool:
    """Whether variables are vectors and there is an end."""
    return bool(chain.origin) and chain.horizon is not None


def weights(chain: Chain) -> Float[Array, " T"]:
    """The probability of being alive at each step; at an infinite horizon their sum, as the one entry."""
    if chain.alive is None:
        return jnp.ones(chain.horizon or 1)
    discount = chain.survival[1]
    return (1 / (1 - discount))[None] if chain.horizon is None else discount ** jnp.arange(chain.horizon)
