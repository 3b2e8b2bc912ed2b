"""What would be done in another task, by those whose parameters were inferred."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array

from rlinf_ppl.behaviour.labels import label
from rlinf_ppl.behaviour.studies import made
from rlinf_ppl.inference import exact
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.supports import values_of


def choices(program: ControlProgram) -> Array:
    """The probabilities of all alternatives of all decisions that are planned, one after the other."""
    return jnp.concatenate([jnp.ravel(table) for table in exact.solve(program).policy.values()])


def choices_index(program: ControlProgram) -> pd.MultiIndex:
    """What each of `choices` is of: the decision, the time, what it depends on, the alternative.

    Raises:
        ValueError: the decisions are of real numbers, whose policy is no table.
    """
    if program.structure.gaussian:
        raise ValueError("the policies of real numbers are no tables: say by outcome= what is asked for.")
    frames, taken = [], {"decision", "value", "t"} & {*program.state, *program.supports}
    if taken:
        raise ValueError(f"{sorted(taken)} are names of the table's own: say by outcome= what is asked for.")
    for name, scope in program.scopes.items():
        time = {} if program.horizon is None else {"t": np.arange(program.horizon)}
        axes = time | {axis: np.asarray(values_of(program.supports[axis])) for axis in scope}
        alternatives = np.asarray(values_of(program.supports[name]))
        index = pd.MultiIndex.from_product([*axes.values(), alternatives], names=[*axes, "value"])
        frames.append(index.to_frame(index=False).assign(decision=name))
    whole = pd.concat(frames, ignore_index=True)
    return pd.MultiIndex.from_frame(whole[["decision", *(name for name in whole.columns if name != "decision")]])


def outcomes(
    program: Callable[[Any], ControlProgram], outcome: Callable[[ControlProgram], Any] | None
) -> Callable[[Any], Any]:
    """What is asked for as a function of parameters, and checked.

    Raises:
        TypeError: the program is none.
    """

    def function(parameters: Any) -> Any:
        return (choices if outcome is None else outcome)(made(program, parameters))

    return function


def flat_outcome(value: Any) -> Array:
    """An outcome as one vector.

    Raises:
        TypeError: it is no array, nor a dictionary of arrays.
    """
    parts = list(value.values()) if isinstance(value, Mapping) else [value]
    try:
        return jnp.concatenate([jnp.ravel(jnp.asarray(part, dtype=float)) for part in parts])
    except (TypeError, ValueError, jax.errors.TracerArrayConversionError) as error:
        raise TypeError(
            f"an outcome must be an array, or a dictionary of arrays by name; got {type(value).__name__}."
        ) from error


def outcome_index(value: Any) -> pd.Index | None:
    """The names of the numbers of an outcome that is a dictionary; None: they have none."""
    if not isinstance(value, Mapping):
        return None
    return pd.Index(
        [label({}, str(name), place) for name, part in value.items() for place in np.ndindex(np.shape(part))]
    )


def over_draws(
    draws: dict[str, Array],
    program: Callable[[Any], ControlProgram],
    outcome: Callable[[ControlProgram], Any] | None,
) -> pd.DataFrame:
    """Mean, standard deviation and 90 % interval over draws (N, ...) of what would be done in another task."""
    function = outcomes(program, outcome)
    first = {name: value[0] for name, value in draws.items()}
    index = choices_index(made(program, first)) if outcome is None else outcome_index(function(first))
    found = np.asarray(jax.jit(lambda draws: jax.lax.map(lambda x: flat_outcome(function(x)), draws))(draws))
    low, high = np.quantile(found, [0.05, 0.95], axis=0)
    columns = {"mean": found.mean(0), "sd": found.std(0, ddof=1), "5%": low, "95%": high}
    return pd.DataFrame(columns, index)
