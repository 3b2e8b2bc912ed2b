"""Quantal response: two players who move at the same time (McKelvey & Palfrey 1995, 1998).

    s_1 ~ p0,   a_t and b_t chosen unseen by each other,   optimality r(s_t, a_t, b_t),   s_{t+1} ~ P(. | s_t, a_t, b_t)

The objective is that of `balancing_q`, in units of reward, with policies pi(a | s) and rho(b | s) that are independent:

    E sum_t gamma^t [ r - (1 / beta) log(pi / p) - (1 / beta') log(rho / p') ]

Each policy is the soft best reply to the other, at every state and time: with Q(s, a, b) = r + gamma E V(s'),

    pi = p exp(beta E_rho Q) / Z,                          rho = p' exp(beta' E_pi Q) / Z'
    V = E Q - KL(pi || p) / beta - KL(rho || p') / beta'

a logit equilibrium of the game Q(s, ., .), and of agents with foresight where the game goes on. For beta and beta' of
opposite signs it is unique, and tends to minimax play, mixed where the game asks for it. For equal signs there may be
several; this is the one on the principal branch, which starts at the priors for inverse temperatures of 0.
McKelvey & Palfrey have uniform priors; their precision is |beta|, and the opponent's payoff has the sign of beta'.

It is what the thesis of Sakulwongtana states as 1.5 and 3.20; its "same final optimal policy" as that of players in
sequence (3.21) is wrong. With independent priors and beta > 0 > beta', V lies between those of the two leaders.
"""

from typing import Any

from jaxtyping import Array
from numpyro.distributions import Categorical

from rlinf_ppl.models.arguments import action_prior, check_game, finite_number
from rlinf_ppl.models.dynamics import first_state, next_state, varying, varying_task
from rlinf_ppl.program import ControlProgram, decide, optimality
from rlinf_ppl.tasks import StochasticGame
from rlinf_ppl.types import ArrayLike


def step(
    game: StochasticGame, prior: Array, opponent_prior: Array, beta: Array, opponent_beta: Array, s: Any
) -> dict[str, Any]:
    """One step in which nobody sees what the other does."""
    a = decide("a", Categorical(probs=prior[s]), beta)
    b = decide("b", Categorical(probs=opponent_prior[s]), opponent_beta, unseen=("a",))
    optimality(game.reward[s, a, b])
    return {"s": next_state(game, s, a, b)}


def quantal_response(
    game: StochasticGame,
    horizon: int | None,
    beta: ArrayLike,
    opponent_beta: ArrayLike,
    prior: ArrayLike | None = None,
    opponent_prior: ArrayLike | None = None,
    discount: ArrayLike = 1.0,
) -> ControlProgram:
    """Two players with two inverse temperatures who move at the same time.

    Args:
        game: the game, S states, A actions of the agent and B of the opponent; its reward may have a leading time axis
            of length `horizon`.
        horizon: number of steps T; None: without end, which needs a discount below 1 and nothing that varies in time.
        beta: the agent's inverse temperature, in nats per unit of reward, of any sign, finite.
        opponent_beta: the opponent's: negative, it wants the agent to get little.
        prior: p(a | s), shape (S, A) or (T, S, A); default uniform. Zeros forbid an action.
        opponent_prior: p(b | s), shape (S, B) or (T, S, B); default uniform.
        discount: gamma in [0, 1].

    Returns:
        The program, with state `s` and decisions `a` and `b`, whose policies depend on the state alone; values in units
        of reward. `exact.solve` and `svi.fit` work; there is no joint model to condition.

    Raises:
        TypeError: on something else than a StochasticGame.
        ValueError: on shapes that do not fit, prior rows that are no distributions, an inverse temperature that is not
            finite.
    """
    check_game(game, horizon)
    own = action_prior("prior", prior, horizon, ("state",), (game.num_states, game.num_actions))
    others = (game.num_states, game.num_opponent_actions)
    opposing = action_prior("opponent_prior", opponent_prior, horizon, ("state",), others)
    betas = finite_number("beta", beta), finite_number("opponent_beta", opponent_beta)
    args = varying_task(game), varying(own, 2), varying(opposing, 2), *betas
    return ControlProgram(first_state, step, horizon, discount, args=args)
