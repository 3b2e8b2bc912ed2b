"""Policies that may move only so far from the program's prior: trust regions, for tables and quadratics alike.

    maximise E sum_t gamma^t log p(O_t)     where E KL(pi_t || prior) <= bound

The best policy is soft-optimal at an inverse temperature of 1 / alpha, with alpha the multiplier of the bound, so all
that is looked for is temperatures (Levine & Abbeel 2014; Schulman et al. 2015 for the name).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlinf_ppl.inference.bounds.policy import bounded
from rlinf_ppl.inference.bounds.results import KKT, Bounded
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.checks import check_ends, check_numbers, check_sees
from rlinf_ppl.program.evaluation import common_inverse_temperature
from rlinf_ppl.program.reading import check_program
from rlinf_ppl.types import ArrayLike

__all__ = ["KKT", "Bounded", "policy_bound", "total_policy_bound"]


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
    check_ends(program.horizon, "a bound at each step (`total_policy_bound` bounds the discounted sum)")
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


def prepared(program: ControlProgram, what: str) -> ControlProgram:
    """A program with its decisions' inverse temperature set to 1.

    Raises:
        TypeError, ValueError: it is none whose policies can be bounded.
    """
    check_program(program)
    check_sees(program, what)
    for name, unseen in program.structure.together:
        raise ValueError(
            f"{what} is for decisions taken one after the other: {name!r} does not see {list(unseen)}, and what they "
            "do is an equilibrium, which maximises nothing."
        )
    base = program.untempered()
    try:
        own = common_inverse_temperature(base)
    except ValueError as error:
        raise ValueError(f"{what} wants decisions of one inverse temperature, and their KL: {error}") from error
    if own is not None and not isinstance(own, jax.core.Tracer) and not float(own) > 0:
        raise ValueError(
            f"{what} finds the inverse temperature itself, as a multiple of the decisions' own, which is {float(own):g}:"
            " give them one above 0."
        )
    return base if own is None else base.tempered(1 / own)


def check_bound(name: str, bound: Any, program: ControlProgram, shape: tuple[Any, ...] | None) -> Float[Array, "..."]:
    """A bound on a KL, one number, or of another shape if that is given.

    Raises:
        TypeError: it holds no numbers.
        ValueError: it has another shape, or is negative or NaN, or infinite for vectors.
    """
    array = check_numbers(name, bound, "numbers of nats, at least 0")
    if array.shape not in ((), shape):
        wanted = "one number" if shape is None else f"one number, or one for each of {shape[0]} steps"
        raise ValueError(f"{name} must be {wanted}; got shape {array.shape}.")
    if isinstance(array, jax.core.Tracer):
        return array
    known = np.asarray(array)
    if not np.all(known >= 0):
        raise ValueError(f"{name} holds {known[~(known >= 0)].flat[0]:g}: a bound on a KL is at least 0 nats.")
    if program.structure.gaussian and np.any(np.isinf(known)):
        raise ValueError(f"{name} is infinite: without a bound what maximises has no density. Give a finite one.")
    return array
