"""The graph of one time step, drawn and written.

Time runs from left to right, each node one column after the last of its parents. Decisions stand in the upper lane,
states and chance in the middle, optimality below, as in the usual influence diagram. An edge that would run through a
node bends round it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import networkx as nx
import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

Point = tuple[float, float]

BENDS = (0.0, 0.15, -0.15, 0.3, -0.3, 0.5, -0.5)
CLEARANCE = 0.47
ROW = 1.05
COLUMN = 1.6
HEIGHT = 0.56
LANES = {"decision": 1, "state": 0, "chance": 0, "optimality": -1, "data": -1}


class Style(NamedTuple):
    """How a kind of node looks: its colour, its mark and its words in the legend."""

    colour: str
    mark: str
    words: str


STYLES = {
    "state": Style("#ffffff", "o", "state variable"),
    "decision": Style("#f4b183", "s", "decision: the agent chooses"),
    "chance": Style("#bdd7ee", "o", "chance: the dynamics"),
    "optimality": Style("#c5e0b4", "h", "optimality: log p(O = 1)"),
    "data": Style("#bfbfbf", "o", "data: observed"),
}


def draw(graph: nx.DiGraph, title: str = "") -> Figure:
    """Draws the graph of a time step.

    Args:
        graph: Nodes with the attribute `kind`: state, decision, chance, optimality or data.
        title: What stands above the drawing.

    Returns:
        A matplotlib figure, which belongs to no window.
    """
    from matplotlib.figure import Figure

    places = layout(graph)
    x, y = np.array(list(places.values())).reshape(-1, 2).T
    figure = Figure(figsize=(max(np.ptp(x) + 1.8, 5.5), np.ptp(y) + 2.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(x.min() - 0.8, x.max() + 0.8), ylim=(y.min() - 0.4, y.max() + 0.4), aspect="equal", title=title)
    axes.axis("off")
    kinds = dict(graph.nodes(data="kind"))
    shapes = {node: draw_node(axes, places[node], node, kind) for node, kind in kinds.items()}
    for parent, child, style in graph.edges(data="style", default="solid"):
        draw_edge(axes, places, shapes, parent, child, style)
    draw_legend(figure, set(kinds.values()), any(style for *_, style in graph.edges(data="style")))
    return figure


def heading(name: str, scopes: Mapping[str, Sequence[str]]) -> str:
    """What stands above a graph some of whose decisions do not see all: what each policy depends on.

    An edge that is not dotted is what the prior depends on, which is seldom all that a decision sees.
    """
    policies = ", ".join(f"q({decision} | {', '.join(seen)})" for decision, seen in scopes.items())
    return f"{name}: one time step, policies {policies}"


def layout(graph: nx.DiGraph) -> dict[str, Point]:
    """A place for every node: columns by depth, lanes by kind, and rows where a column's lane holds several."""
    depth: dict[str, int] = {}
    for node in nx.topological_sort(graph):
        depth[node] = max((depth[parent] + 1 for parent in graph.predecessors(node)), default=0)
    last = max(depth.values(), default=0)
    for node, kind in graph.nodes(data="kind"):
        if kind == "state" and graph.in_degree(node) > 0:
            depth[node] = last
    rows: dict[tuple[int, int], list[str]] = defaultdict(list)
    for node, kind in graph.nodes(data="kind"):
        rows[depth[node], LANES[kind]].append(node)
    tallest = {
        lane: max((len(nodes) for (_, own), nodes in rows.items() if own == lane), default=0) for lane in (1, 0, -1)
    }
    middle = {1: (tallest[0] + tallest[1]) / 2, 0: 0.0, -1: -(tallest[0] + tallest[-1]) / 2}
    return {
        node: (COLUMN * column, ROW * (middle[lane] + (len(nodes) - 1) / 2 - row))
        for (column, lane), nodes in rows.items()
        for row, node in enumerate(nodes)
    }


def bend(places: dict[str, Point], parent: str, child: str) -> float:
    """The smallest curvature with which the edge keeps clear of all other nodes; straight where none does."""
    others = np.array([place for node, place in places.items() if node not in (parent, child)])
    if not len(others):
        return 0.0
    clear = [distance(others, places[parent], places[child], curvature) for curvature in BENDS]
    return next((rad for rad, free in zip(BENDS, clear, strict=True) if free > CLEARANCE), BENDS[int(np.argmax(clear))])


def distance(others: np.ndarray, start: Point, end: Point, curvature: float) -> float:
    """How near matplotlib's arc3 curve from start to end comes to the nearest of the other nodes."""
    first, last = np.array(start), np.array(end)
    along = last - first
    control = (first + last) / 2 + curvature * np.array([along[1], -along[0]])
    t = np.linspace(0, 1, 41)[:, None]
    curve = (1 - t) ** 2 * first + 2 * t * (1 - t) * control + t**2 * last
    return float(np.linalg.norm(curve[:, None] - others[None], axis=-1).min())


def draw_node(axes: Axes, place: Point, name: str, kind: str) -> Patch:
    """A named ellipse (state, chance), rectangle (decision) or hexagon (optimality), wide enough for its name."""
    from matplotlib.patches import Ellipse, Polygon, Rectangle

    width, (x, y) = max(HEIGHT, 0.11 * len(name) + 0.22), place
    look: dict[str, Any] = {"facecolor": STYLES[kind].colour, "edgecolor": "#222222", "linewidth": 1.3, "zorder": 2}
    shape: Patch
    if kind == "decision":
        shape = Rectangle((x - width / 2, y - HEIGHT / 2), width, HEIGHT, **look)
    elif kind == "optimality":
        corners = np.array([(-1, 0), (-0.75, 1), (0.75, 1), (1, 0), (0.75, -1), (-0.75, -1)])
        shape = Polygon(np.array(place) + corners * (width / 2 + 0.08, HEIGHT / 2), **look)
    else:
        shape = Ellipse(place, width + 0.06, HEIGHT + 0.06, **look)
    axes.add_patch(shape)
    axes.text(x, y, name, ha="center", va="center", fontsize=11, zorder=3)
    return shape


def draw_edge(
    axes: Axes, places: dict[str, Point], shapes: dict[str, Patch], parent: str, child: str, style: str = "solid"
) -> None:
    """An arrow from the parent's rim to the child's; dotted from what a decision does not see."""
    from matplotlib.patches import FancyArrowPatch

    arrow = FancyArrowPatch(
        places[parent],
        places[child],
        patchA=shapes[parent],
        patchB=shapes[child],
        connectionstyle=f"arc3,rad={bend(places, parent, child)}",
        arrowstyle="-|>",
        mutation_scale=13,
        shrinkA=1,
        shrinkB=1,
        color="#444444",
        linewidth=1.2,
        linestyle=style,
        zorder=1,
    )
    axes.add_patch(arrow)


def draw_legend(figure: Figure, kinds: set[str], dotted: bool) -> None:
    """What the colours mean, and dotted lines, below the drawing."""
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"linestyle": "", "markersize": 9, "color": "#222222"}
    handles = [
        Line2D([], [], marker=style.mark, markerfacecolor=style.colour, label=style.words, **look)
        for kind, style in STYLES.items()
        if kind in kinds
    ]
    if dotted:
        handles.append(Line2D([], [], linestyle="dotted", color="#444444", label="not seen by the decision"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)


def describe(graph: nx.DiGraph) -> list[str]:
    """The graph in words, one line a node in topological order: its name, its kind and its parents."""
    order = list(nx.topological_sort(graph))
    width = max(map(len, order), default=0)
    lines = []
    for node in order:
        seen = [parent for parent in graph.predecessors(node) if "style" not in graph.edges[parent, node]]
        unseen = sorted((set(graph.predecessors(node)) - set(seen)), key=order.index)
        parents = ", ".join([*sorted(seen, key=order.index), *(f"({parent} unseen)" for parent in unseen)])
        lines.append(f"{node:<{width}}  {graph.nodes[node]['kind']:<10}" + (f"  <- {parents}" if parents else ""))
    return lines
