"""The engines that sample, as the recovery shows them: numbers against NumPy, and a reason for every dash."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.distributions import Categorical

from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.inference import exact, smc
from rlinf_ppl.models import balancing_q, quantal_response, single_agent
from rlinf_ppl.report import cases, engines, recovery, table
from rlinf_ppl.tasks import gallery

TAU = 2.0
PRIZE = np.array([[0.0, 1.0], [2.0, -1.0], [0.5, 0.0]])
SLIP = np.array([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])


def three_places(task, horizon, beta, discount):
    """Optimality in units of reward, and an inverse temperature that makes nats of them."""
    del task, discount

    def step(s):
        a = decide("a", Categorical(probs=jnp.array([0.5, 0.5])), inverse_temperature=beta)
        optimality(jnp.asarray(PRIZE)[s, a])
        return {"s": numpyro.sample("s_next", Categorical(probs=jnp.asarray(SLIP)[a]))}

    return ControlProgram(lambda: {"s": jnp.array(0)}, step, horizon, sizes={"s": 3})


pytestmark = pytest.mark.slow

CASE = cases.Case("places", "three places", three_places, lambda: None, horizon=3, beta=TAU)


def by_numpy():
    """The soft value and the log evidence in nats, and the soft-optimal policy."""
    value, mean, policy = np.zeros(3), np.zeros(3), []
    for _ in range(CASE.horizon):
        q = TAU * PRIZE + value @ SLIP.T
        policy.append(np.exp(q) / np.exp(q).sum(-1, keepdims=True))
        value = np.log(np.exp(q).mean(-1))
        mean = np.log((np.exp(TAU * PRIZE) * (np.exp(mean) @ SLIP.T)).mean(-1))
    return value[0], mean[0], np.stack(policy[::-1])


def kl_by_numpy(policy, other):
    """KL between trajectories that start at 0, place by place."""
    at, total = np.array([1.0, 0.0, 0.0]), 0.0
    for q, p in zip(np.asarray(policy), np.asarray(other), strict=True):
        total += at @ (q * np.log(q / p)).sum(-1)
        at = np.einsum("s,sa,an->n", at, q, SLIP)
    return total


@pytest.fixture(scope="module")
def answers():
    return recovery.answer(CASE, jax.random.key(0))


@pytest.fixture(scope="module")
def estimates(answers):
    return engines.estimate(answers.program, jax.random.key(1))


@pytest.fixture(scope="module")
def row(answers, estimates):
    return recovery.summarize(answers, estimates)


def test_a_sampled_fit_stands_beside_the_soft_value(row, estimates):
    soft_value, _, policy = by_numpy()
    assert row.unit == "nats" and row.soft_value == pytest.approx(soft_value, rel=1e-9)
    assert row.sampled_kl == pytest.approx(kl_by_numpy(estimates.fit.policy["a"], policy), rel=1e-6, abs=1e-12)
    assert row.sampled_elbo == pytest.approx(soft_value - row.sampled_kl, abs=1e-9)
    assert row.sampled_kl < 1e-2 and row.sampled_converged == bool(estimates.fit.converged)
    assert row.missing == {}


def test_particles_stand_beside_the_log_evidence(row):
    _, log_evidence, _ = by_numpy()
    assert row.log_evidence == pytest.approx(log_evidence, rel=1e-9)
    assert row.smc_error == pytest.approx(row.smc_log_evidence - log_evidence, abs=1e-9)
    assert 0 < row.smc_standard_error < 0.05
    assert abs(row.smc_error) < 5 * row.smc_standard_error


@pytest.mark.slow
def test_the_standard_error_is_that_of_runs_one_by_one(answers):
    program, key = answers.program, jax.random.key(2)
    found = engines.particles(program, key, num_particles=20, num_runs=12)
    solution = exact.solve(program)
    runs = [
        smc.run(program, each, 20, proposal=solution.policy, twist=solution.value) for each in jax.random.split(key, 12)
    ]
    evidence = np.exp([float(run.log_evidence) for run in runs])
    assert found.log_evidence == pytest.approx(np.log(evidence.mean()), abs=1e-9)
    assert found.standard_error == pytest.approx(evidence.std(ddof=1) / evidence.mean() / np.sqrt(12), rel=1e-6)


def test_an_average_of_evidence_that_no_float_holds():
    found = engines.averaged(jnp.array([3000.0, 3000.0 + math.log(3), 3000.0]))
    assert found.log_evidence == pytest.approx(3000 + math.log(5 / 3), rel=1e-12)
    assert found.standard_error == pytest.approx(math.sqrt(4 / 3) / (5 / 3) / math.sqrt(3), rel=1e-9)


def test_time_is_that_of_all_engines(answers, estimates, row):
    assert row.seconds == answers.seconds + estimates.seconds and estimates.seconds > 0


def test_phases_are_announced(monkeypatch):
    phases = []
    monkeypatch.setattr(engines, "asked", lambda engine: (None, "not now"))
    found = engines.estimate(CASE.program(None), jax.random.key(0), phases.append)
    assert phases == ["fitting by samples", "moving particles"]
    assert found.missing == {"sampled SVI": "not now", "SMC": "not now"}


def test_without_end_nothing_is_sampled():
    program = single_agent(gallery.lottery(), None, discount=0.9)
    found = engines.estimate(program, jax.random.key(0))
    assert found.fit is None and found.particles is None
    assert all("unroll" in reason for reason in found.missing.values())
    assert set(found.missing) == {"sampled SVI", "SMC"}


@pytest.mark.parametrize("model", [balancing_q, pytest.param(quantal_response, marks=pytest.mark.slow)])
def test_players_who_differ_have_no_particles(model):
    program = model(gallery.matching_pennies(), 1, 1.0, -1.0)
    found, reason = engines.asked(lambda: engines.particles(program, jax.random.key(0)))
    assert found is None and "inverse temperatures" in reason and "no joint model" in reason


def test_a_fit_that_diverges_has_a_reason(answers, monkeypatch):
    diverged = answers.fit._replace(elbo=jnp.asarray(math.nan))
    monkeypatch.setattr(engines.svi, "fit", lambda *_, **__: diverged)
    found, reason = engines.asked(lambda: engines.sampled_fit(answers.program, jax.random.key(0)))
    assert found is None and "diverged" in reason


@pytest.fixture(scope="module")
def dashed(answers):
    """Two endless cases of one reason, and a game of another."""
    bare = recovery.summarize(answers)._replace(log_evidence=None, gap=None)
    endless = {"sampled SVI": "no end", "SMC": "no end"}
    foe = {"log evidence": "no joint model", "SMC": "no joint model"}
    return [
        bare._replace(task="first", missing=endless),
        bare._replace(task="second", missing=endless),
        bare._replace(task="foe", missing=foe, unit="units of reward"),
    ]


def test_every_dash_has_its_reason_once(dashed):
    assert table.remarks(dashed)[2:] == [
        "– sampled SVI, SMC of first, second: no end",
        "– log evidence, SMC of foe: no joint model",
        "foe: soft value and ELBO in units of reward.",
    ]
    shown = dict(zip((column.field for column in table.ENGINES), table.cells(table.ENGINES, dashed[0]), strict=True))
    missing = ("sampled_elbo", "sampled_kl", "log_evidence", "smc_log_evidence", "smc_error", "smc_standard_error")
    assert [shown[field] for field in missing] == ["–"] * len(missing) and "–" not in shown["elbo"]


def test_particles_without_an_exact_counterpart_are_shown_alone(answers, estimates):
    row = recovery.summarize(answers._replace(posterior=None, missing="none"), estimates)
    assert row.smc_log_evidence is not None and row.smc_standard_error is not None and row.smc_error is None


def test_json_and_markdown_hold_the_numbers(row, dashed):
    first, second, *_ = json.loads(table.to_json([row, *dashed]), parse_constant=pytest.fail)
    assert first == row._asdict() and second["smc_error"] is None and second["missing"]["SMC"] == "no end"
    text = table.markdown([row])
    for number in (row.sampled_elbo, row.smc_log_evidence, row.smc_error, row.smc_standard_error):
        assert f" {number:.4f} |" in text
    assert f" {row.sampled_kl:.1e} |" in text and engines.SETTINGS in text


def test_the_remark_names_the_settings_of_every_fit():
    for words in ("Adam(0.1)", "1,000 steps", "SampledELBO(100)", "32 runs of 1,000 particles"):
        assert words in engines.SETTINGS


def test_tables_fit_a_terminal(row):
    from rich.console import Console

    wide = row._replace(task=max(cases.names(), key=len), soft_value=-5264.8380, elbo=-5264.8380, sampled_elbo=-5264.8)
    wide = wide._replace(log_evidence=12119.7627, smc_log_evidence=12119.7627, smc_error=-1234.5678, gap=12119.7627)
    console = Console(width=1000)
    assert max(console.measure(each).maximum for each in table.rich_tables([wide])) <= 140
