"""What the policy of a decision depends on: the elimination run on names alone, where decisions may see less.

A decision that sees everything before it depends on the message W that is left of what comes later. One that does not
see some of it, H, replies to E[W | what it sees]. What it sees may tell something of H without being in W itself. So
its policy depends on what it sees that is in W, and on what it sees that is not independent of H given the rest of what
it sees. That is found by d-separation in the step (Geiger, Verma & Pearl 1990), with the state variables at its start
dependent where an earlier step may have made them so. What a policy depends on is in the message of the step before in
its turn, and may be what makes others dependent; the least solution of all that is found by repetition.
"""

from itertools import combinations
from typing import NamedTuple

import networkx as nx

from rlinf_ppl.algebra import TIME
from rlinf_ppl.program.forms import Form
from rlinf_ppl.program.supports import is_finite

Names = tuple[str, ...]


class Sight(NamedTuple):
    """What the elimination of a program depends on.

    Attributes:
        carried: the state variables that the value depends on.
        scopes: for each decision what its policy depends on, in program order.
        hidden: for each decision that would depend on something that it does not see, what that is.
        together: for decisions that settle at an equilibrium the ones just before that they do not see.
    """

    carried: Names
    scopes: tuple[tuple[str, Names], ...]
    hidden: tuple[tuple[str, Names], ...]
    together: tuple[tuple[str, Names], ...]


def sight_of(initial: Form, step: Form, final: Form | None, state: Names) -> Sight:
    """What each policy depends on, and what it would depend on if it saw it.

    Consecutive decisions that do not see each other are eliminated together, unless some decision does not see more
    than that, which matters.
    """
    blocks = blocks_of(step)
    found = repeated(initial, step, final, state, blocks)
    return repeated(initial, step, final, state, {}) if blocks and found.hidden else found


def blocks_of(step: Form) -> dict[str, Names]:
    """For decisions that come right after others which they do not see, and which do not see each other, these."""
    found: dict[str, Names] = {}
    block: list[str] = []
    for site in step.sites:
        joins = bool(block) and site.kind == "decision" and set(block) <= set(site.unseen) and is_finite(site.support)
        if joins:
            found[site.name] = tuple(block)
        block = [*(block if joins else ()), site.name] if site.kind == "decision" and is_finite(site.support) else []
    return found


def repeated(initial: Form, step: Form, final: Form | None, state: Names, blocks: dict[str, Names]) -> Sight:
    """The least sets of names that a further step leaves as they are."""
    carried = {parent for site in (final.sites if final is not None else ()) for parent in site.parents} - {TIME}
    scopes: dict[str, set[str]] = {site.name: set(site.parents) - {TIME} for site in step.decisions}
    related = dependent(initial, {}, set())
    while True:
        graph = dependences(step, scopes, related)
        left, found, hidden = eliminate_names(step, state, carried, graph, blocks)
        again = related | dependent(step, found, related)
        if left <= carried and found == scopes and again == related:
            break
        carried, scopes, related = carried | left, found, again
    order = [*state, *(site.name for site in step.latent)]

    def named(sets: dict[str, set[str]]) -> tuple[tuple[str, Names], ...]:
        return tuple((one, tuple(name for name in order if name in sets[one])) for one in order if one in sets)

    return Sight(
        tuple(name for name in state if name in carried),
        named(scopes),
        named({name: hides for name, hides in hidden.items() if hides}),
        tuple(blocks.items()),
    )


def eliminate_names(
    step: Form, state: Names, carried: set[str], graph: nx.DiGraph, blocks: dict[str, Names]
) -> tuple[set[str], dict[str, set[str]], dict[str, set[str]]]:
    """The variables that a step's message depends on, given those of the next message; scopes, and what they hide."""
    w = {parent for form in step.following if form.name in carried for parent in form.parents} - {TIME}
    scopes: dict[str, set[str]] = {}
    hidden: dict[str, set[str]] = {}
    left = list(step.sites)
    while left:
        site = left.pop()
        if site.kind == "decision":
            block = [site, *(left.pop() for _ in blocks.get(site.name, ()))]
            names = {one.name for one in block}
            w = w.union(*(one.parents for one in block)) - {TIME, *names}
            before = {*state, *(one.name for one in left if not one.is_factor)}
            for one in block:
                hidden[one.name] = (w & set(one.unseen)) - names
                scopes[one.name] = seen_in(graph, w, before - set(one.unseen) - names, hidden[one.name])
            w = w.union(*(scopes[name] for name in names))
        elif site.is_factor or site.name in w:
            w = (w - {site.name, TIME}) | (set(site.parents) - {TIME})
    return w, scopes, hidden


def seen_in(graph: nx.DiGraph, w: set[str], seen: set[str], hidden: set[str]) -> set[str]:
    """What a reply to a message depends on: what is seen of it, and what is seen that tells something of the rest."""
    telling = (name for name in seen - w if hidden and not nx.is_d_separator(graph, {name}, hidden, seen - {name}))
    return (w & seen).union(telling)


def dependences(step: Form, scopes: dict[str, set[str]], related: set[frozenset[str]]) -> nx.DiGraph:
    """What a step's variables depend on; state variables that are dependent at its start have a parent in common."""
    graph = nx.DiGraph()
    graph.add_nodes_from(form.name for form in step.following)
    for site in step.latent:
        graph.add_node(site.name)
        parents = set(site.parents) | scopes.get(site.name, set())
        graph.add_edges_from((parent, site.name) for parent in parents - {TIME})
    for pair in related:
        graph.add_edges_from((pair, name) for name in pair)
    return graph


def dependent(part: Form, scopes: dict[str, set[str]], related: set[frozenset[str]]) -> set[frozenset[str]]:
    """The pairs of state variables that a part leaves dependent: with a cause in common, or with dependent ones."""
    graph = dependences(part, scopes, set())
    causes: dict[str, set[str]] = {}
    for form in part.following:
        direct = set(form.parents) - {TIME}
        causes[form.name] = direct.union(*(nx.ancestors(graph, name) for name in direct))
    return {
        frozenset(pair)
        for pair in combinations(causes, 2)
        if causes[pair[0]] & causes[pair[1]]
        or any(frozenset((one, other)) in related for one in causes[pair[0]] for other in causes[pair[1]])
    }
