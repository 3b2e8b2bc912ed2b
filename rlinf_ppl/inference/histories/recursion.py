"""The recursion over time of what is hidden, given what was seen so far: one sequence, one step, one site at a time.

With m the probabilities of the hidden variables given all that was seen before, an observed site of law p(x | h) scores

    log sum_h m(h) p(x | h),        and leaves        m(h) <- m(h) p(x | h) / sum,

a hidden site multiplies m by its law and gains an axis, and what nothing later depends on is summed out. Laws are the
program's own arithmetic at the values that are known, over the hidden variables that they depend on and no others:
where all is known a site is one look-up, and a state variable is the number that the step computes.
"""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from rlinf_ppl.algebra.tables import Table, union
from rlinf_ppl.inference.histories.alternatives import restricted
from rlinf_ppl.inference.histories.masses import (
    Known,
    Seen,
    Weight,
    ahead_of,
    at_row,
    certain,
    ended,
    expected,
    kept,
    met,
    times,
)
from rlinf_ppl.inference.histories.plan import Names, Plan, axes_of
from rlinf_ppl.inference.histories.weights import Here, Values
from rlinf_ppl.program.conditionals import ConditionalLaw
from rlinf_ppl.program.forms import Form, SiteForm
from rlinf_ppl.program.point import Part
from rlinf_ppl.program.structure import Structure
from rlinf_ppl.program.supports import first_value, is_finite, positions_of

Terms = dict[str, Array]


class Told(NamedTuple):
    """What a sequence tells; while it is gone through, what one step does.

    Attributes:
        terms: of each scored site the log probability of what was seen, (T,).
        lost: whether what was seen cannot have been, (T,).
        foreseen: of each scored site of finitely many values their probabilities given all that came before, (T, K).
        states: the state variables that the data determine before each step, (T, ...).
    """

    terms: Terms
    lost: Array
    foreseen: dict[str, Array]
    states: Values


class Histories(eqx.Module):
    """A program whose trajectories were seen in part.

    Attributes:
        structure: of the program.
        plan: what is done with each variable.
        steps: how many steps were seen.
        foresees: whether probabilities of what was not done are wanted, and the states that the data determine.
        parts: initial and step with their numbers.
        policy: the laws of decisions in the place of their own.
        weight: how optimality counts, where all that was seen counts together; None: it does not.
    """

    structure: Structure = eqx.field(static=True)
    plan: Plan = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    foresees: bool = eqx.field(static=True)
    parts: dict[str, Part]
    policy: dict[str, ConditionalLaw]
    weight: Weight | None = None

    def told(
        self,
        states: dict[str, Seen],
        sites: dict[str, Seen],
        length: Array | None,
        available: dict[str, Array],
        follows: Array | None = None,
    ) -> Told:
        """What one sequence tells over time; terms are 0 where nothing was seen.

        Args:
            states: state variables over time, with T + 1 rows or T.
            sites: sites of the step, with T rows.
            length: how many steps there are; None: T.
            available: of decisions the alternatives that are there, (T, K).
            follows: whether the state of the next row is the next state, (T,); None: everywhere.
        """
        first, told, _ = self.over_time(states, sites, length, available, follows)
        lost = told.lost.at[0].set(told.lost[0] | first.lost)
        return told._replace(terms={name: ended(term, lost, length) for name, term in told.terms.items()})

    def over_time(
        self,
        states: dict[str, Seen],
        sites: dict[str, Seen],
        length: Array | None,
        available: dict[str, Array],
        follows: Array | None = None,
    ) -> tuple[Told, Told, Known]:
        """What the first state tells and what all steps do; and what is known last."""
        time = jnp.arange(self.steps)
        now = jax.tree.map(lambda x: x[: self.steps], (states, sites))
        ahead = {name: ahead_of(seen, self.steps, length, follows) for name, seen in states.items()}
        here, first = self.begun({name: at_row(seen, 0) for name, seen in states.items()})

        rows = time, *now, ahead, available
        if self.plan.hidden or self.plan.computed:
            last, told = lax.scan(lambda before, row: self.step(before, *row), here, rows)
            return first, told, last
        # Nothing is carried from row to row, and each is by itself.
        return first, jax.vmap(lambda row: self.step(here, *row)[1])(rows), here

    def begun(self, states: dict[str, Seen]) -> tuple[Known, Told]:
        """What is known of the first state, and what it tells."""
        seen = {site: states[state] for site, state in self.plan.initial.sources}
        return self.slice("initial", {}, Table((), jnp.ones(())), seen, states, {})

    def step(
        self,
        before: Known,
        t: Array,
        states: dict[str, Seen],
        sites: dict[str, Seen],
        following: dict[str, Seen],
        available: dict[str, Array],
    ) -> tuple[Known, Told]:
        """What is known after a step, and what it tells."""
        seen = sites | {site: following[state] for site, state in self.plan.step.sources}
        here = {name: states[name].value for name in self.plan.given} | before.computed
        limits = {name: restricted(self.policy.get(name), there) for name, there in available.items()}
        mass, policy = Table(self.plan.hidden, before.mass), self.policy | limits
        known, told = self.slice("step", here | {"t": t}, mass, seen, following, policy)
        return known, told._replace(states=here) if self.foresees else told

    def slice(
        self,
        name: str,
        at: Values,
        mass: Table,
        seen: dict[str, Seen],
        following: dict[str, Seen],
        policy: dict[str, ConditionalLaw],
    ) -> tuple[Known, Told]:
        """Go through the sites of a part in order.

        Args:
            name: the part.
            at: the values that are known.
            mass: the probabilities of the hidden variables.
            seen: what was seen of its sites.
            following: what was seen of the state that it leads to.
            policy: the laws of decisions in the place of their own.

        Returns:
            What is known of that state, and what the part tells.
        """
        here, terms, foreseen = Here(self.parts[name], dict(at), self.supports, policy, self.weight, self.steps), {}, {}
        form, sites = here.part.form, self.plan.step if name == "step" else self.plan.initial
        for i, site in enumerate(form.sites):
            if site.kind == "optimality":
                continue
            axes, needed = self.axes(site, policy, mass.axes), self.needed(form, i + 1, policy)
            if self.foresees and site.name in self.plan.scored and site.kind != "data" and is_finite(site.support):
                foreseen[site.name] = expected(mass, here.probabilities(site, axes))
            if site.kind == "data":
                mass, terms[site.name] = met(mass, here.factor(site, axes))
            elif site.name in sites.known or (site.name in sites.partly and not is_finite(site.support)):
                here.at[site.name] = seen[site.name].value
                # Where somebody was seen first may be anywhere, and counts only beside everything else.
                if axes or name == "step" or self.weight is not None:
                    counts = self.weight is not None or site.name in self.plan.scored
                    mass, terms[site.name] = met(mass, here.density(site, axes), seen[site.name].there, counts)
            elif site.name in needed or site.name in seen:
                mass, terms[site.name] = self.summed(here, site, axes, mass, seen.get(site.name))
            mass = kept(mass, needed)
        known, ahead = self.arrived(name, here, mass, following, {state for _, state in sites.sources})
        terms |= {f"{each}'": term for each, term in ahead.items()}
        lost = functools.reduce(jnp.logical_or, map(jnp.isneginf, terms.values()), jnp.asarray(False))
        counted = (
            terms if self.weight is not None else {each: terms[each] for each in self.plan.scored if each in terms}
        )
        return known, Told(counted, lost, foreseen, {})

    def axes(self, site: SiteForm, policy: dict[str, ConditionalLaw], alive: Names) -> Names:
        """The hidden variables that the law of a site depends on."""
        return axes_of(site, policy, dict(self.structure.scopes).get(site.name, ()), alive)

    def needed(self, form: Form, first: int, policy: dict[str, ConditionalLaw]) -> set[str]:
        """The hidden variables that sites from some place on depend on, or the next state."""
        every = (*self.plan.hidden, *(site.name for site in form.latent))
        later = [self.axes(site, policy, every) for site in form.sites[first:] if site.kind != "optimality"]
        return {name for axes in (*later, *(each.parents for each in form.following)) for name in axes}

    def summed(self, here: Here, site: SiteForm, axes: Names, mass: Table, seen: Seen | None) -> tuple[Table, Array]:
        """The probabilities with a hidden site among the variables, and the term of what was seen of it."""
        mass = times(mass, here.probabilities(site, axes))
        return (mass, jnp.zeros(())) if seen is None else self.shown(mass, site.name, site.support, seen)

    def shown(self, mass: Table, name: str, support: Any, seen: Seen) -> tuple[Table, Array]:
        """The probabilities given what was seen of a hidden variable, and its term."""
        place = positions_of(support, seen.value)
        there = jnp.asarray(True) if seen.there is None else seen.there
        shown = jnp.where(there, jnp.arange(len(support)) == place, True).astype(float)
        shown = jnp.where(there & (place >= len(support)), jnp.nan, shown)
        return met(mass, certain(Table((name,), shown)), seen.there)

    def arrived(
        self, which: str, here: Here, mass: Table, following: dict[str, Seen], told: set[str]
    ) -> tuple[Known, Terms]:
        """What is known of the state that a part leads to, and the terms of what was seen of it.

        Of the variables in `told` it was seen where a site was drawn.
        """
        terms: Terms = {}
        anywhere = which == "initial" and self.weight is None
        forms = {each.name: each for each in here.part.form.following}
        computed, wrong = self.computed(here)
        for name, seen in following.items():
            if name in computed and is_finite(self.supports[name]):
                other = (computed[name] != seen.value) & (True if seen.there is None else seen.there)
                terms[name] = jnp.where(other, -jnp.inf, 0.0)
        for name, seen in following.items():
            axes = tuple(axis for axis in mass.axes if axis in forms[name].parents)
            # The first state may be anywhere; real numbers are compared where they tell of hidden ones.
            compared = axes or (is_finite(self.supports[name]) and not anywhere)
            everything = set(forms[name].parents) <= {*here.at, *mass.axes}
            if name not in told and name in self.plan.given and compared and everything:
                mass, terms[name] = met(mass, here.agrees(name, axes, seen.value), seen.there)
        mass = self.moved(here, mass)
        for name, seen in following.items():
            if name in self.plan.hidden:
                mass, terms[name] = self.shown(mass, name, self.supports[name], seen)
        return Known(computed, jnp.where(wrong, jnp.nan, mass.array)), terms

    def computed(self, here: Here) -> tuple[Values, Array]:
        """The next values of the state variables that the data determine, and whether one is none of its values."""
        computed, wrong = {}, jnp.asarray(False)
        for name in self.plan.computed:
            support, point = self.supports[name], here.part.at(here.at)
            value = jax.tree.map(
                lambda x, y: jnp.asarray(x).astype(y.dtype), point.following(name), first_value(support)
            )
            wrong |= point.beyond("following", name)
            if is_finite(support):
                wrong |= positions_of(support, value) >= len(support)
            computed[name] = value
        return computed, wrong

    def moved(self, here: Here, mass: Table) -> Table:
        """The probabilities of the next hidden state variables."""
        forms = {each.name: each for each in here.part.form.following}
        hidden = self.plan.hidden
        taken = [forms[name].source for name in hidden]
        if len(set(taken)) == len(taken) and all(name in mass.axes for name in taken):
            found = kept(mass, {str(name) for name in taken})
            return Table(hidden, found.aligned(tuple(str(name) for name in taken)))
        sizes, index = [len(self.supports[name]) for name in hidden], Table((), jnp.zeros((), int))
        beyond = Table((), jnp.asarray(False))
        for name, size in zip(hidden, sizes, strict=True):
            own = tuple(axis for axis in mass.axes if axis in forms[name].parents)
            place = here.place(name, own)
            every = union(index.axes, own)
            index = Table(every, index.aligned(every) * size + place.aligned(every))
            beyond = Table(every, beyond.aligned(every) | (place.aligned(every) >= size))
        where = jnp.broadcast_to(index.aligned(mass.axes), mass.array.shape)
        outside = jnp.any(jnp.broadcast_to(beyond.aligned(mass.axes), mass.array.shape) & (mass.array > 0))
        total = jnp.zeros(sizes).reshape(-1).at[where.reshape(-1)].add(mass.array.reshape(-1)).reshape(sizes)
        return Table(hidden, jnp.where(outside, jnp.nan, total))

    @property
    def supports(self) -> dict[str, Any]:
        """The values of every variable."""
        return self.structure.supports() | self.structure.initial.supports()
