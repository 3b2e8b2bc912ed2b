"""Which cases of a test run each time; the others are slow ones."""

from collections.abc import Iterable
from typing import Any

import pytest


def quick(few: Iterable[Any], cases: Iterable[Any]) -> list[Any]:
    """All cases, of which all but a few are slow."""
    few, cases = list(few), list(cases)
    assert not [case for case in few if case not in cases]
    return [case if case in few else pytest.param(case, marks=pytest.mark.slow) for case in cases]
