"""The values of an agent's own noisy policy: against plain iteration in NumPy, in a handful of rounds."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest

from rlinf_ppl import models
from rlinf_ppl.algebra.random_utility import choice
from rlinf_ppl.tasks import MDP

search = sys.modules["rlinf_ppl.models.noisy_values"].search
S, BETA = 5, 3.0


def problem(seed, discount):
    rng = np.random.default_rng(seed)
    moves, reward = rng.dirichlet(0.3 * np.ones(S), (S, 2)), rng.normal(size=(S, 2))
    return moves, reward, 0.6 * rng.random((S, 2)), discount


def iterated(moves, reward, std, discount):
    """Policy iteration with Gauss and Hermite's nodes: of two values only the difference matters."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    spread, q = np.sqrt((std**2).sum(-1)), np.zeros((S, 2))
    for _ in range(300):
        gap = BETA * ((q[:, 0] - q[:, 1])[:, None] + spread[:, None] * nodes)
        first = (1 / (1 + np.exp(-gap))) @ (weights / weights.sum())
        policy = np.stack([first, 1 - first], -1)
        averaged = np.einsum("sa,sat->st", policy, moves)
        q = reward + discount * moves @ np.linalg.solve(np.eye(S) - discount * averaged, (policy * reward).sum(-1))
    return q, policy


@pytest.mark.parametrize("seed, discount", [(0, 0.9), (1, 0.99)])
def test_the_fixed_point_is_that_of_plain_iteration_and_takes_few_rounds(seed, discount):
    moves, reward, std, discount = problem(seed, discount)
    task = MDP(moves, reward, np.ones(S) / S)
    found = models.noisy_values(task, std, BETA, discount)
    value, policy = iterated(moves, reward, std, discount)
    assert found.converged
    np.testing.assert_allclose(found.value, value, rtol=1e-9)
    np.testing.assert_allclose(found.policy, policy, rtol=1e-8)
    *_, rounds = search(task, jnp.asarray(discount), lambda q: choice(BETA * q, BETA * jnp.asarray(std)), jnp.zeros(S))
    assert rounds <= 12
