"""The particle public belief: its weights, its beliefs, what is learned on it; against `oracles.public_belief`."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from numpy.testing import assert_allclose
from numpyro.infer import SVI
from oracles import public_belief as oracle
from selection import quick
from worked_cases import multi_agent_case

from rlinf_ppl import models
from rlinf_ppl.inference import execution, svi
from rlinf_ppl.models.public_belief import Joint, Move, private_log_prob, public_log_prob
from rlinf_ppl.models.signals import Policies
from rlinf_ppl.tasks import PartiallyObservedGame, gallery

KEY = jax.random.key(0)


def random_game(seed=0, noisy=True, sizes=(2, 2, 2, 2, 2, 2)):
    rng = np.random.default_rng(seed)
    s, a, b, o, p, y = sizes

    def law(*shape):
        return rng.dirichlet(np.ones(shape[-1]), size=shape[:-1])

    paid = (
        {"reward": law(s, a, b, 2), "reward_values": [-1.0, 0.5]} if noisy else {"reward": rng.normal(size=(s, a, b))}
    )
    return PartiallyObservedGame(
        law(s, a, b, s), observation=law(s, a, o), opponent_observation=law(s, b, p),
        public_observation=law(s, a, b, y), initial=law(s), initial_observation=law(s, o),
        initial_opponent_observation=law(s, p), initial_public_observation=law(s, y), **paid,
    )  # fmt: skip


def plain(game):
    """The same for the oracle."""
    rewards = np.asarray(game.reward)
    values = game.reward_values
    if values is None:
        values = np.unique(rewards)
        rewards = (rewards[..., None] == values).astype(float)
    return oracle.Game(
        *map(np.asarray, (game.initial, game.transition, rewards, values, game.observation)),
        *map(np.asarray, (game.opponent_observation, game.public_observation, game.initial_observation)),
        *map(np.asarray, (game.initial_opponent_observation, game.initial_public_observation)),
    )


def random_policies(game, num_messages, seed=1):
    rng = np.random.default_rng(seed)
    sizes = (num_messages, game.num_observations, game.num_public_observations, game.num_actions)
    others = (num_messages, game.num_opponent_observations, game.num_public_observations, game.num_opponent_actions)
    return Policies(*(rng.dirichlet(np.ones(shape[-1]), size=shape[:-1]) for shape in (sizes, others)))


class TestWeights:
    @pytest.mark.parametrize("noisy", [True, False])
    def test_both_forms(self, noisy):
        """Of every particle that can come from another: with p(m) / q(m) inside, and with the message scored apart."""
        game = random_game(noisy=noisy)
        truth, policies = plain(game), random_policies(game, 2)
        message, said, beta = np.array([0.3, 0.7]), np.array([0.6, 0.4]), 0.8
        paid = 1 if noisy else float(game.reward[0, 1, 0])
        level = 1 if noisy else int(np.searchsorted(truth.reward_values, paid))
        known = (each.swapaxes(0, 1) for each in policies)
        play, met = oracle.Play(beta, message, *known, (1,), (0,), (level,), (0, 1)), 0
        for x, after, m in itertools.product(np.ndindex(2, 2, 2), np.ndindex(2, 2, 2), range(2)):
            move = Move(m, 0, 1, 0, paid, 1)
            before, then = Joint(*x), Joint(*after)
            found = public_log_prob(game, policies, before, then, move) + private_log_prob(game, before, then, move)
            apart = np.exp(found - np.log(0.25) + beta * truth.reward_values[level])
            met += apart > 0
            assert_allclose(apart, oracle.weight(truth, play, 0, x, after, m, 0.25), rtol=1e-10)
            inside = apart * message[m] / said[m]
            assert_allclose(inside, oracle.weight(truth, play, 0, x, after, m, 0.25, said[m]), rtol=1e-10)
            if apart > 0 and noisy:
                assert abs(oracle.printed_weight(truth, play, 0, x, after, m, 0.25, said[m]) / inside - 1) > 0.01
        assert met == (128 if noisy else 64)

    def test_those_of_the_worked_case(self):
        given, expected, tolerance = multi_agent_case("public_belief_card_game")
        game = gallery.card_game()
        # Its policies are given for each state, which none of them sees.
        policies = Policies(*(np.moveaxis(np.array(given[name])[0], 1, 0) for name in ("pi_i", "pi_j")))
        seen = given["evidence"]
        for row in expected["weights_5_19_corrected"]:
            t, m = int(row["t"]), int(row["m"])
            move = Move(m, seen["y"][t], seen["ai"][t], seen["aj"][t], seen["r"][t], seen["y"][t + 1])
            before, then = Joint(*row["x"]), Joint(*row["x1"])
            found = public_log_prob(game, policies, before, then, move) + private_log_prob(game, before, then, move)
            found += given["beta"] * given["rval"][seen["r"][t]] + np.log(given["Pm"][0][m])
            weight = np.exp(found) / row["proposal_prob_x1"] / row["proposal_prob_m"]
            assert_allclose(weight, row["weight"], rtol=tolerance)


class TestBelief:
    @pytest.mark.parametrize("noisy", quick([True], [True, False]))
    def test_many_particles_believe_what_the_public_does(self, noisy):
        """Along a trajectory of the model: the weighted particles against the exact public belief, by enumeration."""
        game = random_game(3, noisy)
        made = models.public_belief(game, 2, 2, num_particles=20_000, key=jax.random.key(4))
        trace = numpyro.handlers.trace(numpyro.handlers.seed(made.model, 1)).get_trace()
        truth = plain(game)
        value = {name: np.asarray(site["value"]) for name, site in trace.items() if site["type"] == "sample"}
        a, b, m = ([int(value[f"t{t}/{name}"]) for t in range(2)] for name in "abm")
        states = [int(value["init/s"]), int(value["t0/s_next"])]
        levels = [np.asarray(game.reward[s, x, y]) for s, x, y in zip(states, a, b, strict=True)]
        r = [int(value[f"t{t}/r"]) if noisy else int(np.searchsorted(truth.reward_values, levels[t])) for t in range(2)]
        y = [int(value["init/y"]), int(value["t0/y_next"]), int(value["t1/y_next"])]
        beliefs = []
        for t in range(3):
            beliefs.append(self.public(made, value, t))
        for t, found in enumerate(beliefs):
            policies = [Policies(*(np.asarray(each.rows[u]) for each in made.args[3])) for u in range(2)]
            joint = truth.started(y[0])
            for u in range(t):
                step = oracle.public_step(truth, joint, *self.under(policies[u], m[u], y[u]))
                joint = step[a[u], b[u], y[u + 1], r[u]]
            joint = joint / joint.sum()
            size = 1 / np.sum(found[1] ** 2)
            assert_allclose(found[0], joint, atol=5 * np.sqrt(0.25 / size))

    @staticmethod
    def under(policies, m, y):
        return policies.pi[m][:, y], policies.rho[m][:, y]

    @staticmethod
    def public(made, value, t):
        """The table of the weighted particles before step t, by running the program's own steps."""
        data = {name: jnp.asarray(each) for name, each in value.items()}
        with numpyro.handlers.substitute(data=data), numpyro.handlers.seed(rng_seed=0):
            with numpyro.handlers.scope(prefix="init"):
                state = made.initial(*(made.args[:3]), Policies(*(each.rows[0] for each in made.args[3])), made.args[4])
            for u in range(t):
                with numpyro.handlers.scope(prefix=f"t{u}"):
                    now = Policies(*(each.rows[u] for each in made.args[3]))
                    state = made.step(*made.args[:3], now, made.args[4], **state)
        x, w = state["public"]["x"], np.asarray(state["public"]["w"])
        table = np.zeros((2, 2, 2))
        np.add.at(table, tuple(map(np.asarray, x)), w)
        return table, w


class TestLearning:
    def test_numpyro_runs_the_pair(self):
        made = models.public_belief(gallery.two_step_game(), 2, 2, 1.0, num_particles=5)
        with numpyro.handlers.seed(rng_seed=0):
            guide = numpyro.handlers.trace(made.guide).get_trace()
        assert guide["t1/m"]["infer"] and set(made.learned.params) <= set(guide)
        found = SVI(made.model, made.guide, optax.adam(0.01), svi.ParticleELBO(2)).run(KEY, 3, progress_bar=False)
        assert all(np.isfinite(loss) for loss in found.losses)

    def test_bad_input(self, monkeypatch):
        monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
        game = gallery.two_step_game()
        with pytest.raises(TypeError, match="game must be a task of rlinf_ppl.tasks, PartiallyObservedGame"):
            models.public_belief(gallery.tiger(), 2)
        with pytest.raises(TypeError, match="horizon must be a whole number of steps, or None; got '2'"):
            models.public_belief(game, "2")
        with pytest.raises(ValueError, match="num_messages is 0"):
            models.public_belief(game, 2, 0)
        with pytest.raises(ValueError, match="message_prior has shape"):
            models.public_belief(game, 2, 2, message_prior=[1.0])
        with pytest.raises(ValueError, match="num_particles is 0"):
            models.public_belief(game, 2, 2, num_particles=0)

    @pytest.mark.slow
    @pytest.mark.timeout(1500)
    def test_two_learn_to_signal(self):
        """The optimum of the two-step game is 10, of which 8 is had without signals; a rising temperature finds it."""
        made = models.public_belief(gallery.two_step_game(), 2, 1, 10.0, num_particles=20)
        guide, loss, optimizer = made.learned, svi.ParticleELBO(100), optax.adam(0.05)
        for factor in jnp.geomspace(0.02, 1, 8):
            tempered = made.tempered(factor)
            fit = svi.fit(tempered, KEY, 100, guide=guide, loss=loss, optimizer=optimizer, tolerance=0.0)
            guide = fit.guide
        played = execution.roll_out(made.with_guide(guide), KEY, None, 2000)
        assert played.mean > 9.5
