"""A stochastic game of two players with finitely many states and actions, and one reward between them.

    s_1 ~ p_0,      s_{t+1} ~ P(. | s_t, a_t, b_t),      reward r(s_t, a_t, b_t)  or  r_t(s_t, a_t, b_t)

The agent takes a and the opponent b; r is what the agent gets. Whether the opponent shares the reward or opposes it is
no property of the game: it is the sign of the opponent's inverse temperature in the model that is made of it. So one
array describes a game of common interest and the zero-sum game on the same payoffs; a game in which each has a reward
of its own (general-sum) is not described. The axes are (state, action, opponent's action, next state). The process is
that of Shapley, "Stochastic games" (1953).
"""

from collections.abc import Sequence
from typing import final

import equinox as eqx
from jaxtyping import Array, Float

from rlinf_ppl.tasks import checks
from rlinf_ppl.types import ArrayLike

_FINITE_REWARDS = (
    "rewards must be finite. For actions that are impossible give prior 0 to impossible actions instead, in the model."
)


@final
class StochasticGame(eqx.Module):
    """A finite two-player game with one reward: data only, immutable, checked when it is made.

    A game is a pytree whose leaves are its arrays.

    Attributes:
        transition: P(next state | state, action, opponent's action).
        reward: Expected reward of the agent for a pair of actions, in any unit; with a leading axis T it varies with
            time.
        initial: Distribution of the first state.
        state_names: A name for each state, or None.
        action_names: A name for each action of the agent, or None.
        opponent_action_names: A name for each action of the opponent, or None.
    """

    transition: Float[Array, "S A B S"]
    reward: Float[Array, "S A B"] | Float[Array, "T S A B"]
    initial: Float[Array, " S"]
    state_names: tuple[str, ...] | None = eqx.field(static=True)
    action_names: tuple[str, ...] | None = eqx.field(static=True)
    opponent_action_names: tuple[str, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        transition: ArrayLike,
        reward: ArrayLike,
        initial: ArrayLike,
        *,
        state_names: Sequence[str] | None = None,
        action_names: Sequence[str] | None = None,
        opponent_action_names: Sequence[str] | None = None,
    ) -> None:
        """Make a game.

        Arrays become float32, or float64 where JAX has x64 on.

        Args:
            transition: P(next state | state, action, opponent's action), shape (S, A, B, S).
            reward: Expected reward of the agent, shape (S, A, B), or (T, S, A, B) where it varies over T time steps.
                Finite.
            initial: Distribution of the first state, shape (S,).
            state_names: S different strings.
            action_names: A different strings.
            opponent_action_names: B different strings.

        Raises:
            TypeError: An array does not hold real numbers, or a name is no string.
            ValueError: Shapes do not match, `transition` or `initial` hold something else than distributions, a
                reward is not finite, or the names are too many, too few or not distinct. Under JAX's
                transformations, traced values are not checked.
        """
        table = checks.as_reals("transition", transition)
        checks.check_not_empty("transition", table.shape, ("states", "actions", "opponent's actions", "next states"))
        num_states, num_actions, num_opponent_actions, _ = table.shape
        pairs = num_states, num_actions, num_opponent_actions
        checks.check_shape("transition", table.shape, [(*pairs, num_states)], "its first axis", (num_states,))
        rewards = checks.as_reals("reward", reward)
        first = checks.as_reals("initial", initial)
        checks.check_shape("reward", rewards.shape, [pairs, ("T", *pairs)], "transition", table.shape)
        checks.check_shape("initial", first.shape, [(num_states,)], "transition", table.shape)
        checks.check_finite("reward", rewards, _FINITE_REWARDS)
        first = checks.as_distributions("initial", first, ())
        table = checks.as_distributions("transition", table, ("state", "action", "opponent's action"))
        self.transition, self.reward, self.initial = table, rewards, first
        self.state_names = checks.check_names("state_names", state_names, num_states, "states")
        self.action_names = checks.check_names("action_names", action_names, num_actions, "actions")
        self.opponent_action_names = checks.check_names(
            "opponent_action_names", opponent_action_names, num_opponent_actions, "opponent's actions"
        )

    @classmethod
    def from_payoffs(
        cls,
        payoffs: ArrayLike,
        *,
        action_names: Sequence[str] | None = None,
        opponent_action_names: Sequence[str] | None = None,
    ) -> "StochasticGame":
        """Make a matrix game: one state, which is its own successor.

        With a horizon of 1 it is played once, with a longer one it is repeated.

        Args:
            payoffs: What the agent gets, shape (A, B): a row for each of its actions, a column for each of the
                opponent's. Finite.
            action_names: A different strings.
            opponent_action_names: B different strings.

        Returns:
            The game, with one state.

        Raises:
            TypeError: `payoffs` does not hold real numbers, or a name is no string.
            ValueError: `payoffs` has not two axes or an entry is not finite, or the names do not fit.
        """
        matrix = checks.as_reals("payoffs", payoffs)
        if matrix.ndim != 2:
            raise ValueError(
                f"payoffs has shape {matrix.shape}, with {matrix.ndim} axes: a payoff matrix has 2, a row for each "
                "action of the agent and a column for each of the opponent. For several states make a StochasticGame "
                "of a transition (S, A, B, S) and a reward (S, A, B); for two matrices, one a player, see "
                "rlinf_ppl.tasks.normal_form."
            )
        checks.check_not_empty("payoffs", matrix.shape, ("actions", "opponent's actions"))
        checks.check_finite("payoffs", matrix, _FINITE_REWARDS)
        return cls(
            [[[[1.0]] * matrix.shape[1]] * matrix.shape[0]],
            matrix[None],
            [1.0],
            action_names=action_names,
            opponent_action_names=opponent_action_names,
        )

    @property
    def num_states(self) -> int:
        """The number of states, S."""
        return self.initial.shape[-1]

    @property
    def num_actions(self) -> int:
        """The number of actions of the agent, A."""
        return self.reward.shape[-2]

    @property
    def num_opponent_actions(self) -> int:
        """The number of actions of the opponent, B."""
        return self.reward.shape[-1]

    def anonymous(self) -> "StochasticGame":
        """The same game without names, so that programs of one shape share one compilation."""
        nameless = {"state_names": None, "action_names": None, "opponent_action_names": None}
        return checks.assemble(type(self), vars(self) | nameless)
