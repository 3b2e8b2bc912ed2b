"""Level-k reasoning against enumeration of its thoughts, matrix products, and the limit of deep thought."""

from functools import cache

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from game_programs import random_game
from oracles import answers, recursions
from oracles.trajectories import Program, chance, decision, enumerate_trajectories, optimality

from rlinf_ppl import models
from rlinf_ppl.inference import exact, svi
from rlinf_ppl.tasks import StochasticGame, gallery

HORIZON, DISCOUNT = 2, 0.9
BETAS = {"a team": (1.2, 0.7), "zero-sum": (1.2, -0.7), "no reason": (0.0, 0.0)}
SITES = {1: ["b"], 2: ["a_0", "b"], 3: ["b_0", "a_1", "b"], 4: ["a_0", "b_1", "a_2", "b"]}


def soft_reply(prior, worth, beta):
    weights = prior * np.exp(beta * worth)
    return weights / weights.sum()


def thoughts(game, level, beta, opponent_beta, worth):
    """The chance sites of the thoughts as data, each reading the action of the one below."""
    found, below = [], None
    for name in SITES[level]:
        prior, tau = (game.alone, beta) if name[0] == "a" else (game.opponent_alone, opponent_beta)

        def law(v, below=below, prior=prior, tau=tau):
            if below is None:
                return prior[v["s"]]
            pairs = worth[v["s"]] if below[0] == "b" else worth[v["s"]].T
            return soft_reply(prior[v["s"]], pairs[:, v[below]], tau)

        found.append(chance(name, prior.shape[-1], law))
        below = name
    return tuple(found)


@cache
def case(level, name, with_values=False):
    game = random_game(12)
    beta, opponent_beta = BETAS[name]
    worth = np.random.default_rng(2).normal(size=game.reward.shape) if with_values else game.reward
    truth = Program(
        state={"s": 2},
        initial=(chance("s", 2, lambda v: game.initial),),
        initial_state=lambda v: {"s": v["s"]},
        step=(
            *thoughts(game, level, beta, opponent_beta, worth),
            decision("a", 2, lambda v: game.alone[v["s"]], beta),
            optimality(lambda v: game.reward[v["s"], v["a"], v["b"]]),
            chance("s_next", 2, lambda v: game.transition[v["s"], v["a"], v["b"]]),
        ),
        next_state=lambda v: {"s": v["s_next"]},
        horizon=HORIZON,
        discount=DISCOUNT,
    )
    values = worth if with_values else None
    program = models.level_k(
        game.task, HORIZON, level, beta, opponent_beta, game.alone, game.opponent_alone, DISCOUNT, values
    )
    return program, truth


@pytest.mark.parametrize("with_values", [False, True])
@pytest.mark.parametrize("name", BETAS)
@pytest.mark.parametrize("level", [1, 2, 3])
def test_solve_equals_a_scalar_recursion_over_all_thoughts(level, name, with_values):
    program, truth = case(level, name, with_values)
    solution, expected = exact.solve(program), recursions.backward(truth, recursions.averaged)
    assert dict(program.scopes) == {"a": ("s", "b")}
    np.testing.assert_allclose(solution.value, expected.value, rtol=1e-10)
    policy = recursions.tables(truth, program.scopes, expected.policy)["a"]
    np.testing.assert_allclose(solution.policy["a"], policy, rtol=1e-10)


@pytest.mark.parametrize("level", [1, 3])
def test_condition_equals_the_enumerated_posterior(level):
    program, truth = case(level, "zero-sum")
    listing = enumerate_trajectories(truth)
    posterior = exact.condition(program)
    assert float(posterior.log_evidence) == pytest.approx(answers.log_evidence(listing), rel=1e-10)
    expected = answers.posterior_policy(listing, "a", ("s", "b"))
    np.testing.assert_allclose(posterior.policy["a"], expected, rtol=1e-10)


@pytest.mark.parametrize("level", SITES)
def test_thoughts_are_chance_sites_by_player_and_level(level):
    kinds = dict(models.level_k(random_game(12).task, 1, level, 1.0, 1.0).graph().nodes(data="kind"))
    assert [name for name, kind in kinds.items() if kind == "chance" and name != "s_next"] == SITES[level]
    assert kinds["a"] == "decision"


def opponents_law(payoffs, level, beta, opponent_beta):
    """The law of the opponent's action under uniform priors, by products of the matrices of replies."""
    payoffs = np.asarray(payoffs)
    reply = np.exp(beta * payoffs.T) / np.exp(beta * payoffs.T).sum(1, keepdims=True)  # (B, A)
    opponent_reply = np.exp(opponent_beta * payoffs) / np.exp(opponent_beta * payoffs).sum(1, keepdims=True)
    law = np.full(3, 1 / 3)
    for below in range(1, level):
        law = law @ (opponent_reply if (level - below) % 2 == 1 else reply)
    return law


@pytest.mark.parametrize("betas", [(0.3, 0.3), (0.5, -0.8)])
@pytest.mark.parametrize("level", [1, 2, 5, 8])
def test_the_opponents_action_follows_the_chain_of_replies(level, betas):
    game = gallery.friend_or_foe()
    program = models.level_k(game, 1, level, *betas)
    joint = exact.marginals(program, exact.solve(program).policy).decision["a"][0, 0]
    np.testing.assert_allclose(joint.sum(-1), opponents_law(game.reward[0], level, *betas), rtol=1e-10)


@pytest.mark.slow
def test_thoughts_deep_enough_tend_to_the_joint_policy_of_rommeo():
    game, beta = gallery.penalty_game(), 0.1
    rommeo = exact.solve(models.rommeo(game, 1, beta))
    apart = []
    for level in (1, 2, 4, 8, 16):
        program = models.level_k(game, 1, level, beta, beta)
        solution = exact.solve(program)
        np.testing.assert_allclose(solution.policy["a"], rommeo.policy["a"], rtol=1e-10)
        law = exact.marginals(program, solution.policy).decision["a"][0, 0].sum(-1)
        apart.append(float(jnp.abs(law - rommeo.policy["b"][0, 0]).max()))
    assert (np.diff(apart) < 0).all() and apart[-1] < 1e-8 < 1e-2 < apart[0]


def test_level_one_replies_to_a_foe_and_to_a_friend_alike():
    game = random_game(12).task
    friend, foe = (exact.solve(models.level_k(game, HORIZON, 1, 2.0, beta)).policy["a"] for beta in (1.0, -1.0))
    np.testing.assert_array_equal(friend, foe)


def test_hard_thoughts_alternate_best_replies():
    game = gallery.friend_or_foe()
    payoffs = np.asarray(game.reward[0])
    program = models.level_k(game, 1, 3, jnp.inf, -jnp.inf)
    law = exact.marginals(program, exact.solve(program).policy).decision["a"][0, 0].sum(-1)
    expected = np.zeros(3)
    for first in range(3):  # a level 0 opponent, the best reply to it, and what hurts that reply most
        worst = payoffs[payoffs[:, first].argmax()]
        expected += (worst == worst.min()) / (worst == worst.min()).sum() / 3
    np.testing.assert_allclose(law, expected, rtol=1e-12)


def test_a_thought_that_comes_true_is_worth_more_than_one_that_is_only_a_draw():
    game = gallery.friend_or_foe()
    program = models.level_k(game, 1, 4, 1.0, 1.0)
    solution = exact.solve(program)
    joint = np.asarray(exact.marginals(program, solution.policy).decision["a"][0, 0])  # (B, A)
    payoffs = np.asarray(game.reward[0]).T
    assert (joint * payoffs).sum() > (np.outer(joint.sum(1), joint.sum(0)) * payoffs).sum() + 0.5


@pytest.mark.slow
def test_what_varies_in_time_is_read_at_its_time():
    game = random_game(4, horizon=HORIZON)
    solution = exact.solve(models.level_k(game.task, HORIZON, 2, 1.2, -0.7, game.alone, game.opponent_alone))
    last = StochasticGame(game.transition, game.reward[-1], game.initial)
    program = models.level_k(last, 1, 2, 1.2, -0.7, game.alone[-1], game.opponent_alone[-1])
    np.testing.assert_allclose(solution.value[-2], exact.solve(program).value[0], rtol=1e-12)
    np.testing.assert_allclose(solution.policy["a"][-1], exact.solve(program).policy["a"][0], rtol=1e-12)


def test_priors_of_zero_stay_zero_in_every_thought():
    game = gallery.friend_or_foe()
    program = models.level_k(game, 1, 3, 1.0, -1.0, prior=[[0.5, 0.5, 0]], opponent_prior=[[0, 0.5, 0.5]])
    solution = exact.solve(program)
    assert (solution.policy["a"][..., 2] == 0).all()
    law = exact.marginals(program, solution.policy).decision["a"][0, 0].sum(-1)
    assert law[0] == 0 and float(law.sum()) == pytest.approx(1)


@pytest.mark.slow
def test_without_end_and_fitted():
    game = random_game(12)
    program = models.level_k(game.task, None, 3, 1.2, -0.7, game.alone, game.opponent_alone, DISCOUNT)
    best = exact.solve(program)
    long = models.level_k(game.task, 300, 3, 1.2, -0.7, game.alone, game.opponent_alone, DISCOUNT)
    np.testing.assert_allclose(best.value, exact.solve(long).value[0], rtol=1e-9)
    fit = svi.fit(program, jax.random.key(0))
    assert fit.converged
    assert float(jnp.abs(fit.policy["a"] - best.policy["a"]).max()) < 1e-3


def test_one_level_is_one_compiled_form():
    game = random_game(12).task
    forms = [models.level_k(game, 2, 3, beta, -beta).structure for beta in (0.5, 2.0)]
    assert forms[0] == forms[1] != models.level_k(game, 2, 2, 0.5, -0.5).structure


GAME = random_game(12).task


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.level_k(GAME, 1, 0, 1.0, 1.0), "level is 0.*at least 1"),
        (lambda: models.level_k(GAME, 1, 1.5, 1.0, 1.0), "level must be a whole number; got 1.5"),
        (lambda: models.level_k(GAME, 1, 2, 1.0, np.nan), "opponent_beta is nan"),
        (
            lambda: models.level_k(GAME, 1, 2, 1.0, 1.0, opponent_prior=[[0.5, 0.5, 0.5]] * 2),
            r"opponent_prior\[0\] sums to 1.5",
        ),
        (lambda: models.level_k(GAME, 1, 2, 1.0, 1.0, prior=np.ones((2, 3)) / 3), r"prior has shape \(2, 3\)"),
        (
            lambda: models.level_k(GAME, 1, 2, 1.0, 1.0, action_values=np.ones((2, 3, 2))),
            r"action_values has shape \(2, 3, 2\).*\(2, 2, 3\)",
        ),
        (
            lambda: models.level_k(GAME, 1, 2, 1.0, 1.0, action_values=np.full((2, 2, 3), -np.inf)),
            r"action_values\[0, 0, 0\] is -inf",
        ),
        (lambda: models.level_k(gallery.lottery(), 1, 2, 1.0, 1.0), "game must be .* StochasticGame; got MDP"),
    ],
)
def test_bad_arguments_are_named(make, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises((TypeError, ValueError), match="(?s)" + message):
        make()
