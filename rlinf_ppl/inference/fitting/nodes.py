"""The ELBO of a step that mixes finite variables and real ones, with the real ones integrated by nodes.

    V_t(s) = E_{z_1} E_{z_2} ... [ sum of factors - sum_d (1 / tau_d) log(q_d / p_d) + discount V_{t+1}(s') ],

one expectation for each site of the step in its order, under the guide where it is a decision. Over finitely many
values it is a sum, exact. A Gaussian site of up to three numbers is integrated by Gauss and Hermite's rule, moved along
with its mean and factor; any other by draws whose noise is the same at each step of a fit (common random numbers). The
state is finite, and real numbers live within a step: what a memory holds for the choice at hand, what an actuator makes
of it.

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

from rlinf_ppl.inference.particles.dynamics import Dynamics
from rlinf_ppl.program.conditionals import ConditionalLaw
from rlinf_ppl.program.forms import Form
from rlinf_ppl.program.jumps import jumping, jumping_sites
from rlinf_ppl.program.laws import FiniteLaw, GaussianLaw
from rlinf_ppl.program.point import Point
from rlinf_ppl.program.structure import Structure
from rlinf_ppl.program.supports import first_value, is_finite, positions_of, values_of

# A product rule of more dimensions has more nodes than draws would need.
MOST_DIMENSIONS = 3
MOST_POINTS = 2e7


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
    dynamics: Dynamics, laws: Mapping[str, ConditionalLaw], num_nodes: int, num_draws: int, key: Array
) -> Float[Array, ""]:
    """The ELBO in units of optimality.

    Args:
        dynamics: the program, with an end and a finite state.
        laws: of its decisions.
        num_nodes: of a Gaussian number.
        num_draws: of any other site that is real.
        key: a random key for these.
    """
    structure, step_key, start_key = dynamics.structure, *jax.random.split(key)
    state = dict(structure.state)
    step_nodes = nodes_of(structure.step, num_nodes, num_draws, step_key)
    start_nodes = nodes_of(structure.initial, num_nodes, num_draws, start_key)

    scored = frozenset(jumping_sites(structure.step) | jumping_laws(dynamics, laws))
    first_scored = frozenset(jumping_sites(structure.initial))

    def over_states(value: Any) -> Array:
        for i in reversed(range(len(state))):
            value = jax.vmap(value, in_axes=[0 if j == i else None for j in range(len(state))])
        return value(*map(values_of, state.values()))

    def last(*values: Array) -> Array:
        if structure.final is None:
            return jnp.zeros(())
        return dynamics.reward(dynamics.at("final", dict(zip(state, values, strict=True))))

    def at_time(following: Array, t: Array) -> tuple[Array, None]:
        def value(*values: Array) -> Array:
            at = dict(zip(state, values, strict=True)) | {"t": t}
            expectation = Expectation(dynamics, dict(laws), step_nodes, dynamics.discount * following, scored)
            return expectation(dynamics.at("step", at), at, 0)

        return over_states(value), None

    values, _ = lax.scan(at_time, over_states(last), jnp.arange(structure.horizon or 0)[::-1])
    return Expectation(dynamics, {}, start_nodes, values, first_scored)(dynamics.at("initial", {}), {}, 0)


def jumping_laws(dynamics: Dynamics, laws: Mapping[str, ConditionalLaw]) -> set[str]:
    """The real sites of the step that a guide's own functions may jump with."""
    form, found = dynamics.structure.step, set[str]()
    supports = dynamics.structure.supports()
    for name, law in laws.items():
        before = [site.name for site in form.latent]
        before = before[: before.index(name)]
        real = [other for other in before if not is_finite(supports[other])]
        first = {other: first_value(support) for other, support in supports.items()} | {"t": jnp.zeros((), int)}

        def leaves(values: list[Any], name: str = name, law: ConditionalLaw = law, real: Any = real) -> Any:
            at = first | dict(zip(real, values, strict=True))  # noqa: B023
            return jax.tree.leaves(law(at, at["t"], dynamics.at("step", at).law(name)))

        made = jax.make_jaxpr(leaves)([first[other] for other in real]).jaxpr
        found |= jumping(made, {variable: {other} for variable, other in zip(made.invars, real, strict=True)})
    return found


class Expectation(eqx.Module):
    """What a part of a program pays from one of its sites on, on average.

    Attributes:
        dynamics: the program.
        laws: of its decisions.
        nodes: of its real sites.
        following: the value of the next state, over its variables.
        scored: the real sites whose nodes stay where they are, and whose weights move.
    """

    dynamics: Dynamics
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
            reward = self.dynamics.reward(point) + self.data(point)
            state, outside = self.dynamics.following(point)
            where = tuple(positions_of(support, state[name]) for name, support in self.dynamics.structure.state)
            # A state that left its support has no value.
            lost = jnp.any(jnp.stack([jnp.asarray(False), *outside.values()]))
            return reward + jnp.where(lost, jnp.nan, self.following[where])
        name = latent[place].name
        own = law = point.law(name)
        if name in self.laws:
            law = self.laws[name](at, at["t"], own)
        if isinstance(law, FiniteLaw):
            assert isinstance(own, FiniteLaw)
            values, weights = values_of(law.support), jnp.where(law.is_wrong(), jnp.nan, law.probs)
            some = weights > 0
            ratio = jnp.log(jnp.where(some, weights, 1.0)) - jnp.log(jnp.where(some, own.probs, 1.0))
        else:
            values, weights = jax.vmap(law.draw)(self.nodes[name].noise), self.nodes[name].weights
            if name in self.scored or not law.reparameterised:
                values = lax.stop_gradient(values)
                score = jax.vmap(law.log_prob)(values)
                weights = weights * jnp.exp(score - lax.stop_gradient(score))
            some = weights > 0
            ratio = jax.vmap(law.log_prob)(values) - jax.vmap(own.log_prob)(values)
        gains = jax.vmap(lambda value: self(point.given(name, value), at | {name: value}, place + 1))(values)
        if name in self.laws:
            gains = gains - ratio / point.temperature(name)
        return jnp.sum(jnp.where(some | jnp.isnan(weights), weights * jnp.where(some, gains, 0.0), 0.0))

    def data(self, point: Point) -> Array:
        """The log probability of data, in nats: there is one inverse temperature, and it is 1."""
        names = [site.name for site in point.part.form.sites if site.kind == "data"]
        return sum((point.factor(name) for name in names), jnp.zeros(()))
