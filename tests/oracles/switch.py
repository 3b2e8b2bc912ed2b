"""The ELBO of a Gaussian decision that moves a switch, by quadrature; its gradient by central differences.

a ~ N(0, 1),   reward  -(a - goal[k])^2 / 2,   k' = 1 with probability 1 / (1 + exp(-(a + pull[k])))
guide  q(a | k, t) = N(mean, exp(log_std)^2),   last[k] in the end
"""

import numpy as np

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def elbo(task, theta):
    """The ELBO in nats.

    Args:
        task: (first, goal, pull, last): probability that k is 1 at first, and arrays (2,).
        theta: (T, 2, 2), for each time and k the mean and log_std of the guide.
    """
    first, goal, pull, last = task
    value = np.asarray(last)
    for mean, log_std in (np.moveaxis(now, -1, 0) for now in theta[::-1]):
        a = mean[:, None] + np.exp(log_std)[:, None] * NODES
        on = 1 / (1 + np.exp(-(a + pull[:, None])))
        gain = -((a - goal[:, None]) ** 2) / 2 + on * value[1] + (1 - on) * value[0]
        kl = (mean**2 + np.exp(2 * log_std) - 1) / 2 - log_std
        value = gain @ WEIGHTS - kl
    return (1 - first) * value[0] + first * value[1]


def gradient(task, theta, step=1e-5):
    """Its gradient, (T, 2, 2)."""
    found = np.zeros_like(theta)
    for place in np.ndindex(theta.shape):
        change = np.zeros_like(theta)
        change[place] = step
        found[place] = (elbo(task, theta + change) - elbo(task, theta - change)) / (2 * step)
    return found
