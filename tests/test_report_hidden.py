"""Hidden state, as the command line recovers and draws it."""

import json

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from rlinf_ppl import report
from rlinf_ppl.report import cases, facts, hidden, hidden_plots, recoveries, results, signals, table
from rlinf_ppl.tasks import gallery

BELIEFS = [[0.5, 0.5], [0.85, 0.15], [0.5, 0.5]]


@pytest.fixture(scope="module")
def tiger():
    return hidden.recover(cases.find("tiger"), jax.random.key(0))


def test_memories_are_worth_something_and_nothing_exceeds_the_bound(tiger):
    row = tiger.row
    assert row.converged and row.lower <= row.upper + 1e-9
    assert row.memoryless < row.two_memories - 5 < row.upper - 5
    assert row.lower < row.earned + 5 * row.standard_error  # what is paid for leaving the prior is no return
    assert float(np.max(tiger.memoryless.restarts)) == row.memoryless


def test_an_episode_is_believed_by_the_rule_of_bayes(tiger):
    happened, task = tiger.episode, tiger.task
    assert happened.beliefs.shape == (7, 2) and len(happened.states) == 7
    for t, (a, o) in enumerate(zip(happened.actions, happened.observations, strict=True)):
        assert_allclose(happened.beliefs[t + 1], task.update(happened.beliefs[t], int(a), int(o)), rtol=1e-12)


def test_its_line_and_its_files(tiger, tmp_path):
    rows = [tiger.row, tiger.row._replace(task="another", converged=False)]
    assert [each["task"] for each in json.loads(table.to_json(rows))] == ["tiger", "another"]
    text = table.markdown(rows)
    assert "## Hidden state" in text and "another *" in text and hidden.SETTINGS in text
    assert "Exact answers" not in text and signals.SETTINGS not in text
    assert len(table.rich_tables(rows)) == 1
    written = hidden.write(tiger, tmp_path)
    assert {path.name for path in written} == {"fit.png", "belief.png", "graph.png"}
    assert all(path.stat().st_size > 100 for path in written + results.write_table(rows, tmp_path))


@pytest.mark.slow
def test_signals_are_found_and_drawn(tmp_path):
    found = signals.recover(cases.find("two-step"), jax.random.key(0))
    row = found.row
    assert row.converged and row.starts == 100 and row.reached >= 50
    assert row.upper == pytest.approx(10, abs=1e-6) and row.earned == pytest.approx(10, abs=1e-3)
    assert 9.7 < row.elbo < row.earned <= row.upper + 1e-9
    assert "## Two who signal" in table.markdown([row])
    assert {path.name for path in signals.write(found, tmp_path)} == {"fit.png", "messages.png", "graph.png"}


@pytest.mark.parametrize("name", ["tiger", "maze-4x3", "two-step"])
def test_what_a_case_says_of_its_task_is_so(name):
    case = cases.find(name)
    task = case.task()
    assert float(task.discount) == pytest.approx(case.discount)
    assert case.program(task).horizon == case.horizon
    assert case.kind in recoveries.KINDS
    words = "\n".join(facts.task_facts(task))
    assert "discount" in words and "observations" in words and "shape" not in words


def test_every_case_is_of_a_kind_that_is_recovered():
    assert {case.kind for case in cases.CASES} == set(recoveries.KINDS)


class TestBelief:
    def test_few_states_are_curves_with_what_was_seen_and_done_below(self):
        figure = report.plot_belief(
            BELIEFS,
            [0, 2],
            [0, 1],
            states=[0, 0, 1],
            state_names=("left", "right"),
            action_names=("listen", "open-left", "open-right"),
            observation_names=("hear-left", "hear-right"),
            title="a tiger",
        )
        (axes,) = figure.axes
        assert axes.get_title() == "a tiger"
        shown = [label.get_text() for label in axes.get_xticklabels()]
        assert shown == ["1\n\nlisten", "2\nhear-left\nopen-right", "3\nhear-right\n"]
        assert_allclose(axes.lines[0].get_ydata(), [0.5, 0.85, 0.5])
        assert_allclose(axes.lines[-1].get_ydata(), [0.5, 0.85, 0.5])
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["left", "right", "true state"]

    def test_many_states_are_colours(self):
        rng = np.random.default_rng(0)
        beliefs = rng.dirichlet(np.ones(11), size=4)
        figure = report.plot_belief(beliefs, state_names=gallery.maze_4x3().state_names)
        assert_allclose(figure.axes[0].images[0].get_array(), beliefs.T)
        assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == list("1234")
        assert not figure.legends

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"beliefs": [0.5, 0.5]}, "beliefs has shape"),
            ({"beliefs": [[0.5, 0.6]]}, "no distributions"),
            ({"actions": [0]}, "actions has shape \\(1,\\).*give 2 whole numbers"),
            ({"actions": [0, 3], "action_names": ("x", "y")}, "actions holds 0 to 3"),
            ({"observations": [0.0, 1.0]}, "observations has shape \\(2,\\) and float64"),
            ({"states": [0, 1, 2]}, "states holds 0 to 2"),
            ({"state_names": ("one",)}, "state_names holds 1 names; give 2"),
        ],
    )
    def test_what_does_not_fit_is_named(self, given, message):
        with pytest.raises(ValueError, match=message):
            hidden_plots.plot_belief(**({"beliefs": BELIEFS} | given))


class TestSignals:
    SENDING = ((0.0, 0.0, 1.0), (0.5, 0.0, 0.5))
    RECEIVING = np.broadcast_to(np.eye(3)[:, None], (3, 2, 3))

    def test_what_is_sent_means_what_bayes_says(self):
        figure = report.plot_signals(
            self.SENDING, self.RECEIVING, (0.4, 0.6), card_names=("low", "high"), title="cards"
        )
        sending, meaning, *replies = (axes.images[0].get_array() for axes in figure.axes[:4])
        assert_allclose(sending, self.SENDING)
        assert_allclose(np.asarray(meaning)[[0, 2]], [[0, 1], [4 / 7, 3 / 7]])
        assert np.ma.getmaskarray(meaning)[1].all()  # what is never sent has no meaning
        assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["0 (30%)", "1 (0%)", "2 (70%)"]
        for reply in replies:
            assert_allclose(reply, np.eye(3))

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"sending": [1.0]}, "sending has shape"),
            ({"receiving": np.ones((3, 2, 3))}, "receiving holds rows"),
            ({"receiving": np.ones((2, 2, 1))}, "must begin with its signals"),
            ({"prior": (1.0,)}, "and prior \\(1,\\) with its cards"),
            ({"action_names": ("x",)}, "action_names holds 1 names; give 3"),
        ],
    )
    def test_what_does_not_fit_is_named(self, given, message):
        with pytest.raises(ValueError, match=message):
            report.plot_signals(**({"sending": self.SENDING, "receiving": self.RECEIVING} | given))
