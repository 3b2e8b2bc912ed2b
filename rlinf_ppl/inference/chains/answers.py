"""What the exact engine answers, as compiled functions of a program that has been read."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from rlinf_ppl import algebra
from rlinf_ppl.algebra import Chain, Law, Whole
from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.algebra.quadratics import Gaussian
from rlinf_ppl.inference.chains.costs import is_affine, kl_of_steps, weights
from rlinf_ppl.inference.chains.forbidden import (
    breaches,
    departures,
    evaluated,
    marked,
    ruled_out,
    with_impossible,
)
from rlinf_ppl.inference.chains.origins import magnified
from rlinf_ppl.inference.chains.policies import as_answers, as_kept, digits_of, value_of

# What rounding may leave of the answers about vectors, by the size of a number in bytes.
EXACTNESS = {4: 1e-3, 8: 1e-6}


class Solution(NamedTuple):
    """The soft-optimal policy. At an infinite horizon nothing has the axis of time.

    Where the variables are Gaussian, a policy is an `AffinePolicy` of its scope, (gain (T, m, n), offset (T, m), cov
    (T, m, m)), and V a `QuadraticValue` of the state variables side by side, (matrix, vector, scalar).

    Attributes:
        policy: for each decision (T, scope, K) probabilities.
        value: V, shape (T + 1, states), the last row terminal, in units of optimality.
        elbo: the maximal evidence lower bound: V_0 averaged over the first state.
        converged: whether the numbers are a program (see `read`), the answer is finite and, at an infinite horizon,
            its error bound within the tolerance. Of vectors also whether rounding left 3 digits of the answer in
            float32 and 6 in float64; gains and offsets are measured by the noise of the policy, V's vector by what
            changes V by 1, its scalar by 1 at least.
        residual: at an infinite horizon the largest change of V by one more step; and where decisions do not see each
            other, how far their probabilities are from the replies to the others. Else 0.
        error_bound: at an infinite horizon how far V may be from the fixed point, rounding included; of vectors how far
            rounding may have moved the ELBO; else 0.
        iterations: the number of steps T, or of Newton steps and sweeps.
    """

    policy: dict[str, Any]
    value: Any
    elbo: Float[Array, ""]
    converged: Bool[Array, ""]
    residual: Float[Array, ""]
    error_bound: Float[Array, ""]
    iterations: Float[Array, ""]


class Posterior(NamedTuple):
    """The exact posterior given optimality. At an infinite horizon nothing has the axis of time.

    Attributes:
        policy: for each decision (T, scope, K) probabilities p(d | scope, O), of a process still alive.
        value: V, shape (T + 1, states), in units of optimality.
        log_evidence: log p(O) in nats; -inf where data or hard constraints cannot be met. Where they cannot from a
            state on, its value is -inf, and its policy means nothing.
        converged, residual, error_bound, iterations: as a solution's.
    """

    policy: dict[str, Any]
    value: Any
    log_evidence: Float[Array, ""]
    converged: Bool[Array, ""]
    residual: Float[Array, ""]
    error_bound: Float[Array, ""]
    iterations: Float[Array, ""]


class Marginals(NamedTuple):
    """Where the process is and what it does, each time's entries summing to one; `Gaussian` where the variables are.

    Attributes:
        state: (T + 1, states). At an infinite horizon the discounted occupancy, (1 - discount) sum discount^t q(s_t).
        decision: for each decision its joint with its scope, (T, scope, K); without T at an infinite horizon.
    """

    state: Any
    decision: dict[str, Any]


@compiled
def solve(chain: Chain, tolerance: Array | None = None, dtype: Any = None, start: Array | None = None) -> Solution:
    """Soft-optimal control."""
    rules = algebra.solve_rules()
    walked = algebra.backward(
        chain.quickest(policies=True), lambda _: rules, None, lambda found: found.policy, tolerance, start
    )
    begun = algebra.through(chain.initial, walked.first, rules)[0].whole
    policy, values = as_kept(chain, walked.kept), over_states(chain, walked.values)
    return Solution(policy, values, begun.constant, *verdict(chain, walked, begun, tolerance, dtype, policy, values))


@compiled
def condition(chain: Chain, tau: Array | None, tolerance: Array | None = None, dtype: Any = None) -> Posterior:
    """The posterior given optimality at the common inverse temperature `tau`."""
    chain, rules = with_impossible(chain), algebra.condition_rules(constant(chain, tau))
    walked = algebra.backward(
        chain.quickest(policies=True), lambda _: rules, None, lambda found: found.policy, tolerance
    )
    begun = algebra.through(chain.initial, walked.first, rules)[0].whole
    evidence = begun.constant if tau is None else tau * begun.constant
    evidence = jnp.where(begun.constant < ruled_out(evidence) / 2, -jnp.inf, evidence)
    values = jax.tree.map(lambda v: jnp.where(v < ruled_out(v) / 2, -jnp.inf, v), over_states(chain, walked.values))
    policy = as_kept(chain, walked.kept)
    return Posterior(policy, values, evidence, *verdict(chain, walked, begun, tolerance, dtype, policy, values, tau))


def unmet(chain: Chain, posterior: Posterior) -> Posterior:
    """The posterior of vectors, minus infinity from where on data have probability zero whatever the variables are."""
    ahead = jnp.flip(jnp.cumsum(jnp.flip(chain.impossible))) > 0
    scalar = jnp.where(ahead if chain.horizon is not None else ahead[0], -jnp.inf, posterior.value.scalar)
    evidence = jnp.where(ahead[0], -jnp.inf, posterior.log_evidence)
    return posterior._replace(value=posterior.value._replace(scalar=scalar), log_evidence=evidence)


@compiled
def evaluate(chain: Chain, policy: dict[str, Law], tolerance: Array | None = None, dtype: Any = None) -> Solution:
    """The value of a policy."""
    walked = algebra.backward(chain.quickest(), evaluated, policy, None, tolerance)
    begun = algebra.through(chain.initial, walked.first, algebra.solve_rules())[0].whole
    found = breaches(chain, policy)
    total, values = marked(chain, policy, found, begun.constant, over_states(chain, walked.values))
    converged, residual, error_bound, steps = verdict(chain, walked, begun, tolerance, dtype, {}, values)
    converged &= ~jnp.isnan(total)
    if chain.origin:
        digits = digits_of(chain, policy, dtype) + digits_of(chain, chain.priors()) * jnp.maximum(1.0, jnp.abs(total))
        most = most_of(chain, dtype)
        converged &= jnp.isfinite(digits) & (digits <= most * jnp.maximum(1.0, jnp.abs(total)))
        error_bound += digits
    return Solution(as_answers(chain, policy), values, total, converged, residual, error_bound, steps)


@compiled
def growth(chain: Chain, tau: Array | None) -> tuple[Array, Array]:
    """Bounds on the spectral radius of what one step makes of exp(tau V) of the living (Collatz 1942)."""
    rules = algebra.condition_rules(constant(chain, tau))
    assert chain.alive is not None
    scale = 1.0 if tau is None else tau
    size = chain.size()
    nothing = chain.zero.over(chain.carried, size)

    def sweep(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        v, _ = state
        w = algebra.through(chain.step, nothing.renewed(v), rules)[0].over(chain.carried, size).array
        return w - jnp.max(w), scale * (w - v)

    growth = jax.lax.fori_loop(0, 1000, sweep, (nothing.array, nothing.array))[1]
    alive = chain.survival[1]
    return alive * jnp.exp(jnp.min(growth)), alive * jnp.exp(jnp.max(growth))


def most_of(chain: Chain, dtype: Any = None) -> float:
    """What rounding may leave of answers that are for a dtype; None: for that of the chain."""
    return EXACTNESS[np.dtype(dtype or chain.zero.array.dtype).itemsize]


def verdict(
    chain: Chain,
    walked: algebra.Walked,
    begun: Whole,
    tolerance: Array | None,
    dtype: Any = None,
    policy: dict[str, Any] | None = None,
    value: Any = None,
    tau: Array | None = None,
) -> tuple[Array, ...]:
    """Whether the answer has converged, then the residual, the error bound and the number of steps.

    Args:
        chain: the program.
        walked: what was found.
        begun: the message that is left in the end, a constant.
        tolerance: of the fixed point, without end.
        dtype: what answers about vectors are for: it says how many digits rounding must leave; None: their own.
        policy: the policies among the answers.
        value: the values among them.
        tau: what makes nats of a vector program's constant; None: 1.
    """
    answer, rounding = begun.constant, begun.rounding
    finite = chain.valid & (jnp.isfinite(answer) | (answer == -jnp.inf))
    precision = float(jnp.finfo(answer.dtype).eps) ** 0.5
    error_bound = walked.error_bound
    if rounding is not None:
        # Without end every step adds its own.
        steps = weights(chain)[0] if chain.horizon is None else jnp.ones(())
        absolute, total = rounding.absolute * steps, answer
        if tau is not None:
            absolute, total = absolute * jnp.abs(tau), answer * tau
        error_bound, most = jnp.maximum(error_bound, absolute), most_of(chain, dtype)
        finite &= (rounding.relative <= most) & (absolute <= most * jnp.maximum(1.0, jnp.abs(total)))
        digits = rounding.relative + max(chain.precision, float(jnp.finfo(answer.dtype).eps))
        finite &= digits * magnified(chain, policy or {}, value) <= most
    if chain.horizon is None:
        # Half of the bound may be rounding.
        goal = precision if tolerance is None else 2 * tolerance
        finite &= walked.error_bound <= goal * jnp.maximum(1.0, jnp.max(jnp.abs(walked.values.array)))
    else:
        finite &= walked.residual <= precision
    return finite, walked.residual, error_bound, walked.steps


@compiled
def kl(chain: Chain, policy: dict[str, Law], other: dict[str, Law], dtype: Any = None) -> tuple[Array, Array]:
    """KL in nats between the trajectories of two policies: sum gamma^t E_q log(q / q'); and how far digits leave it."""
    total = jnp.sum(kl_of_steps(chain, policy, other) * weights(chain))
    off = digits_of(chain, policy, dtype) + digits_of(chain, other, dtype) * jnp.maximum(1.0, jnp.abs(total))
    return -marked(chain, policy, departures(chain, policy, other), -total)[0], off


@compiled
def marginals(chain: Chain, policy: dict[str, Law]) -> Marginals:
    """Where a policy goes."""
    if not is_affine(chain):
        return measured(*algebra.forward(chain, policy))
    states, decisions = algebra.affine_forward(chain, policy)

    def placed(names: tuple[str, ...], about: Gaussian) -> Gaussian:
        origin = jnp.concatenate([chain.origin[name] for name in names])
        return Gaussian(about.mean + jnp.broadcast_to(origin, about.mean.shape), about.cov)

    return Marginals(
        placed(chain.state, states), {name: placed(chain.axes()[name], decisions[name]) for name in decisions}
    )


@compiled
def posterior_marginals(chain: Chain, tau: Array | None) -> tuple[Marginals, Array]:
    """Where the posterior given optimality goes, and whether there is one; NaN where not."""
    chain, rules = with_impossible(chain), algebra.condition_rules(constant(chain, tau))
    states, decisions, evidence = algebra.posterior_forward(chain, rules, by_priors)
    possible = evidence >= ruled_out(evidence) / 2
    return jax.tree.map(lambda x: jnp.where(possible, x, jnp.nan), measured(states, decisions)), possible


def measured(states: Array, decisions: dict[str, Array]) -> Marginals:
    """Marginals of tables, from a forward pass; what a linear solver left below zero is zero."""
    return Marginals(jnp.maximum(states, 0.0), {name: jnp.maximum(joint, 0.0) for name, joint in decisions.items()})


@compiled
def prior_policy(chain: Chain) -> dict[str, Any]:
    """The decisions' priors over time and their whole scope."""
    return as_answers(chain, chain.priors())


def by_priors(step: algebra.Slice) -> algebra.Rules:
    """Plain expectation with every decision left to its prior."""
    return algebra.expectation_rules({site.name: site.law for site in step.sites if site.kind == "decision"})


def over_states(chain: Chain, values: Whole) -> Any:
    """The values over all state variables, with T + 1 rows, as users are given them."""
    return value_of(values.over_time(chain.state, chain.size()).shifted(chain.home))


def constant(chain: Chain, tau: Array | None) -> Whole | None:
    """A common inverse temperature as a message of nothing."""
    return None if tau is None else chain.zero.filled(tau)
