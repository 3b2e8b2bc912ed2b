"""Level-k reasoning: a chain of replies to imagined actions (GR2; Wen, Yang & Wang 2019, bounded rationality).

Level 0 acts by its prior. Each level above imagines an action of the level below, of the other player, and replies to
that action. With p_j the action prior of whoever thinks at level j, tau_j its inverse temperature, x_j its action and
u(s, a, b) what a pair of actions is worth to a thought,

    x_0 ~ p_0(. | s),     x_j ~ p_j(x_j | s) exp(tau_j u(s, x_j, x_{j-1})) / Z_j(s, x_{j-1}),     j = 1 .. k-1
    b = x_{k-1},          a ~ the agent's decision, prior p(a | s),     optimality r(s, a, b),     s' ~ P(. | s, a, b)

x_{k-1} is the opponent's action, x_{k-2} what the opponent thinks the agent will do, and so on down. The thoughts are
chance: they follow their laws, each with a normaliser of its own, and nothing that comes later changes them. Only the
top is the agent's to choose, with all that follows behind it. So with beta the agent's inverse temperature and
rho(b | s) the law of x_{k-1}, which does not depend on the agent's choice,

    Q(s, a, b) = r + gamma E V(s'),   pi(a | s, b) = p exp(beta Q) / Z,   V(s) = sum_b rho(b | s) CE_beta(Q(s, ., b); p)

The sign of the opponent's inverse temperature says whether it shares the reward or opposes it, in all thoughts.

What this is, and is not:

* pi(a | s, b) replies to b as if b were seen, which is what GR2 means by a reply, and V is the value of an agent whose
  thought comes true. An agent that acts on a thought of its own executes sum_b rho(b | s) pi(a | s, b), independently
  of the true b, and gets less. Were the thought known to be only a draw, the best reply would ignore it, and answer the
  law rho: the thought helps as far as it is believed.
* Thoughts look at u, by default the reward of this step: they are as short-sighted as the one-shot games of the paper.
  For thoughts that look ahead pass action values, such as r + gamma P V with the V of another model.
* A level replies to an action that it draws from the level below, not to the distribution of the level below, as
  the quantal level-k models of Stahl & Wilson (1994) do.
* For common rewards and equal inverse temperatures two thoughts in turn are one sweep of a Gibbs sampler whose law is
  p(a) p'(b) exp(beta u(a, b)) / Z. So in a one-shot game the thoughts of ever higher levels tend to the joint policy of
  ROMMEO and PR2 with the same priors: agreement without talking, if the reasoning goes deep enough.
"""

import functools
from typing import Any, NamedTuple

import numpyro
from jaxtyping import Array, Float
from numpyro.distributions import Categorical

from rlinf_ppl.algebra.compiled import compiled
from rlinf_ppl.algebra.numerics import soft_maximum
from rlinf_ppl.models.arguments import action_prior, check_game, inverse_temperature, whole_number
from rlinf_ppl.models.dynamics import first_state, next_state, varying_each, varying_task
from rlinf_ppl.program import ControlProgram, decide, optimality
from rlinf_ppl.tasks import StochasticGame, checks
from rlinf_ppl.types import ArrayLike


class Minds(NamedTuple):
    """How both players start to think, and how they reply; each may have a leading time axis.

    Attributes:
        prior: the agent's p(a | s), (S, A).
        opponent_prior: the opponent's p(b | s), (S, B).
        reply: the law of the agent's imagined reply, (S, B, A).
        opponent_reply: the law of the opponent's reply, (S, A, B).
    """

    prior: Array
    opponent_prior: Array
    reply: Array
    opponent_reply: Array


RANKS = (2, 2, 3, 3)


def step(level: int, game: StochasticGame, minds: Minds, beta: Array, s: Any) -> dict[str, Any]:
    """One step of the model: the thoughts from level 0 to the opponent's action, then the agent's decision."""
    b = None
    for below in range(level):
        opponent = (level - below) % 2 == 1
        start, reply = (minds.opponent_prior, minds.opponent_reply) if opponent else (minds.prior, minds.reply)
        law = start[s] if below == 0 else reply[s, b]
        b = numpyro.sample(site(level, below), Categorical(probs=law))
    a = decide("a", Categorical(probs=minds.prior[s]), inverse_temperature=beta)
    optimality(game.reward[s, a, b])
    return {"s": next_state(game, s, a, b)}


# The same step for the same level, so that programs of one form are equal and share compiled code.
at_level = functools.lru_cache(maxsize=64)(functools.partial)


def site(level: int, below: int) -> str:
    """What the action of a level below the agent's is called: `b` next to it, else its player and level."""
    return "b" if below == level - 1 else f"{'b' if (level - below) % 2 == 1 else 'a'}_{below}"


def level_k(
    game: StochasticGame,
    horizon: int | None,
    level: int,
    beta: ArrayLike,
    opponent_beta: ArrayLike,
    prior: ArrayLike | None = None,
    opponent_prior: ArrayLike | None = None,
    discount: ArrayLike = 1.0,
    action_values: ArrayLike | None = None,
) -> ControlProgram:
    """An agent of level k, which replies to an opponent of level k - 1.

    Args:
        game: the game, S states, A actions of the agent and B of the opponent; its reward may have a leading time axis
            of length `horizon`.
        horizon: number of steps T; None: without end, which needs a discount below 1 and nothing that varies in time.
        level: k, at least 1: at 1 the opponent acts by its prior.
        beta: the agent's inverse temperature, as it decides and as it is imagined; in nats per unit of reward.
        opponent_beta: the opponent's: negative, it wants the agent to get little.
        prior: p(a | s), shape (S, A) or (T, S, A); default uniform. Zeros forbid an action.
        opponent_prior: p(b | s), shape (S, B) or (T, S, B); default uniform.
        discount: gamma in [0, 1].
        action_values: u(s, a, b), what pairs of actions are worth to the thoughts, in units of reward, shape (S, A, B)
            or (T, S, A, B); default the game's reward.

    Returns:
        The program, with state `s`, chance sites for the thoughts (`a_0`, `b_1`, ... by player and level), `b` for the
        opponent's action, and the decision `a`; values in units of reward.

    Raises:
        TypeError: on something else than a StochasticGame, or a level that is no whole number.
        ValueError: on a level below 1, shapes that do not fit, prior rows that are no distributions, action values that
            are not finite, or an inverse temperature that is no number.
    """
    check_game(game, horizon)
    level = whole_number("level", level, "level 0 acts by its prior and decides nothing; give at least 1")
    states, actions, others = game.num_states, game.num_actions, game.num_opponent_actions
    own = action_prior("prior", prior, horizon, ("state",), (states, actions))
    other = action_prior("opponent_prior", opponent_prior, horizon, ("state",), (states, others))
    values = worth(game, horizon, action_values)
    tau = inverse_temperature("beta", beta)
    other_tau = inverse_temperature("opponent_beta", opponent_beta)
    minds = Minds(own, other, replies(own, values.swapaxes(-1, -2), tau), replies(other, values, other_tau))
    args = varying_task(game), varying_each(minds, RANKS), tau
    return ControlProgram(first_state, at_level(step, level), horizon, discount, args=args)


def worth(game: StochasticGame, horizon: int | None, action_values: ArrayLike | None) -> Float[Array, "..."]:
    """What pairs of actions are worth to the thoughts, checked."""
    if action_values is None:
        return game.reward
    values, shape = checks.as_reals("action_values", action_values), game.reward.shape[-3:]
    shapes = [shape] if horizon is None else [shape, (horizon, *shape)]
    checks.check_shape("action_values", values.shape, shapes, "the game's reward", game.reward.shape)
    checks.check_finite("action_values", values)
    return values


@compiled
def replies(prior: Float[Array, "..."], values: Float[Array, "..."], tau: Float[Array, ""]) -> Float[Array, "..."]:
    """The soft best replies p(y | s) exp(tau u(s, x, y)) / Z, over the last axis of `values`, (..., S, x, y)."""
    rows = prior[..., None, :]
    if rows.ndim < values.ndim:
        rows = rows[None]
    elif values.ndim < rows.ndim:
        values = values[None]
    return soft_maximum(rows, values, tau)[0]
