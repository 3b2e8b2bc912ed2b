"""Arrays in, arrays out: named tables and the one elimination that every engine runs."""

from rlinf_ppl.algebra import regularizers
from rlinf_ppl.algebra.arrivals import Arrival
from rlinf_ppl.algebra.chain import Chain, Site, Slice
from rlinf_ppl.algebra.elimination import (
    Found,
    Rules,
    Walked,
    backward,
    condition_rules,
    evaluate_rules,
    expectation_rules,
    solve_rules,
    start,
    through,
    walk,
)
from rlinf_ppl.algebra.marginals import forward, posterior_forward
from rlinf_ppl.algebra.messages import TIME, Law, Message, at_time, by_time
from rlinf_ppl.algebra.tables import Conditional, Table

__all__ = [
    "TIME",
    "Arrival",
    "Chain",
    "Conditional",
    "Found",
    "Law",
    "Message",
    "Walked",
    "Rules",
    "Site",
    "Slice",
    "Table",
    "at_time",
    "backward",
    "by_time",
    "condition_rules",
    "evaluate_rules",
    "expectation_rules",
    "forward",
    "posterior_forward",
    "regularizers",
    "solve_rules",
    "start",
    "through",
    "walk",
]
