"""E log p_hat of two particles over two steps, by enumeration of everything that can be drawn."""

from itertools import product

import numpy as np

PARTICLES = 2


def expected_log_evidence(task, theta, theta_of_ancestors):
    """E log p_hat, where ancestors are drawn with the weights that other logits would have given.

    Args:
        task: (initial (S,), prior (S, A), transition (S, A, S), reward (S, A)) as arrays.
        theta: logits (2, S, A) of the guide, by which sites are drawn and weighted.
        theta_of_ancestors: logits whose weights the ancestors are drawn by, the same where nothing is held fixed.
    """
    initial, prior, transition, reward = task
    states, actions = prior.shape
    q, other = tilted(prior, theta), tilted(prior, theta_of_ancestors)
    pairs = lambda n: list(product(range(n), repeat=PARTICLES))  # noqa: E731

    def weights(policy, t, s, a):
        return np.array([np.exp(reward[i, j]) * prior[i, j] / policy[t, i, j] for i, j in zip(s, a, strict=True)])

    total = 0.0
    for s0, a0, s1 in product(pairs(states), pairs(actions), pairs(states)):
        p = np.prod([initial[i] * q[0, i, j] * transition[i, j, k] for i, j, k in zip(s0, a0, s1, strict=True)])
        w = weights(q, 0, s0, a0)
        drawn_by = weights(other, 0, s0, a0)
        even = abs(drawn_by[0] - drawn_by[1]) <= 1e-9 * drawn_by[0]
        for ancestors in [(0, 1)] if even else pairs(PARTICLES):
            chance = 1.0 if even else np.prod(drawn_by[list(ancestors)] / drawn_by.sum())
            after = [s1[i] for i in ancestors]
            carried = w if even else np.full(PARTICLES, w.mean())
            for a1 in pairs(actions):
                p_last = np.prod([q[1, i, j] for i, j in zip(after, a1, strict=True)])
                total += p * chance * p_last * np.log((carried * weights(q, 1, after, a1)).mean())
    return total


def tilted(prior, theta):
    """prior * exp(theta), normalised."""
    p = prior * np.exp(theta)
    return p / p.sum(-1, keepdims=True)


def gradient(task, theta, resampling_term, step=1e-5):
    """Its gradient in the logits by central differences; without the resampling term ancestors keep their law."""
    found = np.zeros_like(theta)
    for place in np.ndindex(theta.shape):
        change = np.zeros_like(theta)
        change[place] = step
        ends = [
            expected_log_evidence(task, theta + sign * change, theta + sign * change * resampling_term)
            for sign in (1, -1)
        ]
        found[place] = (ends[0] - ends[1]) / (2 * step)
    return found
