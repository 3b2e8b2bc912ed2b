"""Control under hidden state, exactly: what a POMDP is worth to an agent that remembers all it did and saw.

Such an agent needs its belief alone (Astrom 1965), so this bounds every policy of less memory: from above what the
best can reach, from below what a policy of the belief does reach. Both are kept at beliefs that the first one leads to
(`algebra.belief_bounds`), at all of them where there are few: then the bounds meet, and the answer is exact. Otherwise
beliefs are added where the bounds are wide apart and the process goes (Smith & Simmons 2004, of hard maxima).
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float
from numpyro.distributions import Categorical, Distribution

from rlinf_ppl.algebra import belief_bounds
from rlinf_ppl.algebra.belief_bounds import Points, Process
from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.algebra.numerics import soft_maximum
from rlinf_ppl.inference import belief_points
from rlinf_ppl.inference.arguments import check_count, check_number
from rlinf_ppl.inference.belief_points import Graph, Known
from rlinf_ppl.program.checks import check_horizon
from rlinf_ppl.tasks import POMDP, checks
from rlinf_ppl.types import ArrayLike

__all__ = ["Solution", "solve"]

FIRST = 64
MOST_SWEEPS = 100_000
# How far ahead it is asked where a process without end goes.
MOST_AHEAD = 200


class Lookahead(eqx.Module):
    """The policy that looks one step ahead, and from there at the bound from below: at least as good as that bound.

    Attributes:
        process: what is controlled.
        tangents: linear functions at each time, (T + 1, N, S), or (N, S) without end.
    """

    process: Process
    tangents: Float[Array, "..."]

    def __call__(self, belief: Float[Array, " S"], t: Any = 0) -> Distribution:
        """The law of the action at a belief; not one of numbers at a time that is none of the T.

        Raises:
            ValueError: on a belief over other states.
        """
        return Categorical(probs=soft_maximum(self.process.prior, self.action_values(belief, t), self.process.beta)[0])

    def action_values(self, belief: Float[Array, " S"], t: Any = 0) -> Float[Array, " A"]:
        """What each action is worth at least, at time t of the T there are; NaN at others."""
        belief, states = jnp.asarray(belief, float), len(self.process.reward)
        if jnp.shape(belief) != (states,):
            raise ValueError(f"belief has shape {jnp.shape(belief)}: the policy is of a task of {states} states.")
        ahead = self.tangents
        if ahead.ndim == 3:
            at = jnp.where(jnp.asarray(t) < 0, len(ahead), jnp.asarray(t) + 1)
            ahead = ahead.at[at].get(mode="fill", fill_value=jnp.nan)
        predicted = jnp.einsum("s,san->an", belief, self.process.transition)
        joint = predicted[..., None] * jnp.moveaxis(self.process.observation, 1, 0)
        later = jnp.sum(jnp.max(jnp.einsum("ano,kn->aok", joint, ahead), -1), -1)
        return belief @ self.process.reward + self.process.discount * later


class Solution(NamedTuple):
    """What a POMDP is worth, in units of reward.

    Attributes:
        lower: what the policy reaches at least, from the first belief.
        upper: what no policy exceeds.
        converged: whether they differ by no more than the tolerance.
        policy: {"a": function of belief and t}, the policy of `models.belief`.
        beliefs: where bounds are kept, (N, S): the corners first, then the first belief.
        lower_values, upper_values: of these at each time, (T + 1, N), the last row 0; or (N,) without end. A belief
            that the first one does not lead to within t steps may have wide bounds at t.
    """

    lower: Float[Array, ""]
    upper: Float[Array, ""]
    converged: Bool[Array, ""]
    policy: dict[str, Lookahead]
    beliefs: Float[Array, "N S"]
    lower_values: Float[Array, "..."]
    upper_values: Float[Array, "..."]


def solve(
    pomdp: POMDP,
    horizon: int | None,
    beta: ArrayLike = 1.0,
    prior: ArrayLike | None = None,
    *,
    tolerance: float | None = None,
    num_beliefs: int = 512,
) -> Solution:
    """Bracket the soft value of a POMDP, and find a policy of the belief that reaches the lower bound.

    Args:
        pomdp: the task, with its discount; a small one: its tables are dense here.
        horizon: number of steps T; None: without end, at a discount below 1.
        beta: inverse temperature of at least 0, in nats per unit of reward; infinite: the hard maximum.
        prior: over actions, (A,), which no state or belief changes; default uniform. Zeros forbid an action.
        tolerance: how far apart the bounds may be, in units of reward; default 1e-9 (1e-5 in float32) of the largest
            reward times T, or without end times 1 / (1 - discount).
        num_beliefs: the most beliefs to keep. Time grows with their square where not all are kept.

    Returns:
        The bounds; where they are further apart than the tolerance, they hold all the same. They hold up to rounding.

    Raises:
        TypeError: on something else than a POMDP.
        ValueError: on a horizon that does not go with the discount, a negative beta, a prior that is no distribution,
            or numbers that are traced: beliefs are searched outside of jit, vmap and grad.
    """
    horizon = check_horizon(horizon)
    process = check_process(pomdp, horizon, beta, prior)
    largest = jnp.max(jnp.abs(process.reward)) * (horizon or 1 / (1 - process.discount))
    digits = 1e-9 if process.reward.dtype == jnp.float64 else 1e-5
    within = digits * largest if tolerance is None else check_number("tolerance", tolerance)
    if not within >= 0:
        raise ValueError(f"tolerance is {tolerance}: bounds are never further apart than a number of at least 0.")
    known = Known(*(np.asarray(table, np.float64) for table in (process.transition, process.observation)))
    initial = np.asarray(pomdp.initial, np.float64)
    room = max(check_count("num_beliefs", num_beliefs), len(initial) + 1)
    depth = None if horizon is None else horizon - 1
    graph = belief_points.first_graph(known, initial / initial.sum(), min(room, max(FIRST, 2 * len(initial))), depth)
    while True:
        found = bounded(process, padded(graph), horizon, 0.1 * within)
        wider = graph
        if found.gap > within:
            greedy = np.asarray(found.greedy)[: len(graph.beliefs)]
            reached = belief_points.met(graph, greedy, float(process.discount), horizon or MOST_AHEAD)
            weights = reached * np.asarray(found.widths)[: len(reached)]
            wider, _ = belief_points.widened(known, graph, weights, min(room, 2 * len(graph.beliefs)))
        if len(wider.beliefs) == len(graph.beliefs):
            return found.solution(process, len(graph.beliefs), within)
        graph = wider


class Bracket(NamedTuple):
    """Bounds at some beliefs, the last of which may fill up a table.

    Attributes:
        beliefs: (N, S).
        tangents: linear functions, at all times where there is an end.
        lower, upper: of these beliefs, at all times where there is an end.
        gap: between both at the first belief.
        greedy: what the upper bound would do, on average over time, (N, A).
        widths: between both at beliefs outside, on average over time, (M,).
    """

    beliefs: Float[Array, "N S"]
    tangents: Float[Array, "*T N S"]
    lower: Float[Array, "*T N"]
    upper: Float[Array, "*T N"]
    gap: Float[Array, ""]
    greedy: Float[Array, "N A"]
    widths: Float[Array, " M"]

    def solution(self, process: Process, count: int, within: Array) -> Solution:
        """What users are given, of the first beliefs alone."""
        lower, upper = self.lower[..., :count], self.upper[..., :count]
        first = self.beliefs.shape[1]
        now = (first,) if lower.ndim == 1 else (0, first)
        policy = {"a": Lookahead(process, self.tangents[..., :count, :])}
        return Solution(lower[now], upper[now], jnp.abs(self.gap) <= within, policy, self.beliefs[:count], lower, upper)


@compiled
def bounded(process: Process, points: Points, horizon: int | None, tolerance: Array) -> Bracket:
    """The bounds at some beliefs."""
    if horizon is None:
        bounds, greedy = belief_bounds.without_end(process, points, tolerance, MOST_SWEEPS)
        widths = belief_bounds.widths(points, bounds)
        lower = belief_bounds.highest(points.beliefs, bounds.tangents)
    else:
        bounds, greedy = belief_bounds.until_the_end(process, points, horizon)
        greedy = jnp.mean(greedy, 0)
        widths = jnp.mean(lax.map(lambda now: belief_bounds.widths(points, now), bounds), 0)
        lower = belief_bounds.worth(points.beliefs, bounds.tangents)
    first = points.beliefs.shape[1]
    gap = (bounds.upper - lower)[(first,) if horizon is None else (0, first)]
    return Bracket(points.beliefs, bounds.tangents, lower, bounds.upper, gap, greedy, widths)


def padded(graph: Graph) -> Points:
    """A graph as arrays whose sizes are powers of two, so that few sizes are compiled."""
    beliefs, outside = filled(graph.beliefs, graph.beliefs[0]), filled(graph.outside, graph.beliefs[0])
    count = len(graph.beliefs)
    more = len(beliefs) - count
    following = np.where(graph.following < count, graph.following, graph.following + more)
    # What fills up is the first corner once more, and leads where that leads.
    following = np.concatenate([following, np.repeat(following[:1], more, 0)])
    chances = np.concatenate([graph.chances, np.repeat(graph.chances[:1], more, 0)])
    return Points(
        jnp.asarray(beliefs, float),
        jnp.asarray(outside, float),
        jnp.asarray(following, jnp.int32),
        jnp.asarray(chances, float),
    )


def filled(rows: Float[np.ndarray, "N S"], row: Float[np.ndarray, " S"]) -> Float[np.ndarray, "K S"]:
    """Rows and as many more of one row as make a power of two."""
    size = 1 << max(len(rows) - 1, 0).bit_length()
    return np.concatenate([rows, np.broadcast_to(row, (size - len(rows), len(row)))])


def check_process(pomdp: POMDP, horizon: int | None, beta: ArrayLike, prior: ArrayLike | None) -> Process:
    """What is controlled, checked.

    Raises:
        TypeError, ValueError: as `solve`.
    """
    if not isinstance(pomdp, POMDP):
        raise TypeError(f"pomdp must be a task of rlinf_ppl.tasks, POMDP; got {type(pomdp).__name__}.")
    tau = checks.as_reals("beta", beta)
    count = (pomdp.num_actions,)
    probs = jnp.full(count, 1 / count[0]) if prior is None else checks.as_reals("prior", prior)
    checks.check_shape("prior", probs.shape, [count], "the task's actions", count)
    if not all(map(checks.is_concrete, jax.tree.leaves((pomdp, tau, probs)))):
        raise ValueError("beliefs are searched for: call beliefs.solve outside of jit, vmap and grad.")
    if tau.ndim or not tau >= 0:
        raise ValueError(f"beta is {beta}: bounds of beliefs hold for one inverse temperature of at least 0.")
    if horizon is None and not pomdp.discount < 1:
        raise ValueError(f"without end the discount must be below 1; the task's is {float(pomdp.discount):g}.")
    probs = checks.as_distributions("prior", probs, ())
    transition = pomdp.mdp.dense().transition
    assert transition is not None
    return Process(transition, pomdp.observation, pomdp.expected_reward, probs, tau, pomdp.discount)
