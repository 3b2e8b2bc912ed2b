"""Mountain Hike as inference: the first nonlinear step (Igl, Zintgraf, Le, Wood & Whiteson 2018).

    p_1 ~ N(m_1, s_1^2 I),   a_t ~ N(0, s_a^2 I),   p_{t+1} ~ N(p_t + c(a_t), s^2 I),   c(a) = a min(1, l / |a|)
    factor exp(tau [r(p_{t+1}) - k |a_t|])

with the reward r of `tasks.MountainHike`, paid where a step arrives. Neither r nor c has a closed form behind it, so
`exact` refuses this program; `smc` runs it, and whatever differentiates a step finds finite gradients everywhere,
though r falls off the edge of the box, which no gradient sees.

The published agents maximise the reward alone. That is tau to infinity here, where the prior stops mattering; at a
finite tau the prior's standard deviation sets the scale of what is tried, and |a| above l is paid for and wasted.
"""

from typing import Any

import jax.numpy as jnp
import numpyro
from jaxtyping import Array
from numpyro.distributions import Normal

from rlinf_ppl.models.arguments import check_task, finite_number
from rlinf_ppl.program import ControlProgram, decide, optimality
from rlinf_ppl.tasks import MountainHike, checks
from rlinf_ppl.types import ArrayLike


def initial(task: MountainHike, prior_std: Array, tau: Array) -> dict[str, Any]:
    """The first position."""
    return {"p": numpyro.sample("p_first", Normal(task.initial_mean, task.initial_std).to_event(1))}


def step(task: MountainHike, prior_std: Array, tau: Array, p: Any) -> dict[str, Any]:
    """One step of the model."""
    a = decide("a", Normal(jnp.zeros(2), prior_std).to_event(1), inverse_temperature=tau)
    reached, cost = task.moved(p, a)
    p_next = numpyro.sample("p_next", Normal(reached, task.noise_std).to_event(1))
    optimality(task.reward(p_next) - cost)
    return {"p": p_next}


def mountain_hike(
    task: MountainHike,
    horizon: int | None = 75,
    prior_std: ArrayLike = 0.05,
    inverse_temperature: ArrayLike = 1.0,
    discount: ArrayLike = 1.0,
) -> ControlProgram:
    """Mountain Hike as inference.

    Args:
        task: the task.
        horizon: number of steps T; None: without end, at a discount below 1.
        prior_std: standard deviation of the action prior N(0, prior_std^2 I), above 0; by default as long as the
            longest step of the task's default.
        inverse_temperature: tau, in 1 / units of reward.
        discount: probability of being alive at the next step.

    Returns:
        The program, with state `p` and decision `a`; log evidence in nats.

    Raises:
        TypeError: on something else than a MountainHike.
        ValueError: on a prior without variance, or numbers that are not finite.
    """
    check_task("task", task, MountainHike)
    spread = finite_number("prior_std", prior_std)
    if checks.is_concrete(spread) and not spread > 0:
        raise ValueError(f"prior_std is {float(spread):g}: an action prior needs some variance, above 0.")
    args = task, spread, finite_number("inverse_temperature", inverse_temperature)
    return ControlProgram(initial, step, horizon, discount, args=args)
