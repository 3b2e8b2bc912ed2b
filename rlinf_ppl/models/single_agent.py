"""Control as inference for one agent (Levine 2018, Reinforcement learning and control as probabilistic inference).

    s_1 ~ p0,   a_t ~ p(a | s_t),   factor exp(beta r(s_t, a_t)),   s_{t+1} ~ P(. | s_t, a_t)

With discount gamma the process is alive at the next step with probability gamma; values are in nats.

    solve       Q = beta r + gamma E V,                         V = log sum_a p exp Q,   pi = p exp(Q - V)
    condition   Q = beta r + log(gamma E exp V + 1 - gamma),    V = log sum_a p exp Q

The first maximises the evidence lower bound with the true dynamics (Levine's section 3): its maximum is E V_1. The
second conditions the dynamics on optimality as well (his section 2.3): it is optimistic, and log p(O) = log E exp V_1.
They agree for deterministic dynamics, gamma = 1 and a fixed first state; otherwise ELBO <= log p(O). Levine takes a
uniform prior and drops its log |A| from V; here the prior always stands inside V.
"""

from typing import Any

from jaxtyping import Array
from numpyro.distributions import Categorical

from rlinf_ppl.models.arguments import action_prior, check_reward_times, check_task, finite_number
from rlinf_ppl.models.dynamics import first_state, next_state, varying, varying_task
from rlinf_ppl.program import ControlProgram, decide, optimality
from rlinf_ppl.tasks import MDP
from rlinf_ppl.types import ArrayLike


def step(mdp: MDP, prior: Array, beta: Array, s: Any) -> dict[str, Any]:
    """One step of the model."""
    a = decide("a", Categorical(probs=prior[s]))
    optimality(beta * mdp.reward[s, a])
    return {"s": next_state(mdp, s, a)}


def single_agent(
    mdp: MDP, horizon: int | None, beta: ArrayLike = 1.0, prior: ArrayLike | None = None, discount: ArrayLike = 1.0
) -> ControlProgram:
    """One agent in a Markov decision process.

    Args:
        mdp: the task, S states and A actions; its reward may have a leading time axis of length `horizon`.
        horizon: number of steps T; None: without end, which needs a discount below 1 and nothing that varies in time.
        beta: inverse temperature, in 1 / units of reward: how much a difference in reward matters.
        prior: action prior p(a | s), shape (S, A) or (T, S, A); default uniform. Zeros forbid an action.
        discount: gamma in [0, 1].

    Returns:
        The program, with state `s` and decision `a`; its values, ELBO and log evidence are in nats.

    Raises:
        TypeError: on something else than an MDP.
        ValueError: on shapes that do not fit, prior rows that are no distributions, a beta that is not finite.
    """
    check_task("mdp", mdp, MDP)
    check_reward_times(mdp, horizon)
    probabilities = action_prior("prior", prior, horizon, ("state",), (mdp.num_states, mdp.num_actions))
    args = varying_task(mdp), varying(probabilities, 2), finite_number("beta", beta)
    return ControlProgram(first_state, step, horizon, discount, args=args)
