"""The fixed point of a contraction by Newton's method, differentiable in whatever the operator depends on.

Newton's step for v = T(v) solves (I - J) d = T(v) - v with the Jacobian J of T at v. For a soft Bellman operator J is
gamma times the chain under the current policy, and the step is policy iteration: about ten of them do what takes
thousands of sweeps at gamma = .9999 (Puterman & Brumelle 1979). The linear systems are solved inexactly, by BiCGSTAB
(van der Vorst 1992) on the linearised operator, which is never written out as a matrix: to one digit as long as the
steps do little, to two once they converge.

Policy iteration comes closer at every step, but its residual may rise for a while before it falls. So Newton's steps
are taken on trust: PATIENCE of them may fail to halve the least residual so far. Once trust is used up, a step that
does not halve it is undone, and a plain sweep from the best v is taken instead.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

FORCING = 0.01, 0.1
MOST_STEPS = 1000
MOST_PRODUCTS = 1000
PATIENCE = 50
ROUNDINGS = 2

Linearize = Callable[[Array], tuple[Array, Callable[[Array], Array]]]


class FixedPoint(NamedTuple):
    """A fixed point and how good it is.

    Attributes:
        value: v.
        residual: max |T(v) - v|.
        modulus: how much T shrinks a constant at v; of a soft Bellman operator the discount.
        steps: the number of Newton steps and sweeps.
    """

    value: Float[Array, "..."]
    residual: Float[Array, ""]
    modulus: Float[Array, ""]
    steps: Float[Array, ""]


def fixed_point(
    operator: Callable[[Float[Array, "..."]], Float[Array, "..."]],
    start: Float[Array, "..."],
    tolerance: Float[Array, ""],
    linearize: Linearize | None = None,
) -> FixedPoint:
    """Solve v = operator(v), up to an error of `tolerance` relative to the largest |v| (or to 1).

    Differentiable by the implicit function theorem in every array that the operator closes over.

    Args:
        operator: a contraction in the maximum norm.
        start: where to begin.
        tolerance: what to aim for; the iteration also ends where only rounding is left.
        linearize: gives operator(v) and the product of the derivative at v with a direction; None: `jax.linearize`.

    Returns:
        The fixed point; without convergence the best iterate, and its residual says so. NaN where the operator is NaN
        at the start.
    """

    def difference(v: Array) -> Array:
        return operator(v) - v

    def solve(_: Callable[[Array], Array], guess: Array) -> tuple[Array, FixedPoint]:
        found = newton(linearize or functools.partial(jax.linearize, operator), guess, tolerance)
        return jnp.where(jnp.isnan(found.residual), jnp.nan, found.value), found

    value, found = lax.custom_root(difference, start, solve, solve_linear, has_aux=True)
    return found._replace(value=value)


class Search(NamedTuple):
    """Where Newton's method is.

    Attributes:
        at: the next v to look at.
        swept: whether it is T(best), and not the outcome of Newton's step.
        best: the v of the least residual so far.
        image: T(best).
        trusted: how many more steps may fail to halve the residual.
    """

    at: Float[Array, "..."]
    swept: Bool[Array, ""]
    best: FixedPoint
    image: Float[Array, "..."]
    trusted: Float[Array, ""]


def newton(linearize: Linearize, start: Array, tolerance: Array) -> FixedPoint:
    """Newton steps until the error bound residual / (1 - modulus) is within the tolerance."""

    def unsolved(found: FixedPoint) -> Array:
        goal = tolerance * jnp.maximum(1.0, largest(found.value)) * (1 - found.modulus)
        reached = found.residual <= jnp.maximum(goal, rounding(found.value) / 2)
        return ~reached & (found.steps < MOST_STEPS) & ~jnp.isnan(found.residual)

    def step(search: Search) -> Search:
        v, best = search.at, search.best
        image, push = linearize(v)
        residual = largest(image - v)
        here = FixedPoint(v, residual, jnp.max(push(jnp.ones_like(v))), best.steps)
        helps = residual <= 0.5 * best.residual
        trusted = search.trusted - ~(helps | search.swept)
        best, best_image = select(
            (residual < best.residual) | jnp.isinf(best.residual), (here, image), (best, search.image)
        )
        onwards = (helps | search.swept | (jnp.isfinite(residual) & (trusted >= 0))) & unsolved(best)
        # Nothing is to be solved for where the search is over: under vmap it goes on for the others.
        forcing = jnp.where(onwards, jnp.clip(residual / search.best.residual, *FORCING), 2.0)
        direction = bicgstab(lambda d: d - push(d), image - v, forcing)
        at = jnp.where(onwards, v + direction, best_image)
        return Search(at, ~onwards, best._replace(steps=best.steps + unsolved(best)), best_image, trusted)

    unknown = FixedPoint(start, jnp.asarray(jnp.inf, start.dtype), jnp.zeros_like(start, shape=()), jnp.zeros(()))
    first = Search(start, jnp.asarray(True), unknown, start, jnp.asarray(float(PATIENCE)))
    return lax.while_loop(lambda search: unsolved(search.best), step, first).best


def bicgstab(matrix: Callable[[Array], Array], right: Array, precision: Array | float) -> Array:
    """An x with |right - matrix(x)| <= precision |right| (2-norm), as far as MOST_PRODUCTS and rounding allow."""
    goal = precision**2 * jnp.vdot(right, right)

    def unsolved(state: Any) -> Array:
        _, residual, _, rho, products = state
        return (jnp.vdot(residual, residual) > goal) & (rho != 0) & (products < MOST_PRODUCTS)

    def step(state: Any) -> Any:
        x, residual, p, rho, products = state
        image = matrix(p)
        alpha = rho / jnp.vdot(right, image)
        half = residual - alpha * image
        turned = matrix(half)
        square = jnp.vdot(turned, turned)
        # Half a step may be the whole way: then nothing is left to turn.
        omega = jnp.where(square > 0, jnp.vdot(turned, half) / square, 0.0)
        x = x + alpha * p + omega * half
        residual = half - omega * turned
        following = jnp.vdot(right, residual)
        p = residual + following / rho * alpha / omega * (p - omega * image)
        return x, residual, p, following, products + 2

    start = jnp.zeros_like(right), right, right, jnp.vdot(right, right), jnp.zeros(())
    return lax.while_loop(unsolved, step, start)[0]


def select(condition: Array, yes: Any, no: Any) -> Any:
    """One of two trees of arrays."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def solve_linear(matrix: Callable[[Array], Array], right: Array) -> Array:
    """Solve matrix(x) = right for a linear function, to the precision of the dtype; differentiable and transposable."""
    precision = float(jnp.finfo(right.dtype).eps) ** 0.5

    def solve(matrix: Callable[[Array], Array], right: Array) -> Array:
        first = bicgstab(matrix, right, precision)
        return first + bicgstab(matrix, right - matrix(first), precision)

    return lax.custom_linear_solve(matrix, right, solve, transpose_solve=solve)


def error_bound(found: FixedPoint) -> Float[Array, ""]:
    """How far the value may be from the fixed point, rounding included: (residual + rounding) / (1 - modulus)."""
    return (found.residual + rounding(found.value)) / (1 - found.modulus)


def rounding(v: Array) -> Float[Array, ""]:
    """What rounding may do to a value of this size in one step."""
    return ROUNDINGS * jnp.finfo(v.dtype).eps * largest(v)


def largest(x: Array) -> Float[Array, ""]:
    """The maximum norm."""
    return jnp.max(jnp.abs(x))
