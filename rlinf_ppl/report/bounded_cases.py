"""Policies that may move only so far from their prior, as named cases.

    maximise  E sum_t r_t      where      sum_t E KL(pi_t || prior) <= bound

The best policy is that of soft-optimal control at the one inverse temperature beta at which the bound is spent, which
is found by the bound's dual (Levine & Abbeel 2014). With it, it is a program like any other.
On a nonlinear system the bounded problem is solved about one trajectory after the other, with the last policy as prior
of the next: guided policy search. What it searches is the program of the system as it is.
"""

from __future__ import annotations

import numpy as np

from rlinf_ppl.inference import trust_region
from rlinf_ppl.models import linear_gaussian, nonlinear_gaussian, single_agent
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.report.case import DOWN, LEFT, RIGHT, UP, Case, drawing
from rlinf_ppl.tasks import MDP, Dynamics, LinearQuadratic, gallery

VARIANCE = 10.0
"""Of the first policy of a search."""

WHAT_IS_SPENT = (
    "The inverse temperature is found: the one at which all steps together spend the bound. The soft value is that "
    "temperature times the expected reward, less the bound."
)
WHAT_IS_SEARCHED = (
    "The system is known by roll-outs alone: each iteration fits a linear-Gaussian model to those of the last policy, "
    "and moves the policy as far as its bound lets it. GPS bounds the KL of the policy over a whole trajectory, SAPS "
    "that of state and action at each step, ESAPS also how much entropy a step may lose (Abdulsamad 2016). Iterative "
    "LQR knows the system, and its cost is without noise."
)


def single_agent_within(task: MDP, horizon: int, discount: float, kl_bound: float) -> ControlProgram:
    """Control of a Markov decision process by a policy that may leave its prior by so many nats."""
    return trust_region.total_policy_bound(single_agent(task, horizon, discount=discount), kl_bound).program


def linear_gaussian_within(task: LinearQuadratic, horizon: int, discount: float, kl_bound: float) -> ControlProgram:
    """Linear-Gaussian control by a policy that may leave its prior by so many nats."""
    return trust_region.total_policy_bound(linear_gaussian(task, horizon, discount=discount), kl_bound).program


def searched(task: Dynamics, horizon: int) -> ControlProgram:
    """A nonlinear system as it is, whose actions are vague at first; its horizon is the task's."""
    del horizon
    return nonlinear_gaussian(task, first_policy(task))


def first_policy(task: Dynamics) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Actions around 0, whatever the state is."""
    n, m = task.num_states, task.num_actions
    return np.zeros((m, n)), np.zeros(m), VARIANCE * np.eye(m)


BOUNDED: tuple[Case, ...] = (
    Case(
        name="bounded-grid",
        title="The three ways to a goal, by a policy that may move 5 nats from chance",
        model=single_agent_within,
        task=gallery.slippery_grid,
        horizon=20,
        beta=None,
        options={"kl_bound": 5.0},
        note=WHAT_IS_SPENT,
        grid=drawing(gallery.SLIPPERY_MAP, (UP, RIGHT, DOWN, LEFT), "S start, G goal, X pit"),
    ),
    Case(
        name="bounded-point-mass",
        title="The point mass, by forces that may move 10 nats from N(0, 1)",
        model=linear_gaussian_within,
        task=gallery.point_mass,
        horizon=30,
        beta=None,
        options={"kl_bound": 10.0},
        note=WHAT_IS_SPENT,
        names={
            "x": ("east (m)", "north (m)", "speed east (m/s)", "speed north (m/s)"),
            "u": ("force east (N)", "force north (N)"),
        },
    ),
    Case(
        name="pendulum",
        title="A pendulum to be swung up, by guided policy search and its relatives",
        model=searched,
        task=gallery.pendulum,
        horizon=100,
        beta=None,
        note=WHAT_IS_SEARCHED,
        discounting=None,
        kind="search",
    ),
)
