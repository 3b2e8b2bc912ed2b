"""When to replace the engine of a bus, by its mileage (Rust 1987, equations 3.1 to 3.8).

    mileage x in bins,   replaced d ~ 1/2,   optimality -c(x) if d = 0, -(RC + c(0)) if d = 1,
    usage u ~ p,         next mileage min((x if d = 0 else 0) + u, last bin)

Solved without end this is Rust's nested fixed point: with EV(x) the expected value of the month after one that ends
with mileage x, P(d = 1 | x) = 1 / (1 + exp(v_0 - v_1)), v_0 = -c(x) + gamma EV(x), v_1 = -RC - c(0) + gamma EV(0). The
prior of one half takes log 2 a month from the values and nothing from the choices; Rust's noise of unit scale is the
inverse temperature of 1, so that costs are in nats.

`UPKEEP` has the costs of a month by mileage, c(x), with parameters theta and x the number of the bin:

    linear        theta_1 x / 1,000
    quadratic     theta_1 x / 1,000 + theta_2 x^2 / 100,000
    cubic         theta_1 x / 1,000 + theta_2 x^2 / 100,000 + theta_3 x^3 / 10,000,000
    square_root   theta_1 sqrt(x) / 100
    hyperbolic    theta_1 / (10 (bins + 1 - x))
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float
from numpyro.distributions import Categorical

from rlinf_ppl.models.arguments import finite_number
from rlinf_ppl.program import ControlProgram, decide, optimality
from rlinf_ppl.tasks import checks
from rlinf_ppl.types import ArrayLike


def polynomial(degree: int, theta: ArrayLike, num_bins: int = 90) -> Float[Array, " bins"]:
    """The sum of theta_k x^k / (1,000 * 100^(k - 1)), k from 1 to the degree.

    Args:
        degree: the number of parameters.
        theta: (degree,); a number where it is 1.
        num_bins: of mileage.
    """
    parameters, mileage = of_size(theta, degree), jnp.arange(num_bins) / 100
    return sum((parameters[k - 1] * mileage**k for k in range(1, degree + 1)), start=jnp.zeros(num_bins)) / 10


def square_root(theta: ArrayLike, num_bins: int = 90) -> Float[Array, " bins"]:
    """Theta sqrt(x) / 100."""
    return of_size(theta, 1)[0] * jnp.sqrt(jnp.arange(float(num_bins))) / 100


def hyperbolic(theta: ArrayLike, num_bins: int = 90) -> Float[Array, " bins"]:
    """Theta / (10 (bins + 1 - x))."""
    return of_size(theta, 1)[0] / (10 * (num_bins + 1 - jnp.arange(float(num_bins))))


def of_size(theta: ArrayLike, size: int) -> Array:
    """The parameters of a cost.

    Raises:
        ValueError: they are more or fewer.
    """
    given = jnp.asarray(theta, dtype=float)
    parameters = jnp.atleast_1d(given)
    if parameters.shape != (size,):
        raise ValueError(f"theta has shape {given.shape}; this cost has {size} parameter{'s' * (size > 1)}.")
    return parameters


UPKEEP: Mapping[str, Callable[..., Array]] = MappingProxyType(
    {
        "linear": lambda theta, num_bins=90: polynomial(1, theta, num_bins),
        "quadratic": lambda theta, num_bins=90: polynomial(2, theta, num_bins),
        "cubic": lambda theta, num_bins=90: polynomial(3, theta, num_bins),
        "square_root": square_root,
        "hyperbolic": hyperbolic,
    }
)
"""Costs of a month (bins,) from parameters theta and the number of bins, by name."""


def step(upkeep: Array, replacement: Array, usage: Array, mileage: Any) -> dict[str, Any]:
    """A month."""
    replaced = decide("replaced", Categorical(probs=jnp.ones(2) / 2))
    optimality(jnp.where(replaced, -(replacement + upkeep[0]), -upkeep[mileage]))
    used = numpyro.sample("usage", Categorical(probs=usage))
    return {"mileage": jnp.minimum(jnp.where(replaced, 0, mileage) + used, len(upkeep) - 1)}


def initial(upkeep: Array, replacement: Array, usage: Array) -> dict[str, Any]:
    """A bus of any mileage."""
    return {"mileage": numpyro.sample("first", Categorical(probs=jnp.ones(len(upkeep)) / len(upkeep)))}


def engine_replacement(
    upkeep: ArrayLike,
    replacement: ArrayLike,
    usage: ArrayLike,
    discount: ArrayLike = 0.9999,
    horizon: int | None = None,
) -> ControlProgram:
    """Keep the engine of a bus, or pay for another one.

        engine_replacement(UPKEEP["linear"](2.29), 10.07, [0.392, 0.595, 0.013])

    Args:
        upkeep: what a month costs at each mileage, (bins,), in nats.
        replacement: what another engine costs beside, RC.
        usage: the probabilities that the mileage grows by 0, 1, ... bins in a month, (K,).
        discount: of a month.
        horizon: number of months; None: without end.

    Returns:
        The program, with state `mileage`, decision `replaced` and chance `usage`.

    Raises:
        TypeError, ValueError: numbers that are none, probabilities that do not sum to one.
    """
    costs = checks.as_reals("upkeep", upkeep)
    if costs.ndim != 1:
        raise ValueError(f"upkeep must have one number for each bin of mileage; got shape {costs.shape}.")
    probabilities = checks.as_reals("usage", usage)
    if probabilities.ndim != 1:
        raise ValueError(f"usage must have one probability for each increase; got shape {probabilities.shape}.")
    args = costs, finite_number("replacement", replacement), checks.as_distributions("usage", probabilities, ())
    return ControlProgram(initial, step, horizon, discount=discount, args=args)
