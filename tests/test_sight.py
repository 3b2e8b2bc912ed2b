"""Decisions that see less: what their policies depend on, and the exact ELBO of any of them, by enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from information_structures import STRUCTURES, program
from oracles import sight as oracle
from selection import quick

from rlinf_ppl.inference import exact, svi

KEY = jax.random.key(0)
NAMES = quick(["memoryless", "a team at once"], list(STRUCTURES))


def random_policies(spec, scopes, rng):
    """Of every decision over the time and what it sees: as arrays, and for the oracle."""
    sizes = spec["sizes"]
    arrays = {
        name: rng.dirichlet(np.ones(sizes[name]), size=(spec["horizon"], *(sizes[axis] for axis in scope)))
        for name, scope in scopes.items()
    }
    return arrays, {name: (scopes[name], array) for name, array in arrays.items()}


@pytest.mark.parametrize("name", STRUCTURES)
def test_policies_depend_on_what_they_should(name):
    spec, scopes = STRUCTURES[name]
    assert program(spec).scopes == scopes


def needed(spec, site):
    """What the site, later ones and the next state depend on as it is."""
    names = [other for _, other, *_ in spec["sites"]]
    later = spec["sites"][names.index(site) :]
    return {parent for _, _, parents, _ in later for parent in parents} | set(spec["next"].values())


@pytest.mark.parametrize("name", NAMES)
def test_what_is_seen_tells_all_that_can_be_told_and_each_of_it_tells_something(name):
    """By enumeration under random policies: the law of what is hidden, given all that is seen and given the scope."""
    spec, scopes = STRUCTURES[name]
    made, rng = program(spec), np.random.default_rng(1)
    _, policies = random_policies(spec, scopes, rng)
    before = list(spec["next"])
    for kind, site, *_ in spec["sites"]:
        if kind == "reward":
            continue
        hidden = dict(made.structure.hidden).get(site, ())
        seen = [other for other in before if other not in spec["unseen"].get(site, ())]
        if kind == "decision" and hidden:
            last = spec["horizon"] - 1
            whole = oracle.joint(spec, policies, last, [*seen, *hidden])
            flat = whole.reshape(*whole.shape[: len(seen)], -1)
            given = flat / flat.sum(-1, keepdims=True)
            kept = [seen.index(axis) for axis in scopes[site]]
            for i, axis in enumerate(seen):
                apart = np.abs(given - given.mean(i, keepdims=True)).max()
                if i not in kept:
                    assert apart < 1e-12, (site, axis)
                elif axis not in needed(spec, site):
                    assert apart > 1e-6, (site, axis)
        before.append(site)


@pytest.mark.parametrize("name", NAMES)
def test_elbos_marginals_and_values_are_those_of_all_trajectories(name):
    spec, scopes = STRUCTURES[name]
    made = program(spec)
    arrays, policies = random_policies(spec, scopes, np.random.default_rng(2))
    expected = oracle.elbo(spec, policies)
    assert float(exact.elbo(made, arrays)) == pytest.approx(expected, rel=1e-12)
    assert float(exact.evaluate(made, arrays).elbo) == pytest.approx(expected, rel=1e-12)
    if "discount" not in spec:
        marginals = exact.marginals(made, arrays)
        for t, (site, scope) in itertools.product(range(spec["horizon"]), scopes.items()):
            np.testing.assert_allclose(
                marginals.decision[site][t], oracle.joint(spec, policies, t, [*scope, site]), atol=1e-13
            )


@pytest.mark.parametrize("name", quick(["memoryless"], ["memoryless", "controller", "temperatures", "a team at once"]))
def test_gradients_are_finite_differences(name):
    spec, scopes = STRUCTURES[name]
    made, rng = program(spec), np.random.default_rng(3)
    chain = svi.ExactELBO().read(made)
    shapes = {d: [spec["horizon"], *(spec["sizes"][axis] for axis in (*scope, d))] for d, scope in scopes.items()}
    logits = {d: rng.normal(size=shape) for d, shape in shapes.items()}

    @jax.jit
    def bound(logits):
        return svi.ExactELBO().estimate(chain, logits, KEY)

    gradient = jax.grad(bound)(jax.tree.map(jnp.asarray, logits))
    for site, theta in logits.items():
        for index in list(np.ndindex(theta.shape))[::5]:
            ends = []
            for sign in (1, -1):
                moved = theta.copy()
                moved[index] += sign * 1e-5
                ends.append(float(bound(logits | {site: moved})))
            assert float(gradient[site][index]) == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_a_fit_never_falls_and_ends_where_no_decision_gains_alone(name):
    """Each row of the fit against the best reply by enumeration."""
    spec, scopes = STRUCTURES[name]
    made = program(spec)
    fit = svi.fit(made, KEY, 500, num_restarts=2)
    assert fit.converged and fit.local
    assert np.diff(-np.asarray(fit.losses)).min() > -1e-12 * max(1.0, abs(float(fit.elbo)))
    policies = {site: (scopes[site], np.asarray(array)) for site, array in fit.policy.items()}
    best = oracle.elbo(spec, policies)
    assert float(fit.elbo) == pytest.approx(best, rel=1e-12)
    rng = np.random.default_rng(4)
    for site, (scope, array) in policies.items():
        for t, row in itertools.product(range(spec["horizon"]), np.ndindex(array.shape[1:-1])):
            changed = array.copy()
            changed[t][row] = 0.9 * changed[t][row] + 0.1 * rng.dirichlet(np.ones(array.shape[-1]))
            assert oracle.elbo(spec, policies | {site: (scope, changed)}) <= best + 1e-10
