"""What is to be controlled: tasks as data, checked when they are made, and the ways to come by one.

A task holds arrays and nothing else; the models turn it into a program, and the engines turn the program into
answers. `MDP` is a task with finitely many states and actions, `POMDP` one whose state is hidden, `StochasticGame` one
of two players, `PartiallyObservedGame` one of two who see different things (`Coordination` is what a coordinator makes
of it), `LinearQuadratic` one of vectors with linear dynamics and quadratic rewards, `Dynamics` one with any step and
cost, functions of JAX (`Expansion` is what that is about a trajectory), `MountainHike` a walk over ridges;
`HiddenLinearQuadratic` and `HiddenMountainHike` are the two with a state that is seen with noise. `gallery` has small
ones that are ready to use, and `conventions` translates the arrays of other libraries; `normal_form` reads matrix
games.
"""

from rlinf_ppl.tasks import conventions, gallery, normal_form
from rlinf_ppl.tasks.coordination import Coordination
from rlinf_ppl.tasks.dynamics import Dynamics
from rlinf_ppl.tasks.expansion import Expansion
from rlinf_ppl.tasks.hidden_linear_quadratic import HiddenLinearQuadratic
from rlinf_ppl.tasks.hidden_mountain_hike import HiddenMountainHike
from rlinf_ppl.tasks.linear_quadratic import LinearQuadratic
from rlinf_ppl.tasks.mdp import MDP
from rlinf_ppl.tasks.mountain_hike import MountainHike
from rlinf_ppl.tasks.partially_observed_game import PartiallyObservedGame
from rlinf_ppl.tasks.pomdp import POMDP
from rlinf_ppl.tasks.stochastic_game import StochasticGame

__all__ = [
    "MDP",
    "POMDP",
    "Coordination",
    "Dynamics",
    "Expansion",
    "HiddenLinearQuadratic",
    "HiddenMountainHike",
    "LinearQuadratic",
    "MountainHike",
    "PartiallyObservedGame",
    "StochasticGame",
    "conventions",
    "gallery",
    "normal_form",
]
