"""The inverse temperature that all decisions of a program share."""

from contextlib import nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rlinf_ppl.algebra import regularizers
from rlinf_ppl.program.forms import SiteForm
from rlinf_ppl.program.point import Part


def common_inverse_temperature(program: Any) -> Array | None:
    """The inverse temperature that all decisions share; None where all are the plain number 1.

    Raises:
        ValueError: where they differ, vary in time, are infinite, or are traced and not one and the same number.
    """
    form = program.structure.step
    decisions = form.decisions
    check_joint(program)
    if not any(site.tempered for site in decisions):
        return None
    step: Part = program.parts["step"]
    known = not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(program))
    # Known numbers stay known where a caller's jit is tracing, such as that of NumPyro's SVI.
    with jax.ensure_compile_time_eval() if known else nullcontext():
        taus = [temperature_of(step, site) for site in decisions]
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
            f"the inverse temperatures of {[site.name for site in decisions]} differ, between decisions or steps: "
            f"{every}; then there is no joint model to condition or to sample: exact.solve, exact.elbo, svi.fit work."
        )
    return jnp.asarray(every[0])


def temperature_of(step: Part, site: SiteForm) -> Array:
    """The inverse temperature of a decision, over time where it depends on it."""
    return step.over(site.temperature_parents, lambda point: point.temperature(site.name))


def nats_per_unit(program: Any) -> Array | None:
    """How many nats of data a unit of optimality is worth: the inverse temperature that decisions share; None: 1.

    Raises:
        ValueError: there are data, and decisions do not share an inverse temperature, or it is 0.
    """
    forms = [form for form in (program.structure.step, program.structure.final) if form is not None]
    data = [site.name for form in forms for site in form.sites if site.kind == "data"]
    if not data or not any(site.tempered for site in program.structure.step.sites):
        return None
    try:
        unit = common_inverse_temperature(program)
    except ValueError as error:
        raise ValueError(
            f"{data} are data, in nats, and rewards count 1 / inverse temperature of that, which all decisions have to "
            f"share then: {error}"
        ) from error
    if not isinstance(unit, jax.core.Tracer) and np.any(np.asarray(unit) == 0):
        raise ValueError(
            f"{data} are data, in nats; at an inverse temperature of 0 rewards have no unit in common. Optimality says "
            "nothing there: leave it out, or call smc.run, or exact.filtered."
        )
    return unit


def in_nats(program: Any, drawn: dict[str, Array]) -> dict[str, Array]:
    """Drawn trajectories with the log probabilities of data in nats, which programs are read without."""
    unit = nats_per_unit(program)
    data = {site.name for site in program.structure.step.sites if site.kind == "data"}
    return {name: x if unit is None or name not in data else unit * x for name, x in drawn.items()}


class Numbers(NamedTuple):
    """What a program is read from: its shape, its numbers, and how many nats of data a unit of optimality is worth."""

    structure: Any
    discount: Array
    parts: dict[str, Part]
    unit: Array | None


def numbers_of(program: Any, optimality: bool = True) -> Numbers:
    """What a program is read from.

    Args:
        program: any program.
        optimality: whether its optimality is part of it, and so are the inverse temperatures; without it all is nats.
    """
    if optimality:
        return Numbers(program.structure, program.discount, program.parts, nats_per_unit(program))
    parts = {name: without_optimality(part) for name, part in program.parts.items()}
    forms = {name: part.form for name, part in parts.items()}
    return Numbers(program.structure._replace(**forms), program.discount, parts, None)


def without_optimality(part: Part) -> Part:
    """A part without its optimality, and with decisions at an inverse temperature of 1."""
    kept = [site._replace(tempered=False, temperature_parents=()) for site in part.form.sites]
    sites = tuple(site for site in kept if site.kind != "optimality")
    return Part(part.form._replace(sites=sites), part.constants, part.leaves)


def in_units(site: SiteForm, factor: Array, unit: Array | None) -> Array:
    """A factor in units of optimality."""
    return factor if unit is None or site.kind != "data" else factor / unit


def posterior_temperature(program: Any) -> Array | None:
    """The same, for a posterior that is eliminated decision by decision.

    Raises:
        ValueError: as above, and where a decision does not see another.
    """
    for name, unseen in (*program.structure.together, *program.structure.hidden):
        raise ValueError(
            f"the decision {name!r} does not see {list(unseen)}, but given optimality they are correlated, and no "
            "policy of what it sees is its posterior: svi.fit finds the best of those. Leave unseen out for a decision "
            "that sees them."
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
