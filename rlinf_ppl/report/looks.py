"""What the pictures have in common: colours that the colour-blind can tell apart, dashes, and how fine they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rlinf_ppl.files import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#006ba4", "#ff800e", "#595959", "#ababab", "#5f9ed1", "#c85200")
DASHES = ("-", "--", ":", "-.")
DOTS_PER_INCH = 130


def save_figures(place: Path, figures: Mapping[str, Figure]) -> list[Path]:
    """Writes pictures into a folder, which is made where it is missing; returns the files."""
    place.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        save_figure(figure, place / name)
    return [place / name for name in figures]


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a picture, whole or not at all; its ending says which kind."""
    with written_whole(path) as place:
        figure.savefig(place, dpi=DOTS_PER_INCH)
