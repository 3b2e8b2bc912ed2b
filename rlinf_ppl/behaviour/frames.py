"""Inference from data frames: the front end."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from jaxtyping import Array, PRNGKeyArray
from numpyro.distributions import Distribution, constraints

from rlinf_ppl.behaviour.buses import Example, example
from rlinf_ppl.behaviour.estimates import Estimates, maximised
from rlinf_ppl.behaviour.likelihood import Likelihood, in_float64
from rlinf_ppl.behaviour.panel import Columns, names_of, panel_of
from rlinf_ppl.behaviour.sampling import Posterior, centre, sampled
from rlinf_ppl.inference.arguments import check_key
from rlinf_ppl.inference.sites import Solver
from rlinf_ppl.program import ControlProgram

__all__ = ["Estimates", "Example", "Posterior", "example", "maximum_likelihood", "sample"]


@in_float64
def maximum_likelihood(
    frame: pd.DataFrame,
    *,
    program: Callable[[Any], ControlProgram],
    start: Mapping[str, Any],
    state: Columns | None = None,
    decision: Columns,
    other: Columns | None = None,
    id: str | None = None,
    time: str | None = None,
    weights: str | None = None,
    lapse: str | None = None,
    bounds: Mapping[str, Any] | None = None,
    policy: Solver | None = None,
    of: str | Sequence[str] | None = None,
    gaps: str = "error",
    max_steps: int = 200,
) -> Estimates:
    """The parameters under which what was done is most probable, in float64 whatever JAX counts in.

        fit = behaviour.maximum_likelihood(
            frame, program=lambda p: bus(p["RC"], p["cost"]), start={"RC": 8.0, "cost": 2.0},
            state="mileage", decision="replaced", id="bus", time="month",
        )
        print(fit.summary("bhhh"))

    Args:
        frame: one row for each id and time, in any order.
        program: makes the program from a dictionary of parameters.
        start: where to begin, numbers or arrays by the parameters' names.
        state: the column of the state, or {variable: column} of several; states that the others determine, such as what
            a learner has learned, are computed.
        decision: the column of the decision, or {site: column}. Missing ones are summed over.
        other: {site: column} of what else was seen: outcomes, observations.
        id: the column of who it was; None: one sequence.
        time: the column of when; None: rows are in order.
        weights: the column of the rows' weights; None: 1.
        lapse: the parameter that is the probability of doing anything that the prior allows, whatever the policy says.
        bounds: NumPyro's constraints of parameters; None: any real number, and a lapse between 0 and 1.
        policy: makes the policy from a program; None: `exact.solve`, or the priors where there is no optimality.
        of: the sites whose probabilities count; None: the decisions.
        gaps: what to do where times lack: "error", or "close".
        max_steps: the most steps of the optimiser.

    Raises:
        TypeError, ValueError: on columns, rows, names or parameters that do not fit, each by its name; where a row has
            probability zero at the start.
    """
    likelihood = likelihood_of(
        frame, program, start, state, decision, other, id, time, weights, lapse, policy, of, gaps
    )
    return maximised(likelihood, start, with_lapse(bounds, lapse), max_steps)


@in_float64
def sample(
    frame: pd.DataFrame,
    *,
    program: Callable[[Any], ControlProgram],
    priors: Mapping[str, Distribution],
    key: PRNGKeyArray | Array,
    state: Columns | None = None,
    decision: Columns,
    other: Columns | None = None,
    by_id: Sequence[str] = (),
    id: str | None = None,
    time: str | None = None,
    weights: str | None = None,
    lapse: str | None = None,
    policy: Solver | None = None,
    of: str | Sequence[str] | None = None,
    gaps: str = "error",
    num_warmup: int = 300,
    num_samples: int = 1000,
    num_chains: int = 4,
    progress: bool = False,
) -> Posterior:
    """A posterior over parameters, by NUTS that starts where it is largest.

        posterior = behaviour.sample(
            frame, program=lambda p: models.single_agent(task, 50, beta=p["beta"]), key=key,
            priors={"beta": LogNormal(0.0, 1.0)}, by_id=["beta"], state="s", decision="a", id="subject", time="trial",
        )
        posterior.to_arviz()

    Args:
        frame: one row for each id and time, in any order.
        program: makes the program from a dictionary of parameters.
        priors: NumPyro distributions by the parameters' names. Of one that differs between ids it is the prior of the
            population's; how far ids are apart has HalfNormal(1), or what stands at its name with `_spread` behind it.
        key: a JAX random key.
        state: as `maximum_likelihood` takes it, and so are the next ones.
        decision: the column of the decision, or {site: column}.
        other: {site: column} of what else was seen.
        by_id: the parameters that differ between ids.
        id: the column of who it was; None: one sequence.
        time: the column of when; None: rows are in order.
        weights: the column of the rows' weights; None: 1.
        lapse: the parameter that is the probability of a lapse.
        policy: makes the policy from a program; None: `exact.solve`, or the priors where there is no optimality.
        of: the sites whose probabilities count; None: the decisions.
        gaps: what to do where times lack: "error", or "close".
        num_warmup: steps of each chain that adapt the sampler.
        num_samples: draws of each chain.
        num_chains: on a device each where there are as many, else side by side.
        progress: whether to show a bar.

    Raises:
        TypeError, ValueError: as `maximum_likelihood`; priors that are none, or lack.
    """
    wrong = [name for name, prior in priors.items() if not isinstance(prior, Distribution)]
    if wrong:
        raise TypeError(f"priors must be NumPyro distributions; those of {wrong} are not.")
    lacking = [name for name in by_id if name not in priors]
    if lacking:
        raise ValueError(f"by_id names {lacking}, and there are priors for {list(priors)}.")
    if by_id and id is None:
        raise ValueError("by_id wants ids: give the column of who it was, id=...")
    first = {name: centre(prior) for name, prior in priors.items()}
    likelihood = likelihood_of(
        frame, program, first, state, decision, other, id, time, weights, lapse, policy, of, gaps
    )
    return sampled(likelihood, priors, tuple(by_id), check_key(key), num_warmup, num_samples, num_chains, progress)


def likelihood_of(
    frame: Any,
    program: Callable[[Any], ControlProgram],
    start: Mapping[str, Any],
    state: Columns | None,
    decision: Columns,
    other: Columns | None,
    id: str | None,
    time: str | None,
    weights: str | None,
    lapse: str | None,
    policy: Solver | None,
    of: Any,
    gaps: str,
) -> Likelihood:
    """The likelihood of a data frame."""
    first = made(program, start)
    if lapse is not None and lapse not in start:
        raise ValueError(f"lapse names the parameter {lapse!r}, and there are {list(start)}.")
    variables = names_of(state, "state", True, first) | names_of(decision, "decision", False, first)
    variables |= names_of(other, "other", False, first)
    panel = panel_of(frame, first, variables, id, time, weights, gaps)
    return Likelihood(panel, program, policy, of, lapse)


def made(program: Any, parameters: Mapping[str, Any]) -> ControlProgram:
    """The program of some parameters.

    Raises:
        TypeError: it makes none.
    """
    if isinstance(program, ControlProgram) or not callable(program):
        raise TypeError(
            "program must be a function of a dictionary of parameters that returns a ControlProgram; got "
            f"{type(program).__name__}."
        )
    if not isinstance(parameters, Mapping):
        raise TypeError(f"parameters are given by name, in a dictionary; got {type(parameters).__name__}.")
    found = program(dict(parameters))
    if not isinstance(found, ControlProgram):
        raise TypeError(f"program(parameters) must return a ControlProgram; got {type(found).__name__}.")
    return found


def with_lapse(bounds: Mapping[str, Any] | None, lapse: str | None) -> dict[str, Any]:
    """The bounds, and those of a probability."""
    found = {} if lapse is None else {lapse: constraints.unit_interval}
    return found | dict(bounds or {})
