"""Smoothed paths are ways that a program can go, to the last digits; and they mix wherever there is another way.

Each program is a filter and a smoother to compile, in two forms, which takes most of this file's minute.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.distributions import Categorical, Normal
from selection import pairs, quick

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact, smc
from rlinf_ppl.inference.particles.genealogy import ancestor
from rlinf_ppl.program.laws import GaussianLaw
from rlinf_ppl.program.supports import Real
from rlinf_ppl.tasks import LinearQuadratic

STEPS = 6
THIRDS = jnp.ones(3) / 3


class System(NamedTuple):
    """A program by its discount; how far paths are from what NumPy makes of their own sites; and what helps them."""

    build: object
    errors: object
    proposal: dict
    twist: object


def wave_initial():
    return {"x": numpyro.sample("x", Normal(0.0, 1.0)), "v": numpyro.sample("v", Normal(0.0, 1.0))}


def wave_step(x, v):
    u = decide("u", Normal(0.0, 1.0))
    optimality(-0.1 * (x - 1) ** 2)
    moved = x + 0.1 * (v + 0.001 * u - 0.0025 * jnp.cos(3 * x))
    return {"x": moved, "v": 0.3 * v + 0.7 * u * jnp.sin(x) + 0.01 * x * v}


def wave_errors(x, v, u):
    now, speed = x[:, :-1], v[:, :-1]
    moved = now + 0.1 * (speed + 0.001 * u - 0.0025 * np.cos(3 * now))
    return np.abs(x[:, 1:] - moved), np.abs(v[:, 1:] - 0.3 * speed - 0.7 * u * np.sin(now) - 0.01 * now * speed)


def pendulum_initial():
    return {"x": numpyro.sample("x", Normal(jnp.zeros(2), 1.0).to_event(1))}


def pendulum_step(x):
    u = decide("u", Normal(0.0, 1.0))
    optimality(jnp.cos(x[0]) - 0.1 * x[1] ** 2)
    return {"x": x + 0.1 * jnp.stack([x[1], jnp.sin(x[0]) + u])}


def pendulum_errors(x, u):
    angle, speed = x[:, :-1, 0], x[:, :-1, 1]
    return np.abs(x[:, 1:, 0] - angle - 0.1 * speed), np.abs(x[:, 1:, 1] - speed - 0.1 * (np.sin(angle) + u))


def mixed_initial():
    return {"s": numpyro.sample("s", Categorical(THIRDS)), "x": numpyro.sample("x", Normal(0.0, 1.0))}


def mixed_step(s, x):
    a = decide("a", Categorical(THIRDS))
    u = decide("u", Normal(0.3 * x, 1.0))
    optimality(-0.1 * (x - a) ** 2)
    return {"s": (s + a) % 3, "x": 0.9 * x + 0.3 * jnp.sin(2 * x + s) + 0.3 * u}


def mixed_errors(s, x, a, u):
    moved = 0.9 * x[:, :-1] + 0.3 * np.sin(2 * x[:, :-1] + s[:, :-1]) + 0.3 * u
    return np.abs(x[:, 1:] - moved), np.abs(s[:, 1:] - (s[:, :-1] + a) % 3)


A, B, DRIFT = np.array([[0.9, 0.2], [-0.1, 0.8]]), np.array([[0.3], [0.7]]), np.array([0.1, -0.05])
WAY, ACROSS = np.array([0.3, 0.0]), np.array([0.0, 1.0])


def flat_task(noise):
    rewards = -0.3 * np.eye(2), -0.2 * np.eye(1), np.array([0.5, 0.0])
    return LinearQuadratic(A, B, DRIFT, noise * np.eye(2) + np.outer(WAY, WAY), *rewards, np.zeros(2), np.eye(2))


def flat(discount=1.0, noise=0.0):
    return models.linear_gaussian(flat_task(noise), STEPS, discount=discount)


def flat_errors(x, u):
    return (np.abs((x[:, 1:] - x[:, :-1] @ A.T - u @ B.T - DRIFT) @ ACROSS),)


def stated(initial, step, **more):
    return lambda discount=1.0: ControlProgram(initial, step, STEPS, discount, **more)


SYSTEMS = {
    "wave": System(
        stated(wave_initial, wave_step),
        wave_errors,
        {"u": lambda x, v: Normal(0.2 * (1 - x), 1.1)},
        lambda x, v: -0.2 * (x - 1) ** 2,
    ),
    "pendulum": System(
        stated(pendulum_initial, pendulum_step),
        pendulum_errors,
        {"u": lambda x: Normal(-0.4 * x[1], 1.1)},
        lambda x, t: (STEPS - t) * jnp.cos(x[0]),
    ),
    "mixed": System(
        stated(mixed_initial, mixed_step, sizes={"s": 3}),
        mixed_errors,
        {"u": lambda s, x, a: Normal(0.3 * a - 0.1 * x, 1.2)},
        lambda s, x: -0.2 * (x - 1) ** 2,
    ),
    "flat": System(
        flat, flat_errors, {"u": lambda x: Normal(-0.2 * x[:1], 1.5).to_event(1)}, lambda x: -0.3 * x[0] ** 2
    ),
}
ENGINES = {
    "smooth": lambda prog, key, **aid: smc.smooth(prog, key, 60, 80, **aid),
    "particle_gibbs": lambda prog, key, **aid: smc.particle_gibbs(prog, key, 12, 60, **aid),
}


def paths_of(system, engine, jitted, discount=1.0, **aid):
    call = lambda key: ENGINES[engine](system.build(discount), key, **aid)  # noqa: E731
    return (jax.jit(call) if jitted else call)(jax.random.key(3))


def check_possible(system, paths):
    """Every step of every path is what NumPy makes of that path's own values."""
    values = {name: np.asarray(x) for name, x in paths.trajectories.items() if name not in ("alive", "x_next")}
    x = values["x"]
    assert np.isfinite(x).all() and bool(paths.traced_back)
    digits = 64 * np.finfo(x.dtype).eps
    for error in system.errors(**{name: v.astype(float) if v.dtype.kind == "f" else v for name, v in values.items()}):
        assert error.max() <= digits * (1 + np.abs(x).max())
    assert all((np.asarray(found) == -1).all() for found in paths.faults.values())


@pytest.mark.slow
@pytest.mark.parametrize("name, engine, double", pairs(SYSTEMS, ENGINES, [True, False]))
def test_every_step_of_every_path_is_one_that_the_program_can_take(name, engine, double):
    with jax.enable_x64(double):
        paths = paths_of(SYSTEMS[name], engine, jitted=False)
        assert paths.trajectories["x"].dtype == (np.float64 if double else np.float32)
        check_possible(SYSTEMS[name], paths)


AIDS = ("proposal", True), ("twist", False), ("all", True), ("all", False)


@pytest.mark.slow
@pytest.mark.parametrize("name, aid, engine", pairs(SYSTEMS, AIDS, ENGINES))
def test_so_it_is_under_jit_with_a_proposal_a_twist_or_a_discount(name, engine, aid):
    system, (aid, double) = SYSTEMS[name], aid
    aids = {"proposal": system.proposal, "twist": system.twist}
    with jax.enable_x64(double):
        discount = 0.8 if aid == "all" else 1.0
        paths = paths_of(system, engine, True, discount, **{k: v for k, v in aids.items() if aid in (k, "all")})
        check_possible(system, paths)
        if discount < 1:
            alive = np.asarray(paths.trajectories["alive"])
            assert (np.diff(alive, axis=1) <= 0).all() and 0 < alive[:, 1:].mean() < 1


def test_jit_changes_nothing():
    system = SYSTEMS["mixed"]
    alone, inside = (paths_of(system, "smooth", jitted, 0.8, twist=system.twist) for jitted in (False, True))
    check_possible(system, inside)
    for name, x in alone.trajectories.items():
        np.testing.assert_allclose(x, inside.trajectories[name], rtol=1e-12, atol=1e-12)


# Where there are other ways.


def line_initial():
    b = numpyro.sample("b", Categorical(THIRDS))
    return {"s": 1 * b, "m": numpyro.sample("m", Categorical(THIRDS))}


def line_step(s, m):
    a = decide("a", Categorical(jnp.array([0.5, 0.5])))
    optimality(-0.2 * (s - 2 * m) ** 2 + 0.3 * a)
    return {"s": jnp.minimum(s + a, 2 + STEPS), "m": m}


def real_line_initial():
    return {name: x.astype(float) for name, x in line_initial().items()}


def probabilities(values, count):
    return np.stack([(np.asarray(values) == k).mean(0) for k in range(count)], -1)


@pytest.mark.parametrize("engine", ["smooth", pytest.param("particle_gibbs", marks=pytest.mark.slow)])
@pytest.mark.parametrize("real", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["real", "finite"])
def test_equal_numbers_are_equal_states_that_paths_mix_between(real, engine):
    """m is copied, s + a is a sum without noise: as integers and as real numbers with as few values they mix alike."""
    twin = ControlProgram(line_initial, line_step, STEPS, sizes={"s": 3 + STEPS})
    prog = ControlProgram(real_line_initial, line_step, STEPS) if real else twin
    n = 4000
    call = smc.smooth if engine == "smooth" else smc.particle_gibbs
    paths = call(prog, jax.random.key(1), *((2000, n) if engine == "smooth" else (20, n)))
    # Among 20 particles, some are the only ones that lead to a state.
    assert engine == "particle_gibbs" or not bool(paths.traced_back)
    truth = exact.posterior_marginals(twin)
    expected = np.asarray(truth.state).reshape(STEPS + 1, 3 + STEPS, 3)
    worth = 1 / 4000 + 3 / 2000 if engine == "smooth" else 8 / n
    for name, axis in (("s", 2), ("m", 1)):
        p = expected.sum(axis)
        found = probabilities(paths.trajectories[name], p.shape[1])
        assert (np.abs(found - p) <= 5 * np.sqrt(p * (1 - p) * worth) + 1e-9).all()


def gaussian_step(x):
    u = decide("u", Normal(0.0, 1.0))
    optimality(-0.1 * (x - 1) ** 2)
    return {"x": numpyro.sample("x_next", Normal(0.9 * x + 0.2 * u, 0.5))}


def shaped_step(x):
    z = numpyro.sample("z", Normal(0.9 * x, 0.5))
    optimality(-0.1 * (x - 1) ** 2)
    return {"x": z + 0.1 * jnp.sin(3 * z)}


def clock_step(x, k):
    optimality(-0.1 * (x - k) ** 2)
    return {"x": numpyro.sample("x_next", Normal(0.9 * x, 0.5)), "k": k + 0.25}


def start_step():
    return {"x": numpyro.sample("x", Normal(0.0, 1.0))}


MIXING = {
    "gaussian": stated(start_step, gaussian_step),
    "function_of_a_site": stated(start_step, shaped_step),
    "clock": stated(lambda: start_step() | {"k": jnp.asarray(0.0)}, clock_step),
    "linear": lambda: flat(noise=0.1),
}


@pytest.mark.parametrize("name", quick(["gaussian"], MIXING))
def test_early_times_keep_more_values_than_ancestors_do_where_states_have_noise(name):
    prog, key = MIXING[name](), jax.random.key(2)
    paths = smc.smooth(prog, key, 100, 400, threshold=1.0)
    traced = smc.run(prog, key, 100, threshold=1.0).trajectories
    count = lambda x: len(np.unique(np.asarray(x)[:, 0], axis=0))  # noqa: E731
    assert not bool(paths.traced_back) and count(paths.trajectories["x"]) > 1.2 * count(traced["x"])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("noise", [0.0, 0.1], ids=["traced", "mixed"])
@pytest.mark.parametrize("engine", ENGINES)
def test_linear_states_have_the_means_and_spreads_of_the_closed_form(engine, noise):
    """Over 40 independent runs; a chain leaves its first steps out, a filter of 2000 particles has little bias."""
    prog = flat(noise=noise)
    call, counts = (smc.smooth, (2000, 200)) if engine == "smooth" else (smc.particle_gibbs, (30, 600))
    paths = jax.lax.map(lambda key: call(prog, key, *counts), jax.random.split(jax.random.key(4), 40))
    assert np.asarray(paths.traced_back).all() == (noise == 0)
    x = np.asarray(paths.trajectories["x"])[:, 100 if engine == "particle_gibbs" else 0 :]
    truth = exact.posterior_marginals(prog).state
    variance = np.diagonal(np.asarray(truth.cov), axis1=1, axis2=2)
    for found, expected in [(x, truth.mean), ((x - np.asarray(truth.mean)) ** 2, variance)]:
        means = found.mean(1)
        error = means.std(0, ddof=1) / np.sqrt(len(means))
        assert (np.abs(means.mean(0) - np.asarray(expected)) <= 5 * error + 1e-6).all()


def test_an_ancestor_is_drawn_among_those_that_lead_to_the_state_and_never_the_first_one_for_want_of_any():
    nothing, keys = jnp.full(4, -jnp.inf), jax.random.split(jax.random.key(0), 200)
    draw = jax.vmap(ancestor, (0, None, None, None))
    nobody, everybody = jnp.zeros(4, bool), jnp.ones(4, bool)
    for log_p in (nothing, nothing.at[1].set(0.0), jnp.full(4, jnp.nan)):
        before, traced = draw(keys, log_p, nobody, jnp.asarray(2))
        assert (np.asarray(before) == 2).all() and np.asarray(traced).all()
    before, traced = draw(keys, nothing.at[1:3].set(0.0), everybody, jnp.asarray(2))
    assert set(np.asarray(before).tolist()) == {1, 2} and not np.asarray(traced).any()
    alone = nobody.at[2].set(True)
    before, traced = draw(keys, nothing.at[2].set(0.0), alone, jnp.asarray(2))
    assert (np.asarray(before) == 2).all() and np.asarray(traced).all()


def test_a_density_has_its_coordinates_without_noise_beside_those_with_it():
    law = GaussianLaw(jnp.array([1.0, 2.0]), jnp.array([[0.5, 0.0], [0.3, 0.0]]), Real((2,)))
    inside = law.mean + law.factor[:, 0] * 0.7
    total, certain = law.noise_density(inside + jnp.array([0.0, 1e-3]))
    assert float(total) == pytest.approx(-0.5 * (0.7**2 + np.log(2 * np.pi)) - np.log(0.5), rel=1e-12)
    assert not bool(certain) and float(law.log_prob(inside + jnp.array([0.0, 1e-3]))) == -np.inf
