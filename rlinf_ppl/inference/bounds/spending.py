"""What soft-optimal control spends at each step: how far its policy is from the prior, in nats."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlinf_ppl import algebra
from rlinf_ppl.algebra import Chain, Law
from rlinf_ppl.algebra.compiled import in_all_digits
from rlinf_ppl.inference.chains.costs import kl_of_steps, weights
from rlinf_ppl.inference.chains.policies import as_kept, kept_laws
from rlinf_ppl.program import ControlProgram, read


class Spending(NamedTuple):
    """What soft-optimal control comes to.

    Attributes:
        elbo: its value, in units of optimality.
        kl: E KL(policy || prior) at each step, (T,), in nats, of a process still alive; without end the one number of
            an average step.
        weights: how much each counts in the sum, (T,): discount ** t; without end 1 / (1 - discount).
        policy: for each decision, as in a solution, where it was asked for.
    """

    elbo: Float[Array, ""]
    kl: Float[Array, " T"]
    weights: Float[Array, " T"]
    policy: dict[str, Any]


class Solved(NamedTuple):
    """Soft-optimal control of a program as the elimination has it.

    Attributes:
        chain: the program.
        elbo: its value; NaN where there is none.
        laws: its policies over time.
        kept: the same as the walk kept them.
    """

    chain: Chain
    elbo: Float[Array, ""]
    laws: dict[str, Law]
    kept: Any


@in_all_digits
def solved(program: ControlProgram) -> Solved:
    """Solve a program, without a count of rounding."""
    chain = read(program)
    rules = algebra.solve_rules()
    walked = algebra.backward(chain.quickest(policies=True), lambda _: rules, found=lambda found: found.policy)
    elbo = algebra.through(chain.initial, walked.first, rules)[0].whole.constant
    return Solved(chain, jnp.where(chain.valid, elbo, jnp.nan), kept_laws(chain, walked.kept), walked.kept)


@in_all_digits
def spend(program: ControlProgram, policies: bool = False) -> Spending:
    """Solve a program and add up what its policy costs; NaN where there is no solution.

    Args:
        program: any program that `exact.solve` takes. Rounding is not counted.
        policies: whether the policies are among the answers.
    """
    chain, elbo, laws, kept = solved(program)
    kl = kl_of_steps(chain, laws, chain.priors())
    return Spending(elbo, kl, weights(chain), as_kept(chain, kept) if policies else {})
