"""The cases of two players: games from the gallery under the models that a player may have of another."""

from __future__ import annotations

from types import MappingProxyType

from rlinf_ppl.models import balancing_q, balancing_q_opponent_leads, level_k, pr2, quantal_response, rommeo
from rlinf_ppl.report.case import Case
from rlinf_ppl.tasks import gallery

GOOD_START = "There is one state and no chance: the two answers are one, and the gap is zero."
SADDLE = (
    "The opponent minimises what the agent maximises: the value, in units of reward, is that of a saddle point and "
    "bounds the fit's on neither side. The two have no joint model, and nothing to condition."
)

AT_ONCE = SADDLE + " Each policy is the soft best reply to the other: a logit equilibrium."

GAMES: tuple[Case, ...] = (
    Case(
        name="friend",
        title="Three actions each, with a friend: meet where it pays most",
        model=rommeo,
        task=gallery.friend_or_foe,
        horizon=1,
        beta=1.0,
        note=GOOD_START,
    ),
    Case(
        name="foe",
        title="The same payoffs against a foe who sees the agent's action: stay where it is safe",
        model=balancing_q,
        task=gallery.friend_or_foe,
        horizon=1,
        beta=2.0,
        options=MappingProxyType({"opponent_beta": -2.0}),
        note=SADDLE,
    ),
    Case(
        name="foe-at-once",
        title="The same payoffs against a foe who moves at the same time",
        model=quantal_response,
        task=gallery.friend_or_foe,
        horizon=1,
        beta=2.0,
        options=MappingProxyType({"opponent_beta": -2.0}),
        note=AT_ONCE,
    ),
    Case(
        name="pennies",
        title="Matching pennies, where the foe has to show its coin first",
        model=balancing_q_opponent_leads,
        task=gallery.matching_pennies,
        horizon=1,
        beta=1.0,
        options=MappingProxyType({"opponent_beta": -1.0}),
        note=SADDLE,
    ),
    Case(
        name="climbing",
        title="The climbing game: the best pair of actions stands beside the worst",
        model=pr2,
        task=gallery.climbing_game,
        horizon=1,
        beta=0.5,
        note=GOOD_START,
    ),
    Case(
        name="penalty-level-3",
        title="The penalty game, reasoned through to level 3: I think that they think that I act at random",
        model=level_k,
        task=lambda: gallery.penalty_game(-10.0),
        horizon=1,
        beta=0.3,
        options=MappingProxyType({"level": 3, "opponent_beta": 0.3}),
        note="Thoughts are chance: given optimality, they are believed to be the right ones. That is the gap.",
    ),
    Case(
        name="coordination-grid",
        title="Two players go through one door to two goals, and have to arrive together",
        model=rommeo,
        task=gallery.coordination_grid,
        horizon=10,
        beta=40.0,
        note="Who goes first is left open, and agreed upon. Given optimality no move slips: that is the gap.",
    ),
    Case(
        name="pursuit",
        title="A pursuer and an evader who sees where the pursuer turns, round a block",
        model=balancing_q,
        task=gallery.pursuit,
        horizon=10,
        beta=3.0,
        options=MappingProxyType({"opponent_beta": -3.0}),
        note=SADDLE,
    ),
    Case(
        name="pursuit-at-once",
        title="The same pursuit where neither sees where the other turns",
        model=quantal_response,
        task=gallery.pursuit,
        horizon=10,
        beta=3.0,
        options=MappingProxyType({"opponent_beta": -3.0}),
        note=AT_ONCE,
    ),
)
