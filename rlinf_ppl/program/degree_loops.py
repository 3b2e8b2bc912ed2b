"""Degrees through branches and loops: a loop is followed round by round, or to the fixed point of its carry.

A short scan is followed exactly. Otherwise what is carried is joined with what it was a round before until it changes
no more; degrees only grow in that and are bounded, so this ends.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from rlinf_ppl.program.degrees import NO_POLYNOMIAL, Analysis, Entries, join, spread
from rlinf_ppl.program.jaxprs import scan_ends

MOST_ROUNDS = 64
ROUNDS_ENTRY_BY_ENTRY = 16


def branch(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries] | None:
    """What a branch of `cond` or `switch` gives, of all where it is not known which."""
    index, *operands = ins
    branches = equation.params["branches"]
    if not index.known:
        return None
    if index.fill is not None:
        branches = [branches[min(max(int(index.fill), 0), len(branches) - 1)]]
    every = [analysis.within(None, each, operands) for each in branches]
    return [reduce(join, group) for group in zip(*every, strict=True)]


def scan(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries] | None:
    """A loop over rows, round by round where they are few."""
    params, length = equation.params, equation.params["length"]
    if all(entries.known for entries in ins):
        return None
    n, k = scan_ends(equation)
    constants, carry, stacked = ins[:n], ins[n:k], ins[k:]

    def body(carry: list[Entries], rows: list[Entries]) -> list[Entries]:
        return analysis.within(None, params["jaxpr"], [*constants, *carry, *rows])

    if not 0 < length <= MOST_ROUNDS:
        rows = [row_of(entries) for entries in stacked]
        carry, outs = find_fixed_point(lambda carry: body(carry, rows), carry)
        return [*carry, *(repeat(out, length) for out in outs)]
    made: dict[int, list[Entries]] = {}
    for i in range(length)[:: -1 if params["reverse"] else 1]:
        outs = body(carry, [Entries(entries.degree[i], entries.fill) for entries in stacked])
        carry, made[i] = outs[: k - n], outs[k - n :]
    return [*carry, *(stack(list(rows)) for rows in zip(*(made[i] for i in range(length)), strict=True))]


def loop(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries] | None:
    """A loop while a predicate holds that must be known."""
    params = equation.params
    if all(entries.known for entries in ins):
        return None
    a, b = params["cond_nconsts"], params["body_nconsts"]
    body = lambda carry: analysis.within(None, params["body_jaxpr"], [*ins[a : a + b], *carry])  # noqa: E731
    carry, _ = find_fixed_point(body, ins[a + b :])
    (test,) = analysis.within(None, params["cond_jaxpr"], [*ins[:a], *carry])
    if test.top >= NO_POLYNOMIAL:
        return [spread(test.top, entries.degree.shape) for entries in carry]
    return carry if test.known else None


def find_fixed_point(
    body: Callable[[list[Entries]], list[Entries]], carry: list[Entries]
) -> tuple[list[Entries], list[Entries]]:
    """What is carried in any round of a loop, and what its body gives beside it then."""
    rounds = 0
    while True:
        outs = body(carry)
        after = [join(before, out) for before, out in zip(carry, outs, strict=False)]
        if all(equally_known(before, out) for before, out in zip(carry, after, strict=True)):
            return carry, outs[len(carry) :]
        rounds += 1
        # A degree may wander from entry to entry for as many rounds as there are entries.
        wide = rounds > ROUNDS_ENTRY_BY_ENTRY
        carry = [spread(entries.top, entries.degree.shape, entries.fill) if wide else entries for entries in after]


def equally_known(first: Entries, second: Entries) -> bool:
    """Whether as much is known of two arrays."""
    return np.array_equal(first.degree, second.degree) and (first.fill is None) == (second.fill is None)


def row_of(entries: Entries) -> Entries:
    """What holds of every row."""
    return Entries(entries.degree.max(axis=0, initial=0), entries.fill)


def repeat(entries: Entries, length: int) -> Entries:
    """Rows that are alike."""
    return Entries(np.broadcast_to(entries.degree, (length, *entries.degree.shape)), entries.fill)


def stack(rows: list[Entries]) -> Entries:
    """Rows one above the other."""
    return Entries(np.stack([row.degree for row in rows]), rows[0].fill if len(rows) == 1 else None)
