"""Maximum-entropy inverse reinforcement learning against plain loops over everything that can happen."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pandas as pd
import pytest
from numpyro.distributions import Categorical, Cauchy, LogNormal, Normal, Uniform
from oracles import irl, recursions
from programs_more import PAIRS, listed
from scipy.stats import multivariate_normal
from selection import quick_rows
from worked_cases import worked_case

from rlinf_ppl import ControlProgram, behaviour, decide, models, optimality
from rlinf_ppl.inference import exact
from rlinf_ppl.tasks import MDP, LinearQuadratic

KEY = jax.random.key(0)
S, A, T = 4, 2, 5
RNG = np.random.default_rng(11)
P, MU = RNG.dirichlet(np.ones(S), (S, A)), RNG.dirichlet(np.ones(S))
REWARD, PRIOR = RNG.normal(size=(S, A)), RNG.dirichlet(np.ones(A), S)
TASK = MDP(P, REWARD, MU)
FEATURES = RNG.normal(size=(S, A, 2))
THETA = np.array([1.0, -0.6])
COLUMNS = {"state": "s", "decision": "a", "id": "who", "time": "when"}


# ---- trajectories given optimality -----------------------------------------------------------------------------------
JOINT = [name for name, pair in PAIRS.items() if pair.joint]


def seen_in_part(pair, rng, num_steps):
    """Some steps of trajectories under the prior: each variable whole, with gaps, or not at all."""
    program = pair.control()
    drawn = exact.sample(program, KEY, exact.prior_policy(program), 3)
    data = {}
    for name in (*program.state, *(site.name for site in program.structure.step.latent)):
        rows = num_steps + (name in program.state and rng.random() < 0.5)
        values, chance = np.asarray(drawn[name])[:, :rows], rng.random()
        if chance > 0.3 or not data:
            data[name] = values, np.ones(values.shape, bool) if chance > 0.6 else rng.random(values.shape) < 0.6
    return data


def in_rows(data, i, steps, lengths):
    """One sequence for the oracle: None where nothing was seen."""
    found = {}
    for name, (values, there) in data.items():
        end = values.shape[1] if lengths is None else lengths[i] + values.shape[1] - steps
        rows = zip(values[i].tolist(), there[i].tolist(), strict=True)
        found[name] = [v if s and t < end else None for t, (v, s) in enumerate(rows)]
    return found


# How many steps less than the horizon has there are data for, and whether sequences end before these.
ENDS = [(0, False), (0, True), (1, False), (1, True)]
FEW = [("discounted_final", 1, True), ("tempered", 0, True), ("pass_through", 1, True)]


@pytest.mark.parametrize("name, lacking, ragged", quick_rows(FEW, [(name, *end) for name in JOINT for end in ENDS]))
def test_what_was_seen_has_its_share_of_all_trajectories(name, lacking, ragged):
    """Hidden variables, gaps, early ends, two decisions, a discount, a final reward, a temperature."""
    pair = PAIRS[name]
    program, horizon = pair.control(), pair.truth.horizon
    rng = np.random.default_rng([lacking, ragged, len(name)])
    data = seen_in_part(pair, rng, max(horizon - lacking, 1))
    given = {name: values if there.all() else (values, there) for name, (values, there) in data.items()}
    steps = min(horizon, *(values.shape[1] for values, _ in data.values()))
    lengths = rng.integers(0, steps + 1, 3) if ragged else None
    found = exact.log_prob_given_optimality(program, given, lengths)
    wanted = [irl.log_prob_given_optimality(listed(name), in_rows(data, i, steps, lengths)) for i in range(3)]
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-11)


def test_the_worked_case_of_ziebart():
    """Values and slopes of both likelihoods, the causal one with a discount as well."""
    given, wanted, tolerance = worked_case("maxent_irl_loglik")
    task = MDP(given["P"], np.zeros((3, 2)), given["p1"])
    data = {"s": given["demos"][..., 0], "a": given["demos"][..., 1]}

    def made(theta, discount=1.0):
        program = behaviour.linear_rewards(task, given["feats"], 3, discount, given["beta"], given["prior"])
        return program({"theta": theta})

    def causal(theta, discount=1.0):
        program = made(theta, discount)
        return exact.log_prob(program, exact.solve(program).policy, data).sum()

    found = {
        "causal": causal,
        "causal_discount09": lambda theta: causal(theta, 0.9),
        "trajectory_posterior": lambda theta: exact.log_prob_given_optimality(made(theta), data).sum(),
    }
    for name, function in found.items():
        value, slope = jax.jit(jax.value_and_grad(function))(jnp.asarray(given["theta"]))
        assert float(value) == pytest.approx(wanted[name].item()["loglik"], rel=tolerance)
        np.testing.assert_allclose(slope, wanted[name].item()["grad"], rtol=tolerance)


def drawn(program, n=3, key=KEY):
    made = exact.sample(program, key, exact.solve(program).policy, n)
    return {name: np.asarray(made[name]) for name in ("s", "a")}


def test_both_likelihoods_agree_where_chance_has_no_say():
    """Deterministic dynamics and a first state that is certain."""
    moves = np.eye(S)[(np.arange(S)[:, None] + np.array([1, 2])) % S]
    task = MDP(moves, REWARD, np.eye(S)[1])
    program = behaviour.linear_rewards(task, FEATURES, T, prior=PRIOR)
    data = drawn(program({"theta": THETA}))

    def causal(theta):
        made = program({"theta": theta})
        return exact.log_prob(made, exact.solve(made).policy, data)

    def of_trajectories(theta):
        return exact.log_prob_given_optimality(program({"theta": theta}), data)

    np.testing.assert_allclose(of_trajectories(THETA), causal(THETA), rtol=1e-12)
    np.testing.assert_allclose(of_trajectories(-THETA), causal(-THETA), rtol=1e-12)
    elsewhere = data | {"s": (data["s"] + 1) % S}
    assert np.all(exact.log_prob_given_optimality(program({"theta": THETA}), elsewhere) == -np.inf)


def test_the_slope_is_what_features_are_less_what_they_are_expected_to_be():
    """Demonstrated minus expected features, expected under the exact posterior (Ziebart 2008)."""
    program = behaviour.linear_rewards(TASK, FEATURES, T, beta=1.3)
    data = drawn(program({"theta": THETA}))
    slopes = jax.jacobian(lambda x: exact.log_prob_given_optimality(program({"theta": x}), data))(THETA)
    joint = np.asarray(exact.posterior_marginals(program({"theta": THETA})).decision["a"])
    expected = np.einsum("tsa,sak->k", joint, FEATURES)
    seen = FEATURES[data["s"][:, :-1], data["a"]].sum(1)
    np.testing.assert_allclose(slopes, 1.3 * (seen - expected), rtol=1e-9)


@pytest.mark.slow
def test_it_runs_compiled_side_by_side_and_in_single_precision():
    program = behaviour.linear_rewards(TASK, FEATURES, T, discount=0.9)
    data = drawn(program({"theta": THETA}))
    lengths = np.array([2, 5, 0])
    thetas = np.random.default_rng(145).normal(size=(3, 2))

    def total(theta):
        return exact.log_prob_given_optimality(program({"theta": theta}), data, lengths)

    one_by_one = np.stack([total(theta) for theta in thetas])
    np.testing.assert_allclose(jax.jit(jax.vmap(total))(thetas), one_by_one, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(one_by_one[:, 2], np.log(posterior_of_first(program, thetas, data["s"][2, 0])))
    slopes = jax.jit(jax.jacobian(total))(THETA)
    h = 1e-5 * np.eye(2)
    numbers = np.stack([(total(THETA + e) - total(THETA - e)) / 2e-5 for e in h], 1)
    np.testing.assert_allclose(slopes, numbers, rtol=1e-6, atol=1e-8)
    with jax.enable_x64(False):
        task = MDP(*(np.asarray(x, np.float32) for x in (P, REWARD, MU)))
        made = behaviour.linear_rewards(task, FEATURES, T, discount=0.9)({"theta": THETA})
        found = exact.log_prob_given_optimality(made, data, lengths)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, total(THETA), rtol=2e-5, atol=2e-5)


def posterior_of_first(program, thetas, s):
    """Of a sequence of no steps the first state was seen, and that is all."""
    return [float(exact.posterior_marginals(program({"theta": theta})).state[0, s]) for theta in thetas]


def test_data_of_the_program_count_in_nats_and_rewards_at_their_temperature():
    """Two steps, a hidden state and a noisy signal of it inside the program, against every history."""
    keep, signal, tau = np.array([[0.8, 0.2], [0.3, 0.7]]), np.array([[0.9, 0.1], [0.4, 0.6]]), 0.6
    prior, pay, heard = np.array([0.3, 0.7]), np.random.default_rng(173).normal(size=(2, 2)), np.array([0, 1])

    def initial(heard):
        return {"h": numpyro.sample("h0", Categorical(probs=jnp.array([0.5, 0.5])))}

    def step(heard, h, t):
        numpyro.sample("heard", Categorical(probs=jnp.asarray(signal)[h]), obs=heard[t])
        a = decide("a", Categorical(probs=jnp.asarray(prior)), inverse_temperature=tau)
        optimality(jnp.asarray(pay)[h, a])
        return {"h": numpyro.sample("h_next", Categorical(probs=jnp.asarray(keep)[h]))}

    def final(heard, h):
        optimality(1.0 * h)

    program = ControlProgram(initial, step, 2, args=(jnp.asarray(heard),), final=final)
    a = np.array([[0, 1], [1, 1]])
    found = exact.log_prob_given_optimality(program, {"a": a})
    weights = np.zeros((2, 2))
    for h in np.ndindex(2, 2, 2):
        for i, j in np.ndindex(2, 2):
            p = 0.5 * keep[h[0], h[1]] * keep[h[1], h[2]] * prior[i] * prior[j]
            p *= signal[h[0], heard[0]] * signal[h[1], heard[1]]
            weights[i, j] += p * np.exp(tau * (pay[h[0], i] + pay[h[1], j] + h[2]))
    np.testing.assert_allclose(found, np.log(weights / weights.sum())[a[:, 0], a[:, 1]], rtol=1e-12)


def test_vectors_that_were_seen_have_the_density_of_the_posterior():
    """A linear-quadratic task as one Gaussian over all of a trajectory, in NumPy."""
    a, b, noise, m0, v0 = 0.9, 0.5, 0.3, 0.4, 0.8
    task = LinearQuadratic(
        np.array([[a]]), np.array([[b]]), np.array([0.1]), np.array([[noise]]), np.array([[-0.7]]), np.array([[-0.2]]),
        np.array([0.5]), np.array([m0]), np.array([[v0]])
    )  # fmt: skip
    program = models.linear_gaussian(task, 2)
    x, u = np.random.default_rng(207).normal(size=(3, 3, 1)), np.random.default_rng(207).normal(size=(3, 2, 1))
    found = exact.log_prob_given_optimality(program, {"x": x, "u": u})
    # The log of the joint density as a quadratic of z = (x0, u0, x1, u1, x2), from its values.
    law = lambda z: joint_of(z, a, b, noise, m0, v0)  # noqa: E731
    eye, zero = np.eye(5), law(np.zeros(5))
    hessian = np.array([[law(e + f) - law(e) - law(f) + zero for f in eye] for e in eye])
    slope = np.array([(law(e) - law(-e)) / 2 for e in eye])
    gaussian = multivariate_normal(np.linalg.solve(-hessian, slope), np.linalg.inv(-hessian))
    z = np.concatenate([x[:, 0], u[:, 0], x[:, 1], u[:, 1], x[:, 2]], 1)
    np.testing.assert_allclose(found, gaussian.logpdf(z), rtol=1e-9)


def joint_of(z, a, b, noise, m0, v0):
    """Log density of a trajectory and its rewards, up to a constant."""
    x0, u0, x1, u1, x2 = z
    total = -((x0 - m0) ** 2) / (2 * v0) - (u0**2 + u1**2) / 2
    total -= ((x1 - a * x0 - b * u0 - 0.1) ** 2 + (x2 - a * x1 - b * u1 - 0.1) ** 2) / (2 * noise)
    return total - 0.7 * ((x0 - 0.5) ** 2 + (x1 - 0.5) ** 2 + (x2 - 0.5) ** 2) - 0.2 * (u0**2 + u1**2)


def test_what_has_no_posterior_of_trajectories_says_so():
    endless = models.single_agent(TASK, None, discount=0.9)
    data = {"s": np.zeros((1, 2), int), "a": np.zeros((1, 2), int)}
    with pytest.raises(ValueError, match=r"infinite horizon.*log_prob.*use program.unroll\(T\)"):
        exact.log_prob_given_optimality(endless, data)
    with pytest.raises(ValueError, match="inverse temperatures of .* differ"):
        exact.log_prob_given_optimality(PAIRS["two_temperatures"].control(), data)
    with pytest.raises(ValueError, match="data have 3 steps, and the program's horizon is 1"):
        exact.log_prob_given_optimality(models.single_agent(TASK, 1), {"s": np.zeros((1, 3), int)})

    def step(s):
        a = decide("a", Categorical(probs=jnp.array([0.5, 0.5])))
        optimality(-jnp.inf)
        return {"s": a}

    never = ControlProgram(lambda: {"s": 0}, step, 2, sizes={"s": 2})
    with pytest.raises(ValueError, match="have probability zero: there is no posterior"):
        exact.log_prob_given_optimality(never, data)


# ---- linear rewards --------------------------------------------------------------------------------------------------
def test_features_make_the_rewards_of_the_program():
    of_states = np.random.default_rng(249).normal(size=(S, 2))
    for features, reward in ((FEATURES, FEATURES @ THETA), (of_states, np.tile((of_states @ THETA)[:, None], (1, A)))):
        for horizon, discount in ((T, None), (T, 0.8), (None, 0.9)):
            program = behaviour.linear_rewards(TASK, features, horizon, discount, beta=1.7, prior=PRIOR, name="w")
            wanted = models.single_agent(MDP(P, reward, MU), horizon, 1.7, PRIOR, discount or 1.0)
            found = exact.solve(program({"w": THETA, "other": 3.0})).policy["a"]
            np.testing.assert_allclose(found, exact.solve(wanted).policy["a"], rtol=1e-12)
    sparse = behaviour.linear_rewards(TASK.as_sparse(), FEATURES, T)({"theta": THETA})
    dense = behaviour.linear_rewards(TASK, FEATURES, T)({"theta": THETA})
    np.testing.assert_allclose(exact.solve(sparse).policy["a"], exact.solve(dense).policy["a"], rtol=1e-10)


NAN = np.where(np.arange(2) == 1, np.nan, FEATURES)
WRONG_REWARDS = {
    "no task": (lambda: behaviour.linear_rewards(P, FEATURES, T), TypeError, "mdp"),
    "no end": (lambda: behaviour.linear_rewards(TASK, FEATURES), ValueError, "without a horizon a discount below 1"),
    "a shape": (lambda: behaviour.linear_rewards(TASK, FEATURES[:3], T), ValueError, r"features has shape \(3, 2, 2\)"),
    "not finite": (lambda: behaviour.linear_rewards(TASK, NAN, T), ValueError, r"features\[0, 0, 1\] is nan"),
    "words": (lambda: behaviour.linear_rewards(TASK, [["a"]], T), TypeError, "features"),
    "an array": (lambda: behaviour.linear_rewards(TASK, FEATURES, T)(THETA), TypeError, "dictionary|Mapping"),
    "no name": (lambda: behaviour.linear_rewards(TASK, FEATURES, T)({"w": 1.0}), ValueError, r"hold \['w'\].*'theta'"),
    "a number": (
        lambda: behaviour.linear_rewards(TASK, FEATURES, T)({"theta": 1.0}),
        ValueError,
        r"theta has shape \(\), and there are 2 features: it must be \(2,\)",
    ),
    "infinite": (
        lambda: behaviour.linear_rewards(TASK, FEATURES, T)({"theta": [1.0, np.inf]}),
        ValueError,
        r"theta\[1\] is inf",
    ),
}


@pytest.mark.parametrize("case", WRONG_REWARDS)
def test_rewards_that_are_none_say_so(case):
    function, error, message = WRONG_REWARDS[case]
    with pytest.raises(error, match=message):
        function()


# ---- what behaviour can tell -----------------------------------------------------------------------------------------
def policy_of(theta, horizon, discount):
    """By the recursion in NumPy; without end after many steps: (T, S, A)."""
    args = P, FEATURES @ theta, PRIOR, 1.3, discount
    if horizon is not None:
        return recursions.soft_optimal(*args, horizon=horizon)[2]
    return np.tile(recursions.soft_optimal(*args, horizon=400)[2][:1], (7, 1, 1))


@pytest.mark.parametrize("horizon, discount, steps", [(T, 0.9, None), (T, 1.0, 3), (None, 0.9, 7)])
def test_information_is_that_of_scores_under_the_marginals(horizon, discount, steps):
    class Policies:
        size = 2

        def __call__(self, move):
            return policy_of(THETA if move is None else THETA + move, horizon, discount)[:steps]

    program = behaviour.linear_rewards(TASK, FEATURES, horizon, discount, 1.3, PRIOR)
    found = behaviour.fisher_information(program, {"theta": THETA}, steps)
    wanted = irl.fisher_information(P, MU, Policies())
    np.testing.assert_allclose(found.information, wanted, rtol=1e-8)
    assert found.names == ("theta[0]", "theta[1]") and not len(found.unseen)
    with jax.enable_x64(False):
        single = behaviour.fisher_information(program, {"theta": np.float32(THETA)}, steps)
    np.testing.assert_allclose(single.information, wanted, rtol=1e-6)


@pytest.mark.slow
def test_information_of_several_decisions_is_the_variance_of_the_whole_score():
    """Two decisions, one that sees the other, temperatures that differ: all trajectories, and slopes of log_prob."""
    pair = PAIRS["two_temperatures"]
    base, every = pair.control(), listed("two_temperatures")

    def program(p):
        *arrays, temperatures = base.args
        return base.with_args(*arrays[:2], arrays[2] * p["scale"], *arrays[3:], temperatures * p["tau"])

    at = {"scale": 0.8, "tau": 1.2}
    found = behaviour.fisher_information(program, at)
    policy = exact.solve(program(at)).policy
    where = every.position
    rows = {"a": lambda t: (where["s"][:, t],), "b": lambda t: (where["s"][:, t], where["a"][:, t])}
    mass = np.array(every.chance)
    for name, scope in rows.items():
        for t in range(2):
            mass *= np.asarray(policy[name])[(t, *scope(t), where[name][:, t])]
    assert mass.sum() == pytest.approx(1.0)
    data = {name: where[name] for name in ("s", "a", "b")}

    def total(x):
        made = program({"scale": x[0], "tau": x[1]})
        return exact.log_prob(made, exact.solve(made).policy, data)

    scores = np.asarray(jax.jacobian(total)(jnp.array([0.8, 1.2])))
    np.testing.assert_allclose(found.information, (scores * mass[:, None]).T @ scores, rtol=1e-10)
    assert found.names == ("scale", "tau")


@pytest.mark.slow
def test_it_runs_compiled_and_has_slopes():
    """Where an experiment tells more is a question of slopes."""
    program = behaviour.linear_rewards(TASK, FEATURES, 3)

    def volume(theta):
        return jnp.linalg.slogdet(behaviour.fisher_information(program, {"theta": theta}).information)[1]

    slope = jax.jit(jax.grad(volume))(THETA)
    h = 1e-5 * np.eye(2)
    np.testing.assert_allclose(slope, [(volume(THETA + e) - volume(THETA - e)) / 2e-5 for e in h], rtol=1e-6)


POTENTIAL = RNG.normal(size=S)
SHAPING = 0.9 * P @ POTENTIAL - POTENTIAL[:, None]


def frame_of(program, theta, n, steps):
    """A panel of demonstrations."""
    made = program({"theta": jnp.asarray(theta)})
    watched = made if made.horizon is not None else made.unroll(steps)
    found = exact.sample(watched, jax.random.key(4), exact.solve(made).policy, n)
    s, a = np.asarray(found["s"])[:, :-1], np.asarray(found["a"])
    who, when = np.repeat(np.arange(n), steps), np.tile(np.arange(steps), n)
    return pd.DataFrame({"who": who, "when": when, "s": s.ravel(), "a": a.ravel()})


BLIND = {
    # Features, the horizon, and the weights that change nothing.
    "indicators of states": (np.eye(S), T, None, np.ones(S)),
    "a sum that is constant": (np.concatenate([FEATURES, 2 - FEATURES[..., :1]], -1), T, None, [1.0, 0.0, 1.0]),
    "shaping": (np.concatenate([FEATURES, (SHAPING - FEATURES[..., 1])[..., None]], -1), None, 0.9, [0.0, 1.0, 1.0]),
}


@pytest.mark.parametrize("case", BLIND)
def test_what_changes_nothing_is_named(case):
    features, horizon, discount, null = BLIND[case]
    program = behaviour.linear_rewards(TASK, features, horizon, discount)
    k = features.shape[-1]
    theta = np.linspace(-0.5, 1.0, k)
    found = behaviour.fisher_information(program, {"theta": theta}, T)
    assert list(found.directions["seen"]) == [True] * (k - 1) + [False]
    np.testing.assert_allclose(found.unseen.to_numpy(), [np.array(null) / np.max(null)], atol=1e-6)
    np.testing.assert_allclose(found.information @ np.array(null), 0.0, atol=1e-10)
    table = found.directions
    sizes = np.sqrt(np.diag(found.information))
    scaled, vectors = np.asarray(found.information) / np.outer(sizes, sizes), table[list(found.names)].to_numpy()
    np.testing.assert_allclose(vectors @ scaled @ vectors.T, np.diag(table["eigenvalue"]), atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("case", BLIND)
def test_what_changes_nothing_is_what_an_estimate_refuses(case):
    features, horizon, discount, _ = BLIND[case]
    program = behaviour.linear_rewards(TASK, features, horizon, discount)
    theta = np.linspace(-0.5, 1.0, features.shape[-1])
    found = behaviour.fisher_information(program, {"theta": theta}, T)
    panel = frame_of(program, theta, 30, T)
    with pytest.raises(ValueError, match="do not tell apart parameters along") as refusal:
        behaviour.maximum_likelihood(panel, program=program, start={"theta": 0 * theta}, **COLUMNS)
    mix = str(refusal.value).partition("(")[2].partition(")")[0].split(", ")
    refused = {each.split()[1]: float(each.split()[0]) for each in mix}
    told, own = np.array([refused.get(name, 0.0) for name in found.names]), found.unseen.to_numpy()[0]
    np.testing.assert_allclose(told * np.sign(told @ own), own, atol=2e-3)


def test_a_weight_that_changes_nothing_alone_is_a_direction():
    """Of a constant, and of shaping without end, there is nothing but rounding, which is in no unit."""
    constant = np.ones((S, A, 1))
    program = behaviour.linear_rewards(TASK, np.concatenate([FEATURES, constant], -1), T)
    found = behaviour.fisher_information(program, {"theta": [1.0, -0.6, 0.3]})
    np.testing.assert_array_equal(found.unseen.to_numpy(), [[0.0, 0.0, 1.0]])
    both = np.concatenate([1e8 * SHAPING[..., None], 1e-8 * FEATURES, constant], -1)
    program = behaviour.linear_rewards(TASK, both, discount=0.9)
    found = behaviour.fisher_information(program, {"theta": [1e-8, 1e8, -6e7, 0.3]}, 10)
    assert list(found.directions["seen"]) == [True, True, False, False]
    np.testing.assert_array_equal(found.unseen.to_numpy()[:, 1:3], 0.0)


def test_tables_of_fewer_digits_hide_nothing():
    """Rows of float32 sum to one but for 1e-7, of which a constant reward would seem to have an influence."""
    features, at = np.concatenate([FEATURES, np.ones((S, A, 1))], -1), {"theta": [1.0, -0.6, 0.3]}
    with jax.enable_x64(False):
        task = MDP(*(np.asarray(x, np.float32) for x in (P, REWARD, MU)))

        def kept(p):
            """The program of the task as it is."""
            reward = jnp.asarray(features) @ p["theta"]
            return models.single_agent(eqx.tree_at(lambda each: each.reward, task, reward), T)

        for program, flat in ((behaviour.linear_rewards(task, features, T), 1e-10), (kept, 1e-5)):
            found = behaviour.fisher_information(program, at)
            assert found.flat == flat
            np.testing.assert_array_equal(found.unseen.to_numpy(), [[0.0, 0.0, 1.0]])
            compiled = jax.jit(lambda x, program=program: behaviour.fisher_information(program, {"theta": x}))
            np.testing.assert_array_equal(compiled(jnp.array(at["theta"])).unseen.to_numpy(), [[0.0, 0.0, 1.0]])


@pytest.mark.slow
@pytest.mark.parametrize("horizon, discount, steps", [(8, None, 8), (None, 0.9, 20)])
def test_demonstrations_tell_the_reward_that_they_were_drawn_from(horizon, discount, steps):
    """Within the errors of the estimate; and these are those that the information foretells."""
    rng = np.random.default_rng(5)
    task = MDP(rng.dirichlet(np.ones(6), (6, 3)), np.zeros((6, 3)), np.ones(6) / 6)
    program = behaviour.linear_rewards(task, rng.normal(size=(6, 3, 3)), horizon, discount)
    truth, n = np.array([1.0, -0.5, 0.25]), 300
    fit = behaviour.maximum_likelihood(
        frame_of(program, truth, n, steps), program=program, start={"theta": np.zeros(3)}, **COLUMNS
    )
    off, covariance = np.asarray(fit.estimate["theta"]) - truth, fit.covariance()
    # 99.9 % of a chi-squared number of three degrees of freedom.
    assert fit.converged and off @ np.linalg.solve(covariance, off) < 16.3
    assert np.all(np.sqrt(np.diag(covariance)) < 0.1)
    information = behaviour.fisher_information(program, fit.estimate, steps).information
    np.testing.assert_allclose(np.linalg.inv(covariance), n * np.asarray(information), rtol=0.2, atol=0.05 * n)


@pytest.mark.parametrize("features", [np.ones((S, A, 1)), np.concatenate([FEATURES, np.ones((S, A, 1))], -1)])
def test_a_weight_that_says_nothing_alone_is_refused(features):
    """Its curvature is rounding, whatever that is divided by."""
    program = behaviour.linear_rewards(TASK, features, T)
    theta = np.zeros(features.shape[-1])
    with pytest.raises(ValueError, match=rf"do not tell apart parameters along \([+-]1 theta\[{len(theta) - 1}\]\)"):
        behaviour.maximum_likelihood(
            frame_of(program, theta, 30, T), program=program, start={"theta": theta}, **COLUMNS
        )


def test_the_estimate_of_whole_trajectories_expects_the_features_that_were_seen():
    """And its log likelihood is that of trajectories; half of them are shorter than the horizon."""
    program = behaviour.linear_rewards(TASK, FEATURES, T)
    whole = frame_of(program, THETA, 40, T)
    asked = {"program": program, "start": {"theta": np.zeros(2)}, "given_optimality": True, **COLUMNS}
    fit = behaviour.maximum_likelihood(whole, **asked)
    at = np.asarray(fit.estimate["theta"])
    joint = np.asarray(exact.posterior_marginals(program({"theta": at})).decision["a"])
    expected = np.einsum("tsa,sak->k", joint, FEATURES)
    seen = FEATURES[whole["s"], whole["a"]].sum(0) / 40
    assert fit.converged
    np.testing.assert_allclose(expected, seen, rtol=1e-6)
    data = {name: whole[name].to_numpy().reshape(40, T) for name in ("s", "a")}
    total = exact.log_prob_given_optimality(program({"theta": at}), data).sum()
    assert fit.log_likelihood == pytest.approx(float(total), rel=1e-12)
    short = whole[(whole["who"] % 2 == 0) | (whole["when"] < 3)]
    again = behaviour.maximum_likelihood(short, **asked)
    lengths = np.where(np.arange(40) % 2 == 0, T, 3)
    total = exact.log_prob_given_optimality(program({"theta": again.estimate["theta"]}), data, lengths).sum()
    assert again.log_likelihood == pytest.approx(float(total), rel=1e-12)
    assert again.log_likelihoods[short["when"] > 0].abs().max() == 0
    for wrong in ({"lapse": "slip", "start": {"theta": np.zeros(2), "slip": 0.1}}, {"of": ["a"]}):
        with pytest.raises(ValueError, match="given_optimality scores whole trajectories"):
            behaviour.maximum_likelihood(whole, **(asked | wrong))
    with pytest.raises(ValueError, match="decisions one by one are not"):
        fit.predict()


WRONG_INFORMATION = {
    "an array": (lambda: behaviour.fisher_information(lambda p: p, THETA), TypeError, "dictionary|Mapping"),
    "no program": (lambda: behaviour.fisher_information(lambda p: p, {"theta": THETA}), TypeError, "got dict"),
    "no steps": (
        lambda: behaviour.fisher_information(behaviour.linear_rewards(TASK, FEATURES, None, 0.9), {"theta": THETA}),
        ValueError,
        "without end has no number of steps: give num_steps",
    ),
    "more than there are": (
        lambda: behaviour.fisher_information(behaviour.linear_rewards(TASK, FEATURES, T), {"theta": THETA}, T + 1),
        ValueError,
        "num_steps is 6, and the program's horizon is 5",
    ),
}


@pytest.mark.parametrize("case", WRONG_INFORMATION)
def test_information_that_is_none_says_so(case):
    function, error, message = WRONG_INFORMATION[case]
    with pytest.raises(error, match=message):
        function()


# ---- what it told ----------------------------------------------------------------------------------------------------
def test_contraction_is_that_of_a_gaussian_posterior():
    """A prior of known covariance and one linear measurement: one direction contracts, by a known share."""
    before, along, noise = np.diag([4.0, 1.0, 0.25]), np.array([0.5, 1.0, -1.0]), 0.5
    precision = np.linalg.inv(before) + np.outer(along, along) / noise
    draws = np.random.default_rng(0).multivariate_normal(np.zeros(3), np.linalg.inv(precision), (4, 5000))
    priors = {"b": Normal(0.0, 0.5), "a": Normal(np.zeros(2), np.array([2.0, 1.0])).to_event(1)}
    found = behaviour.contraction({"a": draws[..., :2], "b": draws[..., 2], "beside": draws}, priors)
    assert list(found.columns) == ["contraction", "a[0]", "a[1]", "b"]
    share = along @ before @ along / (noise + along @ before @ along)
    # Draws of both tell variances to about sqrt(2 / 20000).
    np.testing.assert_allclose(found["contraction"], [0.0, 0.0, share], atol=0.05)
    moved = before @ along
    np.testing.assert_allclose(found.iloc[-1, 1:], moved / moved[np.abs(moved).argmax()], atol=0.03)


def test_contraction_is_on_the_scale_without_bounds():
    rng = np.random.default_rng(0)
    samples = {"beta": np.exp(0.5 * rng.normal(size=20_000)), "p": rng.random(20_000)}
    found = behaviour.contraction(samples, {"beta": LogNormal(0.0, 1.0), "p": Uniform(0.0, 1.0)})
    np.testing.assert_allclose(found["contraction"], [0.0, 0.75], atol=0.04)
    np.testing.assert_allclose(found[["beta", "p"]], [[0.0, 1.0], [1.0, 0.0]], atol=0.1)
    with pytest.raises(ValueError, match="the prior of 'p', Cauchy, has no finite variance"):
        behaviour.contraction(samples, {"p": Cauchy(0.0, 1.0)})
    with pytest.raises(ValueError, match="samples have no 'q'"):
        behaviour.contraction(samples, {"q": Uniform(0.0, 1.0)})
    with pytest.raises(ValueError, match=r"samples\['p'\] has shape \(20000,\), and its prior \(3,\)"):
        behaviour.contraction(samples, {"p": Uniform(0.0, 1.0).expand([3])})
    with pytest.raises(ValueError, match="1 draws have no covariance of 1 parameters"):
        behaviour.contraction({"p": np.array([0.5])}, {"p": Uniform(0.0, 1.0)})


@pytest.mark.slow
def test_several_demonstrators_have_weights_of_their_own():
    """A weight that data cannot see stays as wide as its prior; each demonstrator has a number of their own."""
    program = behaviour.linear_rewards(TASK, np.concatenate([FEATURES, np.ones((S, A, 1))], -1), T)
    prior = Normal(0.0, 2.0).expand([3]).to_event(1)
    posterior = behaviour.sample(
        frame_of(program, [1.0, -0.6, 0.0], 12, T),
        program=program,
        priors={"theta": prior},
        by_id=["theta"],
        key=KEY,
        num_samples=500,
        num_chains=2,
        **COLUMNS,
    )
    assert posterior.samples["theta_each"].shape == (2, 500, 12, 3) and posterior.by_id.shape == (12, 3)
    found = behaviour.contraction(posterior.samples, {"theta": prior})
    first = found.iloc[0]
    assert abs(first["contraction"]) < 0.25 and first["theta[2]"] == pytest.approx(1.0)
    # Twelve people of five steps who differ leave more open of what they have in common than one would.
    assert found["contraction"].iloc[1] > 0.3


# ---- the distance of rewards -----------------------------------------------------------------------------------------
FIRST, SECOND = RNG.normal(size=(2, S, A, S))
LAWS = RNG.dirichlet(np.ones(S)), RNG.dirichlet(np.ones(A)), RNG.dirichlet(np.ones(S * A * S)).reshape(S, A, S)


def test_the_distance_is_that_of_loops():
    uniform = np.full(S, 1 / S), np.full(A, 1 / A), np.full((S, A, S), 1 / (S * A * S))
    for laws, given in ((LAWS, LAWS), (uniform, (None, None, None))):
        found = behaviour.epic_distance(FIRST, SECOND, 0.9, *given)
        assert float(found) == pytest.approx(irl.epic_distance(FIRST, SECOND, 0.9, *laws), rel=1e-12)
    rng = np.random.default_rng(1)
    of_state, of_action = rng.normal(size=S), rng.normal(size=(S, A))
    wide = np.broadcast_to(of_state[:, None, None], (S, A, S)), np.broadcast_to(of_action[..., None], (S, A, S))
    found = behaviour.epic_distance(of_state, of_action, 0.9, *LAWS)
    assert float(found) == pytest.approx(irl.epic_distance(*wide, 0.9, *LAWS), rel=1e-12)
    assert float(found) == pytest.approx(float(behaviour.epic_distance(wide[1], wide[0], 0.9, *LAWS)), rel=1e-12)


def test_it_is_zero_where_rewards_want_the_same_and_one_where_the_opposite():
    shaped = 3 * FIRST + 2 + 0.9 * POTENTIAL - POTENTIAL[:, None, None]
    assert float(behaviour.epic_distance(FIRST, shaped, 0.9, *LAWS)) < 1e-14
    assert float(behaviour.epic_distance(FIRST, -shaped, 0.9, *LAWS)) == pytest.approx(1.0, abs=1e-14)
    assert float(behaviour.epic_distance(FIRST, shaped, 0.5, *LAWS)) > 0.01
    with jax.enable_x64(False):
        found = behaviour.epic_distance(np.float32(FIRST), np.float32(shaped), 0.9, *map(np.float32, LAWS))
        assert found.dtype == np.float32 and float(found) < 1e-5


@pytest.mark.parametrize("wide, unit", [(True, 1e200), (True, 1e-200), (False, 1e25), (False, 1e-25)])
def test_the_distance_has_no_unit(wide, unit):
    with jax.enable_x64(wide):
        opposite = behaviour.epic_distance(unit * REWARD, -unit * REWARD, 0.9)
        other = behaviour.epic_distance(unit * REWARD, REWARD + FEATURES[..., 0], 0.9)
        wanted = behaviour.epic_distance(REWARD, REWARD + FEATURES[..., 0], 0.9)
    assert float(opposite) == pytest.approx(1.0, rel=1e-6) and float(other) == pytest.approx(float(wanted), rel=1e-5)


def test_a_reward_that_wants_nothing_has_no_direction():
    nothing = 1e3 + 0.9 * POTENTIAL - POTENTIAL[:, None, None] + np.zeros((S, A, S))
    for reward in (nothing, np.ones(S), np.zeros((S, A))):
        with pytest.raises(ValueError, match="other is a constant after shaping"):
            behaviour.epic_distance(FIRST, reward, 0.9)
    with jax.enable_x64(False), pytest.raises(ValueError, match="other is a constant after shaping"):
        behaviour.epic_distance(np.float32(FIRST), np.float32(nothing), 0.9)
    compiled = jax.jit(lambda x: behaviour.epic_distance(FIRST, x, 0.9))
    assert np.isnan(compiled(nothing))
    assert float(compiled(SECOND)) == pytest.approx(float(behaviour.epic_distance(FIRST, SECOND, 0.9)), rel=1e-12)
    slope = jax.grad(lambda x: behaviour.epic_distance(x, FIRST, 0.9))
    assert np.isfinite(slope(jnp.asarray(FIRST))).all()
    h, move = 1e-6, np.random.default_rng(2).normal(size=(S, A, S))
    numbers = [float(behaviour.epic_distance(SECOND + e * move, FIRST, 0.9)) for e in (h, -h)]
    found = float(jnp.sum(slope(jnp.asarray(SECOND)) * move))
    assert found == pytest.approx((numbers[0] - numbers[1]) / (2 * h), rel=1e-6)


WRONG_DISTANCES = {
    "a number": ((1.0, FIRST, 0.9), r"reward has shape \(\); it must be"),
    "another end": ((FIRST, FIRST[..., :2], 0.9), r"other has shape \(4, 2, 2\); it must be"),
    "other states": ((FIRST, np.ones(3), 0.9), "over the same"),
    "other actions": ((FIRST, np.ones((S, 3)), 0.9), "over the same"),
    "not finite": ((FIRST, SECOND * np.nan, 0.9), "other.* is nan"),
    "a discount": ((FIRST, SECOND, 1.1), "discount must be one number from 0 to 1; got 1.1"),
    "a law": ((FIRST, SECOND, 0.9, np.ones(S)), "state_law.* sums to 4"),
    "a law of others": ((FIRST, SECOND, 0.9, None, np.ones(3) / 3), r"action_law has shape \(3,\)"),
    "coverage": ((FIRST, SECOND, 0.9, None, None, np.ones((S, A))), r"coverage has shape \(4, 2\)"),
}


@pytest.mark.parametrize("case", WRONG_DISTANCES)
def test_distances_of_what_cannot_be_compared_say_so(case):
    arguments, message = WRONG_DISTANCES[case]
    with pytest.raises(ValueError, match=message):
        behaviour.epic_distance(*arguments)


# ---- a picture -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("k", [2, 6, 14])
def test_the_picture_marks_what_is_unseen_and_nothing_overlaps(k):
    features = np.concatenate([np.ones((S, A, 1)), np.random.default_rng(k).normal(size=(S, A, k - 1))], -1)
    program = behaviour.linear_rewards(TASK, features, T, name="weight")
    found = behaviour.fisher_information(program, {"weight": np.linspace(0.1, 0.3, k)})
    figure = behaviour.plot_identifiability(found)
    left, right, _ = figure.axes
    texts = [each for each in left.texts if each.get_text() == "unseen by data"]
    assert [round(each.xy[1]) for each in texts] == list(np.flatnonzero(~found.directions["seen"]))
    assert left.get_xscale() == "log" and len(left.patches) == found.directions["seen"].sum()
    assert [each.get_text() for each in right.get_xticklabels()] == list(found.names)
    figure.canvas.draw()
    boxes = [each.get_window_extent() for each in (*left.get_yticklabels(), left.xaxis.label, left.yaxis.label)]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    np.testing.assert_allclose(right.images[0].get_array(), found.directions[list(found.names)])
