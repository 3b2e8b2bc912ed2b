"""Whether the indices that a program computes, such as `reward[t + 1]`, stay inside of its arrays.

Only programs that look up by something else than a variable as it is are evaluated for it.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from rlinf_ppl.algebra import Chain, Table
from rlinf_ppl.program.bounds import computes_indices, evaluate, inside
from rlinf_ppl.program.control_program import Structure
from rlinf_ppl.program.evaluation import over_grid
from rlinf_ppl.program.sites import Real, Support, values_of
from rlinf_ppl.program.tracing import Form

Tables = dict[str, list[tuple[str, Table]]]


def checked(structure: Structure, leaves: list[Array], constants: tuple[Any, ...], chain: Chain) -> Chain:
    """The chain, not `valid` where traced numbers make an index that is out of its array.

    Raises:
        ValueError: where known numbers make one.
    """
    if not any(form is not None and computes(form) for form in (structure.initial, structure.step, structure.final)):
        return chain
    flags, anywhere = flagged(structure, leaves, constants)
    if isinstance(anywhere, jax.core.Tracer):
        return eqx.tree_at(lambda chain: chain.valid, chain, chain.valid & ~anywhere)
    if anywhere:
        raise ValueError(describe(structure, jax.device_get(flags)))
    return chain


def computes(form: Form) -> bool:
    """Whether a form looks up by an index that is no variable as it is."""
    return computes_indices(form.arithmetic.jaxpr, len(form.inputs))


def beyond(form: Form, constants: tuple[Array, ...], inputs: list[Array]) -> list[Bool[Array, ""]]:
    """For every output of a form whether a look-up that it depends on is out of its array."""
    jaxpr = form.arithmetic.jaxpr
    if not computes(form):
        return [inside()] * len(jaxpr.outvars)
    return evaluate(jaxpr, constants, inputs, [inside()] * len(inputs))[1]


def outputs(form: Form) -> list[tuple[str, tuple[str, ...]]]:
    """What every output of a form is, and the variables that it depends on."""
    sites = [(repr(site.name), site.parents) for site in form.sites]
    decisions = [site for site in form.sites if site.kind == "decision"]
    taus = [(f"the inverse temperature of {site.name!r}", site.temperature_parents) for site in decisions]
    return [*sites, *taus, *((f"the next {following.name!r}", following.parents) for following in form.following)]


def known(structure: Structure, form: Form) -> dict[str, Support]:
    """The values of all that a form may depend on."""
    return structure.supports() | structure.times() | form.supports()


@eqx.filter_jit
def flagged(structure: Structure, leaves: list[Array], constants: tuple[Any, ...]) -> tuple[Tables, Bool[Array, ""]]:
    """For every output over the finite variables that it depends on, whether it looks beyond; and whether any does."""
    found: Tables = {}
    for part, own in zip(("initial", "step", "final"), constants, strict=True):
        form = getattr(structure, part)
        if form is not None and computes(form):
            found[part] = flags_of(form, own, leaves, known(structure, form))
    return found, jnp.any(jnp.stack([jnp.any(table.array) for tables in found.values() for _, table in tables]))


def flags_of(
    form: Form, constants: tuple[Array, ...], leaves: list[Array], supports: dict[str, Support]
) -> list[tuple[str, Table]]:
    """A form's outputs by name, each with flags over its finite parents; no index depends on a real variable."""
    finite = [
        (name, tuple(parent for parent in parents if not isinstance(supports[parent], Real)))
        for name, parents in outputs(form)
    ]

    def flags(inputs: list[Array]) -> list[Bool[Array, ""]]:
        return beyond(form, constants, [*inputs, *leaves])

    # Outputs of the same parents share a grid: the whole form is evaluated on each.
    grids = {
        parents: over_grid(flags, form, supports, parents)
        for parents in dict.fromkeys(parents for _, parents in finite)
    }
    return [(name, Table(parents, grids[parents][i])) for i, (name, parents) in enumerate(finite)]


def describe(structure: Structure, found: Tables) -> str:
    """Which output looks beyond an array, at which values, and what to do."""
    for part, tables in found.items():
        supports = known(structure, getattr(structure, part))
        for name, table in tables:
            places = np.argwhere(table.array)
            if len(places):
                chosen = zip(table.axes, places[0], strict=True)
                values = [f"{axis} = {values_of(supports[axis])[int(i)]}" for axis, i in chosen]
                where = f" at {', '.join(values)}" if table.axes else ""
                return (
                    f"{part}: {name}{where} looks up an array by an index that is out of its axis; JAX would silently "
                    "take its last position, or drop what is written there. Clip the index, choose by jnp.where, or "
                    "make the array longer."
                )
    raise AssertionError("no index is out of its axis")
