"""A posterior over the numbers that a program is made from: NUTS, of everybody together or of each by their own."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pandas as pd
from jax.flatten_util import ravel_pytree
from jaxtyping import Array
from numpyro.distributions import Distribution, HalfNormal, Normal, biject_to
from numpyro.infer import MCMC, NUTS, init_to_value
from numpyro.infer.util import log_density
from scipy.optimize import minimize

from rlinf_ppl.behaviour.likelihood import Likelihood, described, finite_or_barred, in_float64

# How far apart ids are before they are seen, on the unbounded scale of a parameter.
SPREAD = HalfNormal(1.0)


class Posterior:
    """Draws from a posterior.

    Attributes:
        samples: by parameter (chains, draws, ...); of parameters that differ between ids also those of each, with
            `_each` behind the name, and how far these are apart, with `_spread`.
        mcmc: NumPyro's.
        panel: the data, in the order of ids and times.
    """

    def __init__(self, likelihood: Likelihood, mcmc: MCMC):
        self.likelihood, self.panel, self.mcmc = likelihood, likelihood.panel, mcmc
        found = mcmc.get_samples(group_by_chain=True)
        self.samples = {name: draws for name, draws in found.items() if not name.endswith("_raw")}

    @in_float64
    def to_arviz(self) -> Any:
        """The draws, what the sampler went through and the log likelihood of each sequence, as ArviZ has them."""
        import arviz

        ids = [str(each) for each in self.panel.ids]
        dims = {name: ["id"] for name in self.samples if name.endswith("_each")}
        return arviz.from_numpyro(self.mcmc, coords={"id": ids}, dims=dims, log_likelihood=True)

    @property
    def params(self) -> pd.DataFrame:
        """Mean, standard deviation, 90 % interval, effective number and R-hat of each parameter."""
        rows = {}
        for name, draws in self.samples.items():
            shape = draws.shape[2:]
            for place in np.ndindex(shape):
                label = name if not shape else f"{name}[{', '.join(str(self._label(name, i)) for i in place)}]"
                rows[label] = summarised(np.asarray(draws)[(slice(None), slice(None), *place)])
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("parameter")

    def _label(self, name: str, place: int) -> Any:
        return self.panel.ids[place] if name.endswith("_each") else place

    def summary(self) -> str:
        """What was found, to be printed."""
        divergences = int(np.sum(self.mcmc.get_extra_fields()["diverging"]))
        table = self.params.to_string(float_format=lambda x: f"{x:.4f}")
        return f"{len(self.panel.frame)} rows, {len(self.panel.ids)} sequences, {divergences} divergences\n{table}"


def summarised(draws: np.ndarray) -> dict[str, float]:
    """What is told of (chains, draws) of one number."""
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

    low, high = np.quantile(draws, [0.05, 0.95])
    return {
        "mean": float(draws.mean()),
        "sd": float(draws.std(ddof=1)),
        "5%": float(low),
        "95%": float(high),
        "ess": float(effective_sample_size(draws)),
        "r_hat": float(split_gelman_rubin(draws)),
    }


def model_of(likelihood: Likelihood, priors: Mapping[str, Distribution], by_id: tuple[str, ...]) -> Any:
    """The NumPyro model of a panel: parameters from their priors, those of each id about them, and the behaviour.

    A parameter that differs between ids is that of the population, moved by a normal number for each id on the scale
    where it has no bounds: not centred, so that few data of an id do not hold the sampler up.
    """
    n = len(likelihood.panel.ids)

    def model() -> None:
        found = {name: numpyro.sample(name, prior) for name, prior in priors.items() if not is_spread(name, by_id)}
        each = {}
        for name in by_id:
            transform = biject_to(priors[name].support)
            spread = numpyro.sample(f"{name}_spread", priors.get(f"{name}_spread", SPREAD))
            moved = numpyro.sample(f"{name}_raw", Normal(0.0, 1.0).expand([n]).to_event(1))
            own = transform(transform.inv(found[name])[None] + spread * moved)
            each[name] = numpyro.deterministic(f"{name}_each", own)
        numpyro.sample("behaviour", likelihood.of_sequences(found, each), obs=jnp.zeros((n, 1)))

    return model


def is_spread(name: str, by_id: tuple[str, ...]) -> bool:
    """Whether a prior is that of how far ids are apart."""
    return name.endswith("_spread") and name.removesuffix("_spread") in by_id


def sampled(
    likelihood: Likelihood,
    priors: Mapping[str, Distribution],
    by_id: tuple[str, ...],
    key: Array,
    num_warmup: int,
    num_samples: int,
    num_chains: int,
    progress: bool,
) -> Posterior:
    """Draws by NUTS from where the posterior is largest, with the curvature there as its metric."""
    model = model_of(likelihood, priors, by_id)
    start, covariance = mode(model, key)
    if not by_id:
        likelihood.begin({name: start[name] for name in priors})
    kernel = NUTS(model, init_strategy=init_to_value(values=start), dense_mass=True, inverse_mass_matrix=covariance)
    method = "parallel" if jax.local_device_count() >= num_chains else "vectorized"
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method=method,
        progress_bar=progress,
    )
    mcmc.run(key, extra_fields=("diverging", "potential_energy"))
    jax.block_until_ready(mcmc.get_samples())
    return Posterior(likelihood, mcmc)


def mode(model: Any, key: Array) -> tuple[dict[str, Array], Array]:
    """Where a posterior is largest, from the middle of the priors on, and its covariance there without bounds.

    Raises:
        ValueError: what was done has probability zero in the middle of the priors.
    """
    with numpyro.handlers.seed(rng_seed=0):
        trace = numpyro.handlers.trace(model).get_trace()
    latent = {name: each for name, each in trace.items() if each["type"] == "sample" and not each["is_observed"]}
    transforms = {name: biject_to(each["fn"].support) for name, each in latent.items()}
    middle = {name: transforms[name].inv(centre(each["fn"])) for name, each in latent.items()}
    flat, unflatten = ravel_pytree(middle)

    def values(x: Any) -> dict[str, Array]:
        return {name: transforms[name](value) for name, value in unflatten(x).items()}

    def potential(x: Any) -> Array:
        unbounded = unflatten(x)
        found = values(x)
        volume = sum(jnp.sum(transforms[name].log_abs_det_jacobian(unbounded[name], found[name])) for name in unbounded)
        return -log_density(model, (), {}, found)[0] - volume

    both = jax.jit(jax.value_and_grad(potential))
    if not np.isfinite(both(flat)[0]):
        raise ValueError(
            f"what was done has no probability at {described(values(flat))}, the middle of the priors: give priors "
            "whose middle is possible, or a lapse."
        )

    options = {"maxiter": 500, "gtol": 1e-4}
    found = minimize(finite_or_barred(both), np.asarray(flat), jac=True, method="BFGS", options=options)
    curvature = np.asarray(jax.jit(jax.jacfwd(jax.grad(potential)))(found.x))
    # A metric only, so what has hardly any curvature may count as having some, each number in its own unit.
    unit = np.sqrt(np.maximum(np.abs(np.diag(curvature)), 1e-12))
    scales, axes = np.linalg.eigh((curvature + curvature.T) / 2 / np.outer(unit, unit))
    covariance = axes @ np.diag(1 / np.maximum(scales, 1e-3)) @ axes.T / np.outer(unit, unit)
    return values(found.x), jnp.asarray(covariance)


def centre(law: Distribution) -> Array:
    """A value in the middle of a prior."""
    draws = law.expand(law.batch_shape).sample(jax.random.key(0), (501,))
    return jnp.median(draws, 0)
