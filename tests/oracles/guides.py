"""ELBOs of restricted families in plain NumPy: of tables by recursion, of a softmax of noisy values by quadrature."""

import itertools

import numpy as np


def elbo(first, transition, reward, prior, policies):
    """Of policies (T, S, A) in nats, for first (S,), transition (S, A, S), reward and prior (S, A)."""
    value = np.zeros(len(first))
    for policy in policies[::-1]:
        gain = reward + transition @ value - np.log(np.where(policy > 0, policy / prior, 1.0))
        value = (policy * gain).sum(-1)
    return first @ value


def noisy_softmax(first, transition, reward, horizon, mean, spread, sharpness, nodes=40):
    """Of q ~ N(mean[s], spread[s]^2), a ~ softmax(sharpness q), with priors N(0, 1) and uniform.

    Args:
        first: (S,).
        transition: (S, A, S).
        reward: (S, A).
        horizon: number of steps.
        mean, spread: (S, A).
        sharpness: a number.
        nodes: of the quadrature, for each value.
    """
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    weights = weights / weights.sum()
    states, actions = reward.shape
    policy, cost = np.zeros((states, actions)), np.zeros(states)
    for place in itertools.product(range(nodes), repeat=actions):
        weight = np.prod(weights[list(place)])
        logits = sharpness * (mean + spread * points[list(place)])
        logits = logits - logits.max(-1, keepdims=True)
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        policy += weight * p
        cost += weight * (p * np.log(p * actions)).sum(-1)
    cost += 0.5 * (spread**2 + mean**2 - 1 - 2 * np.log(spread)).sum(-1)
    value = np.zeros(states)
    for _ in range(horizon):
        value = (policy * (reward + transition @ value)).sum(-1) - cost
    return first @ value
