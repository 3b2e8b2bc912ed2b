"""What a jaxpr tells about lookups by named values: that a site's table already exists, that an axis is too short.

Reading `transition[s, a]` over all values of its parents would only copy the array: the output is one slice of one
input, at the values of the parents in their order, over the whole of its last axis. And where an axis is shorter than
the values it is looked up by, JAX would silently take its last position.
"""

from collections.abc import Mapping
from typing import Any

import jax
from jax.extend.core import Literal

from rlinf_ppl.program.supports import Support, first_value


def inputs_of(jaxpr: Any, supports: Mapping[str, Support]) -> list[tuple[str, Any]]:
    """The first inputs of a jaxpr with the names of what they are values of, or parts of such values."""
    counts = {name: len(jax.tree.leaves(first_value(support))) for name, support in supports.items()}
    names = [name for name, count in counts.items() for _ in range(count)]
    return list(zip(names, jaxpr.invars, strict=False))


def variables_of(jaxpr: Any, supports: Mapping[str, Support], name: str) -> list[Any]:
    """The inputs of a jaxpr that hold one value."""
    return [variable for of, variable in inputs_of(jaxpr, supports) if of == name]


def looked_up(jaxpr: Any, output: Any, parents: tuple[str, ...], supports: Mapping[str, Support]) -> int | None:
    """The position of the array that is an output's table already; None if there is none.

    Args:
        jaxpr: the traced function, of named values first and arrays after them.
        output: the variable of a site's probabilities.
        parents: what the output depends on.
        supports: the values of the function's first inputs, in order.

    Returns:
        The position among the arrays that the function closes over, followed by those that it is given.
    """
    made = {id(variable): equation for equation in jaxpr.eqns for variable in equation.outvars}
    inputs = {id(variable): name for name, variable in inputs_of(jaxpr, supports)}
    cut = made.get(id(through(output, made, ("squeeze", "convert_element_type"))))
    if cut is None or cut.primitive.name != "dynamic_slice":
        return None
    array, *starts = cut.invars
    sources = [*jaxpr.constvars, *jaxpr.invars[len(inputs) :]]
    position = next((i for i, source in enumerate(sources) if source is array), None)
    first = tuple(inputs.get(id(index_of(start, made))) for start in starts[:-1])
    sizes = tuple(len(supports[name]) for name in parents)
    same = array.aval.shape == (*sizes, *output.aval.shape) and array.aval.dtype == output.aval.dtype
    whole = cut.params["slice_sizes"] == (1,) * len(sizes) + output.aval.shape
    # Values that begin at 0 are positions, and never wrap around.
    plain = all(supports[name] == range(size) for name, size in zip(parents, sizes, strict=True))
    return position if first == parents and same and whole and plain else None


def check_lookups(part: str, jaxpr: Any, supports: Mapping[str, Support]) -> None:
    """Raise where an array is looked up by a named value that goes beyond its axis."""
    made = {id(variable): equation for equation in jaxpr.eqns for variable in equation.outvars}
    inputs = {id(variable): name for name, variable in inputs_of(jaxpr, supports)}
    for equation in jaxpr.eqns:
        if equation.primitive.name != "dynamic_slice":
            continue
        array, *starts = equation.invars
        for axis, (length, start) in enumerate(zip(array.aval.shape, starts, strict=True)):
            name = inputs.get(id(index_of(start, made)))
            support = supports.get(name or "")
            if not isinstance(support, range | tuple) or -length <= min(support) <= max(support) < length:
                continue
            raise ValueError(
                f"{part} looks up {name!r}, with values {min(support)}..{max(support)}, on axis {axis} of an array of "
                f"shape {array.aval.shape}, which is too short for it; JAX would silently take its last position. Put "
                "the axes in the order of the indices, or clip the index."
            )


def through(variable: Any, made: dict[int, Any], steps: tuple[str, ...]) -> Any:
    """Follow a variable back through equations that keep its numbers."""
    while not isinstance(variable, Literal) and id(variable) in made:
        equation = made[id(variable)]
        if equation.primitive.name not in steps:
            break
        variable = equation.invars[0]
    return variable


def index_of(start: Any, made: dict[int, Any]) -> Any:
    """The variable that an index is, up to its integer type and to counting negative ones from the end."""
    start = through(start, made, ("convert_element_type",))
    wrapped = None if isinstance(start, Literal) else made.get(id(start))
    if wrapped is None or wrapped.primitive.name != "select_n":
        return start
    test, unwrapped = made.get(id(wrapped.invars[0])), wrapped.invars[1]
    if test is None or test.primitive.name != "lt" or test.invars[0] is not unwrapped or not is_zero(test.invars[1]):
        return start
    return through(unwrapped, made, ("convert_element_type",))


def is_zero(variable: Any) -> bool:
    """Whether a variable is the literal 0."""
    return isinstance(variable, Literal) and bool(variable.val == 0)
