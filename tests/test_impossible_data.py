"""Data outside a law's support, and constraints that cannot be met, have probability zero, in every engine."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import Categorical
from numpyro.infer.util import log_density
from selection import quick

from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.inference import exact, smc

INF = np.inf

# Laws, data that are impossible under them, data that are not, and the log probability of these.
LAWS = {
    "Uniform": (dist.Uniform(0.0, 2.0), 3.0, 1.0, -np.log(2)),
    "Exponential": (dist.Exponential(1.0), -1.0, 1.0, -1.0),
    "TruncatedNormal": (dist.TruncatedNormal(0.0, 1.0, low=-1.0, high=1.0), 3.0, 0.0, -0.918938533 + 0.381715),
    "HalfNormal": (dist.HalfNormal(1.0), -0.5, 1.0, np.log(2) - 1.418938533),
    "Gamma": (dist.Gamma(1.0, 1.0), -2.0, 2.0, -2.0),
    "Gamma, infinite": (dist.Gamma(1.0, 1.0), np.inf, 2.0, -2.0),
    "Categorical, between": (Categorical(probs=jnp.ones(2) / 2), 0.5, 1.0, np.log(0.5)),
    "Beta": (dist.Beta(1.0, 1.0), 1.5, 0.5, 0.0),
    "LogNormal": (dist.LogNormal(0.0, 1.0), -1.0, 1.0, -0.918938533),
    "Pareto": (dist.Pareto(1.0, 1.0), 0.5, 2.0, -np.log(4)),
    "Categorical": (Categorical(probs=jnp.array([0.2, 0.8])), 2, 1, np.log(0.8)),
    "Categorical, below": (Categorical(probs=jnp.array([0.2, 0.8])), -1, 0, np.log(0.2)),
    "Bernoulli": (dist.Bernoulli(probs=0.25), 2, 1, np.log(0.25)),
    "Bernoulli, certain": (dist.Bernoulli(probs=1.0), 0, 1, 0.0),
    "Binomial, certain": (dist.Binomial(3, probs=0.0), 2, 0, 0.0),
    "Binomial": (dist.Binomial(2, probs=0.5), 3, 1, np.log(0.5)),
    "Poisson": (dist.Poisson(1.0), -1, 0, -1.0),
    "Poisson, between": (dist.Poisson(1.0), 1.5, 1, -1.0),
    "Geometric": (dist.Geometric(probs=0.5), -1, 0, np.log(0.5)),
    "Dirichlet": (dist.Dirichlet(jnp.ones(2)), np.array([0.5, 0.9]), np.array([0.5, 0.5]), 0.0),
    "Independent": (dist.Uniform(jnp.zeros(2), 2.0).to_event(1), np.array([1.0, 5.0]), np.ones(2), -2 * np.log(2)),
    "Masked": (dist.Uniform(0.0, 2.0).mask(jnp.asarray(True)), 3.0, 1.0, -np.log(2)),
    "Transformed": (
        dist.TransformedDistribution(dist.Normal(0.0, 1.0), dist.transforms.ExpTransform()), -1.0, 1.0, -0.918938533,
    ),
    "Shifted": (
        dist.TransformedDistribution(dist.Exponential(1.0), dist.transforms.AffineTransform(5.0, 1.0)), 4.0, 6.0, -1.0,
    ),
    "Turned": (
        dist.TransformedDistribution(
            dist.Uniform(0.0, 1.0), dist.transforms.AffineTransform(2.0, -2.0, domain=dist.constraints.unit_interval)
        ), 2.5, 0.5, -np.log(2),
    ),
    "Simplex": (
        dist.TransformedDistribution(
            dist.Normal(jnp.zeros(1), 1.0).to_event(1), dist.transforms.StickBreakingTransform()
        ), np.array([0.5, 0.9]), np.array([0.5, 0.5]), -0.918938533 + np.log(4),
    ),
    "HalfNormal, at its edge": (dist.HalfNormal(1.0), -1e-3, 0.0, np.log(2) - 0.918938533),
    "Exponential, at its edge": (dist.Exponential(1.0), -1e-3, 0.0, 0.0),
    "Pareto, at its edge": (dist.Pareto(1.0, 1.0), 0.999, 1.0, 0.0),
    "Mixture": (
        dist.MixtureSameFamily(Categorical(probs=jnp.ones(2) / 2), dist.Exponential(jnp.ones(2))), -1.0, 1.0, -1.0,
    ),
}  # fmt: skip


def seen(law, y):
    """Two steps of a coin that no law depends on, in each of which y is seen."""

    def step(s):
        a = decide("a", Categorical(probs=jnp.array([0.5, 0.5])))
        numpyro.sample("y", law, obs=y)
        return {"s": a}

    return ControlProgram(lambda: {"s": 0}, step, 2, sizes={"s": 2})


@functools.cache
def all_seen():
    """Two steps of a coin that no law depends on, in each of which data of every law are seen."""

    def step(data, s):
        a = decide("a", Categorical(probs=jnp.array([0.5, 0.5])))
        for name, (law, *_) in LAWS.items():
            numpyro.sample(f"y of {name}", law, obs=data[name])
        return {"s": a}

    return ControlProgram(lambda data: {"s": 0}, step, 2, sizes={"s": 2}, args=(data_of(),))


def data_of(*outside):
    """Data that are possible, but for those of some laws."""
    # Of one type, so that all programs share compiled code.
    values = {name: law[1 if name in outside else 2] for name, law in LAWS.items()}
    return {name: jnp.asarray(value, float) for name, value in values.items()}


def test_possible_data_have_the_probability_of_their_laws():
    made, expected = all_seen(), 2 * sum(law[3] for law in LAWS.values())
    assert float(exact.condition(made).log_evidence) == pytest.approx(expected, abs=1e-5)
    assert float(smc.run(made, jax.random.key(0), 10).log_evidence) == pytest.approx(expected, abs=1e-5)
    sites = {"t0/a": jnp.asarray(0), "t1/a": jnp.asarray(1)}
    assert float(log_density(made.model, (), {}, sites)[0]) == pytest.approx(expected + 2 * np.log(0.5), abs=1e-5)


@pytest.mark.parametrize("name", LAWS)
def test_impossible_data_have_probability_zero_everywhere(name):
    bad = all_seen().with_args(data_of(name))
    assert float(exact.condition(bad).log_evidence) == -INF
    assert float(smc.run(bad, jax.random.key(0), 10).log_evidence) == -INF
    with pytest.raises(ValueError, match=f"'y of {name}' have probability zero.*exact.condition"):
        exact.solve(bad)


@pytest.mark.parametrize("name", quick(["Uniform", "Categorical", "Poisson, between"], LAWS))
def test_the_model_says_so_too_and_data_may_be_of_any_type(name):
    law, outside, inside, expected = LAWS[name]
    good, bad = seen(law, inside), seen(law, outside)
    sites = {"t0/a": jnp.asarray(0), "t1/a": jnp.asarray(1)}
    assert float(log_density(good.model, (), {}, sites)[0]) == pytest.approx(2 * expected + 2 * np.log(0.5), abs=1e-6)
    assert float(log_density(bad.model, (), {}, sites)[0]) == -INF


def test_a_probability_that_single_precision_takes_for_zero():
    with jax.enable_x64(False):
        assert float(exact.condition(seen(dist.Bernoulli(probs=1e-300), 1)).log_evidence) == -INF
    expected = 2 * np.log(1e-300)
    assert float(exact.condition(seen(dist.Bernoulli(probs=1e-300), 1)).log_evidence) == pytest.approx(expected)


def test_gradients_at_possible_data_are_numbers():
    def evidence(rate, y):
        def step(s):
            numpyro.sample("y", dist.Exponential(rate), obs=y)
            return {"s": s}

        return exact.condition(ControlProgram(lambda: {"s": 0}, step, 1, sizes={"s": 1})).log_evidence

    assert float(jax.grad(evidence)(2.0, 3.0)) == pytest.approx(1 / 2 - 3)
    assert np.isfinite(jax.grad(evidence)(2.0, -1.0))
    assert float(jax.vmap(evidence, (None, 0))(2.0, jnp.array([1.0, -1.0]))[1]) == -INF


@pytest.mark.parametrize("value", [np.nan, np.array([0.5, np.nan])])
def test_data_that_are_missing_are_named(value):
    law = dist.Normal(jnp.zeros(np.shape(value)), 1.0).to_event(np.ndim(value))
    with pytest.raises(ValueError, match="'y' are NaN; leave out what is missing"):
        seen(law, value)


TRANSITION = np.array([[0.7, 0.3], [0.2, 0.8]])
EMISSION = np.array([[0.5, 0.5, 0.0], [0.0, 0.4, 0.6]])


def hidden(data, tau=None, discount=1.0):
    """A hidden Markov model whose emissions have zeros, with a decision that pays."""
    data = jnp.asarray(data)

    def initial():
        return {"s": numpyro.sample("s", Categorical(probs=jnp.array([0.6, 0.4])))}

    def step(s, t):
        a = decide("a", Categorical(probs=jnp.array([0.3, 0.7])))
        optimality(jnp.where(a == s, 0.5, -0.2))
        numpyro.sample("y", Categorical(probs=jnp.asarray(EMISSION, float)[s]), obs=data[t])
        return {"s": numpyro.sample("s_next", Categorical(probs=jnp.asarray(TRANSITION, float)[s]))}

    return ControlProgram(initial, step, len(data), discount=discount)


def enumerated(data):
    """Log evidence, marginals of the states and the first decision's posterior, by all paths."""
    steps, total, states, first = len(data), 0.0, np.zeros((len(data) + 1, 2)), np.zeros((2, 2))
    for path in itertools.product(range(2), repeat=steps + 1):
        for actions in itertools.product(range(2), repeat=steps):
            p = [0.6, 0.4][path[0]]
            for t in range(steps):
                s, a = path[t], actions[t]
                p *= [0.3, 0.7][a] * np.exp(0.5 if a == s else -0.2) * EMISSION[s, data[t]] * TRANSITION[s, path[t + 1]]
            total += p
            first[path[0], actions[0]] += p
            for t, s in enumerate(path):
                states[t, s] += p
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(total), states / total, first / total


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("data", quick([(0, 1, 2), (0, 2, 0)], [(0, 1, 2), (2, 2, 0), (1, 1, 1), (0, 2, 0)]))
def test_hidden_markov_models_with_zero_emissions(data, double):
    with jax.enable_x64(double):
        program = hidden(data)
        posterior, marginals = exact.condition(program), exact.posterior_marginals(program)
        drawn = exact.posterior_sample(program, jax.random.key(1), 4000)
        run = smc.run(program, jax.random.key(0), 4000)
    log_evidence, states, first = enumerated(data)
    tolerance = 1e-9 if double else 1e-5
    assert posterior.converged
    assert float(posterior.log_evidence) == pytest.approx(log_evidence, abs=tolerance)
    np.testing.assert_allclose(marginals.state, states, atol=tolerance)
    np.testing.assert_allclose(marginals.decision["a"][0], first, atol=tolerance)
    frequency = np.stack([np.mean(np.asarray(drawn["s"]) == s, 0) for s in range(2)], -1)
    assert np.max(np.abs(frequency - states)) < 5 * 0.5 / np.sqrt(4000)
    assert float(run.log_evidence) == pytest.approx(log_evidence, abs=0.1)
    for t, y in enumerate(data):
        possible = EMISSION[:, y] > 0
        np.testing.assert_array_equal(np.isneginf(posterior.value[t]), ~possible)


def test_hard_constraints_hold_in_the_posterior_and_are_named_by_solve():
    """A walk on five places that must not be at 3 at the end: p(O) is that of the other ends."""

    def step(s):
        a = decide("a", Categorical(probs=jnp.array([0.5, 0.5])))
        return {"s": jnp.clip(s + 2 * a - 1, 0, 4)}

    def final(s):
        optimality(jnp.where(s == 3, -jnp.inf, 0.0))

    program = ControlProgram(lambda: {"s": 2}, step, 3, final=final, sizes={"s": 5})
    ends = []
    for moves in itertools.product((-1, 1), repeat=3):
        s = 2
        for move in moves:
            s = min(max(s + move, 0), 4)
        ends.append(s)
    expected = np.mean(np.array(ends) != 3)
    posterior = exact.condition(program)
    assert posterior.converged and float(posterior.log_evidence) == pytest.approx(np.log(expected))
    assert exact.posterior_marginals(program).state[-1, 3] == 0
    assert not np.any(np.asarray(exact.posterior_sample(program, jax.random.key(0), 500)["s"])[:, -1] == 3)
    with pytest.raises(ValueError, match="give prior 0 to"):
        exact.solve(program)


@pytest.mark.parametrize("tau", [0.3, 5.0])
def test_inverse_temperatures_beside_hard_constraints(tau):
    def step(s):
        a = decide("a", Categorical(probs=jnp.array([0.2, 0.3, 0.5])), inverse_temperature=tau)
        optimality(jnp.array([1.0, -jnp.inf, -1.0])[a])
        return {"s": s}

    program = ControlProgram(lambda: {"s": 0}, step, 2, sizes={"s": 1})
    posterior = exact.condition(program)
    p = np.array([0.2, 0.0, 0.5]) * np.exp(tau * np.array([1.0, 0.0, -1.0]))
    assert float(posterior.log_evidence) == pytest.approx(2 * np.log(p.sum()))
    np.testing.assert_allclose(np.ravel(posterior.policy["a"][0]), p / p.sum(), atol=1e-12)


@pytest.mark.parametrize("y", [0.5, 1.5, np.float32(1.5), 2.5])
def test_plain_numbers_under_a_law_whose_bound_is_a_state(y):
    """Uniform on [0, 1] or on [0, 2]."""
    bounds = jnp.array([1.0, 2.0])

    def step(s):
        numpyro.sample("y", dist.Uniform(0.0, bounds[s]), obs=y)
        return {"s": s}

    def first():
        return {"s": numpyro.sample("s_first", Categorical(probs=jnp.array([0.3, 0.7])))}

    likelihood = 0.3 * (y <= 1) + 0.7 * (y <= 2) / 2
    found = exact.condition(ControlProgram(first, step, 1)).log_evidence
    assert found == pytest.approx(np.log(likelihood) if likelihood else -INF, rel=1e-6)


MASKED = {
    "gamma": (dist.Gamma(jnp.array([2.0, 2.0]), 1.0), (1.0, -1.0), -1.0),
    "bernoulli": (dist.Bernoulli(jnp.array([0.3, 0.3])), (1, 5), np.log(0.3)),
    "poisson": (dist.Poisson(2.0).expand([2]), (1, -3), np.log(2) - 2),
}


@pytest.mark.parametrize("name", MASKED)
def test_what_is_masked_may_be_anything(name):
    law, data, expected = MASKED[name]

    def evidence(data):
        def step():
            a = decide("a", dist.Categorical(probs=jnp.array([0.5, 0.5])))
            numpyro.sample("y", law.mask(jnp.array([True, False])).to_event(1), obs=jnp.asarray(data))
            optimality(0.0 * a, "reward")
            return {}

        program = ControlProgram(lambda: {}, step, 1)
        exactly, sampled = exact.condition(program), smc.run(program, jax.random.key(0), num_particles=4)
        return float(exactly.log_evidence), float(sampled.log_evidence)

    assert evidence(data) == pytest.approx((expected, expected), rel=1e-6)
    assert evidence(data[::-1]) == (-np.inf, -np.inf)


@pytest.mark.parametrize("double", quick([False], [True, False]))
@pytest.mark.parametrize("kind", quick(["data"], ["data", "optimality"]))
def test_what_is_impossible_is_so_at_every_inverse_temperature(kind, double):
    """Only s = 1 can be; then the last action is free. A product with tau that is rounded otherwise here than there."""
    with jax.enable_x64(double):

        def evidence(q, tau):
            def step(tau, q, s):
                a = decide("a", dist.Bernoulli(q), inverse_temperature=tau)
                if kind == "data":
                    numpyro.sample("y", dist.Bernoulli(jnp.array([0.0, 0.5])[s]), obs=1)
                else:
                    optimality(jnp.where(s == 0, -jnp.inf, 0.0))
                return {"s": a}

            def initial(tau, q):
                return {"s": numpyro.sample("s_0", dist.Bernoulli(0.5))}

            made = ControlProgram(initial, step, 2, args=(jnp.asarray(tau, float), jnp.asarray(q, float)))
            return exact.condition(made).log_evidence, exact.posterior_marginals(made).state

        each = jax.jit(jax.vmap(jax.value_and_grad(evidence, has_aux=True), (None, 0)))
        (found, states), slopes = each(0.5, jnp.asarray(np.linspace(0.05, 4.0, 41)))
        known = np.log(1 / 16) if kind == "data" else np.log(1 / 4)
        close = 1e-12 if double else 2e-5
        np.testing.assert_allclose(found, known, atol=close)
        np.testing.assert_allclose(slopes, 2.0, atol=close)
        expected = np.array([[0.0, 1.0], [0.0, 1.0], [0.5, 0.5]])
        np.testing.assert_allclose(states, np.broadcast_to(expected, (41, 3, 2)), atol=close)
