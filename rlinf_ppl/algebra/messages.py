"""What the elimination asks of an algebra: messages about named variables, laws that they meet, and the next state.

    Message     W, a function of named variables, while a step is walked
    Whole       a message that is one array: what goes from step to step, factors, inverse temperatures
    Law         the law of one variable given others
    Arrival     how the next state depends on the variables of a step

Nothing else is asked, so any family of functions that these methods do not leave can be an algebra. There are two:
tables (`tables`, `arrivals`; `columns` is a faster form) and quadratics (`quadratics`, `gaussians`, `affine`;
`squares` is one that keeps more digits). Fields are declared as properties, for the type checker alone.
"""

import dataclasses
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import equinox as eqx
import jax
from jaxtyping import Array, Float

from rlinf_ppl.algebra.fixed_point import Linearized

TIME = "t"

N = TypeVar("N", bound="Named")
M = TypeVar("M", bound="Message")
W = TypeVar("W", bound="Whole")
L = TypeVar("L", bound="Law")
Step = TypeVar("Step")


class Rounding(NamedTuple):
    """What rounding may have done to a message and to all that led to it.

    Attributes:
        absolute: how far its constant may be off.
        relative: how far pivots may be off, hence covariances, and gains in units of the noise.
    """

    absolute: Float[Array, "..."]
    relative: Float[Array, "..."]


class Named(eqx.Module):
    """Arrays over named variables, its `axes`; where the first is the time, every array leads with the axis of time."""

    if TYPE_CHECKING:

        @property
        @abstractmethod
        def axes(self) -> tuple[str, ...]:
            """The variables in order."""

    @property
    def timed(self) -> bool:
        """Whether there is one of it for each time."""
        return self.axes[:1] == (TIME,)

    def renamed(self: N, axes: tuple[str, ...]) -> N:
        """The same arrays over other names."""
        return dataclasses.replace(self, axes=axes)  # type: ignore[call-arg]


class Integrand(eqx.Module, Generic[L]):
    """What can be averaged over a variable."""

    @abstractmethod
    def mean(self, law: L) -> "Message[Any, L]":
        """E[W | parents]."""

    @abstractmethod
    def log_mean(self, law: L, tau: Any) -> "Message[Any, L]":
        """(1 / tau) log E[exp(tau W) | parents]; tau None: 1."""


class Message(Named, Integrand[L], Generic[W, L]):
    """A function W of named variables, each of whose methods gives another one; what they share depends on their union.

    W is the type of whole messages in the same algebra, L that of its laws.
    """

    @abstractmethod
    def __add__(self: M, other: W) -> M:
        """The sum; each may depend on variables that the other does not."""

    @abstractmethod
    def __sub__(self: M, other: W) -> M:
        """The difference."""

    @abstractmethod
    def mean(self: M, law: L) -> M:
        """E[W | parents]."""

    @abstractmethod
    def log_mean(self: M, law: L, tau: W | None) -> M:
        """(1 / tau) log E[exp(tau W) | parents]; tau None: 1."""

    @abstractmethod
    def tilt(self: M, law: L, tau: W | None = None) -> tuple[M, L]:
        """max_q E_q W - cost(q) / tau over laws q of one variable, and the q that attains it.

        With the cost KL(q || p) that is (1 / tau) log E[exp(tau W) | parents] and p exp(tau W) / Z.
        """

    @abstractmethod
    def equilibrium(self: M, laws: tuple[L, ...], taus: tuple[W | None, ...]) -> tuple[M, tuple[L, ...], Array]:
        """The same of several laws at once, each against the others: the value, the laws and how nearly they do."""

    @abstractmethod
    def gated(self, name: str) -> Integrand[Any]:
        """0 where the Bernoulli variable `name` is 0, W where it is 1."""

    @property
    @abstractmethod
    def whole(self) -> W:
        """The function as one array."""

    @abstractmethod
    def over(self, axes: tuple[str, ...], size: dict[str, int]) -> W:
        """The function of all of `axes` in this order, as one array."""


class Whole(Message[W, L]):
    """A message that is one array."""

    if TYPE_CHECKING:

        @property
        @abstractmethod
        def array(self) -> Array:
            """The array."""

    @property
    def whole(self) -> Any:
        """The message itself."""
        return self

    def renewed(self: M, array: Array) -> M:
        """The same variables with another array."""
        return dataclasses.replace(self, array=array)  # type: ignore[call-arg]

    def stacked(self, array: Array) -> Any:
        """Messages of the same variables at several times, from their arrays stacked."""
        return self.renewed(array).renamed((TIME, *self.axes))

    def over_time(self, axes: tuple[str, ...], size: dict[str, int]) -> Any:
        """`over`, at each time where there are several."""
        if not self.timed:
            return self.over(axes, size)
        one = self.renewed(self.array[0]).renamed(self.axes[1:])
        return one.over(axes, size).stacked(
            jax.vmap(lambda array: one.renewed(array).over(axes, size).array)(self.array)
        )

    def log_mean(self: M, law: L, tau: W | None) -> M:
        """(1 / tau) log E[exp(tau W) | parents], which is what tilting leaves."""
        return self.tilt(law, tau)[0]

    @property
    @abstractmethod
    def constant(self) -> Array:
        """The value of a function of nothing."""

    @abstractmethod
    def filled(self: M, value: Array) -> M:
        """A function of nothing with another value."""

    @abstractmethod
    def divided(self: M, divisor: W | None) -> M:
        """The message divided by a function of nothing; None: by 1."""

    @abstractmethod
    def rows(self, at: dict[str, Array]) -> Array:
        """Its values (n,) at n values of its variables."""

    @abstractmethod
    def expectation(self, weights: Array) -> Array:
        """Its mean, from its derivative in the array: probabilities, or second moments."""

    @property
    @abstractmethod
    def monotone(self) -> bool:
        """Whether a larger message has a larger array, entry by entry."""

    @property
    def rounding(self) -> Rounding | None:
        """What rounding may have done; None where that is not counted."""
        return None

    @property
    def counting(self: M) -> M:
        """The same, and its rounding is counted from here on where its algebra needs that."""
        return self

    def shifted(self: M, origin: dict[str, Array]) -> M:
        """The same with vectors counted from other origins."""
        return self


class Law(eqx.Module, Generic[W]):
    """The law of the variable `name` given others; its messages are of type W."""

    if TYPE_CHECKING:

        @property
        @abstractmethod
        def name(self) -> str:
            """The variable."""

    @abstractmethod
    def cost(self, q: Any) -> W:
        """What it costs in nats to follow q instead: a function of what either depends on."""

    def tilted(self: L, theta: W) -> tuple[L, W, W]:
        """The law tilted by exp(theta), log Z of it, and what it costs in nats to follow it instead."""
        log_z, q = theta.tilt(self)
        return q, log_z, theta.mean(q) - log_z

    @property
    @abstractmethod
    def normals(self) -> int:
        """How many standard normals a draw takes; 0: one uniform."""

    @abstractmethod
    def draw(self, noise: Array, at: dict[str, Array], message: W | None, tau: Array | float) -> Array:
        """Values (n,) or (n, size) drawn from the law, or from the law tilted by exp(tau message)."""

    def follow(self: L, reply: L) -> L:
        """A law found for this variable, in its own terms where it was walked as something else."""
        return reply

    def shifted(self: L, origin: dict[str, Array]) -> L:
        """The same with vectors counted from other origins."""
        return self


class Arrival(eqx.Module, Generic[W, L]):
    """How the next state depends on the variables of a step.

    Attributes:
        sources: for each state variable, the variable of the step that becomes its next value, or None.
    """

    if TYPE_CHECKING:

        @property
        @abstractmethod
        def sources(self) -> tuple[tuple[str, str | None], ...]:
            """By state variable."""

    @abstractmethod
    def pull(self, v: Any) -> Message[W, L]:
        """The message about the next state, from `following`, as a function of the variables of this step."""

    @abstractmethod
    def positions_at(self, at: dict[str, Array]) -> dict[str, Array]:
        """The next state from values (n,) or (n, size) of the variables of this step."""

    def following(self, v: W) -> Message[W, L]:
        """A message about the next state in the form that `pull` takes."""
        return v

    def quickest(
        self, sites: Step, state: dict[str, int], others: dict[str, int], repeated: bool, free: tuple[str, ...]
    ) -> "tuple[Step, Arrival[W, L]]":
        """The sites and the arrival in the form that is walked fastest.

        Args:
            sites: the sites of the step.
            state: the sizes of the state variables that the value depends on.
            others: those of the sites.
            repeated: whether the step is walked many times over.
            free: decisions whose policies nothing else depends on: they may be walked as something else, which
                `Law.follow` translates back.
        """
        return sites, self

    @abstractmethod
    def linearized(
        self,
        before: Callable[[Array], Message[W, L]],
        after: Callable[[Message[W, L]], Array],
        v: Array,
        state: tuple[str, ...],
    ) -> Linearized:
        """A whole step at v and its derivative.

        Args:
            before: pulls the next message v.
            after: walks the step.
            v: over the variables in `state`.
            state: the state variables that the value depends on.
        """
