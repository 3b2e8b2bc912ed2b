"""The language: two words on top of NumPyro's own.

`decide` marks a `numpyro.sample` site as the agent's to choose, `optimality` is a `numpyro.factor`. Every other latent
`numpyro.sample` site of a step is chance. A step written in these words is an ordinary NumPyro function.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpyro
from jax.typing import ArrayLike
from numpyro.distributions import Distribution

from rlinf_ppl.algebra import regularizers
from rlinf_ppl.algebra.regularizers import Regularizer

DECISION = "decision"
INVERSE_TEMPERATURE = "inverse_temperature"
REGULARIZER = "regularizer"
UNSEEN = "unseen"


def decide(
    name: str,
    prior: Distribution,
    inverse_temperature: ArrayLike = 1.0,
    regularizer: Regularizer | Callable[..., Any] = regularizers.kl,
    unseen: Sequence[str] = (),
) -> Any:
    """Sample a decision from its prior; engines replace the prior by the policy that they find.

    The policy is q = prior * exp(inverse_temperature * (Q - V)) with Q and V in the units of optimality: it maximises
    <q, Q> - KL(q || prior) / inverse_temperature. Another regularizer can stand in for that KL; then there is no joint
    model, so that exact.solve and svi.fit work, and conditioning and sampling do not.

    Args:
        name: the site's name.
        prior: its distribution before optimality is taken into account: over finitely many values, zeros allowed, or
            Gaussian.
        inverse_temperature: in 1 / units of optimality; 0 keeps the prior, a negative one minimises. It may depend on
            the time, on arguments of the program, never on the state. Infinite, it takes the best alternatives only.
            With another regularizer than the KL it cannot be 0: there the value has no limit.
        regularizer: one of `rlinf_ppl.algebra.regularizers`, or just a convex conjugate: a function of x (K,) and the
            prior's probabilities (K,).
        unseen: the decisions just before this one that it is taken at the same time as: none of them sees another, so
            their policies and priors depend on what came before all of them. They settle at the fixed point of their
            soft replies (a logit equilibrium), and there is no joint model.

    Returns:
        The value of the site.

    Raises:
        TypeError: the prior is no NumPyro distribution, the regularizer no function that can be compared, or `unseen`
            no tuple of names.
    """
    if not isinstance(prior, Distribution):
        raise TypeError(
            f"the prior of {name!r} is a {type(prior).__name__}; give a NumPyro distribution, such as "
            "Categorical(probs=...)."
        )
    pays = regularizers.as_regularizer(regularizer, name)
    if isinstance(unseen, str) or not all(isinstance(other, str) for other in unseen):
        raise TypeError(f'the decisions unseen by {name!r} must be a tuple of names, such as ("a",); got {unseen!r}.')
    infer = {DECISION: True, INVERSE_TEMPERATURE: inverse_temperature, REGULARIZER: pays, UNSEEN: tuple(unseen)}
    return numpyro.sample(name, prior, infer=infer)


def optimality(log_prob: ArrayLike, name: str = "optimality") -> None:
    """State log p(O_t = 1 | what it depends on): the reward of a step, unnormalised, any finite scalar.

    Args:
        log_prob: the log probability, in nats where every inverse temperature is 1.
        name: the factor's name; a step with several factors names each.
    """
    numpyro.factor(name, log_prob)
