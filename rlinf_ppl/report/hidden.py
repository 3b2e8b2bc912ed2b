"""The recovery of a case of one agent under hidden state, who has no closed form.

    lower, upper    of what the best policy that remembers all is worth            beliefs.solve
    memoryless      the ELBO of the best policy that sees the last observation     svi.fit, exact
    two memories    the same with memories that are in one of two states           svi.fit, exact
    return          of episodes under the policy of the belief                     execution.roll_out, models.belief

All are in units of reward. The second fit starts from the policy of the first, moved by noise: small random values all
end where memories are idle, as no single decision makes one worth writing that nothing reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rlinf_ppl.inference import beliefs, execution, svi
from rlinf_ppl.models import belief, finite_memory
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.report import graphs, hidden_plots
from rlinf_ppl.report.case import Case
from rlinf_ppl.report.engines import ignore
from rlinf_ppl.report.looks import COLOURS, save_figures
from rlinf_ppl.tasks import POMDP

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = 200
NUM_RESTARTS = 20
SPREAD = 3.0
NUM_BELIEFS = 128
NUM_EPISODES = 10_000
SETTINGS = (
    f"Hidden state: bounds by at most {NUM_BELIEFS} beliefs; the best of {NUM_RESTARTS} starts each, small random "
    f"ones, then with two memories from there, moved by {SPREAD:g}; return of the belief's policy over "
    f"{NUM_EPISODES:,} episodes. Fits are local optima, and none exceeds the upper bound."
)


class HiddenRow(NamedTuple):
    """One line of the table of hidden state, in units of reward.

    Attributes:
        task: The case's name.
        states: The number of states.
        horizon: The number of time steps.
        discount: The probability of being alive at the next step.
        beta: The inverse temperature, in nats per unit of reward.
        lower: What the belief's policy is worth at least.
        upper: What no policy exceeds.
        memoryless: The ELBO of the best memoryless policy that was found.
        two_memories: The ELBO of the best policy with two memories that was found.
        earned: The mean return of episodes under the belief's policy.
        standard_error: Of that.
        seconds: Wall time, compilation included.
        converged: Whether both fits arrived.
    """

    task: str
    states: int
    horizon: int
    discount: float
    beta: float
    lower: float
    upper: float
    memoryless: float
    two_memories: float
    earned: float
    standard_error: float
    seconds: float
    converged: bool


class Episode(NamedTuple):
    """What happened in one episode, and what was believed.

    Attributes:
        states: Where the process was, the last state included.
        actions: What was done.
        observations: What was seen after each action.
        beliefs: The belief at each time, the first one included.
    """

    states: Int[np.ndarray, " T+1"]
    actions: Int[np.ndarray, " T"]
    observations: Int[np.ndarray, " T"]
    beliefs: Float[np.ndarray, "T+1 S"]


class Hidden(NamedTuple):
    """A case with its bounds, its fits, an episode of the belief's policy, and its line of the table."""

    case: Case
    task: POMDP
    program: ControlProgram
    bounds: beliefs.Solution
    memoryless: svi.Fit
    remembering: svi.Fit
    episode: Episode
    row: HiddenRow


def recover(case: Case, key: Array, progress: Callable[[str], None] = ignore) -> Hidden:
    """Builds a case, brackets it, fits policies of little memory, and plays the belief's policy.

    Args:
        case: What to recover; its model is `finite_memory`.
        key: The random key of the fits and of the episodes.
        progress: Called with the name of each phase as it begins.
    """
    begun = time.perf_counter()
    fit_key, memory_key, roll_key, play_key = jax.random.split(key, 4)
    progress("building")
    task = case.task()
    program = case.program(task)
    assert case.horizon is not None and case.beta is not None
    progress("solving")
    bounds = beliefs.solve(task, case.horizon, case.beta, num_beliefs=NUM_BELIEFS)
    progress("fitting")
    forgetful = finite_memory(task, case.horizon, 1, case.beta)
    memoryless = svi.fit(forgetful, fit_key, STEPS, num_restarts=NUM_RESTARTS)
    start = with_idle_memories(program, memoryless.guide["a"])
    remembering = svi.fit(program, memory_key, STEPS, guide=start, spread=SPREAD, num_restarts=NUM_RESTARTS)
    progress("fitting by samples")
    played = execution.roll_out(belief(task, case.horizon, case.beta), roll_key, bounds.policy, NUM_EPISODES)
    row = HiddenRow(
        case.name,
        task.num_states,
        case.horizon,
        float(task.discount),
        case.beta,
        float(bounds.lower),
        float(bounds.upper),
        float(memoryless.elbo),
        float(remembering.elbo),
        float(played.mean),
        float(played.standard_error),
        time.perf_counter() - begun,
        bool(memoryless.converged) and bool(remembering.converged),
    )
    episode = play(task, bounds.policy, play_key, case.horizon)
    return Hidden(case, task, program, bounds, memoryless, remembering, episode, row)


def with_idle_memories(program: ControlProgram, values: Float[Array, "T O A"]) -> dict[str, Array]:
    """The guide of a program with memories that does what a memoryless one does, and remembers at random."""
    assert program.horizon is not None
    shapes = {
        name: (program.horizon, *(program.sizes[variable] for variable in (*scope, name)))
        for name, scope in program.scopes.items()
    }
    return {"m": jnp.zeros(shapes["m"]), "a": jnp.broadcast_to(values[:, :, None], shapes["a"])}


def play(task: POMDP, policy: Mapping[str, beliefs.Lookahead], key: Array, horizon: int) -> Episode:
    """Plays one episode of a policy of the belief.

    Args:
        task: The process.
        policy: {"a": function of the belief and the time that returns a law of actions}.
        key: The random key of the episode.
        horizon: The number of steps, T.
    """
    chance = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    dense = task.dense()
    transition, observation = np.asarray(dense.transition), np.asarray(dense.observation)
    law = jax.jit(lambda believed, t: policy["a"](believed, t).probs)

    def drawn(probabilities: np.ndarray) -> int:
        return int(chance.choice(len(probabilities), p=probabilities / probabilities.sum()))

    actions: list[int] = []
    seen: list[int] = []
    believed = [np.asarray(task.initial)]
    states = [drawn(believed[0])]
    for t in range(horizon):
        a = drawn(np.asarray(law(believed[-1], t)))
        states.append(drawn(transition[states[-1], a]))
        o = drawn(observation[states[-1], a])
        likely = believed[-1] @ transition[:, a] * observation[:, a, o]
        actions, seen, believed = [*actions, a], [*seen, o], [*believed, likely / likely.sum()]
    return Episode(np.array(states), np.array(actions), np.array(seen), np.array(believed))


def draw_fits(hidden: Hidden) -> Figure:
    """The ELBO that each start of both fits reached, in order, below the bounds of the belief's value."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.add_subplot()
    axes.axhspan(hidden.row.lower, hidden.row.upper, color=COLOURS[3], alpha=0.6, linewidth=0)
    axes.axhline(hidden.row.upper, color=COLOURS[2], label="memory of everything: bounds", linewidth=1.2)
    axes.axhline(hidden.row.lower, color=COLOURS[2], linestyle=":")
    fits = {"two memories": hidden.remembering, "no memory": hidden.memoryless}
    for (name, fit), colour in zip(fits.items(), COLOURS, strict=False):
        reached = np.sort(np.asarray(fit.restarts))[::-1]
        axes.plot(np.arange(1, len(reached) + 1), reached, "o", markersize=3.5, color=colour, label=name)
    axes.set(xlabel="start of the fit, the best first", ylabel="ELBO (units of reward)", title=hidden.case.name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def draw_episode(hidden: Hidden) -> Figure:
    """The belief in one episode of its policy."""
    task, happened = hidden.task, hidden.episode
    return hidden_plots.plot_belief(
        happened.beliefs,
        happened.actions,
        happened.observations,
        states=happened.states,
        state_names=task.state_names,
        action_names=task.action_names,
        observation_names=task.observation_names,
        title=f"{hidden.case.name}: one episode of the policy of the belief",
    )


def write(hidden: Hidden, folder: Path) -> list[Path]:
    """Draws what belongs to the case into `folder/<case>/`: `fit.png`, `belief.png` and `graph.png`."""
    figures = {
        "fit.png": draw_fits(hidden),
        "belief.png": draw_episode(hidden),
        "graph.png": graphs.draw(hidden.program.graph(), graphs.heading(hidden.case.name, hidden.program.scopes)),
    }
    return save_figures(folder / hidden.case.name, figures)
