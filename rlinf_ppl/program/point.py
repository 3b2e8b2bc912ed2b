"""A part of a program with its numbers, and what it gives at one point: laws, factors, temperatures, the next state.

The traced arithmetic is worked out as far as it is asked for. A site is given its value once its law has been asked, so
whoever draws a step site by site goes once through its equations, however many sites it has.
"""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from jaxtyping import Array, Bool

from rlinf_ppl.program.bounds import any_of, computes_indices, evaluate, inside
from rlinf_ppl.program.forms import Form, Outputs
from rlinf_ppl.program.jaxprs import equations_for
from rlinf_ppl.program.laws import SiteLaw
from rlinf_ppl.program.lookup import inputs_of, variables_of
from rlinf_ppl.program.supports import Support, first_value, values_of

# In the order in which they run, which a dictionary loses on its way through compiled code.
PARTS = ("initial", "step", "final")


class Part(eqx.Module):
    """The initial state, a step or the end of a program, with the arrays that it reads.

    Attributes:
        form: what was traced.
        constants: what its function closed over.
        leaves: the program's arguments.
    """

    form: Form = eqx.field(static=True)
    constants: tuple[Array, ...]
    leaves: list[Array]

    @property
    def supports(self) -> dict[str, Support]:
        """The values of all that it may depend on."""
        return dict(self.form.inputs)

    @property
    def num_inputs(self) -> int:
        """How many numbers and arrays its variables are made of."""
        return len(self.form.arithmetic.jaxpr.invars) - len(self.leaves)

    @property
    def computes_indices(self) -> bool:
        """Whether it looks up by an index that is no variable as it is."""
        return computes_indices(self.form.arithmetic.jaxpr, self.num_inputs)

    def at(self, values: Mapping[str, Any]) -> "Point":
        """The part where some variables have values; others get theirs later, or do not matter."""
        point = Point(self)
        for name in self.supports.keys() & values.keys():
            point.set(name, values[name])
        return point

    def over(self, parents: tuple[str, ...], pick: Callable[["Point"], Any]) -> Any:
        """Something about the part over all values of some finite variables, an axis each."""
        return over_values(self.supports, parents, lambda values: pick(self.at(values)))


def over_values(
    supports: Mapping[str, Support], names: tuple[str, ...], function: Callable[[dict[str, Array]], Any]
) -> Any:
    """A function of the values of some finite variables by name, over all of these, an axis each."""

    def value(*values: Array) -> Any:
        return function(dict(zip(names, values, strict=True)))

    for i in reversed(range(len(names))):
        value = jax.vmap(value, in_axes=[0 if j == i else None for j in range(len(names))])
    return value(*(values_of(supports[name]) for name in names))


class Point:
    """A part of a program at one point; what is asked of it must depend on nothing that has no value yet."""

    def __init__(self, part: Part):
        jaxpr = part.form.arithmetic.jaxpr
        arrays = zip((*jaxpr.constvars, *jaxpr.invars[part.num_inputs :]), (*part.constants, *part.leaves), strict=True)
        self.part = part
        # Numbers by the jaxpr's variables, and of those that look-ups went into whether one was out of its array.
        self._numbers: dict[Any, Any] = dict(arrays)
        self._beyond: dict[Any, Any] = {}

    def set(self, name: str, value: Any) -> None:
        """Give a variable its value."""
        jaxpr, supports = self.part.form.arithmetic.jaxpr, self.part.supports
        leaves = jax.tree.leaves(value)
        self._numbers |= zip(variables_of(jaxpr, supports, name), map(jnp.asarray, leaves), strict=True)

    def given(self, name: str, value: Any) -> "Point":
        """A copy in which one more variable has a value; nothing that was worked out is worked out again."""
        copy = Point(self.part)
        copy._numbers |= self._numbers
        copy._beyond |= self._beyond
        copy.set(name, value)
        return copy

    def law(self, name: str) -> SiteLaw:
        """The law of a site."""
        return self._read(self._places.laws[name])

    def factor(self, name: str) -> Array:
        """The log of a factor, in units of optimality; of data in nats."""
        return self._read(self._places.factors[name])

    def temperature(self, name: str) -> Array:
        """The inverse temperature of a decision."""
        return self._read(self._places.temperatures[name])

    def following(self, name: str) -> Any:
        """The next value of a state variable."""
        return self._read(self._places.following[name])

    def beyond(self, kind: str, name: str) -> Bool[Array, ""]:
        """Whether a look-up that a law, factor, temperature or next value depends on is out of its array.

        Args:
            kind: which of these: a field of `Outputs`.
            name: whose.
        """
        variables = self._variables(getattr(self._places, kind)[name])
        self._work_out(variables)
        flags = [self._beyond[variable] for variable in variables if variable in self._beyond]
        return any_of(flags) if flags else inside()

    @property
    def _places(self) -> Outputs:
        return self.part.form.arithmetic.places

    def _variables(self, places: Any) -> list[Any]:
        outputs = self.part.form.arithmetic.jaxpr.outvars
        return [outputs[i] for i in jax.tree.leaves(places) if not isinstance(outputs[i], Literal)]

    def _read(self, places: Any) -> Any:
        outputs = self.part.form.arithmetic.jaxpr.outvars
        self._work_out(self._variables(places))

        def number(i: int) -> Array:
            variable = outputs[i]
            return jnp.asarray(variable.val if isinstance(variable, Literal) else self._numbers[variable])

        return jax.tree.map(number, places)

    def _work_out(self, wanted: list[Any]) -> None:
        """Evaluate the equations that are needed and were not yet."""
        jaxpr = self.part.form.arithmetic.jaxpr
        equations = equations_for(jaxpr, wanted, self._numbers)
        made = [variable for equation in equations for variable in equation.outvars]
        ins = [each for equation in equations for each in equation.invars if not isinstance(each, Literal)]
        free = list(dict.fromkeys(variable for variable in (*ins, *wanted) if variable not in set(made)))
        self._hold(variable for variable in free if variable not in self._numbers)
        if not equations:
            return
        part = jaxpr.replace(constvars=[], invars=free, outvars=made, eqns=equations)
        numbers = [self._numbers[variable] for variable in free]
        if self.part.computes_indices:
            outs, flags = evaluate(part, (), numbers, [self._beyond.get(variable, inside()) for variable in free])
            self._beyond |= zip(made, flags, strict=True)
        else:
            outs = jax.core.eval_jaxpr(part, (), *numbers)
        self._numbers |= zip(made, outs, strict=True)

    def _hold(self, variables: Any) -> None:
        """Let variables that nothing really depends on have their first value."""
        unset = set(variables)
        if unset:
            for name, variable in inputs_of(self.part.form.arithmetic.jaxpr, self.part.supports):
                if variable in unset:
                    self.set(name, first_value(self.part.supports[name]))
