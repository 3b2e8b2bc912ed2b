"""A panel to begin with: simulated bus engines, replaced now and then, in the manner of Rust (1987)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from rlinf_ppl.inference import exact
from rlinf_ppl.inference.arguments import check_count
from rlinf_ppl.inference.histories.simulated import simulate
from rlinf_ppl.models import engine_replacement
from rlinf_ppl.program import ControlProgram

BINS = 30
WEAR = np.array([0.35, 0.55, 0.10])
TRUTH = {"replacement": 6.0, "upkeep": 0.3}


class Example(NamedTuple):
    """Data and what they were drawn from.

    Attributes:
        frame: a row for each bus and month: its mileage, in bins, and whether its engine was replaced.
        program: makes the program from {"replacement": cost of an engine, "upkeep": cost of a bin of mileage}.
        start: parameters to begin at.
        columns: what the columns are, for `maximum_likelihood` and `sample`.
        truth: the parameters that the data were drawn at.
    """

    frame: pd.DataFrame
    program: Callable[[Any], ControlProgram]
    start: dict[str, float]
    columns: dict[str, str]
    truth: dict[str, float]


def program(parameters: Any) -> ControlProgram:
    """Keep the engine of a bus and pay for its upkeep, or pay for a new one; without end, at a discount of .95."""
    upkeep = parameters["upkeep"] * jnp.arange(BINS)
    return engine_replacement(upkeep, parameters["replacement"], WEAR, discount=0.95)


def example(num_buses: int = 50, num_months: int = 60, seed: int = 0) -> Example:
    """Simulate buses.

    Args:
        num_buses: how many.
        num_months: how long each is watched.
        seed: of the random numbers; the same seed gives the same data.
    """
    n, months = check_count("num_buses", num_buses), check_count("num_months", num_months)
    made = program(TRUTH)
    drawn = simulate(made, exact.solve(made).policy, jax.random.key(seed), n, months)
    frame = pd.DataFrame(
        {
            "bus": np.repeat(np.arange(n), months),
            "month": np.tile(np.arange(months), n),
            "mileage": np.asarray(drawn["mileage"])[:, :-1].ravel(),
            "replaced": np.asarray(drawn["replaced"]).ravel(),
        }
    )
    columns = {"state": "mileage", "decision": "replaced", "id": "bus", "time": "month"}
    return Example(frame, program, {"replacement": 1.0, "upkeep": 0.1}, columns, dict(TRUTH))
