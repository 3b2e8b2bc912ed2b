"""The bounded problems that loops solve about each trajectory."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlinf_ppl.inference.bounds.conjugate import largest
from rlinf_ppl.inference.bounds.descent import argmin
from rlinf_ppl.inference.bounds.dual import Evaluation, size_of
from rlinf_ppl.inference.bounds.joint import Given, joint_dual
from rlinf_ppl.inference.bounds.policy import PolicyDual
from rlinf_ppl.inference.chains.costs import entropy_of
from rlinf_ppl.inference.exact import prior_policy
from rlinf_ppl.inference.local.improving import Problem, Step
from rlinf_ppl.program import ControlProgram

# How near to their bounds policies have to come that are only steps on a way.
NEAR = 1e-6
# What may be left, beside the bounds, of one that counts as solved.
ROUGH = 1e-3


def within(here: Evaluation) -> Bool[Array, ""]:
    """Whether bounds are kept, and laws of the state are what they were taken for."""
    return (jnp.max(here.excess) <= ROUGH) & (largest(here.slope.tilt) <= ROUGH * size_of(here))


class PolicyBound(Problem):
    """A bound on the KL of the policy: on its sum over the steps, or at each step.

    Attributes:
        kl_bound: in nats, one number or (T,).
    """

    kl_bound: Float[Array, "..."]

    def solve(self, program: ControlProgram, scale: Float[Array, ""], start: Float[Array, ""]) -> Step:
        """The policy within the bound."""
        tempered = program.tempered(jnp.ones_like(self.kl_bound))
        dual = PolicyDual(tempered, scale * self.kl_bound, start, True)
        at, here = argmin(dual)
        return Step(here.found.policy["u"], here.found.kl, dual.factor(at.x[0]), jnp.mean(at.x), within(here))


class StateActionBound(Problem):
    """A bound on the KL of state and action together at each step, from where the last policy leads.

    Attributes:
        kl_bound: in nats, (T,).
        entropy_loss: how much the entropy of the policy may fall at each step, in nats, (T,); None: as much as it will.
    """

    kl_bound: Float[Array, " T"]
    entropy_loss: Float[Array, " T"] | None

    def solve(self, program: ControlProgram, scale: Float[Array, ""], start: Float[Array, ""]) -> Step:
        """The policy within the bounds."""
        entropies = None
        if self.entropy_loss is not None:
            entropies = scale * self.entropy_loss - entropy_of(prior_policy(program)["u"].cov)
        dual = joint_dual(program.tempered(1.0), Given(None, scale * self.kl_bound, entropies), start, NEAR)
        at, here = argmin(dual)
        alpha, beta = dual.multipliers(at)
        return Step(here.found.policy["u"], here.found.kl, 1 / (alpha + beta), jnp.mean(at.x[0]), within(here))
