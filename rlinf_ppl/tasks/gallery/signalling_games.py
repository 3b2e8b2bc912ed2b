"""Games of two who share a reward, hold a card each, and can tell of it by what they do alone.

Each is a `PartiallyObservedGame`. A horizon of 2 plays a game of turns once; `card_game` may go on.
"""

import itertools
from typing import Any

import numpy as np

from rlinf_ppl.tasks import checks
from rlinf_ppl.tasks.partially_observed_game import PartiallyObservedGame
from rlinf_ppl.types import ArrayLike

TINY_HANABI: dict[str, Any] = {
    "A": [[[[0, 1], [0, 0]], [[0, 1], [3, 2]]], [[[3, 3], [3, 2]], [[2, 0], [3, 3]]]],
    "B": [[[[1, 0], [1, 0]], [[0, 1], [0, 1]]], [[[0, 1], [0, 0]], [[1, 0], [1, 0]]]],
    "C": [[[[3, 0], [0, 3]], [[2, 0], [3, 3]]], [[[2, 2], [3, 0]], [[0, 1], [0, 2]]]],
    "D": [[[[3, 0], [1, 3]], [[3, 0], [3, 0]]], [[[3, 2], [0, 2]], [[0, 1], [0, 0]]]],
    "E": [
        [[[10, 0, 0], [4, 8, 4], [10, 0, 0]], [[0, 0, 10], [4, 8, 4], [0, 0, 10]]],
        [[[0, 0, 10], [4, 8, 4], [0, 0, 0]], [[10, 0, 0], [4, 8, 4], [10, 0, 0]]],
    ],
    "F": [
        [[[0, 3], [3, 2]], [[0, 0], [0, 1]], [[3, 1], [2, 1]]],
        [[[0, 2], [0, 1]], [[1, 2], [1, 2]], [[0, 1], [0, 3]]],
        [[[1, 3], [1, 2]], [[0, 3], [2, 2]], [[3, 1], [3, 0]]],
    ],
}
"""Payoffs of the tiny Hanabi suite by card 1, card 2, action 1 and action 2, for `signalling_game`.

Their best returns are 2.25, 1, 2.5, 2.5, 10 and 7/3 (Sokota et al. 2021, Solving common-payoff games with approximate
policy iteration; numbers from github.com/ssokota/tiny-hanabi). E is `two_step_game`.
"""


def signalling_game(payoffs: ArrayLike) -> PartiallyObservedGame:
    """Each is dealt a card that it alone sees; the agent acts, the opponent sees how and acts, and both win.

    The action of whoever waits changes nothing and is seen by both all the same.

    Args:
        payoffs: What both win, by the agent's card, the opponent's, and their actions, shape (X, Y, A, B). Cards are
            equally likely. Finite.

    Returns:
        A game to be played with a horizon of 2. States are the deals, "x,y"; then the deals with the first action,
        "x,y,a"; and the end. Private observations are the cards; the public one is 0, or after the first action 1 + a.

    Raises:
        TypeError: `payoffs` does not hold real numbers.
        ValueError: `payoffs` has not four axes, or an entry is not finite.
    """
    table = checks.as_reals("payoffs", payoffs)
    axes = ("cards of the agent", "cards of the opponent", "actions of the agent", "actions of the opponent")
    checks.check_not_empty("payoffs", table.shape, axes)
    checks.check_finite("payoffs", table)
    own, others, actions, replies = table.shape
    deals = own * others
    end = deals * (1 + actions)
    # Of each state: both cards, and the first action once it was made.
    x, y, first = np.indices((own, others, actions)).reshape(3, -1)
    x, y = (np.append(np.append(cards[::actions], cards), 0) for cards in (x, y))
    called = np.concatenate([np.zeros(deals, int), 1 + first, [0]])
    following = np.full((end + 1, actions), end)
    following[:deals] = deals + np.arange(deals * actions).reshape(deals, actions)
    reward = np.zeros((end + 1, actions, replies))
    reward[deals:end] = np.asarray(table).reshape(-1, 1, replies)
    pairs = (end + 1, actions, replies)
    names = [f"{i},{j}" for i, j in zip(x[:deals], y[:deals], strict=True)]
    return PartiallyObservedGame(
        np.broadcast_to(np.eye(end + 1)[following][:, :, None], (*pairs, end + 1)),
        reward,
        np.broadcast_to(np.eye(own)[x][:, None], (end + 1, actions, own)),
        np.broadcast_to(np.eye(others)[y][:, None], (end + 1, replies, others)),
        np.broadcast_to(np.eye(1 + actions)[called][:, None, None], (*pairs, 1 + actions)),
        np.append(np.full(deals, 1 / deals), np.zeros(end + 1 - deals)),
        initial_observation=np.eye(own)[x],
        initial_opponent_observation=np.eye(others)[y],
        state_names=[*names, *(f"{name},{a}" for name in names for a in range(actions)), "end"],
    )


def two_step_game() -> PartiallyObservedGame:
    """The two-step game of the Bayesian Action Decoder (Foerster et al. 2019), which is tiny Hanabi E.

    The best policies win 10: the agent plays 2 with card 0 and 0 with card 1, and the opponent knows from it what it
    holds. The signal the other way round, 0 and 2, wins 7.5, as actions pay as well as they tell. Whoever tells nothing
    plays 1, which wins 8.

    Returns:
        A game with 17 states, 3 x 3 actions and 2 x 2 cards, to be played with a horizon of 2.
    """
    return signalling_game(TINY_HANABI["E"])


def card_game() -> PartiallyObservedGame:
    """Two hold different cards of three; the holder of the higher one should act alone, and nobody knows who that is.

    Each round both act at once, 0 or 1. It costs 1, or nothing: nothing with probability .8 where the holder of the
    higher card alone plays 1, and .2 otherwise. A public sign is 1 where the agent holds the higher card and 0 where
    the opponent does, which is right with probability .6, or .9 after both played 1. So what they do, what it cost and
    the sign tell all who watch of the cards, which stay.

    Returns:
        A game with 6 states, the deals "x,y", 2 x 2 actions, private observations 0, 1 and 2, the cards, a public sign,
        which is 0 at the start, and random rewards of -1 and 0.
    """
    deals = list(itertools.permutations(range(3), 2))
    x, y = np.array(deals).T
    higher = x > y
    # By who holds the higher card, the opponent or the agent, and by both actions.
    free = np.full((2, 2, 2), 0.2)
    free[0, 0, 1] = free[1, 1, 0] = 0.8
    right = np.array([[0.6, 0.6], [0.6, 0.9]])
    sign = np.stack([1 - right, right])[higher.astype(int)]
    paid = free[higher.astype(int)]
    return PartiallyObservedGame(
        np.broadcast_to(np.eye(6)[:, None, None], (6, 2, 2, 6)),
        np.stack([1 - paid, paid], -1),
        np.broadcast_to(np.eye(3)[x][:, None], (6, 2, 3)),
        np.broadcast_to(np.eye(3)[y][:, None], (6, 2, 3)),
        np.stack([1 - sign, sign], -1),
        np.full(6, 1 / 6),
        initial_observation=np.eye(3)[x],
        initial_opponent_observation=np.eye(3)[y],
        reward_values=[-1.0, 0.0],
        state_names=[f"{i},{j}" for i, j in deals],
    )
