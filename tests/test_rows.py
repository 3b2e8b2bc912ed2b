"""Rows that do not quite sum to one: rescaled where they are known, refused beyond one tolerance, alike everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.distributions import Categorical

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact, smc
from rlinf_ppl.tasks import MDP, StochasticGame

OFF = [9e-6, 1e-6, -9e-6]


def written(row, horizon, discount=1.0):
    """A step with the same row as first state, prior and next state; rewards depend on the state."""

    def step(s):
        decide("a", Categorical(probs=jnp.asarray(row)))
        optimality(1.0 + 0.0 * s)
        return {"s": numpyro.sample("n", Categorical(probs=jnp.asarray(row)))}

    def initial():
        return {"s": numpyro.sample("first", Categorical(probs=jnp.asarray(row)))}

    return ControlProgram(initial, step, horizon, discount=discount)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("off", OFF)
def test_what_is_off_by_little_is_divided_out(off, double):
    with jax.enable_x64(double):
        row = np.array([0.25, 0.75 - off])
        task = MDP(np.broadcast_to(row, (2, 1, 2)), np.ones((2, 1)), row)
        exactly = 1e-12 if double else 1e-4
        for made in (lambda *how: models.single_agent(task, *how), lambda *how: written(row, *how)):
            np.testing.assert_allclose(exact.solve(made(2000)).elbo, 2000.0, rtol=exactly)
            np.testing.assert_allclose(smc.run(made(200), jax.random.key(0), 5).log_evidence, 200.0, rtol=exactly)
        endless = models.single_agent(task, None, discount=0.999)
        np.testing.assert_allclose(exact.solve(endless).elbo, 1000.0, rtol=exactly)
        np.testing.assert_allclose(exact.solve(written(row, None, 0.999)).elbo, 1000.0, rtol=exactly)


def test_tasks_hold_rows_that_sum_to_one():
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(5), (5, 2)) * (1 + rng.uniform(-9e-6, 9e-6, (5, 2, 1)))
    task = MDP(rows, np.zeros((5, 2)), rows[0, 0])
    np.testing.assert_allclose(np.sum(task.transition, -1), 1.0, atol=1e-15)
    np.testing.assert_allclose(np.sum(task.initial), 1.0, atol=1e-15)
    successors = np.tile(np.arange(3), (5, 1))
    lists = MDP.sparse(
        successors, rows[..., :3] / rows[..., :3].sum(-1, keepdims=True) * 0.999995, np.zeros((5, 2)), rows[0, 0]
    )
    np.testing.assert_allclose(np.sum(lists.probabilities, -1), 1.0, atol=1e-15)
    game = StochasticGame(rows[:, :, None], np.zeros((5, 2, 1)), rows[0, 0])
    np.testing.assert_allclose(np.sum(game.transition, -1), 1.0, atol=1e-15)
    prior = np.array([0.3, 0.7 - 5e-6])
    held = models.single_agent(task, 2, prior=np.tile(prior, (5, 1)))
    np.testing.assert_allclose(exact.prior_policy(held)["a"].sum(-1), 1.0, atol=1e-15)
    # Rows that are right stay what they are, to the last bit.
    exactly = rng.dirichlet(np.ones(3), (3, 2)).round(3)
    exactly[..., -1] = 1 - exactly[..., :-1].sum(-1)
    np.testing.assert_array_equal(MDP(exactly, np.zeros((3, 2)), exactly[0, 0]).transition, exactly)


def test_what_is_off_by_more_is_refused():
    row = np.array([0.25, 0.75 - 1.2e-5])
    with pytest.raises(ValueError, match=r"transition\[0, 0\] sums to 0.999988, 1.2e-05 too little"):
        MDP(np.broadcast_to(row, (2, 1, 2)), np.ones((2, 1)), [0.5, 0.5])
    with pytest.raises(ValueError, match="the distribution of 'first' sums to 0.999988"):
        exact.solve(written(row, 2))
    with pytest.raises(FloatingPointError, match="'first' in initial"):
        smc.run(written(row, 2), jax.random.key(0), 5)
    right = written([0.25, 0.75], 2)
    for answer in (exact.evaluate, lambda made, policy: smc.run(made, jax.random.key(0), 5, proposal=policy)):
        with pytest.raises(ValueError, match="sum to 1|with sum 1"):
            answer(right, {"a": np.tile(row, (2, 1))})


def test_rows_of_policies_and_of_data_are_rescaled_or_refused_alike():
    made, short = written([0.5, 0.5], 2), np.array([0.5, 0.5 - 5e-6])
    right = exact.elbo(made, {"a": np.tile(short / short.sum(), (2, 1))})
    assert float(exact.elbo(made, {"a": np.tile(short, (2, 1))})) == pytest.approx(float(right), abs=1e-14)

    def observed(row, law=lambda row: Categorical(probs=row)):
        def step(s):
            numpyro.sample("y", law(jnp.asarray(row)), obs=1)
            return {"s": s}

        return ControlProgram(lambda: {"s": 0}, step, 1, sizes={"s": 1})

    for engine in (exact.condition, lambda made: smc.run(made, jax.random.key(0), 5)):
        assert float(engine(observed(short)).log_evidence) == pytest.approx(np.log(short[1] / short.sum()), abs=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("law", "y"),
    [
        (lambda: Categorical(probs=jnp.asarray([[-0.5, 1.5]])[jnp.asarray(0)]), 1),
        (lambda: Categorical(probs=jnp.asarray([[0.6, 0.9]])[jnp.asarray(0)]), 1),
        (lambda: numpyro.distributions.Bernoulli(probs=jnp.asarray(1.5)), 1),
        (lambda: numpyro.distributions.Beta(jnp.asarray(-1.5) + 0 * jnp.asarray(1.0), 1.0), 0.3),
        (lambda: numpyro.distributions.Binomial(3, jnp.asarray(1.5) + 0 * jnp.asarray(1.0)), 1),
    ],
)
def test_data_of_a_law_whose_parameters_are_none_are_refused(law, y):
    def step(s, x):
        # Traced, as parameters are that depend on anything.
        numpyro.sample("y", jax.tree.map(lambda leaf: leaf + 0 * s, law()), obs=y)
        return {"s": s, "x": x}

    made = ControlProgram(lambda: {"s": 0, "x": 0}, step, 1, sizes={"s": 1, "x": 1})
    with pytest.raises(ValueError, match="log probability of the data 'y' is no number.*break its constraints"):
        exact.condition(made)
    with pytest.raises(FloatingPointError, match="'y' at t = 0 is no number"):
        smc.run(made, jax.random.key(0), 5)
