"""Reports on programs with several decisions a step: the cases with options, and how options look on a map."""

from itertools import product

import jax
import numpy as np
import pytest
from option_programs import soft_control, soft_task
from typer.testing import CliRunner

from rlinf_ppl import cli
from rlinf_ppl.inference import exact
from rlinf_ppl.report import cases, plots, recovery


@pytest.fixture(scope="module")
def four_rooms():
    return recovery.answer(cases.find("four-rooms-options"), jax.random.key(0))


@pytest.fixture(scope="module")
def messages():
    return recovery.answer(cases.find("coordination-messages"), jax.random.key(0))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["four_rooms", "messages"])
def test_the_fit_recovers_the_closed_form(name, request):
    row = recovery.summarize(request.getfixturevalue(name))
    assert row.converged
    assert row.kl < 1e-9 and row.policy_error < 1e-3
    assert row.elbo == pytest.approx(row.soft_value, abs=1e-9)
    assert row.gap > 0.1


def test_the_last_option_of_the_other_is_a_message_that_is_followed(messages):
    policy = {name: np.asarray(table[0, 0]) for name, table in messages.solution.policy.items()}
    master, terminate = policy["z_i"][0, :, 1], policy["b_i"][:, :, 1]
    assert (np.diag(master) > 0.9).all()
    # Whose option is another than the message terminates it several times as often.
    assert terminate[0, 1] > 5 * terminate[0, 0] and terminate[1, 0] > 5 * terminate[1, 1]
    # And with the other habit still in use it acts on the message more often.
    assert policy["a_i"][0, 1, 0] > 5 * policy["a_i"][1, 1, 0]


def test_an_agent_with_options_is_drawn_on_its_map(four_rooms):
    figure = plots.policy(four_rooms)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["soft-optimal control", "given optimality"]


def test_moves_on_a_map_are_averaged_over_options():
    program = soft_control(soft_task(1), 3)
    policy = {name: np.asarray(table[0]) for name, table in exact.solve(program).policy.items()}
    truth = np.zeros((2, 2))
    for s, before, b, z, a in product(range(2), range(3), range(2), range(3), range(2)):
        truth[s, a] += policy["b"][s, before, b] * policy["z"][s, before, b, z] * policy["a"][s, z, a] / 3
    np.testing.assert_allclose(plots.moves_by_state(program, policy), truth, rtol=1e-12)
    value = np.arange(6.0).reshape(2, 3)
    assert (plots.by_state(value) == [1.0, 4.0]).all()


@pytest.mark.parametrize("name", ["four-rooms-options", "coordination-messages"])
def test_the_command_line_shows_and_draws_them(name, tmp_path):
    shown = CliRunner().invoke(cli.app, ["show", name])
    assert shown.exit_code == 0
    for words in ("log sum", "z_prev" if name.startswith("four") else "z_opp_prev", "Scopes"):
        assert words in shown.stdout
    drawn = CliRunner().invoke(cli.app, ["graph", name, "--out", str(tmp_path / "graph.svg")])
    assert drawn.exit_code == 0
