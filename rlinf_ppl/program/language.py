"""The language: two words on top of NumPyro's own, and one for counts.

`decide` marks a `numpyro.sample` site as the agent's to choose, `optimality` is a `numpyro.factor`. Every other latent
`numpyro.sample` site of a step is chance. A step written in these words is an ordinary NumPyro function.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from jax.typing import ArrayLike
from numpyro.distributions import CategoricalLogits, Distribution
from numpyro.primitives import _PYRO_STACK

from rlinf_ppl.algebra import regularizers
from rlinf_ppl.algebra.regularizers import Regularizer
from rlinf_ppl.program.finite import IMPOSSIBLE

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
        unseen: what stands before this decision and is not seen by it: state variables, chance sites, decisions; its
            prior depends on none of them. Consecutive decisions that do not see each other, and see all else that
            matters, settle at the fixed point of their soft replies (a logit equilibrium). Otherwise, where what is
            unseen would matter, there is no closed form: `svi.fit` climbs to a local optimum. Neither has a posterior
            that is a policy.

    Returns:
        The value of the site.

    Raises:
        TypeError: the name is no string, the prior no NumPyro distribution, the inverse temperature no number, the
            regularizer no function that can be compared, or `unseen` no tuple of names.
        RuntimeError: outside of a program, where nothing gives the site a value.
    """
    if not isinstance(name, str):
        raise TypeError(f"decide(name, prior): the name comes first and is a string; got {type(name).__name__}.")
    if not isinstance(prior, Distribution):
        raise TypeError(
            f"the prior of {name!r} is a {type(prior).__name__}; give a NumPyro distribution, such as "
            "Categorical(probs=...)."
        )
    if not eqx.is_array_like(inverse_temperature) or jnp.shape(inverse_temperature) != ():
        raise TypeError(
            f"the inverse temperature of {name!r} must be one number; got {inverse_temperature!r}. Index an array by "
            "t, and use jax.vmap for several."
        )
    pays = regularizers.as_regularizer(regularizer, name)
    names = isinstance(unseen, Iterable) and not isinstance(unseen, str)
    if not names or not all(isinstance(other, str) for other in unseen):
        raise TypeError(f'what is unseen by {name!r} must be a tuple of names, such as ("a",); got {unseen!r}.')
    check_handled(f"decide({name!r}, ...)")
    infer = {DECISION: True, INVERSE_TEMPERATURE: inverse_temperature, REGULARIZER: pays, UNSEEN: tuple(unseen)}
    return numpyro.sample(name, prior, infer=infer)


def optimality(log_prob: ArrayLike, name: str = "optimality") -> None:
    """State log p(O_t = 1 | what it depends on): the reward of a step, unnormalised, any finite scalar.

    Args:
        log_prob: the log probability, in nats where every inverse temperature is 1.
        name: the factor's name; a step with several factors names each.

    Raises:
        TypeError: the name is no string, or the log probability no number.
    """
    if not isinstance(name, str):
        raise TypeError(
            f"optimality(log_prob, name): the log probability comes first, and the name is a string; got "
            f"{type(name).__name__} for it."
        )
    if not eqx.is_array_like(log_prob):
        raise TypeError(
            f"optimality {name!r} is given {type(log_prob).__name__}; it must be one number, log p(O = 1 | what it "
            "depends on)."
        )
    numpyro.factor(name, log_prob)


def truncated(law: Distribution, largest: int) -> Distribution:
    """A law of counts without what is larger: over 0..largest, for exact answers, which take finitely many values.

    Args:
        law: over whole numbers from 0 on, such as Poisson(3.0).
        largest: the largest count that is kept; what the law gives to larger ones is shared out in proportion.

    Raises:
        TypeError: the law is no distribution over whole numbers.
        ValueError: it has a shape, `largest` is no whole number of at least 0, or nothing is left.
    """
    if not isinstance(law, Distribution) or not law.support.is_discrete:
        raise TypeError(f"truncated(law, largest) takes a law of counts; got {type(law).__name__}.")
    if law.shape() != () or not isinstance(largest, int) or largest < 0:
        raise ValueError(
            f"truncated takes one count and a largest one, a whole number of at least 0; got shape {law.shape()} and "
            f"{largest!r}."
        )
    counts = jnp.arange(largest + 1)
    inside = law.support(counts)
    if not isinstance(inside, jax.core.Tracer) and not jnp.any(inside):
        raise ValueError(f"{type(law).__name__} gives nothing to the counts up to {largest}.")
    log_p = law.log_prob(jnp.where(inside, counts, law.support.feasible_like(counts)))
    return CategoricalLogits(jnp.where(jnp.any(inside), jnp.where(inside, log_p, IMPOSSIBLE), jnp.nan))


def check_handled(what: str) -> None:
    """Raise where no handler of NumPyro's gives sites their values.

    Raises:
        RuntimeError: there is none.
    """
    if not _PYRO_STACK:
        raise RuntimeError(
            f"{what} is called outside of a program, where nothing gives its sites values: hand the step to "
            "ControlProgram and the program to an engine, or seed it, such as numpyro.handlers.seed(prog.model, 0)()."
        )
