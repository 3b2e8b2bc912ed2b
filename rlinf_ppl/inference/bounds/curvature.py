"""Newton's systems of the joint dual for vectors, which are block tridiagonal in the values.

The dual is a function of alpha, beta and L = alpha tilt. A change of L_t is one of the values, as far as it is not
what the step after it passes on,

    dL_t = E dV_{t+1} - dV_t - d alpha KL(policy || prior)

and in the coordinates (log alpha, log beta, V / alpha) the Hessian couples neighbours only. All that happens in a step
is affine in standard normals: e_0 of the state, then one vector for each site. A change moves log weights there by

    f = E dV_{t+1} - dV_t - d alpha (log p / q + log policy / prior) - d beta log policy

a quadratic of e. The Hessian is E_p (E[f | e_0] - E f)^2 / alpha, with the tilted law p of the state, and for each
decision, where the policy really leads, E (E[f | e_0..e_i] - E[f | e_0..e_{i-1}])^2 / (alpha + beta). Chance weighs
nothing.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from rlinf_ppl.algebra import Chain, Law, at_time, by_time
from rlinf_ppl.algebra.affine_marginals import following, walked
from rlinf_ppl.algebra.quadratics import Gaussian
from rlinf_ppl.algebra.small_matrices import cholesky, inverse, positive_solve
from rlinf_ppl.inference.bounds.dual import Point, per_time
from rlinf_ppl.inference.bounds.forms import Form, combined, packed_slope, products, unpacked, weights_of
from rlinf_ppl.inference.bounds.tilting import OfVectors, Tilt


class Here(NamedTuple):
    """Where the dual is evaluated.

    Attributes:
        chain: the program there.
        policy: the decisions' laws, over time.
        states: where they lead, with T + 1 rows.
        weights: how much each step counts.
        alpha, beta: the multipliers.
        tilt: of the state's law.
    """

    chain: Chain
    policy: dict[str, Law]
    states: Gaussian
    weights: Float[Array, " T"]
    alpha: Float[Array, " T"]
    beta: Float[Array, " T"]
    tilt: Tilt


class Kind(NamedTuple):
    """What is the same at all times.

    Attributes:
        state: the sizes of the state variables.
        of_state: which coordinates of e are of the state; those after the last decision are left out.
        decides: which are of a decision.
    """

    state: dict[str, int]
    of_state: np.ndarray
    decides: np.ndarray


class Step(NamedTuple):
    """One step, all in z.

    Attributes:
        own: rows whose products are second derivatives, of log alpha, log beta and V / alpha.
        later: the same of V / alpha of the next step.
        passed: z of the next step as a function of z, (n, n + 1), without noise.
        cost: KL(policy || prior), the tilt that it is.
    """

    own: Float[Array, "R J"]
    later: Float[Array, "R d"]
    passed: Float[Array, "n N"]
    cost: Tilt


def newton(laws: OfVectors, here: Here, slope: Point, ridge: Float[Array, "B T"]) -> Point:
    """The step for a slope.

    Args:
        laws: q_t.
        here: where.
        slope: in the logarithms of multipliers, and in the tilts.
        ridge: what is added to the diagonal of the multipliers.
    """
    num = len(slope.x)
    steps, ratio = each_step(laws, here, num), next_alpha(here) / here.alpha

    def tilts(y: Point) -> Point:
        """The change of tilts from one of the values, divided by alpha."""
        later = jax.tree.map(lambda v: jnp.roll(v, -1, 0), y.tilt)
        passed = jax.vmap(passed_on)(steps.passed, *later)
        s = y.x[0]

        def change(later: Array, own: Array, cost: Array, tilt: Array) -> Array:
            moved = per_time(ratio, own) * later - own - per_time(s, own) * (cost + tilt)
            return moved.at[0].set(0.0)  # the first state's law is what it is

        return Point(y.x, jax.tree.map(change, passed, y.tilt, steps.cost, here.tilt))

    zero = jax.tree.map(jnp.zeros_like, slope)
    target: Point = jax.linear_transpose(tilts, zero)(slope)[0]
    right = jnp.concatenate([target.x.T, packed_slope(target.tilt)], 1)
    root = jnp.sqrt(here.weights)[:, None, None]
    own = root * steps.own
    later = jnp.pad(root * steps.later, ((0, 0), (0, 0), (num, 0)))
    entered = jnp.roll(jnp.swapaxes(later, 1, 2) @ later, 1, 0).at[0].set(0.0)
    # Nothing depends on the value of the first state.
    added = jnp.concatenate([ridge.T, jnp.zeros_like(right[:, num:]).at[0].set(1.0)], 1)
    index = np.arange(right.shape[1])
    diagonal = (jnp.swapaxes(own, 1, 2) @ own + entered).at[:, index, index].add(added)
    found = tridiagonal(diagonal, jnp.swapaxes(own, 1, 2) @ later, right)
    return tilts(Point(found[:, :num].T, unpacked(found[:, num:], laws.mean.shape[1])))


def next_alpha(here: Here) -> Float[Array, " T"]:
    """Alpha of the next step, times the probability to be alive there; 0 after the last one."""
    alive = jnp.ones(()) if here.chain.alive is None else here.chain.survival[1]
    return alive * jnp.roll(here.alpha, -1).at[-1].set(0.0)


def each_step(laws: OfVectors, here: Here, num: int) -> Step:
    """All steps at once."""
    chain, size = here.chain, here.chain.size()
    kind = kind_of(chain, {name: size[name] for name in chain.state})
    origin = jnp.concatenate([chain.origin[name] for name in chain.state])[None]
    mean = jnp.einsum("tij,tj->ti", laws.whiten, here.states.mean[:-1] - laws.mean)
    led = Gaussian(mean, laws.whiten @ here.states.cov[:-1] @ jnp.swapaxes(laws.whiten, 1, 2))
    taken = jax.tree.map(lambda law, own: law.at[0].set(own[0]), laws.law(here.tilt), led)
    frames = jax.vmap(affine)(laws.root, laws.mean - origin)
    offsets = jnp.einsum("tij,tj->ti", laws.whiten, origin - laws.mean)
    into = jnp.roll(jax.vmap(affine)(laws.whiten, offsets), -1, 0)
    rates = jnp.stack([(1 / here.alpha).at[0].set(0.0), 1 / (here.alpha + here.beta)], 1)
    multipliers = here.alpha, here.beta, next_alpha(here)
    varying, constant = by_time((chain.step, here.policy))

    def one(now: Any, *rest: Any) -> Step:
        return step_of(kind, num, *at_time(eqx.combine(now, constant)), *rest)

    return jax.vmap(one)(varying, taken, led, here.tilt, frames, into, rates, multipliers)


def kind_of(chain: Chain, state: dict[str, int]) -> Kind:
    """What the sites of a step are."""
    sites = [site for site in chain.step.sites if not site.is_factor]
    decides = [False, *(site.kind == "decision" for site in sites)]
    upto = 1 + max(i for i, one in enumerate(decides) if one)
    size = chain.size()
    widths = [sum(state.values()), *(size[site.name] for site in sites)][:upto]
    which = np.repeat(np.arange(upto), widths)
    return Kind(state, which == 0, np.asarray(decides)[which])


def step_of(
    kind: Kind, num: int, step: Any, policy: dict[str, Law], p: Gaussian, led: Gaussian, tilt: Tilt, frame: Array,
    into: Array, rates: Array, multipliers: tuple[Array, Array, Array],
) -> Step:  # fmt: skip
    """One step.

    Args:
        kind: what its sites are.
        num: how many multipliers it has.
        step: its slice.
        policy: its decisions' laws.
        p: the tilted law of z.
        led: where the policy leads.
        tilt: log p / q, up to a constant.
        frame: [x, 1] in terms of [z, 1].
        into: [z, 1] in terms of [x, 1] at the next step.
        rates: what variances of the state and of decisions are divided by.
        multipliers: alpha, beta and alpha of the next step.
    """
    rows = walked(step, policy, kind.state)
    n, alpha, beta, later = len(p.mean), *multipliers
    reached = following(step, rows)
    after = into[:-1, :-1] @ jnp.concatenate([reached.rows[name] for name in kind.state])
    after = after.at[:, -1].add(into[:-1, -1])
    apart = [
        inverse(cholesky(site.law.cov))[0] @ (rows.rows[site.name] - rows.mean(site.law))
        for site in step.sites if site.kind == "decision"
    ]  # fmt: skip
    noise = cholesky(rows.noise[: len(kind.decides) - n, : len(kind.decides) - n])

    def forms(law: Gaussian) -> tuple[Form, Form]:
        """What own and later changes do, with the state's law."""
        standard = standardised(law, frame, noise)
        values = products(law.mean, jnp.pad(cholesky(law.cov), ((0, 0), (0, len(noise)))))
        half = Form(jnp.zeros((1, len(kind.decides))), jnp.diag(jnp.where(kind.decides, 0.5, 0.0))[None])
        price = combined(values, tilt).times(-1.0).plus(half)
        for each in apart:
            constant, slope = standard(each)
            price = price.plus(Form(-(slope.T @ constant)[None], -(slope.T @ slope)[None] / 2))
        own = [price.times(alpha), half.times(beta)][:num]
        joined = Form(*(jnp.concatenate(x) for x in zip(*own, values.times(-alpha), strict=True)))
        return joined, products(*standard(after)).times(later)

    weigh = weights_of(kind.of_state, kind.decides, rates)
    own, next_one = (weigh(*both) for both in zip(forms(p), forms(led), strict=True))
    plain = [each[:, :n] @ frame[:n, :n] for each in apart]
    shift = [each[:, :n] @ frame[:n, n] + each[:, -1] for each in apart]
    cost = sum(m.T @ c for m, c in zip(plain, shift, strict=True)), -sum(m.T @ m for m in plain)
    passed = affine_rows(after, frame)
    return Step(own, next_one, passed, cost)


def standardised(law: Gaussian, frame: Array, noise: Array) -> Any:
    """A function to constant and slope in e of rows over x, noise and 1."""
    root, n = cholesky(law.cov), len(law.mean)

    def standard(rows: Array) -> tuple[Array, Array]:
        own = rows[:, :n] @ frame[:n, :n]
        constant = own @ law.mean + rows[:, :n] @ frame[:n, n] + rows[:, -1]
        return constant, jnp.concatenate([own @ root, rows[:, n : n + len(noise)] @ noise], 1)

    return standard


def affine_rows(rows: Array, frame: Array) -> Float[Array, "n N"]:
    """Rows over x, noise and 1 as rows over z and 1, without the noise."""
    n = len(frame) - 1
    constant = rows[:, :n] @ frame[:n, n] + rows[:, -1]
    return jnp.concatenate([rows[:, :n] @ frame[:n, :n], constant[:, None]], 1)


def affine(matrix: Float[Array, "n n"], offset: Float[Array, " n"]) -> Float[Array, "N N"]:
    """[x, 1] in terms of [z, 1] where x = matrix z + offset."""
    n = len(offset)
    return jnp.eye(n + 1).at[:n, :n].set(matrix).at[:n, n].set(offset)


def passed_on(passed: Float[Array, "n N"], slope: Float[Array, " n"], curved: Float[Array, "n n"]) -> Tilt:
    """The tilt of z that one of the next z is, on average."""
    matrix, constant = passed[:, :-1], passed[:, -1]
    return matrix.T @ (slope - curved @ constant), matrix.T @ curved @ matrix


def tridiagonal(
    diagonal: Float[Array, "T N N"], above: Float[Array, "T N N"], right: Float[Array, "T N"]
) -> Float[Array, "T N"]:
    """The solution of a symmetric positive definite system of blocks; `above` couples each step to the next one."""

    def eliminate(later: tuple[Array, Array], now: tuple[Array, Array, Array]) -> Any:
        (block, left), (own, coupling, target) = later, now
        solved = positive_solve(block, jnp.concatenate([coupling.T, left[:, None]], 1))
        return (own - coupling @ solved[:, :-1], target - coupling @ solved[:, -1]), solved

    def substitute(before: Array, solved: Array) -> tuple[Array, Array]:
        here = solved[:, -1] - solved[:, :-1] @ before
        return here, here

    last, rest = (diagonal[-1], right[-1]), (diagonal[:-1], above[:-1], right[:-1])
    first, solved = lax.scan(eliminate, last, rest, reverse=True)
    begin = positive_solve(first[0], first[1][:, None])[:, 0]
    return jnp.concatenate([begin[None], lax.scan(substitute, begin, solved)[1]])
