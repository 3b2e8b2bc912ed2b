"""What a traced function is without its numbers: its sites, what each depends on, and its arithmetic as a jaxpr."""

from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr

from rlinf_ppl.algebra.chain import FACTORS
from rlinf_ppl.algebra.regularizers import Regularizer
from rlinf_ppl.program.identity import jaxpr_key
from rlinf_ppl.program.supports import Support


class SiteForm(NamedTuple):
    """A site: its kind, its values (of a factor a number), and what its distribution or factor depends on.

    A kind is decision, chance, optimality, or data: the log probability of what was observed, in nats, which no inverse
    temperature multiplies. `array` is the position, among the closed-over arrays and the arguments, of the array that
    is its table already.
    """

    name: str
    kind: str
    support: Support
    parents: tuple[str, ...]
    tempered: bool
    temperature_parents: tuple[str, ...]
    array: int | None
    regularizer: Regularizer
    unseen: tuple[str, ...]

    @property
    def is_factor(self) -> bool:
        """Whether it is optimality or data: a log probability, and no variable."""
        return self.kind in FACTORS

    @property
    def output(self) -> str:
        """Which of `Outputs` it is."""
        return "factors" if self.is_factor else "laws"


class NextForm(NamedTuple):
    """A next state variable: the variable whose value it takes unchanged, or None, what it depends on, and its shape.

    `arrays` is what it is made of, whatever values it takes.
    """

    name: str
    source: str | None
    parents: tuple[str, ...]
    arrays: Support


class Outputs(NamedTuple):
    """What a part of a program gives, each by its name: numbers, or whatever there is one of for each number."""

    laws: dict[str, Any]
    factors: dict[str, Any]
    temperatures: dict[str, Any]
    following: dict[str, Any]


class Arithmetic:
    """A jaxpr that compares and hashes by what it computes, so that programs of one form share compiled code.

    Attributes:
        jaxpr: of named variables first and arrays after them.
        places: which of its outputs each number of the part is.
        shapes: the shape and type of each.
    """

    def __init__(self, jaxpr: ClosedJaxpr, shapes: "Outputs"):
        self.jaxpr, self.shapes = jaxpr.jaxpr, shapes
        tree: Any = jax.tree.structure(shapes)
        self.places: Outputs = jax.tree.unflatten(tree, range(tree.num_leaves))
        self._key = jaxpr_key(jaxpr.jaxpr), tree
        self._hash = hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Arithmetic) and self._key == other._key

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Arithmetic({len(self.jaxpr.eqns)} equations)"


class Form(NamedTuple):
    """What one traced function is, without its numbers: hashable and shared by programs of one shape.

    `inputs` are the values of all that it may depend on: the time index, state variables and its own sites.
    """

    inputs: tuple[tuple[str, Support], ...]
    sites: tuple[SiteForm, ...]
    following: tuple[NextForm, ...]
    shared_temperature: bool
    arithmetic: Arithmetic

    @property
    def latent(self) -> tuple[SiteForm, ...]:
        """The decision and chance sites in program order."""
        return tuple(site for site in self.sites if not site.is_factor)

    @property
    def decisions(self) -> tuple[SiteForm, ...]:
        """The decisions in program order."""
        return tuple(site for site in self.sites if site.kind == "decision")

    def users(self, name: str) -> list[str]:
        """The sites and next state variables that depend on a variable."""
        sites = [site.name for site in self.sites if name in (*site.parents, *site.temperature_parents)]
        return sites + [each.name for each in self.following if name in each.parents]

    def supports(self) -> dict[str, Support]:
        """The values of each latent site."""
        return {site.name: site.support for site in self.latent}
