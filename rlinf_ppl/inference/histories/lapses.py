"""Decisions that slip now and then: with some probability any alternative is taken, whatever the policy says."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlinf_ppl.program.conditionals import ConditionalLaw, Values
from rlinf_ppl.program.laws import FiniteLaw, SiteLaw


class Lapsed(ConditionalLaw):
    """A law mixed with the uniform one over what the prior of a decision allows.

    Attributes:
        law: what is mixed; None: the site's own.
        rate: the probability of a lapse.
    """

    law: ConditionalLaw | None
    rate: Float[Array, ""]

    def __call__(self, at: Values, t: Array, law: SiteLaw) -> SiteLaw:
        """The mixture."""
        found = law if self.law is None else self.law(at, t, law)
        if not isinstance(found, FiniteLaw) or not isinstance(law, FiniteLaw):
            raise ValueError("lapses are those of decisions with finitely many alternatives.")
        allowed = (law.probs > 0).astype(found.probs.dtype)
        return FiniteLaw((1 - self.rate) * found.probs + self.rate * allowed / jnp.sum(allowed), found.support)
