"""What estimates and posteriors say of behaviour: predictions, trials, simulations, other tasks; against NumPy."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pandas as pd
import pytest
from numpyro.distributions import Categorical, LogNormal, Normal, constraints
from oracles import recursions
from panels import COLUMNS, MU, A, P, S, T, learner, policy_of, program, rewards_of, rows
from scipy.special import entr, softmax

from rlinf_ppl import ControlProgram, behaviour, decide, models, optimality
from rlinf_ppl.inference import exact
from rlinf_ppl.tasks import MDP

START = {"beta": 1.0, "bonus": 0.0}


class CountCompilations(logging.Handler):
    """The names of what JAX compiles."""

    def __init__(self):
        super().__init__()
        self.names, self.logger = [], logging.getLogger("jax._src.interpreters.pxla")

    def emit(self, record):
        if record.msg.startswith("Compiling"):
            self.names.append(str(record.args[0]))

    def __enter__(self):
        self.logger.addHandler(self)
        return self

    def __exit__(self, *_):
        self.logger.removeHandler(self)


@pytest.fixture(scope="module")
def panel():
    """Rows that are not in order, some decisions of which are missing."""
    found = rows()
    found["a"] = found["a"].astype(float)
    found.loc[found.index[::7], "a"] = np.nan
    return found


@pytest.fixture(scope="module")
def fit(panel):
    return behaviour.maximum_likelihood(panel, program=program, start=START, **COLUMNS)


@pytest.fixture(scope="module")
def at(fit):
    return float(fit.estimate["beta"]), float(fit.estimate["bonus"])


def test_predictions_are_the_policy_at_the_estimates(panel, fit, at):
    found = fit.predict()
    assert list(found.index) == list(panel.index) and list(found.columns) == [0, 1] and found.columns.name == "a"
    np.testing.assert_allclose(found, policy_of(*at)[panel["when"], panel["s"]], rtol=1e-10)
    unknown = pd.DataFrame({"who": ["new"] * 3, "when": [0, 1, 2], "s": [2, 0, 1], "a": [np.nan] * 3})
    np.testing.assert_allclose(fit.predict(unknown), policy_of(*at)[[0, 1, 2], [2, 0, 1]], rtol=1e-10)


def test_trials_have_rewards_values_and_prediction_errors(panel, fit, at):
    beta, bonus = at
    found = fit.states()
    assert list(found.index) == list(panel.index)
    policy, value = (
        policy_of(beta, bonus),
        recursions.soft_optimal(P, rewards_of(bonus), np.full((S, A), 1 / A), beta, horizon=T)[1],
    )
    when, s, a = panel["when"].to_numpy(), panel["s"].to_numpy(), panel["a"].to_numpy()
    seen = ~np.isnan(a)
    np.testing.assert_allclose(found["value"], value[when, s], rtol=1e-10)
    np.testing.assert_allclose(found["entropy_a"], entr(policy[when, s]).sum(1), rtol=1e-10)
    taken = np.where(seen, a, 0).astype(int)
    for column, wanted in (
        ("surprise_a", -np.log(policy[when, s, taken])),
        ("reward", beta * rewards_of(bonus)[s, taken]),
    ):
        np.testing.assert_allclose(found[column], np.where(seen, wanted, np.nan), rtol=1e-10)
    following = panel.assign(place=np.arange(len(panel))).set_index(["who", "when"])
    for i, (who, t) in enumerate(zip(panel["who"], when, strict=True)):
        if t + 1 == T:
            ahead = 0.0
        elif (who, t + 1) in following.index:
            ahead = value[t + 1, following.loc[(who, t + 1), "s"]]
        else:
            ahead = np.nan
        wanted = found["reward"].iloc[i] + ahead - value[t, s[i]]
        np.testing.assert_allclose(found["prediction_error"].iloc[i], wanted, rtol=1e-9, atol=1e-12)
    assert found["prediction_error"].notna().sum() > len(panel) / 2


def test_simulations_begin_where_each_was_seen_first(panel, fit, at):
    one, same, other = (fit.simulate(jax.random.key(i)) for i in (0, 0, 1))
    pd.testing.assert_frame_equal(one, same)
    assert not one.equals(other)
    assert list(one.index) == list(panel.index) and list(one.columns) == list(panel.columns)
    first = panel["when"] == 0
    np.testing.assert_array_equal(one.loc[first, "s"], panel.loc[first, "s"])
    drawn = pd.concat([fit.simulate(jax.random.key(i)) for i in range(25)])
    p = policy_of(*at)[drawn["when"], drawn["s"], 1]
    z = (drawn["a"] - p).sum() / np.sqrt((p * (1 - p)).sum())
    assert abs(z) < 4.5 and drawn["a"].notna().all()
    later = drawn["when"] > 0
    assert 0.5 < (drawn.loc[later, "s"].value_counts(normalize=True) > 0.05).sum()


def test_another_task_has_its_choices_with_errors(fit, at):
    beta, bonus = at

    def elsewhere(p):
        return models.single_agent(
            MDP(P, -rewards_of(0.0) + jnp.zeros((S, A)).at[0, 1].set(p["bonus"]), MU), 2, p["beta"]
        )

    found = fit.counterfactual(elsewhere, errors="bhhh")
    reward = -rewards_of(0.0)
    reward[0, 1] += bonus
    wanted = recursions.soft_optimal(P, reward, np.full((S, A), 1 / A), beta, horizon=2)[2]
    np.testing.assert_allclose(found["estimate"], wanted.ravel(), rtol=1e-9)
    assert list(found.index.names) == ["decision", "t", "s", "value"]
    assert found.loc[("a", 1, 2, 0), "estimate"] == pytest.approx(wanted[1, 2, 0])
    by_hand = fit.derived(lambda p: exact.solve(elsewhere(p)).policy["a"], "bhhh")
    np.testing.assert_allclose(found["standard error"], by_hand["standard error"], rtol=1e-12)
    np.testing.assert_allclose(found["upper"] - found["estimate"], 1.959964 * found["standard error"], rtol=1e-6)
    named = fit.counterfactual(
        elsewhere, lambda made: {"elbo": exact.solve(made).elbo, "first": exact.solve(made).policy["a"][0, 0]}
    )
    assert list(named.index) == ["elbo", "first[0]", "first[1]"]
    assert named.loc["first[1]", "estimate"] == pytest.approx(wanted[0, 0, 1])
    for outcome, error, message in (
        (lambda made: pd.Series(made.args), TypeError, "an outcome must be an array, or a dictionary of arrays"),
        (lambda made: "text", TypeError, "an outcome must be an array, or a dictionary of arrays by name; got str"),
    ):
        with pytest.raises(error, match=message):
            fit.counterfactual(elsewhere, outcome)
    with pytest.raises(TypeError, match=r"program\(parameters\) must return a ControlProgram; got dict"):
        fit.counterfactual(lambda p: p)
    with pytest.raises(ValueError, match="level must be between 0 and 1; got 95"):
        fit.table(level=95.0)


def test_draws_for_arviz_follow_the_covariance(panel, fit):
    found = fit.to_arviz(jax.random.key(0), num_draws=2000)
    drawn = np.stack([np.asarray(found["posterior"][name])[0] for name in ("beta", "bonus")])
    np.testing.assert_allclose(np.cov(drawn), fit.covariance(), rtol=0.15, atol=0.02)
    first = {name: float(np.asarray(found["posterior"][name])[0, 0]) for name in ("beta", "bonus")}
    ordered = fit.panel.frame
    p = policy_of(**first)[ordered["when"], ordered["s"], np.nan_to_num(ordered["a"]).astype(int)]
    wanted = np.where(ordered["a"].isna(), 0.0, np.log(p))
    np.testing.assert_allclose(np.asarray(found["log_likelihood"]["behaviour"])[0, 0], wanted, rtol=1e-8, atol=1e-12)


@pytest.mark.slow
def test_fits_of_one_size_share_what_is_compiled(panel, fit):
    """Other numbers are no other program; so hundreds of panels are fitted in the time of a few."""
    missing = panel["a"].isna()
    other = panel.assign(a=np.where(missing, np.nan, 1.0 - panel["a"]))
    with jax.log_compiles(), CountCompilations() as count:
        again = behaviour.maximum_likelihood(other, program=program, start=START, **COLUMNS)
    assert again.converged and again.log_likelihood != fit.log_likelihood
    assert not [name for name in count.names if name.endswith(("_at", "_slope"))]


# ---- learners --------------------------------------------------------------------------------------------------------
RATE, BETA = 0.3, 4.0
TRUE = {"rate": RATE, "beta": BETA}


def played(n, rate=RATE, beta=BETA, steps=40):
    """Choices between two arms that pay with .2 and .8, and what was learned before each, by hand."""
    rng, found = np.random.default_rng(n), []
    for i in range(n):
        value = np.zeros(2)
        for t in range(steps):
            p = softmax(beta * value)
            c = rng.choice(2, p=p)
            pay = int(rng.random() < (0.2, 0.8)[c])
            group = "drug" if i % 2 else "placebo"
            found.append((f"s{i}", t, c, pay, group, *value, entr(p).sum(), -np.log(p[c]), pay - value[c]))
            value[c] += rate * (pay - value[c])
    names = ["who", "t", "choice", "pay", "group", "value[0]", "value[1]", "entropy_choice", "surprise_choice"]
    return pd.DataFrame(found, columns=[*names, "prediction_error"]).sample(frac=1.0, random_state=0)


LEARNER = {"decision": "choice", "other": {"pay": "pay"}, "id": "who", "time": "t"}
LIMITS = {"rate": constraints.unit_interval, "beta": constraints.positive}


def test_trials_of_a_learner_have_its_values_and_what_it_says():
    data = played(4)
    fit = behaviour.maximum_likelihood(data, program=learner, start=TRUE, bounds=LIMITS, **LEARNER)
    fit.estimate = {"beta": jnp.array(BETA), "rate": jnp.array(RATE)}
    found = fit.states()
    for name in found.columns:
        np.testing.assert_allclose(found[name], data[name], rtol=1e-9, atol=1e-12, err_msg=name)
    assert {"value[0]", "value[1]", "entropy_choice", "surprise_choice", "prediction_error"} == set(found.columns)
    drawn = fit.simulate(jax.random.key(0))
    assert drawn["pay"].isin([0, 1]).all() and (drawn["pay"] != data["pay"]).any()


@pytest.mark.slow
def test_a_formula_fits_groups_as_if_each_were_alone():
    """Where all parameters differ between two groups, the fit is that of each group by itself."""
    data = played(8)
    fit = behaviour.maximum_likelihood(
        data,
        program=learner,
        start={"rate": 0.5, "beta": 1.0},
        bounds=LIMITS,
        formulas=["rate ~ group", "beta ~ group"],
        **LEARNER,
    )
    total = 0.0
    for group, own in data.groupby("group"):
        alone = behaviour.maximum_likelihood(
            own, program=learner, start={"rate": 0.5, "beta": 1.0}, bounds=LIMITS, **LEARNER
        )
        total += alone.log_likelihood
        of_group = fit.by_id.loc[own["who"].unique()]
        np.testing.assert_allclose(of_group["rate"], float(alone.estimate["rate"]), rtol=1e-4)
        np.testing.assert_allclose(of_group["beta"], float(alone.estimate["beta"]), rtol=1e-4, err_msg=group)
    assert fit.converged and fit.log_likelihood == pytest.approx(total, rel=1e-9)
    assert list(fit.params.index) == ["beta", "beta_slopes[group[placebo]]", "rate", "rate_slopes[group[placebo]]"]
    some = data[data["who"] == "s3"]
    np.testing.assert_allclose(fit.predict(some), fit.predict().loc[some.index], rtol=1e-12)
    with pytest.raises(ValueError, match=r"differ between ids, and those of \['nobody'\] were not inferred"):
        fit.predict(some.assign(who="nobody"))


@pytest.mark.slow
def test_a_posterior_predicts_and_has_groups():
    data = played(6)
    posterior = behaviour.sample(
        data,
        program=learner,
        priors={"rate": LogNormal(-1.0, 0.5), "beta": LogNormal(0.0, 1.0)},
        formulas="beta ~ group + (1 | who)",
        by_id=["rate"],
        key=jax.random.key(0),
        num_chains=1,
        num_samples=150,
        **LEARNER,
    )
    assert posterior.samples["beta_each"].shape == (1, 150, 6) and posterior.samples["beta_slopes"].shape == (1, 150, 1)
    assert "beta_slopes[group[placebo]]" in posterior.params.index
    wanted = np.asarray(posterior.samples["rate_each"]).mean((0, 1))
    np.testing.assert_allclose(posterior.by_id["rate"], wanted)
    predicted = posterior.predict(num_draws=150)
    np.testing.assert_allclose(predicted.sum(axis=1), 1.0)
    # The average over draws, by hand for one id.
    own = posterior.panel.frame.query("who == 's2'")
    place = posterior.panel.ids.index("s2")
    by_hand = np.zeros(len(own))
    for rate, beta in zip(
        posterior.samples["rate_each"][0, :, place], posterior.samples["beta_each"][0, :, place], strict=True
    ):
        value = np.zeros(2)
        for t, (c, pay) in enumerate(zip(own["choice"], own["pay"], strict=True)):
            by_hand[t] += softmax(beta * value)[1] / 150
            value[c] += rate * (pay - value[c])
    np.testing.assert_allclose(predicted.loc[own.index, 1], by_hand, rtol=1e-8)
    assert posterior.states(num_draws=5)["entropy_choice"].between(0, np.log(2) + 1e-12).all()
    assert posterior.simulate(jax.random.key(1))["choice"].isin([0, 1]).all()
    other = posterior.counterfactual(learner, lambda made: made.args[0] * 2, num_draws=150)
    assert other["mean"].iloc[0] == pytest.approx(2 * float(np.mean(posterior.samples["rate"])), rel=1e-9)
    named = posterior.counterfactual(learner, lambda made: {"rate": made.args[0]}, num_draws=2)
    assert list(named.index) == ["rate"]
    native = posterior.to_arviz()
    assert "beta_raw" not in native["posterior"] and native["log_likelihood"]["behaviour"].shape == (1, 150, 6)
    assert native["log_likelihood"]["behaviour"].dims[-1] == "who" and "n_steps" in native["sample_stats"]
    assert list(np.asarray(native["posterior"]["who"])) == posterior.panel.ids


# ---- alternatives that are not always there --------------------------------------------------------------------------
def test_what_is_not_there_is_not_chosen_between():
    data = rows()
    rng = np.random.default_rng(0)
    there = rng.random((len(data), A)) < 0.6
    there |= data["a"].to_numpy()[:, None] == np.arange(A)
    data = data.assign(left=there[:, 0], right=there[:, 1].astype(int))
    fit = behaviour.maximum_likelihood(data, program=program, start=START, available=["left", "right"], **COLUMNS)
    p = policy_of(float(fit.estimate["beta"]), float(fit.estimate["bonus"]))[data["when"], data["s"]] * there
    p = p / p.sum(1, keepdims=True)
    assert fit.converged
    np.testing.assert_allclose(fit.log_likelihoods, np.log(p[np.arange(len(data)), data["a"]]), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(fit.predict(), p, rtol=1e-9, atol=1e-15)
    with pytest.raises(ValueError, match="available is known of the trials that were seen"):
        fit.simulate(jax.random.key(0))


FRAME = pd.DataFrame(
    {
        "who": ["x", "x", "y", "y"],
        "when": [0, 1, 0, 1],
        "s": [0, 1, 2, 0],
        "a": [0, 1, 1, 0],
        "l": True,
        "r": [1, 1, 1, 0],
    }
)


def asked(frame=FRAME, **changed):
    given = {"program": program, "start": START, **COLUMNS} | changed
    return lambda: behaviour.maximum_likelihood(frame, **given)


WRONG = {
    "a column for all": (
        asked(available="l"),
        TypeError,
        "must be a list of columns, one for each alternative",
    ),
    "too few columns": (asked(available=["l"]), ValueError, r"1 columns for 'a', whose alternatives are \[0, 1\]"),
    "no such decision": (asked(available={"b": ["l", "r"]}), ValueError, "available names 'b'"),
    "no truth values": (
        asked(FRAME.assign(l=2), available=["l", "r"]),
        ValueError,
        "row 0: 'l' is 2.0; it must",
    ),
    "missing truth values": (
        asked(FRAME.assign(r=[1, np.nan, 1, 1]), available=["l", "r"]),
        ValueError,
        "row 1: 'r' is nan",
    ),
    "nothing there": (asked(FRAME.assign(l=[1, 1, 1, 0]), available=["l", "r"]), ValueError, "row 3: none of"),
    "taken and not there": (
        asked(FRAME.assign(r=[1, 0, 1, 1]), available=["l", "r"]),
        ValueError,
        r"row 1: 'a' is 1, and that was not there \('r' is false\)",
    ),
    "a formula of nothing": (asked(formulas="who"), ValueError, "the formula 'who' names no parameter"),
    "a formula of no parameter": (
        asked(formulas="gamma ~ who"),
        ValueError,
        r"parameters \['gamma'\] differ",
    ),
    "two formulas": (asked(formulas=["beta ~ who", "beta ~ 1"]), ValueError, "have more than one formula"),
    "a formula that is none": (asked(formulas="beta ~ (who"), ValueError, "the formula beta ~ .who cannot be read"),
    "a covariate that lacks": (asked(formulas="beta ~ age"), ValueError, "the formula beta ~ age cannot be read"),
    "a covariate that varies": (
        asked(formulas="beta ~ s"),
        ValueError,
        "'s', which 'beta' depends on, varies within who",
    ),
    "a covariate that is missing": (
        asked(FRAME.assign(age=[1, 1, np.nan, np.nan]), formulas="beta ~ age"),
        ValueError,
        "the formula beta ~ age cannot be read",
    ),
    "no intercept": (asked(formulas="beta ~ 0 + who"), ValueError, "has no intercept, which is 'beta' itself"),
    "chance without priors": (asked(formulas="beta ~ (1 | who)"), ValueError, r"moves by chance \(1\|who\) has a law"),
    "formulas without ids": (asked(FRAME[:2], formulas="beta ~ 1", id=None), ValueError, "want ids: give the column"),
    "numbers for formulas": (asked(formulas=[1]), TypeError, "formulas must be text"),
}


@pytest.mark.parametrize("call, error, message", WRONG.values(), ids=WRONG)
def test_wrong_use_is_refused_by_name(call, error, message, monkeypatch):
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(error, match=message):
        call()


# ---- what was read wrongly once --------------------------------------------------------------------------------------
def test_times_that_are_words_have_no_order_and_categories_have_theirs(monkeypatch):
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    data = rows()
    plain = behaviour.maximum_likelihood(data, program=program, start=START, **COLUMNS).log_likelihood
    with pytest.raises(ValueError, match="which have no order: give numbers, dates, or an ordered categorical"):
        behaviour.maximum_likelihood(
            data.assign(when=data["when"].astype(str)), program=program, start=START, **COLUMNS
        )
    names = pd.CategoricalDtype(["pre", "early", "mid", "late", "post", "end"], ordered=True)
    for when in (
        pd.Categorical.from_codes(data["when"], dtype=names),
        pd.Timestamp("2026-01-01") + pd.to_timedelta(data["when"], "D"),
        data["when"].astype(float),
    ):
        again = behaviour.maximum_likelihood(data.assign(when=when), program=program, start=START, **COLUMNS)
        assert again.log_likelihood == pytest.approx(plain, rel=1e-12)
    nullable = data.convert_dtypes()
    assert behaviour.maximum_likelihood(nullable, program=program, start=START, **COLUMNS).log_likelihood == plain


def test_rows_that_lack_at_the_beginning_are_not_overlooked():
    """To a policy over time the first row is the first step."""
    data = rows()
    late = data[(data["who"] != "bus 1") | (data["when"] > 1)]
    with pytest.raises(ValueError, match="some sequences begin at when 0, others as late as 2; to a program"):
        behaviour.maximum_likelihood(late, program=program, start=START, **COLUMNS)
    with pytest.raises(ValueError, match="bus 1 has times 1.0 and 3.0, and none in between"):
        lacking = data[(data["who"] != "bus 1") | (data["when"] != 2)]
        behaviour.maximum_likelihood(
            lacking.assign(when=lacking["when"] * 1.0), program=program, start=START, **COLUMNS
        )


MOVES = np.array([[0.9, 0.1, 0.0], [0.0, 0.2, 0.8], [0.0, 0.0, 1.0]])


def wearing(p):
    def step(b, s):
        a = decide("a", Categorical(probs=jnp.ones(2) / 2))
        optimality(b * (a == s) * (1.0 + s))
        return {"s": numpyro.sample("n", Categorical(probs=jnp.asarray(MOVES)[s]))}

    first = lambda b: {"s": numpyro.sample("s0", Categorical(probs=jnp.ones(3) / 3))}  # noqa: E731
    return ControlProgram(first, step, None, discount=0.9, args=(jnp.asarray(p["b"], dtype=float),))


def test_what_is_behind_a_gap_is_not_what_follows():
    """A state that cannot be reached in one step is no contradiction there, and no prediction error spans a gap."""
    data = pd.DataFrame({"t": [0, 1, 5, 6], "s": [0, 0, 2, 2], "a": [0, 1, 1, 1]})
    asked = {"program": wearing, "start": {"b": 0.5}, "state": "s", "decision": "a", "time": "t"}
    fit = behaviour.maximum_likelihood(data, gaps="close", **asked)
    apart = behaviour.maximum_likelihood(data.assign(i=[0, 0, 1, 1]), id="i", **asked)
    assert fit.log_likelihood == pytest.approx(apart.log_likelihood, rel=1e-12)
    found = fit.states()
    np.testing.assert_array_equal(found["prediction_error"].isna(), [False, True, False, True])
    pd.testing.assert_frame_equal(found, apart.states())


def test_a_simulation_begins_where_each_was_seen_first_though_some_states_lack():
    data = rows()
    data["s"] = data["s"].astype(float)
    hole = data.index[(data["who"] == "bus 2") & (data["when"] == 1)][0]
    data.loc[hole, "s"] = np.nan
    fit = behaviour.maximum_likelihood(data, program=program, start=START, **COLUMNS)
    drawn, first = fit.simulate(jax.random.key(3)), data["when"] == 0
    np.testing.assert_array_equal(drawn.loc[first, "s"], data.loc[first, "s"])


@pytest.mark.slow
def test_predictions_of_other_rows_have_their_own_covariates():
    data = played(4).assign(dose=lambda frame: frame["who"].map({"s0": 0.0, "s1": 1.0, "s2": 2.0, "s3": 3.0}))
    fit = behaviour.maximum_likelihood(
        data, program=learner, start=TRUE, bounds=LIMITS, formulas="beta ~ dose + group", **LEARNER
    )
    other = data[data["who"] == "s1"].assign(dose=2.5)
    beta, slopes = float(fit.estimate["beta"]), np.asarray(fit.estimate["beta_slopes"])
    own = np.exp(np.log(beta) + slopes @ [2.5, 0.0])
    predicted = fit.predict(other)
    ordered, value = other.sort_values("t"), np.zeros(2)
    for i, c, pay in zip(ordered.index, ordered["choice"], ordered["pay"], strict=True):
        assert predicted.loc[i, 1] == pytest.approx(softmax(own * value)[1], rel=1e-9)
        value[c] += float(fit.estimate["rate"]) * (pay - value[c])
    with pytest.raises(ValueError, match="the formula beta ~ dose . group cannot be read"):
        fit.predict(other.drop(columns="dose"))


def test_names_of_tables_are_not_taken_by_others():
    def step(b, value):
        a = decide("a", Categorical(probs=jnp.ones(2) / 2))
        optimality(b * (a == value))
        numpyro.deterministic("reward", 9.0)
        return {"value": a}

    def made(p):
        return ControlProgram(lambda b: {"value": 0}, step, None, discount=0.5, args=(p["b"],), sizes={"value": 2})

    data = pd.DataFrame({"value": [0, 1, 1, 0], "a": [1, 1, 0, 1]})
    fit = behaviour.maximum_likelihood(data, program=made, start={"b": 0.1}, state="value", decision="a")
    with pytest.raises(ValueError, match=r"\['value'\] are names of the table's own: say by outcome="):
        fit.counterfactual(made)
    with pytest.raises(ValueError, match=r"the step records \['reward'\], which states\(\) has of its own"):
        fit.states()


def test_arrays_of_few_digits_are_pointed_at():
    data = rows()
    with jax.enable_x64(False):
        bonus = jnp.zeros((S, A)).at[0, 1].set(1.0)

        def made(p):
            return ControlProgram(lambda b, bonus: {"s": 0}, kept, T, args=(p["beta"], bonus), sizes={"s": S})

        with pytest.warns(UserWarning, match="the program holds arrays of float32, made or used before"):
            behaviour.maximum_likelihood(data, program=made, start={"beta": 1.0}, **COLUMNS)


def kept(b, bonus, s):
    a = decide("a", Categorical(probs=jnp.ones(A) / A))
    optimality(b * bonus[s, a])
    return {"s": numpyro.sample("s_next", Categorical(probs=jnp.ones(S) / S))}


MISUSED = {
    "bounds of nothing": (asked(bounds={"bta": constraints.positive}), ValueError, r"bounds name \['bta'\]"),
    "bounds that are none": (asked(bounds={"beta": (0, 10)}), TypeError, "NumPyro's constraints, such as"),
    "a parameter that lacks": (asked(start={"bonus": 0.0}), ValueError, "program asks for the parameter 'beta'"),
    "plain numbers": (
        asked(program=lambda p: program(p | {"beta": 1.0 if p["beta"] > 0 else 2.0})),
        TypeError,
        "parameters are traced: use jax.numpy",
    ),
    "no decision": (asked(FRAME.assign(a=np.nan)), ValueError, r"no decision was seen: \['a'\] hold nothing"),
    "a column twice": (
        asked(pd.concat([FRAME, FRAME[["s"]]], axis=1)),
        ValueError,
        "more than one column 's'",
    ),
    "a policy that is none": (asked(policy={"a": 0.5}), TypeError, "policy must be a function of a program"),
    "steps below 0": (asked(max_steps=-1), ValueError, "max_steps"),
    "gaps without times": (asked(FRAME.drop(columns="when"), time=None, gaps="foo"), ValueError, "gaps must be"),
    "a start that is NaN": (
        asked(start={"beta": np.nan, "bonus": 0.0}),
        ValueError,
        "beta is nan: give finite numbers",
    ),
}


@pytest.mark.parametrize("call, error, message", MISUSED.values(), ids=MISUSED)
def test_misuse_is_named(call, error, message, monkeypatch):
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"priors": {"beta": LogNormal(0.0, 1.0), "x_spread": LogNormal(0.0, 1.0)}}, r"priors name \['x_spread'\]"),
        ({"priors": {"beta": LogNormal(0.0, 1.0), "slip": Normal(0.5, 1.0)}, "lapse": "slip"}, "one of probabilities"),
        ({"num_chains": 0}, "num_chains"),
    ],
)
def test_priors_of_nothing_are_named(changed, message, monkeypatch):
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    given = {"priors": {"beta": LogNormal(0.0, 1.0)}, "program": lambda p: program({"beta": p["beta"], "bonus": 0.0})}
    with pytest.raises(ValueError, match=message):
        behaviour.sample(FRAME, **(given | changed), key=jax.random.key(0), **COLUMNS)
