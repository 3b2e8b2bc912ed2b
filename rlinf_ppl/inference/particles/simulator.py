"""One particle takes one step: every site as the user wrote it, and what its weight gains.

All here is about one particle, a dictionary of values; the engine vmaps it. The traced arithmetic of the program is
evaluated at the particle's own values, so any step can be run, whatever its laws depend on.

With a proposal q, common inverse temperature tau, discount gamma and twist psi, what is expected of a state on the log
scale (Guarniero, Johansen & Lee 2017), a step multiplies a living particle's weight by

    exp(tau sum of factors + log p(observed)) prod p(x) / q(x) G(next state) / exp psi_t(state),
    G = gamma exp psi_{t+1} + 1 - gamma,

and lets it live on with probability gamma exp psi_{t+1} / G. A dead one moves by its priors and keeps its weight. With
a twist, the last site of a slice looks ahead where it is finite and nothing else is proposed for it: it is drawn from
p(x) exp(factors) G(next state), and these give way to their sum over x (Pitt & Shephard 1999, fully adapted). With the
exact value as twist and its policy as proposal nothing random is left in the weights.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from rlinf_ppl.algebra.noise import fresh_noise
from rlinf_ppl.inference.particles.proposals import Twist, as_proposal, as_twist
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.checks import check_ends
from rlinf_ppl.program.conditionals import ConditionalLaw
from rlinf_ppl.program.evaluation import common_inverse_temperature
from rlinf_ppl.program.forms import Form
from rlinf_ppl.program.laws import FiniteLaw, SiteLaw
from rlinf_ppl.program.point import Part, Point
from rlinf_ppl.program.reading import check_program
from rlinf_ppl.program.structure import Structure
from rlinf_ppl.program.supports import first_value, is_finite, positions_of, values_of

Values = dict[str, Any]


class Move(NamedTuple):
    """What a slice made of one particle.

    Attributes:
        state: the next state variables.
        sites: the values of the latent sites.
        log_weight: what the weight gained.
        reward: the sum of all factors that are no data, in units of optimality.
        alive: whether the particle lives on.
        faults: for each site whether its numbers are no law or no factor, for each state variable whether it left its
            support.
        score: the log probability of whatever was drawn from finitely many values; what is real moves with the
            parameters of its law instead.
    """

    state: Values
    sites: Values
    log_weight: Array
    reward: Array
    alive: Array
    faults: dict[str, Array]
    score: Array


class Simulator(eqx.Module):
    """A program, and what its particles are drawn from and weighted by.

    Attributes:
        structure: of the program.
        parts: initial, step and final with their numbers.
        args: its arguments, as guides are prepared with.
        discount: its discount.
        tau: the common inverse temperature; None: 1.
        proposal: what sites are drawn from in the place of their own laws.
        twist: what is expected of a state, in units of optimality; None: nothing.
    """

    structure: Structure = eqx.field(static=True)
    parts: dict[str, Part]
    args: Any
    discount: Array
    tau: Array | None
    proposal: dict[str, ConditionalLaw]
    twist: Twist | None

    def start(self, noise: Values, fixed: tuple[Array, Values] | None = None) -> Move:
        """The first state of a particle; `fixed` says whether it takes given values instead of drawing them."""
        now = jnp.zeros((), int)
        move = self.move("initial", {}, now, jnp.asarray(True), noise, fixed, lambda s: self.psi(s, now))
        return move._replace(alive=jnp.asarray(True))

    def step(
        self, state: Values, t: Array, alive: Array, noise: Values, fixed: tuple[Array, Values] | None = None
    ) -> Move:
        """One step of a particle."""
        move = self.move("step", state, t, alive, noise, fixed, lambda s: self.gate(self.psi(s, t + 1)))
        gain = move.log_weight
        if self.twist is not None:
            gain = gain - jnp.where(alive, self.psi(state, t), 0.0)
        still, score = alive, move.score
        if self.structure.discounted:
            psi = self.psi(move.state, t + 1)
            log_p = jnp.log(self.discount) + psi - self.gate(psi)
            still = jnp.log(noise["alive"]) < log_p
            if fixed is not None:
                still = jnp.where(fixed[0], fixed[1]["alive"], still)
            if self.twist is not None:
                log_q = jnp.log1p(-self.discount) - self.gate(psi)
                score = score + jnp.where(alive, jnp.where(still, log_p, log_q), 0.0)
            still = alive & still
        return move._replace(log_weight=gain, alive=still, score=score)

    def end(self, state: Values, alive: Array) -> tuple[Array, dict[str, Array]]:
        """What the weight gains at the end, where the last factors take the place of the twist; and faults."""
        gain = jnp.zeros(())
        faults: dict[str, Array] = {}
        if self.structure.final is not None:
            gain, faults = self.factors(self.at("final", state), alive)
        if self.twist is not None:
            gain = gain - jnp.where(alive, self.psi(state, jnp.asarray(self.structure.horizon)), 0.0)
        return gain, faults

    def move(
        self,
        part: str,
        state: Values,
        t: Array,
        alive: Array,
        noise: Values,
        fixed: tuple[Array, Values] | None,
        future: Callable[[Values], Array],
    ) -> Move:
        """Draw the sites of a slice one after the other, weight its factors and what is ahead of it."""
        form, gain, score = self.parts[part].form, jnp.zeros(()), jnp.zeros(())
        proposal = self.proposal if part == "step" else {}
        point, ahead, at = self.at(part, state | {"t": t}), self.looking(form, proposal), state | {"t": t}
        faults: dict[str, Array] = {}
        for name in (site.name for site in form.latent):
            law = other = point.law(name)
            faults[name] = law.is_wrong() | point.beyond("laws", name)
            if name == ahead:
                other, total, wrong = self.looked(point, name, alive, future)
                gain, faults = gain + total, faults | wrong
            elif name in proposal:
                other = proposal[name](at, t, law)
                faults[name] |= alive & other.is_wrong()
            value = other.draw(noise[name])
            value = value if fixed is None else jnp.where(fixed[0], fixed[1][name], value)
            if not other.reparameterised:
                score = score + other.log_prob(value)
            if name in proposal:
                gain = gain + jnp.where(alive, law.log_prob(value) - other.log_prob(value), 0.0)
                kept = alive if fixed is None else alive | fixed[0]
                value = jnp.where(kept, value, law.draw(noise[name]))
            at[name] = value
            point.set(name, value)
        if ahead is None:
            weight, wrong = self.rest(point, alive, future)
            gain, faults = gain + weight, faults | wrong
        following, outside = self.following(point)
        sites = {site.name: at[site.name] for site in form.latent}
        return Move(following, sites, gain, self.reward(point), alive, faults | outside, score)

    def looking(self, form: Form, proposal: dict[str, ConditionalLaw]) -> str | None:
        """The site that looks ahead: the last one, where there is a twist to look at and it can be summed over."""
        if self.twist is None or not form.latent:
            return None
        last = form.latent[-1]
        return last.name if is_finite(last.support) and last.name not in proposal else None

    def looked(
        self, point: Point, name: str, alive: Array, future: Callable[[Values], Array]
    ) -> tuple[SiteLaw, Array, dict[str, Array]]:
        """The law of the site that looks ahead, tilted by all that follows from its values; what that adds; faults."""
        law = point.law(name)
        assert isinstance(law, FiniteLaw)
        follows = jax.vmap(lambda x: self.rest(point.given(name, x), alive, future))
        weights, wrong = follows(values_of(law.support))
        tilted, total = law.tilted(weights)
        return tilted, total, {each: jnp.any(bad & (law.probs > 0)) for each, bad in wrong.items()}

    def rest(self, point: Point, alive: Array, future: Callable[[Values], Array]) -> tuple[Array, dict[str, Array]]:
        """The log weight of a slice's factors and of what is ahead, once all sites have values; and faults."""
        weight, faults = self.factors(point, alive)
        if self.twist is None:
            return weight, faults
        seen = future(self.following(point)[0])
        return weight + jnp.where(alive, seen, 0.0), faults | {"twist": alive & senseless(seen)}

    def log_density(
        self, state: Values, t: Array, alive: Array, sites: Values, following: Values
    ) -> tuple[Array, Array]:
        """Log density of a step's sites from another state, with its factors; -inf where it leads elsewhere.

        Real numbers without noise of their own are compared to the last bit, so a state that does lead there may count
        as one that does not. What the state has no say in is not compared.

        Returns:
            The log density, and whether these real numbers are all the same.
        """
        point, form = self.at("step", state | sites | {"t": t}), self.structure.step
        total, _ = self.factors(point, alive)
        following_now, _ = self.following(point)
        same = reached = jnp.asarray(True)
        for site in form.latent:
            density, certain = point.law(site.name).noise_density(sites[site.name])
            total = total + density
            reached = reached & certain if state.keys() & set(site.parents) else reached
        for name, _, parents, _ in form.following:
            if state.keys() & set(parents):
                for now, then in zip(*map(jax.tree.leaves, (following_now[name], following[name])), strict=True):
                    equal, real = jnp.all(now == then), jnp.issubdtype(now.dtype, jnp.inexact)
                    same, reached = (same, reached & equal) if real else (same & equal, reached)
        return jnp.where(same & reached, total, -jnp.inf), reached

    def at(self, part: str, values: Values) -> Point:
        """A part of the program at some values."""
        return self.parts[part].at(values)

    def factors(self, point: Point, alive: Array) -> tuple[Array, dict[str, Array]]:
        """The log weight of all factors of a slice, and which of them are no numbers."""
        total = jnp.zeros(())
        faults: dict[str, Array] = {}
        for site in point.part.form.sites:
            if site.is_factor:
                name, factor = site.name, point.factor(site.name)
                factor = factor if self.tau is None or site.kind == "data" else self.tau * factor
                outside = point.beyond("factors", name)
                faults[name] = alive & (senseless(factor) | outside)
                total = total + factor
        return jnp.where(alive, total, 0.0), faults

    def reward(self, point: Point) -> Array:
        """The sum of all factors of a slice that are no data, in units of optimality."""
        rewards = [s.name for s in point.part.form.sites if s.kind == "optimality"]
        return sum((point.factor(name) for name in rewards), jnp.zeros(()))

    def following(self, point: Point) -> tuple[Values, dict[str, Array]]:
        """The next state variables, and which of them left their supports."""
        supports, state, outside = dict(self.structure.state), {}, {}
        for name, *_ in point.part.form.following:
            support, value = supports[name], point.following(name)
            state[name] = jax.tree.map(lambda x, like: x.astype(like.dtype), value, first_value(support))
            out = point.beyond("following", name)
            if is_finite(support):
                outside[name] = (positions_of(support, value) >= len(support)) | out
            elif point.part.computes_indices:
                outside[name] = out
        return state, outside

    def psi(self, state: Values, t: Array) -> Array:
        """The twist on the log scale."""
        if self.twist is None:
            return jnp.zeros(())
        value = self.twist(state, t)
        return value if self.tau is None else self.tau * value

    def gate(self, psi: Array) -> Array:
        """log(gamma exp psi + 1 - gamma): what is ahead of a particle that lives on with probability gamma."""
        if not self.structure.discounted:
            return psi
        return jnp.logaddexp(jnp.log(self.discount) + psi, jnp.log1p(-self.discount))


def senseless(factor: Array) -> Array:
    """Whether a log factor is NaN or infinite; minus infinity is a weight of 0."""
    return jnp.isnan(factor) | (factor == jnp.inf)


def simulator_of(program: ControlProgram) -> Simulator:
    """The program as whoever walks it under its own laws sees it, in units of optimality."""
    return Simulator(program.structure, program.parts, program.args, program.discount, None, {}, None)


def as_simulator(program: ControlProgram, proposal: Any, twist: Any) -> Simulator:
    """The program with what its particles know, checked where the user stands."""
    check_program(program)
    check_ends(program.horizon, "particle filter")
    return Simulator(
        program.structure,
        program.parts,
        program.args,
        program.discount,
        common_inverse_temperature(program),
        as_proposal(program, proposal),
        as_twist(program, twist),
    )


def noise_of(form: Form, key: Array, n: int, discounted: bool) -> dict[str, Array]:
    """What n particles draw their sites from, and with a discount whether they live on."""
    normals = {name: law.num_normals for name, law in form.arithmetic.places.laws.items()}
    normals = {site.name: normals[site.name] for site in form.latent}
    return fresh_noise(key, (n,), normals | ({"alive": 0} if discounted else {}))
