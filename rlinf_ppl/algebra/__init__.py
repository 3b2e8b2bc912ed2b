"""Arrays in, arrays out: named tables and the one elimination that every engine runs."""

from rlinf_ppl.algebra.elimination import (
    Chain,
    Found,
    Rules,
    Site,
    Slice,
    backward,
    condition_rules,
    evaluate_rules,
    expectation_rules,
    forward,
    posterior_forward,
    solve_rules,
    start,
)
from rlinf_ppl.algebra.tables import Arrival, Conditional, Table

__all__ = [
    "Arrival",
    "Chain",
    "Conditional",
    "Found",
    "Rules",
    "Site",
    "Slice",
    "Table",
    "backward",
    "condition_rules",
    "evaluate_rules",
    "expectation_rules",
    "forward",
    "posterior_forward",
    "solve_rules",
    "start",
]
