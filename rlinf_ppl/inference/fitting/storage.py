"""Fits in files: an .npz archive of plain arrays, without pickled code.

What is a function is not in the file: the program, the loss and the optimiser are given again at loading, and checked
against what the file says.
"""

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rlinf_ppl.files import written_whole
from rlinf_ppl.inference.fitting.loop import Fit, Task, check_one
from rlinf_ppl.inference.fitting.updates import Update
from rlinf_ppl.program import ControlProgram

FORMAT = "rlinf_ppl fit 2"
# How many axes what is no part of the guide or of the memory has.
AXES = {"losses": 1, "elbo": 0, "residual": 0, "tolerance": 0}
GUIDE = (
    "it is the fit of another program, or networks and tables are mistaken for each other. For networks give "
    "guide=svi.networks(program, key) with the same width, depth and features; for a guide of your own that "
    "one; for tables none"
)


def save(fit: Fit, path: str | os.PathLike[str]) -> None:
    """Save a fit, so that `load` and `resume` go on as if there had been no break.

    Args:
        fit: the fit.
        path: the file, which is replaced as a whole or not at all.

    Raises:
        TypeError: it is no fit.
        ValueError: it is a batch of fits, from vmap.
        FileNotFoundError: there is no directory for the file.
        OSError: it cannot be written.
    """
    if not isinstance(fit, Fit):
        raise TypeError(f"svi.save(fit, path) takes a fit, such as svi.fit gives; got {type(fit).__name__}.")
    check_one(fit)
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(f"there is no directory {Path(path).parent} to save a fit in; make it first.")
    leaves = jax.tree.leaves(fit.memory)
    impl = [str(jax.random.key_impl(leaf)) for leaf in leaves if is_key(leaf)]
    arrays: dict[str, Any] = {"format": FORMAT, "update": fit.task.update.name, "key": impl[0] if impl else ""}
    arrays |= {name: np.asarray(getattr(fit, name)) for name in ("losses", "elbo", "residual")}
    arrays |= {"tolerance": np.asarray(fit.task.tolerance)}
    arrays |= {} if fit.restarts is None else {"restarts": np.asarray(fit.restarts)}
    arrays |= {name: np.asarray(leaf) for name, leaf in named(fit.guide).items()}
    arrays |= {f"memory/{i}": np.asarray(plain(leaf)) for i, leaf in enumerate(leaves)}
    with written_whole(path) as place, open(place, "wb") as file:
        np.savez(file, **arrays)


def restored(path: str | os.PathLike[str], program: ControlProgram, guide: Any, updates: list[Update]) -> Fit:
    """The fit of a file, for the program and the steps that it was made with, and a guide of the same shape.

    Args:
        path: the file.
        program: the program.
        guide: the guide, or None for tables.
        updates: the kinds of steps that it may have been made with.

    Raises:
        FileNotFoundError, OSError: there is no such file, or it cannot be opened.
        ValueError: it holds no fit, or that of another program, loss, optimiser or precision.
    """
    stored = contents(path)
    update = next((each for each in updates if each.name == str(stored["update"])), updates[0])
    if str(stored["update"]) != update.name:
        raise ValueError(
            f"{path} holds a fit by {stored['update']}, but it was to be loaded as one by {update.name}; give svi.load "
            "the same loss, optimizer and schedule."
        )
    target = update.loss.read(program)
    like = update.loss.start(target, jax.random.key(0)) if guide is None else update.loss.check_guide(target, guide)
    found = [matched(path, stored, name, leaf, GUIDE) for name, leaf in named(like).items()]
    guide = jax.tree.unflatten(jax.tree.structure(like), found)
    memory = recalled(path, stored, update, target, guide)
    losses, residual, tolerance = (jnp.asarray(stored[name]) for name in ("losses", "residual", "tolerance"))
    policy, elbo = update.loss.summary(target, guide, update.key(memory))
    if not np.isclose(elbo, stored["elbo"], rtol=1e-4, atol=1e-6, equal_nan=True):
        raise ValueError(
            f"the policy in {path} has the ELBO {float(stored['elbo']):.6g} where it was fitted, and {float(elbo):.6g} "
            "in this program; they differ in their numbers."
        )
    task = Task(program, update, tolerance)
    restarts = jnp.asarray(stored["restarts"]) if "restarts" in stored else None
    return Fit(policy, elbo, losses, residual <= tolerance, residual, guide, memory, task, restarts)


def contents(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a file.

    Raises:
        OSError, ValueError: as `restored`.
    """
    with open(path, "rb") as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                stored = {name: archive[name] for name in archive.files}
        except Exception as error:  # what a damaged archive raises is of any kind
            raise ValueError(f"{path} holds no fit that can be read, or is damaged; svi.save writes one.") from error
    if str(stored.get("format")) != FORMAT:
        raise ValueError(f"{path} was not written by svi.save of this version: its format is {stored.get('format')}.")
    missing = {"update", "key", "losses", "elbo", "residual", "tolerance"} - set(stored)
    if missing:
        raise ValueError(f"{path} is incomplete: it has no {sorted(missing)}.")
    for name, axes in AXES.items():
        found = stored[name]
        if found.ndim != axes or not np.issubdtype(found.dtype, np.floating):
            raise ValueError(
                f"{path} is damaged: its {name} has the type {found.dtype} and the shape {found.shape}; a fit's is of "
                f"real numbers with {axes} axes."
            )
    return stored


def named(guide: Any) -> dict[str, Array]:
    """The arrays of a guide by where they stand in it."""
    return {f"guide{jax.tree_util.keystr(place)}": leaf for place, leaf in jax.tree.leaves_with_path(guide)}


def recalled(path: Any, stored: dict[str, np.ndarray], update: Update, target: Any, guide: Any) -> Any:
    """The memory of the steps, in the form that these steps have it."""
    try:
        key = jax.random.key(0, impl=str(stored["key"]) or None)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: JAX has no random numbers of the kind {stored['key']}.") from error
    leaves, form = jax.tree.flatten(update.initial(target, guide, key, jnp.asarray(1.0)))
    count, found = sum(name.startswith("memory/") for name in stored), []
    if count != len(leaves):
        raise ValueError(
            f"{path} holds {count} arrays of its optimizer, but this one has {len(leaves)}: it was another."
        )
    for i, leaf in enumerate(leaves):
        array = matched(path, stored, f"memory/{i}", plain(leaf), "it was another optimizer")
        found.append(jax.random.wrap_key_data(array, impl=str(stored["key"])) if is_key(leaf) else array)
    return jax.tree.unflatten(form, found)


def matched(path: Any, stored: dict[str, np.ndarray], name: str, like: Any, what: str) -> Array:
    """An array of the file that has the shape and dtype of another.

    Raises:
        ValueError: it is missing, or has not.
    """
    like, found = jnp.asarray(like), stored.get(name)
    if found is None or found.shape != like.shape:
        held = f"no {name}" if found is None else f"{name} of shape {found.shape}"
        raise ValueError(f"{path} holds {held}, and here it has shape {like.shape}: {what}.")
    if found.dtype != like.dtype:
        if not np.issubdtype(found.dtype, np.floating) or not np.issubdtype(like.dtype, np.floating):
            raise ValueError(f"{path} is damaged: its {name} is of {found.dtype}, and that of a fit of {like.dtype}.")
        raise ValueError(
            f"{path} holds {found.dtype}, and JAX runs in {like.dtype} here; set jax_enable_x64 as it was for the fit."
        )
    return jnp.asarray(found)


def is_key(leaf: Any) -> bool:
    """Whether a leaf is a random key."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def plain(leaf: Any) -> Any:
    """A leaf as an array of numbers."""
    return jax.random.key_data(leaf) if is_key(leaf) else leaf
