"""Partially observed processes in plain NumPy: all hidden paths, all histories, all populations of two particles.

    s_1 ~ p_0,    s_{t+1} ~ P(. | s_t, a_t),    o_{t+1} ~ U(. | s_{t+1}, a_t),    reward r(s_t, a_t)

Nothing here moves a belief by the rule of Bayes step by step where it is about beliefs: they are read off lists of
paths. Values are in units of reward, and a policy pays KL / beta.
"""

import itertools
from typing import NamedTuple

import numpy as np


class Task(NamedTuple):
    """The tables P(s' | s, a), r(s, a), U(o | s', a), p_0, and the discount."""

    transition: np.ndarray
    reward: np.ndarray
    observation: np.ndarray
    initial: np.ndarray
    discount: float = 1.0


def paths(task, actions, observations):
    """Every hidden path s_0..T with its probability together with what was observed."""
    horizon, states = len(actions), len(task.initial)
    for path in itertools.product(range(states), repeat=horizon + 1):
        mass = task.initial[path[0]]
        for t in range(horizon):
            a, o = actions[t], observations[t]
            mass = mass * task.transition[path[t], a, path[t + 1]] * task.observation[path[t + 1], a, o]
        yield path, mass


def likelihood(task, actions, observations):
    """p(o_1..T | a_0..T-1)."""
    return sum(mass for _, mass in paths(task, actions, observations))


def filtered(task, actions, observations):
    """p(s_t | o_1..t), (T + 1, S)."""
    found = np.zeros((len(actions) + 1, len(task.initial)))
    for t in range(len(actions) + 1):
        for path, mass in paths(task, actions[:t], observations[:t]):
            found[t, path[-1]] += mass
    return found / found.sum(1, keepdims=True)


def smoothed(task, actions, observations):
    """p(s_t | o_1..T), (T + 1, S)."""
    found = np.zeros((len(actions) + 1, len(task.initial)))
    for path, mass in paths(task, actions, observations):
        found[np.arange(len(path)), list(path)] += mass
    return found / found.sum(1, keepdims=True)


def soft_maximum(prior, q, beta):
    """(1 / beta) log sum_a p exp(beta q)."""
    prior, q = np.asarray(prior), np.asarray(q)
    if beta == 0:
        return q @ prior
    best = q[..., prior > 0].max(-1)
    if np.isinf(beta):
        return best
    return best + np.log(np.exp(beta * np.where(prior > 0, q - best[..., None], 0.0)) @ prior) / beta


def price(policy, prior, beta):
    """KL(policy || prior) / beta."""
    if beta == 0 or np.isinf(beta):
        return 0.0
    used = policy > 0
    return np.sum(policy[used] * np.log(policy[used] / prior[used])) / beta


def followed(task, joint, a):
    """For each observation the joint with the state, p(s', o, history so far | actions): (S, O)."""
    return np.einsum("s,sn,no->no", joint, task.transition[:, a], task.observation[:, a])


def soft_value(task, horizon, beta, prior=None, joint=None):
    """What the best policy of the whole history is worth, by recursion over all histories."""
    actions = task.reward.shape[1]
    prior = np.full(actions, 1 / actions) if prior is None else prior
    joint = task.initial if joint is None else joint
    if horizon == 0:
        return 0.0
    total, q = joint.sum(), np.zeros(actions)
    for a in range(actions):
        q[a] = joint @ task.reward[:, a] / total
        for after in followed(task, joint, a).T:
            if after.sum() > 0:
                later = soft_value(task, horizon - 1, beta, prior, after)
                q[a] += task.discount * after.sum() / total * later
    return soft_maximum(prior, q, beta)


def policy_value(task, horizon, beta, policy, prior=None, joint=None, t=0):
    """The ELBO of a policy (belief, t) -> probabilities, over all histories, and its expected return."""
    actions = task.reward.shape[1]
    prior = np.full(actions, 1 / actions) if prior is None else prior
    joint = task.initial if joint is None else joint
    if t == horizon:
        return np.zeros(2)
    total = joint.sum()
    pi = np.asarray(policy(joint / total, t))
    found = np.array([-price(pi, prior, beta), 0.0])
    for a in np.flatnonzero(pi > 0):
        found = found + pi[a] * (joint @ task.reward[:, a]) / total
        for after in followed(task, joint, a).T:
            if after.sum() > 0:
                later = policy_value(task, horizon, beta, policy, prior, after, t + 1)
                found = found + pi[a] * task.discount * after.sum() / total * later
    return found


def memoryless_value(task, beta, policy, prior=None):
    """The ELBO of a policy of what was seen last, (T, O + 1, A); before anything is, that is the last row."""
    memory = np.ones((len(policy), 1, policy.shape[1], 1))
    return memory_value(task, beta, beta, policy[:, :, None], memory, prior)


def memory_value(task, beta, memory_beta, policy, memory, prior=None):
    """The ELBO of a controller by a list of all its trajectories.

    Args:
        task: the process.
        beta: inverse temperature of actions.
        memory_beta: that of memories, whose prior is uniform.
        policy: pi(a | o, m), (T, O + 1, M, A).
        memory: p(m | m before, o), (T, M, O + 1, M); the first m before is 0.
        prior: p(a).
    """
    horizon, nothing, memories, actions = policy.shape
    prior = np.full(actions, 1 / actions) if prior is None else prior
    uniform, states = np.full(memories, 1 / memories), len(task.initial)
    alive = [(task.initial[s], s, nothing - 1, 0) for s in range(states)]
    total = 0.0
    for t in range(horizon):
        after = []
        for mass, s, o, m_prev in alive:
            total -= task.discount**t * mass * price(memory[t, m_prev, o], uniform, memory_beta)
            for m in range(memories):
                chosen = mass * memory[t, m_prev, o, m]
                total -= task.discount**t * chosen * price(policy[t, o, m], prior, beta)
                for a in range(actions):
                    acted = chosen * policy[t, o, m, a]
                    total += task.discount**t * acted * task.reward[s, a]
                    for n, seen in itertools.product(range(states), range(nothing - 1)):
                        more = acted * task.transition[s, a, n] * task.observation[n, a, seen]
                        if more > 0:
                            after.append((more, n, seen, m))
        alive = after
    return total


def tiger():
    """Tiger (Kaelbling, Littman & Cassandra 1998), without discount: listen, open left, open right; it hears 85 %."""
    transition = np.zeros((2, 3, 2))
    transition[:, 0], transition[:, 1:] = np.eye(2), 0.5
    observation = np.full((2, 3, 2), 0.5)
    observation[:, 0] = [[0.85, 0.15], [0.15, 0.85]]
    return Task(transition, np.array([[-1.0, -100, 10], [-1, 10, -100]]), observation, np.full(2, 0.5))


def tiger_value(horizon, discount, beta):
    """The soft value of tiger on its lattice: the log odds are a whole number of steps log .85 / .15."""
    k = np.arange(-horizon - 1, horizon + 2)
    right = np.exp(-np.logaddexp(0.0, k * np.log(0.15 / 0.85)))
    heard, middle = right * 0.85 + (1 - right) * 0.15, horizon + 1
    value = np.zeros(len(k))
    for _ in range(horizon):
        up, down = np.append(value[1:], value[-1]), np.insert(value[:-1], 0, value[0])
        listen = -1 + discount * (heard * up + (1 - heard) * down)
        opened = [discount * value[middle] - 100 * p + 10 * (1 - p) for p in (1 - right, right)]
        value = soft_maximum(np.full(3, 1 / 3), np.stack([listen, *opened], -1), beta)
    return value[middle]


def multinomial(weights):
    """All ancestors of as many children as there are particles, drawn independently, and their probabilities."""
    for ancestors in itertools.product(range(len(weights)), repeat=len(weights)):
        yield ancestors, np.prod(weights[list(ancestors)])


def systematic(weights):
    """The same for one uniform u for all children: constant between the u at which a child changes its ancestor."""
    n, cumulated = len(weights), np.cumsum(weights)
    breaks = np.unique(np.concatenate([[0.0, 1.0], np.mod(n * cumulated, 1.0)]))
    for low, high in itertools.pairwise(breaks):
        points = ((low + high) / 2 + np.arange(n)) / n
        yield tuple(np.minimum(np.searchsorted(cumulated, points), n - 1)), high - low


class Moments(NamedTuple):
    """Of the estimate p_hat of a bootstrap filter."""

    mean: float
    second: float
    mean_log: float


def bootstrap_moments(task, actions, observations, count, resampling=multinomial, first=False):
    """The exact moments of p_hat = prod_t mean_k w_k, over all populations of particles.

    Args:
        task: the process.
        actions: taken.
        observations: made after each.
        count: the number of particles; populations are lists of as many states.
        resampling: weights -> pairs of ancestors and their probability; before every step but the first one.
        first: whether ancestors are drawn before the first step, too, from equal weights.
    """
    states = range(len(task.initial))
    populations = list(itertools.product(states, repeat=count))
    # For each population the sums over its histories of probability, and of that times p_hat, its square and its log.
    law = {x: np.prod(task.initial[list(x)]) * np.array([1.0, 1, 1, 0]) for x in populations}
    weights = {x: np.full(count, 1 / count) for x in populations}
    for t, (a, o) in enumerate(zip(actions, observations, strict=True)):
        moved = {x: np.zeros(4) for x in populations}
        for x, sums in law.items():
            drawn = resampling(weights[x]) if t or first else [(tuple(range(count)), 1.0)]
            for ancestors, chance in drawn:
                rows = task.transition[[x[i] for i in ancestors], a]
                for y in populations:
                    moved[y] = moved[y] + chance * np.prod(rows[np.arange(count), list(y)]) * sums
        law = {}
        for y, (mass, mean, second, log) in moved.items():
            likely = task.observation[list(y), a, o]
            w = likely.mean()
            weights[y] = likely / likely.sum() if w > 0 else np.full(count, 1 / count)
            law[y] = np.array([mass, mean * w, second * w**2, log + mass * np.log(w)])
    return Moments(*np.sum(list(law.values()), 0)[1:])
