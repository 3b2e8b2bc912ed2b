"""Hidden vectors: LQG and hikes in fog, against plain NumPy that filters and acts in the real system."""

from functools import cache

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest
from numpyro import handlers
from numpyro.distributions import Normal
from oracles import gaussian, mountain_hike
from oracles import hidden_vectors as oracle

from rlinf_ppl import models
from rlinf_ppl.inference import exact, execution, svi
from rlinf_ppl.tasks import HiddenLinearQuadratic, HiddenMountainHike, LinearQuadratic, MountainHike

T = 4
DTYPES = pytest.mark.parametrize("double", [True, False], ids=["float64", "float32"])


def spd(rng, n, scale=1.0):
    root = rng.normal(size=(n, n))
    return scale * (root @ root.T + 0.1 * np.eye(n))


@cache
def problem(seed=0, n=2, m=1):
    """A problem that varies in time, and its action prior."""
    rng = np.random.default_rng(seed)
    made = gaussian.Problem(
        0.6 * rng.normal(size=(T, n, n)), rng.normal(size=(T, n, m)), rng.normal(size=(T, n)),
        np.array([spd(rng, n, 0.2) for _ in range(T)]), -np.array([spd(rng, n, 0.5) for _ in range(T + 1)]),
        -np.array([spd(rng, m, 0.3) for _ in range(T)]), rng.normal(size=(T + 1, n)), rng.normal(size=n),
        spd(rng, n, 0.5),
    )  # fmt: skip
    prior = rng.normal(size=(T, m, n)), rng.normal(size=(T, m)), np.array([spd(rng, m) for _ in range(T)])
    return made, prior


def changed(**fields):
    """The problem with other numbers."""
    made, prior = problem()
    return gaussian.Problem(
        **{name: fields.get(name, getattr(made, name)) for name in made.__dataclass_fields__}
    ), prior


def task_of(made, observation, noise, discount=1.0):
    own = LinearQuadratic(*(getattr(made, name) for name in made.__dataclass_fields__))
    return HiddenLinearQuadratic(own, observation, noise, discount)


RNG = np.random.default_rng(1)
ONES, NOTHING = np.ones((T, 1, 1)), np.zeros((T, 2, 2))
FLAT = np.array([[1.0, -2.0], [-2.0, 4.0]])
# What is seen, with which noise, and what else is changed
CASES = {
    "one number": (RNG.normal(size=(T, 1, 2)), 0.3 * ONES, {}),
    "three numbers": (RNG.normal(size=(T, 3, 2)), np.array([spd(RNG, 3, 0.2) for _ in range(T)]), {}),
    "singular noise": (RNG.normal(size=(T, 2, 2)), np.tile(FLAT, (T, 1, 1)), {}),
    "no noise": (RNG.normal(size=(T, 1, 2)), 0 * ONES, {}),
    "twice the same without noise": (np.tile([[1.0, 0.5], [2.0, 1.0]], (T, 1, 1)), NOTHING, {}),
    "everything": (np.tile(np.eye(2), (T, 1, 1)), NOTHING, {}),
    "nothing": (np.zeros((T, 1, 2)), ONES, {}),
    "nothing without noise": (np.zeros((T, 1, 2)), 0 * ONES, {}),
    "a process with singular noise": (RNG.normal(size=(T, 1, 2)), 0.3 * ONES, {"noise": np.tile(FLAT, (T, 1, 1))}),
    "a process without noise": (RNG.normal(size=(T, 1, 2)), 0.3 * ONES, {"noise": NOTHING}),
    "a first state that is known": (RNG.normal(size=(T, 1, 2)), 0.3 * ONES, {"initial_cov": np.zeros((2, 2))}),
}  # fmt: skip
EACH = pytest.mark.parametrize("name", CASES)


@DTYPES
@EACH
def test_filters_are_those_of_textbooks(name, double):
    observation, noise, fields = CASES[name]
    made, _ = changed(**fields)
    with jax.enable_x64(double):
        found = task_of(made, observation, noise).filter(T)
    gains, unforeseen, covs = oracle.kalman(made, observation, noise)
    tolerance = 1e-10 if double else 1e-4
    np.testing.assert_allclose(found.cov, covs, rtol=tolerance, atol=tolerance)
    own = found.root @ np.swapaxes(found.root, 1, 2)
    np.testing.assert_allclose(own, gains @ unforeseen @ np.swapaxes(gains, 1, 2), rtol=tolerance, atol=tolerance)
    assert np.array_equal(found.cov, np.swapaxes(found.cov, 1, 2))
    assert np.linalg.eigvalsh(found.cov).min() > -10 * np.finfo(found.cov.dtype).eps
    if name != "twice the same without noise":  # which of the two is read makes no difference
        np.testing.assert_allclose(found.gain, gains, rtol=tolerance, atol=tolerance)


@DTYPES
def test_filters_of_diffuse_states_keep_their_digits(double):
    """A state of variance 1e12 (1e5 in float32) that is seen with variance 1: P = 1e12 / (1e12 + 1)."""
    wide = 1e12 if double else 1e5
    with jax.enable_x64(double):
        own = LinearQuadratic([[1.0]], [[1.0]], [0.0], [[0.0]], [[-1.0]], [[-1.0]], [0.0], [0.0], [[wide]])
        found = HiddenLinearQuadratic(own, [[1.0]], [[1.0]]).filter(3)
    expected = [1 / (1 / wide + t) for t in (1, 2, 3)]
    np.testing.assert_allclose(found.cov[1:, 0, 0], expected, rtol=1e-9 if double else 1e-3)


@EACH
def test_solve_is_lqg(name):
    """Gains of the seen state, and the ELBO of the real system under filter and controller."""
    observation, noise, fields = CASES[name]
    made, prior = changed(**fields)
    tau, discount = 0.7, 0.9
    task = task_of(made, observation, noise, discount)
    found = exact.solve(models.hidden_linear_gaussian(task, T, prior, tau))
    seen = exact.solve(models.linear_gaussian(task.task, T, prior, tau, discount))
    assert found.converged
    for one, other in zip(found.policy["u"], seen.policy["u"], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)
    policy = tuple(map(np.asarray, found.policy["u"]))
    expected = oracle.elbo(made, observation, noise, prior, policy, tau, discount)
    assert float(found.elbo) == pytest.approx(expected, rel=1e-10)
    if name == "everything":  # from the second step on nothing is hidden
        for one, other in zip(found.value, seen.value, strict=True):
            np.testing.assert_allclose(one[1:], other[1:], rtol=1e-9, atol=1e-10)


def test_the_value_is_that_of_the_seen_state_with_the_means_noise_and_traces():
    observation, noise, _ = CASES["one number"]
    made, prior = problem()
    gains, unforeseen, covs = oracle.kalman(made, observation, noise)
    own = gains @ unforeseen @ np.swapaxes(gains, 1, 2)
    (matrix, vector, scalar), policy = gaussian.soft_recursion(changed(noise=own)[0], prior, 0.7)
    losses = np.einsum("tij,tij->t", made.state_reward, covs)
    found = exact.solve(models.hidden_linear_gaussian(task_of(made, observation, noise), T, prior, 0.7))
    np.testing.assert_allclose(found.value.matrix, matrix, rtol=1e-9)
    np.testing.assert_allclose(found.value.vector, vector, rtol=1e-9)
    np.testing.assert_allclose(found.value.scalar, scalar + np.cumsum(losses[::-1])[::-1], rtol=1e-9)
    np.testing.assert_allclose(found.policy["u"].gain, policy[0], rtol=1e-9)


@pytest.mark.parametrize("name", ["one number", "singular noise", "nothing"])
def test_the_controller_earns_that_in_the_real_system(name):
    observation, noise, fields = CASES[name]
    made, prior = changed(**fields)
    solution = exact.solve(models.hidden_linear_gaussian(task_of(made, observation, noise), T, prior, 1e6))
    policy = tuple(map(np.asarray, solution.policy["u"]))
    returns = oracle.returns(np.random.default_rng(0), made, observation, noise, policy, 100_000)
    assert abs(returns.mean() - float(solution.elbo)) < 4 * returns.std() / len(returns) ** 0.5


def test_single_precision_is_as_near_as_it_can_be():
    observation, noise, _ = CASES["one number"]
    made, prior = problem()
    with jax.enable_x64(False):
        found = exact.solve(models.hidden_linear_gaussian(task_of(made, observation, noise), T, prior, 0.7))
        assert found.elbo.dtype == np.float32
    policy = tuple(np.asarray(part, float) for part in found.policy["u"])
    assert float(found.elbo) == pytest.approx(oracle.elbo(made, observation, noise, prior, policy, 0.7), rel=1e-5)


def integrator(noise=0.2, **fields):
    """A double integrator whose position is seen."""
    given = dict(
        A=[[1.0, 0.3], [0.0, 1.0]], B=[[0.0], [0.3]], c=[0.0, 0.0], noise=0.05 * np.eye(2), state_reward=-np.eye(2),
        action_reward=[[-0.5]], goal=[0.0, 0.0], initial_mean=[2.0, 0.0], initial_cov=0.3 * np.eye(2),
    )  # fmt: skip
    return HiddenLinearQuadratic(LinearQuadratic(**(given | fields)), [[1.0, 0.0]], [[noise]])


def mean(particles):
    return jnp.mean(particles, 0)


def test_numpyro_runs_the_model_of_a_singular_mean():
    program = models.hidden_linear_gaussian(integrator(), 2)
    sites = handlers.trace(handlers.seed(program.model, jax.random.key(0))).get_trace()
    assert {"t0/u", "t0/e", "t1/u", "t1/e"} <= set(sites)
    assert sites["t0/e"]["value"].shape == (1,)


def test_particles_under_the_gains_of_lqg_earn_what_it_promises():
    """Particles in the place of Kalman's filter, in the same process."""
    task = integrator()
    solution = exact.solve(models.hidden_linear_gaussian(task, 5, inverse_temperature=1e6))
    gain = jnp.asarray(solution.policy["u"].gain)
    policy = {"a": lambda particles, t: Normal(gain[t] @ mean(particles), 1e-3).to_event(1)}
    found = execution.roll_out(models.particle_belief(task, 5, 100), jax.random.key(0), policy, 1000)
    assert abs(float(found.mean) - float(solution.elbo)) < 4 * float(found.standard_error)


@pytest.mark.slow
def test_a_fit_over_particles_comes_near_lqg():
    task = integrator()
    best = float(exact.solve(models.hidden_linear_gaussian(task, 5)).elbo)
    program = models.particle_belief(task, 5, 50, features=mean)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 600, 0.01))
    fit = svi.fit(program, jax.random.key(0), 600, loss=svi.ParticleELBO(50), optimizer=optimizer, tolerance=0.0)
    assert best * 1.05 < float(fit.elbo) < best * 0.97


def test_beliefs_of_a_hike_are_those_of_plain_numpy():
    task = HiddenMountainHike(observation_std=0.3)
    rng, known, variance = np.random.default_rng(2), np.array([-0.85, -0.85]), 0.01
    own = task.first_belief()
    for _ in range(4):
        a, y = rng.normal(size=2) * 0.05, rng.normal(size=2)
        own = task.next_belief(*own, jnp.asarray(a), jnp.asarray(y))
        ahead = variance + 0.025**2
        variance = 1 / (1 / ahead + 1 / 0.3**2)
        known = variance * ((known + mountain_hike.shortened(a)) / ahead + y / 0.3**2)
        np.testing.assert_allclose(own[0], known, rtol=1e-12)
        np.testing.assert_allclose(own[1], variance, rtol=1e-12)


def straight(p, norm=np.linalg.norm):
    """A step of full length towards (.7, .5)."""
    apart = np.array([0.7, 0.5]) - p
    return 0.05 * apart / norm(apart, axis=-1, keepdims=True)


@pytest.mark.parametrize(("observation_std", "measured"), [(0.15, -127.2), (0.3, -147.6)])
def test_straight_lines_on_what_was_seen_last_return_what_the_environment_returns(observation_std, measured):
    found = oracle.hikes(np.random.default_rng(0), straight, observation_std, 4000, filtered=False)
    assert abs(found.mean() - measured) < 5 * np.hypot(found.std() / 4000**0.5, 0.4)


@cache
def foggy():
    return models.hidden_mountain_hike(HiddenMountainHike(observation_std=0.3), 20)


def test_straight_lines_on_the_belief_return_what_plain_numpy_returns():
    assert foggy().scopes == {"a": ("mean", "variance")}
    certain = {"a": lambda mean: Normal(straight(mean, jnp.linalg.norm), 1e-9).to_event(1)}
    found = execution.roll_out(foggy(), jax.random.key(0), certain, 4000)
    plain = oracle.hikes(np.random.default_rng(0), straight, 0.3, 4000, 20)
    assert abs(float(found.mean) - plain.mean()) < 5 * np.hypot(plain.std() / 4000**0.5, found.standard_error)


def test_slopes_lead_out_of_the_valley():
    """A few steps from the prior, which stays where it is."""
    steep = foggy().tempered(10.0)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2))
    fit = svi.fit(steep, jax.random.key(0), 30, loss=svi.ParticleELBO(16), optimizer=optimizer, tolerance=0.0)
    assert fit.losses[0] > 94.0 and float(fit.elbo) > -70.0


SMALL = integrator().task
BAD = {
    "task": (lambda: HiddenLinearQuadratic(None, [[1.0]], [[1.0]]), TypeError, "task is a NoneType: give a LinearQ"),
    "columns": (lambda: HiddenLinearQuadratic(SMALL, [[1.0]], [[1.0]]), ValueError, r"observation has shape \(1, 1\)"),
    "rows": (lambda: HiddenLinearQuadratic(SMALL, np.zeros((0, 2)), np.eye(0)), ValueError, "at least one row"),
    "noise": (lambda: HiddenLinearQuadratic(SMALL, np.eye(2), [[1.0]]), ValueError, "observation_noise has shape"),
    "negative": (lambda: integrator(-0.1), ValueError, "observation_noise is not positive semidefinite"),
    "nan": (lambda: HiddenLinearQuadratic(SMALL, [[np.nan, 0]], [[1.0]]), ValueError, r"observation\[0, 0\] is nan"),
    "times": (
        lambda: HiddenLinearQuadratic(SMALL, np.zeros((3, 1, 2)), np.zeros((4, 1, 1))),
        ValueError,
        "observation_noise has shape",
    ),
    "discount": (lambda: HiddenLinearQuadratic(SMALL, [[1.0, 0]], [[1.0]], 1.1), ValueError, "discount is 1.1"),
    "horizon": (
        lambda: models.hidden_linear_gaussian(task_of(problem()[0], *CASES["one number"][:2]), 3),
        ValueError,
        "the task has 4 time steps, but horizon is 3",
    ),
    "no end": (lambda: models.hidden_linear_gaussian(integrator(), None), TypeError, "horizon must be a whole number"),
    "model": (lambda: models.hidden_linear_gaussian(SMALL, 3), TypeError, "HiddenLinearQuadratic"),
    "varying": (
        lambda: models.particle_belief(task_of(problem()[0], *CASES["one number"][:2]), 4, 3),
        ValueError,
        "varies over 4 time steps",
    ),
    "hike": (lambda: HiddenMountainHike(3.0), TypeError, "hike is a float: give a MountainHike"),
    "fog": (lambda: HiddenMountainHike(observation_std=0.0), ValueError, "observation_std is 0: it must be above 0"),
    "actions": (lambda: HiddenMountainHike(action_std=[1.0]), ValueError, "action_std has shape"),
    "prior": (lambda: models.hidden_mountain_hike(HiddenMountainHike(), prior_std=0.0), ValueError, "prior_std is 0"),
    "seen": (lambda: models.hidden_mountain_hike(MountainHike()), TypeError, "HiddenMountainHike"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    call, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        call()
