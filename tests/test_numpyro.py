"""`prog.model` and `prog.guide` as ordinary NumPyro callables, in NumPyro's own inference."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro import handlers
from numpyro.distributions import Bernoulli, Categorical, DiscreteUniform
from numpyro.infer import SVI, Predictive, TraceGraph_ELBO
from numpyro.infer.inspect import render_model
from numpyro.infer.util import initialize_model, log_density
from programs_more import PAIRS

from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.inference import exact, svi
from rlinf_ppl.inference.fitting import guides
from rlinf_ppl.program import read

STATES, ACTIONS = 4, 3
RNG = np.random.default_rng(3)
TRANSITION = jnp.asarray(RNG.dirichlet(np.ones(STATES), size=(STATES, ACTIONS)))
REWARD = jnp.asarray(RNG.normal(size=(STATES, ACTIONS)))
PRIOR = jnp.array([0.0, 0.4, 0.6])


def initial(transition, reward):
    return {"s": numpyro.sample("s", Categorical(probs=jnp.full(STATES, 1 / STATES))), "z": jnp.int32(0)}


def step(transition, reward, s, z):
    """Two decisions, the second with a prior that has a zero, and a deterministic next state."""
    b = decide("b", Bernoulli(0.4))
    a = decide("a", Categorical(probs=PRIOR))
    z_next = jnp.where(b == 1, a, z)
    optimality(reward[s, z_next] + 0.3 * b)
    return {"s": numpyro.sample("s_next", Categorical(probs=transition[s, a])), "z": z_next}


@cache
def program(horizon, discount):
    return ControlProgram(initial, step, horizon, discount=discount, args=(TRANSITION, REWARD), sizes={"z": 3})


def test_sites_of_model_and_guide():
    sites = list(handlers.trace(handlers.seed(program(2, 0.8).model, 0)).get_trace())
    step_sites = ["b", "a", "optimality", "s_next"]
    assert sites == ["init/s", *(f"t0/{x}" for x in step_sites), "t1/alive", *(f"t1/{x}" for x in step_sites)]
    guide = handlers.trace(handlers.seed(program(2, 0.8).guide, 0)).get_trace()
    assert [name for name in guide if guide[name]["type"] == "sample"] == [s for s in sites if "optimality" not in s]
    assert guide["a_logits"]["value"].shape == (2, STATES, 3, 2, ACTIONS)
    assert program(2, 0.8).scopes == {"b": ("s", "z"), "a": ("s", "z", "b")}


def test_log_density_of_the_model_is_the_sum_of_its_parts():
    trace = handlers.trace(handlers.seed(program(2, 1.0).model, 5)).get_trace()
    values = {name: int(site["value"]) for name, site in trace.items() if not site["is_observed"]}
    total, s, z = np.log(1 / STATES), values["init/s"], 0
    for t in range(2):
        b, a, s_next = (values[f"t{t}/{name}"] for name in ("b", "a", "s_next"))
        z = a if b else z
        total += np.log([0.6, 0.4][b]) + np.log(PRIOR[a]) + REWARD[s, z] + 0.3 * b + np.log(TRANSITION[s, a, s_next])
        s = s_next
    found, _ = log_density(program(2, 1.0).model, (), {}, values)
    assert float(found) == pytest.approx(float(total), rel=1e-12)


def test_a_dead_step_has_its_laws_and_nothing_else():
    values = {"init/s": 0, "t0/b": 1, "t0/a": 1, "t0/s_next": 2, "t1/alive": 0, "t1/b": 1, "t1/a": 2, "t1/s_next": 3}
    first, _ = log_density(program(1, 0.8).model, (), {}, {k: v for k, v in values.items() if "t1" not in k})
    both, _ = log_density(program(2, 0.8).model, (), {}, values)
    laws = np.log(0.4) + np.log(PRIOR[2]) + np.log(TRANSITION[2, 2, 3])
    assert float(both - first) == pytest.approx(np.log(0.2) + laws, rel=1e-6)


def test_the_guide_of_a_dead_step_is_the_prior():
    values = {"init/s": 0, "t0/b": 1, "t0/a": 1, "t0/s_next": 2, "t1/alive": 0, "t1/b": 1, "t1/a": 2, "t1/s_next": 3}
    prog = program(2, 0.8)
    guide = handlers.trace(handlers.seed(prog.guide, 0)).get_trace()
    params = {name: jnp.ones_like(guide[name]["value"]).at[..., -1].set(3.0) for name in ("a_logits", "b_logits")}
    for alive in (0, 1):
        trace = handlers.trace(
            handlers.substitute(handlers.seed(prog.guide, 0), {**values, **params, "t1/alive": alive})
        ).get_trace()
        density = [float(trace[f"t1/{name}"]["fn"].log_prob(values[f"t1/{name}"])) for name in ("b", "a")]
        assert (np.allclose(density, [np.log(0.4), np.log(PRIOR[2])])) == (not alive)


@pytest.mark.parametrize("beta", [1.8, 0.0])
def test_the_potential_of_numpyros_samplers_is_that_of_a_model_by_hand(beta):
    """They state the log determinants of their transforms by factors of their own, which no temperature multiplies."""
    data = jnp.array([0.5, 2.0])

    def begin():
        return {"x": numpyro.sample("x0", dist.Gamma(3.0, 2.0))}

    def move(x, t):
        a = decide("a", dist.Beta(2.0, 2.0), inverse_temperature=beta)
        optimality(-((x - 2 * a) ** 2))
        x_next = numpyro.sample("x_next", dist.LogNormal(0.5 * jnp.log(x) + 0.3 * a, 0.4))
        with numpyro.plate("both", 2):
            numpyro.sample("y", dist.TruncatedNormal(x_next, 0.8, low=0.0), obs=data[t] * jnp.array([1.0, 0.7]))
        return {"x": x_next}

    def by_hand():
        x = numpyro.sample("init/x0", dist.Gamma(3.0, 2.0))
        for t in range(2):
            a = numpyro.sample(f"t{t}/a", dist.Beta(2.0, 2.0))
            numpyro.factor(f"o{t}", -beta * (x - 2 * a) ** 2)
            x = numpyro.sample(f"t{t}/x_next", dist.LogNormal(0.5 * jnp.log(x) + 0.3 * a, 0.4))
            with numpyro.plate(f"both{t}", 2):
                numpyro.sample(f"y{t}", dist.TruncatedNormal(x, 0.8, low=0.0), obs=data[t] * jnp.array([1.0, 0.7]))
        numpyro.factor("last", -0.3 * beta * x)

    prog = ControlProgram(begin, move, 2, final=lambda x: optimality(-0.3 * x))
    ours, theirs = (initialize_model(jax.random.key(0), model) for model in (prog.model, by_hand))
    for seed in range(3):
        normals = np.random.default_rng(seed).normal(size=5)
        at = dict(zip(sorted(theirs.param_info.z), jnp.asarray(normals), strict=True))
        wanted = jax.value_and_grad(theirs.potential_fn)(at)
        for found, truth in zip(
            *map(jax.tree.leaves, (jax.value_and_grad(ours.potential_fn)(at), wanted)), strict=True
        ):
            assert float(found) == pytest.approx(float(truth), rel=1e-12)


def test_the_last_state_is_reached_alive_or_counts_nothing():
    def stay(s):
        optimality(0.5 * decide("a", Bernoulli(0.4)))
        return {"s": s}

    prog = ControlProgram(lambda: {"s": jnp.int32(1)}, stay, 1, 0.8, lambda s: optimality(2.0 * s), sizes={"s": 2})
    by_alive = {alive: log_density(prog.model, (), {}, {"t0/a": 1, "final/alive": alive})[0] for alive in (0, 1)}
    one_step = np.log(0.4) + 0.5
    assert float(by_alive[1]) == pytest.approx(one_step + np.log(0.8) + 2.0, rel=1e-6)
    assert float(by_alive[0]) == pytest.approx(one_step + np.log(0.2), rel=1e-6)


def test_predictive_draws_from_the_model():
    draws = Predictive(program(2, 1.0).model, num_samples=4000)(jax.random.key(0))
    frequency = np.bincount(np.asarray(draws["t1/b"])) / 4000
    assert abs(frequency[1] - 0.4) < 5 * np.sqrt(0.24 / 4000)
    assert (draws["t0/a"] != 0).all()


def test_the_model_of_a_tempered_program_multiplies_optimality():
    def tempered(s):
        a = decide("a", Categorical(probs=jnp.array([0.5, 0.5])), inverse_temperature=2.5)
        optimality(1.0 * a)
        return {"s": a}

    prog = ControlProgram(lambda: {"s": numpyro.sample("s", Bernoulli(0.5))}, tempered, 1)
    with numpyro.handlers.seed(rng_seed=0):
        trace = handlers.trace(handlers.substitute(prog.model, data={"t0/a": 1})).get_trace()
    assert float(trace["t0/optimality"]["fn"].log_factor) == 2.5


def test_the_guide_of_a_shifted_support_draws_values():
    def shifted(s):
        a = decide("a", DiscreteUniform(3, 5))
        optimality(1.0 * a)
        return {"s": a - 3}

    prog = ControlProgram(lambda: {"s": numpyro.sample("s", Categorical(probs=jnp.ones(3) / 3))}, shifted, 1)
    logits = {"a_logits": jnp.array([[0.0, 0.0, 50.0]])}
    draws = Predictive(prog.guide, params=logits, num_samples=20)(jax.random.key(0))["t0/a"]
    assert (draws == 5).all()


@pytest.mark.slow
@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_numpyros_gradient_of_model_and_guide_is_the_exact_one(discount):
    prog, chain = program(3, discount), read(program(3, discount))
    # With larger ones, alternatives are so improbable that too few are drawn for their spread to be known.
    logits = {k: 4 * v for k, v in guides.initial_logits(chain, jax.random.key(3)).items()}
    loss, gradient = jax.value_and_grad(lambda logits: -guides.bound(chain, logits))(logits)
    estimate = jax.jit(jax.vmap(jax.value_and_grad(
        lambda params, key: TraceGraph_ELBO(num_particles=100).loss(key, params, prog.model, prog.guide)
    ), in_axes=(None, 0)))  # fmt: skip
    values, gradients = estimate(
        {f"{k}_logits": v for k, v in logits.items()}, jax.random.split(jax.random.key(0), 100)
    )
    assert abs(z_scores(values, loss)) < 4
    for name, truth in gradient.items():
        found = np.asarray(gradients[f"{name}_logits"])
        never_met = found.std(0) == 0
        np.testing.assert_array_equal(found.mean(0)[never_met], truth[never_met])
        assert np.abs(z_scores(found, truth)[~never_met]).max() < 4


def z_scores(samples, truth):
    samples = np.asarray(samples)
    error = samples.std(0) / np.sqrt(len(samples))
    return (samples.mean(0) - np.asarray(truth)) / np.where(error == 0, 1, error)


@pytest.mark.slow
def test_numpyros_own_svi_fits_the_guide_under_validation():
    prog = program(2, 1.0)
    with numpyro.validation_enabled():
        fit = SVI(prog.model, prog.guide, optax.adam(0.05), TraceGraph_ELBO(num_particles=20)).run(
            jax.random.key(0), 500, progress_bar=False
        )
    logits = {name: fit.params[f"{name}_logits"] for name in prog.scopes}
    policy, bound = svi.ExactELBO().summary(read(prog), logits, jax.random.key(0))
    best = exact.solve(prog).elbo
    assert float(best - bound) < 0.05 < float(best - exact.elbo(prog, exact.prior_policy(prog)))


def test_a_two_step_template_can_be_drawn():
    source = render_model(program(2, 1.0).model).source
    for site in ("init/s", "t0/b", "t1/a", "t1/s_next"):
        assert f'"{site}"' in source


def test_different_inverse_temperatures_have_no_joint_model():
    prog = PAIRS["two_temperatures"].control()
    with pytest.raises(ValueError, match="no joint model"):
        handlers.seed(prog.model, 0)()
