"""What is known of a state from the data so far: all histories listed, and Kalman's recursion with 60 digits."""

from itertools import product

import numpy as np

from .decimals import eye, inverse, precise


def histories(initial, step, horizon, discount=1.0, final=None):
    """p(s_t | data up to t) over t = 0..T by a list of all histories.

    Args:
        initial: pairs of a first state and its probability times that of its data.
        step: (state, t) -> pairs of (a next state, the probability of it) and the probability of the data on the way.
        horizon: the number of steps.
        discount: the chance to be alive at the next step; the dead are observed no more.
        final: (state) -> the probability of the last data.

    Returns:
        For each time a dict from states to probabilities.
    """
    alive_and_states = [(p, True, state) for state, p in initial]
    found = []
    for t in range(horizon + 1):
        weights, after = {}, []
        for p, alive, state in alive_and_states:
            if t == horizon:
                moves = [(state, 1.0, 1.0 if final is None else final(state))]
            else:
                moves = step(state, t)
            for (following, chance, likelihood), (lives, survives) in product(
                moves, [(True, discount), (False, 1 - discount)]
            ):
                if not alive and lives:
                    continue
                mass = p * chance * (likelihood * (survives if lives else 1 - discount) if alive else 1.0)
                weights[state] = weights.get(state, 0.0) + mass
                after.append((mass, lives, following))
        total = sum(weights.values())
        found.append({state: mass / total for state, mass in weights.items()})
        alive_and_states = [(mass, lives, state) for mass, lives, state in after if mass > 0]
    return found


@precise
def kalman(A, c, noise_root, C, observation_root, data, mean, root):
    """Means and covariances given the data so far, of x' = A x + c + noise_root e and y = C x + observation_root e."""
    cov, noise, observation = root @ root.T, noise_root @ noise_root.T, observation_root @ observation_root.T
    means, covs = [], []
    for y in data:
        gain = cov @ C.T @ inverse(C @ cov @ C.T + observation)[0]
        mean, cov = mean + gain @ (y - C @ mean), (eye(len(A)) - gain @ C) @ cov
        means.append(mean), covs.append(cov)
        mean, cov = A @ mean + c, A @ cov @ A.T + noise
    return np.array([*means, mean]), np.array([*covs, cov])
