"""Answers as labelled arrays for ArviZ, and on disk as netCDF.

One set of xarray datasets, under both of ArviZ's interfaces: `to_inference_data` for ArviZ before 1.0, `to_datatree`
for 1.0 and later (and for arviz-base); `native` picks the one that the installed ArviZ reads. A file holds one
netCDF group for each dataset, which is what both interfaces expect.

    posterior      trajectories drawn from the fitted guide:         (chain, draw, time) or (chain, draw, instant)
    sample_stats   the optimality factors along them, in nats:       (chain, draw, time)
    conditioned    trajectories drawn from p(trajectory | optimal):  the same axes
    policies       policy_<decision>: (answer, time, scope..., decision); answer is exact, fit or conditioned
    values         value: (answer, instant, state variables...), answer is exact or conditioned; its attribute `units`
                   says nats, or units of reward where the decisions share no inverse temperature

Of vectors, trajectories have an axis of coordinates more, and policies and values come in parts: gain, offset, cov and
matrix, vector, scalar (see `kinds`).

`time` numbers the T decisions, `instant` the T + 1 states. At an infinite horizon policies and values have neither, and
trajectories are those of the program with an end that covers the discount: the attribute `sampled_steps` says when it
comes, `alive_at_the_end` how probable it is to live on beyond it. What there is no posterior for is left out.

Optimality factors are rewards, not the likelihood of data: there is no log_likelihood group, so that a leave-one-out
estimate cannot count them by accident.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Array

from rlinf_ppl.files import written_whole
from rlinf_ppl.inference import exact
from rlinf_ppl.labelled import native as native
from rlinf_ppl.labelled import to_datatree as to_datatree
from rlinf_ppl.report import horizons, kinds
from rlinf_ppl.report.recovery import Answers, nats_per_unit

if TYPE_CHECKING:
    import xarray

DRAWS = 500


def datasets(answers: Answers, key: Array, num_draws: int = DRAWS) -> dict[str, xarray.Dataset]:
    """Everything that the answers say, as named datasets.

    Args:
        answers: The solution, the fit and the posterior of one case.
        key: The random key of the trajectories.
        num_draws: The number of trajectories from the fitted guide, and again from the posterior given optimality.

    Returns:
        The datasets by group: posterior, sample_stats, conditioned (where there is a posterior), policies, values.
    """
    key_guide, key_posterior = jax.random.split(key)
    program = horizons.ended(answers.program)
    steps = program.horizon
    assert steps is not None
    latent = {*program.sizes, "alive"}
    unit = nats_per_unit(program)
    data = {site.name for site in program.structure.step.sites if site.kind == "data"}
    drawn = exact.sample(program, key_guide, answers.fit.policy, num_draws)
    samples = {
        "posterior": {name: drawn[name] for name in drawn if name in latent},
        "sample_stats": {name: unit * drawn[name] for name in drawn if name not in latent and name not in data},
    }
    if data:
        samples["log_likelihood"] = {name: unit * drawn[name] for name in drawn if name in data}
    if answers.posterior is not None:
        conditioned = exact.posterior_sample(program, key_posterior, num_draws)
        samples["conditioned"] = {name: conditioned[name] for name in conditioned if name in latent}
    names = kinds.labels(program, axis_names(answers))
    groups = {name: trajectories(arrays, steps, names) for name, arrays in samples.items()}
    groups |= {"policies": policies(answers), "values": values(answers)}
    return {name: group.assign_attrs(attributes(answers, steps)) for name, group in groups.items()}


def attributes(answers: Answers, sampled_steps: int) -> dict[str, Any]:
    """What is said of every dataset; an infinite horizon is the float infinity, which netCDF can hold."""
    case, discount = answers.case, float(answers.program.discount)
    beta = float(nats_per_unit(answers.program)) if case.beta is None else case.beta
    facts = {"case": case.name, "horizon": case.horizon or math.inf, "discount": discount, "beta": beta}
    return facts | {"sampled_steps": sampled_steps, "alive_at_the_end": discount**sampled_steps}


def trajectories(samples: Mapping[str, Array], horizon: int, names: kinds.Names | None = None) -> xarray.Dataset:
    """Sampled trajectories as one chain.

    Args:
        samples: Arrays (N, T) of what happens in a step, and (N, T + 1) of states; vectors have more axes.
        horizon: T.
        names: The labels of axes that have some.

    Returns:
        A dataset with axes chain, draw, time or instant, and coordinates of vectors.
    """
    import xarray

    axes = {horizon: "time", horizon + 1: "instant"}
    data: dict[str, Any] = {}
    for name, drawn in samples.items():
        own, array = kinds.sample_parts(name, drawn)
        data[name] = (("chain", "draw", axes[array.shape[1]], *own), array[None])
    return labelled(xarray.Dataset(data), names or {})


def policies(answers: Answers) -> xarray.Dataset:
    """The policy tables of the three answers, one variable a decision."""
    import xarray

    exact_one, *conditioned = answers.closed_forms.items()
    tables = {name: answer.policy for name, answer in (exact_one, ("fit", answers.fit), *conditioned)}
    time = horizons.axis(answers.case.horizon, "time")
    data: kinds.Parts = {}
    for name in answers.program.scopes:
        parts = [kinds.policy_parts(answers.program, name, policy[name]) for policy in tables.values()]
        data |= stacked(parts, time)
    return labelled(xarray.Dataset(data), axis_labels(answers, tuple(tables)))


def values(answers: Answers) -> xarray.Dataset:
    """The values of the exact answers; the last instant is the terminal value."""
    import xarray

    parts = [kinds.value_parts(answers.program, answer.value) for answer in answers.closed_forms.values()]
    data = stacked(parts, horizons.axis(answers.case.horizon, "instant"))
    dataset = xarray.Dataset({name: (*named, {"units": answers.unit}) for name, named in data.items()})
    return labelled(dataset, axis_labels(answers, tuple(answers.closed_forms)))


def stacked(parts: Sequence[kinds.Parts], time: tuple[str, ...]) -> kinds.Parts:
    """The same parts of several answers side by side: axes answer, time where there is one, and their own."""
    return {
        name: (("answer", *time, *axes), np.stack([np.asarray(part[name][1]) for part in parts]))
        for name, (axes, _) in parts[0].items()
    }


def labelled(dataset: xarray.Dataset, names: kinds.Names) -> xarray.Dataset:
    """The dataset with coordinates on every axis: names where there are some, else positions."""
    return dataset.assign_coords({axis: names.get(str(axis), np.arange(size)) for axis, size in dataset.sizes.items()})


def axis_labels(answers: Answers, which: Sequence[str]) -> dict[str, list[str]]:
    """What the positions along axes are called, the axis of answers included."""
    return {"answer": list(which), **kinds.labels(answers.program, axis_names(answers))}


def axis_names(answers: Answers) -> dict[str, list[str]]:
    """The names of the values of the program's variables, or of their coordinates, by variable.

    A case may name them. A task's state names belong to the state variable `s`, its action names to the decision `a`
    and the opponent's to `b`, which is what every model of a task calls them.
    """
    attributes = {"s": "state_names", "a": "action_names", "b": "opponent_action_names"}
    named = {name: getattr(answers.task, attribute, None) for name, attribute in attributes.items()}
    named |= answers.case.names
    sizes = answers.program.sizes
    return {name: list(names) for name, names in named.items() if names is not None and sizes.get(name) == len(names)}


def save(groups: Mapping[str, xarray.Dataset], path: Path) -> None:
    """Writes the groups to one compressed netCDF file."""
    packed = {"zlib": True, "complevel": 4}
    encoding = {f"/{group}": {str(name): packed for name in dataset} for group, dataset in groups.items()}
    # HDF5 does not survive a disk that is full.
    whole = io.BytesIO()
    to_datatree(groups).to_netcdf(whole, engine="h5netcdf", encoding=encoding)
    with written_whole(path) as place:
        place.write_bytes(whole.getvalue())


def load(path: Path) -> dict[str, xarray.Dataset]:
    """Reads the groups back from a file that `save` wrote, into memory."""
    import xarray

    with xarray.open_datatree(path, engine="h5netcdf") as tree:
        return {name: child.to_dataset().load() for name, child in tree.children.items()}
