"""Amortised guides: each decision's conditional as one neural network over features of its scope and the time.

    q(d | scope, t) = p exp(theta) / Z,   theta = network(features(scope), t),

and for a decision of real numbers the prior N(m, F F') moved to N(m + F mu, F L L' F'), theta being mu and L. The last
layer is 0 at first, so a fit starts from the prior. What is learned at one state carries over to others, as it must
where there are too many states for a table.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, PRNGKeyArray

from rlinf_ppl.inference.arguments import check_count, check_key, check_value
from rlinf_ppl.inference.particles.dynamics import Dynamics, Values
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.checks import described
from rlinf_ppl.program.conditionals import ConditionalLaw, Proposed, Tilted
from rlinf_ppl.program.reading import check_program
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


class PolicyFunction(eqx.Module):
    """A decision's learned conditional, as a function of the variables before it by their names, and of t.

    Attributes:
        dynamics: the program, for the decision's prior.
        name: the decision.
        learned: its law, given these.
    """

    dynamics: Dynamics
    name: str = eqx.field(static=True)
    learned: ConditionalLaw

    def __call__(self, *, t: Any = 0, **at: Any) -> dist.Distribution:
        """Its distribution, at one value of each variable; vmap for many.

        Raises:
            TypeError: a variable of its scope is missing, or one is none of the program's.
            ValueError: a value has another shape than the variable, or is none of its values.
        """
        structure = self.dynamics.structure
        what, supports, scope = f"policy[{self.name!r}]", structure.supports(), dict(structure.scopes)[self.name]
        if isinstance(self.learned, Proposed):
            scope = tuple(name for name in self.learned.function.names if name != "t")
        missing, unknown = [name for name in scope if name not in at], [name for name in at if name not in supports]
        if missing or unknown:
            found = [f"{missing} are missing"] * bool(missing) + [f"{unknown} are no variables here"] * bool(unknown)
            raise TypeError(f"{what} takes {[*scope, 't']} by name; {', and '.join(found)}.")
        values = {name: check_value(f"{name!r} of {what}", supports[name], value) for name, value in at.items()}
        times = structure.horizon
        now = jnp.asarray(t) if times is None else check_value(f"'t' of {what}", range(times), t)
        prior = self.dynamics.at("step", values | {"t": now}).law(self.name)
        return self.learned(values, now, prior).distribution


def networks(
    program: ControlProgram,
    key: PRNGKeyArray | Array,
    *,
    width: int = 64,
    depth: int = 2,
    features: Mapping[str, Feature] | None = None,
    activation: Callable[[Array], Array] = jnp.tanh,
) -> dict[str, Tilted]:
    """One network for each decision of a program, to start a fit from: `svi.fit(program, key, guide=networks(...))`.

    Args:
        program: any step program.
        key: a JAX random key, for the weights.
        width: of each hidden layer.
        depth: the number of hidden layers.
        features: for a variable a function of its value that returns a vector of what matters about it. Without, real
            numbers are taken as they are, and a finite variable as one indicator for each value.
        activation: of the hidden layers.

    Raises:
        TypeError: on something else than a program, or features or an activation that are no functions.
        ValueError: on features of no variable, or a finite variable with more than 1,024 values and no features.
    """
    check_program(program)
    counts = check_count("width", width), check_count("depth", depth)
    if features is not None and not isinstance(features, Mapping):
        raise TypeError(f'features must be a dict such as {{"x": jnp.sin}}; got {described(features)}.')
    given = dict(features or {})
    if not callable(activation):
        raise TypeError(f"activation must be a function, such as jnp.tanh; got {described(activation)}.")
    unknown = [name for name in given if name not in program.supports]
    if unknown:
        raise ValueError(f"features names {unknown}; the variables are {list(program.supports)}.")
    for name, feature in given.items():
        if not callable(feature):
            raise TypeError(f"features[{name!r}] must be a function of {name}; got {type(feature).__name__}.")
    return networks_of(program.structure, check_key(key), counts, given, activation)


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
        inputs = inputs_of(structure, scope, features)
        return Tilted(network(key, inputs, laws[name].num_parameters, counts, activation), supports[name])

    return {name: one(name, scope, each) for (name, scope), each in zip(structure.scopes, keys, strict=True)}


def inputs_of(structure: Structure, names: tuple[str, ...], features: Mapping[str, Feature]) -> Inputs:
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


def check_networks(structure: Structure, guide: Mapping[str, Any]) -> None:
    """Raise where a network of a guide sees other variables than the decision's policy, or gives another law.

    Raises:
        ValueError: one does.
    """
    supports = structure.supports()
    for name, scope in structure.scopes:
        learned = guide[name]
        if not isinstance(learned, Tilted) or not isinstance(learned.parameters, Network):
            continue
        wanted = {axis: supports[axis] for axis in (*scope, name)}
        found = dict(learned.parameters.inputs.variables) | {name: learned.support}
        if found != wanted:
            raise ValueError(
                f"guide[{name!r}] was made for another program: its variables are {sizes(found)}, and here they are "
                f"{sizes(wanted)} (number of values or coordinates); make one by svi.networks(program, key)."
            )


def sizes(supports: Mapping[str, Support]) -> dict[str, int]:
    """The number of values, or of coordinates, of each variable."""
    return {name: len(support) for name, support in supports.items()}


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
