"""How a fit improves the logits of a guide: steps of the natural gradient of the exact ELBO, or of an optimiser.

Each is an `Update`, compiled into the loop of `svi.fit`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

from rlinf_ppl import algebra
from rlinf_ppl.algebra import Chain, Found, Law, Message, Site, at_time, by_time
from rlinf_ppl.algebra.messages import stacked, with_array
from rlinf_ppl.inference import answers
from rlinf_ppl.inference.policies import as_found, laws_of

Logits = dict[str, Float[Array, "T ..."]]

VERDICT_EVERY = 10


class Update(NamedTuple):
    """One way to improve the logits: (chain, logits, memory, steps) -> (logits, memory, loss, residual)."""

    initial: Callable[[Logits], Any]
    step: Callable[..., tuple[Logits, Any, Array, Array]]


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
    steep = length(turned) * memory > 0.7 * length(apart)
    moved = moved_to(ahead, reply, logits, memory)
    kept = {name: jnp.where(steep, theta, moved[name]) for name, theta in logits.items()}
    return kept, jnp.where(steep, 0.5 * memory, jnp.minimum(1.05 * memory, 1.0)), -elbo, change


def moved_to(at: Logits, target: Logits, start: Logits, step_size: Array) -> Logits:
    """The logits `start`, moved by what leads from `at` to its target."""
    return {name: theta + step_size * (target[name] - at[name]) for name, theta in start.items()}


def length(logits: Logits) -> Float[Array, ""]:
    """The Euclidean norm of all logits together."""
    return jnp.sqrt(sum((jnp.sum(theta**2) for theta in logits.values()), jnp.zeros(())))


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
