"""What is known of a nonlinear system: its derivatives, or trajectories sampled from it."""

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from rlinf_ppl.algebra.quadratics import AffinePolicy
from rlinf_ppl.algebra.small_matrices import inverse
from rlinf_ppl.inference.arguments import check_count, check_key
from rlinf_ppl.inference.local.roll_outs import Trajectory, mean_trajectory, sampled_trajectories
from rlinf_ppl.tasks import Dynamics, Expansion


class Observed(NamedTuple):
    """What was seen of a system under a policy.

    Attributes:
        mean: the trajectory that the system is expanded about, and what it is thought to cost.
        samples: trajectories with a leading axis, where there are any.
    """

    mean: Trajectory
    samples: Trajectory | None


class Knowledge(eqx.Module):
    """How a system is observed under a policy, and expanded about what was seen."""

    @abstractmethod
    def observe(self, dynamics: Dynamics, policy: AffinePolicy, iteration: Array) -> Observed:
        """What is seen under a policy in one iteration."""

    @abstractmethod
    def expand(self, dynamics: Dynamics, seen: Observed) -> Expansion:
        """The system about that."""


class Derivatives(Knowledge):
    """The system is known: the trajectory without noise, with derivatives by JAX.

    Attributes:
        concave: whether rewards are expanded as concave ones (see `Dynamics.expand`).
    """

    concave: bool = eqx.field(static=True, default=False)

    def observe(self, dynamics: Dynamics, policy: AffinePolicy, iteration: Array) -> Observed:
        """The trajectory without noise."""
        return Observed(mean_trajectory(dynamics, policy), None)

    def expand(self, dynamics: Dynamics, seen: Observed) -> Expansion:
        """`Dynamics.expand`."""
        return dynamics.expand(seen.mean.states, seen.mean.actions, concave=self.concave)


class Samples(Knowledge):
    """The system is sampled: its derivatives are least squares over trajectories, about their mean.

    With z = [x, u] and S the covariances over the trajectories at one time, [A, B] = S_x'z (S_zz + ridge diag(S_zz))^-1
    and the noise is what that leaves of S_x'x'; the cost is known, and what counts as cost is the mean over the
    trajectories. Fresh trajectories are drawn in every iteration.

    Attributes:
        key: a JAX random key.
        num_samples: trajectories an iteration, at least n + m + 2 of them.
        ridge: how much variances are enlarged, relative to themselves: a prior that nothing depends on anything.
        concave: as in `Derivatives`.
    """

    key: PRNGKeyArray | Array
    num_samples: int = eqx.field(static=True)
    ridge: Float[Array, ""]
    concave: bool = eqx.field(static=True)

    def __init__(self, key: PRNGKeyArray | Array, num_samples: int, ridge: float = 1e-6, concave: bool = False):
        self.concave = concave
        self.key, self.num_samples = check_key(key), check_count("num_samples", num_samples)
        self.ridge = jnp.asarray(ridge, float)
        if not float(ridge) > 0:
            raise ValueError(f"ridge is {ridge:g}: it must be above 0.")

    def observe(self, dynamics: Dynamics, policy: AffinePolicy, iteration: Array) -> Observed:
        """Sampled trajectories, and their mean."""
        least = dynamics.num_states + dynamics.num_actions + 2
        if self.num_samples < least:
            raise ValueError(
                f"num_samples is {self.num_samples}: {dynamics.num_states} states and {dynamics.num_actions} actions "
                f"take at least {least} trajectories to fit, and more to fit well."
            )
        samples = sampled_trajectories(dynamics, jax.random.fold_in(self.key, iteration), policy, self.num_samples)
        return Observed(Trajectory(*(jnp.mean(x, 0) for x in samples)), samples)

    def expand(self, dynamics: Dynamics, seen: Observed) -> Expansion:
        """The system by least squares, the cost by its derivatives."""
        assert seen.samples is not None
        about, n = dynamics.expand(seen.mean.states, seen.mean.actions, concave=self.concave), dynamics.num_states
        states, actions = seen.samples.states, seen.samples.actions
        joint = jnp.concatenate([states[:, :-1], actions, states[:, 1:]], -1)
        slopes, noise = jax.vmap(lambda x: regress(x, n, self.ridge), 1)(joint)
        moved = slopes[..., :n], slopes[..., n:], seen.mean.states[1:], noise
        return eqx.tree_at(lambda each: (each.A, each.B, each.reached, each.noise), about, moved)


def regress(
    joint: Float[Array, "N K"], n: int, ridge: Float[Array, ""]
) -> tuple[Float[Array, "n J"], Float[Array, "n n"]]:
    """The slopes of the last n columns in the others, and the covariance of what is left."""
    apart = joint - jnp.mean(joint, 0, keepdims=True)
    z, y = apart[:, :-n], apart[:, -n:]
    spread = jnp.sum(z**2, 0)
    # Coordinates in units of their own deviation: without units, and nearly singular systems stay solvable.
    unit = jnp.sqrt(jnp.where(spread > 0, spread, 1.0))
    scaled = z / unit[None]
    inner = inverse(scaled.T @ scaled + ridge * jnp.eye(z.shape[1]))[0]
    slopes = (inner @ (scaled.T @ y)).T / unit[None]
    left = y - z @ slopes.T
    return slopes, left.T @ left / max(len(joint) - z.shape[1] - 1, 1)
