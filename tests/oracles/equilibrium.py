"""Logit equilibria of players who do not see each other: small steps up from inverse temperature 0, roots by SciPy.

The branch is assumed to rise in the common factor of all inverse temperatures, as that of zero-sum games does, and that
of others does while they are nearly random.
"""

import numpy as np
from scipy.optimize import root


def softmax(prior, x):
    weights = prior * np.exp(x - x.max())
    return weights / weights.sum()


def others(w, q, i):
    """W averaged over everybody but player i."""
    for axis in reversed(range(len(q))):
        if axis != i:
            w = np.moveaxis(w, axis, -1) @ q[axis]
    return w


def replies(w, priors, taus, q):
    return [softmax(prior, tau * others(w, q, i)) for i, (prior, tau) in enumerate(zip(priors, taus, strict=True))]


def logit_equilibrium(w, priors, taus, steps=400):
    """The policies (one an axis of w) at the end of the path from the priors."""
    sizes = np.cumsum([len(prior) for prior in priors])[:-1]

    def error(x, scale):
        own = np.split(x, sizes)
        q = [softmax(prior, each) for prior, each in zip(priors, own, strict=True)]
        return np.concatenate(
            [each - scale * tau * others(w, q, i) for i, (each, tau) in enumerate(zip(own, taus, strict=True))]
        )

    x = np.zeros(sum(len(prior) for prior in priors))
    for scale in np.linspace(0, 1, steps + 1)[1:]:
        found = root(error, x, args=(scale,), tol=1e-13)
        assert np.abs(error(found.x, scale)).max() < 1e-8, "the path was lost"
        x = found.x
    return [softmax(prior, each) for prior, each in zip(priors, np.split(x, sizes), strict=True)]


def value(w, priors, taus, q):
    """E W minus every player's KL from its prior, divided by its inverse temperature."""
    total = w
    for axis in reversed(range(len(q))):
        total = total @ q[axis]
    return total - sum(
        np.sum(own * np.log(own / prior)) / tau for own, prior, tau in zip(q, priors, taus, strict=True) if tau
    )


def backward(reward, transition, priors, taus, horizon, discount):
    """V (T + 1, S) and both players' policies (T, S, K) of a two-player game, state by state."""
    states = reward.shape[0]
    v = np.zeros((horizon + 1, states))
    q = [np.zeros((horizon, states, prior.shape[-1])) for prior in priors]
    for t in reversed(range(horizon)):
        for s in range(states):
            w = reward[s] + discount * transition[s] @ v[t + 1]
            here = [prior[s] for prior in priors]
            found = logit_equilibrium(w, here, taus)
            q[0][t, s], q[1][t, s] = found
            v[t, s] = value(w, here, taus, found)
    return v, q


def favoured_convention(n, edge, tau):
    """What both players do on the principal branch when they choose one of n conventions, the first worth 1 + edge.

    The others are alike, so a policy is (p, r, ..., r), and with y = log(p / r) the branch is the curve

        lambda(y) = y / (tau ((1 + edge) p - r))

    whose point of lambda 1 nearest to y = 0 on the favoured side is the first on the way from lambda = 0.
    """

    def policy(y):
        return np.stack([np.exp(y), np.ones_like(y)]) / (np.exp(y) + n - 1)

    def above(y):
        p, r = policy(y)
        return y - tau * ((1 + edge) * p - r)

    # From tiny to far beyond the best reply, evenly in its logarithm.
    grid = np.sign(edge) * np.geomspace(1e-16, 3 * tau * (1 + abs(edge)) + 1, 200_000)
    inside = np.sign(above(grid)) != np.sign(above(grid[:1]))
    low, high = grid[inside.argmax() - 1], grid[inside.argmax()]
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.sign(above(middle)) == np.sign(above(low)) else (low, middle)
    p, r = policy(low)
    return np.array([p, *[r] * (n - 1)])
