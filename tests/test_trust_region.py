"""Policies that may move only so far, against optimisers of the primal, dense integration and worked cases."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.distributions import Categorical
from oracles import trust_regions as oracle
from selection import quick, quick_rows
from worked_cases import worked_case

from rlinf_ppl import ControlProgram, decide, models, optimality, tasks
from rlinf_ppl.inference import exact, smc, svi, trust_region

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
TRANSITION, REWARD = RNG.dirichlet(np.ones(3), size=(3, 2)), RNG.normal(size=(3, 2))
INITIAL, PRIOR = RNG.dirichlet(np.ones(3)), RNG.dirichlet(np.ones(2), size=3)
STEPS = 3


def small(horizon=STEPS, beta=1.0, discount=1.0, reward=REWARD):
    mdp = tasks.MDP(TRANSITION, reward, INITIAL)
    return models.single_agent(mdp, horizon, beta=beta, prior=PRIOR, discount=discount)


def lake(horizon=20):
    return models.single_agent(tasks.MDP.from_gymnasium("FrozenLake-v1"), horizon)


def seen():
    """A program with data."""

    def initial():
        return {"s": numpyro.sample("s", Categorical(probs=jnp.array([0.5, 0.5])))}

    def step(s):
        a = decide("a", Categorical(probs=jnp.array([0.5, 0.5])))
        numpyro.sample("y", Categorical(probs=jnp.array([[0.1, 0.9], [0.6, 0.4]])[s]), obs=1)
        optimality(jnp.where(a == s, 1.0, 0.0))
        return {"s": a}

    return ControlProgram(initial, step, 2)


def line(inverse_temperature=1.0):
    """u ~ N(1, 4), reward -(x - 3)^2 of x = u, up to next to no noise: one step of a linear system."""
    task = tasks.LinearQuadratic([[0.0]], [[1.0]], [0.0], [[1e-9]], [[-1.0]], [[0.0]], [3.0], [3.0], [[1e-9]])
    return models.linear_gaussian(task, 1, ([[0.0]], [1.0], [[4.0]]), inverse_temperature)


def worked(name):
    given, want, _ = worked_case(name)
    names = "A", "B", "c", "W", "M", "H", "z", "m1", "S1"
    task = tasks.LinearQuadratic(*(given[key] for key in names))
    prior = tuple(given[key] for key in ("Kq", "kq", "Sq"))
    # The temperature that the program comes with makes no difference.
    return models.linear_gaussian(task, len(given["A"]), prior, inverse_temperature=2.0), given, want


def agrees_with_case(found, want, tolerance):
    policy, steps = found.policy["u"], len(want["K"])
    for got, name in ((policy.gain, "K"), (policy.offset, "k"), (policy.cov, "Sigma")):
        np.testing.assert_allclose(got, want[name], atol=tolerance)
    np.testing.assert_allclose([found.expected, found.dual], [want["primal"], want["dual"]], rtol=tolerance)
    np.testing.assert_allclose(found.kl, want["kl"], atol=tolerance)
    np.testing.assert_allclose(found.value.matrix[:steps], np.array(want["V"])[:steps], atol=tolerance)
    np.testing.assert_allclose(found.value.vector[:steps], np.array(want["v"])[:steps], atol=tolerance)
    assert found.converged and found.kkt.worst < 1e-8


@pytest.mark.parametrize("name", quick(["gps_trajectory_bound"], ["gps_bound", "gps_trajectory_bound"]))
def test_worked_policy_bounds(name):
    program, given, want = worked(name)
    if name == "gps_bound":
        found = trust_region.policy_bound(program, given["eps"])
    else:
        found = trust_region.total_policy_bound(program, given["eps_total"])
    np.testing.assert_allclose(1 / found.inverse_temperature, np.squeeze(want["alpha"]), rtol=1e-9)
    agrees_with_case(found, want, 1e-9)
    np.testing.assert_allclose(found.value.scalar[: len(want["v0"])], want["v0"], atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["saps_bound", "esaps_bound"])
def test_worked_state_bounds(name):
    program, given, want = worked(name)
    if name == "saps_bound":
        found = trust_region.state_action_bound(program, None, given["eps"])
    else:
        found = trust_region.entropy_bound(program, None, given["eps"], given["delta"])
        np.testing.assert_allclose(found.entropy_multiplier, want["beta"], rtol=1e-8)
    np.testing.assert_allclose(found.kl_multiplier, want["alpha"], rtol=1e-8)
    np.testing.assert_allclose(-found.entropy, want["neg_entropy"], atol=1e-9)
    agrees_with_case(found, want, 1e-9)
    np.testing.assert_allclose(found.value.scalar[: len(want["v0"])], want["v0_textbook"], atol=1e-9)
    # The same policy by the program that carries the bounds, and by states that are given.
    again = exact.solve(found.program)
    np.testing.assert_allclose(again.policy["u"].gain, found.policy["u"].gain, atol=1e-12)
    states = exact.marginals(program, exact.prior_policy(program)).state
    entropy = () if name == "saps_bound" else (given["delta"],)
    bound = trust_region.entropy_bound if entropy else trust_region.state_action_bound
    other = bound(program, states, given["eps"], *entropy)
    np.testing.assert_allclose(other.policy["u"].gain, found.policy["u"].gain, atol=1e-9)
    # From other laws the first state alone spends some nats, which nothing can save.
    apart = states.mean + 0.5, states.cov
    first = 0.5 * 0.25 * np.linalg.inv(states.cov[0]).sum()
    with pytest.raises(ValueError, match="cannot be met: .* at least 1.2|cannot be met: .* at least 0.4"):
        bound(program, apart, 1e-3, *entropy)
    with pytest.raises(ValueError, match="cannot be met: .* at least 0.02"):
        bound(program, apart, first - 0.0225, *(x + 1.3 for x in entropy))
    other = bound(program, apart, first + 0.2, *(x + 1.3 for x in entropy))
    assert other.converged and other.kkt.worst < 1e-8 and np.all(other.kl <= first + 0.2 + 1e-9)


@pytest.mark.slow
def test_worked_slack_bounds():
    program, given, want = worked("esaps_bound_inactive")
    found = trust_region.entropy_bound(program, None, given["eps"], given["delta"])
    np.testing.assert_allclose(found.dual, want["primal"], atol=1e-7)
    np.testing.assert_allclose(found.kl, want["kl"], atol=1e-6)
    np.testing.assert_allclose(-found.entropy, want["neg_entropy"], atol=1e-6)
    np.testing.assert_allclose(found.kl_multiplier, want["alpha"], atol=1e-3)
    np.testing.assert_allclose(found.entropy_multiplier, want["beta"], atol=1e-3)
    assert found.converged and found.kkt.worst < 1e-8


@pytest.mark.parametrize("bound", [0.01, 0.2, [0.3, 0.05, 0.1]])
def test_tables_against_the_primal(bound):
    found = trust_region.policy_bound(small().tempered(3.0), bound)
    wide = np.broadcast_to(bound, STEPS)
    best, _ = oracle.best_occupancy(TRANSITION, REWARD, INITIAL, PRIOR, STEPS, oracle.policy_kl(PRIOR), wide)
    np.testing.assert_allclose(found.expected, best, atol=2e-6)
    assert found.converged and found.kkt.worst < 1e-8
    np.testing.assert_allclose(found.dual, found.expected, atol=1e-9)
    kl = exact.kl(small(), found.policy, exact.prior_policy(small()))
    np.testing.assert_allclose(kl, found.kl.sum(), atol=1e-9)


@pytest.mark.parametrize("bound", [0.01, 0.3, 2.0])
def test_one_bound_on_the_sum(bound):
    found = trust_region.total_policy_bound(small(), bound)
    best, _ = oracle.best_occupancy(
        TRANSITION, REWARD, INITIAL, PRIOR, STEPS, lambda rho: oracle.policy_kl(PRIOR)(rho).sum(), bound
    )
    np.testing.assert_allclose(found.expected, best, atol=2e-6)
    assert found.converged and found.kkt.worst < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("bound, entropy", [(0.05, None), (0.2, None), (0.2, -0.55), (0.5, [-0.3, -0.6, -0.5])])
def test_states_of_tables_against_the_primal(bound, entropy):
    states = exact.marginals(small(), exact.prior_policy(small())).state
    kl = oracle.joint_kl(PRIOR, np.asarray(states[:-1]))
    if entropy is None:
        found = trust_region.state_action_bound(small(), states, bound)
        best, _ = oracle.best_occupancy(TRANSITION, REWARD, INITIAL, PRIOR, STEPS, kl, np.full(STEPS, bound))
    else:
        found = trust_region.entropy_bound(small(), states, bound, entropy)
        limits = np.concatenate([np.full(STEPS, bound), np.broadcast_to(entropy, STEPS)])
        best, _ = oracle.best_occupancy(
            TRANSITION, REWARD, INITIAL, PRIOR, STEPS,
            lambda rho: np.concatenate([kl(rho), oracle.log_policy(rho)]), limits,
        )  # fmt: skip
        assert np.all(found.entropy >= -np.broadcast_to(entropy, STEPS) - 1e-8)
    np.testing.assert_allclose(found.expected, best, atol=5e-6)
    assert found.converged and found.kkt.worst < 1e-8
    np.testing.assert_allclose(exact.solve(found.program).policy["a"], found.policy["a"], atol=1e-12)


@pytest.mark.parametrize("shift", quick([-10.0], [0.0, -10.0, -1000.0, 1000.0]))
def test_states_with_bounds_that_do_not_bind(shift):
    """Whatever is added to all rewards, it is what is best without bounds, and no bound is called impossible."""
    program = small(reward=REWARD + shift)
    found = trust_region.state_action_bound(program, None, 50.0)
    np.testing.assert_allclose(found.expected, exact.solve(program.tempered(np.inf)).elbo, rtol=1e-8)
    assert found.converged and np.all(found.kl < 50) and found.kkt.worst < 1e-8


def test_an_entropy_that_no_policy_has():
    with pytest.raises(ValueError, match="cannot be met"):
        trust_region.entropy_bound(small(), None, 0.1, -0.7)


@pytest.mark.parametrize("horizon, bound", quick_rows([(20, 0.1)], [(20, 0.01), (20, 0.1), (20, 1.0), (100, 1.0)]))
def test_bounds_are_met_or_temperatures_are_0(horizon, bound):
    """And iterating them, the expected reward never falls."""
    program, earned = lake(horizon), -np.inf
    for iteration in range(3):
        found = trust_region.policy_bound(program, bound)
        met = np.abs(found.kl - bound) < 1e-8
        slack = ~met & (found.kl < bound)
        # What is best up to rounding may be many things: then the temperature is next to 0.
        gain = np.where(slack, (bound - found.kl) / found.inverse_temperature, 0.0)
        assert np.all(met | slack) and np.all(gain < 1e-10)
        assert iteration or np.all(np.isinf(found.inverse_temperature) == slack) and met.any() and slack.any()
        assert found.converged and found.kkt.worst < 1e-8
        assert found.expected >= earned - 1e-12
        earned, program = found.expected, found.program.with_prior(found.policy)


def test_nothing_to_look_for():
    """Bounds of 0 leave the prior, infinite ones what is best."""
    program = small()
    found = trust_region.policy_bound(program, [0.0, np.inf, 0.1])
    np.testing.assert_array_equal(found.inverse_temperature[:2], [0.0, np.inf])
    np.testing.assert_allclose(found.policy["a"][0], PRIOR, atol=1e-12)
    assert found.converged and abs(found.kl[2] - 0.1) < 1e-9
    free = trust_region.total_policy_bound(program, np.inf)
    np.testing.assert_allclose(free.expected, exact.solve(program.tempered(np.inf)).elbo, atol=1e-12)
    assert trust_region.total_policy_bound(program, 0.0).inverse_temperature == 0


def test_discounted_sums():
    endless = small(None, discount=0.8)
    found = trust_region.total_policy_bound(endless, 0.5)
    assert found.converged and found.kkt.worst < 1e-8
    np.testing.assert_allclose(exact.kl(endless, found.policy, exact.prior_policy(endless)), 0.5, atol=1e-9)
    solution = exact.solve(endless.tempered(found.inverse_temperature))
    np.testing.assert_allclose(found.expected, solution.elbo + 0.5 / found.inverse_temperature, atol=1e-9)
    # With an end far away it is nearly the same.
    near = trust_region.total_policy_bound(small(60, discount=0.8), 0.5)
    np.testing.assert_allclose(near.expected, found.expected, atol=1e-4)


@pytest.mark.parametrize("bound", [0.02, 1.0])
def test_one_real_action_by_integration(bound):
    found = trust_region.total_policy_bound(line(), bound)
    alpha, mean, std = oracle.integrated_policy(lambda u: -((u - 3) ** 2), 1.0, 2.0, bound)
    np.testing.assert_allclose(1 / found.inverse_temperature, alpha, rtol=1e-6)
    np.testing.assert_allclose(found.policy["u"].offset[0, 0], mean, rtol=1e-6)
    np.testing.assert_allclose(found.policy["u"].cov[0, 0, 0], std**2, rtol=1e-6)


@pytest.mark.slow
def test_wide_priors_and_costs_far_apart():
    """Prior deviations of 1e3 beside costs from 1e-4 to 1e4."""
    rng = np.random.default_rng(1)
    drift, push = np.eye(2) + 0.1 * rng.normal(size=(2, 2)), rng.normal(size=(2, 2))
    costs = np.diag([-1e4, -1e-4])
    task = tasks.LinearQuadratic(
        drift, push, np.zeros(2), 1e-2 * np.eye(2), costs, -1e-4 * np.eye(2), np.ones(2), np.zeros(2), np.eye(2)
    )
    program = models.linear_gaussian(task, 5, (np.zeros((2, 2)), np.zeros(2), 1e6 * np.eye(2)))
    for bound in (0.1, 5.0, 20.0):
        found = trust_region.policy_bound(program, bound)
        assert found.converged and found.kkt.worst < 1e-8
        np.testing.assert_allclose(found.kl, bound, rtol=1e-8)


def long_regulator(dtype, horizon=1000, n=12, m=4):
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(n, n)), rng.normal(size=(n, m)) / 3
    A *= 0.97 / np.abs(np.linalg.eigvals(A)).max()
    arrays = (A, B, np.zeros(n), 0.1 * np.eye(n), -np.eye(n), -0.1 * np.eye(m), np.zeros(n), np.ones(n), np.eye(n))
    return models.linear_gaussian(tasks.LinearQuadratic(*(jnp.asarray(x, dtype) for x in arrays)), horizon)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_thousand_steps_of_twelve_dimensions(dtype):
    with jax.enable_x64(dtype == "float64"):
        found = trust_region.total_policy_bound(long_regulator(dtype), 500.0)
        np.testing.assert_allclose(jnp.sum(found.kl), 500.0, rtol=1e-6)
        np.testing.assert_allclose(found.expected, found.dual, rtol=1e-6)
        np.testing.assert_allclose(found.expected, -13156.102, rtol=1e-6)
        assert found.converged and found.expected.dtype == dtype


@pytest.mark.parametrize("states", [False, True])
def test_no_call_of_a_library_in_a_loop(states):
    """Batched LAPACK is many times slower than small matrices written out, and runs on one device only."""

    def bounded(program):
        if states:
            return trust_region.state_action_bound(program, None, 1.0)
        return trust_region.total_policy_bound(program, 1.0)

    text = jax.jit(bounded).lower(long_regulator("float64", 4, 3, 2)).as_text()
    assert "lapack" not in text and "while" in text


@pytest.mark.parametrize(
    "function", quick([trust_region.total_policy_bound], [trust_region.policy_bound, trust_region.total_policy_bound])
)
def test_derivatives(function):
    weights = RNG.normal(size=(STEPS, 3, 2))

    def of(reward, bound):
        found = function(small(reward=reward), bound)
        return jnp.sum(weights * found.policy["a"]) + found.expected

    slopes = jax.jit(jax.grad(of, (0, 1)))(jnp.asarray(REWARD), jnp.asarray(0.15))
    way, step = RNG.normal(size=REWARD.shape), 1e-5
    ahead, behind = (of(REWARD + sign * step * way, 0.15) for sign in (1, -1))
    np.testing.assert_allclose(np.sum(slopes[0] * way), (ahead - behind) / (2 * step), rtol=1e-6)
    ahead, behind = (of(REWARD, 0.15 + sign * step) for sign in (1, -1))
    np.testing.assert_allclose(slopes[1], (ahead - behind) / (2 * step), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("entropy", [False, True])
def test_derivatives_in_bounds_of_states_alone(entropy):
    """Backwards and forwards, by differences of fourth order."""

    def earned(bounds):
        if entropy:
            return trust_region.entropy_bound(small(), None, bounds[0], bounds[1]).expected
        return trust_region.state_action_bound(small(), None, bounds[0]).expected

    at = jnp.array([0.2, -0.6])
    backwards, forwards = jax.jit(jax.grad(earned))(at), jax.jit(jax.jacfwd(earned))(at)
    np.testing.assert_allclose(backwards, forwards, rtol=1e-9, atol=1e-12)
    function, h = jax.jit(earned), 1e-3
    for i in range(1 + entropy):
        ahead, behind, far, back = (function(at.at[i].add(x)) for x in (h, -h, 2 * h, -2 * h))
        np.testing.assert_allclose(backwards[i], (8 * (ahead - behind) - (far - back)) / (12 * h), rtol=1e-6)
        assert abs(backwards[i]) > 1e-3


def test_the_program_of_a_bounded_problem_is_bounded_no_further():
    found = trust_region.state_action_bound(small(), None, 0.2)
    for again in (
        lambda: trust_region.state_action_bound(found.program, None, 0.2),
        lambda: trust_region.policy_bound(found.program.with_prior(found.policy), 0.2),
    ):
        with pytest.raises(ValueError, match="prices of bounds would count as rewards"):
            again()


def test_many_bounds_at_once():
    bounds = jnp.array([0.01, 0.1, 0.5])
    many = jax.vmap(lambda bound: trust_region.total_policy_bound(small(), bound).expected)(bounds)
    one = [trust_region.total_policy_bound(small(), bound).expected for bound in bounds]
    np.testing.assert_allclose(many, one, rtol=1e-12)


def test_single_precision():
    with jax.enable_x64(False):
        found = trust_region.policy_bound(small(), 0.2)
        assert found.expected.dtype == jnp.float32 and found.converged
        np.testing.assert_allclose(found.kl, 0.2, rtol=1e-6)
    wide = trust_region.policy_bound(small(), 0.2)
    np.testing.assert_allclose(found.policy["a"], wide.policy["a"], atol=1e-6)


def test_other_engines_run_the_program():
    """One temperature makes it a model like any other."""
    found = trust_region.total_policy_bound(small(), 0.3)
    elbo = exact.elbo(found.program, found.policy)
    np.testing.assert_allclose(elbo, found.expected - 0.3 / found.inverse_temperature, atol=1e-9)
    np.testing.assert_allclose(svi.fit(found.program, KEY, 20).elbo, elbo, atol=1e-6)
    run = smc.run(found.program, KEY, num_particles=2000)
    evidence = exact.condition(found.program).log_evidence
    assert abs(run.log_evidence - evidence) < 0.2


def test_what_is_asked_for_wrongly(monkeypatch):
    program = small()
    for wrong, message in ((-0.1, "holds -0.1"), (np.nan, "holds nan"), ([0.1, 0.2], "one for each of 3 steps")):
        with pytest.raises(ValueError, match=message):
            trust_region.policy_bound(program, wrong)
    with pytest.raises(ValueError, match="must be one number"):
        trust_region.total_policy_bound(program, [0.1, 0.1, 0.1])
    with pytest.raises(ValueError, match="no steps to bound one by one"):
        trust_region.policy_bound(small(None, discount=0.9), 0.1)
    with pytest.raises(ValueError, match="give them one above 0"):
        trust_region.policy_bound(line(-1.0), 0.1)
    with pytest.raises(ValueError, match="states has shape"):
        trust_region.state_action_bound(program, np.ones((3, 3)) / 3, 0.1)
    with pytest.raises(ValueError, match="states at t = 1 is no distribution: it sums to 1.5"):
        trust_region.state_action_bound(program, np.ones((4, 3)) / 3 * np.array([[1], [1.5], [1], [1]]), 0.1)
    states = np.array(exact.marginals(program, exact.prior_policy(program)).state)
    states[1] = [0.5, 0.5, 0.0]
    with pytest.raises(ValueError, match="states at t = 1 gives no probability to the state 2"):
        trust_region.state_action_bound(program, states, 0.5)
    with pytest.raises(ValueError, match=r"\['y'\] are data"):
        trust_region.policy_bound(seen(), 0.1)
    with pytest.raises(ValueError, match="finite and above 0"):
        trust_region.state_action_bound(program, None, 0.0)
    with pytest.raises(ValueError, match="entropy_bound must be one number"):
        trust_region.entropy_bound(program, None, 0.1, [1.0, 2.0])
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(TypeError, match="numbers of nats"):
        trust_region.policy_bound(program, "much")
    with pytest.raises(TypeError, match="ControlProgram"):
        trust_region.policy_bound("program", 0.1)


def test_states_of_vectors_that_are_no_laws():
    task = tasks.LinearQuadratic(
        np.eye(2), np.ones((2, 1)), np.zeros(2), np.zeros((2, 2)), -np.eye(2), [[-1.0]], np.ones(2), np.zeros(2),
        np.zeros((2, 2)),
    )  # fmt: skip
    program = models.linear_gaussian(task, 2)
    mean, cov = np.zeros((3, 2)), np.tile(np.eye(2), (3, 1, 1))
    with pytest.raises(ValueError, match="must be \\(mean, cov\\)"):
        trust_region.state_action_bound(program, mean, 0.1)
    with pytest.raises(ValueError, match="states' mean has shape"):
        trust_region.state_action_bound(program, (mean[:2], cov), 0.1)
    with pytest.raises(ValueError, match="at t = 1 has the eigenvalue"):
        trust_region.state_action_bound(program, (mean, cov * np.array([1.0, 0.0, 1.0])[:, None, None]), 0.1)
    cov[1, 0, 1] = 0.5
    with pytest.raises(ValueError, match=r"states' cov\[1\] is not symmetric"):
        trust_region.state_action_bound(program, (mean, cov), 0.1)
    with pytest.raises(ValueError, match="infinite"):
        trust_region.policy_bound(program, np.inf)
