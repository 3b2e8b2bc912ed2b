"""Bounds on what policies spend alone, at each step or together: a search for temperatures."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.inference.bounds.descent import Dual, Evaluation, Point, minimise
from rlinf_ppl.inference.bounds.results import SMALL, Bounded, residuals
from rlinf_ppl.inference.bounds.spending import Spending, spend
from rlinf_ppl.inference.bounds.temperatures import common
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
    elbo, kl, weights, _ = found.spent
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


class PolicyDual(Dual):
    """The dual of bounds on the KL of the policy at each step.

    Attributes:
        program: with decisions whose inverse temperature is 1.
        bounds: (T,), or one number.
        policies: whether policies are among what is found.
    """

    program: ControlProgram
    bounds: Float[Array, "..."]
    policies: bool = eqx.field(static=True)

    def spend(self, x: Float[Array, "..."]) -> Spending:
        """What is spent at the logs of temperatures, where there is something to look for."""
        spent = spend(self.program.tempered(inverse(x, self.bounds)), self.policies)
        free = jnp.broadcast_to(is_free(self.bounds), spent.kl.shape)
        return spent._replace(kl=jnp.where(free, spent.kl, 0.0), weights=jnp.where(free, spent.weights, 0.0))

    def evaluate(self, at: Point) -> Evaluation:
        """The dual at the logs of multipliers."""
        return self.evaluation(at.x[0], self.spend(at.x[0]))

    def evaluation(self, x: Float[Array, " T"], spent: Spending) -> Evaluation:
        """The dual, by what is spent."""
        bounds = jnp.where(is_free(self.bounds), self.bounds, 1.0)
        multipliers = spent.weights * jnp.exp(x)
        worth = jnp.sum(multipliers * bounds)
        slope = jnp.where(is_free(self.bounds), multipliers * (bounds - spent.kl), 0.0)
        excess = jnp.where(spent.weights > 0, (spent.kl - bounds) / bounds, 0.0)
        value = spent.elbo + worth
        return Evaluation(value, Point(slope[None], ()), excess[None], worth, jnp.abs(spent.elbo) + worth, spent)

    def precondition(self, at: Point, evaluation: Evaluation, slope: Point, barrier: Float[Array, ""]) -> Point:
        """Alone, each step's KL is about proportional to alpha^-2."""
        spent = evaluation.found
        return Point(slope.x / (2 * spent.weights * jnp.exp(at.x) * jnp.maximum(spent.kl, 0.0) + barrier), ())


@compiled
def temperatures(program: ControlProgram, bounds: Float[Array, "..."]) -> Found:
    """The inverse temperatures at which a program spends what it may, differentiable in both."""
    factor, spent = at_bounds(program, bounds, jnp.zeros(()), False)
    if program.structure.gaussian:
        return Found(factor, spent)
    # What is best of all is within some bounds of tables.
    other = jnp.where(is_slack(spent, bounds), jnp.inf, factor)
    after = spend(program.tempered(other))
    keeps = jnp.all(over(after, bounds) <= bounds * (1 + ROUNDING))
    return jax.tree.map(lambda a, b: jnp.where(keeps, a, b), Found(other, after), Found(factor, spent))


@eqx.filter_custom_jvp
def at_bounds(
    program: ControlProgram, bounds: Float[Array, "..."], start: Float[Array, ""], policies: bool
) -> tuple[Float[Array, "..."], Spending]:
    """Finite inverse temperatures at which a program spends what it may, and what it spends.

    Args:
        program: with decisions whose inverse temperature is 1.
        bounds: one number for the sum, or (T,) for each step.
        start: the log of a temperature to begin at.
        policies: whether policies are among the answers.
    """
    dual = PolicyDual(program, bounds, policies)
    total = jnp.sum(jnp.where(is_free(bounds), bounds, 0.0))
    x, spent = common(lambda x: dual.spend(x + jnp.zeros_like(bounds)), jnp.where(total > 0, total, 1.0), start)
    if bounds.ndim:
        begin = Point(jnp.full_like(bounds, x)[None], ())
        end, evaluation = minimise(dual, begin, dual.evaluation(begin.x[0], spent))
        x, spent = end.x[0], evaluation.found
    return inverse(x, bounds), spent


@at_bounds.def_jvp
def tangents(primals: Any, moves: Any) -> Any:
    """The implicit function theorem: what stays at its bound stays there."""
    program, bounds, start, policies = primals
    factor, spent = at_bounds(*primals)
    free = is_free(bounds)
    tight = (free & ~is_slack(spent, bounds)).astype(bounds.dtype)
    x = -jnp.log(jnp.where(free, factor, 1.0))

    def off(program: ControlProgram, bounds: Array, x: Array) -> Array:
        found = spend(program.tempered(inverse(x, bounds)))
        scale = jnp.exp(x) * (lax.stop_gradient(found.weights) if bounds.ndim else 1.0)
        return tight * scale * jnp.where(free, bounds - over(found, bounds), 0.0)

    def product(s: Array) -> Array:
        # The Hessian of the dual among the bounds that are not slack, symmetric and positive definite.
        return (1 - tight) * s + jax.jvp(lambda x: off(program, bounds, x), (x,), (tight * s,))[1]

    def solve_linear(product: Callable[[Array], Array], y: Array) -> Array:
        tol = 8 * float(jnp.finfo(y.dtype).eps)
        return jax.scipy.sparse.linalg.cg(product, y, tol=tol, maxiter=4 * y.size + 20)[0]

    pushed = eqx.filter_jvp(lambda program, bounds: off(program, bounds, x), primals[:2], moves[:2])[1]
    x_moves = -lax.custom_linear_solve(product, pushed, solve_linear, symmetric=True)

    def answer(program: ControlProgram, bounds: Array, x: Array) -> tuple[Array, Spending]:
        return inverse(x, bounds), spend(program.tempered(inverse(x, bounds)), policies)

    return (factor, spent), eqx.filter_jvp(answer, (program, bounds, x), (*moves[:2], x_moves))[1]


def inverse(x: Float[Array, "..."], bounds: Float[Array, "..."]) -> Float[Array, "..."]:
    """Inverse temperatures for the logs of temperatures: 0 where the bound is 0, infinite where there is none."""
    return jnp.where(is_free(bounds), jnp.exp(-x), jnp.where(bounds > 0, jnp.inf, 0.0))


def is_free(bounds: Float[Array, "..."]) -> Bool[Array, "..."]:
    """Where there is something to look for."""
    return (bounds > 0) & jnp.isfinite(bounds)


def is_slack(spent: Spending, bounds: Float[Array, "..."]) -> Bool[Array, "..."]:
    """Where less is spent than a bound above 0 allows."""
    return over(spent, bounds) < bounds * (1 - jnp.finfo(bounds.dtype).eps ** 0.5)


def over(spent: Spending, bounds: Float[Array, "..."]) -> Float[Array, "..."]:
    """What is bounded."""
    return spent.kl if bounds.ndim else jnp.sum(spent.weights * spent.kl)
