"""The certainty equivalents of the elimination, over forty orders of magnitude of the inverse temperature."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from rlinf_ppl.algebra import Conditional, Table
from rlinf_ppl.algebra.linear_systems import dot
from rlinf_ppl.algebra.numerics import expm1_over, log1p_over, relative_entropy, soft_maximum

P = jnp.array([0.0, 0.2, 0.3, 0.5])
W = jnp.array([5.0, -1.0, 2.0, 0.5])
MEAN = float(P @ W)
VARIANCE = float(P @ (W - MEAN) ** 2)


def truth(p, w, tau):
    """In extended precision; at the smallest tau by the expansion to second order."""
    p, w, tau = np.asarray(p, np.longdouble), np.asarray(w, np.longdouble), np.longdouble(tau)
    mean = (p * w).sum()
    if abs(tau) < 5e-7:
        return mean + tau * (p * (w - mean) ** 2).sum() / 2
    p, w = p[p > 0], w[p > 0]
    peak = (tau * w).max()
    return (peak + np.log((p * np.exp(tau * w - peak)).sum())) / tau


@pytest.mark.parametrize("tau", [0.0, *(sign * 10.0**e for sign in (1, -1) for e in range(-12, 5))])
def test_soft_maximum_at_every_inverse_temperature(tau):
    q, value = soft_maximum(P, W, jnp.asarray(tau))
    assert float(value) == pytest.approx(float(truth(P, W, tau)), rel=1e-12, abs=1e-14)
    weights = np.where(P > 0, np.asarray(P) * np.exp(np.minimum(tau * (np.asarray(W) - float(value)), 0 * W + 700)), 0)
    np.testing.assert_allclose(q, weights, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("tau", [1e-6, -1e-6, 1e-3, 0.0, 3.0])
def test_soft_maximum_in_single_precision(tau):
    value = soft_maximum(P.astype(jnp.float32), W.astype(jnp.float32), jnp.asarray(tau, jnp.float32))[1]
    assert value.dtype == jnp.float32
    assert float(value) == pytest.approx(float(truth(P, W, tau)), rel=5e-7)


def test_derivative_in_the_inverse_temperature_at_zero_is_half_the_variance():
    found = jax.grad(lambda tau: soft_maximum(P, W, tau)[1])(jnp.zeros(()))
    assert float(found) == pytest.approx(VARIANCE / 2, rel=1e-12)


@pytest.mark.parametrize("tau", [-2.0, -0.3, -0.05, 0.05, 0.3, 2.0])
def test_derivative_in_the_inverse_temperature(tau):
    def value(tau):
        return soft_maximum(P, W, jnp.asarray(tau))[1]

    difference = (value(tau + 1e-5) - value(tau - 1e-5)) / 2e-5
    assert float(jax.grad(value)(jnp.asarray(tau))) == pytest.approx(float(difference), rel=1e-8)


def test_derivative_in_a_probability_that_is_zero():
    gradient = jax.grad(lambda p: soft_maximum(p, W)[1])(P)
    np.testing.assert_allclose(gradient, jnp.exp(W - soft_maximum(P, W)[1]), rtol=1e-12)


def test_a_far_larger_value_at_a_probability_that_is_zero_does_no_harm():
    w = jnp.array([1e6, 0.0, 0.0, 0.0])
    q, value = soft_maximum(P, w)
    assert float(value) == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_array_equal(q, P)
    assert jnp.isfinite(jax.grad(lambda p: soft_maximum(p, w)[1])(P)).all()


@given(st.lists(st.floats(-50, 50), min_size=3, max_size=3), st.floats(-3, 3))
def test_the_soft_maximum_is_monotone_in_the_inverse_temperature(w, tau):
    p, w = jnp.array([0.2, 0.3, 0.5]), jnp.array(w)
    less, more = (soft_maximum(p, w, jnp.asarray(t))[1] for t in (tau, tau + 0.5))
    assert float(less) <= float(more) + 1e-12
    assert float(w.min()) - 1e-12 <= float(less) and float(more) <= float(w.max()) + 1e-12


@pytest.mark.parametrize("tau", [None, 0.7, -0.7, 1e-8, 0.0])
def test_log_mean_of_a_matrix_is_the_soft_maximum_of_each_row(tau):
    rng = np.random.default_rng(0)
    law = Conditional("x", Table(("s", "x"), jnp.asarray(rng.dirichlet(np.ones(4), size=3))))
    message = Table(("z", "x"), jnp.asarray(rng.normal(size=(2, 4))))
    scale = None if tau is None else Table((), jnp.asarray(tau))
    found = message.log_mean(law, scale).aligned(("s", "z"))
    for s in range(3):
        for z in range(2):
            expected = truth(law.table.array[s], message.array[z], 1.0 if tau is None else tau)
            assert float(found[s, z]) == pytest.approx(float(expected), rel=1e-12)


def test_log_mean_of_a_row_that_sees_only_small_values():
    law = Conditional("x", Table(("s", "x"), jnp.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]])))
    message = Table(("x",), jnp.array([0.0, -2000.0, -2001.0]))
    expected = [np.log(0.5), -2000 + np.log(0.5 + 0.5 * np.exp(-1))]
    np.testing.assert_allclose(message.log_mean(law, None).array, expected, rtol=1e-12)
    gradient = jax.grad(lambda p: message.log_mean(Conditional("x", Table(("s", "x"), p)), None).array.sum())
    assert jnp.isfinite(gradient(law.table.array)[law.table.array > 0]).all()
    colder = Table(("x",), message.array / 3).log_mean(law, Table((), jnp.asarray(3.0))).array
    np.testing.assert_allclose(colder, np.array(expected) / 3, rtol=1e-12)
    together = jax.vmap(lambda w: Table(("x",), w).log_mean(law, None).array)(jnp.stack([message.array, jnp.zeros(3)]))
    np.testing.assert_allclose(together, [expected, [0, 0]], rtol=1e-12, atol=1e-15)


def test_sums_of_a_million_products_in_single_precision():
    """XLA's own product of two vectors may add entry by entry: 4e-4 of a million positive ones is lost."""
    rng = np.random.default_rng(1)
    p, w = rng.dirichlet(np.ones(10**6)).astype(np.float32), rng.random(10**6, np.float32)
    law = Conditional("x", Table(("x",), jnp.asarray(p)))
    found = jax.jit(lambda w: (Table(("x",), w).mean(law).array, dot(w, w)))(jnp.asarray(w))
    expected = p.astype(float) @ w.astype(float), w.astype(float) @ w.astype(float)
    np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_relative_entropy_at_its_edges():
    q, p = jnp.array([0.0, 0.4, 0.6]), jnp.array([0.0, 0.5, 0.5])
    assert float(relative_entropy(q, p)) == pytest.approx(0.4 * np.log(0.8) + 0.6 * np.log(1.2))
    assert float(relative_entropy(p, jnp.array([0.5, 0.5, 0.0]))) == np.inf
    gradient = jax.grad(relative_entropy)(q, p)
    assert float(gradient[0]) == 0.0 and jnp.isfinite(gradient).all()


def test_relative_entropy_of_what_differs_by_little_and_by_much():
    """In single precision, against double: also where an inverse temperature next to 0 divides what rounding leaves."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(0.5 * np.ones(7), 200)
    for size in (0.0, 1e-6, 1e-4, 1e-2, 0.3, 1.0, 5.0, 40.0):
        q = p * np.exp(size * rng.normal(size=p.shape))
        q = (q / q.sum(-1, keepdims=True)).astype(np.float32)
        rounded = p.astype(np.float32)
        wide, narrow = q.astype(np.float64), rounded.astype(np.float64)
        exact = [math.fsum(scipy.special.kl_div(*rows)) for rows in zip(wide, narrow, strict=True)]
        found = relative_entropy(jnp.asarray(q), jnp.asarray(rounded))
        np.testing.assert_allclose(found, exact, rtol=1e-5, atol=3e-7 * size + 1e-13)
        plain = np.sum(wide * np.log(np.where(wide > 0, wide, 1) / narrow), -1)
        np.testing.assert_allclose(relative_entropy(jnp.asarray(wide), jnp.asarray(narrow)), plain, atol=2e-7)
        slopes = jax.grad(lambda q, p: relative_entropy(q, p).sum(), (0, 1))(jnp.asarray(wide), jnp.asarray(narrow))
        np.testing.assert_allclose(slopes[1], 1 - wide / narrow, rtol=1e-6, atol=1e-6)
        inside = wide > 0
        np.testing.assert_allclose(slopes[0][inside], np.log(wide[inside] / narrow[inside]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("x", [0.0, 1e-12, -1e-5, 0.0199, 0.0201, 0.0499, 0.0501, -0.9])
def test_quotients_with_a_removable_singularity(x):
    long = np.longdouble(x)
    for function, exact in ((expm1_over, np.expm1), (log1p_over, np.log1p)):
        expected = 1.0 if x == 0 else float(exact(long) / long)
        assert float(function(jnp.asarray(x))) == pytest.approx(expected, rel=4e-16 * 8)
    for function, at_zero in ((expm1_over, 0.5), (log1p_over, -0.5)):
        assert float(jax.grad(function)(jnp.zeros(()))) == at_zero
