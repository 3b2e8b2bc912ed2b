"""What a program and a guide ask of nodes: whether there are any, whether time matters, and what jumps."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from rlinf_ppl.inference.particles.simulator import Simulator
from rlinf_ppl.program.conditionals import ConditionalLaw, Proposed
from rlinf_ppl.program.divergence import gaussian_kl
from rlinf_ppl.program.jumps import jumping
from rlinf_ppl.program.supports import first_value, is_finite


def nodes_are_needed(simulator: Simulator, laws: Mapping[str, ConditionalLaw]) -> bool:
    """Whether something real is integrated by nodes: none is that a guide averages out, at a cost in closed form."""
    structure, supports = simulator.structure, simulator.structure.supports()
    if not all(is_finite(site.support) for site in structure.initial.latent):
        return True
    at = {name: first_value(support) for name, support in supports.items()} | {"t": jnp.zeros((), int)}
    averages = [law.average for law in laws.values() if isinstance(law, Proposed)]
    averaged = {each.hidden for each in averages if each is not None}

    def cost(name: str) -> Array | None:
        own = simulator.at("step", at).law(name)
        return gaussian_kl(laws[name](at, at["t"], own), own)

    real = [site.name for site in structure.step.latent if not is_finite(site.support)]
    return any(name not in averaged or eqx.filter_eval_shape(cost, name) is None for name in real)


def is_stationary(simulator: Simulator, laws: Mapping[str, ConditionalLaw]) -> bool:
    """Whether nothing varies in time, neither in the step nor in a guide."""
    if simulator.structure.horizon is None:
        return True
    if simulator.structure.takes_time or not all(isinstance(law, Proposed) for law in laws.values()):
        return False
    called = [law.function for law in laws.values() if isinstance(law, Proposed)]
    called += [law.average.function for law in laws.values() if isinstance(law, Proposed) and law.average is not None]
    return all("t" not in function.names for function in called)


def jumping_laws(simulator: Simulator, laws: Mapping[str, ConditionalLaw]) -> set[str]:
    """The real sites of the step that a guide's own functions may jump with."""
    form, found = simulator.structure.step, set[str]()
    supports = simulator.structure.supports()
    for name, law in laws.items():
        before = [site.name for site in form.latent]
        before = before[: before.index(name)]
        real = [other for other in before if not is_finite(supports[other])]
        first = {other: first_value(support) for other, support in supports.items()} | {"t": jnp.zeros((), int)}

        def leaves(values: list[Any], name: str = name, law: ConditionalLaw = law, real: Any = real) -> Any:
            at = first | dict(zip(real, values, strict=True))  # noqa: B023
            return jax.tree.leaves(law(at, at["t"], simulator.at("step", at).law(name)))

        made = jax.make_jaxpr(leaves)([first[other] for other in real]).jaxpr
        found |= jumping(made, {variable: {other} for variable, other in zip(made.invars, real, strict=True)})
    return found
