"""Policies within bounds and nonlinear systems, as the command line recovers and draws them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from rlinf_ppl import report
from rlinf_ppl.inference import exact, execution, trust_region
from rlinf_ppl.models import single_agent
from rlinf_ppl.report import cases, recoveries, recovery, searches, table
from rlinf_ppl.tasks import gallery


@pytest.mark.parametrize("name", ["bounded-grid", "bounded-point-mass"])
def test_a_bounded_case_spends_its_bound_in_every_answer_of_it(name):
    case = cases.find(name)
    program = case.program(case.task())
    solution = exact.solve(program)
    spent = exact.kl(program, solution.policy, exact.prior_policy(program))
    assert_allclose(spent, case.options["kl_bound"], rtol=1e-9)
    tau = recovery.nats_per_unit(program)
    earned = execution.expected_return(program, solution.policy)
    assert_allclose(tau * solution.elbo, tau * earned - spent, rtol=1e-9)


def test_a_bounded_case_says_that_its_temperature_is_found():
    case = cases.find("bounded-grid")
    assert case.beta is None and "beta" not in case.setting and "kl bound 5" in case.setting
    direct = trust_region.total_policy_bound(single_agent(case.task(), 20), 5.0)
    solution = exact.solve(case.program(case.task()))
    assert_allclose(direct.policy["a"], solution.policy["a"], rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_a_search_is_recovered_and_drawn(monkeypatch, tmp_path):
    monkeypatch.setattr(searches, "ITERATIONS", 4)
    monkeypatch.setattr(searches, "NUM_SEEDS", 2)
    found = searches.recover(cases.find("pendulum"), jax.random.key(0))
    row = found.row
    assert set(found.found) == {"GPS", "SAPS", "ESAPS"}
    for name, cost in (("GPS", row.gps), ("SAPS", row.saps), ("ESAPS", row.esaps)):
        each = found.found[name]
        assert each.cost.shape == (2, 5) and np.all(each.accepted)
        assert_allclose(np.mean(each.cost[:, -1]), cost)
        assert cost < row.start
    assert_allclose(found.found["GPS"].kl.sum(-1), 10.0, rtol=1e-5)
    assert np.all(found.found["SAPS"].kl < 3 * (1 + 1e-5))
    assert row.ilqr < row.gps
    assert {path.name for path in searches.write(found, tmp_path)} == {
        "cost.png", "poses.png", "spending.png", "graph.png",
    }  # fmt: skip
    text = table.markdown([row])
    assert "## Policy search" in text and searches.SETTINGS in text
    assert [each["task"] for each in json.loads(table.to_json([row]))] == ["pendulum"]


def test_the_cases_are_of_kinds_that_are_recovered():
    kinds = {name: cases.find(name).kind for name in ("bounded-grid", "bounded-point-mass", "pendulum")}
    assert set(kinds.values()) <= set(recoveries.KINDS) and kinds["pendulum"] == "search"
    case = cases.find("pendulum")
    assert case.horizon == case.task().horizon == case.program(case.task()).horizon


@pytest.mark.parametrize("name", ["pendulum", "double_pendulum", "quad_pendulum", "cart_pole"])
def test_joints_are_where_links_end(name):
    task = getattr(gallery, name)()
    upright = jnp.zeros_like(task.initial_mean)
    hanging, standing = task.step.joints(task.initial_mean), task.step.joints(upright)
    length = jnp.linalg.norm(jnp.diff(standing, axis=0), axis=-1)
    assert_allclose(hanging, np.asarray(standing) * [1, -1], atol=1e-6)
    assert_allclose(standing[-1], [0.0, jnp.sum(length)], atol=1e-6)
    bent = task.step.joints(jax.random.normal(jax.random.key(0), upright.shape))
    assert_allclose(jnp.linalg.norm(jnp.diff(bent, axis=0), axis=-1), length, rtol=1e-5)


class TestPoses:
    joints = np.stack([np.zeros((11, 2)), np.stack([np.sin(np.arange(11)), np.cos(np.arange(11))], -1)], 1)

    def test_a_pose_for_each_of_some_times(self):
        axes = report.plot_poses(self.joints, num_poses=3, time_step=0.1)
        assert [text.get_text() for text in axes.get_xticklabels()] == ["0 s", "0.5 s", "1 s"]
        rods = [line for line in axes.get_lines() if line.get_linestyle() == "-"]
        places = axes.get_xticks()
        assert len(rods) == 3 and np.allclose(np.diff(places), np.diff(places)[0])
        for rod, t in zip(rods, (0, 5, 10), strict=True):
            assert_allclose(np.diff(rod.get_xydata(), axis=0)[0], self.joints[t, 1], atol=1e-12)
        low, high = axes.get_xlim()
        assert all(low <= x <= high for rod in rods for x in rod.get_xdata())
        assert axes.get_aspect() == 1.0 and axes.get_ylabel() == "height (m)"

    def test_steps_are_counted_where_time_has_no_unit_and_other_axes_are_drawn_on(self):
        from matplotlib.figure import Figure

        own = Figure().add_subplot()
        assert report.plot_poses(self.joints, num_poses=2, ax=own) is own
        assert [text.get_text() for text in own.get_xticklabels()] == ["0", "10"]

    @pytest.mark.parametrize(
        ("joints", "options", "words"),
        [
            (np.zeros((3, 2)), {}, "joints has shape"),
            (np.full((3, 2, 2), np.nan), {}, "finite"),
            (np.zeros((3, 2, 2)), {"num_poses": 4}, "num_poses is 4"),
            (np.zeros((3, 2, 2)), {"num_poses": 1}, "num_poses is 1"),
            (np.zeros((3, 2, 2)), {"num_poses": 2, "time_step": -0.1}, "time_step is -0.1"),
        ],
    )
    def test_wrong_ones_are_named(self, joints, options, words):
        with pytest.raises(ValueError, match=words):
            report.plot_poses(joints, **options)


def test_costs_are_means_in_bands(monkeypatch):
    costs = {"one": np.array([[4.0, 2.0], [8.0, 6.0]]), "two": np.array([5.0, 1.0, 0.5])}
    axes = report.plot_costs(costs)
    first, second = axes.get_lines()
    assert_allclose(first.get_xydata(), [[0, 6], [1, 4]])
    assert_allclose(second.get_xydata(), [[0, 5], [1, 1], [2, 0.5]])
    (band,) = axes.collections
    assert band.get_paths()[0].get_extents().extents.tolist() == [0, 2, 1, 8]
    assert axes.get_yscale() == "log" and [t.get_text() for t in axes.get_legend().get_texts()] == ["one", "two"]
    wrong = {"holds -1": [1.0, -1.0], r"shape \(2, 2, 2\)": np.ones((2, 2, 2)), "holds nan": [np.nan], "shape": []}
    for words, each in wrong.items():
        with pytest.raises(ValueError, match=f"'wrong'.* {words}"):
            report.plot_costs({"wrong": each})
    with pytest.raises(ValueError, match="costs is empty"):
        report.plot_costs({})
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    result = trust_region.Improvement(*[None] * 3, np.ones(3), *[None] * 4)
    for given in (np.ones(3), {"one": result}):
        with pytest.raises(TypeError, match="costs must be a dict"):
            report.plot_costs(given)


def test_what_is_spent_stands_beside_temperatures():
    axes = report.plot_spending([0.1, 0.2, 0.0], [2.0, np.inf, 4.0])
    assert_allclose(axes.get_lines()[0].get_ydata(), [0.1, 0.2, 0.0])
    (beside,) = [other for other in axes.figure.axes if other is not axes]
    assert_allclose(beside.get_lines()[0].get_ydata(), [0.5, 0.0, 0.25])
    one = report.plot_spending([0.1, 0.2], 0.0)
    assert np.all(np.isnan(one.figure.axes[1].get_lines()[0].get_ydata()))
    with pytest.raises(ValueError, match=r"shape \(2,\), inverse_temperature \(3,\)"):
        report.plot_spending([0.1, 0.2], [1.0, 1.0, 1.0])
