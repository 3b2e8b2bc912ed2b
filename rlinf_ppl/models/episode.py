"""What happened in one episode of a partially observed process: its hidden states, given actions and observations.

    s_1 ~ p_0,    s_{t+1} ~ P(. | s_t, a_t),    o_t ~ U(. | s_t, a_{t-1}) observed,    a_t given

A hidden Markov model driven by actions. `exact.filtered` is the belief at each time, `exact.posterior_marginals` the
smoothed one, `exact.condition(...).log_evidence` is log p(o_1..T | a_0..T-1); `smc.run` estimates it by particles, the
bootstrap filter (Gordon, Salmond & Smith 1993), without bias on the scale of probabilities.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Array
from numpyro.distributions import Categorical

from rlinf_ppl.models.dynamics import first_state, next_state
from rlinf_ppl.models.hidden import Hidden, hidden
from rlinf_ppl.program import ControlProgram, over_time
from rlinf_ppl.tasks import POMDP, checks
from rlinf_ppl.types import ArrayLike


def initial(task: Hidden, *_: Any) -> dict[str, Any]:
    """The first state."""
    return first_state(task.mdp)


def look(task: Hidden, before: Array, seen: Array, s: Any) -> None:
    """Observe what a state showed after the action before it."""
    numpyro.sample("o", Categorical(probs=task.observation[s, before]), obs=seen)


def step(task: Hidden, action: Array, before: Array, seen: Array, s: Any) -> dict[str, Any]:
    """One step of the model."""
    look(task, before, seen, s)
    return {"s": next_state(task.mdp, s, action)}


def final(task: Hidden, action: Array, before: Array, seen: Array, s: Any) -> None:
    """What the last state showed."""
    look(task, before, seen, s)


def episode(pomdp: POMDP, actions: ArrayLike, observations: ArrayLike) -> ControlProgram:
    """An episode of a POMDP as a program without decisions, whose data are what was seen.

    Args:
        pomdp: the task.
        actions: positions of the actions taken, (T,).
        observations: positions of what was seen after each, (T,).

    Returns:
        The program of T steps, with state `s` and data `o`. Its arrays are arguments, so that episodes of one
        length can be vmapped.

    Raises:
        TypeError: on something else than a POMDP, or positions that are no whole numbers.
        ValueError: on positions that are out of range, or of different lengths.
    """
    task = hidden(pomdp)
    taken = positions("actions", actions, pomdp.num_actions)
    seen = positions("observations", observations, pomdp.num_observations)
    if taken.shape != seen.shape or taken.ndim != 1:
        raise ValueError(
            f"actions has shape {taken.shape} and observations {seen.shape}: each action is followed by one "
            "observation, both (T,); use jax.vmap for several episodes."
        )
    nothing, none = pomdp.num_observations, pomdp.num_actions
    # Before the first action nothing is seen, for certain.
    shows = jnp.pad(task.observation, ((0, 0), (0, 1), (0, 1))).at[:, none, nothing].set(1.0)
    before = jnp.concatenate([jnp.asarray([none], taken.dtype), taken])
    args = task._replace(observation=shows), *map(over_time, (jnp.append(taken, 0), before, jnp.append(nothing, seen)))
    return ControlProgram(initial, step, len(taken), 1.0, final, args)


def positions(name: str, given: ArrayLike, count: int) -> Array:
    """Positions below some number, checked where they are known."""
    array = jnp.asarray(given)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name} holds {array.dtype}, not whole numbers: give positions from 0 to {count - 1}.")
    known = np.asarray(array) if checks.is_concrete(array) else np.zeros(0, int)
    wrong = known[(known < 0) | (known >= count)]
    if wrong.size:
        raise ValueError(f"{name} holds {wrong[0]}: give positions from 0 to {count - 1}.")
    return array
