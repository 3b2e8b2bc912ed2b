"""Nonlinear systems: their derivatives, the searches that iterate bounded problems on them, and published runs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from oracles import pendulums
from selection import quick

from rlinf_ppl.algebra.quadratics import AffinePolicy
from rlinf_ppl.inference import exact, trust_region
from rlinf_ppl.inference.local.arguments import check_start
from rlinf_ppl.inference.local.roll_outs import mean_trajectory
from rlinf_ppl.tasks import Dynamics, gallery
from rlinf_ppl.tasks.matrices import concave_part

KEY = jax.random.key(0)
SYSTEMS = ["pendulum", "double_pendulum", "quad_pendulum"]


def start(system, variance):
    """The first policy of the published runs: no gain, offsets drawn from N(0, 1e-8)."""
    n, m = system.num_states, system.num_actions
    offset = 1e-4 * np.random.default_rng(1337).normal(size=(system.horizon, m))
    return np.zeros((m, n)), offset, variance * np.eye(m)


def over_time(policy, horizon):
    """The same with a row for each step."""
    ranks = 2, 1, 2
    rows = [
        x if np.ndim(x) > rank else np.broadcast_to(x, (horizon, *np.shape(x)))
        for x, rank in zip(policy, ranks, strict=True)
    ]
    return AffinePolicy(*map(jnp.asarray, rows))


@pytest.mark.parametrize("name", quick(["double_pendulum"], SYSTEMS))
def test_links_are_what_lagrange_says(name):
    links = getattr(gallery, name)().step
    n = len(links.masses)
    parts = [np.asarray(x) for x in (links.masses, links.lengths, links.centers, links.inertias, links.frictions)]
    rng = np.random.default_rng(0)
    for _ in range(3):
        angles, speeds, torques = rng.normal(size=(3, n))
        want = pendulums.accelerations(angles, speeds, torques, *parts)
        rate = links.rate(jnp.concatenate([angles, speeds]), jnp.asarray(torques))
        np.testing.assert_allclose(rate, np.concatenate([speeds, want]), atol=2e-4 * (1 + np.abs(want).max()))


def test_a_cart_keeps_its_energy():
    system = gallery.cart_pole().step

    def energy(x):
        m, length = system.pole_mass, system.length
        pole = jnp.array([x[2] + length * x[3] * jnp.cos(x[1]), -length * x[3] * jnp.sin(x[1])])
        return 0.5 * system.cart_mass * x[2] ** 2 + 0.5 * m * pole @ pole + m * 9.81 * length * jnp.cos(x[1])

    x = jnp.array([0.3, 1.0, -0.5, 0.2])
    for _ in range(20):
        before, x = energy(x), system(x, jnp.zeros(1), 0)
        np.testing.assert_allclose(energy(x), before, rtol=1e-5)


def test_expansions():
    """By finite differences; what is at its limit has no derivative."""
    system = gallery.pendulum(3)
    rng = np.random.default_rng(0)
    states, actions = rng.normal(size=(4, 2)), np.array([[1.0], [10.0], [-30.0]])
    about, h = system.expand(jnp.asarray(states), jnp.asarray(actions)), 1e-5
    np.testing.assert_array_equal(about.actions, np.clip(actions, -10, 10))
    np.testing.assert_array_equal(about.B[1:], 0)
    assert abs(about.B[0]).max() > 0.1
    for t in range(3):
        x, u = states[t], np.clip(actions[t], -10, 10)

        def value(z, t=t):
            return -float(system.cost(jnp.asarray(z[:2]), jnp.asarray(z[2:]), t))

        z = np.concatenate([x, u])
        moves = [
            np.asarray(system.step(jnp.asarray(x + s * h * e), jnp.asarray(u), t)) for e in np.eye(2) for s in (1, -1)
        ]
        slopes = np.stack([(moves[2 * i] - moves[2 * i + 1]) / (2 * h) for i in range(2)], -1)
        np.testing.assert_allclose(about.A[t], slopes, atol=1e-8)
        np.testing.assert_allclose(about.reached[t], system.step(jnp.asarray(x), jnp.asarray(u), t), rtol=1e-12)
        # The cost is a quadratic: the expansion is all of it.
        for _ in range(3):
            dz = rng.normal(size=3)
            near = dz @ about.matrix[t] @ dz + dz @ about.vector[t] + about.scalar[t]
            np.testing.assert_allclose(near, value(z + dz), rtol=1e-9)
    dx = rng.normal(size=2)
    near = dx @ about.final_matrix @ dx + dx @ about.final_vector + about.final_scalar
    np.testing.assert_allclose(near, system.final_reward(jnp.asarray(states[3] + dx)), rtol=1e-9)


def test_rewards_made_concave_where_asked():
    """By the eigenvalues; a valley of the reward between two hills has no maximum without."""
    rng = np.random.default_rng(0)
    for spread in (1.0, 1e-12, 0.0):
        basis, sizes = np.linalg.qr(rng.normal(size=(5, 5)))[0], np.array([3.0, -2.0, spread, -spread, -1e-3])
        found = concave_part(jnp.asarray((basis * sizes) @ basis.T))
        np.testing.assert_allclose(found, (basis * np.minimum(sizes, 0)) @ basis.T, atol=1e-14)

    def cost(x, u, t):
        return jnp.sum((u**2 - 1) ** 2) + 0.1 * jnp.sum((x - 3) ** 2)

    system = Dynamics(lambda x, u, t: x + u, cost, 4, [0.0], 1, [[1e-2]], [[1e-2]])
    states, actions = jnp.zeros((5, 1)), jnp.zeros((4, 1))
    assert np.all(system.expand(states, actions).matrix[:, 1, 1] > 0)
    found = system.expand(states, actions, concave=True)
    np.testing.assert_allclose(found.matrix, np.broadcast_to(np.diag([-0.1, 0.0]), (4, 2, 2)), atol=1e-12)
    with pytest.raises(ValueError, match="at t = 3 the decision .u. has no maximum"):
        exact.solve(trust_region.local_program(system.expand(states, actions), check_start(system, None)))
    better = trust_region.gps(system, 0.1, 20, knowledge=trust_region.Derivatives(concave=True))
    assert np.all(np.diff(better.cost) <= 0) and better.cost[-1] < 0.7 * better.cost[0]


def test_an_applied_action_and_its_derivative():
    system = gallery.pendulum(3)
    for u, want, slope in ((3.0, 3.0, 1.0), (10.0, 10.0, 0.0), (11.0, 10.0, 0.0), (-12.0, -10.0, 0.0)):
        value, derivative = jax.value_and_grad(lambda u: system.applied(u)[0])(jnp.array([u]))
        assert (value, derivative[0]) == (want, slope)


PUBLISHED = {
    "regulator": (10, 5.0, 100.0, {1: 6.5646e10, 5: 31320.1, 10: 7532.14}, 7532.2),
    "pendulum": (25, 10.0, 5.0, {1: 175.194, 5: 162.323, 25: 113.375}, 113.38),
    "double_pendulum": (50, 10.0, 10.0, {1: 1.4319e6, 3: 1.108e6, 50: 1696.37}, 1696.4),
    "quad_pendulum": (50, 10.0, 5.0, {1: 9.7665e6, 10: 8.0189e6, 50: 5.2821e6}, 5.2822e6),
}


@pytest.mark.parametrize("name", quick(["regulator"], PUBLISHED))
def test_published_runs(name):
    """The costs of trajopt's examples (Abdulsamad), with the same bounds on the sum and the same first variances."""
    iterations, bound, variance, costs, most = PUBLISHED[name]
    system = getattr(gallery, name)()
    found = trust_region.gps(system, bound, iterations, start(system, variance), num_halvings=0)
    for i, cost in costs.items():
        np.testing.assert_allclose(found.cost[i], cost, rtol=2e-4)
    assert found.cost[-1] <= most * (1 + 1e-5)
    np.testing.assert_allclose(np.sum(found.kl, -1), bound, rtol=1e-9)
    assert np.all(found.accepted) and found.policy.gain.shape == (system.horizon, system.num_actions, system.num_states)


@pytest.mark.slow
def test_halving_keeps_costs_from_rising():
    system = gallery.double_pendulum()
    found = trust_region.gps(system, 10.0, 20, start(system, 10.0))
    assert np.all(np.diff(found.cost) <= 0) and np.min(found.scale) < 1
    plain = trust_region.gps(system, 10.0, 20, start(system, 10.0), num_halvings=0)
    assert found.cost[-1] < plain.cost[-1]


@pytest.mark.slow
def test_a_linear_system_is_known_by_samples():
    """Least squares find a linear system, and the search its optimum: 7520.991 by Riccati's equation.

    Later on its two states are nearly one, which the ridge takes a part of.
    """
    system = gallery.regulator()
    knowledge = trust_region.Samples(KEY, 50)
    seen = knowledge.observe(system, over_time(start(system, 100.0), 60), jnp.asarray(0))
    about = knowledge.expand(system, seen)
    np.testing.assert_allclose(about.A[1:20], np.tile(system.step.A, (19, 1, 1)), atol=1e-3)
    np.testing.assert_allclose(about.B[1:20], np.tile(system.step.B, (19, 1, 1)), atol=1e-3)
    found = trust_region.gps(system, 5.0, 14, start(system, 100.0), knowledge)
    again = trust_region.gps(system, 5.0, 14, start(system, 100.0), knowledge)
    np.testing.assert_array_equal(found.cost, again.cost)
    mean = trust_region.gps(system, 5.0, 1, found.policy)
    assert 7520.99 < mean.cost[0] < 7600


@pytest.mark.slow
def test_bounds_at_each_step_and_on_states():
    system, last = gallery.regulator(12), {}
    for search in (trust_region.gps, trust_region.saps, trust_region.esaps):
        found = search(system, np.full(12, 0.5), num_iterations=4, start=start(system, 100.0))
        assert np.all(np.diff(found.cost) <= 0) and found.cost[-1] < found.cost[0] / 10
        assert found.kl.shape == (4, 12) and np.all(np.isfinite(found.policy.cov))
        last[search] = found
    np.testing.assert_allclose(last[trust_region.gps].kl, 0.5, atol=1e-8)
    # What states may not do, the policy may no longer do either.
    assert np.all(last[trust_region.saps].kl <= 0.5 + 1e-5)


@pytest.mark.slow
def test_esaps_keeps_its_entropy():
    system, lost = gallery.regulator(12), 0.05
    found = trust_region.esaps(system, 0.5, lost, 3, start(system, 100.0), num_halvings=0)
    assert np.all(0.5 * np.log(found.policy.cov[:, 0, 0] / 100.0) >= -3 * lost - 1e-4)
    free = trust_region.saps(system, 0.5, 3, start(system, 100.0), num_halvings=0)
    assert np.min(free.policy.cov) < np.min(found.policy.cov)


@pytest.mark.slow
def test_derivatives_of_a_search():
    """In the target and in the system, forwards and backwards."""
    system = gallery.regulator(10)

    def cost(goal, drift):
        made = Dynamics(
            Partial(lambda A, x, u, t: A @ (x - 10.0) + jnp.array([1.0, 0.0]) * u[0], drift),
            Partial(lambda goal, x, u, t: 0.1 * u[0] ** 2 + jnp.sum((x - goal) ** 2), goal),
            10, [5.0, 5.0], 1, 1e-2 * jnp.eye(2), 1e-4 * jnp.eye(2),
        )  # fmt: skip
        return trust_region.gps(made, 2.0, 3, start(system, 10.0), num_halvings=0).cost[-1]

    at = jnp.array([9.0, 11.0]), jnp.array([[1.1, 0.0], [1.0, 1.0]])
    slopes = jax.jit(jax.grad(cost, (0, 1)))(*at)
    for i in (0, 1):
        way, h = np.random.default_rng(i).normal(size=at[i].shape), 1e-5
        ahead, behind = (cost(*(x + s * h * way if j == i else x for j, x in enumerate(at))) for s in (1, -1))
        np.testing.assert_allclose(np.sum(slopes[i] * way), (ahead - behind) / (2 * h), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("search", ["gps", "gps_at_each_step", "saps", "esaps"])
def test_derivatives_in_every_number_of_a_task(search):
    """Masses, lengths, frictions, weights of the cost, the first state, noise: by differences of fourth order."""
    system = eqx.tree_at(lambda each: each.cost.onset, gallery.pendulum(12), jnp.asarray(6.0))
    bounds = {"gps": (2.0,), "gps_at_each_step": (np.full(12, 0.2),), "saps": (0.5,), "esaps": (0.5, 0.2)}[search]
    run = getattr(trust_region, search.removesuffix("_at_each_step"))
    numbers, rest = eqx.partition(system, eqx.is_inexact_array)

    def cost(numbers):
        return run(eqx.combine(numbers, rest), *bounds, 2, start(system, 1.0), num_halvings=0).cost[-1]

    leaves, tree = jax.tree.flatten(numbers)
    rng = np.random.default_rng(0)
    # Covariances stay multiples of what they are; what is 0 or infinite, such as the onset of a cost, stays so.
    free = [jnp.isfinite(x) & (x != 0) for x in leaves]
    ways = [
        jnp.where(each, x, 0.0) * (rng.normal() if x.ndim == 2 else rng.normal(size=x.shape))
        for x, each in zip(leaves, free, strict=True)
    ]

    def along(h):
        moved = [jnp.where(each, x + h * way, x) for x, way, each in zip(leaves, ways, free, strict=True)]
        return cost(jax.tree.unflatten(tree, moved))

    value, slope = jax.jit(jax.value_and_grad(along))(0.0)
    h, function = 1e-3, jax.jit(along)
    ahead, behind, far, back = (function(x) for x in (h, -h, 2 * h, -2 * h))
    assert abs(slope) > 1e-3 * value
    np.testing.assert_allclose(slope, (8 * (ahead - behind) - (far - back)) / (12 * h), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("search", [trust_region.gps, trust_region.saps])
def test_seeds_and_tasks_side_by_side(search):
    """Each as it is alone, though loops run until the slowest has arrived."""
    keys, weights = jax.random.split(KEY, 3), jnp.array([0.03, 0.1, 1.0])

    def found(key, weight):
        system = gallery.regulator(10)
        system = eqx.tree_at(lambda each: each.cost.action_weights, system, weight[None])
        samples = trust_region.Samples(key, 20)
        return search(system, 1.0, 3, start(system, 10.0), samples, num_halvings=0)

    alone = jax.jit(found)
    together = jax.vmap(found)(keys, weights)
    for i in range(3):
        own = alone(keys[i], weights[i])
        np.testing.assert_allclose(together.cost[i], own.cost, rtol=1e-6)
        np.testing.assert_allclose(together.policy.gain[i], own.policy.gain, rtol=1e-4, atol=1e-6)
    assert np.all(together.accepted) and np.all(together.cost[:, -1] < together.cost[:, 0])


def total_cost(system, actions):
    """The cost of actions without noise, written once more."""

    def move(x, now):
        t, u = now
        u = system.applied(u)
        return system.step(x, u, t), system.cost(x, u, t)

    last, costs = jax.lax.scan(move, system.initial_mean, (jnp.arange(system.horizon), actions))
    return jnp.sum(costs) + system.cost(last, jnp.zeros(system.num_actions), system.horizon)


def test_iterative_lqr_finds_the_optimum_of_a_linear_system():
    """Which is least squares in all actions together. 7520.991 is published."""
    found = trust_region.ilqr(gallery.regulator(), 12)
    A, B, goal, T = np.array([[1.1, 0.0], [1.0, 1.0]]), np.array([[1.0], [0.0]]), np.array([10.0, 10.0]), 60
    # States as affine functions of the actions, less the goal.
    rows, moved = [np.zeros((2, T))], [np.array([5.0, 5.0]) - goal]
    for t in range(T):
        rows.append(A @ rows[-1] + B * (np.arange(T) == t))
        moved.append(A @ moved[-1] - goal)
    stacked = np.concatenate([*rows, np.sqrt(0.1) * np.eye(T)])
    right = -np.concatenate([*moved, np.zeros(T)])
    best, left = np.linalg.lstsq(stacked, right)[:2]
    np.testing.assert_allclose(found.cost[-1], left[0], rtol=1e-9)
    np.testing.assert_allclose(found.cost[-1], 7520.990854, rtol=1e-9)
    np.testing.assert_allclose(found.actions[:, 0], best, atol=1e-4)
    assert found.converged and np.all(np.diff(found.cost) <= 0)
    # The policy about the trajectory follows it.
    again = mean_trajectory(gallery.regulator(), found.policy)
    np.testing.assert_allclose(again.cost, found.cost[-1], rtol=1e-9)


@pytest.mark.slow
def test_iterative_lqr_swings_up():
    system = gallery.double_pendulum()
    found = trust_region.ilqr(system, 60)
    assert np.all(np.diff(found.cost) <= 0) and found.cost[-1] < 1329  # what bounded steps come to in 50 iterations
    np.testing.assert_allclose(found.states[-1], 0.0, atol=0.05)
    pendulum = gallery.pendulum()
    found = trust_region.ilqr(pendulum, 60)
    slope = jax.grad(lambda actions: total_cost(pendulum, actions))(found.actions)
    assert found.converged and np.abs(slope).max() < 1e-3 * (1 + found.cost[-1])
    # On the way nothing is called an end, and least of all where damping keeps steps small.
    assert not trust_region.ilqr(pendulum, 3).converged and not trust_region.ilqr(pendulum, 3, damping=1e10).converged


@pytest.mark.slow
def test_plans_that_are_made_anew_swing_up_and_stay():
    system = gallery.pendulum()
    always = eqx.tree_at(
        lambda each: (each.cost.onset, each.cost.action_weights, each.noise),
        system,
        (jnp.asarray(-jnp.inf), jnp.array([1e-5]), 1e-6 * jnp.eye(2)),
    )
    done = trust_region.receding(always, KEY, 60, 25, 10)
    assert np.abs(done.states[40:, 0]).max() < 0.05 and np.abs(done.actions).max() <= 10
    np.testing.assert_array_equal(trust_region.receding(always, KEY, 60, 25, 10).states, done.states)
    assert np.abs(trust_region.receding(always, jax.random.key(1), 60, 25, 10).states - done.states).max() > 1e-4


@pytest.mark.slow
def test_a_plan_is_the_optimum_of_its_own_horizon():
    system = gallery.regulator()
    still = eqx.tree_at(lambda each: (each.noise, each.initial_cov), system, (jnp.zeros((2, 2)),) * 2)
    done = trust_region.receding(still, KEY, 3, 25, 6)
    for t in range(3):
        ahead = still.onwards(done.states[t], t, 25)
        best = trust_region.ilqr(ahead, 12)
        np.testing.assert_allclose(done.actions[t], best.actions[0], rtol=1e-6)
        np.testing.assert_allclose(done.planned[t], best.cost[-1], rtol=1e-9)


def test_the_local_program_is_solved_as_any_other():
    system = gallery.pendulum(5)
    policy = start(system, 5.0)
    states = jnp.tile(system.initial_mean, (6, 1))
    program = trust_region.local_program(system.expand(states, jnp.zeros((5, 1))), over_time(policy, 5))
    assert program.scopes == {"u": ("x",)} and program.horizon == 5
    solution = exact.solve(program)
    assert solution.converged and np.isfinite(solution.elbo)


def test_systems_that_are_none(monkeypatch):
    def step(x, u, t):
        return x + u

    def cost(x, u, t):
        return jnp.sum(x**2)

    made = {"step": step, "cost": cost, "horizon": 3, "initial_mean": [0.0, 0.0], "num_actions": 2}
    wrong = [
        ({"horizon": 0}, "horizon is 0"),
        ({"num_actions": 3}, r"step\(x, u, t\) does not run"),
        ({"cost": lambda x, u, t: x}, r"cost\(x, u, t\) returns .*shape \(\)"),
        ({"initial_mean": [0.0, np.nan]}, "initial_mean"),
        ({"initial_cov": [[1.0, 0.5], [0.0, 1.0]]}, "not symmetric"),
        ({"noise": -np.eye(2)}, "semidefinite"),
        ({"action_limit": 0.0}, "above 0"),
        ({"action_limit": [1.0, 1.0, 1.0]}, "action_limit"),
    ]
    for change, message in wrong:
        with pytest.raises(ValueError, match=message):
            Dynamics(**(made | change))
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    for change, message in (({"step": 1}, "step must be a function"), ({"horizon": 2.5}, "whole number")):
        with pytest.raises(TypeError, match=message):
            Dynamics(**(made | change))
    system = Dynamics(**made)
    for bound, message in ((0.0, "above 0"), (np.inf, "finite"), ([1.0, 2.0], "one for each of 3 steps")):
        with pytest.raises(ValueError, match=message):
            trust_region.gps(system, bound)
    with pytest.raises(ValueError, match="start's gain has shape"):
        trust_region.gps(system, 1.0, start=(np.zeros((1, 2)), np.zeros(2), np.eye(2)))
    with pytest.raises(ValueError, match="cov at t = 0 has the eigenvalue 0"):
        trust_region.gps(system, 1.0, start=(np.zeros((2, 2)), np.zeros(2), np.zeros((2, 2))))
    with pytest.raises(TypeError, match="dynamics must be a task"):
        trust_region.gps("pendulum", 1.0)
    with pytest.raises(ValueError, match="damping is 0"):
        trust_region.ilqr(system, 5, damping=0.0)
    with pytest.raises(ValueError, match="initial_cov is singular"):
        trust_region.saps(system, 1.0)
    with pytest.raises(ValueError, match="take at least 6 trajectories"):
        trust_region.gps(system, 1.0, knowledge=trust_region.Samples(KEY, 5))
    with pytest.raises(ValueError, match="ridge"):
        trust_region.Samples(KEY, 10, 0.0)


def test_a_derivative_that_is_not_finite_is_named():
    def step(x, u, t):
        return jnp.where(t == 2, jnp.sqrt(jnp.abs(x)), x) + u

    system = Dynamics(step, lambda x, u, t: jnp.sum(x**2) + u @ u, 4, [0.0], 1, [[0.1]], [[0.1]])
    for search in (lambda: trust_region.gps(system, 1.0, 2), lambda: trust_region.ilqr(system, 3)):
        with pytest.raises(ValueError, match="derivative in x is not finite at t = 2"):
            search()
