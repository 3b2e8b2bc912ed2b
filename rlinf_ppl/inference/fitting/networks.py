"""Amortised guides: each decision's conditional as one neural network over features of its scope and the time.

    q(d | scope, t) = p exp(theta) / Z,   theta = network(features(scope), t),

and for a decision of real numbers the prior N(m, F F') moved to N(m + F mu, F L L' F'), theta being mu and L. The last
layer is 0 at first, so a fit starts from the prior. What is learned at one state carries over to others, as it must
where there are too many states for a table.
"""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, PRNGKeyArray

from rlinf_ppl.inference.arguments import check_count, check_key, check_value
from rlinf_ppl.inference.particles.simulator import Simulator
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.checks import described
from rlinf_ppl.program.conditionals import ConditionalLaw, Proposed, Tilted
from rlinf_ppl.program.networks import Feature, Network, networks_of
from rlinf_ppl.program.reading import check_program
from rlinf_ppl.program.structure import Structure
from rlinf_ppl.program.supports import Support


class PolicyFunction(eqx.Module):
    """A decision's learned conditional, as a function of the variables before it by their names, and of t.

    Attributes:
        simulator: the program, for the decision's prior.
        name: the decision.
        learned: its law, given these.
    """

    simulator: Simulator
    name: str = eqx.field(static=True)
    learned: ConditionalLaw

    def __call__(self, *, t: Any = 0, **at: Any) -> dist.Distribution:
        """Its distribution, at one value of each variable; vmap for many.

        Raises:
            TypeError: a variable of its scope is missing, or one is none of the program's.
            ValueError: a value has another shape than the variable, or is none of its values.
        """
        structure = self.simulator.structure
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
        prior = self.simulator.at("step", values | {"t": now}).law(self.name)
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
