"""An optimiser that knows nothing of control: BFGS on the logits of all policies at once.

The objective is a sum over listed trajectories, and so is its gradient:
dF/dlog q_d(n, t) = q(n) (G(n) - gamma^t / tau_d), G the discounted gain of path n, then the softmax's Jacobian.
"""

import numpy as np
from scipy.optimize import minimize

from .answers import path_probability, policy_along
from .trajectories import Scopes, Trajectories


def _shapes(trajectories: Trajectories, scopes: Scopes) -> dict[str, tuple[int, ...]]:
    supports = trajectories.program.supports
    horizon = trajectories.program.horizon
    return {name: (horizon, *(len(supports[n]) for n in (*scope, name))) for name, scope in scopes.items()}


def _tables(theta: np.ndarray, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    tables, at = {}, 0
    for name, shape in shapes.items():
        logits = theta[at : at + np.prod(shape)].reshape(shape)
        at += np.prod(shape)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        tables[name] = weights / weights.sum(-1, keepdims=True)
    return tables


def _loss(theta: np.ndarray, trajectories: Trajectories, scopes: Scopes) -> tuple[float, np.ndarray]:
    """Minus the ELBO and its gradient in the logits; the priors must be positive."""
    tables = _tables(theta, _shapes(trajectories, scopes))
    along = policy_along(trajectories, tables, scopes)
    weights = trajectories.program.discount ** np.arange(trajectories.steps + 1)
    gain = trajectories.log_optimality @ weights
    for site in trajectories.program.decisions:
        ratio = np.log(along[site.name]) - np.log(trajectories.prior[site.name])
        gain = gain - ratio @ weights[:-1] / site.inverse_temperature
    q, gradients = path_probability(trajectories, along), []
    for site in trajectories.program.decisions:
        slope = q[:, None] * (gain[:, None] - weights[:-1] / site.inverse_temperature)
        total = np.zeros(tables[site.name].shape)
        columns = (trajectories.position[n][:, : trajectories.steps] for n in (*scopes[site.name], site.name))
        np.add.at(total, (np.arange(trajectories.steps), *columns), slope)
        gradients.append((total - tables[site.name] * total.sum(-1, keepdims=True)).ravel())
    return -float(q @ gain), -np.concatenate(gradients)


def maximize_elbo(trajectories: Trajectories, scopes: Scopes, starts: int = 3) -> tuple[float, dict[str, np.ndarray]]:
    """Best ELBO and policy tables found from several random starts.

    Args:
        trajectories: All paths of a program whose priors are positive and whose inverse temperatures are positive.
        scopes: Decision -> variables its policy may depend on; in the order of the program's decisions.
        starts: Number of random initial logits.

    Returns:
        The largest ELBO, in the units of optimality, and the policy (T, scope sizes, K) that has it.
    """
    rng, shapes = np.random.default_rng(7), _shapes(trajectories, scopes)
    size = sum(int(np.prod(shape)) for shape in shapes.values())
    runs = [
        minimize(_loss, rng.normal(size=size), (trajectories, scopes), "BFGS", jac=True, options={"gtol": 1e-9})
        for _ in range(starts)
    ]
    best = min(runs, key=lambda run: run.fun)
    return -float(best.fun), _tables(best.x, shapes)


def best_reply(
    trajectories: Trajectories, scopes: Scopes, policy: dict[str, np.ndarray], name: str, sign: float
) -> float:
    """The most that one decision can make of the ELBO while all others keep their policies; for sign -1, the least.

    Args:
        trajectories: All paths of a program whose priors are positive and whose inverse temperatures are not 0.
        scopes: Decision -> variables its policy may depend on; in the order of the program's decisions.
        policy: Positive tables (T, scope sizes, K) of all decisions.
        name: The decision that is free.
        sign: 1.0 where it wants much, -1.0 where it wants little.
    """
    logits = {d: np.log(np.asarray(policy[d])) for d in scopes}
    sizes = [table.size for table in logits.values()]
    at = sum(sizes[: list(scopes).index(name)])
    mine = slice(at, at + logits[name].size)
    kept = np.concatenate([table.ravel() for table in logits.values()])

    def loss(own: np.ndarray) -> tuple[float, np.ndarray]:
        theta = kept.copy()
        theta[mine] = own
        value, gradient = _loss(theta, trajectories, scopes)
        return sign * value, sign * gradient[mine]

    rng = np.random.default_rng(3)
    starts = [rng.normal(size=logits[name].size) for _ in range(2)]
    found = [minimize(loss, start, method="BFGS", jac=True, options={"gtol": 1e-9}).fun for start in starts]
    return -sign * float(min(found))
