"""The degree of each output of traced arithmetic as a polynomial of some of its inputs, entry by entry.

    deg(known) = 0,   deg(a + b) = max(deg a, deg b),   deg(a b) = deg a + deg b,   deg(a^k) = k deg a,

and what only moves or picks entries keeps their degrees, where it is known which. A degree is an upper bound. Whatever
has no rule here, and whatever is divided by, raised to, looked up by, compared with or repeated as often as a variable
says, is no polynomial: its degree is `NO_POLYNOMIAL` plus the position of its cause, which every later maximum keeps.

Beside the degrees goes the one number that fills an array, where the arithmetic alone tells it (a literal, `x == x`):
it decides branches that no number of a user's can change, such as NumPyro's test for data that are not finite.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from rlinf_ppl.program.jaxprs import open_jaxpr

HIGHEST = 9
NO_POLYNOMIAL = 1000
FEWEST_BITS = 32


class Entries(NamedTuple):
    """The degree of each entry of an array, and the number that every entry is (None: not known)."""

    degree: np.ndarray
    fill: Any = None

    @property
    def top(self) -> int:
        """The highest degree of an entry."""
        return int(self.degree.max(initial=0))

    @property
    def known(self) -> bool:
        """Whether no entry depends on a variable."""
        return self.top == 0


def spread(degree: Any, shape: tuple[int, ...], fill: Any = None) -> Entries:
    """The same degree for all entries of an array of a shape."""
    return Entries(np.broadcast_to(np.asarray(degree, np.int32), shape), fill)


def product(first: Any, second: Any) -> np.ndarray:
    """The degrees of a product of entries; one that is no polynomial stays so, with its cause."""
    first, second = np.asarray(first, np.int32), np.asarray(second, np.int32)
    larger = np.maximum(first, second)
    return np.where(larger >= NO_POLYNOMIAL, larger, np.minimum(first + second, HIGHEST))


def power(degree: np.ndarray, exponent: int) -> np.ndarray:
    """The degrees of whole powers of entries."""
    raised = np.minimum(degree.astype(np.int64) * min(exponent, HIGHEST), HIGHEST)
    return np.where(degree >= NO_POLYNOMIAL, degree, raised).astype(np.int32)


def join(first: Entries, second: Entries) -> Entries:
    """What holds of either of two arrays of one shape."""
    return Entries(np.maximum(first.degree, second.degree), common_fill([first, second]))


def common_fill(entries: Sequence[Entries]) -> Any:
    """The number that fills all of some arrays, or None."""
    fills = [each.fill for each in entries]
    alike = bool(fills) and all(fill is not None and fill == fills[0] for fill in fills)
    return fills[0] if alike else None


# What an equation says of its outputs, given its inputs; None: they are no polynomials.
Rule = Callable[["Analysis", Any, list[Entries]], list[Entries] | None]


class Analysis:
    """Follows degrees through arithmetic by rules, and notes what made something no polynomial."""

    def __init__(self, rules: dict[str, Rule]):
        self.rules = rules
        self.causes: list[str] = []
        self.inside: list[str] = []

    def of(self, jaxpr: Any, given: Sequence[Entries]) -> list[Entries]:
        """The outputs of an open jaxpr; what it closes over is known.

        Args:
            jaxpr: the arithmetic.
            given: what is known of each of its inputs.

        Returns:
            What is known of each output.
        """
        values = dict(zip(jaxpr.invars, given, strict=True))
        for equation in jaxpr.eqns:
            outputs = self.equation(equation, [entries_of(v, values) for v in equation.invars])
            values |= zip(equation.outvars, outputs, strict=True)
        return [entries_of(variable, values) for variable in jaxpr.outvars]

    def equation(self, equation: Any, ins: list[Entries]) -> list[Entries]:
        """The outputs of one equation."""
        shapes = [getattr(variable.aval, "shape", ()) for variable in equation.outvars]
        known = all(entries.known for entries in ins)
        rule = self.rules.get(equation.primitive.name)
        outs = rule(self, equation, ins) if rule is not None and (known or keeps_digits(equation)) else None
        if outs is None:
            degree = 0 if known else self.cause(equation, ins)
            return [spread(degree, shape) for shape in shapes]
        return [
            Entries(np.broadcast_to(out.degree, shape).astype(np.int32), out.fill)
            for out, shape in zip(outs, shapes, strict=True)
        ]

    def cause(self, equation: Any, ins: list[Entries]) -> int:
        """The degree of what is no polynomial: that of the first cause, which may be this equation."""
        earlier = [int(code) for entries in ins for code in np.unique(entries.degree) if code >= NO_POLYNOMIAL]
        if earlier:
            return min(earlier)
        names = [name for name in self.inside if name.isidentifier() and not name.startswith("_")]
        cause = str(equation.primitive.name)
        if names and names[-1] != cause:
            cause += f" (in {names[-1]})"
        if cause not in self.causes:
            self.causes.append(cause)
        return NO_POLYNOMIAL + self.causes.index(cause)

    def within(self, name: str | None, jaxpr: Any, ins: Sequence[Entries]) -> list[Entries]:
        """The outputs of an inner jaxpr that stands under a name."""
        self.inside.append(name or "")
        outs = self.of(open_jaxpr(jaxpr), ins)
        self.inside.pop()
        return outs


def keeps_digits(equation: Any) -> bool:
    """Whether real numbers come out of an equation in single precision at least; fewer digits are those of a step."""
    types = [getattr(variable.aval, "dtype", None) for variable in equation.outvars]
    return all(jnp.finfo(each).bits >= FEWEST_BITS for each in types if each and jnp.issubdtype(each, jnp.inexact))


def entries_of(variable: Any, values: dict[Any, Entries]) -> Entries:
    """What is known of a variable or a literal."""
    if isinstance(variable, Literal):
        number = np.asarray(variable.val)
        return spread(0, number.shape, number[()] if number.ndim == 0 else None)
    found = values.get(variable)
    return spread(0, getattr(variable.aval, "shape", ())) if found is None else found
