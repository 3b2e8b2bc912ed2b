"""Random tasks with options twice: in the library's models, and as plain data for the oracles.

A dictionary holds a task's arrays by the names of the model's arguments, (M,) or (M, N) the numbers of options. Every
array may lead with an axis of time, which the oracle's functions look up at `t`.
"""

import numpy as np
from oracles.trajectories import Program, chance, decision, optimality

from rlinf_ppl import models
from rlinf_ppl.tasks import MDP, StochasticGame


def rows(rng, *shape, zeros=0.0):
    """Random distributions over the last axis, with about that share of exact zeros (never the last entry)."""
    weights = rng.gamma(1.0, size=shape) * (rng.random(shape) >= zeros)
    weights[..., -1] += 0.1
    return weights / weights.sum(-1, keepdims=True)


def endings(rng, times, *shape, zeros):
    """Random priors of termination: with zeros, keeping may be impossible, and in the first state terminating."""
    array = rows(rng, *times, *shape, 2, zeros=zeros)
    first = (slice(None),) * len(times) + (0,)
    array[first] = array[first][..., ::-1]
    return array


def now(array, rank, v):
    """An array at the time of the values `v`, if it varies over time."""
    return array[v["t"]] if array.ndim > rank else array


def kept_or_chosen(terminated, prior, kept):
    """The prior over the next option, written out: all mass on the one that is kept, or the master's prior."""
    return prior if terminated else [float(z == kept) for z in range(len(prior))]


def soft_task(seed, sizes=(2, 3, 2), times=(), zeros=0.0):
    """Arrays of a task with options, S states, M options and A actions."""
    rng, (states, options, actions) = np.random.default_rng(seed), sizes
    return {
        "transition": rows(rng, states, actions, states, zeros=zeros),
        "reward": rng.normal(size=(*times, states, actions)),
        "initial": rows(rng, states),
        "action_prior": rows(rng, *times, states, options, actions, zeros=zeros),
        "option_prior": rows(rng, *times, states, options, zeros=zeros),
        "termination_prior": endings(rng, times, states, options, zeros=zeros),
        "initial_option": rows(rng, options, zeros=zeros),
    }


def soft_control(task, horizon, beta=1.3, discount=0.9):
    """The library's program of a task with options."""
    mdp = MDP(task["transition"], task["reward"], task["initial"])
    priors = {name: array for name, array in task.items() if name.endswith(("prior", "option"))}
    return models.soft_options(mdp, horizon, len(task["initial_option"]), beta, discount=discount, **priors)


def soft_truth(task, horizon, beta=1.3, discount=0.9):
    """The same as data."""
    states, actions = task["transition"].shape[:2]
    options = len(task["initial_option"])
    terminate, choose, act = (task[f"{name}_prior"] for name in ("termination", "option", "action"))
    return Program(
        state={"s": states, "z_prev": options},
        initial=(
            chance("s", states, lambda v: task["initial"]),
            chance("z", options, lambda v: task["initial_option"]),
        ),
        initial_state=lambda v: {"s": v["s"], "z_prev": v["z"]},
        step=(
            decision("b", 2, lambda v: now(terminate, 3, v)[v["s"], v["z_prev"]]),
            decision("z", options, lambda v: kept_or_chosen(v["b"], now(choose, 2, v)[v["s"]], v["z_prev"])),
            decision("a", actions, lambda v: now(act, 3, v)[v["s"], v["z"]]),
            optimality(lambda v: beta * now(task["reward"], 2, v)[v["s"], v["a"]]),
            chance("s_next", states, lambda v: task["transition"][v["s"], v["a"]]),
        ),
        next_state=lambda v: {"s": v["s_next"], "z_prev": v["z"]},
        horizon=horizon,
        discount=discount,
    )


def delayed_task(seed, sizes=(2, 2, 2, 2, 2), times=(), zeros=0.0):
    """Arrays of a game with options: S states, M and N options, A and B actions of the agent and the opponent."""
    rng, (states, m, n, actions, others) = np.random.default_rng(seed), sizes
    return {
        "transition": rows(rng, states, actions, others, states, zeros=zeros),
        "reward": rng.normal(size=(*times, states, actions, others)),
        "initial": rows(rng, states),
        "action_prior": rows(rng, *times, states, n, m, actions, zeros=zeros),
        "option_prior": rows(rng, *times, states, n, m, zeros=zeros),
        "termination_prior": endings(rng, times, states, m, n, zeros=zeros),
        "opponent_action_prior": rows(rng, *times, states, m, actions, n, others, zeros=zeros),
        "opponent_option_prior": rows(rng, *times, states, m, actions, n, zeros=zeros),
        "opponent_termination_prior": endings(rng, times, states, n, m, actions, zeros=zeros),
        "initial_options": rows(rng, m * n, zeros=zeros).reshape(m, n),
    }


def delayed_control(task, horizon, beta=1.2, discount=0.9):
    """The library's program of a game with options."""
    game = StochasticGame(task["transition"], task["reward"], task["initial"])
    priors = {name: array for name, array in task.items() if name.endswith(("prior", "options"))}
    m, n = task["initial_options"].shape
    return models.delayed_options(game, horizon, m, beta, discount=discount, num_opponent_options=n, **priors)


def delayed_truth(task, horizon, beta=1.2, discount=0.9, gate="b_opp"):
    """The same as data; with `gate` "b_i" as half of the printed formulas have it."""
    states, actions, others, _ = task["transition"].shape
    m, n = task["initial_options"].shape
    terminate, choose, act = (task[f"{name}_prior"] for name in ("termination", "option", "action"))
    end, pick, answer = (task[f"opponent_{name}_prior"] for name in ("termination", "option", "action"))

    def master(v):
        return kept_or_chosen(v[gate], now(pick, 4, v)[v["s"], v["z_i"], v["a_i"]], v["z_opp_prev"])

    return Program(
        state={"s": states, "z_i_prev": m, "z_opp_prev": n},
        initial=(
            chance("s", states, lambda v: task["initial"]),
            chance("pair", m * n, lambda v: task["initial_options"].ravel()),
        ),
        initial_state=lambda v: {"s": v["s"], "z_i_prev": v["pair"] // n, "z_opp_prev": v["pair"] % n},
        step=(
            decision("b_i", 2, lambda v: now(terminate, 4, v)[v["s"], v["z_i_prev"], v["z_opp_prev"]]),
            decision(
                "z_i", m, lambda v: kept_or_chosen(v["b_i"], now(choose, 3, v)[v["s"], v["z_opp_prev"]], v["z_i_prev"])
            ),
            decision("a_i", actions, lambda v: now(act, 4, v)[v["s"], v["z_opp_prev"], v["z_i"]]),
            decision("b_opp", 2, lambda v: now(end, 5, v)[v["s"], v["z_opp_prev"], v["z_i"], v["a_i"]]),
            decision("z_opp", n, master),
            decision("a_opp", others, lambda v: now(answer, 5, v)[v["s"], v["z_i"], v["a_i"], v["z_opp"]]),
            optimality(lambda v: beta * now(task["reward"], 3, v)[v["s"], v["a_i"], v["a_opp"]]),
            chance("s_next", states, lambda v: task["transition"][v["s"], v["a_i"], v["a_opp"]]),
        ),
        next_state=lambda v: {"s": v["s_next"], "z_i_prev": v["z_i"], "z_opp_prev": v["z_opp"]},
        horizon=horizon,
        discount=discount,
    )
