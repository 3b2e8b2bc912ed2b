"""ROMMEO, PR2 and Balancing Q against worked cases, enumeration and an independent optimiser."""

from functools import cache

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from game_programs import AGENT_LEADS, OPPONENT_LEADS, agent_leads, opponent_leads, random_game
from oracles import answers, recursions
from oracles.optimizer import best_reply, maximize_elbo
from oracles.trajectories import enumerate_trajectories
from worked_cases import multi_agent_case

from rlinf_ppl import models
from rlinf_ppl.inference import exact, svi
from rlinf_ppl.tasks import StochasticGame, gallery

KEY = jax.random.key(0)
RTOL = 1e-10
BETA, DISCOUNT, HORIZON = 1.3, 0.9, 3
BETAS = {
    "equal": (1.5, 1.5),
    "a team": (0.7, 2.0),
    "zero-sum": (1.5, -0.8),
    "roles swapped": (-1.1, 0.6),
    "both minimise": (-0.9, -2.2),
}


def close(found, truth, rtol=RTOL):
    np.testing.assert_allclose(np.asarray(found), truth, rtol=rtol, atol=1e-14)


def task(given):
    return StochasticGame(given["P"], given["r"], given["p0"])


# Worked cases


def test_the_worked_case_of_rommeo():
    given, expected, rtol = multi_agent_case("rommeo_stochastic_game")
    priors = given["prior_pi_ab"], given["prior_rho_b"]
    horizon = int(given["T"])
    solution = exact.solve(models.rommeo(task(given), horizon, given["beta"], *priors, given["gamma"]))
    close(solution.value[:-1], expected["V"], rtol)
    close(solution.policy["a"], expected["pi"], rtol)
    close(solution.policy["b"], expected["rho"], rtol)
    close(jnp.einsum("tsb,tsba->tsa", solution.policy["b"], solution.policy["a"]), expected["executed_pi"], rtol)
    assert float(solution.elbo) == pytest.approx(float(expected["elbo"]), rel=rtol)
    undiscounted = models.rommeo(task(given), horizon, given["beta"], *priors)
    assert float(exact.solve(undiscounted).elbo) == pytest.approx(float(expected["undiscounted_elbo"]), rel=rtol)
    evidence = float(exact.condition(undiscounted).log_evidence)
    assert evidence == pytest.approx(float(expected["undiscounted_log_evidence"]), rel=rtol)
    endless = exact.solve(models.rommeo(task(given), None, given["beta"], *priors, given["gamma"]))
    close(endless.value, expected["infinite"]["V"], rtol)
    close(endless.policy["a"], expected["infinite"]["pi"], rtol)
    close(endless.policy["b"], expected["infinite"]["rho"], rtol)


@pytest.mark.parametrize("name", ["pr2_stochastic_game", "pr2_matches_rommeo"])
def test_the_worked_cases_of_pr2(name):
    given, expected, rtol = multi_agent_case(name)
    priors = given["prior_pi_a"], given["prior_rho_ab"]
    solution = exact.solve(models.pr2(task(given), int(given["T"]), given["beta"], *priors, given["gamma"]))
    close(solution.value[:-1], expected["V"], rtol)
    close(solution.policy["a"], expected["pi"], rtol)
    assert float(solution.elbo) == pytest.approx(float(expected["elbo"]), rel=rtol)
    if "joint" in expected:
        close(solution.policy["a"][..., None] * solution.policy["b"], expected["joint"], rtol)
    else:
        close(solution.policy["b"], expected["rho"], rtol)
        endless = exact.solve(models.pr2(task(given), None, given["beta"], *priors, given["gamma"]))
        close(endless.value, expected["infinite"]["V"], rtol)
        close(endless.policy["a"], expected["infinite"]["pi"], rtol)
        close(endless.policy["b"], expected["infinite"]["rho"], rtol)


@pytest.mark.parametrize("name", ["balancing_q_cooperative", "balancing_q_competitive"])
def test_the_worked_cases_of_balancing_q(name):
    given, rows, rtol = multi_agent_case(name)
    leading = given["prior_pi_a"], given["prior_rho_ab"]
    following = given["prior_pi_ab"], given["prior_rho_b"]
    game, horizon, discount = task(given), int(given["T"]), given["gamma"]
    for row in rows:
        betas = row["beta_i"], row["beta_j"]
        programs = {
            "agent_leads": models.balancing_q(game, horizon, *betas, *leading, discount),
            "opponent_leads": models.balancing_q_opponent_leads(game, horizon, *betas, *following, discount),
        }
        for concept, program in programs.items():
            solution, expected = exact.solve(program), row[concept]
            close(solution.value[:-1], expected["V"], rtol)
            close(solution.policy["a"], expected["pi"], rtol)
            close(solution.policy["b"], expected["rho"], rtol)
            assert float(solution.elbo) == pytest.approx(float(expected["objective"]), rel=rtol)
        endless = exact.solve(models.balancing_q(game, None, *betas, *leading, discount))
        assert endless.converged
        close(endless.value, row["agent_leads"]["infinite"]["V"], rtol)
        close(endless.policy["a"], row["agent_leads"]["infinite"]["pi"], rtol)
        close(endless.policy["b"], row["agent_leads"]["infinite"]["rho"], rtol)


def test_the_worked_case_of_the_matrix_game():
    given, expected, rtol = multi_agent_case("matrix_game_R")
    game = gallery.friend_or_foe()
    close(game.reward[0], given["R"])
    for row in expected["rows"]:
        betas = row["beta_i"], row["beta_j"]
        leads = exact.solve(models.balancing_q(game, 1, *betas))
        follows = exact.solve(models.balancing_q_opponent_leads(game, 1, *betas))
        for found, name in (
            (leads.value[0, 0], "V_agent_leads"),
            (leads.policy["a"][0, 0], "pi_agent_leads"),
            (leads.policy["b"][0, 0], "rho_model_given_a"),
            (follows.value[0, 0], "V_opponent_leads"),
            (follows.policy["b"][0, 0], "rho_opponent_leads"),
            (follows.policy["a"][0, 0], "pi_model_given_b"),
        ):
            close(found, row[name], rtol)
        if "rommeo_pr2_joint" in row:
            for solution, axes in (
                (exact.solve(models.rommeo(game, 1, betas[0])), "b,ba->ab"),
                (exact.solve(models.pr2(game, 1, betas[0])), "a,ab->ab"),
            ):
                first, second = (solution.policy[name][0, 0] for name in axes[0] + "ab".replace(axes[0], ""))
                close(jnp.einsum(axes, first, second), row["rommeo_pr2_joint"], rtol)


# Enumeration and an independent optimiser


@cache
def case(name, kind, timed=False, horizon=2):
    """A program, the same as data with its trajectories, and the scopes of its decisions."""
    game = random_game(5, horizon=horizon if timed else None)
    beta, opponent_beta = BETAS[name]
    if kind == "agent leads":
        priors, scopes, data, model = (game.alone, game.opponent_reply), AGENT_LEADS, agent_leads, models.balancing_q
    else:
        priors, scopes, data = (game.reply, game.opponent_alone), OPPONENT_LEADS, opponent_leads
        model = models.balancing_q_opponent_leads
    truth = data(game, *priors, beta, opponent_beta, horizon, DISCOUNT)
    program = model(game.task, horizon, beta, opponent_beta, *priors, DISCOUNT)
    return program, enumerate_trajectories(truth), scopes


@cache
def nats(model, timed=False):
    """ROMMEO or PR2, with the data in which optimality is beta times the reward."""
    game = random_game(6, horizon=HORIZON if timed else None)
    if model is models.pr2:
        priors, scopes, data = (game.alone, game.opponent_reply), AGENT_LEADS, agent_leads
    else:
        priors, scopes, data = (game.reply, game.opponent_alone), OPPONENT_LEADS, opponent_leads
    truth = data(game, *priors, 1.0, 1.0, HORIZON, DISCOUNT, scale=BETA)
    return model(game.task, HORIZON, BETA, *priors, DISCOUNT), enumerate_trajectories(truth), scopes


KINDS = ["agent leads", "opponent leads"]
BOTH = [models.rommeo, models.pr2]


def agrees_with_the_recursion(program, listing, scopes):
    solution, truth = exact.solve(program), recursions.backward(listing.program, recursions.averaged)
    assert {name: tuple(scope) for name, scope in program.scopes.items()} == scopes
    close(solution.value, truth.value)
    for name, table in recursions.tables(listing.program, scopes, truth.policy).items():
        close(solution.policy[name], table)
    assert answers.elbo(listing, solution.policy, scopes) == pytest.approx(float(solution.elbo), rel=RTOL)


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BETAS)
def test_balancing_q_equals_a_scalar_recursion_and_its_value_the_sum_over_trajectories(name, kind, timed):
    agrees_with_the_recursion(*case(name, kind, timed))


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("model", BOTH)
def test_rommeo_and_pr2_equal_a_scalar_recursion_and_their_bound_the_sum_over_trajectories(model, timed):
    agrees_with_the_recursion(*nats(model, timed))


@pytest.mark.parametrize("model", BOTH)
def test_the_answer_given_optimality_is_the_enumerated_posterior(model):
    program, listing, scopes = nats(model)
    posterior = exact.condition(program)
    assert float(posterior.log_evidence) == pytest.approx(answers.log_evidence(listing), rel=RTOL)
    for name, scope in scopes.items():
        close(posterior.policy[name], answers.posterior_policy(listing, name, scope))
    assert float(exact.solve(program).elbo) < float(posterior.log_evidence)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["equal", "a team"])
def test_an_optimiser_finds_no_more_for_a_team(name, kind):
    program, listing, scopes = case(name, kind)
    best, policy = maximize_elbo(listing, scopes)
    solution = exact.solve(program)
    assert best == pytest.approx(float(solution.elbo), rel=1e-9)
    for decision in scopes:
        np.testing.assert_allclose(policy[decision], solution.policy[decision], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_optimiser_finds_no_less_where_both_minimise(kind):
    program, listing, scopes = case("both minimise", kind)
    game, betas = random_game(5), [-beta for beta in BETAS["both minimise"]]
    data, priors = {
        "agent leads": (agent_leads, (game.alone, game.opponent_reply)),
        "opponent leads": (opponent_leads, (game.reply, game.opponent_alone)),
    }[kind]
    mirrored = enumerate_trajectories(data(game, *priors, *betas, 2, DISCOUNT, scale=-1.0))
    assert -maximize_elbo(mirrored, scopes)[0] == pytest.approx(float(exact.solve(program).elbo), rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["zero-sum", "roles swapped"])
def test_an_optimiser_cannot_leave_the_saddle_point_on_either_side(name, kind):
    program, listing, scopes = case(name, kind)
    solution = exact.solve(program)
    for decision, beta in zip("ab", BETAS[name], strict=True):
        reply = best_reply(listing, scopes, solution.policy, decision, np.sign(beta))
        assert reply == pytest.approx(float(solution.elbo), rel=1e-9)


def test_ascent_of_one_objective_by_both_is_another_answer():
    program, listing, scopes = case("zero-sum", "agent leads")
    solution = exact.solve(program)
    assert best_reply(listing, scopes, solution.policy, "b", 1.0) > float(solution.elbo) + 0.5


# Learning and sharing


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BETAS)
def test_a_fit_finds_the_closed_form_for_any_signs(name, kind):
    program, *_ = case(name, kind)
    fit, best = svi.fit(program, KEY), exact.solve(program)
    assert fit.converged
    for decision in "ab":
        assert float(jnp.abs(fit.policy[decision] - best.policy[decision]).max()) < 1e-5
    assert float(fit.elbo) == pytest.approx(float(best.elbo), abs=1e-8)


@pytest.mark.parametrize("model", BOTH)
def test_a_fit_finds_rommeo_and_pr2(model):
    program, *_ = nats(model)
    fit, best = svi.fit(program, KEY), exact.solve(program)
    assert fit.converged
    for decision in "ab":
        assert float(jnp.abs(fit.policy[decision] - best.policy[decision]).max()) < 1e-5


@pytest.mark.slow
def test_a_fit_without_end_finds_the_saddle_point():
    game = random_game(5)
    program = models.balancing_q(game.task, None, 1.5, -0.8, game.alone, game.opponent_reply, DISCOUNT)
    fit, best = svi.fit(program, KEY), exact.solve(program)
    assert fit.converged
    for decision in "ab":
        assert float(jnp.abs(fit.policy[decision] - best.policy[decision]).max()) < 1e-3


def test_games_with_names_and_other_numbers_share_a_compilation():
    plain = gallery.friend_or_foe()
    named = StochasticGame.from_payoffs(-plain.reward[0], action_names=("x", "y", "z"))
    for model in (models.balancing_q, models.balancing_q_opponent_leads):
        assert jax.tree.structure(model(plain, 2, 1.0, -2.0)) == jax.tree.structure(model(named, 2, -3.0, 0.5))
    together = jax.vmap(lambda beta: exact.solve(models.balancing_q(plain, 2, beta, -beta)).elbo)(jnp.array([0.5, 2.0]))
    close(together, [float(exact.solve(models.balancing_q(plain, 2, beta, -beta)).elbo) for beta in (0.5, 2.0)])


def test_unequal_inverse_temperatures_have_no_joint_model():
    with pytest.raises(ValueError, match="no joint model"):
        exact.condition(models.balancing_q(gallery.matching_pennies(), 1, 1.0, -1.0))


# Bad input

GAME = random_game(1).task
ROWS = np.full((2, 2, 3), 1 / 3)
SKEWED = ROWS * np.array([[1, 1], [1, 1.3]])[..., None]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.rommeo(GAME, 2, prior=np.full((2, 2), 0.5)), r"prior has shape \(2, 2\).*\(2, 3, 2\)"),
        (lambda: models.rommeo(GAME, 2, opponent_prior=ROWS[0].T), r"opponent_prior has shape \(3, 2\)"),
        (lambda: models.pr2(GAME, 2, prior=np.full((3, 2, 2), 0.5)), r"prior has shape \(3, 2, 2\).*\(2, 2, 2\)"),
        (lambda: models.pr2(GAME, 2, opponent_prior=SKEWED), r"opponent_prior\[1, 1\] sums to 1.3"),
        (lambda: models.pr2(GAME, 2, opponent_prior=-SKEWED), r"opponent_prior\[.*negative"),
        (lambda: models.pr2(GAME, 2, beta=np.inf), "beta is inf"),
        (lambda: models.balancing_q(GAME, 2, np.nan, 1.0), "beta is nan"),
        (lambda: models.balancing_q(GAME, 2, 1.0, [1.0, 2.0]), r"opponent_beta has shape \(2,\)"),
        (lambda: models.balancing_q(GAME, None, 1.0, 1.0, discount=0.9, prior=ROWS[:, 0][None, :, :2] * 1.5), "prior"),
        (lambda: models.balancing_q_opponent_leads(GAME, 2, 1.0, 1.0, prior=ROWS), r"prior has shape \(2, 2, 3\)"),
        (lambda: models.rommeo(random_game(1, horizon=3).task, 2), "reward has 3 time steps, but horizon is 2"),
        (lambda: models.rommeo(GAME, 0), "horizon must be at least 1"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_only_games_are_played(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(TypeError, match="game must be .* StochasticGame; got MDP"):
        models.rommeo(gallery.lottery(), 2)
