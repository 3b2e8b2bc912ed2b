"""A Markov decision process with finitely many states and actions.

    s_1 ~ p_0,      s_{t+1} ~ P(. | s_t, a_t),      reward r(s_t, a_t)  or  r_t(s_t, a_t)

It holds no policy, horizon, discount or temperature: those belong to the model that is made of it. The axes are
(state, action, next state); `rlinf_ppl.tasks.conventions` translates the arrays of libraries that order them in
another way. The process is that of Puterman, "Markov Decision Processes" (1994), chapter 2.
"""

from collections.abc import Sequence
from typing import Any, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

from rlinf_ppl.algebra.tables import ROW_TOLERANCE
from rlinf_ppl.tasks import checks, importers
from rlinf_ppl.types import ArrayLike

_FINITE_REWARDS = (
    "rewards must be finite. For actions that are impossible give prior 0 to impossible actions instead: "
    "rlinf_ppl.tasks.conventions.separate_impossible_actions makes such a prior of rewards that are -inf."
)


@final
class MDP(eqx.Module):
    """A finite Markov decision process: data only, immutable, checked when it is made.

    The transition is stored in one of two ways. Dense: `transition` is a table, and the other two are None. Sparse
    (`MDP.sparse`): each state lists the K states that may follow it, `transition` is None, and memory and time grow
    with S A K instead of S A S. `as_sparse` and `dense` turn one into the other.

    An MDP is a pytree whose leaves are its arrays. Under `jax.vmap` the leaves may have batch axes in front; the
    numbers of states and actions are then still right, and `terminal` is to be called inside the vmap.

    Attributes:
        transition: P(next state | state, action), or None where the transition is sparse.
        successors: The states that may follow: the same for all actions (S, K), or for each (S, A, K); or None.
        probabilities: The probability of each successor, or None where the transition is dense.
        reward: Expected reward of an action, in any unit; with a leading axis T it varies with time.
        initial: Distribution of the first state.
        state_names: A name for each state, or None.
        action_names: A name for each action, or None.
    """

    transition: Float[Array, "S A S"] | None
    successors: Int32[Array, "S K"] | Int32[Array, "S A K"] | None
    probabilities: Float[Array, "S A K"] | None
    reward: Float[Array, "S A"] | Float[Array, "T S A"]
    initial: Float[Array, " S"]
    state_names: tuple[str, ...] | None = eqx.field(static=True)
    action_names: tuple[str, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        transition: ArrayLike,
        reward: ArrayLike,
        initial: ArrayLike,
        *,
        state_names: Sequence[str] | None = None,
        action_names: Sequence[str] | None = None,
    ) -> None:
        """Make a task with a dense transition.

        Arrays become float32, or float64 where JAX has x64 on.

        Args:
            transition: P(next state | state, action), shape (S, A, S).
            reward: Expected reward, shape (S, A), or (T, S, A) where it varies over T time steps. Finite.
            initial: Distribution of the first state, shape (S,).
            state_names: S different strings.
            action_names: A different strings.

        Raises:
            TypeError: An array does not hold real numbers, or a name is no string.
            ValueError: Shapes do not match, `transition` or `initial` hold something else than distributions, a
                reward is not finite, or the names are too many, too few or not distinct. Under JAX's
                transformations, traced values are not checked.
        """
        table = checks.as_reals("transition", transition)
        checks.check_not_empty("transition", table.shape, ("states", "actions", "next states"))
        num_states, num_actions, num_next = table.shape
        if num_next != num_states:
            first = " Where the actions come first, conventions.from_action_first puts them in place."
            raise ValueError(
                f"transition has shape {table.shape}: its axes are (states, actions, next states), so it must be "
                f"{(num_states, num_actions, num_states)}.{first if num_actions == num_next else ''}"
            )
        fields = _rest("transition", table.shape, reward, initial, state_names, action_names)
        table = checks.as_distributions("transition", table, ("state", "action"))
        self.transition, self.successors, self.probabilities = table, None, None
        self.reward, self.initial = fields["reward"], fields["initial"]
        self.state_names, self.action_names = fields["state_names"], fields["action_names"]

    @classmethod
    def sparse(
        cls,
        successors: ArrayLike,
        probabilities: ArrayLike,
        reward: ArrayLike,
        initial: ArrayLike,
        *,
        state_names: Sequence[str] | None = None,
        action_names: Sequence[str] | None = None,
    ) -> "MDP":
        """Make a task whose transition lists, for each state, the K states that may follow.

            P(s' | s, a) = sum_k probabilities[s, a, k] 1[successors[s, a, k] = s']

        A successor may be listed more than once: its probabilities add up.

        Args:
            successors: Positions of the next states, shape (S, K) where the actions share a list, or (S, A, K).
                Shorter lists are padded with any state at probability 0.
            probabilities: P(the k-th successor | state, action), shape (S, A, K).
            reward: Expected reward, shape (S, A), or (T, S, A) where it varies over T time steps. Finite.
            initial: Distribution of the first state, shape (S,).
            state_names: S different strings.
            action_names: A different strings.

        Returns:
            The task.

        Raises:
            TypeError: As in the constructor, or `successors` does not hold integers.
            ValueError: As in the constructor, or a successor is no state.
        """
        table = checks.as_reals("probabilities", probabilities)
        checks.check_not_empty("probabilities", table.shape, ("states", "actions", "outcomes"))
        num_states, num_actions, num_outcomes = table.shape
        lists = checks.as_indices(
            "successors", successors, num_states, "states", "a shorter list is padded with any state at probability 0"
        )
        checks.check_shape(
            "successors",
            lists.shape,
            [(num_states, num_outcomes), (num_states, num_actions, num_outcomes)],
            "probabilities",
            table.shape,
        )
        fields = _rest("probabilities", table.shape, reward, initial, state_names, action_names)
        table = checks.as_distributions("probabilities", table, ("state", "action"))
        return checks.assemble(cls, {"transition": None, "successors": lists, "probabilities": table, **fields})

    @classmethod
    def from_gymnasium(cls, environment: Any, /, **kwargs: Any) -> "MDP":
        """Read the task out of a Gymnasium environment that publishes its transition table.

        States and actions keep Gymnasium's positions. A state that ends the episode becomes absorbing with reward 0,
        in place. Gymnasium's time limits are left out: the horizon is the model's.

        Gymnasium pays for entering a state; here the reward is the expectation over the next state. For control this
        is the same. The exact posterior differs: it is given that each expectation was good, not the payment itself.

        Args:
            environment: An environment, or an id as in `gymnasium.make`: "FrozenLake-v1", "FrozenLake8x8-v1",
                "CliffWalking-v1", "CliffWalkingSlippery-v1" and "Taxi-v4" have tables.
            **kwargs: Passed on to `gymnasium.make` with an id.

        Returns:
            The task, with a dense transition, and named actions where they are known.

        Raises:
            ValueError: Gymnasium cannot make the environment, it has no table, its table does not describe it, or a
                state is entered both as the end of an episode and in the middle of one.
        """
        return cls(**importers.read_gymnasium(environment, **kwargs)._asdict())

    @property
    def num_states(self) -> int:
        """The number of states, S."""
        return self.initial.shape[-1]

    @property
    def num_actions(self) -> int:
        """The number of actions, A."""
        return self.reward.shape[-1]

    @property
    def terminal(self) -> Bool[Array, " S"]:
        """The states that are never left and pay nothing, under every action and at every time."""
        if self.transition is not None:
            stay = jnp.diagonal(self.transition, axis1=0, axis2=2).T
        else:
            successors, probabilities = _successor_lists(self)
            here = jnp.arange(self.num_states)[:, None, None]
            stay = jnp.sum(jnp.where(successors == here, probabilities, 0), axis=-1)
        pays = jnp.any(self.reward.reshape(-1, *self.reward.shape[-2:]) != 0, axis=(0, 2))
        return jnp.all(stay >= 1 - ROW_TOLERANCE, axis=1) & ~pays

    def anonymous(self) -> "MDP":
        """The same task without names, so that programs of one shape share one compilation."""
        return checks.assemble(type(self), vars(self) | {"state_names": None, "action_names": None})

    def as_sparse(self) -> "MDP":
        """The same task with a sparse transition: the successors that each state and action can have.

        They are listed in increasing order, (S, A, K) with K the most that any state and action has; shorter lists are
        filled up with other states at probability 0.

        Raises:
            ValueError: Under JAX's transformations, where K is not known.
        """
        if self.transition is None:
            return self
        if not checks.is_concrete(self.transition):
            raise ValueError("as_sparse counts the successors of each state: call it outside of jit, grad and vmap.")
        table = np.asarray(self.transition)
        most = (table > 0).sum(-1).max()
        listed = np.argsort(table <= 0, axis=-1, kind="stable")[..., :most]
        lists = {
            "successors": jnp.asarray(listed, jnp.int32),
            "probabilities": jnp.asarray(np.take_along_axis(table, listed, axis=-1)),
        }
        return checks.assemble(type(self), vars(self) | {"transition": None, **lists})

    def dense(self) -> "MDP":
        """The same task with a dense transition, which takes S A S numbers."""
        if self.transition is not None:
            return self
        successors, probabilities = _successor_lists(self)
        state, action = jnp.indices((self.num_states, self.num_actions), sparse=True)
        zeros = jnp.zeros((self.num_states, self.num_actions, self.num_states), probabilities.dtype)
        table = zeros.at[state[..., None], action[..., None], successors].add(probabilities)
        return checks.assemble(
            type(self), vars(self) | {"transition": table, "successors": None, "probabilities": None}
        )


def _successor_lists(mdp: MDP) -> tuple[Int32[Array, " S #A K"], Float[Array, "S A K"]]:
    """A sparse task's successors, with an axis of length 1 where the actions share them, and their probabilities."""
    assert mdp.successors is not None and mdp.probabilities is not None
    successors = mdp.successors if mdp.successors.ndim == 3 else mdp.successors[:, None, :]
    return successors, mdp.probabilities


def _rest(
    source: str,
    source_shape: tuple[int, ...],
    reward: ArrayLike,
    initial: ArrayLike,
    state_names: Sequence[str] | None,
    action_names: Sequence[str] | None,
) -> dict[str, Any]:
    """Convert and check what dense and sparse tasks share, against the transition's shape."""
    num_states, num_actions = source_shape[:2]
    rewards = checks.as_reals("reward", reward)
    first = checks.as_reals("initial", initial)
    shapes = [(num_states, num_actions), ("T", num_states, num_actions)]
    checks.check_shape("reward", rewards.shape, shapes, source, source_shape)
    checks.check_shape("initial", first.shape, [(num_states,)], source, source_shape)
    checks.check_finite("reward", rewards, _FINITE_REWARDS)
    first = checks.as_distributions("initial", first, ())
    return {
        "reward": rewards,
        "initial": first,
        "state_names": checks.check_names("state_names", state_names, num_states, "states"),
        "action_names": checks.check_names("action_names", action_names, num_actions, "actions"),
    }
