"""Pictures of policy search: poses of a trajectory, cost by iteration, and what a policy's steps spend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from rlinf_ppl.report.looks import COLOURS, DASHES
from rlinf_ppl.types import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

APART = 0.35
"""How far the drawings of a strip are apart, in their own widths."""


def plot_poses(
    joints: ArrayLike, *, num_poses: int = 8, time_step: float | None = None, ax: Axes | None = None
) -> Axes:
    """A strip of poses: the same chain of links at equally spaced times, one beside the other.

    Args:
        joints: Where its joints are at each time, shape (T + 1, J, 2), to the right and up; such as
            `jax.vmap(task.step.joints)(found.states)` of a task of the gallery.
        num_poses: How many are drawn, the first and the last time among them.
        time_step: In s, for the labels; None: times are counted in steps.
        ax: Where to draw; None: a figure of its own, which belongs to no window.

    Returns:
        The axes, whose ticks are the times.

    Raises:
        ValueError: `joints` has another shape, holds numbers that are not finite, there are fewer than two poses, or
            the time step is not above 0.
    """
    points = np.asarray(joints, float)
    if points.ndim != 3 or points.shape[-1] != 2 or points.shape[1] < 2 or not np.all(np.isfinite(points)):
        raise ValueError(f"joints has shape {points.shape}; give finite numbers of shape (T + 1, joints, 2).")
    if not 2 <= num_poses <= len(points):
        raise ValueError(f"num_poses is {num_poses}: it must be from 2 to the {len(points)} times that there are.")
    if time_step is not None and not time_step > 0:
        raise ValueError(f"time_step is {time_step}: it must be above 0.")
    times = np.linspace(0, len(points) - 1, num_poses).round().astype(int)
    low, high = points.reshape(-1, 2).min(0), points.reshape(-1, 2).max(0)
    reach = max(*(high - low), np.finfo(float).tiny)
    shift = (1 + APART) * max(high[0] - low[0], reach / 2)
    axes = (
        own_axes((6.4, 6.4 * (1.15 * (high[1] - low[1]) + 0.35 * reach) / (shift * num_poses) + 0.5))
        if ax is None
        else ax
    )
    for place, t in enumerate(times):
        x, y = points[t].T
        axes.plot(x + place * shift, y, "-", color=COLOURS[0], linewidth=2.2, solid_capstyle="round")
        axes.plot(x[:1] + place * shift, y[:1], "s", color=COLOURS[2], markersize=4.5)
        axes.plot(x[1:] + place * shift, y[1:], "o", color=COLOURS[1], markersize=3.5)
    middle = (low[0] + high[0]) / 2
    shown = [f"{t}" if time_step is None else f"{t * time_step:.2g} s" for t in times]
    axes.set_xticks(middle + shift * np.arange(num_poses), shown)
    margin = 0.08 * reach
    ends = middle - shift / 2, middle + shift * (num_poses - 0.5)
    axes.set(aspect="equal", xlim=ends, ylim=(low[1] - margin, high[1] + margin), ylabel="height (m)")
    axes.set_xlabel("time (steps)" if time_step is None else "time")
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def plot_costs(costs: Mapping[str, ArrayLike], *, ax: Axes | None = None) -> Axes:
    """Cost against iterations on a scale of logarithms, a curve for each algorithm in a band from lowest to highest.

    Args:
        costs: By name, the cost before the first iteration and after each, shape (I + 1,), or (seeds, I + 1): then the
            curve is the mean over seeds.
        ax: Where to draw; None: a figure of its own, which belongs to no window.

    Returns:
        The axes.

    Raises:
        TypeError: `costs` is no dict of arrays.
        ValueError: There is none, a cost has another shape, or one is not above 0.
    """
    if not isinstance(costs, Mapping) or any(hasattr(given, "cost") for given in costs.values()):
        raise TypeError('costs must be a dict with an array for each name, such as {"gps": found.cost}.')
    if not costs:
        raise ValueError("costs is empty: give at least one.")
    axes = own_axes((6.4, 3.8)) if ax is None else ax
    for place, (name, given) in enumerate(costs.items()):
        rows = np.atleast_2d(np.asarray(given, float))
        if rows.ndim != 2 or not rows.size:
            raise ValueError(f"costs[{name!r}] has shape {np.shape(given)}; give (I + 1,) or (seeds, I + 1).")
        if not np.all(rows > 0):
            raise ValueError(
                f"costs[{name!r}] holds {rows[~(rows > 0)][0]:g}: a scale of logarithms has numbers above 0."
            )
        look: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)]}
        steps = np.arange(rows.shape[1])
        if len(rows) > 1:
            axes.fill_between(steps, rows.min(0), rows.max(0), alpha=0.2, linewidth=0, **look)
        axes.plot(steps, rows.mean(0), linestyle=DASHES[place % len(DASHES)], label=name, **look)
    axes.set(yscale="log", xlabel="iterations", ylabel="cost (units of reward)")
    axes.set_xlim(left=0)
    axes.legend(frameon=False, fontsize=9)
    return axes


def plot_spending(kl: ArrayLike, inverse_temperature: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """What a bounded policy spends at each step, and below its temperature there.

    Args:
        kl: KL from the prior, or the last policy, at each step, (T,), in nats.
        inverse_temperature: Of each step, (T,), or one number for all; infinite where a bound is slack.
        ax: Where the KL is drawn, with temperatures on a second axis; None: a figure of its own.

    Returns:
        The axes of the KL.

    Raises:
        ValueError: Shapes do not go together.
    """
    spent, tau = np.asarray(kl, float), np.asarray(inverse_temperature, float)
    if spent.ndim != 1 or tau.shape not in ((), spent.shape):
        raise ValueError(f"kl has shape {spent.shape}, inverse_temperature {tau.shape}; give (T,) of both.")
    axes = own_axes((6.4, 3.4)) if ax is None else ax
    steps = np.arange(len(spent))
    (first,) = axes.plot(steps, spent, color=COLOURS[0], label="KL")
    axes.set(xlabel="time (steps)", ylabel="KL (nats)", xlim=(0, max(len(spent) - 1, 1)))
    axes.set_ylim(bottom=0)
    beside = axes.twinx()
    temperature = as_temperatures(tau, len(spent))
    (second,) = beside.plot(steps, temperature, color=COLOURS[5], linestyle="--", label="temperature")
    beside.set_ylabel("temperature (units of reward)")
    axes.legend(handles=[first, second], frameon=False, fontsize=9)
    return axes


def as_temperatures(inverse: Float[np.ndarray, "..."], length: int) -> Float[np.ndarray, " T"]:
    """Temperatures over time; an inverse temperature of 0 has none."""
    found = np.divide(1.0, inverse, out=np.full(inverse.shape, np.nan), where=inverse > 0)
    return np.broadcast_to(found, length)


def own_axes(size: tuple[float, float]) -> Axes:
    """Axes of a figure that belongs to no window."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained").add_subplot()
