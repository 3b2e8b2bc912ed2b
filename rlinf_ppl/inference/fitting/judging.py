"""What single steps are worth under a guide, by given action values: the right-hand sides of `actor_critic`."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from rlinf_ppl.algebra.noise import fresh_noise
from rlinf_ppl.algebra.numerics import soft_maximum
from rlinf_ppl.inference.fitting.estimators import with_gradient
from rlinf_ppl.inference.particles.simulator import Simulator, Values, noise_of
from rlinf_ppl.program.conditionals import ConditionalLaw
from rlinf_ppl.program.forms import SiteForm
from rlinf_ppl.program.laws import FiniteLaw
from rlinf_ppl.program.point import Point
from rlinf_ppl.program.supports import is_finite, positions_of


class Judge(NamedTuple):
    """Action values and the policy that they are of, at single steps.

    Attributes:
        simulator: the program, in units of optimality.
        guide: for each decision its law.
        critics: for each decision its action values by the values at a step and the time, in units of `scale`: of all
            its values, or of the one that it has where they are real numbers.
        scale: in units of optimality.
    """

    simulator: Simulator
    guide: Mapping[str, ConditionalLaw]
    critics: Mapping[str, Callable[[Values, Array], Array]]
    scale: Any

    def action_values(self, at: Values) -> Values:
        """Q of each decision that was taken."""

        def one(site: SiteForm) -> Array:
            q = self.quality(site, at)
            return q[positions_of(site.support, at[site.name])] if is_finite(site.support) else q[0]

        return {site.name: one(site) for site in self.decisions}

    def quality(self, site: SiteForm, at: Values) -> Array:
        """Q of all values of a finite decision, or of the one that another decision has."""
        return self.scale * self.critics[site.name](at, at["t"])

    def targets(self, at: Values, key: Array) -> Values:
        """For each decision of a step what its Q is to be: the factors up to the next decision, and the V there."""
        point, form = self.simulator.at("step", at), self.simulator.structure.step
        following = {name: at[f"{name}'"] for name, _ in self.simulator.structure.state}
        keys = jax.random.split(key, len(self.decisions) + 1)
        value, found = self.simulator.discount * self.ahead(following, at["t"] + 1, keys[-1]), {}
        for site in reversed(form.sites):
            if site.is_factor:
                value = value + point.factor(site.name)
            elif site.kind == "decision":
                found[site.name] = value
                value = self.best(site, point, at, keys[self.decisions.index(site)])
        return found

    def value(self, site: SiteForm, point: Point, at: Values, key: Array) -> Array:
        """V of a decision under the guide."""
        prior, tau = point.law(site.name), point.temperature(site.name)
        law = self.guide[site.name](at, at["t"], prior)
        if isinstance(law, FiniteLaw) and isinstance(prior, FiniteLaw):
            q, p = law.probs, prior.probs
            pays = jnp.log(jnp.where(q > 0, q, 1.0)) - jnp.log(jnp.where(q > 0, p, 1.0))
            return jnp.sum(q * (self.quality(site, at) - pays / tau))
        noise = fresh_noise(key, (1 if law.reparameterised else 2,), {site.name: law.num_normals})[site.name]

        def paid(noise: Array) -> tuple[Array, Array]:
            a = law.draw(noise)
            cost = law.log_prob(a) - prior.log_prob(a)
            return self.quality(site, at | {site.name: a})[0] - cost / tau, law.log_prob(a)

        values, scores = jax.vmap(paid)(noise)
        if law.reparameterised:
            return values[0]
        # What jumps moves by its score, with the other of two draws as baseline.
        surprise = lax.stop_gradient(values - values[::-1])
        return with_gradient(jnp.mean(values), jnp.mean(scores * surprise))

    def best(self, site: SiteForm, point: Point, at: Values, key: Array) -> Array:
        """V of a decision for targets: of a finite one under the best reply, so that no poor guide holds it back."""
        prior = point.law(site.name)
        if not isinstance(prior, FiniteLaw):
            return self.value(site, point, at, key)
        return soft_maximum(prior.probs, self.quality(site, at), point.temperature(site.name))[1]

    def gain(self, at: Values, key: Array) -> Array:
        """What the guide is to maximise at a step: V of each decision, or -V where the decision minimises."""
        keys, point = jax.random.split(key, len(self.decisions)), self.simulator.at("step", at)
        total = jnp.zeros(())
        for site, each in zip(self.decisions, keys, strict=True):
            total = total + jnp.sign(point.temperature(site.name)) * self.value(site, point, at, each)
        return total

    def ahead(self, state: Values, t: Array, key: Array) -> Array:
        """What is expected from a state on: chance and factors up to the first decision, and the V there."""
        simulator, form = self.simulator, self.simulator.structure.step
        noise_key, key = jax.random.split(key)
        noise = jax.tree.map(lambda x: x[0], noise_of(form, noise_key, 1, False))
        at, total = state | {"t": t}, jnp.zeros(())
        point, first = simulator.at("step", at), form.sites.index(self.decisions[0])
        for site in form.sites[:first]:
            if site.is_factor:
                total = total + point.factor(site.name)
            else:
                at[site.name] = point.law(site.name).draw(noise[site.name])
                point.set(site.name, at[site.name])
        total = total + self.best(form.sites[first], point, at, key)
        if simulator.structure.horizon is None:
            return total
        last = jnp.zeros(())
        if simulator.structure.final is not None:
            last = simulator.factors(simulator.at("final", state), jnp.asarray(True))[0]
        return jnp.where(t < simulator.structure.horizon, total, last)

    @property
    def decisions(self) -> tuple[SiteForm, ...]:
        """The decisions of a step."""
        return self.simulator.structure.step.decisions
