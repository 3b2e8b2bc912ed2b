"""Two-player games as data for the oracles, in either order of play, and random games."""

from dataclasses import dataclass

import numpy as np
from oracles.trajectories import Program, chance, decision, optimality

from rlinf_ppl.tasks import StochasticGame

AGENT_LEADS, OPPONENT_LEADS = {"a": ("s",), "b": ("s", "a")}, {"b": ("s",), "a": ("s", "b")}


@dataclass(frozen=True)
class Game:
    """A random game with independent priors p(a | s), p(b | s) and dependent ones p(a | s, b), p(b | s, a)."""

    transition: np.ndarray
    reward: np.ndarray
    initial: np.ndarray
    alone: np.ndarray
    opponent_alone: np.ndarray
    reply: np.ndarray
    opponent_reply: np.ndarray

    @property
    def task(self):
        return StochasticGame(self.transition, self.reward, self.initial)

    @property
    def copied(self):
        """The independent priors in the shape of those of the player who sees the other: (S, B, A) and (S, A, B)."""
        states, actions, others = self.reward.shape[-3:]
        shapes = (states, others, actions), (states, actions, others)
        return [np.broadcast_to(p[:, None, :], shape) for p, shape in zip(self.independent, shapes, strict=True)]

    @property
    def independent(self):
        return self.alone, self.opponent_alone


def random_game(seed, states=2, actions=2, others=3, horizon=None):
    """A game; with a horizon, reward and priors vary over it."""
    rng = np.random.default_rng(seed)
    time = () if horizon is None else (horizon,)

    def rows(*shape):
        return rng.dirichlet(np.ones(shape[-1]), shape[:-1])

    return Game(
        rows(states, actions, others, states),
        rng.normal(size=(*time, states, actions, others)),
        rows(states),
        rows(*time, states, actions),
        rows(*time, states, others),
        rows(*time, states, others, actions),
        rows(*time, states, actions, others),
    )


def at(array, rank, t):
    return array[t] if array.ndim > rank else array


def agent_leads(game, prior, opponent_prior, beta, opponent_beta, horizon, discount=1.0, scale=1.0):
    """Agent then opponent; `scale` multiplies the reward."""
    first = decision("a", prior.shape[-1], lambda v: at(prior, 2, v["t"])[v["s"]], beta)
    second = decision(
        "b", opponent_prior.shape[-1], lambda v: at(opponent_prior, 3, v["t"])[v["s"], v["a"]], opponent_beta
    )
    return two_players(game, (first, second), horizon, discount, scale)


def opponent_leads(game, prior, opponent_prior, beta, opponent_beta, horizon, discount=1.0, scale=1.0):
    """Opponent then agent."""
    first = decision("b", opponent_prior.shape[-1], lambda v: at(opponent_prior, 2, v["t"])[v["s"]], opponent_beta)
    second = decision("a", prior.shape[-1], lambda v: at(prior, 3, v["t"])[v["s"], v["b"]], beta)
    return two_players(game, (first, second), horizon, discount, scale)


def two_players(game, players, horizon, discount, scale):
    """A program of a game whose players are the given sites."""
    states = len(game.initial)
    return Program(
        state={"s": states},
        initial=(chance("s", states, lambda v: game.initial),),
        initial_state=lambda v: {"s": v["s"]},
        step=(
            *players,
            optimality(lambda v: scale * at(game.reward, 3, v["t"])[v["s"], v["a"], v["b"]]),
            chance("s_next", states, lambda v: game.transition[v["s"], v["a"], v["b"]]),
        ),
        next_state=lambda v: {"s": v["s_next"]},
        horizon=horizon,
        discount=discount,
    )
