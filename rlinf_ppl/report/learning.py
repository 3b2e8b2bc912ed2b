"""Two players learn a matrix game from samples, each in its own program, over many seeds.

The games and settings are those of the third chapter of Sakulwongtana, Multi-agent learning with Bayesian inference,
and of the climbing game that ROMMEO-Q is tried on (Tian et al. 2019, A regularized opponent model). Every player has a
Q of its own, sees what both do, and acts on its policy given the state alone; see `q_learning.learn_apart`.

    friend-or-foe      2  3  3       Balancing-Q, Algorithm 1: beta = .1 and +-.1, multiplied by 1.01 a step, 500 steps,
                       1  4  0       learning rate .6. A friend is met at the 10, a foe at the 2, where row minima are
                       1  0  10      largest. PR2 takes a foe for a friend, plays the third row, and gets the 1

    climbing         11 -30  0       ROMMEO-Q, 100 steps, learning rate 1, exploration .1, at temperature 1 throughout
                    -30   7  6       and at 50 exp(-.1 t) + .1. The public code of the method reaches the 11 with 30 of
                      0   0  5       100 seeds at its defaults, the first of these, and 78 % at its best, the second

The public code fits the opponent's prior to its last 50 actions; here priors stay uniform. What the thesis says of PR2
against a foe, a reward of almost 0, is not what follows from its formulas.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rlinf_ppl import models
from rlinf_ppl.files import write_text
from rlinf_ppl.inference import execution, q_learning
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.report.looks import COLOURS, DASHES, save_figure
from rlinf_ppl.tasks import StochasticGame, gallery

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SEEDS = 100
BETA = 0.1
CERTAIN = 0.9


class Experiment(NamedTuple):
    """Two players of a one-shot game, how they learn, and the pair of actions they should arrive at.

    Attributes:
        title: what it is called.
        game: the game that they play.
        players: the program of the player of each decision, of one step.
        goal: the actions of agent and opponent, counted from 0.
        settings: what `q_learning.learn_apart` takes beside players, key and number of steps.
        num_steps: how many times they play.
        record_every: after how many steps their policies are noted.
        published: the share of seeds that the method's public code arrives with, where it was measured.
    """

    title: str
    game: StochasticGame
    players: Mapping[str, ControlProgram]
    goal: tuple[int, int]
    settings: Mapping[str, Any]
    num_steps: int
    record_every: int
    published: float | None = None


class Curves(NamedTuple):
    """What the players' policies, executed apart, do in the course of learning.

    Attributes:
        steps: how many steps had been played.
        reward: what the agent expects to get, in units of reward, for every seed.
        joint: the probability of each pair of actions.
    """

    steps: Int[Array, " records"]
    reward: Float[Array, "seeds records"]
    joint: Float[Array, "seeds records A B"]


def growing(step: Array) -> Array:
    """Inverse temperatures grow by 1 % a step, from 1."""
    return 1.01**step


def cooling(step: Array) -> Array:
    """The inverse of a temperature that falls from 50 to .1."""
    return 1 / (50 * jnp.exp(-0.1 * step) + 0.1)


def friend_or_foe() -> tuple[Experiment, ...]:
    """Balancing-Q with a friend and with a foe, and PR2 with a foe that plays Balancing-Q."""
    game = gallery.friend_or_foe()
    settings: dict[str, Any] = {"learning_rate": 0.6, "annealing": growing}

    def balancing(opponent_beta: float) -> dict[str, ControlProgram]:
        return {
            "a": models.balancing_q(game, 1, BETA, opponent_beta),
            "b": models.balancing_q_opponent_leads(game, 1, BETA, opponent_beta),
        }

    deceived = balancing(-BETA) | {"a": models.pr2(game, 1, BETA)}
    cases = (
        ("Balancing-Q with a friend", balancing(BETA), (2, 2)),
        ("Balancing-Q with a foe", balancing(-BETA), (0, 0)),
        ("PR2 with a foe", deceived, (2, 0)),
    )
    return tuple(Experiment(title, game, players, goal, settings, 500, 5) for title, players, goal in cases)


def climbing() -> tuple[Experiment, ...]:
    """ROMMEO-Q at the public code's default temperature and at the best one that was found for it.

    The opponent's own ROMMEO has the agent in the place of the opponent: that is PR2's order of the decisions.
    """
    game = gallery.climbing_game()
    players = {"a": models.rommeo(game, 1), "b": models.pr2(game, 1)}
    settings: dict[str, Any] = {"learning_rate": 1.0, "exploration": 0.1}
    cases = (("temperature 1", settings, 0.30), ("cooling from 50", settings | {"annealing": cooling}, 0.78))
    return tuple(Experiment(title, game, players, (0, 0), chosen, 100, 1, rate) for title, chosen, rate in cases)


def play(experiment: Experiment, key: Array, seeds: int = SEEDS) -> Curves:
    """Learn with many seeds at once.

    Args:
        experiment: what is learned.
        key: a JAX random key.
        seeds: how many.

    Returns:
        Curves that lead with the axis of seeds.
    """
    players, settings = experiment.players, dict(experiment.settings) | {"record_every": experiment.record_every}

    def once(key: Array) -> tuple[Array, Array]:
        learned = q_learning.learn_apart(players, key, experiment.num_steps, **settings)
        alone = {
            name: jax.vmap(lambda policy, name=name: execution.executed(players[name], policy)[name][0, 0])(
                learned[name].curve
            )
            for name in players
        }
        return learned["a"].steps, alone["a"][:, :, None] * alone["b"][:, None, :]

    steps, joint = jax.vmap(once)(jax.random.split(key, seeds))
    return Curves(steps[0], jnp.einsum("nrab,ab->nr", joint, experiment.game.reward[0]), joint)


def reached(experiment: Experiment, curves: Curves) -> Float[Array, " seeds"]:
    """The probability of the goal at the end, for every seed."""
    return curves.joint[(slice(None), -1, *experiment.goal)]


def draw(played: Sequence[tuple[Experiment, Curves]], heading: str) -> Figure:
    """What the agent expects to get, and the probability of the goal: the mean over seeds, in a band of nine tenths."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, (experiment, curve) in enumerate(played):
        goal = "({}, {})".format(*(action + 1 for action in experiment.goal))
        band(left, curve.steps, curve.reward, place, experiment.title)
        band(right, curve.steps, curve.joint[(..., *experiment.goal)], place, f"{goal}, {experiment.title}")
        if experiment.published is not None:
            right.axhline(experiment.published, color=COLOURS[place], linewidth=1, linestyle="-.", label="public code")
    left.set(xlabel="steps", ylabel="expected reward of the agent")
    right.set(xlabel="steps", ylabel="probability", ylim=(-0.03, 1.03))
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8)
    figure.suptitle(f"{heading}: mean over {len(played[0][1].reward)} seeds, band from 5 % to 95 %", fontsize=11)
    return figure


def band(axes: Axes, steps: Array, values: Array, place: int, label: str) -> None:
    """The mean of many curves, in a band that nine tenths of them are in."""
    low, high = np.quantile(values, (0.05, 0.95), axis=0)
    axes.fill_between(steps, low, high, color=COLOURS[place], alpha=0.18, linewidth=0)
    axes.plot(steps, np.mean(values, axis=0), color=COLOURS[place], linestyle=DASHES[place], label=label)


def play_all(key: Array) -> dict[str, list[tuple[Experiment, Curves]]]:
    """The curves of all experiments, by game."""
    games = {"friend_or_foe": friend_or_foe(), "climbing": climbing()}
    return {name: [(each, play(each, key)) for each in experiments] for name, experiments in games.items()}


def write(found: Mapping[str, Sequence[tuple[Experiment, Curves]]], folder: Path) -> list[Path]:
    """Write a figure of each game, and for each experiment how many seeds arrived.

    Args:
        found: the experiments of each game, with their curves.
        folder: where they go; made if it does not exist.

    Returns:
        The files written: one picture for each game, and learning.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, played in found.items():
        files.append(folder / f"{name}.png")
        save_figure(draw(played, name.replace("_", " ")), files[-1])
    rows = [row(name, *each) for name, played in found.items() for each in played]
    files.append(folder / "learning.json")
    write_text(files[-1], json.dumps(rows, indent=2) + "\n")
    return files


def row(name: str, experiment: Experiment, curves: Curves) -> dict[str, Any]:
    """What came of one experiment: the share of seeds nearly certain of the goal, and the reward at the end."""
    return {
        "game": name,
        "players": experiment.title,
        "goal": [action + 1 for action in experiment.goal],
        "seeds": len(curves.reward),
        "reached": float(np.mean(np.asarray(reached(experiment, curves)) > CERTAIN)),
        "reached by public code": experiment.published,
        "mean reward at the end": float(jnp.mean(curves.reward[:, -1])),
    }
