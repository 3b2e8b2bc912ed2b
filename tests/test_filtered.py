"""What is known of the state from the data so far, against all histories listed, Kalman's recursion, and particles."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from oracles.filtering import histories, kalman
from selection import quick

from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.inference import exact, smc

FIRST = np.array([0.2, 0.3, 0.5])
CLUE = np.array([0.5, 0.2, 0.9])
MOVES = np.array(
    [[[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]], [[0.1, 0.1, 0.8], [0.5, 0.5, 0.0], [0.9, 0.1, 0.0]]]
)
SEES = np.array([[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]])
PRIOR = np.array([0.4, 0.6])
DATA = np.array([0, 1, 1, 0])
POLICY = np.random.default_rng(0).dirichlet(np.ones(2), (len(DATA), 3))


def array(x):
    """Numbers in today's dtype: of one array of NumPy's, jax keeps what it was first made into."""
    return jnp.asarray(np.copy(x))


def hidden(data=DATA, discount=1.0, beta=2.0, reward=1.0):
    """A state and a flag, both hidden: data of the state, of what chance does, and of the last state."""

    def initial():
        s = numpyro.sample("s", dist.Categorical(jnp.asarray(FIRST)))
        return {"s": s, "flag": numpyro.sample("flag", dist.Bernoulli(jnp.asarray(CLUE)[s]))}

    def step(s, flag, t):
        a = decide("a", dist.Categorical(jnp.asarray(PRIOR)), inverse_temperature=beta)
        optimality(reward * a * (s - 1.0))
        numpyro.sample("y", dist.Categorical(jnp.asarray(SEES)[s]), obs=jnp.asarray(data)[t])
        n = numpyro.sample("n", dist.Categorical(jnp.asarray(MOVES)[a, s]))
        numpyro.sample("z", dist.Normal(n + 0.5 * flag, 1.0), obs=0.7)
        return {"s": n, "flag": flag}

    def final(s, flag):
        numpyro.sample("last", dist.Normal(1.0 * s, 0.5), obs=1.2)

    return ControlProgram(initial, step, len(data), discount=discount, final=final)


def listed(discount, policy=None):
    """The same by a list of all histories, as an array (T + 1, 3, 2)."""

    def normal(x, mean, scale):
        return np.exp(-0.5 * ((x - mean) / scale) ** 2) / scale / np.sqrt(2 * np.pi)

    def step(state, t):
        s, flag = state
        chosen = PRIOR if policy is None else policy[t, s]
        law = chosen @ MOVES[:, s]
        return [((n, flag), law[n], SEES[s, DATA[t]] * normal(0.7, n + 0.5 * flag, 1.0)) for n in range(3)]

    first = [((s, flag), FIRST[s] * (CLUE[s] if flag else 1 - CLUE[s])) for s in range(3) for flag in range(2)]
    found = histories(first, step, len(DATA), discount, lambda state: normal(1.2, state[0], 0.5))
    return np.array([[[row.get((s, flag), 0.0) for flag in range(2)] for s in range(3)] for row in found])


@pytest.mark.parametrize("discount", quick([0.7], [1.0, 0.7, 0.0]))
def test_all_histories_agree(discount):
    np.testing.assert_allclose(exact.filtered(hidden(discount=discount)), listed(discount), atol=1e-14)


def test_decisions_follow_a_policy():
    policy = {"a": jnp.asarray(POLICY)[:, :, None]}
    found = exact.filtered(hidden(), policy)
    np.testing.assert_allclose(found, listed(1.0, POLICY), atol=1e-14)
    np.testing.assert_allclose(jax.jit(exact.filtered)(hidden(), policy), found, atol=1e-14)


def test_optimality_and_inverse_temperatures_do_not_matter():
    found = exact.filtered(hidden())
    for other in (hidden(beta=0.0), hidden(beta=-3.0), hidden(reward=-jnp.inf), hidden(reward=1e300)):
        np.testing.assert_array_equal(exact.filtered(other), found)


def test_without_data_it_is_where_a_policy_goes():
    def step(s):
        a = decide("a", dist.Categorical(jnp.asarray(PRIOR)))
        return {"s": numpyro.sample("n", dist.Categorical(jnp.asarray(MOVES)[a, s]))}

    program = ControlProgram(lambda: {"s": numpyro.sample("s", dist.Categorical(jnp.asarray(FIRST)))}, step, 5)
    policy = {"a": jnp.array([0.9, 0.1])}
    np.testing.assert_allclose(exact.filtered(program, policy), exact.marginals(program, policy).state, atol=1e-15)


@pytest.mark.parametrize("discount", quick([0.7], [1.0, 0.7]))
def test_the_last_is_that_of_all_data_and_particles_agree(discount):
    program = hidden(discount=discount, reward=0.0)
    found = np.asarray(exact.filtered(program))
    np.testing.assert_allclose(found[-1], exact.posterior_marginals(program).state[-1], atol=1e-13)
    run = smc.run(program, jax.random.key(0), num_particles=40_000)
    np.testing.assert_allclose(run.filtered["s"], found.sum(2), atol=4.5 * 0.5 / 40_000**0.5 * 4)
    np.testing.assert_allclose(run.filtered["flag"], found.sum(1), atol=4.5 * 0.5 / 40_000**0.5 * 4)


def climb(rise, horizon, likely):
    """A ladder that is climbed with a small probability a step; the last datum says that the top is reached: it has the
    log probability `likely` elsewhere."""
    size = horizon + 1
    moves = np.eye(size) * (1 - rise) + np.eye(size, k=1) * rise
    moves[-1, -1] = 1.0
    log_likelihood = np.zeros((horizon, size))
    log_likelihood[-1] = [*[likely] * (size - 1), 40.0]

    def step(s, t):
        decide("a", dist.Categorical(jnp.asarray(PRIOR)))
        n = numpyro.sample("n", dist.Categorical(jnp.asarray(moves)[s]))
        numpyro.sample("top", dist.Bernoulli(logits=array(log_likelihood)[t, n]), obs=1)
        return {"s": n}

    return ControlProgram(lambda: {"s": numpyro.sample("s", dist.Categorical(jnp.eye(size)[0]))}, step, horizon)


@pytest.mark.parametrize("double", quick([False], [False, True]))
def test_what_is_too_small_to_be_held_is_no_zero(double):
    with jax.enable_x64(double):
        # The top has 1e-16, 1e-80 and 1e-400, where the rest is impossible.
        for horizon, held in ((4, True), (20, True), (100, False)):
            program = climb(1e-4, horizon, -1e30)
            if held:
                np.testing.assert_allclose(exact.filtered(program)[-1], np.eye(horizon + 1)[-1], atol=1e-6)
            else:
                with pytest.raises(ValueError, match="smallest numbers.*time 99"):
                    exact.filtered(program)
        # Half each: the top has 1e-40, and the rest that likelihood.
        top = exact.filtered(climb(1e-4, 10, -40 * np.log(10)))[-1, -1]
        np.testing.assert_allclose(top, 0.5, atol=1e-5 if double else 2e-4)
        traced = jax.jit(exact.filtered)(climb(1e-4, 20, -1e30))
        assert np.isnan(traced[-2:]).all() == (not double)
        assert np.isfinite(traced[:-2]).all()


def test_impossible_data_raise_and_are_nan_where_traced():
    def program(data):
        def step(data, s, t):
            decide("a", dist.Categorical(jnp.asarray(PRIOR)))
            numpyro.sample("y", dist.Categorical(jnp.eye(3)[s]), obs=data[t])
            return {"s": s}

        return ControlProgram(
            lambda data: {"s": numpyro.sample("s", dist.Categorical(jnp.asarray(FIRST)))}, step, 4, args=(data,)
        )

    with pytest.raises(ValueError, match="data up to time 2 have probability zero"):
        exact.filtered(program(jnp.array([1, 1, 2, 2])))
    found = jax.vmap(lambda data: exact.filtered(program(data)))(jnp.array([[1, 1, 2, 2], [2, 2, 2, 2]]))
    np.testing.assert_array_equal(np.isnan(found[0]).all(-1), [False, False, True, True, True])
    np.testing.assert_array_equal(found[1], np.eye(3)[[2] * 5])


# Vectors

A, C = np.array([[1.0, 0.1, 0.0], [0.0, 1.0, 0.1], [0.0, 0.0, 0.9]]), np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
PUSH = np.array([0.0, 0.0, 0.3])
SEEN = np.random.default_rng(1).normal(size=(6, 2)) * 3
START = np.array([1.0, -1.0, 2.0])


def tracked(wide, narrow, noise, far=0.0):
    """A body that is seen through noise and pushed by decisions; its velocity has no noise where `noise` is 0."""

    def initial():
        return {"x": numpyro.sample("x", dist.Normal(array(START + far), wide).to_event(1))}

    def step(x, t):
        u = decide("u", dist.Normal(0.0, 1.0))
        optimality(-jnp.exp(u))
        numpyro.sample("y", dist.Normal(array(C) @ (x - far), narrow).to_event(1), obs=array(SEEN)[t])
        mean = array(A) @ (x - far) + far + array(PUSH) * u
        if noise:
            return {"x": numpyro.sample("moved", dist.Normal(mean, noise).to_event(1))}
        return {"x": mean + jnp.array([0.0, 0.0, 1.0]) * numpyro.sample("w", dist.Normal(0.0, 0.5))}

    return ControlProgram(initial, step, len(SEEN))


def recursion(wide, narrow, noise, push=PUSH):
    roots = np.diag([noise] * 3) if noise else np.array([[0.0], [0.0], [0.5]])
    return kalman(
        A, np.zeros(3), np.concatenate([roots, push[:, None]], 1), C, np.eye(2) * narrow, SEEN, START, np.eye(3) * wide
    )


def off(found, mean, cov):
    """The largest error of means in standard deviations and of covariances beside variances."""
    deviation = np.sqrt(np.diagonal(cov, axis1=1, axis2=2))
    return max(
        np.max(np.abs(np.asarray(found.mean, float) - mean) / deviation),
        np.max(np.abs(np.asarray(found.cov, float) - cov) / deviation[:, :, None] / deviation[:, None]),
    )


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("noise", quick([0.1], [0.1, 0.0]))
@pytest.mark.parametrize("spreads", quick([(1e3, 1e-3)], [(1.0, 1.0), (300.0, 0.1), (1e3, 1e-3)]))
def test_vectors_follow_kalman(spreads, noise, double):
    """Variances apart by 1 to 1e12: known numbers keep 5 digits in either dtype, and traced ones or they are NaN."""
    with jax.enable_x64(double):
        exactly = lambda x: float(jnp.asarray(x, float))  # noqa: E731
        numbers = [exactly(x) for x in (*spreads, noise)]
        truth = recursion(*numbers, push=np.asarray(array(PUSH), float))
        program = tracked(*numbers)
        assert off(exact.filtered(program), *truth) < (1e-8 if double else 3e-4)
        traced = jax.jit(exact.filtered)(program)
        known = np.isfinite(traced.mean).all()
        assert known or (not double and spreads[0] > 1)
        if known:
            assert off(traced, *truth) < (1e-8 if double else 1e-3)


def test_vectors_far_from_the_origin():
    found, truth = exact.filtered(tracked(1.0, 0.1, 0.1, far=2.0**20)), recursion(1.0, 0.1, 0.1)
    assert off(found._replace(mean=found.mean - 2.0**20), *truth) < 1e-8


def test_vectors_follow_a_policy_and_particles():
    program = tracked(1.0, 1.0, 0.1)
    policy = {"u": (jnp.array([[0.5, -0.2, 0.1]]), jnp.array([0.3]), jnp.array([[0.0]]))}
    mean, cov = kalman(
        A + np.outer(PUSH, [0.5, -0.2, 0.1]), 0.3 * PUSH, np.eye(3) * 0.1, C, np.eye(2), SEEN, START, np.eye(3)
    )
    assert off(exact.filtered(program, policy), mean, cov) < 1e-12
    mean, cov = recursion(1.0, 1.0, 0.1)

    def step(x, t):
        u = decide("u", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(array(C) @ x, 1.0).to_event(1), obs=array(SEEN)[t])
        return {"x": numpyro.sample("moved", dist.Normal(array(A) @ x + array(PUSH) * u, 0.1).to_event(1))}

    run = smc.run(ControlProgram(program.initial, step, len(SEEN)), jax.random.key(0), num_particles=40_000)
    deviation = np.sqrt(np.diagonal(cov, axis1=1, axis2=2))
    # A few hundred particles are effective at the last times, where the data are ten standard deviations away.
    assert np.max(np.abs(run.filtered["x"] - mean) / deviation) < 0.3


@pytest.mark.parametrize("vectors", [False, True])
def test_derivatives(vectors):
    if vectors:
        found = lambda wide: exact.filtered(tracked(wide, 1.0, 0.1)).mean  # noqa: E731
    else:
        found = lambda x: exact.filtered(hidden(data=DATA, reward=x, discount=x))  # noqa: E731
    point, h = 0.8, 1e-5
    slope = jax.jacfwd(found)(point)
    np.testing.assert_allclose(slope, (found(point + h) - found(point - h)) / 2 / h, atol=1e-7)
    np.testing.assert_allclose(jax.jacrev(found)(point), slope, atol=1e-10)


def test_what_has_no_filter():
    endless = ControlProgram(lambda: {"s": jnp.asarray(0)}, lambda s: {"s": s}, None, discount=0.9, sizes={"s": 2})
    with pytest.raises(ValueError, match="filtered laws"):
        exact.filtered(endless)
    program = tracked(1.0, 1.0, 0.1)
    with pytest.raises(ValueError, match="mixture of the living and the dead"):
        exact.filtered(ControlProgram(program.initial, program.step, 3, discount=0.9))
    with pytest.raises(ValueError, match="policy has the decisions"):
        exact.filtered(program, {})
