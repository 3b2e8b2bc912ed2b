"""Calibration: whether posteriors of what behaviour was made from hold the truth as often as they say.

Simulation-based calibration (Talts et al. 2018): where x ~ p(x), y ~ p(y | x) and x_1 .. x_L ~ p(x | y), the rank of x
among x_1 .. x_L is uniform on 0 .. L. So is that of the log density of x and y, which a posterior that forgets the data
does not pass (Modrak et al. 2023). Data sets are drawn by `behaviour.site` and fitted by NUTS, all in one vmapped
program.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array, lax
from numpyro.distributions import Normal
from numpyro.infer import NUTS
from numpyro.infer.util import log_density
from scipy.stats import chisquare

from benchmarks.measure import Line, Mismatch, Settings, at_least
from rlinf_ppl import ControlProgram, behaviour, models
from rlinf_ppl.tasks import MDP

# Below this p-value an answer is wrong; a right one is below it once in a thousand seeds.
WRONG = 1e-3
# A posterior whose inverse temperature is off by this factor has to be found out by the same test.
OFF = 1.5


class Sizes(NamedTuple):
    """How many data sets, draws of each that are kept, steps from one to the next, steps before them, and bins."""

    data_sets: int
    draws: int
    thinning: int
    warmup: int
    bins: int


FULL, QUICK = Sizes(200, 99, 4, 200, 10), Sizes(30, 29, 2, 60, 5)


class Case(NamedTuple):
    """What is inferred.

    Attributes:
        program: makes the program from its parameters, standard normal, and a factor of the inverse temperature that is
            1 where behaviour is drawn.
        names: of the parameters.
        seen: the variables that are seen; everything else is summed over.
        sequences: how many of them a data set has.
    """

    program: Callable[[Any, Any], ControlProgram]
    names: tuple[str, ...]
    seen: tuple[str, ...]
    sequences: int


class Found(NamedTuple):
    """Truth (n, K + 1) and draws (n, L, K + 1) of all data sets: parameters, log density; the share of divergences."""

    truth: np.ndarray
    draws: np.ndarray
    divergences: float

    @property
    def ranks(self) -> np.ndarray:
        """Of each truth the number of draws below it, (n, K + 1)."""
        return (self.draws < self.truth[:, None]).sum(1)

    def p_values(self, bins: int) -> np.ndarray:
        """Of each rank's histogram, that it came from a uniform law: the chi-square test, (K + 1,)."""
        values = self.draws.shape[1] + 1
        counts = [np.bincount(rank * bins // values, minlength=bins) for rank in self.ranks.T]
        return np.array([chisquare(each).pvalue for each in counts])

    def least(self, bins: int) -> float:
        """The least of these p-values, times how many there are."""
        values = self.p_values(bins)
        return float(len(values) * values.min())


def rewards(rng: np.random.Generator) -> Case:
    """Maximum-entropy IRL (Ziebart et al. 2008): two weights of known features of states and actions."""
    states, actions, horizon = 5, 3, 8
    moves, first = rng.dirichlet(np.ones(states), (states, actions)), np.full(states, 1 / states)
    features = rng.normal(size=(states, actions, 2))

    def program(x: Any, factor: Any) -> ControlProgram:
        return models.single_agent(MDP(moves, features @ x, first), horizon, beta=factor)

    return Case(program, ("weight 1", "weight 2"), ("s", "a"), 10)


def options(rng: np.random.Generator) -> Case:
    """Options that nobody sees: an inverse temperature, and how often options would end if optimality did not count."""
    states, actions, horizon = 4, 3, 10
    moves, first = rng.dirichlet(np.ones(states), (states, actions)), np.full(states, 1 / states)
    reward = rng.normal(size=(states, actions))
    habits = np.broadcast_to([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]], (states, 2, actions))

    def program(x: Any, factor: Any) -> ControlProgram:
        ends = jax.nn.sigmoid(x[1])
        ending = jnp.broadcast_to(jnp.stack([1 - ends, ends]), (states, 2, 2))
        beta = factor * jnp.exp(0.5 * x[0])
        return models.soft_options(
            MDP(moves, reward, first), horizon, 2, beta, action_prior=habits, termination_prior=ending
        )

    return Case(program, ("log temperature", "ending"), ("s", "a"), 8)


def model_of(case: Case) -> Callable[..., Any]:
    """The NumPyro model of one data set, which is drawn where there is none."""

    def model(factor: Any, data: Any = None) -> Any:
        x = numpyro.sample("x", Normal().expand([len(case.names)]).to_event(1))
        drawn = behaviour.site("y", case.program(x, factor), data, num_sequences=case.sequences)
        return x, {name: drawn[name] for name in case.seen}

    return model


def drawn(case: Case, keys: Array) -> tuple[Array, dict[str, Array]]:
    """Parameters from their prior, and data sets that they made."""
    model = model_of(case)
    return jax.jit(jax.vmap(lambda key: numpyro.handlers.seed(model, key)(1.0)))(keys)


def sampler(case: Case, sizes: Sizes) -> Callable[..., tuple[Array, Array, Array]]:
    """Posterior draws of one data set by NUTS, and what the log density is at the truth.

    Returns:
        A function of key, truth, data and the factor of the inverse temperature, which has draws (L, K + 1), the truth
        and the share of divergences.
    """
    model = model_of(case)
    steps = sizes.warmup + sizes.thinning * sizes.draws

    def sample(key: Array, truth: Array, data: dict[str, Array], factor: Array) -> tuple[Array, Array, Array]:
        def potential(x: Array) -> Array:
            return -log_density(model, (factor, data), {}, {"x": x})[0]

        # Parameters have no bounds, so their density is that of NumPyro's unbounded ones.
        kernel = NUTS(potential_fn=potential, dense_mass=True)

        def body(state: Any, _: None) -> tuple[Any, tuple[Array, Array]]:
            state = kernel.sample(state, (), {})
            return state, (jnp.append(state.z, -state.potential_energy), state.diverging)

        start = kernel.init(key, sizes.warmup, jnp.zeros(len(case.names)), (), {})
        draws, diverging = lax.scan(body, start, length=steps)[1]
        kept = slice(sizes.warmup + sizes.thinning - 1, None, sizes.thinning)
        return draws[kept], jnp.append(truth, -potential(truth)), jnp.mean(diverging[sizes.warmup :])

    return sample


def check(name: str, found: Found, wrong: Found, bins: int) -> None:
    """Raise where ranks are not uniform, or where the test would not notice.

    Raises:
        Mismatch: so it is.
    """
    least, noticed = found.least(bins), wrong.least(bins)
    if not (least >= WRONG and np.all(np.isfinite(found.draws))):
        raise Mismatch(
            f"calibration: posteriors of {name} are not calibrated, p = {least:.2g}: {found.p_values(bins)}."
        )
    if not noticed < WRONG:
        raise Mismatch(f"calibration: {name} off by {OFF:g} in temperature pass, p = {noticed:.2g}: no test at all.")


def told(row: str, name: str, case: Case, found: Found, wrong: Found, bins: int) -> Iterator[Line]:
    """The lines of a case."""
    p, ranks, values = found.p_values(bins), found.ranks, found.draws.shape[1] + 1
    note = ", ".join(f"{each} {x:.2f}" for each, x in zip((*case.names, "log density"), p, strict=True))
    what = f"{name}: {len(ranks)} data sets, {bins} bins: least of {len(p)} p-values, times {len(p)}"
    yield at_least(row, what, min(1.0, found.least(bins)), "", 0.05, note)
    noticed = wrong.least(bins)
    yield Line(row, f"{name}: the same, inverse temperature times {OFF:g}", noticed, "", f"< {WRONG:g}", True)
    inside = np.mean((ranks * 20 >= values) & (ranks * 20 < 19 * values), 0)
    for i, each in enumerate(case.names):
        truth, mean = found.truth[:, i], found.draws[:, :, i].mean(1)
        off, spread = mean - truth, np.sqrt(np.mean(found.draws[:, :, i].var(1)))
        bias = f"bias {off.mean():+.3f} +- {off.std(ddof=1) / np.sqrt(len(off)):.3f}, posterior deviation {spread:.2f}"
        yield Line(row, f"{name}: {each}: truth and mean, correlation", np.corrcoef(truth, mean)[0, 1], "", note=bias)
        yield Line(row, f"{name}: {each}: in the 90 % interval", 100 * inside[i], "%")


def run(settings: Settings) -> Iterator[Line]:
    """Rewards from demonstrations, and options that nobody sees."""
    rng = np.random.default_rng(18)
    for name, case in (("rewards", rewards(rng)), ("options", options(rng))):
        yield from calibrated("calibration", name, case, settings)


def calibrated(row: str, name: str, case: Case, settings: Settings) -> Iterator[Line]:
    """Whether posteriors of one case are calibrated, and whether they would be found out if they were not."""
    sizes = QUICK if settings.quick else FULL
    settings.say(f"{row}: {name}: {sizes.data_sets} data sets in one program, twice")
    keys = jax.random.split(jax.random.key(0), (2, sizes.data_sets))
    truth, data = drawn(case, keys[0])
    sample = jax.jit(jax.vmap(sampler(case, sizes), (0, 0, 0, None)))
    found, wrong = (fitted(sample(keys[1], truth, data, jnp.asarray(factor))) for factor in (1.0, OFF))
    check(name, found, wrong, sizes.bins)
    yield from told(row, name, case, found, wrong, sizes.bins)
    yield Line(row, f"{name}: transitions that diverge", 100 * found.divergences, "%")


def fitted(answer: tuple[Array, Array, Array]) -> Found:
    """What a sampler found, in NumPy."""
    draws, truth, diverging = answer
    return Found(np.asarray(truth), np.asarray(draws), float(jnp.mean(diverging)))
