"""One-dimensional nonlinear control with noise, by dense integration in plain NumPy."""

import numpy as np


def normal(x, mean, std):
    """Densities."""
    return np.exp(-0.5 * ((x - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))


def evidence(step, cost, horizon, mean, std, noise, action_std, limit=np.inf, reach=8.0, n=401, actions=201):
    """Log E exp(-cost) of x' = step(x, clip(u), t) + noise, u ~ N(0, action_std^2), on a grid over the state."""
    grid = np.linspace(mean - reach, mean + reach, n)
    width = grid[1] - grid[0]
    u = np.linspace(-6, 6, actions) * action_std
    weights = normal(u, 0, action_std) * (u[1] - u[0])
    applied = np.clip(u, -limit, limit)
    message = np.exp(-cost(grid, np.zeros_like(grid), horizon))
    for t in reversed(range(horizon)):
        reached = step(grid[:, None], applied[None], t)
        kernel = normal(grid[None, None], reached[..., None], noise) * width
        message = ((kernel @ message) * np.exp(-cost(grid[:, None], applied[None], t))) @ weights
    return np.log((normal(grid, mean, std) * width) @ message)
