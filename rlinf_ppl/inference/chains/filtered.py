"""What is known of the state at each time from the data up to it: the rule of Bayes, forwards in time.

    p(s_t | y_0..t) ~ p(s_t | y_0..t-1) p(y_t | s_t),      p(s_t+1 | y_0..t) = E p(s_t+1 | s_t, y_t)

Both factors are those of one step's elimination: with nothing after it, what is left of a step is log p(y_t | s_t), and
its laws on the way are those given y_t. Chains hold no optimality here, and decisions are chance.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from rlinf_ppl import algebra
from rlinf_ppl.algebra import Chain, Law, Message, Site, Slice, at_time, by_time
from rlinf_ppl.algebra.affine_marginals import following, walked
from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.algebra.gaussians import LinearGaussian
from rlinf_ppl.algebra.marginals import transposed
from rlinf_ppl.algebra.quadratics import SAFETY, Gaussian, Quadratic
from rlinf_ppl.algebra.squares import Squares
from rlinf_ppl.inference.chains.careful import SPOILT, all_decided, with_sites
from rlinf_ppl.inference.chains.forbidden import ruled_out, support, with_impossible
from rlinf_ppl.inference.chains.policies import Policy, as_laws
from rlinf_ppl.program import ControlProgram, read
from rlinf_ppl.program.linear import read_squares

RULES = algebra.condition_rules(None)


class Filtered(NamedTuple):
    """Laws of the state given the data so far.

    Attributes:
        state: (T + 1, states), or a `Gaussian` of the state variables side by side; of one step without T + 1.
        impossible: whether data so far have probability zero.
        off: how much of the law may have been lost: a probability, or of vectors the relative rounding of covariances.
    """

    state: Any
    impossible: Bool[Array, "*time"]
    off: Float[Array, "*time"]


def filter_of(program: ControlProgram, policy: Policy | None) -> Filtered:
    """What is known of the state of a program whose decisions follow a policy, or their priors."""
    chain = read(program, impossible=True, optimality=False)
    if not program.structure.gaussian:
        return of_tables(chain, chain.priors() if policy is None else as_laws(chain, policy))
    if chain.alive is not None and any(site.is_factor for site in (*chain.step.sites, *chain.final)):
        raise ValueError(
            "with a discount what is known of vectors is a mixture of the living and the dead, not Gaussian; filter at "
            "discount 1."
        )
    known = not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((program, policy)))
    chain = read_squares(program, optimality=False) if known else chain.counting
    return of_vectors(chain, chain.priors() if policy is None else as_laws(chain, policy))


def followed(chain: Chain, policy: dict[str, Law]) -> Chain:
    """The program with decisions that chance takes, by a policy."""

    def one(site: Site) -> Site:
        return Site(site.name, "chance", policy[site.name]) if site.kind == "decision" else site

    return dataclasses.replace(chain, step=with_sites(chain.step, one))


class Masses(NamedTuple):
    """Probabilities of states, first of the living, then of the dead where there are any: shape (1 or 2, states).

    Attributes:
        known: what was found of them.
        lost: what may be missing: numbers below the smallest are zeros here, and later data may bring them back.
        reach: 1 where there may be any, however small.
    """

    known: Float[Array, "..."]
    lost: Float[Array, "..."]
    reach: Float[Array, "..."]


@compiled
def of_tables(chain: Chain, policy: dict[str, Law]) -> Filtered:
    """The recursion over finite variables; the dead are observed no more."""
    chain = with_impossible(followed(chain, policy))
    anywhere, size = constraints(chain), chain.size()
    alive = None if chain.alive is None else chain.survival[1]
    some = None if alive is None else jnp.where((alive > 0) & (alive < 1), 0.5, alive)

    known, reach = first(chain), jnp.sign(first(anywhere))
    masses = Masses(*(jnp.stack([x, *[0 * x] * (alive is not None)]) for x in (known, least(known) * reach, reach)))
    varying, constant = by_time((chain.step, anywhere.step))

    def body(before: Masses, now: Any) -> tuple[Masses, Any]:
        step, step_anywhere = at_time(eqx.combine(now, constant))
        found, moved = through(chain, step, alive)
        after, told = weighed(before, found)
        reach = jnp.sign(through(anywhere, step_anywhere, some)[1](after.reach))
        return Masses(moved(after.known), moved(after.lost) + least(found) * reach, reach), told

    last, told = lax.scan(body, masses, varying, length=chain.horizon)
    final = algebra.walk(chain.final, chain.zero, RULES)[0].over(chain.state, size).array
    end = weighed(last, final)[1]
    state, impossible, off = (jnp.concatenate([x, y[None]]) for x, y in zip(told, end, strict=True))
    return Filtered(state, impossible, lax.cummax(off))


def first(chain: Chain) -> Array:
    """The probabilities of the first state."""
    nothing = chain.zero.over(chain.state, chain.size())
    return jax.grad(lambda v: algebra.start(chain, nothing.renewed(v), RULES))(nothing.array)


def through(chain: Chain, step: Slice, alive: Array | None) -> tuple[Array, Callable[[Array], Array]]:
    """Log p(y | s) of one step, and what moves probabilities to the next; `alive` of the living live on."""
    size = chain.size()
    nothing = chain.zero.over(chain.state, size)

    def left(v: Array) -> Array:
        return algebra.through(step, nothing.renewed(v), RULES)[0].over(chain.state, size).array

    found, push = jax.vjp(left, nothing.array)

    def moved(masses: Array) -> Array:
        living = push(masses[0])[0]
        if alive is None:
            return living[None]
        dead = transposed(chain, step, nothing.array, algebra.expectation_rules({}), masses[1])[0]
        return jnp.stack([alive * living, (1 - alive) * living + dead])

    return found, moved


def weighed(masses: Masses, fit: Array) -> tuple[Masses, Filtered]:
    """Probabilities given data of log probability `fit`, for each state of the living, and what is told of them."""
    fits = jnp.stack([fit, *[0 * fit] * (len(masses.known) - 1)])
    reach = masses.reach * (fits > ruled_out(fit) / 2)
    top = lax.stop_gradient(jnp.max(jnp.where(masses.known > 0, fits, -jnp.inf)))
    top = jnp.where(jnp.isfinite(top), top, jnp.max(fits))
    known = masses.known * jnp.exp(jnp.where(masses.known > 0, fits, top) - top)
    total = jnp.sum(known)
    # As logarithms, since data may favour what was lost by more than any number.
    log_lost = lax.stop_gradient(jnp.log(jnp.maximum(masses.lost, least(fit))) + fits - top - jnp.log(total))
    lost = jnp.where(reach > 0, jnp.exp(jnp.minimum(log_lost, 0.0)), 0.0)
    known = known / jnp.where(total > 0, total, 1.0)
    return Masses(known, lost, reach), Filtered(jnp.sum(known, 0), ~jnp.any(reach > 0), jnp.sum(lost))


def least(x: Array) -> float:
    """Below this a number may be zero, and so may a sum of many that are."""
    return float(jnp.finfo(x.dtype).tiny) ** 0.95


def constraints(chain: Chain) -> Chain:
    """The program with ones for all positive probabilities, and of its factors only what is ruled out."""

    def one(site: Site) -> Site:
        if not site.is_factor:
            return dataclasses.replace(site, content=support(site.law))
        w, least = site.factor.array, ruled_out(site.factor.array)
        return dataclasses.replace(site, content=site.factor.renewed(jnp.where(w < least / 2, least, 0.0)))

    return dataclasses.replace(chain, initial=with_sites(chain.initial, one), step=with_sites(chain.step, one))


@compiled
def of_vectors(chain: Chain, policy: dict[str, Law]) -> Filtered:
    """The recursion over vectors, by sums of squares or quadratics: the Kalman filter for any step."""
    chain, size = followed(chain, policy), chain.size()
    state = {name: size[name] for name in chain.state}
    varying, constant = by_time(chain.step)

    def moved(part: Slice, laws: dict[str, Law], before: dict[str, int], here: Gaussian) -> Gaussian:
        return following(part, walked(part, laws, before)).joint(chain.state, here)

    def given(w: Message, here: Gaussian) -> tuple[Gaussian, Array]:
        return known_from(w.over(chain.state, size), here)

    first = moved(chain.initial, {}, {}, Gaussian(jnp.zeros(0), jnp.zeros((0, 0))))

    def body(before: Gaussian, step: Any) -> tuple[Gaussian, Any]:
        step = all_decided(at_time(eqx.combine(step, constant)))
        w, found = algebra.walk(step.sites, chain.zero, RULES)
        here, off = given(w, before)
        return moved(step, found.policy, state, here), (here, off)

    last, (every, off) = lax.scan(body, first, varying, length=chain.horizon)
    end, off_end = given(algebra.walk(chain.final, chain.zero, RULES)[0], last)
    origin = jnp.concatenate([chain.origin[name] for name in chain.state])
    mean, cov = (jnp.concatenate([x, y[None]]) for x, y in zip(every, end, strict=True))
    off = lax.cummax(jnp.append(off, off_end))
    impossible = jnp.cumsum(chain.impossible) > 0
    return Filtered(Gaussian(mean + jnp.broadcast_to(origin, mean.shape), cov), impossible, off)


def known_from(w: Quadratic | Squares, before: Gaussian) -> tuple[Gaussian, Array]:
    """The law of vectors side by side given the log probability of data, and its relative rounding."""
    name, n = "the state", len(before.mean)
    law = LinearGaussian(name, (), (), before.mean[:, None], covariance=before.cov)
    joint: Any = dataclasses.replace(w, axes=(name,), sizes=(n,))
    left, found = joint.tilt(law, None)
    after = Gaussian(found.map[:, -1], found.cov)
    return after, jnp.maximum(left.rounding.relative, rounded(w, before, after))


def rounded(w: Quadratic | Squares, before: Gaussian, after: Gaussian) -> Array:
    """What the last digits of a covariance make of that given data, relative to it; its mean in standard deviations.

    An error D of P before data moves P after them by (1 - K C) D (1 - K C)', and the mean by as much times the slope
    that is left there; 1 - K C is 1 - P L, where the data have the precision L.
    """
    (before, after), (matrix, vector, _) = lax.stop_gradient((before, after)), lax.stop_gradient(w.coefficients)
    deviations, variances = jnp.sqrt(jnp.diagonal(before.cov)), jnp.diagonal(after.cov)
    sizes = jnp.abs(jnp.eye(len(matrix)) + 2 * after.cov @ matrix) @ deviations
    slope = deviations @ jnp.abs(2 * matrix @ after.mean + vector)
    known = jnp.where(variances > 0, variances, 1.0)
    ratios = jnp.where(variances > 0, jnp.maximum(sizes**2 / known, slope * sizes / jnp.sqrt(known)), 0.0)
    return SAFETY * float(jnp.finfo(known.dtype).eps) * jnp.max(ratios, initial=0.0)


def told(found: Filtered, most: float) -> Any:
    """The laws, NaN from where they are not known, if traced.

    Args:
        found: the laws.
        most: how much may have been lost of them.

    Raises:
        ValueError: they are not known from some time on.
    """
    unknown = found.impossible | ~(found.off <= most)
    if isinstance(unknown, jax.core.Tracer):
        return jax.tree.map(
            lambda x: jnp.where(jnp.reshape(unknown, (-1, *[1] * (x.ndim - 1))), jnp.nan, x), found.state
        )
    if jnp.any(unknown):
        t = int(jnp.argmax(unknown))
        if found.impossible[t]:
            raise ValueError(
                f"the data up to time {t} have probability zero, so nothing is known of the state given them; "
                "exact.condition has their log evidence, minus infinity."
            )
        if isinstance(found.state, Gaussian):
            raise ValueError(SPOILT.format(f"what is known of the state at time {t}"))
        raise ValueError(
            f"probabilities below the smallest numbers may be what the data leave at time {t}: they point to states "
            "that those before had ruled out nearly. Data or moves with wider tails leave more of them."
        )
    return found.state
