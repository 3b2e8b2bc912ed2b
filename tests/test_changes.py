"""Programs that change: arguments over time, other arguments, other priors, other inverse temperatures."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import handlers
from numpyro.distributions import Bernoulli, Categorical, DiscreteUniform, Normal
from numpyro.infer.util import log_density
from oracles import changes as oracle
from selection import quick

from rlinf_ppl import ControlProgram, decide, models, optimality, over_time
from rlinf_ppl.inference import exact, smc, svi
from rlinf_ppl.inference.chains import answers
from rlinf_ppl.program import tracing
from rlinf_ppl.program.precision import in_double
from rlinf_ppl.tasks import MDP, LinearQuadratic

S, A, B, T = 3, 2, 3, 4
KEY = jax.random.key(0)
RNG = np.random.default_rng(11)
FIRST = RNG.dirichlet(np.ones(S))
TRANSITION = RNG.dirichlet(np.ones(S), size=(S, A, B))
REWARD = RNG.normal(size=(T, S, A, B))
PRIOR = RNG.dirichlet(np.ones(A), size=(T, S))
OTHER_PRIOR = RNG.dirichlet(np.ones(B), size=(T, S, A))
TAUS = np.array([[0.7, -1.3]])
LAST = RNG.normal(size=(T + 1, S))


def initial(*args):
    return {"s": numpyro.sample("s_0", Categorical(probs=jnp.asarray(FIRST)))}


def step(reward, transition, prior, other_prior, taus, last, s):
    a = decide("a", Categorical(probs=prior[s]), taus[0])
    b = decide("b", Categorical(probs=other_prior[s, a]), taus[1])
    optimality(reward[s, a, b])
    return {"s": numpyro.sample("s_next", Categorical(probs=transition[s, a, b]))}


def final(reward, transition, prior, other_prior, taus, last, s):
    optimality(last[s])


def program(reward=REWARD, prior=PRIOR, other_prior=OTHER_PRIOR, taus=TAUS[0], last=LAST, **more):
    args = over_time(reward), jnp.asarray(TRANSITION), over_time(prior), over_time(other_prior), taus, over_time(last)
    return ControlProgram(initial, step, T, final=final, args=args, **more)


def expected(reward=REWARD, prior=PRIOR, other_prior=OTHER_PRIOR, taus=TAUS, last=LAST[-1]):
    return oracle.solve(FIRST, TRANSITION, reward, prior, other_prior, np.broadcast_to(taus, (T, 2)), last)


def check(made, wanted, atol=1e-12):
    solved = exact.solve(made)
    value, own, other = wanted
    assert solved.converged and float(solved.elbo) == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(solved.policy["a"], own, atol=atol)
    np.testing.assert_allclose(solved.policy["b"], other, atol=atol)
    return solved


def test_each_step_sees_its_own_row_and_the_end_the_last_one():
    check(program(), expected())


def test_a_row_is_what_a_step_with_t_would_look_up():
    def with_t(reward, transition, prior, other_prior, taus, last, s, t):
        return step(reward[t], transition, prior[t], other_prior[t], taus, last, s)

    def at_the_end(reward, transition, prior, other_prior, taus, last, s):
        optimality(last[-1][s])

    args = tuple(map(jnp.asarray, (REWARD, TRANSITION, PRIOR, OTHER_PRIOR, TAUS[0], LAST)))
    one, other = program(), ControlProgram(initial, with_t, T, final=at_the_end, args=args)
    assert one.scopes == other.scopes and one.structure.takes_time
    for ours, theirs in zip(*(jax.tree.leaves(exact.solve(made)) for made in (one, other)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def policies(seed=0, stationary=False):
    rng = np.random.default_rng(seed)
    lead = () if stationary else (T,)
    a, b = rng.dirichlet(np.ones(A), size=(*lead, S)), rng.dirichlet(np.ones(B), size=(*lead, S, A))
    b[..., 0, 0, :] = [0.0, 0.4, 0.6]
    return {"a": a, "b": b}


@pytest.mark.parametrize("kept", quick(["both"], ["both", "a", "b", "stationary", "size one"]))
def test_a_policy_as_the_prior(kept):
    given = policies(stationary=kept == "stationary")
    if kept in given:
        given = {kept: given[kept]}
    if kept == "size one":
        given = {"b": given["b"][:, :, :1]}
    own = np.broadcast_to(given.get("a", PRIOR), PRIOR.shape)
    other = np.broadcast_to(given.get("b", OTHER_PRIOR), OTHER_PRIOR.shape)
    made = program().with_prior(given)
    check(made, expected(prior=own, other_prior=other))
    # A second prior takes the place of the first, without another trace.
    later = policies(1)
    check(made.with_prior(later), expected(prior=later["a"], other_prior=later["b"]))


def test_the_prior_of_a_program_that_was_changed_is_its_own_no_more():
    base = program()
    made = base.with_prior(policies())
    check(base, expected())
    check(made, expected(prior=policies()["a"], other_prior=policies()["b"]))


FACTORS = {
    "a number": 2.5,
    "over time": np.array([0.5, 3.0, 0.0, 1.0]),
    "none": 0.0,
    "infinite": np.inf,
    "turned round": -0.4,
}


@pytest.mark.parametrize("name", quick(["over time", "infinite"], FACTORS))
def test_inverse_temperatures_are_multiplied(name):
    factor = FACTORS[name]
    taus = TAUS * np.broadcast_to(factor, (T,))[:, None]
    made = program().tempered(factor)
    check(made, expected(taus=taus))
    check(made.tempered(0.5), expected(taus=0.5 * taus))
    check(made.tempered(np.full(T, 2.0)), expected(taus=2 * taus))


def test_a_decision_that_keeps_its_prior_does_so_at_any_factor():
    solved = exact.solve(program(taus=np.array([0.0, 1.0])).tempered(np.inf))
    np.testing.assert_allclose(solved.policy["a"], PRIOR, atol=1e-15)
    assert np.isfinite(solved.elbo)


def test_prior_and_temperature_together():
    made = program().tempered(2.0).with_prior(policies())
    wanted = expected(prior=policies()["a"], other_prior=policies()["b"], taus=2 * TAUS)
    check(made, wanted)
    check(program().with_prior(policies()).tempered(2.0), wanted)


def test_without_end():
    mdp = MDP(TRANSITION[:, :, 0], REWARD[0, :, :, 0], FIRST)
    base = models.single_agent(mdp, None, discount=0.9)
    given = policies(stationary=True)["a"]
    direct = exact.solve(models.single_agent(mdp, None, beta=2.0, prior=given, discount=0.9))
    changed = exact.solve(base.with_prior({"a": given}).with_args(*(*base.args[:2], 2.0)))
    assert changed.converged
    np.testing.assert_allclose(changed.policy["a"], direct.policy["a"], rtol=1e-7)
    with pytest.raises(ValueError, match="tempered takes one number; got shape"):
        models.single_agent(mdp, None, discount=0.9).tempered(np.ones(3))


def test_a_gaussian_policy_as_the_prior():
    rng = np.random.default_rng(3)
    system = LinearQuadratic(
        0.9 * np.eye(2), rng.normal(size=(2, 1)), np.ones(2), 0.1 * np.eye(2), -np.eye(2), -np.eye(1), np.zeros(2),
        np.ones(2), np.eye(2),
    )  # fmt: skip
    base = models.linear_gaussian(system, T)
    prior = rng.normal(size=(T, 1, 2)), rng.normal(size=(T, 1)), 0.3 + rng.random(size=(T, 1, 1))
    direct, changed = (
        exact.solve(models.linear_gaussian(system, T, prior=prior)),
        exact.solve(base.with_prior({"u": prior})),
    )
    for ours, theirs in zip(changed.policy["u"], direct.policy["u"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    again = exact.solve(base.with_prior(direct))
    assert again.converged and float(again.elbo) > float(direct.elbo)


def test_other_values_than_positions():
    def signed(s):
        a = decide("a", Bernoulli(probs=0.3))
        optimality(jnp.asarray([0.3, -0.2])[s] * (2.0 * a - 1.0))
        return {"s": a}

    made = ControlProgram(lambda: {"s": numpyro.sample("s_0", Bernoulli(probs=0.5))}, signed, 3)
    given = np.array([[0.9, 0.1], [0.2, 0.8]])
    changed = exact.solve(made.with_prior({"a": given})).policy["a"]
    weights = given * np.exp(np.array([[-0.3, 0.3], [0.2, -0.2]]))
    np.testing.assert_allclose(changed[-1], weights / weights.sum(-1, keepdims=True), rtol=1e-12)


def test_values_that_do_not_start_at_zero():
    """A prior of two to four, with a zero, in all that reads it; and its slopes."""

    def dice(s):
        a = decide("a", DiscreteUniform(2, 4))
        optimality(0.3 * a * (s + 1))
        return {"s": s}

    made, given = ControlProgram(initial, dice, 2), np.array([[0.2, 0.0, 0.8], [0.5, 0.5, 0.0], [0.1, 0.6, 0.3]])
    changed = made.with_prior({"a": given})
    solved = exact.solve(changed)
    weights = given * np.exp(0.3 * np.arange(2, 5) * np.arange(1, 4)[:, None])
    np.testing.assert_allclose(solved.policy["a"][0], weights / weights.sum(-1, keepdims=True), rtol=1e-12)
    assert float(exact.elbo(changed, solved.policy)) == pytest.approx(float(solved.elbo), rel=1e-12)
    again = changed.with_prior(solved)
    assert float(exact.solve(again).elbo) > float(solved.elbo)
    assert np.isfinite(exact.sample(changed, KEY, solved.policy, 5)["a"]).all()
    slope = jax.grad(lambda x: exact.solve(made.with_prior({"a": x})).elbo)(jnp.asarray(given))
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("at", [0.0, 0.4])
def test_slopes_in_the_factor_and_in_what_it_multiplies(at):
    def value(own, factor):
        return exact.solve(program(taus=own * jnp.ones(2)).tempered(factor)).elbo

    for place, point in ((0, (at, 1.3)), (1, (1.3, at))):
        slope = jax.grad(value, place)(*point)
        ends = [value(*(x + h if j == place else x for j, x in enumerate(point))) for h in (1e-5, -1e-5)]
        assert float(slope) == pytest.approx(float(ends[0] - ends[1]) / 2e-5, abs=1e-6)


def test_traced_rows_that_are_no_distributions_are_no_answer():
    elbo = jax.jit(lambda rows: exact.solve(program().with_prior({"a": rows})).elbo)
    assert np.isnan(elbo(jnp.ones((T, S, A)))) and np.isfinite(elbo(jnp.asarray(PRIOR)))


@pytest.mark.slow
def test_sampled_engines_see_what_the_exact_ones_do():
    made = program(taus=np.array([1.0, 1.0]), prior=PRIOR).with_prior(policies()).tempered(0.8)
    exactly = float(exact.condition(made).log_evidence)
    found = [float(smc.run(made, key, 2000).log_evidence) for key in jax.random.split(KEY, 10)]
    assert abs(np.mean(found) - exactly) < 5 * np.std(found) / np.sqrt(9) and np.std(found) < 0.2
    policy = exact.solve(made).policy
    table = svi.ParticleELBO(2000)
    logits = {d: jnp.log(policy[d]) - jnp.log(jnp.maximum(given, 1e-30)) for d, given in policies().items()}
    bound = float(table.estimate(table.read(made), logits, KEY))
    assert bound == pytest.approx(float(exact.elbo(made, policy)), abs=0.2)


@pytest.mark.parametrize("part", quick(["model"], ["model", "guide"]))
def test_the_unrolled_program_is_changed_alike(part):
    """The log density of its model and guide at a trajectory, against a program that was written so."""
    given, factor = policies(), 0.8
    made = program(taus=np.array([1.0, 1.0])).with_prior(given).tempered(factor)
    written = program(prior=given["a"], other_prior=given["b"], taus=np.array([factor, factor]))
    rng = np.random.default_rng(5)
    params = {f"{d}_logits": rng.normal(size=x.shape) for d, x in policies().items()} if part == "guide" else {}
    with handlers.seed(rng_seed=0):
        drawn = handlers.trace(handlers.substitute(getattr(written, part), data=params)).get_trace()
    values = {
        name: site["value"] for name, site in drawn.items() if site["type"] == "sample" and not site["is_observed"]
    }
    densities = [log_density(getattr(each, part), (), {}, values | params)[0] for each in (made, written)]
    assert float(densities[0]) == pytest.approx(float(densities[1]), rel=1e-12)


def test_programs_that_are_changed_are_vmapped_and_differentiated():
    base = program(taus=np.array([1.0, 1.0]))

    def value(factor, tilt, scale):
        prior = {"a": jax.nn.softmax(jnp.log(PRIOR) + tilt)}
        args = base.args
        changed = base.with_prior(prior).tempered(factor).with_args(over_time(scale * REWARD), *args[1:])
        return exact.solve(changed).elbo

    at = jnp.asarray(0.7), jnp.asarray(RNG.normal(size=PRIOR.shape)), jnp.asarray(1.2)
    slopes = jax.jit(jax.grad(value, (0, 1, 2)))(*at)
    ahead = jax.jit(value)
    for i, h in ((0, 1e-6), (2, 1e-6)):
        ends = [float(ahead(*(x + sign * h if j == i else x for j, x in enumerate(at)))) for sign in (1, -1)]
        assert float(slopes[i]) == pytest.approx((ends[0] - ends[1]) / (2 * h), abs=1e-7)
    way = jnp.asarray(RNG.normal(size=PRIOR.shape))
    ends = [float(ahead(at[0], at[1] + sign * 1e-6 * way, at[2])) for sign in (1, -1)]
    assert float(jnp.sum(slopes[1] * way)) == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-7)
    factors = jnp.asarray([0.3, 1.0, 2.0])
    many = jax.vmap(lambda factor: ahead(factor, at[1], at[2]))(factors)
    np.testing.assert_allclose(many, [float(ahead(factor, at[1], at[2])) for factor in factors], rtol=1e-12)


def test_changes_of_one_kind_share_compiled_code_and_are_not_traced_again(monkeypatch):
    base = program(taus=np.array([1.0, 1.0]))
    made = base.with_prior(policies()).tempered(2.0)
    exact.solve(made)
    before = answers.solve._cached._cache_size()

    def never(*_, **__):
        raise AssertionError("traced again")

    monkeypatch.setattr(tracing, "describe", never)
    for seed in range(3):
        changed = made.with_prior(policies(seed)).tempered(0.1 * seed)
        exact.solve(changed.with_args(over_time(seed * REWARD), *base.args[1:]))
    assert answers.solve._cached._cache_size() == before


def test_changed_programs_are_copied_saved_and_shown():
    made = program().with_prior(policies()).tempered(np.full(T, 2.0))
    wanted = exact.solve(made).elbo
    for again in (copy.deepcopy(made), pickle.loads(pickle.dumps(made)), in_double(made)):
        assert exact.solve(again).elbo == wanted
    assert made.graph().nodes["a"]["kind"] == "decision"
    fit = svi.fit(made, KEY)
    assert fit.converged and float(fit.elbo) == pytest.approx(float(wanted), abs=1e-8)


def test_a_horizon_of_one_and_arguments_in_a_tree():
    def alone(given, s):
        optimality(given["pay"][decide("a", Categorical(probs=given["prior"]))])
        return {"s": s}

    args = ({"pay": over_time([[0.0, 1.0]]), "prior": jnp.full(2, 0.5)},)
    made = ControlProgram(initial, alone, 1, args=args)
    assert float(exact.solve(made).value[0, 0]) == pytest.approx(np.log((1 + np.e) / 2))


def endless(s):
    a = decide("a", Categorical(probs=jnp.ones(2) / 2))
    optimality(1.0 * a)
    return {"s": s}


def reads_at_the_end(pay, s):
    optimality(pay * 1.0)


def paid(pay, s):
    decide("a", Categorical(probs=jnp.ones(2) / 2))
    optimality(pay)
    return {"s": s}


def noisy(x):
    u = decide("u", Normal(0.0, 1.0))
    optimality(-(u**2))
    return {"x": x + u}


def walk():
    return ControlProgram(lambda: {"x": numpyro.sample("x_0", Normal(0.0, 1.0))}, noisy, 3)


WRONG = {
    "a number over time": (lambda: over_time(1.0), ValueError, "first axis is time; got one number"),
    "a word over time": (lambda: over_time("price"), TypeError, "first axis is time; got str"),
    "too few rows": (
        lambda: program(reward=REWARD[:2]),
        ValueError,
        r"args\[0\]\.?.* varies in time and has 2 rows; it must have 4, one for each step, or 5",
    ),
    "rows without end": (
        lambda: ControlProgram(initial, paid, None, 0.9, args=(over_time([1.0, 2.0]),)),
        ValueError,
        "varies in time, so an infinite horizon has no one policy for all times; give a horizon",
    ),
    "no row for the end": (
        lambda: ControlProgram(initial, paid, 2, final=reads_at_the_end, args=(over_time([1.0, 2.0]),)),
        ValueError,
        "final reads an argument over time that has 2 rows.*give it one row more",
    ),
    "too few args": (lambda: program().with_args(1.0), ValueError, "with_args is given .*give as many, made alike"),
    "args of another shape": (
        lambda: program().with_args(*program().args[:4], jnp.ones(3), program().args[5]),
        ValueError,
        r"with_args: args\[4\] has shape \(3,\), and the program was made with \(2,\)",
    ),
    "fractions for whole numbers": (
        lambda: ControlProgram(initial, paid, 2, args=(1,)).with_args(0.5),
        ValueError,
        r"with_args: args\[0\] is of float64, and the program was made with int",
    ),
    "args that are no numbers": (
        lambda: ControlProgram(initial, paid, 2, args=(1,)).with_args("a"),
        TypeError,
        "numbers",
    ),
    "a prior that is no dict": (lambda: program().with_prior(3), TypeError, "with_prior takes a dict .*got int"),
    "a prior of nothing": (
        lambda: program().with_prior({"c": np.ones(2)}),
        ValueError,
        r"priors of \['c'\]; the program's decisions are \['a', 'b'\]",
    ),
    "a prior of another shape": (
        lambda: program().with_prior({"a": np.ones((S, 3)) / 3}),
        ValueError,
        r"the prior of 'a' has shape \(3, 3\); its axes are \(T, s, a\), so \(4, 3, 2\)",
    ),
    "a prior of other times": (
        lambda: program().with_prior({"a": policies()["a"][:2]}),
        ValueError,
        r"the prior of 'a' has shape \(2, 3, 2\)",
    ),
    "a prior of no distributions": (
        lambda: program().with_prior({"a": np.ones((S, A))}),
        ValueError,
        "the prior of 'a' has rows that are no distributions",
    ),
    "a prior that is a function": (
        lambda: program().with_prior({"a": lambda s: Categorical(probs=jnp.ones(2) / 2)}),
        TypeError,
        "the prior of 'a' is a function, and with_prior takes arrays",
    ),
    "a prior that is a word": (
        lambda: program().with_prior({"a": "b"}),
        TypeError,
        "the prior of 'a' must be an array",
    ),
    "a prior over time without end": (
        lambda: ControlProgram(initial, endless, None, 0.9).with_prior({"a": np.ones((2, S, 2)) / 2}),
        ValueError,
        r"the prior of 'a' has shape \(2, 3, 2\); its axes are \(s?,? ?a\), so",
    ),
    "a Gaussian prior as an array": (
        lambda: walk().with_prior({"u": np.ones((3, 1))}),
        ValueError,
        r"the prior of 'u' must be \(gain, offset, cov\)",
    ),
    "a factor of another shape": (
        lambda: program().tempered(np.ones(3)),
        ValueError,
        r"one number, or one for each of 4 times; got shape \(3,\)",
    ),
    "a factor that is a word": (lambda: program().tempered("hot"), TypeError, "tempered takes one number.*'hot'"),
    "a factor of NaN": (lambda: program().tempered(np.nan), ValueError, "tempered is given NaN"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_fits_nowhere_is_refused(name):
    make, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        make()
