"""Agents that act on noisy memories of their own values, in plain NumPy: by nodes, and by draws."""

import numpy as np


def softmax(logits):
    """Over the last axis."""
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def by_nodes(q, std, beta, nodes=32):
    """E softmax(beta (q + std z)) of tables (..., A), z standard normal, by a grid of Gauss and Hermite's nodes."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    actions = q.shape[-1]
    z = np.stack(np.meshgrid(*[points] * actions, indexing="ij"), -1).reshape(-1, actions)
    w = np.prod(np.stack(np.meshgrid(*[weights / weights.sum()] * actions, indexing="ij"), -1), -1).ravel()
    return np.einsum("n...a,n->...a", softmax(beta * (q + std * z.reshape(-1, *[1] * (q.ndim - 1), actions))), w)


def by_draws(q, std, beta, z):
    """The same by draws z, (n, A), and the standard errors."""
    p = softmax(beta * (q + std * z.reshape(-1, *[1] * (q.ndim - 1), q.shape[-1])))
    return p.mean(0), p.std(0) / np.sqrt(len(z))


def values_without_end(transition, reward, std, beta, discount):
    """The values q (S, A) of one's own noisy policy, and this policy: values of the policy at hand, until it stays."""
    q, policy = reward, by_nodes(reward, std, beta)
    for _ in range(200):
        moves = np.einsum("sa,sat->st", policy, transition)
        ended = np.diag(moves) == 1
        system = np.eye(len(moves)) - discount * np.where(ended[:, None], 0.0, moves)
        after = reward + discount * transition @ np.linalg.solve(system, (policy * reward).sum(-1))
        policy = by_nodes(after, std, beta)
        if np.max(np.abs(after - q)) < 1e-13 * max(1.0, np.max(np.abs(q))):
            return after, policy
        q = after
    raise AssertionError("values do not stay")


def values_until_the_end(transition, reward, std, beta, discount):
    """The same for each time, (T, S, A), with std (T, S, A) and reward (T, S, A)."""
    value, found = np.zeros(len(transition)), []
    for r, s in zip(reward[::-1], std[::-1], strict=True):
        q = r + discount * transition @ value
        policy = by_nodes(q, s, beta)
        value = (policy * q).sum(-1)
        found.append((q, policy))
    qs, policies = zip(*found[::-1], strict=True)
    return np.stack(qs), np.stack(policies)


def log_prob(policy, s, a):
    """Of sequences s, a (n, T) under a policy (T, S, A) or (S, A): (n,)."""
    times = np.arange(s.shape[1])
    return np.log(policy[s, a] if policy.ndim == 2 else policy[times, s, a]).sum(1)
