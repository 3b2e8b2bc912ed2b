"""What bounded problems are given, checked."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlinf_ppl.algebra.quadratics import Gaussian
from rlinf_ppl.inference.bounds.joint import Given
from rlinf_ppl.inference.bounds.programs import BoundedStep
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.checks import check_ends, check_numbers, check_sees
from rlinf_ppl.program.evaluation import common_inverse_temperature
from rlinf_ppl.program.reading import check_program

# How far the sum of probabilities may be from 1.
ROUGH = 1e-4


def prepared(program: ControlProgram, what: str) -> ControlProgram:
    """A program with its decisions' inverse temperature set to 1.

    Raises:
        TypeError, ValueError: it is none whose policies can be bounded.
    """
    check_program(program)
    check_sees(program, what)
    if isinstance(program.step, BoundedStep):
        raise ValueError(
            f"{what} got the program of a bounded problem, whose prices of bounds would count as rewards: bound the "
            "program that it was made from, with_prior(policy) to go on from where that led."
        )
    for name, unseen in program.structure.together:
        raise ValueError(
            f"{what} is for decisions taken one after the other: {name!r} does not see {list(unseen)}, and what they "
            "do is an equilibrium, which maximises nothing."
        )
    data = [site.name for site in program.structure.step.sites if site.kind == "data"]
    if data:
        raise ValueError(
            f"{what} maximises rewards, and {data} are data, whose nats count more the lower the temperature that is "
            "looked for: leave them out, or write optimality(log_prob) for them."
        )
    base = program.untempered()
    try:
        own = common_inverse_temperature(base)
    except ValueError as error:
        raise ValueError(f"{what} wants decisions of one inverse temperature, and their KL: {error}") from error
    if own is not None and not isinstance(own, jax.core.Tracer) and not float(own) > 0:
        raise ValueError(
            f"{what} finds the inverse temperature itself, as a multiple of the decisions' own, which is "
            f"{float(own):g}: give them one above 0."
        )
    return base if own is None else base.tempered(1 / own)


def check_bound(name: str, bound: Any, program: ControlProgram, shape: tuple[Any, ...] | None) -> Float[Array, "..."]:
    """A bound on a KL, one number, or of another shape if that is given.

    Raises:
        TypeError: it holds no numbers.
        ValueError: it has another shape, or is negative or NaN, or infinite for vectors.
    """
    array = check_numbers(name, bound, "numbers of nats, at least 0")
    if array.shape not in ((), shape):
        wanted = "one number" if shape is None else f"one number, or one for each of {shape[0]} steps"
        raise ValueError(f"{name} must be {wanted}; got shape {array.shape}.")
    if isinstance(array, jax.core.Tracer):
        return array
    known = np.asarray(array)
    if not np.all(known >= 0):
        raise ValueError(f"{name} holds {known[~(known >= 0)].flat[0]:g}: a bound on a KL is at least 0 nats.")
    if program.structure.gaussian and np.any(np.isinf(known)):
        raise ValueError(f"{name} is infinite: without a bound what maximises has no density. Give a finite one.")
    return array


def check_given(program: ControlProgram, states: Any, kl_bound: Any, entropy_bound: Any) -> Given:
    """Bounds on states and policies.

    Raises:
        TypeError, ValueError: they are none.
    """
    check_ends(program.horizon, "states of each step to bound")
    steps = (program.horizon,)
    bounds = jnp.broadcast_to(check_bound("kl_bound", kl_bound, program, steps), steps)
    if not isinstance(bounds, jax.core.Tracer) and not np.all(np.isfinite(bounds) & (np.asarray(bounds) > 0)):
        raise ValueError(f"kl_bound is {np.asarray(kl_bound)}: a bound on states and decisions is finite and above 0.")
    entropies = None
    if entropy_bound is not None:
        entropies = check_numbers("entropy_bound", entropy_bound, "numbers of nats")
        if entropies.shape not in ((), steps):
            raise ValueError(
                f"entropy_bound must be one number, or one for each of {steps[0]} steps; got shape {entropies.shape}."
            )
        if not isinstance(entropies, jax.core.Tracer) and not np.all(np.isfinite(entropies)):
            raise ValueError("entropy_bound holds numbers that are not finite.")
        entropies = jnp.broadcast_to(entropies, steps)
    return Given(None if states is None else check_states(program, states), bounds, entropies)


def check_states(program: ControlProgram, states: Any) -> Any:
    """Laws of the state with T + 1 rows.

    Raises:
        TypeError, ValueError: they are none.
    """
    assert program.horizon is not None
    rows, sizes = program.horizon + 1, tuple(len(support) for _, support in program.structure.state)
    if program.structure.gaussian:
        if not isinstance(states, tuple | list) or len(states) != 2:
            raise ValueError("states must be (mean, cov) of the state, as exact.marginals(program, policy).state is.")
        n = sum(sizes)
        given = zip(Gaussian._fields, states, strict=True)
        mean, cov = (check_numbers(f"states' {name}", x, "numbers") for name, x in given)
        for name, array, shape in (("mean", mean, (rows, n)), ("cov", cov, (rows, n, n))):
            if array.shape != shape:
                raise ValueError(f"states' {name} has shape {array.shape}; it must be {shape}.")
        return Gaussian(mean, cov)
    array = check_numbers("states", states, "an array of probabilities")
    if array.shape != (rows, *sizes):
        raise ValueError(f"states has shape {array.shape}; it must be {(rows, *sizes)}, as exact.marginals gives them.")
    if not isinstance(array, jax.core.Tracer):
        known = np.asarray(array, float).reshape(rows, -1)
        off = np.where((known >= 0).all(-1), np.abs(known.sum(-1) - 1), np.inf)
        if not off.max() <= ROUGH:
            t = int(np.argmax(off))
            fault = f"sums to {known[t].sum():g}" if (known[t] >= 0).all() else "holds a negative entry or NaN"
            raise ValueError(f"states at t = {t} is no distribution: it {fault}.")
    return array
