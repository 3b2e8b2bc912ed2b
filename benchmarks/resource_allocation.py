"""Dynamic resource allocation (Patel, Acerbi & Pouget 2020): how good the memories are that a fit finds.

    objective = E return - weight sum_{s, a} [log base / std + (std / base)^2 / 2 - 1/2]

with values that are those of the agent's own noisy policy: `models.resource_allocation_once` without entropy. There may
be many local optima. So memory is cheap at first and its price rises, from several random starts; then states are
changed one by one, to what costs nothing or to a tenth of their noise, and fitted from there. Each final objective is
compared with episodes in plain NumPy. All of it is in single precision.
"""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from scipy.optimize import minimize

from benchmarks import noisy_rollouts
from benchmarks.measure import Line, Settings, at_least, at_most
from rlinf_ppl import models
from rlinf_ppl.inference import execution, svi
from rlinf_ppl.tasks import MDP, gallery

LOSS = svi.NodeELBO()
OPTIMIZER = optax.adam(0.1)
KEY = jax.random.key(0)


class Study(NamedTuple):
    """What is remembered, and how it is fitted.

    Attributes:
        name: of the task.
        mdp: the task.
        horizon: of an episode.
        base_std: (S, A), of memories that cost nothing.
        free: the states whose memories are worth something.
        weight: the price of a nat.
        discount: of the values.
        ladder: prices, and how many steps at each.
        seeds: how many random starts.
        refits: how many single changes are fitted, and for how many steps.
        episodes: in NumPy.
    """

    name: str
    mdp: MDP
    horizon: int
    base_std: np.ndarray
    free: np.ndarray
    weight: float
    discount: float
    ladder: tuple[tuple[float, int], ...]
    seeds: int
    refits: tuple[int, int]
    episodes: int

    beta: float = 10.0


class Found(NamedTuple):
    """Memories, and what they are worth."""

    std: np.ndarray
    objective: float
    earned: float
    cost: float


def planning(quick: bool) -> Study:
    """Three moves; the last move's values are known, and cost nothing."""
    mdp = gallery.planning_task()
    base = np.ones((19, 2))
    base[:12] = 100.0
    prices = (0.1, 1.0) if quick else (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    ladder = tuple((price, 300) for price in prices)
    seeds, refits, episodes = (2, (4, 300), 100_000) if quick else (5, (24, 300), 1_000_000)
    return Study("planning", mdp, 3, base, np.arange(12), 1.0, 1.0, ladder, seeds, refits, episodes)


def maze(quick: bool) -> Study:
    """The maze before its change; a smaller one where it has to be quick."""
    mdp = gallery.patel_maze("S.#G\n..#.\n....") if quick else gallery.patel_maze()
    base, free = np.full((mdp.num_states, 4), 5.0), np.flatnonzero(~np.asarray(mdp.terminal))
    ladder = ((0.02, 30), (0.1, 40)) if quick else ((0.02, 40), (0.05, 30), (0.1, 60))
    seeds, refits, episodes = (1, (1, 20), 10_000) if quick else (5, (4, 40), 100_000)
    return Study("maze", mdp, 200, base, free, 0.1, 0.9, ladder, seeds, refits, episodes)


def car() -> Study:
    """The mountain car, 200 steps of which are looked at."""
    mdp = gallery.mountain_car()
    base, free = np.full((mdp.num_states, 3), 5.0), np.flatnonzero(~np.asarray(mdp.terminal))
    return Study("mountain car", mdp, 200, base, free, 0.1, 0.99, ((0.02, 40), (0.1, 60)), 1, (0, 0), 20_000)


def fitted(study: Study, std: Any, weight: float, steps: int) -> np.ndarray:
    """Memories from some start, at a price."""
    program = models.resource_allocation_once(
        study.mdp,
        study.horizon,
        study.base_std,
        study.beta,
        kl_weight=weight,
        entropy_weight=0.0,
        value_discount=study.discount,
        std=std,
    )
    fit = svi.fit(program, KEY, steps, loss=LOSS, optimizer=OPTIMIZER, tolerance=1e-3)
    return np.asarray(fit.params["std"])


@jax.jit
def earned(mdp: MDP, horizon: Any, std: Array, beta: Array, discount: Array) -> tuple[Array, Array]:
    """The values that go with memories, and the return of an episode by recursion over its steps."""
    found = models.noisy_values(mdp, std, beta, discount)
    return found.value, execution.expected_return(models.single_agent(mdp, len(horizon)), {"a": found.policy})


def worth(study: Study, std: np.ndarray) -> tuple[Found, noisy_rollouts.Memories]:
    """What memories earn and cost, not from the loss that they were fitted by."""
    value, total = earned(study.mdp, np.zeros(study.horizon), std, study.beta, study.discount)
    held = noisy_rollouts.memories(study.mdp, value, std, study.base_std, study.beta)
    cost = noisy_rollouts.cost(held)
    return Found(std, float(total) - study.weight * cost, float(total), cost), held


def annealed(study: Study, seed: int) -> Found:
    """From a random start, memory cheap first."""
    rng = np.random.default_rng(seed)
    std = study.base_std.copy()
    std[study.free] *= np.exp(rng.uniform(np.log(0.1), np.log(0.8), (len(study.free), std.shape[1])))
    for weight, steps in study.ladder:
        std = fitted(study, std, weight, steps)
    return worth(study, std)[0]


def changed(study: Study, best: Found) -> tuple[Found, list[str]]:
    """Single states forgotten or known better, the most promising first, kept where the fit from there is better."""
    count, steps = study.refits
    factors = {"forgotten": None, "known better": 0.1}
    tried = []
    for state in study.free:
        for name, factor in factors.items():
            std = best.std.copy()
            std[state] = study.base_std[state] if factor is None else factor * std[state]
            tried.append((worth(study, std)[0].objective, int(state), name))
    kept = []
    for _, state, name in sorted(tried, reverse=True)[:count]:
        std = best.std.copy()
        std[state] = study.base_std[state] if factors[name] is None else factors[name] * std[state]
        found = worth(study, fitted(study, std, study.weight, steps))[0]
        if found.objective > best.objective + 1e-3:
            best = found
            kept.append(f"{list(study.mdp.state_names or ())[state]} {name}")
    return best, kept


def studied(study: Study, target: float | None, public: str, settings: Settings) -> Iterator[Line]:
    """The lines of a task.

    Raises:
        Mismatch: episodes say something else.
    """
    settings.say(f"memories: {study.name}: {study.seeds} starts, {len(study.ladder)} prices")
    row, began, computed = "memories", time.perf_counter(), time.process_time()
    starts = [annealed(study, seed) for seed in range(study.seeds)]
    best, kept = changed(study, max(starts, key=lambda found: found.objective))
    took, computed = time.perf_counter() - began, time.process_time() - computed
    _, held = worth(study, best.std)
    noisy_rollouts.check_values(study.name, held, study.discount, 20_000, 1)
    episodes, error = noisy_rollouts.check_objective(
        study.name, best.objective, study.weight, held, study.horizon, study.episodes, 2
    )
    note = f"return {best.earned:.2f}, cost {best.cost:.2f} nats; {public}"
    what = f"{study.name}: objective, best of {study.seeds}"
    yield (
        Line(row, what, best.objective, "", note=note)
        if target is None
        else at_least(row, what, best.objective, "", target, note)
    )
    ends = np.array([found.objective for found in starts])
    spread = ", ".join(f"{found.objective:.2f} ({found.earned:.2f})" for found in starts)
    yield Line(row, f"{study.name}: objectives of starts, deviation", float(ends.std()), "", note=f"(return) {spread}")
    if study.refits[0]:
        gained = best.objective - ends.max()
        note = f"{study.refits[0]} tried, kept: {', '.join(kept) or 'none'}"
        yield Line(row, f"{study.name}: gained by single changes", gained, "", note=note)
    yield Line(row, f"{study.name}: objective in NumPy's episodes", episodes, "", note=f"+- {error:.4f}")
    what, note = f"{study.name}: all fits, compiling too", f"CPU {computed:.0f} s"
    yield Line(row, what, took, "s", note=note) if target is None else at_most(row, what, took, "s", 120, note)


def by_nodes(std: Array, mdp: MDP, next_state: np.ndarray, beta: float) -> Array:
    """The return of the planning task where 200 Gauss and Hermite nodes see the softmax: wrong where noise is wide."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    value = jnp.zeros(mdp.num_states)
    for _ in range(3):
        q = mdp.reward + value[next_state]
        spread = jnp.sqrt(jnp.sum(std**2, -1))
        gap = (q[:, 0] - q[:, 1])[:, None] + spread[:, None] * jnp.asarray(nodes, spread.dtype)
        first = jax.nn.sigmoid(beta * gap) @ jnp.asarray(weights / weights.sum(), spread.dtype)
        value = first * q[:, 0] + (1 - first) * q[:, 1]
    return mdp.initial @ value


def quadrature(study: Study, settings: Settings) -> Iterator[Line]:
    """What nodes of the noise promise at their own optimum, and what that is worth."""
    settings.say("memories: planning: by 200 Gauss and Hermite nodes")
    next_state = np.asarray(study.mdp.dense().transition).argmax(-1)

    def loss(x: Array, weight: Array) -> Array:
        ratio = jnp.exp(x.reshape(12, 2))
        std = jnp.asarray(study.base_std).at[:12].multiply(ratio)
        cost = jnp.sum(0.5 * ratio**2 - 0.5 - jnp.log(ratio))
        return weight * cost - by_nodes(std, study.mdp, next_state, study.beta)

    compiled = jax.jit(jax.value_and_grad(loss))
    found = []

    def slope(x: np.ndarray, weight: float) -> tuple[np.ndarray, ...]:
        return tuple(np.asarray(each, float) for each in compiled(x, weight))

    for seed in range(study.seeds):
        x = np.random.default_rng(seed).uniform(np.log(0.01), np.log(0.6), 24)
        for weight, _ in study.ladder:
            ends = minimize(slope, x, weight, jac=True, bounds=[(-5, 0)] * 24)
            x = ends.x
        found.append((-ends.fun, x))
    promised, x = max(found, key=lambda pair: pair[0])
    std = study.base_std.copy()
    std[:12] *= np.exp(x.reshape(12, 2))
    true, held = worth(study, std)
    noisy_rollouts.check_objective("by nodes", true.objective, study.weight, held, 3, study.episodes, 3)
    note = f"worth {true.objective:.2f}: nodes lose a step between two of them"
    yield Line("memories", "planning: what 200 nodes of the noise promise", promised, "", note=note)


def free_means(study: Study, settings: Settings) -> Iterator[Line]:
    """What becomes of precision where values are free and grow."""
    program = models.resource_allocation_once_free(
        study.mdp, study.horizon, study.base_std, study.beta, entropy_weight=0.0
    )
    guide, done = None, 0
    for steps in (300,) if settings.quick else (300, 1000, 3000, 10_000):
        settings.say(f"memories: free means, {steps} steps")
        fit = svi.fit(program, KEY, steps - done, guide=guide, loss=LOSS, optimizer=OPTIMIZER, tolerance=0.0)
        guide, done = fit.guide, steps
        ratio = np.asarray(fit.params["std"])[:12] / 100.0
        cost = float(np.sum(0.5 * ratio**2 - 0.5 - np.log(ratio)))
        note = f"cost {cost:.3f} nats, least std {100 * ratio.min():.1f} of 100; the best return is 66.67"
        yield Line("memories", f"planning, free means: objective after {steps} steps", float(fit.elbo), "", note=note)


def run(settings: Settings) -> Iterator[Line]:
    """The planning task, the maze, and where there is time the mountain car."""
    with jax.enable_x64(False):
        plan = planning(settings.quick)
        yield from studied(plan, 45.0, "public code 44.71 at 54.58", settings)
        yield from free_means(plan, settings)
    if not settings.quick:
        yield from quadrature(plan, settings)
    with jax.enable_x64(False):
        if settings.quick:
            yield from studied(maze(True), None, "a small maze", settings)
        else:
            yield from studied(maze(False), -13.7, "public code -14.1 to -14.4", settings)
            yield from studied(car(), None, "no public figure", settings)
