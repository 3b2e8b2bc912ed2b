"""Soft linear-quadratic-Gaussian control (Levine & Abbeel 2014, with their old policy as the action prior).

    x_1 ~ N(m_1, S_1),   u_t ~ q(u | x_t) = N(K x_t + k, S),   x_{t+1} ~ N(A x_t + B u_t + c, W)
    factor exp(tau [(x_t - z)' M (x_t - z) + u_t' H u_t]),   at the end exp(tau (x_T - z)' M (x_T - z))

Values are quadratic, V(x) = x'Vx + x'v + v0 in units of reward, and policies affine with Gaussian noise:

    solve       Q = R + E V,                            J = tau Q + log q
    condition   Q = R + (1 / tau) log E exp(tau V),     J as above
    both        pi = N(-J_uu^-1 (J_u + J_ux x), -J_uu^-1 / 2),   V = (1 / tau) log int exp J

with J(x, u) = u' J_uu u + 2 u' (J_u + J_ux x) + ... The prior bounds the precision from below: J_uu < 0 is needed at
every t, and for `condition` also W^-1 - 2 tau V > 0. Without prior, 1 / tau is the weight of the policy's entropy.

The engines take covariances W and S_1 that are singular. NumPyro does not: `prog.model` and `prog.guide` of such a task
raise. Write the noise as a site of its own there, w ~ N(0, I), and the next state as A x + B u + c + root @ w.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float
from numpyro.distributions import MultivariateNormal

from rlinf_ppl.algebra.small_matrices import cholesky
from rlinf_ppl.models.arguments import check_task, finite_number
from rlinf_ppl.models.dynamics import varying_each
from rlinf_ppl.program import ControlProgram, decide, optimality
from rlinf_ppl.tasks import Dynamics, LinearQuadratic, checks, matrices
from rlinf_ppl.types import ArrayLike


class System(NamedTuple):
    """What the step reads: the task and the prior, with square roots in the place of covariances."""

    A: Array
    B: Array
    c: Array
    noise_root: Array
    state_reward: Array
    action_reward: Array
    goal: Array
    gain: Array
    offset: Array
    prior_root: Array


RANKS = (2, 2, 1, 2, 2, 2, 1, 2, 1, 2)


def initial(system: System, mean: Array, root: Array, tau: Array) -> dict[str, Any]:
    """The first state."""
    return {"x": numpyro.sample("x_first", MultivariateNormal(mean, scale_tril=root))}


def step(system: System, mean: Array, root: Array, tau: Array, x: Any) -> dict[str, Any]:
    """One step of the model."""
    prior = MultivariateNormal(system.gain @ x + system.offset, scale_tril=system.prior_root)
    u = decide("u", prior, inverse_temperature=tau)
    apart = x - system.goal
    optimality(apart @ system.state_reward @ apart + u @ system.action_reward @ u)
    reached = system.A @ x + system.B @ u + system.c
    return {"x": numpyro.sample("x_next", MultivariateNormal(reached, scale_tril=system.noise_root))}


def final(system: System, mean: Array, root: Array, tau: Array, x: Any) -> None:
    """The reward of the last state."""
    apart = x - system.goal
    optimality(apart @ system.state_reward @ apart)


def linear_gaussian(
    task: LinearQuadratic,
    horizon: int | None,
    prior: Sequence[ArrayLike] | None = None,
    inverse_temperature: ArrayLike = 1.0,
    discount: ArrayLike = 1.0,
) -> ControlProgram:
    """Linear-quadratic-Gaussian control as inference.

    Args:
        task: the task, n dimensions of the state and m of the action.
        horizon: number of steps T, that of the task where it varies in time; None: without end, for a task that does
            not vary, at a discount below 1; then there is no last state to reward.
        prior: (K, k, S) with shapes (m, n), (m,), (m, m), each with or without a leading T: u ~ N(K x + k, S); default
            N(0, I).
        inverse_temperature: tau, in 1 / units of reward.
        discount: probability of being alive at the next step.

    Returns:
        The program, with state `x` and decision `u`; values and ELBO in units of reward, log evidence in nats.

    Raises:
        TypeError: on something else than a LinearQuadratic.
        ValueError: on shapes that do not fit, or a prior covariance that is not positive definite.
    """
    check_task("task", task, LinearQuadratic)
    if task.horizon is not None and horizon != task.horizon:
        raise ValueError(f"the task has {task.horizon} time steps, but horizon is {horizon}.")
    gain, offset, root = action_prior(task, horizon, prior)
    moves = task.A, task.B, task.c, square_root(task.noise), task.state_reward, task.action_reward, task.goal
    system = System(*moves, gain, offset, root)
    args = (
        varying_each(system, RANKS),
        task.initial_mean,
        square_root(task.initial_cov),
        finite_number("inverse_temperature", inverse_temperature),
    )
    return ControlProgram(initial, step, horizon, discount, None if horizon is None else final, args)


def action_prior(
    task: LinearQuadratic | Dynamics, horizon: int | None, prior: Sequence[ArrayLike] | None
) -> tuple[Float[Array, "..."], Float[Array, "..."], Float[Array, "..."]]:
    """Gain, offset and a square root of the covariance of the prior, checked."""
    n, m = task.num_states, task.num_actions
    if prior is None:
        return jnp.zeros((m, n)), jnp.zeros(m), jnp.eye(m)
    if len(prior) != 3:
        raise ValueError(f"prior has {len(prior)} entries; it must be (gain, offset, covariance).")
    arrays, source = [], "the task's policy" if isinstance(task, Dynamics) else "B"
    for name, value, shape in zip(("gain", "offset", "cov"), prior, ((m, n), (m,), (m, m)), strict=True):
        array = checks.as_reals(f"prior's {name}", value)
        matrices.check_sizes(f"prior's {name}", array, shape, horizon, source)
        arrays.append(array)
    gain, offset, cov = arrays
    matrices.check_semidefinite("prior's cov", cov, 1)
    root = square_root(cov)
    if checks.is_concrete(root) and not bool(jnp.all(jnp.diagonal(root, axis1=-2, axis2=-1) > 0)):
        raise ValueError("prior's cov is singular: an action prior needs some variance in every direction.")
    return gain, offset, root


def square_root(cov: Float[Array, "..."]) -> Float[Array, "..."]:
    """The lower Cholesky factor of covariances, singular ones too."""
    return jax.vmap(cholesky)(cov) if cov.ndim == 3 else cholesky(cov)
