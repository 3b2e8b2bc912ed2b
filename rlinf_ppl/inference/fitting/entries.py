"""Guides that have an entry for each decision, a table of logits or a network, and those of the user's own."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from rlinf_ppl.inference.fitting.guides import INITIAL_SPREAD, Logits
from rlinf_ppl.inference.fitting.networks import check_networks
from rlinf_ppl.inference.fitting.own import is_own
from rlinf_ppl.inference.particles.simulator import Simulator
from rlinf_ppl.program.conditionals import ConditionalLaw, Tilted
from rlinf_ppl.program.guides import Guide, as_guide, check_logits, tilted
from rlinf_ppl.program.structure import Structure
from rlinf_ppl.program.supports import is_finite


def small_tables(structure: Structure, key: Array) -> Logits:
    """The logits of small random action values, for every decision.

    Raises:
        ValueError: one has no table.
    """
    sizes = {name: len(support) for name, support in structure.supports().items()}
    real = [name for name, axes in table_axes(structure).items() if is_real(structure, axes)]
    if real:
        raise ValueError(
            f"{real} are real numbers or depend on some, which no table holds; give guide=svi.networks(prog, key), or "
            "a guide of your own."
        )
    keys, times = jax.random.split(key, len(structure.scopes)), tuple(map(len, structure.times().values()))
    return {
        name: INITIAL_SPREAD * jax.random.normal(each, (*times, *(sizes[axis] for axis in axes)))
        for (name, axes), each in zip(table_axes(structure).items(), keys, strict=True)
    }


def checked_guide(simulator: Simulator, guide: Any) -> Any:
    """A guide to start from, checked.

    Raises:
        TypeError, ValueError: it is none, or one of another program.
    """
    if is_own(guide):
        return as_guide(simulator, guide)
    structure = simulator.structure
    names = [name for name, _ in structure.scopes]
    if not isinstance(guide, dict) or set(guide) != set(names):
        raise TypeError(
            f"guide must be a dict with an entry for each of {names}, such as svi.networks(prog, key) or fit.guide, or "
            "an Equinox module with a method for each."
        )
    check_networks(structure, guide)
    tables = {name: jnp.asarray(theta, float) for name, theta in guide.items() if not isinstance(theta, Tilted)}
    for name, theta in tables.items():
        check_logits(structure, name, theta)
    return guide | tables


def proposals(simulator: Simulator, guide: Any) -> dict[str, ConditionalLaw]:
    """A guide as the law of each decision, given what it sees."""
    if isinstance(guide, Guide):
        return guide.conditionals(simulator)

    def law(name: str, theta: Any) -> ConditionalLaw:
        return theta if isinstance(theta, Tilted) else tilted(simulator.structure, name, theta)

    return {name: law(name, theta) for name, theta in guide.items()}


def guided(simulator: Simulator, guide: Any) -> Simulator:
    """A program that proposes from a guide, its arguments those that the guide learns, if any."""
    if isinstance(guide, Guide):
        simulator = with_arguments(simulator, guide.arguments(simulator.args))
    return dataclasses.replace(simulator, proposal=proposals(simulator, guide))


def with_arguments(simulator: Simulator, args: Any) -> Simulator:
    """A program with other arguments, made alike."""
    count, leaves = len(jax.tree.leaves(simulator.args)), jax.tree.leaves(args)
    parts = {
        name: dataclasses.replace(part, leaves=[*leaves, *part.leaves[count:]])
        for name, part in simulator.parts.items()
    }
    return dataclasses.replace(simulator, parts=parts, args=args)


def table_axes(structure: Structure) -> dict[str, tuple[str, ...]]:
    """The axes that a decision's table would have, after the time."""
    return {name: (*scope, name) for name, scope in structure.scopes}


def is_real(structure: Structure, axes: tuple[str, ...]) -> bool:
    """Whether some of the variables are real numbers."""
    supports = structure.supports()
    return not all(is_finite(supports[axis]) for axis in axes)
