"""Settings that every test runs under; they have to be made before the package is imported."""

import os
from collections import defaultdict
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"

import jax  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Every annotated shape of the package is checked at each call, which takes a fifth of the time of a test: the slow ones
# run without, as the quick ones have run the same functions with it.
if not os.environ.get("UNTYPED"):
    HOOK = install_import_hook("rlinf_ppl", "beartype.beartype")

# A first example compiles, so no deadline holds; the same examples are drawn on every machine.
settings.register_profile("rlinf", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("rlinf")

# Every compiled function takes some of the memory maps that a process may have (65,530 on Linux), and the compiler
# aborts where there are none left.
MOST_MAPS = 40_000
MAPS = Path("/proc/self/maps")

# What is left out of `make test` for its time alone: tests, or some cases of them. Others are marked where they stand.
SLOW = frozenset((Path(__file__).parent / "slow_cases.txt").read_text(encoding="utf-8").splitlines())


# The slow cases run in so many turns: of a test with at least so many of them some cases each time, of the others all
# or none.
TURNS, MANY = 16, 8


def pytest_addoption(parser):
    parser.addoption("--turn", type=int, choices=range(TURNS), help="run a part of the slow cases")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Mark what is listed as slow, a test with all of its cases or one of these; keep a part of many slow cases."""
    slow = defaultdict(list)
    for item in items:
        name = f"{item.path.name}::{item.nodeid.partition('::')[2]}"
        if name in SLOW or name.partition("[")[0] in SLOW:
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow"):
            slow[name.partition("[")[0]].append(item)
    turn = config.getoption("turn")
    if turn is not None:
        many = [cases for cases in slow.values() if len(cases) >= MANY]
        few = [cases for cases in slow.values() if len(cases) < MANY]
        kept = {item for cases in many for item in cases[turn::TURNS]} | {
            x for cases in few[turn::TURNS] for x in cases
        }
        left_out = {item for cases in slow.values() for item in cases} - kept
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]


def pytest_runtest_teardown():
    """Forget what was compiled once there is much of it."""
    if MAPS.exists() and MAPS.read_text().count("\n") > MOST_MAPS:
        jax.clear_caches()
