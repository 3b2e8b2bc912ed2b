"""Receding horizons: plan some steps ahead by iterative LQR, do the first, see where that leads, and plan again."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.algebra.quadratics import AffinePolicy
from rlinf_ppl.inference.arguments import check_count, check_key
from rlinf_ppl.inference.local.arguments import check_dynamics
from rlinf_ppl.inference.local.ilqr import Iterate, improved
from rlinf_ppl.inference.local.program import roots
from rlinf_ppl.inference.local.roll_outs import mean_trajectory
from rlinf_ppl.tasks import Dynamics


class Receding(NamedTuple):
    """What was done, and where it led.

    Attributes:
        states: of the real system, with its noise, (N + 1, n).
        actions: within their limits, (N, m).
        cost: of each step, (N,), in units of reward.
        planned: what each plan thought that its steps would cost, (N,).
    """

    states: Float[Array, "N_plus_1 n"]
    actions: Float[Array, "N m"]
    cost: Float[Array, " N"]
    planned: Float[Array, " N"]


def receding(
    dynamics: Dynamics,
    key: PRNGKeyArray | Array,
    num_steps: int,
    horizon: int,
    num_iterations: int = 5,
    damping: float = 1.0,
) -> Receding:
    """Control by plans for the next steps, made anew after each: model predictive control.

    Args:
        dynamics: the system; its own horizon does not matter, and its cost is asked for at later times, too.
        key: a JAX random key, of the first state and the noise.
        num_steps: N, how many steps are done.
        horizon: how many steps a plan has, with the cost of a last state at its end.
        num_iterations: of iterative LQR for each plan, which begins at the last one, a step later.
        damping: as in `ilqr`, of every plan.

    Raises:
        TypeError, ValueError: an argument is none.
    """
    check_dynamics(dynamics)
    steps, ahead = check_count("num_steps", num_steps), check_count("horizon", horizon)
    iterations = check_count("num_iterations", num_iterations)
    if not damping > 0:
        raise ValueError(f"damping is {damping:g}: it must be above 0.")
    return run(dynamics, check_key(key), jnp.asarray(damping, float), steps, ahead, iterations)


@compiled
def run(
    dynamics: Dynamics, key: Array, damping: Float[Array, ""], num_steps: int, horizon: int, num_iterations: int
) -> Receding:
    """Plan, act, and plan again."""
    n, m = dynamics.num_states, dynamics.num_actions
    first_key, noise_key = jax.random.split(key)
    first = dynamics.initial_mean + roots(dynamics.initial_cov) @ jax.random.normal(first_key, (n,))
    gusts, root = jax.random.normal(noise_key, (num_steps, n)), roots(dynamics.noise)
    gain, cov = jnp.zeros((horizon, m, n)), jnp.broadcast_to(jnp.eye(m), (horizon, m, m))

    def plan(x: Array, t: Array, actions: Array) -> tuple[Array, Array]:
        ahead = dynamics.onwards(x, t, horizon)
        policy = AffinePolicy(gain, actions, cov)
        begin = Iterate(policy, mean_trajectory(ahead, policy), damping, jnp.asarray(jnp.inf))
        last = lax.fori_loop(0, num_iterations, lambda _, at: improved(ahead, at), begin)
        return last.about.actions, last.about.cost

    def act(carried: tuple[Array, Array], now: tuple[Array, Array]) -> tuple[tuple[Array, Array], Receding]:
        x, actions = carried
        t, gust = now
        planned, cost = plan(x, t, actions)
        u = dynamics.applied(planned[0])
        reached = dynamics.moved(x, u, t) + root @ gust
        later = jnp.concatenate([planned[1:], planned[-1:]])
        return (reached, later), Receding(x, u, -dynamics.reward(x, u, t), cost)

    begin = first, jnp.zeros((horizon, m))
    (last, _), done = lax.scan(act, begin, (jnp.arange(num_steps), gusts))
    return done._replace(states=jnp.concatenate([done.states, last[None]]))
