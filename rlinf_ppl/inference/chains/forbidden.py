"""Policies that do what a prior forbids: an infinite cost, kept apart from the finite numbers.

An infinite cost in a state that is never reached would meet its probability 0 in a sum, and give NaN. So the walks add
up what is finite, with 0 for what is forbidden, and a second walk finds from where anything forbidden is reached with
a positive probability. It holds zeros and ones only, so that no probability is too small for it. Only finite variables
can be forbidden anything: the cost of a Gaussian law is finite.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

from rlinf_ppl import algebra
from rlinf_ppl.algebra import TIME, Chain, Conditional, Law, Message, Site, Table, Whole
from rlinf_ppl.algebra.elimination import survive
from rlinf_ppl.algebra.messages import Integrand
from rlinf_ppl.algebra.regularizers import kl
from rlinf_ppl.algebra.tables import union
from rlinf_ppl.algebra.times import where_timed


def cost_of(prior: Law, q: Law, tau: Whole | None = None) -> tuple[Whole, Table | None]:
    """What it costs to follow q, 0 where that is infinite, and where it is; None where it cannot be.

    Args:
        prior: the law that is left.
        q: the law that is followed.
        tau: what the cost is divided by; at 0 every cost is infinite.
    """
    if not isinstance(prior, Conditional):
        return prior.cost(q), None
    assert isinstance(q, Conditional)
    axes = (*(name for name in union(prior.table.axes, q.table.axes) if name != prior.name), prior.name)
    p, own = prior.table.aligned(axes), q.table.aligned(axes)
    impossible = is_positive(own) & (p <= 0)
    if prior.regularizer == kl:
        infinite = jnp.any(impossible, -1)
    else:
        infinite = jnp.isinf(lax.stop_gradient(prior.cost(q).array))
    # Replaced in front of the logarithm: behind it, its infinite derivative would meet a 0.
    possible = jnp.where(impossible & infinite[..., None], lax.stop_gradient(own), p)
    cost = Conditional(prior.name, Table(axes, possible), prior.regularizer).cost(q)
    if tau is not None:
        infinite |= (tau.array == 0) & (jnp.abs(cost.array) > 8 * jnp.finfo(cost.array.dtype).eps)
    return cost.renewed(jnp.where(infinite, 0.0, cost.array)), cost.renewed(infinite)


def evaluated(given: dict[str, Law]) -> algebra.Rules:
    """The rules that evaluate one step's policy, with a cost of 0 where it is infinite."""

    def choose(site: Site) -> tuple[Law, Whole]:
        q = given[site.name]
        return q, cost_of(site.law, q, site.inverse_temperature)[0]

    return algebra.evaluate_rules(choose)


def breaches(chain: Chain, policy: Mapping[str, Law]) -> dict[str, Table]:
    """For each decision, over time, 1 where it costs infinitely much, -1 where it gains that, 0 elsewhere."""

    def one(site: Site, q: Law) -> Table:
        tau = site.inverse_temperature
        infinite = cost_of(site.law, q, tau)[1]
        assert infinite is not None
        return Table(infinite.axes, infinite.array * (1 if tau is None else jnp.where(tau.array < 0, -1, 1)))

    decisions = [site for site in chain.step.sites if site.kind == "decision" and isinstance(site.law, Conditional)]
    found = {site.name: where_timed(one, site, policy[site.name]) for site in decisions}
    return {name: timed(table) for name, table in found.items()}


def departures(chain: Chain, policy: dict[str, Law], other: dict[str, Law]) -> dict[str, Table]:
    """The same of a policy against another one in the place of the priors."""
    tables = [name for name in chain.axes() if isinstance(other[name], Conditional)]
    found = {name: where_timed(lambda p, q: cost_of(p, q)[1], other[name], policy[name]) for name in tables}
    return {name: timed(table.renewed(table.array.astype(int))) for name, table in found.items()}


def timed(table: Table) -> Table:
    """A table that was made at all times together, with the name of that axis."""
    return Table((TIME, *table.axes), table.array) if table.array.ndim > len(table.axes) else table


def marked(
    chain: Chain, policy: Mapping[str, Law], found: dict[str, Table], total: Array, values: Any = None
) -> tuple[Array, Any]:
    """The total and the values of all states, with infinity where anything infinite is reached.

    Args:
        chain: the program.
        policy: for each decision its law over time.
        found: what is infinite, as `breaches` finds it; where nothing is, no walk is made.
        total: the finite part, from the first state on.
        values: the same from each state on, (T + 1, states); None: not wanted.
    """
    if not found:
        return total, values
    chain, policy, found = jax.tree.map(lax.stop_gradient, (chain, policy, found))
    for sign in (1, -1) if any(site.inverse_temperature is not None for site in chain.step.sites) else (1,):
        here = {name: Table(table.axes, sign * table.array > 0) for name, table in found.items()}
        anywhere = jnp.any(jnp.stack([jnp.any(table.array) for table in here.values()]))
        first, states = lax.cond(anywhere, lambda here: reached(chain, policy, here), lambda _: nowhere(chain), here)
        # Subtracted, so that infinities of both signs are no number.
        total = jnp.where(first, total - sign * jnp.inf, total)
        values = None if values is None else jnp.where(states, values - sign * jnp.inf, values)
    return total, values


def nowhere(chain: Chain) -> tuple[Bool[Array, ""], Bool[Array, "..."]]:
    """Nothing infinite is reached."""
    size = chain.size()
    states = [size[name] for name in chain.state]
    return jnp.asarray(False), jnp.zeros(states if chain.horizon is None else [chain.horizon + 1, *states], bool)


def reached(
    chain: Chain, policy: Mapping[str, Law], here: dict[str, Table]
) -> tuple[Bool[Array, ""], Bool[Array, "..."]]:
    """Whether anything infinite is reached with positive probability, from the start and from every state on."""
    laws = {name: support(law) for name, law in policy.items() if isinstance(law, Conditional)}
    chain, given = possible(chain), (laws, here)
    if chain.horizon is None:
        first = values = spread(chain, given)
    else:
        walked = algebra.backward(chain.quickest(), reaching, given)
        first, values = walked.first, walked.values
    begun = algebra.start(chain, first, reaching(({}, {})))
    return begun > 0, values.over_time(chain.state, chain.size()).array > 0


def reaching(given: tuple[dict[str, Law], dict[str, Table]]) -> algebra.Rules:
    """The rules of a walk over zeros and ones: 1 where anything infinite is ahead."""
    policy, here = given

    def chance(site: Site, w: Integrand) -> Message:
        return indicator(w.mean(site.law))

    def decision(site: Site, w: Message) -> tuple[Message, Law]:
        q = policy[site.name]
        w = w.mean(q)
        if site.name in here:
            w = indicator(w + Table(here[site.name].axes, here[site.name].array.astype(float)))
        return indicator(w), q

    return algebra.Rules(chance, decision)


def spread(chain: Chain, given: Any) -> Whole:
    """The least fixed point of a step without end: it is reached within as many steps as there are states."""
    size, rules = chain.size(), reaching(given)
    nothing = chain.zero.over(chain.carried, size)

    def step(state: tuple[Array, Array]) -> tuple[Array, Array]:
        v = chain.step.arrival.following(nothing.renewed(state[0]))
        w = algebra.through(chain.step, survive(chain, v, rules), rules)[0].over(chain.carried, size).array
        return w, jnp.any(w != state[0])

    start = nothing.array, jnp.asarray(True)
    return nothing.renewed(lax.while_loop(lambda state: state[1], step, start)[0])


def possible(chain: Chain) -> Chain:
    """The chain with ones for all positive probabilities, and factors of nothing."""

    def one(node: Any) -> Any:
        if isinstance(node, Conditional):
            return support(node)
        if isinstance(node, Site) and node.is_factor:
            return eqx.tree_at(lambda site: site.content, node, jax.tree.map(jnp.zeros_like, node.content))
        if isinstance(node, Site):
            return eqx.tree_at(lambda site: site.content, node, one(node.content))
        return node

    return jax.tree.map(one, chain, is_leaf=lambda node: isinstance(node, Site | Conditional))


def support(law: Conditional) -> Conditional:
    """A law with ones for all positive probabilities."""
    return eqx.tree_at(lambda law: law.table.array, law, is_positive(law.table.array).astype(float))


def is_positive(x: Array) -> Bool[Array, "..."]:
    """Whether numbers are above 0, those included that are so small that arithmetic takes them for 0."""
    return lax.bitcast_convert_type(x, jnp.dtype(f"int{8 * x.dtype.itemsize}")) > 0


def indicator(w: Any) -> Any:
    """Zeros and ones: whether an array is positive."""
    return jax.tree.map(lambda x: (x > 0).astype(x.dtype), w)


def with_impossible(chain: Chain) -> Chain:
    """Factors of minus infinity as a number beside which no other counts: infinities that meet would be NaN."""

    def one(site: Site) -> Site:
        if not site.is_factor:
            return site
        w = site.factor.array
        factor = site.factor.renewed(jnp.where(jnp.isneginf(w), ruled_out(w), w))
        return dataclasses.replace(site, content=factor)

    step = dataclasses.replace(chain.step, sites=tuple(map(one, chain.step.sites)))
    return dataclasses.replace(chain, step=step, final=tuple(map(one, chain.final)))


def ruled_out(array: Array) -> float:
    """The logarithm that stands for that of 0: far below any other, and many of them can be added up."""
    return -(float(jnp.finfo(array.dtype).max) ** 0.7)


def check_possible(possible: Array) -> None:
    """Raise where it is known that no trajectory has a positive probability.

    Raises:
        ValueError: none has.
    """
    if not isinstance(possible, jax.core.Tracer) and not possible:
        raise ValueError(
            "no trajectory meets the data and hard constraints, so there is no posterior; exact.condition finds a log "
            "evidence of minus infinity."
        )
