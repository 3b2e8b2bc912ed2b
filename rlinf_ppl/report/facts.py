"""A task in a few lines of words."""

from __future__ import annotations

import numpy as np

from rlinf_ppl.tasks import MDP


def task_facts(task: MDP) -> list[str]:
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


def transition_facts(task: MDP) -> str:
    """Whether the transition is a table or lists of successors, and whether chance has a part in it."""
    dense = task.transition is not None
    probabilities = np.asarray(task.transition if dense else task.probabilities)
    chance = "deterministic" if np.isin(probabilities, (0.0, 1.0)).all() else "stochastic"
    return f"{chance}, {'a dense table' if dense else f'{probabilities.shape[-1]} successors a state'}"


def plural(noun: str, count: int) -> str:
    """The noun in the number of the count."""
    return noun if count == 1 else noun + "s"
