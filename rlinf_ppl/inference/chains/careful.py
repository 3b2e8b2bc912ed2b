"""Answers about vectors that rounding does not spoil: sums of squares in double precision, where quadratics fail.

Every quadratic answer says what rounding may have done to it (`algebra.rounding`). Where that is too much, the program
is traced again in float64, read as sums of squares and walked, whatever the dtype of the answer. This is for numbers
that are known: what is traced by a caller's jit, vmap or grad is answered once, and says by `converged` whether it
holds.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from rlinf_ppl import algebra
from rlinf_ppl.algebra import TIME, Chain, Law, Site
from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.inference.chains.answers import Posterior, Solution, constant, verdict
from rlinf_ppl.program import ControlProgram, read
from rlinf_ppl.program.linear import read_squares
from rlinf_ppl.program.precision import in_double, widened

Answer = TypeVar("Answer", Solution, Posterior)
Tree = TypeVar("Tree")

SPOILT = (
    "rounding spoils {}: variances, costs or distances from the origin are too far apart in size for the dtype, or a "
    "covariance is singular up to its last digits. jax.config.update('jax_enable_x64', True) has more digits."
)


def carefully(
    program: ControlProgram,
    answer: Answer,
    again: Callable[[Chain, Any], Answer],
    reader: Callable[[ControlProgram], Chain] = read_squares,
) -> Answer:
    """An answer, or where rounding spoils it a better one.

    Args:
        program: any program of vectors.
        answer: what it is in the dtype of today.
        again: makes it anew from the program as a chain in float64; the other argument is the dtype that it is for.
        reader: makes the chain.
    """
    if isinstance(answer.converged, jax.core.Tracer) or bool(answer.converged) or program.horizon is None:
        return answer
    dtype = answer.error_bound.dtype
    chain = chain_in_double(program, reader)
    with jax.enable_x64(True):
        other = again(chain, dtype)
        other = jax.tree.map(lambda x, like: x.astype(like.dtype), other, answer)
    bounds = [float(jnp.nan_to_num(found.error_bound, nan=jnp.inf)) for found in (other, answer)]
    if not bool(other.converged) and not (bool(chain.valid) and bounds[0] < bounds[1]):
        return answer
    total = other.elbo if isinstance(other, Solution) else other.log_evidence
    last_digit = float(jnp.finfo(total.dtype).eps) * jnp.abs(total)
    return other._replace(error_bound=jnp.maximum(other.error_bound, last_digit))


def precisely(
    program: ControlProgram, given: Any, answer: Callable[[ControlProgram], Tree], tables: bool = False
) -> Tree:
    """What a function makes of a program and what was given with it: of known vectors in float64, in today's dtype.

    Args:
        program: any program.
        given: what was given with it.
        answer: the function.
        tables: whether finite variables are treated so, too.
    """
    small = jnp.zeros(())
    leaves = jax.tree.leaves((small, program, given))
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
    if traced or small.dtype == jnp.float64 or not (tables or program.structure.gaussian):
        return answer(program)
    with jax.enable_x64(True):
        wide = in_double(program)
        found = None if wide is None else answer(wide)
    if found is None:
        return answer(program)
    return jax.tree.map(lambda x: x.astype(jax.dtypes.canonicalize_dtype(x.dtype)), found)


def kept(value: Array, converged: Array, what: str) -> Array:
    """A number whose rounding is known to be small; NaN where it is not, if traced.

    Raises:
        ValueError: it is not, and known.
    """
    if isinstance(converged, jax.core.Tracer):
        return jnp.where(converged, value, jnp.nan)
    if not bool(converged):
        raise ValueError(SPOILT.format(what))
    return value


def posterior_chain(program: ControlProgram, tau: Array | None, dtype: Any = None) -> tuple[Chain, dict[str, Law]]:
    """A program of vectors given optimality: its chance follows the posterior, and so does the policy beside it.

    Args:
        program: any program of vectors.
        tau: the inverse temperature of all its decisions.
        dtype: whose digits the laws need; None: those that they have.

    Raises:
        ValueError: known numbers lose too many digits. Where they are traced the laws are NaN instead.
    """
    chain = read(program)
    laws, converged = posterior_laws(chain.counting, tau, dtype)
    if isinstance(converged, jax.core.Tracer):
        laws = jax.tree.map(lambda x: jnp.where(converged, x, jnp.nan), laws)
    elif not bool(converged):
        # Laws in single precision, however they were found, would not hold what is small of a wide covariance.
        if chain.zero.array.dtype == jnp.float64:
            laws, converged = posterior_laws(read_squares(program), tau, dtype)
        if not bool(converged):
            raise ValueError(SPOILT.format("the posterior of this program") + " exact.condition gives what there is.")
    return with_laws(chain, laws), {name: laws["step"][name] for name, _ in chain.scopes}


def chain_in_double(program: ControlProgram, reader: Callable[[ControlProgram], Chain]) -> Chain:
    """A program as a chain in float64, read so where it can be."""
    with jax.enable_x64(True):
        wide = in_double(program)
        if wide is not None:
            return widened(reader(wide))
    chain = reader(program)
    with jax.enable_x64(True):
        return widened(chain)


@compiled
def posterior_laws(
    chain: Chain, tau: Array | None, dtype: Any = None
) -> tuple[dict[str, dict[str, Law]], Bool[Array, ""]]:
    """For `initial` and `step` each latent site's law given optimality and what stands before it, and a verdict."""
    rules = algebra.condition_rules(constant(chain, tau))
    # Given optimality chance is tilted as decisions are.
    chosen = dataclasses.replace(chain, initial=all_decided(chain.initial), step=all_decided(chain.step))
    walked = algebra.backward(chosen.quickest(), lambda _: rules, found=lambda found: found.policy)
    begun, first = algebra.through(chosen.initial, walked.first, rules)
    timed = {name: dataclasses.replace(law, axes=(TIME, *law.axes)) for name, law in walked.kept.items()}
    return {"initial": first.policy, "step": timed}, verdict(chain, walked, begun.whole, None, dtype)[0]


def all_decided(part: algebra.Slice) -> algebra.Slice:
    """A slice whose chance sites count as decisions."""
    return with_sites(part, lambda site: dataclasses.replace(site, kind="decision") if site.kind == "chance" else site)


def with_laws(chain: Chain, laws: dict[str, dict[str, Law]]) -> Chain:
    """A program whose chance sites have other laws."""

    def given(part: str) -> Callable[[Site], Site]:
        return lambda site: dataclasses.replace(site, content=laws[part].get(site.name, site.content))

    initial, step = with_sites(chain.initial, given("initial")), with_sites(chain.step, given("step"))
    return dataclasses.replace(chain, initial=initial, step=step)


def with_sites(part: algebra.Slice, function: Callable[[Site], Site]) -> algebra.Slice:
    """A slice with something done to each site."""
    return dataclasses.replace(part, sites=tuple(function(site) for site in part.sites))
