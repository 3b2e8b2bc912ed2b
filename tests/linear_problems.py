"""Linear-Gaussian problems whose numbers are far apart in size, and what 60 digits say of them."""

from typing import Any

import numpy as np
import pytest
from oracles import decimals

from rlinf_ppl import models
from rlinf_ppl.tasks import LinearQuadratic

DTYPES = pytest.mark.parametrize("double", [True, False], ids=["float64", "float32"])
SINGLE_FIRST = pytest.mark.parametrize(
    "double", [pytest.param(True, marks=pytest.mark.slow), False], ids=["float64", "float32"]
)
TOLERANCE = {True: 1e-6, False: 1e-3}
INTEGRATOR = {"A": [[1.0, 0.1], [0.0, 1.0]], "B": [[0.0], [0.1]]}

# Each is a change to: one dimension, x' = x + u, reward -x^2 - u^2, u ~ N(0, 1) and x ~ N(0, 1) at first.
HARD: dict[str, dict[str, Any]] = {
    "a decision that moves nothing, wide prior": {"B": [[0.0]], "M": 0.0, "sd": 1e3},
    "a decision that moves nothing, wider prior": {"B": [[0.0]], "M": 0.0, "sd": 1e4},
    "prior standard deviation .001": {"sd": 1e-3, "steps": 5},
    "prior standard deviation 20": {"sd": 20.0},
    "prior standard deviation 1e4, no cost of control": {"H": 0.0, "sd": 1e4, "steps": 3},
    "costs at the end only": {"H": 0.0, "end": -1.0, "sd": 1e4, "steps": 3},
    "costs at the end only, 20 steps": {"H": 0.0, "end": -1.0, "sd": 1e4, "steps": 20, "goal": 3.0},
    "redundant controls": {"B": [[1.0, 1.0]], "H": 0.0, "sd": 1e4},
    "redundant controls, end only": {"B": [[1.0, 1.0]], "H": 0.0, "end": -1.0, "sd": 1e3, "steps": 3},
    "far from the origin": {"m0": 1e5, "goal": 1e5 + 3, "steps": 5},
    "a goal far away": {"goal": 1e5, "steps": 5},
    "a goal far away that is cheap to reach": {"goal": 1e5, "H": 0.0, "end": -1.0, "sd": 1e4, "steps": 10},
    "inverse temperature 1e8": {"tau": 1e8, "steps": 5, "noise": 0.1},
    "inverse temperature 1e-6": {"tau": 1e-6, "steps": 5, "noise": 0.1},
    "costs of 1e8": {"M": -1e8, "steps": 5, "noise": 0.1},
    "costs of 1e8 far away": {"M": -1e8, "steps": 5, "noise": 0.1, "m0": 1e4, "goal": 1e4},
    "a diffuse first state": {"s0": 1e4, "steps": 2, "goal": 0.3},
    "data far from a diffuse first state": {"s0": 1e4, "goal": 5000.5},
    "a certain first state": {"s0": 0.0, "steps": 4, "m0": 2.0},
    "singular noise": {**INTEGRATOR, "noise": [[0.0, 0.0], [0.0, 0.3]], "steps": 10, "m0": 1.0},
    "a prior that follows the state": {"gain": [[-30.0]], "sd": 100.0, "steps": 3},
    "an unstable state": {"A": [[2.0, 0.3], [0.0, 0.5]], "B": [[1.0], [0.2]], "steps": 30, "noise": 0.1, "m0": 1.0},
    "a thousand steps": {**INTEGRATOR, "steps": 1000, "noise": 0.05, "H": -0.1},
    "a thousand steps to one cost": {**INTEGRATOR, "steps": 1000, "H": 0.0, "end": -1.0, "m0": 3.0},
    "units that are far apart": {
        "A": [[1.0, 1e-4], [0.0, 1.0]],
        "B": [[0.0], [1e3]],
        "M": [[-1.0, 0.0], [0.0, -1e-7]],
        "s0": [[1.0, 0.0], [0.0, 1e4]],
        "steps": 10,
    },
}  # fmt: skip


def problem(double, A=((1.0,),), B=((1.0,),), M=-1.0, H=-1.0, end=None, goal=0.0, m0=0.0, s0=1.0, noise=0.0, sd=1.0,
            gain=0.0, tau=1.0, steps=1):  # fmt: skip
    """The arguments of `decimals.control`, in numbers of the dtype."""
    A, B = np.asarray(A, float), np.asarray(B, float)
    n, m = B.shape
    square = lambda x, *shape: np.asarray(x, float) if np.ndim(x) else x * np.eye(*shape)  # noqa: E731
    rewards = [square(M, n, n) if end is None else np.zeros((n, n))] * steps
    rewards.append(square(M if end is None else end, n, n))
    given = {
        "A": A, "B": B, "c": np.zeros(n), "noise_root": square(noise, n, n), "state_reward": np.array(rewards),
        "action_reward": square(H, m, m), "goal": np.full(n, goal), "mean": np.full(n, m0), "root": square(s0, n, n),
        "gain": square(gain, m, n), "offset": np.zeros(m), "prior_root": square(sd, m, m), "tau": tau,
    }  # fmt: skip
    if double:
        return given, steps
    return {name: np.asarray(np.asarray(x, np.float32), float) for name, x in given.items()}, steps


def program_of(given, steps):
    square = lambda x: x @ x.T  # noqa: E731
    task = LinearQuadratic(
        given["A"], given["B"], given["c"], square(given["noise_root"]), given["state_reward"], given["action_reward"],
        given["goal"], given["mean"], square(given["root"]),
    )  # fmt: skip
    prior = given["gain"], given["offset"], square(given["prior_root"])
    return models.linear_gaussian(task, steps, prior, float(given["tau"]))


def wanted(given, steps, conditioned):
    listed = given | {"state_reward": list(given["state_reward"])}
    return decimals.control(**listed, steps=steps, conditioned=conditioned)
