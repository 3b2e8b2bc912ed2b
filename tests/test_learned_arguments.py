"""What a program does not know is learned along with its guide: arguments, unknown worlds, what messages mean."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from jaxtyping import Array
from numpy.testing import assert_allclose, assert_array_equal
from numpyro.distributions import Bernoulli, Categorical, constraints
from numpyro.infer import SVI

from rlinf_ppl import ControlProgram, decide, models, optimality, over_time, parameter
from rlinf_ppl.inference import exact, svi
from rlinf_ppl.tasks import POMDP

KEY = jax.random.key(0)
PRIOR = np.array([0.5, 0.3, 0.2])
REWARD = np.array([[0.2, -0.4, 1.0], [0.0, 0.7, -0.3]])


def initial(chance, reward):
    return {"s": numpyro.sample("first", Categorical(probs=jnp.array([0.6, 0.4])))}


def step(chance, reward, s):
    """The world shows a one with an unknown chance, which the action that sees it is paid by."""
    a = decide("a", Categorical(probs=jnp.asarray(PRIOR)))
    optimality(reward[s, a] * chance)
    numpyro.sample("y", Bernoulli(probs=chance), obs=1.0)
    return {"s": numpyro.sample("s_next", Categorical(probs=jnp.stack([chance, 1 - chance])))}


class Knows(eqx.Module):
    chance: Array = parameter(constraints.unit_interval)
    logits: Array = parameter(constraints.real)

    def arguments(self, chance, reward):
        return self.chance, reward

    def a(self, s):
        return Categorical(logits=self.logits[s])


def knowing(chance=0.3, seed=1):
    return Knows(jnp.asarray(chance), jnp.asarray(np.random.default_rng(seed).normal(size=(2, 3))))


def program(chance=0.3, horizon=3, made=step):
    return ControlProgram(initial, made, horizon, args=(jnp.asarray(chance), jnp.asarray(REWARD)))


def bound_by_hand(chance, logits, horizon=3):
    """The ELBO of the guide, forwards."""
    q = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    states, total = np.array([0.6, 0.4]), 0.0
    for _ in range(horizon):
        gain = (q * (REWARD * chance - np.log(q / PRIOR))).sum(1) + np.log(chance)
        total, states = total + states @ gain, np.array([chance, 1 - chance])
    return total


class TestArguments:
    def test_the_program_has_what_its_guide_says(self):
        made = program().with_guide(knowing(0.8))
        assert_array_equal(made.args[0], 0.8)
        assert_array_equal(made.args[1], REWARD)
        assert_array_equal(program().with_guide(None).args[0], 0.3)

    def test_a_bound_is_that_of_the_program_with_these_arguments(self):
        guide = knowing(0.8)
        q = jax.nn.softmax(guide.logits)
        expected = exact.elbo(program(0.8), {"a": jnp.broadcast_to(q, (3, 2, 3))})
        assert_allclose(expected, bound_by_hand(0.8, np.asarray(guide.logits)), rtol=1e-12)
        estimate = svi.ParticleELBO(4000).in_nats(program(), program().with_guide(guide).learned, KEY)
        assert_allclose(estimate, expected, atol=0.1)

    def test_its_slope_is_exact_on_average(self):
        """In the chance and in the logits: of many estimates, against differences of the bound by hand."""
        guide, loss, made = knowing(0.6), svi.ParticleELBO(200), program()
        learned, target = made.with_guide(guide).learned, loss.read(made)

        def slope(key):
            return jax.grad(lambda guide: loss.estimate(target, guide, key))(learned).free

        found = jax.lax.map(slope, jax.random.split(KEY, 200))
        h, logits = 1e-5, np.asarray(guide.logits)
        up, down = (bound_by_hand(0.6 + d, logits) for d in (h, -h))
        # The chance is learned where it has no bounds: d chance / d free = chance (1 - chance).
        exact_slope = (up - down) / (2 * h) * 0.6 * 0.4
        z = (np.mean(found[0]) - exact_slope) / (np.std(found[0]) / np.sqrt(200))
        assert abs(z) < 4
        for i in np.ndindex(2, 3):
            e = np.zeros((2, 3))
            e[i] = h
            difference = (bound_by_hand(0.6, logits + e) - bound_by_hand(0.6, logits - e)) / (2 * h)
            each = np.asarray(found[1])[:, *i]
            assert abs(each.mean() - difference) < 4 * each.std() / np.sqrt(200) + 1e-9

    @pytest.mark.slow
    def test_a_fit_finds_both(self):
        """The largest bound: a chance near one, as what is seen says, and the soft policy for it."""
        fit = svi.fit(
            program(), KEY, 400, guide=knowing(), loss=svi.ParticleELBO(50), optimizer=optax.adam(0.1), tolerance=0.0
        )
        assert fit.params["chance"] > 0.95
        made = program().with_guide(fit.guide)
        assert_array_equal(made.args[0], fit.params["chance"])
        best = exact.solve(made).elbo
        assert best - 0.1 < bound_by_hand(float(made.args[0]), np.asarray(fit.params["logits"])) <= best + 1e-9
        assert fit.policy["a"].shape == (3, 2, 3)

    def test_numpyro_learns_them_too(self):
        made = program().with_guide(knowing())
        start = made.learned.params
        with numpyro.handlers.seed(rng_seed=0):
            model = numpyro.handlers.trace(made.model).get_trace()
        assert {name for name, site in model.items() if site["type"] == "param"} == set(start)
        found = SVI(made.model, made.guide, optax.adam(0.1), svi.ParticleELBO(20)).run(KEY, 60, progress_bar=False)
        assert found.params["chance"] > 0.6

    def test_rows_over_time(self):
        def varying(chance, reward, s):
            return step(chance, reward, s)

        class Rows(Knows):
            def arguments(self, chance, reward):
                return over_time(jnp.stack([self.chance, self.chance / 2, self.chance / 4])), reward

        args = over_time(jnp.full(3, 0.1)), jnp.asarray(REWARD)
        made = ControlProgram(initial, varying, 3, args=args).with_guide(Rows(jnp.asarray(0.8), jnp.zeros((2, 3))))
        assert_allclose(made.args[0].rows, [0.8, 0.4, 0.2])

    def test_no_decisions(self):
        """An unknown chance alone, from what was seen: three ones."""

        def seen(chance):
            numpyro.sample("y", Bernoulli(probs=chance), obs=1.0)
            return {}

        class Chance(eqx.Module):
            chance: Array = parameter(constraints.unit_interval)

            def arguments(self, chance):
                return (self.chance,)

        made = ControlProgram(lambda chance: {}, seen, 3, args=(jnp.asarray(0.3),))
        loss = svi.ParticleELBO(1)
        fit = svi.fit(made, KEY, 1, guide=Chance(jnp.asarray(0.3)), loss=loss, optimizer=optax.sgd(0.0))
        assert_allclose(fit.losses[0], -3 * np.log(0.3), rtol=1e-12)

    def test_wrong_ones_are_refused(self):
        class Fewer(Knows):
            def arguments(self, chance):
                return (self.chance,)

        class Bare(Knows):
            def arguments(self, chance, reward):
                return self.chance

        class Larger(Knows):
            def arguments(self, chance, reward):
                return jnp.stack([self.chance, self.chance]), reward

        made, parts = program(), (jnp.asarray(0.3), jnp.zeros((2, 3)))
        with pytest.raises(TypeError, match="arguments takes the program's arguments, 2 of them"):
            made.with_guide(Fewer(*parts))
        with pytest.raises(TypeError, match="must return a tuple"):
            made.with_guide(Bare(*parts))
        with pytest.raises(ValueError, match=r"the guide's arguments: args\[0\] has shape \(2,\)"):
            made.with_guide(Larger(*parts))
        for loss in (svi.ExactELBO(), svi.NodeELBO()):
            with pytest.raises(TypeError, match=r"learns some of them: give loss=svi.ParticleELBO"):
                svi.fit(made, KEY, 10, guide=knowing(), loss=loss, optimizer=optax.adam(0.1))


TRANSITION = np.array([[[0.85, 0.15], [0.3, 0.7]], [[0.2, 0.8], [0.6, 0.4]]])
OBSERVATION = np.array([[[0.8, 0.15, 0.05]] * 2, [[0.1, 0.2, 0.7]] * 2])
FIRST = np.array([0.7, 0.3])


def episodes(n, horizon, seed=0):
    rng = np.random.default_rng(seed)
    actions, seen = rng.integers(0, 2, (n, horizon)), np.zeros((n, horizon), int)
    for i in range(n):
        s = rng.choice(2, p=FIRST)
        for t in range(horizon):
            s = rng.choice(2, p=TRANSITION[s, actions[i, t]])
            seen[i, t] = rng.choice(3, p=OBSERVATION[s, actions[i, t]])
    return actions, seen


def world(transition, observation, first):
    return POMDP(transition, jnp.zeros((2, 2)), observation, first)


@pytest.fixture
def promoting():
    """NumPyro's own bijection to the simplex promotes ranks."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.usefixtures("promoting")
class TestUnknownWorld:
    def test_one_particle_pays_for_leaving_the_world(self):
        """E log p_hat of one particle is the ELBO of the proposal, by enumeration of all hidden paths."""
        actions, seen = episodes(2, 2)
        made = models.unknown_world(world(TRANSITION, OBSERVATION, FIRST), actions, seen)
        theta = np.random.default_rng(3).normal(size=(2, 3, 4, 2))
        guide = eqx.tree_at(lambda module: module.proposal, made.learned.module, jnp.asarray(theta))
        q = np.exp(theta) / np.exp(theta).sum(-1, keepdims=True)
        total = 0.0
        for a, o in zip(actions, seen, strict=True):
            for s in np.ndindex(2, 2, 2):
                drawn = FIRST[s[0]] * np.prod([q[s[t], a[t], o[t], s[t + 1]] for t in range(2)])
                told = [TRANSITION[s[t], a[t], s[t + 1]] * OBSERVATION[s[t + 1], a[t], o[t]] for t in range(2)]
                paid = [q[s[t], a[t], o[t], s[t + 1]] for t in range(2)]
                total += drawn * np.sum(np.log(told) - np.log(paid))
        # Between episodes the process begins anew, by a proposal that sees nothing.
        begun = 0.0
        last = [sum(self.path(q, actions[0], seen[0], s) for s in np.ndindex(2, 2, 2) if s[2] == k) for k in (0, 1)]
        for k, mass in enumerate(last):
            rows = q[k, 2, 3]
            begun += mass * np.sum(rows * (np.log(FIRST) - np.log(rows)))
            # The second episode's first state comes from these rows.
        second = np.array(last) @ q[:, 2, 3]
        total += begun + self.rest(q, actions[1], seen[1], second) - self.rest(q, actions[1], seen[1], FIRST)
        loss, learned = svi.ParticleELBO(4000), made.with_guide(guide).learned
        estimate = jax.jit(lambda key: loss.estimate(loss.read(made), learned, key))
        found = np.array([estimate(jax.random.key(i)) for i in range(20)])
        assert abs(found.mean() - total) < 4 * found.std() / np.sqrt(20)

    @staticmethod
    def path(q, a, o, s):
        return FIRST[s[0]] * np.prod([q[s[t], a[t], o[t], s[t + 1]] for t in range(2)])

    @staticmethod
    def rest(q, a, o, first):
        total = 0.0
        for s in np.ndindex(2, 2, 2):
            drawn = first[s[0]] * np.prod([q[s[t], a[t], o[t], s[t + 1]] for t in range(2)])
            told = [TRANSITION[s[t], a[t], s[t + 1]] * OBSERVATION[s[t + 1], a[t], o[t]] for t in range(2)]
            total += drawn * np.sum(np.log(told) - np.log([q[s[t], a[t], o[t], s[t + 1]] for t in range(2)]))
        return total

    def test_what_is_impossible_is_never_learned(self):
        actions, seen = episodes(2, 2)
        sure = np.eye(2)[:, None].repeat(TRANSITION.shape[1], 1)
        with pytest.raises(ValueError, match=r"pomdp's transition\[0, 0, 1\] is 0, .* start from a world of numbers"):
            models.unknown_world(world(sure, OBSERVATION, FIRST), actions, seen)

    @pytest.mark.slow
    def test_a_world_is_recovered(self):
        """From 60 episodes, as well as maximum likelihood does to two nats, and better than the truth does."""
        actions, seen = episodes(60, 10)
        start = world(0.5 * TRANSITION + 0.25, 0.4 * OBSERVATION + 0.2, [0.5, 0.5])

        def log_prob(task):
            return exact.condition(models.episode(task, actions, seen)).log_evidence

        made = models.unknown_world(start, actions, seen)
        loss, optimizer = svi.ParticleELBO(4, num_particles=10), optax.adam(0.05)
        fit = svi.fit(made, KEY, 300, loss=loss, optimizer=optimizer, tolerance=0.0)
        found = fit.guide.module
        learned = log_prob(world(found.transition, found.observation, found.initial))
        assert log_prob(start) + 30 < learned and log_prob(world(TRANSITION, OBSERVATION, FIRST)) < learned
        assert fit.elbo < learned
        assert_allclose(found.observation, OBSERVATION, atol=0.15)
