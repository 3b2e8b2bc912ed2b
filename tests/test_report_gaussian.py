"""What `rlinf` shows of a linear-Gaussian case: the row against whole-trajectory Gaussians, and the files' axes."""

import jax
import numpy as np
import pytest
from oracles import gaussian
from typer.testing import CliRunner

from rlinf_ppl import cli
from rlinf_ppl.models import linear_gaussian
from rlinf_ppl.report import arviz, cases, facts, kinds, plots, recovery, results, table
from rlinf_ppl.tasks import gallery

CASE = cases.find("point-mass")
STEP, GUST = 0.1, 1.0


def problem(steps):
    """The docstring of the task in plain NumPy."""
    first, second = np.eye(4), np.zeros((4, 2))
    first[0, 2] = first[1, 3] = STEP
    second[0, 0] = second[1, 1] = STEP**2 / 2
    second[2, 0] = second[3, 1] = STEP
    per_step = {
        "A": first,
        "B": second,
        "c": np.zeros(4),
        "noise": GUST**2 * second @ second.T,
        "state_reward": -STEP * np.diag([1, 1, 0.1, 0.1]),
        "action_reward": -STEP * 0.1 * np.eye(2),
        "goal": np.array([2.0, 1.0, 0.0, 0.0]),
    }
    length = {"state_reward": steps + 1, "goal": steps + 1}
    arrays = [np.stack([array] * length.get(name, steps)) for name, array in per_step.items()]
    return gaussian.Problem(*arrays, np.zeros(4), np.zeros((4, 4)))


def log_mean_reward(problem, prior, beta):
    """log E exp(beta reward) over z = mean + L e of whole trajectories; no covariance has to have an inverse."""
    mean, cov = gaussian.stacked(problem, *prior)
    scales, directions = np.linalg.eigh(cov)
    root = directions * np.sqrt(np.maximum(scales, 0))
    quadratic, linear, constant = (beta * part for part in gaussian.reward(problem))
    precision = np.eye(len(mean)) - 2 * root.T @ quadratic @ root
    slope = root.T @ (2 * quadratic @ mean + linear)
    at_mean = mean @ quadratic @ mean + linear @ mean + constant
    return at_mean + 0.5 * slope @ np.linalg.solve(precision, slope) - 0.5 * np.linalg.slogdet(precision)[1]


@pytest.fixture(scope="module")
def answers():
    return recovery.answer(CASE, jax.random.key(0))


@pytest.fixture(scope="module")
def groups(answers):
    return arviz.datasets(answers, jax.random.key(1))


@pytest.fixture(scope="module")
def oracle():
    steps, beta = CASE.horizon, CASE.beta
    prior = np.zeros((steps, 2, 4)), np.zeros((steps, 2)), np.stack([np.eye(2)] * steps)
    value, policy = gaussian.soft_recursion(problem(steps), prior, beta)
    soft_value = beta * gaussian.elbo(problem(steps), prior, beta, policy)
    return value, policy, soft_value, prior


def test_the_row_is_in_nats_and_shows_dimensions(answers, oracle):
    row = recovery.summarize(answers)
    _, _, soft_value, prior = oracle
    log_evidence = log_mean_reward(problem(CASE.horizon), prior, CASE.beta)
    assert row[:5] == ("point-mass", "R^4", "R^2", 30, 1.0)
    assert row.soft_value == pytest.approx(soft_value, rel=1e-9)
    assert row.elbo == pytest.approx(soft_value, rel=1e-9)
    assert row.log_evidence == pytest.approx(log_evidence, rel=1e-9)
    assert row.gap == pytest.approx(log_evidence - soft_value, rel=1e-8)
    assert 0 <= row.kl < 1e-8 and row.policy_error < 1e-6 and row.converged
    assert '"states": "R^4"' in table.to_json([row]) and "| R^4 | R^2 |" in table.markdown([row])


def test_what_a_fit_lacks_is_its_kl_and_its_largest_difference(answers):
    policy = answers.solution.policy["u"]
    worse = {"u": policy._replace(offset=policy.offset.at[3, 1].add(-0.25))}
    row = recovery.summarize(answers._replace(fit=answers.fit._replace(policy=worse)))
    assert row.policy_error == pytest.approx(0.25, rel=1e-12)
    variance = float(policy.cov[3, 1, 1])
    assert row.kl == pytest.approx(0.25**2 / (2 * variance), rel=1e-9)


def test_policies_and_values_have_named_parts(answers, groups, oracle):
    value, policy, _, _ = oracle
    policies, values = groups["policies"], groups["values"]
    assert policies["policy_u_gain"].dims == ("answer", "time", "u_coordinate", "u_given")
    assert policies["policy_u_cov"].dims == ("answer", "time", "u_coordinate", "u_coordinate_other")
    for part, expected in zip(("gain", "offset", "cov"), policy, strict=True):
        np.testing.assert_allclose(policies[f"policy_u_{part}"].sel(answer="fit"), expected, rtol=1e-6, atol=1e-7)
    for part, expected in zip(("matrix", "vector", "scalar"), value, strict=True):
        found = values[f"value_{part}"].sel(answer="exact")
        np.testing.assert_allclose(found, CASE.beta * np.asarray(expected), rtol=1e-7, atol=1e-7)
    assert values["value_matrix"].attrs["units"] == "nats"
    assert "speed north (m/s)" in values["state"].values


def test_trajectories_have_an_axis_of_coordinates(answers, groups, tmp_path):
    drawn = groups["posterior"]
    assert drawn["x"].dims == ("chain", "draw", "instant", "x_coordinate") and drawn["u"].shape == (
        1,
        arviz.DRAWS,
        30,
        2,
    )
    east = drawn["x"].sel(x_coordinate="east (m)").isel(instant=0)
    np.testing.assert_allclose(east, 0, atol=1e-12)
    x, u = drawn["x"][0, :, :-1].values, drawn["u"][0].values
    reward = -STEP * ((x - [2, 1, 0, 0]) ** 2 @ [1, 1, 0.1, 0.1] + 0.1 * (u**2).sum(-1))
    np.testing.assert_allclose(groups["sample_stats"]["optimality"][0], CASE.beta * reward, rtol=1e-9, atol=1e-9)
    arviz.save(groups, tmp_path / "posterior.nc")
    assert arviz.load(tmp_path / "posterior.nc")["policies"].equals(groups["policies"])


@pytest.mark.slow
def test_figures(answers, tmp_path):
    written = results.write_case(answers, jax.random.key(1), tmp_path)
    assert [path.name for path in written] == ["policy.png", "fit.png", "graph.png", "posterior.nc"]
    panels = plots.policy(answers).axes
    assert [axes.get_title() for axes in panels[:4]] == list(CASE.names["x"])
    assert [len(axes.lines) for axes in panels] == [2, 2, 2, 2, 5, 5]
    mean = np.asarray(panels[0].lines[0].get_ydata())
    policy = answers.solution.policy["u"]
    x = np.zeros(4)
    for t, one in enumerate(zip(*(np.asarray(part) for part in policy), strict=True)):
        assert mean[t] == pytest.approx(x[0], abs=1e-9)
        first, second = problem(1).A[0], problem(1).B[0]
        x = first @ x + second @ (one[0] @ x + one[1])


@pytest.mark.slow
def test_an_infinite_horizon_of_vectors_has_a_row_and_figures(tmp_path):
    case = cases.Case(
        "endless",
        "without end",
        linear_gaussian,
        gallery.point_mass,
        None,
        2.0,
        0.9,
        temperature="inverse_temperature",
    )
    endless = recovery.answer(case, jax.random.key(0))
    row = recovery.summarize(endless)
    assert row.log_evidence is None and "mixture" in row.missing["log evidence"] and row.policy_error < 1e-5
    assert "temperature.png" not in {path.name for path in results.write_case(endless, jax.random.key(1), tmp_path)}
    assert kinds.coordinates(endless.program, {}, "u") == ["u[0]", "u[1]"]


def test_show_and_facts():
    shown = CliRunner().invoke(cli.app, ["show", "point-mass"])
    assert shown.exit_code == 0
    for words in ("state in R^4, action in R^2", "linear_gaussian, horizon 30", "q(u | x)", "V(x) = x'Vx", "decision"):
        assert words in shown.stdout
    assert facts.task_facts({"gain": np.ones((2, 3))}) == ["['gain']: shape (2, 3)"]


@pytest.mark.parametrize(("argument", "value"), [("time_step", 0.0), ("mass", -1.0), ("gust", np.nan), ("gust", -0.1)])
def test_a_mass_that_is_none(argument, value):
    with pytest.raises(ValueError, match=argument):
        gallery.point_mass(**{argument: value})
