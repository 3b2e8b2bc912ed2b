"""The command `rlinf` as a user types it: what it prints where, what it writes, and how it ends."""

import json
import os
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from rlinf_ppl import __version__, cli
from rlinf_ppl.report import cases, recovery, results

runner = CliRunner()


def rlinf(*arguments):
    return runner.invoke(cli.app, [str(argument) for argument in arguments])


def test_list_names_every_case():
    result = rlinf("list")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *cases.names()]


def test_show_gives_the_maths_the_graph_the_scopes_and_the_task():
    result = rlinf("show", "lottery")
    assert result.exit_code == 0
    for words in ("5 states, 2 actions: take, draw", "log sum_a p exp Q", "decision    <- s", "q(a | s)", "horizon 2"):
        assert words in result.stdout


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_graph_draws_a_picture(tmp_path, ending):
    path = tmp_path / "deeper" / f"lottery.{ending}"
    result = rlinf("graph", "lottery", "--out", path)
    assert result.exit_code == 0
    assert result.stdout.strip() == str(path)
    assert path.stat().st_size > 1000


def test_recover_prints_a_table_and_writes_results(tmp_path):
    result = rlinf("recover", "lottery", "--out", tmp_path)
    assert result.exit_code == 0
    assert "lottery" in result.stdout and "(nats)" in result.stdout
    assert "0.6937" in result.stdout and "2.1189" in result.stdout
    assert all(title in result.stdout for title in ("Exact answers", "Engines side by side", "sampled SVI", "SMC"))
    assert not re.search("…", result.stdout)
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    names = {f"lottery/{name}" for name in ("policy.png", "fit.png", "graph.png", "posterior.nc")}
    assert written == {"table.json", "table.md"} | names
    assert json.loads((tmp_path / "table.json").read_text())[0]["task"] == "lottery"


def test_json_is_all_that_standard_output_gets(tmp_path):
    result = rlinf("recover", "lottery", "lottery", "--json", "--out", tmp_path)
    assert result.exit_code == 0
    (row,) = json.loads(result.stdout)
    assert tuple(row) == recovery.Row._fields
    assert row["gap"] == pytest.approx(1.4251624978, abs=1e-9)
    assert row["smc_error"] == pytest.approx(row["smc_log_evidence"] - row["log_evidence"], abs=1e-12)


@pytest.mark.parametrize("command", [("show",), ("graph",), ("recover", "lottery")])
def test_an_unknown_name_ends_with_2_and_near_names(command):
    result = rlinf(*command, "frozen-lake")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("rlinf: no case is named 'frozen-lake'; did you mean frozen-lake-4x4 or ")
    assert len(result.stderr.splitlines()) == 1


def test_a_name_like_no_other_points_to_the_list():
    result = rlinf("show", "zzz")
    assert result.exit_code == 2
    assert result.stderr == "rlinf: no case is named 'zzz'; see `rlinf list`.\n"


@pytest.mark.parametrize("arguments", [("recover", "--seed", "-1"), ("recover", "--seed", "x"), ("show",), ("draw",)])
def test_wrong_arguments_end_with_2_without_a_traceback(arguments):
    result = rlinf(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_a_picture_of_no_known_kind_ends_with_2(tmp_path):
    result = rlinf("graph", "lottery", "--out", tmp_path / "graph.docx")
    assert result.exit_code == 2
    assert "ends in .png, .svg or .pdf" in result.stderr


@pytest.mark.parametrize("command", ["recover", "graph"])
def test_a_place_that_cannot_be_written_ends_with_1(tmp_path, command):
    (tmp_path / "file").write_text("in the way")
    result = rlinf(command, "lottery", "--out", tmp_path / "file" / "graph.png")
    assert result.exit_code == 1
    assert result.stderr.startswith("rlinf: cannot write ")
    assert len(result.stderr.splitlines()) == 1


def test_an_interrupt_ends_with_130(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "write_case", interrupted)
    result = rlinf("recover", "lottery", "--out", tmp_path)
    assert result.exit_code == 130
    assert "interrupted" in result.stderr and "Traceback" not in result.output


def test_version():
    assert rlinf("--version").stdout == f"rlinf_ppl {__version__}\n"


@pytest.mark.parametrize("command", [(), ("list",), ("show",), ("graph",), ("recover",)])
def test_help_has_examples(command):
    result = rlinf(*command, "--help")
    assert result.exit_code == 0
    assert re.search(r"Examples?:", result.stdout) and "rlinf " in result.stdout


def test_the_command_line_loads_a_plotting_library_only_when_it_draws():
    program = (
        "import sys; import rlinf_ppl.cli; print({'matplotlib', 'gymnasium', 'arviz', 'xarray'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_case_is_recovered(tmp_path):
    # As a user runs it: without the checks of every call, and compiled as `make recover` does.
    command = [sys.executable, "-m", "rlinf_ppl.cli", "recover", "--json", "--out", tmp_path]
    compiler = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=1"}
    result = subprocess.run(command, env=compiler, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)
    assert [row["task"] for row in rows] == list(cases.names())
    assert all(row["converged"] for row in rows), rows
    kinds = {case.name: case.kind for case in cases.CASES}
    pictures = {
        "fitted": {"fit.png"},
        "hidden": {"fit.png", "belief.png"},
        "signals": {"fit.png", "messages.png"},
        "search": {"cost.png", "poses.png", "spending.png"},
    }
    for row in rows:
        kind = kinds[row["task"]]
        if kind == "fitted":  # without a closed form: what it earns is more than what it is worth by what it pays
            assert row["paid"] > -4 * row["standard_error"], row
        if kind == "hidden":  # more memory is worth more, and the belief's policy pays for leaving its prior
            assert row["memoryless"] <= row["two_memories"] + 1e-9 and row["lower"] <= row["upper"] + 1e-9, row
            assert row["two_memories"] <= row["upper"] and row["lower"] < row["earned"] + 5 * row["standard_error"], row
        if kind == "signals":
            assert row["elbo"] <= row["earned"] <= row["upper"] + 1e-6 and row["reached"] > 0, row
        if kind == "search":
            assert max(row["gps"], row["saps"], row["esaps"]) < row["start"] / 4 and row["ilqr"] < 75, row
        if kind in pictures:
            written = {path.name for path in (tmp_path / row["task"]).iterdir()}
            assert written == {"graph.png"} | pictures[kind], row
    rows = [row for row in rows if kinds[row["task"]] == "exact"]
    for row in rows:
        assert row["policy_error"] < 1e-3, row
        assert abs(row["kl"]) < 1e-6, row
        endless = row["horizon"] is None
        # A fixed point is found up to its tolerance, a finite horizon up to rounding.
        slack = 1e-7 * max(1, abs(row["soft_value"])) if endless else 1e-9
        excess = row["elbo"] - row["soft_value"]
        assert (excess if row["unit"] == "nats" else abs(excess)) <= slack, row
        assert "log evidence" in row["missing"] or row["soft_value"] <= row["log_evidence"] + slack, row
        assert (row["sampled_kl"] is None) == endless and ("sampled SVI" in row["missing"]) == endless, row
        assert endless or row["sampled_kl"] < 10, row
        # Particles may fall short of the evidence in log, and exceed it by chance only.
        assert ("SMC" in row["missing"]) == (endless or row["log_evidence"] is None), row
        assert "SMC" in row["missing"] or row["smc_error"] < 5 * row["smc_standard_error"] + 1e-9, row
        written = {"policy.png", "fit.png", "graph.png", "posterior.nc"} | ({"temperature.png"} if endless else set())
        assert {path.name for path in (tmp_path / row["task"]).iterdir()} == written
    without = ["frozen-lake-endless", "foe", "foe-at-once", "pennies", "pursuit", "pursuit-at-once"]
    assert [row["task"] for row in rows if row["log_evidence"] is None] == without
