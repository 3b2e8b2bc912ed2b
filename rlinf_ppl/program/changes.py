"""What a program is changed by without another step: arguments over time, other priors, other temperatures.

All of it is arrays, leaves of the program: programs that are changed alike share compiled code, and are vmapped and
differentiated as any other.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array
from numpyro import distributions as dist
from numpyro.primitives import Messenger

from rlinf_ppl.program.conditionals import Affine, Rows, Values, as_conditional
from rlinf_ppl.program.finite import Rowed
from rlinf_ppl.program.language import DECISION, INVERSE_TEMPERATURE
from rlinf_ppl.program.laws import FiniteLaw, SiteLaw, as_law
from rlinf_ppl.types import ArrayLike


class OverTime(eqx.Module):
    """An argument with a row for each time, of which a step sees its own; see `over_time`."""

    rows: Any


def over_time(rows: ArrayLike) -> Any:
    """Mark an argument of a program as varying in time: each step sees its own row, and needs no t for it.

        ControlProgram(initial, step, 24, args=(over_time(price), beta))      # step(price, beta, s): price of this hour

    Args:
        rows: an array whose first axis is time: T rows, or T + 1 where `final` reads the last one. `initial` sees the
            first.

    Raises:
        TypeError: it is no array.
        ValueError: it is one number.
    """
    try:
        array = jnp.asarray(rows)
    except (TypeError, ValueError) as error:
        raise TypeError(f"over_time takes an array whose first axis is time; got {type(rows).__name__}.") from error
    if not array.ndim:
        raise ValueError("over_time takes an array whose first axis is time; got one number.")
    return OverTime(array)


def is_over_time(x: Any) -> bool:
    """Whether an argument varies in time."""
    return isinstance(x, OverTime)


def vary(args: Any) -> bool:
    """Whether some arguments vary in time."""
    return any(map(is_over_time, jax.tree.leaves(args, is_leaf=is_over_time)))


def check_times(args: Any, horizon: int | None) -> None:
    """Raise where arguments over time have no row for each step.

    Raises:
        ValueError: so it is, or there is no end.
    """
    for place, leaf in jax.tree.leaves_with_path(args, is_leaf=is_over_time):
        if not is_over_time(leaf):
            continue
        what = f"args{jax.tree_util.keystr(place)}"
        if horizon is None:
            raise ValueError(
                f"{what} varies in time, so an infinite horizon has no one policy for all times; give a horizon."
            )
        rows = jnp.shape(leaf.rows)[0]
        if rows not in (horizon, horizon + 1):
            raise ValueError(
                f"{what} varies in time and has {rows} rows; it must have {horizon}, one for each step, or "
                f"{horizon + 1}, one for the end as well."
            )


class Changes(eqx.Module):
    """What stands in the place of a step's own priors and inverse temperatures.

    Attributes:
        priors: for some decisions the prior.
        factor: what every inverse temperature is multiplied by, one number or one for each time; None: nothing.
    """

    priors: dict[str, Rows | Affine]
    factor: Array | None

    @property
    def timed(self) -> bool:
        """Whether they vary in time."""
        priors = any(prior.timed for prior in self.priors.values())
        return priors or (self.factor is not None and self.factor.ndim > 0)


UNCHANGED = Changes({}, None)


class Changed(Messenger):
    """Gives decisions their new priors and inverse temperatures while a step runs; the innermost handler of all."""

    def __init__(self, changes: Changes, state: Values, t: Any):
        # What does not vary in time is the same at time 0.
        self.changes, self.t = changes, jnp.asarray(0 if t is None else t)
        self.seen: dict[str, Any] = {name: {"value": value} for name, value in state.items()}
        super().__init__()

    def process_message(self, msg: Any) -> None:
        """Change a decision, note the rest."""
        if msg["type"] != "sample":
            return
        name = msg["name"]
        if msg["infer"].get(DECISION):
            if name in self.changes.priors:
                at = {other: jax.tree.map(jnp.asarray, each["value"]) for other, each in self.seen.items()}
                msg["fn"] = as_prior(self.changes.priors[name](at, self.t, as_law(msg["fn"])))
            if self.changes.factor is not None:
                factor = self.changes.factor[self.t] if self.changes.factor.ndim else self.changes.factor
                tau = times(msg["infer"][INVERSE_TEMPERATURE], factor)
                msg["infer"] = msg["infer"] | {INVERSE_TEMPERATURE: tau}
        self.seen[name] = msg


def as_prior(law: SiteLaw) -> dist.Distribution:
    """A law as a distribution whose probabilities are read off it as they are; NaN where they are none."""
    if not isinstance(law, FiniteLaw):
        return law.distribution
    # Of known rows it was checked when they were given.
    probs = jnp.where(law.is_wrong(), jnp.nan, law.probs) if isinstance(law.probs, jax.core.Tracer) else law.probs
    if isinstance(law.support, range) and law.support.start == 0:
        return dist.CategoricalProbs(probs)
    return Rowed(probs, tuple(law.support))


def times(tau: Any, factor: Array) -> Array:
    """An inverse temperature times a factor; 0 keeps the prior, whatever the other is."""
    tau = jnp.asarray(tau, dtype=float)
    # Only 0 times infinity needs a word; elsewhere the derivative at 0 is that of the product.
    lost = ((tau == 0) & jnp.isinf(factor)) | (jnp.isinf(tau) & (factor == 0))
    return jnp.where(lost, 0.0, jnp.where(lost, 1.0, tau) * jnp.where(lost, 0.0, factor))


def as_initial(initial: Callable[..., Any]) -> Callable[..., Any]:
    """A program's `initial` as a function of arguments and changes: it sees the first rows."""

    def run(args: Any, changes: Changes) -> Any:
        return initial(*row(args, 0))

    return run


def as_step(step: Callable[..., Any], num_args: int) -> Callable[..., Any]:
    """A program's step as a function of arguments, changes, the time where anything varies in it, and the state."""
    takes_time = "t" in list(inspect.signature(step).parameters)[num_args:]

    def run(args: Any, changes: Changes, t: Any = None, **state: Any) -> Any:
        time = {"t": t} if takes_time else {}
        if not changes.priors and changes.factor is None:
            return step(*row(args, t), **state, **time)
        with Changed(changes, state, t):
            return step(*row(args, t), **state, **time)

    return run


def as_final(final: Callable[..., Any], horizon: int | None) -> Callable[..., Any]:
    """A program's `final` as a function of arguments, changes and the state: it sees the rows after the last step's."""

    def run(args: Any, changes: Changes, **state: Any) -> Any:
        try:
            return final(*row(args, horizon, (horizon or 0) + 1), **state)
        except (TypeError, AttributeError) as error:
            if OverTime.__name__ not in str(error):
                raise
            raise ValueError(
                f"final reads an argument over time that has {horizon} rows, one for each step, and none for the end: "
                "give it one row more."
            ) from error

    return run


def in_full(args: Any) -> Any:
    """The arguments, those over time with all their rows."""
    return jax.tree.map(lambda leaf: leaf.rows if is_over_time(leaf) else leaf, args, is_leaf=is_over_time)


def row(args: Any, t: Any, fewest: int = 1) -> Any:
    """The arguments at one time; those over time that have fewer rows stay as they are."""

    def one(leaf: Any) -> Any:
        return leaf.rows[t] if is_over_time(leaf) and jnp.shape(leaf.rows)[0] >= fewest else leaf

    return jax.tree.map(one, args, is_leaf=is_over_time)


def checked_priors(structure: Any, policy: Any) -> dict[str, Rows | Affine]:
    """Priors for some decisions, from a policy as users hold it.

    Raises:
        TypeError, ValueError: it is none, names no decisions, or does not fit.
    """
    found, scopes = getattr(policy, "policy", policy), dict(structure.scopes)
    if not isinstance(found, Mapping):
        raise TypeError(
            f"with_prior takes a dict with arrays for some of {sorted(scopes)}, or a solution or fit that has one as "
            f"its policy; got {type(policy).__name__}."
        )
    unknown = [name for name in found if name not in scopes]
    if unknown:
        raise ValueError(f"with_prior is given priors of {unknown}; the program's decisions are {sorted(scopes)}.")
    functions = [name for name, entry in found.items() if callable(entry)]
    if functions:
        raise TypeError(
            f"the prior of {functions[0]!r} is a function, and with_prior takes arrays; write decide(name, law) with "
            "that law in a step of your own."
        )
    return {name: as_conditional(structure, name, entry, f"the prior of {name!r}") for name, entry in found.items()}


def checked_factor(inverse_temperature: Any, horizon: int | None) -> Array:
    """What every inverse temperature is multiplied by.

    Raises:
        TypeError: it holds no numbers.
        ValueError: it has another shape than () or (T,), or is NaN.
    """
    try:
        factor = jnp.asarray(inverse_temperature, dtype=float)
    except (TypeError, ValueError) as error:
        raise TypeError(f"tempered takes one number, or one for each time; got {inverse_temperature!r}.") from error
    if factor.shape not in ((), () if horizon is None else (horizon,)):
        wanted = "one number" if horizon is None else f"one number, or one for each of {horizon} times"
        raise ValueError(f"tempered takes {wanted}; got shape {factor.shape}. Use jax.vmap for several programs.")
    if not isinstance(factor, jax.core.Tracer) and bool(jnp.any(jnp.isnan(factor))):
        raise ValueError("tempered is given NaN; an inverse temperature is a number, and may be infinite.")
    return factor
