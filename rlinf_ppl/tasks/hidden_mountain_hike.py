"""Mountain Hike in fog: the walker sees its position with noise (Igl, Zintgraf, Le, Wood & Whiteson 2018).

    p_1 ~ N(m_1, s_1^2 I),    p_{t+1} ~ N(p_t + c(a_t), s^2 I),    y_{t+1} ~ N(p_{t+1}, o^2 I)

There is no observation before the first action: what is known then is the law of p_1. The authors scale what is seen
by 10, and their observation noise of 1.5 and 3 is o = .15 and .3 here.

What an action moves, c(a), is known, so that the belief is N(m_t, v_t I) exactly, however bent the reward is:

    k_t = (v_t + s^2) / (v_t + s^2 + o^2),    m_{t+1} = m_t + c(a_t) + k_t (y_{t+1} - m_t - c(a_t))
    v_{t+1} = k_t o^2
"""

from typing import Any, final

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, Normal

from rlinf_ppl.tasks import checks
from rlinf_ppl.tasks.mountain_hike import MountainHike
from rlinf_ppl.types import ArrayLike


@final
class HiddenMountainHike(eqx.Module):
    """A Mountain Hike whose position is hidden: data only, immutable, checked when it is made.

    Attributes:
        hike: The walk.
        observation_std: Standard deviation o of what is seen of the next position, along x and y.
        action_std: Standard deviation of actions before anything is known of them, along x and y.
    """

    hike: MountainHike
    observation_std: Float[Array, ""]
    action_std: Float[Array, ""]

    def __init__(
        self, hike: MountainHike | None = None, observation_std: ArrayLike = 0.15, action_std: ArrayLike = 0.05
    ) -> None:
        """Make a task; its numbers become float32, or float64 where JAX has x64 on.

        Args:
            hike: The walk; None: that of the authors.
            observation_std: Above 0.
            action_std: Above 0; by default as long as the longest step of the authors' walk.

        Raises:
            TypeError: `hike` is something else, or an argument does not hold real numbers.
            ValueError: A number is an array, not finite, or not above 0. Under JAX's transformations, traced values are
                not checked.
        """
        walk = MountainHike() if hike is None else hike
        if not isinstance(walk, MountainHike):
            raise TypeError(f"hike is a {type(walk).__name__}: give a MountainHike.")
        self.hike = walk
        self.observation_std = as_spread("observation_std", observation_std)
        self.action_std = as_spread("action_std", action_std)

    def action_law(self) -> Distribution:
        """The prior over actions, N(0, action_std^2 I)."""
        return Normal(jnp.zeros(2), self.action_std).to_event(1)

    def first_law(self) -> Distribution:
        """The law of the first position."""
        return Normal(self.hike.initial_mean, self.hike.initial_std).to_event(1)

    def next_law(self, p: Any, a: Any) -> Distribution:
        """The law of the next position; positions may have leading axes."""
        shift, _ = self.hike.moved(jnp.zeros(2), a)
        return Normal(p + jnp.broadcast_to(shift, jnp.shape(p)), self.hike.noise_std).to_event(1)

    def observation_law(self, p_next: Any, a: Any) -> Distribution:
        """The law of what is seen of the next position; positions may have leading axes."""
        return Normal(p_next, self.observation_std).to_event(1)

    def gain(self, p: Any, a: Any, p_next: Any) -> Float[Array, ""]:
        """The reward of a step: of the position reached, less the cost of the action."""
        _, cost = self.hike.moved(p, a)
        return self.hike.reward(p_next) - cost

    def first_belief(self) -> tuple[Float[Array, "2"], Float[Array, ""]]:
        """Mean and variance of the first position."""
        return self.hike.initial_mean, self.hike.initial_std**2

    def next_belief(
        self, mean: Float[Array, "2"], variance: Float[Array, ""], a: Float[Array, "2"], y: Float[Array, "2"]
    ) -> tuple[Float[Array, "2"], Float[Array, ""]]:
        """Mean and variance of the next position, given what is seen of it.

        Args:
            mean: Of the position.
            variance: Of the position, along x and y.
            a: The action.
            y: What is seen of the next position.
        """
        reached, _ = self.hike.moved(mean, a)
        ahead = variance + self.hike.noise_std**2
        share = ahead / (ahead + self.observation_std**2)
        return reached + share * (y - reached), share * self.observation_std**2


def as_spread(name: str, value: ArrayLike) -> Float[Array, ""]:
    """One finite number above 0."""
    array = checks.as_reals(name, value)
    checks.check_shape(name, array.shape, [()], "hike", ())
    checks.check_finite(name, array)
    if checks.is_concrete(array) and not array > 0:
        raise ValueError(f"{name} is {float(array):g}: it must be above 0.")
    return array
