"""Stein variational gradient descent: actions of a soft policy that has no closed form (Liu & Wang 2016).

The soft policy of one real-valued decision, as a set of particles a_1..a_n, where states and earlier sites are known:

    pi(a) = p(a) exp(tau Q(a)) / Z,      Q(a) = E over the step's later chance of (its factors + value(next state))

Soft Q-learning samples from it, and it has several humps where several actions are good (Haarnoja, Tang, Abbeel &
Levine 2017). With a kernel k of the median width, each particle moves along

    phi(a) = (1 / n) sum_j [k(a_j, a) grad log pi(a_j) + grad_{a_j} k(a_j, a)]

by NumPyro's `SteinVI` with a point guide and Adagrad, in the coordinates z of a = mean + factor z in which the prior is
N(0, I). Q is differentiated through the step, summed over what is finite, and averaged over normals that are fixed once
and come in mirrored pairs. What only jumps has no gradient, and particles do not see it.

Particles hardly cross between humps that are far apart, so how many sit on each is settled where they start: at draws
from the prior, weighted by exp(tau Q) and drawn anew. Within a hump they are a little too close together: covariances
of Gaussians in two dimensions come out some 4 to 7% too small with 100 particles, 2 to 4% with 200.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from rlinf_ppl.algebra import TIME, regularizers, resampling
from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.algebra.quadratics import QuadraticValue
from rlinf_ppl.inference.arguments import check_count, check_key, check_number, check_value
from rlinf_ppl.inference.particles.proposals import Quadratic, Twist, Valued, as_twist
from rlinf_ppl.inference.particles.simulator import Simulator, Values, noise_of, simulator_of
from rlinf_ppl.program import ControlProgram
from rlinf_ppl.program.checks import check_sees
from rlinf_ppl.program.conditionals import Looked
from rlinf_ppl.program.forms import SiteForm
from rlinf_ppl.program.laws import FiniteLaw, GaussianLaw, SampledLaw
from rlinf_ppl.program.point import Point
from rlinf_ppl.program.reading import check_program
from rlinf_ppl.program.supports import Support, is_finite, values_of

__all__ = ["Particles", "sample"]

DRAWS = 32
JITTER = 0.01


class Particles(NamedTuple):
    """Particles of a soft policy.

    Attributes:
        values: what they are, shape (n,) followed by that of the decision.
        forces: the norm of all that moved them, at each step; near 0 once they rest.
    """

    values: Float[Array, "n ..."]
    forces: Float[Array, " num_steps"]


def sample(
    program: ControlProgram,
    key: PRNGKeyArray | Array,
    decision: str,
    at: Mapping[str, Any],
    *,
    value: Any = None,
    num_particles: int = 100,
    num_steps: int = 500,
    num_chance: int = 64,
    step_size: float | Float[Array, ""] = 0.2,
) -> Particles:
    """Particles of the soft policy of one decision, at given values of what is known before it.

    Args:
        program: any step program; it may be nonlinear.
        key: a JAX random key.
        decision: the decision's name; it is Gaussian a priori and the last one of its step.
        at: the values of all state variables and of the step's sites before the decision, by their names, and t where
            the step or the value takes it.
        value: what the next state is worth, in units of optimality, weighted by the discount: None, nothing; an array
            (T + 1, states) such as `exact.solve(...).value`, a `QuadraticValue`, or a function of state variables
            (and t).
        num_particles: n; a single one climbs to a mode of the policy's density.
        num_steps: how often they move.
        num_chance: how many draws of the later chance sites Q is averaged over.
        step_size: of Adagrad, in standard deviations of the prior.

    Raises:
        TypeError, ValueError: where the decision is finite or followed by another one, pays something
            else than its KL or has an infinite inverse temperature, or an argument does not fit.
        FloatingPointError: where a particle's numbers are not finite; under jit and vmap nothing is raised.
    """
    site, key = check_decision(program, decision), check_key(key)
    check_sees(program, "the policy of one decision")
    twist = as_twist(program, without_time(program, value))
    known_before = check_values(program, decision, at, twist)
    counts = check_count("num_particles", num_particles), check_count("num_steps", num_steps)
    chance = check_count("num_chance", num_chance)
    step = check_number("step_size", step_size)
    if not isinstance(step, jax.core.Tracer) and not float(step) > 0:
        raise ValueError(f"step_size must be a number above 0; got {step_size}.")
    simulator = replace(simulator_of(program), twist=twist)
    simulator = replace(simulator, tau=inverse_temperature(simulator, site, known_before))
    found = moved(simulator, key, decision, known_before, *counts, chance, step)
    if not isinstance(found.values, jax.core.Tracer) and not bool(jnp.all(jnp.isfinite(found.values))):
        raise FloatingPointError(
            f"the particles of {decision!r} are not finite: at values that they took a factor, a law or `value` is NaN "
            "or infinite, or a next state is outside its values; or step_size is too large."
        )
    return found


@compiled
def moved(
    simulator: Simulator, key: Array, name: str, at: Values, n: int, num_steps: int, num_chance: int, step_size: Array
) -> Particles:
    """Particles at the end of their way, and what moved them."""
    start_key, chance_key, stein_key = jax.random.split(key, 3)
    point = simulator.at("step", at)
    law = point.law(name)
    assert isinstance(law, GaussianLaw)
    action = law.draw
    tilt = tilt_of(simulator, point, name, at, chance_key, num_chance)
    first = starts(lambda z: tilt(action(z)), start_key, n, law.num_normals)
    last, forces = descended(lambda z: tilt(action(z)), stein_key, first, num_steps, step_size)
    # A tilt that is no number need not show in its gradient.
    values = jax.vmap(lambda a: jnp.where(jnp.isfinite(tilt(a)), a, jnp.nan))(jax.vmap(action)(last))
    return Particles(values, forces)


def descended(
    tilt: Callable[[Array], Array], key: Array, first: Array, num_steps: int, step_size: Array
) -> tuple[Array, Array]:
    """Points of N(0, I) exp(tilt) that points (n, m) come to by Stein's gradient, and the norms of all forces."""
    import numpyro
    from numpyro.contrib.einstein import RBFKernel, SteinVI
    from numpyro.distributions import Delta, Normal

    n, m = first.shape

    def model() -> None:
        z = numpyro.sample("z", Normal(jnp.zeros(m), 1.0).to_event(1))
        numpyro.factor("tilt", tilt(z))

    def guide() -> None:
        numpyro.sample("z", Delta(numpyro.param("point", jnp.zeros(m)), event_dim=1))

    optimizer = numpyro.optim.Adagrad(step_size)
    # With a point as guide and its density scaled by 1 / n, a Stein mixture is Stein variational gradient descent.
    stein = SteinVI(
        model, guide, optimizer, RBFKernel(), num_stein_particles=n, num_elbo_particles=1, loss_temperature=1 / n
    )
    state = stein.init(key)._replace(optim_state=optimizer.init({"point": first}))
    state, forces = lax.scan(lambda state, _: stein.update(state), state, None, length=num_steps)
    return stein.get_params(state)["point"], forces


def starts(tilt: Callable[[Array], Array], key: Array, n: int, m: int) -> Array:
    """Points (n, m) of N(0, I) exp(tilt) by importance: in the order of their first coordinates, so evenly drawn."""
    draw_key, resample_key, jitter_key = jax.random.split(key, 3)
    points = jax.random.normal(draw_key, (DRAWS * n, m))
    points = points[jnp.argsort(points[:, 0])]
    weights, _ = resampling.normalize(jax.vmap(tilt)(points))
    kept = points[resampling.systematic(resample_key, weights)[DRAWS // 2 :: DRAWS]]
    return kept + JITTER * jax.random.normal(jitter_key, kept.shape)  # equal ones would stay equal


def tilt_of(
    simulator: Simulator, point: Point, name: str, at: Values, key: Array, num_chance: int
) -> Callable[[Array], Array]:
    """The function tau Q of the decision's value."""
    form = simulator.structure.step
    later = form.latent[[site.name for site in form.latent].index(name) + 1 :]
    normals = noise_of(form, key, (num_chance + 1) // 2, False)
    pairs = {name: jnp.concatenate([normal, -normal])[:num_chance] for name, normal in normals.items()}

    def averaged(point: Point, noise: Values, sites: tuple[SiteForm, ...]) -> Array:
        if not sites:
            return worth(simulator, point, at[TIME])
        site, *rest = sites
        law = point.law(site.name)
        follow = lambda x: averaged(point.given(site.name, x), noise, tuple(rest))  # noqa: E731
        if not isinstance(law, FiniteLaw):
            return follow(law.draw(noise[site.name]))
        # A finite site is summed over: a draw would not show how its probabilities depend on the decision.
        return jnp.sum(jnp.where(law.probs > 0, law.probs * jax.vmap(follow)(values_of(law.support)), 0.0))

    def tilt(a: Array, noise: Values) -> Array:
        return averaged(point.given(name, a), noise, later)

    return lambda a: jnp.mean(jax.vmap(tilt, (None, 0))(a, pairs))


def worth(simulator: Simulator, point: Point, t: Array) -> Array:
    """The tilt, tau (factors + value of the next state), of one draw; NaN where the next state leaves its values."""
    total, _ = simulator.factors(point, jnp.asarray(True))
    following, outside = simulator.following(point)
    psi = simulator.psi(following, t + 1)
    total = total + (simulator.discount * psi if simulator.structure.discounted else psi)
    return jnp.where(jnp.any(jnp.stack([jnp.asarray(False), *outside.values()])), jnp.nan, total)


def check_decision(program: ControlProgram, name: str) -> SiteForm:
    """The decision's site, where its soft policy is p exp(tau Q) over real numbers.

    Raises:
        TypeError, ValueError: it is not.
    """
    check_program(program)
    decisions = [site for site in program.structure.step.sites if site.kind == "decision"]
    names = [site.name for site in decisions]
    if name not in names:
        raise ValueError(f"decision is {name!r}; the program's decisions are {names}.")
    site, later = decisions[names.index(name)], names[names.index(name) + 1 :]
    law = program.structure.step.arithmetic.places.laws[name]
    if isinstance(law, SampledLaw):
        raise ValueError(
            f"the decision {name!r} is {type(law.base).__name__}; particles move in coordinates of a Gaussian prior: "
            "give it one, and let the step bend it, or use smc.run or svi.fit with guide=svi.networks(program, key)."
        )
    if is_finite(site.support):
        raise ValueError(
            f"the decision {name!r} has {len(site.support)} values, and p exp(tau Q) can be summed exactly: "
            "exact.solve does so."
        )
    if later:
        raise ValueError(
            f"after {name!r} the step decides {later}, whose policies Q would need: sample the last decision, or hand "
            "the step's later choices over to the next step."
        )
    if site.regularizer != regularizers.kl:
        raise ValueError(f"{name!r} is regularized by {site.regularizer.name}, so its policy is not p exp(tau Q).")
    return site


def inverse_temperature(simulator: Simulator, site: SiteForm, at: Values) -> Array | None:
    """The decision's own inverse temperature at the values; None where it is the plain number 1."""
    if not site.tempered:
        return None
    tau = simulator.at("step", at).temperature(site.name)
    if not isinstance(tau, jax.core.Tracer) and not math.isfinite(tau):
        raise ValueError(
            f"the inverse temperature of {site.name!r} is {tau}; then the policy is a maximum, no density."
        )
    return tau


def without_time(program: ControlProgram, value: Any) -> Any:
    """A quadratic value as twists have it: one row of time where the horizon has no end."""
    if isinstance(value, QuadraticValue) and program.horizon is None and value.matrix.ndim == 2:
        return QuadraticValue(*(part[None] for part in value))
    return value


def check_values(program: ControlProgram, decision: str, at: Any, twist: Twist | None) -> Values:
    """The values of what is known before a decision, checked, and t.

    Raises:
        TypeError: `at` is no mapping.
        ValueError: a name is missing or unknown, or a value does not fit.
    """
    if not isinstance(at, Mapping):
        raise TypeError(f'at must be a dict of values such as {{"x": jnp.zeros(2)}}; got {type(at).__name__}.')
    sites = [site.name for site in program.structure.step.latent]
    wanted: dict[str, Support] = dict(program.structure.state)
    wanted |= {name: program.supports[name] for name in sites[: sites.index(decision)]}
    if program.horizon is None and isinstance(twist, Valued) and TIME in twist.function.names:
        raise ValueError("value takes t, but without an end the value of a state is the same at all times.")
    if program.horizon is not None and (TIME in at or program.structure.takes_time or varies(twist)):
        wanted |= {TIME: range(program.horizon)}
    missing, unknown = [name for name in wanted if name not in at], [name for name in at if name not in wanted]
    if missing or unknown:
        raise ValueError(
            f"at lacks {missing} and has the unknown {unknown}; before {decision!r} the step knows {list(wanted)}."
        )
    return {TIME: jnp.zeros((), int)} | {
        name: check_value(f"at[{name!r}]", support, at[name]) for name, support in wanted.items()
    }


def varies(twist: Twist | None) -> bool:
    """Whether a value varies in time, where the horizon has an end."""
    if isinstance(twist, Valued):
        return TIME in twist.function.names
    return isinstance(twist, Quadratic) or (isinstance(twist, Looked) and twist.timed)
