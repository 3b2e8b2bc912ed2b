"""Data under a law: outside its support they have probability zero, which NumPyro checks in no traced law.

NumPyro's own supports leave out edges where densities are finite, name counts of transformed laws that the base cannot
have, and its log probabilities keep away from 0 and 1. What a program sees is put right here, for all engines.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions.distribution import validation_enabled

from rlinf_ppl.program.families import is_no_law
from rlinf_ppl.types import ArrayLike

# Where every number is possible there is nothing to check, and a quadratic stays one.
EVERYWHERE = (dist.constraints.real, dist.constraints.real_vector)
# NumPyro leaves the edge out of their supports, where their densities are finite and data may lie.
AT_THEIR_EDGE = (dist.Exponential, dist.HalfNormal, dist.HalfCauchy, dist.Pareto)
ROWS = (dist.CategoricalProbs, dist.BernoulliProbs)


@contextmanager
def checked_laws() -> Iterator[None]:
    """Laws in a step have log probability minus infinity outside their support, whatever is asked of them, as a reward.

    Rows of probabilities are checked where they are read, with a message that names the site. A program that is made
    inside of another's step finds it so already.
    """
    changed = [law for law in ROWS if "_validate_args" not in vars(law)]
    with validation_enabled(True):
        for law in changed:
            law._validate_args = False
        try:
            yield
        finally:
            for law in changed:
                del law._validate_args


def data_log_prob(part: str, name: str, fn: Any, value: Any) -> Array:
    """The log probability of data.

    Raises:
        ValueError: known data are NaN.
    """
    if not isinstance(value, jax.core.Tracer) and not is_off(fn) and np.any(np.isnan(np.asarray(value, dtype=float))):
        raise ValueError(
            f"{part}: the data of site {name!r} are NaN; leave out what is missing, such as "
            "optimality(jnp.where(known, law.log_prob(y), 0.0), name) with a number in the place of NaN."
        )
    return log_prob_on_support(fn, value)


def is_off(fn: Any) -> bool:
    """Whether a law is masked all over, and so may have any value."""
    return isinstance(fn, dist.MaskedDistribution) and (fn._mask is False or is_off(fn.base_dist))


def log_prob_on_support(fn: Any, value: Any) -> Array:
    """The log probability of a value: minus infinity outside the support, which NumPyro checks in no traced law."""
    if isinstance(fn, dist.Unit):
        return fn.log_prob(value)
    if isinstance(fn, dist.MaskedDistribution):
        inner = log_prob_on_support(fn.base_dist, value) if fn._mask is not False else jnp.zeros(fn.batch_shape)
        return jnp.where(fn._mask, inner, 0.0)
    value = jnp.asarray(value)
    inside = is_inside(fn, value)
    # A law that is put together anew has no check of NumPyro's own, which knows no edge.
    with validation_enabled(False):
        found = inside_of(jax.tree.map(lambda x: x, fn), value, inside)
    if isinstance(plain(fn), dist.Normal | dist.MultivariateNormal):
        return found
    if isinstance(fn, dist.CategoricalProbs):
        found = found - jnp.log(jnp.sum(fn.probs, -1))
    return jnp.where(is_no_law(fn), jnp.nan, found)


def inside_of(fn: Any, value: Array, inside: Any) -> Array:
    """The log probability of a value where it lies inside the support; NaN where it is NaN."""
    if inside is True:
        return fn.log_prob(value)
    missing = every(jnp.isnan(value), max(0, value.ndim - inside.ndim), jnp.any)
    outside = jnp.where(missing, jnp.nan, -jnp.inf)
    value = where_inside(inside, value, feasible(fn, value))
    if isinstance(plain(fn), dist.CategoricalProbs | dist.CategoricalLogits):
        value = value.astype(int)
    return jnp.where(inside, fn.log_prob(value), outside)


def plain(fn: Any) -> Any:
    """A law without the shape that it was given."""
    return plain(fn.base_dist) if isinstance(fn, dist.ExpandedDistribution | dist.Independent) else fn


def is_inside(fn: Any, value: Array) -> Any:
    """Whether a value lies in the support of a law, for each of its batch; True where all do.

    The support that NumPyro names of a transformed law may be larger than it is: the base law's counts, too.
    """
    if isinstance(fn, dist.ExpandedDistribution):
        return is_inside(fn.base_dist, value)
    if isinstance(fn, dist.Independent):
        return every(is_inside(fn.base_dist, value), fn.reinterpreted_batch_ndims)
    if isinstance(fn, dist.MaskedDistribution):
        # What is masked counts for nothing, whatever it is.
        return is_inside(fn.base_dist, value) | ~jnp.asarray(fn._mask, bool)
    if isinstance(fn, dist.TransformedDistribution):
        inside: Any = True
        for transform, stand_in in reversed(list(zip(fn.transforms, stages(fn)[1:], strict=True))):
            # NumPyro names no codomain that is right of a negative scale, and all numbers are of some.
            if not isinstance(transform, dist.transforms.AffineTransform):
                here = every(jnp.asarray(transform.codomain(value)), fn.event_dim - transform.codomain.event_dim)
                value, inside = where_inside(here, value, stand_in), here if inside is True else inside & here
            # What an absolute value was of is as likely on either side, and NumPyro warns of that.
            value = value if isinstance(transform, dist.transforms.AbsTransform) else transform.inv(value)
        return inside & every(is_inside(fn.base_dist, value), fn.event_dim - fn.base_dist.event_dim)
    support = support_of(fn)
    if support in EVERYWHERE:
        return True
    inside = jnp.asarray(support(value))
    inside &= every(~jnp.isinf(value), value.ndim - inside.ndim)
    if isinstance(fn, dist.BernoulliProbs | dist.BinomialProbs):
        # NumPyro keeps their probabilities off 0 and 1.
        probs, most = jnp.asarray(fn.probs, float), getattr(fn, "total_count", 1)
        inside &= jnp.where(probs == 0, value == 0, True) & jnp.where(probs == 1, value == most, True)
    return inside | (value == support.lower_bound) if isinstance(fn, AT_THEIR_EDGE) else inside


def stages(fn: Any) -> list[Array]:
    """A value that the base of a transformed law can take, and what each transform makes of it."""
    found = [feasible(fn.base_dist, jnp.zeros(fn.base_dist.shape()))]
    for transform in fn.transforms:
        found.append(transform(found[-1]))
    return found


def every(inside: Any, number: int, reduce: Any = jnp.all) -> Any:
    """The same for all of the last axes together."""
    return inside if inside is True or not number else reduce(inside, tuple(range(-number, 0)))


def where_inside(inside: Any, value: Array, stand_in: Array) -> Array:
    """The value, or another where the law cannot take it, so that no derivative is NaN."""
    if inside is True:
        return value
    rest = jnp.shape(value)[inside.ndim :]
    spread = jnp.broadcast_to(jnp.reshape(inside, inside.shape + (1,) * len(rest)), jnp.shape(value))
    return jnp.where(spread, value, jnp.broadcast_to(stand_in, jnp.shape(value)))


def feasible(fn: Any, value: Array) -> Array:
    """A value that the law can take, in the shape of a value."""
    law = plain(fn)
    return stages(law)[-1] if isinstance(law, dist.TransformedDistribution) else support_of(fn).feasible_like(value)


def support_of(fn: Any) -> Any:
    """The support of a law; NumPyro's Levy forgets its own on the way through a trace."""
    law = plain(fn)
    return dist.constraints.greater_than(law.loc) if isinstance(law, dist.Levy) else fn.support


class OnSupport(dist.Distribution):
    """A law of data that is minus infinity outside its support, which NumPyro's own laws need not be.

    Args:
        law: of the data.
    """

    pytree_data_fields = ("law",)

    def __init__(self, law: dist.Distribution):
        self.law = law
        super().__init__(law.batch_shape, law.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """That of the law."""
        return self.law.support

    def sample(self, key: Array | None, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw from the law."""
        return self.law.sample(key, sample_shape)

    def log_prob(self, value: ArrayLike) -> Array:
        """Log probability, minus infinity outside the support."""
        return data_log_prob("the model", "data", self.law, value)
