"""One elimination for all answers: walk the sites of a step from last to first, holding one message W.

    start        W = V_next(next state)
    optimality   W <- W + log p(O | parents)
    chance x     W <- E_x W                                   solve, evaluate: the true dynamics
                 W <- (1 / tau) log E_x exp(tau W)            condition: the exact posterior
    decision d   q(d | scope) = p exp(tau W) / Z,  W <- (1 / tau) log Z       solve, condition
                 W <- E_q[W - (1 / tau) log(q / p)]                           evaluate a given q
    decisions that do not see each other: the fixed point of such q            solve (see `equilibrium`)
    what is left is V.

The three answers are three sets of `Rules`, and nothing here knows which algebra the messages belong to. A discount
is no rule at all: it is the chance site `alive` between two steps, with 0 for the message of the dead.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from rlinf_ppl.algebra.chain import Chain, Site, Slice
from rlinf_ppl.algebra.fixed_point import FixedPoint
from rlinf_ppl.algebra.messages import Integrand, Law, Message, Whole
from rlinf_ppl.algebra.times import at_time, by_time


class Rules(NamedTuple):
    """What the walk does at a chance site, and at a decision, where it also gives the policy in use there.

    `together` eliminates decisions that do not see each other, last one first: it gives the message, their policies
    and how far these are from the replies to each other. None: one after the other, each as a `decision`.
    """

    chance: Callable[[Site, Integrand], Message]
    decision: Callable[[Site, Message], tuple[Message, Law]]
    together: Callable[[tuple[Site, ...], Message], tuple[Message, tuple[Law, ...], Array]] | None = None


class Walked(NamedTuple):
    """What walking all steps gives.

    Attributes:
        values: the messages V_0..V_T over the carried state variables, stacked; without end the one message V.
        first: the message V_0 of the first state, with what its algebra has counted; without end V.
        kept: what was kept of each walk, stacked over T steps.
        residual: how far V is from what a further step makes of it, 0 at a finite horizon; or how far decisions that
            do not see each other are from their replies, where that is more.
        error_bound: how far V may be from the fixed point, rounding included; 0 at a finite horizon.
        steps: how many steps were walked, or how many Newton steps and sweeps were made.
    """

    values: Whole
    first: Whole
    kept: Any
    residual: Array
    error_bound: Array
    steps: Array


class Found(NamedTuple):
    """What a walk met.

    Attributes:
        policy: the policy at each decision.
        message: the message at each latent site before it was eliminated, averaged over the decisions it does not see.
        residuals: of the decisions that do not see each other, how far they are from their replies.
    """

    policy: dict[str, Law]
    message: dict[str, Message]
    residuals: list[Array]


def solve_rules() -> Rules:
    """Average chance, take the soft maximum over decisions: the best policy under the true dynamics."""

    def decision(site: Site, w: Message) -> tuple[Message, Law]:
        return w.tilt(site.law, site.inverse_temperature)

    def together(sites: tuple[Site, ...], w: Message) -> tuple[Message, tuple[Law, ...], Array]:
        return w.equilibrium(tuple(s.law for s in sites), tuple(s.inverse_temperature for s in sites))

    return Rules(lambda site, w: w.mean(site.law), decision, together)


def condition_rules(tau: Whole | None) -> Rules:
    """Condition every site on optimality, all at the common inverse temperature `tau` (None: 1)."""

    def decision(site: Site, w: Message) -> tuple[Message, Law]:
        return w.tilt(site.law, tau)

    return Rules(lambda site, w: w.log_mean(site.law, tau), decision)


def evaluate_rules(choose: Callable[[Site], tuple[Law, Whole]]) -> Rules:
    """Average chance and decisions under given policies; `choose` gives a q and what leaving the prior costs it."""

    def decision(site: Site, w: Message) -> tuple[Message, Law]:
        q, cost = choose(site)
        return w.mean(q) - cost.divided(site.inverse_temperature), q

    return Rules(lambda site, w: w.mean(site.law), decision)


def expectation_rules(policy: Mapping[str, Law]) -> Rules:
    """Plain expectation under a policy: no cost of deviating from the prior."""
    return Rules(lambda site, w: w.mean(site.law), lambda site, w: (w.mean(policy[site.name]), policy[site.name]))


def walk(
    sites: tuple[Site, ...], w: Message, rules: Rules, added: dict[str, Message] | None = None
) -> tuple[Message, Found]:
    """Eliminate `sites` from last to first; `added` are factors put in just before a decision is eliminated.

    A site that is taken `together` with others takes these along: they stand just before it, and all see the same.
    """
    found, left = Found({}, {}, []), list(sites)
    while left:
        site = left.pop()
        if site.is_factor:
            w = w + site.factor
            continue
        block = (site, *(left.pop() for _ in site.together))
        for one in block:
            w = w + added[one.name] if added is not None and one.name in added else w
        before = w
        if site.kind == "chance":
            w = rules.chance(site, w)
        elif len(block) > 1 and rules.together is not None:
            w, laws, residual = rules.together(block, w)
            found.policy.update({one.name: law for one, law in zip(block, laws, strict=True)})
            found.residuals.append(residual)
        else:
            for one in block:
                w, found.policy[one.name] = rules.decision(one, w)
        for one in block:
            others = (found.policy[other.name] for other in block if other is not one)
            found.message[one.name] = functools.reduce(lambda w, law: w.mean(law), others, before)
    return w, found


def backward(
    chain: Chain,
    rules: Callable[[Any], Rules],
    given: Any = None,
    found: Callable[[Found], Any] | None = None,
    tolerance: Array | None = None,
    start: Array | None = None,
) -> Walked:
    """Walk all steps from the last to the first; without a last one, find the message that a step leaves as it is.

    Args:
        chain: the program.
        rules: makes the rules of one step from this step's slice of `given`.
        given: a pytree of tables with the leading axes `chain.times`, or None.
        found: picks what to keep of what each walk found; None keeps nothing.
        tolerance: without end, the relative error to aim for; None: about as good as the dtype allows.
        start: without end, values to begin at, over the carried state variables; None: 0.
    """
    if chain.horizon is None:
        return endless(chain, rules(given), found, tolerance, start)
    size = chain.size()
    last = walk(chain.final, chain.zero, expectation_rules({}))[0].over(chain.carried, size)
    varying, constant = by_time(chain.step)

    def body(v: Whole, now: Any) -> tuple[Whole, Any]:
        step, here = at_time(eqx.combine(now[0], constant)), rules(at_time(now[1]))
        w, met = through(step, survive(chain, step.arrival.following(v), here), here)
        v = w.over(chain.carried, size)
        return v, (v.array, None if found is None else found(met), met.residuals)

    first, (values, kept, residuals) = lax.scan(body, last, (varying, given), length=chain.horizon, reverse=True)
    every = last.stacked(jnp.concatenate([values, last.array[None]]))
    return Walked(every, first, kept, worst(residuals), jnp.zeros(()), jnp.asarray(float(chain.horizon)))


def endless(
    chain: Chain,
    rules: Rules,
    found: Callable[[Found], Any] | None,
    tolerance: Array | None,
    start: Array | None = None,
) -> Walked:
    """The message that one more step leaves as it is."""
    size, step = chain.size(), chain.step
    nothing = chain.zero.over(chain.carried, size)

    def pulled(v: Array) -> Message:
        return step.arrival.pull(survive(chain, step.arrival.following(nothing.renewed(v)), rules))

    def walked(w: Message) -> tuple[Whole, Found]:
        v, met = walk(step.sites, w, rules)
        return v.over(chain.carried, size), met

    def value(w: Message) -> Array:
        return walked(w)[0].array

    precision = float(jnp.finfo(nothing.array.dtype).eps)
    goal = jnp.asarray(precision**0.75) if tolerance is None else tolerance
    solved = FixedPoint.of(
        lambda v: value(pulled(v)),
        nothing.array if start is None else lax.stop_gradient(start),
        goal,
        lambda v: step.arrival.linearized(pulled, value, v, chain.carried),
        nothing.monotone,
    )
    again, met = walked(pulled(solved.value))
    kept, residual = None if found is None else found(met), jnp.maximum(solved.residual, worst(met.residuals))
    first = eqx.tree_at(lambda v: v.array, again, solved.value)
    return Walked(nothing.renewed(solved.value), first, kept, residual, solved.error_bound, solved.steps)


def worst(residuals: list[Array]) -> Array:
    """The largest of all residuals, 0 where there are none."""
    return functools.reduce(jnp.maximum, [jnp.max(residual) for residual in residuals], jnp.zeros(()))


def through(part: Slice, v: Message, rules: Rules, added: dict[str, Message] | None = None) -> tuple[Message, Found]:
    """The message before a slice from the message `v` of the state that it leads to."""
    return walk(part.sites, part.arrival.pull(v), rules, added)


def survive(chain: Chain, v: Message, rules: Rules) -> Message:
    """The message of the next state by the chance to be alive there; the dead have the message 0."""
    return v if chain.alive is None else rules.chance(chain.alive, v.gated(chain.alive.name))


def start(chain: Chain, v: Message, rules: Rules) -> Array:
    """The message V_0 averaged over the first state by the rules: a scalar."""
    return through(chain.initial, v, rules)[0].whole.constant
