"""The tasks of the gallery are what their docstrings say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from rlinf_ppl.tasks import gallery


def backward(mdp, horizon, chance):
    """Policies (T, S, A) and values (T + 1, S) at inverse temperature 1 with a uniform prior, by a loop.

    `chance(transition, value)` averages the next value: E V for control, log E exp V for the exact posterior.
    """
    transition, reward = np.asarray(mdp.dense().transition), np.asarray(mdp.reward)
    values, policies = [np.zeros(mdp.num_states)], []
    for _ in range(horizon):
        q = reward + chance(transition, values[0]) - np.log(mdp.num_actions)
        values.insert(0, logsumexp(q, axis=1))
        policies.insert(0, np.exp(q - values[0][:, None]))
    return np.array(policies), np.array(values)


def average(transition, value):
    return transition @ value


def condition(transition, value):
    return logsumexp(value, axis=-1, b=transition)


def visits(mdp, policies, values, posterior):
    """Expected number of visits of each state."""
    dynamics = np.asarray(mdp.dense().transition)
    here = np.asarray(mdp.initial)
    total = here.copy()
    for policy, value in zip(policies, values[1:], strict=True):
        step = dynamics * np.exp(value) if posterior else dynamics
        step = step / step.sum(-1, keepdims=True)
        here = np.einsum("s,sa,san->n", here, policy, step)
        total += here
    return dict(zip(mdp.state_names, total, strict=True))


class TestLottery:
    def test_the_two_answers_disagree(self):
        soft, _ = backward(gallery.lottery(), 2, average)
        posterior, _ = backward(gallery.lottery(), 2, condition)
        assert soft[0, 0, 1] == pytest.approx(np.exp(0.25) / (np.exp(0.25) + np.exp(1)))
        lucky = 0.25 * np.exp(4) + 0.75 * np.exp(-1)
        assert posterior[0, 0, 1] == pytest.approx(lucky / (lucky + np.exp(1)))
        assert soft[0, 0, 1] == pytest.approx(0.32, abs=0.005) and posterior[0, 0, 1] == pytest.approx(0.84, abs=0.005)

    def test_it_is_played_once(self):
        mdp = gallery.lottery()
        np.testing.assert_array_equal(mdp.terminal, [False] * 4 + [True])
        long, _ = backward(mdp, 6, average)
        short, _ = backward(mdp, 2, average)
        np.testing.assert_allclose(long[0, 0], short[0, 0])

    def test_numbers_are_used(self):
        mdp = gallery.lottery(win_probability=1, win=2, lose=3, safe=5)
        np.testing.assert_array_equal(mdp.transition[0, 1], [0, 0, 1, 0, 0])
        np.testing.assert_array_equal(mdp.reward[:, 0], [0, 5, 2, 3, 0])


MAP = """
    S.#
    .XG
"""


class TestGridWorld:
    def test_every_cell(self):
        mdp = gallery.grid_world(MAP, slip=0.2, step_reward=-1, goal_reward=5, pit_reward=-7)
        assert mdp.state_names == ("0,0", "0,1", "1,0", "1,1", "1,2", "end")
        assert mdp.action_names == ("up", "right", "down", "left")
        np.testing.assert_array_equal(mdp.reward, np.repeat([[-1], [-1], [-1], [-7], [5], [0]], 4, axis=1))
        np.testing.assert_array_equal(mdp.initial, [1, 0, 0, 0, 0, 0])
        np.testing.assert_array_equal(mdp.terminal, [False] * 5 + [True])
        table = np.asarray(mdp.dense().transition)
        expected = {
            # (up, right, down, left) from the corner "0,0", whose neighbours are "0,1" and "1,0"
            0: [[0.9, 0.1, 0, 0, 0, 0], [0.1, 0.8, 0.1, 0, 0, 0], [0.1, 0.1, 0.8, 0, 0, 0], [0.9, 0, 0.1, 0, 0, 0]],
            # from "0,1", with a wall to the right and the pit below
            1: [[0.1, 0.9, 0, 0, 0, 0], [0, 0.9, 0, 0.1, 0, 0], [0.1, 0.1, 0, 0.8, 0, 0], [0.8, 0.1, 0, 0.1, 0, 0]],
        }
        for state, rows in expected.items():
            np.testing.assert_allclose(table[state], rows, atol=1e-15)
        for state in (3, 4, 5):
            np.testing.assert_array_equal(table[state], np.tile(np.eye(6)[5], (4, 1)))

    @settings(max_examples=5)  # each new shape compiles
    @given(st.integers(0, 2**32 - 1), st.floats(0, 1))
    def test_rows_are_distributions_over_neighbours(self, seed, slip):
        rng = np.random.default_rng(seed)
        rows, columns = rng.integers(1, 6, 2)
        cells = rng.choice(list("#.SGX"), (rows, columns))
        cells[rng.integers(rows), rng.integers(columns)] = "S"
        mdp = gallery.grid_world("\n".join("".join(row) for row in cells), slip)
        table = np.asarray(mdp.dense().transition)
        assert mdp.num_states == np.sum(cells != "#") + 1
        np.testing.assert_allclose(table.sum(-1), 1, rtol=1e-12)
        assert np.sum(mdp.initial > 0) == np.sum(cells == "S")
        np.testing.assert_array_equal(np.flatnonzero(mdp.terminal), [mdp.num_states - 1])
        for state, name in enumerate(mdp.state_names[:-1]):
            here = np.array(name.split(","), int)
            for action, move in enumerate([(-1, 0), (0, 1), (1, 0), (0, -1)]):
                there = here + move
                free = np.all((there >= 0) & (there < cells.shape)) and cells[tuple(there)] != "#"
                target = f"{there[0]},{there[1]}" if free else name
                if cells[tuple(here)] in "GX":
                    target = "end"
                assert table[state, action, mdp.state_names.index(target)] >= 1 - slip - 1e-12

    def test_without_slip_moves_are_certain(self):
        table = np.asarray(gallery.grid_world("S..\n.#.\n..G", slip=0).dense().transition)
        assert set(table.ravel()) == {0, 1}

    def test_goal_may_be_missing_and_starts_many(self):
        mdp = gallery.grid_world("SS\n.S")
        np.testing.assert_allclose(mdp.initial, [1 / 3, 1 / 3, 0, 1 / 3, 0])

    @pytest.mark.parametrize(
        ("text", "fragments"),
        [
            ("S.\n.T", ["'T' in row 1, column 1", "'#' wall", "'G' goal"]),
            ("S. \n. .", ["' ' in row 1, column 1"]),
            ("S..\n..\n...", ["2 cells in row 1 but 3 in row 0", "equal length"]),
            ("S.\n\n..", ["0 cells in row 1 but 2 in row 0"]),
            ("..\n.G", ["no start", "'S'"]),
            ("  \n ", ["no start"]),
            ("##\n##", ["no start"]),
        ],
    )
    def test_bad_maps(self, text, fragments):
        with pytest.raises(ValueError) as caught:
            gallery.grid_world(text)
        for fragment in fragments:
            assert fragment in str(caught.value)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"slip": 1.1}, "slip is 1.1: give a probability"),
            ({"slip": -0.1}, "slip is -0.1"),
            ({"slip": np.nan}, "slip is nan"),
            ({"step_reward": np.inf}, "step_reward is inf"),
            ({"goal_reward": np.nan}, "goal_reward is nan"),
            ({"pit_reward": -np.inf}, "pit_reward is -inf"),
        ],
    )
    def test_bad_numbers(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            gallery.grid_world("SG", **arguments)


def moves(text, start, goal, closed=()):
    """The fewest moves between two cells of a map; None where there is no way."""
    mdp = gallery.grid_world(text, slip=0)
    table, names = np.asarray(mdp.dense().transition).sum(1) > 0, mdp.state_names
    allowed, reached = np.array([name not in closed for name in names]), np.array([name == start for name in names])
    for count in range(len(names)):
        if reached[names.index(goal)]:
            return count
        reached = reached | (reached @ table & allowed)
    return None


class TestSlipperyGrid:
    def test_policy_takes_each_way_and_posterior_walks_straight_on(self):
        mdp = gallery.slippery_grid()
        assert (mdp.num_states, mdp.num_actions) == (44, 4)
        soft = visits(mdp, *backward(mdp, 20, average), posterior=False)
        lucky = visits(mdp, *backward(mdp, 20, condition), posterior=True)
        above, between, below = "0,4", "3,4", "5,4"
        assert min(soft[above], soft[between], soft[below]) > 0.05
        assert lucky[above] < 1e-3 and lucky[below] < 0.01 and lucky[between] > 0.99

    def test_lengths_of_the_three_ways(self):
        assert moves(gallery.SLIPPERY_MAP, "3,0", "3,8") == 8
        assert moves(gallery.SLIPPERY_MAP, "3,0", "3,8", closed=("3,4",)) == 12
        assert moves(gallery.SLIPPERY_MAP, "3,0", "3,8", closed=("3,4", "5,4")) == 14


class TestFourRooms:
    def test_two_doors_lie_on_each_of_two_ways(self):
        mdp = gallery.four_rooms()
        assert (mdp.num_states, mdp.num_actions) == (69, 4)
        for closed in ((), ("2,4",), ("4,6",), ("4,2",), ("7,4",), ("2,4", "4,6"), ("4,2", "7,4")):
            assert moves(gallery.FOUR_ROOMS_MAP, "0,0", "8,8", closed) == 16
        for closed in (("2,4", "4,2"), ("2,4", "7,4"), ("4,6", "7,4"), ("4,6", "4,2")):
            assert moves(gallery.FOUR_ROOMS_MAP, "0,0", "8,8", closed) is None


class TestChain:
    def test_table(self):
        mdp = gallery.chain(3, slip=0.2, reward=2.0, step_reward=-1)
        np.testing.assert_allclose(mdp.transition[:, 0], [[0.8, 0.2, 0], [0.8, 0, 0.2], [0, 0.8, 0.2]])
        np.testing.assert_allclose(mdp.transition[:, 1], [[0.2, 0.8, 0], [0.2, 0, 0.8], [0, 0.2, 0.8]])
        np.testing.assert_array_equal(mdp.reward, [[-1, -1], [-1, -1], [2, 2]])
        np.testing.assert_array_equal(mdp.initial, [1, 0, 0])
        assert mdp.action_names == ("left", "right")

    @settings(max_examples=30)
    @given(st.integers(2, 20), st.floats(0, 1))
    def test_rows_sum_to_one(self, length, slip):
        np.testing.assert_allclose(gallery.chain(length, slip).transition.sum(-1), 1, rtol=1e-12)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"length": 1}, "length is 1: a chain has at least 2 states"),
            ({"length": 3, "slip": 2}, "slip is 2"),
            ({"length": 3, "reward": np.inf}, "^reward is inf"),
            ({"length": 3, "step_reward": np.nan}, "step_reward is nan"),
        ],
    )
    def test_bad_numbers(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            gallery.chain(**arguments)


@pytest.mark.parametrize("argument", ["win_probability", "win", "lose", "safe"])
def test_bad_lottery(argument):
    with pytest.raises(ValueError, match=f"{argument} is nan"):
        gallery.lottery(**{argument: np.nan})
