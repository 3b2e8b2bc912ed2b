"""Bounds of what a belief is worth, kept at finitely many beliefs: tangents from below, chords from above.

With prior p(a), inverse temperature beta and discount gamma the soft value of a partially observed process is

    V(b) = (1 / beta) log sum_a p(a) exp(beta Q_a(b)),      Q_a(b) = r(b, a) + gamma sum_o p(o | b, a) V(b'_{a, o})

and, as the log of a sum of exponentials of convex functions, convex in b (Smallwood & Sondik 1973 for beta infinite).
So of a convex bound W at the next time

    below   each belief has a linear function under V: q_a = r_a + gamma sum_o P_a U_o alpha of the best alpha at
            b'_{a, o}, and then alpha = sum_a pi_a (q_a - KL(pi || p) / beta), the worth of doing pi now and whatever
            the alphas say later (Pineau, Gordon & Thrun 2003 for beta infinite)
    above   b' = phi b_j + the rest, phi = min_s b'(s) / b_j(s), lies on chords from b_j to the corners, where the
            state is known, so V(b') <= sum_s b'(s) V(e_s) + phi (V(b_j) - sum_s b_j(s) V(e_s)): the sawtooth
            (Hauskrecht 2000)

Both are exact at beliefs whose successors are among those that are kept.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from rlinf_ppl.algebra.numerics import soft_maximum

AT_ONCE = 64


class Process(NamedTuple):
    """What is controlled.

    Attributes:
        transition: P(s' | s, a), (S, A, S).
        observation: p(o | s', a), (S, A, O).
        reward: (S, A).
        prior: over actions, (A,).
        beta: inverse temperature, in nats per unit of reward.
        discount: gamma.
    """

    transition: Float[Array, "S A S"]
    observation: Float[Array, "S A O"]
    reward: Float[Array, "S A"]
    prior: Float[Array, " A"]
    beta: Float[Array, ""]
    discount: Float[Array, ""]


class Points(NamedTuple):
    """Beliefs, and what they lead to.

    Attributes:
        beliefs: those that bounds are kept at, (N, S): the S where the state is known, the first one, and others.
        outside: beliefs that they lead to, and that are not among them, (M, S).
        following: for each belief, action and observation the position of the next one in both lists, (N, A, O).
        chances: p(o | b, a), (N, A, O).
    """

    beliefs: Float[Array, "N S"]
    outside: Float[Array, "M S"]
    following: Int[Array, "N A O"]
    chances: Float[Array, "N A O"]


class Bounds(NamedTuple):
    """What the beliefs are worth at most, and linear functions that nothing is worth less than.

    Attributes:
        upper: (N,).
        tangents: a linear function of the belief for each of them, (N, S).
    """

    upper: Float[Array, " N"]
    tangents: Float[Array, "N S"]


def backup(process: Process, points: Points, bounds: Bounds) -> tuple[Bounds, Float[Array, "N A"]]:
    """The bounds one step earlier, and what the upper one would do."""
    above = jnp.concatenate([bounds.upper, chords(points.beliefs, bounds.upper, points.outside)])
    rewards = points.beliefs @ process.reward
    ahead = jnp.sum(points.chances * above[points.following], -1)
    greedy, upper = soft_maximum(process.prior[None], rewards + process.discount * ahead, process.beta)
    return Bounds(upper, tangents_of(process, points, bounds.tangents)), greedy


def tangents_of(process: Process, points: Points, tangents: Float[Array, "N S"]) -> Float[Array, "N S"]:
    """Linear functions one step earlier, each that of the best reply at its belief."""
    return replies(process, points, tangents)[0]


class Controller(NamedTuple):
    """A policy with a node for each belief.

    Attributes:
        policy: the law of the action, (N, A).
        price: what that law costs, KL(pi || p) / beta, (N,).
        chosen: the node after each action and observation, (N, A, O).
    """

    policy: Float[Array, "N A"]
    price: Float[Array, " N"]
    chosen: Int[Array, "N A O"]


def replies(process: Process, points: Points, tangents: Float[Array, "N S"]) -> tuple[Float[Array, "N S"], Controller]:
    """Linear functions one step earlier, and what is done at each belief to get there."""
    best = lax.map(lambda b: jnp.argmax(tangents @ b), points.outside, batch_size=AT_ONCE)
    chosen = jnp.concatenate([jnp.arange(len(points.beliefs)), best])[points.following]

    def one(belief: Array, chosen: Array) -> tuple[Array, Array, Array]:
        q = acted(process, tangents, chosen)
        values = belief @ q
        policy, value = soft_maximum(process.prior, values, process.beta)
        # Not KL / beta: of a small beta that is what rounding leaves of the KL, divided by next to nothing.
        price = jnp.maximum(policy @ values - value, 0.0)
        return q @ policy - price, policy, price

    earlier, policy, price = lax.map(lambda each: one(*each), (points.beliefs, chosen), batch_size=AT_ONCE)
    return earlier, Controller(policy, price, chosen)


def followed(process: Process, controller: Controller, tangents: Float[Array, "N S"]) -> Float[Array, "N S"]:
    """What each node is worth one step earlier."""

    def one(policy: Array, price: Array, chosen: Array) -> Array:
        return acted(process, tangents, chosen) @ policy - price

    return lax.map(lambda each: one(*each), tuple(controller), batch_size=AT_ONCE)


def acted(process: Process, tangents: Float[Array, "N S"], chosen: Int[Array, "A O"]) -> Float[Array, "S A"]:
    """What states and actions are worth where a linear function is chosen after each action and observation."""
    # (A, S'): what the next state is worth, its observation averaged.
    ahead = jnp.sum(jnp.moveaxis(process.observation, 0, -1) * tangents[chosen], 1)
    return process.reward + process.discount * jnp.einsum("san,an->sa", process.transition, ahead)


def chords(beliefs: Float[Array, "N S"], values: Float[Array, " N"], at: Float[Array, "M S"]) -> Float[Array, " M"]:
    """The sawtooth: a convex function is at most this at `at`, where it is at most `values` at `beliefs`.

    Args:
        beliefs: the first S of them are the corners.
        values: at these.
        at: other beliefs.
    """
    corners = values[: beliefs.shape[1]]
    below = jnp.minimum(values - beliefs @ corners, 0.0)
    inverse = jnp.where(beliefs > 0, 1 / jnp.where(beliefs > 0, beliefs, 1.0), jnp.inf)

    def one(b: Array) -> Array:
        share = jnp.min(jnp.where(beliefs > 0, b[None] * inverse, jnp.inf), 1)
        return b @ corners + jnp.min(jnp.minimum(share, 1.0) * below)

    return lax.map(one, at, batch_size=AT_ONCE)


def of_seen_states(process: Process, value: Float[Array, " S"]) -> Float[Array, " S"]:
    """What states are worth one step earlier if they were seen from then on: at least what they are worth unseen."""
    q = process.reward + process.discount * jnp.einsum("san,n->sa", process.transition, value)
    return soft_maximum(process.prior[None], q, process.beta)[1]


def until_the_end(process: Process, points: Points, horizon: int) -> tuple[Bounds, Float[Array, "T N A"]]:
    """Bounds at all times, (T + 1, ...), and what the upper ones would do."""
    count, states = points.beliefs.shape
    nothing = Bounds(jnp.zeros(count), jnp.zeros((count, states)))

    def body(later: Bounds, _: None) -> tuple[Bounds, tuple[Bounds, Array]]:
        now, greedy = backup(process, points, later)
        return now, (now, greedy)

    _, (found, greedy) = lax.scan(body, nothing, None, length=horizon, reverse=True)
    joined = jax.tree.map(lambda all_times, last: jnp.concatenate([all_times, last[None]]), found, nothing)
    return Bounds(*joined), greedy


def without_end(
    process: Process, points: Points, tolerance: Float[Array, ""], most: int
) -> tuple[Bounds, Float[Array, "N A"]]:
    """Stationary bounds, which hold after any number of steps; what the upper one would do.

    They begin at the worth of states that are seen, and at that of the prior, and stop where what is still to come
    moves them by less than the tolerance, or by a hundredth of what lies between them at the first belief.
    """
    count, states = points.beliefs.shape
    left = 1 - process.discount
    blind = jnp.einsum("san,a->sn", process.transition, process.prior)
    prior_value = jnp.linalg.solve(jnp.eye(states) - process.discount * blind, process.reward @ process.prior)

    def seen_body(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        value, _, steps = carry
        now = jnp.minimum(of_seen_states(process, value), value)
        return now, jnp.max(value - now), steps + 1

    def moving(carry: tuple[Any, Array, Array], limit: Array) -> Array:
        return (carry[1] > limit * left) & (carry[2] < most)

    start = jnp.full(states, jnp.max(process.reward) / left), jnp.asarray(jnp.inf), jnp.asarray(0)
    seen, _, _ = lax.while_loop(lambda carry: moving(carry, tolerance), seen_body, start)

    def body(carry: tuple[Bounds, Array, Array]) -> tuple[Bounds, Array, Array]:
        before, _, steps = carry
        now, _ = backup(process, points, before)
        # Both hold already, and rounding must not lose what was reached.
        upper = jnp.minimum(now.upper, before.upper)
        rise = worth(points.beliefs, now.tangents) - worth(points.beliefs, before.tangents)
        tangents = jnp.where((rise > 0)[:, None], now.tangents, before.tangents)
        moved = jnp.maximum(jnp.max(before.upper - upper), jnp.max(jnp.maximum(rise, 0.0)))
        return Bounds(upper, tangents), moved, steps + 1

    def apart(bounds: Bounds) -> Array:
        return bounds.upper[states] - points.beliefs[states] @ bounds.tangents[states]

    first = Bounds(points.beliefs @ seen, jnp.broadcast_to(prior_value, (count, states)))
    found, _, _ = lax.while_loop(
        lambda carry: moving(carry, jnp.maximum(tolerance, 0.01 * apart(carry[0]))),
        body,
        (first, jnp.asarray(jnp.inf), jnp.asarray(0)),
    )
    limit = jnp.maximum(tolerance, 0.01 * apart(found))
    kept = kept_to(process, points, found.tangents, lambda carry: moving(carry, limit))
    return Bounds(found.upper, kept), backup(process, points, found)[1]


def kept_to(
    process: Process, points: Points, tangents: Float[Array, "N S"], moving: Callable[[Any], Array]
) -> Float[Array, "N S"]:
    """What a controller is worth that replies to some linear functions, and then stays as it is.

    A linear function that took another's place is better at its own belief, and may be worse elsewhere: what was built
    on the old one is still a bound, and yet nothing that a policy need reach that looks at these functions alone. Those
    of a controller are built on each other. Where they have not settled all are lowered by what is still to come, so
    that each is at most its own reply to them.
    """
    _, controller = replies(process, points, tangents)

    def body(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        before, _, steps = carry
        now = followed(process, controller, before)
        return now, jnp.max(before - now), steps + 1

    found, fall, _ = lax.while_loop(moving, body, (tangents, jnp.asarray(jnp.inf), jnp.asarray(0)))
    return found - process.discount / (1 - process.discount) * jnp.maximum(fall, 0.0)


def worth(beliefs: Float[Array, "N S"], tangents: Float[Array, "*T N S"]) -> Float[Array, "*T N"]:
    """What each belief's own linear function says of it."""
    return jnp.einsum("ns,...ns->...n", beliefs, tangents)


def highest(beliefs: Float[Array, "M S"], tangents: Float[Array, "N S"]) -> Float[Array, " M"]:
    """What the best linear function says of each belief."""
    return lax.map(lambda b: jnp.max(tangents @ b), beliefs, batch_size=AT_ONCE)


def widths(points: Points, bounds: Bounds) -> Float[Array, " M"]:
    """How far apart the bounds are at the beliefs outside."""
    below = highest(points.outside, bounds.tangents)
    return jnp.maximum(chords(points.beliefs, bounds.upper, points.outside) - below, 0.0)
