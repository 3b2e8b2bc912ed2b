"""Mountain Hike in plain NumPy: rewards of many positions, and roll-outs of a policy that knows where it is."""

import numpy as np

RIDGES = [  # weight, mean, standard deviations
    (1.0, (0.5, 0.5), (0.75, 0.1)),
    (0.8, (0.0, 0.2), (0.1, 0.75)),
    (0.55, (-0.375, -0.5), (0.75, 0.1)),
]


def reward(points):
    """r of points of shape (..., 2)."""
    x, y = points[..., 0], points[..., 1]
    ridge = np.zeros(x.shape)
    for weight, (mx, my), (sx, sy) in RIDGES:
        along = np.exp(-((x - mx) ** 2) / (2 * sx**2)) / (np.sqrt(2 * np.pi) * sx)
        across = np.exp(-((y - my) ** 2) / (2 * sy**2)) / (np.sqrt(2 * np.pi) * sy)
        ridge = np.maximum(ridge, weight * along * across / 3)
    height = 4 * (1 - (1 - ridge) ** 4) - 4.5 + (x + y) / 4
    outside = (x < -1) | (x > 1) | (y < -1) | (y > 1)
    return np.where(outside, -6.0, height)


def shortened(actions):
    """Actions of shape (..., 2), none longer than .05."""
    length = np.linalg.norm(actions, axis=-1, keepdims=True)
    return np.where(length > 0.05, actions * 0.05 / np.maximum(length, 1e-300), actions)


def steps(rng, choose, count, horizon):
    """Positions, actions and rewards of `count` walkers, one step after the other; positions are those reached."""
    position = np.array([-0.85, -0.85]) + 0.1 * rng.normal(size=(count, 2))
    for _ in range(horizon):
        action = choose(position)
        position = position + shortened(action) + 0.025 * rng.normal(size=(count, 2))
        yield position, action, reward(position) - 0.1 * np.linalg.norm(action, axis=-1)


def returns(rng, choose, count, horizon=75):
    """Undiscounted returns, shape (count,)."""
    return sum(payoff for _, _, payoff in steps(rng, choose, count, horizon))
