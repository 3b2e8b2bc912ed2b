"""Learning the policies of a step program from sampled transitions: soft Q-learning in a table.

The learner does not read the dynamics, it meets them; chance may have any law. It holds a table Q of what is known once
the last decision of a step d_1, ..., d_n has been made; everything else follows from Q by the program's own
elimination, from the last decision to the first,

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

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from rlinf_ppl.algebra import Chain, Conditional
from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.inference.arguments import check_count, check_key, check_learnable, check_players, check_schedule
from rlinf_ppl.inference.chains import action_values
from rlinf_ppl.inference.execution import alone
from rlinf_ppl.inference.particles.simulator import Simulator, simulator_of
from rlinf_ppl.inference.particles.transitions import Transition, earned_after, sampled, started
from rlinf_ppl.program import ControlProgram, read
from rlinf_ppl.program.checks import check_sees
from rlinf_ppl.program.evaluation import nats_per_unit
from rlinf_ppl.program.reading import check_program, read_decided
from rlinf_ppl.program.supports import is_finite
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
    """A program, and the decision that its player makes in it.

    Attributes:
        world: what it draws and is rewarded by.
        chain: what is known up to the last decision, as tables; all that the learner reads.
        unit: how many nats of data a unit of optimality is worth; None: 1.
        decision: the player's own; None: it makes all of them, together.
    """

    world: Simulator
    chain: Chain
    unit: Array | None
    decision: str | None = None


class Memory(NamedTuple):
    """What a step needs of the steps before it: each player's Q and visits, the state's values, and the time."""

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
        program: any step program of finite states and decisions whose chance sites, any laws, come after these.
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
        ValueError: on real states or decisions, without decisions, or with chance before a decision; on numbers out of
            range. What is sampled is not read: where its numbers are no laws, rewards are NaN.
    """
    check_program(program)
    check_learnable(program)
    return learned(
        (as_player(program),), key, num_steps, Settings(learning_rate, annealing, exploration), record_every
    )[0]


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
    for program in players.values():
        check_program(program)
    check_players(players)
    owners = tuple(as_player(program, name) for name, program in players.items())
    found = learned(owners, key, num_steps, Settings(learning_rate, annealing, exploration), record_every)
    return dict(zip(players, found, strict=True))


def as_player(program: ControlProgram, decision: str | None = None) -> Player:
    """A program as its player meets it; tables that can be read whole are, for the sake of what is checked in them."""
    check_sees(program, "Q-learning")
    world = simulator_of(program)
    every = (*program.structure.initial.latent, *program.structure.step.latent)
    chain = read(program) if all(is_finite(site.support) for site in every) else read_decided(program)
    return Player(world, chain, nats_per_unit(program), decision)


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


@compiled
def run(players: tuple[Player, ...], key: Array, steps: int, every: int, settings: Settings) -> tuple[Learned, ...]:
    """Blocks of `every` steps, with the policies noted after each."""
    start_key, key = jax.random.split(key)
    zeros = tuple(action_values.zeros(player.chain) for player in players)
    memory = Memory(zeros, zeros, started(players[0].world, start_key), jnp.asarray(0))

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
    world = players[0].world
    step_key, start_key, end_key = jax.random.split(key, 3)
    factor = scheduled(settings.annealing, step)
    laws = behaviour(players, memory, factor, scheduled(settings.exploration, step))
    last, over = ends(players[0].chain, memory.time, end_key)
    transition = sampled(world, memory.state, memory.time, laws, step_key)
    updates = [
        updated(player, values, visits, transition, last, factor, settings.learning_rate)
        for player, values, visits in zip(players, memory.values, memory.visits, strict=True)
    ]
    values, visits, rewards = (tuple(parts) for parts in zip(*updates, strict=True))
    state = {name: jnp.where(over, x, transition.state[name]) for name, x in started(world, start_key).items()}
    return Memory(values, visits, state, jnp.where(over, 0, memory.time + 1)), rewards


def behaviour(players: tuple[Player, ...], memory: Memory, factor: Array, exploration: Array) -> dict[str, Conditional]:
    """What decisions are drawn from: the joint policy, or each player's given the state alone, mixed with priors."""
    laws: dict[str, Conditional] = {}
    for player, values in zip(players, memory.values, strict=True):
        step, q = action_values.at(values, player.chain, memory.time)
        policy: dict[str, Any] = action_values.policies(step, q, factor)[1].policy
        priors: dict[str, Any] = {site.name: site.law for site in step.sites if site.kind == "decision"}
        if player.decision is not None:
            policy, priors = (alone(player.chain, step.sites, each) for each in (policy, priors))
        made = priors if player.decision is None else [player.decision]
        laws |= {name: action_values.mixed(policy[name], priors[name], exploration) for name in made}
    return laws


def updated(
    player: Player, values: Array, visits: Array, now: Transition, last: Array, factor: Array, learning_rate: Any
) -> tuple[Array, Array, Array]:
    """Q with one entry moved towards what came of it, its visits counted, and the reward."""
    time, met, following, chain = now.time, now.met, now.following, player.chain
    before, _ = action_values.split(action_values.at(values, chain, time)[0].sites)
    reward = jnp.where(now.wrong, jnp.nan, earned_after(player.world, now.at, player.unit))
    coming = time + 1 if chain.horizon is None else (time + 1) % chain.horizon
    later, _ = action_values.policies(*action_values.at(values, chain, coming), factor)
    ahead = jnp.where(last, action_values.total(chain.final, following), later.whole.rows(following)[0])
    ahead = ahead if chain.alive is None else chain.survival[1] * ahead
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
    return jnp.asarray(False), ~jax.random.bernoulli(key, chain.survival[1])


def scheduled(setting: Any, now: Array) -> Array:
    """A schedule at a step or a number of visits."""
    return setting(now) if callable(setting) else setting
