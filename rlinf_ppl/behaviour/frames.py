"""Inference from data frames: the front end."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import pandas as pd
from jaxtyping import Array, PRNGKeyArray
from numpyro.distributions import Distribution, biject_to, constraints

from rlinf_ppl.behaviour.buses import Example, example
from rlinf_ppl.behaviour.columns import Availability, Columns, availability_of, names_of
from rlinf_ppl.behaviour.designs import Design, designs_of
from rlinf_ppl.behaviour.estimates import Estimates, maximised
from rlinf_ppl.behaviour.likelihood import Likelihood, in_float64
from rlinf_ppl.behaviour.panel import Panel, Reading, panel_of
from rlinf_ppl.behaviour.posterior import Posterior
from rlinf_ppl.behaviour.sampling import centre, sampled
from rlinf_ppl.behaviour.studies import check_study, made
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
    available: Availability | None = None,
    weights: str | None = None,
    lapse: str | None = None,
    formulas: str | Sequence[str] | None = None,
    bounds: Mapping[str, Any] | None = None,
    policy: Solver | None = None,
    of: str | Sequence[str] | None = None,
    given_optimality: bool = False,
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
        available: for each alternative of the decision, in the order of its values, the column that says whether it was
            there; {decision: columns} of several. The policy plans with all of them, and takes one that is there.
        weights: the column of the rows' weights; None: 1.
        lapse: the parameter that is the probability of doing anything that the prior allows, whatever the policy says.
        formulas: how parameters depend on what is known of ids, such as "beta ~ condition", on the scale where they
            have no bounds; `beta` is the one where all covariates are 0, their slopes are `beta_slopes`.
        bounds: NumPyro's constraints of parameters; None: any real number, and a lapse between 0 and 1.
        policy: makes the policy from a program; None: `exact.solve`, or the priors where there is no optimality.
        of: the sites whose probabilities count; None: the decisions.
        given_optimality: whether the likelihood is that of whole trajectories given that they are optimal, chance as
            well (`exact.log_prob_given_optimality`), and not of decisions under the true dynamics.
        gaps: what to do where times lack: "error", or "close", to go on with the next row: there what is hidden or
            computed comes from the row before, and a state that was seen from nowhere.
        max_steps: the most steps of the optimiser.

    Raises:
        TypeError, ValueError: on columns, rows, names or parameters that do not fit, each by its name; where a row has
            probability zero at the start.
    """
    first = made(program, start)
    reading = reading_of(first, state, decision, other, id, time, available, weights, gaps)
    panel = checked_panel(frame, first, reading, policy, lapse, start)
    designs = designs_of(formulas, (), list(start), panel)
    moved = [group.label for design in designs.values() for group in design.groups]
    if moved:
        raise ValueError(f"what moves by chance ({moved[0]}) has a law, and so priors: behaviour.sample.")
    slopes = {each.slopes: jnp.zeros((len(each.labels), *jnp.shape(start[name]))) for name, each in designs.items()}
    begun, limits = slopes | dict(start), with_lapse(bounds, lapse)
    check_bounds(limits, begun)
    transforms = {name: biject_to(limits.get(name, constraints.real)) for name in begun}
    dependent = [
        name for name, way in transforms.items() if way.inverse_shape(jnp.shape(begun[name])) != jnp.shape(begun[name])
    ]
    if dependent:
        raise ValueError(
            f"the bounds of {dependent} leave fewer numbers than there are, such as probabilities that sum to one: let "
            "program make the last from the others."
        )
    check_whole(given_optimality, policy=policy, of=of, lapse=lapse, available=available, weights=weights)
    likelihood = Likelihood(panel, program, policy, of, lapse, designs, transforms, given_optimality)
    return maximised(panel, likelihood, begun, max_steps)


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
    formulas: str | Sequence[str] | None = None,
    id: str | None = None,
    time: str | None = None,
    available: Availability | None = None,
    weights: str | None = None,
    lapse: str | None = None,
    policy: Solver | None = None,
    of: str | Sequence[str] | None = None,
    given_optimality: bool = False,
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
            population's; how far ids are apart has HalfNormal(1), or what stands at its name with `_spread` behind it
            (`_spread[1|school]` where there are several groups), and slopes of covariates have Normal(0, 1), or what
            stands at its name with `_slopes` behind it, on the scale where the parameter has no bounds.
        key: a JAX random key.
        state: as `maximum_likelihood` takes it, and so are the next ones.
        decision: the column of the decision, or {site: column}.
        other: {site: column} of what else was seen.
        by_id: the parameters that differ between ids by chance: short for "beta ~ 1 + (1 | id)".
        formulas: how parameters differ between ids, such as "beta ~ condition + (1 | subject)": by covariates, which
            are the same in all rows of an id, and by chance between groups of ids.
        id: the column of who it was; None: one sequence.
        time: the column of when; None: rows are in order.
        available: for each alternative of the decision the column that says whether it was there.
        weights: the column of the rows' weights; None: 1.
        lapse: the parameter that is the probability of a lapse.
        policy: makes the policy from a program; None: `exact.solve`, or the priors where there is no optimality.
        of: the sites whose probabilities count; None: the decisions.
        given_optimality: whether whole trajectories are scored, given that they are optimal.
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
    middle = {name: centre(prior) for name, prior in priors.items()}
    first = made(program, middle)
    reading = reading_of(first, state, decision, other, id, time, available, weights, gaps)
    panel = checked_panel(frame, first, reading, policy, lapse, priors)
    designs = designs_of(formulas, by_id, list(priors), panel)
    check_priors(priors, designs, lapse)
    transforms = {name: biject_to(prior.support) for name, prior in priors.items()}
    check_whole(given_optimality, policy=policy, of=of, lapse=lapse, available=available, weights=weights)
    likelihood = Likelihood(panel, program, policy, of, lapse, designs, transforms, given_optimality)
    return sampled(panel, likelihood, priors, check_key(key), num_warmup, num_samples, num_chains, progress)


def reading_of(
    program: ControlProgram,
    state: Columns | None,
    decision: Columns,
    other: Columns | None,
    id: str | None,
    time: str | None,
    available: Availability | None,
    weights: str | None,
    gaps: str,
) -> Reading:
    """What the columns of a data frame are."""
    variables = names_of(state, "state", True, program) | names_of(decision, "decision", False, program)
    variables |= names_of(other, "other", False, program)
    return Reading(variables, id, time, weights, availability_of(available, program), gaps)


def checked_panel(
    frame: Any, program: ControlProgram, reading: Reading, policy: Any, lapse: str | None, parameters: Mapping[str, Any]
) -> Panel:
    """The arrays of a data frame, and nothing that stands against learning from them."""
    panel = panel_of(frame, program, reading)
    check_study(panel, program)
    check_policy(policy)
    check_lapse(lapse, parameters)
    return panel


def check_policy(policy: Any) -> None:
    """Raise where a policy cannot be made of a program.

    Raises:
        TypeError: it is no function.
    """
    if policy is not None and not callable(policy):
        raise TypeError(
            f"policy must be a function of a program, such as lambda program: exact.solve(program).policy; got "
            f"{type(policy).__name__}."
        )


def check_bounds(bounds: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    """Raise where bounds are none, or of no parameter.

    Raises:
        TypeError: one is no constraint of NumPyro.
        ValueError: one is of no parameter.
    """
    unknown = [name for name in bounds if name not in parameters]
    if unknown:
        raise ValueError(f"bounds name {unknown}, and there are {list(parameters)}.")
    wrong = [name for name, bound in bounds.items() if not isinstance(bound, constraints.Constraint)]
    if wrong:
        raise TypeError(
            f"the bounds of {wrong} must be NumPyro's constraints, such as numpyro.distributions.constraints.positive "
            "or constraints.interval(0, 10)."
        )


def check_priors(priors: Mapping[str, Any], designs: Mapping[str, Design], lapse: str | None) -> None:
    """Raise where priors are those of nothing, or a lapse may be no probability.

    Raises:
        ValueError: so it is.
    """
    beside = {x for each in designs.values() for x in (each.slopes, *(each.spread(group) for group in each.groups))}
    lost = [x for x in priors if x.partition("[")[0].endswith(("_spread", "_slopes")) and x not in beside]
    if lost:
        raise ValueError(f"priors name {lost}; those of how parameters differ between ids are {sorted(beside)}.")
    # A prior of probabilities holds neither -.1 nor 1.1.
    if lapse is not None and bool(jnp.any(priors[lapse].support(jnp.array([-0.1, 1.1])))):
        raise ValueError(f"the prior of the lapse {lapse!r} must be one of probabilities, such as Beta(1.0, 1.0).")


def check_lapse(lapse: str | None, parameters: Mapping[str, Any]) -> None:
    """Raise where a lapse is no parameter.

    Raises:
        ValueError: so it is.
    """
    if lapse is not None and lapse not in parameters:
        raise ValueError(f"lapse names the parameter {lapse!r}, and there are {list(parameters)}.")


def check_whole(given_optimality: bool, **others: Any) -> None:
    """Raise where whole trajectories are scored and something is given that is of single decisions.

    Raises:
        ValueError: so it is.
    """
    wrong = [name for name, value in others.items() if value is not None]
    if given_optimality and wrong:
        raise ValueError(
            f"given_optimality scores whole trajectories under the priors and optimality; {wrong} are of decisions one "
            "by one."
        )


def with_lapse(bounds: Mapping[str, Any] | None, lapse: str | None) -> dict[str, Any]:
    """The bounds, and those of a probability."""
    found = {} if lapse is None else {lapse: constraints.unit_interval}
    return found | dict(bounds or {})
