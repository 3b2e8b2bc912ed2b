"""The contenders of P1 and P1b: the soft backward recursion of a dense task, float64.

    Q_t = beta r + P V_{t+1},      V_t = log sum_a p exp Q_t,      pi_t = p exp(Q_t - V_t),      p = 1 / A

Everybody starts from the same transition P (S, A, S) and returns values (T, S) and policies (T, S, A). P1 is one
inverse temperature; P1b is eight at once, against one. The rewards depend on the state alone, because that is all
that the peer `imitation` takes; nobody else makes use of it.
"""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import logsumexp

from benchmarks.measure import compiled
from rlinf_ppl import models
from rlinf_ppl.inference import exact
from rlinf_ppl.tasks import MDP

ACTIONS = 8
HORIZON = 50
BETAS = 8
BETA = 0.7

Answer = tuple[Any, Any]


class Problem(NamedTuple):
    """The inputs: transition (S, A, S), reward (S, A) and inverse temperatures (8,)."""

    transition: Any
    reward: Any
    betas: Any
    horizon: int


class Contender(NamedTuple):
    """One way to the answer.

    Attributes:
        run: the call that is timed.
        compiling: the seconds that compiling it took.
        answer: values (T, S) and policies (T, S, A) of what it returns, not timed; for eight, with an axis in front.
        calling: the same answer by the call that a user types, which compiles nothing of the user's own.
    """

    run: Callable[[], Any]
    compiling: float = 0.0
    answer: Callable[[Any], Answer] = tuple
    calling: Callable[[], Any] | None = None

    def checked(self) -> Answer:
        """The values and policies, for comparison."""
        return self.answer(self.run())


def make_problem(states: int, actions: int = ACTIONS, horizon: int = HORIZON) -> Problem:
    """A random task with a fixed seed; its transition is made in place, so that making it leaves no peak of memory."""
    rng = np.random.default_rng(20)
    size = states * actions * states
    room = np.empty(size + 8)
    # JAX takes over memory without a copy where it is aligned to 64 bytes.
    start = (-room.ctypes.data % 64) // 8
    transition = room[start : start + size].reshape(states, actions, states)
    rng.standard_exponential(out=transition)
    transition /= transition.sum(-1, keepdims=True)
    reward = np.repeat(rng.normal(size=(states, 1)), actions, axis=1)
    return Problem(jnp.from_dlpack(transition), jnp.asarray(reward), jnp.linspace(0.2, BETA, BETAS), horizon)


def in_own_memory(problem: Problem) -> Problem:
    """The problem with its transition where JAX puts arrays: NumPy's pages are larger, and faster to read."""
    return problem._replace(transition=jnp.array(problem.transition, copy=True))


@partial(jax.jit, static_argnames="horizon")
def plain(transition: Any, reward: Any, beta: Any, horizon: int) -> Answer:
    """The scan that anyone would write first."""
    log_prior = -jnp.log(reward.shape[-1])

    def body(v: Any, _: None) -> tuple[Any, Answer]:
        q = beta * reward + transition @ v
        v = logsumexp(q + log_prior, axis=-1)
        return v, (v, jnp.exp(q + log_prior - v[:, None]))

    return lax.scan(body, jnp.zeros(len(reward)), None, length=horizon, reverse=True)[1]


@partial(jax.jit, static_argnames="horizon")
def plain_vmapped(transition: Any, reward: Any, betas: Any, horizon: int) -> Answer:
    """The same scan, vmapped over the inverse temperature."""
    return jax.vmap(lambda beta: plain(transition, reward, beta, horizon))(betas)


@partial(jax.jit, static_argnames="horizon")
def products(transition: Any, columns: Any, horizon: int) -> Any:
    """As many matrix products and nothing else: what a recursion over these columns (8, S) or (S,) takes at least."""

    def body(v: Any, _: None) -> tuple[Any, None]:
        return jnp.tensordot(transition, v, axes=(2, -1))[:, 0].T, None

    return lax.scan(body, columns, None, length=horizon)[0]


def by_plain(problem: Problem) -> Contender:
    """The plain scan."""
    return Contender(*compiled(plain, problem[:2] + (problem.betas[-1],), horizon=problem.horizon))


def by_plain_vmapped(problem: Problem) -> Contender:
    """The plain scan, eight inverse temperatures at once."""
    return Contender(*compiled(plain_vmapped, problem[:3], horizon=problem.horizon))


def by_library(problem: Problem) -> Contender:
    """The engine in the user's own `jit`, from the program to its values and policies."""
    program = program_of(problem, problem.betas[-1])
    run, seconds = compiled(jax.jit(answer_of), (program,))
    return Contender(run, seconds, calling=lambda: exact.solve(program))


def by_library_vmapped(problem: Problem) -> Contender:
    """The same of eight inverse temperatures at once."""

    @jax.jit
    def solve_all(mdp: MDP, betas: Any) -> Answer:
        return jax.vmap(lambda beta: answer_of(models.single_agent(mdp, problem.horizon, beta=beta)))(betas)

    mdp = program_of(problem, problem.betas[-1]).args[0]
    return Contender(*compiled(solve_all, (mdp, problem.betas)))


def by_numpy(problem: Problem) -> Contender:
    """A loop over time in NumPy, whose matrix product is BLAS."""
    states, actions = problem.reward.shape
    table = np.asarray(problem.transition).reshape(states * actions, states)
    reward = float(problem.betas[-1]) * np.asarray(problem.reward)

    def run() -> Answer:
        values, policies = np.empty((problem.horizon, states)), np.empty((problem.horizon, states, actions))
        v = np.zeros(states)
        for t in reversed(range(problem.horizon)):
            q = reward + (table @ v).reshape(states, actions)
            peak = q.max(-1, keepdims=True)
            weights = np.exp(q - peak)
            total = weights.sum(-1, keepdims=True)
            v = (peak + np.log(total / actions))[:, 0]
            values[t], policies[t] = v, weights / total
        return values, policies

    return Contender(run)


def by_imitation(problem: Problem) -> Contender:
    """`mce_partition_fh` of the library imitation; its values leave out the prior, log A a step.

    Raises:
        ImportError: imitation is not installed.
    """
    from imitation.algorithms.mce_irl import mce_partition_fh

    states, actions = problem.reward.shape
    # Its releases call the two sizes by different names.
    task = SimpleNamespace(
        horizon=problem.horizon,
        state_dim=states,
        action_dim=actions,
        n_states=states,
        n_actions=actions,
        transition_matrix=np.asarray(problem.transition),
        reward_matrix=float(problem.betas[-1]) * np.asarray(problem.reward[:, 0]),
    )
    left = np.arange(problem.horizon, 0, -1)[:, None]

    return Contender(lambda: mce_partition_fh(task), answer=lambda found: (found[0] - left * np.log(actions), found[2]))


CONTENDERS = {
    "plain": by_plain,
    "plain_vmapped": by_plain_vmapped,
    "rlinf_ppl": by_library,
    "rlinf_ppl_vmapped": by_library_vmapped,
    "numpy": by_numpy,
    "imitation": by_imitation,
}


def program_of(problem: Problem, beta: Any) -> Any:
    """The task as a step program."""
    states = len(problem.reward)
    mdp = MDP(problem.transition, problem.reward, jnp.full(states, 1 / states))
    return models.single_agent(mdp, problem.horizon, beta=beta)


def answer_of(program: Any) -> Answer:
    """What all contenders give: values without the terminal row, and the policy."""
    solution = exact.solve(program)
    return solution.value[:-1], solution.policy["a"]
