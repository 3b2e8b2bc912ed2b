"""Samples of NumPyro's on a program's model or guide, one variable a site, with time as an axis.

NumPyro names the sites of an unrolled program init/s, t0/a, t1/a, ...: names with a slash, which netCDF and DataTree
refuse, and one variable for each time. Here t0/a, t1/a, ... are one variable `a` of (chain, draw, time, ...).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from rlinf_ppl.labelled import native
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.reading import check_program
from rlinf_ppl.program.supports import first_value

if TYPE_CHECKING:
    import xarray

AT_TIME = re.compile(r"t(\d+)/(.+)")
ENDS = ("init/", "final/")


def to_dataset(program: ControlProgram, samples: Any) -> xarray.Dataset:
    """Samples as one dataset.

    Args:
        program: The program that they are samples of, with an end.
        samples: A dict as NumPyro's Predictive, SVI.run's guide or MCMC.get_samples() give it, (N, ...) each; the same
            by chain, (chains, N, ...), as an MCMC object holds it; or a dict of trajectories, (N, T, ...) each, as
            exact.sample and smc.run(...).trajectories have them.

    Returns:
        The dataset: sites of a step over `time`, what holds the end as well over `instant`, sites of the start and
        whatever else is no site of the program without either.

    Raises:
        TypeError: They are none of these.
        ValueError: They are those of another program, or some time is missing.
    """
    import xarray

    chained, arrays = by_chain(samples)
    check_program(program)
    horizon = program.horizon
    if horizon is None:
        raise ValueError("a program without end has no model to sample; use program.unroll(T), a program of T steps.")
    unrolled = any(AT_TIME.fullmatch(name) for name in arrays)
    found = over_time(program, horizon, arrays, len(chained)) if unrolled else whole(program, horizon, arrays)
    data = {}
    for name, (axes, array) in found.items():
        own = tuple(f"{name}_dim_{i}" for i in range(array.ndim - len(chained) - len(axes)))
        name = name.replace("/", ".")
        data[name] = (("chain", "draw", *axes, *own), array if chained == ("chain", "draw") else array[None])
    taken = sorted({"chain", "draw", "time", "instant"} & set(data))
    if taken:
        raise ValueError(f"the sites {taken} have the name of an axis; rename them by samples of other names.")
    dataset = xarray.Dataset(data)
    return dataset.assign_coords({axis: np.arange(size) for axis, size in dataset.sizes.items()})


def by_chain(samples: Any) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """The leading axes of samples, and the samples by name."""
    chained: tuple[str, ...] = ("draw",)
    if callable(getattr(samples, "get_samples", None)):
        if getattr(samples, "last_state", True) is None:
            raise ValueError("this MCMC has not run; call its run(key, ...) first.")
        chained, samples = ("chain", "draw"), samples.get_samples(group_by_chain=True)
    if not isinstance(samples, Mapping) or not all(isinstance(name, str) for name in samples):
        raise TypeError(
            "samples must be a dict of arrays by the names of sites, as NumPyro's Predictive gives it, or an MCMC that "
            f"has run; got {type(samples).__name__}."
        )
    arrays = {name: np.asarray(array) for name, array in samples.items()}
    flat = [name for name, array in arrays.items() if array.ndim < len(chained)]
    if flat:
        raise ValueError(f"samples[{flat[0]!r}] is one number; every array leads with its draws.")
    if not arrays:
        raise ValueError("samples are empty.")
    counts = {array.shape[: len(chained)] for array in arrays.values()}
    if len(counts) > 1:
        raise ValueError(f"samples have different numbers of draws, {sorted(counts)}; one of each is wanted.")
    # What a factor draws is nothing.
    return chained, {name: array for name, array in arrays.items() if array.size}


def over_time(
    program: ControlProgram, horizon: int, arrays: dict[str, np.ndarray], lead: int
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Samples of an unrolled program, site by site."""
    steps: dict[str, dict[int, np.ndarray]] = {}
    rest: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        match = AT_TIME.fullmatch(name)
        if match:
            steps.setdefault(match[2], {})[int(match[1])] = array
        elif name == "final/alive":
            steps.setdefault("alive", {})[horizon] = array
        else:
            rest[name] = array
    known = {site.name for site in program.structure.step.sites} | {"alive"}
    unknown = sorted(set(steps) - known)
    # What else a step has at all times is a numpyro.deterministic.
    if unknown and not all(set(steps[name]) == set(range(horizon)) for name in unknown):
        raise ValueError(f"samples hold the sites {unknown} of a step; those of this program are {sorted(known)}.")
    found: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for name, at in steps.items():
        if name == "alive":
            # Whether a process lives at its start is no question.
            at[0] = np.ones_like(next(iter(at.values())))
        ends = name == "alive" and "final/alive" in arrays
        wanted = range(horizon + ends)
        missing, beyond = [t for t in wanted if t not in at], [t for t in at if t not in wanted]
        if missing or beyond:
            raise ValueError(
                f"samples hold {name!r} at the times {sorted(at)}; this program has the times 0..{horizon - 1}."
            )
        check_draws(program, name, at[0], lead)
        found[name] = ("instant" if ends else "time",), np.stack([at[t] for t in wanted], lead)
    for name, array in rest.items():
        bare = name.removeprefix(ENDS[0]).removeprefix(ENDS[1])
        plain = name if bare in found or bare in rest else bare
        found[plain] = (), array
    return found


def check_draws(program: ControlProgram, name: str, array: np.ndarray, lead: int) -> None:
    """Raise where the draws of a site have another shape than its values.

    Raises:
        ValueError: so it is.
    """
    support = program.supports.get(name)
    value = None if support is None else first_value(support)
    if isinstance(value, jax.Array) and array.shape[lead:] != value.shape:
        raise ValueError(
            f"samples of {name!r} at one time have shape {array.shape}; after {lead} axes of draws its values have "
            f"{value.shape}. Samples by chain come as the MCMC itself, or flattened: mcmc.get_samples()."
        )


def whole(
    program: ControlProgram, horizon: int, arrays: dict[str, np.ndarray]
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Trajectories, which have their time already."""
    axes = {horizon: ("time",), horizon + 1: ("instant",)}
    known = {*program.supports, *(site.name for site in program.structure.step.sites), "alive"}
    unknown = sorted(set(arrays) - known)
    if unknown:
        raise ValueError(f"samples hold {unknown}; the variables and sites of this program are {sorted(known)}.")
    wrong = [name for name, array in arrays.items() if array.ndim < 2 or array.shape[1] not in axes]
    if wrong:
        raise ValueError(
            f"samples[{wrong[0]!r}] has shape {arrays[wrong[0]].shape}; it must be (N, {horizon}, ...), or "
            f"(N, {horizon + 1}, ...) for states: as exact.sample gives trajectories."
        )
    return {name: (axes[array.shape[1]], array) for name, array in arrays.items()}


def to_arviz(program: ControlProgram, *, samples: Any, group: str = "posterior") -> Any:
    """Samples as the installed ArviZ has them: InferenceData before version 1.0, DataTree from then on.

        report.to_arviz(program, samples=Predictive(program.guide, params=fit.params, num_samples=1000)(key))

    Args:
        program: The program that they are samples of, with an end.
        samples: As NumPyro's Predictive or MCMC give them on `program.model` or `program.guide`, or trajectories of
            exact.sample or smc.run.
        group: What they are to ArviZ, such as posterior, prior or posterior_predictive.

    Returns:
        One variable a site, over (chain, draw, time, ...); it can be written to netCDF.

    Raises:
        TypeError: They are no samples.
        ValueError: They are those of another program.
    """
    if not isinstance(group, str):
        raise TypeError(f"group must be a name, such as 'posterior'; got {type(group).__name__}.")
    return native({group: to_dataset(program, samples)})
