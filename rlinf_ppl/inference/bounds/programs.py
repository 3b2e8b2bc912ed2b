"""A program whose step pays for leaving laws of the state, and for being certain: see `tilting`."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from jaxtyping import Array

from rlinf_ppl.inference.bounds.tilting import Laws, Tilt
from rlinf_ppl.program import ControlProgram, optimality, over_time
from rlinf_ppl.program.changes import is_over_time
from rlinf_ppl.program.language import DECISION
from rlinf_ppl.program.supports import Support, is_finite


class Extra(eqx.Module):
    """What the step of a bounded program reads beside what it read before; arrays over time.

    Attributes:
        unit: the inverse temperature where the sum of the multipliers is 1.
        alpha, beta: the multipliers of the two bounds.
        constant: A_t.
        tilt: the tilts.
        own: what the laws read.
    """

    unit: Any
    alpha: Any
    beta: Any
    constant: Any
    tilt: Any
    own: Any


@dataclass(frozen=True)
class Around:
    """`initial` or `final` of a program, which read nothing more."""

    function: Callable[..., Any]

    def __call__(self, extra: Extra, /, *args: Any, **state: Any) -> Any:
        """The same."""
        return self.function(*args, **state)

    @property
    def __signature__(self) -> inspect.Signature:
        return with_extra(self.function)


@dataclass(frozen=True)
class BoundedStep:
    """The step of a program with what leaving the laws of the state costs, and what certainty does."""

    function: Callable[..., Any]
    laws: type[Laws]
    supports: tuple[tuple[str, Support], ...]
    entropy: bool

    def __call__(self, extra: Extra, /, *args: Any, **state: Any) -> Any:
        """The step, and two factors."""
        ratio = self.laws.log_ratio(self.supports, extra.own, extra.tilt, state)
        optimality(-extra.alpha * (ratio - extra.constant), name="state_bound")
        if not self.entropy:
            return self.function(*args, **state)
        with numpyro.handlers.trace() as sites:
            returned = self.function(*args, **state)
        for name, site in sites.items():
            if site["type"] == "sample" and site["infer"].get(DECISION):
                log_prob = site["fn"].log_prob(site["value"])
                if site["fn"].is_discrete:
                    # What has no probability is not done, whatever it is worth.
                    log_prob = jnp.where(jnp.isfinite(log_prob), log_prob, 0.0)
                optimality(-extra.beta * log_prob, name=f"{name}_entropy_bound")
        return returned

    @property
    def __signature__(self) -> inspect.Signature:
        return with_extra(self.function)


def with_extra(function: Callable[..., Any]) -> inspect.Signature:
    """A signature with one argument more, the first one."""
    own = inspect.signature(function)
    first = inspect.Parameter("_extra", inspect.Parameter.POSITIONAL_ONLY)
    return own.replace(parameters=[first, *own.parameters.values()])


def with_bounds(program: ControlProgram, laws: Laws, entropy: bool) -> ControlProgram:
    """A program whose step pays for leaving laws of the state; `set_multipliers` says how much.

    Args:
        program: with decisions whose inverse temperature is 1.
        laws: at each step.
        entropy: whether certainty is paid for, too.
    """
    horizon = program.horizon
    assert horizon is not None
    supports = program.structure.state
    zeros, own = jnp.zeros(horizon), program.changes.factor
    extra = Extra(zeros + (1.0 if own is None else own), zeros, zeros, zeros, laws.nothing(), laws.read())
    return ControlProgram(
        Around(program.initial), BoundedStep(program.step, type(laws), supports, entropy), horizon, program.discount,
        None if program.final is None else Around(program.final),
        (jax.tree.map(over_time, extra), *program.args),
        {name: len(support) for name, support in supports if is_finite(support)},
        program.changes,
    ).tempered(jnp.ones(horizon))  # fmt: skip


def set_multipliers(program: ControlProgram, alpha: Array, beta: Array, constant: Array, tilt: Tilt) -> ControlProgram:
    """A program of `with_bounds` with these numbers, and the inverse temperature 1 / (alpha + beta)."""

    def of(extra: Extra) -> tuple[Any, ...]:
        return extra.alpha, extra.beta, extra.constant, extra.tilt

    factor = program.args[0].unit.rows / (alpha + beta)
    numbers = jax.tree.map(over_time, (alpha, beta, constant, tilt))
    args = (eqx.tree_at(of, program.args[0], numbers, is_leaf=is_over_time), *program.args[1:])
    return eqx.tree_at(lambda each: (each.args, each.changes.factor), program, (args, factor), is_leaf=is_over_time)
