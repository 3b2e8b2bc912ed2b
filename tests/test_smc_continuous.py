"""Particles in continuous programs: linear-Gaussian ones against the closed form, nonlinear ones, data and faults."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.distributions import Bernoulli, Categorical, MultivariateNormal, Normal

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact, execution, smc
from rlinf_ppl.tasks import LinearQuadratic

KEYS = jax.random.split(jax.random.key(0), 400)
STAY = np.array([[0.9, 0.1], [0.3, 0.7]])
SEEN = np.array([[0.8, 0.2], [0.25, 0.75]])
DATA = np.array([0, 1, 1, 0, 1])


@cache
def linear():
    rng = np.random.default_rng(0)
    task = LinearQuadratic(
        0.8 * np.eye(2),
        rng.normal(size=(2, 1)),
        np.array([0.1, 0.0]),
        0.2 * np.eye(2),
        -0.3 * np.eye(2),
        -0.2 * np.eye(1),
        np.array([0.5, 0.0]),
        np.zeros(2),
        0.5 * np.eye(2),
    )
    return models.linear_gaussian(task, 4)


def unbiased(log_evidence, expected):
    ratio = np.exp(np.asarray(log_evidence) - expected)
    return abs(ratio.mean() - 1) <= 5 * ratio.std() / np.sqrt(len(ratio)) + 1e-9


@pytest.mark.parametrize("informed", [False, True])
def test_a_linear_gaussian_program_has_the_evidence_of_the_closed_form(informed):
    prog = linear()
    answer = exact.condition(prog)
    aid = {"proposal": answer, "twist": answer.value} if informed else {}
    found = jax.vmap(lambda key: smc.run(prog, key, 16, **aid).log_evidence)(KEYS)
    assert unbiased(found, float(answer.log_evidence))


@pytest.mark.slow
def test_means_along_gaussian_trajectories_are_those_of_the_closed_form():
    prog, n = linear(), 40_000
    run = smc.run(prog, jax.random.key(1), n)
    truth = exact.posterior_marginals(prog)
    mean = jnp.einsum("n,ntd->td", run.weights, run.trajectories["x"])
    spread = np.sqrt(np.max(np.asarray(truth.state.cov)) / float(run.ess.min()))
    np.testing.assert_allclose(mean, truth.state.mean, atol=20 * spread)
    np.testing.assert_allclose(run.filtered["x"][-1], truth.state.mean[-1], atol=10 * spread)
    assert run.policy == {} and run.trajectories["u"].shape == (n, 4, 1)


def hidden_initial(stay, seen, data):
    return {"s": numpyro.sample("s", Categorical(probs=jnp.array([0.5, 0.5])))}


def hidden_step(stay, seen, data, s, t):
    numpyro.sample("o", Bernoulli(probs=seen[s, 1]), obs=data[t])
    return {"s": numpyro.sample("s_next", Categorical(probs=stay[s]))}


def forward(data):
    """Filtered marginals and the log evidence of a hidden Markov chain."""
    p, filtered, log_z = np.array([0.5, 0.5]), [], 0.0
    for o in data:
        p = p * SEEN[:, o]
        log_z += np.log(p.sum())
        p = p / p.sum()
        filtered.append(p)
        p = p @ STAY
    return np.array([*filtered, p]), log_z


@cache
def hidden():
    return ControlProgram(hidden_initial, hidden_step, len(DATA), args=(STAY, SEEN, DATA))


def test_data_filter_a_hidden_state():
    filtered, log_z = forward(DATA)
    found = jax.vmap(lambda key: smc.run(hidden(), key, 8).log_evidence)(KEYS)
    assert unbiased(found, log_z)
    # What is known of a state is the same whatever the particles were told to expect of it.
    for twist in (None, jnp.array([0.0, 1.5])):
        run = smc.run(hidden(), jax.random.key(0), 20_000, twist=twist)
        np.testing.assert_allclose(run.filtered["s"], filtered, atol=0.02)


def test_data_are_evidence_to_the_exact_engine_as_well():
    assert float(exact.condition(hidden()).log_evidence) == pytest.approx(forward(DATA)[1], rel=1e-10)


def test_data_are_part_of_the_model_and_no_part_of_the_guide():
    sites = numpyro.handlers.trace(numpyro.handlers.seed(hidden().model, 0)).get_trace()
    assert sites["t1/o"]["is_observed"]
    assert "t1/o" not in numpyro.handlers.trace(numpyro.handlers.seed(hidden().guide, 0)).get_trace()


def tempered_step(s, t):
    a = decide("a", Categorical(probs=jnp.array([0.5, 0.5])), inverse_temperature=2.0)
    optimality(0.7 * a)
    numpyro.sample("o", Bernoulli(probs=jnp.array([0.3, 0.9])[a]), obs=1)
    return {"s": s}


def test_data_are_not_multiplied_by_the_inverse_temperature():
    prog = ControlProgram(lambda: {"s": jnp.asarray(0)}, tempered_step, 1, sizes={"s": 1})
    found = smc.run(prog, jax.random.key(0), 100, twist=lambda: 0.0).log_evidence
    assert float(found) == pytest.approx(np.log(0.5 * 0.3 + 0.5 * np.exp(1.4) * 0.9), rel=1e-12)
    assert float(exact.condition(prog).log_evidence) == pytest.approx(float(found), rel=1e-12)
    # Rewards count two nats each, so a nat of data counts a half.
    solution, p = exact.solve(prog), np.array([0.3 * 0.5, 0.9 * 0.5 * np.exp(1.4)])
    np.testing.assert_allclose(solution.policy["a"][0], p / p.sum(), rtol=1e-12)
    assert float(solution.elbo) == pytest.approx(np.log(p.sum()) / 2, rel=1e-12)
    q = jnp.array([[0.8, 0.2]])
    bound = 0.2 * 0.7 + (0.8 * np.log(0.3) + 0.2 * np.log(0.9) - 0.8 * np.log(1.6) - 0.2 * np.log(0.4)) / 2
    assert float(exact.elbo(prog, {"a": q})) == pytest.approx(bound, rel=1e-12)
    assert 2 * bound <= float(found)
    # They are no reward.
    assert float(execution.expected_return(prog, {"a": q})) == pytest.approx(0.2 * 0.7, rel=1e-12)
    played = execution.roll_out(prog, jax.random.key(0), {"a": jnp.array([[0.0, 1.0]])}, 3)
    np.testing.assert_allclose(played.returns, np.full(3, 0.7), rtol=1e-12)
    assert prog.graph().nodes["o"]["kind"] == "data" and "o: data" in repr(prog)


def test_data_beside_temperatures_that_are_not_one_have_no_unit():
    def step(taus, s):
        a, b = (decide(name, Bernoulli(0.5), inverse_temperature=taus[i]) for i, name in enumerate("ab"))
        optimality(1.0 * (a == b))
        numpyro.sample("o", Normal(1.0 * a, 1.0), obs=0.5)
        return {"s": s}

    wrong = {(1.0, 2.0): r"\['o'\] are data.*share then.*differ", (0.0, 0.0): "of 0 rewards have no unit"}
    for taus, message in wrong.items():
        program = ControlProgram(lambda taus: {"s": 0}, step, 1, args=(jnp.array(taus),), sizes={"s": 1})
        with pytest.raises(ValueError, match=message):
            exact.solve(program)


@pytest.mark.slow
def test_data_of_a_linear_gaussian_program_are_not_multiplied_either():
    def initial():
        return {"x": numpyro.sample("x0", Normal(0.0, 1.0))}

    def step(x):
        u = decide("u", Normal(0.0, 1.0), inverse_temperature=3.0)
        optimality(-((x + u - 1.0) ** 2))
        numpyro.sample("y", Normal(x + u, 0.5), obs=0.3)
        return {"x": x + u}

    program = ControlProgram(initial, step, 1)
    grid = np.linspace(-8, 8, 1601)
    x, u = np.meshgrid(grid, grid, indexing="ij")
    normal = lambda z, sd: np.exp(-0.5 * (z / sd) ** 2) / sd / np.sqrt(2 * np.pi)  # noqa: E731
    joint = normal(x, 1) * normal(u, 1) * np.exp(-3 * (x + u - 1) ** 2) * normal(0.3 - x - u, 0.5)
    truth = np.log(joint.sum() * (grid[1] - grid[0]) ** 2)
    assert float(exact.condition(program).log_evidence) == pytest.approx(truth, rel=1e-9)
    assert 3 * float(exact.solve(program).elbo) <= truth
    found = jax.vmap(lambda key: smc.run(program, key, 1000).log_evidence)(KEYS)
    assert unbiased(found, truth)


def pendulum_initial():
    return {"x": numpyro.sample("x", MultivariateNormal(jnp.zeros(2), 0.1 * jnp.eye(2)))}


def pendulum_step(x):
    u = decide("u", Normal(0.0, 1.0))
    optimality(jnp.cos(x[0]) - 0.1 * x[1] ** 2)
    moved = x + 0.1 * jnp.stack([x[1], jnp.sin(x[0]) + u])
    return {"x": numpyro.sample("x_next", Normal(moved, 0.05).to_event(1))}


def test_a_nonlinear_program_runs_and_only_its_exact_reading_raises():
    prog = ControlProgram(pendulum_initial, pendulum_step, 5)
    with pytest.raises(ValueError, match="not linear-Gaussian"):
        exact.condition(prog)
    n = 400_000
    rng = np.random.default_rng(0)
    x, log_w = rng.normal(size=(n, 2)) * np.sqrt(0.1), np.zeros(n)
    for _ in range(5):
        u = rng.normal(size=n)
        log_w += np.cos(x[:, 0]) - 0.1 * x[:, 1] ** 2
        x = x + 0.1 * np.stack([x[:, 1], np.sin(x[:, 0]) + u], 1) + 0.05 * rng.normal(size=(n, 2))
    weights = np.exp(log_w)
    found = jax.vmap(lambda key: smc.run(prog, key, 32).log_evidence)(KEYS)
    assert unbiased(found, np.log(weights.mean()))
    push = lambda x: Normal(-0.5 * x[1], 0.9)  # noqa: E731
    worth = lambda x, t: (5 - t) * jnp.cos(x[0])  # noqa: E731
    aided = jax.vmap(lambda key: smc.run(prog, key, 32, proposal={"u": push}, twist=worth).log_evidence)(KEYS)
    assert unbiased(aided, np.log(weights.mean()))


def spoiled(t_bad, value):
    def step(s, t):
        a = decide("a", Categorical(probs=jnp.array([0.5, 0.5])))
        optimality(jnp.where((t == t_bad) & (s == 1), value, 0.1 * a), "payoff")
        return {"s": numpyro.sample("s_next", Categorical(probs=jnp.array([0.5, 0.5])))}

    return ControlProgram(lambda: {"s": numpyro.sample("s", Categorical(probs=jnp.array([0.5, 0.5])))}, step, 6)


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_a_reward_that_is_no_number_is_reported_with_time_site_and_particle_and_does_not_spread(value):
    prog, key = spoiled(3, value), jax.random.key(0)
    with pytest.raises(FloatingPointError, match=r"'payoff' at t = 3 .* at particle \d+"):
        smc.run(prog, key, 20)
    run = jax.jit(lambda key: smc.run(prog, key, 20))(key)
    np.testing.assert_array_equal(run.faults["payoff"] >= 0, np.arange(6) == 3)
    assert all((np.asarray(found) == -1).all() for name, found in run.faults.items() if name != "payoff")
    assert np.isfinite(float(run.log_evidence)) and np.isfinite(run.weights).all() and np.isfinite(run.ess).all()
    assert np.isfinite(run.policy["a"]).all() and np.isfinite(run.filtered["s"]).all()


def test_minus_infinity_is_a_weight_of_zero():
    run = smc.run(spoiled(3, -jnp.inf), jax.random.key(0), 2000)
    states = run.trajectories["s"]
    assert (np.asarray(states)[np.asarray(run.weights) > 0, 3] == 0).all()


def test_a_next_state_outside_its_values_is_reported():
    def step(s):
        return {"s": s + 1}

    with pytest.raises(FloatingPointError, match="'s' at t = 1 .*outside its values"):
        smc.run(ControlProgram(lambda: {"s": jnp.asarray(0)}, step, 4, sizes={"s": 2}), jax.random.key(0), 5)


CASES = {
    "endless": (lambda: smc.run(endless(), KEYS[0]), ValueError, "infinite horizon has no particle filter"),
    "no_particles": (lambda: smc.run(hidden(), KEYS[0], 0), ValueError, "num_particles must be at least 1"),
    "lonely": (lambda: smc.particle_gibbs(hidden(), KEYS[0], 1), ValueError, "num_particles must be at least 2"),
    "threshold": (lambda: smc.run(hidden(), KEYS[0], threshold=2.0), ValueError, "threshold must be a share"),
    "twist_shape": (lambda: smc.run(hidden(), KEYS[0], twist=jnp.zeros((5, 2))), ValueError, r"twist has shape \(5, 2"),
    "twist_names": (lambda: smc.run(hidden(), KEYS[0], twist=lambda z: z), ValueError, r"twist takes \['z'\]"),
    "proposal_kind": (lambda: smc.run(hidden(), KEYS[0], proposal=3), TypeError, "proposal must be None, a policy"),
    "proposal_name": (lambda: smc.run(hidden(), KEYS[0], proposal={"b": 1}), ValueError, r"entries for \['b'\]"),
    "proposal_rows": (
        lambda: smc.run(spoiled(9, 0.0), KEYS[0], proposal={"a": jnp.ones((1, 2))}),
        ValueError,
        r"proposal\['a'\] has",
    ),
    "proposal_of_chance": (
        lambda: smc.run(hidden(), KEYS[0], proposal={"s_next": jnp.ones(2) / 2}),
        ValueError,
        "is no decision: give a function",
    ),
}


def endless():
    step = lambda s: {"s": numpyro.sample("s_next", Categorical(probs=STAY[0]))}  # noqa: E731
    return ControlProgram(lambda: {"s": numpyro.sample("s", Categorical(probs=STAY[0]))}, step, None, 0.5)


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_named(case):
    call, kind, message = CASES[case]
    with pytest.raises(kind, match=message):
        call()
