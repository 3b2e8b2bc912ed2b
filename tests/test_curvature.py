"""Newton's systems of the joint dual against its derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.distributions import MultivariateNormal

from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.inference import exact, trust_region
from rlinf_ppl.inference.bounds.arguments import prepared
from rlinf_ppl.inference.bounds.curvature import tridiagonal
from rlinf_ppl.inference.bounds.descent import sum_over_time
from rlinf_ppl.inference.bounds.dual import Point, per_time
from rlinf_ppl.inference.bounds.joint import Given, joint_dual

T = 4
RNG = np.random.default_rng(3)
DRIFT, PUSH, LEAN = np.eye(2) + 0.2 * RNG.normal(size=(2, 2)), RNG.normal(size=(2, 1)), 0.3 * RNG.normal(size=(1, 2))


def initial():
    return {"x": numpyro.sample("first", MultivariateNormal(jnp.array([1.0, -0.5]), 0.5 * jnp.eye(2)))}


def moved(x, *pushes):
    return numpyro.sample("after", MultivariateNormal(DRIFT @ x + sum(pushes), 0.1 * jnp.eye(2)))


def one(x):
    u = decide("u", MultivariateNormal(LEAN @ x, jnp.eye(1)))
    optimality(-jnp.sum((x - 1) ** 2) - 0.1 * u[0] ** 2 + 0.2 * u[0] * x[0])
    return {"x": moved(x, PUSH @ u)}


def two(x):
    """Two decisions, the second of which sees the first."""
    u = decide("u", MultivariateNormal(LEAN @ x, jnp.eye(1)))
    v = decide("v", MultivariateNormal(0.5 * u, 2 * jnp.eye(1)))
    optimality(-jnp.sum((x - 1) ** 2) - 0.1 * (u[0] - v[0]) ** 2 - 0.3 * v[0] ** 2)
    return {"x": moved(x, PUSH @ u, PUSH[::-1] @ v)}


def seen(x):
    """Chance that the decision sees."""
    wind = numpyro.sample("wind", MultivariateNormal(0.1 * x, 0.3 * jnp.eye(2)))
    u = decide("u", MultivariateNormal(jnp.zeros(1), jnp.eye(1)))
    optimality(-jnp.sum((x - 1) ** 2) - 0.1 * (u[0] - wind[0]) ** 2)
    return {"x": moved(x, PUSH @ u, wind)}


def dual_of(step, discount, entropy):
    program = prepared(ControlProgram(initial, step, T, discount), "a test")
    bounds = None if entropy is None else jnp.full(T, entropy)
    return joint_dual(program, Given(None, jnp.full(T, 0.1), bounds))


@pytest.mark.parametrize(
    "step, discount, entropy",
    [(one, 1.0, None), pytest.param(one, 0.8, -0.9, marks=pytest.mark.slow)]
    + [pytest.param(step, 0.9, -0.5, marks=pytest.mark.slow) for step in (two, seen)],
)
def test_a_step_solves_newtons_system_anywhere(step, discount, entropy):
    """Far from the optimum, where the state's law is not the tilted one."""
    dual = dual_of(step, discount, entropy)
    assert dual.is_exact
    at = dual.begin()[0]
    keys = iter(jax.random.split(jax.random.key(0), 20))
    symmetric = lambda x: (x + jnp.swapaxes(x, -1, -2)) / 2  # noqa: E731

    def drawn(like, size):
        slope, curved = (size * jax.random.normal(next(keys), x.shape) for x in like.tilt)
        return Point(size * jax.random.normal(next(keys), like.x.shape), (slope, symmetric(curved)))

    at = jax.tree.map(jnp.add, at, drawn(at, 0.1))
    at = at._replace(tilt=jax.tree.map(lambda x: x.at[0].set(0.0), at.tilt))
    here, right, ridge = dual.evaluate(at), drawn(at, 1.0), 0.1 + jnp.abs(drawn(at, 1.0).x)
    right = right._replace(tilt=jax.tree.map(lambda x: x.at[0].set(0.0), right.tilt))
    found = dual.precondition(at, here, right, ridge)
    pushed = jax.jvp(lambda at: dual.evaluate(at).slope, (at,), (found,))[1]
    # The Jacobian of multipliers and tilts has a derivative of its own.
    s, inner = found.x[0], jax.tree.map(jnp.multiply, found.tilt, here.slope.tilt)
    x = (pushed.x - found.x * here.slope.x + ridge * found.x).at[0].add(-sum_over_time(inner, s))
    tilt = jax.tree.map(lambda a, b: a - per_time(s, b) * b, pushed.tilt, here.slope.tilt)
    np.testing.assert_allclose(x, right.x, atol=1e-9)
    for got, want in zip(tilt, right.tilt, strict=True):
        np.testing.assert_allclose(got[1:], want[1:], atol=1e-9)


@pytest.mark.slow
def test_the_slope_is_the_duals():
    dual = dual_of(one, 0.9, -0.9)
    at = dual.begin()[0]
    slope, numbers = dual.evaluate(at).slope, jax.grad(lambda at: dual.evaluate(at).value)(at)
    np.testing.assert_allclose(slope.x, numbers.x, atol=1e-10)
    for got, want in zip(slope.tilt, numbers.tilt, strict=True):
        want = want if want.ndim == 2 else (want + jnp.swapaxes(want, 1, 2)) / 2
        np.testing.assert_allclose(got[1:], want[1:], atol=1e-10)


@pytest.mark.slow
def test_two_decisions_keep_their_entropies():
    """Their sum is bounded, and what is found is what the policy has."""
    program = ControlProgram(initial, two, T)
    found = trust_region.entropy_bound(program, None, 0.3, -2.7)
    assert found.converged and found.kkt.worst < 1e-8 and np.all(found.entropy >= 2.7 - 1e-8)
    covs = [np.asarray(found.policy[name].cov) for name in ("u", "v")]
    entropy = sum(0.5 * np.log(2 * np.pi * np.e * cov[:, 0, 0]) for cov in covs)
    np.testing.assert_allclose(found.entropy, entropy, atol=1e-10)
    again = exact.solve(found.program)
    for name in ("u", "v"):
        np.testing.assert_allclose(again.policy[name].gain, found.policy[name].gain, atol=1e-10)


def test_block_tridiagonal_systems():
    diagonal, above = RNG.normal(size=(5, 3, 3)), 0.3 * RNG.normal(size=(5, 3, 3))
    diagonal = diagonal @ np.swapaxes(diagonal, 1, 2) + 3 * np.eye(3)
    whole, right = np.zeros((15, 15)), RNG.normal(size=(5, 3))
    for t in range(5):
        whole[3 * t : 3 * t + 3, 3 * t : 3 * t + 3] = diagonal[t]
        if t < 4:
            whole[3 * t : 3 * t + 3, 3 * t + 3 : 3 * t + 6] = above[t]
            whole[3 * t + 3 : 3 * t + 6, 3 * t : 3 * t + 3] = above[t].T
    found = tridiagonal(*map(jnp.asarray, (diagonal, above, right)))
    np.testing.assert_allclose(found.ravel(), np.linalg.solve(whole, right.ravel()), atol=1e-12)
