"""A convex dual over multipliers and tilts, and how far from its minimum a point is."""

from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlinf_ppl.inference.bounds.conjugate import largest
from rlinf_ppl.inference.bounds.results import NOTHING


class Point(NamedTuple):
    """Where the dual is evaluated, or a direction from there.

    Attributes:
        x: logs of the multipliers, (B, T) for B bounds a step; the tilts are those of the first.
        tilt: a pytree of arrays that lead with T; an empty one where only policies are bounded.
    """

    x: Float[Array, "B T"]
    tilt: Any


class Evaluation(NamedTuple):
    """The dual at a point.

    Attributes:
        value: g; NaN where there is none.
        slope: its derivative in x and, at fixed multipliers, in the tilts.
        excess: what is spent beyond each bound, (B, T), beside the bound.
        worth: the sum of all multipliers times their bounds.
        rounding: how large the numbers are that g is a sum of.
        found: what else was found there.
    """

    value: Float[Array, ""]
    slope: Point
    excess: Float[Array, "B T"]
    worth: Float[Array, ""]
    rounding: Float[Array, ""]
    found: Any


class Dual(eqx.Module):
    """A convex dual."""

    @abstractmethod
    def begin(self) -> tuple[Point, Evaluation | None]:
        """Where to begin, a point with a value; and the dual there, where that is its minimum already."""

    @property
    def goal(self) -> float:
        """How far from optimal is near enough; 0: as near as the dtype allows."""
        return 0.0

    @property
    def is_exact(self) -> bool:
        """Whether `precondition` is by the Hessian itself."""
        return False

    @abstractmethod
    def evaluate(self, at: Point) -> Evaluation:
        """The dual at a point."""

    def moved(self, tilt: Any, step: Any) -> Any:
        """Tilts after a step, to first order the sum of both."""
        return jax.tree.map(jnp.add, tilt, step)

    @abstractmethod
    def precondition(self, at: Point, evaluation: Evaluation, slope: Point, ridge: Float[Array, "B T"]) -> Point:
        """About the Newton step for a slope: symmetric, positive definite; the ridge is added for the multipliers."""


@jax.jit
def evaluate(dual: Dual, at: Point) -> Evaluation:
    """The dual at a point; its program is read once for all who ask in one structure."""
    return dual.evaluate(at)


def distance(here: Evaluation) -> Float[Array, ""]:
    """How far from optimal: the largest slope beside what the bounds are worth together, or excess over a bound."""
    slopes = jnp.maximum(jnp.max(jnp.abs(here.slope.x)), largest(here.slope.tilt)) / size_of(here)
    return jnp.maximum(jnp.max(jnp.maximum(here.excess, 0.0)), slopes)


def size_of(here: Evaluation) -> Float[Array, ""]:
    """What slopes are measured by: what the bounds are worth together; where they are slack, a part of the value."""
    return here.worth + NOTHING * here.rounding


def per_time(s: Float[Array, " T"], like: Float[Array, "T ..."]) -> Float[Array, "T ..."]:
    """A number for each time that multiplies what leads with time."""
    return s.reshape(-1, *[1] * (like.ndim - 1))
