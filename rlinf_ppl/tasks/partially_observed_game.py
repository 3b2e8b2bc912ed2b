"""A game of two who share a reward and see different things: a decentralised, partially observed decision process.

    s_1 ~ p_0,              o_1 ~ U_0(. | s_1),            p_1 ~ U'_0(. | s_1),            y_1 ~ Y_0(. | s_1)
    s_{t+1} ~ P(. | s_t, a_t, b_t),     r_t ~ p(. | s_t, a_t, b_t)
    o_{t+1} ~ U(. | s_{t+1}, a_t),      p_{t+1} ~ U'(. | s_{t+1}, b_t),      y_{t+1} ~ Y(. | s_{t+1}, a_t, b_t)

The agent takes a and sees o, the opponent takes b and sees p; both see y, both actions, and what was paid. Nobody sees
the state. (Bernstein et al. 2002, The complexity of decentralized control of Markov decision processes, has no y: here
what is public stands apart, as in Nayyar, Mahajan & Teneketzis 2013, whose coordinator `coordinator` makes.) Where they
take turns, the action of whoever waits changes nothing.
"""

from collections.abc import Sequence
from typing import final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlinf_ppl.algebra.tables import ROW_DIGITS
from rlinf_ppl.tasks import checks
from rlinf_ppl.tasks.coordination import Coordination, coordinate
from rlinf_ppl.tasks.pomdp import POMDP
from rlinf_ppl.tasks.pomdp_checks import as_discount
from rlinf_ppl.types import ArrayLike

_NAMES = (
    ("state_names", "states"),
    ("action_names", "actions"),
    ("opponent_action_names", "opponent's actions"),
    ("observation_names", "observations"),
    ("opponent_observation_names", "opponent's observations"),
    ("public_observation_names", "public observations"),
)


@final
class PartiallyObservedGame(eqx.Module):
    """A finite game of two who share a reward and see different things: data only, immutable, checked when it is made.

    A game is a pytree whose leaves are its arrays.

    Attributes:
        transition: P(next state | state, action, opponent's action).
        reward: Of a state and two actions, in any unit; or the probability of each of `reward_values`.
        reward_values: What may be paid, where the reward is random, or None.
        observation: p(what the agent alone sees | next state, its action).
        opponent_observation: p(what the opponent alone sees | next state, its action).
        public_observation: p(what both see | next state, action, opponent's action).
        initial: Distribution of the first state.
        initial_observation: p(what the agent sees first | first state).
        initial_opponent_observation: p(what the opponent sees first | first state).
        initial_public_observation: p(what both see first | first state).
        discount: gamma in [0, 1].
        state_names: A name for each state, or None; so for the actions, and for what is observed.
    """

    transition: Float[Array, "S A B S"]
    reward: Float[Array, "S A B"] | Float[Array, "S A B R"]
    reward_values: Float[Array, " R"] | None
    observation: Float[Array, "S A O"]
    opponent_observation: Float[Array, "S B P"]
    public_observation: Float[Array, "S A B Y"]
    initial: Float[Array, " S"]
    initial_observation: Float[Array, "S O"]
    initial_opponent_observation: Float[Array, "S P"]
    initial_public_observation: Float[Array, "S Y"]
    discount: Float[Array, ""]
    state_names: tuple[str, ...] | None = eqx.field(static=True)
    action_names: tuple[str, ...] | None = eqx.field(static=True)
    opponent_action_names: tuple[str, ...] | None = eqx.field(static=True)
    observation_names: tuple[str, ...] | None = eqx.field(static=True)
    opponent_observation_names: tuple[str, ...] | None = eqx.field(static=True)
    public_observation_names: tuple[str, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        transition: ArrayLike,
        reward: ArrayLike,
        observation: ArrayLike,
        opponent_observation: ArrayLike,
        public_observation: ArrayLike,
        initial: ArrayLike,
        *,
        initial_observation: ArrayLike | None = None,
        initial_opponent_observation: ArrayLike | None = None,
        initial_public_observation: ArrayLike | None = None,
        reward_values: ArrayLike | None = None,
        discount: ArrayLike = 1.0,
        state_names: Sequence[str] | None = None,
        action_names: Sequence[str] | None = None,
        opponent_action_names: Sequence[str] | None = None,
        observation_names: Sequence[str] | None = None,
        opponent_observation_names: Sequence[str] | None = None,
        public_observation_names: Sequence[str] | None = None,
    ) -> None:
        """Make a game.

        Arrays become float32, or float64 where JAX has x64 on.

        Args:
            transition: P(next state | state, action, opponent's action), shape (S, A, B, S).
            reward: What a state and two actions pay, shape (S, A, B), finite; as both see it, rewards that differ by
                rounding alone are made equal. With `reward_values` the probability of each of them, shape
                (S, A, B, R).
            observation: p(observation | next state, action), shape (S, A, O): the agent alone sees it.
            opponent_observation: p(observation | next state, opponent's action), shape (S, B, P).
            public_observation: p(observation | next state, action, opponent's action), shape (S, A, B, Y).
            initial: Distribution of the first state, shape (S,).
            initial_observation: p(observation | first state), shape (S, O); None: always 0, which tells nothing.
            initial_opponent_observation: The same of the opponent, shape (S, P).
            initial_public_observation: The same of both, shape (S, Y).
            reward_values: What may be paid, shape (R,), finite, where the reward is random.
            discount: gamma in [0, 1].
            state_names: S different strings.
            action_names: A different strings.
            opponent_action_names: B different strings.
            observation_names: O different strings.
            opponent_observation_names: P different strings.
            public_observation_names: Y different strings.

        Raises:
            TypeError: An array does not hold real numbers, or a name is no string.
            ValueError: Shapes do not match, an array holds something else than distributions, a reward is not finite,
                the discount lies outside of [0, 1], or names are too many, too few or not distinct. Under JAX's
                transformations, traced values are not checked.
        """
        table = checks.as_reals("transition", transition)
        checks.check_not_empty("transition", table.shape, ("states", "actions", "opponent's actions", "next states"))
        states, actions, others, _ = table.shape
        shape, pair = table.shape, ("action", "opponent's action")
        checks.check_shape("transition", shape, [(*shape[:3], states)], "its first axis", (states,))
        self.transition = checks.as_distributions("transition", table, ("state", *pair))
        self.initial = _table("initial", initial, (states,), (), shape)
        self.observation = _table("observation", observation, (states, actions, "O"), ("next state", pair[0]), shape)
        self.opponent_observation = _table(
            "opponent_observation", opponent_observation, (states, others, "P"), ("next state", pair[1]), shape
        )
        self.public_observation = _table(
            "public_observation", public_observation, (states, actions, others, "Y"), ("next state", *pair), shape
        )
        self.initial_observation = _first("initial_observation", initial_observation, self.observation)
        self.initial_opponent_observation = _first(
            "initial_opponent_observation", initial_opponent_observation, self.opponent_observation
        )
        self.initial_public_observation = _first(
            "initial_public_observation", initial_public_observation, self.public_observation
        )
        self.reward, self.reward_values = _rewards(reward, reward_values, shape)
        self.discount = as_discount(discount)
        given = (state_names, action_names, opponent_action_names) + (
            observation_names,
            opponent_observation_names,
            public_observation_names,
        )
        private = (self.num_observations, self.num_opponent_observations, self.num_public_observations)
        for (field, counted), names, count in zip(_NAMES, given, (states, actions, others, *private), strict=True):
            setattr(self, field, checks.check_names(field, names, count, counted))

    @property
    def num_states(self) -> int:
        """The number of states, S."""
        return self.initial.shape[-1]

    @property
    def num_actions(self) -> int:
        """The number of actions of the agent, A."""
        return self.public_observation.shape[-3]

    @property
    def num_opponent_actions(self) -> int:
        """The number of actions of the opponent, B."""
        return self.public_observation.shape[-2]

    @property
    def num_observations(self) -> int:
        """The number of observations of the agent, O."""
        return self.observation.shape[-1]

    @property
    def num_opponent_observations(self) -> int:
        """The number of observations of the opponent, P."""
        return self.opponent_observation.shape[-1]

    @property
    def num_public_observations(self) -> int:
        """The number of public observations, Y."""
        return self.public_observation.shape[-1]

    @property
    def expected_reward(self) -> Float[Array, "S A B"]:
        """The expected reward of a state and two actions."""
        if self.reward_values is None:
            return self.reward
        return jnp.sum(self.reward * jnp.broadcast_to(self.reward_values, self.reward.shape), -1)

    def coordinator(self, first_public: int | None = None, reward_seen: bool = True) -> POMDP:
        """The game as a task of one agent, who knows what both know and tells each what to do on what it sees alone.

        Its states, actions and observations are numbered; `coordination` says what they stand for.

        Args:
            first_public: The public observation that the game begins with; None where only one can occur.
            reward_seen: Whether both see what was paid.

        Returns:
            A sparse task with the game's discount. The values of its best plans are those of the best policies on all
            that is public and on the last private observation, for the game under `first_public`.

        Raises:
            ValueError: Several first public observations can occur, or it cannot, or the task would be too large, or
                the game is traced by a transformation of JAX.
        """
        return self.coordination(first_public, reward_seen).task

    def coordination(self, first_public: int | None = None, reward_seen: bool = True) -> Coordination:
        """The coordinator's task together with what its numbers stand for; arguments as those of `coordinator`."""
        return coordinate(self, first_public, reward_seen)

    def anonymous(self) -> "PartiallyObservedGame":
        """The same game without names, so that programs of one shape share one compilation."""
        return checks.assemble(type(self), vars(self) | {field: None for field, _ in _NAMES})


def _table(
    name: str, value: ArrayLike, shape: tuple[int | str, ...], conditions: tuple[str, ...], source: tuple[int, ...]
) -> Float[Array, "..."]:
    """Distributions of a shape that the transition's implies."""
    array = checks.as_reals(name, value)
    checks.check_shape(name, array.shape, [shape], "transition", source)
    return checks.as_distributions(name, array, conditions)


def _first(name: str, value: ArrayLike | None, later: Float[Array, "S *_ O"]) -> Float[Array, "S O"]:
    """What is seen first, given the first state; of what is seen `later`. None: always observation 0."""
    shape = later.shape[0], later.shape[-1]
    if value is None:
        return jnp.asarray(np.eye(1, shape[1])[np.zeros(shape[0], int)], float)
    array = checks.as_reals(name, value)
    checks.check_shape(name, array.shape, [shape], name.removeprefix("initial_"), later.shape)
    return checks.as_distributions(name, array, ("first state",))


def _equal_but_for_rounding(rewards: Float[Array, "S A B"]) -> Float[Array, "S A B"]:
    """Rewards whose levels are further apart than rounding: those that are not tell nothing of what is hidden."""
    if not checks.is_concrete(rewards):
        return rewards
    levels, which = np.unique(np.asarray(rewards), return_inverse=True)
    apart = np.diff(levels, prepend=-np.inf) > ROW_DIGITS * np.finfo(levels.dtype).eps * np.abs(levels).max()
    return jnp.asarray(levels[apart][np.cumsum(apart) - 1][which.reshape(rewards.shape)])


def _rewards(
    reward: ArrayLike, values: ArrayLike | None, source: tuple[int, ...]
) -> tuple[Float[Array, "S A B *R"], Float[Array, " R"] | None]:
    """The rewards, or the probabilities of what may be paid and that itself, checked."""
    rewards, triples = checks.as_reals("reward", reward), source[:3]
    if values is None:
        if rewards.ndim == 4:
            raise ValueError(
                f"reward has shape {rewards.shape}, a probability of each of several rewards: say in reward_values "
                "what each pays, or give what is expected, of shape (S, A, B)."
            )
        checks.check_shape("reward", rewards.shape, [triples], "transition", source)
        checks.check_finite("reward", rewards, "rewards must be finite; give prior 0 to impossible actions instead.")
        return _equal_but_for_rounding(rewards), None
    paid = checks.as_reals("reward_values", values)
    checks.check_not_empty("reward_values", paid.shape, ("rewards",))
    checks.check_finite("reward_values", paid)
    checks.check_shape("reward", rewards.shape, [(*triples, len(paid))], "reward_values", paid.shape)
    return checks.as_distributions("reward", rewards, ("state", "action", "opponent's action")), paid
