"""What users hand to engines beside a program, checked where they stand."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def check_key(key: Any) -> Array:
    """A JAX random key, of the new or the old kind.

    Raises:
        TypeError: it is none.
    """
    if isinstance(key, jax.Array) and key.ndim <= 1:
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or (key.dtype == jnp.uint32 and key.shape == (2,)):
            return key
    raise TypeError(f"key must be a JAX random key, such as jax.random.key(0); got {type(key).__name__}.")


def check_count(name: str, count: Any) -> int:
    """A whole number of at least 1.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is below 1.
    """
    if isinstance(count, bool):
        raise TypeError(f"{name} must be a whole number; got {count}.")
    try:
        whole = operator.index(count)
    except TypeError as error:
        raise TypeError(f"{name} must be a whole number; got {count!r}.") from error
    if whole < 1:
        raise ValueError(f"{name} must be at least 1; got {whole}.")
    return whole
