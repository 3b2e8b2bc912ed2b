"""Bounds on what policies spend alone, at each step or together: a search for temperatures."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.inference.bounds.descent import argmin
from rlinf_ppl.inference.bounds.dual import Dual, Evaluation, Point
from rlinf_ppl.inference.bounds.results import SMALL, Bounded, residuals
from rlinf_ppl.inference.bounds.spending import Spending, spend
from rlinf_ppl.inference.bounds.temperatures import MOVES, common
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
    """The dual of bounds on the KL of the policy: at each step, or on the sum over all of them.

    Attributes:
        program: with decisions whose inverse temperature is 1.
        bounds: (T,), or one number for the sum.
        start: the log of a temperature to begin at.
        policies: whether policies are among what is found.
    """

    program: ControlProgram
    bounds: Float[Array, "..."]
    start: Float[Array, ""]
    policies: bool = eqx.field(static=True, default=False)

    def begin(self) -> tuple[Point, Evaluation | None]:
        """The temperature that meets the bound on the sum; or one that exceeds none, where the policy moves little."""
        free, shape = is_free(self.bounds), jnp.zeros(self.bounds.shape or (1,))
        bounds = jnp.where(free, self.bounds, 1.0)
        if self.bounds.ndim:
            bounds = jnp.minimum(bounds, MOVES)

        def ratio(spent: Spending) -> Array:
            return jnp.max(jnp.where(free, self.per_multiplier(spent)[1], 0.0) / bounds)

        worth = jnp.sum(jnp.where(free, bounds, 0.0))
        x, spent = common(lambda x: self.spend(x + shape), ratio, worth, self.start)
        # One multiplier is found by a search alone.
        return Point((x + shape)[None], ()), None if self.bounds.ndim else self.evaluation(x + shape, spent)

    def factor(self, x: Float[Array, " T"]) -> Float[Array, "..."]:
        """Inverse temperatures for the logs of temperatures: 0 where the bound is 0, infinite where there is none."""
        fixed = jnp.where(self.bounds > 0, jnp.inf, 0.0)
        return jnp.where(is_free(self.bounds), jnp.exp(-jnp.reshape(x, self.bounds.shape)), fixed)

    def spend(self, x: Float[Array, " T"]) -> Spending:
        """What is spent at the logs of temperatures, where there is something to look for."""
        spent = spend(self.program.tempered(self.factor(x)), self.policies)
        free = jnp.broadcast_to(is_free(self.bounds), spent.kl.shape)
        return spent._replace(kl=jnp.where(free, spent.kl, 0.0), weights=jnp.where(free, spent.weights, 0.0))

    def evaluate(self, at: Point) -> Evaluation:
        """The dual at the logs of multipliers."""
        return self.evaluation(at.x[0], self.spend(at.x[0]))

    def evaluation(self, x: Float[Array, " T"], spent: Spending) -> Evaluation:
        """The dual, by what is spent."""
        free = is_free(self.bounds)
        bounds = jnp.where(free, self.bounds, 1.0)
        weights, kl = self.per_multiplier(spent)
        multipliers = weights * jnp.exp(x)
        worth = jnp.sum(multipliers * bounds)
        slope = jnp.where(free, multipliers * (bounds - kl), 0.0)
        excess = jnp.where(weights > 0, (kl - bounds) / bounds, 0.0)
        value = spent.elbo + worth
        return Evaluation(value, Point(slope[None], ()), excess[None], worth, jnp.abs(spent.elbo) + worth, spent)

    def per_multiplier(self, spent: Spending) -> tuple[Float[Array, " T"], Float[Array, " T"]]:
        """The weight of each bound, and what it bounds."""
        if self.bounds.ndim:
            return spent.weights, spent.kl
        return jnp.ones(1), jnp.sum(spent.weights * spent.kl)[None]

    def precondition(self, at: Point, evaluation: Evaluation, slope: Point, ridge: Float[Array, "B T"]) -> Point:
        """Alone, each step's KL is about proportional to alpha^-2."""
        weights, kl = self.per_multiplier(evaluation.found)
        near = 2 * weights * jnp.exp(at.x[0]) * jnp.maximum(kl, 0.0)
        return Point(slope.x / (near[None] + ridge), ())


@compiled
def temperatures(program: ControlProgram, bounds: Float[Array, "..."]) -> Found:
    """The inverse temperatures at which a program spends what it may, differentiable in both."""
    dual = PolicyDual(program, bounds, jnp.zeros(()))
    at, here = argmin(dual)
    factor, spent = dual.factor(at.x[0]), here.found
    if not program.structure.gaussian:
        # What is best of all is within some bounds of tables; not where rounding says what that is.
        slack = over(spent, bounds) < bounds * (1 - jnp.finfo(bounds.dtype).eps ** 0.5)
        for _ in range(2):
            other = jnp.where(slack, jnp.inf, factor)
            after = spend(program.tempered(other))
            within = over(after, bounds) <= bounds * (1 + ROUNDING)
            slack &= within
        keeps = jnp.all(within)
        factor, spent = jax.tree.map(lambda a, b: jnp.where(keeps, a, b), (other, after), (factor, spent))
    return Found(factor, spent)


def is_free(bounds: Float[Array, "..."]) -> Bool[Array, "..."]:
    """Where there is something to look for."""
    return (bounds > 0) & jnp.isfinite(bounds)


def over(spent: Spending, bounds: Float[Array, "..."]) -> Float[Array, "..."]:
    """What is bounded."""
    return spent.kl if bounds.ndim else jnp.sum(spent.weights * spent.kl)
