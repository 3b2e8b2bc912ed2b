"""Variational inference with the exact ELBO: fits a program's guide, q(d | scope) = p exp(theta) / Z at each time.

The ELBO and its gradients come from the elimination, without sampling. The natural gradient of the ELBO in the logits
theta is, at every time and every value of the scope, whether visited or not,

    tau Q^pi - theta,         Q^pi the message that the current policy of the later decisions leaves

so a step of size 1 at all times together is soft policy iteration: every sweep improves the policy everywhere, and
the closed form is its fixed point (Kakade 2001, A natural policy gradient; Levine 2018, section 3.2). Any optax
optimiser can take its place; its gradients vanish where the policy itself does not go, and for what a sparse policy
leaves out, and there it learns nothing.

A decision with a negative inverse temperature descends the ELBO that the others ascend, one with 0 stays at its prior.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from rlinf_ppl import algebra
from rlinf_ppl.algebra import Chain, Found, Law, Message, Site, at_time, by_time
from rlinf_ppl.algebra.messages import stacked, with_array
from rlinf_ppl.inference import answers
from rlinf_ppl.inference.arguments import check_count, check_key, check_tolerance
from rlinf_ppl.inference.policies import as_found, laws_of
from rlinf_ppl.inference.progress import progress_bar
from rlinf_ppl.program import ControlProgram, read

Logits = dict[str, Float[Array, "T ..."]]

STEPS_AT_ONCE = 100
VERDICT_EVERY = 10
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


class Update(NamedTuple):
    """One way to improve the logits: (chain, logits, memory, steps) -> (logits, memory, loss, residual)."""

    initial: Callable[[Logits], Any]
    step: Callable[..., tuple[Logits, Any, Array, Array]]


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
        program: any tabular step program.
        key: a JAX random key, for the action values to start from (normal, standard deviation 0.1).
        num_steps: the most steps to run.
        optimizer: an optax optimiser of the plain gradient; None: the natural gradient.
        step_size: of the natural gradient, in (0, 1]; 1 is coordinate ascent. An optimiser brings its own. Where
            decisions do not see each other it is the first one, and is adapted.
        tolerance: stop once `residual` is at most this; default 1e-6, with an optimiser 1e-5. 0 runs every step.
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
    limit = jnp.asarray((1e-6 if optimizer is None else 1e-5) if tolerance is None else tolerance, dtype=float)
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


def bound(chain: Chain, logits: Logits) -> Float[Array, ""]:
    """The exact ELBO as a function of the logits."""
    walked = algebra.backward(chain, evaluated, given=messages(chain, logits))
    return algebra.start(chain, walked.first, algebra.solve_rules())


def evaluated(theta: dict[str, Message]) -> algebra.Rules:
    """The rules that evaluate one step's guide; log(q / p) = theta - log Z needs no log p, finite at p = 0.

    With any regularizer Omega(q) = <q, theta> - Omega*(theta), as theta is where q maximises it.
    """

    def choose(site: Site) -> tuple[Law, Message]:
        log_z, q = theta[site.name].tilt(site.content)
        return q, theta[site.name].mean(q) - log_z

    return algebra.evaluate_rules(choose)


def natural_target(chain: Chain, logits: Logits) -> tuple[Array, Logits]:
    """The ELBO, and for each decision tau Q^pi: the logits of the best reply to the current policy."""
    axes, size = chain.axes(), chain.size()

    def replies(found: Found) -> dict[str, Array]:
        return {name: found.message[name].over(axes[name], size).array for name in axes}

    walked = algebra.backward(chain, evaluated, given=messages(chain, logits), found=replies)
    return algebra.start(chain, walked.first, algebra.solve_rules()), tempered(chain, walked.kept)


def tempered(chain: Chain, action_values: dict[str, Array], of: Callable[[Array], Array] = jnp.asarray) -> Logits:
    """Action values in units of optimality as logits: multiplied by (a function of) each inverse temperature."""
    logits = dict(action_values)
    for site in chain.step.sites:
        if site.kind == "decision" and site.inverse_temperature is not None:
            tau, theta = of(site.inverse_temperature.constant), logits[site.name]
            logits[site.name] = tau.reshape(tau.shape + (1,) * (theta.ndim - tau.ndim)) * theta
    return logits


def natural_step(chain: Chain, logits: Logits, memory: Array, steps: Array) -> tuple[Logits, Array, Array, Array]:
    """Theta <- theta + step_size (tau Q^pi - theta) at all times together; the step size is the memory."""
    elbo, target = natural_target(chain, logits)
    change = changes(chain, logits, target)
    return moved_to(logits, target, logits, memory), memory, -elbo, change


def simultaneous_step(chain: Chain, logits: Logits, memory: Array, steps: Array) -> tuple[Logits, Array, Array, Array]:
    """The same by the gradient at the end of such a step, for decisions that do not see each other.

    Replies to each other's last policies may turn about the equilibrium for ever; replies to the next ones do not
    (Korpelevich 1976, The extragradient method), where a step is short against how fast replies change. Steps are
    halved until this one is (Khobotov 1987), and grow again slowly.
    """
    elbo, target = natural_target(chain, logits)
    change = changes(chain, logits, target)
    ahead = moved_to(logits, target, logits, memory)
    _, reply = natural_target(chain, ahead)
    apart = {name: ahead[name] - logits[name] for name in logits}
    turned = {name: apart[name] - reply[name] + target[name] for name in logits}
    steep = optax.global_norm(turned) * memory > 0.7 * optax.global_norm(apart)
    moved = moved_to(ahead, reply, logits, memory)
    kept = {name: jnp.where(steep, theta, moved[name]) for name, theta in logits.items()}
    return kept, jnp.where(steep, 0.5 * memory, jnp.minimum(1.05 * memory, 1.0)), -elbo, change


def moved_to(at: Logits, target: Logits, start: Logits, step_size: Array) -> Logits:
    """The logits `start`, moved by what leads from `at` to its target."""
    return {name: theta + step_size * (target[name] - at[name]) for name, theta in start.items()}


NATURAL = Update(lambda logits: None, natural_step)
SIMULTANEOUS = Update(lambda logits: None, simultaneous_step)


@functools.lru_cache(maxsize=64)
def by_optimizer(optimizer: optax.GradientTransformation) -> Update:
    """Steps of an optax optimiser on the negative ELBO; the same one for the same optimiser, to compile it once."""

    def step(chain: Chain, logits: Logits, memory: Any, steps: Array) -> tuple[Logits, Any, Array, Array]:
        loss, gradient = jax.value_and_grad(lambda logits: -bound(chain, logits))(logits)
        # Whoever minimises goes the other way, and an inverse temperature of 0 keeps the prior.
        gradient = tempered(chain, gradient, jnp.sign)
        change, memory = optimizer.update(gradient, memory, logits)
        moved = optax.apply_updates(logits, change)
        due = steps % VERDICT_EVERY == 0
        return moved, memory, loss, lax.cond(due, lambda: expected_gain(chain, moved), lambda: jnp.asarray(jnp.inf))

    return Update(optimizer.init, step)


def expected_gain(chain: Chain, logits: Logits) -> Float[Array, ""]:
    """KL in nats of the policy from its best reply, along the trajectories of the policy itself."""
    _, target = natural_target(chain, logits)
    q, best = (laws_of(chain, policy_of(chain, each)) for each in (logits, target))
    return answers.kl(chain, q, best)


def changes(chain: Chain, logits: Logits, target: Logits) -> Float[Array, ""]:
    """The largest difference between two policies, of a probability or of a coefficient, anywhere."""
    apart = jax.tree.map(lambda q, best: jnp.max(jnp.abs(q - best)), policy_of(chain, logits), policy_of(chain, target))
    return jnp.max(jnp.stack(jax.tree.leaves(apart)))


def policy_of(chain: Chain, logits: Logits) -> dict[str, Any]:
    """Q = p exp(theta) / Z over the whole scope, as users are given it."""
    varying, constant = by_time(chain.priors())

    def one(now: Any, theta: dict[str, Message]) -> dict[str, Any]:
        priors = at_time(eqx.combine(now, constant))
        return as_found(chain, {name: theta[name].tilt(priors[name])[1] for name in theta})

    if chain.horizon is None:
        return one(varying, messages(chain, logits))
    return jax.vmap(lambda now, theta: one(now, at_time(theta)))(varying, messages(chain, logits))


def messages(chain: Chain, logits: Logits) -> dict[str, Message]:
    """Logits as messages over time, scope and the decision itself."""
    size = chain.size()
    make = with_array if chain.horizon is None else stacked
    return {name: make(chain.zero.over(axes, size), logits[name]) for name, axes in chain.axes().items()}
