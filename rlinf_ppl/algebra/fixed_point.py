"""The fixed point of a contraction by Newton's method, differentiable in whatever the operator depends on.

Newton's step for v = T(v) solves (I - J) d = T(v) - v with the Jacobian J of T at v. For a soft Bellman operator J is
gamma times the chain under the current policy, and the step is policy iteration: about ten of them do what takes
thousands of sweeps at gamma = .9999 (Puterman & Brumelle 1979). The linear systems are solved inexactly, by BiCGSTAB on
the linearised operator, which is never written out as a matrix. Where a step does not help, a plain sweep is taken.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.sparse.linalg import bicgstab
from jaxtyping import Array, Float

FORCING = 0.1
MOST_STEPS = 1000
MOST_PRODUCTS = 1000
ROUNDINGS = 2


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
    linearize: Callable[[Float[Array, "..."]], tuple[Array, Callable[[Array], Array]]] | None = None,
    modulus: Callable[[Callable[[Array], Array]], Array] | None = None,
) -> FixedPoint:
    """Solve v = operator(v), up to an error of `tolerance` relative to the largest |v| (or to 1).

    Differentiable by the implicit function theorem in every array that the operator closes over.

    Args:
        operator: a contraction in the maximum norm.
        start: where to begin.
        tolerance: what to aim for; the iteration also ends where only rounding is left.
        linearize: gives operator(v) and the product of the derivative at v with a direction; None: `jax.linearize`.
        modulus: how much that product shrinks an error; None: what it makes of a constant, for the maximum norm.

    Returns:
        The fixed point; without convergence the last iterate, and its residual says so.
    """

    def difference(v: Array) -> Array:
        return operator(v) - v

    def solve(_: Callable[[Array], Array], guess: Array) -> tuple[Array, FixedPoint]:
        derivative = linearize or functools.partial(jax.linearize, operator)
        found = newton(derivative, modulus or functools.partial(shrunk, guess), guess, tolerance)
        return found.value, found

    value, found = lax.custom_root(difference, start, solve, solve_linear, has_aux=True)
    return found._replace(value=value)


def newton(
    linearize: Callable[[Array], tuple[Array, Callable[[Array], Array]]],
    modulus: Callable[[Callable[[Array], Array]], Array],
    start: Array,
    tolerance: Array,
) -> FixedPoint:
    """Newton steps until the error bound residual / (1 - modulus) is within the tolerance."""

    def measured(v: Array, steps: Array) -> FixedPoint:
        image, push = linearize(v)
        return FixedPoint(v, largest(image - v), modulus(push), steps)

    def unsolved(at: FixedPoint) -> Array:
        goal = tolerance * jnp.maximum(1.0, largest(at.value)) * (1 - at.modulus)
        return (
            ~(at.residual <= jnp.maximum(goal, rounding(at.value) / 2))
            & (at.steps < MOST_STEPS)
            & jnp.isfinite(at.residual)
        )

    def step(at: FixedPoint) -> FixedPoint:
        image, push = linearize(at.value)
        direction, _ = bicgstab(lambda d: d - push(d), image - at.value, tol=FORCING, maxiter=MOST_PRODUCTS)
        candidate = measured(at.value + direction, at.steps + 1)
        helps = candidate.residual <= 0.5 * at.residual
        return lax.cond(helps, lambda: candidate, lambda: measured(image, at.steps + 1))

    return lax.while_loop(unsolved, step, measured(start, jnp.zeros(())))


def shrunk(like: Array, push: Callable[[Array], Array]) -> Array:
    """The largest entry of what a linear map makes of a constant: its maximum norm where it has no negative entries."""
    return jnp.max(push(jnp.ones_like(like)))


def solve_linear(matrix: Callable[[Array], Array], right: Array) -> Array:
    """Solve matrix(x) = right for a linear function, to the precision of the dtype; differentiable and transposable."""
    tolerance = float(jnp.finfo(right.dtype).eps) ** 0.5

    def solve(matrix: Callable[[Array], Array], right: Array) -> Array:
        first, _ = bicgstab(matrix, right, tol=tolerance, maxiter=MOST_PRODUCTS)
        correction, _ = bicgstab(matrix, right - matrix(first), tol=tolerance, maxiter=MOST_PRODUCTS)
        return first + correction

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
