"""`ControlProgram`: a decision problem as a program of one time step."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import networkx as nx
from jaxtyping import Array, Float

from rlinf_ppl.program import unrolled
from rlinf_ppl.program.changes import UNCHANGED, Changes, checked_factor, checked_priors, times
from rlinf_ppl.program.checks import (
    check_args,
    check_discount,
    check_ends,
    check_like,
    check_precision,
    have_same_shapes,
)
from rlinf_ppl.program.graph import slice_graph
from rlinf_ppl.program.guides import Guide, as_guide
from rlinf_ppl.program.point import Part
from rlinf_ppl.program.structure import Constants, Structure
from rlinf_ppl.program.supports import Support, is_finite, positions_of
from rlinf_ppl.types import ArrayLike


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
        args: a pytree of arrays, passed to all three; what varies in time as `over_time(rows)`, of which each step
            sees its own row.
        sizes: number of values 0..n-1 of state variables that `initial` returns as something other than a site.
        changes: what stands in the place of the step's own priors and inverse temperatures; `with_prior` and `tempered`
            make it.

    Raises:
        TypeError, ValueError: where one abstract trace of the three functions finds a mistake.
    """

    initial: Callable[..., Any] = eqx.field(static=True)
    step: Callable[..., Any] = eqx.field(static=True)
    final: Callable[..., Any] | None = eqx.field(static=True)
    structure: Structure = eqx.field(static=True)
    discount: Float[Array, "..."]
    args: Any
    changes: Changes
    learned: Guide | None
    constants: Constants

    def __init__(
        self,
        initial: Callable[..., Any],
        step: Callable[..., Any],
        horizon: int | None,
        discount: Any = 1.0,
        final: Callable[..., Any] | None = None,
        args: tuple[Any, ...] = (),
        sizes: Mapping[str, int] | None = None,
        changes: Changes = UNCHANGED,
    ):
        self.initial, self.step, self.final = initial, step, final
        self.discount = check_discount(discount)
        self.args, self.changes, self.learned = check_args(args), changes, None
        self.structure, self.constants = Structure.traced(
            (initial, step, final), self.args, changes, horizon, discount, sizes
        )

    def __reduce__(self) -> Any:
        # Traced code cannot be pickled or copied: a program is made again from what it was made of.
        return remade, (self.made_of, self.learned)

    @property
    def made_of(self) -> dict[str, Any]:
        """What `ControlProgram` was given."""
        names = "initial", "step", "horizon", "discount", "final", "args", "changes"
        sizes = {name: len(support) for name, support in self.structure.state if is_finite(support)}
        return {name: getattr(self, name) for name in names} | {"sizes": sizes}

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
        return self._again(horizon=horizon)

    def with_args(self, *args: Any) -> "ControlProgram":
        """The same program with other numbers in its arguments; nothing is traced or compiled anew.

        Args:
            *args: as many as the program has, each of the structure, shapes and types that it has there.

        Raises:
            TypeError: they hold something else than numbers.
            ValueError: they are of another number, structure, shape or type.
        """
        return eqx.tree_at(lambda program: program.args, self, check_like(self.args, check_args(args)))

    def with_prior(self, policy: Any) -> "ControlProgram":
        """The same program with a policy in the place of the prior of some decisions, or of all.

        Args:
            policy: for each of them arrays as `exact.solve` gives them: (T, scope, K) probabilities, without T where
                stationary, size 1 where they ignore an axis; (gain, offset, cov) of a Gaussian one. Or a solution or
                fit that has such a policy. Its axes are those of `scopes`, of this program as it is now.

        Raises:
            TypeError: it is no dictionary of arrays.
            ValueError: it names something else than decisions, has other shapes, or rows that are no distributions.
        """
        priors = self.changes.priors | checked_priors(self.structure, policy)
        return self._changed(Changes(priors, self.changes.factor))

    def tempered(self, inverse_temperature: ArrayLike) -> "ControlProgram":
        """The same program with every decision's inverse temperature multiplied by a number, or by one for each time.

        Signs and ratios of the decisions' own stay as they are. At infinity leaving a prior is free, and what is equal
        to the last digit is shared out as the prior has it; a decision of 0 keeps its prior whatever the factor.

        Args:
            inverse_temperature: the factor, () or (T,).

        Raises:
            TypeError, ValueError: it is none.
        """
        factor, own = checked_factor(inverse_temperature, self.horizon), self.changes.factor
        return self._changed(Changes(self.changes.priors, factor if own is None else times(own, factor)))

    def untempered(self) -> "ControlProgram":
        """The same program with the inverse temperatures that `decide` gave: what `tempered` did is undone."""
        return self._changed(Changes(self.changes.priors, None))

    def _changed(self, changes: Changes) -> "ControlProgram":
        """The program with other changes; made again where these have other shapes than its own."""
        if have_same_shapes(changes, self.changes):
            return eqx.tree_at(lambda program: program.changes, self, changes)
        return self._again(changes=changes)

    def _again(self, **other: Any) -> "ControlProgram":
        """The program, made again with something else in the place of what it was made of."""
        return carrying(ControlProgram(**(self.made_of | other)), self.learned)

    def with_guide(self, guide: Any) -> "ControlProgram":
        """The same program with a guide of one's own: `guide`, `svi.fit` and `smc.run`'s proposal are it then.

        Args:
            guide: an Equinox module with a method for each decision, or a dict with a function for each. It takes what
                the decision sees by name, and t, and returns a NumPyro distribution over the decision's values. What
                is learned are its arrays; `rlinf_ppl.parameter` gives a field bounds. Where it has a method
                `arguments`, the program's arguments are what that returns. None: no guide of its own.

        Raises:
            TypeError: a decision has no function, or an array of whole numbers stands among what is learned.
            ValueError: a function takes what its decision does not see, or an array breaks its constraint.
        """
        if guide is None:
            return carrying(self, None)
        found = as_guide(self, guide)
        return carrying(eqx.tree_at(lambda program: program.args, self, found.arguments(self.args)), found)

    @property
    def parts(self) -> dict[str, Part]:
        """Initial, step and final by name, with their numbers; `final` only where there is one."""
        check_precision(self.discount.dtype)
        leaves = jax.tree.leaves((self.args, self.changes))
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

        With a guide of its own (`with_guide`), the decisions have its distributions, and its arrays are the parameters.
        Otherwise they are tables.
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


def carrying(program: ControlProgram, guide: Guide | None) -> ControlProgram:
    """A program with a guide of its own, or without."""
    return eqx.tree_at(lambda each: each.learned, program, guide, is_leaf=lambda x: x is None)


def remade(made_of: dict[str, Any], learned: Guide | None) -> ControlProgram:
    """A program, made again."""
    return carrying(ControlProgram(**made_of), learned)
