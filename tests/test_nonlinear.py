"""Nonlinear systems as step programs: particles, Gaussian guides, and how wrong a linearisation is."""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest
from numpyro.infer import Predictive
from oracles import nonlinear as oracle
from test_smc_continuous import unbiased

from rlinf_ppl import models
from rlinf_ppl.algebra.quadratics import AffinePolicy
from rlinf_ppl.inference import exact, execution, smc, svi, trust_region
from rlinf_ppl.tasks import Dynamics, LinearQuadratic, gallery

KEY = jax.random.key(0)
KEYS = jax.random.split(jax.random.key(1), 200)
SLOW = pytest.mark.slow


def prior_of(task, variance=1.0):
    """N(0, variance I) whatever the state is, with a row for each step."""
    n, m, horizon = task.num_states, task.num_actions, task.horizon
    cov = variance * jnp.broadcast_to(jnp.eye(m), (horizon, m, m))
    return AffinePolicy(jnp.zeros((horizon, m, n)), jnp.zeros((horizon, m)), cov)


def expanded(task, prior, actions):
    """The system about the trajectory that some actions lead to."""
    states = [task.initial_mean]
    for t, u in enumerate(actions):
        states.append(task.moved(states[-1], u, t))
    return trust_region.local_program(task.expand(jnp.stack(states), actions), prior)


# One dimension: pushed back to 0 from where it runs away, by a push that is limited.

STEPS, NOISE, LIMIT, FIRST = 4, 0.1, 1.5, (1.0, 0.3)


@cache
def scalar(dtype=jnp.float64):
    def step(x, u, t):
        return x + 0.5 * jnp.sin(x) + 0.5 * u

    def cost(x, u, t):
        return 0.5 * x @ x + 0.1 * (1 + t) * u @ u

    numbers = [jnp.asarray(x, dtype) for x in ([FIRST[0]], [[FIRST[1]]], [[NOISE]], LIMIT)]
    return Dynamics(step, cost, STEPS, numbers[0], 1, *numbers[1:])


def scalar_oracle():
    def applied(u):
        return np.clip(u, -LIMIT, LIMIT)

    return (
        lambda x, u, t: x + 0.5 * np.sin(x) + 0.5 * applied(u),
        lambda x, u, t: 0.5 * x**2 + 0.1 * (1 + t) * applied(u) ** 2,
        lambda x: 0.5 * x**2,
    )


PRIOR = np.zeros(STEPS), np.zeros(STEPS), np.ones(STEPS)
ACTIONS = np.linspace(-8, 8, 3201)


@cache
def integrated(kind, tau=1.0):
    """The value of the first state by integration, of the posterior or the best policy."""
    message = oracle.Optimal(PRIOR, kind == "condition", ACTIONS)
    grid = np.linspace(-7, 7, 281)
    return oracle.at_first(oracle.backward(scalar_oracle(), NOISE, STEPS, tau, grid, message)[0], *FIRST, message)


def followed(policy):
    """What a policy is worth, by integration."""
    numbers = [np.asarray(part, float).reshape(STEPS) for part in policy]
    message = oracle.Followed(PRIOR, numbers, ACTIONS)
    grid = np.linspace(-7, 7, 281)
    return oracle.at_first(oracle.backward(scalar_oracle(), NOISE, STEPS, 1.0, grid, message)[0], *FIRST, message)


@cache
def linearised():
    return expanded(scalar(), prior_of(scalar()), -jnp.ones((STEPS, 1)))


@cache
def answers():
    return exact.condition(linearised()), exact.solve(linearised())


def estimates(program, particles, keys=KEYS, **aid):
    return np.asarray(
        jax.lax.map(lambda key: smc.run(program, key, particles, **aid).log_evidence, keys, batch_size=50)
    )


def log_mean(found):
    """The log of the mean, and its standard error."""
    ratio = np.exp(found - found.max())
    return found.max() + np.log(ratio.mean()), ratio.std() / ratio.mean() / np.sqrt(len(ratio))


def test_two_oracles_agree():
    """Integration on a grid, and trajectories weighted by what they cost."""
    system, n = scalar_oracle(), 200_000
    flat = (
        system[0],
        lambda x, u, t: system[1](x[:, 0], u[:, 0], t),
        lambda x: system[2](x[:, 0]),
    )
    prior = np.zeros((STEPS, 1, 1)), np.zeros((STEPS, 1)), np.ones((STEPS, 1, 1))
    rng, first = np.random.default_rng(0), (np.array([FIRST[0]]), np.sqrt([[FIRST[1]]]))
    found = oracle.log_weights(rng, flat, first, np.sqrt([[NOISE]]), prior, STEPS, 1.0, n)
    assert unbiased(found, integrated("condition"))


@pytest.mark.slow
@pytest.mark.parametrize("aided", [True, False])
def test_particles_are_unbiased_for_the_evidence_of_the_system_about_a_trajectory(aided):
    answer = answers()[0]
    aid = {"proposal": answer, "twist": answer.value} if aided else {}
    found = estimates(linearised(), 20, **aid)
    assert unbiased(found, float(answer.log_evidence)) and found.std() > 1e-3


@pytest.mark.parametrize("dtype", [jnp.float64, pytest.param(jnp.float32, marks=SLOW)])
def test_particles_find_the_evidence_of_the_system_itself_and_how_wrong_its_linearisation_is(dtype):
    """The linearised answer proposes, and says what states are worth; what it is wrong by is no noise."""
    answer, truth = answers()[0], integrated("condition")
    with jax.enable_x64(dtype == jnp.float64):
        program = models.nonlinear_gaussian(scalar(dtype))
        aid = jax.tree.map(lambda x: x.astype(dtype), {"proposal": answer.policy, "twist": answer.value})
        found = estimates(program, 400, **aid)
    assert found.dtype == dtype and unbiased(found.astype(float), truth)
    value, noise = log_mean(found.astype(float))
    assert value - float(answer.log_evidence) > 0.1 > 5 * noise


# Gaussian guides


def scaled(policy, by=1.5):
    """A policy some way from the best one."""
    return AffinePolicy(0.7 * policy.gain, policy.offset + 0.3, by * policy.cov)


def bound_of(loss, program, guide, key):
    """The ELBO of a guide and its gradient in what the guide has to learn."""
    target = loss.read(program)
    start = loss.check_guide(target, guide)
    return jax.value_and_grad(lambda guide: loss.estimate(target, guide, key))(start)


@SLOW
def test_a_sampled_elbo_is_the_exact_one_of_the_system_about_a_trajectory():
    """In value and gradient, for the same Gaussian guide some way from the optimum."""
    policy, program = scaled(answers()[1].policy["u"]), linearised()
    guide = models.GaussianGuide(policy)

    def exactly(gain, offset):
        return exact.elbo(program, {"u": AffinePolicy(gain, offset, policy.cov)})

    value, slopes = jax.value_and_grad(exactly, (0, 1))(policy.gain, policy.offset)
    one = jax.jit(lambda key: bound_of(svi.ParticleELBO(50), program, guide, key))
    values, gradients = jax.lax.map(one, KEYS)
    module = gradients.module
    for found, truth in ((values, value), (module.gain, slopes[0]), (module.offset, slopes[1])):
        error = np.std(found, 0) / np.sqrt(len(KEYS))
        assert np.all(np.abs(np.mean(found, 0) - truth) < 5 * error)


@SLOW
@pytest.mark.parametrize("loss", [svi.ExactELBO(), svi.SampledELBO(100)], ids=["exact", "sampled"])
def test_gaussian_tables_are_fitted_to_the_optimum_of_the_system_about_a_trajectory(loss):
    optimizer = None if loss == svi.ExactELBO() else optax.adam(optax.cosine_decay_schedule(0.1, 600))
    fit = svi.fit(linearised(), KEY, 600, loss=loss, optimizer=optimizer)
    np.testing.assert_allclose(fit.elbo, answers()[1].elbo, atol=1e-6 if optimizer is None else 1e-2)


@SLOW
def test_a_gaussian_guide_is_fitted_to_the_system_itself():
    """Begun at the linearised optimum; integration says what both are worth, and what no policy exceeds."""
    program, start = models.nonlinear_gaussian(scalar()), answers()[1].policy["u"]
    loss = svi.ParticleELBO(100)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 600))
    fit = svi.fit(program, KEY, 600, guide=models.GaussianGuide(start), loss=loss, optimizer=optimizer, tolerance=-1.0)
    policy = fit.guide.module.policy
    worth, before, best = followed(policy), followed(start), integrated("solve")
    assert before + 0.4 < worth < best < worth + 0.3
    # The linearised system promises more than it keeps.
    assert float(answers()[1].elbo) > before + 0.4
    assert abs(float(fit.elbo) - worth) < 0.2
    # It proposes for particles, and stands in the place of a prior.
    for aid in ({"proposal": fit}, {"proposal": {"u": policy}}):
        assert unbiased(estimates(program, 50, **aid), integrated("condition"))


# Two dimensions: a pendulum


@SLOW
def test_a_pendulum_s_swing():
    """As the documentation has it, beside trajectories in plain NumPy."""
    horizon, root = 8, np.sqrt(0.02) * np.eye(2)
    cov = 0.01 * np.eye(2)

    def cost(x, u, t):
        return 0.3 * x[0] ** 2 + 0.03 * x[1] ** 2 + 0.02 * u @ u

    task = Dynamics(gallery.pendulum().step, cost, horizon, [1.5, 0.0], 1, root @ root, cov, 10.0)
    prior = prior_of(task, 4.0)
    step = oracle.pendulum()
    rng = np.random.default_rng(0)
    x, u = rng.normal(size=(5, 2)), 8 * rng.normal(size=(5, 1))
    np.testing.assert_allclose(jax.vmap(lambda x, u: task.moved(x, u, 0))(x, u), step(x, u, 0), rtol=1e-12)

    def paid(x, u):
        return 0.3 * x[:, 0] ** 2 + 0.03 * x[:, 1] ** 2 + 0.02 * np.clip(u[:, 0], -10, 10) ** 2

    system = step, lambda x, u, t: paid(x, u), lambda x: paid(x, np.zeros((len(x), 1)))
    plain = map(np.asarray, prior)
    weights = oracle.log_weights(
        rng, system, (np.array([1.5, 0.0]), root), np.sqrt(cov), tuple(plain), horizon, 1.0, 400_000
    )
    truth, its_noise = log_mean(weights)

    program = models.nonlinear_gaussian(task, prior)
    found = trust_region.ilqr(task)
    about = trust_region.local_program(task.expand(found.states, found.actions), prior)
    answer, optimum = exact.condition(about), exact.solve(about)
    estimated = estimates(program, 500, proposal=answer, twist=answer.value)
    value, noise = log_mean(estimated)
    assert abs(value - truth) < 5 * np.hypot(noise, its_noise)
    assert value - float(answer.log_evidence) > 0.2 > 5 * noise
    # The best policy of the linearised system earns more in the real one than it would there.
    played = execution.roll_out(program, KEY, optimum.policy, 20_000)
    error = played.mean - execution.expected_return(about, optimum.policy)
    assert error > 0.3 > 10 * played.standard_error


# Linear systems, which both programs hold


@SLOW
def test_a_linear_system_is_read_as_it_is():
    """The quadratic cost that sets in over time among the rest; and by a prior of another policy."""
    task = gallery.regulator(3)
    prior = AffinePolicy(jnp.array([[[0.1, -0.2]]] * 3), jnp.ones((3, 1)), jnp.full((3, 1, 1), 2.0))
    program, about = models.nonlinear_gaussian(task, prior), expanded(task, prior, jnp.ones((3, 1)))
    for engine in (exact.solve, exact.condition):
        found, wanted = engine(program), engine(about)
        np.testing.assert_allclose(found.value.scalar, wanted.value.scalar, rtol=1e-9)
        for mine, its in zip(found.policy["u"], wanted.policy["u"], strict=True):
            np.testing.assert_allclose(mine, its, rtol=1e-7, atol=1e-9)
        # A policy of the one is one of the other.
        np.testing.assert_allclose(exact.elbo(program, wanted.policy), exact.elbo(about, found.policy), rtol=1e-10)


ROOTS = {
    "regular": (np.array([[0.3, 0.0], [0.1, 0.2]]), ["x_next"]),
    "singular": (np.array([[0.3], [-0.1]]), ["x_next_noise"]),
    "one coordinate": (np.array([[0.0], [1e-4]]), ["x_next_noise"]),
    "none": (np.zeros((2, 0)), []),
}


def any_rank(name):
    """A linear system whose noise has such a root, as a Dynamics and as linear-quadratic; and its chance sites."""
    root, sites = ROOTS[name]
    A, B = np.array([[0.9, 0.3], [0.0, 0.8]]), np.array([[0.2], [1.0]])
    cov = root @ root.T
    goal, mean = np.array([1.0, -1.0]), np.array([0.5, 0.2])
    linear = LinearQuadratic(A, B, np.zeros(2), cov, -np.eye(2), -0.1 * np.eye(1), goal, mean, cov)

    def cost(x, u, t):
        return (x - goal) @ (x - goal) + 0.1 * u @ u

    task = Dynamics(lambda x, u, t: A @ x + B @ u, cost, 3, mean, 1, cov, cov)
    program = models.nonlinear_gaussian(task, inverse_temperature=0.7)
    return program, models.linear_gaussian(linear, 3, None, 0.7), sites


@pytest.mark.slow
@pytest.mark.parametrize("name", ROOTS)
def test_noise_of_any_rank(name):
    """Against the linear-quadratic task, whose covariances the exact engine takes as they are."""
    program, linear, sites = any_rank(name)
    assert [site.name for site in program.structure.step.sites if site.kind == "chance"] == sites
    wanted = exact.condition(linear)
    found = exact.condition(program)
    np.testing.assert_allclose(found.log_evidence, wanted.log_evidence, rtol=1e-9)
    # NumPyro runs it, too.
    drawn = Predictive(program.model, num_samples=2)(KEY)
    assert all(np.all(np.isfinite(x)) for x in drawn.values())


# What a program is made of


@SLOW
@pytest.mark.parametrize("name", ["singular", "none"])
def test_particles_of_noise_of_any_rank(name):
    program = any_rank(name)[0]
    assert unbiased(estimates(program, 20, KEYS[:100]), float(exact.condition(program).log_evidence))


@SLOW
def test_functions_are_parts_of_the_tree_and_arrays_its_leaves():
    class Spring(eqx.Module):
        stiffness: jax.Array
        activation: object = jnp.tanh

        def __call__(self, x, u, t):
            return x - self.stiffness * self.activation(x) + u

    def made(stiffness):
        task = Dynamics(Spring(stiffness), lambda x, u, t: x @ x + u @ u * (1.0 + t), 2, [1.0], 1, [[0.1]], [[0.1]])
        return models.nonlinear_gaussian(task)

    found = jax.vmap(lambda k: smc.run(made(k), KEY, 10).log_evidence)(jnp.array([0.1, 0.5]))
    alone = smc.run(made(jnp.asarray(0.5)), KEY, 10).log_evidence
    np.testing.assert_allclose(found[1], alone, rtol=1e-12)


WRONG = {
    "task": (lambda: models.nonlinear_gaussian(3), TypeError, "task must be a task of rlinf_ppl.tasks, Dynamics; got"),
    "another task": (lambda: models.nonlinear_gaussian(gallery.lottery()), TypeError, "Dynamics; got MDP"),
    "two parts": (lambda: models.nonlinear_gaussian(scalar(), (0.0, 1.0)), ValueError, "prior has 2 entries"),
    "gain": (
        lambda: models.nonlinear_gaussian(scalar(), (np.zeros((2, 1)), np.zeros(1), np.eye(1))),
        ValueError,
        r"prior's gain has shape \(2, 1\), but the task's policy has shape \(1, 1\)",
    ),
    "times": (
        lambda: models.nonlinear_gaussian(scalar(), (np.zeros((3, 1, 1)), np.zeros(1), np.eye(1))),
        ValueError,
        r"prior's gain has shape \(3, 1, 1\).*\(4, 1, 1\)",
    ),
    "cov": (
        lambda: models.nonlinear_gaussian(scalar(), (np.zeros((1, 1)), np.zeros(1), np.zeros((1, 1)))),
        ValueError,
        "prior's cov is singular",
    ),
    "temperature": (
        lambda: models.nonlinear_gaussian(scalar(), inverse_temperature=np.nan),
        ValueError,
        "inverse_temperature.*nan",
    ),
    "exactly": (
        lambda: exact.solve(models.nonlinear_gaussian(scalar())),
        ValueError,
        "not linear-Gaussian.*smc.run, or svi.fit",
    ),
    "guide's parts": (lambda: models.GaussianGuide((0.0, 1.0)), ValueError, "policy has 2 entries"),
    "guide's times": (
        lambda: models.GaussianGuide((np.zeros((1, 1)), np.zeros(1), np.eye(1))),
        ValueError,
        r"policy's gain has shape \(1, 1\); it must be \(T, m, n\)",
    ),
    "guide's offset": (
        lambda: models.GaussianGuide((np.zeros((2, 1, 3)), np.zeros((2, 2)), np.ones((2, 1, 1)))),
        ValueError,
        r"policy's offset has shape \(2, 2\)",
    ),
    "guide's cov": (
        lambda: models.GaussianGuide((np.zeros((2, 1, 3)), np.zeros((2, 1)), np.zeros((2, 1, 1)))),
        ValueError,
        "policy's cov is singular",
    ),
    "guide's size": (
        lambda: svi.fit(
            models.nonlinear_gaussian(scalar()),
            KEY,
            1,
            guide=models.GaussianGuide((np.zeros((4, 1, 2)), np.zeros((4, 1)), np.ones((4, 1, 1)))),
            loss=svi.ParticleELBO(2),
            optimizer=optax.sgd(0.1),
        ),
        ValueError,
        r"x has shape \(1,\), and the guide's gain \(4, 1, 2\)",
    ),
    "guide's rows": (
        lambda: smc.run(
            models.nonlinear_gaussian(scalar()).with_guide(
                models.GaussianGuide((np.zeros((3, 1, 1)), np.zeros((3, 1)), np.ones((3, 1, 1))))
            ),
            KEY,
            10,
        ),
        FloatingPointError,
        "at t = 3 is no number",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_named(case, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    call, kind, message = WRONG[case]
    with pytest.raises(kind, match=f"(?s){message}"):
        call()
