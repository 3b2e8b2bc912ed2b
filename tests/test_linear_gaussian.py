"""Linear-Gaussian programs against Gaussian algebra over whole trajectories, an optimizer, and NumPyro itself."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.distributions import MultivariateNormal, Normal
from numpyro.infer import SVI, Trace_ELBO
from oracles import gaussian
from scipy.optimize import minimize
from selection import quick
from worked_cases import worked_case

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.algebra.quadratics import AffinePolicy
from rlinf_ppl.inference import exact, svi
from rlinf_ppl.inference.fitting import guides
from rlinf_ppl.program import read
from rlinf_ppl.tasks import LinearQuadratic

KEY = jax.random.key(0)
PRECISIONS = pytest.mark.parametrize("double", [True, False], ids=["float64", "float32"])


def spd(rng, n, scale=1.0):
    root = rng.normal(size=(n, n))
    return scale * (root @ root.T + 0.1 * np.eye(n))


def random_problem(seed, steps=3, n=2, m=1, radius=0.9):
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(steps, n, n))
    first *= radius / np.abs(np.linalg.eigvals(first)).max(-1)[:, None, None]
    problem = gaussian.Problem(
        first,
        rng.normal(size=(steps, n, m)),
        0.3 * rng.normal(size=(steps, n)),
        np.array([spd(rng, n, 0.1) for _ in range(steps)]),
        -np.array([spd(rng, n, 0.5) for _ in range(steps + 1)]),
        -np.array([spd(rng, m, 0.2) for _ in range(steps)]),
        rng.normal(size=(steps + 1, n)),
        rng.normal(size=n),
        spd(rng, n, 0.3),
    )
    covs = np.array([spd(rng, m) for _ in range(steps)])
    return problem, (rng.normal(size=(steps, m, n)), rng.normal(size=(steps, m)), covs)


def program_of(problem, prior, tau=1.0):
    task = LinearQuadratic(*(getattr(problem, field) for field in problem.__dataclass_fields__))
    return models.linear_gaussian(task, problem.shape[0], prior, tau)


@cache
def case(seed=0, tau=0.7):
    problem, prior = random_problem(seed)
    return problem, prior, tau, program_of(problem, prior, tau)


def same(found, expected, rtol=1e-9, atol=1e-10):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)


@PRECISIONS
@pytest.mark.parametrize("name", quick(["lqg_soft_exact"], ["lqg_soft", "lqg_soft_exact"]))
def test_worked_cases(name, double):
    given, expected, tolerance = worked_case(name)
    tolerance = tolerance if double else 1e-4
    with jax.enable_x64(double):
        names = ("A", "B", "c", "W", "M", "H", "z", "m1", "S1")
        task = LinearQuadratic(*(given[name] for name in names))
        program = models.linear_gaussian(task, 3, (given["Kq"], given["kq"], given["Sq"]), 1 / float(given["eta"]))
        found = exact.solve(program) if name == "lqg_soft" else exact.condition(program)
        marginals = exact.marginals(program, found.policy)
    assert found.converged and found.value.matrix.dtype == (np.float64 if double else np.float32)
    same(found.value, (expected["V"], expected["v"], expected["v0"]), tolerance, tolerance)
    same(found.policy["u"], (expected["K"], expected["k"], expected["Sigma"]), tolerance, tolerance)
    same(marginals.state, (expected["means"], expected["covs"]), tolerance, tolerance)
    if name == "lqg_soft":
        assert float(found.elbo / given["eta"]) == pytest.approx(float(expected["elbo"]), rel=tolerance)
    else:
        assert float(found.log_evidence) == pytest.approx(float(expected["log_evidence"]), rel=tolerance)
        with jax.enable_x64(double):
            posterior = exact.posterior_marginals(program)
        places, _, _ = gaussian.Problem(*(given[name] for name in names)).places()
        for t, x in enumerate(places):
            np.testing.assert_allclose(
                posterior.state.mean[t], expected["post_mean"][x], rtol=tolerance, atol=tolerance
            )
            np.testing.assert_allclose(
                posterior.state.cov[t], expected["post_cov"][x, x], rtol=tolerance, atol=tolerance
            )


@pytest.mark.parametrize("seed", range(3))
def test_solve_and_its_elbo(seed):
    problem, prior, tau, program = case(seed)
    solution = exact.solve(program)
    value, policy = gaussian.soft_recursion(problem, prior, tau)
    same(solution.value, value)
    same(solution.policy["u"], policy)
    assert float(solution.elbo) == pytest.approx(gaussian.elbo(problem, prior, tau, policy), rel=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_the_posterior_is_that_of_the_stacked_trajectory(seed):
    problem, prior, tau, program = case(seed)
    mean, cov, log_evidence = gaussian.posterior(problem, prior, tau)
    found, marginals = exact.condition(program), exact.posterior_marginals(program)
    assert float(found.log_evidence) == pytest.approx(log_evidence, rel=1e-10)
    states, actions, _ = problem.places()
    for t, x in enumerate(states):
        np.testing.assert_allclose(marginals.state.mean[t], mean[x], rtol=1e-9)
        np.testing.assert_allclose(marginals.state.cov[t], cov[x, x], rtol=1e-8)
    for t, (x, u) in enumerate(zip(states[:-1], actions, strict=True)):
        both = np.r_[x, u]
        np.testing.assert_allclose(marginals.decision["u"].mean[t], mean[both], rtol=1e-9)
        np.testing.assert_allclose(marginals.decision["u"].cov[t], cov[np.ix_(both, both)], rtol=1e-8)


def test_covariances_keep_their_digits_about_large_means():
    problem, prior, tau, program = case()
    far = program_of(replace(problem, initial_mean=problem.initial_mean + 1e7, goal=problem.goal - 1e6), prior, tau)
    policy = exact.solve(program).policy
    found = [exact.marginals(each, policy) for each in (program, far)]
    found += [exact.posterior_marginals(each) for each in (program, far)]
    for near, moved in (found[:2], found[2:]):
        assert np.max(np.abs(moved.state.mean)) > 1e6
        np.testing.assert_allclose(moved.state.cov, near.state.cov, rtol=1e-9)
        np.testing.assert_allclose(moved.decision["u"].cov, near.decision["u"].cov, rtol=1e-9, atol=1e-12)


def other_policy(prior, seed=5):
    rng = np.random.default_rng(seed)
    gain, offset, cov = prior
    return gain + 0.3 * rng.normal(size=gain.shape), offset + rng.normal(size=offset.shape), 0.5 * cov


def test_the_elbo_and_the_marginals_of_any_policy():
    problem, prior, tau, program = case()
    policy = other_policy(prior)
    found = exact.evaluate(program, {"u": policy})
    assert float(found.elbo) == pytest.approx(gaussian.elbo(problem, prior, tau, policy), rel=1e-10)
    mean, cov = gaussian.stacked(problem, *policy)
    marginals = exact.marginals(program, {"u": policy})
    for t, x in enumerate(problem.places()[0]):
        np.testing.assert_allclose(marginals.state.mean[t], mean[x], rtol=1e-9)
        np.testing.assert_allclose(marginals.state.cov[t], cov[x, x], rtol=1e-9)
    best = exact.solve(program)
    gap = tau * float(best.elbo - found.elbo)
    assert float(exact.kl(program, {"u": policy}, best.policy)) == pytest.approx(gap, rel=1e-9)


def test_an_optimizer_finds_nothing_better():
    problem, prior, tau, program = case()
    start, unravel = ravel_pytree((*other_policy(prior)[:2], np.zeros((3, 1))))

    def policy(flat):
        gain, offset, log_std = unravel(flat)
        return AffinePolicy(gain, offset, jnp.exp(2 * log_std)[..., None])

    loss = jax.jit(jax.value_and_grad(lambda flat: -exact.elbo(program, {"u": policy(flat)})))
    found = minimize(lambda x: tuple(np.asarray(part, dtype=float) for part in loss(x)), start, jac=True, tol=1e-12)
    best = exact.solve(program)
    assert -found.fun == pytest.approx(float(best.elbo), rel=1e-9)
    same(policy(found.x), best.policy["u"], rtol=1e-4, atol=1e-5)


def test_solve_and_condition_agree_without_noise():
    problem, prior = random_problem(1)
    quiet = gaussian.Problem(
        *(problem.__dict__ | {"noise": 0 * problem.noise, "initial_cov": 0 * problem.initial_cov}).values()
    )
    program = program_of(quiet, prior, 0.7)
    solution, posterior = exact.solve(program), exact.condition(program)
    same(solution.value, posterior.value)
    same(solution.policy["u"], posterior.policy["u"])
    assert float(0.7 * solution.elbo) == pytest.approx(float(posterior.log_evidence), rel=1e-10)


def test_the_fit_recovers_the_solution():
    _, _, _, program = case()
    fit, best = svi.fit(program, KEY), exact.solve(program)
    assert fit.converged and len(fit.losses) < 10
    assert float(exact.kl(program, fit.policy, best.policy)) < 1e-8
    assert float(fit.elbo) == pytest.approx(float(best.elbo), rel=1e-9)
    same(fit.policy["u"], best.policy["u"], rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_the_gradient_that_an_optimizer_follows():
    _, _, _, program = case()
    chain = read(program)
    logits = {"u": -0.2 * jnp.tile(jnp.eye(4), (3, 1, 1)) + 0.05 * guides.initial_logits(chain, KEY)["u"]}
    rng = np.random.default_rng(0)
    direction = rng.normal(size=(3, 4, 4))
    direction = jnp.asarray(direction + np.swapaxes(direction, 1, 2))
    found = jnp.vdot(jax.grad(lambda logits: guides.bound(chain, logits))(logits)["u"], direction)
    up, down = (guides.bound(chain, {"u": logits["u"] + eps * direction}) for eps in (1e-5, -1e-5))
    assert float(found) == pytest.approx(float(up - down) / 2e-5, rel=1e-6)
    fit = svi.fit(program, KEY, 100, optimizer=optax.adam(0.05))
    assert float(fit.losses[-1]) < float(fit.losses[0]) - 1 and not fit.converged


def test_samples_of_both_answers():
    problem, prior, tau, program = case()
    best = exact.solve(program)
    drawn = exact.sample(program, KEY, best.policy, 20_000)
    assert {name: x.shape for name, x in drawn.items()} == {
        "x": (20_000, 4, 2),
        "u": (20_000, 3, 1),
        "x_next": (20_000, 3, 2),
        "optimality": (20_000, 3),
    }
    mean, cov = gaussian.stacked(problem, *(np.asarray(part) for part in best.policy["u"]))
    found = exact.posterior_sample(program, KEY, 20_000)
    posterior_mean, posterior_cov, _ = gaussian.posterior(problem, prior, tau)
    for x, m, c in ((drawn, mean, cov), (found, posterior_mean, posterior_cov)):
        flat = np.concatenate([np.concatenate([x["x"][:, t], x["u"][:, t]], 1) for t in range(3)] + [x["x"][:, 3]], 1)
        z = (flat.mean(0) - m) / np.sqrt(np.diagonal(c) / len(flat))
        assert np.abs(z).max() < 4.5
        np.testing.assert_allclose(np.cov(flat.T), c, atol=0.06 * np.abs(c).max())


def two_players(x, t):
    """A leader that maximises and a follower that minimises, with two inverse temperatures; vectors and scalars."""
    position, speed = x[0], x[1]
    a = decide("a", Normal(-0.1 * speed, 1.0), 0.8)
    b = decide("b", MultivariateNormal(jnp.stack([a, position]), jnp.eye(2)), -0.3)
    optimality(-(a**2) - position**2 + 0.1 * t * speed, name="first")
    optimality(0.4 * b @ b - 0.2 * a * b[0], name="second")
    push = numpyro.sample("push", Normal(0.3 * a + 0.1 * b[1], 0.5))
    return {"x": jnp.stack([position + 0.2 * speed, speed + push])}


def last(x):
    optimality(-2.0 * x[0] ** 2 - x[1])


def start():
    return {"x": jnp.array([1.0, -0.5])}


def test_a_program_of_two_players_that_no_model_file_holds():
    program = ControlProgram(start, two_players, 3, final=last)
    assert program.scopes == {"a": ("x",), "b": ("x", "a")}
    best = exact.solve(program)
    assert best.converged

    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    weights = weights / weights.sum()

    def value(x, t, following):
        """The soft value by Gauss-Hermite quadrature over every variable in turn; axes a, e, f, push."""
        a = (-0.1 * x[1] + nodes)[:, None, None, None]
        b = a + nodes[:, None, None], x[0] + nodes[:, None]
        reward = -(a**2) - x[0] ** 2 + 0.1 * t * x[1] + 0.4 * (b[0] ** 2 + b[1] ** 2) - 0.2 * a * b[0]
        push = 0.3 * a + 0.1 * b[1] + 0.5 * nodes
        w = (reward + following(np.stack(np.broadcast_arrays(x[0] + 0.2 * x[1], x[1] + push)))) @ weights
        follower = np.log(np.exp(-0.3 * w) @ weights @ weights) / -0.3
        return np.log(weights @ np.exp(0.8 * follower)) / 0.8

    def ahead(t):
        matrix, vector, scalar = (np.asarray(part[t]) for part in best.value)
        return lambda x: np.einsum("i...,ij,j...", x, matrix, x) + np.einsum("i...,i", x, vector) + scalar

    for t in (2, 1):
        for x in ([0.3, -0.2], [0.0, 0.4]):
            assert float(ahead(t)(np.array(x))) == pytest.approx(value(np.array(x), t, ahead(t + 1)), rel=1e-6)
    with pytest.raises(ValueError, match="inverse temperatures of .* differ"):
        exact.condition(program)


@pytest.mark.slow
def test_numpyros_svi_fits_the_guide():
    _, _, _, program = case()
    with handlers.seed(rng_seed=0):
        sites = handlers.trace(program.model).get_trace()
    assert sites["t0/u"]["value"].shape == (1,)
    machine = SVI(program.model, program.guide, optax.adam(0.02), Trace_ELBO(num_particles=64))
    result = machine.run(KEY, 1500, progress_bar=False)
    losses = np.asarray(result.losses)[-500:]
    error = losses.std() / np.sqrt(len(losses))
    assert abs(losses.mean() + 0.7 * float(exact.solve(program).elbo)) < 4 * error + 0.05


@pytest.mark.slow
def test_an_infinite_horizon_is_a_long_one():
    problem, prior = random_problem(2)
    one = [getattr(problem, field)[0] for field in ("A", "B", "c", "noise", "state_reward", "action_reward", "goal")]
    task = LinearQuadratic(*one, problem.initial_mean, problem.initial_cov)
    own = [part[0] for part in prior]
    endless = models.linear_gaussian(task, None, own, 0.7, discount=0.95)
    solution, finite = exact.solve(endless), exact.solve(endless.unroll(700))
    assert solution.converged
    same(solution.value, [part[0] for part in finite.value], rtol=1e-8)
    same(solution.policy["u"], [part[0] for part in finite.policy["u"]], rtol=1e-8)


@pytest.mark.slow
@settings(max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from([0.3, 1.0, 1.3]))
def test_random_systems(seed, radius):
    problem, prior = random_problem(seed, radius=radius)
    for tau in (0.2, 3.0):
        value, policy = gaussian.soft_recursion(problem, prior, tau)
        solution = exact.solve(program_of(problem, prior, tau))
        same(solution.value, value, rtol=1e-7, atol=1e-7)
        same(solution.policy["u"], policy, rtol=1e-7, atol=1e-8)
        log_evidence = gaussian.posterior(problem, prior, tau)[2]
        assert float(exact.condition(program_of(problem, prior, tau)).log_evidence) == pytest.approx(
            log_evidence, rel=1e-7
        )


@pytest.mark.slow
def test_single_precision_over_a_hundred_steps():
    problem, prior = random_problem(3, steps=100, radius=1.05)
    value, policy = gaussian.soft_recursion(problem, prior, 0.7)
    with jax.enable_x64(False):
        solution = exact.solve(program_of(problem, prior, 0.7))
        assert solution.value.matrix.dtype == np.float32
    for found, expected in zip((*solution.value, *solution.policy["u"]), (*value, *policy), strict=True):
        assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()


@pytest.mark.slow
def test_gradients_and_vmap_over_the_inverse_temperature():
    problem, prior, _, _ = case()
    function = jax.jit(lambda tau: exact.solve(program_of(problem, prior, tau)).elbo)
    taus = jnp.array([0.3, 0.7, 2.0])
    found = jax.vmap(jax.grad(function))(taus)
    expected = [(function(tau + 1e-5) - function(tau - 1e-5)) / 2e-5 for tau in taus]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("spread", quick([1e6], [1.0, 1e2, 1e4, 1e6]))
def test_wide_priors_under_a_discount_and_a_temperature(spread, double):
    """Against the scalar recursion, in long double: V = a x^2 + c."""
    tau, discount, steps = 2.5, 0.9, 4

    def step(x):
        u = decide("u", Normal(0.0, spread), inverse_temperature=tau)
        optimality(-(x**2))
        return {"x": x + u}

    def final(x):
        optimality(-2 * x**2)

    with jax.enable_x64(double):
        start = lambda: {"x": numpyro.sample("x0", Normal(3.0, 1.0))}  # noqa: E731
        solution = exact.solve(ControlProgram(start, step, steps, discount=discount, final=final))
    a, c, precision, gains = np.longdouble(-2), np.longdouble(0), 1 / np.longdouble(spread) ** 2, []
    for _ in range(steps):
        left = precision - 2 * tau * discount * a
        gains.append(2 * tau * discount * a / left)
        c = discount * c + np.log(precision / left) / (2 * tau)
        a = -1 + discount * a + 2 * tau * discount**2 * a**2 / left
    assert solution.converged
    assert float(solution.elbo) == pytest.approx(float(10 * a + c), rel=1e-12 if double else 1e-6)
    np.testing.assert_allclose(np.ravel(solution.policy["u"].gain), gains[::-1], rtol=1e-12 if double else 1e-6)
