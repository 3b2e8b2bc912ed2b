"""A table of action values as the elimination sees it: which variables it is a function of, and what follows from it.

Q(s, d_1..d_n) is the message before the last decision of a step. Eliminating the decisions from it, from the last to
the first, leaves V and every policy; what stands after the last decision is not read, it is sampled.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlinf_ppl import algebra
from rlinf_ppl.algebra import Chain, Conditional, Found, Message, Site, Slice, Table
from rlinf_ppl.algebra.times import at_one_time, where_timed
from rlinf_ppl.inference.chains.policies import as_found

Sites = tuple[Site, ...]


def axes(chain: Chain) -> tuple[str, ...]:
    """What Q is a function of: the last decision, what its policy depends on, and decisions that it does not see."""
    last = split(chain.step.sites)[0][-1]
    return (*dict(chain.scopes)[last.name], *last.together, last.name)


def zeros(chain: Chain) -> Float[Array, "..."]:
    """A table of Q, one for each time of a finite horizon."""
    size = chain.size()
    return jnp.zeros([size[name] for name in (*chain.times, *axes(chain))])


def at(values: Array, chain: Chain, time: Array) -> tuple[Slice, Table]:
    """The step and Q at one time."""
    return at_one_time(chain.step, time), Table(axes(chain), values[time] if chain.times else values)


def policies(step: Slice, q: Table, factor: Array) -> tuple[Message, Found]:
    """V and the policies that follow from Q, every inverse temperature multiplied by a factor."""
    decided = tuple(annealed(site, factor) if site.kind == "decision" else site for site in split(step.sites)[0])
    return algebra.walk(decided, q, algebra.solve_rules())


def answer(chain: Chain, values: Array, factor: Array) -> tuple[dict[str, Array], Array]:
    """The policies at all times over their scopes, and V over all states, with T + 1 rows."""
    size = chain.size()

    def one(step: Slice, q: Table) -> tuple[dict[str, Array], Array]:
        v, found = policies(step, q, factor)
        return as_found(chain, found.policy), v.over(chain.state, size).array

    policy, value = where_timed(one, chain.step, Table((*chain.times, *axes(chain)), values))
    if chain.horizon is None:
        return policy, value
    last = algebra.walk(chain.final, chain.zero, algebra.solve_rules())[0].over(chain.state, size).array
    return policy, jnp.concatenate([value, last[None]])


def split(sites: Sites) -> tuple[Sites, Sites]:
    """The sites up to the last decision, and those after it."""
    last = max(i for i, site in enumerate(sites) if site.kind == "decision")
    return sites[: last + 1], sites[last + 1 :]


def annealed(decision: Site, factor: Array) -> Site:
    """A decision with its inverse temperature multiplied."""
    tau = decision.inverse_temperature
    scaled = Table((), factor) if tau is None else Table(tau.axes, factor * tau.array)
    return dataclasses.replace(decision, inverse_temperature=scaled)


def mixed(q: Conditional, prior: Conditional, exploration: Array) -> Conditional:
    """The prior with a probability, else the policy."""
    names = (*dict.fromkeys(name for name in (*q.table.axes, *prior.table.axes) if name != q.name), q.name)
    p = (1 - exploration) * q.table.aligned(names) + exploration * prior.table.aligned(names)
    return Conditional(q.name, Table(names, p))


def total(sites: Sites, met: dict[str, Array]) -> Float[Array, ""]:
    """The sum of the optimality factors among some sites, at positions (1,) of the variables."""
    return sum((site.factor.rows(met)[0] for site in sites if site.is_factor), jnp.zeros(()))
