"""Every engine on programs that it has never seen, against enumeration, and one with real numbers by quadrature."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from generality_programs import NEW, room, room_by_quadrature
from numpyro.infer.util import log_density
from oracles import answers, recursions
from oracles.trajectories import enumerate_trajectories

from rlinf_ppl.inference import exact, smc, svi

KEY = jax.random.key(0)
SLOW = pytest.mark.slow
JOINT = [name for name, pair in NEW.items() if pair.joint]


def quick(names, *some):
    """All of them; those not among some are slow."""
    return [pytest.param(name, marks=() if name in some else SLOW) for name in names]


@cache
def control(name):
    return NEW[name].control()


@cache
def listed(name):
    return enumerate_trajectories(NEW[name].truth)


@cache
def solution(name):
    return exact.solve(control(name))


@cache
def posterior(name):
    return exact.condition(control(name))


def agree(found, truth):
    np.testing.assert_allclose(np.asarray(found), truth, rtol=1e-10, atol=1e-11)


def along(name, policy):
    return answers.path_probability(listed(name), answers.policy_along(listed(name), policy, NEW[name].scopes))


@pytest.mark.parametrize("name", NEW)
def test_solve_finds_what_each_player_sees_and_the_soft_policy_and_its_elbo(name):
    pair, found = NEW[name], solution(name)
    truth = recursions.backward(pair.truth, recursions.averaged)
    assert control(name).scopes == pair.scopes and found.converged
    agree(found.value, truth.value)
    agree(found.elbo, truth.start)
    for decision, table in recursions.tables(pair.truth, pair.scopes, truth.policy).items():
        seen = ~np.isnan(table)
        agree(np.asarray(found.policy[decision])[seen], table[seen])


@pytest.mark.parametrize("name", NEW)
def test_elbo_and_marginals_of_a_policy(name):
    program, scopes, listing = control(name), NEW[name].scopes, listed(name)
    policy = {
        d: 0.7 * np.asarray(table) + 0.3 * np.asarray(exact.prior_policy(program)[d])
        for d, table in solution(name).policy.items()
    }
    agree(exact.elbo(program, policy), answers.elbo(listing, policy, scopes))
    found, weights = exact.marginals(program, policy), along(name, policy)
    agree(found.state, answers.state_marginals(listing, weights))
    for decision, scope in scopes.items():
        agree(found.decision[decision], answers.decision_marginals(listing, decision, scope, weights))


@pytest.mark.parametrize("name", quick(JOINT, "umbrella", "bandit"))
def test_condition_is_the_posterior(name):
    listing, found = listed(name), posterior(name)
    agree(found.log_evidence, answers.log_evidence(listing))
    marginals, weights = exact.posterior_marginals(control(name)), answers.posterior(listing)[0].sum(0)
    agree(marginals.state, answers.state_marginals(listing, weights))
    for decision, scope in NEW[name].scopes.items():
        seen = answers.reached(listing, decision, scope)
        agree(np.asarray(found.policy[decision])[seen], answers.posterior_policy(listing, decision, scope)[seen])


@pytest.mark.parametrize("name", quick(JOINT, "umbrella", "bandit"))
def test_the_model_has_the_log_density_of_every_trajectory(name):
    """Of three that live to the end: sites by the names that NumPyro gives them."""
    program, listing, truth = control(name), listed(name), NEW[name].truth
    tau, discount = truth.common_inverse_temperature, truth.discount
    for row in np.linspace(0, len(listing.chance) - 1, 3).astype(int):
        at = {n: np.asarray(truth.supports[n])[places[row]] for n, places in listing.position.items()}
        values = {f"init/{site.name}": at[site.name][0] for site in truth.initial}
        values |= {f"t{t}/{site.name}": at[site.name][t] for site in truth.latent for t in range(truth.horizon)}
        if discount < 1:
            values |= {f"t{t}/alive": 1 for t in range(1, truth.horizon)}
        survived = (truth.horizon - (truth.final is None)) * np.log(discount)
        expected = np.log(listing.prior_probability[row]) + tau * listing.log_optimality[row].sum() + survived
        assert float(log_density(program.model, (), {}, values)[0]) == pytest.approx(expected, rel=1e-10)


def test_players_who_differ_have_no_joint_model():
    for wrong in (exact.condition, lambda program: smc.run(program, KEY), lambda program: program.model()):
        with pytest.raises(ValueError, match=r"inverse temperatures of \['a', 'b', 'c'\] differ"):
            wrong(control("three_opponents"))


@pytest.mark.parametrize("name", quick(NEW, "three_opponents", "bandit"))
def test_the_natural_gradient_finds_the_closed_form(name):
    fit, best = svi.fit(control(name), KEY), solution(name)
    assert fit.converged and float(fit.elbo) == pytest.approx(float(best.elbo), abs=1e-8)
    for decision, table in best.policy.items():
        np.testing.assert_allclose(fit.policy[decision], table, atol=1e-5)


@SLOW
@pytest.mark.parametrize("name", NEW)
def test_a_sampled_gradient_finds_the_closed_form_where_it_goes(name):
    program, best = control(name), solution(name)
    fit = svi.fit(program, KEY, 1500, loss=svi.SampledELBO(100), optimizer=optax.adam(0.1))
    assert float(fit.elbo) == pytest.approx(float(best.elbo), abs=2e-3)
    for decision, joint in exact.marginals(program, best.policy).decision.items():
        visited = np.asarray(joint).sum(-1) > 0.02
        off = np.abs(np.asarray(fit.policy[decision]) - best.policy[decision]).max(-1)
        assert off[visited].max() < 0.03


def z_score(ratio):
    return (ratio.mean() - 1) / max(ratio.std() / np.sqrt(len(ratio)), 1e-12)


@pytest.mark.parametrize("particles", quick((1, 4, 64), 4))
@pytest.mark.parametrize("name", quick(JOINT, "umbrella"))
def test_particles_estimate_the_evidence_without_bias(name, particles):
    """One particle's estimate has a long tail: its mean takes many keys."""
    truth, keys = answers.log_evidence(listed(name)), jax.random.split(KEY, {1: 20_000, 4: 2000, 64: 400}[particles])
    found = jax.vmap(lambda key: smc.run(control(name), key, particles).log_evidence)(keys)
    assert abs(z_score(np.exp(np.asarray(found) - truth))) < 4


@pytest.mark.parametrize("name", quick(JOINT, "bandit"))
def test_many_particles_find_the_posterior_policy_where_it_goes(name):
    """Within five binomial standard errors of as many effective particles as come by."""
    listing, run = listed(name), smc.run(control(name), KEY, 20_000)
    weights, alive = answers.posterior(listing)
    for decision, scope in NEW[name].scopes.items():
        expected = answers.posterior_policy(listing, decision, scope)
        living = answers.decision_marginals(listing, decision, scope, weights.T @ alive[:, :-1])
        visited = living.sum(-1, keepdims=True)
        error = np.sqrt(expected * (1 - expected) / np.maximum(0.2 * float(run.ess.min()) * visited, 1e-9))
        off = np.abs(np.asarray(run.policy[decision]) - expected)
        assert (off <= 5 * error + 1e-3)[np.broadcast_to(visited > 0.02, off.shape)].all()


# A real number beside a switch


@pytest.mark.parametrize("particles", quick((1, 64)))
def test_a_program_that_nothing_exact_reads_has_the_evidence_of_a_quadrature(particles):
    with pytest.raises(ValueError, match="finitely many values.*smc.run takes this one"):
        exact.solve(room())
    value, *_ = room_by_quadrature(conditioned=True)
    keys = jax.random.split(KEY, 20_000 if particles == 1 else 400)
    found = jax.vmap(lambda key: smc.run(room(), key, particles).log_evidence)(keys)
    assert abs(z_score(np.exp(np.asarray(found) - 1.5 * value))) < 4


@SLOW
def test_its_trajectories_are_those_of_the_posterior():
    value, policy, grid, start, first = room_by_quadrature(conditioned=True)
    law = start * np.exp(1.5 * (first[:, 0] - value))
    run = smc.run(room(), KEY, 20_000)
    error = 1 / np.sqrt(0.2 * float(run.ess.min()))
    x, heat = (run.trajectories[name][:, 0] for name in ("x", "heat"))
    assert abs(float(run.weights @ x) - law @ grid) < 5 * 0.5 * error
    found = run.weights @ jax.nn.one_hot(heat, 3)
    np.testing.assert_allclose(found, law @ policy[:, 0], atol=5 * 0.5 * float(error))


@SLOW
def test_networks_find_its_soft_policy():
    best, policy, grid, start, _ = room_by_quadrature(conditioned=False)
    guide = svi.networks(room(), KEY, width=32, depth=1)
    schedule = optax.adam(optax.cosine_decay_schedule(0.03, 600))
    fit = svi.fit(room(), KEY, 600, guide=guide, loss=svi.ParticleELBO(200), optimizer=schedule)
    assert float(fit.elbo) == pytest.approx(best, abs=0.1)
    for x in (-0.5, 0.0, 0.5):
        row = np.abs(grid - x).argmin()
        found = fit.policy["heat"](x=jnp.asarray(x), stuck=0, t=0).probs
        np.testing.assert_allclose(found, policy[row, 0], atol=0.06)
