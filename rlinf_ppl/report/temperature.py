"""Value and policy of an infinite horizon against the inverse temperature, from the prior to the hard optimum.

    value      max_q E_q[sum_t discount^t (r_t - log(q / p) / beta)]      what a policy earns, less what leaving p costs
    return     E_q[sum_t discount^t r_t]                                  what it earns

Both are in units of reward. They begin at the return of the prior p, where beta is 0, never fall, and end at the return
of the hard maximum over what the prior allows, where beta is infinite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from rlinf_ppl.inference import exact
from rlinf_ppl.report.looks import COLOURS, DASHES
from rlinf_ppl.report.plots import alternatives, heading, starting_row
from rlinf_ppl.report.recovery import Answers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DECADES = 2.5
POINTS = 101


class Sweep(NamedTuple):
    """One solution for each inverse temperature; NaN where it did not converge.

    Attributes:
        betas: Inverse temperatures, in nats per unit of reward; the first is 0, the last infinite.
        value: What each soft-optimal policy is worth, less its KL over beta, in units of reward.
        earned: What it earns, in units of reward.
        policy: For each decision its probabilities, (betas, scope axes, K).
    """

    betas: Float[Array, " betas"]
    value: Float[Array, " betas"]
    earned: Float[Array, " betas"]
    policy: dict[str, Float[Array, "betas ..."]]


def sweep(answers: Answers) -> Sweep:
    """Solves a case at many inverse temperatures in one compiled call, as many below its own as above."""
    program = answers.case.program(answers.task, beta=1.0)

    def at(beta: Array) -> Any:
        solution = exact.solve(program.tempered(beta))
        earned = exact.evaluate(program.tempered(jnp.inf), solution.policy)
        numbers = (solution.elbo, earned.elbo, solution.policy)
        return jax.tree.map(lambda x: jnp.where(solution.converged & earned.converged, x, jnp.nan), numbers)

    assert answers.case.beta is not None
    middle = np.log10(answers.case.beta)
    betas = jnp.logspace(middle - DECADES, middle + DECADES, POINTS)
    betas = jnp.concatenate([jnp.zeros(1), betas, jnp.full(1, jnp.inf)])
    return Sweep(betas, *jax.jit(lambda betas: lax.map(at, betas))(betas))


def draw(answers: Answers, swept: Sweep) -> Figure:
    """Value and return between their limits, and the policy of each decision where the process most often starts."""
    from matplotlib.figure import Figure

    decisions = list(answers.program.scopes)
    figure = Figure(figsize=(4.6 * (1 + len(decisions)), 4.2), layout="constrained")
    left, *others = figure.subplots(1, 1 + len(decisions))
    assert answers.case.beta is not None
    draw_values(left, swept)
    for axes, name in zip(others, decisions, strict=True):
        draw_decision(axes, answers, swept, name)
    for axes in (left, *others):
        axes.axvline(answers.case.beta, color="0.75", linewidth=1, zorder=0)
        axes.set(xscale="log", xlabel="inverse temperature beta (nats per unit of reward)")
        axes.set_xlim(float(swept.betas[1]), float(swept.betas[-2]))
        axes.legend(frameon=False, fontsize=9, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    figure.suptitle(f"{heading(answers)} (the grey line)", fontsize=11)
    return figure


def draw_values(axes: Axes, swept: Sweep) -> None:
    """Value and return, and the two limits that they lie between."""
    prior, best = float(swept.value[0]), float(swept.value[-1])
    axes.plot(swept.betas[1:-1], swept.earned[1:-1], color=COLOURS[1], label="return")
    axes.plot(swept.betas[1:-1], swept.value[1:-1], color=COLOURS[0], label="value = return - KL / beta")
    axes.axhline(best, color="0.4", linestyle="--", linewidth=1.2, label="hard optimum (beta = ∞)")
    axes.axhline(prior, color="0.4", linestyle=":", linewidth=1.2, label="prior (beta = 0)")
    axes.set(ylabel="discounted sum, in units of reward", title="value and return")


def draw_decision(axes: Axes, answers: Answers, swept: Sweep, name: str) -> None:
    """The probability of each alternative where the decision most often starts."""
    table = np.moveaxis(np.asarray(swept.policy[name]), 0, -1)[starting_row(answers, name)]
    for place, label in enumerate(alternatives(answers, name)):
        colour, dashes = COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)]
        axes.plot(swept.betas[1:-1], table[place, 1:-1], color=colour, linestyle=dashes, label=label)
    axes.set(ylim=(-0.03, 1.03), ylabel="probability", title=f"decision {name} at the start")
