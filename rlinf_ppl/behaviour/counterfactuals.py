"""What would be done in another task, by those whose parameters were inferred."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array

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
    frames = []
    for name, scope in program.scopes.items():
        time = {} if program.horizon is None else {"t": np.arange(program.horizon)}
        axes = time | {axis: np.asarray(values_of(program.supports[axis])) for axis in scope}
        alternatives = np.asarray(values_of(program.supports[name]))
        index = pd.MultiIndex.from_product([*axes.values(), alternatives], names=[*axes, "value"])
        frames.append(index.to_frame(index=False).assign(decision=name))
    whole = pd.concat(frames, ignore_index=True)
    return pd.MultiIndex.from_frame(whole[["decision", *(name for name in whole.columns if name != "decision")]])


def over_draws(
    draws: dict[str, Array],
    program: Callable[[Any], ControlProgram],
    outcome: Callable[[ControlProgram], Any] | None,
) -> pd.DataFrame:
    """Mean, standard deviation and 90 % interval over draws (N, ...) of what would be done in another task."""
    function = choices if outcome is None else outcome

    def one(parameters: Any) -> Array:
        return jnp.ravel(jnp.asarray(function(program(parameters)), dtype=float))

    found = np.asarray(jax.jit(lambda draws: jax.lax.map(one, draws))(draws))
    low, high = np.quantile(found, [0.05, 0.95], axis=0)
    index = None
    if outcome is None:
        index = choices_index(program({name: value[0] for name, value in draws.items()}))
    columns = {"mean": found.mean(0), "sd": found.std(0, ddof=1), "5%": low, "95%": high}
    return pd.DataFrame(columns, index)
