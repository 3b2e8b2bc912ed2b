"""The same losses in NumPyro's own SVI: in nats, unbiased, and refused where they cannot be right."""

from functools import cache

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import numpyro
import optax
import pytest
from numpyro import handlers
from numpyro.distributions import Categorical, Normal
from numpyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from oracles import answers
from programs_more import PAIRS, listed

from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.inference import exact, svi
from rlinf_ppl.inference.fitting import guides
from rlinf_ppl.inference.fitting.updates import NATURAL
from rlinf_ppl.program import read

KEY = jax.random.key(0)
NAMES = ["tempered", "discounted_final", "zeros"]


@pytest.fixture
def unchecked_annotations():
    """As users run it: the annotations do not raise first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@cache
def control(name):
    return PAIRS[name].control()


def parameters(program, spread=5.0):
    logits = guides.initial_logits(read(program), KEY)
    return {f"{name}_logits": spread * theta for name, theta in logits.items()}


def policy(program, params):
    logits = {name: params[f"{name}_logits"] for name in program.scopes}
    return NATURAL.loss.summary(read(program), logits, KEY)[0]


def estimates(loss, program, params, repeats):
    one = jax.value_and_grad(lambda params, key: loss.loss(key, params, program.model, program.guide))
    many = jax.jit(lambda params, keys: jax.lax.map(lambda key: one(params, key), keys))
    return many(params, jax.random.split(jax.random.key(1), repeats))


def z_scores(samples, truth):
    samples = np.asarray(samples)
    error = np.maximum(samples.std(0) / np.sqrt(len(samples)), 1e-12)
    return (samples.mean(0) - np.asarray(truth)) / error


@pytest.mark.parametrize("name", NAMES)
def test_the_exact_loss_is_the_mean_over_every_trajectory_in_nats(name):
    program, every = control(name), listed(name)
    tau = PAIRS[name].truth.decisions[0].inverse_temperature
    params = parameters(program)
    q = {decision: np.asarray(array) for decision, array in policy(program, params).items()}
    expected = tau * answers.elbo(every, q, program.scopes)
    loss = svi.ExactELBO().loss(KEY, params, program.model, program.guide)
    assert float(loss) == pytest.approx(-float(expected), rel=1e-10)


@pytest.mark.parametrize("loss", [svi.SampledELBO(50), svi.ScoreFunctionELBO(50)], ids=repr)
def test_the_sampled_losses_are_unbiased_for_the_exact_one(loss):
    program = control("tempered")
    params = parameters(program)
    exact_loss = jax.value_and_grad(lambda p: svi.ExactELBO().loss(KEY, p, program.model, program.guide))
    truth, gradient = exact_loss(params)
    values, gradients = estimates(loss, program, params, 1000)
    assert abs(z_scores(values, truth)) < 4
    for name in params:
        assert np.abs(z_scores(gradients[name], gradient[name])).max() < 4


@pytest.mark.slow
def test_numpyros_own_unbiased_loss_agrees():
    program = control("tempered")
    params = parameters(program)
    truth = svi.ExactELBO().loss(KEY, params, program.model, program.guide)
    values, _ = estimates(TraceGraph_ELBO(num_particles=50), program, params, 100)
    assert abs(z_scores(values, truth)) < 4


@pytest.mark.parametrize("loss", [svi.ExactELBO(), svi.SampledELBO(20)], ids=repr)
def test_numpyros_svi_finds_the_closed_form(loss):
    program = control("zeros")
    fit = SVI(program.model, program.guide, optax.adam(0.1), loss).run(KEY, 400, progress_bar=False)
    best = exact.solve(program)
    found = policy(program, fit.params)
    assert float(exact.kl(program, found, best.policy)) < 1e-3
    assert float(fit.losses[-1]) == pytest.approx(-float(best.elbo), abs=1e-3)


@pytest.mark.slow
def test_numpyros_svi_comes_near_it_by_trajectories_alone():
    """As near as a score function's noise at a constant rate lets it come."""
    program = control("zeros")
    fit = SVI(program.model, program.guide, optax.adam(0.03), svi.ParticleELBO(200)).run(KEY, 800, progress_bar=False)
    best = exact.solve(program)
    assert float(exact.kl(program, policy(program, fit.params), best.policy)) < 0.01
    assert float(fit.losses[-200:].mean()) == pytest.approx(-float(best.elbo), abs=0.02)


def test_a_numbers_mistake_is_reported_where_numpyro_is_tracing():
    def step(s):
        a = decide("a", Categorical(probs=jnp.full(2, 0.5)))
        optimality(jnp.where(a == s, jnp.nan, 1.0))
        return {"s": a}

    program = ControlProgram(lambda: {"s": numpyro.sample("s", Categorical(probs=jnp.full(2, 0.5)))}, step, 2)
    with pytest.raises(ValueError, match="optimality.*is nan at s = 0, a = 0"):
        SVI(program.model, program.guide, optax.adam(0.1), svi.ExactELBO()).run(KEY, 2, progress_bar=False)


@pytest.mark.parametrize(
    "loss", [Trace_ELBO(), TraceMeanField_ELBO(), RenyiELBO()], ids=lambda loss: type(loss).__name__
)
def test_losses_without_a_signal_are_refused(loss):
    with pytest.raises(TypeError, match=r"carries no signal for the discrete decisions \['a'\].*svi.ExactELBO"):
        svi.in_numpyro(control("zeros"), optax.adam(0.1), loss)


def test_losses_with_a_signal_are_taken():
    program = control("zeros")
    assert svi.in_numpyro(program, optax.adam(0.1)).loss == svi.ExactELBO()
    assert isinstance(svi.in_numpyro(program, optax.adam(0.1), TraceGraph_ELBO()), SVI)


def gaussian():
    def step(x):
        u = decide("u", Normal(0.0, 1.0))
        optimality(-(x**2) - u**2)
        return {"x": numpyro.sample("x_next", Normal(x + u, 0.1))}

    return ControlProgram(lambda: {"x": numpyro.sample("x", Normal(0.0, 1.0))}, step, 2)


def test_a_gaussian_guide_has_numpyros_own_losses():
    program = gaussian()
    assert isinstance(svi.in_numpyro(program, optax.adam(0.1), Trace_ELBO()), SVI)
    with pytest.raises(ValueError, match="ExactELBO's parameters are for programs over finitely many values"):
        svi.ExactELBO().loss(KEY, {}, program.model, program.guide)


WRONG = {
    "a handler around the model": lambda p: (handlers.seed(p.model, 0), p.guide),
    "another program's guide": lambda p: (p.model, control("tempered").guide),
    "swapped": lambda p: (p.guide, p.model),
    "functions": lambda p: (lambda: None, lambda: None),
}


@pytest.mark.parametrize("case", WRONG)
def test_the_loss_says_how_it_finds_the_program(case):
    model, guide = WRONG[case](control("zeros"))
    with pytest.raises(TypeError, match="exactly prog.model and prog.guide of one ControlProgram"):
        svi.ExactELBO().loss(KEY, {}, model, guide)


def test_different_inverse_temperatures_have_no_loss_in_nats():
    program = control("two_temperatures")
    with pytest.raises(ValueError, match="no joint model"):
        svi.ExactELBO().loss(KEY, parameters(program), program.model, program.guide)


def test_action_values_are_no_loss_for_numpyro():
    program = control("zeros")
    with pytest.raises(NotImplementedError, match="ActorCritic.* is no loss for NumPyro's SVI"):
        svi.ActorCritic(4, 4, 8).loss(KEY, parameters(program), program.model, program.guide)


@pytest.mark.usefixtures("unchecked_annotations")
def test_a_loss_of_numpyro_is_not_for_this_engines_fit():
    with pytest.raises(TypeError, match="loss must be svi.ExactELBO.*got Trace_ELBO.*NumPyro's own losses go with"):
        svi.fit(control("zeros"), KEY, loss=Trace_ELBO(), optimizer=optax.adam(0.1))
