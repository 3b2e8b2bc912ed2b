"""A panel and its likelihood: programs of parameters, parameters of ids, other rows."""

import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from rlinf_ppl.behaviour.designs import renewed
from rlinf_ppl.behaviour.labels import label
from rlinf_ppl.behaviour.likelihood import Likelihood, Parameters
from rlinf_ppl.behaviour.panel import Panel, panel_of
from rlinf_ppl.program import ControlProgram

FEW_DIGITS = (
    "inference from behaviour counts in float64, and the program holds arrays of float32, made or used before, which "
    'have seven digits; jax.config.update("jax_enable_x64", True), at the start, has all of them.'
)


def made(program: Any, parameters: Mapping[str, Any]) -> ControlProgram:
    """The program of some parameters.

    Raises:
        TypeError: it makes none.
        ValueError: it asks for a parameter that there is not.
    """
    if isinstance(program, ControlProgram) or not callable(program):
        raise TypeError(
            "program must be a function of a dictionary of parameters that returns a ControlProgram; got "
            f"{type(program).__name__}."
        )
    if not isinstance(parameters, Mapping):
        raise TypeError(f"parameters are given by name, in a dictionary; got {type(parameters).__name__}.")
    try:
        found = program(dict(parameters))
    except KeyError as error:
        raise ValueError(f"program asks for the parameter {error}, and there are {list(parameters)}.") from error
    if not isinstance(found, ControlProgram):
        raise TypeError(f"program(parameters) must return a ControlProgram; got {type(found).__name__}.")
    return found


def check_study(panel: Panel, program: ControlProgram) -> None:
    """Raise where there is nothing to learn from, and warn where numbers have few digits.

    Raises:
        ValueError: no decision was seen.
    """
    decisions = {name: panel.data[name] for name in program.scopes if name in panel.data}
    if decisions and not any(not isinstance(entry, tuple) or entry[1].any() for entry in decisions.values()):
        columns = [panel.reading.variables[name] for name in decisions]
        raise ValueError(f"no decision was seen: {columns} hold nothing.")
    leaves = jax.tree.leaves((program.args, program.constants))
    if any(jnp.ndim(leaf) and leaf.dtype == jnp.float32 for leaf in leaves):
        warnings.warn(FEW_DIGITS, stacklevel=5)


def by_id(panel: Panel, likelihood: Likelihood, parameters: Parameters) -> pd.DataFrame:
    """The parameters that differ between ids, a row for each id."""
    columns = {}
    for name, values in likelihood.each(parameters).items():
        for place in np.ndindex(values.shape[1:]):
            columns[label({}, name, place)] = np.asarray(values)[(slice(None), *place)]
    return pd.DataFrame(columns, pd.Index(panel.ids, name=panel.reading.id))


def of_frame(
    frame: pd.DataFrame | None, panel: Panel, likelihood: Likelihood, parameters: Parameters
) -> tuple[Panel, Likelihood]:
    """The panel and the likelihood of other rows with the same columns; None: as they are.

    Raises:
        TypeError, ValueError: they do not fit, or are of ids that have no parameters.
    """
    if frame is None:
        return panel, likelihood
    other = panel_of(frame, likelihood.program(parameters), panel.reading)
    places = {each: i for i, each in enumerate(panel.ids)}
    unknown = [each for each in other.ids if each not in places]
    if likelihood.designs and unknown:
        names = list(likelihood.designs)
        raise ValueError(f"{names} differ between ids, and those of {unknown[:3]} were not inferred.")
    rows = np.array([places.get(each, 0) for each in other.ids])
    return other, likelihood.on(
        other, {name: renewed(each.of(rows), panel, other) for name, each in likelihood.designs.items()}
    )
