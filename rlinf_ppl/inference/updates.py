"""How a fit improves the logits of a guide: steps of the natural gradient of the exact ELBO, or of an optimiser.

Each is an `Update`, compiled into the loop of `svi.fit`. What a step needs of the steps before it, beside the logits,
is its memory.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

from rlinf_ppl.algebra import Chain
from rlinf_ppl.inference import answers
from rlinf_ppl.inference.guides import Logits, natural_target, policy_of, tempered
from rlinf_ppl.inference.losses import ExactELBO, ProgramELBO
from rlinf_ppl.inference.policies import laws_of

VERDICT_EVERY = 10
EXACT = ExactELBO()


class Update(NamedTuple):
    """One way to improve the logits.

    Attributes:
        name: what it is called in a saved fit.
        initial: (logits, key, step size) -> memory.
        step: (chain, logits, memory, steps) -> (logits, memory, loss, residual); `steps` counts this one.
    """

    name: str
    initial: Callable[[Logits, Array, Array], Any]
    step: Callable[..., tuple[Logits, Any, Array, Array]]


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


NATURAL = Update("the natural gradient", lambda logits, key, step_size: step_size, natural_step)
SIMULTANEOUS = Update("the natural gradient", lambda logits, key, step_size: step_size, simultaneous_step)


@functools.lru_cache(maxsize=64)
def by_optimizer(optimizer: optax.GradientTransformation, loss: ProgramELBO = EXACT) -> Update:
    """Steps of an optax optimiser on a loss; the same one for the same two, to compile it once.

    The memory is the optimiser's, and the key of the draws that are still to come.
    """

    def step(chain: Chain, logits: Logits, memory: Any, steps: Array) -> tuple[Logits, Any, Array, Array]:
        inner, key = memory
        key, draw_key = jax.random.split(key)
        value, gradient = jax.value_and_grad(lambda logits: -loss.estimate(chain, logits, draw_key))(logits)
        # Whoever minimises goes the other way, and an inverse temperature of 0 keeps the prior.
        gradient = tempered(chain, gradient, jnp.sign)
        change, inner = optimizer.update(gradient, inner, logits)
        moved = optax.apply_updates(logits, change)
        due = steps % VERDICT_EVERY == 0
        verdict = lax.cond(due, lambda: expected_gain(chain, moved), lambda: jnp.asarray(jnp.inf))
        return moved, (inner, key), value, verdict

    return Update(f"an optimizer on {loss!r}", lambda logits, key, step_size: (optimizer.init(logits), key), step)


def expected_gain(chain: Chain, logits: Logits) -> Float[Array, ""]:
    """KL in nats of the policy from its best reply, along the trajectories of the policy itself."""
    _, target = natural_target(chain, logits)
    q, best = (laws_of(chain, policy_of(chain, each)) for each in (logits, target))
    return answers.kl(chain, q, best)


def changes(chain: Chain, logits: Logits, target: Logits) -> Float[Array, ""]:
    """The largest difference between two policies, of a probability or of a coefficient, anywhere."""
    apart = jax.tree.map(lambda q, best: jnp.max(jnp.abs(q - best)), policy_of(chain, logits), policy_of(chain, target))
    return jnp.max(jnp.stack(jax.tree.leaves(apart)))
