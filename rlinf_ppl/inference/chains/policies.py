"""Policies as users hold them, dictionaries of probability arrays, and as the elimination needs them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlinf_ppl.algebra import TIME, Chain, Conditional, Law, Table, at_time, by_time
from rlinf_ppl.algebra.compiled import compiled, in_all_digits
from rlinf_ppl.algebra.coordinates import Space
from rlinf_ppl.algebra.gaussians import LinearGaussian, aligned_map
from rlinf_ppl.algebra.messages import Whole
from rlinf_ppl.algebra.quadratics import AffinePolicy, Quadratic
from rlinf_ppl.algebra.squares import Squares
from rlinf_ppl.algebra.tables import ROW_TOLERANCE, most_rounding
from rlinf_ppl.inference.arguments import check_numbers

Policy = Mapping[str, Any]


def as_laws(chain: Chain, policy: Policy) -> dict[str, Law]:
    """Each decision's law over time and its scope.

    Args:
        chain: the program.
        policy: for each decision probabilities with axes (T, scope, own), or without T where stationary, as all are at
            an infinite horizon; an axis of the scope that the policy ignores may have size 1. For Gaussian decisions
            (gain, offset, cov), as in a solution.

    Raises:
        TypeError: it is no dictionary, or has something else in the place of arrays.
        ValueError: on missing or unknown decisions, shapes that do not fit, or rows that are no distributions.
    """
    axes = chain.axes()
    if not isinstance(policy, Mapping):
        raise TypeError(
            f"a policy is a dict with an array for each of {sorted(axes)}, such as exact.solve(program).policy; got "
            f"{type(policy).__name__}."
        )
    if set(policy) != set(axes):
        raise ValueError(f"policy has the decisions {sorted(policy)}, but the program's are {sorted(axes)}.")
    functions = [name for name in axes if callable(policy[name])]
    if functions:
        raise TypeError(
            f"policy[{functions[0]!r}] is a function, as fits of networks have, and exact answers are about arrays; "
            "smc.run(program, key, proposal=policy, threshold=0) draws its trajectories."
        )
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(dict(policy))):
        return laws_of(chain, shaped(chain, policy))
    # Known numbers are checked where a caller's jit is tracing, too.
    with jax.ensure_compile_time_eval():
        answers = checked_rows(chain, shaped(chain, policy))
    return laws_of(chain, answers)


@in_all_digits
def laws_of(chain: Chain, answers: dict[str, Any]) -> dict[str, Law]:
    """What users give, with its time axis and over the whole scope, as laws."""
    priors, size = chain.priors(), chain.size()
    return {
        name: law_of(priors[name], answers[name], (*chain.times, *scope), size).shifted(chain.origin)
        for name, scope in chain.scopes
    }


def law_of(prior: Law, answer: Any, scope: tuple[str, ...], size: dict[str, int]) -> Law:
    """What users give of one decision, in the place of its prior."""
    if isinstance(prior, Conditional):
        return Conditional(prior.name, Table((*scope, prior.name), answer))
    gain, offset, cov = answer
    sizes = tuple(size[name] for name in scope if name != TIME)
    return LinearGaussian(prior.name, scope, sizes, jnp.concatenate([gain, offset[..., None]], -1), covariance=cov)


def answer_of(law: Law, scope: tuple[str, ...], size: dict[str, int]) -> Any:
    """What users are given of a law, over a whole scope: probabilities, its own axis last, or an `AffinePolicy`."""
    if isinstance(law, Conditional):
        return law.table.over((*scope, law.name), size).array
    assert isinstance(law, LinearGaussian)
    whole = aligned_map(law, Space(scope, tuple(size[name] for name in scope)))
    return AffinePolicy(whole[:, :-1], whole[:, -1], law.cov)


def value_of(message: Whole) -> Any:
    """What users are given of a message: an array, or a `QuadraticValue`."""
    return message.coefficients if isinstance(message, Quadratic | Squares) else message.array


def shaped(chain: Chain, policy: Policy) -> dict[str, Any]:
    """Each decision's arrays with their time axis, over the whole scope."""
    priors = chain.priors()
    return {
        name: affine(chain, name, policy[name])
        if isinstance(priors[name], LinearGaussian)
        else with_time(chain, name, check_numbers(f"policy[{name!r}]", policy[name], "an array of probabilities"))
        for name in chain.axes()
    }


def affine(chain: Chain, name: str, policy: Any) -> AffinePolicy:
    """The gain, offset and covariance of a policy with their time axis, their shapes checked."""
    size = chain.size()
    m, n = size[name], sum(size[axis] for axis in dict(chain.scopes)[name])
    if not isinstance(policy, Sequence) or len(policy) != 3:
        raise ValueError(f"policy[{name!r}] must be (gain, offset, cov) with shapes ({m}, {n}), ({m},), ({m}, {m}).")
    arrays = []
    for part, given, shape in zip(AffinePolicy._fields, policy, ((m, n), (m,), (m, m)), strict=True):
        array = jnp.asarray(given, dtype=float)
        full = tuple(size[axis] for axis in chain.times) + shape
        if array.shape not in (shape, full):
            raise ValueError(f"policy[{name!r}].{part} has shape {array.shape}; it must be {full}.")
        arrays.append(jnp.broadcast_to(array, full))
    return AffinePolicy(*arrays)


def with_time(chain: Chain, name: str, array: Array) -> Float[Array, "..."]:
    """A policy array with its time axis, its shape checked and broadcast over the scope."""
    size, own = chain.size(), chain.axes()[name]
    full = tuple(size[axis] for axis in (*chain.times, *own))
    shaped = array[None] if array.ndim == len(full) - 1 else array
    fits = shaped.ndim == len(full) and all(
        given in (1, wanted) for given, wanted in zip(shaped.shape[:-1], full[:-1], strict=True)
    )
    if not fits or shaped.shape[-1] != full[-1]:
        axes, stationary = (own, "") if chain.horizon is None else (("T", *own), " and without T if stationary")
        raise ValueError(
            f"policy[{name!r}] has shape {array.shape}; its axes are ({', '.join(axes)}), so {full}, with size "
            f"1 where it ignores an axis{stationary}."
        )
    return jnp.broadcast_to(shaped, full)


def checked_rows(chain: Chain, answers: dict[str, Any]) -> dict[str, Any]:
    """Policies whose rows sum to one: those that are off by more than rounding are rescaled.

    Raises:
        ValueError: where rows are no distributions.
    """
    for name, answer in answers.items():
        if isinstance(answer, AffinePolicy) and not is_law(answer):
            raise ValueError(
                f"policy[{name!r}] is no law: gain, offset and cov must be finite, and cov symmetric without negative "
                "variances."
            )
    arrays = {name: answer for name, answer in answers.items() if not isinstance(answer, AffinePolicy)}
    off = jax.device_get(distances(arrays))
    for name, distance in off.items():
        if not distance <= ROW_TOLERANCE:
            rows = arrays[name].sum(-1)
            worst = jnp.unravel_index(jnp.argmax(jnp.abs(rows - 1) + jnp.any(arrays[name] < 0, -1)), rows.shape)
            at = ", ".join(
                f"{axis} = {int(i)}" for axis, i in zip((*chain.times, *chain.axes()[name]), worst, strict=False)
            )
            raise ValueError(
                f"policy[{name!r}] at {at} is {arrays[name][worst]}: it must be at least 0 and sum to 1 over its last "
                "axis."
            )
    rough = [name for name, array in arrays.items() if off[name] > most_rounding(array)]
    return answers | {name: arrays[name] / jnp.sum(arrays[name], -1, keepdims=True) for name in rough}


def is_law(policy: AffinePolicy) -> bool:
    """Whether known numbers are a Gaussian law, up to rounding."""
    if not all(np.isfinite(x).all() for x in policy):
        return False
    cov = np.asarray(policy.cov, float)
    slack = 1e-5 * np.max(np.abs(cov), (-1, -2), initial=0.0)
    skew = np.max(np.abs(cov - np.swapaxes(cov, -1, -2)), (-1, -2), initial=0.0)
    return bool(np.all(skew <= slack) and np.all(np.linalg.eigvalsh(cov) >= -slack[..., None]))


@compiled
def distances(arrays: dict[str, Array]) -> dict[str, Array]:
    """For each decision how far its rows' sums are from one, at most; infinite where any entry is negative or NaN."""
    return {
        name: jnp.where(jnp.all(array >= 0), jnp.max(jnp.abs(array.sum(-1) - 1), initial=0.0), jnp.inf)
        for name, array in arrays.items()
    }


def as_found(chain: Chain, laws: dict[str, Law]) -> dict[str, Any]:
    """What users are given of one step's policies, over their whole scopes."""
    return {name: answer_of(laws[name].shifted(chain.home), scope, chain.size()) for name, scope in chain.scopes}


def as_kept(chain: Chain, laws: dict[str, Law]) -> dict[str, Any]:
    """The same of policies that a walk has kept at each time; made together, which is quicker than one by one."""
    return of_each_time(chain, laws, lambda followed: as_found(chain, followed))


def kept_laws(chain: Chain, laws: dict[str, Law]) -> dict[str, Law]:
    """Policies that a walk has kept at each time as laws of their whole scopes, over time."""

    def over_time(law: Any) -> Any:
        if isinstance(law, Conditional):
            return dataclasses.replace(law, table=over_time(law.table))
        return law.renamed((*chain.times, *law.axes))

    return {name: over_time(law) for name, law in of_each_time(chain, laws, lambda followed: followed).items()}


def of_each_time(chain: Chain, laws: dict[str, Law], function: Callable[[dict[str, Law]], Any]) -> Any:
    """A function of one step's policies, for all steps together, from what a walk has kept of them."""
    varying, constant = by_time(chain.priors())

    def one(_: Any, laws: dict[str, Law], now: Any) -> Any:
        priors = at_time(eqx.combine(now, constant))
        return function({name: priors[name].follow(law) for name, law in laws.items()})

    if chain.horizon is None or not laws:
        return one(None, laws, varying)
    return jax.vmap(one)(jnp.arange(chain.horizon), laws, varying)


def as_answers(chain: Chain, laws: dict[str, Law]) -> dict[str, Any]:
    """What users are given of policies, at all times together."""
    if chain.horizon is None:
        return as_found(chain, laws)
    varying, constant = by_time(laws)

    def one(_: Array, now: Any) -> dict[str, Any]:
        return as_found(chain, at_time(eqx.combine(now, constant)))

    return jax.vmap(one)(jnp.arange(chain.horizon), varying)


def digits_of(chain: Chain, laws: dict[str, Law], dtype: Any = None) -> Array:
    """How far the last digits of covariances of `dtype` move the sum of their logarithms of determinants.

    Of redundant controls the covariance is nearly singular, and the small part of it is what rounding left.
    """
    total = jnp.zeros(())
    for name in chain.axes():
        law = laws[name]
        if isinstance(law, LinearGaussian):
            cov = jax.lax.stop_gradient(law.cov)
            deviation = jnp.sqrt(jnp.diagonal(cov, axis1=-2, axis2=-1))
            scale = deviation[..., :, None] * deviation[..., None, :]
            correlation = cov / jnp.where(scale > 0, scale, 1.0)
            spread = jnp.linalg.eigvalsh(correlation)
            least = jnp.min(spread, -1)
            total += jnp.sum(jnp.where(least > 0, jnp.sum(1 / jnp.abs(spread), -1), jnp.inf))
    return jnp.finfo(dtype or total.dtype).eps * total
