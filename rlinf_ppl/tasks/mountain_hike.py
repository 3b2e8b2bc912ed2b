"""Mountain Hike: a walk along bent ridges in a box (Igl, Zintgraf, Le, Wood & Whiteson 2018).

    p_1 ~ N(m_1, s_1^2 I),      p' ~ N(p + c(a), s^2 I),      c(a) = a min(1, l / |a|)
    reward  r(p') - k |a|,      of the position reached, and of the action before it is shortened

    r(x, y) = 4 (1 - (1 - Z)^4) - 4.5 + (x + y) / 4 in the box [-1, 1]^2, and r_out outside of it
    Z = max_i w_i N(x; m_ix, s_ix^2) N(y; m_iy, s_iy^2) / number of ridges

The numbers of the authors' environment are the defaults; what it calls covariances of the ridges are standard
deviations. An episode has 75 steps there. What the walker sees of its position is no part of the task.
"""

from typing import Any, final

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlinf_ppl.tasks import checks
from rlinf_ppl.types import ArrayLike

EDGE = 1.0
HEIGHT = 4.0
POWER = 4
RIDGE_MEANS = ((0.5, 0.5), (0.0, 0.2), (-0.375, -0.5))
RIDGE_STDS = ((0.75, 0.1), (0.1, 0.75), (0.75, 0.1))
RIDGE_WEIGHTS = (1.0, 0.8, 0.55)


@final
class MountainHike(eqx.Module):
    """A Mountain Hike: data only, immutable, checked when it is made.

    Attributes:
        ridge_means: Where each ridge is highest.
        ridge_stds: How wide each ridge is along x and y.
        ridge_weights: How high each ridge is, by its density.
        initial_mean: Mean of the first position.
        initial_std: Standard deviation of the first position, along x and y.
        max_step: How far one action moves at most.
        noise_std: Standard deviation of the next position, along x and y.
        action_cost: Reward that an action costs by its length, before it is shortened.
        outside_reward: Reward outside of the box.
    """

    ridge_means: Float[Array, "ridges 2"]
    ridge_stds: Float[Array, "ridges 2"]
    ridge_weights: Float[Array, " ridges"]
    initial_mean: Float[Array, "2"]
    initial_std: Float[Array, ""]
    max_step: Float[Array, ""]
    noise_std: Float[Array, ""]
    action_cost: Float[Array, ""]
    outside_reward: Float[Array, ""]

    def __init__(
        self,
        ridge_means: ArrayLike = RIDGE_MEANS,
        ridge_stds: ArrayLike = RIDGE_STDS,
        ridge_weights: ArrayLike = RIDGE_WEIGHTS,
        initial_mean: ArrayLike = (-0.85, -0.85),
        initial_std: ArrayLike = 0.1,
        max_step: ArrayLike = 0.05,
        noise_std: ArrayLike = 0.025,
        action_cost: ArrayLike = 0.1,
        outside_reward: ArrayLike = -6.0,
    ) -> None:
        """Make a task; its numbers become float32, or float64 where JAX has x64 on.

        Args:
            ridge_means: Shape (ridges, 2).
            ridge_stds: Above 0, shape (ridges, 2).
            ridge_weights: At least 0, shape (ridges,).
            initial_mean: Shape (2,).
            initial_std: Above 0.
            max_step: Above 0.
            noise_std: Above 0.
            action_cost: At least 0, in units of reward per unit of length.
            outside_reward: In units of reward.

        Raises:
            TypeError: An argument does not hold real numbers.
            ValueError: A shape does not fit, a number is not finite, or below what it may be. Under JAX's
                transformations, traced values are not checked.
        """
        given: dict[str, Any] = {
            "ridge_means": ridge_means, "ridge_stds": ridge_stds, "ridge_weights": ridge_weights,
            "initial_mean": initial_mean, "initial_std": initial_std, "max_step": max_step, "noise_std": noise_std,
            "action_cost": action_cost, "outside_reward": outside_reward,
        }  # fmt: skip
        arrays = {name: checks.as_reals(name, value) for name, value in given.items()}
        check_hike(arrays)
        for name, array in arrays.items():
            setattr(self, name, array)

    def reward(self, p: Float[Array, "2"]) -> Float[Array, ""]:
        """The reward of a position, without the cost of the action; its gradient is 0 outside of the box.

        Args:
            p: The position.
        """
        inside = jnp.clip(p, -EDGE, EDGE)  # far away the squares would overflow
        x, y = jnp.moveaxis((inside[None] - self.ridge_means) / self.ridge_stds, -1, 0)
        density = jnp.exp(-0.5 * (x**2 + y**2)) / (2 * jnp.pi * jnp.prod(self.ridge_stds, -1))
        ridge = jnp.max(self.ridge_weights * density) / len(self.ridge_weights)
        height = HEIGHT * (1 - (1 - ridge) ** POWER) - (HEIGHT + 0.5) + jnp.sum(inside) / 4
        return jnp.where(jnp.all(jnp.abs(p) <= EDGE), height, self.outside_reward)

    def moved(self, p: Float[Array, "2"], a: Float[Array, "2"]) -> tuple[Float[Array, "2"], Float[Array, ""]]:
        """Where an action leads before there is noise, and what it costs; differentiable at no action, too.

        Args:
            p: The position.
            a: The action.

        Returns:
            The mean of the next position, and the cost, at least 0, in units of reward.
        """
        square = jnp.sum(a**2)
        moving = square > 0
        length = jnp.where(moving, jnp.sqrt(jnp.where(moving, square, 1.0)), 0.0)
        shorter = jnp.where(length > self.max_step, self.max_step / jnp.where(moving, length, 1.0), 1.0)
        return p + shorter * a, self.action_cost * length


def check_hike(arrays: dict[str, Array]) -> None:
    """Raise where the numbers of a hike do not fit together, are not finite, or below what they may be."""
    means = arrays["ridge_means"]
    checks.check_not_empty("ridge_means", means.shape, ("ridges", "coordinates"))
    ridges = means.shape[0]
    shapes: dict[str, tuple[int, ...]] = {
        "ridge_means": (ridges, 2), "ridge_stds": (ridges, 2), "ridge_weights": (ridges,), "initial_mean": (2,)
    }  # fmt: skip
    for name, array in arrays.items():
        checks.check_shape(name, array.shape, [shapes.get(name, ())], "ridge_means", means.shape)
        checks.check_finite(name, array)
    for name, array in arrays.items():
        if not checks.is_concrete(array) or name in ("ridge_means", "initial_mean", "outside_reward"):
            continue
        least = float(array.min())
        if least < 0 or (least == 0 and name not in ("ridge_weights", "action_cost")):
            allowed = "at least 0" if name in ("ridge_weights", "action_cost") else "above 0"
            raise ValueError(f"{name} has the entry {least:g}: it must be {allowed}.")
