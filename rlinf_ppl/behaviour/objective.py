"""The log likelihood and its slopes as compiled functions of one vector of parameters: each compiled once for a fit."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from rlinf_ppl.behaviour.likelihood import Likelihood, described


class Objective:
    """The log likelihood of a panel.

    Args:
        likelihood: of the panel.
        parameters: of the structure that all have.
    """

    def __init__(self, likelihood: Likelihood, parameters: Mapping[str, Any]):
        self.likelihood = likelihood
        floats = {name: jnp.asarray(value, dtype=float) for name, value in parameters.items()}
        self.unflatten = ravel_pytree(floats)[1]

    @cached_property
    def terms(self) -> Any:
        """The log probability of each row, (n, T)."""
        return jax.jit(lambda x: self.likelihood.terms(self.unflatten(x)))

    @cached_property
    def value_and_slope(self) -> Any:
        """The sum of all rows, and its slope."""
        return jax.jit(jax.value_and_grad(lambda x: self.likelihood.total(self.unflatten(x))))

    @cached_property
    def curvature(self) -> Any:
        """The second derivatives of the sum."""
        return jax.jit(jax.jacfwd(jax.grad(lambda x: self.likelihood.total(self.unflatten(x)))))

    @cached_property
    def scores(self) -> Any:
        """The slope of each row, (n, T, parameters)."""
        return jax.jit(jax.jacfwd(lambda x: self.likelihood.terms(self.unflatten(x))))

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

    def check(self, x: Array) -> None:
        """Raise where a row has probability zero, or no probability, at some parameters.

        Raises:
            ValueError: so it is.
        """
        panel = self.likelihood.panel
        rows = panel.rows(self.terms(x))
        wrong = np.flatnonzero(~np.isfinite(rows))
        if len(wrong):
            row = panel.frame.iloc[wrong[0]]
            what = "probability zero" if np.isneginf(rows[wrong[0]]) else "no probability (NaN)"
            raise ValueError(
                f"row {row.name} has {what} at {described(self.unflatten(x))}: {dict(row)}. What was done must be "
                "possible under the prior of its decision and at finite parameters; a lapse makes anything possible "
                "that is."
            )
