"""Trace a part of a program once, abstractly: its sites, what each depends on, and its arithmetic as a jaxpr.

The user's function runs twice, on abstract values only: once to list its sites with their supports, once with the
state variables and the sites' values as inputs. The second run leaves a jaxpr whose outputs are the sites'
probabilities, factors, inverse temperatures and the next state. Everything else is read off it: which inputs an output
depends on (NumPyro's provenance tracking), and whether a next state simply is one of the inputs. Arrays that the
function closes over become inputs as well, so that two closures of one form share all compiled code.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr
from jaxtyping import Array
from numpyro.ops.provenance import track_deps_jaxpr

from rlinf_ppl.algebra.regularizers import Regularizer, kl
from rlinf_ppl.program.data import checked_laws
from rlinf_ppl.program.identity import jaxpr_key
from rlinf_ppl.program.jaxprs import part_for
from rlinf_ppl.program.lookup import check_lookups, looked_up
from rlinf_ppl.program.sites import Real, Sites, Support, check_names, first_value, is_one


class SiteForm(NamedTuple):
    """A site: its kind, its values (None for a factor), and what its distribution or factor depends on.

    `array` is the position, among the closed-over arrays and the arguments, of the array that is its table already. An
    `observed` factor is the log probability of data, which no inverse temperature multiplies.
    """

    name: str
    kind: str
    support: Support | None
    parents: tuple[str, ...]
    tempered: bool
    temperature_parents: tuple[str, ...]
    array: int | None
    regularizer: Regularizer
    unseen: tuple[str, ...]
    observed: bool


class NextForm(NamedTuple):
    """A next state variable: the variable whose value it takes unchanged, or None, and what it depends on.

    `real` is its shape where it is made of real numbers, None where it is an integer.
    """

    name: str
    source: str | None
    parents: tuple[str, ...]
    real: tuple[int, ...] | None


class Arithmetic:
    """A jaxpr that compares and hashes by what it computes, so that programs of one form share compiled code."""

    def __init__(self, jaxpr: ClosedJaxpr):
        self.jaxpr = jaxpr.jaxpr
        self._key = jaxpr_key(jaxpr.jaxpr)
        self._hash = hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Arithmetic) and self._key == other._key

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Arithmetic({len(self.jaxpr.eqns)} equations)"

    def __call__(self, constants: tuple[Array, ...], *inputs: Array) -> list[Array]:
        """The outputs for flat inputs."""
        return [jnp.asarray(output) for output in jax.core.eval_jaxpr(self.jaxpr, constants, *inputs)]


class Form(NamedTuple):
    """What one traced function is, without its numbers: hashable and shared by programs of one shape."""

    inputs: tuple[str, ...]
    sites: tuple[SiteForm, ...]
    following: tuple[NextForm, ...]
    shared_temperature: bool
    arithmetic: Arithmetic

    @property
    def latent(self) -> tuple[SiteForm, ...]:
        """The decision and chance sites in program order."""
        return tuple(site for site in self.sites if site.kind != "optimality")

    def supports(self) -> dict[str, Support]:
        """The values of each latent site."""
        return {site.name: site.support for site in self.latent if site.support is not None}


def trace_part(
    part: str,
    function: Callable[..., Any],
    arguments: Any,
    state: dict[str, Support],
    order: Iterable[str] | None,
    times: range | None = None,
) -> tuple[Form, tuple[Array, ...]]:
    """Trace `initial`, `step` or `final`.

    Args:
        part: which of the three, for error messages.
        function: called as function(*arguments, **state, t=...).
        arguments: the program's args.
        state: the values of its state variables; empty for `initial`.
        order: the state variables that it returns, in order; None: those it happens to return.
        times: the values of the time index t, or None where the function does not take it.

    Returns:
        The form, and the arrays that the function closed over.
    """
    leaves, tree = jax.tree.flatten(arguments)
    forms: dict[str, Any] = {}

    def run(values: dict[str, Any], *leaves: Any) -> tuple[Sites, dict[str, Any]]:
        given = {name: values.get(name, first_value(support)) for name, support in state.items()}
        time = {} if times is None else {"t": values.get("t", first_value(times))}
        sites = Sites(part, values)
        with checked_laws(), sites:
            returned = function(*jax.tree.unflatten(tree, leaves), **given, **time)
        return sites, check_returned(part, returned, order, state)

    check_call(part, function, len(arguments), (*state, *(() if times is None else ("t",))))

    def listing(*leaves: Any) -> None:
        forms["sites"], forms["returned"] = run({}, *leaves)

    def arithmetic(inputs: dict[str, Any], *leaves: Any) -> Any:
        sites, returned = run(inputs, *leaves)
        forms["tempered"] = {name for name, tau in sites.temperatures.items() if not is_one(tau)}
        taus = {name: jnp.asarray(tau, dtype=float) for name, tau in sites.temperatures.items()}
        return tuple(sites.contents.values()), tuple(taus.values()), tuple(returned.values())

    with explained(part):
        jax.eval_shape(listing, *leaves)
        check_names(part, tuple(forms["sites"].kinds), tuple(state))
        supports = state | forms["sites"].supports
        known = ({} if times is None else {"t": times}) | supports
        inputs = {name: first_value(support) for name, support in known.items()}
        names = tuple(inputs)
        flat = jax.make_jaxpr(lambda xs, *leaves: arithmetic(dict(zip(names, xs, strict=True)), *leaves))
        closed = flat(tuple(inputs.values()), *leaves)
    check_lookups(part, closed.jaxpr, known, names)
    form = describe(forms["sites"], tuple(forms["returned"]), names, forms["tempered"], known, closed)
    return form, tuple(jnp.asarray(constant) for constant in closed.consts)


def describe(
    sites: Sites,
    returned: tuple[str, ...],
    names: tuple[str, ...],
    tempered: set[str],
    supports: dict[str, Support],
    closed: ClosedJaxpr,
) -> Form:
    """Name the outputs of a traced function and what each depends on."""
    jaxpr: Any = closed.jaxpr
    origin = [frozenset({name}) for name in names] + [frozenset()] * (len(jaxpr.invars) - len(names))
    provenance = iter(track_deps_jaxpr(jaxpr, origin))

    def ordered(depends: frozenset[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name in depends)

    parents = {name: ordered(next(provenance)) for name in sites.kinds}
    tau_parents = {name: ordered(next(provenance)) for name in sites.temperatures}
    forms = tuple(
        SiteForm(
            name,
            kind,
            sites.supports.get(name),
            parents[name],
            name in tempered,
            tau_parents.get(name, ()),
            looked_up(jaxpr, output, parents[name], supports, names)
            if not isinstance(sites.supports.get(name, Real(())), Real)
            else None,
            sites.regularizers.get(name, kl),
            sites.unseen.get(name, ()),
            name in sites.observed,
        )
        for (name, kind), output in zip(sites.kinds.items(), jaxpr.outvars, strict=False)
    )
    taus = jaxpr.outvars[len(sites.kinds) : len(sites.kinds) + len(sites.temperatures)]
    inputs = {id(variable): name for variable, name in zip(jaxpr.invars, names, strict=False)}
    following = tuple(
        NextForm(
            name,
            inputs.get(id(variable)),
            ordered(next(provenance)),
            variable.aval.shape if jnp.issubdtype(variable.aval.dtype, jnp.floating) else None,
        )
        for name, variable in zip(returned, jaxpr.outvars[len(sites.kinds) + len(taus) :], strict=True)
    )
    shared = len({jaxpr_key(part_for(jaxpr, len(sites.kinds) + i)) for i in range(len(taus))}) <= 1
    return Form(names, forms, following, shared, Arithmetic(closed))


def check_call(part: str, function: Any, num_args: int, names: tuple[str, ...]) -> None:
    """Raise where a function cannot be called with the program's args and the names of what it takes."""
    try:
        inspect.signature(function).bind(*range(num_args), **dict.fromkeys(names))
    except TypeError as error:
        given = f"the program's {num_args} args" + (f", then {', '.join(names)} by name" if names else "")
        raise TypeError(f"{part} is called with {given}, which it does not take: {error}.") from error


def check_returned(
    part: str, returned: Any, order: Iterable[str] | None, state: dict[str, Support]
) -> dict[str, Array]:
    """The returned state variables in order; raises where the function returned something else."""
    if part == "final":
        if returned is not None:
            raise TypeError(f"final returned {type(returned).__name__}; it states optimality(log_prob), returns None.")
        return {}
    if not isinstance(returned, dict):
        raise TypeError(f"{part} must return a dict of state variables; it returned {type(returned).__name__}.")
    expected = tuple(returned) if order is None else tuple(order)
    if set(returned) != set(expected):
        raise ValueError(
            f"{part} returned the state variables {sorted(returned)}, but the program's are {sorted(expected)}; "
            "initial and step must return the same names."
        )
    for name, value in returned.items():
        check_value(part, name, value, state.get(name))
    return {
        name: jnp.asarray(returned[name], dtype=float if isinstance(state.get(name), Real) else None)
        for name in expected
    }


def check_value(part: str, name: str, value: Any, support: Support | None) -> None:
    """Raise where a next state variable is not of the kind of its first value; None: it is the first value."""
    dtype, shape = jnp.result_type(value), jnp.shape(value)
    if isinstance(support, Real):
        if shape != support.shape:
            raise ValueError(f"{part} returned {name!r} with shape {shape}; its first value has shape {support.shape}.")
        return
    finite = jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.bool_)
    if not finite and (support is not None or not jnp.issubdtype(dtype, jnp.floating)):
        raise TypeError(
            f"{part} returned {name!r} with dtype {dtype}; it takes finitely many values, so return an integer."
        )
    if len(shape) > (0 if finite else 1):
        raise ValueError(
            f"{part} returned {name!r} with shape {shape}; a state variable is one number"
            + ("." if finite else ", or one vector.")
        )


class explained:
    """Adds to errors about traced values what to write instead."""

    def __init__(self, part: str):
        self.part = part

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, jax.errors.TracerArrayConversionError):
            raise TypeError(
                f"{self.part} hands a traced value to NumPy, as an index of an array or to a function; wrap the array "
                "in jnp.asarray, and take the function from jax.numpy."
            ) from error
        if isinstance(error, jax.errors.JAXTypeError):
            raise TypeError(
                f"{self.part} uses the value of a variable in Python (if, while, int(), range(), a list's index); a "
                "step is traced with abstract values: write jnp.where, jax.lax.cond or an array lookup."
            ) from error
        if isinstance(error, TypeError) and "unhashable" in str(error) and "Tracer" in str(error):
            raise TypeError(
                f"{self.part} looks up a dict or a set by the value of a variable; a step is traced with abstract "
                "values: write an array, table = jnp.array([...]), and table[s]."
            ) from error
