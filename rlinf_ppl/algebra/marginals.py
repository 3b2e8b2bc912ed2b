"""Marginals of states and decisions: the forward pass is the transpose of the backward one.

The derivative of E_q[V_next] in V_next is the marginal of the next state, and the derivative of a log evidence in a
log factor is a posterior probability. So marginals are vector Jacobian products of the same walk, in every algebra.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from rlinf_ppl.algebra.chain import Chain, Slice
from rlinf_ppl.algebra.elimination import Rules, expectation_rules, start, survive, through, walk
from rlinf_ppl.algebra.linear_systems import solve_linear
from rlinf_ppl.algebra.messages import Law
from rlinf_ppl.algebra.times import at_time, by_time


def forward(
    chain: Chain, policy: dict[str, Law], axes: dict[str, tuple[str, ...]] | None = None
) -> tuple[Array, dict[str, Array]]:
    """Marginals of the states and decisions under a policy and the true dynamics, by the transposed expectation.

    Without end the marginals are those of a time that is drawn with probabilities (1 - discount) discount ** t.

    Args:
        chain: the program.
        policy: for each decision its law with the leading axes `chain.times`.
        axes: for each decision what its marginal is of; None: its scope and itself.

    Returns:
        q(s_t) with shape (T + 1, state sizes) and for each decision q(axes), such as (T, scope sizes, K);
        without end neither has the axis of time.
    """
    if chain.horizon is None:
        return occupancies(chain, expectation_rules(policy), axes)
    varying, constant = by_time(chain.step)
    nothing = chain.zero.over(chain.state, chain.size())
    first = jax.grad(lambda v: start(chain, nothing.renewed(v), expectation_rules({})))(nothing.array)

    def body(mu: Array, now: Any) -> tuple[Array, Any]:
        step, here = at_time(eqx.combine(now[0], constant)), expectation_rules(at_time(now[1]))
        following, decisions = transposed(chain, step, jnp.zeros_like(mu), here, mu, axes)
        return following, (mu, decisions)

    last, (states, decisions) = lax.scan(body, first, (varying, policy), length=chain.horizon)
    return jnp.concatenate([states, last[None]]), decisions


def occupancies(
    chain: Chain, rules: Rules, axes: dict[str, tuple[str, ...]] | None = None
) -> tuple[Array, dict[str, Array]]:
    """Discounted occupancies mu = (1 - discount) mu_0 + discount P mu of the states, and of each decision."""
    assert chain.alive is not None
    discount = chain.survival[1]
    nothing = chain.zero.over(chain.state, chain.size())
    first = jax.grad(lambda v: start(chain, nothing.renewed(v), rules))(nothing.array)

    def push(mu: Array) -> tuple[Array, dict[str, Array]]:
        return transposed(chain, chain.step, nothing.array, rules, mu, axes)

    states = solve_linear(lambda mu: mu - discount * push(mu)[0], (1 - discount) * first)
    return states, push(states)[1]


def posterior_forward(
    chain: Chain, rules: Rules, prior: Callable[[Slice], Rules]
) -> tuple[Array, dict[str, Array], Array]:
    """Marginals of the states and decisions given optimality, by the derivative of the log evidence in added factors.

    A dead trajectory collects no more factors: its states and decisions go on under `prior`, and the marginals are
    over the living and the dead together.

    Args:
        chain: the program.
        rules: the rules of conditioning.
        prior: makes from one step's slice the rules of plain expectation under the action priors.

    Returns:
        p(s_t | O) with shape (T + 1, state sizes); for each decision p(scope, d | O) with shape (T, scope sizes, K);
        the log evidence in units of optimality.
    """
    size, axes = chain.size(), chain.axes()
    varying, constant = by_time(chain.step)
    nothing = chain.zero.over(chain.state, size)
    factors = {name: chain.zero.over(axes[name], size) for name in axes}

    # What a message sums over the next states is kept for the way forwards: a step reads its transition twice in all.
    @partial(jax.checkpoint, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable)
    def body(v: Array, now: Any) -> tuple[Array, None]:
        step, (state, arriving, decisions) = at_time(eqx.combine(now[0], constant)), now[1]
        following = survive(chain, nothing.renewed(v), rules) + nothing.renewed(arriving)
        added = {name: factors[name].renewed(array) for name, array in decisions.items()}
        return through(step, following, rules, added)[0].over(chain.state, size).array + state, None

    def evidence(last: Array, added: Any) -> Array:
        first = lax.scan(body, last, (varying, added), length=chain.horizon, reverse=True)[0]
        return start(chain, nothing.renewed(first), rules)

    last = walk(chain.final, chain.zero, expectation_rules({}))[0].over(chain.state, size).array
    each = nothing.array, nothing.array, {name: factor.array for name, factor in factors.items()}
    added = jax.tree.map(lambda zeros: jnp.broadcast_to(zeros, (chain.horizon, *zeros.shape)), each)
    total, (end, (living, arriving, decisions)) = jax.value_and_grad(evidence, argnums=(0, 1))(last, added)
    living = jnp.concatenate([living, end[None]])
    if chain.alive is None:
        return living, decisions, total

    def wander(dead: Array, now: Any) -> tuple[Array, Any]:
        step = at_time(eqx.combine(now[0], constant))
        following, chosen = transposed(chain, step, nothing.array, prior(step), dead)
        return following + now[1], (dead, chosen)

    last, (dead, chosen) = lax.scan(wander, nothing.array, (varying, arriving - living[1:]), length=chain.horizon)
    return living + jnp.concatenate([dead, last[None]]), jax.tree.map(jnp.add, decisions, chosen), total


def transposed(
    chain: Chain,
    step: Slice,
    v: Array,
    rules: Rules,
    weights: Array,
    axes: dict[str, tuple[str, ...]] | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Push weights on this state forwards through a step, linearised at the message `v` of the next state.

    Returns:
        The weights on the next state, and for each decision those on its axes (None: its scope and itself): the
        derivative in a factor put in just before the decision is eliminated.
    """
    size, axes = chain.size(), chain.axes() if axes is None else axes
    nothing = chain.zero.over(chain.state, size)
    factors = {name: chain.zero.over(axes[name], size) for name in axes}

    def value(v: Array, added: dict[str, Array]) -> Array:
        here = {name: factors[name].renewed(array) for name, array in added.items()}
        return through(step, nothing.renewed(v), rules, here)[0].over(chain.state, size).array

    return jax.vjp(value, v, {name: factor.array for name, factor in factors.items()})[1](weights)
