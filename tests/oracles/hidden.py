"""Processes whose state is hidden, entry by entry in plain loops."""

import numpy as np


def expected_reward(transition, observation, reward):
    """r(s, a) of rewards (S, A), (S, A, S) or (S, A, S, O)."""
    states, actions, _ = transition.shape
    expected = np.zeros((states, actions))
    for s in range(states):
        for a in range(actions):
            if reward.ndim == 2:
                expected[s, a] = reward[s, a]
                continue
            for n in range(states):
                if reward.ndim == 3:
                    expected[s, a] += transition[s, a, n] * reward[s, a, n]
                    continue
                for o in range(observation.shape[2]):
                    expected[s, a] += transition[s, a, n] * observation[n, a, o] * reward[s, a, n, o]
    return expected


def joint(transition, observation, belief, a):
    """p(next state, observation | belief, action)."""
    states, _, observations = observation.shape
    table = np.zeros((states, observations))
    for s in range(states):
        for n in range(states):
            for o in range(observations):
                table[n, o] += belief[s] * transition[s, a, n] * observation[n, a, o]
    return table


def dense(successors, probabilities, reward):
    """The dense transition of lists, and rewards of next states as means by probability."""
    states, actions, outcomes = probabilities.shape
    transition = np.zeros((states, actions, states))
    sums = np.zeros((states, actions, states, *reward.shape[3:]))
    for s in range(states):
        for a in range(actions):
            for k in range(outcomes):
                n = successors[s, k] if successors.ndim == 2 else successors[s, a, k]
                transition[s, a, n] += probabilities[s, a, k]
                if reward.ndim > 2:
                    sums[s, a, n] += probabilities[s, a, k] * reward[s, a, k]
    if reward.ndim == 2:
        return transition, reward
    for s, a, n in np.ndindex(*transition.shape):
        if transition[s, a, n] > 0:
            sums[s, a, n] /= transition[s, a, n]
    return transition, sums
