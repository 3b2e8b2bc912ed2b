"""Samples of NumPyro's as ArviZ and netCDF have them: one variable a site, time an axis."""

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
import xarray
from jaxtyping import config
from numpyro.distributions import Beta, Categorical, Normal
from numpyro.infer import MCMC, NUTS, Predictive

from rlinf_ppl import ControlProgram, decide, optimality, report
from rlinf_ppl.inference import exact, smc, svi

KEY = jax.random.key(0)
HALVES = Categorical(probs=jnp.full(2, 0.5))


def initial():
    return {"s": numpyro.sample("s", HALVES)}


def step(s):
    a = decide("a", HALVES)
    numpyro.sample("push", Normal(jnp.zeros(3), 1.0).to_event(1))
    optimality(1.0 * (a == s))
    numpyro.sample("y", Normal(1.0 * a, 1.0), obs=0.5)
    return {"s": numpyro.sample("s_next", HALVES)}


def final(s):
    optimality(0.1 * s)


def program(horizon=3, discount=1.0, final=None):
    return ControlProgram(initial, step, horizon, discount, final)


def tables(horizon=3, discount=1.0):
    def plain(s):
        a = decide("a", HALVES)
        optimality(1.0 * (a == s))
        return {"s": numpyro.sample("s_next", HALVES)}

    return ControlProgram(initial, plain, horizon, discount)


def posterior_of(data):
    return data.posterior.to_dataset() if isinstance(data, xarray.DataTree) else data.posterior


def test_each_site_is_a_variable_over_time():
    drawn = Predictive(program().model, num_samples=7)(KEY)
    found = posterior_of(report.to_arviz(program(), samples=drawn))
    assert found["a"].dims == ("chain", "draw", "time") and found["a"].shape == (1, 7, 3)
    assert found["push"].dims == ("chain", "draw", "time", "push_dim_0") and found["s"].dims == ("chain", "draw")
    for t in range(3):
        np.testing.assert_array_equal(found["a"].sel(time=t)[0], drawn[f"t{t}/a"])
        np.testing.assert_array_equal(found["push"].sel(time=t)[0], drawn[f"t{t}/push"])
    np.testing.assert_array_equal(found["s"][0], drawn["init/s"])
    assert not any("/" in str(name) for name in found)


@pytest.mark.parametrize("ends", [False, True])
def test_whether_it_is_alive_has_the_start_and_perhaps_the_end(ends):
    made = program(discount=0.5, final=final if ends else None)
    drawn = Predictive(made.model, num_samples=50)(KEY)
    found = posterior_of(report.to_arviz(made, samples=drawn))["alive"]
    assert found.dims[2] == ("instant" if ends else "time") and found.shape[2] == 3 + ends
    assert (found[..., 0] == 1).all()
    np.testing.assert_array_equal(found[0, :, 2], drawn["t2/alive"])
    if ends:
        np.testing.assert_array_equal(found[0, :, 3], drawn["final/alive"])


def test_files_keep_what_was_drawn(tmp_path):
    data = report.to_arviz(program(), samples=Predictive(program().model, num_samples=5)(KEY))
    data.to_netcdf(tmp_path / "samples.nc")
    with xarray.open_dataset(tmp_path / "samples.nc", group="posterior", engine="h5netcdf") as again:
        assert set(again) == {"a", "push", "s", "s_next", "y"}
        np.testing.assert_array_equal(again["push"], posterior_of(data)["push"])


@pytest.mark.slow
def test_chains_of_mcmc_and_parameters_beside_the_program():
    """NUTS on a program of real numbers, inside a model of the user's that has a parameter besides."""

    def steer(x):
        u = decide("u", Normal(0.0, 1.0))
        optimality(-((x + u) ** 2))
        return {"x": numpyro.sample("x_next", Normal(x + u, 0.1))}

    made = ControlProgram(lambda: {"x": numpyro.sample("x", Normal(1.0, 0.1))}, steer, 2)

    def model():
        numpyro.sample("group/p", Beta(2.0, 2.0))
        made.model()

    mcmc = MCMC(
        NUTS(model), num_warmup=200, num_samples=300, num_chains=2, progress_bar=False, chain_method="vectorized"
    )
    mcmc.run(KEY)
    found = posterior_of(report.to_arviz(made, samples=mcmc))
    assert found["u"].dims == ("chain", "draw", "time") and found["u"].shape == (2, 300, 2)
    assert found["group.p"].shape == found["x"].shape == (2, 300)
    flat = posterior_of(report.to_arviz(made, samples=mcmc.get_samples()))
    np.testing.assert_array_equal(flat["u"][0, 300:, 1], found["u"][1, :, 1])
    expected = exact.posterior_marginals(made).state.mean
    assert abs(float(found["x_next"][..., 0].mean()) - float(expected[1, 0])) < 0.1


def test_trajectories_of_the_engines_are_samples_too():
    made = tables(100)
    drawn = exact.sample(made, KEY, exact.prior_policy(made), 30)
    found = posterior_of(report.to_arviz(made, samples=drawn))
    assert found["a"].sizes["time"] == 100 and found["s"].dims[2] == "instant"
    run = smc.run(made, KEY, 20)
    assert posterior_of(report.to_arviz(made, samples=run.trajectories))["a"].shape == (1, 20, 100)


def test_a_fits_guide_and_arvizs_own_summary():
    fit = svi.fit(tables(), KEY)
    drawn = Predictive(tables().guide, params=fit.params, num_samples=400)(KEY)
    data = report.to_arviz(tables(), samples=drawn, group="posterior")
    table = arviz.summary(data, var_names=["a"])
    assert len(table) == 3 and abs(float(table["mean"].iloc[0]) - 0.5) < 0.2


def test_what_is_noted_in_a_step_is_a_variable_too():
    def noting(s):
        a = decide("a/b", HALVES)
        numpyro.deterministic("double", 2 * a)
        optimality(1.0 * a)
        return {"s": a}

    made = ControlProgram(initial, noting, 2)
    drawn = Predictive(made.model, num_samples=4)(KEY)
    found = posterior_of(report.to_arviz(made, samples=drawn))
    np.testing.assert_array_equal(found["double"], 2 * found["a.b"])


def timely():
    def step(s):
        return {"s": decide("time", HALVES)}

    return ControlProgram(initial, step, 2)


def chained():
    drawn = Predictive(program().model, num_samples=6)(KEY)
    return {name: np.reshape(x, (2, 3, *x.shape[1:])) for name, x in drawn.items() if x.size}


WRONG = {
    "no dict": (lambda: report.to_arviz(program(), samples=[1.0]), TypeError, "samples must be a dict.*got list"),
    "the name of an axis": (
        lambda: report.to_arviz(timely(), samples=Predictive(timely().model, num_samples=2)(KEY)),
        ValueError,
        r"the sites \['time'\] have the name of an axis",
    ),
    "by chain": (
        lambda: report.to_arviz(program(), samples=chained()),
        ValueError,
        "Samples by chain come as the MCMC",
    ),
    "not run": (
        lambda: report.to_arviz(program(), samples=MCMC(NUTS(program().model), num_warmup=1, num_samples=1)),
        ValueError,
        "has not run",
    ),
    "nothing": (lambda: report.to_arviz(program(), samples={}), ValueError, "samples are empty"),
    "unequal": (
        lambda: report.to_arviz(program(), samples={"a": np.zeros((5, 3)), "s": np.zeros((4, 4))}),
        ValueError,
        "different numbers of draws",
    ),
    "no program": (lambda: report.to_arviz(3, samples={"a": np.zeros((5, 3))}), TypeError, "ControlProgram"),
    "no group": (lambda: report.to_arviz(program(), samples=chained(), group=None), TypeError, "group must be a name"),
    "numbers": (lambda: report.to_arviz(program(), samples={"a": 1.0}), ValueError, "every array leads with its draws"),
    "another horizon": (
        lambda: report.to_arviz(program(2), samples=Predictive(program().model, num_samples=2)(KEY)),
        ValueError,
        r"at the times \[0, 1, 2\]; this program has the times 0..1",
    ),
    "another program": (
        lambda: report.to_arviz(tables(), samples={"t0/a": np.zeros(4), "t1/push": np.zeros(4)}),
        ValueError,
        r"the sites \['push'\] of a step; those of this program are",
    ),
    "no end": (
        lambda: report.to_arviz(tables(None, 0.5), samples={"t0/a": np.zeros(3)}),
        ValueError,
        r"use program.unroll\(T\)",
    ),
    "other trajectories": (
        lambda: report.to_arviz(tables(), samples={"a": np.zeros((5, 7))}),
        ValueError,
        r"samples\['a'\] has shape \(5, 7\); it must be \(N, 3, ...\)",
    ),
    "unknown trajectories": (
        lambda: report.to_arviz(tables(), samples={"b": np.zeros((5, 3))}),
        ValueError,
        r"hold \['b'\]",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_are_no_samples_is_refused(name, monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)
    make, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        make()
