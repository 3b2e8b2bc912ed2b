"""The primitives of which a polynomial is made: what each makes of the degrees of its inputs.

Every rule is an upper bound that holds for all numbers. It answers None where a variable stands as an index, a
predicate, a divisor, an exponent or a trip count; a primitive without a rule is taken for no polynomial. The algebra
is in `degrees`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from rlinf_ppl.program.degree_loops import branch, loop, scan
from rlinf_ppl.program.degrees import NO_POLYNOMIAL, Analysis, Entries, Rule, common_fill, power, product, spread
from rlinf_ppl.program.jaxprs import INNER

SAME = "copy copy_p stop_gradient optimization_barrier device_put name sharding_constraint layout_constraint".split()
LINEAR = "neg conj real imag".split()
SUMS = "add sub add_any complex".split()
MOVES = (
    "reshape transpose broadcast_in_dim squeeze rev slice expand_dims concatenate stack unstack split tile pad".split()
)
# The number of inputs that are data; the others say where to look, or where to write.
LOOKUPS = {"gather": 1, "dynamic_slice": 1, "dynamic_update_slice": 2}
MIXES = ("cumsum", "reduce_window_sum", "fft")
SCATTERED_SUMS = ("scatter-add", "scatter_add", "scatter-sub", "scatter_sub")
COMPARISONS = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
LOGIC = {"and": np.bitwise_and, "or": np.bitwise_or, "not": np.invert}
ARITHMETIC = {"add": np.add, "sub": np.subtract, "mul": np.multiply}
FEWEST_MANTISSA_BITS = 23


def fold(equation: Any, ins: list[Entries]) -> Any:
    """The number that fills a result of whole numbers or truth values; others would round as the device does."""
    compute = (COMPARISONS | LOGIC | ARITHMETIC).get(equation.primitive.name)
    fills = [entries.fill for entries in ins]
    if compute is None or any(fill is None or np.asarray(fill).dtype.kind not in "biu" for fill in fills):
        return None
    with np.errstate(over="ignore"):
        return np.asarray(compute(*fills)).astype(equation.outvars[0].aval.dtype)[()]


def keep(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries]:
    """Entries as they are."""
    return ins


def keep_degrees(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries]:
    """Entries times a number, or a part of them."""
    return [Entries(entries.degree) for entries in ins]


def add(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries]:
    """A sum of two arrays."""
    return [Entries(np.maximum(ins[0].degree, ins[1].degree), fold(equation, ins))]


def multiply(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries]:
    """A product; a sum that a loop has not begun yet (Horner's scheme) is zero, and so is its product."""
    for variable, entries in zip(equation.invars, ins, strict=True):
        empty = entries.fill is not None and entries.fill == 0 and not isinstance(variable, Literal)
        if empty and max(each.top for each in ins) < NO_POLYNOMIAL:
            return [spread(0, equation.outvars[0].aval.shape, entries.fill)]
    return [Entries(product(ins[0].degree, ins[1].degree), fold(equation, ins))]


def divide(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries] | None:
    """A quotient by something known; of whole numbers it would round."""
    return [Entries(ins[0].degree)] if ins[1].known else None


def raise_to(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries] | None:
    """A power with a whole exponent of at least 0 that stands in the arithmetic."""
    name = equation.primitive.name
    exponent = 2 if name == "square" else equation.params["y"] if name == "integer_pow" else ins[1].fill
    if exponent is None or not np.isrealobj(exponent) or exponent < 0 or exponent != np.floor(exponent):
        return None
    return [Entries(power(ins[0].degree, int(min(exponent, NO_POLYNOMIAL))))]


def evaluate_polynomial(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries]:
    """A polynomial in the first input; the others are its coefficients, the constant first."""
    variable, *coefficients, degree = (entries.degree for entries in ins)
    for coefficient in reversed(coefficients):
        degree = np.maximum(product(degree, variable), coefficient)
    return [Entries(degree)]


def convert(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries] | None:
    """Numbers of another type; whole ones of known numbers only."""
    dtype, (entries,) = equation.params["new_dtype"], ins
    inexact = jnp.issubdtype(dtype, jnp.inexact)
    if not inexact and not entries.known:
        return None
    exact = entries.fill is not None and (inexact or np.asarray(entries.fill).dtype.kind in "biu")
    return [Entries(entries.degree, np.asarray(entries.fill).astype(dtype)[()] if exact else None)]


def round_off(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries] | None:
    """Numbers of fewer digits, but not so few that their steps count."""
    few = equation.params["mantissa_bits"] < FEWEST_MANTISSA_BITS
    return None if few else [Entries(ins[0].degree)]


def compare(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries] | None:
    """What holds whatever finite numbers the variables are: they equal themselves, and are not infinite."""
    shape, test = equation.outvars[0].aval.shape, COMPARISONS[equation.primitive.name]
    if all(entries.known for entries in ins):
        return [spread(0, shape, fold(equation, ins))]
    if max(entries.top for entries in ins) >= NO_POLYNOMIAL:
        return None
    if equation.invars[0] is equation.invars[1]:
        return [spread(0, shape, test(0, 0))]
    infinite = [entries.fill is not None and bool(np.isinf(entries.fill)) for entries in ins]
    if not any(infinite):
        return None
    first, second = (entries.fill if inf else 0.0 for entries, inf in zip(ins, infinite, strict=True))
    return [spread(0, shape, test(first, second))]


def logic(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries] | None:
    """Of known truth values a known one."""
    known = all(entries.known for entries in ins)
    return [spread(0, equation.outvars[0].aval.shape, fold(equation, ins))] if known else None


def all_or_any(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries] | None:
    """Whether all are true, or any is."""
    some = ins[0].known and ins[0].degree.size > 0
    return [spread(0, equation.outvars[0].aval.shape, ins[0].fill)] if some else None


def test_finite(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries] | None:
    """A polynomial of finite numbers is finite."""
    variable = not ins[0].known and ins[0].top < NO_POLYNOMIAL
    return [spread(0, ins[0].degree.shape, np.bool_(True))] if variable else None


def select(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries] | None:
    """One of several arrays, entry by entry."""
    which, *cases = ins
    if not which.known:
        return None
    if which.fill is not None:
        return [cases[int(which.fill)]]
    return [Entries(np.max(np.broadcast_arrays(*(case.degree for case in cases)), axis=0), common_fill(cases))]


def move(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries]:
    """What moves entries does the same to their degrees."""
    return move_degrees(equation, [entries.degree for entries in ins], [], common_fill(ins))


def look_up(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries] | None:
    """Entries at a known place; where only the user's numbers tell it, any of them."""
    count = LOOKUPS.get(equation.primitive.name, 1)
    data, places = ins[:count], ins[count:]
    if not all(place.known for place in places):
        return None
    if any(place.fill is None for place in places):
        return [spread(max(entries.top for entries in data), equation.outvars[0].aval.shape)]
    indices = [
        np.full(place.degree.shape, place.fill, variable.aval.dtype)
        for place, variable in zip(places, equation.invars[count:], strict=True)
    ]
    return move_degrees(equation, [entries.degree for entries in data], indices)


def move_degrees(equation: Any, degrees: list[np.ndarray], indices: list[Any], fill: Any = None) -> list[Entries]:
    """A primitive that moves entries, run on degrees unless they are all the same."""
    degree = max((int(each.max(initial=0)) for each in degrees), default=0)
    if all(np.all(each == degree) for each in degrees):
        return [spread(degree, variable.aval.shape, fill) for variable in equation.outvars]
    with jax.ensure_compile_time_eval():
        data = [jnp.asarray(each, jnp.int32) for each in degrees]
        outs = equation.primitive.bind(*data, *indices, **equation.params)
    several = outs if equation.primitive.multiple_results else [outs]
    # What lies outside an array may be filled with the least integer.
    return [Entries(np.maximum(np.asarray(out), 0)) for out in several]


def mix(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries]:
    """Sums of an array's entries with known weights."""
    return [spread(ins[0].top, variable.aval.shape) for variable in equation.outvars]


def sum_over(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries]:
    """Sums over axes."""
    return [Entries(ins[0].degree.max(axis=tuple(equation.params["axes"]), initial=0))]


def contract(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries]:
    """Sums of products over contracted axes, batched axes first: the largest degrees of a row and of a column."""
    (over, batched), free = equation.params["dimension_numbers"], []
    for entries, axes, kept in zip(ins, over, batched, strict=True):
        others = [axis for axis in range(entries.degree.ndim) if axis not in (*axes, *kept)]
        ordered = np.transpose(entries.degree, (*kept, *others, *axes))
        last = tuple(range(ordered.ndim - len(axes), ordered.ndim))
        free.append(ordered.max(axis=last, initial=0))
    left, right = free
    count = len(batched[0])
    rows = left.reshape((*left.shape, *[1] * (right.ndim - count)))
    columns = right.reshape((*right.shape[:count], *[1] * (left.ndim - count), *right.shape[count:]))
    return [Entries(product(rows, columns))]


def convolve(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries]:
    """Sums of products of any entries."""
    return [spread(product(ins[0].top, ins[1].top), equation.outvars[0].aval.shape)]


def sort(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries] | None:
    """Entries in the order of known keys."""
    if not all(entries.known for entries in ins[: equation.params["num_keys"]]):
        return None
    return [spread(entries.top, entries.degree.shape) for entries in ins]


def scatter(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries] | None:
    """Entries set or added at a known place; a function of them (`x.at[i].apply`) comes as the same primitive."""
    operand, place, updates = ins
    added = equation.primitive.name in SCATTERED_SUMS
    if not place.known or not added and equation.params.get("update_jaxpr") is not None:
        return None
    return [Entries(np.maximum(operand.degree, updates.top))]


def scatter_product(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries] | None:
    """Entries multiplied at a known place by known numbers."""
    return [Entries(ins[0].degree)] if ins[1].known and ins[2].known else None


def solve_triangular(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries] | None:
    """A system with a known matrix."""
    return [spread(ins[1].top, ins[1].degree.shape)] if ins[0].known else None


def solve(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries] | None:
    """What the solver of a known linear system computes; that it solves one is only what its author says."""
    lengths = equation.params["const_lengths"]
    start, stop = lengths.matvec + lengths.vecmat, sum(lengths)
    if not all(entries.known for entries in ins[:stop]):
        return None
    given = [*ins[start : start + lengths.solve], *ins[stop:]]
    return analysis.within(None, equation.params["jaxprs"].solve, given)


def call(analysis: Analysis, equation: Any, ins: list[Entries]) -> list[Entries]:
    """A function of its own."""
    params = equation.params
    return analysis.within(params.get("name"), params[INNER[equation.primitive.name]], ins)


RULES: dict[str, Rule] = {
    **dict.fromkeys(SAME, keep),
    **dict.fromkeys(LINEAR, keep_degrees),
    **dict.fromkeys(SUMS, add),
    **dict.fromkeys(MOVES, move),
    **dict.fromkeys(LOOKUPS, look_up),
    **dict.fromkeys(MIXES, mix),
    **dict.fromkeys(SCATTERED_SUMS, scatter),
    **dict.fromkeys(COMPARISONS, compare),
    **dict.fromkeys(LOGIC, logic),
    **dict.fromkeys(("reduce_and", "reduce_or"), all_or_any),
    **dict.fromkeys(("square", "integer_pow", "pow"), raise_to),
    **dict.fromkeys(("scatter-mul", "scatter_mul"), scatter_product),
    **dict.fromkeys(INNER, call),
    "mul": multiply,
    "polynomial": evaluate_polynomial,
    "div": divide,
    "convert_element_type": convert,
    "reduce_precision": round_off,
    "is_finite": test_finite,
    "select_n": select,
    "reduce_sum": sum_over,
    "dot_general": contract,
    "conv_general_dilated": convolve,
    "sort": sort,
    "scatter": scatter,
    "triangular_solve": solve_triangular,
    "custom_linear_solve": solve,
    "cond": branch,
    "scan": scan,
    "while": loop,
}
