"""A program of vectors is what it was when it was made, and its priors may vary in time."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from linear_problems import SINGLE_FIRST
from numpyro.distributions import Normal
from selection import quick

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact, smc, svi
from rlinf_ppl.tasks import gallery


def costly(costs):
    """One program for each cost; the functions of all of them see the last."""
    programs = []
    for cost in costs:

        def initial():
            return {"x": numpyro.sample("x_0", Normal(0.0, 1.0))}

        def step(x):
            u = decide("u", Normal(0.0, 1e5))
            optimality(-cost * (x - u) ** 2)  # noqa: B023
            return {"x": x + u}

        programs.append(ControlProgram(initial, step, 3))
    return programs


@SINGLE_FIRST
def test_a_loop_does_not_change_the_programs_it_made(double):
    with jax.enable_x64(double):
        alone, first = exact.solve(costly([1.0])[0]), exact.solve(costly([1.0, 100.0])[0])
        assert float(first.elbo) == pytest.approx(float(alone.elbo), rel=1e-3)


def test_an_attribute_and_an_array_may_change_after_the_program_was_made():
    class Dynamics:
        gain = 1.5

    entries = np.array([1.0])

    def initial():
        return {"x": numpyro.sample("x_0", Normal(1.0, 1.0))}

    def step(x):
        u = decide("u", Normal(0.0, 1.0))
        optimality(-entries[0] * (x - u) ** 2)
        return {"x": Dynamics.gain * x + u}

    def answers(program):
        prior = exact.prior_policy(program)
        return exact.marginals(program, prior).state.mean[:, 0], exact.kl(program, prior, exact.solve(program).policy)

    with jax.enable_x64(False):
        program = ControlProgram(initial, step, 3)
        before = answers(program)
        Dynamics.gain, entries[0] = -7.0, 5.0
        after = answers(program)
    np.testing.assert_allclose(before[0], 1.5 ** np.arange(4), rtol=1e-5)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)


@SINGLE_FIRST
@pytest.mark.parametrize("task", ["numbers", "tables"])
def test_a_program_keeps_the_precision_it_was_made_in(task, double):
    with jax.enable_x64(double):
        program = costly([1.0])[0] if task == "numbers" else models.single_agent(gallery.lottery(), 2)
    key = jax.random.key(0)
    calls = {
        "solve": lambda: exact.solve(program),
        "condition": lambda: exact.condition(program),
        "smc": lambda: smc.run(program, key, 5),
        "fit": lambda: svi.fit(program, key, 1),
        "model": lambda: numpyro.handlers.seed(program.model, key)(),
    }
    kinds = (r"float64.*float32", r"float32.*float64")
    with jax.enable_x64(not double):
        for call in calls.values():
            with pytest.raises(
                ValueError, match=rf"made while JAX counted in {kinds[not double]}.*Make the program again"
            ):
                call()


def log_evidence(means, gains, deviations):
    """By the joint quadratic form of the first state, 1 + e_0, and the noise e_t of each prior."""
    steps = len(means)
    x, form = np.zeros(steps + 2), np.zeros((steps + 2, steps + 2))
    x[[0, -1]] = 1.0
    for t in range(steps):
        u = gains[t] * x
        u[-1] += means[t]
        u[1 + t] += deviations[t]
        form += np.outer(x + u, x + u) + np.outer(u, u)
        x = x + u
    precision, slope = np.eye(steps + 1) + 2 * form[:-1, :-1], -2 * form[:-1, -1]
    return (slope @ np.linalg.solve(precision, slope) - np.linalg.slogdet(precision)[1]) / 2 - form[-1, -1]


@SINGLE_FIRST
@pytest.mark.parametrize("steps", quick([3], [1, 2, 3]))
@pytest.mark.parametrize("varying", ["mean", "gain", "deviation"])
def test_a_prior_varies_in_time(varying, steps, double):
    numbers = {"mean": np.zeros(3), "gain": np.zeros(3), "deviation": np.ones(3)}
    numbers[varying] = np.array([0.5, -1.0, 2.0]) if varying != "deviation" else np.array([1.0, 0.3, 2.0])
    given = {name: x[:steps] for name, x in numbers.items()}
    with jax.enable_x64(double):
        at = jnp.asarray(given[varying])

        def initial():
            return {"x": numpyro.sample("x_0", Normal(1.0, 1.0))}

        def step(x, t):
            laws = {"mean": lambda: (at[t], 1.0), "gain": lambda: (at[t] * x, 1.0), "deviation": lambda: (0.0, at[t])}
            u = decide("u", Normal(*laws[varying]()))
            optimality(-((x + u) ** 2) - u**2)
            return {"x": x + u}

        program = ControlProgram(initial, step, steps)
        posterior, solution = exact.condition(program), exact.solve(program)
        assert posterior.converged and solution.converged
        assert float(posterior.log_evidence) == pytest.approx(
            log_evidence(*given.values()), rel=1e-9 if double else 1e-4
        )
        assert float(exact.elbo(program, solution.policy)) == pytest.approx(
            float(solution.elbo), rel=1e-9 if double else 1e-4
        )
