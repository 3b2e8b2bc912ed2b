"""Laws of the state that a bound measures from, tilted: what makes a bound on states a factor of the step.

Let q_t be such a law, and p_t = q_t exp(tilt_t - A_t) another one, with A_t = log E_q exp(tilt_t). With multipliers
alpha of the bounds KL(mu pi || q_t(x) prior) <= eps_t and beta of E log pi <= delta_t, the value

    V_t = (alpha + beta) log E_prior exp((R - alpha (tilt - A) - beta log prior + E V_{t+1}) / (alpha + beta))

is that of the program whose step pays two factors more, at the inverse temperature 1 / (alpha + beta). Its least value
over p is where p_t is the state's law mu_t under its policy: -alpha KL(mu || q) = min_p -alpha E_mu log(p / q).
"""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlinf_ppl.algebra.quadratics import Gaussian
from rlinf_ppl.algebra.small_matrices import cholesky, inverse
from rlinf_ppl.program.supports import Support, positions_of

Tilt = Any

# How much smaller, on the log scale, a probability may become at once.
FARTHEST = 2.0


class Laws(eqx.Module):
    """The laws q_t, (T, ...), of which tilts are made."""

    @abstractmethod
    def nothing(self) -> Tilt:
        """The tilt of no change, over time."""

    @abstractmethod
    def moments(self, state: Any) -> Tilt:
        """What E tilt is linear in, of laws of the state, over time: E tilt = <tilt, moments>."""

    @abstractmethod
    def tilted(self, tilt: Tilt) -> tuple[Float[Array, " T"], Tilt]:
        """A_t, and the moments of p_t; NaN where p_t is no law."""

    @abstractmethod
    def kl(self, moments: Tilt) -> Float[Array, " T"]:
        """KL from q_t of the laws with these moments, in nats."""

    def moved(self, tilt: Tilt, step: Tilt) -> Tilt:
        """Tilts after a step, to first order the sum of both."""
        return jax.tree.map(jnp.add, tilt, step)

    @abstractmethod
    def read(self) -> Any:
        """What `log_ratio` reads at a time: arrays over time."""

    @staticmethod
    @abstractmethod
    def log_ratio(supports: tuple[tuple[str, Support], ...], own: Any, tilt: Tilt, state: dict[str, Any]) -> Array:
        """The tilt of one time at a state."""


class OfTables(Laws):
    """Laws of finite variables: tables, and so are tilts.

    Attributes:
        q: (T, states).
    """

    q: Float[Array, "T ..."]

    def nothing(self) -> Tilt:
        """0 everywhere."""
        return jnp.zeros_like(self.q)

    def moments(self, state: Any) -> Tilt:
        """The probabilities."""
        return jnp.where(self.q > 0, state, 0.0)

    def tilted(self, tilt: Tilt) -> tuple[Float[Array, " T"], Tilt]:
        """By a sum over the states that q leads to."""
        flat = jnp.where(self.q > 0, jnp.log(jnp.where(self.q > 0, self.q, 1.0)) + tilt, -jnp.inf)
        total = jax.nn.logsumexp(flat.reshape(len(flat), -1), -1)
        return total, jnp.exp(flat - total.reshape(-1, *[1] * (flat.ndim - 1)))

    def kl(self, moments: Tilt) -> Float[Array, " T"]:
        """By a sum over the states that q leads to."""
        known = (moments > 0) & (self.q > 0)
        ratio = jnp.log(jnp.where(known, moments, 1.0)) - jnp.log(jnp.where(known, self.q, 1.0))
        return jnp.sum((jnp.where(known, moments, 0.0) * ratio).reshape(len(ratio), -1), -1)

    def natural(self, tilt: Tilt, moments: Tilt) -> Tilt:
        """By the probabilities' own scale; a constant changes nothing, and is taken out."""
        p = self.tilted(tilt)[1]
        change = jnp.where(p > 0, moments / jnp.where(p > 0, p, 1.0), 0.0)
        axes = tuple(range(1, p.ndim))
        return jnp.where(p > 0, change - jnp.sum(p * change, axes, keepdims=True), 0.0)

    def moved(self, tilt: Tilt, step: Tilt) -> Tilt:
        """Newton's step mu / p - 1 towards a larger probability mu is what log(mu / p) is to first order."""
        return tilt + jnp.where(step > 0, jnp.log1p(jnp.maximum(step, 0.0)), jnp.maximum(step, -FARTHEST))

    def read(self) -> Any:
        """Nothing."""
        return ()

    @staticmethod
    def log_ratio(supports: tuple[tuple[str, Support], ...], own: Any, tilt: Tilt, state: dict[str, Any]) -> Array:
        """An entry of a table."""
        return tilt[tuple(positions_of(support, state[name]) for name, support in supports)]


class OfVectors(Laws):
    """Gaussian laws; tilts are quadratics slope' z - z' curvature z / 2 of z = whiten (x - mean).

    Attributes:
        mean: (T, n).
        root: of the covariance, lower triangular, (T, n, n).
        whiten: its inverse, (T, n, n).
    """

    mean: Float[Array, "T n"]
    root: Float[Array, "T n n"]
    whiten: Float[Array, "T n n"]

    def nothing(self) -> Tilt:
        """No slope and no curvature."""
        return jnp.zeros_like(self.mean), jnp.zeros_like(self.whiten)

    def moments(self, state: Any) -> Tilt:
        """E z and -E z z' / 2."""
        mean = jnp.einsum("tij,tj->ti", self.whiten, state.mean - self.mean)
        return moments_of(Gaussian(mean, self.whiten @ state.cov @ jnp.swapaxes(self.whiten, 1, 2)))

    def tilted(self, tilt: Tilt) -> tuple[Float[Array, " T"], Tilt]:
        """P has the precision I + curvature."""
        p = self.law(tilt)
        pivots = self._inverse(tilt[1])[1]
        return (jnp.sum(tilt[0] * p.mean, -1) - jnp.sum(jnp.log(pivots), -1)) / 2, moments_of(p)

    def law(self, tilt: Tilt) -> Gaussian:
        """The law of z."""
        cov = self._inverse(tilt[1])[0]
        return Gaussian(jnp.einsum("tij,tj->ti", cov, tilt[0]), cov)

    def kl(self, moments: Tilt) -> Float[Array, " T"]:
        """Of z from N(0, I)."""
        mean, second = moments
        cov = -2 * second - mean[:, :, None] * mean[:, None]
        pivots = jax.vmap(lambda cov: inverse(cov)[1])(cov)
        trace = jnp.trace(cov, axis1=1, axis2=2)
        return 0.5 * (trace + jnp.sum(mean**2, -1) - mean.shape[1] - jnp.sum(jnp.log(pivots), -1))

    def read(self) -> Any:
        """The mean and what whitens."""
        return self.mean, self.whiten

    @staticmethod
    def log_ratio(supports: tuple[tuple[str, Support], ...], own: Any, tilt: Tilt, state: dict[str, Any]) -> Array:
        """A quadratic."""
        x = jnp.concatenate([jnp.atleast_1d(state[name]) for name, _ in supports])
        z = own[1] @ (x - own[0])
        return tilt[0] @ z - z @ tilt[1] @ z / 2

    def _inverse(self, curvature: Array) -> tuple[Array, Array]:
        cov, pivots = jax.vmap(inverse)(jnp.eye(curvature.shape[1])[None] + curvature)
        possible = jnp.all(pivots > 0, -1, keepdims=True)
        return jnp.where(possible[..., None], cov, jnp.nan), jnp.where(possible, pivots, jnp.nan)


def of_vectors(states: Gaussian) -> OfVectors:
    """Gaussian laws by mean (T, n) and covariance (T, n, n); whitening is infinite where a covariance is singular."""
    roots = jax.vmap(cholesky)(states.cov)
    return OfVectors(states.mean, roots, jax.vmap(lambda root: inverse(root)[0])(roots))


def moments_of(p: Gaussian) -> Tilt:
    """E z and -E z z' / 2 of laws of z."""
    return p.mean, -(p.cov + p.mean[:, :, None] * p.mean[:, None]) / 2


def sum_of_products(one: Tilt, other: Tilt) -> Float[Array, " T"]:
    """<one, other> at each time."""
    products = jax.tree.map(lambda a, b: jnp.sum((a * b).reshape(len(a), -1), -1), one, other)
    first, *rest = jax.tree.leaves(products)
    return jnp.asarray(sum(rest, first))
