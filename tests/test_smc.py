"""The particle filter against the exact posterior: unbiased evidence and marginals, policies, zero variance."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from game_programs import random_game
from jax import monitoring
from numpyro.distributions import Categorical
from option_programs import delayed_control, delayed_task, soft_control, soft_task
from programs_more import PAIRS

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact, smc, svi
from rlinf_ppl.program.supports import positions_of
from rlinf_ppl.tasks import MDP

NUM_KEYS = 400
GAME = random_game(7)
MODELS = {
    "rommeo": lambda: models.rommeo(GAME.task, 3, 1.2, GAME.reply, GAME.opponent_alone, 0.9),
    "pr2": lambda: models.pr2(GAME.task, 3, 1.2, GAME.alone, GAME.opponent_reply, 0.9),
    "level_k": lambda: models.level_k(GAME.task, 2, 2, 1.1, 0.7, GAME.alone, GAME.opponent_alone, 0.9),
    "soft_options": lambda: soft_control(soft_task(3), 3),
    "delayed_options": lambda: delayed_control(delayed_task(4), 2),
    "single_agent": lambda: models.single_agent(mdp(5), 4, 0.8, discount=0.9),
}
PROGRAMS = {name: pair.control for name, pair in PAIRS.items() if pair.joint} | MODELS
QUICK = {"single_agent"}
EACH = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in PROGRAMS]


def mdp(seed, deterministic=False):
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(4), (4, 2))
    if deterministic:
        transition = np.eye(4)[rng.integers(4, size=(4, 2))]
    return MDP(transition, rng.normal(size=(4, 2)), rng.dirichlet(np.ones(4)))


@cache
def program(name):
    return PROGRAMS[name]()


@cache
def posterior(name):
    return exact.condition(program(name))


def tables(prog, trajectories, weights):
    """The weighted frequencies of states (T + 1, ...) and of decisions with their scopes (T, ...)."""
    at = {name: positions_of(support, trajectories[name]) for name, support in prog.supports.items()}

    def counted(names, steps):
        one = lambda *places: jnp.zeros([prog.sizes[name] for name in names]).at[places].add(weights)  # noqa: E731
        return jax.vmap(one, 1)(*(at[name][:, :steps] for name in names)) if names else jnp.zeros(())

    states = counted(prog.state, prog.horizon + 1)
    return states, {name: counted((*scope, name), prog.horizon) for name, scope in prog.scopes.items()}


def within_five_standard_errors(samples, expected):
    """Where enough samples are not 0 for their spread to be known; never where what is expected is 0."""
    samples, expected = np.asarray(samples), np.asarray(expected)
    assert (samples.max(0)[expected == 0] == 0).all()
    known = (samples > 0).sum(0) >= 50
    error = np.std(samples, axis=0) / np.sqrt(len(samples))
    assert (np.abs(np.mean(samples, axis=0) - expected) <= 5 * error + 1e-9)[known].all() and known.any()


@pytest.mark.parametrize("name", EACH)
def test_four_particles_give_unbiased_evidence_and_marginals_of_the_posterior(name):
    """The mean of Z_hat times a weighted frequency is Z times the posterior probability, at any number of particles."""
    prog = program(name)

    def one(key):
        run = smc.run(prog, key, 4)
        return run.log_evidence, tables(prog, run.trajectories, run.weights)

    log_evidence, found = jax.vmap(one)(jax.random.split(jax.random.key(1), NUM_KEYS))
    ratio = np.exp(np.asarray(log_evidence) - float(posterior(name).log_evidence))
    within_five_standard_errors(ratio, 1.0)
    truth = exact.posterior_marginals(prog)
    for samples, expected in zip(jax.tree.leaves(found), jax.tree.leaves((truth.state, truth.decision)), strict=True):
        within_five_standard_errors(ratio.reshape(-1, *[1] * (samples.ndim - 1)) * samples, expected)


@pytest.mark.slow
@pytest.mark.parametrize("num_particles", [1, 64])
@pytest.mark.parametrize("name", PROGRAMS)
def test_evidence_is_unbiased_at_any_number_of_particles(name, num_particles):
    """One particle's estimate has a long tail: its mean takes many keys."""
    keys = jax.random.split(jax.random.key(2), NUM_KEYS * (100 if num_particles == 1 else 1))
    log_evidence = jax.vmap(lambda key: smc.run(program(name), key, num_particles).log_evidence)(keys)
    within_five_standard_errors(np.exp(np.asarray(log_evidence) - float(posterior(name).log_evidence)), 1.0)


@pytest.mark.parametrize("name", ["plain", *(pytest.param(n, marks=pytest.mark.slow) for n in ("dice", "tempered"))])
def test_many_particles_find_the_posterior_policy_where_it_goes(name):
    """Within five binomial standard errors of as many effective particles as were left of all at the end."""
    prog = program(name)
    run = smc.run(prog, jax.random.key(3), 20_000)
    alive = exact.posterior_marginals(prog).decision
    for decision, expected in posterior(name).policy.items():
        np.testing.assert_allclose(run.policy[decision].sum(-1), 1.0, rtol=1e-9)
        visited = np.asarray(alive[decision].sum(-1, keepdims=True))
        survived = float(prog.discount) ** np.arange(prog.horizon).reshape(-1, *[1] * (expected.ndim - 1))
        number = float(run.ess.min()) * visited * survived * 0.2
        error = np.sqrt(expected * (1 - expected) / np.maximum(number, 1e-9))
        off = np.abs(run.policy[decision] - expected)
        assert (off <= 5 * error + 1e-3)[np.broadcast_to(visited > 0.02, off.shape)].all()


def test_what_no_particle_visits_is_left_at_the_prior():
    prog = program("zeros")
    run = smc.run(prog, jax.random.key(0), 50)
    np.testing.assert_array_equal(run.policy["a"][0, 3], exact.prior_policy(prog)["a"][0, 3])


@pytest.mark.parametrize("name", ["plain", "zeros", "sparse_outcomes", "three_decisions", "discounted_final"])
def test_the_exact_posterior_leaves_the_evidence_no_variance(name):
    """With its policy as proposal and its value as twist, under noise and discounts, from one site of `initial`."""
    answer, prog = posterior(name), program(name)
    for key in jax.random.split(jax.random.key(0), 5):
        run = smc.run(prog, key, 8, proposal=answer, twist=answer.value)
        assert float(run.log_evidence) == pytest.approx(float(answer.log_evidence), rel=1e-12, abs=1e-12)
        np.testing.assert_allclose(run.ess, 8.0, rtol=1e-9)
        assert not run.resampled.any()


@pytest.mark.parametrize("fitted", [False, True])
def test_the_soft_value_leaves_no_variance_where_dynamics_are_deterministic(fitted):
    prog = models.single_agent(mdp(8, deterministic=True), 6, 1.5)
    solution = exact.solve(prog)
    proposal = svi.fit(prog, jax.random.key(1), tolerance=0.0, num_steps=10) if fitted else solution
    keys = jax.random.split(jax.random.key(0), 20)
    found = jax.vmap(lambda key: smc.run(prog, key, 4, proposal=proposal, twist=solution.value).log_evidence)(keys)
    np.testing.assert_allclose(found, float(exact.condition(prog).log_evidence), rtol=1e-8)


@pytest.mark.slow
def test_an_approximate_proposal_and_twist_lower_the_variance_and_leave_the_mean():
    prog, keys = program("side_information"), jax.random.split(jax.random.key(4), NUM_KEYS)
    value = exact.solve(prog).value
    log_z = float(posterior("side_information").log_evidence)
    plain = jax.vmap(lambda key: smc.run(prog, key, 16).log_evidence)(keys)
    aided = jax.vmap(lambda key: smc.run(prog, key, 16, proposal=exact.solve(prog), twist=value).log_evidence)(keys)
    called = jax.vmap(lambda key: smc.run(prog, key, 16, twist=lambda s, t: 0.3 * s - 0.1 * t).log_evidence)(keys)
    assert np.std(np.exp(aided - log_z)) < 0.8 * np.std(np.exp(plain - log_z))
    for found in (plain, aided, called):
        within_five_standard_errors(np.exp(np.asarray(found) - log_z), 1.0)


def test_trajectories_lead_back_through_the_ancestors_and_hold_what_the_step_makes_of_them():
    task, n = mdp(9), 30
    run = smc.run(models.single_agent(task, 5, 3.0), jax.random.key(0), n, threshold=1.0)
    assert run.resampled[1:].all() and run.ancestors.shape == (5, n)
    drawn = {name: np.asarray(x) for name, x in run.trajectories.items()}
    assert {name: x.shape for name, x in drawn.items()} == {"s": (n, 6), "a": (n, 5), "s_next": (n, 5)}
    np.testing.assert_array_equal(drawn["s"][:, 1:], drawn["s_next"])
    assert (task.transition[drawn["s"][:, :-1], drawn["a"], drawn["s_next"]] > 0).all()
    origin = np.arange(n)
    for ancestors in np.asarray(run.ancestors)[::-1]:
        origin = ancestors[origin]
    assert len(np.unique(np.stack([origin, drawn["s"][:, 0]]), axis=1).T) == len(np.unique(origin))
    assert float(run.weights.sum()) == pytest.approx(1.0)
    assert ((run.ess >= 1 - 1e-9) & (run.ess <= n + 1e-9)).all()


@pytest.mark.slow
def test_filtered_marginals_are_the_posterior_given_optimality_so_far():
    """Row t of a program of T steps is the last row but one of the smoothed marginals of one of t + 1 steps."""
    task = mdp(10)
    run = smc.run(models.single_agent(task, 3, 0.7), jax.random.key(1), 50_000)
    for t in range(3):
        expected = exact.posterior_marginals(models.single_agent(task, t + 1, 0.7)).state[t]
        np.testing.assert_allclose(run.filtered["s"][t], expected, atol=0.02)
    expected = exact.posterior_marginals(models.single_agent(task, 3, 0.7)).state[3]
    np.testing.assert_allclose(run.filtered["s"][3], expected, atol=0.02)


def knowledge(name, informed):
    """What particles are told: nothing, or where control goes and what it expects, and to be drawn anew always."""
    if not informed:
        return {}
    solution = exact.solve(program(name))
    return {"proposal": solution, "twist": solution.value, "threshold": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("informed", [False, True])
@pytest.mark.parametrize("name", ["plain", "discounted_final"])
def test_backward_sampling_draws_from_the_posterior(name, informed):
    prog = program(name)
    paths = smc.smooth(prog, jax.random.key(5), 2000, 4000, **knowledge(name, informed))
    states, decisions = tables(prog, paths.trajectories, jnp.full(4000, 1 / 4000))
    truth = exact.posterior_marginals(prog)
    for found, expected in [(states, truth.state), *((decisions[d], truth.decision[d]) for d in decisions)]:
        error = np.sqrt(np.maximum(expected * (1 - expected), 0) * (1 / 4000 + 3 / 2000))
        assert (np.abs(found - expected) <= 5 * error + 1e-9).all()


@pytest.mark.parametrize(
    ("name", "informed"),
    [
        ("plain", False),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("discounted_final", False), ("plain", True))),
        pytest.param("discounted_final", True, marks=pytest.mark.slow),
    ],
)
def test_particle_gibbs_has_the_posterior_as_its_invariant_law(name, informed):
    """One long chain with three particles beside the reference is as good as n / 4 independent draws."""
    prog, n = program(name), 2000
    paths = smc.particle_gibbs(prog, jax.random.key(6), 4, n, **knowledge(name, informed))
    states, decisions = tables(prog, paths.trajectories, jnp.full(n, 1 / n))
    truth = exact.posterior_marginals(prog)
    for found, expected in [(states, truth.state), *((decisions[d], truth.decision[d]) for d in decisions)]:
        error = np.sqrt(np.maximum(expected * (1 - expected), 0) / (n / 4))
        assert (np.abs(found - expected) <= 5 * error + 1e-9).all()


def test_one_particle_and_one_step_work():
    prog = models.single_agent(mdp(11), 1)
    run = smc.run(prog, jax.random.key(0), 1)
    assert run.trajectories["a"].shape == (1, 1) and run.trajectories["s"].shape == (1, 2)
    assert float(run.ess[0]) == 1.0 and np.isfinite(float(run.log_evidence))


@pytest.mark.slow
def test_the_same_key_gives_the_same_and_keys_and_programs_can_be_vmapped():
    task, betas, keys = mdp(12), jnp.array([0.3, 1.5]), jax.random.split(jax.random.key(0), 2)
    build = lambda beta: models.single_agent(task, 3, beta)  # noqa: E731
    together = jax.vmap(lambda key, beta: smc.run(build(beta), key, 10))(keys, betas)
    for i in range(2):
        alone = smc.run(build(betas[i]), keys[i], 10)
        np.testing.assert_allclose(together.log_evidence[i], alone.log_evidence, rtol=1e-12)
        np.testing.assert_array_equal(together.trajectories["s"][i], alone.trajectories["s"])
        np.testing.assert_array_equal(smc.run(build(betas[i]), keys[i], 10).weights, alone.weights)


def test_programs_of_one_structure_share_a_compilation_and_a_thousand_steps_take_no_longer():
    seen = []
    listener = lambda event, duration, **about: seen.append(event) if "backend_compile" in event else None  # noqa: E731
    monitoring.register_event_duration_secs_listener(listener)
    try:
        for seed in range(3):
            smc.run(models.single_agent(mdp(seed), 1000, 0.5), jax.random.key(seed), 16)
            if seed == 0:
                seen.clear()
        assert seen == []
    finally:
        monitoring.unregister_event_duration_listener(listener)


def test_float32_finds_the_same():
    with jax.enable_x64(False):
        prog = models.single_agent(mdp(13), 4)
        run = smc.run(prog, jax.random.key(0), 5000)
        assert run.log_evidence.dtype == jnp.float32
        assert float(run.log_evidence) == pytest.approx(float(exact.condition(prog).log_evidence), abs=0.1)


def test_an_impossible_action_is_never_drawn():
    def step(s):
        a = decide("a", Categorical(probs=jnp.array([0.0, 0.3, 0.0, 0.7, 0.0])))
        optimality(0.1 * a)
        return {"s": numpyro.sample("s_next", Categorical(probs=jnp.array([0.0, 1.0])))}

    prog = ControlProgram(lambda: {"s": numpyro.sample("s", Categorical(probs=jnp.array([0.0, 1.0])))}, step, 3)
    drawn = smc.run(prog, jax.random.key(0), 5000).trajectories
    assert set(np.unique(drawn["a"])) == {1, 3} and set(np.unique(drawn["s"])) == {1}


def test_a_state_of_a_billion_values_has_trajectories_and_no_tables():
    def step(s):
        a = decide("a", Categorical(probs=jnp.asarray([0.5, 0.5])))
        optimality(0.1 * a)
        return {"s": jnp.minimum(s + a, 10**9 - 1)}

    prog = ControlProgram(lambda: {"s": jnp.asarray(5)}, step, 3, sizes={"s": 10**9})
    run = smc.run(prog, jax.random.key(0), 10)
    assert run.trajectories["s"].shape == (10, 4) and run.filtered == {} and run.policy.keys() <= {"a"}
    assert float(run.log_evidence) == pytest.approx(3 * np.log((1 + np.exp(0.1)) / 2), abs=0.1)
