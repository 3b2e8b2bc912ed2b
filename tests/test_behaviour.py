"""From behaviour to parameters: estimates, their errors and posteriors, against NumPy and grids."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pandas as pd
import pytest
from numpyro.distributions import LogNormal, Normal, constraints
from numpyro.infer import Predictive, log_likelihood
from numpyro.infer.util import log_density
from panels import COLUMNS, TASK, TRUE, A, N, S, T, learner, policy_of, program, rows
from scipy.optimize import minimize

from rlinf_ppl import behaviour, models
from rlinf_ppl.inference import exact


@pytest.fixture(scope="module")
def panel():
    return rows()


def terms(frame, beta, bonus):
    """The log probability of each row."""
    return np.log(policy_of(beta, bonus)[frame["when"], frame["s"], frame["a"]])


@pytest.fixture(scope="module")
def fit(panel):
    return behaviour.maximum_likelihood(panel, program=program, start={"beta": 1.0, "bonus": 0.0}, **COLUMNS)


def slopes(function, at, h=1e-5):
    return np.stack([(function(*(at + h * e)) - function(*(at - h * e))) / (2 * h) for e in np.eye(len(at))], -1)


def test_the_estimate_is_the_one_of_another_optimiser(panel, fit):
    found = minimize(
        lambda x: -terms(panel, *x).sum(), [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}
    )
    assert fit.converged
    assert fit.log_likelihood == pytest.approx(-found.fun, rel=1e-10)
    np.testing.assert_allclose([fit.estimate["beta"], fit.estimate["bonus"]], found.x, atol=1e-5)
    np.testing.assert_allclose(fit.log_likelihoods.loc[panel.index], terms(panel, *found.x), atol=1e-5)
    assert list(fit.params.index) == ["beta", "bonus"]
    assert "log likelihood" in fit.summary() and "NOT CONVERGED" not in fit.summary()


def test_standard_errors_are_those_of_their_formulas(panel, fit):
    at = np.array([float(fit.estimate["beta"]), float(fit.estimate["bonus"])])
    scores = slopes(lambda *x: terms(panel, *x), at)
    bread = np.linalg.inv(-slopes(lambda *x: slopes(lambda *y: terms(panel, *y).sum(), np.array(x)), at, 1e-4))
    groups = pd.DataFrame(scores, index=panel["who"].to_numpy()).groupby(level=0).sum().to_numpy()
    wanted = {
        "hessian": bread,
        "bhhh": np.linalg.inv(scores.T @ scores),
        "sandwich": bread @ scores.T @ scores @ bread,
        "clustered": bread @ groups.T @ groups @ bread * N / (N - 1),
    }
    for kind, covariance in wanted.items():
        np.testing.assert_allclose(fit.covariance(kind), covariance, rtol=2e-4)
    table = fit.table("bhhh", level=0.9)
    deviation = np.sqrt(np.diag(wanted["bhhh"]))
    np.testing.assert_allclose(table["standard error"], deviation, rtol=1e-4)
    np.testing.assert_allclose(table["upper"] - table["estimate"], 1.6448536 * deviation, rtol=1e-4)
    derived = fit.derived(lambda p: jnp.stack([p["beta"] * p["bonus"], p["beta"]]))
    slope = np.array([[at[1], at[0]], [1.0, 0.0]])
    np.testing.assert_allclose(derived["standard error"], np.sqrt(np.diag(slope @ bread @ slope.T)), rtol=2e-4)


@pytest.mark.slow
def test_weights_count_rows_and_nothing_hangs_on_their_order(panel, fit):
    weighted = panel.assign(w=[2.0 if who == "bus 0" else 1.0 for who in panel["who"]])
    twice = pd.concat([panel, panel[panel["who"] == "bus 0"].assign(who="again")])
    start = {"beta": 1.0, "bonus": 0.0}
    one = behaviour.maximum_likelihood(weighted, program=program, start=start, weights="w", **COLUMNS)
    other = behaviour.maximum_likelihood(twice, program=program, start=start, **COLUMNS)
    assert one.log_likelihood == pytest.approx(other.log_likelihood, rel=1e-10)
    ordered = behaviour.maximum_likelihood(panel.sort_values(["who", "when"]), program=program, start=start, **COLUMNS)
    assert ordered.log_likelihood == pytest.approx(fit.log_likelihood, rel=1e-12)
    impossible = panel.assign(w=1.0)
    without = behaviour.maximum_likelihood(
        impossible.assign(w=(panel["who"] != "bus 1") * 1.0), program=program, start=start, weights="w", **COLUMNS
    )
    left_out = behaviour.maximum_likelihood(panel[panel["who"] != "bus 1"], program=program, start=start, **COLUMNS)
    assert without.log_likelihood == pytest.approx(left_out.log_likelihood, rel=1e-10)


@pytest.mark.slow
def test_lapses_take_any_alternative(panel):
    lapsed = behaviour.maximum_likelihood(
        panel,
        program=program,
        start={"beta": 1.0, "bonus": 0.0, "slip": 0.1},
        lapse="slip",
        bounds={"beta": constraints.positive},
        **COLUMNS,
    )
    at = [float(lapsed.estimate[name]) for name in ("beta", "bonus", "slip")]
    assert 0 < at[2] < 1
    p = np.exp(terms(panel, *at[:2]))
    assert lapsed.log_likelihood == pytest.approx(np.log((1 - at[2]) * p + at[2] / A).sum(), rel=1e-8)


@pytest.mark.slow
def test_missing_decisions_are_summed_over(panel):
    some = panel.assign(a=panel["a"].astype(float)).reset_index(drop=True)
    some.loc[::3, "a"] = np.nan
    found = behaviour.maximum_likelihood(some, program=program, start={"beta": 1.0, "bonus": 0.0}, **COLUMNS)
    at = found.estimate
    kept = some[some["a"].notna()].astype({"a": int})
    assert found.log_likelihood == pytest.approx(terms(kept, float(at["beta"]), float(at["bonus"])).sum(), rel=1e-10)


def test_a_learner_is_fitted_without_a_column_of_its_state():
    simulated = drawn_by(learner({"rate": 0.3, "beta": 4.0}), 6, 40)
    rows = pd.DataFrame(
        {
            "who": np.repeat(np.arange(6), 40),
            "t": np.tile(np.arange(40), 6),
            "choice": np.asarray(simulated["choice"]).ravel(),
            "pay": np.asarray(simulated["pay"]).ravel(),
        }
    )
    found = behaviour.maximum_likelihood(
        rows,
        program=learner,
        start={"rate": 0.5, "beta": 1.0},
        decision="choice",
        other={"pay": "pay"},
        id="who",
        time="t",
        bounds={"rate": constraints.unit_interval, "beta": constraints.positive},
    )
    total, (rate, beta) = 0.0, (float(found.estimate[name]) for name in ("rate", "beta"))
    for _, own in rows.groupby("who"):
        value = np.zeros(2)
        for c, pay in zip(own["choice"], own["pay"], strict=True):
            total += beta * value[c] - np.logaddexp(*(beta * value))
            value[c] += rate * (pay - value[c])
    assert found.converged and found.log_likelihood == pytest.approx(total, rel=1e-9)


def drawn_by(made, n, steps):
    """Behaviour of a program."""
    model = lambda: behaviour.site("y", made, num_sequences=n, num_steps=steps)  # noqa: E731
    found = Predictive(model, num_samples=1)(jax.random.key(5))
    return {name.removeprefix("y_"): x[0] for name, x in found.items()}


# ---- in a model of one's own ---------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def seen():
    made = program(TRUE)
    drawn = exact.sample(made, jax.random.key(2), exact.solve(made).policy, 5)
    return {"s": np.asarray(drawn["s"]), "a": np.asarray(drawn["a"])}


def alike(data):
    beta = numpyro.sample("beta", LogNormal(0.0, 1.0))
    behaviour.site("choices", program({"beta": beta, "bonus": 0.4}), data)


def each(data):
    with numpyro.plate("subject", 5):
        beta = numpyro.sample("beta", LogNormal(0.0, 1.0))
        behaviour.site("choices", jax.vmap(lambda b: program({"beta": b, "bonus": 0.4}))(beta), data)


def test_a_site_has_the_probability_of_the_behaviour(seen):
    betas = jnp.array([0.5, 1.0, 1.5, 2.0, 2.5])
    for model, values in ((alike, betas[0]), (each, betas)):
        found = log_density(model, (seen,), {}, {"beta": values})[0] - LogNormal(0.0, 1.0).log_prob(values).sum()
        own = np.broadcast_to(values, (5,))
        rows = [
            np.log(policy_of(b, 0.4)[np.arange(T), s[:T], a]).sum()
            for b, s, a in zip(own, seen["s"], seen["a"], strict=True)
        ]
        assert float(found) == pytest.approx(sum(rows), rel=1e-10)
        pointwise = log_likelihood(model, {"beta": values[None]}, seen)["choices"]
        np.testing.assert_allclose(pointwise[0], rows, rtol=1e-10)


def test_missing_decisions_are_missing_in_a_site_too(seen):
    """As (values, seen), or in a masked array of NumPy; lists are arrays."""
    there = np.arange(5 * T).reshape(5, T) % 3 > 0
    masked = np.ma.masked_array(seen["a"], ~there)
    made = program(TRUE)
    wanted = exact.log_prob(made, exact.solve(made).policy, seen | {"a": (seen["a"], there)}).sum()
    for a in ((seen["a"], there), masked):
        for model in (alike, each):
            betas = jnp.full((5,), 1.5) if model is each else jnp.array(1.5)
            found = (
                log_density(model, (seen | {"a": a},), {}, {"beta": betas})[0]
                - LogNormal(0.0, 1.0).log_prob(betas).sum()
            )
            assert float(found) == pytest.approx(float(wanted), rel=1e-10)
    listed = {name: x.tolist() for name, x in seen.items()}
    assert (
        log_density(each, (listed,), {}, {"beta": jnp.full((5,), 1.5)})[0]
        == log_density(each, (seen,), {}, {"beta": jnp.full((5,), 1.5)})[0]
    )


def test_a_site_without_end_warns_in_single_precision():
    made = behaviour.example(num_buses=2, num_months=3)
    data = {"mileage": np.zeros((2, 3), int), "replaced": np.zeros((2, 3), int)}
    with jax.enable_x64(False), pytest.warns(UserWarning, match="inferred in float32"):
        log_density(lambda: behaviour.site("y", made.program(made.truth), data), (), {}, {})


def test_a_site_needs_no_data_frames():
    """Neither pandas nor SciPy's optimisers are loaded by it, and where they lack the rest says so."""
    lacking = (
        "import sys; sys.modules['pandas'] = None; from rlinf_ppl import behaviour; behaviour.site; behaviour.sample"
    )
    run = subprocess.run([sys.executable, "-c", lacking], capture_output=True, text=True)
    assert run.returncode == 1
    assert "behaviour.sample takes a data frame, and pandas is not installed: pip install" in run.stderr


@pytest.mark.slow
def test_subjects_have_a_posterior_that_numpyro_and_arviz_know(seen):
    from numpyro.infer import MCMC, NUTS

    from rlinf_ppl.report import to_arviz

    mcmc = MCMC(NUTS(each), num_warmup=200, num_samples=300, num_chains=1, progress_bar=False)
    mcmc.run(jax.random.key(0), seen)
    assert mcmc.get_samples()["beta"].shape == (300, 5)
    assert callable(to_arviz)


def test_behaviour_is_drawn_where_there_are_no_data():
    drawn = drawn_by(program(TRUE), 4000, T)
    assert drawn["s"].shape == (4000, T + 1) and drawn["a"].shape == (4000, T)
    made = program(TRUE)
    wanted = np.asarray(exact.marginals(made, exact.solve(made).policy).decision["a"])
    found = np.stack([np.bincount(S * drawn["a"][:, t] + drawn["s"][:, t], minlength=S * A) for t in range(T)]) / 4000
    np.testing.assert_allclose(found.reshape(T, A, S).swapaxes(1, 2), wanted, atol=4.5 * 0.5 / np.sqrt(4000))
    several = jax.vmap(lambda b: program({"beta": b, "bonus": 0.0}))(jnp.array([0.1, 5.0]))
    rows = Predictive(lambda: behaviour.site("y", several), num_samples=1)(jax.random.key(0))
    assert rows["y_a"].shape == (1, 2, T)


@pytest.mark.slow
def test_nuts_finds_the_posterior_of_a_grid(panel):
    prior = LogNormal(0.0, 1.0)
    posterior = behaviour.sample(
        panel,
        program=lambda p: program({"beta": p["beta"], "bonus": 0.4}),
        priors={"beta": prior},
        key=jax.random.key(0),
        num_chains=2,
        num_samples=1000,
        **COLUMNS,
    )
    grid = np.linspace(0.02, 8.0, 2000)
    log_p = np.array([terms(panel, b, 0.4).sum() for b in grid]) + np.asarray(prior.log_prob(grid))
    weights = np.exp(log_p - log_p.max()) / np.exp(log_p - log_p.max()).sum()
    mean = weights @ grid
    deviation = np.sqrt(weights @ (grid - mean) ** 2)
    row = posterior.params.loc["beta"]
    error = deviation / np.sqrt(row["ess"])
    assert abs(row["mean"] - mean) < 4.5 * error and row["r_hat"] < 1.02
    assert row["sd"] == pytest.approx(deviation, rel=0.15)
    assert "0 divergences" in posterior.summary()
    native = posterior.to_arviz()
    pointwise = np.asarray(native["log_likelihood"]["behaviour"])
    wanted = terms(panel, float(native["posterior"]["beta"][0, 0]), 0.4)
    groups = pd.Series(wanted, panel["who"].to_numpy()).groupby(level=0, sort=False).sum()
    np.testing.assert_allclose(pointwise[0, 0], groups.to_numpy(), rtol=1e-8)


@pytest.mark.slow
def test_ids_that_differ_have_parameters_of_their_own(panel):
    posterior = behaviour.sample(
        panel,
        program=program,
        priors={"beta": LogNormal(0.0, 1.0), "bonus": Normal(0.0, 1.0)},
        by_id=["beta"],
        key=jax.random.key(0),
        num_chains=2,
        num_samples=300,
        **COLUMNS,
    )
    assert posterior.samples["beta_each"].shape == (2, 300, N)
    assert set(posterior.params.index) == {"beta", "beta_spread", "bonus"}
    assert set(posterior.params_by_id.index) == {f"beta_each[{each}]" for each in posterior.panel.ids}
    assert posterior.params_by_id["r_hat"].max() < 1.05 and posterior.params["r_hat"].max() < 1.05
    assert posterior.divergences < 10 and "R-hat at most 1.0" in posterior.summary()


@pytest.mark.slow
def test_the_example_is_recovered():
    """The parameters that its data were drawn at, and what cheaper engines would lead to."""
    made = behaviour.example()
    found = behaviour.maximum_likelihood(made.frame, program=made.program, start=made.start, **made.columns)
    table = found.table("sandwich")
    for name, value in made.truth.items():
        assert abs(table.loc[name, "estimate"] - value) < 4 * table.loc[name, "standard error"] < value
    assert behaviour.example().frame.equals(made.frame)
    with jax.enable_x64(False):
        again = behaviour.maximum_likelihood(made.frame, program=made.program, start=made.start, **made.columns)
        assert again.converged and "NOT CONVERGED" not in again.summary()
        assert again.log_likelihood == pytest.approx(found.log_likelihood, rel=1e-12)
        again.derived(lambda p: p["upkeep"])

    def cheaper(p):
        return exact.solve(made.program(p | {"replacement": 0.5 * p["replacement"]})).policy["replaced"][:, 1]

    derived = found.derived(cheaper)
    wanted = cheaper({name: float(x) for name, x in found.estimate.items()})
    np.testing.assert_allclose(derived["estimate"], wanted, rtol=1e-9)
    assert (derived["standard error"] > 0).all()


# ---- bad data --------------------------------------------------------------------------------------------------------
FRAME = pd.DataFrame({"who": [1, 1, 2, 2], "when": [0, 1, 0, 1], "s": [0, 1, 2, 0], "a": [0, 1, 1, 0], "w": 1.0})
START = {"beta": 1.0, "bonus": 0.0}


def asked(frame=FRAME, **changed):
    return lambda: behaviour.maximum_likelihood(frame, **({"program": program, "start": START} | COLUMNS | changed))


def forbidding(p):
    return models.single_agent(TASK, T, beta=p["beta"], prior=jnp.array([[1.0, 0.0]] * S))


WRONG = {
    "no frame": (asked({"s": [0]}), TypeError, "takes a data frame of pandas"),
    "no rows": (asked(FRAME[:0]), ValueError, "the data frame has no rows"),
    "no such column": (asked(state="mileage"), ValueError, r"no column \['mileage'\]; it has"),
    "a state outside": (
        asked(FRAME.assign(s=[0, 1, 9, 0])),
        ValueError,
        "row 2: 's' is 9, and 's' takes the values 0 to 2",
    ),
    "a decision outside": (
        asked(FRAME.assign(a=[0, 1, 2, 0])),
        ValueError,
        "row 2: 'a' is 2, and 'a' takes the values 0 to 1",
    ),
    "words for numbers": (
        asked(FRAME.assign(a=["left"] * 4)),
        ValueError,
        r"and 'a' is numbers: say which number each is, such as frame\['a'\].map",
    ),
    "an id that is missing": (
        asked(FRAME.assign(who=[1, None, 2, 2])),
        ValueError,
        r"row 1: the id \('who'\) is missing",
    ),
    "a time that is missing": (
        asked(FRAME.assign(when=[0, np.nan, 0, 1])),
        ValueError,
        r"row 1: the time \('when'\) is missing",
    ),
    "a row twice": (asked(FRAME.assign(when=[0, 0, 0, 1])), ValueError, r"rows \[0, 1\] have the same who and when"),
    "a gap": (
        asked(FRAME.assign(when=[0, 3, 0, 1])),
        ValueError,
        'who 1 has times 0 and 3, and none in between.* gaps="close"',
    ),
    "gaps that are no word": (asked(gaps="skip"), ValueError, 'gaps must be "error" or "close"'),
    "a weight below 0": (asked(FRAME.assign(w=[1, -1, 1, 1]), weights="w"), ValueError, "row 1: the weight is -1"),
    "a weight that is missing": (
        asked(FRAME.assign(w=[1, np.nan, 1, 1]), weights="w"),
        ValueError,
        "row 1: the weight is nan",
    ),
    "an impossible decision": (
        asked(program=forbidding),
        ValueError,
        r"row 1 has probability zero at beta = 1.0.*'a': ",
    ),
    "a program that is none": (asked(program=TASK), TypeError, "must be a function of a dictionary of parameters"),
    "a function that makes none": (asked(program=lambda p: TASK), TypeError, "must return a ControlProgram; got MDP"),
    "a lapse that is no parameter": (asked(lapse="slip"), ValueError, "lapse names the parameter 'slip'"),
    "a start at its bounds": (
        asked(start={"beta": 0.0, "bonus": 0.0}, bounds={"beta": constraints.positive}),
        ValueError,
        r"start has \['beta'\] at or beyond its bounds",
    ),
    "a state variable that is none": (
        asked(state={"x": "s"}),
        ValueError,
        r"state names \['x'\]; the program's are \['s'\]",
    ),
    "parameters in a list": (asked(start=[1.0]), TypeError, "parameters are given by name"),
}


@pytest.mark.parametrize("call, error, message", WRONG.values(), ids=WRONG)
def test_bad_data_are_refused_by_name(call, error, message, monkeypatch):
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(error, match=message):
        call()


def test_what_the_data_cannot_tell_apart_is_named(panel):
    def twice(p):
        return program({"beta": p["one"] + p["other"], "bonus": 0.4})

    with pytest.raises(
        ValueError, match=r"do not tell apart parameters along \(\+1 one, -1 other\)|\(-1 one, \+1 other\)"
    ):
        behaviour.maximum_likelihood(panel, program=twice, start={"one": 1.0, "other": 0.0}, **COLUMNS)


@pytest.mark.slow
def test_the_front_end_is_quiet_in_a_session_of_single_precision():
    """Every method, in a process of its own with warnings as errors: all count in float64."""
    program = """
import warnings; warnings.simplefilter("error")
import jax
from numpyro.distributions import LogNormal
from rlinf_ppl import behaviour

made = behaviour.example(4, 6)
fit = behaviour.maximum_likelihood(made.frame, program=made.program, start=made.start, **made.columns)
key = jax.random.key(0)
fit.summary("clustered"), fit.by_id, fit.states(), fit.log_likelihoods
priors = {"replacement": LogNormal(1.0, 1.0), "upkeep": LogNormal(-1.0, 1.0)}
posterior = behaviour.sample(
    made.frame, program=made.program, priors=priors, by_id=["upkeep"], key=key, num_warmup=5, num_samples=10,
    num_chains=1, **made.columns
)
posterior.params, posterior.params_by_id, posterior.by_id, posterior.to_arviz()
print(posterior.summary())
"""
    environment = os.environ | {"JAX_ENABLE_X64": "0"}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    assert "24 rows, 4 sequences" in run.stdout
