"""The likelihood of a panel as a function of the numbers that a program is made from."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from rlinf_ppl.behaviour.designs import Design
from rlinf_ppl.behaviour.panel import Panel
from rlinf_ppl.inference import exact
from rlinf_ppl.inference.histories.alternatives import Lapsed
from rlinf_ppl.inference.histories.likelihood import terms_under, told_under
from rlinf_ppl.inference.histories.recursion import Told
from rlinf_ppl.inference.histories.simulated import laws_of
from rlinf_ppl.inference.sites import Solver, is_rewarded, solved
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.conditionals import ConditionalLaw

Parameters = Mapping[str, Any]
# What solutions without end are good to, relative to the largest value: rounding takes twice as many steps, and log
# likelihoods have no more digits.
TOLERANCE = 1e-10
# What JAX raises where something traced is wanted as a plain number.
TRACED = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
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


def arrays_of(panel: Panel) -> tuple[Any, ...]:
    """What a likelihood is a function of."""
    return panel.data, panel.lengths, panel.weights, panel.follows, panel.available


class Function:
    """A function of the user's that compiled code belongs to: the same for itself alone, whatever it is made of."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    def __call__(self, *args: Any) -> Any:
        """What it returns.

        Raises:
            TypeError: it makes plain numbers of what is traced.
        """
        try:
            return self.function(*args)
        except TRACED as error:
            raise TypeError(
                "program makes a number of Python's or NumPy's of a parameter (by float, int, if, numpy), and "
                "parameters are traced: use jax.numpy, and jnp.where for if."
            ) from error

    def __hash__(self) -> int:
        return id(self.function)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Function) and self.function is other.function


class Likelihood(eqx.Module):
    """What sequences say of parameters, some of which may differ between them.

    Its leaves are the data, so that one compiled function serves all data of a size.

    Attributes:
        program: makes the program from the parameters.
        own_policy: makes the policy from a program; None: `exact.solve`.
        of: the sites whose probabilities count; None: the decisions.
        lapse: the parameter that is the probability of a lapse; None: there are none.
        given_optimality: whether whole trajectories are scored, chance as well, given that they are optimal.
        data: by the program's names (n, T) values, and where they were seen if some are missing.
        lengths: how many rows each sequence has (n,).
        weights: of each row (n, T).
        follows: whether the next row is the next step (n, T).
        available: by decision which alternatives were there (n, T, K).
        designs: how parameters differ between ids.
        transforms: to each parameter from numbers without bounds.
        start: where endless programs begin to be solved.
    """

    program: Function = eqx.field(static=True)
    own_policy: Function | None = eqx.field(static=True)
    of: tuple[str, ...] | None = eqx.field(static=True)
    lapse: str | None = eqx.field(static=True)
    given_optimality: bool = eqx.field(static=True)
    data: dict[str, Any]
    lengths: Array
    weights: Array
    follows: Array
    available: dict[str, Array]
    designs: dict[str, Design]
    transforms: dict[str, Any]
    start: Start | None

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
        self.program, self.own_policy = Function(program), None if policy is None else Function(policy)
        self.of = (of,) if isinstance(of, str) else None if of is None else tuple(of)
        self.lapse, self.given_optimality = lapse, given_optimality
        arrays = jax.tree.map(jnp.asarray, arrays_of(panel))
        self.data, self.lengths, self.weights, self.follows, self.available = arrays
        self.designs, self.transforms, self.start = dict(designs or {}), dict(transforms or {}), None

    def on(self, panel: Panel, designs: dict[str, Design]) -> "Likelihood":
        """The same of other data, whose ids differ in other ways."""
        arrays = jax.tree.map(jnp.asarray, arrays_of(panel))
        found: Likelihood = eqx.tree_at(
            lambda own: (own.data, own.lengths, own.weights, own.follows, own.available, own.designs),
            self,
            (*arrays, designs),
        )
        return found

    def begun(self, parameters: Parameters, moving: bool = False) -> "Likelihood":
        """The same with endless programs solved from the values at some parameters on: those of others are near.

        Args:
            parameters: where.
            moving: whether values are also followed as they move with the parameters, which takes fewer steps of
                every solution, and a second or two to compile.
        """
        if self.own_policy is not None or self.designs or self.given_optimality:
            return self
        program = self.program(parameters)
        if program.horizon is not None or not is_rewarded(program) or program.structure.gaussian:
            return self
        flat, unflatten = ravel_pytree(dict(parameters))

        def value(x: Array) -> tuple[Array, Array]:
            found: Array = exact.solve(self.program(unflatten(x))).value
            return found, found

        if moving:
            slope, at = jax.jit(jax.jacfwd(value, has_aux=True))(flat)
        else:
            slope, at = None, value(flat)[0]
        begun: Likelihood = eqx.tree_at(
            lambda own: own.start, self, Start(flat, at, slope), is_leaf=lambda x: x is None
        )
        return begun

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
        return {name: design.own(self.transforms[name], parameters) for name, design in self.designs.items()}

    def of_each(self, function: Callable[..., Any], parameters: Parameters) -> Any:
        """A function of (parameters, data, lengths, available, follows) of some sequences, for all of them.

        Where parameters differ, each sequence has a program of its own, and they are worked out side by side.
        """
        arrays = self.data, self.lengths, self.available, self.follows
        if not self.designs:
            return function(parameters, *arrays)
        shared = {name: value for name, value in parameters.items() if name not in self.designs}
        rows = jax.tree.map(lambda x: x[:, None], arrays)
        found = jax.vmap(lambda own, rows: function(shared | own, *rows))(self.each(parameters), rows)
        return jax.tree.map(lambda x: x[:, 0], found)

    def told(self, parameters: Parameters, data: Any, lengths: Any, available: Any, follows: Any) -> Told:
        """What some sequences tell, also of what was not done."""
        program = self.program(parameters)
        laws = self.laws(program, parameters)
        return told_under(program, laws, data, self.of, lengths, available, True, follows)

    def terms(self, parameters: Parameters) -> Float[Array, "n T"]:
        """The log probability of each row, 0 behind the end; that of a whole trajectory stands in its first row."""

        def one(parameters: Parameters, data: Any, lengths: Any, available: Any, follows: Any) -> Array:
            program = self.program(parameters)
            if self.given_optimality:
                whole = exact.log_prob_given_optimality(program, data, lengths)
                return jnp.zeros((len(whole), self.weights.shape[1])).at[:, 0].set(whole)
            laws = self.laws(program, parameters)
            terms = terms_under(program, laws, data, self.of, lengths, available, follows)
            return jnp.sum(jnp.stack(list(terms.values())), 0)

        found: Array = self.of_each(one, parameters)
        return found

    def of_sequences(self, parameters: Parameters) -> Float[Array, " n"]:
        """The weighted log probability of each sequence."""
        return weighted(self.terms(parameters), self.weights)

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
