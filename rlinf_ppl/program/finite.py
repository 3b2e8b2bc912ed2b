"""NumPyro distributions over given values, by logits that may stand for probability zero, or by probabilities."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from jaxtyping import Array

from rlinf_ppl.types import ArrayLike

# Stands for log 0: its exponential is exactly 0, and NumPyro's validation accepts it.
IMPOSSIBLE = -1e30


class Finite(dist.Distribution):
    """A distribution over given values by unnormalised log probabilities.

    Args:
        logits: shape (K,).
        values: shape (K,), increasing.
    """

    arg_constraints = {"logits": dist.constraints.real_vector}
    pytree_data_fields = ("logits", "values")
    has_enumerate_support = True

    def __init__(self, logits: Array, values: Array, *, validate_args: bool | None = None):
        self.logits, self.values = logits, values
        super().__init__(batch_shape=logits.shape[:-1], validate_args=validate_args)

    @property
    def support(self) -> dist.constraints.Constraint:
        """The interval of integers that holds the values."""
        return dist.constraints.integer_interval(self.values[0], self.values[-1])

    @property
    def probs(self) -> Array:
        """The probability of each value, (K,)."""
        return jax.nn.softmax(self.logits)

    def sample(self, key: Array | None, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw values; shape sample_shape + batch_shape."""
        assert key is not None
        return self.values[jax.random.categorical(key, self.logits, shape=sample_shape + self.batch_shape)]

    def log_prob(self, value: ArrayLike) -> Array:
        """Log probability of values of the support."""
        log_p, value = jax.nn.log_softmax(self.logits), jnp.asarray(value)
        position = jnp.searchsorted(self.values, value)
        shape = lax.broadcast_shapes(value.shape, self.batch_shape)
        log_p = jnp.broadcast_to(log_p, (*shape, log_p.shape[-1]))
        return jnp.take_along_axis(log_p, jnp.broadcast_to(position, shape)[..., None], -1)[..., 0]

    def enumerate_support(self, expand: bool = True) -> Array:
        """All values, along a new leading axis."""
        values = self.values.reshape((-1,) + (1,) * len(self.batch_shape))
        return jnp.broadcast_to(values, values.shape[:1] + self.batch_shape) if expand else values


class Rowed(dist.Distribution):
    """Probabilities of given values, exact where they are 0.

    Args:
        probs: shape (K,).
        values: shape (K,), increasing.
    """

    pytree_data_fields = ("probs",)
    pytree_aux_fields = ("values",)
    has_enumerate_support = True

    def __init__(self, probs: Array, values: Any):
        # The values are known, where a trace asks for them, too.
        self.probs, self.values = probs, values
        super().__init__(validate_args=False)

    @property
    def support(self) -> Any:
        """The interval of integers that holds the values."""
        return dist.constraints.integer_interval(self.values[0], self.values[-1])

    def sample(self, key: Array | None, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw values."""
        assert key is not None
        return jax.random.choice(key, jnp.asarray(self.values), sample_shape, p=self.probs)

    def log_prob(self, value: Any) -> Array:
        """Log probability of values of the support."""
        return jnp.log(self.probs)[jnp.searchsorted(jnp.asarray(self.values), value)]

    def enumerate_support(self, expand: bool = True) -> Array:
        """All values."""
        return jnp.asarray(self.values)
