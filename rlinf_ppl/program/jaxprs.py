"""What equations of JAX hold beside their inputs, in all versions that are supported.

JAX promises nothing about it; whatever reads jaxprs asks here, and fails loudly where a version has changed it.
"""

from collections.abc import Container, Iterable
from functools import lru_cache
from typing import Any

from jax.extend.core import Literal

# Under which name each equation that stands for a function of its own keeps it.
INNER = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}


def open_jaxpr(jaxpr: Any) -> Any:
    """A jaxpr without the arrays it closes over."""
    return getattr(jaxpr, "jaxpr", jaxpr)


def scan_ends(equation: Any) -> tuple[int, int]:
    """Where among the inputs of a scan its constants end, and where what it carries ends; rows follow."""
    params = equation.params
    if "num_consts" in params:
        return params["num_consts"], params["num_consts"] + params["num_carry"]
    # From jax 0.12 on they are the groups of a tree.
    constants, carried, _ = map(len, params["ft_in"].unpack())
    return constants, constants + carried


@lru_cache(maxsize=1024)
def part_for(jaxpr: Any, indices: tuple[int, ...]) -> Any:
    """The part of a jaxpr that some of its outputs need, with those outputs alone."""
    wanted = [jaxpr.outvars[i] for i in indices]
    return jaxpr.replace(outvars=wanted, eqns=equations_for(jaxpr, wanted))


def equations_for(jaxpr: Any, wanted: Iterable[Any], known: Container[Any] = ()) -> list[Any]:
    """The equations of a jaxpr that some of its variables need, without those that make what is known already."""
    needed = {variable for variable in wanted if not isinstance(variable, Literal) and variable not in known}
    kept = []
    for equation in reversed(jaxpr.eqns):
        if needed.intersection(equation.outvars):
            kept.append(equation)
            inputs = (variable for variable in equation.invars if not isinstance(variable, Literal))
            needed.update(variable for variable in inputs if variable not in known)
    return kept[::-1]
