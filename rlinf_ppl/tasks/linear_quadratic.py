"""A linear-quadratic control problem with Gaussian noise.

    x_1 ~ N(m_1, S_1),      x_{t+1} ~ N(A_t x_t + B_t u_t + c_t, W_t)
    reward  (x_t - z_t)' M_t (x_t - z_t) + u_t' H_t u_t,      at the end  (x_T - z_T)' M_T (x_T - z_T)

with M and H negative semidefinite, and no factor of one half (Todorov & Li 2005 minimise; here rewards are maximised).
"""

from typing import Any, final

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlinf_ppl.tasks import checks, matrices
from rlinf_ppl.types import ArrayLike


@final
class LinearQuadratic(eqx.Module):
    """A linear-quadratic-Gaussian task: data only, immutable, checked when it is made.

    Every array but the first state's may lead with time, of length T, or T + 1 for `state_reward` and `goal`, whose
    last entry counts at the end; without time it is constant.

    Attributes:
        A: How the next state depends on the state.
        B: How the next state depends on the action.
        c: Drift.
        noise: Covariance W of the next state.
        state_reward: M, negative semidefinite, in units of reward.
        action_reward: H, negative semidefinite, in units of reward.
        goal: z, where the state's reward is 0.
        initial_mean: Mean of the first state.
        initial_cov: Covariance of the first state.
    """

    A: Float[Array, "n n"] | Float[Array, "T n n"]
    B: Float[Array, "n m"] | Float[Array, "T n m"]
    c: Float[Array, " n"] | Float[Array, "T n"]
    noise: Float[Array, "n n"] | Float[Array, "T n n"]
    state_reward: Float[Array, "n n"] | Float[Array, "T_plus_1 n n"]
    action_reward: Float[Array, "m m"] | Float[Array, "T m m"]
    goal: Float[Array, " n"] | Float[Array, "T_plus_1 n"]
    initial_mean: Float[Array, " n"]
    initial_cov: Float[Array, "n n"]

    def __init__(
        self,
        A: ArrayLike,
        B: ArrayLike,
        c: ArrayLike,
        noise: ArrayLike,
        state_reward: ArrayLike,
        action_reward: ArrayLike,
        goal: ArrayLike,
        initial_mean: ArrayLike,
        initial_cov: ArrayLike,
    ) -> None:
        """Make a task of matrices; they become float32, or float64 where JAX has x64 on.

        Args:
            A: Shape (n, n) or (T, n, n).
            B: Shape (n, m) or (T, n, m).
            c: Shape (n,) or (T, n).
            noise: Positive semidefinite, shape (n, n) or (T, n, n).
            state_reward: Negative semidefinite, shape (n, n) or (T + 1, n, n).
            action_reward: Negative semidefinite, shape (m, m) or (T, m, m).
            goal: Shape (n,) or (T + 1, n).
            initial_mean: Shape (n,).
            initial_cov: Positive semidefinite, shape (n, n).

        Raises:
            TypeError: An array does not hold real numbers.
            ValueError: Shapes or lengths in time do not match, a number is not finite, a matrix is not symmetric or has
                an eigenvalue of the wrong sign. Under JAX's transformations, traced values are not checked.
        """
        given: dict[str, Any] = {
            "A": A, "B": B, "c": c, "noise": noise, "state_reward": state_reward, "action_reward": action_reward,
            "goal": goal, "initial_mean": initial_mean, "initial_cov": initial_cov,
        }  # fmt: skip
        arrays = {name: checks.as_reals(name, value) for name, value in given.items()}
        check_system(arrays)
        for name in ("noise", "initial_cov"):
            matrices.check_semidefinite(name, arrays[name], 1)
        for name in ("state_reward", "action_reward"):
            matrices.check_semidefinite(name, arrays[name], -1)
        for name, array in arrays.items():
            square = name in ("noise", "initial_cov", "state_reward", "action_reward")
            setattr(self, name, matrices.symmetric(array) if square else array)

    @property
    def num_states(self) -> int:
        """The dimension n of the state."""
        return self.A.shape[-1]

    @property
    def num_actions(self) -> int:
        """The dimension m of the action."""
        return self.B.shape[-1]

    @property
    def horizon(self) -> int | None:
        """The number of steps T where anything varies in time, else None."""
        steps = [array.shape[0] for array, rank in self._ranks(False) if array.ndim > rank]
        steps += [array.shape[0] - 1 for array, rank in self._ranks(True) if array.ndim > rank]
        return steps[0] if steps else None

    def _ranks(self, last: bool) -> list[tuple[Array, int]]:
        """Arrays with their number of axes without time; those with an entry for the end, or the others."""
        if last:
            return [(self.state_reward, 2), (self.goal, 1)]
        return [(self.A, 2), (self.B, 2), (self.c, 1), (self.noise, 2), (self.action_reward, 2)]


def check_system(arrays: dict[str, Array]) -> None:
    """Raise where the shapes of a system do not fit together, or a number is not finite."""
    first, second = arrays["A"], arrays["B"]
    for name, array in (("A", first), ("B", second)):
        if array.ndim not in (2, 3):
            raise ValueError(f"{name} has shape {array.shape}: it must be a matrix, or (T, rows, columns).")
    n, m = first.shape[-2], second.shape[-1]
    steps: int | None = None
    for name, shape in {"A": (n, n), "B": (n, m), "c": (n,), "noise": (n, n), "action_reward": (m, m)}.items():
        steps = matrices.check_sizes(name, arrays[name], shape, steps, "A and B" if name != "A" else "A")
    instants = None if steps is None else steps + 1
    for name, shape in {"state_reward": (n, n), "goal": (n,)}.items():
        instants = matrices.check_sizes(name, arrays[name], shape, instants, "A")
    for name, shape in {"initial_mean": (n,), "initial_cov": (n, n)}.items():
        checks.check_shape(name, arrays[name].shape, [shape], "A", first.shape)
        checks.check_finite(name, arrays[name])
    if min(n, m) == 0 or 0 in (steps, instants) or jnp.size(first) == 0:
        raise ValueError(f"A has shape {first.shape} and B {second.shape}: a task needs at least one of everything.")
