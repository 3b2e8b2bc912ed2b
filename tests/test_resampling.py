"""Systematic resampling against a plain loop, its expectation, and weights that are out of the ordinary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import resampling as oracle
from selection import quick

from rlinf_ppl.algebra import resampling

KEYS = jax.random.split(jax.random.key(0), 20_000)
WEIGHTS = {
    "uneven": np.random.default_rng(1).dirichlet(np.full(7, 0.5)),
    "equal": np.full(5, 0.2),
    "one survivor": np.array([0.0, 0.0, 1.0, 0.0]),
    "zeros at both ends": np.array([0.0, 0.3, 0.0, 0.0, 0.7, 0.0]),
    "alone": np.array([1.0]),
    "many": np.random.default_rng(2).dirichlet(np.full(1000, 0.1)),
    "blocks": np.random.default_rng(3).dirichlet(np.full(3 * resampling.BLOCK + 5, 0.1)),
    "one block": np.repeat([0.0, 1 / 1024, 0.0], resampling.BLOCK),
}


def counted(ancestors, n):
    return (np.asarray(ancestors)[..., None] == np.arange(n)).sum(-2)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("name", quick(["uneven", "blocks"], list(WEIGHTS)))
def test_children_equal_those_of_a_plain_loop(name, double):
    weights, dtype = WEIGHTS[name], np.float64 if double else np.float32
    for u in (0.0, 0.123, 0.5, 0.987):
        found = np.asarray(resampling.children(jnp.asarray(u, dtype), jnp.asarray(weights, dtype)))
        if u == 0.0:  # a point on the border of two shares falls to either of them
            assert (weights[found] > 0).all()
        else:
            np.testing.assert_array_equal(found, oracle.ancestors(u, weights))


@pytest.mark.parametrize("double", [True, False])
def test_children_of_few_are_the_same(double):
    dtype = np.float64 if double else np.float32
    for name in ("uneven", "equal", "one survivor", "zeros at both ends", "alone"):
        weights = jnp.asarray(WEIGHTS[name], dtype)
        for u in (0.0, 0.123, 0.5, 0.987, np.nextafter(dtype(1), dtype(0))):
            found = resampling.children_of_any(jnp.asarray(u, dtype), weights)
            assert (np.asarray(weights)[found] > 0).all()
            if 0 < u < 0.99:
                np.testing.assert_array_equal(found, resampling.children(jnp.asarray(u, dtype), weights))


@pytest.mark.slow
def test_four_million_particles_in_single_precision_have_the_children_that_they_should():
    """Summed up in float32 as they stand, some have more than one too many, and light ones too many on average."""
    n, u = 4_000_000, np.float32(0.37)
    with jax.enable_x64(False):
        points = jax.random.normal(jax.random.key(1), (n,))
        weights, _ = resampling.normalize(-(points**2))
        found = np.asarray(resampling.children(jnp.asarray(u), weights))
    exact = np.asarray(weights, np.float64)
    exact /= exact.sum()
    counts = np.bincount(found, minlength=n)
    assert np.abs(counts - n * exact).max() < 1.001
    squares = np.asarray(points, np.float64) ** 2
    assert abs(counts @ squares / n - exact @ squares) < 2e-4


@pytest.mark.parametrize("weights", [WEIGHTS["uneven"], WEIGHTS["zeros at both ends"]], ids=["uneven", "zeros"])
def test_numbers_of_children_are_unbiased_and_never_a_whole_one_off(weights):
    n = len(weights)
    counts = counted(jax.vmap(resampling.systematic, (0, None))(KEYS, jnp.asarray(weights)), n)
    assert (counts >= np.floor(n * weights - 1e-9)).all() and (counts <= np.ceil(n * weights + 1e-9)).all()
    error = counts.std(0) / np.sqrt(len(KEYS))
    assert (np.abs(counts.mean(0) - n * weights) <= 5 * error + 1e-12).all()


def test_conditional_children_are_those_of_systematic_resampling_given_that_child_0_descends_from_particle_0():
    """The condition is written out: every draw, turned round by every number, weighted by whether it holds."""
    weights, n = WEIGHTS["uneven"], 7
    drawn = np.asarray(jax.vmap(resampling.conditional_systematic, (0, None))(KEYS, jnp.asarray(weights)))
    assert (drawn[:, 0] == 0).all()
    points = (np.arange(4000) + 0.5) / 4000
    plain = np.array([oracle.ancestors(u, weights) for u in points])
    turned = np.concatenate([np.roll(plain, -k, axis=1) for k in range(n)])
    kept = turned[turned[:, 0] == 0]
    expected = counted(kept, n).mean(0)
    error = counted(drawn, n).std(0) / np.sqrt(len(KEYS))
    assert (np.abs(counted(drawn, n).mean(0) - expected) <= 5 * error + 2e-3).all()
    for place in range(1, n):
        share = np.bincount(kept[:, place], minlength=n) / len(kept)
        found = np.bincount(drawn[:, place], minlength=n) / len(drawn)
        assert (np.abs(found - share) <= 5 * np.sqrt(share * (1 - share) / len(drawn)) + 2e-3).all()


@pytest.mark.parametrize("log_weights", [[-np.inf, 0.0, -np.inf], [np.nan, 3.0, -np.inf]], ids=["-inf", "nan"])
def test_what_has_no_weight_has_no_children(log_weights):
    weights, total = resampling.normalize(jnp.asarray(log_weights))
    np.testing.assert_array_equal(weights, [0.0, 1.0, 0.0])
    assert float(total) == max(x for x in log_weights if np.isfinite(x))
    np.testing.assert_array_equal(jax.vmap(resampling.systematic, (0, None))(KEYS[:50], weights), 1)
    assert float(resampling.effective_size(weights)) == 1.0


@pytest.mark.parametrize("log_weights", [[-np.inf] * 4, [np.nan] * 4, [np.inf] * 4], ids=["-inf", "nan", "inf"])
def test_where_no_weight_differs_from_another_all_are_alike(log_weights):
    weights, total = resampling.normalize(jnp.asarray(log_weights))
    np.testing.assert_array_equal(weights, 0.25)
    assert float(total) == (np.inf if log_weights[0] == np.inf else -np.inf)
    np.testing.assert_array_equal(resampling.systematic(KEYS[0], weights), np.arange(4))


@pytest.mark.slow
def test_in_float32_a_million_particles_leave_no_child_to_one_without_weight():
    rng = np.random.default_rng(3)
    weights = rng.random(1_000_000).astype(np.float32) * (rng.random(1_000_000) < 0.3)
    weights = jnp.asarray(weights / weights.sum())
    for key in KEYS[:5]:
        ancestors = resampling.systematic(key, weights)
        assert ancestors.dtype == jnp.int32 and (weights[ancestors] > 0).all() and (jnp.diff(ancestors) >= 0).all()


def test_normalize_shifts_out_any_constant():
    log_weights = jnp.asarray([-1.0, 0.5, 2.0])
    weights, total = resampling.normalize(log_weights + 5000.0)
    np.testing.assert_allclose(weights, np.exp(log_weights) / np.exp(log_weights).sum(), rtol=1e-12)
    assert float(total) == pytest.approx(5000.0 + np.log(np.exp(log_weights).sum()), rel=1e-14)
