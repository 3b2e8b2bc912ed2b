"""Expressions of x (two numbers), u (one) and t that are linear or quadratic, each with the same in plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpyro.distributions import MultivariateNormal, Normal
from scipy import stats
from scipy.linalg import expm

Q = np.array([[-2.0, 0.3], [0.1, -1.5]])
K = np.array([[2.0, 0.4], [0.4, 1.0]])
G = np.array([0.7, -0.2])
A = np.random.default_rng(3).normal(size=(3, 2, 2))
TIME = 1
JQ, JK, JG, JA = (jnp.asarray(array) for array in (Q, K, G, A))


@jax.custom_jvp
def wrong_square(x):
    return x * x


wrong_square.defjvp(lambda primals, tangents: (wrong_square(primals[0]), 7.0 * tangents[0]))


@jax.custom_vjp
def wrong_double(x):
    return 2 * x


wrong_double.defvjp(lambda x: (2 * x, None), lambda _, g: (-g,))


def horner(x):
    return lax.scan(lambda total, c: (total * x[0] + c, None), 0.0, jnp.array([1.0, -2.0, 3.0]))[0]


def counted(n):
    def run(x):
        return lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, JQ @ c[1]), (0, x))[1]

    return run


def shifted(x):
    """The step's other number comes in from the side, more rounds than are followed one by one."""
    return lax.fori_loop(0, 101, lambda i, c: jnp.stack([c[1], -c[0]]), x)


def switched(x, t):
    return lax.switch(t, [lambda x: 2 * x, lambda x: -x, lambda x: 0 * x], x)


# name: (of x, u and t in JAX, the same in NumPy; None: the very same text)
FACTORS = {
    "x @ Q @ x": (lambda x, u, t: x @ Q @ x, None),
    "einsum": (lambda x, u, t: jnp.einsum("i,ij,j", x, JQ, x), lambda x, u, t: x @ Q @ x),
    "vdot": (lambda x, u, t: -jnp.vdot(x, x), lambda x, u, t: -np.vdot(x, x)),
    "dot precision": (lambda x, u, t: -jnp.dot(x, x, precision="highest"), lambda x, u, t: -x @ x),
    "x ** 2.0": (lambda x, u, t: -jnp.sum(x**2.0), lambda x, u, t: -np.sum(x**2)),
    "x ** 2": (lambda x, u, t: -jnp.sum(x**2), lambda x, u, t: -np.sum(x**2)),
    "x ** 1 ** 0": (lambda x, u, t: jnp.sum(x**1 + x**0), lambda x, u, t: np.sum(x + 1)),
    "square": (lambda x, u, t: -jnp.square(u), lambda x, u, t: -u * u),
    "u * u": (lambda x, u, t: -u * u + 3 * u - 1, None),
    "far": (lambda x, u, t: -((x[0] - 1e3) ** 2), None),
    "small": (lambda x, u, t: -1e-9 * u**2, None),
    "var": (lambda x, u, t: -jnp.var(x), lambda x, u, t: -np.var(x)),
    "var ddof": (lambda x, u, t: -jnp.var(x, ddof=1), lambda x, u, t: -np.var(x, ddof=1)),
    "cov": (lambda x, u, t: jnp.cov(x, jnp.array([1.0, 2.0]))[0, 1], lambda x, u, t: np.cov(x, [1.0, 2.0])[0, 1]),
    "mean": (lambda x, u, t: jnp.mean(x) ** 2, lambda x, u, t: np.mean(x) ** 2),
    "average": (
        lambda x, u, t: jnp.average(x, weights=jnp.array([1.0, 3.0])),
        lambda x, u, t: np.average(x, weights=[1.0, 3.0]),
    ),
    "trace outer": (lambda x, u, t: jnp.trace(jnp.outer(x, x)), lambda x, u, t: x @ x),
    "kron": (lambda x, u, t: jnp.sum(jnp.kron(x, x)), lambda x, u, t: np.sum(np.kron(x, x))),
    "convolve": (lambda x, u, t: jnp.convolve(x, x)[1], lambda x, u, t: np.convolve(x, x)[1]),
    "polyval": (
        lambda x, u, t: jnp.polyval(jnp.array([-1.0, 2.0, 5.0]), u),
        lambda x, u, t: np.polyval([-1.0, 2.0, 5.0], u),
    ),
    "Horner": (lambda x, u, t: horner(x), lambda x, u, t: x[0] ** 2 - 2 * x[0] + 3),
    "division": (lambda x, u, t: (x[0] - u) * x[1] / (2 + t), lambda x, u, t: (x[0] - u) * x[1] / 3),
    "where t": (lambda x, u, t: jnp.where(t == 1, -u * u, u), lambda x, u, t: -u * u),
    "cond t": (lambda x, u, t: lax.cond(t > 0, lambda: -x[0] * u, lambda: u), lambda x, u, t: -x[0] * u),
    "switch t": (lambda x, u, t: switched(x, t) @ x, lambda x, u, t: -x @ x),
    "mask": (lambda x, u, t: jnp.sum(x * u, where=jnp.array([True, False])), lambda x, u, t: x[0] * u),
    "vmap": (lambda x, u, t: -jnp.sum(jax.vmap(lambda y: y * (y - u))(x)), lambda x, u, t: -np.sum(x * (x - u))),
    "gradient": (lambda x, u, t: jax.grad(lambda y: jnp.sum(y**3))(u), lambda x, u, t: 3 * u**2),
    "jit": (lambda x, u, t: jax.jit(lambda y: -(y**2))(u), lambda x, u, t: -(u**2)),
    "remat": (lambda x, u, t: jax.checkpoint(lambda y: -(y**2))(u), lambda x, u, t: -(u**2)),
    "stop_gradient": (lambda x, u, t: -(lax.stop_gradient(u) ** 2), lambda x, u, t: -(u**2)),
    "custom_jvp": (lambda x, u, t: -jnp.sum(wrong_square(x)), lambda x, u, t: -np.sum(x**2)),
    "custom_jvp in a scan": (
        lambda x, u, t: -lax.scan(lambda c, y: (c + wrong_square(y), None), 0.0, x)[0],
        lambda x, u, t: -np.sum(x**2),
    ),
    "custom_jvp in a cond": (lambda x, u, t: lax.cond(t > 0, wrong_square, lambda y: y, u), lambda x, u, t: u**2),
    "custom_jvp in a while": (
        lambda x, u, t: lax.while_loop(lambda c: c[0] < t, lambda c: (c[0] + 1, c[1] + wrong_double(u)), (0, u))[1],
        lambda x, u, t: 3 * u,
    ),
    "solve": (lambda x, u, t: -x @ jnp.linalg.solve(JK, x), lambda x, u, t: -x @ np.linalg.solve(K, x)),
    "cho_solve": (
        lambda x, u, t: -x @ jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(JK), True), x),
        lambda x, u, t: -x @ np.linalg.solve(K, x),
    ),
    "Normal": (lambda x, u, t: Normal(x[0], 0.5).log_prob(u), lambda x, u, t: stats.norm(x[0], 0.5).logpdf(u)),
    "Normal data": (
        lambda x, u, t: Normal(x, 0.5).to_event(1).log_prob(JG),
        lambda x, u, t: stats.norm(x, 0.5).logpdf(G).sum(),
    ),
    "MultivariateNormal": (
        lambda x, u, t: MultivariateNormal(x, JK).log_prob(JG),
        lambda x, u, t: stats.multivariate_normal(x, K).logpdf(G),
    ),
    "MultivariateNormal at x": (
        lambda x, u, t: MultivariateNormal(JG, scale_tril=jnp.linalg.cholesky(JK)).log_prob(x),
        lambda x, u, t: stats.multivariate_normal(G, K).logpdf(x),
    ),
    "precision": (
        lambda x, u, t: MultivariateNormal(x, precision_matrix=JK).log_prob(JG),
        lambda x, u, t: stats.multivariate_normal(x, np.linalg.inv(K)).logpdf(G),
    ),
    "nan_to_num": (lambda x, u, t: -(jnp.nan_to_num(u) ** 2), lambda x, u, t: -(u**2)),
    "complex": (lambda x, u, t: jnp.real((x[0] + 1j * u) ** 2), lambda x, u, t: x[0] ** 2 - u**2),
    "known curve": (lambda x, u, t: jnp.exp(-1.0 * t) * u**2, lambda x, u, t: np.exp(-1.0) * u**2),
}

MEANS = {
    "A[t] @ x": (lambda x, u, t: JA[t] @ x, lambda x, u, t: A[TIME] @ x),
    "x + u": (lambda x, u, t: x + u, None),
    "matrix_power": (lambda x, u, t: jnp.linalg.matrix_power(JQ, 3) @ x, lambda x, u, t: Q @ Q @ Q @ x),
    "expm": (lambda x, u, t: jax.scipy.linalg.expm(JQ) @ x, lambda x, u, t: expm(Q) @ x),
    "inv": (lambda x, u, t: jnp.linalg.inv(JQ) @ x, lambda x, u, t: np.linalg.solve(Q, x)),
    "lstsq": (lambda x, u, t: jnp.linalg.lstsq(JQ, x)[0], lambda x, u, t: np.linalg.solve(Q, x)),
    "solve_triangular": (
        lambda x, u, t: jax.scipy.linalg.solve_triangular(JK, x),
        lambda x, u, t: np.linalg.solve(np.triu(K), x),
    ),
    "fori_loop": (
        lambda x, u, t: lax.fori_loop(0, 3, lambda i, c: JQ @ c + i * u, x),
        lambda x, u, t: Q @ (Q @ Q @ x + u) + 2 * u,
    ),
    "many rounds": (lambda x, u, t: shifted(x), lambda x, u, t: np.array([x[1], -x[0]])),
    "scan": (lambda x, u, t: lax.scan(lambda c, a: (a @ c, c[0]), x, JA)[0], lambda x, u, t: A[2] @ A[1] @ A[0] @ x),
    "scan out": (
        lambda x, u, t: lax.scan(lambda c, y: (c + y, c), u, x)[1],
        lambda x, u, t: np.array([u, u + x[0]]),
    ),
    "scan reversed": (
        lambda x, u, t: lax.scan(lambda c, y: (c + y, c), u, x, reverse=True)[1],
        lambda x, u, t: np.array([u + x[1], u]),
    ),
    "while": (lambda x, u, t: counted(3)(x), lambda x, u, t: Q @ Q @ Q @ x),
    "while t": (lambda x, u, t: counted(t)(x), lambda x, u, t: Q @ x),
    "map": (lambda x, u, t: lax.map(lambda y: 2 * y + u, x), lambda x, u, t: 2 * x + u),
    "associative_scan": (lambda x, u, t: lax.associative_scan(jnp.add, x), lambda x, u, t: np.cumsum(x)),
    "cumsum": (lambda x, u, t: jnp.cumsum(x), lambda x, u, t: np.cumsum(x)),
    "set": (lambda x, u, t: x.at[0].set(u), lambda x, u, t: np.array([u, x[1]])),
    "add at": (lambda x, u, t: x.at[t % 2].add(u), lambda x, u, t: np.array([x[0], x[1] + u])),
    "multiply at": (lambda x, u, t: x.at[0].multiply(3.0), lambda x, u, t: x * [3.0, 1.0]),
    "index": (lambda x, u, t: x[jnp.array([1, 0])], lambda x, u, t: x[::-1]),
    "dynamic_slice": (lambda x, u, t: jnp.tile(lax.dynamic_slice(x, (t % 2,), (1,)), 2), lambda x, u, t: x[[1, 1]]),
    "dynamic_update_slice": (
        lambda x, u, t: lax.dynamic_update_slice(x, u[None], (t % 2,)),
        lambda x, u, t: np.array([x[0], u]),
    ),
    "permutation": (
        lambda x, u, t: x[jnp.argsort(jnp.array([2.0, 1.0]))] + lax.sort((JG, x), num_keys=1)[1],
        lambda x, u, t: 2 * x[::-1],
    ),
    "roll": (lambda x, u, t: jnp.roll(x, 1), lambda x, u, t: np.roll(x, 1)),
    "fft": (lambda x, u, t: jnp.fft.irfft(jnp.fft.rfft(x) * 2.0, 2), lambda x, u, t: 2 * x),
    "interp": (lambda x, u, t: jnp.interp(0.25, jnp.arange(2.0), x) + x, lambda x, u, t: 0.75 * x[0] + 0.25 * x[1] + x),
    "half": (lambda x, u, t: lax.reduce_precision(x, 11, 52) + u.astype("complex128").real, lambda x, u, t: x + u),
    "barrier": (lambda x, u, t: lax.optimization_barrier(x) - u, lambda x, u, t: x - u),
    "custom_vjp": (lambda x, u, t: wrong_double(x), lambda x, u, t: 2 * x),
    "one array": (
        lambda x, u, t: jnp.concatenate([x, u[None] ** 2, jnp.ones(2)]).reshape(1, 5)[0, :2],
        lambda x, u, t: x,
    ),
}
