"""Groups of learners: hierarchies, what is left out, and panels that are drawn anew, against quadrature in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pandas as pd
import pytest
from numpyro.distributions import LogNormal, Normal
from numpyro.infer.util import log_density
from oracles import learners
from scipy.special import logsumexp
from scipy.stats import norm

from rlinf_ppl import behaviour, models

xr = pytest.importorskip("xarray")
arviz_stats = pytest.importorskip("arviz_stats", reason="the older ArviZ has no loo for draws of a fit")

N, T, RATE = 8, 25, 0.4
LAWS = np.array([[0.3, 0.7], [0.6, 0.4]])
COLUMNS = {"decision": "choice", "other": ["outcome"], "id": "subject", "time": "trial"}
PRIOR = norm(1.0, 0.7)
# Quadrature over log beta, for which priors and posteriors are normal or nearly so.
GRID = np.linspace(-3.0, 5.0, 401)


def program(p):
    return models.delta_rule(RATE, p["beta"], T, probabilities=LAWS)


def played(beta, rng):
    """Choices and outcomes of one subject, in NumPy."""
    value, seen = np.zeros(2), []
    for _ in range(T):
        choice = int(rng.random() < 1 / (1 + np.exp(beta * (value[0] - value[1]))))
        outcome = int(rng.random() < LAWS[choice, 1])
        value[choice] += RATE * (outcome - value[choice])
        seen.append((choice, outcome))
    return np.array(seen)


@pytest.fixture(scope="module")
def played_by_all():
    """Sequences (N, T, 2), the same as a frame, and by subject the log likelihood over the grid (N, grid)."""
    rng = np.random.default_rng(4)
    seen = np.stack([played(beta, rng) for beta in np.exp(1.0 + 0.5 * rng.normal(size=N))])
    names = {"subject": np.repeat(np.arange(N), T), "trial": np.tile(np.arange(T), N)}
    frame = pd.DataFrame(names | {"choice": seen[:, :, 0].ravel(), "outcome": seen[:, :, 1].ravel()})
    likelihood = [
        [learners.delta_rule(RATE, np.exp(x), one[:, 0], one[:, 1], np.zeros(2))[0].sum() for x in GRID] for one in seen
    ]
    return seen, frame, np.array(likelihood)


@pytest.fixture(scope="module")
def left_out(played_by_all):
    """Log predictive density of each subject given all others, where all have one beta: exactly."""
    likelihood = played_by_all[2]
    prior, whole = PRIOR.logpdf(GRID), likelihood.sum(0)
    return np.array([logsumexp(prior + whole) - logsumexp(prior + whole - one) for one in likelihood])


@pytest.fixture(scope="module")
def posterior(played_by_all):
    return behaviour.sample(
        played_by_all[1],
        program=program,
        priors={"beta": LogNormal(1.0, 0.7)},
        key=jax.random.key(1),
        num_warmup=150,
        num_samples=1500,
        num_chains=2,
        **COLUMNS,
    )


def test_leaving_subjects_out_is_that_of_quadrature(posterior, left_out):
    found = arviz_stats.loo(posterior.to_arviz(), pointwise=True)
    assert float(found.pareto_k.max()) < 0.5
    np.testing.assert_allclose(found.elpd_i, left_out, atol=0.03)
    assert found.elpd == pytest.approx(left_out.sum(), abs=0.1)


def test_leaving_subjects_out_of_a_fit_is_corrected(played_by_all, left_out):
    """Draws of a normal law that is too wide and off its place, weighed by both densities; without, it is off."""
    seen, _, likelihood = played_by_all
    weight = np.exp(PRIOR.logpdf(GRID) + likelihood.sum(0) - logsumexp(PRIOR.logpdf(GRID) + likelihood.sum(0)))
    middle = weight @ GRID
    spread = np.sqrt(weight @ (GRID - middle) ** 2)
    fit = Normal(middle + 0.7 * spread, 1.5 * spread)
    data = {"choice": jnp.asarray(seen[:, :, 0]), "outcome": jnp.asarray(seen[:, :, 1])}

    def model(data):
        x = numpyro.sample("x", Normal(1.0, 0.7))
        behaviour.site("choices", program({"beta": jnp.exp(x)}), data)

    def densities(x):
        given = numpyro.handlers.substitute(numpyro.handlers.seed(model, 0), {"x": x})
        site = numpyro.handlers.trace(given).get_trace(data)["choices"]
        return log_density(model, (data,), {}, {"x": x})[0], site["fn"].log_prob(site["value"])

    x = fit.sample(jax.random.key(2), (4000,))
    log_p, each = jax.lax.map(densities, x)
    np.testing.assert_allclose(each[:3], [[np.interp(y, GRID, one) for one in likelihood] for y in x[:3]], rtol=1e-4)
    tree = xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset({"x": (("chain", "draw"), np.asarray(x)[None])}),
            "log_likelihood": xr.Dataset({"choices": (("chain", "draw", "subject"), np.asarray(each)[None])}),
        }
    )
    found = arviz_stats.loo_approximate_posterior(tree, np.asarray(log_p), np.asarray(fit.log_prob(x)), pointwise=True)
    np.testing.assert_allclose(found.elpd_i, left_out, atol=0.03)
    with pytest.warns(UserWarning, match="Pareto"):
        uncorrected = arviz_stats.loo(tree)
    assert abs(uncorrected.elpd - left_out.sum()) > 5 * abs(found.elpd - left_out.sum())


def test_a_hierarchy_is_that_of_quadrature(played_by_all):
    """Betas of their own about a common one: posterior moments over (mu, sigma), each subject integrated out."""
    _, frame, likelihood = played_by_all
    found = behaviour.sample(
        frame,
        program=program,
        priors={"beta": LogNormal(1.0, 0.7)},
        by_id=["beta"],
        key=jax.random.key(3),
        num_warmup=300,
        num_samples=600,
        num_chains=2,
        **COLUMNS,
    )
    mu, sigma = np.linspace(-1.5, 3.5, 81)[:, None], np.linspace(0.0, 4.0, 82)[1:]
    z, weights = np.polynomial.hermite_e.hermegauss(41)
    x = np.clip(mu[..., None] + sigma[:, None] * z, GRID[0], GRID[-1])  # (mu, sigma, nodes)
    each = np.stack([np.interp(x, GRID, one) for one in likelihood])
    shared = np.log(weights / weights.sum())
    marginal = logsumexp(each + shared, axis=-1)  # (subjects, mu, sigma)
    joint = marginal.sum(0) + PRIOR.logpdf(mu) - sigma**2 / 2
    p = np.exp(joint - logsumexp(joint))
    own = np.exp(each + shared - marginal[..., None]) @ np.ones(len(z))
    np.testing.assert_allclose(own, 1.0, rtol=1e-8)
    means = (np.exp(each + shared - marginal[..., None]) * x).sum(-1)
    wanted = {"mu": (p * mu).sum(), "sigma": (p * sigma).sum()}
    draws = {"mu": np.log(found.samples["beta"]), "sigma": found.samples["beta_spread"]}
    for name, array in draws.items():
        assert_mean(array, wanted[name])
    for i in range(N):
        assert_mean(np.log(found.samples["beta_each"][..., i]), (p * means[i]).sum())
    assert found.divergences < 10


def assert_mean(draws, wanted):
    """Within five standard errors of (chains, draws)."""
    error = draws.std() / np.sqrt(numpyro.diagnostics.effective_sample_size(draws))
    assert abs(draws.mean() - wanted) < 5 * error
    assert error < 0.1


def test_panels_that_are_drawn_anew_repeat_choices_as_the_posterior_does(posterior, played_by_all):
    """How often a choice is repeated after an outcome of 0, over the posterior: by the library, and by a loop."""

    def stays(panel):
        before = panel.groupby("subject")[["choice", "outcome"]].shift()
        return (panel["choice"] == before["choice"])[before["outcome"] == 0].mean()

    found = np.array([stays(posterior.simulate(key)) for key in jax.random.split(jax.random.key(4), 40)])
    likelihood, rng = played_by_all[2], np.random.default_rng(5)
    weight = np.exp(PRIOR.logpdf(GRID) + likelihood.sum(0) - logsumexp(PRIOR.logpdf(GRID) + likelihood.sum(0)))
    other = []
    for x in rng.choice(GRID, 200, p=weight):
        panel = np.stack([played(np.exp(x), rng) for _ in range(N)])
        again, lost = panel[:, 1:, 0] == panel[:, :-1, 0], panel[:, :-1, 1] == 0
        other.append(again[lost].mean())
    error = np.hypot(found.std(ddof=1) / np.sqrt(len(found)), np.std(other, ddof=1) / np.sqrt(len(other)))
    assert abs(found.mean() - np.mean(other)) < 5 * error
