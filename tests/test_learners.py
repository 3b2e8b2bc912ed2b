"""Learners: the delta rule and the two-step task against loops in NumPy, and learners that a user writes."""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pandas as pd
import pytest
from numpyro.distributions import Bernoulli, Categorical, Normal, constraints
from numpyro.infer.util import log_density
from oracles import learners

from rlinf_ppl import ControlProgram, behaviour, decide, models
from rlinf_ppl.inference import exact, smc
from rlinf_ppl.tasks import MDP

RNG = np.random.default_rng(19)
N, T = 5, 40
RATE, BETA = RNG.uniform(0.1, 0.9, N), RNG.uniform(0.5, 6.0, N)
PI, WEIGHT = RNG.uniform(-1.0, 2.0, N), RNG.uniform(0.0, 1.0, N)
LENGTHS = np.array([40, 37, 1, 40, 12])

# ---- the delta rule --------------------------------------------------------------------------------------------------
ARMS = {
    "two arms": {"initial_values": [0.0, 0.0], "outcomes": [-1.0, 1.0]},
    "four arms, and three outcomes": {"initial_values": [0.5, 0.0, -0.3, 1.0], "outcomes": [-2.0, 0.1, 1.5]},
    "one arm": {"initial_values": [0.3], "outcomes": [0.0, 1.0]},
}


def pulls(arms):
    """Choices and positions of outcomes, (N, T)."""
    rng = np.random.default_rng(len(arms["initial_values"]))
    return {
        "choice": rng.integers(len(arms["initial_values"]), size=(N, T)),
        "outcome": rng.integers(len(arms["outcomes"]), size=(N, T)),
    }


def by_hand(i, arms, data, rate=None, beta=None, trials=slice(None)):
    """What one learner does, in NumPy."""
    worth = np.asarray(arms["outcomes"])[data["outcome"][i, trials]]
    given = (RATE[i] if rate is None else rate, BETA[i] if beta is None else beta, data["choice"][i, trials], worth)
    return learners.delta_rule(*given, arms["initial_values"])


@pytest.mark.parametrize("arms", ARMS.values(), ids=ARMS)
def test_choices_have_the_log_probabilities_of_a_loop(arms):
    data = pulls(arms)
    for i in range(N):
        found = exact.log_prob_terms(models.delta_rule(RATE[i], BETA[i], T, **arms), None, data, lengths=LENGTHS)
        wanted = by_hand(i, arms, data, trials=slice(LENGTHS[i]))[0]
        np.testing.assert_allclose(found["choice"][i, : LENGTHS[i]], wanted, rtol=1e-10, atol=1e-14)
        assert np.all(np.asarray(found["choice"][i, LENGTHS[i] :]) == 0)


def test_programs_of_several_subjects_side_by_side():
    arms = ARMS["four arms, and three outcomes"]
    data, programs = pulls(arms), jax.vmap(lambda rate, beta: models.delta_rule(rate, beta, T, **arms))(RATE, BETA)
    found = log_density(lambda: behaviour.site("y", programs, data, lengths=LENGTHS), (), {}, {})[0]
    wanted = sum(by_hand(i, arms, data, trials=slice(LENGTHS[i]))[0].sum() for i in range(N))
    assert float(found) == pytest.approx(wanted, rel=1e-10)


def central(function, at, h=1e-5):
    """Slopes by differences, like `at`."""
    flat = np.asarray(at, float).ravel()
    steps = h * np.eye(flat.size)
    found = [function((flat + e).reshape(np.shape(at))) - function((flat - e).reshape(np.shape(at))) for e in steps]
    return np.array(found).reshape(np.shape(at)) / (2 * h)


def test_slopes_by_all_numbers_are_those_of_differences():
    arms = ARMS["four arms, and three outcomes"]
    data = {name: array[:1] for name, array in pulls(arms).items()}

    def total(rate, beta, first, worth):
        made = models.delta_rule(rate, beta, T, first, worth)
        return exact.log_prob(made, None, data)[0]

    at = [np.array(0.3), np.array(2.0), np.array(arms["initial_values"]), np.array(arms["outcomes"])]
    found = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3)))(*map(jnp.asarray, at))
    for i, slope in enumerate(found):

        def plain(x, i=i):
            rate, beta, first, worth = (x if i == j else each for j, each in enumerate(at))
            return learners.delta_rule(rate, beta, data["choice"][0], worth[data["outcome"][0]], first)[0].sum()

        np.testing.assert_allclose(slope, central(plain, at[i]), rtol=1e-6, atol=1e-7)


def test_curvature_is_that_of_differences_of_slopes():
    data = {name: array[:2] for name, array in pulls(ARMS["two arms"]).items()}

    def total(x):
        return exact.log_prob(models.delta_rule(x[0], x[1], T, **ARMS["two arms"]), None, data).sum()

    at, slope = np.array([0.3, 2.0]), jax.jit(jax.grad(total))
    wanted = np.stack([(slope(at + h) - slope(at - h)) / 2e-5 for h in 1e-5 * np.eye(2)])
    np.testing.assert_allclose(jax.hessian(total)(jnp.asarray(at)), wanted, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(jax.jacfwd(total)(jnp.asarray(at)), slope(at), rtol=1e-12)


# ---- the two-step task -----------------------------------------------------------------------------------------------
SEEN = ("first_choice", "state", "second_choice", "reward")
STEPS = {name: RNG.integers(2, size=(N, T)) for name in SEEN}


def two_step(i, p=0.7, horizon=T):
    return models.two_step(RATE[i], BETA[i], PI[i], WEIGHT[i], horizon, p)


def steps_by_hand(i, p=0.7, trials=slice(None)):
    return learners.two_step(RATE[i], BETA[i], PI[i], WEIGHT[i], p, *(STEPS[name][i, trials] for name in SEEN))


@pytest.mark.parametrize("p", [0.7, 0.9])
def test_both_choices_of_two_steps_have_the_log_probabilities_of_a_loop(p):
    for i in range(N):
        found = exact.log_prob_terms(two_step(i, p), None, STEPS, lengths=LENGTHS)
        wanted = steps_by_hand(i, p, slice(LENGTHS[i]))[0]
        for k, name in enumerate(("first_choice", "second_choice")):
            np.testing.assert_allclose(found[name][i, : LENGTHS[i]], wanted[:, k], rtol=1e-10, atol=1e-14)
    chance = exact.log_prob_terms(two_step(0, p), None, STEPS, of=("state", "reward"))
    common = STEPS["first_choice"] == STEPS["state"]
    np.testing.assert_allclose(chance["state"], np.log(np.where(common, p, 1 - p)), rtol=1e-12)
    np.testing.assert_allclose(chance["reward"], np.log(0.5), rtol=1e-12)


def test_slopes_of_two_steps_are_those_of_differences():
    data = {name: array[:1] for name, array in STEPS.items()}

    def total(x):
        return exact.log_prob(models.two_step(x[0], x[1], x[2], x[3], T, x[4]), None, data)[0]

    at = np.array([0.4, 2.5, 0.7, 0.6, 0.7])
    wanted = central(lambda x: learners.two_step(*x, *(data[name][0] for name in SEEN))[0].sum(), at)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(jnp.asarray(at)), wanted, rtol=1e-6)


def test_a_weight_of_one_plans_and_of_zero_does_not():
    """After a rare transition and a reward who plans goes the other way, and who does not repeats (Daw et al. 2011)."""
    rare = {"first_choice": [[0, 0]], "state": [[1, 1]], "second_choice": [[0, 0]], "reward": [[1, 0]]}
    stays = {
        w: float(exact.log_prob_terms(models.two_step(0.5, 3.0, 0.0, w, 2), None, rare)["first_choice"][0, 1])
        for w in (0.0, 1.0)
    }
    assert stays[1.0] < np.log(0.5) < stays[0.0]


# ---- data frames: gaps, missing values, what goes on inside ----------------------------------------------------------
def frame_of(data, lengths=LENGTHS, left_out=()):
    rows = [
        {"subject": f"s{i}", "trial": t, **{name: int(array[i, t]) for name, array in data.items()}}
        for i in range(N)
        for t in range(lengths[i])
        if (i, t) not in left_out
    ]
    return pd.DataFrame(rows).sample(frac=1.0, random_state=0)


COLUMNS = {
    "decision": ["first_choice", "second_choice"],
    "other": ["state", "reward"],
    "id": "subject",
    "time": "trial",
}
START = {"rate": 0.4, "beta": 2.0, "pi": 0.3, "w": 0.5}
BOUNDS = {"rate": constraints.unit_interval, "beta": constraints.positive, "w": constraints.unit_interval}


def all_alike(p):
    return models.two_step(p["rate"], p["beta"], p["pi"], p["w"], T)


@pytest.fixture(scope="module")
def fit():
    """Of a frame in which trials lack; and the trials that are there."""
    left_out = {(0, 0), (0, 7), (1, 3), (1, 4), (3, 39)}
    frame = frame_of(STEPS, left_out=left_out)
    there = {i: [t for t in range(LENGTHS[i]) if (i, t) not in left_out] for i in range(N)}
    fit = behaviour.maximum_likelihood(
        frame, program=all_alike, start=START, bounds=BOUNDS, gaps="close", max_steps=15, **COLUMNS
    )
    return fit, there


def of_frame(fit, there):
    """By hand, of the trials that are there: log probabilities (rows, 2) and errors (rows, 2), in the panel's order."""
    x = [float(fit.estimate[name]) for name in START]
    found = [learners.two_step(*x, 0.7, *(STEPS[name][i, there[i]] for name in SEEN)) for i in order_of(fit)]
    return (np.concatenate(each) for each in zip(*found, strict=True))


def order_of(fit):
    """Subjects as they come first in the frame, whose rows are in no order."""
    return [int(name[1:]) for name in fit.panel.ids]


def test_a_trial_that_lacks_is_no_trial(fit):
    fit, there = fit
    frame = fit.panel.frame
    assert list(frame["trial"]) == [t for i in order_of(fit) for t in there[i]]
    terms, _ = of_frame(fit, there)
    assert fit.log_likelihood == pytest.approx(terms.sum(), rel=1e-10)
    np.testing.assert_allclose(fit.log_likelihoods.loc[frame.index], terms.sum(1), rtol=1e-10)
    with pytest.raises(ValueError, match="trial|gaps"):
        behaviour.maximum_likelihood(
            frame_of(STEPS, left_out={(0, 7)}), program=all_alike, start=START, bounds=BOUNDS, **COLUMNS
        )


def test_states_have_values_and_prediction_errors(fit):
    fit, there = fit
    inner = fit.states().loc[fit.panel.frame.index]
    _, errors = of_frame(fit, there)
    for k, name in enumerate(("first_prediction_error", "reward_prediction_error")):
        np.testing.assert_allclose(inner[name], errors[:, k], rtol=1e-9, atol=1e-12)
    assert {"first_value[1]", "second_value[1, 0]", "last[0]", "entropy_first_choice"} <= set(inner.columns)


def test_what_a_learner_learns_from_may_not_be_missing():
    """Values that nobody knows have no finite number of values; the message names what lacks."""
    there = np.ones((N, T), bool)
    there[2, 5] = False
    for name in ("choice", "outcome"):
        data = pulls(ARMS["two arms"])
        with pytest.raises(ValueError, match="value"):
            exact.log_prob(models.delta_rule(0.3, 2.0, T), None, data | {name: (data[name], there)}, of="choice")


# ---- simulation ------------------------------------------------------------------------------------------------------
def drawn(program, n, steps=None):
    simulate = numpyro.handlers.seed(lambda: behaviour.site("y", program, num_sequences=n, num_steps=steps), 3)
    return {name: np.asarray(array) for name, array in simulate().items()}


def check_frequencies(counts, p, n):
    """Every count within five standard errors of its probability, and none where there is none."""
    assert p.sum() == pytest.approx(1, abs=1e-10)
    assert np.all(np.abs(counts / n - p) <= 5 * np.sqrt(p * (1 - p) / n) + 1e-12)


def test_drawn_pulls_follow_the_law_of_the_loop():
    """All 64 courses of three trials, with probabilities of outcomes that vary in time."""
    laws = np.array([[[0.8, 0.2], [0.4, 0.6]], [[0.5, 0.5], [0.1, 0.9]], [[1.0, 0.0], [0.7, 0.3]]])
    worth, first, n = np.array([-1.0, 2.0]), np.array([0.3, 0.0]), 20_000
    found = drawn(models.delta_rule(0.6, 1.5, 3, first, worth, laws), n)
    courses = np.array(list(np.ndindex(*[2] * 6))).reshape(-1, 3, 2)
    p = np.array(
        [
            np.exp(learners.delta_rule(0.6, 1.5, c[:, 0], worth[c[:, 1]], first)[0].sum())
            * np.prod(laws[np.arange(3), c[:, 0], c[:, 1]])
            for c in courses
        ]
    )
    seen = np.stack([found["choice"], found["outcome"]], -1).reshape(n, -1)
    check_frequencies(np.bincount(seen @ 2 ** np.arange(6)[::-1], minlength=64), p, n)


def test_drawn_steps_follow_the_law_of_the_loop():
    """All 256 courses of two trials, with rewards that vary in time."""
    rewards, n = np.array([[0.9, 0.2, 0.4, 0.6], [0.1, 0.8, 0.5, 0.3]]), 40_000
    found = drawn(models.two_step(0.6, 2.0, 0.8, 0.4, 2, 0.75, rewards), n)
    courses, p = np.array(list(np.ndindex(*[2] * 8))).reshape(-1, 2, 4), []
    for course in courses:
        c, s, d, r = course.T
        common, paid = c == s, rewards[np.arange(2), 2 * s + d]
        chance = np.prod(np.where(common, 0.75, 0.25) * np.where(r, paid, 1 - paid))
        p.append(chance * np.exp(learners.two_step(0.6, 2.0, 0.8, 0.4, 0.75, c, s, d, r)[0].sum()))
    seen = np.stack([found[name] for name in SEEN], -1).reshape(n, -1)
    check_frequencies(np.bincount(seen @ 2 ** np.arange(8)[::-1], minlength=256), np.array(p), n)


def test_single_precision():
    data = pulls(ARMS["two arms"])
    wide = [by_hand(i, ARMS["two arms"], data, 0.3, 2.0)[0].sum() for i in range(N)]
    steps = [learners.two_step(0.4, 2.0, 0.5, 0.5, 0.7, *(STEPS[name][i] for name in SEEN))[0].sum() for i in range(N)]
    with jax.enable_x64(False):
        single = exact.log_prob(models.delta_rule(0.3, 2.0, T, **ARMS["two arms"]), None, data)
        other = exact.log_prob(models.two_step(0.4, 2.0, 0.5, 0.5, T), None, STEPS)
        assert single.dtype == other.dtype == jnp.float32
    np.testing.assert_allclose(single, wide, rtol=5e-6)
    np.testing.assert_allclose(other, steps, rtol=5e-6)


# ---- input -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: models.delta_rule(1.2, 1.0, 5), r"learning_rate holds 1\.2: it must be from 0 to 1"),
        (lambda: models.delta_rule(-0.1, 1.0, 5), "learning_rate holds -0.1"),
        (lambda: models.delta_rule(np.nan, 1.0, 5), "learning_rate is nan"),
        (lambda: models.delta_rule([0.1, 0.2], 1.0, 5), r"learning_rate has shape \(2,\).*vmap"),
        (lambda: models.delta_rule(0.1, -1.0, 5), "inverse_temperature holds -1: it must be at least 0"),
        (lambda: models.delta_rule(0.1, np.inf, 5), "inverse_temperature is inf"),
        (lambda: models.delta_rule(0.1, 1.0, 0), "horizon is 0"),
        (lambda: models.delta_rule(0.1, 1.0, 5, []), r"initial_values has shape \(0,\)"),
        (lambda: models.delta_rule(0.1, 1.0, 5, 0.0), r"initial_values has shape \(\)"),
        (lambda: models.delta_rule(0.1, 1.0, 5, [0.0, np.nan]), r"initial_values\[1\] is nan"),
        (lambda: models.delta_rule(0.1, 1.0, 5, outcomes=[[1.0]]), r"outcomes has shape \(1, 1\)"),
        (lambda: models.delta_rule(0.1, 1.0, 5, outcomes=[0.0, np.inf]), r"outcomes\[1\] is inf"),
        (lambda: models.delta_rule(0.1, 1.0, 5, probabilities=[0.5, 0.5]), r"\(2, 2\) or \(5, 2, 2\)"),
        (lambda: models.delta_rule(0.1, 1.0, 5, probabilities=np.full((4, 2, 2), 0.5)), r"\(2, 2\) or \(5, 2, 2\)"),
        (lambda: models.delta_rule(0.1, 1.0, 5, probabilities=[[0.5, 0.5], [0.5, 0.6]]), r"probabilities\[1\] sums"),
        (lambda: models.two_step(1.2, 1.0, 0.0, 0.5, 5), "learning_rate holds 1.2"),
        (lambda: models.two_step(0.1, -1.0, 0.0, 0.5, 5), "inverse_temperature holds -1"),
        (lambda: models.two_step(0.1, 1.0, np.nan, 0.5, 5), "perseveration is nan"),
        (lambda: models.two_step(0.1, 1.0, 0.0, 1.5, 5), "weight holds 1.5"),
        (lambda: models.two_step(0.1, 1.0, 0.0, 0.5, 0), "horizon is 0"),
        (lambda: models.two_step(0.1, 1.0, 0.0, 0.5, 5, -0.1), "transition holds -0.1"),
        (lambda: models.two_step(0.1, 1.0, 0.0, 0.5, 5, rewards=[0.5, 0.5]), r"rewards has shape \(2,\).*\(5, 4\)"),
        (lambda: models.two_step(0.1, 1.0, 0.0, 0.5, 5, rewards=np.full((4, 4), 0.5)), r"rewards has shape \(4, 4\)"),
        (lambda: models.two_step(0.1, 1.0, 0.0, 0.5, 5, rewards=[0.5, 0.5, 1.5, 0.5]), "rewards holds 1.5"),
        (lambda: models.two_step(0.1, 1.0, 0.0, 0.5, 5, rewards=[0.5, 0.5, np.nan, 0.5]), r"rewards\[2\] is nan"),
        (lambda: exact.log_prob(models.delta_rule(0.1, 1.0, 5), None, {"choice": [[2]], "outcome": [[0]]}), "0 to 1"),
        (lambda: exact.log_prob(models.delta_rule(0.1, 1.0, 5), None, {"choice": [[1]], "outcome": [[-1]]}), "0 to 1"),
    ],
)
def test_wrong_numbers_are_named(call, message, monkeypatch):
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        call()


def test_other_horizons_are_no_numbers(monkeypatch):
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    for horizon in (None, 2.0):
        with pytest.raises(TypeError, match="horizon must be a whole number"):
            models.delta_rule(0.1, 1.0, horizon)
        with pytest.raises(TypeError, match="horizon must be a whole number"):
            models.two_step(0.1, 1.0, 0.0, 0.5, horizon)


# ---- hBayesDM's examples ---------------------------------------------------------------------------------------------
SHARED = Path(os.environ.get("RLINF_SHARED", Path(__file__).parents[2] / "shared")) / "data"
needs_data = pytest.mark.skipif(not SHARED.exists(), reason="hBayesDM's examples are not beside this checkout")


def example(name):
    """Its rows by subject, and what is known of each of them."""
    rows = pd.read_csv(SHARED / f"hbayesdm_{name}_exampleData.txt", sep="\t")
    fixtures = json.loads((SHARED / "hbayesdm_loglik_fixtures.json").read_text())
    return rows, fixtures["ts" if name == "ts" else name]


def bandits():
    rows, known = example("bandit2arm")
    data = {"choice": rows["choice"] - 1, "outcome": (rows["outcome"] + 1) // 2}
    return {name: x.to_numpy().reshape(20, 100) for name, x in data.items()}, list(known.values())


def two_steps():
    """As a frame in the model's own names, with the gaps that the data have."""
    rows, known = example("ts")
    second = rows["level2_choice"] - 1
    frame = {"first_choice": rows["level1_choice"] - 1, "state": second // 2, "second_choice": second % 2}
    return pd.DataFrame(frame | {name: rows[name] for name in ("reward", "subjID", "trial")}), list(known.values())


@needs_data
def test_bandits_have_the_log_likelihoods_of_hbayesdm():
    data, known = bandits()
    fixed = exact.log_prob(models.delta_rule(0.5, 1.0, 100, outcomes=[-1.0, 1.0]), None, data)
    np.testing.assert_allclose(fixed, [each["ll_fixed"] for each in known], rtol=1e-10)
    assert float(fixed.sum()) == pytest.approx(-1296.838, abs=1e-3)
    best = jnp.asarray([each["mle"] for each in known])
    programs = jax.vmap(lambda x: models.delta_rule(x[0], x[1], 100, outcomes=[-1.0, 1.0]))(best)
    found = log_density(lambda: behaviour.site("y", programs, data), (), {}, {})[0]
    assert float(found) == pytest.approx(sum(each["ll_mle"] for each in known), rel=1e-10)


@needs_data
def test_two_steps_have_the_log_likelihoods_of_hbayesdm():
    """Those of its model block; in its generated quantities u(c) is updated twice, which is another model."""
    frame, known = two_steps()
    groups = [rows for _, rows in frame.groupby("subjID", sort=False)]
    lengths = np.array([len(rows) for rows in groups])
    data = {name: np.stack([np.pad(rows[name], (0, 200 - len(rows))) for rows in groups]) for name in SEEN}
    fixed = np.asarray(exact.log_prob(models.two_step(0.5, 3.0, 0.5, 0.5, 200), None, data, lengths=lengths))
    np.testing.assert_allclose(fixed, [each["ll_fixed"] for each in known], rtol=1e-10)
    assert fixed.sum() == pytest.approx(-2314.785, abs=1e-3)
    assert np.all(np.abs(fixed - [each["ll_fixed_doubleupdate"] for each in known]) > 0.1)
    best = jnp.asarray([each["mle"] for each in known])
    programs = jax.vmap(lambda x: models.two_step(x[0], x[1], x[2], x[3], 200))(best)
    found = log_density(lambda: behaviour.site("y", programs, data, lengths=lengths), (), {}, {})[0]
    assert float(found) == pytest.approx(sum(each["ll_mle"] for each in known), rel=1e-10)


@pytest.mark.slow
@needs_data
def test_estimates_of_two_steps_are_at_least_as_good_as_those_that_are_known():
    """Which a search without slopes found, in a frame with gaps."""
    frame, known = two_steps()
    with pytest.raises(ValueError, match="none in between"):
        behaviour.maximum_likelihood(
            frame, program=lambda p: all_of_200(p), start=START, bounds=BOUNDS, **COLUMNS | {"id": "subjID"}
        )
    for subject, each in zip(frame["subjID"].unique(), known, strict=True):
        found = behaviour.maximum_likelihood(
            frame[frame["subjID"] == subject],
            program=all_of_200,
            start=dict(zip(START, each["mle"], strict=True)),
            bounds=BOUNDS,
            gaps="close",
            **COLUMNS | {"id": None},
        )
        assert found.log_likelihood >= each["ll_mle"] - 1e-6


def all_of_200(p):
    return models.two_step(p["rate"], p["beta"], p["pi"], p["w"], 200)


# ---- learners of one's own -------------------------------------------------------------------------------------------
S, A, AHEAD = 3, 2, 4
MOVES, PAYS = RNG.dirichlet(np.ones(S), (S, A)), RNG.normal(size=(S, A))


def counter(beta, trials):
    """Learns where actions lead by counting, and plans in what it has learned."""

    def initial(beta):
        return {"s": numpyro.sample("first", Categorical(probs=jnp.ones(S) / S)), "counts": jnp.ones((S, A, S))}

    def step(beta, s, counts):
        believed = MDP(counts / jnp.sum(counts, -1, keepdims=True), PAYS, np.ones(S) / S)
        policy = exact.solve(models.single_agent(believed, AHEAD, beta)).policy["a"][0]
        action = decide("action", Categorical(probs=policy[s]))
        after = numpyro.sample("after", Categorical(probs=jnp.asarray(MOVES)[s, action]))
        return {"s": after, "counts": counts.at[s, action, after].add(1.0)}

    return ControlProgram(initial, step, trials, args=(beta,))


def test_a_learner_that_counts_and_plans_by_the_engine():
    trials = 12
    walked = drawn(counter(2.0, trials), 3)
    data = {"s": walked["s"], "action": walked["action"]}
    for i in range(3):
        s, a = walked["s"][i], walked["action"][i]

        def plain(beta, s=s, a=a):
            return learners.counting(a, s[:-1], s[1:], PAYS, beta, AHEAD, A)

        one = {name: array[i : i + 1] for name, array in data.items()}
        found = exact.log_prob_terms(counter(1.3, trials), None, one)["action"][0]
        np.testing.assert_allclose(found, plain(1.3), rtol=1e-10)
    slope = jax.grad(lambda beta: exact.log_prob(counter(beta, trials), None, one)[0])(1.3)
    assert float(slope) == pytest.approx(central(lambda beta: plain(beta).sum(), np.array(1.3)), rel=1e-6)


def moody(rate, beta, stays, trials):
    """A delta rule that is followed or not, in moods that nobody sees."""

    def initial(rate, beta, stays):
        return {"value": jnp.zeros(2), "mood": 0}

    def step(rate, beta, stays, value, mood):
        choice = decide("choice", Categorical(logits=jnp.where(mood == 0, beta, 0.0) * value))
        pay = numpyro.sample("pay", Bernoulli(0.5))
        later = numpyro.sample("later", Bernoulli(probs=jnp.where(mood == 0, 1 - stays[0], stays[1])))
        return {"value": value + rate * (pay - value) * (jnp.arange(2) == choice), "mood": later}

    return ControlProgram(initial, step, trials, args=(rate, beta, stays), sizes={"mood": 2})


def test_moods_that_nobody_sees_are_summed_over():
    choice, pay = RNG.integers(2, size=(2, 3, 9))
    found = exact.log_prob(moody(0.4, 4.0, jnp.array([0.9, 0.7]), 9), None, {"choice": choice, "pay": pay})
    wanted = [learners.lapsing(0.4, 4.0, [0.9, 0.7], c, r) for c, r in zip(choice, pay, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-10)


def test_a_memory_with_noise_is_followed_by_particles():
    """What is hidden there are real numbers: no sum is exact, and the evidence of particles has no bias."""
    choice, pay = jnp.array([0, 1, 0, 0]), jnp.array([1, 0, 1, 1])

    def step(choice, pay, value, t):
        numpyro.sample("choice", Categorical(logits=3.0 * value), obs=choice[t])
        forgets = numpyro.sample("forgets", Normal(0.0, 0.4))
        here = jnp.arange(2) == choice[t]
        return {"value": value + (0.5 * (pay[t] - value) + forgets) * here}

    program = ControlProgram(lambda choice, pay: {"value": jnp.zeros(2)}, step, 4, args=(choice, pay))
    logs = np.array(
        [smc.run(program, key, num_particles=2000).log_evidence for key in jax.random.split(jax.random.key(0), 20)]
    )
    wanted = learners.forgetful(0.5, 3.0, 0.4, np.asarray(choice), np.asarray(pay))
    evidence = np.exp(logs - wanted)
    assert abs(evidence.mean() - 1) <= 5 * evidence.std(ddof=1) / np.sqrt(len(logs))
    assert evidence.std(ddof=1) < 0.02
