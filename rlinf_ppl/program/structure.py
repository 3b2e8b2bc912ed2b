"""What a program is without its numbers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array

from rlinf_ppl.algebra.chain import TIME
from rlinf_ppl.program.changes import Changes, as_final, as_initial, as_step, check_times, vary
from rlinf_ppl.program.checks import (
    check_discount,
    check_endless,
    check_forms,
    check_functions,
    check_horizon,
    check_sizes,
    state_order,
    state_supports,
)
from rlinf_ppl.program.forms import Form
from rlinf_ppl.program.sight import sight_of
from rlinf_ppl.program.supports import Real, Support
from rlinf_ppl.program.tracing import check_call, trace_part

Functions = tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any] | None]
Constants = tuple[tuple[Array, ...], tuple[Array, ...], tuple[Array, ...]]


class Structure(NamedTuple):
    """A program without its numbers: hashable, equal for programs of one shape.

    Attributes:
        initial, step, final: what was traced.
        state: the state variables and their values, in order.
        carried, scopes, hidden, together: see `Sight`.
        horizon: number of steps; None: without end.
        takes_time: whether the step takes t.
        discounted: whether there is a discount.
    """

    initial: Form
    step: Form
    final: Form | None
    state: tuple[tuple[str, Support], ...]
    carried: tuple[str, ...]
    scopes: tuple[tuple[str, tuple[str, ...]], ...]
    hidden: tuple[tuple[str, tuple[str, ...]], ...]
    together: tuple[tuple[str, tuple[str, ...]], ...]
    horizon: int | None
    takes_time: bool
    discounted: bool

    @classmethod
    def traced(
        cls, functions: Functions, args: tuple[Any, ...], changes: Changes, horizon: Any, discount: Any, sizes: Any
    ) -> "tuple[Structure, Constants]":
        """What one abstract trace of initial, step and final finds, and the arrays that each of them holds.

        Raises:
            TypeError, ValueError: where it finds a mistake.
        """
        initial, step, final = functions
        steps, number, read = check_horizon(horizon), len(args), (args, changes)
        check_functions(*functions)
        check_times(args, steps)
        check_call("initial", initial, number, ())
        first, first_held = trace_part("initial", as_initial(initial), read, {}, None)
        order, timed = state_order(step, number, [form.name for form in first.following])
        state = state_supports(first, order, check_sizes(sizes))
        check_call("step", step, number, (*state, *["t"] * timed))
        timed = timed or vary(args) or changes.timed
        if steps is None:
            check_endless(check_discount(discount), final, timed)
        times = range(steps or 1) if timed else None
        every, step_held = trace_part("step", as_step(step, number), read, state, order, times)
        last: Form | None = None
        last_held: tuple[Array, ...] = ()
        if final is not None:
            check_call("final", final, number, tuple(state))
            last, last_held = trace_part("final", as_final(final, steps), read, state, None)
        check_forms(first, every, last)
        sight = sight_of(first, every, last, order)
        discounted = steps is None or isinstance(discount, jax.core.Tracer) or float(discount) != 1.0
        structure = cls(first, every, last, tuple(state.items()), *sight, steps, timed, discounted)
        return structure, (first_held, step_held, last_held)

    @property
    def gaussian(self) -> bool:
        """Whether the variables are vectors of real numbers."""
        return any(isinstance(support, Real) for support in self.supports().values())

    def times(self) -> dict[str, Support]:
        """The values of the time index by its name; nothing where the horizon has no end."""
        return {} if self.horizon is None else {TIME: range(self.horizon)}

    def supports(self) -> dict[str, Support]:
        """The values of each state variable and of each latent site of the step, in program order."""
        return dict(self.state) | self.step.supports()
