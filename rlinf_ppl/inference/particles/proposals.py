"""What users know beforehand, as functions of one particle: proposals for sites, and twists, values of states.

A proposal gives a site's law from the values before it, the time, and the site's own law. A twist gives a number.
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array
from numpyro.distributions import Distribution

from rlinf_ppl.algebra.quadratics import QuadraticValue
from rlinf_ppl.program.conditionals import (
    ConditionalLaw,
    Looked,
    Proposed,
    Values,
    as_conditional,
    check_table,
    side_by_side,
)
from rlinf_ppl.program.control_program import ControlProgram
from rlinf_ppl.program.functions import Called, one_number, taken
from rlinf_ppl.program.guides import Guide, as_guide
from rlinf_ppl.program.supports import Real, is_finite


class Quadratic(eqx.Module):
    """A quadratic function of the variables side by side."""

    value: QuadraticValue
    names: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, at: Values, t: Array) -> Array:
        """Its value."""
        x = side_by_side(at, self.names)
        matrix, vector, scalar = (part[t] for part in self.value)
        return jnp.sum(x * (jnp.sum(matrix * x[None], -1) + vector)) + scalar


class Valued(eqx.Module):
    """A function that returns the value of a state."""

    function: Called

    def __call__(self, at: Values, t: Array) -> Array:
        """The number."""
        return one_number(self.function.what, self.function(at, t))


Twist = Looked | Quadratic | Valued


def as_proposal(program: ControlProgram, proposal: Any) -> dict[str, ConditionalLaw]:
    """For each site that has one its proposal.

    Args:
        program: the program.
        proposal: None, the guide that the program carries, if any; a policy dictionary, or whatever holds one as
            `policy`. A policy's entries are those of `exact.solve`; an entry may also be a function of the variables
            before a site, chance sites included, that returns a NumPyro distribution.

    Raises:
        TypeError, ValueError: it is none of these, or does not fit.
    """
    found = getattr(proposal, "policy", proposal)
    if found is None:
        return {} if program.learned is None else program.learned.conditionals(program)
    if not isinstance(found, Mapping):
        raise TypeError(
            "proposal must be None, a policy (a dict with an entry for each decision), or a solution or fit that has "
            f"one; got {type(proposal).__name__}."
        )
    known = [site.name for site in program.structure.step.latent]
    unknown = [name for name in found if name not in known]
    if unknown:
        raise ValueError(f"the proposal has entries for {unknown}; the step's sites are {known}.")
    return {name: one_proposal(program, name, entry, f"proposal[{name!r}]") for name, entry in found.items()}


def as_policy(program: ControlProgram, policy: Any, weighed: bool = True) -> dict[str, ConditionalLaw]:
    """For each decision what it is drawn from; the policy may be all that a proposal may be.

    Args:
        program: the program.
        policy: the policy; also a guide of one's own, or None for the one that the program carries.
        weighed: whether draws are weighed by densities; else a decision may be one known action, a `Delta`.

    Raises:
        TypeError, ValueError: it lacks a decision, or does not fit.
    """
    found = getattr(policy, "policy", policy)
    if found is None and program.learned is not None:
        return program.learned.conditionals(program)
    if isinstance(found, Guide | eqx.Module):
        return as_guide(program, found).conditionals(program)
    if not isinstance(found, Mapping):
        raise TypeError(
            f"a policy is a dict with an entry for each of {sorted(program.scopes)}, or a solution or fit that has one;"
            f" got {type(policy).__name__}."
        )
    if set(found) != set(program.scopes):
        raise ValueError(f"policy has the decisions {sorted(found)}, but the program's are {sorted(program.scopes)}.")
    return {name: one_proposal(program, name, entry, f"policy[{name!r}]", weighed) for name, entry in found.items()}


def one_proposal(program: ControlProgram, name: str, entry: Any, what: str, weighed: bool = True) -> ConditionalLaw:
    """The proposal for one site."""
    support, state = program.supports[name], dict(program.structure.state)
    if isinstance(entry, Distribution):
        raise TypeError(f"{what} is a {type(entry).__name__}; give a function that returns it, such as lambda: law.")
    if callable(entry):
        sites = [site.name for site in program.structure.step.latent]
        called = Called(what, entry, taken(what, entry, (*state, *sites[: sites.index(name)])))
        return Proposed(called, support, weighed)
    if name not in program.scopes:
        raise ValueError(f"{what} is an array, and {name!r} is no decision: give a function.")
    return as_conditional(program.structure, name, entry, what)


def as_twist(program: ControlProgram, twist: Any) -> Twist | None:
    """The twist as a function of the state.

    Args:
        program: the program.
        twist: None, an array (T + 1, states), also without T, a `QuadraticValue`, or a function of state variables,
            and of t where it takes it.

    Raises:
        TypeError, ValueError: it is none of these, or does not fit.
    """
    state, rows = dict(program.structure.state), (program.horizon or 0) + 1
    real = [name for name, support in state.items() if not is_finite(support)]
    if twist is None:
        return None
    if callable(twist):
        return Valued(Called("twist", twist, taken("twist", twist, tuple(state))))
    if isinstance(twist, QuadraticValue):
        n = sum(len(support) for support in state.values())
        if not all(isinstance(support, Real) for support in state.values()) or twist.matrix.shape != (rows, n, n):
            raise ValueError(
                f"twist.matrix has shape {twist.matrix.shape}; it must be {(rows, n, n)}, for state variables that are "
                "real numbers, side by side."
            )
        return Quadratic(twist, tuple(state))
    if real:
        raise ValueError(f"the state holds real numbers, {real}, so twist must be a QuadraticValue or a function.")
    array, timed = check_table(program.supports, "twist", twist, tuple(state), rows)
    return Looked(array, tuple(state.items()), timed)
