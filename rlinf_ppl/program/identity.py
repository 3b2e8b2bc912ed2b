"""What a jaxpr computes, as a key: two with one key share compiled code, so the key holds all that the arithmetic does.

The text of a jaxpr leaves out the constants of inner functions, rounds its literals, and does not show custom rules of
derivatives. Here variables are numbered in order; literals and the constants of inner functions count by their bytes,
custom rules by the jaxpr of what they make of tangents and cotangents, a callback by its Python function. Whatever is
not known to compare by what it does counts by identity: then a program equals itself only.
"""

import hashlib
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

DEEPEST = 3
RULES = ("custom_jvp_call", "custom_vjp_call")
PLAIN = int | float | complex | str | bytes | bool | type(None) | type | np.dtype


class Same:
    """An object that equals itself only, kept alive so that no other takes its place."""

    __slots__ = ("it",)

    def __init__(self, it: Any):
        self.it = it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.it is other.it

    def __hash__(self) -> int:
        return id(self.it)


def jaxpr_key(jaxpr: Any, within: tuple[Any, ...] = ()) -> tuple[Any, ...]:
    """A key of an open jaxpr.

    Args:
        jaxpr: its constants count as inputs.
        within: what the custom rules that it stands in compute.
    """
    numbers: dict[Any, int] = {}

    def variable(x: Any) -> Any:
        if isinstance(x, Literal):
            return "literal", aval_key(x.aval), array_key(x.val)
        return numbers.setdefault(x, len(numbers))

    inputs = tuple((variable(x), aval_key(x.aval)) for x in (*jaxpr.constvars, *jaxpr.invars))
    equations = tuple(
        (
            equation.primitive.name,
            tuple(variable(x) for x in equation.invars),
            equation_key(jaxpr, equation, within),
            tuple((variable(x), aval_key(x.aval)) for x in equation.outvars),
        )
        for equation in jaxpr.eqns
    )
    return inputs, equations, tuple(variable(x) for x in jaxpr.outvars)


def equation_key(jaxpr: Any, equation: Any, within: tuple[Any, ...]) -> Any:
    """A key of what an equation does beside its primitive."""
    if equation.primitive.name not in RULES:
        return tuple((name, value_key(value, within)) for name, value in sorted(equation.params.items()))
    plain = value_key(equation.params["call_jaxpr"], within)
    if plain in within:  # a rule that calls its own function
        return plain, within.index(plain)
    return plain, rule_key(jaxpr, equation, (*within, plain)) if len(within) < DEEPEST else Same(equation)


def rule_key(jaxpr: Any, equation: Any, within: tuple[Any, ...]) -> Any:
    """A key of a custom rule: what it makes of tangents, or of cotangents."""
    n = equation.params.get("num_consts", 0)
    inputs = list(dict.fromkeys(x for x in equation.invars if not isinstance(x, Literal)))
    closed_over = [x for x in inputs if x in equation.invars[:n]]
    given = [x for x in inputs if x not in closed_over]
    alone = jaxpr.replace(
        constvars=[],
        invars=[*closed_over, *given],
        outvars=list(equation.outvars),
        eqns=[equation],
        effects=equation.effects,
    )

    def forwards(constants: Any, xs: Any, tangents: Any) -> Any:
        return jax.jvp(lambda *xs: jax.core.eval_jaxpr(alone, (), *constants, *xs), xs, tangents)

    def backwards(constants: Any, xs: Any, cotangents: Any) -> Any:
        return jax.vjp(lambda *xs: jax.core.eval_jaxpr(alone, (), *constants, *xs), *xs)[1](cotangents)

    forms = lambda xs: tuple(jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) for x in xs)  # noqa: E731
    try:
        if equation.primitive.name == "custom_jvp_call":
            traced = jax.make_jaxpr(forwards)(forms(closed_over), forms(given), forms(given))
        else:
            traced = jax.make_jaxpr(backwards)(forms(closed_over), forms(given), list(forms(equation.outvars)))
    except Exception:
        # A user's rule, which may raise anything where only JAX's own transformations can run it: it is itself alone.
        return Same(equation)
    return value_key(traced, within)


def value_key(value: Any, within: tuple[Any, ...]) -> Any:
    """A key of a parameter of an equation."""
    if isinstance(value, ClosedJaxpr):
        return "closed", jaxpr_key(value.jaxpr, within), tuple(array_key(x) for x in value.consts)
    if hasattr(value, "eqns"):
        return "open", jaxpr_key(value, within)
    if isinstance(value, PLAIN):
        return type(value), repr(value) if isinstance(value, float | complex) else value
    if isinstance(value, tuple | list):
        return type(value), tuple(value_key(each, within) for each in value)
    if isinstance(value, dict):
        return "dict", tuple((name, value_key(each, within)) for name, each in value.items())
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return array_key(value)
    called = getattr(value, "callback_func", None)
    if called is not None:
        return "callback", Same(called), value_key(getattr(value, "in_tree", None), within)
    # What says itself when it equals another is taken at its word; functions do not.
    compares = getattr(type(value), "__eq__", None) is not getattr(object, "__eq__", None) and not callable(value)
    return (type(value), value) if compares and hashable(value) else Same(value)


def hashable(value: Any) -> bool:
    """Whether something has a hash."""
    try:
        hash(value)
    except TypeError:
        return False
    return True


def array_key(value: Any) -> Any:
    """A key of a constant: its dtype, shape and bytes."""
    if isinstance(value, jax.core.Tracer):
        return Same(value)
    try:
        array = np.asarray(value)
    except TypeError:  # random keys
        array = np.asarray(jax.random.key_data(value))
    if array.dtype == object:
        return Same(value)
    data = np.ascontiguousarray(array).tobytes()
    return str(array.dtype), array.shape, data if len(data) <= 64 else hashlib.sha256(data).digest()


def aval_key(aval: Any) -> tuple[Any, ...]:
    """A key of the type of a variable."""
    return getattr(aval, "shape", None), str(getattr(aval, "dtype", aval)), getattr(aval, "weak_type", False)
