"""Guided policy search and its relatives, as users call them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from rlinf_ppl.algebra.quadratics import AffinePolicy
from rlinf_ppl.inference.arguments import check_count
from rlinf_ppl.inference.local.arguments import check_bounds, check_dynamics, check_expands, check_start
from rlinf_ppl.inference.local.improving import Problem, improve
from rlinf_ppl.inference.local.knowledge import Derivatives, Knowledge
from rlinf_ppl.inference.local.problems import PolicyBound, StateActionBound
from rlinf_ppl.tasks import Dynamics
from rlinf_ppl.types import ArrayLike

# What is known of a system unless something else is said.
KNOWN = Derivatives()


class Improvement(NamedTuple):
    """What a policy of a nonlinear system came to, iteration by iteration.

    Attributes:
        policy: the last one, (gain (T, m, n), offset (T, m), cov (T, m, m)).
        states: where the system goes under it: without noise, or the mean of sampled trajectories, (T + 1, n).
        actions: what it does there, before limits, (T, m).
        cost: of the real system before the first iteration and after each, (I + 1,), in units of reward.
        kl: of each policy from the one before, at each step, (I, T), in nats; of an attempt that was not accepted,
            too.
        inverse_temperature: of each bounded problem, (I,), or (I, T) where each step has a bound.
        scale: what bounds were multiplied by, (I,): less than 1 where the cost would have risen.
        accepted: whether the policy was taken, (I,); else the last one stays: costs would have risen, or were no
            numbers, or no policy within the bounds was found.
    """

    policy: AffinePolicy
    states: Float[Array, "T_plus_1 n"]
    actions: Float[Array, "T m"]
    cost: Float[Array, " I_plus_1"]
    kl: Float[Array, "I T"]
    inverse_temperature: Float[Array, "I ..."]
    scale: Float[Array, " I"]
    accepted: Bool[Array, " I"]


def gps(
    dynamics: Dynamics,
    kl_bound: ArrayLike,
    num_iterations: int = 50,
    start: Any = None,
    knowledge: Knowledge = KNOWN,
    num_halvings: int = 10,
) -> Improvement:
    """Guided policy search: improve a policy by steps whose KL is bounded (Levine & Abbeel 2014).

    Args:
        dynamics: the system.
        kl_bound: on the KL of each policy from the one before, above 0, in nats: one number for the sum over the
            steps, or (T,) for each step.
        num_iterations: I.
        start: the first policy, (gain, offset, cov), with or without a leading T; None: N(0, I).
        knowledge: `Derivatives()`, or `Samples(key, num_samples)` for a system that can only be sampled.
        num_halvings: how often a bound may be halved where the real cost would rise; 0: policies are taken as they
            come, and the answer can be differentiated backwards as well as forwards.

    Raises:
        TypeError, ValueError: an argument is none; derivatives are not finite at a step.
    """
    problem = PolicyBound(check_bounds("kl_bound", kl_bound, check_dynamics(dynamics).horizon))
    return improvement(dynamics, problem, num_iterations, start, knowledge, num_halvings)


def saps(
    dynamics: Dynamics,
    kl_bound: ArrayLike,
    num_iterations: int = 50,
    start: Any = None,
    knowledge: Knowledge = KNOWN,
    num_halvings: int = 10,
) -> Improvement:
    """State-action bound policy search: states may move only so far, too (Abdulsamad 2016, chapter 4, corrected).

    Each policy is measured together with the states that it leads to, from the last policy and the states that that
    one would lead to in the same local system, so that staying there is always allowed.

    Args:
        dynamics: the system; its first state or its noise has some variance in every direction.
        kl_bound: on the KL of state and action together at each step, above 0, in nats, one number or (T,).
        num_iterations: I.
        start: as in `gps`.
        knowledge: as in `gps`.
        num_halvings: as in `gps`.

    Raises:
        TypeError, ValueError: as in `gps`.
    """
    return with_states(dynamics, kl_bound, None, num_iterations, start, knowledge, num_halvings)


def esaps(
    dynamics: Dynamics,
    kl_bound: ArrayLike,
    entropy_loss: ArrayLike = 0.1,
    num_iterations: int = 50,
    start: Any = None,
    knowledge: Knowledge = KNOWN,
    num_halvings: int = 10,
) -> Improvement:
    """The same with a bound on the entropy of the policy, which keeps it exploring (Abdulsamad 2016, chapter 5).

    Args:
        dynamics: as in `saps`.
        kl_bound: as in `saps`.
        entropy_loss: how many nats of entropy the policy may lose at each step in one iteration, at least 0, one
            number or (T,).
        num_iterations: I.
        start: as in `gps`.
        knowledge: as in `gps`.
        num_halvings: as in `gps`.

    Raises:
        TypeError, ValueError: as in `gps`.
    """
    loss = check_bounds("entropy_loss", entropy_loss, check_dynamics(dynamics).horizon, least=True)
    return with_states(dynamics, kl_bound, loss, num_iterations, start, knowledge, num_halvings)


def with_states(
    dynamics: Dynamics, kl_bound: ArrayLike, entropy_loss: Any, num_iterations: int, start: Any, knowledge: Knowledge,
    num_halvings: int,
) -> Improvement:  # fmt: skip
    """Policy search with bounds on states, and on entropies where there are any."""
    steps = (check_dynamics(dynamics).horizon,)
    bounds = jnp.broadcast_to(check_bounds("kl_bound", kl_bound, *steps), steps)
    losses = None if entropy_loss is None else jnp.broadcast_to(entropy_loss, steps)
    first = dynamics.initial_cov
    if not isinstance(first, jax.core.Tracer) and not np.linalg.eigvalsh(np.asarray(first, float)).min() > 0:
        raise ValueError("initial_cov is singular: what states are measured from needs variance in every direction.")
    problem = StateActionBound(bounds, losses)
    return improvement(dynamics, problem, num_iterations, start, knowledge, num_halvings)


def improvement(
    dynamics: Dynamics, problem: Problem, num_iterations: int, start: Any, knowledge: Knowledge, num_halvings: int
) -> Improvement:
    """What iterating a bounded problem comes to."""
    count = check_count("num_iterations", num_iterations)
    if not isinstance(knowledge, Knowledge):
        raise TypeError(f"knowledge must be Derivatives() or Samples(key, n); got {type(knowledge).__name__}.")
    halvings = check_count("num_halvings", num_halvings, least=0)
    policy = check_start(dynamics, start)
    last, first_cost, record = improve(dynamics, knowledge, problem, policy, count, halvings)
    trajectory = last.seen.mean
    if not isinstance(first_cost, jax.core.Tracer) and not bool(jnp.all(record.accepted)):
        check_expands(dynamics, knowledge.expand(dynamics, last.seen), "the last trajectory")
    cost = jnp.concatenate([first_cost[None], record.cost])
    return Improvement(last.policy, trajectory.states, trajectory.actions, cost, *record[1:])
