"""What users hand to engines beside a program, checked where they stand."""

import operator
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from rlinf_ppl.algebra import Chain
from rlinf_ppl.algebra.linear_systems import ROUNDINGS
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.checks import check_numbers
from rlinf_ppl.program.supports import Arrays, Support, first_value, is_finite, of_arrays


def check_key(key: Any) -> Array:
    """A JAX random key, of the new or the old kind.

    Raises:
        TypeError: it is none.
    """
    found = type(key).__name__
    if isinstance(key, jax.Array):
        made = key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else None
        if made is not None and made.ndim == 0 or key.dtype == jnp.uint32 and key.shape == (2,):
            return key
        found = f"an array of {key.dtype} with shape {key.shape}"
        if made is not None:
            raise TypeError(f"key must be one JAX random key; got {key.shape} of them: use jax.vmap over the keys.")
    raise TypeError(f"key must be a JAX random key, such as jax.random.key(0); got {found}.")


def check_count(name: str, count: Any, least: int = 1) -> int:
    """A whole number of at least 1, or of another least one.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is below that.
    """
    if isinstance(count, bool):
        raise TypeError(f"{name} must be a whole number; got {count}.")
    try:
        whole = operator.index(count)
    except TypeError as error:
        raise TypeError(f"{name} must be a whole number; got {count!r}.") from error
    if whole < least:
        raise ValueError(f"{name} must be at least {least}; got {whole}.")
    return whole


def check_number(name: str, value: Any) -> Array:
    """One number as a float scalar.

    Raises:
        TypeError: it is no number.
        ValueError: it is an array of several.
    """
    array = check_numbers(name, value, "one number")
    if array.ndim:
        raise ValueError(f"{name} must be one number; got shape {array.shape}.")
    return array


def check_value(what: str, support: Support, value: Any) -> Any:
    """One value of a variable.

    Raises:
        TypeError: it is no number.
        ValueError: it has another structure or shape, or is none of the variable's values.
    """
    kind = first_value(support)
    if isinstance(support, Arrays) and isinstance(kind, dict | list | tuple):
        found, wanted = map(jax.tree.structure, (value, kind))
        if str(found) != str(wanted):
            raise ValueError(f"{what} has the structure {found}; it must be {wanted}.")
        return jax.tree.map(lambda part, like: check_value(what, of_arrays(like), part), value, kind)
    array = check_numbers(what, value, "one value", dtype=None)
    if array.shape != kind.shape:
        raise ValueError(f"{what} has shape {array.shape}; it must be {kind.shape}. Use jax.vmap for several.")
    if is_finite(support) and not isinstance(array, jax.core.Tracer) and array.item() not in support:
        raise ValueError(f"{what} is {value}; its values are {support}.")
    return array.astype(kind.dtype)


def check_tolerance(chain: Chain, tolerance: Any = None) -> Array | None:
    """The tolerance of a fixed point; None for the default, and at a finite horizon.

    By default an answer is as good as the dtype allows, but no worse than the square root of its precision.

    Raises:
        ValueError: it is not above 0, there is nothing to tolerate, or the dtype cannot reach it.
    """
    if chain.alive is None or chain.horizon is not None:
        if tolerance is not None:
            raise ValueError("tolerance is for an infinite horizon; a finite one is solved exactly.")
        return None
    alive = chain.survival
    eps = float(jnp.finfo(alive.dtype).eps)
    reach = ROUNDINGS * eps / jnp.maximum(alive[0], eps)
    wanted = jnp.asarray(eps**0.5 if tolerance is None else tolerance, alive.dtype)
    if not isinstance(wanted, jax.core.Tracer) and not wanted > 0:
        raise ValueError(f"tolerance must be above 0; got {tolerance}.")
    if not any(isinstance(x, jax.core.Tracer) for x in (wanted, reach)) and wanted < reach:
        wider = "" if eps < 1e-10 else 'turn on float64 (jax.config.update("jax_enable_x64", True)) or '
        raise ValueError(
            f"at discount {float(alive[1]):.6g} {alive.dtype} can reach a relative error of about {float(reach):.1g}, "
            f"not {float(wanted):.1g}: {wider}give a larger tolerance."
        )
    return None if tolerance is None else wanted


def check_start(chain: Chain, start: Any) -> Array | None:
    """Values over the carried state variables to begin at, from those over all; what others add is no matter.

    Raises:
        ValueError: there is an end, or the variables are vectors; or they have another shape.
    """
    if start is None:
        return None
    size = chain.size()
    shape = tuple(size[name] for name in chain.state)
    if chain.horizon is not None or chain.origin:
        raise ValueError("start is for an infinite horizon of finitely many states.")
    array = check_numbers("start", start, "an array of values")
    if array.shape != shape:
        raise ValueError(f"start has shape {array.shape}; values are over {chain.state}, so {shape}.")
    return array[tuple(slice(None) if name in chain.carried else 0 for name in chain.state)]


def check_tabular(program: ControlProgram, what: str) -> None:
    """Raise where the variables of a program are vectors of real numbers."""
    if program.structure.gaussian:
        raise ValueError(f"{what} are for programs over finitely many values; the variables of this one are Gaussian.")


def check_learnable(program: ControlProgram) -> None:
    """Raise where policies do not follow from a table of what is known after a step's last decision.

    Raises:
        ValueError: on real decisions or states, without decisions, or with chance before the last decision.
    """
    decisions = [site.name for site in program.structure.step.decisions]
    if not decisions:
        raise ValueError("the program has no decisions to learn; mark the agent's sites with decide(name, prior).")
    real = [name for name in (*program.state, *decisions) if not is_finite(program.supports[name])]
    if real:
        raise ValueError(
            f"{real} are not finite, and tables of action values are over finite states and decisions; svi.fit with "
            "guide=svi.networks(program, key) and svi.ActorCritic() learns from samples, too."
        )
    sites = [site.name for site in program.structure.step.sites]
    kinds = {site.name: site.kind for site in program.structure.step.sites}
    early = [name for name in sites[: sites.index(decisions[-1])] if kinds[name] == "chance"]
    if early:
        raise ValueError(
            f"the chance sites {early} stand before the decision {decisions[-1]!r}; learning from samples takes "
            "programs whose chance comes after their decisions: make what is known before a decision a state variable."
        )


def check_players(players: Mapping[str, ControlProgram]) -> None:
    """Raise where several players' programs are no players in one process, who make one decision each.

    Raises:
        ValueError: where the decisions are not those of each program, or the programs do not fit together.
    """
    for name, program in players.items():
        check_learnable(program)
        if set(program.scopes) != set(players):
            raise ValueError(
                f"players has the decisions {sorted(players)}, but those of the program of {name!r} are "
                f"{sorted(program.scopes)}: give each decision the program of the player that makes it."
            )
        first = next(iter(players.values()))
        agreed = {what: (getattr(program, what), getattr(first, what)) for what in ("supports", "horizon")}
        if not any(isinstance(each.discount, jax.core.Tracer) for each in (program, first)):
            agreed["discount"] = float(program.discount), float(first.discount)
        for what, (own, other) in agreed.items():
            if own != other:
                raise ValueError(
                    f"the players' programs differ in {what}: {own} for {name!r}, {other} for {next(iter(players))!r}; "
                    "they learn in one process."
                )


def check_schedule(name: str, setting: Any, probability: bool) -> Any:
    """A function of time as it is, a number as an array.

    Raises:
        TypeError: it is neither.
        ValueError: it is below 0, or no probability where it must be one.
    """
    if callable(setting):
        return setting
    if not isinstance(setting, jax.core.Tracer):
        try:
            number = float(setting)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} must be a number or a function; got {setting!r}.") from error
        if not 0 <= number <= (1.0 if probability else float("inf")):
            most = " and at most 1" if probability else ""
            raise ValueError(f"{name} must be at least 0{most}, or a function; got {setting}.")
    return jnp.asarray(setting, dtype=float)


def check_share(threshold: Any) -> Array:
    """The share of particles below which they are drawn anew, in [0, 1]."""
    share = check_number("threshold", threshold)
    if not isinstance(share, jax.core.Tracer) and not 0 <= share <= 1:
        raise ValueError(f"threshold must be a share of the particles, between 0 and 1; got {threshold}.")
    return share
