"""Numbers that make no program: rows that are no distribution, rewards that are not finite, values out of a support.

Concrete arrays are checked once, for every program, and refused by name and place; traced ones make a chain that is
not valid.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rlinf_ppl.algebra import Chain, Conditional, Site
from rlinf_ppl.algebra.arrivals import FiniteArrival
from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.algebra.regularizers import kl
from rlinf_ppl.algebra.tables import ROW_TOLERANCE, most_rounding
from rlinf_ppl.program.control_program import ControlProgram


def check(program: ControlProgram, chain: Chain, bad: dict[str, Any]) -> None:
    """Raise on numbers that are no program: see `read`."""
    for part, flags in bad["sites"].items():
        for name, wrong in flags.items():
            if wrong:
                raise ValueError(describe_bad(program, part, next(s for s in sites_of(chain)[part] if s.name == name)))
    for name, wrong in bad["temperature"].items():
        if wrong:
            raise ValueError(describe_temperature(next(site for site in chain.step.sites if site.name == name)))
    for name, wrong in bad["regularizer"].items():
        if wrong:
            raise ValueError(
                f"the regularizer of {name!r} makes a policy that is no distribution over what the prior allows; the "
                "gradient of its conjugate must sum to 1, and be 0 where the prior is."
            )
    if bad["outside"]:
        raise ValueError(describe_outside(program, chain))


@compiled
def find_bad(chain: Chain, impossible: bool) -> tuple[dict[str, Any], Array]:
    """For each site whether any number of it is wrong, and whether any row wants to be rescaled."""

    def wrong(site: Site) -> Array:
        if site.is_factor:
            fine = jnp.isfinite(site.factor.array)
            return ~jnp.all(fine | jnp.isneginf(site.factor.array) if impossible else fine)
        p = site.law.table.array
        # Two plain reductions: anything elementwise in front of them would write a table of the law's size.
        return ~(jnp.all(jnp.abs(jnp.sum(p, -1) - 1) <= ROW_TOLERANCE) & (jnp.min(p) >= 0))

    parts = {part: {site.name: wrong(site) for site in sites} for part, sites in sites_of(chain).items()}

    def senseless(site: Site, tau: Array) -> Array:
        alone = ((tau == 0) & (site.law.regularizer != kl)) | (jnp.isinf(tau) & (site.name in together))
        return jnp.any(jnp.isnan(tau) | alone)

    together = {name for site in chain.step.sites if site.together for name in (site.name, *site.together)}
    taus = [(site, site.inverse_temperature) for site in chain.step.sites]
    temperature = {site.name: senseless(site, tau.array) for site, tau in taus if tau is not None}
    decisions = [site for site in chain.step.sites if site.kind == "decision" and site.law.regularizer != kl]
    regularizer = {site.name: unfit(site.law) for site in decisions}
    rough = [is_rough(site.law) for sites in sites_of(chain).values() for site in sites if not site.is_factor]
    bad = {"sites": parts, "temperature": temperature, "regularizer": regularizer, "outside": ~chain.valid}
    return bad, jnp.any(jnp.stack([jnp.asarray(False), *rough]))


def is_rough(law: Any) -> Array:
    """Whether any row of a law is off one by more than rounding."""
    p = law.table.array
    return jnp.max(jnp.abs(jnp.sum(p, -1) - 1)) > most_rounding(p)


@compiled
def rescaled(chain: Chain) -> Chain:
    """The program with rows that sum to one."""

    def one(node: Any) -> Any:
        if not isinstance(node, Conditional):
            return node
        p = node.table.array
        return eqx.tree_at(lambda law: law.table.array, node, p / jnp.sum(p, -1, keepdims=True))

    return jax.tree.map(one, chain, is_leaf=lambda node: isinstance(node, Conditional))


def unfit(law: Conditional) -> Array:
    """Whether a regularizer makes something else than a distribution of a trial: alternatives of growing value."""
    p = law.table.array
    q, _ = law.regularizer.maximum(p, jnp.broadcast_to(jnp.linspace(0.0, 1.0, p.shape[-1]), p.shape))
    sums = jnp.stack([jnp.sum(q, -1), jnp.sum(jnp.where(p > 0, q, 0.0), -1)])
    return ~(jnp.all(jnp.abs(sums - 1) <= ROW_TOLERANCE) & (jnp.min(q) >= -ROW_TOLERANCE))


def sites_of(chain: Chain) -> dict[str, tuple[Site, ...]]:
    """The sites of each part."""
    return {"initial": chain.initial.sites, "step": chain.step.sites, "final": chain.final}


def describe_bad(program: ControlProgram, part: str, site: Site) -> str:
    """What is wrong with a site's numbers, where, and what to do."""
    if site.is_factor:
        array = np.asarray(site.factor.array)
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        where = describe_place(site.factor.axes, at)
        if np.isneginf(array[at]) and site.kind == "data":
            return (
                f"{part}: the data {site.name!r} have probability zero{where}; exact.solve and fits leave chance at "
                "its prior, so that their value is minus infinity: exact.condition and smc.run go by the posterior."
            )
        if np.isnan(array[at]) and site.kind == "data":
            return (
                f"{part}: the log probability of the data {site.name!r} is no number{where}: the parameters of their "
                "law break its constraints, such as rows that do not sum to one, or are NaN."
            )
        return (
            f"{part}: {site.kind} {site.name!r} is {array[at]}{where}; rewards must be finite: give prior 0 to "
            "impossible actions."
        )
    p = np.asarray(site.law.table.array, dtype=float)
    sums = p.sum(-1)
    at = tuple(int(i) for i in np.argwhere(~((np.abs(sums - 1) <= ROW_TOLERANCE) & np.all(p >= 0, -1)))[0])
    where = describe_place(site.law.table.axes[:-1], at)
    law = "prior" if site.kind == "decision" else "distribution"
    found = f"sums to {sums[at]:.6g}, {sums[at] - 1:+.3g} off" if np.all(p[at] >= 0) else f"is {p[at]}"
    return f"{part}: the {law} of {site.name!r}{where} {found}; its probabilities must be at least 0 and sum to 1."


def describe_temperature(site: Site) -> str:
    """What is wrong with the inverse temperature of a decision."""
    assert site.inverse_temperature is not None
    if np.isnan(np.asarray(site.inverse_temperature.array)).any():
        return f"the inverse temperature of {site.name!r} is not a number."
    if np.isinf(np.asarray(site.inverse_temperature.array)).any():
        return (
            f"the inverse temperature of {site.name!r} is infinite; it is taken together with decisions that do not "
            "see it, and their equilibrium is followed from 0 up to it: give a large finite number."
        )
    return (
        f"the inverse temperature of {site.name!r} is 0, where the value of a decision that is regularized by "
        f"{site.law.regularizer.name} has no limit; give another number, or regularize by kl."
    )


def describe_place(axes: tuple[str, ...], at: tuple[int, ...]) -> str:
    """The values of the parents at an index."""
    return f" at {', '.join(f'{name} = {i}' for name, i in zip(axes, at, strict=True))}" if axes else ""


def describe_outside(program: ControlProgram, chain: Chain) -> str:
    """Which next value lies outside its support, where, and what to do."""
    for part, arrival in (("initial", chain.initial.arrival), ("step", chain.step.arrival)):
        assert isinstance(arrival, FiniteArrival)
        for name, table in arrival.positions.items():
            outside = np.argwhere(np.asarray(table.array) >= program.sizes[name])
            if len(outside):
                where = describe_place(table.axes, tuple(int(i) for i in outside[0]))
                return (
                    f"{part} returns a value of {name!r}{where} outside its {program.sizes[name]} values; clip it, or "
                    "make the last state absorbing."
                )
    raise AssertionError("no next value lies outside its support")
