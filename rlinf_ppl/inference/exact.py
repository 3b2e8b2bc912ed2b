"""The exact engine: closed-form answers by the one elimination, for any tabular step program.

`solve` is the variational answer, soft-optimal control under the true dynamics; `condition` the exact posterior given
optimality (Levine 2018, sections 3 and 2). Values and ELBO are in the units of optimality, log evidence in nats.
Everything here is differentiable in the program's arrays, and can be vmapped over them.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from rlinf_ppl import algebra
from rlinf_ppl.algebra import TIME, Chain, Conditional, Table
from rlinf_ppl.algebra.numerics import relative_entropy
from rlinf_ppl.inference import trajectories
from rlinf_ppl.inference.policies import Policy, as_arrays, as_conditionals
from rlinf_ppl.program import ControlProgram, read
from rlinf_ppl.program.evaluation import common_inverse_temperature


class Solution(NamedTuple):
    """The soft-optimal policy.

    Attributes:
        policy: for each decision (T, scope, K) probabilities.
        value: V, shape (T + 1, states), the last row terminal, in units of optimality.
        elbo: the maximal evidence lower bound: V_0 averaged over the first state.
        converged: whether the numbers are a program (see `read`) and the answer is finite.
    """

    policy: dict[str, Float[Array, "T ..."]]
    value: Float[Array, "T_plus_1 ..."]
    elbo: Float[Array, ""]
    converged: Bool[Array, ""]


class Posterior(NamedTuple):
    """The exact posterior given optimality.

    Attributes:
        policy: for each decision (T, scope, K) probabilities p(d | scope, O), of a process still alive.
        value: V, shape (T + 1, states), in units of optimality.
        log_evidence: log p(O) in nats.
        converged: whether the numbers are a program (see `read`) and the answer is finite.
    """

    policy: dict[str, Float[Array, "T ..."]]
    value: Float[Array, "T_plus_1 ..."]
    log_evidence: Float[Array, ""]
    converged: Bool[Array, ""]


class Marginals(NamedTuple):
    """Where the process is and what it does, each time's entries summing to one.

    Attributes:
        state: (T + 1, states).
        decision: for each decision its joint with its scope, (T, scope, K).
    """

    state: Float[Array, "T_plus_1 ..."]
    decision: dict[str, Float[Array, "T ..."]]


def solve(program: ControlProgram) -> Solution:
    """The policy that maximises the ELBO under the true dynamics, and its value.

    Q is what is left of the later messages, V = (1 / tau) log sum p exp(tau Q), the policy p exp(tau (Q - V)).

    Args:
        program: any tabular step program; inverse temperatures may differ between decisions.

    Raises:
        ValueError: where the program's numbers are no distributions or not finite.
    """
    return _solve(read(program))


def condition(program: ControlProgram) -> Posterior:
    """The posterior given optimality at every step, chance sites conditioned as well: optimistic under noise.

    Args:
        program: any tabular step program whose decisions share one inverse temperature.

    Raises:
        ValueError: where the inverse temperatures differ, or the numbers are no distributions or not finite.
    """
    return _condition(read(program), common_inverse_temperature(program))


def elbo(program: ControlProgram, policy: Policy) -> Float[Array, ""]:
    """The exact evidence lower bound of a policy: E[sum gamma^t (log p(O_t) - log(q / p) / tau)], without sampling.

    Args:
        program: any tabular step program.
        policy: for each decision (T, scope, K) probabilities; without T where stationary, size 1 on ignored axes.

    Returns:
        A scalar in units of optimality, differentiable in the policy; -inf where the policy does what the prior
        forbids.

    Raises:
        ValueError: on a policy of another shape, or rows that are no distributions.
    """
    chain = read(program)
    return _elbo(chain, as_conditionals(chain, policy))


def kl(program: ControlProgram, policy: Policy, other: Policy) -> Float[Array, ""]:
    """KL in nats between the trajectories of two policies under the true dynamics: sum gamma^t E_q log(q / q').

    Args:
        program: any tabular step program.
        policy: q, which the expectation is over.
        other: q'.
    """
    chain = read(program)
    return trajectory_kl(chain, as_conditionals(chain, policy), as_conditionals(chain, other))


def marginals(program: ControlProgram, policy: Policy) -> Marginals:
    """Marginals of states and decisions under a policy and the true dynamics; a discount does not enter.

    Args:
        program: any tabular step program.
        policy: for each decision (T, scope, K) probabilities; without T where stationary, size 1 on ignored axes.
    """
    chain = read(program)
    return _marginals(chain, as_conditionals(chain, policy))


def posterior_marginals(program: ControlProgram) -> Marginals:
    """Marginals of states and decisions given optimality.

    With a discount, a process that has died collects no more optimality and goes on under its priors and the true
    dynamics; the marginals are over the living and the dead together.
    """
    return _posterior_marginals(read(program), common_inverse_temperature(program))


def sample(program: ControlProgram, key: PRNGKeyArray | Array, policy: Policy, n: int) -> dict[str, Array]:
    """Trajectories under a policy and the true dynamics.

    Args:
        program: any tabular step program.
        key: a JAX random key.
        policy: for each decision (T, scope, K) probabilities.
        n: number of trajectories.

    Returns:
        Every state variable (n, T + 1), every site of the step (n, T): values of latent sites, log probabilities of
        optimality; with a discount `alive` (n, T + 1).
    """
    chain = read(program)
    return trajectories.draw(chain, program.supports, key, as_conditionals(chain, policy), n)


def posterior_sample(program: ControlProgram, key: PRNGKeyArray | Array, n: int) -> dict[str, Array]:
    """Trajectories of the exact posterior given optimality: shapes as in `sample`."""
    chain, tau = read(program), common_inverse_temperature(program)
    return trajectories.draw_posterior(chain, program.supports, key, as_table(tau), n)


def prior_policy(program: ControlProgram) -> dict[str, Float[Array, "T ..."]]:
    """The decisions' priors as a policy: (T, scope, K) probabilities."""
    return _prior_policy(read(program))


@eqx.filter_jit
def _solve(chain: Chain) -> Solution:
    rules = algebra.solve_rules()
    values, policy = algebra.backward(chain, lambda _: rules, found=lambda found: as_arrays(chain, found.policy))
    bound = algebra.start(chain, at_first(values), rules)
    return Solution(policy, over_states(chain, values), bound, chain.valid & jnp.isfinite(bound))


@eqx.filter_jit
def _condition(chain: Chain, tau: Array | None) -> Posterior:
    rules = algebra.condition_rules(as_table(tau))
    values, policy = algebra.backward(chain, lambda _: rules, found=lambda found: as_arrays(chain, found.policy))
    evidence = algebra.start(chain, at_first(values), rules)
    evidence = evidence if tau is None else tau * evidence
    return Posterior(policy, over_states(chain, values), evidence, chain.valid & jnp.isfinite(evidence))


@eqx.filter_jit
def _elbo(chain: Chain, policy: dict[str, Conditional]) -> Float[Array, ""]:
    values, _ = algebra.backward(chain, evaluated, given=policy)
    total = algebra.start(chain, at_first(values), algebra.solve_rules())
    return jnp.where(jnp.abs(total) > jnp.sqrt(forbidden(total)), jnp.sign(total) * jnp.inf, total)


@eqx.filter_jit
def trajectory_kl(chain: Chain, policy: dict[str, Conditional], other: dict[str, Conditional]) -> Float[Array, ""]:
    """`kl` of a program that has been read."""
    _, decisions = algebra.forward(chain, policy)
    total = jnp.zeros(())
    for name, joint in decisions.items():
        step = relative_entropy(policy[name].table.array, other[name].table.array)
        visited = joint.sum(-1) > 0
        each = jnp.where(visited, joint.sum(-1) * jnp.where(visited, step, 0.0), 0.0)
        total += jnp.sum(each.reshape(chain.horizon, -1).sum(-1) * weights(chain))
    return total


@eqx.filter_jit
def _marginals(chain: Chain, policy: dict[str, Conditional]) -> Marginals:
    return Marginals(*algebra.forward(chain, policy))


@eqx.filter_jit
def _posterior_marginals(chain: Chain, tau: Array | None) -> Marginals:
    rules = algebra.condition_rules(as_table(tau))
    values, _ = algebra.backward(chain, lambda _: rules)
    return Marginals(*algebra.posterior_forward(chain, values, rules, by_priors))


@eqx.filter_jit
def _prior_policy(chain: Chain) -> dict[str, Array]:
    axes, size = chain.axes(), chain.size() | {TIME: chain.horizon}
    priors = {site.name: site.content.table for site in chain.step.sites if site.kind == "decision"}
    return {name: priors[name].over((TIME, *axes[name]), size).array for name in axes}


def evaluated(given: dict[str, Conditional]) -> algebra.Rules:
    """The rules that evaluate one step's policy; what the prior forbids costs a huge finite amount.

    An infinite cost in a state that is never reached would meet its probability 0, and give NaN.
    """

    def choose(site: algebra.Site) -> tuple[Conditional, Table]:
        cost = given[site.name].divergence(site.content)
        return given[site.name], Table(cost.axes, jnp.minimum(cost.array, forbidden(cost.array)))

    return algebra.evaluate_rules(choose)


def forbidden(array: Array) -> float:
    """A cost beyond any other, far below the largest number of the dtype."""
    return float(jnp.finfo(array.dtype).max) ** 0.8


def by_priors(step: algebra.Slice) -> algebra.Rules:
    """Plain expectation with every decision left to its prior."""
    return algebra.expectation_rules({site.name: site.content for site in step.sites if site.kind == "decision"})


def weights(chain: Chain) -> Float[Array, " T"]:
    """The probability of being alive at each step."""
    if chain.alive is None:
        return jnp.ones(chain.horizon)
    return chain.alive.content.table.array[1] ** jnp.arange(chain.horizon)


def at_first(values: Table) -> Table:
    """The message of the first state."""
    return Table(values.axes[1:], values.array[0])


def over_states(chain: Chain, values: Table) -> Array:
    """The values over all state variables, with T + 1 rows."""
    return values.over((TIME, *chain.state), chain.size() | {TIME: chain.horizon + 1}).array


def as_table(tau: Array | None) -> Table | None:
    """A common inverse temperature as a table without axes."""
    return None if tau is None else Table((), tau)
