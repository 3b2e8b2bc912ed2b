"""What happened in a partially observed process: its hidden states, given actions and observations.

    s_1 ~ p_0,    s_{t+1} ~ P(. | s_t, a_t),    o_t ~ U(. | s_t, a_{t-1}) observed,    a_t given

A hidden Markov model driven by actions. `exact.filtered` is the belief at each time, `exact.posterior_marginals` the
smoothed one, `exact.condition(...).log_evidence` is log p(o_1..T | a_0..T-1); `smc.run` estimates it by particles, the
bootstrap filter (Gordon, Salmond & Smith 1993), without bias on the scale of probabilities.

Several episodes stand one after the other, and between two of them the process begins anew, which shows nothing.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float, Int
from numpyro.distributions import Categorical

from rlinf_ppl.models.arguments import check_task
from rlinf_ppl.models.dynamics import first_state
from rlinf_ppl.program import ControlProgram, over_time
from rlinf_ppl.tasks import POMDP, checks
from rlinf_ppl.types import ArrayLike


class Log(NamedTuple):
    """Episodes, side by side in time; the action after the last one begins anew, and shows the observation after it.

    Attributes:
        action: taken at each time, (T + 1,), the last one of no meaning.
        before: taken before it, (T + 1,).
        seen: what that showed, (T + 1,).
    """

    action: Int[Array, " T+1"]
    before: Int[Array, " T+1"]
    seen: Int[Array, " T+1"]


def moved(pomdp: POMDP, s: Any, action: Any) -> Float[Array, " S"]:
    """p(next state | state, action), where the action may be to begin anew."""
    assert pomdp.transition is not None
    last = pomdp.num_actions - 1
    return jnp.where(action > last, pomdp.initial, pomdp.transition[s, jnp.clip(action, 0, last)])


def shown(pomdp: POMDP, s: Any, before: Any) -> Float[Array, " P"]:
    """p(observation | state, action before it), the last one that nothing is seen."""
    last = pomdp.num_actions - 1
    something = jnp.append(pomdp.observation[s, jnp.clip(before, 0, last)], 0.0)
    return jnp.where(before > last, jnp.zeros_like(something).at[-1].set(1.0), something)


def initial(pomdp: POMDP, *_: Any) -> dict[str, Any]:
    """The first state."""
    return first_state(pomdp.mdp)


def step(pomdp: POMDP, log: Log, s: Any) -> dict[str, Any]:
    """One step of the model."""
    numpyro.sample("o", Categorical(probs=shown(pomdp, s, log.before)), obs=log.seen)
    return {"s": numpyro.sample("s_next", Categorical(probs=moved(pomdp, s, log.action)))}


def final(pomdp: POMDP, log: Log, s: Any) -> None:
    """What the last state showed."""
    numpyro.sample("o", Categorical(probs=shown(pomdp, s, log.before)), obs=log.seen)


def episode(pomdp: POMDP, actions: ArrayLike, observations: ArrayLike) -> ControlProgram:
    """Episodes of a POMDP as a program without decisions, whose data are what was seen.

    Args:
        pomdp: the task; its tables are dense here.
        actions: positions of the actions taken, (T,), or (n, T) of several episodes.
        observations: positions of what was seen after each, of the same shape.

    Returns:
        The program of T steps, or n (T + 1) - 1 of several episodes, with state `s` and data `o`. Its states have
        n (T + 1) rows, those of one episode after the other's. Its arrays are arguments: the POMDP, and the `Log`.

    Raises:
        TypeError: on something else than a POMDP, or positions that are no whole numbers.
        ValueError: on positions that are out of range, or arrays of other or different shapes.
    """
    check_task("pomdp", pomdp, POMDP)
    log = logged(pomdp, actions, observations)
    args = pomdp.dense().anonymous().averaged(), Log(*map(over_time, log))
    return ControlProgram(initial, step, len(log.before) - 1, 1.0, final, args)


def logged(pomdp: POMDP, actions: ArrayLike, observations: ArrayLike) -> Log:
    """Episodes one after the other, checked.

    Raises:
        TypeError, ValueError: as `episode`.
    """
    taken = checks.as_indices("actions", actions, pomdp.num_actions, "actions")
    seen = checks.as_indices("observations", observations, pomdp.num_observations, "observations")
    if not taken.size and taken.shape == seen.shape:
        raise ValueError("actions and observations are empty: an episode has at least one step.")
    if taken.shape != seen.shape or taken.ndim not in (1, 2):
        raise ValueError(
            f"actions has shape {taken.shape} and observations {seen.shape}: each action is followed by one "
            "observation, both (T,), or both (n, T) of several episodes."
        )

    def begun(array: Array, nothing: int) -> Array:
        """Each episode after what begins it."""
        rows = jnp.reshape(array, (-1, array.shape[-1])).astype(int)
        return jnp.reshape(jnp.pad(rows, ((0, 0), (1, 0)), constant_values=nothing), -1)

    before = begun(taken, pomdp.num_actions)
    # `final` has a row of its own in what varies in time, and takes no action.
    return Log(jnp.append(before[1:], 0), before, begun(seen, pomdp.num_observations))
