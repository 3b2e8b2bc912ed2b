"""What a tired user gets wrong in a program, and the one line that says what to do."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import numpyro
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import (
    Bernoulli,
    Categorical,
    Delta,
    DiscreteUniform,
    EulerMaruyama,
    ImproperUniform,
    Multinomial,
    Normal,
    Poisson,
    StudentT,
    TruncatedPolyaGamma,
    constraints,
)

from rlinf_ppl import ControlProgram, decide, models, optimality, truncated
from rlinf_ppl.algebra import regularizers
from rlinf_ppl.inference import exact, svi
from rlinf_ppl.program.checks import check_args, check_horizon
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


def cooling(taus):
    """An inverse temperature of its own at every time."""

    def step(taus, s, t):
        optimality(1.0 * decide("a", Categorical(probs=HALF), inverse_temperature=taus[t]))
        return {"s": s}

    return ControlProgram(lambda taus: initial(), step, 2, args=(taus,))


def deciding_for_it(s, a):
    with handlers.condition(data={"b": 1}):
        decide("b", Categorical(probs=HALF))


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


def with_plate(law=None, **options):
    def plated(s):
        with numpyro.plate("many", 3, **options):
            decide("a", Categorical(probs=HALF) if law is None else law)
        return {"s": s}

    return plated


def deciding_first():
    return {"s": decide("s", Categorical(probs=HALF))}


def rewarding_first():
    optimality(1.0)
    return initial()


def final_that_samples(s):
    numpyro.sample("x", Bernoulli(0.5))


def endless(reward=0.0):
    def step(s):
        a = decide("a", Categorical(probs=HALF))
        optimality(1.0 * a * s + reward)
        return {"s": numpyro.sample("s_next", Categorical(probs=EYE[a]))}

    return program(step, horizon=None, discount=0.9)


def regularized(regularizer=regularizers.tsallis):
    def step(s):
        a = decide("a", Categorical(probs=HALF), regularizer=regularizer)
        optimality(1.0 * a * s)
        return {"s": a}

    return program(step)


def policy(array):
    return lambda: exact.elbo(program(), {"a": array})


CASES = {
    "horizon_zero": (lambda: program(horizon=0), "horizon must be at least 1; got 0"),
    "horizon_fraction": (lambda: check_horizon(2.5), "horizon must be a whole number of steps, or None; got 2.5"),
    "endless_discount_one": (lambda: program(horizon=None), "horizon None needs a discount below 1.* got discount 1.0"),
    "endless_time": (
        lambda: program(lambda s, t: {"s": s}, horizon=None, discount=0.9),
        "step takes t, so an infinite horizon has no one policy",
    ),
    "endless_final": (
        lambda: program(final=lambda s: optimality(1.0 * s), horizon=None, discount=0.9),
        "an infinite horizon has no last state for final",
    ),
    "endless_model": (lambda: endless().model(), r"no model; use program.unroll\(T\)"),
    "endless_guide": (lambda: endless().guide(), r"no guide; use program.unroll\(T\)"),
    "endless_sample": (lambda: exact.sample(endless(), KEY, {"a": HALF}, 2), r"no trajectories.*program.unroll\(T\)"),
    "endless_posterior_marginals": (lambda: exact.posterior_marginals(endless()), "no posterior marginals"),
    "endless_policy_with_time": (
        lambda: exact.elbo(endless(), {"a": np.full((3, 2, 2), 0.5)}),
        r"shape \(3, 2, 2\); its axes are \(s, a\)",
    ),
    "endless_prior_with_time": (
        lambda: models.single_agent(TASK, None, prior=np.full((3, 2, 2), 0.5), discount=0.9),
        r"prior has shape \(3, 2, 2\)",
    ),
    "tolerance_of_a_finite_horizon": (
        lambda: exact.solve(program(), tolerance=1e-3),
        "tolerance is for an infinite horizon",
    ),
    "tolerance_zero": (lambda: exact.solve(endless(), tolerance=0.0), "tolerance must be above 0; got 0.0"),
    "tolerance_below_reach": (
        lambda: exact.solve(endless(), tolerance=1e-17),
        "at discount 0.9 float64 can reach a relative error of about .* not 1e-17: give a larger tolerance",
    ),
    "posterior_without_end": (
        lambda: exact.condition(endless(reward=1.0)),
        "no posterior given optimality at an infinite horizon.*spectral radius between .* below 1",
    ),
    "condition_regularized": (
        lambda: exact.condition(regularized()),
        "'a' is regularized by tsallis.* no joint model.*exact.solve and svi.fit work",
    ),
    "guide_regularized": (lambda: regularized().guide(), "'a' is regularized by tsallis"),
    "conjugate_alone": (
        lambda: exact.evaluate(regularized(lambda x, p: jnp.log(jnp.sum(jnp.exp(x)))), {"a": np.full((2, 2), 0.5)}),
        "has a conjugate only; to evaluate policies that are given, give from_conjugate its cost",
    ),
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
        lambda: exact.solve(program(initial=lambda: {"s": 0})),
        r'number of values is unknown; give sizes=\{"s": ...\}',
    ),
    "size_wrong": (lambda: program(sizes={"s": 5}), r"sizes\['s'\] is 5, and initial's site has 2 values"),
    "size_of_real_numbers": (
        lambda: program(lambda x: {"x": x}, lambda: {"x": 0.5}, sizes={"x": 3}),
        "sizes names 'x', but initial returns real numbers for it: leave it out",
    ),
    "positions_of_real_numbers": (
        lambda: program(lambda x: {"x": x}, lambda: {"x": 0.5}).positions("x", jnp.zeros(1)),
        "a Gaussian variable has no positions",
    ),
    "decision_with_a_value": (with_site(deciding_for_it), "'b' .*is a decision with a value.* by its prior"),
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
    "infinite_support": (
        lambda: exact.solve(with_site(lambda s, a: numpyro.sample("n", Poisson(2.0)))()),
        r"'n' \(Poisson\) has infinitely many values.*truncated\(Poisson\(...\), largest\).*smc.run takes this one",
    ),
    "heavy_tails": (
        lambda: exact.solve(with_site(lambda s, a: numpyro.sample("x", StudentT(3.0)))()),
        r"'x' \(StudentT\) has infinitely many values.*sites that are finite, or Normal.*smc.run takes this one",
    ),
    "independent_coordinates": (
        lambda: exact.solve(with_site(lambda s, a: numpyro.sample("x", Bernoulli(HALF).to_event(1)))()),
        r"'x' \(BernoulliProbs\) has shape \(2,\).*write a site for each",
    ),
    "improper": (
        with_site(lambda s, a: numpyro.sample("x", ImproperUniform(constraints.real, (), ()))),
        r"site 'x' \(ImproperUniform\) cannot be drawn from",
    ),
    "path_of_its_own": (
        with_site(lambda s, a: numpyro.sample("x", EulerMaruyama(jnp.arange(3.0), lambda x, t: (x, x), Normal()))),
        "site 'x' is EulerMaruyama, a path of its own",
    ),
    "draws_beside_their_density": (
        with_site(lambda s, a: numpyro.sample("x", TruncatedPolyaGamma())),
        "site 'x' is TruncatedPolyaGamma, whose draws",
    ),
    "traced_total_count": (
        with_site(lambda s, a: numpyro.sample("x", Multinomial(s, HALF))),
        "site 'x'.*a traced number",
    ),
    "plate_in_part": (
        lambda: program(with_plate(subsample_size=2)),
        "step: the plate 'many' draws 2 of 3; a step holds all of a plate",
    ),
    "plate_of_another_shape": (
        lambda: program(with_plate(law=Normal(jnp.zeros(2)))),
        "many.*2.*3|3.*2",
    ),
    "state_of_another_structure": (
        lambda: program(lambda s: {"s": (s, s)}, initial=lambda: {"s": (0.0,)}),
        "step returned 's' with the structure .*; its first value has .*keeps its structure",
    ),
    "state_of_another_type": (
        lambda: program(lambda s: {"s": s + 0.5}, initial=lambda: {"s": 0}),
        "step returned 's' with dtype float64; its first value has int64: let the first one have the type of all",
    ),
    "state_of_words": (
        lambda: program(initial=lambda: {"s": "left"}),
        "initial returned 's' as 'left'; a state variable is made of arrays",
    ),
    "truncated_real": (lambda: truncated(Normal(), 3), "takes a law of counts; got Normal"),
    "truncated_below": (lambda: truncated(Poisson(1.0), -1), "a whole number of at least 0"),
    "continuous": (
        lambda: exact.solve(with_site(lambda s, a: numpyro.sample("x", Normal()))()),
        "'x' is Gaussian and initial's site 's' has finitely many values",
    ),
    "delta": (
        lambda: exact.solve(with_site(lambda s, a: numpyro.sample("x", Delta(1)))()),
        r"'x' \(Delta\) has one value, which is known",
    ),
    "support_depends_on_state": (
        lambda: exact.solve(with_site(lambda s, a: numpyro.sample("x", DiscreteUniform(0, s + 1)))()),
        "a number of them that is not known",
    ),
    "vector_site": (
        with_site(lambda s, a: numpyro.sample("x", Categorical(probs=EYE))),
        r"'x' \(CategoricalProbs\) has batch shape \(2,\); a site of a step is one number",
    ),
    "vector_of_data": (
        with_site(lambda s, a: numpyro.sample("x", Bernoulli(0.5 * jnp.ones(2)), obs=jnp.ones(2))),
        "declare a vector of data by to_event",
    ),
    "scaled": (lambda: program(handlers.scale(step, scale=0.5)), "is scaled; multiply the log probability"),
    "param": (lambda: program(with_param), "is a numpyro.param; pass it to the program in args"),
    "vector_reward": (with_site(lambda s, a: optimality(jnp.ones(2))), r"optimality 'optimality' has shape \(2,\)"),
    "python_branch": (lambda: program(branching), "step uses the value of a variable in Python"),
    "numpy_lookup": (lambda: program(indexing_numpy), "hands a traced value to NumPy.*jnp.asarray"),
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
    "temperatures_traced": (
        lambda: jax.jit(lambda taus: exact.condition(cooling(taus)).value)(jnp.ones(2)),
        "temperatures are traced and not one number, so they cannot be compared",
    ),
    "temperature_nan": (lambda: exact.solve(tempered(lambda s: jnp.nan)), "inverse temperature of 'a' is not a number"),
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


def scanning(s):
    return {"s": scan(lambda carry, x: (carry, x), s, jnp.arange(2))[0]}


def raw_prior(s):
    decide("a", HALF)
    return {"s": s}


def looking_up(array):
    def step(s):
        a = decide("a", Categorical(probs=HALF))
        optimality(array[s, a])
        return {"s": s}

    return lambda: program(step, initial=lambda: {"s": 0}, sizes={"s": 4})


def timed_out(s, t):
    optimality(jnp.ones(2)[t])
    return {"s": s}


def joint(s, **others):
    for name in "abcdef":
        s = s + decide(name, Categorical(probs=jnp.full(64, 1 / 64)))
    optimality(1.0 * s)
    return {"s": 0}


def step_with(sentence):
    """A program whose step also says something about its state and its decision."""

    def step(s):
        a = decide("a", Categorical(probs=HALF))
        sentence(s, a)
        return {"s": s}

    return lambda: program(step)


# These come with arguments of the wrong type, which the suite's own checks of annotations would catch first.
TYPES = {
    "regularizer_by_name": (
        with_site(lambda s, a: decide("b", Bernoulli(0.5), regularizer="tsallis")),
        "the regularizer of 'b' is a str; give its convex conjugate",
    ),
    "no_program_but_a_task": (lambda: exact.solve(TASK), "an engine takes a ControlProgram.*got MDP"),
    "no_program_but_a_model": (lambda: exact.solve(program().model), "not its model.*got BoundMethod"),
    "no_task": (lambda: models.single_agent("lottery", 2), "mdp must be a task of rlinf_ppl.tasks, MDP; got str"),
    "no_policy_but_a_solution": (
        lambda: exact.elbo(program(), exact.solve(program())),
        r"a policy is a dict with an array for each of \['a'\].*got Solution",
    ),
    "no_policy_but_an_array": (lambda: exact.elbo(program(), HALF), "a policy is a dict"),
    "key_is_a_number": (lambda: svi.fit(program(), 0), "key must be a JAX random key.*got int"),
    "key_and_policy_swapped": (
        lambda: exact.sample(program(), {"a": HALF}, KEY, 3),
        "key must be a JAX random key.*got dict|a policy is a dict",
    ),
    "num_samples_fraction": (lambda: exact.posterior_sample(program(), KEY, 2.5), "n must be a whole number; got 2.5"),
    "num_samples_true": (lambda: exact.posterior_sample(program(), KEY, True), "n must be a whole number; got True"),
    "optimizer_by_name": (lambda: svi.fit(program(), KEY, optimizer="adam"), "one of optax.*got str"),
    "optimizer_of_numpyro": (
        lambda: svi.fit(program(), KEY, optimizer=numpyro.optim.Adam(0.1)),
        "one of optax, such as optax.adam.* got Adam",
    ),
    "nothing_to_fit": (
        lambda: svi.fit(program(lambda s: {"s": s}), KEY),
        "no decisions to fit; mark the agent's sites",
    ),
    "restarts_under_vmap": (
        lambda: jax.vmap(lambda key: svi.fit(program(), key, num_restarts=2).elbo)(jax.random.split(KEY, 2)),
        "inside jit and vmap each key is a start of its own",
    ),
    "optimality_name_first": (
        step_with(lambda s, a: optimality("reward", 1.0 * a)),
        r"optimality\(log_prob, name\): the log probability comes first, and the name is a string; got .*Tracer",
    ),
    "optimality_of_nothing": (
        step_with(lambda s, a: optimality(None)),
        "'optimality' is given NoneType; it must be one number",
    ),
    "optimality_of_a_list": (step_with(lambda s, a: optimality([s, a])), "is given list; it must be one number"),
    "decision_prior_first": (
        step_with(lambda s, a: decide(Categorical(probs=HALF), "b")),
        r"decide\(name, prior\): the name comes first and is a string; got CategoricalProbs",
    ),
    "temperature_as_text": (
        step_with(lambda s, a: decide("b", Categorical(probs=HALF), "2")),
        "inverse temperature of 'b' must be one number; got '2'",
    ),
    "temperatures_of_all_times": (
        step_with(lambda s, a: decide("b", Categorical(probs=HALF), jnp.ones(3))),
        "inverse temperature of 'b' must be one number.*Index an array by t",
    ),
    "dict_lookup": (
        step_with(lambda s, a: optimality({0: 1.0, 1: 0.0}[s])),
        r"step looks up a dict or a set by the value of a variable.*table = jnp.array",
    ),
    "function_of_numpy": (step_with(lambda s, a: optimality(np.log(1.0 + s))), "take the function from jax.numpy"),
    "list_lookup": (step_with(lambda s, a: optimality([1.0, 0.0][s])), r"in Python \(if, .* a list's index\)"),
    "several_keys": (
        lambda: svi.fit(program(), jax.random.split(KEY, 3)),
        r"key must be one JAX random key; got \(3,\) of them: use jax.vmap over the keys",
    ),
    "key_of_floats": (lambda: svi.fit(program(), HALF), r"key must .*; got an array of float64 with shape \(2,\)"),
    "key_and_program_swapped": (lambda: svi.fit(KEY, program()), "takes a ControlProgram first.*got PRNGKeyArray"),
    "step_size_as_text": (lambda: svi.fit(program(), KEY, step_size="1"), "step_size must be one number; got '1'"),
    "tolerances": (lambda: svi.fit(program(), KEY, tolerance=HALF), r"tolerance must be one number; got shape \(2,\)"),
    "policy_by_name": (
        lambda: exact.elbo(program(), {"a": "uniform"}),
        r"policy\['a'\] must be an array of probabilities.*got 'uniform'",
    ),
    "policy_ragged": (lambda: exact.elbo(program(), {"a": [[0.5, 0.5], [1.0]]}), r"policy\['a'\] must be an array"),
    "raw_prior": (lambda: program(raw_prior), "prior of 'a' is a .*give a NumPyro distribution"),
    "loop_in_a_step": (lambda: program(scanning), "control_flow statement; .*time is the program's own loop"),
    "args_that_initial_does_not_take": (
        lambda: program(lambda p, s: {"s": s}, args=(HALF,)),
        "initial is called with the program's 1 args, which it does not take: too many positional arguments",
    ),
    "final_of_another_state": (
        lambda: program(final=lambda z: optimality(z)),
        "final is called with the program's 0 args, then s by name, which it does not take",
    ),
    "final_returns": (lambda: program(final=lambda s: 1.0 * s), "final returned .*; it states optimality"),
    "final_says_nothing": (lambda: program(final=lambda s: None), "final states no optimality"),
    "initial_is_a_dict": (lambda: program(initial={"s": 0}), "initial must be a function; got dict"),
    "step_is_a_number": (lambda: program(step=3), "step must be a function; got int"),
    "sizes_not_a_dict": (lambda: program(initial=lambda: {"s": 0}, sizes=[2]), "sizes must be a dict such as"),
    "size_fraction": (lambda: program(initial=lambda: {"s": 0}, sizes={"s": 2.5}), "sizes must hold whole numbers"),
    "axes_swapped": (
        looking_up(jnp.ones((2, 4))),
        r"step looks up 's', with values 0..3, on axis 0 of an array of shape \(2, 4\).*order of the indices",
    ),
    "times_too_few": (lambda: program(timed_out, horizon=3), r"looks up 't', with values 0..2, on axis 0"),
    "too_many_entries": (
        solved(joint, initial=lambda: {"s": 0}, sizes={"s": 2}),
        r"the (table|policy) of '\w' varies with \(.*more than 2147483647 entries",
    ),
}


@pytest.fixture
def unchecked_annotations():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("case", TYPES)
@pytest.mark.usefixtures("unchecked_annotations")
def test_an_argument_of_another_type_is_named(case):
    wrong, message = TYPES[case]
    with pytest.raises((TypeError, ValueError), match="(?s)" + message):
        wrong()


@pytest.mark.parametrize("call", [lambda: step(0), lambda: program().step(s=0), lambda: program().model()])
def test_a_step_or_a_model_without_a_handler_says_what_gives_it_values(call):
    with pytest.raises(RuntimeError, match=r"called outside of a program.*numpyro.handlers.seed"):
        call()


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


def test_under_tracing_rows_that_are_no_distributions_show_in_converged():
    priors = jnp.array([[0.5, 0.5], [0.7, 0.7], [1.5, -0.5]])

    def both(row):
        prog = models.single_agent(TASK, 2, prior=jnp.stack([row, HALF]))
        return exact.solve(prog).converged, exact.condition(prog).converged

    for converged in jax.vmap(both)(priors):
        np.testing.assert_array_equal(converged, [True, False, False])


def test_a_known_policy_is_checked_inside_a_callers_jit():
    good, bad = np.full((2, 2), 0.5), np.ones((2, 2))
    bound = jax.jit(lambda beta, q: exact.elbo(models.single_agent(TASK, 2, beta), {"a": q}))
    known = jax.jit(lambda beta: exact.elbo(models.single_agent(TASK, 2, beta), {"a": good}))
    assert float(known(2.0)) == pytest.approx(float(bound(2.0, good)))
    with pytest.raises(ValueError, match="policy.*sum to 1"):
        jax.jit(lambda beta: exact.elbo(models.single_agent(TASK, 2, beta), {"a": bad}))(2.0)
