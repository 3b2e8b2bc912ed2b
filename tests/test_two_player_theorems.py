"""Theorems and limits of ROMMEO, PR2 and Balancing Q, and formulas of their sources that are wrong."""

import jax.numpy as jnp
import numpy as np
import pytest
from game_programs import random_game
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_ppl import models
from rlinf_ppl.inference import exact
from rlinf_ppl.tasks import MDP, gallery

BETA, DISCOUNT, HORIZON = 1.3, 0.9, 3
KINDS = ["agent leads", "opponent leads"]
BETAS = [(1.5, 1.5), (0.7, 2.0), (1.5, -0.8), (-1.1, 0.6), (-0.9, -2.2)]


def close(found, truth, rtol=1e-10):
    np.testing.assert_allclose(np.asarray(found), truth, rtol=rtol, atol=1e-14)


def joint_priors(rng, states=2, actions=2, others=3):
    joint = rng.dirichlet(np.ones(actions * others), states).reshape(states, actions, others)
    alone, opponent_alone = joint.sum(2), joint.sum(1)
    return (
        ((joint / opponent_alone[:, None, :]).swapaxes(1, 2), opponent_alone),
        (alone, joint / alone[..., None]),
    )


@pytest.mark.slow
@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0, 5), st.floats(0, 1))
def test_rommeo_is_pr2_under_the_same_joint_prior(seed, beta, discount):
    game = random_game(seed).task
    rommeos, pr2s = joint_priors(np.random.default_rng(seed))
    first = exact.solve(models.rommeo(game, HORIZON, beta, *rommeos, discount=discount))
    second = exact.solve(models.pr2(game, HORIZON, beta, *pr2s, discount=discount))
    close(first.value, second.value, 1e-9)
    joint = jnp.einsum("tsb,tsba->tsab", first.policy["b"], first.policy["a"])
    close(joint, second.policy["a"][..., None] * second.policy["b"], 1e-9)
    close(joint.sum(-1), second.policy["a"], 1e-9)


def both_orders(game, beta, opponent_beta, horizon=HORIZON, discount=DISCOUNT):
    """The values of the two orders with the same independent priors."""
    reply, opponent_reply = game.copied
    leads = models.balancing_q(game.task, horizon, beta, opponent_beta, game.alone, opponent_reply, discount)
    follows = models.balancing_q_opponent_leads(
        game.task, horizon, beta, opponent_beta, reply, game.opponent_alone, discount
    )
    return exact.solve(leads).value, exact.solve(follows).value


@pytest.mark.slow
@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 20), st.floats(0.01, 20))
def test_who_leads_a_zero_sum_game_gets_no_more_than_who_follows(seed, beta, opponent_beta):
    leads, follows = both_orders(random_game(seed), beta, -opponent_beta)
    assert (leads <= follows + 1e-9).all()


@pytest.mark.slow
@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 5))
def test_the_order_is_no_matter_at_equal_inverse_temperatures_and_then_beta_v_is_that_of_pr2(seed, beta):
    game = random_game(seed)
    leads, follows = both_orders(game, beta, beta)
    close(leads, follows, 1e-9)
    pr2 = models.pr2(game.task, HORIZON, beta, game.alone, game.copied[1], discount=DISCOUNT)
    np.testing.assert_allclose(beta * leads, exact.solve(pr2).value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("betas", [(0.7, 2.0), (1.5, -0.8), (-0.9, -2.2)])
def test_one_value_for_both_players_as_in_equation_3_31_is_wrong_at_unequal_inverse_temperatures(betas):
    leads, follows = both_orders(random_game(8), *betas)
    assert float(jnp.abs(leads - follows)[0].min()) > 1e-2


def test_matching_pennies_refute_equation_3_31():
    game = gallery.matching_pennies()
    leads = exact.solve(models.balancing_q(game, 1, 1.0, -1.0)).elbo
    follows = exact.solve(models.balancing_q_opponent_leads(game, 1, 1.0, -1.0)).elbo
    assert float(leads) == pytest.approx(-np.log(np.cosh(1)), rel=1e-12)
    assert float(follows) == pytest.approx(np.log(np.cosh(1)), rel=1e-12)


def test_a_policy_without_the_exponential_as_in_equation_b_1_is_wrong():
    game = gallery.friend_or_foe()
    solution = exact.solve(models.pr2(game, 1))
    action_values = np.log(np.mean(np.exp(np.asarray(game.reward[0])), axis=1))
    found = np.asarray(solution.policy["a"])[0, 0]
    close(found, np.exp(action_values) / np.exp(action_values).sum())
    assert np.abs(found - action_values / action_values.sum()).max() > 0.3


def test_a_value_without_the_discount_as_in_equations_3_32_and_3_33_is_wrong():
    game = random_game(5)
    values = [both_orders(game, 1.5, -0.8, discount=discount)[0] for discount in (1.0, DISCOUNT)]
    assert float(jnp.abs(values[0] - values[1])[0].min()) > 1e-2


# Limits


def hard(game, horizon, order, best, opponent_best):
    """Sequential friend or foe: the follower's best reply inside the leader's choice, over pure actions."""
    value = np.zeros(len(game.initial))
    for _ in range(horizon):
        q = game.reward + DISCOUNT * game.transition @ value
        value = best(opponent_best(q, 2), 1) if order == "agent leads" else opponent_best(best(q, 1), 1)
    return value


@pytest.mark.parametrize(("sign", "opponent_best"), [(1, np.max), (-1, np.min)])
def test_infinite_inverse_temperatures_are_pure_maximax_and_maximin(sign, opponent_best):
    game = random_game(9, states=3, actions=3)
    for beta, tolerance in ((jnp.inf, 1e-12), (1e5, 1e-3)):
        leads, follows = both_orders(game, beta, sign * beta)
        truth = [hard(game, HORIZON, order, np.max, opponent_best) for order in ("agent leads", "opponent leads")]
        np.testing.assert_allclose(leads[0], truth[0], atol=tolerance)
        np.testing.assert_allclose(follows[0], truth[1], atol=tolerance)


def test_the_foe_of_matching_pennies_wins_if_it_sees_the_coin():
    game = gallery.matching_pennies()
    assert float(exact.solve(models.balancing_q(game, 1, jnp.inf, -jnp.inf)).elbo) == -1.0
    assert float(exact.solve(models.balancing_q_opponent_leads(game, 1, jnp.inf, -jnp.inf)).elbo) == 1.0


def test_friends_meet_at_ten_and_foes_at_two():
    game = gallery.friend_or_foe()
    friends = exact.solve(models.balancing_q(game, 1, 50.0, 50.0))
    foes = exact.solve(models.balancing_q(game, 1, 50.0, -50.0))
    for solution, cell in ((friends, 2), (foes, 0)):
        assert int(jnp.argmax(solution.policy["a"][0, 0])) == cell
        assert int(jnp.argmax(solution.policy["b"][0, 0, cell])) == cell
    assert float(friends.elbo) == pytest.approx(10, abs=0.05) and float(foes.elbo) == pytest.approx(2, abs=0.05)


def test_at_zero_everybody_keeps_the_prior():
    game = random_game(5)
    program = models.balancing_q(game.task, HORIZON, 0.0, 0.0, game.alone, game.opponent_reply, DISCOUNT)
    solution = exact.solve(program)
    close(solution.policy["a"], np.broadcast_to(game.alone, (HORIZON, 2, 2)))
    close(solution.policy["b"], np.broadcast_to(game.opponent_reply, (HORIZON, 2, 2, 3)))
    near = models.balancing_q(game.task, HORIZON, 1e-9, -1e-9, game.alone, game.opponent_reply, DISCOUNT)
    np.testing.assert_allclose(solution.value, exact.solve(near).value, atol=1e-7)


def test_an_opponent_with_one_action_leaves_the_single_agent():
    game = random_game(3, others=1)
    mdp = MDP(game.transition[:, :, 0], game.reward[:, :, 0], game.initial)
    alone = exact.solve(models.single_agent(mdp, HORIZON, BETA, game.alone, DISCOUNT))
    for program in (
        models.rommeo(game.task, HORIZON, BETA, game.alone[:, None], discount=DISCOUNT),
        models.pr2(game.task, HORIZON, BETA, game.alone, discount=DISCOUNT),
    ):
        close(exact.solve(program).value, alone.value)


# Without end


def sweep(game, value, betas, order):
    q = game.reward + DISCOUNT * game.transition @ value
    reply, opponent_reply = game.copied

    def ce(x, p, beta, axis):
        return np.log(np.sum(p * np.exp(beta * x), axis)) / beta

    if order == "agent leads":
        return ce(ce(q, opponent_reply, betas[1], 2), game.alone, betas[0], 1)
    return ce(ce(q, reply.swapaxes(1, 2), betas[0], 1), game.opponent_alone, betas[1], 1)


@pytest.mark.slow
@pytest.mark.parametrize("betas", BETAS)
def test_an_infinite_horizon_is_the_fixed_point_of_the_plain_sweep(betas):
    game = random_game(5, states=4)
    for found, order in zip(both_orders(game, *betas, None), KINDS, strict=True):
        value = np.zeros(4)
        for _ in range(400):
            value = sweep(game, value, betas, order)
        np.testing.assert_allclose(found, value, rtol=1e-9)
