"""Trace a part of a program once, abstractly: its sites, what each depends on, and its arithmetic as a jaxpr.

The user's function runs twice, on abstract values only: once to list its sites with their supports, once with the
state variables and the sites' values as inputs. The second run leaves a jaxpr whose outputs are the sites'
probabilities, factors, inverse temperatures and the next state. Everything else is read off it: which inputs an output
depends on (NumPyro's provenance tracking), and whether a next state simply is one of the inputs. Arrays that the
function closes over become inputs as well, so that two closures of one form share all compiled code.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.extend.core import ClosedJaxpr, Literal
from jaxtyping import Array
from numpyro.ops.provenance import track_deps_jaxpr
from numpyro.primitives import Messenger

from rlinf_ppl.program.language import DECISION, INVERSE_TEMPERATURE

RESERVED = ("t", "alive")

Support = range | tuple[float, ...]


class SiteForm(NamedTuple):
    """A site: its kind, its values (None for a factor), and what its distribution or factor depends on."""

    name: str
    kind: str
    support: Support | None
    parents: tuple[str, ...]
    tempered: bool
    temperature_parents: tuple[str, ...]


class NextForm(NamedTuple):
    """A next state variable: the variable whose value it takes unchanged, or None, and what it depends on."""

    name: str
    source: str | None
    parents: tuple[str, ...]


class Arithmetic:
    """A jaxpr that compares and hashes by its text, so that programs of one form share compiled code."""

    def __init__(self, jaxpr: ClosedJaxpr):
        self.jaxpr = jaxpr.jaxpr
        text = str(jaxpr.jaxpr)
        # A callback's Python function does not show in the text: such a program equals itself only.
        self._key = (text, id(self) if "callback" in text else None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Arithmetic) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __call__(self, constants: tuple[Array, ...], *inputs: Array) -> list[Array]:
        """The outputs for flat inputs."""
        return jax.core.eval_jaxpr(self.jaxpr, constants, *inputs)


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


class Sites(Messenger):
    """Runs a function on given values of its sites and records them; unnamed sites take their first value."""

    def __init__(self, part: str, values: dict[str, Any]):
        self.part, self.values = part, values
        self.contents: dict[str, Any] = {}
        self.kinds: dict[str, str] = {}
        self.supports: dict[str, Support] = {}
        self.temperatures: dict[str, Any] = {}
        super().__init__()

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "deterministic":
            msg["stop"] = True
            return
        name, fn = msg["name"], msg.get("fn")
        self._refuse(name, msg)
        if name in self.kinds:
            raise ValueError(f"{self.part} has two sites named {name!r}; give each site its own name.")
        msg["stop"] = True
        if msg["is_observed"]:
            self.kinds[name] = "optimality"
            self.contents[name] = self._factor(name, fn.log_prob(msg["value"]))
            return
        decision = bool(msg["infer"].get(DECISION))
        self.kinds[name] = "decision" if decision else "chance"
        self.supports[name] = finite_support(self.part, name, fn)
        msg["value"] = self.values.get(name, first_value(self.supports[name]))
        self.contents[name] = probabilities(fn, self.supports[name])
        if decision:
            self.temperatures[name] = msg["infer"][INVERSE_TEMPERATURE]

    def _refuse(self, name: str, msg: Any) -> None:
        where = f"{self.part}: site {name!r}"
        if msg["type"] == "param":
            raise ValueError(f"{where} is a numpyro.param; pass it to the program in args instead.")
        if msg["type"] != "sample":
            raise ValueError(f"{where} is a numpyro {msg['type']} statement; a step holds sample sites and factors only.")
        if msg["cond_indep_stack"]:
            raise ValueError(f"{where} stands in a plate; write each variable of a step as a site of its own.")
        if msg.get("scale") is not None:
            raise ValueError(f"{where} is scaled; multiply the log probability that optimality is given instead.")
        if msg["is_observed"] and not msg["infer"].get("is_auxiliary"):
            raise ValueError(f"{where} has obs=...; state evidence as optimality(log_prob, name={name!r}).")

    def _factor(self, name: str, log_prob: Any) -> Array:
        if jnp.shape(log_prob) != ():
            raise ValueError(
                f"{self.part}: optimality {name!r} has shape {jnp.shape(log_prob)}; it must be one number, "
                "so index the reward by every variable it depends on."
            )
        return jnp.asarray(log_prob, dtype=float)


def trace_part(
    part: str,
    function: Callable[..., Any],
    arguments: Any,
    state: dict[str, Support],
    order: Iterable[str] | None,
    *,
    takes_time: bool = False,
) -> tuple[Form, tuple[Array, ...]]:
    """Trace `initial`, `step` or `final`.

    Args:
        part: which of the three, for error messages.
        function: called as function(*arguments, **state, t=...).
        arguments: the program's args.
        state: the values of its state variables; empty for `initial`.
        order: the state variables that it returns, in order; None: those it happens to return.
        takes_time: whether it is called with the time index t.

    Returns:
        The form, and the arrays that the function closed over.
    """
    leaves, tree = jax.tree.flatten(arguments)
    forms: dict[str, Any] = {}

    def run(values: dict[str, Any], *leaves: Any) -> tuple[Sites, dict[str, Any]]:
        given = {name: values.get(name, first_value(support)) for name, support in state.items()}
        time = {"t": values.get("t", jnp.int32(0))} if takes_time else {}
        sites = Sites(part, values)
        with sites:
            returned = function(*jax.tree.unflatten(tree, leaves), **given, **time)
        return sites, check_returned(part, returned, order)

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
        inputs = {name: first_value(support) for name, support in supports.items()}
        inputs = ({"t": jnp.int32(0)} if takes_time else {}) | inputs
        names = tuple(inputs)
        flat = jax.make_jaxpr(lambda xs, *leaves: arithmetic(dict(zip(names, xs, strict=True)), *leaves))
        closed = flat(tuple(inputs.values()), *leaves)
    form = describe(forms["sites"], tuple(forms["returned"]), names, forms["tempered"], closed)
    return form, tuple(closed.consts)


def describe(
    sites: Sites, returned: tuple[str, ...], names: tuple[str, ...], tempered: set[str], closed: ClosedJaxpr
) -> Form:
    """Name the outputs of a traced function and what each depends on."""
    jaxpr = closed.jaxpr
    origin = [frozenset({name}) for name in names] + [frozenset()] * (len(jaxpr.invars) - len(names))
    provenance = iter(track_deps_jaxpr(jaxpr, origin))

    def ordered(depends: frozenset[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name in depends)

    parents = {name: ordered(next(provenance)) for name in sites.kinds}
    tau_parents = {name: ordered(next(provenance)) for name in sites.temperatures}
    forms = tuple(
        SiteForm(name, kind, sites.supports.get(name), parents[name], name in tempered, tau_parents.get(name, ()))
        for name, kind in sites.kinds.items()
    )
    inputs = {id(variable): name for variable, name in zip(jaxpr.invars, names, strict=False)}
    outputs = jaxpr.outvars[len(sites.kinds) + len(sites.temperatures) :]
    following = tuple(
        NextForm(name, inputs.get(id(variable)), ordered(next(provenance)))
        for name, variable in zip(returned, outputs, strict=True)
    )
    taus = jaxpr.outvars[len(sites.kinds) : len(sites.kinds) + len(sites.temperatures)]
    shared = len({repr(tau.val) if isinstance(tau, Literal) else id(tau) for tau in taus}) <= 1
    return Form(names, forms, following, shared, Arithmetic(closed))


def check_names(part: str, sites: tuple[str, ...], state: tuple[str, ...]) -> None:
    """Raise where a site has the name of something else."""
    for name in sites:
        if name in state:
            raise ValueError(f"{part}: site {name!r} has a state variable's name; call it {name + '_next'!r}.")
        if name in RESERVED:
            raise ValueError(f"{part}: site {name!r} has a reserved name: t is the time index, alive the discount's site.")


def check_returned(part: str, returned: Any, order: Iterable[str] | None) -> dict[str, Array]:
    """The returned state variables in order, as scalars; raises where the function returned something else."""
    if part == "final":
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
        if not jnp.issubdtype(jnp.result_type(value), jnp.integer) and jnp.result_type(value) != bool:
            raise TypeError(
                f"{part} returned {name!r} with dtype {jnp.result_type(value)}; state variables take finitely many values, "
                "given as integers."
            )
        if jnp.shape(value) != ():
            raise ValueError(f"{part} returned {name!r} with shape {jnp.shape(value)}; a state variable is one number.")
    return {name: jnp.asarray(returned[name]) for name in expected}


def finite_support(part: str, name: str, fn: Any) -> Support:
    """The values of a site's distribution; raises where they are infinite, depend on the state or are not scalars."""
    where = f"{part}: site {name!r} ({type(fn).__name__})"
    if fn.batch_shape != () or fn.event_shape != ():
        raise ValueError(
            f"{where} has shape {fn.batch_shape + fn.event_shape}; a site of a step is one number: index its "
            "parameters by every variable they depend on, and use one site for each number."
        )
    if not fn.has_enumerate_support:
        raise ValueError(f"{where} has infinitely many values; every site of a step must have a finite support.")
    try:
        with jax.ensure_compile_time_eval():
            values = np.asarray(fn.enumerate_support(expand=False))
    except (NotImplementedError, TypeError, jax.errors.JAXTypeError) as error:
        raise ValueError(
            f"{where} has a support that depends on the state or on a traced array; use the largest support, "
            "and probability 0 for what is impossible."
        ) from error
    if np.issubdtype(values.dtype, np.integer) and np.all(np.diff(values) == 1):
        return range(int(values[0]), int(values[-1]) + 1)
    return tuple(values.tolist())


def probabilities(fn: Any, support: Support) -> Array:
    """The probability of each value of the support, exact at zero (NumPyro's log_prob clamps zeros)."""
    if isinstance(fn, dist.CategoricalProbs | dist.CategoricalLogits):
        return jnp.asarray(fn.probs, dtype=float)
    if isinstance(fn, dist.BernoulliProbs | dist.BernoulliLogits):
        return jnp.stack([1.0 - fn.probs, fn.probs]).astype(float)
    return jnp.exp(fn.log_prob(values_of(support))).astype(float)


def values_of(support: Support) -> Array:
    """The values of a support as an array."""
    return jnp.arange(support.start, support.stop) if isinstance(support, range) else jnp.asarray(support)


def first_value(support: Support) -> Array:
    """One value of a support, with the dtype of all of them."""
    return values_of(support[:1])[0]


def positions_of(support: Support, values: Array) -> Array:
    """The position of each value in the support; the support's length where the value is not in it."""
    if isinstance(support, range):
        position = values - support.start
        return jnp.where((position >= 0) & (position < len(support)), position, len(support))
    ordered = np.argsort(support)
    position = jnp.asarray(ordered)[jnp.clip(jnp.searchsorted(jnp.sort(values_of(support)), values), 0, len(support) - 1)]
    return jnp.where(values_of(support)[position] == values, position, len(support))


def is_one(tau: Any) -> bool:
    """Whether an inverse temperature is the plain number 1 that `decide` has as its default."""
    return isinstance(tau, int | float) and tau == 1


class explained:
    """Adds to JAX's errors about traced values what to write instead."""

    def __init__(self, part: str):
        self.part = part

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, jax.errors.TracerArrayConversionError):
            raise TypeError(
                f"{self.part} indexes a NumPy array or a list with a traced value; wrap it in jnp.asarray."
            ) from error
        if isinstance(error, jax.errors.JAXTypeError):
            raise TypeError(
                f"{self.part} uses the value of a variable in Python (if, while, int(), range()); a step is traced with "
                "abstract values: write jnp.where, jax.lax.cond or an array lookup."
            ) from error
