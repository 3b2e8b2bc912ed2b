"""Which variables of a program are known where its behaviour is observed, and which are summed over.

A variable is known that was seen at every time, and so is a state variable that known ones determine: what a learner
has learned is computed from the choices and outcomes that were seen, whatever it is made of. All others are hidden and
must have finitely many values. Nothing here depends on numbers.
"""

from collections.abc import Mapping
from typing import NamedTuple

from rlinf_ppl.inference.histories.alternatives import innermost
from rlinf_ppl.program.conditionals import Affine, ConditionalLaw, Rows
from rlinf_ppl.program.forms import Form, NextForm, SiteForm
from rlinf_ppl.program.structure import Structure
from rlinf_ppl.program.supports import is_finite

Names = tuple[str, ...]


class Sites(NamedTuple):
    """What was seen of the sites of a part.

    Attributes:
        known: those that were seen at every time.
        partly: those that were seen at some times.
        sources: those that have the value of a state variable that was seen, with this variable.
    """

    known: Names
    partly: Names
    sources: tuple[tuple[str, str], ...]


class Plan(NamedTuple):
    """What is done with each variable.

    Attributes:
        given: state variables that were seen at every time.
        computed: state variables that known ones determine.
        hidden: the other state variables; some may have been seen at some times.
        initial, step: the sites of these parts; those that were not seen at every time are hidden.
        scored: sites whose terms are wanted.
    """

    given: Names
    computed: Names
    hidden: Names
    initial: Sites
    step: Sites
    scored: Names


def plan_of(structure: Structure, seen: Mapping[str, bool], scored: Names, lacks_last: Names) -> Plan:
    """What is done with each variable.

    Args:
        structure: of the program.
        seen: for each variable with data whether they are there at every time.
        scored: sites whose terms are wanted.
        lacks_last: state variables whose data end with the last step, and not with the state after it.

    Raises:
        ValueError: a hidden variable has no finite number of values.
    """
    state = tuple(name for name, _ in structure.state)
    given = tuple(name for name in state if seen.get(name))
    of_states = {name: always for name, always in seen.items() if name in state}
    others = {name: always for name, always in seen.items() if name not in state}
    initial, step = (
        sites_of(structure.initial, of_states, {}, ()),
        sites_of(structure.step, of_states, others, lacks_last),
    )
    computed = determined(structure, given, set(initial.known), set(step.known))
    hidden = tuple(name for name in state if name not in given and name not in computed)
    plan = Plan(given, computed, hidden, initial, step, scored)
    check_finite(structure, plan, [name for name, always in of_states.items() if not always])
    return plan


def sites_of(form: Form, states: Mapping[str, bool], seen: Mapping[str, bool], lacks_last: Names) -> Sites:
    """What was seen of the sites of a part: in their own data, or in those of the state that takes their values."""
    always, sources = dict(seen), {}
    for following in sorted(form.following, key=lambda each: not states.get(each.name, False)):
        site, name = following.source, following.name
        if name in states and site in form.supports() and site not in always:
            sources[site] = name
            ends = name in lacks_last and any(
                site in other.parents for other in form.sites if other.kind != "optimality"
            )
            always[site] = states[name] and not ends
    known, partly = (tuple(site for site, there in always.items() if there is wanted) for wanted in (True, False))
    return Sites(known, partly, tuple(sources.items()))


def determined(structure: Structure, given: Names, first_known: set[str], known: set[str]) -> Names:
    """The state variables that known sites and state variables determine from the first state on."""
    first = {following.name: following.parents for following in structure.initial.following}
    every = {following.name: following.parents for following in structure.step.following}
    left = [name for name, _ in structure.state if name not in given and first_known.issuperset(first[name])]
    while True:
        there = known | {"t", *given, *left}
        kept = [name for name in left if there.issuperset(every[name])]
        if kept == left:
            return tuple(left)
        left = kept


def check_finite(structure: Structure, plan: Plan, partly: list[str]) -> None:
    """Raise where something must be summed over that has no finite number of values.

    Args:
        structure: of the program.
        plan: what is done with each variable.
        partly: the state variables that were seen at some times.

    Raises:
        ValueError: so it is.
    """
    for name in plan.computed:
        if name in partly and not is_finite(dict(structure.state)[name]):
            raise ValueError(
                f"the state variable {name!r} is computed from the other data, and was seen in places besides: leave "
                "it out, or give it at every time."
            )
    for name in plan.hidden:
        if not is_finite(dict(structure.state)[name]):
            raise ValueError(
                f"the state variable {name!r} has no finite number of values, and the data do not determine it: give "
                "data for all that it is computed from, at every time; leave times out at which it does not change "
                '(gaps="close" of behaviour); or observe sites inside of step (obs=) and use smc.run.'
            )
    for form, sites in ((structure.initial, plan.initial), (structure.step, plan.step)):
        for site in form.latent:
            if site.name in sites.known or is_finite(site.support) or not needed(form, sites, site.name, plan):
                continue
            missing = "is missing in places" if site.name in sites.partly else "has no data"
            raise ValueError(
                f"the site {site.name!r} {missing}, and others depend on it; it has no finite number of values to be "
                "summed over. Give its data at every time, or observe sites inside of step (obs=) and use smc.run."
            )


def needed(form: Form, sites: Sites, name: str, plan: Plan) -> bool:
    """Whether anything that is looked at depends on a site that was not seen.

    That is what was seen, hidden sites and hidden states; and a state that was seen, where it also says something of
    other hidden variables.
    """
    if any(name in site.parents for site in form.sites if site.kind != "optimality"):
        return True
    ahead = [each for each in form.following if name in each.parents]
    return any(each.name not in plan.given or tells(form, sites, each, name, plan) for each in ahead)


def tells(form: Form, sites: Sites, following: NextForm, name: str, plan: Plan) -> bool:
    """Whether the next value of a state variable depends on hidden variables beside a site."""
    others = {site.name for site in form.latent if site.name not in sites.known and site.name != name}
    return bool((others | set(plan.hidden)) & set(following.parents))


def axes_of(site: SiteForm, policy: Mapping[str, ConditionalLaw], scope: Names, alive: Names) -> Names:
    """The hidden variables that the law of a site depends on.

    Args:
        site: the site.
        policy: the laws that stand in the place of its own.
        scope: what the policy of a decision depends on.
        alive: the hidden variables up to here.
    """
    law = innermost(policy.get(site.name))
    parents = site.parents
    if isinstance(law, Rows | Affine):
        parents = scope
    elif law is not None:
        parents = (*site.parents, *alive)
    return tuple(name for name in alive if name in parents)
