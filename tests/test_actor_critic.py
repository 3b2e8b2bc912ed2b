"""Soft actor-critic: its targets and its ELBO against exact action values, its fits against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from game_programs import random_game
from numpyro.distributions import Categorical, MixtureSameFamily, Normal
from programs_more import PAIRS
from selection import quick

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.algebra.regularizers import tsallis
from rlinf_ppl.inference import exact, execution, smc, svi
from rlinf_ppl.inference.fitting import guides
from rlinf_ppl.inference.fitting.actor_critic import Carried
from rlinf_ppl.inference.fitting.judging import Judge
from rlinf_ppl.inference.fitting.walking import fresh, trajectory_elbo, walked
from rlinf_ppl.program import read
from rlinf_ppl.program.conditionals import Looked, Tilted
from rlinf_ppl.tasks import MDP, gallery

KEY = jax.random.key(0)
GAME = random_game(5)
PROGRAMS = {
    "dice": PAIRS["dice"].control,
    "two_temperatures": PAIRS["two_temperatures"].control,
    "discounted_final": PAIRS["discounted_final"].control,
    "a minimiser": lambda: models.balancing_q(
        GAME.task, 3, 1.5, -0.8, GAME.alone, GAME.opponent_reply, 0.9
    ),
    "without end": lambda: models.balancing_q(
        GAME.task, None, 1.5, -0.8, GAME.alone, GAME.opponent_reply, 0.8
    ),
}  # fmt: skip


def solved(program):
    """The exact policy as a guide, and its exact action values as critics."""
    chain, solution, prior = read(program), exact.solve(program), exact.prior_policy(program)
    logits = {name: jnp.log(jnp.where(p > 0, solution.policy[name] / p, 1.0)) for name, p in prior.items()}
    _, values = jax.jit(guides.action_values)(chain, logits)
    timed = program.horizon is not None

    def looked(array, name):
        return Looked(array, tuple((axis, program.supports[axis]) for axis in program.scopes[name]), timed)

    guide = {name: Tilted(looked(theta, name), program.supports[name]) for name, theta in logits.items()}
    return solution, guide, {name: looked(q, name) for name, q in values.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_targets_of_the_exact_action_values_are_these_values(name):
    """On average over chance, at every decision: along the walkers' way, and against what is met there."""
    program, n = PROGRAMS[name](), 40_000
    loss = svi.ActorCritic(num_walkers=n)
    dynamics = loss.read(program)
    solution, guide, critics = solved(program)
    judge = Judge(dynamics, guide, critics, jnp.asarray(1.0))

    @jax.jit
    def met(key):
        walk_key, start_key, noise_key = jax.random.split(key, 3)
        walkers = fresh(dynamics, start_key, n)
        steps = []
        for each in jax.random.split(walk_key, program.horizon or 3):
            walkers, at = walked(dynamics, guide, walkers, each)
            keys = jax.random.split(noise_key, n)
            steps.append((at, jax.vmap(judge.targets)(at, keys), jax.vmap(judge.action_values)(at)))
        return steps

    for at, targets, values in met(KEY):
        for decision in program.scopes:
            off = np.asarray(targets[decision] - values[decision])
            for tried in (1.0, np.asarray(at[decision], float), np.asarray(values[decision])):
                moment = off * tried
                assert abs(moment.mean()) <= 4.5 * moment.std() / np.sqrt(n) + 1e-6
    found = jax.jit(lambda key: trajectory_elbo(dynamics, guide, key, n))(KEY)
    assert float(found) == pytest.approx(float(solution.elbo), abs=0.05)


@pytest.mark.parametrize("promised", quick([3.0], [0.0, 3.0, -1.0]))
def test_the_verdict_is_what_the_critic_promises_beside_what_is_earned(promised):
    """Of the exact policy, whose ELBO is known, by the spread of its action values."""
    program, off = PROGRAMS["two_temperatures"](), abs(promised)
    loss = svi.ActorCritic()
    dynamics = loss.read(program)
    solution, guide, critics = solved(program)
    _, met = walked(dynamics, guide, fresh(dynamics, KEY, 500), KEY)
    values = jax.vmap(Judge(dynamics, guide, critics, 1.0).action_values)(met)
    spread = max(float(np.std(each)) for each in values.values())
    carried = Carried(critics, None, None, jnp.asarray(1.0), None, met, None)
    verdict = jax.jit(lambda recent, steps: loss.residual(dynamics, guide, recent, steps, carried))
    still = jnp.full(loss.window, -solution.elbo - promised)
    noise = 4.5 / np.sqrt(1000) / spread
    assert float(verdict(still, 1500)) == pytest.approx(off / spread, abs=noise)
    assert float(verdict(still, 1501)) == np.inf
    assert float(verdict(still.at[0].set(jnp.inf), 1500)) == np.inf
    assert float(verdict(still.at[-1].set(jnp.nan), 1500)) == np.inf
    rising = still.at[: loss.window // 2].add(5.0)
    assert float(verdict(rising, 1500)) == pytest.approx(max(5.0, off) / spread, abs=noise)


def chain_task(states=6):
    """A walk along a line whose far end pays."""
    move = np.stack([np.maximum(np.arange(states) - 1, 0), np.minimum(np.arange(states) + 1, states - 1)], 1)
    reward = np.full((states, 2), -0.1)
    reward[-1] = 1.0
    return MDP(np.eye(states)[move], reward, np.eye(states)[0])


def decaying(rate, steps):
    return optax.adam(optax.cosine_decay_schedule(rate, steps))


@pytest.mark.slow
@pytest.mark.parametrize("horizon", [12, None])
def test_a_fit_comes_near_the_closed_form(horizon):
    """Within a tenth of what there is to win over the prior: action values are learned, not solved for."""
    program = models.single_agent(chain_task(), horizon, beta=3.0, discount=0.95 if horizon is None else 1.0)
    steps = 4000
    loss = svi.ActorCritic(critic_optimizer=decaying(3e-3, steps))
    guide = svi.networks(program, KEY, width=32)
    fit = svi.fit(program, KEY, steps, guide=guide, loss=loss, optimizer=decaying(3e-3, steps))
    best, least = float(exact.solve(program).elbo), float(exact.elbo(program, exact.prior_policy(program)))
    assert float(fit.elbo) > best - 0.1 * (best - least)
    assert float(fit.losses[-100:].mean()) == pytest.approx(-best, abs=0.1 * (best - least))
    assert bool(fit.converged) == (horizon is not None)
    assert (len(fit.losses) < steps) == bool(fit.converged)
    soon = svi.fit(program, KEY, 1000, guide=guide, loss=loss, optimizer=decaying(3e-3, steps))
    assert not soon.converged and np.isfinite(soon.residual)


@pytest.mark.slow
def test_a_fit_goes_on_unbroken(tmp_path):
    program = models.single_agent(chain_task(3), 4)
    options = {"loss": svi.ActorCritic(8, 16, 64), "optimizer": optax.adam(1e-3)}
    guide = svi.networks(program, KEY, width=8, depth=1)
    unbroken = svi.fit(program, KEY, 30, guide=guide, **options)
    broken = svi.fit(program, KEY, 12, guide=guide, **options)
    svi.save(broken, tmp_path / "fit.npz")
    resumed = svi.load(tmp_path / "fit.npz", program, guide=guide, **options).resume(18)
    np.testing.assert_array_equal(resumed.losses, unbroken.losses)
    assert resumed.elbo == unbroken.elbo


def fit(program, **options):
    return svi.fit(program, KEY, 2, **{"loss": svi.ActorCritic(4, 4, 8), "optimizer": optax.sgd(0.1)} | options)


WRONG = {
    "tables": (
        lambda: fit(models.single_agent(chain_task(), 2), guide={"a": jnp.zeros((2, 6, 2))}),
        TypeError,
        r"ActorCritic fits networks for \['a'\]: give guide=svi.networks",
    ),
    "another regularizer": (
        lambda: fit(models.regularized(chain_task(), 2, tsallis)),
        ValueError,
        "regularized by tsallis",
    ),
    "at once": (
        lambda: fit(models.quantal_response(GAME.task, 2, 1.0, 1.0)),
        ValueError,
        "do not see all that their action values depend on",
    ),
    "no scale": (
        lambda: fit(models.balancing_q(GAME.task, 2, 0.0, 1.0)),
        ValueError,
        "inverse temperature of 'a' is 0 or not finite",
    ),
    "no optimizer": (
        lambda: fit(models.single_agent(gallery.lottery(), 2), optimizer=None),
        ValueError,
        "goes with an optimizer",
    ),
    "nothing kept": (lambda: svi.ActorCritic(capacity=0), ValueError, "capacity must be at least 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_together_is_named(case):
    call, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        call()


def pushed(law):
    """A number that is pushed to 1, with a decision of real numbers."""

    def step(x):
        u = decide("u", law, inverse_temperature=2.0)
        optimality(-((x - 1.0) ** 2) - 0.5 * u**2)
        return {"x": numpyro.sample("x_next", Normal(x + u, 0.1))}

    return ControlProgram(lambda: {"x": numpyro.sample("x0", Normal(0.0, 0.5))}, step, 5)


@pytest.mark.slow
def test_a_decision_of_real_numbers_is_learned_along_the_critics_slope():
    program, steps = pushed(Normal(0.0, 1.0)), 4000
    best, least = float(exact.solve(program).elbo), float(exact.elbo(program, exact.prior_policy(program)))
    loss = svi.ActorCritic(critic_optimizer=decaying(3e-3, steps))
    guide = svi.networks(program, KEY, width=32)
    fit = svi.fit(program, KEY, steps, guide=guide, loss=loss, optimizer=decaying(3e-3, steps))
    assert float(fit.elbo) > best - 0.1 * (best - least)


@pytest.mark.slow
def test_a_decision_whose_draws_jump_is_learned_by_its_score():
    """A mixture has no draws that move with its weights."""
    humps = MixtureSameFamily(Categorical(probs=jnp.array([0.5, 0.5])), Normal(jnp.array([-1.0, 1.0]), 0.5))
    program, steps = pushed(humps), 3000
    loss = svi.ActorCritic(critic_optimizer=decaying(3e-3, steps))
    prior = {"u": lambda: humps}
    least = float(execution.roll_out(program, KEY, prior, 20_000).mean)
    fit = svi.fit(program, KEY, steps, loss=loss, optimizer=decaying(3e-3, steps))
    best = smc.run(program, KEY, 20_000).log_evidence / 2.0
    assert best - 0.25 * (best - least) < float(fit.elbo) < best


def test_walkers_start_where_nothing_is_drawn_and_networks_are_made_where_none_are_given():
    def step(s):
        a = decide("a", Categorical(probs=jnp.array([0.5, 0.5])))
        optimality(1.0 * a)
        return {"s": a}

    program = ControlProgram(lambda: {"s": 0}, step, 2, sizes={"s": 2})
    loss = svi.ActorCritic(num_walkers=4, batch_size=8, capacity=32)
    fit = svi.fit(program, KEY, 3, loss=loss, optimizer=optax.adam(1e-3))
    assert np.isfinite(fit.elbo) and sorted(fit.policy) == ["a"]


def test_data_in_nats_beside_rewards_in_other_units_are_refused():
    def step(s):
        a = decide("a", Categorical(probs=jnp.array([0.5, 0.5])), inverse_temperature=2.0)
        optimality(1.0 * a)
        numpyro.sample("y", Normal(1.0 * a, 1.0), obs=0.5)
        return {"s": a}

    program = ControlProgram(lambda: {"s": 0}, step, 2, sizes={"s": 2})
    with pytest.raises(ValueError, match="data beside an inverse temperature are in nats: give loss=svi.ParticleELBO"):
        svi.fit(program, KEY, 3, loss=svi.ActorCritic(), optimizer=optax.adam(1e-3))
