"""What depends on what in one step: the graph of a time slice."""

import networkx as nx

from rlinf_ppl.algebra import TIME
from rlinf_ppl.program.forms import Form


def slice_graph(step: Form) -> nx.DiGraph:
    """One time slice as a directed graph.

    Nodes are the state variables, the sites, and the next state variables with a prime; their attribute `kind` is
    state, decision, chance, optimality or data. Edges point from what a site's distribution or factor depends on; those
    of the style "dotted" from what a decision does not see.
    """
    graph = nx.DiGraph()
    for form in step.following:
        graph.add_node(form.name, kind="state")
    for site in step.sites:
        graph.add_node(site.name, kind=site.kind)
        graph.add_edges_from((parent, site.name) for parent in site.parents if parent != TIME)
        graph.add_edges_from(((other, site.name) for other in site.unseen), style="dotted")
    for form in step.following:
        graph.add_node(form.name + "'", kind="state")
        graph.add_edges_from((parent, form.name + "'") for parent in form.parents if parent != TIME)
    return graph
