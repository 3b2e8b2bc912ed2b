"""What the command line shows of games of two players."""

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

from rlinf_ppl import cli
from rlinf_ppl.report import arviz, cases, recovery, results, table
from rlinf_ppl.report.facts import task_facts
from rlinf_ppl.tasks import gallery


@pytest.fixture(scope="module")
def foe():
    return recovery.answer(cases.find("foe"), jax.random.key(0))


@pytest.fixture(scope="module")
def level():
    return recovery.answer(cases.find("penalty-level-3"), jax.random.key(0))


def test_a_foes_value_is_in_units_of_reward_and_the_table_says_so(foe):
    row = recovery.summarize(foe)
    payoffs = np.array([[2, 3, 3], [1, 4, 0], [1, 0, 10]])
    against = -np.log(np.mean(np.exp(-2 * payoffs), axis=1)) / 2
    assert row.soft_value == pytest.approx(np.log(np.mean(np.exp(2 * against))) / 2, rel=1e-10)
    assert row.converged and row.policy_error < 1e-5 and row.log_evidence is None and row.gap is None
    assert row.unit == "units of reward" and "no joint model" in row.missing["log evidence"]
    assert "foe: soft value and ELBO in units of reward." in table.markdown([row])


def test_where_there_is_one_inverse_temperature_values_are_in_nats(level):
    row = recovery.summarize(level)
    assert row.unit == "nats" and row.soft_value < row.log_evidence and "units of reward" not in table.markdown([row])


def test_what_is_drawn_and_saved(foe, tmp_path):
    files = results.write_case(foe, jax.random.key(1), tmp_path)
    assert [file.name for file in files] == ["policy.png", "fit.png", "graph.png", "posterior.nc"]
    saved = arviz.load(files[-1])
    assert "conditioned" not in saved and saved["values"]["value"].attrs["units"] == "units of reward"
    assert saved["policies"]["policy_b"].dims == ("answer", "time", "s", "a", "b")


def test_the_actions_of_both_players_have_names():
    case = cases.find("pennies")
    pennies = recovery.Answers(case, case.task(), case.program(case.task()), None, None, None, "", 0.0)
    assert arviz.axis_names(pennies) == {"a": ["heads", "tails"], "b": ["heads", "tails"]}


@pytest.mark.parametrize(
    ("game", "expected"),
    [
        (
            gallery.matching_pennies(),
            [
                "1 state, 2 actions of the agent: heads, tails",
                "2 actions of the opponent: heads, tails",
                "transition: deterministic, a dense table",
                "reward of the agent: -1 to 1",
                "row of payoffs: (1, -1)",
                "row of payoffs: (-1, 1)",
                "1 initial state",
            ],
        ),
        (
            gallery.pursuit(),
            [
                "57 states, 5 actions of the agent: up, right, down, left, stay",
                "5 actions of the opponent: up, right, down, left, stay",
                "transition: stochastic, a dense table",
                "reward of the agent: -1 to 0",
                "1 initial state",
            ],
        ),
    ],
)
def test_facts(game, expected):
    assert task_facts(game) == expected


def test_the_setting_names_the_other_numbers_of_a_model():
    assert cases.find("penalty-level-3").setting.endswith("inverse temperature beta 0.3, level 3, opponent beta 0.3")
    assert cases.find("lottery").setting == "horizon 2, inverse temperature beta 1"


@pytest.mark.parametrize("name", ["friend", "foe", "pennies", "climbing", "penalty-level-3", "coordination-grid"])
def test_show(name):
    shown = CliRunner().invoke(cli.app, ["show", name])
    assert shown.exit_code == 0, shown.output
    for part in ("Maths", "actions of the opponent", "Scopes", "q(a |"):
        assert part in shown.stdout
