"""Read a linear-Gaussian program as quadratics: laws by the jacobians of their means, factors by their hessians.

That the means are linear and the factors quadratic is known from the arithmetic (`linearity`), so their derivatives at
the origin are their coefficients, provided that they are derivatives of what is computed (`plain`).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from rlinf_ppl.algebra import TIME, Chain, Conditional, Site, Slice, Table
from rlinf_ppl.algebra.affine import AffineArrival
from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.algebra.gaussians import LinearGaussian
from rlinf_ppl.algebra.quadratics import Quadratic
from rlinf_ppl.program.control_program import ControlProgram
from rlinf_ppl.program.evaluation import in_units, numbers_of
from rlinf_ppl.program.expansions import QUADRATICS, SQUARES, Expansion
from rlinf_ppl.program.forms import SiteForm
from rlinf_ppl.program.jaxprs import part_for
from rlinf_ppl.program.linearity import check_linear, degrees_given
from rlinf_ppl.program.plain import evaluate
from rlinf_ppl.program.point import PARTS, Part
from rlinf_ppl.program.precision import in_double
from rlinf_ppl.program.structure import Structure
from rlinf_ppl.program.supports import first_value, values_of

# How far from the origin single precision loses nothing that matters.
NEAR = 1.0

PROBLEMS = {
    "covariance": "is not linear-Gaussian: its covariance is not positive definite.",
    "infinite": "has a mean or a covariance that is not finite.",
    "unbounded": "is not finite; rewards must be, and data that are missing are left out.",
}
UNMET = (
    "exact.condition and smc.run find their log evidence, minus infinity. Nothing else follows from them: there is no "
    "posterior, and no value but minus infinity."
)

Faults = dict[str, dict[str, dict[str, Any]]]


@compiled
def linearize(
    structure: Structure, discount: Array, parts: dict[str, Part], unit: Array | None, squares: bool = False
) -> tuple[Chain, Faults]:
    """The program as a chain of quadratics or of sums of squares, and for each part and site what is wrong with it."""
    expansion = SQUARES if squares else QUADRATICS
    slices: dict[str, Slice] = {}
    faults: Faults = {}
    origins: dict[str, dict[str, Array]] = {}
    never: dict[str, Array] = {}
    state: dict[str, Array] = {}
    for name in (name for name in PARTS if name in parts):
        reader = Reader(parts[name], state, expansion, unit)
        slices[name], faults[name] = reader.slice()
        state, origins[name], never[name] = reader.state, reader.origin, reader.never
    alive = None
    if structure.discounted:
        alive = Site("alive", "chance", Conditional("alive", Table(("alive",), jnp.stack([1.0 - discount, discount]))))
    wrong = jax.tree.leaves(faults)
    chain = Chain(
        initial=slices["initial"],
        step=slices["step"],
        final=slices["final"].sites if "final" in slices else (),
        alive=alive,
        valid=~jnp.any(jnp.stack(wrong)) if wrong else jnp.asarray(True),
        impossible=jnp.append(jnp.broadcast_to(never["step"], structure.horizon or 1), never.get("final", False)),
        horizon=structure.horizon,
        state=tuple(name for name, _ in structure.state),
        carried=structure.carried,
        scopes=structure.scopes,
        sizes=tuple((name, len(support)) for name, support in structure.supports().items()),
        zero=expansion.zero,
        origin=origins["step"],
        precision=float(jnp.finfo(expansion.zero.array.dtype).eps),
    )
    return chain, faults


def read_gaussian(program: ControlProgram, impossible: bool = False, optimality: bool = True) -> Chain:
    """A linear-Gaussian program as a chain.

    Far from the origin single precision loses what a step adds to a state. So known numbers are read in double there.

    Raises:
        ValueError: where the program is not linear-Gaussian by its arithmetic, or concrete arrays hold a covariance
            that is not positive definite, numbers that are not finite, or data that are not `impossible` and should be.
    """
    numbers = numbers_of(program, optimality)
    check_linear(numbers.structure)
    chain, faults = linearize(*numbers)
    if not impossible:
        chain = eqx.tree_at(lambda chain: chain.valid, chain, chain.valid & ~jnp.any(chain.impossible))
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((chain, faults))):
        return chain
    wrong = describe(jax.device_get(faults))
    if wrong is not None:
        raise ValueError(wrong)
    if not impossible and jnp.any(chain.impossible):
        t = int(jnp.argmax(chain.impossible))
        where = "final" if t == program.horizon else f"step: at t = {t}"
        raise ValueError(f"{where}: the data have probability zero, whatever the state is; {UNMET}")
    far = max((float(jnp.max(jnp.abs(x), initial=0.0)) for x in chain.origin.values()), default=0.0)
    if chain.zero.array.dtype == jnp.float64 or far <= NEAR:
        return chain
    with jax.enable_x64(True):
        wide = in_double(program)
        if wide is None:
            return chain
        exact = linearize(*numbers_of(wide, optimality))[0]
        return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x, exact)


def read_squares(program: ControlProgram, optimality: bool = True) -> Chain:
    """A linear-Gaussian program with its factors as sums of squares; not `valid` where one of them is not concave."""
    return linearize(*numbers_of(program, optimality), squares=True)[0]


def describe(faults: Faults) -> str | None:
    """The first thing that is wrong, and what to do; None where all is right."""
    for part, sites in faults.items():
        for name, problems in sites.items():
            for problem, wrong in problems.items():
                if wrong:
                    return f"{part}: {name!r} {PROBLEMS[problem]}"
    return None


class Reader:
    """Reads one part of a program: evaluates its traced arithmetic and takes derivatives of it.

    Attributes:
        state: the origins of the state variables; those of the first state, where `initial` is read.
        origin: those of all variables of this part that were read so far.
        never: whether data that were read so far have probability zero, over time where that depends on it.
    """

    def __init__(self, part: Part, state: dict[str, Array], expansion: Expansion, unit: Array | None):
        self.part, self.form, self.supports, self.places = part, part.form, part.supports, part.form.arithmetic.places
        self.state, self.origin = dict(state), dict(state)
        self.never = jnp.asarray(False)
        self.expansion, self.unit = expansion, unit
        # A site that becomes a state variable is counted from where that one is.
        self.becomes: dict[str, str] = {}
        for following in self.form.following:
            if following.source in self.form.supports():
                self.becomes.setdefault(following.source, following.name)

    def slice(self) -> tuple[Slice, dict[str, dict[str, Array]]]:
        """The sites and the arrival of this part, and what is wrong with each."""
        sites, faults = [], {}
        for site in self.form.sites:
            content, faults[site.name] = self.factor(site) if site.is_factor else self.law(site.name, site.parents)
            tau = self.constant(site) if site.tempered else None
            sites.append(Site(site.name, site.kind, content, tau))
        sources, maps = [], {}
        for name, source, parents, _ in self.form.following:
            if name not in self.state:
                self.state[name] = self.origin[source] if source else self.place(self.places.following[name], parents)
            elif source is not None and self.becomes.get(source, source) != name:
                source = None
            sources.append((name, source))
            if source is None:
                maps[name], faults[name] = self.move(name, parents)
        return Slice(tuple(sites), AffineArrival(tuple(sources), maps)), faults

    def law(self, name: str, parents: tuple[str, ...]) -> tuple[LinearGaussian, dict[str, Array]]:
        """The law of a site."""
        names, size = self.space(parents)
        law, place = self.places.laws[name], self.state.get(self.becomes.get(name, ""))
        self.origin[name] = self.place(law.mean, parents) if place is None else place

        def at(z: Array, t: Array) -> tuple[Array, Array]:
            mean, factor = self.outputs((law.mean, law.factor), parents, z, t)
            return mean, factor

        def read(t: Array) -> tuple[Array, Array, dict[str, Array]]:
            origin = self.point(names)
            mean, factor = at(origin, t)
            slope = jax.jacfwd(lambda z: at(z, t)[0])
            matrix = jnp.concatenate([slope(origin), (mean - self.origin[name])[:, None]], 1)
            faults = {
                "covariance": jnp.any(jnp.isnan(factor) | (jnp.diagonal(factor)[:, None] < 0))
                & ~jnp.any(jnp.isnan(mean)),
                "infinite": ~jnp.all(jnp.isfinite(matrix)) | jnp.any(jnp.isinf(factor)),
            }
            return matrix, factor, faults

        (matrix, factor, faults), axes = self.over_time(read, parents, names)
        cov = factor @ jnp.swapaxes(factor, -1, -2)
        return LinearGaussian(name, axes, size, matrix, factor, covariance=cov), any_time(faults)

    def move(self, name: str, parents: tuple[str, ...]) -> tuple[LinearGaussian, dict[str, Array]]:
        """The next value of a state variable as a law without noise."""
        names, size = self.space(parents)

        def read(t: Array) -> tuple[Array, dict[str, Array]]:
            origin = self.point(names)
            value = lambda z: jnp.reshape(self.output(self.places.following[name], parents, z, t), -1)  # noqa: E731
            slope = jax.jacfwd(value)
            matrix = jnp.concatenate([slope(origin), (value(origin) - self.state[name])[:, None]], 1)
            return matrix, {"infinite": ~jnp.all(jnp.isfinite(matrix))}

        (matrix, faults), axes = self.over_time(read, parents, names)
        nothing = jnp.zeros((*matrix.shape[:-1], matrix.shape[-2]))
        return LinearGaussian(name, axes, size, matrix, nothing, covariance=nothing), any_time(faults)

    def factor(self, site: SiteForm) -> tuple[Any, dict[str, Array]]:
        """A factor as a function of vectors."""
        place, parents = self.places.factors[site.name], site.parents
        names, size = self.space(parents)

        def read(t: Array) -> tuple[tuple[Any, ...], dict[str, Array], Array]:
            value = lambda z: in_units(site, self.output(place, parents, z, t), self.unit)  # noqa: E731
            never = jnp.isneginf(value(self.point(names))) & (site.kind == "data")
            content, faults = self.expansion.expand(lambda z: jnp.where(never, 0.0, value(z)), self.point(names))
            return content, faults, never

        (content, faults, never), axes = self.over_time(read, parents, names)
        self.never |= never
        return self.expansion.message(axes, size, *content), any_time(faults)

    def constant(self, site: SiteForm) -> Quadratic:
        """The inverse temperature of a decision."""
        place, parents = self.places.temperatures[site.name], site.temperature_parents
        read = lambda t: self.output(place, parents, jnp.zeros(0), t)[None, None]  # noqa: E731
        tau, axes = self.over_time(read, parents, ())
        return Quadratic(axes, (), tau)

    def space(self, parents: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """The vectors among the parents, and their sizes."""
        names = tuple(name for name in parents if name != TIME)
        return names, tuple(len(self.supports[name]) for name in names)

    def point(self, names: tuple[str, ...]) -> Array:
        """The origins of variables side by side."""
        return jnp.concatenate([jnp.zeros(0), *(self.origin[name] for name in names)])

    def place(self, index: int, parents: tuple[str, ...]) -> Array:
        """One output with all variables at their origins, at the first time: where the variable itself is counted from.

        No answer depends on where that is, so no derivative does; and it has few digits, so that both dtypes hold it.
        """
        names, _ = self.space(parents)
        output = self.output(index, parents, self.point(names), jnp.zeros((), int))
        place = lax.stop_gradient(jnp.reshape(output, -1))
        return place.astype(jnp.float32).astype(place.dtype)

    def output(self, index: int, parents: tuple[str, ...], z: Array, t: Array) -> Array:
        """One output at the vectors' coordinates z and the time t, the other inputs at their first value."""
        return self.outputs((index,), parents, z, t)[0]

    def outputs(self, indices: tuple[int, ...], parents: tuple[str, ...], z: Array, t: Array) -> list[Array]:
        """The same of several."""
        inputs, place = {name: first_value(support) for name, support in self.supports.items()}, 0
        for name in parents:
            if name == TIME:
                inputs[name] = t
                continue
            support = self.supports[name]
            inputs[name] = jnp.reshape(z[place : place + len(support)], inputs[name].shape)
            place += len(support)
        jaxpr = part_for(self.form.arithmetic.jaxpr, indices)
        numbers = [*jax.tree.leaves(tuple(inputs.values())), *self.part.leaves]
        return [jnp.asarray(x) for x in evaluate(jaxpr, self.part.constants, numbers, degrees_given(self.form))]

    def over_time(self, read: Any, parents: tuple[str, ...], names: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
        """What `read` gives, at all times where it depends on the time, and the axes of it."""
        if TIME not in parents:
            return read(jnp.zeros((), int)), names
        times = self.supports[TIME]
        assert isinstance(times, range)
        return jax.vmap(read)(values_of(times)), (TIME, *names)


def any_time(faults: dict[str, Array]) -> dict[str, Array]:
    """Whether something is wrong at any time."""
    return {problem: jnp.any(wrong) for problem, wrong in faults.items()}
