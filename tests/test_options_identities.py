"""What is true of options whatever the task: worked cases, limits without options, the printed formulas' mistakes."""

import jax
import numpy as np
import numpyro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpyro.distributions import Categorical
from option_programs import (
    delayed_control,
    delayed_task,
    delayed_truth,
    rows,
    soft_control,
    soft_task,
    soft_truth,
)
from oracles import recursions
from worked_cases import multi_agent_case

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact
from rlinf_ppl.models.options import choose_option
from rlinf_ppl.tasks import MDP

PRECISIONS = pytest.mark.parametrize("double", [True, False], ids=["float64", "float32"])
SEEDS = st.integers(0, 2**31)


def agree(found, truth, rtol=1e-10):
    np.testing.assert_allclose(np.asarray(found), truth, rtol=rtol, atol=0.1 * rtol)


# ---- worked cases --------------------------------------------------------------------------------------------------
def soft_case(given):
    """The task of a worked case by our names."""
    return {
        "transition": given["P"],
        "reward": given["r"],
        "initial": given.get("p0", np.array([1.0, 0.0])),
        "action_prior": given["prior_a"],
        "option_prior": given["prior_z"],
        "termination_prior": given["prior_b"],
        "initial_option": given.get("pz0", np.array([1.0, 0.0, 0.0])),
    }


def delayed_case(given):
    """The same of two players: our axes are in the order in which the program draws, (z_opp_prev, z_i, a_i, z_opp)."""
    return {
        "transition": given["P"],
        "reward": given["r"],
        "initial": given["p0"],
        "action_prior": given["prior_ai"].swapaxes(1, 2),
        "option_prior": given["prior_zi"],
        "termination_prior": given["prior_bi"],
        "opponent_action_prior": given["prior_aj"],
        "opponent_option_prior": given["prior_zj"].swapaxes(1, 2),
        "opponent_termination_prior": given["prior_bj"].swapaxes(2, 3),
        "initial_options": given["pz0"],
    }


def constants(given):
    return {"beta": float(given["beta"]), "discount": float(given["gamma"])}


@PRECISIONS
@pytest.mark.parametrize("general", [False, True], ids=["uniform master prior", "general master prior"])
def test_soft_options(double, general):
    given, expected, tolerance = multi_agent_case("soft_options")
    task, truth = soft_case(given), expected["general_prior_z"] if general else expected
    if general:
        task["option_prior"] = truth["prior_z"]
    with jax.enable_x64(double):
        found = exact.solve(soft_control(task, int(given["T"]), **constants(given)))
    rtol = tolerance if double else 1e-4
    agree(found.elbo, truth["elbo"], rtol)
    agree(found.value[:-1], truth["U"], rtol)
    agree(found.policy["z"][:, :, 0, 1], truth["pi_z"], rtol)
    if not general:
        agree(found.policy["a"], truth["pi_a"], rtol)
        agree(found.policy["b"], truth["pi_b"], rtol)


def test_soft_options_by_default_have_a_uniform_master_prior():
    given, expected, tolerance = multi_agent_case("soft_options")
    task = soft_case(given)
    mdp = MDP(task["transition"], task["reward"], task["initial"])
    program = models.soft_options(
        mdp,
        int(given["T"]),
        3,
        action_prior=task["action_prior"],
        termination_prior=task["termination_prior"],
        **constants(given),
    )
    agree(exact.solve(program).value[:-1], expected["U"], tolerance)


def test_soft_options_without_end():
    given, expected, tolerance = multi_agent_case("soft_options_infinite")
    found = exact.solve(soft_control(soft_case(given), None, **constants(given)))
    assert found.converged
    agree(found.value, expected["U"], tolerance)
    agree(found.policy["a"], expected["pi_a"], tolerance)
    agree(found.policy["z"][:, 0, 1], expected["pi_z"], tolerance)
    agree(found.policy["b"], expected["pi_b"], tolerance)


@PRECISIONS
def test_delayed_options(double):
    given, expected, tolerance = multi_agent_case("delayed_option_communication")
    with jax.enable_x64(double):
        found = exact.solve(delayed_control(delayed_case(given), int(given["T"]), **constants(given)))
    rtol = tolerance if double else 1e-4
    agree(found.elbo, expected["elbo"], rtol)
    agree(found.value[:-1], expected["U"], rtol)
    agree(found.policy["a_opp"], expected["rho_aj"], rtol)
    agree(found.policy["z_opp"][:, :, 0, :, :, 1].swapaxes(2, 3), expected["q_zj"], rtol)
    agree(found.policy["b_opp"].swapaxes(3, 4), expected["q_bj"], rtol)
    agree(found.policy["a_i"].swapaxes(2, 3), expected["pi_ai"], rtol)
    agree(found.policy["z_i"][:, :, 0, :, 1], expected["q_zi"], rtol)
    agree(found.policy["b_i"], expected["q_bi"], rtol)


# ---- the printed formulas ------------------------------------------------------------------------------------------
def printed(task, horizon, beta, discount):
    """U (T+1, S, M), V_H (T, S) and the policies by the printed V_H = (1 / m) log sum_z exp V (4.6, C.3)."""
    m = len(task["initial_option"])
    u, masters, policies = [np.zeros((len(task["initial"]), m))], [], []
    for _ in range(horizon):
        q = beta * task["reward"][:, None] + discount * np.einsum("sap,pz->sza", task["transition"], u[0])
        v = np.log(np.sum(task["action_prior"] * np.exp(q), -1))
        master = np.log(np.sum(np.exp(v), -1)) / m
        both = np.stack([v, np.broadcast_to(master[:, None], v.shape)], -1)
        u.insert(0, np.log(np.sum(task["termination_prior"] * np.exp(both), -1)))
        chosen = np.exp(v) / np.exp(v).sum(-1, keepdims=True)
        z = np.stack(np.broadcast_arrays(np.eye(m), chosen[:, None]), -2)
        b = task["termination_prior"] * np.exp(both - u[0][..., None])
        policies.insert(0, {"b": b, "z": z, "a": task["action_prior"] * np.exp(q - v[..., None])})
        masters.insert(0, master)
    stacked = {name: np.stack([policy[name] for policy in policies]) for name in policies[0]}
    return np.stack(u), np.stack(masters), stacked


def test_the_printed_master_value_is_wrong_as_recorded():
    given, expected, tolerance = multi_agent_case("soft_options")
    u, masters, _ = printed(soft_case(given), int(given["T"]), **constants(given))
    agree(u[0], expected["WRONG_thesis_4_6"]["U0"], tolerance)
    agree(masters[0], expected["WRONG_thesis_4_6"]["VH0"], tolerance)
    assert np.abs(u[0] - expected["U"][0]).min() > 1.0


def test_the_printed_master_value_is_no_value_and_its_policy_is_not_optimal():
    task = soft_task(11) | {"option_prior": np.full((2, 3), 1 / 3)}
    program, (u, _, policy) = soft_control(task, 3), printed(task, 3, 1.3, 0.9)
    best, reached = exact.solve(program), exact.evaluate(program, policy)
    claimed = task["initial"] @ u[0] @ task["initial_option"]
    assert abs(claimed - float(reached.elbo)) > 0.01
    assert float(best.elbo) - float(reached.elbo) > 1e-3
    assert np.abs(u - best.value).max() > 0.1


def gated_by_the_agent(game, players, initial_options, beta, s, z_i_prev, z_opp_prev):
    """A step as half of the printed formulas have it: b_i gates the opponent's master policy (4.11, C.8)."""
    agent, opponent = players
    b_i = decide("b_i", Categorical(probs=agent.termination[s, z_i_prev, z_opp_prev]))
    z_i = choose_option("z_i", b_i, agent.option[s, z_opp_prev], z_i_prev)
    a_i = decide("a_i", Categorical(probs=agent.action[s, z_opp_prev, z_i]))
    decide("b_opp", Categorical(probs=opponent.termination[s, z_opp_prev, z_i, a_i]))
    z_opp = choose_option("z_opp", b_i, opponent.option[s, z_i, a_i], z_opp_prev)
    a_opp = decide("a_opp", Categorical(probs=opponent.action[s, z_i, a_i, z_opp]))
    optimality(beta * game.reward[s, a_i, a_opp])
    s_next = numpyro.sample("s_next", Categorical(probs=game.transition[s, a_i, a_opp]))
    return {"s": s_next, "z_i_prev": z_i, "z_opp_prev": z_opp}


def test_the_printed_gate_makes_the_opponents_termination_idle():
    task = delayed_task(5)
    right = delayed_control(task, 2)
    wrong = ControlProgram(
        right.initial, gated_by_the_agent, 2, 0.9, args=right.args, sizes={"z_i_prev": 2, "z_opp_prev": 2}
    )
    found, best = exact.solve(wrong), exact.solve(right)
    assert "b_i" in wrong.scopes["z_opp"] and "b_opp" not in wrong.scopes["z_opp"]
    agree(found.value, recursions.backward(delayed_truth(task, 2, gate="b_i"), recursions.averaged).value)
    prior = task["opponent_termination_prior"]
    assert wrong.scopes["b_opp"] == ("s", "z_opp_prev", "b_i", "z_i", "a_i")
    agree(found.policy["b_opp"], np.broadcast_to(prior[:, :, None], found.policy["b_opp"].shape))
    assert np.abs(np.asarray(best.policy["b_opp"]) - prior).max() > 0.01
    assert abs(float(found.elbo - best.elbo)) > 1e-3


# ---- without options -----------------------------------------------------------------------------------------------
def plain(task, horizon, prior, beta=1.3, discount=0.9):
    mdp = MDP(task["transition"], task["reward"], task["initial"])
    return exact.solve(models.single_agent(mdp, horizon, beta, prior, discount))


@pytest.mark.parametrize("never", [False, True], ids=["free to terminate", "never terminated"])
def test_one_option_is_a_single_agent_whatever_its_termination(never):
    task = soft_task(2, sizes=(3, 1, 2))
    if never:
        task["termination_prior"] = np.tile([1.0, 0.0], (3, 1, 1))
    found, truth = exact.solve(soft_control(task, 4)), plain(task, 4, task["action_prior"][:, 0])
    agree(found.value[..., 0], truth.value)
    agree(found.policy["a"][:, :, 0], truth.policy["a"])
    agree(found.elbo, truth.elbo)


def test_copies_of_one_option_are_a_single_agent_whose_choice_of_options_stays_the_prior():
    task = soft_task(4)
    task["action_prior"] = np.repeat(task["action_prior"][:, :1], 3, axis=1)
    found, truth = exact.solve(soft_control(task, 3)), plain(task, 3, task["action_prior"][:, 0])
    agree(found.value, np.repeat(np.asarray(truth.value)[..., None], 3, axis=-1))
    agree(found.policy["a"], np.repeat(np.asarray(truth.policy["a"])[:, :, None], 3, axis=2))
    agree(found.policy["b"], np.broadcast_to(task["termination_prior"], found.policy["b"].shape))
    master = found.policy["z"][:, :, :, 1]
    agree(master, np.broadcast_to(task["option_prior"][:, None], master.shape))


def test_always_terminating_forgets_options_and_mixes_their_habits():
    task = soft_task(6) | {"termination_prior": np.tile([0.0, 1.0], (2, 3, 1))}
    mixed = np.einsum("sz,sza->sa", task["option_prior"], task["action_prior"])
    agree(exact.solve(soft_control(task, 3)).value, np.asarray(plain(task, 3, mixed).value)[..., None].repeat(3, -1))


def test_two_players_with_one_option_each_are_one_agent_with_joint_actions():
    task = delayed_task(8, sizes=(2, 1, 1, 2, 2))
    joint = task["action_prior"][:, 0, 0, :, None] * task["opponent_action_prior"][:, 0, :, 0]
    pairs = {"transition": task["transition"].reshape(2, 4, 2), "reward": task["reward"].reshape(2, 4)}
    truth = plain(task | pairs, 3, joint.reshape(2, 4))
    found = exact.solve(delayed_control(task, 3, beta=1.3))
    agree(found.value[..., 0, 0], truth.value)
    together = found.policy["a_i"][:, :, 0, 0, :, None] * found.policy["a_opp"][:, :, 0, :, 0]
    agree(together.reshape(3, 2, 4), truth.policy["a"])


@pytest.mark.parametrize(("task", "control"), [(soft_task(9), soft_control), (delayed_task(9), delayed_control)])
def test_no_end_is_what_a_long_horizon_begins_with(task, control):
    endless, long = exact.solve(control(task, None)), exact.solve(control(task, 300))
    assert endless.converged
    agree(endless.value, long.value[0])
    for name, table in endless.policy.items():
        agree(table, long.policy[name][0])


# ---- whatever the task ---------------------------------------------------------------------------------------------
@settings(max_examples=15)
@given(SEEDS, st.sampled_from([0.0, 0.3]))
def test_any_small_task_with_options(seed, zeros):
    task = soft_task(seed, zeros=zeros)
    program, truth = soft_control(task, 3), recursions.backward(soft_truth(task, 3), recursions.averaged)
    found, posterior = exact.solve(program), exact.condition(program)
    agree(found.value, truth.value)
    assert float(found.elbo) <= float(posterior.log_evidence) + 1e-12
    assert float(exact.elbo(program, posterior.policy)) <= float(found.elbo) + 1e-12


@settings(max_examples=10)
@given(SEEDS, st.sampled_from([0.0, 0.3]))
def test_any_small_game_with_options(seed, zeros):
    task = delayed_task(seed, zeros=zeros)
    program, truth = delayed_control(task, 2), recursions.backward(delayed_truth(task, 2), recursions.averaged)
    found = exact.solve(program)
    agree(found.value, truth.value)
    other = np.random.default_rng(seed)
    policy = {name: np.asarray(table) * rows(other, *table.shape) for name, table in found.policy.items()}
    policy = {name: table / table.sum(-1, keepdims=True) for name, table in policy.items()}
    assert float(exact.elbo(program, policy)) <= float(found.elbo) + 1e-12


@settings(max_examples=15)
@given(SEEDS)
def test_options_have_no_names(seed):
    task, order = soft_task(seed), np.random.default_rng(seed).permutation(3)
    renamed = task | {
        "action_prior": task["action_prior"][:, order],
        "option_prior": task["option_prior"][:, order],
        "termination_prior": task["termination_prior"][:, order],
        "initial_option": task["initial_option"][order],
    }
    found, other = exact.solve(soft_control(task, 3)), exact.solve(soft_control(renamed, 3))
    agree(other.value, np.asarray(found.value)[:, :, order])
    agree(other.elbo, found.elbo)
    agree(other.policy["z"], np.asarray(found.policy["z"])[:, :, order][..., order])
