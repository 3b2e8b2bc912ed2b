"""What cannot be taken together, and what engines say to decisions that do not see each other."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import numpyro
import pytest
from game_programs import random_game
from numpyro import handlers
from numpyro.distributions import Categorical, Normal

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact
from rlinf_ppl.tasks import gallery

KEY = jax.random.key(0)


def one_step(step, **options):
    def initial():
        return {"s": numpyro.sample("s", Categorical(probs=jnp.asarray([0.4, 0.6])))}

    return ControlProgram(initial, step, 1, **options)


COIN = Categorical(probs=jnp.asarray([0.5, 0.5]))


def sees_nobody(s):
    a = decide("a", COIN)
    optimality(1.0 * a * decide("b", COIN, unseen=("nobody",)))
    return {"s": s}


def copied_prior(s):
    a = decide("a", COIN)
    b = decide("b", Categorical(probs=jnp.asarray([[0.1, 0.9], [0.5, 0.5]])[a]), unseen=("a",))
    optimality(1.0 * a * b)
    return {"s": s}


def named_by_a_string(s):
    a = decide("a", COIN)
    optimality(1.0 * a * decide("b", COIN, unseen="a"))
    return {"s": s}


def too_hot(s):
    a = decide("a", COIN)
    optimality(1.0 * a * decide("b", COIN, jnp.inf, unseen=("a",)))
    return {"s": s}


@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        (sees_nobody, ValueError, r"'b' does not see \['nobody'\]; unseen takes what stands before it, .*'s', 'a'"),
        (copied_prior, ValueError, r"the prior of 'b' depends on \['a'\]"),
        (named_by_a_string, TypeError, 'must be a tuple of names, such as \\("a",\\)'),
    ],
)
def test_what_cannot_be_taken_together_raises(step, error, message):
    with pytest.raises(error, match=message):
        one_step(step)


@pytest.mark.parametrize("unseen", [None, 3, ("a", 3)])
def test_what_is_no_tuple_of_names_is_named(unseen, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(TypeError, match="what is unseen by 'b' must be a tuple of names"):
        one_step(lambda s: {"s": decide("b", COIN, unseen=unseen)})


def test_gaussian_decisions_are_not_taken_together():
    def step(x):
        u = decide("u", Normal(0.0, 1.0))
        v = decide("v", Normal(0.0, 1.0), unseen=("u",))
        optimality(-((x + u + v) ** 2))
        return {"x": numpyro.sample("x_next", Normal(x + u + v, 1.0))}

    program = ControlProgram(lambda: {"x": numpyro.sample("x", Normal(0.0, 1.0))}, step, 2)
    with pytest.raises(ValueError, match=r"'v' does not see \['u'\].*among vectors.*ParticleELBO"):
        exact.solve(program)


def test_an_infinite_inverse_temperature_cannot_be_followed():
    with pytest.raises(ValueError, match="'b' is infinite; it is taken together"):
        exact.solve(one_step(too_hot))
    with pytest.raises(ValueError, match="opponent_beta"):
        models.quantal_response(gallery.matching_pennies(), 1, 1.0, jnp.inf)


def test_a_team_that_moves_at_once_has_a_model_in_numpyro_and_a_guide():
    program = models.quantal_response(gallery.coordination_game(), 2, 3.0, 3.0)
    for function in (program.model, program.guide):
        trace = handlers.trace(handlers.seed(function, KEY)).get_trace()
        assert {"t0/a", "t0/b", "t1/a", "t1/b"} <= set(trace)
    with pytest.raises(ValueError, match="differ"):
        handlers.seed(models.quantal_response(gallery.coordination_game(), 2, 3.0, -3.0).model, KEY)()


def test_there_is_no_posterior_by_decisions():
    program = models.quantal_response(gallery.matching_pennies(), 2, 1.0, 1.0)
    for engine in (exact.condition, exact.posterior_marginals, lambda p: exact.posterior_sample(p, KEY, 3)):
        with pytest.raises(ValueError, match=r"'b' does not see \['a'\].*Leave unseen out"):
            engine(program)


def test_priors_and_their_rows_are_named():
    game = random_game(0).task
    with pytest.raises(ValueError, match=r"opponent_prior has shape \(2, 2\)"):
        models.quantal_response(game, 1, 1.0, 1.0, opponent_prior=np.full((2, 2), 0.5))
    with pytest.raises(ValueError, match=r"prior\[1\]|prior.*state 1"):
        models.quantal_response(game, 1, 1.0, 1.0, prior=[[0.5, 0.5], [0.5, 0.6]])
    with pytest.raises((TypeError, jaxtyping.TypeCheckError)):
        models.quantal_response([[2.0, 3.0], [1.0, 4.0]], 1, 1.0, 1.0)
