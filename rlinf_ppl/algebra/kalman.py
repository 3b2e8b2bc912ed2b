"""Kalman's filter by roots of covariances, which stay symmetric and positive (Kalman 1960; Potter 1963).

    x' = A x + B u + c + W^1/2 v,       y = C x' + R^1/2 w,       what is known of x is N(m, F F')

What is seen is seen without noise, of the vector (x', w), whose root is [(A F, W^1/2) 0; 0 I]: one row h of (C, R^1/2)
after the other, with f = root' h and s = |f|^2,

    g = root f / s^1/2,      e = (h y's own number - its mean) / s^1/2 ~ N(0, 1),
    mean += g e,             root -= root f f' / s

so that R, W and the first covariance may be singular, or nothing be seen at all. A number that those before it tell has
s = 0 and moves nothing. The g of all rows together are G, with G G' = K S K': the mean's own noise.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.algebra.squares import triangle


class System(NamedTuple):
    """What moves and what is seen, with roots in the place of covariances; each leads with time."""

    transition: Float[Array, "T n n"]
    noise_root: Float[Array, "T n n"]
    observation: Float[Array, "T p n"]
    observation_root: Float[Array, "T p p"]


class Filter(NamedTuple):
    """What a filter knows before anything is seen.

    Attributes:
        gain: K, by which the mean moves per unit of y that was not foreseen.
        root: G, the mean's own noise per unit of a standard normal.
        cov: of the state, given what was seen up to there; the first is given.
    """

    gain: Float[Array, "T n p"]
    root: Float[Array, "T n p"]
    cov: Float[Array, "T_plus_1 n n"]


@compiled
def kalman(system: System, first_root: Float[Array, "n n"]) -> Filter:
    """The filter over all steps.

    Args:
        system: what moves, and what is seen of where it arrives.
        first_root: a root of the covariance of the first state.
    """

    def one(root: Array, now: System) -> tuple[Array, tuple[Array, Array, Array]]:
        ahead = triangle(jnp.concatenate([(now.transition @ root).T, now.noise_root.T])).T
        gain, moved, root = seen(ahead, now.observation, now.observation_root)
        return root, (gain, moved, root @ root.T)

    _, (gain, moved, covs) = lax.scan(one, first_root, system)
    return Filter(gain, moved, jnp.concatenate([(first_root @ first_root.T)[None], covs]))


def seen(
    root: Float[Array, "n n"], observation: Float[Array, "p n"], observation_root: Float[Array, "p p"]
) -> tuple[Float[Array, "n p"], Float[Array, "n p"], Float[Array, "n n"]]:
    """What an observation does: its gain, what it adds to the mean per standard normal, and the root after it.

    Args:
        root: of the covariance before.
        observation: C.
        observation_root: a root of R.
    """
    n, p = len(root), len(observation)
    rows = jnp.concatenate([observation, observation_root], 1)
    both = jnp.zeros((n + p, n + p)).at[:n, :n].set(root).at[n:, n:].set(jnp.eye(p))
    sizes = jnp.sum((rows @ both) ** 2, 1)
    # What remains of a number that is known already is rounding.
    least = (8 * (n + p) * jnp.finfo(root.dtype).eps) ** 2 * sizes
    moved, unforeseen = [], jnp.eye(p)
    for j in range(p):
        f = both.T @ rows[j]
        s = jnp.sum(f**2)
        told = s > least[j]
        inside = jnp.where(told, jnp.where(told, s, 1.0) ** -0.5, 0.0)
        f = f * inside
        g = both @ f
        moved.append(g)
        # e = unforeseen[j] (y - C m); what later rows have foreseen by then
        unforeseen = unforeseen.at[j].multiply(inside)
        later = jnp.where(jnp.arange(p) > j, rows @ g, 0.0)
        unforeseen = unforeseen - jnp.outer(later, unforeseen[j])
        both = both - jnp.outer(g, f)
    per_normal = jnp.stack(moved, 1)[:n]
    return per_normal @ unforeseen, per_normal, triangle(both[:n].T).T
