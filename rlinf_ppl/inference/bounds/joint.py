"""The answer to bounds on states and policies, from the joint dual."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlinf_ppl.algebra.quadratics import Gaussian
from rlinf_ppl.inference.bounds.programs import set_multipliers, with_bounds
from rlinf_ppl.inference.bounds.results import SMALL, BoundedStates, residuals
from rlinf_ppl.inference.bounds.states import FoundStates, StateDual, TableDual, VectorDual, multipliers_of
from rlinf_ppl.inference.bounds.tilting import Laws, OfTables, of_vectors
from rlinf_ppl.inference.chains.careful import precisely
from rlinf_ppl.inference.exact import marginals, prior_policy, solve
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.tasks import matrices

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
        found.expected, found.elbo + jnp.sum(weighted * limits), kkt, again, converged,
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
    check_reached(states, own)
    laws = laws_of(states)
    # The first state is what it is, and spends what it does.
    first = laws.kl(laws.moments(jax.tree.map(lambda x: x[:-1], own)))[0]
    bounds = jnp.asarray(given.bounds, float).at[0].add(-first)
    entropies = None if given.entropy_bounds is None else jnp.asarray(given.entropy_bounds, float)
    bounded = with_bounds(program, laws, entropies is not None)
    kind: Any = TableDual if isinstance(laws, OfTables) else VectorDual
    return kind(bounded, laws, bounds, entropies, program.tempered(1.0), jnp.asarray(start, float), within)


def laws_of(states: Any) -> Laws:
    """Laws of the state before its last one, from T + 1 rows."""
    if isinstance(states, Gaussian):
        return of_vectors(Gaussian(states.mean[:-1], states.cov[:-1]))
    return OfTables(states[:-1])


def check_reached(states: Any, own: Any) -> None:
    """Raise where known laws leave out what the prior leads to, or have no variance in some direction.

    Raises:
        ValueError: so they do, at a step.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((states, own))):
        return
    if isinstance(states, Gaussian):
        check_covariances(np.asarray(states.cov[:-1], float), np.asarray(states.mean, float))
        return
    left_out = np.argwhere((np.asarray(states[:-1]) <= 0) & (np.asarray(own[:-1]) > 0))
    if len(left_out):
        t, *at = (int(i) for i in left_out[0])
        raise ValueError(
            f"states at t = {t} gives no probability to the state {at[0] if len(at) == 1 else tuple(at)}, which the "
            "program's prior leads to: whoever goes there is infinitely far from it. Give it some, or states=None."
        )


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


def check_covariances(cov: Float[np.ndarray, "T n n"], mean: Float[np.ndarray, "T_plus_1 n"]) -> None:
    """Raise where covariances are none, or singular.

    Raises:
        ValueError: so they are, at a step.
    """
    if not np.isfinite(mean).all() or not np.isfinite(cov).all():
        raise ValueError("states holds numbers that are not finite.")
    matrices.check_symmetric("states' cov", jnp.asarray(cov))
    for t, each in enumerate(cov):
        least = np.linalg.eigvalsh((each + each.T) / 2).min()
        if not least > 0:
            raise ValueError(
                f"states' cov at t = {t} has the eigenvalue {least:.3g}: what states are measured from needs some "
                "variance in every direction. Give the first state, or the step, some noise."
            )
