"""A posterior over the numbers that a program is made from: NUTS, of everybody together or of each by their own."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.flatten_util import ravel_pytree
from jaxtyping import Array
from numpyro.distributions import Distribution, HalfNormal, Normal, biject_to
from numpyro.infer import MCMC, NUTS, init_to_value
from numpyro.infer.util import log_density
from scipy.optimize import minimize

from rlinf_ppl.behaviour.likelihood import Likelihood, described, finite_or_barred
from rlinf_ppl.behaviour.panel import Panel
from rlinf_ppl.behaviour.posterior import Posterior
from rlinf_ppl.inference.arguments import check_count
from rlinf_ppl.inference.sites import Sequences

# How far apart ids are before they are seen, on the unbounded scale of a parameter.
SPREAD = HalfNormal(1.0)
# What a covariate of 1 adds to it before it is seen.
SLOPE = Normal(0.0, 1.0)


def model_of(likelihood: Likelihood, priors: Mapping[str, Distribution]) -> Any:
    """The NumPyro model of a panel: parameters from their priors, those of each id about them, and the behaviour."""
    designs = likelihood.designs
    beside = {design.slopes for design in designs.values()}
    beside |= {design.spread(group) for design in designs.values() for group in design.groups}

    def model(likelihood: Likelihood) -> None:
        found = {name: numpyro.sample(name, prior) for name, prior in priors.items() if name not in beside}
        for name, design in designs.items():
            # On the scale without bounds, where they may be fewer.
            shape = likelihood.transforms[name].inverse_shape(jnp.shape(found[name]))
            if design.labels:
                prior = priors.get(design.slopes, SLOPE)
                found[design.slopes] = numpyro.sample(design.slopes, spanning(prior, (len(design.labels), *shape)))
            for group in design.groups:
                spread, raw = design.spread(group), design.raw(group)
                found[spread] = numpyro.sample(spread, priors.get(spread, SPREAD))
                found[raw] = numpyro.sample(raw, spanning(Normal(0.0, 1.0), (len(group.members), *shape)))
        for name, values in likelihood.each(found).items():
            numpyro.deterministic(designs[name].each, values)
        n = len(likelihood.lengths)
        numpyro.sample("behaviour", Sequences(lambda _: likelihood.of_sequences(found), n, 1), obs=jnp.zeros((n, 1)))

    return model


def spanning(law: Distribution, shape: tuple[int, ...]) -> Distribution:
    """A law of arrays of some shape."""
    batch = shape[: len(shape) - law.event_dim]
    return law.expand(batch).to_event(len(batch))


def sampled(
    panel: Panel,
    likelihood: Likelihood,
    priors: Mapping[str, Distribution],
    key: Array,
    num_warmup: int,
    num_samples: int,
    num_chains: int,
    progress: bool,
) -> Posterior:
    """Draws by NUTS from where the posterior is largest, with the curvature there as its metric.

    Where numbers move by chance about others that is no good place: their spread is largest where they themselves are
    small. There it begins where they do not move, and the metric has no correlations, which few draws cannot tell.
    """
    check_count("num_chains", num_chains)
    model = model_of(likelihood, priors)
    moving = {x for each in likelihood.designs.values() for g in each.groups for x in (each.raw(g), each.spread(g))}
    start, covariance = mode(model, likelihood, moving)
    likelihood = likelihood.begun({name: start[name] for name in priors}, moving=True)
    kernel = NUTS(
        functools.partial(model, likelihood),
        init_strategy=init_to_value(values=start),
        dense_mass=not moving,
        inverse_mass_matrix=jnp.diag(covariance) if moving else covariance,
        # Long steps jump over narrow places.
        target_accept_prob=0.95 if moving else 0.8,
    )
    method = "parallel" if jax.local_device_count() >= num_chains else "vectorized"
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method=method,
        progress_bar=progress,
    )
    mcmc.run(key, extra_fields=("diverging", "potential_energy", "num_steps"))
    jax.block_until_ready(mcmc.get_samples())
    return Posterior(panel, likelihood, mcmc)


def mode(model: Any, likelihood: Likelihood, held: set[str]) -> tuple[dict[str, Array], Array]:
    """Where a posterior is largest, from the middle of the priors on, and its covariance there without bounds.

    Args:
        model: of the likelihood.
        likelihood: of the data.
        held: the names of what stays in the middle of its prior.

    Raises:
        ValueError: what was done has probability zero in the middle of the priors.
    """
    with numpyro.handlers.seed(rng_seed=0):
        trace = numpyro.handlers.trace(model).get_trace(likelihood)
    latent = {name: each for name, each in trace.items() if each["type"] == "sample" and not each["is_observed"]}
    transforms = {name: biject_to(each["fn"].support) for name, each in latent.items()}
    middle = {name: transforms[name].inv(centre(each["fn"])) for name, each in latent.items()}
    flat, unflatten = ravel_pytree(middle)
    free = ravel_pytree({name: jnp.full(jnp.shape(x), name not in held, float) for name, x in middle.items()})[0]

    def values(x: Any) -> dict[str, Array]:
        return {name: transforms[name](value) for name, value in unflatten(x).items()}

    def potential(likelihood: Likelihood, x: Any) -> Array:
        unbounded = unflatten(x)
        found = values(x)
        volume = sum(jnp.sum(transforms[name].log_abs_det_jacobian(unbounded[name], found[name])) for name in unbounded)
        return -log_density(model, (likelihood,), {}, found)[0] - volume

    compiled = jax.jit(jax.value_and_grad(potential, argnums=1))
    both = functools.partial(compiled, likelihood)
    if not np.isfinite(both(flat)[0]):
        raise ValueError(
            f"what was done has no probability at {described(values(flat))}, the middle of the priors: give priors "
            "whose middle is possible, or a lapse."
        )

    options = {"maxiter": 500, "gtol": 1e-4}
    loss = finite_or_barred(lambda x: (value := both(x))[:1] + (value[1] * free,))
    found = minimize(loss, np.asarray(flat), jac=True, method="BFGS", options=options)
    curvature = differences(lambda x: np.asarray(both(x)[1]), found.x)
    # A metric only, so what has hardly any curvature may count as having some, each number in its own unit.
    unit = np.sqrt(np.maximum(np.abs(np.diag(curvature)), 1e-12))
    scales, axes = np.linalg.eigh((curvature + curvature.T) / 2 / np.outer(unit, unit))
    covariance = axes @ np.diag(1 / np.maximum(scales, 1e-3)) @ axes.T / np.outer(unit, unit)
    return values(found.x), jnp.asarray(covariance)


def differences(slope: Callable[[np.ndarray], np.ndarray], x: np.ndarray, step: float = 1e-4) -> np.ndarray:
    """The derivatives of a slope by differences: a metric needs few digits, and exact ones take seconds to compile."""
    sizes = step * np.maximum(np.abs(x), 1.0)
    rows = [
        (slope(x + size * unit) - slope(x - size * unit)) / (2 * size)
        for size, unit in zip(sizes, np.eye(len(x)), strict=True)
    ]
    return np.stack(rows)


def centre(law: Distribution) -> Array:
    """A value in the middle of a prior."""
    draws = law.expand(law.batch_shape).sample(jax.random.key(0), (501,))
    return jnp.median(draws, 0)
