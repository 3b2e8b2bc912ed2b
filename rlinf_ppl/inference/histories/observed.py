"""What users give of trajectories that were seen: checked, and brought into one form."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rlinf_ppl.inference.histories.masses import Seen
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.checks import check_numbers
from rlinf_ppl.program.structure import Structure
from rlinf_ppl.program.supports import Arrays, Support, first_value, is_finite, positions_of, values_of

Data = Mapping[str, Any]


def as_seen(structure: Structure, data: Any, lengths: Any) -> tuple[dict[str, Seen], Array | None]:
    """For each variable its values (n, T) or (n, T + 1), and where they were seen; and how long sequences are.

    Raises:
        TypeError: data are no dictionary, or hold something else than numbers.
        ValueError: they name nothing of the program, have shapes that do not fit each other, or values that a variable
            does not take.
    """
    supports = structure.supports()
    if not isinstance(data, Mapping) or not data:
        raise TypeError(
            "data must be a dict of what was seen, such as exact.sample returns: arrays (n, T) by the names of sites, "
            f"(n, T) or (n, T + 1) of state variables; got {type(data).__name__ if data is not None else None}."
        )
    # Trajectories that were drawn hold these, too; they say nothing of what was done.
    beside = {"alive", *(site.name for site in structure.step.sites if site.is_factor)}
    unknown = [name for name in data if name not in supports and name not in beside]
    if unknown:
        raise ValueError(f"data name {unknown}; the program's state variables and sites are {list(supports)}.")
    seen = {name: one(name, supports[name], entry) for name, entry in data.items() if name in supports}
    steps = check_shapes(structure, seen)
    length, found = check_lengths(lengths, len(jax.tree.leaves(seen)[0]), steps), {}
    for name, each in seen.items():
        ends = rows_of(each) - steps
        within = None if length is None else jnp.arange(rows_of(each))[None] < (length + ends)[:, None]
        check_kind(name, supports[name], kept_values(each, within))
        check_values(name, supports[name], each, within)
        found[name] = sound(supports[name], each, within)
    return found, length


def one(name: str, support: Support, entry: Any) -> Seen:
    """The values of a variable and where they are there."""
    there: Any = None
    if isinstance(entry, np.ma.MaskedArray):
        entry, there = entry.filled(entry.dtype.type(0)), ~np.ma.getmaskarray(entry)
    elif isinstance(entry, tuple) and len(entry) == 2 and not isinstance(support, Arrays):
        entry, there = entry
    if isinstance(support, Arrays):
        if jax.tree.structure(entry) != support.tree:
            raise ValueError(
                f"data[{name!r}] has the structure {jax.tree.structure(entry)}; it must be {support.tree}."
            )
        return Seen(jax.tree.map(jnp.asarray, entry), None)
    if isinstance(entry, Sequence) and not isinstance(entry, str):
        entry = list(entry)
    array = check_numbers(f"data[{name!r}]", entry, "an array (n, T) of values", dtype=None)
    if there is not None:
        there = jnp.asarray(there)
        if there.dtype != bool or there.shape != array.shape[: there.ndim] or there.ndim != 2:
            raise ValueError(
                f"data[{name!r}] is (values, seen), and seen must be an array (n, T) of truth values, True where a "
                f"value was seen; got shape {there.shape} of {there.dtype} beside values of shape {array.shape}."
            )
    return Seen(array, there)


def check_shapes(structure: Structure, seen: dict[str, Seen]) -> int:
    """The number of steps; raises where arrays do not fit each other or the program.

    Raises:
        ValueError: so it is.
    """
    supports, state = structure.supports(), {name for name, _ in structure.state}
    leading = {}
    for name, each in seen.items():
        shape, event = jnp.shape(jax.tree.leaves(each.value)[0]), event_of(supports[name])
        if shape[2:] != event or len(shape) < 2:
            wanted = ("n", "T or T + 1" if name in state else "T", *map(str, event))
            raise ValueError(f"data[{name!r}] has shape {shape}; it must be ({', '.join(wanted)}).")
        leading[name] = shape[:2]
    rows = {name: n for name, (n, _) in leading.items()}
    if len(set(rows.values())) > 1:
        raise ValueError(f"the arrays in data have different numbers of sequences: {rows}.")
    lengths, steps = {name: n for name, (_, n) in leading.items()}, steps_of(structure, seen)
    if any(n != steps and not (name in state and n == steps + 1) for name, n in lengths.items()):
        raise ValueError(
            f"the arrays in data have different numbers of steps: {lengths}; sites have T, state variables T or T + 1."
        )
    if steps < 1:
        raise ValueError("data have no steps.")
    if structure.horizon is not None and steps > structure.horizon:
        raise ValueError(f"data have {steps} steps, and the program's horizon is {structure.horizon}.")
    return steps


def steps_of(structure: Structure, seen: dict[str, Seen]) -> int:
    """How many steps were seen."""
    steps = min(rows_of(each) for each in seen.values())
    return structure.horizon if structure.horizon is not None and steps == structure.horizon + 1 else steps


def rows_of(seen: Seen) -> int:
    """How many times a variable has values for."""
    return int(jax.tree.leaves(seen.value)[0].shape[1])


def event_of(support: Support) -> tuple[int, ...]:
    """The shape of one value."""
    return jnp.shape(jax.tree.leaves(first_value(support))[0])


def kept_values(seen: Seen, within: Array | None) -> Any:
    """The values that count, where it is known which; zeros in the place of others."""
    counts = [x for x in (seen.there, within) if x is not None]
    if not counts or any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((seen.value, counts))):
        return seen.value
    with jax.ensure_compile_time_eval():
        kept = jnp.all(jnp.stack(counts), 0)
        return jax.tree.map(lambda x: filled(x, jnp.zeros((), x.dtype), kept), seen.value)


def check_kind(name: str, support: Support, value: Any) -> None:
    """Raise on numbers of another kind than those of a variable.

    Raises:
        TypeError: they are complex, or traced real ones where whole numbers are wanted.
        ValueError: they are no whole numbers where these are wanted.
    """
    for x, like in zip(jax.tree.leaves(value), jax.tree.leaves(first_value(support)), strict=True):
        if jnp.issubdtype(x.dtype, jnp.complexfloating):
            raise TypeError(f"data[{name!r}] holds complex numbers, and {name!r} is none.")
        whole = not jnp.issubdtype(like.dtype, jnp.floating) and not is_finite(support)
        if not whole or not jnp.issubdtype(x.dtype, jnp.floating):
            continue
        if isinstance(x, jax.core.Tracer):
            raise TypeError(
                f"data[{name!r}] is traced and holds real numbers; {name!r} takes whole ones: give integers."
            )
        bad = ~(np.asarray(x) == np.round(np.asarray(x)))
        if bad.any():
            place = [int(i) for i in np.argwhere(bad)[0]]
            raise ValueError(
                f"data[{name!r}]{place} is {np.asarray(x)[tuple(place)]}, and {name!r} takes whole numbers; give "
                "(values, seen) for what is missing in places."
            )


def check_values(name: str, support: Support, seen: Seen, within: Array | None) -> None:
    """Raise where known values are none of a variable.

    Raises:
        ValueError: so it is.
    """
    if not is_finite(support) or any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((seen, within))):
        return
    with jax.ensure_compile_time_eval():
        counts = [x for x in (seen.there, within) if x is not None]
        bad = np.asarray(jnp.all(jnp.stack([~takes(support, seen.value), *counts]), 0))
    if bad.any():
        i, t = np.argwhere(bad)[0]
        value = np.asarray(seen.value)[i, t]
        hint = " Give (values, seen) for what is missing in places." if np.isnan(float(value)) else ""
        raise ValueError(
            f"data[{name!r}][{i}, {t}] is {value}, and {name!r} takes the values {described(support)}.{hint}"
        )


def takes(support: Any, values: Array) -> Array:
    """Whether values are among those of a finite variable."""
    whole = values == jnp.round(values) if jnp.issubdtype(values.dtype, jnp.floating) else True
    return (positions_of(support, values) < len(support)) & (whole if isinstance(support, range) else True)


def described(support: Any) -> str:
    """The values of a finite variable."""
    return f"{support.start} to {support.stop - 1}" if isinstance(support, range) else str(list(support))


def sound(support: Support, seen: Seen, within: Array | None) -> Seen:
    """The same with some value where nothing was seen, and one that is none where a finite variable does not take it.

    Args:
        support: the values of the variable.
        seen: what was seen of it.
        within: where a sequence has not ended yet; None: everywhere.
    """
    if isinstance(support, Arrays):
        return Seen(jax.tree.map(lambda x, like: filled(x, like, within), seen.value, first_value(support)), None)
    value, like = jnp.asarray(seen.value), jnp.asarray(first_value(support))
    if is_finite(support):
        outside = ~takes(support, value)
        value = jnp.where(outside, values_of(support)[-1] + 1, value)
    return Seen(filled(filled(value, like, seen.there), like, within), seen.there)


def filled(value: Array, like: Array, there: Array | None) -> Array:
    """Values (n, T, ...) with another one where there are none."""
    value = value.astype(like.dtype)
    return value if there is None else jnp.where(there.reshape(*there.shape, *[1] * (value.ndim - 2)), value, like)


def check_lengths(lengths: Any, n: int, steps: int) -> Array | None:
    """How many steps of each sequence there are.

    Raises:
        TypeError: they are no whole numbers.
        ValueError: they are of another number, below 0, or above T.
    """
    if lengths is None:
        return None
    array = check_numbers("lengths", lengths, "whole numbers, one for each sequence", dtype=None)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"lengths must be whole numbers, one for each sequence; got {array.dtype}.")
    if array.shape != (n,):
        raise ValueError(f"lengths has shape {array.shape}; there are {n} sequences.")
    if not isinstance(array, jax.core.Tracer):
        # In NumPy, as arithmetic of JAX on known numbers is traced where a caller's code is.
        known = np.asarray(array)
        if np.any(known < 0) or np.any(known > steps):
            raise ValueError(f"lengths must be from 0 to the {steps} steps that there are data for; got {known}.")
    return array


def as_available(program: ControlProgram, available: Any, rows: tuple[int, int]) -> dict[str, Array]:
    """By decision which of its alternatives were there, (n, T, K).

    Raises:
        TypeError: they are no truth values.
        ValueError: they are of no decision with finitely many alternatives, or of another shape; known ones leave none.
    """
    if available is not None and not isinstance(available, Mapping):
        raise TypeError(f"available must be a dict of arrays (n, T, K) by decision; got {type(available).__name__}.")
    found = {}
    for name, entry in ({} if available is None else available).items():
        if name not in program.scopes or not is_finite(program.supports[name]):
            finite = [each for each in program.scopes if is_finite(program.supports[each])]
            raise ValueError(f"available names {name!r}; the decisions with finitely many alternatives are {finite}.")
        array, shape = jnp.asarray(entry), (*rows, len(program.supports[name]))
        if array.dtype != bool:
            raise TypeError(f"available[{name!r}] must be truth values; got {array.dtype}.")
        if array.shape != shape:
            raise ValueError(f"available[{name!r}] has shape {array.shape}; it must be {shape}: (n, T, alternatives).")
        if not isinstance(array, jax.core.Tracer) and not np.asarray(array).any(-1).all():
            i, t = np.argwhere(~np.asarray(array).any(-1))[0]
            raise ValueError(f"available[{name!r}][{i}, {t}] leaves no alternative of {name!r}.")
        found[name] = array
    return found
