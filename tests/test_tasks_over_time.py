"""Tasks whose rewards change with time, in every model that takes one: each step is a game or a lottery of its own."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from selection import quick

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact
from rlinf_ppl.tasks import MDP, StochasticGame

RNG = np.random.default_rng(3)
STAGES = RNG.normal(size=(3, 1, 2, 3))
STAY = np.ones((1, 2, 3, 1))
GAMES = {
    "rommeo": lambda game, horizon: models.rommeo(game, horizon, beta=1.3),
    "pr2": lambda game, horizon: models.pr2(game, horizon, beta=1.3),
    "balancing_q": lambda game, horizon: models.balancing_q(game, horizon, 1.3, -0.7),
    "balancing_q_opponent_leads": lambda game, horizon: models.balancing_q_opponent_leads(game, horizon, 1.3, -0.7),
    "quantal_response": lambda game, horizon: models.quantal_response(game, horizon, 1.3, 0.7),
    "level_k": lambda game, horizon: models.level_k(game, horizon, 2, beta=1.3, opponent_beta=0.7),
}


@pytest.mark.parametrize("name", quick(["quantal_response"], GAMES))
def test_a_game_over_time_in_one_state_is_one_game_after_the_other(name):
    together = exact.solve(GAMES[name](StochasticGame(STAY, STAGES, [1.0]), 3))
    for t, reward in enumerate(STAGES):
        alone = exact.solve(GAMES[name](StochasticGame(STAY, reward, [1.0]), 1))
        for site, policy in alone.policy.items():
            np.testing.assert_allclose(together.policy[site][t], policy[0], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("varies", quick(["both"], ["reward", "prior", "both"]))
def test_one_agent_over_time(varies):
    """Against backward induction in NumPy."""
    steps, states, actions, beta = 4, 3, 2, 1.7
    rng = np.random.default_rng(5)
    transition = rng.dirichlet(np.ones(states), size=(states, actions))
    reward, prior = rng.normal(size=(steps, states, actions)), rng.dirichlet(np.ones(actions), size=(steps, states))
    reward = reward if varies != "prior" else reward[:1].repeat(steps, 0)
    prior = prior if varies != "reward" else prior[:1].repeat(steps, 0)
    given = reward if varies != "prior" else reward[0], prior if varies != "reward" else prior[0]
    program = models.single_agent(MDP(transition, given[0], np.ones(states) / states), steps, beta=beta, prior=given[1])
    solution, value = exact.solve(program), np.zeros(states)
    for t in reversed(range(steps)):
        q = beta * reward[t] + transition @ value
        weights = prior[t] * np.exp(q)
        value = np.log(weights.sum(-1))
        np.testing.assert_allclose(solution.policy["a"][t], weights / weights.sum(-1, keepdims=True), rtol=1e-9)
        np.testing.assert_allclose(solution.value[t], value, rtol=1e-9)


@pytest.mark.slow
def test_equilibria_of_many_states_at_once_are_those_of_each():
    """Beyond a thousand states a step is walked column by column."""
    states = 1200
    payoffs = np.random.default_rng(7).normal(size=(states, 2, 2))

    def program(table):
        def step(table, s):
            a = decide("a", dist.Categorical(probs=jnp.ones(2) / 2), 1.5)
            b = decide("b", dist.Categorical(probs=jnp.ones(2) / 2), 0.8, unseen=("a",))
            optimality(table[s, a, b])
            return {"s": (s + 1) % len(table)}

        return ControlProgram(lambda table: {"s": 0}, step, 2, args=(table,), sizes={"s": len(table)})

    together = exact.solve(program(jnp.asarray(payoffs)))
    assert together.converged
    for s in (0, 1, 299, 1198):
        alone = exact.solve(program(jnp.asarray(payoffs[s : s + 2])))
        for name in "ab":
            np.testing.assert_allclose(together.policy[name][:, s], alone.policy[name][:, 0], rtol=1e-7, atol=1e-10)
