"""The README's program prints what the README says, and the commands that it names exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_program_prints_what_the_readme_says():
    program = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    expected = re.search(r"```text\n(.*?)```", README, re.DOTALL)[1]
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout == expected


@pytest.mark.slow
def test_the_program_of_behaviour_runs():
    program = next(
        block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "behaviour.example" in block
    )
    program = f"from rlinf_ppl.inference import exact\n{program}print(truth)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "NOT CONVERGED" not in run.stdout and "{'replacement': 6.0, 'upkeep': 0.3}" in run.stdout


@pytest.mark.slow
def test_the_program_of_memories_runs():
    program = next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "planning_task" in block)
    program = f"import jax\nimport optax\nfrom rlinf_ppl.inference import svi\n{program}"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "precise where choices matter" in run.stdout


@pytest.mark.slow
def test_the_program_of_hidden_state_runs():
    program = next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "gallery.tiger" in block)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "what remembers all is worth -0.86 to -0.86" in run.stdout
    assert "what remembers nothing is worth -12.57" in run.stdout


@pytest.mark.parametrize("target", re.findall(r"^\$ make (\S+)", README, re.MULTILINE))
def test_the_makefile_has_the_targets(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_places_to_read_exist():
    named = re.findall(r"`((?:rlinf_ppl|tests|notebooks)/[\w./]*)`", README)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []
