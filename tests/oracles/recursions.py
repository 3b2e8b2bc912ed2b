"""Backward recursions in scalar Python and in plain NumPy: a second truth beside the enumeration.

Programs: a message walks through the sites of a step on the whole history of the step, without any notion of scope.
MDPs (Levine 2018, sections 2 and 3): with p the action prior and gamma the discount,

    soft-optimal    Q = beta r + gamma E V',                         V = log sum_a p exp Q,    pi = p exp(Q - V)
    posterior       Q = beta r + log(gamma E exp V' + 1 - gamma),    the same V and pi
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .trajectories import Program, Scopes, Site, Values

Expectation = Callable[[np.ndarray, np.ndarray, float], float]


def averaged(mass: np.ndarray, message: np.ndarray, inverse_temperature: float) -> float:
    """E W: chance as it is."""
    return float(mass @ message)


def conditioned(mass: np.ndarray, message: np.ndarray, inverse_temperature: float) -> float:
    """(1/tau) log E exp(tau W): chance conditioned on optimality."""
    return certainty_equivalent(mass, message, inverse_temperature)


def certainty_equivalent(mass: np.ndarray, message: np.ndarray, inverse_temperature: float) -> float:
    """(1/tau) log E exp(tau W), and E W at tau = 0; near 0 about the mean, where the plain form divides roundoff."""
    used, mean = mass > 0, float(mass @ message)
    if inverse_temperature == 0:
        return mean
    if abs(inverse_temperature) < 1e-3:
        return mean + float(np.log1p(mass @ np.expm1(inverse_temperature * (message - mean)))) / inverse_temperature
    total = np.logaddexp.reduce(np.log(mass[used]) + inverse_temperature * message[used])
    return float(total / inverse_temperature)


@dataclass(frozen=True)
class Backward:
    """Messages of a program.

    Attributes:
        value: (T+1, state sizes) in the units of optimality; the last row is the final factor.
        policy: (t, decision, set of pairs: values of the state and earlier sites) -> probabilities (K,).
        start: The value of the whole program: the expectation of the first row over the initial sites.
    """

    value: np.ndarray
    policy: dict[tuple, np.ndarray]
    start: float


def backward(program: Program, expectation: Expectation) -> Backward:
    """Eliminates the sites of every step from the last to the first, on full histories."""
    supports, policy = program.supports, {}
    value = np.zeros((program.horizon + 1, *(len(supports[n]) for n in program.state)))
    tau = program.common_inverse_temperature if expectation is conditioned else 1.0

    def lookup(t: int, state: Values) -> float:
        return float(value[(t, *(supports[n].index(state[n]) for n in program.state))])

    def message(sites: tuple[Site, ...], values: Values, end: Callable[[Values], float]) -> float:
        if not sites:
            return end(values)
        site, rest = sites[0], sites[1:]
        if site.kind == "optimality":
            return float(site.function(values)) + message(rest, values, end)
        mass = np.asarray(site.function(values), dtype=float)
        w = np.array([message(rest, values | {site.name: x}, end) for x in site.support])
        if site.kind == "chance":
            return expectation(mass, w, tau)
        z = certainty_equivalent(mass, w, site.inverse_temperature)
        policy[values["t"], site.name, frozenset(values.items())] = mass * np.exp(site.inverse_temperature * (w - z))
        return z

    for t in reversed(range(program.horizon + 1)):
        for state in program.states():
            where = (t, *(supports[n].index(state[n]) for n in program.state))
            if t == program.horizon:
                value[where] = 0.0 if program.final is None else float(program.final(state))
                continue

            def end(values: Values, t: int = t) -> float:
                after = lookup(t + 1, program.next_state(values))
                return expectation(np.array([program.discount, 1 - program.discount]), np.array([after, 0.0]), tau)

            value[where] = message(program.step, state | {"t": t}, end)
    start = message(program.initial, {}, lambda values: lookup(0, program.initial_state(values)))
    return Backward(value, policy, start)


def tables(program: Program, scopes: Scopes, policy: dict[tuple, np.ndarray]) -> dict[str, np.ndarray]:
    """Policies on full histories as (T, scope sizes, K); histories that share a scope's values have to agree."""
    supports, found = program.supports, {}
    for name, scope in scopes.items():
        found[name] = np.full((program.horizon, *(len(supports[n]) for n in (*scope, name))), np.nan)
    for (t, name, history), row in policy.items():
        values = dict(history)
        where = (t, *(supports[n].index(values[n]) for n in scopes[name]))
        if not np.isnan(found[name][where]).any():
            message = f"{name} depends on more than {scopes[name]}"
            np.testing.assert_allclose(found[name][where], row, rtol=1e-9, err_msg=message)
        found[name][where] = row
    return found


def soft_optimal(transition, reward, prior, beta=1.0, discount=1.0, horizon=None):
    """Q (T,S,A), V (T+1,S) and policy (T,S,A) of the soft-optimal recursion; time-varying rewards lead with T."""
    return _mdp(transition, reward, prior, beta, horizon, lambda v: discount * np.einsum("sap,p->sa", transition, v))


def posterior(transition, reward, prior, beta=1.0, discount=1.0, horizon=None):
    """Q, V and policy of the exact posterior, with the discount as an absorbing state."""

    def onwards(v):
        return np.log((1 - discount) + discount * np.einsum("sap,p->sa", transition, np.exp(v)))

    return _mdp(transition, reward, prior, beta, horizon, onwards)


def _mdp(transition, reward, prior, beta, horizon, onwards):
    horizon = len(reward) if horizon is None else horizon
    shape = (horizon, *transition.shape[:2])
    reward, prior = np.broadcast_to(reward, shape), np.broadcast_to(prior, shape)
    q, v = np.zeros(shape), np.zeros((horizon + 1, shape[1]))
    for t in reversed(range(horizon)):
        q[t] = beta * reward[t] + onwards(v[t + 1])
        v[t] = np.log(np.sum(prior[t] * np.exp(q[t]), axis=-1))
    return q, v, prior * np.exp(q - v[:-1, :, None])


def hard_optimal(transition, reward, allowed, discount=1.0, horizon=None):
    """Q and V of ordinary value iteration over the allowed actions."""
    horizon = len(reward) if horizon is None else horizon
    reward = np.broadcast_to(reward, (horizon, *transition.shape[:2]))
    q, v = np.zeros(reward.shape), np.zeros((horizon + 1, transition.shape[0]))
    for t in reversed(range(horizon)):
        q[t] = np.where(allowed, reward[t] + discount * np.einsum("sap,p->sa", transition, v[t + 1]), -np.inf)
        v[t] = q[t].max(-1)
    return q, v
