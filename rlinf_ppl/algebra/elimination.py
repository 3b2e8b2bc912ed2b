"""One elimination for all answers: walk the sites of a step from last to first, holding one message W.

    start        W = V_next(next state)
    optimality   W <- W + log p(O | parents)
    chance x     W <- E_x W                                   solve, evaluate: the true dynamics
                 W <- (1 / tau) log E_x exp(tau W)            condition: the exact posterior
    decision d   q(d | scope) = p exp(tau W) / Z,  W <- (1 / tau) log Z       solve, condition
                 W <- E_q[W - (1 / tau) log(q / p)]                           evaluate a given q
    what is left is V.

The three answers are three sets of `Rules`, and nothing here knows which algebra the messages belong to. A discount
is no rule at all: it is the chance site `alive` between two steps, with 0 for the message of the dead.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from rlinf_ppl.algebra.fixed_point import fixed_point
from rlinf_ppl.algebra.messages import TIME, Law, Message, at, at_time, by_time, stacked, with_array


class Site(eqx.Module):
    """One site of a step: a decision or chance site with its law, or an optimality factor with its log probability."""

    name: str = eqx.field(static=True)
    kind: str = eqx.field(static=True)
    content: Law | Message
    inverse_temperature: Message | None = None


class Slice(eqx.Module):
    """The sites of `initial` or `step` in program order, and how the next state depends on them: an `Arrival`.

    An arrival with other methods decides the algebra of a walk, since the walk starts from the message that it pulls.
    """

    sites: tuple[Site, ...]
    arrival: Any


class Chain(eqx.Module):
    """A program read as laws and factors: structure static, arrays leaves.

    Attributes:
        initial: chance sites that lead to the first state.
        step: one step; what varies with time has a leading time axis of length `horizon`.
        final: optimality factors of the last state.
        alive: the chance site before every step but the first, or None without a discount.
        valid: whether every law is a distribution, every factor finite, every next value inside its support.
        horizon: the number of steps T; None: without end.
        state: the state variables in order.
        carried: those of them that the value depends on.
        scopes: for each decision the variables that its policy depends on.
        sizes: number of values, or of coordinates, of each state variable and site.
        zero: the message of nothing to come.
    """

    initial: Slice
    step: Slice
    final: tuple[Site, ...]
    alive: Site | None
    valid: Array
    horizon: int | None = eqx.field(static=True)
    state: tuple[str, ...] = eqx.field(static=True)
    carried: tuple[str, ...] = eqx.field(static=True)
    scopes: tuple[tuple[str, tuple[str, ...]], ...] = eqx.field(static=True)
    sizes: tuple[tuple[str, int], ...] = eqx.field(static=True)
    zero: Message

    @property
    def times(self) -> tuple[str, ...]:
        """The axis that tables over time lead with: none where a horizon without end has one table for all times."""
        return () if self.horizon is None else (TIME,)

    def size(self) -> dict[str, int]:
        """Number of values or coordinates of each state variable and site, and of times."""
        return dict(self.sizes) | ({} if self.horizon is None else {TIME: self.horizon})

    def axes(self) -> dict[str, tuple[str, ...]]:
        """For each decision the axes of its policy: scope, then its own."""
        return {name: (*scope, name) for name, scope in self.scopes}

    def priors(self) -> dict[str, Law]:
        """The decisions' priors."""
        return {site.name: site.content for site in self.step.sites if site.kind == "decision"}


class Rules(NamedTuple):
    """What the walk does at a chance site, and at a decision, where it also gives the policy in use there."""

    chance: Callable[[Site, Message], Message]
    decision: Callable[[Site, Message], tuple[Message, Law]]


class Walked(NamedTuple):
    """What walking all steps gives.

    Attributes:
        values: the messages V_0..V_T over the carried state variables, stacked; without end the one message V.
        kept: what was kept of each walk, stacked over T steps.
        residual: how far V is from what a further step makes of it, 0 at a finite horizon.
        error_bound: how far V may be from the fixed point, rounding included; 0 at a finite horizon.
        steps: how many steps were walked, or how many Newton steps and sweeps were made.
    """

    values: Message
    kept: Any
    residual: Array
    error_bound: Array
    steps: Array

    @property
    def first(self) -> Message:
        """The message of the first state."""
        return at(self.values, 0) if self.values.timed else self.values


class Found(NamedTuple):
    """What a walk met: the policy at each decision, and the message at each latent site before it was eliminated."""

    policy: dict[str, Law]
    message: dict[str, Message]


def solve_rules() -> Rules:
    """Average chance, take the soft maximum over decisions: the best policy under the true dynamics."""

    def decision(site: Site, w: Message) -> tuple[Message, Law]:
        return w.tilt(site.content, site.inverse_temperature)

    return Rules(lambda site, w: w.mean(site.content), decision)


def condition_rules(tau: Message | None) -> Rules:
    """Condition every site on optimality, all at the common inverse temperature `tau` (None: 1)."""

    def decision(site: Site, w: Message) -> tuple[Message, Law]:
        return w.tilt(site.content, tau)

    return Rules(lambda site, w: w.log_mean(site.content, tau), decision)


def evaluate_rules(choose: Callable[[Site], tuple[Law, Message]]) -> Rules:
    """Average chance and decisions under given policies; `choose` gives a q and what leaving the prior costs it."""

    def decision(site: Site, w: Message) -> tuple[Message, Law]:
        q, cost = choose(site)
        return w.mean(q) - cost.divided(site.inverse_temperature), q

    return Rules(lambda site, w: w.mean(site.content), decision)


def expectation_rules(policy: dict[str, Law]) -> Rules:
    """Plain expectation under a policy: no cost of deviating from the prior."""
    return Rules(lambda site, w: w.mean(site.content), lambda site, w: (w.mean(policy[site.name]), policy[site.name]))


def walk(
    sites: tuple[Site, ...], w: Message, rules: Rules, added: dict[str, Message] | None = None
) -> tuple[Message, Found]:
    """Eliminate `sites` from last to first; `added` are factors put in just before a decision is eliminated."""
    found = Found({}, {})
    for site in reversed(sites):
        if site.kind == "optimality":
            w = w + site.content
            continue
        if added is not None and site.name in added:
            w = w + added[site.name]
        found.message[site.name] = w.whole
        if site.kind == "chance":
            w = rules.chance(site, w)
        else:
            w, found.policy[site.name] = rules.decision(site, w)
    return w, found


def backward(
    chain: Chain,
    rules: Callable[[Any], Rules],
    given: Any = None,
    found: Callable[[Found], Any] | None = None,
    tolerance: Array | None = None,
) -> Walked:
    """Walk all steps from the last to the first; without a last one, find the message that a step leaves as it is.

    Args:
        chain: the program.
        rules: makes the rules of one step from this step's slice of `given`.
        given: a pytree of tables with the leading axes `chain.times`, or None.
        found: picks what to keep of what each walk found; None keeps nothing.
        tolerance: without end, the relative error to aim for; None: about as good as the dtype allows.
    """
    if chain.horizon is None:
        return endless(chain, rules(given), found, tolerance)
    size = chain.size()
    last = walk(chain.final, chain.zero, expectation_rules({}))[0].over(chain.carried, size)
    varying, constant = by_time(represented(chain))

    def body(v: Message, now: Any) -> tuple[Message, Any]:
        step, here = at_time(eqx.combine(now[0], constant)), rules(at_time(now[1]))
        w, met = through(step, survive(chain, step.arrival.following(v), here), here)
        v = w.over(chain.carried, size)
        return v, (v.array, None if found is None else found(met))

    _, (values, kept) = lax.scan(body, last, (varying, given), length=chain.horizon, reverse=True)
    every = stacked(last, jnp.concatenate([values, last.array[None]]))
    return Walked(every, kept, jnp.zeros(()), jnp.zeros(()), jnp.asarray(float(chain.horizon)))


def endless(chain: Chain, rules: Rules, found: Callable[[Found], Any] | None, tolerance: Array | None) -> Walked:
    """The message that one more step leaves as it is."""
    size, step = chain.size(), represented(chain)

    nothing = chain.zero.over(chain.carried, size)

    def pulled(v: Array) -> Message:
        return step.arrival.pull(survive(chain, step.arrival.following(with_array(nothing, v)), rules))

    def walked(w: Message) -> tuple[Array, Found]:
        v, met = walk(step.sites, w, rules)
        return v.over(chain.carried, size).array, met

    def value(w: Message) -> Array:
        return walked(w)[0]

    precision = float(jnp.finfo(nothing.array.dtype).eps)
    goal = jnp.asarray(precision**0.75) if tolerance is None else tolerance
    solved = fixed_point(
        lambda v: value(pulled(v)),
        nothing.array,
        goal,
        lambda v: step.arrival.linearized(pulled, value, v),
        nothing.monotone,
    )
    kept = None if found is None else found(walked(pulled(solved.value))[1])
    return Walked(with_array(nothing, solved.value), kept, solved.residual, solved.error_bound, solved.steps)


def represented(chain: Chain) -> Slice:
    """The step with messages in the form that is walked fastest."""
    size = chain.size()
    state = {name: size[name] for name in chain.carried}
    others = {site.name: size[site.name] for site in chain.step.sites if site.kind != "optimality"}
    return Slice(*chain.step.arrival.represented(chain.step.sites, state, others, chain.horizon is None))


def through(part: Slice, v: Message, rules: Rules, added: dict[str, Message] | None = None) -> tuple[Message, Found]:
    """The message before a slice from the message `v` of the state that it leads to."""
    return walk(part.sites, part.arrival.pull(v), rules, added)


def survive(chain: Chain, v: Message, rules: Rules) -> Message:
    """The message of the next state by the chance to be alive there; the dead have the message 0."""
    return v if chain.alive is None else rules.chance(chain.alive, v.gated(chain.alive.name))


def start(chain: Chain, v: Message, rules: Rules) -> Array:
    """The message V_0 averaged over the first state by the rules: a scalar."""
    return through(chain.initial, v, rules)[0].constant
