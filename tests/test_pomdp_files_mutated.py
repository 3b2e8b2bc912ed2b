"""Mutated files of POMDPs raise with a line, or are what a slow reader finds in them; public files, back again."""

import os
import re
from pathlib import Path

import equinox as eqx
import numpy as np
import pytest
from oracles import pomdp_text

from rlinf_ppl.tasks import POMDP

PUBLIC = os.environ.get("POMDP_FILES")
FORMS = """
discount : 0.9   # a comment
values: cost
states: a b c
actions: x y
observations: u v
start include: a c
T: x
0.5 0.25 0.25
0.0 1.0 0.0
0.333333 0.333333 0.333333
T: y identity
T: y : c reset
T: y : b : b 0.5
T: y : b : a 0.5
O: * uniform
O: x : a 0.1 0.9
O: y : * : u 0.3
O: y : * : v 0.7
R: * : * : * : * 1
R: x : a : * : u -2.5
R: y : b : c 3 4
R: y : c
1 2
3 4
5 6
"""
TIGER = """discount: 0.95
values: reward
states: tiger-left tiger-right
actions: listen open-left open-right
observations: tiger-left tiger-right
start: 0.5 0.5
T: listen
identity
T: open-left
uniform
T: open-right
uniform
O: listen
0.85 0.15
0.15 0.85
O: open-left
uniform
O: open-right
uniform
R: listen : * : * : * -1
R: open-left : tiger-left : * : * -100
R: open-left : tiger-right : * : * 10
R: open-right : tiger-left : * : * 10
R: open-right : tiger-right : * : * -100
"""
COUNTS = """values: reward
discount: 1.0
observations: 3
actions: 2
states: 2
start exclude: 1
T: 0 : 0 : 0 0.6
T: 0 : 0 : 1 0.4
T: 0 : 1 0.2 0.8
T: 1 : * uniform
O: 0
0.2 0.3 0.5
0.1 0.1 0.8
O: 1 : 0 : 0 1.0
O: 1 : 1 : 2 1.0
R: 0 : 0 : * : * 5
R: 0 : * : 1 : 2 + 7
R: 1 : 1
1 2 3
4 5 6
"""
PIECE = re.compile(r"[:*]|[^\s:*]+|\s+")


@pytest.fixture
def read(tmp_path):
    def from_text(text):
        path = tmp_path / "task.pomdp"
        path.write_text(text, encoding="utf-8")
        return POMDP.from_file(path)

    return from_text


def full_reward(task):
    reward = np.asarray(task.reward)
    shape = (task.num_states, task.num_actions, task.num_states, task.num_observations)
    return np.broadcast_to(reward.reshape(*reward.shape, *[1] * (4 - reward.ndim)), shape)


def mutate(text, rng):
    """One small change, of those that slips of the pen and of the network make."""
    pieces, lines = PIECE.findall(text), text.splitlines(keepends=True)
    words = [i for i, piece in enumerate(pieces) if piece.strip()]
    numbers = [i for i in words if pomdp_text.is_number(pieces[i])]
    names = [i for i in words if pieces[i][0].isalpha()]
    i, line = int(rng.choice(words)), int(rng.integers(len(lines)))
    match int(rng.integers(13)):
        case 0:
            del pieces[i]
        case 1:
            pieces.insert(i, pieces[i] + " ")
        case 2:
            j = int(rng.choice(words))
            pieces[i], pieces[j] = pieces[j], pieces[i]
        case 3:
            pieces[int(rng.choice(names))] = pieces[int(rng.choice(names))]
        case 4:
            pieces[int(rng.choice(numbers))] = str(rng.choice(["7", "1.5", "-0.1", "nan", "1e400", "0,5", "0.5.", "2"]))
        case 5:
            return text[: int(rng.integers(len(text)))]
        case 6:
            return "".join(lines[:line] + lines[line + 1 :])
        case 7:
            return "".join(lines[:line] + [lines[line]] + lines[line:])
        case 8:
            other = int(rng.integers(len(lines)))
            lines[line], lines[other] = lines[other], lines[line]
            return "".join(lines)
        case 9:
            pieces[i] = str(rng.choice([":", "*", "uniform", "identity", "reset", "T", "0", "start", "unknown", "#"]))
        case 10:
            k = int(rng.choice(numbers))
            pieces[k] = pieces[k].replace(str(rng.integers(10)), str(rng.integers(10)))
        case 11:
            k = int(rng.choice(numbers))
            pieces[k] = str(
                rng.choice([pieces[k] + "1", pieces[k] + "e-1", pieces[k][:-1], "." + pieces[k], pieces[k] + "x"])
            )
        case 12:
            del pieces[i : i + int(rng.integers(2, 8))]
    return "".join(pieces)


def oracle(text):
    try:
        return pomdp_text.read(text)
    except pomdp_text.WrongFile:
        return None


def check_equals(task, expected):
    for name in ("transition", "observation", "initial", "discount"):
        np.testing.assert_allclose(getattr(task, name), expected[name], rtol=1e-14, atol=0)
    np.testing.assert_array_equal(full_reward(task), expected["reward"])
    assert [task.state_names, task.action_names, task.observation_names] == expected["names"]


class TestMutated:
    @pytest.mark.parametrize("text", [FORMS, TIGER, COUNTS])
    def test_as_they_are(self, read, text):
        check_equals(read(text), oracle(text))

    def test_each_raises_with_a_line_or_is_what_its_text_says(self, read):
        raised = 0
        for seed in range(600):
            rng = np.random.default_rng(seed)
            text = mutate((FORMS, TIGER, COUNTS)[seed % 3], rng)
            expected = oracle(text)
            try:
                task = read(text)
            except ValueError as error:
                found = re.search(r"task\.pomdp, line (\d+): found ", str(error))
                assert found and 1 <= int(found.group(1)) <= max(text.count("\n") + 1, 1), (seed, str(error))
                assert expected is None, f"seed {seed} is right, but raised {error}"
                raised += 1
            else:
                assert expected is not None, f"seed {seed} is wrong, but was read:\n{text}"
                check_equals(task, expected)
        assert 300 < raised < 550


@pytest.mark.parametrize("path", sorted(Path(PUBLIC).iterdir()) if PUBLIC else [None], ids=lambda p: p and p.name)
def test_public_files(path, tmp_path):
    if path is None:
        pytest.skip("POMDP_FILES names no folder of .pomdp files")
    small = path.stat().st_size < 100_000
    expected = oracle(path.read_text(errors="replace")) if small else None
    try:
        task = POMDP.from_file(path)
    except ValueError as error:
        assert re.search(r", line \d+: found ", str(error))
        assert expected is None
        pytest.skip(str(error).rpartition("/")[2])
    if small:
        check_equals(task, expected)
    task.to_file(tmp_path / "again.pomdp")
    assert eqx.tree_equal(POMDP.from_file(tmp_path / "again.pomdp"), task)
