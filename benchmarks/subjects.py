"""A thousand subjects, each with parameters and behaviour of their own: value and slopes of the log likelihood at once.

`behaviour.site` with one program a subject, made by `jax.vmap`, against the vmapped scans that anyone would write:

    planning   r = beta (R + w B),   Q_t = r + P V_t+1,   V_t = log sum_a exp(Q_t) / A,   sum_t Q_t - V_t - log A
    learning   p_t(c) ~ exp(beta q_c),   q_c <- q_c + alpha (pay - q_c) of the arm that was chosen
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array, lax
from numpyro.distributions import Categorical
from numpyro.infer.util import log_density

from benchmarks.measure import Line, Settings, compiled, interleaved, same
from rlinf_ppl import ControlProgram, behaviour, decide, models
from rlinf_ppl.tasks import MDP

STATES, ACTIONS, HORIZON, TRIALS = 6, 3, 20, 100
RNG = np.random.default_rng(4)
MOVES, REWARD = RNG.dirichlet(np.ones(STATES), (STATES, ACTIONS)), RNG.normal(size=(STATES, ACTIONS))
BONUS = RNG.normal(size=(STATES, ACTIONS))
PAYS = np.array([[0.7, 0.3], [0.4, 0.6]])
Data = dict[str, Array]


class Kind(NamedTuple):
    """One kind of subject.

    Attributes:
        program: makes the program of one from its two parameters.
        plain: the log likelihood of one as anyone would write it.
        seen: what is seen.
        parameters: draws parameters of n subjects.
    """

    program: Callable[[Array], ControlProgram]
    plain: Callable[[Array, Data], Array]
    seen: tuple[str, ...]
    parameters: Callable[[np.random.Generator, int], np.ndarray]


def planner(x: Array) -> ControlProgram:
    """A task with an end, planned at an inverse temperature of one's own and with one weight of its rewards."""
    return models.single_agent(MDP(MOVES, REWARD + x[1] * BONUS, np.full(STATES, 1 / STATES)), HORIZON, beta=x[0])


def plain_planner(x: Array, data: Data) -> Array:
    """The backward recursion and a look-up."""
    reward = x[0] * (REWARD + x[1] * BONUS)

    def body(value: Array, _: None) -> tuple[Array, Array]:
        q = reward + jnp.asarray(MOVES) @ value
        before = jax.nn.logsumexp(q, axis=1) - jnp.log(ACTIONS)
        return before, q - before[:, None] - jnp.log(ACTIONS)

    policy = lax.scan(body, jnp.zeros(STATES), length=HORIZON, reverse=True)[1]
    return jnp.sum(policy[jnp.arange(HORIZON), data["s"], data["a"]])


def learner(x: Array) -> ControlProgram:
    """Two arms and a delta rule: the learning rate, and an inverse temperature."""

    def step(rate: Any, beta: Any, value: Any) -> dict[str, Any]:
        choice = decide("choice", Categorical(logits=beta * value))
        pay = numpyro.sample("pay", Categorical(probs=jnp.asarray(PAYS)[choice]))
        return {"value": value + rate * (pay - value) * (jnp.arange(2) == choice)}

    return ControlProgram(lambda rate, beta: {"value": jnp.zeros(2)}, step, TRIALS, args=(x[0], x[1]))


def plain_learner(x: Array, data: Data) -> Array:
    """A scan over trials."""

    def body(value: Array, trial: tuple[Array, Array]) -> tuple[Array, Array]:
        choice, pay = trial
        return value.at[choice].add(x[0] * (pay - value[choice])), jax.nn.log_softmax(x[1] * value)[choice]

    return jnp.sum(lax.scan(body, jnp.zeros(2), (data["choice"], data["pay"]))[1])


KINDS = {
    f"planning, {HORIZON} steps": Kind(
        planner, plain_planner, ("s", "a"), lambda rng, n: np.stack([rng.uniform(0.5, 3.0, n), rng.normal(size=n)], 1)
    ),
    f"learning, {TRIALS} trials": Kind(
        learner,
        plain_learner,
        ("choice", "pay"),
        lambda rng, n: np.stack([rng.uniform(0.05, 0.9, n), rng.uniform(0.5, 6.0, n)], 1),
    ),
}


def drawn(kind: Kind, x: Array) -> Data:
    """What each of them did, (n, T)."""
    draw = numpyro.handlers.seed(lambda: behaviour.site("y", jax.vmap(kind.program)(x)), jax.random.key(0))
    found = draw()
    steps = found[kind.seen[-1]].shape[1]
    return {name: found[name][:, :steps] for name in kind.seen}


def total(kind: Kind, x: Array, data: Data) -> Array:
    """The log likelihood of all, from the site."""
    return log_density(lambda: behaviour.site("y", jax.vmap(kind.program)(x), data), (), {}, {})[0]


def run(settings: Settings) -> Iterator[Line]:
    """Both kinds of subjects."""
    n, rounds, calls = (50, 5, 2) if settings.quick else (1000, 21, 5)
    for name, kind in KINDS.items():
        settings.say(f"subjects: {n}, {name}: compiling and checking")
        x = jnp.asarray(kind.parameters(np.random.default_rng(5), n))
        data = drawn(kind, x)
        own, seconds = compiled(jax.jit(jax.value_and_grad(lambda x, data, kind=kind: total(kind, x, data))), (x, data))
        by_hand = lambda x, data, kind=kind: jnp.sum(jax.vmap(kind.plain)(x, data))  # noqa: E731
        plain, plain_seconds = compiled(jax.jit(jax.value_and_grad(by_hand)), (x, data))
        for what, found, wanted in zip(("log likelihood", "slopes"), own(), plain(), strict=True):
            same(f"subjects: {what} of {name}", found, wanted, 1e-8)
        settings.say(f"subjects: {n}, {name}: {rounds} rounds")
        samples = interleaved({"rlinf_ppl": own, "plain": plain}, rounds, calls)
        label, cpu = f"{n} x {name}", f"CPU time {samples.cpu_ratio('rlinf_ppl', 'plain'):.2f}x"
        yield Line("subjects", f"{label}: site / plain scan", samples.ratio("rlinf_ppl", "plain"), "x", note=cpu)
        each, other = (1e6 * samples.seconds(which) / n for which in ("rlinf_ppl", "plain"))
        yield Line("subjects", f"{label}: value and slopes of one", each, "us", note=f"plain scan {other:.2f} us")
        yield Line("subjects", f"{label}: compiling", seconds, "s", note=f"plain scan {plain_seconds:.2f} s")
