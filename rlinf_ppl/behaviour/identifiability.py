"""What behaviour can tell about parameters, before it was seen and after.

With pi the soft-optimal policy at some parameters x, and states and actions from following it, a trajectory tells

    I(x) = sum_t E[ g g' ],      g = d log pi_t(a_t | scope_t) / dx

of them: its Fisher information, the curvature that a log likelihood of n trajectories has n times. The scores g of
different decisions and times do not correlate, as each has the mean 0 given all before it. Directions in which I is
flat are those along which nothing that is done changes: rewards that are a constant or, without end, the shaping of a
potential, one reward in two units (Ng, Harada & Russell 1999; Kim, Garg, Shiragur & Ermon 2021; Cao, Cohen & Szpruch
2021). A posterior tells the same afterwards: where it is as wide as the prior, data have said nothing.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, biject_to

from rlinf_ppl.algebra.compiled import in_all_digits
from rlinf_ppl.inference import exact
from rlinf_ppl.inference.arguments import check_count, check_tabular
from rlinf_ppl.program import ControlProgram

if TYPE_CHECKING:
    import pandas as pd

# What is flat beside the direction of most information, by the size of the program's numbers in bytes.
FLAT = {8: 1e-10, 4: 1e-5}


class Spectrum(NamedTuple):
    """The directions of an information matrix, the most visible first.

    Attributes:
        values: the information along each, parameters in units in which each of them alone has 1.
        vectors: in the columns the directions, of length 1 in these units.
        sizes: how many of these units are one of each parameter's own; 1 where there is no information.
        seen: whether data see it.
    """

    values: np.ndarray
    vectors: np.ndarray
    sizes: np.ndarray
    seen: np.ndarray


class Identifiability(eqx.Module):
    """What a trajectory tells about parameters.

    Attributes:
        information: Fisher information of one trajectory, in 1 / units of two parameters.
        rounding: how much of the diagonal may be rounding.
        names: the parameters' names, those of arrays with the place in brackets.
        flat: how little information, beside the most of all directions, is none.
    """

    information: Float[Array, "k k"]
    rounding: Float[Array, " k"]
    names: tuple[str, ...] = eqx.field(static=True)
    flat: float = eqx.field(static=True)

    @property
    def spectrum(self) -> Spectrum:
        """The directions; where a parameter alone has no information it is a direction by itself."""
        information, names = np.asarray(self.information), range(len(self.names))
        diagonal = np.diag(information)
        visible = diagonal > np.asarray(self.rounding)
        sizes = np.sqrt(np.where(visible, diagonal, 1.0))
        scaled = np.where(np.outer(visible, visible), information / np.outer(sizes, sizes), 0.0)
        values, vectors = np.linalg.eigh(scaled)
        order = np.argsort(-values, kind="stable")
        values, vectors = values[order], vectors[:, order]
        signs = [np.sign(vectors[np.argmax(np.abs(vectors[:, i])), i]) for i in names]
        seen = values > self.flat * max(values[0], 1.0)
        # Adding 0 leaves no zero with a minus.
        return Spectrum(np.maximum(values, 0.0), vectors * np.array(signs) + 0.0, sizes, seen)

    @property
    def directions(self) -> "pd.DataFrame":
        """A row for each direction: its eigenvalue, the loading of each parameter, and whether data see it.

        Parameters are in units in which each of them alone has information 1; there the directions have length 1, and
        the eigenvalues are 1 where parameters do not get in each other's way.
        """
        import pandas as pd

        found = self.spectrum
        table = pd.DataFrame(found.vectors.T, columns=list(self.names))
        table.insert(0, "eigenvalue", found.values)
        table["seen"] = found.seen
        return table.rename_axis("direction")

    @property
    def unseen(self) -> "pd.DataFrame":
        """A row for each direction that data cannot see: how parameters, in their own units, move together along it.

        The largest move is 1. Of several rows any mixture is as invisible.
        """
        import pandas as pd

        found = self.spectrum
        rows = (found.vectors / found.sizes[:, None])[:, ~found.seen].T
        largest = np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], 1)
        return pd.DataFrame(rows / largest, columns=list(self.names)).rename_axis("direction")


@in_all_digits
def fisher_information(
    program: Callable[[Any], ControlProgram], parameters: Mapping[str, Any], num_steps: int | None = None
) -> Identifiability:
    """What the decisions of one trajectory are expected to tell about parameters, if these are the true ones.

    All that decisions depend on counts as seen; of what is summed over in a likelihood, such as options, it is what
    would be known if somebody told. Dynamics tell nothing here. Numbers are float64 where parameters are known.

    Args:
        program: makes the program from a dictionary of parameters, over finitely many values.
        parameters: where, numbers or arrays by name.
        num_steps: how long somebody is watched from the first state on; None: to the horizon.

    Returns:
        The information, its directions, and those that data cannot see.

    Raises:
        TypeError: parameters or the program are none.
        ValueError: variables are vectors of real numbers; num_steps is beyond the horizon, or lacks without one.
    """
    if not isinstance(parameters, Mapping) or not callable(program):
        raise TypeError("give a function of a dictionary of parameters that makes a program, and such a dictionary.")
    known = not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(dict(parameters)))
    with jax.enable_x64(True) if known else nullcontext():
        values = {name: jnp.asarray(parameters[name], dtype=float) for name in sorted(parameters)}
        flat, unflatten = ravel_pytree(values)
        made = program(values)
        if not isinstance(made, ControlProgram):
            raise TypeError(f"program(parameters) must return a ControlProgram; got {type(made).__name__}.")
        check_tabular(made, "the information of decisions")
        steps = steps_of(made, num_steps)
        policy = exact.solve(made).policy
        watched = made.unroll(steps) if made.horizon is None else made
        joints = {name: joint[:steps] for name, joint in exact.marginals(watched, policy).decision.items()}
        # Not in one jit: known tables are made distributions in all digits as the program is made.
        slopes, reach = jax.jacfwd(lambda x: log_policies(program(unflatten(x))))(flat)
        k = len(flat)
        information = jnp.zeros((k, k))
        for name, joint in joints.items():
            weights = jnp.sum(joint, 0) if made.horizon is None else joint
            slope = slopes[name] if made.horizon is None else slopes[name][:steps]
            root = (jnp.sqrt(weights)[..., None] * slope).reshape(-1, k)
            information += root.T @ root
        # A slope of a log policy is the difference of two of values, and holds their rounding.
        largest = jnp.max(jnp.abs(reach).reshape(-1, k), 0)
        level = flat_of(made)
        return Identifiability(information, steps * (level * largest) ** 2, labels(values), level)


def steps_of(program: ControlProgram, num_steps: int | None) -> int:
    """How many steps are watched.

    Raises:
        ValueError: more than there are, or nobody knows how many.
    """
    if num_steps is None and program.horizon is None:
        raise ValueError("behaviour without end has no number of steps: give num_steps.")
    steps = check_count("num_steps", program.horizon if num_steps is None else num_steps)
    if program.horizon is not None and steps > program.horizon:
        raise ValueError(f"num_steps is {steps}, and the program's horizon is {program.horizon}.")
    return steps


def flat_of(program: ControlProgram) -> float:
    """What counts as flat: tables of fewer digits sum to one in these only, and what is off looks like a slope."""
    tables = [leaf for leaf in jax.tree.leaves(program) if jnp.ndim(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)]
    return FLAT[min([jnp.zeros(()).dtype.itemsize, *(max(leaf.dtype.itemsize, 4) for leaf in tables)])]


def log_policies(program: ControlProgram) -> tuple[dict[str, Array], Array]:
    """The logs of what decisions follow, 0 where that is 0, and the values behind them."""
    found = exact.solve(program)
    logs = {name: jnp.log(jnp.where(q > 0, q, 1.0)) for name, q in found.policy.items()}
    return logs, found.value


def labels(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of numbers, those of arrays with the place in brackets."""
    return tuple(
        f"{name}[{', '.join(map(str, place))}]" if np.ndim(value) else name
        for name, value in values.items()
        for place in np.ndindex(np.shape(value))
    )


def contraction(
    samples: Mapping[str, Any], priors: Mapping[str, Distribution], num_draws: int = 100_000, key: Any = None
) -> "pd.DataFrame":
    """How much narrower than the prior a posterior is, direction by direction: 1 - its variance / the prior's.

    Directions d solve posterior d* = (1 - contraction) prior d*, d = prior d*, with the covariances of both: near 1
    data say all there is to say along d, near 0 nothing, below 0 the posterior is wider than the prior. It is on the
    scale where parameters have no bounds: the log of what is above 0, the log odds of a probability.

    Args:
        samples: draws of the posterior by name, (draws, ...) or (chains, draws, ...), as `behaviour.sample` has them.
        priors: the prior of each of the parameters that are compared.
        num_draws: how many draws of the priors tell their covariance; contractions are exact to sqrt(2 / num_draws).
        key: of these draws; None: always the same.

    Returns:
        A row for each direction, the least contracted first: `contraction`, and the move of each parameter along it,
        in its own unit without bounds, the largest 1.

    Raises:
        ValueError: samples lack a parameter or have another shape; there are too few; a prior without a variance.
    """
    import pandas as pd

    drawn, known = {}, {}
    keys = jax.random.split(jax.random.key(0) if key is None else key, len(priors))
    for each, (name, prior) in zip(keys, sorted(priors.items()), strict=True):
        if not isinstance(prior, Distribution):
            raise TypeError(f"the prior of {name!r} must be a NumPyro distribution; got {type(prior).__name__}.")
        if name not in samples:
            raise ValueError(f"samples have no {name!r}; they have {list(samples)}.")
        shape, array = prior.shape(), np.asarray(samples[name])
        if array.ndim <= len(shape) or array.shape[array.ndim - len(shape) :] != shape:
            raise ValueError(
                f"samples[{name!r}] has shape {array.shape}, and its prior {shape}, before which draws lead."
            )
        check_variance(name, prior)
        # NumPyro broadcasts draws.
        with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
            unbound = biject_to(prior.support).inv
            size = int(np.prod(biject_to(prior.support).inverse_shape(shape)))
            known[name] = np.asarray(unbound(jnp.asarray(array, dtype=float))).reshape(-1, size)
            drawn[name] = np.asarray(unbound(prior.sample(each, (num_draws,)))).reshape(num_draws, -1)
    posterior, before = (np.concatenate(list(x.values()), 1) for x in (known, drawn))
    shapes = {name: biject_to(priors[name].support).inverse_shape(priors[name].shape()) for name in known}
    names = labels({name: np.zeros(shape) for name, shape in shapes.items()})
    if len(posterior) <= len(names):
        raise ValueError(f"{len(posterior)} draws have no covariance of {len(names)} parameters: draw more.")
    factor = np.linalg.cholesky(np.atleast_2d(np.cov(before.T)))
    whitened = np.linalg.solve(factor, np.linalg.solve(factor, np.atleast_2d(np.cov(posterior.T))).T)
    shares, vectors = np.linalg.eigh((whitened + whitened.T) / 2)
    moves = (factor @ vectors).T[::-1]
    moves = moves / np.take_along_axis(moves, np.abs(moves).argmax(1)[:, None], 1)
    table = pd.DataFrame(moves, columns=list(names))
    table.insert(0, "contraction", 1 - shares[::-1])
    return table.rename_axis("direction")


def check_variance(name: str, prior: Distribution) -> None:
    """Raise where a prior of real numbers has no variance to compare with."""
    identity = biject_to(prior.support)(jnp.asarray(0.5)) == 0.5 if prior.event_dim == 0 else False
    if identity and not np.all(np.isfinite(np.asarray(prior.variance))):
        raise ValueError(f"the prior of {name!r}, {type(prior).__name__}, has no finite variance to compare with.")
