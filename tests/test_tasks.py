"""MDPs hold what they are given, unchanged, under every transformation of JAX."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_ppl.tasks import MDP

DENSE = {
    "transition": np.full((3, 2, 3), 1 / 3),
    "reward": np.arange(6.0).reshape(3, 2),
    "initial": np.array([0.5, 0.5, 0.0]),
}
SPARSE = {
    "successors": np.array([[0, 1], [1, 2], [2, 0]]),
    "probabilities": np.full((3, 2, 2), 0.5),
    "reward": np.arange(6.0).reshape(3, 2),
    "initial": np.array([0.5, 0.5, 0.0]),
}


class TestFields:
    def test_dense(self):
        mdp = MDP(**DENSE, state_names=["a", "b", "c"], action_names=("x", "y"))
        np.testing.assert_array_equal(mdp.transition, DENSE["transition"])
        np.testing.assert_array_equal(mdp.reward, DENSE["reward"])
        np.testing.assert_array_equal(mdp.initial, DENSE["initial"])
        assert mdp.successors is None and mdp.probabilities is None
        assert (mdp.num_states, mdp.num_actions) == (3, 2)
        assert (mdp.state_names, mdp.action_names) == (("a", "b", "c"), ("x", "y"))
        assert mdp.transition.dtype == mdp.reward.dtype == mdp.initial.dtype == jnp.float64

    @pytest.mark.parametrize("successors", [SPARSE["successors"], np.repeat(SPARSE["successors"][:, None], 2, axis=1)])
    def test_sparse(self, successors):
        mdp = MDP.sparse(**SPARSE | {"successors": successors}, state_names=["a", "b", "c"])
        np.testing.assert_array_equal(mdp.successors, successors)
        np.testing.assert_array_equal(mdp.probabilities, SPARSE["probabilities"])
        assert mdp.transition is None and mdp.successors.dtype == jnp.int32
        assert (mdp.num_states, mdp.num_actions) == (3, 2)
        assert (mdp.state_names, mdp.action_names) == (("a", "b", "c"), None)

    def test_reward_varies_with_time(self):
        reward = np.zeros((7, 3, 2))
        assert MDP(**DENSE | {"reward": reward}).reward.shape == (7, 3, 2)
        assert MDP(**DENSE | {"reward": reward}).num_actions == 2
        assert MDP.sparse(**SPARSE | {"reward": reward}).reward.shape == (7, 3, 2)

    def test_nested_lists_and_integers_are_arrays(self):
        mdp = MDP([[[0, 1]], [[1, 0]]], [[1], [2]], [1, 0])
        assert mdp.transition.dtype == mdp.reward.dtype == mdp.initial.dtype == jnp.float64
        assert MDP.sparse([[1], [0]], [[[1]], [[1]]], [[1], [2]], [1, 0]).successors.dtype == jnp.int32

    def test_lists_may_hold_jax_arrays(self):
        reward = jnp.array([1.0, 2.0])
        np.testing.assert_array_equal(MDP(**DENSE | {"reward": [reward, reward, reward]}).reward, [[1, 2]] * 3)

    def test_float32_by_default(self):
        with jax.enable_x64(False):
            mdp = MDP(**DENSE)
            assert mdp.transition.dtype == mdp.reward.dtype == mdp.initial.dtype == jnp.float32

    def test_float32_row_of_thousands_of_entries_sums_to_one(self):
        row = np.random.default_rng(0).random(4000).astype(np.float32)
        with jax.enable_x64(False):
            row = jnp.asarray(row) / jnp.asarray(row).sum()
            MDP(jnp.broadcast_to(row, (4000, 1, 4000)), jnp.zeros((4000, 1)), row)

    def test_later_writes_to_the_callers_arrays_do_not_reach_the_task(self):
        # 20 sizes, since JAX shares the memory of a NumPy array only where it happens to be aligned.
        for num_states in range(1, 21):
            transition = np.full((num_states, 8, num_states), 1 / num_states)
            reward = np.zeros((num_states, 8))
            mdp = MDP(transition, reward, np.eye(num_states)[0])
            transition[:], reward[:] = 7, 7
            assert mdp.transition.max() <= 1 and mdp.reward.max() == 0

    def test_jax_arrays_are_not_copied(self):
        arrays = {name: jnp.asarray(array) for name, array in DENSE.items()}
        mdp = MDP(**arrays)
        assert all(getattr(mdp, name) is array for name, array in arrays.items())

    def test_immutable(self):
        with pytest.raises(AttributeError):
            MDP(**DENSE).reward = jnp.zeros((3, 2))

    @pytest.mark.parametrize(
        "make", [lambda **names: MDP(**DENSE, **names), lambda **names: MDP.sparse(**SPARSE, **names)]
    )
    def test_anonymous_tasks_of_one_shape_have_one_structure(self, make):
        named = make(state_names=["a", "b", "c"], action_names=["x", "y"])
        assert jax.tree.structure(named) != jax.tree.structure(make())
        assert jax.tree.structure(named.anonymous()) == jax.tree.structure(make())
        assert eqx.tree_equal(named.anonymous(), make())
        assert named.state_names == ("a", "b", "c")


class TestTerminal:
    TRANSITION = np.array([[[1.0, 0], [0, 1]], [[0, 1], [0, 1]]])

    def test_absorbing_under_every_action_with_reward_zero(self):
        mdp = MDP(self.TRANSITION, np.zeros((2, 2)), [1, 0])
        np.testing.assert_array_equal(mdp.terminal, [False, True])

    def test_a_state_that_pays_is_not_terminal(self):
        assert not MDP(self.TRANSITION, [[0, 0], [0, 1.0]], [1, 0]).terminal.any()
        reward = np.zeros((4, 2, 2))
        reward[3, 1, 0] = -1
        assert not MDP(self.TRANSITION, reward, [1, 0]).terminal.any()

    def test_sparse_adds_up_repeated_successors(self):
        probabilities = np.full((2, 2, 2), 0.5)
        mdp = MDP.sparse([[0, 1], [1, 1]], probabilities, np.zeros((2, 2)), [1, 0])
        np.testing.assert_array_equal(mdp.terminal, [False, True])

    def test_sparse_needs_every_action(self):
        mdp = MDP.sparse([[[0], [0]], [[1], [0]]], np.ones((2, 2, 1)), np.zeros((2, 2)), [1, 0])
        np.testing.assert_array_equal(mdp.terminal, [True, False])

    def test_under_jit(self):
        mdp = MDP(self.TRANSITION, np.zeros((2, 2)), [1, 0], state_names=["go", "end"])
        np.testing.assert_array_equal(eqx.filter_jit(lambda task: task.terminal)(mdp), [False, True])


class TestDense:
    @settings(max_examples=4)  # each new shape compiles
    @given(st.integers(0, 2**32 - 1), st.booleans())
    def test_is_the_sum_over_successors(self, seed, shared):
        rng = np.random.default_rng(seed)
        num_states, num_actions, num_outcomes = rng.integers(1, 5, 3)
        shape = (num_states, num_outcomes) if shared else (num_states, num_actions, num_outcomes)
        successors = rng.integers(0, num_states, shape)
        probabilities = rng.dirichlet(np.ones(num_outcomes), (num_states, num_actions))
        expected = np.zeros((num_states, num_actions, num_states))
        for s, a, k in np.ndindex(num_states, num_actions, num_outcomes):
            expected[s, a, successors[s, k] if shared else successors[s, a, k]] += probabilities[s, a, k]
        rewards = rng.integers(0, 2, (num_states, num_actions))
        sparse = MDP.sparse(successors, probabilities, rewards, np.full(num_states, 1 / num_states))
        np.testing.assert_allclose(sparse.dense().transition, expected, rtol=1e-14)
        np.testing.assert_array_equal(sparse.dense().terminal, sparse.terminal)

    @settings(max_examples=4)  # each new shape compiles
    @given(st.integers(0, 2**32 - 1))
    def test_and_back_lists_each_successor_once_and_in_order(self, seed):
        rng = np.random.default_rng(seed)
        num_states, num_actions = rng.integers(1, 6, 2)
        transition = rng.dirichlet(np.ones(num_states), (num_states, num_actions))
        transition *= rng.random(transition.shape) < 0.5
        transition[..., rng.integers(num_states)] += 1 - transition.sum(-1)
        possible = transition > 0
        mdp = MDP(transition, np.zeros((num_states, num_actions)), np.full(num_states, 1 / num_states))
        sparse = mdp.as_sparse()
        assert sparse.probabilities.shape == (num_states, num_actions, possible.sum(-1).max())
        for s, a in np.ndindex(num_states, num_actions):
            count = possible[s, a].sum()
            np.testing.assert_array_equal(sparse.successors[s, a, :count], np.flatnonzero(possible[s, a]))
            np.testing.assert_array_equal(sparse.probabilities[s, a, count:], 0)
        np.testing.assert_array_equal(sparse.dense().transition, transition)
        np.testing.assert_array_equal(sparse.terminal, mdp.terminal)

    def test_a_sparse_task_as_sparse_is_itself(self):
        mdp = MDP.sparse(**SPARSE)
        assert mdp.as_sparse() is mdp

    def test_as_sparse_counts_and_so_needs_known_numbers(self):
        with pytest.raises(ValueError, match="as_sparse counts the successors"):
            jax.jit(lambda table: MDP(**DENSE | {"transition": table}).as_sparse().probabilities)(
                jnp.asarray(DENSE["transition"])
            )

    def test_of_a_dense_task_is_itself(self):
        mdp = MDP(**DENSE)
        assert mdp.dense() is mdp


class TestTransformations:
    def test_vmap_over_rewards(self):
        rewards = jnp.arange(4.0)[:, None, None] * jnp.ones((4, 3, 2))
        mdps = jax.vmap(lambda reward: MDP(**DENSE | {"reward": reward}))(rewards)
        assert mdps.reward.shape == (4, 3, 2) and mdps.transition.shape == (4, 3, 2, 3)
        assert (mdps.num_states, mdps.num_actions) == (3, 2)
        np.testing.assert_array_equal(jax.vmap(lambda mdp: mdp.reward.sum())(mdps), 6 * np.arange(4.0))
        np.testing.assert_array_equal(jax.vmap(lambda mdp: mdp.terminal)(mdps), np.zeros((4, 3), bool))

    def test_vmap_of_sparse(self):
        probabilities = jnp.full((5, 3, 2, 2), 0.5)
        mdps = jax.vmap(lambda p: MDP.sparse(**SPARSE | {"probabilities": p}))(probabilities)
        assert mdps.probabilities.shape == (5, 3, 2, 2)
        assert mdps.transition is None

    def test_values_of_tracers_are_not_checked_but_shapes_are(self):
        bad = jnp.full((3, 2), jnp.nan)
        jax.jit(lambda reward: MDP(**DENSE | {"reward": reward}).reward)(bad)
        with pytest.raises(ValueError, match=r"reward has shape \(2, 3\)"):
            jax.jit(lambda reward: MDP(**DENSE | {"reward": reward}).reward)(bad.T)

    def test_successors_may_be_traced(self):
        make = jax.jit(lambda successors: MDP.sparse(**SPARSE | {"successors": successors}).dense().transition)
        assert make(jnp.asarray(SPARSE["successors"])).shape == (3, 2, 3)

    def test_lists_may_hold_tracers(self):
        def total(bonus):
            return MDP(**DENSE | {"reward": [[bonus, 0.0], [0.0, bonus], [1.0, 1.0]]}).reward.sum()

        assert jax.grad(total)(1.0) == 2

    def test_gradient_reaches_the_transition(self):
        def reach(transition):
            return MDP(**DENSE | {"transition": transition}).transition[0, 0, 1] ** 2

        gradient = jax.grad(reach)(jnp.asarray(DENSE["transition"]))
        np.testing.assert_allclose(gradient[0, 0], [0, 2 / 3, 0])
