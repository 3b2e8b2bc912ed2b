"""Learners trial by trial, as loops: the log probability of each choice, and what was learned before it."""

import itertools

import numpy as np
from scipy.special import log_softmax, logsumexp


def delta_rule(rate, beta, choices, worth, first):
    """Rescorla & Wagner: log probabilities of choices (T,), values before them (T, A), prediction errors (T,)."""
    value, terms, values, errors = np.array(first, float), [], [], []
    for c, r in zip(choices, worth, strict=True):
        terms.append(log_softmax(beta * value)[c])
        values.append(value.copy())
        errors.append(r - value[c])
        value[c] += rate * errors[-1]
    return np.array(terms), np.array(values), np.array(errors)


def two_step(rate, beta, pi, w, p, firsts, states, seconds, rewards):
    """`ts_par4`, in its own numbering of second choices 0 to 3: log probabilities of both choices, and both errors.

    Returns:
        Log probabilities (T, 2), prediction errors (T, 2): of the second choice's value, and of the reward.
    """
    model_free, second_stage, last, terms, errors = np.zeros(2), np.zeros(4), None, [], []
    for c, s, d, r in zip(firsts, states, seconds, rewards, strict=True):
        best = [max(second_stage[0], second_stage[1]), max(second_stage[2], second_stage[3])]
        model_based = np.array([p * best[0] + (1 - p) * best[1], (1 - p) * best[0] + p * best[1]])
        value = w * model_based + (1 - w) * model_free
        ahead = beta * (value[1] - value[0]) + (0 if last is None else pi * (2 * last - 1))
        first_term = -np.log1p(np.exp(-ahead if c else ahead))
        ahead = beta * (second_stage[2 * s + 1] - second_stage[2 * s])
        terms.append([first_term, -np.log1p(np.exp(-ahead if d else ahead))])
        place = 2 * s + d
        errors.append([second_stage[place] - model_free[c], r - second_stage[place]])
        model_free[c] += rate * (second_stage[place] - model_free[c])
        second_stage[place] += rate * (r - second_stage[place])
        model_free[c] += rate * (r - second_stage[place])
        last = c
    return np.array(terms), np.array(errors)


def lapsing(rate, beta, stays, choices, worth):
    """A delta rule of two arms that is followed in one mood and not in another, which nobody sees: log p of choices.

    Args:
        rate, beta: of the delta rule.
        stays: the probability that the mood (0: follows values, 1: anything) stays, (2,); it begins as 0.
        choices, worth: (T,).
    """
    follows = np.exp(delta_rule(rate, beta, choices, worth, np.zeros(2))[0])
    paths = itertools.product(range(2), repeat=len(choices) - 1)
    totals = []
    for path in paths:
        moods, total = (0, *path), 0.0
        for t, mood in enumerate(moods):
            total += np.log(0.5 if mood else follows[t])
            if t:
                before = moods[t - 1]
                total += np.log(stays[before] if mood == before else 1 - stays[before])
        totals.append(total)
    return logsumexp(totals)


def forgetful(rate, beta, noise, choices, worth, nodes=24):
    """A delta rule of two arms whose memory of the chosen arm is noisy: log p of choices, by Gauss-Hermite nodes.

    After each trial the value of the arm that was chosen moves by a normal number of deviation `noise`.
    """
    places, weights = np.polynomial.hermite_e.hermegauss(nodes)
    weights = weights / weights.sum()
    total = 0.0
    for which in itertools.product(range(nodes), repeat=len(choices) - 1):
        value, p = np.zeros(2), 1.0
        for t, (c, r) in enumerate(zip(choices, worth, strict=True)):
            p *= np.exp(log_softmax(beta * value)[c])
            if t < len(which):
                value[c] += rate * (r - value[c]) + noise * places[which[t]]
                p *= weights[which[t]]
        total += p
    return np.log(total)


def counting(choices, states, after, rewards, beta, steps, num_actions, start=1.0):
    """Learns transitions from counts and plans `steps` ahead in their means: log p of each choice (T,).

    Args:
        choices, states, after: actions, states before and after them, (T,).
        rewards: (S, A), known.
        beta: inverse temperature of planning under a uniform prior over actions.
        steps: how far it plans.
        num_actions: how many there are.
        start: the count of each transition before any was seen.
    """
    num_states = len(rewards)
    counts, terms = np.full((num_states, num_actions, num_states), start), []
    for a, s, s_next in zip(choices, states, after, strict=True):
        moves, value = counts / counts.sum(-1, keepdims=True), np.zeros(num_states)
        for _ in range(steps):
            q = beta * rewards + moves @ value
            value = logsumexp(q, axis=1) - np.log(num_actions)
        terms.append(log_softmax(q[s])[a])
        counts[s, a, s_next] += 1
    return np.array(terms)
