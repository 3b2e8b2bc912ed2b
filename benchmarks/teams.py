"""Teams: how many starts find the best play of games of two players, each with a card of its own, and one reward.

Payoffs by card 1, card 2, action 1 and action 2: `gallery.TINY_HANABI`, and three drawn at random.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.distributions import Categorical

from benchmarks.measure import Line, Settings, at_least
from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.inference import execution, svi
from rlinf_ppl.tasks import gallery

RNG = np.random.default_rng(3)
HOT = 10.0
RISING = tuple(np.geomspace(0.01, 1.0, 45))
GAMES: dict[str, Any] = dict(gallery.TINY_HANABI) | {f"random {i}": RNG.integers(0, 10, (3, 3, 3, 3)) for i in range(3)}


def game(payoffs: Any, inverse_temperature: float) -> ControlProgram:
    """The second player sees the first one's action, and nobody the other's card."""
    table = jnp.asarray(payoffs, float)
    cards, _, actions, _ = table.shape

    def initial() -> dict[str, Any]:
        return {name: numpyro.sample(name, Categorical(probs=jnp.full(cards, 1 / cards))) for name in ("x", "y")}

    def step(x: Any, y: Any) -> dict[str, Any]:
        a = decide("a", Categorical(probs=jnp.full(actions, 1 / actions)), inverse_temperature, unseen=("y",))
        b = decide("b", Categorical(probs=jnp.full(actions, 1 / actions)), inverse_temperature, unseen=("x",))
        optimality(table[x, y, a, b])
        return {"x": x, "y": y}

    return ControlProgram(initial, step, 1)


def optimum(payoffs: Any) -> float:
    """The best expected payoff, over all deterministic first policies with the best second one."""
    table = np.asarray(payoffs, float)
    cards, actions = len(table), table.shape[-1]
    best = -np.inf
    for policy in itertools.product(range(actions), repeat=cards):
        total = 0.0
        for y, action in itertools.product(range(cards), range(actions)):
            holders = [x for x in range(cards) if policy[x] == action]
            total += max(sum(table[x, y, action, b] for x in holders) for b in range(actions))
        best = max(best, total / cards**2)
    return best


def run(settings: Settings) -> Iterator[Line]:
    """Starts that end at the optimum, of each game, with a rising inverse temperature and without."""
    starts = 20 if settings.quick else 100
    for name in ("A", "E") if settings.quick else GAMES:
        settings.say(f"teams {name}: {starts} starts, twice")
        program = game(GAMES[name], HOT)
        fit = svi.fit(program, jax.random.key(0), 200, num_restarts=starts, schedule=RISING)
        rising, plain = (100 * np.mean(each > float(fit.elbo) - 0.01) for each in np.split(np.asarray(fit.restarts), 2))
        off = optimum(GAMES[name]) - float(execution.expected_return(program, fit.policy))
        yield at_least("teams", f"{name}: starts at the best found, rising", float(rising), "%", 98)
        yield Line("teams", f"{name}: starts at the best found, at once", float(plain), "%")
        yield Line("teams", f"{name}: below the optimum", off, "")
