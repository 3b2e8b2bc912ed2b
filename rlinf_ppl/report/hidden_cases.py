"""The named cases under hidden state: one agent that does not see the state, and two who see different things of it."""

from __future__ import annotations

from rlinf_ppl.models import decentralized, finite_memory
from rlinf_ppl.report.case import Case
from rlinf_ppl.tasks import POMDP, gallery

WHAT_MEMORY_IS_WORTH = (
    "The agent does not see the state. Who remembers all that it did and saw acts on its belief, and no policy exceeds "
    "the upper bound; memories that can only be in one of two states reach less, and none at all still less. A memory "
    "pays a tenth of what an action pays for the same divergence from its prior."
)
WHAT_IS_SIGNALLED = (
    "Each holds a card that it alone sees, and the first action is seen by both. Policies that say nothing of the card "
    "win 8, the best signals 10. The upper bound is the hard value of the coordinator, who knows what both know; the "
    "ELBO pays for leaving uniform priors, and stays below by that."
)


def patient_tiger() -> POMDP:
    """The tiger with an end instead of a discount."""
    return gallery.tiger(discount=1.0)


HIDDEN: tuple[Case, ...] = (
    Case(
        name="tiger",
        title="Two doors, a tiger behind one of them: listen, or open one",
        model=finite_memory,
        task=patient_tiger,
        horizon=6,
        beta=1.0,
        options={"num_memories": 2, "memory_beta": 10.0},
        note=WHAT_MEMORY_IS_WORTH,
        discounting=None,
        kind="hidden",
    ),
    Case(
        name="maze-4x3",
        title="A maze of four columns and three rows, in which an agent feels the walls beside it",
        model=finite_memory,
        task=gallery.maze_4x3,
        horizon=8,
        beta=20.0,
        discount=0.95,
        options={"num_memories": 2, "memory_beta": 200.0},
        note=WHAT_MEMORY_IS_WORTH,
        discounting=None,
        kind="hidden",
    ),
    Case(
        name="two-step",
        title="Two hold a card each, and the first action can tell the other what to play",
        model=decentralized,
        task=gallery.two_step_game,
        horizon=2,
        beta=10.0,
        note=WHAT_IS_SIGNALLED,
        discounting=None,
        kind="signals",
    ),
)
