"""Quadratic functions of named vectors: the messages of the second algebra, whose laws are in `gaussians`.

A message is W(x) = [x, 1]' M [x, 1] with a symmetric matrix M over the coordinates of its variables and a last one that
is the constant 1, so that linear terms and constants need no rules of their own. A law is x = H [parents, 1] + L e with
standard normal e; L may be singular, or zero. Put into a message, it leaves one in the parents and e, and what the
elimination asks for is, with y = M_kk for one coordinate e_k after the other,

    (1 / tau) log E exp(tau W):    M <- M + 2 tau M_.k M_k. / (1 - 2 tau y),    W <- W - log(1 - 2 tau y) / (2 tau)

At tau = 0 this is the expectation: M stays, and W gains y. It exists while every pivot 1 - 2 tau y is positive; where
one is not, the answer is NaN, and results say so.
"""

from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlinf_ppl.algebra.coordinates import Space, stacked_values, union
from rlinf_ppl.algebra.messages import Law, Named, is_named
from rlinf_ppl.algebra.small_matrices import eliminate
from rlinf_ppl.algebra.tables import Conditional

Tree = TypeVar("Tree")


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

    def measure(self, weights: Array, centred: Array | None) -> "Gaussian":
        """Mean and covariance from the derivatives in a quadratic, which are second moments.

        The difference of E x x' and the square of a large mean has few digits left; so the covariance is taken from
        the derivatives of the centred program, where there are any.
        """
        moments, about = (
            None if w is None else (w + jnp.swapaxes(w, -1, -2)) / (2 * w[..., -1:, -1:]) for w in (weights, centred)
        )
        assert moments is not None
        mean = moments[..., :-1, -1]
        if about is None:
            return Gaussian(mean, moments[..., :-1, :-1] - mean[..., :, None] * mean[..., None, :])
        return Gaussian(mean, about[..., :-1, :-1])

    def centred(self, tree: Tree) -> Tree:
        """The same laws and messages with the mean 0 everywhere: covariances do not depend on it."""
        return jax.tree.map(lambda node: node.at_origin if is_named(node) else node, tree, is_leaf=is_named)

    @property
    def at_origin(self) -> "Quadratic":
        """Without its linear terms and its constant; a constant stays."""
        if not self.sizes:
            return self
        array = self.array.at[..., -1, :].set(0.0).at[..., :, -1].set(0.0)
        return Quadratic(self.axes, self.sizes, array)

    def expectation(self, weights: Array) -> Array:
        """The mean of the function under second moments."""
        return jnp.sum(weights * self.array)

    @property
    def freedom(self) -> int:
        """How many numbers a perturbation takes."""
        return sum(self.sizes)

    def perturbation(self, normals: Array) -> "Quadratic":
        """A linear function with standard normal coefficients."""
        n, slope = self.freedom, normals / 2
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

    def mean(self, law: Law) -> "Quadratic":
        """E[W | parents]: averaged over a variable."""
        if law.name not in self.axes:
            return self
        space: Space
        space, array = law.within(self, jnp.zeros((law.map.shape[0], 0), law.map.dtype))
        start = sum(self.sizes[: self.axes.index(law.name)])
        here = slice(start, start + law.map.shape[0])
        return Quadratic(*space, with_constant(array, jnp.sum(self.array[here, here] * law.cov)))

    def log_mean(self, law: Law, tau: "Quadratic | None") -> "Quadratic":
        """(1 / tau) log E[exp(tau W) | parents]: averaged over a variable in the exponent."""
        return self.tilt(law, tau)[0]

    def tilt(self, law: Law, tau: "Quadratic | None" = None) -> "tuple[Quadratic, Law]":
        """The message (1 / tau) log E exp(tau W) and the law p exp(tau W) / Z, over one variable."""
        if law.name not in self.axes:
            return self, law
        scale = jnp.ones(()) if tau is None else tau.constant
        space: Space
        space, array = law.within(self, law.root)
        r = len(array) - sum(space[1]) - 1
        cross = array[:r, r:]
        solved, gain = eliminate(array[:r], scale)
        value = with_constant(array[r:, r:] + 2 * scale * cross.T @ solved[:, r:], gain)
        # G^-1 = 1 + 2 tau G^-1 block.
        moved, core = 2 * scale * solved[:, r:], jnp.eye(r) + 2 * scale * solved[:, :r]
        return Quadratic(*space, value), law.reply(space, moved, core)


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


def with_constant(array: Array, constant: Array) -> Array:
    """A matrix whose last entry gains a constant."""
    return array.at[-1, -1].add(constant)
