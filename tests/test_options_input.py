"""Mistakes in a model with options: each is named where it is made, with what was found and what to do."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from option_programs import delayed_task, soft_task

from rlinf_ppl import models
from rlinf_ppl.inference import exact
from rlinf_ppl.tasks import MDP, StochasticGame

SOFT, DELAYED = soft_task(0), delayed_task(0, sizes=(2, 2, 3, 2, 2))
MDP_TASK = MDP(SOFT["transition"], SOFT["reward"], SOFT["initial"])
GAME = StochasticGame(DELAYED["transition"], DELAYED["reward"], DELAYED["initial"])


def soft(task=MDP_TASK, horizon=3, num_options=3, **options):
    return models.soft_options(task, horizon, num_options, **options)


def delayed(task=GAME, horizon=3, num_options=2, num_opponent_options=3, **options):
    return models.delayed_options(task, horizon, num_options, num_opponent_options=num_opponent_options, **options)


def changed(array, at, value):
    """A copy with other entries at an index."""
    copy = np.array(array)
    copy[at] = value
    return copy


NEVER = [1.0, 0.0]
STUCK = changed(SOFT["termination_prior"], np.s_[:, 1], NEVER)
STUCK_AGENT = changed(DELAYED["termination_prior"], np.s_[:, 1], NEVER)
STUCK_OPPONENT = changed(DELAYED["opponent_termination_prior"], np.s_[:, 2], NEVER)

TYPES = {
    "a game for a process": (lambda: soft(GAME), r"mdp must be .* MDP; got StochasticGame"),
    "a process for a game": (lambda: delayed(MDP_TASK), r"game must be .* StochasticGame; got MDP"),
    "half an option": (lambda: soft(num_options=1.5), r"num_options must be a whole number; got 1\.5"),
}

MISTAKES = {
    "no option": (lambda: soft(num_options=0), r"num_options is 0: give the number of options, at least 1"),
    "no opponent's option": (lambda: delayed(num_opponent_options=0), r"num_opponent_options is 0"),
    "actions of another number": (
        lambda: soft(action_prior=np.full((2, 3, 4), 0.25)),
        r"action_prior has shape \(2, 3, 4\).*must be \(2, 3, 2\) or \(3, 2, 3, 2\)",
    ),
    "a master that sees the option": (
        lambda: soft(option_prior=np.full((2, 3, 3), 1 / 3)),
        r"option_prior has shape \(2, 3, 3\).*must be \(2, 3\)",
    ),
    "one number for termination": (
        lambda: soft(termination_prior=0.1),
        r"termination_prior has shape \(\).*must be \(2, 3, 2\)",
    ),
    "an option by its number": (lambda: soft(initial_option=1), r"initial_option has shape \(\).*\(3,\)"),
    "a first option that sums to more": (
        lambda: soft(initial_option=[0.5, 0.5, 0.5]),
        r"initial_option sums to 1\.5, 0\.5 too much",
    ),
    "a row of the master": (
        lambda: soft(option_prior=changed(SOFT["option_prior"], 1, [0.5, 0.2, 0.2])),
        r"option_prior\[1\] sums to 0\.9, 0\.1 too little: each row option_prior\[state\]",
    ),
    "a negative probability": (
        lambda: soft(action_prior=changed(SOFT["action_prior"], (1, 2), [-0.5, 1.5])),
        r"action_prior\[1, 2, 0\] is -0\.5",
    ),
    "a prior over other times": (
        lambda: soft(action_prior=np.full((4, 2, 3, 2), 0.5)),
        r"action_prior has shape \(4, 2, 3, 2\)",
    ),
    "a prior over times without end": (
        lambda: soft(horizon=None, discount=0.9, action_prior=np.full((4, 2, 3, 2), 0.5)),
        r"action_prior has shape \(4, 2, 3, 2\)",
    ),
    "a game over other times": (
        lambda: delayed(StochasticGame(DELAYED["transition"], np.zeros((4, 2, 2, 2)), DELAYED["initial"])),
        r"reward has 4 time steps, but horizon is 3",
    ),
    "an infinite beta": (lambda: soft(beta=np.inf), r"beta is inf"),
    "the opponent's actions in another order": (
        lambda: delayed(opponent_action_prior=DELAYED["opponent_action_prior"].swapaxes(1, 3)),
        r"opponent_action_prior has shape \(2, 3, 2, 2, 2\).*must be \(2, 2, 2, 3, 2\)",
    ),
    "a row of the opponent's termination": (
        lambda: delayed(
            opponent_termination_prior=changed(DELAYED["opponent_termination_prior"], (1, 2, 0, 1), [0.5, 0.6])
        ),
        r"opponent_termination_prior\[1, 2, 0, 1\] sums to 1\.1",
    ),
    "first options one by one": (
        lambda: delayed(initial_options=[0.5, 0.5]),
        r"initial_options has shape \(2,\).*must be \(2, 3\)",
    ),
    "first options in rows": (
        lambda: delayed(initial_options=np.full((2, 3), 1 / 3)),
        r"initial_options sums to 2, 1 too much",
    ),
    "an option for ever": (
        lambda: soft(termination_prior=STUCK),
        r"termination_prior\[:, 1, 1\] is 0 throughout: once option 1 is in use, no policy can ever terminate it.*"
        r"above 0",
    ),
    "every option for ever": (
        lambda: soft(termination_prior=np.tile(NEVER, (2, 3, 1))),
        r"termination_prior\[:, 0, 1\] is 0 throughout",
    ),
    "an option at all times": (
        lambda: soft(termination_prior=np.stack([STUCK] * 3)),
        r"termination_prior\[:, :, 1, 1\] is 0 throughout: once option 1",
    ),
    "an agent's option for ever": (
        lambda: delayed(termination_prior=STUCK_AGENT),
        r"^termination_prior\[:, 1, :, 1\] is 0 throughout: once option 1",
    ),
    "an opponent's option for ever": (
        lambda: delayed(opponent_termination_prior=STUCK_OPPONENT),
        r"opponent_termination_prior\[:, 2, :, :, 1\] is 0 throughout: once option 2 .* the other 2 are",
    ),
}


@pytest.mark.parametrize("name", TYPES)
def test_an_argument_of_another_type_is_named(name, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    make, message = TYPES[name]
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(name):
    make, message = MISTAKES[name]
    with pytest.raises(ValueError, match=message):
        make()


def test_an_option_may_be_kept_for_ever_at_some_times_or_in_some_states():
    at_first = np.stack([STUCK, SOFT["termination_prior"], SOFT["termination_prior"]])
    in_one_state = changed(SOFT["termination_prior"], (0, 1), NEVER)
    for prior in (at_first, in_one_state):
        assert exact.solve(soft(termination_prior=prior)).converged


def test_traced_priors_are_not_looked_at():
    def value(terminate):
        prior = jnp.stack([1 - terminate, terminate], -1)
        return exact.solve(soft(termination_prior=jnp.broadcast_to(prior, (2, 3, 2)))).elbo

    elbo, slope = jax.value_and_grad(value)(jnp.asarray(0.0))
    assert jnp.isfinite(elbo) and jnp.isfinite(slope)
