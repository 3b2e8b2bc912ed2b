"""Quadratic functions of named vectors, and Gaussian laws: the second algebra of messages.

A message is W(x) = [x, 1]' M [x, 1] with a symmetric matrix M over the coordinates of its variables and a last one that
is the constant 1, so that linear terms and constants need no rules of their own. A law is x = H [parents, 1] + L e with
standard normal e; L may be singular, or zero. Put into a message, it leaves one in the parents and e, and what the
elimination asks for is, with y = M_kk for one coordinate e_k after the other,

    (1 / tau) log E exp(tau W):    M <- M + 2 tau M_.k M_k. / (1 - 2 tau y),    W <- W - log(1 - 2 tau y) / (2 tau)

At tau = 0 this is the expectation: M stays, and W gains y. It exists while every pivot 1 - 2 tau y is positive; where
one is not, the answer is NaN, and results say so.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlinf_ppl.algebra.coordinates import Space, stacked_values, union
from rlinf_ppl.algebra.messages import TIME, Named
from rlinf_ppl.algebra.small_matrices import cholesky, eliminate, inverse
from rlinf_ppl.algebra.tables import Conditional

Map = Float[Array, "rows columns"]


class Quadratic(Named):
    """A quadratic function of named vectors.

    Attributes:
        axes: the variables' names; a leading "t" is the time index.
        sizes: the number of coordinates of each variable but the time.
        array: M, shape (N + 1, N + 1), symmetric, N the sum of the sizes; leads with time where the axes do.
    """

    axes: tuple[str, ...] = eqx.field(static=True)
    sizes: tuple[int, ...] = eqx.field(static=True)
    array: Float[Array, "..."]

    @property
    def constant(self) -> Array:
        """The value of a function of nothing."""
        return self.array[..., -1, -1]

    @property
    def whole(self) -> "Quadratic":
        """The function itself."""
        return self

    @property
    def answer(self) -> "QuadraticValue":
        """The coefficients, as users are given them."""
        n = sum(self.sizes)
        return QuadraticValue(self.array[..., :n, :n], 2 * self.array[..., :n, n], self.array[..., n, n])

    def measure(self, weights: Array) -> "Gaussian":
        """Mean and covariance from the derivatives in a quadratic, which are second moments."""
        n = sum(self.sizes)
        moments = (weights + jnp.swapaxes(weights, -1, -2)) / (2 * weights[..., n:, n:])
        mean = moments[..., :n, n]
        return Gaussian(mean, moments[..., :n, :n] - mean[..., :, None] * mean[..., None, :])

    def expectation(self, weights: Array) -> Array:
        """The mean of the function under second moments."""
        return jnp.sum(weights * self.array)

    def perturbation(self, key: Array) -> "Quadratic":
        """A linear function with standard normal coefficients."""
        n = sum(self.sizes)
        slope = jax.random.normal(key, (n,), self.array.dtype) / 2
        array = jnp.zeros_like(self.array).at[:n, n].set(slope).at[n, :n].set(slope)
        return Quadratic(self.axes, self.sizes, array)

    @property
    def monotone(self) -> bool:
        """A larger function may have smaller coefficients."""
        return False

    def rows(self, at: dict[str, Array]) -> Array:
        """The function at values (n, size) of its variables, shape (n,)."""
        z = stacked_values(self.axes, at)
        return jnp.sum((z @ self.array) * z, -1)

    def over(self, axes: tuple[str, ...], size: dict[str, int]) -> "Quadratic":
        """The same function, of all of `axes` in this order."""
        space = Space(axes, tuple(size[name] for name in axes))
        return Quadratic(*space, self.aligned(space))

    def aligned(self, space: "Space") -> Array:
        """M over the coordinates of `space`."""
        index = space.index(Space(self.axes, self.sizes))
        if index is None:
            return self.array
        return jnp.pad(self.array, ((0, 1), (0, 1)))[index][:, index]

    def __add__(self, other: "Quadratic") -> "Quadratic":
        space = union(self, other)
        return Quadratic(*space, self.aligned(space) + other.aligned(space))

    def __sub__(self, other: "Quadratic") -> "Quadratic":
        return self + Quadratic(other.axes, other.sizes, -other.array)

    def divided(self, divisor: "Quadratic | None") -> "Quadratic":
        """The function divided by a constant one; None: by 1."""
        return self if divisor is None else Quadratic(self.axes, self.sizes, self.array / divisor.constant)

    def gated(self, name: str) -> "Gated":
        """0 where the Bernoulli variable `name` is 0, this function where it is 1."""
        return Gated(self)

    def mean(self, law: "LinearGaussian") -> "Quadratic":
        """E[W | parents]: averaged over a variable."""
        if law.name not in self.axes:
            return self
        space, _, array = substituted(self, law, jnp.zeros((law.map.shape[0], 0), law.map.dtype))
        start = sum(self.sizes[: self.axes.index(law.name)])
        here = slice(start, start + law.map.shape[0])
        return Quadratic(*space, with_constant(array, jnp.sum(self.array[here, here] * law.cov)))

    def log_mean(self, law: "LinearGaussian", tau: "Quadratic | None") -> "Quadratic":
        """(1 / tau) log E[exp(tau W) | parents]: averaged over a variable in the exponent."""
        return self.tilt(law, tau)[0]

    def tilt(self, law: "LinearGaussian", tau: "Quadratic | None" = None) -> "tuple[Quadratic, LinearGaussian]":
        """The message (1 / tau) log E exp(tau W) and the law p exp(tau W) / Z, over one variable."""
        if law.name not in self.axes:
            return self, law
        root, scale = law.root, jnp.ones(()) if tau is None else tau.constant
        space, mean, array = substituted(self, law, root)
        r = root.shape[1]
        cross = array[:r, r:]
        solved, gain = eliminate(array[:r], scale)
        value = with_constant(array[r:, r:] + 2 * scale * cross.T @ solved[:, r:], gain)
        # G^-1 = 1 + 2 tau G^-1 block.
        moved, core = 2 * scale * solved[:, r:], jnp.eye(r) + 2 * scale * solved[:, :r]
        return Quadratic(*space, value), LinearGaussian(law.name, *space, mean + root @ moved, root, core)


class QuadraticValue(NamedTuple):
    """x' matrix x + x' vector + scalar, each with a leading axis of time where there is one."""

    matrix: Float[Array, "..."]
    vector: Float[Array, "..."]
    scalar: Float[Array, "..."]


class AffinePolicy(NamedTuple):
    """N(gain scope + offset, cov), each with a leading axis of time where there is one."""

    gain: Float[Array, "..."]
    offset: Float[Array, "..."]
    cov: Float[Array, "..."]


class Gaussian(NamedTuple):
    """A mean and a covariance, each with a leading axis of time where there is one."""

    mean: Float[Array, "..."]
    cov: Float[Array, "..."]


class Gated(eqx.Module):
    """A quadratic function that counts only where a Bernoulli variable is 1; all that is left of it is its mean."""

    message: Quadratic

    def mean(self, law: Conditional) -> Quadratic:
        """E over the Bernoulli variable."""
        return Quadratic(self.message.axes, self.message.sizes, law.table.array[1] * self.message.array)

    def log_mean(self, law: Conditional, tau: Quadratic | None) -> Quadratic:
        """There is none: exp W of the living and the dead is a mixture."""
        raise ValueError(
            "with a discount the posterior of a linear-Gaussian program is a mixture of the living and the dead, not "
            "Gaussian; condition it at discount 1, or use exact.solve."
        )


class LinearGaussian(Named):
    """The law of a vector that is normal about an affine function of others: x = H [parents, 1] + L e, e ~ N(0, C).

    Attributes:
        name: the variable.
        axes: what it depends on; a leading "t" is the time index.
        sizes: the number of coordinates of each of those but the time.
        map: H, shape (n, N + 1).
        factor: L, shape (n, r); None where only the covariance is known.
        core: C, shape (r, r), positive semidefinite; None: the identity.
        covariance: L C L', where it is known already.
    """

    name: str = eqx.field(static=True)
    axes: tuple[str, ...] = eqx.field(static=True)
    sizes: tuple[int, ...] = eqx.field(static=True)
    map: Float[Array, "..."]
    factor: Float[Array, "..."] | None = None
    core: Float[Array, "..."] | None = None
    covariance: Float[Array, "..."] | None = None

    @property
    def cov(self) -> Array:
        """The covariance L C L', shape (n, n)."""
        if self.covariance is not None:
            return self.covariance
        assert self.factor is not None
        return (self.factor if self.core is None else self.factor @ self.core) @ self.factor.T

    @property
    def root(self) -> Array:
        """A matrix R with R R' = cov."""
        if self.factor is None:
            return cholesky(self.cov)
        return self.factor if self.core is None else self.factor @ cholesky(self.core)

    def answer(self, scope: tuple[str, ...], size: dict[str, int]) -> "AffinePolicy":
        """Gain, offset and covariance over the whole scope."""
        whole = aligned_map(self, Space(scope, tuple(size[name] for name in scope)))
        return AffinePolicy(whole[:, :-1], whole[:, -1], self.cov)

    def given(self, answer: "AffinePolicy", scope: tuple[str, ...], size: dict[str, int]) -> "LinearGaussian":
        """A policy in the place of this law."""
        gain, offset, cov = answer
        sizes = tuple(size[name] for name in scope if name != TIME)
        return LinearGaussian(self.name, scope, sizes, jnp.concatenate([gain, offset[..., None]], -1), covariance=cov)

    def draw(self, key: Array, at: dict[str, Array], n: int, message: "Quadratic | None", tau: Array | float) -> Array:
        """Values (n, size) drawn from the law, or from the law tilted by exp(tau message)."""
        law = self
        if message is not None:
            law = message.tilt(self, Quadratic((), (), jnp.reshape(jnp.asarray(tau), (1, 1))))[1]
        noise = jax.random.normal(key, (n, law.root.shape[1]), law.map.dtype)
        return stacked_values(law.axes, at) @ law.map.T + noise @ law.root.T

    def cost(self, q: "LinearGaussian") -> Quadratic:
        """KL(q || this law) in nats, a function of what either depends on."""
        space = union(self, q)
        apart = aligned_map(self, space) - aligned_map(q, space)
        precision, pivots = inverse(self.cov)
        trace = jnp.sum(precision * q.cov) - len(self.cov)
        log_ratio = jnp.sum(jnp.log(pivots)) - 2 * jnp.sum(jnp.log(jnp.diagonal(cholesky(q.cov))))
        return Quadratic(*space, with_constant(apart.T @ precision @ apart, trace + log_ratio) / 2)


def substituted(w: Quadratic, law: LinearGaussian, root: Array) -> tuple[Space, Array, Array]:
    """A message with a variable replaced by H [z, 1] + root e; z are its other variables and the law's parents.

    Returns:
        The space of z, H over it, and M over e, z and the constant.
    """
    place = w.axes.index(law.name)
    space = union(Space(w.axes[:place] + w.axes[place + 1 :], w.sizes[:place] + w.sizes[place + 1 :]), law)
    mean = aligned_map(law, space)
    before, size = sum(w.sizes[:place]), w.sizes[place]
    here = slice(before, before + size)
    noise, fresh = root.shape[1], mean.shape[1] - (len(w.array) - size)

    def spread(rows: Array) -> Array:
        """Rows for e, z and the constant from those of the message: its other variables come first in z."""
        zeros = [jnp.zeros((n, rows.shape[1]), rows.dtype) for n in (noise, fresh)]
        return jnp.concatenate([zeros[0], rows[:before], rows[before + size : -1], zeros[1], rows[-1:]])

    whole = jnp.concatenate([root, mean], 1)
    # What is added to the terms without the variable is symmetric by construction: nothing else would damp rounding.
    half = (spread(w.array[:, here]) + whole.T @ (w.array[here, here] / 2)) @ whole
    return space, mean, spread(spread(w.array).T) + half + half.T


def aligned_map(law: LinearGaussian, space: Space) -> Array:
    """H over the coordinates of `space`."""
    index = space.index(Space(law.axes, law.sizes))
    return law.map if index is None else jnp.pad(law.map, ((0, 0), (0, 1)))[:, index]


def with_constant(array: Array, constant: Array) -> Array:
    """A matrix whose last entry gains a constant."""
    return array.at[-1, -1].add(constant)
