"""Quadratic messages against dense Gaussian integrals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rlinf_ppl.algebra.affine import AffineArrival
from rlinf_ppl.algebra.gaussians import LinearGaussian, Noise
from rlinf_ppl.algebra.quadratics import Quadratic
from rlinf_ppl.algebra.small_matrices import cholesky, inverse
from rlinf_ppl.algebra.squares import Squares

SIZES = {"x": 2, "u": 1, "y": 3}


def random(seed):
    return np.random.default_rng(seed)


def quadratic(rng, axes, concave=True):
    n = sum(SIZES[name] for name in axes)
    root = rng.normal(size=(n + 1, n + 1))
    matrix = -root @ root.T if concave else root + root.T
    return Quadratic(tuple(axes), tuple(SIZES[name] for name in axes), jnp.asarray(matrix))


def law(rng, name, axes, scale=1.0):
    n, width = SIZES[name], sum(SIZES[axis] for axis in axes) + 1
    root = scale * rng.normal(size=(n, n))
    sizes = tuple(SIZES[axis] for axis in axes)
    return LinearGaussian(
        name, tuple(axes), sizes, jnp.asarray(rng.normal(size=(n, width))), jnp.asarray(root @ root.T)
    )


def at(message, values):
    z = np.concatenate([*(values[name] for name in message.axes), [1.0]])
    return z @ np.asarray(message.array) @ z


def mean_at(law, values):
    return np.asarray(law.map) @ np.concatenate([*(values[name] for name in law.axes), [1.0]])


def values(rng):
    return {name: rng.normal(size=n) for name, n in SIZES.items()}


def exponential_integral(message, law, where, tau):
    """(1 / tau) log E exp(tau W), the tilted mean and covariance, by the precision of the density itself."""
    n = SIZES[law.name]
    quad = lambda d: at(message, where | {law.name: d})  # noqa: E731
    zero, eye = np.zeros(n), np.eye(n)
    c = quad(zero)
    b = np.array([(quad(e) - quad(-e)) / 2 for e in eye])
    a = np.array([[(quad(e + f) - quad(e) - quad(f) + c) / 2 for e in eye] for f in eye])
    m, cov = mean_at(law, where), np.asarray(law.cov)
    precision = np.linalg.inv(cov) - 2 * tau * a
    assert (np.linalg.eigvalsh(precision) > 0).all()
    shift = np.linalg.solve(cov, m) + tau * b
    tilted = np.linalg.solve(precision, shift)
    log = tau * c + 0.5 * (shift @ tilted - m @ np.linalg.solve(cov, m) - np.linalg.slogdet(precision @ cov)[1])
    return log / tau, tilted, np.linalg.inv(precision)


@given(st.integers(0, 10_000))
def test_sums_and_differences(seed):
    rng = random(seed)
    a, b, where = quadratic(rng, "xu"), quadratic(rng, "yx"), values(rng)
    assert at(a + b, where) == pytest.approx(at(a, where) + at(b, where))
    assert at(a - b, where) == pytest.approx(at(a, where) - at(b, where))
    wide = a.over(("y", "u", "x"), SIZES)
    assert wide.axes == ("y", "u", "x")
    assert at(wide, where) == pytest.approx(at(a, where))


@pytest.mark.parametrize("parents", ["", "x", "xu", "ux"])
def test_the_mean_over_a_law(parents):
    rng = random(1)
    message, chance, where = quadratic(rng, "xy"), law(rng, "y", parents), values(rng)
    found = message.mean(chance)
    assert "y" not in found.axes
    noise = rng.normal(size=(0, 3))
    expected = at(message, where | {"y": mean_at(chance, where)})
    block = np.asarray(message.array)[2:5, 2:5]
    expected += np.trace(block @ np.asarray(chance.cov)) + noise.sum()
    assert at(found, where) == pytest.approx(expected)


@given(st.integers(0, 10_000), st.sampled_from([0.01, 0.3, 1.0, 4.0]), st.sampled_from(["", "x", "xu"]))
def test_tilting_is_a_gaussian_integral(seed, tau, parents):
    rng = random(seed)
    message, prior, where = quadratic(rng, "xy"), law(rng, "y", parents), values(rng)
    value, q = message.tilt(prior, Quadratic((), (), jnp.full((1, 1), tau)))
    expected, mean, cov = exponential_integral(message, prior, where, tau)
    assert at(value, where) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(mean_at(q, where), mean, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(q.cov, cov, rtol=1e-6, atol=1e-8)
    assert at(message.log_mean(prior, Quadratic((), (), jnp.full((1, 1), tau))), where) == pytest.approx(
        expected, rel=1e-6
    )


def test_a_small_inverse_temperature_tends_to_the_mean():
    rng = random(2)
    message, chance, where = quadratic(rng, "xy"), law(rng, "y", "x"), values(rng)
    average = at(message.mean(chance), where)
    for tau in (0.0, 1e-12, -1e-12):
        found = at(message.log_mean(chance, Quadratic((), (), jnp.full((1, 1), tau))), where)
        assert found == pytest.approx(average, rel=1e-9)
    slope = jax.grad(lambda tau: message.log_mean(chance, Quadratic((), (), tau[None, None])).array[-1, -1])(
        jnp.zeros(())
    )
    assert jnp.isfinite(slope)


def test_a_law_without_noise_is_a_substitution():
    rng = random(3)
    message, where = quadratic(rng, "xy"), values(rng)
    fixed = law(rng, "y", "x", scale=0.0)
    inside = where | {"y": mean_at(fixed, where)}
    for tau in (None, Quadratic((), (), jnp.full((1, 1), 0.7))):
        assert at(message.log_mean(fixed, tau), where) == pytest.approx(at(message, inside))
    assert at(message.mean(fixed), where) == pytest.approx(at(message, inside))


def test_what_does_not_exist_is_not_a_number():
    rng = random(4)
    convex = Quadratic(("y",), (3,), jnp.eye(4))
    assert jnp.isnan(convex.log_mean(law(rng, "y", "x", scale=2.0), None).array[-1, -1])


@given(st.integers(0, 10_000))
def test_cost_is_the_relative_entropy(seed):
    rng = random(seed)
    p, q, where = law(rng, "y", "x"), law(rng, "y", "u"), values(rng)
    assume(np.linalg.cond(p.cov) < 1e9)  # beyond, a covariance itself does not hold six digits of its inverse
    apart = mean_at(q, where) - mean_at(p, where)
    precision = np.linalg.inv(p.cov)
    logs = np.linalg.slogdet(p.cov)[1] - np.linalg.slogdet(q.cov)[1]
    expected = (np.trace(precision @ q.cov) - 3 + apart @ precision @ apart + logs) / 2
    assert at(p.cost(q), where) == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_arrivals_rename_and_map():
    rng = random(5)
    message, where = quadratic(rng, "xu"), values(rng)
    renamed = AffineArrival((("x", "x_next"), ("u", "u")), {}).pull(message)
    assert renamed.axes == ("x_next", "u")
    moved = law(rng, "x", "yx", scale=0.0)
    pulled = AffineArrival((("x", None), ("u", "u")), {"x": moved}).pull(message)
    assert at(pulled, where) == pytest.approx(at(message, where | {"x": mean_at(moved, where)}))
    twice = AffineArrival((("x", "x"), ("x2", "x")), {}).pull(Quadratic(("x", "x2"), (2, 2), jnp.eye(5)))
    assert at(twice, where) == pytest.approx(2 * where["x"] @ where["x"] + 1)


@pytest.mark.parametrize("n", [1, 4, 12])
def test_small_factorisations(n):
    rng = random(n)
    root = rng.normal(size=(n, n))
    matrix = root @ root.T
    found, pivots = inverse(jnp.asarray(matrix))
    np.testing.assert_allclose(found, np.linalg.inv(matrix), rtol=1e-6)
    assert float(jnp.log(pivots).sum()) == pytest.approx(np.linalg.slogdet(matrix)[1])
    np.testing.assert_allclose(cholesky(jnp.asarray(matrix)), np.linalg.cholesky(matrix), rtol=1e-8, atol=1e-12)
    singular = jnp.asarray(root[:, :1] @ root[:, :1].T)
    factor = cholesky(singular)
    np.testing.assert_allclose(factor @ factor.T, singular, atol=1e-12)


def test_the_last_digits_of_a_constant_that_is_a_sum_of_squares_are_counted():
    message = Squares((), (), jnp.array([[30.0], [40.0], [0.0]]))
    assert float(message.constant) == -2500
    assert float(message.rounding.absolute) >= 2500 * np.finfo(float).eps


def test_squares_have_the_values_and_means_of_the_quadratic_that_they_are():
    """At points, and under second moments; a difference of two of them may be no such function."""
    rng = np.random.default_rng(0)
    array = jnp.asarray(rng.normal(size=(5, 4)))
    squares = Squares(("x", "u"), (2, 1), array)
    matrix, vector, scalar = squares.coefficients
    whole = jnp.block([[matrix, vector[:, None] / 2], [vector[None] / 2, scalar.reshape(1, 1)]])
    quadratic = Quadratic(("x", "u"), (2, 1), whole)
    at = {"x": jnp.asarray(rng.normal(size=(7, 2))), "u": jnp.asarray(rng.normal(size=(7, 1)))}
    np.testing.assert_allclose(squares.rows(at), quadratic.rows(at), rtol=1e-12)
    z = np.concatenate([at["x"], at["u"], np.ones((7, 1))], 1)
    moments = jnp.asarray(z.T @ z / 7)
    np.testing.assert_allclose(squares.expectation(moments), np.mean(squares.rows(at)), rtol=1e-12)
    np.testing.assert_allclose(quadratic.expectation(moments), np.mean(squares.rows(at)), rtol=1e-12)
    with pytest.raises(NotImplementedError, match="may not be concave"):
        squares - squares


def test_the_noise_of_a_prior_is_a_standard_normal_law():
    noise, standard = Noise("u", 2), LinearGaussian("u", (), (), jnp.zeros((2, 1)), jnp.eye(2))
    draws = jnp.asarray(np.random.default_rng(1).normal(size=(4, 2)))
    np.testing.assert_array_equal(noise.draw(draws, {}, None, 1.0), draws)
    other = LinearGaussian("u", (), (), jnp.array([[0.5], [-1.0]]), covariance=jnp.diag(jnp.array([0.5, 2.0])))
    np.testing.assert_allclose(noise.cost(other).constant, standard.cost(other).constant, rtol=1e-12)
    np.testing.assert_allclose(noise.cost(other).constant, (0.5 + 2 - 2 + 0.25 + 1 - np.log(0.5 * 2)) / 2, rtol=1e-12)
    assert noise.normals == 2
