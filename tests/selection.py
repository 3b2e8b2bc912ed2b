"""Which cases of a test run each time; the others are slow ones."""

from collections.abc import Iterable
from typing import Any

import pytest


def pairs(one: Iterable[Any], other: Iterable[Any], *more: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Cases in which each value of one axis meets each of another, and the further axes take turns."""
    one, other, lists = list(one), list(other), [list(axis) for axis in more]
    return [
        (x, y, *(values[(i + j + i // len(values)) % len(values)] for values in lists))
        for i, x in enumerate(one)
        for j, y in enumerate(other)
    ]


def quick(few: Iterable[Any], cases: Iterable[Any]) -> list[Any]:
    """All cases, of which all but a few are slow."""
    few, cases = list(few), list(cases)
    assert not [case for case in few if case not in cases]
    return [case if case in few else pytest.param(case, marks=pytest.mark.slow) for case in cases]


def quick_rows(few: Iterable[tuple[Any, ...]], cases: Iterable[tuple[Any, ...]]) -> list[Any]:
    """The same of cases along several axes."""
    few = list(few)
    return [case if case in few else pytest.param(*case, marks=pytest.mark.slow) for case in cases]
