"""Decisions that do not see all that the message depends on: their best replies, one after the other.

A policy q(d | o) of what is seen, o, meets the message W(h, o, d) of what is hidden, h. Where the policies of all
decisions before lead, h has the law m(h | o). All other decisions given, the best one is

    q(d | o) = p(d | o) exp(tau sum_h m(h | o) W(h, o, d)) / Z,         W <- E_q W - (1 / tau) KL(q || p)

W depends on later decisions only, and m on earlier ones. So a walk from the last decision to the first that uses each
reply as soon as it is made, and the m of the policies before the walk, changes one decision at a time. That is
coordinate ascent of the ELBO, which never falls. What is never met is replied to as if h were uniform.
"""

import jax.numpy as jnp

from rlinf_ppl.algebra.chain import Chain, Site
from rlinf_ppl.algebra.elimination import Rules
from rlinf_ppl.algebra.marginals import forward
from rlinf_ppl.algebra.messages import TIME, Law, Message, Whole
from rlinf_ppl.algebra.tables import Table

Axes = dict[str, tuple[str, ...]]


def sights(chain: Chain) -> Axes:
    """For each decision what it sees of what matters, and what it does not."""
    hidden = dict(chain.hidden)
    return {name: (*scope, *hidden.get(name, ())) for name, scope in chain.scopes}


def joints(chain: Chain, policy: dict[str, Law]) -> dict[str, Table]:
    """For each decision the law of what it sees and does not see where a policy leads."""
    axes = sights(chain)
    return {name: Table((*chain.times, *axes[name]), m) for name, m in forward(chain, policy, axes)[1].items()}


def averaged(chain: Chain, name: str, w: Message, joint: Table) -> Table:
    """The message at a decision averaged over what it does not see, given what it sees; at one time or at all."""
    hidden, scope = dict(chain.hidden)[name], dict(chain.scopes)[name]
    scope = (TIME, *scope) if joint.timed else scope
    last = tuple(range(len(scope), len(scope) + len(hidden)))
    m = joint.aligned((*scope, *hidden))
    total = jnp.sum(m, last, keepdims=True)
    some = total > 0
    given = jnp.where(some, m / jnp.where(some, total, 1.0), total.size / m.size)
    return Table((*scope, name), jnp.sum(given[..., None] * w.whole.aligned((*scope, *hidden, name)), last))


def reply_rules(chain: Chain, joints: dict[str, Table]) -> Rules:
    """Average chance, and reply at each decision to what is known there of the message."""

    def decision(site: Site, w: Message) -> tuple[Message, Law]:
        if site.name not in dict(chain.hidden):
            return w.tilt(site.law, site.inverse_temperature)
        reply: Whole = averaged(chain, site.name, w, joints[site.name])
        _, q = reply.tilt(site.law, site.inverse_temperature)
        return w.mean(q) - site.law.cost(q).divided(site.inverse_temperature), q

    return Rules(lambda site, w: w.mean(site.law), decision)
