"""A task in a few lines of words."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from rlinf_ppl.tasks import MDP, POMDP, LinearQuadratic, PartiallyObservedGame, StochasticGame


@functools.singledispatch
def task_facts(task: Any) -> list[str]:
    """What there is to know about a task before it is solved, as lines of text; for any kind of task its arrays."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(task)
    return [f"{jax.tree_util.keystr(path)}: shape {np.shape(array)}" for path, array in leaves]


@task_facts.register(LinearQuadratic)
def linear_quadratic_facts(task: LinearQuadratic) -> list[str]:
    """What there is to know about linear-quadratic control: sizes, stability, noise, rewards, the way to go."""
    time = "constant in time" if task.horizon is None else f"varies over {task.horizon} time steps"
    radius = np.abs(np.linalg.eigvals(np.asarray(task.A))).max()
    noisy = np.linalg.matrix_rank(np.asarray(task.noise)).max()
    rewards = [np.linalg.eigvalsh(np.asarray(matrix)) for matrix in (task.state_reward, task.action_reward)]
    goal = np.asarray(task.goal).reshape(-1, task.num_states)[-1]
    return [
        f"state in R^{task.num_states}, action in R^{task.num_actions}, {time}",
        f"transition: linear, largest |eigenvalue| {radius:g}, noise in {noisy} of {task.num_states} directions",
        *(
            f"reward of the {of}: quadratic, eigenvalues {r.min():g} to {r.max():g}"
            for of, r in zip(("state", "action"), rewards, strict=True)
        ),
        f"from the mean {written(task.initial_mean)} to the goal {written(goal)}",
    ]


def written(vector: Any) -> str:
    """A vector as a user would type it."""
    return f"({', '.join(f'{number:g}' for number in np.asarray(vector))})"


@task_facts.register(MDP)
def decision_process_facts(task: MDP) -> list[str]:
    """What there is to know about a Markov decision process before it is solved.

    Args:
        task: The process.

    Returns:
        Lines of text: sizes, names of actions, transition, rewards, first and last states.
    """
    reward = np.asarray(task.reward)
    when = f", over {reward.shape[0]} time steps" if reward.ndim == 3 else ""
    starts, ends = int((np.asarray(task.initial) > 0).sum()), int(np.asarray(task.terminal).sum())
    names = f": {', '.join(task.action_names)}" if task.action_names is not None else ""
    return [
        f"{task.num_states} states, {task.num_actions} actions{names}",
        f"transition: {transition_facts(task)}",
        f"reward: {reward.min():g} to {reward.max():g}{when}",
        f"{starts} initial {plural('state', starts)}, {ends} terminal {plural('state', ends)} (absorbing, reward 0)",
    ]


@task_facts.register(POMDP)
def hidden_process_facts(task: POMDP) -> list[str]:
    """The same of a partially observed process, and what is seen of it."""
    names = f": {', '.join(task.observation_names)}" if task.observation_names is not None else ""
    shown = "tells the state in part" if task.num_observations > 1 else "tells nothing"
    return [
        *decision_process_facts(task.mdp),
        f"{task.num_observations} {plural('observation', task.num_observations)}{names}",
        f"observation: {chance_in(np.asarray(task.observation))}, {shown}",
        f"discount: {float(task.discount):g}",
    ]


@task_facts.register(PartiallyObservedGame)
def partly_seen_game_facts(task: PartiallyObservedGame) -> list[str]:
    """What there is to know about a game of two who see different things."""
    reward = np.asarray(task.expected_reward)
    starts = int((np.asarray(task.initial) > 0).sum())
    return [
        f"{task.num_states} states",
        f"{task.num_actions} actions of the agent, {task.num_opponent_actions} of the opponent",
        f"observations: {task.num_observations} of the agent, {task.num_opponent_observations} of the opponent, "
        f"{task.num_public_observations} of both",
        f"transition: {chance_in(np.asarray(task.transition))}, a dense table",
        f"reward that both share: {reward.min():g} to {reward.max():g}",
        f"{starts} initial {plural('state', starts)}",
        f"discount: {float(task.discount):g}",
    ]


@task_facts.register(StochasticGame)
def game_facts(task: StochasticGame) -> list[str]:
    """What there is to know about a game of two players: sizes, names of actions, transition, rewards, first states."""
    reward = np.asarray(task.reward)
    when = f", over {reward.shape[0]} time steps" if reward.ndim == 4 else ""
    starts = int((np.asarray(task.initial) > 0).sum())
    names = (task.action_names, task.opponent_action_names)
    own, other = (f": {', '.join(known)}" if known is not None else "" for known in names)
    matrix = [f"row of payoffs: {written(row)}" for row in reward[0]] if reward.shape[0] == 1 == task.num_states else []
    return [
        f"{task.num_states} {plural('state', task.num_states)}, {task.num_actions} actions of the agent{own}",
        f"{task.num_opponent_actions} actions of the opponent{other}",
        f"transition: {chance_in(np.asarray(task.transition))}, a dense table",
        f"reward of the agent: {reward.min():g} to {reward.max():g}{when}",
        *matrix,
        f"{starts} initial {plural('state', starts)}",
    ]


def transition_facts(task: MDP) -> str:
    """Whether the transition is a table or lists of successors, and whether chance has a part in it."""
    dense = task.transition is not None
    probabilities = np.asarray(task.transition if dense else task.probabilities)
    listed = probabilities.shape[-1]
    where = "a dense table" if dense else f"{listed} {plural('successor', listed)} a state"
    return f"{chance_in(probabilities)}, {where}"


def chance_in(probabilities: np.ndarray) -> str:
    """Whether probabilities leave anything to chance."""
    return "deterministic" if np.isin(probabilities, (0.0, 1.0)).all() else "stochastic"


def plural(noun: str, count: int) -> str:
    """The noun in the number of the count."""
    return noun if count == 1 else noun + "s"
