"""Read a program as tables: evaluate its traced arithmetic over the values of what each site depends on.

A site's table is the jaxpr's output, vmapped over its parents only; what is not needed for it XLA drops. `numbers`
checks what they hold.
"""

import dataclasses
import math
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from rlinf_ppl.algebra import Chain, Conditional, Site, Slice, Table
from rlinf_ppl.algebra.arrivals import FiniteArrival
from rlinf_ppl.algebra.compiled import compiled, in_all_digits
from rlinf_ppl.program.control_program import ControlProgram
from rlinf_ppl.program.evaluation import Numbers, in_units, numbers_of, temperature_of
from rlinf_ppl.program.forms import SiteForm
from rlinf_ppl.program.indices import checked
from rlinf_ppl.program.laws import probs_of
from rlinf_ppl.program.linear import read_gaussian
from rlinf_ppl.program.numbers import check, find_bad, rescaled
from rlinf_ppl.program.point import Part, Point
from rlinf_ppl.program.readable import check_readable
from rlinf_ppl.program.structure import Structure
from rlinf_ppl.program.supports import Support, positions_of

MOST_ENTRIES = 2**31 - 1


@in_all_digits
def read(program: ControlProgram, impossible: bool = False, optimality: bool = True) -> Chain:
    """The program as laws and factors over named finite variables.

    Args:
        program: any program.
        impossible: whether factors may be minus infinity, as data and hard constraints are that cannot be met: given
            them there is a posterior all the same.
        optimality: whether optimality is read; without it there are data alone, in nats.

    Raises:
        TypeError: it is no program.
        ValueError: where a site is neither finite nor Gaussian, or both kinds stand together; where data stand beside
            several inverse temperatures; where
            concrete arrays hold a row that is no distribution, a factor that is not finite, or a next value outside
            its support, or are looked up by an index that is out of them; and where a table would be too large to
            hold. Under tracing the chain is not `valid` where numbers are wrong, and results say so by `converged`.
    """
    check_program(program)
    check_readable(program.structure)
    if program.structure.gaussian:
        return checked(program.parts, read_gaussian(program, impossible, optimality))
    check_entries(program.structure)
    numbers = numbers_of(program, optimality)
    return read_tables(program, numbers, impossible)


def read_decided(program: ControlProgram) -> Chain:
    """What stands up to a step's last decision, as tables, beside the last factors; nothing that follows is read.

    Raises:
        ValueError: as `read` does, of this part.
    """
    numbers = numbers_of(program)
    first, step = numbers.parts["initial"], numbers.parts["step"]
    last = max(i for i, site in enumerate(step.form.sites) if site.kind == "decision")
    forms = (
        first.form._replace(sites=(), following=()),
        step.form._replace(sites=step.form.sites[: last + 1], following=()),
    )
    structure = numbers.structure._replace(initial=forms[0], step=forms[1])
    check_readable(structure)
    check_entries(structure)
    parts = numbers.parts | {
        "initial": Part(forms[0], first.constants, first.leaves),
        "step": Part(forms[1], step.constants, step.leaves),
    }
    return read_tables(program, numbers._replace(structure=structure, parts=parts), False)


def read_tables(program: ControlProgram, numbers: Numbers, impossible: bool) -> Chain:
    """A chain of tables, its numbers checked."""
    chain = checked(numbers.parts, tabulate(*numbers))
    initial, step = (filled(getattr(chain, name), numbers.parts[name]) for name in ("initial", "step"))
    chain = dataclasses.replace(chain, initial=initial, step=step)
    bad, rough = find_bad(chain, impossible)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(bad)):
        return eqx.tree_at(lambda chain: chain.valid, chain, ~jnp.any(jnp.stack(jax.tree.leaves(bad))))
    bad, rough = jax.device_get((bad, rough))
    check(program, chain, bad)
    return rescaled(chain) if rough else chain


def check_program(program: Any) -> None:
    """Raise on something else than a program.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(program, ControlProgram):
        raise TypeError(
            f"an engine takes a ControlProgram first, not its model and not its task; got {type(program).__name__}. "
            "models.single_agent(task, horizon) makes a program of a task."
        )


def check_entries(structure: Structure) -> None:
    """Raise where a site's table, or the policy of a decision, would have too many entries to hold."""
    sizes = {name: len(support) for name, support in (structure.supports() | structure.times()).items()}
    tables = {f"table of {site.name!r}": (*site.parents, site.name) for site in structure.step.latent}
    tables |= {f"policy of {name!r}": (*structure.times(), *scope, name) for name, scope in structure.scopes}
    for table, axes in tables.items():
        if math.prod(sizes[axis] for axis in axes) > MOST_ENTRIES:
            shape = ", ".join(f"{axis}: {sizes[axis]}" for axis in axes)
            raise ValueError(
                f"the {table} varies with ({shape}), which is more than {MOST_ENTRIES} entries; let it depend on less, "
                "or split the step into sites that each depend on a few variables."
            )


@compiled
def tabulate(structure: Structure, discount: Array, parts: dict[str, Part], unit: Array | None) -> Chain:
    """Evaluate every site of a program over its parents; compiled once for all programs of one structure."""
    state = dict(structure.state)
    sites = {name: tabulate_part(part, unit, dict(structure.together)) for name, part in parts.items()}
    initial, starts_inside = arrivals(parts["initial"], sites["initial"], state)
    step, stays_inside = arrivals(parts["step"], sites["step"], state)
    alive = None
    if structure.discounted:
        law = jnp.stack([1.0 - discount, discount])
        alive = Site("alive", "chance", Conditional("alive", Table(("alive",), law)))
    return Chain(
        initial=initial,
        step=step,
        final=sites.get("final", ()),
        alive=alive,
        valid=starts_inside & stays_inside,
        horizon=structure.horizon,
        state=tuple(state),
        carried=structure.carried,
        scopes=structure.scopes,
        hidden=structure.hidden,
        sizes=tuple((name, len(support)) for name, support in structure.supports().items()),
        zero=Table((), jnp.zeros(())),
    )


def filled(part: Slice, program: Part) -> Slice:
    """Put in the tables that are arrays of the program already; passed through compiled code they would be copied."""
    found = {i: site.array for i, site in enumerate(program.form.sites) if site.array is not None}
    arrays = [*program.constants, *program.leaves]
    tables = [arrays[position] for position in found.values()]
    if not found:
        return part
    return eqx.tree_at(lambda part: [part.sites[i].content.table.array for i in found], part, tables)


def tabulate_part(part: Part, unit: Array | None, together: dict[str, tuple[str, ...]]) -> tuple[Site, ...]:
    """The sites of one part as tables, with `unit` nats in a unit of optimality."""

    def content(site: SiteForm) -> Table | Conditional:
        if site.is_factor:
            factor = part.over(site.parents, lambda point: point.factor(site.name))
            return Table(site.parents, in_units(site, factor, unit))
        law = jnp.zeros(())
        if site.array is None:
            law = part.over(site.parents, lambda point: probs_of(point.law(site.name)))
        return Conditional(site.name, Table((*site.parents, site.name), law), site.regularizer)

    def tau(site: SiteForm) -> Table | None:
        return Table(site.temperature_parents, temperature_of(part, site)) if site.tempered else None

    return tuple(
        Site(site.name, site.kind, content(site), tau(site), together.get(site.name, ())) for site in part.form.sites
    )


def arrivals(part: Part, sites: tuple[Site, ...], state: dict[str, Support]) -> tuple[Slice, Array]:
    """The slice with its arrival, and whether all next values lie in the support."""
    sources: list[tuple[str, str | None]] = []
    positions: dict[str, Table] = {}
    inside = jnp.asarray(True)
    for name, source, parents, _ in part.form.following:
        if source is not None and part.supports[source] == state[name]:
            sources.append((name, source))
            continue
        sources.append((name, None))
        next_values = part.over(parents, partial(Point.following, name=name))
        positions[name] = Table(parents, positions_of(state[name], next_values))
        inside &= jnp.all(positions[name].array < len(state[name]))
    return Slice(sites, FiniteArrival(tuple(sources), positions)), inside
