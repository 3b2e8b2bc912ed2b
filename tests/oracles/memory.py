"""Noisy memories in plain NumPy: choices by sums over a fine grid of the noise, values by plain iteration."""

import itertools

import numpy as np

WIDTH = 8.3


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def entropy(p):
    return -np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0), -1)


def noisy_choice(mean, std, points):
    """Mean softmax (K,) of mean + std z, and its mean entropy, on a product grid; good where std is not large."""
    z = np.linspace(-WIDTH, WIDTH, points)
    weight = np.exp(-0.5 * z**2)
    weight = weight / weight.sum()
    policy, mixed = np.zeros(len(mean)), 0.0
    for place in itertools.product(range(points), repeat=len(mean) - 1):
        # The last coordinate is a vector.
        ahead = np.tile(mean[:-1] + std[:-1] * z[list(place)], (points, 1))
        p = softmax(np.concatenate([ahead, (mean[-1] + std[-1] * z)[:, None]], 1))
        w = np.prod(weight[list(place)]) * weight
        policy, mixed = policy + w @ p, mixed + w @ entropy(p)
    return policy, mixed


def noisy_pair(mean, std, points=400_001):
    """The same of two alternatives, for any std: the gap alone matters."""
    z = np.linspace(-WIDTH, WIDTH, points)
    weight = np.exp(-0.5 * z**2)
    weight = weight / weight.sum()
    gap = mean[0] - mean[1] + np.hypot(*std) * z
    p = softmax(np.stack([gap, np.zeros_like(gap)], -1))
    return weight @ p, weight @ entropy(p)


def drawn_choice(rng, mean, std, draws):
    """The same by draws, with the standard errors of both."""
    p = softmax(mean + std * rng.normal(size=(draws, len(mean))))
    h = entropy(p)
    return (p.mean(0), h.mean()), (p.std(0) / draws**0.5, h.std() / draws**0.5)


def tables(mean, std, beta, points=201):
    """Policy (S, 2) and mean entropy (S,) of a memory of two actions, where beta times std is not large."""
    z = np.linspace(-WIDTH, WIDTH, points)
    weight = np.exp(-0.5 * z**2)
    weight = weight / weight.sum()
    gap = beta * (mean[:, :1] - mean[:, 1:] + np.sqrt((std**2).sum(1, keepdims=True)) * z)
    p = 1 / (1 + np.exp(-gap))
    mixed = np.logaddexp(0, -gap) * p + np.logaddexp(0, gap) * (1 - p)
    return np.stack([p @ weight, 1 - p @ weight], -1), mixed @ weight


def cost(std, base_std):
    """Nats of each state's memories, (S,)."""
    return (np.log(base_std / std) + 0.5 * (std / base_std) ** 2 - 0.5).sum(-1)


def tied(transition, reward, std, beta, discount, rounds=2000):
    """The values of the noisy policy itself, by plain iteration: q <- r + discount P sum_a pi(q) q."""
    q = reward.astype(float)
    for _ in range(rounds):
        following = reward + discount * transition @ (tables(q, std, beta)[0] * q).sum(-1)
        if np.abs(following - q).max() < 1e-13:
            break
        q = following
    return following


def tied_in_time(transition, reward, std, beta, discount):
    """The same for a std at each time, backwards."""
    value, found = np.zeros(len(reward)), []
    for spread in std[::-1]:
        q = reward + discount * transition @ value
        value = (tables(q, spread, beta)[0] * q).sum(-1)
        found.append(q)
    return np.stack(found[::-1])


def objective(first, transition, reward, policy, pays, discount):
    """E sum_t discount^t (r + pays(s)) over the times of policy (T, S, A), with pays (T, S)."""
    value = np.zeros(len(first))
    for p, more in zip(policy[::-1], pays[::-1], strict=True):
        value = (p * (reward + discount * transition @ value)).sum(-1) + more
    return first @ value
