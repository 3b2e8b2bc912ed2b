"""Learning what arms pay, by a delta rule (Rescorla & Wagner 1972; Sutton & Barto 2018, equation 2.5).

    choice c_t ~ softmax(beta v_t),   outcome k_t ~ p(. | c_t), worth r_t,
    prediction error delta_t = r_t - v_t(c_t),   v_{t+1}(c_t) = v_t(c_t) + alpha delta_t

The values of the arms that were not chosen stay. A choice is probable as its prior says: there is no optimality, and
nobody plans what to learn. So the likelihood of choices, `exact.log_prob` without a policy, is one pass over the
trials. With values of 0 at first, outcomes -1 and 1, and beta below 5, this is `bandit2arm_delta` of hBayesDM (Ahn,
Haines & Zhang 2017).
"""

from typing import Any

import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float
from numpyro.distributions import Categorical

from rlinf_ppl.models.arguments import number_between, whole_number
from rlinf_ppl.models.dynamics import varying
from rlinf_ppl.program import ControlProgram, decide
from rlinf_ppl.tasks import checks
from rlinf_ppl.types import ArrayLike


def initial(rate: Array, beta: Array, values: Array, outcomes: Array, probabilities: Array) -> dict[str, Any]:
    """Nothing was learned yet."""
    return {"value": values}


def step(rate: Array, beta: Array, values: Array, outcomes: Array, probabilities: Array, value: Any) -> dict[str, Any]:
    """A trial."""
    choice = decide("choice", Categorical(logits=beta * value))
    outcome = numpyro.sample("outcome", Categorical(probs=probabilities[choice]))
    chosen = jnp.arange(len(value)) == choice
    error = numpyro.deterministic("prediction_error", outcomes[outcome] - chosen @ value)
    return {"value": value + rate * error * chosen}


def delta_rule(
    learning_rate: ArrayLike,
    inverse_temperature: ArrayLike,
    horizon: int,
    initial_values: ArrayLike = (0.0, 0.0),
    outcomes: ArrayLike = (0.0, 1.0),
    probabilities: ArrayLike | None = None,
) -> ControlProgram:
    """A learner of what arms pay.

        delta_rule(0.3, 4.0, 100, probabilities=[[0.2, 0.8], [0.8, 0.2]])
        jax.vmap(lambda alpha, beta: delta_rule(alpha, beta, 100))(rates, betas)     # one a subject

    Args:
        learning_rate: alpha, the share of a prediction error that is learned, in [0, 1].
        inverse_temperature: beta, in nats per unit of outcome, at least 0.
        horizon: number of trials T.
        initial_values: what arms are believed to pay at first, (A,); as many as there are arms.
        outcomes: what each of the K outcomes is worth, (K,). Data hold their positions, 0 to K - 1.
        probabilities: those of outcomes by arm, (A, K) or (T, A, K); what is drawn depends on them, the
            probabilities of choices do not. None: all the same.

    Returns:
        The program, with state `value` (A,), decision `choice`, chance `outcome`, and `prediction_error` recorded.

    Raises:
        TypeError, ValueError: numbers that are none, or outside of what they may be; shapes that do not fit.
    """
    trials = whole_number("horizon", horizon, "there is at least one trial")
    values, worth = checks.as_reals("initial_values", initial_values), checks.as_reals("outcomes", outcomes)
    checks.check_not_empty("initial_values", values.shape, ("arms",))
    checks.check_not_empty("outcomes", worth.shape, ("outcomes",))
    checks.check_finite("initial_values", values)
    checks.check_finite("outcomes", worth)
    args = (
        number_between("learning_rate", learning_rate, 0.0, 1.0),
        number_between("inverse_temperature", inverse_temperature, 0.0),
        values,
        worth,
        varying(outcome_laws(probabilities, trials, len(values), len(worth)), 2),
    )
    return ControlProgram(initial, step, trials, args=args)


def outcome_laws(probabilities: ArrayLike | None, trials: int, num_arms: int, num_outcomes: int) -> Float[Array, "..."]:
    """The probabilities of outcomes by arm, with or without a leading time axis; all the same where None.

    Raises:
        ValueError: on another shape, or rows that are no distributions.
    """
    shape = num_arms, num_outcomes
    if probabilities is None:
        return jnp.full(shape, 1 / num_outcomes)
    array = checks.as_reals("probabilities", probabilities)
    shapes = [shape, (trials, *shape)]
    checks.check_shape("probabilities", array.shape, shapes, "what they are of, arms and outcomes,", shape)
    return checks.as_distributions("probabilities", array, ("time", "arm") if array.ndim > 2 else ("arm",))
