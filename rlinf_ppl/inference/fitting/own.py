"""Guides of one's own: what their functions come to, as tables where they can, and the exact ELBO of these."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlinf_ppl.algebra import Chain
from rlinf_ppl.inference.chains import answers
from rlinf_ppl.inference.chains.policies import laws_of
from rlinf_ppl.inference.fitting.networks import PolicyFunction
from rlinf_ppl.inference.particles.simulator import Simulator
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.conditionals import ConditionalLaw, Looked, Proposed, Tilted
from rlinf_ppl.program.evaluation import temperature_of
from rlinf_ppl.program.guides import Guide, as_guide
from rlinf_ppl.program.laws import probs_of
from rlinf_ppl.program.supports import is_finite, values_of


def is_own(guide: Any) -> bool:
    """Whether a guide is one of functions of the user's: neither tables nor networks alone."""
    if guide is None or not isinstance(guide, dict):
        return guide is not None
    return any(callable(entry) and not isinstance(entry, Tilted) for entry in guide.values())


def learnable(program: ControlProgram, given: Any) -> Guide:
    """A guide of one's own that has something to learn.

    Raises:
        TypeError, ValueError: it is none, or has no arrays.
    """
    guide = as_guide(program, given)
    if not guide.free:
        raise ValueError(
            "the guide has no arrays, so that there is nothing to learn: only jax arrays in an Equinox module, or in "
            "what a dict of functions holds, are parameters; Python floats and what functools.partial holds are not."
        )
    return guide


def refusal(loss: Any) -> str:
    """What is said of a loss that takes no guide of one's own."""
    return (
        f"{loss!r} fits no guide of one's own; loss=svi.ParticleELBO(n) takes any, and svi.ExactELBO() one that can be "
        "written out as tables, each with an optimizer."
    )


def bound(chain: Chain, simulator: Simulator, guide: Guide) -> Float[Array, ""]:
    """The exact ELBO of a guide's tables."""
    laws = guide.conditionals(simulator)
    tables = {name: tabulated(simulator, name, law) for name, law in laws.items()}
    return answers.evaluate(chain, laws_of(chain, tables)).elbo


def check_tables(simulator: Simulator, guide: Guide) -> None:
    """Raise where a function of a guide cannot be written out.

    Raises:
        ValueError: so it is.
    """
    for name, law in guide.conditionals(simulator).items():
        unseen = outside(simulator, name, law)
        if unseen:
            raise ValueError(
                f"the guide of {name!r} is one over {unseen}, and there is no table of that: its scope is "
                f"{list(dict(simulator.structure.scopes)[name])}. svi.ParticleELBO(n) takes any guide."
            )


def policy_of(simulator: Simulator, laws: dict[str, ConditionalLaw]) -> dict[str, Any]:
    """What users are given: tables of decisions that have one, functions of the others."""

    def one(name: str, law: ConditionalLaw) -> Any:
        if isinstance(law, Proposed) and law.average is not None:
            law = law.average.alone(law.support)
        network = isinstance(law, Tilted) and not isinstance(law.parameters, Looked)
        if network or outside(simulator, name, law):
            return PolicyFunction(simulator, name, law)
        return tabulated(simulator, name, law)

    return {name: one(name, law) for name, law in laws.items()}


def outside(simulator: Simulator, name: str, law: ConditionalLaw) -> list[str]:
    """What a decision's law depends on, and the decision itself, that no table of it has an axis for."""
    structure = simulator.structure
    supports, scope = structure.supports(), dict(structure.scopes)[name]
    taken = law.function.names if isinstance(law, Proposed) else scope
    axes = (*structure.times(), *(axis for axis in scope if is_finite(supports[axis])))
    real = [axis for axis in scope if not is_finite(supports[axis]) and axis not in taken]
    return [axis for axis in taken if axis not in axes] + real + [name] * (not is_finite(supports[name]))


def tabulated(simulator: Simulator, name: str, law: ConditionalLaw) -> Float[Array, "..."]:
    """A decision's law over time, its scope and its own values; NaN where it is none."""
    structure = simulator.structure
    supports = structure.times() | {axis: structure.supports()[axis] for axis in dict(structure.scopes)[name]}

    def row(*values: Array) -> Array:
        at = dict(zip(supports, values, strict=True))
        t = at.pop("t", jnp.zeros((), int))
        found = law(at, t, simulator.at("step", at | {"t": t}).law(name))
        # Rows that are no law must not pass for one.
        return jnp.where(found.is_wrong(), jnp.nan, probs_of(found))

    for i in reversed(range(len(supports))):
        row = jax.vmap(row, in_axes=[0 if j == i else None for j in range(len(supports))])
    return row(*map(values_of, supports.values()))


def check_one_sign(program: ControlProgram) -> None:
    """Raise where decisions that one guide is made for have different aims, or keep their prior.

    Raises:
        ValueError: so it is, where inverse temperatures are known.
    """
    signs = {}
    for site in program.structure.step.decisions:
        tau = temperature_of(program.parts["step"], site)
        if isinstance(tau, jax.core.Tracer):
            continue
        signs[site.name] = np.unique(np.sign(tau))
        if 0 in signs[site.name]:
            raise ValueError(
                f"the inverse temperature of {site.name!r} is 0: it keeps its prior, whatever a guide says. Make "
                "it a numpyro.sample site, or give it another."
            )
    if signs and len(np.unique(np.concatenate(list(signs.values())))) > 1:
        raise ValueError(
            f"{[name for name in signs if -1 in signs[name]]} minimise what others maximise, and a guide of one's "
            "own has one aim; fit tables, which know whose each of them is."
        )


def common_sign(simulator: Simulator) -> Array:
    """The sign of all inverse temperatures; NaN where they have none in common, so that no fit passes for one."""
    step = simulator.parts["step"]
    signs = [jnp.ravel(jnp.sign(temperature_of(step, site))) for site in simulator.structure.step.decisions]
    every = jnp.concatenate(signs)
    return jnp.where(jnp.all(every == every[0]) & (every[0] != 0), every[0], jnp.nan)


def steepest(numbers: Any) -> Array:
    """The largest of some numbers in size."""
    return jnp.max(jnp.stack([jnp.max(jnp.abs(x), initial=0.0) for x in jax.tree.leaves(numbers)]))
