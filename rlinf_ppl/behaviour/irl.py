"""Maximum-entropy inverse reinforcement learning: from what somebody did to the reward that they were after.

A reward that is linear in features, r = features theta, makes a program of any theta, and that is all which
`behaviour.maximum_likelihood`, `sample` and `site` want. Two likelihoods are in use (Ziebart 2008, 2010):

    causal        sum_t log pi_theta(a_t | s_t), the soft-optimal policy under the true dynamics: `exact.log_prob`
    trajectories  log p(trajectory | O), which believes that chance was kind too: `exact.log_prob_given_optimality`

Rewards are compared by what they want, and not by their numbers (Gleave, Dennis, Legg, Russell & Leike 2021, section
4). Every potential shaping of a reward has one canonical form, with S, S' and A drawn from laws of their own,

    C(r)(s, a, s') = r(s, a, s') + E[gamma r(s', A, S') - r(s, A, S') - gamma r(S, A, S')],

and the EPIC distance of two rewards is sqrt((1 - rho) / 2), rho the correlation of their forms over a coverage law.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlinf_ppl import models
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.tasks import MDP, checks
from rlinf_ppl.types import ArrayLike


def linear_rewards(
    mdp: MDP,
    features: ArrayLike,
    horizon: int | None = None,
    discount: ArrayLike | None = None,
    beta: ArrayLike = 1.0,
    prior: ArrayLike | None = None,
    name: str = "theta",
) -> Callable[[Mapping[str, Any]], ControlProgram]:
    """The programs of a reward that is linear in features: r(s, a) = sum_k features[s, a, k] theta[k].

        program = behaviour.linear_rewards(mdp, features, discount=0.95)
        fit = behaviour.maximum_likelihood(frame, program=program, start={"theta": jnp.zeros(3)}, ...)

    Only beta theta says what is done, so beta is held at a number.

    Args:
        mdp: the task; its own reward does not matter.
        features: of states (S, K), or of states and actions (S, A, K), in any unit.
        horizon: number of steps T; None: without end.
        discount: gamma; below 1, and to be given, where there is no end. None: 1.
        beta: inverse temperature, in 1 / units of reward.
        prior: action prior p(a | s), (S, A) or (T, S, A); default uniform.
        name: of the parameter, of shape (K,).

    Returns:
        A function of a dictionary of parameters, which may hold others; it makes the program of `models.single_agent`.

    Raises:
        TypeError: on something else than an MDP, or features that are no real numbers.
        ValueError: features of another shape, or not finite; no discount where there is no end; as the model raises.
    """
    if not isinstance(mdp, MDP):
        raise TypeError(f"mdp must be a task of rlinf_ppl.tasks, MDP; got {type(mdp).__name__}.")
    if horizon is None and discount is None:
        raise ValueError("without a horizon a discount below 1 is needed: give discount=..., or horizon=...")
    given = checks.as_reals("features", features)
    states, actions = mdp.num_states, mdp.num_actions
    shapes: list[tuple[int | str, ...]] = [(states, "K"), (states, actions, "K")]
    checks.check_shape("features", given.shape, shapes, "the task's policy", (states, actions))
    checks.check_finite("features", given)
    # Known ones keep their digits for whoever counts in more of them later.
    kept = np.array(features, dtype=np.float64) if checks.is_concrete(given) else given

    def program(parameters: Mapping[str, Any]) -> ControlProgram:
        array = jnp.asarray(kept, dtype=float)
        reward = jnp.tensordot(array, weights_of(parameters, name, array.shape[-1]), 1, precision="highest")
        rewards = jnp.broadcast_to(reward.reshape(states, -1), (states, actions))
        task = checks.assemble(MDP, vars(in_all_digits(mdp)) | {"reward": rewards})
        return models.single_agent(task, horizon, beta, prior, 1.0 if discount is None else discount)

    return program


def in_all_digits(mdp: MDP) -> MDP:
    """The task with probabilities that sum to one in the current dtype, where it was made in one of fewer digits.

    Estimates count in float64 whatever JAX does. Rows of float32 sum to one but for 1e-7, and a constant reward would
    have an influence.
    """
    names = [name for name in ("transition", "probabilities", "initial") if getattr(mdp, name) is not None]
    if all(getattr(mdp, name).dtype == jnp.zeros(()).dtype for name in names):
        return mdp
    # Known numbers stay known where a caller's jit is tracing.
    with jax.ensure_compile_time_eval():
        wide = {name: jnp.asarray(getattr(mdp, name), dtype=float) for name in names}
        rows = {name: checks.as_distributions(name, array, ("row",) * (array.ndim - 1)) for name, array in wide.items()}
    return checks.assemble(MDP, vars(mdp) | rows)


def weights_of(parameters: Any, name: str, count: int) -> Float[Array, " K"]:
    """The weights of the features, from a dictionary of parameters.

    Raises:
        TypeError: it is none.
        ValueError: it lacks them, or they are of another number, or not finite.
    """
    if not isinstance(parameters, Mapping):
        raise TypeError(f"parameters are given by name, in a dictionary; got {type(parameters).__name__}.")
    if name not in parameters:
        raise ValueError(f"parameters hold {list(parameters)}, and the reward wants {name!r}, of shape ({count},).")
    weights = checks.as_reals(name, parameters[name])
    if weights.shape != (count,):
        raise ValueError(f"{name} has shape {weights.shape}, and there are {count} features: it must be ({count},).")
    checks.check_finite(name, weights)
    return weights


def epic_distance(
    reward: ArrayLike,
    other: ArrayLike,
    discount: ArrayLike,
    state_law: ArrayLike | None = None,
    action_law: ArrayLike | None = None,
    coverage: ArrayLike | None = None,
) -> Float[Array, ""]:
    """How far apart two rewards are in what they want: 0, the same in any world, to 1, the opposite.

    It is 0 where they differ by a factor above 0, a constant and potential shaping gamma phi(s') - phi(s), and only
    there, as far as the coverage law looks. The unit of neither matters.

    Args:
        reward: (S,), (S, A) or (S, A, S'); shaping by a potential makes one of the last kind.
        other: any of these, over the same states and actions.
        discount: gamma, in [0, 1].
        state_law: what shaping averages states over, (S,); default uniform.
        action_law: what it averages actions over, (A,); default uniform.
        coverage: the transitions over which rewards are compared, (S, A, S') with sum 1; default the product of the
            laws of states, actions and states.

    Returns:
        The distance, differentiable. NaN where traced rewards have no direction.

    Raises:
        TypeError: on something else than real numbers.
        ValueError: shapes that do not fit, numbers that are not finite, laws that are no distributions; a reward that
            is a constant after shaping, as it wants nothing, and so has no direction.
    """
    arrays = {"reward": checks.as_reals("reward", reward), "other": checks.as_reals("other", other)}
    states, actions = sizes_of(arrays, action_law, coverage)
    gamma = checks.as_reals("discount", discount)
    if gamma.ndim or (checks.is_concrete(gamma) and not 0 <= gamma <= 1):
        raise ValueError(f"discount must be one number from 0 to 1; got {discount}.")
    law = distribution("state_law", state_law, (states,))
    choice = distribution("action_law", action_law, (actions,))
    product = law[:, None, None] * choice[None, :, None] * law[None, None]
    weights = product if coverage is None else distribution("coverage", coverage, (states, actions, states))
    first, second = (directed(name, each, gamma, law, choice, weights) for name, each in arrays.items())
    # 1 - rho is half of the squared distance of the directions, which has all its digits where rho is near 1.
    square = jnp.sum((first - second) ** 2)
    distance = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0) / 2
    return jnp.where(jnp.isnan(square), jnp.nan, jnp.minimum(distance, 1.0))


def sizes_of(arrays: Mapping[str, Array], action_law: Any, coverage: Any) -> tuple[int, int]:
    """How many states and actions rewards are over.

    Raises:
        ValueError: they are over none, or do not fit each other.
    """
    for name, each in arrays.items():
        if each.ndim not in (1, 2, 3) or 0 in each.shape or each.shape[2:] not in ((), each.shape[:1]):
            raise ValueError(f"{name} has shape {each.shape}; it must be (S,), (S, A) or (S, A, S).")
        checks.check_finite(name, each)
    shapes = [each.shape for each in arrays.values()]
    counts = {shape[1] for shape in shapes if len(shape) > 1}
    if len({shape[0] for shape in shapes}) > 1 or len(counts) > 1:
        raise ValueError(f"reward has shape {shapes[0]} and other {shapes[1]}: they must be over the same (S, A, S).")
    if not counts:
        told = jnp.shape(coverage)[1:2] if action_law is None else jnp.shape(action_law)[:1]
        counts = {told[0] if told else 1}
    return shapes[0][0], counts.pop()


def distribution(name: str, law: ArrayLike | None, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """A distribution over all entries of an array; uniform where None.

    Raises:
        ValueError: it has another shape, or is none.
    """
    if law is None:
        return jnp.full(shape, 1.0 / np.prod(shape))
    array = checks.as_reals(name, law)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; over the states and actions of the rewards it is {shape}.")
    return checks.as_distributions(name, array.reshape(-1), ()).reshape(shape)


def directed(
    name: str,
    reward: Float[Array, "..."],
    gamma: Float[Array, ""],
    states: Float[Array, " S"],
    actions: Float[Array, " A"],
    coverage: Float[Array, "S A S"],
) -> Float[Array, "S A S"]:
    """A canonical reward as a vector of length 1 about its mean; the product of two of them sums to a correlation.

    Raises:
        ValueError: it is a constant.
    """
    # The unit does not matter, and squares of large or small numbers are none.
    unit = jnp.max(jnp.abs(reward))
    scaled = reward / jnp.where(unit > 0, unit, 1.0)
    full = jnp.broadcast_to(scaled.reshape(*reward.shape, *[1] * (3 - reward.ndim)), coverage.shape)
    ahead = jnp.sum(full * actions[None, :, None] * states[None, None], (1, 2))
    shaped = full + gamma * ahead[None, None] - ahead[:, None, None] - gamma * jnp.sum(states * ahead)
    centred = shaped - jnp.sum(coverage * shaped)
    length = jnp.sqrt(jnp.sum(coverage * centred**2))
    flat = length <= 100 * jnp.finfo(full.dtype).eps * jnp.max(jnp.abs(full))
    if not isinstance(flat, jax.core.Tracer) and bool(flat):
        raise ValueError(
            f"{name} is a constant after shaping, wherever coverage looks and as far as its digits go: no behaviour "
            "follows from it, and it has no direction to compare."
        )
    return jnp.where(flat, jnp.nan, jnp.sqrt(coverage) * centred / jnp.where(flat, 1.0, length))
