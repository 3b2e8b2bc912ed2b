"""Nonlinear systems in plain NumPy: one dimension by integration on a grid, more by weighted trajectories.

A system is a triple of functions of NumPy arrays: step(x, u, t) -> the mean of the next state, cost(x, u, t), and
final(x) -> the last cost, with limits inside. Everything is in nats: costs are multiplied by the inverse temperature.
"""

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import logsumexp
from scipy.stats import norm


def moments(integrand, points, spread, conditioned):
    """The expectation of a function of x + spread e, or the log of that of its exponential, at each point."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    values = integrand(points[..., None] + spread * nodes)
    return logsumexp(values, -1, b=weights) if conditioned else values @ weights


def backward(system, noise, horizon, tau, grid, message):
    """Messages from the last time to the first: message(t, x, reward-to-go as a function of x and u) -> values."""
    step, cost, final = system
    value = CubicSpline(grid, -tau * final(grid))
    values = [value]
    for t in reversed(range(horizon)):
        after = values[0]
        # What is reached is smooth in its mean, whatever kinks the step has.
        reached = CubicSpline(grid, message.average(after, grid, np.sqrt(noise)))

        def worth(x, u, t=t, reached=reached):
            return -tau * cost(x, u, t) + reached(step(x, u, t))

        values.insert(0, CubicSpline(grid, message.decide(grid, worth, t)))
    return values


class Optimal:
    """Messages of the best policy, or of the posterior given optimality, with a prior N(gain x + offset, var)."""

    def __init__(self, prior, conditioned, actions):
        self.prior, self.conditioned, self.actions = prior, conditioned, actions

    def average(self, value, points, spread):
        return moments(value, points, spread, self.conditioned)

    def decide(self, x, worth, t):
        gain, offset, var = (part[t] for part in self.prior)
        u = (gain * x + offset)[:, None] + np.sqrt(var) * self.actions[None]
        weights = norm.pdf(self.actions) * np.gradient(self.actions)
        return logsumexp(worth(x[:, None], u), -1, b=weights[None])


class Followed(Optimal):
    """Messages of a Gaussian policy that pays its KL from the prior."""

    def __init__(self, prior, policy, actions):
        super().__init__(prior, False, actions)
        self.policy = policy

    def decide(self, x, worth, t):
        (gain, offset, var), (own_gain, own_offset, own_var) = (
            [p[t] for p in law] for law in (self.prior, self.policy)
        )
        mean = own_gain * x + own_offset
        u = mean[:, None] + np.sqrt(own_var) * self.actions[None]
        weights = norm.pdf(self.actions) * np.gradient(self.actions)
        apart = mean - gain * x - offset
        kl = 0.5 * (own_var / var + apart**2 / var - 1 - np.log(own_var / var))
        return worth(x[:, None], u) @ weights - kl


def at_first(value, mean, cov, message):
    """What the first state makes of a value."""
    return float(message.average(value, np.array([mean]), np.sqrt(cov))[0])


def log_weights(rng, system, first, noise_root, prior, horizon, tau, n):
    """The log weights of n trajectories under the prior, whose mean weight is the evidence."""
    step, cost, final = system
    (mean, root), (gain, offset, var) = first, prior
    x, total = mean + rng.normal(size=(n, len(mean))) @ root.T, np.zeros(n)
    for t in range(horizon):
        u = x @ gain[t].T + offset[t] + rng.normal(size=(n, len(offset[t]))) @ np.linalg.cholesky(var[t]).T
        total -= tau * cost(x, u, t)
        x = step(x, u, t) + rng.normal(size=x.shape) @ noise_root.T
    return total - tau * final(x)


def pendulum(h=0.05, limit=10.0):
    """A rod of 1 kg and 1 m, its angle from the upright and its speed: one Runge-Kutta step of h seconds."""

    def rate(x, u):
        pull = 9.81 * 0.5 * np.sin(x[..., 0])
        return np.stack([x[..., 1], (u - 1e-3 * x[..., 1] + pull) / (0.25 + 1 / 12)], -1)

    def step(x, u, t):
        push = np.clip(u[..., 0], -limit, limit)
        a = rate(x, push)
        b = rate(x + h / 2 * a, push)
        c = rate(x + h / 2 * b, push)
        return x + h / 6 * (a + 2 * b + 2 * c + rate(x + h * c, push))

    return step
