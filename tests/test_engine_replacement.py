"""Rust's bus engines: the fixed point in NumPy, and the estimates that are in the books."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy.special import logsumexp

from rlinf_ppl import behaviour
from rlinf_ppl.inference import exact
from rlinf_ppl.models import UPKEEP, engine_replacement

X = np.arange(90)
COSTS = {
    "linear": (2.3, 2.3 * X / 1e3),
    "quadratic": ([4.8, -2.3], 4.8 * X / 1e3 - 2.3 * X**2 / 1e5),
    "cubic": ([28.8, -51.7, 31.6], 28.8 * X / 1e3 - 51.7 * X**2 / 1e5 + 31.6 * X**3 / 1e7),
    "square_root": (3.2, 3.2 * np.sqrt(X) / 100),
    "hyperbolic": (22.9, 22.9 / (10 * (91 - X))),
}
USAGE = np.array([1682, 2555, 55]) / 4292


def replaced(costs, replacement, usage, discount):
    """P(replace | x) by iterating Rust's expected value until it stays."""
    bins, ahead = len(costs), np.zeros(len(costs))
    wear = np.zeros((bins, bins))
    for x in range(bins):
        np.add.at(wear[x], np.minimum(x + np.arange(len(usage)), bins - 1), usage)
    for _ in range(20_000):
        keep, new = -costs + discount * ahead, -replacement - costs[0] + discount * ahead[0]
        after = wear @ np.logaddexp(keep, new)
        if np.max(np.abs(after - ahead)) < 1e-13 * np.max(np.abs(after)):
            break
        ahead = after
    return 1 / (1 + np.exp(keep - new))


@pytest.mark.parametrize("kind", COSTS)
def test_replacements_are_those_of_the_fixed_point(kind):
    theta, costs = COSTS[kind]
    np.testing.assert_allclose(UPKEEP[kind](theta), costs, rtol=1e-12)
    solution = exact.solve(engine_replacement(UPKEEP[kind](theta), 6.0, USAGE, discount=0.98))
    assert solution.converged
    np.testing.assert_allclose(solution.policy["replaced"][:, 1], replaced(costs, 6.0, USAGE, 0.98), rtol=1e-9)


def test_an_end_and_single_precision():
    costs, discount = 0.3 * np.arange(12.0), 0.9
    with jax.enable_x64(False):
        single = exact.solve(engine_replacement(costs, 2.0, USAGE, discount)).policy["replaced"][:, 1]
    np.testing.assert_allclose(single, replaced(costs, 2.0, USAGE, discount), rtol=2e-5)
    policy = exact.solve(engine_replacement(costs, 2.0, USAGE, discount, horizon=3)).policy["replaced"]
    value = np.zeros(12)
    for t in reversed(range(3)):
        ahead = np.array([USAGE @ value[np.minimum(x + np.arange(3), 11)] for x in range(12)])
        q = np.stack([-costs + discount * ahead, np.full(12, -2.0 - costs[0] + discount * ahead[0])], 1) + np.log(0.5)
        value = logsumexp(q, axis=1)
        np.testing.assert_allclose(policy[t], np.exp(q - value[:, None]), rtol=1e-10)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: UPKEEP["quadratic"](1.0), r"theta has shape \(\); this cost has 2 parameters"),
        (lambda: UPKEEP["linear"]([1.0, 2.0]), r"theta has shape \(2,\); this cost has 1 parameter\."),
        (lambda: engine_replacement(1.0, 2.0, USAGE), r"one number for each bin of mileage; got shape \(\)"),
        (lambda: engine_replacement(X, 2.0, [[0.5, 0.5]]), r"one probability for each increase; got shape \(1, 2\)"),
        (lambda: engine_replacement(X, 2.0, [0.5, 0.4]), "usage must hold distributions|sum"),
        (lambda: engine_replacement(X, np.nan, USAGE), "replacement"),
        (lambda: engine_replacement(np.append(X, np.inf), 1.0, USAGE), "upkeep|finite"),
    ],
)
def test_wrong_numbers_are_named(call, message, monkeypatch):
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        exact.solve(call())


# ---- group 4 ---------------------------------------------------------------------------------------------------------
BUSES = Path(__file__).parents[2] / "shared" / "data" / "rust_1987_group4.csv"
needs_buses = pytest.mark.skipif(
    not BUSES.exists(), reason="Rust's buses are not beside this checkout (../shared/data)"
)
COLUMNS = {"state": {"mileage": "state"}, "decision": {"replaced": "decision"}}


def months():
    """The sample of the likelihood: all months but the first of each bus."""
    return pd.read_csv(BUSES).query("period > 0")


def made(kind, discount=0.9999, usage=USAGE):
    return lambda p: engine_replacement(UPKEEP[kind](p["theta"]), p["RC"], usage, discount)


@pytest.mark.slow
@needs_buses
@pytest.mark.parametrize(
    "kind, discount, total",
    [
        ("linear", 0.9999, -163.5843),
        ("quadratic", 0.9999, -163.4023),
        ("cubic", 0.9999, -162.988),
        ("square_root", 0.9999, -163.3900),
        ("hyperbolic", 0.9999, -165.1143),
        ("linear", 0.0, -165.4585),
    ],
)
def test_the_estimates_of_table_nine_and_of_other_costs(kind, discount, total):
    """Log likelihoods of decisions with the usage known; estimates, standard errors and demand where they are known."""
    start = np.full(np.shape(COSTS[kind][0]), 2.0)
    fit = behaviour.maximum_likelihood(
        months(), program=made(kind, discount), start={"RC": 8.0, "theta": start}, id="bus_id", time="period", **COLUMNS
    )
    assert fit.converged and fit.log_likelihood == pytest.approx(total, abs=1e-3)
    if kind != "linear":
        return
    table = fit.table("bhhh")
    wanted = (10.07494, 2.29309, 1.582, 0.639) if discount else (7.6358, 71.5133, 0.7197, 13.778)
    tolerance = (2e-4, 2e-4, 1e-3, 1e-3) if discount else (2e-4, 2e-3, 1e-3, 1e-3)
    found = (*table["estimate"], *table["standard error"])
    assert np.all(np.abs(np.array(found) - wanted) <= tolerance)
    if discount:
        demanded = fit.counterfactual(lambda p: made(kind)(p | {"RC": 4.0}), demand)
        assert demanded.loc[0, "estimate"] == pytest.approx(15.975931, abs=1e-3)


def demand(program, months=12, buses=37):
    """Engines that are replaced in the long run: occupancies come to it as the discount comes to 1."""
    upkeep, replacement, usage = program.args
    forever = engine_replacement(upkeep, replacement, usage, discount=1 - 1e-6)
    return months * buses * exact.marginals(forever, exact.solve(program).policy).decision["replaced"][:, 1].sum()


@pytest.mark.slow
@needs_buses
@pytest.mark.parametrize("discount, total, theta", [(0.9999, -3304.1548, 2.2930), (0.0, -3306.0291, 71.5133)])
def test_transitions_are_estimated_jointly(discount, total, theta):
    """Decisions and usage at once; each month by itself, as the data count the usage of a new engine otherwise."""

    def program(p):
        return made("linear", discount, jnp.stack([p["none"], p["one"], 1 - p["none"] - p["one"]]))(p)

    frame = months()
    fit = behaviour.maximum_likelihood(
        frame.assign(row=np.arange(len(frame))),
        program=program,
        start={"RC": 8.0, "theta": theta, "none": 0.4, "one": 0.59},
        other=["usage"],
        of=["replaced", "usage"],
        id="row",
        **COLUMNS,
    )
    assert fit.converged and fit.log_likelihood == pytest.approx(total, abs=1e-3)
    table = fit.table("bhhh")
    np.testing.assert_allclose(table.loc["none", ["estimate", "standard error"]], [0.39189, 0.00746], atol=5e-5)
    np.testing.assert_allclose(table.loc["one", ["estimate", "standard error"]], [0.59529, 0.00750], atol=5e-5)
    errors = (1.582, 0.639) if discount else (0.7197, 13.779)
    np.testing.assert_allclose(table.loc[["RC", "theta"], "standard error"], errors, atol=1e-3)
