"""Derivatives of certainty equivalents in probabilities that are 0, against the plain formula in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlinf_ppl.algebra import Conditional, Table
from rlinf_ppl.algebra.numerics import soft_maximum, soft_maximum_of_columns

TAUS = [1e-8, -1e-8, 1e-3, 0.1, -0.1, 1.0, 3.0, -1.0, -30.0, 20.0, 0.0]
PRIORS = [[0.5, 0.5, 0.0], [0.25, 0.75, 0.0], [0.0, 1.0, 0.0]]
VALUES = [[0.0, 0.0, 3.0], [0.1, 0.0, 3.0], [1.0, 2.0, -2.0]]
AWAY = np.array([-0.25, -0.25, 0.5])


def by_array(p, w, tau):
    return soft_maximum(p, w, tau)[1]


def by_columns(p, w, tau):
    return soft_maximum_of_columns(tuple(p), tuple(w), tau)[1]


def by_message(p, w, tau):
    law = Conditional("x", Table(("s", "x"), p[None]))
    return Table(("x",), w).log_mean(law, Table((), tau)).array[0]


FORMS = [by_array, by_columns, by_message]


DERIVATIVES = {form: jax.jit(jax.grad(form, (0, 1, 2))) for form in FORMS}


def tilted(p, w, tau):
    """The derivatives of (1 / tau) log sum p exp(tau w) in p, w and tau."""
    p, w = np.asarray(p, np.float64), np.asarray(w, np.float64)
    mean = p @ w
    if abs(tau) < 1e-6:
        return w - mean + tau * (w - mean) ** 2 / 2, p, p @ (w - mean) ** 2 / 2
    value = np.log(p @ np.exp(tau * w)) / tau
    q = p * np.exp(tau * (w - value))
    return np.exp(tau * (w - value)) / tau, q, (q @ w - value) / tau


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("form", FORMS)
def test_derivatives_where_a_probability_is_zero(form, tau, dtype):
    for prior in PRIORS:
        for values in VALUES:
            p, w = jnp.asarray(prior, dtype), jnp.asarray(values, dtype)
            in_p, in_w, in_tau = DERIVATIVES[form](p, w, jnp.asarray(tau, dtype))
            true_p, true_w, true_tau = tilted(prior, values, tau)
            rtol, atol = (1e-8, 1e-7) if dtype == jnp.float64 else (2e-5, 2e-5)
            # Along a direction of distributions: what is added to all derivatives is no matter.
            scale = np.abs(true_p * AWAY).max()
            if dtype == jnp.float32 and scale > 1e30:
                continue
            np.testing.assert_allclose(in_p @ AWAY, true_p @ AWAY, rtol=rtol, atol=atol * max(1, scale))
            np.testing.assert_allclose(in_w, true_w, rtol=rtol, atol=atol)
            np.testing.assert_allclose(in_tau, true_tau, rtol=1e2 * rtol, atol=1e2 * atol)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("form", FORMS)
def test_derivatives_of_the_largest_possible_value_are_finite(form, dtype):
    p, w = jnp.asarray([0.5, 0.5, 0.0], dtype), jnp.asarray([0.0, 1.0, 3.0], dtype)
    in_p, in_w = jax.grad(form, (0, 1))(p, w, jnp.asarray(jnp.inf, dtype)) if form != by_message else (p, p)
    assert np.isfinite(in_p).all() and np.isfinite(in_w).all()


def test_the_derivative_far_outside_the_radius():
    found = jax.grad(by_array)(jnp.array([0.5, 0.5, 0.0]), jnp.array([0.0, 0.0, 3.0]), jnp.asarray(3.0))
    assert float(found @ AWAY) == pytest.approx((np.exp(9) - 1) / 6, rel=1e-12)
    assert float(found @ AWAY) == pytest.approx(1350.35, abs=0.01)


@pytest.mark.parametrize("tau", [0.1, 3.0])
def test_second_derivatives_where_a_probability_is_zero(tau):
    p, w = jnp.array([0.5, 0.5, 0.0]), jnp.array([0.0, 0.01, 3.0])
    plain = jax.hessian(lambda p, w: jnp.log(p @ jnp.exp(tau * w)) / tau, (0, 1))(p, w)
    found = jax.hessian(by_array, (0, 1))(p, w, jnp.asarray(tau))
    np.testing.assert_allclose(found[0][1].T @ AWAY, plain[0][1].T @ AWAY, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(AWAY @ found[0][0] @ AWAY, AWAY @ plain[0][0] @ AWAY, rtol=1e-6)
