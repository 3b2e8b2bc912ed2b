"""A guide of one's own: for each decision a function that returns its distribution, made of arrays that are learned.

    class Noisy(eqx.Module):                     # values that are remembered with noise, and a softmax of them
        mean: Array
        spread: Array = parameter(constraints.positive)

        def q(self, s): return Normal(self.mean[s], self.spread[s]).to_event(1)
        def a(self, q): return Categorical(logits=q)

    svi.fit(program, key, guide=Noisy(jnp.zeros((3, 2)), jnp.ones((3, 2))), ...)

What is learned are the arrays of the module; an optimiser moves each where it has no bounds, through NumPyro's
bijection to its constraint. The same functions run in NumPyro: `program.with_guide(guide).guide`.
"""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.constraints import Constraint

from rlinf_ppl.program.conditionals import ConditionalLaw, Looked, Proposed, Tilted
from rlinf_ppl.program.functions import Called, taken
from rlinf_ppl.program.structure import Structure
from rlinf_ppl.program.supports import is_finite

CONSTRAINT = "constraint"
# Constraints with an edge on both sides, and how far out numbers without bounds may stand for a place near it.
BOTH_SIDES = type(constraints.unit_interval), type(constraints.interval(0.0, 1.0)), type(constraints.simplex)
EDGE = 15.0


def parameter(constraint: Constraint = constraints.real, **more: Any) -> Any:
    """A field of an Equinox module whose arrays keep a constraint of NumPyro's, such as constraints.positive.

    Args:
        constraint: what all arrays below the field keep.
        **more: as `equinox.field` has it.

    Raises:
        TypeError: it is no constraint.
    """
    if not isinstance(constraint, Constraint):
        raise TypeError(
            "parameter takes a constraint of NumPyro's, such as numpyro.distributions.constraints.positive; got "
            f"{type(constraint).__name__}."
        )
    try:
        biject_to(constraint)
    except NotImplementedError as error:
        raise TypeError(f"NumPyro has no bijection to {constraint}, along which an optimiser could move.") from error
    return eqx.field(metadata={CONSTRAINT: constraint}, **more)


class Guide(eqx.Module):
    """What is learned of a program's decisions: their laws given what they see, and the arrays these are made of.

    Attributes:
        free: the arrays, each where it has no bounds.
        rest: all else in the module, leaf by leaf.
        tree: how the module is put together.
        names: of the arrays, in their order.
        bounds: the constraint of each.
        laws: for each decision the function's place in the module, and what it takes.
    """

    free: list[Array]
    rest: tuple[Any, ...] = eqx.field(static=True)
    tree: Any = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    bounds: tuple[Constraint, ...] = eqx.field(static=True)
    laws: tuple[tuple[str, tuple[str, ...]], ...] = eqx.field(static=True)

    def __reduce__(self) -> Any:
        # How a module is put together does not survive a copy: what it was made of does.
        return remade, (self.module, self.free, self.names, self.bounds, self.laws)

    @property
    def params(self) -> dict[str, Array]:
        """The arrays by name, within their bounds: as `numpyro.param` and `Predictive(params=...)` have them."""
        return {
            name: biject_to(bound)(free) for name, bound, free in zip(self.names, self.bounds, self.free, strict=True)
        }

    @property
    def module(self) -> Any:
        """What the user gave, with the arrays as they are now."""
        return self.with_params(self.params)

    def with_params(self, params: Mapping[str, Array]) -> Any:
        """What the user gave, with arrays by name."""
        arrays = iter([params[name] for name in self.names])
        return jax.tree.unflatten(self.tree, [next(arrays) if each is Place.ARRAY else each for each in self.rest])

    def moved(self, params: Mapping[str, Array]) -> "Guide":
        """The guide with arrays by name, within their bounds."""
        free = [
            biject_to(bound).inv(jnp.asarray(params[name])) for name, bound in zip(self.names, self.bounds, strict=True)
        ]
        return dataclasses.replace(self, free=free)

    def conditionals(
        self, structure: Structure, params: Mapping[str, Array] | None = None
    ) -> dict[str, ConditionalLaw]:
        """For each decision of a program its law given what it sees.

        Args:
            structure: of the program.
            params: other arrays than its own, by name and within their bounds.
        """
        module, supports = self.with_params(self.params if params is None else params), structure.supports()

        def law(name: str, names: tuple[str, ...]) -> ConditionalLaw:
            function = entry(module, name)
            if isinstance(function, ConditionalLaw):
                return function
            if eqx.is_array(function):
                return tilted(structure, name, function)
            return Proposed(Called(f"the guide of {name!r}", function, names), supports[name], True)

        return {name: law(name, names) for name, names in self.laws}


class Place(enum.Enum):
    """Stands in a module where an array was."""

    ARRAY = 0


def remade(module: Any, free: list[Array], names: Any, bounds: Any, laws: Any) -> Guide:
    """A guide, put together again."""
    leaves, tree = jax.tree.flatten(module)
    rest = tuple(Place.ARRAY if eqx.is_array(leaf) else leaf for leaf in leaves)
    return Guide(free, rest, tree, names, bounds, laws)


def tilted(structure: Structure, name: str, logits: Array) -> ConditionalLaw:
    """A decision's prior, moved by a table of logits over the time, its scope and its own values."""
    supports = structure.supports()
    axes = tuple((axis, supports[axis]) for axis in dict(structure.scopes)[name])
    return Tilted(Looked(logits, axes, structure.horizon is not None), supports[name])


def as_guide(structure: Structure, given: Any) -> Guide:
    """A guide of one's own, checked.

    Args:
        structure: of the program.
        given: an Equinox module with a method for each decision, or a dict with a function for each, of what the
            decision sees by name (and t), which returns a NumPyro distribution.

    Raises:
        TypeError: a decision has no function, or an array of whole numbers stands among what is learned.
        ValueError: a function takes what its decision does not see, or returns a distribution that does not fit; an
            array leaves its constraint.
    """
    made, given = (given, given.module) if isinstance(given, Guide) else (None, given)
    if isinstance(given, type):
        raise TypeError(f"guide is the class {given.__name__}; give one of it, made with the arrays to start from.")
    decisions = [site.name for site in structure.step.decisions]
    missing = [name for name in decisions if not is_law(given, name)]
    if missing or (isinstance(given, Mapping) and set(given) != set(decisions)):
        raise TypeError(
            f"guide must have a function for each of {decisions}: an Equinox module with methods of these names, or a "
            f"dict; got {described(given)}{f', which has none for {missing}' if missing else ''}."
        )
    laws = tuple((name, names_of(structure, name, entry(given, name))) for name in decisions)
    if made is not None:
        return dataclasses.replace(made, laws=laws)
    given = jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, given)
    placed = jax.tree.leaves_with_path(given)
    learned = [(named(place), leaf) for place, leaf in placed if eqx.is_array(leaf)]
    for name, leaf in learned:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"the guide's {name} is an array of {leaf.dtype}, and what is learned are real numbers: let its "
                "functions close over it, or make it a static field."
            )
    bounds = tuple(bounds_of(given, constraints.real))
    free = [freed(name, bound, leaf) for bound, (name, leaf) in zip(bounds, learned, strict=True)]
    return remade(given, free, tuple(name for name, _ in learned), bounds, laws)


def named(place: Any) -> str:
    """A place in a module as a name, such as a.layers.0.weight."""
    return jax.tree_util.keystr(place, simple=True, separator=".").replace("__self__.", "")


def entry(module: Any, name: str) -> Any:
    """The function of a decision; None where there is none."""
    return module.get(name) if isinstance(module, Mapping) else getattr(module, name, None)


def is_law(module: Any, name: str) -> bool:
    """Whether there is a function of a decision, or a table of logits in a dict."""
    found = entry(module, name)
    return callable(found) or (isinstance(module, Mapping) and eqx.is_array(found))


def check_logits(structure: Structure, name: str, table: Array) -> None:
    """Raise on a table that has another shape than a decision's logits, or holds probabilities.

    Raises:
        ValueError: so it is.
    """
    supports, axes = structure.supports(), (*dict(structure.scopes)[name], name)
    real = [axis for axis in axes if not is_finite(supports[axis])]
    if real:
        raise ValueError(f"guide[{name!r}] is a table, and {real} take no finitely many values: give a function.")
    shape = tuple(len(support) for support in (*structure.times().values(), *(supports[axis] for axis in axes)))
    if table.shape != shape:
        raise ValueError(f"guide[{name!r}] has shape {table.shape}; logits of it have {shape}.")
    known = not isinstance(table, jax.core.Tracer)
    if known and bool(jnp.all(table >= 0) & jnp.all(jnp.abs(table.sum(-1) - 1) < 1e-5)):
        raise ValueError(
            f"guide[{name!r}] is a table of probabilities, and what is learned are logits, beside the prior: give "
            "fit.guide. Policies are what with_prior takes, and what smc.run takes as a proposal."
        )


def names_of(structure: Structure, name: str, function: Any) -> tuple[str, ...]:
    """What a function takes; raises where its decision does not see it."""
    if eqx.is_array(function):
        check_logits(structure, name, function)
    if isinstance(function, ConditionalLaw) or eqx.is_array(function):
        return ()
    before = [site.name for site in structure.step.latent]
    site = next(site for site in structure.step.decisions if site.name == name)
    seen = [other for other in (*dict(structure.state), *before[: before.index(name)]) if other not in site.unseen]
    return taken(f"the guide of {name!r}", function, tuple(seen))


def bounds_of(module: Any, bound: Constraint) -> list[Constraint]:
    """The constraint of each array in a module, in the order of its leaves: of the innermost field that names one."""
    if eqx.is_array(module):
        return [bound]
    if isinstance(module, eqx.Module):
        found = []
        for field in dataclasses.fields(module):
            if not field.metadata.get("static", False):
                found += bounds_of(getattr(module, field.name), field.metadata.get(CONSTRAINT, bound))
        return found
    children = jax.tree.leaves(module, is_leaf=lambda x: x is not module)
    if len(children) == 1 and children[0] is module:
        return []
    return [each for child in children for each in bounds_of(child, bound)]


def freed(name: str, bound: Constraint, value: Array) -> Array:
    """An array where it has no bounds; raises where it leaves them."""
    value = jnp.asarray(value, dtype=float)
    free = biject_to(bound).inv(value)
    if isinstance(value, jax.core.Tracer):
        return free
    if not bool(jnp.all(bound(value))):
        raise ValueError(f"the guide's {name} is {value}, which breaks its constraint {bound}.")
    if isinstance(bound, BOTH_SIDES) and not bool(jnp.all(jnp.abs(free) < EDGE)):
        raise ValueError(
            f"the guide's {name} is {value}, at the edge of its constraint {bound}: nothing moves it there. Start it "
            "within."
        )
    return free


def described(given: Any) -> str:
    """What was given, in a few words."""
    return f"a dict of {sorted(map(str, given))}" if isinstance(given, Mapping) else type(given).__name__
