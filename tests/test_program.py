"""The language: what a step program is found to be, whatever way it was written."""

import copy
import pickle

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import numpyro
import pytest
from jax.scipy.special import logsumexp
from numpyro.distributions import Bernoulli, Categorical, DiscreteUniform
from programs_more import PAIRS

from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.inference import exact
from rlinf_ppl.program import read

UNIFORM = jnp.full(2, 0.5)


def initial():
    return {"s": numpyro.sample("s", Categorical(probs=UNIFORM))}


def draw(name, probs):
    return numpyro.sample(name, Categorical(probs=probs))


def test_graph_of_a_slice_names_every_dependence():
    def step(s, z):
        b = decide("b", Bernoulli(0.3))
        a = decide("a", Categorical(probs=jnp.stack([UNIFORM, UNIFORM])[s]))
        optimality(jnp.where(b == 1, a, z) * 1.0)
        return {"s": draw("s_next", jnp.stack([UNIFORM, UNIFORM])[a]), "z": z}

    def start():
        return initial() | {"z": 1}

    graph = ControlProgram(start, step, 2, sizes={"z": 3}).graph()
    kinds = nx.get_node_attributes(graph, "kind")
    assert kinds == {
        "s": "state",
        "z": "state",
        "b": "decision",
        "a": "decision",
        "optimality": "optimality",
        "s_next": "chance",
        "s'": "state",
        "z'": "state",
    }
    assert set(graph.edges) == {
        ("s", "a"),
        ("z", "optimality"),
        ("b", "optimality"),
        ("a", "optimality"),
        ("a", "s_next"),
        ("s_next", "s'"),
        ("z", "z'"),
    }


def test_a_state_variable_that_never_matters_is_in_no_scope():
    def step(s, counter):
        a = decide("a", Categorical(probs=UNIFORM))
        optimality(1.0 * s * a)
        return {"s": draw("s_next", UNIFORM), "counter": jnp.minimum(counter + 1, 3)}

    program = ControlProgram(lambda: initial() | {"counter": 0}, step, 2, sizes={"counter": 4})
    assert program.scopes == {"a": ("s",)}
    solution = exact.solve(program)
    assert solution.policy["a"].shape == (2, 2, 2)
    assert solution.value.shape == (3, 2, 4)
    np.testing.assert_array_equal(solution.value, solution.value[:, :, :1] * jnp.ones((1, 1, 4)))


def test_the_last_factors_enter_the_scopes():
    def step(s, goal):
        a = decide("a", Categorical(probs=UNIFORM))
        return {"s": a, "goal": goal}

    def final(s, goal):
        optimality(jnp.where(s == goal, 0.0, -1.0))

    def start():
        return initial() | {"goal": numpyro.sample("goal", Categorical(probs=UNIFORM))}

    program = ControlProgram(start, step, 3, final=final)
    assert program.scopes == {"a": ("goal",)}
    policy = exact.solve(program).policy["a"]
    np.testing.assert_allclose(policy[:-1], 0.5, atol=1e-12)
    np.testing.assert_allclose(policy[-1], jax.nn.softmax(jnp.array([[0.0, -1.0], [-1.0, 0.0]])), rtol=1e-12)


def test_states_follow_the_order_of_the_signature():
    def step(z, s):
        decide("a", Categorical(probs=UNIFORM))
        return {"s": s, "z": z}

    program = ControlProgram(lambda: {"s": 0, "z": 0}, step, 1, sizes={"s": 2, "z": 3})
    assert program.state == ("z", "s")
    assert exact.solve(program).value.shape == (2, 3, 2)


def test_a_step_may_take_its_states_by_any_keyword():
    def step(**state):
        a = decide("a", Categorical(probs=UNIFORM))
        optimality(1.0 * a * state["s"])
        return {"s": a}

    program = ControlProgram(initial, step, 2)
    assert program.scopes == {"a": ("s",)}


def test_two_states_may_trade_places():
    def step(x, y):
        a = decide("a", Categorical(probs=UNIFORM))
        optimality(1.0 * a * x)
        return {"x": y, "y": x}

    program = ControlProgram(lambda: {"x": 0, "y": 1}, step, 2, sizes={"x": 2, "y": 2})
    solution = exact.solve(program)
    one = jnp.log(0.5 + 0.5 * jnp.e)
    np.testing.assert_allclose(solution.value[0], [[0.0, one], [one, 2 * one]], rtol=1e-12)
    np.testing.assert_allclose(solution.elbo, one, rtol=1e-12)


def test_two_states_may_take_the_same_value():
    def step(x, y):
        a = decide("a", Categorical(probs=UNIFORM))
        optimality(1.0 * x * y)
        return {"x": a, "y": a}

    program = ControlProgram(lambda: {"x": 0, "y": 1}, step, 2, sizes={"x": 2, "y": 2})
    assert float(exact.solve(program).elbo) == pytest.approx(float(jnp.log(0.5 + 0.5 * jnp.e)))


def test_tables_are_indexed_by_position_in_the_support():
    def start():
        return {"load": numpyro.sample("load", DiscreteUniform(2, 4))}

    def step(load):
        die = numpyro.sample("die", DiscreteUniform(1, 6))
        a = decide("a", DiscreteUniform(-1, 1))
        optimality(0.1 * a * die * load)
        return {"load": jnp.clip(load + a, 2, 4)}

    program = ControlProgram(start, step, 1)
    policy = exact.solve(program).policy["a"]
    assert program.scopes == {"a": ("load", "die")}
    for i, load in enumerate((2, 3, 4)):
        for j, die in enumerate(range(1, 7)):
            expected = jax.nn.softmax(0.1 * jnp.array([-1, 0, 1]) * die * load)
            np.testing.assert_allclose(policy[0, i, j], expected, rtol=1e-12)


def test_priors_by_logits_and_by_probabilities_agree():
    def by(prior):
        def step(s):
            a = decide("a", prior)
            optimality(1.0 * a * s)
            return {"s": a}

        return exact.solve(ControlProgram(initial, step, 2)).value

    np.testing.assert_allclose(
        by(Categorical(probs=jnp.array([0.2, 0.8]))), by(Categorical(logits=jnp.log(jnp.array([0.2, 0.8])))), rtol=1e-12
    )
    np.testing.assert_allclose(by(Bernoulli(probs=0.8)), by(Bernoulli(logits=jnp.log(4.0))), rtol=1e-12)


def test_a_closure_is_read_afresh():
    reward = jnp.array([0.0, 1.0])
    scale = 2.0

    def step(s):
        a = decide("a", Categorical(probs=UNIFORM))
        optimality(scale * reward[a])
        return {"s": s}

    def value():
        return float(exact.solve(ControlProgram(initial, step, 1)).elbo)

    first = value()
    reward = jnp.array([0.0, 3.0])
    second = value()
    scale = 5.0
    third = value()
    assert first == pytest.approx(float(jnp.log(0.5 + 0.5 * jnp.exp(2.0))))
    assert second == pytest.approx(float(jnp.log(0.5 + 0.5 * jnp.exp(6.0))))
    assert third == pytest.approx(float(jnp.log(0.5 + 0.5 * jnp.exp(15.0))))


def test_the_value_of_a_closure_can_be_differentiated():
    def value(scale):
        def step(s):
            a = decide("a", Categorical(probs=UNIFORM))
            optimality(scale * a)
            return {"s": s}

        return exact.solve(ControlProgram(initial, step, 1)).elbo

    assert float(jax.grad(value)(0.7)) == pytest.approx(float(jax.nn.sigmoid(0.7)))
    np.testing.assert_allclose(
        jax.vmap(value)(jnp.array([0.1, 0.7])), [float(value(0.1)), float(value(0.7))], rtol=1e-12
    )


def test_a_program_can_be_made_inside_a_model_of_somebody_else():
    def model(data):
        scale = numpyro.sample("scale", numpyro.distributions.HalfNormal(1.0))

        def step(s):
            a = decide("a", Categorical(probs=UNIFORM))
            optimality(scale * a)
            return {"s": s}

        policy = exact.solve(ControlProgram(initial, step, 1)).policy["a"][0]
        numpyro.sample("choice", Categorical(probs=policy), obs=data)

    with numpyro.handlers.seed(rng_seed=0):
        trace = numpyro.handlers.trace(model).get_trace(jnp.array(1))
    assert list(trace) == ["scale", "choice"]


@pytest.mark.parametrize("name", ["zeros", "three_decisions", "sparse_outcomes"])
def test_what_is_read_are_distributions(name):
    chain = read(PAIRS[name].control())
    for site in (*chain.initial.sites, *chain.step.sites):
        if site.kind != "optimality":
            np.testing.assert_allclose(site.content.table.array.sum(-1), 1.0, rtol=1e-12)


LAW = jnp.asarray(np.random.default_rng(5).dirichlet(np.ones(3), size=(3, 3)))


@pytest.mark.parametrize(
    ("law", "found"),
    [
        (lambda s, a: LAW[s, a], True),
        (lambda s, a: jnp.asarray(LAW)[s, a, :], True),
        (lambda s, a: LAW[a, s], False),
        (lambda s, a: LAW[s][a], False),
        (lambda s, a: LAW[s, s], False),
        (lambda s, a: LAW[s, 2 - a], False),
        (lambda s, a: LAW[s - 3, a], False),
        (lambda s, a: LAW[s, a][::-1], False),
        (lambda s, a: LAW[s, a] * 1.0, False),
        (lambda s, a: jnp.swapaxes(LAW, 0, 1)[s, a], False),
        (lambda s, a: LAW.at[0, 0].set(LAW[1, 1])[s, a], False),
    ],
)
def test_a_table_that_exists_already_is_not_copied(law, found):
    def step(s):
        a = decide("a", Categorical(probs=jnp.ones(3) / 3))
        optimality(1.0 * s * a)
        return {"s": numpyro.sample("s_next", Categorical(probs=law(s, a)))}

    program = ControlProgram(lambda: {"s": 0}, step, 2, sizes={"s": 3})
    table = read(program).step.sites[2].content.table
    held = any(table.array is array for array in program.constants[1])
    assert held == found
    for s in range(3):
        for a in range(3):
            at = dict(s=s, a=a)
            index = tuple(at[name] for name in table.axes[:-1])
            np.testing.assert_allclose(table.array[index], law(jnp.asarray(s), jnp.asarray(a)), rtol=1e-14)


def test_a_table_of_shifted_values_is_read_not_looked_up():
    def step(s):
        die = numpyro.sample("die", DiscreteUniform(1, 3))
        a = decide("a", Categorical(probs=law[s, die]))
        return {"s": a}

    law = jnp.concatenate([LAW, LAW[:, :1]], 1)
    program = ControlProgram(lambda: {"s": 0}, step, 1, sizes={"s": 3})
    table = read(program).step.sites[1].content.table
    np.testing.assert_array_equal(table.array, law[:, 1:])


def test_a_clipped_index_may_go_beyond_its_axis():
    def step(s, t):
        a = decide("a", Categorical(probs=LAW[s, jnp.minimum(t, 2)]))
        optimality(LAW[s - 3, a, 0])
        return {"s": a}

    program = ControlProgram(lambda: {"s": 0}, step, 5, sizes={"s": 3})
    table = read(program).step.sites[0].content.table
    assert table.axes == ("t", "s", "a")
    np.testing.assert_array_equal(table.array, jnp.moveaxis(LAW, 1, 0)[jnp.array([0, 1, 2, 2, 2])])


def test_a_table_over_time_is_the_array_itself():
    def step(law, s, t):
        return {"s": decide("a", Categorical(probs=law[t, s]))}

    program = ControlProgram(lambda law: {"s": 0}, step, 3, args=(LAW,), sizes={"s": 3})
    assert read(program).step.sites[0].content.table.array is program.args[0]
    np.testing.assert_allclose(exact.solve(program).policy["a"], LAW)


def first(law):
    return {"s": 0}


def follow(law, s):
    a = decide("a", Categorical(probs=law[s, 0]))
    optimality(1.0 * a)
    return {"s": a}


@pytest.mark.parametrize("duplicate", [lambda p: pickle.loads(pickle.dumps(p)), copy.copy, copy.deepcopy])
def test_programs_can_be_pickled_and_copied(duplicate):
    program = ControlProgram(first, follow, 3, 0.9, args=(LAW,), sizes={"s": 3})
    other = duplicate(program)
    assert other.structure == program.structure and float(other.discount) == float(program.discount)
    assert float(exact.solve(other).elbo) == float(exact.solve(program).elbo)


def test_a_program_prints_on_one_line():
    program = ControlProgram(first, follow, 3, args=(LAW,), sizes={"s": 3})
    assert repr(program) == "ControlProgram(horizon=3, state={'s': 3}, step=(a: decision, optimality: optimality))"


def test_exact_zeros_stay_exact():
    def step(s):
        a = decide("a", Categorical(probs=jnp.array([0.0, 0.25, 0.75])))
        optimality(jnp.array([1000.0, 0.0, 1.0])[a])
        return {"s": jnp.minimum(a, 1)}

    solution = exact.solve(ControlProgram(initial, step, 2))
    assert (solution.policy["a"][..., 0] == 0).all()
    expected = 2 * logsumexp(jnp.array([0.0, 1.0]), b=jnp.array([0.25, 0.75]))
    assert float(solution.elbo) == pytest.approx(float(expected))
