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

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from rlinf_ppl.inference.bounds.conjugate import conjugate_gradients, largest
from rlinf_ppl.inference.bounds.dual import Dual, Evaluation, Point, distance, evaluate, per_time

MOST_NEWTONS, MOST_HALVINGS, MOST_STALLS = 200, 40, 3
# How far a log multiplier may be from where the search began, below and above.
DEEPEST, HIGHEST = -60.0, 60.0
# How much of a multiplier one step may take away, and what a barrier is lowered by.
NEARLY, LOWERING = 0.8, 0.6
# How much longer a step is tried than the last one was in the end.
LENGTHENS = 2.0
# How far from optimal a step may lead: that much times where it begins, or that far.
GROWS, AWAY = 2.0, 0.5


class Descent(NamedTuple):
    """A descent of the dual, between two evaluations.

    Attributes:
        at: where it is.
        here: the dual there.
        step: where it tries to go from there.
        size: how much of that step is tried next.
        best: the nearest to the optimum so far, and the dual there.
        barrier: its weight.
        stalled: how many steps in a row have changed nothing.
        steps: how many there were; -1 before the dual is evaluated at the start.
    """

    at: Point
    here: Evaluation
    step: Point
    size: Float[Array, ""]
    best: tuple[Point, Evaluation]
    barrier: Float[Array, ""]
    stalled: Float[Array, ""]
    steps: Float[Array, ""]


@eqx.filter_custom_jvp
def argmin(dual: Dual) -> tuple[Point, Evaluation]:
    """The minimum, and the dual there; differentiable in whatever the dual depends on."""
    begin, here = dual.begin()
    return minimise(dual, begin) if here is None else (begin, here)


@argmin.def_jvp
def tangents(primals: tuple[Dual], moves: tuple[Any]) -> Any:
    """The implicit function theorem: what is at its bound stays there, and slack multipliers stay what they are."""
    (dual,), (move,) = primals, moves
    at, here = argmin(dual)
    # Where one is all but met its multiplier is what matters, not what is left of it.
    left = max(dual.goal, float(jnp.finfo(at.x.dtype).eps)) ** 0.5
    tight = (here.excess >= -left).astype(at.x.dtype)

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

    # One vector: where a bound alone moves the slope in the tilts does not, and parts that are fixed have no transpose.
    right, as_point = ravel_pytree(
        jax.tree.map(jnp.negative, pushed_along(lambda dual: slope_of(dual, at), dual, move))
    )

    def flat(function: Callable[[Point], Point]) -> Callable[[Array], Array]:
        return lambda vector: ravel_pytree(function(as_point(vector)))[0]

    def solve(product: Callable[[Array], Array], right: Array) -> Array:
        return conjugate_gradients(product, right, flat(near), 8 * float(jnp.finfo(at.x.dtype).eps))

    step = as_point(lax.custom_linear_solve(flat(product), right, solve, symmetric=True))
    evaluated = pushed_along(lambda both: both[0].evaluate(both[1]), (dual, at), (move, step))
    return (at, here), (step, evaluated)


def pushed_along(function: Callable[[Any], Any], at: Any, move: Any) -> Any:
    """The derivative of a function along a move, which is None for what does not."""
    moves = jax.tree.map(lambda x: x is not None, move, is_leaf=lambda x: x is None)
    moved, fixed = eqx.partition(at, moves)
    return jax.jvp(lambda moved: function(eqx.combine(moved, fixed)), (moved,), (move,))[1]


def minimise(dual: Dual, start: Point) -> tuple[Point, Evaluation]:
    """The minimum, and the dual there.

    Each round evaluates the dual once, where a step leads: whether the step is halved or the next one begins there, it
    is one loop, so that the dual is compiled once.

    Args:
        dual: the dual.
        start: where to begin; the dual has to have a value there.
    """
    goal = max(dual.goal, 64 * float(jnp.finfo(start.x.dtype).eps))

    def going(descent: Descent) -> Bool[Array, ""]:
        left = ~(distance(descent.here) <= goal)
        tries = (descent.steps < MOST_NEWTONS) & (descent.stalled < MOST_STALLS)
        return (descent.steps < 0) | (left & tries)

    def body(descent: Descent) -> Descent:
        there = moved(dual, descent, start.x)
        now, push = (evaluate(dual, there), None) if dual.is_exact else jax.linearize(partial(evaluate, dual), there)
        good = is_good(descent, there, now)
        ended = good | (descent.size <= 0.5**MOST_HALVINGS)
        at, here = jax.tree.map(lambda new, old: jnp.where(good, new, old), (there, now), descent[:2])
        after = arrived(descent, at, here, ended)

        def following() -> Point:
            return newton(dual, after, push)

        step = lax.cond(ended & going(after), following, lambda: descent.step)
        # Where a short step was as far as it goes, the next one begins there.
        longer = jnp.where(good, jnp.minimum(LENGTHENS * descent.size, 1.0), 1.0)
        return after._replace(step=step, size=jnp.where(ended, longer, descent.size / 2))

    zero = jnp.zeros((), start.x.dtype)
    shapes = jax.eval_shape(evaluate, dual, start)
    nowhere = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), shapes)
    still = jax.tree.map(jnp.zeros_like, start)
    begin = Descent(start, nowhere, still, zero + 1, (start, nowhere), zero, zero, zero - 1)
    return lax.while_loop(going, body, begin).best


def arrived(descent: Descent, at: Point, here: Evaluation, ended: Bool[Array, ""]) -> Descent:
    """What a step makes of a descent that is at a point now; nothing but that, unless the step has ended."""
    digit = jnp.finfo(at.x.dtype).eps
    first, barrier, worth = descent.steps < 0, descent.barrier, here.worth
    # A barrier is lowered once its own minimum is near: first by little, in the end by ever more digits.
    met = (jnp.max(jnp.abs(here.slope.x - barrier)) <= barrier) & (largest(here.slope.tilt) <= barrier)
    gap = at.x.size * barrier / worth
    lower = jnp.maximum(jnp.minimum(LOWERING, gap**0.5) * barrier, 16 * digit * worth)
    falls = merit(barrier, at, here) < merit(barrier, descent.at, descent.here) - noise(descent.here)
    moves = first | met | falls | (distance(here) < 0.9 * distance(descent.here))
    numbers = jnp.where(met, lower, barrier), jnp.where(moves, 0.0, descent.stalled + 1), descent.steps + 1
    kept = descent.barrier, descent.stalled, descent.steps
    barrier, stalled, steps = (jnp.where(ended, new, old) for new, old in zip(numbers, kept, strict=True))
    barrier = jnp.where(first, LOWERING * worth / at.x.size, barrier)
    best = nearest(descent.best, (at, here))
    return descent._replace(at=at, here=here, best=best, barrier=barrier, stalled=stalled, steps=steps)


def nearest(one: tuple[Point, Evaluation], other: tuple[Point, Evaluation]) -> tuple[Point, Evaluation]:
    """Which of two is nearer to the optimum."""
    nearer = ~(distance(other[1]) >= distance(one[1]))
    return jax.tree.map(lambda a, b: jnp.where(nearer, b, a), one, other)


def merit(barrier: Float[Array, ""], at: Point, here: Evaluation) -> Float[Array, ""]:
    """The dual with a barrier, which steps bring down."""
    return here.value - barrier * jnp.sum(at.x)


def noise(here: Evaluation) -> Float[Array, ""]:
    """What rounding may do to it."""
    return 8 * jnp.finfo(here.value.dtype).eps * here.rounding


def newton(dual: Dual, descent: Descent, push: Callable[[Point], Evaluation] | None) -> Point:
    """Newton's step, relative to the multipliers, to more digits as the slope has fewer.

    Args:
        dual: the dual.
        descent: where it is.
        push: the derivative of the dual along a step from there; None where `precondition` is by the Hessian.
    """
    at, barrier, slope = descent.at, descent.barrier, descent.here.slope
    # What is slack has alpha times its slack in the place of the barrier, so that a lower one is not overshot.
    ridge = jnp.maximum(barrier, slope.x)
    target = Point(barrier - slope.x, jax.tree.map(jnp.negative, slope.tilt))

    def near(right: Point) -> Point:
        return dual.precondition(at, descent.here, right, ridge)

    if push is None:
        return near(target)
    first = slope.x[0]

    def product(step: Point) -> Point:
        # The derivative of J' slope, without that of J.
        pushed, s = push(step).slope, step.x[0]
        inner = sum_over_time(jax.tree.map(lambda a, b: a * b, step.tilt, slope.tilt), first)
        x = pushed.x - step.x * slope.x + ridge * step.x
        x = x.at[0].add(-inner)
        return Point(x, jax.tree.map(lambda a, b: a - per_time(s, b) * b, pushed.tilt, slope.tilt))

    within = jnp.minimum(0.1, jnp.sqrt(distance(descent.here)))
    step = conjugate_gradients(product, target, near, within)
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(step)]))
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), step, near(target))


def sum_over_time(tree: Any, like: Float[Array, " T"]) -> Float[Array, " T"]:
    """The sum of all entries of each time."""
    return sum((jnp.sum(x.reshape(len(x), -1), -1) for x in jax.tree.leaves(tree)), jnp.zeros_like(like))


def moved(dual: Dual, descent: Descent, begun: Float[Array, "B T"]) -> Point:
    """Where a part of the step leads."""
    at, step, size = descent.at, descent.step, descent.size
    grown = jnp.maximum(size * step.x, -NEARLY)
    wider = 1 + jnp.maximum(grown[0], 0.0)
    x = jnp.clip(at.x + jnp.log1p(grown), begun + DEEPEST, begun + HIGHEST)
    return Point(x, dual.moved(at.tilt, jax.tree.map(lambda b: size * b / per_time(wider, b), step.tilt)))


def is_good(descent: Descent, there: Point, now: Evaluation) -> Bool[Array, ""]:
    """Whether the dual with its barrier falls by a part of the step, or where both are noise the slope does."""
    at, here, step, size, barrier = *descent[:4], descent.barrier

    def along(now: Evaluation) -> Array:
        tilts = jax.tree.map(lambda a, b: jnp.sum(a * b), step.tilt, now.slope.tilt)
        return sum(jax.tree.leaves(tilts), jnp.sum((now.slope.x - barrier) * step.x))

    slope, left = along(here), distance(here)
    change = merit(barrier, there, now) - merit(barrier, at, here)
    nearer = (change <= noise(here)) & (distance(now) < 0.9 * left)
    known = jnp.isfinite(now.value) & jnp.isfinite(distance(now))
    # Where the domain ends slopes are large, and the dual is not: whoever comes near is slow to leave.
    inside = (along(now) <= -slope) & (distance(now) <= jnp.maximum(GROWS * left, AWAY))
    falls = (change <= 1e-4 * size * slope) & inside
    return (descent.steps < 0) | (known & (falls | nearer))
