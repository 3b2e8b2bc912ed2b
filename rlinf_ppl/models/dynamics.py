"""How a task's state moves, for the step programs of all models."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float, Int
from numpyro.distributions import Categorical

from rlinf_ppl.tasks import MDP, StochasticGame


def next_state(mdp: MDP, s: Any, a: Any) -> Int[Array, ""]:
    """Sample the next state: a site `s_next`, or for a sparse task a site `outcome` that points to a successor."""
    if mdp.transition is not None:
        return numpyro.sample("s_next", Categorical(probs=mdp.transition[s, a]))
    assert mdp.successors is not None and mdp.probabilities is not None
    outcome = numpyro.sample("outcome", Categorical(probs=mdp.probabilities[s, a]))
    return mdp.successors[s, outcome] if mdp.successors.ndim == 2 else mdp.successors[s, a, outcome]


def expected_next(mdp: MDP, value: Float[Array, " S"]) -> Float[Array, "S A"]:
    """The expectation of a function of the next state, for each state and action."""
    if mdp.transition is not None:
        return mdp.transition @ value
    assert mdp.successors is not None and mdp.probabilities is not None
    after = value[mdp.successors]
    return jnp.sum(mdp.probabilities * (after[:, None] if after.ndim == 2 else after), -1)


def at_time(array: Array, rank: int, t: Any) -> Array:
    """What an array holds at time t: it varies in time where it has one axis more than `rank`."""
    return array[t] if array.ndim > rank else array


def game_at_time(game: StochasticGame, t: Any) -> StochasticGame:
    """A game with its reward at time t."""
    return eqx.tree_at(lambda game: game.reward, game, at_time(game.reward, 3, t))
