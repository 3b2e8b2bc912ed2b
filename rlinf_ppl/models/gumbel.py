"""Rust's view of smooth Bellman: the agent maximises, and what looks random is noise in its rewards (Rust 1987).

    noise(s, a) ~ Gumbel(location -euler_gamma / beta, scale 1 / beta)
    x(s, a)     = r(s, a) + gamma E v(s') + (1 / beta) log p(a | s) + noise(s, a)
    choice(s)   = argmax_a x(s, a),     value(s) = max_a x(s, a)

With q = r + gamma E v, value(s) has the mean w = (1 / beta) log sum p exp(beta q) over the noise, and choice(s) the
probabilities p exp(beta (q - w)): where v is the fixed point of `smooth_bellman` these are v itself and its policy. The
location makes the noise's mean 0. With location 0 and no prior, as Rust has it, v is larger by (euler_gamma + log A) /
(beta (1 - gamma)), and the choices are the same.

Noise has a density, so these models are no step programs, whose sites are finite: they are for NumPyro, to simulate.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Array, Float, Int
from numpyro import handlers
from numpyro.distributions import Gumbel

from rlinf_ppl.models.arguments import action_prior, check_task, finite_number
from rlinf_ppl.models.dynamics import expected_next, first_state, next_state
from rlinf_ppl.tasks import MDP, checks
from rlinf_ppl.types import ArrayLike


class Choice(NamedTuple):
    """What is best under one draw of the noise, and how good it is, the noise included."""

    choice: Int[Array, "..."]
    value: Float[Array, "..."]


def choose(value: Float[Array, "... A"], prior: Float[Array, "... A"], beta: Float[Array, ""]) -> Choice:
    """Draw the noise of some alternatives, a site `noise`, and take the best possible one: sites `choice`, `value`."""
    possible = prior > 0
    location = (jnp.log(jnp.where(possible, prior, 1.0)) - np.euler_gamma) / beta
    noise = numpyro.sample("noise", Gumbel(location, jnp.broadcast_to(1 / beta, prior.shape)).to_event(prior.ndim))
    perturbed = jnp.where(possible, value + noise, -jnp.inf)
    best = Choice(jnp.argmax(perturbed, -1), jnp.max(perturbed, -1))
    return Choice(*(numpyro.deterministic(name, each) for name, each in best._asdict().items()))


def gumbel_choice(
    mdp: MDP, value: ArrayLike, discount: ArrayLike, beta: ArrayLike = 1.0, prior: ArrayLike | None = None
) -> Callable[[], Choice]:
    """One choice in every state by an agent that sees its own noise.

    Args:
        mdp: the task, S states and A actions; its reward does not vary in time.
        value: what the agent expects from each next state on, shape (S,): of `exact.solve(smooth_bellman(...))`.
        discount: gamma.
        beta: inverse temperature, above 0: one over the noise's scale.
        prior: p(a | s), shape (S, A); default uniform. An action with prior 0 is never chosen.

    Returns:
        A NumPyro model with the sites `noise` (S, A), into whose location log p / beta goes, `choice` and `value` (S,).

    Raises:
        TypeError: on something else than an MDP.
        ValueError: on shapes that do not fit, prior rows that are no distributions, a beta that is not above 0.
    """
    later, probabilities, tau = checked(mdp, value, discount, beta, prior)

    def model() -> Choice:
        return choose(mdp.reward + later, probabilities, tau)

    return model


def gumbel_trajectory(
    mdp: MDP, value: ArrayLike, horizon: int, discount: ArrayLike, beta: ArrayLike = 1.0, prior: ArrayLike | None = None
) -> Callable[[], Any]:
    """The same agent over time: in the state where it is, it sees the noise of its actions, and takes the best.

    Args:
        mdp: the task.
        value: as in `gumbel_choice`; the agent sees no end.
        horizon: the number of steps to simulate, unrolled in Python.
        discount: gamma.
        beta: inverse temperature, above 0.
        prior: p(a | s), shape (S, A).

    Returns:
        A NumPyro model with the sites init/s, t0/noise (A,), t0/choice, t0/value, t0/s_next, t1/noise, ...
    """
    later, probabilities, tau = checked(mdp, value, discount, beta, prior)

    def model() -> None:
        with handlers.scope(prefix="init"):
            s = first_state(mdp)["s"]
        for t in range(horizon):
            with handlers.scope(prefix=f"t{t}"):
                a = choose(mdp.reward[s] + later[s], probabilities[s], tau).choice
                s = next_state(mdp, s, a)

    return model


def checked(
    mdp: MDP, value: ArrayLike, discount: ArrayLike, beta: ArrayLike, prior: ArrayLike | None
) -> tuple[Float[Array, "S A"], Float[Array, "S A"], Float[Array, ""]]:
    """Gamma E v(s'), the prior and the inverse temperature; raises on arguments that make no model."""
    check_task("mdp", mdp, MDP)
    if mdp.reward.ndim == 3:
        raise ValueError("the task's reward varies in time, and one value for all times cannot be its fixed point.")
    values = checks.as_reals("value", value)
    checks.check_shape("value", values.shape, [(mdp.num_states,)], "initial", mdp.initial.shape)
    checks.check_finite("value", values)
    tau = finite_number("beta", beta)
    if checks.is_concrete(tau) and not tau > 0:
        raise ValueError(f"beta is {tau}: the noise has the scale 1 / beta, so give a number above 0.")
    probabilities = action_prior("prior", prior, None, ("state",), (mdp.num_states, mdp.num_actions))
    return finite_number("discount", discount) * expected_next(mdp, values), probabilities, tau
