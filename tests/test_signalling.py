"""Two who share a reward and see different things: what the public knows, a coordinator wins, and is learned."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from oracles import public_belief as oracle
from selection import quick
from worked_cases import multi_agent_case

from rlinf_ppl.inference import beliefs, exact, execution, svi
from rlinf_ppl.models import decentralized
from rlinf_ppl.tasks import PartiallyObservedGame, gallery

KEY = jax.random.key(0)
RISING = tuple(np.geomspace(0.01, 1.0, 45))
OPTIMA = {"A": 2.25, "B": 1.0, "C": 2.5, "D": 2.5, "E": 10.0, "F": 7 / 3}


def random_tables(seed=0, paid=3, states=3):
    """Arrays of a game in which everything is drawn, what both see first too: 2 actions and observations each."""
    rng = np.random.default_rng(seed)

    def law(*shape):
        return rng.dirichlet(np.full(shape[-1], 0.6), size=shape[:-1])

    S = states
    tables = (law(S, 2, 2, S), law(S, 2, 2, paid), law(S, 2, 2), law(S, 2, 3), law(S, 2, 2, 2), law(S))
    more = {
        "initial_observation": law(S, 2),
        "initial_opponent_observation": law(S, 3),
        "initial_public_observation": law(S, 2),
        "reward_values": rng.normal(size=paid),
    }
    return tables, more


def random_game(discount=1.0, **options):
    tables, more = random_tables(**options)
    return PartiallyObservedGame(*tables, **more, discount=discount)


def plain(game):
    """The game's arrays for the oracle, its rewards by levels."""
    reward, values = np.asarray(game.reward), game.reward_values
    if values is None:
        values, which = np.unique(reward, return_inverse=True)
        reward = np.eye(len(values))[which.reshape(reward.shape)]
    shown = (game.observation, game.opponent_observation, game.public_observation)
    first = (game.initial_observation, game.initial_opponent_observation, game.initial_public_observation)
    return oracle.Game(*map(np.asarray, (game.initial, game.transition, reward, values, *shown, *first)))


GAMES = {"cards": gallery.card_game(), "turns": gallery.two_step_game(), "random": random_game()}


@pytest.fixture(scope="module")
def cards():
    """The worked case of the card game: its arrays, and what was played and seen."""
    given, expected, tolerance = multi_agent_case("public_belief_card_game")
    tables = (given[name] for name in ("p0", "P", "Pr", "rval", "Oi", "Oj", "Y", "Oi0", "Oj0"))
    game = oracle.Game(*tables, np.eye(2)[np.zeros(6, int)])
    pi, rho = given["pi_i"], given["pi_j"]
    for policy in (pi, rho, given["Pm"]):
        assert (policy == policy[0]).all()  # what is done and said does not see the state
    seen = (tuple(given["evidence"][name].tolist()) for name in ("ai", "aj", "r", "y"))
    play = oracle.Play(float(given["beta"]), given["Pm"][0], pi[0], rho[0], *seen)
    return game, play, given["messages"].tolist(), expected, tolerance


class TestWorkedCases:
    def test_the_card_game_is_that_of_the_gallery(self, cards):
        for found, expected in zip(plain(gallery.card_game()), cards[0], strict=True):
            assert_allclose(found, expected, rtol=1e-15)

    @pytest.mark.parametrize("latent", [False, True])
    def test_public_beliefs(self, cards, latent):
        game, play, messages, expected, tolerance = cards
        beliefs, steps = oracle.public_beliefs(game, play, None if latent else messages)
        name = "m_latent" if latent else "m_observed"
        assert_allclose(beliefs.sum((2, 3)), expected[f"belief_{name}"], rtol=tolerance, atol=1e-15)
        assert_allclose(steps, expected[f"step_likelihoods_{name}"], rtol=tolerance)
        assert_allclose(np.log(steps).sum(), expected[f"log_likelihood_{name}"], rtol=tolerance)
        if not latent:
            joint = game.started(0)
            for t, (a, b, y, r) in enumerate(zip(play.a, play.b, play.y[1:], play.r, strict=True)):
                pi, rho = (policy[:, messages[t], play.y[t]] for policy in (play.pi, play.rho))
                joint = oracle.public_step(game, joint, pi, rho)[a, b, y, r]
            assert_allclose(joint / joint.sum(), beliefs[-1], rtol=tolerance, atol=1e-15)
            assert_allclose(beliefs, expected["belief_full_m_observed"], rtol=tolerance, atol=1e-15)
            private = beliefs[-1].sum(2).T
            private = private / private.sum(1, keepdims=True)
            assert_allclose(private, expected["private_posterior_final_given_own_card_i"], rtol=tolerance, atol=1e-15)

    def test_weights(self, cards):
        game, play, _, expected, tolerance = cards
        for row in expected["weights_5_19_corrected"]:
            t, m, q, q_m = int(row["t"]), int(row["m"]), row["proposal_prob_x1"], row["proposal_prob_m"]
            x, after = tuple(row["x"]), tuple(row["x1"])
            found = oracle.weight(game, play, t, x, after, m, q, q_m)
            assert_allclose(found, row["weight"], rtol=tolerance)
            apart = oracle.weight(game, play, t, x, after, m, q)
            assert_allclose(apart * play.message[m] / q_m, row["weight"], rtol=tolerance)
            printed = oracle.printed_weight(game, play, t, x, after, m, q, q_m)
            assert abs(printed / row["weight"] - 1) > 0.1

    def test_weights_add_up_to_the_evidence_and_those_that_are_printed_do_not(self, cards):
        """The mean of a history's weights, by all histories of a uniform proposal: the cards stay as they are."""
        game, play, messages, expected, tolerance = cards
        total, printed, apart = 0.0, 0.0, 0.0
        held = [tuple(x) for x in np.argwhere(game.started(0))]
        for x, spoken in itertools.product(held, itertools.product(range(2), repeat=3)):
            steps = [(game, play, t, x, x, m, 1 / 6, 1 / 2) for t, m in enumerate(spoken)]
            chance = game.started(0)[x] / 6**3 / 2**3
            total += chance * math.prod(oracle.weight(*step) for step in steps)
            printed += chance * math.prod(oracle.printed_weight(*step) for step in steps)
            if list(spoken) == messages:
                apart += game.started(0)[x] / 6**3 * math.prod(oracle.weight(*step[:-1]) for step in steps)
        assert_allclose(np.log(total), expected["log_likelihood_m_latent"], rtol=tolerance)
        assert_allclose(np.log(apart * 0.5**3), expected["log_likelihood_m_observed"], rtol=tolerance)
        assert abs(np.log(printed) - np.log(total)) > 0.1

    def test_agents_of_particles(self, cards):
        *_, expected, tolerance = cards
        row = expected["weighted_policy_5_21"]
        assert_allclose(oracle.weighted_policy(row["W"], row["pi_k"]), row["mixture"], rtol=tolerance)
        for row in expected["agent_5_22_5_23"]:
            found = oracle.particle_agent(row["W"], row["Q_k"], row["prior"], row["beta"])
            for each, name in zip(found, ("Qbar", "V", "pi"), strict=True):
                assert_allclose(each, row[name], rtol=tolerance)

    def test_every_expected_number_was_met(self, cards):
        named = {"belief", "belief_full", "step_likelihoods", "log_likelihood"}
        met = {f"{name}_{form}" for name in named for form in ("m_observed", "m_latent")} - {"belief_full_m_latent"}
        met |= {"private_posterior_final_given_own_card_i", "weights_5_19_corrected", "note"}
        assert set(cards[3]) == met | {"weighted_policy_5_21", "agent_5_22_5_23"}

    def test_the_two_step_game(self):
        given, expected, tolerance = multi_agent_case("bad_matrix_game")
        payoffs = given["payoff"]
        assert_array_equal(payoffs, gallery.TINY_HANABI["E"])
        first, second, values = oracle.turns(payoffs)
        assert values.max() == expected["optimal_value"]
        assert_array_equal(first[values.max(1).argmax()], expected["optimal_player1"])
        assert values[(first[:, :1] == first).all(1)].max() == expected["best_pooling_value"]
        blind = (second[:, :, :1] == second).all((1, 2))
        assert values[:, blind].max() == expected["best_without_seeing_action1"]
        assert oracle.coordinator_value(plain(GAMES["turns"]), 2) == expected["public_belief_value"]
        for row in expected["soft_team_best_of_200_starts"]:
            found = oracle.team_elbo(payoffs, row["beta"], row["pi1"], row["pi2"])
            assert_allclose(found, (row["elbo"], row["expected_payoff"]), rtol=tolerance)
        names = {"optimal_value", "optimal_player1", "best_pooling_value", "best_without_seeing_action1"}
        assert set(expected) == names | {"public_belief_value", "soft_team_best_of_200_starts", "soft_note"}


class TestCoordinator:
    def test_what_the_numbers_stand_for(self):
        found = GAMES["cards"].coordination()
        assert found.task.num_actions == 64 and found.prescriptions.shape == (64, 3)
        both = np.concatenate([found.prescriptions, found.opponent_prescriptions], 1)
        assert_array_equal(both, list(itertools.product(range(2), repeat=6)))
        assert len({tuple(row) for row in found.states}) == found.task.num_states == 6 + 6 * 4 * 2
        assert_array_equal(found.observations, list(itertools.product(range(2), repeat=4)))
        assert_array_equal(found.reward_levels, [-1, 0])

    @pytest.mark.parametrize("told", [True, False])
    @pytest.mark.parametrize("name", GAMES)
    def test_its_beliefs_are_what_the_public_knows_after_every_history(self, name, told):
        """Of prescriptions, and of policies: prescriptions that draw apart for each private observation, not told."""
        game, rng, y = plain(GAMES[name]), np.random.default_rng(2), int(name == "random")
        found = GAMES[name].coordination(y)
        task = found.task.dense()
        P, U = np.asarray(task.transition), np.asarray(task.observation)
        steps = [policies(found, game, rng, told) for _ in range(2)]
        events = tuple(found.observations.T)
        start = game.started(y) / game.started(y).sum()
        followed = [(np.asarray(task.initial), start)]
        assert_allclose(marginal(found, *followed[0]), start, rtol=1e-10)
        for pi, rho, chances in steps:
            longer = []
            for belief, joint in followed:
                likely = np.einsum("h,g,hgk,kgz->zk", belief, chances, P, U, optimize=True)
                truth = oracle.public_step(game, joint, pi, rho)
                assert_allclose(truth[events].sum(), 1, rtol=1e-10)
                assert_allclose(likely.sum(1), truth[events].sum((1, 2, 3)), rtol=1e-10, atol=1e-15)
                for after, true in zip(likely, truth[events], strict=True):
                    if true.sum() > 1e-12:
                        longer.append((after / after.sum(), true / true.sum()))
                        assert_allclose(marginal(found, *longer[-1]), longer[-1][1], rtol=1e-10, atol=1e-14)
            followed = longer
        assert len(followed) >= {"cards": 80, "turns": 3, "random": 100}[name]

    @pytest.mark.parametrize("name", OPTIMA)
    def test_its_hard_value_is_the_optimum_of_the_suite(self, name):
        game = gallery.signalling_game(gallery.TINY_HANABI[name])
        *_, values = oracle.turns(np.asarray(gallery.TINY_HANABI[name], float))
        assert values.max() == pytest.approx(OPTIMA[name], rel=1e-12)
        assert hard_value(game.coordinator(), 2) == pytest.approx(OPTIMA[name], rel=1e-12)

    @pytest.mark.parametrize("name", ["cards", "random"])
    def test_its_hard_value_is_that_of_all_plans_on_what_is_public(self, name):
        game = GAMES[name] if name == "cards" else random_game(discount=0.7, states=2, paid=2)
        for y, discount in [(0, 1.0)] if name == "cards" else [(0, 0.7), (1, 0.7)]:
            expected = oracle.coordinator_value(plain(game), 2, y, discount)
            assert hard_value(game.coordinator(y), 2) == pytest.approx(expected, rel=1e-10)

    def test_rewards_that_are_not_seen(self):
        found = GAMES["cards"].coordination(reward_seen=False)
        assert found.task.num_states == 6 + 6 * 4 and found.task.num_observations == 8
        assert np.isnan(found.reward_levels).all() and (found.observations[:, 3] == 0).all()
        game = random_game(states=2, paid=2)
        expected = oracle.coordinator_value(plain(game), 2, reward_seen=False)
        assert hard_value(game.coordinator(0, reward_seen=False), 2) == pytest.approx(expected, rel=1e-10)

    def test_rewards_tell(self):
        """Of two states that stay one is to be named: whether it was is known after the first time, or it is not."""
        nothing = np.ones((2, 2, 1))
        stays = np.broadcast_to(np.eye(2)[:, None, None], (2, 2, 1, 2))
        game = PartiallyObservedGame(
            stays, np.eye(2)[..., None], nothing, nothing[:, :1], nothing[..., None], [0.5, 0.5]
        )
        assert hard_value(game.coordinator(), 2) == 1.5
        assert hard_value(game.coordinator(reward_seen=False), 2) == 1.0


def policies(found, game, rng, told):
    """Of both players, pi[o, a] and rho[p, b], and how probable they make each pair of prescriptions."""
    if told:
        g = int(rng.integers(len(found.prescriptions)))
        own, others = found.prescriptions[g], found.opponent_prescriptions[g]
        both = np.eye(game.own.shape[1])[own], np.eye(game.others.shape[1])[others]
        return *both, np.eye(len(found.prescriptions))[g]
    pi, rho = (rng.dirichlet(np.ones(shown.shape[1]), size=shown.shape[2]) for shown in (game.own, game.others))
    own = np.prod(pi[np.arange(len(pi)), found.prescriptions], 1)
    return pi, rho, own * np.prod(rho[np.arange(len(rho)), found.opponent_prescriptions], 1)


def marginal(found, belief, like):
    joint = np.zeros(like.shape)
    np.add.at(joint, tuple(found.states[:, :3].T), belief)
    return joint


def hard_value(task, horizon):
    dense = task.dense()
    arrays = (dense.transition, dense.expected_reward, dense.observation, dense.initial)
    return oracle.planned_value(*map(np.asarray, arrays), horizon, float(task.discount))


class TestDecentralized:
    @pytest.mark.parametrize("messages", [1, 2])
    def test_elbos_are_those_of_all_trajectories(self, messages):
        game, rng, horizon, beta = random_game(discount=0.8), np.random.default_rng(5), 3, 1.3
        shapes = {"m": (2, messages, 2, 2, messages), "a": (2, 2, messages, 2), "b": (3, 2, messages, 2)}
        policies = {
            name: rng.dirichlet(np.ones(shape[-1]), size=(horizon, *shape[:-1])) for name, shape in shapes.items()
        }
        priors = {"m": rng.dirichlet(np.ones(messages)), "a": rng.dirichlet(np.ones(2), size=2)}
        priors["b"] = np.tile(rng.dirichlet(np.ones(2)), (3, 1))
        program = decentralized(game, horizon, beta, priors["a"], priors["b"][0], messages, priors["m"])
        expected = oracle.elbo(plain(game), horizon, beta, policies, priors, 0.8)
        if messages == 1:
            assert program.scopes == {"a": ("o", "y"), "b": ("p", "y")}
            policies = {"a": policies["a"][:, :, :, 0], "b": policies["b"][:, :, :, 0]}
        else:
            seen = {"m": ("y", "last_m", "last_a", "last_b")}
            assert program.scopes == seen | {"a": ("o", "y", "m"), "b": ("p", "y", "m")}
        assert float(exact.elbo(program, policies)) == pytest.approx(expected, rel=1e-10)
        if messages == 1:
            with pytest.raises(ValueError, match="exact.solve is for decisions that see all that matters to them"):
                exact.solve(program)

    def test_signals_are_found_from_almost_every_start(self):
        program = decentralized(GAMES["turns"], 2, 10.0)
        fit = svi.fit(program, KEY, 60, num_restarts=100, schedule=RISING)
        assert fit.converged and fit.local
        rising = np.asarray(fit.restarts)[:100]
        won = float(execution.expected_return(program, fit.policy)) / 10
        assert won == pytest.approx(10.0, abs=1e-6)
        assert (rising > float(fit.elbo) - 0.01).sum() >= 98
        first = np.asarray(fit.policy["a"])[0, :, 0]
        assert_array_equal(first.argmax(-1), [2, 0])

    @pytest.mark.parametrize("i", quick([1], range(3)))
    def test_soft_elbos_of_the_two_step_game(self, i):
        """The best of a hundred starts: reached, and not exceeded."""
        _, expected, _ = multi_agent_case("bad_matrix_game")
        row = expected["soft_team_best_of_200_starts"][i]
        program = decentralized(GAMES["turns"], 2, float(row["beta"]))
        fit = svi.fit(program, KEY, 60, num_restarts=100, schedule=RISING)
        assert np.asarray(fit.restarts).max() <= row["elbo"] + 1e-9
        assert float(fit.elbo) == pytest.approx(float(row["elbo"]), abs=1e-6)

    def test_who_does_not_know_its_card_has_nothing_to_tell(self):
        """The best without a signal, 8; what the first player sees of its card later comes too late."""
        late = eqx.tree_at(lambda game: game.initial_observation, GAMES["turns"], jnp.eye(1, 2)[np.zeros(17, int)])
        program = decentralized(late, 2, 10.0)
        fit = svi.fit(program, KEY, 60, num_restarts=100, schedule=RISING)
        assert float(execution.expected_return(program, fit.policy)) / 10 == pytest.approx(8.0, abs=1e-6)

    @pytest.mark.slow
    def test_a_message_that_is_carried_wins_more(self):
        """It is found at once; by a rising inverse temperature the starts end where it tells nothing."""
        won = {}
        for messages in (1, 2):
            program = decentralized(GAMES["cards"], 3, 20.0, num_messages=messages)
            fit = svi.fit(program, KEY, 100, num_restarts=10)
            won[messages] = float(execution.expected_return(program, fit.policy)) / 20
        assert won[1] == pytest.approx(-1.073, abs=0.002)
        assert won[2] == pytest.approx(-0.821, abs=0.002)


class TestInput:
    @pytest.mark.parametrize(
        ("position", "change", "message"),
        [
            (0, lambda x: x[:, :, 0], r"transition has shape .* it needs 4 axes"),
            (0, lambda x: x[:2], r"transition has shape \(2, 2, 2, 3\)"),
            (0, lambda x: x * 0.9, r"transition.* must sum to one"),
            (1, lambda x: x[..., :2], r"reward has shape \(3, 2, 2, 2\), but reward_values has shape \(3,\)"),
            (1, lambda x: x * 1.1, r"reward.* must sum to one"),
            (2, lambda x: x[:, :1], r"observation has shape \(3, 1, 2\), .* must be \(3, 2, O\)"),
            (3, lambda x: x * 0, r"opponent_observation.* must sum to one"),
            (4, lambda x: x[0], r"public_observation has shape .* must be \(3, 2, 2, Y\)"),
            (5, lambda x: x[:2], r"initial has shape \(2,\), .* must be \(3,\)"),
        ],
    )
    def test_tables(self, position, change, message):
        tables, more = random_tables()
        tables = list(tables)
        tables[position] = change(tables[position])
        with pytest.raises(ValueError, match=message):
            PartiallyObservedGame(*tables, **more)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"reward_values": None}, "a probability of each of several rewards: say in reward_values"),
            ({"reward_values": [0.0, 1.0, np.inf]}, r"reward_values\[2\] is inf"),
            ({"reward_values": 1.0}, r"reward_values has shape \(\): it needs 1 axes"),
            ({"initial_observation": np.ones((3, 3)) / 3}, r"initial_observation has shape \(3, 3\), but observation"),
            ({"initial_public_observation": np.ones((3, 2))}, "initial_public_observation.* must sum to one"),
            ({"discount": 1.5}, "discount is 1.5: it must be from 0 to 1"),
            ({"opponent_observation_names": ["x"]}, "opponent_observation_names has 1 names for 3 opponent's obs"),
            ({"public_observation_names": ["x", "x"]}, "public_observation_names has 'x' more than once"),
        ],
    )
    def test_options(self, options, message):
        tables, more = random_tables()
        with pytest.raises(ValueError, match=message):
            PartiallyObservedGame(*tables, **more | options)

    def test_rewards_that_are_not_finite(self):
        tables, _ = random_tables()
        with pytest.raises(ValueError, match=r"reward\[0, 0, 0\] is nan: rewards must be finite"):
            PartiallyObservedGame(tables[0], np.full((3, 2, 2), np.nan), *tables[2:])

    def test_a_transition_that_lacks_a_state(self):
        tables, _ = random_tables()
        with pytest.raises(ValueError, match=r"transition has shape \(3, 2, 2, 2\), .* must be \(3, 2, 2, 3\)"):
            PartiallyObservedGame(tables[0][..., :2], *tables[1:])

    def test_rewards_that_differ_by_rounding_tell_nothing(self):
        """The state, which only .3 and .1 + .2 would tell, stays hidden, and what a player cannot know wins nothing."""
        keep = np.broadcast_to(np.eye(2)[:, None, None], (2, 2, 1, 2))
        blind = np.ones((2, 2, 1)), np.ones((2, 1, 1)), np.ones((2, 2, 1, 1))
        pays = np.array([[0.3, 1.0], [0.1 + 0.2, -1.0]])[:, :, None]
        game = PartiallyObservedGame(keep, pays, *blind, [0.5, 0.5])
        assert len(np.unique(game.reward)) == 3
        assert_allclose(game.reward, pays, rtol=1e-15)
        assert_array_equal(game.coordination().reward_levels, np.unique(game.reward))
        found = beliefs.solve(game.coordinator(), 2, np.inf)
        # The second action tells, at a mean of 0, and then 1 or .3 follows; a first action that told would win .95.
        assert_allclose([found.lower, found.upper], 0.65, rtol=1e-9)

    def test_what_is_told_of_a_game(self):
        game = PartiallyObservedGame(*random_tables()[0], reward_values=[0, 1, 2], state_names=["x", "y", "z"])
        counts = (game.num_states, game.num_actions, game.num_opponent_actions, game.num_observations)
        assert counts == (3, 2, 2, 2)
        assert (game.num_opponent_observations, game.num_public_observations) == (3, 2)
        assert_array_equal(game.initial_observation, [[1, 0]] * 3)
        assert_allclose(game.expected_reward, game.reward @ np.arange(3.0))
        assert game.anonymous().state_names is None and len(jax.tree.leaves(game)) == 11
        jax.jit(lambda game: game.expected_reward)(game)

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda: GAMES["random"].coordinator(), r"begin with the public observations \[0, 1\]: give one"),
            (lambda: GAMES["cards"].coordinator(1), r"first_public is 1, but the game begins with one of \[0\]"),
            (lambda: wide().coordinator(), "pairs of prescriptions .* a table of .* numbers"),
            (lambda: jax.jit(lambda game: game.coordinator().initial)(GAMES["cards"]), "make it outside of jit"),
        ],
    )
    def test_coordinators(self, call, message):
        with pytest.raises(ValueError, match=message):
            call()

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"prior": np.ones(2)}, ValueError, "prior.* must sum to one"),
            ({"prior": np.ones((3, 2)) / 2}, ValueError, r"prior has shape \(3, 2\), .* must be \(2,\) or \(2, 2\)"),
            ({"opponent_prior": np.ones(3) / 3}, ValueError, r"opponent_prior .* must be \(2,\) or \(3, 2\)"),
            ({"beta": np.inf}, ValueError, "beta is inf"),
            ({"num_messages": 0}, ValueError, "num_messages is 0: give at least 1"),
            ({"num_messages": 2, "message_prior": np.ones(3) / 3}, ValueError, r"message_prior has shape \(3,\)"),
            ({"game": gallery.matching_pennies()}, TypeError, "game must be a task of rlinf_ppl.tasks, Partially"),
        ],
    )
    def test_programs(self, options, error, message, monkeypatch):
        monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
        with pytest.raises(error, match=message):
            decentralized(**{"game": GAMES["random"], "horizon": 2} | options)

    def test_payoffs(self):
        with pytest.raises(ValueError, match="payoffs has shape .* it needs 4 axes"):
            gallery.signalling_game([[1, 2]])
        with pytest.raises(ValueError, match=r"payoffs\[0, 0, 0, 0\] is nan"):
            gallery.signalling_game([[[[np.nan]]]])


def wide():
    """A game of eight cards and six actions each."""
    return gallery.signalling_game(np.zeros((8, 8, 6, 6)))
