"""Regularizers: their conjugates against brute force, their gradients, and the limits of the inverse temperature."""

import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpyro.distributions import Categorical
from oracles import regularized as oracle
from worked_cases import worked_case

from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.algebra import regularizers
from rlinf_ppl.algebra.regularizers import ByConjugate, from_conjugate, log_sum_exp
from rlinf_ppl.inference import exact

NAMES = ["kl", "negative_entropy", "tsallis"]
EVERY = pytest.mark.parametrize("name", NAMES)
PRIOR = np.array([0.2, 0.0, 0.5, 0.3])
W = np.array([0.4, 3.0, -0.7, 0.3])
VALUES = {
    "generic": W,
    "all_equal": np.full(4, 0.3),
    "ties_at_the_top": np.array([1.0, 5.0, 1.0, -2.0]),
    "tie_at_the_edge": np.array([1.0, 0.0, 0.0, 0.0]),
    "far_apart": np.array([-1e4, 0.0, 1e4, 3.0]),
    "impossible_far_above": np.array([0.1, 1e6, 0.2, -0.1]),
}


@partial(jax.jit, static_argnums=0)
def maximum(name, w, prior=PRIOR, tau=None):
    """The library's policy and value."""
    return getattr(regularizers, name).maximum(jnp.asarray(prior), w, tau)


def tempered(tau):
    return jnp.asarray(float(tau))


@EVERY
@pytest.mark.parametrize("tau", [None, 0.3, 1.0, 4.0, -1.5])
def test_value_and_policy_are_the_maximum_by_brute_force(name, tau):
    scale = tau or 1.0
    found = maximum(name, np.stack(list(VALUES.values())), PRIOR[None], None if tau is None else tempered(tau))
    for case, q, value in zip(VALUES, *found, strict=True):
        best, policy = getattr(oracle, name)(scale * VALUES[case], PRIOR)
        np.testing.assert_allclose(value, best / scale, rtol=1e-12, atol=1e-12, err_msg=case)
        np.testing.assert_allclose(q, policy, rtol=1e-9, atol=1e-12, err_msg=case)
        assert q[1] == 0


@EVERY
def test_worked_conjugates(name):
    given, expected, tolerance = worked_case(f"regularised_{name.replace('negative_entropy', 'negentropy')}")
    q, value = maximum(name, given["y"], given["prior"][0], tempered(given["beta"]))
    np.testing.assert_allclose(value, expected["conj_value"], rtol=tolerance)
    np.testing.assert_allclose(q, expected["conj_grad"], rtol=tolerance)


@pytest.mark.parametrize("size", range(1, 8))
def test_sparse_maximum_finds_the_support_among_all(size):
    rng = np.random.default_rng(size)
    x = rng.normal(size=(60, size)) * rng.choice([0.1, 1.0, 5.0], size=(60, 1))
    x[::3] = np.round(x[::3])  # ties
    prior = (rng.random((60, size)) < 0.8).astype(float)
    prior[:, 0] += prior.sum(-1) == 0
    prior /= prior.sum(-1, keepdims=True)
    q, value = maximum("tsallis", x, prior)
    truth = [oracle.tsallis(*row) for row in zip(x, prior, strict=True)]
    np.testing.assert_allclose(value, [best for best, _ in truth], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(q, [policy for _, policy in truth], atol=1e-12)
    assert ((q == 0) == (np.stack([policy for _, policy in truth]) < 1e-14)).all()


@EVERY
def test_single_precision_keeps_its_digits(name):
    with jax.enable_x64(False):
        w, prior = (x.astype(np.float32) for x in (np.stack(list(VALUES.values())), PRIOR[None]))
        found = maximum(name, w, prior, jnp.asarray(0.7))
    for case, q, value in zip(VALUES, *found, strict=True):
        best, policy = getattr(oracle, name)(0.7 * VALUES[case], PRIOR)
        assert q.dtype == value.dtype == jnp.float32
        np.testing.assert_allclose(value, best / 0.7, rtol=1e-6, atol=1e-6, err_msg=case)
        np.testing.assert_allclose(q, policy, atol=2e-6, err_msg=case)


@EVERY
def test_gradients_are_the_policy_and_its_slopes(name):
    """The value's gradient is the policy; the policy's own slopes, in w and in tau, meet finite differences."""
    tau, h = tempered(1.3), 1e-6

    def reading(w, tau):
        q, value = maximum(name, w, tau=tau)
        return jnp.append(q, value)

    by_w, by_tau = jax.jacobian(reading, (0, 1))(jnp.asarray(W), tau)
    np.testing.assert_allclose(by_w[-1], reading(W, tau)[:-1], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(by_w[:-1], by_w[:-1].T, atol=1e-14)

    def truth(w, tau):
        best, policy = getattr(oracle, name)(tau * w, PRIOR)
        return np.append(policy, best / tau)

    for i, unit in enumerate(np.eye(4)):
        slope = (truth(W + h * unit, 1.3) - truth(W - h * unit, 1.3)) / (2 * h)
        np.testing.assert_allclose(by_w[:, i], slope, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(by_tau, (truth(W, 1.3 + h) - truth(W, 1.3 - h)) / (2 * h), rtol=1e-6, atol=1e-8)


@EVERY
def test_gradients_in_the_prior_exist_at_its_zeros(name):
    slope = jax.grad(lambda p: maximum(name, W, p, tempered(2.0))[1])(jnp.asarray(PRIOR))
    value = oracle.kl(2.0 * W, PRIOR)[0] / 2.0
    expected = np.exp(2.0 * (W - value)) / 2.0 if name == "kl" else np.zeros(4)  # only the KL reads its numbers
    np.testing.assert_allclose(slope, expected, rtol=1e-10)


@EVERY
def test_jit_and_vmap_change_nothing(name):
    rng = np.random.default_rng(0)
    w, prior = jnp.asarray(rng.normal(size=(5, 4))), jnp.asarray(rng.dirichlet(np.ones(4), size=5))
    one = partial(getattr(regularizers, name).maximum, tau=tempered(0.9))
    alone = [jnp.stack(each) for each in zip(*(jax.jit(one)(*row) for row in zip(prior, w, strict=True)), strict=True)]
    for found in (one(prior, w), jax.jit(one)(prior, w), jax.jit(jax.vmap(one))(prior, w)):
        for each, expected in zip(found, alone, strict=True):
            np.testing.assert_allclose(each, expected, rtol=1e-13, atol=1e-15)


@EVERY
@pytest.mark.parametrize("sign", [1, -1])
def test_infinite_inverse_temperature_is_the_hard_maximum(name, sign):
    """Impossible values do not count, ties are shared as for large finite ones, and the gradient is the policy."""
    w, prior = sign * np.array([2.0, 2.0, 9.0, 2.0, -1.0]), np.array([0.2, 0.0, 0.0, 0.3, 0.5])
    shared = {"kl": [0.4, 0.6], "negative_entropy": [0.5, 0.5], "tsallis": [0.5, 0.5]}[name]
    expected = np.array([shared[0], 0, 0, shared[1], 0])
    (q, value), (large, _) = (maximum(name, w, prior, tempered(sign * tau)) for tau in (jnp.inf, 1e5))
    np.testing.assert_allclose(q, expected, rtol=1e-14)
    np.testing.assert_allclose(large, expected, atol=1e-9)
    assert float(value) == sign * 2.0
    slope, policy_slope = (
        jax.jacobian(lambda w, i=i: maximum(name, w, prior, tempered(sign * jnp.inf))[i])(jnp.asarray(w))
        for i in (1, 0)
    )
    np.testing.assert_allclose(slope, expected, rtol=1e-14)
    assert (policy_slope == 0).all()


@EVERY
def test_a_negative_inverse_temperature_minimises(name):
    q, value = maximum(name, W, tau=tempered(-0.8))
    mirrored, negative = maximum(name, -W, tau=tempered(0.8))
    np.testing.assert_allclose(q, mirrored, rtol=1e-13)
    np.testing.assert_allclose(value, -negative, rtol=1e-13)


def distributions(size):
    """Distributions from small integers, so that zeros are common."""

    def scale(counts):
        counts = counts.astype(float)
        counts[0] += counts.sum() == 0
        return counts / counts.sum()

    return arrays(np.int64, size, elements=st.integers(0, 3)).map(scale)


@settings(max_examples=60)
@given(
    x=arrays(float, 4, elements=st.floats(-6, 6, allow_subnormal=False)),
    prior=distributions(4),
    weights=distributions(4),
    name=st.sampled_from(NAMES),
)
def test_fenchel_and_young(x, prior, weights, name):
    """Omega*(x) + Omega(q) >= <q, x> for every distribution, with equality at the policy."""
    policy, value = maximum(name, x, prior)
    cost = getattr(regularizers, name).cost

    def gap(q):
        return float(value + cost(q, jnp.asarray(prior)) - q @ jnp.asarray(x))

    assert gap(policy) == pytest.approx(0.0, abs=1e-12)
    assert float(policy.sum()) == pytest.approx(1.0, rel=1e-14) and (policy >= 0).all()
    assert gap(jnp.asarray(weights)) >= -1e-12
    if (weights[prior == 0] > 0).any():
        assert gap(jnp.asarray(weights)) == np.inf
    else:
        assert float(cost(jnp.asarray(weights), jnp.asarray(prior))) == pytest.approx(
            oracle.cost(name, weights, prior), abs=1e-13
        )


@EVERY
@pytest.mark.parametrize(
    "again", [lambda x: pickle.loads(pickle.dumps(x)), lambda x: x._replace()], ids=["pickle", "copy"]
)
def test_regularizers_are_values(name, again):
    regularizer = getattr(regularizers, name)
    assert again(regularizer) == regularizer and hash(again(regularizer)) == hash(regularizer)
    assert from_conjugate(log_sum_exp) == from_conjugate(log_sum_exp) != from_conjugate(regularizers.sparse_maximum)
    assert ByConjugate(log_sum_exp) == regularizers.negative_entropy.maximum


def program(tau, regularizer):
    def initial(tau):
        return {"s": numpyro.sample("s", Categorical(probs=jnp.array([0.5, 0.5])))}

    def step(tau, s):
        raid = decide("raid", Categorical(probs=jnp.array([0.5, 0.5])), tau, regularizer)
        optimality(jnp.array([[0.0, 1.0], [2.0, 0.0]])[s, raid])
        return {"s": raid}

    return ControlProgram(initial, step, 3, args=(tau,))


@pytest.mark.parametrize("regularizer", [regularizers.negative_entropy, regularizers.tsallis, log_sum_exp])
def test_inverse_temperature_zero_has_no_limit_but_for_the_kl(regularizer):
    with pytest.raises(ValueError, match="the inverse temperature of 'raid' is 0, .* has no limit; give another"):
        exact.solve(program(0.0, regularizer))
    verdict = jax.jit(lambda tau: exact.solve(program(tau, regularizer)).converged)
    assert not verdict(0.0) and verdict(0.5)
    assert exact.solve(program(0.0, regularizers.kl)).converged
    with pytest.raises(ValueError, match="the inverse temperature of 'raid' is not a number"):
        exact.solve(program(jnp.nan, regularizer))


def test_what_is_no_regularizer_is_named():
    with pytest.raises(TypeError, match="the regularizer of 'raid' is a float; give its convex conjugate"):
        regularizers.as_regularizer(0.5, "raid")

    class Unhashable:
        __hash__ = None

        def __call__(self, x, prior):
            return jax.nn.logsumexp(x)

    with pytest.raises(TypeError, match="the regularizer of 'raid' is a Unhashable that cannot be compared"):
        program(1.0, Unhashable())
