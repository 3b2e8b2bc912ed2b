"""Decisions that do not see each other: the fixed point of their soft replies, a logit equilibrium.

With W over the joint values and W_i = E_{q_-i} W what player i expects of each of its own, every i replies

    q_i = argmax_q <q, W_i> - Omega_i(q) / tau_i,             V = E_q W - sum_i Omega_i(q_i) / tau_i

(McKelvey & Palfrey 1995, Quantal response equilibria for normal form games; there with uniform priors). A negative
tau_i minimises, so opposite signs are a zero-sum game. There can be several fixed points. The one meant here lies on
the principal branch: all inverse temperatures are multiplied by lambda, and the solution is followed from lambda = 0,
where everybody keeps the prior, until lambda is 1 for the first time. The branch may turn back on the way, so it is
followed along its length (Turocy 2005, A dynamic homotopy interpretation of the logistic quantal response
equilibrium correspondence): a step along the tangent, then Newton's method across it. Other branches come near where
the derivative is nearly singular, so a step takes half of the way to there at most. In symmetric games branches cross,
and this one goes straight on; so it does where payoffs differ by no more than rounding from symmetric ones (1e-5 of
them in float32, 1e-11 in float64).

The unknowns are x_i = lambda tau_i (W_i - mean W_i), and q_i(x_i) the policy at inverse temperature 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from rlinf_ppl.algebra.regularizers import Regularizer
from rlinf_ppl.algebra.small_matrices import solve

MOST_STEPS = 1000
NEWTON_STEPS = 6
FIRST_LENGTH = 1 / 4
# How far off the tangent a step may end, as a part of its length.
SLACK = 1 / 8


class Player(eqx.Module):
    """One decision of a block: its prior (K,), its inverse temperature (None: 1) and what it pays."""

    prior: Float[Array, " K"]
    tau: Float[Array, ""] | None
    regularizer: Regularizer = eqx.field(static=True)


class Trace(NamedTuple):
    """Where the tracing of the branch is.

    Attributes:
        point: x of all players side by side, and lambda times what it is scaled by.
        direction: the unit tangent, the way that was taken so far.
        free: how far it goes on, to first order, before the branch's derivative may be singular: there other branches
            cross this one, or come near.
        length: of the next step.
        tries: the number of steps tried.
        landed: whether lambda is 1.
    """

    point: Array
    direction: Array
    free: Float[Array, ""]
    length: Float[Array, ""]
    tries: Int[Array, ""]
    landed: Bool[Array, ""]


def policies(players: tuple[Player, ...], x: Float[Array, " n"]) -> list[Array]:
    """Everybody's policy from all logits side by side."""
    found, start = [], 0
    for player in players:
        end = start + player.prior.shape[0]
        found.append(player.regularizer.maximum(player.prior, x[start:end])[0])
        start = end
    return found


def expected(w: Float[Array, "..."], q: list[Array]) -> list[Array]:
    """W_i for every player: W averaged over all the others."""
    return [averaged(w, [None if j == i else other for j, other in enumerate(q)]) for i in range(len(q))]


def averaged(w: Float[Array, "..."], q: list[Array | None]) -> Float[Array, "..."]:
    """W averaged over the axes that have a policy."""
    for axis in reversed(range(len(q))):
        own = q[axis]
        if own is not None:
            w = jnp.tensordot(w, own, axes=(axis, 0))
    return w


def gap(w: Float[Array, "..."], players: tuple[Player, ...], x: Float[Array, " n"], scale: Array) -> Float[Array, " n"]:
    """How far the logits x are from the replies to them, at inverse temperatures multiplied by `scale`."""
    replies = [
        (own - jnp.mean(own)) * (scale if player.tau is None else scale * player.tau)
        for own, player in zip(expected(w, policies(players, x)), players, strict=True)
    ]
    return x - jnp.concatenate(replies)


def principal(w: Float[Array, "..."], players: tuple[Player, ...]) -> Float[Array, " n"]:
    """The logits of the equilibrium on the principal branch, differentiable by the implicit function theorem."""
    w = w - lax.stop_gradient(jnp.mean(w))
    one = jnp.ones((), w.dtype)

    def find(_: Callable[[Array], Array], x: Array) -> Array:
        return followed(*jax.tree.map(lax.stop_gradient, (w, players)))

    def linear_solve(function: Callable[[Array], Array], y: Array) -> Array:
        return solve(jax.jacfwd(function)(jnp.zeros_like(y)), jnp.eye(len(y), dtype=y.dtype)) @ y

    nobody = jnp.zeros(sum(player.prior.shape[0] for player in players), w.dtype)
    return lax.custom_root(lambda x: gap(w, players, x, one), nobody, find, linear_solve)


def followed(w: Float[Array, "..."], players: tuple[Player, ...]) -> Float[Array, " n"]:
    """Follow the branch from lambda = 0 to lambda = 1; where that fails, the logits that were reached."""
    # The last coordinate is lambda in the units of the logits, so that all of them are about as long.
    taus = jnp.stack([jnp.ones((), w.dtype) if player.tau is None else player.tau for player in players])
    end = jnp.maximum(1.0, jnp.max(jnp.abs(taus)) * jnp.max(jnp.abs(w)))

    def branch(z: Array) -> Array:
        return gap(w, players, z[:-1], z[-1] / end)

    nobody = jnp.zeros(1 + sum(player.prior.shape[0] for player in players), w.dtype)
    one, precision = jnp.ones((), w.dtype), float(jnp.finfo(w.dtype).eps) ** 0.75
    upwards, free = tangent(branch, nobody, nobody.at[-1].set(1.0))
    start = Trace(nobody, upwards, free, FIRST_LENGTH * one, jnp.zeros((), int), jnp.zeros((), bool))

    def going(now: Trace) -> Array:
        return ~now.landed & (now.tries < MOST_STEPS) & (now.length > precision)

    return lax.while_loop(going, lambda now: further(branch, end, now, precision), start).point[:-1]


def further(branch: Callable[[Array], Array], end: Array, now: Trace, precision: float) -> Trace:
    """Try one step along the branch, and a shorter one next where it may have led elsewhere."""
    # Where branches cross, as they do in symmetric games, the shortest steps pass straight on.
    eps = float(jnp.finfo(now.point.dtype).eps)
    length = jnp.minimum(now.length, jnp.maximum(now.free / 2, 2 * eps ** (1 / 3)))
    landing = now.point[-1] + length * now.direction[-1] >= end
    length = jnp.where(landing, (end - now.point[-1]) / jnp.where(landing, now.direction[-1], 1.0), length)
    guess = now.point + length * now.direction
    point, error = across(branch, guess, jnp.where(landing, jnp.zeros_like(guess).at[-1].set(1.0), now.direction))
    direction, free = tangent(branch, point, now.direction)
    missed, turn = jnp.linalg.norm(point - guess), direction @ now.direction
    # A long miss may mean another branch; past the end there is nothing to look for.
    good = (error <= precision * (1 + jnp.max(jnp.abs(point)))) & (missed <= SLACK * length)
    good &= landing | (point[-1] < end)
    easy = good & (missed <= SLACK / 4 * length) & (turn > 1 - SLACK / 4)
    return Trace(
        jnp.where(good, point, now.point),
        jnp.where(good, direction, now.direction),
        jnp.where(good, free, now.free),
        jnp.where(good, jnp.where(easy, 2 * length, length), length / 4),
        now.tries + 1,
        good & landing,
    )


def across(branch: Callable[[Array], Array], z: Array, row: Array) -> tuple[Array, Array]:
    """Newton's method in the plane through z across the row; how far it is from the branch at the end."""

    def step(_: Array, now: Array) -> Array:
        error = jnp.append(branch(now), row @ (now - z))
        return now - solve(bordered(branch, now, row), error[:, None])[:, 0]

    end = lax.fori_loop(0, NEWTON_STEPS, step, z)
    return end, jnp.max(jnp.abs(branch(end)))


def tangent(branch: Callable[[Array], Array], z: Array, before: Array) -> tuple[Array, Array]:
    """The unit tangent at z, the way that `before` goes, and how far that is free; see `Trace`.

    It is `before` without what leads off the branch. That is damped, so that where branches cross, and off has no
    direction of its own, rounding does not turn it.
    """
    derivative, eye = jax.jacfwd(branch)(z), jnp.eye(len(z), dtype=z.dtype)
    damped = derivative @ derivative.T + 16 * jnp.finfo(z.dtype).eps * eye[:-1, :-1]
    way = before - derivative.T @ solve(damped, (derivative @ before)[:, None])[:, 0]
    way = way / jnp.linalg.norm(way)
    inverse = solve(jnp.concatenate([derivative, way[None]]), eye)[:, :-1]
    change = jax.jvp(jax.jacfwd(branch), (z,), (way,))[1]
    return way, 1 / jnp.linalg.norm(inverse @ change)


def bordered(branch: Callable[[Array], Array], z: Array, row: Array) -> Array:
    """The derivative of the branch's equations, and one more row."""
    return jnp.concatenate([jax.jacfwd(branch)(z), row[None]])


def equilibrium(
    w: Float[Array, "..."], players: tuple[Player, ...]
) -> tuple[tuple[Array, ...], Float[Array, ""], Float[Array, ""]]:
    """The equilibrium on the principal branch.

    Args:
        w: what the joint values are worth, one axis a player.
        players: in the order of the axes.

    Returns:
        Every player's policy, the value, and the residual: the largest difference of a probability from the reply to
        the others' policies. It is large where the branch was lost.
    """
    return judged(w, players, policies(players, principal(w, players)))


def judged(
    w: Float[Array, "..."], players: tuple[Player, ...], q: list[Array]
) -> tuple[tuple[Array, ...], Float[Array, ""], Float[Array, ""]]:
    """Policies, their value and their residual as an equilibrium; see `equilibrium`.

    Omega_i / tau_i is <q_i, W_i> less the value of the reply to W_i, which has a limit where tau_i is 0.
    """
    both = [
        player.regularizer.maximum(player.prior, own, player.tau)
        for own, player in zip(expected(w, q), players, strict=True)
    ]
    residual = jnp.max(jnp.stack([jnp.max(jnp.abs(own - reply)) for own, (reply, _) in zip(q, both, strict=True)]))
    value = sum(value for _, value in both) - (len(players) - 1) * averaged(w, list(q))
    return tuple(q), value, lax.stop_gradient(residual)


def settle(w: Float[Array, "..."], players: tuple[Player, ...], q: list[Array]) -> Float[Array, " n"]:
    """The logits at which Newton's method arrives from the replies to the policies q; a root of `gap`, or none."""
    one = jnp.ones((), w.dtype)

    def error(x: Array) -> Array:
        return gap(w, players, x, one)

    def step(_: Array, x: Array) -> Array:
        move = solve(jax.jacfwd(error)(x), error(x)[:, None])[:, 0]
        trials = x[None] - jnp.outer(0.5 ** jnp.arange(8.0), move)
        return trials[jnp.nanargmin(jnp.sum(jax.vmap(error)(trials) ** 2, 1))]

    start = jnp.concatenate([jnp.log(jnp.maximum(own, 1e-12)) for own in q])
    return lax.fori_loop(0, 100, step, start - error(start))
