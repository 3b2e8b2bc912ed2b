"""Variational inference with the exact ELBO: fits a program's guide, q(d | scope) = p exp(theta) / Z at each time.

The ELBO and its gradients come from the elimination, without sampling. The natural gradient of the ELBO in the logits
theta is, at every time and every value of the scope, whether visited or not,

    tau Q^pi - theta,         Q^pi the message that the current policy of the later decisions leaves

so a step of size 1 at all times together is soft policy iteration: every sweep improves the policy everywhere, and
the closed form is its fixed point (Kakade 2001, A natural policy gradient; Levine 2018, section 3.2). Any optax
optimiser can take its place; its gradients vanish where the policy itself does not go, and for what a sparse policy
leaves out, and there it learns nothing.

A decision with a negative inverse temperature descends the ELBO that the others ascend, one with 0 stays at its prior.
The steps themselves are in `updates`.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from rlinf_ppl.algebra import Chain
from rlinf_ppl.inference.arguments import check_count, check_key, check_tolerance
from rlinf_ppl.inference.progress import progress_bar
from rlinf_ppl.inference.updates import (
    NATURAL,
    SIMULTANEOUS,
    Logits,
    Update,
    bound,
    by_optimizer,
    policy_of,
    tempered,
)
from rlinf_ppl.program import ControlProgram, read

STEPS_AT_ONCE = 100
INITIAL_SPREAD = 0.1


class Fit(NamedTuple):
    """A fitted guide.

    Attributes:
        policy: for each decision (T, scope, K) probabilities.
        elbo: its exact ELBO, in units of optimality.
        losses: the negative ELBO before each step that was run.
        converged: whether `residual` is within the tolerance.
        residual: how far the policy is from its best reply, one natural gradient step of size 1. With the natural
            gradient the largest difference in any probability anywhere; with an optimiser the KL in nats that the
            policy expects to meet along a trajectory, which is blind where the policy does not go.
        logits: theta, shapes as the policy's.
    """

    policy: dict[str, Any]
    elbo: Float[Array, ""]
    losses: Float[Array, " steps"]
    converged: Bool[Array, ""]
    residual: Float[Array, ""]
    logits: Logits


class State(NamedTuple):
    """What a step needs of the steps before it, and the losses on the way."""

    logits: Logits
    memory: Any
    residual: Float[Array, ""]
    steps: Array
    losses: Float[Array, " steps"]


def fit(
    program: ControlProgram,
    key: PRNGKeyArray | Array,
    num_steps: int = 1000,
    *,
    optimizer: optax.GradientTransformation | None = None,
    step_size: float = 1.0,
    tolerance: float | None = None,
    progress: bool = False,
) -> Fit:
    """Fit the guide by ascent of the exact ELBO, and stop early once it has converged.

    Args:
        program: any step program.
        key: a JAX random key, for the action values to start from (normal, standard deviation 0.1).
        num_steps: the most steps to run.
        optimizer: an optax optimiser of the plain gradient; None: the natural gradient.
        step_size: of the natural gradient, in (0, 1]; 1 is coordinate ascent. An optimiser brings its own. Where
            decisions do not see each other it is the first one, and is adapted.
        tolerance: stop once `residual` is at most this; default 1e-6 (6e-6 in float32), with an
            optimiser 1e-5. 0 runs every step.
        progress: show a progress bar.

    Returns:
        The fit. Without convergence it is returned all the same, and says so.

    Raises:
        TypeError: on an optimizer that is none of optax, or inside jit, vmap or grad: the fit stops by its numbers.
        ValueError: on a number of steps or a step size out of range, a program without decisions, one whose numbers
            are no distributions, or an infinite inverse temperature.
    """
    key, num_steps = check_key(key), check_count("num_steps", num_steps)
    if not 0 < step_size <= 1:
        raise ValueError(f"step_size must be above 0 and at most 1; got {step_size}.")
    if not isinstance(optimizer, optax.GradientTransformation | None):
        raise TypeError(f"optimizer must be one of optax, such as optax.adam(0.1); got {type(optimizer).__name__}.")
    chain = read(program)
    check_tolerance(chain)
    if not chain.scopes:
        raise ValueError("the program has no decisions to fit; mark the agent's sites with decide(name, prior).")
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((chain, key))):
        raise TypeError(
            "svi.fit stops by its numbers, so it cannot run inside jit, vmap or grad; fit one program after the other: "
            "those of one shape share the compiled code."
        )
    for site in chain.step.sites:
        if site.inverse_temperature is not None and jnp.any(jnp.isinf(site.inverse_temperature.constant)):
            raise ValueError(
                f"the inverse temperature of {site.name!r} is infinite, and the guide's logits would be so, too; "
                "exact.solve takes it, or give a large finite one."
            )
    natural = SIMULTANEOUS if any(site.unseen for site in chain.step.sites) else NATURAL
    update = natural if optimizer is None else by_optimizer(optimizer)
    precise = max(1e-6, float(jnp.finfo(chain.zero.array.dtype).eps) ** 0.75) if optimizer is None else 1e-5
    limit = jnp.asarray(precise if tolerance is None else tolerance, dtype=float)
    logits = initial_logits(chain, key)
    memory = jnp.asarray(step_size, dtype=float) if optimizer is None else update.initial(logits)
    losses = []
    with progress_bar(num_steps, progress) as report:
        residual, done = jnp.asarray(jnp.inf), 0
        while done < num_steps and not residual <= limit:
            now = jnp.asarray(min(STEPS_AT_ONCE, num_steps - done))
            state = advance(update, chain, logits, memory, limit, now)
            logits, memory, residual = state.logits, state.memory, state.residual
            ran = int(state.steps)
            losses.append(np.asarray(state.losses)[:ran])
            done += ran
            report(ran, float(losses[-1][-1]))
    policy, bound = summary(chain, logits)
    return Fit(policy, bound, jax.device_put(np.concatenate(losses)), residual <= limit, residual, logits)


def initial_logits(chain: Chain, key: PRNGKeyArray | Array) -> Logits:
    """The logits of small random action values, for every decision."""
    size, axes = chain.size(), chain.axes()

    def drawn(name: str, key: Array) -> Array:
        one = chain.zero.over(axes[name], size)
        if chain.horizon is None:
            return INITIAL_SPREAD * one.perturbation(key).array
        return jax.vmap(lambda key: INITIAL_SPREAD * one.perturbation(key).array)(jax.random.split(key, chain.horizon))

    keys = jax.random.split(key, len(axes))
    return tempered(chain, {name: drawn(name, each) for name, each in zip(axes, keys, strict=True)})


@eqx.filter_jit
def advance(update: Update, chain: Chain, logits: Logits, memory: Any, limit: Array, steps: Array) -> State:
    """At most `steps` steps (no more than STEPS_AT_ONCE), fewer once the residual is within the limit."""

    def body(state: State) -> State:
        logits, memory, loss, residual = update.step(chain, state.logits, state.memory, state.steps + 1)
        return State(logits, memory, residual, state.steps + 1, state.losses.at[state.steps].set(loss))

    start = State(logits, memory, jnp.asarray(jnp.inf), jnp.asarray(0), jnp.zeros(STEPS_AT_ONCE))
    return lax.while_loop(lambda state: (state.steps < steps) & ~(state.residual <= limit), body, start)


@eqx.filter_jit
def summary(chain: Chain, logits: Logits) -> tuple[dict[str, Any], Array]:
    """The policy of the logits and its ELBO."""
    return policy_of(chain, logits), bound(chain, logits)
