"""Matrix games of two players: what the agent gets for each pair of actions, a row an action of its own.

Each is a `StochasticGame` with one state: a horizon of 1 plays it once. The opponent shares these payoffs under a
positive inverse temperature, and opposes them under a negative one.
"""

from rlinf_ppl.tasks.gallery.maps import check_rewards
from rlinf_ppl.tasks.stochastic_game import StochasticGame
from rlinf_ppl.types import RealNumber


def friend_or_foe() -> StochasticGame:
    """Three actions each, where the best reply depends on whether the opponent is a friend or a foe.

        2   3   3
        1   4   0
        1   0  10

    Friends should meet at (3, 3), which pays 10; (2, 2), which pays 4, is the other pure equilibrium between them. An
    opponent who wants the agent to get little leaves the first row as the one that is safe: the only equilibrium of
    the zero-sum game is (1, 1), and pays 2. (Counted from 1, as in the game's source, Sakulwongtana's thesis on
    multi-agent learning with Bayesian inference, section 3.1.)

    Returns:
        A game with 1 state and 3 x 3 actions.
    """
    return StochasticGame.from_payoffs([[2, 3, 3], [1, 4, 0], [1, 0, 10]])


def climbing_game() -> StochasticGame:
    """The climbing game (Claus & Boutilier 1998): the best pair of actions is next to the worst ones.

         11  -30    0
        -30    7    6
          0    0    5

    Whoever averages over what the other may do avoids the first action, although the first pair pays most.

    Returns:
        A game with 1 state and 3 x 3 actions.
    """
    return StochasticGame.from_payoffs([[11, -30, 0], [-30, 7, 6], [0, 0, 5]])


def penalty_game(penalty: RealNumber = 0.0) -> StochasticGame:
    """The penalty game (Claus & Boutilier 1998): two best pairs of actions, and a price for mixing them up.

             10    0   penalty
              0    2    0
        penalty    0   10

    Args:
        penalty: What the pairs (1, 3) and (3, 1) pay, 0 or below.

    Returns:
        A game with 1 state and 3 x 3 actions.

    Raises:
        ValueError: `penalty` is not finite.
    """
    check_rewards(penalty=penalty)
    return StochasticGame.from_payoffs([[10, 0, penalty], [0, 2, 0], [penalty, 0, 10]])


def matching_pennies() -> StochasticGame:
    """The agent wins 1 where both show the same side of a coin and loses 1 where they do not.

    As a zero-sum game it has no pure equilibrium: 1/2 each, with value 0, is the only one. Who moves first and is
    seen loses 1, whoever moves last wins.

    Returns:
        A game with 1 state and 2 x 2 actions.
    """
    sides = ("heads", "tails")
    return StochasticGame.from_payoffs([[1, -1], [-1, 1]], action_names=sides, opponent_action_names=sides)


def coordination_game(reward: RealNumber = 1.0, other_reward: RealNumber = 1.0) -> StochasticGame:
    """Two players who have to do the same; with equal rewards nothing says which.

    It shows what acting on marginals loses: the best joint plan does the same with certainty, and its marginals, drawn
    independently, meet half of the time.

    Args:
        reward: Paid where both take the first action.
        other_reward: Paid where both take the second.

    Returns:
        A game with 1 state and 2 x 2 actions.

    Raises:
        ValueError: A reward is not finite.
    """
    check_rewards(reward=reward, other_reward=other_reward)
    return StochasticGame.from_payoffs([[reward, 0], [0, other_reward]])
