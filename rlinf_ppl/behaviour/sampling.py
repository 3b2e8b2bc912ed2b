"""A posterior over the numbers that a program is made from: NUTS, of everybody together or of each by their own."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pandas as pd
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray
from numpyro.distributions import Distribution, HalfNormal, Normal, biject_to
from numpyro.infer import MCMC, NUTS, init_to_value
from numpyro.infer.util import log_density
from scipy.optimize import minimize

from rlinf_ppl.behaviour.counterfactuals import over_draws
from rlinf_ppl.behaviour.labels import axes_of, label
from rlinf_ppl.behaviour.likelihood import Likelihood, described, finite_or_barred, in_float64, of_frame
from rlinf_ppl.behaviour.panel import Panel
from rlinf_ppl.behaviour.predictions import first_of, predicted, repeated, trials
from rlinf_ppl.inference.arguments import check_count, check_key
from rlinf_ppl.inference.sites import Sequences
from rlinf_ppl.program import ControlProgram

# How far apart ids are before they are seen, on the unbounded scale of a parameter.
SPREAD = HalfNormal(1.0)
# What a covariate of 1 adds to it before it is seen.
SLOPE = Normal(0.0, 1.0)


class Posterior:
    """Draws from a posterior.

    Attributes:
        samples: by parameter (chains, draws, ...); of parameters that differ between ids also those of each, with
            `_each` behind the name, how far these are apart, with `_spread`, and the slopes of covariates, `_slopes`.
        mcmc: NumPyro's.
        panel: the data, in the order of ids and times.
    """

    def __init__(self, panel: Panel, likelihood: Likelihood, mcmc: MCMC):
        self.panel, self.likelihood, self.mcmc = panel, likelihood, mcmc
        self._found = {name: np.asarray(x) for name, x in mcmc.get_samples(group_by_chain=True).items()}
        raw = {design.raw(group) for design in likelihood.designs.values() for group in design.groups}
        self.samples = {name: draws for name, draws in self._found.items() if name not in raw}

    @property
    def params(self) -> pd.DataFrame:
        """Mean, standard deviation, 90 % interval, effective number and R-hat of each parameter."""
        axes, rows = axes_of(self.panel, self.likelihood.designs), {}
        for name, draws in self.samples.items():
            for place in np.ndindex(draws.shape[2:]):
                rows[label(axes, name, place)] = summarised(draws[(slice(None), slice(None), *place)])
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("parameter")

    @property
    def by_id(self) -> pd.DataFrame:
        """The posterior means of the parameters that differ between ids, a row for each id."""
        columns = {}
        for name, design in self.likelihood.designs.items():
            mean = self.samples[design.each].mean((0, 1))
            for place in np.ndindex(mean.shape[1:]):
                columns[label({}, name, place)] = mean[(slice(None), *place)]
        return pd.DataFrame(columns, pd.Index(self.panel.ids, name=self.panel.reading.id))

    def summary(self) -> str:
        """What was found, to be printed."""
        divergences = int(np.sum(self.mcmc.get_extra_fields()["diverging"]))
        table = self.params.to_string(float_format=lambda x: f"{x:.4f}")
        return f"{len(self.panel.frame)} rows, {len(self.panel.ids)} sequences, {divergences} divergences\n{table}"

    @in_float64
    def predict(self, frame: pd.DataFrame | None = None, num_draws: int = 100) -> pd.DataFrame:
        """The probability of each alternative at each row given all that came before it, averaged over the posterior.

        Args:
            frame: other rows with the same columns, NaN where a decision is not known; None: those of the data.
            num_draws: how many draws are averaged over.
        """
        draws = self._draws(num_draws)
        return predicted(*of_frame(frame, self.panel, self.likelihood, first_of(draws)), draws)

    @in_float64
    def states(self, num_draws: int = 100) -> pd.DataFrame:
        """What goes on at each row, values, prediction errors, entropies, averaged over the posterior.

        See `predictions.trials`.
        """
        return trials(self.panel, self.likelihood, self._draws(num_draws))

    @in_float64
    def counterfactual(
        self,
        program: Callable[[Any], ControlProgram],
        outcome: Callable[[ControlProgram], Any] | None = None,
        num_draws: int = 200,
    ) -> pd.DataFrame:
        """What would be done in another task: mean, standard deviation and 90 % interval over the posterior.

        Args:
            program: makes the other task's program from the parameters.
            outcome: what of it is asked for, an array; None: what its decisions follow.
            num_draws: how many draws it is worked out at.
        """
        return over_draws(self._draws(num_draws), program, outcome)

    @in_float64
    def simulate(self, key: PRNGKeyArray | Array) -> pd.DataFrame:
        """Behaviour of the same ids at the same times, drawn at one draw of the parameters: a posterior prediction."""
        which, how = jax.random.split(check_key(key))
        draws = self._draws(None)
        i = int(jax.random.randint(which, (), 0, len(jax.tree.leaves(draws)[0])))
        return repeated(self.panel, self.likelihood, {name: value[i] for name, value in draws.items()}, how)

    @in_float64
    def to_arviz(self) -> Any:
        """The draws, what the sampler went through and the log likelihood of each sequence, as ArviZ has them."""
        import arviz

        labelled = axes_of(self.panel, self.likelihood.designs)
        axes = {name: each for name, each in labelled.items() if name in self.samples}
        coords, dims = dict(axes.values()), {name: [axis] for name, (axis, _) in axes.items()}
        return arviz.from_numpyro(self.mcmc, coords=coords, dims=dims, log_likelihood=True)

    def _draws(self, num_draws: int | None) -> dict[str, Array]:
        """Evenly spaced draws of all that the likelihood is a function of; None: all."""
        flat = {name: draws.reshape(-1, *draws.shape[2:]) for name, draws in self._found.items()}
        total = len(next(iter(flat.values())))
        n = total if num_draws is None else min(check_count("num_draws", num_draws), total)
        places, each = np.linspace(0, total - 1, n).astype(int), {d.each for d in self.likelihood.designs.values()}
        return {name: jnp.asarray(draws[places]) for name, draws in flat.items() if name not in each}


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


def model_of(likelihood: Likelihood, priors: Mapping[str, Distribution]) -> Any:
    """The NumPyro model of a panel: parameters from their priors, those of each id about them, and the behaviour."""
    designs = likelihood.designs
    beside = {design.slopes for design in designs.values()}
    beside |= {design.spread(group) for design in designs.values() for group in design.groups}

    def model(likelihood: Likelihood) -> None:
        found = {name: numpyro.sample(name, prior) for name, prior in priors.items() if name not in beside}
        for name, design in designs.items():
            shape = jnp.shape(found[name])
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
    """Draws by NUTS from where the posterior is largest, with the curvature there as its metric."""
    model = model_of(likelihood, priors)
    start, covariance = mode(model, likelihood)
    likelihood = likelihood.begun({name: start[name] for name in priors}, moving=True)
    # Numbers that move about others have narrow places, which long steps jump over.
    moving = any(design.groups for design in likelihood.designs.values())
    kernel = NUTS(
        functools.partial(model, likelihood),
        init_strategy=init_to_value(values=start),
        dense_mass=True,
        inverse_mass_matrix=covariance,
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


def mode(model: Any, likelihood: Likelihood) -> tuple[dict[str, Array], Array]:
    """Where a posterior is largest, from the middle of the priors on, and its covariance there without bounds.

    Raises:
        ValueError: what was done has probability zero in the middle of the priors.
    """
    with numpyro.handlers.seed(rng_seed=0):
        trace = numpyro.handlers.trace(model).get_trace(likelihood)
    latent = {name: each for name, each in trace.items() if each["type"] == "sample" and not each["is_observed"]}
    transforms = {name: biject_to(each["fn"].support) for name, each in latent.items()}
    middle = {name: transforms[name].inv(centre(each["fn"])) for name, each in latent.items()}
    flat, unflatten = ravel_pytree(middle)

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
    found = minimize(finite_or_barred(both), np.asarray(flat), jac=True, method="BFGS", options=options)
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
