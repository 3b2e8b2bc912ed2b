"""From what somebody did to why: rewards, rationality, learning rates, by maximum likelihood and by NUTS.

    site                 behaviour as an observed site of one's own NumPyro model
    maximum_likelihood   estimates and their standard errors, from a data frame
    sample               a posterior, of everybody or of each by their own, from a data frame
    example              a panel of simulated choices to begin with

What is inferred are the numbers that a program is made from: any function of a dictionary of them that returns a
`ControlProgram`. `site` needs nothing but this package; what takes a data frame wants the extra
`rlinf_ppl[behaviour]`, which is pandas and SciPy.
"""

from typing import Any

from rlinf_ppl.inference.sites import site

__all__ = ["example", "maximum_likelihood", "sample", "site"]


def __getattr__(name: str) -> Any:
    """What takes data frames is imported where it is asked for."""
    if name in ("maximum_likelihood", "sample", "example"):
        try:
            from rlinf_ppl.behaviour import frames
        except ImportError as error:
            raise ImportError(
                f"behaviour.{name} takes a data frame, and {error.name} is not installed: pip install "
                "'rlinf_ppl[behaviour]'. behaviour.site takes arrays, and needs neither."
            ) from error
        return getattr(frames, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
