"""Bounded problems by general optimisers and dense integration, in plain NumPy and SciPy.

Tables are maximised over occupancies rho_t(s, a), in which the reward and the flow are linear and every bound convex
(Puterman 1994, section 6.9): with mu_t(s) = sum_a rho_t(s, a),

    KL(pi || q) = sum rho log(rho / (mu q)),      KL(mu pi || nu q) = sum rho log(rho / (nu q)),
    E log pi = sum rho log(rho / mu)
"""

import warnings

import numpy as np
from scipy.optimize import minimize


def best_occupancy(transition, reward, initial, prior, horizon, spent, bound):
    """The largest expected reward whose `spent` stays within a bound, and what is spent there.

    Args:
        transition, reward, initial: (S, A, S), (S, A), (S,).
        prior: (S, A).
        horizon: T.
        spent: rho (T, S, A) -> an array that must not be larger than `bound`.
        bound: the bound.
    """
    num_states, num_actions = reward.shape
    shape = horizon, num_states, num_actions

    def flow(x):
        rho = x.reshape(shape)
        mu = rho.sum(-1)
        arrived = np.einsum("tsa,saz->tz", rho[:-1], transition)
        return np.concatenate([(mu[0] - initial), (mu[1:] - arrived).ravel()])

    rho, mu = np.zeros(shape), initial
    for t in range(horizon):
        rho[t] = mu[:, None] * prior
        mu = np.einsum("sa,saz->z", rho[t], transition)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # older SciPy warns where a step leaves the bounds
        found = minimize(
            lambda x: -(x.reshape(shape) * reward).sum(),
            rho.ravel(),
            jac=lambda x: -np.broadcast_to(reward, shape).ravel(),
            bounds=[(1e-12, 1.0)] * rho.size,
            constraints=[
                {"type": "eq", "fun": flow},
                {"type": "ineq", "fun": lambda x: np.atleast_1d(bound - spent(x.reshape(shape)))},
            ],
            method="SLSQP",
            options={"maxiter": 1000, "ftol": 1e-13},
        )
    return -found.fun, np.atleast_1d(spent(found.x.reshape(shape)))


def policy_kl(prior):
    """KL of the policy at each step."""

    def spent(rho):
        return (rho * np.log(rho / (rho.sum(-1, keepdims=True) * prior))).sum((1, 2))

    return spent


def joint_kl(prior, states):
    """KL of state and action together from given states (T, S) and the prior."""

    def spent(rho):
        return (rho * np.log(rho / (states[:, :, None] * prior))).sum((1, 2))

    return spent


def log_policy(rho):
    """E log pi at each step."""
    return (rho * np.log(rho / rho.sum(-1, keepdims=True))).sum((1, 2))


def integrated_policy(reward, prior_mean, prior_std, bound, points=200_001, width=12.0):
    """One real action and no state: the law prior exp(reward / alpha) / Z that spends a bound, summed over a grid.

    Returns:
        alpha, and the law's mean and standard deviation.
    """
    u = prior_mean + prior_std * np.linspace(-width, width, points)
    log_prior = -0.5 * ((u - prior_mean) / prior_std) ** 2
    log_prior -= np.log(np.exp(log_prior).sum())

    def law(alpha):
        tilted = log_prior + reward(u) / alpha
        p = np.exp(tilted - tilted.max())
        return p / p.sum()

    low, high = -20.0, 20.0
    for _ in range(200):
        middle = (low + high) / 2
        p = law(np.exp(middle))
        kl = np.sum(np.where(p > 0, p * (np.log(np.where(p > 0, p, 1.0)) - log_prior), 0.0))
        low, high = (middle, high) if kl > bound else (low, middle)
    p = law(np.exp(low))
    mean = (p * u).sum()
    return np.exp(low), mean, np.sqrt((p * (u - mean) ** 2).sum())
