"""Control of a nonlinear system as inference, with the system as it is.

Toussaint (2009), Robot trajectory optimization using approximate inference, has such a model of a system that is made
linear about a trajectory; here it stays what it is:

    x_1 ~ N(m_1, S_1),   u_t ~ q(u | x_t) = N(K x_t + k, S),   x_{t+1} ~ N(f(x_t, clip(u_t), t), W)
    factor exp(-tau c(x_t, clip(u_t), t)),   at the end exp(-tau c(x_T, 0, T))

State and decision have the names of `trust_region.local_program`, so that a policy of the one runs in the other. Where
f is linear, c quadratic and the action free, `exact` reads the program as it is. Elsewhere it reads the system about a
trajectory, and particles say how wrong that is; its answers are what they go by:

    found = trust_region.gps(task, 5.0)                                         # or any trajectory, and any prior
    program = models.nonlinear_gaussian(task, found.policy)
    about = trust_region.local_program(task.expand(found.states, found.actions), found.policy)
    answer, optimum = exact.condition(about), exact.solve(about)
    run = smc.run(program, key, 10_000, proposal=answer, twist=answer.value)
    run.log_evidence - answer.log_evidence                                      # how wrong, in nats
    played = execution.roll_out(program, key, optimum.policy, 10_000)
    played.mean - execution.expected_return(about, optimum.policy)              # and in units of reward

A Gaussian guide of the system itself is `GaussianGuide`, fitted by `svi.fit` with `ParticleELBO`.

A covariance may be singular. Then its noise is the site, `x_next_noise`, with as many coordinates as the covariance has
rank, and where it is 0 there is no site at all. Under jit and vmap covariances are taken for regular.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.tree_util import Partial
from jaxtyping import Array, Float
from numpyro.distributions import MultivariateNormal, Normal

from rlinf_ppl.algebra.small_matrices import cholesky
from rlinf_ppl.models.arguments import check_task, finite_number
from rlinf_ppl.models.dynamics import varying
from rlinf_ppl.models.linear_gaussian import action_prior
from rlinf_ppl.program import ControlProgram, decide, optimality
from rlinf_ppl.tasks import Dynamics, checks
from rlinf_ppl.types import ArrayLike


class System(NamedTuple):
    """What the step reads: the task and the prior, with square roots in the place of covariances.

    Attributes:
        task: the task, whose functions are parts of the tree.
        limit: of the action; None where it has none, so that a free action stays a polynomial.
        first_root: of the covariance of the first state, (n, rank).
        noise_root: of the covariance of the next state, (n, rank).
        gain: of the prior.
        offset: of the prior.
        prior_root: of its covariance.
        tau: the inverse temperature.
    """

    task: Dynamics
    limit: Array | None
    first_root: Array
    noise_root: Array
    gain: Array
    offset: Array
    prior_root: Array
    tau: Array


def initial(system: System) -> dict[str, Any]:
    """The first state."""
    return {"x": gaussian("x_first", system.task.initial_mean, system.first_root)}


def step(system: System, x: Any, t: Any) -> dict[str, Any]:
    """One step of the model."""
    task = system.task
    prior = MultivariateNormal(system.gain @ x + system.offset, scale_tril=system.prior_root)
    u = decide("u", prior, inverse_temperature=system.tau)
    applied = u if system.limit is None else task.applied(u)
    optimality(-jnp.asarray(task.cost(x, applied, t)))
    return {"x": gaussian("x_next", jnp.asarray(task.step(x, applied, t)), system.noise_root)}


def final(system: System, x: Any) -> None:
    """The reward of the last state."""
    optimality(system.task.final_reward(x))


def gaussian(name: str, mean: Float[Array, " n"], root: Float[Array, "n rank"]) -> Float[Array, " n"]:
    """A Gaussian vector: a site, or a function of a site of its noise, or its mean where it has no noise."""
    n, rank = root.shape
    if rank == n:
        return numpyro.sample(name, MultivariateNormal(mean, scale_tril=root))
    if rank == 0:
        return mean
    return mean + root @ numpyro.sample(f"{name}_noise", Normal(jnp.zeros(rank), 1.0).to_event(1))


def nonlinear_gaussian(
    task: Dynamics, prior: Sequence[ArrayLike] | None = None, inverse_temperature: ArrayLike = 1.0
) -> ControlProgram:
    """Control of a nonlinear system as inference.

    Args:
        task: the system, n dimensions of the state and m of the action, with its horizon T.
        prior: (K, k, S) with shapes (m, n), (m,), (m, m), each with or without a leading T: u ~ N(K x + k, S), before
            limits; default N(0, I) whatever the state is.
        inverse_temperature: tau, in 1 / units of reward.

    Returns:
        The program, with state `x` and decision `u`; values and ELBO in units of reward, log evidence in nats.

    Raises:
        TypeError: on something else than a Dynamics, or a step or cost that holds something else than numbers and
            functions.
        ValueError: on shapes that do not fit, numbers that are not finite, or a prior covariance that is not positive
            definite.
    """
    check_task("task", task, Dynamics)
    gain, offset, root = action_prior(task, task.horizon, prior)
    system = System(
        jax.tree.map(as_part, task),
        task.action_limit if is_limited(task) else None,
        root_of(task.initial_cov),
        root_of(task.noise),
        varying(gain, 2),
        varying(offset, 1),
        varying(root, 2),
        finite_number("inverse_temperature", inverse_temperature),
    )
    return ControlProgram(initial, step, task.horizon, final=final, args=(system,))


def as_part(leaf: Any) -> Any:
    """A function as a part of a tree that has no numbers; anything else as it is."""
    return Partial(leaf) if callable(leaf) else leaf


def is_limited(task: Dynamics) -> bool:
    """Whether any entry of the action has a limit, as far as is known."""
    return not checks.is_concrete(task.action_limit) or bool(jnp.any(jnp.isfinite(task.action_limit)))


def root_of(cov: Float[Array, "n n"]) -> Float[Array, "n rank"]:
    """A matrix R with R R' = cov, with as many columns as its rank; where that is n, the Cholesky factor."""
    if not checks.is_concrete(cov):
        return cholesky(cov)
    host = np.asarray(cov, float)
    # In units of each coordinate's own deviation a small variance is none that is lost in rounding.
    unit = np.sqrt(np.maximum(np.diag(host), 0.0))
    scaled = host / np.outer(np.where(unit > 0, unit, 1.0), np.where(unit > 0, unit, 1.0))
    spread, axes = np.linalg.eigh(scaled)
    kept = spread > len(host) * np.finfo(cov.dtype).eps
    if kept.all():
        return cholesky(cov)
    return jnp.asarray(unit[:, None] * axes[:, kept] * np.sqrt(spread[kept]), cov.dtype)
