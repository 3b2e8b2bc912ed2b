"""A guide by its logits: q(d | scope) = p exp(theta) / Z at each time, its exact ELBO and the action values it leaves.

log(q / p) = theta - log Z needs no log p, and is finite in value and gradient where p is 0. With any regularizer
Omega(q) = <q, theta> - Omega*(theta), as theta is where q maximises it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from rlinf_ppl import algebra
from rlinf_ppl.algebra import Chain, Found, Law, Site, Table
from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.algebra.messages import Whole
from rlinf_ppl.algebra.noise import fresh_noise
from rlinf_ppl.algebra.quadratics import Quadratic
from rlinf_ppl.algebra.small_matrices import cholesky
from rlinf_ppl.algebra.times import where_timed
from rlinf_ppl.inference.chains import answers
from rlinf_ppl.inference.chains.policies import as_found, laws_of
from rlinf_ppl.program.forms import Form
from rlinf_ppl.program.sight import blocks_of

Logits = dict[str, Float[Array, "..."]]

INITIAL_SPREAD = 0.1


@compiled
def initial_logits(chain: Chain, key: PRNGKeyArray | Array) -> Logits:
    """The logits of small random action values, for every decision."""
    size = chain.size()
    zeros = {name: chain.zero.over(axes, size) for name, axes in chain.axes().items()}
    normals = fresh_noise(key, (chain.horizon or 1,), {name: freedom(zero) for name, zero in zeros.items()})
    values = {}
    for name, zero in zeros.items():
        rows = jax.vmap(lambda row, w=zero: INITIAL_SPREAD * perturbation(w, row))(normals[name])
        values[name] = rows if chain.times else rows[0]
    return tempered(chain, values)


def freedom(zero: Whole) -> int:
    """How many numbers a perturbation of a message takes."""
    return sum(zero.sizes) if isinstance(zero, Quadratic) else zero.array.size


def perturbation(zero: Whole, normals: Array) -> Array:
    """The array of standard normal values, or of a linear function with standard normal coefficients."""
    if isinstance(zero, Table):
        return normals.reshape(zero.array.shape)
    n = len(normals)
    return jnp.zeros_like(zero.array).at[:n, n].set(normals / 2).at[n, :n].set(normals / 2)


def bound(chain: Chain, logits: Logits) -> Float[Array, ""]:
    """The exact ELBO as a function of the logits."""
    walked = algebra.backward(chain.quickest(), evaluated, given=messages(chain, logits))
    return algebra.start(chain, walked.first, algebra.solve_rules())


@compiled
def summary(chain: Chain, logits: Logits) -> tuple[dict[str, Any], Float[Array, ""]]:
    """The policy, and its exact ELBO."""
    return policy_of(chain, logits), bound(chain, logits)


def evaluated(theta: dict[str, Whole]) -> algebra.Rules:
    """The rules that evaluate one step's guide."""

    def choose(site: Site) -> tuple[Law, Whole]:
        q, _, cost = site.law.tilted(theta[site.name])
        return q, cost

    return algebra.evaluate_rules(choose)


def action_values(chain: Chain, logits: Logits) -> tuple[Array, dict[str, Array]]:
    """The ELBO, and for each decision Q^pi: the message that the current policy of all that comes later leaves."""
    met = meetings(chain, logits) if chain.hidden else {}
    return walked_back(chain, evaluated, messages(chain, logits), met)


def replies(chain: Chain, logits: Logits) -> Logits:
    """The logits of the best replies, the last decision first, each to those that were made before it."""
    met = meetings(chain, logits)
    return tempered(chain, walked_back(chain, lambda met: algebra.reply_rules(chain, met), met, met)[1])


def meetings(chain: Chain, logits: Logits) -> dict[str, Table]:
    """For each decision the law of what it sees and does not see."""
    return algebra.joints(chain, laws_of(chain, policy_of(chain, logits)))


@compiled
def unmet(chain: Chain, logits: Logits) -> dict[str, Bool[Array, "..."]]:
    """For each decision that does not see all, where what it sees never happens under the policy."""
    hidden, met = dict(chain.hidden), meetings(chain, logits)
    return {name: jnp.sum(met[name].array, tuple(range(-len(axes), 0))) <= 0 for name, axes in hidden.items()}


def walked_back(
    chain: Chain, rules: Callable[[Any], algebra.Rules], given: Any, met: dict[str, Table]
) -> tuple[Array, dict[str, Array]]:
    """The ELBO of a walk, and for each decision the message it met, averaged over what the decision does not see."""
    hidden, size = dict(chain.hidden), chain.size()
    axes = {name: (*own, *hidden.get(name, ())) for name, own in chain.axes().items()}

    def kept(found: Found) -> dict[str, Array]:
        return {name: found.message[name].over(axes[name], size).array for name in axes}

    walked = algebra.backward(chain.quickest(), rules, given=given, found=kept)
    values = {
        name: algebra.averaged(chain, name, Table((*chain.times, *axes[name]), array), met[name]).array
        if name in hidden
        else array
        for name, array in walked.kept.items()
    }
    return algebra.start(chain, walked.first, algebra.solve_rules()), values


def natural_target(chain: Chain, logits: Logits) -> tuple[Array, Logits]:
    """The ELBO, and for each decision tau Q^pi: the logits of the best reply to the current policy."""
    elbo, values = action_values(chain, logits)
    return elbo, tempered(chain, values)


def tempered(chain: Chain, action_values: dict[str, Array], of: Callable[[Array], Array] = jnp.asarray) -> Logits:
    """Action values in units of optimality as logits: multiplied by (a function of) each inverse temperature."""
    logits = dict(action_values)
    for site in chain.step.sites:
        if site.kind == "decision" and site.inverse_temperature is not None:
            tau, theta = of(site.inverse_temperature.constant), logits[site.name]
            logits[site.name] = tau.reshape(tau.shape + (1,) * (theta.ndim - tau.ndim)) * theta
    return logits


def policy_of(chain: Chain, logits: Logits) -> dict[str, Any]:
    """Q = p exp(theta) / Z over the whole scope, as users are given it."""

    def one(priors: dict[str, Law], theta: dict[str, Whole]) -> dict[str, Any]:
        return as_found(chain, {name: theta[name].tilt(priors[name])[1] for name in theta})

    return where_timed(one, chain.priors(), messages(chain, logits))


def expected_gain(chain: Chain, logits: Logits) -> Float[Array, ""]:
    """KL in nats of the policy from its best reply, along the trajectories of the policy itself."""
    _, target = natural_target(chain, logits)
    q, best = (laws_of(chain, policy_of(chain, each)) for each in (logits, target))
    return answers.kl(chain, q, best)[0]


def messages(chain: Chain, logits: Logits) -> dict[str, Whole]:
    """Logits as messages over time, scope and the decision itself."""
    size = chain.size()
    zeros = {name: chain.zero.over(axes, size) for name, axes in chain.axes().items()}
    endless = chain.horizon is None
    return {name: w.renewed(logits[name]) if endless else w.stacked(logits[name]) for name, w in zeros.items()}


def moves(prior: dict[str, Any], policy: dict[str, Any]) -> dict[str, Array]:
    """What moves Gaussian priors, (gain, offset, cov) each, to policies, by the names of `program.guide`.

    Raises:
        ValueError: a prior is singular.
    """
    found: dict[str, Array] = {}
    for name, (gain, offset, cov) in policy.items():
        before = prior[name]
        root = jax.vmap(cholesky)(jnp.broadcast_to(before.cov, cov.shape))
        least = jnp.min(jnp.diagonal(root, axis1=1, axis2=2))
        if not isinstance(least, jax.core.Tracer) and not least > 0:
            raise ValueError(f"the prior of {name!r} has no noise in some direction, which no factor stretches.")
        stretched = jax.vmap(lambda low, high: solve_triangular(low, high, lower=True))(root, jax.vmap(cholesky)(cov))
        moved = gain - before.gain, offset - before.offset, stretched
        found |= {f"{name}_{part}": x for part, x in zip(("gain", "offset", "factor"), moved, strict=True)}
    return found


def check_one_aim(step: Form, chain: Chain) -> None:
    """Raise where decisions that do not see all are opponents, or a game of different inverse temperatures.

    Raises:
        ValueError: where known inverse temperatures are negative, or differ between decisions at one time.
    """
    sites = {site.name: site.inverse_temperature for site in chain.step.sites if site.kind == "decision"}
    found = {name: jnp.ones(()) if tau is None else tau.constant for name, tau in sites.items()}
    known = {name: np.asarray(tau) for name, tau in found.items() if not isinstance(tau, jax.core.Tracer)}
    blind = list(dict(chain.hidden))
    for name, tau in known.items():
        if (tau < 0).any():
            raise ValueError(
                f"the decision {name!r} minimises, and {blind} do not see all that matters to them: no engine finds "
                "the equilibrium of such a game. Let them see it, or give no negative inverse temperature."
            )
    for name, others in blocks_of(step).items():
        if any(name in known and one in known and np.any(known[one] != known[name]) for one in others):
            raise ValueError(
                f"the decisions {[*others, name]} are taken at once at different inverse temperatures, and {blind} do "
                "not see all that matters to them besides: no engine finds the equilibrium of such a game. Give them "
                "one inverse temperature, or let them see the rest."
            )


def in_nats(chain: Chain, tau: Array | None) -> Chain:
    """The same program in nats: optimality multiplied by the inverse temperature that all decisions share."""
    if tau is None:
        return chain

    def scaled(site: Site) -> Site:
        content = site.factor.renewed(tau * site.factor.array) if site.is_factor else site.content
        return dataclasses.replace(site, content=content, inverse_temperature=None)

    step = dataclasses.replace(chain.step, sites=tuple(scaled(site) for site in chain.step.sites))
    return dataclasses.replace(chain, step=step, final=tuple(scaled(site) for site in chain.final))
