"""Inverse reinforcement learning by plain loops: trajectories given optimality, information, distances of rewards."""

from itertools import product

import numpy as np

from .trajectories import Trajectories, lifetimes


def log_prob_given_optimality(listed: Trajectories, data) -> float:
    """Log p(data | O): the share of the weight of all trajectories that those have which agree with the data.

    Args:
        listed: every trajectory from the first state on.
        data: name of a site or state variable -> its value at each time from the first on, None where nothing was seen.
    """
    program = listed.program
    tau = program.common_inverse_temperature if program.decisions else 1.0
    weight = np.zeros(len(listed.chance))
    for probability, alive in lifetimes(program.discount, listed.steps):
        weight += probability * np.exp(tau * (listed.log_optimality @ alive))
    weight = weight * listed.prior_probability
    agrees = np.ones(len(weight), bool)
    for name, values in data.items():
        for t, value in enumerate(values):
            if value is not None:
                agrees &= listed.position[name][:, t] == program.supports[name].index(value)
    return np.log(weight[agrees].sum()) - np.log(weight.sum())


def fisher_information(transition, initial, policies, step=1e-5):
    """Sum over t of E[score score'], the score by central differences of log pi_t(a | s) in each parameter.

    Args:
        transition: (S, A, S).
        initial: (S,).
        policies: displacement of the parameters, a vector (k,), -> (T, S, A); called with multiples of unit vectors.
        step: of the differences.
    """
    policy, k = policies(None), policies.size
    horizon, states, actions = policy.shape
    units = np.eye(k) * step
    scores = np.stack([(np.log(policies(e)) - np.log(policies(-e))) / (2 * step) for e in units], -1)
    law, found = np.asarray(initial, float), np.zeros((k, k))
    for t in range(horizon):
        for s, a in product(range(states), range(actions)):
            found += law[s] * policy[t, s, a] * np.outer(scores[t, s, a], scores[t, s, a])
        law = np.einsum("s,sa,sap->p", law, policy[t], transition)
    return found


def epic_distance(reward, other, discount, state_law, action_law, coverage):
    """Canonical shaping and the Pearson distance of two rewards (S, A, S'), one transition at a time."""
    states, actions = len(state_law), len(action_law)

    def mean_from(r, s):
        """E r(s, A, S')."""
        total = 0.0
        for a, p in product(range(actions), range(states)):
            total += action_law[a] * state_law[p] * r[s, a, p]
        return total

    def shaped(r):
        average = sum(state_law[s] * mean_from(r, s) for s in range(states))
        found = np.zeros((states, actions, states))
        for s, a, p in product(range(states), range(actions), range(states)):
            found[s, a, p] = r[s, a, p] + discount * mean_from(r, p) - mean_from(r, s) - discount * average
        return found

    x, y = shaped(reward), shaped(other)
    ex = ey = exx = eyy = exy = 0.0
    for place in product(range(states), range(actions), range(states)):
        w = coverage[place]
        ex, ey = ex + w * x[place], ey + w * y[place]
        exx, eyy, exy = exx + w * x[place] ** 2, eyy + w * y[place] ** 2, exy + w * x[place] * y[place]
    rho = (exy - ex * ey) / np.sqrt((exx - ex**2) * (eyy - ey**2))
    return np.sqrt((1 - rho) / 2)
