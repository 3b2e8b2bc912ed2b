"""One bounded problem after the other, each about what was seen under the last policy.

The last policy is the prior of the next problem, which lets the new one move only so far. Where the cost of the real
system rises all the same, the bound is halved and the problem solved again; what it was halved to is doubled in the
next iteration.
"""

from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.algebra.quadratics import AffinePolicy
from rlinf_ppl.inference.local.knowledge import Knowledge, Observed
from rlinf_ppl.inference.local.program import local_program
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.tasks import Dynamics


class Step(NamedTuple):
    """What a bounded problem answers.

    Attributes:
        policy: the new one.
        kl: of it from the last one at each step, (T,), in nats.
        inverse_temperature: 1 / alpha, of the bound on the KL, one number or (T,).
        log_temperature: about where the next search begins.
        solved: whether the policy is within its bounds.
    """

    policy: AffinePolicy
    kl: Float[Array, " T"]
    inverse_temperature: Float[Array, "..."]
    log_temperature: Float[Array, ""]
    solved: Bool[Array, ""]


class Problem(eqx.Module):
    """A bounded problem about a trajectory."""

    @abstractmethod
    def solve(self, program: ControlProgram, scale: Float[Array, ""], start: Float[Array, ""]) -> Step:
        """The policy within the bounds times a scale; `start` is the log of a temperature to begin at."""


class Iterate(NamedTuple):
    """Where the loop is.

    Attributes:
        policy: the last one.
        seen: what was seen under it.
        scale: of the bounds.
        log_temperature: about where the next search begins.
    """

    policy: AffinePolicy
    seen: Observed
    scale: Float[Array, ""]
    log_temperature: Float[Array, ""]


class Record(NamedTuple):
    """What is kept of each iteration."""

    cost: Float[Array, " I"]
    kl: Float[Array, "I T"]
    inverse_temperature: Float[Array, "I ..."]
    scale: Float[Array, " I"]
    accepted: Bool[Array, " I"]


@compiled
def improve(
    dynamics: Dynamics,
    knowledge: Knowledge,
    problem: Problem,
    start: AffinePolicy,
    num_iterations: int,
    num_halvings: int,
) -> tuple[Iterate, Float[Array, ""], Record]:
    """Iterate; the last policy, the cost of the first one, and what happened."""
    seen = knowledge.observe(dynamics, start, jnp.zeros((), int))
    first = Iterate(start, seen, jnp.ones(()), jnp.zeros(()))

    def body(at: Iterate, i: Array) -> tuple[Iterate, Record]:
        return iterate(dynamics, knowledge, problem, at, i, num_halvings)

    last, record = lax.scan(body, first, 1 + jnp.arange(num_iterations))
    return last, seen.mean.cost, record


def iterate(
    dynamics: Dynamics, knowledge: Knowledge, problem: Problem, at: Iterate, i: Array, num_halvings: int
) -> tuple[Iterate, Record]:
    """One iteration."""
    expansion = knowledge.expand(dynamics, at.seen)
    program = local_program(expansion, at.policy)

    def attempt(scale: Array) -> tuple[Step, Observed]:
        found = problem.solve(program, scale, at.log_temperature)
        return found, knowledge.observe(dynamics, found.policy, i)

    def good(step: Step, seen: Observed) -> Bool[Array, ""]:
        finite = jnp.all(jnp.isfinite(seen.mean.cost)) & jnp.all(jnp.isfinite(step.policy.cov))
        return step.solved & finite & ((seen.mean.cost <= at.seen.mean.cost) | (num_halvings == 0))

    scale = jnp.minimum(1.0, 2 * at.scale)
    if num_halvings == 0:
        step, seen = attempt(scale)
    else:
        # The first attempt is made in the loop, too: it is compiled once.
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(attempt, scale))
        state = jnp.zeros((), int), 2 * scale, nothing, jnp.asarray(False)

        def body(state: Any) -> Any:
            found = attempt(state[1] / 2)
            return state[0] + 1, state[1] / 2, found, good(*found)

        _, scale, (step, seen), _ = lax.while_loop(lambda s: ~s[3] & (s[0] <= num_halvings), body, state)
    accepted = good(step, seen)
    after = Iterate(step.policy, seen, scale, step.log_temperature)
    kept = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), after, at._replace(scale=scale))
    return kept, Record(kept.seen.mean.cost, step.kl, step.inverse_temperature, scale, accepted)
