"""`ControlProgram`: a decision problem as a program of one time step."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import networkx as nx
from jaxtyping import Array, Float

from rlinf_ppl.algebra import TIME
from rlinf_ppl.program import unrolled
from rlinf_ppl.program.checks import (
    check_args,
    check_discount,
    check_endless,
    check_ends,
    check_forms,
    check_functions,
    check_horizon,
    check_precision,
    check_sizes,
    state_order,
    state_supports,
)
from rlinf_ppl.program.forms import Form
from rlinf_ppl.program.graph import slice_graph
from rlinf_ppl.program.point import Part
from rlinf_ppl.program.sight import sight_of
from rlinf_ppl.program.supports import Real, Support, positions_of
from rlinf_ppl.program.tracing import trace_part


class Structure(NamedTuple):
    """A program without its numbers: hashable, equal for programs of one shape.

    Attributes:
        initial, step, final: what was traced.
        state: the state variables and their values, in order.
        carried, scopes, hidden, together: see `Sight`.
        horizon: number of steps; None: without end.
        takes_time: whether the step takes t.
        discounted: whether there is a discount.
    """

    initial: Form
    step: Form
    final: Form | None
    state: tuple[tuple[str, Support], ...]
    carried: tuple[str, ...]
    scopes: tuple[tuple[str, tuple[str, ...]], ...]
    hidden: tuple[tuple[str, tuple[str, ...]], ...]
    together: tuple[tuple[str, tuple[str, ...]], ...]
    horizon: int | None
    takes_time: bool
    discounted: bool

    @property
    def gaussian(self) -> bool:
        """Whether the variables are vectors of real numbers."""
        return any(isinstance(support, Real) for support in self.supports().values())

    def times(self) -> dict[str, Support]:
        """The values of the time index by its name; nothing where the horizon has no end."""
        return {} if self.horizon is None else {TIME: range(self.horizon)}

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
        horizon: number of steps T, at least 1; None: without end, for a step that does not take t, a discount below 1
            and no final.
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
        horizon: int | None,
        discount: Any = 1.0,
        final: Callable[..., Any] | None = None,
        args: tuple[Any, ...] = (),
        sizes: Mapping[str, int] | None = None,
    ):
        steps = check_horizon(horizon)
        check_functions(initial, step, final)
        self.initial, self.step, self.final = initial, step, final
        self.discount = check_discount(discount)
        self.args = check_args(args)
        first, first_constants = trace_part("initial", initial, self.args, {}, None)
        order, takes_time = state_order(step, len(self.args), [form.name for form in first.following])
        state = state_supports(first, order, check_sizes(sizes))
        if steps is None:
            check_endless(self.discount, final, takes_time)
        times = range(steps or 1) if takes_time else None
        every, step_constants = trace_part("step", step, self.args, state, order, times)
        last, last_constants = (None, ()) if final is None else trace_part("final", final, self.args, state, None)
        check_forms(first, every, last)
        self.constants = (first_constants, step_constants, last_constants)
        sight = sight_of(first, every, last, order)
        discounted = steps is None or isinstance(discount, jax.core.Tracer) or float(discount) != 1.0
        self.structure = Structure(first, every, last, tuple(state.items()), *sight, steps, takes_time, discounted)

    def __reduce__(self) -> Any:
        # Traced code cannot be pickled or copied: a program is made again from what it was made of.
        sizes = {name: len(support) for name, support in self.structure.state if not isinstance(support, Real)}
        return ControlProgram, (self.initial, self.step, self.horizon, self.discount, self.final, self.args, sizes)

    def __repr__(self) -> str:
        state = {name: len(support) for name, support in self.structure.state}
        blind = {site.name: f" without {', '.join(site.unseen)}" for site in self.structure.step.sites if site.unseen}
        sites = ", ".join(f"{site.name}: {site.kind}{blind.get(site.name, '')}" for site in self.structure.step.sites)
        return f"ControlProgram(horizon={self.horizon}, state={state}, step=({sites}))"

    @property
    def horizon(self) -> int | None:
        """Number of steps T; None: without end."""
        return self.structure.horizon

    def unroll(self, horizon: int) -> "ControlProgram":
        """The same program with an end: T steps, for model, guide and whatever else needs a finite horizon."""
        initial, step, _, *rest = self.__reduce__()[1]
        return ControlProgram(initial, step, horizon, *rest)

    @property
    def parts(self) -> dict[str, Part]:
        """Initial, step and final by name, with their numbers; `final` only where there is one."""
        check_precision(self.discount.dtype)
        leaves = jax.tree.leaves(self.args)
        forms = {"initial": self.structure.initial, "step": self.structure.step, "final": self.structure.final}
        numbers = zip(forms.items(), self.constants, strict=True)
        return {name: Part(form, constants, leaves) for (name, form), constants in numbers if form is not None}

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
        """For each decision the variables that its policy depends on, found by the elimination: of those it sees."""
        return dict(self.structure.scopes)

    def graph(self) -> nx.DiGraph:
        """One time slice; node attribute `kind` is state, decision, chance, optimality or data; s' is the next one.

        Edges lead from what a site's prior depends on, and those whose `style` is dotted from what a decision does not
        see; what the policy of a decision depends on is in `scopes`.
        """
        return slice_graph(self.structure.step)

    def model(self) -> None:
        """The program unrolled over the horizon, as a NumPyro model: sites init/s, t0/a, t1/alive, t1/a, ...

        Unrolled in Python on purpose, for horizons up to 20 or so. Optimality is multiplied by the inverse temperature
        that all decisions share. A site t3/alive says whether the process survived the step before; it is alive at
        t = 3 where all of t1/alive, t2/alive, t3/alive are 1.

        Raises:
            ValueError: where the inverse temperatures differ, or at an infinite horizon; then there is no joint model.
        """
        check_ends(self.horizon, "model")
        unrolled.run(self, unrolled.as_model(self))

    def guide(self) -> None:
        """The model under an effect handler that learns the decisions and drops optimality, as a NumPyro guide.

        Each decision d has a parameter `d_logits` of shape (T, scope sizes, K), zero at first: q = prior * exp(logits)
        up to a constant. A Gaussian one has `d_gain` (T, m, n), `d_offset` (T, m) and `d_factor` (T, m, m), which move
        and stretch its prior: none at first. All other sites are the model's.

        With NumPyro's SVI take a loss of `rlinf_ppl.inference.svi` (`ExactELBO`, `SampledELBO`), or `TraceGraph_ELBO`,
        which is noisy. Where decisions are discrete, `Trace_ELBO` and `TraceMeanField_ELBO` carry no signal and
        `RenyiELBO` a wrong one, and a guide cannot know which loss runs it: NumPyro warns in `SVI.init`, and
        `svi.in_numpyro` raises.

        Raises:
            ValueError: at an infinite horizon, or where a decision has another regularizer than its KL.
        """
        check_ends(self.horizon, "guide")
        unrolled.run(self, unrolled.as_guide(self))

    def positions(self, name: str, values: Array) -> Array:
        """The positions of values of a state variable or site in its support."""
        return positions_of(self.supports[name], values)
