"""The parameters of NumPyro's laws: whether they are any, and what moves them inside of their family.

A law is made anew from what its class is made of, since many keep other laws that they were put together from. What its
support depends on stays as it is: a policy that leaves its prior's support costs infinitely much.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import biject_to, constraints

from rlinf_ppl.algebra.tables import ROW_TOLERANCE

# Where a class keeps what its constructor calls otherwise.
KEPT_AS = {
    "base_distribution": "base_dist",
    "mixing_distribution": "_mixing_distribution",
    "component_distribution": "_component_distribution",
    "component_distributions": "_component_distributions",
    "initial_value": "_initial_value",
    "mask": "_mask",
}
# Of several ways to state one parameter those that no law keeps, and what constructors are told beside parameters.
NOT_KEPT = {"covariance_matrix", "precision_matrix", "correlation_matrix", "covariance_row", "rate_matrix"}
NOT_KEPT |= {"scale_matrix", "validate_args", "support"}
# What a support depends on, and what is counted or given rather than learned.
FIXED = {"low", "high", "total_count", "n", "censored", "left_censored", "right_censored", "adj_matrix", "temperature"}
FIXED_OF: dict[type, set[str]] = {dist.Pareto: {"scale"}, dist.Levy: {"loc"}, dist.Delta: {"v", "log_density"}}
JUMPING = dist.MixtureSameFamily | dist.MixtureGeneral | dist.TruncatedPolyaGamma
WRAPPED = dist.Independent | dist.ExpandedDistribution | dist.MaskedDistribution

Visit = Callable[[Any, Array], Array]


def base_of(law: Any) -> Any:
    """A law without what declares its shape or masks it."""
    return base_of(law.base_dist) if isinstance(law, WRAPPED) else law


def unmasked(law: Any) -> Any:
    """A law without its masks: these take terms out of a density, and whatever is drawn has none in it."""
    if isinstance(law, dist.MaskedDistribution):
        return unmasked(law.base_dist)
    if isinstance(law, dist.Independent):
        return unmasked(law.base_dist).to_event(law.reinterpreted_batch_ndims)
    if isinstance(law, dist.ExpandedDistribution):
        return unmasked(law.base_dist).expand(law.batch_shape)
    return law


def is_discrete(law: Any) -> bool:
    """Whether values are counts; NumPyro's Levy forgets its support on the way through a trace."""
    return law.support is not None and law.support.is_discrete


def is_reparameterised(law: Any) -> bool:
    """Whether draws move along with all parameters."""
    base = base_of(law)
    if is_discrete(base) or isinstance(base, JUMPING) or not base.has_rsample:
        return False
    inner = getattr(base, "base_dist", None)
    return inner is None or is_reparameterised(inner)


def is_no_law(law: Any) -> Array:
    """Whether any parameter breaks its constraint."""
    wrong = jnp.asarray(False)
    for name, constraint in law.arg_constraints.items():
        value = vars(law).get(name)
        if value is not None and not constraints.is_dependent(constraint):
            wrong |= ~jnp.all(is_row(value) if is_simplex(constraint) else constraint(value))
    for part in vars(law).values():
        for inner in part if isinstance(part, list) else [part]:
            if isinstance(inner, dist.Distribution):
                wrong |= is_no_law(inner)
    return wrong


def is_row(p: Array) -> Array:
    """Whether numbers are probabilities that sum to one, as near as a row of a table has to be."""
    return jnp.all(p >= 0, -1) & (jnp.abs(jnp.sum(p, -1) - 1) <= ROW_TOLERANCE)


def num_parameters(law: Any) -> int:
    """How many numbers move a law inside of its family."""
    sizes: list[int] = []

    def counted(constraint: Any, value: Array) -> Array:
        sizes.append(math.prod(unconstrained_shape(constraint, value.shape)))
        return value

    jax.eval_shape(lambda law: jax.tree.leaves(made_anew(law, counted)), law)
    return sum(sizes)


def moved_by(law: Any, theta: Array) -> Any:
    """A law whose parameters are moved by theta, each through its constraint; at 0 as it is."""
    place = 0

    def moved(constraint: Any, value: Array) -> Array:
        nonlocal place
        shape = unconstrained_shape(constraint, value.shape)
        here = jnp.reshape(theta[place : place + math.prod(shape)], shape)
        place += math.prod(shape)
        return moved_inside(constraint, value, here)

    return made_anew(law, moved)


def unconstrained_shape(constraint: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of what moves a parameter."""
    return shape if is_simplex(constraint) else biject_to(constraint).inverse_shape(shape)


def moved_inside(constraint: Any, value: Array, theta: Array) -> Array:
    """A parameter moved; probabilities that are 0 stay so."""
    if is_simplex(constraint):
        weights = value * jnp.exp(theta - jnp.max(theta, -1, keepdims=True))
        return weights / jnp.sum(weights, -1, keepdims=True)
    if constraint is constraints.unit_interval:
        odds = value * jnp.exp(theta)
        return odds / (odds + 1 - value)
    transform = biject_to(constraint)
    return transform(transform.inv(value) + theta)


def is_simplex(constraint: Any) -> bool:
    """Whether a parameter is a row of probabilities."""
    return constraint is constraints.simplex


def made_anew(law: Any, visit: Visit) -> Any:
    """A law whose parameters are what `visit` makes of them.

    Args:
        law: of any class of NumPyro's.
        visit: (constraint, value) -> value; called for each parameter that a policy may move, always in one order, each
            in the full shape of the batch.

    Raises:
        TypeError: the law is not made of parameters alone.
    """
    law = spread(law, ())
    if isinstance(law, dist.Uniform):
        # The uniform law is a Beta law, with a support that does not move.
        one = jnp.ones(law.batch_shape)
        onto = dist.transforms.AffineTransform(law.low, law.high - law.low, domain=constraints.unit_interval)
        law = dist.TransformedDistribution(dist.Beta(one, one), onto)
    return type(law)(**{name: made_part(law, name, visit) for name in parts_of(law)})


def made_part(law: Any, name: str, visit: Visit) -> Any:
    """What one argument of a law's constructor becomes."""
    part = getattr(law, KEPT_AS.get(name, name))
    if isinstance(part, dist.Distribution):
        return made_anew(part, visit)
    if isinstance(part, list) and part and isinstance(part[0], dist.Distribution):
        return [made_anew(each, visit) for each in part]
    constraint, fixed = (
        law.arg_constraints.get(name),
        FIXED.union(*(FIXED_OF[of] for of in FIXED_OF if isinstance(law, of))),
    )
    if part is None or constraint is None or constraints.is_dependent(constraint) or name in fixed:
        return part
    value = jnp.asarray(part, dtype=float)
    batch, event = value.shape[: value.ndim - constraint.event_dim], value.shape[value.ndim - constraint.event_dim :]
    return visit(constraint, jnp.broadcast_to(value, jnp.broadcast_shapes(batch, law.batch_shape) + event))


def spread(law: Any, batch: tuple[int, ...]) -> Any:
    """A law that was expanded, with its own parameters in that shape instead."""
    batch = jnp.broadcast_shapes(batch, law.batch_shape)
    if isinstance(law, dist.ExpandedDistribution):
        return spread(law.base_dist, batch)
    if law.batch_shape == batch:
        return law
    if isinstance(law, dist.Independent):
        n = law.reinterpreted_batch_ndims
        inner = law.base_dist.batch_shape
        return dist.Independent(spread(law.base_dist, batch + inner[len(inner) - n :]), n)

    def wide(constraint: Any, value: Array) -> Array:
        event = value.shape[value.ndim - constraint.event_dim :]
        return jnp.broadcast_to(value, batch + event)

    return made_anew(law, wide)


def parts_of(law: Any) -> list[str]:
    """The arguments that a law's constructor takes and the law has kept.

    Raises:
        TypeError: it has not kept one that it needs.
    """
    parts = []
    for name, argument in inspect.signature(type(law).__init__).parameters.items():
        if name == "self" or name in NOT_KEPT:
            continue
        if not hasattr(law, KEPT_AS.get(name, name)):
            if argument.default is argument.empty:
                raise TypeError(f"{type(law).__name__} does not say what its {name!r} is, so it cannot be made anew.")
            continue
        parts.append(name)
    return parts
