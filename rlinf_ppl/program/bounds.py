"""Look-ups outside of their arrays: which outputs of traced arithmetic depend on one.

JAX clamps an index that is too large, or drops what is written there, and says nothing. Here a jaxpr is evaluated once
more, with a flag for every variable: whether an index went out of its array on the way to it. A choice by a single
condition takes the flag of what was chosen, so `where(t + 1 < T, reward[t + 1], 0)` is right as it stands. Negative
indices count from the end, as in NumPy, and what was asked to be clipped is.
"""

import functools
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Literal
from jaxtyping import Array, Bool

from rlinf_ppl.program.jaxprs import INNER, open_jaxpr, scan_ends
from rlinf_ppl.program.lookup import index_of
from rlinf_ppl.program.plain import evaluate_one

Values = list[Any]
Flags = list[Any]

WRITES = "add", "sub", "mul", "min", "max"
# For every way to look up, the first of the inputs that are indices, and of those that are not any more.
INDICES: dict[str, tuple[int, int | None]] = {
    "dynamic_slice": (1, None),
    "dynamic_update_slice": (2, None),
    "gather": (1, 2),
    **dict.fromkeys(("scatter", *(f"scatter{sign}{kind}" for sign in "-_" for kind in WRITES)), (1, 2)),
}


@lru_cache(maxsize=4096)
def computes_indices(jaxpr: Any, named: int = 0) -> bool:
    """Whether a jaxpr looks up by an index that is neither one of its first inputs as it is nor a number inside.

    Args:
        jaxpr: the arithmetic.
        named: how many of its inputs are known to be inside; `check_lookups` sees to those.
    """
    made = {variable: equation for equation in jaxpr.eqns for variable in equation.outvars}
    by_id = {id(variable): equation for variable, equation in made.items()}
    plain = {id(variable) for variable in jaxpr.invars[:named] if not jnp.issubdtype(variable.aval.dtype, jnp.floating)}
    known = numbers(jaxpr)
    for equation in jaxpr.eqns:
        if any(computes_indices(inner) for inner in inner_jaxprs(equation)):
            return True
        for place, start in enumerate(indices_of(equation)):
            number = start.val if isinstance(start, Literal) else known.get(start)
            if number is not None:
                # It is looked at only where it is out of the axis.
                if not 0 <= number < equation.invars[0].aval.shape[place]:
                    return True
                continue
            if not is_single(equation) or id(index_of(start, by_id)) not in plain:
                return True
    return False


def numbers(jaxpr: Any) -> dict[Any, Any]:
    """The variables that hold one number which depends on nothing, and that number."""
    known: dict[Any, Any] = {}
    for equation in jaxpr.eqns:
        fixed = all(isinstance(variable, Literal) or variable in known for variable in equation.invars)
        single = len(equation.outvars) == 1 and is_number(equation.outvars[0].aval)
        if fixed and single and not equation.effects and not inner_jaxprs(equation):
            values = [each.val if isinstance(each, Literal) else known[each] for each in equation.invars]
            with jax.ensure_compile_time_eval():
                (known[equation.outvars[0]],) = map(np.asarray, evaluate_one(nothing(), equation, values))
    return known


def is_number(aval: Any) -> bool:
    """Whether a variable holds one number; a random key is none."""
    return aval.shape == () and not jnp.issubdtype(aval.dtype, jax.dtypes.extended)


def indices_of(equation: Any) -> Sequence[Any]:
    """The variables that an equation looks up by; none where it is asked to clip them."""
    first, last = INDICES.get(equation.primitive.name, (0, 0))
    return () if is_clipped(equation) else equation.invars[first:last]


def is_single(equation: Any) -> bool:
    """Whether one position is taken of every axis, or all of them."""
    if equation.primitive.name != "dynamic_slice":
        return False
    shape, sizes = equation.invars[0].aval.shape, equation.params["slice_sizes"]
    return all(size in (1, length) for size, length in zip(sizes, shape, strict=True))


def is_clipped(equation: Any) -> bool:
    """Whether it was asked for that indices are clipped; of a slice that is mapped over nobody has asked it."""
    if equation.params.get("mode") != lax.GatherScatterMode.CLIP:
        return False
    numbers = equation.params["dimension_numbers"]
    return bool(getattr(numbers, "collapsed_slice_dims", ()) or getattr(numbers, "inserted_window_dims", ()))


def inner_jaxprs(equation: Any) -> list[Any]:
    """What an equation calls, without the arrays that it closes over."""
    found = [each for value in equation.params.values() for each in (value if isinstance(value, tuple) else (value,))]
    return [jaxpr for jaxpr in (open_jaxpr(each) for each in found) if hasattr(jaxpr, "eqns")]


def evaluate(jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Any], flags: Flags) -> tuple[Values, Flags]:
    """The outputs of an open jaxpr, and of each whether a look-up that it depends on went out of its array."""
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *inputs), strict=True))
    outside = dict(zip(jaxpr.invars, flags, strict=True))

    def value(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    def flag(variable: Any) -> Any:
        return inside() if isinstance(variable, Literal) else outside.get(variable, inside())

    for equation in jaxpr.eqns:
        ins, wrong = [value(each) for each in equation.invars], [flag(each) for each in equation.invars]
        outs, found = RULES.get(equation.primitive.name, plainly)(equation, ins, wrong)
        values |= zip(equation.outvars, outs, strict=True)
        outside |= zip(equation.outvars, found, strict=True)
    return [value(each) for each in jaxpr.outvars], [flag(each) for each in jaxpr.outvars]


def inside() -> Bool[Array, ""]:
    """Nothing went out."""
    return jnp.asarray(False)


def any_of(flags: Sequence[Any]) -> Any:
    """Whether anything went out."""
    return functools.reduce(jnp.logical_or, flags, inside())


def plainly(equation: Any, values: Values, flags: Flags) -> tuple[Values, Flags]:
    """An equation whose outputs depend on all of its inputs."""
    outs = evaluate_one(nothing(), equation, values)
    return outs, [any_of(flags)] * len(outs)


@lru_cache(maxsize=1)
def nothing() -> Any:
    """A jaxpr without equations."""
    return jax.make_jaxpr(lambda: ())().jaxpr


def looking(equation: Any, values: Values, flags: Flags) -> tuple[Values, Flags]:
    """A look-up."""
    outs, wrong = plainly(equation, values, flags)
    if is_clipped(equation):
        return outs, wrong
    first, last = INDICES[equation.primitive.name]
    starts = values[first:last]
    # Of an index array the last axis runs over the axes that are looked up.
    indices = jnp.stack([jnp.asarray(start, int) for start in starts], -1) if last is None else starts[0]
    largest = jnp.asarray(largest_start(equation, values), int)
    out = (indices < 0) | (indices > jnp.reshape(largest, [1] * (indices.ndim - 1) + [-1]))
    return outs, [wrong[0] | jnp.any(out)]


def largest_start(equation: Any, values: Values) -> np.ndarray:
    """The largest index on every axis that is looked up, such that the whole window lies inside."""
    shape, name, params = values[0].shape, equation.primitive.name, equation.params
    if name == "dynamic_slice":
        return np.subtract(shape, params["slice_sizes"])
    if name == "dynamic_update_slice":
        return np.subtract(shape, values[1].shape)
    numbers = params["dimension_numbers"]
    if name == "gather":
        axes, sizes = numbers.start_index_map, params["slice_sizes"]
    else:
        axes = numbers.scatter_dims_to_operand_dims
        single = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
        windows = iter(numbers.update_window_dims)
        sizes = [1 if i in single else values[2].shape[next(windows)] for i in range(len(shape))]
    return np.asarray([shape[axis] - sizes[axis] for axis in axes], int)


def chosen(equation: Any, values: Values, flags: Flags) -> tuple[Values, Flags]:
    """One of several arrays; where each entry chooses for itself, all of them count."""
    outs, wrong = plainly(equation, values, flags)
    if jnp.ndim(values[0]):
        return outs, wrong
    return outs, [flags[0] | lax.select_n(values[0], *(jnp.asarray(flag) for flag in flags[1:]))]


def call(jaxpr: Any, values: Sequence[Any], flags: Sequence[Any]) -> tuple[Values, Flags]:
    """An inner jaxpr."""
    return evaluate(open_jaxpr(jaxpr), getattr(jaxpr, "consts", ()), values, list(flags))


def call_inner(equation: Any, values: Values, flags: Flags) -> tuple[Values, Flags]:
    """A function of its own."""
    return call(equation.params[INNER[equation.primitive.name]], values, flags)


def branch(equation: Any, values: Values, flags: Flags) -> tuple[Values, Flags]:
    """One of several functions."""
    choices = [lambda xs, fs, each=each: call(each, xs, fs) for each in equation.params["branches"]]
    outs, wrong = lax.switch(values[0], choices, values[1:], flags[1:])
    return outs, [flags[0] | flag for flag in wrong]


def scan(equation: Any, values: Values, flags: Flags) -> tuple[Values, Flags]:
    """A loop over rows."""
    params = equation.params
    n, k = scan_ends(equation)

    def once(carry: Any, xs: Any) -> tuple[Any, Any]:
        outs, wrong = call(params["jaxpr"], [*values[:n], *carry[0], *xs], [*flags[:n], *carry[1], *flags[k:]])
        return (outs[: k - n], wrong[: k - n]), (outs[k - n :], wrong[k - n :])

    options = {name: params[name] for name in ("length", "reverse", "unroll")}
    (last, carried), (made, each) = lax.scan(once, (values[n:k], flags[n:k]), values[k:], **options)
    return [*last, *made], [*carried, *(jnp.any(flag) for flag in each)]


def loop(equation: Any, values: Values, flags: Flags) -> tuple[Values, Flags]:
    """A loop while a predicate holds, on which all that it makes depends."""
    params = equation.params
    a, b = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]

    def test(carry: Any) -> tuple[Any, Any]:
        (again,), (wrong,) = call(params["cond_jaxpr"], [*values[:a], *carry[0]], [*flags[:a], *carry[1]])
        return again, wrong

    def once(carry: Any) -> Any:
        tested = test(carry)[1]
        outs, wrong = call(params["body_jaxpr"], [*values[a:b], *carry[0]], [*flags[a:b], *carry[1]])
        return outs, wrong, carry[2] | tested

    start = values[b:], flags[b:], inside()
    outs, wrong, tested = lax.while_loop(lambda carry: test(carry)[0], once, start)
    tested |= test((outs, wrong))[1]
    return outs, [flag | tested for flag in wrong]


RULES: dict[str, Callable[[Any, Values, Flags], tuple[Values, Flags]]] = {
    **dict.fromkeys(INDICES, looking),
    **dict.fromkeys(INNER, call_inner),
    "select_n": chosen,
    "cond": branch,
    "scan": scan,
    "while": loop,
}
