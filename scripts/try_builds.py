"""Tries what `python -m build` made, away from the source tree.

    python scripts/try_builds.py dist constraints/newest.txt

The wheel is installed alone into a new environment, where the README's program must print what the README says; the
tests of the source distribution must be found and import.
"""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path


def try_wheel(wheel: Path, constraints: Path, readme: str) -> None:
    """Runs the README's program with nothing but the wheel."""
    program, expected = (re.search(f"```{kind}\n(.*?)```", readme, re.DOTALL)[1] for kind in ("python", "text"))
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "--constraint", constraints, wheel], check=True)
        run = subprocess.run([python, "-c", program], cwd=folder, env=clean(), stdout=subprocess.PIPE, text=True)
    if run.returncode or run.stdout != expected:
        sys.exit(f"{wheel.name}: the README's program ended with {run.returncode} and printed\n{run.stdout}")
    print(f"{wheel.name}: the README's program runs")


def try_source(archive: Path) -> None:
    """Finds the tests of the source distribution."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        (place,) = Path(folder).iterdir()
        find = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", ""]
        run = subprocess.run(find, cwd=place, env=clean() | {"PYTHONPATH": str(place)}, capture_output=True, text=True)
        missing = [name for name in ("Makefile", "constraints", "scripts") if not (place / name).exists()]
    last = run.stdout.strip().splitlines()[-1] if run.stdout else run.stderr
    if run.returncode or missing:
        sys.exit(f"{archive.name}: missing {missing}; {last}")
    print(f"{archive.name}: {last}")


def clean() -> dict[str, str]:
    """The environment without a path to the source tree."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


if __name__ == "__main__":
    folder, constraints = map(Path, sys.argv[1:])
    (wheel,), (archive,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    try_wheel(wheel.resolve(), constraints.resolve(), Path("README.md").read_text(encoding="utf-8"))
    try_source(archive.resolve())
