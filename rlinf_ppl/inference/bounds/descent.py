"""The minimum of a convex dual over multipliers and tilts, by Newton's method with a barrier.

    minimise g(alpha, L) - barrier sum log alpha      over alpha > 0, in x = log alpha and tilt = L / alpha

where g is convex in alpha and L. With the Jacobian J of (alpha, L) in (x, tilt), Newton's systems

    (J' H J + barrier) (s, d) = -(J' slope - barrier)

are solved by conjugate gradients, with products of H only, preconditioned by what a bound alone would have (Steihaug
1983): KL is about proportional to alpha^-2, and L moves laws by their Fisher information. Then alpha grows by the
factor 1 + s, and L by alpha (d + tilt s), halved until what is minimised falls. Where a bound is slack, alpha falls with
the barrier, which is lowered whenever its own minimum is near (Fiacco & McCormick 1968).
"""

from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

MOST_NEWTONS, MOST_HALVINGS = 200, 40
# How far a log multiplier may be from where the search began, below and above.
DEEPEST, HIGHEST = -30.0, 60.0
# How much of a multiplier one step may take away, and what a barrier is lowered by.
NEARLY, LOWERING = 0.98, 0.1


class Point(NamedTuple):
    """Where the dual is evaluated, or a direction from there.

    Attributes:
        x: logs of the multipliers, (B, T) for B bounds a step; the tilts are those of the first.
        tilt: a pytree of arrays that lead with T; an empty one where only policies are bounded.
    """

    x: Float[Array, "B T"]
    tilt: Any


class Evaluation(NamedTuple):
    """The dual at a point.

    Attributes:
        value: g; NaN where there is none.
        slope: its derivative in x and, at fixed multipliers, in the tilts.
        excess: what is spent beyond each bound, (B, T), beside the bound.
        worth: the sum of all multipliers times their bounds.
        rounding: how large the numbers are that g is a sum of.
        found: what else was found there.
    """

    value: Float[Array, ""]
    slope: Point
    excess: Float[Array, "B T"]
    worth: Float[Array, ""]
    rounding: Float[Array, ""]
    found: Any


class Dual(eqx.Module):
    """A convex dual."""

    @abstractmethod
    def evaluate(self, at: Point) -> Evaluation:
        """The dual at a point."""

    @abstractmethod
    def precondition(self, at: Point, evaluation: Evaluation, slope: Point, barrier: Float[Array, ""]) -> Point:
        """About the Newton step for a slope: symmetric, positive definite."""


class Descent(NamedTuple):
    """A descent of the dual.

    Attributes:
        at: where it is.
        here: the dual there.
        barrier: its weight.
        stalled: how many steps in a row have changed nothing.
        steps: how many there were.
    """

    at: Point
    here: Evaluation
    barrier: Float[Array, ""]
    stalled: Float[Array, ""]
    steps: Float[Array, ""]


def minimise(dual: Dual, start: Point, here: Evaluation) -> tuple[Point, Evaluation]:
    """The minimum, and the dual there.

    Args:
        dual: the dual.
        start: where to begin; the dual has to have a value there.
        here: the dual there.
    """
    goal = 4 * jnp.finfo(start.x.dtype).eps

    def going(descent: Descent) -> Bool[Array, ""]:
        left = distance(descent.here) > goal
        return (descent.steps < MOST_NEWTONS) & left & (descent.stalled < 3)

    def body(descent: Descent) -> Descent:
        at, now = halved(dual, descent, newton(dual, descent), start.x)
        barrier = descent.barrier
        # A barrier is lowered once its own minimum is near: first by a digit, in the end by as many as there are.
        arrived = jnp.max(jnp.abs(now.slope.x - barrier)) <= barrier
        arrived &= largest(now.slope.tilt) <= barrier
        lower = jnp.minimum(LOWERING, (barrier / now.worth) ** 0.5)
        falls = merit(barrier, at, now) < merit(barrier, descent.at, descent.here) - noise(descent.here)
        moves = arrived | falls | (distance(now) < 0.9 * distance(descent.here))
        stalled = jnp.where(moves, 0.0, descent.stalled + 1)
        return Descent(at, now, jnp.where(arrived, lower * barrier, barrier), stalled, descent.steps + 1)

    zero = jnp.zeros((), start.x.dtype)
    barrier = LOWERING * here.worth / start.x.size
    found = lax.while_loop(going, body, Descent(start, here, barrier, zero, zero))
    return found.at, found.here


def merit(barrier: Float[Array, ""], at: Point, here: Evaluation) -> Float[Array, ""]:
    """The dual with a barrier, which steps bring down."""
    return here.value - barrier * jnp.sum(at.x)


def noise(here: Evaluation) -> Float[Array, ""]:
    """What rounding may do to it."""
    return 8 * jnp.finfo(here.value.dtype).eps * here.rounding


def distance(here: Evaluation) -> Float[Array, ""]:
    """How far from optimal: the largest slope beside what the bounds are worth together, or excess over a bound."""
    slopes = jnp.maximum(jnp.max(jnp.abs(here.slope.x)), largest(here.slope.tilt)) / here.worth
    return jnp.maximum(jnp.max(jnp.maximum(here.excess, 0.0)), slopes)


def largest(tree: Any) -> Float[Array, ""]:
    """The largest size of an entry."""
    return jnp.max(jnp.stack([jnp.zeros(()), *(jnp.max(jnp.abs(x)) for x in jax.tree.leaves(tree))]))


def newton(dual: Dual, descent: Descent) -> Point:
    """Newton's step, relative to the multipliers, to more digits as the slope has fewer."""
    at, barrier, slope = descent.at, descent.barrier, descent.here.slope
    push = jax.linearize(lambda at: dual.evaluate(at).slope, at)[1]
    first = slope.x[0]

    def product(step: Point) -> Point:
        # The derivative of J' slope, without that of J.
        pushed, s = push(step), step.x[0]
        inner = sum_over_time(jax.tree.map(lambda a, b: a * b, step.tilt, slope.tilt), first)
        x = pushed.x - step.x * slope.x + barrier * step.x
        x = x.at[0].add(-inner)
        return Point(x, jax.tree.map(lambda a, b: a - by_time(s, b) * b, pushed.tilt, slope.tilt))

    target = Point(barrier - slope.x, jax.tree.map(jnp.negative, slope.tilt))
    within = jnp.minimum(0.1, jnp.sqrt(distance(descent.here)))
    near = lambda r: dual.precondition(at, descent.here, r, barrier)  # noqa: E731
    size = sum(x.size for x in jax.tree.leaves(target))
    step = jax.scipy.sparse.linalg.cg(product, target, M=near, tol=within, maxiter=min(2 * size + 20, 500))[0]
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(step)]))
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), step, near(target))


def sum_over_time(tree: Any, like: Float[Array, " T"]) -> Float[Array, " T"]:
    """The sum of all entries of each time."""
    return sum((jnp.sum(x.reshape(len(x), -1), -1) for x in jax.tree.leaves(tree)), jnp.zeros_like(like))


def by_time(s: Float[Array, " T"], like: Float[Array, "T ..."]) -> Float[Array, "T ..."]:
    """A number for each time that multiplies what leads with time."""
    return s.reshape(-1, *[1] * (like.ndim - 1))


def halved(dual: Dual, descent: Descent, step: Point, begun: Float[Array, "B T"]) -> tuple[Point, Evaluation]:
    """Where a step leads, halved until the dual with its barrier falls, or where both are noise the slope does."""
    at, here, barrier = descent.at, descent.here, descent.barrier
    before, rounding, left = merit(barrier, at, here), noise(here), distance(here)
    tilts = jax.tree.map(lambda a, b: jnp.sum(a * b), step.tilt, here.slope.tilt)
    slope = sum(jax.tree.leaves(tilts), jnp.sum((here.slope.x - barrier) * step.x))

    def good(state: tuple[Array, Point, Evaluation]) -> Bool[Array, ""]:
        size, there, now = state
        change = merit(barrier, there, now) - before
        nearer = (change <= rounding) & (distance(now) < 0.9 * left)
        known = jnp.isfinite(now.value) & jnp.isfinite(distance(now))
        return (size <= 1) & known & ((change <= 1e-4 * size * slope) | nearer)

    def going(state: tuple[Array, Point, Evaluation]) -> Bool[Array, ""]:
        return (state[0] > 0.5**MOST_HALVINGS) & ~good(state)

    def body(state: tuple[Array, Point, Evaluation]) -> tuple[Array, Point, Evaluation]:
        size = state[0] / 2
        grown = jnp.maximum(size * step.x, -NEARLY)
        x = jnp.clip(at.x + jnp.log1p(grown), begun + DEEPEST, begun + HIGHEST)
        tilt = jax.tree.map(lambda a, b: a + size * b / by_time(1 + grown[0], b), at.tilt, step.tilt)
        return size, Point(x, tilt), dual.evaluate(Point(x, tilt))

    found = lax.while_loop(going, body, (jnp.full((), 2.0, at.x.dtype), at, here))
    return jax.tree.map(lambda new, old: jnp.where(good(found), new, old), found[1:], (at, here))
