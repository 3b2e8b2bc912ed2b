"""Q-learning where chance is no table: any laws behind finite decisions, against the same task with sums by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.stats import gamma, norm

from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.inference import exact, q_learning

SEEDS = 20
LEVELS = np.array([[0.3, -0.5], [0.9, 0.1], [-0.2, 0.6]])


def wind(horizon, beta=1.5, **options):
    """The wind decides where one comes to, how much it costs, and what is seen of it."""

    def initial():
        return {"s": jnp.digitize(numpyro.sample("push", dist.Gamma(2.0, 1.0)), jnp.array([1.0, 2.5]))}

    def step(s):
        a = decide("a", dist.Bernoulli(0.4), inverse_temperature=beta)
        w = numpyro.sample("w", dist.Normal(0.5 * a, 1.0))
        gusts = numpyro.sample("gusts", dist.Poisson(1.0 + s))
        optimality(jnp.asarray(LEVELS)[s, a] - 0.3 * w**2 - 0.1 * gusts)
        return {"s": (w > -0.3).astype(int) + (w > 0.8)}

    return ControlProgram(initial, step, horizon, sizes={"s": 3}, **options)


def table(horizon, beta=1.5, **options):
    """The same with means in the place of draws."""
    below = norm.cdf(np.array([-0.3, 0.8])[None] - 0.5 * np.arange(2)[:, None])
    moves = np.stack([below[:, 0], below[:, 1] - below[:, 0], 1 - below[:, 1]], -1)
    first = np.diff([0.0, *gamma.cdf([1.0, 2.5], 2.0), 1.0])
    earned = LEVELS - 0.3 * (1 + 0.25 * np.arange(2)) - 0.1 * (1 + np.arange(3)[:, None])

    def step(s):
        a = decide("a", dist.Bernoulli(0.4), inverse_temperature=beta)
        optimality(jnp.asarray(earned)[s, a])
        return {"s": numpyro.sample("n", dist.Categorical(jnp.asarray(moves)[a]))}

    return ControlProgram(
        lambda: {"s": numpyro.sample("s", dist.Categorical(jnp.asarray(first)))}, step, horizon, **options
    )


@pytest.mark.parametrize("horizon, discount", [(2, 1.0), (None, 0.8)])
def test_the_policies_are_those_of_the_task_with_means(horizon, discount):
    keys = jax.random.split(jax.random.key(5), SEEDS)
    made, solution = wind(horizon, discount=discount), exact.solve(table(horizon, discount=discount))
    found = jax.jit(jax.vmap(lambda key: q_learning.learn(made, key, 24_000)))(keys)
    policy, truth = np.asarray(found.policy["a"]), np.asarray(solution.policy["a"])
    error = policy.std(0, ddof=1) / np.sqrt(SEEDS)
    assert (np.abs(policy.mean(0) - truth) < 5 * error + 0.01).all()
    assert np.abs(policy - truth).max() < 0.12
    np.testing.assert_allclose(found.value.mean(0), solution.value, atol=0.05)
    assert found.visits.sum() == SEEDS * 24_000


def test_players_meet_in_sampled_chance():
    found = q_learning.learn_apart({"a": wind(2)}, jax.random.key(0), 20_000)["a"]
    np.testing.assert_allclose(found.policy["a"], exact.solve(table(2)).policy["a"], atol=0.12)


def test_numbers_that_are_no_law_are_seen():
    def step(s):
        a = decide("a", dist.Bernoulli(0.5))
        w = numpyro.sample("w", dist.Normal(0.0, jnp.where(s == 1, -1.0, 1.0)))
        optimality(0.1 * w)
        return {"s": a}

    made = ControlProgram(lambda: {"s": 0}, step, 3, sizes={"s": 2})
    found = q_learning.learn(made, jax.random.key(0), 300)
    assert np.isnan(found.rewards).any() and np.isnan(found.policy["a"]).any()


def test_what_is_not_finite_is_named():
    with pytest.raises(ValueError, match=r"\['x'\] are not finite, and tables of action values"):
        q_learning.learn(
            ControlProgram(lambda: {"x": 0.0}, lambda x: {"x": x + decide("a", dist.Bernoulli(0.5))}, 2),
            jax.random.key(0),
            9,
        )

    def step(s):
        decide("a", dist.Normal(0.0, 1.0))
        return {"s": s}

    with pytest.raises(ValueError, match=r"\['a'\] are not finite, and tables of action values"):
        q_learning.learn(ControlProgram(lambda: {"s": 0}, step, 2, sizes={"s": 2}), jax.random.key(0), 9)
