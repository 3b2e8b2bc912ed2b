"""A linear-quadratic control problem whose state is seen with Gaussian noise (LQG; Joseph & Tou 1961, Astrom 1970).

    x_{t+1} ~ N(A_t x_t + B_t u_t + c_t, W_t),      y_{t+1} ~ N(C_t x_{t+1}, R_t)

and the reward of `LinearQuadratic`. There is no observation before the first action: what is known then is the law of
x_1. What is known later is N(m_t, P_t), by Kalman's filter, and P_t depends neither on what is done nor on what is
seen.
"""

from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, MultivariateNormal

from rlinf_ppl.algebra import kalman
from rlinf_ppl.algebra.small_matrices import cholesky
from rlinf_ppl.tasks import checks, matrices
from rlinf_ppl.tasks.linear_quadratic import LinearQuadratic
from rlinf_ppl.types import ArrayLike


@final
class HiddenLinearQuadratic(eqx.Module):
    """A linear-quadratic-Gaussian task whose state is hidden: data only, immutable, checked when it is made.

    As a `HiddenProcess` its actions are N(0, I) at first, nothing may vary in time, and covariances are regular.

    Attributes:
        task: What moves and what is paid.
        observation: C, how what is seen depends on the next state.
        observation_noise: Covariance R of what is seen.
        discount: gamma in [0, 1].
    """

    task: LinearQuadratic
    observation: Float[Array, "p n"] | Float[Array, "T p n"]
    observation_noise: Float[Array, "p p"] | Float[Array, "T p p"]
    discount: Float[Array, ""]

    def __init__(
        self,
        task: LinearQuadratic,
        observation: ArrayLike,
        observation_noise: ArrayLike,
        discount: ArrayLike = 1.0,
    ) -> None:
        """Make a task of matrices; they become float32, or float64 where JAX has x64 on.

        Args:
            task: n dimensions of the state.
            observation: Shape (p, n) or (T, p, n).
            observation_noise: Positive semidefinite, shape (p, p) or (T, p, p).
            discount: In [0, 1].

        Raises:
            TypeError: `task` is no LinearQuadratic, or an array does not hold real numbers.
            ValueError: Shapes or lengths in time do not match, a number is not finite, the covariance is none, or the
                discount is outside of [0, 1]. Under JAX's transformations, traced values are not checked.
        """
        if not isinstance(task, LinearQuadratic):
            raise TypeError(f"task is a {type(task).__name__}: give a LinearQuadratic.")
        seen = checks.as_reals("observation", observation)
        noise = checks.as_reals("observation_noise", observation_noise)
        if seen.ndim not in (2, 3) or 0 in seen.shape:
            raise ValueError(
                f"observation has shape {seen.shape}: it must be a matrix, or (T, rows, columns), with at least one "
                "row; of what shows nothing, one row of zeros."
            )
        rows = seen.shape[-2]
        steps = matrices.check_sizes("observation", seen, (rows, task.num_states), task.horizon, "A")
        matrices.check_sizes("observation_noise", noise, (rows, rows), steps, "observation")
        matrices.check_semidefinite("observation_noise", noise, 1)
        self.task, self.observation, self.observation_noise = task, seen, matrices.symmetric(noise)
        self.discount = checks.as_reals("discount", discount)
        checks.check_shape("discount", self.discount.shape, [()], "task", ())
        checks.check_finite("discount", self.discount)
        if checks.is_concrete(self.discount) and not 0 <= self.discount <= 1:
            raise ValueError(f"discount is {float(self.discount):g}: it must lie in [0, 1].")

    @property
    def num_observations(self) -> int:
        """The dimension p of what is seen."""
        return self.observation.shape[-2]

    @property
    def horizon(self) -> int | None:
        """The number of steps T where anything varies in time, else None."""
        own = [x.shape[0] for x in (self.observation, self.observation_noise) if x.ndim > 2]
        return self.task.horizon if self.task.horizon is not None or not own else own[0]

    def filter(self, horizon: int) -> kalman.Filter:
        """Kalman's filter: gain K (T, n, p), the mean's own noise (T, n, p), and covariances P (T + 1, n, n).

            m_{t+1} = a + K_t (y_{t+1} - C_t a),      a = A_t m_t + B_t u_t + c_t

        Args:
            horizon: Number of steps T, that of the task where it varies in time.

        Raises:
            ValueError: The task has another number of steps.
        """
        if self.horizon not in (None, horizon):
            raise ValueError(f"the task has {self.horizon} time steps, but horizon is {horizon}.")
        moves = self.task.A, square_root(self.task.noise), self.observation, square_root(self.observation_noise)
        over_time = (jnp.broadcast_to(x, (horizon, *x.shape[-2:])) for x in moves)
        return kalman.kalman(kalman.System(*over_time), square_root(self.task.initial_cov))

    def action_law(self) -> Distribution:
        """The prior over actions, N(0, I)."""
        return MultivariateNormal(jnp.zeros(self.task.num_actions), scale_tril=jnp.eye(self.task.num_actions))

    def first_law(self) -> Distribution:
        """The law of the first state."""
        return normal(self.task.initial_mean, self.task.initial_cov)

    def next_law(self, x: Any, u: Any) -> Distribution:
        """The law of the next state; states may have leading axes."""
        self._check_constant()
        apart = self.task.B @ u + self.task.c
        return normal(x @ self.task.A.T + jnp.broadcast_to(apart, jnp.shape(x)), self.task.noise)

    def observation_law(self, x_next: Any, u: Any) -> Distribution:
        """The law of what is seen of the next state; states may have leading axes."""
        return normal(x_next @ self.observation.T, self.observation_noise)

    def gain(self, x: Any, u: Any, x_next: Any) -> Float[Array, ""]:
        """The reward of a step, of the state before it and the action."""
        return self.last_gain(x) + u @ self.task.action_reward @ u

    def last_gain(self, x: Any) -> Float[Array, ""]:
        """The reward of the last state."""
        apart = x - self.task.goal
        return apart @ self.task.state_reward @ apart

    def _check_constant(self) -> None:
        """Raise where something varies in time, which the laws of a step would have to be told."""
        if self.horizon is not None:
            raise ValueError(
                f"the task varies over {self.horizon} time steps, and the laws of a hidden process do not: give "
                "arrays without time, or take models.hidden_linear_gaussian."
            )


def normal(mean: Array, cov: Array) -> Distribution:
    """A normal law; a singular covariance gives one that can be drawn from and has no density."""
    return MultivariateNormal(mean, scale_tril=cholesky(cov))


def square_root(cov: Float[Array, "..."]) -> Float[Array, "..."]:
    """The lower Cholesky factor of covariances, singular ones too."""
    return jax.vmap(cholesky)(cov) if cov.ndim == 3 else cholesky(cov)
