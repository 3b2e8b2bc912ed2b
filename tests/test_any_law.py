"""Every law of NumPyro's, as chance and as a decision, in engines that sample; truth by quadrature or enumeration."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from laws import COUNTS, LAWS, NUMBERS, REFUSED, public_classes
from selection import quick

from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.inference import smc
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


def check(run, name):
    """The evidence against the truth, in standard errors."""
    truth, error = expected(name)
    weights = np.asarray(run.weights) * N
    found = np.exp(run.log_evidence)
    error = np.hypot(error, found * weights.std() / N**0.5)
    assert abs(found - truth) < MOST * error + 1e-12


def skip_without(name):
    if name in WANTS:
        pytest.importorskip(WANTS[name])


def test_every_public_law_is_tried_or_refused_by_name():
    made = {name: make(jnp.asarray(X)) for name, make in LAWS.items() if name not in WANTS}
    tried = {type(part).__name__ for law in made.values() for part in (law, getattr(law, "base_dist", law))}
    assert public_classes() == tried | set(WANTS) | REFUSED


@pytest.mark.parametrize("name", CASES)
def test_the_evidence_where_it_is_chance(name):
    skip_without(name)
    check(smc.run(program(name, numpyro.sample), jax.random.key(1), N), name)


@pytest.mark.parametrize("name", CASES)
def test_the_evidence_where_it_is_a_decision_drawn_from_a_moved_law(name):
    """Weights p / q correct what q, of the same family, does otherwise: the family's density and draws agree."""
    skip_without(name)
    made = program(name, decide)
    law = law_of("y", LAWS[name](jnp.asarray(X)), 0)
    theta = 0.3 * jax.random.normal(jax.random.key(2), (law.num_parameters,))
    moved = law.moved(theta).distribution
    check(smc.run(made, jax.random.key(3), N, proposal={"y": lambda: moved}), name)
