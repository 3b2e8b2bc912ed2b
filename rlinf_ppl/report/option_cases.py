"""The named cases with options: habits that are kept until they are terminated."""

import numpy as np

from rlinf_ppl.models import delayed_options, soft_options
from rlinf_ppl.report.case import DOWN, LEFT, RIGHT, UP, Case, drawing
from rlinf_ppl.tasks import gallery

STRIDES = 0.7 * np.eye(4) + 0.1 * (1 - np.eye(4))
"""Option k mostly moves in direction k: (option, action)."""

TENDENCIES = 0.9 * np.eye(2) + 0.1 * (1 - np.eye(2))
"""Option k mostly takes action k: (option, action)."""

RARELY = np.array([0.9, 0.1])
"""An option is kept nine times out of ten: (keep, terminate)."""

ROOMS = drawing(gallery.FOUR_ROOMS_MAP, (UP, RIGHT, DOWN, LEFT), "S start, G goal; each option before equally likely")
CELLS = 1 + sum(state >= 0 for row in ROOMS.states for state in row)

KEEPING = (
    "An option is a habit of walking on, kept nine times out of ten unless optimality says otherwise: every turn costs "
    "nats. Given optimality, the agent believes that it does not slip; that is what the gap consists of."
)
MESSAGES = (
    "Who moves first does not see what the other will do, but knows what the other meant to do one step ago, and that "
    "options are kept nine times out of ten. Every step is certain: the gap is the choice of good first options."
)
KEEP = ("keep", "terminate")
ACTIONS = ("first", "second")
HABITS = ("mostly first", "mostly second")

OPTIONS: tuple[Case, ...] = (
    Case(
        name="four-rooms-options",
        title="Four rooms, and four options: to walk on up, right, down or left",
        model=soft_options,
        task=gallery.four_rooms,
        horizon=30,
        beta=1.0,
        options={
            "num_options": 4,
            "action_prior": np.tile(STRIDES, (CELLS, 1, 1)),
            "termination_prior": np.tile(RARELY, (CELLS, 4, 1)),
        },
        note=KEEPING,
        grid=ROOMS,
        names={
            "b": KEEP,
            "z": ("walk up", "walk right", "walk down", "walk left"),
        },
    ),
    Case(
        name="coordination-messages",
        title="Two players have to do the same, and learn each other's option one step late",
        model=delayed_options,
        task=gallery.coordination_game,
        horizon=6,
        beta=2.0,
        options={
            "num_options": 2,
            "action_prior": np.broadcast_to(TENDENCIES, (1, 2, 2, 2)),
            "termination_prior": np.broadcast_to(RARELY, (1, 2, 2, 2)),
            "opponent_action_prior": np.broadcast_to(TENDENCIES, (1, 2, 2, 2, 2)),
            "opponent_termination_prior": np.broadcast_to(RARELY, (1, 2, 2, 2, 2)),
        },
        note=MESSAGES,
        names={"b_i": KEEP, "z_i": HABITS, "a_i": ACTIONS, "b_opp": KEEP, "z_opp": HABITS, "a_opp": ACTIONS},
    ),
)
