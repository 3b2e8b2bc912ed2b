"""Matrix games that state a payoff for each player: two matrices, nashpy's games and pygambit's.

A `StochasticGame` has one reward, the agent's. Two payoff matrices fit where the opponent's is the same (a game of
common interest) or the negative of it (a zero-sum game); which of the two is the sign that belongs to the opponent's
inverse temperature:

    game, opponent_sign = normal_form.from_nashpy(rock_paper_scissors)
    program = models.balancing_q(game, 1, beta=5.0, opponent_beta=opponent_sign * 5.0)

Nothing is imported: the games are read by the attributes that those packages document.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rlinf_ppl.tasks import checks
from rlinf_ppl.tasks.stochastic_game import StochasticGame
from rlinf_ppl.types import ArrayLike

_ROUNDING = 1e-6
"""How far two payoffs may differ, relative to the largest, and count as equal: the rounding of float32."""


class NormalForm(NamedTuple):
    """A matrix game, and whether the opponent shares the agent's payoffs.

    Attributes:
        game: The game, with the agent's payoffs for its reward.
        opponent_sign: 1.0 where the opponent has the same payoffs, -1.0 where it has the opposite ones.
    """

    game: StochasticGame
    opponent_sign: float


def from_payoffs(
    payoffs: ArrayLike,
    opponent_payoffs: ArrayLike,
    *,
    action_names: Sequence[str] | None = None,
    opponent_action_names: Sequence[str] | None = None,
) -> NormalForm:
    """Read a game of two payoff matrices.

    Args:
        payoffs: What the agent gets, shape (A, B): a row for each of its actions, a column for each of the
            opponent's.
        opponent_payoffs: What the opponent gets, with the same axes: equal to `payoffs` or to -`payoffs`.
        action_names: A different strings.
        opponent_action_names: B different strings.

    Returns:
        The game, and the sign of the opponent's payoffs in it.

    Raises:
        TypeError: A matrix does not hold real numbers, or a name is no string.
        ValueError: The matrices have not two axes or different shapes, an entry is not finite, or the game is
            general-sum: the second matrix is neither equal nor opposite to the first.
    """
    game = StochasticGame.from_payoffs(payoffs, action_names=action_names, opponent_action_names=opponent_action_names)
    mine, other = game.reward[0], checks.as_reals("opponent_payoffs", opponent_payoffs)
    checks.check_shape("opponent_payoffs", other.shape, [mine.shape], "payoffs", mine.shape)
    checks.check_finite("opponent_payoffs", other)
    return NormalForm(game, _sign(np.asarray(mine), np.asarray(other)))


def _sign(payoffs: np.ndarray, opponent_payoffs: np.ndarray) -> float:
    """1.0 for equal payoffs, -1.0 for opposite ones."""
    limit = _ROUNDING * np.abs([payoffs, opponent_payoffs]).max()
    for sign in (1.0, -1.0):
        if (np.abs(opponent_payoffs - sign * payoffs) <= limit).all():
            return sign
    apart = np.minimum(np.abs(opponent_payoffs - payoffs), np.abs(opponent_payoffs + payoffs))
    row, column = np.unravel_index(np.argmax(apart), apart.shape) if (apart > limit).any() else (0, 0)
    raise ValueError(
        f"opponent_payoffs is neither payoffs nor -payoffs: in row {row}, column {column} the agent gets "
        f"{payoffs[row, column]:g} and the opponent {opponent_payoffs[row, column]:g}. Such a game is general-sum: "
        "it has two rewards, and a StochasticGame one. If only a constant is missing, subtract it: policies stay the "
        "same. Else make StochasticGame.from_payoffs of the agent's payoffs alone, and choose how the opponent relates "
        "to them by the sign of its inverse temperature."
    )


def from_nashpy(game: Any) -> NormalForm:
    """Read a game of the package nashpy: the row player is the agent.

    Args:
        game: A `nashpy.Game`, or anything with its `payoff_matrices`.

    Returns:
        The game, and the sign of the opponent's payoffs in it.

    Raises:
        TypeError: `game` has no pair `payoff_matrices`.
        ValueError: As in `from_payoffs`.
    """
    matrices = getattr(game, "payoff_matrices", None)
    if not isinstance(matrices, tuple | list) or len(matrices) != 2:
        raise TypeError(f"game must be a nashpy.Game, with a pair payoff_matrices; got {type(game).__name__}.")
    return from_payoffs(*matrices)


def from_gambit(game: Any) -> NormalForm:
    """Read a game of the package pygambit in strategic form: the first player is the agent.

    Strategies become actions and keep their labels where these are different. An extensive game is read by its
    strategic form, in which a strategy says what to do everywhere.

    Args:
        game: A `pygambit.Game` of two players.

    Returns:
        The game, and the sign of the opponent's payoffs in it.

    Raises:
        TypeError: `game` is no game of pygambit.
        ValueError: It has not two players, or as in `from_payoffs`.
    """
    if not hasattr(game, "to_arrays") or not hasattr(game, "players"):
        raise TypeError(f"game must be a pygambit.Game; got {type(game).__name__}.")
    if len(game.players) != 2:
        raise ValueError(f"game has {len(game.players)} players: a StochasticGame has two, the agent and the opponent.")
    payoffs, opponent_payoffs = (np.asarray(matrix, dtype=float) for matrix in game.to_arrays(dtype=float))
    names, opponent_names = (_labels(player) for player in game.players)
    return from_payoffs(payoffs, opponent_payoffs, action_names=names, opponent_action_names=opponent_names)


def _labels(player: Any) -> list[str] | None:
    """The labels of a player's strategies, or None where they do not tell them apart."""
    labels = [str(strategy.label) for strategy in player.strategies]
    return labels if len(set(labels)) == len(labels) else None
