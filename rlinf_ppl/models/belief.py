"""Control under hidden state with the belief as the state (Astrom 1965; Kaelbling, Littman & Cassandra 1998).

    b_1 = p_0,    a_t ~ p(a),    factor exp(beta sum_s b_t(s) r(s, a_t)),    o_{t+1} ~ p(. | b_t, a_t),
    b_{t+1} = p(s' | b_t, a_t, o_{t+1})

The belief is all of the past that matters, so its policies are those of an agent that remembers everything. It is a
vector of real numbers, of which there is no table: the guide is a network, and `svi.fit` with `ParticleELBO` or
`ActorCritic` fits it; `beliefs.solve` brackets what it can reach, and its policy fits this program, too.
"""

from typing import Any

import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float
from numpyro.distributions import Categorical

from rlinf_ppl.models.arguments import check_task
from rlinf_ppl.models.hidden import priced, with_networks
from rlinf_ppl.program import ControlProgram, decide, optimality
from rlinf_ppl.tasks import POMDP
from rlinf_ppl.types import ArrayLike


def initial(pomdp: POMDP, *_: Any) -> dict[str, Any]:
    """The first belief."""
    return {"belief": pomdp.initial}


def step(pomdp: POMDP, prior: Array, beta: Array, belief: Float[Array, " S"]) -> dict[str, Any]:
    """One step of the model."""
    a = decide("a", Categorical(probs=prior), beta)
    optimality(belief @ pomdp.reward[:, a])
    joint = pomdp.joint(belief, a)
    o = numpyro.sample("o", Categorical(probs=jnp.sum(joint, 0)))
    likely = joint[:, o]
    return {"belief": likely / jnp.sum(likely)}


def belief(pomdp: POMDP, horizon: int | None, beta: ArrayLike = 1.0, prior: ArrayLike | None = None) -> ControlProgram:
    """One agent that knows its belief in a partially observed process, at the task's discount.

    Args:
        pomdp: the task: S states, A actions.
        horizon: number of steps T; None: without end, at a discount below 1.
        beta: inverse temperature, in nats per unit of reward.
        prior: action prior p(a), shape (A,) or (T, A); default uniform.

    Returns:
        The program, with state `belief` (S,), decision `a` and chance `o`; it carries a guide, a perceptron of the
        belief and the time that starts at the prior. Its values and ELBO are in units of reward.

    Raises:
        TypeError: on something else than a POMDP.
        ValueError: on shapes that do not fit, or prior rows that are no distributions.
    """
    check_task("pomdp", pomdp, POMDP)
    args = (pomdp.anonymous().averaged(), *priced(pomdp, horizon, beta, prior))
    program = ControlProgram(initial, step, horizon, pomdp.discount, args=args)
    return with_networks(program)
