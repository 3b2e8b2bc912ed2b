"""The kinds of answers as a report reads them: tables over finite sets, and Gaussian answers over vectors.

A table is one array with an axis for each of its variables. A Gaussian answer is a tuple of arrays over coordinates:

    policy  N(gain scope + offset, cov)         gain (own, given), offset (own), cov (own, other)
    value   x' matrix x + x' vector + scalar    matrix (state, other), vector (state), scalar ()

Everything else in a report is the same for both, and asks here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Array

from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.program import ControlProgram

Names: TypeAlias = Mapping[str, Sequence[str]]
Parts: TypeAlias = dict[str, tuple[tuple[str, ...], Any]]


def extent(program: ControlProgram, variables: tuple[str, ...]) -> int | str:
    """The number of joint values of some of a program's variables; of vectors, the space that they span, as R^n."""
    sizes = [program.sizes[name] for name in variables]
    return f"R^{sum(sizes)}" if program.structure.gaussian else math.prod(sizes)


def policy_parts(program: ControlProgram, name: str, policy: Any) -> Parts:
    """What a decision's policy consists of: for each part its axes but time, and its array.

    Args:
        program: The program.
        name: The decision.
        policy: What an answer holds for it.
    """
    own = coordinate(name)
    if not program.structure.gaussian:
        return {f"policy_{name}": ((*program.scopes[name], name), policy)}
    axes = {"gain": (own, f"{name}_given"), "offset": (own,), "cov": (own, f"{own}_other")}
    return {f"policy_{name}_{part}": (axes[part], array) for part, array in policy._asdict().items()}


def value_parts(program: ControlProgram, value: Any) -> Parts:
    """The same for a value."""
    if not program.structure.gaussian:
        return {"value": (program.state, value)}
    axes: dict[str, tuple[str, ...]] = {"matrix": ("state", "state_other"), "vector": ("state",), "scalar": ()}
    return {f"value_{part}": (axes[part], array) for part, array in value._asdict().items()}


def sample_parts(name: str, drawn: Array) -> tuple[tuple[str, ...], np.ndarray]:
    """The axes beyond (draw, time) of a variable's draws, and the draws with at most one such axis."""
    array = np.asarray(drawn)
    return ((), array) if array.ndim == 2 else ((coordinate(name),), array.reshape(*array.shape[:2], -1))


def coordinate(name: str) -> str:
    """The name of the axis of a vector's coordinates."""
    return f"{name}_coordinate"


def labels(program: ControlProgram, names: Names) -> dict[str, list[str]]:
    """What the positions along axes are called: names of values, or of the coordinates of vectors.

    Args:
        program: The program.
        names: The names that are known, by variable.
    """
    if not program.structure.gaussian:
        return {name: list(known) for name, known in names.items()}
    own = {name: coordinates(program, names, name) for name in program.sizes}
    axes = {coordinate(name): known for name, known in own.items()}
    axes |= {f"{name}_given": sum((own[other] for other in scope), []) for name, scope in program.scopes.items()}
    axes["state"] = sum((own[name] for name in program.state), [])
    return axes | {f"{axis}_other": known for axis, known in axes.items()}


def coordinates(program: ControlProgram, names: Names, name: str) -> list[str]:
    """What the coordinates of one variable are called: by their own names, else by position."""
    size = program.sizes[name]
    return list(names.get(name, [f"{name}[{i}]" for i in range(size)] if size > 1 else [name]))


def difference(one: Any, other: Any) -> float:
    """The largest difference of any number in two policies."""
    parts = jax.tree.map(lambda a, b: np.abs(np.asarray(a) - np.asarray(b)).max(), one, other)
    return float(np.max(jax.tree.leaves(parts)))


@compiled
def scaled(factor: Any, answers: Any) -> Any:
    """Values and bounds in other units, all of them together."""
    return jax.tree.map(lambda array: factor * array, answers)
