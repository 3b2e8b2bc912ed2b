"""Linear-Gaussian control by Gaussian algebra over the whole trajectory at once, in plain NumPy.

A trajectory is the stacked vector z = (x_1, u_1, x_2, ..., u_T, x_{T+1}). Under affine policies and dynamics it is
Gaussian, its optimality is exp(tau r(z)) with r quadratic, and every answer is one dense Gaussian integral.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Problem:
    """A time-varying problem: shapes (T,n,n), (T,n,m), (T,n), (T,n,n), (T+1,n,n), (T,m,m), (T+1,n), (n,), (n,n)."""

    A: np.ndarray
    B: np.ndarray
    c: np.ndarray
    noise: np.ndarray
    state_reward: np.ndarray
    action_reward: np.ndarray
    goal: np.ndarray
    initial_mean: np.ndarray
    initial_cov: np.ndarray

    @property
    def shape(self):
        """T, n, m."""
        return self.B.shape

    def places(self):
        """Slices of the states and of the actions in the stacked trajectory, and its length."""
        steps, n, m = self.shape
        states = [slice(t * (n + m), t * (n + m) + n) for t in range(steps + 1)]
        actions = [slice(t * (n + m) + n, (t + 1) * (n + m)) for t in range(steps)]
        return states, actions, steps * (n + m) + n


def stacked(problem, gain, offset, cov):
    """Mean and covariance of z under an affine policy: z = G z + g + noise, so z = (I - G)^-1 (g + noise)."""
    states, actions, size = problem.places()
    linear, constant, noise = np.zeros((size, size)), np.zeros(size), np.zeros((size, size))
    constant[states[0]], noise[states[0], states[0]] = problem.initial_mean, problem.initial_cov
    for t, (x, u) in enumerate(zip(states[:-1], actions, strict=True)):
        following = states[t + 1]
        linear[u, x], constant[u], noise[u, u] = gain[t], offset[t], cov[t]
        linear[following, x], linear[following, u] = problem.A[t], problem.B[t]
        constant[following], noise[following, following] = problem.c[t], problem.noise[t]
    solve = np.linalg.inv(np.eye(size) - linear)
    return solve @ constant, solve @ noise @ solve.T


def reward(problem):
    """The total reward as z' R z + z' r + r0."""
    states, actions, size = problem.places()
    quadratic, linear, constant = np.zeros((size, size)), np.zeros(size), 0.0
    for x, m, z in zip(states, problem.state_reward, problem.goal, strict=True):
        quadratic[x, x] += m
        linear[x] += -2 * m @ z
        constant += z @ m @ z
    for u, h in zip(actions, problem.action_reward, strict=True):
        quadratic[u, u] += h
    return quadratic, linear, constant


def posterior(problem, prior, tau):
    """Mean and covariance of z given optimality, and the log evidence, all steps conditioned."""
    mean, cov = stacked(problem, *prior)
    quadratic, linear, constant = reward(problem)
    precision = np.linalg.inv(cov)
    after = precision - 2 * tau * quadratic
    shift = precision @ mean + tau * linear
    found = np.linalg.solve(after, shift)
    log_evidence = tau * constant + 0.5 * (shift @ found - mean @ precision @ mean)
    log_evidence += 0.5 * (np.linalg.slogdet(precision)[1] - np.linalg.slogdet(after)[1])
    return found, np.linalg.inv(after), log_evidence


def elbo(problem, prior, tau, policy):
    """E_q[reward] - KL(q || prior) / tau of an affine Gaussian policy, in units of reward."""
    mean, cov = stacked(problem, *policy)
    quadratic, linear, constant = reward(problem)
    total = constant + linear @ mean + mean @ quadratic @ mean + np.trace(quadratic @ cov)
    states, _, _ = problem.places()
    for t, x in enumerate(states[:-1]):
        gain, offset, prior_cov = (part[t] for part in prior)
        own_gain, own_offset, own_cov = (part[t] for part in policy)
        precision = np.linalg.inv(prior_cov)
        slope, apart = own_gain - gain, (own_gain - gain) @ mean[x] + own_offset - offset
        spread = np.trace(precision @ (slope @ cov[x, x] @ slope.T + own_cov)) - len(prior_cov)
        logs = np.linalg.slogdet(prior_cov)[1] - np.linalg.slogdet(own_cov)[1]
        total -= 0.5 * (apart @ precision @ apart + spread + logs) / tau
    return total


def soft_recursion(problem, prior, tau, conditioned=False):
    """Values (V, v, v0) and the policy of the backward recursion, by completing squares with explicit inverses."""
    steps, n, m = problem.shape
    matrix, vector, scalar = [None] * (steps + 1), [None] * (steps + 1), [None] * (steps + 1)
    policy = [], [], []
    last, goal = problem.state_reward[-1], problem.goal[-1]
    matrix[-1], vector[-1], scalar[-1] = last, -2 * last @ goal, goal @ last @ goal
    for t in reversed(range(steps)):
        ahead, noise = matrix[t + 1], problem.noise[t]
        effective, linear, constant = ahead, vector[t + 1], scalar[t + 1]
        if conditioned:
            shrink = np.linalg.inv(np.eye(n) - 2 * tau * ahead @ noise)
            effective, linear = shrink @ ahead, shrink @ vector[t + 1]
            constant += 0.5 * tau * vector[t + 1] @ noise @ linear
            constant -= np.linalg.slogdet(np.eye(n) - 2 * tau * ahead @ noise)[1] / (2 * tau)
        else:
            constant += np.trace(ahead @ noise)
        dynamics = np.hstack([problem.A[t], problem.B[t]])
        q = dynamics.T @ effective @ dynamics
        q_linear = dynamics.T @ (2 * effective @ problem.c[t] + linear)
        q_constant = constant + problem.c[t] @ effective @ problem.c[t] + linear @ problem.c[t]
        here, goal = problem.state_reward[t], problem.goal[t]
        q[:n, :n] += here
        q[n:, n:] += problem.action_reward[t]
        q_linear[:n] += -2 * here @ goal
        q_constant += goal @ here @ goal
        gain, offset, cov = (part[t] for part in prior)
        precision, apart = np.linalg.inv(cov), np.hstack([-gain, np.eye(m)])
        j = tau * q - 0.5 * apart.T @ precision @ apart
        j_linear = tau * q_linear + apart.T @ precision @ offset
        j_constant = tau * q_constant - 0.5 * offset @ precision @ offset - 0.5 * np.linalg.slogdet(2 * np.pi * cov)[1]
        inside = np.linalg.inv(j[n:, n:])
        matrix[t] = (j[:n, :n] - j[:n, n:] @ inside @ j[n:, :n]) / tau
        vector[t] = (j_linear[:n] - j[:n, n:] @ inside @ j_linear[n:]) / tau
        logs = 0.5 * (m * np.log(np.pi) - np.linalg.slogdet(-j[n:, n:])[1])
        scalar[t] = (j_constant - 0.25 * j_linear[n:] @ inside @ j_linear[n:] + logs) / tau
        for part, value in zip(policy, (-inside @ j[n:, :n], -0.5 * inside @ j_linear[n:], -0.5 * inside), strict=True):
            part.insert(0, value)
    return (np.array(matrix), np.array(vector), np.array(scalar)), tuple(np.array(part) for part in policy)
