"""Parameters that differ between ids: by what is known of them, and by chance.

On the scale where a parameter has no bounds, that of id i is

    g(parameter_i) = g(parameter) + x_i b + sum over groups of spread z_i m,        m ~ N(0, 1),

with x_i the covariates of a formula, b their slopes, and z_i the groups that i belongs to: not centred, so that few
data of an id do not hold a sampler up. `by_id` is the formula `parameter ~ 1 + (1 | id)`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from rlinf_ppl.behaviour.panel import Panel


class Group(eqx.Module):
    """A term such as (1 | id) or (x | id).

    Attributes:
        label: the term.
        members: the names of what moves by chance.
        matrix: (n, members).
    """

    label: str = eqx.field(static=True)
    members: tuple[str, ...] = eqx.field(static=True)
    matrix: Float[Array, "n members"]


class Design(eqx.Module):
    """How a parameter differs between the n ids of a panel.

    Attributes:
        name: of the parameter.
        formula: the right side of its formula; empty: there is none.
        labels: of the covariates.
        covariates: (n, k).
        groups: the terms that move by chance.
    """

    name: str = eqx.field(static=True)
    formula: str = eqx.field(static=True)
    labels: tuple[str, ...] = eqx.field(static=True)
    covariates: Float[Array, "n k"]
    groups: tuple[Group, ...]

    @property
    def slopes(self) -> str:
        """The name of the slopes of the covariates."""
        return f"{self.name}_slopes"

    @property
    def each(self) -> str:
        """The name of the parameters of all ids."""
        return f"{self.name}_each"

    def spread(self, group: Group) -> str:
        """The name of how far the members of a group are apart."""
        return f"{self.name}_spread" + (f"[{group.label}]" if len(self.groups) > 1 else "")

    def raw(self, group: Group) -> str:
        """The name of the standard normal numbers of a group."""
        return f"{self.name}_raw" + (f"[{group.label}]" if len(self.groups) > 1 else "")

    def of(self, rows: np.ndarray) -> "Design":
        """The same of some of the ids, by their places."""
        groups = tuple(Group(group.label, group.members, group.matrix[rows]) for group in self.groups)
        return Design(self.name, self.formula, self.labels, self.covariates[rows], groups)

    def own(self, transform: Any, parameters: Mapping[str, Any]) -> Float[Array, "n ..."]:
        """The parameter of each id.

        Args:
            transform: to the parameter from a number without bounds.
            parameters: the population's, the slopes, the spreads and what is raw.
        """
        found = transform.inv(jnp.asarray(parameters[self.name]))[None]
        found = jnp.broadcast_to(found, (len(self.covariates), *found.shape[1:]))
        if self.labels:
            found = found + jnp.tensordot(self.covariates, parameters[self.slopes], 1)
        for group in self.groups:
            moved = jnp.tensordot(group.matrix, parameters[self.raw(group)], 1)
            found = found + parameters[self.spread(group)] * moved
        return transform(found)


def designs_of(
    formulas: str | Sequence[str] | None, by_id: Sequence[str], known: Sequence[str], panel: Panel
) -> dict[str, Design]:
    """How parameters differ between ids, by their names.

    Args:
        formulas: such as "beta ~ condition + (1 | subject)".
        by_id: parameters that move by chance.
        known: the names of all parameters.
        panel: whose ids they are.

    Raises:
        TypeError: they are no text.
        ValueError: they name something else than parameters, or one twice; covariates are missing or vary within an id.
    """
    lines = [formulas] if isinstance(formulas, str) else list(formulas or ())
    if isinstance(by_id, str):
        raise TypeError(f'by_id must be a list of names, such as ["{by_id}"]; got {by_id!r}.')
    wrong = [line for line in lines if not isinstance(line, str)]
    if wrong:
        raise TypeError(f'formulas must be text such as "beta ~ condition + (1 | id)"; got {wrong[0]!r}.')
    if (lines or by_id) and panel.reading.id is None:
        raise ValueError("parameters that differ between ids want ids: give the column of who it was, id=...")
    halves = [line.partition("~") for line in lines]
    lacking = [line for line, (_, tilde, _) in zip(lines, halves, strict=True) if not tilde]
    if lacking:
        raise ValueError(f'the formula {lacking[0]!r} names no parameter: write "beta ~ condition + (1 | id)".')
    names = [*(left.strip() for left, _, _ in halves), *by_id]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"parameters {unknown} differ between ids, and there are {list(known)}.")
    if len(set(names)) < len(names):
        raise ValueError(f"parameters {names} have more than one formula, or stand in by_id besides.")
    n = len(panel.ids)
    found = {left.strip(): parsed(left.strip(), right, panel) for left, _, right in halves}
    alone = Group(f"1|{panel.reading.id}", tuple(str(each) for each in panel.ids), jnp.eye(n))
    return found | {name: Design(name, "", (), jnp.zeros((n, 0)), (alone,)) for name in by_id}


def parsed(name: str, formula: str, panel: Panel) -> Design:
    """The right side of a formula.

    Raises:
        ImportError: `formulae` is not installed.
        ValueError: it cannot be read, has no intercept, or has covariates that are missing or vary within an id.
    """
    try:
        from formulae import design_matrices
    except ImportError as error:
        raise ImportError(
            f"a formula ({name} ~ {formula.strip()}) is read by formulae, which is not installed: pip install "
            "'rlinf_ppl[behaviour]'. by_id=[...] needs none."
        ) from error
    found = read(
        f"{name} ~ {formula.strip()}", lambda: design_matrices(formula.strip(), panel.frame, na_action="error")
    )
    if found.common is None or "Intercept" not in found.common.terms:
        raise ValueError(
            f"the formula {name} ~ {formula.strip()} has no intercept, which is {name!r} itself: leave out 0."
        )
    common = found.common.as_dataframe()
    covariates = of_ids(name, common.drop(columns="Intercept"), panel)
    terms = {} if found.group is None else found.group.terms
    groups = []
    for label, term in terms.items():
        members = tuple(each.partition("|")[2] if label.startswith("1|") else each for each in term.labels)
        matrix = found.group[label]
        dense = matrix.toarray() if hasattr(matrix, "toarray") else np.asarray(matrix)
        groups.append(Group(label, members, of_ids(name, pd.DataFrame(dense, columns=term.labels), panel)))
    labels = tuple(str(label) for label in common.columns if label != "Intercept")
    return Design(name, formula.strip(), labels, covariates, tuple(groups))


def read(formula: str, function: Callable[[], Any]) -> Any:
    """What a formula makes of a data frame.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return function()
    except Exception as error:
        raise ValueError(f"the formula {formula} cannot be read from the data frame: {error}") from error


def renewed(design: Design, panel: Panel, other: Panel) -> Design:
    """The design with the covariates of other rows of the same ids; they are coded as they were.

    Raises:
        ValueError: they lack, or vary within an id.
    """
    if not design.labels:
        return design
    from formulae import design_matrices

    line = f"{design.name} ~ {design.formula}"
    known = design_matrices(design.formula, panel.frame, na_action="error").common
    rows = read(line, lambda: known.evaluate_new_data(other.frame).as_dataframe())
    return eqx.tree_at(lambda own: own.covariates, design, of_ids(design.name, rows.drop(columns="Intercept"), other))


def of_ids(name: str, rows: pd.DataFrame, panel: Panel) -> Float[Array, "n k"]:
    """A row for each id of what is the same in all of its rows.

    Raises:
        ValueError: something is not.
    """
    values, who = rows.to_numpy(float), panel.places[0]
    first = values[np.searchsorted(who, np.arange(len(panel.ids)))]
    wrong = np.argwhere(values != first[who])
    if len(wrong):
        row, column = wrong[0]
        raise ValueError(
            f"{rows.columns[column]!r}, which {name!r} depends on, varies within {panel.reading.id} "
            f"{panel.ids[who[row]]}: parameters belong to whole sequences. Make ids of its parts, such as subject and "
            "block, and keep the subject for (1 | subject)."
        )
    return jnp.asarray(first)
