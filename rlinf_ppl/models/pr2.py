"""PR2, probabilistic recursive reasoning: the agent moves, and its model of the opponent replies (Wen et al. 2019).

    s_1 ~ p0,   a_t ~ p(a | s_t),   b_t ~ p(b | s_t, a_t),   factor exp(beta r(s, a, b)),   s_{t+1} ~ P(. | s, a, b)

"If I do this, what would they do?": b is the agent's model of an opponent who shares the reward and sees a. With
discount gamma, values in nats and q(a, b | s) = pi(a | s) rho(b | s, a),

    Q(s, a, b) = beta r + gamma E V(s')
    Q(s, a) = log sum_b p(b | s, a) exp Q(s, a, b),     rho = p(b | s, a) exp(Q(s, a, b) - Q(s, a))
    V(s) = log sum_a p(a | s) exp Q(s, a),              pi = p(a | s) exp(Q(s, a) - V(s))

It is the model of ROMMEO in the other order: for the same joint prior p(a, b | s) both have the same V, joint policy
and pi(a | s). Here the agent's own policy needs no marginal, and is executed as it stands.
"""

from typing import Any

from jaxtyping import Array
from numpyro.distributions import Categorical

from rlinf_ppl.models.arguments import agent_leads, finite_number
from rlinf_ppl.models.dynamics import first_state, next_state
from rlinf_ppl.program import ControlProgram, decide, optimality
from rlinf_ppl.tasks import StochasticGame
from rlinf_ppl.types import ArrayLike


def step(game: StochasticGame, prior: Array, opponent_prior: Array, beta: Array, s: Any) -> dict[str, Any]:
    """One step of the model."""
    a = decide("a", Categorical(probs=prior[s]))
    b = decide("b", Categorical(probs=opponent_prior[s, a]))
    optimality(beta * game.reward[s, a, b])
    return {"s": next_state(game, s, a, b)}


def pr2(
    game: StochasticGame,
    horizon: int | None,
    beta: ArrayLike = 1.0,
    prior: ArrayLike | None = None,
    opponent_prior: ArrayLike | None = None,
    discount: ArrayLike = 1.0,
) -> ControlProgram:
    """An agent that expects a friendly opponent to reply to what it does.

    Args:
        game: the game, S states, A actions of the agent and B of the opponent; its reward, which both share, may have
            a leading time axis of length `horizon`.
        horizon: number of steps T; None: without end, which needs a discount below 1 and nothing that varies in time.
        beta: inverse temperature of both, in 1 / units of reward.
        prior: p(a | s), shape (S, A) or (T, S, A); default uniform. Zeros forbid an action.
        opponent_prior: p(b | s, a), shape (S, A, B) or (T, S, A, B); default uniform.
        discount: gamma in [0, 1].

    Returns:
        The program, with state `s` and decisions `a` then `b`; its values, ELBO and log evidence are in nats.

    Raises:
        TypeError: on something else than a StochasticGame.
        ValueError: on shapes that do not fit, prior rows that are no distributions, a beta that is not finite.
    """
    play = agent_leads(game, horizon, prior, opponent_prior)
    args = play.game, play.prior, play.opponent_prior, finite_number("beta", beta)
    return ControlProgram(first_state, step, horizon, discount, args=args)
