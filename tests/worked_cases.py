"""Worked cases that lie beside the repository, where it is checked out with them."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from oracles.trajectories import Program, chance, decision, optimality

FILE = Path(__file__).parents[2] / "shared" / "reference" / "expected_single_agent.json"


@cache
def _read():
    return json.loads(FILE.read_text())


def worked_case(name):
    """Inputs and outputs of one case as NumPy arrays, and its relative tolerance; skips where the file is absent."""
    if not FILE.exists():
        pytest.skip("the worked cases are not beside this checkout (../shared/reference)")
    case = _read()[name]
    arrays = ({k: np.asarray(v) for k, v in case[part].items()} for part in ("inputs", "outputs"))
    return *arrays, case["tolerance"]


def mdp_program(given):
    """A case's MDP as data for the oracles: time-varying rewards and priors, optimality in nats."""
    horizon, states, actions = given["r"].shape
    return Program(
        state={"s": states},
        initial=(chance("s", states, lambda v: given["p1"]),),
        initial_state=lambda v: {"s": v["s"]},
        step=(
            decision("a", actions, lambda v: given["prior"][v["t"], v["s"]]),
            optimality(lambda v: given["beta"] * given["r"][v["t"], v["s"], v["a"]]),
            chance("s_next", states, lambda v: given["P"][v["s"], v["a"]]),
        ),
        next_state=lambda v: {"s": v["s_next"]},
        horizon=horizon,
        discount=float(given.get("gamma", 1.0)),
    )
