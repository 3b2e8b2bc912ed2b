"""The law of a site given what stands before it, as arrays: a policy, as users hold it, one point at a time."""

import abc
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from rlinf_ppl.algebra.quadratics import AffinePolicy
from rlinf_ppl.algebra.small_matrices import cholesky
from rlinf_ppl.algebra.tables import ROW_TOLERANCE
from rlinf_ppl.program.checks import check_numbers
from rlinf_ppl.program.functions import Called, law_over, one_number
from rlinf_ppl.program.laws import FiniteLaw, GaussianLaw, SiteLaw
from rlinf_ppl.program.supports import FiniteSupport, Real, Support, is_finite, positions_of

Values = dict[str, Any]
Axes = tuple[tuple[str, Support], ...]


class Looked(eqx.Module):
    """An array over time (or without it) and finite variables, looked up at their values."""

    array: Array
    axes: Axes = eqx.field(static=True)
    timed: bool = eqx.field(static=True)

    def __call__(self, at: Values, t: Array) -> Array:
        """The entry at the values; axes of size 1 do not matter."""
        supports = [support for _, support in self.axes]
        places = [t] * self.timed + [position(support, at[name]) for name, support in self.axes]
        counts = [None] * self.timed + [len(support) for support in supports]
        sizes = zip(places, counts, self.array.shape, strict=False)
        # The whole of an axis is looked up as a user would write it, which readers of tables know.
        return self.array[tuple(i if n == size else jnp.minimum(i, size - 1) for i, n, size in sizes)]


class ConditionalLaw(eqx.Module):
    """The law of a site given what stands before it; its arrays are leaves."""

    @abc.abstractmethod
    def __call__(self, at: Values, t: Array, law: SiteLaw) -> SiteLaw:
        """The law.

        Args:
            at: the values of what stands before the site, by name; one of each.
            t: the time.
            law: the site's own, its prior.
        """


class Rows(ConditionalLaw):
    """Probabilities from an array, for the values of a site."""

    array: Looked
    support: FiniteSupport = eqx.field(static=True)

    @property
    def timed(self) -> bool:
        """Whether they vary in time."""
        return self.array.timed

    def __call__(self, at: Values, t: Array, law: SiteLaw) -> SiteLaw:
        """The row at the values."""
        return FiniteLaw(self.array(at, t), self.support)


class Affine(ConditionalLaw):
    """A Gaussian whose mean is affine in the variables side by side; gain, offset and factor lead with time, if any."""

    gain: Array
    offset: Array
    factor: Array
    names: tuple[str, ...] = eqx.field(static=True)
    support: Real = eqx.field(static=True)

    @property
    def timed(self) -> bool:
        """Whether they vary in time."""
        return self.gain.ndim == 3

    def __call__(self, at: Values, t: Array, law: SiteLaw) -> SiteLaw:
        """The Gaussian at the values."""
        gain, offset, factor = (x[t] if self.timed else x for x in (self.gain, self.offset, self.factor))
        mean = jnp.sum(gain * side_by_side(at, self.names)[None], -1) + offset
        return GaussianLaw(mean, factor, self.support)


class Tilted(ConditionalLaw):
    """A site's own law, moved by parameters that a function of the values and the time gives; see `SiteLaw.moved`."""

    parameters: Callable[..., Array]
    support: Support = eqx.field(static=True)

    def __call__(self, at: Values, t: Array, law: SiteLaw) -> SiteLaw:
        """The law."""
        return law.moved(self.parameters(at, t))


class Average(eqx.Module):
    """A site without some real numbers that it sees, and that nothing else depends on.

    Attributes:
        hidden: the name of these numbers.
        function: returns the law of the site where they are averaged out, and its mean entropy in nats given them.
    """

    hidden: str = eqx.field(static=True)
    function: Called

    def __call__(self, at: Values, t: Array, law: SiteLaw, support: Support) -> tuple[SiteLaw, Array]:
        """The law and the entropy.

        Raises:
            TypeError: the function returned something else.
        """
        found, what = self.function(at, t), self.function.what
        if not isinstance(found, tuple) or len(found) != 2:
            raise TypeError(
                f"{what} returned {type(found).__name__}; it must return a distribution and its mean entropy, a number."
            )
        return law_over(what, found[0], law, support), one_number(what, found[1])

    def alone(self, support: Support) -> "Proposed":
        """The law without the entropy."""
        return Proposed(Called(self.function.what, First(self.function.function), self.function.names), support, True)


class First(eqx.Module):
    """A function that returns the first of what another returns."""

    function: Callable[..., Any]

    def __call__(self, **values: Any) -> Any:
        """The first."""
        return self.function(**values)[0]


class Proposed(ConditionalLaw):
    """A function that returns the distribution of a site; `weighed` as in `law_over`."""

    function: Called
    support: Support = eqx.field(static=True)
    weighed: bool = eqx.field(static=True)
    average: Average | None = None

    def __call__(self, at: Values, t: Array, law: SiteLaw) -> SiteLaw:
        """The law of the distribution."""
        return law_over(self.function.what, self.function(at, t), law, self.support, self.weighed)


def as_conditional(structure: Any, name: str, entry: Any, what: str) -> Rows | Affine:
    """A decision's law from arrays.

    Args:
        structure: of the program.
        name: the decision.
        entry: (T, scope, K) probabilities, also without T, size 1 where they ignore an axis; (gain, offset, cov) of a
            Gaussian decision.
        what: what it was given as, for errors.

    Raises:
        TypeError: it holds no numbers.
        ValueError: it has other shapes, or rows that are no distributions.
    """
    supports, scope = structure.supports(), dict(structure.scopes)[name]
    law = structure.step.arithmetic.places.laws[name]
    if isinstance(law, GaussianLaw):
        return affine(structure, name, law.support, entry, what)
    support = supports[name]
    if not is_finite(support):
        raise ValueError(f"{name!r} is no Gaussian and has no table, so {what} must be a function.")
    other = [axis for axis in scope if not is_finite(supports[axis])]
    if other:
        raise ValueError(f"{name!r} depends on the real numbers {other}, so {what} must be a function.")
    array, timed = check_table(supports, what, entry, (*scope, name), structure.horizon)
    check_rows(what, array)
    return Rows(Looked(array, tuple((axis, supports[axis]) for axis in scope), timed), support)


def check_table(
    supports: dict[str, Support], what: str, entry: Any, axes: tuple[str, ...], times: int | None
) -> tuple[Array, bool]:
    """An array over time and finite variables, and whether it has the axis of time.

    Raises:
        TypeError: it holds no numbers.
        ValueError: it has another shape.
    """
    array = check_numbers(what, entry, "an array, such as a solution's policy or value, or a function")
    shape = tuple(len(supports[axis]) for axis in axes)
    timed = array.ndim == len(shape) + 1 and times is not None
    sizes = (times, *shape) if timed else shape
    if array.ndim != len(sizes) or any(n not in (1, m) for n, m in zip(array.shape, sizes, strict=True)):
        whole = shape if times is None else (times, *shape)
        named = ", ".join(axes if times is None else ("T", *axes))
        raise ValueError(
            f"{what} has shape {array.shape}; its axes are ({named}), so {whole}, with size 1 where it ignores an axis"
            f"{'' if times is None else ', and without T where it is stationary'}."
        )
    return array, timed


def check_rows(what: str, array: Array) -> None:
    """Raise where known rows are no distributions; also where a caller's jit is tracing."""
    if isinstance(array, jax.core.Tracer):
        return
    with jax.ensure_compile_time_eval():
        if not bool(jnp.all(array >= 0) & jnp.all(jnp.abs(array.sum(-1) - 1) <= ROW_TOLERANCE)):
            raise ValueError(f"{what} has rows that are no distributions: at least 0, with sum 1.")


def affine(structure: Any, name: str, support: Real, entry: Any, what: str) -> Affine:
    """The law of a Gaussian decision by its gain, offset and covariance."""
    names, m, steps = dict(structure.scopes)[name], len(support), structure.horizon
    supports = structure.supports()
    n = sum(len(supports[axis]) for axis in names)
    if not isinstance(entry, Sequence) or len(entry) != 3:
        raise ValueError(f"{what} must be (gain, offset, cov), or a function.")
    if not all(isinstance(supports[axis], Real) for axis in names):
        raise ValueError(f"{name!r} depends on {list(names)}, not all real, so {what} must be a function.")
    arrays, leading = [], () if steps is None else (steps,)
    for part, array, shape in zip(AffinePolicy._fields, entry, ((m, n), (m,), (m, m)), strict=True):
        given = jnp.asarray(array, dtype=float)
        if given.shape not in (shape, (*leading, *shape)):
            raise ValueError(f"{what}.{part} has shape {given.shape}; it must be {(*leading, *shape)}.")
        arrays.append(jnp.broadcast_to(given, (*leading, *shape)))
    factor = cholesky if steps is None else jax.vmap(cholesky)
    return Affine(arrays[0], arrays[1], factor(arrays[2]), names, support)


def position(support: Support, value: Any) -> Array:
    """The position of a value in a finite support; one of 0, 1, ... as it is."""
    plain = isinstance(support, range) and support.start == 0
    return jnp.asarray(value).astype(int) if plain else positions_of(support, value)


def side_by_side(at: Values, names: tuple[str, ...]) -> Array:
    """Real variables as one vector."""
    return jnp.concatenate([jnp.zeros(0), *(jnp.reshape(at[name], -1) for name in names)])
