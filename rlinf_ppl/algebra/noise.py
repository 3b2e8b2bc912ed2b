"""Random numbers for many variables at once: compiled, a generator of random bits is longer than what it feeds."""

from collections.abc import Mapping

import jax
from jaxtyping import Array, PRNGKeyArray


def fresh_noise(key: PRNGKeyArray | Array, n: int, normals: Mapping[str, int]) -> dict[str, Array]:
    """What n draws of each variable are made from.

    Args:
        key: a random key.
        n: how many.
        normals: for each variable how many standard normals a draw takes; 0: one uniform.

    Returns:
        For each variable (n,) uniforms in [0, 1), or (n, its number) normals; independent.
    """
    uniform_key, normal_key = jax.random.split(key)
    finite = [name for name, size in normals.items() if size == 0]
    uniforms = jax.random.uniform(uniform_key, (len(finite) * n,)).reshape(len(finite), n)
    found = dict(zip(finite, uniforms, strict=True))
    gaussian, first = jax.random.normal(normal_key, (n * sum(normals.values()),)).reshape(n, -1), 0
    for name, size in normals.items():
        if size:
            found[name] = gaussian[:, first : first + size]
            first += size
    return found
