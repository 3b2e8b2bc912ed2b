"""The two-step task, by a learner who plans in part (Daw et al. 2011), as `ts_par4` of hBayesDM has it.

A first choice c leads to the state s = c with probability p, and else to the other one; a second choice d there pays a
reward r of 0 or 1. With first values u(c), second values v(s, d), and the first choice before this one:

    m(c) = p max_d v(c, d) + (1 - p) max_d v(1 - c, d)                      planned
    c ~ softmax(beta (w m + (1 - w) u) + pi [c is the last first choice]),   d ~ softmax(beta v(s, .))
    u(c) <- u(c) + alpha (v(s, d) - u(c))
    v(s, d) <- v(s, d) + alpha (r - v(s, d))
    u(c) <- u(c) + alpha (r - v(s, d))                                      with the v that was learned just now

All values begin at 0. Daw et al. have two learning rates, two inverse temperatures and an eligibility trace lambda, and
learn by counting which state is the common one; here the rates and temperatures are one each, p is known, and the last
line is that of Ahn, Haines & Zhang (2017), a trace of 1 - alpha. Both choices are probable as their priors say:
planning is a rule inside of the step, and nobody plans what to learn.
"""

from typing import Any

import jax.numpy as jnp
import numpyro
from jaxtyping import Array
from numpyro.distributions import Bernoulli, Categorical

from rlinf_ppl.models.arguments import check_between, finite_number, number_between, whole_number
from rlinf_ppl.models.dynamics import varying
from rlinf_ppl.program import ControlProgram, decide
from rlinf_ppl.tasks import checks
from rlinf_ppl.types import ArrayLike


def initial(rate: Array, beta: Array, pi: Array, w: Array, p: Array, rewards: Array) -> dict[str, Any]:
    """Nothing was learned yet, and nothing chosen."""
    return {"first_value": jnp.zeros(2), "second_value": jnp.zeros((2, 2)), "last": jnp.zeros(2)}


def step(
    rate: Array,
    beta: Array,
    pi: Array,
    w: Array,
    p: Array,
    rewards: Array,
    first_value: Any,
    second_value: Any,
    last: Any,
) -> dict[str, Any]:
    """A trial."""
    # Choose and see
    best = jnp.max(second_value, 1)
    planned = p * best + (1 - p) * best[::-1]
    first = decide("first_choice", Categorical(logits=beta * (w * planned + (1 - w) * first_value) + pi * last))
    chosen = jnp.arange(2) == first
    state = numpyro.sample("state", Categorical(probs=jnp.where(chosen, p, 1 - p)))
    there = jnp.arange(2) == state
    second = decide("second_choice", Categorical(logits=beta * (there @ second_value)))
    reward = numpyro.sample("reward", Bernoulli(probs=rewards[state, second]))
    # Learn
    here = jnp.outer(there, jnp.arange(2) == second)
    found = jnp.sum(here * second_value)
    first_error = numpyro.deterministic("first_prediction_error", found - chosen @ first_value)
    error = numpyro.deterministic("reward_prediction_error", reward - found)
    # What is left of the error once the second value has learned of it is 1 - rate times it.
    return {
        "first_value": first_value + rate * (first_error + (1 - rate) * error) * chosen,
        "second_value": second_value + rate * error * here,
        "last": 1.0 * chosen,
    }


def two_step(
    learning_rate: ArrayLike,
    inverse_temperature: ArrayLike,
    perseveration: ArrayLike,
    weight: ArrayLike,
    horizon: int,
    transition: ArrayLike = 0.7,
    rewards: ArrayLike = (0.5, 0.5, 0.5, 0.5),
) -> ControlProgram:
    """A learner in the two-step task who plans with some weight.

        two_step(0.5, 3.0, 0.5, 0.6, 200, rewards=[0.7, 0.3, 0.4, 0.6])

    Args:
        learning_rate: alpha, the share of a prediction error that is learned, in [0, 1].
        inverse_temperature: beta, in nats per unit of reward, at least 0.
        perseveration: pi, what the last first choice is worth beside its value, in nats; negative: to be left.
        weight: w, that of planned values beside learned ones, in [0, 1].
        horizon: number of trials T.
        transition: p, the probability that a first choice leads to the state of its own number.
        rewards: the probabilities of a reward, of both second choices in state 0 and then in state 1, (4,) or (T, 4);
            what is drawn depends on them, the probabilities of choices do not.

    Returns:
        The program, with states `first_value` (2,), `second_value` (2, 2) and `last` (2,), decisions `first_choice` and
        `second_choice`, chance `state` and `reward`; `first_prediction_error` and `reward_prediction_error` are
        recorded.

    Raises:
        TypeError, ValueError: numbers that are none, or outside of what they may be; shapes that do not fit.
    """
    trials = whole_number("horizon", horizon, "there is at least one trial")
    chances = checks.as_reals("rewards", rewards)
    checks.check_shape("rewards", chances.shape, [(4,), (trials, 4)], "time, of `horizon` trials,", (trials,))
    check_between("rewards", chances, 0.0, 1.0)
    args = (
        number_between("learning_rate", learning_rate, 0.0, 1.0),
        number_between("inverse_temperature", inverse_temperature, 0.0),
        finite_number("perseveration", perseveration),
        number_between("weight", weight, 0.0, 1.0),
        number_between("transition", transition, 0.0, 1.0),
        varying(chances.reshape(*chances.shape[:-1], 2, 2), 2),
    )
    return ControlProgram(initial, step, trials, args=args)
