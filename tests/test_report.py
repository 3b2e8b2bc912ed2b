"""What `rlinf recover` shows: the rows against quantities computed another way, and the files against their readers."""

import json
import math
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
import xarray
from jaxtyping import Array
from numpyro.distributions import Categorical

from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.inference import exact
from rlinf_ppl.models import single_agent
from rlinf_ppl.report import arviz, cases, engines, graphs, plots, recovery, results, table
from rlinf_ppl.tasks import gallery

GROUPS = {"posterior", "sample_stats", "conditioned", "policies", "values"}


def two_moves(task, horizon, beta, discount):
    """A model without a file of its own: two state variables, two decisions, chance before them, a discount."""
    del task

    def initial():
        return {"place": numpyro.sample("place", Categorical(probs=jnp.array([0.2, 0.3, 0.5]))), "last": jnp.array(0)}

    def step(place, last):
        wind = numpyro.sample("wind", Categorical(probs=jnp.array([0.75, 0.25])))
        gear = decide("gear", Categorical(probs=jnp.array([0.5, 0.5])))
        move = decide("move", Categorical(probs=jnp.where(last == 1, jnp.array([0.5, 0.5]), jnp.array([1.0, 0.0]))))
        optimality(beta * (move * gear - 0.1 * place + 0.2 * wind))
        following = numpyro.sample("following", Categorical(probs=jnp.eye(3)[(place + move + wind) % 3] * 0.7 + 0.1))
        return {"place": following, "last": gear}

    return ControlProgram(initial, step, horizon, discount, sizes={"last": 2})


TWO_MOVES = cases.Case("two-moves", "two decisions a step", two_moves, lambda: None, horizon=3, beta=2.0, discount=0.9)


@pytest.fixture(scope="module")
def lottery():
    return recovery.answer(cases.find("lottery"), jax.random.key(0))


@pytest.fixture(scope="module")
def strange():
    return recovery.answer(TWO_MOVES, jax.random.key(0))


def test_the_lottery_has_the_numbers_of_its_docstring(lottery):
    row = recovery.summarize(lottery)
    mean, worst, safe = 0.25 * 4 - 0.75, 0.25 * math.exp(4) + 0.75 * math.exp(-1), math.exp(1)
    assert row[:5] == ("lottery", 5, 2, 2, 1.0)
    assert row.soft_value == pytest.approx(math.log(0.5 * safe + 0.5 * math.exp(mean)), abs=1e-12)
    assert row.log_evidence == pytest.approx(math.log(0.5 * safe + 0.5 * worst), abs=1e-12)
    assert row.gap == pytest.approx(row.log_evidence - row.soft_value, abs=1e-12)
    assert row.elbo == pytest.approx(row.soft_value, abs=1e-9)
    assert 0 <= row.kl + 1e-12 < 1e-9
    assert row.policy_error < 1e-6
    assert row.seconds > 0
    assert row.converged


def test_kl_is_the_elbo_that_is_missing(strange):
    prior = exact.prior_policy(strange.program)
    worse = recovery.summarize(
        strange._replace(fit=strange.fit._replace(policy=prior, elbo=exact.elbo(strange.program, prior)))
    )
    assert worse.kl == pytest.approx(worse.soft_value - worse.elbo, abs=1e-10)
    assert worse.kl > 0.01
    assert worse.policy_error > 0.01


def test_a_program_that_no_model_file_holds_has_a_row(strange):
    row = recovery.summarize(strange)
    assert (row.states, row.actions, row.horizon, row.discount) == (6, 4, 3, 0.9)
    assert row.elbo <= row.soft_value + 1e-12 <= row.log_evidence + 2e-12
    assert row.policy_error < 1e-6


@pytest.mark.slow
def test_a_guide_of_ones_own_is_what_a_report_fits():
    """A softmax of few numbers: its ELBO is below that of all tables, by samples and without."""

    class Few(eqx.Module):
        tilt: Array

        def gear(self, place):
            return Categorical(logits=self.tilt[0] * place * jnp.array([0.0, 1.0]))

        def move(self, place, last):
            free = jax.nn.softmax(jnp.array([0.0, 1.0]) * self.tilt[1])
            return Categorical(probs=jnp.where(last == 1, free, jnp.array([1.0, 0.0])))

    def guided(task, horizon, beta, discount):
        return two_moves(task, horizon, beta, discount).with_guide(Few(jnp.zeros(2)))

    case = cases.Case("few", "a guide of few numbers", guided, lambda: None, horizon=3, beta=2.0, discount=1.0)
    answers = recovery.answer(case, jax.random.key(0))
    row = recovery.summarize(answers, engines.estimate(answers.program, jax.random.key(1)))
    assert answers.fit.params["tilt"].shape == (2,)
    assert row.elbo < row.soft_value - 1e-3 and row.kl > 1e-3
    assert row.sampled_elbo == pytest.approx(row.elbo, abs=0.1)


def test_policy_error_looks_only_where_the_prior_can_go(lottery):
    program, policy = lottery.program, lottery.solution.policy
    unreachable = {"a": policy["a"].at[0, 1:].set(jnp.array([1.0, 0.0]))}
    reachable = {"a": policy["a"].at[1, 3].set(jnp.array([1.0, 0.0]))}
    assert recovery.policy_error(program, unreachable, policy) == 0
    assert recovery.policy_error(program, reachable, policy) == pytest.approx(0.5, abs=1e-9)
    met = recovery.reachable(program)["a"]
    np.testing.assert_array_equal(met, [[True, False, False, False, False], [False, True, True, True, False]])


@pytest.mark.slow
def test_the_same_key_gives_the_same_row():
    case, key = cases.find("lottery"), jax.random.key(7)
    first, second = recovery.recover(case, key), recovery.recover(case, key)
    assert first._replace(seconds=0.0) == second._replace(seconds=0.0)


def test_progress_names_the_phases():
    phases = []
    recovery.answer(cases.find("lottery"), jax.random.key(0), phases.append)
    assert phases == ["building", "solving", "fitting", "conditioning"]


def make_row(**changes):
    row = recovery.Row("lottery", 5, 2, 2, 1.0, 0.69, 0.69, 1e-17, 2e-9, 2.1, 1.4, 1.0, True)
    return row._replace(**changes)


def test_json_is_strict():
    text = table.to_json([make_row(kl=math.nan, gap=math.inf), make_row()])
    first, second = json.loads(text, parse_constant=lambda literal: pytest.fail(f"{literal} is no JSON"))
    assert first["kl"] is None and first["gap"] is None
    assert second == make_row()._asdict()


def test_tables_have_units_and_mark_a_fit_that_did_not_converge():
    text = table.markdown([make_row(), make_row(task="taxi", converged=False)])
    answers, engines = [part.splitlines() for part in re.findall(r"^\|.*?(?=\n\n)", text, re.DOTALL | re.MULTILINE)]
    assert [answers[0].count(unit) for unit in ("(nats)", "(steps)", "(s)")] == [3, 1, 1]
    assert [engines[0].count(unit) for unit in ("(nats)", "(max)")] == [9, 1]
    for lines in (answers, engines):
        assert len({line.count("|") for line in lines}) == 1 and "taxi *" in lines[3]
    assert "did not converge" in text
    assert "did not converge" not in table.markdown([make_row()])
    tables = table.rich_tables([make_row()])
    assert [len(each.columns) for each in tables] == [len(table.ANSWERS), len(table.ENGINES)]


@pytest.mark.parametrize("answers", ["lottery", "strange"])
def test_posteriors_survive_the_disk(answers, request, tmp_path):
    answers = request.getfixturevalue(answers)
    groups = arviz.datasets(answers, jax.random.key(1), num_draws=40)
    assert set(groups) == GROUPS
    arviz.save(groups, tmp_path / "posterior.nc")
    found = arviz.load(tmp_path / "posterior.nc")
    assert set(found) == GROUPS
    for name, dataset in groups.items():
        xarray.testing.assert_equal(found[name], dataset)
        assert found[name].attrs == dataset.attrs


def test_axes_are_named(lottery, strange):
    groups = arviz.datasets(lottery, jax.random.key(1), num_draws=40)
    assert groups["posterior"]["s"].dims == ("chain", "draw", "instant")
    assert groups["posterior"]["a"].shape == (1, 40, 2)
    assert groups["sample_stats"]["optimality"].dims == ("chain", "draw", "time")
    assert "optimality" not in groups["posterior"] and "optimality" not in groups["conditioned"]
    policy = groups["policies"]["policy_a"]
    assert policy.dims == ("answer", "time", "s", "a")
    assert policy.sel(answer="conditioned", time=0, s="choice", a="draw").item() == pytest.approx(0.8366, abs=1e-4)
    assert policy.sel(answer="fit", time=0, s="choice", a="draw").item() == pytest.approx(0.3208, abs=1e-4)
    groups = arviz.datasets(strange, jax.random.key(1), num_draws=40)
    assert groups["policies"]["policy_move"].dims[:2] == ("answer", "time")
    assert groups["values"]["value"].dims == ("answer", "instant", "place", "last")
    assert groups["posterior"]["alive"].sizes["instant"] == 4


def test_trajectories_come_from_the_answers(lottery):
    groups = arviz.datasets(lottery, jax.random.key(1), num_draws=4000)
    for group, chance in (("posterior", 0.3208), ("conditioned", 0.8366)):
        drawn = groups[group]["a"].isel(time=0).mean().item()
        assert abs(drawn - chance) < 5 * math.sqrt(chance * (1 - chance) / 4000)


def test_both_interfaces_of_arviz_read_the_groups(lottery, tmp_path):
    groups = arviz.datasets(lottery, jax.random.key(1), num_draws=40)
    tree = arviz.to_datatree(groups)
    assert set(tree.children) == GROUPS
    arviz.save(groups, tmp_path / "posterior.nc")
    with xarray.open_datatree(tmp_path / "posterior.nc", engine="h5netcdf") as read:
        assert set(read.children) == GROUPS


def test_the_installed_arviz_reads_the_groups(lottery, tmp_path):
    import arviz as installed

    groups = arviz.datasets(lottery, jax.random.key(1), num_draws=40)
    data = arviz.native(groups)
    arviz.save(groups, tmp_path / "posterior.nc")
    read = installed.from_netcdf(tmp_path / "posterior.nc", engine="h5netcdf")
    for found in (data, read):
        np.testing.assert_array_equal(found["posterior"]["a"], groups["posterior"]["a"])
        np.testing.assert_array_equal(found["conditioned"]["a"], groups["conditioned"]["a"])
        with pytest.raises(KeyError):
            found["log_likelihood"]
    assert installed.extract(data, var_names=["s"], group="posterior").sizes["sample"] == 40


def test_arviz_base_reads_the_groups(lottery):
    base = pytest.importorskip("arviz_base", reason="arviz-base is not installed")
    tree = arviz.to_datatree(arviz.datasets(lottery, jax.random.key(1), num_draws=40))
    assert base.extract(tree, var_names=["a"]).sizes["sample"] == 40
    assert "log_likelihood" not in tree.children


@pytest.mark.slow
def test_figures_of_any_program(lottery, strange, tmp_path):
    for answers in (lottery, strange):
        written = results.write_case(answers, jax.random.key(1), tmp_path)
        assert [path.name for path in written] == ["policy.png", "fit.png", "graph.png", "posterior.nc"]
        assert all(path.stat().st_size > 1000 for path in written)
    large = plots.policy_table(strange)
    assert len(large.axes) == 2 * 2 + 1


def test_a_map_shows_the_policy_of_each_cell():
    grid = cases.drawing("S.#\n.XG", (cases.UP, cases.RIGHT, cases.DOWN, cases.LEFT), "S start")
    case = cases.Case(
        "small-grid", "2 x 3", single_agent, lambda: gallery.grid_world("S.#\n.XG"), horizon=4, beta=5.0, grid=grid
    )
    figure = plots.policy(recovery.answer(case, jax.random.key(0)))
    maps = [axes for axes in figure.axes if axes.images]
    assert grid.states == ((0, 1, -1), (2, 3, 4))
    assert len(maps) == 2
    for axes in maps:
        assert np.isfinite(np.ma.filled(axes.images[0].get_array(), np.nan)).tolist() == [[1, 1, 0], [1, 0, 0]]
        assert {text.get_text() for text in axes.texts} >= {"S", "X", "G"}


def test_a_graph_is_drawn_without_nodes_on_top_of_each_other(strange):
    graph = strange.program.graph()
    places = np.array(list(graphs.layout(graph).values()))
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1) + 10 * np.eye(len(places))
    assert apart.min() >= 1
    for parent, child in graph.edges:
        assert graphs.layout(graph)[parent][0] < graphs.layout(graph)[child][0]
    words = {text.get_text() for text in graphs.draw(graph).axes[0].texts}
    assert words == set(graph.nodes)


def test_a_graph_is_described_parents_first(lottery):
    assert [line.split() for line in graphs.describe(lottery.program.graph())] == [
        ["s", "state"],
        ["a", "decision", "<-", "s"],
        ["optimality", "optimality", "<-", "s,", "a"],
        ["s_next", "chance", "<-", "s,", "a"],
        ["s'", "state", "<-", "s_next"],
    ]


def test_cases_have_distinct_names_and_a_model_with_maths():
    names = cases.names()
    assert len(set(names)) == len(names)
    assert {"frozen-lake-4x4", "frozen-lake-8x8", "cliff-walking", "taxi", "slippery-grid", "lottery"} <= set(names)
    assert all(case.model.__doc__ for case in cases.CASES)


@pytest.mark.parametrize("case", [case for case in cases.CASES if case.grid], ids=lambda case: case.name)
def test_a_map_fits_its_task(case):
    task = case.task()
    states = np.array(case.grid.states)
    inside = states[states >= 0]
    assert len(case.grid.moves) == task.num_actions
    assert len(np.unique(inside)) == len(inside) and inside.max() < task.num_states
    letters = np.array([list(row) for row in case.grid.letters])
    ends = dict.fromkeys(("slippery-grid", "slippery-grid-endless", "bounded-grid", "four-rooms-options"), 1)
    off_the_map = (ends | {"taxi": 475}).get(case.name, 0)
    assert len(inside) == task.num_states - off_the_map
    if case.name != "taxi":
        assert set(states[letters == "S"]) == set(np.flatnonzero(task.initial))
        ends = states[np.isin(letters, list(case.grid.ends))]
        np.testing.assert_array_equal(np.ptp(task.reward[ends], axis=-1), 0)
    words = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
    words |= {"west": (0, -1), "east": (0, 1), "north": (-1, 0), "south": (1, 0), "pick up": None, "drop off": None}
    assert case.grid.moves == tuple(words[name] for name in task.action_names)
