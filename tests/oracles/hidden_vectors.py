"""Hidden vectors in plain NumPy: Kalman's filter as textbooks have it, LQG in the real system, and hikes in fog.

The real system and its filter are one linear system of (x, m): with u = K m + k + noise and the filter's gain L,

    x' = A x + B u + c + w,      m' = a + L (C x' + v - C a),      a = A m + B u + c

so that means and covariances of (x, m, u) are known at each time, and the expected reward with them, of x itself.
"""

import numpy as np

from oracles import mountain_hike


def kalman(problem, observation, observation_noise):
    """Gains (T, n, p), covariances of what was not foreseen (T, p, p) and of the state (T + 1, n, n)."""
    gains, unforeseen, covs = [], [], [problem.initial_cov]
    for A, W, C, R in zip(problem.A, problem.noise, observation, observation_noise, strict=True):
        ahead = A @ covs[-1] @ A.T + W
        spread = C @ ahead @ C.T + R
        gain = ahead @ C.T @ np.linalg.pinv(spread, rcond=1e-12, hermitian=True)
        gains.append(gain)
        unforeseen.append(spread)
        covs.append(ahead - gain @ spread @ gain.T)
    return np.array(gains), np.array(unforeseen), np.array(covs)


def elbo(problem, observation, observation_noise, prior, policy, tau, discount=1.0):
    """E reward of x and u less KL / tau, of u ~ N(K m + k, S) on the filtered mean."""
    gains, _, _ = kalman(problem, observation, observation_noise)
    steps, n, _ = problem.shape
    mean = np.concatenate([problem.initial_mean] * 2)
    cov = np.zeros((2 * n, 2 * n))
    cov[:n, :n] = problem.initial_cov
    total = 0.0
    for t in range(steps + 1):
        here, x = discount**t, slice(n)
        apart = mean[x] - problem.goal[t]
        M = problem.state_reward[t]
        total += here * (apart @ M @ apart + np.trace(M @ cov[x, x]))
        if t == steps:
            return total
        K, k, S = (part[t] for part in policy)
        m, P = mean[n:], cov[n:, n:]
        u, spread = K @ m + k, K @ P @ K.T + S
        H = problem.action_reward[t]
        total += here * (u @ H @ u + np.trace(H @ spread) - divergence(policy, prior, t, m, P) / tau)
        # (x, m)' = F (x, m) + B (k + noise) + c + what w and v add
        A, B, C, L = problem.A[t], problem.B[t], observation[t], gains[t]
        seen = L @ C
        follow = np.block([[A, B @ K], [seen @ A, A - seen @ A + B @ K]])
        acts, moves = np.vstack([B, B]), np.vstack([np.eye(n), seen])
        mean = follow @ mean + acts @ k + np.tile(problem.c[t], 2)
        cov = follow @ cov @ follow.T + acts @ S @ acts.T + moves @ problem.noise[t] @ moves.T
        cov[n:, n:] += L @ observation_noise[t] @ L.T


def divergence(policy, prior, t, mean, cov):
    """E KL of N(K m + k, S) from the prior, over m ~ N(mean, cov)."""
    (K, k, S), (K0, k0, S0) = (tuple(part[t] for part in law) for law in (policy, prior))
    precision, apart = np.linalg.inv(S0), (K - K0) @ mean + k - k0
    spread = (K - K0) @ cov @ (K - K0).T + S
    logs = np.linalg.slogdet(S0)[1] - np.linalg.slogdet(S)[1]
    return 0.5 * (apart @ precision @ apart + np.trace(precision @ spread) - len(S) + logs)


def returns(rng, problem, observation, observation_noise, policy, count):
    """Returns of the real system, (count,): what is seen is drawn from the real state, and filtered."""
    gains, _, _ = kalman(problem, observation, observation_noise)
    draw = lambda cov: rng.normal(size=(count, len(cov))) @ root(cov).T  # noqa: E731
    x = problem.initial_mean + draw(problem.initial_cov)
    m, total = np.tile(problem.initial_mean, (count, 1)), np.zeros(count)
    for t in range(problem.shape[0]):
        K, k, S = (part[t] for part in policy)
        u = m @ K.T + k + draw(S)
        total += quadratic(x - problem.goal[t], problem.state_reward[t]) + quadratic(u, problem.action_reward[t])
        moved = u @ problem.B[t].T + problem.c[t]
        x = x @ problem.A[t].T + moved + draw(problem.noise[t])
        y = x @ observation[t].T + draw(observation_noise[t])
        ahead = m @ problem.A[t].T + moved
        m = ahead + (y - ahead @ observation[t].T) @ gains[t].T
    return total + quadratic(x - problem.goal[-1], problem.state_reward[-1])


def root(cov):
    """A root of a covariance that may be singular."""
    values, vectors = np.linalg.eigh(cov)
    return vectors * np.sqrt(np.maximum(values, 0.0))


def quadratic(rows, matrix):
    """x' M x of each row."""
    return np.einsum("ni,ij,nj->n", rows, matrix, rows)


def hikes(rng, choose, observation_std, count, horizon=75, filtered=True):
    """Undiscounted returns (count,) of a policy of the filtered mean, or of what was seen last, at first the mean."""
    position = np.array([-0.85, -0.85]) + 0.1 * rng.normal(size=(count, 2))
    known, variance, total = np.full((count, 2), -0.85), 0.1**2, np.zeros(count)
    for _ in range(horizon):
        action = choose(known)
        step = mountain_hike.shortened(action)
        position = position + step + 0.025 * rng.normal(size=(count, 2))
        total += mountain_hike.reward(position) - 0.1 * np.linalg.norm(action, axis=-1)
        seen = position + observation_std * rng.normal(size=(count, 2))
        ahead = variance + 0.025**2
        precision = 1 / ahead + 1 / observation_std**2
        variance = 1 / precision
        known = variance * ((known + step) / ahead + seen / observation_std**2) if filtered else seen
    return total
