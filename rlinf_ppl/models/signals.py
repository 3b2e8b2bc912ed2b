"""The guide of two who signal: what the public says, and what a message means; see `public_belief`."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import Categorical, Distribution

from rlinf_ppl.algebra.numerics import soft_maximum
from rlinf_ppl.program import ControlProgram, over_time
from rlinf_ppl.program.networks import Network, networks_of


class Policies(NamedTuple):
    """What a message means: pi(a | m, o, y) and rho(b | m, p, y)."""

    pi: Float[Array, "M O Y A"]
    rho: Float[Array, "M P Y B"]


class Signals(eqx.Module):
    """A guide: what the public says by a perceptron of what it believes, and what a message means by learned values.

    Attributes:
        message: the perceptron.
        values: of the agent's actions, (T, M, O, Y, A), or without T where there is no end.
        opponent_values: of the opponent's, (T, M, P, Y, B), or without T.
    """

    message: Network
    values: Float[Array, "*T M O Y A"]
    opponent_values: Float[Array, "*T M P Y B"]

    def arguments(self, game: Any, message_prior: Array, beta: Array, policies: Any, draws: Array) -> tuple[Any, ...]:
        """The program's arguments with policies as they are learned."""
        return game, message_prior, beta, varying_policies(*map(boltzmann, (self.values, self.opponent_values))), draws

    def prepare(self, game: Any, message_prior: Array, beta: Array, policies: Policies, draws: Array) -> eqx.Module:
        """The functions of the guide."""
        kind = Spoken if self.values.ndim == 4 else SpokenInTime
        return kind(self.message, message_prior, policies)


class Spoken(eqx.Module):
    """The same of a program without end, with its prior and policies."""

    message: Network
    prior: Array
    policies: Policies

    def m(self, public: Any, y: Any) -> Distribution:
        """The message, by what the public believes and sees."""
        return tilted(self.prior, self.message({"public": public, "y": y}, jnp.asarray(0)))

    def a(self, o: Any, y: Any, m: Any) -> Distribution:
        """The agent's action, by what it and the public sees."""
        return Categorical(probs=self.policies.pi[m, o, y])

    def b(self, p: Any, y: Any, m: Any) -> Distribution:
        """The opponent's action."""
        return Categorical(probs=self.policies.rho[m, p, y])


class SpokenInTime(eqx.Module):
    """The same with policies for each time."""

    message: Network
    prior: Array
    policies: Policies

    def m(self, public: Any, y: Any, t: Any) -> Distribution:
        """The message, by what the public believes and sees."""
        return tilted(self.prior, self.message({"public": public, "y": y}, t))

    def a(self, o: Any, y: Any, m: Any, t: Any) -> Distribution:
        """The agent's action, by what it and the public sees."""
        return Categorical(probs=self.policies.pi[t, m, o, y])

    def b(self, p: Any, y: Any, m: Any, t: Any) -> Distribution:
        """The opponent's action."""
        return Categorical(probs=self.policies.rho[t, m, p, y])


def boltzmann(values: Float[Array, "... K"]) -> Float[Array, "... K"]:
    """The Boltzmann policy of values in nats."""
    return jax.nn.softmax(values, -1)


def tilted(prior: Float[Array, " M"], theta: Float[Array, " M"]) -> Distribution:
    """P exp(theta) / Z."""
    return Categorical(probs=soft_maximum(prior, theta)[0])


def varying_policies(pi: Array, rho: Array) -> Policies:
    """Policies as an argument of the program, over time where they have that axis."""
    return Policies(*(over_time(each) if each.ndim == 5 else each for each in (pi, rho)))


class Shares(NamedTuple):
    """What a perceptron sees of the public's particles: their weight in each (s, o, p)."""

    shape: tuple[int, int, int]

    def __call__(self, public: Any) -> Float[Array, " n"]:
        """The table, flat."""
        size = self.shape[0] * self.shape[1] * self.shape[2]
        x = public["x"]
        cell = (x.s * self.shape[1] + x.o) * self.shape[2] + x.p
        return jnp.sum(jnp.where(cell[:, None] == jnp.arange(size)[None], public["w"][:, None], 0.0), 0)


def message_network(program: ControlProgram, key: Array, features: Any) -> Network:
    """A perceptron of the public's belief and of what it sees."""
    learned = networks_of(program.structure, key, features={"public": features})["m"]
    assert isinstance(learned.parameters, Network)
    return learned.parameters
