"""ROMMEO: the opponent's model moves first, the agent replies (Tian et al. 2019, A regularized opponent model).

    s_1 ~ p0,   b_t ~ p(b | s_t),   a_t ~ p(a | s_t, b_t),   factor exp(beta r(s, a, b)),   s_{t+1} ~ P(. | s, a, b)

One agent that thinks for two: b is its model of an opponent who shares the reward, and optimality chooses both. With
discount gamma, values in nats and q(a, b | s) = rho(b | s) pi(a | s, b),

    Q(s, a, b) = beta r + gamma E V(s')
    Q(s, b) = log sum_a p(a | s, b) exp Q(s, a, b),     pi = p(a | s, b) exp(Q(s, a, b) - Q(s, b))
    V(s) = log sum_b p(b | s) exp Q(s, b),              rho = p(b | s) exp(Q(s, b) - V(s))

Where the priors of this model and of PR2 are the same joint prior p(a, b | s), and independent ones always are, both
have the same V, the same joint policy and so the same pi(a | s) = sum_b rho(b | s) pi(a | s, b), which is what an agent
executes that cannot see b. Acting on that marginal loses the correlation with the opponent that the optimum relies on.

The reward's factor is unnormalised, and priors stand inside V; Tian et al. give pi an entropy instead of a prior, which
for a uniform one differs by log A a step.
"""

from typing import Any

from jaxtyping import Array
from numpyro.distributions import Categorical

from rlinf_ppl.models.arguments import finite_number, opponent_leads
from rlinf_ppl.models.dynamics import first_state, next_state
from rlinf_ppl.program import ControlProgram, decide, optimality
from rlinf_ppl.tasks import StochasticGame
from rlinf_ppl.types import ArrayLike


def step(game: StochasticGame, prior: Array, opponent_prior: Array, beta: Array, s: Any) -> dict[str, Any]:
    """One step of the model."""
    b = decide("b", Categorical(probs=opponent_prior[s]))
    a = decide("a", Categorical(probs=prior[s, b]))
    optimality(beta * game.reward[s, a, b])
    return {"s": next_state(game, s, a, b)}


def rommeo(
    game: StochasticGame,
    horizon: int | None,
    beta: ArrayLike = 1.0,
    prior: ArrayLike | None = None,
    opponent_prior: ArrayLike | None = None,
    discount: ArrayLike = 1.0,
) -> ControlProgram:
    """An agent that chooses the opponent's action as well, then replies to it.

    Args:
        game: the game, S states, A actions of the agent and B of the opponent; its reward, which both share, may have
            a leading time axis of length `horizon`.
        horizon: number of steps T; None: without end, which needs a discount below 1 and nothing that varies in time.
        beta: inverse temperature of both, in 1 / units of reward.
        prior: p(a | s, b), shape (S, B, A) or (T, S, B, A); default uniform. Zeros forbid an action.
        opponent_prior: p(b | s), shape (S, B) or (T, S, B); default uniform.
        discount: gamma in [0, 1].

    Returns:
        The program, with state `s` and decisions `b` then `a`; its values, ELBO and log evidence are in nats.

    Raises:
        TypeError: on something else than a StochasticGame.
        ValueError: on shapes that do not fit, prior rows that are no distributions, a beta that is not finite.
    """
    play = opponent_leads(game, horizon, prior, opponent_prior)
    args = play.game, play.prior, play.opponent_prior, finite_number("beta", beta)
    return ControlProgram(first_state, step, horizon, discount, args=args)
