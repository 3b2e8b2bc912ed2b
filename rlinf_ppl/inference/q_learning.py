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

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from rlinf_ppl.algebra import Chain, Conditional, Law, Site
from rlinf_ppl.inference.arguments import check_count, check_key, check_learnable, check_players, check_schedule
from rlinf_ppl.inference.chains import action_values
from rlinf_ppl.inference.chains.trajectories import first_state, noise_of, sample_slice
from rlinf_ppl.inference.execution import alone
from rlinf_ppl.program import ControlProgram, read
from rlinf_ppl.types import ArrayLike

__all__ = ["Learned", "learn", "learn_apart", "polynomial"]

Schedule = Callable[[Array], Array] | ArrayLike


class Learned(NamedTuple):
    """What a player has learned, and how. At an infinite horizon nothing has the axis of time.

    Attributes:
        policy: for each decision (T, scope, K) probabilities, at the last inverse temperatures.
        value: V, shape (T + 1, states), the last row that of `final`, in units of optimality.
        action_values: Q, shape (T, scope of the last decision, K): units of optimality.
        visits: how often each entry of Q was met.
        rewards: log p(O) of every step; at a finite horizon T of them in a row are an episode, `final` in its last.
        steps: after how many steps each policy of the curve was noted.
        curve: these policies, each (records, T, scope, K); the last is `policy`.
    """

    policy: dict[str, Float[Array, "..."]]
    value: Float[Array, "..."]
    action_values: Float[Array, "..."]
    visits: Float[Array, "..."]
    rewards: Float[Array, " steps"]
    steps: Int[Array, " records"]
    curve: dict[str, Float[Array, "records ..."]]


class Settings(NamedTuple):
    """How to learn: numbers, or functions of the step or of the visits; see `learn`."""

    learning_rate: Any
    annealing: Any
    exploration: Any


class Player(NamedTuple):
    """A program as tables, and the decision that this player makes in it; None: all of them, together."""

    chain: Chain
    decision: str | None = None


class Memory(NamedTuple):
    """What a step needs of the steps before it: each player's Q and visits, the state as positions, and the time."""

    values: tuple[Array, ...]
    visits: tuple[Array, ...]
    state: dict[str, Array]
    time: Array


class Transition(NamedTuple):
    """One step of the process: its time, its variables and the next state as positions, and whether it is the last."""

    time: Array
    met: dict[str, Array]
    following: dict[str, Array]
    last: Array


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
        What was learned. With learning rates that fall as they should it converges to `exact.solve`, where the
        annealing ends at 1 and every alternative is met again and again.

    Raises:
        ValueError: on a program of real vectors, without decisions, or with chance before a decision; on numbers out of
            range.
    """
    player = Player(check_learnable(program, read(program)))
    return learned((player,), key, num_steps, Settings(learning_rate, annealing, exploration), record_every)[0]


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
        key: a JAX random key.
        num_steps: how many transitions.
        learning_rate: of all players, as in `learn`.
        annealing: of all inverse temperatures, as in `learn`.
        exploration: of all players, as in `learn`.
        record_every: as in `learn`.

    Returns:
        For each decision what its player has learned, its model of the others' decisions included.

    Raises:
        ValueError: as `learn`, and where the programs do not agree or the decisions are others.
    """
    chains = check_players(players, {name: read(program) for name, program in players.items()})
    owners = tuple(Player(chain, name) for name, chain in chains.items())
    found = learned(owners, key, num_steps, Settings(learning_rate, annealing, exploration), record_every)
    return dict(zip(players, found, strict=True))


def learned(
    players: tuple[Player, ...], key: Array, num_steps: Any, settings: Settings, record_every: Any
) -> tuple[Learned, ...]:
    """Check the numbers, then learn."""
    steps = check_count("num_steps", num_steps)
    every = steps if record_every is None else check_count("record_every", record_every)
    if steps % every:
        raise ValueError(f"record_every must divide num_steps; got {every} and {steps}.")
    numbers = [check_schedule(name, setting, name != "annealing") for name, setting in settings._asdict().items()]
    return run(players, check_key(key), steps, every, Settings(*numbers))


@eqx.filter_jit
def run(players: tuple[Player, ...], key: Array, steps: int, every: int, settings: Settings) -> tuple[Learned, ...]:
    """Blocks of `every` steps, with the policies noted after each."""
    start_key, key = jax.random.split(key)
    zeros = tuple(action_values.zeros(player.chain) for player in players)
    memory = Memory(zeros, zeros, first_state(players[0].chain, start_key, 1), jnp.asarray(0))

    def block(memory: Memory, now: tuple[Array, Array]) -> tuple[Memory, Any]:
        memory, rewards = lax.scan(lambda memory, now: advance(players, settings, memory, *now), memory, now)
        factor = scheduled(settings.annealing, now[0][-1])
        pairs = zip(players, memory.values, strict=True)
        return memory, (rewards, tuple(action_values.answer(player.chain, values, factor) for player, values in pairs))

    times, keys = jnp.arange(steps).reshape(-1, every), jax.random.split(key, (steps // every, every))
    memory, (rewards, answers) = lax.scan(block, memory, (times, keys))
    found = []
    for (curve, value), values, visits, earned in zip(answers, memory.values, memory.visits, rewards, strict=True):
        policy = {name: table[-1] for name, table in curve.items()}
        found.append(Learned(policy, value[-1], values, visits, earned.reshape(-1), times[:, -1] + 1, curve))
    return tuple(found)


def advance(
    players: tuple[Player, ...], settings: Settings, memory: Memory, step: Array, key: Array
) -> tuple[Memory, tuple[Array, ...]]:
    """One step of the process, and of every player's learning; also what each was rewarded."""
    chain = players[0].chain
    step_key, start_key, end_key = jax.random.split(key, 3)
    factor = scheduled(settings.annealing, step)
    laws = behaviour(players, memory, factor, scheduled(settings.exploration, step))

    def drawn(site: Site, noise: Array, at: dict[str, Array]) -> Array:
        law = laws[site.name] if site.kind == "decision" else site.content
        return law.draw(noise, at, None, 1.0)

    here, _ = action_values.at(memory.values[0], chain, memory.time)
    following, seen = sample_slice(here, noise_of(here.sites, step_key, (1,)), drawn, 1, memory.state)
    met = memory.state | {site.name: seen[site.name] for site in here.sites if not site.is_factor}
    last, over = ends(chain, memory.time, end_key)
    transition = Transition(memory.time, met, following, last)
    updates = [
        updated(player.chain, values, visits, transition, factor, settings.learning_rate)
        for player, values, visits in zip(players, memory.values, memory.visits, strict=True)
    ]
    values, visits, rewards = (tuple(parts) for parts in zip(*updates, strict=True))
    state = {name: jnp.where(over, x, following[name]) for name, x in first_state(chain, start_key, 1).items()}
    return Memory(values, visits, state, jnp.where(over, 0, memory.time + 1)), rewards


def behaviour(players: tuple[Player, ...], memory: Memory, factor: Array, exploration: Array) -> dict[str, Conditional]:
    """What decisions are drawn from: the joint policy, or each player's given the state alone, mixed with priors."""
    laws: dict[str, Law] = {}
    for player, values in zip(players, memory.values, strict=True):
        step, q = action_values.at(values, player.chain, memory.time)
        policy = action_values.policies(step, q, factor)[1].policy
        priors = {site.name: site.content for site in step.sites if site.kind == "decision"}
        if player.decision is not None:
            policy, priors = (alone(player.chain, step.sites, each) for each in (policy, priors))
        made = priors if player.decision is None else [player.decision]
        laws |= {name: action_values.mixed(policy[name], priors[name], exploration) for name in made}
    return laws


def updated(
    chain: Chain, values: Array, visits: Array, transition: Transition, factor: Array, learning_rate: Any
) -> tuple[Array, Array, Array]:
    """Q with one entry moved towards what came of it, its visits counted, and the reward."""
    time, met, following, last = transition
    before, after = action_values.split(action_values.at(values, chain, time)[0].sites)
    reward = action_values.total(after, met)
    coming = time + 1 if chain.horizon is None else (time + 1) % chain.horizon
    later, _ = action_values.policies(*action_values.at(values, chain, coming), factor)
    ahead = jnp.where(last, action_values.total(chain.final, following), later.rows(following)[0])
    ahead = ahead if chain.alive is None else chain.alive.content.table.array[1] * ahead
    index = (*((time,) if chain.times else ()), *(met[name][0] for name in action_values.axes(chain)))
    visits = visits.at[index].add(1.0)
    change = scheduled(learning_rate, visits[index]) * (reward + ahead - values[index])
    earned = action_values.total(before, met) + reward + jnp.where(last, ahead, 0.0)
    return values.at[index].add(change), visits, earned


def ends(chain: Chain, time: Array, key: Array) -> tuple[Array, Array]:
    """Whether this step is the last of a finite horizon, and whether the process starts anew after it."""
    if chain.horizon is not None:
        last = time + 1 == chain.horizon
        return last, last
    assert chain.alive is not None
    return jnp.asarray(False), ~jax.random.bernoulli(key, chain.alive.content.table.array[1])


def scheduled(setting: Any, now: Array) -> Array:
    """A schedule at a step or a number of visits."""
    return setting(now) if callable(setting) else setting
