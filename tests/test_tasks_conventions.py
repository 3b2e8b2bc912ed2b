"""The arrays of other libraries translate to ours and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_ppl.tasks import MDP, conventions


@st.composite
def random_dynamics(draw):
    """A transition (S, A, S) with zeros in it, and a reward (S, A)."""
    num_states, num_actions = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weights = rng.random((num_states, num_actions, num_states)) * rng.integers(
        0, 2, (num_states, num_actions, num_states)
    )
    weights[..., 0] += weights.sum(-1) == 0
    return weights / weights.sum(-1, keepdims=True), rng.normal(size=(num_states, num_actions))


class TestConventions:
    @settings(max_examples=15)  # each new shape compiles
    @given(random_dynamics())
    def test_action_first_round_trip(self, dynamics):
        transition, reward = dynamics
        there = conventions.to_action_first(jnp.asarray(transition))
        back = conventions.from_action_first(there, reward)
        np.testing.assert_array_equal(back.transition, transition)
        np.testing.assert_array_equal(back.reward, reward)
        assert all(np.array_equal(there[a, s], transition[s, a]) for s, a in np.ndindex(reward.shape))

    @settings(max_examples=15)  # each new shape compiles
    @given(random_dynamics())
    def test_next_state_first_round_trip(self, dynamics):
        transition, _ = dynamics
        there = conventions.to_next_state_first(jnp.asarray(transition))
        np.testing.assert_array_equal(conventions.from_next_state_first(there), transition)
        np.testing.assert_allclose(there.sum(0), 1)
        assert all(there[n, s, a] == transition[s, a, n] for s, a, n in np.ndindex(transition.shape))

    @settings(max_examples=15)  # each new shape compiles
    @given(random_dynamics())
    def test_outcome_table_round_trip(self, dynamics):
        transition, reward = dynamics
        states, actions = reward.shape
        table = {
            s: {a: [(transition[s, a, n], n, reward[s, a], False) for n in range(states)] for a in range(actions)}
            for s in range(states)
        }
        back = conventions.from_outcome_table(table, np.full(states, 1 / states))
        np.testing.assert_array_equal(back.transition, transition)
        np.testing.assert_allclose(back.reward, reward, rtol=1e-14)

    @settings(max_examples=15)  # each new shape compiles
    @given(random_dynamics())
    def test_reward_of_a_whole_transition_is_averaged(self, dynamics):
        transition, _ = dynamics
        reward = np.random.default_rng(1).normal(size=transition.shape)  # (S, A, S)
        expected = (transition * reward).sum(-1)
        found = conventions.from_action_first(np.moveaxis(transition, 1, 0), np.moveaxis(reward, 1, 0)).reward
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)

    def test_reward_of_a_state_holds_for_every_action(self):
        transition = np.full((2, 3, 3), 1 / 3)
        found = conventions.from_action_first(transition, [1, 2, 3]).reward
        np.testing.assert_array_equal(found, [[1, 1], [2, 2], [3, 3]])

    def test_what_they_return_makes_a_task(self):
        MDP(*conventions.from_action_first(np.full((2, 3, 3), 1 / 3), np.zeros((3, 2))), [1, 0, 0])
        MDP(conventions.from_next_state_first(np.full((3, 3, 2), 1 / 3)), np.zeros((3, 2)), [1, 0, 0])

    def test_traced_arrays(self):
        def total(reward):
            return conventions.from_action_first(np.full((2, 3, 3), 1 / 3), reward).reward.sum()

        np.testing.assert_array_equal(jax.grad(total)(jnp.zeros(3)), [2, 2, 2])

    @pytest.mark.parametrize(
        ("make", "fragments"),
        [
            (
                lambda: conventions.from_action_first(np.ones((2, 3)), 0),
                ["transition has shape (2, 3)", "(actions, states, next states)"],
            ),
            (
                lambda: conventions.from_action_first(np.ones((3, 2, 3)), np.zeros(2)),
                ["transition has shape (3, 2, 3)", "must be (3, 2, 2)"],
            ),
            (
                lambda: conventions.from_action_first(np.ones((2, 3, 3)), np.zeros((2, 3))),
                ["reward has shape (2, 3)", "must be (3,) or (3, 2) or (2, 3, 3)"],
            ),
            (
                lambda: conventions.from_next_state_first(np.ones((3, 2, 3))),
                ["transition has shape (3, 2, 3)", "must be (3, 3, 3)"],
            ),
            (lambda: conventions.from_next_state_first(np.ones((0, 0, 3))), ["no next states"]),
        ],
    )
    def test_bad_shapes(self, make, fragments):
        with pytest.raises(ValueError) as caught:
            make()
        for fragment in fragments:
            assert fragment in str(caught.value)


class TestImpossibleActions:
    def test_reward_and_prior(self):
        reward, prior = conventions.separate_impossible_actions([[1, -np.inf, 3], [-np.inf, -np.inf, 2], [1, 2, 3]])
        np.testing.assert_array_equal(reward, [[1, 0, 3], [0, 0, 2], [1, 2, 3]])
        np.testing.assert_allclose(prior, [[0.5, 0, 0.5], [0, 0, 1], [1 / 3, 1 / 3, 1 / 3]])
        assert prior.dtype == reward.dtype == jnp.float64

    @settings(max_examples=15)  # each new shape compiles
    @given(random_dynamics(), st.integers(0, 2**32 - 1))
    def test_round_trip(self, dynamics, seed):
        _, reward = dynamics
        impossible = np.random.default_rng(seed).integers(0, 2, reward.shape).astype(bool)
        impossible[:, 0] = False
        marked = np.where(impossible, -np.inf, reward)
        finite, prior = conventions.separate_impossible_actions(marked)
        assert np.isfinite(finite).all()
        np.testing.assert_allclose(prior.sum(-1), 1)
        np.testing.assert_array_equal(prior == 0, impossible)
        np.testing.assert_array_equal(conventions.mark_impossible_actions(finite, prior), marked)

    def test_reward_that_varies_with_time(self):
        marked = np.ones((4, 3, 2))
        marked[2, 1, 0] = -np.inf
        reward, prior = conventions.separate_impossible_actions(marked)
        assert reward.shape == prior.shape == (4, 3, 2)
        np.testing.assert_array_equal(prior[2, 1], [0, 1])
        marked[2, 1] = -np.inf
        with pytest.raises(ValueError, match=r"reward\[2, 1\] is -inf under every action"):
            conventions.separate_impossible_actions(marked)

    def test_nan_and_plus_infinity_stay_to_be_found(self):
        reward, prior = conventions.separate_impossible_actions([[np.nan, np.inf]])
        assert np.isnan(reward[0, 0]) and np.isposinf(reward[0, 1])
        np.testing.assert_array_equal(prior, [[0.5, 0.5]])

    def test_a_state_without_possible_action(self):
        with pytest.raises(
            ValueError, match=r"reward\[1\] is -inf under every action: .* at least one possible action"
        ):
            conventions.separate_impossible_actions([[1, 2], [-np.inf, -np.inf]])

    def test_traced(self):
        reward, prior = jax.jit(conventions.separate_impossible_actions)(jnp.array([[1.0, -jnp.inf]]))
        np.testing.assert_array_equal(reward, [[1, 0]])
        np.testing.assert_array_equal(prior, [[1, 0]])
