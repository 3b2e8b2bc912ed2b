"""A picture of what behaviour can tell about parameters."""

from typing import TYPE_CHECKING

import numpy as np

from rlinf_ppl.behaviour.identifiability import Identifiability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SEEN, UNSEEN = "#006ba4", "#c85200"
# Numbers in the cells of a table of at most so many columns.
LEGIBLE = 10


def plot_identifiability(identifiability: Identifiability) -> "Figure":
    """Each direction of parameters in a row: how visible it is to data, and what it is made of.

    To the left its eigenvalue on a log scale, and a cross where data cannot see it; to the right how each parameter
    loads on it, parameters in units in which each of them alone has information 1.

    Args:
        identifiability: of `fisher_information`.

    Returns:
        A matplotlib figure, which belongs to no window.
    """
    from matplotlib.figure import Figure

    count = len(identifiability.names)
    size = 4.6 + max(0.62 * count, 2.4), 1.5 + max(0.42 * count, 1.2)
    figure = Figure(figsize=size, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3.0, max(0.62 * count, 2.4)])
    draw_eigenvalues(left, identifiability)
    draw_loadings(figure, right, identifiability)
    return figure


def draw_eigenvalues(axes: "Axes", identifiability: Identifiability) -> None:
    """The eigenvalues as bars; what data do not see has none."""
    spectrum = identifiability.spectrum
    values, seen, rows = spectrum.values, spectrum.seen, np.arange(len(spectrum.values))
    smallest, largest = (values[seen].min(), values[seen].max()) if seen.any() else (1.0, 1.0)
    low, high = 10.0 ** np.floor(np.log10(smallest) - 0.5), 10.0 ** np.ceil(np.log10(largest) + 0.1)
    axes.barh(rows[seen], values[seen], color=SEEN, height=0.6)
    axes.set(xscale="log", xlim=(low, high), xlabel="eigenvalue of the information", ylabel="direction", yticks=rows)
    for row in rows[~seen]:
        axes.plot([low], [row], color=UNSEEN, marker="X", markersize=8, clip_on=False, zorder=3)
        axes.annotate("unseen by data", (low, row), (10, 0), textcoords="offset points", va="center", color=UNSEEN)
    axes.tick_params(axis="y", pad=8)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)


def draw_loadings(figure: "Figure", axes: "Axes", identifiability: Identifiability) -> None:
    """The loadings as colours, and as numbers where there is room."""
    vectors, count = identifiability.spectrum.vectors, len(identifiability.names)
    image = axes.imshow(vectors.T, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    columns = np.arange(count)
    axes.set_xticks(columns, identifiability.names)
    if max(map(len, identifiability.names)) > 5:
        axes.tick_params(axis="x", labelrotation=40)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.tick_params(left=False)
    if count <= LEGIBLE:
        for (row, column), x in np.ndenumerate(vectors.T):
            dark = "white" if abs(x) > 0.6 else "black"
            axes.text(column, row, f"{x:z.2f}", ha="center", va="center", fontsize=8, color=dark)
    axes.hlines(columns[:-1] + 0.5, -0.5, count - 0.5, color="white", linewidth=1.5)
    axes.vlines(columns[:-1] + 0.5, -0.5, count - 0.5, color="white", linewidth=1.5)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label="loading", ticks=[-1, 0, 1], aspect=12 + count, pad=0.02)
