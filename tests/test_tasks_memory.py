"""The tasks on which dynamic resource allocation is studied, against their descriptions in plain NumPy."""

import gymnasium
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from rlinf_ppl.tasks import gallery


def table_of(mdp):
    return np.asarray(mdp.dense().transition)


def best_values(mdp, horizon):
    """The values of the best returns over a horizon, by a loop."""
    value = np.zeros(mdp.num_states)
    for _ in range(horizon):
        value = (np.asarray(mdp.reward) + table_of(mdp) @ value).max(axis=1)
    return value


class TestPatelMaze:
    OBSTACLES = frozenset({(1, 2), (2, 2), (3, 2), (0, 7), (1, 7), (2, 7), (4, 5)})
    BEFORE = (gallery.PATEL_MAZE_MAP, OBSTACLES, (0, 8), 14)
    AFTER = (gallery.CHANGED_PATEL_MAZE_MAP, OBSTACLES - {(0, 7)}, (0, 6), 8)

    @pytest.mark.parametrize(("text", "obstacles", "goal", "length"), [BEFORE, AFTER], ids=["before", "after"])
    def test_every_move(self, text, obstacles, goal, length):
        mdp = gallery.patel_maze(text)
        table, place = table_of(mdp), {name: state for state, name in enumerate(mdp.state_names)}
        cells = [(row, column) for row in range(6) for column in range(9) if (row, column) not in obstacles]
        assert mdp.state_names == tuple(f"{row},{column}" for row, column in cells)
        for state, (row, column) in enumerate(cells):
            for action, (down, right) in enumerate([(-1, 0), (0, 1), (1, 0), (0, -1)]):
                there = (row + down, column + right)
                if there not in cells or (row, column) == goal:
                    there = (row, column)
                assert_array_equal(np.flatnonzero(table[state, action]), [place[f"{there[0]},{there[1]}"]])
                expected = 0 if (row, column) == goal else 10 if there == goal else -1
                assert mdp.reward[state, action] == expected
        assert_array_equal(mdp.initial, np.eye(len(cells))[place["2,0"]])
        assert_array_equal(np.flatnonzero(mdp.terminal), [place[f"{goal[0]},{goal[1]}"]])
        assert_allclose(table.sum(-1), 1, rtol=1e-15)

    @pytest.mark.parametrize(("text", "obstacles", "goal", "length"), [BEFORE, AFTER], ids=["before", "after"])
    def test_shortest_way_and_best_return(self, text, obstacles, goal, length):
        """By breadth-first search from the start on the cells, and by dynamic programming on the task."""
        edge, seen, moves = {(2, 0)}, {(2, 0)}, 0
        while goal not in edge:
            beside = {(r + d, c + e) for r, c in edge for d, e in [(-1, 0), (0, 1), (1, 0), (0, -1)]}
            inside = {(r, c) for r, c in beside if 0 <= r < 6 and 0 <= c < 9}
            edge, moves = inside - obstacles - seen, moves + 1
            seen |= edge
        assert moves == length
        mdp = gallery.patel_maze(text)
        assert_array_equal(np.asarray(mdp.initial) @ best_values(mdp, 60), 11 - length)
        assert_array_equal(np.asarray(mdp.initial) @ best_values(mdp, length - 1), 1 - length)

    def test_it_starts_before_the_change_and_states_go_over_by_name(self):
        before, after = gallery.patel_maze(), gallery.patel_maze(gallery.CHANGED_PATEL_MAZE_MAP)
        assert (before.num_states, after.num_states) == (47, 48)
        assert set(after.state_names) - set(before.state_names) == {"0,7"}
        assert set(before.state_names) < set(after.state_names)

    def test_several_starts_and_goals_and_numbers_of_ones_own(self):
        mdp = gallery.patel_maze("SG\nSG", step_reward=-2, goal_reward=5)
        assert_array_equal(mdp.initial, [0.5, 0, 0.5, 0])
        assert_array_equal(mdp.reward, [[-2, 5, -2, -2], [0, 0, 0, 0], [-2, 5, -2, -2], [0, 0, 0, 0]])
        assert_array_equal(mdp.terminal, [False, True, False, True])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"text": "S.\n.X"}, "text has 'X' in row 1, column 1"),
            ({"text": "S.\n."}, "text has 1 cells in row 1 but 2 in row 0"),
            ({"text": ".G"}, "text has no start"),
            ({"text": "S."}, "text has no goal: mark at least one cell with 'G'"),
            ({"step_reward": np.nan}, "step_reward is nan"),
            ({"goal_reward": np.inf}, "goal_reward is inf"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            gallery.patel_maze(**arguments)


class TestPlanningTask:
    MOVES = {
        (1, 2): 140, (1, 4): 20, (2, 3): -20, (2, 5): -70, (3, 4): -20, (3, 6): -70,
        (4, 2): 20, (4, 5): -20, (5, 1): -70, (5, 6): -20, (6, 1): -20, (6, 3): 20,
    }  # fmt: skip

    def returns(self, place, depth):
        """The returns of every sequence of moves from a place, in the order of the first move."""
        if depth == 0:
            return [[0]]
        ways = [(after, gain) for (before, after), gain in self.MOVES.items() if before == place]
        return [[gain + rest for each in self.returns(after, depth - 1) for rest in each] for after, gain in ways]

    @pytest.mark.parametrize("depth", [1, 3, 5])
    def test_best_values_are_those_of_enumeration(self, depth):
        mdp = gallery.planning_task(depth)
        assert mdp.num_states == 6 * depth + 1
        expected = [max(max(each) for each in self.returns(place, depth)) for place in range(1, 7)]
        assert_array_equal(best_values(mdp, depth)[:6], expected)
        assert_array_equal(best_values(mdp, depth + 4)[:6], expected)

    def test_published_values(self):
        mdp = gallery.planning_task()
        value = best_values(mdp, 3)
        assert_array_equal(value[:6], [100, 0, 50, 50, 100, 100])
        assert_allclose(np.asarray(mdp.initial) @ value, 200 / 3, rtol=1e-14)
        q = np.asarray(mdp.reward) + table_of(mdp) @ value
        first = [(100, 20), (-20, 0), (-20, 50), (-20, 50), (50, 100), (100, 20)]
        second = [(120, 40), (-40, -90), (0, -50), (0, -40), (70, 0), (120, 0)]
        third = [(140, 20), (-20, -70), (-20, -70), (20, -20), (-70, -20), (-20, 20)]
        assert_array_equal(q, [*first, *second, *third, (0, 0)])

    def test_numbering(self):
        mdp = gallery.planning_task()
        table = table_of(mdp)
        assert mdp.state_names[0] == "move 1, place 1" and mdp.state_names[16] == "move 3, place 5"
        assert mdp.state_names[-1] == "end" and mdp.action_names == ("first", "second")
        for (before, after), gain in self.MOVES.items():
            action = sorted(there for here, there in self.MOVES if here == before).index(after)
            for move in (1, 2, 3):
                state = mdp.state_names.index(f"move {move}, place {before}")
                following = mdp.state_names.index(f"move {move + 1}, place {after}" if move < 3 else "end")
                assert table[state, action, following] == 1 and mdp.reward[state, action] == gain
        assert_array_equal(mdp.initial, [1 / 6] * 6 + [0] * 13)
        assert_array_equal(mdp.terminal, [False] * 18 + [True])

    @pytest.mark.parametrize("depth", [0, -1])
    def test_bad_depth(self, depth):
        with pytest.raises(ValueError, match=f"depth is {depth}: give the number of moves"):
            gallery.planning_task(depth)


class TestMemoryChoice:
    WORTH = (14, 10, 6, 11, 10, 9, 14, 10, 6, 11, 10, 9)

    def test_every_trial_pays_what_it_offers(self):
        mdp, offered = gallery.memory_choice(), gallery.offered_options()
        assert (mdp.num_states, mdp.num_actions) == (36, 2) and offered.shape == (36, 2)
        assert mdp.action_names == ("first", "second")
        for option, worth in enumerate(self.WORTH):
            others = [each for each in range(12) if each // 3 == option // 3 and each != option]
            assert_array_equal(offered[option], others)
            assert_array_equal(mdp.reward[option], [self.WORTH[each] for each in others])
            assert_array_equal(offered[12 + option], [option, 12 + option])
            assert_array_equal(mdp.reward[12 + option], [worth, worth + 4])
            assert_array_equal(offered[24 + option], [option, 24 + option])
            assert_array_equal(mdp.reward[24 + option], [worth, worth - 4])
        assert [mdp.state_names[state] for state in (0, 5, 13, 35)] == [
            "set 1: middle or worse",
            "set 2: better or middle",
            "set 1: middle or bonus above",
            "set 4: worse or bonus below",
        ]

    def test_how_trials_follow_each_other(self):
        mdp = gallery.memory_choice()
        table, regular = table_of(mdp), np.repeat([4, 4, 1, 1], 3) / 30
        assert_allclose(mdp.initial, [*regular, *np.zeros(24)], rtol=1e-15)
        assert_array_equal(table[:, 0], table[:, 1])
        for state in range(12):
            expected = np.zeros(36)
            follows = 0.15 if state < 6 else 0.6
            expected[:12] = (1 - follows) * regular
            expected[[12 + state, 24 + state]] = follows / 2
            assert_allclose(table[state, 0], expected, rtol=1e-14)
        for state in range(12, 36):
            assert_allclose(table[state, 0], mdp.initial, rtol=1e-15)

    def test_options_get_equally_many_bonus_trials(self):
        """In the stationary law: 24 bonus trials for 100 regular ones, each of the 24 kinds as often as any other."""
        share = np.linalg.matrix_power(table_of(gallery.memory_choice())[:, 0], 100)[0]
        assert_allclose(share[12:], 0.01 / 1.24, rtol=1e-10)
        assert_allclose(share[:12], np.repeat([4, 4, 1, 1], 3) / 30 / 1.24, rtol=1e-10)

    def test_best_returns(self):
        """A first trial is regular: its best option is the better one in two of three pairs, else the middle one."""
        mdp = gallery.memory_choice()
        stake = np.array([4, 1, 4, 1]) @ np.array([4, 4, 1, 1]) / 10
        assert_allclose(np.asarray(mdp.initial) @ best_values(mdp, 1), 10 + 2 / 3 * stake, rtol=1e-14)
        bonus = np.mean([max(worth, worth + sign * 4) for worth in self.WORTH for sign in (1, -1)])
        two = (10 + 2 / 3 * stake) * (2 - 0.24) + 0.24 * bonus
        assert_allclose(np.asarray(mdp.initial) @ best_values(mdp, 2), two, rtol=1e-14)

    def test_training_has_no_bonus_trials(self):
        table = table_of(gallery.memory_choice(bonus_probability=0))
        assert_array_equal(table[:, :, 12:], 0)
        assert_allclose(table[:, :, :12].sum(-1), 1, rtol=1e-14)

    def test_numbers_of_ones_own(self):
        mdp = gallery.memory_choice([3], [7], mean=1, bonus=2, bonus_probability=1)
        assert_array_equal(mdp.reward[:, 0], [1, 4, 4, 4, 1, -2, 4, 1, -2])
        assert_array_equal(mdp.reward[:, 1], [-2, -2, 1, 6, 3, 0, 2, -1, -4])
        assert_array_equal(mdp.transition[1, 0], [0, 0, 0, 0, 0.5, 0, 0, 0.5, 0])
        assert_array_equal(table_of(gallery.memory_choice(bonus_probability=0.25))[6:12, 0, :12], 0)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"stakes": (1, 2, 3)}, r"frequencies has shape \(4,\), but stakes has shape \(3,\)"),
            ({"stakes": ()}, r"stakes has shape \(0,\), so it has no sets"),
            ({"stakes": (1, np.inf, 1, 1)}, r"stakes\[1\] is inf"),
            ({"stakes": (1, 1, -1, 1)}, "stakes are .* not negative"),
            ({"frequencies": (1, 1, 0, 1)}, "frequencies are .* give positive numbers"),
            ({"frequencies": [[1, 1], [1, 1]]}, r"frequencies has shape \(2, 2\)"),
            ({"mean": np.nan}, "mean is nan"),
            ({"bonus": np.inf}, "bonus is inf"),
            ({"bonus_probability": -0.1}, "bonus_probability is -0.1: give a probability"),
            ({"bonus_probability": 0.3}, "bonus_probability is 0.3, which makes it 1.2 .* at most 0.25"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            gallery.memory_choice(**arguments)

    def test_bad_number_of_sets(self):
        with pytest.raises(ValueError, match="num_sets is 0"):
            gallery.offered_options(0)


@pytest.fixture(scope="module")
def car():
    environment = gymnasium.make("MountainCar-v0")
    yield environment.unwrapped
    environment.close()


def cell_of(position, speed):
    row, column = np.around((np.array([position, speed]) - [-1.2, -0.07]) * [10, 100]).astype(int)
    return 15 * row + column


def after_one_step(car, position, speed, action):
    """The state of the table that Gymnasium's car is in after one step; the goal ends the episode."""
    car.reset()
    car.state = (position, speed)
    _, reward, done, _, _ = car.step(action)
    assert reward == -1
    return 285 if done else cell_of(*car.state)


def limits_of(cell):
    """The positions and speeds of a cell that an episode can be in."""
    row, column = divmod(cell, 15)
    position, speed = -1.2 + row / 10, -0.07 + column / 100
    return (max(position - 0.05, -1.2), min(position + 0.05, 0.5)), (
        max(speed - 0.005, -0.07),
        min(speed + 0.005, 0.07),
    )


class TestMountainCar:
    def test_every_probability_is_a_count_of_gymnasium_s_steps(self, car):
        expected = np.zeros((286, 3, 286))
        for cell in range(270):
            positions, speeds = (
                [low + part * (high - low) for part in (1 / 8, 3 / 8, 5 / 8, 7 / 8)] for low, high in limits_of(cell)
            )
            for action in range(3):
                for position in positions:
                    for speed in speeds:
                        expected[cell, action, after_one_step(car, position, speed, action)] += 1 / 16
        expected[range(270, 286), :, range(270, 286)] = 1
        assert_allclose(table_of(gallery.mountain_car(4)), expected, atol=1e-14)

    def test_random_points(self, car):
        """From points anywhere in a cell, Gymnasium's next states are as frequent as the table says."""
        rng, table, count = np.random.default_rng(0), table_of(gallery.mountain_car()), 400
        for cell, action in zip(rng.integers(0, 270, 40), rng.integers(0, 3, 40), strict=True):
            positions, speeds = (rng.uniform(low, high, count) for low, high in limits_of(cell))
            reached = [after_one_step(car, *point, action) for point in zip(positions, speeds, strict=True)]
            share = np.bincount(reached, minlength=286) / count
            probability = table[cell, action]
            error = 5 * np.sqrt(np.maximum(probability, 1 / count) / count) + 0.02  # of the draws, of the grid
            assert np.all(np.abs(share - probability) < error)

    def test_what_surrounds_the_dynamics(self):
        mdp = gallery.mountain_car()
        assert (mdp.num_states, mdp.num_actions) == (286, 3)
        assert mdp.action_names == ("left", "none", "right")
        assert mdp.state_names[cell_of(-0.5, 0)] == "-0.5,0.00" and mdp.state_names[-1] == "goal"
        assert mdp.state_names[0] == "-1.2,-0.07" and mdp.state_names[284] == "0.6,0.07"
        assert_allclose(mdp.probabilities.sum(-1), 1, rtol=1e-14)
        assert_array_equal(np.flatnonzero(mdp.terminal), np.arange(270, 286))
        assert_array_equal(mdp.reward, np.repeat([[-1]] * 270 + [[0]] * 16, 3, axis=1))
        starts = [cell_of(position, 0) for position in (-0.6, -0.5, -0.4)]
        assert_array_equal(np.asarray(mdp.initial)[starts], [0.25, 0.5, 0.25])
        assert_array_equal(table_of(mdp)[:270, :, 270:285], 0)

    def test_the_goal_is_reached(self, car):
        """In 102 expected steps on the table; the greedy policy of the table drives Gymnasium's car there as well."""
        mdp = gallery.mountain_car()
        table, reward, value = table_of(mdp), np.asarray(mdp.reward), np.zeros(286)
        for _ in range(2000):
            q = reward + table @ value
            change, value = np.abs(q.max(1) - value).max(), q.max(1)
        assert change < 1e-12
        assert_allclose(np.asarray(mdp.initial) @ value, -102.2, atol=0.1)
        policy = q.argmax(axis=1)
        for position in np.linspace(-0.6, -0.4, 11):
            state, speed, steps = cell_of(position, 0), 0.0, 0
            while state != 285:
                state = after_one_step(car, position, speed, int(policy[state]))
                (position, speed), steps = car.state, steps + 1
                assert steps < 2000

    def test_a_finer_grid_changes_little(self):
        coarse, fine = table_of(gallery.mountain_car()), table_of(gallery.mountain_car(60))
        assert np.abs(coarse - fine).max() < 0.05

    def test_bad_number_of_points(self):
        with pytest.raises(ValueError, match="points is 0: give the number of points"):
            gallery.mountain_car(0)
