"""The law of a site at one point: over finitely many values, Gaussian, or any that NumPyro can draw from and score.

A law is a pytree: a trace returns its numbers and keeps its structure. Finite and Gaussian laws draw from noise that is
made for all sites together, and have the forms that tables and quadratics are read from; every other law stays the
distribution that the user wrote, and draws from a random key.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jaxtyping import Array

from rlinf_ppl.algebra.tables import ROW_TOLERANCE
from rlinf_ppl.program.data import log_prob_on_support
from rlinf_ppl.program.families import base_of, is_no_law, is_reparameterised, moved_by, num_parameters
from rlinf_ppl.program.finite import IMPOSSIBLE, Finite, Rowed
from rlinf_ppl.program.supports import FiniteSupport, Real, Support, of_arrays, positions_of, values_of


class SiteLaw(eqx.Module):
    """The law of one site at one point."""

    @property
    @abc.abstractmethod
    def num_normals(self) -> int | None:
        """How many standard normals a draw takes; 0: one uniform, None: a random key."""

    @property
    @abc.abstractmethod
    def reparameterised(self) -> bool:
        """Whether a draw moves along with the numbers that the law is made of."""

    @abc.abstractmethod
    def draw(self, noise: Array) -> Array:
        """A value, from what `num_normals` asks for."""

    @abc.abstractmethod
    def noise_density(self, value: Array) -> tuple[Array, Array]:
        """Log density of what has noise of its own, and whether all else is, to the last bit, what the law says."""

    @abc.abstractmethod
    def is_wrong(self) -> Array:
        """Whether its numbers are no law."""

    @abc.abstractmethod
    def moved(self, theta: Array) -> "SiteLaw":
        """The law moved by parameters, at 0 itself."""

    @property
    @abc.abstractmethod
    def num_parameters(self) -> int:
        """How many parameters move it."""

    @property
    @abc.abstractmethod
    def distribution(self) -> dist.Distribution:
        """It as NumPyro has it."""

    def log_prob(self, value: Array) -> Array:
        """Log density of a value; what has no noise of its own counts as certain."""
        total, certain = self.noise_density(value)
        return jnp.where(certain, total, -jnp.inf)


class FiniteLaw(SiteLaw):
    """Probabilities (K,) of finitely many values, exact at zero."""

    probs: Array
    support: FiniteSupport = eqx.field(static=True)

    @property
    def num_normals(self) -> int:
        """None: a uniform is enough."""
        return 0

    @property
    def reparameterised(self) -> bool:
        """A value jumps, whatever moves its probabilities."""
        return False

    def draw(self, noise: Array) -> Array:
        """The first value whose cumulated probability exceeds a uniform.

        What has probability 0 is never drawn, whatever the rounding of the sums.
        """
        return values_of(self.support)[first_beyond(noise[None], self.probs)]

    def noise_density(self, value: Array) -> tuple[Array, Array]:
        """The log probability."""
        return jnp.log(self.probs[positions_of(self.support, value)]), jnp.asarray(True)

    def is_wrong(self) -> Array:
        """Whether a probability is below 0, or their sum is not 1."""
        return ~((jnp.abs(jnp.sum(self.probs) - 1) <= ROW_TOLERANCE) & (jnp.min(self.probs) >= 0))

    def tilted(self, tilt: Array) -> tuple["FiniteLaw", Array]:
        """The law p exp(tilt) / Z, and log Z."""
        law = self.probs
        known = jnp.where((law > 0) & ~jnp.isnan(tilt), tilt, -jnp.inf)
        peak = jnp.max(known)
        peak = jnp.where(jnp.isfinite(peak), peak, 0.0)
        weights = law * jnp.exp(known - peak)
        total = jnp.sum(weights)
        made = jnp.where(total > 0, weights / jnp.where(total > 0, total, 1.0), law)
        return FiniteLaw(made, self.support), peak + jnp.log(total)

    def moved(self, theta: Array) -> "FiniteLaw":
        """The law p exp(theta) / Z."""
        # What is no number must not pass for a tilt of nothing.
        tilted, _ = self.tilted(theta)
        return FiniteLaw(jnp.where(jnp.any(jnp.isnan(theta)), jnp.nan, tilted.probs), self.support)

    @property
    def num_parameters(self) -> int:
        """One for each value."""
        return len(self.support)

    @property
    def distribution(self) -> dist.Distribution:
        """Over the values themselves."""
        log_p = jnp.where(self.probs == 0, IMPOSSIBLE, jnp.log(jnp.where(self.probs == 0, 1.0, self.probs)))
        return Finite(log_p, values_of(self.support))


class GaussianLaw(SiteLaw):
    """A mean (n,) beside a lower triangular factor (n, n) of the covariance, for values of some shape."""

    mean: Array
    factor: Array
    support: Real = eqx.field(static=True)

    @property
    def num_normals(self) -> int:
        """One for each coordinate."""
        return len(self.support)

    @property
    def reparameterised(self) -> bool:
        """It moves with its mean and factor."""
        return True

    def draw(self, noise: Array) -> Array:
        """The mean and the factor times the normals."""
        return jnp.reshape(self.mean + jnp.sum(self.factor * noise[None], -1), self.support.shape)

    def noise_density(self, value: Array) -> tuple[Array, Array]:
        """Coordinate by coordinate; one whose scale is 0 is certain."""
        rest, total, certain = jnp.reshape(value, -1) - self.mean, jnp.zeros(()), jnp.asarray(True)
        for k in range(len(self.support)):
            scale = self.factor[k, k]
            noise = rest[k] / jnp.where(scale > 0, scale, 1.0)
            density = -0.5 * (noise**2 + jnp.log(2 * jnp.pi)) - jnp.log(jnp.where(scale > 0, scale, 1.0))
            total, certain = total + jnp.where(scale > 0, density, 0.0), certain & ((scale > 0) | (rest[k] == 0))
            rest = rest - self.factor[:, k] * jnp.where(scale > 0, noise, 0.0)
        return total, certain

    def is_wrong(self) -> Array:
        """Whether a number is not finite, or a scale below 0."""
        finite = jnp.all(jnp.isfinite(self.mean)) & jnp.all(jnp.isfinite(self.factor))
        return ~finite | jnp.any(jnp.diagonal(self.factor) < 0)

    def moved(self, theta: Array) -> "GaussianLaw":
        """N(m + F mu, F L L' F'), theta being mu, the logs of L's diagonal, and what stands below it row by row."""
        n = len(self.support)
        rows, columns = np.tril_indices(n, -1)
        lower = jnp.diag(jnp.exp(theta[n : 2 * n])).at[rows, columns].set(theta[2 * n :])
        return GaussianLaw(self.mean + self.factor @ theta[:n], self.factor @ lower, self.support)

    @property
    def num_parameters(self) -> int:
        """Those of a mean and of a factor."""
        n = len(self.support)
        return 2 * n + n * (n - 1) // 2

    @property
    def distribution(self) -> dist.Distribution:
        """A normal one of a number or of a vector."""
        if self.support.shape == ():
            return dist.Normal(self.mean[0], self.factor[0, 0])
        return dist.MultivariateNormal(self.mean, scale_tril=self.factor)


class SampledLaw(SiteLaw):
    """Any other law, as the distribution that it is; what its batch holds is independent."""

    base: dist.Distribution

    @property
    def num_normals(self) -> None:
        """A random key."""
        return None

    @property
    def support(self) -> Support:
        """Arrays like a draw."""
        return of_arrays(jax.eval_shape(self.base.sample, jax.random.key(0)))

    @property
    def reparameterised(self) -> bool:
        """Whether NumPyro's draws move along with the parameters."""
        return is_reparameterised(self.base)

    def draw(self, noise: Array) -> Array:
        """A draw of NumPyro's, or what it should be."""
        point = base_of(self.base)
        if isinstance(point, dist.CategoricalProbs):
            return possible_draw(noise, point.probs, self.base.shape())
        value = jnp.asarray(self.base.sample(noise))
        return value if self.reparameterised else lax.stop_gradient(value)

    def noise_density(self, value: Array) -> tuple[Array, Array]:
        """The log density, minus infinity outside the support; a Dirac measure is certain."""
        point = base_of(self.base)
        if isinstance(point, dist.Delta):
            return jnp.sum(jnp.asarray(point.log_density, dtype=float)), jnp.all(value == point.v)
        return jnp.sum(log_prob_on_support(self.base, value)), jnp.asarray(True)

    def is_wrong(self) -> Array:
        """Whether a parameter is none."""
        return is_no_law(self.base)

    def moved(self, theta: Array) -> "SampledLaw":
        """The law of the same family whose parameters are moved, each through its constraint."""
        return SampledLaw(moved_by(self.base, theta))

    @property
    def num_parameters(self) -> int:
        """Those of its family."""
        return num_parameters(self.base)

    @property
    def distribution(self) -> dist.Distribution:
        """The law itself."""
        return self.base


def possible_draw(key: Array, probs: Array, shape: tuple[int, ...]) -> Array:
    """Independent draws from rows of probabilities, of which none has probability 0.

    Where the uniform number is exactly 0, as one in 8 million is in float32, NumPyro draws the first value even of
    probability 0.
    """
    rows = jnp.broadcast_to(probs, (*shape, probs.shape[-1]))
    return first_beyond(jax.random.uniform(key, (*shape, 1), probs.dtype), rows)


def first_beyond(uniform: Array, probs: Array) -> Array:
    """The position of the first value whose cumulated probability exceeds a uniform number, and that is possible."""
    cumulated = jnp.cumsum(probs, -1)
    most = jnp.max(cumulated, -1, keepdims=True)
    return jnp.argmax((cumulated > uniform * most) & (probs > 0), -1)


def as_law(fn: Any, support: Support | None = None) -> FiniteLaw | GaussianLaw | SampledLaw:
    """The law of a distribution: over a support that is finite, Gaussian where it is one, or as it is."""
    if isinstance(support, range | tuple):
        return FiniteLaw(probabilities(fn, support), support)
    base = gaussian(fn)
    if not isinstance(base, dist.Normal | dist.MultivariateNormal) or len(fn.shape()) > 1:
        return SampledLaw(fn)
    if isinstance(base, dist.MultivariateNormal):
        factor = base.scale_tril
    else:
        factor = jnp.diag(jnp.reshape(jnp.broadcast_to(base.scale, base.batch_shape), -1))
    # NumPyro keeps a mean that all coordinates share as one number.
    mean = jnp.broadcast_to(jnp.reshape(base.loc, -1), factor.shape[:1])
    return GaussianLaw(mean.astype(float), factor.astype(float), Real(fn.shape()))


def gaussian(fn: Any) -> Any:
    """A distribution without the event dimensions that `to_event` declared; a normal one that was expanded, in full."""
    if isinstance(fn, dist.Independent):
        return gaussian(fn.base_dist)
    if isinstance(fn, dist.ExpandedDistribution) and isinstance(fn.base_dist, dist.Normal):
        loc, scale = (jnp.broadcast_to(x, fn.batch_shape) for x in (fn.base_dist.loc, fn.base_dist.scale))
        return dist.Normal(loc, scale)
    return fn


def probabilities(fn: Any, support: FiniteSupport) -> Array:
    """The probability of each value of the support, exact at zero (NumPyro's log_prob clamps zeros)."""
    if isinstance(fn, dist.CategoricalProbs | dist.CategoricalLogits):
        return jnp.asarray(fn.probs, dtype=float)
    if isinstance(fn, Rowed):
        return fn.probs
    if isinstance(fn, dist.BernoulliProbs | dist.BernoulliLogits):
        return jnp.stack([1.0 - fn.probs, fn.probs]).astype(float)
    return jnp.exp(fn.log_prob(values_of(support))).astype(float)


def probs_of(law: SiteLaw) -> Array:
    """The probabilities of a law over finitely many values."""
    assert isinstance(law, FiniteLaw)
    return law.probs
