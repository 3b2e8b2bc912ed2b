"""How a task's state moves, for the step programs of all models."""

from typing import Any

import numpyro
from jaxtyping import Array, Int
from numpyro.distributions import Categorical

from rlinf_ppl.tasks import MDP


def next_state(mdp: MDP, s: Any, a: Any) -> Int[Array, ""]:
    """Sample the next state: a site `s_next`, or for a sparse task a site `outcome` that points to a successor."""
    if mdp.transition is not None:
        return numpyro.sample("s_next", Categorical(probs=mdp.transition[s, a]))
    assert mdp.successors is not None and mdp.probabilities is not None
    outcome = numpyro.sample("outcome", Categorical(probs=mdp.probabilities[s, a]))
    return mdp.successors[s, outcome] if mdp.successors.ndim == 2 else mdp.successors[s, a, outcome]
