"""The answer to bounds on states and policies, from the joint dual."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlinf_ppl.algebra.quadratics import Gaussian
from rlinf_ppl.algebra.small_matrices import cholesky, inverse
from rlinf_ppl.inference.bounds.programs import set_multipliers, with_bounds
from rlinf_ppl.inference.bounds.results import SMALL, BoundedStates, residuals
from rlinf_ppl.inference.bounds.states import FoundStates, StateDual, multipliers_of
from rlinf_ppl.inference.bounds.tilting import Laws, OfTables, of_vectors
from rlinf_ppl.inference.chains.careful import precisely
from rlinf_ppl.inference.exact import marginals, prior_policy, solve
from rlinf_ppl.program import ControlProgram

# By how much bounds have to be impossible for that to be said, in nats.
SAID = 1e-6


class Given(NamedTuple):
    """What is bounded.

    Attributes:
        states: laws of the state with T + 1 rows, tables or `Gaussian`; None: those of the prior policy.
        bounds: eps, (T,).
        entropy_bounds: delta, (T,); None: there are none.
    """

    states: Any
    bounds: Float[Array, " T"]
    entropy_bounds: Float[Array, " T"] | None


def bounded_states(program: ControlProgram, given: Given) -> BoundedStates:
    """The best policy within bounds on states and policies.

    Args:
        program: with decisions whose inverse temperature is 1.
        given: what is bounded.

    Raises:
        ValueError: the bounds cannot be met.
    """

    def answer(wide: ControlProgram) -> Any:
        dual = joint_dual(wide, given)
        found = multipliers_of(dual)
        check_feasible(found)
        solution = solve(bounded_program(dual.program, found))
        return found, (dual.laws, dual.bounds), solution.policy, solution.value, solution.converged

    found, (laws, bounds), policy, value, converged = precisely(program, given, answer, tables=True)
    entropies = given.entropy_bounds
    rows = [(found.alpha, found.kl, bounds)]
    if entropies is not None:
        rows.append((found.beta, found.log_prob, jnp.asarray(entropies, float)))
    multipliers, spent, limits = (jnp.stack(x) for x in zip(*rows, strict=True))
    weighted = found.weights[None] * multipliers
    kkt = residuals(weighted, spent, limits, found.apart, jnp.abs(found.elbo))
    converged &= kkt.worst <= SMALL[found.elbo.dtype.itemsize]
    again = bounded_program(with_bounds(program, laws, entropies is not None), found)
    first = jnp.asarray(given.bounds, float)[0] - bounds[0]
    kl = found.kl.at[0].add(first)
    return BoundedStates(
        policy, value, 1 / (found.alpha + found.beta), found.alpha, found.beta, kl, -found.log_prob,
        found.elbo + jnp.sum(weighted * spent), found.elbo + jnp.sum(weighted * limits), kkt, again, converged,
    )  # fmt: skip


def bounded_program(program: ControlProgram, found: FoundStates) -> ControlProgram:
    """A program of `with_bounds` with the multipliers that were found."""
    return set_multipliers(program, found.alpha, found.beta, found.constant, found.tilt)


def joint_dual(
    program: ControlProgram, given: Given, start: Float[Array, ""] | float = 0.0, within: float = 0.0
) -> StateDual:
    """The dual of what is bounded.

    Args:
        program: with decisions whose inverse temperature is 1.
        given: what is bounded.
        start: the log of a temperature to begin at.
        within: how far from optimal is near enough.
    """
    own = marginals(program, prior_policy(program)).state
    states = own if given.states is None else given.states
    states = jax.tree.map(lambda x: jnp.asarray(x, float), states)
    laws, first = laws_of(states, own)
    bounds = jnp.asarray(given.bounds, float).at[0].add(-first)
    entropies = None if given.entropy_bounds is None else jnp.asarray(given.entropy_bounds, float)
    bounded = with_bounds(program, laws, entropies is not None)
    return StateDual(bounded, laws, bounds, entropies, program.tempered(1.0), jnp.asarray(start, float), within)


def laws_of(states: Any, own: Any) -> tuple[Laws, Float[Array, ""]]:
    """Laws of the state before its last one, and the KL of the first state from its own.

    Args:
        states: the laws, with T + 1 rows.
        own: those of the prior policy, of which the first row is the first state's.
    """
    if isinstance(own, Gaussian):
        return of_vectors(Gaussian(states.mean[:-1], states.cov[:-1])), gaussian_kl(own, states)
    p, q = own[0], states[0]
    log_ratio = jnp.log(jnp.where(p > 0, p, 1.0)) - jnp.log(jnp.where(p > 0, q, 1.0))
    return OfTables(states[:-1]), jnp.sum(p * log_ratio)


def gaussian_kl(own: Gaussian, states: Gaussian) -> Float[Array, ""]:
    """KL of the first of some laws from the first of others."""
    whiten = inverse(cholesky(states.cov[0]))[0]
    away, spread = whiten @ (own.mean[0] - states.mean[0]), whiten @ own.cov[0] @ whiten.T
    pivots = inverse(spread)[1]
    return 0.5 * (jnp.sum(away**2) + jnp.trace(spread) - len(away) - jnp.sum(jnp.log(pivots)))


def check_feasible(found: FoundStates) -> None:
    """Raise where bounds are known to be impossible.

    Raises:
        ValueError: so they are, by how much.
    """
    by = found.infeasible
    if not isinstance(by, jax.core.Tracer) and np.isfinite(by) and float(by) > SAID:
        raise ValueError(
            f"the bounds cannot be met: whatever the policy does, one of them is exceeded by at least {float(by):.3g} "
            "nats. Give larger ones, or laws of the state that the prior policy leads to (states=None)."
        )
