"""Which beliefs a POMDP's bounds are kept at: those that the first one leads to, found breadth first.

Beliefs that agree to ten digits in every entry are one, so a task whose beliefs form a lattice keeps few. The search is
one of lists that grow, in NumPy and float64, a layer at a time.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

DIGITS = 10
# Entries of tables over (beliefs, actions, next states, observations) made at one time.
MOST_ENTRIES = 2**24

Table = Float[np.ndarray, "..."]


class Known(NamedTuple):
    """A POMDP's tables in float64: (S, A, S), (S, A, O)."""

    transition: Float[np.ndarray, "S A S"]
    observation: Float[np.ndarray, "S A O"]


class Graph(NamedTuple):
    """Beliefs and where they lead.

    Attributes:
        beliefs: the corners, and then those that were kept, (N, S).
        outside: where these lead beside, (M, S).
        following: positions in both lists, (N, A, O); 0 where the observation cannot be made.
        chances: p(o | b, a), (N, A, O).
    """

    beliefs: Float[np.ndarray, "N S"]
    outside: Float[np.ndarray, "M S"]
    following: Int[np.ndarray, "N A O"]
    chances: Float[np.ndarray, "N A O"]


def graph_of(known: Known, beliefs: Float[np.ndarray, "N S"]) -> Graph:
    """Where some beliefs lead."""
    after, chances = updated(known, beliefs)
    possible = chances > 0
    reached = after[possible]
    everything = np.concatenate([beliefs, reached])
    _, first, place = np.unique(keys(everything), axis=0, return_index=True, return_inverse=True)
    # The first of equal ones is one of `beliefs` where there is any.
    old = first[place.reshape(-1)[len(beliefs) :]]
    fresh = np.unique(old[old >= len(beliefs)])
    position = np.where(old < len(beliefs), old, len(beliefs) + np.searchsorted(fresh, old))
    following = np.zeros(chances.shape, np.int32)
    following[possible] = position
    return Graph(beliefs, everything[fresh], following, chances)


def updated(known: Known, beliefs: Float[np.ndarray, "N S"]) -> tuple[Table, Table]:
    """Each belief after each action and observation, (N, A, O, S), and how likely that is, (N, A, O)."""
    states, actions, observations = known.observation.shape
    at_once = max(1, MOST_ENTRIES // (states * actions * observations))
    joint = np.concatenate(
        [
            np.einsum("bs,san,nao->baon", beliefs[i : i + at_once], known.transition, known.observation, optimize=True)
            for i in range(0, len(beliefs), at_once)
        ]
    )
    chances = joint.sum(-1)
    return joint / np.where(chances > 0, chances, 1)[..., None], chances


def keys(beliefs: Float[np.ndarray, "N S"]) -> Float[np.ndarray, "N S"]:
    """The same for beliefs that agree in every entry's digits, however small the entry."""
    with np.errstate(divide="ignore"):
        return np.round(np.log(beliefs), DIGITS) + 0.0


def first_graph(known: Known, initial: Float[np.ndarray, " S"], most: int, depth: int | None) -> Graph:
    """The corners, and all beliefs that the first one leads to within some steps.

    Args:
        known: the task.
        initial: the first belief; it stands right after the corners.
        most: how many beliefs to keep; of a layer that would be more the likeliest are.
        depth: the most steps; None: any number.
    """
    states = len(initial)
    graph = graph_of(known, np.concatenate([np.eye(states), initial[None]]))
    layer: Any = np.asarray([states])
    mass: Table = np.ones(1)
    steps = 0
    while len(layer) and len(graph.beliefs) < most and (depth is None or steps < depth):
        reached = mass_of(graph, layer, mass)
        before, graph, new = len(graph.beliefs), *widened(known, graph, reached, most)
        layer, mass = np.arange(before, len(graph.beliefs)), reached[new]
        steps += 1
    return graph


def widened(
    known: Known, graph: Graph, weights: Float[np.ndarray, " M"], most: int
) -> tuple[Graph, Int[np.ndarray, " K"]]:
    """The graph with beliefs from outside that have some weight, the heaviest if they are too many; and which."""
    new = np.flatnonzero(weights > 0)
    room = max(most - len(graph.beliefs), 0)
    if len(new) > room:
        new = np.sort(new[np.argsort(-weights[new], kind="stable")[:room]])
    return graph_of(known, np.concatenate([graph.beliefs, graph.outside[new]])) if len(new) else graph, new


def mass_of(graph: Graph, layer: Int[np.ndarray, " L"], mass: Float[np.ndarray, " L"]) -> Float[np.ndarray, " M"]:
    """How likely each belief outside is reached from a layer, its actions all alike."""
    flow = mass[:, None, None] * graph.chances[layer] / graph.chances.shape[1]
    return arrived(graph, layer, flow)[len(graph.beliefs) :]


def arrived(graph: Graph, layer: Any, flow: Float[np.ndarray, "L A O"]) -> Float[np.ndarray, " *"]:
    """What flows into each belief, and into each outside."""
    size = len(graph.beliefs) + len(graph.outside)
    return np.bincount(graph.following[layer].ravel(), flow.ravel(), size)


def met(graph: Graph, policy: Float[np.ndarray, "N A"], discount: float, steps: int) -> Float[np.ndarray, " M"]:
    """How often each belief outside is reached from the first one within some steps, discounted."""
    count, states = graph.beliefs.shape
    now = np.zeros(count)
    now[states] = 1.0
    total = np.zeros(len(graph.outside))
    for _ in range(steps):
        after = discount * arrived(graph, slice(None), now[:, None, None] * policy[..., None] * graph.chances)
        now, total = after[:count], total + after[count:]
    return total
