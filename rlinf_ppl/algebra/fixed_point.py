"""The fixed point of a contraction by Newton's method, differentiable in whatever the operator depends on.

Newton's step for v = T(v) solves (I - J) d = T(v) - v with the Jacobian J of T at v. For a soft Bellman operator J is
gamma times the chain under the current policy, and the step is policy iteration: about ten of them do what takes
thousands of sweeps at gamma = .9999 (Puterman & Brumelle 1979). Where J is small it is written out, and the system
solved directly; else inexactly, by products with J alone: to one digit as long as the steps do little, to two once they
converge (see `linear_systems`).

Policy iteration comes closer at every step, but its residual may rise for a while before it falls. So Newton's steps
are taken on trust: PATIENCE of them may fail to halve the least residual so far. Once trust is used up, a step that
does not halve it is undone, and a plain sweep from the best v is taken instead.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from rlinf_ppl.algebra.linear_systems import (
    MOST_STEPS,
    ROUNDINGS,
    bicgstab,
    largest,
    solve_directly,
    solve_linear,
    solve_written,
)

FORCING = 0.01, 0.1
MOST_SWEEPS = 200_000
PATIENCE = 50
# A residual of so many roundings hardly falls any more, and so many steps that fail there are the last ones.
FLOOR, STALLS = 8, 4


class Linearized(NamedTuple):
    """An operator at v.

    Attributes:
        image: its value.
        push: the product of its derivative J with a direction.
        matrix: makes J over all entries of v, where it is small enough to be written out; else None.
    """

    image: Float[Array, "..."]
    push: Callable[[Array], Array]
    matrix: Callable[[], Float[Array, "n n"]] | None = None


Linearize = Callable[[Array], Linearized]


class FixedPoint(NamedTuple):
    """A fixed point and how good it is.

    Attributes:
        value: v.
        residual: max |T(v) - v|.
        error_bound: how far v may be from the fixed point, rounding included; infinite where nothing bounds it.
        steps: the number of Newton steps and sweeps.
    """

    value: Float[Array, "..."]
    residual: Float[Array, ""]
    error_bound: Float[Array, ""]
    steps: Float[Array, ""]

    @classmethod
    def of(
        cls,
        operator: Callable[[Float[Array, "..."]], Float[Array, "..."]],
        start: Float[Array, "..."],
        tolerance: Float[Array, ""],
        linearize: Linearize | None = None,
        monotone: bool = True,
    ) -> "FixedPoint":
        """Solve v = operator(v), up to an error of `tolerance` relative to the largest |v| (or to 1).

        Differentiable by the implicit function theorem in every array that the operator closes over.

        Args:
            operator: a contraction, in the maximum norm where it is monotone.
            start: where to begin.
            tolerance: what to aim for; the iteration also ends where only rounding is left.
            linearize: gives the operator at v; None: by `jax.linearize`.
            monotone: whether J has no negative entries. If so (I - J)^-1 1, where it is at least 1 everywhere, proves
                that there is a fixed point and bounds the error. Otherwise plain iteration takes the place of Newton's
                method, and one of its steps stands for the error.

        Returns:
            The fixed point; without convergence the best iterate, and its residual says so. NaN where the operator is
            NaN at the start.
        """
        derivative = linearize or (lambda v: Linearized(*jax.linearize(operator, v)))

        def search(guess: Array, tolerance: Array) -> "FixedPoint":
            found = newton(derivative, guess, tolerance) if monotone else sweep(operator, guess, tolerance)
            bound = error_bound(derivative, monotone, found.value)
            value = jnp.where(jnp.isnan(found.residual), jnp.nan, found.value)
            return cls(value, found.residual, bound, found.steps)

        # The search is not differentiated: what it finds depends on the operator's arrays as the theorem says.
        found = constant(eqx.filter_closure_convert(search, start, tolerance))(*constant((start, tolerance)))

        def written(v: Array) -> Array:
            matrix = derivative(v).matrix
            assert matrix is not None
            return matrix()

        matrix = None if derivative(start).matrix is None else eqx.filter_closure_convert(written, start)
        return found._replace(value=depending(found.value, eqx.filter_closure_convert(operator, start), matrix))


@eqx.filter_custom_jvp
def depending(value: Array, operator: Callable[[Array], Array], matrix: Callable[[Array], Array] | None) -> Array:
    """The fixed point of an operator, as it depends on the operator's arrays: (I - J) dv = dT.

    Args:
        value: the fixed point.
        operator: T, its arrays being leaves.
        matrix: J where it is written out; None: by products.
    """
    return value


@depending.def_jvp
def depending_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    """The implicit function theorem."""
    value, operator, matrix = primals
    # What the rule says of the value is differentiated in its turn.
    value = depending(value, operator, matrix)
    # What does not move is left out: zeros would go through all of the operator.
    moves = tangents[1]
    moving = jax.tree.map(lambda x, dx: x if dx is not None else None, operator, moves, is_leaf=lambda x: x is None)
    still = jax.tree.map(lambda x, dx: x if dx is None else None, operator, moves, is_leaf=lambda x: x is None)
    _, moved = jax.jvp(lambda moving: eqx.combine(moving, still)(value), (moving,), (moves,))
    if matrix is not None:
        return value, solve_written(jnp.eye(value.size, dtype=value.dtype) - matrix(value), moved)
    _, push = jax.linearize(operator, value)
    return value, solve_linear(lambda d: d - push(d), moved)


def constant(tree: Any) -> Any:
    """The same without derivatives."""
    return jax.tree.map(lambda x: lax.stop_gradient(x) if eqx.is_inexact_array(x) else x, tree)


class Iterate(NamedTuple):
    """One v of Newton's method: how far T moves it, how much T shrinks a constant there, and the steps so far."""

    value: Float[Array, "..."]
    residual: Float[Array, ""]
    modulus: Float[Array, ""]
    steps: Float[Array, ""]


class Search(NamedTuple):
    """Where Newton's method is.

    Attributes:
        at: the next v to look at.
        swept: whether it is T(best), and not the outcome of Newton's step.
        best: the v of the least residual so far.
        image: T(best).
        trusted: how many more steps may fail to halve the residual.
        stalled: how many failed to where it was rounding, nearly.
    """

    at: Float[Array, "..."]
    swept: Bool[Array, ""]
    best: Iterate
    image: Float[Array, "..."]
    trusted: Float[Array, ""]
    stalled: Float[Array, ""]


def sweep(operator: Callable[[Array], Array], start: Array, tolerance: Array) -> Iterate:
    """Plain iteration, for operators with several fixed points, of which it finds the one that finite horizons tend to.

    A quadratic value has others, at which Newton's method may end: those of policies that do not stabilise the system.
    """

    def unsolved(found: Iterate) -> Array:
        goal = tolerance * jnp.maximum(1.0, largest(found.value)) * (1 - jnp.minimum(found.modulus, 1.0))
        reached = found.residual <= jnp.maximum(goal, rounding(found.value) / 2)
        return ~reached & (found.steps < MOST_SWEEPS) & ~jnp.isnan(found.residual)

    def step(found: Iterate) -> Iterate:
        v = operator(found.value)
        residual = largest(operator(v) - v)
        # How fast the residual falls says how far there is to go.
        return Iterate(v, residual, residual / found.residual, found.steps + 1)

    first = Iterate(start, largest(operator(start) - start), jnp.zeros((), start.dtype), jnp.zeros(()))
    return lax.while_loop(unsolved, step, first)


def newton(linearize: Linearize, start: Array, tolerance: Array) -> Iterate:
    """Newton steps until residual / (1 - modulus) is within the tolerance, or only rounding is left."""

    def unsolved(found: Iterate) -> Array:
        goal = tolerance * jnp.maximum(1.0, largest(found.value)) * (1 - found.modulus)
        reached = found.residual <= jnp.maximum(goal, rounding(found.value) / 2)
        return ~reached & (found.steps < MOST_STEPS) & ~jnp.isnan(found.residual)

    def step(search: Search) -> Search:
        v, best = search.at, search.best
        image, push, matrix = linearize(v)
        residual = largest(image - v)
        here = Iterate(v, residual, jnp.max(push(jnp.ones_like(v))), best.steps)
        helps = residual <= 0.5 * best.residual
        trusted = search.trusted - ~(helps | search.swept)
        best, best_image = select(
            (residual < best.residual) | jnp.isinf(best.residual), (here, image), (best, search.image)
        )
        onwards = (helps | search.swept | (jnp.isfinite(residual) & (trusted >= 0))) & unsolved(best)
        # Nothing is to be solved for where the search is over: under vmap it goes on for the others.
        if matrix is None:
            forcing = jnp.where(onwards, jnp.clip(residual / search.best.residual, *FORCING), 2.0)
            direction = bicgstab(lambda d: d - push(d), image - v, forcing)
        else:
            # Where the search is over nothing is solved for.
            system = jnp.eye(v.size, dtype=v.dtype) - matrix()
            direction = solve_directly(system, jnp.ravel(image - v), onwards).reshape(v.shape)
        at = jnp.where(onwards, v + direction, best_image)
        stalled = search.stalled + (~helps & (best.residual <= FLOOR * rounding(best.value)))
        return Search(at, ~onwards, best._replace(steps=best.steps + unsolved(best)), best_image, trusted, stalled)

    unknown = Iterate(start, jnp.asarray(jnp.inf, start.dtype), jnp.zeros_like(start, shape=()), jnp.zeros(()))
    first = Search(start, jnp.asarray(True), unknown, start, jnp.asarray(float(PATIENCE)), jnp.zeros(()))
    return lax.while_loop(lambda search: unsolved(search.best) & (search.stalled < STALLS), step, first).best


def select(condition: Array, yes: Any, no: Any) -> Any:
    """One of two trees of arrays."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def error_bound(linearize: Linearize, monotone: bool, v: Array) -> Float[Array, ""]:
    """How far v may be from the fixed point, to first order, with rounding.

    Where J has no negative entries, e = (I - J)^-1 1 is at least 1 if and only if the spectral radius of J is below 1,
    and then the error is at most (residual + rounding) max e. Of a soft Bellman operator e is 1 / (1 - discount).
    """
    image, push, matrix = linearize(v)
    residual = image - v
    if not monotone:
        return largest(solve_linear(lambda d: d - push(d), residual)) + rounding(v)
    one = jnp.ones_like(v)
    shrunk = push(one)
    alike = jnp.max(shrunk) - jnp.min(shrunk) <= 1e-6 * (1 - jnp.max(shrunk))
    if matrix is None:
        longest = lax.cond(alike, lambda: 1 / (1 - jnp.max(shrunk)), lambda: certified(lambda d: d - push(d), one))
    else:
        system = jnp.eye(v.size, dtype=v.dtype) - matrix()
        e = solve_directly(system, jnp.ravel(one), ~alike)
        longest = jnp.where(alike, 1 / (1 - jnp.max(shrunk)), certain(system @ e, e))
    return jnp.where(jnp.isfinite(largest(v)), (largest(residual) + rounding(v)) * longest, jnp.inf)


def certified(matrix: Callable[[Array], Array], one: Array) -> Float[Array, ""]:
    """The largest entry of the e >= 1 that solves matrix(e) = 1; infinity where none is found."""
    e = solve_linear(matrix, one)
    return certain(matrix(e), e)


def certain(image: Array, e: Array) -> Float[Array, ""]:
    """The largest entry of an e whose image is 1 but for little, and that is at least 1; infinity where it is not."""
    solved = (largest(image - 1) <= 0.01) & jnp.all(e >= 0.99)
    return jnp.where(solved, 1.01 * jnp.max(e), jnp.inf)


def rounding(v: Array) -> Float[Array, ""]:
    """What rounding may do to a value of this size in one step."""
    return ROUNDINGS * jnp.finfo(v.dtype).eps * largest(v)
