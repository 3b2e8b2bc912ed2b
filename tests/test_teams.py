"""Teams whose members see different things: local optima, restarts, and a rising inverse temperature."""

import jax
import jaxtyping
import numpy as np
import optax
import pytest

from benchmarks.teams import GAMES, HOT, RISING, game, optimum
from rlinf_ppl.inference import execution, svi

KEY = jax.random.key(0)


def test_optima_by_brute_force_are_the_published_ones():
    assert {name: optimum(GAMES[name]) for name in "ABCE"} == {"A": 2.25, "B": 1.0, "C": 2.5, "E": 10.0}


@pytest.fixture(scope="module")
def decoder():
    """100 starts of the Bayesian Action Decoder's game, each with a rising inverse temperature and without."""
    return svi.fit(game(GAMES["E"], HOT), KEY, 60, num_restarts=100, schedule=RISING)


def test_a_rising_inverse_temperature_finds_the_signal_from_almost_every_start(decoder):
    program = game(GAMES["E"], HOT)
    assert decoder.converged and decoder.local
    assert float(execution.expected_return(program, decoder.policy)) == pytest.approx(10.0, abs=0.01)
    rising, plain = np.split(np.asarray(decoder.restarts), 2)
    best = float(decoder.elbo)
    assert (rising > best - 0.01).sum() >= 98
    # Without it about half of them stay at signals worth 9.
    assert 30 <= (plain > best - 0.01).sum() <= 70
    assert (np.asarray(decoder.restarts) <= best + 1e-9).all()


@pytest.mark.slow
def test_one_start_is_fitted_from_twice(decoder):
    fit = svi.fit(game(GAMES["E"], HOT), KEY, 60, schedule=RISING)
    assert fit.restarts.shape == (2,) and float(fit.elbo) == float(fit.restarts.max())
    both = jax.jit(lambda key: svi.fit(game(GAMES["E"], HOT), key, 60, schedule=RISING).elbo)(KEY)
    assert np.isfinite(both)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in GAMES if name != "E"])
def test_games_end_at_their_optima(name):
    program = game(GAMES[name], HOT)
    fit = svi.fit(program, KEY, 200, num_restarts=20, schedule=RISING)
    assert float(execution.expected_return(program, fit.policy)) == pytest.approx(optimum(GAMES[name]), abs=0.02)


@pytest.mark.slow
def test_a_fit_with_a_schedule_goes_on_from_a_file(tmp_path):
    for name in ("A", "E"):
        program = game(GAMES[name], HOT)
        fit = svi.fit(program, KEY, 46, schedule=RISING)
        svi.save(fit, tmp_path / "fit.npz")
        loaded = svi.load(tmp_path / "fit.npz", program, schedule=RISING)
        assert loaded.task.update is fit.task.update
        for other in (loaded, fit.resume(3)):
            np.testing.assert_array_equal(other.restarts, fit.restarts)
        np.testing.assert_array_equal(loaded.resume(40).losses, fit.resume(40).losses)
    with pytest.raises(ValueError, match="the same loss, optimizer and schedule"):
        svi.load(tmp_path / "fit.npz", program, optimizer=optax.adam(0.1))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"schedule": [0.1, -1.0]}, ValueError, "schedule must be a list of factors above 0"),
        ({"schedule": "abc"}, ValueError, "schedule must be a list of factors above 0"),
        ({"schedule": np.ones(5)}, ValueError, "the schedule takes 5 steps, and num_steps is 5"),
        ({"schedule": 0.5}, ValueError, "schedule must be a list of factors above 0"),
        ({"step_size": 0.5}, ValueError, "step_size must be 1"),
    ],
)
def test_what_a_fit_of_a_team_cannot_take_is_named(options, error, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(error, match=message):
        svi.fit(game(GAMES["A"], HOT), KEY, 5, **options)
