"""Gaussian laws x = H [parents, 1] + L e of named vectors: what sites are in the second algebra.

See `quadratics` for the messages. A decision can be walked as the noise e of its prior, too (`Noise`).
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlinf_ppl.algebra.coordinates import Space, stacked_origin, stacked_values, union
from rlinf_ppl.algebra.messages import TIME, Named
from rlinf_ppl.algebra.quadratics import Quadratic, VectorLaw
from rlinf_ppl.algebra.small_matrices import cholesky, inverse
from rlinf_ppl.algebra.times import is_named, where_timed


class LinearGaussian(Named, VectorLaw):
    """The law of a vector that is normal about an affine function of others: x = H [parents, 1] + L e, e ~ N(0, C).

    Attributes:
        name: the variable.
        axes: what it depends on; a leading "t" is the time index.
        sizes: the number of coordinates of each of those but the time.
        map: H, shape (n, N + 1).
        factor: L, shape (n, r); None where only the covariance is known.
        core: C, shape (r, r), positive semidefinite; None: the identity.
        covariance: L C L', where it is known already.
        of_noise: whether it is the law of the noise e of the decision's prior instead.
    """

    name: str = eqx.field(static=True)
    axes: tuple[str, ...] = eqx.field(static=True)
    sizes: tuple[int, ...] = eqx.field(static=True)
    map: Float[Array, "..."]
    factor: Float[Array, "..."] | None = None
    core: Float[Array, "..."] | None = None
    covariance: Float[Array, "..."] | None = None
    of_noise: bool = eqx.field(static=True, default=False)

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

    def shifted(self, origin: dict[str, Array]) -> "LinearGaussian":
        """The same law with its variables counted from other origins; those not named stay."""
        moved = self.map[..., :-1] @ stacked_origin(self, origin)
        if self.name in origin:
            moved = moved - jnp.broadcast_to(origin[self.name], moved.shape)
        return dataclasses.replace(self, map=self.map.at[..., -1].add(moved))

    def shaken(self, origin: dict[str, Array], precision: float) -> "LinearGaussian":
        """The law with its mean moved by the last digits of what it is a difference of where its parents start."""
        own = origin[self.name] if self.name in origin else jnp.zeros(self.map.shape[-2])
        size = jnp.abs(self.map[..., :-1]) @ jnp.abs(stacked_origin(self, origin))
        moved = precision * (size + jnp.broadcast_to(jnp.abs(own), size.shape))
        return dataclasses.replace(self, map=self.map.at[..., -1].add(moved))

    def within(self, w: Any, root: Array | None) -> Any:
        """A message with the variable replaced by H [z, 1] + root e; z are its other variables and the law's parents.

        Returns:
            The message over e, z and the constant; its axes and sizes are those of z.
        """
        place = w.axes.index(self.name)
        space = union(without(w, place), self)
        return w.replaced(place, space, aligned_map(self, space), root)

    def reply(self, space: Space, moved: Array, core: Array) -> "LinearGaussian":
        """The law of the variable where e is normal with the mean `moved` [z, 1] and the covariance `core`."""
        return LinearGaussian(self.name, *space, aligned_map(self, space) + self.root @ moved, self.root, core)

    def follow(self, reply: "LinearGaussian | Noise") -> "LinearGaussian":
        """A law found for this variable, or for its noise, as that of the variable."""
        if isinstance(reply, Noise):
            # Nothing that follows depends on it.
            return self
        if not reply.of_noise:
            return reply
        space = union(reply, self)
        mean = aligned_map(self, space) + self.root @ aligned_map(reply, space)
        return LinearGaussian(self.name, *space, mean, covariance=self.root @ reply.cov @ self.root.T)

    @property
    def normals(self) -> int:
        """How many standard normals a draw takes."""
        return self.map.shape[-2] if self.factor is None else self.factor.shape[-1]

    def draw(self, noise: Array, at: dict[str, Array], message: Quadratic | None, tau: Array | float) -> Array:
        """Values (n, size) drawn from the law, or from the law tilted by exp(tau message), by normals (n, r)."""
        law: Any = self
        if message is not None:
            law = message.tilt(self, Quadratic((), (), jnp.reshape(jnp.asarray(tau), (1, 1))))[1]
        return stacked_values(law.axes, at) @ law.map.T + noise.astype(law.map.dtype) @ law.root.T

    def cost(self, q: "LinearGaussian") -> Quadratic:
        """KL(q || this law) in nats, a function of what either depends on."""
        space = union(self, q)
        apart = aligned_map(self, space) - aligned_map(q, space)
        precision, pivots = inverse(self.cov)
        trace = jnp.sum(precision * q.cov) - len(self.cov)
        log_ratio = jnp.sum(jnp.log(pivots)) - 2 * jnp.sum(jnp.log(jnp.diagonal(cholesky(q.cov))))
        half = Quadratic(*space, apart.T @ precision @ apart / 2)
        return half.with_constant((trace + log_ratio) / 2)


class Noise(VectorLaw):
    """The standard normal law of the noise e of a decision's prior, walked in the place of the decision.

    Attributes:
        name: the decision.
        size: the number of coordinates of e.
    """

    name: str = eqx.field(static=True)
    size: int = eqx.field(static=True)
    root: None = None

    @property
    def map(self) -> Array:
        """The mean, zero."""
        return jnp.zeros((self.size, 1))

    @property
    def cov(self) -> Array:
        """The identity."""
        return jnp.eye(self.size)

    @property
    def standard(self) -> LinearGaussian:
        """The same law among others."""
        return LinearGaussian(self.name, (), (), self.map, self.cov, of_noise=True)

    @property
    def normals(self) -> int:
        """How many standard normals a draw takes."""
        return self.size

    def draw(self, noise: Array, at: dict[str, Array], message: Quadratic | None, tau: Array | float) -> Array:
        """Values (n, size) drawn from the law, or from the law tilted by exp(tau message)."""
        return self.standard.draw(noise, at, message, tau)

    def cost(self, q: LinearGaussian) -> Quadratic:
        """KL(q || this law) in nats."""
        return self.standard.cost(q)

    def within(self, w: Any, root: Array | None) -> Any:
        """The message over e, its other variables and the constant."""
        place = w.axes.index(self.name)
        before, order = sum(w.sizes[:place]), np.arange(sum(w.sizes) + 1)
        order = np.r_[order[before : before + self.size], order[:before], order[before + self.size :]]
        return w.reordered(without(w, place), order)

    def reply(self, space: Space, moved: Array, core: Array) -> LinearGaussian:
        """The law of e."""
        return LinearGaussian(self.name, *space, moved, covariance=core, of_noise=True)


def by_noise(prior: LinearGaussian, node: Any) -> Any:
    """A law or message of a decision u as one of the noise e of its prior, u = H [parents, 1] + L e.

    E comes first and has the name of u; a node that knows nothing of u stays. What is put in terms of e once, for all
    times together, need not be done inside a recursion.
    """
    if not is_named(node) or prior.name not in node.axes:
        return node
    place = node.axes.index(prior.name) - node.timed
    others = without(node, place)
    time = (TIME,) if node.timed or prior.timed else ()
    space = union(others, Space(prior.axes[prior.timed :], prior.sizes))
    axes, sizes = (*time, prior.name, *space[0]), (prior.root.shape[-1], *space[1])
    if not isinstance(node, LinearGaussian):
        found = where_timed(lambda w, law: law.within(w, law.root), node, prior)
        return dataclasses.replace(found, axes=axes, sizes=sizes)

    def moved(law: LinearGaussian, prior: LinearGaussian) -> Array:
        start, size = sum(law.sizes[:place]), law.sizes[place]
        own = law.map[:, start : start + size]
        rest = jnp.concatenate([law.map[:, :start], law.map[:, start + size :]], 1)
        kept = aligned_map(LinearGaussian(law.name, *others, rest), space)
        return jnp.concatenate([own @ prior.root, kept + own @ aligned_map(prior, space)], 1)

    maps = where_timed(moved, dataclasses.replace(node, factor=None, covariance=None), prior)
    factor, covariance = node.factor, node.covariance
    if time and not node.timed:
        # A law has its time in all of its arrays.
        own = (factor, covariance)
        factor, covariance = (None if x is None else jnp.broadcast_to(x, (len(maps), *x.shape)) for x in own)
    return dataclasses.replace(node, axes=axes, sizes=sizes, map=maps, factor=factor, covariance=covariance)


def without(w: Any, place: int) -> Space:
    """The variables of a message or law but for one."""
    axes = w.axes[w.timed :]
    return Space(axes[:place] + axes[place + 1 :], w.sizes[:place] + w.sizes[place + 1 :])


def aligned_map(law: LinearGaussian, space: Space) -> Array:
    """H over the coordinates of `space`."""
    index = space.index(Space(law.axes, law.sizes))
    return law.map if index is None else jnp.pad(law.map, ((0, 0), (0, 1)))[:, index]
