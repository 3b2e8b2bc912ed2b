"""Mountain Hike in fog as inference: the walker acts on its belief, which is Gaussian (Igl et al. 2018).

    p_1 ~ N(m_1, s_1^2 I),         a_t ~ N(0, s_a^2 I) does not see p_t, it sees the belief N(m_t, v_t I)
    p_{t+1} ~ N(p_t + c(a_t), s^2 I),    factor exp(tau [r(p_{t+1}) - k |a_t|]),    y_{t+1} ~ N(p_{t+1}, o^2 I)
    (m, v)_{t+1}                   by Kalman's filter, in `tasks.HiddenMountainHike`; v is known beforehand

The first belief is the law of the first position: nothing is seen before the first action. A policy of the belief is
one of all that was seen, and loses nothing to one that remembers more. The world p goes on as it is, so returns are
those of the real walk; no table holds such a policy, and the program carries a perceptron.

From the prior, whose walks stay where they are, slopes through all 75 steps lead up the ridges: `svi.fit` with
`ParticleELBO(n)`, gradients clipped, as `tempered` lets rewards count more and more. Networks see better with features,
such as sines of the mean: ridges are narrow beside the box.
"""

from typing import Any

import jax.numpy as jnp
import numpyro
from jaxtyping import Array
from numpyro.distributions import Normal

from rlinf_ppl.models.arguments import check_task, finite_number
from rlinf_ppl.models.hidden import with_networks
from rlinf_ppl.program import ControlProgram, decide, optimality
from rlinf_ppl.tasks import HiddenMountainHike, checks
from rlinf_ppl.types import ArrayLike


def initial(task: HiddenMountainHike, prior_std: Array, tau: Array) -> dict[str, Any]:
    """The first position, and what is known of it."""
    mean, variance = task.first_belief()
    return {"p": numpyro.sample("p_first", task.first_law()), "mean": mean, "variance": variance}


def step(task: HiddenMountainHike, prior_std: Array, tau: Array, p: Any, mean: Any, variance: Any) -> dict[str, Any]:
    """One step of the model."""
    a = decide("a", Normal(jnp.zeros(2), prior_std).to_event(1), inverse_temperature=tau, unseen=("p",))
    p_next = numpyro.sample("p_next", task.next_law(p, a))
    optimality(task.gain(p, a, p_next))
    y = numpyro.sample("y", task.observation_law(p_next, a))
    mean, variance = task.next_belief(mean, variance, a, y)
    return {"p": p_next, "mean": mean, "variance": variance}


def hidden_mountain_hike(
    task: HiddenMountainHike,
    horizon: int | None = 75,
    prior_std: ArrayLike | None = None,
    inverse_temperature: ArrayLike = 1.0,
    discount: ArrayLike = 1.0,
) -> ControlProgram:
    """Mountain Hike in fog as inference.

    Args:
        task: the task.
        horizon: number of steps T; None: without end, at a discount below 1.
        prior_std: standard deviation of the action prior N(0, prior_std^2 I), above 0; default the task's `action_std`.
        inverse_temperature: tau, in 1 / units of reward.
        discount: probability of being alive at the next step.

    Returns:
        The program, with states `p` (2,), `mean` (2,) and `variance`, decision `a` that does not see `p`, and a
        guide, a perceptron of the belief and the time that starts at the prior; log evidence in nats.

    Raises:
        TypeError: on something else than a HiddenMountainHike.
        ValueError: on a prior without variance, or numbers that are not finite.
    """
    check_task("task", task, HiddenMountainHike)
    spread = task.action_std if prior_std is None else finite_number("prior_std", prior_std)
    if checks.is_concrete(spread) and not spread > 0:
        raise ValueError(f"prior_std is {float(spread):g}: an action prior needs some variance, above 0.")
    args = task, spread, finite_number("inverse_temperature", inverse_temperature)
    return with_networks(ControlProgram(initial, step, horizon, discount, args=args))
