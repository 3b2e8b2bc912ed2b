"""What follows from parameters: predictions of what is done, trial by trial, and behaviour of the same kind."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import lax
from jaxtyping import Array, PRNGKeyArray

from rlinf_ppl.behaviour.likelihood import Likelihood, Parameters
from rlinf_ppl.behaviour.panel import Panel
from rlinf_ppl.inference import exact
from rlinf_ppl.inference.histories.simulated import simulated_under
from rlinf_ppl.inference.sites import is_rewarded
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.recorded import recorded, recorded_parents
from rlinf_ppl.program.supports import first_value, is_finite, positions_of, values_of

Draws = Mapping[str, Any]


def averaged(function: Callable[[Parameters], Any], draws: Draws) -> Any:
    """The mean of a function over draws of parameters, which lead their arrays."""
    mean = jax.jit(lambda draws: jax.tree.map(lambda x: jnp.mean(x, 0), lax.map(function, draws)))
    return jax.tree.map(np.asarray, mean(dict(draws)))


def predicted(panel: Panel, likelihood: Likelihood, draws: Draws) -> pd.DataFrame:
    """For each row of the panel the probability of each alternative, in the order that was given."""
    found = averaged(lambda parameters: likelihood.of_each(likelihood.told, parameters).foreseen, draws)
    supports = likelihood.program(first_of(draws)).supports
    tables = {
        name: pd.DataFrame(
            panel.rows(array), panel.frame.index, pd.Index(np.asarray(values_of(supports[name])).tolist(), name=name)
        )
        for name, array in found.items()
    }
    whole = next(iter(tables.values())) if len(tables) == 1 else pd.concat(tables, axis=1, names=["site", "value"])
    return panel.as_given(whole)


def trials(panel: Panel, likelihood: Likelihood, draws: Draws) -> pd.DataFrame:
    """What goes on at each row: what was learned so far, what was to be expected, what was surprising.

    Returns:
        In the order of the rows that were given, where they are known: the state variables that are computed; of each
        decision the `entropy` before and the `surprise` of what was taken, in nats; `reward`, `value` of the state
        and `prediction_error` = reward + discount * next value - value, in units of optimality, of programs that are
        planned; and whatever the step says by `numpyro.deterministic`.
    """
    program = likelihood.program(first_of(draws))
    said, planned = recorded_parents(program), likelihood.own_policy is None and is_rewarded(program)

    def one(parameters: Parameters, data: Any, lengths: Any, available: Any, follows: Any) -> dict[str, Array]:
        program = likelihood.program(parameters)
        told = likelihood.told(parameters, data, lengths, available, follows)
        found = {name: x for name, x in told.states.items() if name not in likelihood.data}
        for name, p in told.foreseen.items():
            found[f"entropy_{name}"] = -jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1.0)), 0.0), -1)
        for name, term in told.terms.items():
            there = data[name][1] if isinstance(data.get(name), tuple) else True
            found[f"surprise_{name}"] = jnp.where(there, -term, jnp.nan)
        at, known = values_at(program, told.states, data, follows)
        more = along(program, at, known, said, lambda at: recorded(program, at))
        own = found | (worth(program, at, known, follows) if planned else {})
        twice = sorted(own.keys() & more.keys())
        if twice:
            raise ValueError(f"the step records {twice}, which states() has of its own: give these other names.")
        return own | more

    found = averaged(lambda parameters: likelihood.of_each(one, parameters), draws)
    columns = {}
    for name, array in found.items():
        rows = panel.rows(array)
        for place in np.ndindex(rows.shape[1:]):
            label = name if not place else f"{name}[{', '.join(map(str, place))}]"
            columns[label] = rows[(slice(None), *place)]
    return panel.as_given(pd.DataFrame(columns, panel.frame.index))


def values_at(
    program: ControlProgram, states: Mapping[str, Array], data: Any, follows: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of a program's variables at each row, (n, T, ...), and where each is known, (n, T)."""
    n, steps = jax.tree.leaves(data)[0].shape[:2]
    time, everywhere = jnp.broadcast_to(jnp.arange(steps), (n, steps)), jnp.ones((n, steps), bool)
    at, known = {"t": time, **states}, {"t": everywhere} | dict.fromkeys(states, everywhere)
    for site in program.structure.step.latent:
        if site.name in data:
            entry = data[site.name]
            at[site.name], known[site.name] = entry if isinstance(entry, tuple) else (entry, everywhere)
    for following in program.structure.step.following:
        drawn, name = following.source, following.name
        if drawn is not None and drawn not in at and name in states:
            at[drawn], known[drawn] = ahead(states[name]), follows
    return at, known


def ahead(over_time: Any) -> Any:
    """What stands one step later; at the end anything."""
    return jax.tree.map(lambda x: jnp.concatenate([x[:, 1:], x[:, -1:]], 1), over_time)


def along(
    program: ControlProgram,
    at: dict[str, Any],
    known: dict[str, Any],
    parents: Mapping[str, Iterable[str]],
    function: Callable[[dict[str, Any]], dict[str, Any]],
) -> dict[str, Array]:
    """A function of the values at each row, as far as what each of its results depends on is known; NaN in places."""
    names = [name for name, depends in parents.items() if at.keys() >= set(depends)]
    if not names:
        return {}
    supports = program.structure.supports()

    def one(values: dict[str, Any]) -> dict[str, Array]:
        found = function({name: first_value(support) for name, support in supports.items()} | values)
        return {name: jnp.asarray(found[name], dtype=float) for name in names}

    found = jax.vmap(jax.vmap(one))(at)
    for name in names:
        there = jnp.all(jnp.stack([known["t"], *(known[each] for each in parents[name])]), 0)
        found[name] = jnp.where(there.reshape(*there.shape, *[1] * (found[name].ndim - 2)), found[name], jnp.nan)
    return found


def worth(program: ControlProgram, at: dict[str, Any], known: dict[str, Any], follows: Any) -> dict[str, Array]:
    """Reward, value and prediction error at each row, of programs that are planned."""
    step, structure = program.parts["step"], program.structure
    factors = {site.name: site.parents for site in structure.step.sites if site.kind == "optimality"}
    rewards = along(program, at, known, factors, lambda at: {name: step.at(at).factor(name) for name in factors})
    found = {} if rewards.keys() != factors.keys() else {"reward": sum(rewards.values(), start=jnp.zeros(()))}
    places = [positions_of(support, at[name]) for name, support in structure.state if is_finite(support) and name in at]
    if len(places) < len(structure.state):
        return found
    values = exact.solve(program).value
    now = values[tuple(places)] if structure.horizon is None else values[(at["t"], *places)]
    last = jnp.nan if structure.horizon is None or structure.final is not None else 0.0
    ends = jnp.where(at["t"] + 1 == (structure.horizon or 0), last, jnp.nan)
    following = jnp.where(follows, ahead(now), ends)
    found["value"] = now
    if "reward" in found:
        found["prediction_error"] = found["reward"] + program.discount * following - now
    return found


def repeated(panel: Panel, likelihood: Likelihood, parameters: Parameters, key: PRNGKeyArray | Array) -> pd.DataFrame:
    """Behaviour of the same ids at the same times, drawn anew: it begins where each was first seen.

    Raises:
        ValueError: alternatives were out of reach at some times, which a simulation leads elsewhere at.
    """
    if panel.available:
        raise ValueError("which alternatives are available is known of the trials that were seen, not of new ones.")
    first = likelihood.program(parameters).structure.state
    begun = {name: first_row(panel.data[name]) for name, _ in first if name in panel.data}
    steps = panel.weights.shape[1]

    def one(parameters: Parameters, begun: Any, key: Array, n: int) -> dict[str, Array]:
        program = likelihood.program(parameters)
        found: dict[str, Array] = simulated_under(program, likelihood.laws(program, parameters), key, n, steps, begun)
        return found

    if likelihood.designs:
        shared = {name: value for name, value in parameters.items() if name not in likelihood.designs}
        keys = jax.random.split(key, len(panel.ids))
        rows = jax.tree.map(lambda x: jnp.asarray(x)[:, None], begun)
        drawn = jax.vmap(lambda own, begun, key: one(shared | own, begun, key, 1))(
            likelihood.each(parameters), rows, keys
        )
        drawn = jax.tree.map(lambda x: x[:, 0], drawn)
    else:
        drawn = one(parameters, begun, key, len(panel.ids))
    frame = panel.frame.copy()
    for name, column in panel.reading.variables.items():
        frame[column] = panel.rows(drawn[name][:, :steps])
    return panel.as_given(frame)


def first_row(entry: Any) -> tuple[np.ndarray, np.ndarray]:
    """The first value of each sequence, and whether it was seen."""
    values, there = entry if isinstance(entry, tuple) else (entry, np.ones(np.shape(entry)[:2], bool))
    return values[:, 0], there[:, 0]


def first_of(draws: Draws) -> dict[str, Any]:
    """The first one."""
    return {name: value[0] for name, value in draws.items()}
