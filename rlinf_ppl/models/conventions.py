"""Values with a uniform action prior inside and values without one, translated into each other.

    with       v = (1 / beta) log sum_a p(a | s) exp(beta q),     p = 1 / K     (here; Levine 2018)
    without    v = (1 / beta) log sum_a exp(beta q)                             (Rust 1987; econirl, imitation)

A step costs log K / beta more with the prior, for every policy, so the values differ by that times sum_t gamma^t, and
the policies not at all. It takes the same number K of possible actions in every state: otherwise the prior is a reward
for having few, and changes the policy as well.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlinf_ppl.algebra.tables import ROW_TOLERANCE
from rlinf_ppl.models.arguments import action_prior, check_task, inverse_temperature, number
from rlinf_ppl.tasks import MDP, checks
from rlinf_ppl.types import ArrayLike


def leave_prior_out(
    mdp: MDP, value: ArrayLike, beta: ArrayLike = 1.0, discount: ArrayLike = 1.0, prior: ArrayLike | None = None
) -> Float[Array, "..."]:
    """Values that have a uniform action prior inside, in the convention without one.

    Args:
        mdp: the task, S states and A actions.
        value: (S,) without end, or (T + 1, S) with the last row terminal, in units of reward.
        beta: inverse temperature; for values in nats, as `single_agent` has them, leave it 1.
        discount: gamma.
        prior: p(a | s), shape (S, A): uniform over the possible actions, equally many in every state; default all.

    Raises:
        ValueError: where the conventions differ by more than a constant; on a beta of 0, a value of another shape, or
            a value without end and a discount that is not below 1.
    """
    return prior_share(mdp, value, beta, discount, prior, 1.0)


def put_prior_in(
    mdp: MDP, value: ArrayLike, beta: ArrayLike = 1.0, discount: ArrayLike = 1.0, prior: ArrayLike | None = None
) -> Float[Array, "..."]:
    """Values without a prior, in the convention that has a uniform one inside: undoes `leave_prior_out`."""
    return prior_share(mdp, value, beta, discount, prior, -1.0)


def prior_share(
    mdp: MDP, value: ArrayLike, beta: ArrayLike, discount: ArrayLike, prior: ArrayLike | None, sign: float
) -> Float[Array, "..."]:
    """The value, and `sign` times what the prior costs from each time on."""
    check_task("mdp", mdp, MDP)
    values, gamma = checks.as_reals("value", value), number("discount", discount)
    states = mdp.initial.shape
    checks.check_shape("value", values.shape, [states, ("T + 1", *states)], "the task's initial", states)
    tau = inverse_temperature("beta", beta)
    if checks.is_concrete(tau) and tau == 0:
        raise ValueError("beta is 0, where only the value with the prior inside has a limit.")
    each = log_count(action_prior("prior", prior, None, ("state",), (mdp.num_states, mdp.num_actions))) / tau
    if values.ndim == 1:
        if checks.is_concrete(gamma) and not 0 <= gamma < 1:
            raise ValueError(f"discount is {gamma}: a value without end, of shape (S,), needs one from 0 to below 1.")
        return values + sign * each / (1 - gamma)
    later = jnp.cumsum(gamma ** jnp.arange(values.shape[0] - 1))[::-1]
    return values + sign * each * jnp.append(later, 0.0)[:, None]


def log_count(prior: Float[Array, "S A"]) -> Float[Array, ""]:
    """The log of the number of possible actions, which has to be the same in every state.

    Raises:
        ValueError: the prior is not uniform over them, or their number differs.
    """
    if checks.is_concrete(prior):
        rows, counts = np.asarray(prior), (np.asarray(prior) > 0).sum(-1)
        uneven = np.abs(rows * counts[:, None] - (rows > 0)).max(-1) > ROW_TOLERANCE
        for s in np.flatnonzero(uneven | (counts != counts[0])):
            found = f"is {rows[s]}" if uneven[s] else f"allows {counts[s]} actions and prior[0] {counts[0]}"
            raise ValueError(
                f"prior[{s}] {found}: then the conventions differ in their policies, and no constant translates their "
                "values; solve models.smooth_bellman and models.smooth_bellman_without_prior."
            )
    return jnp.log(jnp.sum(prior[0] > 0))
