"""Systems to swing up, and one to regulate, with the numbers of the public trajectory optimiser trajopt (Abdulsamad).

A chain of N links hangs from a pivot, with a motor in every joint. In absolute angles phi from the downward vertical,

    (D o cos(phi_i - phi_j) + diag(I)) phi'' + (D o sin(phi_i - phi_j)) phi'^2 + g p o sin(phi) = torques

where D_ij = sum_k m_k r_ki r_kj and p_j = sum_k m_k r_kj, with r_kj the length of link j that carries the centre of
mass of link k: all of it for j < k, the part up to the centre for j = k. The state holds the angle of the first link
from the upright, those of the others from the link before, and their speeds; friction acts in the joints. Time is
integrated by the classic Runge-Kutta method.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rlinf_ppl.algebra.small_matrices import inverse
from rlinf_ppl.tasks.dynamics import Dynamics
from rlinf_ppl.types import ArrayLike

GRAVITY = 9.81


class Links(eqx.Module):
    """One time step of a chain of N links, with a state of D = 2 N numbers.

    Attributes:
        masses: In kg.
        lengths: In m.
        centers: Distance of the centre of mass from the joint, in m.
        inertias: About the centre of mass, in kg m^2.
        frictions: Of the joints, in N m s.
        time_step: In s.
    """

    masses: Float[Array, " N"]
    lengths: Float[Array, " N"]
    centers: Float[Array, " N"]
    inertias: Float[Array, " N"]
    frictions: Float[Array, " N"]
    time_step: Float[Array, ""]

    def __call__(self, x: Float[Array, " D"], u: Float[Array, " N"], t: Any) -> Float[Array, " D"]:
        """The state one time step later, with constant torques."""
        h = self.time_step
        return runge_kutta(lambda x: self.rate(x, u), x, h)

    def rate(self, x: Float[Array, " D"], u: Float[Array, " N"]) -> Float[Array, " D"]:
        """The derivative of the state in time."""
        n = len(self.masses)
        phi, speed = jnp.cumsum(x[:n]) + jnp.pi, jnp.cumsum(x[n:])
        below = jnp.tril(jnp.ones((n, n)), -1)
        arm = below * self.lengths[None] + jnp.diag(self.centers)
        carried = arm.T @ (self.masses[:, None] * arm)
        apart = phi[:, None] - phi[None]
        torque = u - self.frictions * x[n:]
        # A motor pushes its link and what carries it, the other way.
        pushed = torque - jnp.append(torque[1:], 0.0)
        pull = GRAVITY * (self.masses @ arm) * jnp.sin(phi)
        force = pushed - (carried * jnp.sin(apart)) @ speed**2 - pull
        turned = inverse(carried * jnp.cos(apart) + jnp.diag(self.inertias))[0] @ force
        return jnp.concatenate([x[n:], turned - jnp.append(0.0, turned[:-1])])

    def joints(self, x: Float[Array, " D"]) -> Float[Array, "N_plus_1 2"]:
        """Where the pivot, the joints and the end are, in m to the right and up; angles turn counterclockwise."""
        phi = jnp.cumsum(x[: len(self.masses)]) + jnp.pi
        ends = jnp.cumsum(self.lengths[:, None] * jnp.stack([jnp.sin(phi), -jnp.cos(phi)], -1), 0)
        return jnp.concatenate([jnp.zeros((1, 2)), ends])


class CartPole(eqx.Module):
    """One time step of a pole on a cart: the state is (position, angle from the upright, and their speeds).

    Attributes:
        cart_mass: In kg.
        pole_mass: In kg, at the end of the pole.
        length: Of the pole, in m.
        time_step: In s.
    """

    cart_mass: Float[Array, ""]
    pole_mass: Float[Array, ""]
    length: Float[Array, ""]
    time_step: Float[Array, ""]

    def __call__(self, x: Float[Array, "4"], u: Float[Array, "1"], t: Any) -> Float[Array, "4"]:
        """The state one time step later, with a constant force on the cart."""
        return runge_kutta(lambda x: self.rate(x, u[0]), x, self.time_step)

    def rate(self, x: Float[Array, "4"], force: Float[Array, ""]) -> Float[Array, "4"]:
        """The derivative of the state in time."""
        sin, cos, m = jnp.sin(x[1]), jnp.cos(x[1]), self.pole_mass
        pushed = force + m * self.length * sin * x[3] ** 2
        cart = (pushed - m * GRAVITY * sin * cos) / (self.cart_mass + m * sin**2)
        turned = (GRAVITY * sin - cart * cos) / self.length
        return jnp.stack([x[2], x[3], cart, turned])

    def joints(self, x: Float[Array, "4"]) -> Float[Array, "2 2"]:
        """Where the cart and the end of the pole are, in m to the right and up."""
        cart = jnp.stack([x[0], jnp.zeros_like(x[0])])
        return jnp.stack([cart, cart + self.length * jnp.stack([jnp.sin(x[1]), jnp.cos(x[1])])])


class QuadraticCost(eqx.Module):
    """A quadratic cost a_t (x - goal)' diag(state_weights) (x - goal) + u' diag(action_weights) u.

    Attributes:
        goal: Where the state's cost is 0.
        state_weights: Of each entry of the state, in units of reward.
        action_weights: Of each entry of the action.
        sharpness: a_t = 1 / (1 + exp(-sharpness (t - onset))): how suddenly the state's cost sets in.
        onset: When it is half there; minus infinity: it is there from the beginning.
    """

    goal: Float[Array, " n"]
    state_weights: Float[Array, " n"]
    action_weights: Float[Array, " m"]
    sharpness: Float[Array, ""]
    onset: Float[Array, ""]

    def __call__(self, x: Float[Array, " n"], u: Float[Array, " m"], t: Any) -> Float[Array, ""]:
        """The cost of a step."""
        away = jnp.sum(self.state_weights * (x - self.goal) ** 2)
        return self.activation(t) * away + jnp.sum(self.action_weights * u**2)

    def activation(self, t: Any) -> Float[Array, ""]:
        """How much of the state's cost counts."""
        return 1 / (1 + jnp.exp(-self.sharpness * (t - self.onset)))


class CartPoleCost(eqx.Module):
    """10 position^2 + 1e4 ((cos - 1)^2 + sin^2) + speeds^2 + action_weight force^2."""

    action_weight: Float[Array, ""]

    def __call__(self, x: Float[Array, "4"], u: Float[Array, "1"], t: Any) -> Float[Array, ""]:
        """The cost of a step."""
        upright = (jnp.cos(x[1]) - 1) ** 2 + jnp.sin(x[1]) ** 2
        return 10 * x[0] ** 2 + 1e4 * upright + jnp.sum(x[2:] ** 2) + self.action_weight * u[0] ** 2


class Regulated(eqx.Module):
    """x' = A (x - goal) + B u."""

    A: Float[Array, "n n"]
    B: Float[Array, "n m"]
    goal: Float[Array, " n"]

    def __call__(self, x: Float[Array, " n"], u: Float[Array, " m"], t: Any) -> Float[Array, " n"]:
        """The next state."""
        return self.A @ (x - self.goal) + self.B @ u


def runge_kutta(rate: Any, x: Float[Array, " n"], h: Float[Array, ""]) -> Float[Array, " n"]:
    """The solution of x' = rate(x) after a time h, to fourth order."""

    def stage(slope: Array, part: Array) -> tuple[Array, Array]:
        slope = rate(x + part * h * slope)
        return slope, slope

    # In a loop, the derivatives of the rate are compiled once.
    slopes = lax.scan(stage, jnp.zeros_like(x), jnp.array([0.0, 0.5, 0.5, 1.0]))[1]
    return x + h / 6 * (slopes[0] + 2 * slopes[1] + 2 * slopes[2] + slopes[3])


def cost(goal: ArrayLike, states: ArrayLike, actions: ArrayLike, onset: float | None = None) -> QuadraticCost:
    """A quadratic cost of numbers; from the beginning, or setting in at a time."""
    since = -jnp.inf if onset is None else onset
    return QuadraticCost(*(jnp.asarray(x, float) for x in (goal, states, actions, 1.0, since)))


def links(n: int, inertia: float, friction: float, time_step: float) -> Links:
    """Links of 1 kg and 1 m, with their centre of mass in the middle."""
    one = jnp.ones(n)
    return Links(one, one, one / 2, inertia * one, friction * one, jnp.asarray(time_step))


def regulator(horizon: int = 60) -> Dynamics:
    """Trajopt's LQR-TO-v0: a linear system that drifts off its goal (10, 10), from (5, 5), with a quadratic cost.

    x' = A (x - goal) + B u with A = [[1.1, 0], [1, 1]] and B = (1, 0)'; the cost is .1 (u^2 + 10 |x - goal|^2).
    """
    goal = jnp.array([10.0, 10.0])
    system = Regulated(jnp.array([[1.1, 0.0], [1.0, 1.0]]), jnp.array([[1.0], [0.0]]), goal)
    cov, noise = 1e-2 * jnp.eye(2), 1e-8 * jnp.eye(2)
    return Dynamics(system, cost(goal, [1.0, 1.0], [0.1]), horizon, [5.0, 5.0], 1, cov, noise)


def pendulum(horizon: int = 100) -> Dynamics:
    """Trajopt's Pendulum-TO-v0: a rod of 1 kg and 1 m to be swung up by a torque of at most 10 N m.

    The state is (angle from the upright, speed), the time step .05 s, the cost that of the state from step 80 on.
    """
    system = links(1, 1 / 12, 1e-3, 0.05)
    away = cost([0.0, 0.0], [1.0, 0.1], [1.0], 80.0)
    return Dynamics(system, away, horizon, [jnp.pi, 0.0], 1, 1e-4 * jnp.eye(2), 1e-4 * jnp.eye(2), 10.0)


def double_pendulum(horizon: int = 100) -> Dynamics:
    """Trajopt's DoublePendulum-TO-v0: two links with a motor of at most 10 N m in each joint, to be swung up.

    A link's inertia about its centre is 1.0001 / 3 kg m^2 there, four times that of a rod.
    """
    away = cost(jnp.zeros(4), [1e4, 1e4, 1.0, 1.0], [1.0, 1.0], 80.0)
    return hanging(2, away, horizon, 10.0)


def quad_pendulum(horizon: int = 100) -> Dynamics:
    """Trajopt's QuadPendulum-TO-v0: four links with a motor of at most 25 N m in each joint, to be swung up."""
    away = cost(jnp.zeros(8), [1e4] * 4 + [1.0] * 4, [1e-5] * 4)
    return hanging(4, away, horizon, 25.0)


def hanging(n: int, away: QuadraticCost, horizon: int, limit: float) -> Dynamics:
    """A chain of n links that hangs at rest."""
    system = links(n, (1 + 1e-4) / 3, 0.025, 0.05)
    start = jnp.zeros(2 * n).at[0].set(jnp.pi)
    return Dynamics(system, away, horizon, start, n, 1e-4 * jnp.eye(2 * n), 1e-8 * jnp.eye(2 * n), limit)


def cart_pole(horizon: int = 150) -> Dynamics:
    """A pole of .1 kg at the end of .5 m on a cart of 1 kg, to be swung up by a force of at most 20 N.

    The state is (position, angle from the upright, and their speeds), the time step .02 s. The cost is that of
    trajopt's Cartpole-TO-v1, whose angles count by their sine and cosine.
    """
    system = CartPole(*(jnp.asarray(x) for x in (1.0, 0.1, 0.5, 0.02)))
    start, cov = [0.0, jnp.pi, 0.0, 0.0], 1e-4 * jnp.eye(4)
    return Dynamics(system, CartPoleCost(jnp.asarray(1.0)), horizon, start, 1, cov, 1e-8 * jnp.eye(4), 20.0)
