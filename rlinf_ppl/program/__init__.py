"""The language of step programs: what a user writes, and what is found in it.

    language         decide and optimality, the two words, and truncated, of counts
    structure        a program without its numbers: what compiled code is shared by
    control_program  ControlProgram: initial, step and final with their arrays, traced once and checked
    sites, tracing   a function's sites, what each depends on, and its arithmetic as a jaxpr: `forms`
    supports, laws   what values a variable takes, and the law of a site; `families` are the parameters of laws
    point            laws, factors, temperatures and next values by name, at one point: what everything else reads
    identity         what a jaxpr computes, as a key: equal programs share compiled code
    graph            scopes, by the elimination on names alone
    unrolled         the same functions over time in Python: NumPyro's model and guide
    reading          the traced arithmetic as tables, or as quadratics in `linear`: what exact engines walk over
    numbers          what numbers make no program, and where they stand
    degrees          the degree of each number in the real variables; rules and loops of it: degree_rules, degree_loops
    linearity        what is linear-Gaussian by its degrees, and what to write where it is not
    plain            the arithmetic with true derivatives, from which coefficients are read
    expansions       those of a factor, as a quadratic or as a sum of squares
    precision        the same program in float64
    readable         which programs exact answers take, and why not
    evaluation       the inverse temperature that decisions share
    lookup           tables that are arrays of the user already, and indices that leave their array
    changes          arguments over time, and other priors and inverse temperatures in the place of a step's own
    conditionals     a policy's arrays, as the law of a decision at one point
    guides           a guide of one's own: functions of a module, and the arrays in it that are learned
    checks           what is refused, where the user stands

A program is all that an engine ever sees: nothing here knows an engine, a model or a task.
"""

from rlinf_ppl.program.changes import over_time
from rlinf_ppl.program.control_program import ControlProgram
from rlinf_ppl.program.language import decide, optimality, truncated
from rlinf_ppl.program.parameters import parameter
from rlinf_ppl.program.reading import read

__all__ = ["ControlProgram", "decide", "optimality", "over_time", "parameter", "read", "truncated"]
