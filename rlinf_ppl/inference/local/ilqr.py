"""Iterative LQR: the best policy about a trajectory, followed as far as the real cost falls (Li & Todorov 2004).

The inner problem is the elimination again. Its prior is N(actions, I / (2 damping)) at an inverse temperature of 1,
which takes damping |u - actions|^2 off the reward (Levenberg and Marquardt's way; Tassa, Erez & Todorov 2012, section
II.F). Steps of several lengths along the new actions are rolled out side by side, and the cheapest one is taken; the
damping falls where one was cheaper than before, and rises where none was. Actions at their limits are expanded as they
are inside, so that they find the way back. A start where nothing leads anywhere, such as a pole that hangs still, is
stationary and stays what it is.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.algebra.quadratics import AffinePolicy
from rlinf_ppl.inference.arguments import check_count
from rlinf_ppl.inference.bounds.spending import spend
from rlinf_ppl.inference.exact import solve
from rlinf_ppl.inference.local.arguments import check_dynamics, check_expands, check_start
from rlinf_ppl.inference.local.program import local_program
from rlinf_ppl.inference.local.roll_outs import Trajectory, followed, mean_trajectory
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.tasks import Dynamics

# Step lengths, from a whole one to a thousandth (Tassa et al. 2012).
NUM_LENGTHS, SHORTEST = 11, 1e-3
# What damping is multiplied by where a step was found, and where none was; and its bounds.
FALLS, RISES, LEAST, MOST = 0.25, 10.0, 1e-8, 1e12


class Optimised(NamedTuple):
    """What iterative LQR came to.

    Attributes:
        policy: about the last trajectory, (gain (T, m, n), offset (T, m), cov (T, m, m)); its covariance is that of the
            last inner problem.
        states: the last trajectory, without noise, (T + 1, n).
        actions: what is done there, before limits, (T, m).
        cost: before the first iteration and after each, (I + 1,), in units of reward; it never rises.
        damping: of each iteration, (I,).
        converged: whether the last iteration changed the cost by less than the tolerance, relative to it.
    """

    policy: AffinePolicy
    states: Float[Array, "T_plus_1 n"]
    actions: Float[Array, "T m"]
    cost: Float[Array, " I_plus_1"]
    damping: Float[Array, " I"]
    converged: Bool[Array, ""]


class Iterate(NamedTuple):
    """Where the iteration is.

    Attributes:
        policy: of the last step that was taken.
        about: the trajectory under it.
        damping: of the next inner problem.
        settled: whether the last step changed next to nothing.
    """

    policy: AffinePolicy
    about: Trajectory
    damping: Float[Array, ""]
    settled: Bool[Array, ""]


def ilqr(
    dynamics: Dynamics, num_iterations: int = 50, start: Any = None, damping: float = 1.0, tolerance: float = 1e-9
) -> Optimised:
    """Iterative LQR: a locally optimal policy of a nonlinear system without noise.

    Args:
        dynamics: the system; what its noise is does not matter.
        num_iterations: I.
        start: the first policy, (gain, offset, cov), with or without a leading T; None: no action.
        damping: above 0, in units of reward for a unit of action, squared: where it starts.
        tolerance: relative change of the cost that counts as none.

    Raises:
        TypeError, ValueError: an argument is none; derivatives are not finite at a step; a reward stays not concave in
            an action, at a step that is named.
    """
    count, policy = check_count("num_iterations", num_iterations), check_start(check_dynamics(dynamics), start)
    if not damping > 0:
        raise ValueError(f"damping is {damping:g}: it must be above 0.")
    first, last, costs, dampings = run(dynamics, policy, jnp.asarray(damping, float), jnp.asarray(tolerance), count)
    if not isinstance(first, jax.core.Tracer) and not bool(last.settled) and bool(dampings[-1] >= MOST):
        check_progress(dynamics, last)
    about = last.about
    offset = about.actions - jnp.einsum("tij,tj->ti", last.policy.gain, about.states[:-1])
    policy = AffinePolicy(last.policy.gain, offset, last.policy.cov)
    cost = jnp.concatenate([first[None], costs])
    return Optimised(policy, about.states, about.actions, cost, dampings, last.settled)


@compiled
def run(
    dynamics: Dynamics, start: AffinePolicy, damping: Float[Array, ""], tolerance: Float[Array, ""], count: int
) -> tuple[Float[Array, ""], Iterate, Float[Array, " I"], Float[Array, " I"]]:
    """Iterate: the first cost, where it ends, and all costs and dampings."""
    about = mean_trajectory(dynamics, start)

    def body(at: Iterate, _: None) -> tuple[Iterate, tuple[Array, Array]]:
        after = improved(dynamics, at, tolerance)
        return after, (after.about.cost, at.damping)

    begin = Iterate(start, about, damping, jnp.asarray(False))
    last, (costs, dampings) = lax.scan(body, begin, None, length=count)
    return about.cost, last, costs, dampings


def improved(dynamics: Dynamics, at: Iterate, tolerance: Float[Array, ""]) -> Iterate:
    """One iteration."""
    about = at.about
    policy: AffinePolicy = spend(inner(dynamics, about, at.damping), policies=True).policy["u"]
    actions = jax.vmap(dynamics.applied)(about.actions)
    change = jnp.einsum("tij,tj->ti", policy.gain, about.states[:-1]) + policy.offset - actions

    def along(length: Array) -> Trajectory:
        laws = policy.gain, about.states[:-1], actions + length * change
        return followed(dynamics, lambda x, law: law[0] @ (x - law[1]) + law[2], laws)

    tried = jax.vmap(along)(jnp.geomspace(1.0, SHORTEST, NUM_LENGTHS))
    costs = jnp.where(jnp.isfinite(tried.cost), tried.cost, jnp.inf)
    best = jnp.argmin(costs)
    better = costs[best] < about.cost
    there = jax.tree.map(lambda new, old: jnp.where(better, new[best], old), tried, about)
    kept = jax.tree.map(lambda new, old: jnp.where(better, new, old), policy, at.policy)
    gained = about.cost - there.cost
    known = jnp.all(jnp.isfinite(policy.gain))
    settled = known & (gained <= tolerance * jnp.abs(about.cost)) & (better | (at.damping <= 1.0))
    damping = jnp.clip(at.damping * jnp.where(better, FALLS, RISES), LEAST, MOST)
    return Iterate(kept, there, damping, settled | (at.settled & ~better))


def inner(dynamics: Dynamics, about: Trajectory, damping: Float[Array, ""]) -> ControlProgram:
    """The program about a trajectory whose prior is what is done there."""
    horizon, m, n = dynamics.horizon, dynamics.num_actions, dynamics.num_states
    actions = jax.vmap(dynamics.applied)(about.actions)
    cov = jnp.broadcast_to(jnp.eye(m) / (2 * damping), (horizon, m, m))
    prior = AffinePolicy(jnp.zeros((horizon, m, n)), actions, cov)
    # What is at its limit has to find the way back.
    return local_program(dynamics.expand(about.states, actions, saturated=1.0), prior)


def check_progress(dynamics: Dynamics, last: Iterate) -> None:
    """Raise where nothing was ever found, and say why.

    Raises:
        ValueError: derivatives are not finite at a step, or a reward is not concave in the action at one.
    """
    expansion = dynamics.expand(last.about.states, last.about.actions)
    check_expands(dynamics, expansion, "the last trajectory")
    solve(inner(dynamics, last.about, jnp.asarray(LEAST)))
