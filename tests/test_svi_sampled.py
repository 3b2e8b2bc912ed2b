"""Losses whose gradient is sampled: unbiased for the exact one, quiet enough to fit, and right under NumPyro's SVI."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from game_programs import random_game
from numpyro.distributions import Categorical, Normal
from programs_more import PAIRS

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact, svi
from rlinf_ppl.inference.fitting import guides
from rlinf_ppl.inference.fitting.estimators import sampled, score_function
from rlinf_ppl.program import read
from rlinf_ppl.tasks import MDP, gallery

KEY = jax.random.key(0)
SLOW = pytest.mark.slow
ESTIMATORS = {"sampled": sampled, "score function": score_function}


@cache
def random_task(horizon, states=5, actions=3, discount=1.0):
    rng = np.random.default_rng(6)
    transition = rng.dirichlet(np.ones(states), size=(states, actions))
    mdp = MDP(transition, rng.normal(size=(states, actions)), np.full(states, 1 / states))
    return models.single_agent(mdp, horizon, discount=discount)


def estimates(program, estimator, n, repeats, spread):
    """The exact ELBO and gradient, and many estimates of both, at a guide some way from the prior."""
    chain = read(program)
    logits = {name: spread * theta for name, theta in guides.initial_logits(chain, KEY).items()}
    truth = jax.value_and_grad(lambda logits: guides.bound(chain, logits))(logits)

    @jax.jit
    def many(logits, keys):
        one = jax.value_and_grad(lambda logits, key: estimator(chain, logits, key, n))
        return jax.lax.map(lambda key: one(logits, key), keys)

    return truth, many(logits, jax.random.split(jax.random.key(1), repeats))


def z_scores(samples, truth):
    samples = np.asarray(samples)
    # Where nothing is left to chance, such as a decision that sees nothing, the noise is rounding.
    error = np.maximum(samples.std(0) / np.sqrt(len(samples)), 1e-12)
    return (samples.mean(0) - np.asarray(truth)) / error


def largest_z(truth, found):
    """The largest standardised error of each decision's gradient: entry by entry, and in the exact direction."""
    worst = 0.0
    for name, gradient in truth.items():
        samples = np.asarray(found[name])
        along = (samples * np.asarray(gradient)).sum(tuple(range(1, samples.ndim)))
        # Entries that are met a few times only are not normal; those met often are.
        often = (samples != 0).mean(0) > 0.2
        entries = np.abs(z_scores(samples, gradient)[often])
        worst = max(worst, *entries, abs(z_scores(along, np.sum(np.asarray(gradient) ** 2))))
    return worst


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("horizon", [3, 10, pytest.param(50, marks=pytest.mark.slow)])
def test_the_gradient_is_unbiased_at_every_horizon(horizon, name):
    (loss, gradient), (losses, gradients) = estimates(random_task(horizon), ESTIMATORS[name], 50, 1000, 5.0)
    assert largest_z(gradient, gradients) < 4
    np.testing.assert_allclose(losses.mean(), loss, atol=1e-12 + 4 * losses.std() / np.sqrt(1000))


@pytest.mark.slow
@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_step_that_is_credited_its_own_reward_only_would_be_found_out(name):
    program = random_task(10)
    (_, gradient), (_, gradients) = estimates(program, ESTIMATORS[name], 50, 1000, 5.0)
    chain = read(program)
    logits = {name: 5.0 * theta for name, theta in guides.initial_logits(chain, KEY).items()}

    def myopic(theta):
        visits = exact.marginals(program, guides.policy_of(chain, logits)).state[:-1]
        q = guides.policy_of(chain, {"a": theta})["a"]
        paid = q * (chain.step.sites[1].content.array[None] - jnp.log(q) + jnp.log(1 / 3))
        return jnp.sum(visits[..., None] * paid)

    assert largest_z({"a": jax.grad(myopic)(logits["a"])}, gradients) > 10


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize(
    "pair",
    [
        "discounted_final",
        "two_temperatures",
        "clock",
        *(pytest.param(x, marks=SLOW) for x in ("adversary", "dice", "zeros")),
    ],
)
def test_the_gradient_is_unbiased_for_any_program(pair, name):
    (loss, gradient), (losses, gradients) = estimates(PAIRS[pair].control(), ESTIMATORS[name], 50, 1000, 5.0)
    assert largest_z(gradient, gradients) < 4
    np.testing.assert_allclose(losses.mean(), loss, atol=1e-12 + 4 * losses.std() / np.sqrt(1000))


@pytest.mark.slow
@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_gradient_is_unbiased_where_decisions_do_not_see_each_other(name):
    program = models.quantal_response(random_game(3).task, 2, 1.5, -0.8)
    (_, gradient), (_, gradients) = estimates(program, ESTIMATORS[name], 50, 1000, 5.0)
    assert largest_z(gradient, gradients) < 4


@cache
def regulator():
    """A point that is pushed towards 1, with noise, twice as hard by the second of two decisions."""

    def step(x):
        u = decide("u", Normal(0.0, 1.0))
        w = decide("w", Normal(0.5 * u, 0.5))
        optimality(-((x - 1) ** 2) - 0.1 * u**2)
        return {"x": numpyro.sample("x_next", Normal(x + u + 2 * w, 0.3))}

    return ControlProgram(lambda: {"x": numpyro.sample("x", Normal(0.0, 1.0))}, step, 3, discount=0.9)


@pytest.mark.slow
def test_a_continuous_decision_is_integrated():
    (loss, gradient), (losses, gradients) = estimates(regulator(), sampled, 50, 1000, 1.0)
    assert largest_z(gradient, gradients) < 4
    np.testing.assert_allclose(losses.mean(), loss, rtol=1e-10)


def signal_to_noise(program, estimator):
    (_, gradient), (_, gradients) = estimates(program, estimator, 100, 400, 1.0)
    noise = np.mean(np.sum((np.asarray(gradients["a"]) - np.asarray(gradient["a"])) ** 2, (1, 2, 3)))
    return float(np.sqrt(np.sum(np.asarray(gradient["a"]) ** 2) / noise))


@pytest.mark.slow
def test_signal_to_noise_on_the_reference_task():
    program = random_task(10, 25, 4)
    assert signal_to_noise(program, sampled) >= 2
    assert 0.3 < signal_to_noise(program, score_function) < 0.6


def test_one_trajectory_gives_a_gradient_without_a_baseline():
    (_, gradient), (_, gradients) = estimates(random_task(3), score_function, 1, 20000, 5.0)
    along = np.sum(np.asarray(gradients["a"]) * np.asarray(gradient["a"]), (1, 2, 3))
    assert abs(z_scores(along, np.sum(np.asarray(gradient["a"]) ** 2))) < 4


# Fits


def largest_error_where_visited(program, policy, visited=0.01):
    best = exact.solve(program)
    marginals = exact.marginals(program, best.policy)
    scope = {name: np.asarray(joint).sum(-1) for name, joint in marginals.decision.items()}
    return max(
        float(np.abs(np.asarray(policy[name]) - best.policy[name]).max(-1)[scope[name] > visited].max())
        for name in scope
    )


@pytest.mark.parametrize(
    "name", ["deep", pytest.param("adversary", marks=SLOW), pytest.param("discounted", marks=SLOW)]
)
def test_a_sampled_fit_finds_the_closed_form_where_it_goes(name):
    program = random_task(10) if name == "deep" else PAIRS[name].control()
    fit = svi.fit(program, KEY, 2000, loss=svi.SampledELBO(100), optimizer=optax.adam(0.1))
    # At the optimum the gradient has no noise, so that Adam with a constant step converges.
    assert fit.converged
    assert largest_error_where_visited(program, fit.policy) < 0.02
    assert float(fit.elbo) == pytest.approx(float(exact.solve(program).elbo), abs=1e-3)


@SLOW
def test_a_fit_by_score_function_gets_near():
    program = random_task(3)
    schedule = optax.adam(optax.exponential_decay(0.1, 1000, 0.03))
    fit = svi.fit(program, KEY, 1500, loss=svi.ScoreFunctionELBO(200), optimizer=schedule)
    best, start = exact.solve(program), exact.elbo(program, exact.prior_policy(program))
    assert float(best.elbo - fit.elbo) < 0.02 < 0.3 < float(best.elbo - start)


@pytest.mark.slow
def test_a_minimiser_descends_by_samples():
    payoffs = jnp.array([[2.0, 3.0, 3.0], [1.0, 4.0, 0.0], [1.0, 0.0, 5.0]])

    def step(s):
        a = decide("a", Categorical(probs=jnp.full(3, 1 / 3)), 1.0)
        b = decide("b", Categorical(probs=jnp.array([0.5, 0.3, 0.2])), -1.5)
        optimality(payoffs[a, b] + 0.1 * s)
        return {"s": b}

    program = ControlProgram(lambda: {"s": numpyro.sample("s", Categorical(probs=jnp.full(3, 1 / 3)))}, step, 3)
    fit = svi.fit(program, KEY, 3000, loss=svi.SampledELBO(50), optimizer=optax.adam(0.1))
    assert largest_error_where_visited(program, fit.policy) < 0.02
    assert float(fit.policy["b"][0, 0, 1, 2]) > 0.4 > 0.2


@pytest.mark.slow
def test_same_key_same_sampled_fit():
    first, again, other = (
        svi.fit(random_task(3), jax.random.key(k), 5, loss=svi.ScoreFunctionELBO(10), optimizer=optax.sgd(0.1))
        for k in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.losses, again.losses)
    assert not np.array_equal(first.losses, other.losses)


def test_sampled_fits_of_one_kind_share_their_steps():
    assert svi.SampledELBO(100) == svi.SampledELBO(100) != svi.SampledELBO(50)
    assert len({svi.SampledELBO(100), svi.SampledELBO(100), svi.ScoreFunctionELBO(100)}) == 2
    assert repr(svi.SampledELBO(100)) == "SampledELBO(100)"


@pytest.mark.parametrize(
    "error, options, text",
    [
        (ValueError, {"loss": svi.SampledELBO(10)}, "natural gradient is exact.*optimizer=optax.adam"),
        (ValueError, {"num_restarts": 0}, "num_restarts must be at least 1"),
    ],
)
def test_losses_and_optimisers_that_do_not_fit_together(error, options, text):
    with pytest.raises(error, match=text):
        svi.fit(random_task(3), KEY, **options)


def test_an_infinite_horizon_has_no_sampled_loss():
    program = models.single_agent(gallery.lottery(), None, discount=0.9)
    with pytest.raises(ValueError, match="infinite horizon has no sampled ELBO.*unroll"):
        svi.fit(program, KEY, loss=svi.SampledELBO(10), optimizer=optax.adam(0.1))


def test_a_score_function_is_for_tables():
    with pytest.raises(ValueError, match="score functions are for programs over finitely many values"):
        svi.fit(regulator(), KEY, loss=svi.ScoreFunctionELBO(10), optimizer=optax.adam(0.1))


@pytest.mark.parametrize("number", [0, 2.5])
def test_a_number_of_particles_is_a_whole_number(number):
    with pytest.raises((TypeError, ValueError), match="num_particles"):
        svi.SampledELBO(number)
