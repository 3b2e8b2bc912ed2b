"""Bounds on what policies spend alone, at each step or together: a search for temperatures."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.inference.bounds.results import SMALL, Bounded, residuals
from rlinf_ppl.inference.bounds.spending import Spending, spend
from rlinf_ppl.inference.bounds.temperatures import Spend, common, each
from rlinf_ppl.inference.chains.careful import precisely
from rlinf_ppl.inference.exact import solve
from rlinf_ppl.program import ControlProgram

# What a KL may be above its bound, beside it.
ROUNDING = 1e-9


class Found(NamedTuple):
    """Temperatures and what is spent at them.

    Attributes:
        factor: the inverse temperatures, one number or (T,).
        spent: what is spent.
    """

    factor: Float[Array, "..."]
    spent: Spending


def bounded(program: ControlProgram, bounds: Float[Array, "..."]) -> Bounded:
    """The best policy within bounds that are arrays: one number for the sum, (T,) for each step.

    Args:
        program: with decisions whose inverse temperature is 1.
        bounds: at least 0, in nats.
    """

    def answer(wide: ControlProgram) -> Any:
        found = temperatures(wide, jnp.asarray(bounds, float))
        solution = solve(wide.tempered(found.factor))
        return found, solution.policy, solution.value, solution.converged

    found, policy, value, converged = precisely(program, bounds, answer, tables=True)
    tau = found.factor
    alpha = jnp.where(tau > 0, 1 / jnp.where(tau > 0, tau, 1.0), 0.0)
    elbo, kl, weights = found.spent
    # Multipliers that are infinite meet a KL of 0.
    multipliers = alpha * (weights if bounds.ndim else 1.0)
    earned = jnp.sum(weights * alpha * jnp.where(tau > 0, kl, 0.0))
    limit = jnp.where(tau > 0, jnp.where(jnp.isinf(tau), 0.0, bounds), 0.0)
    spent = kl if bounds.ndim else jnp.sum(weights * kl)
    kkt = residuals(multipliers, spent, bounds, jnp.zeros(()), jnp.abs(elbo))
    converged &= kkt.worst <= SMALL[elbo.dtype.itemsize]
    return Bounded(
        policy, value, tau, kl, elbo + earned, elbo + jnp.sum(multipliers * limit), kkt,
        program.tempered(tau), converged,
    )  # fmt: skip


@compiled
def temperatures(program: ControlProgram, bounds: Float[Array, "..."]) -> Found:
    """The factors of inverse temperatures at which a program spends what it may; differentiable in both."""
    free = (bounds > 0) & jnp.isfinite(bounds)
    fixed = jnp.where(bounds > 0, jnp.inf, 0.0)
    within = jnp.where(free, bounds, 1.0)

    def spender(program: ControlProgram) -> Spend:
        def spend_at(x: Array) -> Spending:
            spent = spend(program.tempered(jnp.where(free, jnp.exp(-x), fixed)))
            if not bounds.ndim:
                return spent
            return spent._replace(kl=jnp.where(free, spent.kl, 0.0), weights=jnp.where(free, spent.weights, 0.0))

        return spend_at

    x, slack = searched(spender(lax.stop_gradient(program)), lax.stop_gradient(within))
    x = differentiable(spender(program), within, x, slack)
    factor = jnp.where(free, jnp.exp(-x), fixed)
    if program.structure.gaussian:
        return Found(factor, spend(program.tempered(factor)))
    # What is best of all is within some bounds of tables.
    other = jnp.where(slack & free, jnp.inf, factor)
    spent, after = spend(program.tempered(factor)), spend(program.tempered(other))
    keeps = jnp.all(over(after, bounds) <= bounds * (1 + ROUNDING))
    return jax.tree.map(lambda a, b: jnp.where(keeps, a, b), Found(other, after), Found(factor, spent))


def searched(spend_at: Spend, bounds: Float[Array, "..."]) -> tuple[Float[Array, "..."], Bool[Array, "..."]]:
    """The logs of the temperatures, and where bounds are slack there."""
    total = bounds
    if bounds.ndim:
        total = jnp.sum(bounds * spend_at(jnp.zeros_like(bounds)).weights)
    x = common(lambda x: spend_at(x + jnp.zeros_like(bounds)), total, jnp.zeros((), bounds.dtype))
    if bounds.ndim:
        x = each(spend_at, bounds, jnp.full_like(bounds, x))
    return x, over(spend_at(x), bounds) < bounds * (1 - jnp.finfo(bounds.dtype).eps ** 0.5)


def differentiable(
    spend_at: Spend, bounds: Float[Array, "..."], x: Float[Array, "..."], slack: Bool[Array, "..."]
) -> Float[Array, "..."]:
    """The same logs with their derivatives, by the implicit function theorem; slack ones have none."""
    tight = 1.0 - slack.astype(bounds.dtype)

    def residual(x: Array) -> Array:
        spent = spend_at(x)
        scale = jnp.exp(x) * (lax.stop_gradient(spent.weights) if bounds.ndim else 1.0)
        return tight * scale * (bounds - over(spent, bounds))

    def solve_linear(push: Callable[[Array], Array], y: Array) -> Array:
        # The Hessian of the dual among the bounds that are not slack: symmetric and positive definite.
        def product(s: Array) -> Array:
            return (1 - tight) * s + push(tight * s)

        def solve(product: Callable[[Array], Array], y: Array) -> Array:
            tol = 8 * float(jnp.finfo(y.dtype).eps)
            return jax.scipy.sparse.linalg.cg(product, y, tol=tol, maxiter=4 * y.size + 20)[0]

        return lax.custom_linear_solve(product, tight * y, solve, symmetric=True)

    return lax.custom_root(residual, x, lambda _, start: start, solve_linear)


def over(spent: Spending, bounds: Float[Array, "..."]) -> Float[Array, "..."]:
    """What is bounded."""
    return spent.kl if bounds.ndim else jnp.sum(spent.weights * spent.kl)
