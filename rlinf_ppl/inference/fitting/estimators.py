"""Estimates of the ELBO from sampled trajectories, each with a gradient that is unbiased for the exact one's.

With Q_t what follows a decision, r_t what optimality pays and c_t what leaving the prior costs at time t,

    sampled           grad = E_{s_t ~ q} sum_t grad E_{q(d | scope_t)} [Q_t - c_t]
    score function    grad = E_q sum_t grad log q(d_t | scope_t) (G_t - b_t) - grad c_t,   G_t = sum_{k >= t} r_k - c_k

In the first the states are sampled, and the decision that is taken there is summed (integrated) exactly against action
values from the exact backward pass: the policy gradient theorem with all actions (Sutton et al. 2000; Ciosek & Whiteson
2018, Expected policy gradients). At its optimum it has no noise. The second knows nothing but the trajectories
(Williams 1992); the baseline b_t is the mean return from time t on of the other trajectories, which is independent of
this one (Kool, van Hoof & Welling 2019).

Both scan over time and vmap over trajectories. A step that a discount has ended counts nothing.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rlinf_ppl.algebra import Chain, Site, Slice, Whole, at_time, by_time, expectation_rules, walk
from rlinf_ppl.inference.chains.policies import laws_of
from rlinf_ppl.inference.chains.trajectories import draw_positions
from rlinf_ppl.inference.fitting.guides import Logits, action_values, evaluated, messages, policy_of

Positions = dict[str, Array]


def sampled(chain: Chain, logits: Logits, key: Array, n: int) -> Float[Array, ""]:
    """The exact ELBO with a sampled gradient: of this step's decisions exactly, of where they are met by trajectories.

    Args:
        chain: the program, with an end.
        logits: the guide's.
        key: a random key.
        n: number of trajectories.
    """
    elbo, values = action_values(chain, lax.stop_gradient(logits))

    def gain(step: Slice, met: Positions, theta: dict[str, Whole], w: dict[str, Whole]) -> Array:
        rules = evaluated(theta)
        gains = (rules.decision(site, w[site.name])[0].whole for site in decisions(step))
        return total(gains, met, n)

    drawn = trajectories(chain, logits, key, n)
    gains = each_step(chain, gain, drawn, messages(chain, logits), messages(chain, values))
    return with_gradient(elbo, jnp.sum(alive(chain, drawn)[:-1] * gains) / n)


def score_function(chain: Chain, logits: Logits, key: Array, n: int) -> Float[Array, ""]:
    """The mean return of sampled trajectories, with the gradient of its score function.

    Args:
        chain: the program, tabular and with an end.
        logits: the guide's.
        key: a random key.
        n: number of trajectories; with one there is no baseline.
    """

    def part(step: Slice, met: Positions, theta: dict[str, Whole]) -> tuple[Array, Array, Array]:
        rewards = [site.factor for site in step.sites if site.is_factor]
        scores, costs = [], []
        for site in decisions(step):
            _, log_z, cost = site.law.tilted(theta[site.name])
            scores.append(theta[site.name] - log_z)
            costs.append(cost.divided(site.inverse_temperature))
        return total(rewards, met, n), total(scores, met, n), total(costs, met, n)

    drawn = trajectories(chain, logits, key, n)
    rewards, scores, costs = each_step(chain, part, drawn, messages(chain, logits))
    living = alive(chain, drawn)
    paid = jnp.concatenate([living[:-1] * (rewards - costs), (living[-1] * last_reward(chain, drawn, n))[None]])
    returns = lax.stop_gradient(jnp.cumsum(paid[::-1], 0)[::-1])
    others = (jnp.sum(returns, 1, keepdims=True) - returns) / max(n - 1, 1)
    surrogate = living[:-1] * (scores * (returns - others)[:-1] - costs)
    return with_gradient(jnp.mean(returns[0]), jnp.sum(surrogate) / n)


def trajectories(chain: Chain, logits: Logits, key: Array, n: int) -> Positions:
    """Trajectories under the guide, as positions in the supports or real vectors; no gradient goes through them."""
    policy = laws_of(chain, policy_of(chain, lax.stop_gradient(logits)))
    return lax.stop_gradient(draw_positions(chain, key, policy, n))


def each_step(chain: Chain, function: Callable[..., Any], drawn: Positions, *given: dict[str, Whole]) -> Any:
    """A function of one step, of what trajectories met there, and of what is given for that time; stacked over time."""
    varying, constant = by_time(chain.step)
    names = (*chain.state, *(site.name for site in chain.step.sites if not site.is_factor))
    met = {name: jnp.moveaxis(drawn[name][:, : chain.horizon], 1, 0) for name in names}

    def one(now: Any, met: Positions, *given: Any) -> Any:
        return function(at_time(eqx.combine(now, constant)), met, *at_time(given))

    return jax.vmap(one)(varying, met, *given)


def last_reward(chain: Chain, drawn: Positions, n: int) -> Float[Array, " N"]:
    """What optimality pays for the last state of each trajectory."""
    message = walk(chain.final, chain.zero, expectation_rules({}))[0].over(chain.state, chain.size())
    return total([message], {name: drawn[name][:, -1] for name in chain.state}, n)


def decisions(step: Slice) -> list[Site]:
    """The decisions of a step."""
    return [site for site in step.sites if site.kind == "decision"]


def total(terms: Any, met: Positions, n: int) -> Float[Array, " N"]:
    """The sum of messages at what each trajectory met."""
    return sum((jnp.broadcast_to(term.rows(met), (n,)) for term in terms), jnp.zeros(n))


def alive(chain: Chain, drawn: Positions) -> Float[Array, "times N"]:
    """Whether each trajectory is alive, over time."""
    if chain.alive is None:
        return jnp.ones((chain.size()["t"] + 1, next(iter(drawn.values())).shape[0]))
    return jnp.asarray(drawn["alive"].T, dtype=float)


def with_gradient(value: Array, surrogate: Array) -> Array:
    """The value, with the gradient of a surrogate."""
    return lax.stop_gradient(value - surrogate) + surrogate
