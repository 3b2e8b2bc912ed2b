"""The loss of guides whose real decisions are integrated by nodes; see `nodes`."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.inference.arguments import check_count, check_number
from rlinf_ppl.inference.fitting import nodes
from rlinf_ppl.inference.fitting.asks import nodes_are_needed
from rlinf_ppl.inference.fitting.entries import checked_guide, proposals, small_tables
from rlinf_ppl.inference.fitting.losses import VERDICT_EVERY, ProgramELBO
from rlinf_ppl.inference.fitting.own import check_one_sign, common_sign, policy_of, steepest
from rlinf_ppl.inference.particles.simulator import Simulator, simulator_of
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.evaluation import common_inverse_temperature, nats_per_unit
from rlinf_ppl.program.supports import is_finite

MOST_NODES = 100


class NodeELBO(ProgramELBO):
    """The ELBO of any guide of a program with a finite state, its real sites integrated by nodes: no noise in a fit.

    Its verdict compares with the ELBO of twice as many nodes: a fit whose nodes are too few has not converged.

    Args:
        num_nodes: for each number of a Gaussian site of up to three numbers.
        num_draws: for any other real site: draws whose noise stays the same in a fit.
        accuracy: how far the ELBO and its slopes may be from those of twice as many nodes and draws, in units of
            optimality.

    Raises:
        ValueError: on numbers out of range; by a fit, where all sites together have more nodes than memory holds.
    """

    takes_own = True

    def __init__(self, num_nodes: int = 12, num_draws: int = 1000, accuracy: float = 1e-2):
        super().__init__()
        if check_count("num_nodes", num_nodes) > MOST_NODES:
            raise ValueError(f"num_nodes is at most {MOST_NODES}, where double precision has no more digits.")
        self.num_nodes, self.num_draws = check_count("num_nodes", num_nodes), check_count("num_draws", num_draws)
        with jax.ensure_compile_time_eval():
            self.accuracy = float(check_number("accuracy", accuracy))
        if not self.accuracy > 0:
            raise ValueError(f"accuracy must be above 0; got {self.accuracy}.")

    def check(self, program: ControlProgram) -> None:
        """Raise where the state is real, or too large to have no end, or data count beside an inverse temperature."""
        real = [name for name, support in program.structure.state if not is_finite(support)]
        if real:
            raise ValueError(
                f"the state holds {real}, which take no finitely many values: nodes integrate what is real within a "
                "step. svi.ParticleELBO(n) takes any state."
            )
        nodes.check_endless(program.structure)
        if nats_per_unit(program) is not None:
            raise ValueError(
                "NodeELBO counts everything in units of optimality, and data beside an inverse temperature are in "
                "nats: give loss=svi.ParticleELBO(n), or multiply the reward instead."
            )

    def read(self, program: ControlProgram) -> Simulator:
        """The program in units of optimality; raises where decisions have different aims."""
        check_one_sign(program)
        nodes.check_count(program.structure, 2 * self.num_nodes, 2 * self.num_draws)
        return simulator_of(program)

    def start(self, target: Simulator, key: Array) -> Any:
        """The logits of small random action values, where all decisions have tables."""
        return small_tables(target.structure, key)

    def check_guide(self, target: Simulator, guide: Any) -> Any:
        """A guide of one's own, networks or tables."""
        return checked_guide(target, guide)

    def estimate(self, target: Simulator, guide: Any, key: Array) -> Float[Array, ""]:
        """The ELBO by nodes, whatever the key."""
        return self.bound(target, guide, 1)

    def bound(self, target: Simulator, guide: Any, times: int) -> Float[Array, ""]:
        """The ELBO by so many times the nodes."""
        laws, key = proposals(target, guide), jax.random.key(0)
        return nodes.bound(target, laws, times * self.num_nodes, times * self.num_draws, key)

    def refined(self, target: Simulator, guide: Any) -> tuple[int, ...]:
        """By how many times the nodes a bound is compared; once only where nothing is integrated by nodes."""
        return (1, 2) if nodes_are_needed(target, proposals(target, guide)) else (1,)

    def ascent(self, target: Simulator, gradient: Any) -> Any:
        """All decisions have one aim."""
        sign = common_sign(target)
        return jax.tree.map(lambda g: sign * g, gradient)

    def residual(
        self, target: Simulator, guide: Any, recent: Array | None, steps: Array, carried: Any = None
    ) -> Float[Array, ""]:
        """The largest slope of the ELBO in any of the guide's free numbers; infinite where nodes are too few."""

        def verdict() -> Array:
            found = [
                jax.value_and_grad(partial(self.bound, target, times=n))(guide) for n in self.refined(target, guide)
            ]
            one, other = found[0], found[-1]
            apart = steepest(jax.tree.map(jnp.subtract, one, other))
            # The ELBO itself has no more digits than its dtype.
            slack = self.accuracy + 100 * jnp.finfo(one[0].dtype).eps * jnp.abs(one[0])
            return jnp.where(apart <= slack, steepest(one[1]), jnp.inf)

        return lax.cond(steps % VERDICT_EVERY == 0, verdict, lambda: jnp.asarray(jnp.inf))

    @compiled
    def summary(self, target: Simulator, guide: Any, key: Array) -> tuple[dict[str, Any], Array]:
        """The policy, and its ELBO by twice the nodes."""
        return policy_of(target, proposals(target, guide)), self.bound(target, guide, self.refined(target, guide)[-1])

    def in_nats(self, program: ControlProgram, guide: Any, key: Array) -> Float[Array, ""]:
        """The ELBO by nodes, times the inverse temperature that all decisions share."""
        tau = common_inverse_temperature(program)
        return (1.0 if tau is None else tau) * self.bound(self.read(program), guide, 1)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"NodeELBO({self.num_nodes}, {self.num_draws}, {self.accuracy:g})"
