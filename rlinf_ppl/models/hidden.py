"""What models of hidden states share: a POMDP's arrays as arguments, and the action prior, which sees no state."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpyro
from jaxtyping import Array, Float, Int
from numpyro.distributions import Categorical

from rlinf_ppl.models.arguments import action_prior, check_task, inverse_temperature
from rlinf_ppl.models.dynamics import next_state, varying
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.networks import Feature, networks_of
from rlinf_ppl.tasks import MDP, POMDP
from rlinf_ppl.types import ArrayLike


class Hidden(NamedTuple):
    """A POMDP without its names.

    Attributes:
        mdp: the process underneath, with the expected reward of an action.
        observation: p(observation | next state, action).
    """

    mdp: MDP
    observation: Float[Array, "S A O"]


def hidden(pomdp: POMDP) -> Hidden:
    """A POMDP's arrays, as arguments of a program; raises on anything else."""
    check_task("pomdp", pomdp, POMDP)
    return Hidden(pomdp.anonymous().mdp, pomdp.observation)


def priced(pomdp: POMDP, horizon: int | None, beta: ArrayLike, prior: ArrayLike | None) -> tuple[Any, Array]:
    """A prior p(a), shape (A,) or (T, A), as an argument of a program, and an inverse temperature."""
    probabilities = action_prior("prior", prior, horizon, (), (pomdp.num_actions,))
    return varying(probabilities, 1), inverse_temperature("beta", beta)


def next_hidden(task: Hidden, s: Any, a: Any) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Sample the next state and what is seen of it: a site `o_next` after that of the state."""
    s_next = next_state(task.mdp, s, a)
    return s_next, numpyro.sample("o_next", Categorical(probs=task.observation[s_next, a]))


def with_networks(program: ControlProgram, features: Mapping[str, Feature] = MappingProxyType({})) -> ControlProgram:
    """A program that carries perceptrons as its guide; they start at the prior.

    Args:
        program: the program.
        features: for some variables what a perceptron sees of them, a vector.
    """
    return program.with_guide(networks_of(program.structure, jax.random.key(0), features=features))
