"""The classic models, one file a graphical model: a task in, a step program out."""

from rlinf_ppl.models.linear_gaussian import linear_gaussian
from rlinf_ppl.models.single_agent import single_agent

__all__ = ["linear_gaussian", "single_agent"]
