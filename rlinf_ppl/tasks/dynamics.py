"""Control of a nonlinear system: any step function with Gaussian noise, any cost, limits on the action.

    x_1 ~ N(m_1, S_1),      x_{t+1} ~ N(f(x_t, clip(u_t), t), W)
    reward  -c(x_t, clip(u_t), t),      at the end  -c(x_T, 0, T)

with clip(u) within [-limit, limit]. Both functions may be Equinox modules, or `jax.tree_util.Partial`, whose arrays are
leaves of the task: what a solution says is differentiable in them, and can be vmapped.
"""

from collections.abc import Callable
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlinf_ppl.tasks import checks, matrices
from rlinf_ppl.tasks.expansion import Expansion
from rlinf_ppl.types import ArrayLike


class Shifted(eqx.Module):
    """A function of (x, u, t) that counts time from another start.

    Attributes:
        function: The function.
        start: The time that is its t = 0.
    """

    function: Callable[..., Any]
    start: Array

    def __call__(self, x: Array, u: Array, t: Any) -> Array:
        """The function, `start` later."""
        return self.function(x, u, t + self.start)


@final
class Dynamics(eqx.Module):
    """A nonlinear system and what it costs: functions and data, immutable, checked when it is made.

    Attributes:
        step: f(x, u, t) -> the mean of the next state, (n,).
        cost: c(x, u, t) -> in units of reward, a number; at the end with u = 0 and t = T.
        horizon: The number of steps T.
        initial_mean: Mean of the first state.
        initial_cov: Covariance of the first state.
        noise: Covariance of the next state.
        action_limit: The largest size of each entry of the action that is applied; infinite where there is none.
    """

    step: Callable[..., Any]
    cost: Callable[..., Any]
    horizon: int = eqx.field(static=True)
    initial_mean: Float[Array, " n"]
    initial_cov: Float[Array, "n n"]
    noise: Float[Array, "n n"]
    action_limit: Float[Array, " m"]

    def __init__(
        self,
        step: Callable[..., Any],
        cost: Callable[..., Any],
        horizon: int,
        initial_mean: ArrayLike,
        num_actions: int,
        initial_cov: ArrayLike | None = None,
        noise: ArrayLike | None = None,
        action_limit: ArrayLike = jnp.inf,
    ) -> None:
        """Make a task; its numbers become float32, or float64 where JAX has x64 on.

        Args:
            step: f(x, u, t), with x (n,), u (m,) and t a whole number, written in JAX and differentiable.
            cost: c(x, u, t), twice differentiable, in units of reward; less is better.
            horizon: At least 1.
            initial_mean: Shape (n,).
            num_actions: The dimension m of the action.
            initial_cov: Positive semidefinite, shape (n, n); None: 0.
            noise: Positive semidefinite, shape (n, n); None: 0, a deterministic system.
            action_limit: Above 0, one number or (m,).

        Raises:
            TypeError: A function is none, or an array does not hold real numbers.
            ValueError: Shapes do not fit, a number is not finite, or a covariance is none.
        """
        for name, function in (("step", step), ("cost", cost)):
            if not callable(function):
                raise TypeError(f"{name} must be a function of (x, u, t); got {type(function).__name__}.")
        mean = checks.as_reals("initial_mean", initial_mean)
        checks.check_not_empty("initial_mean", mean.shape, ("dimensions of the state",))
        n, m = mean.shape[0], check_whole("num_actions", num_actions)
        self.step, self.cost, self.horizon = step, cost, check_whole("horizon", horizon)
        self.initial_mean = mean
        checks.check_finite("initial_mean", mean)
        self.initial_cov = covariance("initial_cov", initial_cov, n)
        self.noise = covariance("noise", noise, n)
        self.action_limit = limits(action_limit, m)
        check_functions(self)

    @property
    def num_states(self) -> int:
        """The dimension n of the state."""
        return self.initial_mean.shape[0]

    @property
    def num_actions(self) -> int:
        """The dimension m of the action."""
        return self.action_limit.shape[0]

    def applied(self, u: Float[Array, " m"]) -> Float[Array, " m"]:
        """The action within its limits; its derivative is 0 from the limit on, and 1 below."""
        return jnp.where(jnp.abs(u) < self.action_limit, u, jnp.sign(u) * self.action_limit)

    def moved(self, x: Float[Array, " n"], u: Float[Array, " m"], t: Any) -> Float[Array, " n"]:
        """The mean of the next state under an action, limited."""
        return jnp.asarray(self.step(x, self.applied(u), t))

    def reward(self, x: Float[Array, " n"], u: Float[Array, " m"], t: Any) -> Float[Array, ""]:
        """The reward of a step under an action, limited."""
        return -jnp.asarray(self.cost(x, self.applied(u), t))

    def final_reward(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        """The reward of the last state."""
        return -jnp.asarray(self.cost(x, jnp.zeros_like(self.action_limit), self.horizon))

    def onwards(self, x: Float[Array, " n"], t: Any, horizon: int) -> "Dynamics":
        """The same system from a known state and time on, for so many steps; it may go on beyond its own horizon.

        Args:
            x: The first state, which is certain.
            t: The time that is t = 0 then.
            horizon: The number of steps.
        """
        start = jnp.asarray(t)
        return Dynamics(
            Shifted(self.step, start), Shifted(self.cost, start), horizon, x, self.num_actions,
            None, self.noise, self.action_limit,
        )  # fmt: skip

    def expand(
        self,
        states: Float[Array, "T_plus_1 n"],
        actions: Float[Array, "T m"],
        saturated: float = 0.0,
        concave: bool = False,
    ) -> Expansion:
        """The system about a trajectory: its first derivatives, and the first and second ones of the reward.

        In the direction of an action at its limit the step's derivative is 0, as more of it changes nothing, unless
        something else is asked for; the cost is expanded as if the action that is applied were free to move either way.

        Args:
            states: Where it is, (T + 1, n).
            actions: What is done, (T, m), before limits.
            saturated: The step's derivative in an action at its limit or beyond, beside the one that it had without a
                limit: 0, or 1 for that of moving back inside.
            concave: Whether second derivatives of the reward have 0 in the place of eigenvalues above 0, so that what
                maximises it exists.
        """
        times = jnp.arange(self.horizon)
        applied = jax.vmap(self.applied)(actions)
        n = self.num_states

        def at(x: Array, u: Array, t: Array) -> Array:
            return jnp.asarray(self.step(x, u, t))

        def rewarded(z: Array, t: Any) -> Array:
            return -jnp.asarray(self.cost(z[:n], z[n:], t))

        here = states[:-1], applied, times
        A, B = jax.vmap(jax.jacfwd(at, (0, 1)))(*here)
        free = jnp.where(jnp.abs(actions) < self.action_limit[None], 1.0, saturated)
        z, last = jnp.concatenate(here[:2], -1), jnp.concatenate([states[-1], jnp.zeros_like(self.action_limit)])
        scalar, vector, matrix = (jax.vmap(f)(z, times) for f in derivatives(rewarded))
        ends = [f(last, self.horizon) for f in derivatives(rewarded)]
        final = ends[2][:n, :n]
        if concave:
            matrix, final = jax.vmap(matrices.concave_part)(matrix), matrices.concave_part(final)
        return Expansion(
            states=states, actions=applied, A=A, B=B * free[:, None], reached=jax.vmap(at)(*here), noise=self.noise,
            matrix=matrix / 2, vector=vector, scalar=scalar,
            final_matrix=final / 2, final_vector=ends[1][:n], final_scalar=ends[0],
            initial_mean=self.initial_mean, initial_cov=self.initial_cov,
        )  # fmt: skip


def derivatives(function: Callable[..., Array]) -> tuple[Callable[..., Array], ...]:
    """A function of a vector and the time, its gradient and its Hessian."""
    return function, jax.grad(function), jax.hessian(function)


def check_whole(name: str, number: Any) -> int:
    """A whole number of at least 1.

    Raises:
        TypeError: It is none.
        ValueError: It is below 1.
    """
    if isinstance(number, bool) or not isinstance(number, int | np.integer):
        raise TypeError(f"{name} must be a whole number; got {number!r}.")
    if number < 1:
        raise ValueError(f"{name} is {number}: it must be at least 1.")
    return int(number)


def covariance(name: str, given: ArrayLike | None, n: int) -> Float[Array, "n n"]:
    """A covariance of the state; None: 0.

    Raises:
        TypeError, ValueError: It is none.
    """
    if given is None:
        return jnp.zeros((n, n))
    array = checks.as_reals(name, given)
    checks.check_shape(name, array.shape, [(n, n)], "initial_mean", (n,))
    checks.check_finite(name, array)
    matrices.check_semidefinite(name, array, 1)
    return matrices.symmetric(array)


def limits(given: ArrayLike, m: int) -> Float[Array, " m"]:
    """The limits of the action.

    Raises:
        TypeError, ValueError: They are none.
    """
    array = checks.as_reals("action_limit", given)
    checks.check_shape("action_limit", array.shape, [(), (m,)], "num_actions", (m,))
    if checks.is_concrete(array) and not bool(jnp.all(array > 0)):
        raise ValueError(f"action_limit is {np.asarray(array)}: give numbers above 0, inf where there is no limit.")
    return jnp.broadcast_to(array, (m,))


def check_functions(task: Dynamics) -> None:
    """Raise where the step gives no state, or the cost no number.

    Raises:
        ValueError: So it is.
    """
    for name, function, shape in (("step", task.step, task.initial_mean.shape), ("cost", task.cost, ())):
        try:
            found = jax.eval_shape(lambda f=function: f(task.initial_mean, jnp.zeros_like(task.action_limit), 0))
        except (TypeError, ValueError, IndexError) as error:
            raise ValueError(
                f"{name}(x, u, t) does not run with x of shape {task.initial_mean.shape}, u of shape "
                f"{task.action_limit.shape} and t = 0: {error}"
            ) from error
        if getattr(found, "shape", None) != shape or not jnp.issubdtype(found.dtype, jnp.floating):
            raise ValueError(f"{name}(x, u, t) returns {found}; it must be real, of shape {shape}.")
