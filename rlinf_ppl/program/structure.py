"""What a program is without its numbers."""

from typing import NamedTuple

from rlinf_ppl.algebra.chain import TIME
from rlinf_ppl.program.forms import Form
from rlinf_ppl.program.supports import Real, Support


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
