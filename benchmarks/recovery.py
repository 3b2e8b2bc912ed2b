"""Parameters of many simulated subjects, inferred from what each of them chose: what the rows about memories share.

Of a task whose states are seen, choices are told by how often each action was taken in each state, n(s, a):

    log p(choices | x) = sum_{s,a} n(s, a) log pi_x(a | s)

A few parameters are inferred on a mesh of their logs, under the uniform law that subjects are drawn from. Many are
inferred by Fisher scoring under a normal law of their logs, from its mean on, with the information

    I(x) = sum_{s,a} n(s) d pi_x(a | s) d pi_x(a | s)' / pi_x(a | s) + 1 / deviation^2

whose inverse is the covariance of the posterior about its mode (Laplace).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array
from scipy.stats import norm

from benchmarks.measure import Mismatch, same
from rlinf_ppl import ControlProgram, behaviour, models
from rlinf_ppl.inference import exact
from rlinf_ppl.tasks import MDP

LEVEL = 0.9
# Fisher scoring: the most steps, their lengths, of which the best is taken (0 where all others are worse), and how many
# nats may be left.
STEPS, LENGTHS, ARRIVED = 60, np.array([1.0, 0.4, 0.1, 0.0]), 1e-8
# What counts as a probability of 0.
LEAST = 1e-290
# How many policies are computed at a time, so that all meshes of a task share one compiled function.
CHUNK = 128


class Estimate(NamedTuple):
    """The logs of parameters of n subjects, each (n, k).

    Attributes:
        truth: what behaviour was drawn at.
        found: the largest likelihood on a mesh, or the mode of the posterior.
        deviation: of the posterior.
        inside: whether the 90 % interval of the posterior holds the truth.
    """

    truth: np.ndarray
    found: np.ndarray
    deviation: np.ndarray
    inside: np.ndarray

    def correlations(self) -> np.ndarray:
        """Of truth and estimate, (k,)."""
        return np.array([correlation(*pair) for pair in zip(self.truth.T, self.found.T, strict=True)])

    def expected(self) -> np.ndarray:
        """The correlation of the truth and a posterior's mean by how wide posteriors are, (k,)."""
        return np.sqrt(np.maximum(0.0, 1 - np.mean(self.deviation**2, 0) / np.var(self.truth, 0)))

    def of(self, some: Any) -> "Estimate":
        """The same of some subjects."""
        return Estimate(*(x[some] for x in self))


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Of two lists of numbers."""
    return float(np.corrcoef(x, y)[0, 1])


class Subjects:
    """Agents with noisy memories in one task, many at a time, each with a std and an inverse temperature of its own."""

    def __init__(self, mdp: MDP, horizon: int, value_discount: float = 1.0):
        """Of a task; values are remembered at a discount of their own."""
        self.mdp, self.horizon, self.value_discount = mdp, horizon, value_discount
        self._log_policies = jax.jit(jax.vmap(lambda *x: jnp.log(jnp.maximum(self.policy(*x), LEAST))))
        self._drawn = jax.jit(jax.vmap(self.drawn, (0, 0, 0, None)), static_argnums=3)

    def program(self, std: Any, beta: Any) -> ControlProgram:
        """One of them."""
        return models.noisy_agent(self.mdp, self.horizon, std, beta, value_discount=self.value_discount)

    def policy(self, std: Any, beta: Any) -> Array:
        """The probability of each action, (S, A)."""
        return models.noisy_values(self.mdp, std, beta, self.value_discount).policy

    def log_policies(self, std: np.ndarray, beta: np.ndarray) -> np.ndarray:
        """Log policies of M of them, (M, S, A), from std (M, S, A) and beta (M,)."""
        found = []
        for at in range(0, len(beta), CHUNK):
            # The last chunk is filled up with its last entry, so that all share one compiled function.
            rows = np.minimum(np.arange(at, at + CHUNK), len(beta) - 1)
            found.append(np.asarray(self._log_policies(jnp.asarray(std[rows]), jnp.asarray(beta[rows]))))
        return np.concatenate(found)[: len(beta)]

    def drawn(self, key: Array, std: Array, beta: Array, games: int) -> tuple[Array, Array, Array]:
        """States and actions of one of them, (games, T), and their log likelihood."""
        made = self.program(std, beta)
        found = numpyro.handlers.seed(behaviour.site, key)("y", made, num_sequences=games)
        data = {"s": found["s"][:, :-1], "a": found["a"]}
        return data["s"], data["a"], jnp.sum(exact.log_prob(made, None, data))

    def counts(self, std: np.ndarray, beta: np.ndarray, games: int) -> np.ndarray:
        """How often each takes each action in each state of so many games, (n, S, A).

        Raises:
            Mismatch: the library's likelihood of the games is not that of the counts.
        """
        n = len(beta)
        keys = jax.random.split(jax.random.key(n), n)
        s, a, log_prob = map(np.asarray, self._drawn(keys, jnp.asarray(std), jnp.asarray(beta), games))
        log_policy = self.log_policies(std, beta)
        counts = np.zeros(log_policy.shape)
        np.add.at(counts, (np.arange(n)[:, None, None], s, a), 1)
        same("memories: log likelihood", np.sum(counts * log_policy, (1, 2)) / log_prob, np.ones(n), 1e-8)
        return counts

    def visits(self, log_policy: np.ndarray) -> np.ndarray:
        """How often a game of each is expected in each state, (n, S), where dynamics are those of all times."""
        moves, policy = np.asarray(self.mdp.dense().transition), np.exp(log_policy)
        law = np.broadcast_to(np.asarray(self.mdp.initial), policy.shape[:2])
        total = np.zeros_like(law)
        for _ in range(self.horizon):
            total, law = total + law, np.einsum("ns,nsa,sat->nt", law, policy, moves)
        return total


def on_mesh(counts: np.ndarray, log_policy: np.ndarray, axes: Sequence[np.ndarray], truth: np.ndarray) -> Estimate:
    """Estimates and posteriors of each subject on a mesh.

    Args:
        counts: of all subjects, (n, S, A).
        log_policy: at the points of the mesh, the first axis slowest, (M, S, A).
        axes: equally spaced values of each parameter's log.
        truth: the true logs, (n, k).
    """
    n, k, shape = len(counts), len(axes), tuple(map(len, axes))
    log_prob = counts.reshape(n, -1) @ log_policy.reshape(len(log_policy), -1).T
    largest = np.array(np.unravel_index(log_prob.argmax(1), shape)).T
    weights = np.exp(log_prob - log_prob.max(1, keepdims=True)).reshape(n, *shape)
    found, deviation, inside = np.empty((n, k)), np.empty((n, k)), np.empty((n, k), bool)
    for i, axis in enumerate(axes):
        alone = weights.sum(tuple(j + 1 for j in range(k) if j != i))
        alone /= alone.sum(1, keepdims=True)
        mean = alone @ axis
        found[:, i], deviation[:, i] = axis[largest[:, i]], np.sqrt(alone @ axis**2 - mean**2 + 1e-12)
        # How much of the posterior lies below the truth, each point's share spread over its cell.
        edges = np.append(axis, 2 * axis[-1] - axis[-2]) - 0.5 * (axis[1] - axis[0])
        mass = np.concatenate([np.zeros((n, 1)), alone.cumsum(1)], 1)
        below = np.array([np.interp(x, edges, each) for x, each in zip(truth[:, i], mass, strict=True)])
        inside[:, i] = np.abs(below - 0.5) <= LEVEL / 2
    return Estimate(truth, found, deviation, inside)


def by_scoring(
    name: str,
    policy: Callable[[Array], Array],
    counts: np.ndarray,
    truth: np.ndarray,
    law: tuple[float, float],
) -> Estimate:
    """The posterior of each subject about its mode.

    Args:
        name: of the row.
        policy: of the logs of one subject's parameters, (k,) to (S, A).
        counts: of all subjects, (n, S, A).
        truth: the true logs, (n, k).
        law: mean and deviation of each log, normal.

    Raises:
        Mismatch: scoring has not arrived.
    """
    mean, deviation = law

    def objective(x: Array, counts: Array) -> Array:
        return jnp.sum(counts * jnp.log(jnp.maximum(policy(x), LEAST))) - 0.5 * jnp.sum(((x - mean) / deviation) ** 2)

    @jax.jit
    @jax.vmap
    def step(x: Array, counts: Array) -> tuple[Array, Array, Array]:
        p, slope = jnp.maximum(policy(x), LEAST), jax.jacfwd(policy)(x)
        visits = jnp.sum(counts, -1)[:, None] / p
        gradient = jnp.einsum("sa,sak->k", counts / p, slope) - (x - mean) / deviation**2
        information = jnp.einsum("sa,sak,sal->kl", visits, slope, slope) + jnp.eye(len(x)) / deviation**2
        move = jnp.linalg.solve(information, gradient)
        tried = x + LENGTHS[:, None] * move
        best = tried[jnp.argmax(jax.lax.map(lambda x: objective(x, counts), tried))]
        return best, information, jnp.dot(gradient, move)

    x, known = jnp.full(truth.shape, mean), jnp.asarray(counts)
    for _ in range(STEPS):
        x, information, left = step(x, known)
        if float(jnp.max(left)) < ARRIVED:
            break
    else:
        raise Mismatch(f"{name}: scoring has not arrived, {float(jnp.max(left)):.2g} nats are left.")
    width = np.sqrt(np.einsum("nii->ni", np.linalg.inv(np.asarray(information))))
    found = np.asarray(x)
    return Estimate(truth, found, width, np.abs(found - truth) <= norm.ppf(0.5 + LEVEL / 2) * width)
