"""Linear-quadratic-Gaussian control of a state that is seen with noise (Joseph & Tou 1961; Astrom 1970, chapter 8).

    x_{t+1} ~ N(A x_t + B u_t + c, W),      y_{t+1} ~ N(C x_{t+1}, R),      x_t | y_{2:t}, u_{1:t-1} ~ N(m_t, P_t)

By Kalman's filter the belief is Gaussian and P_t is known beforehand, so that the belief's mean is the state:

    u_t ~ q(u | m_t) = N(K m_t + k, S),     m_{t+1} = A m_t + B u_t + c + G_t e_t,     e_t ~ N(0, I)
    factor exp(tau [(m_t - z)' M (m_t - z) + tr(M P_t) + u_t' H u_t]),   at the end those of m_T and P_T

G_t e_t, of covariance P_{t+1|t} - P_{t+1}, is what y_{t+1} tells. Rewards are expected under the belief: `exact.solve`
is LQG, and its gains are those of `linear_gaussian` of the same task, whose state is seen (separation). The value is
another: hidden, the state costs tr(M P_t), and only G_t e_t is left for V to average over. `exact.condition` takes the
expected reward for the reward; it is not the posterior of the states given optimality.

To act, m_t is filtered by the K_t of `task.filter(horizon)`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro
from jaxtyping import Array
from numpyro.distributions import MultivariateNormal, Normal

from rlinf_ppl.models.arguments import check_task, finite_number, whole_number
from rlinf_ppl.models.dynamics import varying_each
from rlinf_ppl.models.linear_gaussian import action_prior
from rlinf_ppl.program import ControlProgram, decide, optimality, over_time
from rlinf_ppl.tasks import HiddenLinearQuadratic
from rlinf_ppl.types import ArrayLike


class Believed(NamedTuple):
    """What the step reads: the task and the prior, and of the filter the noise of the mean."""

    A: Array
    B: Array
    c: Array
    state_reward: Array
    action_reward: Array
    goal: Array
    gain: Array
    offset: Array
    prior_root: Array


RANKS = (2, 2, 1, 2, 2, 1, 2, 1, 2)


class Known(NamedTuple):
    """What is known beforehand: the mean's own noise, and what the state's reward loses as the belief is wide."""

    root: Any
    loss: Any


def initial(task: Believed, known: Known, mean: Array, tau: Array) -> dict[str, Any]:
    """The mean of the first state."""
    return {"mean": mean}


def step(task: Believed, known: Known, first: Array, tau: Array, mean: Any) -> dict[str, Any]:
    """One step of the model."""
    prior = MultivariateNormal(task.gain @ mean + task.offset, scale_tril=task.prior_root)
    u = decide("u", prior, inverse_temperature=tau)
    apart = mean - task.goal
    optimality(apart @ task.state_reward @ apart + known.loss + u @ task.action_reward @ u)
    e = numpyro.sample("e", Normal(jnp.zeros(known.root.shape[-1]), 1.0).to_event(1))
    return {"mean": task.A @ mean + task.B @ u + task.c + known.root @ e}


def final(task: Believed, known: Known, first: Array, tau: Array, mean: Any) -> None:
    """The reward of the last state."""
    apart = mean - task.goal
    optimality(apart @ task.state_reward @ apart + known.loss)


def hidden_linear_gaussian(
    task: HiddenLinearQuadratic,
    horizon: int,
    prior: Sequence[ArrayLike] | None = None,
    inverse_temperature: ArrayLike = 1.0,
) -> ControlProgram:
    """Linear-quadratic-Gaussian control of a hidden state as inference, at the task's discount.

    Args:
        task: the task, n dimensions of the state, m of the action and p of what is seen.
        horizon: number of steps T, that of the task where it varies in time.
        prior: (K, k, S) with shapes (m, n), (m,), (m, m), each with or without a leading T: u ~ N(K m + k, S) of the
            belief's mean m; default N(0, I).
        inverse_temperature: tau, in 1 / units of reward.

    Returns:
        The program, with state `mean` (n,), decision `u` and chance `e` (p,); values and ELBO in units of reward, log
        evidence in nats.

    Raises:
        TypeError: on something else than a HiddenLinearQuadratic, or a horizon that is no whole number.
        ValueError: on shapes that do not fit, or a prior covariance that is not positive definite.
    """
    check_task("task", task, HiddenLinearQuadratic)
    steps = whole_number("horizon", horizon, "a task has at least one step")
    filtered, own = task.filter(steps), task.task
    moves = own.A, own.B, own.c, own.state_reward, own.action_reward, own.goal
    believed = Believed(*moves, *action_prior(own, steps, prior))
    loss = jnp.sum(jnp.broadcast_to(own.state_reward, filtered.cov.shape) * filtered.cov, (-2, -1))
    args = (
        varying_each(believed, RANKS),
        Known(over_time(filtered.root), over_time(loss)),
        own.initial_mean,
        finite_number("inverse_temperature", inverse_temperature),
    )
    return ControlProgram(initial, step, steps, task.discount, final, args)
