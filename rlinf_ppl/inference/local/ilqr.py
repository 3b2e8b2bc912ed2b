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
from rlinf_ppl.tasks import Dynamics, Expansion

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
        converged: whether the slope of the cost in every action, times the size of actions, is within the tolerance
            beside the cost, or its square beside the first cost; it is asked of the last trajectory but one.
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
        left: the largest slope of the cost in an action, times the size of actions, at the trajectory before.
    """

    policy: AffinePolicy
    about: Trajectory
    damping: Float[Array, ""]
    left: Float[Array, ""]


def ilqr(
    dynamics: Dynamics, num_iterations: int = 50, start: Any = None, damping: float = 1.0, tolerance: float = 1e-4
) -> Optimised:
    """Iterative LQR: a locally optimal policy of a nonlinear system without noise.

    Args:
        dynamics: the system; what its noise is does not matter.
        num_iterations: I.
        start: the first policy, (gain, offset, cov), with or without a leading T; None: no action.
        damping: above 0, in units of reward for a unit of action, squared: where it starts.
        tolerance: how large a slope counts as none, see `converged`.

    Raises:
        TypeError, ValueError: an argument is none; derivatives are not finite at a step; a reward stays not concave in
            an action, at a step that is named.
    """
    count, policy = check_count("num_iterations", num_iterations), check_start(check_dynamics(dynamics), start)
    if not damping > 0:
        raise ValueError(f"damping is {damping:g}: it must be above 0.")
    last, costs, dampings = run(dynamics, policy, jnp.asarray(damping, float), count)
    # Where the cost falls to nothing, nothing is measured by the first one.
    settled = last.left <= tolerance * (jnp.abs(costs[-2]) + tolerance * jnp.abs(costs[0]))
    if not isinstance(settled, jax.core.Tracer) and not bool(settled):
        check_progress(dynamics, last, stuck=bool(dampings[-1] >= MOST))
    about = last.about
    offset = about.actions - jnp.einsum("tij,tj->ti", last.policy.gain, about.states[:-1])
    policy = AffinePolicy(last.policy.gain, offset, last.policy.cov)
    return Optimised(policy, about.states, about.actions, costs, dampings, settled)


@compiled
def run(
    dynamics: Dynamics, start: AffinePolicy, damping: Float[Array, ""], count: int
) -> tuple[Iterate, Float[Array, " I_plus_1"], Float[Array, " I"]]:
    """Iterate: where it ends, all costs, the first one among them, and dampings."""
    about = mean_trajectory(dynamics, start)

    def body(at: Iterate, _: None) -> tuple[Iterate, tuple[Array, Array]]:
        after = improved(dynamics, at)
        return after, (after.about.cost, at.damping)

    begin = Iterate(start, about, damping, jnp.asarray(jnp.inf))
    last, (costs, dampings) = lax.scan(body, begin, None, length=count)
    return last, jnp.concatenate([about.cost[None], costs]), dampings


def improved(dynamics: Dynamics, at: Iterate) -> Iterate:
    """One iteration."""
    about, actions = at.about, jax.vmap(dynamics.applied)(at.about.actions)
    # What is at its limit has to find the way back.
    expansion = dynamics.expand(about.states, actions, saturated=1.0)
    policy: AffinePolicy = spend(inner(expansion, at.damping), policies=True).policy["u"]
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
    slope = slopes(expansion)
    # Outwards from a limit it leads nowhere.
    outwards = (jnp.abs(actions) >= dynamics.action_limit[None]) & (slope * actions > 0)
    left = jnp.max(jnp.where(outwards, 0.0, jnp.abs(slope))) * (1 + jnp.max(jnp.abs(actions)))
    damping = jnp.clip(at.damping * jnp.where(better, FALLS, RISES), LEAST, MOST)
    return Iterate(kept, there, damping, left)


def inner(expansion: Expansion, damping: Float[Array, ""]) -> ControlProgram:
    """The program about a trajectory whose prior is what is done there."""
    horizon, n, m = expansion.B.shape
    cov = jnp.broadcast_to(jnp.eye(m) / (2 * damping), (horizon, m, m))
    return local_program(expansion, AffinePolicy(jnp.zeros((horizon, m, n)), expansion.actions, cov))


def slopes(expansion: Expansion) -> Float[Array, "T m"]:
    """The derivative of the sum of rewards in each action, by the costates."""
    n = expansion.A.shape[1]

    def move(costate: Array, now: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        A, B, vector = now
        return vector[:n] + costate @ A, vector[n:] + costate @ B

    return lax.scan(move, expansion.final_vector, (expansion.A, expansion.B, expansion.vector), reverse=True)[1]


def check_progress(dynamics: Dynamics, last: Iterate, stuck: bool) -> None:
    """Raise where there is no way on, and say why.

    Args:
        dynamics: the system.
        last: where the iteration is.
        stuck: whether not even the largest damping has found a way.

    Raises:
        ValueError: derivatives are not finite at a step, or a reward is not concave in the action at one.
    """
    actions = jax.vmap(dynamics.applied)(last.about.actions)
    expansion = dynamics.expand(last.about.states, actions, saturated=1.0)
    check_expands(dynamics, expansion, "the last trajectory")
    if stuck:
        solve(inner(expansion, jnp.asarray(LEAST)))
