"""Sequential Monte Carlo: particles that take the steps of any program, drawn anew by what optimality makes of them.

The target is the posterior given optimality and data, that of `exact.condition`: chance sites are conditioned as well.
Every site of the step is run as the user wrote it, so the step may be large, continuous or nonlinear, where no closed
form exists. exp(log_evidence) is unbiased for p(O) at any number of particles (Del Moral 2004); its log is too low on
average, and tends to log p(O).

How good the answer is depends on what the particles know. `proposal` says where they go, a policy such as the one of
`exact.solve` or `svi.fit`; `twist` what the state that they reach is worth, a value such as `exact.solve(...).value`.
Particles are drawn anew, by systematic resampling, where their effective number falls below a share of them all. What
one step does is in `particles.simulator`, and where particles come from in `particles.genealogy`.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.inference.arguments import check_count, check_key, check_share
from rlinf_ppl.inference.particles import filtering, genealogy
from rlinf_ppl.inference.particles.faults import check_faults
from rlinf_ppl.inference.particles.genealogy import History, as_trajectories
from rlinf_ppl.inference.particles.simulator import as_simulator
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.structure import Structure

__all__ = ["Paths", "Run", "particle_gibbs", "run", "smooth"]


class Run(eqx.Module):
    """What N particles found.

    Attributes:
        log_evidence: the log of an unbiased estimate of p(O), in nats.
        policy: for each decision whose scope is finite, (T, scope, K) probabilities along the weighted trajectories of
            the living: an estimate of `exact.condition`'s. What no particle visited is left at the prior. Tables of
            more than 16 million entries are left out: `trajectories` has what they would be counted from.
        ess: the effective number of particles after each step, between 1 and N.
        resampled: whether the particles that took a step had been drawn anew before it.
        ancestors: the particle before a step that each particle after it comes from.
        weights: of the particles at the end, with sum 1; those of the trajectories.
        filtered: for each state variable what is known of it once its own step has been weighted, and of the last one
            in the end: probabilities (T + 1, K), left out where these are more than 16 million, or means (T + 1, ...)
            of real numbers.
        faults: for each site, (T,), the first particle at which its numbers were no law or factor in a step, -1 where
            none; under the name of a state variable whether it left its support. Those of the first and last state
            are scalars, init/s and final/optimality. A faulty particle has weight 0 from then on.
        history: the values of all particles, which `trajectories` is traced back through.
    """

    log_evidence: Float[Array, ""]
    policy: dict[str, Array]
    ess: Float[Array, " T"]
    resampled: Bool[Array, " T"]
    ancestors: Int[Array, "T N"]
    weights: Float[Array, " N"]
    filtered: dict[str, Any]
    faults: dict[str, Array]
    history: History
    structure: Structure = eqx.field(static=True)

    @property
    def trajectories(self) -> dict[str, Any]:
        """Each particle's trajectory: state variables (N, T + 1), latent sites of the step (N, T), `alive` (N, T + 1).

        They are to be weighted by `weights`. Traced back whenever asked for.
        """
        trace = genealogy.all_paths
        for _ in range(self.ancestors.ndim - 2):
            trace = jax.vmap(trace, (None, 0))
        return as_trajectories(self.structure, compiled(trace)(self.structure, self.history))


class Paths(NamedTuple):
    """Trajectories with equal weights.

    Attributes:
        trajectories: state variables (n, T + 1), latent sites of the step (n, T), with a discount `alive` (n, T + 1).
        faults: as a run's; -1 everywhere where there are none.
        traced_back: whether early times were traced back along ancestors, in some path at some time at least, and so
            keep few different values: next states are functions of the noise alone, real numbers that have none of
            their own, and no particle but the one that they came from leads to them.
    """

    trajectories: dict[str, Any]
    faults: dict[str, Array]
    traced_back: Bool[Array, ""]


def run(
    program: ControlProgram,
    key: PRNGKeyArray | Array,
    num_particles: int = 1000,
    *,
    proposal: Any = None,
    twist: Any = None,
    threshold: float = 0.5,
) -> Run:
    """Run an auxiliary particle filter over a program.

    Args:
        program: any step program with an end whose decisions share one inverse temperature.
        key: a JAX random key.
        num_particles: N.
        proposal: what decisions are drawn from: None, their priors; a policy, dict of arrays as `exact.solve` gives,
            or a solution or fit that holds one. An entry may also be a function of the variables before a site, of
            chance too, that returns a NumPyro distribution. It must not be 0 where the posterior is not.
        twist: what a state is worth, in units of optimality: None, nothing; an array (T + 1, states) such as
            `exact.solve(...).value`, a `QuadraticValue`, or a function of state variables (and t). It changes the
            weights on the way, never the answer that is estimated.
        threshold: draw particles anew where their effective number is below this share of N; 0 never does.

    Raises:
        TypeError, ValueError: where the inverse temperatures differ or a decision pays something else than its KL, the
            horizon has no end, or an argument does not fit.
        FloatingPointError: where a site's numbers are no law or factor; it names the time, the site and the particle.
            Under jit and vmap nothing is raised, and `faults` says so.
    """
    simulator, key = as_simulator(program, proposal, twist), check_key(key)
    found = filtering.run(simulator, key, check_count("num_particles", num_particles), check_share(threshold))
    check_faults(found.faults)
    history = found.history
    return Run(
        found.log_evidence,
        found.policy,
        found.ess,
        found.resampled,
        history.ancestors,
        found.weights,
        found.filtered,
        found.faults,
        history,
        program.structure,
    )


def smooth(
    program: ControlProgram,
    key: PRNGKeyArray | Array,
    num_particles: int = 1000,
    num_trajectories: int = 1000,
    *,
    proposal: Any = None,
    twist: Any = None,
    threshold: float = 0.5,
) -> Paths:
    """Sample trajectories of the posterior backwards, so that early times keep many different values.

    Where next states hold real numbers without noise of their own, such as x + 0.1 v, particles have one way only to
    have come there; their trajectories are traced back then, and `traced_back` says so.

    Costs num_particles * num_trajectories evaluations a step.

    Args:
        program: as in `run`.
        key: a JAX random key.
        num_particles: N, of one run of the filter.
        num_trajectories: how many to draw from it.
        proposal: as in `run`.
        twist: as in `run`.
        threshold: as in `run`.

    Raises:
        ValueError: no particle meets the data; and as `run`. Under jit and vmap trajectories mean nothing then.
    """
    simulator, key = as_simulator(program, proposal, twist), check_key(key)
    counts = check_count("num_particles", num_particles), check_count("num_trajectories", num_trajectories)
    paths, faults, traced, evidence = filtering.smooth(simulator, key, *counts, check_share(threshold))
    check_faults(faults)
    check_met(evidence)
    return Paths(as_trajectories(program.structure, paths), faults, traced)


def particle_gibbs(
    program: ControlProgram,
    key: PRNGKeyArray | Array,
    num_particles: int = 20,
    num_iterations: int = 1000,
    *,
    proposal: Any = None,
    twist: Any = None,
    threshold: float = 0.5,
) -> Paths:
    """A Markov chain of trajectories whose invariant law is the posterior, at any number of particles of at least 2.

    Each iteration runs a filter in which particle 0 keeps the last trajectory (conditional SMC: Andrieu, Doucet &
    Holenstein 2010), and samples the next one backwards (Whiteley 2010; Lindsten & Schon 2013). Where it can only be
    traced back, as `smooth` says, the chain is right and mixes slowly.

    Args:
        program: as in `run`.
        key: a JAX random key.
        num_particles: of each filter.
        num_iterations: the length of the chain; it starts with a trajectory of `smooth`.
        proposal: as in `run`.
        twist: as in `run`.
        threshold: as in `run`.

    Raises:
        ValueError: on fewer than two particles, where none of the first ones meets the data, and as `run`.
    """
    simulator, key = as_simulator(program, proposal, twist), check_key(key)
    if check_count("num_particles", num_particles) < 2:
        raise ValueError("num_particles must be at least 2: the only one would keep its trajectory for ever.")
    count = check_count("num_iterations", num_iterations)
    paths, faults, traced, evidence = filtering.particle_gibbs(
        simulator, key, num_particles, count, check_share(threshold)
    )
    check_faults(faults)
    check_met(evidence)
    return Paths(as_trajectories(program.structure, paths), faults, traced)


def check_met(log_evidence: Array) -> None:
    """Raise where no particle meets the data, if that is known.

    Raises:
        ValueError: none does.
    """
    if not isinstance(log_evidence, jax.core.Tracer) and jax.numpy.isneginf(log_evidence):
        raise ValueError(
            "no particle meets the data and hard constraints, so there are no trajectories: either nothing can (then "
            "exact.condition finds a log evidence of minus infinity), or more particles, or a proposal that goes by "
            "the data, find some."
        )
