"""Random numbers for many variables at once: compiled, a generator of random bits is longer than what it feeds."""

import math
from collections.abc import Mapping

import jax
from jaxtyping import Array, PRNGKeyArray


def fresh_noise(
    key: PRNGKeyArray | Array, shape: tuple[int, ...], normals: Mapping[str, int | None]
) -> dict[str, Array]:
    """What draws of each variable are made from.

    Args:
        key: a random key.
        shape: of the draws of one variable.
        normals: for each variable how many standard normals a draw takes; 0: one uniform, None: a key of its own.

    Returns:
        For each variable uniforms in [0, 1) of this shape, normals with their number as a last axis, or random keys;
        independent.
    """
    keyed = [name for name, size in normals.items() if size is None]
    found = {}
    if keyed:
        key, own_key = jax.random.split(key)
        found = dict(zip(keyed, jax.random.split(own_key, (len(keyed), *shape)), strict=True))
    counts = {name: size for name, size in normals.items() if size is not None}
    finite, total = [name for name, size in counts.items() if size == 0], sum(counts.values())
    uniform_key, normal_key = jax.random.split(key) if finite and total else (key, key)
    # A row that is reshaped compiles in a third of the time of an array of several axes, to the same numbers.
    count = math.prod(shape)
    uniforms = jax.random.uniform(uniform_key, (len(finite) * count,)).reshape(len(finite), *shape)
    found |= dict(zip(finite, uniforms, strict=True))
    gaussian, first = jax.random.normal(normal_key, (count * total,)).reshape(*shape, total), 0
    for name, size in counts.items():
        if size:
            found[name] = gaussian[..., first : first + size]
            first += size
    return found
