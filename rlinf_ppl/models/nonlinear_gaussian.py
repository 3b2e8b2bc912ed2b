"""Control of a nonlinear system as inference, with Gaussian noise and a Gaussian action prior.

    x_1 ~ N(m_1, S_1),   u_t ~ q(u | x_t) = N(K x_t + k, S),   x_{t+1} = f(x_t, clip(u_t), t) + W^(1/2) w,   w ~ N(0, I)
    factor exp(-tau c(x_t, clip(u_t), t)),   at the end exp(-tau c(x_T, 0, T))

Neither f nor c has a closed form behind it, so `exact` refuses this program, unless there is no limit and they are
linear and quadratic after all; `smc`, sampled ELBOs and NumPyro run it. About a trajectory `trust_region.local_program`
is the same program with f to first order and c to second, which `exact` solves: what its evidence is off by says how
wrong that is, in nats.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpyro
from jaxtyping import Array
from numpyro.distributions import MultivariateNormal, Normal

from rlinf_ppl.models.arguments import check_task, finite_number
from rlinf_ppl.models.dynamics import varying_each
from rlinf_ppl.models.linear_gaussian import action_prior, square_root
from rlinf_ppl.program import ControlProgram, decide, optimality
from rlinf_ppl.tasks import Dynamics, checks
from rlinf_ppl.types import ArrayLike


class Prior(NamedTuple):
    """What the step reads of its time: the action prior, and which time it is."""

    gain: Array
    offset: Array
    root: Array
    time: Array


RANKS = (2, 1, 2, 0)


def nonlinear_gaussian(
    task: Dynamics,
    prior: Sequence[ArrayLike] | None = None,
    inverse_temperature: ArrayLike = 1.0,
    discount: ArrayLike = 1.0,
) -> ControlProgram:
    """Control of a nonlinear system as inference.

    Args:
        task: the system, n dimensions of the state and m of the action; its horizon is the program's.
        prior: (K, k, S) with shapes (m, n), (m,), (m, m), each with or without a leading T: u ~ N(K x + k, S); default
            N(0, I). The last policy of `trust_region.gps` is one.
        inverse_temperature: tau, in 1 / units of reward.
        discount: probability of being alive at the next step.

    Returns:
        The program, with state `x` and decision `u` before its limits, as `trust_region.local_program` has them; log
        evidence in nats. Noise is a site of its own, `noise`, so that it may be singular, or zero.

    Raises:
        TypeError: on something else than a Dynamics.
        ValueError: on shapes that do not fit, or a prior covariance that is not positive definite.
    """
    check_task("task", task, Dynamics)
    horizon, n = task.horizon, task.num_states
    arrays, rest = eqx.partition(task, eqx.is_array)
    each = Prior(*action_prior(task, horizon, prior), jnp.arange(horizon))
    roots = square_root(task.initial_cov), square_root(task.noise)
    limited = not (checks.is_concrete(task.action_limit) and bool(jnp.all(jnp.isinf(task.action_limit))))
    standard = Normal(jnp.zeros(n), 1.0).to_event(1)

    def initial(arrays: Any, each: Prior, roots: tuple[Array, Array], tau: Array) -> dict[str, Any]:
        first = eqx.combine(arrays, rest).initial_mean
        return {"x": first + roots[0] @ numpyro.sample("first_noise", standard)}

    def step(arrays: Any, each: Prior, roots: tuple[Array, Array], tau: Array, x: Any) -> dict[str, Any]:
        system = eqx.combine(arrays, rest)
        law = MultivariateNormal(each.gain @ x + each.offset, scale_tril=each.root)
        u = decide("u", law, inverse_temperature=tau)
        applied = system.applied(u) if limited else u
        optimality(-system.cost(x, applied, each.time))
        reached = system.step(x, applied, each.time)
        return {"x": reached + roots[1] @ numpyro.sample("noise", standard)}

    def final(arrays: Any, each: Prior, roots: tuple[Array, Array], tau: Array, x: Any) -> None:
        optimality(eqx.combine(arrays, rest).final_reward(x))

    args = arrays, varying_each(each, RANKS), roots, finite_number("inverse_temperature", inverse_temperature)
    return ControlProgram(initial, step, horizon, discount, final, args)
