"""Sums over a list of trajectories: evidence, posteriors, ELBO, divergences (see `trajectories`)."""

import numpy as np

from .trajectories import Policy, Scopes, Trajectories, lifetimes


def _joint(trajectories: Trajectories):
    """Log of p(path, alive, O) as (lifetimes, N), and the lifetimes' alive rows."""
    tau = trajectories.program.common_inverse_temperature
    prior = np.log(trajectories.prior_probability)
    mass, alive = zip(*lifetimes(trajectories.program.discount, trajectories.steps), strict=True)
    rows = [np.log(m) + prior + tau * trajectories.log_optimality @ a for m, a in zip(mass, alive, strict=True)]
    return np.array(rows), np.array(alive)


def log_evidence(trajectories: Trajectories) -> float:
    """Log probability of optimality in nats, the first listed step being alive."""
    return float(np.logaddexp.reduce(_joint(trajectories)[0], axis=None))


def posterior(trajectories: Trajectories) -> tuple[np.ndarray, np.ndarray]:
    """p(path, alive | O) as (lifetimes, N), and alive as (lifetimes, L+1)."""
    joint, alive = _joint(trajectories)
    return np.exp(joint - np.logaddexp.reduce(joint, axis=None)), alive


def state_marginals(trajectories: Trajectories, weights: np.ndarray) -> np.ndarray:
    """Adds the (N,) weights of the paths by state: (L+1, state sizes)."""
    program = trajectories.program
    out = np.zeros((trajectories.steps + 1, *(len(program.supports[n]) for n in program.state)))
    for t in range(trajectories.steps + 1):
        np.add.at(out[t], tuple(trajectories.position[n][:, t] for n in program.state), weights)
    return out


def decision_marginals(
    trajectories: Trajectories, name: str, scope: tuple[str, ...], weights: np.ndarray
) -> np.ndarray:
    """Adds weights, (N,) or one column a step (N, L), by scope and decision: (L, scope sizes, K)."""
    axes, supports = (*scope, name), trajectories.program.supports
    weights = np.broadcast_to(weights[:, None] if weights.ndim == 1 else weights, (len(weights), trajectories.steps))
    out = np.zeros((trajectories.steps, *(len(supports[n]) for n in axes)))
    for t in range(trajectories.steps):
        np.add.at(out[t], tuple(trajectories.position[n][:, t] for n in axes), weights[:, t])
    return out


def reached(trajectories: Trajectories, name: str, scope: tuple[str, ...]) -> np.ndarray:
    """(L, scope sizes): whether the prior gives the scope's values positive probability."""
    return decision_marginals(trajectories, name, scope, trajectories.prior_probability).sum(-1) > 0


def posterior_policy(trajectories: Trajectories, name: str, scope: tuple[str, ...]) -> np.ndarray:
    """p(decision | scope, alive, O) by a ratio of sums; NaN where the scope's values have no probability."""
    weights, alive = posterior(trajectories)
    joint = decision_marginals(trajectories, name, scope, weights.T @ alive[:, :-1])
    total = joint.sum(-1, keepdims=True)
    return np.divide(joint, total, out=np.full_like(joint, np.nan), where=total > 0)


def policy_along(trajectories: Trajectories, policy: Policy, scopes: Scopes) -> dict[str, np.ndarray]:
    """q(decision | scope) on every path: (N, L). Tables may lack the time axis, and have size 1 where they ignore."""
    times, found = trajectories.start + np.arange(trajectories.steps), {}
    for name, scope in scopes.items():
        table = np.asarray(policy[name], dtype=float)
        table = table[None] if table.ndim == len(scope) + 1 else table
        columns = [times, *(trajectories.position[n][:, : trajectories.steps] for n in scope)]
        index = [np.where(size == 1, 0, column) for size, column in zip(table.shape, columns, strict=False)]
        found[name] = table[(*index, trajectories.position[name])]
    return found


def path_probability(trajectories: Trajectories, along: dict[str, np.ndarray]) -> np.ndarray:
    """(N,) probability of each path under a policy and the true dynamics, all steps alive."""
    return trajectories.chance * np.prod([np.prod(q, axis=1) for q in along.values()], axis=0)


def _log_ratio(q: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Log of q/p with 0 where q = 0 (such a path has no weight) and infinity where only p = 0."""
    with np.errstate(divide="ignore"):
        return np.where(q > 0, np.log(np.where(q > 0, q, 1.0)) - np.where(q > 0, np.log(p), 0.0), 0.0)


def elbo(trajectories: Trajectories, policy: Policy, scopes: Scopes) -> float:
    """E_q sum_t gamma^t [r_t - sum_d (1/tau_d) log q/p], in the units of optimality."""
    along = policy_along(trajectories, policy, scopes)
    gain = trajectories.log_optimality.copy()
    for site in trajectories.program.decisions:
        gain[:, :-1] -= _log_ratio(along[site.name], trajectories.prior[site.name]) / site.inverse_temperature
    weights = trajectories.program.discount ** np.arange(trajectories.steps + 1)
    return float(path_probability(trajectories, along) @ (gain @ weights))


def _guide(trajectories: Trajectories, along: dict[str, np.ndarray], alive: np.ndarray) -> dict[str, np.ndarray]:
    """The guide's decision probabilities: the policy while alive, the prior afterwards."""
    return {name: np.where(alive[:-1] > 0, q, trajectories.prior[name]) for name, q in along.items()}


def kl(trajectories: Trajectories, policy: Policy, other: Policy, scopes: Scopes) -> float:
    """KL in nats between the two guides' distributions of alive and path."""
    first, second = (policy_along(trajectories, tables, scopes) for tables in (policy, other))
    total = 0.0
    for mass, alive in lifetimes(trajectories.program.discount, trajectories.steps):
        q, r = _guide(trajectories, first, alive), _guide(trajectories, second, alive)
        ratio = sum(_log_ratio(q[name], r[name]).sum(axis=1) for name in q)
        weights = mass * path_probability(trajectories, q)
        total += np.sum(np.where(weights > 0, weights * ratio, 0.0), where=weights > 0)
    return float(total)


def divergence_from_posterior(trajectories: Trajectories, policy: Policy, scopes: Scopes) -> float:
    """KL in nats between the guide and the exact posterior over alive and path."""
    along, total = policy_along(trajectories, policy, scopes), 0.0
    joint, _ = _joint(trajectories)
    target = joint - np.logaddexp.reduce(joint, axis=None)
    for (mass, alive), log_p in zip(lifetimes(trajectories.program.discount, trajectories.steps), target, strict=True):
        weights = mass * path_probability(trajectories, _guide(trajectories, along, alive))
        used = weights > 0
        total += weights[used] @ (np.log(weights[used]) - log_p[used])
    return float(total)
