"""Trajectories drawn from tables: site by site forwards, all particles at once, time by scan."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PRNGKeyArray

from rlinf_ppl import algebra
from rlinf_ppl.algebra import TIME, Chain, Conditional, Site, Slice, Table
from rlinf_ppl.inference.arguments import check_count, check_key
from rlinf_ppl.program.sites import Support, values_of


def draw(
    chain: Chain, supports: dict[str, Support], key: PRNGKeyArray | Array, policy: dict[str, Conditional], n: int
) -> dict[str, Array]:
    """Trajectories under a policy and the true dynamics."""
    return in_values(supports, _draw(chain, check_key(key), policy, check_count("n", n)))


def draw_posterior(
    chain: Chain, supports: dict[str, Support], key: PRNGKeyArray | Array, tau: Table | None, n: int
) -> dict[str, Array]:
    """Trajectories of the posterior given optimality at the common inverse temperature tau."""
    return in_values(supports, _draw_posterior(chain, check_key(key), tau, check_count("n", n)))


@eqx.filter_jit
def _draw(chain: Chain, key: Array, policy: dict[str, Conditional], n: int) -> dict[str, Array]:
    def laws(site: Site, now: Any, positions: dict[str, Array], alive: Array) -> Array:
        law = now[site.name] if site.kind == "decision" else site.content
        return jnp.log(law.table.rows(positions))

    first_key, key = jax.random.split(key)
    state, _ = sample_slice(chain.initial, first_key, lambda site, at: jnp.log(site.content.table.rows(at)), n)
    return sample_steps(chain, key, state, laws, policy, n)


@eqx.filter_jit
def _draw_posterior(chain: Chain, key: Array, tau: Table | None, n: int) -> dict[str, Array]:
    rules = algebra.condition_rules(tau)
    scale = 1.0 if tau is None else tau.array
    # The message at each site before it was eliminated is what its prior is tilted by.
    walked = algebra.backward(chain, lambda _: rules, found=lambda found: found.message)
    values, messages = walked.values, walked.kept
    start = algebra.walk(chain.initial.sites, chain.initial.arrival.pull(walked.first), rules)[1].message

    def tilted(site: Site, message: Table, at: dict[str, Array]) -> Array:
        log_p = jnp.log(site.content.table.rows(at))
        return log_p + scale * message.rows_for(site.name, at) if site.name in message.axes else log_p

    def laws(site: Site, now: Any, at: dict[str, Array], alive: Array) -> Array:
        prior = jnp.log(site.content.table.rows(at))
        return jnp.where(alive[:, None], tilted(site, now[0][site.name], at), prior)

    def survival(now: Any, at: dict[str, Array]) -> Array:
        assert chain.alive is not None
        following = {name: at[name] for name in now[1].axes}
        gated = jnp.stack([jnp.zeros(n), now[1].rows(following)], -1)
        return jnp.log(chain.alive.content.table.array)[None] + scale * gated

    first_key, key = jax.random.split(key)
    state, _ = sample_slice(chain.initial, first_key, lambda site, at: tilted(site, start[site.name], at), n)
    following = Table(values.axes, values.array[1:])
    return sample_steps(chain, key, state, laws, (messages, following), n, survival)


def sample_steps(
    chain: Chain, key: Array, state: dict[str, Array], laws: Any, given: Any, n: int, survival: Any = None
) -> dict[str, Array]:
    """Scan over time: sample every site, read off the factors, move, survive or die.

    Args:
        chain: the program.
        key: a random key.
        state: positions of the first state variables, each (n,).
        laws: (site, this step's `given`, positions, alive) -> log probabilities (n, K), up to a constant.
        given: a pytree of tables with a leading time axis.
        n: number of trajectories.
        survival: (this step's `given`, next positions) -> log probabilities (n, 2) of dying and living on, up to a
            constant; None: the discount itself.
    """
    varying, constant = algebra.by_time(chain.step)

    def body(carry: Any, now: Any) -> Any:
        positions, alive = carry
        site_key, alive_key = jax.random.split(now[0])
        step = algebra.at_time(eqx.combine(now[1], constant))
        here = algebra.at_time(now[2])
        following, seen = sample_slice(step, site_key, lambda s, at: laws(s, here, at, alive), n, positions)
        still = alive
        if chain.alive is not None:
            log_p = jnp.log(chain.alive.content.table.array)[None] if survival is None else survival(here, following)
            still = alive & (jax.random.categorical(alive_key, jnp.broadcast_to(log_p, (n, 2))) == 1)
        return (following, still), (positions, seen, alive)

    keys = jax.random.split(key, chain.size()[TIME])
    living = jnp.ones(n, dtype=bool)
    (last, still), (states, seen, alive) = lax.scan(body, (state, living), (keys, varying, given))
    result = {name: jnp.concatenate([states[name], last[name][None]]).T for name in chain.state}
    result |= {name: array.T for name, array in seen.items()}
    if chain.alive is not None:
        result["alive"] = jnp.concatenate([alive, still[None]]).T.astype(int)
    return result


def sample_slice(
    part: Slice, key: Array, law: Any, n: int, positions: dict[str, Array] | None = None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Sample the sites of one slice in order: the next positions, and each site's position or log probability."""
    at = dict(positions or {})
    seen = {}
    for site, site_key in zip(part.sites, jax.random.split(key, max(len(part.sites), 1)), strict=False):
        if site.kind == "optimality":
            seen[site.name] = jnp.broadcast_to(site.content.rows(at), (n,))
            continue
        log_p = law(site, at)
        at[site.name] = jax.random.categorical(site_key, jnp.broadcast_to(log_p, (n, log_p.shape[-1])))
        seen[site.name] = at[site.name]
    return {name: jnp.broadcast_to(x, (n,)) for name, x in part.arrival.positions_at(at).items()}, seen


def in_values(supports: dict[str, Support], drawn: dict[str, Array]) -> dict[str, Array]:
    """Positions as values of the supports."""
    return {name: values_of(supports[name])[x] if name in supports else x for name, x in drawn.items()}
