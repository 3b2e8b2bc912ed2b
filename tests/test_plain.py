"""Coefficients are derivatives of what is computed; what is known keeps the derivative rules of its author."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from degree_expressions import wrong_square
from jax import lax
from numpyro.distributions import Normal
from oracles import gaussian

from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.inference import exact

SQUARES = {
    "stop_gradient": lambda x: lax.stop_gradient(x) ** 2,
    "custom_jvp": wrong_square,
    "in a jit": lambda x: jax.jit(lambda y: wrong_square(y) + 0.0)(x),
    "in a scan": lambda x: lax.scan(lambda c, y: (c + wrong_square(y), None), 0.0, x[None])[0],
    "half stopped": lambda x: x * lax.stop_gradient(x),
}


def program(square, *args):
    def first(*args):
        return {"x": numpyro.sample("x_first", Normal(0.0, 1.0))}

    def step(*args, x):
        u = decide("u", Normal(0.0, 1.0))
        optimality(-square(x, *args))
        return {"x": numpyro.sample("x_next", Normal(x + u, 0.1**0.5))}

    return ControlProgram(first, step, 3, args=args)


def evidence(goal=0.0):
    """Of the same by one Gaussian integral over whole trajectories."""
    one, steps = np.ones((3, 1, 1)), np.ones((4, 1, 1))
    rewarded = -steps * np.array([1.0, 1.0, 1.0, 0.0])[:, None, None]
    goals = np.full((4, 1), goal)
    problem = gaussian.Problem(
        one, one, np.zeros((3, 1)), 0.1 * one, rewarded, 0 * one, goals, np.zeros(1), np.ones((1, 1))
    )
    return gaussian.posterior(problem, (0 * one, np.zeros((3, 1)), one), 1.0)[2]


@pytest.mark.parametrize("name", SQUARES)
def test_the_evidence_of_a_square_whatever_its_derivative_rule(name):
    assert evidence() == pytest.approx(-1.911, abs=5e-4)
    found = exact.condition(program(SQUARES[name])).log_evidence
    assert float(found) == pytest.approx(evidence(), rel=1e-10)


@jax.custom_jvp
def tripled(theta):
    return 3 * theta


tripled.defjvp(lambda primals, tangents: (tripled(primals[0]), 30 * tangents[0]))


def test_the_gradient_with_respect_to_args_is_the_author_s():
    def log_evidence(theta, goal):
        return exact.condition(program(lambda x, theta: wrong_square(x - goal(theta)), theta)).log_evidence

    theta = jnp.asarray(0.2)
    assert float(log_evidence(theta, tripled)) == pytest.approx(evidence(0.6), rel=1e-10)
    true = 3 * (evidence(0.6 + 1e-5) - evidence(0.6 - 1e-5)) / 2e-5
    for goal, factor in ((lambda theta: 3 * theta, 1), (tripled, 10), (lambda t: lax.stop_gradient(3 * t), 0)):
        found = jax.grad(log_evidence)(theta, goal)
        assert float(found) == pytest.approx(factor * true, rel=1e-6, abs=1e-12)


def test_a_rule_over_something_known_stays_within_a_jit_and_a_loop():
    def square(x, theta):
        known, _ = lax.scan(lambda c, _: (tripled(c), None), theta, None, 2)
        return jax.jit(lambda x, theta: wrong_square(x - (known + tripled(theta))))(x, theta)

    log_evidence = lambda theta: exact.condition(program(square, theta)).log_evidence  # noqa: E731
    true = (evidence(1.2 + 1e-5) - evidence(1.2 - 1e-5)) / 2e-5
    assert float(jax.grad(log_evidence)(jnp.asarray(0.1))) == pytest.approx((900 + 30) * true, rel=1e-6)


def test_a_known_matrix_of_a_solve_keeps_its_gradient():
    def log_evidence(k, divided):
        solved = lambda x, k: x * jnp.linalg.solve(k[None, None] * jnp.eye(1), x[None])[0]  # noqa: E731
        return exact.condition(program((lambda x, k: x * x / k) if divided else solved, k)).log_evidence

    found, expected = (jax.value_and_grad(log_evidence)(jnp.asarray(1.7), divided) for divided in (False, True))
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert float(found[1]) > 0.1


def test_a_solver_whose_matrix_is_a_variable_is_refused():
    def square(x):
        return x * lax.custom_linear_solve(lambda y: (1.0 + x) * y, x, lambda _, b: b, symmetric=True)

    with pytest.raises(ValueError, match="takes custom_linear_solve of them"):
        exact.condition(program(square))


def test_arrays_that_hold_several_degrees_are_read_under_transformations():
    def square(x, k):
        several = jnp.stack([x, k * x * x, jnp.ones(())])
        rows = lax.scan(lambda c, row: (c, lax.stop_gradient(row) * k), 0.0, several)[1]
        return rows[0] ** 2 + rows[1] + rows[2]

    base = program(square, jnp.asarray(1.0))
    log_evidence = lambda k: exact.condition(eqx.tree_at(lambda p: p.args[0], base, k)).log_evidence  # noqa: E731
    ks = jnp.array([0.7, 0.9])
    one_by_one = [float(log_evidence(k)) for k in ks]
    np.testing.assert_allclose(jax.jit(jax.vmap(log_evidence))(ks), one_by_one, rtol=1e-12)
    np.testing.assert_allclose(one_by_one, [float(exact.condition(direct(k)).log_evidence) for k in ks], rtol=1e-12)


def direct(k):
    return program(lambda x, k: 2 * k**2 * x * x + k, k)
