"""Variational inference: fits a program's guide, q(d | scope) = p exp(theta) / Z at each time.

Where the program is tables the ELBO and its gradients come from the elimination, without sampling. The natural gradient
of the ELBO in the logits theta is, at every time and every value of the scope, whether visited or not,

    tau Q^pi - theta,         Q^pi the message that the current policy of the later decisions leaves

so a step of size 1 at all times together is soft policy iteration: every sweep improves the policy everywhere, and
the closed form is its fixed point (Kakade 2001, A natural policy gradient; Levine 2018, section 3.2). Any optax
optimiser can take its place; its gradients vanish where the policy itself does not go, and for what a sparse policy
leaves out, and there it learns nothing.

An optimiser also takes losses whose gradient is sampled. `SampledELBO` and `ScoreFunctionELBO` are for tables;
`ParticleELBO` and `ActorCritic` take any step program, and guides of `networks` where no table holds the policy:

    loss                 needs                            its gradient
    ExactELBO            tables                           exact
    SampledELBO          tables, an end                   states sampled, decisions and futures summed
    ScoreFunctionELBO    tables, an end                   trajectories alone
    NodeELBO             an end, a finite state           real numbers within a step by nodes, no noise
    ParticleELBO         an end, one inverse temperature  trajectories or particle filters; real numbers reparameterised
    ActorCritic          nothing                          action values learned from replayed steps: biased as they are

A decision with a negative inverse temperature descends the ELBO that the others ascend, one with 0 stays at its prior.

What a fit is made of is in `fitting`: guides in `guides` and `networks`, their estimates in `estimators` and
`particle_bound`, losses in `losses`, `particle_elbo` and `actor_critic`, steps in `updates`, their loop in `loop`.
"""

import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from rlinf_ppl.inference.arguments import check_count, check_key, check_number
from rlinf_ppl.inference.fitting.actor_critic import ActorCritic
from rlinf_ppl.inference.fitting.importance import k_hat
from rlinf_ppl.inference.fitting.loop import Fit, State, Task, run
from rlinf_ppl.inference.fitting.losses import ExactELBO, ProgramELBO, SampledELBO, ScoreFunctionELBO, in_numpyro
from rlinf_ppl.inference.fitting.networks import networks
from rlinf_ppl.inference.fitting.node_elbo import NodeELBO
from rlinf_ppl.inference.fitting.own import is_own, learnable
from rlinf_ppl.inference.fitting.particle_elbo import ParticleELBO
from rlinf_ppl.inference.fitting.policy_elbo import loss_for
from rlinf_ppl.inference.fitting.starts import best_of, check_spread, moved
from rlinf_ppl.inference.fitting.storage import restored, save
from rlinf_ppl.inference.fitting.updates import EXACT, NATURAL, SIMULTANEOUS, Update, by_optimizer, by_replies
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.reading import check_program

__all__ = [
    "ActorCritic",
    "ExactELBO",
    "Fit",
    "NodeELBO",
    "ParticleELBO",
    "SampledELBO",
    "ScoreFunctionELBO",
    "fit",
    "in_numpyro",
    "k_hat",
    "load",
    "networks",
    "save",
]


def fit(
    program: ControlProgram,
    key: PRNGKeyArray | Array,
    num_steps: int = 1000,
    *,
    guide: Any = None,
    loss: ProgramELBO = EXACT,
    optimizer: optax.GradientTransformation | None = None,
    step_size: float = 1.0,
    tolerance: float | None = None,
    num_restarts: int = 1,
    spread: float = 0.0,
    schedule: ArrayLike | Sequence[float] | None = None,
    progress: bool = False,
) -> Fit:
    """Fit a guide by ascent of the ELBO, and stop early once it has converged.

    Args:
        program: any step program.
        key: a JAX random key, for the action values to start from (normal, standard deviation 0.1), and for what the
            loss draws.
        num_steps: the most steps to run.
        guide: what to start from: None, the program's own guide, or tables of small random action values; the `guide`
            of another fit; `networks(program, key)`; or a guide of one's own, as `program.with_guide` takes it.
        loss: `ExactELBO()`, or with an optimiser one of the others above.
        optimizer: an optax optimiser of the plain gradient; None: the natural gradient of the exact ELBO.
        step_size: of the natural gradient, in (0, 1]; 1 is coordinate ascent. An optimiser brings its own. Where
            decisions do not see each other it is the first one, and is adapted.
        tolerance: stop once `residual` is at most this; default 1e-6 (6e-6 in float32), with an
            optimiser 1e-5, with `ParticleELBO` 1, with `ActorCritic` 0.05. 0 runs every step.
        num_restarts: how many starts to fit from, each with its own key; the fit of the largest ELBO is returned, with
            the ELBOs of all as `restarts`. Where decisions see all, the natural gradient needs one only.
        spread: standard deviation of the noise by which each start moves the numbers it begins with, where they have
            no bounds: of the log of what is positive. Small random tables all begin near the prior, where a memory
            that nothing reads is not worth writing; 3, say, begins elsewhere.
        schedule: where decisions do not see all, what to multiply the inverse temperatures by in the first steps, such
            as jnp.linspace(0.05, 1, 40): where rewards count little at first, fewer fits end at poor optima. Each start
            is then fitted from twice, with the schedule and, after all of these, without.
        progress: show a progress bar; inside jit and vmap there is none.

    Returns:
        The fit, which can be resumed. Without convergence it is returned all the same, and says so.

    Raises:
        TypeError: on an optimizer that is none of optax, a loss that is none of this engine's, or a guide that the
            loss cannot fit.
        ValueError: on a number of steps or a step size out of range, a program without decisions, one whose numbers
            are no distributions, an infinite inverse temperature, a sampled loss without an optimiser or end, a
            schedule of as many steps or more, or one where decisions see all; where decisions do not see all, negative
            inverse temperatures, and different ones of decisions that are taken at once.
    """
    check_program(program)
    guide = program.learned if guide is None else guide
    if not program.scopes and guide is None:
        raise ValueError("the program has no decisions to fit; mark the agent's sites with decide(name, prior).")
    loss = loss_for(loss, guide, optimizer)
    guide = learnable(program, guide) if is_own(guide) else guide
    update = check_update(program, loss, optimizer, step_size, schedule)
    key, num_steps = check_key(key), check_count("num_steps", num_steps)
    tempered = len(check_schedule(schedule))
    if num_steps <= tempered:
        raise ValueError(
            f"the schedule takes {tempered} steps, and num_steps is {num_steps}; give more, so that starts are "
            "compared where all have arrived."
        )
    target = update.loss.read(program)
    starts = check_count("num_restarts", num_restarts)
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((target, key)))
    if starts > 1 and traced:
        raise ValueError("inside jit and vmap each key is a start of its own: leave num_restarts out.")
    limit = default_tolerance(update, optimizer) if tolerance is None else tolerance
    within, apart = check_number("tolerance", limit), check_spread(spread)
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)

    def one(task: Task, key: Array) -> Fit:
        start_key, draw_key = jax.random.split(key)
        first = loss.start(target, start_key) if guide is None else loss.check_guide(target, guide)
        first = moved(first, apart, jax.random.fold_in(start_key, 1) if guide is None else start_key)
        memory = task.update.initial(target, first, draw_key, jnp.asarray(step_size, dtype=float))
        state = State(first, memory, jnp.asarray(jnp.inf), jnp.asarray(0))
        return run(task, target, state, np.zeros(0), num_steps, progress)

    updates = (update,) if schedule is None else (update, check_update(program, loss, optimizer, step_size))
    tasks = [Task(program, each, within) for each in updates]
    side_by_side = bool(program.structure.hidden) and optimizer is None
    return best_of(one, tasks, key, starts, traced, side_by_side)


def load(
    path: str | os.PathLike[str],
    program: ControlProgram,
    *,
    guide: Any = None,
    loss: ProgramELBO = EXACT,
    optimizer: optax.GradientTransformation | None = None,
    schedule: ArrayLike | Sequence[float] | None = None,
) -> Fit:
    """A fit that was saved by `save`, to look at or to resume.

    Args:
        path: the file.
        program: the program that was fitted.
        guide: for networks, some of the same shape, as `networks` makes them with any key; a guide of one's own like
            the one that was fitted, whatever its numbers; None for tables.
        loss: the loss that it was fitted by.
        optimizer: an optax optimiser like the one that it was fitted with, of the same learning rate and other numbers,
            which no file can tell; None: the natural gradient.
        schedule: the one that it was fitted with, if any; the best start may have been one without.

    Raises:
        FileNotFoundError, OSError: there is no such file, or it cannot be opened.
        ValueError: it holds no fit, or that of another program, loss, kind of optimiser or precision.
    """
    check_program(program)
    guide = program.learned if guide is None else guide
    loss = loss_for(loss, guide, optimizer)
    kinds = (None,) if schedule is None else (schedule, None)
    found = [check_update(program, loss, optimizer, 1.0, given) for given in kinds]
    return restored(path, program, guide, found)


def check_update(
    program: ControlProgram,
    loss: ProgramELBO,
    optimizer: optax.GradientTransformation | None,
    step_size: float,
    schedule: Any = None,
) -> Update:
    """The steps of a loss and an optimiser.

    Raises:
        TypeError, ValueError: as `fit`.
    """
    check_program(program)
    check_number("step_size", step_size)
    if not 0 < step_size <= 1:
        raise ValueError(f"step_size must be above 0 and at most 1; got {step_size}.")
    if not isinstance(optimizer, optax.GradientTransformation | None):
        raise TypeError(f"optimizer must be one of optax, such as optax.adam(0.1); got {type(optimizer).__name__}.")
    if not isinstance(loss, ProgramELBO):
        raise TypeError(
            f"loss must be svi.ExactELBO(), svi.SampledELBO(n) or another of svi's; got {type(loss).__name__}. "
            "NumPyro's own losses go with numpyro.infer.SVI(prog.model, prog.guide, ...)."
        )
    loss.check(program)
    if loss != EXACT and optimizer is None:
        raise ValueError(
            f"the natural gradient is exact; {loss!r} goes with an optimizer, such as optimizer=optax.adam(0.1)."
        )
    if schedule is not None and (optimizer is not None or not program.structure.hidden):
        raise ValueError(
            "schedule is for decisions that do not see all, fitted without an optimizer: where they see all, there is "
            "one optimum only."
        )
    if optimizer is not None:
        return by_optimizer(optimizer, loss)
    if program.structure.hidden:
        if step_size != 1 and program.horizon is not None:
            raise ValueError(f"replies one after the other are whole: step_size must be 1; got {step_size}.")
        return by_replies(check_schedule(schedule), program.horizon is None)
    return SIMULTANEOUS if program.structure.together else NATURAL


def check_schedule(schedule: Any) -> tuple[float, ...]:
    """What to multiply the inverse temperatures by, as numbers."""
    if isinstance(schedule, jax.core.Tracer):
        raise ValueError("schedule must be known numbers, and is traced: it says how many steps are taken.")
    factors = np.asarray([] if schedule is None else schedule)
    numbers = np.issubdtype(factors.dtype, np.number)
    if not numbers or factors.ndim != 1 or not (np.isfinite(factors) & (factors > 0)).all():
        raise ValueError(f"schedule must be a list of factors above 0, such as [0.1, 0.3, 1.0]; got {schedule!r}.")
    return tuple(factors.tolist())


def default_tolerance(update: Update, optimizer: Any) -> float:
    """How small a residual counts as convergence."""
    if optimizer is None:
        return max(1e-6, float(jnp.finfo(jnp.zeros(()).dtype).eps) ** 0.75)
    return update.loss.tolerance
