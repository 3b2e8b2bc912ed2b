"""What single steps are worth under a guide, by given action values: the right-hand sides of `actor_critic`."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from rlinf_ppl.algebra.numerics import soft_maximum
from rlinf_ppl.inference.particles.dynamics import FINAL, STEP, Dynamics, Values, noise_of
from rlinf_ppl.inference.particles.laws import drawn, known, log_density
from rlinf_ppl.inference.particles.proposals import Proposal
from rlinf_ppl.program.sites import Real, positions_of
from rlinf_ppl.program.tracing import SiteForm


class Judge(NamedTuple):
    """Action values and the policy that they are of, at single steps.

    Attributes:
        dynamics: the program, in units of optimality.
        guide: for each decision its law.
        critics: for each decision its action values by the values at a step and the time, in units of `scale`: of all
            its values, or of the one that it has where they are real numbers.
        scale: in units of optimality.
    """

    dynamics: Dynamics
    guide: Mapping[str, Proposal]
    critics: Mapping[str, Callable[[Values, Array], Array]]
    scale: Any

    def action_values(self, at: Values) -> Values:
        """Q of each decision that was taken."""

        def one(site: SiteForm) -> Array:
            q = self.quality(site, at)
            return q[0] if isinstance(site.support, Real) else q[positions_of(known(site.support), at[site.name])]

        return {site.name: one(site) for site in self.decisions}

    def quality(self, site: SiteForm, at: Values) -> Array:
        """Q of all values of a finite decision, or of the one that a decision of real numbers has."""
        return self.scale * self.critics[site.name](at, at["t"])

    def targets(self, at: Values, key: Array) -> Values:
        """For each decision of a step what its Q is to be: the factors up to the next decision, and the V there."""
        form = self.dynamics.structure.step
        outputs = self.dynamics.outputs(STEP, at)
        following = {name: at[f"{name}'"] for name, _ in self.dynamics.structure.state}
        keys = jax.random.split(key, len(self.decisions) + 1)
        value, found = self.dynamics.discount * self.ahead(following, at["t"] + 1, keys[-1]), {}
        for i in reversed(range(len(form.sites))):
            site = form.sites[i]
            if site.kind == "optimality":
                value = value + outputs[i]
            elif site.kind == "decision":
                found[site.name] = value
                value = self.best(site, at, keys[self.decisions.index(site)])
        return found

    def value(self, site: SiteForm, at: Values, key: Array) -> Array:
        """V of a decision under the guide."""
        prior, tau = self.prior(site, at)
        law = self.guide[site.name](at, at["t"], prior)
        if not isinstance(site.support, Real):
            pays = jnp.log(jnp.where(law > 0, law, 1.0)) - jnp.log(jnp.where(law > 0, prior, 1.0))
            return jnp.sum(law * (self.quality(site, at) - pays / tau))
        a = drawn(site.support, law, jax.random.normal(key, (len(site.support),)))
        cost = log_density(site.support, law, a) - log_density(site.support, prior, a)
        return self.quality(site, at | {site.name: a})[0] - cost / tau

    def best(self, site: SiteForm, at: Values, key: Array) -> Array:
        """V of a decision for targets: of a finite one under the best reply, so that no poor guide holds it back."""
        if isinstance(site.support, Real):
            return self.value(site, at, key)
        prior, tau = self.prior(site, at)
        return soft_maximum(prior, self.quality(site, at), tau)[1]

    def gain(self, at: Values, key: Array) -> Array:
        """What the guide is to maximise at a step: V of each decision, or -V where the decision minimises."""
        keys = jax.random.split(key, len(self.decisions))
        total = jnp.zeros(())
        for site, each in zip(self.decisions, keys, strict=True):
            total = total + jnp.sign(self.prior(site, at)[1]) * self.value(site, at, each)
        return total

    def ahead(self, state: Values, t: Array, key: Array) -> Array:
        """What is expected from a state on: chance and factors up to the first decision, and the V there."""
        dynamics, form = self.dynamics, self.dynamics.structure.step
        noise_key, key = jax.random.split(key)
        noise = jax.tree.map(lambda x: x[0], noise_of(form, noise_key, 1, False))
        at, passed, total = state | {"t": t}, [], jnp.zeros(())
        first = form.sites.index(self.decisions[0])
        for i, site in enumerate(form.sites[:first]):
            if site.kind == "optimality":
                passed.append(i)
            else:
                at[site.name] = drawn(site.support, dynamics.outputs(STEP, at)[i], noise[site.name])
        outputs = dynamics.outputs(STEP, at)
        total = sum((outputs[i] for i in passed), self.best(form.sites[first], at, key))
        if dynamics.structure.horizon is None:
            return total
        last = jnp.zeros(())
        if dynamics.structure.final is not None:
            last = dynamics.factors(FINAL, state, jnp.asarray(True))[0]
        return jnp.where(t < dynamics.structure.horizon, total, last)

    def prior(self, site: SiteForm, at: Values) -> tuple[Array, Array]:
        """A decision's prior and its inverse temperature."""
        form, outputs = self.dynamics.structure.step, self.dynamics.outputs(STEP, at)
        place = len(form.sites) + self.decisions.index(site)
        return outputs[form.sites.index(site)], outputs[place]

    @property
    def decisions(self) -> list[SiteForm]:
        """The decisions of a step."""
        return decisions(self.dynamics.structure.step.sites)


def decisions(sites: tuple[SiteForm, ...]) -> list[SiteForm]:
    """The decisions among sites."""
    return [site for site in sites if site.kind == "decision"]
