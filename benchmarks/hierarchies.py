"""Groups of learners: who they are, the NumPyro model of a group, and data as large as the examples of hBayesDM.

    mu ~ N(0, 1),   sigma ~ HalfNormal(0.2),   z_i ~ N(0, 1),   x_i = mu + sigma z_i        (not centred)
    bandit      rate = Phi(x_1),   beta = 5 Phi(x_2)                                        20 subjects, 100 trials
    two steps   rate = Phi(x_1),   beta = exp(x_2),   pi = 5 Phi(x_3),   w = Phi(x_4)       11 subjects, 200 trials

These are `bandit2arm_delta` and `ts_par4` with their priors (Ahn, Haines & Zhang 2017); Phi is their approximation of
the normal distribution function. Nothing here is timed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array
from numpyro.distributions import HalfNormal, Normal

from rlinf_ppl import ControlProgram, behaviour, models

Data = dict[str, Any]


class Kind(NamedTuple):
    """A kind of learners.

    Attributes:
        program: makes one from its parameters (K,), a factor of its inverse temperature, and a number of trials.
        parameters: these from numbers without bounds, (..., K).
        names: of the parameters.
        seen: what is seen.
        columns: the same from the columns of hBayesDM's file.
        subjects, trials: how many.
        group: their mean without bounds where data are drawn.
    """

    program: Callable[[Array, Any, int], ControlProgram]
    parameters: Callable[[Array], Array]
    names: tuple[str, ...]
    seen: tuple[str, ...]
    columns: Callable[[Any], Data]
    subjects: int
    trials: int
    group: tuple[float, ...]


def phi(x: Array) -> Array:
    """The normal distribution function, nearly."""
    return jax.nn.sigmoid(0.07056 * x**3 + 1.5976 * x)


def bandit(x: Array, factor: Any, trials: int) -> ControlProgram:
    """Two arms, which pay 1 with probability .65 and .35, and else -1."""
    laws = [[0.35, 0.65], [0.65, 0.35]]
    return models.delta_rule(x[0], factor * x[1], trials, outcomes=(-1.0, 1.0), probabilities=laws)


def two_step(x: Array, factor: Any, trials: int) -> ControlProgram:
    """The two-step task with rewards that drift between .25 and .75, as Daw et al. (2011) have them."""
    rng, rewards = np.random.default_rng(2), [np.array([0.6, 0.3, 0.45, 0.7])]
    for _ in range(trials - 1):
        moved = rewards[-1] + rng.normal(0, 0.025, 4)
        moved = np.where(moved > 0.75, 1.5 - moved, moved)
        rewards.append(np.where(moved < 0.25, 0.5 - moved, moved))
    return models.two_step(x[0], factor * x[1], x[2], x[3], trials, rewards=np.stack(rewards))


KINDS = {
    "bandit": Kind(
        bandit,
        lambda x: jnp.stack([phi(x[..., 0]), 5 * phi(x[..., 1])], -1),
        ("rate", "beta"),
        ("choice", "outcome"),
        lambda rows: {"choice": rows["choice"] - 1, "outcome": (rows["outcome"] + 1) // 2},
        20,
        100,
        (-0.3, -0.8),
    ),
    "two steps": Kind(
        two_step,
        lambda x: jnp.stack([phi(x[..., 0]), jnp.exp(x[..., 1]), 5 * phi(x[..., 2]), phi(x[..., 3])], -1),
        ("rate", "beta", "pi", "w"),
        ("first_choice", "state", "second_choice", "reward"),
        lambda rows: {
            "first_choice": rows["level1_choice"] - 1,
            "state": (rows["level2_choice"] - 1) // 2,
            "second_choice": (rows["level2_choice"] - 1) % 2,
            "reward": rows["reward"],
        },
        11,
        200,
        (0.0, 1.2, -1.2, 0.0),
    ),
}


def model(kind: Kind, subjects: int, trials: int, data: Data | None = None, lengths: Any = None) -> Data:
    """A group; its behaviour is drawn where there are no data."""
    size = len(kind.names)
    mu = numpyro.sample("mu", Normal().expand([size]).to_event(1))
    sigma = numpyro.sample("sigma", HalfNormal(0.2).expand([size]).to_event(1))
    with numpyro.plate("subject", subjects):
        z = numpyro.sample("z", Normal().expand([size]).to_event(1))
    own = numpyro.deterministic("own", kind.parameters(mu + sigma * z))
    programs = jax.vmap(lambda x: kind.program(x, 1.0, trials))(own)
    found = behaviour.site("choices", programs, data, lengths=lengths)
    return {"mu": mu, "sigma": sigma, "own": own} | {name: found[name] for name in kind.seen}


def drawn(kind: Kind, subjects: int, trials: int, key: Array, group: bool) -> Data:
    """What a group of its own mean and deviations of .4 did, or one from the prior; with all parameters."""
    fixed = {"mu": jnp.asarray(kind.group), "sigma": jnp.full(len(kind.names), 0.4)} if group else {}
    seeded = numpyro.handlers.seed(numpyro.handlers.condition(model, fixed), key)
    return jax.jit(lambda: seeded(kind, subjects, trials))()


def read(kind: Kind, path: Path) -> tuple[Data, np.ndarray]:
    """A file of hBayesDM's: what was seen, (n, T), and how long each sequence is; a trial that lacks is no trial."""
    rows = np.genfromtxt(path, names=True, delimiter="\t")
    who = list(dict.fromkeys(rows["subjID"]))
    groups = [rows[rows["subjID"] == each] for each in who]
    lengths = np.array([len(group) for group in groups])

    def padded(name: str) -> np.ndarray:
        columns = [np.asarray(kind.columns(group)[name], int) for group in groups]
        return np.stack([np.pad(column, (0, lengths.max() - len(column))) for column in columns])

    return {name: padded(name) for name in kind.seen}, lengths
