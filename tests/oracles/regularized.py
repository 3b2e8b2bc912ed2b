"""Regularized decision processes in plain NumPy: conjugates by brute force, fixed points by sweeps (Geist 2019).

A `Maximum` is a function (x (K,), prior (K,)) -> (max_q <q, x> - Omega(q), the q that attains it), x in nats.
"""

from collections.abc import Callable
from itertools import combinations

import numpy as np

Maximum = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]


def kl(x, prior):
    """The KL to the prior: log sum p exp x."""
    value = np.logaddexp.reduce(x[prior > 0] + np.log(prior[prior > 0]))
    return value, np.where(prior > 0, prior * np.exp(np.where(prior > 0, x - value, 0)), 0)


def negative_entropy(x, prior):
    """Sum q log q over what is possible: log sum exp x."""
    value = np.logaddexp.reduce(x[prior > 0])
    return value, np.where(prior > 0, np.exp(np.where(prior > 0, x - value, -np.inf)), 0)


def tsallis(x, prior):
    """(|q|^2 - 1) / 2: the best of the stationary points on all supports that are distributions."""
    possible, best = np.flatnonzero(prior > 0), (-np.inf, None)
    for size in range(1, len(possible) + 1):
        for support in map(list, combinations(possible, size)):
            q = np.zeros(len(x))
            q[support] = x[support] - (x[support].sum() - 1) / size
            value = q @ x - (q @ q - 1) / 2
            if (q >= 0).all() and value > best[0]:
                best = value, q
    return best


def scaled(maximum, scale):
    """The same for scale * Omega."""

    def scaled_maximum(x, prior):
        value, q = maximum(x / scale, prior)
        return scale * value, q

    return scaled_maximum


def cost(name, q, prior):
    """Omega(q) of a distribution on what is possible."""
    if name == "tsallis":
        return (q @ q - 1) / 2
    base = prior if name == "kl" else np.ones_like(prior)
    return sum(a * np.log(a / b) for a, b in zip(q, base, strict=True) if a > 0)


def action_values(transition, reward, discount, value):
    """r + gamma E v."""
    return reward + discount * np.einsum("sap,p->sa", transition, value)


def bellman(maximum, transition, reward, prior, beta, discount, value):
    """One sweep: the new value (S,) and the policy (S, A); an infinite beta is the hard maximum over the possible."""
    q = action_values(transition, reward, discount, value)
    if np.isinf(beta):
        best = np.where(prior > 0, np.sign(beta) * q, -np.inf)
        return np.sign(beta) * best.max(-1), np.eye(q.shape[1])[best.argmax(-1)]
    each = [maximum(beta * x, p) for x, p in zip(q, prior, strict=True)]
    return np.array([value for value, _ in each]) / beta, np.stack([policy for _, policy in each])


def fixed_point(maximum, transition, reward, prior, beta, discount, start=None):
    """The value that a sweep leaves as it is, by sweeps to rounding, and its policy."""
    value = np.zeros(len(reward)) if start is None else start
    for _ in range(int(np.log(1e-16) / np.log(discount)) + 50):
        value, policy = bellman(maximum, transition, reward, prior, beta, discount, value)
    return value, policy


def risk_seeking(transition, reward, beta, discount):
    """What is not smooth Bellman: the fixed point of (1 / beta) log sum_a sum_s' P exp(beta (r + gamma v'))."""
    value = np.zeros(len(reward))
    for _ in range(2000):
        inside = np.einsum("sap,sap->sa", transition, np.exp(beta * (reward[..., None] + discount * value)))
        value = np.log(inside.sum(-1)) / beta
    return value


def evaluated(name, transition, reward, prior, beta, discount, policy):
    """(I - gamma P_d)^-1 (r_d - Omega(d) / beta); no cost where the name is None."""
    price = 0 if name is None else np.array([cost(name, d, p) for d, p in zip(policy, prior, strict=True)]) / beta
    moves = np.einsum("sa,sap->sp", policy, transition)
    return np.linalg.solve(np.eye(len(reward)) - discount * moves, (policy * reward).sum(-1) - price)
