"""Decisions that do not see each other: quantal response against worked cases, small steps in SciPy, and identities."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from game_programs import random_game, two_players
from numpyro.distributions import Categorical
from oracles import answers
from oracles.equilibrium import backward, logit_equilibrium, replies, value
from oracles.optimizer import best_reply
from oracles.trajectories import decision, enumerate_trajectories
from worked_cases import multi_agent_case

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact, svi
from rlinf_ppl.tasks import StochasticGame, gallery

KEY = jax.random.key(0)
R = [[2.0, 3.0, 3.0], [1.0, 4.0, 0.0], [1.0, 0.0, 10.0]]
HORIZON, DISCOUNT = 3, 0.9
BETAS = {"zero-sum": (1.5, -0.8), "roles swapped": (-2.0, 3.0), "a team": (0.7, 0.5), "one keeps its prior": (1.2, 0.0)}


def close(found, truth, rtol=1e-10, atol=1e-13):
    np.testing.assert_allclose(np.asarray(found), truth, rtol=rtol, atol=atol)


def solved(game, beta, opponent_beta, **options):
    return exact.solve(models.quantal_response(game, 1, beta, opponent_beta, **options))


# Worked cases and oracles


@pytest.mark.parametrize("name", ["balancing_q_competitive", "balancing_q_cooperative"])
def test_the_worked_cases(name):
    given, rows, rtol = multi_agent_case(name)
    game = StochasticGame(given["P"], given["r"], given["p0"])
    priors = given["prior_pi_a"], given["prior_rho_b"]
    checked = [row for row in rows if "simultaneous" in row]
    for row in checked:
        betas = float(row["beta_i"]), float(row["beta_j"])
        program = models.quantal_response(game, int(given["T"]), *betas, *priors, given["gamma"])
        solution, expected = exact.solve(program), row["simultaneous"]
        close(solution.value[:-1], expected["V"], rtol)
        close(solution.policy["a"], expected["pi"], rtol)
        close(solution.policy["b"], expected["rho"], rtol)
        assert float(solution.elbo) == pytest.approx(float(expected["objective"]), rel=rtol)
    assert checked or name == "balancing_q_cooperative"


def test_the_worked_matrix_game():
    _, expected, rtol = multi_agent_case("matrix_game_R")
    checked = [row for row in expected["rows"] if "simultaneous_qre" in row]
    for row in checked:
        solution = solved(StochasticGame.from_payoffs(R), row["beta_i"], row["beta_j"])
        truth = row["simultaneous_qre"]
        assert float(solution.value[0, 0]) == pytest.approx(float(truth["V"]), rel=rtol)
        close(solution.policy["a"][0, 0], truth["pi"], 1e-9)
        close(solution.policy["b"][0, 0], truth["rho"], 1e-9)
    assert checked


@pytest.mark.parametrize("betas", BETAS.values(), ids=BETAS)
def test_solve_follows_small_steps_from_the_priors(betas):
    game = random_game(3)
    priors = game.independent
    program = models.quantal_response(game.task, HORIZON, *betas, *priors, DISCOUNT)
    solution = exact.solve(program)
    v, (pi, rho) = backward(game.reward, game.transition, priors, betas, HORIZON, DISCOUNT)
    close(solution.value, v, atol=1e-10)
    close(solution.policy["a"], pi, 1e-8)
    close(solution.policy["b"], rho, 1e-8)
    assert solution.converged and solution.residual < 1e-12
    assert program.scopes == {"a": ("s",), "b": ("s",)}


@pytest.mark.parametrize("seed", [4, pytest.param(13, marks=pytest.mark.slow)])
def test_branches_that_pass_close_by_are_kept_apart(seed):
    """Steps eight times as slack as the library's change over in the second game, 32 times as slack in the first."""
    w, uniform = np.random.default_rng(seed).normal(size=(3, 4)), (np.full(3, 1 / 3), np.full(4, 1 / 4))
    solution = solved(StochasticGame.from_payoffs(w), 6.0, 6.0)
    for name, own in zip("ab", logit_equilibrium(w, uniform, (6.0, 6.0)), strict=True):
        close(solution.policy[name][0, 0], own, 1e-8)


@pytest.mark.parametrize("seed", [78, 201, 214])
def test_a_branch_that_turns_back_is_followed(seed):
    rng = np.random.default_rng(seed)
    w, priors = rng.normal(size=(3, 3)) * 6, (rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3)))
    with pytest.raises(AssertionError, match="the path was lost"):
        logit_equilibrium(w, priors, (1.0, 1.0))
    solution = solved(StochasticGame.from_payoffs(w), 1.0, 1.0, prior=priors[0][None], opponent_prior=priors[1][None])
    q = [np.asarray(solution.policy[name][0, 0]) for name in "ab"]
    close(np.concatenate(q), np.concatenate(replies(w, priors, (1.0, 1.0), q)), 1e-9)
    assert solution.converged


def test_nobody_gains_by_deviating():
    game, betas = random_game(5), (1.5, -0.8)
    alone, other = game.independent
    program = models.quantal_response(game.task, 2, *betas, alone, other, DISCOUNT)
    solution = exact.solve(program)
    sites = (
        decision("a", 2, lambda v: alone[v["s"]], betas[0]),
        decision("b", 3, lambda v: other[v["s"]], betas[1]),
    )
    paths = enumerate_trajectories(two_players(game, sites, 2, DISCOUNT, 1.0))
    scopes = {"a": ("s",), "b": ("s",)}
    policy = {name: np.asarray(table) for name, table in solution.policy.items()}
    assert answers.elbo(paths, policy, scopes) == pytest.approx(float(solution.elbo), rel=1e-10)
    for name, sign in (("a", 1.0), ("b", -1.0)):
        reply = best_reply(paths, scopes, policy, name, sign)
        assert reply == pytest.approx(float(solution.elbo), rel=1e-7)


def test_marginals_and_the_elbo_of_any_policies():
    game = random_game(6)
    program = models.quantal_response(game.task, 2, 1.0, -2.0, *game.independent, DISCOUNT)
    alone, other = game.independent
    sites = decision("a", 2, lambda v: alone[v["s"]], 1.0), decision("b", 3, lambda v: other[v["s"]], -2.0)
    paths = enumerate_trajectories(two_players(game, sites, 2, DISCOUNT, 1.0))
    rng = np.random.default_rng(0)
    policy = {"a": rng.dirichlet(np.ones(2), (2, 2)), "b": rng.dirichlet(np.ones(3), (2, 2))}
    scopes = {"a": ("s",), "b": ("s",)}
    assert float(exact.elbo(program, policy)) == pytest.approx(answers.elbo(paths, policy, scopes), rel=1e-12)
    weights = answers.path_probability(paths, answers.policy_along(paths, policy, scopes))
    marginals = exact.marginals(program, policy)
    close(marginals.state, answers.state_marginals(paths, weights))
    for name, scope in scopes.items():
        close(marginals.decision[name], answers.decision_marginals(paths, name, scope, weights))


# Limits and order


@pytest.mark.slow
def test_the_value_lies_between_those_of_the_leaders():
    for seed in range(20):
        game = random_game(seed)
        prior, other = game.independent
        prior_seeing, other_seeing = game.copied
        values = [
            exact.solve(program).value[0]
            for program in (
                models.balancing_q(game.task, 3, 2.0, -1.5, prior, other_seeing, DISCOUNT),
                models.quantal_response(game.task, 3, 2.0, -1.5, prior, other, DISCOUNT),
                models.balancing_q_opponent_leads(game.task, 3, 2.0, -1.5, prior_seeing, other, DISCOUNT),
            )
        ]
        assert np.all(np.diff(np.stack(values), axis=0) >= -1e-12)


@pytest.mark.slow
def test_large_inverse_temperatures_give_minimax_play():
    pennies = solved(gallery.matching_pennies(), 500.0, -500.0)
    assert float(pennies.value[0, 0]) == pytest.approx(0.0, abs=1e-3)
    close(pennies.policy["a"][0, 0], [0.5, 0.5], 1e-3)
    zero_sum = solved(StochasticGame.from_payoffs(R), 200.0, -200.0)
    assert float(zero_sum.value[0, 0]) == pytest.approx(2.0, abs=1e-6)
    close(zero_sum.policy["a"][0, 0], [1.0, 0.0, 0.0], 1e-6, 1e-6)


def test_inverse_temperatures_of_zero_keep_the_priors():
    game = random_game(4)
    program = models.quantal_response(game.task, 2, 0.0, 0.0, *game.independent)
    solution, prior = exact.solve(program), exact.prior_policy(program)
    close(solution.policy["a"], prior["a"])
    assert float(solution.elbo) == pytest.approx(float(exact.elbo(program, prior)), rel=1e-12)


@pytest.mark.slow
def test_without_end_it_is_the_limit_of_long_horizons():
    game = random_game(8)
    program = models.quantal_response(game.task, None, 2.0, -1.5, *game.independent, DISCOUNT)
    endless, long = exact.solve(program), exact.solve(program.unroll(300))
    close(endless.value, long.value[0], 1e-9)
    close(endless.policy["b"], long.policy["b"][0], 1e-8)
    assert endless.converged and endless.error_bound < 1e-6


# Transformations


@pytest.mark.slow
def test_gradients_meet_differences():
    prior, other = jnp.asarray([[0.5, 0.2, 0.3]]), jnp.asarray([[0.1, 0.6, 0.3]])

    def program(payoffs, beta):
        game = StochasticGame(jnp.ones((1, 3, 3, 1)), payoffs[None], jnp.ones(1))
        return models.quantal_response(game, 1, beta, -0.5, prior, other)

    payoffs, beta = jnp.asarray(R) / 3, jnp.asarray(0.7)
    for read in (lambda s: s.policy["a"][0, 0, 1], lambda s: s.elbo):
        function = jax.jit(lambda payoffs, beta, read=read: read(exact.solve(program(payoffs, beta))))
        found = jax.grad(function, argnums=(0, 1))(payoffs, beta)
        step = 1e-5
        slope = (function(payoffs, beta + step) - function(payoffs, beta - step)) / (2 * step)
        assert float(found[1]) == pytest.approx(float(slope), rel=1e-6, abs=1e-9)
        moved = payoffs.at[1, 2].add(step), payoffs.at[1, 2].add(-step)
        slope = (function(moved[0], beta) - function(moved[1], beta)) / (2 * step)
        assert float(found[0][1, 2]) == pytest.approx(float(slope), rel=1e-6, abs=1e-9)


@pytest.mark.slow
def test_many_inverse_temperatures_at_once():
    game = StochasticGame.from_payoffs(R)
    betas = jnp.asarray([0.1, 1.0, 4.0])
    together = jax.vmap(lambda beta: exact.solve(models.quantal_response(game, 1, beta, -beta)))(betas)
    for i, beta in enumerate(betas):
        close(together.policy["a"][i], solved(game, beta, -beta).policy["a"])


def test_single_precision():
    exactly = solved(StochasticGame.from_payoffs(R), 2.0, -2.0)
    with jax.enable_x64(False):
        single = solved(StochasticGame.from_payoffs(R), 2.0, -2.0)
        assert single.value.dtype == jnp.float32 and single.converged
    close(single.policy["a"], exactly.policy["a"], 1e-4, 1e-6)


# SVI


@pytest.mark.parametrize("betas", [(1.5, -0.8), (10.0, -10.0), (0.7, 0.5)], ids=str)
def test_svi_recovers_it(betas):
    game = random_game(3)
    program = models.quantal_response(game.task, HORIZON, *betas, *game.independent, DISCOUNT)
    solution, fit = exact.solve(program), svi.fit(program, KEY, 3000)
    assert fit.converged
    for name in "ab":
        close(fit.policy[name], solution.policy[name], atol=1e-3)
    assert float(fit.elbo) == pytest.approx(float(solution.elbo), abs=1e-5)


# More than two, and beside other sites


def three(rewards, priors, t_b, s):
    a = decide("a", Categorical(probs=priors[0]), 1.5)
    b = decide("b", Categorical(probs=priors[1]), t_b, unseen=("a",))
    c = decide("c", Categorical(probs=priors[2]), 0.6, unseen=("a", "b"))
    d = decide("d", Categorical(probs=jnp.asarray([0.5, 0.5])))
    optimality(rewards[s, a, b, c] + 0.3 * d * (a - c))
    return {"s": numpyro.sample("s_next", Categorical(probs=jnp.asarray([0.3, 0.7])))}


def start(rewards, priors, t_b):
    return {"s": numpyro.sample("s", Categorical(probs=jnp.asarray([0.4, 0.6])))}


@pytest.mark.slow
def test_three_at_once_and_one_who_sees_them_all():
    rng = np.random.default_rng(2)
    rewards, priors = rng.normal(size=(2, 2, 3, 2)), [rng.dirichlet(np.ones(k)) for k in (2, 3, 2)]
    program = ControlProgram(start, three, 1, args=(jnp.asarray(rewards), [jnp.asarray(p) for p in priors], -0.9))
    assert program.scopes == {"a": ("s",), "b": ("s",), "c": ("s",), "d": ("s", "a", "b", "c")}
    solution = exact.solve(program)
    a, c = np.ogrid[:2, :2]
    later = np.log(0.5 + 0.5 * np.exp(0.3 * (a - c)))
    for s in range(2):
        w, taus = rewards[s] + later[:, None, :], (1.5, -0.9, 0.6)
        truth = logit_equilibrium(w, priors, taus)
        for name, own in zip("abc", truth, strict=True):
            close(solution.policy[name][0, s], own, 1e-8)
        assert float(solution.value[0, s]) == pytest.approx(value(w, priors, taus, truth), rel=1e-9)
    fit = svi.fit(program, KEY)
    assert fit.converged and float(fit.elbo) == pytest.approx(float(solution.elbo), abs=1e-6)
