"""How a fit improves a guide: steps of the natural gradient of the exact ELBO, or of an optimiser on any loss.

Where decisions do not see all that matters to them, they reply one after the other. Each is an `Update`, compiled into
the loop of `svi.fit`. What a step needs of the steps before it, beside the guide, is its memory.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from rlinf_ppl.algebra import Chain, Site, Table
from rlinf_ppl.inference.fitting.guides import Logits, bound, natural_target, policy_of, replies
from rlinf_ppl.inference.fitting.losses import ExactELBO, ProgramELBO

EXACT = ExactELBO()


class Update(NamedTuple):
    """One way to improve a guide.

    Attributes:
        name: what it is called in a saved fit.
        loss: what it improves; it reads the program, says what to start from, and sums up.
        initial: (target, guide, key, step size) -> memory; the target is what the loss read of the program.
        step: (target, guide, memory, steps) -> (guide, memory, loss, residual); `steps` counts this one.
        key: memory -> the random key of draws that sum up.
    """

    name: str
    loss: ProgramELBO
    initial: Callable[[Any, Any, Array, Array], Any]
    step: Callable[..., tuple[Any, Any, Array, Array]]
    key: Callable[[Any], Array]


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


@functools.lru_cache(maxsize=64)
def by_replies(schedule: tuple[float, ...], endless: bool) -> Update:
    """Coordinate ascent of the exact ELBO for decisions that do not see all; the same one for the same schedule.

    With an end a step is a sweep of best replies from the last decision to the first. Without one a decision is the
    same at all times, and a step is one of the natural gradient, halved until the ELBO does not fall. In the first
    steps all inverse temperatures are multiplied by the schedule, and there is no verdict.
    """
    factors = np.array([*schedule, 1.0])

    def step(chain: Chain, logits: Logits, memory: Array, steps: Array) -> tuple[Logits, Array, Array, Array]:
        warm = warmed(chain, jnp.asarray(factors)[jnp.minimum(steps, len(factors)) - 1]) if schedule else chain
        elbo = bound(chain, logits)
        if endless:
            value, best = natural_target(warm, logits)
            ahead = moved_to(logits, best, logits, memory)
            # A value without end has lost digits in proportion to the time that it looks ahead.
            assert chain.alive is not None
            ahead_of_it = 1 / jnp.maximum(chain.survival[0], jnp.finfo(value.dtype).eps)
            slack = 4 * jnp.finfo(value.dtype).eps * ahead_of_it * jnp.maximum(1.0, jnp.abs(value))
            rose = bound(warm, ahead) >= value - slack
            moved = {name: jnp.where(rose, ahead[name], theta) for name, theta in logits.items()}
            memory = jnp.where(rose, jnp.minimum(1.5 * memory, 1.0), 0.5 * memory)
        else:
            moved = best = replies(warm, logits)
        due = (steps > len(schedule)) & ascends(chain)
        residual = jnp.where(due, changes(chain, logits, best), jnp.inf)
        return moved, memory, -elbo, residual

    return Update(f"replies after {len(schedule)} tempered ones", EXACT, first_step_size, step, no_draws)


def ascends(chain: Chain) -> Bool[Array, ""]:
    """Whether no decision minimises what the others maximise."""
    taus = [site.inverse_temperature for site in chain.step.sites if site.kind == "decision"]
    known = [jnp.all(tau.constant >= 0) for tau in taus if tau is not None]
    return jnp.all(jnp.stack([jnp.asarray(True), *known]))


def warmed(chain: Chain, factor: Array) -> Chain:
    """The program with all inverse temperatures multiplied by a factor."""

    def one(site: Site) -> Site:
        if site.kind != "decision":
            return site
        tau = site.inverse_temperature
        found = Table((), factor) if tau is None else tau.renewed(factor * tau.array)
        return dataclasses.replace(site, inverse_temperature=found)

    return dataclasses.replace(chain, step=dataclasses.replace(chain.step, sites=tuple(map(one, chain.step.sites))))


def moved_to(at: Logits, target: Logits, start: Logits, step_size: Array) -> Logits:
    """The logits `start`, moved by what leads from `at` to its target."""
    return {name: theta + step_size * (target[name] - at[name]) for name, theta in start.items()}


def length(logits: Logits) -> Float[Array, ""]:
    """The Euclidean norm of all logits together."""
    return jnp.sqrt(sum((jnp.sum(theta**2) for theta in logits.values()), jnp.zeros(())))


def first_step_size(chain: Chain, logits: Logits, key: Array, step_size: Array) -> Array:
    """What the natural gradient remembers: how long its steps are."""
    return step_size


def apart(memory: Any) -> Array:
    """A random key of an optimiser's memory that no step draws with: each splits the one that is remembered."""
    return jax.random.fold_in(memory[2], 2**31 - 1)


def no_draws(memory: Any) -> Array:
    """The random key of what draws nothing."""
    return jax.random.key(0)


NATURAL = Update("the natural gradient", EXACT, first_step_size, natural_step, no_draws)
SIMULTANEOUS = Update("the natural gradient", EXACT, first_step_size, simultaneous_step, no_draws)


@functools.lru_cache(maxsize=64)
def by_optimizer(optimizer: optax.GradientTransformation, loss: ProgramELBO = EXACT) -> Update:
    """Steps of an optax optimiser on a loss; the same one for the same two, to compile it once.

    The memory is the optimiser's, what the loss carries along, the key of the draws to come, and the latest losses.
    """

    def initial(target: Any, guide: Any, key: Array, step_size: Array) -> Any:
        recent = jnp.full(loss.window, jnp.inf) if loss.window else None
        return optimizer.init(guide), loss.prepare(target, guide, key), key, recent

    def step(target: Any, guide: Any, memory: Any, steps: Array) -> tuple[Any, Any, Array, Array]:
        inner, carried, key, recent = memory
        key, draw_key = jax.random.split(key)
        value, direction, carried = loss.descent(target, guide, carried, draw_key)
        change, inner = optimizer.update(direction, inner, guide)
        moved = optax.apply_updates(guide, change)
        recent = None if recent is None else jnp.roll(recent, -1).at[-1].set(value)
        return moved, (inner, carried, key, recent), value, loss.residual(target, moved, recent, steps, carried)

    return Update(f"an optimizer on {loss!r}", loss, initial, step, apart)


def changes(chain: Chain, logits: Logits, target: Logits) -> Float[Array, ""]:
    """The largest difference between two policies, of a probability or of a coefficient, anywhere."""
    apart = jax.tree.map(lambda q, best: jnp.max(jnp.abs(q - best)), policy_of(chain, logits), policy_of(chain, target))
    return jnp.max(jnp.stack(jax.tree.leaves(apart)))
