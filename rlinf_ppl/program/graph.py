"""What depends on what in one step: the graph of a time slice, and the scopes that the elimination will find."""

import networkx as nx

from rlinf_ppl.algebra import TIME
from rlinf_ppl.program.forms import Form


def slice_graph(step: Form) -> nx.DiGraph:
    """One time slice as a directed graph.

    Nodes are the state variables, the sites, and the next state variables with a prime; their attribute `kind` is
    state, decision, chance, optimality or data. Edges point from what a site's distribution or factor depends on.
    """
    graph = nx.DiGraph()
    for form in step.following:
        graph.add_node(form.name, kind="state")
    for site in step.sites:
        graph.add_node(site.name, kind=site.kind)
        graph.add_edges_from((parent, site.name) for parent in site.parents if parent != TIME)
    for form in step.following:
        graph.add_node(form.name + "'", kind="state")
        graph.add_edges_from((parent, form.name + "'") for parent in form.parents if parent != TIME)
    return graph


def scopes_of(
    step: Form, final: Form | None, state: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[tuple[str, tuple[str, ...]], ...]]:
    """Run the elimination on names alone.

    The value depends on what the last state's factors depend on, on what a step's message depends on, and on nothing
    else: the least set of state variables that is closed under a step.

    Returns:
        The state variables that the value depends on, and for each decision its scope, in program order.
    """
    carried: set[str] = set()
    for site in final.sites if final is not None else ():
        carried |= set(site.parents)
    scopes: dict[str, set[str]] = {}
    while True:
        left, scopes = eliminate_names(step, carried)
        if left <= carried:
            break
        carried |= left
    order = [*state, *(site.name for site in step.latent)]
    decisions = (site.name for site in step.latent if site.name in scopes)
    named = tuple((decision, tuple(name for name in order if name in scopes[decision])) for decision in decisions)
    return tuple(name for name in state if name in carried), named


def eliminate_names(step: Form, carried: set[str]) -> tuple[set[str], dict[str, set[str]]]:
    """The variables that a step's message depends on, given those of the next message, and each decision's scope."""
    w = {parent for form in step.following if form.name in carried for parent in form.parents}
    scopes: dict[str, set[str]] = {}
    left = list(step.sites)
    while left:
        site = left.pop()
        if site.kind == "decision":
            block = [site, *(left.pop() for _ in site.unseen)]
            w = w.union(*(one.parents for one in block)) - {TIME, *(one.name for one in block)}
            scopes |= {one.name: w for one in block}
        elif site.is_factor or site.name in w:
            w = (w - {site.name}) | set(site.parents)
    return w - {TIME}, scopes
