"""A system about a trajectory as a step program, which the second algebra solves."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float
from numpyro.distributions import MultivariateNormal

from rlinf_ppl.algebra.quadratics import AffinePolicy
from rlinf_ppl.algebra.small_matrices import cholesky
from rlinf_ppl.program import ControlProgram, decide, optimality, over_time
from rlinf_ppl.tasks import Expansion


class Local(NamedTuple):
    """What a step reads, over time, with square roots in the place of covariances."""

    state: Array
    action: Array
    A: Array
    B: Array
    reached: Array
    noise_root: Array
    matrix: Array
    vector: Array
    scalar: Array
    gain: Array
    offset: Array
    prior_root: Array


class Ends(NamedTuple):
    """What the first state and the reward of the last one read."""

    mean: Array
    root: Array
    state: Array
    matrix: Array
    vector: Array
    scalar: Array


def initial(local: Local, ends: Ends) -> dict[str, Any]:
    """The first state."""
    return {"x": numpyro.sample("x_first", MultivariateNormal(ends.mean, scale_tril=ends.root))}


def step(local: Local, ends: Ends, x: Any) -> dict[str, Any]:
    """One step about the trajectory."""
    u = decide("u", MultivariateNormal(local.gain @ x + local.offset, scale_tril=local.prior_root))
    dx, du = x - local.state, u - local.action
    z = jnp.concatenate([dx, du])
    optimality(z @ local.matrix @ z + z @ local.vector + local.scalar)
    mean = local.reached + local.A @ dx + local.B @ du
    return {"x": numpyro.sample("x_next", MultivariateNormal(mean, scale_tril=local.noise_root))}


def final(local: Local, ends: Ends, x: Any) -> None:
    """The reward of the last state."""
    dx = x - ends.state
    optimality(dx @ ends.matrix @ dx + dx @ ends.vector + ends.scalar)


def local_program(expansion: Expansion, prior: AffinePolicy) -> ControlProgram:
    """The linear-Gaussian program about a trajectory; `models.nonlinear_gaussian` is that of the system itself.

    Args:
        expansion: the system there.
        prior: of the action, N(gain x + offset, cov), with shapes (T, m, n), (T, m), (T, m, m).

    Returns:
        The program, with state `x` and decision `u`, as the system itself has them; values in units of reward.
    """
    horizon, n = expansion.B.shape[:2]
    noise = jnp.broadcast_to(roots(expansion.noise), (horizon, n, n))
    local = Local(
        expansion.states[:-1], expansion.actions, expansion.A, expansion.B, expansion.reached, noise,
        expansion.matrix, expansion.vector, expansion.scalar, *prior[:2], roots(prior[2]),
    )  # fmt: skip
    ends = Ends(
        expansion.initial_mean, roots(expansion.initial_cov), expansion.states[-1],
        expansion.final_matrix, expansion.final_vector, expansion.final_scalar,
    )  # fmt: skip
    return ControlProgram(initial, step, horizon, final=final, args=(Local(*map(over_time, local)), ends))


def roots(cov: Float[Array, "..."]) -> Float[Array, "..."]:
    """Square roots of covariances, singular ones too."""
    return jax.vmap(cholesky)(cov.reshape(-1, *cov.shape[-2:])).reshape(cov.shape)
