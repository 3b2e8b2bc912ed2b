"""The ELBO of a step that mixes finite variables and real ones, with the real ones integrated by nodes.

    V_t(s) = E_{z_1} E_{z_2} ... [ sum of factors - sum_d (1 / tau_d) log(q_d / p_d) + discount V_{t+1}(s') ],

one expectation for each site of the step in its order, under the guide where it is a decision. Over finitely many
values it is a sum, exact. A Gaussian site of up to three numbers is integrated by Gauss and Hermite's rule, moved along
with its mean and factor; any other by draws whose noise is the same at each step of a fit (common random numbers). The
state is finite, and real numbers live within a step: what a memory holds for the choice at hand, what an actuator makes
of it.

What a Gaussian decision costs is the divergence of two Gaussians, in closed form. Where a guide says what a decision is
when some real numbers before it are averaged out, there is nothing to integrate by nodes.

Where nothing varies in time the step is worked out once, as what it pays in each state and where it leads from there:
the gradient of the expectation above in V_{t+1}. So there may be no end: then V solves a linear system.

The derivative goes along the nodes as the guide moves them. Where draws jump (counts, mixtures), or something jumps
with them (a threshold, a rounding), it would miss the jump: such nodes stay, and the law's score moves their weights.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from rlinf_ppl.algebra.linear_systems import solve_written
from rlinf_ppl.inference.fitting.asks import is_stationary, jumping_laws
from rlinf_ppl.inference.particles.simulator import Simulator
from rlinf_ppl.program.conditionals import Average, ConditionalLaw, Proposed
from rlinf_ppl.program.divergence import gaussian_kl
from rlinf_ppl.program.forms import Form
from rlinf_ppl.program.jumps import jumping_sites
from rlinf_ppl.program.laws import FiniteLaw, GaussianLaw, SiteLaw
from rlinf_ppl.program.point import Point, over_values
from rlinf_ppl.program.structure import Structure
from rlinf_ppl.program.supports import is_finite, positions_of, values_of

# A product rule of more dimensions has more nodes than draws would need.
MOST_DIMENSIONS = 3
MOST_POINTS = 2e7
# Up to so many a step that does not vary in time is worked out once, as a matrix.
MOST_STATES = 2000


class Nodes(NamedTuple):
    """What a real site is drawn from, and how much each counts.

    Attributes:
        noise: (K, ...), standard normals or random keys.
        weights: (K,), with sum 1.
    """

    noise: Array
    weights: Float[Array, " K"]


def check_count(structure: Structure, num_nodes: int, num_draws: int) -> None:
    """Raise where all values of all sites together are too many.

    Raises:
        ValueError: so it is.
    """
    laws, count = structure.step.arithmetic.places.laws, math.prod(len(s) for _, s in structure.state)
    for site in structure.step.latent:
        law = laws[site.name]
        few = isinstance(law, GaussianLaw) and len(law.support) <= MOST_DIMENSIONS
        count *= len(site.support) if is_finite(site.support) else num_nodes ** len(law.support) if few else num_draws
    if count > MOST_POINTS:
        raise ValueError(
            f"one step has {count:.2g} points, twice the nodes of each real site and all values of the finite ones "
            f"together, and at most {MOST_POINTS:.0e} are held: give fewer nodes or draws, or loss=svi.ParticleELBO(n)."
        )


def check_endless(structure: Structure) -> None:
    """Raise where a step without end has more states than a matrix is made for.

    Raises:
        ValueError: so it is.
    """
    states = math.prod(len(support) for _, support in structure.state)
    if structure.horizon is None and states > MOST_STATES:
        raise ValueError(
            f"without end NodeELBO solves a linear system over {states} states, and takes {MOST_STATES}: use "
            "program.unroll(T)."
        )


def nodes_of(form: Form, num_nodes: int, num_draws: int, key: Array) -> dict[str, Nodes]:
    """The nodes of each real site of a part of a program."""
    laws = {site.name: form.arithmetic.places.laws[site.name] for site in form.latent if not is_finite(site.support)}
    keys = jax.random.split(key, max(len(laws), 1))
    return {name: nodes(law, num_nodes, num_draws, each) for (name, law), each in zip(laws.items(), keys, strict=False)}


def nodes(law: Any, num_nodes: int, num_draws: int, key: Array) -> Nodes:
    """A product rule where it has few dimensions, else fixed draws."""
    if isinstance(law, GaussianLaw):
        dimensions = len(law.support)
        if dimensions <= MOST_DIMENSIONS:
            points, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
            grid = np.stack([x.ravel() for x in np.meshgrid(*[points] * dimensions, indexing="ij")], -1)
            product = np.prod(np.stack(np.meshgrid(*[weights] * dimensions, indexing="ij")), 0).ravel()
            return Nodes(jnp.asarray(grid, float), jnp.asarray(product / product.sum(), float))
        half = jax.random.normal(key, (-(-num_draws // 2), dimensions))
        # Pairs of opposite draws have the mean of the law.
        return Nodes(jnp.concatenate([half, -half]), jnp.full(2 * len(half), 0.5 / len(half)))
    return Nodes(jax.random.split(key, num_draws), jnp.full(num_draws, 1.0 / num_draws))


def bound(
    simulator: Simulator, laws: Mapping[str, ConditionalLaw], num_nodes: int, num_draws: int, key: Array
) -> Float[Array, ""]:
    """The ELBO in units of optimality.

    Args:
        simulator: the program, with a finite state.
        laws: of its decisions.
        num_nodes: of a Gaussian number.
        num_draws: of any other site that is real.
        key: a random key for these.
    """
    structure, step_key, start_key = simulator.structure, *jax.random.split(key)
    state, names = dict(structure.state), [name for name, _ in structure.state]
    step_nodes = nodes_of(structure.step, num_nodes, num_draws, step_key)
    start_nodes = nodes_of(structure.initial, num_nodes, num_draws, start_key)
    scored = frozenset(jumping_sites(structure.step) | jumping_laws(simulator, laws))
    first_scored = frozenset(jumping_sites(structure.initial))

    def last(at: dict[str, Any]) -> Array:
        return jnp.zeros(()) if structure.final is None else simulator.reward(simulator.at("final", at))

    def value(at: dict[str, Any], t: Array, following: Array) -> Array:
        at = at | {"t": t}
        expectation = Expectation(simulator, dict(laws), step_nodes, simulator.discount * following, scored)
        return expectation(simulator.at("step", at), at, 0)

    def at_time(following: Array, t: Array) -> tuple[Array, None]:
        return over_values(state, tuple(names), lambda at: value(at, t, following)), None

    sizes = tuple(map(len, state.values()))
    if is_stationary(simulator, laws) and math.prod(sizes) <= MOST_STATES:
        now, nothing = jnp.zeros((), int), jnp.zeros(sizes)
        pays, leads = over_values(state, tuple(names), lambda at: jax.value_and_grad(value, 2)(at, now, nothing))
        matrix = jnp.reshape(leads, (math.prod(sizes), -1))

        def at_time(following: Array, t: Array) -> tuple[Array, None]:
            return pays + jnp.reshape(matrix @ jnp.ravel(following), sizes), None

    if structure.horizon is None:
        values = solve_written(jnp.eye(len(matrix), dtype=matrix.dtype) - matrix, pays)
    else:
        end = over_values(state, tuple(names), last)
        values, _ = lax.scan(at_time, end, jnp.arange(structure.horizon)[::-1])
    return Expectation(simulator, {}, start_nodes, values, first_scored)(simulator.at("initial", {}), {}, 0)


class Expectation(eqx.Module):
    """What a part of a program pays from one of its sites on, on average.

    Attributes:
        simulator: the program.
        laws: of its decisions.
        nodes: of its real sites.
        following: the value of the next state, over its variables.
        scored: the real sites whose nodes stay where they are, and whose weights move.
    """

    simulator: Simulator
    laws: dict[str, ConditionalLaw]
    nodes: dict[str, Nodes]
    following: Array
    scored: frozenset[str] = eqx.field(static=True)

    def __call__(self, point: Point, at: dict[str, Any], place: int) -> Float[Array, ""]:
        """The average where the sites before one have values.

        Args:
            point: the part at these values.
            at: the values by name.
            place: of the site among those of the part.
        """
        latent = point.part.form.latent
        if place == len(latent):
            reward = self.simulator.reward(point) + self.data(point)
            state, outside = self.simulator.following(point)
            where = tuple(positions_of(support, state[name]) for name, support in self.simulator.structure.state)
            # A state that left its support has no value.
            lost = jnp.any(jnp.stack([jnp.asarray(False), *outside.values()]))
            return reward + jnp.where(lost, jnp.nan, self.following[where])
        name = latent[place].name
        own = law = point.law(name)
        if name in self.laws:
            law = self.laws[name](at, at["t"], own)
            average = self.average(name, place)
            if average is not None:
                return self.averaged(point, at, place, average) - self.cost(name, law, own) / point.temperature(name)
        if isinstance(law, FiniteLaw):
            assert isinstance(own, FiniteLaw)
            values, weights = values_of(law.support), jnp.where(law.is_wrong(), jnp.nan, law.probs)
            some = weights > 0
            ratio = jnp.log(jnp.where(some, weights, 1.0)) - jnp.log(jnp.where(some, own.probs, 1.0))
        else:
            values, weights = self.drawn(name, law)
            some = weights > 0
            known = gaussian_kl(law, own) if name in self.laws else None
            ratio = jax.vmap(law.log_prob)(values) - jax.vmap(own.log_prob)(values) if known is None else known
        gains = jax.vmap(lambda value: self(point.given(name, value), at | {name: value}, place + 1))(values)
        if name in self.laws:
            gains = gains - ratio / point.temperature(name)
        return jnp.sum(jnp.where(some | jnp.isnan(weights), weights * jnp.where(some, gains, 0.0), 0.0))

    def drawn(self, name: str, law: SiteLaw) -> tuple[Array, Array]:
        """Values of a real site, and their weights."""
        values, weights = jax.vmap(law.draw)(self.nodes[name].noise), self.nodes[name].weights
        if name in self.scored or not law.reparameterised:
            values = lax.stop_gradient(values)
            score = jax.vmap(law.log_prob)(values)
            weights = weights * jnp.exp(score - lax.stop_gradient(score))
        return values, weights

    def cost(self, name: str, law: SiteLaw, own: SiteLaw) -> Array:
        """The divergence of a real decision from its prior, in nats."""
        known = gaussian_kl(law, own)
        if known is not None:
            return known
        values, weights = self.drawn(name, law)
        return jnp.sum(weights * (jax.vmap(law.log_prob)(values) - jax.vmap(own.log_prob)(values)))

    def average(self, name: str, place: int) -> Average | None:
        """What the next decision is where a real one is averaged out, if its guide says so."""
        latent = self.simulator.structure.step.latent
        law = self.laws.get(latent[place + 1].name) if place + 1 < len(latent) else None
        average = law.average if isinstance(law, Proposed) else None
        return average if average is not None and average.hidden == name else None

    def averaged(self, point: Point, at: dict[str, Any], place: int, average: Average) -> Float[Array, ""]:
        """What is paid from the next decision on, where the real one before it is averaged out."""
        site = point.part.form.latent[place + 1]
        own = point.law(site.name)
        assert isinstance(own, FiniteLaw)
        law, entropy = average(at, at["t"], own, site.support)
        assert isinstance(law, FiniteLaw)
        # No mean entropy is below 0 or above that of the law where the noise is averaged out.
        known = jnp.where(law.probs > 0, law.probs, 1.0)
        most, slack = -jnp.sum(known * jnp.log(known)), 100 * jnp.sqrt(jnp.finfo(known.dtype).eps)
        wrong = law.is_wrong() | ~((entropy >= -slack) & (entropy <= most + slack))
        weights = jnp.where(wrong, jnp.nan, law.probs)
        some, tau = weights > 0, point.temperature(site.name)
        cost = -jnp.log(jnp.where(some, own.probs, 1.0)) / tau

        def gain(value: Array) -> Array:
            return self(point.given(site.name, value), at | {site.name: value}, place + 2)

        gains = jax.vmap(gain)(values_of(site.support)) - cost
        return entropy / tau + jnp.sum(jnp.where(some | jnp.isnan(weights), weights * jnp.where(some, gains, 0.0), 0.0))

    def data(self, point: Point) -> Array:
        """The log probability of data, in nats: there is one inverse temperature, and it is 1."""
        names = [site.name for site in point.part.form.sites if site.kind == "data"]
        return sum((point.factor(name) for name in names), jnp.zeros(()))
