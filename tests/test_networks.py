"""Amortised guides: where they start, what they are functions of, and what they can be used for."""

from functools import cache

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest
from numpyro.distributions import Categorical, MultivariateNormal
from programs_more import PAIRS

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact, execution, smc, svi
from rlinf_ppl.program.networks import Inputs
from rlinf_ppl.program.supports import Real
from rlinf_ppl.tasks import gallery

KEY = jax.random.key(0)
SLOW = pytest.mark.slow
SIDES = np.array([[0.2, 0.5, 0.3], [0.6, 0.0, 0.4]])
MEAN, COV = np.array([0.5, -1.0]), np.array([[1.0, 0.6], [0.6, 2.0]])


def initial():
    return {"x": jnp.zeros(2), "on": jnp.asarray(1)}


def step(x, on):
    """A side, and a push that sees it; a vector and a switch to look at. Nothing exact reads it."""
    side = decide("side", Categorical(probs=jnp.asarray(SIDES)[on]))
    push = decide("push", MultivariateNormal(jnp.asarray(MEAN, float), jnp.asarray(COV, float)))
    optimality(-jnp.sum((x + push - side) ** 2) + on)
    return {"x": x + push, "on": 1 - on}


@cache
def mixed(horizon=2):
    return ControlProgram(initial, step, horizon, sizes={"on": 2})


@cache
def lottery():
    return models.single_agent(gallery.lottery(), 2)


def small(program, key=KEY, **options):
    return svi.networks(program, key, width=4, depth=1, **options)


@cache
def barely_fitted(step_size=0.0):
    """A fit of one step that goes nowhere, or somewhere."""
    program = mixed()
    return svi.fit(program, KEY, 1, guide=small(program), loss=svi.ParticleELBO(4), optimizer=optax.sgd(step_size))


@pytest.mark.slow
def test_a_guide_starts_as_the_prior():
    policy = barely_fitted().policy
    where = {"x": np.array([0.3, -2.0]), "on": 0}
    np.testing.assert_allclose(np.exp(policy["side"](**where, t=1).log_prob(jnp.arange(3))), SIDES[0])
    push = policy["push"](**where, side=2, t=1)
    np.testing.assert_allclose(push.mean, MEAN, rtol=1e-12)
    np.testing.assert_allclose(push.covariance_matrix, COV, rtol=1e-12)


@pytest.mark.slow
def test_what_the_prior_excludes_a_network_excludes():
    side = barely_fitted(1e-3).policy["side"](x=np.zeros(2), on=1, t=0)
    p = np.exp(side.log_prob(np.arange(3)))
    assert p[1] == 0 and p.sum() == pytest.approx(1, rel=1e-12) and p[0] != SIDES[1, 0]
    assert not (side.sample(KEY, (1000,)) == 1).any()


@pytest.mark.slow
def test_a_policy_is_a_function_that_returns_distributions_of_numpyro():
    policy, key = barely_fitted(1e-3).policy, jax.random.key(1)
    many = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)))
    push = jax.vmap(lambda x: policy["push"](x=x, on=1, side=0, t=1).mean)(many)
    assert push.shape == (5, 2) and len(np.unique(push[:, 0])) == 5
    where = {"x": many[0], "on": 1, "side": 0}
    at = policy["push"](**where, t=1)
    draws = jax.vmap(at.sample)(jax.random.split(key, 4000))
    z = (draws.mean(0) - at.mean) / np.sqrt(np.diag(at.covariance_matrix) / len(draws))
    assert np.abs(z).max() < 5
    assert np.isfinite(jax.vmap(at.log_prob)(draws)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tempered", "discounted_final", "dice"])
def test_the_elbo_at_the_start_is_that_of_the_prior(name):
    program = PAIRS[name].control()
    loss = svi.ParticleELBO(2000)
    target, guide = loss.read(program), small(program)
    runs = jax.lax.map(lambda key: loss.estimate(target, guide, key), jax.random.split(KEY, 20))
    expected = float(exact.elbo(program, exact.prior_policy(program)))
    assert abs(runs.mean() - expected) < 4 * runs.std() / 20**0.5


INPUTS = {
    "indicators": (("s", range(3)), {}, np.asarray(2), [0.0, 0.0, 1.0]),
    "values that are no positions": (("s", (1.0, 3.0, 7.0)), {}, np.asarray(3.0), [0.0, 1.0, 0.0]),
    "a number": (("s", Real(())), {}, np.asarray(0.7), [0.7]),
    "a vector": (("s", Real((2,))), {}, np.array([0.7, 2.0]), [0.7, 2.0]),
    "a feature": (("s", range(3)), {"s": lambda s: s**2}, np.asarray(2), [4.0]),
    "a feature of several": (("s", range(12)), {"s": lambda s: jnp.stack([s // 4, s % 4])}, np.asarray(7), [1.0, 3.0]),
    "a matrix": (("s", Real((2,))), {"s": lambda s: jnp.outer(s, s)}, np.array([2.0, 3.0]), [4.0, 6.0, 6.0, 9.0]),
}


@pytest.mark.parametrize("case", INPUTS)
def test_inputs_are_indicators_numbers_or_features(case):
    (name, support), features, value, expected = INPUTS[case]
    inputs = Inputs(((name, support),), tuple(features.items()), 5)
    for t, scaled in ((0, -1.0), (4, 1.0), (1, -0.5)):
        np.testing.assert_allclose(inputs({name: jnp.asarray(value)}, jnp.asarray(t)), [*expected, scaled])
    assert len(inputs) == len(expected) + 1
    endless = Inputs(((name, support),), tuple(features.items()), None)
    np.testing.assert_allclose(endless({name: jnp.asarray(value)}, jnp.asarray(3)), expected)


@cache
def numbers(count):
    """A state of many values."""

    def step(s):
        a = decide("a", Categorical(probs=jnp.full(2, 0.5)))
        optimality(1.0 * a * (s > 1))
        return {"s": s}

    return ControlProgram(lambda: {"s": jnp.asarray(3)}, step, 1, sizes={"s": count})


def test_a_state_of_very_many_values_goes_with_features_only():
    with pytest.raises(ValueError, match="'s' has 1025 values, too many for one indicator each; say what matters"):
        small(numbers(1025))
    assert small(numbers(1024))["a"].parameters.inputs.features == ()


@pytest.mark.slow
def test_a_state_of_a_thousand_million_values_takes_no_table():
    program = numbers(10**9)
    guide = small(program, features={"s": lambda s: jnp.stack([s / 1e9, jnp.sin(1.0 * s)])})
    assert guide["a"].parameters.arrays.layers[0].weight.shape == (4, 3)
    fit = svi.fit(program, KEY, 200, guide=guide, loss=svi.ParticleELBO(50), optimizer=optax.adam(0.05))
    assert float(fit.elbo) == pytest.approx(np.log((1 + np.e) / 2), abs=2e-3)
    assert np.exp(float(fit.policy["a"](s=3).log_prob(1))) == pytest.approx(np.e / (1 + np.e), abs=0.03)


WAY = {"loss": svi.ParticleELBO(4), "optimizer": optax.adam(0.01)}


@pytest.mark.slow
def test_a_fit_of_networks_goes_on_unbroken_from_a_file(tmp_path):
    program, way = mixed(), WAY | {"tolerance": -1.0}
    unbroken = svi.fit(program, KEY, 130, guide=small(program), **way)
    broken = svi.fit(program, KEY, 37, guide=small(program), **way)
    svi.save(broken, tmp_path / "fit.npz")
    # Weights of any other key have the same form.
    loaded = svi.load(tmp_path / "fit.npz", program, guide=small(program, jax.random.key(9)), **WAY)
    for resumed in (broken.resume(93), loaded.resume(90).resume(3)):
        np.testing.assert_array_equal(resumed.losses, unbroken.losses)
        assert jax.tree.all(jax.tree.map(np.array_equal, resumed.guide, unbroken.guide))
        assert resumed.elbo == unbroken.elbo
    for other in (svi.networks(program, KEY, width=5, depth=1), svi.networks(program, KEY, width=4, depth=2)):
        with pytest.raises(ValueError, match="the fit of another program.*same width, depth"):
            svi.load(tmp_path / "fit.npz", program, guide=other, **WAY)


@pytest.mark.slow
def test_networks_work_in_single_precision():
    with jax.enable_x64(False):
        program = ControlProgram(initial, step, 2, sizes={"on": 2})
        key = jax.random.key(0)
        fit = svi.fit(program, key, 30, guide=small(program, key), **WAY)
        kinds = {leaf.dtype for leaf in jax.tree.leaves((fit.guide, fit.losses, fit.elbo))}
        assert kinds == {jnp.dtype("float32")} and np.isfinite(fit.losses).all()
        assert np.isfinite(smc.run(program, key, 50, proposal=fit).log_evidence)


@pytest.mark.slow
def test_a_network_that_is_no_number_does_not_pass_for_the_prior():
    guide = small(lottery(), features={"s": lambda s: jnp.nan * s})
    fit = svi.fit(lottery(), KEY, 2, guide=guide, **WAY)
    assert not np.isfinite(fit.losses).any() and not np.isfinite(fit.elbo) and not fit.converged
    assert np.isnan(jax.jit(lambda s: fit.policy["a"](s=s).log_prob(1))(0))


WRONG = {
    "no program": (lambda: svi.networks(gallery.lottery(), KEY), TypeError, "takes a ControlProgram first.*got MDP"),
    "no key": (lambda: svi.networks(lottery(), 3), TypeError, "key must be a JAX random key"),
    "no width": (lambda: svi.networks(lottery(), KEY, width=0), ValueError, "width must be at least 1"),
    "no layers": (lambda: svi.networks(lottery(), KEY, depth=0), ValueError, "depth must be at least 1"),
    "features of nothing": (lambda: small(lottery(), features={"z": abs}), ValueError, r"names \['z'\]; the variables"),
    "no feature": (lambda: small(lottery(), features={"s": 3}), TypeError, r"features\['s'\] must be a function of s"),
    "another program": (
        lambda: svi.fit(numbers(5), KEY, guide=small(numbers(4)), **WAY),
        ValueError,
        r"guide\['a'\] was made for another program",
    ),
    "other actions": (
        lambda: svi.fit(numbers(5), KEY, guide=small(models.single_agent(gallery.slippery_grid(), 1)), **WAY),
        ValueError,
        r"guide\['a'\] was made for another program",
    ),
    "a missing variable": (
        lambda: barely_fitted().policy["push"](x=jnp.zeros(2), side=1),
        TypeError,
        r"policy\['push'\] takes \['x', 'on', 'side', 't'\] by name; \['on'\] are missing",
    ),
    "many at once": (
        lambda: barely_fitted().policy["push"](x=jnp.zeros((5, 2)), on=1, side=1),
        ValueError,
        r"'x' of policy\['push'\] has shape \(5, 2\); it must be \(2,\). Use jax.vmap",
    ),
    "an exact engine": (lambda: exact.solve(mixed()), ValueError, "smc.run takes this one, and so does svi.fit"),
    "a function where arrays are": (
        lambda: exact.elbo(lottery(), {"a": abs}),
        TypeError,
        r"policy\['a'\] is a function, as fits of networks have.*smc.run",
    ),
    "a function where episodes are": (
        lambda: execution.roll_out(lottery(), KEY, {"a": lambda x: x}, 10),
        ValueError,
        r"policy\['a'\] takes \['x'\]; it may take \['s', 't'\]",
    ),
    "a number where a law is": (
        lambda: execution.roll_out(lottery(), KEY, {"a": lambda s: s}, 10),
        TypeError,
        r"policy\['a'\] returned .*; it must return a NumPyro distribution",
    ),
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=SLOW if case in ("a missing variable", "many at once") else ()) for case in WRONG]
)
def test_what_does_not_fit_is_named(case, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    call, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        call()
