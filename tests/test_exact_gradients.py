"""Gradients of the exact engine against finite differences of the oracles, at zero probabilities too.

Probabilities move along p + h (u - p) with u inside the simplex, so that they stay distributions; a zero can only
grow, so the difference is one-sided, of second order: f'(0) = (-3 f(0) + 4 f(h) - f(2h)) / 2h + O(h^2).
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.distributions import Categorical
from oracles import answers, recursions
from oracles.trajectories import enumerate_trajectories
from programs import mdp_truth
from programs_more import PAIRS, listed
from selection import quick

from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.inference import exact
from rlinf_ppl.models import single_agent
from rlinf_ppl.tasks import MDP

HORIZON, STATES, ACTIONS = 3, 3, 2
RNG = np.random.default_rng(11)
STEP = 1e-5
TASK = {
    "transition": np.array([[[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], [[0.1, 0.2, 0.7], [0.0, 1.0, 0.0]], [[0, 0, 1.0]] * 2]),
    "reward": RNG.normal(size=(STATES, ACTIONS)),
    "initial": np.array([0.7, 0.3, 0.0]),
    "prior": np.array([[0.4, 0.6], [1.0, 0.0], [0.0, 1.0]]),
    "beta": np.array(1.3),
    "discount": np.array(0.9),
}
WEIGHTS = {"value": RNG.normal(size=(HORIZON + 1, STATES)), "policy": RNG.normal(size=(HORIZON, STATES, ACTIONS))}
POLICY = RNG.dirichlet(np.ones(ACTIONS), size=(HORIZON, STATES)) * (TASK["prior"] > 0)
POLICY /= POLICY.sum(-1, keepdims=True)
PROBABILITIES = {"transition", "initial", "prior"}


def program(task):
    mdp = MDP(task["transition"], task["reward"], task["initial"])
    return single_agent(mdp, HORIZON, beta=task["beta"], prior=task["prior"], discount=task["discount"])


def readings(start, value, policy, numpy):
    return numpy.stack([start, numpy.sum(WEIGHTS["value"] * value), numpy.sum(WEIGHTS["policy"] * policy)])


def solve_readings(task):
    found = exact.solve(program(task))
    return readings(found.elbo, found.value, found.policy["a"], jnp)


def condition_readings(task):
    found = exact.condition(program(task))
    return readings(found.log_evidence, found.value, found.policy["a"], jnp)


def elbo_readings(task):
    return exact.elbo(program(task), {"a": jnp.asarray(POLICY)})[None]


def solve_truth(task):
    given = (task[name] for name in ("transition", "reward", "prior", "beta", "discount"))
    _, value, policy = recursions.soft_optimal(*given, HORIZON)
    return readings(task["initial"] @ value[0], value, policy, np)


def condition_truth(task):
    given = (task[name] for name in ("transition", "reward", "prior", "beta", "discount"))
    _, value, policy = recursions.posterior(*given, HORIZON)
    return readings(np.log(task["initial"] @ np.exp(value[0])), value, policy, np)


def elbo_truth(task):
    """By enumeration, from all that a perturbed task can reach."""
    reward, discount = task["beta"] * task["reward"], float(task["discount"])
    truth = mdp_truth(task["initial"], task["transition"], reward, task["prior"], HORIZON, discount=discount)
    return np.array([answers.elbo(enumerate_trajectories(truth), {"a": POLICY}, {"a": ("s",)})])


def direction(name, seed):
    """A tangent: towards the inside of the simplex for probabilities, anywhere else."""
    rng, at = np.random.default_rng(seed), TASK[name]
    if name in PROBABILITIES:
        return rng.dirichlet(np.ones(at.shape[-1]), at.shape[:-1]) - at
    return rng.normal(size=at.shape)


def difference(function, name, tangent):
    """Numerical derivative along a tangent, central where both sides exist."""

    def at(h):
        return function(TASK | {name: TASK[name] + h * tangent})

    if name in PROBABILITIES:
        return (-3 * at(0.0) + 4 * at(STEP) - at(2 * STEP)) / (2 * STEP)
    return (at(STEP) - at(-STEP)) / (2 * STEP)


@pytest.mark.parametrize(
    ("found", "truth"),
    [(solve_readings, solve_truth), (condition_readings, condition_truth), (elbo_readings, elbo_truth)],
    ids=["solve", "condition", "elbo"],
)
def test_gradients_in_the_task(found, truth):
    """Rows: ELBO or log evidence, a random sum of the values, a random sum of the policies' probabilities."""
    task = {name: jnp.asarray(x) for name, x in TASK.items()}
    np.testing.assert_allclose(found(task), truth(TASK), rtol=1e-12)
    jacobian = jax.jacrev(found)(task)
    for name, rows in jacobian.items():
        assert np.isfinite(rows).all(), name
        for seed in range(3):
            tangent = direction(name, seed)
            slope = np.sum(np.asarray(rows) * tangent, axis=tuple(range(1, rows.ndim)))
            expected = difference(truth, name, tangent)
            np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-7, err_msg=f"{name}, direction {seed}")


def tempered_initial(transition, reward, prior, tau):
    return {"s": numpyro.sample("s", Categorical(probs=TASK["initial"]))}


def tempered_step(transition, reward, prior, tau, s):
    a = decide("a", Categorical(probs=prior[s]), inverse_temperature=tau)
    optimality(reward[s, a])
    return {"s": numpyro.sample("s_next", Categorical(probs=transition[s, a]))}


@pytest.mark.parametrize("tau", [*(pytest.param(tau, marks=pytest.mark.slow) for tau in (0.6, 0.0, -0.7)), 1e-4])
def test_gradients_in_the_inverse_temperature(tau):
    """The values' derivative at tau = 0 is half a variance; both answers, zero probabilities included."""
    arrays = [TASK[name] for name in ("transition", "reward", "prior")]
    truth = mdp_truth(TASK["initial"], *arrays, HORIZON)

    def found(tau):
        args = (*map(jnp.asarray, arrays), tau)
        program = ControlProgram(tempered_initial, tempered_step, horizon=HORIZON, args=args)
        return jnp.stack([exact.solve(program).value, exact.condition(program).value])

    def expected(tau):
        step = tuple(replace(s, inverse_temperature=tau) if s.kind == "decision" else s for s in truth.step)
        program = replace(truth, step=step)
        rules = recursions.averaged, recursions.conditioned
        return np.stack([recursions.backward(program, expectation).value for expectation in rules])

    np.testing.assert_allclose(found(jnp.asarray(tau)), expected(tau), rtol=1e-10, atol=1e-11)
    slopes = (expected(tau + STEP) - expected(tau - STEP)) / (2 * STEP)
    for rule in range(2):
        slope = jax.grad(lambda tau, rule=rule: jnp.sum(WEIGHTS["value"] * found(tau)[rule]))(jnp.asarray(tau))
        np.testing.assert_allclose(slope, np.sum(WEIGHTS["value"] * slopes[rule]), rtol=1e-6, atol=1e-8)


def test_reward_gradient_of_the_evidence_is_a_posterior_marginal():
    """d log p(O) / d r(s, a) = beta * expected number of visits given optimality: by enumeration, to ten digits."""
    arrays = TASK["initial"], TASK["transition"], TASK["beta"] * TASK["reward"], TASK["prior"]
    listing = enumerate_trajectories(mdp_truth(*arrays, HORIZON, discount=0.9))
    weights, alive = answers.posterior(listing)
    visits = answers.decision_marginals(listing, "a", ("s",), weights.T @ alive[:, :-1]).sum(0)
    task = {name: jnp.asarray(x) for name, x in TASK.items()}
    found = jax.grad(lambda reward: exact.condition(program(task | {"reward": reward})).log_evidence)(task["reward"])
    np.testing.assert_allclose(found, TASK["beta"] * visits, rtol=1e-10, atol=1e-13)


def softmax_of(logits, prior, numpy):
    """Tables proportional to prior * exp(logits); a prior of None is uniform."""
    weights = {d: numpy.exp(x) * (numpy.ones_like(x) if prior is None else prior) for d, x in logits.items()}
    return {name: w / w.sum(-1, keepdims=True) for name, w in weights.items()}


@pytest.mark.parametrize(
    "name",
    quick(
        ["three_decisions", "discounted_final"], ["three_decisions", "discounted_final", "two_temperatures", "zeros"]
    ),
)
def test_gradients_in_the_logits_of_a_policy(name):
    pair, listing, control = PAIRS[name], listed(name), PAIRS[name].control()
    supports, scopes, rng = pair.truth.supports, control.scopes, np.random.default_rng(13)
    shapes = {d: (pair.truth.horizon, *(len(supports[n]) for n in (*scopes[d], d))) for d in scopes}
    prior = None
    if name == "zeros":
        prior = np.array([pair.truth.decisions[0].function({"s": s}) for s in range(4)])[None]
    logits, tangent = ({d: rng.normal(size=shape) for d, shape in shapes.items()} for _ in range(2))
    other = softmax_of({d: rng.normal(size=shape) for d, shape in shapes.items()}, prior, np)
    weights = rng.normal(size=[pair.truth.horizon + 1, *(len(supports[n]) for n in pair.truth.state)])

    def found(logits):
        policy = softmax_of(logits, prior, jnp)
        reference = {d: jnp.asarray(table) for d, table in other.items()}
        state = jnp.sum(weights * exact.marginals(control, policy).state)
        return jnp.stack([exact.elbo(control, policy), exact.kl(control, policy, reference), state])

    def truth(h):
        policy = softmax_of({d: logits[d] + h * tangent[d] for d in logits}, prior, np)
        paths = answers.path_probability(listing, answers.policy_along(listing, policy, scopes))
        state = np.sum(weights * answers.state_marginals(listing, paths))
        return np.array([answers.elbo(listing, policy, scopes), answers.kl(listing, policy, other, scopes), state])

    jacobian = jax.jacrev(found)({d: jnp.asarray(x) for d, x in logits.items()})
    assert all(np.isfinite(rows).all() for rows in jacobian.values())
    slope = sum(np.asarray(rows).reshape(3, -1) @ tangent[d].ravel() for d, rows in jacobian.items())
    np.testing.assert_allclose(slope, (truth(STEP) - truth(-STEP)) / (2 * STEP), rtol=1e-6, atol=1e-8)
