"""Balancing Q: two players, each with an inverse temperature of its own (Grau-Moya, Leibfried & Bou-Ammar 2018).

    s_1 ~ p0,   a_t and b_t chosen in turn,   optimality r(s_t, a_t, b_t),   s_{t+1} ~ P(. | s_t, a_t, b_t)

Both move one objective, in units of reward, with p and p' the action priors of agent and opponent:

    E sum_t gamma^t [ r - (1 / beta) log(pi / p) - (1 / beta') log(rho / p') ]

A player with a positive inverse temperature maximises it, with a negative one minimises it, and at 0 keeps its prior;
the size is how rational it is. Equal signs are a team, opposite signs a zero-sum game, and its best policies a saddle
point, which no ascent of one ELBO finds. With CE_beta(x; p) = (1 / beta) log E_p exp(beta x), E_p x at beta = 0, and
Q(s, a, b) = r + gamma E V(s'), there are two orders of play here:

    agent leads      pi(a | s) rho(b | s, a)    Q(s, a) = CE_beta'(Q(s, a, .); p'(b | s, a)),  V = CE_beta(Q(s, .); p)
    opponent leads   rho(b | s) pi(a | s, b)    Q(s, b) = CE_beta(Q(s, ., b); p(a | s, b)),    V = CE_beta'(Q(s, .); p')

and simultaneous play, which is `quantal_response`. Each has a V and a Q of its own, and with independent priors in
zero-sum play with beta > 0 > beta'

    V(agent leads) <= V(simultaneous) <= V(opponent leads):    to be seen first is to be at a disadvantage.

At infinite inverse temperatures the leader's policy is pure: agent leads is maximin over pure actions (-1 on matching
pennies), not the mixed value of friend-or-foe Q-learning (0), which is the limit of simultaneous play. Where both
inverse temperatures are equal the order makes no difference for the same joint prior: beta V is the V of PR2.

Departures from the thesis that this follows (Sakulwongtana, Multi-agent learning with Bayesian inference, section 3.4):
its equation 3.31, one Q for both players, holds for equal inverse temperatures only; 3.32 and 3.33 lack the discount;
3.23-3.28 minimise a KL whatever the sign, where a negative one minimises the objective; B.1 lacks the exponential of Q.
"""

from typing import Any

from jaxtyping import Array
from numpyro.distributions import Categorical

from rlinf_ppl.models.arguments import Leading, agent_leads, inverse_temperature, opponent_leads
from rlinf_ppl.models.dynamics import first_state, next_state
from rlinf_ppl.program import ControlProgram, decide, optimality
from rlinf_ppl.tasks import StochasticGame
from rlinf_ppl.types import ArrayLike


def agent_leads_step(
    game: StochasticGame, prior: Array, opponent_prior: Array, beta: Array, opponent_beta: Array, s: Any
) -> dict[str, Any]:
    """One step in which the opponent sees what the agent does."""
    a = decide("a", Categorical(probs=prior[s]), inverse_temperature=beta)
    b = decide("b", Categorical(probs=opponent_prior[s, a]), inverse_temperature=opponent_beta)
    return following(game, s, a, b)


def opponent_leads_step(
    game: StochasticGame, prior: Array, opponent_prior: Array, beta: Array, opponent_beta: Array, s: Any
) -> dict[str, Any]:
    """One step in which the agent sees what the opponent does."""
    b = decide("b", Categorical(probs=opponent_prior[s]), inverse_temperature=opponent_beta)
    a = decide("a", Categorical(probs=prior[s, b]), inverse_temperature=beta)
    return following(game, s, a, b)


def following(game: StochasticGame, s: Any, a: Any, b: Any) -> dict[str, Any]:
    """The reward of a pair of actions, and the next state."""
    optimality(game.reward[s, a, b])
    return {"s": next_state(game, s, a, b)}


def balancing_q(
    game: StochasticGame,
    horizon: int | None,
    beta: ArrayLike,
    opponent_beta: ArrayLike,
    prior: ArrayLike | None = None,
    opponent_prior: ArrayLike | None = None,
    discount: ArrayLike = 1.0,
) -> ControlProgram:
    """Two players with two inverse temperatures; the agent leads, and the opponent sees what it does.

    Args:
        game: the game, S states, A actions of the agent and B of the opponent; its reward may have a leading time axis
            of length `horizon`.
        horizon: number of steps T; None: without end, which needs a discount below 1 and nothing that varies in time.
        beta: the agent's inverse temperature, in nats per unit of reward, of any sign; infinite: the best action only.
        opponent_beta: the opponent's: negative, it wants the agent to get little.
        prior: p(a | s), shape (S, A) or (T, S, A); default uniform. Zeros forbid an action.
        opponent_prior: p(b | s, a), shape (S, A, B) or (T, S, A, B); default uniform.
        discount: gamma in [0, 1].

    Returns:
        The program, with state `s` and decisions `a` then `b`; values in units of reward. Unless the two inverse
        temperatures are equal there is no joint model to condition.

    Raises:
        TypeError: on something else than a StochasticGame.
        ValueError: on shapes that do not fit, prior rows that are no distributions, an inverse temperature that is no
            number.
    """
    play = agent_leads(game, horizon, prior, opponent_prior)
    args = arguments(play, beta, opponent_beta)
    return ControlProgram(first_state, agent_leads_step, horizon, discount, args=args)


def balancing_q_opponent_leads(
    game: StochasticGame,
    horizon: int | None,
    beta: ArrayLike,
    opponent_beta: ArrayLike,
    prior: ArrayLike | None = None,
    opponent_prior: ArrayLike | None = None,
    discount: ArrayLike = 1.0,
) -> ControlProgram:
    """The same with the opponent in the lead: the agent sees what it does.

    Args:
        game: as in `balancing_q`.
        horizon: as in `balancing_q`.
        beta: the agent's inverse temperature, in nats per unit of reward.
        opponent_beta: the opponent's.
        prior: p(a | s, b), shape (S, B, A) or (T, S, B, A); default uniform. Zeros forbid an action.
        opponent_prior: p(b | s), shape (S, B) or (T, S, B); default uniform.
        discount: gamma in [0, 1].

    Returns:
        The program, with state `s` and decisions `b` then `a`; values in units of reward.

    Raises:
        TypeError, ValueError: as in `balancing_q`.
    """
    play = opponent_leads(game, horizon, prior, opponent_prior)
    args = arguments(play, beta, opponent_beta)
    return ControlProgram(first_state, opponent_leads_step, horizon, discount, args=args)


def arguments(play: Leading, beta: ArrayLike, opponent_beta: ArrayLike) -> tuple[Any, ...]:
    """What the steps of both orders read."""
    betas = inverse_temperature("beta", beta), inverse_temperature("opponent_beta", opponent_beta)
    return play.game, play.prior, play.opponent_prior, *betas
