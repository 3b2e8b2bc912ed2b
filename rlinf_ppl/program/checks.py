"""What a program is made of, checked where the user stands."""

import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from rlinf_ppl.algebra.chain import FACTORS
from rlinf_ppl.program.forms import Form
from rlinf_ppl.program.sites import RESERVED
from rlinf_ppl.program.supports import Arrays, Real, Support, is_finite, is_whole


def check_numbers(name: str, value: Any, wanted: str, dtype: Any = float) -> Array:
    """Numbers as an array, by default of floats; `wanted` says what they were to be.

    Raises:
        TypeError: they are none, or no rectangular array.
    """
    try:
        if isinstance(value, str) or callable(value):
            raise TypeError("it holds no numbers")
        return jnp.asarray(value, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be {wanted}; got {described(value)}.") from error


def described(value: Any) -> str:
    """A value as an error names it: itself where that is short, otherwise its type."""
    return repr(value) if isinstance(value, str | list | tuple) and len(repr(value)) < 80 else type(value).__name__


def check_functions(initial: Any, step: Any, final: Any) -> None:
    """Raise where a part of a program is no function; `final` may be None."""
    for part, function in (("initial", initial), ("step", step), ("final", final)):
        if not callable(function) and not (part == "final" and function is None):
            raise TypeError(f"{part} must be a function; got {type(function).__name__}.")


def check_horizon(horizon: Any) -> int | None:
    """The horizon as an int of at least 1, or None."""
    if horizon is None:
        return None
    try:
        steps = operator.index(horizon)
    except TypeError as error:
        raise TypeError(f"horizon must be a whole number of steps, or None; got {horizon!r}.") from error
    if isinstance(horizon, bool) or steps < 1:
        raise ValueError(f"horizon must be at least 1; got {horizon!r}.")
    return steps


def check_discount(discount: Any) -> Array:
    """The discount as a float scalar in [0, 1]."""
    array = jnp.asarray(discount, dtype=float)
    if array.ndim != 0:
        raise ValueError(f"discount must be one number; got shape {array.shape}.")
    if not isinstance(array, jax.core.Tracer) and not 0 <= float(array) <= 1:
        raise ValueError(f"discount must lie between 0 and 1; got {float(array):.6g}.")
    return array


def check_precision(dtype: Any) -> None:
    """Refuse a program whose arithmetic was traced in another precision than JAX runs in now."""
    if dtype != jnp.result_type(float):
        raise ValueError(
            f"this program was made while JAX counted in {dtype}, and now it counts in {jnp.result_type(float)}. Make "
            'the program again, or set jax.config.update("jax_enable_x64", ...) before the first program is made.'
        )


def check_sizes(sizes: Any) -> dict[str, int]:
    """The sizes as whole numbers by state variable."""
    if sizes is None:
        return {}
    if not isinstance(sizes, Mapping):
        raise TypeError(f'sizes must be a dict such as {{"s": 16}}; got {type(sizes).__name__}.')
    try:
        return {name: operator.index(size) for name, size in sizes.items()}
    except TypeError as error:
        raise TypeError(f"sizes must hold whole numbers; got {dict(sizes)}.") from error


def check_endless(discount: Array, final: Any, takes_time: bool) -> None:
    """Raise where a program without end has no fixed point."""
    if takes_time:
        raise ValueError("step takes t, so an infinite horizon has no one policy for all times; give a horizon.")
    if final is not None:
        raise ValueError("an infinite horizon has no last state for final; give a horizon, or leave final out.")
    if not isinstance(discount, jax.core.Tracer) and float(discount) >= 1:
        raise ValueError(
            "horizon None needs a discount below 1, with absorbing states too: nothing else makes the value finite and "
            f"unique; got discount {float(discount)}."
        )


def check_ends(horizon: int | None, what: str) -> None:
    """Raise where a program without end is asked for something that has one."""
    if horizon is None:
        raise ValueError(f"an infinite horizon has no {what}; use program.unroll(T), a program of T steps.")


def check_args(args: Any) -> tuple[Any, ...]:
    """The arguments with every number as an array; raises on leaves that are no numbers."""
    if not isinstance(args, tuple | list):
        raise TypeError(f"args must be a tuple of arrays (or pytrees of them); got {type(args).__name__}.")

    def array(leaf: Any) -> Array:
        try:
            # Some words are names of types to NumPy.
            if isinstance(leaf, str):
                raise TypeError("it is a word")
            return jnp.asarray(leaf)
        except TypeError as error:
            raise TypeError(f"args may hold numbers and arrays only; found {leaf!r}.") from error

    return tuple(jax.tree.map(array, tuple(args)))


def have_same_shapes(one: Any, other: Any) -> bool:
    """Whether two trees have the same structure, and arrays of the same shapes and types."""
    ours: Any = jax.tree.structure(one)
    if ours != jax.tree.structure(other):
        return False
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(x.shape == y.shape and x.dtype == y.dtype for x, y in pairs)


def check_like(own: tuple[Any, ...], given: tuple[Any, ...], what: str = "with_args") -> tuple[Any, ...]:
    """Arguments in the place of a program's own, whose types they take.

    Raises:
        ValueError: they differ in number, structure or shape, or would lose what is behind the point.
    """
    wanted: Any = jax.tree.structure(own)
    found = jax.tree.structure(given)
    if wanted != found:
        raise ValueError(f"{what} is given {found}, and the program's args are {wanted}: give as many, made alike.")

    def one(place: Any, like: Array, array: Array) -> Array:
        where = f"{what}: args{jax.tree_util.keystr(place)}"
        if array.shape != like.shape:
            raise ValueError(
                f"{where} has shape {array.shape}, and the program was made with {like.shape}: with other shapes it is "
                "another program, made by ControlProgram."
            )
        if not jnp.can_cast(array.dtype, like.dtype, "same_kind"):
            raise ValueError(f"{where} is of {array.dtype}, and the program was made with {like.dtype}.")
        return array.astype(like.dtype)

    return jax.tree_util.tree_map_with_path(one, own, given)


def state_order(step: Callable[..., Any], skipped: int, returned: list[str]) -> tuple[tuple[str, ...], bool]:
    """The state variables in the order of step's signature, and whether it takes the time index."""
    for name in RESERVED:
        if name in returned:
            raise ValueError(f"{name!r} cannot be a state variable: it names the time index or the discount's site.")
    parameters = list(inspect.signature(step).parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    taken = {p.name for p in positional[:skipped]}
    named = [p for p in parameters if p.name not in taken and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    open_ended = any(p.kind == p.VAR_KEYWORD for p in parameters)
    unknown = [p.name for p in named if p.name not in returned and p.name != "t" and p.default is p.empty]
    missing = [name for name in returned if name not in {p.name for p in named}]
    if unknown or (missing and not open_ended):
        raise ValueError(
            f"step takes {[p.name for p in named]} after its {skipped} args, but initial returns the state variables "
            f"{returned}; the names must agree (step may also take t)."
        )
    order = [p.name for p in named if p.name in returned] + missing
    return tuple(order), any(p.name == "t" for p in named)


def state_supports(initial: Form, order: tuple[str, ...], sizes: dict[str, int]) -> dict[str, Support]:
    """The values of each state variable: those of the site that `initial` returns for it, 0..size-1, or any arrays."""
    supports, sites = {}, initial.supports()
    for name in sizes:
        if name not in order:
            raise ValueError(f"sizes names {name!r}, but the state variables are {list(order)}.")
    returned = {form.name: form for form in initial.following}
    for name in order:
        source, arrays = returned[name].source, returned[name].arrays
        support = sites.get(source or "", arrays)
        if name in sizes:
            size, known = sizes[name], is_finite(support)
            if isinstance(support, Real):
                raise ValueError(f"sizes names {name!r}, but initial returns real numbers for it: leave it out.")
            if isinstance(support, Arrays) and not is_whole(support):
                raise ValueError(f"sizes names {name!r}, but initial returns no whole number for it: leave it out.")
            if size < 1 or (known and len(support) != size):
                found = f", and initial's site has {len(support)} values" if known else ""
                raise ValueError(f"sizes[{name!r}] is {size}{found}; it must be the number of values, at least 1.")
            support = support if known else range(size)
        supports[name] = support
    return supports


def check_sight(step: Form, state: Sequence[str]) -> None:
    """Raise where what a decision does not see does not stand before it, or its prior depends on it."""
    before = list(state)
    for site in step.latent:
        missing = [name for name in site.unseen if name not in before]
        if missing:
            raise ValueError(
                f"the decision {site.name!r} does not see {missing}; unseen takes what stands before it, which is "
                f"{before}: state variables, chance sites and decisions."
            )
        seen = [name for name in site.parents if name in site.unseen]
        if seen:
            raise ValueError(
                f"the prior of {site.name!r} depends on {seen}, which it does not see; let it depend on what it sees, "
                "or take them out of unseen."
            )
        before.append(site.name)


def check_sees(program: Any, what: str) -> None:
    """Raise where a decision does not see all that what follows depends on."""
    for name, hidden in program.structure.hidden:
        raise ValueError(
            f"{what} is for decisions that see all that matters to them: what follows depends on {list(hidden)}, which "
            f"the decision {name!r} does not see. svi.fit(program, key) climbs to policies that no decision improves "
            "alone, and exact.elbo, exact.evaluate and exact.marginals are exact for any policy."
        )


def check_forms(initial: Form, step: Form, final: Form | None) -> None:
    """Raise where sites stand in the wrong place or names clash."""
    for part, form, allowed in (("initial", initial, ("chance",)), ("final", final, FACTORS)):
        for site in form.sites if form is not None else ():
            if site.kind not in allowed:
                raise ValueError(
                    f"{part} holds the {site.kind} site {site.name!r}; it may hold {' and '.join(allowed)} sites only."
                )
    if final is not None and not final.sites:
        raise ValueError("final states no optimality; call optimality(log_prob) in it, or leave final out.")
    check_sight(step, [form.name for form in step.following])
    for site in step.sites:
        depends = [name for name in site.temperature_parents if name != "t"]
        if depends:
            raise ValueError(
                f"the inverse temperature of {site.name!r} depends on {depends}; it may depend on t and args only."
            )
