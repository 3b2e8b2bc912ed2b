"""The equilibria of one-shot games: how many, in which order, and against a solver of game theory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from game_programs import random_game
from oracles.equilibrium import favoured_convention, replies, value

from rlinf_ppl import models
from rlinf_ppl.algebra.equilibrium import Player, equilibrium
from rlinf_ppl.algebra.regularizers import kl
from rlinf_ppl.inference import exact
from rlinf_ppl.tasks import StochasticGame, gallery

R = [[2.0, 3.0, 3.0], [1.0, 4.0, 0.0], [1.0, 0.0, 10.0]]


def close(found, truth, rtol=1e-10, atol=1e-13):
    np.testing.assert_allclose(np.asarray(found), truth, rtol=rtol, atol=atol)


@pytest.mark.parametrize(("beta", "number"), [(0.1, 1), (2.0, 3)])
def test_a_team_has_more_than_one_equilibrium_once_it_is_rational(beta, number):
    found = exact.equilibria(models.quantal_response(StochasticGame.from_payoffs(R), 1, beta, beta))
    uniform = np.full(3, 1 / 3)
    assert found.value.shape == (number,) and found.complete
    assert int(found.indices.sum()) == 1
    for i in range(number):
        q = [np.asarray(found.policy[name][i]) for name in "ab"]
        close(np.concatenate(replies(np.asarray(R), (uniform,) * 2, (beta,) * 2, q)), np.concatenate(q), 1e-7)
        assert float(found.value[i]) == pytest.approx(value(np.asarray(R), (uniform,) * 2, (beta,) * 2, q), rel=1e-7)
    assert np.array_equal(np.asarray(found.stable), np.asarray(found.indices) > 0)


def test_the_principal_one_comes_first():
    game = gallery.coordination_game()
    program = models.quantal_response(game, 1, 3.0, 3.0)
    found = exact.equilibria(program)
    close(found.policy["a"][0], exact.solve(program).policy["a"][0, 0])
    assert found.value.shape == (3,) and not found.stable[0] and found.stable[1:].all()


@pytest.mark.parametrize(
    ("n", "double"),
    [(3, True), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((2, True), (5, True), (3, False)))],
)
def test_conventions_that_hardly_differ(n, double):
    """The principal branch turns sharply to the better one, close to the branch of those who cannot agree."""
    smallest = 1e-10 if double else 1e-4
    edges = [sign * edge for edge in np.geomspace(0.5, smallest, 15) for sign in (1, -1)]
    taus = np.geomspace(0.5, 60, 17)
    with jax.enable_x64(double):
        prior, size = jnp.full(n, 1 / n), jnp.asarray(0.0).dtype

        @jax.jit
        @jax.vmap
        def solved(edge, tau):
            w = jnp.eye(n).at[0, 0].add(edge)
            (q, other), _, residual = equilibrium(w, (Player(prior, tau, kl), Player(prior, tau, kl)))
            return jnp.stack([q, other]), residual

        pairs = [(edge, tau) for edge in edges for tau in taus]
        found, residual = solved(*(jnp.asarray(x, size) for x in np.transpose(pairs)))
    precision = float(jnp.finfo(size).eps) ** 0.5
    converged = np.asarray(residual) < precision
    # Single precision may lose the branch where it crosses others, between conventions that are alike; and says so.
    assert converged.mean() >= (1.0 if double else 0.98)
    for q, (edge, tau) in zip(np.asarray(found, float)[converged], np.array(pairs)[converged], strict=True):
        truth = favoured_convention(n, float(np.asarray(edge, size)), float(np.asarray(tau, size)))
        close(q, np.stack([truth, truth]), 0.0, 30 * precision)


def test_zero_sum_games_have_one_equilibrium():
    for seed in range(3):
        payoffs = np.random.default_rng(seed).normal(size=(3, 4)) * 4
        found = exact.equilibria(models.quantal_response(StochasticGame.from_payoffs(payoffs), 1, 2.0, -3.0), 50)
        assert found.value.shape == (1,) and found.complete


@pytest.mark.parametrize("seed", range(20))
def test_against_the_logit_solver_of_gambit(seed):
    gambit = pytest.importorskip("pygambit")
    payoffs = np.random.default_rng(seed).normal(size=(3, 4))
    sign, precision = (1.0, -1.0)[seed % 4 // 3], (2.0, 6.0, 15.0)[seed % 3]
    game = gambit.Game.from_arrays(payoffs, sign * payoffs)
    profile = gambit.qre.logit_solve_lambda(game, precision)[0].profile
    same = StochasticGame.from_payoffs(payoffs)
    found = exact.solve(models.quantal_response(same, 1, precision, sign * precision))
    for player, name in zip(game.players, "ab", strict=True):
        truth = [float(profile[strategy]) for strategy in player.strategies]
        close(found.policy[name][0, 0], truth, 1e-5, 1e-8)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (lambda: models.quantal_response(gallery.matching_pennies(), 2, 1.0, 1.0), "horizon is 2"),
        (lambda: models.balancing_q(gallery.matching_pennies(), 1, 1.0, 1.0), "all taken at the same time"),
        (lambda: models.quantal_response(random_game(0).task, 1, 1.0, 1.0), "depend on {'s': 2} values"),
    ],
)
def test_equilibria_are_listed_for_one_shot_games(program, message):
    with pytest.raises(ValueError, match=message):
        exact.equilibria(program())


def test_equilibria_cannot_be_traced():
    game = StochasticGame.from_payoffs(R)
    with pytest.raises(TypeError, match="cannot run inside jit"):
        jax.jit(lambda beta: exact.equilibria(models.quantal_response(game, 1, beta, beta)).value)(1.0)
