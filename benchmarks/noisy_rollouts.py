"""Noisy memories by brute force, in NumPy: episodes in which noise is drawn at each step, and nothing is integrated."""

from typing import Any, NamedTuple

import numpy as np

from benchmarks.measure import Mismatch

# What an answer may be off by, in standard errors of the brute force.
ERRORS = 5.0
ROUNDING = 1e-4


class Memories(NamedTuple):
    """A task and what is remembered of it, in plain arrays.

    Attributes:
        transition: (S, A, S).
        reward: (S, A).
        initial: (S,).
        value: what is remembered, (S, A).
        std: with which noise, (S, A).
        base_std: of a memory that costs nothing, (S, A).
        beta: inverse temperature of the softmax.
    """

    transition: np.ndarray
    reward: np.ndarray
    initial: np.ndarray
    value: np.ndarray
    std: np.ndarray
    base_std: np.ndarray
    beta: float


def memories(mdp: Any, value: Any, std: Any, base_std: Any, beta: float) -> Memories:
    """The same of a task of the library."""
    arrays = (mdp.dense().transition, mdp.reward, mdp.initial, value, std, base_std)
    return Memories._make([*(np.asarray(x, np.float64) for x in arrays), beta])


def cost(held: Memories) -> float:
    """What all memories cost together, in nats."""
    ratio = held.std / held.base_std
    return float(np.sum(0.5 * ratio**2 - 0.5 - np.log(ratio)))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def returns(held: Memories, horizon: int, episodes: int, seed: int) -> np.ndarray:
    """What each of many episodes earns."""
    rng = np.random.default_rng(seed)
    before = np.cumsum(held.transition, -1)
    state = rng.choice(len(held.initial), episodes, p=held.initial / held.initial.sum())
    total = np.zeros(episodes)
    ends = np.all((held.transition[:, 0] == np.eye(len(held.initial))), -1) & np.all(held.reward == 0, -1)
    for _ in range(horizon):
        noise = held.std[state] * rng.normal(size=(episodes, held.value.shape[1]))
        chance = np.cumsum(softmax(held.beta * (held.value[state] + noise)), -1)
        action = np.sum(rng.random(episodes)[:, None] * chance[:, -1:] > chance, -1)
        total += held.reward[state, action]
        state = np.sum(rng.random(episodes)[:, None] * before[state, action, -1:] > before[state, action], -1)
        if ends[state].all():
            break
    return total


def check_values(name: str, held: Memories, discount: float, draws: int, seed: int) -> None:
    """Raise where values are not those of the policy that acts on them.

    Raises:
        Mismatch: one is off by more than 5 standard errors and rounding.
    """
    rng = np.random.default_rng(seed)
    mean, error = np.zeros(len(held.value)), np.zeros(len(held.value))
    for s, (value, std) in enumerate(zip(held.value, held.std, strict=True)):
        worth = softmax(held.beta * (value + std * rng.normal(size=(draws, len(value))))) @ value
        mean[s], error[s] = worth.mean(), worth.std(ddof=1) / np.sqrt(draws)
    off = np.abs(held.reward + discount * held.transition @ mean - held.value)
    allowed = ERRORS * discount * np.sqrt(held.transition @ error**2) + ROUNDING * np.abs(held.value).max()
    if not np.all(off <= allowed):
        raise Mismatch(f"{name}: values are off by {off.max():.3g}, {np.max(off / allowed):.2f} times what is allowed.")


def check_objective(
    name: str, objective: float, weight: float, held: Memories, horizon: int, episodes: int, seed: int
) -> tuple[float, float]:
    """Raise where an objective is not what episodes earn on average, less the cost.

    Returns:
        The same from episodes, and its standard error.

    Raises:
        Mismatch: they are more than 5 standard errors apart.
    """
    drawn = returns(held, horizon, episodes, seed)
    found, error = drawn.mean() - weight * cost(held), drawn.std(ddof=1) / np.sqrt(episodes)
    if not abs(found - objective) <= ERRORS * error + ROUNDING * abs(objective):
        raise Mismatch(f"{name}: the objective is {objective:.4f}, episodes say {found:.4f} +- {error:.4f}.")
    return float(found), float(error)
