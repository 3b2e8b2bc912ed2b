"""What is learned of a guide of one's own: arrays of a module, each within the bounds that its field names."""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.constraints import Constraint

from rlinf_ppl.program.checks import check_like

CONSTRAINT = "constraint"
# Constraints with an edge on both sides, and how far out numbers without bounds may stand for a place near it.
BOTH_SIDES = type(constraints.unit_interval), type(constraints.interval(0.0, 1.0)), type(constraints.simplex)
EDGE = 15.0


def parameter(constraint: Constraint = constraints.real, **more: Any) -> Any:
    """A field of an Equinox module whose arrays keep a constraint of NumPyro's, such as constraints.positive.

    Args:
        constraint: what all arrays below the field keep.
        **more: as `equinox.field` has it.

    Raises:
        TypeError: it is no constraint.
    """
    if not isinstance(constraint, Constraint):
        raise TypeError(
            "parameter takes a constraint of NumPyro's, such as numpyro.distributions.constraints.positive; got "
            f"{type(constraint).__name__}."
        )
    try:
        biject_to(constraint)
    except NotImplementedError as error:
        raise TypeError(f"NumPyro has no bijection to {constraint}, along which an optimiser could move.") from error
    return eqx.field(metadata={CONSTRAINT: constraint}, **more)


def bounds_of(module: Any, bound: Constraint) -> list[Constraint]:
    """The constraint of each array in a module, in the order of its leaves: of the innermost field that names one."""
    if eqx.is_array(module):
        return [bound]
    if isinstance(module, eqx.Module):
        found = []
        for field in dataclasses.fields(module):
            if not field.metadata.get("static", False):
                found += bounds_of(getattr(module, field.name), field.metadata.get(CONSTRAINT, bound))
        return found
    children = jax.tree.leaves(module, is_leaf=lambda x: x is not module)
    if len(children) == 1 and children[0] is module:
        return []
    return [each for child in children for each in bounds_of(child, bound)]


def freed(name: str, bound: Constraint, value: Array) -> Array:
    """An array where it has no bounds; raises where it leaves them."""
    if isinstance(value, jax.core.Tracer):
        return biject_to(bound).inv(jnp.asarray(value, dtype=float))
    # Known numbers are checked where a caller's jit is tracing, too.
    with jax.ensure_compile_time_eval():
        value = jnp.asarray(value, dtype=float)
        free = biject_to(bound).inv(value)
        within = bool(jnp.all(bound(value)))
        movable = not isinstance(bound, BOTH_SIDES) or bool(jnp.all(jnp.abs(free) < EDGE))
    if not within:
        raise ValueError(f"the guide's {name} is {value}, which breaks its constraint {bound}.")
    if not movable:
        raise ValueError(
            f"the guide's {name} is {value}, at the edge of its constraint {bound}: nothing moves it there. Start it "
            "within."
        )
    return free


def learns_arguments(module: Any) -> bool:
    """Whether a guide learns arguments of its program."""
    return not isinstance(module, Mapping) and callable(getattr(module, "arguments", None))


def learned_arguments(module: Any, args: Any) -> Any:
    """A program's arguments with what a guide learns of them put in.

    Raises:
        TypeError: its method takes something else than the program's arguments, or returns something else.
        ValueError: it returns other shapes than the program has.
    """
    if not learns_arguments(module):
        return args
    try:
        inspect.signature(module.arguments).bind(*args)
    except TypeError as error:
        raise TypeError(
            f"the guide's arguments takes the program's arguments, {len(args)} of them, and returns as many: {error}."
        ) from error
    found = module.arguments(*args)
    if not isinstance(found, tuple):
        raise TypeError(f"the guide's arguments returned {type(found).__name__}; it must return a tuple, as args is.")
    return check_like(args, jax.tree.map(jnp.asarray, found), "the guide's arguments")
