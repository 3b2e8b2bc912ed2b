"""The exact engine: closed-form answers by the one elimination, for any step program.

`solve` is the variational answer, soft-optimal control under the true dynamics; `condition` the exact posterior given
optimality (Levine 2018, sections 3 and 2). Values and ELBO are in the units of optimality, log evidence in nats.
Everything here is differentiable in the program's arrays, and can be vmapped over them.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from rlinf_ppl import algebra
from rlinf_ppl.algebra import Chain, Law
from rlinf_ppl.inference.arguments import check_start, check_tolerance
from rlinf_ppl.inference.chains import answers, trajectories
from rlinf_ppl.inference.chains.answers import EXACTNESS, Marginals, Posterior, Solution
from rlinf_ppl.inference.chains.careful import precisely
from rlinf_ppl.inference.chains.equilibria import Equilibria, equilibria
from rlinf_ppl.inference.chains.exactly import exactly
from rlinf_ppl.inference.chains.existence import check_forgets
from rlinf_ppl.inference.chains.filtered import Filtered, filter_of, told
from rlinf_ppl.inference.chains.policies import Policy, as_laws
from rlinf_ppl.inference.histories.joint import joint_log_prob, posterior_log_prob
from rlinf_ppl.inference.histories.likelihood import Foreseen, foresee, log_prob, log_prob_terms
from rlinf_ppl.program import ControlProgram, read
from rlinf_ppl.program.checks import check_ends, check_sees
from rlinf_ppl.program.evaluation import in_nats, posterior_temperature
from rlinf_ppl.program.reading import check_program

__all__ = [
    "Equilibria",
    "Foreseen",
    "Marginals",
    "Posterior",
    "Solution",
    "condition",
    "elbo",
    "equilibria",
    "evaluate",
    "filtered",
    "foresee",
    "kl",
    "log_prob",
    "log_prob_given_optimality",
    "log_prob_terms",
    "marginals",
    "posterior_marginals",
    "posterior_sample",
    "prior_policy",
    "sample",
    "solve",
]


def solve(
    program: ControlProgram, tolerance: float | None = None, start: Float[Array, "..."] | None = None
) -> Solution:
    """The policy that maximises the ELBO under the true dynamics, and its value.

    Q is what is left of the later messages, V = (1 / tau) log sum p exp(tau Q), the policy p exp(tau (Q - V)).

    Of vectors rounding is counted, and where it spoils the answer (priors that are wide beside what costs leave of
    them, goals far away) the program is solved again as sums of squares in float64. Under jit, vmap and grad there is
    one try; `converged` says how it went. Second derivatives of endless solutions lose their digits in float32 as the
    discount comes near 1.

    Args:
        program: any step program; inverse temperatures may differ between decisions.
        tolerance: at an infinite horizon, the error of V to stop at, relative to the largest |V| (or to 1); by default
            it is as small as the dtype allows, and at most the square root of its precision.
        start: at an infinite horizon, values to begin at, such as those of a similar program; what is found does not
            depend on them. None: 0.

    Raises:
        ValueError: where the program's numbers are no distributions or not finite, or the dtype cannot reach the
            tolerance, or a decision does not see what matters to it, or a start has another shape than the values.
    """
    exact = exactly(program)
    chain = exact.chain()
    check_sees(program, "exact.solve")
    within = check_tolerance(chain, tolerance)
    begin = check_start(chain, start)
    return exact.answer(
        chain, lambda chain, _, dtype: answers.solve(chain, within, dtype, begin), algebra.solve_rules()
    )


def condition(program: ControlProgram, tolerance: float | None = None) -> Posterior:
    """The posterior given optimality at every step, chance sites conditioned as well: optimistic under noise.

    Args:
        program: any step program whose decisions share one inverse temperature.
        tolerance: as in `solve`.

    Raises:
        ValueError: where the inverse temperatures differ, the numbers are no distributions or not finite, or, at an
            infinite horizon, rewards grow faster than the discount forgets them, so that there is no posterior.
    """
    exact = exactly(program)
    chain, tau = exact.chain(impossible=True), posterior_temperature(program)
    within, rules = check_tolerance(chain, tolerance), algebra.condition_rules(answers.constant(chain, tau))
    posterior = exact.answer(chain, lambda chain, _, dtype: answers.condition(chain, tau, within, dtype), rules)
    check_forgets(chain, posterior, tau)
    return posterior


def log_prob_given_optimality(program: ControlProgram, data: Any, lengths: Any = None) -> Float[Array, " n"]:
    """Log p(data | O_{1:T} = 1), in nats: how probable what was seen is in the posterior that `condition` finds.

    It is log p(data, O) - log p(O). All that was seen counts together, first states and chance as well, decisions under
    their priors; all else is summed over exactly, and what stands behind the end of a sequence is. Its slope in a
    linear reward's weights is tau times what features add up to minus what they are expected to (Ziebart 2008). With a
    discount the living and the dead count together. `log_prob` is the causal likelihood, under the true dynamics; for
    deterministic ones, a first state that is certain and no discount it is the same number.

    Args:
        program: with a horizon, and decisions that share one inverse temperature.
        data: as `log_prob` takes them; those of fewer steps than the horizon has are its first ones.
        lengths: how many steps of each sequence there are, (n,); None: T.

    Returns:
        (n,); -inf where something was seen that cannot be. NaN where traced numbers are no values or no laws.

    Raises:
        TypeError, ValueError: as `condition` and `log_prob`; at an infinite horizon; optimality has probability zero.
    """
    check_program(program)
    check_ends(program.horizon, "trajectories given optimality (`log_prob` is the likelihood of decisions without end)")
    evidence = condition(program).log_evidence
    return posterior_log_prob(joint_log_prob(program, data, lengths), evidence)


def evaluate(program: ControlProgram, policy: Policy, tolerance: float | None = None) -> Solution:
    """The value of a policy that is given, in the form of a solution: E[sum gamma^t (log p(O_t) - cost / tau)].

    Args:
        program: any step program.
        policy: for each decision (T, scope, K) probabilities; without T where stationary, size 1 on ignored axes.
        tolerance: as in `solve`.

    Returns:
        The policy over its whole scope, its value and ELBO: -inf where it does what the prior forbids.
    """
    exact = exactly(program)
    chain = exact.chain()
    within = check_tolerance(chain, tolerance)

    def found(chain: Chain, laws: dict[str, Law], dtype: Any) -> Solution:
        return answers.evaluate(chain, laws, within, dtype)

    return exact.answer(chain, found, given=lambda chain: as_laws(chain, policy))


def elbo(program: ControlProgram, policy: Policy) -> Float[Array, ""]:
    """The exact evidence lower bound of a policy: E[sum gamma^t (log p(O_t) - log(q / p) / tau)], without sampling.

    Args:
        program: any step program.
        policy: for each decision (T, scope, K) probabilities; without T where stationary, size 1 on ignored axes.

    Returns:
        A scalar in units of optimality, differentiable in the policy; -inf where the policy does what the prior
        forbids.

    Raises:
        ValueError: on a policy of another shape, or rows that are no distributions; where vectors lose too many digits,
            such as the small part of a nearly singular covariance (traced: NaN).
    """
    found = evaluate(program, policy)
    return exactly(program).kept(found.elbo, found.converged, "this ELBO")


def kl(program: ControlProgram, policy: Policy, other: Policy) -> Float[Array, ""]:
    """KL in nats between the trajectories of two policies under the true dynamics: sum gamma^t E_q log(q / q').

    Args:
        program: any step program.
        policy: q, which the expectation is over.
        other: q'.

    Raises:
        ValueError: as in `elbo`.
    """
    exact, dtype = exactly(program), jnp.zeros(()).dtype

    def found(program: ControlProgram) -> tuple[Array, Array]:
        chain = read(program)
        check_tolerance(chain)
        return answers.kl(chain, as_laws(chain, policy), as_laws(chain, other), dtype)

    value, off = exact.precisely((policy, other), found)
    most = EXACTNESS[dtype.itemsize] * jnp.maximum(1.0, jnp.abs(value))
    return exact.kept(value, jnp.isfinite(off) & (off <= most), "this KL")


def marginals(program: ControlProgram, policy: Policy) -> Marginals:
    """Marginals of states and decisions under a policy and the true dynamics.

    At a finite horizon a discount does not enter; at an infinite one they are discounted occupancies.

    Args:
        program: any step program.
        policy: for each decision (T, scope, K) probabilities; without T where stationary, size 1 on ignored axes.
    """
    exact = exactly(program)

    def found(program: ControlProgram) -> Marginals:
        chain = read(program)
        check_tolerance(chain)
        return answers.marginals(chain, as_laws(chain, policy))

    return exact.precisely(policy, found)


def posterior_marginals(program: ControlProgram) -> Marginals:
    """Marginals of states and decisions given optimality.

    With a discount, a process that has died collects no more optimality and goes on under its priors and the true
    dynamics; the marginals are over the living and the dead together.
    """
    exact = exactly(program)
    check_ends(program.horizon, "posterior marginals")
    return exact.posterior_marginals()


def filtered(program: ControlProgram, policy: Policy | None = None) -> Any:
    """The state at each time given the data up to it, the data of its own step included: a filter for any program.

    Optimality is left out. With a discount a process that has died is observed no more; the laws are over the living
    and the dead together.

    Args:
        program: any step program.
        policy: what decisions follow, for each (T, scope, K) probabilities; None: their priors.

    Returns:
        (T + 1, states), or `Gaussian` of the state variables side by side, as the state of `marginals`.

    Raises:
        ValueError: data have probability zero; their probabilities are too small to be held; at an infinite horizon;
            where vectors may die or lose too many digits. NaN from there on, if traced.
    """
    check_program(program)
    check_ends(program.horizon, "filtered laws")

    def found(program: ControlProgram) -> Filtered:
        return filter_of(program, policy)

    answer = precisely(program, policy, found)
    most = EXACTNESS[jnp.zeros(()).dtype.itemsize]
    if not isinstance(answer.off, jax.core.Tracer) and jnp.any(answer.off > most):
        answer = precisely(program, policy, found, tables=True)
    return told(answer, most)


def sample(program: ControlProgram, key: PRNGKeyArray | Array, policy: Policy, n: int) -> dict[str, Array]:
    """Trajectories under a policy and the true dynamics.

    Args:
        program: any step program.
        key: a JAX random key.
        policy: for each decision (T, scope, K) probabilities.
        n: number of trajectories.

    Returns:
        Every state variable (n, T + 1), every site of the step (n, T): values of latent sites, log probabilities of
        optimality in its units and of data in nats; with a discount `alive` (n, T + 1).
    """
    exact = exactly(program)
    check_ends(program.horizon, "trajectories")

    def drawn(program: ControlProgram) -> dict[str, Array]:
        chain = read(program)
        return in_nats(program, trajectories.draw(chain, program.supports, key, as_laws(chain, policy), n))

    return exact.precisely(policy, drawn)


def posterior_sample(program: ControlProgram, key: PRNGKeyArray | Array, n: int) -> dict[str, Array]:
    """Trajectories of the exact posterior given optimality: shapes as in `sample`."""
    exact = exactly(program)
    check_ends(program.horizon, "trajectories")
    return in_nats(program, exact.posterior_sample(key, n))


def prior_policy(program: ControlProgram) -> Policy:
    """The decisions' priors as a policy: (T, scope, K) probabilities, without T at an infinite horizon.

    Of a Gaussian decision `AffinePolicy(gain, offset, cov)`, as in a solution.
    """
    return answers.prior_policy(read(program, impossible=True, optimality=False))
