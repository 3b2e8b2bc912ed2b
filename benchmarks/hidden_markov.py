"""P4: posterior marginals of a hidden Markov model, against dynamax's smoother and a plain scan, float64.

    alpha_{t+1} = normalise((alpha_t l_t) P),     beta_t = normalise(l_t (P beta_{t+1})),
    p(s_t | data) ~ alpha_t beta_t

Everybody starts from the same first state (K,), transition (K, K) and log likelihoods (T, K) of the data.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import lax
from numpyro.distributions import Categorical

from benchmarks.measure import Line, Settings, at_most, compiled, interleaved, same
from rlinf_ppl import ControlProgram, optimality
from rlinf_ppl.inference import exact

HORIZON = 1000
LIMITS = {50: 0.65, 200: 0.55, 500: 0.45}


class Problem(NamedTuple):
    """The first state's probabilities (K,), the transition (K, K), log likelihoods (T, K)."""

    initial: Any
    transition: Any
    log_likelihood: Any


def run(settings: Settings) -> Iterator[Line]:
    """The library, its peer and the plain scan at each number of states."""
    for states, limit in ({10: None} if settings.quick else LIMITS).items():
        label = f"K={states}"
        settings.say(f"P4 {label}: compiling and checking")
        problem = make_problem(states, 50 if settings.quick else HORIZON)
        yield from compared(label, problem, limit)


def compared(label: str, problem: Problem, limit: float | None) -> Iterator[Line]:
    """The lines of one number of states."""
    # The smoothed states at the times of the data; the library also has the one after them.
    expected = smoothed(*problem)
    library, compiling = compiled(jax.jit(marginals_of), (program_of(problem),))
    found = {"library": library, "plain": compiled(smoothed, tuple(problem))[0]}
    same(f"P4 {label}: the library's marginals", found["library"]()[:-1], expected, 1e-9)
    peer = dynamax_smoother(problem)
    if peer is not None:
        found["dynamax"] = peer
        same(f"P4 {label}: dynamax's marginals", peer(), expected, 1e-9)
    samples = interleaved(found, 9)
    what = f"{label}: marginals / dynamax"
    if peer is None:
        yield Line("P4", what, None, "x", note="dynamax is not installed")
    elif limit is None:
        yield Line("P4", what, samples.ratio("library", "dynamax"), "x")
    else:
        cpu = f"CPU time {samples.cpu_ratio('library', 'dynamax'):.2f}x"
        yield at_most("P4", what, samples.ratio("library", "dynamax"), "x", limit, cpu)
    yield Line("P4", f"{label}: marginals / plain scan", samples.ratio("library", "plain"), "x")
    yield Line(
        "P4", f"{label}: marginals", 1e3 * samples.seconds("library"), "ms", note=f"compiled in {compiling:.1f} s"
    )


def make_problem(states: int, horizon: int) -> Problem:
    """A random model that stays where it is half of the time, with a fixed seed."""
    rng = np.random.default_rng(40)
    transition = 0.5 * np.eye(states) + 0.5 * rng.dirichlet(np.ones(states), states)
    return Problem(*map(jnp.asarray, (rng.dirichlet(np.ones(states)), transition, rng.normal(size=(horizon, states)))))


def program_of(problem: Problem) -> ControlProgram:
    """The model as a program: data are factors of the states."""

    def initial(problem: Problem) -> dict[str, Any]:
        return {"s": numpyro.sample("s0", Categorical(probs=problem.initial))}

    def step(problem: Problem, s: Any, t: Any) -> dict[str, Any]:
        optimality(problem.log_likelihood[t, s], "data")
        return {"s": numpyro.sample("s_next", Categorical(probs=problem.transition[s]))}

    return ControlProgram(initial, step, len(problem.log_likelihood), args=(problem,))


def marginals_of(program: ControlProgram) -> Any:
    """The library's answer."""
    return exact.posterior_marginals(program).state


@jax.jit
def smoothed(initial: Any, transition: Any, log_likelihood: Any) -> Any:
    """The two passes that anyone would write, in probabilities that are normalised at every step."""
    likelihood = jnp.exp(log_likelihood - jnp.max(log_likelihood, 1, keepdims=True))

    def forwards(alpha: Any, row: Any) -> tuple[Any, Any]:
        seen = alpha * row
        following = seen @ transition
        return following / jnp.sum(following), alpha

    def backwards(beta: Any, row: Any) -> tuple[Any, Any]:
        now = row * (transition @ beta)
        now /= jnp.max(now)
        return now, now

    alphas = lax.scan(forwards, initial, likelihood)[1]
    betas = lax.scan(backwards, jnp.ones_like(initial), likelihood, reverse=True)[1]
    both = alphas * betas
    return both / jnp.sum(both, 1, keepdims=True)


def dynamax_smoother(problem: Problem) -> Callable[[], Any] | None:
    """The smoother of dynamax; None where it is not installed."""
    try:
        from dynamax.hidden_markov_model import hmm_smoother
    except ImportError:
        return None
    smoother = jax.jit(lambda *problem: hmm_smoother(*problem).smoothed_probs)
    return compiled(smoother, tuple(problem))[0]
