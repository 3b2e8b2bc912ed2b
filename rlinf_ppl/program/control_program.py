"""`ControlProgram`: a decision problem as a program of one time step."""

import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
from jaxtyping import Array, Float

from rlinf_ppl.program import unrolled
from rlinf_ppl.program.graph import scopes_of, slice_graph
from rlinf_ppl.program.sites import RESERVED, Support, positions_of
from rlinf_ppl.program.tracing import Form, trace_part


class Structure(NamedTuple):
    """A program without its numbers: hashable, equal for programs of one shape."""

    initial: Form
    step: Form
    final: Form | None
    state: tuple[tuple[str, Support], ...]
    carried: tuple[str, ...]
    scopes: tuple[tuple[str, tuple[str, ...]], ...]
    horizon: int
    takes_time: bool
    discounted: bool

    def supports(self) -> dict[str, Support]:
        """The values of each state variable and of each latent site of the step, in program order."""
        return dict(self.state) | self.step.supports()


class ControlProgram(eqx.Module):
    """A decision problem: a program of one time step, repeated.

    A pytree whose leaves are the arrays that the program reads, so that programs can be vmapped, differentiated and
    share compiled code.

    Args:
        initial: initial(*args) -> dict of state variables; its sites are chance.
        step: step(*args, **state) -> dict of next state variables; it may also take `t`, the time index 0..T-1.
            Its decisions are `decide` sites, its rewards `optimality` factors, all other sites chance.
        horizon: number of steps T, at least 1.
        discount: probability in [0, 1] of being alive at the next step; a dead step contributes nothing.
        final: final(*args, **state) states optimality of the last state, weighted by discount ** T; None: nothing.
        args: a pytree of arrays, passed to all three.
        sizes: number of values 0..n-1 of state variables that `initial` returns as something other than a site.

    Raises:
        TypeError, ValueError: where one abstract trace of the three functions finds a mistake.
    """

    initial: Callable[..., Any] = eqx.field(static=True)
    step: Callable[..., Any] = eqx.field(static=True)
    final: Callable[..., Any] | None = eqx.field(static=True)
    structure: Structure = eqx.field(static=True)
    discount: Float[Array, "..."]
    args: Any
    constants: tuple[tuple[Array, ...], tuple[Array, ...], tuple[Array, ...]]

    def __init__(
        self,
        initial: Callable[..., Any],
        step: Callable[..., Any],
        horizon: int,
        discount: Any = 1.0,
        final: Callable[..., Any] | None = None,
        args: tuple[Any, ...] = (),
        sizes: Mapping[str, int] | None = None,
    ):
        steps = check_horizon(horizon)
        for part, function in (("initial", initial), ("step", step), ("final", final)):
            if not callable(function) and not (part == "final" and final is None):
                raise TypeError(f"{part} must be a function; got {type(function).__name__}.")
        self.initial, self.step, self.final = initial, step, final
        self.discount = check_discount(discount)
        self.args = check_args(args)
        first, first_constants = trace_part("initial", initial, self.args, {}, None)
        order, takes_time = state_order(step, len(self.args), [form.name for form in first.following])
        state = state_supports(first, order, check_sizes(sizes))
        times = range(steps) if takes_time else None
        every, step_constants = trace_part("step", step, self.args, state, order, times)
        last, last_constants = (None, ()) if final is None else trace_part("final", final, self.args, state, None)
        check_forms(first, every, last)
        self.constants = (first_constants, step_constants, last_constants)
        carried, scopes = scopes_of(every, last, order)
        discounted = isinstance(self.discount, jax.core.Tracer) or float(self.discount) != 1.0
        self.structure = Structure(
            first, every, last, tuple(state.items()), carried, scopes, steps, takes_time, discounted
        )

    def __reduce__(self) -> Any:
        # Traced code cannot be pickled or copied: a program is made again from what it was made of.
        sizes = {name: len(support) for name, support in self.structure.state}
        return ControlProgram, (self.initial, self.step, self.horizon, self.discount, self.final, self.args, sizes)

    def __repr__(self) -> str:
        state = {name: len(support) for name, support in self.structure.state}
        sites = ", ".join(f"{site.name}: {site.kind}" for site in self.structure.step.sites)
        return f"ControlProgram(horizon={self.horizon}, state={state}, step=({sites}))"

    @property
    def horizon(self) -> int:
        """Number of steps T."""
        return self.structure.horizon

    @property
    def state(self) -> tuple[str, ...]:
        """The state variables in the order of `step`'s signature."""
        return tuple(name for name, _ in self.structure.state)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of values of each state variable and of each latent site of the step, in program order."""
        return {name: len(support) for name, support in self.supports.items()}

    @property
    def supports(self) -> dict[str, Support]:
        """The values of each state variable and of each latent site of the step; tables are indexed by position."""
        return self.structure.supports()

    @property
    def scopes(self) -> dict[str, tuple[str, ...]]:
        """For each decision the variables that its policy depends on, found by the elimination."""
        return dict(self.structure.scopes)

    def graph(self) -> nx.DiGraph:
        """One time slice; node attribute `kind` is state, decision, chance or optimality; s' is the next state.

        Edges lead from what a site's prior depends on; what the policy of a decision depends on is in `scopes`.
        """
        return slice_graph(self.structure.step)

    def model(self) -> None:
        """The program unrolled over the horizon, as a NumPyro model: sites init/s, t0/a, t1/alive, t1/a, ...

        Unrolled in Python on purpose, for horizons up to 20 or so. Optimality is multiplied by the inverse temperature
        that all decisions share. A site t3/alive says whether the process survived the step before; it is alive at
        t = 3 where all of t1/alive, t2/alive, t3/alive are 1.

        Raises:
            ValueError: where the inverse temperatures differ; then there is no joint model.
        """
        unrolled.run(self, unrolled.as_model(self))

    def guide(self) -> None:
        """The model under an effect handler that learns the decisions and drops optimality, as a NumPyro guide.

        Each decision d has a parameter `d_logits` of shape (T, scope sizes, K), zero at first: q = prior * exp(logits)
        up to a constant. All other sites are the model's.
        """
        unrolled.run(self, unrolled.as_guide(self))

    def positions(self, name: str, values: Array) -> Array:
        """The positions of values of a state variable or site in its support."""
        return positions_of(self.supports[name], values)


def check_horizon(horizon: Any) -> int:
    """The horizon as an int of at least 1."""
    try:
        steps = operator.index(horizon)
    except TypeError as error:
        raise TypeError(f"horizon must be a whole number of steps; got {horizon!r}.") from error
    if isinstance(horizon, bool) or steps < 1:
        raise ValueError(f"horizon must be at least 1; got {horizon!r}.")
    return steps


def check_discount(discount: Any) -> Array:
    """The discount as a float scalar in [0, 1]."""
    array = jnp.asarray(discount, dtype=float)
    if array.ndim != 0:
        raise ValueError(f"discount must be one number; got shape {array.shape}.")
    if not isinstance(array, jax.core.Tracer) and not 0 <= float(array) <= 1:
        raise ValueError(f"discount must lie between 0 and 1; got {float(array)}.")
    return array


def check_sizes(sizes: Any) -> dict[str, int]:
    """The sizes as whole numbers by state variable."""
    if sizes is None:
        return {}
    if not isinstance(sizes, Mapping):
        raise TypeError(f'sizes must be a dict such as {{"s": 16}}; got {type(sizes).__name__}.')
    try:
        return {name: operator.index(size) for name, size in sizes.items()}
    except TypeError as error:
        raise TypeError(f"sizes must hold whole numbers; got {dict(sizes)}.") from error


def check_args(args: Any) -> tuple[Any, ...]:
    """The arguments with every number as an array; raises on leaves that are no numbers."""
    if not isinstance(args, tuple | list):
        raise TypeError(f"args must be a tuple of arrays (or pytrees of them); got {type(args).__name__}.")

    def array(leaf: Any) -> Array:
        try:
            return jnp.asarray(leaf)
        except TypeError as error:
            raise TypeError(f"args may hold numbers and arrays only; found {leaf!r}.") from error

    return tuple(jax.tree.map(array, tuple(args)))


def state_order(step: Callable[..., Any], skipped: int, returned: list[str]) -> tuple[tuple[str, ...], bool]:
    """The state variables in the order of step's signature, and whether it takes the time index."""
    for name in RESERVED:
        if name in returned:
            raise ValueError(f"{name!r} cannot be a state variable: it names the time index or the discount's site.")
    parameters = list(inspect.signature(step).parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    taken = {p.name for p in positional[:skipped]}
    named = [p for p in parameters if p.name not in taken and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    open_ended = any(p.kind == p.VAR_KEYWORD for p in parameters)
    unknown = [p.name for p in named if p.name not in returned and p.name != "t" and p.default is p.empty]
    missing = [name for name in returned if name not in {p.name for p in named}]
    if unknown or (missing and not open_ended):
        raise ValueError(
            f"step takes {[p.name for p in named]} after its {skipped} args, but initial returns the state variables "
            f"{returned}; the names must agree (step may also take t)."
        )
    order = [p.name for p in named if p.name in returned] + missing
    return tuple(order), any(p.name == "t" for p in named)


def state_supports(initial: Form, order: tuple[str, ...], sizes: dict[str, int]) -> dict[str, Support]:
    """The values of each state variable: those of the site that `initial` returns for it, or 0..size-1."""
    supports, sites = {}, initial.supports()
    for name in sizes:
        if name not in order:
            raise ValueError(f"sizes names {name!r}, but the state variables are {list(order)}.")
    sources = {form.name: form.source for form in initial.following}
    for name in order:
        support = sites.get(sources[name] or "")
        if support is None and name not in sizes:
            raise ValueError(
                f"initial returns {name!r} as something other than a site, so its number of values is unknown; "
                f'give sizes={{"{name}": ...}}.'
            )
        if name in sizes:
            size = sizes[name]
            if size < 1 or (support is not None and len(support) != size):
                found = "" if support is None else f", and initial's site has {len(support)} values"
                raise ValueError(f"sizes[{name!r}] is {size}{found}; it must be the number of values, at least 1.")
        supports[name] = range(sizes[name]) if support is None else support
    return supports


def check_forms(initial: Form, step: Form, final: Form | None) -> None:
    """Raise where sites stand in the wrong place or names clash."""
    for part, form, allowed in (("initial", initial, "chance"), ("final", final, "optimality")):
        for site in form.sites if form is not None else ():
            if site.kind != allowed:
                raise ValueError(f"{part} holds the {site.kind} site {site.name!r}; it may hold {allowed} sites only.")
    if final is not None and not final.sites:
        raise ValueError("final states no optimality; call optimality(log_prob) in it, or leave final out.")
    for site in step.sites:
        depends = [name for name in site.temperature_parents if name != "t"]
        if depends:
            raise ValueError(
                f"the inverse temperature of {site.name!r} depends on {depends}; it may depend on t and args only."
            )
