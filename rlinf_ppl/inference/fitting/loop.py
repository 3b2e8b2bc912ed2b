"""The loop of a fit: what it was given, what it has reached, and how it goes on."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from rlinf_ppl.algebra import Chain
from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.inference.arguments import check_count
from rlinf_ppl.inference.chains import answers
from rlinf_ppl.inference.fitting.guides import moves, unmet
from rlinf_ppl.inference.fitting.progress import progress_bar
from rlinf_ppl.inference.fitting.updates import Update
from rlinf_ppl.program import ControlProgram, read
from rlinf_ppl.program.guides import Guide
from rlinf_ppl.program.supports import is_finite

STEPS_AT_ONCE = 100


class Task(eqx.Module):
    """What is fitted, how, and how nearly."""

    program: ControlProgram
    update: Update = eqx.field(static=True)
    tolerance: Float[Array, ""]


class State(NamedTuple):
    """What a step needs of the steps before it.

    Attributes:
        guide: as far as it has come.
        memory: what the update carries along.
        residual: of the last step; infinite where that step gave no verdict.
        steps: how many were run.
    """

    guide: Any
    memory: Any
    residual: Float[Array, ""]
    steps: Array


class Fit(NamedTuple):
    """A fitted guide.

    Attributes:
        policy: for each decision (T, scope, K) probabilities. A decision that has a network has a function instead,
            of its scope by name (and t), which returns a NumPyro distribution.
        elbo: its ELBO in units of optimality: exact where the loss is one of tables, else estimated as by the loss.
        losses: the negative ELBO before each step that was run, exact or as the loss estimates it. Where the fit was
            made inside vmap there is one for each of `num_steps`, NaN after convergence.
        converged: whether `residual` is within the tolerance.
        residual: how far the guide is from where it would stay. With the natural gradient the largest difference in
            any probability anywhere that one step of size 1 would make; with an optimiser on tables the KL in nats of
            the policy from its best reply, expected along its trajectories, which is blind where it does not go; with
            `NodeELBO`, and of guides of one's own by the exact ELBO, the largest slope in any free number; with
            `ParticleELBO` how much the losses still fall, in standard errors; with `ActorCritic` how far what the
            critic promises is from what is earned, by the spread of its action values.
        guide: what was learned: for tables of logits theta, shapes as the policy's; networks; or a guide of
            one's own, whose `module` is as it was given, with what was learned.
        memory: what the steps to come need of the steps so far, beside the guide.
        task: the program, the kind of steps, and the tolerance.
        restarts: the ELBOs of all starts, where there were several; those with a schedule first.
    """

    policy: dict[str, Any]
    elbo: Float[Array, ""]
    losses: Float[Array, " steps"]
    converged: Bool[Array, ""]
    residual: Float[Array, ""]
    guide: Any
    memory: Any
    task: Task
    restarts: Array | None = None

    @property
    def local(self) -> bool:
        """Whether a converged policy is one that no single decision can improve, and others may be better.

        So it is where a decision does not see all that matters to it. With a guide of one's own a converged fit is one
        whose numbers have no slope left. Where tables see all, there is one optimum.
        """
        return bool(self.task.program.structure.hidden) or isinstance(self.guide, Guide)

    @property
    def params(self) -> dict[str, Array]:
        """What was learned by name, as NumPyro's SVI and `Predictive(program.guide, params=...)` have it.

        Of a guide of one's own its arrays, within their bounds, for `program.with_guide(guide).guide`; of tables
        `d_logits` for each decision d; of Gaussian ones `d_gain`, `d_offset` and `d_factor`, which move the prior.

        Raises:
            TypeError: it is a fit of networks.
            ValueError: the prior of a Gaussian decision is singular, so that nothing stretches it.
        """
        program = self.task.program
        if isinstance(self.guide, Guide):
            return self.guide.params
        if not all(map(eqx.is_array, self.guide.values())):
            raise TypeError(
                "networks have no parameters in program.guide; program.with_guide(fit.guide).guide has them, and draws "
                "from the networks as they are."
            )
        if not all(map(is_finite, (program.supports[name] for name in program.scopes))):
            return moves(answers.prior_policy(read(program)), self.policy)
        return {f"{name}_logits": theta for name, theta in self.guide.items()}

    def unmet(self) -> dict[str, Bool[Array, "..."]]:
        """For each decision that does not see all, (T, scope): where what it sees never happens under the policy.

        There the policy replies as if what is hidden were uniform, and nothing is known of it.

        Raises:
            TypeError: it is a fit of networks.
        """
        check_one(self)
        target = self.task.update.loss.read(self.task.program)
        if not isinstance(target, Chain):
            raise TypeError("a fit of networks has no table of what its decisions see; unmet() is for fits of tables.")
        return unmet(target, self.guide) if self.local else {}

    def resume(self, num_steps: int = 1000, *, progress: bool = False) -> "Fit":
        """Run more steps, to the fit that as many steps without a break would have given.

        Args:
            num_steps: the most steps to add; a fit that has converged adds none.
            progress: show a progress bar.
        """
        check_one(self)
        target = self.task.update.loss.read(self.task.program)
        start = State(self.guide, self.memory, self.residual, jnp.asarray(len(self.losses)))
        steps = check_count("num_steps", num_steps)
        fit = run(self.task, target, start, np.asarray(self.losses), steps, progress)
        return fit._replace(restarts=self.restarts)


def check_one(fit: Fit) -> None:
    """Raise on several fits in one, as vmap returns them.

    Raises:
        ValueError: they are several.
    """
    if fit.elbo.ndim:
        raise ValueError(
            f"these are {fit.elbo.shape} fits in one, from vmap; take one of them, such as "
            "jax.tree.map(lambda x: x[0], fit)."
        )


def run(task: Task, target: Any, state: State, losses: np.ndarray, num_steps: int, progress: bool) -> Fit:
    """Add steps to a fit, until it has converged or has run `num_steps` more.

    Args:
        task: what is fitted.
        target: what its loss reads of the program.
        state: where to go on.
        losses: of the steps before.
        num_steps: the most steps to add.
        progress: whether to show a bar.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((target, state))):
        state, latest = advance(task.update, target, state, task.tolerance, jnp.asarray(num_steps), num_steps)
        return finished(task, target, state, latest)
    parts, left = [losses], num_steps
    with progress_bar(num_steps, progress) as report:
        while left and not state.residual <= task.tolerance:
            now = min(STEPS_AT_ONCE, left)
            before = int(state.steps)
            state, latest = advance(task.update, target, state, task.tolerance, jnp.asarray(now))
            ran = int(state.steps) - before
            parts.append(np.asarray(latest)[:ran])
            left -= ran
            report(ran, float(parts[-1][-1]))
    return finished(task, target, state, jax.device_put(np.concatenate(parts)))


def finished(task: Task, target: Any, state: State, losses: Array) -> Fit:
    """The fit that a state comes to."""
    policy, elbo = task.update.loss.summary(target, state.guide, task.update.key(state.memory))
    converged = state.residual <= task.tolerance
    return Fit(policy, elbo, losses, converged, state.residual, state.guide, state.memory, task)


@compiled
def advance(
    update: Update, target: Any, state: State, tolerance: Array, steps: Array, most: int = STEPS_AT_ONCE
) -> tuple[State, Float[Array, " steps"]]:
    """At most `steps` steps (no more than `most`), fewer once the residual is within the tolerance.

    Returns:
        The state, and the losses of these steps; NaN where there was none.
    """
    first = state.steps

    def due(carry: tuple[State, Array]) -> Array:
        return (carry[0].steps < first + steps) & ~(carry[0].residual <= tolerance)

    def body(carry: tuple[State, Array]) -> tuple[State, Array]:
        state, losses = carry
        guide, memory, loss, residual = update.step(target, state.guide, state.memory, state.steps + 1)
        return State(guide, memory, residual, state.steps + 1), losses.at[state.steps - first].set(loss)

    return lax.while_loop(due, body, (state, jnp.full(most, jnp.nan)))
