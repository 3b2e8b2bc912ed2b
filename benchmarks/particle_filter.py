"""P5: a bootstrap particle filter of a stochastic volatility model, against a library of them and a plain scan.

x_1 ~ N(mu, sigma^2 / (1 - rho^2)),     x' ~ N(mu + rho (x - mu), sigma^2),     y ~ N(0, exp x)
"""

import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import lax
from numpyro.distributions import Normal

from benchmarks.measure import ROOT, Line, Mismatch, Settings, at_most, interleaved, peak_memory
from rlinf_ppl import ControlProgram
from rlinf_ppl.inference import smc

MU, RHO, SIGMA = -1.0, 0.9, 0.3
HORIZON = 100
MOST_MEMORY = 2048
LONG = 1000
PARTICLES = ROOT / ".venv-particles" / "bin" / "python"


class Problem(NamedTuple):
    """Data (T,), and how many particles to use."""

    data: np.ndarray
    size: int


def run(settings: Settings) -> Iterator[Line]:
    """The library in float32, JAX's default, against `particles` in NumPy's float64 and a plain JAX scan."""
    for size, limit in ((1_000, None),) if settings.quick else ((100_000, 0.5), (1_000_000, 0.25)):
        label = f"N={size:,}"
        settings.say(f"P5 {label}: compiling and checking")
        with jax.enable_x64(False):
            yield from compared(label, make_problem(size), limit)
    yield long_line(settings)


def compared(label: str, problem: Problem, limit: float | None) -> Iterator[Line]:
    """The lines of one number of particles."""
    found = {"rlinf_ppl": library(problem), "plain": plain(problem)}
    if peer_installed():
        found["particles"] = peer(problem)
    estimates = {name: float(call()) for name, call in found.items()}
    if np.ptp(list(estimates.values())) > 30 / np.sqrt(problem.size) + 1e-3:
        raise Mismatch(f"P5 {label}: log evidences differ: {estimates}")
    samples = interleaved(found, 5)
    name = f"{label}: filter / particles"
    if "particles" not in found:
        yield Line("P5", name, None, "x", note="particles is not installed: make bench does it, with Python 3.11")
    elif limit is not None:
        seconds = f"{1e3 * samples.seconds('rlinf_ppl'):.0f} ms, {1e3 * samples.seconds('particles'):.0f} ms"
        yield at_most("P5", name, samples.ratio("rlinf_ppl", "particles"), "x", limit, seconds)
    yield Line("P5", f"{label}: filter / plain scan", samples.ratio("rlinf_ppl", "plain"), "x")
    yield Line("P5", f"{label}: filter", 1e3 * samples.seconds("rlinf_ppl"), "ms")
    if limit is not None:
        memory = peak_memory("benchmarks.peak", "rlinf_ppl", {"size": problem.size, "row": "filter"})
        yield at_most("P5", f"{label}: peak memory", memory, "MiB", MOST_MEMORY, "in float64, with the whole history")


def long_line(settings: Settings) -> Line:
    """How long the first run of a long horizon takes, which is its compilation."""
    start = time.perf_counter()
    data = np.resize(make_problem(1).data, LONG)
    jax.block_until_ready(smc.run(program_of(data), jax.random.key(0), 100).log_evidence)
    return at_most("P5", f"T={LONG:,}: compiling and running 100", time.perf_counter() - start, "s", 10.0)


def make_problem(size: int) -> Problem:
    """Data from the model, with a fixed seed."""
    rng, x, data = np.random.default_rng(0), MU, []
    for _ in range(HORIZON):
        data.append(np.exp(x / 2) * rng.normal())
        x = MU + RHO * (x - MU) + SIGMA * rng.normal()
    return Problem(np.array(data), size)


def initial(data: Any) -> dict[str, Any]:
    """The first log variance, from its stationary law."""
    return {"x": numpyro.sample("x", Normal(MU, SIGMA / np.sqrt(1 - RHO**2)))}


def step(data: Any, x: Any, t: Any) -> dict[str, Any]:
    """One step of the model."""
    numpyro.sample("y", Normal(0.0, jnp.exp(x / 2)), obs=data[t])
    return {"x": numpyro.sample("x_next", Normal(MU + RHO * (x - MU), SIGMA))}


def program_of(data: np.ndarray) -> ControlProgram:
    """The model as a step program."""
    return ControlProgram(initial, step, len(data), args=(jnp.asarray(data),))


def library(problem: Problem) -> Callable[[], Any]:
    """The library's filter."""
    program = program_of(problem.data)
    return lambda: smc.run(program, jax.random.key(0), problem.size).log_evidence


class Filter(NamedTuple):
    """A filter that can be run."""

    run: Callable[[], Any]


def whole(problem: Problem) -> Filter:
    """The library's filter with all that it keeps."""
    program = program_of(problem.data)
    return Filter(lambda: smc.run(program, jax.random.key(0), problem.size))


def plain(problem: Problem) -> Callable[[], Any]:
    """The scan that anyone would write: it searches the cumulated weights, and keeps no history."""
    n, data = problem.size, jnp.asarray(problem.data)

    def body(carry: Any, now: Any) -> Any:
        x, log_w, log_z = carry
        key, y = now
        uniform_key, normal_key = jax.random.split(key)
        weights = jax.nn.softmax(log_w)

        def anew() -> Any:
            points = (jnp.arange(n) + jax.random.uniform(uniform_key)) / n
            chosen = jnp.minimum(jnp.searchsorted(jnp.cumsum(weights), points), n - 1)
            return x[chosen], jnp.zeros(n), log_z + jax.nn.logsumexp(log_w) - jnp.log(n)

        moved, log_w, log_z = lax.cond(jnp.sum(weights**2) * n > 2, anew, lambda: (x, log_w, log_z))
        log_w = log_w + Normal(0.0, jnp.exp(moved / 2)).log_prob(y)
        return (MU + RHO * (moved - MU) + SIGMA * jax.random.normal(normal_key, (n,)), log_w, log_z), None

    @jax.jit
    def filtered(key: Any) -> Any:
        first_key, key = jax.random.split(key)
        x = MU + SIGMA / np.sqrt(1 - RHO**2) * jax.random.normal(first_key, (n,))
        keys = jax.random.split(key, len(data))
        (_, log_w, log_z), _ = lax.scan(body, (x, jnp.zeros(n), jnp.zeros(())), (keys, data))
        return log_z + jax.nn.logsumexp(log_w) - jnp.log(n)

    return lambda: filtered(jax.random.key(0))


def peer_installed() -> bool:
    """Whether there is an environment with the library `particles`."""
    return PARTICLES.exists()


def peer(problem: Problem) -> Callable[[], Any]:
    """The filter of `particles`, in a process of its own that is asked for one run after the other."""
    numbers = (MU, RHO, SIGMA, problem.size)
    command = [PARTICLES, ROOT / "benchmarks" / "particles_apart.py", *map(str, numbers)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdin is not None and process.stdout is not None
    print(*problem.data.tolist(), file=process.stdin, flush=True)

    def call() -> float:
        print(file=process.stdin, flush=True)
        return float(process.stdout.readline())

    return call


CONTENDERS = {"rlinf_ppl": whole}
