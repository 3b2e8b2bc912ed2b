"""The loss of variational SMC, for any step program and for guides of tables or networks; see `particle_bound`."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.inference.arguments import check_count, check_share
from rlinf_ppl.inference.fitting import particle_bound
from rlinf_ppl.inference.fitting.entries import checked_guide, guided, small_tables
from rlinf_ppl.inference.fitting.guides import Logits
from rlinf_ppl.inference.fitting.losses import ProgramELBO
from rlinf_ppl.inference.fitting.own import policy_of
from rlinf_ppl.inference.particles.simulator import Simulator, as_simulator
from rlinf_ppl.program import ControlProgram

VERDICT_WINDOW = 1000
SUMMARY_RUNS = 1000


class ParticleELBO(ProgramELBO):
    """E log p_hat over particle filters that propose from the guide, with a sampled gradient.

    One particle gives the ELBO from trajectories alone, for programs that no table holds. More give variational SMC:
    the guide is a proposal then, and what stands for the posterior given optimality are the weighted particles of
    `smc.run(program, key, num_particles, proposal=fit)`. Its gradient goes along what is real, and misses jumps of the
    reward or of the next state there; `NodeELBO` does not.

    Args:
        num_runs: number of independent filters a step; with one there is no baseline.
        num_particles: of each filter.
        threshold: particles are drawn anew where their effective number is below this share of them: 1 before every
            step, 0 never (the importance-weighted bound of Burda et al. 2016).
        resampling_term: whether the gradient counts how the guide changes which particles are drawn anew: unbiased
            then, and much noisier.
    """

    window = VERDICT_WINDOW
    takes_own = True
    learns_arguments = True
    tolerance = 1.0

    def __init__(
        self, num_runs: int = 100, num_particles: int = 1, threshold: float = 1.0, resampling_term: bool = False
    ):
        super().__init__(check_count("num_particles", num_particles))
        # Also where a caller's jit is tracing it is a plain number.
        with jax.ensure_compile_time_eval():
            self.threshold = float(check_share(threshold))
        self.num_runs, self.resampling_term = check_count("num_runs", num_runs), bool(resampling_term)

    def read(self, program: ControlProgram) -> Simulator:
        """The program as its particles see it."""
        return as_simulator(program, None, None)

    def start(self, target: Simulator, key: Array) -> Logits:
        """The logits of small random action values."""
        return small_tables(target.structure, key)

    def check_guide(self, target: Simulator, guide: Any) -> Any:
        """A guide to start from: one of the user's own, or for each decision a network or a table of logits."""
        return checked_guide(target, guide)

    def estimate(self, target: Simulator, guide: Any, key: Array) -> Float[Array, ""]:
        """E log p_hat in units of optimality."""
        return self.bound(target, guide, key, self.num_runs) / scale(target)

    def bound(self, target: Simulator, guide: Any, key: Array, num_runs: int) -> Float[Array, ""]:
        """E log p_hat in nats."""
        return particle_bound.log_evidence(
            guided(target, guide), key, self.num_particles, num_runs, self.threshold, self.resampling_term
        )

    def ascent(self, target: Simulator, gradient: Any) -> Any:
        """All decisions share an inverse temperature: where it is negative, all of them minimise."""
        return jax.tree.map(lambda g: jnp.sign(scale(target)) * g, gradient)

    def residual(
        self, target: Simulator, guide: Any, recent: Array | None, steps: Array, carried: Any = None
    ) -> Float[Array, ""]:
        """How much the losses fell from the first half of the window to the second, in standard errors."""
        assert recent is not None
        halves = jnp.reshape(recent, (2, -1))
        mean, error = jnp.mean(halves, 1), jnp.sqrt(jnp.sum(jnp.var(halves, 1)) / halves.shape[1])
        fallen = jnp.sign(scale(target)) * (mean[0] - mean[1]) / jnp.where(error > 0, error, 1.0)
        return jnp.where(steps % (VERDICT_WINDOW // 10) == 0, jnp.where(jnp.isnan(fallen), jnp.inf, fallen), jnp.inf)

    @compiled
    def summary(self, target: Simulator, guide: Any, key: Array) -> tuple[dict[str, Any], Array]:
        """The policy, as tables where it is learned as such; and the bound over many runs."""
        proposing = guided(target, guide)
        policy = policy_of(proposing, proposing.proposal)
        return policy, self.bound(target, guide, key, SUMMARY_RUNS) / scale(target)

    def in_nats(self, program: ControlProgram, guide: Any, key: Array) -> Float[Array, ""]:
        """E log p_hat."""
        return self.bound(self.read(program), guide, key, self.num_runs)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"ParticleELBO({self.num_runs}, {self.num_particles}, {self.threshold:g}, {self.resampling_term})"


def scale(simulator: Simulator) -> Array:
    """Nats per unit of optimality."""
    return jnp.asarray(1.0) if simulator.tau is None else simulator.tau
