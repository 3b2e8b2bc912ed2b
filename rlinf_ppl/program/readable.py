"""Which programs exact answers can read, as tables or as quadratics, and what the authors of others are told."""

from typing import Any

import numpyro.distributions as dist

from rlinf_ppl.program.families import base_of, is_discrete
from rlinf_ppl.program.laws import GaussianLaw, SampledLaw
from rlinf_ppl.program.supports import Arrays, Real, is_whole

ANYWAY = (
    "smc.run takes this one, and so does svi.fit with guide=svi.networks(program, key) or a guide of your own, by "
    "svi.ParticleELBO or svi.NodeELBO."
)


def check_readable(structure: Any) -> None:
    """Raise where a program is neither one of tables nor one of quadratics.

    Raises:
        ValueError: a variable can be read as neither, or some are finite and others real.
    """
    kinds: dict[bool, str] = {}
    for part, form in (("initial", structure.initial), ("step", structure.step)):
        for site in form.latent:
            law = form.arithmetic.places.laws[site.name]
            if isinstance(law, SampledLaw):
                raise ValueError(f"{part}: site {site.name!r} {unreadable(law.base)}. {ANYWAY}")
            kinds.setdefault(isinstance(law, GaussianLaw), f"{part}'s site {site.name!r}")
    for name, support in structure.state:
        if isinstance(support, Arrays):
            ways = (
                f"is a whole number that initial returns as something other than a site, so its number of values is "
                f'unknown; give sizes={{"{name}": ...}} for exact answers'
                if is_whole(support)
                else "is neither a number nor a vector of real ones, so no table and no quadratic is over it"
            )
            raise ValueError(f"the state variable {name!r} {ways}. {ANYWAY}")
        kinds.setdefault(isinstance(support, Real), f"the state variable {name!r}")
    if len(kinds) == 2:
        raise ValueError(
            f"{kinds[True]} is Gaussian and {kinds[False]} has finitely many values; exact answers and prog.guide take "
            f"programs whose variables are all finite, or all real. {ANYWAY}"
        )
    if structure.gaussian and structure.hidden:
        name, hidden = structure.hidden[0]
        raise ValueError(
            f"the decision {name!r} does not see {list(hidden)}, which matters to it; among vectors exact answers are "
            "for decisions that see all that does. svi.fit(program, key, guide=svi.networks(program, key), "
            "loss=svi.ParticleELBO(n), optimizer=optax.adam(0.01)) takes this one."
        )


def unreadable(law: Any) -> str:
    """Why no exact answer can read a law, and what to write instead."""
    kind, base = type(base_of(law)).__name__, base_of(law)
    if isinstance(base, dist.Delta):
        return f"({kind}) has one value, which is known: return it, or call numpyro.deterministic"
    if law.event_shape and is_discrete(base):
        return (
            f"({kind}) has shape {law.event_shape}; exact answers take one number a site: write a site for each of them"
        )
    if is_discrete(base):
        return (
            f"({kind}) has infinitely many values, or a number of them that is not known; exact answers take finitely "
            f"many, such as truncated({kind}(...), largest), which leaves out what is larger"
        )
    return f"({kind}) has infinitely many values; exact answers take sites that are finite, or Normal, or vectors of it"
