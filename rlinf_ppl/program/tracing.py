"""Trace a part of a program once, abstractly: its sites, what each depends on, and its arithmetic as a jaxpr.

The user's function runs twice, on abstract values only: once to list its sites with their supports, once with the
state variables and the sites' values as inputs. The second run leaves a jaxpr whose outputs are the sites'
probabilities, factors, inverse temperatures and the next state. Everything else is read off it: which inputs an output
depends on (NumPyro's provenance tracking), and whether a next state simply is one of the inputs. Arrays that the
function closes over become inputs as well, so that two closures of one form share all compiled code.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr
from jaxtyping import Array
from numpyro.distributions import Delta, Distribution
from numpyro.ops.provenance import track_deps_jaxpr

from rlinf_ppl.algebra.chain import FACTORS
from rlinf_ppl.algebra.compiled import in_all_digits
from rlinf_ppl.algebra.regularizers import kl
from rlinf_ppl.program.data import checked_laws
from rlinf_ppl.program.families import base_of
from rlinf_ppl.program.forms import Arithmetic, Form, NextForm, Outputs, SiteForm
from rlinf_ppl.program.identity import jaxpr_key
from rlinf_ppl.program.jaxprs import part_for
from rlinf_ppl.program.laws import FiniteLaw, SampledLaw
from rlinf_ppl.program.lookup import check_lookups, inputs_of, looked_up, variables_of
from rlinf_ppl.program.sites import Sites, check_names, is_one
from rlinf_ppl.program.supports import Real, Support, first_value, is_finite, of_arrays


@in_all_digits
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
        forms["running"] = sites = Sites(part, values)
        with checked_laws(), sites:
            returned = function(*jax.tree.unflatten(tree, leaves), **given, **time)
        return sites, check_returned(part, returned, order, state)

    def listing(*leaves: Any) -> None:
        forms["sites"], forms["returned"] = run({}, *leaves)

    def arithmetic(inputs: tuple[Any, ...], *leaves: Any) -> Outputs:
        sites, returned = run(dict(zip(names, inputs, strict=True)), *leaves)
        forms["tempered"] = {name for name, tau in sites.temperatures.items() if not is_one(tau)}
        taus = {name: jnp.asarray(tau, dtype=float) for name, tau in sites.temperatures.items()}
        return Outputs(sites.laws, sites.factors, taus, returned)

    with explained(part, forms):
        jax.eval_shape(listing, *leaves)
        check_names(part, tuple(forms["sites"].kinds), tuple(state))
        supports = ({} if times is None else {"t": times}) | state | forms["sites"].supports
        names = tuple(supports)
        first = tuple(first_value(support) for support in supports.values())
        closed, shapes = jax.make_jaxpr(arithmetic, return_shape=True)(first, *leaves)
    check_lookups(part, closed.jaxpr, supports)
    form = describe(forms["sites"], tuple(forms["returned"]), forms["tempered"], supports, closed, shapes)
    return form, tuple(jnp.asarray(constant) for constant in closed.consts)


def describe(
    sites: Sites,
    returned: tuple[str, ...],
    tempered: set[str],
    supports: dict[str, Support],
    closed: ClosedJaxpr,
    shapes: Outputs,
) -> Form:
    """Name the outputs of a traced function and what each depends on."""
    jaxpr: Any = closed.jaxpr
    arithmetic = Arithmetic(closed, shapes)
    places, names = arithmetic.places, [name for name, _ in inputs_of(jaxpr, supports)]
    origin = [frozenset({name}) for name in names] + [frozenset()] * (len(jaxpr.invars) - len(names))
    provenance = list(track_deps_jaxpr(jaxpr, origin))

    def parents(place: Any) -> tuple[str, ...]:
        depends = frozenset[str]().union(*(provenance[i] for i in jax.tree.leaves(place)))
        return tuple(name for name in supports if name in depends)

    def site(name: str, kind: str) -> SiteForm:
        place = places.factors[name] if kind in FACTORS else places.laws[name]
        seen, array = parents(place), None
        if isinstance(place, FiniteLaw):
            array = looked_up(jaxpr, jaxpr.outvars[place.probs], seen, supports)
        if isinstance(place, SampledLaw) and isinstance(base_of(place.base), Delta):
            check_certain(f"{sites.part}: site {name!r}", closed, base_of(place.base).log_density)
        return SiteForm(
            name,
            kind,
            sites.supports.get(name, Real(())),
            seen,
            name in tempered,
            parents(places.temperatures.get(name)),
            array,
            sites.regularizers.get(name, kl),
            sites.unseen.get(name, ()),
        )

    def following(name: str) -> NextForm:
        place = places.following[name]
        same = [jaxpr.outvars[i] for i in jax.tree.leaves(place)]
        source = next((of for of in supports if same and same == variables_of(jaxpr, supports, of)), None)
        return NextForm(name, source, parents(place), of_arrays(shapes.following[name]))

    shared = len({jaxpr_key(part_for(jaxpr, (place,))) for place in places.temperatures.values()}) <= 1
    made = tuple(site(name, kind) for name, kind in sites.kinds.items())
    return Form(tuple(supports.items()), made, tuple(map(following, returned)), shared, arithmetic)


def is_distribution(x: Any) -> bool:
    """Whether it is a law rather than a value."""
    return isinstance(x, Distribution)


def unlikely(x: Any) -> Array:
    """Numbers of a shape and type that leave a trace wherever they count: NaN, or threes."""
    return jnp.full(x.shape, jnp.nan if jnp.issubdtype(x.dtype, jnp.inexact) else 3, x.dtype)


def check_certain(where: str, closed: ClosedJaxpr, output: int) -> None:
    """Raise where one output, the log density of a Delta, is not 0 whatever the inputs.

    Raises:
        TypeError: so it is.
    """
    part: Any = part_for(closed.jaxpr, (output,))
    inputs = [variable.aval for variable in part.invars]
    # Of random keys there is no other, and no density is made of one.
    unknown = [None if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else unlikely(x) for x in inputs]
    (density,) = jax.core.eval_jaxpr(part, closed.consts, *unknown)
    if not jnp.all(density == 0):
        raise TypeError(
            f"{where} is a Delta with a log density, which is a factor and counts in no draw: write "
            "optimality(log_density, name) beside a Delta without it."
        )


def check_call(part: str, function: Any, num_args: int, names: tuple[str, ...]) -> None:
    """Raise where a function cannot be called with the program's args and the names of what it takes."""
    try:
        inspect.signature(function).bind(*range(num_args), **dict.fromkeys(names))
    except TypeError as error:
        given = f"the program's {num_args} args" + (f", then {', '.join(names)} by name" if names else "")
        raise TypeError(f"{part} is called with {given}, which it does not take: {error}.") from error


def check_returned(part: str, returned: Any, order: Iterable[str] | None, state: dict[str, Support]) -> dict[str, Any]:
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
    return {name: like_first(part, name, returned[name], state.get(name)) for name in expected}


def like_first(part: str, name: str, value: Any, support: Support | None) -> Any:
    """A next state variable as the arrays that it is; raises where it is not like its first value.

    Args:
        part: of the program.
        name: of the variable.
        value: what the part returned.
        support: of the first value; None: this is the first one.

    Raises:
        TypeError: it holds something else than arrays, or of another type.
        ValueError: it has another structure or another shape.
    """
    tree: Any
    first_tree: Any
    leaves, tree = jax.tree.flatten(value)
    laws = [law for law in jax.tree.leaves(value, is_leaf=is_distribution) if is_distribution(law)]
    if laws:
        raise TypeError(
            f"{part} returned {name!r} as a {type(laws[0]).__name__} distribution; draw from it by numpyro.sample."
        )
    if not leaves or not all(eqx.is_array_like(leaf) for leaf in leaves):
        raise TypeError(f"{part} returned {name!r} as {value!r}; a state variable is made of arrays.")
    like = of_arrays(value) if support is None else support
    first, first_tree = jax.tree.flatten(jax.eval_shape(lambda: first_value(like)))
    if tree != first_tree:
        raise ValueError(
            f"{part} returned {name!r} with the structure {tree}; its first value has {first_tree}, and a state "
            "variable keeps its structure."
        )
    for x, wanted in zip(leaves, first, strict=True):
        found = jnp.result_type(x)
        if is_finite(like) and not jnp.issubdtype(found, jnp.integer) and not jnp.issubdtype(found, jnp.bool_):
            raise TypeError(
                f"{part} returned {name!r} with dtype {found}; it takes finitely many values, so return an integer."
            )
        if jnp.shape(x) != wanted.shape:
            raise ValueError(
                f"{part} returned {name!r} with shape {jnp.shape(x)}; its first value has shape {wanted.shape}."
            )
        if not is_finite(like) and not jnp.can_cast(found, wanted.dtype, "same_kind"):
            raise TypeError(
                f"{part} returned {name!r} with dtype {found}; its first value has {wanted.dtype}: let the first one "
                "have the type of all, such as 0.0."
            )
    dtypes = [None if is_finite(like) else wanted.dtype for wanted in first]
    return jax.tree.unflatten(tree, [jnp.asarray(x, dtype) for x, dtype in zip(leaves, dtypes, strict=True)])


class explained:
    """Adds to errors about traced values what to write instead, and to others where they come from."""

    def __init__(self, part: str, forms: dict[str, Any]):
        self.part, self.forms = part, forms

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
        if error is not None and "running" in self.forms:
            seen = list(self.forms["running"].kinds)
            error.add_note(
                f"This is {self.part} of a ControlProgram, after {f'its sites {seen}' if seen else 'no site'}."
            )
