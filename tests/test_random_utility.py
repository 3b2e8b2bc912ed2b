"""A softmax of noisy values: against sums over a grid, draws, limits and differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import memory as oracle
from selection import quick_rows

from rlinf_ppl.algebra.random_utility import choice, mean_entropy

CHOICE, ENTROPY = jax.jit(choice), jax.jit(mean_entropy)
POINTS = {2: 801, 3: 121, 4: 41}
# The last of these stand on both sides of where one way to integrate gives way to the other.
SPREADS = (0.0, 0.05, 0.4, 1.0, 1.49, 1.51, 2.2)


@pytest.mark.parametrize(
    "count, spread",
    quick_rows(
        [(2, 1.49), (3, 0.4), (3, 1.51)], [(k, s) for k in POINTS for s in SPREADS if k < 4 or s in (0.4, 1.51)]
    ),
)
def test_choices_are_those_of_a_grid(count, spread):
    rng = np.random.default_rng(count)
    mean, std = 2 * rng.normal(size=count), spread * rng.uniform(0.4, 1.0, count)
    std[0] = spread
    p, h = oracle.noisy_choice(mean, std, POINTS[count])
    np.testing.assert_allclose(CHOICE(mean, std), p, rtol=3e-11, atol=1e-13)
    assert float(ENTROPY(mean, std)) == pytest.approx(h, abs=1e-10)


@pytest.mark.parametrize("spread", [0.0, 1e-3, 0.7, 1.4, 1.6, 12.0, 1e3, 1e5])
def test_of_two_any_noise(spread):
    for gap in (0.0, 0.3, -2.0, 40.0):
        mean, std = np.array([gap, 0.0]), spread * np.array([0.6, 0.8])
        p, h = oracle.noisy_pair(mean, std) if spread < 100 else of_steps(gap, spread)
        np.testing.assert_allclose(CHOICE(mean, std), p, rtol=1e-9)
        assert float(ENTROPY(mean, std)) == pytest.approx(h, rel=1e-9, abs=1e-13)


def of_steps(gap, spread):
    """Where noise is large: sums over the choice's own numbers, of a density that hardly changes among them."""
    x = np.linspace(-45.0, 45.0, 40_001)
    width = x[1] - x[0]
    p = 1 / (1 + np.exp(-x))
    density = np.exp(-0.5 * ((x - gap) / spread) ** 2) / spread / np.sqrt(2 * np.pi)
    binary = np.logaddexp(0, -x) * p + np.logaddexp(0, x) * (1 - p)
    # E sigmoid = Phi(gap / spread) plus what the sigmoid is off a step, which is odd.
    step = 0.5 * (1 + jax.scipy.special.erf(gap / spread / np.sqrt(2)))
    first = float(step) + np.sum((p - np.heaviside(x, 0.5)) * density) * width
    return np.array([first, 1 - first]), np.sum(binary * density) * width


@pytest.mark.parametrize("std", [(50.0, 300.0, 7.0, 20.0), (0.01, 500.0, 3.0, 3.0), (8.0, 8.0, 0.0, 0.2)])
def test_large_and_unlike_noise(std):
    rng, mean, std = np.random.default_rng(3), np.array([10.0, -30.0, 5.0, 0.0]), np.array(std)
    (p, h), (p_error, h_error) = oracle.drawn_choice(rng, mean, std, 400_000)
    found = CHOICE(mean, std)
    assert np.all(np.abs(found - p) < 5 * p_error + 1e-9)
    assert abs(float(ENTROPY(mean, std)) - h) < 5 * h_error
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-9)


def test_equal_alternatives_share():
    for spread in (0.0, 0.5, 30.0):
        for count in (3, 5):
            np.testing.assert_allclose(CHOICE(jnp.zeros(count), jnp.full(count, spread)), 1 / count, rtol=1e-10)


def test_without_noise_it_is_a_softmax():
    mean = np.array([0.4, -1.0, 3.0])
    p = oracle.softmax(mean)
    np.testing.assert_allclose(CHOICE(mean, np.zeros(3)), p, rtol=3e-11)
    assert float(ENTROPY(mean, np.zeros(3))) == pytest.approx(oracle.entropy(p), abs=1e-10)
    assert float(CHOICE(jnp.zeros(1), jnp.ones(1))[0]) == 1.0 and float(ENTROPY(jnp.zeros(1), jnp.ones(1))) == 0.0


def test_a_hopeless_alternative_is_hardly_chosen_and_has_its_digits():
    p = CHOICE(np.array([30.0, 0.0]), np.array([1.0, 1.0]))
    # E sigmoid(-30 + sqrt(2) z) = e^{-30 + 1} but for the largest z.
    assert float(p[1]) == pytest.approx(np.exp(-29.0), rel=1e-6)


@pytest.mark.parametrize("std", [(0.8, 2.0, 0.1), (0.0, 1.0, 40.0), (1.2, 0.3), (3.0, 9.0)])
def test_slopes_are_those_of_differences(std):
    std = jnp.asarray(std)
    mean, weights = jnp.linspace(-0.5, 1.0, len(std)), jnp.arange(1.0, len(std) + 1)

    def paid(mean, std):
        return jnp.sum(weights * choice(mean, std)) + mean_entropy(mean, std)

    slopes = jax.jit(jax.grad(paid, (0, 1)))(mean, std)
    value = jax.jit(paid)
    for k in range(len(std)):
        e = jnp.zeros(len(std)).at[k].set(1e-4)
        by_mean = (value(mean + e, std) - value(mean - e, std)) / 2e-4
        assert float(slopes[0][k]) == pytest.approx(float(by_mean), abs=1e-7)
        if std[k] > 0:
            by_std = (value(mean, std + e) - value(mean, std - e)) / 2e-4
            assert float(slopes[1][k]) == pytest.approx(float(by_std), abs=1e-7)
        else:
            assert float(slopes[1][k]) == pytest.approx(0.0, abs=1e-12)


def test_second_derivatives_are_those_of_differences():
    mean, std = jnp.array([0.3, -0.4, 0.1]), jnp.array([0.7, 2.5, 1.0])

    def slope(std):
        return jax.grad(lambda std: choice(mean, std)[0] + mean_entropy(mean, std))(std)

    curvature, slope = jax.jit(jax.jacobian(slope))(std), jax.jit(slope)
    for k in range(3):
        e = jnp.zeros(3).at[k].set(1e-4)
        np.testing.assert_allclose(curvature[k], (slope(std + e) - slope(std - e)) / 2e-4, atol=1e-6)


@pytest.mark.parametrize("count", [2, 3])
def test_single_precision(count):
    rng = np.random.default_rng(1)
    mean, std = 3 * rng.normal(size=(20, count)), rng.choice([0.0, 0.3, 1.4, 5.0, 200.0], (20, count))
    wanted, entropies = CHOICE(mean, std), ENTROPY(mean, std)
    with jax.enable_x64(False):
        found = jax.jit(choice)(np.float32(mean), np.float32(std))
        mixed = jax.jit(mean_entropy)(np.float32(mean), np.float32(std))
    assert found.dtype == jnp.float32 and mixed.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, atol=4e-6)
    np.testing.assert_allclose(mixed, entropies, atol=4e-5)


def test_under_vmap_and_in_one_array_it_is_the_same():
    rng = np.random.default_rng(2)
    mean, std = rng.normal(size=(6, 3)), np.abs(rng.normal(size=(6, 3))) * np.array([0.1, 1.0, 9.0])
    np.testing.assert_allclose(jax.vmap(choice)(mean, std), CHOICE(mean, std), rtol=1e-12)


@pytest.mark.parametrize("gap, spread", [(-100.0, 1.5), (-60.0, 2.3), (-700.0, 10.0), (-40.0, 0.3)])
def test_of_two_what_is_hopeless_has_its_digits(gap, spread):
    """Against a sum over where the product of both densities lies."""
    x = np.linspace(gap - 12 * spread, gap + spread**2 + 12 * spread + 40, 400_001)
    logs = -0.5 * ((x - gap) / spread) ** 2 - np.logaddexp(0, -x)
    total = np.exp(logs - logs.max()).sum() * (x[1] - x[0]) / spread / np.sqrt(2 * np.pi)
    assert float(jnp.log(choice(jnp.array([gap, 0.0]), jnp.array([spread, 0.0]))[0])) == pytest.approx(
        float(np.log(total) + logs.max()), abs=1e-8
    )
    slope = jax.grad(lambda gap: jnp.log(choice(jnp.stack([gap, 0.0 * gap]), jnp.array([spread, 0.0]))[0]))(gap)
    weights = np.exp(logs - logs.max())
    assert float(slope) == pytest.approx(float(np.sum(weights * (x - gap)) / weights.sum() / spread**2), rel=1e-6)


@pytest.mark.parametrize("double", [True, False])
def test_rows_sum_to_one_whatever_the_values_have_in_common(double):
    rng = np.random.default_rng(6)
    with jax.enable_x64(double):
        for scale in (1.0, 1e2, 1e4):
            mean, std = scale * rng.normal(size=(40, 4)), rng.choice([0.0, 0.1, 3.0], (40, 1)) * np.ones((1, 4))
            p = CHOICE(jnp.asarray(mean, float), jnp.asarray(std, float))
            np.testing.assert_allclose(p.sum(-1), 1.0, atol=8 * float(jnp.finfo(p.dtype).eps))
            # Whole numbers in common are subtracted exactly.
            moved = CHOICE(jnp.asarray(np.round(mean) + 4096.0, float), jnp.asarray(std, float))
            same = CHOICE(jnp.asarray(np.round(mean), float), jnp.asarray(std, float))
            np.testing.assert_allclose(moved, same, atol=1e-6)
