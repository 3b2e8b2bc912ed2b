"""Infinite horizons in plain NumPy: dense linear algebra on one table of states, nothing of the library's mathematics.

soft-optimal    v = CE_tau(r + gamma P v; p)               Newton's method with dense solves, to the last digit
posterior       u = exp v,   u = sum_a p e^r (gamma P u + 1 - gamma), a linear system
evaluation      (I - gamma P_pi) v = r_pi - KL(pi || p) / tau
occupancies     (I - gamma P_pi') mu = (1 - gamma) mu_0
"""

import numpy as np


def certainty_equivalents(q, prior, tau):
    """CE over the last axis and the tilted distribution; tau may be negative."""
    x = np.where(prior > 0, tau * q, -np.inf)
    peak = x.max(-1, keepdims=True)
    weights = prior * np.exp(x - peak)
    total = weights.sum(-1, keepdims=True)
    return ((peak + np.log(total))[..., 0]) / tau, weights / total


def soft_fixed_point(transition, reward, prior, discount, tau=1.0):
    """V (S,) and policy (S, A) of the soft-optimal fixed point."""
    v = np.zeros(len(transition))
    for _ in range(100):
        backed_up, policy = certainty_equivalents(reward + discount * transition @ v, prior, tau)
        chain = np.einsum("sa,sap->sp", policy, transition)
        step = np.linalg.solve(np.eye(len(v)) - discount * chain, backed_up - v)
        v = v + step
        if np.abs(step).max() <= 1e-14 * max(1.0, np.abs(v).max()):
            break
    return v, certainty_equivalents(reward + discount * transition @ v, prior, tau)[1]


def posterior_matrix(transition, reward, prior, discount):
    """What a step makes of u = exp V of the living: u -> A u + b."""
    weights = prior * np.exp(reward)
    return discount * np.einsum("sa,sap->sp", weights, transition), (1 - discount) * weights.sum(-1)


def posterior_fixed_point(transition, reward, prior, discount):
    """V (S,) and policy (S, A) given optimality; the spectral radius of the matrix has to be below 1."""
    matrix, constant = posterior_matrix(transition, reward, prior, discount)
    u = np.linalg.solve(np.eye(len(matrix)) - matrix, constant)
    policy = prior * np.exp(reward) * (discount * transition @ u + 1 - discount)
    return np.log(u), policy / u[:, None]


def evaluated(transition, reward, prior, discount, policy, tau=1.0):
    """The value (S,) of a policy, its KL from the prior included."""
    used = policy > 0
    cost = np.sum(np.where(used, policy * np.log(np.where(used, policy / np.where(used, prior, 1), 1)), 0), -1) / tau
    chain = np.einsum("sa,sap->sp", policy, transition)
    return np.linalg.solve(np.eye(len(chain)) - discount * chain, (policy * reward).sum(-1) - cost)


def occupancy(transition, initial, discount, policy):
    """The discounted occupancy (S,) of the states under a policy, summing to one."""
    chain = np.einsum("sa,sap->sp", policy, transition)
    return np.linalg.solve(np.eye(len(chain)) - discount * chain.T, (1 - discount) * initial)
