"""The exact ELBO of a guide of one's own, with its verdict."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rlinf_ppl.algebra import Chain
from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.inference.fitting.entries import proposals
from rlinf_ppl.inference.fitting.losses import VERDICT_EVERY, ExactELBO, ProgramELBO
from rlinf_ppl.inference.fitting.own import (
    bound,
    check_one_sign,
    check_tables,
    common_sign,
    is_own,
    policy_of,
    refusal,
    steepest,
)
from rlinf_ppl.inference.particles.simulator import Simulator, simulator_of
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.guides import Guide, as_guide
from rlinf_ppl.program.parameters import learns_arguments


class Made(NamedTuple):
    """A program as tables, and as what a guide's functions are called by."""

    chain: Chain
    simulator: Simulator


class PolicyELBO(ProgramELBO):
    """The exact ELBO of a guide whose functions can be written out as tables: `ExactELBO` for guides of one's own."""

    takes_own = True

    def read(self, program: ControlProgram) -> Made:
        """Both; raises where decisions that share a guide have different aims, or keep their prior."""
        chain, simulator = ExactELBO().read(program), simulator_of(program)
        check_one_sign(program)
        return Made(chain, simulator)

    def start(self, target: Made, key: Array) -> Guide:
        """There is none."""
        raise TypeError("a guide of one's own is its own start; give it as guide=, or by program.with_guide(guide).")

    def check_guide(self, target: Made, guide: Any) -> Guide:
        """The guide, if all of its functions can be written out."""
        found = as_guide(target.simulator, guide)
        check_tables(target.simulator, found)
        return found

    def estimate(self, target: Made, guide: Guide, key: Array) -> Float[Array, ""]:
        """The exact ELBO."""
        return bound(target.chain, target.simulator, guide)

    def ascent(self, target: Made, gradient: Guide) -> Guide:
        """All decisions have one aim."""
        sign = common_sign(target.simulator)
        return jax.tree.map(lambda g: sign * g, gradient)

    def residual(
        self, target: Made, guide: Guide, recent: Array | None, steps: Array, carried: Any = None
    ) -> Float[Array, ""]:
        """The largest slope of the ELBO in any of the free numbers, which is 0 at a local optimum."""

        def verdict() -> Array:
            return steepest(jax.grad(lambda guide: self.estimate(target, guide, jax.random.key(0)))(guide))

        return lax.cond(steps % VERDICT_EVERY == 0, verdict, lambda: jnp.asarray(jnp.inf))

    @compiled
    def summary(self, target: Made, guide: Guide, key: Array) -> tuple[dict[str, Any], Array]:
        """The policy as tables, and its exact ELBO."""
        laws = proposals(target.simulator, guide)
        return policy_of(target.simulator, laws), self.estimate(target, guide, key)

    def __repr__(self) -> str:
        return "ExactELBO()"


def loss_for(loss: Any, guide: Any, optimizer: Any) -> Any:
    """The loss as it is for a guide: of tables, or of one's own.

    Raises:
        TypeError: it takes no guide of one's own.
        ValueError: there is no optimizer to move one.
    """
    if not is_own(guide) or not isinstance(loss, ProgramELBO):
        return loss
    if optimizer is None:
        raise ValueError(
            "the natural gradient is one of tables; a guide of one's own goes with an optimizer, such as "
            "optimizer=optax.adam(0.05)."
        )
    if learns_arguments(guide.module if isinstance(guide, Guide) else guide) and not loss.learns_arguments:
        raise TypeError(
            f"{loss!r} reads the program's arguments once, and this guide learns some of them: give "
            "loss=svi.ParticleELBO(n)."
        )
    if loss.takes_own:
        return loss
    if type(loss) is not ExactELBO:
        raise TypeError(refusal(loss))
    return PolicyELBO()
