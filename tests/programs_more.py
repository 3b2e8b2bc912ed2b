"""More step programs in both languages (see `programs`): final factors, temperatures, and uncommon next states."""

from functools import cache

import jax.numpy as jnp
import numpyro
from numpyro.distributions import Bernoulli, Categorical, DiscreteUniform
from oracles.trajectories import Program, Trajectories, chance, decision, enumerate_trajectories, optimality
from programs import PAIRS, add, draw_s, mdp_step, mdp_truth, one, pair, rewards, rows

from rlinf_ppl import decide
from rlinf_ppl import optimality as factor

__all__ = ["FAINT", "PAIRS", "listed"]


@cache
def listed(name: str) -> Trajectories:
    """Every trajectory of one of `PAIRS`."""
    return enumerate_trajectories(PAIRS[name].truth)


# ---- a final factor: beside rewards with a discount, and alone -----------------------------------------------------
def mdp_final(start, transition, reward, prior, last, s):
    factor(last[s])


def mdp_step_of_five(start, transition, reward, prior, last, s):
    return mdp_step(start, transition, reward, prior, s)


def goal_step(start, transition, reward, prior, last, s):
    a = decide("a", Categorical(probs=prior[s]))
    return {"s": numpyro.sample("s_next", Categorical(probs=transition[s, a]))}


def final(start, transition, reward, prior, last):
    arrays = start, transition, reward, prior, last
    truth = mdp_truth(*arrays[:4], discount=0.8, final=lambda state: last[state["s"]])
    add("discounted_final", draw_s, mdp_step_of_five, truth, {"a": ("s",)}, arrays, final=mdp_final)
    truth = mdp_truth(start, transition, 0 * reward, prior, final=lambda state: last[state["s"]])
    add("final_only", draw_s, goal_step, truth, {"a": ("s",)}, arrays, final=mdp_final)


final(rows(3), rows(3, 2, 3), rewards(3, 2), rows(3, 2), rewards(3))
arrays = rows(3), rows(3, 2, 3), rewards(3, 2), rows(3, 2)
add("discounted", draw_s, mdp_step, mdp_truth(*arrays, discount=0.85), {"a": ("s",)}, arrays)


# ---- two players with inverse temperatures -------------------------------------------------------------------------
def game_step(start, transition, reward, prior_a, prior_b, temperatures, s):
    a = decide("a", Categorical(probs=prior_a[s]), inverse_temperature=temperatures[0])
    b = decide("b", Categorical(probs=prior_b[s, a]), inverse_temperature=temperatures[1])
    factor(reward[s, a, b])
    return {"s": numpyro.sample("s_next", Categorical(probs=transition[s, a, b]))}


def game_final(start, transition, reward, prior_a, prior_b, temperatures, s):
    factor(0.5 * reward[s, 0, 1])


def game(name, temperatures, discount=1.0, horizon=2):
    start, transition, reward = rows(2), rows(2, 2, 2, 2), 2 * rewards(2, 2, 2)
    prior_a, prior_b = rows(2, 2), rows(2, 2, 2)
    truth = Program(
        state={"s": 2},
        step=(
            decision("a", 2, lambda v: prior_a[v["s"]], temperatures[0]),
            decision("b", 2, lambda v: prior_b[v["s"], v["a"]], temperatures[1]),
            optimality(lambda v: reward[v["s"], v["a"], v["b"]]),
            chance("s_next", 2, lambda v: transition[v["s"], v["a"], v["b"]]),
        ),
        next_state=lambda v: {"s": v["s_next"]},
        horizon=horizon,
        discount=discount,
        final=lambda state: 0.5 * reward[state["s"], 0, 1],
        **one("s", 2, start),
    )
    arrays = start, transition, reward, prior_a, prior_b, jnp.array(temperatures)
    return pair(name, draw_s, game_step, truth, {"a": ("s",), "b": ("s", "a")}, arrays, final=game_final)


PAIRS["tempered"] = game("tempered", (0.6, 0.6), discount=0.9)
PAIRS["two_temperatures"] = game("two_temperatures", (0.5, 2.0), discount=0.9)
PAIRS["adversary"] = game("adversary", (1.5, -0.8))
PAIRS["zero_temperature"] = game("zero_temperature", (1.3, 0.0))
FAINT = game("faint", (1e-6, 1e-6), discount=0.9)


# ---- a state variable that passes through unchanged ----------------------------------------------------------------
def goal_initial(start, start_g, *others):
    return {"g": numpyro.sample("g", Categorical(probs=start_g)), "s": numpyro.sample("s", Categorical(probs=start))}


def pass_step(start, start_g, transition, reward, prior, g, s):
    a = decide("a", Categorical(probs=prior[s]))
    factor(reward[g, s, a])
    return {"s": numpyro.sample("s_next", Categorical(probs=transition[s, a])), "g": g}


def pass_through(start, start_g, transition, reward, prior):
    truth = Program(
        state={"g": 2, "s": 2},
        initial=(chance("g", 2, lambda v: start_g), chance("s", 2, lambda v: start)),
        initial_state=lambda v: {"g": v["g"], "s": v["s"]},
        step=(
            decision("a", 3, lambda v: prior[v["s"]]),
            optimality(lambda v: reward[v["g"], v["s"], v["a"]]),
            chance("s_next", 2, lambda v: transition[v["s"], v["a"]]),
        ),
        next_state=lambda v: {"g": v["g"], "s": v["s_next"]},
        horizon=3,
    )
    arrays = start, start_g, transition, reward, prior
    add("pass_through", goal_initial, pass_step, truth, {"a": ("g", "s")}, arrays)


pass_through(rows(2), rows(2), rows(2, 3, 2), rewards(2, 2, 3), rows(2, 3))


# ---- a next state that depends on time, from a decision with an empty scope ----------------------------------------
def clock_step(start, draw, reward, own, prior, s, t):
    factor(reward[t, s], "here")
    a = decide("a", Categorical(probs=prior))
    factor(own[a])
    x = numpyro.sample("x", Categorical(probs=draw[a]))
    return {"s": (x + t) % 3}


def clock(start, draw, reward, own, prior):
    truth = Program(
        state={"s": 3},
        step=(
            optimality(lambda v: reward[v["t"], v["s"]], "here"),
            decision("a", 2, lambda v: prior),
            optimality(lambda v: own[v["a"]]),
            chance("x", 3, lambda v: draw[v["a"]]),
        ),
        next_state=lambda v: {"s": (v["x"] + v["t"]) % 3},
        horizon=4,
        **one("s", 3, start),
    )
    add("clock", draw_s, clock_step, truth, {"a": ()}, (start, draw, reward, own, prior))


clock(rows(3), rows(2, 3), rewards(4, 3), rewards(2), rows(2))


# ---- supports: outcomes 1..3 and a Bernoulli decision --------------------------------------------------------------
def dice_initial(reward, prior):
    return {"s": numpyro.sample("s", DiscreteUniform(1, 3))}


def dice_step(reward, prior, s):
    thrown = numpyro.sample("thrown", DiscreteUniform(1, 3))
    keep = decide("keep", Bernoulli(probs=prior[s - 1]))
    factor(reward[thrown - 1, keep] + 0.1 * s)
    return {"s": jnp.where(keep == 1, s, thrown)}


def dice(reward, prior):
    third, values = [1 / 3] * 3, (1, 2, 3)
    truth = Program(
        state={"s": values},
        step=(
            chance("thrown", values, lambda v: third),
            decision("keep", 2, lambda v: [1 - prior[v["s"] - 1], prior[v["s"] - 1]]),
            optimality(lambda v: reward[v["thrown"] - 1, v["keep"]] + 0.1 * v["s"]),
        ),
        next_state=lambda v: {"s": v["s"] if v["keep"] == 1 else v["thrown"]},
        horizon=3,
        **one("s", values, third),
    )
    add("dice", dice_initial, dice_step, truth, {"keep": ("s", "thrown")}, (reward, prior))


dice(rewards(3, 2), rows(3, 2)[:, 1])
