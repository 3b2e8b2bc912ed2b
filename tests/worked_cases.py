"""Worked cases that lie beside the repository, where it is checked out with them."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from oracles.trajectories import Program, chance, decision, optimality

REFERENCE = Path(__file__).parents[2] / "shared" / "reference"


@cache
def _read(file):
    return json.loads((REFERENCE / file).read_text())


def _cases(file):
    """The worked cases of one file; skips where it is absent."""
    if not (REFERENCE / file).exists():
        pytest.skip("the worked cases are not beside this checkout (../shared/reference)")
    return _read(file)


def worked_case(name):
    """Inputs and outputs of one case as NumPy arrays, and its relative tolerance; skips where the file is absent."""
    case = _cases("expected_single_agent.json")[name]
    arrays = ({k: np.asarray(v) for k, v in case[part].items()} for part in ("inputs", "outputs"))
    return *arrays, case["tolerance"]


def multi_agent_case(name):
    """Inputs and expected outputs of a case of two players or options, and the tolerance; skips where it is absent.

    Numbers and rectangular lists are NumPy arrays at any depth of the nested dicts and lists of dicts.
    """
    file = _cases("expected_multi_agent.json")
    case = file["cases"][name]
    return _arrays(case["inputs"]), _arrays(case["expected"]), file["tolerance"]


def _arrays(value):
    if isinstance(value, dict):
        return {key: _arrays(entry) for key, entry in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_arrays(entry) for entry in value]
    return value if isinstance(value, str) else np.asarray(value)


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
