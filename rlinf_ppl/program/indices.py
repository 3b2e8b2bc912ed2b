"""Whether the indices that a program computes, such as `reward[t + 1]`, stay inside of its arrays.

Only programs that look up by something else than a variable as it is are evaluated for it.
"""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from rlinf_ppl.algebra import Chain, Table
from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.program.point import Part
from rlinf_ppl.program.supports import is_finite, values_of

Tables = dict[str, list[tuple[str, Table]]]


def checked(parts: Mapping[str, Part], chain: Chain) -> Chain:
    """The chain, not `valid` where traced numbers make an index that is out of its array.

    Raises:
        ValueError: where known numbers make one.
    """
    computing = {name: part for name, part in parts.items() if part.computes_indices}
    if not computing:
        return chain
    flags, anywhere = flagged(computing)
    if isinstance(anywhere, jax.core.Tracer):
        return eqx.tree_at(lambda chain: chain.valid, chain, chain.valid & ~anywhere)
    if anywhere:
        raise ValueError(describe(computing, jax.device_get(flags)))
    return chain


@compiled
def flagged(parts: dict[str, Part]) -> tuple[Tables, Bool[Array, ""]]:
    """For every output over the finite variables that it depends on, whether it looks beyond; and whether any does."""
    found = {name: flags_of(part) for name, part in parts.items()}
    wrong = [jnp.any(table.array) for tables in found.values() for _, table in tables]
    return found, jnp.any(jnp.stack([jnp.asarray(False), *wrong]))


def flags_of(part: Part) -> list[tuple[str, Table]]:
    """What a part gives by name, each with flags over its finite parents; no index depends on a real variable."""

    def flags(what: str, kind: str, name: str, parents: tuple[str, ...]) -> tuple[str, Table]:
        finite = tuple(parent for parent in parents if is_finite(part.supports[parent]))
        return what, Table(finite, part.over(finite, lambda point: point.beyond(kind, name)))

    sites = [(repr(site.name), site.output, site.name, site.parents) for site in part.form.sites]
    taus = [
        (f"the inverse temperature of {site.name!r}", "temperatures", site.name, site.temperature_parents)
        for site in part.form.decisions
    ]
    following = [(f"the next {name!r}", "following", name, parents) for name, _, parents, _ in part.form.following]
    return [flags(*each) for each in (*sites, *taus, *following)]


def describe(parts: Mapping[str, Part], found: Tables) -> str:
    """Which output looks beyond an array, at which values, and what to do."""
    for part, tables in found.items():
        supports = parts[part].supports
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
