"""Estimates by maximum likelihood: the numbers, how sure they are, and what follows from them."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import lax
from jaxtyping import Array, PRNGKeyArray
from scipy.optimize import minimize
from scipy.stats import norm

from rlinf_ppl.behaviour.counterfactuals import choices_index, flat_outcome, outcome_index, outcomes
from rlinf_ppl.behaviour.labels import axes_of, datasets, label
from rlinf_ppl.behaviour.likelihood import Likelihood, described, finite_or_barred, in_float64
from rlinf_ppl.behaviour.objective import Objective
from rlinf_ppl.behaviour.panel import Panel
from rlinf_ppl.behaviour.predictions import predicted, repeated, trials
from rlinf_ppl.behaviour.studies import by_id, made, of_frame
from rlinf_ppl.inference.arguments import check_count, check_key
from rlinf_ppl.program import ControlProgram

KINDS = ("hessian", "bhhh", "sandwich", "clustered")
# A slope of the log likelihood that is too small to matter, in standard errors of its parameter.
SMALL = 1e-4
# A change of the log likelihood that is rounding.
UNSEEN = 1e-10


class Estimates:
    """Maximum-likelihood estimates.

    Attributes:
        estimate: the parameters by name.
        log_likelihood: the largest log likelihood, in nats.
        converged: whether no parameter would move by more than 1e-4 of its standard error.
        evaluations: how many values of the likelihood that took.
        panel: the data, in the order of ids and times.
    """

    def __init__(self, panel: Panel, objective: Objective, flat: Array, evaluations: int):
        self.panel, self.objective, self.likelihood = panel, objective, objective.likelihood
        self.estimate, self.evaluations, self._flat = objective.unflatten(flat), evaluations, flat
        value, slope = objective.value_and_slope(flat)
        self.log_likelihood, self._slope = float(value), np.asarray(slope)
        self._information = -np.asarray(objective.curvature(flat))
        weights = self.panel.rows(self.panel.weights)[:, None]
        # A row of weight 0 counts for nothing, whatever its slope is.
        self._scores = np.where(weights > 0, self.panel.rows(objective.scores(flat)), 0.0) * weights
        covariance = self.covariance()
        self.converged = bool(np.all(np.abs(covariance @ self._slope) <= SMALL * np.sqrt(np.diag(covariance))))

    @property
    def names(self) -> list[str]:
        """The parameters' names, those of arrays with the place in brackets."""
        axes = axes_of(self.panel, self.likelihood.designs)
        return [
            label(axes, name, place)
            for name, value in sorted(self.estimate.items())
            for place in np.ndindex(np.shape(value))
        ]

    @property
    @in_float64
    def by_id(self) -> pd.DataFrame:
        """The parameters that differ between ids, a row for each id."""
        return by_id(self.panel, self.likelihood, self.estimate)

    def covariance(self, kind: str = "hessian") -> np.ndarray:
        """The covariance of the estimates.

        Args:
            kind: "hessian", the inverse of the curvature, where a weight counts a row that often; in all others it
                multiplies the slope of a row. "bhhh", of the outer products of the rows' slopes (Berndt,
                Hall, Hall & Hausman 1974); "sandwich" of both (White 1982), which holds where the model is wrong;
                "clustered", the same by ids, where the rows of one depend on each other beyond the model.

        Raises:
            ValueError: it is none of these; the data do not tell some parameters apart.
        """
        if kind not in KINDS:
            raise ValueError(f"errors must be one of {KINDS}; got {kind!r}.")
        rows = self._scores
        if kind == "bhhh":
            return inverse(rows.T @ rows, self.names, np.asarray(self._flat))
        bread = inverse(self._information, self.names, np.asarray(self._flat))
        if kind == "hessian":
            return bread
        if kind == "clustered":
            rows = np.stack([rows[self.panel.places[0] == i].sum(0) for i in range(len(self.panel.ids))])
            if len(rows) < 2:
                raise ValueError("errors that are clustered by ids want at least two of them.")
            rows = rows * np.sqrt(len(rows) / (len(rows) - 1))
        return bread @ (rows.T @ rows) @ bread

    def table(self, errors: str = "hessian", level: float = 0.95) -> pd.DataFrame:
        """Estimates, standard errors and intervals.

        Args:
            errors: the kind of `covariance`.
            level: of the intervals, by the normal distribution.
        """
        deviation = np.sqrt(np.diag(self.covariance(errors)))
        return with_intervals(np.asarray(self._flat), deviation, level, pd.Index(self.names, name="parameter"))

    @property
    def params(self) -> pd.DataFrame:
        """Estimates with standard errors from the curvature and 95 % intervals."""
        return self.table()

    def summary(self, errors: str = "hessian") -> str:
        """What was found, to be printed."""
        head = (
            f"maximum likelihood: log likelihood {self.log_likelihood:.4f}, {len(self.panel.frame)} rows, "
            f"{len(self.panel.ids)} sequences{'' if self.converged else ', NOT CONVERGED'}"
        )
        return f"{head}\n{self.table(errors).to_string(float_format=lambda x: f'{x:.4f}')}\nstandard errors: {errors}"

    @in_float64
    def derived(
        self, function: Callable[[dict[str, Array]], Any], errors: str = "hessian", level: float = 0.95
    ) -> pd.DataFrame:
        """Anything that follows from the parameters, with standard errors by the delta method.

        Args:
            function: of the parameters, to an array or a dictionary of arrays.
            errors: the kind of `covariance`.
            level: of the intervals, by the normal distribution.

        Returns:
            A row for each number: estimate, standard error, lower, upper.
        """

        def of_flat(x: Array) -> Array:
            return flat_outcome(function(self.objective.unflatten(x)))

        value, slope = np.asarray(of_flat(self._flat)), np.asarray(jax.jacfwd(of_flat)(self._flat))
        deviation = np.sqrt(np.einsum("ij,jk,ik->i", slope, self.covariance(errors), slope))
        return with_intervals(value, deviation, level, outcome_index(function(self.estimate)))

    @in_float64
    def counterfactual(
        self,
        program: Callable[[Any], ControlProgram],
        outcome: Callable[[ControlProgram], Any] | None = None,
        errors: str = "hessian",
        level: float = 0.95,
    ) -> pd.DataFrame:
        """What would be done in another task, with standard errors by the delta method.

        Args:
            program: makes the other task's program from the parameters.
            outcome: what of it is asked for, an array or a dictionary of them; None: what its decisions follow.
            errors: the kind of `covariance`.
            level: of the intervals, by the normal distribution, which may leave the bounds of a probability.
        """
        found = self.derived(outcomes(program, outcome), errors, level)
        return found if outcome is not None else found.set_axis(choices_index(made(program, self.estimate)))

    @property
    @in_float64
    def log_likelihoods(self) -> pd.Series:
        """The log probability of each row, in the order of the data frame that was given."""
        rows = self.panel.rows(self.objective.terms(self._flat))
        return self.panel.as_given(pd.Series(rows, self.panel.frame.index, name="log likelihood"))

    @in_float64
    def predict(self, frame: pd.DataFrame | None = None) -> pd.DataFrame:
        """The probability of each alternative at each row, given all that came before it.

        Args:
            frame: other rows with the same columns, NaN where a decision is not known; None: those that were fitted.
        """
        return predicted(*of_frame(frame, self.panel, self.likelihood, self.estimate), self._draws)

    @in_float64
    def states(self) -> pd.DataFrame:
        """What goes on at each row: values, prediction errors, entropies; see `predictions.trials`."""
        return trials(self.panel, self.likelihood, self._draws)

    @in_float64
    def simulate(self, key: PRNGKeyArray | Array) -> pd.DataFrame:
        """Behaviour of the same ids at the same times, drawn at the estimates; it begins where each was first seen."""
        return repeated(self.panel, self.likelihood, self.estimate, check_key(key))

    @in_float64
    def to_arviz(self, key: PRNGKeyArray | Array, num_draws: int = 1000) -> Any:
        """Draws from the estimates' normal law, where they have no bounds, and log likelihoods of rows, for ArviZ.

        Args:
            key: a JAX random key.
            num_draws: how many.
        """
        slope = jax.jacfwd(self.objective.unbounded)(self._flat)
        covariance = slope @ self.covariance() @ slope.T
        middle = self.objective.unbounded(self._flat)
        drawn = jax.random.multivariate_normal(check_key(key), middle, covariance, (num_draws,))
        parameters = jax.vmap(lambda x: self.objective.unflatten(self.objective.bounded(x)))(drawn)
        terms = jax.jit(lambda draws: lax.map(self.likelihood.terms, draws))(parameters)
        rows = np.asarray(terms)[:, self.panel.places[0], self.panel.places[1]]
        axes = axes_of(self.panel, self.likelihood.designs)
        one_chain = jax.tree.map(
            lambda x: np.asarray(x)[None], {"posterior": parameters, "log_likelihood": {"behaviour": rows}}
        )
        return datasets(one_chain, axes)

    @property
    def _draws(self) -> dict[str, Array]:
        return {name: value[None] for name, value in self.estimate.items()}

    def __repr__(self) -> str:
        found = f"log_likelihood={self.log_likelihood:.6g}, converged={self.converged}"
        return f"Estimates({described(self.estimate)}, {found})"


def with_intervals(value: np.ndarray, deviation: np.ndarray, level: float, index: pd.Index | None) -> pd.DataFrame:
    """Estimates with standard errors and intervals by the normal distribution.

    Raises:
        ValueError: the level is none.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1; got {level}.")
    width = norm.ppf(0.5 + level / 2) * deviation
    columns = {"estimate": value, "standard error": deviation, "lower": value - width, "upper": value + width}
    return pd.DataFrame(columns, index)


def inverse(information: np.ndarray, names: list[str], estimate: np.ndarray) -> np.ndarray:
    """The inverse of an information matrix.

    Raises:
        ValueError: the data do not tell some parameters apart.
    """
    diagonal = np.diag(information)
    # Where a move by 1, or by the parameter itself, changes the log likelihood by its rounding, it says nothing.
    seen = np.abs(diagonal) * np.maximum(estimate**2, 1.0) > UNSEEN
    size = np.sqrt(np.where(seen, np.abs(diagonal), 1.0))
    information = np.where(np.outer(seen, seen), information, 0.0)
    values, vectors = np.linalg.eigh(information / np.outer(size, size))
    if not values[0] > 1e-10 * max(values[-1], 1.0):
        flat = vectors[:, 0] / size
        flat = flat / np.max(np.abs(flat))
        mix = ", ".join(f"{x:+.3g} {name}" for x, name in zip(flat, names, strict=True) if abs(x) > 1e-3)
        raise ValueError(
            f"the data do not tell apart parameters along ({mix}): the likelihood has no curvature there, or the "
            "estimate is no maximum. Fix one of them, or give a prior (behaviour.sample)."
        )
    return vectors @ np.diag(1 / values) @ vectors.T / np.outer(size, size)


def maximised(panel: Panel, likelihood: Likelihood, start: Mapping[str, Any], max_steps: int) -> Estimates:
    """The parameters of the largest likelihood, by Newton's method in a trust region."""
    most = check_count("max_steps", max_steps)
    objective, flat = Objective.of(likelihood, start)
    first = objective.unbounded(flat)
    if not np.all(np.isfinite(first)):
        unbounded = objective.unflatten(first)
        bad = [name for name, value in unbounded.items() if not np.all(np.isfinite(value))]
        raise ValueError(f"start has {bad} at or beyond its bounds, or is no number.")
    objective.check(panel, flat)
    objective = objective._replace(likelihood=likelihood.begun(objective.unflatten(flat)))
    found = minimize(
        finite_or_barred(objective.loss),
        np.asarray(first),
        jac=True,
        hess=objective.bend,
        method="trust-exact",
        options={"maxiter": most, "gtol": 1e-6},
    )
    return Estimates(panel, objective, objective.bounded(jnp.asarray(found.x)), int(found.nfev))
