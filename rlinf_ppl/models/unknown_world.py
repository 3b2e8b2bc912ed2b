"""A partially observed process whose numbers are unknown, learned from logged episodes together with what proposes.

    log p(o | a; P, U, p_0) >= E log p_hat,    p_hat of K particles that move by  q(s' | s, a, o) = exp(theta) / Z

Each hidden state is a decision, its prior the world's transition: what a bound pays for leaving it is what q loses as
an approximation, and the guide is q, which sees what the action will show. The world's tables are arguments that the
same guide learns, so `svi.fit` with `ParticleELBO(n, num_particles=K)` ascends both (Maddison et al. 2017; Le et al.
2018): variational SMC, which tends to maximum likelihood as K grows. Whoever has the tables has the exact likelihood,
`exact.condition(models.episode(...)).log_evidence`. States have no names: worlds that differ in their order are one.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float
from numpyro.distributions import Categorical, Distribution, constraints

from rlinf_ppl.models.arguments import check_task
from rlinf_ppl.models.dynamics import first_state
from rlinf_ppl.models.episode import logged, moved, shown
from rlinf_ppl.program import ControlProgram, decide, over_time, parameter
from rlinf_ppl.tasks import POMDP, checks
from rlinf_ppl.types import ArrayLike


def initial(pomdp: POMDP, first: tuple[Array, Array], following: Any) -> dict[str, Any]:
    """The first state, the first action, and what that will show."""
    return first_state(pomdp.mdp) | dict(zip(("a", "o"), first, strict=True))


def step(pomdp: POMDP, first: Any, following: tuple[Array, Array], s: Any, a: Any, o: Any) -> dict[str, Any]:
    """One step of the model: where the action leads, and that it shows what it did."""
    s_next = decide("s_next", Categorical(probs=moved(pomdp, s, a)))
    numpyro.sample("seen", Categorical(probs=shown(pomdp, s_next, a)), obs=o)
    return {"s": s_next} | dict(zip(("a", "o"), following, strict=True))


class World(eqx.Module):
    """What is learned of an unknown world.

    Attributes:
        transition, observation, initial: its tables, (S, A, S), (S, A, O) and (S,).
        proposal: logits of the next state given the state, the action and what it shows, (S, A + 1, O + 1, S).
    """

    transition: Float[Array, "S A S"] = parameter(constraints.simplex)
    observation: Float[Array, "S A O"] = parameter(constraints.simplex)
    initial: Float[Array, " S"] = parameter(constraints.simplex)
    proposal: Float[Array, "S B P S"] = parameter(constraints.real)

    def arguments(self, pomdp: POMDP, first: Any, following: Any) -> tuple[Any, ...]:
        """The program's arguments with these tables."""
        tables = self.transition, self.observation, self.initial
        world = eqx.tree_at(lambda task: (task.transition, task.observation, task.initial), pomdp, tables)
        return world, first, following

    def s_next(self, s: Any, a: Any, o: Any) -> Distribution:
        """The proposal."""
        return Categorical(logits=self.proposal[s, a, o])


def check_positive(pomdp: POMDP) -> None:
    """Raise where a world says that something is impossible."""
    for name in ("transition", "observation", "initial"):
        table = getattr(pomdp.dense(), name)
        if checks.is_concrete(table) and not jnp.all(table > 0):
            place = ", ".join(map(str, jnp.argwhere(table <= 0)[0].tolist()))
            raise ValueError(
                f"pomdp's {name}[{place}] is 0, and what is impossible is never learned: start from a world of numbers "
                "above 0, such as a mixture of this one and a uniform one."
            )


def unknown_world(pomdp: POMDP, actions: ArrayLike, observations: ArrayLike) -> ControlProgram:
    """Logged episodes of a process whose tables are to be learned.

    Args:
        pomdp: the world to start from; every number above 0, and not all states alike, or nothing tells them apart.
        actions: positions of the actions taken, (T,), or (n, T) of several episodes.
        observations: positions of what was seen after each, of the same shape.

    Returns:
        The program, with states `s`, `a` and `o`, decision `s_next` and data `seen`, in nats. It carries a `World`;
        `svi.fit(...).guide.module` is the one that was learned.

    Raises:
        TypeError, ValueError: as `episode`.
        ValueError: on a probability of 0, which nothing moves.
    """
    check_task("pomdp", pomdp, POMDP)
    check_positive(pomdp)
    task, log = pomdp.dense().anonymous().averaged(), logged(pomdp, actions, observations)
    # A state holds what its own step does and shows, so a step hands on what the next one does.
    following = tuple(map(over_time, (log.action[1:], jnp.append(log.seen[2:], log.seen[-1:]))))
    args = task, (log.action[0], log.seen[1]), following
    sizes = {"a": pomdp.num_actions + 1, "o": pomdp.num_observations + 1}
    program = ControlProgram(initial, step, len(log.before) - 1, args=args, sizes=sizes)
    assert task.transition is not None
    shape = pomdp.num_states, *sizes.values(), pomdp.num_states
    return program.with_guide(World(task.transition, task.observation, task.initial, jnp.zeros(shape)))
