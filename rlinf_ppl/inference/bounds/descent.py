"""The minimum of a convex dual over multipliers and tilts, by Newton's method with a barrier.

    minimise g(alpha, L) - barrier sum log alpha      over alpha > 0, in x = log alpha and tilt = L / alpha

where g is convex in alpha and L. With the Jacobian J of (alpha, L) in (x, tilt), Newton's systems

    (J' H J + barrier) (s, d) = -(J' slope - barrier)

are solved by conjugate gradients (Steihaug 1983), with products of H only, preconditioned by what a bound alone would
have; or at once, where a dual can (see `curvature`). Where a bound is slack, alpha (eps - KL) takes the place of the
barrier in the system, as in a primal-dual method. Then alpha grows by the factor 1 + s and tilts by d, to first order a
step in alpha and L, halved until what is minimised falls and no slope is much larger than before. Where a bound is
slack, alpha falls with the barrier, which is lowered whenever its own minimum is near (Fiacco & McCormick 1968).
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from rlinf_ppl.inference.bounds.conjugate import conjugate_gradients, largest
from rlinf_ppl.inference.bounds.results import NOTHING

MOST_NEWTONS, MOST_HALVINGS, MOST_STALLS = 200, 40, 3
# How far a log multiplier may be from where the search began, below and above.
DEEPEST, HIGHEST = -60.0, 60.0
# How much of a multiplier one step may take away, and what a barrier is lowered by.
NEARLY, LOWERING = 0.8, 0.1
# How far from optimal a step may lead: that much times where it begins, or that far.
GROWS, AWAY = 2.0, 0.5


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
    def begin(self) -> tuple[Point, Evaluation]:
        """Where to begin, a point with a value, and the dual there."""

    @property
    def goal(self) -> float:
        """How far from optimal is near enough; 0: as near as the dtype allows."""
        return 0.0

    @property
    def is_found(self) -> bool:
        """Whether that is the minimum already."""
        return False

    @property
    def is_exact(self) -> bool:
        """Whether `precondition` is by the Hessian itself."""
        return False

    @abstractmethod
    def evaluate(self, at: Point) -> Evaluation:
        """The dual at a point."""

    def moved(self, tilt: Any, step: Any) -> Any:
        """Tilts after a step, to first order the sum of both."""
        return jax.tree.map(jnp.add, tilt, step)

    @abstractmethod
    def precondition(self, at: Point, evaluation: Evaluation, slope: Point, ridge: Float[Array, "B T"]) -> Point:
        """About the Newton step for a slope: symmetric, positive definite; the ridge is added for the multipliers."""


class Descent(NamedTuple):
    """A descent of the dual.

    Attributes:
        at: where it is.
        here: the dual there.
        best: the nearest to the optimum so far, and the dual there.
        barrier: its weight.
        stalled: how many steps in a row have changed nothing.
        steps: how many there were.
    """

    at: Point
    here: Evaluation
    best: tuple[Point, Evaluation]
    barrier: Float[Array, ""]
    stalled: Float[Array, ""]
    steps: Float[Array, ""]


@eqx.filter_custom_jvp
def argmin(dual: Dual) -> tuple[Point, Evaluation]:
    """The minimum, and the dual there; differentiable in whatever the dual depends on."""
    begin, here = dual.begin()
    return (begin, here) if dual.is_found else minimise(dual, begin, here)


@argmin.def_jvp
def tangents(primals: tuple[Dual], moves: tuple[Any]) -> Any:
    """The implicit function theorem: what is at its bound stays there, and slack multipliers stay what they are."""
    (dual,), (move,) = primals, moves
    at, here = argmin(dual)
    tight = (here.excess >= -(jnp.finfo(at.x.dtype).eps ** 0.5)).astype(at.x.dtype)

    def slope_of(dual: Dual, at: Point) -> Point:
        slope = dual.evaluate(at).slope
        return slope._replace(x=tight * slope.x)

    def product(step: Point) -> Point:
        # The Hessian among the bounds that are not slack, symmetric and positive definite; the identity on the others.
        pushed = jax.jvp(lambda at: slope_of(dual, at), (at,), (step._replace(x=tight * step.x),))[1]
        return pushed._replace(x=pushed.x + (1 - tight) * step.x)

    def near(right: Point) -> Point:
        step = dual.precondition(at, here, right._replace(x=tight * right.x), 1 - tight)
        return step._replace(x=tight * step.x + (1 - tight) * right.x)

    def solve(product: Callable[[Point], Point], right: Point) -> Point:
        return conjugate_gradients(product, right, near, 8 * float(jnp.finfo(at.x.dtype).eps))

    pushed = pushed_along(lambda dual: slope_of(dual, at), dual, move)
    step = lax.custom_linear_solve(product, jax.tree.map(jnp.negative, pushed), solve, symmetric=True)
    evaluated = pushed_along(lambda both: both[0].evaluate(both[1]), (dual, at), (move, step))
    return (at, here), (step, evaluated)


def pushed_along(function: Callable[[Any], Any], at: Any, move: Any) -> Any:
    """The derivative of a function along a move, which is None for what does not."""
    moves = jax.tree.map(lambda x: x is not None, move, is_leaf=lambda x: x is None)
    moved, fixed = eqx.partition(at, moves)
    return jax.jvp(lambda moved: function(eqx.combine(moved, fixed)), (moved,), (move,))[1]


def minimise(dual: Dual, start: Point, here: Evaluation) -> tuple[Point, Evaluation]:
    """The minimum, and the dual there.

    Args:
        dual: the dual.
        start: where to begin; the dual has to have a value there.
        here: the dual there.
    """
    digit = float(jnp.finfo(start.x.dtype).eps)
    goal = max(dual.goal, 64 * digit)

    def going(descent: Descent) -> Bool[Array, ""]:
        left = distance(descent.here) > goal
        return (descent.steps < MOST_NEWTONS) & left & (descent.stalled < MOST_STALLS)

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
        best = nearest(descent.best, (at, now))
        after = jnp.where(arrived, jnp.maximum(lower * barrier, 16 * digit * now.worth), barrier)
        return Descent(at, now, best, after, stalled, descent.steps + 1)

    zero = jnp.zeros((), start.x.dtype)
    barrier = LOWERING * here.worth / start.x.size
    return lax.while_loop(going, body, Descent(start, here, (start, here), barrier, zero, zero)).best


def nearest(one: tuple[Point, Evaluation], other: tuple[Point, Evaluation]) -> tuple[Point, Evaluation]:
    """Which of two is nearer to the optimum."""
    nearer = distance(other[1]) < distance(one[1])
    return jax.tree.map(lambda a, b: jnp.where(nearer, b, a), one, other)


def merit(barrier: Float[Array, ""], at: Point, here: Evaluation) -> Float[Array, ""]:
    """The dual with a barrier, which steps bring down."""
    return here.value - barrier * jnp.sum(at.x)


def noise(here: Evaluation) -> Float[Array, ""]:
    """What rounding may do to it."""
    return 8 * jnp.finfo(here.value.dtype).eps * here.rounding


def distance(here: Evaluation) -> Float[Array, ""]:
    """How far from optimal: the largest slope beside what the bounds are worth together, or excess over a bound."""
    slopes = jnp.maximum(jnp.max(jnp.abs(here.slope.x)), largest(here.slope.tilt)) / size_of(here)
    return jnp.maximum(jnp.max(jnp.maximum(here.excess, 0.0)), slopes)


def size_of(here: Evaluation) -> Float[Array, ""]:
    """What slopes are measured by: what the bounds are worth together; where they are slack, a part of the value."""
    return here.worth + NOTHING * here.rounding


def newton(dual: Dual, descent: Descent) -> Point:
    """Newton's step, relative to the multipliers, to more digits as the slope has fewer."""
    at, barrier, slope = descent.at, descent.barrier, descent.here.slope
    # What is slack has alpha times its slack in the place of the barrier, so that a lower one is not overshot.
    ridge = jnp.maximum(barrier, slope.x)
    push = jax.linearize(lambda at: dual.evaluate(at).slope, at)[1]
    first = slope.x[0]

    def product(step: Point) -> Point:
        # The derivative of J' slope, without that of J.
        pushed, s = push(step), step.x[0]
        inner = sum_over_time(jax.tree.map(lambda a, b: a * b, step.tilt, slope.tilt), first)
        x = pushed.x - step.x * slope.x + ridge * step.x
        x = x.at[0].add(-inner)
        return Point(x, jax.tree.map(lambda a, b: a - per_time(s, b) * b, pushed.tilt, slope.tilt))

    target = Point(barrier - slope.x, jax.tree.map(jnp.negative, slope.tilt))
    within = jnp.minimum(0.1, jnp.sqrt(distance(descent.here)))

    def near(right: Point) -> Point:
        return dual.precondition(at, descent.here, right, ridge)

    step = near(target) if dual.is_exact else conjugate_gradients(product, target, near, within)
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(step)]))
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), step, near(target))


def sum_over_time(tree: Any, like: Float[Array, " T"]) -> Float[Array, " T"]:
    """The sum of all entries of each time."""
    return sum((jnp.sum(x.reshape(len(x), -1), -1) for x in jax.tree.leaves(tree)), jnp.zeros_like(like))


def per_time(s: Float[Array, " T"], like: Float[Array, "T ..."]) -> Float[Array, "T ..."]:
    """A number for each time that multiplies what leads with time."""
    return s.reshape(-1, *[1] * (like.ndim - 1))


def halved(dual: Dual, descent: Descent, step: Point, begun: Float[Array, "B T"]) -> tuple[Point, Evaluation]:
    """Where a step leads, halved until the dual with its barrier falls, or where both are noise the slope does."""
    at, here, barrier = descent.at, descent.here, descent.barrier
    before, rounding, left = merit(barrier, at, here), noise(here), distance(here)

    def along(now: Evaluation) -> Array:
        tilts = jax.tree.map(lambda a, b: jnp.sum(a * b), step.tilt, now.slope.tilt)
        return sum(jax.tree.leaves(tilts), jnp.sum((now.slope.x - barrier) * step.x))

    slope = along(here)

    def good(state: tuple[Array, Point, Evaluation]) -> Bool[Array, ""]:
        size, there, now = state
        change = merit(barrier, there, now) - before
        nearer = (change <= rounding) & (distance(now) < 0.9 * left)
        known = jnp.isfinite(now.value) & jnp.isfinite(distance(now))
        # Where the domain ends slopes are large, and the dual is not: whoever comes near is slow to leave.
        inside = (along(now) <= -slope) & (distance(now) <= jnp.maximum(GROWS * left, AWAY))
        falls = (change <= 1e-4 * size * slope) & inside
        return (size <= 1) & known & (falls | nearer)

    def going(state: tuple[Array, Point, Evaluation]) -> Bool[Array, ""]:
        return (state[0] > 0.5**MOST_HALVINGS) & ~good(state)

    def body(state: tuple[Array, Point, Evaluation]) -> tuple[Array, Point, Evaluation]:
        size = state[0] / 2
        grown = jnp.maximum(size * step.x, -NEARLY)
        wider = 1 + jnp.maximum(grown[0], 0.0)
        x = jnp.clip(at.x + jnp.log1p(grown), begun + DEEPEST, begun + HIGHEST)
        tilt = dual.moved(at.tilt, jax.tree.map(lambda b: size * b / per_time(wider, b), step.tilt))
        return size, Point(x, tilt), dual.evaluate(Point(x, tilt))

    found = lax.while_loop(going, body, (jnp.full((), 2.0, at.x.dtype), at, here))
    return jax.tree.map(lambda new, old: jnp.where(good(found), new, old), found[1:], (at, here))
