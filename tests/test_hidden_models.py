"""Agents under hidden state: little memory, the belief, and particles, against lists of histories and trajectories."""

from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpyro import handlers
from numpyro.distributions import Categorical, Normal
from numpyro.infer import SVI, Predictive
from numpyro.infer.util import log_density
from oracles import hidden_state as oracle

from rlinf_ppl import models
from rlinf_ppl.inference import beliefs, exact, execution, svi
from rlinf_ppl.models.particle_belief import FiniteProcess
from rlinf_ppl.tasks import POMDP, gallery

KEY = jax.random.key(0)
STEPS, EPISODES = 3, 4000


def random_task(seed, discount=0.8):
    rng = np.random.default_rng(seed)
    tables = rng.dirichlet(0.5 * np.ones(3), (3, 2)), 2 * rng.normal(size=(3, 2)), rng.dirichlet(np.ones(2), (3, 2))
    return oracle.Task(*tables, rng.dirichlet(np.ones(3)), discount)


TASK = random_task(0)


def pomdp(task=TASK):
    return POMDP(task.transition, task.reward, task.observation, task.initial, task.discount)


def is_near(rolled, expected, errors=4.0):
    assert abs(float(rolled.mean) - expected) <= errors * float(rolled.standard_error)


def estimated(program, beta, particles=1):
    """The ELBO by batches of 500 episodes, each of which may end early, as the discount has it."""
    loss = svi.ParticleELBO(500, particles)
    keys = jax.random.split(jax.random.key(1), 8)
    read = jax.jit(lambda key: loss.in_nats(program, program.learned, key))
    found = np.array([read(key) for key in keys]) / beta
    return found.mean(), found.std(ddof=1) / np.sqrt(len(found))


# Little memory


def random_controller(seed, memories):
    rng = np.random.default_rng(seed)
    policy = rng.dirichlet(np.ones(2), (STEPS, 3, memories))
    return policy, rng.dirichlet(np.ones(memories), (STEPS, memories, 3))


@pytest.mark.parametrize("prior", [None, np.array([0.3, 0.7])])
def test_memoryless_policies(prior):
    program = models.finite_memory(pomdp(), STEPS, 1, 0.7, prior)
    assert program.state == ("s", "o")
    assert program.scopes == {"a": ("o",)}
    policy = random_controller(0, 1)[0][:, :, 0]
    truth = oracle.memoryless_value(TASK, 0.7, policy, np.ones(2) / 2 if prior is None else prior)
    np.testing.assert_allclose(exact.elbo(program, {"a": policy}), truth, rtol=1e-10)


@pytest.mark.parametrize("memory_beta", [None, 5.0])
def test_policies_of_two_memories(memory_beta):
    program = models.finite_memory(pomdp(), STEPS, 2, 0.7, memory_beta=memory_beta)
    assert set(program.state) == {"s", "o", "m_prev"}
    policy, memory = random_controller(1, 2)
    assert program.scopes == {"m": ("o", "m_prev"), "a": ("o", "m")}
    tables = {"m": np.swapaxes(memory, 1, 2), "a": policy}
    truth = oracle.memory_value(TASK, 0.7, 0.7 if memory_beta is None else memory_beta, policy, memory)
    np.testing.assert_allclose(exact.elbo(program, tables), truth, rtol=1e-10)


def test_a_memory_that_is_not_used_is_that_of_the_memoryless():
    policy = random_controller(2, 1)[0]
    program = models.finite_memory(pomdp(), STEPS, 2, 0.7)
    tables = {"m": np.full((1, 1, 2), 0.5), "a": policy}
    truth = oracle.memoryless_value(TASK, 0.7, policy[:, :, 0])
    np.testing.assert_allclose(exact.elbo(program, tables), truth, rtol=1e-10)


@pytest.mark.parametrize("memories", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_fits_of_little_memory_stay_below_the_belief(memories):
    for seed in range(3):
        task = pomdp(random_task(seed))
        upper = float(beliefs.solve(task, STEPS, 2.0).upper)
        program = models.finite_memory(task, STEPS, memories, 2.0, memory_beta=1e3)
        fit = svi.fit(program, KEY, 100, num_restarts=4)
        assert fit.policy["a"].shape == ((STEPS, 3, 2) if memories == 1 else (STEPS, 3, 2, 2))
        assert np.asarray(fit.restarts).max() <= upper + 1e-9
        assert float(fit.elbo) >= float(exact.elbo(program, exact.prior_policy(program))) - 1e-9


def test_memories_are_idle_near_the_prior_and_not_from_starts_that_are_spread():
    """A tiger is heard twice before a door opens; who remembers nothing opens none in vain, and gains nothing."""
    program = models.finite_memory(gallery.tiger(discount=1.0), 3, 2, memory_beta=1e3)
    near = svi.fit(program, KEY, 100, num_restarts=12)
    spread = svi.fit(program, KEY, 100, num_restarts=12, spread=3.0)
    assert float(near.elbo) < -6
    assert -1 < float(spread.elbo) <= float(beliefs.solve(gallery.tiger(discount=1.0), 3).upper)
    np.testing.assert_allclose(exact.elbo(program, spread.policy), spread.elbo, rtol=1e-10)


# The belief


def tilted(shares):
    """A policy that a belief moves."""
    return jnp.stack([0.2 + 0.6 * shares[0], 0.8 - 0.6 * shares[0]])


@cache
def believing(beta=0.9):
    return models.belief(pomdp(), STEPS, beta)


def test_episodes_of_a_policy_of_the_belief():
    _, earned = oracle.policy_value(TASK, STEPS, 1.0, lambda b, t: np.asarray(tilted(b)))
    law = {"a": lambda belief, t: Categorical(probs=tilted(belief))}
    is_near(execution.roll_out(believing(), KEY, law, EPISODES), earned)


def test_the_joint_density_of_the_belief_model():
    program, beta = believing(), 0.9
    actions, seen = [1, 0, 1], [0, 1, 1]
    drawn = {f"t{t}/a": jnp.asarray(a) for t, a in enumerate(actions)}
    drawn |= {f"t{t}/o": jnp.asarray(o) for t, o in enumerate(seen)}
    drawn |= {f"t{t}/alive": jnp.asarray(1) for t in range(1, STEPS)}
    with handlers.seed(rng_seed=0):
        names = {name for name, site in handlers.trace(program.model).get_trace().items() if site["type"] == "sample"}
    drawn = {name: value for name, value in drawn.items() if name in names}
    found, _ = log_density(program.model, (), {}, drawn)
    mass = TASK.initial
    truth = STEPS * np.log(0.5) + (STEPS - 1) * np.log(TASK.discount)
    for a, o in zip(actions, seen, strict=True):
        truth += beta * (mass @ TASK.reward[:, a]) / mass.sum()
        mass = oracle.followed(TASK, mass, a)[:, o]
    np.testing.assert_allclose(found, truth + np.log(mass.sum()), rtol=1e-10)


@pytest.mark.parametrize("make", ["belief", pytest.param("particles", marks=pytest.mark.slow)])
def test_networks_start_at_the_prior(make):
    program = believing() if make == "belief" else models.particle_belief(pomdp(), STEPS, 5, 0.9)
    prior = oracle.policy_value(TASK, STEPS, 0.9, lambda b, t: np.ones(2) / 2)[0]
    is_near(execution.roll_out(program, KEY, program.learned, EPISODES), prior)
    mean, error = estimated(program, 0.9)
    assert abs(mean - prior) <= 5 * error


def test_a_few_steps_climb_and_stay_below_what_is_possible():
    program = models.belief(pomdp(), STEPS, 3.0)
    upper = float(beliefs.solve(pomdp(), STEPS, 3.0).upper)
    fit = svi.fit(program, KEY, 60, loss=svi.ParticleELBO(200), optimizer=optax.adam(0.01), tolerance=0.0)
    law = lambda b, t: np.asarray(fit.policy["a"](belief=jnp.asarray(b), t=t).probs)  # noqa: E731
    elbo = oracle.policy_value(TASK, STEPS, 3.0, law)[0]
    assert -float(fit.losses[0]) + 0.5 < elbo <= upper
    mean, error = estimated(program.with_guide(fit.guide.module), 3.0)
    assert abs(mean - elbo) <= 5 * error


@pytest.mark.slow
def test_numpyro_fits_it_and_draws_from_it():
    program = models.belief(pomdp(), STEPS, 3.0)
    of_numpyro = SVI(program.model, program.guide, optax.adam(0.01), svi.ParticleELBO(100))
    result = of_numpyro.run(KEY, 30, progress_bar=False)
    assert np.mean(result.losses[-5:]) < result.losses[0]
    drawn = Predictive(program.guide, params=result.params, num_samples=50)(jax.random.key(1))
    assert drawn["t0/a"].shape == (50,)
    assert set(np.unique(drawn["t2/a"])) <= {0, 1}


@pytest.mark.parametrize("make", ["belief", pytest.param("particles", marks=pytest.mark.slow)])
def test_what_the_prior_forbids_is_never_done(make):
    prior = np.array([0.0, 1.0])
    if make == "belief":
        program = models.belief(pomdp(), STEPS, 1.0, prior)
    else:
        program = models.particle_belief(Forbidding(FiniteProcess(pomdp())), STEPS, 5, 1.0)
    fit = svi.fit(program, KEY, 3, loss=svi.ParticleELBO(20), optimizer=optax.adam(0.1))
    law = fit.policy["a"](**{program.scopes["a"][0]: first_seen(program)}, t=0)
    np.testing.assert_array_equal(law.probs, prior)
    always = oracle.policy_value(TASK, STEPS, 1.0, lambda b, t: prior, prior)[1]
    is_near(execution.roll_out(program, KEY, fit, EPISODES), always)


def first_seen(program):
    return jnp.asarray(TASK.initial) if "belief" in program.state else jnp.zeros(5, int)


# Particles


class Forbidding(eqx.Module):
    """A process of one's own: a POMDP's, with one action only."""

    task: FiniteProcess
    discount: float = TASK.discount

    def action_law(self) -> Any:
        return Categorical(probs=jnp.array([0.0, 1.0]))

    def first_law(self) -> Any:
        return self.task.first_law()

    def next_law(self, x, a) -> Any:
        return self.task.next_law(x, a)

    def observation_law(self, x_next, a) -> Any:
        return self.task.observation_law(x_next, a)

    def gain(self, x, a, x_next) -> Any:
        return self.task.gain(x, a, x_next)


class Drift(eqx.Module):
    """A point that drifts where it is pushed, seen through noise; it is paid for being near 0."""

    noise: float = 0.5

    def action_law(self) -> Any:
        return Categorical(probs=jnp.full(3, 1 / 3))

    def first_law(self) -> Any:
        return Normal(2.0, 1.0)

    def next_law(self, x, a) -> Any:
        return Normal(x + (a - 1.0), self.noise)

    def observation_law(self, x_next, a) -> Any:
        return Normal(x_next, 1.0)

    def gain(self, x, a, x_next) -> Any:
        return -jnp.square(x_next)


def shares_of(particles):
    return jnp.mean((particles[:, None] == jnp.arange(3)[None]).astype(float), 0)


@pytest.mark.parametrize("count", [1, 7])
def test_particles_that_are_not_looked_at_change_nothing(count):
    program = models.particle_belief(pomdp(), STEPS, count, 0.9)
    assert program.scopes == {"a": ("particles",)}
    _, earned = oracle.policy_value(TASK, STEPS, 1.0, lambda b, t: np.array([0.3, 0.7]))
    law = {"a": lambda particles, t: Categorical(probs=jnp.array([0.3, 0.7]))}
    is_near(execution.roll_out(program, KEY, law, EPISODES), earned)


@pytest.mark.parametrize("mode", ["dense", pytest.param("sparse", marks=pytest.mark.slow)])
def test_many_particles_are_the_belief(mode):
    """A policy of what they share out earns what it earns of the belief."""
    task = pomdp() if mode == "dense" else pomdp().as_sparse()
    program = models.particle_belief(task, STEPS, 100, 0.9)
    _, earned = oracle.policy_value(TASK, STEPS, 1.0, lambda b, t: np.asarray(tilted(b)))
    law = {"a": lambda particles, t: Categorical(probs=tilted(shares_of(particles)))}
    is_near(execution.roll_out(program, KEY, law, EPISODES), earned)


def test_particles_after_what_was_done_and_seen_are_the_filtered_law():
    """On average over episodes in which the same was done and seen, by the places that the next ones move to."""
    actions, seen, count = [1, 0], [0, 1], 400
    program = models.particle_belief(pomdp(), STEPS, count, 0.9)
    given = {f"t{t}/{name}": jnp.asarray(x[t]) for name, x in (("a", actions), ("o", seen)) for t in range(2)}
    given |= {"t2/a": jnp.asarray(1)}

    def moved(key):
        model = handlers.condition(handlers.seed(program.model, key), given)
        return shares_of(handlers.trace(model).get_trace()["t2/moved"]["value"])

    found = np.mean(jax.jit(jax.vmap(moved))(jax.random.split(KEY, 200)), 0)
    truth = oracle.filtered(TASK, actions, seen)[-1] @ TASK.transition[:, 1]
    np.testing.assert_allclose(found, truth, atol=5 * 0.5 / np.sqrt(200 * count) + 1 / count)


def test_particles_that_all_miss_what_was_seen_break_nothing():
    sharp = TASK._replace(observation=np.repeat(np.array([[[1.0, 0]], [[0, 1.0]], [[1.0, 0]]]), 2, 1))
    for count in (1, 3):
        program = models.particle_belief(pomdp(sharp), STEPS, count, 0.9)
        law = {"a": lambda particles, t: Categorical(probs=jnp.array([0.3, 0.7]))}
        _, earned = oracle.policy_value(sharp, STEPS, 1.0, lambda b, t: np.array([0.3, 0.7]))
        is_near(execution.roll_out(program, KEY, law, EPISODES), earned)


@pytest.mark.slow
def test_fits_go_on_where_all_particles_miss():
    sharp = TASK._replace(observation=np.repeat(np.array([[[1.0, 0]], [[0, 1.0]], [[1.0, 0]]]), 2, 1))
    program = models.particle_belief(pomdp(sharp), STEPS, 3, 0.9)
    fit = svi.fit(program, KEY, 3, loss=svi.ParticleELBO(20), optimizer=optax.adam(0.1))
    assert np.isfinite(fit.losses).all()
    assert np.isfinite(float(fit.elbo))


def test_a_continuous_process_of_ones_own():
    program = models.particle_belief(Drift(), STEPS, 20, 0.5)
    law = {"a": lambda particles, t: Categorical(logits=-4.0 * jnp.square(jnp.arange(3) - jnp.where(t < 2, 0, 1)))}
    probs = np.exp(-4 * np.square(np.arange(3)[None] - np.array([0, 0, 1])[:, None]))
    probs /= probs.sum(1, keepdims=True)
    moves = np.array([-1.0, 0, 1])
    mean, var, truth = 2.0, 1.0, 0.0
    for p in probs:
        mean, var = mean + p @ moves, var + p @ moves**2 - (p @ moves) ** 2 + 0.25
        truth -= mean**2 + var
    is_near(execution.roll_out(program, KEY, law, EPISODES), truth)


@pytest.mark.slow
def test_a_network_of_means_and_spreads_is_fitted():
    program = models.particle_belief(Drift(), STEPS, 20, 0.5)
    fit = svi.fit(program, KEY, 40, loss=svi.ParticleELBO(100), optimizer=optax.adam(0.02), tolerance=0.0)
    assert float(fit.elbo) > -float(fit.losses[0]) + 1.0


def test_bad_input():
    for build in (models.finite_memory, models.belief):
        with pytest.raises(TypeError, match="pomdp"):
            build(pomdp().mdp, STEPS)
    with pytest.raises(ValueError, match="num_memories .*at least one memory"):
        models.finite_memory(pomdp(), STEPS, 0)
    with pytest.raises(ValueError, match="num_particles .*at least one particle"):
        models.particle_belief(pomdp(), STEPS, 0)
    with pytest.raises(TypeError, match="process is a MDP, which has no action_law, first_law"):
        models.particle_belief(pomdp().mdp, STEPS)
    with pytest.raises(ValueError, match="prior"):
        models.belief(pomdp(), STEPS, 1.0, np.ones(3) / 3)
    with pytest.raises(ValueError, match="discount"):
        models.belief(pomdp(TASK._replace(discount=1.0)), None)
