"""From what somebody did to why: rewards, rationality, learning rates, by maximum likelihood and by NUTS.

    site                  behaviour as an observed site of one's own NumPyro model
    maximum_likelihood    estimates and their standard errors, from a data frame
    sample                a posterior, of everybody or of each by their own, from a data frame
    example               a panel of simulated choices to begin with
    linear_rewards        the programs of rewards that are linear in features: inverse reinforcement learning
    fisher_information    what behaviour can tell about parameters, and along which directions nothing
    contraction           what it told: a posterior beside its prior, direction by direction
    plot_identifiability  a picture of the directions
    epic_distance         how far apart two rewards are in what they want

What is inferred are the numbers that a program is made from: any function of a dictionary of them that returns a
`ControlProgram`. `site`, `linear_rewards`, `fisher_information` and `epic_distance` need nothing but this package;
what takes or makes a data frame wants the extra `rlinf_ppl[behaviour]`, which is pandas and SciPy.
"""

from importlib import import_module
from typing import Any

from rlinf_ppl.inference.sites import site

# Where what is imported once it is asked for stands.
PLACES = {
    "maximum_likelihood": "frames",
    "sample": "frames",
    "example": "frames",
    "linear_rewards": "irl",
    "epic_distance": "irl",
    "fisher_information": "identifiability",
    "contraction": "identifiability",
    "plot_identifiability": "pictures",
}

__all__ = [
    "contraction",
    "epic_distance",
    "example",
    "fisher_information",
    "linear_rewards",
    "maximum_likelihood",
    "plot_identifiability",
    "sample",
    "site",
]


def __getattr__(name: str) -> Any:
    """What takes data frames, and what few need, is imported where it is asked for."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"rlinf_ppl.behaviour.{PLACES[name]}"), name)
    except ImportError as error:
        raise ImportError(
            f"behaviour.{name} takes a data frame, and {error.name} is not installed: pip install "
            "'rlinf_ppl[behaviour]'. behaviour.site takes arrays, and needs neither."
        ) from error
