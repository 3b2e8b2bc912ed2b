"""What a tired user gets wrong in a program, and the one line that says what to do."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import handlers
from numpyro.distributions import Bernoulli, Categorical, Delta, DiscreteUniform, Normal, Poisson

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact, svi
from rlinf_ppl.program.control_program import check_args, check_horizon
from rlinf_ppl.tasks import MDP

HALF = jnp.array([0.5, 0.5])
EYE = jnp.eye(2)
TASK = MDP(np.full((2, 2, 2), 0.5), np.zeros((2, 2)), [1.0, 0.0])
KEY = jax.random.key(0)


def initial():
    return {"s": numpyro.sample("s", Categorical(probs=HALF))}


def step(s):
    a = decide("a", Categorical(probs=HALF))
    optimality(1.0 * a * s)
    return {"s": numpyro.sample("s_next", Categorical(probs=EYE[a]))}


def program(step=step, initial=initial, horizon=2, **options):
    return ControlProgram(initial, step, horizon, **options)


def with_site(sample):
    """A step that also holds one more site."""

    def spoiled(s):
        a = decide("a", Categorical(probs=HALF))
        sample(s, a)
        return {"s": s}

    return lambda: program(spoiled)


def returning(value):
    return lambda: program(lambda s: value)


def solved(step, **options):
    return lambda: exact.solve(program(step, **options))


def priors(probs):
    def step(s):
        decide("a", Categorical(probs=probs))
        return {"s": s}

    return solved(step)


def rewards(reward):
    def step(s):
        a = decide("a", Categorical(probs=HALF))
        optimality(reward[s, a])
        return {"s": s}

    return solved(step)


def moving(move, **options):
    def step(s):
        decide("a", Categorical(probs=HALF))
        return {"s": move(s)}

    return solved(step, **options)


def tempered(tau, other=None):
    def step(s):
        a = decide("a", Categorical(probs=HALF), tau(s))
        b = decide("b", Categorical(probs=HALF), (other or tau)(s))
        optimality(1.0 * a * b)
        return {"s": s}

    return program(step)


def named_t():
    def step(t):
        return {"t": t}

    return program(step, lambda: {"t": numpyro.sample("x", Bernoulli(0.5))})


def branching(s):
    if s == 1:
        optimality(1.0)
    return {"s": s}


def indexing_numpy(s):
    optimality(np.ones(2)[s])
    return {"s": s}


def with_param(s):
    decide("a", Categorical(probs=numpyro.param("p", HALF)))
    return {"s": s}


def with_plate(s):
    with numpyro.plate("many", 3):
        decide("a", Categorical(probs=HALF))
    return {"s": s}


def deciding_first():
    return {"s": decide("s", Categorical(probs=HALF))}


def rewarding_first():
    optimality(1.0)
    return initial()


def final_that_samples(s):
    numpyro.sample("x", Bernoulli(0.5))


def policy(array):
    return lambda: exact.elbo(program(), {"a": array})


CASES = {
    "horizon_zero": (lambda: program(horizon=0), "horizon must be at least 1; got 0"),
    "horizon_fraction": (lambda: check_horizon(2.5), "horizon must be a whole number of steps; got 2.5"),
    "horizon_none": (lambda: check_horizon(None), "horizon must be a whole number of steps"),
    "discount_large": (lambda: program(discount=1.5), "discount must lie between 0 and 1; got 1.5"),
    "discount_many": (lambda: program(discount=jnp.ones(3)), r"discount must be one number; got shape \(3,\)"),
    "args_not_a_tuple": (lambda: check_args(HALF), "args must be a tuple"),
    "args_text": (lambda: program(lambda p, s: {"s": s}, lambda p: initial(), args=("x",)), "numbers and arrays only"),
    "state_names": (lambda: program(lambda x: {"x": x}), r"step takes \['x'\] .* state variables \['s'\]"),
    "state_missing": (lambda: program(lambda: {"s": 0}), r"step takes \[\]"),
    "step_returns_other_names": (returning({"z": 0}), r"step returned the state variables \['z'\].*\['s'\]"),
    "step_returns_tuple": (returning((0,)), "step must return a dict of state variables; it returned tuple"),
    "step_returns_float": (returning({"s": 0.5}), "step returned 's' with dtype float64.*return an integer"),
    "step_returns_vector": (returning({"s": jnp.arange(2)}), r"step returned 's' with shape \(2,\)"),
    "initial_returns_none": (lambda: program(initial=lambda: None), "initial must return a dict"),
    "state_called_t": (named_t, "'t' cannot be a state variable"),
    "size_unknown": (
        lambda: program(initial=lambda: {"s": 0}),
        r'number of values is unknown; give sizes=\{"s": ...\}',
    ),
    "size_wrong": (lambda: program(sizes={"s": 5}), r"sizes\['s'\] is 5, and initial's site has 2 values"),
    "size_of_nothing": (lambda: program(sizes={"z": 5}), r"sizes names 'z', but the state variables are \['s'\]"),
    "initial_decides": (lambda: program(initial=deciding_first), "initial holds the decision site 's'"),
    "initial_rewards": (lambda: program(initial=rewarding_first), "initial holds the optimality site"),
    "final_samples": (lambda: program(final=final_that_samples), "final holds the chance site 'x'"),
    "site_named_like_a_state": (
        with_site(lambda s, a: numpyro.sample("s", Bernoulli(0.5))),
        "site 's' has a state variable's name; call it 's_next'",
    ),
    "site_called_alive": (with_site(lambda s, a: numpyro.sample("alive", Bernoulli(0.5))), "reserved name"),
    "two_sites_of_one_name": (
        with_site(lambda s, a: numpyro.sample("a", Bernoulli(0.5))),
        "two sites named 'a'; give each site its own name",
    ),
    "two_factors_of_one_name": (
        with_site(lambda s, a: (optimality(1.0), optimality(2.0))),
        "two sites named 'optimality'",
    ),
    "infinite_support": (with_site(lambda s, a: numpyro.sample("n", Poisson(2.0))), "infinitely many values"),
    "continuous": (with_site(lambda s, a: numpyro.sample("x", Normal())), r"'x' \(Normal\) has infinitely many values"),
    "delta": (with_site(lambda s, a: numpyro.sample("x", Delta(1))), r"'x' \(Delta\) has infinitely many values"),
    "support_depends_on_state": (
        with_site(lambda s, a: numpyro.sample("x", DiscreteUniform(0, s + 1))),
        "support that depends on the state",
    ),
    "vector_site": (
        with_site(lambda s, a: numpyro.sample("x", Categorical(probs=EYE))),
        r"'x' \(CategoricalProbs\) has shape \(2,\); a site of a step is one number",
    ),
    "observed_site": (
        with_site(lambda s, a: numpyro.sample("x", Bernoulli(0.5), obs=1)),
        "has obs=...; state evidence",
    ),
    "scaled": (lambda: program(handlers.scale(step, scale=0.5)), "is scaled; multiply the log probability"),
    "param": (lambda: program(with_param), "is a numpyro.param; pass it to the program in args"),
    "plate": (lambda: program(with_plate), "step has the plate 'many'"),
    "vector_reward": (with_site(lambda s, a: optimality(jnp.ones(2))), r"optimality 'optimality' has shape \(2,\)"),
    "python_branch": (lambda: program(branching), "step uses the value of a variable in Python"),
    "numpy_lookup": (lambda: program(indexing_numpy), "indexes a NumPy array or a list with a traced value"),
    "prior_sum": (priors(jnp.array([0.5, 0.4])), "the prior of 'a' sums to 0.9, -0.1 off"),
    "prior_negative": (priors(jnp.array([1.5, -0.5])), "the prior of 'a' is .*at least 0"),
    "prior_without_mass": (priors(jnp.array([0.0, 0.0])), "the prior of 'a' sums to 0"),
    "reward_minus_infinity": (
        rewards(jnp.array([[0.0, 1.0], [0.0, -jnp.inf]])),
        "optimality 'optimality' is -inf at s = 1, a = 1; .* give prior 0 to impossible actions",
    ),
    "reward_nan": (rewards(jnp.array([[0.0, jnp.nan], [0.0, 1.0]])), "is nan at s = 0, a = 1"),
    "next_outside": (moving(lambda s: s + 1), "step returns a value of 's' at s = 1 outside its 2 values"),
    "next_negative": (moving(lambda s: s - 1), "step returns a value of 's' at s = 0 outside its 2 values"),
    "first_outside": (
        solved(lambda s: {"s": s}, initial=lambda: {"s": 7}, sizes={"s": 2}),
        "initial returns a value of 's' outside its 2 values",
    ),
    "temperature_of_the_state": (lambda: tempered(lambda s: 1.0 + s), r"inverse temperature of 'a' depends on \['s'\]"),
    "temperature_nan": (lambda: exact.solve(tempered(lambda s: jnp.nan)), "inverse temperature of 'a' is not finite"),
    "temperatures_differ": (
        lambda: exact.condition(tempered(lambda s: 1.0, lambda s: 2.0)),
        r"inverse temperatures of \['a', 'b'\] differ",
    ),
    "policy_names": (lambda: exact.elbo(program(), {"b": HALF}), r"policy has the decisions \['b'\].*\['a'\]"),
    "policy_shape": (policy(jnp.ones((2, 3, 2)) / 2), r"policy\['a'\] has shape \(2, 3, 2\); its axes are \(T, s, a\)"),
    "policy_rows": (policy(jnp.ones((2, 2, 2))), r"policy\['a'\] at t = 0, s = 0 is .*sum to 1"),
    "policy_negative": (policy(jnp.array([[1.5, -0.5], [0.5, 0.5]])), r"policy\['a'\] at t = 0, s = 0"),
    "num_steps": (lambda: svi.fit(program(), KEY, 0), "num_steps must be at least 1; got 0"),
    "step_size": (lambda: svi.fit(program(), KEY, step_size=1.5), "step_size must be above 0 and at most 1; got 1.5"),
    "num_samples": (lambda: exact.sample(program(), KEY, {"a": HALF[None]}, 0), "n must be at least 1; got 0"),
    "model_prior_shape": (lambda: models.single_agent(TASK, 2, prior=np.ones((3, 2)) / 2), r"prior has shape \(3, 2\)"),
    "model_prior_row": (lambda: models.single_agent(TASK, 2, prior=np.ones((2, 2))), r"prior\[.*sums to 2"),
    "model_beta": (lambda: models.single_agent(TASK, 2, beta=float("nan")), "beta is nan"),
    "model_betas": (lambda: models.single_agent(TASK, 2, beta=np.ones(3)), r"beta has shape \(3,\).*jax.vmap"),
    "model_reward_times": (
        lambda: models.single_agent(MDP(np.full((2, 2, 2), 0.5), np.zeros((3, 2, 2)), [1.0, 0.0]), 2),
        "reward has 3 time steps, but horizon is 2",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_named_and_says_what_to_do(case):
    wrong, message = CASES[case]
    with pytest.raises((TypeError, ValueError), match="(?s)" + message):
        wrong()


def test_under_tracing_a_mistake_shows_in_converged():
    def value(size):
        def step(s):
            decide("a", Categorical(probs=HALF))
            return {"s": s + size}

        return exact.solve(program(step))

    assert bool(jax.vmap(value)(jnp.array([0])).converged[0])
    assert not bool(jax.vmap(value)(jnp.array([1])).converged[0])
