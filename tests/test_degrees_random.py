"""Random arithmetic of known degree: the degrees that are found, and the coefficients that are read, at all scales."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from rlinf_ppl.program.degree_rules import RULES
from rlinf_ppl.program.degrees import NO_POLYNOMIAL, Analysis, spread
from rlinf_ppl.program.plain import evaluate

PRECISIONS = pytest.mark.parametrize("double", [True, False], ids=["float64", "float32"])
SIZE = 2
MASK = np.array([True, False])
numbers = st.floats(1.0, 9.0).flatmap(
    lambda digit: st.sampled_from([1e-6, 1e-3, 1.0, 1e3, 1e6]).map(lambda scale: digit * scale)
)
signed = st.tuples(numbers, st.sampled_from([-1.0, 1.0])).map(lambda pair: pair[0] * pair[1])
vectors = st.tuples(signed, signed)


class Polynomial:
    """A vector of polynomials of z in plain NumPy: its coefficients, and what their terms add up to in size."""

    def __init__(self, coefficients, sizes, degree):
        self.coefficients, self.sizes, self.degree = coefficients, sizes, degree

    @classmethod
    def of(cls, matrix, degree):
        """From (n, SIZE + 1, SIZE + 1), the constant last."""
        matrix = (matrix + np.swapaxes(matrix, 1, 2)) / 2
        return cls(matrix, np.abs(matrix), np.asarray(degree))

    def each(self, function, degree=None):
        """A map of coefficients that is linear with weights of one sign."""
        return Polynomial(function(self.coefficients), function(self.sizes), self.degree if degree is None else degree)


def constant(vector):
    matrix = np.zeros((len(vector), SIZE + 1, SIZE + 1))
    matrix[:, -1, -1] = vector
    return Polynomial.of(matrix, np.zeros(len(vector), int))


def variable():
    matrix = np.zeros((SIZE, SIZE + 1, SIZE + 1))
    matrix[np.arange(SIZE), np.arange(SIZE), -1] = 1.0
    return Polynomial.of(matrix, np.ones(SIZE, int))


def add(p, q):
    return Polynomial(p.coefficients + q.coefficients, p.sizes + q.sizes, np.maximum(p.degree, q.degree))


def scale(p, vector):
    weights = np.asarray(vector)[:, None, None]
    return Polynomial(p.coefficients * weights, p.sizes * np.abs(weights), p.degree)


def transform(p, matrix):
    mixed = lambda weights, c: np.einsum("ij,jkl->ikl", weights, c)  # noqa: E731
    degree = np.full(SIZE, p.degree.max())
    return Polynomial(mixed(matrix, p.coefficients), mixed(np.abs(matrix), p.sizes), degree)


def multiply(p, q):
    """Products of which one factor has no square: the linear parts of both meet, and constants multiply."""

    def together(a, b):
        left, right = (2 * c[:, :, -1] for c in (a, b))
        left[:, -1], right[:, -1] = a[:, -1, -1], b[:, -1, -1]
        outer = (left[:, :, None] * right[:, None, :] + right[:, :, None] * left[:, None, :]) / 2
        for one, other in ((a, b), (b, a)):
            square = one.copy()
            square[:, -1, :] = square[:, :, -1] = 0.0
            outer = outer + square * other[:, -1, -1][:, None, None]
        return outer

    return Polynomial(together(p.coefficients, q.coefficients), together(p.sizes, q.sizes), p.degree + q.degree)


def choose(p, q):
    mask = MASK[:, None, None]
    picked = [np.where(mask, a, b) for a, b in ((p.coefficients, q.coefficients), (p.sizes, q.sizes))]
    return Polynomial(*picked, np.maximum(p.degree, q.degree))


def summed(p):
    return Polynomial(np.cumsum(p.coefficients, 0), np.cumsum(p.sizes, 0), np.full(SIZE, p.degree.max()))


@st.composite
def expressions(draw, depth=4):
    """A function of (z, whether) in JAX, beside the polynomial that it is."""
    if depth == 0 or draw(st.integers(0, 5)) == 0:
        if draw(st.booleans()):
            return (lambda z, yes: z), variable()
        vector = draw(vectors)
        return (lambda z, yes: jnp.asarray(vector)), constant(vector)
    f, p = draw(expressions(depth - 1))
    kind = draw(st.sampled_from(["add", "scale", "divide", "matrix", "multiply", "wrap", "choose", "cumsum", "roll"]))
    if kind in ("add", "multiply", "choose"):
        g, q = draw(expressions(depth - 1))
        if kind == "multiply" and np.max(p.degree + q.degree) > 2:
            kind = "add"
        return {
            "add": lambda: ((lambda z, yes: f(z, yes) + g(z, yes)), add(p, q)),
            "multiply": lambda: ((lambda z, yes: f(z, yes) * g(z, yes)), multiply(p, q)),
            "choose": lambda: ((lambda z, yes: jnp.where(jnp.asarray(MASK) & yes, f(z, yes), g(z, yes))), choose(p, q)),
        }[kind]()
    if kind == "wrap":
        return draw(st.sampled_from(WRAPPERS))(f), p
    if kind in ("scale", "divide"):
        vector = np.asarray(draw(vectors))
        weights = vector if kind == "scale" else 1 / vector
        jaxed = lambda z, yes: f(z, yes) * vector if kind == "scale" else f(z, yes) / vector  # noqa: E731
        return jaxed, scale(p, weights)
    if kind == "matrix":
        matrix = np.array([draw(vectors), draw(vectors)])
        return (lambda z, yes: jnp.asarray(matrix) @ f(z, yes)), transform(p, matrix)
    if kind == "roll":
        return (lambda z, yes: jnp.roll(f(z, yes), 1)), p.each(lambda c: np.roll(c, 1, 0), np.roll(p.degree, 1))
    return (lambda z, yes: jnp.cumsum(f(z, yes))), summed(p)


WRAPPERS = [
    lambda f: lambda z, yes: jax.jit(f)(z, yes),
    lambda f: lambda z, yes: lax.stop_gradient(f(z, yes)),
    lambda f: lambda z, yes: jax.checkpoint(f)(z, yes),
    lambda f: lambda z, yes: lax.cond(yes, lambda: f(z, yes), lambda: -f(z, yes)),
    lambda f: lambda z, yes: lax.scan(lambda c, row: (c, row), 0.0, f(z, yes))[1],
    lambda f: lambda z, yes: lax.fori_loop(0, 2, lambda i, c: -c, f(z, yes)),
    lambda f: lambda z, yes: -jnp.stack([-f(z, yes), f(z, yes)])[0],
    lambda f: lambda z, yes: jnp.concatenate([f(z, yes), jnp.ones(3)])[:SIZE],
]


def traced(function):
    closed = jax.make_jaxpr(function)(jnp.zeros(SIZE), jnp.asarray(True))
    return closed, [spread(1, (SIZE,)), spread(0, ())]


@PRECISIONS
@given(expressions())
@settings(max_examples=40)
def test_random_polynomials_have_their_degree_and_their_coefficients(double, drawn):
    function, polynomial = drawn
    with jax.enable_x64(double):
        closed, entries = traced(function)
        (found,) = Analysis(RULES).of(closed.jaxpr, entries)
        np.testing.assert_array_equal(found.degree, polynomial.degree)

        def value(z):
            return evaluate(closed.jaxpr, closed.consts, [z, jnp.asarray(True)], entries)[0]

        origin = jnp.zeros(SIZE)
        slope = jax.jacfwd(value)
        read = [np.asarray(each, float) for each in (value(origin), slope(origin) / 2, jax.jacfwd(slope)(origin) / 2)]
    c, sizes = polynomial.coefficients, polynomial.sizes
    parts = lambda m: (m[:, -1, -1], m[:, :-1, -1], m[:, :-1, :-1])  # noqa: E731
    tolerance = 1e-13 if double else 1e-5
    for one, expected, size in zip(read, parts(c), parts(sizes), strict=True):
        assert np.all(np.abs(one - expected) <= tolerance * size + (0 if double else 1e-36))


BENDS = [jnp.abs, jnp.sin, jnp.exp, jnp.floor, jnp.sort, jnp.sign, jax.nn.relu, lambda x: x**3 / x, jnp.sqrt]


@given(expressions(3), st.sampled_from(BENDS), expressions(2))
@settings(max_examples=30)
def test_what_bends_anywhere_is_no_polynomial(inside, bend, beside):
    bent, polynomial = inside
    other, _ = beside
    closed, entries = traced(lambda z, yes: other(z, yes) * jnp.roll(bend(bent(z, yes)), 1) + z)
    (found,) = Analysis(RULES).of(closed.jaxpr, entries)
    if polynomial.degree.max() > 0:
        assert np.any(found.degree >= NO_POLYNOMIAL)
