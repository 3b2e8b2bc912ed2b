"""Evaluate a program's traced arithmetic: one output over a grid of inputs, and the inverse temperature of all."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rlinf_ppl.algebra import Table, regularizers
from rlinf_ppl.program.sites import Support, first_value, values_of
from rlinf_ppl.program.tracing import Form


def on_grid(
    form: Form,
    constants: tuple[Array, ...],
    leaves: list[Array],
    supports: dict[str, Support],
    index: int,
    parents: tuple[str, ...],
) -> Table:
    """One output of the traced arithmetic over all values of `parents`, the other inputs held at their first value."""

    def value(inputs: list[Array]) -> Array:
        return form.arithmetic(constants, *inputs, *leaves)[index]

    return Table(parents, over_grid(value, form, supports, parents))


def over_grid(
    function: Callable[[list[Array]], Any], form: Form, supports: dict[str, Support], parents: tuple[str, ...]
) -> Any:
    """A function of the inputs over all values of `parents`, an axis each; the others held at their first value."""

    def value(*values: Array) -> Any:
        chosen = dict(zip(parents, values, strict=True))
        return function([chosen.get(name, first_value(supports[name])) for name in form.inputs])

    for i in reversed(range(len(parents))):
        value = jax.vmap(value, in_axes=[0 if j == i else None for j in range(len(parents))])
    return value(*(values_of(supports[name]) for name in parents))


def common_inverse_temperature(program: Any) -> Array | None:
    """The inverse temperature that all decisions share; None where all are the plain number 1.

    Raises:
        ValueError: where they differ, vary in time, are infinite, or are traced and not one and the same number.
    """
    form = program.structure.step
    decisions = [site for site in form.sites if site.kind == "decision"]
    check_joint(program)
    if not any(site.tempered for site in decisions):
        return None
    leaves = jax.tree.leaves(program.args)
    supports = program.supports | program.structure.times()
    known = not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(program))
    # Known numbers stay known where a caller's jit is tracing, such as that of NumPyro's SVI.
    with jax.ensure_compile_time_eval() if known else nullcontext():
        taus = [
            on_grid(form, program.constants[1], leaves, supports, len(form.sites) + i, site.temperature_parents).array
            for i, site in enumerate(decisions)
        ]
    traced = any(isinstance(tau, jax.core.Tracer) for tau in taus)
    if not traced and np.any([np.isinf(tau).any() for tau in taus]):
        raise ValueError(
            f"an inverse temperature of {[site.name for site in decisions]} is infinite; then there is no joint model "
            "to condition or to sample: exact.solve works."
        )
    if form.shared_temperature and taus[0].ndim == 0:
        return taus[0]
    if traced:
        raise ValueError(
            "the inverse temperatures are traced and not one number, so they cannot be compared; "
            "conditioning and prog.model need one inverse temperature: give every decide the same one."
        )
    every = np.concatenate([np.ravel(tau) for tau in taus])
    if not np.all(every == every[0]):
        raise ValueError(
            f"the inverse temperatures of {[site.name for site in decisions]} differ: {every}; then there is no joint "
            "model to condition or to sample: exact.solve, exact.elbo and svi.fit work."
        )
    return jnp.asarray(every[0])


def posterior_temperature(program: Any) -> Array | None:
    """The same, for a posterior that is eliminated decision by decision.

    Raises:
        ValueError: as above, and where a decision does not see another.
    """
    for site in program.structure.step.sites:
        if site.unseen:
            raise ValueError(
                f"the decision {site.name!r} does not see {list(site.unseen)}, but given optimality they are "
                "correlated, and no policies of the state alone are their posterior: exact.solve and svi.fit find the "
                "best of those. Leave unseen out for players who move in sequence."
            )
    return common_inverse_temperature(program)


def check_joint(program: Any) -> None:
    """Raise where a decision pays something else than its KL from the prior: then there is no joint model."""
    for site in program.structure.step.sites:
        if site.regularizer != regularizers.kl:
            raise ValueError(
                f"the decision {site.name!r} is regularized by {site.regularizer.name}, not by its KL from the prior; "
                "then there is no joint model to condition or to sample: exact.solve and svi.fit work."
            )
