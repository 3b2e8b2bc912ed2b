"""The log likelihood and its slopes as compiled functions of one vector of parameters: each compiled once for a fit."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.behaviour.likelihood import Likelihood, Parameters, described
from rlinf_ppl.behaviour.panel import Panel


@compiled
def terms_at(likelihood: Likelihood, parameters: Parameters) -> Array:
    """The log probability of each row, (n, T)."""
    return likelihood.terms(parameters)


@compiled
def total_and_slope(likelihood: Likelihood, x: Array, unflatten: Callable[[Array], Any]) -> tuple[Array, Array]:
    """The sum of all rows, and its slope."""
    return jax.value_and_grad(lambda x: likelihood.total(unflatten(x)))(x)


@compiled
def curvature_at(likelihood: Likelihood, x: Array, unflatten: Callable[[Array], Any]) -> Array:
    """The second derivatives of the sum."""
    found: Array = jax.jacfwd(jax.grad(lambda x: likelihood.total(unflatten(x))))(x)
    return found


@compiled
def scores_at(likelihood: Likelihood, x: Array, unflatten: Callable[[Array], Any]) -> Array:
    """The slope of each row, (n, T, parameters)."""
    found: Array = jax.jacfwd(lambda x: likelihood.terms(unflatten(x)))(x)
    return found


class Objective(NamedTuple):
    """The log likelihood as a function of one vector.

    Attributes:
        likelihood: the likelihood.
        unflatten: makes parameters of the vector.
    """

    likelihood: Likelihood
    unflatten: Callable[[Array], dict[str, Array]]

    @classmethod
    def of(cls, likelihood: Likelihood, parameters: Mapping[str, Any]) -> "tuple[Objective, Array]":
        """The objective, and parameters as a vector."""
        floats = {name: jnp.asarray(value, dtype=float) for name, value in parameters.items()}
        flat, unflatten = ravel_pytree(floats)
        return cls(likelihood, unflatten), flat

    def terms(self, x: Array) -> Array:
        """The log probability of each row, (n, T)."""
        return terms_at(self.likelihood, self.unflatten(x))

    def value_and_slope(self, x: Array) -> tuple[Array, Array]:
        """The sum of all rows, and its slope."""
        return total_and_slope(self.likelihood, x, self.unflatten)

    def curvature(self, x: Array) -> Array:
        """The second derivatives of the sum."""
        return curvature_at(self.likelihood, x, self.unflatten)

    def scores(self, x: Array) -> Array:
        """The slope of each row, (n, T, parameters)."""
        return scores_at(self.likelihood, x, self.unflatten)

    def bounded(self, x: Array) -> Array:
        """The parameters from numbers without bounds, flat both."""
        transforms, free = self.likelihood.transforms, self.unflatten(x)
        return ravel_pytree({name: transforms[name](value) for name, value in free.items()})[0]

    def unbounded(self, x: Array) -> Array:
        """Numbers without bounds from the parameters."""
        transforms, found = self.likelihood.transforms, self.unflatten(x)
        return ravel_pytree({name: transforms[name].inv(value) for name, value in found.items()})[0]

    def loss(self, x: np.ndarray) -> tuple[Array, Array]:
        """Minus the log likelihood and its slope at numbers without bounds."""
        at, pull = jax.vjp(self.bounded, jnp.asarray(x))
        value, slope = self.value_and_slope(at)
        return -value, -pull(slope)[0]

    def bend(self, x: np.ndarray) -> np.ndarray:
        """The second derivatives of `loss`: those of the likelihood, and of the way to numbers without bounds."""
        free = jnp.asarray(x)
        at, way = self.bounded(free), jax.jacfwd(self.bounded)(free)
        _, slope = self.value_and_slope(at)
        own = jax.hessian(lambda y: jnp.dot(self.bounded(y), slope))(free)
        return -np.asarray(way.T @ self.curvature(at) @ way + own)

    def check(self, panel: Panel, x: Array) -> None:
        """Raise where a row has probability zero, or no probability, at some parameters.

        Raises:
            ValueError: so it is.
        """
        rows = panel.rows(self.terms(x))
        wrong = np.flatnonzero(~np.isfinite(rows))
        if len(wrong):
            row = panel.frame.iloc[wrong[0]]
            what = "probability zero" if np.isneginf(rows[wrong[0]]) else "no probability (NaN)"
            raise ValueError(
                f"row {row.name} has {what} at {described(self.unflatten(x))}: {dict(row)}. What was done must be "
                "possible under the prior of its decision, which a lapse helps where a policy is certain; and a state "
                "must be one that can follow the one before."
            )
