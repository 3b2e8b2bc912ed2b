"""Gradients of networks are unbiased: z-scores against exact gradients, got without the networks."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.distributions import Bernoulli, Categorical, Normal
from oracles import particle_bound, switch
from programs_more import PAIRS
from test_particle_elbo import arrays, control, z_scores

from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.inference import svi
from rlinf_ppl.inference.fitting import guides
from rlinf_ppl.program import read

KEY = jax.random.key(0)
pytestmark = pytest.mark.slow


def small(program, spread=0.7):
    """Networks some way from the prior."""
    guide = svi.networks(program, KEY, width=3, depth=1)
    leaves, form = jax.tree.flatten(guide)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    return jax.tree.unflatten(
        form, [leaf + spread * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    )


def table(program, guide):
    """What networks say at every time and every value of their scopes."""

    def of(name):
        function = lambda t, *at: guide[name].parameters(dict(zip(scope, at, strict=True)), t)  # noqa: E731
        scope = program.scopes[name]
        values = [jnp.arange(program.horizon), *(jnp.asarray(program.supports[axis]) for axis in scope)]
        for i in reversed(range(len(values))):
            function = jax.vmap(function, tuple(0 if i == j else None for j in range(len(values))))
        return function(*values)

    return {name: of(name) for name in program.scopes}


def estimates(loss, program, guide, repeats=400):
    """Many estimates of the value and of the gradient in all weights, side by side."""
    target = loss.read(program)
    one = jax.value_and_grad(lambda guide, key: loss.estimate(target, guide, key))
    values, slopes = jax.jit(lambda keys: jax.lax.map(lambda key: one(guide, key), keys, batch_size=50))(
        jax.random.split(jax.random.key(1), repeats)
    )
    return np.asarray(values), [np.asarray(leaf) for leaf in jax.tree.leaves(slopes)]


def agree(values, slopes, value, slope):
    assert z_scores(values, float(value)) < 4.5
    for found, expected in zip(slopes, jax.tree.leaves(slope), strict=True):
        assert z_scores(found, np.asarray(expected)).max() < 4.5
    # A gradient of nothing would agree with one that is too noisy to tell.
    assert max(z_scores(found, 0.0).max() for found in slopes) > 20


@pytest.mark.parametrize("name", ["tempered", "discounted_final", "clock", "dice"])
def test_on_finite_programs_the_gradient_is_that_of_the_exact_elbo(name):
    """The exact one is that of the elimination, in the table that the networks make."""
    program = PAIRS[name].control()
    chain, guide = read(program), small(program)
    exactly = jax.value_and_grad(lambda guide: guides.bound(chain, table(program, guide)))(guide)
    agree(*estimates(svi.ParticleELBO(100), program, guide), *exactly)


def test_of_two_particles_the_gradient_is_that_of_an_enumeration():
    program, task = control(2, arrays(stakes=3.0)), arrays(stakes=3.0)
    guide = small(program)
    logits, back = jax.vjp(lambda guide: table(program, guide)["a"], guide)
    at = np.asarray(logits)
    value = particle_bound.expected_log_evidence(task, at, at)
    slope = back(jnp.asarray(particle_bound.gradient(task, at, True)))[0]
    agree(*estimates(svi.ParticleELBO(100, 2, resampling_term=True), program, guide, 1000), value, slope)


TASK = 0.3, np.array([-1.0, 1.5]), np.array([0.5, -0.5]), np.array([2.0, -1.0])


def switching(horizon):
    """A real decision that finite chance depends on."""

    def initial(first, goal, pull, last):
        return {"k": numpyro.sample("k", Bernoulli(probs=first))}

    def step(first, goal, pull, last, k):
        a = decide("a", Normal(0.0, 1.0))
        optimality(-((a - goal[k]) ** 2) / 2)
        return {"k": numpyro.sample("k_next", Bernoulli(logits=a + pull[k]))}

    def final(first, goal, pull, last, k):
        optimality(last[k])

    return ControlProgram(initial, step, horizon, final=final, args=TASK)


@pytest.mark.parametrize("horizon", [1, 3])
def test_a_real_decision_that_chance_depends_on_has_the_gradient_of_a_quadrature(horizon):
    """What is real is moved along with its parameters, what is finite has a score; chance needs both."""
    program = switching(horizon)
    guide = small(program, 0.3)
    theta, back = jax.vjp(lambda guide: table(program, guide)["a"], guide)
    at = np.asarray(theta)
    slope = back(jnp.asarray(switch.gradient(TASK, at)))[0]
    agree(*estimates(svi.ParticleELBO(100), program, guide), switch.elbo(TASK, at), slope)


def drifting(sites):
    """Real chance that a finite decision moves, and the other way round."""

    def step(x):
        if sites == "finite decision":
            a = decide("a", Categorical(probs=jnp.array([0.3, 0.7])))
            x = numpyro.sample("x_next", Normal(x + 2.0 * a - 1.0, 0.5))
        else:
            a = decide("a", Normal(0.0, 1.0))
            x = numpyro.sample("x_next", Normal(x + a, 0.5))
        optimality(-0.5 * x**2)
        return {"x": x}

    return ControlProgram(lambda: {"x": numpyro.sample("x", Normal(1.0, 1.0))}, step, 1)


def elbo_of_drift(sites, theta, nodes, weights):
    """The ELBO at horizon 1, given what the guide says at each node of x."""
    x = 1.0 + nodes
    if sites == "finite decision":
        prior = np.array([0.3, 0.7])
        q = prior * np.exp(theta)
        q = q / q.sum(1, keepdims=True)
        payoff = -0.5 * ((x[:, None] + np.array([-1.0, 1.0])) ** 2 + 0.25)
        return weights @ (q * (payoff - np.log(q / prior))).sum(1)
    mean, log_std = theta.T
    kl = (mean**2 + np.exp(2 * log_std) - 1) / 2 - log_std
    return weights @ (-0.5 * ((x + mean) ** 2 + np.exp(2 * log_std) + 0.25) - kl)


@pytest.mark.parametrize("sites", ["finite decision", "real decision"])
def test_beside_real_chance_the_gradient_is_that_of_a_quadrature(sites):
    program = drifting(sites)
    guide = small(program, 0.3)
    nodes, weights = switch.NODES, switch.WEIGHTS
    on_nodes = lambda guide: jax.vmap(  # noqa: E731
        lambda x: guide["a"].parameters({"x": x}, jnp.asarray(0))
    )(jnp.asarray(1.0 + nodes))
    theta, back = jax.vjp(on_nodes, guide)
    at = np.asarray(theta)
    found = np.zeros_like(at)
    for place in np.ndindex(found.shape):
        change = np.zeros_like(found)
        change[place] = 1e-5
        ends = [elbo_of_drift(sites, at + sign * change, nodes, weights) for sign in (1, -1)]
        found[place] = (ends[0] - ends[1]) / 2e-5
    value = elbo_of_drift(sites, at, nodes, weights)
    agree(*estimates(svi.ParticleELBO(100), program, guide), value, back(jnp.asarray(found))[0])
