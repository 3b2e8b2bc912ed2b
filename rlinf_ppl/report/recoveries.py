"""How a case is recovered, by its kind: one function each, which computes its row and writes its files.

An exact case has three exact answers, with the engines beside them (`recovery`, `engines`). A fitted one has a guide
that no table holds (`fitted`), a hidden one an agent that does not see the state (`hidden`), in one of signals two
share a reward and see different things (`signals`), and a search is of a nonlinear system (`searches`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import jax
from jaxtyping import Array

from rlinf_ppl.report import engines, fitted, hidden, recovery, results, searches, signals
from rlinf_ppl.report.case import Case
from rlinf_ppl.report.table import AnyRow

Progress: TypeAlias = Callable[[str], None]


def recover_exact(case: Case, key: Array, folder: Path, progress: Progress) -> AnyRow:
    """A case with a closed form."""
    key_fit, key_estimates, key_draws = jax.random.split(key, 3)
    answers = recovery.answer(case, key_fit, progress)
    estimates = engines.estimate(answers.program, key_estimates, progress)
    progress("drawing")
    results.write_case(answers, key_draws, folder)
    return recovery.summarize(answers, estimates)


def recover_fitted(case: Case, key: Array, folder: Path, progress: Progress) -> AnyRow:
    """A case whose guide is fitted."""
    found = fitted.recover(case, key, progress)
    progress("drawing")
    fitted.write(found, folder)
    return found.row


def recover_hidden(case: Case, key: Array, folder: Path, progress: Progress) -> AnyRow:
    """A case of one agent under hidden state."""
    found = hidden.recover(case, key, progress)
    progress("drawing")
    hidden.write(found, folder)
    return found.row


def recover_signals(case: Case, key: Array, folder: Path, progress: Progress) -> AnyRow:
    """A case of two who signal."""
    found = signals.recover(case, key, progress)
    progress("drawing")
    signals.write(found, folder)
    return found.row


def recover_search(case: Case, key: Array, folder: Path, progress: Progress) -> AnyRow:
    """A case of a nonlinear system."""
    found = searches.recover(case, key, progress)
    progress("drawing")
    searches.write(found, folder)
    return found.row


KINDS: Mapping[str, Callable[[Case, Array, Path, Progress], AnyRow]] = MappingProxyType(
    {
        "exact": recover_exact,
        "fitted": recover_fitted,
        "hidden": recover_hidden,
        "signals": recover_signals,
        "search": recover_search,
    }
)


def recover(case: Case, key: Array, folder: Path, progress: Progress = engines.ignore) -> AnyRow:
    """Recovers a case and writes its files.

    Args:
        case: What to recover.
        key: The random key of all that is drawn.
        folder: Where results go.
        progress: Called with the name of each phase as it begins.

    Returns:
        Its line of the table of its kind.
    """
    return KINDS[case.kind](case, key, folder, progress)
