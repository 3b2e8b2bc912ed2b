"""Control under hidden state, four ways side by side, in units of reward: bounds, little memory, the belief, particles.

The belief is bracketed by `beliefs.solve`; policies of what was seen last, and of two and three memories, are fitted by
best replies from many starts; networks see the belief, or the share of particles in each state, and are fitted by
sampled trajectories, rewards counting little at first. Each is worth its return less KL / beta: exact for tables, and
for networks over episodes, with a standard error. None may exceed the upper bound by more than three of these.
Memories are made nearly free, at an inverse temperature of their own.

With ten particles outside, whose fit bounds log p(O) instead, the answer is that of another question: chance is
conditioned on optimality, too. It is reported apart and is no return.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
import optax

from benchmarks.measure import Line, Mismatch, Settings
from rlinf_ppl import ControlProgram, models
from rlinf_ppl.inference import beliefs, smc, svi
from rlinf_ppl.tasks import POMDP, gallery

KEY = jax.random.key(0)
MEMORY_BETA = 1e3
RISING = tuple(np.geomspace(0.05, 1.0, 30))


class Case(NamedTuple):
    """A task, how long it is played, and how sharply."""

    name: str
    pomdp: POMDP
    horizon: int
    beta: float


class Size(NamedTuple):
    """How much is done.

    Attributes:
        memories: how many policies have.
        starts: of tables.
        factors: of the inverse temperature of networks, one fit after the other.
        steps: of each fit.
        runs: of each step, in episodes.
        particles: that an agent carries.
        num_beliefs: the most.
        batches: of 1,000 episodes that an estimate is made of.
    """

    memories: tuple[int, ...]
    starts: int
    factors: tuple[float, ...]
    steps: int
    runs: int
    particles: int
    num_beliefs: int
    batches: int


FULL = Size((1, 2, 3), 20, (0.05, 0.1, 0.2, 0.4, 0.7, 1.0), 400, 200, 32, 512, 20)
QUICK = Size((1, 2), 2, (1.0,), 20, 50, 8, 64, 2)


class Estimate(NamedTuple):
    """A mean over batches of episodes, and its standard error."""

    mean: float
    error: float


def random_task() -> POMDP:
    """Five states, three actions, two observations."""
    rng = np.random.default_rng(0)
    tables = rng.dirichlet(np.full(5, 0.4), (5, 3)), rng.normal(size=(5, 3)), rng.dirichlet(np.full(2, 0.5), (5, 3))
    return POMDP(*tables, rng.dirichlet(np.ones(5)), 0.95)


def cases(quick: bool) -> list[Case]:
    """The three tasks, or a short one."""
    if quick:
        return [Case("tiger", gallery.tiger(discount=1.0), 3, 1.0)]
    return [
        Case("tiger", gallery.tiger(discount=1.0), 6, 1.0),
        Case("maze", gallery.maze_4x3(), 8, 20.0),
        Case("random", random_task(), 6, 5.0),
    ]


def annealed(program: ControlProgram, size: Size, particles: int = 1) -> ControlProgram:
    """A program with its network fitted, the inverse temperature rising."""
    loss, optimizer = svi.ParticleELBO(size.runs, particles), optax.adam(5e-3)
    for factor in size.factors:
        fit = svi.fit(program.tempered(factor), KEY, size.steps, loss=loss, optimizer=optimizer, tolerance=0.0)
        program = program.with_guide(fit.guide.module)
    return program


def worth(program: ControlProgram, beta: float, size: Size, particles: int = 1) -> Estimate:
    """Return less price of one particle's episodes, E log p_hat / beta of more; by batches that share nothing.

    A filter of one particle that proposes from the guide weighs an episode exp(beta return) prior / guide.
    """
    loss = svi.ParticleELBO(1000, particles)
    read = jax.jit(lambda key: loss.in_nats(program, program.learned, key))
    found = np.array([read(key) for key in jax.random.split(jax.random.key(1), size.batches)]) / beta
    return Estimate(float(found.mean()), float(found.std(ddof=1) / np.sqrt(len(found))))


def below(what: str, found: Estimate, upper: float) -> None:
    """Compare with what no policy exceeds.

    Raises:
        Mismatch: it is more than three standard errors above.
    """
    if not found.mean <= upper + 3 * found.error + 1e-6:
        raise Mismatch(f"{what} is {found.mean:.4f} +- {found.error:.4f}, above the bound {upper:.4f}.")


def written(case: Case, way: str, found: Estimate, upper: float, began: float, note: str = "") -> Line:
    """A line of the table."""
    what = f"{case.name}, T = {case.horizon}, beta = {case.beta:g}: {way}"
    below(what, found, upper)
    took = f"{time.perf_counter() - began:.0f} s"
    error = f"+- {found.error:.4f}" if found.error else "exact"
    return Line("hidden", what, found.mean, "", note="; ".join(filter(None, (error, took, note))))


def of_tables(case: Case, memories: int, size: Size, upper: float) -> Line:
    """Little memory."""
    began = time.perf_counter()
    program = models.finite_memory(case.pomdp, case.horizon, memories, case.beta, memory_beta=MEMORY_BETA)
    fit = svi.fit(program, KEY, 400, num_restarts=size.starts, schedule=RISING)
    way = "what was seen last" if memories == 1 else f"and {memories} memories"
    best = np.mean(np.asarray(fit.restarts) > float(fit.elbo) - 1e-4 * max(1.0, abs(float(fit.elbo))))
    return written(case, way, Estimate(float(fit.elbo), 0.0), upper, began, f"{best:.0%} of starts end there")


def of_networks(case: Case, name: str, program: ControlProgram, size: Size, upper: float) -> Line:
    """What is seen by a network."""
    began = time.perf_counter()
    return written(case, name, worth(annealed(program, size), case.beta, size), upper, began)


def studied(case: Case, size: Size) -> Iterator[Line]:
    """The lines of a task."""
    began = time.perf_counter()
    found = beliefs.solve(case.pomdp, case.horizon, case.beta, num_beliefs=size.num_beliefs)
    lower, upper = float(found.lower), float(found.upper)
    note = f"from {lower:.6f}, {len(found.beliefs)} beliefs"
    yield written(case, "the belief, at most", Estimate(upper, 0.0), upper, began, note)
    for memories in size.memories:
        yield of_tables(case, memories, size, upper)
    believing = models.belief(case.pomdp, case.horizon, case.beta)
    yield of_networks(case, "a network of the belief", believing, size, upper)
    carrying = models.particle_belief(case.pomdp, case.horizon, size.particles, case.beta)
    yield of_networks(case, f"a network of {size.particles} particles", carrying, size, upper)


def outside(case: Case, size: Size) -> Iterator[Line]:
    """Ten particles outside of a network of particles: a bound of log p(O) / beta, which is no return."""
    began = time.perf_counter()
    carrying = models.particle_belief(case.pomdp, case.horizon, size.particles, case.beta)
    program = annealed(carrying, size, 10)
    bound, own = worth(program, case.beta, size, 10), worth(program, case.beta, size)
    found = smc.run(program, jax.random.key(2), 10_000).log_evidence
    what = f"{case.name}: E log p_hat / beta of 10 particles outside: no return"
    note = f"+- {bound.error:.4f}; log p(O) / beta {float(found) / case.beta:.4f}; return less price {own.mean:.4f}"
    yield Line("hidden", what, bound.mean, "", note=f"{note} +- {own.error:.4f}; {time.perf_counter() - began:.0f} s")


def run(settings: Settings) -> Iterator[Line]:
    """All tasks, all four ways."""
    size, listed = QUICK if settings.quick else FULL, cases(settings.quick)
    for case in listed:
        settings.say(f"hidden: {case.name}")
        yield from studied(case, size)
    yield from outside(listed[0], size)
