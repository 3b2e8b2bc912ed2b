"""Resampling of weighted particles, in log weights.

Systematic resampling (Kitagawa 1996) lays N points (u + j) / N, one uniform u for all, over the cumulated normalised
weights C_i. Particle i has a child for every point between C_{i-1} and C_i, so N w_i of them on average, and never a
whole one more or less. Its children end before number

    end_i = ceil(N C_i - u),        and child j descends from the particle number #{i: end_i <= j}.

The ends are counted into bins and the counts summed up: no sorting, no searching. In float32 the C_i are summed up in
blocks, with whole numbers for what stands before a block: N C_i as one float32 is off by a child and more from some
millions of particles on, which makes light particles heavier (a moment was off by 15 standard errors at N = 1e7).

Weights may be equal, all on one particle, or 0 (-inf); NaN counts as 0, and where nothing has any weight all are alike.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

# Particles whose weights float32 sums up: few enough for its digits, and many enough for few blocks.
BLOCK = 1024
# Of so many particles N^2 comparisons are faster, in a third of the time at 32; at 256 they take 28 times as long.
FEW = 64


def normalize(log_weights: Float[Array, " N"]) -> tuple[Float[Array, " N"], Float[Array, ""]]:
    """Weights that sum to one, and the log of what they summed to, -inf where nothing has any weight."""
    known = jnp.where(jnp.isnan(log_weights), -jnp.inf, log_weights)
    peak = jnp.max(known)
    finite = jnp.isfinite(peak)
    # Where the largest is infinite, all who are that large share alike.
    weights = jnp.where(finite, jnp.exp(known - jnp.where(finite, peak, 0.0)), (known == peak).astype(known.dtype))
    total = jnp.sum(weights)
    return weights / total, jnp.where(finite, peak + jnp.log(total), peak)


def effective_size(weights: Float[Array, " N"]) -> Float[Array, ""]:
    """1 / sum w^2 of normalised weights, between 1 and N (Kong 1992)."""
    return 1.0 / jnp.sum(weights**2)


def systematic(key: PRNGKeyArray | Array, weights: Float[Array, " N"]) -> Int[Array, " N"]:
    """For each child its ancestor, in increasing order, from normalised weights."""
    return children(jax.random.uniform(key, dtype=weights.dtype), weights)


def multinomial(key: PRNGKeyArray | Array, weights: Float[Array, " N"]) -> Int[Array, " N"]:
    """For each child its ancestor, drawn independently: noisier, and with a probability that has a gradient."""
    cumulated = jnp.cumsum(weights)
    points = jax.random.uniform(key, weights.shape, weights.dtype) * cumulated[-1]
    drawn = jnp.searchsorted(cumulated, points, side="right").astype(jnp.int32)
    return jnp.minimum(drawn, jnp.sum(cumulated < cumulated[-1]).astype(jnp.int32))


def conditional_systematic(key: PRNGKeyArray | Array, weights: Float[Array, " N"]) -> Int[Array, " N"]:
    """Systematic resampling given that child 0 descends from particle 0 (Chopin & Singh 2015, algorithm 4).

    The uniform is drawn given that particle 0 has children, each number of them with the weight of that number, and
    the children are turned round so that one of particle 0's, with equal chances, is child 0.
    """
    pick_key, uniform_key, turn_key = jax.random.split(key, 3)
    n = weights.shape[0]
    expected = n * weights[0]
    whole = jnp.floor(expected)
    rest = expected - whole
    # With one child more, u < rest; a particle with that many children is that much likelier to keep one.
    more = jax.random.uniform(pick_key, dtype=weights.dtype) * expected < rest * (whole + 1)
    u = jax.random.uniform(uniform_key, dtype=weights.dtype)
    ancestors = children(jnp.where(more, u * rest, rest + u * (1 - rest)), weights)
    number = jnp.maximum(jnp.sum(ancestors == 0), 1)
    turned = jnp.roll(ancestors, -jax.random.randint(turn_key, (), 0, number))
    return turned.at[0].set(0)


def children(u: Float[Array, ""], weights: Float[Array, " N"]) -> Int[Array, " N"]:
    """The ancestors of N children for a given uniform u in [0, 1)."""
    n = weights.shape[0]
    # No index lies outside, as a program's step is asked for.
    ended = jnp.zeros(n + 1, jnp.int32).at[jnp.clip(ends_of(u, weights), 0, n)].add(1)[:n]
    ancestors = jnp.minimum(jnp.cumsum(ended, dtype=jnp.int32), n - 1).astype(jnp.int32)

    def weighty(ancestors: Array) -> Array:
        # Rounding of the sums may leave a child to a particle without weight: it goes to the next one before it.
        own = jnp.where(weights > 0, jnp.arange(n, dtype=jnp.int32), -1)
        return jnp.maximum(lax.cummax(own), jnp.argmax(weights > 0).astype(jnp.int32))[ancestors]

    return lax.cond(jnp.any(weights[ancestors] == 0), weighty, lambda ancestors: ancestors, ancestors)


def children_of_any(u: Float[Array, ""], weights: Float[Array, " N"]) -> Int[Array, " N"]:
    """The same in a program that holds particles as a state, of many episodes side by side: few, as a rule."""
    return children_of_few(u, weights) if weights.shape[0] <= FEW else children(u, weights)


def children_of_few(u: Float[Array, ""], weights: Float[Array, " N"]) -> Int[Array, " N"]:
    """The same by comparing each child with each particle: N^2 comparisons, and nothing written on the way."""
    n = weights.shape[0]
    cumulated = jnp.cumsum(weights)
    points = (u + jnp.arange(n)) / n * cumulated[-1]
    # Rounding may leave a point beyond the last particle that has any weight.
    last = n - 1 - jnp.argmax(weights[::-1] > 0)
    return jnp.minimum(jnp.sum(cumulated[None] <= points[:, None], 1), last).astype(jnp.int32)


def ends_of(u: Float[Array, ""], weights: Float[Array, " N"]) -> Int[Array, " N"]:
    """Before which child the children of each particle end: ceil(N C_i - u)."""
    n = weights.shape[0]
    size = n if weights.dtype == jnp.float64 else min(n, BLOCK)
    blocks = jnp.cumsum(jnp.pad(weights, (0, -n % size)).reshape(-1, size), -1)
    blocks = blocks * (n / jnp.sum(blocks[:, -1]))
    before = jnp.concatenate([jnp.zeros(1, blocks.dtype), blocks[:-1, -1]])
    whole, rest = lax.associative_scan(plus, (jnp.floor(before).astype(jnp.int32), before - jnp.floor(before)))
    ends = whole[:, None] + jnp.ceil(rest[:, None] + blocks - u).astype(jnp.int32)
    return ends.reshape(-1)[:n]


def plus(one: tuple[Array, Array], other: tuple[Array, Array]) -> tuple[Array, Array]:
    """The sum of two numbers, each a whole number and a rest below one."""
    rest = one[1] + other[1]
    more = jnp.floor(rest)
    return one[0] + other[0] + more.astype(jnp.int32), rest - more
