"""Programs of one shape share one compilation, can be vmapped and differentiated."""

import contextlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from jax import monitoring
from numpyro.distributions import Categorical

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact, svi
from rlinf_ppl.inference.chains import answers
from rlinf_ppl.program import read
from rlinf_ppl.tasks import MDP

STATES, ACTIONS, HORIZON = 7, 3, 5
ADAM = optax.adam(0.1)
COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compilations():
    """A context that lists every compilation by XLA inside it."""
    seen = []

    def listener(event, duration, **about):
        if event == COMPILED:
            seen.append(about.get("fun_name", ""))

    monitoring.register_event_duration_secs_listener(listener)

    @contextlib.contextmanager
    def counting():
        del seen[:]
        yield seen

    yield counting
    monitoring.unregister_event_duration_listener(listener)


def task(seed):
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(STATES), size=(STATES, ACTIONS))
    names = [f"state {seed}.{i}" for i in range(STATES)]
    return MDP(transition, rng.normal(size=(STATES, ACTIONS)), np.full(STATES, 1 / STATES), state_names=names)


def test_a_sweep_over_betas_and_tasks_compiles_each_engine_once(compilations):
    engines = {
        "solve": exact.solve,
        "condition": exact.condition,
        "posterior_marginals": exact.posterior_marginals,
        "fit": lambda program: svi.fit(program, jax.random.key(0)),
        "fit by Adam": lambda program: svi.fit(program, jax.random.key(0), 20, optimizer=ADAM),
    }
    for name, engine in engines.items():
        sweep = [(task(seed), 0.1 * i) for seed in range(3) for i in range(20 if name == "solve" else 2)]
        with compilations() as first:
            engine(models.single_agent(sweep[0][0], HORIZON, beta=sweep[0][1], discount=0.9))
        assert first
        with compilations() as later:
            for mdp, beta in sweep[1:]:
                engine(models.single_agent(mdp, HORIZON, beta=beta, discount=0.9))
        assert later == []


def test_the_solver_itself_compiles_once(compilations):
    before = answers.solve._cached._cache_size()
    for seed in range(3):
        for beta in (0.3, 0.6):
            exact.solve(models.single_agent(task(seed), HORIZON + 1, beta=beta))
    assert answers.solve._cached._cache_size() == before + 1


def test_closures_of_one_form_share_all_compiled_code(compilations):
    def solved(transition, scale):
        def initial():
            return {"s": numpyro.sample("s", Categorical(probs=jnp.full(STATES, 1 / STATES)))}

        def step(s):
            a = decide("a", Categorical(probs=jnp.full(ACTIONS, 1 / ACTIONS)))
            optimality(scale * s * a)
            return {"s": numpyro.sample("s_next", Categorical(probs=transition[s, a]))}

        return exact.solve(ControlProgram(initial, step, HORIZON)).elbo

    scales = [jnp.asarray(0.1), jnp.asarray(0.7)]
    first = solved(task(0).transition, scales[0])
    with compilations() as later:
        second = solved(task(1).transition, scales[1])
    assert later == []
    assert float(first) != float(second)


def test_vmap_over_beta_equals_a_loop():
    betas = jnp.array([0.0, 0.5, 2.0])
    solve = partial(models.single_agent, task(0), HORIZON)
    together = jax.vmap(lambda beta: exact.solve(solve(beta=beta)))(betas)
    assert together.converged.all()
    for i, beta in enumerate(betas):
        alone = exact.solve(solve(beta=beta))
        np.testing.assert_allclose(together.value[i], alone.value, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(together.policy["a"][i], alone.policy["a"], rtol=1e-10)


def test_programs_themselves_can_be_stacked_and_vmapped():
    programs = [models.single_agent(task(seed), HORIZON, beta=0.7) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *programs)
    evidence = jax.vmap(lambda program: exact.condition(program).log_evidence)(stacked)
    np.testing.assert_allclose(evidence, [exact.condition(program).log_evidence for program in programs], rtol=1e-10)


def test_grad_over_beta_equals_finite_differences():
    def bound(beta):
        return exact.solve(models.single_agent(task(0), HORIZON, beta=beta)).elbo

    difference = (bound(0.8 + 1e-6) - bound(0.8 - 1e-6)) / 2e-6
    assert float(jax.grad(bound)(0.8)) == pytest.approx(float(difference), rel=1e-8)


def test_jit_of_the_whole_way_from_arrays_to_value():
    mdp = task(0)

    @jax.jit
    def value(reward):
        return exact.solve(models.single_agent(MDP(mdp.transition, reward, mdp.initial), HORIZON)).value

    np.testing.assert_allclose(value(mdp.reward), exact.solve(models.single_agent(mdp, HORIZON)).value, rtol=1e-12)


@pytest.mark.parametrize("of", [lambda beta: beta, lambda beta: 2 * jnp.exp(beta)], ids=["plain", "computed"])
def test_two_decisions_share_a_traced_inverse_temperature_that_is_worked_out_twice(of):
    """A Python number that jit traces has a weak type, and each decision makes its own float of it."""

    def log_evidence(beta):
        def initial(beta):
            return {"s": numpyro.sample("s0", Categorical(jnp.ones(2) / 2))}

        def step(beta, s):
            a, b = (decide(name, Categorical(jnp.ones(2) / 2), inverse_temperature=of(beta)) for name in "ab")
            optimality(1.0 * (a == b) + s)
            return {"s": a}

        return exact.condition(ControlProgram(initial, step, 2, args=(beta,))).log_evidence

    for beta in (1, 1.5):
        np.testing.assert_allclose(jax.jit(log_evidence)(beta), log_evidence(beta), rtol=1e-6)


def test_posterior_marginals_keep_no_table_for_each_time():
    """They come from the derivative of a scan, which may keep whatever a step reads: here a transition of S x S."""
    states, horizon, rng = 100, 200, np.random.default_rng(0)
    mdp = MDP(rng.dirichlet(np.ones(states), size=(states, 2)), rng.normal(size=(states, 2)), np.ones(states) / states)
    chain = read(models.single_agent(mdp, horizon, discount=0.9))
    compiled = jax.jit(answers.posterior_marginals.__wrapped__).lower(chain, None).compile()
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes < 10 * 8 * states * (2 * horizon + 2 * states)
