"""Signals: whether two players of the two-step game (Foerster et al. 2019) come to tell each other their cards.

The first sees a card and acts, the second sees its own card and that action, and acts; both win the same. With signals
they win 10, without them 8 at most. Asked are the exact coordinator; best replies on what each sees (`unseen`), with a
rising inverse temperature and at once; the public agent, whose belief are particles and whose policies are learned
values, from several seeds; and, as peers, two independent learners: a table of values each for what it sees, greedy but
for a share of actions drawn at random, which falls to nothing (in plain NumPy).
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
import optax

from benchmarks.measure import Line, Settings, at_least
from rlinf_ppl import models
from rlinf_ppl.inference import beliefs, execution, svi
from rlinf_ppl.tasks import gallery

BETA = 10.0
BEST, NEAR = 10.0, 0.5
RISING = tuple(np.geomspace(0.01, 1.0, 45))


class Size(NamedTuple):
    """How much is done: starts of tables, seeds, factors of the inverse temperature and steps of the public agent."""

    starts: int
    seeds: int
    factors: tuple[float, ...]
    steps: int
    games: int


FULL = Size(100, 10, tuple(np.geomspace(0.02, 1.0, 8)), 100, 20_000)
QUICK = Size(10, 1, (0.1,), 5, 2_000)


def run(settings: Settings) -> Iterator[Line]:
    """All ways to play the game."""
    size = QUICK if settings.quick else FULL
    coordinator = gallery.two_step_game().coordinator()
    yield Line("signals", "the coordinator", float(beliefs.solve(coordinator, 2, np.inf).upper), "")
    yield from best_replies(settings, size)
    yield from public_agents(settings, size)
    settings.say(f"signals: independent learners, {size.starts} seeds")
    won = np.array([independent(np.random.default_rng(seed), size.games) for seed in range(size.starts)])
    yield Line("signals", "independent learners: seeds that win 10", 100 * float(np.mean(won > BEST - NEAR)), "%")
    yield Line("signals", "independent learners: the median", float(np.median(won)), "")


def best_replies(settings: Settings, size: Size) -> Iterator[Line]:
    """Policies on what each sees: starts that win as much as can be won."""
    settings.say(f"signals: best replies, {size.starts} starts, twice")
    program = models.decentralized(gallery.two_step_game(), 2, BETA)
    fit = svi.fit(program, jax.random.key(0), 60, num_restarts=size.starts, schedule=RISING)
    reached = np.asarray(fit.restarts)
    rising, plain = (100 * np.mean(each > reached.max() - 0.01 * BETA) for each in np.split(reached, 2))
    won = float(execution.expected_return(program, fit.policy)) / BETA
    yield at_least("signals", "best replies, rising: starts that win 10", float(rising), "%", 98, f"the best {won:.4f}")
    yield Line("signals", "best replies, at once: starts that win 10", float(plain), "%")


def public_agents(settings: Settings, size: Size) -> Iterator[Line]:
    """Agents whose public belief are particles: seeds that win 10."""
    made = models.public_belief(gallery.two_step_game(), 2, 1, BETA, num_particles=20)
    won, began = [], time.perf_counter()
    for seed in range(size.seeds):
        settings.say(f"signals: the public agent, seed {seed}")
        guide, loss, optimizer = made.learned, svi.ParticleELBO(100), optax.adam(0.05)
        for stage, factor in enumerate(size.factors):
            tempered, key = made.tempered(factor), jax.random.fold_in(jax.random.key(seed), stage)
            guide = svi.fit(tempered, key, size.steps, guide=guide, loss=loss, optimizer=optimizer, tolerance=0.0).guide
        won.append(float(execution.roll_out(made.with_guide(guide), jax.random.key(1), None, 2_000).mean))
    note = f"{min(won):.3f} to {max(won):.3f}, {(time.perf_counter() - began) / size.seeds:.0f} s each"
    reached = 100 * float(np.mean(np.array(won) > BEST - NEAR))
    yield at_least("signals", "the public agent: seeds that win 10", reached, "%", 90, note)


def independent(chance: np.random.Generator, games: int) -> float:
    """What two independent learners win after some games, on average over cards."""
    payoffs = np.asarray(gallery.TINY_HANABI["E"], float)
    cards, _, actions, _ = payoffs.shape
    first, second = np.zeros((cards, actions)), np.zeros((cards, actions, actions))
    for game in range(games):
        explored = 0.5 * (1 - game / games)
        x, y = chance.integers(cards, size=2)
        a = chance.integers(actions) if chance.random() < explored else first[x].argmax()
        b = chance.integers(actions) if chance.random() < explored else second[y, a].argmax()
        for values, taken in ((first[x], a), (second[y, a], b)):
            values[taken] += 0.1 * (payoffs[x, y, a, b] - values[taken])
    replies = first.argmax(-1)
    pairs = [(x, y, replies[x], second[y, replies[x]].argmax()) for x in range(cards) for y in range(cards)]
    return float(np.mean([payoffs[pair] for pair in pairs]))
