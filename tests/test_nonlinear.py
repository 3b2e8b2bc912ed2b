"""The true system as a program: against dense integration, and against itself about a trajectory."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpyro.distributions import Normal
from numpyro.infer import Predictive
from oracles import nonlinear as oracle

from rlinf_ppl import models
from rlinf_ppl.inference import exact, smc, svi, trust_region
from rlinf_ppl.inference.local.arguments import check_start
from rlinf_ppl.inference.local.roll_outs import mean_trajectory
from rlinf_ppl.tasks import Dynamics, gallery

KEY = jax.random.key(0)
T, NOISE, LIMIT = 3, 0.3, 0.8


def step(x, u, t):
    return x + 0.5 * jnp.sin(2 * x) + u


def cost(x, u, t):
    return jnp.sum((x - 1.0) ** 2) * (1 + 0.1 * t) + 0.2 * jnp.sum(u**2)


def system(limit=LIMIT, noise=NOISE):
    return Dynamics(step, cost, T, [-0.5], 1, [[0.04]], [[noise**2]], limit)


def about(task, prior=None):
    """The local program about the trajectory of the prior."""
    policy = check_start(task, prior)
    seen = mean_trajectory(task, policy)
    return trust_region.local_program(task.expand(seen.states, seen.actions), policy)


class Affine(eqx.Module):
    """U ~ N(gain x + offset, std^2) at each time."""

    gain: jax.Array
    offset: jax.Array
    log_std: jax.Array

    def u(self, x, t):
        return Normal(self.gain[t] * x + self.offset[t], jnp.exp(self.log_std[t])).to_event(1)


def affine():
    return Affine(jnp.zeros(T), jnp.zeros(T), jnp.zeros(T))


def test_a_linear_system_is_the_same_both_ways():
    task, prior = gallery.regulator(4), (np.full((1, 2), 0.1), np.ones(1), 2 * np.eye(1))
    true, local = models.nonlinear_gaussian(task, prior, 0.01), about(task, prior).tempered(0.01)
    one, other = exact.solve(true), exact.solve(local)
    np.testing.assert_allclose(one.elbo, other.elbo, rtol=1e-12)
    np.testing.assert_allclose(one.policy["u"].gain, other.policy["u"].gain, atol=1e-12)
    evidence = exact.condition(true).log_evidence
    np.testing.assert_allclose(evidence, exact.condition(local).log_evidence, rtol=1e-12)


@pytest.mark.parametrize("limit", [LIMIT, pytest.param(np.inf, marks=pytest.mark.slow)])
def test_particles_have_the_evidence_of_dense_integration(limit):
    """Without bias, where the linear system is nats away."""

    def numpy_cost(x, u, t):
        return (x - 1.0) ** 2 * (1 + 0.1 * t) + 0.2 * u**2

    def numpy_step(x, u, t):
        return x + 0.5 * np.sin(2 * x) + u

    truth = oracle.evidence(numpy_step, numpy_cost, T, -0.5, 0.2, NOISE, 1.0, limit)
    finer = oracle.evidence(numpy_step, numpy_cost, T, -0.5, 0.2, NOISE, 1.0, limit, n=601, actions=301)
    assert abs(truth - finer) < 1e-4
    task = system(limit)
    program = models.nonlinear_gaussian(task)
    runs = jax.vmap(lambda key: smc.run(program, key, 200).log_evidence)(jax.random.split(KEY, 200))
    ratios = np.exp(np.asarray(runs) - finer)
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / np.sqrt(len(ratios)) < 0.1
    # How wrong the linear system is.
    assert abs(exact.condition(about(task)).log_evidence - finer) > 0.05


@pytest.mark.slow
def test_particles_are_unbiased_for_the_gaussian_evidence():
    local = about(system())
    truth = exact.condition(local).log_evidence
    runs = jax.vmap(lambda key: smc.run(local, key, 200).log_evidence)(jax.random.split(KEY, 400))
    ratios = np.exp(np.asarray(runs - truth))
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / np.sqrt(len(ratios)) < 0.1


@pytest.mark.slow
def test_gaussian_guides_by_exact_and_sampled_elbos():
    """On the local system both find the closed form; on the true one the guide beats the local policy."""
    task = system()
    local, true = about(task), models.nonlinear_gaussian(task)
    solution = exact.solve(local)
    fit = svi.fit(local, KEY)
    assert fit.converged
    np.testing.assert_allclose(fit.elbo, solution.elbo, atol=1e-9)
    way = dict(loss=svi.ParticleELBO(200), optimizer=optax.adam(0.03))
    sampled = svi.fit(local, KEY, 600, guide=affine(), **way)
    np.testing.assert_allclose(np.mean(sampled.losses[-100:]), -solution.elbo, atol=0.05)
    np.testing.assert_allclose(sampled.params["gain"], solution.policy["u"].gain[:, 0, 0], atol=0.15)

    def elbo(program, guide):
        """By trajectories alone."""
        loss = svi.ParticleELBO(20_000)
        return float(loss.estimate(loss.read(program), program.with_guide(guide).learned, jax.random.key(9)))

    learned = svi.fit(true, KEY, 600, guide=affine(), **way)
    cov = solution.policy["u"].cov[:, 0, 0]
    taken = Affine(solution.policy["u"].gain[:, 0, 0], solution.policy["u"].offset[:, 0], jnp.log(cov) / 2)
    np.testing.assert_allclose(elbo(local, taken), solution.elbo, atol=0.03)
    best = elbo(true, Affine(**learned.params))
    assert best > elbo(true, taken) + 0.005
    assert best < smc.run(true, KEY, 20_000).log_evidence


@pytest.mark.slow
def test_noise_may_be_nothing():
    """Then all is chosen: the evidence is the mean of exp(-cost) over actions that NumPyro draws from the prior."""
    program = models.nonlinear_gaussian(Dynamics(step, cost, T, [-0.5], 1))
    drawn = Predictive(program.model, num_samples=20_000)(KEY)
    x, paid = np.full(20_000, -0.5), np.zeros(20_000)
    for t in range(T):
        u = np.asarray(drawn[f"t{t}/u"])[:, 0]
        paid += (x - 1) ** 2 * (1 + 0.1 * t) + 0.2 * u**2
        x = x + 0.5 * np.sin(2 * x) + u
    paid += (x - 1) ** 2 * (1 + 0.1 * T)
    np.testing.assert_allclose(smc.run(program, KEY, 20_000).log_evidence, np.log(np.exp(-paid).mean()), atol=0.05)


@pytest.mark.parametrize(
    "arguments, error, match",
    [
        ((3,), TypeError, "Dynamics"),
        ((system(), (np.zeros((1, 1)), np.zeros(1))), ValueError, "entries"),
        ((system(), (np.zeros((2, 1)), np.zeros(1), np.eye(1))), ValueError, "gain"),
        ((system(), (np.zeros((1, 1)), np.zeros(1), np.zeros((1, 1)))), ValueError, "singular"),
        ((system(), None, np.nan), ValueError, "inverse_temperature"),
    ],
)
def test_what_is_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        models.nonlinear_gaussian(*arguments)
