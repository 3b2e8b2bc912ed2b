"""Fits under vmap, over keys and over the numbers of a program, are the fits one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlinf_ppl import models
from rlinf_ppl.inference import exact, svi
from rlinf_ppl.tasks import gallery

KEY = jax.random.key(0)
KEYS = jax.random.split(jax.random.key(1), 3)
BETAS = jnp.array([0.5, 1.0, 2.0])
SLOW = pytest.mark.slow


def lottery(beta=1.0):
    return models.single_agent(gallery.lottery(), 2, beta)


def natural(program, key):
    return svi.fit(program, key, 8)


def by_steps(program, key):
    return svi.fit(program, key, 25, optimizer=optax.adam(0.1))


def sampled(program, key):
    return svi.fit(program, key, 25, loss=svi.SampledELBO(10), optimizer=optax.adam(0.1))


def network(program, key):
    guide = svi.networks(program, key, width=4, depth=1)
    return svi.fit(program, key, 25, guide=guide, loss=svi.ParticleELBO(10, 2), optimizer=optax.adam(0.1))


WAYS = {"natural gradient": natural, "an optimizer": by_steps, "sampled": sampled, "networks": network}


def told(fit):
    return fit.elbo, fit.losses, fit.guide, fit.converged, fit.residual


def close(together, apart):
    """Where a fit has converged its losses are NaN until the end."""
    for i, alone in enumerate(apart):
        elbo, losses, guide, converged, residual = jax.tree.map(lambda x, i=i: x[i], together)
        np.testing.assert_allclose(elbo, alone[0], rtol=1e-10)
        ran = len(alone[1])
        np.testing.assert_allclose(losses[:ran], alone[1], rtol=1e-10)
        assert np.isnan(losses[ran:]).all()
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-8, atol=1e-10), guide, alone[2])
        assert converged == alone[3]
        np.testing.assert_allclose(residual, alone[4], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("way", [pytest.param(way, marks=() if way == "natural gradient" else SLOW) for way in WAYS])
def test_over_keys(way):
    fit = WAYS[way]
    close(jax.vmap(lambda key: told(fit(lottery(), key)))(KEYS), [told(fit(lottery(), key)) for key in KEYS])


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_over_the_inverse_temperature(way):
    fit = WAYS[way]
    together = jax.vmap(lambda beta: told(fit(lottery(beta), KEY)))(BETAS)
    close(together, [told(fit(lottery(beta), KEY)) for beta in BETAS])
    if way == "natural gradient":
        np.testing.assert_allclose(together[0], [exact.solve(lottery(beta)).elbo for beta in BETAS], rtol=1e-10)


def test_policies_and_values_come_out_of_jit():
    fit = jax.jit(lambda beta: natural(lottery(beta), KEY)._replace(task=None))(2.0)
    np.testing.assert_allclose(fit.policy["a"], exact.solve(lottery(2.0)).policy["a"], rtol=1e-6)


def test_several_starts_inside_vmap_are_refused():
    with pytest.raises(ValueError, match="inside jit and vmap each key is a start of its own: leave num_restarts out"):
        jax.vmap(lambda key: svi.fit(lottery(), key, 5, num_restarts=2).elbo)(KEYS)
