"""Learning from samples: sample means where nothing else is to learn, the exact solution at the end, matrix games."""

import json
import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.distributions import Categorical
from programs import mdp_step, rewards, rows
from programs_more import PAIRS

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact, q_learning
from rlinf_ppl.report import learning
from rlinf_ppl.tasks import MDP, StochasticGame, gallery

SEEDS = 20
START, TRANSITION, REWARD, PRIOR = rows(3), rows(3, 2, 3), rewards(3, 2), rows(3, 2)
PLAYED = StochasticGame(rows(2, 2, 2, 2), rewards(2, 2, 2), rows(2))
PAYOFFS = np.array([[2.0, 3.0, 3.0], [1.0, 4.0, 0.0], [1.0, 0.0, 10.0]])


def many(program, num_steps, seeds=SEEDS, **options):
    keys = jax.random.split(jax.random.key(5), seeds)
    return jax.jit(jax.vmap(lambda key: q_learning.learn(program, key, num_steps, **options)))(keys)


def lottery_step(start, transition, prizes, prior, s):
    """The reward is a prize drawn after the decision."""
    a = decide("a", Categorical(probs=prior[s]))
    s_next = numpyro.sample("s_next", Categorical(probs=transition[s, a]))
    optimality(prizes[s_next])
    return {"s": s_next}


def first_state(start, *others):
    return {"s": numpyro.sample("s", Categorical(probs=start))}


def small(step=mdp_step, horizon=1, discount=1.0):
    third = REWARD if step is mdp_step else np.array([2.0, -1.0, 0.5])
    args = tuple(jnp.asarray(x) for x in (START, TRANSITION, third, PRIOR))
    return ControlProgram(first_state, step, horizon, discount, args=args)


def one_shot(beta=0.1, opponent_beta=0.1):
    return models.balancing_q(StochasticGame.from_payoffs(PAYOFFS), 1, beta, opponent_beta)


def omega(step):
    return 1.01**step


def sample_means(visits):
    return 1 / visits


# ---- what is learned -----------------------------------------------------------------------------------------------
def test_with_rates_1_over_n_a_last_step_learns_sample_means():
    """Each entry of Q is the mean of n prizes: normal about the expected prize, with their variance over n."""
    found = many(small(lottery_step), 4000, learning_rate=sample_means)
    prizes = np.array([2.0, -1.0, 0.5])
    mean = TRANSITION @ prizes
    error = np.sqrt((TRANSITION @ prizes**2 - mean**2) / np.asarray(found.visits[:, 0]))
    z = (np.asarray(found.action_values[:, 0]) - mean) / error
    assert np.abs(z).max() < 5
    assert abs(np.mean(z**2) - 1) < 5 * np.sqrt(2 / z.size)


ENDS = {
    "one agent without end": lambda: (models.single_agent(MDP(TRANSITION, REWARD, START), None, discount=0.8), 0.0),
    "adversaries without end": lambda: (models.balancing_q(PLAYED, None, 1.5, -0.8, discount=0.8), 0.3),
    "final and discount": lambda: (PAIRS["discounted_final"].control(), 0.0),
    "three decisions": lambda: (PAIRS["three_decisions"].control(), 0.0),
    "time": lambda: (PAIRS["clock"].control(), 0.0),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow if n in ("adversaries without end", "three decisions") else ())
        for n in ENDS
    ],
)
def test_at_the_end_the_policies_are_those_of_the_exact_solution(name):
    """Over seeds, the mean is within five standard errors of the truth.

    And within .01: the soft maximum of a noisy Q is too large by a share of its variance, which the last rate bounds,
    n^-.7 = .008 at 1000 visits. Of single seeds, the variance of Q is about half that rate times the variance of what
    came after, below 1 here, so that probabilities are within 5 sqrt(.004) / 4 = .08.
    """
    program, exploration = ENDS[name]()
    found, solution = many(program, 24_000, exploration=exploration), exact.solve(program)
    for decision, truth in solution.policy.items():
        policy, truth = np.asarray(found.policy[decision]), np.asarray(truth)
        error = policy.std(0, ddof=1) / np.sqrt(SEEDS)
        assert (np.abs(policy.mean(0) - truth) < 5 * error + 0.01).all()
        assert np.abs(policy - truth).max() < 0.08
    assert found.value.shape[1:] == solution.value.shape
    np.testing.assert_allclose(found.value.mean(0), solution.value, atol=0.05)
    np.testing.assert_array_equal(found.visits.reshape(SEEDS, -1).sum(-1), 24_000)


def test_policies_follow_from_q_by_the_formula_of_balancing_q():
    found = q_learning.learn(one_shot(0.7, -0.4), jax.random.key(0), 30, learning_rate=0.5, annealing=omega)
    q, scale = np.asarray(found.action_values)[0, 0], 1.01**29
    weights = np.exp(-0.4 * scale * q) / 3
    replies = weights / weights.sum(-1, keepdims=True)
    values = np.log(weights.sum(-1)) / (-0.4 * scale)
    leads = np.exp(0.7 * scale * values) / 3
    np.testing.assert_allclose(found.policy["b"][0, 0], replies, rtol=1e-10)
    np.testing.assert_allclose(found.policy["a"][0, 0], leads / leads.sum(), rtol=1e-10)
    np.testing.assert_allclose(found.value, [[np.log(leads.sum()) / (0.7 * scale)], [0.0]], rtol=1e-10)


def test_with_rate_1_a_one_shot_game_is_known_where_it_was_played():
    found = q_learning.learn(one_shot(), jax.random.key(1), 12, learning_rate=1.0, record_every=4)
    met = np.asarray(found.visits[0, 0]) > 0
    assert 1 < met.sum() < 9
    np.testing.assert_allclose(found.action_values[0, 0], np.where(met, PAYOFFS, 0.0))
    assert set(np.asarray(found.rewards)) == set(PAYOFFS[met])
    np.testing.assert_array_equal(found.steps, [4, 8, 12])
    assert found.curve["b"].shape == (3, 1, 1, 3, 3)
    np.testing.assert_array_equal(found.curve["b"][-1], found.policy["b"])


def test_an_episode_earns_what_the_program_says_it_does():
    """Rewards of whole episodes, weighted by the discount, are returns of the policy; here of the prior, for tau 0."""
    program = PAIRS["discounted_final"].control()
    found = many(program, 3000, learning_rate=0.0, annealing=0.0)
    returns = np.asarray(found.rewards).reshape(-1, 3) @ 0.8 ** np.arange(3)
    truth = exact.elbo(program, exact.prior_policy(program))
    assert abs(returns.mean() - truth) < 4 * returns.std(ddof=1) / np.sqrt(len(returns))


def test_annealing_multiplies_every_inverse_temperature():
    key = jax.random.key(2)
    warm = q_learning.learn(one_shot(0.3, -0.2), key, 50, annealing=2.0)
    plain = q_learning.learn(one_shot(0.6, -0.4), key, 50)
    np.testing.assert_allclose(warm.rewards, plain.rewards)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), warm.policy, plain.policy)


def test_exploration_draws_from_the_prior():
    """A player that is certain explores half of the time, and then takes each of three actions alike."""
    found = q_learning.learn(one_shot(1e4, 1e4), jax.random.key(3), 4000, learning_rate=1.0, exploration=0.5)
    visits = np.asarray(found.visits)[0, 0].sum(1)
    share = visits / 4000
    assert abs(share[2] - (0.5 + 0.5 / 3)) < 5 * np.sqrt(0.25 / 4000) + 0.01
    assert abs(share[:2].mean() - 0.5 / 3) < 5 * np.sqrt(0.25 / 4000)


def test_one_key_gives_one_result_and_many_keys_are_vmapped():
    keys = jax.random.split(jax.random.key(5), 3)
    single = q_learning.learn(one_shot(), keys[1], 40, learning_rate=0.6)
    again = q_learning.learn(one_shot(), keys[1], 40, learning_rate=0.6)
    batch = many(one_shot(), 40, seeds=3, learning_rate=0.6)
    np.testing.assert_array_equal(single.action_values, again.action_values)
    np.testing.assert_allclose(batch.action_values[1], single.action_values, rtol=1e-12)
    assert not np.array_equal(batch.rewards[0], batch.rewards[1])


# ---- the matrix games ----------------------------------------------------------------------------------------------
@cache
def games():
    return learning.play_all(jax.random.key(0))


def played(game):
    return {experiment.title: (experiment, curves) for experiment, curves in games()[game]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("title", "reward"), [("Balancing-Q with a friend", 10.0), ("Balancing-Q with a foe", 2.0), ("PR2 with a foe", 1.0)]
)
def test_all_of_a_hundred_seeds_arrive_at_one_pair_of_actions(title, reward):
    """Sakulwongtana's Algorithm 1 with its policy mended; PR2 against a foe gets 1, not almost 0 as the text says."""
    experiment, curves = played("friend_or_foe")[title]
    assert PAYOFFS[experiment.goal] == reward
    assert curves.joint.shape == (100, 100, 3, 3)
    assert (learning.reached(experiment, curves) > 0.99).all()
    np.testing.assert_allclose(curves.reward[:, -1], reward, atol=1e-2)


@pytest.mark.slow
def test_one_player_who_thinks_for_both_arrives_there_too():
    """With a hundred seeds for a friend and for a foe, two programs in one call."""

    def joint(key, opponent_beta):
        program = one_shot(0.1, opponent_beta)
        policy = q_learning.learn(program, key, 500, learning_rate=0.6, annealing=omega).policy
        return policy["a"][0, 0, :, None] * policy["b"][0, 0]

    keys = jax.random.split(jax.random.key(5), 100)
    friends, foes = jax.vmap(jax.vmap(joint, (0, None)), (None, 0))(keys, jnp.array([0.1, -0.1]))
    assert (friends[:, 2, 2] > 0.99).all()
    assert (foes[:, 0, 0] > 0.99).all()


@pytest.mark.slow
def test_rommeo_q_climbs_as_often_as_the_public_code_or_more_often():
    """The public code arrives with .30 of 100 seeds at temperature 1, with .78 of 50 at its best."""
    rates = {title: float(np.mean(learning.reached(*pair) > 0.9)) for title, pair in played("climbing").items()}
    assert abs(rates["temperature 1"] - 0.30) < 4 * math.sqrt(0.3 * 0.7 * 2 / 100)
    assert rates["cooling from 50"] > 0.78 - 2 * math.sqrt(0.78 * 0.22 / 100)
    for _, curves in played("climbing").values():
        assert np.isfinite(curves.joint).all()


def test_25_steps_an_episode_leave_nothing_that_is_not_a_number():
    """Returns of hundreds at a temperature of .1: the public code overflows where it takes exp(Q / temperature)."""
    game = gallery.climbing_game()
    players = {"a": models.rommeo(game, 25, discount=0.95), "b": models.pr2(game, 25, discount=0.95)}
    found = q_learning.learn_apart(
        players, jax.random.key(0), 2500, learning_rate=1.0, annealing=learning.cooling, exploration=0.1
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert np.abs(found["a"].action_values).max() > 50
    for policy in found["a"].policy.values():
        np.testing.assert_allclose(policy.sum(-1), 1.0)


@pytest.mark.slow
def test_rommeo_and_pr2_learn_the_same():
    """The order of two decisions with one inverse temperature changes nothing in what is executed, so nothing."""
    rommeo, curves = played("climbing")["cooling from 50"]
    pr2 = rommeo._replace(players={"b": rommeo.players["a"], "a": rommeo.players["b"]})
    np.testing.assert_allclose(learning.play(pr2, jax.random.key(0)).joint, curves.joint, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_the_figures_and_the_table_are_written(tmp_path):
    files = learning.write(games(), tmp_path / "deeper")
    assert {path.name for path in files} == {"friend_or_foe.png", "climbing.png", "learning.json"}
    rows = json.loads(files[-1].read_text())
    assert [(row["players"], row["goal"]) for row in rows[:2]] == [
        ("Balancing-Q with a friend", [3, 3]),
        ("Balancing-Q with a foe", [1, 1]),
    ]
    assert rows[1]["reached"] == 1.0 and rows[1]["mean reward at the end"] == pytest.approx(2.0, abs=1e-2)
    assert all(path.stat().st_size > 500 for path in files)


def pennies_step(payoffs, s):
    a = decide("a", Categorical(probs=jnp.full(2, 0.5)), 2.0)
    b = decide("b", Categorical(probs=jnp.full(2, 0.5)), -2.0, unseen=("a",))
    optimality(payoffs[a, b])
    return {"s": s}


@pytest.mark.slow
def test_players_who_do_not_see_each_other_learn_their_equilibrium():
    """Once every pair of actions has been played, each policy is the logit reply to the other."""
    payoffs = np.array([[2.0, -1.0], [-1.0, 1.0]])
    program = ControlProgram(lambda payoffs: {"s": 0}, pennies_step, 1, args=(jnp.asarray(payoffs),), sizes={"s": 1})
    found = q_learning.learn(program, jax.random.key(0), 100, learning_rate=1.0)
    np.testing.assert_allclose(found.action_values[0], payoffs)
    a, b = (np.asarray(found.policy[name])[0] for name in ("a", "b"))
    replies = np.exp(2 * payoffs @ b), np.exp(-2 * a @ payoffs)
    for policy, reply in zip((a, b), replies, strict=True):
        np.testing.assert_allclose(policy, reply / reply.sum(), rtol=1e-8)


# ---- bad input -----------------------------------------------------------------------------------------------------
def only_chance(s):
    optimality(1.0 * s)
    return {"s": numpyro.sample("s_next", Categorical(probs=jnp.full(2, 0.5)))}


def two_states():
    return {"s": numpyro.sample("s", Categorical(probs=jnp.full(2, 0.5)))}


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (lambda: models.linear_gaussian(gallery.point_mass(), 3), "are not finite, and tables of action values"),
        (lambda: PAIRS["side_information"].control(), r"the chance sites \['o'\] stand before the decision 'a'"),
        (lambda: ControlProgram(two_states, only_chance, 2), "the program has no decisions to learn"),
    ],
)
def test_only_tabular_programs_with_decisions_before_chance_are_learned(program, message):
    with pytest.raises(ValueError, match=message):
        q_learning.learn(program(), jax.random.key(0), 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps must be at least 1; got 0"),
        ({"record_every": 3}, "record_every must divide num_steps; got 3 and 10"),
        ({"exploration": 1.5}, "exploration must be at least 0 and at most 1, or a function; got 1.5"),
        ({"learning_rate": -0.1}, "learning_rate must be at least 0 and at most 1, or a function; got -0.1"),
        ({"annealing": -1.0}, "annealing must be at least 0, or a function; got -1.0"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        q_learning.learn(one_shot(), jax.random.key(0), **({"num_steps": 10} | options))


def test_players_make_all_decisions_of_one_process():
    with pytest.raises(ValueError, match=r"players has the decisions \['a'\], but those of the program of 'a' are"):
        q_learning.learn_apart({"a": one_shot()}, jax.random.key(0), 10)
    longer = models.rommeo(StochasticGame.from_payoffs(PAYOFFS), 2)
    with pytest.raises(ValueError, match="the players' programs differ in horizon: 2 for 'b', 1 for 'a'"):
        q_learning.learn_apart({"a": one_shot(), "b": longer}, jax.random.key(0), 10)
