"""What the answers must be whatever the task: optimal, ordered, and right in the limits of the temperature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles import answers, recursions
from oracles.optimizer import maximize_elbo
from oracles.trajectories import enumerate_trajectories
from programs import mdp_truth
from programs_more import FAINT, PAIRS, listed

from rlinf_ppl.inference import exact
from rlinf_ppl.models import single_agent
from rlinf_ppl.tasks import MDP

HORIZON, STATES, ACTIONS = 3, 3, 2
SCOPES = {"a": ("s",)}


@pytest.mark.parametrize("name", ["plain", "three_decisions", "discounted_final", "two_temperatures"])
def test_solve_is_what_an_independent_optimizer_finds(name):
    pair, solution = PAIRS[name], exact.solve(PAIRS[name].control())
    best, policy = maximize_elbo(listed(name), pair.scopes)
    assert float(solution.elbo) == pytest.approx(best, abs=1e-9)
    for decision, table in policy.items():
        np.testing.assert_allclose(solution.policy[decision], table, atol=1e-4)


def test_equal_answers_where_nothing_is_left_to_chance():
    program = PAIRS["deterministic"].control()
    solution, posterior = exact.solve(program), exact.condition(program)
    assert float(posterior.log_evidence) == pytest.approx(float(solution.elbo), rel=1e-12)
    np.testing.assert_allclose(posterior.value, solution.value, rtol=1e-12)
    np.testing.assert_allclose(posterior.policy["a"], solution.policy["a"], rtol=1e-12)


def random_task(seed):
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(STATES), size=(STATES, ACTIONS))
    reward, start = rng.normal(size=(STATES, ACTIONS)), rng.dirichlet(np.ones(STATES))
    return MDP(transition, reward, start), rng.dirichlet(np.ones(ACTIONS), size=STATES)


def test_deterministic_transitions_of_a_task_give_equal_answers():
    transition = np.eye(STATES)[np.array([[1, 2], [0, 2], [1, 1]])]
    mdp = MDP(transition, random_task(0)[0].reward, np.eye(STATES)[1])
    program = single_agent(mdp, HORIZON, beta=2.0, prior=random_task(0)[1])
    solution, posterior = exact.solve(program), exact.condition(program)
    assert float(posterior.log_evidence) == pytest.approx(float(solution.elbo), rel=1e-12)
    np.testing.assert_allclose(posterior.policy["a"], solution.policy["a"], rtol=1e-12)


@pytest.mark.parametrize("engine", [exact.solve, exact.condition])
def test_no_temperature_leaves_the_prior(engine):
    mdp, prior = random_task(1)
    for beta, tolerance in ((1e-9, 1e-8), (0.0, 1e-15)):
        policy = engine(single_agent(mdp, HORIZON, beta=beta, prior=prior)).policy["a"]
        np.testing.assert_allclose(policy, np.broadcast_to(prior, policy.shape), atol=tolerance)


def test_high_inverse_temperature_is_hard_value_iteration():
    """beta V lies between the hard value plus log of the best actions' prior, and the hard value."""
    (mdp, prior), beta = random_task(4), 1e4
    prior = np.array([[1.0, 0.0], *prior[1:]])
    solution = exact.solve(single_agent(mdp, HORIZON, beta=beta, prior=prior, discount=0.9))
    q, v = recursions.hard_optimal(np.asarray(mdp.transition), np.asarray(mdp.reward), prior > 0, 0.9, HORIZON)
    shortfall = v - np.asarray(solution.value) / beta
    assert (shortfall >= -1e-9).all()
    assert (shortfall <= -HORIZON * np.log(prior[prior > 0].min()) / beta).all()
    assert np.ptp(q[:, 1:], axis=-1).min() > 0.01, "a tie would make the greedy policy ambiguous"
    np.testing.assert_allclose(solution.policy["a"], np.eye(ACTIONS)[q.argmax(-1)], atol=1e-12)


def test_high_inverse_temperature_of_the_posterior_is_optimism():
    """Conditioned dynamics at a high inverse temperature: the best path that is possible at all."""
    (mdp, prior), beta = random_task(3), 1e4
    value = exact.condition(single_agent(mdp, HORIZON, beta=beta, prior=prior)).value
    listing = [enumerate_trajectories(mdp_truth(*data(mdp, prior)), 0, {"s": s}) for s in range(STATES)]
    best = [paths.log_optimality.sum(1).max() for paths in listing]
    np.testing.assert_allclose(value[0] / beta, best, atol=5e-3)


@pytest.mark.parametrize(("double", "rtol"), [(True, 1e-10), (False, 1e-5)], ids=["float64", "float32"])
def test_small_inverse_temperature_keeps_its_digits(double, rtol):
    """At tau = 1e-6 the logarithm of a mean exponential divides a rounding error by tau (0.1 off in float32)."""
    with jax.enable_x64(double):
        solution, posterior = exact.solve(FAINT.control()), exact.condition(FAINT.control())
    for found, expectation in ((solution, recursions.averaged), (posterior, recursions.conditioned)):
        np.testing.assert_allclose(
            found.value, recursions.backward(FAINT.truth, expectation).value, rtol=rtol, atol=rtol
        )


@pytest.mark.parametrize("double", [True, False], ids=["float64", "float32"])
def test_states_of_hopeless_value_keep_theirs(double):
    """State 1 sees only values whose exponentials underflow beside those of state 0; state 2 leads to either."""
    transition = np.array([[[1.0, 0, 0]] * 2, [[0, 1.0, 0]] * 2, [[0.5, 0.5, 0], [0, 1.0, 0]]])
    reward = np.array([[0.0, -1.0], [-150.0, -151.0], [0.0, 1.0]])
    prior, start = np.full((3, 2), 0.5), np.full(3, 1 / 3)
    _, value, policy = recursions.posterior(transition, reward, prior, horizon=HORIZON)
    with jax.enable_x64(double):

        def posterior(reward):
            return exact.condition(single_agent(MDP(transition, reward, start), HORIZON, prior=prior))

        found = posterior(jnp.asarray(reward))
        slopes = jax.jacrev(lambda reward: posterior(reward).value[0])(jnp.asarray(reward))
    rtol = 1e-12 if double else 1e-5
    np.testing.assert_allclose(found.value, value, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(found.policy["a"], policy, rtol=10 * rtol, atol=rtol)
    # In state 1 every reward of every step counts once, shared between the two actions by the policy.
    np.testing.assert_allclose(slopes[1, 1], policy[:, 1].sum(0), rtol=10 * rtol)
    assert np.isfinite(slopes).all()


def data(mdp, prior):
    return np.asarray(mdp.initial), np.asarray(mdp.transition), np.asarray(mdp.reward), prior


def distributions(*shape):
    """Distributions over the last axis from small integers, so zeros are common; a row without mass gets a point."""

    def scale(counts):
        counts = counts.astype(float)
        counts[..., 0] += counts.sum(-1) == 0
        return counts / counts.sum(-1, keepdims=True)

    return arrays(np.int64, shape, elements=st.integers(0, 3)).map(scale)


@st.composite
def tasks(draw):
    """Start, transition, reward, prior: with impossible moves and actions, absorbing and unreachable states."""
    start, transition = draw(distributions(STATES)), draw(distributions(STATES, ACTIONS, STATES))
    reward = draw(arrays(float, (STATES, ACTIONS), elements=st.floats(-3, 3, allow_subnormal=False)))
    absorbing = draw(st.sets(st.integers(0, STATES - 1), max_size=2))
    for s in absorbing:
        transition[s], reward[s] = np.eye(STATES)[s], 0.0
    if draw(st.booleans()):
        transition[:2, :, 2] = 0.0
        transition[:2, :, 0] += transition[:2].sum(-1) == 0
        start[2], start[0] = 0.0, start[0] + (start[:2].sum() == 0)
        start, transition = start / start.sum(), transition / transition.sum(-1, keepdims=True)
    return start, transition, reward, draw(distributions(STATES, ACTIONS))


@pytest.mark.slow
@settings(max_examples=30)
@given(task=tasks(), beta=st.floats(0.05, 3.0), discount=st.sampled_from([0.5, 0.95, 1.0]))
def test_random_tasks(task, beta, discount):
    start, transition, reward, prior = task
    program = single_agent(MDP(transition, reward, start), HORIZON, beta=beta, prior=prior, discount=discount)
    listing = enumerate_trajectories(mdp_truth(start, transition, beta * reward, prior, HORIZON, discount=discount))
    solution, posterior, marginals = exact.solve(program), exact.condition(program), exact.posterior_marginals(program)

    _, value, policy = recursions.soft_optimal(transition, reward, prior, beta, discount, HORIZON)
    np.testing.assert_allclose(solution.value, value, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(solution.policy["a"], policy, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(solution.elbo, start @ value[0], rtol=1e-10, atol=1e-11)

    _, value, policy = recursions.posterior(transition, reward, prior, beta, discount, HORIZON)
    np.testing.assert_allclose(posterior.value, value, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(posterior.log_evidence, answers.log_evidence(listing), rtol=1e-10, atol=1e-11)
    seen = answers.reached(listing, "a", ("s",))
    truth = answers.posterior_policy(listing, "a", ("s",))
    np.testing.assert_allclose(posterior.policy["a"][seen], truth[seen], rtol=1e-10, atol=1e-11)
    weights = answers.posterior(listing)[0].sum(0)
    np.testing.assert_allclose(marginals.state, answers.state_marginals(listing, weights), atol=1e-11)
    assert solution.elbo <= posterior.log_evidence + 1e-11


@settings(max_examples=20)
@given(task=tasks(), logits=arrays(float, (HORIZON, STATES, ACTIONS), elements=st.floats(-4, 4)))
def test_no_policy_beats_solve_and_the_loss_is_a_divergence(task, logits):
    start, transition, reward, prior = task
    program = single_agent(MDP(transition, reward, start), HORIZON, prior=prior, discount=0.95)
    weights = prior * np.exp(logits)
    policy = weights / weights.sum(-1, keepdims=True)
    listing = enumerate_trajectories(mdp_truth(start, transition, reward, prior, HORIZON, discount=0.95))
    solution, elbo = exact.solve(program), exact.elbo(program, {"a": jnp.asarray(policy)})
    np.testing.assert_allclose(elbo, answers.elbo(listing, {"a": policy}, SCOPES), rtol=1e-10, atol=1e-11)
    loss = float(solution.elbo - elbo)
    assert loss >= -1e-11
    assert float(exact.kl(program, {"a": jnp.asarray(policy)}, solution.policy)) == pytest.approx(loss, abs=1e-10)
