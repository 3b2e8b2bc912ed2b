"""Which real variables a function of them may jump with: those that it compares, rounds, or turns into whole numbers.

There a derivative along the variable misses what the jump changes, and is 0 where it should not be.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
from jax.extend.core import Literal

from rlinf_ppl.program.forms import Form
from rlinf_ppl.program.jaxprs import open_jaxpr
from rlinf_ppl.program.lookup import inputs_of
from rlinf_ppl.program.supports import is_finite

STEPS = {"gt", "ge", "lt", "le", "eq", "ne", "floor", "ceil", "round", "sign", "rem", "argmax", "argmin", "is_finite"}


def jumping_sites(form: Form) -> set[str]:
    """The real sites of a part of a program that its laws, factors or next values may jump with."""
    real = {site.name for site in form.latent if not is_finite(site.support)}
    jaxpr = form.arithmetic.jaxpr
    inputs = {variable: {name} for name, variable in inputs_of(jaxpr, dict(form.inputs)) if name in real}
    return jumping(jaxpr, inputs)


def jumping(jaxpr: Any, depends: Mapping[Any, set[str]]) -> set[str]:
    """The names of what a jaxpr may jump with.

    Args:
        jaxpr: the function.
        depends: for some of its inputs the names that they depend on.
    """
    known, found = dict(depends), set[str]()
    for equation in jaxpr.eqns:
        inputs = (variable for variable in equation.invars if not isinstance(variable, Literal))
        names = set[str]().union(*(known.get(variable, set()) for variable in inputs))
        if names:
            known |= dict.fromkeys(equation.outvars, names)
            found |= names if is_step(equation) else set()
    return found


def is_step(equation: Any) -> bool:
    """Whether an equation, or one inside of it, makes steps of real numbers."""
    kinds = [jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in (*equation.invars, *equation.outvars)]
    turned = equation.primitive.name == "convert_element_type" and kinds == [True, False]
    return turned or equation.primitive.name in STEPS or any(map(is_step, inner(equation.params.values())))


def inner(params: Iterable[Any]) -> Iterator[Any]:
    """The equations of all functions among an equation's parameters."""
    for each in params:
        if isinstance(each, tuple | list):
            yield from inner(each)
        else:
            yield from getattr(open_jaxpr(each), "eqns", ())
