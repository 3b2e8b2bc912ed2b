"""Trajectories drawn from laws: site by site forwards, all particles at once, time by scan."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PRNGKeyArray

from rlinf_ppl import algebra
from rlinf_ppl.algebra import TIME, Chain, Law, Site, Slice, Whole
from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.algebra.noise import fresh_noise
from rlinf_ppl.inference.arguments import check_count, check_key
from rlinf_ppl.inference.chains.forbidden import check_possible, ruled_out, with_impossible
from rlinf_ppl.program.supports import Real, Support, values_of

Supports = dict[str, Support]


def draw(
    chain: Chain, supports: Supports, key: PRNGKeyArray | Array, policy: dict[str, Law], n: int
) -> dict[str, Array]:
    """Trajectories under a policy and the true dynamics."""
    return draw_values(chain, supports, check_key(key), policy, check_count("n", n))


def draw_posterior(
    chain: Chain, supports: Supports, key: PRNGKeyArray | Array, tau: Whole | None, n: int
) -> dict[str, Array]:
    """Trajectories of the posterior given optimality at the common inverse temperature tau."""
    paths, possible = draw_posterior_values(chain, supports, check_key(key), tau, check_count("n", n))
    check_possible(possible)
    return paths


@compiled
def draw_values(chain: Chain, supports: Supports, key: Array, policy: dict[str, Law], n: int) -> dict[str, Array]:
    """Trajectories under a policy, in values of the supports."""
    return in_values(supports, chain.origin, draw_positions(chain, key, policy, n))


def draw_positions(chain: Chain, key: Array, policy: dict[str, Law], n: int) -> dict[str, Array]:
    """Trajectories under a policy, as positions in the supports."""

    def drawn(site: Site, noise: Array, now: Any, at: dict[str, Array], alive: Array) -> Array:
        law = now[site.name] if site.kind == "decision" else site.law
        return law.draw(noise, at, None, 1.0)

    first_key, key = jax.random.split(key)
    state = first_state(chain, first_key, n)
    return sample_steps(chain, key, state, drawn, policy, n)


@compiled
def draw_posterior_values(
    chain: Chain, supports: Supports, key: Array, tau: Whole | None, n: int
) -> tuple[dict[str, Array], Array]:
    """Trajectories of the posterior, in values of the supports, and whether there is one."""
    chain, rules = with_impossible(chain), algebra.condition_rules(tau)
    scale = 1.0 if tau is None else tau.constant
    # The message at each site before it was eliminated is what its prior is tilted by.
    walked = algebra.backward(chain.quickest(), lambda _: rules, found=whole_messages)
    values, messages = walked.values, walked.kept
    begun, met = algebra.through(chain.initial, walked.first, rules)
    evidence = begun.whole.constant
    possible = evidence >= ruled_out(evidence) / 2

    def drawn(site: Site, noise: Array, now: Any, at: dict[str, Array], alive: Array) -> Array:
        tilted = site.law.draw(noise, at, now[0][site.name], scale)
        if chain.alive is None:
            return tilted
        return jnp.where(alive, tilted, site.law.draw(noise, at, None, 1.0))

    def survival(now: Any, at: dict[str, Array]) -> Array:
        assert chain.alive is not None
        following = {name: at[name] for name in now[1].axes}
        gated = jnp.stack([jnp.zeros(n), jnp.broadcast_to(now[1].rows(following), (n,))], -1)
        return jax.nn.softmax(jnp.log(chain.survival)[None] + scale * gated)[:, 1]

    first_key, key = jax.random.split(key)
    state = first_state(chain, first_key, n, whole_messages(met), scale)
    following = values.renewed(values.array[1:])
    found = sample_steps(chain, key, state, drawn, (messages, following), n, survival)
    return in_values(supports, chain.origin, found), possible


def whole_messages(found: algebra.Found) -> dict[str, Whole]:
    """What each site met, as one array."""
    return {name: w.whole for name, w in found.message.items()}


def sample_steps(
    chain: Chain, key: Array, state: dict[str, Array], drawn: Any, given: Any, n: int, survival: Any = None
) -> dict[str, Array]:
    """Scan over time: sample every site, read off the factors, move, survive or die.

    Args:
        chain: the program.
        key: a random key.
        state: the first state variables, each (n,), or (n, size) where they are vectors.
        drawn: (site, noise, this step's `given`, values so far, alive) -> values of the site.
        given: a pytree of messages or laws with a leading time axis.
        n: number of trajectories.
        survival: (this step's `given`, next state) -> the probability of living on (n,); None: the discount itself.
    """
    varying, constant = algebra.by_time(chain.step)
    latent = chain.step.sites if chain.alive is None else (*chain.step.sites, chain.alive)

    def body(carry: Any, now: Any) -> Any:
        (state, alive), (noise, varying, given) = carry, now
        step, here = algebra.at_time((eqx.combine(varying, constant), given))
        following, seen = sample_slice(step, noise, lambda s, own, at: drawn(s, own, here, at, alive), n, state)
        still = alive
        if chain.alive is not None:
            p = chain.survival[1] if survival is None else survival(here, following)
            still = alive & (noise[chain.alive.name] < p)
        return (following, still), (state, seen, alive)

    noise = noise_of(latent, key, (chain.size()[TIME], n))
    living = jnp.ones(n, dtype=bool)
    (last, still), (states, seen, alive) = lax.scan(body, (state, living), (noise, varying, given))
    result = {name: jnp.moveaxis(jnp.concatenate([states[name], last[name][None]]), 0, 1) for name in chain.state}
    result |= {name: jnp.moveaxis(array, 0, 1) for name, array in seen.items()}
    if chain.alive is not None:
        result["alive"] = jnp.concatenate([alive, still[None]]).T.astype(int)
    return result


def first_state(
    chain: Chain, key: Array, n: int, tilts: dict[str, Whole] | None = None, scale: Array | float = 1.0
) -> dict[str, Array]:
    """N first states, as positions (n,) or vectors (n, size); of the laws tilted by exp(scale tilt) where these are."""

    def drawn(site: Site, noise: Array, at: dict[str, Array]) -> Array:
        return site.law.draw(noise, at, None if tilts is None else tilts[site.name], scale)

    return sample_slice(chain.initial, noise_of(chain.initial.sites, key, (n,)), drawn, n)[0]


def noise_of(sites: tuple[Site, ...], key: Array, shape: tuple[int, ...]) -> dict[str, Array]:
    """What draws of the latent sites are made from."""
    return fresh_noise(key, shape, {site.name: site.law.normals for site in sites if not site.is_factor})


def sample_slice(
    part: Slice, noise: dict[str, Array], drawn: Any, n: int, state: dict[str, Array] | None = None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Sample the sites of one slice in order: the next state, and each site's value or log probability.

    Args:
        part: the slice.
        noise: for each latent site what it is drawn by; all lead with the axis of particles.
        drawn: (site, its noise, values so far) -> values of the site.
        n: the number of particles.
        state: the state variables before it, where there are any.
    """
    at, seen = dict(state or {}), {}
    for site in part.sites:
        if site.is_factor:
            seen[site.name] = jnp.broadcast_to(site.factor.rows(at), (n,))
        else:
            at[site.name] = seen[site.name] = drawn(site, noise[site.name], at)
    return {name: jnp.broadcast_to(x, (n, *x.shape[1:])) for name, x in part.arrival.positions_at(at).items()}, seen


def in_values(supports: Supports, origin: dict[str, Array], drawn: dict[str, Array]) -> dict[str, Array]:
    """Positions as values of the supports, vectors from the user's origin and in the shape of their variables."""
    found = dict(drawn)
    for name, x in drawn.items():
        support = supports.get(name)
        if isinstance(support, Real):
            found[name] = (x + jnp.broadcast_to(origin[name], x.shape)).reshape(*x.shape[:2], *support.shape)
        elif support is not None:
            found[name] = values_of(support)[x]
    return found
