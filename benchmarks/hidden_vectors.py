"""Hidden vectors: LQG, whose answer is exact, and Mountain Hike in fog (Igl et al. 2018), whose answer nobody knows.

A double integrator whose position is seen: the exact ELBO beside that of networks which see the filtered mean, or the
mean of particles. Hikes: returns of networks that see the belief, as the inverse temperature rises. A straight line to
(.7, .5) on what was seen last returns -127.2 at noise .15 and -147.6 at .3 (4,000 episodes of the authors' task), and
the best of who sees the position -69.6.
"""

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpyro.distributions import Distribution, Normal

from benchmarks.measure import Line, Settings, at_least, at_most
from rlinf_ppl import ControlProgram, models
from rlinf_ppl.inference import exact, execution, svi
from rlinf_ppl.tasks import HiddenLinearQuadratic, HiddenMountainHike, LinearQuadratic

KEY = jax.random.key(0)
RAW = {0.15: -127.2, 0.3: -147.6}
ABOVE = 15.0


class Stage(NamedTuple):
    """Steps of a fit at one inverse temperature, and the rate that they start at."""

    inverse_temperature: float
    steps: int
    rate: float


class Budget(NamedTuple):
    """The length of an episode, runs a step, what is fitted one after the other, and episodes to judge by."""

    horizon: int
    runs: int
    stages: tuple[Stage, ...]
    episodes: int


HIKE = Budget(75, 128, (Stage(1.0, 200, 3e-3), Stage(10.0, 400, 3e-3), Stage(100.0, 800, 1.5e-3)), 4000)
HIKE_OF_PARTICLES = Budget(75, 32, (Stage(1.0, 200, 3e-3), Stage(10.0, 300, 3e-3)), 1000)
HIKE_QUICK = Budget(15, 16, (Stage(10.0, 20, 1e-2),), 200)
LQG, LQG_QUICK = Budget(10, 64, (Stage(1.0, 800, 1e-2),), 100_000), Budget(5, 32, (Stage(1.0, 50, 1e-2),), 2000)


def integrator() -> HiddenLinearQuadratic:
    """A double integrator of steps of .3 whose position is seen with variance .2."""
    task = LinearQuadratic(
        A=[[1.0, 0.3], [0.0, 1.0]], B=[[0.0], [0.3]], c=[0.0, 0.0], noise=0.05 * np.eye(2), state_reward=-np.eye(2),
        action_reward=[[-0.5]], goal=[0.0, 0.0], initial_mean=[2.0, 0.0], initial_cov=0.3 * np.eye(2),
    )  # fmt: skip
    return HiddenLinearQuadratic(task, observation=[[1.0, 0.0]], observation_noise=[[0.2]])


def fitted(program: ControlProgram, budget: Budget, features: dict[str, Callable[[Array], Array]]) -> svi.Fit:
    """Networks, fitted through all stages from the prior on."""
    guide: Any = svi.networks(program, jax.random.key(1), features=features)
    for number, stage in enumerate(budget.stages):
        rate = optax.cosine_decay_schedule(stage.rate, stage.steps, 0.03)
        fit = svi.fit(
            program.tempered(stage.inverse_temperature),
            jax.random.fold_in(KEY, number),
            stage.steps,
            guide=guide,
            loss=svi.ParticleELBO(budget.runs),
            optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
            tolerance=0.0,
        )
        guide = fit.guide
    return fit


def mean(particles: Array) -> Array:
    """The mean of particles."""
    return jnp.mean(particles, 0)


def lqg(settings: Settings) -> Iterator[Line]:
    """How far networks stay below the exact ELBO."""
    budget = LQG_QUICK if settings.quick else LQG
    with jax.enable_x64(False):
        task = integrator()
        program = models.hidden_linear_gaussian(task, budget.horizon)
        best = float(exact.solve(program).elbo)
        yield Line("lqg", "exact ELBO, hidden", best, "")
        contenders: dict[str, tuple[ControlProgram, dict[str, Any]]] = {"the filtered mean": (program, {})}
        if not settings.quick:
            seen = exact.solve(models.linear_gaussian(task.task, budget.horizon))
            yield Line("lqg", "exact ELBO, seen", float(seen.elbo), "")
            of_particles = models.particle_belief(task, budget.horizon, 100), {"particles": mean}
            contenders["100 particles"] = of_particles
        for name, (contender, features) in contenders.items():
            settings.say(f"lqg: a network of {name}")
            started = perf_counter()
            fit = fitted(contender, budget, features)
            spent = perf_counter() - started
            elbo, error = judged(fit, budget.episodes)
            note = f"ELBO {elbo:.3f} +- {error:.3f}, {spent:.0f} s"
            yield at_most("lqg", f"a network of {name}: below the exact ELBO", 100 * (elbo / best - 1), "%", 1, note)


def judged(fit: svi.Fit, count: int) -> tuple[float, float]:
    """The ELBO of a fit by trajectories of their own, and its standard error."""
    parts = 20
    loss = svi.ParticleELBO(count // parts)
    target = loss.read(fit.task.program)
    one = jax.jit(lambda key: loss.estimate(target, fit.guide, key))
    found = np.array([one(key) for key in jax.random.split(jax.random.key(2), parts)])
    return float(found.mean()), float(found.std(ddof=1) / parts**0.5)


def waves(place: Array) -> Array:
    """A place in the box and waves of it, which tell a narrow ridge from its sides."""
    rounds = jnp.pi * jnp.arange(1, 4)[:, None] * place[None]
    return jnp.concatenate([place, jnp.ravel(jnp.sin(rounds)), jnp.ravel(jnp.cos(rounds))])


def size(variance: Array) -> Array:
    """A variance in numbers of the size of 1."""
    return jnp.reshape(jnp.log(variance) + 6.0, 1)


def cloud(particles: Array) -> Array:
    """Waves of the mean of particles, and the logs of their deviations."""
    spread = jnp.log(jnp.std(particles, 0) + 1e-3) + 3.0
    return jnp.concatenate([waves(mean(particles)), spread])


def straight(mean: Array) -> Distribution:
    """A full step to (.7, .5) from the mean of the belief."""
    apart = jnp.array([0.7, 0.5]) - mean
    return Normal(0.05 * apart / jnp.linalg.norm(apart), 1e-6).to_event(1)


def fog(settings: Settings) -> Iterator[Line]:
    """Returns of walkers that know their belief."""
    budget = HIKE_QUICK if settings.quick else HIKE
    with jax.enable_x64(False):
        for std in (0.15,) if settings.quick else (0.15, 0.3):
            task = HiddenMountainHike(observation_std=std)
            program = models.hidden_mountain_hike(task, budget.horizon)
            settings.say(f"fog: noise {std:g}, filtered exactly")
            what = f"noise {std:g}: a network of the belief"
            yield hiked(what, program, budget, {"mean": waves, "variance": size}, RAW[std] + ABOVE)
            if not settings.quick:
                line = execution.roll_out(program, KEY, {"a": straight}, budget.episodes)
                what = f"noise {std:g}: a straight line on the filtered mean"
                yield Line("fog", what, float(line.mean), "", note=f"+- {float(line.standard_error):.2f}")
                settings.say(f"fog: noise {std:g}, 30 particles")
                few = models.particle_belief(task, budget.horizon, 30)
                what = f"noise {std:g}: a network of 30 particles"
                yield hiked(what, few, HIKE_OF_PARTICLES, {"particles": cloud}, RAW[std] + ABOVE)


def hiked(
    what: str, program: ControlProgram, budget: Budget, features: dict[str, Callable[[Array], Array]], target: float
) -> Line:
    """A line of what the samples of a fitted policy return."""
    started = perf_counter()
    fit = fitted(program, budget, features)
    spent = perf_counter() - started
    found = execution.roll_out(program, jax.random.key(3), fit, budget.episodes)
    return at_least("fog", what, float(found.mean), "", target, f"+- {float(found.standard_error):.2f}, {spent:.0f} s")
