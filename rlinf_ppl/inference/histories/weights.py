"""The weight of what is seen of a site: its law at the known values, over the hidden variables that it depends on."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from rlinf_ppl.algebra.tables import Table
from rlinf_ppl.inference.histories.masses import Weight, certain
from rlinf_ppl.program.conditionals import ConditionalLaw
from rlinf_ppl.program.forms import SiteForm
from rlinf_ppl.program.laws import FiniteLaw, SiteLaw
from rlinf_ppl.program.point import Part, Point, over_values
from rlinf_ppl.program.supports import is_finite, positions_of

Names = tuple[str, ...]
Values = dict[str, Any]


class Here(NamedTuple):
    """A part of a program where some values are known.

    Attributes:
        part: the part.
        at: the values that are known.
        supports: the values of every variable.
        policy: the laws of decisions in the place of their own.
        weight: how optimality counts; None: it does not.
        steps: how many times a part is gone through.
    """

    part: Part
    at: Values
    supports: dict[str, Any]
    policy: dict[str, ConditionalLaw]
    weight: Weight | None = None
    steps: int = 1

    def over(self, axes: Names, pick: Callable[[Point, Values], Any]) -> Any:
        """Something about the part at the known values, over all values of some hidden variables."""
        return over_values(self.supports, axes, lambda values: pick(self.part.at(self.at | values), self.at | values))

    def law(self, point: Point, at: Values, site: SiteForm) -> SiteLaw:
        """The law of a site at a point."""
        law = point.law(site.name)
        return self.policy[site.name](at, at["t"], law) if site.name in self.policy else law

    def density(self, site: SiteForm, axes: Names) -> tuple[Table, Table]:
        """The weight of a known site as a probability and the log of a density, one of them trivial."""
        if not axes and self.tabulates(site):
            return Table((), self.tabulated(site)), Table((), jnp.zeros(()))

        def one(point: Point, at: Values) -> tuple[Array, Array]:
            law = self.law(point, at, site)
            wrong = law.is_wrong() | point.beyond("laws", site.name)
            if isinstance(law, FiniteLaw):
                place = positions_of(law.support, at[site.name])
                # A sum over few values: slopes of a look-up would be written one by one.
                p = jnp.sum(jnp.where(jnp.arange(len(law.support)) == place, law.probs, 0.0))
                return jnp.where(wrong | (place >= len(law.support)), jnp.nan, p), jnp.zeros(())
            return jnp.ones(()), jnp.where(wrong, jnp.nan, law.log_prob(at[site.name]))

        p, log_p = self.over(axes, one)
        return Table(axes, p), Table(axes, log_p)

    def tabulates(self, site: SiteForm) -> bool:
        """Whether its own law has hardly more rows than there are steps: then it is made once, and looked up."""
        supports = [self.part.supports[name] for name in site.parents]
        if site.name in self.policy or not all(is_finite(support) for support in (*supports, site.support)):
            return False
        return math.prod(len(support) for support in supports) <= 2 * self.steps

    def tabulated(self, site: SiteForm) -> Array:
        """The probability of a known site from the table of its law; NaN where that is none."""

        def row(point: Point) -> tuple[Array, Array]:
            law = point.law(site.name)
            assert isinstance(law, FiniteLaw)
            return law.probs, law.is_wrong() | point.beyond("laws", site.name)

        probs, wrong = self.part.over(site.parents, row)
        names = [(name, self.part.supports[name]) for name in site.parents]
        places = tuple(positions_of(support, self.at[name]) for name, support in names)
        place = positions_of(site.support, self.at[site.name])
        sizes = zip((*places, place), probs.shape, strict=True)
        outside = functools.reduce(jnp.logical_or, (each >= size for each, size in sizes))
        inside = tuple(jnp.where(outside, 0, each) for each in (*places, place))
        return jnp.where(outside | wrong[inside[:-1]], jnp.nan, probs[inside])

    def factor(self, site: SiteForm, axes: Names) -> tuple[Table, Table]:
        """The weight of data inside of the program."""

        def one(point: Point, _: Values) -> Array:
            return jnp.where(point.beyond("factors", site.name), jnp.nan, point.factor(site.name))

        log_p = self.over(axes, one)
        if site.tempered and self.weight is not None:
            log_p = self.weight.of(log_p, self.at["t"])
        return Table(axes, jnp.ones_like(log_p)), Table(axes, log_p)

    def probabilities(self, site: SiteForm, axes: Names) -> Table:
        """Those of all values of a finite site."""

        def one(point: Point, at: Values) -> Array:
            law = self.law(point, at, site)
            assert isinstance(law, FiniteLaw)
            return jnp.where(law.is_wrong() | point.beyond("laws", site.name), jnp.nan, law.probs)

        return Table((*axes, site.name), self.over(axes, one))

    def agrees(self, name: str, axes: Names, value: Any) -> tuple[Table, Table]:
        """Whether the next value of a state variable is the one that was seen."""

        def one(point: Point, _: Values) -> Array:
            pairs = zip(jax.tree.leaves(point.following(name)), jax.tree.leaves(value), strict=True)
            return jnp.all(jnp.stack([jnp.all(one == other) for one, other in pairs])).astype(float)

        return certain(Table(axes, self.over(axes, one)))

    def place(self, name: str, axes: Names) -> Table:
        """The position of the next value of a hidden state variable; outside of its support its size."""
        support = self.supports[name]

        def one(point: Point, _: Values) -> Array:
            return jnp.where(
                point.beyond("following", name), len(support), positions_of(support, point.following(name))
            )

        return Table(axes, self.over(axes, one))
