"""Step programs of somebody who has read the README only, each with its truth in plain NumPy.

They are in no model file and not among `PAIRS`; every engine is held to them by `test_generality`.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.distributions import Bernoulli, Categorical, Normal
from oracles.trajectories import Program, chance, decision, optimality
from programs import Pair

from rlinf_ppl import ControlProgram, decide
from rlinf_ppl import optimality as factor

RNG = np.random.default_rng(75)


def rows(*shape):
    return RNG.dirichlet(np.ones(shape[-1]), shape[:-1])


# ---- a machine keeps at a job for some steps; only where none are left the next job is chosen -----------------------
JOB, TAKES, PAY = rows(2, 2, 2), rows(2, 3), RNG.normal(size=(2, 2))
START, CHOICE = np.array([0.3, 0.7]), np.array([0.6, 0.4])


def semi_markov():
    def initial():
        return {"job": numpyro.sample("job", Categorical(probs=jnp.asarray(START))), "left": 0}

    def step(job, left):
        done = left == 0
        waits = jnp.array([1.0, 0.0])
        a = decide("a", Categorical(probs=jnp.where(done, jnp.asarray(CHOICE), waits)))
        factor(jnp.asarray(PAY)[job, a])
        next_job = numpyro.sample("next_job", Categorical(probs=jnp.asarray(JOB)[job, a]))
        takes = numpyro.sample("takes", Categorical(probs=jnp.asarray(TAKES)[next_job]))
        return {"job": jnp.where(done, next_job, job), "left": jnp.where(done, takes, left - 1)}

    return ControlProgram(initial, step, horizon=3, discount=0.9, sizes={"left": 3})


SEMI_MARKOV = Program(
    state={"job": 2, "left": 3},
    initial=(chance("job", 2, lambda v: START),),
    initial_state=lambda v: {"job": v["job"], "left": 0},
    step=(
        decision("a", 2, lambda v: CHOICE if v["left"] == 0 else [1.0, 0.0]),
        optimality(lambda v: PAY[v["job"], v["a"]]),
        chance("next_job", 2, lambda v: JOB[v["job"], v["a"]]),
        chance("takes", 3, lambda v: TAKES[v["next_job"]]),
    ),
    next_state=lambda v: (
        {"job": v["next_job"], "left": v["takes"]} if v["left"] == 0 else {"job": v["job"], "left": v["left"] - 1}
    ),
    horizon=3,
    discount=0.9,
)

# ---- an umbrella: a forecast may be paid for, is seen, and only then comes the weather ------------------------------
WEATHER = np.array([[0.7, 0.3], [0.4, 0.6]])
RIGHT = np.array([[0.8, 0.2], [0.25, 0.75]])  # p(forecast | weather)
SAID = WEATHER @ RIGHT  # p(forecast | yesterday's weather)
BELIEVED = WEATHER[:, None, :] * RIGHT.T[None] / SAID[..., None]  # p(weather | yesterday's, forecast)
ENJOYED = np.array([[1.0, -0.2], [-2.0, 0.5]])


def umbrella():
    def initial(weather, said, believed, enjoyed):
        return {"yesterday": numpyro.sample("yesterday", Bernoulli(0.5))}

    def step(weather, said, believed, enjoyed, yesterday):
        ask = decide("ask", Bernoulli(0.3))
        factor(-0.2 * ask, "price")
        forecast = numpyro.sample("forecast", Categorical(probs=jnp.where(ask, said[yesterday], 0.5)))
        take = decide("take", Bernoulli(0.4))
        today = jnp.where(ask, believed[yesterday, forecast], weather[yesterday])
        rain = numpyro.sample("rain", Categorical(probs=today))
        factor(enjoyed[rain, take])
        return {"yesterday": rain}

    args = tuple(jnp.asarray(x) for x in (WEATHER, SAID, BELIEVED, ENJOYED))
    return ControlProgram(initial, step, horizon=3, args=args)


UMBRELLA = Program(
    state={"yesterday": 2},
    initial=(chance("yesterday", 2, lambda v: [0.5, 0.5]),),
    initial_state=lambda v: {"yesterday": v["yesterday"]},
    step=(
        decision("ask", 2, lambda v: [0.7, 0.3]),
        optimality(lambda v: -0.2 * v["ask"], "price"),
        chance("forecast", 2, lambda v: SAID[v["yesterday"]] if v["ask"] else [0.5, 0.5]),
        decision("take", 2, lambda v: [0.6, 0.4]),
        chance("rain", 2, lambda v: BELIEVED[v["yesterday"], v["forecast"]] if v["ask"] else WEATHER[v["yesterday"]]),
        optimality(lambda v: ENJOYED[v["rain"], v["take"]]),
    ),
    next_state=lambda v: {"yesterday": v["rain"]},
    horizon=3,
)


# ---- a battery and a tank: one action over pairs, rain fills the tank, what is left at the end is worth something ---
def two_resources():
    def initial():
        return {"battery": 2, "tank": jnp.int32(1)}

    def step(battery, tank):
        pair = decide("pair", Categorical(probs=jnp.array([0.3, 0.2, 0.1, 0.1, 0.2, 0.1])), inverse_temperature=1.5)
        light, water = pair // 2, pair % 2
        lit, watered = jnp.minimum(light, battery), jnp.minimum(water, tank)
        factor(jnp.sqrt(1.0 * lit) + 0.8 * watered - 0.1 * (light + water))
        rain = numpyro.sample("rain", Bernoulli(0.35))
        return {"battery": battery - lit, "tank": jnp.minimum(tank - watered + rain, 2)}

    def final(battery, tank):
        factor(0.4 * battery * tank)

    return ControlProgram(initial, step, horizon=4, final=final, sizes={"battery": 3, "tank": 3})


def used(v):
    light, water = divmod(v["pair"], 2)
    return light, water, min(light, v["battery"]), min(water, v["tank"])


TWO_RESOURCES = Program(
    state={"battery": 3, "tank": 3},
    initial=(),
    initial_state=lambda v: {"battery": 2, "tank": 1},
    step=(
        decision("pair", 6, lambda v: [0.3, 0.2, 0.1, 0.1, 0.2, 0.1], 1.5),
        optimality(lambda v: np.sqrt(used(v)[2]) + 0.8 * used(v)[3] - 0.1 * (used(v)[0] + used(v)[1])),
        chance("rain", 2, lambda v: [0.65, 0.35]),
    ),
    next_state=lambda v: {
        "battery": v["battery"] - used(v)[2],
        "tank": min(v["tank"] - used(v)[3] + v["rain"], 2),
    },
    horizon=4,
    final=lambda v: 0.4 * v["battery"] * v["tank"],
)

# ---- three players, each of whom sees who came before; what they do together moves the state ------------------------
STAKES, MOVED = RNG.normal(size=(2, 2, 3, 2)), rows(2, 2, 3, 2, 2)
FIRST, SECOND, THIRD = rows(2, 2), rows(2, 3), rows(2, 3, 2)


def three_players(temperatures):
    def initial(stakes, moved, first, second, third):
        return {"s": numpyro.sample("s", Bernoulli(0.5))}

    def step(stakes, moved, first, second, third, s):
        a = decide("a", Categorical(probs=first[s]), temperatures[0])
        b = decide("b", Categorical(probs=second[a]), temperatures[1])
        c = decide("c", Categorical(probs=third[a, b]), temperatures[2])
        factor(stakes[s, a, b, c])
        return {"s": numpyro.sample("s_next", Categorical(probs=moved[s, a, b, c]))}

    def control():
        args = tuple(jnp.asarray(x) for x in (STAKES, MOVED, FIRST, SECOND, THIRD))
        return ControlProgram(initial, step, horizon=2, args=args)

    truth = Program(
        state={"s": 2},
        initial=(chance("s", 2, lambda v: [0.5, 0.5]),),
        initial_state=lambda v: {"s": v["s"]},
        step=(
            decision("a", 2, lambda v: FIRST[v["s"]], temperatures[0]),
            decision("b", 3, lambda v: SECOND[v["a"]], temperatures[1]),
            decision("c", 2, lambda v: THIRD[v["a"], v["b"]], temperatures[2]),
            optimality(lambda v: STAKES[v["s"], v["a"], v["b"], v["c"]]),
            chance("s_next", 2, lambda v: MOVED[v["s"], v["a"], v["b"], v["c"]]),
        ),
        next_state=lambda v: {"s": v["s_next"]},
        horizon=2,
    )
    return control, truth


# ---- a bandit: what is believed of two arms are their numbers of wins and losses -----------------------------------
PULLS = 3
COUNTS = ("won_left", "lost_left", "won_right", "lost_right")


def bandit():
    def initial():
        return dict.fromkeys(COUNTS, 0)

    def step(won_left, lost_left, won_right, lost_right):
        right = decide("right", Bernoulli(0.5), inverse_temperature=2.0)
        won, lost = jnp.where(right, won_right, won_left), jnp.where(right, lost_right, lost_left)
        win = numpyro.sample("win", Bernoulli((1 + won) / (3 + won + lost)))
        factor(1.0 * win)
        most = lambda count: jnp.minimum(count, PULLS)  # noqa: E731
        return {
            "won_left": most(won_left + (1 - right) * win),
            "lost_left": most(lost_left + (1 - right) * (1 - win)),
            "won_right": most(won_right + right * win),
            "lost_right": most(lost_right + right * (1 - win)),
        }

    return ControlProgram(initial, step, horizon=PULLS, sizes=dict.fromkeys(COUNTS, PULLS + 1))


def winning(v):
    arm = "right" if v["right"] else "left"
    mean = (1 + v[f"won_{arm}"]) / (3 + v[f"won_{arm}"] + v[f"lost_{arm}"])
    return [1 - mean, mean]


def counted(v):
    name = ("won_" if v["win"] else "lost_") + ("right" if v["right"] else "left")
    return {other: min(v[other] + (other == name), PULLS) for other in COUNTS}


BANDIT = Program(
    state=dict.fromkeys(COUNTS, PULLS + 1),
    initial=(),
    initial_state=lambda v: dict.fromkeys(COUNTS, 0),
    step=(
        decision("right", 2, lambda v: [0.5, 0.5], 2.0),
        chance("win", 2, winning),
        optimality(lambda v: 1.0 * v["win"]),
    ),
    next_state=counted,
    horizon=PULLS,
)

SEQUENCE = {"a": ("s",), "b": ("s", "a"), "c": ("s", "a", "b")}
NEW = {
    "semi_markov": Pair("semi_markov", semi_markov, SEMI_MARKOV, {"a": ("job", "left")}),
    "umbrella": Pair("umbrella", umbrella, UMBRELLA, {"ask": ("yesterday",), "take": ("yesterday", "ask", "forecast")}),
    "two_resources": Pair("two_resources", two_resources, TWO_RESOURCES, {"pair": ("battery", "tank")}),
    "three_players": Pair("three_players", *three_players((0.8, 0.8, 0.8)), SEQUENCE),
    "three_opponents": Pair("three_opponents", *three_players((1.5, -0.7, 2.0)), SEQUENCE),
    "bandit": Pair("bandit", bandit, BANDIT, {"right": COUNTS}),
}


# ---- a heater for a room: a real temperature beside a switch that may be stuck, and a law that is not linear --------
POWER, TARGET, ROOM_STEPS = np.array([-0.8, 0.1, 1.0]), 1.0, 3


def room():
    def initial():
        return {"x": numpyro.sample("x", Normal(0.0, 0.5)), "stuck": 0}

    def step(x, stuck):
        heat = decide("heat", Categorical(probs=jnp.array([0.5, 0.3, 0.2])), inverse_temperature=1.5)
        works = jnp.where(stuck, -0.8, jnp.asarray(POWER)[heat])
        factor(-((x - TARGET) ** 2) - 0.2 * heat)
        x_next = numpyro.sample("x_next", Normal(0.9 * jnp.tanh(x) + works, 0.4))
        breaks = numpyro.sample("breaks", Bernoulli(jnp.where(stuck, 0.6, 0.05 + 0.1 * heat)))
        return {"x": x_next, "stuck": breaks}

    return ControlProgram(initial, step, horizon=ROOM_STEPS, sizes={"stuck": 2})


def room_by_quadrature(conditioned):
    """The value of the start and the first policy (grid, 2, 3) beside the grid and its weights, in plain NumPy."""
    tau, prior, grid = 1.5, np.array([0.5, 0.3, 0.2]), np.linspace(-6.0, 6.0, 1201)
    width, heat = grid[1] - grid[0], np.arange(3)

    def normal(x, mean, std):
        return np.exp(-0.5 * ((x - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))

    def expected(mass, message):
        return np.log(mass @ np.exp(tau * message)) / tau if conditioned else mass @ message

    value, policy = np.zeros((len(grid), 2)), None
    for _ in range(ROOM_STEPS):
        q = np.zeros((len(grid), 2, 3))
        for stuck in range(2):
            for a in heat:
                p = 0.6 if stuck else 0.05 + 0.1 * a
                # Chance is eliminated from the last site to the first: whether it breaks, then the temperature.
                message = expected(np.array([1 - p, p]), value.T)
                mean = 0.9 * np.tanh(grid) + (POWER[0] if stuck else POWER[a])
                mass = width * normal(grid[None], mean[:, None], 0.4)
                q[:, stuck, a] = expected(mass, message) - (grid - TARGET) ** 2 - 0.2 * a
        weights = prior * np.exp(tau * q)
        value, policy = np.log(weights.sum(-1)) / tau, weights / weights.sum(-1, keepdims=True)
    start = width * normal(grid, 0.0, 0.5)
    return float(expected(start, value[:, 0])), policy, grid, start, value
