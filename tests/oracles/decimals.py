"""Linear-Gaussian control with 60 digits: the backward recursion on matrices of `decimal.Decimal`.

What double precision loses where priors are wide, goals are far and costs are large is kept here, so the algebra may
be the plainest there is: complete the square in each vector, with explicit inverses.
"""

from decimal import Decimal, localcontext
from functools import wraps

import numpy as np

DIGITS = 60


def precise(function):
    """Run a function with many digits; floats come in exactly, results leave as float64."""

    @wraps(function)
    def inner(*args, **kwargs):
        with localcontext() as context:
            context.prec = DIGITS
            found = function(*map(exact, args), **{name: exact(x) for name, x in kwargs.items()})
            return rounded(found)

    return inner


def exact(x):
    """Numbers as decimals, without rounding."""
    if isinstance(x, dict):
        return {name: exact(each) for name, each in x.items()}
    if isinstance(x, tuple | list):
        return [exact(each) for each in x]
    if isinstance(x, bool | str) or x is None:
        return x
    array = np.asarray(x, float)
    out = np.empty(array.shape, object)
    for i in np.ndindex(array.shape):
        out[i] = Decimal(float(array[i]))
    return out[()] if array.ndim == 0 else out


def rounded(x):
    """Decimals as float64."""
    if isinstance(x, dict):
        return {name: rounded(each) for name, each in x.items()}
    if isinstance(x, tuple | list):
        return tuple(rounded(each) for each in x)
    return np.asarray(x).astype(float)


def inverse(matrix):
    """The inverse and the determinant, by elimination with the largest pivots."""
    n = len(matrix)
    rows, det = np.concatenate([matrix, eye(n)], 1), Decimal(1)
    for k in range(n):
        pivot = max(range(k, n), key=lambda i: abs(rows[i, k]))
        if pivot != k:
            rows[[k, pivot]], det = rows[[pivot, k]], -det
        det *= rows[k, k]
        rows[k] = rows[k] / rows[k, k]
        for i in range(n):
            if i != k:
                rows[i] = rows[i] - rows[i, k] * rows[k]
    return rows[:, n:], det


def eye(n):
    """The identity."""
    return np.array([[Decimal(int(i == j)) for j in range(n)] for i in range(n)], object).reshape(n, n)


def log_mean(w, root, tau):
    """(1 / tau) log E exp(tau W) over e ~ N(0, I) in w of (e, z, 1), and e's map of (z, 1) to its mean, and its cov."""
    r = root.shape[1]
    g = eye(r) - 2 * tau * w[:r, :r]
    inside, det = inverse(g)
    moved = 2 * tau * inside @ w[:r, r:]
    value = w[r:, r:] + 2 * tau * w[:r, r:].T @ inside @ w[:r, r:]
    value[-1, -1] -= det.ln() / (2 * tau)
    return value, moved, inside


def substituted(w, first, size, mean, root):
    """W of (.., x, .., 1) with x = mean (others, 1) + root e: a matrix over (e, others, 1)."""
    others = [i for i in range(len(w)) if not first <= i < first + size]
    place = np.empty((len(w), root.shape[1] + len(others)), object)
    place[...] = Decimal(0)
    for k, i in enumerate(others):
        place[i, root.shape[1] + k] = Decimal(1)
    place[first : first + size] = np.concatenate([root, mean], 1)
    return place.T @ w @ place


@precise
def control(A, B, c, noise_root, state_reward, action_reward, goal, mean, root, gain, offset, prior_root, tau, steps,
            conditioned):  # fmt: skip
    """Solve (or condition) x' = A x + B u + c + noise_root e with reward (x - goal)' M (x - goal) + u' H u, T steps.

    The prior is u = gain x + offset + prior_root e, the first state mean + root e; M is that of the last state, too, or
    a list with one for each time; `goal` may be a list as well.

    Returns:
        The total, in units of reward; gain, offset and covariance of the policy at each time; and at each time, the
        last one too, V as a matrix over (x, 1).
    """
    n, m, steps = len(A), B.shape[1], int(steps)
    at = lambda x, t: x[t] if isinstance(x, list) else x  # noqa: E731

    def reward(t):
        bordered = np.concatenate([eye(n), -at(goal, t)[:, None]], 1)
        return bordered.T @ at(state_reward, t) @ bordered

    v, policies = reward(steps), []
    values = [v]
    for t in reversed(range(steps)):
        # W over (x', x, u, 1), then over (e, x, u, 1)
        w = np.empty((2 * n + m + 1, 2 * n + m + 1), object)
        w[...] = Decimal(0)
        ends = [*range(n), 2 * n + m]
        w[np.ix_(ends, ends)] = v
        moves = np.concatenate([A, B, c[:, None]], 1)
        w = averaged(substituted(w, 0, n, moves, noise_root), noise_root, tau, conditioned)
        here = [*range(n), n + m]
        w[np.ix_(here, here)] += reward(t)
        w[n : n + m, n : n + m] += action_reward
        prior = np.concatenate([gain, offset[:, None]], 1)
        v, moved, inside = log_mean(substituted(w, n, m, prior, prior_root), prior_root, tau)
        values.insert(0, v)
        found = prior + prior_root @ moved
        policies.insert(0, (found[:, :n], found[:, n], prior_root @ inside @ prior_root.T))
    total = averaged(substituted(v, 0, n, mean[:, None], root), root, tau, conditioned)[0, 0]
    gains, offsets, covs = zip(*policies, strict=True)
    return total, np.array(gains), np.array(offsets), np.array(covs), np.array(values)


def averaged(w, root, tau, conditioned):
    """W without its noise e: the mean, or the mean in the exponent."""
    r = root.shape[1]
    if conditioned:
        return log_mean(w, root, tau)[0]
    value = w[r:, r:]
    value[-1, -1] += sum(w[i, i] for i in range(r))
    return value
