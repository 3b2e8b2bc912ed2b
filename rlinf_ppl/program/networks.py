"""Perceptrons as the law of decisions: what a decision sees, as one vector, moves its prior.

    q(d | scope, t) = p exp(theta) / Z,   theta = network(features(scope), t),

and for a decision of real numbers the prior N(m, F F') moved to N(m + F mu, F L L' F'), theta being mu and L. The last
layer is 0 at first: the prior.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from rlinf_ppl.program.conditionals import Tilted, Values
from rlinf_ppl.program.structure import Structure
from rlinf_ppl.program.supports import Support, first_value, is_finite, positions_of

MOST_INDICATORS = 1024

Feature = Callable[[Array], Array]


class Inputs(eqx.Module):
    """Variables and the time as one vector.

    Attributes:
        variables: their names and values, in order.
        features: for some of them a function of the value; the others are taken as they are, finite ones as indicators.
        horizon: the number of steps, by which the time is scaled to [-1, 1]; None: the time is left out.
    """

    variables: tuple[tuple[str, Support], ...] = eqx.field(static=True)
    features: tuple[tuple[str, Feature], ...] = eqx.field(static=True)
    horizon: int | None = eqx.field(static=True)

    def __call__(self, at: Values, t: Array) -> Array:
        """The vector."""
        own = dict(self.features)
        parts = [self.part(own.get(name), support, at[name]) for name, support in self.variables]
        if self.horizon is not None:
            parts.append(jnp.reshape(2.0 * t / max(self.horizon - 1, 1) - 1.0, 1))
        return jnp.concatenate([jnp.zeros(0), *parts])

    def part(self, feature: Feature | None, support: Support, value: Any) -> Array:
        """What the vector holds of one variable."""
        if feature is not None:
            return jnp.ravel(jnp.asarray(feature(value), dtype=float))
        if not is_finite(support):
            return jnp.concatenate([jnp.reshape(x, -1).astype(float) for x in jax.tree.leaves(value)])
        return (positions_of(support, value) == jnp.arange(len(support))).astype(float)

    def __len__(self) -> int:
        """The number of entries."""
        at = {name: first_value(support) for name, support in self.variables}
        return jax.eval_shape(self, at, jnp.zeros((), int)).shape[0]


class Network(eqx.Module):
    """A multilayer perceptron over variables and the time; its arrays are its leaves, all else is static."""

    inputs: Inputs
    arrays: Any
    rest: Any = eqx.field(static=True)

    def __call__(self, at: Values, t: Array) -> Array:
        """The outputs."""
        return eqx.combine(self.arrays, self.rest)(self.inputs(at, t))


def networks_of(
    structure: Structure,
    key: Array,
    counts: tuple[int, int] = (64, 2),
    features: Mapping[str, Feature] = MappingProxyType({}),
    activation: Callable[[Array], Array] = jnp.tanh,
) -> dict[str, Tilted]:
    """The same by the structure of a program, the width and depth together."""
    keys, supports = jax.random.split(key, len(structure.scopes)), structure.supports()
    laws = structure.step.arithmetic.shapes.laws

    def one(name: str, scope: tuple[str, ...], key: Array) -> Tilted:
        inputs = network_inputs(structure, scope, features)
        return Tilted(network(key, inputs, laws[name].num_parameters, counts, activation), supports[name])

    return {name: one(name, scope, each) for (name, scope), each in zip(structure.scopes, keys, strict=True)}


def network_inputs(structure: Structure, names: tuple[str, ...], features: Mapping[str, Feature]) -> Inputs:
    """Some variables and the time as what a network sees; raises where a finite one has too many values."""
    supports = structure.supports()
    for name in names:
        support = supports[name]
        if name not in features and is_finite(support) and len(support) > MOST_INDICATORS:
            raise ValueError(
                f"{name!r} has {len(support)} values, too many for one indicator each; say what matters about a value "
                f'by features={{"{name}": function}}, which returns a vector.'
            )
    variables = tuple((name, supports[name]) for name in names)
    return Inputs(variables, tuple((name, features[name]) for name in names if name in features), structure.horizon)


def network(
    key: Array,
    inputs: Inputs,
    outputs: int,
    counts: tuple[int, int],
    activation: Callable[[Array], Array],
) -> Network:
    """A network of some width and depth, 0 everywhere."""
    perceptron = eqx.nn.MLP(len(inputs), outputs, *counts, activation, key=key)
    last = lambda mlp: (mlp.layers[-1].weight, mlp.layers[-1].bias)  # noqa: E731
    perceptron = eqx.tree_at(last, perceptron, tuple(jnp.zeros_like(x) for x in last(perceptron)))
    arrays, rest = eqx.partition(perceptron, eqx.is_array)
    return Network(inputs, arrays, rest)
