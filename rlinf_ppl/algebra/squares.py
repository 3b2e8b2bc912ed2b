"""Concave quadratic functions as sums of squares: the messages of the second algebra where numbers would be lost.

A message is W(z) = l' [z, 1] - |C [z, 1]|^2. The rows of C are never squared, so that what a wide prior takes away from
a cost, or what is left of a distance to a goal far away, keeps all of its digits. A variable x = H [z, 1] + L e is
put into the columns of C, and its noise is eliminated by an orthogonal triangle (Golub & Van Loan 2013, section 5.2;
Kailath, Sayed & Hassibi 2000, Linear estimation, chapter 12):

    [ sqrt(tau) C_e   sqrt(tau) C_z ]         [ R_e   R_ez ]     cov(e) = (R_e' R_e)^-1 / 2,   E e = R_e^-1 (g - R_ez z)
    [ I / sqrt(2)     0             ]  = Q    [ 0     R_z  ]     with   g = tau R_e^-T l_e / 2

and what is left is l_z - 2 R_ez' g / tau + |g|^2 / tau - log det(sqrt(2) R_e) / tau - |R_z z|^2 / tau. This takes about
twice the time of the form in `quadratics`, and inverse temperatures above 0.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rlinf_ppl.algebra import rounding
from rlinf_ppl.algebra.coordinates import Space, stacked_origin, stacked_values, union
from rlinf_ppl.algebra.messages import Rounding, Whole
from rlinf_ppl.algebra.quadratics import NO_EQUILIBRIUM, SAFETY, Gated, QuadraticValue, VectorLaw
from rlinf_ppl.algebra.rounding import Count
from rlinf_ppl.algebra.small_matrices import upper_solve


class Squares(Whole["Squares", VectorLaw]):
    """A concave quadratic function of named vectors.

    Attributes:
        axes: the variables' names; a leading "t" is the time index.
        sizes: the number of coordinates of each variable but the time.
        array: C above l, shape (K + 1, N + 1), N the sum of the sizes; leads with time where the axes do.
        magnitudes: what the entries of C were sums of, without signs, shape (K, N + 1); None: |C|.
        count: of the rounding of W's matrix -C' C; None: nothing yet.
    """

    axes: tuple[str, ...] = eqx.field(static=True)
    sizes: tuple[int, ...] = eqx.field(static=True)
    array: Float[Array, "..."]
    magnitudes: Float[Array, "..."] | None = None
    count: Count | None = None

    @property
    def sums(self) -> Array:
        """What the entries of C were sums of: they are off by its last digits."""
        return jnp.abs(lax.stop_gradient(self.factor)) if self.magnitudes is None else self.magnitudes

    @property
    def factor(self) -> Array:
        """C."""
        return self.array[..., :-1, :]

    @property
    def constant(self) -> Array:
        """The value of a function of nothing."""
        return self.array[..., -1, -1] - jnp.sum(self.factor[..., -1] ** 2, -1)

    @property
    def coefficients(self) -> QuadraticValue:
        """Of the terms of second and first order, and the constant."""
        matrix, n = -jnp.swapaxes(self.factor, -1, -2) @ self.factor, sum(self.sizes)
        return QuadraticValue(matrix[..., :n, :n], 2 * matrix[..., :n, n] + self.array[..., -1, :n], self.constant)

    def renewed(self, array: Array) -> "Squares":
        """The same variables with another array, whose count starts anew."""
        return Squares(self.axes, self.sizes, array)

    @property
    def counted(self) -> Count:
        """What was counted."""
        if self.count is not None:
            return self.count
        nothing = jnp.zeros_like(self.array[..., -1, -1])
        return Count(jnp.zeros((*nothing.shape, rounding.PROBES, self.array.shape[-1])), nothing, nothing)

    @property
    def rounding(self) -> Rounding:
        """How far off a function of nothing may be, and all eliminations that led to it."""
        eps, count = SAFETY * float(jnp.finfo(self.array.dtype).eps), self.counted
        # Up to here the squares of what is left are not summed, so their own last digits are not counted yet.
        constant = rounding.with_digits(rounding.of_constant(count), jnp.sum(self.factor[..., -1] ** 2, -1))
        return Rounding(eps * constant, eps * count.strain)

    def filled(self, value: Array) -> "Squares":
        """A function of nothing with another value."""
        return Squares((), (), jnp.stack([jnp.zeros(1), jnp.reshape(value, 1)]))

    def substituted(self, space: Space, place: Array) -> "Squares":
        """The function of other coordinates that those of this one are `place` (N + 1, K + 1) times."""
        place, count = jnp.asarray(place), self.counted
        moved = lax.stop_gradient(place)
        count = dataclasses.replace(count, probes=count.probes @ moved)
        return Squares(*space, self.array @ place, self.sums @ jnp.abs(moved), count)

    def replaced(self, variable: int, space: Space, mean: Array, root: Array) -> "Squares":
        """The function with a variable, by number, replaced by mean [z, 1] + root e: of e, the z in `space`, and 1."""
        before, size = sum(self.sizes[:variable]), self.sizes[variable]
        noise, width = root.shape[1], root.shape[1] + mean.shape[1]
        fresh = mean.shape[1] - (self.array.shape[-1] - size)
        kept = jnp.eye(self.array.shape[-1] - size)
        others = jnp.concatenate([kept[:, :-1], jnp.zeros((len(kept), fresh)), kept[:, -1:]], 1)
        others = jnp.concatenate([jnp.zeros((len(kept), noise)), others], 1)
        own = jnp.concatenate([root, mean], 1)
        place = jnp.concatenate([others[:before], own, others[before:]])
        assert place.shape == (self.array.shape[-1], width)
        return self.substituted(space, place)

    def reordered(self, space: Space, order: Any) -> "Squares":
        """The function with its coordinates in another order; `space` are those after the noise, which comes first."""
        return Squares(*space, self.array[:, order], self.sums[:, order], rounding.placed(self.counted, order))

    def shifted(self, origin: dict[str, Array]) -> "Squares":
        """The same function of the variables counted from other origins; those not named stay."""
        n = sum(self.sizes)
        return dataclasses.replace(self, array=self.array @ jnp.eye(n + 1).at[:n, n].set(stacked_origin(self, origin)))

    def over(self, axes: tuple[str, ...], size: dict[str, int]) -> "Squares":
        """The same function, of all of `axes` in this order, in as many rows as it has columns."""
        space = Space(axes, tuple(size[name] for name in axes))
        w = self.aligned(space)
        missing = w.array.shape[-1] - len(w.factor)
        if missing >= 0:
            rows, sums = (jnp.pad(x, ((0, missing), (0, 0))) for x in (w.factor, w.sums))
            return Squares(*space, jnp.concatenate([rows, w.array[-1:]]), sums, w.counted)
        remain = jnp.abs(lax.stop_gradient(w.factor))
        own = jnp.sqrt(2 * jnp.sum(remain * (w.sums - remain), 0))
        count = dataclasses.replace(w.counted, probes=w.counted.probes + rounding.digits(own, 1))
        count = dataclasses.replace(count, constant=rounding.with_digits(count.constant, own[-1] ** 2))
        rows = triangle(w.factor)
        return Squares(*space, jnp.concatenate([rows, w.array[-1:]]), jnp.abs(lax.stop_gradient(rows)), count)

    def aligned(self, space: Space) -> "Squares":
        """The same function over the coordinates of `space`."""
        index = space.index(Space(self.axes, self.sizes))
        if index is None:
            return Squares(*space, self.array, self.sums, self.counted)
        array, sums = (jnp.pad(x, ((0, 0), (0, 1)))[:, index] for x in (self.array, self.sums))
        return Squares(*space, array, sums, rounding.placed(self.counted, index))

    def __add__(self, other: "Squares") -> "Squares":
        space = union(self, other)
        one, two = self.aligned(space), other.aligned(space)
        array = jnp.concatenate([one.factor, two.factor, one.array[-1:] + two.array[-1:]])
        sums = jnp.concatenate([one.sums, two.sums])
        return Squares(*space, array, sums, rounding.added(one.counted, two.counted))

    def __sub__(self, other: "Squares") -> "Squares":
        """It may not be concave."""
        raise NotImplementedError("a difference of concave functions may not be concave; take quadratics.")

    def rows(self, at: dict[str, Array]) -> Array:
        """The function at values (n, size) of its variables, shape (n,)."""
        z = stacked_values(self.axes, at)
        return z @ self.array[-1] - jnp.sum((z @ self.factor.T) ** 2, -1)

    def expectation(self, weights: Array) -> Array:
        """The mean of the function under second moments."""
        return jnp.sum(weights[..., -1] * self.array[..., -1, :]) - jnp.sum(weights * (self.factor.T @ self.factor))

    @property
    def monotone(self) -> bool:
        """A larger function may have smaller coefficients."""
        return False

    def divided(self, divisor: "Squares | None") -> "Squares":
        """The function divided by a positive constant one; None: by 1."""
        return self if divisor is None else self.scaled(1 / divisor.constant)

    def scaled(self, factor: Array) -> "Squares":
        """The function times a positive number."""
        root = jnp.sqrt(factor)
        array, sums = self.array.at[-1].multiply(root) * root, self.sums * lax.stop_gradient(root)
        return Squares(self.axes, self.sizes, array, sums, rounding.scaled(self.counted, factor))

    def equilibrium(self, laws: Any, taus: Any) -> Any:
        """There is none to be found."""
        raise NotImplementedError(NO_EQUILIBRIUM)

    def gated(self, name: str) -> Gated:
        """0 where the Bernoulli variable `name` is 0, this function where it is 1."""
        return Gated(self)

    def mean(self, law: VectorLaw) -> "Squares":
        """E[W | parents]: averaged over a variable."""
        if law.name not in self.axes:
            return self
        start = sum(self.sizes[: self.axes.index(law.name)])
        here = slice(start, start + law.map.shape[0])
        assert law.root is not None
        gained = -jnp.sum((self.factor[:, here] @ law.root) ** 2)
        w = law.within(self, jnp.zeros((law.map.shape[0], 0), law.map.dtype))
        count = rounding.averaged(w.counted, self.counted, here, law.cov, gained)
        return dataclasses.replace(w, count=count).with_constant(gained)

    def tilt(self, law: VectorLaw, tau: Any = None) -> "tuple[Squares, VectorLaw]":
        """The message (1 / tau) log E exp(tau W) and the law p exp(tau W) / Z, over one variable."""
        if law.name not in self.axes:
            return self, law
        scale = jnp.ones(()) if tau is None else tau.constant
        # A function of the noise e, which comes first, and of the others
        w = law.within(self, law.root)
        r = w.array.shape[-1] - sum(w.sizes) - 1
        half = jnp.sqrt(jnp.asarray(0.5, w.array.dtype))
        R = triangle(jnp.concatenate([jnp.sqrt(scale) * w.factor, half * jnp.eye(r, w.array.shape[-1])]))
        on_e, on_both, on_z = R[:r, :r], R[:r, r:], R[r:, r:]
        solved = upper_solve(on_e, jnp.concatenate([half * jnp.eye(r), -on_both], 1))
        root, moved = solved[:, :r], solved[:, r:]
        # R_e^-T l_e, with R_e^-1 = sqrt(2) root
        lifted = scale * root.T @ w.array[-1, :r] * half
        moved = moved.at[:, -1].add(root @ lifted / half)
        linear = w.array[-1, r:] - 2 * lifted @ on_both / scale
        gain = jnp.sum(lifted**2) - jnp.sum(jnp.log(jnp.abs(jnp.diagonal(on_e)) / half))
        left = jnp.concatenate([on_z / jnp.sqrt(scale), linear[None].at[0, -1].add(gain / scale)])
        count = eliminated(w, left, root, moved, scale)
        message = Squares(w.axes, w.sizes, left, None, count)
        return message, law.reply(Space(w.axes, w.sizes), moved, root @ root.T)

    def with_constant(self, constant: Array) -> "Squares":
        """The function plus a number."""
        array = self.array.at[-1, -1].add(constant)
        return Squares(self.axes, self.sizes, array, self.sums, rounding.summed(self.counted, array[-1, -1]))


def column_sizes(rows: Float[Array, "*time K N"]) -> Float[Array, "*time N"]:
    """The length of each column."""
    return jnp.sqrt(jnp.sum(lax.stop_gradient(rows) ** 2, -2))


def triangle(rows: Float[Array, "K N"]) -> Float[Array, "M N"]:
    """R with R' R = rows' rows. The largest rows come first, so that each keeps its own digits (Cox & Higham 1998)."""
    return jnp.linalg.qr(rows[jnp.argsort(-jnp.max(jnp.abs(rows), 1))], mode="r")


def eliminated(w: Squares, after: Array, root: Array, moved: Array, tau: Array) -> Count | None:
    """What is counted once noise that comes first is eliminated from W, of mean `moved` z and covariance root root'.

    With z' = [moved z, z] the loss that is left is |C z'|^2 + |moved z|^2 / (2 tau). Beyond its own last digits it is
    off by twice what remains of the rows, C z', times the last digits that their sums had more.
    """
    rows, after, root, moved, tau = lax.stop_gradient((w.factor, after, root, moved, tau))
    place = jnp.concatenate([moved, jnp.eye(moved.shape[1])])
    sums, remain = w.sums @ jnp.abs(place), jnp.abs(rows @ place)
    own = jnp.sqrt(2 * jnp.sum(remain * jnp.maximum(sums - remain, 0.0), 0))
    on_noise = jnp.sum(w.sums[:, : len(root)] ** 2, 0) * jnp.sum(root**2, 1)
    sizes, far = column_sizes(after[:-1]), jnp.sqrt(jnp.sum(sums[:, -1] ** 2))
    gained = jnp.sum(remain[:, -1] ** 2) - jnp.sum(rows[:, -1] ** 2)
    left = sizes.at[-1].set(jnp.sqrt(jnp.abs(after[-1, -1])))
    own_pivots = 2 * jnp.sqrt(2 * tau * jnp.sum(on_noise))
    return rounding.eliminated(w.counted, root @ root.T, moved, tau, own, own_pivots, left, far, gained)
