"""Read a program as tables: evaluate its traced arithmetic over the values of what each site depends on.

A site's table is the jaxpr's output, vmapped over its parents only; what is not needed for it XLA drops. `numbers`
checks what they hold.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from rlinf_ppl.algebra import Arrival, Chain, Conditional, Site, Slice, Table
from rlinf_ppl.program.checks import check_one_algebra
from rlinf_ppl.program.control_program import ControlProgram, Structure
from rlinf_ppl.program.evaluation import on_grid
from rlinf_ppl.program.indices import checked
from rlinf_ppl.program.linear import read_gaussian
from rlinf_ppl.program.numbers import check, find_bad
from rlinf_ppl.program.sites import Support, positions_of
from rlinf_ppl.program.tracing import Form

MOST_ENTRIES = 2**31 - 1


def read(program: ControlProgram, impossible: bool = False) -> Chain:
    """The program as laws and factors over named finite variables.

    Args:
        program: any program.
        impossible: whether factors may be minus infinity, as data and hard constraints are that cannot be met: given
            them there is a posterior all the same.

    Raises:
        TypeError: it is no program.
        ValueError: where finite and Gaussian sites stand together, or data beside an inverse temperature; where
            concrete arrays hold a row that is no distribution, a factor that is not finite, or a next value outside
            its support, or are looked up by an index that is out of them; and where a table would be too large to
            hold. Under tracing the chain is not `valid` where numbers are wrong, and results say so by `converged`.
    """
    check_program(program)
    check_one_algebra(program.structure.initial, program.structure.step)
    check_observed(program.structure)
    leaves = jax.tree.leaves(program.args)
    if program.structure.gaussian:
        chain = read_gaussian(program)
        return checked(program.structure, leaves, program.constants, chain)
    check_entries(program.structure)
    chain = tabulate(program.structure, program.discount, leaves, program.constants)
    chain = checked(program.structure, leaves, program.constants, chain)
    parts = program.structure.initial, program.structure.step
    whole = tuple(
        filled(part, form, [*constants, *leaves])
        for part, form, constants in zip((chain.initial, chain.step), parts, program.constants[:2], strict=True)
    )
    chain = eqx.tree_at(lambda chain: (chain.initial, chain.step), chain, whole)
    bad = find_bad(chain, impossible)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(bad)):
        return eqx.tree_at(lambda chain: chain.valid, chain, ~jnp.any(jnp.stack(jax.tree.leaves(bad))))
    check(program, chain, jax.device_get(bad))
    return chain


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


def check_observed(structure: Structure) -> None:
    """Raise where data are counted in nats and optimality in other units."""
    data = [site.name for form in (structure.step, structure.final) if form for site in form.sites if site.observed]
    tempered = [site.name for site in structure.step.sites if site.tempered]
    if data and tempered:
        raise ValueError(
            f"{data} are data, in nats, and the decisions {tempered} have an inverse temperature: the exact engine and "
            "svi.fit would multiply both by it. Multiply the reward by it instead, or use smc.run."
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


@eqx.filter_jit
def tabulate(structure: Structure, discount: Array, leaves: list[Array], constants: tuple[Any, ...]) -> Chain:
    """Evaluate every site of a program over its parents; compiled once for all programs of one structure."""
    state = dict(structure.state)
    supports = structure.supports() | structure.times()
    first = tabulate_part(structure.initial, constants[0], leaves, structure.initial.supports())
    every = tabulate_part(structure.step, constants[1], leaves, supports)
    last: tuple[Site, ...] = ()
    if structure.final is not None:
        last = tabulate_part(structure.final, constants[2], leaves, state)[0]
    initial, starts_inside = arrivals(structure.initial, first, structure.initial.supports(), state)
    step, stays_inside = arrivals(structure.step, every, supports, state)
    alive = None
    if structure.discounted:
        law = jnp.stack([1.0 - discount, discount])
        alive = Site("alive", "chance", Conditional("alive", Table(("alive",), law)))
    return Chain(
        initial=initial,
        step=step,
        final=last,
        alive=alive,
        valid=starts_inside & stays_inside,
        horizon=structure.horizon,
        state=tuple(state),
        carried=structure.carried,
        scopes=structure.scopes,
        sizes=tuple((name, len(support)) for name, support in structure.supports().items()),
        zero=Table((), jnp.zeros(())),
    )


def filled(part: Slice, form: Form, arrays: list[Array]) -> Slice:
    """Put in the tables that are arrays of the program already; passed through compiled code they would be copied."""
    found = {i: site.array for i, site in enumerate(form.sites) if site.array is not None}
    tables = [arrays[position] for position in found.values()]
    return eqx.tree_at(lambda part: [part.sites[i].content.table.array for i in found], part, tables)


def tabulate_part(
    form: Form, constants: tuple[Array, ...], leaves: list[Array], supports: dict[str, Support]
) -> tuple[tuple[Site, ...], list[Table]]:
    """The sites of one part as tables, and the next values of the state variables."""
    decisions = [site for site in form.sites if site.kind == "decision"]

    def output(index: int, parents: tuple[str, ...]) -> Table:
        return on_grid(form, constants, leaves, supports, index, parents)

    taus = {
        site.name: output(len(form.sites) + i, site.temperature_parents)
        for i, site in enumerate(decisions)
        if site.tempered
    }
    sites = []
    for i, site in enumerate(form.sites):
        table = output(i, site.parents) if site.array is None else Table(site.parents, jnp.zeros(()))
        content: Table | Conditional = table
        if site.kind != "optimality":
            law = Table((*table.axes, site.name), table.array)
            content = Conditional(site.name, law, site.regularizer)
        sites.append(Site(site.name, site.kind, content, taus.get(site.name), site.unseen))
    after = len(form.sites) + len(decisions)
    return tuple(sites), [output(after + i, following.parents) for i, following in enumerate(form.following)]


def arrivals(
    form: Form, read: tuple[tuple[Site, ...], list[Table]], supports: dict[str, Support], state: dict[str, Support]
) -> tuple[Slice, Array]:
    """The slice with its arrival, and whether all next values lie in the support."""
    sources: list[tuple[str, str | None]] = []
    positions: dict[str, Table] = {}
    inside = jnp.asarray(True)
    for following, table in zip(form.following, read[1], strict=True):
        name, source = following.name, following.source
        if source is not None and supports[source] == state[name]:
            sources.append((name, source))
            continue
        sources.append((name, None))
        positions[name] = Table(table.axes, positions_of(state[name], table.array))
        inside &= jnp.all(positions[name].array < len(state[name]))
    return Slice(read[0], Arrival(tuple(sources), positions)), inside
