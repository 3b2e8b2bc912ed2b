"""Soft options: an agent that keeps an option until it terminates it (Igl et al. 2019; Sakulwongtana, section 4.1).

    s_1 ~ p0,   z_0 ~ p(z_0),   then in each step
    b_t ~ p(b | s_t, z_{t-1})                               1: terminate the option
    z_t ~ p(z | s_t) where b_t = 1, else z_t = z_{t-1}      the master policy, and the option that is kept
    a_t ~ p(a | s_t, z_t),   factor exp(beta r(s_t, a_t)),   s_{t+1} ~ P(. | s_t, a_t)

Values are in nats, and what stands between steps is the message U(s, z_prev):

    Q(s, z, a)    = beta r + gamma E U(s', z)
    V(s, z)       = log sum_a p(a | s, z) exp Q             pi(a | s, z) = p exp(Q - V)
    V_H(s)        = log sum_z p(z | s) exp V                pi(z | s)    = p exp(V - V_H)
    U(s, z_prev)  = log sum_b p(b | s, z_prev) exp(b V_H + (1 - b) V(s, z_prev))

The printed V_H = (1 / m) log sum_z exp V (4.6, C.3) has the 1 / m of a uniform prior outside of the log; that is no
bound, and not the value of the policy that goes with it. Termination can act from the first step on. The decision `z`
is both cases in one: its policy depends on (s, z_prev, b), is the master policy pi(z | s) at b = 1 and keeps z_prev at
b = 0.
"""

from typing import Any

import numpyro
from jaxtyping import Array
from numpyro.distributions import Categorical

from rlinf_ppl.models import arguments, options
from rlinf_ppl.models.dynamics import first_state, next_state, varying_each, varying_task
from rlinf_ppl.models.options import Priors, choose_option
from rlinf_ppl.program import ControlProgram, decide, optimality
from rlinf_ppl.tasks import MDP
from rlinf_ppl.types import ArrayLike

RANKS = (3, 2, 3)


def initial(mdp: MDP, priors: Priors, initial_option: Array, beta: Array) -> dict[str, Any]:
    """The first state, and the option that was in use before it."""
    return first_state(mdp) | {"z_prev": numpyro.sample("z_prev", Categorical(probs=initial_option))}


def step(mdp: MDP, priors: Priors, initial_option: Array, beta: Array, s: Any, z_prev: Any) -> dict[str, Any]:
    """One step of the model."""
    b = decide("b", Categorical(probs=priors.termination[s, z_prev]))
    z = choose_option("z", b, priors.option[s], z_prev)
    a = decide("a", Categorical(probs=priors.action[s, z]))
    optimality(beta * mdp.reward[s, a])
    return {"s": next_state(mdp, s, a), "z_prev": z}


def soft_options(
    mdp: MDP,
    horizon: int | None,
    num_options: int,
    beta: ArrayLike = 1.0,
    action_prior: ArrayLike | None = None,
    option_prior: ArrayLike | None = None,
    termination_prior: ArrayLike | None = None,
    initial_option: ArrayLike | None = None,
    discount: ArrayLike = 1.0,
) -> ControlProgram:
    """One agent with options in a Markov decision process.

    With priors over actions that are the same for every option, options make no difference: it is `single_agent`.

    Args:
        mdp: the task, S states and A actions; its reward may have a leading time axis of length `horizon`.
        horizon: number of steps T; None: without end, which needs a discount below 1 and nothing that varies in time.
        num_options: M, at least 1.
        beta: inverse temperature, in 1 / units of reward.
        action_prior: p(a | s, z), shape (S, M, A); default uniform. It is what tells one option from another. Every
            prior may have a leading time axis, and zeros.
        option_prior: p(z | s) of the master policy, shape (S, M); default uniform.
        termination_prior: p(b | s, z_prev), shape (S, M, 2), the last axis (keep, terminate); default 1/2 each.
        initial_option: distribution (M,) of the option before the first step; default uniform.
        discount: gamma in [0, 1].

    Returns:
        The program, with state `s`, `z_prev` and decisions `b`, `z`, `a`; values, ELBO and log evidence in nats.

    Raises:
        TypeError: on something else than an MDP, or a number of options that is no whole number.
        ValueError: on shapes that do not fit, rows that are no distributions, a beta that is not finite; and, with
            more than one option, on an option whose prior never terminates it, in any state: once it is in use, no
            policy could leave it. A prior probability above 0 in one state, however small, lets optimality decide.
    """
    arguments.check_task("mdp", mdp, MDP)
    arguments.check_reward_times(mdp, horizon)
    states, choices, actions = mdp.num_states, options.count("num_options", num_options), mdp.num_actions
    by_option = ("state", "option")
    priors = Priors(
        options.termination_prior("termination_prior", termination_prior, horizon, by_option, (states, choices, 2), 1),
        arguments.action_prior("option_prior", option_prior, horizon, ("state",), (states, choices)),
        arguments.action_prior("action_prior", action_prior, horizon, by_option, (states, choices, actions)),
    )
    first = arguments.action_prior("initial_option", initial_option, None, (), (choices,))
    args = varying_task(mdp), varying_each(priors, RANKS), first, arguments.finite_number("beta", beta)
    return ControlProgram(initial, step, horizon, discount, args=args)
