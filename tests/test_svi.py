"""The exact-ELBO fit: it reaches the closed form everywhere that the prior allows, and says when it has."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from numpyro.distributions import Categorical
from programs_more import PAIRS
from selection import quick

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact, svi
from rlinf_ppl.inference.fitting import guides
from rlinf_ppl.inference.fitting.losses import VERDICT_EVERY
from rlinf_ppl.program import read
from rlinf_ppl.tasks import MDP, gallery

KEY = jax.random.key(0)
GALLERY = {
    "lottery": lambda: models.single_agent(gallery.lottery(), 3),
    "slippery_grid": lambda: models.single_agent(gallery.slippery_grid(), 20, beta=2.0),
    "chain": lambda: models.single_agent(gallery.chain(6), 12, beta=3.0, discount=0.95),
}
GYMNASIUM = {"FrozenLake-v1": 100, "CliffWalking-v1": 50, "Taxi-v4": 50}


@cache
def control(name):
    return PAIRS[name].control()


def largest_difference(policy, other):
    return max(float(jnp.abs(policy[name] - other[name]).max()) for name in policy)


@pytest.mark.parametrize("name", quick(list(PAIRS)[::3], PAIRS))
def test_natural_gradient_finds_the_closed_form(name):
    program = control(name)
    fit, best = svi.fit(program, KEY), exact.solve(program)
    assert fit.converged and float(fit.residual) <= 1e-6
    assert largest_difference(fit.policy, best.policy) < 1e-5
    assert float(fit.elbo) == pytest.approx(float(best.elbo), abs=1e-8)
    assert float(exact.kl(program, fit.policy, best.policy)) < 1e-8
    assert len(fit.losses) <= program.horizon * len(program.scopes) + 2


@pytest.mark.parametrize("name", GALLERY)
def test_natural_gradient_on_the_gallery(name):
    program = GALLERY[name]()
    fit = svi.fit(program, KEY)
    assert fit.converged
    assert largest_difference(fit.policy, exact.solve(program).policy) < 1e-3


@pytest.mark.parametrize("name", GYMNASIUM)
def test_natural_gradient_on_gymnasiums_tables_in_every_state(name):
    program = models.single_agent(MDP.from_gymnasium(name), GYMNASIUM[name], beta=1.0)
    fit = svi.fit(program, KEY)
    assert fit.converged
    assert largest_difference(fit.policy, exact.solve(program).policy) < 1e-3


@pytest.mark.parametrize("name", GALLERY)
def test_adam_reaches_the_bound(name):
    program = GALLERY[name]()
    fit, best = svi.fit(program, KEY, 5000, optimizer=optax.adam(0.1)), exact.solve(program)
    assert float(exact.kl(program, fit.policy, best.policy)) < 1e-4


def test_adam_stops_once_its_policy_meets_no_more_changes():
    program = GALLERY["chain"]()
    fit, best = svi.fit(program, KEY, 5000, optimizer=optax.adam(0.1)), exact.solve(program)
    assert fit.converged and float(fit.residual) <= 1e-5
    assert len(fit.losses) < 1000 and len(fit.losses) % VERDICT_EVERY == 0
    # Where the policy goes everywhere that matters, the verdict is the KL that is left.
    assert float(fit.residual) == pytest.approx(float(exact.kl(program, fit.policy, best.policy)), rel=0.01)
    assert float(fit.residual) == pytest.approx(float(best.elbo - fit.elbo), rel=0.01)


def two_players(tau, other_tau):
    """A zero-sum game: one maximises, the other, with a negative inverse temperature, minimises."""

    def step(s):
        a = decide("a", Categorical(probs=jnp.full(3, 1 / 3)), tau)
        b = decide("b", Categorical(probs=jnp.array([0.5, 0.3, 0.2])), other_tau)
        optimality(jnp.array([[2.0, 3.0, 3.0], [1.0, 4.0, 0.0], [1.0, 0.0, 5.0]])[a, b] + 0.1 * s)
        return {"s": numpyro.sample("s_next", Categorical(probs=jnp.eye(3)[b]))}

    return ControlProgram(lambda: {"s": numpyro.sample("s", Categorical(probs=jnp.full(3, 1 / 3)))}, step, 3)


@pytest.mark.parametrize("taus", [(1.0, -1.5), (0.0, 2.0), (0.7, 0.0)])
@pytest.mark.parametrize("optimizer", [None, optax.adam(0.1)])
def test_minimisers_and_decisions_that_keep_their_prior(taus, optimizer):
    program = two_players(*taus)
    fit, best = svi.fit(program, KEY, 5000, optimizer=optimizer), exact.solve(program)
    assert fit.converged
    assert largest_difference(fit.policy, best.policy) < 5e-3
    assert float(exact.kl(program, fit.policy, best.policy)) < 1e-4
    for name, tau in zip("ab", taus, strict=True):
        if tau == 0:
            np.testing.assert_allclose(fit.policy[name], exact.prior_policy(program)[name], rtol=1e-12)


def test_every_sweep_improves_the_bound():
    fit = svi.fit(GALLERY["slippery_grid"](), KEY, tolerance=0.0)
    assert len(fit.losses) > 3
    assert (jnp.diff(fit.losses) <= 1e-12).all()


def test_small_steps_get_there_too():
    program = GALLERY["lottery"]()
    fit = svi.fit(program, KEY, step_size=0.3)
    assert fit.converged and 10 < len(fit.losses) < 100
    assert largest_difference(fit.policy, exact.solve(program).policy) < 1e-5


def test_too_few_steps_are_reported():
    fit = svi.fit(GALLERY["slippery_grid"](), KEY, 2)
    assert not fit.converged
    assert len(fit.losses) == 2
    assert jnp.isfinite(fit.elbo)


def test_losses_are_the_negative_bound_before_each_step():
    program = GALLERY["lottery"]()
    start = guides.bound(read(program), guides.initial_logits(read(program), jax.random.split(KEY)[0]))
    fit = svi.fit(program, KEY, 120, optimizer=optax.adam(0.003), tolerance=0.0)
    assert len(fit.losses) == 120
    assert float(fit.losses[0]) == pytest.approx(-float(start), rel=1e-12)
    assert float(fit.elbo) > -float(fit.losses[-1]) > -float(fit.losses[0])


def test_same_key_same_fit():
    program = GALLERY["lottery"]()
    first, again, other = (svi.fit(program, jax.random.key(k), 1) for k in (1, 1, 2))
    np.testing.assert_array_equal(first.losses, again.losses)
    assert float(first.losses[0]) != float(other.losses[0])


@pytest.mark.slow
def test_gradient_of_the_bound_is_finite_where_the_prior_is_zero():
    program = control("zeros")
    chain = read(program)
    logits = guides.initial_logits(chain, KEY)
    found = jax.grad(lambda logits: guides.bound(chain, logits))(logits)
    eps = 1e-6
    for name, gradient in found.items():
        assert jnp.isfinite(gradient).all()
        for index in np.ndindex(2, *gradient.shape[1:]):
            up, down = ({**logits, name: logits[name].at[index].add(sign * eps)} for sign in (1, -1))
            difference = (guides.bound(chain, up) - guides.bound(chain, down)) / (2 * eps)
            np.testing.assert_allclose(gradient[index], difference, rtol=1e-6, atol=1e-8)


def test_a_progress_bar_is_shown_on_request(capsys):
    svi.fit(GALLERY["lottery"](), KEY, progress=True)
    assert "svi" in capsys.readouterr().err
    fit = svi.fit(GALLERY["lottery"](), KEY, 1)
    assert capsys.readouterr().err == "" and not fit.converged
    fit.resume(2, progress=True)
    assert "svi" in capsys.readouterr().err
