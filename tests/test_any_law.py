"""Every law of NumPyro's, as chance and as a decision, in engines that sample; truth by quadrature or enumeration."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from laws import COUNTS, LAWS, NUMBERS, REFUSED, public_classes
from numpyro.distributions import Categorical
from selection import quick

from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.inference import smc
from rlinf_ppl.inference.fitting import particle_bound
from rlinf_ppl.inference.particles.simulator import as_simulator
from rlinf_ppl.program.conditionals import Tilted
from rlinf_ppl.program.laws import as_law
from rlinf_ppl.program.sites import law_of

X = 0.3
N = 10_000
MOST = 4.5
CASES = quick(("Gamma", "Poisson"), sorted(LAWS))
WANTS = {"GaussianCopulaBeta": "tensorflow_probability"}
# NumPyro warns that a folded value could have come from two.
pytestmark = pytest.mark.filterwarnings("ignore:AbsTransform is not a bijective transform")


@pytest.fixture(autouse=True)
def as_users_have_it():
    """NumPyro's own laws broadcast ranks, which this suite forbids elsewhere."""
    with jax.numpy_rank_promotion("allow"):
        yield


def pay(y):
    """A reward between -6.5 and 0 for a value of any shape."""
    return -2.0 * (jnp.tanh(jnp.mean(jnp.asarray(y, float))) - 0.8) ** 2


def program(name, sample):
    def step(x):
        optimality(pay(sample("y", LAWS[name](x))))
        return {"x": x}

    return ControlProgram(lambda: {"x": jnp.asarray(X)}, step, 1)


def expected(name):
    """E exp(pay) under a law of NumPyro's, and its standard error; without draws where values can be listed."""
    law = LAWS[name](jnp.asarray(X))
    if name in NUMBERS:
        # y = tan(pi (u - 1/2)) at midpoints of u reaches into every tail.
        u = (np.arange(200_000) + 0.5) / 200_000
        y = jnp.asarray(np.tan(np.pi * (u - 0.5)))
        width = np.pi * (1 + np.asarray(y) ** 2) / len(u)
    elif name in COUNTS:
        y, width = jnp.arange(300), 1.0
    else:
        paid = np.exp(jax.vmap(pay)(law.sample(jax.random.key(7), (100_000,))))
        return paid.mean(), paid.std() / 100_000**0.5
    inside = law.support(y)
    density = np.where(inside, np.exp(law.log_prob(jnp.where(inside, y, law.support.feasible_like(y)))), 0.0)
    assert abs(np.sum(density * width) - 1) < 2e-3
    return np.sum(density * width * np.exp(jax.vmap(pay)(y))), 1e-4


def skip_without(name):
    if name in WANTS:
        pytest.importorskip(WANTS[name])


def test_every_public_law_is_tried_or_refused_by_name():
    made = {name: make(jnp.asarray(X)) for name, make in LAWS.items() if name not in WANTS}
    tried = {type(part).__name__ for law in made.values() for part in (law, getattr(law, "base_dist", law))}
    assert public_classes() == tried | set(WANTS) | REFUSED


@pytest.mark.parametrize("name", CASES)
def test_the_evidence_where_it_is_chance_and_where_it_is_a_decision_drawn_from_a_moved_law(name):
    """Weights p / q correct what q, of the same family, does otherwise: the family's density and draws agree."""
    skip_without(name)
    law = LAWS[name]

    def step(x):
        optimality(pay(numpyro.sample("y", law(x))), "of chance")
        optimality(pay(decide("z", law(x))), "of the decision")
        return {"x": x}

    made, own = ControlProgram(lambda: {"x": jnp.asarray(X)}, step, 1), law_of("z", law(jnp.asarray(X)), 0)
    theta = 0.3 * jax.random.normal(jax.random.key(2), (own.num_parameters,))
    moved = own.moved(theta).distribution
    run = smc.run(made, jax.random.key(3), N, proposal={"z": lambda: moved})
    truth, error = expected(name)
    weights = np.asarray(run.weights) * N
    found = np.exp(run.log_evidence)
    assert abs(found - truth**2) < MOST * np.hypot(2 * truth * error, found * weights.std() / N**0.5) + 1e-12
    # Each of the two alone: the paid means under weights are those of the truth, tilted.
    for site in ("y", "z"):
        drawn = np.asarray(jax.vmap(pay)(run.trajectories[site][:, 0]))
        share = weights / np.exp(drawn)
        spread = np.std(share * found - truth * np.mean(share * found) / truth) / N**0.5
        assert abs(np.mean(share) * found - truth) < MOST * np.hypot(spread, error) + 1e-12


class Fixed(eqx.Module):
    """Parameters that depend on nothing."""

    theta: jax.Array

    def __call__(self, at, t):
        return self.theta


JUMP = [
    "BinomialProbs",
    "GeometricProbs",
    "MixtureSameFamily",
    "MultinomialProbs",
    "NegativeBinomial2",
    "Poisson",
    "ZeroInflatedPoisson",
]
MOVE = [
    "Beta",
    "Dirichlet",
    "Gamma",
    "Kumaraswamy",
    "LKJCholesky",
    "LogNormal",
    "StudentT",
    "TwoSidedTruncatedDistribution",
    "Uniform",
]


@pytest.mark.parametrize("name", quick(["Gamma", "Poisson"], JUMP + MOVE))
def test_gradients_of_the_particle_elbo(name):
    """Against the score form, of another sampler's draws: both kinds of gradient, reparameterised and by the score."""
    law = law_of("y", LAWS[name](jnp.asarray(X)), 0)
    assert law.reparameterised == (name in MOVE)
    theta = 0.3 * jax.random.normal(jax.random.key(2), (law.num_parameters,))
    own, moved = law.distribution, lambda theta: law.moved(theta).distribution
    y = jax.lax.stop_gradient(moved(theta).sample(jax.random.key(7), (100_000,)))

    def worth(theta, y):
        log_q = jnp.sum(moved(theta).log_prob(y))
        ratio = jnp.exp(log_q - jax.lax.stop_gradient(log_q))
        return ratio * (jnp.sum(own.log_prob(y)) - log_q + pay(y))

    score = np.asarray(jax.vmap(jax.grad(worth), (None, 0))(theta, y))
    simulator = as_simulator(program(name, decide), None, None)

    def bound(theta, key):
        proposing = dataclasses.replace(simulator, proposal={"y": Tilted(Fixed(theta), law.support)})
        return particle_bound.log_evidence(proposing, key, 1, 100, 0.0, False)

    slopes = np.asarray(jax.jit(jax.vmap(jax.grad(bound), (None, 0)))(theta, jax.random.split(jax.random.key(1), 300)))
    error = np.hypot(slopes.std(0) / 300**0.5, score.std(0) / 100_000**0.5)
    assert np.isfinite(slopes).all() and error.max() < 0.05
    assert np.max(np.abs(slopes.mean(0) - score.mean(0)) / np.maximum(error, 1e-12)) < MOST


def test_what_has_probability_zero_is_never_drawn(monkeypatch):
    """Where a uniform number is 0, NumPyro draws the first value; of particles there are many numbers."""
    probs = jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.0, 0.5]])
    law = as_law(Categorical(probs=probs).to_event(1))
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype: jnp.zeros(shape, dtype))
    np.testing.assert_array_equal(law.draw(jax.random.key(0)), [1, 2, 0])
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype: jnp.full(shape, 1 - 2.0**-53, dtype))
    np.testing.assert_array_equal(law.draw(jax.random.key(0)), [1, 2, 2])


def test_rows_are_drawn_by_their_probabilities():
    probs = jnp.array([[0.2, 0.5, 0.3], [0.7, 0.0, 0.3]])
    law = as_law(Categorical(probs=probs).expand([4000, 2]).to_event(2))
    drawn = np.asarray(law.draw(jax.random.key(1)))
    shares = np.stack([(drawn == k).mean(0) for k in range(3)], 1)
    np.testing.assert_allclose(shares, probs, atol=4 * np.sqrt(0.25 / 4000))
