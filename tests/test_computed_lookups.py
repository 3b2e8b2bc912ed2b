"""Look-ups by computed indices that go out of their arrays, which JAX answers silently."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from jax import lax
from numpyro.distributions import Categorical, Normal
from selection import quick

from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.inference import exact, smc
from rlinf_ppl.program import read
from rlinf_ppl.program.bounds import computes_indices

S, A, T = 3, 2, 4
KEY = jax.random.key(0)
HALF = jnp.array([0.5, 0.5])


def ramp(n):
    return jnp.arange(float(n)) / 10


# Each takes an array `r`, state `s` and time `t`; the largest index that it looks up is 4, at s = 2 or t = 3 at last.
READS = {
    "plus": lambda r, s, t: r[s + 2],
    "time": lambda r, s, t: r[t + 1],
    "sum": lambda r, s, t: r[jnp.minimum(s + t, 4)],
    "product": lambda r, s, t: r[2 * s],
    "square": lambda r, s, t: r[s**2],
    "two axes": lambda r, s, t: jnp.stack([r, r])[s % 2, s + 2],
    "transposed": lambda r, s, t: jnp.stack([r, r], 1)[s + 2, 0],
    "row": lambda r, s, t: jnp.stack([r, r], 1)[s + 2].sum(),
    "vector": lambda r, s, t: r[jnp.array([0, 1]) + s + 1].sum(),
    "slice": lambda r, s, t: lax.dynamic_slice(r, (s + 1,), (2,)).sum(),
    "plain slice": lambda r, s, t: lax.dynamic_slice(r, (s,), (3,)).sum(),
    "dynamic index": lambda r, s, t: lax.dynamic_index_in_dim(r, s + 2, keepdims=False),
    "take": lambda r, s, t: jnp.take(r, s + 2),
    "take along": lambda r, s, t: jnp.take_along_axis(r, jnp.array([s + 2]), 0)[0],
    "jit": lambda r, s, t: jax.jit(lambda s: r[s + 2])(s),
    "plain in jit": lambda r, s, t: jax.jit(lambda k: r[k])(s + 2),
    "vmap": lambda r, s, t: jax.vmap(lambda i: r[i + s])(jnp.arange(3)).sum(),
    "cond": lambda r, s, t: lax.cond(s > 0, lambda: r[s + 2], lambda: 0.0),
    "switch": lambda r, s, t: lax.switch(s, [lambda: 0.0, lambda: r[s], lambda: r[s + 2]]),
    "scan": lambda r, s, t: lax.scan(lambda c, i: (c + r[i + s], c), 0.0, jnp.arange(3))[0],
    "scanned": lambda r, s, t: lax.scan(lambda c, i: (c, r[i + s]), 0.0, jnp.arange(3))[1].sum(),
    "loop": lambda r, s, t: lax.fori_loop(0, s + 1, lambda i, c: c + r[i + 2], 0.0),
    "while": lambda r, s, t: lax.while_loop(lambda i: r[i] < 0.05 * s, lambda i: i + 1, s + 2) * 0.1,
    "table": lambda r, s, t: r[jnp.array([1, 2, 4])[s]],
    "write": lambda r, s, t: r.at[s + 2].set(1.0).sum(),
    "add": lambda r, s, t: r.at[s + 2].add(1.0).sum(),
    "update slice": lambda r, s, t: lax.dynamic_update_slice(r, jnp.ones(2), (s + 1,)).sum(),
    "a number": lambda r, s, t: r[4] + 0.0 * s,
    "known positions": lambda r, s, t: r[jnp.array([0, 4])].sum() + 0.0 * s,
    "comparison": lambda r, s, t: r[jnp.where(s == 2, 4, s)],
}

# The last four are slow.
SAMPLED = "plus", "time", "scan", "write", "vector", "vmap", "cond", "while"

# These are right as they stand, with an array of any length.
ALLOWED = {
    "clipped": lambda r, s, t: r[jnp.clip(s + 2, 0, len(r) - 1)],
    "modulo": lambda r, s, t: r[(s + t) % len(r)],
    "negative": lambda r, s, t: r[s - 1] + r[-1 - s],
    "asked to clip": lambda r, s, t: r.at[jnp.arange(2) + s].get(mode="clip").sum() + jnp.take(r, s + 7, mode="clip"),
    "asked to wrap": lambda r, s, t: jnp.take(r, s + 7, mode="wrap"),
    "chosen": lambda r, s, t: jnp.where(s + 2 < len(r), r[s + 2], 0.0),
    "not reached": lambda r, s, t: lax.cond(s + 2 < len(r), lambda: r[s + 2], lambda: 0.0),
    "interpolated": lambda r, s, t: jnp.interp(2.0 * s, jnp.arange(float(len(r))), r),
}


def rewarded(read, n):
    def step(s, t):
        a = decide("a", Categorical(probs=HALF))
        optimality(read(ramp(n), s, t) + 0.0 * a)
        return {"s": numpyro.sample("s_next", Categorical(probs=jnp.full(S, 1 / S)))}

    return ControlProgram(lambda: {"s": 0}, step, T, sizes={"s": S})


def refuses(program, *words, sampled=True):
    with pytest.raises(ValueError, match="out of its axis") as error:
        read(program)
    for word in words:
        assert word in str(error.value)
    if not sampled:
        return
    with pytest.raises(FloatingPointError, match="index"):
        smc.run(program, KEY, num_particles=64)


def accepts(program, sampled=True):
    assert read(program).valid
    if not sampled:
        return
    assert np.isfinite(smc.run(program, KEY, num_particles=8).log_evidence)


@pytest.mark.parametrize("name", quick([name for name in READS if name not in SAMPLED[4:]], READS))
def test_rewards(name):
    sampled = name in SAMPLED
    accepts(rewarded(READS[name], 5), sampled)
    refuses(rewarded(READS[name], 4), "step", "optimality", "t = 3" if name == "time" else "s = ", sampled=sampled)


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_allowed(name):
    for n in (3, 4, 5):
        accepts(rewarded(ALLOWED[name], n), sampled=n == 3)


def test_too_far_below_zero():
    refuses(rewarded(lambda r, s, t: r[s - 4], 3), "s = 0")
    accepts(rewarded(lambda r, s, t: r[s - 3], 3))


def test_the_values_are_named_where_it_goes_out():
    def step(s, t):
        a = decide("a", Categorical(probs=HALF))
        optimality(ramp(6)[s + t + a])
        return {"s": s}

    with pytest.raises(ValueError, match=r"step: 'optimality' at t = 3, s = 2, a = 1 looks up"):
        read(ControlProgram(lambda: {"s": 0}, step, T, sizes={"s": S}))


def moved(n, where):
    """A look-up in one of several places, of an array of length n, by 2 s."""

    def initial():
        s = numpyro.sample("s0", Categorical(probs=jnp.full(S, 1 / S)))
        more = numpyro.sample("more", Categorical(probs=ramp_law(n if where == "initial" else 5)[2 * s]))
        return {"s": (s + more) % S}

    def step(s):
        a = decide("a", Categorical(probs=ramp_law(n if where == "prior" else 5)[2 * s]))
        law = jnp.zeros((5, 3)).at[:, 1].set(1.0)[: n if where == "transition" else 5]
        moved = numpyro.sample("moved", Categorical(probs=law[2 * s]))
        optimality(0.1 * a)
        return {"s": jnp.zeros(n if where == "next" else 5, int)[2 * s] + moved}

    def final(s):
        optimality(ramp(n if where == "final" else 5)[2 * s], name="end")

    return ControlProgram(initial, step, 2, final=final, sizes={"s": S})


def ramp_law(n):
    return jnp.tile(HALF, (n, 1))


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("initial", ("initial", "'more'", "s0 = 2")),
        ("prior", ("step", "'a'", "s = 2")),
        ("transition", ("step", "'moved'", "s = 2")),
        ("next", ("step", "the next 's'", "s = 2")),
        ("final", ("final", "'end'", "s = 2")),
    ],
)
def test_every_part(where, words):
    accepts(moved(5, where))
    with pytest.raises(ValueError, match="out of its axis") as error:
        read(moved(4, where))
    assert all(word in str(error.value) for word in words)


def test_an_index_that_is_an_argument():
    def step(where, s):
        a = decide("a", Categorical(probs=HALF))
        optimality(ramp(4)[where[s]] * a)
        return {"s": s}

    def program(where):
        return ControlProgram(lambda where: {"s": 0}, step, 2, args=(where,), sizes={"s": 2})

    accepts(program(jnp.array([0, 3])))
    refuses(program(jnp.array([4, 3])), "s = 0")
    solved = jax.jit(lambda where: exact.solve(program(where)).converged)
    assert solved(jnp.array([0, 3])) and not solved(jnp.array([0, 4]))
    both = jax.vmap(lambda where: exact.solve(program(where)).converged)(jnp.array([[0, 4], [1, 2]]))
    np.testing.assert_array_equal(both, [False, True])


@pytest.mark.parametrize("n", [4, 5])
def test_programs_of_vectors(n):
    def initial():
        return {"x": numpyro.sample("x0", Normal(0.0, 1.0))}

    def step(goal, x, t):
        u = decide("u", Normal(0.0, 1.0))
        optimality(-((x - goal[t + 1]) ** 2))
        return {"x": numpyro.sample("y", Normal(x + u, 0.1))}

    def program(goal):
        return ControlProgram(lambda goal: initial(), step, T, args=(goal,))

    solved = jax.jit(lambda goal: exact.solve(program(goal)).converged)(ramp(n))
    assert bool(solved) == (n == 5)
    if n == 5:
        assert exact.solve(program(ramp(n))).converged
        assert np.isfinite(smc.run(program(ramp(n)), KEY, num_particles=8).log_evidence)
    else:
        refuses(program(ramp(n)), "step", "t = 3")


def test_plain_programs_are_not_looked_at():
    def step(reward, move, s, t):
        a = decide("a", Categorical(probs=jnp.tile(HALF, (S, 1))[s]))
        optimality(reward[t, s, a] + reward[0, s, a])
        return {"s": numpyro.sample("s_next", Categorical(probs=move[s, a]))}

    arrays = jnp.zeros((T, S, A)), jnp.full((S, A, S), 1 / S)
    program = ControlProgram(lambda reward, move: {"s": 0}, step, T, args=arrays, sizes={"s": S})
    form = program.structure.step
    assert not computes_indices(form.arithmetic.jaxpr, len(form.inputs))
    accepts(program)
