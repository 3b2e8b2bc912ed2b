"""The letters that name the axes of arrays, and what public constructors accept as an array.

Shapes are written in signatures as `Float[Array, "T S A"]`. One letter means one thing everywhere:

| letter | axis |
| --- | --- |
| `T` | time: the actions of a finite horizon; states, having one more row, are written `T+1` |
| `S` | states; where a state appears twice, the first is now and the last is next |
| `A` | actions of the agent |
| `B` | actions of the opponent |
| `K` | outcomes: the values that a chance site, or one row of a sparse transition, can take |
| `M` | options |
| `O` | observations; in games of two, what the agent alone sees |
| `P` | what the opponent alone sees |
| `Y` | what both see |
| `R` | rewards that may be paid |
| `N` | particles, or trajectories sampled |
| `n`, `m` | dimensions of a continuous state and of a continuous action |

Time leads, what is conditioned on comes next, and what is distributed comes last: a transition is `(S, A, S)`, a
policy `(T, S, A)`, and summing either over its last axis gives ones.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

__all__ = ["ArrayLike", "RealNumber"]

ArrayLike: TypeAlias = jax.typing.ArrayLike | Sequence[Any]
"""A JAX array (traced or not), a NumPy array, a Python number, or sequences of these nested to any depth."""

RealNumber: TypeAlias = float | int | np.floating | np.integer
"""One concrete number, as Python or NumPy writes it."""
