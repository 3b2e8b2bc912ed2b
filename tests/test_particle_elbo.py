"""Variational SMC: its bound and gradients against enumeration, its limits, and guides of tables under it."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpyro.distributions import Categorical, Normal
from oracles import particle_bound as oracle
from programs_more import PAIRS

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact, smc, svi
from rlinf_ppl.inference.fitting import guides
from rlinf_ppl.program import read
from rlinf_ppl.tasks import MDP, gallery

KEY = jax.random.key(0)
SLOW = pytest.mark.slow


def arrays(states=2, actions=2, seed=3, stakes=1.0):
    rng = np.random.default_rng(seed)
    return (
        rng.dirichlet(np.ones(states)),
        rng.dirichlet(np.ones(actions), states),
        rng.dirichlet(np.ones(states), (states, actions)),
        stakes * rng.normal(size=(states, actions)),
    )


def control(horizon, task=None, **options):
    initial, prior, transition, reward = task or arrays()
    return models.single_agent(MDP(transition, reward, initial), horizon, prior=prior, **options)


@cache
def estimates(loss, horizon, repeats, stakes=1.0, spread=8.0):
    """Logits some way from the prior, and many estimates there of a loss's value and gradient."""
    program = control(horizon, arrays(stakes=stakes))
    target = loss.read(program)
    theta = {"a": spread * loss.start(target, KEY)["a"]}
    one = jax.jit(lambda key: jax.value_and_grad(lambda theta: loss.estimate(target, theta, key))(theta))
    values, slopes = jax.lax.map(one, jax.random.split(jax.random.key(1), repeats), batch_size=50)
    return program, theta, np.asarray(values), np.asarray(slopes["a"])


def z_scores(samples, expected):
    error = samples.std(0) / np.sqrt(len(samples))
    return np.abs(samples.mean(0) - expected) / np.maximum(error, 1e-12)


def decaying(steps):
    return optax.adam(optax.cosine_decay_schedule(0.1, steps))


@pytest.mark.parametrize("horizon", [3, pytest.param(10, marks=SLOW), pytest.param(50, marks=SLOW)])
def test_one_particle_has_the_elbo_and_its_gradient(horizon):
    program, theta, values, slopes = estimates(svi.ParticleELBO(20), horizon, 500)
    chain = read(program)
    elbo, gradient = jax.value_and_grad(lambda theta: guides.bound(chain, theta))(theta)
    assert z_scores(values, float(elbo)) < 4
    assert z_scores(slopes, np.asarray(gradient["a"])).max() < 4


@pytest.mark.slow
@pytest.mark.parametrize("term", [False, True])
def test_two_particles_have_the_bound_and_the_gradients_of_an_enumeration(term):
    """Over 100,000 runs the two gradients are told apart: each meets its own oracle, and not the other one's."""
    stakes = 3.0
    _, theta, values, slopes = estimates(svi.ParticleELBO(100, 2, resampling_term=term), 2, 1000, stakes)
    task, at = arrays(stakes=stakes), np.asarray(theta["a"])
    assert z_scores(values, oracle.expected_log_evidence(task, at, at)) < 4
    own, other = (oracle.gradient(task, at, with_term) for with_term in (term, not term))
    assert z_scores(slopes, own).max() < 4 < 6 < z_scores(slopes, other).max()


@pytest.mark.slow
def test_the_bound_rises_with_the_particles_and_stays_below_the_evidence():
    program, theta = control(4), None
    found = []
    for particles in (1, 4, 64):
        loss = svi.ParticleELBO(400, particles)
        target = loss.read(program)
        theta = loss.start(target, KEY) if theta is None else theta
        found.append(float(jax.jit(loss.estimate)(target, theta, KEY)))
    evidence = float(exact.condition(program).log_evidence)
    assert found[0] < found[1] < found[2] < evidence + 0.01 and evidence - found[2] < 0.05


def first_action(program, fit, particles):
    """How often a trajectory that is drawn from the weighted particles takes each action at the first state."""

    def one(key):
        run = smc.run(program, key, particles, proposal=fit, threshold=1.0)
        return run.weights @ jax.nn.one_hot(run.trajectories["a"][:, 0], 2)

    return np.asarray(jax.lax.map(one, jax.random.split(KEY, 4000), batch_size=100).mean(0))


@pytest.mark.slow
def test_on_the_lottery_the_answer_goes_from_the_soft_policy_to_the_optimistic_one():
    """With one particle the answer of `solve`; the more particles, the nearer to that of `condition`.

    KL of the first action from its posterior is at most that of the trajectories, so at most log p(O) - L_K.
    """
    program = models.single_agent(gallery.lottery(), 2)
    soft, optimistic = exact.solve(program), exact.condition(program)
    posterior = np.asarray(optimistic.policy["a"])[0, 0]
    away = []
    for particles in (1, 4, 32):
        loss = svi.ParticleELBO(200, particles)
        fit = svi.fit(program, KEY, 600, loss=loss, optimizer=decaying(600), tolerance=-1.0)
        q = first_action(program, fit, particles)
        assert (q * np.log(q / posterior)).sum() < float(optimistic.log_evidence - fit.elbo) + 0.05
        away.append(np.abs(q - posterior).max())
        if particles == 1:
            np.testing.assert_allclose(q, np.asarray(soft.policy["a"])[0, 0], atol=0.03)
    assert away[0] > 0.4 > away[1] > away[2] and away[2] < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dice", "tempered", "discounted_final", "zeros"])
def test_one_particle_finds_the_elbo_of_any_finite_program(name):
    """At the prior and at a tilted guide, discounts, last states and inverse temperatures included."""
    program = PAIRS[name].control()
    loss = svi.ParticleELBO(4000)
    target = loss.read(program)
    chain = read(program)
    for spread in (0.0, 10.0):
        theta = {name: spread * logits for name, logits in loss.start(target, KEY).items()}
        runs = jax.lax.map(lambda key, theta=theta: loss.estimate(target, theta, key), jax.random.split(KEY, 20))
        assert z_scores(np.asarray(runs), float(guides.bound(chain, theta))) < 4.5


@pytest.mark.slow
def test_a_fit_by_trajectories_finds_the_closed_form_and_goes_on_unbroken(tmp_path):
    # Longer steps leave a KL of about .01 by their noise alone.
    program, options = control(3), {"loss": svi.ParticleELBO(50), "optimizer": optax.adam(0.02)}
    unbroken = svi.fit(program, KEY, 1200, **options)
    broken = svi.fit(program, KEY, 130, **options)
    svi.save(broken, tmp_path / "fit.npz")
    resumed = svi.load(tmp_path / "fit.npz", program, **options).resume(1070)
    np.testing.assert_array_equal(resumed.losses, unbroken.losses)
    np.testing.assert_array_equal(resumed.policy["a"], unbroken.policy["a"])
    solution = exact.solve(program)
    assert float(exact.kl(program, unbroken.policy, solution.policy)) < 0.01
    assert abs(float(unbroken.elbo - solution.elbo)) < 0.1
    # The verdict takes a window of losses; 1,200 steps are one window and two looks.
    assert unbroken.converged and not broken.converged


@pytest.mark.slow
def test_fits_of_other_losses_can_be_gone_on_with():
    program = control(3)
    exactly = svi.fit(program, KEY)
    fit = svi.fit(program, KEY, 1, guide=exactly.guide, loss=svi.ParticleELBO(10, 4), optimizer=optax.sgd(0.0))
    np.testing.assert_allclose(fit.policy["a"], exactly.policy["a"], rtol=1e-12)
    again = svi.fit(program, KEY, 10, guide=fit.guide)
    assert again.converged and len(again.losses) == 1


@pytest.mark.slow
def test_a_decision_that_minimises_descends():
    def step(reward, s):
        a = decide("a", Categorical(probs=jnp.full(2, 0.5)), inverse_temperature=-1.5)
        optimality(reward[s, a])
        return {"s": s}

    def initial(reward):
        return {"s": jnp.asarray(0)}

    program = ControlProgram(initial, step, 2, args=(arrays()[3],), sizes={"s": 2})
    fit = svi.fit(program, KEY, 600, loss=svi.ParticleELBO(200), optimizer=decaying(600), tolerance=-1.0)
    np.testing.assert_allclose(fit.policy["a"][:, 0], exact.solve(program).policy["a"][:, 0], atol=0.03)
    assert fit.losses[-50:].mean() > fit.losses[:50].mean()


def mixed(horizon=3):
    """A coin beside a real number: nothing exact reads it."""

    def initial():
        return {"x": jnp.zeros(())}

    def step(x):
        side = decide("side", Categorical(probs=jnp.full(2, 0.5)))
        push = decide("push", Normal(0.0, 1.0))
        optimality(-((x + push - 2.0 * side + 1.0) ** 2))
        return {"x": x + push}

    return ControlProgram(initial, step, horizon)


WRONG = {
    "tables of a network": (
        lambda: svi.fit(mixed(), KEY, loss=svi.ParticleELBO(10), optimizer=optax.sgd(0.1)),
        ValueError,
        r"\['side', 'push'\] are real numbers or depend on some.*svi.networks",
    ),
    "networks by tables": (
        lambda: svi.fit(control(2), KEY, guide=svi.networks(control(2), KEY)),
        TypeError,
        "fits tables: guide must be a dict of logits",
    ),
    "another shape": (
        lambda: svi.fit(control(2), KEY, guide={"a": jnp.zeros((3, 2, 2))}),
        ValueError,
        r"guide\['a'\] has shape \(3, 2, 2\); it must be \(2, 2, 2\)",
    ),
    "another shape of tables under particles": (
        lambda: svi.fit(
            control(2), KEY, guide={"a": jnp.zeros((3, 2, 2))}, loss=svi.ParticleELBO(2), optimizer=optax.sgd(0.1)
        ),
        ValueError,
        r"guide\['a'\] has shape \(3, 2, 2\)",
    ),
    "no dictionary": (
        lambda: svi.fit(control(2), KEY, guide=3, loss=svi.ParticleELBO(2), optimizer=optax.sgd(0.1)),
        TypeError,
        "guide must have a function for each of",
    ),
    "no optimizer": (lambda: svi.fit(control(2), KEY, loss=svi.ParticleELBO(2)), ValueError, "goes with an optimizer"),
    "no end": (
        lambda: svi.fit(control(None, discount=0.9), KEY, loss=svi.ParticleELBO(2), optimizer=optax.sgd(0.1)),
        ValueError,
        "program.unroll",
    ),
    "no particles": (lambda: svi.ParticleELBO(10, 0), ValueError, "num_particles must be at least 1"),
    "no runs": (lambda: svi.ParticleELBO(0), ValueError, "num_runs must be at least 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_together_is_named(case):
    call, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        call()
