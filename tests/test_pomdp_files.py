"""Files of POMDPs: every form against arrays written by hand, mutated files against a slow reader, and back again."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlinf_ppl.tasks import POMDP, pomdp_tables

HEAD = """
discount: 0.95
values: reward
states: left middle right
actions: stay go
observations: dark light
"""
ROWS = """
T: *
identity
O: *
uniform
"""


@pytest.fixture
def read(tmp_path):
    def from_text(text):
        path = tmp_path / "task.pomdp"
        path.write_text(text, encoding="utf-8")
        return POMDP.from_file(path)

    return from_text


@pytest.fixture
def again(tmp_path):
    def through_a_file(task):
        task.to_file(tmp_path / "again.pomdp")
        return POMDP.from_file(tmp_path / "again.pomdp")

    return through_a_file


def full_reward(task):
    reward = np.asarray(task.reward)
    shape = (task.num_states, task.num_actions, task.num_states, task.num_observations)
    return np.broadcast_to(reward.reshape(*reward.shape, *[1] * (4 - reward.ndim)), shape)


def test_rewards_beyond_single_precision(read):
    text = HEAD + ROWS + "R: * : * : * : * 1\nR: stay : 0 : 0 : 0 -1e50\n"
    assert read(text).reward.min() == -1e50
    with jax.enable_x64(False), pytest.raises(ValueError, match=r"line 13: found a reward of size 1e\+50: float32 is"):
        read(text)


class TestPreamble:
    def test_names_counts_and_defaults(self, read):
        task = read(HEAD + ROWS)
        assert task.state_names == ("left", "middle", "right")
        assert task.action_names == ("stay", "go") and task.observation_names == ("dark", "light")
        assert task.discount == 0.95
        np.testing.assert_array_equal(task.initial, np.full(3, 1 / 3))
        np.testing.assert_array_equal(task.transition, np.repeat(np.eye(3)[:, None], 2, 1))
        np.testing.assert_array_equal(task.observation, np.full((3, 2, 2), 0.5))
        np.testing.assert_array_equal(task.reward, np.zeros((3, 2)))

    def test_any_order_counts_comments_and_white_space(self, read):
        task = read(
            "# a comment: T: 0\nobservations:2#two\r\nactions :\n2\nstates: 3 values:cost # T\n\n\tdiscount\n:\n1"
            + ROWS
        )
        assert (task.num_states, task.num_actions, task.num_observations) == (3, 2, 2)
        assert task.state_names is None and task.action_names is None and task.observation_names is None
        assert task.discount == 1

    def test_costs_are_negative_rewards(self, read):
        costs = read(HEAD.replace("reward", "cost") + ROWS + "R: go : left : * : * 3\nR: stay : * : * : * -2")
        np.testing.assert_array_equal(costs.reward, [[2, -3], [2, 0], [2, 0]])
        assert not np.signbit(costs.reward[1, 1])

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("start: 0.25 0.5 0.25", [0.25, 0.5, 0.25]),
            ("start:\n0 1\n0", [0, 1, 0]),
            ("start: uniform", [1 / 3] * 3),
            ("start: middle", [0, 1, 0]),
            ("start: 2", [0, 0, 1]),
            ("start include: left 2", [0.5, 0, 0.5]),
            ("start include: right", [0, 0, 1]),
            ("start exclude : middle", [0.5, 0, 0.5]),
            ("start exclude: 0 1", [0, 0, 1]),
        ],
    )
    def test_start(self, read, line, expected):
        np.testing.assert_array_equal(read(HEAD + line + ROWS).initial, expected)

    def test_start_of_a_single_state_is_a_probability_or_that_state(self, read):
        head = HEAD.replace("left middle right", "1")
        for line in ("start: 1", "start: 1.0", "start: 0"):
            np.testing.assert_array_equal(read(head + line + ROWS).initial, [1])
        with pytest.raises(ValueError, match="line 8: found a start that sums to 0: a sum of 1 is expected"):
            read(head + "\nstart: 0.0" + ROWS)


class TestStatements:
    def table(self, read, text, name):
        return np.asarray(getattr(read(HEAD + "start: 0.5 0.5 0\n" + ROWS + text), name))

    def test_entries(self, read):
        table = self.table(
            read, "T: go : left : left 0.25\nT: 1 : 0 : 2 .75\nT : stay:*:middle 0\nT: stay : * : 1 1\nT:0:0:0 0\n"
            "T: stay: right : right 0.0\nT: go : left : 01 0\nT: go : 01 : 1 0\nT: go : middle : 1 1", "transition"
        )  # fmt: skip
        np.testing.assert_array_equal(table[:, 0], [[0, 1, 0]] * 3)
        np.testing.assert_array_equal(table[:, 1], [[0.25, 0, 0.75], [0, 1, 0], [0, 0, 1]])

    def test_wildcards_in_every_place(self, read):
        table = self.table(read, "T: * : * : * 0\nT: * : left : right 1.0\nT: go : * : 1 1\nT: go : left : 2 0\n"
                                 "T: stay : middle : middle 1\nT: stay : 2 : 1 1", "transition")  # fmt: skip
        np.testing.assert_array_equal(table[:, 0], [[0, 0, 1], [0, 1, 0], [0, 1, 0]])
        np.testing.assert_array_equal(table[:, 1], [[0, 1, 0]] * 3)

    def test_rows(self, read):
        table = self.table(
            read, "T: go : left 0.5 0 0.5\nT: go : * uniform\nT: stay : right\n0.1\n0.2 0.7\nT: * : middle reset",
            "transition",
        )  # fmt: skip
        np.testing.assert_array_equal(table[:, 0], [[1, 0, 0], [0.5, 0.5, 0], [0.1, 0.2, 0.7]])
        np.testing.assert_array_equal(table[:, 1], [[1 / 3] * 3, [0.5, 0.5, 0], [1 / 3] * 3])

    def test_matrices(self, read):
        matrix = "T: go 0 1 0\n0 0 1\n1 0 0 T: stay uniform"
        table = self.table(read, matrix, "transition")
        np.testing.assert_array_equal(table[:, 0], np.full((3, 3), 1 / 3))
        np.testing.assert_array_equal(table[:, 1], [[0, 1, 0], [0, 0, 1], [1, 0, 0]])
        table = self.table(read, matrix + "\nT: * identity\nT: go reset", "transition")
        np.testing.assert_array_equal(table[:, 0], np.eye(3))
        np.testing.assert_array_equal(table[:, 1], [[0.5, 0.5, 0]] * 3)

    def test_observations(self, read):
        table = self.table(
            read, "O: go : left : dark 0.2\nO: 1 : 0 : 1 0.8\nO: stay : * 0.25 0.75\nO: stay : right uniform",
            "observation",
        )  # fmt: skip
        np.testing.assert_array_equal(table[:, 0], [[0.25, 0.75], [0.25, 0.75], [0.5, 0.5]])
        np.testing.assert_array_equal(table[:, 1], [[0.2, 0.8], [0.5, 0.5], [0.5, 0.5]])
        table = self.table(read, "O: * 1 0 0 1 0.5 0.5\nO: * : middle : * 0.5", "observation")
        np.testing.assert_array_equal(table, np.repeat([[[1, 0]], [[0.5, 0.5]], [[0.5, 0.5]]], 2, 1))

    def test_what_is_said_last_counts_whatever_its_form(self, read):
        one = "T: go : left : left 0\nT: go : left : right 1"
        row, matrix, word = "T: go : left 0 1 0", "T: go 0 1 0 0 1 0 0 1 0", "T: * : left reset"
        rows = {one: [0, 0, 1], row: [0, 1, 0], matrix: [0, 1, 0], word: [0.5, 0.5, 0]}
        for first in rows:
            for last, expected in rows.items():
                if last != one or first == one:
                    table = self.table(read, f"{first}\n{last}", "transition")
                    np.testing.assert_array_equal(table[0, 1], expected)
        table = self.table(read, f"{row}\nT: go : left : middle 0\n{one}", "transition")
        np.testing.assert_array_equal(table[0, 1], [0, 0, 1])

    def test_rewards_in_every_form(self, read):
        text = """
        R: * : * : * : * -1
        R: go : left : right : light + 5
        R: go : middle : * 1.5 - 2
        R: stay : right
        0 1
        2 3
        4 5e1
        R: stay : right : left : * 7
        """
        expected = np.full((3, 2, 3, 2), -1.0)
        expected[0, 1, 2, 1] = 5
        expected[1, 1] = [1.5, -2]
        expected[2, 0] = [[7, 7], [2, 3], [4, 50]]
        np.testing.assert_array_equal(self.table(read, text, "reward"), expected)

    @pytest.mark.parametrize(
        ("text", "shape"),
        [
            ("R: * : * : * : * 1", (3, 2)),
            ("R: go : left : * : * 1\nR: stay : * : * 2 2", (3, 2)),
            ("R: go : left 1 1 1 1 1 1", (3, 2)),
            ("R: go : left : left : * 1", (3, 2, 3)),
            ("R: go : left 1 1 2 2 3 3", (3, 2, 3)),
            ("R: * : * : * : light 1", (3, 2, 3, 2)),
            ("R: * : * : * 1 2", (3, 2, 3, 2)),
            ("R: * : * : * : light 1\nR: * : * : * : dark 1", (3, 2)),
            ("R: * : * : left : light 1\nR: * : * : 0 2 2", (3, 2, 3)),
        ],
    )
    def test_rewards_take_the_smallest_shape_that_holds_them(self, read, text, shape):
        assert self.table(read, text, "reward").shape == shape


class TestRounding:
    ROW = "T: go : left "

    @pytest.mark.parametrize(
        "row", ["0.333333 0.333333 0.333333", "0.666666 .166666 .166667", "0.33333 0.33333 0.33333"]
    )
    def test_rows_of_few_digits_are_divided_by_their_sum(self, read, row):
        numbers = np.array(row.split(), float)
        np.testing.assert_allclose(
            read(HEAD + ROWS + self.ROW + row).transition[0, 1], numbers / numbers.sum(), rtol=1e-15
        )
        np.testing.assert_allclose(read(HEAD + f"start: {row}" + ROWS).initial, numbers / numbers.sum(), rtol=1e-15)

    def test_nine_times_a_ninth(self, read):
        head = HEAD.replace("left middle right", "9")
        nine = " ".join(["0.111111"] * 9)
        np.testing.assert_allclose(
            read(head + ROWS + f"T: go : 0 {nine}").transition[0, 1], np.full(9, 1 / 9), rtol=1e-15
        )
        row = read(head + ROWS + f"T: go : 0 {nine[:-1]}2").transition[0, 1]
        np.testing.assert_allclose(row, [0.111111] * 8 + [0.111112], rtol=1e-15)

    @pytest.mark.parametrize(
        ("row", "total"),
        [
            ("0.33 0.33 0.33", "0.99"),
            ("0.9 0.0 0.0", "0.9"),
            ("0.299 0.7 0", "0.999"),
            ("0.666666 0.166666 0.166666", "0.999998"),
            ("0.333334 0.333334 0.333334", "1.000002"),
            ("0.50000000 0.49999900 0", "0.999999"),
            ("1 1 0", "2"),
            ("0 0 0", "0"),
        ],
    )  # fmt: skip
    def test_rows_off_by_more_raise_with_the_row_and_its_sum(self, read, row, total):
        if row == "0.5 0.500002 0":
            np.testing.assert_allclose(read(HEAD + ROWS + self.ROW + row).transition[0, 1].sum(), 1)
            return
        with pytest.raises(
            ValueError, match=rf"line 12: found a sum of {total} in the row of action 1 and state 0 of T"
        ):
            read(HEAD + ROWS + self.ROW + row)


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", r"line 1: found the end where 'discount', .* is expected"),
            ("hello", r"line 1: found 'hello' where 'discount'"),
            (HEAD.replace("discount: 0.95", "") + ROWS, r"line 8: found no 'discount:' above"),
            (HEAD.replace("values: reward", ""), r"line 6: found no 'values:' above"),
            (HEAD + "values: reward" + ROWS, r"line 7: found 'values' a second time"),
            (HEAD + ROWS + "discount: 1", r"line 12: found 'discount' after the first of T, O and R"),
            (HEAD + ROWS + "start: uniform", r"line 12: found 'start' after the first of T, O and R"),
            (HEAD.replace("0.95", "1.5") + ROWS, r"line 2: found the discount 1.5: a number from 0 to 1"),
            (HEAD.replace("0.95", "nan") + ROWS, r"line 2: found 'nan' after 'discount:': a number"),
            (HEAD.replace("0.95", "0.95 1") + ROWS, r"line 2: found '1' after 1 numbers of 'discount:'"),
            (HEAD.replace("values: reward", "values: profit") + ROWS, r"line 3: found 'profit' after 'values:'"),
            (HEAD.replace("left middle right", "") + ROWS, r"line 4: found no states: their number"),
            (HEAD.replace("left middle right", "0") + ROWS, r"line 4: found 0 states"),
            (HEAD.replace("left middle right", "3 4") + ROWS, r"line 4: found '3' among the states"),
            (HEAD.replace("middle", "left") + ROWS, r"line 4: found 'left' twice among the states"),
            (HEAD.replace("middle", "1st") + ROWS, r"line 4: found '1st' among the states"),
            (HEAD.replace("middle", "reset") + ROWS, r"line 4: found 'reset' among the states"),
            (HEAD.replace("middle", "T") + ROWS, r"line 4: found 'right' after 'T', a word and no name: ':'"),
            (HEAD + "start: left right" + ROWS, r"line 7: found 'left right' after 'start:'.*'start include:'"),
            (HEAD + "start: 0.5 0.5" + ROWS, r"line 7: found 2 numbers of 'start:': 3 are expected"),
            (HEAD + "start: 0.5 0.5 0.5" + ROWS, r"line 7: found a start that sums to 1.5"),
            (HEAD + "start: up" + ROWS, r"line 7: found 'up', which is no state: one of left, middle, right"),
            (HEAD + "start include:" + ROWS, r"line 7: found 'nothing' after 'start'"),
            (HEAD + "start include: *" + ROWS, r"line 7: found '\*' after 'start'"),
            (HEAD + "start exclude: 0 1 2" + ROWS, r"line 7: found all states after 'start exclude:'"),
            (HEAD + "start other: 0" + ROWS, r"line 7: found 'other' after 'start', a word and no name"),
            (HEAD, r"line 6: found no T for the row of action 0 and state 0 .* in the whole file"),
            (HEAD + "T: * identity", r"line 7: found no O for the row of action 0 and next state 0"),
            (HEAD + "O: * uniform\nT: stay identity", r"line 8: found no T for the row of action 1 and state 0"),
            (HEAD + ROWS + "T: jump identity", r"line 12: found 'jump', which is no action: one of stay, go, a pos"),
            (HEAD + ROWS + "T: 2 identity", r"line 12: found action 2, but there are 2 actions: they count from 0"),
            (HEAD + ROWS + "T: go : up : left 1", r"line 12: found 'up', which is no state"),
            (HEAD + ROWS + "O: go : 0 : left 1", r"line 12: found 'left', which is no observation: one of dark"),
            (HEAD + ROWS + "O: go identity", r"line 12: found 'identity' after 'O : go': a number .* or 'uniform'"),
            (HEAD + ROWS + "T: go : left identity", r"line 12: found 'identity' after .* or 'uniform' or 'reset'"),
            (HEAD + ROWS + "T: go : left : 0 uniform", r"line 12: found 'uniform' after .*: a number is expected\."),
            (HEAD + ROWS + "T: go : left : left -0.5", r"line 12: found -0.5 after .*: a probability is expected"),
            (HEAD + ROWS + "T: go : left : left 1.5", r"line 12: found 1.5 after 'T : go : left : left': a prob"),
            (HEAD + ROWS + "T: go : left\n0.5 0.5", r"line 13: found 2 numbers of 'T : go : left': 3 are expected"),
            (HEAD + ROWS + "T: go : left 0.5 0.5\n0 0", r"line 13: found '0' after 3 numbers of 'T : go : left'"),
            (HEAD + ROWS + "T: go : left 0.5 0..5 0", r"line 12: found '0..5' after 'T : go : left'"),
            (HEAD + ROWS + "T: go 1 0 0 1", r"line 12: found 4 numbers of 'T : go': 9 are expected"),
            (HEAD + ROWS + "R: go 1", r"line 12: found 'R : go': '2', '3' or '4' places are expected"),
            (HEAD + ROWS + "R: go : left : left : dark", r"line 12: found 0 numbers of 'R : go : left : left : dark'"),
            (HEAD + ROWS + "R: * : * : * : * inf", r"line 12: found 'inf' after"),
            (HEAD + ROWS + "R: * : * : * : * 1e999", r"line 12: found '1e999' after"),
            (HEAD + ROWS + "R: * : * : * : * 1_0", r"line 12: found '1_0' after"),
            (HEAD + ROWS + "T: go : left : left : 1.0", r"line 12: found 'T : go : left : left : 1.0': '1', '2'"),
            (HEAD + ROWS + "T", r"line 12: found the end after 'T', a word and no name"),
            (HEAD + ROWS + "T:", r"line 12: found 'T :'"),
            (HEAD + ROWS + "T: go :", r"line 12: found 0 numbers of 'T : go :'|line 12: found 'T : go :'"),
        ],
    )  # fmt: skip
    def test_says_the_line_what_was_found_and_what_is_expected(self, read, text, message):
        with pytest.raises(ValueError, match=rf"task\.pomdp, {message}"):
            read(text)

    def test_a_row_is_blamed_on_the_line_that_touched_it_last(self, read):
        with pytest.raises(ValueError, match=r"line 13: found a sum of 0.5 in the row of action 1 and state 2 of T"):
            read(HEAD + ROWS + "T: go : right : right 1\nT: * : right : right 0.5\nT: stay : right : left 0.5")
        with pytest.raises(ValueError, match=r"line 12: found a sum of 0.9 in the row of action 0 and next state 1"):
            read(HEAD + ROWS + "O: stay\n1 0\n0.5 0.4\n1 0")

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            POMDP.from_file(tmp_path / "none.pomdp")


def random_task(seed, arity=2, sparse=False, named=False):
    rng = np.random.default_rng(seed)
    states, actions, observations, following = *rng.integers(1, 6, 3), int(rng.integers(1, 4))
    names = {
        f"{kind}_names": [f"{kind}-{i}_x" for i in range(count)] if named else None
        for kind, count in (("state", states), ("action", actions), ("observation", observations))
    }
    shows = rng.dirichlet(np.ones(observations), (states, actions))
    initial = rng.dirichlet(np.ones(states)) if seed % 2 else np.eye(states)[0]
    shape = (states, actions, min(following, states) if sparse else states, observations)
    reward = (rng.normal(size=shape[:arity]) * 10.0 ** rng.integers(-8, 8, shape[:arity])).round(
        int(rng.integers(1, 9))
    )
    rest = {"reward": reward, "observation": shows, "initial": initial, "discount": rng.random()}
    if sparse:
        lists = np.stack([rng.permutation(states)[: shape[2]] for _ in range(states * actions)])
        chances = rng.dirichlet(np.ones(shape[2]), (states, actions))
        return POMDP.sparse(lists.reshape(shape[:3]), chances, **rest, **names)
    table = rng.dirichlet(np.ones(states), (states, actions)) * (rng.random((states, actions, states)) < 0.6)
    table[..., 0] += 1 - table.sum(-1)
    return POMDP(table, **rest, **names)


class TestWriting:
    @pytest.mark.parametrize("x64", [True, False])
    @pytest.mark.parametrize("arity", [2, 3, 4])
    @pytest.mark.parametrize("sparse", [False, True])
    def test_what_is_written_is_read_to_the_last_digit(self, again, x64, arity, sparse):
        with jax.enable_x64(x64):
            for seed in range(6):
                task = random_task(seed, arity, sparse, named=seed % 3 == 0)
                found, task = again(task), task.dense()
                for name in ("transition", "observation", "initial", "discount"):
                    np.testing.assert_array_equal(getattr(found, name), getattr(task, name), strict=True)
                np.testing.assert_array_equal(full_reward(found), full_reward(task))
                assert found.reward.dtype == task.reward.dtype and found.reward.ndim <= task.reward.ndim
                assert found.state_names == task.state_names and found.action_names == task.action_names
                assert found.observation_names == task.observation_names

    @pytest.mark.parametrize("x64", [True, False])
    def test_what_one_precision_writes_the_other_reads(self, tmp_path, x64):
        for seed in range(6):
            with jax.enable_x64(x64):
                random_task(seed, 3).to_file(tmp_path / "task.pomdp")
            with jax.enable_x64(not x64):
                found = POMDP.from_file(tmp_path / "task.pomdp")
            for name, array in vars(random_task(seed, 3)).items():
                if array is not None:
                    np.testing.assert_allclose(getattr(found, name), array, rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("arity", [2, 3, 4])
    def test_a_large_task_stays_sparse(self, again, monkeypatch, arity):
        monkeypatch.setattr(pomdp_tables, "DENSE_ENTRIES", 1)
        for seed in range(4):
            task = random_task(seed, arity, sparse=True)
            found = again(task)
            assert found.transition is None
            np.testing.assert_array_equal(found.dense().transition, task.dense().transition)
            possible = np.asarray(task.dense().transition > 0)[..., None]
            np.testing.assert_array_equal(full_reward(found.dense()) * possible, full_reward(task.dense()) * possible)
            assert eqx.tree_equal(again(found), found)

    def test_successors_listed_twice_are_added_up(self, again):
        task = POMDP.sparse(
            [[0, 1, 1], [0, 0, 0]], np.array([[[0.5, 0.25, 0.25]], [[0.25, 0.25, 0.5]]]),
            np.array([[[1.0, 2, 4]], [[1, 2, 3]]]), np.ones((2, 1, 1)), [1, 0],
        )  # fmt: skip
        found = again(task)
        np.testing.assert_array_equal(found.transition, [[[0.5, 0.5]], [[1, 0]]])
        np.testing.assert_array_equal(found.reward, [[[1, 3]], [[2.25, 0]]])

    def test_entries_only(self, tmp_path, read):
        read(HEAD + ROWS + "R: go : left : * : * 2").to_file(tmp_path / "short.pomdp")
        lines = (tmp_path / "short.pomdp").read_text().splitlines()
        assert lines[:5] == [
            "discount: 0.95",
            "values: reward",
            "states: left middle right",
            "actions: stay go",
            "observations: dark light",
        ]
        assert lines[6] == "T: stay : left : left 1.0" and lines[-1] == "R: go : left : * : * 2.0"
        assert len(lines) == 6 + 6 + 12 + 1

    @pytest.mark.parametrize("name", ["", "row 0", "0,1", "1st", "reset", "T", "a:b", "ä"])
    def test_a_name_that_is_none_in_files_raises(self, tmp_path, name):
        task = POMDP(np.eye(2)[:, None], np.zeros((2, 1)), np.ones((2, 1, 1)), [1, 0], state_names=["a", name])
        with pytest.raises(ValueError, match=r"state_names has .*, which is no name in a .pomdp file.*anonymous"):
            task.to_file(tmp_path / "names.pomdp")
        task.anonymous().to_file(tmp_path / "names.pomdp")
        assert eqx.tree_equal(POMDP.from_file(tmp_path / "names.pomdp"), task.anonymous())

    def test_traced_tasks_raise(self, tmp_path):
        task = random_task(0)
        with pytest.raises(ValueError, match="outside of jit, grad and vmap"):
            eqx.filter_jit(lambda t: t.to_file(tmp_path / "no.pomdp"))(task)
        many = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), task)
        with pytest.raises(ValueError, match="outside of jit, grad and vmap"):
            many.to_file(tmp_path / "no.pomdp")


class TestLarge:
    def test_ten_thousand_lines(self, tmp_path, read):
        rng = np.random.default_rng(0)
        states, actions = 500, 5
        lines = [f"discount: 0.9\nvalues: reward\nstates: {states}\nactions: {actions}\nobservations: 2\nO: * uniform"]
        ends = rng.integers(0, states // 2, (actions, states))
        for a, s in np.ndindex(actions, states):
            lines += [f"T: {a} : {s} : {ends[a, s]} 0.75", f"T: {a} : {s} : {ends[a, s] + 250} 0.25"]
            lines += [f"R: {a} : {s} : {ends[a, s]} : * {a}", f"R: {a} : {s} : {ends[a, s] + 250} : 1 -{a}.5"]
        task = read("\n".join(lines))
        assert len(lines) == 10_001 and task.reward.shape == (500, 5, 500, 2)
        here = np.ogrid[:states, :actions]
        assert (np.asarray(task.transition)[*here, ends.T] == 0.75).all()
        np.testing.assert_array_equal(np.asarray(task.reward)[*here, ends.T + 250, 1], -np.arange(5) - 0.5 + 0 * ends.T)

    def test_a_large_task_is_read_as_lists(self, read):
        states = 5000
        lines = [f"discount: 1\nvalues: cost\nstates: {states}\nactions: 2\nobservations: 2\nstart: 0"]
        lines += [
            "T: 0 identity",
            "T: * : * : * 0",
            "T: 0 : * : 0 0.5",
            "T: 0 : * : 1 0.5",
            "T: 1 identity",
            "O: * uniform",
        ]
        lines += [
            "R: 0 : * : 1 : * 2",
            "R: 0 : 7 : 0 : * 3",
            "R: * : 8 : * : * 4",
            "R: 1 : * : * : * 1",
            "R: 1 : 9 : 9 : * 5",
        ]
        task = read("\n".join(lines))
        assert (
            task.transition is None and task.successors.shape == (states, 2, 2) and task.reward.shape == (states, 2, 2)
        )
        np.testing.assert_array_equal(task.successors[:, 0], [[0, 1]] * states)
        np.testing.assert_array_equal(task.probabilities[:, 1], [[1, 0]] * states)
        expected = np.zeros((states, 2))
        expected[:, 0], expected[:, 1] = -1, -1
        expected[7, 0], expected[8, 0], expected[9, 1] = -2.5, -4, -5
        np.testing.assert_array_equal(task.expected_reward, expected)
