"""What went wrong at which time, site and particle, found inside compiled code and raised outside of it."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def first_bad(bad: Array) -> Array:
    """The first particle at which something is wrong, -1 where nothing is."""
    n = bad.shape[0]
    first = jnp.min(jnp.where(bad, jnp.arange(n), n))
    return jnp.where(first < n, first, -1)


def check_faults(faults: dict[str, Array]) -> None:
    """Raise with the first fault in time, and among those the first in program order; under tracing nothing.

    Raises:
        FloatingPointError: there is one.
    """
    if any(isinstance(found, jax.core.Tracer) for found in faults.values()):
        return
    worst = None
    for name, found in jax.device_get(faults).items():
        steps = np.flatnonzero(np.asarray(found) >= 0)
        if not len(steps):
            continue
        part, _, site = name.rpartition("/")
        time = {"init": -1.0, "": float(steps[0]), "final": np.inf}[part]
        if worst is None or time < worst[0]:
            worst = time, site, int(np.ravel(found)[steps[0]])
    if worst is not None:
        where = {-1.0: "in initial", np.inf: "in final"}.get(worst[0], f"at t = {worst[0]:g}")
        raise FloatingPointError(
            f"{worst[1]!r} {where} is no number, no distribution or outside its values, or looks up an array by an "
            f"index that is out of it, at particle {worst[2]} (and perhaps at others); rewards must not be NaN or plus "
            "infinity, laws must be distributions. An impossible action has prior 0."
        )
