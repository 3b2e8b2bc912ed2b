"""Log probabilities of laws as rewards are those of NumPyro in every engine, and what a site cannot be is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density

from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.inference import exact, smc

OUTSIDE = {
    "Exponential": (lambda: dist.Exponential(1.0), -1.0, 1.0, -1.0),
    "Uniform": (lambda: dist.Uniform(0.0, 2.0), 3.0, 1.0, -np.log(2)),
    "TruncatedNormal": (lambda: dist.TruncatedNormal(0.0, 1.0, low=-1.0, high=1.0), 3.0, 0.0, -0.918938533 + 0.381715),
    "HalfNormal": (lambda: dist.HalfNormal(1.0), -0.5, 1.0, np.log(2) - 1.418938533),
    "Poisson": (lambda: dist.Poisson(1.0), -1.0, 1.0, -1.0),
}


def coin(reward, **decision):
    """One step of a coin whose two sides are rewarded."""

    def step(s):
        a = decide("a", dist.Bernoulli(0.5), **decision)
        reward(a)
        return {"s": a}

    return ControlProgram(lambda: {"s": 0}, step, 1, sizes={"s": 2})


def evidence(program):
    """Log evidence by the exact engine, by particles, and by summing NumPyro's model."""
    exactly = float(exact.condition(program).log_evidence)
    drawn = float(smc.run(program, jax.random.key(0), 4000).log_evidence)
    sides = jax.vmap(lambda a: log_density(program.model, (), {}, {"t0/a": a})[0])(jnp.arange(2))
    return exactly, drawn, float(np.logaddexp(*sides))


@pytest.mark.parametrize("made", ["before the step", "in the step"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_the_log_probability_of_a_law_knows_its_support(name, made):
    make, outside, inside, log_prob = OUTSIDE[name]
    before = make()
    law = (lambda: before) if made == "before the step" else make
    program = coin(lambda a: optimality(law().log_prob(jnp.where(a == 1, inside, outside))))
    exactly, drawn, numpyros = evidence(program)
    right = np.log(0.5) + log_prob
    assert exactly == pytest.approx(right, abs=1e-5)
    assert drawn == pytest.approx(right, abs=0.1)
    assert numpyros == pytest.approx(right, abs=1e-5)


def test_a_bounded_law_of_a_real_state():
    def step(x):
        optimality(dist.Uniform(0.0, 1.0).log_prob(x))
        return {"x": x}

    program = ControlProgram(lambda: {"x": numpyro.sample("x0", dist.Normal(0.0, 1.0))}, step, 1)
    with pytest.raises(ValueError, match="not linear-Gaussian"):
        exact.condition(program)
    run = smc.run(program, jax.random.key(0), 20_000)
    assert float(run.log_evidence) == pytest.approx(-1.0749, abs=0.03)


@pytest.mark.parametrize("mask", [True, jnp.asarray(True), jnp.asarray(False)])
def test_a_masked_factor_has_its_inverse_temperature(mask):
    def reward(a):
        with handlers.mask(mask=mask):
            optimality(a * 1.0)

    right = np.log(0.5 + 0.5 * np.exp(2.0)) if bool(mask) else 0.0
    exactly, drawn, numpyros = evidence(coin(reward, inverse_temperature=2.0))
    assert exactly == pytest.approx(right, abs=1e-5)
    assert drawn == pytest.approx(right, abs=0.1)
    assert numpyros == pytest.approx(right, abs=1e-5)


def test_several_draws_at_one_site_are_refused():
    def reward(a):
        several = numpyro.sample("e", dist.Bernoulli(0.5), sample_shape=(2,))
        optimality(-jnp.sum(several) * 1.0)

    with pytest.raises(ValueError, match=r"site 'e' has sample_shape \(2,\); write each"):
        coin(reward)


def test_a_value_from_a_handler_in_the_step_is_refused():
    def reward(a):
        with handlers.substitute(data={"c": 1}):
            c = numpyro.sample("c", dist.Bernoulli(0.5))
        optimality(c * 1.0)

    with pytest.raises(ValueError, match="site 'c' is given a value by a handler inside the step"):
        coin(reward)


@pytest.mark.parametrize("scale", [-2.0, np.array(-2.0), jnp.asarray(-2.0)])
@pytest.mark.parametrize("kind", ["decision", "chance"])
def test_negative_standard_deviations_are_refused(scale, kind):
    def step(x):
        law = dist.Normal(0.0, scale)
        u = decide("u", law) if kind == "decision" else numpyro.sample("u", law)
        optimality(-(u**2) - x**2)
        return {"x": x}

    with pytest.raises(ValueError, match="not positive definite|invalid scale"):
        exact.condition(ControlProgram(lambda: {"x": numpyro.sample("x0", dist.Normal(0.0, 1.0))}, step, 1))
    with pytest.raises((ValueError, FloatingPointError), match="'u' .*no distribution|invalid scale"):
        smc.run(
            ControlProgram(lambda: {"x": numpyro.sample("x0", dist.Normal(0.0, 1.0))}, step, 1), jax.random.key(0), 10
        )


@pytest.mark.parametrize("kind", ["decision", "chance"])
def test_negative_standard_deviations_in_args_are_refused(kind):
    """NumPyro's own check does not see them: they are traced."""

    def step(scale, x):
        law = dist.Normal(0.0, scale)
        u = decide("u", law) if kind == "decision" else numpyro.sample("u", law)
        optimality(-(u**2) - x**2)
        return {"x": x}

    def initial(scale):
        return {"x": numpyro.sample("x0", dist.Normal(0.0, 1.0))}

    program = ControlProgram(initial, step, 1, args=(jnp.asarray(-2.0),))
    with pytest.raises(ValueError, match="'u' is not linear-Gaussian: its covariance is not positive definite"):
        exact.condition(program)
    with pytest.raises(FloatingPointError, match="'u' .*no distribution"):
        smc.run(program, jax.random.key(0), 10)


def test_random_keys_in_a_step_are_no_numbers():
    program = coin(lambda a: optimality(jax.random.uniform(jax.random.key(1), (2,))[a]))
    drawn = np.asarray(jax.random.uniform(jax.random.key(1), (2,)))
    assert float(exact.condition(program).log_evidence) == pytest.approx(np.log(np.mean(np.exp(drawn))), abs=1e-5)


def test_sums_in_half_precision_are_no_quadratics():
    def step(x):
        u = decide("u", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        optimality(-jnp.dot(u, u, preferred_element_type=jnp.bfloat16).astype(float))
        return {"x": x}

    with pytest.raises(ValueError, match="takes dot_general of them"):
        exact.condition(ControlProgram(lambda: {"x": numpyro.sample("x0", dist.Normal(0.0, 1.0))}, step, 1))
