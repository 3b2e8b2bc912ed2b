"""Values that are remembered with noise, and the agent that acts on them (Patel, Acerbi & Pouget 2020).

    pi(a | s) = E softmax(beta (q(s, .) + std(s, .) z))_a,   z ~ N(0, I) drawn anew at each choice
    q(s, a) = r(s, a) + gamma E v(s'),                        v(s) = sum_a pi(a | s) q(s, a)

q is the value of the agent's own noisy policy: what it comes to believe who learns on policy. With one std for all
times q is a fixed point at discount gamma, whatever the horizon; with one for each time it is a backward recursion to
the horizon. The fixed point is found by policy iteration: q of the policy at hand, by a linear system, then the policy
of that q. From near on it is Newton's method, which knows how the policy changes, too, and takes a handful of rounds
more where policy iteration takes dozens. It is differentiated by the implicit function theorem, with

    dv = d(sum_a pi q) at v fixed + gamma J dv,      J(s, s') = sum_a w(s, a) P(s' | s, a),
    w(s, a) = pi(a | s) + sum_b q(s, b) d pi(b | s) / d q(s, a)

States that lead nowhere and pay nothing are worth 0, at a discount of 1 as well. There may be several fixed points
where noise is small and beta large, and some that learning would leave again; this is where a search from 0 ends.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.algebra.fixed_point import constant, depending
from rlinf_ppl.algebra.linear_systems import solve_written
from rlinf_ppl.algebra.random_utility import choice
from rlinf_ppl.models.arguments import check_task, finite_number
from rlinf_ppl.models.dynamics import expected_next, reaches_its_end
from rlinf_ppl.tasks import MDP, checks
from rlinf_ppl.types import ArrayLike

MOST_ROUNDS = 200
# From a residual of this share of the values on, the search believes the slopes.
NEAR = 0.1


class NoisyValues(NamedTuple):
    """What an agent comes to who acts on values that it remembers with noise.

    Attributes:
        value: q, (S, A), or (T, S, A) where the noise varies in time; in units of reward.
        policy: the probability of each action, the noise averaged out; as the value.
        residual: how far q is from the value of this policy, in units of reward.
        converged: whether that is rounding, and rounding hardly moves the policy: not where values are large against
            beta and std, in single precision mostly. At a discount of 1 there may be no value.
    """

    value: Float[Array, "*T S A"]
    policy: Float[Array, "*T S A"]
    residual: Float[Array, ""]
    converged: Bool[Array, ""]


class Round(NamedTuple):
    """How far the search for a fixed point has come.

    Attributes:
        v: what was looked at last, (S,).
        better: what to look at next, (S,).
        residual: of v.
        near: the share of v from which on slopes are believed; a tenth of what it was after a round for the worse.
        rounds: how many there were.
    """

    v: Array
    better: Array
    residual: Array
    near: Array
    rounds: Array


def noisy_values(mdp: MDP, std: ArrayLike, beta: ArrayLike, discount: ArrayLike = 1.0) -> NoisyValues:
    """The values of an agent's own policy, where it acts on these values with noise.

    Args:
        mdp: the task, S states and A actions.
        std: standard deviation of each remembered value, at least 0, in units of reward: (S, A), or what broadcasts to
            it, such as (S, 1); or (T, S, A), one for each time, with which the task ends after T steps.
        beta: inverse temperature of the softmax, above 0, in 1 / units of reward.
        discount: gamma in [0, 1], of the values.

    Raises:
        TypeError: on something else than an MDP.
        ValueError: on a std below 0 or of another shape, a beta that is not above 0, a discount outside [0, 1], or of 1
            where the task need not end.
    """
    check_task("mdp", mdp, MDP)
    spread = as_table("std", std, mdp, None)
    if checks.is_concrete(spread) and bool(jnp.any(spread < 0)):
        raise ValueError(f"std has an entry of {float(jnp.min(spread)):g}; a standard deviation is at least 0.")
    sharpness, gamma = positive_number("beta", beta), discount_of("discount", discount)
    check_values(mdp, spread, gamma)
    mdp = mdp.anonymous()
    if spread.ndim == 3:
        return remembered_until_the_end(mdp, spread, sharpness, gamma)
    return remembered(mdp, spread, sharpness, gamma)


@compiled
def remembered(mdp: MDP, std: Float[Array, "S A"], beta: Array, discount: Array) -> NoisyValues:
    """The same for one std at all times, a fixed point."""

    def policy_of(q: Array) -> Array:
        return choice(beta * q, beta * std)

    def operator(v: Array) -> Array:
        q = value_of(mdp, discount, v)
        return earned(mdp, q, policy_of(q))

    def slopes(v: Array) -> Array:
        return moved(mdp, discount, with_slopes(policy_of, value_of(mdp, discount, v))[1])

    def found_from(start: Array) -> tuple[Array, Array, Array]:
        return search(mdp, discount, policy_of, start)

    start = jnp.zeros(mdp.num_states, jnp.result_type(std, mdp.reward))
    found, residual, _ = constant(eqx.filter_closure_convert(found_from, start))(start)
    # Without an end the system is singular at a discount of 1, and what solves it is large and without digits.
    digits = jnp.finfo(found.dtype).eps * jnp.max(jnp.abs(found)) <= 0.01 * jnp.max(jnp.abs(mdp.reward))
    settled = (residual <= rounding(mdp, found)) & digits
    found = jnp.where(settled, found, jnp.nan)
    fixed = eqx.filter_closure_convert(operator, start), eqx.filter_closure_convert(slopes, start)
    q = value_of(mdp, discount, depending(found, *fixed))
    policy = policy_of(q)
    return NoisyValues(q, policy, residual, settled & has_digits(mdp, discount, q, policy, std, beta))


def search(
    mdp: MDP, discount: Array, policy_of: Callable[[Array], Array], start: Float[Array, " S"]
) -> tuple[Array, Array, Array]:
    """The value of each state where a policy is of its own values, by policy iteration and then by Newton's method.

    Args:
        mdp: the task.
        discount: of values.
        policy_of: from values of actions, (S, A), to the probability of each.
        start: where to start.

    Returns:
        The value, by how much one round of the policy would move it, and the number of rounds.
    """

    def without_slopes(q: Array) -> tuple[Array, Array]:
        policy = policy_of(q)
        return policy, policy

    def round_of(at: Round) -> Round:
        q = value_of(mdp, discount, at.better)
        close = at.residual <= at.near * jnp.max(jnp.abs(at.v))
        policy, weights = lax.cond(close, partial(with_slopes, policy_of), without_slopes, q)
        off = earned(mdp, q, policy) - at.better
        residual = jnp.max(jnp.abs(off))
        step = solve_written(jnp.eye(len(off), dtype=off.dtype) - moved(mdp, discount, weights), off)
        near = jnp.where(residual > at.residual, 0.1 * at.near, at.near)
        return Round(at.better, at.better + step, residual, near, at.rounds + 1)

    def unsettled(at: Round) -> Array:
        return (at.residual > rounding(mdp, at.v)) & (at.rounds < MOST_ROUNDS) & ~jnp.isnan(at.residual)

    infinite, near = (jnp.asarray(x, start.dtype) for x in (jnp.inf, NEAR))
    found = lax.while_loop(unsettled, round_of, Round(start, start, infinite, near, jnp.asarray(0)))
    return found.v, found.residual, found.rounds


def has_digits(mdp: MDP, discount: Array, q: Array, policy: Array, std: Array, beta: Array) -> Bool[Array, ""]:
    """Whether rounding of the values, added up for as long as they look ahead, hardly moves the policy."""
    q, policy, std, beta = lax.stop_gradient((q, policy, std, beta))
    leads = moved(mdp, discount, policy)
    ahead = solve_written(jnp.eye(len(leads), dtype=leads.dtype) - leads, jnp.ones(len(leads), leads.dtype))
    off = jnp.finfo(q.dtype).eps * jnp.max(ahead) * jnp.max(jnp.abs(q))
    return off <= 0.1 * jnp.sqrt(jnp.min(std) ** 2 + 1 / beta**2)


def value_of(mdp: MDP, discount: Array, v: Float[Array, " S"]) -> Float[Array, "S A"]:
    """The value of each action where that of the next state is known."""
    return mdp.reward + discount * expected_next(mdp, v)


def earned(mdp: MDP, q: Float[Array, "S A"], policy: Float[Array, "S A"]) -> Float[Array, " S"]:
    """The value of each state."""
    return jnp.where(mdp.terminal, 0.0, jnp.sum(policy * q, -1))


def moved(mdp: MDP, discount: Array, weights: Float[Array, "S A"]) -> Float[Array, "S S"]:
    """Gamma times where the task leads if actions have weights."""
    units = jnp.eye(mdp.num_states, dtype=weights.dtype)
    return jnp.where(mdp.terminal[:, None], 0.0, discount * jax.vmap(expected_with(mdp, weights), 0, 1)(units))


def with_slopes(policy_of: Callable[[Array], Array], q: Float[Array, "S A"]) -> tuple[Array, Array]:
    """A policy, and the weights w: how its value moves with that of each action."""
    policy, back = jax.vjp(policy_of, q)
    return policy, policy + back(jnp.broadcast_to(q, policy.shape))[0]


def expected_with(mdp: MDP, weights: Array) -> Any:
    """The expectation of a function of the next state where actions have weights."""
    return lambda value: jnp.sum(weights * expected_next(mdp, value), -1)


@compiled
def remembered_until_the_end(mdp: MDP, std: Float[Array, "T S A"], beta: Array, discount: Array) -> NoisyValues:
    """The same for a std at each time."""
    rewards = jnp.broadcast_to(mdp.reward, std.shape)

    def back(v: Array, now: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        reward, spread = now
        q = reward + discount * expected_next(mdp, v)
        policy = choice(beta * q, beta * spread)
        return jnp.sum(policy * q, -1), (q, policy)

    end = jnp.zeros(mdp.num_states, rewards.dtype)
    _, (q, policy) = lax.scan(back, end, (rewards, std), reverse=True)
    return NoisyValues(q, policy, jnp.zeros((), q.dtype), jnp.asarray(True))


def rounding(mdp: MDP, v: Array) -> Array:
    """What is rounding of values."""
    return 64 * jnp.finfo(v.dtype).eps * jnp.maximum(jnp.max(jnp.abs(mdp.reward)), jnp.max(jnp.abs(v)))


def check_values(mdp: MDP, std: Array, discount: Array) -> None:
    """Raise where an agent's own values need not exist, or vary over other times than std.

    Raises:
        ValueError: so it is.
    """
    timed = mdp.reward.ndim == 3
    if std.ndim == 3:
        if timed and len(mdp.reward) != len(std):
            raise ValueError(f"std has {len(std)} times, and the task's reward {len(mdp.reward)}.")
        return
    if timed:
        raise ValueError(
            "the task's reward varies in time, and its values have no one table: give a std for each time, (T, S, A)."
        )
    known = all(map(checks.is_concrete, (discount, mdp.reward, mdp.initial)))
    if known and discount == 1 and not reaches_its_end(mdp):
        raise ValueError(
            "at a value_discount of 1 values are finite only where the task ends, in a state that leads nowhere and "
            "pays nothing, from every state; give values a discount below 1, or a std for each time, (T, S, A)."
        )


def as_table(name: str, given: ArrayLike, mdp: MDP, times: int | None) -> Float[Array, "*T S A"]:
    """A number for each state and action, and for each time where it has that axis.

    Args:
        name: of the argument.
        given: the numbers; with size 1, or without an axis, where they ignore it.
        mdp: the task.
        times: how many times there may be; 0: none, None: any number.

    Raises:
        ValueError: on another shape, or numbers that are not finite.
    """
    array, shape = checks.as_reals(name, given), (mdp.num_states, mdp.num_actions)
    if array.size:
        checks.check_finite(name, array)
    timed = array.ndim == 3 and len(array) > 0 and times != 0
    whole = (times or len(array), *shape) if timed else shape
    try:
        return jnp.broadcast_to(array, whole)
    except ValueError as error:
        over_time = "" if times == 0 else f", or {('T' if times is None else times, *shape)} over times as well"
        raise ValueError(
            f"{name} has shape {array.shape}; it is one number, or a table {shape} of states and actions, with size 1 "
            f"where it ignores one{over_time}."
        ) from error


def positive_number(name: str, value: ArrayLike) -> Float[Array, ""]:
    """A finite number above 0.

    Raises:
        ValueError: it is none.
    """
    array = finite_number(name, value)
    if checks.is_concrete(array) and not array > 0:
        raise ValueError(f"{name} is {float(array):g}; it must be above 0.")
    return array


def discount_of(name: str, value: ArrayLike) -> Float[Array, ""]:
    """A number in [0, 1].

    Raises:
        ValueError: it is none.
    """
    array = finite_number(name, value)
    if checks.is_concrete(array) and not (array >= 0) & (array <= 1):
        raise ValueError(f"{name} is {float(array):g}; it must be in [0, 1].")
    return array
