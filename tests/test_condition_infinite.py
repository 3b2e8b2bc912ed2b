"""Whether a posterior given optimality exists at an infinite horizon does not depend on the units of its values."""

import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.distributions import Categorical

from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.inference import exact
from rlinf_ppl.tasks import gallery

DISCOUNT = 0.9
TASK = gallery.chain(3)


def chain(factor, tau):
    """The chain with rewards times `factor` and the inverse temperature `tau`: their product is what matters."""

    def initial():
        return {"s": numpyro.sample("s", Categorical(probs=jnp.asarray(TASK.initial)))}

    def step(s):
        a = decide("a", Categorical(probs=jnp.array([0.5, 0.5])), inverse_temperature=tau)
        optimality(factor * jnp.asarray(TASK.reward)[s, a])
        return {"s": numpyro.sample("s_next", Categorical(probs=jnp.asarray(TASK.transition)[s, a]))}

    return ControlProgram(initial, step, None, DISCOUNT)


@pytest.mark.parametrize("factor, tau", [(50.0, 1.0), (1.0, 50.0), (0.1, 500.0)])
def test_a_posterior_that_does_not_exist_raises_in_any_units(factor, tau):
    with pytest.raises(ValueError, match="no posterior given optimality"):
        exact.condition(chain(factor, tau))


@pytest.mark.parametrize("factor, tau", [(0.05, 1.0), (1.0, 0.05)])
def test_a_posterior_that_exists_solves_a_linear_system_in_any_units(factor, tau):
    # x = exp V is linear: x = W (discount P x + 1 - discount), averaged over the prior.
    weight = np.exp(0.05 * np.asarray(TASK.reward)) / 2
    kernel = np.einsum("sa,sat->st", weight, np.asarray(TASK.transition))
    x = np.linalg.solve(np.eye(3) - DISCOUNT * kernel, (1 - DISCOUNT) * weight.sum(-1))
    np.testing.assert_allclose(exact.condition(chain(factor, tau)).log_evidence, np.log(x[0]), rtol=1e-9)
