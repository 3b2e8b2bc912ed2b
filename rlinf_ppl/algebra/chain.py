"""A program as the elimination sees it: laws and factors in program order, in one algebra or another."""

import dataclasses
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from rlinf_ppl.algebra.compiled import in_all_digits
from rlinf_ppl.algebra.messages import TIME, Arrival, Law, Whole

# The kinds of sites that have no value of their own.
FACTORS = ("optimality", "data")


class Site(eqx.Module):
    """One site of a step: a decision or chance site with its law, or a factor with its log probability.

    A factor is optimality or data, in units of optimality both. `together` are the decisions just before a decision
    that it is taken together with.
    """

    name: str = eqx.field(static=True)
    kind: str = eqx.field(static=True)
    content: Law[Any] | Whole[Any, Any]
    inverse_temperature: Whole[Any, Any] | None = None
    together: tuple[str, ...] = eqx.field(static=True, default=())

    @property
    def is_factor(self) -> bool:
        """Whether it is optimality or data: a log probability, and no variable."""
        return self.kind in FACTORS

    @property
    def law(self) -> Any:
        """The law of a decision or chance site."""
        assert isinstance(self.content, Law)
        return self.content

    @property
    def factor(self) -> Any:
        """The log probability of a factor, in units of optimality."""
        assert isinstance(self.content, Whole)
        return self.content


class Slice(eqx.Module):
    """The sites of `initial` or `step` in program order, and how the next state depends on them.

    The arrival decides the algebra of a walk, since the walk starts from the message that it pulls.
    """

    sites: tuple[Site, ...]
    arrival: Arrival[Any, Any]


class Chain(eqx.Module):
    """A program read as laws and factors: structure static, arrays leaves.

    Attributes:
        initial: chance sites that lead to the first state.
        step: one step; what varies with time has a leading time axis of length `horizon`.
        final: factors of the last state.
        alive: the chance site before every step but the first, or None without a discount.
        valid: whether every law is a distribution, every factor finite, every next value inside its support.
        horizon: the number of steps T; None: without end.
        state: the state variables in order.
        carried: those of them that the value depends on.
        scopes: for each decision the variables that its policy depends on.
        hidden: for decisions that do not see all that what follows depends on, what that is.
        sizes: number of values, or of coordinates, of each state variable and site.
        zero: the message of nothing to come.
        origin: where vectors are counted from, by variable, in the user's coordinates: numbers stay small, and the
            difference of two far away is taken by the user's own arithmetic. Nothing for finite variables.
        precision: that of the arithmetic which read the laws and factors of vectors.
        impossible: of vectors, whether data of each step, and last of the end, have probability zero whatever the
            variables are; these are left out of the factors.
    """

    initial: Slice
    step: Slice
    final: tuple[Site, ...]
    alive: Site | None
    valid: Array
    horizon: int | None = eqx.field(static=True)
    state: tuple[str, ...] = eqx.field(static=True)
    carried: tuple[str, ...] = eqx.field(static=True)
    scopes: tuple[tuple[str, tuple[str, ...]], ...] = eqx.field(static=True)
    sizes: tuple[tuple[str, int], ...] = eqx.field(static=True)
    zero: Whole[Any, Any]
    origin: dict[str, Array] = eqx.field(default_factory=dict)
    precision: float = eqx.field(static=True, default=0.0)
    impossible: Array = eqx.field(default_factory=lambda: jnp.zeros(1, bool))
    hidden: tuple[tuple[str, tuple[str, ...]], ...] = eqx.field(static=True, default=())

    @property
    @in_all_digits
    def counting(self) -> "Chain":
        """The same program, walked with a count of its rounding where its algebra needs one."""
        return eqx.tree_at(lambda chain: chain.zero, self, self.zero.counting)

    def quickest(self, policies: bool = False) -> "Chain":
        """The same program in the form that is walked fastest.

        Args:
            policies: whether a walk tilts at every decision and keeps the policies of the step only, which are then
                what `follow` of their priors takes.
        """
        size, seen = self.size(), {name for _, scope in self.scopes for name in scope}
        free = tuple(name for name, _ in self.scopes if name not in seen) if policies else ()
        others = {site.name: size[site.name] for site in self.step.sites if not site.is_factor}
        state, endless = {name: size[name] for name in self.carried}, self.horizon is None
        step = self.step.arrival.quickest(self.step.sites, state, others, endless, free)
        return dataclasses.replace(self, step=Slice(*step))

    @property
    def survival(self) -> Array:
        """The probabilities to be dead and alive at the next step, where there is a discount."""
        assert self.alive is not None
        return self.alive.law.table.array

    @property
    def home(self) -> dict[str, Array]:
        """The user's origin in the coordinates of this chain."""
        return {name: -x for name, x in self.origin.items()}

    @property
    def times(self) -> tuple[str, ...]:
        """The axis that tables over time lead with: none where a horizon without end has one table for all times."""
        return () if self.horizon is None else (TIME,)

    def size(self) -> dict[str, int]:
        """Number of values or coordinates of each state variable and site, and of times."""
        return dict(self.sizes) | ({} if self.horizon is None else {TIME: self.horizon})

    def axes(self) -> dict[str, tuple[str, ...]]:
        """For each decision the axes of its policy: scope, then its own."""
        return {name: (*scope, name) for name, scope in self.scopes}

    def priors(self) -> dict[str, Any]:
        """The decisions' priors."""
        return {site.name: site.law for site in self.step.sites if site.kind == "decision"}
