"""Bounds on what policies and states spend together, and on how certain policies are: a joint dual.

    KL(mu_t(x) pi_t(u|x) || q_t(x) prior(u|x)) <= eps_t,       E log pi_t(u|x) <= delta_t

for given laws q_t of the state, with multipliers alpha and beta and tilted laws p_t (see `tilting`):

    g(alpha, beta, p) = E V_1 + sum_t gamma^t (alpha_t eps_t + beta_t delta_t),       V_t as it is there

is convex in alpha, beta and alpha log(p / q). Its slopes are what is left of the bounds, and alpha times the difference
between the moments of p_t and of the state's law under the policy that V makes best, which are equal at the minimum.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlinf_ppl.algebra import Chain, Law
from rlinf_ppl.algebra.compiled import compiled, in_all_digits
from rlinf_ppl.inference.bounds.conjugate import largest
from rlinf_ppl.inference.bounds.curvature import Here, newton
from rlinf_ppl.inference.bounds.descent import argmin
from rlinf_ppl.inference.bounds.dual import Dual, Evaluation, Point, per_time, size_of
from rlinf_ppl.inference.bounds.programs import set_multipliers
from rlinf_ppl.inference.bounds.spending import solved, spend
from rlinf_ppl.inference.bounds.temperatures import MOVES, common
from rlinf_ppl.inference.bounds.tilting import Laws, OfTables, OfVectors, sum_of_products
from rlinf_ppl.inference.chains.costs import kl_of_steps, log_prob_of_steps, visits, weights
from rlinf_ppl.inference.chains.policies import as_kept
from rlinf_ppl.program import ControlProgram

# How much of the first temperature is the entropy's.
FIRST_ENTROPY = 0.5
# What counts as a bound's size at least, in nats.
LEAST = 1e-3
# How much larger multipliers are, on the log scale, where rewards are nothing beside them; and still farther out.
FAR, FARTHER = 25.0, 32.0


class Flow(NamedTuple):
    """What soft-optimal control of a bounded program comes to.

    Attributes:
        elbo: its value.
        kl: E KL(policy || prior) at each step, (T,).
        log_prob: E log policy at each step, (T,).
        moments: of the state's law, those that tilts are linear in.
        weights: how much each step counts, (T,).
        policy: for each decision, as in a solution.
        chain: the program.
        states: the state's law, with T + 1 rows.
        laws: the policies, as the algebra has them.
    """

    elbo: Float[Array, ""]
    kl: Float[Array, " T"]
    log_prob: Float[Array, " T"]
    moments: Any
    weights: Float[Array, " T"]
    policy: dict[str, Any]
    chain: Chain
    states: Any
    laws: dict[str, Law]


@in_all_digits
def flow(program: ControlProgram, laws: Laws) -> Flow:
    """Solve a bounded program, and follow its policy."""
    chain, elbo, policy, kept = solved(program)
    visited = visits(chain, policy)
    kl = kl_of_steps(chain, policy, chain.priors(), visited)
    moments = laws.moments(jax.tree.map(lambda x: x[:-1], visited.states))
    log_prob = log_prob_of_steps(chain, policy, visited)
    kept_policy = as_kept(chain, kept)
    return Flow(elbo, kl, log_prob, moments, weights(chain), kept_policy, chain, visited.states, policy)


class StateDual(Dual):
    """The joint dual.

    Attributes:
        program: made by `with_bounds`.
        laws: q_t.
        bounds: eps, (T,), less what the first state's law spends.
        entropy_bounds: delta, (T,); None: there are none.
        plain: the program without bounds.
        start: the log of a temperature to begin at.
        within: how far from optimal is near enough.
    """

    program: ControlProgram
    laws: Laws
    bounds: Float[Array, " T"]
    entropy_bounds: Float[Array, " T"] | None
    plain: ControlProgram
    start: Float[Array, ""]
    within: float = eqx.field(static=True, default=0.0)

    @property
    def goal(self) -> float:
        """How far from optimal is near enough."""
        return self.within

    def begin(self) -> tuple[Point, Evaluation | None]:
        """Laws as they are, and one temperature at which the policy alone exceeds no bound, and moves little."""
        bounds = jnp.clip(self.bounds, LEAST, MOVES)
        x, _ = common(
            lambda x: spend(self.plain.tempered(jnp.exp(-x))), lambda spent: jnp.max(spent.kl / bounds),
            jnp.sum(bounds), self.start,
        )  # fmt: skip
        rows = [jnp.full_like(self.bounds, x)]
        if self.entropy_bounds is not None:
            rows.append(rows[0] + jnp.log(FIRST_ENTROPY))
        return Point(jnp.stack(rows), self.laws.nothing()), None

    def multipliers(self, at: Point) -> tuple[Float[Array, " T"], Float[Array, " T"]]:
        """Alpha and beta."""
        alpha = jnp.exp(at.x[0])
        return alpha, jnp.zeros_like(alpha) if self.entropy_bounds is None else jnp.exp(at.x[1])

    def tempered(self, at: Point) -> ControlProgram:
        """The program at a point."""
        return set_multipliers(self.program, *self.multipliers(at), self.laws.tilted(at.tilt)[0], at.tilt)

    def evaluate(self, at: Point) -> Evaluation:
        """The dual, by one solution and one forward pass."""
        alpha, beta = self.multipliers(at)
        constant, moments = self.laws.tilted(at.tilt)
        found = flow(self.tempered(at), self.laws)
        spent = found.kl + sum_of_products(at.tilt, found.moments) - constant
        slope = found.weights * alpha * (self.bounds - spent)
        excess = (spent - self.bounds) / jnp.maximum(self.bounds, LEAST)
        worth = jnp.sum(found.weights * alpha * self.bounds)
        value, slopes, excesses = found.elbo + worth, [slope], [excess]
        if self.entropy_bounds is not None:
            own = found.weights * beta
            slopes.append(own * (self.entropy_bounds - found.log_prob))
            excesses.append(found.log_prob - self.entropy_bounds)
            value += jnp.sum(own * self.entropy_bounds)
            worth += jnp.sum(own)
        scale = (found.weights * alpha).at[0].set(0.0)  # the first state's law is what it is
        tilt = jax.tree.map(lambda p, mu: per_time(scale, p) * (p - mu), moments, found.moments)
        rounding = jnp.abs(found.elbo) + worth
        return Evaluation(value, Point(jnp.stack(slopes), tilt), jnp.stack(excesses), worth, rounding, found)

    def moved(self, tilt: Any, step: Any) -> Any:
        """As the laws have it."""
        return self.laws.moved(tilt, step)


class TableDual(StateDual):
    """That of finite variables."""

    laws: OfTables

    def precondition(self, at: Point, evaluation: Evaluation, slope: Point, ridge: Float[Array, "B T"]) -> Point:
        """By what each bound alone would have, and the Fisher information of the tilted laws."""
        found = evaluation.found
        alpha, beta = self.multipliers(at)
        spent = found.kl + sum_of_products(at.tilt, found.moments) - self.laws.tilted(at.tilt)[0]
        near = [2 * found.weights * alpha * jnp.maximum(spent, 0.0)]
        if self.entropy_bounds is not None:
            near.append(found.weights * beta * beta / (alpha + beta) / 2)
        scale = found.weights * alpha
        scaled = jax.tree.map(lambda x: x / per_time(scale, x), slope.tilt)
        return Point(slope.x / (jnp.stack(near) + ridge), self.laws.natural(at.tilt, scaled))


class VectorDual(StateDual):
    """That of vectors, where Newton's systems are solved as they are."""

    laws: OfVectors

    @property
    def is_exact(self) -> bool:
        """All of it, as decisions see all that matters to them (see `arguments`)."""
        return True

    def precondition(self, at: Point, evaluation: Evaluation, slope: Point, ridge: Float[Array, "B T"]) -> Point:
        """By the Hessian."""
        found: Flow = evaluation.found
        alpha, beta = self.multipliers(at)
        here = Here(found.chain, found.laws, found.states, found.weights, alpha, beta, at.tilt)
        return newton(self.laws, here, slope, ridge)


class FoundStates(NamedTuple):
    """What the joint dual comes to.

    Attributes:
        alpha, beta: the multipliers, (T,).
        constant, tilt: of the laws p_t.
        elbo: of the bounded program.
        expected: what the policy earns, without what it pays for bounds.
        kl: what policy and state spend together, (T,).
        log_prob: E log policy, (T,).
        weights: how much each step counts.
        apart: how far the moments of p_t and of the state are apart, in standard deviations and beside the sum of the
            multipliers times their bounds.
        infeasible: by how many nats some bound is exceeded at least whatever the policy; minus infinity where that is
            not known.
    """

    alpha: Float[Array, " T"]
    beta: Float[Array, " T"]
    constant: Float[Array, " T"]
    tilt: Any
    elbo: Float[Array, ""]
    expected: Float[Array, ""]
    kl: Float[Array, " T"]
    log_prob: Float[Array, " T"]
    weights: Float[Array, " T"]
    apart: Float[Array, ""]
    infeasible: Float[Array, ""]


@compiled
def multipliers_of(dual: StateDual) -> FoundStates:
    """The minimum of the dual."""
    at, here = argmin(dual)
    alpha, beta = dual.multipliers(at)
    constant, _ = dual.laws.tilted(at.tilt)
    found = here.found
    # What the first state's law spends is taken off its bound.
    spent = found.kl + dual.laws.kl(found.moments).at[0].set(0.0)
    paid = found.weights * (alpha * (found.kl + sum_of_products(at.tilt, found.moments) - constant))
    paid += found.weights * beta * found.log_prob
    # Far out the dual is linear in the multipliers, and so is what no policy can avoid; what rewards do is not.
    size = jnp.sum(found.weights * (alpha + beta))
    far, farther = (-dual.evaluate(at._replace(x=at.x + x)).value / (size * jnp.exp(x)) for x in (FAR, FARTHER))
    exceeded = jnp.any(here.excess > jnp.finfo(alpha.dtype).eps ** 0.5)
    infeasible = jnp.where(exceeded & (farther > far / 2), farther, -jnp.inf)
    return FoundStates(
        alpha, beta, constant, at.tilt, found.elbo, found.elbo + jnp.sum(paid), spent, found.log_prob, found.weights,
        largest(here.slope.tilt) / size_of(here), infeasible,
    )  # fmt: skip
