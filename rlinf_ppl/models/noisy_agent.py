"""An agent that acts on noisy memories, as somebody who was seen to behave: see `noisy_values`.

    a_t ~ pi(. | s_t) = E softmax(beta (q(s_t, .) + std(s_t, .) z)),   s_{t+1} ~ P(. | s_t, a_t)

The choices are the decision's own prior: nothing is optimised in this program. What it is for is to be inverted.
"""

from typing import Any

from jaxtyping import Array
from numpyro.distributions import Categorical

from rlinf_ppl.models.arguments import check_reward_times
from rlinf_ppl.models.dynamics import first_state, next_state, varying, varying_task
from rlinf_ppl.models.noisy_values import discount_of, noisy_values
from rlinf_ppl.program import ControlProgram, decide
from rlinf_ppl.tasks import MDP
from rlinf_ppl.types import ArrayLike


def step(mdp: MDP, policy: Array, s: Any) -> dict[str, Any]:
    """One step of an agent with noisy memories: its choices are its own, and nothing is optimised."""
    a = decide("a", Categorical(probs=policy[s]))
    return {"s": next_state(mdp, s, a)}


def noisy_agent(
    mdp: MDP,
    horizon: int | None,
    std: ArrayLike,
    beta: ArrayLike,
    discount: ArrayLike = 1.0,
    value_discount: ArrayLike | None = None,
) -> ControlProgram:
    """Behaviour on noisy memories of one's own values: what `behaviour` infers std and beta from.

    Of two actions only sqrt(std_1^2 + std_2^2) matters, and of all numbers only beta times the values and beta times
    std do. Where rewards have a known unit choices tell, nearly, std^2 of the difference of two values + pi^2 / (3
    beta^2): std where beta is known, and beta where some memories are known to be good. Where beta std is large beta is
    lost, its information falls like (beta std)^-4.

    Args:
        mdp: the task, S states and A actions.
        horizon: number of steps T; None: without end, which needs a discount below 1.
        std: as `noisy_values` has it; (T, S, A) has to have T of the horizon.
        beta: as there.
        discount: gamma in [0, 1], of being alive at the next step.
        value_discount: of the values; None: `discount`.

    Returns:
        The program, with state `s` and decision `a`, whose prior is the noisy policy; it has no optimality.

    Raises:
        TypeError, ValueError: as `noisy_values`.
    """
    remembered_at = discount if value_discount is None else discount_of("value_discount", value_discount)
    found = noisy_values(mdp, std, beta, remembered_at)
    check_reward_times(mdp, horizon)
    if found.policy.ndim == 3 and len(found.policy) != horizon:
        raise ValueError(f"std has {len(found.policy)} times, and horizon is {horizon}.")
    args = varying_task(mdp), varying(found.policy, 2)
    return ControlProgram(first_state, step, horizon, discount, args=args)
