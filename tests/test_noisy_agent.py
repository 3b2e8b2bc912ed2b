"""Agents that act on noisy memories: their choices against plain NumPy, and what can be inferred from them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from numpyro.distributions import constraints

from rlinf_ppl import behaviour, models
from rlinf_ppl.inference import exact
from rlinf_ppl.tasks import MDP, gallery
from tests.oracles import noisy

BETA, DISCOUNT = 0.8, 0.85


def task(actions, states=4, seed=0):
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(states), (states, actions))
    return MDP(transition, 2 * rng.normal(size=(states, actions)), rng.dirichlet(np.ones(states)))


def numbers(mdp):
    return np.asarray(mdp.transition), np.asarray(mdp.reward)


def noise(*shape, seed=1, largest=1.5):
    return np.random.default_rng(seed).uniform(0.1, largest, shape)


def sequences(mdp, n=6, steps=5, seed=2):
    """Any: their probability does not have to be large."""
    rng = np.random.default_rng(seed)
    return {"s": rng.integers(mdp.num_states, size=(n, steps)), "a": rng.integers(mdp.num_actions, size=(n, steps))}


@pytest.mark.parametrize("actions", [2, 3])
class TestLikelihood:
    def test_without_end(self, actions):
        mdp, std = task(actions), noise(4, actions)
        data = sequences(mdp)
        q, policy = noisy.values_without_end(*numbers(mdp), std, BETA, DISCOUNT)
        program = models.noisy_agent(mdp, None, std, BETA, DISCOUNT)
        assert_allclose(exact.log_prob(program, None, data), noisy.log_prob(policy, **data), rtol=1e-9)
        assert_allclose(models.noisy_values(mdp, std, BETA, DISCOUNT).value, q, rtol=1e-9)

    def test_with_a_horizon_and_a_discount_of_its_own(self, actions):
        mdp, std = task(actions), noise(4, 1)
        data = sequences(mdp)
        _, policy = noisy.values_without_end(*numbers(mdp), std * np.ones(actions), BETA, 0.5)
        program = models.noisy_agent(mdp, 5, std, BETA, value_discount=0.5)
        assert_allclose(exact.log_prob(program, None, data), noisy.log_prob(policy, **data), rtol=1e-9)

    def test_with_a_std_and_rewards_of_each_time(self, actions):
        mdp, std = task(actions), noise(5, 4, actions)
        transition, reward = numbers(mdp)
        rewards = reward * np.linspace(1, -1, 5)[:, None, None]
        data = sequences(mdp)
        _, policy = noisy.values_until_the_end(transition, rewards, std, BETA, 0.9)
        changing = MDP(transition, rewards, mdp.initial)
        program = models.noisy_agent(changing, 5, std, BETA, value_discount=0.9)
        assert_allclose(exact.log_prob(program, None, data), noisy.log_prob(policy, **data), rtol=1e-9)

    def test_noise_that_nodes_cannot_see_is_within_what_draws_say(self, actions):
        """At a beta std of 300 a softmax is a step. Draws are at known values, which what they are off by moves."""
        mdp, std, beta = task(actions), noise(4, actions, largest=3.0), 100.0
        found = models.noisy_values(mdp, std, beta, DISCOUNT)
        z = np.random.default_rng(3).normal(size=(200_000, actions))
        policy, error = noisy.by_draws(np.asarray(found.value), std, beta, z)
        assert np.all(np.abs(found.policy - policy) <= 5 * error)
        assert error.max() < 2e-3
        transition, reward = numbers(mdp)
        backed_up = reward + DISCOUNT * transition @ (found.policy * found.value).sum(-1)
        assert_allclose(found.value, backed_up, rtol=1e-12)

    def test_slopes_are_those_of_differences(self, actions):
        """Of the likelihood in NumPy, in std of each state and action, beta and both uses of the discount."""
        mdp, std = task(actions), noise(4, actions)
        data = sequences(mdp)

        def log_prob(x):
            program = models.noisy_agent(mdp, None, x[2:].reshape(4, actions), x[0], x[1])
            return jnp.sum(exact.log_prob(program, None, data))

        def plain(x):
            _, policy = noisy.values_without_end(*numbers(mdp), x[2:].reshape(4, actions), x[0], x[1])
            return noisy.log_prob(policy, **data).sum()

        at, step = np.concatenate([[BETA, DISCOUNT], std.ravel()]), 1e-5
        # Of the slopes in std those in two states.
        places = [0, 1, 2, 3, 2 + 2 * actions]
        moves = step * np.eye(len(at))[places]
        differences = [(plain(at + move) - plain(at - move)) / (2 * step) for move in moves]
        assert_allclose(jax.grad(log_prob)(at)[np.array(places)], differences, rtol=1e-6, atol=1e-7)


def turned(std, angles):
    """Noise of the same root in each state, between both actions otherwise."""
    root = np.sqrt((std**2).sum(-1))
    return root[:, None] * np.stack([np.cos(angles), np.sin(angles)], -1)


def test_only_the_root_matters_with_two_actions():
    mdp, std = task(2), noise(4, 2)
    other = turned(std, np.array([0.0, 0.3, 1.1, np.pi / 2]))
    found, same = (models.noisy_values(mdp, each, BETA, DISCOUNT) for each in (std, other))
    assert_allclose(found.policy, same.policy, rtol=1e-12)
    assert_allclose(found.value, same.value, rtol=1e-12)


def test_more_than_the_root_matters_with_three():
    mdp, std = task(3), noise(4, 3)
    found, other = (models.noisy_values(mdp, each, BETA, DISCOUNT).policy for each in (std, std[:, ::-1]))
    assert np.max(np.abs(found - other)) > 0.01


def test_the_unit_of_rewards_and_noise_is_that_of_beta():
    mdp, std = task(3), noise(4, 3)
    cents = MDP(mdp.transition, 100 * mdp.reward, mdp.initial)
    found = models.noisy_values(mdp, std, BETA, DISCOUNT)
    other = models.noisy_values(cents, 100 * std, BETA / 100, DISCOUNT)
    assert_allclose(found.policy, other.policy, rtol=1e-11)
    assert_allclose(100 * found.value, other.value, rtol=1e-11)


@pytest.mark.slow
def test_what_choices_cannot_see_are_the_circles_of_roots():
    """One direction for each state with two actions: std moves along its circle, (std_2, -std_1)."""
    mdp, std = task(2, states=3), noise(3, 2)
    program = lambda p: models.noisy_agent(mdp, None, p["std"], BETA, DISCOUNT)  # noqa: E731
    told = behaviour.fisher_information(program, {"std": std}, 4)
    assert told.spectrum.seen.sum() == 3
    circles = np.zeros((3, 6))
    for s in range(3):
        circles[s, 2 * s : 2 * s + 2] = std[s, 1], -std[s, 0]
    unseen = told.unseen.to_numpy()
    assert np.linalg.matrix_rank(np.concatenate([unseen, circles]), tol=1e-6) == 3
    information = np.asarray(told.information)
    assert_allclose(information @ circles.T, 0, atol=1e-10 * np.diag(information).max())


@pytest.mark.slow
def test_beta_beside_free_roots_of_all_states_is_not_identified():
    """One probability a state, and one number more: some direction moves beta and all roots, and choices stay."""
    mdp = task(2, states=3)
    program = lambda p: models.noisy_agent(mdp, None, p["std"][:, None], p["beta"], DISCOUNT)  # noqa: E731
    told = behaviour.fisher_information(program, {"std": noise(3), "beta": BETA}, 4)
    assert told.spectrum.seen.sum() == 3
    assert abs(told.unseen["beta"].iloc[0]) > 0.01


@pytest.fixture(scope="module")
def panel():
    """Many people in a task where memories of two states are known to be good, and all others have one std."""
    mdp, truth = task(2, states=5, seed=4), {"beta": 1.5, "std": 1.2}
    known = np.array([0.05, 0.05, 0.0, 0.0, 0.0])[:, None]

    def program(p):
        return models.noisy_agent(mdp, None, jnp.where(known > 0, known, p["std"]), p["beta"], DISCOUNT)

    people, steps = 800, 25
    draw = numpyro.handlers.seed(behaviour.site, jax.random.key(5))
    found = draw("y", program(truth), num_sequences=people, num_steps=steps)
    frame = pd.DataFrame({"s": np.asarray(found["s"][:, :-1]).ravel(), "a": np.asarray(found["a"]).ravel()})
    frame["who"], frame["time"] = np.repeat(np.arange(people), steps), np.tile(np.arange(steps), people)
    return program, truth, frame


def test_maximum_likelihood_recovers_beta_and_a_common_std(panel):
    program, truth, frame = panel
    fit = behaviour.maximum_likelihood(
        frame, program=program, start={"beta": 1.0, "std": 1.0}, state="s", decision="a", id="who", time="time",
        bounds={name: constraints.positive for name in truth},
    )  # fmt: skip
    assert fit.converged
    error = fit.params["standard error"]
    for name, value in truth.items():
        assert abs(float(fit.estimate[name]) - value) <= 3 * error[name]
        # Few data would pass anything.
        assert error[name] < 0.08 * value


class TestBadInput:
    WRONG = [
        ({"std": -0.1}, "standard deviation is at least 0"),
        ({"std": np.ones(3)}, "std has shape"),
        ({"std": np.ones((4, 3))}, "std has shape"),
        ({"std": np.ones((0, 4, 2))}, "std has shape"),
        ({"std": np.full((4, 2), np.nan)}, "std"),
        ({"std": np.inf}, "std"),
        ({"beta": 0.0}, "beta is 0; it must be above 0"),
        ({"beta": -1.0}, "beta is -1; it must be above 0"),
        ({"beta": np.nan}, "beta is nan"),
        ({"beta": np.ones(2)}, "beta has shape"),
        ({"discount": 2.0}, r"must be in \[0, 1\]"),
        ({"discount": np.nan}, "nan"),
        ({"discount": 1.0}, "finite only where the task ends"),
    ]

    @pytest.mark.parametrize(("changed", "message"), WRONG, ids=lambda x: str(x)[:30])
    def test_values_say_what_is_wrong(self, changed, message):
        with pytest.raises(ValueError, match=message):
            models.noisy_values(task(2), **({"std": 1.0, "beta": 1.0, "discount": 0.9} | changed))

    @pytest.mark.parametrize(("changed", "message"), WRONG, ids=lambda x: str(x)[:30])
    def test_so_does_the_agent(self, changed, message):
        with pytest.raises(ValueError, match=message):
            models.noisy_agent(task(2), 5, **({"std": 1.0, "beta": 1.0, "discount": 0.9} | changed))

    def test_the_agents_own(self):
        mdp = task(2)
        with pytest.raises(ValueError, match="value_discount is -1"):
            models.noisy_agent(mdp, 5, 1.0, 1.0, value_discount=-1.0)
        with pytest.raises(ValueError, match="std has 3 times, and horizon is 5"):
            models.noisy_agent(mdp, 5, np.ones((3, 4, 2)), 1.0)
        with pytest.raises(ValueError, match="std has 3 times, and horizon is None"):
            models.noisy_agent(mdp, None, np.ones((3, 4, 2)), 1.0, 0.9)
        with pytest.raises(ValueError, match="needs a discount below 1"):
            models.noisy_agent(mdp, None, 1.0, 1.0, value_discount=0.9)
        with pytest.raises(TypeError, match="mdp"):
            models.noisy_agent("maze", 5, 1.0, 1.0)

    def test_rewards_that_vary_in_time(self):
        mdp = MDP(task(2).transition, np.ones((5, 4, 2)), np.ones(4) / 4)
        with pytest.raises(ValueError, match="give a std for each time"):
            models.noisy_agent(mdp, 5, 1.0, 1.0, value_discount=0.9)
        with pytest.raises(ValueError, match="std has 4 times, and the task's reward 5"):
            models.noisy_agent(mdp, 5, np.ones((4, 4, 2)), 1.0)

    def test_values_without_end_that_are_not_known_before_are_said_not_to_exist(self):
        mdp = task(2)
        found = jax.jit(lambda discount: models.noisy_values(mdp, 1.0, 1.0, discount))(1.0)
        assert not found.converged and np.isnan(found.value).all()
        assert jax.jit(lambda discount: models.noisy_values(mdp, 1.0, 1.0, discount))(0.9).converged


def test_a_task_that_ends_has_values_at_a_discount_of_one():
    mdp = gallery.planning_task()
    std = np.where(np.arange(19) < 12, 100.0, 1.0)[:, None]
    dense = np.asarray(mdp.dense().transition)
    # Nodes see the noise at an inverse temperature at which beta std is small.
    beta = 0.01
    q, policy = noisy.values_without_end(dense, np.asarray(mdp.reward), std * np.ones(2), beta, 1.0)
    found = models.noisy_values(mdp, std, beta)
    assert found.converged
    assert_allclose(found.value, q, rtol=1e-9, atol=1e-9)
    assert_allclose(found.policy, policy, rtol=1e-9)
