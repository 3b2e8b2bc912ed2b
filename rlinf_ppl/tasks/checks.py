"""The checks that every task makes at its birth, and how it is put together afterwards.

An array is first converted (`as_reals`, `as_indices`), then its shape is checked, then its values. Shapes are always
known. Values are only looked at where they are concrete: under `jit`, `vmap` or `grad` an array may be a tracer, and
then the value checks pass it by. An array of several hundred megabytes is read twice and is not copied for a check.

Every error names the argument, what was found there, and what to do.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from rlinf_ppl.algebra.tables import ROW_DIGITS, ROW_TOLERANCE
from rlinf_ppl.types import ArrayLike

TaskT = TypeVar("TaskT", bound=eqx.Module)


def is_concrete(array: jax.Array | np.ndarray) -> bool:
    """Whether the values of an array are known, as they are outside of JAX's transformations."""
    return not isinstance(array, jax.core.Tracer)


def as_reals(name: str, value: ArrayLike) -> Float[Array, "..."]:
    """Convert an argument to a floating-point array: float32, or float64 where JAX has x64 on.

    A NumPy array is copied, since `jnp.asarray` may share its memory and the task would then change whenever the
    caller writes to it. A JAX array of the right type is taken as it is.

    Args:
        name: The argument's name, for the messages.
        value: The argument.

    Returns:
        The array.

    Raises:
        TypeError: `value` does not hold real numbers.
        ValueError: `value` is a nested sequence whose rows have different lengths.
    """
    numbers = _as_numbers(name, value)
    if not any(jnp.issubdtype(numbers.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        raise TypeError(f"{name} holds {numbers.dtype}, not real numbers: give an array of floats.")
    if isinstance(numbers, jax.Array):
        return jnp.asarray(numbers, dtype=float)
    with np.errstate(over="ignore"):  # beyond float32 a number becomes infinite, and `check_finite` names it
        return jnp.array(numbers, dtype=float)


def as_indices(name: str, value: ArrayLike, count: int, things: str, hint: str = "") -> Int32[Array, "..."]:
    """Convert an argument to an int32 array of positions below `count`.

    Args:
        name: The argument's name, for the messages.
        value: The argument, of any integer type.
        count: How many positions there are.
        things: What they are positions of, in the plural.
        hint: What else to do about a position that is out of range.

    Returns:
        The array.

    Raises:
        TypeError: `value` does not hold integers.
        ValueError: `value` is ragged, or a position lies outside of 0 to count - 1.
    """
    numbers = _as_numbers(name, value)
    if numbers.size and not jnp.issubdtype(numbers.dtype, jnp.integer):
        raise TypeError(f"{name} holds {numbers.dtype}, not integers: give the positions of the {things}.")
    if is_concrete(numbers) and numbers.size:
        host = np.asarray(numbers)
        for position in (host.argmin(), host.argmax()):
            if not 0 <= host.flat[position] < count:
                raise ValueError(
                    f"{_entry(name, position, host.shape)} is {host.flat[position]}, but there are {count} {things}: "
                    f"give positions from 0 to {count - 1}{hint and f' ({hint})'}."
                )
    convert = jnp.asarray if isinstance(numbers, jax.Array) else jnp.array
    return convert(numbers, dtype=jnp.int32)


def _as_numbers(name: str, value: ArrayLike) -> jax.Array | np.ndarray:
    """Hold an argument as an array of whatever type it has."""
    if isinstance(value, jax.Array | np.ndarray):
        return value
    try:
        return np.asarray(value)
    except jax.errors.TracerArrayConversionError:  # a list with tracers in it, which only JAX can stack
        return jnp.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is not a rectangular array: {error}. Give rows of equal length.") from error


def check_not_empty(name: str, shape: tuple[int, ...], axes: Sequence[str]) -> None:
    """Check that an array has the named axes and that none of them is empty.

    Args:
        name: The argument's name.
        shape: Its shape.
        axes: What each axis counts, in the plural: `("states", "actions", "next states")`.

    Raises:
        ValueError: There are more or fewer axes, or one has length zero.
    """
    if len(shape) != len(axes):
        raise ValueError(f"{name} has shape {shape}: it needs {len(axes)} axes ({', '.join(axes)}).")
    for axis, length in zip(axes, shape, strict=True):
        if length == 0:
            raise ValueError(f"{name} has shape {shape}, so it has no {axis}: a task needs at least one.")


def check_shape(
    name: str,
    shape: tuple[int, ...],
    allowed: Sequence[tuple[int | str, ...]],
    source: str,
    source_shape: tuple[int, ...],
) -> None:
    """Check that an array has one of the shapes that another argument implies.

    Args:
        name: The argument's name.
        shape: Its shape.
        allowed: The shapes it may have; a letter stands for any length but zero.
        source: The name of the argument that decides.
        source_shape: The shape of that argument.

    Raises:
        ValueError: It has none of them.
    """
    for wanted in allowed:
        if len(wanted) == len(shape) and all(
            length > 0 if isinstance(want, str) else length == want for want, length in zip(wanted, shape, strict=True)
        ):
            return
    choices = " or ".join(f"({', '.join(map(str, wanted))}{',' if len(wanted) == 1 else ''})" for wanted in allowed)
    raise ValueError(f"{name} has shape {shape}, but {source} has shape {source_shape}: {name} must be {choices}.")


def check_finite(name: str, array: jax.Array, advice: str = "give finite numbers.") -> None:
    """Check that every entry is finite.

    Args:
        name: The argument's name.
        array: The argument, converted.
        advice: What to do, as the last sentence of the message.

    Raises:
        ValueError: An entry is NaN or infinite; the message says which.
    """
    if not is_concrete(array):
        return
    wrong = ~np.isfinite(np.asarray(array))
    if wrong.any():
        position = int(wrong.argmax())
        found = float(np.asarray(array).flat[position])
        raise ValueError(f"{_entry(name, position, array.shape)} is {found}: {advice}")


def as_distributions(name: str, array: jax.Array, conditions: Sequence[str]) -> jax.Array:
    """Check that the last axis holds distributions, no negative entries and a sum of one, and let it do so exactly.

    A sum that is off by more than `ROW_TOLERANCE` is a mistake to be seen; one that is off by less, as rows of few
    digits are, is divided out in double precision.

    Args:
        name: The argument's name.
        array: The argument, converted.
        conditions: What each leading axis stands for, in the singular: `("state", "action")`.

    Returns:
        The array.

    Raises:
        ValueError: An entry is negative or not finite, or a row does not sum to one; the message says where.
    """
    if not is_concrete(array):
        return array
    host = np.asarray(array)  # shares the memory of an array on the CPU
    with np.errstate(invalid="ignore", over="ignore"):
        sums = np.asarray(host.sum(axis=-1, dtype=np.float64))
    if not np.isfinite(sums).all():
        check_finite(name, array, "probabilities are finite numbers between 0 and 1.")
    if host.min() < 0:  # argmin would copy the array
        smallest = int(host.argmin())
        raise ValueError(
            f"{_entry(name, smallest, host.shape)} is {host.flat[smallest]:g}: probabilities cannot be negative."
        )
    excess = sums - 1
    worst = int(np.abs(excess).argmax())
    if abs(excess.flat[worst]) > ROW_TOLERANCE:
        where = _entry(name, worst, sums.shape)
        each = f"each row {name}[{', '.join(conditions)}]" if conditions else "its entries"
        raise ValueError(
            f"{where} sums to {sums.flat[worst]:.8g}, {abs(excess.flat[worst]):.3g} too "
            f"{'much' if excess.flat[worst] > 0 else 'little'}: {each} must sum to one."
        )
    if abs(excess.flat[worst]) <= ROW_DIGITS * np.finfo(host.dtype).eps:
        return array
    return jnp.asarray((host / sums[..., None]).astype(host.dtype))


def check_names(name: str, names: Sequence[str] | None, count: int, counted: str) -> tuple[str, ...] | None:
    """Check that names are distinct strings, one for each of what they name.

    Args:
        name: The argument's name.
        names: The names, or None for none.
        count: How many there must be.
        counted: What they name, in the plural: `"states"`.

    Returns:
        The names as a tuple, or None.

    Raises:
        TypeError: `names` is one string, or holds something else than strings.
        ValueError: There are too few, too many, or one appears twice.
    """
    if names is None:
        return None
    if isinstance(names, str):
        raise TypeError(f"{name} is the one string {names!r}: give a sequence of {count} strings.")
    names = tuple(names)
    for position, entry in enumerate(names):
        if not isinstance(entry, str):
            raise TypeError(f"{name}[{position}] is {entry!r}, of type {type(entry).__name__}: give strings.")
    if len(names) != count:
        raise ValueError(f"{name} has {len(names)} names for {count} {counted}: give one for each, or None.")
    if len(set(names)) < count:
        (twice, _), *_ = Counter(names).most_common(1)
        raise ValueError(f"{name} has {twice!r} more than once: give different {counted} different names.")
    return names


def assemble(kind: type[TaskT], fields: Mapping[str, Any]) -> TaskT:
    """Put a task together from fields that are checked already, without running its constructor.

    JAX does the same when it unflattens a pytree, so a task must be usable after it.

    Args:
        kind: The task's class.
        fields: A value for each of its fields.

    Returns:
        The task.
    """
    task = object.__new__(kind)
    for field in dataclasses.fields(kind):
        object.__setattr__(task, field.name, fields[field.name])
    return task


def _entry(name: str, position: int | np.integer, shape: tuple[int, ...]) -> str:
    """Write where a flat position lies: `reward[2, 0]`, or the bare name for a scalar."""
    index = np.unravel_index(position, shape)
    return f"{name}[{', '.join(str(int(i)) for i in index)}]" if index else name
