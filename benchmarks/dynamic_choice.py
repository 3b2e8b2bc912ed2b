"""P8: dynamic discrete choice, value and slopes of a likelihood: engines of buses in 90 states at discount .9999.

Rust's (1987) model: keep an engine at cost .001 theta x, or pay RC for a new one; data are drawn at his estimates.

    Q(x, d) = u(x, d) + gamma E V(x'),   V(x) = log sum_d exp(Q(x, d)) / 2,   l = sum Q(x_t, d_t) - V(x_t) - log 2

The peer is Newton's and Kantorovich's iteration from zero, V <- V + (I - gamma P_pi)^-1 (T V - V), by an LU whose last
factors also give the slopes: with c the counts of (x, d) and lambda' (I - gamma P_pi) = dl/dV for a fixed policy,
dl/du(x, d) = c(x, d) + lambda(x) pi(d | x).
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array
from numpyro.distributions import Categorical
from scipy.linalg import lu_factor, lu_solve

from benchmarks.measure import Line, Samples, Settings, at_least, compiled, interleaved, same
from rlinf_ppl import ControlProgram, behaviour, decide, optimality
from rlinf_ppl.inference import exact

STATES, DISCOUNT = 90, 0.9999
# Group 4 of Rust: table IX's estimates (RC, theta), how far buses go in a month, 37 buses of 116 months.
TRUTH = np.array([10.07494, 2.29309])
WEAR = np.array([1682, 2555, 55]) / 4292
BUSES, MONTHS = 37, 116
NEWTON_TOLERANCE, MOST_STEPS = 1e-10, 50


def moves() -> np.ndarray:
    """The law of the next mileage, (x, d, x'); a new engine begins at zero."""
    wear = np.zeros((STATES, STATES))
    for x in range(STATES):
        np.add.at(wear[x], np.minimum(x + np.arange(len(WEAR)), STATES - 1), WEAR)
    return np.stack([wear, np.tile(wear[:1], (STATES, 1))], 1)


MOVES = moves()


def program_of(x: Array) -> ControlProgram:
    """The program of (RC, theta)."""

    def initial(moves: Any, pay: Any) -> dict[str, Any]:
        return {"mileage": numpyro.sample("first", Categorical(probs=jnp.ones(STATES) / STATES))}

    def step(moves: Any, pay: Any, mileage: Any) -> dict[str, Any]:
        replaced = decide("replaced", Categorical(probs=jnp.ones(2) / 2))
        optimality(pay[mileage, replaced])
        return {"mileage": numpyro.sample("next", Categorical(probs=moves[mileage, replaced]))}

    upkeep = 0.001 * x[1] * jnp.arange(float(STATES))
    pay = -jnp.stack([upkeep, jnp.broadcast_to(x[0], upkeep.shape)], 1)
    return ControlProgram(initial, step, None, discount=DISCOUNT, args=(jnp.asarray(MOVES), pay))


def drawn(buses: int) -> dict[str, Array]:
    """Mileage and replacements of buses, (n, months)."""
    draw = numpyro.handlers.seed(behaviour.site, jax.random.key(0))
    found = draw("y", program_of(jnp.asarray(TRUTH)), num_sequences=buses, num_steps=MONTHS)
    return {"mileage": found["mileage"][:, :-1], "replaced": found["replaced"]}


class Nearby(NamedTuple):
    """Parameters, the values there, and how these move with them."""

    parameters: Array
    value: Array
    slope: Array


def log_likelihood(x: Array, data: dict[str, Array], near: Nearby | None = None) -> Array:
    """The log probability of all replacements, by the library; from values nearby as `behaviour.sample` asks for it."""
    program = program_of(x)
    start = None if near is None else near.value + near.slope @ (x - near.parameters)
    tolerance = None if near is None else 1e-10
    return jnp.sum(exact.log_prob(program, exact.solve(program, tolerance, start).policy, data))


def nearby(x: Array) -> Nearby:
    """The values at some parameters, and how they move with these."""
    return Nearby(x, value_of(x), jax.jit(jax.jacfwd(value_of))(x))


def value_of(x: Array) -> Array:
    """The values at some parameters."""
    found: Array = exact.solve(program_of(x)).value
    return found


def by_newton(x: np.ndarray, mileage: np.ndarray, replaced: np.ndarray) -> tuple[float, np.ndarray, int]:
    """The peer: log likelihood and its slopes, and the steps it took."""
    upkeep = 0.001 * x[1] * np.arange(float(STATES))
    utility = -np.stack([upkeep, np.full(STATES, x[0])], 1)
    value, identity, steps = np.zeros(STATES), np.eye(STATES), 0
    while steps < MOST_STEPS:
        q = utility + DISCOUNT * (MOVES @ value)
        top = q.max(1)
        swept = top + np.log(np.exp(q - top[:, None]).sum(1)) - np.log(2)
        policy = np.exp(q - swept[:, None]) / 2
        factors = lu_factor(identity - DISCOUNT * np.einsum("xd,xdy->xy", policy, MOVES), check_finite=False)
        change = lu_solve(factors, swept - value, check_finite=False)
        value, steps = value + change, steps + 1
        if np.max(np.abs(change)) <= NEWTON_TOLERANCE * max(1.0, np.max(np.abs(value))):
            break
    q = utility + DISCOUNT * (MOVES @ value)
    log_policy = q - np.logaddexp(q[:, 0], q[:, 1])[:, None]
    places = (2 * mileage + replaced).ravel()
    counts = np.bincount(places, minlength=2 * STATES).reshape(STATES, 2).astype(float)
    direct = DISCOUNT * np.tensordot(counts, MOVES, 2) - counts.sum(1)
    # V enters as Q - V with V = T V, whose slope along its own fixed point the last factors solve for.
    adjoint = lu_solve(factors, direct, trans=1, check_finite=False)
    of_utility = counts + adjoint[:, None] * np.exp(log_policy)
    slopes = np.array([-of_utility[:, 1].sum(), -0.001 * (of_utility[:, 0] @ np.arange(STATES))])
    return float(np.sum(counts * log_policy)), slopes, steps


def run(settings: Settings) -> Iterator[Line]:
    """Value and slopes in the user's own `jit`, from zero and from values nearby, against NumPy."""
    buses, rounds, calls = (5, 5, 5) if settings.quick else (BUSES, 21, 20)
    settings.say("P8: compiling and checking")
    data, x = drawn(buses), jnp.asarray(TRUTH * np.array([0.9, 1.1]))
    both = jax.jit(jax.value_and_grad(log_likelihood))
    cold, seconds = compiled(both, (x, data))
    warm, _ = compiled(both, (x, data, nearby(jnp.asarray(TRUTH))))
    arrays = [np.asarray(each) for each in (x, data["mileage"], data["replaced"])]
    newton: Callable[[], Any] = lambda: by_newton(*arrays)  # noqa: E731
    value, slopes, steps = newton()
    for name, found in (("from zero", cold()), ("from nearby", warm())):
        same(f"P8: the log likelihood {name}", found[0], value, 1e-7)
        same(f"P8: slopes {name}", found[1], slopes, 1e-6)
    settings.say(f"P8: {rounds} rounds")
    yield from lines_of(interleaved({"cold": cold, "warm": warm, "newton": newton}, rounds, calls), seconds, steps)


def lines_of(samples: Samples, seconds: float, steps: int) -> Iterator[Line]:
    """What came of it."""
    a_second = {name: 1 / samples.seconds(name) for name in samples.wall}
    note = f"{1e3 * samples.seconds('cold'):.2f} ms; the other target, 0.05x ruspy, is not measured"
    yield at_least("P8", "from zero: value and slopes a second", a_second["cold"], "", 2000, note)
    note = f"{1e3 * samples.seconds('warm'):.2f} ms, as behaviour.sample asks for it"
    yield at_least("P8", "from the values at parameters 10 % off: a second", a_second["warm"], "", 2000, note)
    for name, what in (("cold", "from zero"), ("warm", "from values nearby")):
        cpu = f"CPU time {samples.cpu_ratio(name, 'newton'):.2f}x"
        yield Line("P8", f"{what} / Newton-Kantorovich in NumPy", samples.ratio(name, "newton"), "x", note=cpu)
    yield Line("P8", "Newton-Kantorovich in NumPy", 1e3 * samples.seconds("newton"), "ms", note=f"{steps} steps")
    yield Line("P8", "compiling value and slopes", seconds, "s")
