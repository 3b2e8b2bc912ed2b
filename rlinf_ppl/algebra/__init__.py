"""Arrays in, arrays out: functions of named variables, and the one elimination that every engine runs.

    chain                   a program that was read: laws and factors in order, and how the next state arises
    messages                what the elimination asks of an algebra: `Message`, `Law`, `Arrival`
    times                   what holds at each time, and at all
    elimination             the walk: a step from last to first, then backwards in time, or without end
    fixed_point             where a walk without end arrives, and how that depends on the program
    linear_systems          what its steps and derivatives solve
    marginals               forwards in time, as the derivative of the walk
    replies                 decisions that do not see all, one after the other
    equilibrium             decisions that do not see each other

    tables, arrivals        the first algebra: finite variables
    numerics, regularizers  their soft maxima, and what a decision pays for leaving its prior
    columns                 the same for many states, a few of which can follow each
    quadratics, gaussians   the second algebra: vectors
    rounding, squares       what their rounding comes to, and sums of squares for where it is too much
    affine, affine_marginals
                            their next state, and where a policy takes them
    coordinates, small_matrices
                            vectors side by side, and factorisations

    noise, resampling       random numbers for draws, and particles drawn anew
    compiled                compiled functions whose products of matrices keep all digits

Nothing here knows a program, an engine, a model or a task.
"""

from rlinf_ppl.algebra import regularizers
from rlinf_ppl.algebra.affine_marginals import affine_forward
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
from rlinf_ppl.algebra.messages import TIME, Arrival, Law, Message, Whole
from rlinf_ppl.algebra.replies import averaged, joints, reply_rules
from rlinf_ppl.algebra.tables import Conditional, Table
from rlinf_ppl.algebra.times import at_time, by_time

__all__ = [
    "TIME",
    "Arrival",
    "Chain",
    "Conditional",
    "Found",
    "Law",
    "Message",
    "Walked",
    "Whole",
    "Rules",
    "Site",
    "Slice",
    "Table",
    "affine_forward",
    "at_time",
    "averaged",
    "backward",
    "by_time",
    "condition_rules",
    "evaluate_rules",
    "expectation_rules",
    "forward",
    "joints",
    "posterior_forward",
    "regularizers",
    "reply_rules",
    "solve_rules",
    "start",
    "through",
    "walk",
]
