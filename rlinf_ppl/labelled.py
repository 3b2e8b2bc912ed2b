"""Labelled datasets in the form that the installed ArviZ reads: InferenceData before its version 1.0, then DataTree."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray


def to_inference_data(groups: Mapping[str, xarray.Dataset]) -> Any:
    """The groups as ArviZ's InferenceData (ArviZ before 1.0)."""
    import arviz

    return arviz.InferenceData(**groups, warn_on_custom_groups=False)


def to_datatree(groups: Mapping[str, xarray.Dataset]) -> xarray.DataTree:
    """The groups as xarray's DataTree (ArviZ from 1.0 on, arviz-base)."""
    import xarray

    return xarray.DataTree.from_dict(dict(groups))


def native(groups: Mapping[str, xarray.Dataset]) -> Any:
    """The groups in the form that the installed ArviZ reads."""
    return to_inference_data(groups) if before_version_one() else to_datatree(groups)


def before_version_one() -> bool:
    """Whether the installed ArviZ is older than 1.0; asking it for InferenceData would warn where it is not."""
    return int(version("arviz").split(".")[0]) < 1
