"""The likelihood of a panel as a function of the numbers that a program is made from."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlinf_ppl.behaviour.panel import Panel
from rlinf_ppl.inference import exact
from rlinf_ppl.inference.histories.alternatives import Lapsed
from rlinf_ppl.inference.histories.likelihood import terms_under
from rlinf_ppl.inference.histories.simulated import laws_of
from rlinf_ppl.inference.sites import Sequences, Solver, is_rewarded, solved
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.conditionals import ConditionalLaw

Parameters = Mapping[str, Any]
Given = ParamSpec("Given")
Result = TypeVar("Result")


def in_float64(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """The function in float64, whatever JAX counts in: sums over thousands of rows have no slopes in float32."""

    @wraps(function)
    def wide(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        with jax.enable_x64(True):
            return function(*args, **kwargs)

    return wide


class Likelihood:
    """What a panel says of parameters.

    Args:
        panel: the panel.
        program: makes the program from the parameters.
        policy: makes the policy from a program.
        of: the sites whose probabilities count; None: the decisions.
        lapse: the parameter that is the probability of a lapse; None: there are none.
    """

    def __init__(
        self, panel: Panel, program: Callable[[Any], ControlProgram], policy: Solver | None, of: Any, lapse: str | None
    ):
        self.panel, self.program, self.of, self.lapse = panel, program, of, lapse
        self.own_policy, self.start = policy, None

    def begin(self, parameters: Parameters) -> None:
        """Let endless programs be solved from the values at some parameters on: those of others are near."""
        program = self.program(parameters)
        if self.own_policy is None and program.horizon is None and is_rewarded(program):
            self.start = None if program.structure.gaussian else exact.solve(program).value

    def policy(self, program: ControlProgram) -> Any:
        """What the decisions of a program follow."""
        return solved(program, self.start) if self.own_policy is None else self.own_policy(program)

    def laws(self, program: ControlProgram, parameters: Parameters) -> dict[str, ConditionalLaw]:
        """What the decisions follow."""
        laws = laws_of(program, self.policy(program))
        if self.lapse is None:
            return laws
        rate = jnp.asarray(parameters[self.lapse], dtype=float)
        return {name: Lapsed(laws.get(name), rate) for name in program.scopes}

    def terms(self, parameters: Parameters, data: Any = None, lengths: Any = None) -> Float[Array, "n T"]:
        """The log probability of each row, 0 behind the end of a sequence; of the panel's, or of some of its data."""
        program = self.program(parameters)
        data, lengths = (self.panel.data, self.panel.lengths) if data is None else (data, lengths)
        terms = terms_under(program, self.laws(program, parameters), data, self.of, lengths)
        return jnp.sum(jnp.stack(list(terms.values())), 0)

    def total(self, parameters: Parameters) -> Float[Array, ""]:
        """The weighted sum of all rows."""
        return jnp.sum(weighted(self.terms(parameters), jnp.asarray(self.panel.weights)))

    def of_sequences(self, shared: Parameters, each: Parameters) -> Sequences:
        """The law of all sequences in a NumPyro model.

        Args:
            shared: parameters that everybody has.
            each: those that every sequence has its own of, leading with it.
        """
        panel, weights = self.panel, jnp.asarray(self.panel.weights)

        def of_values(_: Array) -> Array:
            if not each:
                return weighted(self.terms(shared), weights)
            rows = jax.tree.map(lambda x: jnp.asarray(x)[:, None], (panel.data, panel.lengths))
            terms = jax.vmap(lambda own, *rows: self.terms(dict(shared) | own, *rows))(dict(each), *rows)
            return weighted(terms[:, 0], weights)

        return Sequences(of_values, len(panel.ids), 1)

    def check(self, parameters: Parameters) -> None:
        """Raise where a row has probability zero, or no probability, at some parameters.

        Raises:
            ValueError: so it is.
        """
        rows = self.panel.rows(jax.jit(self.terms)(parameters))
        wrong = np.flatnonzero(~np.isfinite(rows))
        if len(wrong):
            row = self.panel.frame.iloc[wrong[0]]
            what = "probability zero" if np.isneginf(rows[wrong[0]]) else "no probability (NaN)"
            raise ValueError(
                f"row {row.name} has {what} at {described(parameters)}: {dict(row)}. What was done must be possible "
                "under the prior of its decision and at finite parameters; a lapse makes anything possible that is."
            )


def finite_or_barred(function: Callable[[Any], tuple[Any, Any]]) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """A value and its slope for SciPy's searches: infinite, and so no place to go, where they are no numbers."""

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        found, slope = function(x)
        return (float(found), np.asarray(slope)) if np.isfinite(found) else (np.inf, np.zeros_like(x))

    return value


def weighted(terms: Float[Array, "n T"], weights: Float[Array, "n T"]) -> Float[Array, " n"]:
    """The sums of weighted rows; a weight of 0 leaves a row out, whatever its probability is."""
    return jnp.sum(jnp.where(weights > 0, weights * jnp.where(weights > 0, terms, 0.0), 0.0), 1)


def described(parameters: Parameters) -> str:
    """Parameters in a message."""
    return ", ".join(f"{name} = {np.asarray(value).tolist()}" for name, value in parameters.items())
