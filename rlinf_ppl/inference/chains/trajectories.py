"""Trajectories drawn from laws: site by site forwards, all particles at once, time by scan."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PRNGKeyArray

from rlinf_ppl import algebra
from rlinf_ppl.algebra import TIME, Chain, Law, Message, Site, Slice
from rlinf_ppl.algebra.messages import with_array
from rlinf_ppl.inference.arguments import check_count, check_key
from rlinf_ppl.program.sites import Real, Support, values_of


def draw(
    chain: Chain, supports: dict[str, Support], key: PRNGKeyArray | Array, policy: dict[str, Law], n: int
) -> dict[str, Array]:
    """Trajectories under a policy and the true dynamics."""
    return in_values(supports, draw_positions(chain, check_key(key), policy, check_count("n", n)))


def draw_posterior(
    chain: Chain, supports: dict[str, Support], key: PRNGKeyArray | Array, tau: Message | None, n: int
) -> dict[str, Array]:
    """Trajectories of the posterior given optimality at the common inverse temperature tau."""
    return in_values(supports, _draw_posterior(chain, check_key(key), tau, check_count("n", n)))


@eqx.filter_jit
def draw_positions(chain: Chain, key: Array, policy: dict[str, Law], n: int) -> dict[str, Array]:
    """Trajectories under a policy, as positions in the supports."""

    def drawn(site: Site, key: Array, now: Any, at: dict[str, Array], alive: Array) -> Array:
        law = now[site.name] if site.kind == "decision" else site.content
        return law.draw(key, at, n, None, 1.0)

    first_key, key = jax.random.split(key)
    state, _ = sample_slice(chain.initial, first_key, lambda site, key, at: site.content.draw(key, at, n, None, 1.0), n)
    return sample_steps(chain, key, state, drawn, policy, n)


@eqx.filter_jit
def _draw_posterior(chain: Chain, key: Array, tau: Message | None, n: int) -> dict[str, Array]:
    rules = algebra.condition_rules(tau)
    scale = 1.0 if tau is None else tau.constant
    # The message at each site before it was eliminated is what its prior is tilted by.
    walked = algebra.backward(chain, lambda _: rules, found=lambda found: found.message)
    values, messages = walked.values, walked.kept
    start = algebra.walk(chain.initial.sites, chain.initial.arrival.pull(walked.first), rules)[1].message

    def drawn(site: Site, key: Array, now: Any, at: dict[str, Array], alive: Array) -> Array:
        tilted = site.content.draw(key, at, n, now[0][site.name], scale)
        if chain.alive is None:
            return tilted
        return jnp.where(alive, tilted, site.content.draw(key, at, n, None, 1.0))

    def survival(now: Any, at: dict[str, Array]) -> Array:
        assert chain.alive is not None
        following = {name: at[name] for name in now[1].axes}
        gated = jnp.stack([jnp.zeros(n), jnp.broadcast_to(now[1].rows(following), (n,))], -1)
        return jnp.log(chain.alive.content.table.array)[None] + scale * gated

    def first(site: Site, key: Array, at: dict[str, Array]) -> Array:
        return site.content.draw(key, at, n, start[site.name], scale)

    first_key, key = jax.random.split(key)
    state, _ = sample_slice(chain.initial, first_key, first, n)
    following = with_array(values, values.array[1:])
    return sample_steps(chain, key, state, drawn, (messages, following), n, survival)


def sample_steps(
    chain: Chain, key: Array, state: dict[str, Array], drawn: Any, given: Any, n: int, survival: Any = None
) -> dict[str, Array]:
    """Scan over time: sample every site, read off the factors, move, survive or die.

    Args:
        chain: the program.
        key: a random key.
        state: the first state variables, each (n,), or (n, size) where they are vectors.
        drawn: (site, key, this step's `given`, values so far, alive) -> values of the site.
        given: a pytree of messages or laws with a leading time axis.
        n: number of trajectories.
        survival: (this step's `given`, next state) -> log probabilities (n, 2) of dying and living on, up to a
            constant; None: the discount itself.
    """
    varying, constant = algebra.by_time(chain.step)

    def body(carry: Any, now: Any) -> Any:
        state, alive = carry
        site_key, alive_key = jax.random.split(now[0])
        step = algebra.at_time(eqx.combine(now[1], constant))
        here = algebra.at_time(now[2])
        following, seen = sample_slice(step, site_key, lambda s, key, at: drawn(s, key, here, at, alive), n, state)
        still = alive
        if chain.alive is not None:
            log_p = jnp.log(chain.alive.content.table.array)[None] if survival is None else survival(here, following)
            still = alive & (jax.random.categorical(alive_key, jnp.broadcast_to(log_p, (n, 2))) == 1)
        return (following, still), (state, seen, alive)

    keys = jax.random.split(key, chain.size()[TIME])
    living = jnp.ones(n, dtype=bool)
    (last, still), (states, seen, alive) = lax.scan(body, (state, living), (keys, varying, given))
    result = {name: jnp.moveaxis(jnp.concatenate([states[name], last[name][None]]), 0, 1) for name in chain.state}
    result |= {name: jnp.moveaxis(array, 0, 1) for name, array in seen.items()}
    if chain.alive is not None:
        result["alive"] = jnp.concatenate([alive, still[None]]).T.astype(int)
    return result


def sample_slice(
    part: Slice, key: Array, drawn: Any, n: int, state: dict[str, Array] | None = None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Sample the sites of one slice in order: the next state, and each site's value or log probability."""
    at = dict(state or {})
    seen = {}
    for site, site_key in zip(part.sites, jax.random.split(key, max(len(part.sites), 1)), strict=False):
        if site.kind == "optimality":
            seen[site.name] = jnp.broadcast_to(site.content.rows(at), (n,))
            continue
        at[site.name] = seen[site.name] = drawn(site, site_key, at)
    return {name: jnp.broadcast_to(x, (n, *x.shape[1:])) for name, x in part.arrival.positions_at(at).items()}, seen


def in_values(supports: dict[str, Support], drawn: dict[str, Array]) -> dict[str, Array]:
    """Positions as values of the supports, vectors in the shape of their variables."""
    found = dict(drawn)
    for name, x in drawn.items():
        support = supports.get(name)
        if isinstance(support, Real):
            found[name] = x.reshape(*x.shape[:2], *support.shape)
        elif support is not None:
            found[name] = values_of(support)[x]
    return found
