"""Bad input raises when a task is made: what is wrong, where, and what to do."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from rlinf_ppl.tasks import MDP

DENSE = {
    "transition": np.full((3, 2, 3), 1 / 3),
    "reward": np.arange(6.0).reshape(3, 2),
    "initial": np.array([0.5, 0.5, 0.0]),
}
SPARSE = {
    "successors": np.array([[0, 1], [1, 2], [2, 0]]),
    "probabilities": np.full((3, 2, 2), 0.5),
    "reward": np.arange(6.0).reshape(3, 2),
    "initial": np.array([0.5, 0.5, 0.0]),
}


def with_entry(array, index, value):
    array = np.array(array, dtype=float)
    array[index] = value
    return array


BAD_DENSE = [
    # a distribution that is none
    (
        "transition",
        with_entry(DENSE["transition"], (1, 0, 2), 0.2),
        ["transition[1, 0]", "0.133 too little", "each row transition[state, action] must sum to one"],
    ),
    ("transition", with_entry(DENSE["transition"], (2, 1, 0), 1.0), ["transition[2, 1]", "0.667 too much"]),
    ("transition", with_entry(DENSE["transition"], (0, 1, 0), 1 / 3 + 2e-5), ["transition[0, 1]", "2e-05 too much"]),
    (
        "transition",
        with_entry(DENSE["transition"], (0, 1), [-0.5, 1, 0.5]),
        ["transition[0, 1, 0] is -0.5", "cannot be negative"],
    ),
    (
        "transition",
        with_entry(DENSE["transition"], (2, 0, 1), np.nan),
        ["transition[2, 0, 1] is nan", "between 0 and 1"],
    ),
    ("transition", with_entry(DENSE["transition"], (2, 0, 1), np.inf), ["transition[2, 0, 1] is inf"]),
    ("transition", with_entry(DENSE["transition"], (2, 0), [np.inf, -np.inf, 0]), ["transition[2, 0, 0] is inf"]),
    ("initial", [0.5, 0.4, 0], ["initial sums to 0.9", "0.1 too little", "its entries must sum to one"]),
    ("initial", [1.5, -0.5, 0], ["initial[1] is -0.5", "cannot be negative"]),
    ("initial", [np.nan, 1, 0], ["initial[0] is nan"]),
    ("initial", [0, 0, 0], ["initial sums to 0, 1 too little"]),
    # rewards that are not finite
    ("reward", with_entry(DENSE["reward"], (2, 1), np.nan), ["reward[2, 1] is nan", "must be finite"]),
    ("reward", with_entry(DENSE["reward"], (0, 1), np.inf), ["reward[0, 1] is inf", "must be finite"]),
    (
        "reward",
        with_entry(DENSE["reward"], (1, 1), -np.inf),
        ["reward[1, 1] is -inf", "give prior 0 to impossible actions", "separate_impossible_actions"],
    ),
    ("reward", with_entry(np.zeros((4, 3, 2)), (3, 2, 1), np.nan), ["reward[3, 2, 1] is nan"]),
    # shapes
    ("transition", np.ones((3, 3)), ["transition has shape (3, 3)", "3 axes (states, actions, next states)"]),
    ("transition", np.ones((3, 2, 4)), ["transition has shape (3, 2, 4)", "must be (3, 2, 3)"]),
    ("transition", np.ones((2, 3, 3)), ["must be (2, 3, 2)", "actions come first, conventions.from_action_first"]),
    ("transition", np.ones((0, 2, 0)), ["transition has shape (0, 2, 0)", "no states", "at least one"]),
    ("transition", np.ones((3, 0, 3)), ["transition has shape (3, 0, 3)", "no actions"]),
    (
        "reward",
        np.zeros((2, 3)),
        ["reward has shape (2, 3)", "transition has shape (3, 2, 3)", "must be (3, 2) or (T, 3, 2)"],
    ),
    ("reward", np.zeros(3), ["reward has shape (3,)", "must be (3, 2) or (T, 3, 2)"]),
    ("reward", np.zeros((0, 3, 2)), ["reward has shape (0, 3, 2)"]),
    ("reward", np.zeros((3, 2, 3)), ["reward has shape (3, 2, 3)", "must be (3, 2) or (T, 3, 2)"]),
    ("reward", 1.0, ["reward has shape ()"]),
    ("initial", [1.0, 0.0], ["initial has shape (2,)", "transition has shape (3, 2, 3)", "must be (3,)"]),
    ("initial", np.ones((3, 1)), ["initial has shape (3, 1)"]),
    ("reward", [[1.0, 2.0], [3.0]], ["reward is not a rectangular array", "equal length"]),
    # names
    ("state_names", ["a", "b"], ["state_names has 2 names for 3 states", "give one for each"]),
    ("state_names", ["a", "b", "a"], ["state_names has 'a' more than once"]),
    ("action_names", ["left", "right", "up"], ["action_names has 3 names for 2 actions"]),
    ("action_names", ["left", "left"], ["action_names has 'left' more than once"]),
]

BAD_SPARSE = [
    ("successors", [[0, 1], [1, 3], [2, 0]], ["successors[1, 1] is 3", "there are 3 states", "from 0 to 2"]),
    ("successors", [[0, -1], [1, 2], [2, 0]], ["successors[0, 1] is -1", "padded"]),
    ("successors", np.full((3, 2), 2**40), ["successors[0, 0] is 1099511627776"]),
    (
        "successors",
        [[0, 1], [1, 2]],
        ["successors has shape (2, 2)", "probabilities has shape (3, 2, 2)", "must be (3, 2) or (3, 2, 2)"],
    ),
    ("successors", [[0, 1], [1], [2, 0]], ["successors is not a rectangular array"]),
    ("probabilities", np.ones((3, 2)), ["probabilities has shape (3, 2)", "(states, actions, outcomes)"]),
    ("probabilities", np.ones((3, 2, 0)), ["probabilities has shape (3, 2, 0)", "no outcomes"]),
    (
        "probabilities",
        with_entry(SPARSE["probabilities"], (2, 1, 0), 0.4),
        ["probabilities[2, 1] sums to 0.9", "0.1 too little"],
    ),
    ("probabilities", with_entry(SPARSE["probabilities"], (2, 1), [1.5, -0.5]), ["probabilities[2, 1, 1] is -0.5"]),
    ("probabilities", with_entry(SPARSE["probabilities"], (0, 0, 0), np.nan), ["probabilities[0, 0, 0] is nan"]),
    ("reward", np.zeros((3, 3)), ["reward has shape (3, 3)", "probabilities has shape (3, 2, 2)"]),
    ("reward", np.full((3, 2), -np.inf), ["give prior 0 to impossible actions"]),
    ("initial", [0.5, 0.5], ["initial has shape (2,)", "probabilities has shape (3, 2, 2)"]),
    ("initial", [0.5, 0.6, 0], ["initial sums to 1.1", "0.1 too much"]),
    ("action_names", ["a"], ["action_names has 1 names for 2 actions"]),
]


WRONG_TYPES = [
    (MDP, DENSE, "reward", [["a", "b"]] * 3, ["reward holds <U1", "give an array of floats"]),
    (MDP, DENSE, "reward", np.zeros((3, 2), complex), ["reward holds complex128"]),
    (MDP, DENSE, "reward", jnp.zeros((3, 2), complex), ["reward holds complex128"]),
    (MDP, DENSE, "initial", [None, 1, 0], ["initial holds object"]),
    (MDP, DENSE, "initial", {0: 1.0}, ["initial"]),
    (MDP, DENSE, "state_names", "abc", ["state_names is the one string 'abc'", "3 strings"]),
    (MDP.sparse, SPARSE, "successors", [[0.0, 1], [1, 2], [2, 0]], ["successors holds float64", "not integers"]),
    (MDP.sparse, SPARSE, "successors", [["0", "1"]] * 3, ["successors holds <U1"]),
]


def assert_raises(error, make, fragments):
    with pytest.raises(error) as caught:
        make()
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize(("argument", "value", "fragments"), BAD_DENSE)
def test_bad_dense_input(argument, value, fragments):
    assert_raises(ValueError, lambda: MDP(**DENSE | {argument: value}), fragments)


@pytest.mark.parametrize(("argument", "value", "fragments"), BAD_SPARSE)
def test_bad_sparse_input(argument, value, fragments):
    assert_raises(ValueError, lambda: MDP.sparse(**SPARSE | {argument: value}), fragments)


@pytest.mark.parametrize(("make", "arguments", "argument", "value", "fragments"), WRONG_TYPES)
def test_wrong_types(make, arguments, argument, value, fragments):
    assert_raises(TypeError, lambda: make(**arguments | {argument: value}), fragments)


def test_a_name_that_is_no_string(monkeypatch):
    with pytest.raises(TypeError):  # beartype says so first where it checks the annotation
        MDP(**DENSE, action_names=[1, 2])
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(TypeError, match=r"action_names\[1\] is 2, of type int: give strings"):
        MDP(**DENSE, action_names=["left", 2])


def test_reward_beyond_float32_is_found_infinite():
    with jax.enable_x64(False), pytest.raises(ValueError, match=r"reward\[0, 1\] is inf"):
        MDP(**DENSE | {"reward": with_entry(DENSE["reward"], (0, 1), 1e300)})
