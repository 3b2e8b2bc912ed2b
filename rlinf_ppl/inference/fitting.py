"""The loop of a fit: what it was given, what it has reached, and how it goes on."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from rlinf_ppl.algebra import Chain
from rlinf_ppl.inference.arguments import check_count
from rlinf_ppl.inference.guides import Logits, bound, policy_of
from rlinf_ppl.inference.progress import progress_bar
from rlinf_ppl.inference.updates import Update
from rlinf_ppl.program import ControlProgram, read

STEPS_AT_ONCE = 100


class Task(eqx.Module):
    """What is fitted, how, and how nearly."""

    program: ControlProgram
    update: Update = eqx.field(static=True)
    tolerance: Float[Array, ""]


class State(NamedTuple):
    """What a step needs of the steps before it.

    Attributes:
        logits: the guide's.
        memory: what the update carries along.
        residual: of the last step; infinite where that step gave no verdict.
        steps: how many were run.
    """

    logits: Logits
    memory: Any
    residual: Float[Array, ""]
    steps: Array


class Fit(NamedTuple):
    """A fitted guide.

    Attributes:
        policy: for each decision (T, scope, K) probabilities.
        elbo: its exact ELBO, in units of optimality.
        losses: the negative ELBO before each step that was run, exact or as the loss estimates it.
        converged: whether `residual` is within the tolerance.
        residual: how far the policy is from its best reply, one natural gradient step of size 1. With the natural
            gradient the largest difference in any probability anywhere; with an optimiser the KL in nats that the
            policy expects to meet along a trajectory, which is blind where the policy does not go.
        logits: theta, shapes as the policy's.
        memory: what the steps to come need of the steps so far, beside the logits.
        task: the program, the kind of steps, and the tolerance.
    """

    policy: dict[str, Any]
    elbo: Float[Array, ""]
    losses: Float[Array, " steps"]
    converged: Bool[Array, ""]
    residual: Float[Array, ""]
    logits: Logits
    memory: Any
    task: Task

    def resume(self, num_steps: int = 1000, *, progress: bool = False) -> "Fit":
        """Run more steps, to the fit that as many steps without a break would have given.

        Args:
            num_steps: the most steps to add; a fit that has converged adds none.
            progress: show a progress bar.
        """
        start = State(self.logits, self.memory, self.residual, jnp.asarray(len(self.losses)))
        return run(self.task, start, np.asarray(self.losses), check_count("num_steps", num_steps), progress)


def run(task: Task, state: State, losses: np.ndarray, num_steps: int, progress: bool) -> Fit:
    """Add steps to a fit, until it has converged or has run `num_steps` more."""
    chain = read(task.program)
    parts, left = [losses], num_steps
    with progress_bar(num_steps, progress) as report:
        while left and not state.residual <= task.tolerance:
            now = min(STEPS_AT_ONCE, left)
            before = int(state.steps)
            state, latest = advance(task.update, chain, state, task.tolerance, jnp.asarray(now))
            ran = int(state.steps) - before
            parts.append(np.asarray(latest)[:ran])
            left -= ran
            report(ran, float(parts[-1][-1]))
    policy, elbo = summary(chain, state.logits)
    every, converged = jax.device_put(np.concatenate(parts)), state.residual <= task.tolerance
    return Fit(policy, elbo, every, converged, state.residual, state.logits, state.memory, task)


@eqx.filter_jit
def advance(
    update: Update, chain: Chain, state: State, tolerance: Array, steps: Array
) -> tuple[State, Float[Array, " steps"]]:
    """At most `steps` steps (no more than STEPS_AT_ONCE), fewer once the residual is within the tolerance.

    Returns:
        The state, and the losses of these steps.
    """
    first = state.steps

    def due(carry: tuple[State, Array]) -> Array:
        return (carry[0].steps < first + steps) & ~(carry[0].residual <= tolerance)

    def body(carry: tuple[State, Array]) -> tuple[State, Array]:
        state, losses = carry
        logits, memory, loss, residual = update.step(chain, state.logits, state.memory, state.steps + 1)
        return State(logits, memory, residual, state.steps + 1), losses.at[state.steps - first].set(loss)

    return lax.while_loop(due, body, (state, jnp.zeros(STEPS_AT_ONCE)))


@eqx.filter_jit
def summary(chain: Chain, logits: Logits) -> tuple[dict[str, Any], Array]:
    """The policy of the logits and its ELBO."""
    return policy_of(chain, logits), bound(chain, logits)
