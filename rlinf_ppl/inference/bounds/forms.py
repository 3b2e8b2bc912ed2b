"""Quadratics of standard normals, and the coefficients of a tilt side by side."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlinf_ppl.inference.bounds.tilting import Tilt


class Form(NamedTuple):
    """Quadratics b' e + e' A e, up to constants: b (d, K), A (d, K, K), symmetric."""

    b: Float[Array, "d K"]
    A: Float[Array, "d K K"]

    def plus(self, other: "Form") -> "Form":
        """The sum."""
        return Form(self.b + other.b, self.A + other.A)

    def times(self, factor: Any) -> "Form":
        """A multiple."""
        return Form(factor * self.b, factor * self.A)


def products(constant: Float[Array, " n"], slope: Float[Array, "n K"]) -> Form:
    """What coefficients of a tilt multiply, with z = constant + slope e: z_i, then -z_i z_j, half of it where i = j."""
    i, j = np.triu_indices(len(constant))
    half = np.where(i == j, 0.5, 1.0)
    b = -half[:, None] * (constant[i, None] * slope[j] + constant[j, None] * slope[i])
    outer = slope[i][:, :, None] * slope[j][:, None]
    A = -half[:, None, None] / 2 * (outer + jnp.swapaxes(outer, 1, 2))
    return Form(jnp.concatenate([slope, b]), jnp.concatenate([jnp.zeros((len(constant), *A.shape[1:])), A]))


def combined(form: Form, tilt: Tilt) -> Form:
    """The one quadratic that a tilt is."""
    entries = packed(tilt)
    return Form((entries @ form.b)[None], jnp.tensordot(entries, form.A, 1)[None])


def weights_of(of_state: np.ndarray, decided: np.ndarray, rates: Float[Array, "2"]) -> Any:
    """A function to rows whose sums of squares are the weighted variances of quadratics of e.

    Args:
        of_state: which coordinates of e are of the state.
        decided: which are of a decision.
        rates: what variances of the state and of decisions are multiplied by.
    """
    i, j = np.triu_indices(len(decided))
    # What a pair varies by is known with the later one.
    double, before, later = np.where(i == j, 2.0, 4.0), of_state[j], decided[j]

    def rows(taken: Form, led: Form) -> Float[Array, "R d"]:
        parts = [
            jnp.sqrt(rates[0]) * taken.b[:, of_state],
            jnp.sqrt(double[before] * rates[0])[None] * taken.A[:, i[before], j[before]],
            jnp.sqrt(rates[1]) * led.b[:, decided],
            jnp.sqrt(double[later] * rates[1])[None] * led.A[:, i[later], j[later]],
        ]
        return jnp.concatenate(parts, 1).T

    return rows


def packed(tilt: Tilt) -> Array:
    """The slope and the upper half of the curvature, side by side."""
    slope, curved = tilt
    i, j = np.triu_indices(slope.shape[-1])
    return jnp.concatenate([slope, curved[..., i, j]], -1)


def packed_slope(slope: Tilt) -> Array:
    """A slope in all entries of a tilt as one in those that `packed` takes."""
    first, second = slope
    i, j = np.triu_indices(first.shape[-1])
    return jnp.concatenate([first, np.where(i == j, 0.5, 1.0)[None] * (second[..., i, j] + second[..., j, i])], -1)


def unpacked(entries: Array, n: int) -> Tilt:
    """A tilt from what `packed` takes of it."""
    place, (i, j) = np.zeros((n, n), int), np.triu_indices(n)
    place[i, j] = place[j, i] = np.arange(len(i))
    return entries[..., :n], entries[..., n:][..., place]
