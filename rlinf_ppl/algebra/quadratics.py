"""Quadratic functions of named vectors: the messages of the second algebra, whose laws are in `gaussians`.

A message is W(x) = [x, 1]' M [x, 1] with a symmetric matrix M over the coordinates of its variables and a last one that
is the constant 1, so that linear terms and constants need no rules of their own. A law is x = H [parents, 1] + L e with
standard normal e; L may be singular, or zero. Put into a message, it leaves one in the parents and e, and what the
elimination asks for is, with y = M_kk for one coordinate e_k after the other,

    (1 / tau) log E exp(tau W):    M <- M + 2 tau M_.k M_k. / (1 - 2 tau y),    W <- W - log(1 - 2 tau y) / (2 tau)

At tau = 0 this is the expectation: M stays, and W gains y. It exists while every pivot 1 - 2 tau y is positive; where
one is not, the answer is NaN, and results say so.

A message can count its rounding (`rounding`); a walk from one that does counts all the way, and takes half as long
again. Where there was too much of it, the sums of squares in `squares` keep the digits.
"""

import dataclasses
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlinf_ppl.algebra import rounding
from rlinf_ppl.algebra.coordinates import Space, stacked_origin, stacked_values, union
from rlinf_ppl.algebra.messages import Integrand, Law, Rounding, Whole
from rlinf_ppl.algebra.rounding import Count
from rlinf_ppl.algebra.small_matrices import eliminate
from rlinf_ppl.algebra.tables import Conditional

NO_EQUILIBRIUM = (
    "decisions of vectors that do not see each other have no equilibrium here; let each see those before it."
)

# How many times what a count of rounding finds it may be.
SAFETY = 8.0


class Quadratic(Whole["Quadratic", "VectorLaw"]):
    """A quadratic function of named vectors.

    Attributes:
        axes: the variables' names; a leading "t" is the time index.
        sizes: the number of coordinates of each variable but the time.
        array: M, shape (N + 1, N + 1), symmetric, N the sum of the sizes; leads with time where the axes do.
        count: of the rounding of M; None: it is not counted.
    """

    axes: tuple[str, ...] = eqx.field(static=True)
    sizes: tuple[int, ...] = eqx.field(static=True)
    array: Float[Array, "..."]
    count: Count | None = None

    @property
    def constant(self) -> Array:
        """The value of a function of nothing."""
        return self.array[..., -1, -1]

    @property
    def rounding(self) -> Rounding | None:
        """How far off a function of nothing may be, and all eliminations that led to it."""
        if self.count is None:
            return None
        eps = SAFETY * float(jnp.finfo(self.array.dtype).eps)
        return Rounding(eps * rounding.of_constant(self.count), eps * self.count.strain)

    def filled(self, value: Array) -> "Quadratic":
        """A function of nothing with another value."""
        return Quadratic((), (), jnp.reshape(value, (1, 1)))

    def substituted(self, space: Space, place: Array) -> "Quadratic":
        """The function of other coordinates that those of this one are `place` (N + 1, K + 1) times."""
        array = place.T @ self.array @ place
        return Quadratic(*space, array, rounding.substituted(self.count, place, array))

    def replaced(self, variable: int, space: Space, mean: Array, root: Array) -> "Quadratic":
        """The function with a variable, by number, replaced by mean [z, 1] + root e: of e, the z in `space`, and 1."""
        before, size = sum(self.sizes[:variable]), self.sizes[variable]
        here = slice(before, before + size)
        noise, fresh = root.shape[1], mean.shape[1] - (len(self.array) - size)

        def spread(rows: Array) -> Array:
            """Rows for e, z and the constant from those of the function: its other variables come first in z."""
            zeros = [jnp.zeros((n, rows.shape[1]), rows.dtype) for n in (noise, fresh)]
            return jnp.concatenate([zeros[0], rows[:before], rows[before + size : -1], zeros[1], rows[-1:]])

        whole = jnp.concatenate([root, mean], 1)
        # What is added to the terms without the variable is symmetric by construction: nothing else damps rounding.
        half = (spread(self.array[:, here]) + whole.T @ (self.array[here, here] / 2)) @ whole
        array = spread(spread(self.array).T) + half + half.T
        place = spread(jnp.eye(len(self.array))).at[:, here].add(whole.T).T
        return Quadratic(*space, array, rounding.substituted(self.count, place, array))

    def reordered(self, space: Space, order: Any) -> "Quadratic":
        """The function with its coordinates in another order; `space` are those after the noise, which comes first."""
        if np.array_equal(order, np.arange(len(order))):
            return Quadratic(*space, self.array, self.count)
        return Quadratic(*space, self.array[order][:, order], rounding.placed(self.count, order))

    def shifted(self, origin: dict[str, Array]) -> "Quadratic":
        """The same function of the variables counted from other origins; those not named stay."""
        if not any(name in origin for name in self.axes):
            return self
        n, moved = sum(self.sizes), stacked_origin(self, origin)
        slope = self.array[..., :, n] + self.array[..., :, :n] @ moved
        constant = slope[..., n] + slope[..., :n] @ moved
        array = self.array.at[..., :n, n].set(slope[..., :n]).at[..., n, :n].set(slope[..., :n])
        return dataclasses.replace(self, array=array.at[..., n, n].set(constant))

    def renewed(self, array: Array) -> "Quadratic":
        """The same variables with another array, whose count starts anew."""
        count = None if self.count is None else rounding.counted(array)
        return dataclasses.replace(self, array=array, count=count)

    @property
    def counting(self) -> "Quadratic":
        """The same function, and its rounding is counted from here on."""
        return dataclasses.replace(self, count=rounding.counted(self.array))

    @property
    def coefficients(self) -> "QuadraticValue":
        """Of the terms of second and first order, and the constant."""
        n = sum(self.sizes)
        return QuadraticValue(self.array[..., :n, :n], 2 * self.array[..., :n, n], self.array[..., n, n])

    def expectation(self, weights: Array) -> Array:
        """The mean of the function under second moments."""
        return jnp.sum(weights * self.array)

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
        return self.aligned(Space(axes, tuple(size[name] for name in axes)))

    def aligned(self, space: "Space") -> "Quadratic":
        """The same function over the coordinates of `space`."""
        index = space.index(Space(self.axes, self.sizes))
        if index is None:
            return Quadratic(*space, self.array, self.count)
        array = jnp.pad(self.array, ((0, 1), (0, 1)))[index][:, index]
        return Quadratic(*space, array, rounding.placed(self.count, index))

    def __add__(self, other: "Quadratic") -> "Quadratic":
        space = union(self, other)
        one, two = self.aligned(space), other.aligned(space)
        count = None
        if one.count is not None or two.count is not None:
            count = rounding.added(*(rounding.counted(w.array) if w.count is None else w.count for w in (one, two)))
        return Quadratic(*space, one.array + two.array, count)

    def __sub__(self, other: "Quadratic") -> "Quadratic":
        return self + dataclasses.replace(other, array=-other.array)

    def divided(self, divisor: "Quadratic | None") -> "Quadratic":
        """The function divided by a constant one; None: by 1."""
        return self if divisor is None else self.scaled(1 / divisor.constant)

    def scaled(self, factor: Array) -> "Quadratic":
        """The function times a number."""
        return Quadratic(self.axes, self.sizes, factor * self.array, rounding.scaled(self.count, factor))

    def equilibrium(self, laws: Any, taus: Any) -> Any:
        """There is none to be found."""
        raise NotImplementedError(NO_EQUILIBRIUM)

    def gated(self, name: str) -> "Gated":
        """0 where the Bernoulli variable `name` is 0, this function where it is 1."""
        return Gated(self)

    def mean(self, law: "VectorLaw") -> "Quadratic":
        """E[W | parents]: averaged over a variable."""
        if law.name not in self.axes:
            return self
        w = law.within(self, jnp.zeros((law.map.shape[0], 0), law.map.dtype))
        start = sum(self.sizes[: self.axes.index(law.name)])
        here = slice(start, start + law.map.shape[0])
        gained = jnp.sum(self.array[here, here] * law.cov)
        count = rounding.averaged(w.count, self.count, here, law.cov, gained)
        return dataclasses.replace(w, count=count).with_constant(gained)

    def tilt(self, law: "VectorLaw", tau: "Quadratic | None" = None) -> "tuple[Quadratic, VectorLaw]":
        """The message (1 / tau) log E exp(tau W) and the law p exp(tau W) / Z, over one variable."""
        if law.name not in self.axes:
            return self, law
        scale = jnp.ones(()) if tau is None else tau.constant
        # A function of the noise e, which comes first, and of the others
        w = law.within(self, law.root)
        r = len(w.array) - sum(w.sizes) - 1
        cross = w.array[:r, r:]
        solved, core, gain = eliminate(w.array[:r], scale)
        moved = 2 * scale * solved
        array = w.array[r:, r:] + cross.T @ moved
        array = with_constant(array, gain)
        own, far = rounding.sizes_of(w.array)[r:], jnp.sqrt(jnp.abs(w.constant))
        left, gained = rounding.sizes_of(array), array[-1, -1] - w.constant
        count = rounding.eliminated(w.count, core, moved, scale, own, 0.0, left, far, gained)
        return Quadratic(w.axes, w.sizes, array, count), law.reply(Space(w.axes, w.sizes), moved, core)

    def with_constant(self, constant: Array) -> "Quadratic":
        """The function plus a number."""
        array = with_constant(self.array, constant)
        return Quadratic(self.axes, self.sizes, array, rounding.summed(self.count, array[-1, -1]))


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


class VectorLaw(Law[Quadratic]):
    """What quadratics are averaged over and tilt: the law x = H [parents, 1] + L e of a vector, e standard normal."""

    if TYPE_CHECKING:

        @property
        @abstractmethod
        def map(self) -> Array:
            """H, shape (n, N + 1)."""

        @property
        @abstractmethod
        def root(self) -> Array | None:
            """L; None: the identity."""

        @property
        @abstractmethod
        def cov(self) -> Array:
            """L L', shape (n, n)."""

    @abstractmethod
    def within(self, w: Any, root: Array | None) -> Any:
        """A message as a function of e, its other variables and the law's parents, x replaced by H [z, 1] + root e."""

    @abstractmethod
    def reply(self, space: Space, moved: Array, core: Array) -> "VectorLaw":
        """The law of x where e is normal with the mean `moved` [z, 1] and the covariance `core`; z are in `space`."""


class Gated(Integrand[Conditional]):
    """A function of vectors that counts only where a Bernoulli variable is 1; all that is left of it is its mean."""

    message: Any

    def mean(self, law: Conditional) -> Any:
        """E over the Bernoulli variable."""
        return self.message.scaled(law.table.array[1])

    def log_mean(self, law: Conditional, tau: Any) -> Any:
        """There is none: exp W of the living and the dead is a mixture."""
        raise ValueError(
            "with a discount the posterior of a linear-Gaussian program is a mixture of the living and the dead, not "
            "Gaussian; condition it at discount 1, or use exact.solve."
        )


def with_constant(array: Array, constant: Array) -> Array:
    """A matrix whose last entry gains a constant."""
    return array.at[-1, -1].add(constant)
