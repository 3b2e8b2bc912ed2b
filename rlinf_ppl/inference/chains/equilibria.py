"""All equilibria of a one-shot game that a search can find, the one of `exact.solve` first.

The index of an equilibrium is the sign of the determinant of I - (the derivative of the replies). Where all of them
are regular the indices add up to 1 (Lefschetz's theorem on fixed points), so another sum says that some are missing.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rlinf_ppl import algebra
from rlinf_ppl.algebra import Chain, Message, Site
from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.algebra.equilibrium import Player, gap, judged, policies, principal, settle
from rlinf_ppl.algebra.times import at_one_time
from rlinf_ppl.inference.arguments import check_count
from rlinf_ppl.program import ControlProgram, read

SAME = 1e-6


class Equilibria(NamedTuple):
    """The logit equilibria of a one-shot game, N of them: the one on the principal branch, then by value.

    Attributes:
        policy: for each decision probabilities (N, K).
        value: in units of optimality, (N,).
        residual: the largest difference of a probability from the reply to the others, (N,).
        stable: whether replies that adjust slowly come back to it, (N,).
        indices: 1 or -1, (N,); 0 where it is on the point of splitting.
        complete: whether the indices add up to 1, as those of all equilibria do.
    """

    policy: dict[str, Float[Array, "N ..."]]
    value: Float[Array, " N"]
    residual: Float[Array, " N"]
    stable: Bool[Array, " N"]
    indices: Int[Array, " N"]
    complete: bool


def equilibria(program: ControlProgram, num_starts: int = 200) -> Equilibria:
    """Search for the equilibria of decisions that do not see each other, by Newton's method from many policies.

    Args:
        program: one step (horizon 1), one state, and its decisions all taken at the same time, by `unseen`.
        num_starts: how many policies to start from, beside the pure ones and the principal equilibrium; the same ones
            on every call.

    Returns:
        What was found. It may be less than there is: see `complete`.

    Raises:
        TypeError: inside jit, vmap or grad: the number of equilibria depends on the numbers.
        ValueError: where the program has several steps or states, or decisions that see each other.
    """
    num_starts, chain = check_count("num_starts", num_starts), read(program)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(chain)):
        raise TypeError("exact.equilibria cannot run inside jit, vmap or grad: its result's shape depends on numbers.")
    if chain.horizon != 1:
        raise ValueError(
            f"exact.equilibria lists those of one-shot games, and the horizon is {chain.horizon}; exact.solve follows "
            "the principal branch at every step of a longer one."
        )
    blocks = [site for site in chain.step.sites if site.together]
    decisions = chain.priors()
    if not blocks or {blocks[-1].name, *blocks[-1].together} != set(decisions):
        raise ValueError(
            f"exact.equilibria takes a game whose decisions are all taken at the same time; those of this program are "
            f"{list(decisions)}: mark them by decide(..., unseen=(...)), as models.quantal_response does."
        )
    sizes = {axis: chain.size()[axis] for axis in dict(chain.scopes)[blocks[-1].name]}
    if any(size > 1 for size in sizes.values()):
        raise ValueError(
            f"the decisions depend on {sizes} values; exact.equilibria takes a game of one state: fix the others, as "
            "StochasticGame.from_payoffs(game.reward[s]) does."
        )
    w, players, names = game_of(chain)
    starts = [np.asarray(own) for own in profiles([len(player.prior) for player in players], num_starts)]
    found = search(w, players, [jnp.asarray(own, w.dtype) for own in starts])
    return chosen(names, *jax.device_get(found))


@compiled
def game_of(chain: Chain) -> tuple[Float[Array, "..."], tuple[Player, ...], tuple[str, ...]]:
    """What the joint values of the decisions are worth, and the players in the order of its axes."""
    seen: list[Any] = []

    def together(sites: tuple[Site, ...], w: Message) -> tuple[Message, tuple[Any, ...], Array]:
        # What comes before the decisions is not asked for, so any message will do to walk on.
        seen.append((sites, w.whole))
        return chain.zero, tuple(site.law for site in sites), jnp.zeros(())

    rules = algebra.solve_rules()._replace(together=together)
    last = algebra.walk(chain.final, chain.zero, algebra.expectation_rules({}))[0].over(chain.carried, chain.size())
    algebra.through(at_one_time(chain.step, 0), last, rules)
    sites, w = seen[0]
    names, size = tuple(site.name for site in sites), chain.size()
    scope = dict(chain.scopes)[names[0]]
    array = w.over((*scope, *names), size).array.reshape([size[name] for name in names])
    players = tuple(
        Player(
            site.law.table.array.reshape(-1),
            None if site.inverse_temperature is None else site.inverse_temperature.array,
            site.law.regularizer,
        )
        for site in sites
    )
    return array, players, names


def profiles(sizes: list[int], number: int) -> list[np.ndarray]:
    """Policies to start from, for each player (N, K): pure ones, at most `number`, and as many mixed ones."""
    pure = np.stack(np.unravel_index(np.arange(min(int(np.prod(sizes)), number)), sizes), -1)
    # An additive recurrence fills the cube evenly (Roberts 2018); minus log makes points of the simplex of them.
    dimension = sum(sizes)
    root = 2.0
    for _ in range(50):
        root = (1 + root) ** (1 / (dimension + 1))
    cube = (0.5 + np.outer(1 + np.arange(number), root ** -np.arange(1.0, dimension + 1))) % 1
    weights = -np.log(np.clip(cube, 1e-12, 1.0))
    mixed = np.split(weights, np.cumsum(sizes)[:-1], axis=1)
    return [
        np.concatenate([np.eye(size)[pure[:, i]], own / own.sum(1, keepdims=True)])
        for i, (size, own) in enumerate(zip(sizes, mixed, strict=True))
    ]


@compiled
def search(
    w: Float[Array, "..."], players: tuple[Player, ...], starts: list[Array]
) -> tuple[tuple[Array, ...], Array, Array, Array]:
    """Policies, values, residuals and derivatives of `gap` where the search ends; the principal one first."""
    one = jnp.ones((), w.dtype)
    logits = jnp.concatenate([principal(w, players)[None], jax.vmap(lambda *q: settle(w, players, list(q)))(*starts)])
    q, value, residual = jax.vmap(lambda x: judged(w, players, policies(players, x)))(logits)
    slope = jax.vmap(jax.jacfwd(lambda x: gap(w, players, x, one)))(logits)
    return q, value, residual, slope


def chosen(names: tuple[str, ...], q: Any, value: Any, residual: Any, slope: Any) -> Equilibria:
    """The different ones among those that are equilibria."""
    together = np.concatenate(q, 1)
    good = residual <= np.finfo(together.dtype).eps ** 0.5
    kept: list[int] = [0]
    for i in np.flatnonzero(good):
        if min(np.max(np.abs(together[i] - together[j])) for j in kept) > SAME:
            kept.append(int(i))
    kept = [0, *sorted(kept[1:], key=lambda i: -value[i])]
    curves = [np.linalg.eigvals(slope[i]) for i in kept]
    index = np.array([int(np.sign(np.prod(roots).real)) for roots in curves])
    stable = np.array([bool(np.min(roots.real) > 0) for roots in curves])
    order = np.array(kept)
    return Equilibria(
        {name: jnp.asarray(own[order]) for name, own in zip(names, q, strict=True)},
        jnp.asarray(value[order]),
        jnp.asarray(residual[order]),
        jnp.asarray(stable),
        jnp.asarray(index),
        bool(index.sum() == 1),
    )
