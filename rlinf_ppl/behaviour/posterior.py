"""Draws from a posterior: what they say of parameters, of behaviour, and of the sampler that made them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import lax
from jaxtyping import Array, PRNGKeyArray
from numpyro.infer import MCMC

from rlinf_ppl.behaviour.counterfactuals import over_draws
from rlinf_ppl.behaviour.labels import axes_of, datasets, ids_of, label
from rlinf_ppl.behaviour.likelihood import Likelihood, in_float64
from rlinf_ppl.behaviour.panel import Panel
from rlinf_ppl.behaviour.predictions import first_of, predicted, repeated, trials
from rlinf_ppl.behaviour.studies import of_frame
from rlinf_ppl.inference.arguments import check_count, check_key
from rlinf_ppl.program import ControlProgram


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
        self._extra = {name: np.asarray(x) for name, x in mcmc.get_extra_fields(group_by_chain=True).items()}
        raw = {design.raw(group) for design in likelihood.designs.values() for group in design.groups}
        self.samples = {name: draws for name, draws in self._found.items() if name not in raw}

    @property
    def params(self) -> pd.DataFrame:
        """Mean, standard deviation, 90 % interval, effective number and R-hat of what all ids share."""
        each = {design.each for design in self.likelihood.designs.values()}
        return self._table([name for name in self.samples if name not in each])

    @property
    def params_by_id(self) -> pd.DataFrame:
        """The same of the parameters of each id."""
        return self._table([design.each for design in self.likelihood.designs.values()])

    def _table(self, names: list[str]) -> pd.DataFrame:
        axes, rows = axes_of(self.panel, self.likelihood.designs), {}
        for name in names:
            draws = self.samples[name]
            for place in np.ndindex(draws.shape[2:]):
                rows[label(axes, name, place)] = summarised(draws[(slice(None), slice(None), *place)])
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("parameter")

    @property
    def divergences(self) -> int:
        """How many draws the sampler could not follow the posterior at; more than a few are a reason for distrust."""
        return int(np.sum(self._extra["diverging"]))

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
        """What was found, to be printed; R-hat and effective draws are the worst of all parameters, ids' as well."""
        every = pd.concat([self.params, self.params_by_id])
        facts = [
            f"{len(self.panel.frame)} rows, {len(self.panel.ids)} sequences, {self.divergences} divergences, R-hat at "
            f"most {every['r_hat'].max():.3f}, effective draws at least {every['ess'].min():.0f}, "
            f"{np.mean(self._extra['num_steps']):.0f} steps a draw"
        ]
        return "\n".join([*facts, self.params.to_string(float_format=lambda x: f"{x:.4f}")])

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
            outcome: what of it is asked for, an array or a dictionary of them; None: what its decisions follow.
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
        chains, n = next(iter(self._found.values())).shape[:2]
        terms = jax.jit(lambda draws: lax.map(self.likelihood.of_sequences, draws))(self._draws(None))
        fields = {"diverging": "diverging", "potential_energy": "energy", "num_steps": "n_steps"}
        groups = {
            "posterior": self.samples,
            "sample_stats": {new: self._extra[old] for old, new in fields.items()},
            "log_likelihood": {"behaviour": np.asarray(terms).reshape(chains, n, -1)},
        }
        axes = axes_of(self.panel, self.likelihood.designs)
        return datasets(groups, axes | {"behaviour": ids_of(self.panel)})

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
