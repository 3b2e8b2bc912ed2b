"""What a bounded problem answers, and how far that is from optimal."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlinf_ppl.program import ControlProgram

# The largest residual of an answer that counts as converged, by the size of a number in bytes.
SMALL = {4: 1e-3, 8: 1e-8}
# What is next to nothing beside the value.
NOTHING = 1e-3


class KKT(NamedTuple):
    """How far an answer is from the conditions of Karush, Kuhn and Tucker; all are 0 at the optimum.

    Multipliers are at least 0, and flows are kept, by construction.

    Attributes:
        feasibility: the largest excess over a bound, in nats.
        slackness: the largest product of a multiplier and what its bound leaves, beside the sum of all multipliers
            times their bounds and a thousandth of the value.
        stationarity: how far the state's law is from the one that the multipliers' values are best for, in standard
            deviations; 0 where only policies are bounded, which the elimination makes stationary.
    """

    feasibility: Float[Array, ""]
    slackness: Float[Array, ""]
    stationarity: Float[Array, ""]

    @property
    def worst(self) -> Float[Array, ""]:
        """The largest of them."""
        return jnp.max(jnp.stack(self))


class Bounded(NamedTuple):
    """The best policy that moves only so far from the program's prior.

    Attributes:
        policy: for each decision (T, scope, K) probabilities, or (gain, offset, cov), as in a solution.
        value: V of soft-optimal control at these temperatures, as in a solution, in units of optimality.
        inverse_temperature: 1 / alpha of every decision, absolute, (T,), or one number for all; infinite where a bound
            on tables is slack, 0 where it is 0.
        kl: what the policy spends at each step, (T,), in nats; without end the one number of an average step.
        expected: E sum gamma^t log p(O_t) under the policy, in units of optimality: what is maximised.
        dual: the dual at the multipliers, an upper bound on what any policy within the bounds earns; equal to
            `expected` at the optimum.
        kkt: how far the answer is from optimal.
        program: the program with these temperatures: its soft-optimal policy is `policy`.
        converged: whether the residuals are small, and the solution has converged.
    """

    policy: dict[str, Any]
    value: Any
    inverse_temperature: Float[Array, "..."]
    kl: Float[Array, " T"]
    expected: Float[Array, ""]
    dual: Float[Array, ""]
    kkt: KKT
    program: ControlProgram
    converged: Bool[Array, ""]


class BoundedStates(NamedTuple):
    """The best policy that moves, together with the states that it leads to, only so far from given laws.

    Attributes:
        policy: for each decision, as in a solution.
        value: V of `program`, in units of optimality: what is still to come, less what leaving the laws of the state
            costs.
        inverse_temperature: 1 / (alpha + beta), absolute, (T,).
        kl_multiplier: alpha, (T,), in units of optimality for a nat; next to 0 where the bound is slack.
        entropy_multiplier: beta, (T,), the same of the bound on the entropy; 0 where there is none.
        kl: KL of state and decisions from the given laws and the prior at each step, (T,), in nats.
        entropy: of the policy at each step, (T,), in nats.
        expected: E sum gamma^t log p(O_t) under the policy: what is maximised.
        dual: an upper bound on what any policy within the bounds earns; equal to `expected` at the optimum.
        kkt: how far the answer is from optimal.
        program: the program with the bounds as factors, whose soft-optimal policy is `policy`.
        converged: whether the residuals are small, and the solution has converged.
    """

    policy: dict[str, Any]
    value: Any
    inverse_temperature: Float[Array, " T"]
    kl_multiplier: Float[Array, " T"]
    entropy_multiplier: Float[Array, " T"]
    kl: Float[Array, " T"]
    entropy: Float[Array, " T"]
    expected: Float[Array, ""]
    dual: Float[Array, ""]
    kkt: KKT
    program: ControlProgram
    converged: Bool[Array, ""]


def residuals(
    multipliers: Float[Array, "*C"],
    spent: Float[Array, "*C"],
    bounds: Float[Array, "*C"],
    stationarity: Array,
    value: Array,
) -> KKT:
    """The residuals of some bounds.

    Args:
        multipliers: in units of what is maximised for a nat, with weights in them.
        spent: what is bounded.
        bounds: above which it must not be.
        stationarity: see `KKT`.
        value: the size of what is maximised.
    """
    used = jnp.where(multipliers > 0, multipliers, 0.0)
    left = jnp.where(used > 0, bounds - spent, 0.0)
    size = jnp.sum(used * jnp.abs(jnp.where(used > 0, bounds, 0.0)))
    size += NOTHING * value
    slackness = jnp.max(jnp.abs(used * left)) / jnp.where(size > 0, size, 1.0)
    return KKT(jnp.max(jnp.maximum(spent - bounds, 0.0)), slackness, stationarity)
