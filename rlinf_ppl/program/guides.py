"""A guide of one's own: for each decision a function that returns its distribution, made of arrays that are learned.

    class Noisy(eqx.Module):                     # values that are remembered with noise, and a softmax of them
        mean: Array
        spread: Array = parameter(constraints.positive)

        def q(self, s): return Normal(self.mean[s], self.spread[s]).to_event(1)
        def a(self, q): return Categorical(logits=q)

    svi.fit(program, key, guide=Noisy(jnp.zeros((3, 2)), jnp.ones((3, 2))), ...)

What is learned are the arrays of the module; an optimiser moves each where it has no bounds, through NumPyro's
bijection to its constraint. The same functions run in NumPyro: `program.with_guide(guide).guide`.

Two methods more are asked for where there are any. `prepare(self, *args)`, of the program's arguments, returns what has
the functions: for what has to be worked out of the arrays first, such as a fixed point. `a_without_q(self, s)` is the
law of `a` where `q`, real numbers before it that nothing else depends on, is averaged out, and the mean entropy of `a`
given `q` in nats: for a mean that is known better than nodes would have it.

What the program itself does not know, an unknown world, is learned along with the guide by one more method,
`arguments(self, *args)`: it returns the program's arguments with the module's arrays put in.
"""

import dataclasses
import enum
import inspect
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.constraints import Constraint

from rlinf_ppl.program.changes import in_full
from rlinf_ppl.program.conditionals import Average, ConditionalLaw, Looked, Proposed, Tilted
from rlinf_ppl.program.functions import Called, taken
from rlinf_ppl.program.parameters import bounds_of, freed, learned_arguments
from rlinf_ppl.program.structure import Structure
from rlinf_ppl.program.supports import is_finite


@runtime_checkable
class Owner(Protocol):
    """What a guide is one of: a program, or whoever holds its structure and arguments."""

    @property
    def structure(self) -> Structure:
        """The program without its numbers."""

    @property
    def args(self) -> Any:
        """Its arguments."""


class Guide(eqx.Module):
    """What is learned of a program's decisions: their laws given what they see, and the arrays these are made of.

    Attributes:
        free: the arrays, each where it has no bounds.
        rest: all else in the module, leaf by leaf.
        tree: how the module is put together.
        names: of the arrays, in their order.
        bounds: the constraint of each.
        laws: for each decision the function's place in the module, and what it takes.
        averages: for decisions that have one the function without some real numbers: their name, and what it takes.
    """

    free: list[Array]
    rest: tuple[Any, ...] = eqx.field(static=True)
    tree: Any = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    bounds: tuple[Constraint, ...] = eqx.field(static=True)
    laws: tuple[tuple[str, tuple[str, ...]], ...] = eqx.field(static=True)
    averages: tuple[tuple[str, str, tuple[str, ...]], ...] = eqx.field(static=True)

    def __reduce__(self) -> Any:
        # How a module is put together does not survive a copy: what it was made of does.
        return remade, (self.module, self.free, self.names, self.bounds, self.laws, self.averages)

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

    def conditionals(self, program: Owner, params: Mapping[str, Array] | None = None) -> dict[str, ConditionalLaw]:
        """For each decision of a program its law given what it sees.

        Args:
            program: whose decisions.
            params: other arrays than its own, by name and within their bounds.
        """
        structure, supports = program.structure, program.structure.supports()
        module = self.module if params is None else self.with_params(params)
        module = prepared(module, learned_arguments(module, program.args))
        averages = {name: (hidden, names) for name, hidden, names in self.averages}

        def law(name: str, names: tuple[str, ...]) -> ConditionalLaw:
            function = entry(module, name)
            if isinstance(function, ConditionalLaw):
                return function
            if eqx.is_array(function):
                return tilted(structure, name, function)
            called = Called(f"the guide of {name!r}", function, names)
            if name not in averages:
                return Proposed(called, supports[name], True)
            hidden, seen = averages[name]
            other = without(name, hidden)
            average = Average(hidden, Called(f"the guide's {other}", entry(module, other), seen))
            return Proposed(called, supports[name], True, average)

        return {name: law(name, names) for name, names in self.laws}

    def arguments(self, args: Any, params: Mapping[str, Array] | None = None) -> Any:
        """A program's arguments, with what is learned of them put in."""
        return learned_arguments(self.module if params is None else self.with_params(params), args)


class Place(enum.Enum):
    """Stands in a module where an array was."""

    ARRAY = 0


def remade(module: Any, free: list[Array], names: Any, bounds: Any, laws: Any, averages: Any) -> Guide:
    """A guide, put together again."""
    leaves, tree = jax.tree.flatten(module)
    rest = tuple(Place.ARRAY if eqx.is_array(leaf) else leaf for leaf in leaves)
    return Guide(free, rest, tree, names, bounds, laws, averages)


def tilted(structure: Structure, name: str, logits: Array) -> ConditionalLaw:
    """A decision's prior, moved by a table of logits over the time, its scope and its own values."""
    supports = structure.supports()
    axes = tuple((axis, supports[axis]) for axis in dict(structure.scopes)[name])
    return Tilted(Looked(logits, axes, structure.horizon is not None), supports[name])


def as_guide(program: Owner, given: Any) -> Guide:
    """A guide of one's own, checked.

    Args:
        program: whose decisions it is about.
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
    structure = program.structure
    decisions = [site.name for site in structure.step.decisions]
    args = learned_arguments(given, program.args)
    module = eqx.filter_eval_shape(prepared, given, args) if is_prepared(given) else given
    missing = [name for name in decisions if not is_law(module, name)]
    if missing or (isinstance(given, Mapping) and set(given) != set(decisions)):
        raise TypeError(
            f"guide must have a function for each of {decisions}: an Equinox module with methods of these names, or a "
            f"dict; got {described(given)}{f', which has none for {missing}' if missing else ''}."
        )
    laws = tuple((name, names_of(structure, name, entry(module, name))) for name in decisions)
    averages = tuple(averages_of(structure, module))
    if made is not None:
        return dataclasses.replace(made, laws=laws, averages=averages)
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
    return remade(given, free, tuple(name for name, _ in learned), bounds, laws, averages)


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
    """Raise on a table that has another shape than a decision's logits, or holds probabilities."""
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


def is_prepared(module: Any) -> bool:
    """Whether something is worked out of a guide's arrays before its functions are asked."""
    return not isinstance(module, Mapping) and callable(getattr(module, "prepare", None))


def prepared(module: Any, args: Any) -> Any:
    """What has the functions of a guide."""
    if not is_prepared(module):
        return module
    given = in_full(args)
    try:
        inspect.signature(module.prepare).bind(*given)
    except TypeError as error:
        raise TypeError(f"the guide's prepare takes the program's arguments, {len(given)} of them: {error}.") from error
    return module.prepare(*given)


def without(name: str, hidden: str) -> str:
    """What the function of a decision is called where some real numbers are averaged out."""
    return f"{name}_without_{hidden}"


def averages_of(structure: Structure, given: Any) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """The functions in which real numbers are averaged out, by decision, with what they take.

    Raises:
        ValueError: something else depends on these numbers, or something stands between them and the decision.
    """
    latent = [site.name for site in structure.step.latent]
    for hidden, name in itertools.pairwise(latent):
        function = entry(given, without(name, hidden))
        if not callable(function):
            continue
        others = [site.name for site in structure.step.decisions if site.name != name]
        others = [other for other in others if hidden in names_of(structure, other, entry(given, other))]
        users = structure.step.users(hidden) + others
        if users or is_finite(structure.supports()[hidden]):
            raise ValueError(
                f"the guide's {without(name, hidden)} averages {hidden!r} out: it must be real, and nothing but the "
                f"guide of {name!r} may depend on it; {f'{sorted(users)} do' if users else 'it is finite'}."
            )
        yield name, hidden, tuple(other for other in names_of(structure, name, function) if other != hidden)


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


def described(given: Any) -> str:
    """What was given, in a few words."""
    return f"a dict of {sorted(map(str, given))}" if isinstance(given, Mapping) else type(given).__name__
