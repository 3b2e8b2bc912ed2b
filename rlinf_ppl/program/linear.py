"""Read a linear-Gaussian program as quadratics: laws by the jacobians of their means, factors by their hessians.

Everything is taken at the origin, and once more at another point: where a jacobian of a mean, a hessian of a factor or
a covariance is not the same there, the step is not linear-Gaussian.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from rlinf_ppl.algebra import TIME, Chain, Conditional, Site, Slice, Table
from rlinf_ppl.algebra.affine import Arrival
from rlinf_ppl.algebra.gaussians import LinearGaussian
from rlinf_ppl.algebra.quadratics import Quadratic
from rlinf_ppl.program.control_program import Structure
from rlinf_ppl.program.sites import Support, first_value, values_of
from rlinf_ppl.program.tracing import Form

PROBLEMS = {
    "nonlinear": "its mean is not linear in {parents}: the jacobian changes with the point",
    "heteroscedastic": "its covariance depends on {parents}",
    "covariance": "its covariance is not positive definite",
    "infinite": "its mean or covariance is not finite",
    "curved": "it is not quadratic in {parents}: the hessian changes with the point",
    "unbounded": "it is not finite",
    "moved": "the next value is not linear in {parents}: the jacobian changes with the point",
}

Faults = dict[str, dict[str, dict[str, Any]]]


@eqx.filter_jit
def linearize(
    structure: Structure, discount: Array, leaves: list[Array], constants: tuple[Any, ...]
) -> tuple[Chain, Faults]:
    """The program as a chain of quadratics, and for each part and site what is wrong with it."""
    parts = {"initial": structure.initial, "step": structure.step, "final": structure.final}
    known = {
        "initial": structure.initial.supports(),
        "step": structure.supports() | structure.times(),
        "final": dict(structure.state),
    }
    slices: dict[str, Slice] = {}
    faults: Faults = {}
    origins: dict[str, dict[str, Array]] = {}
    state: dict[str, Array] = {}
    for (part, form), own in zip(parts.items(), constants, strict=True):
        if form is not None:
            reader = Reader(form, own, leaves, known[part], state)
            slices[part], faults[part] = reader.slice()
            state, origins[part] = reader.state, reader.origin
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
        horizon=structure.horizon,
        state=tuple(name for name, _ in structure.state),
        carried=structure.carried,
        scopes=structure.scopes,
        sizes=tuple((name, len(support)) for name, support in structure.supports().items()),
        zero=Quadratic((), (), jnp.zeros((1, 1))),
        origin=origins["step"],
    )
    return chain, faults


def read_gaussian(
    structure: Structure, discount: Array, leaves: list[Array], constants: tuple[tuple[Array, ...], ...]
) -> Chain:
    """A linear-Gaussian program as a chain.

    Raises:
        ValueError: where concrete arrays show that a site is not linear-Gaussian.
    """
    chain, faults = linearize(structure, discount, leaves, constants)
    if not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(faults)):
        wrong = describe(structure, jax.device_get(faults))
        if wrong is not None:
            raise ValueError(wrong)
    return chain


def describe(structure: Structure, faults: Faults) -> str | None:
    """The first thing that is wrong, and what to do; None where all is right."""
    for part, sites in faults.items():
        form = getattr(structure, part)
        parents = {site.name: site.parents for site in form.sites} | {
            next.name: next.parents for next in form.following
        }
        for name, problems in sites.items():
            for problem, wrong in problems.items():
                if wrong:
                    what = PROBLEMS[problem].format(parents=" and ".join(p for p in parents[name] if p != TIME) or "t")
                    return f"{part}: {name!r} is not linear-Gaussian: {what}."
    return None


class Reader:
    """Reads one part of a program: evaluates its traced arithmetic and takes derivatives of it.

    Attributes:
        state: the origins of the state variables; those of the first state, where `initial` is read.
        origin: those of all variables of this part that were read so far.
    """

    def __init__(
        self,
        form: Form,
        constants: tuple[Array, ...],
        leaves: list[Array],
        supports: dict[str, Support],
        state: dict[str, Array],
    ):
        self.form, self.constants, self.leaves, self.supports = form, constants, leaves, supports
        self.state, self.origin = dict(state), dict(state)
        # A site that becomes a state variable is counted from where that one is.
        self.becomes: dict[str, str] = {}
        for following in form.following:
            if following.source in form.supports():
                self.becomes.setdefault(following.source, following.name)

    def slice(self) -> tuple[Slice, dict[str, dict[str, Array]]]:
        """The sites and the arrival of this part, and what is wrong with each."""
        form, sites, faults = self.form, [], {}
        decisions = [site.name for site in form.sites if site.kind == "decision"]
        for i, site in enumerate(form.sites):
            read = self.factor if site.kind == "optimality" else self.law
            content, faults[site.name] = read(site.name, i, site.parents)
            tau = None
            if site.tempered:
                tau = self.constant(len(form.sites) + decisions.index(site.name), site.temperature_parents)
            sites.append(Site(site.name, site.kind, content, tau))
        sources, maps = [], {}
        for i, following in enumerate(form.following, len(form.sites) + len(decisions)):
            name, source = following.name, following.source
            if name not in self.state:
                self.state[name] = self.origin[source] if source else self.place(i, following.parents)
            elif source is not None and self.becomes.get(source, source) != name:
                source = None
            sources.append((name, source))
            if source is None:
                maps[name], faults[name] = self.move(name, i, following.parents)
        return Slice(tuple(sites), Arrival(tuple(sources), maps)), faults

    def law(self, name: str, index: int, parents: tuple[str, ...]) -> tuple[LinearGaussian, dict[str, Array]]:
        """The law of a site."""
        names, size = self.space(parents)
        place = self.state.get(self.becomes.get(name, ""))
        self.origin[name] = self.place(index, parents) if place is None else place

        def at(z: Array, t: Array) -> tuple[Array, Array]:
            output = self.output(index, parents, z, t)
            return output[:, 0], output[:, 1:]

        def read(t: Array) -> tuple[Array, Array, dict[str, Array]]:
            origin, other = self.points(names)
            mean, factor = at(origin, t)
            slope = jax.jacfwd(lambda z: at(z, t)[0])
            matrix = jnp.concatenate([slope(origin), (mean - self.origin[name])[:, None]], 1)
            faults = {
                "covariance": jnp.any(jnp.isnan(factor)) & ~jnp.any(jnp.isnan(mean)),
                "infinite": ~jnp.all(jnp.isfinite(mean)) | jnp.any(jnp.isinf(factor)),
                "nonlinear": differs(slope(origin), slope(other)),
                "heteroscedastic": differs(factor, at(other, t)[1]),
            }
            return matrix, factor, faults

        (matrix, factor, faults), axes = self.over_time(read, parents, names)
        cov = factor @ jnp.swapaxes(factor, -1, -2)
        return LinearGaussian(name, axes, size, matrix, factor, covariance=cov), any_time(faults)

    def move(self, name: str, index: int, parents: tuple[str, ...]) -> tuple[LinearGaussian, dict[str, Array]]:
        """The next value of a state variable as a law without noise."""
        names, size = self.space(parents)

        def read(t: Array) -> tuple[Array, dict[str, Array]]:
            origin, other = self.points(names)
            value = lambda z: jnp.reshape(self.output(index, parents, z, t), -1)  # noqa: E731
            slope = jax.jacfwd(value)
            matrix = jnp.concatenate([slope(origin), (value(origin) - self.state[name])[:, None]], 1)
            faults = {"infinite": ~jnp.all(jnp.isfinite(matrix)), "moved": differs(slope(origin), slope(other))}
            return matrix, faults

        (matrix, faults), axes = self.over_time(read, parents, names)
        nothing = jnp.zeros((*matrix.shape[:-1], matrix.shape[-2]))
        return LinearGaussian(name, axes, size, matrix, nothing, covariance=nothing), any_time(faults)

    def factor(self, name: str, index: int, parents: tuple[str, ...]) -> tuple[Quadratic, dict[str, Array]]:
        """A factor as a quadratic."""
        names, size = self.space(parents)

        def read(t: Array) -> tuple[Array, dict[str, Array]]:
            origin, other = self.points(names)
            value = lambda z: self.output(index, parents, z, t)  # noqa: E731
            curve = jax.hessian(value)
            block, slope = curve(origin) / 2, jax.grad(value)(origin)[:, None] / 2
            matrix = jnp.block([[block, slope], [slope.T, value(origin)[None, None]]])
            faults = {"unbounded": ~jnp.all(jnp.isfinite(matrix)), "curved": differs(curve(origin), curve(other))}
            return matrix, faults

        (matrix, faults), axes = self.over_time(read, parents, names)
        return Quadratic(axes, size, matrix), any_time(faults)

    def constant(self, index: int, parents: tuple[str, ...]) -> Quadratic:
        """An inverse temperature."""
        read = lambda t: self.output(index, parents, jnp.zeros(0), t)[None, None]  # noqa: E731
        tau, axes = self.over_time(read, parents, ())
        return Quadratic(axes, (), tau)

    def space(self, parents: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """The vectors among the parents, and their sizes."""
        names = tuple(name for name in parents if name != TIME)
        return names, tuple(len(self.supports[name]) for name in names)

    def points(self, names: tuple[str, ...]) -> tuple[Array, Array]:
        """The origins of variables side by side, and a point in no special direction from there."""
        at = jnp.concatenate([jnp.zeros(0), *(self.origin[name] for name in names)])
        return at, at + jnp.cos(1.0 + jnp.arange(at.shape[0]))

    def place(self, index: int, parents: tuple[str, ...]) -> Array:
        """One output with all variables at their origins, at the first time: where the variable itself is counted from.

        No answer depends on where that is, so no derivative does.
        """
        names, _ = self.space(parents)
        output = self.output(index, parents, self.points(names)[0], jnp.zeros((), int))
        return lax.stop_gradient(output[:, 0] if output.ndim == 2 else jnp.reshape(output, -1))

    def output(self, index: int, parents: tuple[str, ...], z: Array, t: Array) -> Array:
        """One output at the vectors' coordinates z and the time t, the other inputs at their first value."""
        inputs, place = {name: first_value(self.supports[name]) for name in self.form.inputs}, 0
        for name in parents:
            if name == TIME:
                inputs[name] = t
                continue
            support = self.supports[name]
            inputs[name] = jnp.reshape(z[place : place + len(support)], inputs[name].shape)
            place += len(support)
        return self.form.arithmetic(self.constants, *inputs.values(), *self.leaves)[index]

    def over_time(self, read: Any, parents: tuple[str, ...], names: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
        """What `read` gives, at all times where it depends on the time, and the axes of it."""
        if TIME not in parents:
            return read(jnp.zeros((), int)), names
        times = self.supports[TIME]
        assert isinstance(times, range)
        return jax.vmap(read)(values_of(times)), (TIME, *names)


def differs(first: Array, second: Array) -> Array:
    """Whether two arrays differ by more than rounding."""
    tolerance = float(jnp.finfo(first.dtype).eps) ** 0.5
    scale = jnp.max(jnp.abs(first), initial=1.0)
    return jnp.any(jnp.abs(first - second) > tolerance * scale)


def any_time(faults: dict[str, Array]) -> dict[str, Array]:
    """Whether something is wrong at any time."""
    return {problem: jnp.any(wrong) for problem, wrong in faults.items()}
