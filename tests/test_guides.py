"""Guides of one's own: what they learn, in every loss, in NumPyro, in files and in the engines that sample."""

import copy
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from jax import Array
from jaxtyping import config
from numpyro import handlers
from numpyro.distributions import Beta, Categorical, MultivariateNormal, Normal, constraints
from numpyro.infer import SVI, Predictive
from numpyro.infer.util import log_density
from oracles import guides as oracle
from scipy.optimize import minimize

from rlinf_ppl import ControlProgram, decide, models, optimality, parameter
from rlinf_ppl.inference import exact, execution, smc, svi
from rlinf_ppl.program.guides import as_guide
from rlinf_ppl.tasks import LinearQuadratic

S, A, T = 3, 2, 3


@pytest.fixture(autouse=True)
def ranks_as_numpyro_has_them():
    """Its bijection to the simplex adds arrays of different ranks."""
    with jax.numpy_rank_promotion("allow"):
        yield


KEY = jax.random.key(0)
RNG = np.random.default_rng(5)
FIRST, TRANSITION = RNG.dirichlet(np.ones(S)), RNG.dirichlet(np.ones(S), size=(S, A))
REWARD, PRIOR = 2 * RNG.normal(size=(S, A)), RNG.dirichlet(np.ones(A), size=S)
FEATURES = RNG.normal(size=(S, 2))
ADAM = optax.adam(0.05)


def initial(*args):
    return {"s": numpyro.sample("s_0", Categorical(probs=jnp.asarray(FIRST)))}


def step(beta, s):
    a = decide("a", Categorical(probs=jnp.asarray(PRIOR)[s]), beta)
    optimality(jnp.asarray(REWARD)[s, a])
    return {"s": numpyro.sample("s_next", Categorical(probs=jnp.asarray(TRANSITION)[s, a]))}


def program(beta=1.0, horizon=T, discount=1.0):
    return ControlProgram(initial, step, horizon, discount, args=(beta,))


class Linear(eqx.Module):
    """Logits that are linear in features of the state and the time."""

    weight: Array
    slope: Array

    def a(self, t, s):
        return Categorical(logits=jnp.asarray(FEATURES)[s] @ self.weight + self.slope * t)


class Mixture(eqx.Module):
    """A mixture of tables."""

    shares: Array = parameter(constraints.simplex)
    tables: Array = parameter(constraints.simplex)

    def a(self, s):
        return Categorical(probs=self.shares @ self.tables[:, s])


def linear():
    return Linear(jnp.asarray([[0.3, -0.2], [0.5, 0.1]]), jnp.asarray([0.0, 0.2]))


def mixture():
    rng = np.random.default_rng(1)
    return Mixture(jnp.asarray(rng.dirichlet(np.ones(2))), jnp.asarray(rng.dirichlet(np.ones(A), size=(2, S))))


GUIDES = {"linear": linear, "mixture": mixture}


def tables(name, params):
    """A guide's policy in plain NumPy, (T, S, A)."""
    params = {each: np.asarray(x) for each, x in params.items()}
    if name == "mixture":
        return np.broadcast_to(np.einsum("k,ksa->sa", params["shares"], params["tables"]), (T, S, A))
    logits = FEATURES @ params["weight"] + params["slope"] * np.arange(T)[:, None, None]
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def expected(name, params):
    return oracle.elbo(FIRST, TRANSITION, REWARD, PRIOR, tables(name, params))


def loss_of(guide, made):
    """The exact loss as the engine has it, with what it reads."""
    loss = svi.loss_for(svi.ExactELBO(), guide, ADAM)
    return loss, loss.read(made)


@pytest.mark.parametrize("name", GUIDES)
def test_the_exact_elbo_and_its_slopes_are_those_of_the_tables(name):
    guide = as_guide(program(), GUIDES[name]())
    loss, target = loss_of(guide, program())
    value, slopes = jax.jit(jax.value_and_grad(lambda guide: loss.estimate(target, guide, KEY)))(guide)
    assert float(value) == pytest.approx(expected(name, guide.params), rel=1e-12)
    for i, free in enumerate(guide.free):
        for place in np.ndindex(free.shape):
            ends = []
            for sign in (1, -1):
                moved = [x.at[place].add(sign * 1e-6) if j == i else x for j, x in enumerate(guide.free)]
                ends.append(expected(name, eqx.tree_at(lambda g: g.free, guide, moved).params))
            assert float(slopes.free[i][place]) == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-7)


@pytest.mark.parametrize("name", GUIDES)
def test_a_fit_reaches_the_best_of_its_family(name):
    """Against L-BFGS on the oracle's ELBO, from twenty starts."""
    guide = as_guide(program(), GUIDES[name]())
    fit = svi.fit(program(), KEY, 3000, guide=GUIDES[name](), optimizer=ADAM)
    shapes = [x.shape for x in guide.free]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])

    def negative(x):
        free = [part.reshape(shape) for part, shape in zip(np.split(x, ends[:-1]), shapes, strict=True)]
        return -expected(name, eqx.tree_at(lambda g: g.free, guide, list(map(jnp.asarray, free))).params)

    best = max(-minimize(negative, RNG.normal(size=ends[-1])).fun for _ in range(3))
    assert fit.converged and fit.local
    assert float(fit.elbo) == pytest.approx(expected(name, fit.params), rel=1e-12)
    assert float(fit.elbo) == pytest.approx(best, abs=1e-5)
    np.testing.assert_allclose(fit.policy["a"], tables(name, fit.params), atol=1e-12)
    assert float(exact.elbo(program(), fit.policy)) == pytest.approx(float(fit.elbo), rel=1e-12)
    assert float(exact.solve(program()).elbo) > float(fit.elbo)


@pytest.mark.slow
@pytest.mark.parametrize("name", GUIDES)
def test_particles_see_the_same_bound(name):
    made, guide = program(), as_guide(program(), GUIDES[name]())
    loss = svi.ParticleELBO(20_000)
    target = loss.read(made)
    draws = jax.jit(jax.value_and_grad(lambda guide, key: loss.estimate(target, guide, key)))
    exactly, exact_target = loss_of(guide, made)
    wanted, slope = jax.value_and_grad(lambda guide: exactly.estimate(exact_target, guide, KEY))(guide)
    found = [draws(guide, key) for key in jax.random.split(KEY, 12)]
    values = np.array([value for value, _ in found])
    assert abs(values.mean() - float(wanted)) < 5 * values.std(ddof=1) / np.sqrt(12)
    for i, one in enumerate(slope.free):
        sampled = np.stack([np.asarray(gradient.free[i]) for _, gradient in found])
        error = np.maximum(sampled.std(0, ddof=1) / np.sqrt(12), 1e-9)
        assert np.abs((sampled.mean(0) - one) / error).max() < 6


class Noisy(eqx.Module):
    """Values that are remembered with noise, and a softmax of them: dynamic resource allocation's guide."""

    mean: Array
    spread: Array = parameter(constraints.positive)

    def q(self, s):
        return Normal(self.mean[s], self.spread[s]).to_event(1)

    def a(self, q):
        return Categorical(logits=1.5 * q)


def remembering(horizon=T, discount=1.0):
    def step(s):
        decide("q", Normal(0, 1).expand([A]).to_event(1))
        a = decide("a", Categorical(logits=jnp.zeros(A)))
        optimality(jnp.asarray(REWARD)[s, a])
        return {"s": numpyro.sample("s_next", Categorical(probs=jnp.asarray(TRANSITION)[s, a]))}

    return ControlProgram(initial, step, horizon, discount)


def noisy():
    rng = np.random.default_rng(2)
    return Noisy(jnp.asarray(rng.normal(size=(S, A))), jnp.asarray(0.5 + rng.random(size=(S, A))))


@pytest.mark.slow
def test_a_softmax_of_noisy_values_against_quadrature():
    made, guide = remembering(), as_guide(remembering(), noisy())

    def wanted(mean, spread):
        return oracle.noisy_softmax(FIRST, TRANSITION, REWARD, T, mean, spread, 1.5)

    params = {name: np.asarray(x) for name, x in guide.params.items()}
    loss = svi.ParticleELBO(20_000)
    target = loss.read(made)
    draws = jax.jit(
        jax.value_and_grad(lambda free, key: loss.estimate(target, eqx.tree_at(lambda g: g.free, guide, free), key))
    )
    found = [draws(guide.free, key) for key in jax.random.split(KEY, 12)]
    values = np.array([value for value, _ in found])
    assert abs(values.mean() - wanted(**params)) < 5 * values.std(ddof=1) / np.sqrt(12)
    for i, name in enumerate(guide.names):
        sampled = np.stack([np.asarray(gradient[i]) for _, gradient in found])
        error = sampled.std(0, ddof=1) / np.sqrt(12)
        for place in np.ndindex(error.shape):
            ends = []
            for sign in (1, -1):
                moved = guide.free[i].at[place].add(sign * 1e-4)
                free = [moved if j == i else x for j, x in enumerate(guide.free)]
                ends.append(
                    wanted(**{k: np.asarray(x) for k, x in eqx.tree_at(lambda g: g.free, guide, free).params.items()})
                )
            assert abs(sampled.mean(0)[place] - (ends[0] - ends[1]) / 2e-4) < 6 * error[place], (name, place)


@pytest.mark.slow
def test_a_fit_of_noisy_values_is_used_everywhere():
    made = remembering()
    fit = svi.fit(made, KEY, 300, guide=noisy(), loss=svi.ParticleELBO(200), optimizer=ADAM)
    params = {name: np.asarray(x) for name, x in fit.params.items()}
    assert (params["spread"] > 0).all()
    wanted = oracle.noisy_softmax(FIRST, TRANSITION, REWARD, T, params["mean"], params["spread"], 1.5)
    assert float(fit.elbo) == pytest.approx(wanted, abs=0.15)
    law = fit.policy["a"](q=jnp.asarray([1.0, 0.0]))
    np.testing.assert_allclose(law.probs, np.exp([1.5, 0]) / np.exp([1.5, 0]).sum(), rtol=1e-6)
    carrying = made.with_guide(fit.guide)
    run = smc.run(carrying, KEY, 4000)
    plain = smc.run(made, KEY, 20_000)
    assert float(run.log_evidence) == pytest.approx(float(plain.log_evidence), abs=0.15)
    assert np.isfinite(svi.k_hat(made, KEY, fit)) and svi.k_hat(made, KEY, fit) == svi.k_hat(made, KEY, fit.policy)
    episodes = execution.roll_out(made, KEY, fit, 500)
    assert np.isfinite(np.asarray(episodes.returns)).all()
    samples = Predictive(carrying.guide, params=fit.params, num_samples=300)(KEY)
    assert samples["t0/q"].shape == (300, A) and set(np.unique(samples["t2/a"])) <= {0, 1}
    fresh = Predictive(made.with_guide(noisy()).guide, params=fit.params, num_samples=300)(KEY)
    np.testing.assert_array_equal(fresh["t1/q"], samples["t1/q"])


@pytest.mark.parametrize("discount", [1.0, 0.7])
def test_the_guide_in_numpyro_has_the_density_of_its_functions(discount):
    """At trajectories of its own, the dead ones by their priors; and the model's less it is what particles weigh."""
    made = remembering(discount=discount).with_guide(noisy())
    module = noisy()
    for seed in range(4):
        drawn = handlers.trace(handlers.seed(made.guide, seed)).get_trace()
        values = {name: site["value"] for name, site in drawn.items() if site["type"] == "sample"}
        found, _ = log_density(made.guide, (), {}, values)
        total, alive, s = np.log(FIRST)[values["init/s_0"]], 1, values["init/s_0"]
        for t in range(T):
            if discount < 1 and t:
                alive *= int(values[f"t{t}/alive"])
                total += np.log(discount if values[f"t{t}/alive"] else 1 - discount)
            q, a = values[f"t{t}/q"], values[f"t{t}/a"]
            mean, spread = (module.mean[s], module.spread[s]) if alive else (jnp.zeros(A), jnp.ones(A))
            total += float(Normal(mean, spread).log_prob(q).sum())
            total += float(Categorical(logits=1.5 * q if alive else jnp.zeros(A)).log_prob(a))
            total += np.log(TRANSITION[s, a, values[f"t{t}/s_next"]])
            s = values[f"t{t}/s_next"]
        assert float(found) == pytest.approx(total, rel=1e-10)


@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_numpyros_svi_takes_the_same_steps(beta):
    made = program(beta).with_guide(linear())
    found = SVI(made.model, made.guide, ADAM, loss=svi.ExactELBO()).run(KEY, 150, progress_bar=False)
    ours = svi.fit(made, KEY, 150, optimizer=ADAM, tolerance=0.0)
    # NumPyro counts in nats, and Adam does not mind.
    np.testing.assert_allclose(found.losses / beta, ours.losses, rtol=1e-6)
    for name, x in ours.params.items():
        np.testing.assert_allclose(found.params[name], x, rtol=1e-4, atol=1e-6)


def test_numpyros_svi_with_particles():
    made = remembering().with_guide(noisy())
    svi_of_numpyro = SVI(made.model, made.guide, ADAM, loss=svi.ParticleELBO(500))
    found = svi_of_numpyro.run(KEY, 200, progress_bar=False)
    params = {name: np.asarray(x) for name, x in found.params.items()}
    wanted = oracle.noisy_softmax(FIRST, TRANSITION, REWARD, T, params["mean"], params["spread"], 1.5)
    assert -np.mean(found.losses[-20:]) == pytest.approx(wanted, abs=0.1)


def test_without_end():
    made = program(horizon=None, discount=0.8)
    fit = svi.fit(made, KEY, 2000, guide=mixture(), optimizer=ADAM)
    assert fit.converged
    # A mixture of two tables is any table that does not vary in time.
    np.testing.assert_allclose(fit.policy["a"], exact.solve(made).policy["a"], atol=1e-3)


def test_a_dict_of_functions_tables_and_networks():
    def two(s):
        a = decide("a", Categorical(logits=jnp.zeros(2)))
        b = decide("b", Categorical(logits=jnp.zeros(2)))
        optimality(jnp.asarray([[1.0, 0.0], [0.0, 0.5]])[a, b] * (1 + s))
        return {"s": s}

    made = ControlProgram(initial, two, 2)
    entries = {"a": jnp.zeros((2, S, 2)), "b": lambda a: Categorical(logits=5.0 * jnp.eye(2)[a])}
    fit = svi.fit(made, KEY, 600, guide=entries, optimizer=ADAM)
    assert set(fit.params) == {"a"} and fit.policy["b"].shape == (2, S, 2, 2)
    assert float(exact.elbo(made, fit.policy)) == pytest.approx(float(fit.elbo), rel=1e-12)
    learned = {"a": svi.networks(made, KEY, width=4, depth=1)["a"], "b": entries["b"]}
    nets = svi.fit(made, KEY, 600, guide=learned, optimizer=optax.adam(0.02))
    assert float(nets.elbo) == pytest.approx(float(fit.elbo), abs=0.02)


def test_a_fit_goes_on_and_is_saved(tmp_path):
    whole = svi.fit(program(), KEY, 40, guide=linear(), optimizer=ADAM)
    half = svi.fit(program(), KEY, 20, guide=linear(), optimizer=ADAM)
    svi.save(half, tmp_path / "fit.npz")
    again = svi.load(tmp_path / "fit.npz", program(), guide=linear(), optimizer=ADAM)
    for other in (half.resume(20), again.resume(20)):
        np.testing.assert_array_equal(other.losses, whole.losses)
        for name, x in whole.params.items():
            np.testing.assert_array_equal(other.params[name], x)
    assert whole.guide.module.weight.shape == (2, A)


def test_whoever_minimises_goes_down():
    fit = svi.fit(program(-1.0), KEY, 2000, guide=mixture(), optimizer=ADAM)
    free = svi.fit(program(-1.0, horizon=1), KEY, 2000, guide=mixture(), optimizer=ADAM)
    assert float(fit.elbo) < float(exact.elbo(program(-1.0), {"a": PRIOR}))
    assert float(free.elbo) == pytest.approx(float(exact.solve(program(-1.0, horizon=1)).elbo), abs=1e-4)


def blind():
    def step(s):
        a = decide("a", Categorical(logits=jnp.zeros(A)), unseen=("s",))
        optimality(jnp.asarray(REWARD)[s, a])
        return {"s": s}

    return ControlProgram(initial, step, T)


def opponents():
    def step(s):
        a = decide("a", Categorical(logits=jnp.zeros(2)))
        b = decide("b", Categorical(logits=jnp.zeros(2)), -1.0)
        optimality(1.0 * (a == b))
        return {"s": s}

    return ControlProgram(initial, step, T)


class Named(eqx.Module):
    a: Array


class Wrong(eqx.Module):
    law: object = eqx.field(static=True)
    learned: Array = eqx.field(default_factory=lambda: jnp.zeros(1))

    def a(self, s):
        return self.law(s)


def fitted(guide, made=program, **options):
    return lambda: svi.fit(made(), KEY, 1, guide=guide, **({"optimizer": ADAM} | options))


PARTICLES = {"loss": svi.ParticleELBO(4)}


class Two(eqx.Module):
    logits: Array

    def a(self):
        return Categorical(logits=self.logits)

    def b(self):
        return Categorical(logits=self.logits)


WRONG = {
    "no optimizer": (fitted(linear(), optimizer=None), ValueError, "natural gradient is one of tables.*optimizer"),
    "sampled states": (
        fitted(linear(), loss=svi.SampledELBO(4)),
        TypeError,
        r"SampledELBO\(4\) fits no guide of one's own",
    ),
    "score functions": (fitted(linear(), loss=svi.ScoreFunctionELBO(4)), TypeError, "fits no guide of one's own"),
    "actor-critic": (fitted(linear(), loss=svi.ActorCritic()), TypeError, "fits no guide of one's own"),
    "no method": (
        fitted(Noisy(jnp.zeros(2), jnp.ones(2)), made=opponents),
        TypeError,
        r"got Noisy, which has none for \['b'\]",
    ),
    "a number": (fitted(3), TypeError, r"a function for each of \['a'\].*got int"),
    "another's entry": (fitted({"b": lambda s: None}), TypeError, r"a dict of \['b'\]"),
    "what is not seen": (
        fitted({"a": lambda s: Categorical(logits=jnp.zeros(A))}, made=blind),
        ValueError,
        r"takes \['s'\]; it may",
    ),
    "what comes later": (
        fitted({"a": lambda s_next: Categorical(logits=jnp.zeros(A))}),
        ValueError,
        r"takes \['s_next'\]",
    ),
    "no distribution": (
        fitted(Wrong(lambda s: jnp.zeros(2))),
        TypeError,
        "the guide of 'a' returned .*; it must return a NumPyro",
    ),
    "another support": (fitted(Wrong(lambda s: Normal(0.0, 1.0))), ValueError, "the guide of 'a' returned a Normal"),
    "another number of values": (
        fitted(Wrong(lambda s: Categorical(logits=jnp.zeros(3)))),
        ValueError,
        "over the site's 2 values",
    ),
    "particles: another support": (
        fitted(Wrong(lambda s: Beta(1.0, 1.0)), **PARTICLES),
        ValueError,
        "over the site's 2 values",
    ),
    "no table": (fitted(noisy(), made=remembering), ValueError, "whose variables are all finite, or all real"),
    "opponents": (fitted(Two(jnp.zeros(2)), made=opponents), ValueError, r"\['b'\] minimise what others maximise"),
    "whole numbers": (
        fitted(Linear(jnp.zeros((2, 2), int), jnp.zeros(2))),
        TypeError,
        "the guide's weight is an array of int",
    ),
    "out of bounds": (
        fitted(Mixture(jnp.asarray([0.9, 0.9]), mixture().tables)),
        ValueError,
        "the guide's shares .* breaks its constraint",
    ),
    "a constraint that is none": (lambda: parameter(3), TypeError, "takes a constraint of NumPyro's.*got int"),
    "time without end": (
        fitted(linear(), made=lambda: program(horizon=None, discount=0.5)),
        ValueError,
        "takes t|over \\['t'\\]",
    ),
    "carried by the program": (lambda: program().with_guide({"a": 3}), TypeError, r"which has none for \['a'\]"),
    "nothing to learn": (
        fitted({"a": lambda s: Categorical(logits=jnp.zeros(A))}),
        ValueError,
        "no arrays, so that there is nothing to learn",
    ),
    "a class": (fitted(Linear), TypeError, "guide is the class Linear; give one of it"),
    "an edge": (
        fitted(Mixture(jnp.asarray([1.0, 0.0]), mixture().tables)),
        ValueError,
        "the guide's shares .* at the edge of its constraint",
    ),
    "no bijection": (lambda: parameter(constraints.nonnegative_integer), TypeError, "no bijection to"),
    "a sample inside": (
        fitted(Wrong(lambda s: Categorical(logits=numpyro.sample("e", Normal(0, 1)) * jnp.ones(A)), jnp.zeros(1))),
        ValueError,
        "the guide of 'a' has a numpyro.sample statement, 'e'",
    ),
    "a param inside": (
        fitted(Wrong(lambda s: Categorical(logits=numpyro.param("w", jnp.zeros(A))), jnp.zeros(1))),
        ValueError,
        "the guide of 'a' has a numpyro.param statement, 'w'",
    ),
    "a policy": (
        lambda: program().with_guide({"a": jnp.broadcast_to(PRIOR, (T, S, A))}),
        ValueError,
        "is a table of probabilities, and what is learned are logits",
    ),
    "a table of another shape": (
        lambda: program().with_guide({"a": jnp.zeros((2, 2, 2))}),
        ValueError,
        r"has shape \(2, 2, 2\); logits of it have \(3, 3, 2\)",
    ),
    "an array of a decision's name": (
        lambda: program().with_guide(Named(jnp.zeros((T, S, A)))),
        TypeError,
        r"got Named, which has none for \['a'\]",
    ),
    "params of networks": (
        lambda: svi.fit(program(), KEY, 1, guide=svi.networks(program(), KEY), optimizer=ADAM, **PARTICLES).params,
        TypeError,
        r"program.with_guide\(fit.guide\).guide has them",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused(name, monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)
    make, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        make()


@pytest.mark.slow
def noisy_table():
    """A program whose guide cannot be written out."""
    return remembering(), noisy()


def gaussian():
    def step(x):
        u = decide("u", Normal(0.0, 1.0))
        optimality(-((x + u) ** 2))
        return {"x": numpyro.sample("x_next", Normal(x + u, 0.3))}

    return ControlProgram(lambda: {"x": numpyro.sample("x_0", Normal(1.0, 0.5))}, step, 2)


class Steering(eqx.Module):
    gain: Array

    def u(self, x):
        return Normal(self.gain * x, 1.0)


# What is fitted, by a program and a guide; and the losses, by whether they take an optimiser.
FITTED = {
    "tables": lambda: (program(), None),
    "networks": lambda: (program(), svi.networks(program(), KEY, width=4, depth=1)),
    "functions with tables": lambda: (program(), linear()),
    "functions without": noisy_table,
    "Gaussian tables": lambda: (gaussian(), None),
    "Gaussian functions": lambda: (gaussian(), Steering(jnp.asarray(-0.5))),
}
LOSSES = {
    "natural": (svi.ExactELBO(), None),
    "exact": (svi.ExactELBO(), ADAM),
    "sampled": (svi.SampledELBO(4), ADAM),
    "score": (svi.ScoreFunctionELBO(4), ADAM),
    "nodes": (svi.NodeELBO(3), ADAM),
    "particles": (svi.ParticleELBO(4), ADAM),
    "actor-critic": (svi.ActorCritic(4, 8, 16), ADAM),
}
TOGETHER = {
    "tables": {"natural", "exact", "sampled", "score", "nodes", "particles"},
    "networks": {"nodes", "particles", "actor-critic"},
    "functions with tables": {"exact", "nodes", "particles"},
    "functions without": {"nodes", "particles"},
    "Gaussian tables": {"natural", "exact", "sampled"},
    "Gaussian functions": {"particles"},
}
SAID = {
    ("tables", "actor-critic"): None,
    ("Gaussian tables", "actor-critic"): None,
    ("networks", "natural"): "fits tables: guide must be a dict of logits",
    ("networks", "exact"): "fits tables: guide must be a dict of logits",
    ("networks", "sampled"): "fits tables: guide must be a dict of logits",
    ("networks", "score"): "fits tables: guide must be a dict of logits",
    ("functions with tables", "natural"): "natural gradient is one of tables",
    ("functions without", "natural"): "natural gradient is one of tables",
    ("functions without", "exact"): "take programs whose variables are all finite, or all real",
    ("Gaussian tables", "score"): "score functions",
    ("Gaussian tables", "nodes"): "the state holds",
    ("Gaussian tables", "particles"): "no table holds",
    ("Gaussian functions", "natural"): "natural gradient is one of tables",
    ("Gaussian functions", "exact"): "there is no table of that",
    ("Gaussian functions", "nodes"): "the state holds",
}


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("fitted", FITTED)
def test_what_goes_with_what(fitted, loss):
    (made, guide), (loss_of_it, optimizer) = FITTED[fitted](), LOSSES[loss]

    def fit():
        return svi.fit(made, KEY, 2, guide=guide, loss=loss_of_it, optimizer=optimizer)

    message = SAID.get((fitted, loss), "" if loss in TOGETHER[fitted] else "fits no guide of one's own")
    if message in (None, ""):
        # The actor-critic makes networks of its own where no guide is given.
        assert np.isfinite(np.asarray(fit().losses)).all()
    else:
        with pytest.raises((TypeError, ValueError), match=message):
            fit()


class Holding(eqx.Module):
    """Arrays in any container."""

    held: object

    def a(self, s):
        return Categorical(logits=jax.tree.leaves(self.held)[0][s])


@pytest.mark.parametrize("wrap", [lambda x: [x], lambda x: (x,), lambda x: {"w": x}], ids=["list", "tuple", "dict"])
def test_a_single_array_in_a_container_is_learned(wrap):
    guide = as_guide(program(), Holding(wrap(jnp.ones((S, A)))))
    assert len(guide.free) == 1 and guide.bounds == (constraints.real,)
    assert program().with_guide(svi.fit(program(), KEY, 1).guide).learned.names == ("a",)


class Both(eqx.Module):
    first: Array
    second: Array

    def a(self):
        return Categorical(logits=self.first)

    def c(self, a):
        return Categorical(logits=self.second[a])


def test_copies_and_files_of_programs_keep_their_guides():
    made = program().with_guide(linear())
    for again in (copy.deepcopy(made), pickle.loads(pickle.dumps(made)), made.with_guide(made.learned)):
        for name, x in made.learned.params.items():
            np.testing.assert_array_equal(again.learned.params[name], x)
        fit = svi.fit(again, KEY, 2, optimizer=ADAM)
        np.testing.assert_array_equal(fit.losses, svi.fit(made, KEY, 2, optimizer=ADAM).losses)


def test_aims_that_differ_are_no_number_where_they_are_traced():
    def two(b1, b2, s):
        a = decide("a", Categorical(logits=jnp.zeros(2)), b1)
        c = decide("c", Categorical(logits=jnp.zeros(2)), b2)
        optimality(1.0 * (a == c) + 0.5 * a)
        return {"s": s}

    @jax.jit
    def fit(b1, b2):
        made = ControlProgram(initial, two, 1, args=(b1, b2))
        found = svi.fit(made, KEY, 800, guide=Both(jnp.zeros(2), jnp.zeros((2, 2))), optimizer=ADAM)
        return found.elbo, found.converged, exact.solve(made).elbo

    elbo, converged, _ = fit(1.0, -1.0)
    assert np.isnan(elbo) and not converged
    elbo, converged, best = fit(-1.0, -1.0)
    assert converged and float(elbo) == pytest.approx(float(best), abs=1e-5)


def test_the_engines_that_play_take_guides_as_they_are():
    made, guide = program(), linear()
    carrying = made.with_guide(guide)
    for policy, each in ((guide, made), (carrying.learned, made), (None, carrying)):
        assert svi.k_hat(each, KEY, policy) < 2
        assert np.isfinite(np.asarray(execution.roll_out(each, KEY, policy, 20).returns)).all()


def test_params_of_gaussian_tables_have_the_density_of_the_policy():
    rng = np.random.default_rng(3)
    system = LinearQuadratic(
        0.9 * np.eye(2), rng.normal(size=(2, 2)), np.ones(2), 0.1 * np.eye(2), -np.eye(2), -np.eye(2), np.zeros(2),
        np.ones(2), np.eye(2),
    )  # fmt: skip
    prior = 0.3 * rng.normal(size=(2, 2)), rng.normal(size=2), np.array([[1.0, 0.3], [0.3, 0.5]])
    made = models.linear_gaussian(system, 2, prior=prior)
    fit = svi.fit(made, KEY)
    drawn = handlers.trace(handlers.seed(handlers.substitute(made.guide, data=fit.params), 1)).get_trace()
    gain, offset, cov = fit.policy["u"]
    x = drawn["init/x_first"]["value"]
    for t in range(2):
        law, u = MultivariateNormal(gain[t] @ x + offset[t], cov[t]), drawn[f"t{t}/u"]["value"]
        found = drawn[f"t{t}/u"]["fn"].log_prob(u)
        assert float(found) == pytest.approx(float(law.log_prob(u)), rel=1e-9)
        x = drawn[f"t{t}/x_next"]["value"]


@pytest.mark.slow
def test_params_of_tables_and_networks_run_in_numpyro():
    fit = svi.fit(program(), KEY)
    samples = Predictive(program().guide, params=fit.params, num_samples=4000)(KEY)
    shares = np.bincount(np.asarray(samples["t0/a"]), minlength=A) / 4000
    np.testing.assert_allclose(shares, FIRST @ np.asarray(fit.policy["a"][0]), atol=0.03)
    nets = svi.fit(program(), KEY, 200, guide=svi.networks(program(), KEY, width=8), optimizer=ADAM, **PARTICLES)
    carrying = program().with_guide(nets.guide)
    drawn = Predictive(carrying.guide, num_samples=4000)(KEY)
    shares = np.bincount(np.asarray(drawn["t0/a"]), minlength=A) / 4000
    laws = np.stack([nets.policy["a"](s=s, t=0).probs for s in range(S)])
    np.testing.assert_allclose(shares, FIRST @ laws, atol=0.03)
