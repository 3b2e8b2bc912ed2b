"""Learning the policies of a step program from sampled transitions: soft Q-learning in a table.

The learner does not read the dynamics, it meets them. It holds a table Q of what is known once the last decision of a
step d_1, ..., d_n has been made; everything else follows from Q by the program's own elimination, from the last
decision to the first,

    W = Q,     for d = d_n, ..., d_1:    q(d | scope) = p(d) exp(tau_d W) / Z,    W <- (1 / tau_d) log Z,     V = W

and each transition moves one entry of it towards what came after,

    Q(s, d_1..d_n) <- Q + rate (log p(O) + gamma V(s') - Q)

The decisions are drawn from these policies. With one player this is soft Q-learning; of `rommeo` it makes ROMMEO-Q, of
`pr2` PR2-Q, and of `balancing_q` tabular Balancing-Q learning (Grau-Moya 2018; Sakulwongtana, Algorithm 1, where the
policy lacks its exp and omega its first value, 1: here annealing=lambda step: 1.01**step multiplies every inverse
temperature). In `learn` the opponent does what the model of it says; `learn_apart` lets players meet who each learn in
a program of their own and see of the others what they do.

At a finite horizon there is one table for each time, and an episode starts anew after T steps; without a horizon one
table, and a process that the discount ends starts anew. Everything is a function of the key: to learn with many seeds,

    jax.vmap(lambda key: q_learning.learn(program, key, 500))(jax.random.split(key, 100))
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from rlinf_ppl import algebra
from rlinf_ppl.algebra import Chain, Conditional, Found, Law, Site, Slice, Table, at_time, by_time
from rlinf_ppl.inference.arguments import check_count, check_key, check_learnable, check_players
from rlinf_ppl.inference.execution import alone
from rlinf_ppl.inference.policies import as_found
from rlinf_ppl.inference.trajectories import sample_slice
from rlinf_ppl.program import ControlProgram, read
from rlinf_ppl.types import RealNumber

__all__ = ["Learned", "learn", "learn_apart", "polynomial"]

Schedule = Callable[[Array], Array] | RealNumber


class Learned(NamedTuple):
    """What a player has learned, and how. At an infinite horizon nothing has the axis of time.

    Attributes:
        policy: for each decision (T, scope, K) probabilities, at the last inverse temperatures.
        value: V, shape (T + 1, states), the last row that of `final`, in units of optimality.
        action_values: Q, shape (T, scope of the last decision, K): units of optimality.
        visits: how often each entry of Q was met.
        rewards: log p(O) of every step; at a finite horizon T of them in a row are an episode, `final` in its last.
        steps: after how many steps each policy of the curve was noted.
        curve: these policies, each (records, T, scope, K).
    """

    policy: dict[str, Float[Array, "..."]]
    value: Float[Array, "..."]
    action_values: Float[Array, "..."]
    visits: Float[Array, "..."]
    rewards: Float[Array, " steps"]
    steps: Int[Array, " records"]
    curve: dict[str, Float[Array, "records ..."]]


class Settings(NamedTuple):
    """How to learn: functions of time or numbers; see `learn`."""

    learning_rate: Any
    annealing: Any
    exploration: Any


class Memory(NamedTuple):
    """What a step needs of the steps before it: each player's Q and visits, the state as positions, and the time."""

    values: tuple[Array, ...]
    visits: tuple[Array, ...]
    state: dict[str, Array]
    time: Array


def polynomial(visits: Array) -> Array:
    """The learning rate n^-0.7 at an entry's n-th visit: it sums to infinity, and its square does not."""
    return visits**-0.7


def learn(
    program: ControlProgram,
    key: PRNGKeyArray | Array,
    num_steps: int,
    *,
    learning_rate: Schedule = polynomial,
    annealing: Schedule = 1.0,
    exploration: Schedule = 0.0,
    record_every: int | None = None,
) -> Learned:
    """Learn a program's policies from sampled transitions, with all decisions drawn from the joint policy.

    Optimality that is stated before the last decision is known to the learner; what comes after is sampled.

    Args:
        program: any tabular step program whose chance sites come after its decisions.
        key: a JAX random key.
        num_steps: how many transitions.
        learning_rate: a number, or a function of how often the entry has been visited, this time included.
        annealing: what every inverse temperature is multiplied by: a number, or a function of the step, from 0 on.
        exploration: the probability of drawing a decision from its prior; a number, or a function of the step.
        record_every: note the policies after every so many steps, a divisor of `num_steps`; None: at the end only.

    Returns:
        What was learned. With learning rates that fall as they should it converges to `exact.solve`, where the annealing
        ends at 1 and every alternative is met again and again.

    Raises:
        ValueError: on a program of real vectors, without decisions, or with chance before a decision; on numbers out of
            range.
    """
    chain = check_learnable(program, read(program))
    return learned((chain,), None, key, num_steps, Settings(learning_rate, annealing, exploration), record_every)[0]


def learn_apart(
    players: Mapping[str, ControlProgram],
    key: PRNGKeyArray | Array,
    num_steps: int,
    *,
    learning_rate: Schedule = polynomial,
    annealing: Schedule = 1.0,
    exploration: Schedule = 0.0,
    record_every: int | None = None,
) -> dict[str, Learned]:
    """Let several players learn in one process, each in its own program and from its own rewards.

    Every decision is made by the player that it belongs to, on that player's policy given the state alone (its model of
    the others summed out, see `execution`); all players see all decisions. So they may order the decisions
    differently, or disagree on the inverse temperatures: who expects a friend may meet an adversary.

    Args:
        players: for each decision the program of who makes it. The programs agree on state variables, sites, horizon
            and discount; the dynamics are those of the first.
        key, num_steps, learning_rate, annealing, exploration, record_every: as in `learn`, for all players.

    Returns:
        For each decision what its player has learned, its model of the others' decisions included.

    Raises:
        ValueError: as `learn`, and where the programs do not agree or the decisions are others.
    """
    chains = check_players(players, {name: read(program) for name, program in players.items()})
    settings = Settings(learning_rate, annealing, exploration)
    found = learned(tuple(chains.values()), tuple(chains), key, num_steps, settings, record_every)
    return dict(zip(players, found, strict=True))


def learned(
    chains: tuple[Chain, ...], owners: tuple[str, ...] | None, key: Array, num_steps: Any, settings: Settings, every: Any
) -> tuple[Learned, ...]:
    """Check the numbers, then learn."""
    steps = check_count("num_steps", num_steps)
    between = steps if every is None else check_count("record_every", every)
    if steps % between:
        raise ValueError(f"record_every must divide num_steps; got {between} and {steps}.")
    for name, setting in settings._asdict().items():
        most = float("inf") if name == "annealing" else 1.0
        if not callable(setting) and not 0 <= setting <= most:
            raise ValueError(f"{name} must lie between 0 and {most:g}, or be a function; got {setting}.")
    numbers = Settings(*(x if callable(x) else jnp.asarray(x, dtype=float) for x in settings))
    return run(chains, owners, check_key(key), steps, between, numbers)


@eqx.filter_jit
def run(
    chains: tuple[Chain, ...], owners: tuple[str, ...] | None, key: Array, steps: int, every: int, settings: Settings
) -> tuple[Learned, ...]:
    """Blocks of `every` steps, with the policies noted after each."""
    start_key, key = jax.random.split(key)
    zeros = tuple(jnp.zeros(shape_of(chain)) for chain in chains)
    memory = Memory(zeros, zeros, begin(chains[0], start_key), jnp.asarray(0))

    def one(memory: Memory, now: Any) -> tuple[Memory, tuple[Array, ...]]:
        return transition(chains, owners, settings, memory, *now)

    def block(memory: Memory, now: Any) -> tuple[Memory, Any]:
        memory, rewards = lax.scan(one, memory, now)
        factor = at(settings.annealing, now[0][-1])
        return memory, (rewards, tuple(answer(*each, factor)[0] for each in zip(chains, memory.values, strict=True)))

    times, keys = jnp.arange(steps).reshape(-1, every), jax.random.split(key, (steps // every, every))
    memory, (rewards, curves) = lax.scan(block, memory, (times, keys))
    factor = at(settings.annealing, times[-1, -1])
    return tuple(
        Learned(*answer(chain, values, factor), values, visits, earned.reshape(-1), times[:, -1] + 1, curve)
        for chain, values, visits, earned, curve in zip(
            chains, memory.values, memory.visits, rewards, curves, strict=True
        )
    )


def transition(
    chains: tuple[Chain, ...], owners: tuple[str, ...] | None, settings: Settings, memory: Memory, step: Array, key: Array
) -> tuple[Memory, tuple[Array, ...]]:
    """One step of the process, and of every player's learning; returns what each was rewarded."""
    step_key, start_key, end_key = jax.random.split(key, 3)
    factor, now = at(settings.annealing, step), [slice_at(chain, memory.time) for chain in chains]
    laws = behaviour(chains, owners, now, memory, factor, at(settings.exploration, step))

    def drawn(site: Site, key: Array, at: dict[str, Array]) -> Array:
        law = laws[site.name] if site.kind == "decision" else site.content
        return law.draw(key, at, 1, None, 1.0)

    following, seen = sample_slice(now[0], step_key, drawn, 1, memory.state)
    met = memory.state | {site.name: seen[site.name] for site in now[0].sites if site.kind != "optimality"}
    last, over = ends(chains[0], memory.time, end_key)
    updates = [
        updated(chain, here, values, visits, memory.time, met, following, last, factor, settings)
        for chain, here, values, visits in zip(chains, now, memory.values, memory.visits, strict=True)
    ]
    values, visits, rewards = (tuple(parts) for parts in zip(*updates, strict=True))
    state = {name: jnp.where(over, x, following[name]) for name, x in begin(chains[0], start_key).items()}
    return Memory(values, visits, state, jnp.where(over, 0, memory.time + 1)), rewards


def behaviour(
    chains: tuple[Chain, ...],
    owners: tuple[str, ...] | None,
    now: list[Slice],
    memory: Memory,
    factor: Array,
    exploration: Array,
) -> dict[str, Conditional]:
    """The laws that decisions are drawn from: the joint policy, or each owner's policy given the state alone."""
    found = [
        policies(chain, here, table(chain, values, memory.time), factor)[1].policy
        for chain, here, values in zip(chains, now, memory.values, strict=True)
    ]
    laws = found[0]
    if owners is not None:
        laws = {
            name: alone(chain, here.sites, policy)[name]
            for name, chain, here, policy in zip(owners, chains, now, found, strict=True)
        }
    return {
        site.name: mixed(laws[site.name], site.content, exploration) for site in now[0].sites if site.kind == "decision"
    }


def updated(
    chain: Chain,
    here: Slice,
    values: Array,
    visits: Array,
    time: Array,
    met: dict[str, Array],
    following: dict[str, Array],
    last: Array,
    factor: Array,
    settings: Settings,
) -> tuple[Array, Array, Array]:
    """Q with one entry moved towards what came of it, its visits counted, and the reward."""
    _, after = split(here.sites)
    reward = total(tuple(site for site in after if site.kind == "optimality"), met)
    coming = time + 1 if chain.horizon is None else (time + 1) % chain.horizon
    later, _ = policies(chain, slice_at(chain, coming), table(chain, values, coming), factor)
    ahead = jnp.where(last, total(chain.final, following), later.rows(following)[0])
    discount = 1.0 if chain.alive is None else chain.alive.content.table.array[1]
    index = (*(() if chain.horizon is None else (time,)), *(met[name][0] for name in axes_of(chain)))
    visits = visits.at[index].add(1.0)
    change = reward + discount * ahead - values[index]
    known = total(tuple(site for site in split(here.sites)[0] if site.kind == "optimality"), met)
    earned = known + reward + jnp.where(last, discount * ahead, 0.0)
    return values.at[index].add(at(settings.learning_rate, visits[index]) * change), visits, earned


def policies(chain: Chain, here: Slice, q: Table, factor: Array) -> tuple[Table, Found]:
    """V and the policies that follow from Q, by eliminating the decisions from the last to the first."""
    decided = tuple(annealed(site, factor) if site.kind == "decision" else site for site in split(here.sites)[0])
    return algebra.walk(decided, q, algebra.solve_rules())


def answer(chain: Chain, values: Array, factor: Array) -> tuple[dict[str, Array], Array]:
    """The policies at all times over their scopes, and V over all states."""
    varying, constant = by_time(chain.step)
    size = chain.size()

    def one(now: Any, q: Array) -> tuple[dict[str, Array], Array]:
        here = at_time(eqx.combine(now, constant))
        v, found = policies(chain, here, Table(axes_of(chain), q), factor)
        return as_found(chain, found.policy), v.over(chain.state, size).array

    if chain.horizon is None:
        return one(varying, values)
    policy, value = jax.vmap(one)(varying, values)
    last = algebra.walk(chain.final, chain.zero, algebra.solve_rules())[0].over(chain.state, size).array
    return policy, jnp.concatenate([value, last[None]])


def annealed(site: Site, factor: Array) -> Site:
    """A decision with its inverse temperature multiplied."""
    tau = site.inverse_temperature
    scaled = Table((), factor) if tau is None else Table(tau.axes, factor * tau.array)
    return dataclasses.replace(site, inverse_temperature=scaled)


def mixed(q: Law, prior: Law, exploration: Array) -> Conditional:
    """The prior with a probability, else the policy."""
    axes = (*dict.fromkeys(name for name in (*q.table.axes, *prior.table.axes) if name != q.name), q.name)
    p = (1 - exploration) * q.table.aligned(axes) + exploration * prior.table.aligned(axes)
    return Conditional(q.name, Table(axes, p))


def split(sites: tuple[Site, ...]) -> tuple[tuple[Site, ...], tuple[Site, ...]]:
    """The sites up to the last decision, and those after it."""
    last = max(i for i, site in enumerate(sites) if site.kind == "decision")
    return sites[: last + 1], sites[last + 1 :]


def axes_of(chain: Chain) -> tuple[str, ...]:
    """What Q is a function of: the last decision and what its policy depends on."""
    last = split(chain.step.sites)[0][-1].name
    return (*dict(chain.scopes)[last], last)


def shape_of(chain: Chain) -> tuple[int, ...]:
    """The shape of Q, with its axis of time."""
    size = chain.size()
    return tuple(size[name] for name in (*chain.times, *axes_of(chain)))


def table(chain: Chain, values: Array, time: Array) -> Table:
    """Q at one time."""
    return Table(axes_of(chain), values if chain.horizon is None else values[time])


def slice_at(chain: Chain, time: Array) -> Slice:
    """The step at one time."""
    varying, constant = by_time(chain.step)
    return at_time(eqx.combine(jax.tree.map(lambda x: x[time], varying), constant))


def begin(chain: Chain, key: Array) -> dict[str, Array]:
    """A first state, as positions (1,)."""
    return sample_slice(chain.initial, key, lambda site, key, at: site.content.draw(key, at, 1, None, 1.0), 1)[0]


def ends(chain: Chain, time: Array, key: Array) -> tuple[Array, Array]:
    """Whether this step is the last of a finite horizon, and whether the process starts anew after it."""
    if chain.horizon is not None:
        last = time + 1 == chain.horizon
        return last, last
    assert chain.alive is not None
    return jnp.asarray(False), ~jax.random.bernoulli(key, chain.alive.content.table.array[1])


def total(sites: tuple[Site, ...], met: dict[str, Array]) -> Array:
    """The sum of optimality factors at the values met."""
    return sum((site.content.rows(met)[0] for site in sites), jnp.zeros(()))


def at(setting: Any, now: Array) -> Array:
    """A schedule at a step or a number of visits."""
    return setting(now) if callable(setting) else setting
