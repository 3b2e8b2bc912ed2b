"""Gymnasium's tables, against a reconstruction that runs through them entry by entry."""

import subprocess
import sys

import gymnasium
import jaxtyping
import numpy as np
import pytest

from rlinf_ppl.tasks import MDP, conventions

TABLES = [
    ("FrozenLake-v1", {}),
    ("FrozenLake-v1", {"is_slippery": False}),
    ("FrozenLake-v1", {"desc": ["SFS", "FHF", "FFG"], "success_rate": 0.8, "reward_schedule": (10, -1, -2)}),
    ("FrozenLake8x8-v1", {}),
    ("CliffWalking-v1", {}),
    ("CliffWalkingSlippery-v1", {}),
    ("Taxi-v4", {}),
    ("Taxi-v4", {"is_rainy": True}),
]
SHAPES = {
    "FrozenLake-v1": (16, 4),
    "FrozenLake8x8-v1": (64, 4),
    "CliffWalking-v1": (48, 4),
    "CliffWalkingSlippery-v1": (48, 4),
    "Taxi-v4": (500, 6),
}


def name_of(value):
    return value if isinstance(value, str) else " ".join(value)


@pytest.fixture(params=TABLES, ids=lambda param: " ".join(map(name_of, param)).strip())
def case(request):
    environment_id, kwargs = request.param
    environment = gymnasium.make(environment_id, **kwargs)
    yield MDP.from_gymnasium(environment_id, **kwargs), environment.unwrapped
    environment.close()


def test_table(case):
    mdp, environment = case
    ends = {n for actions in environment.P.values() for rows in actions.values() for _, n, _, done in rows if done}
    transition = np.zeros((mdp.num_states, mdp.num_actions, mdp.num_states))
    reward = np.zeros((mdp.num_states, mdp.num_actions))
    for state, actions in environment.P.items():
        for action, rows in actions.items():
            if state in ends:
                transition[state, action, state] = 1
                continue
            for probability, next_state, gain, _ in rows:
                transition[state, action, next_state] += probability
                reward[state, action] += probability * gain
    np.testing.assert_allclose(mdp.transition, transition, rtol=1e-14)
    np.testing.assert_allclose(mdp.reward, reward, rtol=1e-14)
    np.testing.assert_array_equal(mdp.initial, environment.initial_state_distrib)
    np.testing.assert_array_equal(np.flatnonzero(mdp.terminal), sorted(ends))


def test_episodes_follow_the_table(case):
    """Random episodes: each step has the probability that the environment reports, and ends where the task does."""
    mdp, environment = case
    rng = np.random.default_rng(0)
    transition, terminal = np.asarray(mdp.transition), np.asarray(mdp.terminal)
    state, _ = environment.reset(seed=0)
    for _ in range(300):
        assert not terminal[state]
        action = int(rng.integers(mdp.num_actions))
        next_state, _, done, _, _ = environment.step(action)
        assert transition[state, action, next_state] > 0
        assert terminal[next_state] == done
        state = environment.reset()[0] if done else next_state


@pytest.mark.parametrize(("environment_id", "shape"), SHAPES.items())
def test_shapes_and_action_names(environment_id, shape):
    mdp = MDP.from_gymnasium(environment_id)
    assert (mdp.num_states, mdp.num_actions) == shape
    assert len(mdp.action_names) == shape[1]


@pytest.mark.parametrize("environment_id", SHAPES)
def test_action_names_are_the_moves(environment_id):
    """From a cell in the middle, an action may lead to the cell that its name says, and not to the opposite one."""
    mdp = MDP.from_gymnasium(environment_id, **{"is_slippery": False} if "Frozen" in environment_id else {})
    moves = {"up": (-1, 0), "north": (-1, 0), "right": (0, 1), "east": (0, 1), "down": (1, 0), "south": (1, 0)}
    moves |= {"left": (0, -1), "west": (0, -1)}
    columns, cell, scale = {16: (4, 9, 1), 64: (8, 9, 1), 48: (12, 14, 1), 500: (5, 12, 20)}[mdp.num_states]
    for action, name in enumerate(mdp.action_names):
        if name in moves:
            rows, cols = moves[name]
            target = (cell + columns * rows + cols) * scale
            probabilities = np.asarray(mdp.transition[cell * scale, action])
            assert probabilities[target] > 0
            opposite = (cell - columns * rows - cols) * scale
            assert probabilities[opposite] == 0


@pytest.mark.parametrize("environment_id", ["Blackjack-v1", "CartPole-v1"])
def test_without_a_table(environment_id):
    with pytest.raises(ValueError, match=f"'{environment_id}' has no transition table"):
        MDP.from_gymnasium(environment_id)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Gymnasium warns before it raises
@pytest.mark.parametrize(
    ("environment_id", "message"),
    [
        ("Taxi-v3", "Gymnasium cannot make 'Taxi-v3': .* Please use `Taxi-v4` instead"),
        ("CliffWalking-v0", "Please use `CliffWalking-v1` instead"),
        ("FrozenLake-v9", "It provides versioned environments"),
        ("FrozenPond-v1", "Environment `FrozenPond` doesn't exist"),
        ("no id", "Gymnasium cannot make 'no id': .*Malformed"),
    ],
)
def test_ids_that_gymnasium_refuses(environment_id, message):
    with pytest.raises(ValueError, match=message):
        MDP.from_gymnasium(environment_id)


def test_what_is_no_environment(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(TypeError, match="give a Gymnasium id such as 'FrozenLake-v1', or an environment; got int"):
        MDP.from_gymnasium(8)
    made = gymnasium.make("FrozenLake-v1")
    with pytest.raises(TypeError, match=r"\['is_slippery'\] are options of gymnasium.make, but an environment that is"):
        MDP.from_gymnasium(made, is_slippery=False)
    assert MDP.from_gymnasium(made).num_states == 16


def test_a_table_that_is_not_the_task():
    with pytest.raises(ValueError, match="fickle_passenger=True changes destinations outside of its transition table"):
        MDP.from_gymnasium("Taxi-v4", fickle_passenger=True)


def test_gymnasium_is_imported_only_when_asked_for():
    code = "import sys, rlinf_ppl.tasks; sys.exit('gymnasium' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=100).returncode == 0


class TestOutcomeTable:
    def test_repeated_next_states_add_up(self):
        table = {
            0: {0: [(0.25, 1, 4.0, False), (0.5, 0, 0.0, False), (0.25, 1, 8.0, False)]},
            1: {0: [(1, 1, 0, False)]},
        }
        transition, reward = conventions.from_outcome_table(table, [1, 0])
        np.testing.assert_allclose(transition[0, 0], [0.5, 0.5])
        assert reward[0, 0] == 3.0

    def test_done_makes_a_state_absorbing_in_place(self):
        table = {0: {0: [(1.0, 1, 5.0, True)]}, 1: {0: [(1.0, 0, -1.0, False)]}}
        transition, reward = conventions.from_outcome_table(table, [1, 0])
        np.testing.assert_array_equal(transition[:, 0], [[0, 1], [0, 1]])
        np.testing.assert_array_equal(reward, [[5.0], [0.0]])

    def test_entered_with_and_without_done(self):
        table = {
            0: {0: [(0.5, 1, 0.0, False), (0.5, 2, 0.0, False)]},
            1: {0: [(1.0, 2, 1.0, True)]},
            2: {0: [(1.0, 0, 0.0, False)]},
        }
        with pytest.raises(ValueError, match="state 2 is entered both with and without done"):
            conventions.from_outcome_table(table, [1, 0, 0])

    def test_done_on_the_way_back_to_the_start(self):
        table = {0: {0: [(1.0, 1, 0.0, False)]}, 1: {0: [(1.0, 0, 1.0, True)]}}
        with pytest.raises(ValueError, match="state 0 is entered both with and without done"):
            conventions.from_outcome_table(table, [1, 0])

    def test_what_episodes_cannot_reach_is_no_conflict(self):
        table = {
            0: {0: [(1.0, 1, 1.0, True), (0.0, 1, 1.0, False)]},
            1: {0: [(1.0, 0, 0.0, False)]},
            2: {0: [(1.0, 1, 0.0, False)]},
        }
        transition, _ = conventions.from_outcome_table(table, [1, 0, 0])
        np.testing.assert_array_equal(transition[:, 0], [[0, 1, 0], [0, 1, 0], [0, 1, 0]])
        with pytest.raises(ValueError, match="state 1 is entered both"):
            conventions.from_outcome_table(table, [0.5, 0, 0.5])

    def test_done_out_of_reach_does_not_stop_what_is_passed_through(self):
        table = {
            0: {0: [(1.0, 1, 0.0, False)]},
            1: {0: [(1.0, 0, 0.0, False)]},
            2: {0: [(1.0, 1, 0.0, True)]},
        }
        transition, _ = conventions.from_outcome_table(table, [1, 0, 0])
        np.testing.assert_array_equal(transition[1, 0], [1, 0, 0])

    def test_a_state_that_nothing_leaves_may_be_entered_either_way(self):
        table = {0: {0: [(0.5, 1, 0.0, True), (0.5, 1, 0.0, False)]}, 1: {0: [(1.0, 1, 0.0, False)]}}
        transition, _ = conventions.from_outcome_table(table, [1, 0])
        np.testing.assert_array_equal(transition[:, 0], [[0, 1], [0, 1]])

    @pytest.mark.parametrize(
        ("table", "initial", "message"),
        [
            ({}, [], "table has 0 states"),
            ({1: {0: [(1.0, 1, 0.0, False)]}}, [1], "number them 0, 1, ... without gaps"),
            ({0: {}}, [1], r"table\[0\] has the actions \[\]"),
            ({0: {0: [(1, 0, 0, False)]}, 1: {1: [(1, 1, 0, False)]}}, [1, 0], r"table\[1\] has the actions \[1\]"),
            ({0: {0: [(1.0, 3, 0.0, False)]}}, [1], r"table\[0\]\[0\] holds \(1.0, 3, 0.0, False\).*from 0 to 0"),
            ({0: {0: [(1.0, 0, 0.0, False)]}}, [1, 0], r"initial has shape \(2,\), but table has shape \(1, 1\)"),
        ],
    )
    def test_bad_tables(self, table, initial, message):
        with pytest.raises(ValueError, match=message):
            conventions.from_outcome_table(table, initial)

    def test_a_row_without_outcomes_is_found_by_the_task(self):
        with pytest.raises(ValueError, match=r"transition\[0, 0\] sums to 0"):
            MDP(*conventions.from_outcome_table({0: {0: []}}, [1]), [1])
