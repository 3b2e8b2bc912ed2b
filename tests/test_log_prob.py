"""The likelihood of behaviour against every history that the data leave open."""

import json
import os
from functools import partial
from itertools import cycle, product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.distributions import Bernoulli, Categorical, Normal
from oracles import behaviour
from programs_more import PAIRS
from scipy.special import logsumexp
from scipy.stats import norm
from selection import quick, quick_rows

from rlinf_ppl import ControlProgram, decide, models, optimality
from rlinf_ppl.inference import exact
from rlinf_ppl.tasks import MDP

KEY = jax.random.key(0)


def seen_of(pair, rng, share):
    """Trajectories under the prior, and what of them was seen: whole variables, or each value with a probability."""
    program, n = pair.control(), 3
    drawn = exact.sample(program, KEY, exact.prior_policy(program), n)
    data = {}
    for name in (*program.state, *(site.name for site in program.structure.step.latent)):
        if rng.random() < 0.35:
            continue
        values = np.asarray(drawn[name])
        if name in program.state and rng.random() < 0.5:
            values = values[:, :-1]
        there = np.ones(values.shape, bool) if rng.random() < 0.5 else rng.random(values.shape) < share
        data[name] = values, there
    return drawn, data


def listed(data, i):
    return {
        name: [v if s else None for v, s in zip(values[i].tolist(), there[i].tolist(), strict=True)]
        for name, (values, there) in data.items()
    }


@pytest.mark.parametrize(
    "name, seed", quick_rows(list(zip(PAIRS, cycle(range(2)), strict=False))[::2], product(PAIRS, range(2)))
)
def test_what_was_seen_is_as_probable_as_the_histories_that_it_leaves(name, seed):
    pair, rng = PAIRS[name], np.random.default_rng([seed, len(name)])
    program = pair.control()
    solution = exact.solve(program)
    policy = {d: np.asarray(q) for d, q in solution.policy.items()}
    supports, scopes = pair.truth.supports, program.scopes

    def rows(t, decision, values):
        places = [supports[axis].index(values[axis]) for axis in scopes[decision]]
        return policy[decision][(t, *places)]

    _, data = seen_of(pair, rng, 0.6)
    sites = [site.name for site in program.structure.step.latent]
    scored = [site for site in sites if site in data]
    if not scored:
        pytest.skip("no site was seen")
    given = {name: values if there.all() else (values, there) for name, (values, there) in data.items()}
    for own, table in ((None, None), (policy, rows)):
        found = exact.log_prob_terms(program, own, given, of=scored)
        for i in range(3):
            wanted = behaviour.prequential(pair.truth, table, listed(data, i), scored)
            for site in scored:
                steps = len(wanted[site])
                np.testing.assert_allclose(found[site][i][:steps], wanted[site], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", quick(list(PAIRS)[1::6], PAIRS))
def test_alternatives_are_foreseen_and_may_be_out_of_reach(name):
    """The probability of each, also of those that were not taken, and where some were not there."""
    pair, rng = PAIRS[name], np.random.default_rng([7, len(name)])
    program, truth = pair.control(), pair.truth
    policy = {d: np.asarray(q) for d, q in exact.solve(program).policy.items()}
    drawn, data = seen_of(pair, rng, 0.6)
    decision = next(iter(program.scopes))
    taken, steps = np.asarray(drawn[decision]), program.horizon
    there = rng.random(taken.shape) < 0.7
    data[decision] = taken, there
    support = truth.supports[decision]
    open_ = rng.random((*taken.shape, len(support))) < 0.5
    open_ |= taken[..., None] == np.asarray(support)
    # Where a policy takes nothing of what is there, there is no law of what it takes.
    open_ |= any((policy[d] == 0).any() for d in policy)

    def rows(t, name, values):
        return policy[name][(t, *(truth.supports[axis].index(values[axis]) for axis in program.scopes[name]))]

    given = {name: values if there.all() else (values, there) for name, (values, there) in data.items()}
    found = exact.foresee(program, policy, given, available={decision: open_}).probabilities
    terms = exact.log_prob_terms(program, policy, given, available={decision: open_})
    for i in range(3):
        wanted, shares = behaviour.told(truth, rows, listed(data, i), list(found), {decision: open_[i]})
        for site in found:
            np.testing.assert_allclose(found[site][i], shares[site], rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(terms[site][i], wanted[site], rtol=1e-10, atol=1e-12)
    assert found[decision].shape == (3, steps, len(support))


def test_alternatives_that_are_not_there_are_checked(walks):
    program = options(1.0)
    shape = (N, T, A)
    for available, error, message in (
        ({"s": np.ones((N, T, S), bool)}, ValueError, r"available names 's'; the decisions .* are \['b', 'z', 'a'\]"),
        ({"a": np.ones(shape)}, TypeError, "must be truth values; got float64"),
        ({"a": np.ones((N, T), bool)}, ValueError, r"it must be \(6, 5, 2\): \(n, T, alternatives\)"),
        ({"a": np.zeros(shape, bool)}, ValueError, r"available\['a'\]\[0, 0\] leaves no alternative of 'a'"),
    ):
        with pytest.raises(error, match=message):
            exact.log_prob(program, None, walks, available=available)
    never = np.arange(A) != walks["a"][..., None]
    assert np.isneginf(exact.log_prob(program, None, walks, available={"a": never})).all()


# ---- latent options: what was seen are states and actions ----------------------------------------------------------
S, A, M, T, N = 3, 2, 2, 5, 6
RNG = np.random.default_rng(0)
TASK = MDP(RNG.dirichlet(np.ones(S), (S, A)), RNG.normal(size=(S, A)), RNG.dirichlet(np.ones(S)))
OPTION_PRIOR = RNG.dirichlet(np.ones(A), (S, M))


def options(beta):
    return models.soft_options(TASK, T, M, beta=beta, action_prior=OPTION_PRIOR)


@pytest.fixture(scope="module")
def walks():
    program = options(1.3)
    drawn = exact.sample(program, KEY, exact.solve(program).policy, N)
    return {name: np.asarray(drawn[name]) for name in ("s", "a")}


def of_options(beta, data):
    program = options(beta)
    return exact.log_prob(program, exact.solve(program).policy, data)


def test_options_that_nobody_saw_are_summed_over(walks):
    """Against every history of options and terminations, one by one; with and without the state after the last step."""
    program = options(1.3)
    policy = {name: np.asarray(q) for name, q in exact.solve(program).policy.items()}
    first = np.asarray(exact.marginals(program, policy).state[0]).sum(0)
    first = first / first.sum()
    found = of_options(1.3, walks)
    for i in range(N):
        total = 0.0
        for before in range(M):
            for path in product(product(range(2), range(M)), repeat=T):
                weight, held = first[before], before
                for t, (b, z) in enumerate(path):
                    s, a = walks["s"][i, t], walks["a"][i, t]
                    weight *= policy["b"][t, s, held, b] * policy["z"][t, s, held, b, z] * policy["a"][t, s, z, a]
                    held = z
                total += weight
        assert float(found[i]) == pytest.approx(np.log(total), rel=1e-12)
    np.testing.assert_array_equal(of_options(1.3, walks | {"s": walks["s"][:, :T]}), found)


@pytest.mark.slow
def test_slopes_are_those_of_differences_and_subjects_are_vmapped(walks):
    def total(beta):
        return of_options(beta, walks).sum()

    h = 1e-5
    slope = jax.jit(jax.grad(total))(1.3)
    assert float(slope) == pytest.approx(float(total(1.3 + h) - total(1.3 - h)) / (2 * h), rel=1e-7)
    each = jax.vmap(lambda beta, s, a: of_options(beta, {"s": s[None], "a": a[None]})[0])
    betas = jnp.linspace(0.5, 2.0, N)
    found = jax.jit(each)(betas, walks["s"], walks["a"])
    one_by_one = [of_options(beta, jax.tree.map(lambda x, i=i: x[i : i + 1], walks))[0] for i, beta in enumerate(betas)]
    np.testing.assert_allclose(found, one_by_one, rtol=1e-12)


def test_what_stands_behind_the_end_of_a_sequence_is_no_matter(walks):
    lengths = np.array([5, 4, 3, 2, 1, 0])
    after = np.arange(T) >= lengths[:, None]
    ragged = {"s": np.where(np.arange(T + 1) > lengths[:, None], -1, walks["s"]), "a": np.where(after, 77, walks["a"])}
    program = options(1.3)
    policy = exact.solve(program).policy
    found = exact.log_prob_terms(program, policy, ragged, lengths=lengths)["a"]
    whole = exact.log_prob_terms(program, policy, walks)["a"]
    np.testing.assert_allclose(found, np.where(after, 0.0, whole), rtol=1e-12)
    masked = exact.log_prob(program, policy, walks | {"a": (walks["a"], ~after)})
    np.testing.assert_allclose(found.sum(1), masked, rtol=1e-12)
    known = jnp.asarray(lengths)
    total = jax.jit(lambda q: exact.log_prob(program, policy | {"a": q}, ragged, lengths=known).sum())
    assert float(total(policy["a"])) == pytest.approx(float(masked.sum()), rel=1e-12)
    assert np.isfinite(np.asarray(jax.grad(total)(policy["a"]))).all()


def test_all_that_was_seen_together_has_the_evidence_of_conditioning_on_it():
    """The terms of all sites, with a noisy signal of a hidden state, against the elimination with the data inside."""
    keep, signal = jnp.array([[0.9, 0.1], [0.3, 0.7]]), jnp.array([[0.8, 0.2], [0.1, 0.9]])
    prior = jnp.array([[0.7, 0.3], [0.2, 0.8]])

    def initial():
        return {"h": numpyro.sample("h0", Categorical(probs=jnp.array([0.4, 0.6]))), "m": 0}

    def step(h, m):
        o = numpyro.sample("o", Categorical(probs=signal[h]))
        a = decide("a", Categorical(probs=prior[(m + o) % 2]), unseen=("h",))
        optimality(1.0 * (a == h))
        return {"h": numpyro.sample("h_next", Categorical(probs=keep[h])), "m": o}

    program = ControlProgram(initial, step, 4, sizes={"m": 2})
    o, a = RNG.integers(2, size=(2, 3, 4))
    found = exact.log_prob(program, None, {"o": o, "a": a}, of=["o", "a"])

    def seen(o, a):
        def observed(o, a, h, m, t):
            numpyro.sample("o", Categorical(probs=signal[h]), obs=o[t])
            numpyro.sample("a", Categorical(probs=prior[(m + o[t]) % 2]), obs=a[t])
            return {"h": numpyro.sample("h_next", Categorical(probs=keep[h])), "m": o[t]}

        args = jnp.asarray(o), jnp.asarray(a)
        program = ControlProgram(lambda *_: initial(), observed, 4, args=args, sizes={"m": 2})
        return exact.condition(program).log_evidence

    np.testing.assert_allclose(found, [seen(*each) for each in zip(o, a, strict=True)], rtol=1e-12)


# ---- learners: what they have learned is computed from the data ----------------------------------------------------
def bandit(rate, beta, pays):
    def step(rate, beta, value, last):
        choice = decide("choice", Categorical(logits=beta * value + 0.3 * last))
        pay = numpyro.sample("pay", Bernoulli(probs=pays[choice]))
        here = jnp.arange(2) == choice
        return {"value": value + rate * (pay - value) * here, "last": 1.0 * here - 0.5}

    def initial(rate, beta):
        return {"value": jnp.zeros(2), "last": jnp.zeros(2)}

    return ControlProgram(initial, step, 30, args=(rate, beta))


def test_a_learner_has_the_likelihood_of_a_recursion_by_hand():
    choice, pay = RNG.integers(2, size=(2, N, 30))
    data, pays = {"choice": choice, "pay": pay}, jnp.array([0.3, 0.7])
    found = exact.log_prob_terms(bandit(0.2, 3.0, pays), None, data, of=("choice", "pay"))
    for i in range(N):
        value, last = np.zeros(2), np.zeros(2)
        for t in range(30):
            logits = 3.0 * value + 0.3 * last
            c, r = choice[i, t], pay[i, t]
            assert float(found["choice"][i, t]) == pytest.approx(logits[c] - logsumexp(logits), rel=1e-12, abs=1e-14)
            p = float(pays[c])
            assert float(found["pay"][i, t]) == pytest.approx(np.log(p if r else 1 - p), rel=1e-12)
            value[c] += 0.2 * (r - value[c])
            last = np.eye(2)[c] - 0.5


def test_slopes_of_a_learner_are_those_of_differences():
    choice, pay = RNG.integers(2, size=(2, N, 30))

    def total(theta):
        return exact.log_prob(
            bandit(theta[0], theta[1], jnp.array([0.3, 0.7])), None, {"choice": choice, "pay": pay}
        ).sum()

    at, h = jnp.array([0.2, 3.0]), 1e-5
    slope = jax.jit(jax.grad(total))(at)
    for i, e in enumerate(np.eye(2)):
        assert float(slope[i]) == pytest.approx(float(total(at + h * e) - total(at - h * e)) / (2 * h), rel=1e-6)


SHARED = Path(os.environ.get("RLINF_SHARED", Path(__file__).parents[2] / "shared")) / "data"


@pytest.mark.skipif(not SHARED.exists(), reason="the data of hBayesDM stand beside the project, if at all")
def test_a_bandit_has_the_log_likelihoods_of_hbayesdm():
    fixtures = json.loads((SHARED / "hbayesdm_loglik_fixtures.json").read_text())
    rows = np.genfromtxt(SHARED / "hbayesdm_bandit2arm_exampleData.txt", names=True, delimiter="\t")
    subjects = list(dict.fromkeys(rows["subjID"]))
    data = {
        "choice": np.stack([rows["choice"][rows["subjID"] == i] - 1 for i in subjects]).astype(int),
        "outcome": np.stack([rows["outcome"][rows["subjID"] == i] for i in subjects]),
    }

    def step(rate, tau, value):
        choice = decide("choice", Categorical(logits=tau * value))
        outcome = numpyro.sample("outcome", Normal(0.0, 1.0))
        return {"value": value + rate * (outcome - value) * (jnp.arange(2) == choice)}

    program = ControlProgram(lambda rate, tau: {"value": jnp.zeros(2)}, step, 100, args=(0.5, 1.0))
    found = np.asarray(exact.log_prob(program, None, data))
    assert found.sum() == pytest.approx(-1296.838, abs=1e-3)
    assert "bandit2arm" in json.dumps(list(fixtures))


# ---- decisions of real numbers, endless horizons, float32, zeros ----------------------------------------------------
def test_real_decisions_have_the_densities_of_their_policy():
    def step(x):
        u = decide("u", Normal(0.0, 1.0))
        optimality(-(x**2) - u**2)
        return {"x": numpyro.sample("x_next", Normal(x + u, 0.5))}

    program = ControlProgram(lambda: {"x": numpyro.sample("x0", Normal(1.0, 1.0))}, step, 4)
    gain, offset, cov = policy = exact.solve(program).policy["u"]
    x, u = RNG.normal(size=(N, 5)), RNG.normal(size=(N, 4))
    found = exact.log_prob_terms(program, {"u": policy}, {"x": x, "u": u}, of=("u", "x_next"))
    mean = np.asarray(gain)[:, 0, 0] * x[:, :4] + np.asarray(offset)[:, 0]
    np.testing.assert_allclose(found["u"], norm.logpdf(u, mean, np.sqrt(cov[:, 0, 0])), rtol=1e-9)
    np.testing.assert_allclose(found["x_next"], norm.logpdf(x[:, 1:], x[:, :4] + u, 0.5), rtol=1e-9)
    function = {"u": lambda x: Normal(-0.5 * x, 0.7)}
    found = exact.log_prob(program, function, {"x": x, "u": u})
    np.testing.assert_allclose(found, norm.logpdf(u, -0.5 * x[:, :4], 0.7).sum(1), rtol=1e-9)


def test_behaviour_without_end_follows_one_policy():
    program = models.single_agent(TASK, None, beta=2.0, discount=0.9)
    policy = exact.solve(program).policy
    s, a = RNG.integers(S, size=(N, 8)), RNG.integers(A, size=(N, 8))
    wanted = np.log(np.asarray(policy["a"])[s, a]).sum(1)
    np.testing.assert_allclose(exact.log_prob(program, policy, {"s": s, "a": a}), wanted, rtol=1e-12)
    with jax.enable_x64(False):
        task = MDP(*(np.asarray(x, np.float32) for x in (TASK.transition, TASK.reward, TASK.initial)))
        program = models.single_agent(task, None, beta=2.0, discount=0.9)
        found = exact.log_prob(program, exact.solve(program).policy, {"s": s, "a": a})
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_what_has_probability_zero_has_no_slope_that_is_no_number():
    policy = np.array([[1.0, 0.0], [0.5, 0.5], [0.2, 0.8]])
    program = models.single_agent(TASK, None, discount=0.9)
    data = {"s": np.array([[0, 1], [1, 2]]), "a": np.array([[1, 0], [0, 1]])}

    def total(q):
        return exact.log_prob(program, {"a": q}, data)

    found, slopes = total(policy), jax.jacobian(total)(jnp.asarray(policy))
    assert found[0] == -np.inf and float(found[1]) == pytest.approx(np.log(0.5 * 0.8))
    assert np.isfinite(np.asarray(slopes)).all() and float(slopes[1, 2, 1]) == pytest.approx(1 / 0.8)


def test_traced_values_that_a_variable_does_not_take_are_no_number():
    program = models.single_agent(TASK, None, discount=0.9)
    policy = exact.prior_policy(program)
    found = jax.jit(lambda a: exact.log_prob(program, policy, {"s": np.zeros((2, 1), int), "a": a}))(
        jnp.array([[0], [7]])
    )
    assert np.isfinite(found[0]) and np.isnan(found[1])


# ---- bad input -------------------------------------------------------------------------------------------------------
ENDLESS = partial(models.single_agent, TASK, None, discount=0.9)


def of_data(data, of=None, lengths=None, program=ENDLESS, policy=None):
    return lambda: exact.log_prob(program(), policy, data, of, lengths)


def noisy():
    def step(x):
        u = decide("u", Normal(0.0, 1.0))
        return {"x": numpyro.sample("x_next", Normal(x + u, 0.5))}

    return ControlProgram(lambda: {"x": numpyro.sample("x0", Normal(1.0, 1.0))}, step, 3)


GOOD = {"s": np.zeros((2, 4), int), "a": np.zeros((2, 3), int)}
WRONG = {
    "no data": (of_data({}), TypeError, "data must be a dict of what was seen"),
    "an array": (of_data(np.zeros((2, 3))), TypeError, "data must be a dict .* got ndarray"),
    "a name that is none": (
        of_data(GOOD | {"b": GOOD["a"]}),
        ValueError,
        r"data name \['b'\]; .* are \['s', 'a', 's_next'\]",
    ),
    "words": (of_data(GOOD | {"a": [["left"]]}), TypeError, r"data\['a'\] must be"),
    "one sequence without its axis": (
        of_data({"s": [0, 1], "a": [0, 1]}),
        ValueError,
        r"data\['s'\] has shape \(2,\); it must be \(n, T or T \+ 1\)",
    ),
    "sequences of other numbers": (
        of_data(GOOD | {"a": np.zeros((3, 3), int)}),
        ValueError,
        "different numbers of sequences: {'s': 2, 'a': 3}",
    ),
    "steps of other numbers": (of_data(GOOD | {"a": np.zeros((2, 5), int)}), ValueError, "different numbers of steps"),
    "too many steps": (
        of_data({"x": np.zeros((1, 6)), "u": np.zeros((1, 5))}, program=noisy),
        ValueError,
        "data have 5 steps, and the program's horizon is 3",
    ),
    "a state outside": (
        of_data(GOOD | {"s": np.array([[0, 1, 2, 3], [0, 0, 0, 0]])}),
        ValueError,
        r"data\['s'\]\[0, 3\] is 3, and 's' takes the values 0 to 2",
    ),
    "half a state": (of_data(GOOD | {"s": np.full((2, 4), 0.5)}), ValueError, r"data\['s'\]\[0, 0\] is 0.5"),
    "NaN": (
        of_data(GOOD | {"a": np.array([[0, 1, np.nan], [0, 0, 0]])}),
        ValueError,
        r"data\['a'\]\[0, 2\] is nan.* Give \(values, seen\)",
    ),
    "a mask of another shape": (
        of_data(GOOD | {"a": (GOOD["a"], np.ones((2, 2), bool))}),
        ValueError,
        "seen must be an array",
    ),
    "a mask of numbers": (of_data(GOOD | {"a": (GOOD["a"], np.ones((2, 3)))}), ValueError, "truth values"),
    "no decision": (of_data({"s": GOOD["s"]}), ValueError, r"data hold no decision, .* are \['a'\]. Name the sites"),
    "a state to score": (of_data(GOOD, of="s"), ValueError, "'s' is a state variable: its site is 's_next'"),
    "a name to score": (of_data(GOOD, of=["a", "b"]), ValueError, r"of names 'b'; .* are \['a', 's_next'\]"),
    "nothing to score": (of_data(GOOD, of=[]), ValueError, "of names no site"),
    "one number to score": (of_data(GOOD, of=3), TypeError, "of must be names of sites; got 3"),
    "lengths that lack": (of_data(GOOD, lengths=[3, None]), TypeError, "lengths must be"),
    "lengths that are words": (of_data(GOOD, lengths="ab"), TypeError, "lengths must be"),
    "a learner that was seen in places": (
        of_data(
            {
                "choice": np.zeros((1, 30), int),
                "pay": np.zeros((1, 30), int),
                "value": (np.zeros((1, 30, 2)), np.ones((1, 30), bool)),
            },
            program=lambda: bandit(0.1, 1.0, jnp.ones(2) / 2),
        ),
        ValueError,
        "'value' is computed from the other data, and was seen in places",
    ),
    "a number to score": (of_data(GOOD, of=[3]), TypeError, "of must be names of sites; got 3"),
    "lengths of another number": (of_data(GOOD, lengths=[3]), ValueError, "there are 2 sequences"),
    "lengths that are long": (of_data(GOOD, lengths=[3, 4]), ValueError, "from 0 to the 3 steps"),
    "lengths that are no numbers": (of_data(GOOD, lengths=[3.0, 2.0]), TypeError, "whole numbers"),
    "a real state that nobody saw": (
        of_data({"u": np.zeros((1, 3))}, program=noisy),
        ValueError,
        "'x' has no finite number of values, and the data do not determine it",
    ),
    "a learner with a choice missing": (
        of_data(
            {"choice": (np.zeros((1, 30), int), np.arange(30)[None] != 3), "pay": np.zeros((1, 30), int)},
            program=lambda: bandit(0.1, 1.0, jnp.ones(2)),
        ),
        ValueError,
        "'value' has no finite number of values, and the data do not determine it",
    ),
    "a policy without its decision": (of_data(GOOD, policy={}), ValueError, r"policy has the decisions \[\]"),
    "no program": (lambda: exact.log_prob(TASK, None, GOOD), TypeError, "an engine takes a ControlProgram first"),
}


@pytest.mark.parametrize("call, error, message", WRONG.values(), ids=WRONG)
def test_bad_data_are_refused(call, error, message, monkeypatch):
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(error, match=message):
        call()


def test_masked_arrays_are_those_of_numpy():
    """Whose masks are true where values are missing."""
    program, policy = ENDLESS(), exact.prior_policy(ENDLESS())
    masked = np.ma.masked_array([[0, 1, 99]], mask=[[False, False, True]])
    found = exact.log_prob(program, policy, {"s": np.array([[0, 1, 2]]), "a": masked})
    pair = exact.log_prob(program, policy, {"s": np.array([[0, 1, 2]]), "a": ([[0, 1, 0]], [[True, True, False]])})
    np.testing.assert_array_equal(found, pair)


# ---- what cannot be, what ends, and what is nothing ------------------------------------------------------------------
PRIOR = jnp.array([[0.9, 0.1], [0.4, 0.6]])


def climbing(horizon=3):
    """A state that is computed: it goes up with the decision, and may leave its two values."""

    def step(s):
        return {"s": s + decide("a", Categorical(probs=PRIOR[s]))}

    return ControlProgram(lambda: {"s": 0}, step, horizon, sizes={"s": 2})


def test_a_computed_state_that_leaves_its_values_is_no_state():
    program, data = climbing(), {"a": np.array([[1, 1, 1]])}
    with pytest.raises(
        ValueError, match="the probability of 'a' in sequence 0 at step 2 is no number.*leaves its values"
    ):
        exact.log_prob(program, None, data)
    traced = jax.jit(lambda a: exact.log_prob_terms(program, None, {"a": a})["a"])(data["a"])
    np.testing.assert_allclose(traced[0, :2], np.log([0.1, 0.6]), rtol=1e-12)
    assert np.isnan(traced[0, 2])


def test_what_contradicts_itself_has_probability_zero():
    """A state that the decisions do not lead to, seen in places or at every time; a step that no law takes."""
    seen = {"a": np.array([[1, 0, 0]])}
    for s in (np.array([[0, 0, 0]]), (np.array([[0, 0, 0]]), np.array([[True, False, True]]))):
        assert exact.log_prob(climbing(), None, seen | {"s": s})[0] == -np.inf
    agreeing = exact.log_prob(climbing(), None, seen | {"s": np.array([[0, 1, 1]])})
    np.testing.assert_allclose(agreeing, exact.log_prob(climbing(), None, seen), rtol=1e-12)
    moves = jnp.array([[[0.5, 0.5, 0.0]] * 2, [[0.0, 1.0, 0.0]] * 2, [[0.2, 0.3, 0.5]] * 2])
    program = models.single_agent(MDP(moves, TASK.reward, TASK.initial), None, discount=0.9)
    never = exact.log_prob_terms(program, None, {"s": np.array([[0, 2, 2], [0, 1, 1]]), "a": np.zeros((2, 3), int)})[
        "a"
    ]
    np.testing.assert_array_equal(never, [[-np.inf] * 3, [np.log(0.5)] * 3])
    # Where somebody was seen first is taken as it is.
    first = {"a": np.array([[0, 0]]), "s": np.array([[1, 1]])}
    assert np.isfinite(exact.log_prob(climbing(), None, first)[0])
    assert exact.log_prob(climbing(), None, first | {"s": (first["s"], np.array([[True, False]]))})[0] == -np.inf


@pytest.mark.parametrize("pad", [0, 1, 2, -1])
def test_padding_behind_the_end_is_no_state_that_was_seen(pad):
    def step(s):
        h = decide("h", Categorical(probs=jnp.array([0.2, 0.3, 0.5])))
        decide("a", Categorical(probs=jnp.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])[h]))
        return {"s": h}

    program = ControlProgram(lambda: {"s": 0}, step, None, discount=0.9, sizes={"s": 3})
    padded = {"s": np.array([[0, pad]]), "a": np.array([[1, 0]])}
    found = exact.log_prob_terms(program, None, padded, of="a", lengths=[1])["a"]
    cut = exact.log_prob_terms(program, None, {"s": np.array([[0]]), "a": np.array([[1]])}, of="a")["a"]
    np.testing.assert_allclose(found, [[cut[0, 0], 0.0]], rtol=1e-12)
    several = jax.jit(lambda n: exact.log_prob(program, None, {"a": np.zeros((1, 2), int)}, of="a", lengths=n))
    assert np.isnan(several(jnp.array([9]))[0]) and np.isnan(several(jnp.array([-1]))[0])


def test_whole_numbers_are_whole_and_plates_too():
    from numpyro.distributions import Poisson

    def counting(x):
        return {"x": x + decide("u", Poisson(2.0))}

    def flipping(x):
        with numpyro.plate("i", 3):
            u = decide("u", Bernoulli(jnp.array([0.2, 0.5, 0.9])))
        return {"x": x + u.sum()}

    counted = ControlProgram(lambda: {"x": 0}, counting, 2)
    flipped = ControlProgram(lambda: {"x": 0}, flipping, 1)
    np.testing.assert_allclose(
        exact.log_prob(counted, None, {"u": np.array([[0.0, 2.0]])}), -4 + np.log(2.0), rtol=1e-12
    )
    for program, u in ((counted, [[0, 1.5]]), (counted, [[0, np.nan]]), (flipped, [[[0, 1, np.nan]]])):
        with pytest.raises(ValueError, match=r"data\['u'\]\[0, .*takes whole numbers"):
            exact.log_prob(program, None, {"u": np.array(u)})
    with pytest.raises(TypeError, match="is traced and holds real numbers"):
        jax.jit(lambda u: exact.log_prob(counted, None, {"u": u}))(np.array([[0.0, 1.0]]))
    with pytest.raises(TypeError, match="holds complex numbers"):
        exact.log_prob(counted, None, {"u": np.array([[0, 1j]])})


@pytest.mark.parametrize("seen", [[True, True], [True, False], [False, False]])
def test_real_numbers_that_nothing_depends_on_may_be_missing(seen):
    def step(s):
        a = decide("a", Bernoulli(0.3))
        numpyro.sample("y", Normal(1.0 * a, 1.0))
        return {"s": a}

    program = ControlProgram(lambda: {"s": 0}, step, 2, sizes={"s": 2})
    y, there = np.array([[0.4, -0.2]]), np.array([seen])
    found = exact.log_prob_terms(program, None, {"a": np.array([[0, 1]]), "y": (y, there)}, of=["a", "y"])
    np.testing.assert_allclose(found["y"], np.where(there, norm.logpdf(y, [[0.0, 1.0]]), 0.0), rtol=1e-12)
    np.testing.assert_allclose(found["a"], np.log([[0.7, 0.3]]), rtol=1e-12)


def test_what_was_drawn_is_data_as_it_is(walks):
    program = options(1.3)
    policy = exact.solve(program).policy
    drawn = exact.sample(program, KEY, policy, N)
    assert "optimality" in drawn
    every = exact.log_prob_terms(program, policy, drawn, of=["b", "z", "a"])
    assert all(np.isfinite(np.asarray(each)).all() for each in every.values())
    only = {name: drawn[name] for name in ("s", "a")}
    np.testing.assert_allclose(exact.log_prob(program, policy, only), of_options(1.3, only), rtol=1e-12)
