"""Where particles come from: paths traced back through their ancestors, or sampled backwards.

A path that is traced back keeps the history that its particle had. With time all particles share their early history;
backward sampling (Godsill, Doucet & West 2004) draws a new ancestor at every time instead, with probability

    W_t^i p(sites of the step, next state | state^i) exp(factors at state^i),

which costs N evaluations of the step for each path and time.

Where a next state holds real numbers without noise of their own, no other ancestor leads to it but by the very same
numbers, and rounding may hide even the true one. So the true ancestor is kept wherever its own numbers, computed again,
are not the same to the last bit; where they are, it is drawn anew among all whose numbers are. Either way the law of
the path stays what it is: the ancestors fall into classes, and each is drawn anew within its own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from rlinf_ppl.inference.particles.simulator import Simulator, Values
from rlinf_ppl.program.structure import Structure
from rlinf_ppl.program.supports import Support, is_finite, positions_of, values_of


class History(NamedTuple):
    """All that the particles of a run went through; finite values as positions, in integers that are just wide enough.

    Attributes:
        start: the values of the sites of `initial`, (N,).
        state: the state variables before each step, (T, N).
        last: the state variables at the end, (N,).
        sites: the sites of each step by the particle that took it, (T, N); those that a next state is are left out.
        alive: who was alive before each step, and at the end, (T, N) and (N,).
        ancestors: the particle before the step that each particle after it comes from, (T, N).
        log_weights: of the particles before each step, without their twist, (T, N); None where they were not kept.
    """

    start: Values
    state: Values
    last: Values
    sites: Values
    alive: tuple[Array, Array]
    ancestors: Array
    log_weights: Array | None


class Path(NamedTuple):
    """One trajectory: sites of `initial`, state variables (T + 1), sites of the step (T), alive (T + 1)."""

    start: Values
    state: Values
    sites: Values
    alive: Array


def packed(support: Support, values: Any) -> Any:
    """Positions in the narrowest integers that hold them; all that is not finite as it is."""
    if not is_finite(support):
        return values
    width = next(kind for kind in (jnp.int8, jnp.int16, jnp.int32) if len(support) <= jnp.iinfo(kind).max)
    return positions_of(support, values).astype(width)


def unpacked(support: Support, stored: Any) -> Any:
    """The values that `packed` stored."""
    return values_of(support)[stored.astype(int)] if is_finite(support) else stored


def taken(values: Any, places: Array) -> Any:
    """Some of many particles' values."""
    return jax.tree.map(lambda x: x[places], values)


def stored_sites(structure: Structure) -> dict[str, Support]:
    """The sites of the step that no next state variable simply is."""
    sources = {following.source for following in structure.step.following}
    return {name: support for name, support in structure.step.supports().items() if name not in sources}


def sites_at(structure: Structure, stored: Values, following: Values) -> Values:
    """The values of all latent sites of a step from those that are stored and the next state."""
    sites = {name: unpacked(support, stored[name]) for name, support in stored_sites(structure).items()}
    for next_form in structure.step.following:
        if next_form.source in structure.step.supports():
            sites[next_form.source] = following[next_form.name]
    return {site.name: sites[site.name] for site in structure.step.latent}


def trace_back(
    structure: Structure, history: History, seen: Callable[[Array, Values, Values, Array], Any]
) -> tuple[Any, Array]:
    """Follow all particles back from the end.

    Args:
        structure: of the program.
        history: of the run.
        seen: (t, state (N,), sites (N,), alive (N,)) -> whatever is wanted of a time, along the paths.

    Returns:
        What was wanted, with a leading axis of time, and the particle of the start that each path leads to.
    """
    n, supports = history.ancestors.shape[1], dict(structure.state)

    def body(carry: Any, now: Any) -> Any:
        own, following = carry
        t, stored_state, stored, alive, ancestors = now
        sites = sites_at(structure, taken(stored, own), following)
        before = ancestors[own]
        state = {name: unpacked(supports[name], taken(x, before)) for name, x in stored_state.items()}
        return (before, state), seen(t, state, sites, alive[before])

    steps = (
        jnp.arange(structure.horizon or 0), history.state, history.sites, history.alive[0], history.ancestors
    )  # fmt: skip
    last = {name: unpacked(supports[name], x) for name, x in history.last.items()}
    (first, _), found = lax.scan(body, (jnp.arange(n, dtype=jnp.int32), last), steps, reverse=True)
    return found, first


def all_paths(structure: Structure, history: History) -> Path:
    """The paths of all particles, with leading axes (N, T + 1) and (N, T)."""
    (state, sites, alive), first = trace_back(structure, history, lambda t, *seen: seen)
    last = {name: unpacked(support, history.last[name]) for name, support in structure.state}
    along = lambda x, end: jnp.moveaxis(jnp.concatenate([x, end[None]]), 0, 1)  # noqa: E731
    return Path(
        taken(history.start, first),
        jax.tree.map(along, state, last),
        jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), sites),
        along(alive, history.alive[1]),
    )


def sample_back(simulator: Simulator, history: History, weights: Array, key: Array) -> tuple[Path, Array]:
    """One path, sampled backwards from weights (N,) at the end, and whether at some time it could only be traced."""
    structure, supports = simulator.structure, dict(simulator.structure.state)
    last_key, steps_key = jax.random.split(key)

    def body(carry: Any, now: Any) -> Any:
        own, following, after = carry
        t, key, stored_state, stored, alive, log_weights, ancestors = now
        sites = sites_at(structure, taken(stored, own), following)
        states = {name: unpacked(supports[name], x) for name, x in stored_state.items()}
        density = lambda state, alive: simulator.log_density(state, t, alive, sites, following)  # noqa: E731
        log_p, reached = jax.vmap(density)(states, alive)
        log_p = log_weights + log_p
        if structure.discounted:
            living = jnp.where(after, jnp.log(simulator.discount), jnp.log1p(-simulator.discount))
            log_p = log_p + jnp.where(alive, living, jnp.where(after, -jnp.inf, 0.0))
        before, traced = ancestor(key, log_p, reached, ancestors[own])
        state = taken(states, before)
        return (before, state, alive[before]), (state, sites, alive[before], traced)

    own = jax.random.categorical(last_key, jnp.log(weights)).astype(history.ancestors.dtype)
    last = {name: taken(unpacked(support, history.last[name]), own) for name, support in structure.state}
    steps = structure.horizon or 0
    now = (jnp.arange(steps), jax.random.split(steps_key, steps), history.state, history.sites)
    end = (own, last, history.alive[1][own])
    (first, *_), (state, sites, alive, traced) = lax.scan(
        body, end, (*now, history.alive[0], history.log_weights, history.ancestors), reverse=True
    )
    path = Path(
        taken(history.start, first),
        jax.tree.map(lambda x, end: jnp.concatenate([x, end[None]]), state, last),
        sites,
        jnp.append(alive, end[2]),
    )
    return path, jnp.any(traced)


def ancestor(key: Array, log_p: Array, reached: Array, true: Array) -> tuple[Array, Array]:
    """The ancestor of one particle, drawn anew where that is possible.

    Args:
        key: a random key.
        log_p: the log probability of each particle (N,) to be the ancestor, up to a constant.
        reached: which of them (N,) lead to the real numbers of the next state that have no noise of their own.
        true: the ancestor that the particle has.

    Returns:
        The ancestor, and whether it is the true one because no other leads to those real numbers.
    """
    log_p = jnp.where(jnp.isnan(log_p), -jnp.inf, log_p)
    possible, other = log_p[true] > -jnp.inf, jnp.arange(log_p.shape[0]) != true
    # The compiler may work log_p out once for each use, and round it otherwise each time: what is drawn has to be
    # possible whatever `possible` says, so the true ancestor is never without some probability.
    others = jnp.where(possible, log_p, -jnp.inf)
    own = jnp.maximum(log_p, jnp.finfo(log_p.dtype).min / 2)
    before = jax.random.categorical(key, jnp.where(other, others, own)).astype(true.dtype)
    return before, jnp.any(other & ~reached) & ~(possible & jnp.any(other & reached))


def as_trajectories(structure: Structure, path: Path) -> dict[str, Any]:
    """Paths as users are given them: state variables and sites of the step by name, and `alive` with a discount."""
    found = path.state | path.sites
    return found | {"alive": path.alive.astype(int)} if structure.discounted else found
