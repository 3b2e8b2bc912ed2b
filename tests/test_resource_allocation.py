"""Memories that are noisy and cost precision: against quadrature, differences, an independent optimiser, and limits."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpyro import handlers
from numpyro.infer import SVI, Predictive
from oracles import memory as oracle
from scipy.optimize import minimize
from selection import quick, quick_rows
from worked_cases import worked_case

from rlinf_ppl import ControlProgram, models
from rlinf_ppl.inference import exact, smc, svi
from rlinf_ppl.tasks import MDP, gallery

S, A, T = 3, 2, 4
KEY = jax.random.key(0)
RNG = np.random.default_rng(5)
FIRST, TRANSITION = RNG.dirichlet(np.ones(S)), RNG.dirichlet(np.ones(S), (S, A))
REWARD = RNG.normal(size=(S, A))
MEAN, STD = RNG.normal(size=(S, A)), RNG.uniform(0.2, 0.9, (S, A))
BASE, BETA = 0.8, 1.5
LOSS, ADAM = svi.NodeELBO(), optax.adam(0.05)
FREE = {"step": models.resource_allocation_free, "once": models.resource_allocation_once_free}
TIED = {"step": models.resource_allocation, "once": models.resource_allocation_once}


def task():
    return MDP(TRANSITION, REWARD, FIRST)


def value_of(program):
    return float(jax.jit(lambda guide: LOSS.estimate(LOSS.read(program), guide, KEY))(program.learned))


def wanted(kind, mean, std, discount=1.0, kl=0.7, mixed=0.3, horizon=T):
    """The ELBO by the oracle; tables (S, A), or (T, S, A)."""
    mean, std = (x if x.ndim == 3 else np.broadcast_to(x, (horizon, S, A)) for x in (mean, std))
    made = [oracle.tables(m, s, BETA) for m, s in zip(mean, std, strict=True)]
    steps = (discount ** np.arange(horizon)).sum() if kind == "once" else 1.0
    nats = np.stack([oracle.cost(s, BASE) for s in std])
    nats = np.broadcast_to(nats.sum(1, keepdims=True), nats.shape) if kind == "once" else nats
    mixing = np.stack([h for _, h in made]) - np.log(A)
    pays = (-kl * nats + mixed * mixing) / steps
    return oracle.objective(FIRST, TRANSITION, REWARD, np.stack([p for p, _ in made]), pays, discount)


NUMBERS = dict(base_std=BASE, beta=BETA, kl_weight=0.7, entropy_weight=0.3)


@pytest.mark.parametrize(
    "kind, discount", quick_rows([("step", 0.8), ("once", 1.0)], [(k, d) for k in FREE for d in (1.0, 0.8)])
)
def test_free_means_have_the_objective_of_a_quadrature(kind, discount):
    made = FREE[kind](task(), T, **NUMBERS, discount=discount, mean=MEAN, std=STD)
    assert value_of(made) == pytest.approx(wanted(kind, MEAN, STD, discount), rel=1e-10)


@pytest.mark.parametrize("kind", FREE)
def test_tables_of_each_time(kind):
    mean, std = RNG.normal(size=(T, S, A)), RNG.uniform(0.2, 0.9, (T, S, A))
    made = FREE[kind](task(), T, **NUMBERS, discount=0.9, mean=mean, std=std)
    assert value_of(made) == pytest.approx(wanted(kind, mean, std, 0.9), rel=1e-10)
    tied = TIED[kind](task(), T, **NUMBERS, discount=0.9, value_discount=0.7, std=std)
    mean = oracle.tied_in_time(TRANSITION, REWARD, std, BETA, 0.7)
    assert value_of(tied) == pytest.approx(wanted(kind, mean, std, 0.9), rel=1e-10)


@pytest.mark.parametrize("kind", TIED)
def test_tied_means_are_the_values_of_their_own_policy(kind):
    made = TIED[kind](task(), T, **NUMBERS, value_discount=0.7, std=STD)
    mean = oracle.tied(TRANSITION, REWARD, STD, BETA, 0.7)
    found = models.noisy_values(task(), STD, BETA, 0.7)
    assert found.converged
    np.testing.assert_allclose(found.value, mean, rtol=1e-10)
    np.testing.assert_allclose(found.policy, oracle.tables(mean, STD, BETA)[0], rtol=1e-10)
    assert value_of(made) == pytest.approx(wanted(kind, mean, STD), rel=1e-10)


def test_slopes_through_the_fixed_point_are_those_of_differences():
    weights = jnp.asarray(RNG.normal(size=(S, A)))

    def total(std, beta, discount, reward):
        found = models.noisy_values(MDP(TRANSITION, reward, FIRST), std, beta, discount)
        return jnp.sum(weights * (found.value + found.policy))

    at = jnp.asarray(STD), jnp.asarray(BETA), jnp.asarray(0.7), jnp.asarray(REWARD)
    value, slopes = jax.jit(total), jax.jit(jax.grad(total, (0, 1, 2, 3)))(*at)
    for k, x in enumerate(at):
        for place in np.ndindex(x.shape):
            ends = [value(*at[:k], x.at[place].add(h), *at[k + 1 :]) for h in (1e-5, -1e-5)]
            assert float(slopes[k][place]) == pytest.approx(float(ends[0] - ends[1]) / 2e-5, abs=1e-7)


@pytest.mark.parametrize("kind", quick(["once"], TIED))
def test_programs_without_end_are_those_that_end_late(kind):
    endless, late = (TIED[kind](task(), steps, **NUMBERS, discount=0.5, std=STD) for steps in (None, 60))
    assert value_of(endless) == pytest.approx(value_of(late), rel=1e-12)


def test_a_task_of_lists_of_successors_is_the_same():
    dense = models.resource_allocation_once(task(), T, **NUMBERS, value_discount=0.7, std=STD)
    sparse = models.resource_allocation_once(task().as_sparse(), T, **NUMBERS, value_discount=0.7, std=STD)
    assert value_of(sparse) == pytest.approx(value_of(dense), rel=1e-12)


@pytest.mark.parametrize("kind", FREE)
def test_single_precision(kind):
    std = STD
    with jax.enable_x64(False):
        made = TIED[kind](MDP(TRANSITION, REWARD, FIRST), T, **NUMBERS, value_discount=0.7, std=std)
        found = value_of(made)
        assert made.learned.free[0].dtype == jnp.float32
    mean = oracle.tied(TRANSITION, REWARD, STD, BETA, 0.7)
    assert found == pytest.approx(wanted(kind, mean, STD), rel=2e-5)


@pytest.mark.parametrize("name", ["dra_step_cost", "dra_step_cost_K3", "dra_memory_cost", "dra_memory_cost_K3"])
def test_worked_cases(name):
    given, expected, tolerance = worked_case(name)
    horizon, lam = int(given["T"]), float(given.get("lam", 1.0))
    numbers = dict(base_std=float(given["sigma_base"]), beta=float(given["beta"]))
    made = MDP(given["P"], given["r"], given["p1"])

    def objective(build, kl, mixed):
        found = build(
            made, horizon, **numbers, kl_weight=kl, entropy_weight=mixed, mean=given["Qbar"], std=given["sigma"]
        )
        steps = horizon if build is models.resource_allocation_free else 1
        return value_of(found) + mixed * steps * np.log(made.num_actions)

    if name.startswith("dra_step"):
        wanted = {"F": (models.resource_allocation_free, 1.0, 1.0)}
        elbo = value_of(
            models.resource_allocation_free(made, horizon, **numbers, mean=given["Qbar"], std=given["sigma"])
        )
        assert elbo == pytest.approx(expected["elbo"], rel=tolerance)
    else:
        once = models.resource_allocation_once_free
        wanted = {"F_eq9": (once, horizon, horizon), "F_eq10": (once, lam, lam), "F_dra": (once, lam, 0.0)}
    for key, how in wanted.items():
        assert objective(*how) == pytest.approx(expected[key], rel=tolerance)


# ---- fits ------------------------------------------------------------------------------------------------------------


@cache
def fitted(kind, tied):
    """A fit of the small task, entropy left out where means are tied."""
    if tied:
        numbers = dict(base_std=BASE, beta=4.0, kl_weight=0.05, entropy_weight=0.0, value_discount=0.7)
        return svi.fit(TIED[kind](task(), T, **numbers), KEY, 1500, loss=LOSS, optimizer=ADAM)
    return svi.fit(FREE[kind](task(), T, BASE, BETA), KEY, 2500, loss=LOSS, optimizer=ADAM)


def test_free_means_reach_the_optimum_of_a_worked_case():
    given, expected, _ = worked_case("dra_step_optimum")
    made = models.resource_allocation_free(
        MDP(given["P"], given["r"], given["p1"]), int(given["T"]), float(given["sigma_base"]), float(given["beta"])
    )
    fit = svi.fit(made, KEY, 4000, loss=LOSS, optimizer=ADAM, tolerance=1e-7)
    assert fit.converged
    assert float(fit.elbo) + int(given["T"]) * np.log(2) == pytest.approx(expected["F"], rel=1e-9)
    np.testing.assert_allclose(fit.params["std"], expected["sigma"], rtol=1e-5)
    gap = fit.params["mean"] - fit.params["mean"][:, :1]
    np.testing.assert_allclose(gap, expected["Qbar"], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TIED)
def test_tied_means_reach_what_an_independent_optimiser_does(kind):
    fit = fitted(kind, True)
    assert fit.converged and fit.local

    def loss(logs):
        std = np.exp(logs.reshape(S, A))
        mean = oracle.tied(TRANSITION, REWARD, std, 4.0, 0.7)
        policy, _ = oracle.tables(mean, std, 4.0)
        nats = oracle.cost(std, BASE)
        pays = np.full(S, nats.sum() / T) if kind == "once" else nats
        each = np.broadcast_to(policy, (T, S, A)), np.broadcast_to(-0.05 * pays, (T, S))
        return -oracle.objective(FIRST, TRANSITION, REWARD, *each, 1.0)

    found = [minimize(loss, np.log(RNG.uniform(0.1, 1.0, S * A)), options={"gtol": 1e-6}) for _ in range(3)]
    best = min(found, key=lambda each: each.fun)
    assert -best.fun == pytest.approx(float(fit.elbo), abs=2e-5)


def test_the_policy_of_a_fit_is_that_of_the_averaged_noise():
    fit = fitted("step", True)
    std = fit.params["std"]
    found = models.noisy_values(task(), std, 4.0, 0.7)
    np.testing.assert_allclose(fit.policy["a"][0], found.policy, rtol=1e-9)
    law = fit.policy["memory"](s=1)
    np.testing.assert_allclose(jax.vmap(law.sample)(jax.random.split(KEY, 20_000)).std(0), std[1], rtol=0.03)


@pytest.mark.slow
def test_free_means_leave_nothing_to_pay():
    """They grow until noise decides no choice: the hard optimum, std at its base, no cost."""
    start = dict(base_std=20.0, beta=1.0, kl_weight=1.0, entropy_weight=0.0)
    made = models.resource_allocation_once_free(gallery.planning_task(), 3, **start, std=10.0)
    fit = svi.fit(made, KEY, 6000, loss=LOSS, optimizer=optax.adam(0.5), tolerance=0.0)
    cost = oracle.cost(np.asarray(fit.params["std"]), 20.0).sum()
    assert float(fit.elbo) == pytest.approx(200 / 3, abs=0.3) and cost < 0.1
    first = int(np.argmax(gallery.planning_task().initial))
    assert np.asarray(fit.policy["a"])[0, first].max() > 1 - 1e-4


def far(mixed):
    """Where precision is dear: std, as a share of its base."""
    made = models.resource_allocation_once(
        task(), T, BASE, BETA, kl_weight=300.0, entropy_weight=mixed, value_discount=0.7
    )
    fit = svi.fit(made, KEY, 3000, loss=LOSS, optimizer=optax.adam(0.01), tolerance=1e-4)
    assert fit.converged
    return np.asarray(fit.params["std"]) / BASE


@pytest.mark.slow
def test_std_is_at_its_base_where_precision_is_dear_and_noise_worth_nothing():
    np.testing.assert_allclose(far(0.0), 1.0, atol=1e-3)
    # What noise takes from the entropy of a choice is worth its price there.
    with_entropy = far(300.0)
    assert np.all(with_entropy < 0.995) and np.all(with_entropy > 0.9)


# ---- other engines ---------------------------------------------------------------------------------------------------


def equal_weights():
    return models.resource_allocation(task(), T, BASE, BETA, value_discount=0.7, std=STD)


@pytest.mark.parametrize("kind", quick(["step"], TIED))
def test_trajectories_have_the_same_objective(kind):
    made = TIED[kind](task(), T, BASE, BETA, 1.0, 1.0, std=STD, value_discount=0.7)
    exactly, sampled = value_of(made), svi.ParticleELBO(4000)
    estimate = jax.jit(lambda key: sampled.estimate(sampled.read(made), made.learned, key))
    drawn = np.array([estimate(key) for key in jax.random.split(KEY, 10)])
    assert abs(drawn.mean() - exactly) < 5 * drawn.std() / 3


@pytest.mark.slow
def test_particles_find_the_evidence_which_no_memory_enters():
    made, plain = equal_weights(), models.single_agent(task(), T)
    runs = jax.vmap(lambda key: smc.run(made, key, 1000).log_evidence)(jax.random.split(KEY, 40))
    truth, evidence = float(exact.condition(plain).log_evidence), np.exp(np.asarray(runs))
    assert abs(evidence.mean() - np.exp(truth)) < 5 * evidence.std() / np.sqrt(39)
    assert value_of(made) < truth


def test_numpyro_fits_the_pair():
    made = equal_weights()
    svi_run = SVI(made.model, made.guide, optax.adam(0.05), loss=svi.NodeELBO()).run(KEY, 300, progress_bar=False)
    fit = svi.fit(made, KEY, 300, loss=LOSS, optimizer=ADAM, tolerance=0.0)
    np.testing.assert_allclose(svi_run.params["std"], fit.params["std"], rtol=1e-4)
    drawn = Predictive(made.guide, params=svi_run.params, num_samples=3)(KEY)
    assert drawn["t0/memory"].shape == (3, A)
    trace = handlers.trace(handlers.seed(made.model, 1)).get_trace()
    assert trace["t3/memory"]["value"].shape == (A,)


def test_programs_share_compiled_code_and_are_differentiated():
    def value(weight):
        made = models.resource_allocation_once(task(), T, BASE, BETA, weight, 0.0, value_discount=0.7, std=STD)
        return LOSS.estimate(LOSS.read(made), made.learned, KEY)

    weights = jnp.array([0.1, 0.5])
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(value)))(weights)
    np.testing.assert_allclose(slopes, -oracle.cost(STD, BASE).sum(), rtol=1e-10)
    assert float(values[0]) == pytest.approx(
        value_of(models.resource_allocation_once(task(), T, BASE, BETA, 0.1, 0.0, value_discount=0.7, std=STD))
    )


def test_the_graph_says_what_depends_on_what():
    graph = equal_weights().graph()
    assert graph.nodes["memory"]["kind"] == "decision" and not graph.has_edge("memory", "s'")
    assert isinstance(equal_weights(), ControlProgram) and equal_weights().scopes["a"] == ("s",)


# ---- wrong use -------------------------------------------------------------------------------------------------------

WRONG = {
    "no noise to begin with": (dict(base_std=0.0), "base_std has an entry of 0"),
    "std of 0": (dict(std=0.0), "std has an entry of 0"),
    "a price below 0": (dict(kl_weight=-1.0), "kl_weight is -1"),
    "a worth below 0": (dict(entropy_weight=-0.1), "entropy_weight is -0.1"),
    "a flat softmax": (dict(beta=0.0), "beta is 0"),
    "not a number": (dict(beta=np.nan), "beta"),
    "a table of another shape": (dict(base_std=np.ones((A, S, 2))), "base_std has shape"),
    "times of another horizon": (dict(std=np.ones((T + 1, S, A))), "std has shape"),
    "no end and no discount": (dict(horizon=None), "discount"),
    "values without end": (dict(value_discount=1.0), "value_discount of 1"),
    "a discount above 1": (dict(value_discount=1.5), "value_discount is 1.5"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("kind", TIED)
def test_wrong_use_is_refused(name, kind):
    more, message = WRONG[name]
    given = dict(horizon=T, base_std=BASE, beta=BETA, value_discount=0.7) | more
    with pytest.raises(ValueError, match=message):
        TIED[kind](task(), **given)


def test_a_reward_over_time_needs_memories_of_each():
    timed = MDP(TRANSITION, np.stack([REWARD] * T), FIRST)
    with pytest.raises(ValueError, match="varies in time"):
        models.resource_allocation(timed, T, BASE, BETA, value_discount=0.7)
    made = models.resource_allocation(timed, T, **NUMBERS, value_discount=0.7, std=np.stack([STD] * T))
    mean = oracle.tied_in_time(TRANSITION, REWARD, np.stack([STD] * T), BETA, 0.7)
    assert value_of(made) == pytest.approx(wanted("step", mean, np.stack([STD] * T)), rel=1e-10)


def test_weights_that_differ_have_no_joint_model(monkeypatch):
    made = models.resource_allocation(task(), T, BASE, BETA, 1.0, 0.0, value_discount=0.7)
    with pytest.raises(ValueError, match="infinite|differ"):
        smc.run(made, KEY, 10)
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(TypeError, match="mdp must be a task"):
        models.resource_allocation("maze", T, BASE, BETA)


@pytest.mark.slow
def test_starts_that_are_moved_are_compared():
    made = models.resource_allocation_once(task(), T, BASE, 4.0, 0.05, 0.0, value_discount=0.7)
    fit = svi.fit(made, KEY, 30, loss=LOSS, optimizer=ADAM, num_restarts=3, spread=0.5)
    assert fit.restarts.shape == (3,) and len(set(np.asarray(fit.restarts).round(6))) == 3
    assert float(fit.elbo) == float(fit.restarts.max())
    again = svi.fit(made, KEY, 30, loss=LOSS, optimizer=ADAM, num_restarts=3, spread=0.5)
    np.testing.assert_array_equal(fit.restarts, again.restarts)
    same = svi.fit(made, KEY, 30, loss=LOSS, optimizer=ADAM, num_restarts=2)
    assert float(same.restarts[0]) == float(same.restarts[1])
    for wrong, message in ((-1.0, "spread is -1"), (np.inf, "spread is inf")):
        with pytest.raises(ValueError, match=message):
            svi.fit(made, KEY, 30, loss=LOSS, optimizer=ADAM, spread=wrong)


# ---- values whose digits are asked for -----------------------------------------------------------------------------


def alone(*rewards):
    """One state, in which actions pay for ever."""
    return MDP(np.ones((1, len(rewards), 1)), np.array([rewards]), np.ones(1))


@pytest.mark.parametrize("beta, discount", [(1000.0, 0.9), (1000.0, 0.99), (1000.0, 0.9999), (1.0, 0.999)])
def test_values_of_what_is_certain_add_up(beta, discount):
    for task in (alone(1.0, 0.0, 0.0), alone(1.0, 1.0, 1.0)):
        found = models.noisy_values(task, 0.0, beta, discount)
        certain = beta == 1000.0 or float(task.reward.min()) == 1.0
        assert found.converged
        if certain:
            assert float(found.value[0, 0]) == pytest.approx(1 / (1 - discount), rel=1e-11)


def test_single_precision_says_where_its_digits_end():
    with jax.enable_x64(False):
        short, long = (models.noisy_values(alone(1.0, 1.0, 1.0), 1.0, 1.0, g) for g in (0.9, 0.9999))
        assert short.converged and float(short.value[0, 0]) == pytest.approx(10.0, rel=1e-5)
        assert not long.converged and float(long.value[0, 0]) == pytest.approx(1e4, rel=5e-3)
        offset = models.noisy_values(MDP(TRANSITION, REWARD + 1e6, FIRST), 0.5, 1.0, 0.95)
        assert not offset.converged


def test_what_all_rewards_have_in_common_moves_no_policy():
    plain = models.noisy_values(task(), 0.5, 1.0, 0.95)
    for offset in (1e3, 1e6):
        found = models.noisy_values(MDP(TRANSITION, REWARD + offset, FIRST), 0.5, 1.0, 0.95)
        assert found.converged
        np.testing.assert_allclose(found.policy, plain.policy, atol=1e-8)


@pytest.mark.parametrize("unit", [1e-14, 1e-6, 1e6])
def test_values_are_in_the_units_of_reward(unit):
    wanted = models.noisy_values(alone(1.0, 0.0), 0.5, 3.0, 0.9)
    found = models.noisy_values(alone(unit, 0.0), 0.5 * unit, 3.0 / unit, 0.9)
    assert found.converged
    np.testing.assert_allclose(found.value / unit, wanted.value, rtol=1e-10)


def test_guides_of_other_programs_are_no_guides():
    other = MDP(np.full((5, A, 5), 0.2), np.ones((5, A)), np.full(5, 0.2))
    made = models.resource_allocation_free(other, T, BASE, BETA)
    with pytest.raises(ValueError, match="std has shape"):
        made.with_guide(FREE["step"](task(), T, BASE, BETA).learned.module)
    late = models.resource_allocation_free(task(), 2, BASE, BETA, std=np.full((2, S, A), 0.5)).unroll(5)
    assert np.isnan(value_of(late))
    with pytest.raises(ValueError, match="mean has a table for each time"):
        models.resource_allocation_free(task(), T, BASE, BETA, mean=np.zeros((T, S, A)), std=0.5)
    with pytest.raises(ValueError, match="horizon is 0"):
        models.resource_allocation_once(task(), 0, BASE, BETA)
