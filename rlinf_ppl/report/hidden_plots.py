"""Pictures of hidden state: a belief over time, and what a signal means. Each returns a matplotlib figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from rlinf_ppl.report.looks import COLOURS, DASHES
from rlinf_ppl.types import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

FEW = 3
"""Beliefs over more states than this are drawn as a table of colours."""
FAR = 1e-4
"""How far from 1 a distribution may add up: float32 is enough for a picture."""
COLOUR_MAP = "Blues"

Names = Sequence[str] | None


def plot_belief(
    beliefs: ArrayLike,
    actions: ArrayLike | None = None,
    observations: ArrayLike | None = None,
    *,
    states: ArrayLike | None = None,
    state_names: Names = None,
    action_names: Names = None,
    observation_names: Names = None,
    title: str = "",
) -> Figure:
    """A belief over time: curves for up to three states, else colours; below, what was seen before and done then.

    Args:
        beliefs: p(state) at each time, shape (T + 1, S), the first one before anything was seen.
        actions: Positions of the actions taken, (T,).
        observations: Positions of what was seen after each, (T,).
        states: Positions of the states that the process was in, (T + 1,), marked by rings.
        state_names: S names; default positions.
        action_names: A name for each action; default positions.
        observation_names: A name for each observation; default positions.
        title: What stands above.

    Returns:
        A matplotlib figure, which belongs to no window.

    Raises:
        ValueError: `beliefs` are no distributions over time, something else is not as long as they are, or a position
            has no name.
    """
    from matplotlib.figure import Figure

    table = as_distributions("beliefs", beliefs, "times, states")
    count, size = table.shape
    curves, names = size <= FEW, labels("state_names", state_names, size)
    seen = words("observations", observations, count - 1, observation_names)
    done = words("actions", actions, count - 1, action_names)
    width = 0.085 * max(map(len, (*seen, *done, "12345"))) + 0.15
    figure = Figure(figsize=(max(4.5, 2.4 + count * width), 3.2 if curves else 0.24 * size + 1.8), layout="constrained")
    axes = figure.add_subplot()
    (draw_curves if curves else draw_colours)(axes, table, names)
    if states is not None:
        where = positions("states", states, count, size)
        look: dict[str, Any] = {"markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.4, "color": COLOURS[5]}
        axes.plot(
            np.arange(count), table[np.arange(count), where] if curves else where, "o", label="true state", **look
        )
    rows = {"time": [str(time) for time in range(1, count + 1)]}
    rows |= {"seen": ["", *seen]} if seen else {}
    rows |= {"done": [*done, ""]} if done else {}
    axes.set(xlim=(-0.5, count - 0.5), title=title)
    axes.set_xticks(np.arange(count), ["\n".join(column) for column in zip(*rows.values(), strict=True)], fontsize=9)
    below: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "va": "top"}
    axes.annotate("\n".join(rows), (0, 0), xytext=(-6, -7), fontsize=9, color=COLOURS[2], **below)
    if curves or states is not None:
        figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def draw_curves(axes: Axes, table: Float[np.ndarray, "T S"], names: Sequence[str]) -> None:
    """A line for each state."""
    for column, name, colour, dash in zip(table.T, names, COLOURS, DASHES, strict=False):
        axes.plot(column, dash, marker=".", color=colour, label=name)
    axes.set(ylim=(-0.04, 1.04), ylabel="probability")


def draw_colours(axes: Axes, table: Float[np.ndarray, "T S"], names: Sequence[str]) -> None:
    """A row for each state, a column for each time."""
    image = axes.imshow(table.T, aspect="auto", cmap=COLOUR_MAP, vmin=0, vmax=1)
    axes.set_yticks(np.arange(len(names)), names, fontsize=9)
    axes.figure.colorbar(image, ax=axes, label="probability")


def plot_signals(
    sending: ArrayLike,
    receiving: ArrayLike,
    prior: ArrayLike | None = None,
    *,
    card_names: Names = None,
    signal_names: Names = None,
    other_card_names: Names = None,
    action_names: Names = None,
    title: str = "",
) -> Figure:
    """What a signal means: what is sent on each card, what all believe of the card then, and what is done on it.

    The middle panel is the rule of Bayes, p(card | signal) = p(card) p(signal | card) / p(signal); a signal that is
    never sent has no meaning, and its row is empty.

    Args:
        sending: p(signal | sender's card), shape (X, M).
        receiving: p(action | signal, receiver's card), shape (M, Y, B).
        prior: p(sender's card), shape (X,); default uniform.
        card_names: X names; default positions.
        signal_names: M names; default positions.
        other_card_names: Y names of the receiver's cards; default positions.
        action_names: B names; default positions.
        title: What stands above.

    Returns:
        A matplotlib figure, which belongs to no window.

    Raises:
        ValueError: Something is no distribution, or shapes or names do not go together.
    """
    from matplotlib.figure import Figure

    sent = as_distributions("sending", sending, "cards, signals")
    replies = as_distributions("receiving", receiving, "signals, cards, actions")
    cards = np.full(len(sent), 1 / len(sent)) if prior is None else as_distributions("prior", prior, "cards")
    if replies.shape[0] != sent.shape[1] or len(cards) != len(sent):
        raise ValueError(
            f"sending has shape {sent.shape}, cards by signals; receiving {replies.shape} must begin with its signals, "
            f"and prior {cards.shape} with its cards."
        )
    joint = cards[:, None] * sent
    total = joint.sum(0)
    meaning = np.divide(joint, total, out=np.full_like(joint, np.nan), where=total > FAR).T
    held, signals = labels("card_names", card_names, len(sent)), labels("signal_names", signal_names, len(total))
    others = labels("other_card_names", other_card_names, replies.shape[1])
    acts = labels("action_names", action_names, replies.shape[2])
    spoken = [f"{name} ({chance:.0%})" for name, chance in zip(signals, total, strict=True)]
    figure = Figure(figsize=(3.1 * (2 + len(others)) + 0.6, 3.2), layout="constrained")
    panels = figure.subplots(1, 2 + len(others))
    draw_table(panels[0], sent, held, signals, ("sender's card", "signal", "p(signal | card)"))
    draw_table(panels[1], meaning, spoken, held, ("signal", "sender's card", "p(card | signal)"))
    for axes, card, name in zip(panels[2:], np.moveaxis(replies, 1, 0), others, strict=True):
        image = draw_table(axes, card, signals, acts, ("signal", "action", f"reply of who holds {name}"))
    figure.colorbar(image, ax=list(panels), label="probability", pad=0.01)
    figure.suptitle(title, fontsize=11)
    return figure


def draw_table(
    axes: Axes,
    table: Float[np.ndarray, "R C"],
    rows: Sequence[str],
    columns: Sequence[str],
    words: tuple[str, str, str],
) -> AxesImage:
    """A table of probabilities as colours, each number written; what is NaN stays grey. Returns the image."""
    image = axes.imshow(table, cmap=COLOUR_MAP, vmin=0, vmax=1, aspect="auto")
    axes.set_facecolor("#e6e6e6")
    for (row, column), value in np.ndenumerate(table):
        if np.isfinite(value):
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.6 else "black")
    axes.set(ylabel=words[0], xlabel=words[1])
    axes.set_title(words[2], fontsize=10)
    axes.set_yticks(np.arange(len(rows)), rows)
    axes.set_xticks(np.arange(len(columns)), columns)
    return image


def as_distributions(name: str, given: ArrayLike, axes: str) -> Float[np.ndarray, "..."]:
    """An array of distributions over its last axis.

    Raises:
        ValueError: It has other axes, or its rows are no distributions.
    """
    table = np.asarray(given, float)
    if table.ndim != axes.count(",") + 1 or 0 in table.shape:
        raise ValueError(f"{name} has shape {table.shape}; give one of the axes ({axes}).")
    if not (np.all(table >= 0) and np.all(np.abs(table.sum(-1) - 1) < FAR)):
        raise ValueError(f"{name} holds rows that are no distributions: each is at least 0 and adds up to 1.")
    return table


def labels(name: str, given: Names, count: int) -> list[str]:
    """Names, or positions in their place.

    Raises:
        ValueError: There are too many or too few.
    """
    if given is not None and len(given) != count:
        raise ValueError(f"{name} holds {len(given)} names; give {count}.")
    return [str(position) for position in range(count)] if given is None else list(given)


def positions(name: str, given: ArrayLike, length: int, count: int | None) -> Int[np.ndarray, " T"]:
    """Positions over time, below a number if one is known.

    Raises:
        ValueError: They are no whole numbers in range, or too many or too few.
    """
    array = np.asarray(given)
    if array.shape != (length,) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} has shape {array.shape} and {array.dtype}; give {length} whole numbers.")
    if np.any(array < 0) or (count is not None and np.any(array >= count)):
        raise ValueError(f"{name} holds {array.min()} to {array.max()}; give positions from 0, with a name for each.")
    return array


def words(name: str, given: ArrayLike | None, length: int, names: Names) -> list[str]:
    """What happened over time, by name; nothing where nothing is known."""
    if given is None:
        return []
    where = positions(name, given, length, None if names is None else len(names))
    return [str(position) if names is None else names[position] for position in where]
