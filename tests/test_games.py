"""Stochastic games are checked at birth, the gallery's are what their docstrings say, and matrix games come in."""

from itertools import product
from types import SimpleNamespace

import jax
import jaxtyping
import numpy as np
import pytest
from game_programs import random_game

from rlinf_ppl.tasks import StochasticGame, gallery, normal_form

GAME = random_game(0)
TRANSITION, REWARD, INITIAL = GAME.transition, GAME.reward, GAME.initial


def changed(array, index, value):
    array = np.array(array)
    array[index] = value
    return array


class TestStochasticGame:
    def test_sizes_names_and_leaves(self):
        game = StochasticGame(
            TRANSITION,
            REWARD,
            INITIAL,
            state_names=("u", "v"),
            action_names=("x", "y"),
            opponent_action_names=tuple("klm"),
        )
        assert (game.num_states, game.num_actions, game.num_opponent_actions) == (2, 2, 3)
        assert game.action_names == ("x", "y") and game.opponent_action_names == ("k", "l", "m")
        assert [leaf.shape for leaf in jax.tree.leaves(game)] == [(2, 2, 3, 2), (2, 2, 3), (2,)]
        assert jax.tree.structure(game.anonymous()) == jax.tree.structure(StochasticGame(TRANSITION, REWARD, INITIAL))

    def test_a_reward_may_vary_in_time(self):
        game = StochasticGame(TRANSITION, np.stack([REWARD] * 4), INITIAL)
        assert (game.num_actions, game.num_opponent_actions) == (2, 3)

    def test_a_payoff_matrix_is_one_state_that_follows_itself(self):
        game = StochasticGame.from_payoffs([[1, 2, 3], [4, 5, 6]], action_names=("up", "down"))
        np.testing.assert_array_equal(game.transition, np.ones((1, 2, 3, 1)))
        np.testing.assert_array_equal(game.reward, [[[1, 2, 3], [4, 5, 6]]])
        assert game.action_names == ("up", "down") and game.opponent_action_names is None

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: StochasticGame(TRANSITION[0], REWARD, INITIAL), r"transition has shape \(2, 3, 2\).*needs 4 axes"),
            (lambda: StochasticGame(TRANSITION[:1], REWARD, INITIAL), r"transition must be \(1, 2, 3, 1\)"),
            (
                lambda: StochasticGame(TRANSITION * 1.1, REWARD, INITIAL),
                r"transition\[.*sums to 1.1.*opponent's",
            ),
            (
                lambda: StochasticGame(changed(TRANSITION, (0, 1, 2), [1.5, -0.5]), REWARD, INITIAL),
                r"transition\[0, 1, 2, 1\] is -0.5",
            ),
            (lambda: StochasticGame(TRANSITION, REWARD[0], INITIAL), r"reward has shape \(2, 3\).*\(2, 2, 3\)"),
            (
                lambda: StochasticGame(TRANSITION, changed(REWARD, (1, 0, 2), -np.inf), INITIAL),
                r"reward\[1, 0, 2\] is -inf.*give prior 0 to impossible actions",
            ),
            (lambda: StochasticGame(TRANSITION, REWARD, [0.5, 0.4]), "initial sums to 0.9"),
            (lambda: StochasticGame(TRANSITION, REWARD, [1.0]), r"initial has shape \(1,\)"),
            (lambda: StochasticGame(TRANSITION, REWARD, INITIAL, action_names=("x", "x")), "action_names has 'x' more"),
            (
                lambda: StochasticGame(TRANSITION, REWARD, INITIAL, opponent_action_names=("x", "y")),
                "opponent_action_names has 2 names for 3 opponent's actions",
            ),
            (lambda: StochasticGame(TRANSITION[:, :, :0], REWARD, INITIAL), "no opponent's actions"),
            (
                lambda: StochasticGame.from_payoffs([1, 2]),
                r"payoffs has shape \(2,\), with 1 axes: a payoff matrix",
            ),
            (lambda: StochasticGame.from_payoffs([[[1, 2]]]), r"payoffs has shape \(1, 1, 2\), with 3 axes"),
            (lambda: StochasticGame.from_payoffs([[1, 2], [3]]), "payoffs is not a rectangular array"),
            (lambda: StochasticGame.from_payoffs([[1, np.nan]]), r"payoffs\[0, 1\] is nan"),
            (lambda: StochasticGame.from_payoffs([["x"]]), "payoffs holds"),
            (lambda: StochasticGame.from_payoffs(np.ones((2, 0))), "no opponent's actions"),
        ],
    )
    def test_a_mistake_is_named(self, make, message):
        with pytest.raises((TypeError, ValueError), match="(?s)" + message):
            make()


class TestMatrixGames:
    @pytest.mark.parametrize(
        ("game", "payoffs"),
        [
            (gallery.friend_or_foe(), [[2, 3, 3], [1, 4, 0], [1, 0, 10]]),
            (gallery.climbing_game(), [[11, -30, 0], [-30, 7, 6], [0, 0, 5]]),
            (gallery.penalty_game(), [[10, 0, 0], [0, 2, 0], [0, 0, 10]]),
            (gallery.penalty_game(-50), [[10, 0, -50], [0, 2, 0], [-50, 0, 10]]),
            (gallery.matching_pennies(), [[1, -1], [-1, 1]]),
            (gallery.coordination_game(), [[1, 0], [0, 1]]),
            (gallery.coordination_game(3, 2), [[3, 0], [0, 2]]),
        ],
    )
    def test_payoffs(self, game, payoffs):
        np.testing.assert_array_equal(game.reward[0], payoffs)

    def test_the_equilibria_of_friend_or_foe(self):
        payoffs = np.asarray(gallery.friend_or_foe().reward[0])
        rows, columns = payoffs == payoffs.max(0), payoffs == payoffs.max(1, keepdims=True)
        assert list(zip(*np.nonzero(rows & columns), strict=True)) == [(1, 1), (2, 2)]
        worst = payoffs == payoffs.min(1, keepdims=True)
        assert list(zip(*np.nonzero(rows & worst), strict=True)) == [(0, 0)]
        assert payoffs.min(1).max() == payoffs.max(0).min() == 2


MOVES = {"up": (-1, 0), "right": (0, 1), "down": (1, 0), "left": (0, -1), "stay": (0, 0)}


def replayed(text, slip, outcome):
    """P(next | state, actions) by names, from a loop over the cells; `outcome` says where two moves lead."""
    rows = text.split()
    cells = [(i, j) for i, row in enumerate(rows) for j, symbol in enumerate(row) if symbol != "#"]

    def moved(cell, action):
        reached = cell[0] + MOVES[action][0], cell[1] + MOVES[action][1]
        return reached if reached in cells else cell

    found = {}
    for one, other in product(cells, cells):
        for a, b in product(MOVES, MOVES) if one != other else ():
            for slips in product((True, False), repeat=2):
                ends = one if slips[0] else moved(one, a), other if slips[1] else moved(other, b)
                following = outcome(rows, (one, other), ends)
                mass = np.prod([slip if s else 1 - slip for s in slips])
                key = written(one, other), a, b, following
                found[key] = found.get(key, 0.0) + mass
    return found


def written(one, other):
    return f"{one[0]},{one[1]} {other[0]},{other[1]}"


def meet(rows, before, after):
    if all(rows[i][j] == "G" for i, j in before):
        return "end"
    return written(*before) if after[0] == after[1] or after == before[::-1] else written(*after)


def chase(rows, before, after):
    return "caught" if after[0] == after[1] or after == before[::-1] else written(*after)


class TestGridGames:
    @pytest.mark.parametrize(
        ("game", "text", "slip", "outcome"),
        [
            (gallery.coordination_grid(), "A.B #.# G.G", 0.1, meet),
            (gallery.coordination_grid("AGB\nG..", slip=0.3), "AGB G..", 0.3, meet),
            (gallery.pursuit(), "P.. .#. ..E", 0.2, chase),
            (gallery.pursuit("P.E", slip=0.0), "P.E", 0.0, chase),
        ],
        ids=["coordination", "coordination on another map", "pursuit", "pursuit on another map"],
    )
    def test_every_move(self, game, text, slip, outcome):
        names, transition = game.state_names, np.zeros(game.transition.shape)
        actions = list(MOVES)
        assert game.action_names == game.opponent_action_names == tuple(actions)
        for (state, a, b, following), mass in replayed(text, slip, outcome).items():
            where = names.index(state), actions.index(a), actions.index(b), names.index(following)
            transition[where] += mass
        transition[-1, :, :, -1] = 1
        np.testing.assert_allclose(game.transition, transition, atol=1e-15)

    def test_rewards_and_starts_of_the_coordination_grid(self):
        game = gallery.coordination_grid(step_reward=-2, goal_reward=5)
        paid = {"2,0 2,2": 5, "2,2 2,0": 5, "end": 0}
        expected = [paid.get(name, -2) for name in game.state_names]
        np.testing.assert_array_equal(game.reward, np.broadcast_to(np.array(expected)[:, None, None], (43, 5, 5)))
        assert game.state_names[int(np.argmax(game.initial))] == "0,0 0,2" and game.initial.max() == 1

    def test_rewards_and_starts_of_the_pursuit(self):
        game = gallery.pursuit("P.P\n..E", step_reward=-3)
        np.testing.assert_array_equal(game.reward[:-1], np.full((30, 5, 5), -3))
        np.testing.assert_array_equal(game.reward[-1], np.zeros((5, 5)))
        starts = {game.state_names[i]: float(game.initial[i]) for i in np.flatnonzero(game.initial)}
        assert starts == {"0,0 1,2": 0.5, "0,2 1,2": 0.5}

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: gallery.coordination_grid("A.B"), "text has 0 goals: mark at least two"),
            (lambda: gallery.coordination_grid("A.G\n..G"), "text has no start of the opponent: .* 'B'"),
            (lambda: gallery.coordination_grid("ABGS"), "text has 'S' in row 0, column 3"),
            (lambda: gallery.coordination_grid(slip=1.5), "slip is 1.5: give a probability"),
            (lambda: gallery.coordination_grid(goal_reward=np.nan), "goal_reward is nan"),
            (lambda: gallery.pursuit("E.."), "text has no start of the pursuer"),
            (lambda: gallery.pursuit("P.E\n.."), "2 cells in row 1 but 3 in row 0"),
            (lambda: gallery.pursuit(step_reward=np.inf), "step_reward is inf"),
            (lambda: gallery.penalty_game(np.nan), "penalty is nan"),
        ],
    )
    def test_a_mistake_is_named(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()


def gambit_game(*matrices, labels=None):
    """What `from_gambit` reads of a pygambit.Game; its arrays hold Python numbers."""
    shape = np.shape(matrices[0])
    labels = labels or [[f"{i}" for i in range(size)] for size in shape]
    players = [SimpleNamespace(strategies=[SimpleNamespace(label=label) for label in row]) for row in labels]
    arrays = [np.array(matrix, dtype=object) for matrix in matrices]
    return SimpleNamespace(players=players, to_arrays=lambda dtype: arrays)


class TestNormalForm:
    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_equal_and_opposite_payoffs(self, sign):
        payoffs = np.array([[2.0, 0.1, 3.0], [1.0, -4.0, 0.3]])
        game, found = normal_form.from_payoffs(payoffs.tolist(), (sign * payoffs).tolist(), action_names=("x", "y"))
        np.testing.assert_array_equal(game.reward[0], payoffs)
        assert found == sign and game.action_names == ("x", "y")

    def test_rounding_is_no_difference(self):
        assert normal_form.from_payoffs([[0.1, 1000.0]], [[-0.1 - 1e-12, -1000.0]]).opponent_sign == -1

    def test_a_general_sum_game_has_two_rewards(self):
        with pytest.raises(ValueError) as caught:
            normal_form.from_payoffs([[3, 0], [5, 1]], [[3, 5], [0, 1]])
        for part in (
            "row 0, column 1",
            "the agent gets 0 and the opponent 5",
            "general-sum",
            "subtract",
            "sign of its",
        ):
            assert part in str(caught.value)

    def test_entries_that_are_each_equal_or_opposite_do_not_make_a_game(self):
        with pytest.raises(ValueError, match="neither payoffs nor -payoffs"):
            normal_form.from_payoffs([[1, 2]], [[1, -2]])

    def test_nashpys_games_by_their_attribute(self):
        pennies = SimpleNamespace(payoff_matrices=(np.array([[1, -1], [-1, 1]]), np.array([[-1, 1], [1, -1]])))
        game, sign = normal_form.from_nashpy(pennies)
        np.testing.assert_array_equal(game.reward, gallery.matching_pennies().reward)
        assert sign == -1

    def test_nashpys_games(self):
        nashpy = pytest.importorskip("nashpy")
        payoffs = np.array([[1, 2], [3, 4]])
        assert normal_form.from_nashpy(nashpy.Game(payoffs)).opponent_sign == -1
        game, sign = normal_form.from_nashpy(nashpy.Game(payoffs, payoffs))
        np.testing.assert_array_equal(game.reward[0], payoffs)
        assert sign == 1

    def test_gambits_games_by_their_attributes(self):
        labels = [["top", "bottom"], ["left", "left"]]
        game, sign = normal_form.from_gambit(gambit_game([[1, 2], [3, 4]], [[-1, -2], [-3, -4]], labels=labels))
        np.testing.assert_array_equal(game.reward[0], [[1, 2], [3, 4]])
        assert (sign, game.action_names, game.opponent_action_names) == (-1, ("top", "bottom"), None)

    def test_gambits_games(self):
        pygambit = pytest.importorskip("pygambit")
        payoffs = np.array([[1, 2], [3, 4]])
        game, sign = normal_form.from_gambit(pygambit.Game.from_arrays(payoffs, -payoffs))
        np.testing.assert_array_equal(game.reward[0], payoffs)
        assert sign == -1

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: normal_form.from_payoffs([[1, 2]], [[1], [2]]), r"opponent_payoffs has shape \(2, 1\).*\(1, 2\)"),
            (lambda: normal_form.from_payoffs([1, 2], [1, 2]), r"payoffs has shape \(2,\), with 1 axes"),
            (lambda: normal_form.from_payoffs([[1]], [[np.inf]]), r"opponent_payoffs\[0, 0\] is inf"),
            (lambda: normal_form.from_nashpy([[1, 2]]), "game must be a nashpy.Game.*got list"),
            (lambda: normal_form.from_gambit("file.nfg"), "game must be a pygambit.Game; got str"),
            (lambda: normal_form.from_gambit(gambit_game([[[1]]], labels=[["x"]] * 3)), "game has 3 players"),
        ],
    )
    def test_a_mistake_is_named(self, make, message, monkeypatch):
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        with pytest.raises((TypeError, ValueError), match="(?s)" + message):
            make()
