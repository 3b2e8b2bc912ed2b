"""An agent under hidden state that remembers little: what it saw last, and one of a few memories.

    s_1 ~ p_0,    m_t ~ p(m | m_{t-1}, o_t),    a_t ~ p(a | m_t, o_t),    factor exp(beta r(s_t, a_t)),
    s_{t+1} ~ P(. | s_t, a_t),    o_{t+1} ~ U(. | s_{t+1}, a_t)

Both decisions do not see the state. With one memory the policy is memoryless, with more it is a stochastic finite-state
controller (Hansen 1998; Meuleau, Kim, Kaelbling & Cassandra 1999). There is no closed form: `exact.elbo` is exact for
the tables of a policy, and `svi.fit` climbs it by one best reply after the other, to a local optimum, which
`beliefs.solve` bounds from above. With memories give it several starts and a `spread`: near the prior nothing reads
them, so nothing is gained by writing. Before the first action nothing is seen: o is then the value after the last one.
"""

from typing import Any

import jax.numpy as jnp
import numpyro
from jaxtyping import Array
from numpyro.distributions import Categorical

from rlinf_ppl.models.arguments import inverse_temperature, whole_number
from rlinf_ppl.models.hidden import Hidden, hidden, next_hidden, priced
from rlinf_ppl.program import ControlProgram, decide, optimality
from rlinf_ppl.tasks import POMDP
from rlinf_ppl.types import ArrayLike


def memoryless_initial(task: Hidden, *_: Any) -> dict[str, Any]:
    """The first state, of which nothing is seen."""
    s = numpyro.sample("s", Categorical(probs=task.mdp.initial))
    return {"s": s, "o": jnp.asarray(task.observation.shape[-1])}


def memoryless_step(task: Hidden, prior: Array, beta: Array, s: Any, o: Any) -> dict[str, Any]:
    """One step of the model without memories."""
    a = decide("a", Categorical(probs=prior), beta, unseen=("s",))
    optimality(task.mdp.reward[s, a])
    s_next, o_next = next_hidden(task, s, a)
    return {"s": s_next, "o": o_next}


def initial(task: Hidden, *_: Any) -> dict[str, Any]:
    """The same, and the first memory."""
    return memoryless_initial(task) | {"m_prev": jnp.asarray(0)}


def step(
    task: Hidden, prior: Array, beta: Array, memory_prior: Array, memory_beta: Array, s: Any, o: Any, m_prev: Any
) -> dict[str, Any]:
    """One step of the model."""
    m = decide("m", Categorical(probs=memory_prior), memory_beta, unseen=("s",))
    a = decide("a", Categorical(probs=prior), beta, unseen=("s", "m_prev"))
    optimality(task.mdp.reward[s, a])
    s_next, o_next = next_hidden(task, s, a)
    return {"s": s_next, "o": o_next, "m_prev": m}


def finite_memory(
    pomdp: POMDP,
    horizon: int | None,
    num_memories: int = 1,
    beta: ArrayLike = 1.0,
    prior: ArrayLike | None = None,
    memory_beta: ArrayLike | None = None,
) -> ControlProgram:
    """One agent with little memory in a partially observed process, at the task's discount.

    Args:
        pomdp: the task: S states, A actions, O observations.
        horizon: number of steps T; None: without end, at a discount below 1.
        num_memories: M; 1: the agent remembers nothing but what it saw last.
        beta: inverse temperature of actions, in nats per unit of reward.
        prior: action prior p(a), shape (A,) or (T, A); default uniform.
        memory_beta: inverse temperature of memories, whose prior is uniform; default beta. Memories pay
            KL / memory_beta, so the larger, the freer they are.

    Returns:
        The program, with states `s`, `o` and `m_prev` and decisions `m` (T, O + 1, M, M) and `a` (T, O + 1, M, A); with
        one memory `s`, `o` and `a` (T, O + 1, A). Its values and ELBO are in units of reward.

    Raises:
        TypeError: on something else than a POMDP.
        ValueError: on shapes that do not fit, prior rows that are no distributions, or no memory at all.
    """
    task, (probabilities, tau) = hidden(pomdp), priced(pomdp, horizon, beta, prior)
    count = whole_number("num_memories", num_memories, "an agent has at least one memory to be in")
    sizes, args = {"o": pomdp.num_observations + 1}, (task, probabilities, tau)
    if count == 1:
        return ControlProgram(memoryless_initial, memoryless_step, horizon, pomdp.discount, args=args, sizes=sizes)
    memory_tau = tau if memory_beta is None else inverse_temperature("memory_beta", memory_beta)
    more = jnp.full(count, 1 / count), memory_tau
    return ControlProgram(initial, step, horizon, pomdp.discount, args=(*args, *more), sizes=sizes | {"m_prev": count})
