"""The bounded problems that loops solve about each trajectory."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlinf_ppl.algebra.small_matrices import inverse
from rlinf_ppl.inference.bounds.descent import argmin
from rlinf_ppl.inference.bounds.joint import Given, joint_dual
from rlinf_ppl.inference.bounds.policy import PolicyDual
from rlinf_ppl.inference.exact import prior_policy
from rlinf_ppl.inference.local.improving import Problem, Step
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.tasks import Dynamics

# How near to their bounds policies have to come that are only steps on a way.
NEAR = 1e-6


class PolicyBound(Problem):
    """A bound on the KL of the policy: on its sum over the steps, or at each step.

    Attributes:
        kl_bound: in nats, one number or (T,).
    """

    kl_bound: Float[Array, "..."]

    def begin(self, dynamics: Dynamics) -> Float[Array, ""]:
        """The log of the temperature to begin at."""
        return jnp.zeros(())

    def solve(self, program: ControlProgram, scale: Float[Array, ""], carried: Array) -> Step:
        """The policy within the bound."""
        tempered = program.tempered(jnp.ones_like(self.kl_bound))
        dual = PolicyDual(tempered, scale * self.kl_bound, carried, True)
        at, here = argmin(dual)
        return Step(here.found.policy["u"], here.found.kl, dual.factor(at.x[0]), jnp.mean(at.x))


class StateActionBound(Problem):
    """A bound on the KL of state and action together at each step, from where the last policy leads.

    Attributes:
        kl_bound: in nats, (T,).
        entropy_loss: how much the entropy of the policy may fall at each step, in nats, (T,); None: as much as it will.
    """

    kl_bound: Float[Array, " T"]
    entropy_loss: Float[Array, " T"] | None

    def begin(self, dynamics: Dynamics) -> Float[Array, ""]:
        """The log of the temperature to begin at."""
        return jnp.zeros(())

    def solve(self, program: ControlProgram, scale: Float[Array, ""], carried: Array) -> Step:
        """The policy within the bounds."""
        entropies = None
        if self.entropy_loss is not None:
            cov = prior_policy(program)["u"].cov
            pivots = jax.vmap(lambda cov: inverse(cov)[1])(cov)
            entropy = 0.5 * (cov.shape[-1] * (1 + jnp.log(2 * jnp.pi)) + jnp.sum(jnp.log(pivots), -1))
            entropies = scale * self.entropy_loss - entropy
        dual = joint_dual(program.tempered(1.0), Given(None, scale * self.kl_bound, entropies), carried, NEAR)
        at, here = argmin(dual)
        alpha, beta = dual.multipliers(at)
        return Step(here.found.policy["u"], here.found.kl, 1 / (alpha + beta), jnp.mean(at.x[0]))
