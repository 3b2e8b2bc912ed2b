"""Programs share compiled code where they compute the same, and only there: inner constants, rules, callbacks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from numpyro.distributions import Categorical, Normal

from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.inference import exact, smc, svi

ACTIONS = 3
ARRAYS = np.array([0.5, -1.0, 2.0]), np.array([2.0, 0.1, -0.7])


def bandit(pay, args=(), prior=None):
    """One decision among three values, paid once."""
    prior = jnp.ones(ACTIONS) / ACTIONS if prior is None else prior

    def step(*args, s):
        a = decide("a", Categorical(probs=prior))
        optimality(jnp.asarray(pay(a, *args), float))
        return {"s": s}

    return ControlProgram(lambda *args: {"s": 0}, step, 1, sizes={"s": 1}, args=args)


def softmax(rewards):
    p = np.exp(rewards - np.max(rewards))
    return p / p.sum()


def found(program):
    return np.ravel(exact.solve(program).policy["a"])


def inside_jit(r):
    table = jnp.asarray(r)
    return jax.jit(lambda a: table[a])


def nested_jit(r):
    inner = inside_jit(r)
    return jax.jit(lambda a: 1.0 * inner(a))


def numpy_inside_jit(r):
    return jax.jit(lambda a: jnp.asarray(r)[a])


def inside_cond(r):
    table = jnp.asarray(r)
    return lambda a: lax.cond(a >= 0, lambda: table[a], lambda: 0.0)


def inside_switch(r):
    return lambda a: lax.switch(a, [functools.partial(lambda x: jnp.asarray(x), x) for x in map(float, r)])


def inside_scan(r):
    table = jnp.asarray(r)
    return lambda a: lax.scan(lambda c, _: (c + table[a] / 2, None), 0.0, None, length=2)[0]


def inside_while(r):
    table = jnp.asarray(r)
    return lambda a: lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, c[1] + table[a] / 2), (0, 0.0))[1]


def inside_fori(r):
    table = jnp.asarray(r)
    return lambda a: lax.fori_loop(0, 2, lambda i, c: c + table[a] / 2, 0.0)


def inside_map(r):
    table = jnp.asarray(r)
    return lambda a: lax.map(lambda i: table[a] * i, jnp.array([0.5, 0.5])).sum()


def inside_remat(r):
    table = jnp.asarray(r)
    return jax.checkpoint(lambda a: table[a])


def inside_vmap_of_jit(r):
    inner = inside_jit(r)
    return lambda a: jax.vmap(inner)(jnp.arange(3))[a]


def static_argument(r):
    pay = jax.jit(lambda a, values: jnp.asarray(values)[a], static_argnums=1)
    return lambda a: pay(a, tuple(map(float, r)))


def static_keyword(r):
    pay = jax.jit(lambda a, *, values: jnp.asarray(values)[a], static_argnames="values")
    return lambda a: pay(a, values=tuple(map(float, r)))


def partial_of_jit(r):
    pay = jax.jit(lambda values, a: values[a])
    return functools.partial(pay, jnp.asarray(r))


def custom_jvp_constant(r):
    table = jnp.asarray(r)
    pay = jax.custom_jvp(lambda x: table @ x)
    pay.defjvp(lambda p, t: (table @ p[0], table @ t[0]))
    return lambda a: pay(jax.nn.one_hot(a, 3))


def custom_vjp_constant(r):
    table = jnp.asarray(r)
    pay = jax.custom_vjp(lambda x: table @ x)
    pay.defvjp(lambda x: (table @ x, None), lambda _, c: (c * table,))
    return lambda a: pay(jax.nn.one_hot(a, 3))


def callback(r):
    return lambda a: jax.pure_callback(
        lambda a: np.asarray(r[int(a)]), jax.ShapeDtypeStruct((), float), a, vmap_method="sequential"
    )


def callback_inside_jit(r):
    return jax.jit(callback(r))


def literals(r):
    return lambda a: jnp.select([a == 0, a == 1], [float(r[0]), float(r[1])], float(r[2]))


def literals_inside_jit(r):
    return jax.jit(literals(r))


def large_constant(r):
    table = jnp.zeros(1000).at[:3].set(jnp.asarray(r))
    return jax.jit(lambda a: table[a])


def linear_solve(r):
    matrix = jnp.diag(1.0 / jnp.asarray(r))
    return lambda a: jnp.linalg.solve(matrix, jnp.ones(3))[a]


def reduced(r):
    table = jnp.asarray(r)
    return jax.jit(lambda a: jnp.sum(jnp.where(jnp.arange(3) == a, table, 0.0)))


PLACES = [
    inside_jit, nested_jit, numpy_inside_jit, inside_cond, inside_switch, inside_scan, inside_while, inside_fori,
    inside_map, inside_remat, inside_vmap_of_jit, static_argument, static_keyword, partial_of_jit, custom_jvp_constant,
    custom_vjp_constant, callback, callback_inside_jit, literals, literals_inside_jit, large_constant, linear_solve,
    reduced,
]  # fmt: skip


@pytest.mark.parametrize("make", PLACES, ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    "order", [(0, 1), pytest.param((1, 0), marks=pytest.mark.slow)], ids=["one then other", "other then one"]
)
def test_numbers_inside_functions_are_those_of_the_program(make, order):
    for i in order:
        np.testing.assert_allclose(found(bandit(make(ARRAYS[i]))), softmax(ARRAYS[i]), rtol=1e-6)


@pytest.mark.parametrize("place", ["close", "zero", "type", "deep"])
def test_constants_that_look_alike_are_told_apart(place):
    one, other = {
        "close": (1.0, 1.0 + 1e-12),
        "zero": (0.0, -0.0),
        "type": (1.0, 1),
        "deep": (np.arange(2000.0), np.r_[np.arange(1000.0), -1.0, np.arange(1001.0, 2000.0)]),
    }[place]
    make = lambda x: jax.jit(lambda a: jnp.max(jnp.asarray(x)) * a)  # noqa: E731
    assert bandit(make(one)).structure != bandit(make(other)).structure


@pytest.mark.parametrize("engine", ["condition", "svi", "smc"])
def test_other_engines(engine):
    for rewards in (*ARRAYS, *ARRAYS):
        program = bandit(inside_jit(rewards))
        if engine == "condition":
            policy = exact.condition(program).policy["a"]
        elif engine == "svi":
            policy = svi.fit(program, jax.random.key(0), 20).policy["a"]
        else:
            policy = smc.run(program, jax.random.key(0), 4000).policy["a"]
        tolerance = {"condition": 1e-9, "svi": 1e-6, "smc": 0.05}[engine]
        np.testing.assert_allclose(np.ravel(policy), softmax(rewards), atol=tolerance)


def sloped(rule, factor):
    """A square of an argument whose derivative is `factor` times itself."""
    square = rule(lambda x: x * x)
    if rule is jax.custom_jvp:
        square.defjvp(lambda p, t: (p[0] ** 2, factor * t[0]))
    else:
        square.defvjp(lambda x: (x * x, None), lambda _, c: (factor * c,))
    return lambda a, x: square(x) * a


@pytest.mark.parametrize("rule", [jax.custom_jvp, jax.custom_vjp])
def test_custom_rules_of_derivatives_are_those_of_the_program(rule):
    """The derivative of log sum exp(a x^2) / 3 in x is `factor` E a."""
    for factor in (2.0, 5.0, 2.0, -1.0):
        pay = sloped(rule, factor)
        slope = jax.grad(lambda x, pay=pay: exact.solve(bandit(pay, (x,))).elbo)(jnp.asarray(1.5))
        assert float(slope) == pytest.approx(factor * softmax(2.25 * np.arange(3)) @ np.arange(3), rel=1e-9)


def test_laws_and_dynamics_of_particles():
    def walk(table):
        read = jax.jit(lambda t: jnp.asarray(table)[t])

        def step(x, t):
            u = decide("u", Normal(read(t), 1e-3))
            optimality(0.0)
            return {"x": x + u}

        return ControlProgram(lambda: {"x": jnp.zeros(())}, step, 2)

    for table in (np.array([1.0, 2.0]), np.array([-3.0, 0.5])):
        run = smc.run(walk(table), jax.random.key(0), 10)
        np.testing.assert_allclose(run.trajectories["x"][:, -1], table.sum(), atol=0.02)


shared_rule = jax.custom_jvp(lambda x: x * x)
shared_rule.defjvp(lambda p, t: (p[0] ** 2, 3 * p[0] * t[0]))


def host(a):
    return np.asarray(float(a))


SHARING = {
    "closures": lambda x: bandit(lambda a: x[a]),
    "arguments": lambda x: bandit(lambda a, r: r[a], (x,)),
    "a jitted function of arguments": lambda x: bandit(jax.jit(lambda a, r: r[a]), (x,)),
    "cond over arguments": lambda x: bandit(lambda a, r: lax.cond(a > 0, lambda: r[a], lambda: -r[a]), (x,)),
    "scan over arguments": lambda x: bandit(
        lambda a, r: lax.scan(lambda c, y: (c + y * a, None), 0.0, r)[0], (x,)
    ),
    "softplus": lambda x: bandit(lambda a, r: jax.nn.softplus(r[a]), (x,)),
    "relu": lambda x: bandit(lambda a, r: jax.nn.relu(r[a]), (x,)),
    "logsumexp": lambda x: bandit(lambda a, r: jax.nn.logsumexp(r * a), (x,)),
    "a custom rule": lambda x: bandit(lambda a, r: shared_rule(r[a]), (x,)),
    "a callback": lambda x: bandit(
        lambda a, r: r[a] + jax.pure_callback(host, jax.ShapeDtypeStruct((), float), a, vmap_method="sequential"), (x,)
    ),
    "priors": lambda x: bandit(lambda a, p: 1.0 * a, (x,), None),
    "a solve": lambda x: bandit(lambda a, r: jnp.linalg.solve(jnp.eye(3) + jnp.diag(r**2), r)[a], (x,)),
}  # fmt: skip


@pytest.mark.parametrize("name", SHARING)
def test_what_computes_the_same_shares_its_code(name):
    one, other = (SHARING[name](jnp.asarray(x)) for x in ARRAYS)
    assert one.structure == other.structure and hash(one.structure) == hash(other.structure)
    compiled = exact.answers.solve._cached._cache_size()
    exact.solve(one)
    after = exact.answers.solve._cached._cache_size()
    exact.solve(other)
    assert exact.answers.solve._cached._cache_size() == after >= compiled
