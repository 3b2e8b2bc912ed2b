"""What a decision may take beside its policy: lapses to anything, and alternatives that are not always there."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlinf_ppl.program.conditionals import ConditionalLaw, Values
from rlinf_ppl.program.laws import FiniteLaw, SiteLaw


class Changed(ConditionalLaw):
    """A law of finitely many alternatives that another one is changed into.

    Attributes:
        law: the other one; None: the site's own.
    """

    law: ConditionalLaw | None

    def before(self, at: Values, t: Array, law: SiteLaw) -> FiniteLaw:
        """The law that is changed."""
        found = law if self.law is None else self.law(at, t, law)
        if not isinstance(found, FiniteLaw):
            raise ValueError("lapses and available alternatives are those of decisions with finitely many of them.")
        return found


class Lapsed(Changed):
    """A law mixed with the uniform one over what the prior of a decision allows.

    Attributes:
        rate: the probability of a lapse.
    """

    rate: Float[Array, ""]

    def __call__(self, at: Values, t: Array, law: SiteLaw) -> SiteLaw:
        """The mixture."""
        found = self.before(at, t, law)
        assert isinstance(law, FiniteLaw)
        allowed = (law.probs > 0).astype(found.probs.dtype)
        return FiniteLaw((1 - self.rate) * found.probs + self.rate * allowed / jnp.sum(allowed), found.support)


class Restricted(Changed):
    """A law given that one of the alternatives is taken that are there: p(a) / sum of p over these.

    Attributes:
        available: which ones are there.
    """

    available: Bool[Array, " K"]

    def __call__(self, at: Values, t: Array, law: SiteLaw) -> SiteLaw:
        """The law over what is there; the prior that other laws are made from is restricted first."""
        if isinstance(law, FiniteLaw):
            law = self.among(law)
        return self.among(self.before(at, t, law))

    def among(self, law: FiniteLaw) -> FiniteLaw:
        """A law over what is there; no law where all that is probable is not there."""
        kept = jnp.where(law.is_wrong(), jnp.nan, jnp.where(self.available, law.probs, 0.0))
        total = jnp.sum(kept)
        return FiniteLaw(kept / jnp.where(total > 0, total, 1.0), law.support)


def restricted(law: ConditionalLaw | None, available: Bool[Array, " K"]) -> ConditionalLaw:
    """A law over the alternatives that are there; lapses are to these, too."""
    if isinstance(law, Lapsed):
        law = Lapsed(Restricted(law.law, available), law.rate)
    return Restricted(law, available)


def innermost(law: ConditionalLaw | None) -> ConditionalLaw | None:
    """The law that all changes are made to; None: the site's own."""
    while isinstance(law, Changed):
        law = law.law
    return law
