"""The recovery: one program, its exact answers, and how far those of the other engines are from them.

For a program with optimality O and true dynamics,

    soft value     max_q ELBO(q) = E_{s_1} V_1(s_1)                 exact.solve
    ELBO           of the guide that svi.fit arrived at              svi.fit, by exact or sampled gradients
    log evidence   log p(O_{1:T} = 1)                                exact.condition, or particles: smc.run

so ELBO <= soft value <= log evidence. The first inequality is tight where the fit has recovered the closed form, and
its slack is KL(fit || closed form) over trajectories; the slack of the second is what is gained by conditioning the
dynamics as well. At an infinite horizon there may be no posterior, and no log evidence: then its place stays empty.
Players whose inverse temperatures differ share no model that could have one, and their value is in units of reward;
where one of them minimises it is that of a saddle point, and bounds the fit's on neither side. The engines that sample
are asked in `engines`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool

from rlinf_ppl.inference import exact, svi
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.evaluation import common_inverse_temperature
from rlinf_ppl.report import horizons, kinds
from rlinf_ppl.report.case import Case
from rlinf_ppl.report.engines import OPTIMIZER, Estimates, asked, estimate, ignore

FIT_STEPS = 1000
LOG_EVIDENCE = "log evidence"


class Answers(NamedTuple):
    """A case with everything that was computed for it; values, ELBO and losses in `unit`.

    Attributes:
        case: The row of the list of cases.
        task: The task, as data.
        program: The step program of the task.
        solution: Soft-optimal control, from `exact.solve`.
        fit: The variational fit, from `svi.fit`.
        posterior: The answer given optimality, from `exact.condition`; None where there is none.
        missing: Why there is none, else empty.
        seconds: Wall time of building, solving, fitting and conditioning, compilation included.
    """

    case: Case
    task: Any
    program: ControlProgram
    solution: exact.Solution
    fit: svi.Fit
    posterior: exact.Posterior | None
    missing: str
    seconds: float

    @property
    def unit(self) -> str:
        """What values, ELBO and losses are in: nats, or units of reward where no inverse temperature is common."""
        return "units of reward" if common_temperature(self.program) is None else "nats"

    @property
    def closed_forms(self) -> dict[str, exact.Solution | exact.Posterior]:
        """The exact answers that there are, by name: exact, then conditioned."""
        return {"exact": self.solution} | ({} if self.posterior is None else {"conditioned": self.posterior})


class Row(NamedTuple):
    """One line of the tables; divergences and evidence in nats, values and ELBO in `unit`.

    Attributes:
        task: The case's name.
        states: The number of joint values of the state variables; of vectors, the space R^n that they span.
        actions: The same of a step's decisions.
        horizon: The number of time steps; None where there is no end.
        discount: The probability of being alive at the next step.
        soft_value: The largest ELBO, expected over the initial state.
        elbo: The ELBO that the fit reached.
        kl: KL(fit || closed form) between the two guides' trajectories.
        policy_error: The largest difference of a probability of the fit from the closed form; see `policy_error`.
        log_evidence: log p(optimal at every step); None where there is no posterior.
        gap: log_evidence - soft_value, the distance of the two answers; None where there is only one.
        seconds: Wall time, compilation included.
        converged: Whether the fit's own verdict is that it arrived.
        missing: For each answer that there is not, by its name, why: the log evidence, or an engine that samples.
        unit: What the soft value and the ELBO are in: nats, or units of reward where no inverse temperature is common.
        sampled_elbo: The exact ELBO of the guide that was fitted by sampled gradients; None where there is none.
        sampled_kl: KL(that fit || closed form) between the two guides' trajectories.
        sampled_converged: Whether that fit's own verdict is that it arrived.
        smc_log_evidence: The log of the mean evidence that particles estimated; None where there are none.
        smc_error: That less the log evidence; None where there is only one of them.
        smc_standard_error: Of both, by the spread of independent runs.
    """

    task: str
    states: int | str
    actions: int | str
    horizon: int | None
    discount: float
    soft_value: float
    elbo: float
    kl: float
    policy_error: float
    log_evidence: float | None
    gap: float | None
    seconds: float
    converged: bool
    missing: dict[str, str] = {}
    unit: str = "nats"
    sampled_elbo: float | None = None
    sampled_kl: float | None = None
    sampled_converged: bool | None = None
    smc_log_evidence: float | None = None
    smc_error: float | None = None
    smc_standard_error: float | None = None


def answer(case: Case, key: Array, progress: Callable[[str], None] = ignore) -> Answers:
    """Builds a case, solves it, fits its guide and conditions it on optimality.

    Args:
        case: What to recover.
        key: The random key of the fit.
        progress: Called with the name of each phase as it begins.

    Returns:
        The three answers with the task and the program they belong to.
    """
    start = time.perf_counter()
    progress("building")
    task = case.task()
    program = case.program(task)
    progress("solving")
    solution = jax.block_until_ready(exact.solve(program))
    progress("fitting")
    # A guide of one's own has no natural gradient.
    optimizer = None if program.learned is None else OPTIMIZER
    fit = jax.block_until_ready(svi.fit(program, key, num_steps=FIT_STEPS, optimizer=optimizer))
    progress("conditioning")
    posterior, missing = asked(lambda: exact.condition(program))
    seconds = time.perf_counter() - start
    return in_nats(Answers(case, task, program, solution, fit, posterior, missing, seconds))


def in_nats(answers: Answers) -> Answers:
    """The answers with values and bounds in nats, where there is such a unit; the engines' is that of optimality."""
    solution, fit, posterior = answers.solution, answers.fit, answers.posterior
    conditioned = None if posterior is None else posterior.value
    value, elbo, losses, reached, conditioned = kinds.scaled(
        nats_per_unit(answers.program), (solution.value, solution.elbo, fit.losses, fit.elbo, conditioned)
    )
    return answers._replace(
        solution=solution._replace(value=value, elbo=elbo),
        fit=fit._replace(losses=losses, elbo=reached),
        posterior=None if posterior is None else posterior._replace(value=conditioned),
    )


def nats_per_unit(program: ControlProgram) -> Any:
    """The inverse temperature that a program's decisions share; 1 where they share none, in units of optimality."""
    tau = common_temperature(program)
    return 1.0 if tau is None else tau


def common_temperature(program: ControlProgram) -> Any:
    """The inverse temperature that a program's decisions share; None where there is no such unit, nor a posterior."""
    try:
        tau = common_inverse_temperature(program)
    except ValueError:
        return None
    return 1.0 if tau is None else tau


def summarize(answers: Answers, estimates: Estimates | None = None) -> Row:
    """The line of the table that belongs to the answers, and to the estimates of the engines that sample if asked."""
    case, program, solution = answers.case, answers.program, answers.solution
    soft_value = float(solution.elbo)
    log_evidence = None if answers.posterior is None else float(answers.posterior.log_evidence)
    row = Row(
        task=case.name,
        states=kinds.extent(program, program.state),
        actions=kinds.extent(program, tuple(program.scopes)),
        horizon=case.horizon,
        discount=float(program.discount),
        soft_value=soft_value,
        elbo=float(answers.fit.elbo),
        kl=kl(program, answers.fit.policy, solution.policy),
        policy_error=policy_error(program, answers.fit.policy, solution.policy),
        log_evidence=log_evidence,
        gap=None if log_evidence is None else log_evidence - soft_value,
        seconds=answers.seconds,
        converged=bool(answers.fit.converged),
        missing={LOG_EVIDENCE: answers.missing} if answers.missing else {},
        unit=answers.unit,
    )
    return row if estimates is None else beside(row, answers, estimates)


def beside(row: Row, answers: Answers, estimates: Estimates) -> Row:
    """A row with the estimates of the engines that sample, each beside its exact counterpart."""
    row = row._replace(missing=row.missing | estimates.missing, seconds=row.seconds + estimates.seconds)
    if estimates.fit is not None:
        row = row._replace(
            sampled_elbo=float(nats_per_unit(answers.program) * estimates.fit.elbo),
            sampled_kl=kl(answers.program, estimates.fit.policy, answers.solution.policy),
            sampled_converged=bool(estimates.fit.converged),
        )
    if estimates.particles is None:
        return row
    found, error = (float(number) for number in estimates.particles)
    off = None if row.log_evidence is None else found - row.log_evidence
    return row._replace(smc_log_evidence=found, smc_error=off, smc_standard_error=error)


def recover(case: Case, key: Array) -> Row:
    """One case, from its name to its line of the table."""
    fit_key, estimates_key = jax.random.split(key)
    answers = answer(case, fit_key)
    return summarize(answers, estimate(answers.program, estimates_key))


def kl(program: ControlProgram, policy: dict[str, Any], other: dict[str, Any]) -> float:
    """KL in nats between the trajectories of two policies; below 0 it could be by rounding only, and is 0."""
    return max(float(exact.kl(program, policy, other)), 0.0)


def policy_error(program: ControlProgram, policy: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference of two policies' probabilities, wherever the prior can take a trajectory.

    Of Gaussian policies, the largest difference of any gain, offset or covariance: an affine function differs
    everywhere or nowhere.

    A row of a policy table, p(d | scope) at time t, matters only where a trajectory can meet it. A trajectory that
    the prior (of the initial state, the decisions and the chance sites) gives no probability has none under any
    policy of finite ELBO, because a policy has no mass where its prior has none; and every one that the prior gives
    some has some under the soft-optimal policy, because rewards are finite. So a row counts exactly if its
    conditioning value has positive marginal probability at its time under the prior, however improbable it is under
    the policies compared.

    Args:
        program: The program of both policies.
        policy: Probabilities (T, scope axes, K) for each decision; without T at an infinite horizon.
        other: The same for the policy to compare with.

    Returns:
        The maximum over decisions, times, reachable scope values and alternatives of |policy - other|.
    """
    if program.structure.gaussian:
        return kinds.difference(policy, other)
    met = reachable(program)
    apart = {name: np.abs(np.asarray(policy[name]) - np.asarray(other[name])) for name in met}
    return float(np.max([apart[name][its].max() for name, its in met.items()]))


def reachable(program: ControlProgram) -> dict[str, Bool[np.ndarray, "..."]]:
    """For each decision, the times and scope values that a trajectory of the prior meets with positive probability.

    At an infinite horizon, the scope values that it meets at any time: whatever state can be reached at all is reached
    within as many steps as there are states.
    """
    walked = horizons.ended(program, math.prod(program.sizes[name] for name in program.state))
    marginals = exact.marginals(walked, exact.prior_policy(walked))
    met = {name: np.asarray(table).sum(-1) > 0 for name, table in marginals.decision.items()}
    return met if walked is program else {name: table.any(0) for name, table in met.items()}
