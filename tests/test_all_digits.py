"""Products of matrices keep all digits of their dtype, also where a device would multiply float32 with fewer.

No such device is asked for: the precision stands in what is compiled.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from jax import lax
from numpyro.distributions import Bernoulli, MultivariateNormal, StudentT
from selection import quick

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact, execution, smc, svi
from rlinf_ppl.tasks import gallery

KEY = jax.random.key(0)
N, M = 3, 2
RNG = np.random.default_rng(0)
A, B, C = RNG.normal(size=(N, N)), RNG.normal(size=(N, M)), RNG.normal(size=(2, N))


def reaching():
    """Vectors with data, and matrices inside the step."""

    def initial():
        return {"x": numpyro.sample("x_0", MultivariateNormal(jnp.ones(N), jnp.eye(N)))}

    def step(x):
        numpyro.sample("y", MultivariateNormal(jnp.asarray(C, float) @ x, jnp.eye(2)), obs=jnp.ones(2))
        u = decide("u", MultivariateNormal(jnp.zeros(M), jnp.eye(M)))
        optimality(-x @ x)
        moved = jnp.asarray(A, float) @ x + jnp.asarray(B, float) @ u
        return {"x": numpyro.sample("moved", MultivariateNormal(moved, 0.1 * jnp.eye(N)))}

    return ControlProgram(initial, step, 3)


def jumping():
    """What only particles can follow."""

    def initial():
        return {"x": jnp.zeros(N)}

    def step(x):
        u = decide("u", MultivariateNormal(jnp.zeros(N), jnp.eye(N)))
        jump = decide("jump", Bernoulli(0.5))
        optimality(-jnp.sum((jnp.asarray(A, float) @ x - 1) ** 2) + jump)
        return {"x": numpyro.sample("moved", StudentT(4.0, jnp.asarray(A, float) @ u, 1.0).to_event(1))}

    return ControlProgram(initial, step, 2)


def products(jaxpr):
    """Every product of matrices of real numbers in traced code, and in all that it calls."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general" and jnp.issubdtype(equation.outvars[0].aval.dtype, jnp.floating):
            yield equation
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from products(inner)


def gains(program):
    return exact.solve(program).policy["u"].gain


def fitted(program):
    guide = svi.networks(program, KEY, width=4, depth=1)
    return svi.fit(program, KEY, 2, guide=guide, loss=svi.ParticleELBO(4), optimizer=optax.sgd(0.1)).losses


CALLS = {
    "solve": (reaching, gains),
    "derivative": (reaching, jax.grad(lambda program: exact.solve(program).elbo, allow_int=True)),
    "condition": (reaching, lambda program: exact.condition(program).log_evidence),
    "elbo": (reaching, lambda program: exact.elbo(program, exact.solve(program).policy)),
    "marginals": (reaching, lambda program: exact.marginals(program, exact.solve(program).policy).state.cov),
    "posterior marginals": (reaching, lambda program: exact.posterior_marginals(program).state.cov),
    "filtered": (reaching, lambda program: exact.filtered(program).cov),
    "sample": (reaching, lambda program: exact.sample(program, KEY, exact.solve(program).policy, 3)),
    "posterior sample": (reaching, lambda program: exact.posterior_sample(program, KEY, 3)),
    "kl": (
        reaching,
        lambda program: exact.kl(program, exact.solve(program).policy, exact.condition(program).policy),
    ),
    "roll-outs": (reaching, lambda program: execution.roll_out(program, KEY, exact.solve(program).policy, 3)),
    "natural gradient": (reaching, lambda program: svi.fit(program, KEY, 2).losses),
    "particles": (jumping, lambda program: smc.run(program, KEY, 5).log_evidence),
    "paths": (jumping, lambda program: smc.smooth(program, KEY, 5, 2)),
    "networks": (jumping, fitted),
    "tables": (lambda: models.single_agent(gallery.lottery(), 2), lambda program: exact.solve(program).elbo),
}


@pytest.mark.parametrize("call", quick(["solve", "condition", "particles"], list(CALLS)))
def test_products_keep_all_digits(call):
    make, answer = CALLS[call]
    found = list(products(jax.make_jaxpr(answer)(make()).jaxpr))
    assert found
    few = [equation for equation in found if equation.params["precision"] != (lax.Precision.HIGHEST,) * 2]
    assert not few, few
