"""Policies that do what a prior forbids, against sums over all paths that leave out what has probability 0."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.distributions import Categorical

from rlinf_ppl.inference import exact, execution
from rlinf_ppl.inference.chains.policies import as_laws
from rlinf_ppl.program import ControlProgram, decide, optimality, read

S, A, T = 3, 2, 3
REWARD = np.array([[1.0, -0.5], [0.2, 2.0], [0.0, 0.3]])
PRIOR = np.array([[1.0, 0.0], [0.5, 0.5], [0.3, 0.7]])
# From state 2 nobody gets to state 0.
MOVE = np.array([[[0.5, 0.5, 0.0], [0.1, 0.9, 0.0]], [[0.0, 0.2, 0.8], [0.0, 0.0, 1.0]], [[0, 1, 0], [0, 0.5, 0.5]]])


def program(start, prior=PRIOR, move=MOVE, reward=REWARD, tau=None, horizon=T, discount=None):
    def initial():
        return {"s": numpyro.sample("s0", Categorical(probs=jnp.asarray(start)))}

    def step(s):
        own = {} if tau is None else {"inverse_temperature": tau}
        a = decide("a", Categorical(probs=jnp.asarray(prior)[s]), **own)
        optimality(jnp.asarray(reward)[s, a])
        return {"s": numpyro.sample("s_next", Categorical(probs=jnp.asarray(move)[s, a]))}

    more = {} if discount is None else {"discount": discount}
    return ControlProgram(initial, step, horizon, sizes={"s": S}, **more)


def values(policy, prior=PRIOR, tau=1.0, discount=1.0, steps=T, reward=REWARD, move=MOVE):
    """V_0..V_T by the definition, in double precision."""
    v = [np.zeros(S)]
    for _ in range(steps):
        now = np.zeros(S)
        for s, a in itertools.product(range(S), range(A)):
            if policy[s, a] > 0:
                cost = np.inf if prior[s, a] == 0 else np.log(policy[s, a] / prior[s, a])
                later = sum(p * x for p, x in zip(move[s, a], v[0], strict=True) if p > 0)
                now[s] += policy[s, a] * (reward[s, a] - cost / tau + discount * later)
        v.insert(0, now)
    return np.stack(v)


def total(start, v):
    return sum(p * x for p, x in zip(start, v[0], strict=True) if p > 0)


STRAY = np.array([[0.5, 0.5], [0.4, 0.6], [0.3, 0.7]])
LAWFUL = np.array([[1.0, 0.0], [0.4, 0.6], [0.3, 0.7]])


@pytest.mark.parametrize("policy", [STRAY, LAWFUL])
@pytest.mark.parametrize("tau", [None, 2.0, -2.0])
@pytest.mark.parametrize("start", [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0.2, 0.3, 0.5]])
def test_values_and_elbo(start, tau, policy):
    found = exact.evaluate(program(start, tau=tau), {"a": policy})
    v = values(policy, tau=tau or 1.0)
    np.testing.assert_allclose(found.value, v, rtol=1e-12)
    np.testing.assert_allclose(found.elbo, total(start, v), rtol=1e-12)
    np.testing.assert_allclose(exact.elbo(program(start, tau=tau), {"a": policy}), total(start, v), rtol=1e-12)
    assert found.converged


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rare", [1e-3, 1e-20, 1e-37])
def test_no_probability_is_too_small_to_be_met(rare, dtype):
    with jax.enable_x64(dtype == np.float64):
        start = np.array([rare, 1 - rare, 0], dtype)
        control = program(start, PRIOR.astype(dtype), MOVE.astype(dtype), REWARD.astype(dtype))
        assert exact.elbo(control, {"a": STRAY.astype(dtype)}) == -np.inf
        # Twice as rare as the dtype can say: two such moves in a row.
        move = np.zeros((S, A, S), dtype)
        move[2, :, 1], move[2, :, 2] = rare, 1 - rare
        move[1, :, 0], move[1, :, 2] = rare, 1 - rare
        move[0, :, 0] = 1
        far = program(np.array([0, 0, 1], dtype), PRIOR.astype(dtype), move, REWARD.astype(dtype))
        found = exact.evaluate(far, {"a": STRAY.astype(dtype)})
        np.testing.assert_array_equal(np.isinf(found.value), np.isinf(values(STRAY, move=move)))
        assert found.elbo == -np.inf
        assert exact.kl(far, {"a": STRAY.astype(dtype)}, {"a": LAWFUL.astype(dtype)}) == np.inf
        assert execution.bound(read(far), as_laws(read(far), {"a": STRAY}), None) == -np.inf


@pytest.mark.parametrize("rare", [1e-12, 1e-37, 1e-38, 1e-44])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_action_itself_may_be_rare(rare, dtype):
    """Below 1.2e-38 arithmetic in single precision takes a number for 0."""
    with jax.enable_x64(dtype == np.float64):
        policy = np.array([[1 - rare, rare], [0.4, 0.6], [0.3, 0.7]], dtype)
        control = program(*(np.asarray(x, dtype) for x in ([1.0, 0, 0], PRIOR, MOVE, REWARD)))
        assert exact.elbo(control, {"a": policy}) == -np.inf


@pytest.mark.parametrize("scale", [1e16, -1e16, 1e30])
def test_large_values_are_no_infinities(scale):
    with jax.enable_x64(False):
        control = program(np.float32([0, 0.5, 0.5]), reward=np.float32(scale * REWARD))
        found = exact.evaluate(control, {"a": LAWFUL.astype(np.float32)})
        np.testing.assert_allclose(found.value, values(LAWFUL, reward=scale * REWARD), rtol=1e-5)


@pytest.mark.parametrize("discount", [0.5, 0.9])
@pytest.mark.parametrize("policy", [STRAY, LAWFUL])
@pytest.mark.parametrize("tau", [None, -2.0])
def test_without_end(policy, discount, tau):
    found = exact.evaluate(program([0, 1.0, 0], tau=tau, horizon=None, discount=discount), {"a": policy})
    v = values(policy, tau=tau or 1.0, discount=discount, steps=800)[0]
    np.testing.assert_allclose(found.value, v, rtol=1e-8)
    np.testing.assert_allclose(found.elbo, total([0, 1.0, 0], v[None]), rtol=1e-8)
    assert found.converged


def test_far_along_a_chain_without_end():
    """A forbidden action 40 moves away, each of probability 1e-30."""
    n, rare = 40, 1e-30

    def step(s):
        a = decide("a", Categorical(probs=jnp.where(s == n - 1, jnp.array([1.0, 0.0]), jnp.array([0.5, 0.5]))))
        ahead = jnp.zeros(n).at[jnp.minimum(s + 1, n - 1)].add(rare).at[s].add(1 - rare)
        optimality(0.1 * a)
        return {"s": numpyro.sample("s_next", Categorical(probs=ahead))}

    for horizon in (None, n, n - 1):
        control = ControlProgram(lambda: {"s": 0}, step, horizon, sizes={"s": n}, discount=0.5)
        found = exact.evaluate(control, {"a": jnp.full((n, 2), 0.5)})
        assert np.isneginf(found.elbo) == (horizon != n - 1)


@pytest.mark.parametrize("horizon", [T, None])
def test_gradients_are_finite_where_the_elbo_is(horizon):
    """State 0 is never reached; what is done there is forbidden."""
    end = {} if horizon else {"discount": 0.9}

    def elbo(prior, policy, reward):
        control = program([0, 0.5, 0.5], prior=prior, reward=reward, horizon=horizon, **end)
        return exact.elbo(control, {"a": policy})

    def lawful(policy, reward):
        return elbo(PRIOR, policy, reward)

    found = jax.grad(elbo, (0, 1, 2))(jnp.asarray(PRIOR), jnp.asarray(STRAY), jnp.asarray(REWARD))
    assert all(np.isfinite(each).all() for each in found)
    same = jax.grad(lawful, (0, 1))(jnp.asarray(LAWFUL), jnp.asarray(REWARD))
    np.testing.assert_allclose(found[1][1:], same[0][1:], rtol=1e-8)
    np.testing.assert_allclose(found[2], same[1], rtol=1e-8, atol=1e-12)
    divergence = jax.grad(lambda q: exact.kl(program([0, 0.5, 0.5]), {"a": q}, {"a": LAWFUL}))(jnp.asarray(STRAY))
    assert np.isfinite(divergence).all()


def test_under_jit_and_vmap():
    policies = jnp.stack([jnp.asarray(STRAY), jnp.asarray(LAWFUL)])
    found = jax.jit(jax.vmap(lambda q: exact.elbo(program([0.2, 0.3, 0.5]), {"a": q})))(policies)
    lawful = total([0.2, 0.3, 0.5], values(LAWFUL))
    np.testing.assert_allclose(found, [-np.inf, lawful], rtol=1e-12)


@pytest.mark.parametrize("regularizer", ["negative_entropy", "tsallis"])
def test_other_regularizers(regularizer):
    from rlinf_ppl.algebra import regularizers

    def step(s):
        law = Categorical(probs=jnp.asarray(PRIOR)[s])
        a = decide("a", law, regularizer=getattr(regularizers, regularizer))
        optimality(jnp.asarray(REWARD)[s, a])
        return {"s": numpyro.sample("s_next", Categorical(probs=jnp.asarray(MOVE)[s, a]))}

    def elbo(policy, first):
        return exact.elbo(ControlProgram(lambda: {"s": first}, step, T, sizes={"s": S}), {"a": policy})

    assert elbo(jnp.asarray(STRAY), 0) == -np.inf
    assert np.isfinite(elbo(jnp.asarray(STRAY), 1))
    assert np.isfinite(jax.grad(elbo)(jnp.asarray(STRAY), 1)).all()


def test_an_inverse_temperature_of_zero_forbids_leaving_the_prior():
    control = program([0, 1.0, 0], tau=0.0)
    assert exact.elbo(control, {"a": LAWFUL}) == -np.inf
    assert np.isfinite(exact.elbo(control, {"a": PRIOR}))
