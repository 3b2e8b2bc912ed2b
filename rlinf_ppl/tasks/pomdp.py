"""A partially observed Markov decision process: an MDP whose state shows itself through observations alone.

    s_1 ~ p_0,    s_{t+1} ~ P(. | s_t, a_t),    o_{t+1} ~ U(. | s_{t+1}, a_t),    reward r(s_t, a_t)

What an agent knows of the state is its belief b(s), which moves by the rule of Bayes (Astrom 1965; Kaelbling, Littman
& Cassandra 1998, Planning and acting in partially observable stochastic domains, section 3.3):

    p(s', o | b, a) = U(o | s', a) sum_s b(s) P(s' | s, a),        b'(s') = p(s', o | b, a) / p(o | b, a)

There is no observation before the first action. Like all tasks it holds no policy, horizon or temperature; it carries a
discount, as files of POMDPs do, which models take from there.
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

from rlinf_ppl.tasks import checks, pomdp_checks, pomdp_files, pomdp_importers, pomdp_writing
from rlinf_ppl.tasks.mdp import MDP
from rlinf_ppl.types import ArrayLike


@final
class POMDP(eqx.Module):
    """A finite partially observed Markov decision process: data only, immutable, checked when it is made.

    The transition is stored as that of an `MDP`: dense, or as lists of successors (`POMDP.sparse`). It is a pytree
    whose leaves are its arrays, so tasks of one shape can be vmapped and differentiated.

    Attributes:
        transition: P(next state | state, action), or None where the transition is sparse.
        successors: The states that may follow: for all actions (S, K), or for each (S, A, K); or None.
        probabilities: The probability of each successor, or None where the transition is dense.
        reward: Of a state and action (S, A), of the next state as well (S, A, S), or of what is observed there, too
            (S, A, S, O), in any unit. Of a sparse task the next state's axis is that of its successors.
        observation: p(observation | next state, action).
        initial: Distribution of the first state.
        discount: gamma in [0, 1].
        state_names: A name for each state, or None.
        action_names: A name for each action, or None.
        observation_names: A name for each observation, or None.
    """

    transition: Float[Array, "S A S"] | None
    successors: Int32[Array, "S K"] | Int32[Array, "S A K"] | None
    probabilities: Float[Array, "S A K"] | None
    reward: Float[Array, "S A"] | Float[Array, "S A K"] | Float[Array, "S A K O"]
    observation: Float[Array, "S A O"]
    initial: Float[Array, " S"]
    discount: Float[Array, ""]
    state_names: tuple[str, ...] | None = eqx.field(static=True)
    action_names: tuple[str, ...] | None = eqx.field(static=True)
    observation_names: tuple[str, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        transition: ArrayLike,
        reward: ArrayLike,
        observation: ArrayLike,
        initial: ArrayLike,
        discount: ArrayLike = 1.0,
        *,
        state_names: Sequence[str] | None = None,
        action_names: Sequence[str] | None = None,
        observation_names: Sequence[str] | None = None,
    ) -> None:
        """Make a task with a dense transition.

        Arrays become float32, or float64 where JAX has x64 on.

        Args:
            transition: P(next state | state, action), shape (S, A, S).
            reward: Shape (S, A), (S, A, S) of the next state as well, or (S, A, S, O) of what is observed, too. Finite.
            observation: p(observation | next state, action), shape (S, A, O).
            initial: Distribution of the first state, shape (S,).
            discount: gamma in [0, 1].
            state_names: S different strings.
            action_names: A different strings.
            observation_names: O different strings.

        Raises:
            TypeError: An array does not hold real numbers, or a name is no string.
            ValueError: Shapes do not match, an array holds something else than distributions, a reward is not finite,
                the discount lies outside of [0, 1], or names are too many, too few or not distinct. Under JAX's
                transformations, traced values are not checked.
        """
        hidden = MDP(
            transition, pomdp_checks.no_reward(transition), initial, state_names=state_names, action_names=action_names
        )
        self._fill(pomdp_checks.completed(hidden, reward, observation, discount, observation_names))

    @classmethod
    def sparse(
        cls,
        successors: ArrayLike,
        probabilities: ArrayLike,
        reward: ArrayLike,
        observation: ArrayLike,
        initial: ArrayLike,
        discount: ArrayLike = 1.0,
        *,
        state_names: Sequence[str] | None = None,
        action_names: Sequence[str] | None = None,
        observation_names: Sequence[str] | None = None,
    ) -> "POMDP":
        """Make a task whose transition lists, for each state, the K states that may follow; see `MDP.sparse`.

        Args:
            successors: Positions of the next states, shape (S, K) where the actions share a list, or (S, A, K).
            probabilities: P(the k-th successor | state, action), shape (S, A, K).
            reward: Shape (S, A), (S, A, K) of the successor as well, or (S, A, K, O) of what is observed there. Finite.
            observation: p(observation | next state, action), shape (S, A, O).
            initial: Distribution of the first state, shape (S,).
            discount: gamma in [0, 1].
            state_names: S different strings.
            action_names: A different strings.
            observation_names: O different strings.

        Raises:
            TypeError: As in the constructor, or `successors` does not hold integers.
            ValueError: As in the constructor, or a successor is no state.
        """
        hidden = MDP.sparse(
            successors,
            probabilities,
            pomdp_checks.no_reward(probabilities),
            initial,
            state_names=state_names,
            action_names=action_names,
        )
        return checks.assemble(cls, pomdp_checks.completed(hidden, reward, observation, discount, observation_names))

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> "POMDP":
        """Read a file in Cassandra's `.pomdp` format, of which `rlinf_ppl.tasks.pomdp_files` tells all.

        Costs are negative rewards, of the least of the three shapes that holds them. Where a dense table had more
        than 2**24 entries, the task is sparse, its rewards those of the successors.

        Raises:
            OSError: The file cannot be opened.
            ValueError: It does not hold to the format, or describes no POMDP; the message has the line.
        """
        fields = pomdp_files.read(path)
        return cls.sparse(**fields) if "successors" in fields else cls(**fields)

    def to_file(self, path: str | PathLike[str]) -> None:
        """Write a file in Cassandra's `.pomdp` format, with all digits; successors listed twice are added up.

        Raises:
            OSError: The file cannot be written.
            ValueError: A name is none in such files (`anonymous` has positions instead), or the task is traced.
        """
        Path(path).write_text(pomdp_writing.lay_out(self), encoding="utf-8")

    @classmethod
    def from_pymdp(cls, A: Any, B: Any, C: Any, D: Any, discount: ArrayLike = 1.0) -> "POMDP":
        """Read the arrays of a pymdp agent of one modality and one factor; see `pomdp_importers.read_pymdp`."""
        return cls(**pomdp_importers.read_pymdp(A, B, C, D), discount=discount)

    @classmethod
    def from_msdm(cls, pomdp: Any) -> "POMDP":
        """Read a `TabularPOMDP` of msdm; see `pomdp_importers.read_msdm`."""
        return cls(**pomdp_importers.read_msdm(pomdp))

    @property
    def num_states(self) -> int:
        """The number of states, S."""
        return self.initial.shape[-1]

    @property
    def num_actions(self) -> int:
        """The number of actions, A."""
        return self.observation.shape[-2]

    @property
    def num_observations(self) -> int:
        """The number of observations, O."""
        return self.observation.shape[-1]

    @property
    def mdp(self) -> MDP:
        """The process underneath, its state seen: with the expected reward of an action, and the same names."""
        names = [field for field in MDP.__dataclass_fields__ if field != "reward"]
        return checks.assemble(MDP, {name: getattr(self, name) for name in names} | {"reward": self.expected_reward})

    @property
    def expected_reward(self) -> Float[Array, "S A"]:
        """The expected reward of a state and action: all that control under hidden state knows of rewards."""
        reward = self.reward
        if reward.ndim == 4:
            reward = jnp.sum(reward * pomdp_checks.listed(self.successors, self.observation), -1)
        if reward.ndim == 3:
            chances = self.probabilities if self.transition is None else self.transition
            assert chances is not None
            reward = jnp.sum(reward * chances, -1)
        return reward

    @property
    def terminal(self) -> Bool[Array, " S"]:
        """The states that are never left and pay nothing, under every action."""
        return self.mdp.terminal

    def joint(self, belief: Float[Array, " S"], a: Any) -> Float[Array, "S O"]:
        """p(next state, observation | belief, action).

        Args:
            belief: p(state), shape (S,).
            a: The action's position; it may be traced.
        """
        return self.predicted(belief, a)[:, None] * self.observation[:, a]

    def predicted(self, belief: Float[Array, " S"], a: Any) -> Float[Array, " S"]:
        """p(next state | belief, action), before anything is observed."""
        if self.transition is not None:
            return jnp.sum(belief[:, None] * self.transition[:, a], 0)
        assert self.successors is not None and self.probabilities is not None
        lists = self.successors if self.successors.ndim == 2 else self.successors[:, a]
        return jnp.zeros_like(belief).at[lists].add(belief[:, None] * self.probabilities[:, a])

    def update(self, belief: ArrayLike, a: Any, o: Any) -> Float[Array, " S"]:
        """What is believed after an action and an observation: the rule of Bayes.

        Args:
            belief: p(state), shape (S,).
            a: The action: its position, or its name.
            o: The observation: its position, or its name.

        Returns:
            p(next state | belief, action, observation); under JAX's transformations NaN where it cannot be observed,
            or a position lies beyond the last one.

        Raises:
            TypeError: `belief` does not hold real numbers.
            ValueError: `belief` is no distribution over the states, there is no such action or observation, or it
                cannot be observed after this belief and action.
        """
        before = checks.as_reals("belief", belief)
        checks.check_shape("belief", before.shape, [(self.num_states,)], "initial", self.initial.shape)
        before = checks.as_distributions("belief", before, ())
        action = pomdp_checks.position("a", a, self.num_actions, self.action_names)
        seen = pomdp_checks.position("o", o, self.num_observations, self.observation_names)
        shown = self.observation.at[:, action, seen].get(mode="fill", fill_value=jnp.nan)
        likely = self.predicted(before, action) * shown
        total = jnp.sum(likely)
        if checks.is_concrete(total) and not total > 0:
            raise ValueError(
                f"the observation {o!r} has probability 0 after the action {a!r} under this belief: it cannot be "
                "followed by any belief."
            )
        return likely / total

    def anonymous(self) -> "POMDP":
        """The same task without names, so that programs of one shape share one compilation."""
        return checks.assemble(type(self), vars(self) | dict.fromkeys(name for name in vars(self) if "_names" in name))

    def averaged(self) -> "POMDP":
        """The same task with its expected reward (S, A) as its reward, which control does not tell from the other."""
        return checks.assemble(type(self), vars(self) | {"reward": self.expected_reward})

    def as_sparse(self) -> "POMDP":
        """The same task with a sparse transition, as `MDP.as_sparse`.

        Raises:
            ValueError: Under JAX's transformations.
        """
        if self.transition is None:
            return self
        mdp, reward = self.mdp.as_sparse(), self.reward
        if reward.ndim > 2:
            states, actions = np.ogrid[: self.num_states, : self.num_actions]
            reward = reward[states[..., None], actions[..., None], mdp.successors]
        lists = {"transition": None, "successors": mdp.successors, "probabilities": mdp.probabilities}
        return checks.assemble(type(self), vars(self) | lists | {"reward": reward})

    def dense(self) -> "POMDP":
        """The same task with a dense transition; rewards of next states that cannot follow become 0.

        Where a successor is listed more than once, its reward is the mean by probability.
        """
        if self.transition is not None:
            return self
        transition = self.mdp.dense().transition
        assert self.successors is not None and self.probabilities is not None and transition is not None
        reward = pomdp_checks.spread_reward(self.reward, self.successors, self.probabilities, transition)
        fields = {"transition": transition, "successors": None, "probabilities": None, "reward": reward}
        return checks.assemble(type(self), vars(self) | fields)

    def _fill(self, fields: dict[str, Any]) -> None:
        """Set all fields at birth."""
        for name, value in fields.items():
            setattr(self, name, value)
