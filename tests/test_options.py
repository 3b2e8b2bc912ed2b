"""Options of one agent and of two players against brute force: every trajectory listed, every message by hand."""

from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.handlers import seed, trace
from option_programs import delayed_control, delayed_task, delayed_truth, soft_control, soft_task, soft_truth
from oracles import answers, recursions
from oracles.trajectories import Program, enumerate_trajectories
from selection import quick

from rlinf_ppl import ControlProgram
from rlinf_ppl.inference import exact, svi

KEY = jax.random.key(0)
SCOPES = {
    "soft": {"b": ("s", "z_prev"), "z": ("s", "z_prev", "b"), "a": ("s", "z")},
    "delayed": {
        "b_i": ("s", "z_i_prev", "z_opp_prev"),
        "z_i": ("s", "z_i_prev", "z_opp_prev", "b_i"),
        "a_i": ("s", "z_opp_prev", "z_i"),
        "b_opp": ("s", "z_opp_prev", "z_i", "a_i"),
        "z_opp": ("s", "z_opp_prev", "z_i", "a_i", "b_opp"),
        "a_opp": ("s", "z_i", "a_i", "z_opp"),
    },
}
DRAWS = 20_000


@dataclass(frozen=True)
class Pair:
    """A program, the same as data, and what each of its policies has to depend on."""

    control: ControlProgram
    truth: Program
    scopes: dict[str, tuple[str, ...]]


CASES = {
    "soft": ("soft", {}, 3),
    "soft with zeros": ("soft", {"zeros": 0.35}, 3),
    "soft, varying": ("soft", {"times": (3,), "zeros": 0.2}, 3),
    "soft, one option": ("soft", {"sizes": (3, 1, 2)}, 3),
    "delayed": ("delayed", {}, 2),
    "delayed with zeros": ("delayed", {"zeros": 0.3}, 2),
    "delayed, varying": ("delayed", {"times": (2,), "zeros": 0.3}, 2),
    "delayed, unequal": ("delayed", {"sizes": (2, 2, 3, 2, 1), "zeros": 0.3}, 2),
}


@cache
def pair(name):
    kind, options, horizon = CASES[name]
    if kind == "soft":
        task = soft_task(3, **options)
        return Pair(soft_control(task, horizon), soft_truth(task, horizon), SCOPES[kind])
    task = delayed_task(5, **options)
    return Pair(delayed_control(task, horizon), delayed_truth(task, horizon), SCOPES[kind])


@cache
def listed(name):
    return enumerate_trajectories(pair(name).truth)


@cache
def solved(name):
    return exact.solve(pair(name).control)


def agree(found, truth, rtol=1e-10):
    np.testing.assert_allclose(np.asarray(found), truth, rtol=rtol, atol=0.1 * rtol)


# ---- brute force ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", CASES)
def test_the_conditioning_sets_are_those_of_the_thesis(name):
    assert pair(name).control.scopes == pair(name).scopes
    assert pair(name).control.state == tuple(pair(name).truth.state)


@pytest.mark.parametrize("name", quick(["soft with zeros", "delayed, varying"], CASES))
def test_soft_optimal_control(name):
    found, truth = solved(name), recursions.backward(pair(name).truth, recursions.averaged)
    agree(found.value, truth.value)
    agree(found.elbo, truth.start)
    for decision, table in recursions.tables(pair(name).truth, pair(name).scopes, truth.policy).items():
        met = ~np.isnan(table)
        agree(found.policy[decision][met], table[met])
    agree(found.elbo, answers.elbo(listed(name), found.policy, pair(name).scopes))


@pytest.mark.parametrize("name", quick(["soft with zeros", "delayed, varying"], CASES))
def test_the_posterior_given_optimality(name):
    found = exact.condition(pair(name).control)
    agree(found.log_evidence, answers.log_evidence(listed(name)))
    for decision, scope in pair(name).scopes.items():
        seen = answers.reached(listed(name), decision, scope)
        agree(found.policy[decision][seen], answers.posterior_policy(listed(name), decision, scope)[seen])


@pytest.mark.parametrize("name", ["soft with zeros", "delayed with zeros"])
def test_marginals(name):
    scopes, found = pair(name).scopes, exact.marginals(pair(name).control, solved(name).policy)
    weights = answers.path_probability(listed(name), answers.policy_along(listed(name), solved(name).policy, scopes))
    agree(found.state, answers.state_marginals(listed(name), weights))
    for decision, scope in scopes.items():
        agree(found.decision[decision], answers.decision_marginals(listed(name), decision, scope, weights))


@pytest.mark.parametrize("name", ["soft with zeros", "delayed with zeros"])
def test_sampled_trajectories_have_these_frequencies(name):
    drawn = exact.sample(pair(name).control, KEY, solved(name).policy, DRAWS)
    marginals = exact.marginals(pair(name).control, solved(name).policy)
    for decision, scope in pair(name).scopes.items():
        for t in range(pair(name).truth.horizon):
            probability = np.asarray(marginals.decision[decision][t])
            counts = np.zeros_like(probability)
            np.add.at(counts, tuple(np.asarray(drawn[n][:, t]) for n in (*scope, decision)), 1)
            error = np.sqrt(np.clip(probability * (1 - probability), 0.0, None) / DRAWS)
            assert (np.abs(counts / DRAWS - probability) <= 5 * error + 1e-12).all()


@pytest.mark.parametrize("name", ["soft with zeros", "delayed with zeros"])
def test_the_fit_recovers_the_closed_form(name):
    fit = svi.fit(pair(name).control, KEY)
    assert fit.converged
    assert max(float(jnp.abs(fit.policy[d] - solved(name).policy[d]).max()) for d in pair(name).scopes) < 1e-3
    assert float(fit.elbo) == pytest.approx(float(solved(name).elbo), abs=1e-8)


@pytest.mark.parametrize("name", ["soft with zeros", "delayed with zeros"])
def test_the_program_is_a_numpyro_model(name):
    with seed(rng_seed=0), trace() as sites:
        pair(name).control.model()
    latent = [f"t0/{decision}" for decision in pair(name).scopes]
    assert [site for site in sites if site.startswith("t0/")] == [*latent, "t0/optimality", "t0/s_next"]


@pytest.mark.parametrize("name", ["soft", "delayed"])
def test_the_graph_is_that_of_the_priors(name):
    graph, scopes = pair(name).control.graph(), dict(pair(name).scopes)
    # What a master's prior sees is what its policy sees; a termination's and an action's as well.
    assert {decision: set(graph.predecessors(decision)) for decision in scopes} == {
        decision: set(scope) for decision, scope in scopes.items()
    }
    actions = ("a",) if name == "soft" else ("a_i", "a_opp")
    assert set(graph.predecessors("optimality")) == {"s", *actions}


@pytest.mark.parametrize(("name", "decision"), [("soft", "z"), ("delayed", "z_i"), ("delayed", "z_opp")])
def test_a_master_that_chooses_forgets_the_option_before_and_one_that_keeps_has_no_choice(name, decision):
    axes = ("t", *pair(name).scopes[decision], decision)
    before, gate = axes.index(f"{decision}_prev"), axes.index("b" + decision[1:])
    table = np.moveaxis(np.asarray(solved(name).policy[decision]), [before, gate], [-3, -2])
    chosen, kept = table[..., 1, :], table[..., 0, :]
    agree(chosen, np.broadcast_to(chosen[..., :1, :], chosen.shape))
    assert (kept == np.eye(table.shape[-1])).all()
