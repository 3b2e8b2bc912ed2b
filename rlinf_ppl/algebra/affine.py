"""How the next state depends on the variables of a step, for quadratics: affinely."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from rlinf_ppl.algebra.coordinates import stacked_values, union, unit_row
from rlinf_ppl.algebra.fixed_point import Linearized
from rlinf_ppl.algebra.gaussians import LinearGaussian, Noise, aligned_map, by_noise
from rlinf_ppl.algebra.messages import Arrival
from rlinf_ppl.algebra.times import is_named


class AffineArrival(Arrival[Any, Any]):
    """How the next state depends on the variables of a step: affinely.

    Attributes:
        sources: for each state variable, the variable of the step that becomes its next value, or None.
        maps: for the state variables without a source, the law of the next value, without noise.
    """

    sources: tuple[tuple[str, str | None], ...] = eqx.field(static=True)
    maps: dict[str, LinearGaussian]

    def quickest(
        self, sites: Any, state: dict[str, int], others: dict[str, int], repeated: bool, free: tuple[str, ...]
    ) -> "tuple[Any, AffineArrival]":
        """Decisions that are free to be walked as the noise of their priors are."""
        form: Any = sites, self
        for i, site in enumerate(sites):
            if site.name in free:
                prior = form[0][i].law
                walked, arrival = jax.tree.map(functools.partial(by_noise, prior), form, is_leaf=is_named)
                noise = dataclasses.replace(walked[i], content=Noise(site.name, others[site.name]))
                form = (*walked[:i], noise, *walked[i + 1 :]), arrival
        return form

    def linearized(
        self, before: Callable[[Array], Any], after: Callable[[Any], Array], v: Array, state: tuple[str, ...]
    ) -> Linearized:
        """A step at v and its derivative: `before` pulls the next message v, `after` walks the step."""
        return Linearized(*jax.linearize(lambda v: after(before(v)), v))

    def positions_at(self, at: dict[str, Array]) -> dict[str, Array]:
        """The next state (n, size) from values of the variables of this step."""
        return {
            name: stacked_values(self.maps[name].axes, at) @ self.maps[name].map.T if source is None else at[source]
            for name, source in self.sources
        }

    def pull(self, v: Any) -> Any:
        """The message about the next state as a function of the variables of this step."""
        source = dict(self.sources)
        taken = [source[name] for name in v.axes]
        if all(taken) and len(set(taken)) == len(taken):
            return dataclasses.replace(v, axes=tuple(str(name) for name in taken))
        size = dict(zip(v.axes, v.sizes, strict=True))
        laws = [
            self.maps[name] if source[name] is None else identity(name, str(source[name]), size[name])
            for name in v.axes
        ]
        space = union(*laws)
        whole = jnp.concatenate([*(aligned_map(law, space) for law in laws), unit_row(space)])
        return v.substituted(space, whole)


def identity(name: str, source: str, size: int) -> LinearGaussian:
    """The law of what equals another variable."""
    return LinearGaussian(name, (source,), (size,), jnp.eye(size, size + 1), jnp.zeros((size, 0)))
