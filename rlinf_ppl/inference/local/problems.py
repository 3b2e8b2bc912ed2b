"""The bounded problems that loops solve about each trajectory."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlinf_ppl.inference.bounds.policy import at_bounds
from rlinf_ppl.inference.local.improving import Problem, Step
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.tasks import Dynamics


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
        factor, spent = at_bounds(tempered, scale * self.kl_bound, carried, True)
        return Step(spent.policy["u"], spent.kl, factor, -jnp.mean(jnp.log(factor)))
