"""The particle filter, compiled once for all programs of one structure: a scan over time, vmaps over particles.

Algorithm 10.1 of Chopin & Papaspiliopoulos (2020), An introduction to sequential Monte Carlo, in log weights:

    resample     where the effective number is below a share of n: a_k ~ W, and all weigh alike
    propagate    x_k ~ q( . | x_{a_k}), every site of the step by its law or by what is proposed for it
    reweight     w_k <- w_k p(sites) exp(factors) / q(sites)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from rlinf_ppl.algebra import resampling
from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.inference.particles import genealogy
from rlinf_ppl.inference.particles.faults import first_bad
from rlinf_ppl.inference.particles.genealogy import History, Path, packed
from rlinf_ppl.inference.particles.simulator import Move, Simulator, Values, noise_of
from rlinf_ppl.inference.particles.summaries import conditional, frequencies, summarized
from rlinf_ppl.program.structure import Structure

BACKWARD_AT_ONCE = 32

Draw = Callable[[Array, Array], Array]


class Drawn(NamedTuple):
    """The random choices of a filter, for gradients of what is expected of it.

    Attributes:
        log_evidence: the estimate after the start and each step, (T + 1,).
        sites: the log probability of all finite values drawn at the start and in each step, (T + 1,).
        ancestors: that of the ancestors drawn before each step, were they drawn independently, (T,).
    """

    log_evidence: Array
    sites: Array
    ancestors: Array


class Found(NamedTuple):
    """What a filter found; the attributes are those of `smc.Run`, and the last weights since particles were redrawn."""

    log_evidence: Array
    policy: dict[str, Array]
    ess: Array
    resampled: Array
    weights: Array
    filtered: Values
    faults: dict[str, Array]
    history: History
    drawn: Drawn
    log_weights: Array


class Cloud(NamedTuple):
    """The particles at one time.

    Attributes:
        state: their state variables, (N, ...).
        alive: which of them live, (N,).
        log_weights: since they were last drawn anew, (N,).
        weights: the same, normalised.
        ess: the effective number.
        log_evidence: what they weighed together; its average since they were last drawn anew is still to come.
    """

    state: Values
    alive: Array
    log_weights: Array
    weights: Array
    ess: Array
    log_evidence: Array


@compiled
def run(simulator: Simulator, key: Array, n: int, threshold: Array) -> Found:
    """A filter and the policy of its trajectories."""
    found = particle_filter(simulator, key, n, threshold)
    joint = frequencies(simulator.structure, found.history, found.weights)
    return found._replace(policy={name: conditional(simulator, name, table) for name, table in joint.items()})


@compiled
def smooth(
    simulator: Simulator, key: Array, n: int, num_trajectories: int, threshold: Array
) -> tuple[Path, dict[str, Array], Array, Array]:
    """A filter and trajectories sampled backwards; faults; whether some could only be traced back; log evidence."""
    filter_key, key = jax.random.split(key)
    found = particle_filter(simulator, filter_key, n, threshold, keep=True)
    sample = lambda key: genealogy.sample_back(simulator, found.history, found.weights, key)  # noqa: E731
    paths, traced = lax.map(sample, jax.random.split(key, num_trajectories), batch_size=BACKWARD_AT_ONCE)
    return paths, found.faults, jnp.any(traced), found.log_evidence


@compiled
def particle_gibbs(
    simulator: Simulator, key: Array, n: int, iterations: int, threshold: Array
) -> tuple[Path, dict[str, Array], Array, Array]:
    """A chain of trajectories as `smooth` gives them; faults are the last ones found at each site and time.

    The evidence is that of the first filter: from a possible trajectory all others are possible.
    """

    def next_path(key: Array, path: Path | None) -> tuple[Path, tuple[dict[str, Array], Array], Array]:
        filter_key, key = jax.random.split(key)
        found = particle_filter(simulator, filter_key, n, threshold, path, keep=True)
        path, traced = genealogy.sample_back(simulator, found.history, found.weights, key)
        return path, (found.faults, traced), found.log_evidence

    def body(carry: Any, key: Array) -> Any:
        path, told = carry
        path, more, _ = next_path(key, path)
        return (path, jax.tree.map(jnp.maximum, told, more)), path

    first_key, key = jax.random.split(key)
    path, told, evidence = next_path(first_key, None)
    (_, (faults, traced)), paths = lax.scan(body, (path, told), jax.random.split(key, iterations))
    return paths, faults, traced, evidence


def particle_filter(
    simulator: Simulator,
    key: Array,
    n: int,
    threshold: Array,
    path: Path | None = None,
    keep: bool = False,
    draw: Draw = resampling.systematic,
) -> Found:
    """Move n particles through all steps.

    Args:
        simulator: the program and what its particles know.
        key: a random key.
        n: the number of particles.
        threshold: the share of n that the effective number must not fall below.
        path: what particle 0 goes through (conditional SMC); None: all are drawn.
        keep: whether the history holds the weights of all times.
        draw: ancestors from a key and normalised weights.
    """
    structure, steps = simulator.structure, simulator.structure.horizon or 0
    start_key, steps_key = jax.random.split(key)

    # Start
    own, start = jnp.arange(n) == 0, None if path is None else path.start
    noise = noise_of(structure.initial, start_key, n, False)
    move = jax.vmap(lambda noise, own: simulator.start(noise, None if start is None else (own, start)))(noise, own)
    log_weights = masked(jnp.zeros(n) + move.log_weight, move.faults)
    cloud = weighed(move.state, move.alive, log_weights, jnp.zeros(()))
    started = so_far(cloud), jnp.sum(move.score)

    # Step
    sites = None if path is None else path.sites | {"alive": path.alive[1:]}
    draw = draw if path is None else resampling.conditional_systematic
    now = jnp.arange(steps), jax.random.split(steps_key, steps), sites
    cloud, told = lax.scan(lambda cloud, now: advanced(simulator, threshold, keep, draw, cloud, now), cloud, now)

    # End
    gain, end_faults = jax.vmap(simulator.end)(cloud.state, cloud.alive)
    log_weights = masked(cloud.log_weights + gain, end_faults)
    last = weighed(cloud.state, cloud.alive, log_weights, cloud.log_evidence)
    end = summarized(structure, last.state, last.weights)

    # Tell
    history = told.history._replace(
        start=move.sites, last=stored_state(structure, last.state), alive=(told.history.alive[0], last.alive)
    )
    faults = {f"init/{name}": first_bad(bad) for name, bad in move.faults.items()} | told.faults
    faults |= {f"final/{name}": first_bad(bad) for name, bad in end_faults.items()}
    log_evidence = so_far(last)
    filtered = jax.tree.map(lambda x, last: jnp.concatenate([x, last[None]]), told.filtered, end)
    ess = told.ess.at[-1].set(last.ess)
    drawn = Drawn(
        jnp.append(started[0], told.drawn.log_evidence), jnp.append(started[1], told.drawn.sites), told.drawn.ancestors
    )
    return Found(log_evidence, {}, ess, told.resampled, last.weights, filtered, faults, history, drawn, log_weights)


class Told(NamedTuple):
    """What is kept of a step; the attributes are those of `Found`, the history's last state still to come."""

    ess: Array
    resampled: Array
    filtered: Values
    faults: dict[str, Array]
    history: History
    drawn: Drawn


def advanced(
    simulator: Simulator, threshold: Array, keep: bool, draw: Draw, cloud: Cloud, now: Any
) -> tuple[Cloud, Told]:
    """Draw the particles anew where that is due, and move and weight them; now is t, a key and particle 0's sites."""
    t, key, sites = now
    structure, n = simulator.structure, cloud.weights.shape[0]
    resample_key, noise_key = jax.random.split(key)

    # Resample
    resampled = cloud.ess < threshold * n
    ancestors, parents = lax.cond(resampled, lambda: anew(cloud, draw, resample_key), lambda: unchanged(cloud))

    # Propagate
    def one(state: Values, alive: Array, noise: Values, own: Array) -> Move:
        return simulator.step(state, t, alive, noise, None if sites is None else (own, sites))

    noise = noise_of(structure.step, noise_key, n, structure.discounted)
    move = jax.vmap(one)(parents.state, parents.alive, noise, jnp.arange(n) == 0)

    # Reweight
    log_weights = masked(parents.log_weights + move.log_weight, move.faults)
    after = weighed(move.state, move.alive, log_weights, parents.log_evidence)

    chosen = jnp.where(resampled, jnp.sum(jnp.log(cloud.weights[ancestors])), 0.0)
    drawn = Drawn(so_far(after), jnp.sum(move.score), chosen)
    known = resampling.normalize(untwisted(simulator, after, t + 1))[0]
    filtered = summarized(structure, parents.state, known)
    faults = {name: first_bad(bad) for name, bad in move.faults.items()}
    history = remembered(simulator, keep, t, cloud, ancestors, move)
    return after, Told(after.ess, resampled, filtered, faults, history, drawn)


def remembered(simulator: Simulator, keep: bool, t: Array, cloud: Cloud, ancestors: Array, move: Move) -> History:
    """What a history holds of one step from some particles, all but its start and end."""
    structure = simulator.structure
    sites = {name: packed(s, move.sites[name]) for name, s in genealogy.stored_sites(structure).items()}
    log_weights = untwisted(simulator, cloud, t) if keep else None
    state = stored_state(structure, cloud.state)
    return History({}, state, {}, sites, (cloud.alive, jnp.zeros(())), ancestors, log_weights)


def stored_state(structure: Structure, state: Values) -> Values:
    """State variables as a history holds them."""
    supports = dict(structure.state)
    return {name: packed(supports[name], x) for name, x in state.items()}


def weighed(state: Values, alive: Array, log_weights: Array, log_evidence: Array) -> Cloud:
    """Particles with their weights normalised."""
    weights, _ = resampling.normalize(log_weights)
    return Cloud(state, alive, log_weights, weights, resampling.effective_size(weights), log_evidence)


def so_far(cloud: Cloud) -> Array:
    """The log evidence of all that was weighed up to now."""
    return cloud.log_evidence + resampling.normalize(cloud.log_weights)[1] - jnp.log(cloud.weights.shape[0])


def anew(cloud: Cloud, draw: Draw, key: Array) -> tuple[Array, Cloud]:
    """Particles drawn by weight: their ancestors, and they themselves with equal weights."""
    ancestors = draw(key, lax.stop_gradient(cloud.weights))
    state = genealogy.taken(cloud.state, ancestors)
    equal = jnp.zeros_like(cloud.log_weights)
    return ancestors, cloud._replace(
        state=state, alive=cloud.alive[ancestors], log_weights=equal, log_evidence=so_far(cloud)
    )


def unchanged(cloud: Cloud) -> tuple[Array, Cloud]:
    """Particles that go on as they are."""
    return jnp.arange(cloud.weights.shape[0], dtype=jnp.int32), cloud


def masked(log_weights: Array, faults: dict[str, Array]) -> Array:
    """Log weights with nothing left to particles at which something is wrong."""
    bad = jnp.isnan(log_weights)
    for wrong in faults.values():
        bad = bad | wrong
    return jnp.where(bad, -jnp.inf, log_weights)


def untwisted(simulator: Simulator, cloud: Cloud, t: Array) -> Array:
    """Log weights without what is expected of the states."""
    if simulator.twist is None:
        return cloud.log_weights
    psi = jax.vmap(lambda state: simulator.psi(state, t))(cloud.state)
    return jnp.where(jnp.isneginf(cloud.log_weights), -jnp.inf, cloud.log_weights - jnp.where(cloud.alive, psi, 0.0))
