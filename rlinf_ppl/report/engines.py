"""The engines that sample, beside the exact ones: each is asked for its answer, or says why it has none.

    svi.fit, SampledELBO    the guide fitted by sampled gradients. It learns where it goes, so that KL(fit || closed
                            form) over its own trajectories says how near it came
    smc.run                 particles that go as soft-optimal control does: its policy is their proposal, its value
                            their twist. exp of a log evidence is unbiased, so that runs are averaged on that scale

With Z the mean of n estimates of the evidence and s their standard deviation, log Z has the standard error
s / (Z sqrt n), by the delta method. Runs know no more than their particles met: where the posterior given optimality
goes where control hardly does, all of them are too low, and their standard error does not say so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

from rlinf_ppl.inference import exact, smc, svi
from rlinf_ppl.inference.particles.faults import check_faults
from rlinf_ppl.program import ControlProgram

Answer = TypeVar("Answer")

LEARNING_RATE = 0.1
OPTIMIZER = optax.adam(LEARNING_RATE)
SAMPLED_STEPS = 1000
NUM_TRAJECTORIES = 100
NUM_PARTICLES = 1000
NUM_RUNS = 32

SAMPLED_SVI = "sampled SVI"
SMC = "SMC"
SETTINGS = (
    f"{SAMPLED_SVI}: Adam({LEARNING_RATE:g}) on SampledELBO({NUM_TRAJECTORIES}), at most {SAMPLED_STEPS:,} steps; its "
    f"KL is what these leave. {SMC}: {NUM_RUNS} runs of {NUM_PARTICLES:,} particles that go as soft-optimal control "
    "does. Their standard error knows what they met: a large gap lies where they hardly go, and they fall short of it."
)
"""What the reader of their numbers has to know."""


class Particles(NamedTuple):
    """What independent runs of a particle filter found.

    Attributes:
        log_evidence: The log of the mean of their estimates of the evidence, in nats.
        standard_error: Of that, by the delta method.
    """

    log_evidence: Float[Array, ""]
    standard_error: Float[Array, ""]


class Estimates(NamedTuple):
    """The answers of the engines that sample.

    Attributes:
        fit: The fit by sampled gradients, its ELBO in units of optimality; None where there is none.
        particles: What particles say of the evidence; None where there are none.
        missing: For each engine that has no answer, by its name, why.
        seconds: Wall time of both, compilation included.
    """

    fit: svi.Fit | None
    particles: Particles | None
    missing: dict[str, str]
    seconds: float


def ignore(_phase: str) -> None:
    """Reports progress to nobody."""


def estimate(program: ControlProgram, key: Array, progress: Callable[[str], None] = ignore) -> Estimates:
    """Asks the engines that sample.

    Args:
        program: Any step program.
        key: The random key of all draws.
        progress: Called with the name of each phase as it begins.
    """
    start = time.perf_counter()
    fit_key, particles_key = jax.random.split(key)
    progress("fitting by samples")
    fit, no_fit = asked(lambda: sampled_fit(program, fit_key))
    progress("moving particles")
    found, no_particles = asked(lambda: particles(program, particles_key))
    missing = {name: reason for name, reason in ((SAMPLED_SVI, no_fit), (SMC, no_particles)) if reason}
    return Estimates(fit, found, missing, time.perf_counter() - start)


def asked(engine: Callable[[], Answer]) -> tuple[Answer | None, str]:
    """What an engine answers, or None and why it does not."""
    try:
        return jax.block_until_ready(engine()), ""
    except (ValueError, FloatingPointError) as error:
        return None, str(error)


def sampled_fit(program: ControlProgram, key: Array) -> svi.Fit:
    """The guide fitted by sampled gradients, with the settings that all cases share.

    Raises:
        ValueError: As `svi.fit`: an infinite horizon has no trajectories to sample.
        FloatingPointError: Where the steps were too long for the program.
    """
    loss = svi.SampledELBO if program.learned is None else svi.ParticleELBO
    fit = svi.fit(program, key, SAMPLED_STEPS, loss=loss(NUM_TRAJECTORIES), optimizer=OPTIMIZER)
    if not jnp.isfinite(fit.elbo):
        raise FloatingPointError(f"the fit diverged: after {len(fit.losses)} steps its ELBO is {float(fit.elbo)}.")
    return fit


def particles(
    program: ControlProgram, key: Array, num_particles: int = NUM_PARTICLES, num_runs: int = NUM_RUNS
) -> Particles:
    """The evidence by independent runs of particles that know soft-optimal control.

    Args:
        program: Any step program.
        key: The random key of all runs.
        num_particles: How many particles a run has.
        num_runs: How many runs there are, at least two.

    Raises:
        ValueError: As `smc.run`: where there is no end, or no joint model.
        FloatingPointError: Where a site's numbers were no law or factor in one of the runs.
    """
    solution = exact.solve(program)

    def one(key: Array) -> tuple[Array, dict[str, Array]]:
        run = smc.run(program, key, num_particles, proposal=solution, twist=solution.value)
        return run.log_evidence, run.faults

    # One run after the other is one particle filter to compile, and holds one history.
    log_evidence, faults = lax.map(one, jax.random.split(key, num_runs))
    check_faults({name: jnp.max(each, 0) for name, each in faults.items()})
    return averaged(log_evidence)


def averaged(log_evidence: Float[Array, " runs"]) -> Particles:
    """The log of the mean of the estimates whose logs are given, and its standard error."""
    peak = jnp.max(log_evidence)
    ratios = jnp.exp(log_evidence - peak)
    mean, spread = jnp.mean(ratios), jnp.std(ratios, ddof=1)
    return Particles(peak + jnp.log(mean), spread / (mean * jnp.sqrt(ratios.size)))
