"""The named cases whose guide is no table: memories that are noisy and cost precision."""

import numpy as np

from rlinf_ppl.models import resource_allocation_once
from rlinf_ppl.report.case import Case
from rlinf_ppl.tasks import gallery

LAYERS, PLACES = 3, 6
BASE_STD = np.where(np.arange(LAYERS * PLACES + 1)[:, None] < (LAYERS - 1) * PLACES, 100.0, 1.0)
"""Of the memories of each state: those of the last move are known, at a noise of 1 that costs nothing."""

WHAT_IS_PAID = (
    "The agent chooses by noisy memories of the values of its own policy, and pays once for how precise they are. "
    "There is no closed form: the guide's noise is fitted, by an ELBO in which it is integrated exactly. Where choices "
    "matter more, and are met more often, memories are more precise."
)

MEMORIES: tuple[Case, ...] = (
    Case(
        name="planning-memory",
        title="Three moves among six places, chosen by memories that are noisy and cost precision",
        model=resource_allocation_once,
        task=gallery.planning_task,
        horizon=LAYERS,
        beta=10.0,
        options={"base_std": BASE_STD, "std": 0.3 * BASE_STD + 0.7 * (BASE_STD == 1), "entropy_weight": 0.0},
        note=WHAT_IS_PAID,
        kind="fitted",
    ),
)
