"""The log probability of what was seen of trajectories together with optimality, all else summed over.

    p(data, O_{1:T}) = sum over what was not seen of p(s_1) prod_t p(a_t | .) p(s_{t+1} | .) exp(tau r_t)

It is the recursion of the likelihood with more that counts: the first state, every site that was seen, decisions under
their priors, and optimality as data are, tau the inverse temperature that all decisions share. What stands behind the
end of a sequence was not seen, and its optimality counts all the same. With a discount gamma a process that has died
collects no more optimality and goes on under its priors and the true dynamics (Levine 2018, section 2):

    p(data, O) = sum_d p(d) p(data, O_{1:d}),    p(d) = gamma^(d - 1) (1 - gamma),    p(T + 1) = gamma^T,

where T + 1 stands for whoever is alive in the end as well, for the final optimality.
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.algebra.tables import Table
from rlinf_ppl.inference.histories.masses import Known, Seen, Weight, at_row, met
from rlinf_ppl.inference.histories.observed import as_seen, rows_of, steps_of
from rlinf_ppl.inference.histories.plan import plan_of
from rlinf_ppl.inference.histories.recursion import Histories
from rlinf_ppl.inference.histories.weights import Here
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.evaluation import posterior_temperature
from rlinf_ppl.program.forms import Form
from rlinf_ppl.program.point import Part
from rlinf_ppl.program.structure import Structure


def joint_log_prob(program: ControlProgram, data: Mapping[str, Any], lengths: Any) -> Float[Array, " n"]:
    """Log p(data, O_{1:T}) of each sequence, in nats.

    Args:
        program: with a horizon, and decisions that share one inverse temperature.
        data: as `log_prob` takes them; fewer steps than the horizon has are its first ones.
        lengths: how many steps of each sequence there are, (n,); None: as many as there are data for.
    """
    tau = posterior_temperature(program)
    structure = with_optimality(program.structure)
    seen, length = as_seen(structure, data, lengths)
    state, horizon = {name for name, _ in structure.state}, int(structure.horizon or 0)
    seen = over_horizon(structure, seen, length)
    lacking = tuple(name for name in seen if name in state and rows_of(seen[name]) == horizon)
    plan = plan_of(structure, {name: each.there is None for name, each in seen.items()}, (), lacking)
    parts = {name: counted(part) for name, part in program.parts.items()}
    alive, chances = lifetimes(program)
    weight = Weight(jnp.asarray(1.0 if tau is None else tau, dtype=float), alive[0])
    histories = Histories(structure, plan, horizon, False, parts, {}, weight)
    states = {name: each for name, each in seen.items() if name in state}
    sites = {name: each for name, each in seen.items() if name not in state}
    return totals(histories, alive, chances, states, sites)


def posterior_log_prob(joint: Float[Array, " n"], evidence: Float[Array, ""]) -> Float[Array, " n"]:
    """Log p(data | O) from log p(data, O) and log p(O).

    Raises:
        ValueError: optimality cannot be, or a known probability is no number.
    """
    if isinstance(joint, jax.core.Tracer) or isinstance(evidence, jax.core.Tracer):
        return joint - evidence
    if np.isneginf(evidence):
        raise ValueError("optimality, or data of the program, have probability zero: there is no posterior given it.")
    wrong = np.flatnonzero(np.isnan(joint))
    if len(wrong):
        raise ValueError(
            f"the probability of sequence {wrong[0]} is no number: a law is no distribution, a look-up is out of its "
            "array, a state variable that is computed leaves its values, or what is hidden differs in optimality by "
            f"more nats than {joint.dtype} has exponents for ({-np.log(np.finfo(joint.dtype).tiny):.0f})."
        )
    return joint - evidence


@compiled
def totals(
    histories: Histories,
    alive: Bool[Array, "D times"],
    chances: Float[Array, " D"],
    states: dict[str, Seen],
    sites: dict[str, Seen],
) -> Float[Array, " n"]:
    """The log probabilities of all sequences, over all times of death."""

    def one(states: dict[str, Seen], sites: dict[str, Seen]) -> Array:
        def lived(alive: Array) -> Array:
            return total(eqx.tree_at(lambda each: each.weight.alive, histories, alive), states, sites)

        each = jax.vmap(lived)(alive)
        return met(Table(("life",), chances), (Table((), jnp.ones(())), Table(("life",), each)))[1]

    return jax.vmap(one)(states, sites)


def total(histories: Histories, states: dict[str, Seen], sites: dict[str, Seen]) -> Float[Array, ""]:
    """The log probability of one sequence and of optimality together."""
    first, told, last = histories.over_time(states, sites, None, {})
    return sum((jnp.sum(term) for term in (*first.terms.values(), *told.terms.values())), end(histories, states, last))


def end(histories: Histories, states: dict[str, Seen], known: Known) -> Float[Array, ""]:
    """The log of what is said of the last state."""
    part, found = histories.parts.get("final"), jnp.zeros(())
    if part is None:
        return found
    mass = Table(histories.plan.hidden, known.mass)
    last = {name: at_row(states[name], -1).value for name in histories.plan.given}
    at = last | known.computed | {"t": histories.steps}
    here = Here(part, at, histories.supports, {}, histories.weight)
    for site in part.form.sites:
        mass, term = met(mass, here.factor(site, histories.axes(site, {}, mass.axes)))
        found += term
    return found


def lifetimes(program: ControlProgram) -> tuple[Bool[Array, "D times"], Float[Array, " D"]]:
    """For each time to die whether the process is alive at each step and in the end, and the probability of that."""
    horizon = int(program.horizon or 0)
    if not program.structure.discounted:
        return jnp.ones((1, horizon + 1), bool), jnp.ones(1)
    alive = jnp.tril(jnp.ones((horizon + 1, horizon + 1), bool))
    survives = program.discount ** jnp.arange(horizon + 1)
    return alive, jnp.append(survives[:-1] * (1 - program.discount), survives[-1])


def with_optimality(structure: Structure) -> Structure:
    """The same in which optimality is data."""
    final = None if structure.final is None else with_data(structure.final)
    return structure._replace(step=with_data(structure.step), final=final)


def counted(part: Part) -> Part:
    """A part in which optimality is data."""
    return Part(with_data(part.form), part.constants, part.leaves)


def with_data(form: Form) -> Form:
    """The same in which optimality is data, and alone among these tempered."""
    sites = [s._replace(kind="data", tempered=True) if s.kind == "optimality" else s for s in form.sites]
    return form._replace(sites=tuple(sites))


def over_horizon(structure: Structure, seen: dict[str, Seen], length: Array | None) -> dict[str, Seen]:
    """The same with a row for each time of the horizon: nothing was seen behind the end of a sequence.

    States have one more, but where the data end with the last step and the state after it says nothing.
    """
    horizon, steps, found = int(structure.horizon or 0), steps_of(structure, seen), {}
    if length is not None and not isinstance(length, jax.core.Tracer) and np.all(np.asarray(length) == steps):
        length = None
    state = {name for name, _ in structure.state}
    for name, each in seen.items():
        rows = rows_of(each)
        most = horizon + 1 if name in state else horizon
        if length is None and (rows == most or (rows == horizon and structure.final is None)):
            found[name] = each
            continue
        ends = (jnp.full(len(each_first(each)), steps) if length is None else length) + (rows - steps)
        within = jnp.arange(most)[None] < ends[:, None]
        value = jax.tree.map(lambda x, more=most - rows: longer(x, more), each.value)
        found[name] = Seen(value, within if each.there is None else within & longer(each.there, most - rows))
    return found


def longer(x: Array, more: int) -> Array:
    """An array (n, T, ...) with its last row some more times."""
    return jnp.concatenate([x, jnp.repeat(x[:, -1:], more, axis=1)], axis=1)


def each_first(seen: Seen) -> Array:
    """One of the arrays that a variable is made of."""
    return jax.tree.leaves(seen.value)[0]
