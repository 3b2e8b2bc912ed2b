"""Executing a policy: by each decision on its own, against listed trajectories, and by sampling, against the mean."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import Categorical
from oracles import answers
from oracles import execution as oracle
from programs_more import PAIRS, listed
from worked_cases import multi_agent_case

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact, execution
from rlinf_ppl.tasks import StochasticGame, gallery

NAMES = ["three_decisions", "two_temperatures", "side_information", "pass_through", "zeros", "clock"]
COORDINATION = jnp.eye(2)


@cache
def control(name):
    return PAIRS[name].control()


@cache
def any_policy(name):
    """A random policy of each decision over its scope, zero where the prior is, changing with time."""
    random = np.random.default_rng(3)
    priors = exact.prior_policy(control(name))
    weights = {d: np.asarray(p) * random.gamma(1.0, size=p.shape) for d, p in priors.items()}
    return {d: jnp.asarray(w / w.sum(-1, keepdims=True)) for d, w in weights.items()}


@cache
def executed_oracle(name):
    policy = {d: np.asarray(q) for d, q in any_policy(name).items()}
    return oracle.executed(PAIRS[name].truth, policy, control(name).scopes)


def coordination_start(payoffs, beta):
    return {"s": 0}


def coordination_step(payoffs, beta, s):
    a = decide("a", Categorical(probs=jnp.full(2, 0.5)))
    b = decide("b", Categorical(probs=jnp.full(2, 0.5)))
    optimality(beta * payoffs[a, b])
    return {"s": s}


def coordination(beta=5.0, horizon=1, discount=1.0):
    """Both get 1 for the same action, else 0."""
    args = COORDINATION, jnp.asarray(beta)
    return ControlProgram(coordination_start, coordination_step, horizon, discount, args=args, sizes={"s": 1})


@pytest.mark.parametrize("name", NAMES)
def test_an_executed_policy_sums_out_what_stands_before_it_in_its_step(name):
    found = execution.executed(control(name), any_policy(name))
    for decision, table in executed_oracle(name).items():
        np.testing.assert_allclose(found[decision], table, rtol=1e-10, atol=1e-14)


def test_an_executed_policy_is_a_distribution_where_no_trajectory_goes():
    policy = exact.solve(control("zeros")).policy
    assert exact.marginals(control("zeros"), policy).state[0, 2:].max() == 0
    np.testing.assert_allclose(execution.executed(control("zeros"), policy)["a"][0, 2:].sum(-1), 1.0, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_that_of_listed_trajectories(name):
    paths, scopes, state = listed(name), control(name).scopes, tuple(PAIRS[name].truth.state)
    policy, apart = any_policy(name), executed_oracle(name)
    alone = dict.fromkeys(apart, state)
    loss = execution.coordination_loss(control(name), policy)
    elbo = answers.elbo(paths, policy, scopes) - answers.elbo(paths, apart, alone)
    returns = oracle.expected_return(paths, policy, scopes) - oracle.expected_return(paths, apart, alone)
    np.testing.assert_allclose(loss.elbo, elbo, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(loss.expected_return, returns, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        execution.expected_return(control(name), policy), oracle.expected_return(paths, policy, scopes), rtol=1e-10
    )


def test_apart_two_players_meet_half_of_the_time_where_together_they_always_do():
    """Sakulwongtana's equation 3.18 on the coordination game: .993 of the time together, .500 apart."""
    solution = exact.solve(coordination())
    together = np.exp(5) / (np.exp(5) + 1)
    assert together == pytest.approx(0.993, abs=5e-4)
    apart = execution.executed(coordination(), solution.policy)
    np.testing.assert_allclose(apart["a"], np.full((1, 1, 2), 0.5), rtol=1e-12)
    np.testing.assert_allclose(apart["b"], np.full((1, 1, 2), 0.5), rtol=1e-12)
    loss = execution.coordination_loss(coordination(), solution.policy)
    assert loss.expected_return == pytest.approx(5 * (together - 0.5), rel=1e-12)
    assert loss.elbo == pytest.approx(np.log((np.exp(5) + 1) / 2) - 2.5, rel=1e-12)


def test_the_executed_policy_of_rommeo_is_that_of_the_worked_case():
    given, expected, tolerance = multi_agent_case("rommeo_stochastic_game")
    game = StochasticGame(given["P"], given["r"], given["p0"])
    priors = given["prior_pi_ab"], given["prior_rho_b"]
    program = models.rommeo(game, int(given["T"]), given["beta"], *priors, discount=given["gamma"])
    found = execution.executed(program, exact.solve(program).policy)
    np.testing.assert_allclose(found["a"], expected["executed_pi"], rtol=tolerance)


def test_a_shared_seed_keeps_the_correlation():
    drawn = exact.sample(coordination(), jax.random.key(0), exact.solve(coordination()).policy, 20_000)
    share, together = np.mean(drawn["a"] == drawn["b"]), np.exp(5) / (np.exp(5) + 1)
    assert abs(share - together) < 5 * np.sqrt(together * (1 - together) / 20_000)


@pytest.mark.slow
def test_without_end_the_loss_of_a_repeated_game_is_that_of_one_step_over_all_steps():
    endless, once = coordination(horizon=None, discount=0.9), coordination()
    policy = exact.solve(endless).policy
    assert execution.executed(endless, policy)["b"].shape == (1, 2)
    loss = execution.coordination_loss(endless, policy)
    single = execution.coordination_loss(once, exact.solve(once).policy)
    np.testing.assert_allclose(loss, np.asarray(single) / 0.1, rtol=1e-7)


def test_what_a_prior_forbids_costs_everything_apart():
    def step(s):
        a = decide("a", Categorical(probs=jnp.full(2, 0.5)))
        b = decide("b", Categorical(probs=jnp.eye(2)[a]))
        optimality(1.0 * b)
        return {"s": s}

    program = ControlProgram(lambda: {"s": 0}, step, 2, sizes={"s": 1})
    loss = execution.coordination_loss(program, exact.solve(program).policy)
    assert loss.elbo == jnp.inf
    np.testing.assert_allclose(loss.expected_return, 0.0, atol=1e-12)


@pytest.mark.parametrize("name", ["discounted_final", "two_temperatures", "three_decisions", "clock"])
def test_sampled_returns_scatter_around_the_expected_one(name):
    policy = any_policy(name)
    played = execution.roll_out(control(name), jax.random.key(7), policy, 20_000)
    assert played.returns.shape == (20_000,)
    truth = oracle.expected_return(listed(name), policy, control(name).scopes)
    assert abs(played.mean - truth) < 4 * played.standard_error
    assert played.standard_error == pytest.approx(np.std(np.asarray(played.returns), ddof=1) / np.sqrt(20_000))


def test_a_mixture_of_two_models_is_played():
    """The agent expects a friend, and meets an adversary: each side's policy comes from its own program."""
    friend, adversary = control("two_temperatures"), control("adversary")
    ours = execution.executed(friend, exact.solve(friend).policy)["a"]
    theirs = execution.executed(adversary, exact.solve(adversary).policy)["b"]
    mixture = {"a": ours, "b": theirs[:, :, None, :]}
    truth = oracle.expected_return(listed("adversary"), {"a": ours, "b": theirs}, {"a": ("s",), "b": ("s",)})
    np.testing.assert_allclose(execution.expected_return(adversary, mixture), truth, rtol=1e-10)
    played = execution.roll_out(adversary, jax.random.key(1), mixture, 20_000)
    assert abs(played.mean - truth) < 4 * played.standard_error


@pytest.mark.slow
def test_vectors_are_played_too():
    program = models.linear_gaussian(gallery.point_mass(), 5)
    policy = exact.solve(program).policy
    played = execution.roll_out(program, jax.random.key(2), policy, 20_000)
    assert abs(played.mean - execution.expected_return(program, policy)) < 4 * played.standard_error


def test_one_key_gives_one_roll_out():
    first, second = (execution.roll_out(control("plain"), jax.random.key(3), any_policy("plain"), 5) for _ in range(2))
    np.testing.assert_array_equal(first.returns, second.returns)


@pytest.mark.slow
def test_the_loss_of_a_batch_of_games_is_differentiated_and_vmapped():
    def loss(beta):
        program = coordination(beta)
        return execution.coordination_loss(program, exact.solve(program).policy).expected_return

    betas = jnp.array([1.0, 5.0])
    exp = np.exp(np.asarray(betas))
    np.testing.assert_allclose(jax.vmap(loss)(betas), betas * (exp / (exp + 1) - 0.5), rtol=1e-10)
    slope = exp / (exp + 1) - 0.5 + np.asarray(betas) * exp / (exp + 1) ** 2
    np.testing.assert_allclose(jax.vmap(jax.grad(loss))(betas), slope, rtol=1e-8)


@pytest.mark.parametrize("function", [execution.executed, execution.coordination_loss, execution.expected_return])
def test_a_policy_lacks_no_decision(function):
    policy = exact.solve(coordination()).policy
    with pytest.raises(ValueError, match=r"policy has the decisions \['a'\], but the program's are \['a', 'b'\]"):
        function(coordination(), {"a": policy["a"]})


@pytest.mark.parametrize("function", [execution.executed, execution.coordination_loss])
def test_vectors_have_no_executed_policies(function):
    program = models.linear_gaussian(gallery.point_mass(), 5)
    with pytest.raises(ValueError, match="executed policies are for programs over finitely many values"):
        function(program, exact.solve(program).policy)


def test_there_is_an_episode_to_play_and_it_ends():
    policy = exact.solve(coordination()).policy
    with pytest.raises(ValueError, match="num_episodes must be at least 1; got 0"):
        execution.roll_out(coordination(), jax.random.key(0), policy, 0)
    endless = coordination(horizon=None, discount=0.9)
    with pytest.raises(ValueError, match="an infinite horizon has no episodes"):
        execution.roll_out(endless, jax.random.key(0), exact.solve(endless).policy, 10)
