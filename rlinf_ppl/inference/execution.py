"""What a policy earns where it is executed: by each decision on its own, or by sampling.

The decisions of a step may depend on each other: of two agents, one plans for what the other does, pi(a | s, b) after
rho(b | s). Who acts cannot always see what the others choose at the same time, and then acts on

    pi(a | s) = sum_b rho(b | s) pi(a | s, b)                          (Sakulwongtana, equation 3.18)

whatever stands before a decision in its step summed out by its own law. Decisions that are drawn from these laws
independently lose the correlation that the joint policy has; `coordination_loss` says what that costs, which the
thesis leaves out. The correlation is kept by whoever shares a seed: `exact.sample` with the joint policy and one key.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from rlinf_ppl import algebra
from rlinf_ppl.algebra import Chain, Conditional, Law, Site, Table, at_time, by_time
from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.inference.arguments import check_count, check_key, check_tabular, check_tolerance
from rlinf_ppl.inference.chains import forbidden
from rlinf_ppl.inference.chains.policies import Policy, answer_of, as_laws
from rlinf_ppl.inference.particles import episodes
from rlinf_ppl.inference.particles.faults import check_faults
from rlinf_ppl.inference.particles.proposals import as_policy
from rlinf_ppl.inference.particles.simulator import simulator_of
from rlinf_ppl.program import ControlProgram, read
from rlinf_ppl.program.checks import check_ends, check_sees
from rlinf_ppl.program.reading import check_program

__all__ = ["CoordinationLoss", "RollOut", "coordination_loss", "executed", "expected_return", "roll_out"]


class CoordinationLoss(NamedTuple):
    """What the joint policy has and its executed policies, drawn independently, have not; in units of optimality.

    Against an opponent that minimises, a loss may be a gain: below 0.

    Attributes:
        elbo: the difference in ELBO; infinite where the decisions, made apart, do what a prior forbids.
        expected_return: the difference in expected return.
    """

    elbo: Float[Array, ""]
    expected_return: Float[Array, ""]


class RollOut(NamedTuple):
    """What sampled episodes earned, in units of optimality.

    Attributes:
        returns: sum gamma^t log p(O_t) of each episode.
        mean: their mean.
        standard_error: of the mean; NaN for a single episode.
    """

    returns: Float[Array, " N"]
    mean: Float[Array, ""]
    standard_error: Float[Array, ""]


def executed(program: ControlProgram, policy: Policy) -> dict[str, Float[Array, "..."]]:
    """Each decision's policy given the state alone: earlier decisions and chance of its step summed out by their laws.

    A conditional for every state, also for those that the policy never visits.

    Args:
        program: any tabular step program.
        policy: for each decision (T, scope, K) probabilities; without T where stationary, size 1 on ignored axes.

    Returns:
        For each decision (T, states, K) probabilities, over all state variables; without T at an infinite horizon.

    Raises:
        ValueError: on a policy of another shape, rows that are no distributions, or a program of real vectors.
    """
    chain = read(program)
    check_tabular(program, "executed policies")
    size = chain.size()
    alone = executed_laws(chain, as_laws(chain, policy))
    return {name: answer_of(law, (*chain.times, *chain.state), size) for name, law in alone.items()}


def coordination_loss(program: ControlProgram, policy: Policy) -> CoordinationLoss:
    """What is lost where every decision is drawn from its executed policy, independently of the others of its step.

    By exact evaluation of both: no sampling.

    Args:
        program: any tabular step program.
        policy: the joint policy, for each decision (T, scope, K) probabilities; without T where stationary, size 1 on
            ignored axes.

    Raises:
        ValueError: as `executed`.
    """
    chain = read(program)
    check_tabular(program, "executed policies")
    tolerance = check_tolerance(chain)
    check_sees(program, "the coordination loss")
    together = as_laws(chain, policy)
    apart = executed_laws(chain, together)
    return CoordinationLoss(
        bound(chain, together, tolerance) - bound(chain, apart, tolerance),
        earned(chain, together, tolerance) - earned(chain, apart, tolerance),
    )


def expected_return(program: ControlProgram, policy: Policy) -> Float[Array, ""]:
    """E[sum gamma^t log p(O_t)] under a policy and the true dynamics, in units of optimality; leaving priors is free.

    Args:
        program: any step program.
        policy: for each decision (T, scope, K) probabilities; without T where stationary, size 1 on ignored axes.

    Returns:
        A scalar, differentiable in the policy.
    """
    chain = read(program)
    return earned(chain, as_laws(chain, policy), check_tolerance(chain))


def roll_out(program: ControlProgram, key: PRNGKeyArray | Array, policy: Any, num_episodes: int) -> RollOut:
    """Play episodes: their returns scatter around `expected_return`.

    The decisions may come from several models, one agent's from this and its opponent's from that; an executed policy
    gets an axis of size 1 for what else stands in the scope.

    Args:
        program: any step program with a finite horizon.
        key: a JAX random key.
        policy: for each decision (T, scope, K) probabilities, without T where stationary, size 1 on ignored axes; or a
            function of the variables before it that returns a NumPyro distribution, as fits of networks have; or a
            solution or fit that holds these.
        num_episodes: how many, at least 1. A discount weighs the steps of an episode, it does not end it.

    Raises:
        TypeError, ValueError: without a horizon or episodes, or on a policy that does not fit.
        FloatingPointError: where a site's numbers are no law or factor. Under jit and vmap nothing is raised.
    """
    check_program(program)
    check_ends(program.horizon, "episodes")
    count = check_count("num_episodes", num_episodes)
    played = as_policy(program, policy, weighed=False)
    simulator = replace(simulator_of(program), proposal=played)
    returns, faults = episodes.returns(simulator, check_key(key), count)
    check_faults(faults)
    return RollOut(returns, jnp.mean(returns), jnp.std(returns, ddof=1) / count**0.5)


@compiled
def executed_laws(chain: Chain, policy: Mapping[str, Law]) -> dict[str, Conditional]:
    """Each decision's law given the state alone, over time."""
    varying, constant = by_time((chain.step.sites, policy))
    if chain.horizon is None:
        return alone(chain, *constant)

    def one(_: Array, now: Any) -> dict[str, Conditional]:
        return alone(chain, *at_time(eqx.combine(now, constant)))

    laws = jax.vmap(one)(jnp.arange(chain.horizon), varying)
    return {name: Conditional(name, Table((*chain.times, *q.table.axes), q.table.array)) for name, q in laws.items()}


def alone(chain: Chain, sites: tuple[Site, ...], policy: Mapping[str, Any]) -> dict[str, Conditional]:
    """The same for one step: the law of a decision, averaged over all that stands before it from last to first."""
    size, found = chain.size(), {}
    latent = tuple(site for site in sites if not site.is_factor)
    for i, site in enumerate(latent):
        if site.kind == "decision":
            law, _ = algebra.walk(latent[:i], policy[site.name].table, algebra.expectation_rules(policy))
            found[site.name] = Conditional(site.name, law.over((*chain.carried, site.name), size))
    return found


@compiled
def bound(chain: Chain, policy: Mapping[str, Law], tolerance: Array | None) -> Float[Array, ""]:
    """The ELBO of a policy, whatever its laws depend on."""
    walked = algebra.backward(chain.quickest(), forbidden.evaluated, policy, None, tolerance)
    total = algebra.start(chain, walked.first, algebra.solve_rules())
    return forbidden.marked(chain, policy, forbidden.breaches(chain, policy), total)[0]


@compiled
def earned(chain: Chain, policy: Mapping[str, Law], tolerance: Array | None) -> Float[Array, ""]:
    """The expected return of a policy, whatever its laws depend on; data are no rewards."""
    step = replace(chain.step, sites=tuple(site for site in chain.step.sites if site.kind != "data"))
    chain = replace(chain, step=step, final=tuple(site for site in chain.final if site.kind != "data"))
    walked = algebra.backward(chain.quickest(), algebra.expectation_rules, policy, None, tolerance)
    return algebra.start(chain, walked.first, algebra.expectation_rules({}))
