"""Writes constraints/oldest.txt or constraints/newest.txt: the exact versions of a lane.

    python3.11 scripts/pin_versions.py oldest     every direct requirement at its lower bound in pyproject.toml
    python3.13 scripts/pin_versions.py newest     what the package index has today
    python scripts/pin_versions.py --check        do both files pin what pyproject.toml asks for?

A lane is installed into an environment of its own to see what it comes to; nothing else is touched.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = "test", "notebooks"
# Later ones warn of what matplotlib 3.9 and typer 0.18 do, and warnings fail tests.
HELD = {"pyparsing": "3.2.0", "click": "8.4.2"}
Version = tuple[int, ...]


def lower_bounds() -> dict[str, str]:
    """The lower bound of every direct requirement, those of the extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(each for extra in EXTRAS for each in project["optional-dependencies"][extra])]
    return dict(re.fullmatch(r"([\w.-]+)(?:\[.*\])?>=([\d.]+)", each).groups() for each in asked)


def pinned(lane: str) -> dict[str, str]:
    """The versions in a lane's file."""
    return dict(line.split("==") for line in (ROOT / "constraints" / f"{lane}.txt").read_text().splitlines())


def installed(wanted: dict[str, str]) -> list[str]:
    """The lines of an environment with the package, its extras and these versions."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        venv.create(place, with_pip=True)
        (place / "wanted.txt").write_text("".join(f"{name}=={version}\n" for name, version in wanted.items()))
        pip = [place / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
        package = f"{ROOT}[{','.join(EXTRAS)}]"
        subprocess.run(
            [*pip, "install", "--progress-bar=off", "--constraint", place / "wanted.txt", "-e", package], check=True
        )
        freeze = subprocess.run([*pip, "freeze", "--exclude-editable"], check=True, capture_output=True, text=True)
    return [line for line in freeze.stdout.splitlines() if re.fullmatch(r"[\w.-]+==\S+", line)]


def release(version: str) -> Version:
    """The numbers of a version, without zeros at its end."""
    return tuple(int(number) for number in re.sub(r"(\.0)+$", "", version).split(".") if number.isdigit())


def faults() -> list[str]:
    """What the files do not pin as pyproject.toml asks for it."""
    lanes = {lane: {name.lower(): version for name, version in pinned(lane).items()} for lane in ("oldest", "newest")}
    found = []
    for name, bound in lower_bounds().items():
        oldest, newest = (lanes[lane].get(name.lower()) for lane in ("oldest", "newest"))
        if oldest is None or release(oldest) != release(bound):
            found.append(f"{name}: pyproject.toml asks for {bound} or later, and constraints/oldest.txt has {oldest}")
        if newest is None or release(newest) < release(bound):
            found.append(f"{name}: pyproject.toml asks for {bound} or later, and constraints/newest.txt has {newest}")
    return found


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--check"]:
            wrong = faults()
            print("\n".join(wrong))
            sys.exit(bool(wrong))
        case ["oldest" | "newest" as chosen]:
            lines = installed(lower_bounds() | HELD if chosen == "oldest" else {})
            (ROOT / "constraints" / f"{chosen}.txt").write_text("\n".join(lines) + "\n")
        case _:
            sys.exit(__doc__)
