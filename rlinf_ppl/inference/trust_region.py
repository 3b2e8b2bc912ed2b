"""Policies that may move only so far from the program's prior: trust regions, for tables and quadratics alike.

    maximise E sum_t gamma^t log p(O_t)     where E KL(pi_t || prior) <= bound

The best policy is soft-optimal at an inverse temperature of 1 / alpha, with alpha the multiplier of the bound, so all
that is looked for is temperatures (Levine & Abbeel 2014; Schulman et al. 2015 for the name).
"""

from typing import Any

import jax.numpy as jnp

from rlinf_ppl.inference.bounds.arguments import check_bound, check_given, prepared
from rlinf_ppl.inference.bounds.joint import bounded_states
from rlinf_ppl.inference.bounds.policy import bounded
from rlinf_ppl.inference.bounds.results import KKT, Bounded, BoundedStates
from rlinf_ppl.inference.local.ilqr import Optimised, ilqr
from rlinf_ppl.inference.local.knowledge import Derivatives, Samples
from rlinf_ppl.inference.local.loops import Improvement, esaps, gps, saps
from rlinf_ppl.inference.local.program import local_program
from rlinf_ppl.inference.local.receding import Receding, receding
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.checks import check_ends
from rlinf_ppl.types import ArrayLike

__all__ = [
    "KKT",
    "Bounded",
    "BoundedStates",
    "Derivatives",
    "Improvement",
    "Optimised",
    "Receding",
    "Samples",
    "entropy_bound",
    "esaps",
    "gps",
    "ilqr",
    "local_program",
    "policy_bound",
    "receding",
    "saps",
    "state_action_bound",
    "total_policy_bound",
]


def policy_bound(program: ControlProgram, kl_bound: ArrayLike) -> Bounded:
    """The best policy whose KL from the program's prior is at most a bound at each step.

    Such a policy always exists, and a bound may be slack: then the inverse temperature is infinite for tables, and for
    vectors so large that nothing is left to gain.

    Args:
        program: any step program with a horizon whose decisions share one inverse temperature, and see what matters to
            them. What that temperature is does not matter here.
        kl_bound: at least 0, in nats, for each step (T,) or one number for each of them. The KL is the expectation over
            the states where the policy leads, of all decisions of a step together. For tables it may be infinite.

    Raises:
        TypeError: it holds no numbers, or `program` is no program.
        ValueError: it is negative, NaN or of another shape; the program has no end, several temperatures, or decisions
            that do not see what matters to them.
    """
    base = prepared(program, "trust_region.policy_bound")
    check_ends(program.horizon, "steps to bound one by one (`total_policy_bound` bounds the discounted sum)")
    bounds = check_bound("kl_bound", kl_bound, program, (program.horizon,))
    return bounded(base, jnp.broadcast_to(bounds, (program.horizon,)))


def total_policy_bound(program: ControlProgram, kl_bound: ArrayLike) -> Bounded:
    """The best policy whose KLs from the program's prior sum to at most a bound, discounted where the program is.

    Args:
        program: as in `policy_bound`; it may be without end.
        kl_bound: at least 0, in nats, one number.

    Raises:
        TypeError, ValueError: as in `policy_bound`.
    """
    base = prepared(program, "trust_region.total_policy_bound")
    return bounded(base, check_bound("kl_bound", kl_bound, program, None))


def state_action_bound(program: ControlProgram, states: Any, kl_bound: ArrayLike) -> BoundedStates:
    """The best policy that keeps states and decisions together near given laws (Abdulsamad 2016, with corrections).

        KL(mu_t(x) pi_t(u|x) || states_t(x) prior(u|x)) <= kl_bound        at each step

    Args:
        program: as in `policy_bound`, with a horizon.
        states: laws of the state with T + 1 rows, in the form of `exact.marginals(...).state`: tables (T + 1, states),
            or (mean (T + 1, n), cov (T + 1, n, n)), covariances regular. The last row does not matter. None: where the
            program's prior leads, so that following the prior meets every bound.
        kl_bound: above 0, in nats, one number or (T,).

    Raises:
        TypeError, ValueError: as in `policy_bound`; the states are no laws, or lack some that are reached; the bounds
            cannot be met: the message says by how much.
    """
    base = prepared(program, "trust_region.state_action_bound")
    return bounded_states(base, check_given(base, states, kl_bound, None))


def entropy_bound(program: ControlProgram, states: Any, kl_bound: ArrayLike, entropy_bound: ArrayLike) -> BoundedStates:
    """The same with a bound on how certain the policy is: E log pi_t <= entropy_bound, minus an entropy.

    Args:
        program: as in `state_action_bound`.
        states: as there.
        kl_bound: as there.
        entropy_bound: delta, in nats, one number or (T,): the entropy is at least -delta. To keep a policy's entropy,
            give minus that.

    Raises:
        TypeError, ValueError: as in `state_action_bound`.
    """
    base = prepared(program, "trust_region.entropy_bound")
    return bounded_states(base, check_given(base, states, kl_bound, entropy_bound))
