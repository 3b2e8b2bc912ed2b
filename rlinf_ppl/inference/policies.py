"""Policies as users hold them, dictionaries of probability arrays, and as the elimination needs them."""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlinf_ppl.algebra import Chain, Conditional, Table
from rlinf_ppl.types import ArrayLike

Policy = Mapping[str, ArrayLike]

TOLERANCE = 1e-4


def as_conditionals(chain: Chain, policy: Policy) -> dict[str, Conditional]:
    """Each decision's law over time and its scope.

    Args:
        chain: the program.
        policy: for each decision probabilities with axes (T, scope, own), or without T where stationary, as all are at
            an infinite horizon; an axis of the scope that the policy ignores may have size 1.

    Raises:
        TypeError: it is no dictionary.
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
    if not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(dict(policy))):
        # Known numbers are checked where a caller's jit is tracing, too.
        with jax.ensure_compile_time_eval():
            check_rows(chain, shaped(chain, policy))
    return laws_of(chain, shaped(chain, policy))


def laws_of(chain: Chain, arrays: dict[str, Array]) -> dict[str, Conditional]:
    """Arrays over (T, scope, own) as laws."""
    return {name: Conditional(name, Table((*chain.times, *axes), arrays[name])) for name, axes in chain.axes().items()}


def shaped(chain: Chain, policy: Policy) -> dict[str, Array]:
    """Each decision's array with its time axis, over the whole scope."""
    return {name: with_time(chain, name, jnp.asarray(policy[name], dtype=float)) for name in chain.axes()}


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


def check_rows(chain: Chain, arrays: dict[str, Array]) -> None:
    """Raise where rows are no distributions."""
    for name, wrong in jax.device_get(wrong_rows(arrays)).items():
        if wrong:
            rows = arrays[name].sum(-1)
            worst = jnp.unravel_index(jnp.argmax(jnp.abs(rows - 1) + jnp.any(arrays[name] < 0, -1)), rows.shape)
            at = ", ".join(
                f"{axis} = {int(i)}" for axis, i in zip((*chain.times, *chain.axes()[name]), worst, strict=False)
            )
            raise ValueError(
                f"policy[{name!r}] at {at} is {arrays[name][worst]}: it must be at least 0 and sum to 1 over its last "
                "axis."
            )


@eqx.filter_jit
def wrong_rows(arrays: dict[str, Array]) -> dict[str, Array]:
    """For each decision whether any row is no distribution."""
    return {
        name: jnp.any(jnp.abs(array.sum(-1) - 1) > TOLERANCE) | ~jnp.all(array >= 0) for name, array in arrays.items()
    }


def as_arrays(chain: Chain, conditionals: dict[str, Conditional]) -> dict[str, Array]:
    """Each decision's probabilities over one step's scope, broadcast, its own axis last."""
    size, axes = chain.size(), chain.axes()
    return {name: conditionals[name].table.over(axes[name], size).array for name in axes}
