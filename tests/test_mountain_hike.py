"""Mountain Hike against plain NumPy: landmarks, gradients, returns of two policies, and what engines make of it.

The landmarks and the mean returns are measurements of the authors' environment (4,000 episodes of 75 steps).
"""

from functools import cache

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from numpyro.distributions import Normal
from numpyro.infer.util import log_density
from oracles import mountain_hike as oracle
from scipy.stats import norm

from rlinf_ppl import models
from rlinf_ppl.inference import exact, smc
from rlinf_ppl.tasks import MountainHike

TASK = MountainHike()
CORNERS = np.array([[-1.0, -1.0], [1.0, 1.0], [1.0 + 1e-9, 0.0], [0.0, -1.0 - 1e-9], [3.0, -40.0], [1e30, 0.0]])


@cache
def short():
    return models.mountain_hike(TASK, 5)


def places():
    return np.concatenate([np.random.default_rng(0).uniform(-1.2, 1.2, (500, 2)), CORNERS])


def test_rewards_are_those_of_plain_numpy_inside_and_outside_of_the_box():
    np.testing.assert_allclose(jax.vmap(TASK.reward)(jnp.asarray(places())), oracle.reward(places()), rtol=1e-12)


@pytest.mark.parametrize(
    ("place", "height"), [((0.81, 0.505), -0.2322), ((0.7, 0.5), -0.2406), ((-0.85, -0.85), -4.9139)]
)
def test_landmarks(place, height):
    assert float(TASK.reward(jnp.array(place))) == pytest.approx(height, abs=5e-5)


def test_the_highest_and_the_lowest_place_of_the_box():
    line = np.linspace(-1, 1, 401)
    grid = jnp.asarray(np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2))
    heights = np.asarray(jax.vmap(TASK.reward)(grid))
    np.testing.assert_allclose(grid[heights.argmax()], [0.81, 0.505], atol=1e-9)
    assert heights.max() == pytest.approx(-0.2322, abs=1e-4)
    assert heights.min() == pytest.approx(-5.0, abs=1e-3)


def test_actions_are_shortened_and_paid_for_as_they_were():
    actions = np.concatenate([np.random.default_rng(1).normal(size=(50, 2)) * 0.05, np.zeros((1, 2))])
    reached, cost = jax.vmap(TASK.moved, (None, 0))(jnp.array([0.1, 0.2]), jnp.asarray(actions))
    np.testing.assert_allclose(reached, [[0.1, 0.2]] + oracle.shortened(actions), rtol=1e-12)
    np.testing.assert_allclose(cost, 0.1 * np.linalg.norm(actions, axis=1), rtol=1e-12)


def test_a_hike_of_other_numbers():
    other = MountainHike(max_step=0.2, action_cost=3.0, outside_reward=-7.5, initial_std=0.5, initial_mean=(0.2, -0.3))
    reached, cost = other.moved(jnp.zeros(2), jnp.array([0.6, 0.8]))
    np.testing.assert_allclose(reached, [0.12, 0.16], rtol=1e-12)
    assert float(cost) == pytest.approx(3.0, rel=1e-12) and float(other.reward(jnp.array([1.1, 0.0]))) == -7.5
    run = smc.run(models.mountain_hike(other, 1, prior_std=0.2, discount=0.9), jax.random.key(0), 4000)
    first, alive = run.history.start["p_first"], run.history.alive[1]
    np.testing.assert_allclose(first.mean(0), [0.2, -0.3], atol=5 * 0.5 / np.sqrt(4000))
    np.testing.assert_allclose(first.std(0), 0.5, atol=5 * 0.5 / np.sqrt(8000))
    assert float(alive.mean()) == pytest.approx(0.9, abs=5 * 0.3 / np.sqrt(4000))


def total(p, a, noise):
    reached, cost = TASK.moved(p, a)
    return TASK.reward(reached + TASK.noise_std.astype(p.dtype) * noise) - cost


@pytest.mark.parametrize("dtype", [pytest.param(jnp.float32, marks=pytest.mark.slow), jnp.float64])
def test_gradients_through_a_step_are_finite_everywhere(dtype):
    actions = jnp.array([(0.0, 0.0), (0.02, -0.01), (0.05, 0.0), (3.0, -4.0)], dtype)
    slopes = jax.vmap(jax.vmap(jax.grad(total, (0, 1)), (0, None, None)), (None, 0, None))
    for slope in slopes(jnp.asarray(places(), dtype), actions, jnp.array([0.3, -0.4], dtype)):
        assert np.isfinite(slope).all()


@pytest.mark.slow
def test_gradients_inside_the_box_are_those_of_differences():
    at, a, small = np.random.default_rng(2).uniform(-0.9, 0.9, (100, 2)), np.array([0.03, 0.02]), 1e-6
    found = jax.vmap(jax.grad(total), (0, None, None))(jnp.asarray(at), jnp.asarray(a), jnp.zeros(2))
    for i, move in enumerate(np.eye(2) * small):
        change = (oracle.reward(at + a + move) - oracle.reward(at + a - move)) / (2 * small)
        np.testing.assert_allclose(found[:, i], change, rtol=1e-5, atol=1e-7)


def straight(p):
    """A step of full length towards (.7, .5), which is paid for as it is."""
    apart = np.array([0.7, 0.5]) - p
    return 0.05 * apart / (apart**2).sum(-1, keepdims=True) ** 0.5


POLICIES = {"straight_line": (straight, -115.2, 0.5), "stay_put": (lambda p: 0 * p, -370.0, 1.1)}


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
def test_mean_returns_are_those_of_the_environment_and_of_plain_numpy(name):
    choose, measured, its_error = POLICIES[name]
    count = 2000
    plain = oracle.returns(np.random.default_rng(0), choose, count)
    certain = {"a": lambda p: Normal(choose(p), 1e-9).to_event(1)}
    run = smc.run(models.mountain_hike(TASK), jax.random.key(0), count, proposal=certain, threshold=0.0)
    paths = run.trajectories
    cost = 0.1 * np.linalg.norm(paths["a"], axis=-1)
    found = (oracle.reward(np.asarray(paths["p"][:, 1:])) - cost).sum(1)
    errors = [found.std() / count**0.5, plain.std() / count**0.5, its_error]
    assert abs(found.mean() - plain.mean()) < 5 * np.hypot(*errors[:2])
    assert abs(found.mean() - measured) < 5 * np.hypot(errors[0], its_error)


def test_the_exact_engine_says_why_it_refuses():
    with pytest.raises(ValueError, match="'optimality' is not linear-Gaussian: it is not quadratic in a and p_next"):
        exact.solve(short())


@pytest.mark.slow
def test_particles_are_unbiased_for_the_evidence():
    rng = np.random.default_rng(0)
    prior = lambda p: 0.05 * rng.normal(size=p.shape)  # noqa: E731
    weights = np.exp(oracle.returns(rng, prior, 200_000, 5) + 24.0)
    keys = jax.random.split(jax.random.key(0), 400)
    found = np.exp(np.asarray(jax.vmap(lambda key: smc.run(short(), key, 64).log_evidence)(keys)) + 24.0)
    error = np.hypot(found.std() / 20, weights.std() / len(weights) ** 0.5)
    assert abs(found.mean() - weights.mean()) < 4 * error


def test_the_numpyro_model_has_the_density_of_plain_numpy():
    prog = models.mountain_hike(TASK, 2, prior_std=0.04, inverse_temperature=3.0)
    rng = np.random.default_rng(3)
    p, a = rng.uniform(-1, 1, (3, 2)), rng.normal(size=(2, 2)) * 0.05
    sites = {"init/p_first": p[0], "t0/a": a[0], "t0/p_next": p[1], "t1/a": a[1], "t1/p_next": p[2]}
    found, _ = log_density(prog.model, (), {}, {name: jnp.asarray(value) for name, value in sites.items()})
    expected = norm.logpdf(p[0], -0.85, 0.1).sum() + norm.logpdf(a, 0, 0.04).sum()
    expected += norm.logpdf(p[1:], p[:-1] + oracle.shortened(a), 0.025).sum()
    expected += 3.0 * (oracle.reward(p[1:]) - 0.1 * np.linalg.norm(a, axis=1)).sum()
    assert float(found) == pytest.approx(expected, rel=1e-10)


BAD = {
    "std": (lambda: MountainHike(ridge_stds=[[1, 1], [1, 0], [1, 1]]), ValueError, "ridge_stds has the entry 0.*above"),
    "weight": (lambda: MountainHike(ridge_weights=[1, -1, 1]), ValueError, "ridge_weights has the entry -1.*at least"),
    "ridges": (
        lambda: MountainHike(ridge_weights=[1, 1]),
        ValueError,
        r"ridge_weights has shape \(2,\), but ridge_mea",
    ),
    "none": (lambda: MountainHike(ridge_means=np.zeros((0, 2))), ValueError, "so it has no ridges"),
    "axes": (lambda: MountainHike(ridge_means=[0.0, 1.0]), ValueError, "it needs 2 axes"),
    "noise": (lambda: MountainHike(noise_std=np.nan), ValueError, "noise_std is nan"),
    "start": (lambda: MountainHike(initial_mean=[0.0]), ValueError, r"initial_mean has shape \(1,\)"),
    "prior": (lambda: models.mountain_hike(TASK, prior_std=0.0), ValueError, "prior_std is 0: .*variance"),
    "tau": (lambda: models.mountain_hike(TASK, inverse_temperature=jnp.inf), ValueError, "inverse_temperature is inf"),
    "task": (lambda: models.mountain_hike(None), TypeError, "a task of rlinf_ppl.tasks, MountainHike"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    call, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        call()
