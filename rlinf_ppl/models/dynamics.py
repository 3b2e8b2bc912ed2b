"""How a task's state moves, for the step programs of all models."""

from typing import Any, TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float, Int
from numpyro.distributions import Categorical

from rlinf_ppl.program import over_time
from rlinf_ppl.tasks import MDP, StochasticGame

Task = TypeVar("Task", MDP, StochasticGame)
Arrays = TypeVar("Arrays", bound=tuple[Any, ...])


def first_state(task: MDP | StochasticGame, *_: Any) -> dict[str, Any]:
    """Sample the first state: a program's `initial`, whatever else its step reads."""
    return {"s": numpyro.sample("s", Categorical(probs=task.initial))}


def next_state(task: MDP | StochasticGame, s: Any, *actions: Any) -> Int[Array, ""]:
    """Sample the next state: a site `s_next`, or for a sparse task a site `outcome` that points to a successor."""
    if task.transition is not None:
        return numpyro.sample("s_next", Categorical(probs=task.transition[s, *actions]))
    assert isinstance(task, MDP) and task.successors is not None and task.probabilities is not None
    outcome = numpyro.sample("outcome", Categorical(probs=task.probabilities[s, *actions]))
    return task.successors[s, outcome] if task.successors.ndim == 2 else task.successors[s, *actions, outcome]


def expected_next(mdp: MDP, value: Float[Array, " S"]) -> Float[Array, "S A"]:
    """The expectation of a function of the next state, for each state and action."""
    if mdp.transition is not None:
        return mdp.transition @ value
    assert mdp.successors is not None and mdp.probabilities is not None
    after = value[mdp.successors]
    return jnp.sum(mdp.probabilities * (after[:, None] if after.ndim == 2 else after), -1)


def reaches_its_end(mdp: MDP) -> bool:
    """Whether every state can lead to one that leads nowhere and pays nothing; of known tasks."""
    ended, more = mdp.terminal, True
    while more:
        reached = ended | jnp.any(expected_next(mdp, ended.astype(float)) > 0, -1)
        more, ended = bool(jnp.any(reached != ended)), reached
    return bool(jnp.all(ended))


def varying(array: Array, rank: int) -> Any:
    """An argument for `ControlProgram`: over time where it has one axis more than `rank`."""
    return over_time(array) if array.ndim > rank else array


def varying_each(arrays: Arrays, ranks: tuple[int, ...]) -> Arrays:
    """The same of each array of a tuple."""
    return type(arrays)(*map(varying, arrays, ranks))


def varying_task(task: Task) -> Task:
    """A task without its names as an argument, its reward over time where it has that axis."""
    rank = 2 if isinstance(task, MDP) else 3
    return eqx.tree_at(lambda task: task.reward, task.anonymous(), varying(task.reward, rank))
