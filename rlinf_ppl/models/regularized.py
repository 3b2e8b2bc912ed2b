"""Regularized Markov decision processes, and smooth Bellman as two of them (Geist, Scherrer & Pietquin 2019).

    s_1 ~ p0,   a_t chosen at the price Omega(d) / beta,   optimality r(s_t, a_t),   s_{t+1} ~ P(. | s_t, a_t)

    solve       q = r + gamma P v,    v = max_d <d, q> - Omega(d) / beta = Omega*(beta q) / beta,    d = grad Omega*
    evaluate    v = r_d - Omega(d) / beta + gamma P_d v

Values are in units of reward. Without end both are contractions of modulus gamma in the maximum norm, so each has one
fixed point. It holds what the policy pays for its randomness: the bare (I - gamma P_d)^-1 r_d is another number. With
beta negative the agent minimises; an infinite beta is plain value iteration, whatever Omega.

    kl                  Omega(d) = sum d log(d / p)    v = (1 / beta) log sum_a p exp(beta q)    d = p exp(beta (q - v))
    negative_entropy    Omega(d) = sum d log d         v = (1 / beta) log sum_a exp(beta q)      d = exp(beta (q - v))
    tsallis             Omega(d) = (|d|^2 - 1) / 2     d = sparsemax(beta q)

The first two are smooth Bellman, with the action prior inside and without (Rust 1987; Ziebart 2008; econirl and
imitation leave it out). Between them, for a uniform prior over K actions in every state,

    v without = v with + (log K / beta) sum_t gamma^t,    the same policy    (`models.leave_prior_out`, `put_prior_in`);

where the number of possible actions differs between states the policies differ as well. Neither is the operator
(1 / beta) log sum_a sum_s' P exp(beta (r + gamma v')), which some texts take for smooth Bellman: for stochastic P that
one is larger, and seeks risk.
"""

import functools
from collections.abc import Callable
from typing import Any

from jaxtyping import Array
from numpyro.distributions import Categorical

from rlinf_ppl.algebra.regularizers import Regularizer, as_regularizer, kl, negative_entropy
from rlinf_ppl.models.arguments import action_prior, check_reward_times, check_task, inverse_temperature
from rlinf_ppl.models.dynamics import first_state, next_state, varying, varying_task
from rlinf_ppl.program import ControlProgram, decide, optimality
from rlinf_ppl.tasks import MDP
from rlinf_ppl.types import ArrayLike


def step(regularizer: Regularizer, mdp: MDP, prior: Array, beta: Array, s: Any) -> dict[str, Any]:
    """One step of the model."""
    a = decide("a", Categorical(probs=prior[s]), beta, regularizer)
    optimality(mdp.reward[s, a])
    return {"s": next_state(mdp, s, a)}


# The same step for the same regularizer, so that programs of one form are equal and share compiled code.
regularized_by = functools.lru_cache(maxsize=64)(functools.partial)


def regularized(
    mdp: MDP,
    horizon: int | None,
    regularizer: Regularizer | Callable[..., Any] = kl,
    beta: ArrayLike = 1.0,
    prior: ArrayLike | None = None,
    discount: ArrayLike = 1.0,
) -> ControlProgram:
    """One agent whose randomness is paid for by any regularizer, in units of reward.

    Args:
        mdp: the task, S states and A actions; its reward may have a leading time axis of length `horizon`.
        horizon: number of steps T; None: without end, which needs a discount below 1 and nothing that varies in time.
        regularizer: one of `rlinf_ppl.algebra.regularizers`, or the convex conjugate of another: a function of x (A,)
            and the prior's row (A,).
        beta: inverse temperature, in nats per unit of reward; infinite: the hard maximum. 0 is for kl only.
        prior: action prior p(a | s), shape (S, A) or (T, S, A); default uniform. Zeros forbid an action, and
            of the regularizers only kl reads more in it than that.
        discount: gamma in [0, 1].

    Returns:
        The program, with state `s` and decision `a`; its values and ELBO are in units of reward.

    Raises:
        TypeError: on something else than an MDP, or a regularizer that is no function.
        ValueError: on shapes that do not fit, prior rows that are no distributions, a beta that is not a number.
    """
    check_task("mdp", mdp, MDP)
    check_reward_times(mdp, horizon)
    probabilities = action_prior("prior", prior, horizon, ("state",), (mdp.num_states, mdp.num_actions))
    pays = as_regularizer(regularizer, "a")
    args = varying_task(mdp), varying(probabilities, 2), inverse_temperature("beta", beta)
    return ControlProgram(first_state, regularized_by(step, pays), horizon, discount, args=args)


def smooth_bellman(
    mdp: MDP, discount: ArrayLike, beta: ArrayLike = 1.0, prior: ArrayLike | None = None, horizon: int | None = None
) -> ControlProgram:
    """Smooth Bellman with the action prior inside: v = (1 / beta) log sum_a p(a | s) exp(beta (r + gamma P v)).

    The convention of this library. At beta = 0 it is the prior's value; a larger beta > 0 never lowers it.

    Args:
        mdp: the task.
        discount: gamma, below 1 unless there is a horizon.
        beta: inverse temperature, in nats per unit of reward.
        prior: p(a | s), shape (S, A); default uniform.
        horizon: number of steps; None: without end.
    """
    return regularized(mdp, horizon, kl, beta, prior, discount)


def smooth_bellman_without_prior(
    mdp: MDP, discount: ArrayLike, beta: ArrayLike = 1.0, prior: ArrayLike | None = None, horizon: int | None = None
) -> ControlProgram:
    """Smooth Bellman without a prior: v = (1 / beta) log sum_a exp(beta (r + gamma P v)), over the possible actions.

    The convention of Rust (1987) and of maximum entropy reinforcement learning: entropy is a reward, of 1 / beta a nat.
    For beta > 0 it exceeds the hard value by at most log A / (beta (1 - gamma)); a larger beta never raises it.

    Args:
        mdp: the task.
        discount: gamma, below 1 unless there is a horizon.
        beta: inverse temperature, in nats per unit of reward; not 0.
        prior: shape (S, A); its zeros forbid an action, and nothing else in it counts.
        horizon: number of steps; None: without end.
    """
    return regularized(mdp, horizon, negative_entropy, beta, prior, discount)
