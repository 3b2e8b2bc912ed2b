"""What loops on nonlinear systems are given, checked."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlinf_ppl.algebra.quadratics import AffinePolicy
from rlinf_ppl.program.checks import check_numbers
from rlinf_ppl.tasks import Dynamics, matrices


def check_dynamics(dynamics: Any) -> Dynamics:
    """A system.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(dynamics, Dynamics):
        raise TypeError(f"dynamics must be a task of rlinf_ppl.tasks, Dynamics; got {type(dynamics).__name__}.")
    return dynamics


def check_start(dynamics: Dynamics, start: Any) -> AffinePolicy:
    """The policy to start from, over time; None: N(0, I) whatever the state is.

    Raises:
        ValueError: it is no policy of this system.
    """
    horizon, m, n = dynamics.horizon, dynamics.num_actions, dynamics.num_states
    if start is None:
        start = jnp.zeros((m, n)), jnp.zeros(m), jnp.eye(m)
    if not isinstance(start, tuple | list) or len(start) != 3:
        raise ValueError("start must be (gain, offset, cov) of a policy, such as the policy of a solution.")
    arrays = []
    for name, given, shape in zip(AffinePolicy._fields, start, ((m, n), (m,), (m, m)), strict=True):
        array = check_numbers(f"start's {name}", given, "numbers")
        if array.shape not in (shape, (horizon, *shape)):
            raise ValueError(f"start's {name} has shape {array.shape}; it must be {shape} or {(horizon, *shape)}.")
        if not isinstance(array, jax.core.Tracer) and not np.all(np.isfinite(array)):
            raise ValueError(f"start's {name} holds numbers that are not finite.")
        arrays.append(jnp.broadcast_to(array, (horizon, *shape)))
    matrices.check_symmetric("start's cov", arrays[2])
    if not isinstance(arrays[2], jax.core.Tracer):
        least = np.linalg.eigvalsh(np.asarray(arrays[2], float)).min(-1)
        if not np.all(least > 0):
            raise ValueError(
                f"start's cov at t = {int(np.argmin(least))} has the eigenvalue {least.min():.3g}: a policy that may "
                "only move so far needs some variance in every direction."
            )
    return AffinePolicy(*arrays)


def check_bounds(name: str, bound: Any, horizon: int, least: bool = False) -> Float[Array, "..."]:
    """A bound, one number or (T,), above 0, or at least 0.

    Raises:
        ValueError: it has another shape, or is not finite, or too small.
    """
    array = check_numbers(name, bound, "numbers of nats")
    if array.shape not in ((), (horizon,)):
        raise ValueError(f"{name} must be one number, or one for each of {horizon} steps; got shape {array.shape}.")
    if not isinstance(array, jax.core.Tracer):
        known = np.asarray(array)
        if not np.all(np.isfinite(known) & ((known >= 0) if least else (known > 0))):
            raise ValueError(f"{name} is {known}: it must be finite, and {'at least' if least else 'above'} 0.")
    return array


def check_expands(dynamics: Dynamics, expansion: Any, what: str) -> None:
    """Raise where derivatives are not finite.

    Raises:
        ValueError: so they are, at a step.
    """
    names = {"states": "the trajectory", "A": "the step's derivative in x", "B": "the step's derivative in u",
             "matrix": "the cost's second derivative", "vector": "the cost's first derivative"}  # fmt: skip
    for name, meaning in names.items():
        array = getattr(expansion, name)
        if isinstance(array, jax.core.Tracer):
            return
        bad = ~np.isfinite(np.asarray(array)).reshape(len(array), -1).all(-1)
        if bad.any():
            t = int(np.argmax(bad))
            raise ValueError(
                f"{meaning} is not finite at t = {t} of {what}, at x = {np.asarray(expansion.states[t])}: start "
                "nearer, or write the step and the cost without what divides by 0 there."
            )
