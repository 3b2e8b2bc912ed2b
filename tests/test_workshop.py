"""What the project is built and tested with: versions that are pinned, flags that are known, Pythons that are found."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command, **settings):
    environment = os.environ | settings
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)


def test_both_lanes_pin_what_is_asked_for_and_the_oldest_its_lower_bounds():
    checked = run(sys.executable, "scripts/pin_versions.py", "--check")
    assert (checked.returncode, checked.stdout.strip()) == (0, "")


def test_a_flag_that_this_jaxlib_does_not_know_is_left_out():
    flags = "--xla_no_such_flag=1", "--xla_backend_optimization_level=0"
    assert run(sys.executable, "scripts/known_flags.py", *flags).stdout.split() == [flags[1]]
    assert run(sys.executable, "scripts/known_flags.py", flags[1]).stdout.split() == [flags[1]]
    assert run(sys.executable, "scripts/known_flags.py").stdout.split() == []


def fake_python(folder, name, version, works=True):
    """A command that says which Python it is, or fails as a command of pyenv does that no environment has."""
    command = folder / name
    command.parent.mkdir(parents=True, exist_ok=True)
    command.write_text(f"#!/bin/sh\necho {version}\n" if works else "#!/bin/sh\necho no such command >&2\nexit 127\n")
    command.chmod(0o755)
    return str(command)


@pytest.mark.parametrize("lane, expected", [("", "3.13"), ("newest", "3.13"), ("oldest", "3.11")])
def test_the_newest_python_that_starts_is_taken(tmp_path, lane, expected):
    commands, versions = tmp_path / "bin", tmp_path / "pyenv"
    made = {
        "3.11": fake_python(commands, "python3.11", "3.11"),
        "3.13": fake_python(versions, "versions/3.13.0/bin/python", "3.13"),
    }
    fake_python(commands, "python3.14", "3.14", works=False)
    fake_python(commands, "python3.13", "3.13", works=False)
    fake_python(commands, "python3", "3.10")
    found = run("/bin/sh", "scripts/find_python.sh", *lane.split(), PATH=str(commands), PYENV_ROOT=str(versions))
    assert found.stdout.strip() == made[expected]


def test_no_python_and_no_lane(tmp_path):
    fake_python(tmp_path, "python3", "3.10")
    found = run("/bin/sh", "scripts/find_python.sh", PATH=str(tmp_path), PYENV_ROOT=str(tmp_path))
    assert (found.returncode, found.stdout) == (0, "")
    assert run("/bin/sh", "scripts/find_python.sh", "latest").returncode == 2


def test_what_is_listed_as_slow_exists():
    for line in (ROOT / "tests" / "slow_cases.txt").read_text().splitlines():
        file, _, name = line.partition("::")
        function = name.partition("[")[0].rpartition("::")[2]
        assert f"def {function}(" in (ROOT / "tests" / file).read_text(), line


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_benchmarks_stand_on_public_names(path):
    """On what the package, its folders and its engines export, so that a refactoring leaves them whole."""
    nodes, modules = list(ast.walk(ast.parse(path.read_text()))), {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "rlinf_ppl":
            owner = importlib.import_module(node.module)
            for name in (each.name for each in node.names):
                if hasattr(owner, "__path__") and importlib.util.find_spec(f"{node.module}.{name}"):
                    modules[name] = importlib.import_module(f"{node.module}.{name}")
                    assert modules[name].__all__
                else:
                    assert name in owner.__all__
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            assert node.attr in modules[node.value.id].__all__
