"""What networks are fitted to, against closed forms and numerical integration; fits as proposals of particles."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from numpyro.distributions import Categorical, Normal
from scipy.stats import norm
from test_smc_continuous import unbiased

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact, smc, svi
from rlinf_ppl.tasks import LinearQuadratic, MountainHike, gallery

KEY = jax.random.key(0)
KEYS = jax.random.split(jax.random.key(1), 400)
pytestmark = pytest.mark.slow


def fitted(program, steps, rate=1e-2, runs=100, width=32, **features):
    return svi.fit(
        program,
        KEY,
        steps,
        guide=svi.networks(program, KEY, width=width, **features),
        loss=svi.ParticleELBO(runs),
        optimizer=optax.chain(optax.clip_by_global_norm(10.0), optax.adam(optax.cosine_decay_schedule(rate, steps))),
        tolerance=-1.0,
    )


@cache
def linear():
    """A drifting point that is to be at (1, -1), with little left to luck, and much to the prior's disadvantage."""
    task = LinearQuadratic(
        A=np.array([[0.9, 0.3], [0.0, 0.8]]),
        B=np.array([[0.2], [1.0]]),
        c=np.array([0.1, 0.0]),
        noise=0.01 * np.eye(2),
        state_reward=-np.eye(2),
        action_reward=-0.1 * np.eye(1),
        goal=np.array([1.0, -1.0]),
        initial_mean=np.zeros(2),
        initial_cov=0.05 * np.eye(2),
    )
    return models.linear_gaussian(task, 4, inverse_temperature=0.7)


@cache
def steered():
    return fitted(linear(), 800)


def test_a_linear_gaussian_program_is_steered_as_in_closed_form():
    solution, prior = exact.solve(linear()), exact.prior_policy(linear())
    optimum, start = float(solution.elbo), float(exact.elbo(linear(), prior))
    assert float(steered().elbo) == pytest.approx(optimum, abs=0.05 * (optimum - start))
    truth, where = solution.policy["u"], exact.marginals(linear(), solution.policy).state
    policy = steered().policy["u"]
    for t in range(4):
        spread = np.sqrt(np.diag(where.cov[t]))
        for away in (-1.0, 0.0, 1.0):
            x = np.asarray(where.mean[t]) + away * spread
            found = policy(x=x, t=t)
            std = float(np.sqrt(truth.cov[t, 0, 0]))
            expected = float((truth.gain[t] @ x + truth.offset[t])[0])
            assert float(found.mean[0]) == pytest.approx(expected, abs=0.15 * std)
            assert float(found.scale_tril[0, 0]) == pytest.approx(std, rel=0.1)


GRID = gallery.slippery_grid()
PLACES = {"indicators": {}, "rows and columns": {"features": {"s": lambda s: jnp.stack([s // 7, s % 7]) / 3.0 - 1.0}}}


@cache
def walking(features):
    program = models.single_agent(GRID, 8, beta=2.0)
    return program, fitted(program, 500, **PLACES[features])


@pytest.mark.parametrize("features", PLACES)
def test_a_grid_is_walked_nearly_as_well_as_in_closed_form(features):
    """The ELBO of the networks' table is exact; of what is to be gained over the prior they gain nearly all."""
    program, fit = walking(features)
    times, places, moves = jnp.arange(8), jnp.arange(GRID.num_states), jnp.arange(4)
    rows = jax.vmap(jax.vmap(lambda t, s: fit.policy["a"](s=s, t=t).log_prob(moves), (None, 0)), (0, None))
    found = float(exact.elbo(program, {"a": jnp.exp(rows(times, places))}))
    optimum, start = exact.solve(program).elbo, exact.elbo(program, exact.prior_policy(program))
    assert optimum - found < (0.1 if features == "indicators" else 0.2) * (optimum - start)
    assert float(fit.elbo) == pytest.approx(found, abs=0.25)


def unequal():
    """A side that is chosen at a place, and a push that sees it, each with a price."""

    def step(x):
        side = decide("side", Categorical(probs=jnp.array([0.7, 0.3])))
        push = decide("push", Normal(0.5, 0.8))
        optimality(-((x + push - 2.0 * side + 0.5) ** 2) - 0.3 * side)
        return {"x": x + push}

    return ControlProgram(lambda: {"x": numpyro.sample("x", Normal(0.0, 1.0))}, step, 1)


def integrated(x):
    """Each side's probability, and the mean and standard deviation of the push, by sums over a fine grid."""
    push = np.linspace(-8, 8, 4001)
    worth = np.array([norm.pdf(push, 0.5, 0.8) * np.exp(-((x + push - 2.0 * s + 0.5) ** 2) - 0.3 * s) for s in (0, 1)])
    total = worth.sum(1)
    mean = worth @ push / total
    sides = np.array([0.7, 0.3]) * total
    return (
        sides / sides.sum(),
        mean,
        np.sqrt(worth @ push**2 / total - mean**2),
        np.log(sides.sum() * (push[1] - push[0])),
    )


def test_a_finite_decision_beside_a_real_one_finds_what_integration_finds():
    fit = fitted(unequal(), 800, runs=200)
    for x in (-1.5, 0.0, 1.0):
        sides, mean, std, _ = integrated(x)
        np.testing.assert_allclose(np.exp(fit.policy["side"](x=x).log_prob(jnp.arange(2))), sides, atol=0.03)
        # A side that is hardly ever chosen is hardly ever learned from.
        for side in np.flatnonzero(sides > 0.2):
            push = fit.policy["push"](x=x, side=side)
            assert float(push.mean) == pytest.approx(mean[side], abs=0.06)
            assert float(push.scale) == pytest.approx(std[side], rel=0.06)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    optimum = weights @ np.array([integrated(x)[3] for x in nodes]) / weights.sum()
    assert optimum - 0.05 < float(fit.elbo) < optimum + 0.05


@cache
def climbing():
    """Along a chain on which nothing slips."""
    program = models.single_agent(gallery.chain(6, slip=0.0), 7, beta=2.0)
    return program, fitted(program, 500)


PROPOSALS = {"linear-Gaussian": lambda: (linear(), steered()), "a chain": climbing}


@pytest.mark.parametrize("name", PROPOSALS)
def test_as_a_proposal_a_fit_is_unbiased_for_the_evidence_and_quieter_than_the_prior(name):
    """Where little is left to luck: what a soft policy does not hope for, it hardly ever proposes."""
    program, fit = PROPOSALS[name]()
    expected = float(exact.condition(program).log_evidence)
    spread = {}
    for aid, proposal in (("fit", fit), ("prior", None)):
        found = jax.lax.map(
            lambda key, given=proposal: smc.run(program, key, 32, proposal=given).log_evidence, KEYS, batch_size=50
        )
        assert unbiased(found, expected), aid
        spread[aid] = np.exp(np.asarray(found) - expected).std()
    assert spread["fit"] < 0.7 * spread["prior"]


@pytest.mark.timeout(600)
def test_mountain_hike_is_climbed():
    """The mean return of Igl et al.'s best walkers, who do not see where they are, is below -75."""
    task = MountainHike()
    program = models.mountain_hike(task, inverse_temperature=10.0)
    fit = fitted(program, 1500, 3e-3, 128, 64)
    paths = smc.run(program, jax.random.key(1), 4000, proposal=fit, threshold=0.0).trajectories
    heights = jax.vmap(jax.vmap(task.reward))(paths["p"][:, 1:])
    returns = np.asarray(heights).sum(1) - task.action_cost * np.linalg.norm(paths["a"], axis=-1).sum(1)
    assert returns.mean() > -75.0
