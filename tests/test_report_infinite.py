"""What `rlinf recover` shows of an infinite horizon: rows, dashes, files, and the figure against temperature."""

import json
import math

import jax
import numpy as np
import pytest
import xarray
from typer.testing import CliRunner

from rlinf_ppl import cli
from rlinf_ppl.models import single_agent
from rlinf_ppl.report import arviz, cases, horizons, plots, recovery, results, table, temperature
from rlinf_ppl.tasks import gallery

DISCOUNT = 0.9
WALK = cases.Case(
    "walk",
    "steps that cost",
    single_agent,
    lambda: gallery.chain(3, reward=0.0, step_reward=-1.0),
    horizon=None,
    beta=2.0,
    discount=DISCOUNT,
    grid=cases.drawing("S.G", (cases.LEFT, cases.RIGHT), "S start, G goal"),
)
FEAST = cases.Case(
    "feast",
    "more than the discount forgets",
    single_agent,
    lambda: gallery.chain(3),
    horizon=None,
    beta=2.0,
    discount=DISCOUNT,
)


@pytest.fixture(scope="module")
def walk():
    return recovery.answer(WALK, jax.random.key(0))


@pytest.fixture(scope="module")
def feast():
    return recovery.answer(FEAST, jax.random.key(0))


@pytest.fixture(scope="module")
def swept(walk):
    return temperature.sweep(walk)


@pytest.fixture(scope="module")
def written(walk, tmp_path_factory):
    return results.write_case(walk, jax.random.key(1), tmp_path_factory.mktemp("results"))


def action_values(task, beta, value, log_mean=False):
    """Q of the model's docstring in plain NumPy, in nats."""
    transition, reward = np.asarray(task.transition), np.asarray(task.reward)
    if log_mean:
        return beta * reward + np.log(DISCOUNT * transition @ np.exp(value) + 1 - DISCOUNT)
    return beta * reward + DISCOUNT * transition @ value


def iterated(sweep):
    value = np.zeros(3)
    for _ in range(2000):
        value = sweep(value)
    return value


def soft(q):
    peak = q.max(-1, keepdims=True)
    return peak[:, 0] + np.log(np.exp(q - peak).mean(-1))


def test_a_row_without_end_has_the_values_of_plain_sweeps(walk):
    row = recovery.summarize(walk)
    value = iterated(lambda v: soft(action_values(walk.task, 2.0, v)))
    posterior = iterated(lambda v: soft(action_values(walk.task, 2.0, v, log_mean=True)))
    assert row[:5] == ("walk", 3, 2, None, DISCOUNT)
    assert row.soft_value == pytest.approx(value[0], rel=1e-9)
    assert row.elbo == pytest.approx(value[0], rel=1e-7)
    assert row.log_evidence == pytest.approx(posterior[0], rel=1e-9)
    assert row.gap == pytest.approx(posterior[0] - value[0], rel=1e-9)
    assert 0 <= row.kl < 1e-7 and row.policy_error < 1e-6
    assert row.converged and "log evidence" not in row.missing


def test_a_posterior_that_does_not_exist_is_a_dash_with_a_reason(feast):
    row = recovery.summarize(feast)
    assert row.log_evidence is None and row.gap is None
    assert row.soft_value == pytest.approx(iterated(lambda v: soft(action_values(feast.task, 2.0, v)))[0], rel=1e-9)
    shown = dict(zip((column.field for column in table.ANSWERS), table.cells(table.ANSWERS, row), strict=True))
    assert (shown["horizon"], shown["log_evidence"], shown["gap"]) == ("∞", "–", "–")
    assert table.remarks([row])[-1].startswith("– log evidence of feast: there is no posterior given")
    assert "spectral radius" in table.markdown([row])


def test_json_has_null_for_no_end_and_for_no_posterior(walk, feast):
    rows = json.loads(table.to_json([recovery.summarize(walk), recovery.summarize(feast)]))
    assert [row["horizon"] for row in rows] == [None, None]
    assert [row["log_evidence"] is None for row in rows] == [False, True]
    assert rows[0]["missing"] == {} and "spectral radius" in rows[1]["missing"]["log evidence"]


def test_a_policy_error_counts_what_can_be_reached_at_any_time():
    # Two corridors that never meet: the trajectories of the second are no trajectories of the program.
    task = gallery.grid_world("S..\n###\n..G")
    program = single_agent(task, None, discount=DISCOUNT)
    met = recovery.reachable(program)["a"]
    np.testing.assert_array_equal(met, [True, True, True, False, False, False, False])


@pytest.mark.slow
def test_files_of_an_infinite_horizon_have_a_figure_against_temperature(written):
    names = ["policy.png", "fit.png", "graph.png", "temperature.png", "posterior.nc"]
    assert [path.name for path in written] == names
    assert all(path.stat().st_size > 1000 for path in written)


def test_netcdf_has_no_time_in_tables_and_says_where_trajectories_end(walk, written):
    found = arviz.load(written[-1])
    assert found["policies"]["policy_a"].dims == ("answer", "s", "a")
    assert list(found["policies"]["answer"].values) == ["exact", "fit", "conditioned"]
    assert found["values"]["value"].dims == ("answer", "s")
    steps = found["posterior"].attrs["sampled_steps"]
    assert steps == math.ceil(math.log(1e-3) / math.log(DISCOUNT))
    assert found["posterior"]["s"].sizes["instant"] == found["posterior"]["alive"].sizes["instant"] == steps + 1
    assert found["posterior"].attrs["horizon"] == math.inf
    assert found["posterior"].attrs["alive_at_the_end"] == pytest.approx(DISCOUNT**steps) and DISCOUNT**steps <= 1e-3
    for name, dataset in arviz.datasets(walk, jax.random.key(1)).items():
        xarray.testing.assert_equal(found[name], dataset)
        assert found[name].attrs == dataset.attrs


def test_what_there_is_no_posterior_for_is_left_out_of_netcdf(feast, tmp_path):
    arviz.save(arviz.datasets(feast, jax.random.key(1), num_draws=40), tmp_path / "posterior.nc")
    found = arviz.load(tmp_path / "posterior.nc")
    assert set(found) == {"posterior", "sample_stats", "policies", "values"}
    assert list(found["policies"]["answer"].values) == ["exact", "fit"]
    assert list(found["values"]["answer"].values) == ["exact"]


def test_sampled_processes_die_as_the_discount_says(written):
    alive = arviz.load(written[-1])["posterior"]["alive"].isel(instant=5)
    chance = DISCOUNT**5
    assert abs(alive.mean().item() - chance) < 5 * math.sqrt(chance * (1 - chance) / alive.size)


@pytest.mark.parametrize("discount, steps", [(0.0, 1), (0.5, 10), (0.99, 688), (0.9999, horizons.MOST_STEPS)])
def test_a_program_is_ended_where_its_discount_has_forgotten(discount, steps):
    program = single_agent(gallery.lottery(), None, discount=discount)
    assert horizons.ended(program).horizon == steps
    assert horizons.ended(program, steps=7).horizon == 7
    finite = single_agent(gallery.lottery(), 2)
    assert horizons.ended(finite, steps=7) is finite


def test_values_run_between_the_prior_and_hard_value_iteration(swept, walk):
    prior = iterated(lambda v: action_values(walk.task, 1.0, v).mean(-1))[0]
    best = iterated(lambda v: action_values(walk.task, 1.0, v).max(-1))[0]
    assert swept.value[0] == pytest.approx(prior, rel=1e-9)
    assert swept.earned[0] == pytest.approx(prior, rel=1e-9)
    assert swept.value[-1] == pytest.approx(best, rel=1e-9)
    assert swept.earned[-1] == pytest.approx(best, rel=1e-9)
    for curve in (np.asarray(swept.value), np.asarray(swept.earned)):
        assert np.all(np.diff(curve) > -1e-6)
        assert np.all((prior - 1e-6 < curve) & (curve < best + 1e-6))
    assert np.all(swept.earned >= swept.value - 1e-6)


@pytest.mark.parametrize("at", [1, 51, 101])
def test_each_temperature_is_solved_as_by_plain_sweeps(swept, walk, at):
    beta = float(swept.betas[at])
    value = iterated(lambda v: soft(action_values(walk.task, beta, v)))
    q = action_values(walk.task, beta, value)
    policy = np.exp(q - value[:, None]) / 2
    earned = iterated(lambda v: (policy * action_values(walk.task, 1.0, v)).sum(-1))
    assert swept.betas[51] == pytest.approx(WALK.beta)
    assert swept.value[at] == pytest.approx(value[0] / beta, rel=1e-6)
    assert swept.earned[at] == pytest.approx(earned[0], rel=1e-6)
    np.testing.assert_allclose(swept.policy["a"][at], policy, atol=1e-7)


def test_the_figure_against_temperature_says_what_it_shows(walk, swept):
    left, right = temperature.draw(walk, swept).axes
    assert left.get_xscale() == right.get_xscale() == "log"
    assert "nats per unit of reward" in left.get_xlabel() and "units of reward" in left.get_ylabel()
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["left", "right"]
    assert len(left.get_legend().get_texts()) == 4


@pytest.mark.parametrize("answers, panels", [("walk", 2), ("feast", 1)])
def test_policies_are_drawn_for_the_answers_that_there_are(answers, panels, request):
    answers = request.getfixturevalue(answers)
    assert len([axes for axes in plots.policy_table(answers).axes if axes.images]) == panels
    heights = [bar.get_height() for bar in plots.policy_bars(answers).axes[0].patches]
    assert len(heights) == 2 * (panels + 1) and sum(heights) == pytest.approx(panels + 1)
    assert "horizon ∞, discount 0.9" in plots.heading(answers)


def test_the_command_line_says_infinity_and_why_there_is_no_posterior():
    runner = CliRunner()
    listed = runner.invoke(cli.app, ["list"]).stdout
    shown = runner.invoke(cli.app, ["show", "frozen-lake-endless"]).stdout
    assert "∞" in listed and "0.9999" in listed
    assert "horizon ∞, discount 0.99, inverse temperature beta 100" in shown
    assert "no answer without end" in " ".join(shown.split())
