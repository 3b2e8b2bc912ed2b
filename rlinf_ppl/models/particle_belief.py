"""Control under hidden state with particles as the belief, for any hidden process that can be sampled.

    x_1 ~ p_0,    a_t ~ p(a),    x_{t+1} ~ p(. | x_t, a_t),    factor exp(beta r(x_t, a_t, x_{t+1})),
    o_{t+1} ~ p(. | x_{t+1}, a_t)
    particles:    x^k ~ p(. | x_t^k, a_t),    w^k ~ p(o_{t+1} | x^k, a_t),    drawn anew by w, systematically

The agent does not see x, it sees N particles: a bootstrap filter (Gordon, Salmond & Smith 1993) that runs inside of the
step, on what was seen. So the policy depends on the past through the filter alone, and whatever the particles miss, the
world x does what it does: returns are those of the real process under that policy, with any number of particles.

`svi.fit` with `ParticleELBO(n, num_particles=K)` trains the policy through the filter; with K above 1 it is variational
SMC (Le et al. 2018), an outer filter over histories whose particles carry filters, as in DVRL (Igl et al. 2018) and P3O
(2025). What it then bounds is log p(O), which conditions on what is hidden as well, and is no return.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float
from numpyro.distributions import Categorical, Distribution, Uniform
from numpyro.distributions.batch_util import promote_batch_shape

from rlinf_ppl.algebra import resampling
from rlinf_ppl.models.arguments import inverse_temperature, whole_number
from rlinf_ppl.models.hidden import with_networks
from rlinf_ppl.program import ControlProgram, decide, optimality
from rlinf_ppl.tasks import POMDP
from rlinf_ppl.types import ArrayLike


@runtime_checkable
class HiddenProcess(Protocol):
    """A process whose state is hidden; laws given a state broadcast over its leading axes.

    One method more is asked for where there is an end: `last_gain(x)`, the reward of the last state.
    """

    def action_law(self) -> Distribution:
        """The prior over actions."""

    def first_law(self) -> Distribution:
        """Of the first state."""

    def next_law(self, x: Any, a: Any) -> Distribution:
        """Of the next state."""

    def observation_law(self, x_next: Any, a: Any) -> Distribution:
        """Of what is seen of it."""

    def gain(self, x: Any, a: Any, x_next: Any) -> Array:
        """The reward of a step."""


class FiniteProcess(eqx.Module):
    """A POMDP as a hidden process, with uniform actions.

    Attributes:
        pomdp: a dense one, with rewards (S, A).
    """

    pomdp: POMDP

    def action_law(self) -> Distribution:
        """Uniform."""
        return Categorical(probs=jnp.full(self.pomdp.num_actions, 1 / self.pomdp.num_actions))

    def first_law(self) -> Distribution:
        """Of the first state."""
        return Categorical(probs=self.pomdp.initial)

    def next_law(self, x: Any, a: Any) -> Distribution:
        """Of the next state."""
        assert self.pomdp.transition is not None
        return Categorical(probs=self.pomdp.transition[x, a])

    def observation_law(self, x_next: Any, a: Any) -> Distribution:
        """Of what is seen of it."""
        return Categorical(probs=self.pomdp.observation[x_next, a])

    def gain(self, x: Any, a: Any, x_next: Any) -> Array:
        """The expected reward."""
        return self.pomdp.reward[x, a]


def initial(process: Any, beta: Array, draws: Array) -> dict[str, Any]:
    """The first state, and the first particles."""
    law = process.first_law()
    x = numpyro.sample("x", law)
    # Side by side with arrays of their own, not expanded: NumPyro's draws of expanded laws promote ranks.
    many = promote_batch_shape(jax.vmap(lambda _: law)(draws))
    return {"x": x, "particles": numpyro.sample("particles", many.to_event(1))}


def step(process: Any, beta: Array, draws: Array, x: Any, particles: Any) -> dict[str, Any]:
    """One step of the model."""
    a = decide("a", process.action_law(), beta, unseen=("x",))
    # The world
    x_next = numpyro.sample("x_next", process.next_law(x, a))
    optimality(process.gain(x, a, x_next))
    o = numpyro.sample("o", process.observation_law(x_next, a))
    # The filter
    moved = numpyro.sample("moved", process.next_law(particles, a).to_event(1))
    same = jnp.broadcast_to(o, (len(moved), *jnp.shape(o)))
    weights, _ = resampling.normalize(process.observation_law(moved, a).log_prob(same))
    u = numpyro.sample("u", Uniform(0.0, 1.0))
    return {"x": x_next, "particles": moved[resampling.children_of_any(u, weights)]}


def final(process: Any, beta: Array, draws: Array, x: Any, particles: Any) -> None:
    """The reward of the last state, of a process that has one."""
    optimality(process.last_gain(x))


def shares(num_states: int) -> Callable[[Array], Array]:
    """What a perceptron sees of particles in finitely many states: which share of them is in each."""
    return partial(share_in_each, num_states)


def share_in_each(num_states: int, particles: Array) -> Float[Array, " S"]:
    """The share of particles in each state."""
    return jnp.mean((particles[:, None] == jnp.arange(num_states)[None]).astype(float), 0)


def mean_and_spread(particles: Array) -> Float[Array, " n"]:
    """What a perceptron sees of particles that are real numbers or vectors: means, and standard deviations."""
    flat = jnp.reshape(particles, (len(particles), -1))
    return jnp.concatenate([jnp.mean(flat, 0), jnp.sqrt(jnp.var(flat, 0) + 1e-12)])


def particle_belief(
    process: Any,
    horizon: int | None,
    num_particles: int = 100,
    beta: ArrayLike = 1.0,
    discount: ArrayLike | None = None,
    features: Callable[[Array], Array] | None = None,
) -> ControlProgram:
    """One agent that knows a hidden process by particles.

    Args:
        process: a POMDP, a `HiddenMountainHike`, a `HiddenLinearQuadratic`, or any module with the five methods of
            `HiddenProcess`; its arrays are arguments of the program.
        horizon: number of steps T; None: without end, at a discount below 1.
        num_particles: N, of the filter that the agent carries.
        beta: inverse temperature, in nats per unit of reward.
        discount: default that of the process, or 1.
        features: what the guide's perceptron sees of the particles (N, ...), a vector; default the share in each state
            of a POMDP, else means and standard deviations.

    Returns:
        The program, with states `x` and `particles`, decision `a` that does not see `x`, and a guide. Its values and
        ELBO are in units of reward.

    Raises:
        TypeError: on a process that lacks a method.
        ValueError: on a number of particles below 1, or a beta that is no number.
    """
    known = isinstance(process, POMDP)
    gamma = getattr(process, "discount", 1.0) if discount is None else discount
    seen = features or (shares(process.num_states) if known else mean_and_spread)
    process = FiniteProcess(process.dense().anonymous().averaged()) if known else process
    if not isinstance(process, HiddenProcess):
        methods = ["action_law", "first_law", "next_law", "observation_law", "gain"]
        missing = [name for name in methods if not callable(getattr(process, name, None))]
        raise TypeError(f"process is a {type(process).__name__}, which has no {', '.join(missing)}: see HiddenProcess.")
    count = whole_number("num_particles", num_particles, "a belief takes at least one particle")
    args = process, inverse_temperature("beta", beta), jnp.zeros(count)
    end = final if horizon is not None and callable(getattr(process, "last_gain", None)) else None
    return with_networks(ControlProgram(initial, step, horizon, gamma, end, args), {"particles": seen})
