"""The log probability of behaviour: `exact.log_prob` and its terms."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.inference.histories.masses import Seen
from rlinf_ppl.inference.histories.observed import as_available, as_seen, rows_of, steps_of
from rlinf_ppl.inference.histories.plan import plan_of
from rlinf_ppl.inference.histories.recursion import Histories, Told
from rlinf_ppl.inference.histories.simulated import laws_of
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.conditionals import ConditionalLaw
from rlinf_ppl.program.reading import check_program
from rlinf_ppl.types import ArrayLike

Names = tuple[str, ...]


def log_prob(
    program: ControlProgram,
    policy: Any,
    data: Mapping[str, Any],
    of: str | Sequence[str] | None = None,
    lengths: ArrayLike | None = None,
    available: Mapping[str, ArrayLike] | None = None,
) -> Float[Array, " n"]:
    """Log probability of what somebody did: of each decision that was seen, given all that was seen before it.

    All that was not seen is summed over exactly: options, terminations, memories, states. What was seen of other sites
    and of the state is conditioned on, and does not count itself. Optimality is left out, and so is the discount:
    behaviour is that of a process that goes on. State variables that the data determine may be of any kind, such as
    the values of a learner; they are computed.

        exact.log_prob(prog, exact.solve(prog).policy, {"s": states, "a": actions})          # n sequences: (n,) nats

    Args:
        program: any step program; what is hidden must have finitely many values.
        policy: what decisions follow: arrays as a solution's, functions, a solution or fit; None: their priors.
        data: by name what was seen of sites, (n, T), and of state variables, (n, T) or (n, T + 1); values as
            `exact.sample` returns them. Where some are missing (values, seen), with `seen` (n, T) true where a value
            was seen; or a masked array of NumPy.
        of: the sites whose probabilities count, any that were seen; None: the decisions.
        lengths: how many steps of each sequence there are, (n,); what stands behind is no matter. None: T.
        available: by decision which of its alternatives were there, truth values (n, T, K) in the order of its values:
            the policy is that of planning with all of them, given that one of these is taken. None: all.

    Returns:
        Nats; -inf where something was seen that has probability zero, of whatever site; the first value of a state that
        was seen at every time may be any. NaN where traced numbers are no values or no laws.

    Raises:
        TypeError, ValueError: data, names or lengths that do not fit; values that a variable does not take; a hidden
            variable without a finite number of values.
    """
    terms = log_prob_terms(program, policy, data, of, lengths, available)
    return jnp.sum(jnp.stack(list(terms.values())), (0, 2))


def log_prob_terms(
    program: ControlProgram,
    policy: Any,
    data: Mapping[str, Any],
    of: str | Sequence[str] | None = None,
    lengths: ArrayLike | None = None,
    available: Mapping[str, ArrayLike] | None = None,
) -> dict[str, Float[Array, "n T"]]:
    """The terms of `log_prob` one by one, by site: what leave-one-out and figures are made of.

    Returns:
        For each site (n, T) nats, 0 where nothing was seen of it.
    """
    check_program(program)
    return terms_under(program, laws_of(program, policy), data, of, lengths, available)


class Foreseen(NamedTuple):
    """What was to be expected along what somebody did.

    Attributes:
        probabilities: by site those of its values, in their order, given all that was seen before it, (n, T, K).
        states: by name the state variables that the data determine, before each step, (n, T, ...).
    """

    probabilities: dict[str, Float[Array, "n T K"]]
    states: dict[str, Any]


def foresee(
    program: ControlProgram,
    policy: Any,
    data: Mapping[str, Any],
    of: str | Sequence[str] | None = None,
    lengths: ArrayLike | None = None,
    available: Mapping[str, ArrayLike] | None = None,
) -> Foreseen:
    """What was to be expected before each thing that was seen: of each alternative, also of those that were not taken.

    The arguments are those of `log_prob`. What stands behind the end of a sequence means nothing.
    """
    check_program(program)
    told = told_under(program, laws_of(program, policy), data, of, lengths, available, True)
    return Foreseen(told.foreseen, told.states)


def terms_under(
    program: ControlProgram,
    laws: dict[str, ConditionalLaw],
    data: Mapping[str, Any],
    of: Any,
    lengths: Any,
    available: Any = None,
    follows: Array | None = None,
) -> dict[str, Array]:
    """The terms where decisions follow some laws, and their priors where there are none."""
    terms = told_under(program, laws, data, of, lengths, available, False, follows).terms
    check_terms(terms)
    return terms


def told_under(
    program: ControlProgram,
    laws: dict[str, ConditionalLaw],
    data: Mapping[str, Any],
    of: Any,
    lengths: Any,
    available: Any,
    foresees: bool,
    follows: Array | None = None,
) -> Told:
    """What all sequences tell where decisions follow some laws.

    Args:
        program: the program.
        laws: what decisions follow.
        data: as `log_prob` takes them, as are `of`, `lengths` and `available`.
        of: the sites whose terms are wanted.
        lengths: of the sequences.
        available: alternatives.
        foresees: whether what was not done is wanted.
        follows: whether the state of the next row is the next state, (n, T); None: everywhere.
    """
    structure = program.structure
    seen, length = as_seen(structure, data, lengths)
    state, steps = {name for name, _ in structure.state}, steps_of(structure, seen)
    there = as_available(program, available, (len(jax.tree.leaves(seen)[0]), steps))
    scored = check_scored(program, seen, of)
    lacking = tuple(name for name in seen if name in state and rows_of(seen[name]) == steps)
    whole = {name: each.there is None for name, each in seen.items()}
    plan = plan_of(structure, whole, scored, lacking)
    parts = {name: part for name, part in program.parts.items() if name != "final"}
    histories = Histories(structure, plan, steps, foresees, parts, laws)
    states = {name: each for name, each in seen.items() if name in state}
    sites = {name: each for name, each in seen.items() if name not in state}
    return told_of(histories, states, sites, length, there, follows)


@compiled
def told_of(
    histories: Histories,
    states: dict[str, Seen],
    sites: dict[str, Seen],
    lengths: Array | None,
    available: dict[str, Array],
    follows: Array | None,
) -> Told:
    """What all sequences tell."""
    return jax.vmap(histories.told)(states, sites, lengths, available, follows)


def check_terms(terms: dict[str, Array]) -> None:
    """Raise where a known probability is no number.

    Raises:
        ValueError: one is none.
    """
    for name, each in terms.items():
        if isinstance(each, jax.core.Tracer) or not bool(jnp.any(jnp.isnan(each))):
            continue
        i, t = np.argwhere(np.isnan(np.asarray(each)))[0]
        raise ValueError(
            f"the probability of {name!r} in sequence {i} at step {t} is no number: up to there a law is no "
            "distribution, a policy gives nothing to what is available, a look-up is out of its array, or a state "
            "variable that is computed leaves its values."
        )


def check_scored(program: ControlProgram, seen: dict[str, Seen], of: Any) -> Names:
    """The sites whose terms are wanted: the decisions that were seen, or those that are named.

    Raises:
        TypeError: they are no names.
        ValueError: one is no site of the step, or was not seen.
    """
    form, state = program.structure.step, dict(program.structure.state)
    sources = {each.source: each.name for each in form.following if each.source is not None}
    data = {site.name for site in form.sites if site.kind == "data"}
    there = data | {name for name in form.supports() if name in seen or sources.get(name) in seen}
    if of is None:
        names = tuple(site.name for site in form.decisions if site.name in there)
        if not names:
            raise ValueError(
                f"data hold no decision, whose probabilities are asked for; the program's are {list(program.scopes)}. "
                "Name the sites that count by of=..."
            )
        return names
    if not isinstance(of, str | Sequence):
        raise TypeError(f"of must be names of sites; got {of!r}.")
    names = (of,) if isinstance(of, str) else tuple(of)
    if not names:
        raise ValueError(f"of names no site; those of the step that were seen are {sorted(there)}.")
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"of must be names of sites; got {name!r}.")
        if name in state:
            site = next((each.source for each in form.following if each.name == name), None)
            hint = f": its site is {site!r}" if site is not None else ", and the next one is computed"
            raise ValueError(f"of must name sites, and {name!r} is a state variable{hint}.")
        if name not in there:
            raise ValueError(f"of names {name!r}; the sites of the step that were seen are {sorted(there)}.")
    return names
