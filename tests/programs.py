"""Step programs twice: in the library's language, and as plain data for the oracles.

The arrays of a program are drawn once in NumPy; `Pair.control` hands them to the library as `args` (in the dtype that
is current when it is called), the oracle's functions read them directly.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.distributions import Categorical
from oracles.trajectories import Program, chance, decision, optimality

from rlinf_ppl import ControlProgram, decide
from rlinf_ppl import optimality as factor

RNG = np.random.default_rng(20240607)
PAIRS = {}


@dataclass(frozen=True)
class Pair:
    """A program in both languages.

    Attributes:
        name: The key in `PAIRS`.
        control: Builds the library's program.
        truth: The same program as data.
        scopes: Decision -> what its policy has to depend on.
    """

    name: str
    control: Callable[[], ControlProgram]
    truth: Program
    scopes: dict[str, tuple[str, ...]]

    @property
    def joint(self) -> bool:
        """Whether one inverse temperature above 0 is common to all decisions, so that a joint model exists."""
        found = {site.inverse_temperature for site in self.truth.decisions}
        return len(found) == 1 and min(found) > 0


def rows(*shape, zeros=0.0):
    """Random distributions over the last axis, with about that share of exact zeros (never the first entry)."""
    weights = RNG.gamma(1.0, size=shape) * (RNG.random(shape) >= zeros)
    weights[..., 0] += 0.1
    return weights / weights.sum(-1, keepdims=True)


def rewards(*shape):
    return RNG.normal(size=shape)


def pair(name, initial, step, truth, scopes, arrays, **options):
    """Both languages of one program; the options are those of ControlProgram."""

    def control():
        args = tuple(jnp.asarray(x) for x in arrays)
        return ControlProgram(initial, step, horizon=truth.horizon, discount=truth.discount, args=args, **options)

    return Pair(name, control, truth, scopes)


def add(name, *parts, **options):
    """Put a pair among those that every test of the exact engine runs through."""
    PAIRS[name] = pair(name, *parts, **options)


def one(name, size, probabilities):
    """The `initial` and `initial_state` of an oracle program with one initial site."""
    return {"initial": (chance(name, size, lambda v: probabilities),), "initial_state": lambda v: {name: v[name]}}


def draw_s(start, *others):
    return {"s": numpyro.sample("s", Categorical(probs=start))}


# ---- an MDP, and with reward and prior that change with time -------------------------------------------------------
def mdp_step(start, transition, reward, prior, s):
    a = decide("a", Categorical(probs=prior[s]))
    factor(reward[s, a])
    return {"s": numpyro.sample("s_next", Categorical(probs=transition[s, a]))}


def mdp_truth(start, transition, reward, prior, horizon=3, **options):
    states, actions = reward.shape
    return Program(
        state={"s": states},
        step=(
            decision("a", actions, lambda v: prior[v["s"]]),
            optimality(lambda v: reward[v["s"], v["a"]]),
            chance("s_next", states, lambda v: transition[v["s"], v["a"]]),
        ),
        next_state=lambda v: {"s": v["s_next"]},
        horizon=horizon,
        **one("s", states, start),
        **options,
    )


arrays = rows(3), rows(3, 2, 3), rewards(3, 2), rows(3, 2)
add("plain", draw_s, mdp_step, mdp_truth(*arrays), {"a": ("s",)}, arrays)


def varying_step(start, transition, reward, prior, s, t):
    a = decide("a", Categorical(probs=prior[t, s]))
    factor(reward[t, s, a])
    return {"s": numpyro.sample("s_next", Categorical(probs=transition[s, a]))}


def varying(start, transition, reward, prior):
    truth = Program(
        state={"s": 3},
        step=(
            decision("a", 2, lambda v: prior[v["t"], v["s"]]),
            optimality(lambda v: reward[v["t"], v["s"], v["a"]]),
            chance("s_next", 3, lambda v: transition[v["s"], v["a"]]),
        ),
        next_state=lambda v: {"s": v["s_next"]},
        horizon=4,
        **one("s", 3, start),
    )
    add("time_varying", draw_s, varying_step, truth, {"a": ("s",)}, (start, transition, reward, prior))


varying(rows(3), rows(3, 2, 3), rewards(4, 3, 2), rows(4, 3, 2))


# ---- zeros: impossible actions and transitions, an absorbing state, one that is never reached; discount ------------
def zeros():
    start, transition = np.array([0.6, 0.4, 0.0, 0.0]), rows(4, 2, 4, zeros=0.4)
    transition[:, :, 3] = 0.0
    transition[2] = np.eye(4)[2]
    transition[0, 1] = np.eye(4)[1]
    transition /= transition.sum(-1, keepdims=True)
    reward, prior = rewards(4, 2), np.array([[1.0, 0.0], [0.3, 0.7], [0.5, 0.5], [0.0, 1.0]])
    reward[2] = 0.0
    arrays = start, transition, reward, prior
    truth = mdp_truth(*arrays, discount=0.9)
    add("zeros", draw_s, mdp_step, truth, {"a": ("s",)}, arrays)


zeros()


# ---- two state variables, the second initial one drawn given the first ---------------------------------------------
def two_initial(start, start_w, *others):
    s = numpyro.sample("s", Categorical(probs=start))
    return {"s": s, "w": numpyro.sample("w", Categorical(probs=start_w[s]))}


def two_step(start, start_w, p_s, p_w, reward, prior, s, w):
    a = decide("a", Categorical(probs=prior[w]))
    factor(reward[s, w, a])
    s_next = numpyro.sample("s_next", Categorical(probs=p_s[s, a]))
    return {"s": s_next, "w": numpyro.sample("w_next", Categorical(probs=p_w[w, s_next]))}


def two(start, start_w, p_s, p_w, reward, prior):
    truth = Program(
        state={"s": 3, "w": 2},
        initial=(chance("s", 3, lambda v: start), chance("w", 2, lambda v: start_w[v["s"]])),
        initial_state=lambda v: {"s": v["s"], "w": v["w"]},
        step=(
            decision("a", 2, lambda v: prior[v["w"]]),
            optimality(lambda v: reward[v["s"], v["w"], v["a"]]),
            chance("s_next", 3, lambda v: p_s[v["s"], v["a"]]),
            chance("w_next", 2, lambda v: p_w[v["w"], v["s_next"]]),
        ),
        next_state=lambda v: {"s": v["s_next"], "w": v["w_next"]},
        horizon=2,
    )
    add("two_states", two_initial, two_step, truth, {"a": ("s", "w")}, (start, start_w, p_s, p_w, reward, prior))


two(rows(3), rows(3, 2), rows(3, 2, 3), rows(2, 3, 2), rewards(3, 2, 2), rows(2, 2))


# ---- a next state that is a function of the step: the state's support comes from sizes -----------------------------
def table_initial(successor, reward, prior):
    return {"s": jnp.asarray(1)}


def table_step(successor, reward, prior, s):
    a = decide("a", Categorical(probs=prior[s]))
    factor(reward[s, a])
    return {"s": successor[s, a]}


def deterministic(successor, reward, prior):
    truth = Program(
        state={"s": 3},
        initial=(),
        initial_state=lambda v: {"s": 1},
        step=(decision("a", 3, lambda v: prior[v["s"]]), optimality(lambda v: reward[v["s"], v["a"]])),
        next_state=lambda v: {"s": int(successor[v["s"], v["a"]])},
        horizon=4,
    )
    arrays = successor, reward, prior
    add("deterministic", table_initial, table_step, truth, {"a": ("s",)}, arrays, sizes={"s": 3})


deterministic(np.array([[0, 1, 2], [2, 0, 1], [0, 0, 2]]), rewards(3, 3), rows(3, 3))


# ---- outcomes and successor lists ----------------------------------------------------------------------------------
def sparse_step(start, successors, outcomes, reward, prior, s):
    a = decide("a", Categorical(probs=prior[s]))
    factor(reward[s, a])
    outcome = numpyro.sample("outcome", Categorical(probs=outcomes[s, a]))
    return {"s": successors[s, outcome]}


def sparse(start, successors, outcomes, reward, prior):
    truth = Program(
        state={"s": 4},
        step=(
            decision("a", 2, lambda v: prior[v["s"]]),
            optimality(lambda v: reward[v["s"], v["a"]]),
            chance("outcome", 2, lambda v: outcomes[v["s"], v["a"]]),
        ),
        next_state=lambda v: {"s": int(successors[v["s"], v["outcome"]])},
        horizon=3,
        discount=0.7,
        **one("s", 4, start),
    )
    arrays = start, successors, outcomes, reward, prior
    add("sparse_outcomes", draw_s, sparse_step, truth, {"a": ("s",)}, arrays)


sparse(rows(4), np.array([[1, 2], [1, 1], [3, 0], [2, 3]]), rows(4, 2, 2), rewards(4, 2), rows(4, 2))


# ---- side information before the decision, and rewards in two factors ----------------------------------------------
def side_step(start, observation, transition, reward, other, prior, s):
    o = numpyro.sample("o", Categorical(probs=observation[s]))
    factor(other[s, o], "seen")
    a = decide("a", Categorical(probs=prior[o]))
    factor(reward[s, o, a])
    return {"s": numpyro.sample("s_next", Categorical(probs=transition[s, a]))}


def side(start, observation, transition, reward, other, prior):
    truth = Program(
        state={"s": 2},
        step=(
            chance("o", 3, lambda v: observation[v["s"]]),
            optimality(lambda v: other[v["s"], v["o"]], "seen"),
            decision("a", 2, lambda v: prior[v["o"]]),
            optimality(lambda v: reward[v["s"], v["o"], v["a"]]),
            chance("s_next", 2, lambda v: transition[v["s"], v["a"]]),
        ),
        next_state=lambda v: {"s": v["s_next"]},
        horizon=3,
        **one("s", 2, start),
    )
    arrays = start, observation, transition, reward, other, prior
    add("side_information", draw_s, side_step, truth, {"a": ("s", "o")}, arrays)


side(rows(2), rows(2, 3), rows(2, 2, 2), rewards(2, 3, 2), rewards(2, 3), rows(3, 2))


# ---- three decisions in a row, each with another scope -------------------------------------------------------------
def three_step(start, prior_x, prior_y, prior_z, early, late, transition, s):
    x = decide("x", Categorical(probs=prior_x[s]))
    factor(early[s, x], "early")
    y = decide("y", Categorical(probs=prior_y[x]))
    z = decide("z", Categorical(probs=prior_z[y]))
    factor(late[x, z])
    return {"s": numpyro.sample("s_next", Categorical(probs=transition[y, z]))}


def three(start, prior_x, prior_y, prior_z, early, late, transition):
    truth = Program(
        state={"s": 2},
        step=(
            decision("x", 2, lambda v: prior_x[v["s"]]),
            optimality(lambda v: early[v["s"], v["x"]], "early"),
            decision("y", 2, lambda v: prior_y[v["x"]]),
            decision("z", 2, lambda v: prior_z[v["y"]]),
            optimality(lambda v: late[v["x"], v["z"]]),
            chance("s_next", 2, lambda v: transition[v["y"], v["z"]]),
        ),
        next_state=lambda v: {"s": v["s_next"]},
        horizon=2,
        **one("s", 2, start),
    )
    scopes = {"x": ("s",), "y": ("x",), "z": ("x", "y")}
    arrays = start, prior_x, prior_y, prior_z, early, late, transition
    add("three_decisions", draw_s, three_step, truth, scopes, arrays)


three(rows(2), rows(2, 2), rows(2, 2), rows(2, 2), rewards(2, 2), rewards(2, 2), rows(2, 2, 2))
