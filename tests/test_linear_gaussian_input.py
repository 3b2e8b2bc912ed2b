"""What is no linear-Gaussian program, and how its author is told."""

import jax.numpy as jnp
import jaxtyping
import numpy as np
import numpyro
import pytest
from numpyro.distributions import Bernoulli, MultivariateNormal, Normal

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact
from rlinf_ppl.tasks import LinearQuadratic


def system(**changed):
    """A task of two dimensions."""
    eye, nothing = np.eye(2), np.zeros(2)
    matrices = dict(A=eye, B=eye, c=nothing, noise=0.1 * eye, state_reward=-eye, action_reward=-eye, goal=np.ones(2))
    return LinearQuadratic(**(matrices | changed), initial_mean=nothing, initial_cov=eye)


def step_with(sample):
    def step(x):
        u = decide("u", MultivariateNormal(jnp.zeros(2), jnp.eye(2)))
        return {"x": sample(x, u)}

    def first():
        return {"x": numpyro.sample("x_first", MultivariateNormal(jnp.zeros(2), jnp.eye(2)))}

    return lambda: exact.solve(ControlProgram(first, step, 3))


def certain(x):
    u = decide("u", Normal(0.0, 1.0), inverse_temperature=jnp.inf)
    optimality(-(u**2) + x * u)
    return {"x": numpyro.sample("x_next", Normal(x, 1.0))}


def convex(x, t):
    u = decide("u", Normal(x, 1.0))
    optimality(jnp.where(t == 1, 2.0, -1.0) * u**2)
    return {"x": numpyro.sample("x_next", Normal(x + u, 1.0))}


def hopeful(x):
    u = decide("u", Normal(0.0, 1.0))
    optimality(-(u**2) + 0.3 * x**2)
    return {"x": numpyro.sample("x_next", Normal(x, 1.0))}


def beginning():
    return {"x": numpyro.sample("x_first", Normal(0.0, 1.0))}


MISTAKES = {
    "nonlinear": (
        step_with(lambda x, u: numpyro.sample("x_next", Normal(jnp.sin(x) + u, 1.0).to_event(1))),
        "step: 'x_next' is not linear-Gaussian: its mean is not linear in x and u: it takes sin of "
        "them, which is no polynomial. Replace it by its tangent.*Or run smc.run, or svi.fit with guide=svi.networks",
    ),
    "heteroscedastic": (
        step_with(lambda x, u: numpyro.sample("x_next", Normal(x, jnp.exp(u)).to_event(1))),
        "'x_next' is not linear-Gaussian: its covariance depends on x and u.\nOr run smc.run",
    ),
    "cubic": (
        step_with(lambda x, u: (optimality(-jnp.sum(u**4)), x)[1]),
        "'optimality' is not linear-Gaussian: it is not quadratic in u: it has degree 4",
    ),
    "moved": (
        step_with(lambda x, u: x * u[0]),
        "step: 'x' is not linear-Gaussian: the next value is not linear in x and u: it has degree 2",
    ),
    "covariance": (
        step_with(lambda x, u: numpyro.sample("x_next", MultivariateNormal(x, jnp.diag(jnp.array([1.0, -1.0]))))),
        "'x_next' is not linear-Gaussian: its covariance is not positive definite",
    ),
    "batch": (
        step_with(lambda x, u: numpyro.sample("x_next", Normal(x, 1.0))),
        r"'x_next' \(Normal\) has batch shape \(2,\).*to_event\(1\)",
    ),
    "another_shape": (step_with(lambda x, u: x[:1]), r"step returned 'x' with shape \(1,\); its first value has shape"),
    "mixed": (
        step_with(lambda x, u: x + numpyro.sample("coin", Bernoulli(0.5))),
        "is Gaussian and .*'coin' has finitely many values",
    ),
    "infinite_temperature": (
        lambda: exact.solve(ControlProgram(beginning, certain, 3)),
        "the inverse temperature of 'u' is infinite: .*Give it a large finite one",
    ),
    "convex": (
        lambda: exact.solve(ControlProgram(beginning, convex, 3)),
        "at t = 1 .*'u' has no maximum",
    ),
    "no_expectation": (
        lambda: exact.condition(ControlProgram(beginning, hopeful, 3)),
        "at t = 0 .*exp.* over 'x_next' does not exist",
    ),
    "discounted_posterior": (
        lambda: exact.condition(models.linear_gaussian(system(), 3, discount=0.9)),
        "mixture of the living and the dead.*discount 1",
    ),
    "positive_reward": (
        lambda: system(state_reward=np.eye(2)),
        "state_reward is not negative semidefinite: it has the eigenvalue 1",
    ),
    "negative_noise": (
        lambda: system(noise=-np.eye(2)),
        "noise is not positive semidefinite: it has the eigenvalue -1",
    ),
    "asymmetric": (
        lambda: LinearQuadratic(
            *[np.eye(2)] * 2, np.zeros(2), [[1, 0.5], [0, 1]], *[-np.eye(2)] * 2, *[np.zeros(2)] * 2, np.eye(2)
        ),
        "noise is not symmetric: entries across the diagonal differ by 0.5",
    ),
    "shapes": (
        lambda: LinearQuadratic(
            np.eye(2), np.ones((3, 1)), *[np.zeros(2), np.eye(2)], *[-np.eye(2)] * 2, *[np.zeros(2)] * 2, np.eye(2)
        ),
        r"B has shape \(3, 1\)",
    ),
    "horizon": (
        lambda: program_and_horizon(4),
        "the task has 3 time steps, but horizon is 4",
    ),
    "prior_cov": (
        lambda: models.linear_gaussian(system(), 3, (np.zeros((2, 2)), np.zeros(2), np.zeros((2, 2)))),
        "prior's cov is singular",
    ),
    "prior_of_two": (
        lambda: models.linear_gaussian(system(), 3, (np.zeros((2, 2)), np.eye(2))),
        r"prior has 2 entries; it must be \(gain, offset, covariance\)",
    ),
    "vector_for_a_matrix": (lambda: system(A=np.ones(2)), r"A has shape \(2,\): it must be a matrix, or \(T, rows"),
    "nothing_to_do": (
        lambda: LinearQuadratic(
            np.eye(2),
            np.zeros((2, 0)),
            np.zeros(2),
            np.eye(2),
            -np.eye(2),
            np.zeros((0, 0)),
            *[np.zeros(2)] * 2,
            np.eye(2),
        ),
        r"B \(2, 0\): a task needs at least one of everything",
    ),
    "prior_shape": (
        lambda: models.linear_gaussian(system(), 3, (np.zeros((1, 2)), np.zeros(2), np.eye(2))),
        r"prior's gain has shape \(1, 2\)",
    ),
    "policy": (
        lambda: exact.elbo(models.linear_gaussian(system(), 3), {"u": np.zeros((3, 2))}),
        r"policy\['u'\] must be \(gain, offset, cov\) with shapes \(2, 2\), \(2,\), \(2, 2\)",
    ),
    "policy_shape": (
        lambda: exact.elbo(models.linear_gaussian(system(), 3), {"u": (np.zeros((2, 1)), np.zeros(2), np.eye(2))}),
        r"policy\['u'\].gain has shape \(2, 1\); it must be \(3, 2, 2\)",
    ),
    "no_task": (
        lambda: models.linear_gaussian(np.eye(2), 3),
        "task must be a task of rlinf_ppl.tasks, LinearQuadratic",
    ),
}


def program_and_horizon(horizon):
    task = system(A=np.tile(np.eye(2), (3, 1, 1)))
    return models.linear_gaussian(task, horizon)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(mistake, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    wrong, message = MISTAKES[mistake]
    with pytest.raises((TypeError, ValueError), match="(?s)" + message):
        wrong()
