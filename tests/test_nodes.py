"""Real decisions integrated by nodes: against quadrature in NumPy, the exact ELBO of tables, and particles."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from jax import Array
from numpyro.distributions import Beta, Categorical, MultivariateNormal, Normal, Poisson, constraints
from numpyro.infer import SVI
from oracles import guides as oracle
from selection import quick_rows

from rlinf_ppl import ControlProgram, decide, optimality, over_time, parameter
from rlinf_ppl.algebra.random_utility import choice, mean_entropy
from rlinf_ppl.inference import exact, svi
from rlinf_ppl.program.divergence import gaussian_kl
from rlinf_ppl.program.guides import as_guide
from rlinf_ppl.program.laws import as_law

S, A, T = 3, 2, 3
KEY = jax.random.key(0)
RNG = np.random.default_rng(8)
FIRST, TRANSITION = RNG.dirichlet(np.ones(S)), RNG.dirichlet(np.ones(S), size=(S, A))
REWARD = 2 * RNG.normal(size=(S, A))
ADAM = optax.adam(0.05)
HALVES = Categorical(probs=jnp.full(2, 0.5))


def initial():
    return {"s": numpyro.sample("s_0", Categorical(probs=jnp.asarray(FIRST)))}


class Noisy(eqx.Module):
    """Values that are remembered with noise, and a softmax of them."""

    mean: Array
    spread: Array = parameter(constraints.positive)

    def q(self, s):
        return Normal(self.mean[s], self.spread[s]).to_event(1)

    def a(self, q):
        return Categorical(logits=1.5 * q)


def remembering(horizon=T, discount=1.0, tau=1.0):
    def step(s):
        decide("q", Normal(0, 1).expand([A]).to_event(1), tau)
        a = decide("a", Categorical(logits=jnp.zeros(A)), tau)
        optimality(jnp.asarray(REWARD)[s, a])
        return {"s": numpyro.sample("s_next", Categorical(probs=jnp.asarray(TRANSITION)[s, a]))}

    return ControlProgram(initial, step, horizon, discount)


def noisy():
    rng = np.random.default_rng(2)
    return Noisy(jnp.asarray(rng.normal(size=(S, A))), jnp.asarray(0.5 + rng.random(size=(S, A))))


def plain(params):
    return {name: np.asarray(x) for name, x in params.items()}


def wanted(guide):
    return oracle.noisy_softmax(FIRST, TRANSITION, REWARD, T, **plain(guide.params), sharpness=1.5)


def test_values_and_slopes_are_those_of_a_quadrature():
    made, guide = remembering(), as_guide(remembering(), noisy())
    loss = svi.NodeELBO(40)
    value, slopes = jax.jit(jax.value_and_grad(lambda guide: loss.estimate(loss.read(made), guide, KEY)))(guide)
    assert float(value) == pytest.approx(wanted(guide), rel=1e-10)
    for i, free in enumerate(guide.free):
        for place in list(np.ndindex(free.shape))[::2]:
            ends = []
            for sign in (1, -1):
                moved = [x.at[place].add(sign * 1e-5) if j == i else x for j, x in enumerate(guide.free)]
                ends.append(wanted(eqx.tree_at(lambda g: g.free, guide, moved)))
            assert float(slopes.free[i][place]) == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-7)


@pytest.mark.slow
def test_a_fit_by_nodes_and_one_by_particles():
    by_nodes = svi.fit(remembering(), KEY, 1500, guide=noisy(), loss=svi.NodeELBO(12), optimizer=ADAM)
    assert by_nodes.converged and by_nodes.local
    assert float(by_nodes.elbo) == pytest.approx(wanted(by_nodes.guide), abs=1e-4)
    law = by_nodes.policy["a"](q=jnp.asarray([1.0, 0.0]))
    assert float(law.probs[0]) == pytest.approx(1 / (1 + np.exp(-1.5)))
    bound = svi.ParticleELBO(20_000)
    sampled = float(bound.estimate(bound.read(remembering()), by_nodes.guide, KEY))
    assert sampled == pytest.approx(float(by_nodes.elbo), abs=0.05)


@pytest.mark.slow
def test_particles_do_not_find_better():
    by_nodes = svi.fit(remembering(), KEY, 1500, guide=noisy(), loss=svi.NodeELBO(12), optimizer=ADAM)
    sampled = svi.fit(remembering(), KEY, 1500, guide=noisy(), loss=svi.ParticleELBO(300), optimizer=ADAM)
    reached = wanted(as_guide(remembering(), sampled.guide))
    assert reached <= float(by_nodes.elbo) + 1e-6 and reached == pytest.approx(float(by_nodes.elbo), abs=0.02)


def tabular(discount=1.0, tau=1.0, horizon=T):
    """Two state variables, a chance site and an end, with finite values only."""

    def step(s, m):
        z = numpyro.sample("z", Categorical(probs=jnp.asarray([0.2, 0.8])))
        a = decide("a", Categorical(probs=jnp.asarray([[0.3, 0.7], [1.0, 0.0]])[z]), tau)
        b = decide("b", HALVES, 2 * tau)
        optimality(jnp.asarray(REWARD)[s, a] + 0.5 * (b == m))
        return {"s": numpyro.sample("s_next", Categorical(probs=jnp.asarray(TRANSITION)[s, a])), "m": b}

    def final(s, m):
        optimality(0.3 * s * m)

    def start():
        return initial() | {"m": numpyro.sample("m_0", HALVES)}

    return ControlProgram(start, step, horizon, discount, None if horizon is None else final)


@pytest.mark.parametrize("discount, tau", quick_rows([(0.7, -0.5)], [(1.0, 1.0), (0.7, -0.5)]))
def test_where_all_is_finite_it_is_the_exact_elbo(discount, tau):
    made, loss = tabular(discount, tau), svi.NodeELBO()
    target = loss.read(made)
    logits = jax.tree.map(lambda x: 5 * x, loss.start(target, KEY))
    value, slopes = jax.jit(jax.value_and_grad(lambda guide: loss.estimate(target, guide, KEY)))(logits)
    table = svi.ExactELBO()
    exactly, wanted = jax.value_and_grad(lambda guide: table.estimate(table.read(made), guide, KEY))(logits)
    assert float(value) == pytest.approx(float(exactly), rel=1e-12)
    for name, slope in wanted.items():
        np.testing.assert_allclose(slopes[name], slope, atol=1e-12)


def test_tables_are_fitted_where_the_reward_has_noise():
    """Real chance within a step, and a table of a decision: the closed form knows the mean of the reward."""

    def step(s):
        a = decide("a", HALVES)
        e = numpyro.sample("e", Normal(0.0, 1.0))
        optimality(jnp.asarray(REWARD)[s, a] + jnp.sin(a + e))
        return {"s": s}

    def averaged(s):
        a = decide("a", HALVES)
        optimality(jnp.asarray(REWARD)[s, a] + jnp.sin(1.0 * a) * np.exp(-0.5))
        return {"s": s}

    fit = svi.fit(ControlProgram(initial, step, 2), KEY, 2000, loss=svi.NodeELBO(20), optimizer=optax.adam(0.1))
    solved = exact.solve(ControlProgram(initial, averaged, 2))
    assert fit.converged and float(fit.elbo) == pytest.approx(float(solved.elbo), abs=1e-6)
    np.testing.assert_allclose(fit.policy["a"], solved.policy["a"], atol=1e-4)


class Pushing(eqx.Module):
    sharp: Array = parameter(constraints.positive)

    def u(self, s):
        return Beta(self.sharp[s, 0], self.sharp[s, 1])


def pushing():
    def step(s):
        u = decide("u", Beta(1.0, 1.0))
        optimality(-4.0 * (u - 0.3 * s) ** 2)
        return {"s": numpyro.sample("n", Categorical(logits=jnp.stack([u, 1 - u, 0.5 * u])))}

    return ControlProgram(initial, step, 2)


@pytest.mark.slow
def test_any_other_law_is_integrated_by_draws_that_stay():
    made, guide = pushing(), as_guide(pushing(), Pushing(jnp.asarray([[1.5, 3.0], [2.0, 2.0], [3.0, 1.0]])))
    loss, sampled = svi.NodeELBO(num_draws=4000), svi.ParticleELBO(40_000)
    one = float(loss.estimate(loss.read(made), guide, KEY))
    assert one == float(loss.estimate(loss.read(made), guide, jax.random.key(5)))
    assert one == pytest.approx(float(sampled.estimate(sampled.read(made), guide, KEY)), abs=0.05)


@pytest.mark.parametrize("tau", [1.0, 0.5])
def test_numpyros_svi_takes_the_same_steps(tau):
    made = remembering(tau=tau).with_guide(noisy())
    loss = svi.NodeELBO(8)
    found = SVI(made.model, made.guide, ADAM, loss=loss).run(KEY, 20, progress_bar=False)
    ours = svi.fit(made, KEY, 20, loss=loss, optimizer=ADAM, tolerance=0.0)
    np.testing.assert_allclose(found.losses / tau, ours.losses, rtol=1e-6)
    for name, x in ours.params.items():
        np.testing.assert_allclose(found.params[name], x, rtol=1e-4, atol=1e-6)


class Counting(eqx.Module):
    rate: Array = parameter(constraints.positive)

    def z(self):
        return Poisson(self.rate)


class Shifted(eqx.Module):
    mean: Array

    def z(self):
        return Normal(self.mean, 1.0)


class Narrow(eqx.Module):
    mean: Array

    def a(self):
        return Normal(self.mean, 0.1)


def once(decision, pay, chance=None):
    """One step of one decision, perhaps with chance behind it."""

    def step(s):
        x = decision()
        optimality(pay(x if chance is None else chance(x)))
        return {"s": s}

    return ControlProgram(lambda: {"s": numpyro.sample("s_0", Categorical(logits=jnp.zeros(1)))}, step, 1)


def elbo_on(pay, q, p):
    """The ELBO of a law on points."""
    return (q * (pay - np.log(np.where(q > 0, q / p, 1.0)))).sum()


K = np.arange(60)
LOG_FACTORIALS = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, 60)))])
GRID = np.linspace(-12, 12, 200_001)


def poisson(rate):
    return np.exp(K * np.log(rate) - rate - LOG_FACTORIALS)


def normal(mean, sd):
    return np.exp(-0.5 * ((GRID - mean) / sd) ** 2) / sd / np.sqrt(2 * np.pi) * (GRID[1] - GRID[0])


def of_counts(rate):
    return elbo_on(-0.5 * (K - 5.0) ** 2, poisson(rate), poisson(2.0))


def of_chance(mean):
    points, weights = np.polynomial.hermite_e.hermegauss(20)
    paid = [(poisson(np.exp(mean + 0.1 * x)) * -0.5 * (K - 3.0) ** 2).sum() for x in points]
    return weights @ paid / weights.sum() - 0.5 * (mean**2 + 0.01 - 1 - np.log(0.01))


def of_threshold(mean):
    return elbo_on(1.0 * (GRID > 0), normal(mean, 1.0), normal(0.0, 1.0))


JUMPS = {
    "counts": (
        once(lambda: decide("z", Poisson(2.0)), lambda z: -0.5 * (z - 5.0) ** 2),
        Counting(jnp.asarray(2.0)),
        svi.NodeELBO(12, 2000),
        of_counts,
        np.linspace(1.0, 6.0, 501),
    ),
    "counts of chance": (
        once(
            lambda: decide("a", Normal(0.0, 1.0)),
            lambda k: -0.5 * (k - 3.0) ** 2,
            lambda a: numpyro.sample("k", Poisson(jnp.exp(a))),
        ),
        Narrow(jnp.asarray(0.0)),
        svi.NodeELBO(8, 300),
        of_chance,
        np.linspace(-0.5, 1.5, 201),
    ),
    "a threshold": (
        once(lambda: decide("z", Normal(0.0, 1.0)), lambda z: jnp.where(z > 0, 1.0, 0.0)),
        Shifted(jnp.asarray(0.0)),
        svi.NodeELBO(100),
        of_threshold,
        np.linspace(-0.5, 1.5, 201),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", JUMPS)
def test_what_jumps_is_moved_by_its_score(name):
    """Fits come near the best of the family, found by a search in one dimension."""
    made, start, loss, truth, values = JUMPS[name]
    fit = svi.fit(made, KEY, 200, guide=start, loss=loss, optimizer=optax.adam(0.05))
    (found,) = (float(x) for x in fit.params.values())
    truths, began = (
        [truth(value) for value in values],
        truth(next(iter(as_guide(made, start).params.values()))),
    )
    assert max(truths) - truth(found) < 0.05 * (max(truths) - began)


def test_a_threshold_has_its_slope():
    made, start, loss, truth, _ = JUMPS["a threshold"]
    guide, target = as_guide(made, start), loss.read(made)
    slope = jax.grad(lambda guide: loss.estimate(target, guide, KEY))(guide).free[0]
    assert float(slope) == pytest.approx((truth(1e-3) - truth(-1e-3)) / 2e-3, abs=0.02)


def test_too_few_nodes_are_no_convergence():
    """A reward that turns within a node's width."""

    class Alone(eqx.Module):
        mean: Array

        def u(self):
            return Normal(self.mean, 1.0)

    def step(s):
        u = decide("u", Normal(0.0, 1.0))
        optimality(3.0 * jnp.cos(9.0 * u))
        return {"s": s}

    made, start = ControlProgram(initial, step, 1), Alone(jnp.asarray(0.0))
    few = svi.fit(made, KEY, 200, guide=start, loss=svi.NodeELBO(4), optimizer=ADAM)
    assert not few.converged and few.residual == np.inf
    many = svi.fit(made, KEY, 200, guide=start, loss=svi.NodeELBO(60), optimizer=ADAM)
    assert many.converged and float(many.elbo) == pytest.approx(3 * np.exp(-40.5), abs=1e-6)


def test_single_precision_finds_the_same():
    with jax.enable_x64(False):
        guide = as_guide(remembering(), noisy())
        loss = svi.NodeELBO(20)
        value = float(loss.estimate(loss.read(remembering()), guide, KEY))
    assert value == pytest.approx(wanted(as_guide(remembering(), noisy())), rel=1e-4)


def endless(states):
    def step(s):
        decide("a", HALVES)
        return {"s": numpyro.sample("s_next", Categorical(probs=jnp.full(states, 1 / states)))}

    return ControlProgram(lambda: {"s": 0}, step, None, 0.5, sizes={"s": states})


def recording():
    """What is remembered is paid for as well."""

    def step(s):
        q = decide("q", Normal(0, 1).expand([A]).to_event(1))
        a = decide("a", Categorical(logits=jnp.zeros(A)))
        optimality(jnp.asarray(REWARD)[s, a] - jnp.sum(q**2))
        return {"s": s}

    return ControlProgram(initial, step, 2)


class Averaging(Noisy):
    """The same noisy values, with what a choice by them comes to."""

    def a_without_q(self, s):
        mean, std = 1.5 * self.mean[s], 1.5 * self.spread[s]
        return Categorical(probs=choice(mean, std)), mean_entropy(mean, std)


class Prepared(eqx.Module):
    """Its values are worked out of the program's arguments first."""

    spread: Array = parameter(constraints.positive)

    def prepare(self, mean, prices):
        return Averaging(mean + jnp.sum(prices), self.spread)


def test_what_a_guide_averages_out_needs_no_nodes():
    guide, averaging = as_guide(remembering(), noisy()), as_guide(remembering(), Averaging(*noisy().__dict__.values()))
    made, one, many = remembering(T, 0.6, 0.4), svi.NodeELBO(1), svi.NodeELBO(60)
    target = one.read(made)
    value, slopes = jax.jit(jax.value_and_grad(lambda guide: one.estimate(target, guide, KEY)))(averaging)
    by_nodes, wanted = jax.jit(jax.value_and_grad(lambda guide: many.estimate(target, guide, KEY)))(guide)
    assert float(value) == pytest.approx(float(by_nodes), rel=1e-10)
    for slope, other in zip(slopes.free, wanted.free, strict=True):
        np.testing.assert_allclose(slope, other, atol=1e-9)


@pytest.mark.slow
def test_without_an_end_it_is_what_late_ends_tend_to():
    guide, loss = as_guide(remembering(), noisy()), svi.NodeELBO(30)
    endless, late = (remembering(horizon, 0.5) for horizon in (None, 50))
    value, other = (float(jax.jit(loss.estimate)(loss.read(made), guide, KEY)) for made in (endless, late))
    assert value == pytest.approx(other, rel=1e-12)
    fit = svi.fit(endless, KEY, 100, guide=noisy(), loss=svi.NodeELBO(12), optimizer=ADAM)
    assert float(fit.elbo) > value


def test_tables_without_an_end_have_the_exact_elbo():
    made, loss = tabular(0.7, 1.0, None), svi.NodeELBO()
    target = loss.read(made)
    logits = jax.tree.map(lambda x: 5 * x, loss.start(target, KEY))
    table = svi.ExactELBO()
    exactly = jax.jit(table.estimate)(table.read(made), logits, KEY)
    assert float(jax.jit(loss.estimate)(target, logits, KEY)) == pytest.approx(float(exactly), rel=1e-12)


def priced(mean, prices):
    """Noise beside a mean and prices over time that are arguments."""

    def step(mean, price, s):
        decide("q", Normal(0, 1).expand([A]).to_event(1))
        a = decide("a", Categorical(logits=jnp.zeros(A)))
        optimality(jnp.asarray(REWARD)[s, a] - price)
        return {"s": numpyro.sample("s_next", Categorical(probs=jnp.asarray(TRANSITION)[s, a]))}

    return ControlProgram(lambda mean, price: initial(), step, T, args=(mean, over_time(prices)))


PRICES = jnp.asarray([0.2, -0.1, 0.4])


def test_what_is_averaged_out_is_seen_by_nothing_else():
    def step(s):
        decide("q", Normal(0, 1).expand([A]).to_event(1))
        decide("a", HALVES)
        decide("b", HALVES)
        return {"s": s}

    class Both(Averaging):
        def b(self, q):
            return Categorical(logits=q)

    with pytest.raises(ValueError, match=r"averages 'q' out: .*\['b'\] do"):
        ControlProgram(initial, step, 2).with_guide(Both(jnp.zeros((S, A)), jnp.ones((S, A))))


def test_an_average_may_vary_in_time():
    """Where only it takes t, the step is still another one at each time."""

    class Turning(Averaging):
        def a_without_q(self, s, t):
            return Categorical(probs=jnp.where(t == 0, jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]))), 0.0

    guide, loss = as_guide(remembering(), Turning(jnp.zeros((S, A)), jnp.ones((S, A)))), svi.NodeELBO(3)
    value = np.zeros(S)
    for action in (1, 1, 0):
        value = REWARD[:, action] + TRANSITION[:, action] @ value - np.log(A)
    found = jax.jit(loss.estimate)(loss.read(remembering()), guide, KEY)
    assert float(found) == pytest.approx(FIRST @ value, rel=1e-12)


def test_what_a_guide_says_wrongly_of_its_averages_is_no_number():
    class Boasting(Averaging):
        def a_without_q(self, s):
            return Categorical(probs=jnp.array([1.0, 0.0])), 5.0

    guide, loss = as_guide(remembering(), Boasting(*noisy().__dict__.values())), svi.NodeELBO(3)
    assert np.isnan(float(jax.jit(loss.estimate)(loss.read(remembering()), guide, KEY)))

    class Alone(Prepared):
        def prepare(self):
            return self

    with pytest.raises(TypeError, match="prepare takes the program's arguments, 2 of them"):
        priced(noisy().mean, PRICES).with_guide(Alone(noisy().spread))


def test_a_guide_is_prepared_with_the_arguments():
    mean, spread, loss = noisy().mean, noisy().spread, svi.NodeELBO(20)
    carrying = priced(mean, PRICES).with_guide(Prepared(spread))
    assert set(carrying.learned.params) == {"spread"}
    worked_out = as_guide(carrying, Averaging(mean + PRICES.sum(), spread))
    value, other = (
        float(jax.jit(loss.estimate)(loss.read(carrying), guide, KEY)) for guide in (carrying.learned, worked_out)
    )
    assert value == pytest.approx(other, rel=1e-12)
    # NumPyro's own is given the same.
    trace = numpyro.handlers.trace(numpyro.handlers.seed(carrying.guide, 0)).get_trace()
    np.testing.assert_allclose(trace["t0/q"]["fn"].loc, (mean + PRICES.sum())[trace["init/s_0"]["value"]])


@pytest.mark.slow
def test_a_prepared_guide_is_differentiated_in_the_arguments_and_played():
    spread, loss, sampled = noisy().spread, svi.NodeELBO(20), svi.ParticleELBO(4000)

    def value(mean):
        made = priced(mean, PRICES).with_guide(Prepared(spread))
        return loss.estimate(loss.read(made), made.learned, KEY)

    mean = noisy().mean
    found, slopes = jax.jit(jax.value_and_grad(value))(mean)
    ahead, behind = (jax.jit(value)(mean.at[0, 0].add(h)) for h in (1e-5, -1e-5))
    assert float(slopes[0, 0]) == pytest.approx(float(ahead - behind) / 2e-5, abs=1e-6)
    made = priced(mean, PRICES).with_guide(Prepared(spread))
    played = jax.jit(lambda key: sampled.estimate(sampled.read(made), made.learned, key))
    drawn = np.array([played(key) for key in jax.random.split(KEY, 10)])
    assert abs(drawn.mean() - float(found)) < 5 * drawn.std() / 3


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_divergences_are_those_of_densities(shape):
    rng = np.random.default_rng(1)
    one, two = (Normal(rng.normal(size=shape), rng.uniform(0.5, 2, shape)).to_event(len(shape)) for _ in range(2))
    x = jax.vmap(one.sample)(jax.random.split(KEY, 200_000))
    ratio = jax.vmap(lambda x: one.log_prob(x) - two.log_prob(x))(x)
    found = float(gaussian_kl(as_law(one), as_law(two)))
    assert abs(found - float(ratio.mean())) < 5 * float(ratio.std()) / 200_000**0.5


def test_divergences_of_correlated_vectors_and_of_certain_ones():
    rng = np.random.default_rng(4)
    factors = [np.tril(rng.normal(size=(3, 3))) + 2 * np.eye(3) for _ in range(2)]
    means = rng.normal(size=(2, 3))
    one, two = (
        as_law(MultivariateNormal(jnp.asarray(m), scale_tril=jnp.asarray(f)))
        for m, f in zip(means, factors, strict=True)
    )
    covs = [f @ f.T for f in factors]
    away, inverse = means[1] - means[0], np.linalg.inv(covs[1])
    logs = [np.linalg.slogdet(cov)[1] for cov in covs]
    wanted = 0.5 * (np.trace(inverse @ covs[0]) + away @ inverse @ away - 3 + logs[1] - logs[0])
    assert float(gaussian_kl(one, two)) == pytest.approx(wanted, rel=1e-12)
    assert float(gaussian_kl(one, one)) == pytest.approx(0.0, abs=1e-12)
    certain = eqx.tree_at(lambda law: law.factor, one, jnp.zeros((3, 3)))
    assert float(gaussian_kl(certain, certain)) == 0.0
    assert float(gaussian_kl(certain, two)) == np.inf and float(gaussian_kl(one, certain)) == np.inf
    assert gaussian_kl(one, as_law(Beta(1.0, 1.0))) is None


def rolling():
    def step(x):
        u = decide("u", Normal(0.0, 1.0))
        optimality(-(x**2))
        return {"x": x + u}

    return ControlProgram(lambda: {"x": numpyro.sample("x_0", Normal(0.0, 1.0))}, step, 2)


def seeing_data():
    def step(s):
        a = decide("a", HALVES, 2.0)
        numpyro.sample("y", Normal(1.0 * a, 1.0), obs=0.3)
        return {"s": s}

    return ControlProgram(initial, step, 2)


def crowded():
    def step(s):
        for name in "abc":
            numpyro.sample(name, Beta(1.0, 1.0))
        u = decide("u", Normal(0.0, 1.0))
        optimality(-(u**2))
        return {"s": s}

    return ControlProgram(initial, step, 2)


WRONG = {
    "a real state": (
        lambda: svi.fit(rolling(), KEY, 1, loss=svi.NodeELBO(), optimizer=ADAM),
        "the state holds .'x'.*ParticleELBO",
    ),
    "no end and many states": (lambda: svi.NodeELBO().check(endless(3000)), "program.unroll"),
    "an average over what others use": (
        lambda: recording().with_guide(Averaging(*noisy().__dict__.values())),
        r"averages 'q' out: .*\['optimality'\] do",
    ),
    "data": (
        lambda: svi.fit(seeing_data(), KEY, 1, loss=svi.NodeELBO(), optimizer=ADAM),
        "data beside an inverse temperature",
    ),
    "too many nodes": (lambda: svi.NodeELBO(400), "num_nodes is at most 100"),
    "an accuracy of nothing": (lambda: svi.NodeELBO(accuracy=-1.0), "accuracy must be above 0"),
    "too many points": (lambda: svi.NodeELBO().read(crowded()), "one step has .* points.*fewer nodes or draws"),
    "no nodes": (lambda: svi.NodeELBO(0), "num_nodes must be at least 1"),
    "no guide": (
        lambda: svi.fit(remembering(), KEY, 1, loss=svi.NodeELBO(), optimizer=ADAM),
        "no table holds; give guide=",
    ),
    "no optimizer": (lambda: svi.fit(tabular(), KEY, 1, loss=svi.NodeELBO()), "goes with an optimizer"),
    "nothing to gain": (
        lambda: svi.fit(remembering(tau=0.0), KEY, 1, guide=noisy(), loss=svi.NodeELBO(), optimizer=ADAM),
        "keeps its prior",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_nodes_cannot_integrate_is_refused(name):
    make, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        make()
