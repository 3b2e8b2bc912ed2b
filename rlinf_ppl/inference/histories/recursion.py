"""The recursion over time of what is hidden, given what was seen so far: one sequence, one step, one site at a time.

With m the probabilities of the hidden variables given all that was seen before, an observed site of law p(x | h) scores

    log sum_h m(h) p(x | h),        and leaves        m(h) <- m(h) p(x | h) / sum,

a hidden site multiplies m by its law and gains an axis, and what nothing later depends on is summed out. Laws are the
program's own arithmetic at the values that are known, over the hidden variables that they depend on and no others:
where all is known a site is one look-up, and a state variable is the number that the step computes.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from rlinf_ppl.algebra.tables import Table, union
from rlinf_ppl.inference.histories.masses import Known, Seen, Weight, ahead_of, at_row, certain, ended, met, times
from rlinf_ppl.inference.histories.plan import Names, Plan, axes_of
from rlinf_ppl.program.conditionals import ConditionalLaw
from rlinf_ppl.program.forms import Form, SiteForm
from rlinf_ppl.program.laws import FiniteLaw, SiteLaw
from rlinf_ppl.program.point import Part, Point, over_values
from rlinf_ppl.program.structure import Structure
from rlinf_ppl.program.supports import first_value, is_finite, positions_of

Values = dict[str, Any]
Terms = dict[str, Array]


class Histories(eqx.Module):
    """A program whose trajectories were seen in part.

    Attributes:
        structure: of the program.
        plan: what is done with each variable.
        steps: how many steps were seen.
        parts: initial and step with their numbers.
        policy: the laws of decisions in the place of their own.
        weight: how optimality counts, where all that was seen counts together; None: it does not.
    """

    structure: Structure = eqx.field(static=True)
    plan: Plan = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    parts: dict[str, Part]
    policy: dict[str, ConditionalLaw]
    weight: Weight | None = None

    def terms(self, states: dict[str, Seen], sites: dict[str, Seen], length: Array | None) -> Terms:
        """The terms of one sequence over time, 0 where nothing was seen.

        Args:
            states: state variables over time, with T + 1 rows or T.
            sites: sites of the step, with T rows.
            length: how many steps there are; None: T.
        """
        (_, never), (terms, lost), _ = self.over_time(states, sites, length)
        lost = lost.at[0].set(lost[0] | never)
        return {name: ended(term, lost, length) for name, term in terms.items()}

    def over_time(
        self, states: dict[str, Seen], sites: dict[str, Seen], length: Array | None
    ) -> tuple[tuple[Terms, Array], tuple[Terms, Array], Known]:
        """The terms of the first state and of all steps, each with what cannot have been; and what is known last."""
        time = jnp.arange(self.steps)
        now = jax.tree.map(lambda x: x[: self.steps], (states, sites))
        ahead = {name: ahead_of(seen, self.steps, length) for name, seen in states.items()}
        here, first, never = self.begun({name: at_row(seen, 0) for name, seen in states.items()})

        def body(before: Known, row: Any) -> tuple[Known, tuple[Terms, Array]]:
            t, (state, site), following = row
            known, terms, lost = self.step(before, t, state, site, following)
            return known, (terms, lost)

        rows = time, now, ahead
        if not self.plan.computed and not self.plan.hidden:
            last, every = here, jax.vmap(lambda row: body(here, row)[1])(rows)
        else:
            last, every = lax.scan(body, here, rows)
        return (first, never), every, last

    def begun(self, states: dict[str, Seen]) -> tuple[Known, Terms, Array]:
        """What is known of the first state, its terms, and whether it cannot have been."""
        seen = {site: states[state] for site, state in self.plan.initial.sources}
        return self.slice("initial", {}, Table((), jnp.ones(())), seen, states)

    def step(
        self, before: Known, t: Array, states: dict[str, Seen], sites: dict[str, Seen], following: dict[str, Seen]
    ) -> tuple[Known, Terms, Array]:
        """What is known after a step, the terms of its sites, and whether it cannot have been."""
        seen = sites | {site: following[state] for site, state in self.plan.step.sources}
        at = {name: states[name].value for name in self.plan.given} | before.computed | {"t": t}
        return self.slice("step", at, Table(self.plan.hidden, before.mass), seen, following)

    def slice(
        self, name: str, at: Values, mass: Table, seen: dict[str, Seen], following: dict[str, Seen]
    ) -> tuple[Known, Terms, Array]:
        """Go through the sites of a part in order.

        Args:
            name: the part.
            at: the values that are known.
            mass: the probabilities of the hidden variables.
            seen: what was seen of its sites.
            following: what was seen of the state that it leads to.

        Returns:
            What is known of that state, the terms of the sites, and whether what was seen has probability zero.
        """
        part, terms, at = self.parts[name], {}, dict(at)
        sites, policy = (self.plan.step, self.policy) if name == "step" else (self.plan.initial, {})
        for i, site in enumerate(part.form.sites):
            if site.kind == "optimality":
                continue
            axes, needed = self.axes(site, policy, mass.axes), self.needed(part.form, i + 1, policy)
            if site.kind == "data":
                mass, terms[site.name] = met(mass, self.factor(part, at, site, axes))
            elif site.name in sites.known or (site.name in sites.partly and not is_finite(site.support)):
                at[site.name] = seen[site.name].value
                # Where somebody was seen first may be anywhere, and counts only beside everything else.
                if axes or name == "step" or self.weight is not None:
                    weight = self.density(part, at, site, axes, policy)
                    mass, terms[site.name] = met(mass, weight, seen[site.name].there)
            elif site.name in needed or site.name in seen:
                mass, terms[site.name] = self.summed(part, at, site, axes, policy, mass, seen.get(site.name))
            mass = self.kept(mass, needed)
        known, ahead = self.arrived(name, at, mass, following, {state for _, state in sites.sources})
        terms |= {f"{each}'": term for each, term in ahead.items()}
        lost = functools.reduce(jnp.logical_or, map(jnp.isneginf, terms.values()), jnp.asarray(False))
        return known, terms if self.weight is not None else {x: terms[x] for x in self.plan.scored if x in terms}, lost

    def axes(self, site: SiteForm, policy: dict[str, ConditionalLaw], alive: Names) -> Names:
        """The hidden variables that the law of a site depends on."""
        return axes_of(site, policy, dict(self.structure.scopes).get(site.name, ()), alive)

    def needed(self, form: Form, first: int, policy: dict[str, ConditionalLaw]) -> set[str]:
        """The hidden variables that sites from some place on depend on, or the next state."""
        every = (*self.plan.hidden, *(site.name for site in form.latent))
        later = [self.axes(site, policy, every) for site in form.sites[first:] if site.kind != "optimality"]
        return {name for axes in (*later, *(each.parents for each in form.following)) for name in axes}

    def over(self, part: Part, at: Values, axes: Names, pick: Callable[[Point, Values], Any]) -> Any:
        """Something about a part at known values, over all values of some hidden variables."""
        return over_values(self.supports, axes, lambda values: pick(part.at(at | values), at | values))

    def law(self, point: Point, at: Values, site: SiteForm, policy: dict[str, ConditionalLaw]) -> SiteLaw:
        """The law of a site at a point."""
        law = point.law(site.name)
        return policy[site.name](at, at["t"], law) if site.name in policy else law

    def density(
        self, part: Part, at: Values, site: SiteForm, axes: Names, policy: dict[str, ConditionalLaw]
    ) -> tuple[Table, Table]:
        """The weight of what was seen of a site as a probability and the log of a density, one of them trivial."""

        def one(point: Point, here: Values) -> tuple[Array, Array]:
            law = self.law(point, here, site, policy)
            wrong = law.is_wrong() | point.beyond("laws", site.name)
            if isinstance(law, FiniteLaw):
                place = positions_of(law.support, at[site.name])
                inside = place < len(law.support)
                p = law.probs[jnp.where(inside, place, 0)]
                return jnp.where(wrong | ~inside, jnp.nan, p), jnp.zeros(())
            return jnp.ones(()), jnp.where(wrong, jnp.nan, law.log_prob(at[site.name]))

        p, log_p = self.over(part, at, axes, one)
        return Table(axes, p), Table(axes, log_p)

    def factor(self, part: Part, at: Values, site: SiteForm, axes: Names) -> tuple[Table, Table]:
        """The weight of data inside of the program."""

        def one(point: Point, _: Values) -> Array:
            return jnp.where(point.beyond("factors", site.name), jnp.nan, point.factor(site.name))

        log_p = self.over(part, at, axes, one)
        if site.tempered and self.weight is not None:
            log_p = self.weight.of(log_p, at["t"])
        return Table(axes, jnp.ones_like(log_p)), Table(axes, log_p)

    def summed(
        self,
        part: Part,
        at: Values,
        site: SiteForm,
        axes: Names,
        policy: dict[str, ConditionalLaw],
        mass: Table,
        seen: Seen | None,
    ) -> tuple[Table, Array]:
        """The probabilities with a hidden site among the variables, and the term of what was seen of it."""

        def one(point: Point, here: Values) -> Array:
            law = self.law(point, here, site, policy)
            assert isinstance(law, FiniteLaw)
            return jnp.where(law.is_wrong() | point.beyond("laws", site.name), jnp.nan, law.probs)

        law = Table((*axes, site.name), self.over(part, at, axes, one))
        mass = times(mass, law)
        return (mass, jnp.zeros(())) if seen is None else self.shown(mass, site.name, site.support, seen)

    def shown(self, mass: Table, name: str, support: Any, seen: Seen) -> tuple[Table, Array]:
        """The probabilities given what was seen of a hidden variable, and its term."""
        place = positions_of(support, seen.value)
        there = jnp.asarray(True) if seen.there is None else seen.there
        shown = jnp.where(there, jnp.arange(len(support)) == place, True).astype(float)
        shown = jnp.where(there & (place >= len(support)), jnp.nan, shown)
        return met(mass, certain(Table((name,), shown)), seen.there)

    def kept(self, mass: Table, needed: set[str]) -> Table:
        """The probabilities of what something later depends on."""
        kept = tuple(name for name in mass.axes if name in needed)
        gone = tuple(i for i, name in enumerate(mass.axes) if name not in needed)
        return Table(kept, jnp.sum(mass.array, gone))

    def arrived(
        self, which: str, at: Values, mass: Table, following: dict[str, Seen], told: set[str]
    ) -> tuple[Known, Terms]:
        """What is known of the state that a part leads to, and the terms of what was seen of it.

        Of the variables in `told` it was seen where a site was drawn.
        """
        part, terms, anywhere = self.parts[which], {}, which == "initial" and self.weight is None
        forms = {each.name: each for each in part.form.following}
        computed, wrong = {}, jnp.asarray(False)
        for name in self.plan.computed:
            support, point = self.supports[name], part.at(at)
            value = jax.tree.map(
                lambda x, y: jnp.asarray(x).astype(y.dtype), point.following(name), first_value(support)
            )
            wrong |= point.beyond("following", name)
            if is_finite(support):
                wrong |= positions_of(support, value) >= len(support)
                if name in following:
                    seen = following[name]
                    other = (value != seen.value) & (True if seen.there is None else seen.there)
                    terms[name] = jnp.where(other, -jnp.inf, 0.0)
            computed[name] = value
        for name, seen in following.items():
            axes = tuple(axis for axis in mass.axes if axis in forms[name].parents)
            # The first state may be anywhere; real numbers are compared where they tell of hidden ones.
            compared = axes or (is_finite(self.supports[name]) and not anywhere)
            everything = set(forms[name].parents) <= {*at, *mass.axes}
            if name not in told and name in self.plan.given and compared and everything:
                mass, terms[name] = met(mass, self.agrees(part, at, name, axes, seen.value), seen.there)
        mass = self.moved(part, at, mass)
        for name, seen in following.items():
            if name in self.plan.hidden:
                mass, terms[name] = self.shown(mass, name, self.supports[name], seen)
        return Known(computed, jnp.where(wrong, jnp.nan, mass.array)), terms

    def agrees(self, part: Part, at: Values, name: str, axes: Names, value: Any) -> tuple[Table, Table]:
        """Over hidden variables, whether the next value of a state variable is the one that was seen."""

        def one(point: Point, _: Values) -> Array:
            pairs = zip(jax.tree.leaves(point.following(name)), jax.tree.leaves(value), strict=True)
            return jnp.all(jnp.stack([jnp.all(one == other) for one, other in pairs])).astype(float)

        return certain(Table(axes, self.over(part, at, axes, one)))

    def moved(self, part: Part, at: Values, mass: Table) -> Table:
        """The probabilities of the next hidden state variables."""
        forms = {each.name: each for each in part.form.following}
        hidden = self.plan.hidden
        taken = [forms[name].source for name in hidden]
        if len(set(taken)) == len(taken) and all(name in mass.axes for name in taken):
            kept = self.kept(mass, {str(name) for name in taken})
            return Table(hidden, kept.aligned(tuple(str(name) for name in taken)))
        sizes, index = [len(self.supports[name]) for name in hidden], Table((), jnp.zeros((), int))
        beyond = Table((), jnp.asarray(False))
        for name, size in zip(hidden, sizes, strict=True):
            own = tuple(axis for axis in mass.axes if axis in forms[name].parents)
            place = Table(own, self.over(part, at, own, functools.partial(self.place, name=name)))
            every = union(index.axes, own)
            index = Table(every, index.aligned(every) * size + place.aligned(every))
            beyond = Table(every, beyond.aligned(every) | (place.aligned(every) >= size))
        where = jnp.broadcast_to(index.aligned(mass.axes), mass.array.shape)
        outside = jnp.any(jnp.broadcast_to(beyond.aligned(mass.axes), mass.array.shape) & (mass.array > 0))
        total = jnp.zeros(sizes).reshape(-1).at[where.reshape(-1)].add(mass.array.reshape(-1)).reshape(sizes)
        return Table(hidden, jnp.where(outside, jnp.nan, total))

    def place(self, point: Point, _: Values, name: str) -> Array:
        """The position of the next value of a hidden state variable; outside of its support its size."""
        size = len(self.supports[name])
        place = positions_of(self.supports[name], point.following(name))
        return jnp.where(point.beyond("following", name), size, place)

    @property
    def supports(self) -> dict[str, Any]:
        """The values of every variable."""
        return self.structure.supports() | self.structure.initial.supports()
