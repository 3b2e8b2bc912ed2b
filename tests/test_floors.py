"""The house: a file imports from lower floors only, stays small, and `import rlinf_ppl` stays light."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "rlinf_ppl"
FLOORS = {
    "files": 1,
    "labelled": 1,
    "types": 1,
    "algebra": 1,
    "program": 2,
    "tasks": 2,
    "models": 3,
    "inference": 3,
    "behaviour": 4,
    "report": 4,
    "cli": 5,
}
STEPS = ("arguments", "chains", "particles", "histories", "fitting")
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("matplotlib", "gymnasium", "arviz", "arviz_base", "xarray", "typer", "rich")
LONGEST_FILE = 300
LONGEST_FUNCTION = 40


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module):
    """The subpackage or file of the package that a module belongs to; None for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def imported_modules(path):
    """Every module of the package that a file imports, wherever in the file the import stands."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
            base = ".".join(filter(None, [start, node.module])) if node.level else node.module
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((name, node.lineno) for name in names if name.split(".")[0] == "rlinf_ppl")


def language_names():
    """What the package itself exports, and the room each name comes from."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    return {
        alias.asname or alias.name: room(f"rlinf_ppl.{(node.module or '').removeprefix('rlinf_ppl').lstrip('.')}")
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def imported_room(name):
    """The room that an imported dotted name leads to, through the package's own exports as well."""
    found = room(name)
    return found if found in FLOORS else language_names().get(found)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_lead_to_lower_floors_only(path):
    own = room(module_name(path))
    if own is None:
        return
    assert own in FLOORS, f"{own} has no floor: give it one in {Path(__file__).name}"
    for name, line in imported_modules(path):
        other = imported_room(name)
        if other is None or other == own:
            continue
        assert FLOORS[other] < FLOORS[own], (
            f"{path.relative_to(ROOT)}:{line} (floor {FLOORS[own]}) imports {name} (floor {FLOORS[other]})"
        )


@pytest.mark.parametrize("path", sorted((PACKAGE / "inference").rglob("*.py")), ids=lambda path: path.name)
def test_what_engines_are_made_of_knows_no_engine(path):
    """Within inference: arguments, then chains, particles, fitting, and the engines that users call above them."""
    own = step_of(module_name(path))
    for name, line in imported_modules(path):
        if name.startswith("rlinf_ppl.inference."):
            assert step_of(name) <= own, f"{path.relative_to(ROOT)}:{line} imports {name}, which stands above it"


def step_of(name):
    part = name.split(".")[2] if name.count(".") > 1 else None
    return STEPS.index(part) if part in STEPS else len(STEPS)


def test_every_room_has_a_floor():
    rooms = {room(module_name(path)) for path in FILES} - {None, "__main__"}
    assert rooms == set(FLOORS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            documented = ast.get_docstring(node, clean=False) is not None
            first = node.body[1] if documented and len(node.body) > 1 else node.body[0]
            length = node.end_lineno - first.lineno + 1
            assert length < LONGEST_FUNCTION, f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length} lines"


def test_algebra_knows_no_numpyro():
    for path in (PACKAGE / "algebra").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] == "numpyro"], path


@pytest.mark.parametrize(
    "statement",
    [
        "import rlinf_ppl",
        "from rlinf_ppl import ControlProgram, models, tasks; from rlinf_ppl.inference import exact, svi",
    ],
)
def test_the_library_loads_nothing_heavy(statement):
    program = f"import json, sys; {statement}; print(json.dumps(sorted(name.split('.')[0] for name in sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(json.loads(run.stdout.splitlines()[-1]))
    assert loaded.isdisjoint(HEAVY)
