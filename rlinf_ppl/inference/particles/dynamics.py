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
from rlinf_ppl.inference.particles.laws import (
    drawn,
    has_negative_scale,
    known,
    log_density,
    noise_density,
    tilted,
    unlawful,
)
from rlinf_ppl.inference.particles.proposals import Proposal, Twist, as_proposal, as_twist
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.checks import check_ends
from rlinf_ppl.program.control_program import Structure
from rlinf_ppl.program.evaluation import common_inverse_temperature
from rlinf_ppl.program.indices import beyond, computes
from rlinf_ppl.program.reading import check_program
from rlinf_ppl.program.sites import Real, first_value, positions_of, values_of
from rlinf_ppl.program.tracing import Form

INITIAL, STEP, FINAL = range(3)

Values = dict[str, Array]


class Move(NamedTuple):
    """What a slice made of one particle.

    Attributes:
        state: the next state variables.
        sites: the values of the latent sites.
        log_weight: what the weight gained.
        alive: whether the particle lives on.
        faults: for each site whether its numbers are no law or no factor, for each state variable whether it left its
            support.
        score: the log probability of whatever was drawn from finitely many values; what is real moves with the
            parameters of its law instead.
    """

    state: Values
    sites: Values
    log_weight: Array
    alive: Array
    faults: dict[str, Array]
    score: Array


class Dynamics(eqx.Module):
    """A program, and what its particles are drawn from and weighted by.

    Attributes:
        structure: of the program.
        leaves, constants, discount: its numbers.
        tau: the common inverse temperature; None: 1.
        proposal: what sites are drawn from in the place of their own laws.
        twist: what is expected of a state, in units of optimality; None: nothing.
    """

    structure: Structure = eqx.field(static=True)
    leaves: list[Array]
    constants: tuple[tuple[Array, ...], ...]
    discount: Array
    tau: Array | None
    proposal: dict[str, Proposal]
    twist: Twist | None

    def start(self, noise: Values, fixed: tuple[Array, Values] | None = None) -> Move:
        """The first state of a particle; `fixed` says whether it takes given values instead of drawing them."""
        now = jnp.zeros((), int)
        move = self.move(INITIAL, {}, now, jnp.asarray(True), noise, fixed, lambda s: self.psi(s, now))
        return move._replace(alive=jnp.asarray(True))

    def step(
        self, state: Values, t: Array, alive: Array, noise: Values, fixed: tuple[Array, Values] | None = None
    ) -> Move:
        """One step of a particle."""
        move = self.move(STEP, state, t, alive, noise, fixed, lambda s: self.gate(self.psi(s, t + 1)))
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
            gain, faults = self.factors(FINAL, state, alive)
        if self.twist is not None:
            gain = gain - jnp.where(alive, self.psi(state, jnp.asarray(self.structure.horizon)), 0.0)
        return gain, faults

    def move(
        self,
        part: int,
        state: Values,
        t: Array,
        alive: Array,
        noise: Values,
        fixed: tuple[Array, Values] | None,
        future: Callable[[Values], Array],
    ) -> Move:
        """Draw the sites of a slice one after the other, weight its factors and what is ahead of it."""
        form, at, gain, score = self.form(part), state | {"t": t}, jnp.zeros(()), jnp.zeros(())
        proposal = self.proposal if part == STEP else {}
        rest = lambda values: self.rest(part, values, alive, future)  # noqa: E731
        ahead = self.looking(form, proposal)
        faults: dict[str, Array] = {}
        for site in form.latent:
            law = other = self.outputs(part, at)[form.sites.index(site)]
            faults[site.name] = unlawful(site.support, law) | has_negative_scale(site.support, law)
            faults[site.name] |= self.beyond(part, at)[form.sites.index(site)]
            if site.name == ahead:
                weights, wrong = jax.vmap(lambda x: rest(at | {ahead: x}))(values_of(known(site.support)))
                faults |= {name: jnp.any(bad & (law > 0)) for name, bad in wrong.items()}
                other, total = tilted(law, weights)
                gain = gain + total
            elif site.name in proposal:
                other = jnp.where(alive, proposal[site.name](at, t, law), law)
                faults[site.name] |= unlawful(site.support, other)
            value = drawn(site.support, other, noise[site.name])
            at[site.name] = value if fixed is None else jnp.where(fixed[0], fixed[1][site.name], value)
            if not isinstance(site.support, Real):
                score = score + log_density(site.support, other, at[site.name])
            if site.name in proposal:
                gain = gain + log_density(site.support, law, at[site.name])
                gain = gain - log_density(site.support, other, at[site.name])
        if ahead is None:
            weight, wrong = rest(at)
            gain, faults = gain + weight, faults | wrong
        following, outside = self.following(part, at)
        sites = {site.name: at[site.name] for site in form.latent}
        return Move(following, sites, gain, alive, faults | outside, score)

    def looking(self, form: Form, proposal: dict[str, Proposal]) -> str | None:
        """The site that looks ahead: the last one, where there is a twist to look at and it can be summed over."""
        if self.twist is None or not form.latent:
            return None
        last = form.latent[-1]
        return None if isinstance(last.support, Real) or last.name in proposal else last.name

    def rest(
        self, part: int, values: Values, alive: Array, future: Callable[[Values], Array]
    ) -> tuple[Array, dict[str, Array]]:
        """The log weight of a slice's factors and of what is ahead, once all sites have values; and faults."""
        weight, faults = self.factors(part, values, alive)
        if self.twist is None:
            return weight, faults
        seen = future(self.following(part, values)[0])
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
        form, at = self.structure.step, state | sites | {"t": t}
        outputs, (following_now, _) = self.outputs(STEP, at), self.following(STEP, at)
        total, _ = self.factors(STEP, at, alive)
        same = reached = jnp.asarray(True)
        for site in form.latent:
            density, certain = noise_density(site.support, outputs[form.sites.index(site)], at[site.name])
            total = total + density
            reached = reached & certain if state.keys() & set(site.parents) else reached
        for name, _, parents, real in form.following:
            if state.keys() & set(parents):
                equal = jnp.all(following_now[name] == following[name])
                same, reached = (same & equal, reached) if real is None else (same, reached & equal)
        return jnp.where(same & reached, total, -jnp.inf), reached

    def form(self, part: int) -> Form:
        """The traced code of a part."""
        form = (self.structure.initial, self.structure.step, self.structure.final)[part]
        assert form is not None
        return form

    def outputs(self, part: int, values: Values) -> list[Array]:
        """All outputs of the traced arithmetic; what has no value yet is held at its first one."""
        return self.form(part).arithmetic(self.constants[part], *self.inputs(part, values))

    def beyond(self, part: int, values: Values) -> list[Array]:
        """For all outputs whether they look up an array by an index that is out of it."""
        return beyond(self.form(part), self.constants[part], self.inputs(part, values))

    def inputs(self, part: int, values: Values) -> list[Array]:
        """What the traced arithmetic takes."""
        form = self.form(part)
        supports = dict(self.structure.state) | self.structure.times() | form.supports()
        inputs = [values[name] if name in values else first_value(supports[name]) for name in form.inputs]
        return [*inputs, *self.leaves]

    def factors(self, part: int, values: Values, alive: Array) -> tuple[Array, dict[str, Array]]:
        """The log weight of all factors of a slice, and which of them are no numbers."""
        form, total = self.form(part), jnp.zeros(())
        faults: dict[str, Array] = {}
        found = zip(form.sites, self.outputs(part, values), self.beyond(part, values), strict=False)
        for site, output, outside in found:
            if site.kind == "optimality":
                factor = output if self.tau is None or site.observed else self.tau * output
                faults[site.name] = alive & (senseless(factor) | outside)
                total = total + factor
        return jnp.where(alive, total, 0.0), faults

    def following(self, part: int, values: Values) -> tuple[Values, dict[str, Array]]:
        """The next state variables, and which of them left their supports."""
        form, supports = self.form(part), dict(self.structure.state)
        state, outside = {}, {}
        first = len(form.sites) + sum(site.kind == "decision" for site in form.sites)
        found = zip(form.following, self.outputs(part, values)[first:], self.beyond(part, values)[first:], strict=True)
        for following, value, out in found:
            support = supports[following.name]
            state[following.name] = value.astype(first_value(support).dtype)
            if not isinstance(support, Real):
                outside[following.name] = (positions_of(support, value) >= len(support)) | out
            elif computes(form):
                outside[following.name] = out
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


def as_dynamics(program: ControlProgram, proposal: Any, twist: Any) -> Dynamics:
    """The program with what its particles know, checked where the user stands."""
    check_program(program)
    check_ends(program.horizon, "particle filter")
    return Dynamics(
        program.structure,
        jax.tree.leaves(program.args),
        program.constants,
        program.discount,
        common_inverse_temperature(program),
        as_proposal(program, proposal),
        as_twist(program, twist),
    )


def noise_of(form: Form, key: Array, n: int, discounted: bool) -> dict[str, Array]:
    """What n particles draw their sites from, and with a discount whether they live on."""
    normals = {s.name: len(s.support) if isinstance(s.support, Real) else 0 for s in form.latent}
    return fresh_noise(key, (n,), normals | ({"alive": 0} if discounted else {}))
