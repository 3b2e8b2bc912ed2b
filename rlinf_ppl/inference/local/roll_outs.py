"""Trajectories of a nonlinear system under a policy: the one without noise, and sampled ones."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rlinf_ppl.algebra.quadratics import AffinePolicy
from rlinf_ppl.inference.local.program import roots
from rlinf_ppl.tasks import Dynamics


class Trajectory(NamedTuple):
    """Where a system goes.

    Attributes:
        states: (T + 1, n).
        actions: (T, m), before their limits.
        cost: the sum of all costs, in units of reward.
    """

    states: Float[Array, "..."]
    actions: Float[Array, "..."]
    cost: Float[Array, "..."]


def mean_trajectory(dynamics: Dynamics, policy: AffinePolicy) -> Trajectory:
    """The trajectory without noise, from the mean of the first state, under the mean action."""
    return followed(dynamics, lambda x, law: law[0] @ x + law[1], policy[:2])


def followed(dynamics: Dynamics, act: Callable[[Array, Any], Array], laws: Any) -> Trajectory:
    """The trajectory without noise under a function of the state and of what holds at its time."""

    def move(x: Array, now: Any) -> tuple[Array, tuple[Array, Array, Array]]:
        t, law = now
        u = act(x, law)
        return dynamics.moved(x, u, t), (x, u, dynamics.reward(x, u, t))

    times = jnp.arange(dynamics.horizon)
    last, (states, actions, rewards) = lax.scan(move, dynamics.initial_mean, (times, laws))
    cost = -(jnp.sum(rewards) + dynamics.final_reward(last))
    return Trajectory(jnp.concatenate([states, last[None]]), actions, cost)


def sampled_trajectories(dynamics: Dynamics, key: Array, policy: AffinePolicy, n: int) -> Trajectory:
    """Trajectories under a policy, with all noise: shapes as of one, with a leading axis of n."""
    policy_roots, noise_root = roots(policy[2]), roots(dynamics.noise)
    start_key, action_key, noise_key = jax.random.split(key, 3)
    first = roots(dynamics.initial_cov) @ jax.random.normal(start_key, (dynamics.num_states, n))
    pushes = jax.random.normal(action_key, (dynamics.horizon, n, dynamics.num_actions))
    gusts = jax.random.normal(noise_key, (dynamics.horizon, n, dynamics.num_states))

    def one(x: Array, gain: Array, offset: Array, root: Array, push: Array, gust: Array, t: Array) -> Any:
        u = gain @ x + offset + root @ push
        return dynamics.moved(x, u, t) + noise_root @ gust, (x, u, dynamics.reward(x, u, t))

    def move(x: Array, now: Any) -> Any:
        return jax.vmap(one, (0, None, None, None, 0, 0, None))(x, *now)

    times = jnp.arange(dynamics.horizon)
    laws = policy[0], policy[1], policy_roots, pushes, gusts, times
    last, (states, actions, rewards) = lax.scan(move, dynamics.initial_mean[None] + first.T, laws)
    cost = -(jnp.sum(rewards, 0) + jax.vmap(dynamics.final_reward)(last))
    states = jnp.moveaxis(jnp.concatenate([states, last[None]]), 0, 1)
    return Trajectory(states, jnp.moveaxis(actions, 0, 1), cost)
