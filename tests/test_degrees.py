"""What is linear or quadratic by its arithmetic is read with the right coefficients; all else is refused by name."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from degree_expressions import FACTORS, JA, JG, JK, MEANS, TIME
from jax import lax
from jax.extend.core import primitives
from numpyro.distributions import MultivariateNormal, Normal
from oracles import polynomials

from rlinf_ppl import ControlProgram, decide, optimality
from rlinf_ppl.program import read
from rlinf_ppl.program.degree_rules import RULES
from rlinf_ppl.program.linearity import HINTS

PLACES = {"x": [0, 1], "u": [2]}


def first():
    return {"x": numpyro.sample("x_first", Normal(jnp.zeros(2), 1.0).to_event(1))}


def sites(factors, means):
    """A step of many sites, one for each expression."""

    def step(x, t):
        u = decide("u", Normal(0.0, 1.0))
        optimality(-(u**2))
        for name, (expression, _) in factors.items():
            optimality(jnp.asarray(expression(x, u, t)), "factor " + name)
        for name, (expression, _) in means.items():
            numpyro.sample("mean " + name, Normal(expression(x, u, t), 1.0).to_event(1))
        return {"x": numpyro.sample("x_next", Normal(x, 1.0).to_event(1))}

    return ControlProgram(first, step, 3)


@cache
def all_read():
    return {site.name: site.content for site in read(sites(FACTORS, MEANS)).step.sites}


def coefficients(site):
    """The coefficients over all of (x, u, 1) that a site was read with, at one time."""
    factor = not hasattr(site, "map")
    array = np.asarray(site.array if factor else site.map)
    axes = [name for name in site.axes if name != "t"]
    places = [place for name in axes for place in PLACES[name]] + [3]
    array = array[TIME] if "t" in site.axes else array
    whole = np.zeros((4, 4) if factor else (2, 4))
    whole[np.ix_(places, places) if factor else np.ix_(range(2), places)] = array
    return whole


def plain(pair):
    """The NumPy expression as a function of (x, u)."""
    expression, same = pair
    chosen = expression if same is None else same
    return lambda z: np.asarray(chosen(z[:2], z[2], TIME), dtype=float)


@pytest.mark.parametrize("name", FACTORS)
def test_a_factor_has_the_coefficients_of_its_text(name):
    expected = polynomials.quadratic(plain(FACTORS[name]), 3)
    np.testing.assert_allclose(coefficients(all_read()["factor " + name]), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", MEANS)
def test_a_mean_has_the_coefficients_of_its_text(name):
    expected = polynomials.affine(plain(MEANS[name]), 3)
    np.testing.assert_allclose(coefficients(all_read()["mean " + name]), expected, rtol=1e-9, atol=1e-12)


def cubic_in_a_scan(x):
    return lax.scan(lambda c, _: (c * x[0], None), x[0], None, 2)[0]


def while_positive(x):
    return lax.while_loop(lambda y: y > 0, lambda y: y - 1.0, x[0])


def repeated_by(x):
    return lax.while_loop(lambda c: c[0] < x[0], lambda c: (c[0] + 1.0, c[1] + x[1]), (0.0, 0.0))[1]


def huber(x):
    return jnp.where(jnp.abs(x) < 1, x * x, 2 * jnp.abs(x) - 1)


@jax.custom_jvp
def looks_linear(x):
    return jnp.sin(x)


looks_linear.defjvp(lambda primals, tangents: (looks_linear(primals[0]), tangents[0]))

# name: (a factor of x and u, what the refusal says of it)
REFUSED = {
    "abs": (lambda x, u: -jnp.abs(u), "takes abs of them.*Write x @ x"),
    "dead zone": (lambda x, u: -(jnp.maximum(jnp.abs(u) - 1, 0) ** 2), "takes abs"),
    "sin in degrees": (lambda x, u: jnp.sin(u * jnp.pi / 180), "takes sin.*tangent"),
    "tiny slope": (lambda x, u: 1e-9 * jnp.sin(u), "takes sin"),
    "far away": (lambda x, u: -(x[0] ** 2) + jnp.maximum(u - 1e6, 0.0), "takes max.*bound"),
    "relu": (lambda x, u: -jax.nn.relu(u), r"takes max \(in relu\)"),
    "hinge": (lambda x, u: -jnp.maximum(0.0, 1 - u), "takes max"),
    "huber": (lambda x, u: -huber(u), "takes abs"),
    "softplus": (lambda x, u: -jax.nn.softplus(u), r"takes (max|abs) \(in softplus\)"),
    "where": (lambda x, u: jnp.where(u > 0, -u, u), "takes gt.*choice"),
    "cond": (lambda x, u: lax.cond(u > 0, lambda: -u, lambda: u), "takes gt.*choice"),
    "step": (lambda x, u: (u > 0).astype(float), "takes gt"),
    "heaviside": (lambda x, u: jnp.heaviside(u, 0.5), "in heaviside"),
    "floor_divide": (lambda x, u: -(u // 1), "takes rem"),
    "mod": (lambda x, u: -(u % 1), "takes rem"),
    "root": (lambda x, u: -(u**0.5), "takes (pow|sqrt)"),
    "reciprocal": (lambda x, u: -(u**-1), "takes (integer_pow|div)"),
    "division": (lambda x, u: x[0] / u, "takes div.*divides nothing"),
    "0 * x below": (lambda x, u: u / (1 + 0 * u), "takes div"),
    "abs squared": (lambda x, u: -(jnp.abs(u) ** 2), "takes abs.*Write x @ x for norm"),
    "norm squared": (lambda x, u: -(jnp.linalg.norm(x) ** 2), r"takes sqrt \(in norm\).*Write x @ x for norm"),
    "hypot": (lambda x, u: -jnp.hypot(x[0], u), "takes abs"),
    "std": (lambda x, u: -jnp.std(x), "takes sqrt"),
    "median": (lambda x, u: -jnp.median(x), "takes (sort|is_finite|ne)"),
    "sort": (lambda x, u: jnp.sort(x)[0], "takes sort"),
    "max": (lambda x, u: jnp.max(x), "takes reduce_max"),
    "argmax": (lambda x, u: -1.0 * jnp.argmax(x), "takes argmax"),
    "logsumexp": (lambda x, u: -jax.nn.logsumexp(x), "takes reduce_max"),
    "softmax": (lambda x, u: jax.nn.softmax(x)[0], "takes reduce_max"),
    "clip": (lambda x, u: jnp.clip(u, -2, 2), r"takes max \(in clip\)"),
    "clamp": (lambda x, u: lax.clamp(-2.0, u, 2.0), "takes clamp"),
    "cumprod": (lambda x, u: jnp.cumprod(x)[1], "takes cumprod"),
    "cummax": (lambda x, u: lax.cummax(x)[1], "takes cummax"),
    "prod": (lambda x, u: jnp.prod(x), "takes reduce_prod.*x.0. . x.1."),
    "sign": (lambda x, u: jnp.sign(u) * u, "takes sign"),
    "int": (lambda x, u: 1.0 * u.astype(int), "takes convert_element_type"),
    "bool": (lambda x, u: 1.0 * u.astype(bool), "takes convert_element_type"),
    "round": (lambda x, u: jnp.round(u), "takes round"),
    "x ** x": (lambda x, u: u**u, "takes pow"),
    "2 ** x": (lambda x, u: 2.0**u, "takes (pow|exp2)"),
    "exponent of unknown size": (lambda x, u: u ** JG[0], "takes pow.*exponent"),
    "while": (lambda x, u: while_positive(x), "takes gt.*choice"),
    "trips": (lambda x, u: repeated_by(x), "takes lt.*choice"),
    "index": (lambda x, u: JG[u.astype(int)], "takes convert_element_type"),
    "dynamic_slice": (lambda x, u: lax.dynamic_slice(x, (jnp.floor(u).astype(int),), (1,))[0], "takes floor"),
    "cubic": (lambda x, u: u**3, "it has degree 3"),
    "cubic in a scan": (lambda x, u: cubic_in_a_scan(x), "it has degree 3"),
    "long scan": (lambda x, u: lax.scan(lambda c, _: (c * x[0], None), 1.0, None, 99)[0], "it has degree 9 or more"),
    "quartic": (lambda x, u: (x @ x) ** 2, "it has degree 4"),
    "cubic by einsum": (lambda x, u: jnp.einsum("i,i,i", x, x, x), "it has degree 3"),
    "apply": (lambda x, u: x.at[0].apply(jnp.sin)[0], "takes scatter"),
    "multiply at": (lambda x, u: x.at[jnp.array([0, 0])].multiply(x)[0], "takes scatter-mul"),
    "max at": (lambda x, u: x.at[0].max(0.0)[0], "takes scatter-max"),
    "unknown matrix": (lambda x, u: jnp.linalg.solve(JK + u * JK, x)[0], "takes (lu|abs|div|triangular_solve)"),
    "conjugate gradients": (lambda x, u: jax.scipy.sparse.linalg.cg(lambda y: JK @ y, x)[0][0], "takes (max|gt)"),
    "interp": (lambda x, u: jnp.interp(u, jnp.arange(2.0), jnp.arange(2.0)), "in (searchsorted|_?interp|.*)"),
    "erf": (lambda x, u: lax.erf(u), "takes erf"),
    "callback": (lambda x, u: jax.pure_callback(np.sin, jnp.zeros(()), u), "takes pure_callback"),
    "custom rule": (lambda x, u: looks_linear(u), "takes sin"),
    "other scale": (lambda x, u: Normal(0.0, jnp.exp(u)).log_prob(x[0]), "takes exp"),
    "bits": (lambda x, u: 1.0 * lax.bitcast_convert_type(u, jnp.int64), "takes bitcast_convert_type"),
    "known below a variable": (lambda x, u: jnp.max(jnp.stack([u, 1.0])), "takes reduce_max"),
    "half precision": (lambda x, u: u.astype(jnp.float16).astype(float), "takes convert_element_type"),
    "brain floats": (lambda x, u: u.astype(jnp.bfloat16).astype(float), "takes convert_element_type"),
    "few digits": (lambda x, u: lax.reduce_precision(u, 8, 10), "takes reduce_precision"),
    "eight bits": (lambda x, u: u.astype(jnp.float8_e4m3fn).astype(float), "takes convert_element_type"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_quadratic_is_refused_by_name(name):
    expression, said = REFUSED[name]
    program = sites({name: (lambda x, u, t: expression(x, u), None)}, {})
    with pytest.raises(ValueError, match="(?s)is not linear-Gaussian: it is not quadratic in .*" + said):
        read(program)


@pytest.mark.parametrize(
    ("mean", "said"),
    [
        (lambda x, u: jnp.clip(x + u, -2, 2), r"takes max \(in clip\) of them"),
        (lambda x, u: x * u, "it has degree 2"),
        (lambda x, u: x + 1e-12 * jnp.tanh(u), "takes tanh of them"),
    ],
)
def test_a_mean_that_is_not_linear_is_refused(mean, said):
    with pytest.raises(ValueError, match="'mean m' is not linear-Gaussian: its mean is not linear in .*: .*" + said):
        read(sites({}, {"m": (lambda x, u, t: mean(x, u), None)}))


def program_of(law):
    def step(x, t):
        u = decide("u", Normal(0.0, 1.0))
        optimality(-(u**2))
        return {"x": numpyro.sample("x_next", law(x, u, t))}

    return ControlProgram(first, step, 3)


def test_a_covariance_may_depend_on_time_only():
    read(program_of(lambda x, u, t: MultivariateNormal(JA[t] @ x, JK * (1.0 + t))))
    for law in (
        lambda x, u, t: Normal(x, 1.0 + u * u).to_event(1),
        lambda x, u, t: MultivariateNormal(x, JK + 0.0 * u),
        lambda x, u, t: MultivariateNormal(x, JK * jnp.exp(u)),
    ):
        with pytest.raises(ValueError, match="its covariance depends on x and u"):
            read(program_of(law))


def test_refusals_need_no_numbers():
    program = program_of(lambda x, u, t: Normal(jnp.sin(x), 1.0).to_event(1))
    with pytest.raises(ValueError, match="takes sin"):
        jax.eval_shape(read, program)
    jax.eval_shape(read, sites({}, {"one array": MEANS["one array"]}))


def test_all_that_is_wrong_is_said_at_once():
    program = sites({"a": (lambda x, u, t: jnp.abs(u), None), "b": (lambda x, u, t: u**3, None)}, {})
    with pytest.raises(ValueError, match="(?s)'factor a'.*takes abs.*\n.*'factor b'.*degree 3.*\nOr run smc.run"):
        read(program)


# Of other versions of JAX.
ELSEWHERE = set("pjit core_call remat checkpoint custom_vjp_call_jaxpr copy_p expand_dims layout_constraint".split())
ELSEWHERE |= set("closed_call polynomial stack unstack scatter_add scatter_sub scatter_mul".split())


def test_the_names_of_primitives_are_those_of_this_jax():
    existing = {getattr(primitive, "name", None) for primitive in vars(primitives).values()}

    def more(x):
        halves = jnp.split(jnp.tile(jnp.stack([x, x]), (1, 2)), 2, axis=1)
        return lax.optimization_barrier(halves), jnp.unstack(x), x.at[0].subtract(1.0)

    existing |= {equation.primitive.name for equation in jax.make_jaxpr(more)(jnp.zeros(2)).eqns}
    assert set(RULES) - ELSEWHERE <= existing
    assert set(HINTS) <= existing
