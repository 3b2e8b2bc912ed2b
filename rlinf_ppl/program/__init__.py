"""The language of step programs: what a user writes, and how it is traced, unrolled and read."""

from rlinf_ppl.program.control_program import ControlProgram
from rlinf_ppl.program.language import decide, optimality
from rlinf_ppl.program.reading import read

__all__ = ["ControlProgram", "decide", "optimality", "read"]
