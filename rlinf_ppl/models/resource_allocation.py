"""Dynamic resource allocation as inference: memories are noisy, and precision has a price.

Patel, Acerbi & Pouget (2020), Dynamic allocation of limited memory resources in reinforcement learning; as inference,
Acerbi (2022). Model and guide of each step, T of them:

    eta_t(s, .) ~ N(0, base_std^2),   a_t ~ uniform,                                     factor r(s_t, a_t)
    eta_t(s, .) ~ N(0, std(s, .)^2),  a_t ~ softmax(beta (q(s_t, .) + eta_t(s_t, .)))

A memory of the value of an action is q + eta; what it costs is the divergence of both laws of eta. Two programs:

    resource_allocation         eta of the state that is met:  sum_t E [r - kl_weight KL(s_t) + entropy_weight H_t]
    resource_allocation_once    eta of all states at each step: E sum_t r - kl_weight sum_s KL(s)
                                                                 + (entropy_weight / T) E sum_t H_t

with KL(s) = sum_a [log base_std / std + (std / base_std)^2 / 2 - 1/2] and H_t the entropy of the choice given eta. The
first pays for a memory whenever it is used (eq. 8); the second for keeping it, which is what Patel et al. have, with an
entropy_weight of 0 (eq. 9 and 10, where the reward has to stay the task's own, or else the weight has no effect). With
a discount all of r, KL and H are discounted, and T becomes sum_t discount^t. The ELBO is the objective less
entropy_weight log A a step (once: in all), of the uniform prior.

q is not paid for, and so what it may be decides everything. *Free*, it grows until no noise matters: the cost goes to 0
and precision nowhere. *Tied*, the default, it is the value of the agent's own noisy policy (`noisy_values`), at a
discount of its own; only std is learned.

The weights are 1 / inverse temperatures: where they are equal there is a joint model, which NumPyro's own SVI and `smc`
take; where they differ `svi.fit` with `NodeELBO` does, which integrates eta exactly by `algebra.random_utility`.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import Categorical, Normal

from rlinf_ppl.models.arguments import check_reward_times, check_task, finite_number, whole_number
from rlinf_ppl.models.dynamics import first_state, next_state, varying_task
from rlinf_ppl.models.noisy_values import as_table, check_values, discount_of, positive_number
from rlinf_ppl.models.recalled import Free, Memory, Tied
from rlinf_ppl.program import ControlProgram, decide, optimality
from rlinf_ppl.tasks import MDP, checks
from rlinf_ppl.types import ArrayLike


def step(mdp: MDP, memory: Memory, s: Any) -> dict[str, Any]:
    """One step where the memory that is used is paid for."""
    decide("memory", Normal(0.0, memory.base_std[s]).to_event(1), 1 / memory.kl_weight)
    return act(mdp, memory, s)


def step_once(mdp: MDP, memory: Memory, s: Any) -> dict[str, Any]:
    """One step where all memories are paid for."""
    decide("memory", Normal(0.0, memory.base_std).to_event(2), 1 / memory.kl_weight)
    return act(mdp, memory, s)


def act(mdp: MDP, memory: Memory, s: Any) -> dict[str, Any]:
    """The action and what follows."""
    uniform = jnp.full(mdp.num_actions, 1 / mdp.num_actions)
    a = decide("a", Categorical(probs=uniform), 1 / memory.entropy_weight)
    optimality(mdp.reward[s, a])
    return {"s": next_state(mdp, s, a)}


def resource_allocation(
    mdp: MDP,
    horizon: int | None,
    base_std: ArrayLike,
    beta: ArrayLike,
    kl_weight: ArrayLike = 1.0,
    entropy_weight: ArrayLike = 1.0,
    discount: ArrayLike = 1.0,
    value_discount: ArrayLike | None = None,
    std: ArrayLike | None = None,
) -> ControlProgram:
    """Noisy memories of an agent's own values, paid for at each access.

    Args:
        mdp: the task, S states and A actions; its reward may have a leading time axis of length `horizon`.
        horizon: number of steps T; None: without end, which needs a discount below 1 and nothing that varies in time.
        base_std: standard deviation of a memory that costs nothing, above 0, in units of reward: one number, or (S, A),
            or what broadcasts to that; where it is small a memory is as good as known, and costs nothing.
        beta: inverse temperature of the softmax of memories, above 0, in 1 / units of reward.
        kl_weight: lambda, the price of a nat of precision in units of reward, at least 0.
        entropy_weight: what a nat of the choice's entropy is worth, the same; 0 leaves it out.
        discount: gamma in [0, 1], of reward, cost and entropy.
        value_discount: of the values that are remembered; None: `discount`.
        std: where a fit starts, above 0, in units of reward: as base_std, or (T, S, A), memories of each time apart;
            None: half of base_std.

    Returns:
        The program, with state `s` and decisions `memory`, (A,), and `a`. It carries the guide, whose parameter is
        `std`; its ELBO is the objective less entropy_weight log A a step, in units of reward.

    Raises:
        TypeError: on something else than an MDP.
        ValueError: on a std or beta that is not above 0, a negative weight, tables of another shape, or values at a
            discount of 1 of a task that need not end.
    """
    prices = finite_weight("kl_weight", kl_weight), finite_weight("entropy_weight", entropy_weight)
    start = start_of(mdp, horizon, base_std, std)
    made = program_of(step, mdp, horizon, base_std, beta, prices, discount, value_discount)
    check_values(mdp, start, discount_of("value_discount", discount if value_discount is None else value_discount))
    return made.with_guide(Tied(everywhere=False, std=start))


def resource_allocation_once(
    mdp: MDP,
    horizon: int | None,
    base_std: ArrayLike,
    beta: ArrayLike,
    kl_weight: ArrayLike = 1.0,
    entropy_weight: ArrayLike = 1.0,
    discount: ArrayLike = 1.0,
    value_discount: ArrayLike | None = None,
    std: ArrayLike | None = None,
) -> ControlProgram:
    """Noisy memories of an agent's own values, each paid for once; see `resource_allocation`.

    Args:
        mdp: as there.
        horizon: as there.
        base_std: as there.
        beta: as there.
        kl_weight: lambda, the price of a nat of precision, whatever the number of steps.
        entropy_weight: what the mean entropy of a choice is worth, whatever the number of steps; 0 is Patel et al.
        discount: as there; both are shared out over sum_t discount^t steps.
        value_discount: as there.
        std: as there.

    Returns:
        The program, with decisions `memory`, (S, A), and `a`; all else as there.

    Raises:
        TypeError, ValueError: as there.
    """
    prices = shared_out(horizon, discount, kl_weight, entropy_weight)
    start = start_of(mdp, horizon, base_std, std)
    made = program_of(step_once, mdp, horizon, base_std, beta, prices, discount, value_discount)
    check_values(mdp, start, discount_of("value_discount", discount if value_discount is None else value_discount))
    return made.with_guide(Tied(everywhere=True, std=start))


def resource_allocation_free(
    mdp: MDP,
    horizon: int | None,
    base_std: ArrayLike,
    beta: ArrayLike,
    kl_weight: ArrayLike = 1.0,
    entropy_weight: ArrayLike = 1.0,
    discount: ArrayLike = 1.0,
    mean: ArrayLike | None = None,
    std: ArrayLike | None = None,
) -> ControlProgram:
    """Noisy memories of any values, paid for at each access: with free means precision has no use.

    Args:
        mdp: as `resource_allocation` has it, and so all else.
        horizon: as there.
        base_std: as there.
        beta: as there.
        kl_weight: as there.
        entropy_weight: as there.
        discount: as there.
        mean: where a fit starts, of std's shape; None: 0.
        std: as there.

    Returns:
        The program; its guide has the parameters `mean` and `std`.

    Raises:
        TypeError, ValueError: as there.
    """
    prices = finite_weight("kl_weight", kl_weight), finite_weight("entropy_weight", entropy_weight)
    start = start_of(mdp, horizon, base_std, std)
    made = program_of(step, mdp, horizon, base_std, beta, prices, discount, None)
    return made.with_guide(Free(everywhere=False, mean=mean_of(mdp, horizon, mean, start), std=start))


def resource_allocation_once_free(
    mdp: MDP,
    horizon: int | None,
    base_std: ArrayLike,
    beta: ArrayLike,
    kl_weight: ArrayLike = 1.0,
    entropy_weight: ArrayLike = 1.0,
    discount: ArrayLike = 1.0,
    mean: ArrayLike | None = None,
    std: ArrayLike | None = None,
) -> ControlProgram:
    """Noisy memories of any values, each paid for once; see `resource_allocation_free` and `_once`.

    Args:
        mdp: as `resource_allocation_once` has it, and so all else.
        horizon: as there.
        base_std: as there.
        beta: as there.
        kl_weight: as there.
        entropy_weight: as there.
        discount: as there.
        mean: where a fit starts, of std's shape; None: 0.
        std: as there.

    Returns:
        The program; its guide has the parameters `mean` and `std`.

    Raises:
        TypeError, ValueError: as there.
    """
    prices = shared_out(horizon, discount, kl_weight, entropy_weight)
    start = start_of(mdp, horizon, base_std, std)
    made = program_of(step_once, mdp, horizon, base_std, beta, prices, discount, None)
    return made.with_guide(Free(everywhere=True, mean=mean_of(mdp, horizon, mean, start), std=start))


def program_of(
    run: Any,
    mdp: MDP,
    horizon: int | None,
    base_std: ArrayLike,
    beta: ArrayLike,
    prices: tuple[Array, Array],
    discount: ArrayLike,
    value_discount: ArrayLike | None,
) -> ControlProgram:
    """The program of a step, its numbers checked."""
    check_reward_times(mdp, horizon)
    base = positive_table("base_std", base_std, mdp, 0)
    gamma = discount_of("value_discount", discount if value_discount is None else value_discount)
    memory = Memory(base, positive_number("beta", beta), *prices, gamma)
    return ControlProgram(first_state, run, horizon, discount, args=(varying_task(mdp), memory))


def positive_table(name: str, given: ArrayLike, mdp: MDP, times: int | None) -> Float[Array, "*T S A"]:
    """Standard deviations above 0; see `as_table`.

    Raises:
        ValueError: one is not, or the shape is another.
    """
    table = as_table(name, given, mdp, times)
    if checks.is_concrete(table) and not bool(jnp.all(table > 0)):
        raise ValueError(
            f"{name} has an entry of {float(jnp.min(table)):g}; a standard deviation is above 0, and a perfect memory "
            "costs infinitely much."
        )
    return table


def start_of(mdp: MDP, horizon: int | None, base_std: ArrayLike, std: ArrayLike | None) -> Float[Array, "*T S A"]:
    """Where a fit's std starts."""
    check_task("mdp", mdp, MDP)
    if std is None:
        return 0.5 * positive_table("base_std", base_std, mdp, 0)
    return positive_table("std", std, mdp, horizon or 0)


def mean_of(mdp: MDP, horizon: int | None, mean: ArrayLike | None, std: Array) -> Float[Array, "*T S A"]:
    """Where a fit's free values start."""
    table = as_table("mean", 0.0 if mean is None else mean, mdp, horizon or 0)
    if table.ndim > std.ndim:
        raise ValueError(f"mean has a table for each time, {table.shape}, and std has not: give one of the same shape.")
    return jnp.broadcast_to(table, std.shape)


def finite_weight(name: str, given: ArrayLike) -> Float[Array, ""]:
    """A weight of at least 0.

    Raises:
        ValueError: it is none.
    """
    weight = finite_number(name, given)
    if checks.is_concrete(weight) and not weight >= 0:
        raise ValueError(f"{name} is {float(weight):g}; a weight is at least 0.")
    return weight


def shared_out(
    horizon: int | None, discount: ArrayLike, kl_weight: ArrayLike, entropy_weight: ArrayLike
) -> tuple[Array, Array]:
    """The weights of a step where they are those of all steps together."""
    gamma = discount_of("discount", discount)
    times = None if horizon is None else whole_number("horizon", horizon, "a program has at least one step")
    steps = 1 / (1 - gamma) if times is None else jnp.sum(gamma ** jnp.arange(times))
    return finite_weight("kl_weight", kl_weight) / steps, finite_weight("entropy_weight", entropy_weight) / steps
