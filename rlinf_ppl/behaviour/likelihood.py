"""The likelihood of a panel as a function of the numbers that a program is made from."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from rlinf_ppl.behaviour.designs import Design
from rlinf_ppl.behaviour.labels import axes_of, label
from rlinf_ppl.behaviour.panel import Panel, panel_of
from rlinf_ppl.inference import exact
from rlinf_ppl.inference.histories.alternatives import Lapsed
from rlinf_ppl.inference.histories.likelihood import terms_under
from rlinf_ppl.inference.histories.simulated import laws_of
from rlinf_ppl.inference.sites import Solver, is_rewarded, solved
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.conditionals import ConditionalLaw

Parameters = Mapping[str, Any]
# What solutions without end are good to, relative to the largest value: rounding takes twice as many steps, and log
# likelihoods have no more digits.
TOLERANCE = 1e-10
Given = ParamSpec("Given")
Result = TypeVar("Result")


def in_float64(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """The function in float64, whatever JAX counts in: sums over thousands of rows have no slopes in float32."""

    @wraps(function)
    def wide(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        with jax.enable_x64(True):
            return function(*args, **kwargs)

    return wide


class Start(NamedTuple):
    """Where endless programs begin to be solved.

    Attributes:
        parameters: at some parameters, flat.
        value: the value there.
        slope: how it moves with them, a last axis of parameters; None: not at all.
    """

    parameters: Array
    value: Array
    slope: Array | None

    def at(self, parameters: Parameters) -> Array:
        """Near the value at other parameters."""
        if self.slope is None:
            return self.value
        return self.value + self.slope @ (ravel_pytree(dict(parameters))[0] - self.parameters)


class Likelihood:
    """What a panel says of parameters, some of which may differ between ids.

    Args:
        panel: the panel.
        program: makes the program from the parameters.
        policy: makes the policy from a program.
        of: the sites whose probabilities count; None: the decisions.
        lapse: the parameter that is the probability of a lapse; None: there are none.
        designs: how parameters differ between ids.
        transforms: to each parameter from numbers without bounds.
        given_optimality: whether whole trajectories are scored, chance as well, given that they are optimal.
    """

    def __init__(
        self,
        panel: Panel,
        program: Callable[[Any], ControlProgram],
        policy: Solver | None = None,
        of: Any = None,
        lapse: str | None = None,
        designs: Mapping[str, Design] | None = None,
        transforms: Mapping[str, Any] | None = None,
        given_optimality: bool = False,
    ):
        self.panel, self.program, self.of, self.lapse = panel, program, of, lapse
        self.given_optimality = given_optimality
        self.designs, self.transforms = dict(designs or {}), dict(transforms or {})
        self.own_policy, self.start = policy, cast(Start | None, None)

    def on(self, frame: Any, parameters: Parameters) -> "Likelihood":
        """The same of other rows with the same columns; None: of its own.

        Raises:
            TypeError, ValueError: they do not fit, or are of ids that have no parameters.
        """
        if frame is None:
            return self
        panel = panel_of(frame, self.program(parameters), self.panel.reading)
        places = {each: i for i, each in enumerate(self.panel.ids)}
        unknown = [each for each in panel.ids if each not in places]
        if self.designs and unknown:
            raise ValueError(f"{list(self.designs)} differ between ids, and those of {unknown[:3]} were not inferred.")
        rows = np.array([places.get(each, 0) for each in panel.ids])
        designs = {name: design.of(rows) for name, design in self.designs.items()}
        other = Likelihood(
            panel, self.program, self.own_policy, self.of, self.lapse, designs, self.transforms, self.given_optimality
        )
        other.start = self.start
        return other

    @property
    def axes(self) -> dict[str, tuple[str, list[str]]]:
        """The labels of parameters: ids and covariates."""
        return axes_of(self.panel, self.designs)

    def by_id(self, parameters: Parameters) -> pd.DataFrame:
        """The parameters that differ between ids, a row for each id."""
        columns = {}
        for name, values in self.each(parameters).items():
            for place in np.ndindex(values.shape[1:]):
                columns[label({}, name, place)] = np.asarray(values)[(slice(None), *place)]
        index = pd.Index(self.panel.ids, name=self.panel.reading.id)
        return pd.DataFrame(columns, index)

    def begin(self, parameters: Parameters, moving: bool = False) -> None:
        """Let endless programs be solved from the values at some parameters on: those of others are near.

        Args:
            parameters: where.
            moving: whether values are also followed as they move with the parameters, which takes fewer steps of
                every solution, and a second or two to compile.
        """
        if self.own_policy is not None or self.designs or self.given_optimality:
            return
        program = self.program(parameters)
        if program.horizon is not None or not is_rewarded(program) or program.structure.gaussian:
            return
        flat, unflatten = ravel_pytree(dict(parameters))

        def value(x: Array) -> tuple[Array, Array]:
            found: Array = exact.solve(self.program(unflatten(x))).value
            return found, found

        if not moving:
            self.start = Start(flat, value(flat)[0], None)
            return
        slope, at = jax.jit(jax.jacfwd(value, has_aux=True))(flat)
        self.start = Start(flat, at, slope)

    def policy(self, program: ControlProgram, parameters: Parameters) -> Any:
        """What the decisions of a program follow."""
        if self.own_policy is not None:
            return self.own_policy(program)
        tolerance = TOLERANCE if program.horizon is None else None
        return solved(program, tolerance, None if self.start is None else self.start.at(parameters))

    def laws(self, program: ControlProgram, parameters: Parameters) -> dict[str, ConditionalLaw]:
        """What the decisions follow.

        Raises:
            ValueError: whole trajectories are scored, given that they are optimal.
        """
        if self.given_optimality:
            raise ValueError(
                "given optimality trajectories are probable as a whole, and decisions one by one are not: see "
                "exact.condition(program) for what is done and for how kind chance is."
            )
        laws = laws_of(program, self.policy(program, parameters))
        if self.lapse is None:
            return laws
        rate = jnp.asarray(parameters[self.lapse], dtype=float)
        return {name: Lapsed(laws.get(name), rate) for name in program.scopes}

    def each(self, parameters: Parameters) -> dict[str, Array]:
        """The parameters that differ between ids, leading with these."""
        return {
            name: parameters[design.each]
            if design.each in parameters
            else design.own(self.transforms[name], parameters)
            for name, design in self.designs.items()
        }

    def of_each(self, function: Callable[..., Any], parameters: Parameters) -> Any:
        """A function of (parameters, data, lengths, available) of some sequences, for all of the panel's.

        Where parameters differ, each sequence has a program of its own, and they are worked out side by side.
        """
        panel = self.panel
        arrays = panel.data, panel.lengths, panel.available
        if not self.designs:
            return function(parameters, *arrays)
        shared = {name: value for name, value in parameters.items() if name not in self.designs}
        rows = jax.tree.map(lambda x: jnp.asarray(x)[:, None], arrays)
        found = jax.vmap(lambda own, rows: function(shared | own, *rows))(self.each(parameters), rows)
        return jax.tree.map(lambda x: x[:, 0], found)

    def terms(self, parameters: Parameters) -> Float[Array, "n T"]:
        """The log probability of each row, 0 behind the end; that of a whole trajectory stands in its first row."""

        def one(parameters: Parameters, data: Any, lengths: Any, available: Any) -> Array:
            program = self.program(parameters)
            if self.given_optimality:
                whole = exact.log_prob_given_optimality(program, data, lengths)
                return jnp.zeros((len(whole), self.panel.weights.shape[1])).at[:, 0].set(whole)
            laws = self.laws(program, parameters)
            terms = terms_under(program, laws, data, self.of, lengths, available)
            return jnp.sum(jnp.stack(list(terms.values())), 0)

        found: Array = self.of_each(one, parameters)
        return found

    def of_sequences(self, parameters: Parameters) -> Float[Array, " n"]:
        """The weighted log probability of each sequence."""
        return weighted(self.terms(parameters), jnp.asarray(self.panel.weights))

    def total(self, parameters: Parameters) -> Float[Array, ""]:
        """The weighted sum of all rows."""
        return jnp.sum(self.of_sequences(parameters))


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
