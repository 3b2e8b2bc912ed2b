"""The names of what parameters are made of, for tables and for ArviZ."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlinf_ppl.behaviour.designs import Design
from rlinf_ppl.behaviour.panel import Panel
from rlinf_ppl.labelled import native

Axes = Mapping[str, tuple[str, list[str]]]


def axes_of(panel: Panel, designs: Mapping[str, Design]) -> dict[str, tuple[str, list[str]]]:
    """For each parameter whose first axis has labels the axis and these."""
    of_ids = {design.each: ids_of(panel) for design in designs.values()}
    return of_ids | {
        each.slopes: (f"{name}_covariate", list(each.labels)) for name, each in designs.items() if each.labels
    }


def ids_of(panel: Panel) -> tuple[str, list[str]]:
    """The axis of the ids, and these."""
    return panel.reading.id or "id", [str(each) for each in panel.ids]


def label(axes: Axes, name: str, place: tuple[int, ...]) -> str:
    """A name for one number of a parameter."""
    if not place:
        return name
    first = axes[name][1][place[0]] if name in axes else place[0]
    return f"{name}[{', '.join(map(str, (first, *place[1:])))}]"


def datasets(groups: Mapping[str, Mapping[str, Any]], axes: Axes) -> Any:
    """Groups of draws, (chains, draws, ...) each, as ArviZ has them."""
    import xarray

    found = {}
    for group, arrays in groups.items():
        data, coords = {}, {}
        for name, array in arrays.items():
            rest = [f"{name}_dim_{i}" for i in range(np.ndim(array) - 2)]
            if name in axes:
                axis, labels = axes[name]
                rest[0], coords[axis] = axis, labels
            data[name] = (("chain", "draw", *rest), np.asarray(array))
        found[group] = xarray.Dataset(data, coords)
    return native(found)
