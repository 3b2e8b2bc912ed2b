"""Whether a posterior given optimality exists at an infinite horizon, and other systems that are hard to solve."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.distributions import Categorical

from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.inference import exact
from rlinf_ppl.models import single_agent
from rlinf_ppl.tasks import MDP, gallery

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


@pytest.mark.parametrize(
    "factor, tau", [(50.0, 1.0), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1.0, 50.0), (0.1, 500.0)))]
)
def test_a_posterior_that_does_not_exist_raises_in_any_units(factor, tau):
    with pytest.raises(ValueError, match="no posterior given optimality"):
        exact.condition(chain(factor, tau))


@pytest.mark.parametrize("factor, tau", [(0.05, 1.0), pytest.param(1.0, 0.05, marks=pytest.mark.slow)])
def test_a_posterior_that_exists_solves_a_linear_system_in_any_units(factor, tau):
    # x = exp V is linear: x = W (discount P x + 1 - discount), averaged over the prior.
    weight = np.exp(0.05 * np.asarray(TASK.reward)) / 2
    kernel = np.einsum("sa,sat->st", weight, np.asarray(TASK.transition))
    x = np.linalg.solve(np.eye(3) - DISCOUNT * kernel, (1 - DISCOUNT) * weight.sum(-1))
    np.testing.assert_allclose(exact.condition(chain(factor, tau)).log_evidence, np.log(x[0]), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("beta", [5.0, 100.0])
def test_a_lake_whose_reward_outgrows_the_discount_has_no_posterior(beta):
    lake = MDP.from_gymnasium("FrozenLake-v1")
    with pytest.raises(ValueError, match="no posterior given optimality"):
        exact.condition(single_agent(lake, None, beta, discount=0.99))


@pytest.mark.parametrize("beta", [0.4, 3.0])
def test_a_posterior_that_is_far_from_the_prior_is_accepted(beta):
    endless = single_agent(gallery.slippery_grid(), None, beta, discount=0.95)
    found = exact.condition(endless)
    assert found.converged
    assert float(found.log_evidence) == pytest.approx(
        float(exact.condition(endless.unroll(2000)).log_evidence), rel=1e-9
    )


@pytest.mark.slow
@pytest.mark.parametrize("beta", [30.0, 100.0])
def test_occupancies_and_gradients_of_nearly_deterministic_policies(beta):
    def elbo(beta):
        return exact.solve(single_agent(grid, None, beta, discount=0.95)).elbo

    grid = gallery.slippery_grid()
    endless = single_agent(grid, None, beta, discount=0.95)
    policy = exact.solve(endless).policy
    prior = exact.prior_policy(endless)
    visits = exact.marginals(endless, policy)
    assert float(visits.state.sum()) == pytest.approx(1.0, rel=1e-9)
    gap = exact.evaluate(endless, policy).elbo - exact.evaluate(endless, prior).elbo
    assert float(exact.kl(endless, policy, prior)) > 16 and float(gap) > 0
    slope = (elbo(beta + 1e-3) - elbo(beta - 1e-3)) / 2e-3
    assert float(jax.grad(elbo)(beta)) == pytest.approx(float(slope), rel=1e-6)
