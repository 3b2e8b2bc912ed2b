"""Programs of the kinds that newcomers write, which no table holds, in every engine that can run them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from selection import quick

from rlinf_ppl import ControlProgram, decide, optimality, truncated
from rlinf_ppl.inference import exact, execution, smc, svi

KEY = jax.random.key(0)
HORIZON = 4
WAY = {"loss": svi.ParticleELBO(200), "optimizer": optax.adam(0.02)}


def bandit():
    """Two arms, and values that a delta rule keeps: a real state beside finite sites."""

    def initial():
        return {"q": jnp.zeros(2)}

    def step(q):
        a = decide("arm", dist.Categorical(logits=2.0 * q))
        won = numpyro.sample("won", dist.Bernoulli(jnp.array([0.3, 0.8])[a]))
        optimality(1.0 * won)
        return {"q": q.at[a].add(0.4 * (won - q[a]))}

    return ControlProgram(initial, step, HORIZON)


def foraging():
    """Patches that are left or kept: what is met is Poisson, what was eaten is counted without bound."""

    def initial():
        return {"food": 0, "patch": {"rate": numpyro.sample("rate", dist.Gamma(3.0, 1.0)), "age": 0}}

    def step(food, patch):
        leave = decide("leave", dist.Bernoulli(0.5))
        fresh = numpyro.sample("fresh", dist.Gamma(3.0, 1.0))
        rate = jnp.where(leave == 1, fresh, patch["rate"] * 0.7)
        met = numpyro.sample("met", dist.Poisson(rate))
        optimality(0.2 * met - 0.5 * leave)
        return {"food": food + met, "patch": {"rate": rate, "age": jnp.where(leave == 1, 0, patch["age"] + 1)}}

    return ControlProgram(initial, step, HORIZON)


def reaching():
    """A hand that is pushed within bounds, and trembles with heavy tails."""

    def initial():
        return {"x": numpyro.sample("x0", dist.Uniform(-1.0, 1.0))}

    def step(x):
        u = decide("push", dist.TruncatedNormal(0.0, 1.0, low=-0.5, high=0.5))
        moved = numpyro.sample("moved", dist.StudentT(4.0, x + u, 0.1))
        optimality(-2.0 * jnp.abs(x - 1.0))
        return {"x": moved}

    return ControlProgram(initial, step, HORIZON)


def volleys():
    """Plates of counts and of data, a matrix in the state, and an action between 0 and 1."""

    def initial():
        return {"seen": jnp.zeros((2, 3))}

    def step(seen, t):
        share = decide("share", dist.Beta(2.0, 2.0))
        with numpyro.plate("sides", 2, dim=-2), numpyro.plate("shots", 3, dim=-1):
            hits = numpyro.sample("hits", dist.Binomial(4, share))
        with numpyro.plate("judges", 2):
            numpyro.sample("mark", dist.Normal(share, 0.5), obs=jnp.array([0.4, 0.9]))
        optimality(0.1 * jnp.sum(hits) - 0.1 * t)
        return {"seen": seen + hits}

    return ControlProgram(initial, step, 2)


def simulated(name, n, rng):
    """Log weights of n trajectories of the prior, in NumPy alone."""
    total = np.zeros(n)
    if name == "bandit":
        q = np.zeros((n, 2))
        for _ in range(HORIZON):
            a = (rng.uniform(size=n) < 1 / (1 + np.exp(2 * (q[:, 0] - q[:, 1])))).astype(int)
            won = rng.uniform(size=n) < np.array([0.3, 0.8])[a]
            total += won
            q[np.arange(n), a] += 0.4 * (won - q[np.arange(n), a])
    if name == "foraging":
        rate = rng.gamma(3.0, size=n)
        for _ in range(HORIZON):
            leave = rng.uniform(size=n) < 0.5
            rate = np.where(leave, rng.gamma(3.0, size=n), 0.7 * rate)
            total += 0.2 * rng.poisson(rate) - 0.5 * leave
    if name == "reaching":
        x = rng.uniform(-1, 1, size=n)
        for _ in range(HORIZON):
            total += -2 * np.abs(x - 1)
            u = rng.normal(size=(n, 20))
            first = np.argmax(np.abs(u) < 0.5, 1)
            x = x + u[np.arange(n), first] + 0.1 * rng.standard_t(4.0, size=n)
    if name == "volleys":
        for t in range(2):
            share = rng.beta(2.0, 2.0, size=n)
            for mark in (0.4, 0.9):
                total += -0.5 * ((mark - share) / 0.5) ** 2 - np.log(0.5 * np.sqrt(2 * np.pi))
            total += 0.1 * rng.binomial(24, share) - 0.1 * t
    return total


PROGRAMS = {"bandit": bandit, "foraging": foraging, "reaching": reaching, "volleys": volleys}


@pytest.fixture(scope="module", params=quick(["foraging"], PROGRAMS))
def case(request):
    paid = simulated(request.param, 400_000, np.random.default_rng(1))
    weights = np.exp(paid)
    return PROGRAMS[request.param](), weights.mean(), weights.std() / len(weights) ** 0.5, paid.mean()


def check(program, truth, error, **options):
    """The evidence of many runs against the truth, in standard errors."""
    run = lambda key: smc.run(program, key, 500, **options).log_evidence  # noqa: E731
    found = np.exp(jax.vmap(run)(jax.random.split(KEY, 40)))
    assert abs(found.mean() - truth) < 4.5 * np.hypot(error, found.std(ddof=1) / 40**0.5)


def test_the_evidence_is_that_of_simulated_trajectories(case):
    program, truth, error, _ = case
    check(program, truth, error)


@pytest.mark.slow
def test_a_network_learns_the_decision_and_is_a_proposal(case):
    program, truth, error, prior = case
    fit = svi.fit(program, KEY, 100, guide=svi.networks(program, KEY, width=8, depth=1), **WAY)
    # The bound is above that of the prior policy and below the evidence; weights correct what the network proposes.
    assert prior < fit.elbo < np.log(truth)
    check(program, truth, error, proposal=fit)


@pytest.mark.slow
def test_episodes_of_the_prior_pay_what_simulated_ones_do(case):
    program, *_ = case
    (name,) = program.scopes
    prior = {"arm": lambda q: dist.Categorical(logits=2.0 * q), "leave": lambda: dist.Bernoulli(0.5)}
    prior |= {"push": lambda: dist.TruncatedNormal(0.0, 1.0, low=-0.5, high=0.5), "share": lambda: dist.Beta(2.0, 2.0)}
    played = execution.roll_out(program, KEY, {name: prior[name]}, 20_000)
    kind = {"arm": "bandit", "leave": "foraging", "push": "reaching", "share": "volleys"}[name]
    paid = simulated(kind, 200_000, np.random.default_rng(2))
    if kind == "volleys":
        paid = np.full(1, 0.1 * 24 * 0.5 * 2 - 0.1)  # without the data
    assert abs(played.mean - paid.mean()) < 4.5 * np.hypot(played.standard_error, paid.std() / len(paid) ** 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bandit", "foraging"])
def test_paths_that_are_sampled_backwards_are_possible(name):
    """Counters and learned values are functions of what happened, so a path has to add up."""
    program = PROGRAMS[name]()
    for paths in (smc.smooth(program, KEY, 50, 40), smc.particle_gibbs(program, KEY, 10, 40)):
        found = jax.tree.map(np.asarray, paths.trajectories)
        if name == "foraging":
            np.testing.assert_array_equal(np.diff(found["food"]), found["met"])
            assert (
                found["patch"]["age"][:, 1:] == np.where(found["leave"], 0, found["patch"]["age"][:, :-1] + 1)
            ).all()
        else:
            for t in range(HORIZON):
                q, a, won = found["q"][:, t], found["arm"][:, t], found["won"][:, t]
                after = q.copy()
                rows = np.arange(len(q))
                after[rows, a] += 0.4 * (won - q[rows, a])
                np.testing.assert_allclose(found["q"][:, t + 1], after, rtol=1e-6)


@pytest.mark.slow
def test_the_actor_critic_walks_through_counters_and_nested_states():
    program = foraging()
    fit = svi.fit(
        program,
        KEY,
        30,
        guide=svi.networks(program, KEY, width=8, depth=1),
        loss=svi.ActorCritic(num_walkers=8, batch_size=16, capacity=64),
        optimizer=optax.adam(1e-3),
    )
    assert np.isfinite(fit.elbo)
    law = fit.policy["leave"](food=3, patch={"rate": 2.0, "age": 1}, t=0)
    assert float(law.probs.sum()) == pytest.approx(1.0)


def test_a_count_that_is_truncated_has_exact_answers():
    def program(law):
        def step(s):
            a = decide("a", dist.Bernoulli(0.5))
            optimality(0.1 * numpyro.sample("n", law(1.0 + a)))
            return {"s": s}

        return ControlProgram(lambda: {"s": 0}, step, 2, sizes={"s": 1})

    found = exact.condition(program(lambda rate: truncated(dist.Poisson(rate), 30))).log_evidence
    truth = 2 * np.log(0.5 * sum(np.exp(rate * (np.exp(0.1) - 1)) for rate in (1.0, 2.0)))
    assert float(found) == pytest.approx(truth, rel=1e-10)
    run = jax.vmap(lambda key: smc.run(program(dist.Poisson), key, 2000).log_evidence)(jax.random.split(KEY, 20))
    assert abs(np.mean(np.exp(run)) - np.exp(truth)) < 4.5 * np.std(np.exp(run)) / 20**0.5


def test_the_model_runs_in_numpyro():
    trace = numpyro.handlers.trace(numpyro.handlers.seed(volleys().model, 0)).get_trace()
    assert trace["t1/hits"]["value"].shape == (2, 3) and trace["t0/mark"]["is_observed"]
